"""Drawing from a checkpoint: which pictures are kept, of which class, and what the files hold."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import (
    from_u8,
    generate_u8,
    sample_latents,
    seeded,
    write_grid,
    write_separately,
)
from dcgan_lib.training import checkpoints
from dcgan_lib.training.checkpoints import draw
from dcgan_lib.training.step import make_gan

MODEL = ModelConfig(image_size=(12, 8), num_channels=3, base_width=2, z_dim=4)


def save_run(folder, model, *, discriminator=True):
    """Save a pair with untrained but wide-awake weights, so that pictures and logits differ
    clearly."""
    gan = make_gan(TrainConfig(model=model, batch_size=8))
    with torch.no_grad():
        for parameter in [*gan.generator.parameters(), *gan.discriminator.parameters()]:
            parameter.mul_(20 if parameter.dim() > 1 else 1)
    checkpoints.save_config(folder, gan.config, {"image_set": "tiny", "images": 8})
    checkpoints.save_weights(folder / "generator.safetensors", gan.generator)
    if discriminator:
        checkpoints.save_weights(folder / "discriminator.safetensors", gan.discriminator)
    return folder


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("plain"), MODEL)


@pytest.fixture(scope="module")
def class_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("classes"), dataclasses.replace(MODEL, num_classes=3))


def judge(folder, pictures_u8, labels=None):
    """Return the discriminator's logit of each picture, computed one by one."""
    network, model = (
        checkpoints.load_discriminator(folder),
        checkpoints.load_config(folder)[0].model,
    )
    labels = (
        [None] * len(pictures_u8) if labels is None else [torch.tensor([label]) for label in labels]
    )
    with torch.no_grad():
        return np.array(
            [
                network(from_u8(torch.from_numpy(picture[None]), model), label).item()
                for picture, label in zip(pictures_u8, labels, strict=True)
            ]
        )


def test_drawing_repeats_and_the_seed_decides(plain_run):
    pictures = draw(plain_run, 5, seed=3)
    assert pictures.shape == (5, 3, 12, 8) and pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, draw(plain_run, 5, seed=3))
    np.testing.assert_array_equal(pictures[:2], draw(plain_run, 2, seed=3))
    assert (pictures != draw(plain_run, 5, seed=4)).any()


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_a_picture_is_the_same_however_many_are_drawn(tmp_path, distribution):
    """Normal numbers are made in blocks of 16: drawn one row short, the last ones would be
    others."""
    run = save_run(tmp_path, dataclasses.replace(MODEL, z_dim=10, z_distribution=distribution))
    everything = draw(run, 70, seed=5)
    for num in (1, 2, 3, 7, 10, 65):
        np.testing.assert_array_equal(draw(run, num, seed=5), everything[:num])


def test_a_file_of_weights_stands_for_its_run(plain_run, tmp_path):
    expected = draw(plain_run, 3)
    np.testing.assert_array_equal(draw(plain_run / "generator.safetensors", 3), expected)
    foreign = tmp_path / "netG_epoch_24.pth"
    foreign.write_bytes(b"PK")
    lone = tmp_path / "generator.safetensors"
    lone.write_bytes((plain_run / "generator.safetensors").read_bytes())
    for path in (foreign, lone):
        with pytest.raises(UserError, match=r"with the config\.json of its run beside it"):
            draw(path, 3)


def test_best_of_keeps_the_highest_logits_best_first(plain_run):
    everything = draw(plain_run, 24, seed=1)
    logits = judge(plain_run, everything)
    assert len(set(logits.round(6))) == 24, "ties would leave the order open"
    order = np.argsort(-logits)
    best = draw(plain_run, 6, seed=1, best_of=4)
    np.testing.assert_array_equal(best, everything[order[:6]])
    assert (best != everything[order[::-1][:6]]).any(), "the wrong twin keeps the worst"
    assert (best != everything[:6]).any()


def test_best_keeps_some_of_those_drawn_and_sorts_all_of_them(plain_run):
    everything = draw(plain_run, 24, seed=1)
    order = np.argsort(-judge(plain_run, everything))
    for number in (1, 7, 24):
        best = draw(plain_run, 24, seed=1, best=number)
        np.testing.assert_array_equal(best, everything[order[:number]])
    for wrong in ({"best": 0}, {"best": 25}, {"best": 3, "best_of": 2}):
        with pytest.raises(UserError, match="best"):
            draw(plain_run, 24, **wrong)


def test_best_of_judges_each_picture_with_its_own_label(class_run):
    everything = draw(class_run, 20, seed=1)
    logits = judge(class_run, everything, [number % 3 for number in range(20)])
    np.testing.assert_array_equal(
        draw(class_run, 5, seed=1, best_of=4), everything[np.argsort(-logits)[:5]]
    )
    wrong = judge(class_run, everything, [0] * 20)
    assert list(np.argsort(-wrong)[:5]) != list(np.argsort(-logits)[:5])


