"""Several attributes at once: a table, networks that read one 0 or 1 for each, and samples."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.prepare import read_attributes
from dcgan_lib.errors import UserError
from dcgan_lib.models.networks import new_discriminator, new_generator
from dcgan_lib.models.sampling import labels_alike, labels_in_turn
from dcgan_lib.training.checkpoints import draw, load_config
from dcgan_lib.training.loop import Batches
from dcgan_lib.widgets.export import export_generator

NAMES = ("smiling", "glasses")
MODEL = ModelConfig(image_size=(8, 8), base_width=2, z_dim=4, attributes=NAMES)


@pytest.mark.parametrize("architecture", ["convolutional", "residual"])
def test_networks_read_one_unit_for_each_attribute(architecture):
    config = dataclasses.replace(MODEL, architecture=architecture)
    assert config.num_classes == 2
    torch.manual_seed(0)
    generator, discriminator = new_generator(config).eval(), new_discriminator(config).eval()
    z_bd, labels_bk = torch.ones(4, 4), labels_in_turn(4, config)
    assert labels_bk.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    with torch.no_grad():
        pictures = generator(z_bd, labels_bk)
        assert discriminator(pictures, labels_bk).shape == (4,)
    differing = [not torch.allclose(pictures[0], pictures[at], atol=1e-7) for at in (1, 2, 3)]
    assert all(differing)
    with pytest.raises(UserError, match="labels of attributes must have shape"):
        generator(z_bd, labels_bk[:, :1])


def test_a_configuration_with_attributes_is_kept():
    config = TrainConfig(model=MODEL)
    assert from_dict(to_dict(config)) == config
    for wrong in ({"attributes": ("a", "a")}, {"attributes": ("a", "b"), "num_classes": 3}):
        with pytest.raises(UserError, match="different names, and num_classes left out"):
            ModelConfig(**wrong)


def test_batches_give_the_attributes_of_their_images():
    flags = np.random.default_rng(0).random((12, 2)) < 0.5
    images_u8 = np.zeros((12, 3, 8, 8), np.uint8)
    images_u8[:, 0], images_u8[:, 1] = (255 * flags[:, at, None, None] for at in range(2))
    known = {"glasses": flags[:, 1], "smiling": flags[:, 0]}
    image_set = ImageSet(name="people", images_u8=images_u8, attributes=known)
    config = TrainConfig(model=MODEL, batch_size=6)
    x_bchw, labels_bk = Batches(image_set, config, torch.device("cpu"))(0)
    assert torch.equal(x_bchw[:, :2, 0, 0] > 0, labels_bk == 1)
    hats = dataclasses.replace(MODEL, attributes=("hat", "glasses"))
    with pytest.raises(UserError, match="no yes-or-no attribute 'hat'; it has: glasses, smiling"):
        Batches(image_set, dataclasses.replace(config, model=hats), torch.device("cpu"))


def test_a_table_is_read_by_file_and_its_mistakes_are_named():
    table = "file, smiling,glasses\nb.png,1,0\na/c.png,-1,1\n"
    found = read_attributes(table, ["a/c.png", "b.png"])
    assert {name: flags.tolist() for name, flags in found.items()} == {
        "smiling": [False, True],
        "glasses": [True, False],
    }
    for wrong, said in (
        ("file,smiling\nb.png,yes\n", "gives b.png the values yes: write a 0 or 1"),
        ("file,smiling\nb.png,1,1\n", "gives b.png the values 1, 1"),
        ("file,smiling\na.png,1\n", "no row for 1 of 1 images, such as b.png"),
        ("file,one,one\nb.png,1,1\n", "with different names"),
        ("file,big smile\nb.png,1\n", "names of letters, digits"),
        ("file,file\nb.png,1\n", "but got 'file,file'"),
        ("", "the first row of a table"),
    ):
        with pytest.raises(UserError, match=said):
            read_attributes(wrong, ["b.png"])


@pytest.fixture
def people(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    rows, rng = ["file,smiling,glasses"], np.random.default_rng(0)
    Path("people").mkdir()
    for number in range(16):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path("people", f"{number}.png"))
        rows.append(f"{number}.png,{number % 2},{number // 2 % 2}")
    Path("people/table.csv").write_text("\n".join(rows))
    return tmp_path


def test_from_a_table_to_samples_with_and_without_an_attribute(people, capsys):
    def run(words: str) -> int:
        return cli.main(words.split())

    prepare = "prepare people --name people --image-size 16 16"
    assert run(f"{prepare} --attributes people/table.csv") == 0
    Path("people/table.csv").write_text("file,smiling\n")
    assert run(f"{prepare} --attributes people/table.csv") == 2
    assert run(f"{prepare} --attributes nowhere.csv") == 2
    assert "nowhere.csv cannot be read" in capsys.readouterr().err
    tiny = "--image-size 16 16 --base-width 2 --z-dim 4 --batch-size 4 --threads 1"
    train = f"train --recipe faces --set people {tiny} --steps 2 --run-dir run --num-samples 8"
    assert run(f"{train} --attributes smiling glasses") == 0
    assert run(f"{train} --attributes smiling glasses") == 0  # and goes on
    assert load_config("run")[0].model.attributes == NAMES
    assert run("sample run --attributes smiling=1,glasses=0 --num-images 4") == 0
    assert run("sample run --attributes smiling=1,hat=0") == 2
    assert "one of the run's: smiling, glasses" in capsys.readouterr().err
    assert run("sample run --attributes smiling=yes") == 2
    assert run("sample run --label 1") == 2
    in_turn, fixed = draw("run", 4), draw("run", 4, attributes={"smiling": True, "glasses": False})
    same = [np.array_equal(a, b) for a, b in zip(in_turn, fixed, strict=True)]
    assert same[1] and not all(same)
    assert run("sample run --best 2 --num-images 4") == 0


def test_a_number_names_a_combination_wherever_pictures_are_alike():
    """Films and projections take one label for all their pictures."""
    assert labels_alike(3, 2, MODEL).tolist() == [[0, 1]] * 3
    with pytest.raises(UserError, match="0 to 3"):
        labels_alike(3, 4, MODEL)


def test_pages_refuse_what_they_have_no_control_for():
    with pytest.raises(UserError, match="offers classes and no attributes"):
        export_generator(new_generator(MODEL).eval(), "people")
