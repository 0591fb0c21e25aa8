"""A canvas: the tiled picture is the whole one, and a block of it is what the generator draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.canvas import Canvas, paint, paint_u8, plan_canvas
from dcgan_lib.models.networks import untrained_generator
from dcgan_lib.models.sampling import batch_norms

STYLES = ["pictures", "smooth", "texture"]
MODELS = {
    "kernel 5, per unit": ModelConfig(image_size=(32, 32), base_width=4, z_dim=6),
    "kernel 4, per channel": ModelConfig(
        image_size=(32, 32), base_width=4, z_dim=6, kernel_size=4, projection_bn="channel"
    ),
    "kernel 3, two a stage, not square": ModelConfig(
        image_size=(16, 24), base_width=4, z_dim=6, kernel_size=3, convs_per_stage=2
    ),
    "odd sides, no scale": ModelConfig(
        image_size=(27, 30), base_width=4, z_dim=6, num_channels=1, bn_affine=False
    ),
}


def lively_generator(model: ModelConfig):
    """Return a generator whose batch norm has statistics, and whose pictures have contrast."""
    generator, rng = untrained_generator(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for conv in generator.convs:
            conv.weight.mul_(100 / (conv.weight.numel() / conv.weight.shape[1]) ** 0.5)
        generator.project.weight.mul_(50 / model.z_dim**0.5)
        for norm in batch_norms(generator):
            norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=rng) * 0.3)
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=rng) + 0.5)
            if norm.affine:
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=rng) * 0.2)
    return generator


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def generator(request):
    return lively_generator(request.param)


@pytest.mark.parametrize("style", STYLES)
def test_tiles_are_the_whole(generator, style):
    canvas = plan_canvas(generator, (150, 117), style=style)
    whole = paint(canvas, (0, 150), (0, 117))
    assert whole.std() > 0.1, "a flat picture would prove nothing"
    for rows in ((0, 61), (61, 62), (62, 150)):
        for columns in ((0, 16), (16, 91), (91, 117)):
            part = paint(canvas, rows, columns)
            expected = whole[:, slice(*rows), slice(*columns)]
            torch.testing.assert_close(part, expected, atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(st.integers(0, 199), st.integers(1, 70), st.integers(0, 139), st.integers(1, 70))
def test_any_window_is_a_part_of_the_whole(top, height, left, width):
    canvas = plan_canvas(lively_generator(MODELS["kernel 5, per unit"]), (200, 140), seed=3)
    rows, columns = (top, min(200, top + height)), (left, min(140, left + width))
    whole = paint(canvas, (0, 200), (0, 140))
    expected = whole[:, slice(*rows), slice(*columns)]
    torch.testing.assert_close(paint(canvas, rows, columns), expected, atol=1e-5, rtol=0)


def test_tiles_without_a_margin_would_show(generator):
    """The wrong twin: each tile as a canvas of its own has other pixels at its borders."""
    canvas = plan_canvas(generator, (128, 128), style="smooth")
    whole = paint(canvas, (0, 128), (0, 128))
    alone = Canvas(generator=generator, size=(64, 128), z_yxd=canvas.z_yxd, style="smooth")
    assert (paint(alone, (0, 64), (0, 128)) - whole[:, :64]).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(MODELS)[:3])
def test_a_canvas_of_one_picture_is_the_generators(name):
    """With one latent vector for all cells, and the size of a picture, nothing is new."""
    generator = lively_generator(MODELS[name])
    size = generator.config.image_size
    canvas = plan_canvas(generator, size, style="pictures")
    with torch.no_grad():
        picture = generator(canvas.z_yxd[0, 0][None])[0]
    painted = paint(canvas, (0, size[0]), (0, size[1]))
    torch.testing.assert_close(painted, picture, atol=1e-5, rtol=0)


def test_a_texture_is_a_transposed_convolution_of_stride_1():
    """As the first layer of dcgan.torch, its sum divided by 4 so that the variance is one's."""
    generator = lively_generator(MODELS["kernel 4, per channel"])
    canvas = plan_canvas(generator, (64, 64), style="texture")
    kernel = generator.project.weight.T.unflatten(1, generator.base_shape) / 4
    z_bdyx = canvas.z_yxd[:11, :11].permute(2, 0, 1)[None]
    with torch.no_grad():
        h = torch.nn.functional.conv_transpose2d(z_bdyx, kernel)[:, :, 3:-3, 3:-3]
        # The constant of batch norm is not divided: a mean of 0 leaves the bias alone.
        generator.project_norm.running_mean.zero_()
        h = torch.relu(generator.project_norm(h))
        for conv, norm in zip(generator.convs, generator.norms, strict=False):
            h = torch.relu(norm(conv(h)))
        expected = generator.convs[-1](h).tanh()[0]
    assert expected.shape == (3, 64, 64)
    torch.testing.assert_close(paint(canvas, (0, 64), (0, 64)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("style", STYLES)
def test_latent_vectors_keep_their_variance(style):
    model = ModelConfig(image_size=(32, 32), base_width=4, z_dim=64, z_distribution="normal")
    z_yxd = plan_canvas(lively_generator(model), (512, 512), style=style, spacing=1.5).z_yxd
    assert z_yxd.pow(2).mean().item() == pytest.approx(1, abs=0.1)
    between = z_yxd.pow(2).mean(2)
    assert between.min() > 0.4, "on straight lines the middle of four would fall to 0.25"


def test_a_smooth_field_has_no_jumps():
    generator = lively_generator(MODELS["kernel 5, per unit"])
    steps = {}
    for style in STYLES:
        z_yxd = plan_canvas(generator, (256, 256), style=style, spacing=3).z_yxd
        steps[style] = z_yxd.diff(dim=0).norm(dim=2).max()
    assert steps["smooth"] < 0.3 * steps["pictures"]


def test_the_seed_decides_and_the_tile_does_not():
    generator = lively_generator(MODELS["kernel 5, per unit"])
    first = paint_u8(plan_canvas(generator, (100, 90), seed=1))
    again = paint_u8(plan_canvas(generator, (100, 90), seed=1), tile=33)
    assert first.shape == (3, 100, 90) and first.dtype == np.uint8
    assert np.abs(first.astype(int) - again).max() <= 1, "rounding of a half alone"
    assert (first != paint_u8(plan_canvas(generator, (100, 90), seed=2))).mean() > 0.3


def test_what_has_no_canvas_is_refused():
    generator = lively_generator(MODELS["kernel 5, per unit"])
    for size in ((4097, 64), (64, 0)):
        with pytest.raises(UserError, match="a side of the canvas"):
            plan_canvas(generator, size)
    with pytest.raises(UserError, match="spacing"):
        plan_canvas(generator, (64, 64), spacing=0)
    with pytest.raises(UserError, match="style"):
        plan_canvas(generator, (64, 64), style="oil")
    for model in (
        ModelConfig(image_size=(16, 16), base_width=2, num_classes=3),
        ModelConfig(image_size=(16, 16), architecture="dense", hidden_units=4, num_stages=1),
    ):
        with pytest.raises(UserError, match="a canvas needs a convolutional generator"):
            plan_canvas(untrained_generator(model), (64, 64))


@pytest.mark.parametrize(("checkpoint", "mode"), [("rooms", "RGB"), ("mnist", "L")])
@pytest.mark.drives("canvas")
def test_the_command_writes_a_picture(checkpoint, mode, tmp_path, capsys):
    out = tmp_path / "canvas.png"
    words = ["canvas", checkpoint, "--size", "96", "130", "--out", str(out)]
    assert cli.main(words) == 0
    picture = Image.open(out)
    assert picture.size == (130, 96) and picture.mode == mode
    assert cli.main([*words[:3], "5000", "64", "--out", str(out)]) == 2
    assert "from 1 to 4096" in capsys.readouterr().err
