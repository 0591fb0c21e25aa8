"""Pictures of any size and ratio: each goes from training to samples, canvas, features, export."""

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import cli
from dcgan_lib.config import MAX_SIDE, ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import ConvFeatures
from dcgan_lib.models.sampling import from_u8
from dcgan_lib.training.loop import draw_latents, fit
from dcgan_lib.training.step import make_gan, train_step

SIZES = [(1, 28, 28), (3, 64, 96), (3, 128, 128), (3, 50, 150), (1, 48, 200)]


def tiny_config(shape, **model) -> TrainConfig:
    channels, *size = shape
    tiny = {"image_size": tuple(size), "num_channels": channels, "base_width": 2, "z_dim": 4}
    networks = ModelConfig(**tiny, **model)
    return TrainConfig(
        model=networks, batch_size=4, steps=2, schedule="same_batch", precision="float32"
    )


def noise(shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_size_trains_samples_and_is_exported(shape, tmp_path):
    noise_u8 = noise(shape)
    image_set = ImageSet(name="noise", images_u8=noise_u8, card={"digest": "noise"})
    options = {"device": "cpu", "threads": 1, "progress": False}
    result = fit(tiny_config(shape), image_set, tmp_path / "run", **options)
    gan, (channels, height, width) = result.gan, shape
    assert result.stopped_by == "steps" and result.warnings == ()
    assert gan.generator(torch.zeros(2, 4)).shape == (2, *shape)
    features_nf = ConvFeatures(gan.discriminator)(noise_u8)
    assert len(features_nf) == 8 and np.isfinite(features_nf).all()
    run = str(tmp_path / "run")
    sample = ["sample", run, "--num-images", "2", "--separate", "--out", str(tmp_path / "samples")]
    canvas = ["canvas", run, "--size", "70", "260", "--out", str(tmp_path / "canvas.png")]
    page = ["export", run, "--out", str(tmp_path / "page")]
    weights = ["export", run, "--weights", "--out", str(tmp_path / "weights")]
    for words in (sample, canvas, page, weights):
        assert cli.main(words) == 0
    with Image.open(tmp_path / "samples" / "000001.png") as picture:
        assert picture.size == (width, height) and len(picture.getbands()) == channels
    with Image.open(tmp_path / "canvas.png") as picture:
        assert picture.size == (260, 70)


@pytest.mark.parametrize("shape", [(3, 256, 256), (3, 50, 150)], ids=str)
@pytest.mark.parametrize("architecture", ["convolutional", "residual"])
def test_the_largest_and_a_long_one_train_with_either_pair(shape, architecture):
    config = tiny_config(shape, architecture=architecture)
    gan, x_bchw = make_gan(config), from_u8(torch.as_tensor(noise(shape)[:4]), config.model)
    before = gan.generator.project.weight.detach().clone()
    for step in range(2):
        record = train_step(gan, step, x_bchw, None, draw_latents(config, gan.device, step))
        assert record.d_loss.isfinite() and record.g_loss.isfinite()
    assert not torch.equal(before, gan.generator.project.weight)
    assert gan.generator(torch.zeros(2, 4)).shape == (2, *shape)
    assert len(ConvFeatures(gan.discriminator)(noise(shape))) == 8


def test_a_side_beyond_the_limit_is_refused():
    with pytest.raises(UserError, match=f"from 8 to {MAX_SIDE}"):
        ModelConfig(image_size=(64, MAX_SIDE + 1))
