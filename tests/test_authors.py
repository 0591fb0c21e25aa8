"""The authors' released networks: the same outputs in this library, and damage that is refused.

No file of theirs is needed: networks of this library are written out in their format.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, Recipe, TrainConfig, recipe
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import ConvFeatures
from dcgan_lib.models.networks import untrained_discriminator, untrained_generator
from dcgan_lib.models.sampling import logits_of
from dcgan_lib.training.authors import (
    RELEASED,
    ImportAuthors,
    Released,
    find_released,
    images_to_measure_on,
    measure_discriminator,
    read_pair,
)
from dcgan_lib.training.checkpoints import load_config, load_discriminator, load_generator

SVHN, IMAGENET = RELEASED
MODELS = [
    ModelConfig(image_size=(24, 16), base_width=4, z_dim=6, bn_eps=1e-8),
    ModelConfig(
        image_size=(16, 16),
        base_width=4,
        z_dim=6,
        kernel_size=3,
        convs_per_stage=2,
        num_stages=3,
        bn_eps=1e-8,
    ),
]


def small(model: ModelConfig) -> Released:
    """Describe a small pair as the authors' are described."""
    own = Recipe(name="small", image_set="svhn", summary="", config=TrainConfig(model=model))
    return Released(name="small", folder="small_net", epoch=7, recipe=own, sets=("none-of-ours",))


