"""The permutation-invariant pair does not see where a pixel is, and trains, saves and samples as
the DCGAN does."""

import dataclasses

import pytest
import torch
from PIL import Image
from trace_layers import trace_layers

from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, recipe, to_dict
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.models.networks import new_discriminator, new_generator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import load_discriminator, load_generator, publish
from dcgan_lib.training.loop import fit
from dcgan_lib.widgets.export import export_model

DIGITS = ModelConfig(
    architecture="dense",
    image_size=(8, 8),
    num_channels=1,
    z_dim=16,
    num_classes=10,
    hidden_units=32,
    num_stages=2,
)


def test_recipe_has_the_layers_that_the_chapter_names():
    model = recipe("mnist-gan").config.model
    shapes = [
        [(given, made) for kind, given, made in trace_layers(network) if kind == "Linear"]
        for network in (new_generator(model), new_discriminator(model))
    ]
    assert shapes == [
        [("110", "1024"), ("1034", "1024"), ("1034", "784")],
        [("794", "1024"), ("1034", "1024"), ("1034", "1")],
    ]
    assert (
        dataclasses.replace(model, architecture="convolutional", num_stages=None)
        == recipe("paper-mnist").config.model
    )


def test_first_layer_of_the_discriminator_has_no_batch_norm():
    kinds = [kind for kind, _, _ in trace_layers(new_discriminator(DIGITS))]
    assert kinds == ["Linear", "Linear", "BatchNorm1d", "Linear"]


def test_shuffled_pixels_mean_nothing_to_it():
    discriminator, order = new_discriminator(DIGITS).eval(), torch.randperm(64)
    x_bchw, labels_b = torch.rand(5, 1, 8, 8), torch.arange(5)
    before = discriminator(x_bchw, labels_b)
    shuffled = x_bchw.flatten(1)[:, order].view_as(x_bchw)
    assert not torch.allclose(discriminator(shuffled, labels_b), before)
    with torch.no_grad():
        weight = discriminator.hidden[0].weight
        weight[:, :64] = weight[:, :64][:, order]
    torch.testing.assert_close(discriminator(shuffled, labels_b), before)


def test_labels_matter_at_every_layer():
    generator, z_bd = new_generator(DIGITS).eval(), torch.rand(1, 16)
    zero, one = (generator(z_bd, torch.tensor([label])) for label in (0, 1))
    assert not torch.equal(zero, one)
    assert [layer.in_features for layer in [*generator.hidden, generator.head]] == [26, 42, 42]


@pytest.mark.parametrize("wrong", [{"hidden_units": 0}, {"num_stages": None}, {"num_stages": 0}])
def test_dense_networks_need_their_sizes(wrong):
    with pytest.raises(UserError, match="hidden_units and num_stages"):
        dataclasses.replace(DIGITS, **wrong)


def test_old_configurations_are_convolutional():
    saved = to_dict(TrainConfig())
    del saved["model"]["architecture"]
    assert from_dict(saved) == TrainConfig()


def test_wrong_shapes_are_named():
    with pytest.raises(UserError, match=r"shape \(batch, 16\)"):
        new_generator(DIGITS)(torch.rand(2, 15), torch.arange(2))
    with pytest.raises(UserError, match=r"shape \(batch, 1, 8, 8\)"):
        new_discriminator(DIGITS)(torch.rand(2, 1, 9, 9), torch.arange(2))
    with pytest.raises(UserError, match="needs labels"):
        new_generator(DIGITS)(torch.rand(2, 16))


def test_run_from_training_to_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    config = TrainConfig(model=DIGITS, batch_size=32, steps=20, log_every=10, num_samples=10)
    about = {"command": "dcgan train --recipe mnist-gan"}
    digits = load_image_set("digits")
    fit(config, digits, tmp_path / "run", threads=1, progress=False, about=about)
    folder = publish(tmp_path / "run", "gan", keep="generator")
    assert "| made by | `dcgan train --recipe mnist-gan` |" in (folder / "card.md").read_text()
    assert not (folder / "discriminator.safetensors").exists()
    assert "fully connected, 2 hidden layers of 32 units" in (folder / "card.md").read_text()
    z_bd, labels_b = sample_latents(10, DIGITS, seeded(0)), torch.arange(10)
    pictures = generate_u8(load_generator(folder), z_bd, labels_b)
    assert pictures.shape == (10, 1, 8, 8) and pictures.std() > 0
    with pytest.raises(
        UserError, match=r"no discriminator\.safetensors: it keeps its generator alone"
    ):
        load_discriminator(folder)
    with pytest.raises(UserError, match="dense one"):
        export_model(folder)
    for step in range(1, 26):
        Image.new("L", (4, 4)).save(tmp_path / f"run/samples/step-{step:07d}.png")
    folder = publish(tmp_path / "run", "gan", command="another", keep="discriminator")
    assert "`another`" in (folder / "card.md").read_text()
    kept = [int(path.stem[5:]) for path in sorted((folder / "samples").iterdir())]
    assert kept == list(range(1, 26, 3))
    assert not (folder / "generator.safetensors").exists()
    assert "dcgan evaluate" not in (folder / "card.md").read_text()
    (folder / "windows.json").write_text("{}")
    with pytest.raises(UserError, match=r"also holds windows\.json, made for its weights"):
        publish(tmp_path / "run", "gan", command="dcgan train")
    assert load_discriminator(folder).config == DIGITS
