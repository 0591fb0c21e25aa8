"""Projection: a generator's own picture is found again, and one of something else is not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.projection import (
    errors_of_samples,
    pixel_error,
    project,
    read_picture,
)
from dcgan_lib.models.networks import untrained_discriminator, untrained_generator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import (
    load_discriminator,
    load_generator,
    save_config,
    save_weights,
)


def checkerboard(size: int = 32) -> np.ndarray:
    """Return what no digit looks like: squares of 4 pixels, grey, 1 x h x w."""
    rows, columns = np.indices((size, size)) // 4
    return (255 * ((rows + columns) % 2)).astype(np.uint8)[None]


@pytest.fixture(scope="module")
def generator():
    return load_generator("mnist")


@pytest.fixture(scope="module")
def own_u8(generator):
    """A picture whose latent vector none of the starts is."""
    return generate_u8(generator, sample_latents(1, generator.config, seeded(991)))[0]


def test_an_own_picture_is_found_again_and_a_foreign_one_is_not(generator, own_u8):
    """Stated: within 20 grey levels of its own, beyond 120 of a checkerboard, of 255."""
    own = project(generator, own_u8, num_starts=3, steps=150)
    foreign = project(generator, checkerboard(), num_starts=3, steps=150)
    assert own.error_s[0] < 20 < errors_of_samples(generator, own_u8).min()
    assert foreign.error_s[0] > 120
    assert foreign.error_s[0] < errors_of_samples(generator, checkerboard()).min()


def test_features_find_an_own_picture_too(generator, own_u8):
    discriminator = load_discriminator("mnist")
    found = project(generator, own_u8, discriminator=discriminator, num_starts=3, steps=100)
    assert found.space == "features"
    assert found.error_s[0] < 0.5 * errors_of_samples(generator, own_u8).min()


def test_the_starts_come_back_nearest_first_with_their_pictures(generator, own_u8):
    found = project(generator, own_u8, num_starts=5, steps=20)
    assert list(found.distance_s) == sorted(found.distance_s)
    assert found.z_sd.shape == (5, 100) and found.pictures_u8.shape == (5, 1, 32, 32)
    np.testing.assert_array_equal(found.pictures_u8, generate_u8(generator, found.z_sd))
    np.testing.assert_allclose(found.error_s, pixel_error(found.pictures_u8, own_u8))
    assert found.z_sd.abs().max() <= 1, "where latent vectors are drawn from"


def test_the_search_repeats_and_leaves_the_networks_alone(generator, own_u8):
    discriminator = load_discriminator("mnist")
    before = [v.clone() for n in (generator, discriminator) for v in n.state_dict().values()]
    how = {"discriminator": discriminator, "num_starts": 2, "steps": 3}
    first, again = (project(generator, own_u8, **how) for _ in range(2))
    assert torch.equal(first.z_sd, again.z_sd)
    after = [v for n in (generator, discriminator) for v in n.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(p.grad is None for n in (generator, discriminator) for p in n.parameters())


def test_a_conditional_generator_searches_one_class():
    model = ModelConfig(image_size=(16, 16), base_width=4, z_dim=4, num_classes=3)
    generator = untrained_generator(model)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(20 if parameter.dim() > 1 else 1)
    z_1d, label = sample_latents(1, model, seeded(99)), torch.tensor([2])
    target_u8 = generate_u8(generator, z_1d, label)[0]
    errors = [
        project(generator, target_u8, label=k, num_starts=6, steps=150).error_s[0] for k in range(3)
    ]
    assert np.argmin(errors) == 2


def test_a_photograph_is_cut_to_the_generators_size(tmp_path):
    model = ModelConfig(image_size=(12, 20), base_width=2)
    Image.new("L", (90, 60), 200).save(tmp_path / "photo.jpg")
    assert read_picture(tmp_path / "photo.jpg", model).shape == (3, 12, 20)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match="cannot be read"):
        read_picture(tmp_path / "text.png", model)
    with pytest.raises(UserError, match="no file"):
        read_picture(tmp_path / "nowhere.png", model)


@pytest.mark.parametrize("whole", [True, False], ids=["pair", "generator alone"])
@pytest.mark.drives("project")
def test_the_command_writes_a_picture_and_numbers(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ModelConfig(image_size=(16, 16), base_width=2, z_dim=4)
    save_config(Path("run"), TrainConfig(model=model), {"image_set": "tiny"})
    save_weights(Path("run/generator.safetensors"), untrained_generator(model))
    if whole:
        save_weights(Path("run/discriminator.safetensors"), untrained_discriminator(model))
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save("photo.png")
    words = ["project", "photo.png", "run", "--starts", "2", "--steps", "2"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "own picture" in said and ("by features" in said) == whole
    assert Image.open("projection.png").size == (8 * 18 + 2, 2 * 18 + 2)
    report = json.loads(Path("projection.json").read_text())
    assert len(report["pixels"]["z"]) == 4 and report["checkpoint"] == "run"
    assert len(report["control"]["errors"]) == 2
    assert cli.main([*words, "--label", "1"]) == 2
    assert "left out, as there are no classes" in capsys.readouterr().err