def test_best_of_is_the_same_in_several_batches(plain_run):
    """More than 256 pictures are judged in parts."""
    everything = draw(plain_run, 600, seed=2)
    best = draw(plain_run, 3, seed=2, best_of=200)
    logits = judge(plain_run, everything)
    assert judge(plain_run, best) == pytest.approx(np.sort(logits)[::-1][:3], abs=1e-4)


def test_a_label_fixes_the_class(class_run):
    generator = checkpoints.load_generator(class_run)
    z_nd = sample_latents(7, generator.config, seeded(0))
    drawn = [draw(class_run, 7, label=label) for label in range(3)]
    for label in range(3):
        expected = generate_u8(generator, z_nd, torch.full((7,), label))
        np.testing.assert_array_equal(drawn[label], expected)
    assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()
    in_turn = draw(class_run, 7)
    np.testing.assert_array_equal(in_turn, [drawn[number % 3][number] for number in range(7)])


def test_batch_statistics_are_another_picture(plain_run):
    assert (draw(plain_run, 8, batch_stats=True) != draw(plain_run, 8)).any()


@pytest.mark.parametrize("num_images", [2, 257, 513])
def test_batch_statistics_never_meet_a_batch_of_one(plain_run, num_images):
    assert len(draw(plain_run, num_images, batch_stats=True)) == num_images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 0}, "label must be left out"),
        ({"num_images": 0}, "num_images must be at least 1"),
        ({"best_of": 0}, "best_of must be at least 1"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**63}, "seed must be"),
        ({"num_images": 1, "batch_stats": True}, "draw at least 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(plain_run, options, message):
    with pytest.raises(UserError, match=message):
        draw(plain_run, **{"num_images": 4, **options})


def test_classes_and_files_that_are_not_there_are_named(class_run, tmp_path):
    for label in (-1, 3):
        with pytest.raises(UserError, match="label must be 0 to 2"):
            draw(class_run, 4, label=label)
    lone = save_run(tmp_path, MODEL, discriminator=False)
    assert len(draw(lone, 2)) == 2
    with pytest.raises(UserError, match=r"no discriminator\.safetensors"):
        draw(lone, 2, best_of=2)
    with pytest.raises(UserError, match="no checkpoint or run folder"):
        draw(tmp_path / "nothing", 2)


def numbered(num, channels=3):
    """Return pictures of one value each, never white, and never the same as a neighbour."""
    return (
        np.ones((num, channels, 12, 8), np.uint8)
        * np.arange(1, num + 1, dtype=np.uint8)[:, None, None, None]
    )


@pytest.mark.parametrize("columns", [None, 1, 3, 50])
@pytest.mark.parametrize("num", [2, 3, 7, 16, 17])
def test_a_grid_has_the_size_and_the_pictures_that_were_asked_for(tmp_path, num, columns):
    write_grid(tmp_path / "new" / "grid.png", numbered(num), columns)
    pixels = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    across = min(columns or math.ceil(math.sqrt(num)), num)
    down = math.ceil(num / across)
    assert pixels.shape == (down * (12 + 2) + 2, across * (8 + 2) + 2, 3)
    for place in range(across * down):
        row, column = divmod(place, across)
        picture = pixels[row * 14 + 2 : row * 14 + 14, column * 10 + 2 : column * 10 + 10]
        assert (picture == (place + 1 if place < num else 255)).all()
    assert (pixels[:2] == 255).all() and (pixels[:, :2] == 255).all()


def test_a_grid_of_one_is_the_picture(tmp_path):
    write_grid(tmp_path / "one.png", numbered(1, channels=1))
    assert (np.asarray(Image.open(tmp_path / "one.png")) == np.ones((12, 8, 3))).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_separate_files_hold_the_very_pixels(tmp_path, channels):
    pictures = np.random.default_rng(0).integers(0, 256, (3, channels, 12, 8), dtype=np.uint8)
    write_separately(tmp_path / "out", pictures)
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == ["000000.png", "000001.png", "000002.png"]
    for path, picture in zip(paths, pictures, strict=True):
        with Image.open(path) as image:
            assert image.mode == ("L" if channels == 1 else "RGB")
            pixels = np.asarray(image)
        np.testing.assert_array_equal(
            pixels, picture[0] if channels == 1 else picture.transpose(1, 2, 0)
        )


def test_files_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose a writable place"):
        write_grid(tmp_path / "file" / "grid.png", numbered(2))
    with pytest.raises(UserError, match="choose a writable place"):
        write_separately(tmp_path / "file", numbered(2))
    with pytest.raises(UserError, match=r"ends in \.png"):
        write_grid(tmp_path / "grid.pgn", numbered(2))
    with pytest.raises(UserError, match="columns must be at least 1"):
        write_grid(tmp_path / "grid.png", numbered(2), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