# --- a network of ours in their format ---
def turned(weight: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(np.flip(weight.detach().numpy(), (2, 3)))


def arrays_of_discriminator(network) -> list[np.ndarray]:
    arrays = [turned(network.convs[0].weight)]
    for conv, norm in zip(network.convs[1:], network.norms[1:], strict=True):
        arrays += [turned(conv.weight), norm.weight.detach().numpy(), norm.bias.detach().numpy()]
    with torch.no_grad():
        maps = network.features(torch.zeros(1, 3, *network.config.image_size))[-1]
    channels, height, width = maps.shape[1:]
    head = network.head.weight.detach().numpy().reshape(height, width, channels)
    return [*arrays, np.ascontiguousarray(np.moveaxis(head, 2, 0).reshape(-1, 1))]


def arrays_of_generator(network) -> list[np.ndarray]:
    arrays = [np.ascontiguousarray(network.project.weight.detach().numpy().T)]
    norms = [network.project_norm, *network.norms]
    for norm, conv in zip(norms, network.convs, strict=True):
        arrays += [norm.weight.detach().numpy(), norm.bias.detach().numpy(), turned(conv.weight)]
    return arrays


def write_parts(folder: Path, released: Released, kind: str, arrays: list[np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays, start=1):
        np.save(folder / f"{released.epoch}_{kind}_params.jl_{number:02d}.npy", array)


def with_random_norms(network):
    rng = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.data = torch.rand(parameter.shape, generator=rng) + 0.5
    return network


def write_released(folder: Path, released: Released):
    """Write both networks of a pair in the authors' format, and return them."""
    model = released.recipe.config.model
    discriminator = with_random_norms(untrained_discriminator(model, 3))
    generator = with_random_norms(untrained_generator(model, 4))
    write_parts(folder, released, "discrim", arrays_of_discriminator(discriminator))
    write_parts(folder, released, "gen", arrays_of_generator(generator))
    return discriminator, generator


def images(num: int, model: ModelConfig) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(num, model.num_channels, *model.image_size, generator=rng) * 2 - 1


# --- the same network ---
@pytest.mark.parametrize("model", MODELS, ids=["kernel 5", "kernel 3"])
def test_a_released_network_gives_the_same_outputs_here(tmp_path, model):
    discriminator, generator = write_released(tmp_path, small(model))
    pair = read_pair(small(model), tmp_path)
    assert pair.lacking == () and pair.notes == []
    x_bchw, z_bd = images(8, model), torch.randn(8, 6)
    with torch.no_grad():  # by the batch's statistics, as the authors' networks ran
        expected = discriminator.train()(x_bchw), generator.train()(z_bd)
        found = pair.discriminator.train()(x_bchw), pair.generator.train()(z_bd)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("part", ["discrim_params.jl_01", "gen_params.jl_04"])
def test_a_kernel_that_is_not_turned_would_be_noticed(tmp_path, part):
    """The twin of the test above: one kernel in PyTorch's order, and outputs differ."""
    discriminator, generator = write_released(tmp_path, small(MODELS[0]))
    path = tmp_path / f"7_{part}.npy"
    np.save(path, np.flip(np.load(path), (2, 3)))
    pair = read_pair(small(MODELS[0]), tmp_path)
    x_bchw, z_bd = images(8, MODELS[0]), torch.randn(8, 6)
    with torch.no_grad():
        if part.startswith("discrim"):
            expected, found = discriminator.train()(x_bchw), pair.discriminator.train()(x_bchw)
        else:
            expected, found = generator.train()(z_bd), pair.generator.train()(z_bd)
    assert not torch.allclose(found, expected, rtol=0.01, atol=1e-3)


def test_the_output_is_flattened_map_by_map_there(tmp_path):
    """A weight of 1 for the cell in row 1, column 0 of map 2, found by its place in their file."""
    write_released(tmp_path, small(MODELS[0]))
    path = tmp_path / "7_discrim_params.jl_05.npy"
    model, head = MODELS[0], np.zeros_like(np.load(path))
    pair = read_pair(small(model), tmp_path)
    with torch.no_grad():
        maps = pair.discriminator.features(images(2, model))[-1]
    height, width = maps.shape[2:]
    head[2 * height * width + 1 * width + 0] = 1
    np.save(path, head)
    with torch.no_grad():
        logits = read_pair(small(model), tmp_path).discriminator(images(2, model))
    torch.testing.assert_close(logits, maps[:, 2, 1, 0])


def test_a_layer_convolves_as_theano_did(tmp_path):
    """SciPy convolves, too: the file's kernels, as they are, give the first layer."""
    write_released(tmp_path, small(MODELS[0]))
    kernels = np.load(tmp_path / "7_discrim_params.jl_01.npy")
    x_chw = images(1, MODELS[0])[0].numpy()
    padded = np.pad(x_chw, ((0, 0), (2, 2), (2, 2)))
    summed = np.stack(
        [
            sum(
                convolve2d(plane, part, "valid") for plane, part in zip(padded, kernel, strict=True)
            )
            for kernel in kernels
        ]
    )[:, ::2, ::2]
    with torch.no_grad():
        found = read_pair(small(MODELS[0]), tmp_path).discriminator.features(images(1, MODELS[0]))
    expected = np.where(summed > 0, summed, 0.2 * summed)
    np.testing.assert_allclose(found[0][0].numpy(), expected, atol=1e-5)


def test_parts_have_the_numbers_and_shapes_of_the_release(tmp_path):
    """As in their repository: 8 and 10 parts for SVHN; of ImageNet, 11 and 14 are layers 5, 6."""
    write_released(tmp_path, SVHN)
    shapes = [np.load(SVHN.path(tmp_path, "discrim", n)).shape for n in range(1, 9)]
    assert shapes == [
        *[(64, 3, 5, 5), (128, 64, 5, 5), (128,), (128,)],
        *[(256, 128, 5, 5), (256,), (256,), (4096, 1)],
    ]
    shapes = [np.load(SVHN.path(tmp_path, "gen", n)).shape for n in range(1, 11)]
    assert shapes == [
        *[(100, 4096), (4096,), (4096,), (256, 128, 5, 5), (128,), (128,)],
        *[(128, 64, 5, 5), (64,), (64,), (64, 3, 5, 5)],
    ]
    (tmp_path / "other").mkdir()
    np.save(IMAGENET.path(tmp_path / "other", "discrim", 1), np.zeros((128, 3, 3, 3), np.float32))
    [missing, *_] = read_pair(IMAGENET, tmp_path / "other").notes
    assert "30_discrim_params.jl_11.npy (layer 5)" in missing
    assert "30_discrim_params.jl_14.npy (layer 6)" in missing
    assert missing.endswith("30_discrim_params.jl_17.npy (output)")


# --- the command ---
@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A clone of the authors' repository with the SVHN pair, and images to measure on."""
    root = tmp_path_factory.mktemp("release")
    write_released(root / "dcgan_code" / "models" / SVHN.folder, SVHN)
    rng = np.random.default_rng(0)
    for number in range(200):
        kind = root / "photos" / f"class{number % 2}"
        kind.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
    return root


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    return tmp_path


def run(*words) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.drives("import-authors")
def test_a_clone_becomes_a_checkpoint_that_other_commands_take(release, place, capsys):
    photos = release / "photos"
    assert run("import-authors", release / "dcgan_code", "--set", photos) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0] == "runs/authors-svhn"
    assert "whole discriminator; batch norm measured on" in told and "images of photos" in told
    assert "whole generator; batch norm measured on 2,560 pictures of its own" in told
    assert sorted(path.name for path in Path("runs/authors-svhn").iterdir()) == [
        "config.json",
        "discriminator.safetensors",
        "generator.safetensors",
    ]
    config, about = load_config("runs/authors-svhn")
    assert config == recipe("paper-svhn").config and about["image_set"] == "svhn"
    assert about["command"] == f"dcgan import-authors --set {photos}"
    assert run("sample", "runs/authors-svhn", "--num-images", 4) == 0
    pixels = np.asarray(Image.open(photos / "class0" / "0.png"))
    x_u8 = np.stack([pixels.transpose(2, 0, 1)] * 2)
    assert ConvFeatures(load_discriminator("runs/authors-svhn"))(x_u8).shape == (2, 7168)
    norm = load_generator("runs/authors-svhn").project_norm
    assert norm.running_mean.abs().max() > 0 and norm.eps == 1e-8

    # once more, in place of the first; and never in place of something else
    Path("runs/authors-svhn/generator.safetensors").unlink()
    assert run("import-authors", release / "dcgan_code" / "models", "--set", photos) == 0
    assert Path("runs/authors-svhn/generator.safetensors").is_file()
    config_path = Path("runs/authors-svhn/config.json")
    content = json.loads(config_path.read_text())
    del content["about"]["released"]
    config_path.write_text(json.dumps(content))
    capsys.readouterr()
    assert run("import-authors", release / "dcgan_code", "--set", photos) == 2
    assert "holds something other than an earlier import" in capsys.readouterr().err


def test_the_command_line_names_no_folder():
    """It is only where the same files lie, so a recorded command holds on every machine."""
    assert ImportAuthors(folder=Path("/somewhere")).command_line() == "dcgan import-authors"
    assert ImportAuthors(set="svhn10k").command_line() == "dcgan import-authors --set svhn10k"


def test_the_usual_folder_lies_in_the_data_folder(release, place):
    shutil.copytree(release / "dcgan_code" / "models", place / "data" / "authors-weights")
    shutil.copytree(release / "photos", place / "data" / "photos")
    assert run("import-authors", "--set", "photos") == 0
    about = load_config("runs/authors-svhn")[1]
    assert about["command"] == "dcgan import-authors --set photos"
    assert about["batch_norm"]["discriminator"].endswith("images of photos")


def test_the_first_usual_set_that_is_there_is_measured_on(release, place):
    released = replace(small(MODELS[0]), sets=("not-here", "photos", "nor-here"))
    assert images_to_measure_on(released, None) is None
    shutil.copytree(release / "photos", place / "data" / "photos")
    images = images_to_measure_on(released, None)
    assert images.name == "photos" and images.image_size == MODELS[0].image_size
    with pytest.raises(UserError, match="no image set or folder 'not-here'"):
        images_to_measure_on(released, "not-here")


def test_without_images_the_discriminator_is_left_out(release, place, capsys):
    assert run("import-authors", release / "dcgan_code") == 0
    told = capsys.readouterr().out
    assert "the discriminator is left out: its batch norm is measured on images" in told
    assert "has neither svhn nor svhn10k; give --set NAME" in told
    assert not Path("runs/authors-svhn/discriminator.safetensors").exists()
    with pytest.raises(UserError, match="it keeps its generator alone"):
        load_discriminator("runs/authors-svhn")


# --- what is missing ---
def test_without_its_last_layers_a_discriminator_is_the_network_of_the_first(tmp_path):
    """Two convolutions a stage: without layer 4 the first stage is left, without an output."""
    model = MODELS[1]
    discriminator, _ = write_released(tmp_path, small(model))
    (tmp_path / "7_discrim_params.jl_08.npy").unlink()
    pair = read_pair(small(model), tmp_path)
    assert pair.lacking == ("layer 3", "layer 4", "layer 5", "layer 6", "output")
    assert pair.config.model == replace(model, num_stages=1) and pair.generator is None
    assert "7_discrim_params.jl_08.npy (layer 4)" in pair.notes[0]
    assert "both networks have one shape" in pair.notes[1]
    names = set(pair.discriminator.state_dict())
    assert "head.weight" not in names and "convs.2.weight" not in names
    with torch.no_grad():
        expected = discriminator.train().features(images(4, model))[:2]
        found = pair.discriminator.train().features(images(4, model))
    torch.testing.assert_close(found, expected)


def test_a_stage_that_is_not_whole_is_not_kept(tmp_path):
    write_released(tmp_path, small(MODELS[1]))
    (tmp_path / "7_discrim_params.jl_03.npy").unlink()
    pair = read_pair(small(MODELS[1]), tmp_path)
    assert pair.discriminator is None and pair.generator is not None
    assert "none of its stages is whole" in pair.notes[1]


@pytest.mark.parametrize(
    ("part", "where"), [("01", "layer 1"), ("06", "layer 2"), ("10", "layer 4")]
)
def test_a_generator_without_a_part_is_left_out(release, tmp_path, part, where):
    shutil.copytree(release / "dcgan_code" / "models" / SVHN.folder, tmp_path / "net")
    (tmp_path / "net" / f"200_gen_params.jl_{part}.npy").unlink()
    pair = read_pair(SVHN, tmp_path / "net")
    assert pair.generator is None and pair.discriminator is not None
    assert pair.notes == [
        f"of the generator there is no 200_gen_params.jl_{part}.npy ({where}), so it is left out"
    ]


@pytest.fixture
def first_layers(release, place):
    """A checkpoint of the SVHN discriminator without its third layer."""
    folder = place / SVHN.folder
    shutil.copytree(release / "dcgan_code" / "models" / SVHN.folder, folder)
    (folder / "200_discrim_params.jl_05.npy").unlink()
    assert run("import-authors", folder, "--set", release / "photos") == 0
    return "runs/authors-svhn"


def test_first_layers_give_features(first_layers, release, capsys):
    network = load_discriminator(first_layers)
    assert [conv.out_channels for conv in network.convs] == [64, 128]
    x_u8 = np.zeros((2, 3, 32, 32), np.uint8)
    assert ConvFeatures(network)(x_u8).shape == (2, 16 * (64 + 128))
    few = "--images 20 --top 3 --tried 3 --columns 2 --features 2 --chosen 2 --fresh 1"
    assert run("saliency", first_layers, "--image-set", release / "photos", *few.split()) == 0
    found = json.loads(Path("saliency/numbers.json").read_text())
    assert found["set"] == "photos" and Path("saliency/saliency.png").is_file()


def test_what_needs_the_missing_layers_is_refused_in_a_sentence(first_layers, release, capsys):
    network = load_discriminator(first_layers)
    lacks = "this discriminator lacks layer 3, output, so it gives features but cannot say how real"
    with pytest.raises(UserError, match=lacks):
        logits_of(network, np.zeros((2, 3, 32, 32), np.uint8))
    capsys.readouterr()
    refused = {
        f"export {first_layers} --discriminator": lacks,
        f"features {first_layers} --set cifar10 --protocol full --split test "
        "--record table1.dcgan.full": "such as table1.authors.full",
        f"sample {first_layers}": "has no generator.safetensors",
        f"train --recipe paper-svhn --set {release / 'photos'} --batch-size 8 --device cpu "
        f"--threads 1 --run-dir further --start-from {first_layers}": "it keeps its discriminator",
    }
    for words, sentence in refused.items():
        assert run(*words.split()) == 2, words
        assert sentence in capsys.readouterr().err, words


# --- damage ---
def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def of_another_shape(path: Path) -> None:
    np.save(path, np.zeros((128, 64, 3, 3), np.float32))


def of_another_type(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


def not_finite(path: Path) -> None:
    array = np.load(path)
    array[0, 0, 0, 0] = np.nan
    np.save(path, array)


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def an_archive(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, np.zeros(3))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_page_of_the_web(path: Path) -> None:
    path.write_text("<html>not found</html>")


DAMAGE = {
    truncated: "but it cannot be read (mmap length is greater than file size)",
    of_another_shape: "but holds float32 of shape (128, 64, 3, 3)",
    of_another_type: "but holds float64 of shape (128, 64, 5, 5)",
    not_finite: "but some of them are not finite",
    pickled: "but it cannot be read (Array can't be memory-mapped: Python objects in dtype.)",
    an_archive: "but it is an archive",
    empty: "but it cannot be read (No data left in file)",
    a_page_of_the_web: "but it cannot be read (",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=[damage.__name__ for damage in DAMAGE])
def test_a_damaged_part_is_refused_and_nothing_is_written(release, place, damage, capsys):
    folder = place / SVHN.folder
    shutil.copytree(release / "dcgan_code" / "models" / SVHN.folder, folder)
    damage(folder / "200_discrim_params.jl_02.npy")
    assert run("import-authors", folder, "--set", release / "photos") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    what = "200_discrim_params.jl_02.npy should hold float32 numbers of shape (128, 64, 5, 5)"
    assert f"{what} (layer 2), {DAMAGE[damage]}" in shown.err
    assert shown.err.rstrip().endswith(
        "fetch the file again from https://github.com/Newmu/dcgan_code"
    )
    assert not Path("runs").exists()


def test_a_folder_without_their_networks_is_refused(place, release, capsys):
    for folder in (place, place / "nowhere"):
        with pytest.raises(UserError, match=r"holds none of .*clone https://github.com/Newmu"):
            find_released(folder)
    empty_one = place / SVHN.folder
    empty_one.mkdir()
    assert run("import-authors", empty_one, "--set", release / "photos") == 2
    shown = capsys.readouterr()
    assert "the folder has no discriminator" in shown.out and not Path("runs").exists()
    assert shown.err == "dcgan: no network could be imported: the lines above say why\n"


def test_a_place_that_cannot_be_written_is_named(release, place, capsys):
    Path("full").write_text("a file")
    words = ["import-authors", release / "dcgan_code", "--set", release / "photos", "--out", "full"]
    assert run(*words) == 2
    assert "cannot write full/authors-svhn (" in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_earlier_import(release, place, monkeypatch, capsys):
    words = ["import-authors", release / "dcgan_code", "--set", release / "photos"]
    assert run(*words) == 0
    before = Path("runs/authors-svhn/generator.safetensors").read_bytes()

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    assert run(*words) == 2
    monkeypatch.undo()
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in Path(place, "runs").iterdir()] == ["authors-svhn"]
    assert Path(place, "runs/authors-svhn/generator.safetensors").read_bytes() == before


def test_statistics_need_two_images():
    network = untrained_discriminator(MODELS[0])
    with pytest.raises(UserError, match="at least 2 images"):
        measure_discriminator(network, np.zeros((1, 3, 24, 16), np.uint8))


def test_the_front_page_fits(capsys):
    """The longest verb still has a space before its summary."""
    assert run() == 0
    assert re.search(r"\n  import-authors turn the networks", capsys.readouterr().out)
