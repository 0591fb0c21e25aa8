"""Films: which pictures they show, in which order and for how long, in each format."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.film import (
    cut_from_grid,
    loop_frames,
    training_frames,
    write_film,
)
from dcgan_lib.interpretation.walk import loop_latents
from dcgan_lib.models.networks import untrained_generator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded, write_grid
from dcgan_lib.training.checkpoints import load_generator, save_config, save_weights

SIZE = (12, 20)
MODEL = ModelConfig(image_size=SIZE, base_width=2, z_dim=4, z_distribution="normal")


@pytest.fixture
def run_dir(tmp_path):
    """A run with three grids of six pictures; picture p of grid g has the colour 40 g + 5 p."""
    folder = tmp_path / "run"
    save_config(folder, TrainConfig(model=MODEL), {"image_set": "tiny"})
    generator = untrained_generator(MODEL)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(20 if parameter.dim() > 1 else 1)
    save_weights(folder / "generator.safetensors", generator)
    for number in range(3):
        colours = 40 * number + 5 * np.arange(6)
        pictures = np.ones((6, 3, *SIZE)) * colours[:, None, None, None]
        write_grid(folder / "samples" / f"step-{10 * number:07d}.png", pictures.astype(np.uint8), 3)
    return folder


def test_a_training_is_filmed_in_its_order(run_dir):
    frames = training_frames(run_dir)
    assert [frame.shape for frame in frames] == [(30, 68, 3)] * 3
    assert [int(frame[5, 5, 0]) for frame in frames] == [0, 40, 80]
    for picture in range(6):
        cut = training_frames(run_dir, picture)
        assert [frame.shape for frame in cut] == [(*SIZE, 3)] * 3
        assert [np.unique(frame).tolist() for frame in cut] == [
            [40 * number + 5 * picture] for number in range(3)
        ]
    with pytest.raises(UserError, match="picture must be from 0 to 5"):
        training_frames(run_dir, 6)


def test_grids_of_another_size_are_left_out(run_dir):
    write_grid(run_dir / "samples" / "step-0000005.png", np.zeros((2, 3, *SIZE), np.uint8), 2)
    assert len(training_frames(run_dir)) == 3


def test_a_grid_of_one_picture_has_no_border():
    picture = np.arange(240, dtype=np.uint8).reshape(*SIZE)[..., None].repeat(3, 2)
    np.testing.assert_array_equal(cut_from_grid(picture, 0, SIZE), picture)


def test_a_run_without_grids_says_so(run_dir):
    for path in sorted(run_dir.glob("samples/*"))[1:]:
        path.unlink()
    with pytest.raises(UserError, match=r"needs at least 2 grids.* has 1: .*--sample-every"):
        training_frames(run_dir)


@pytest.mark.parametrize("curve", ["spherical", "linear"])
def test_a_loop_closes_with_a_step_like_the_others(curve):
    anchors_kd = sample_latents(3, MODEL, seeded(0))
    z_td = loop_latents(anchors_kd, 30, curve)
    assert z_td.shape == (30, 4)
    for number in range(3):
        torch.testing.assert_close(z_td[10 * number], anchors_kd[number])
    # From the last vector to the first is the last step of the third side: as long as its others.
    steps = (torch.cat([z_td[1:], z_td[:1]]) - z_td).norm(dim=1)
    assert steps[-1].item() == pytest.approx(steps[-2].item(), rel=0.2)


def test_a_loop_begins_at_its_first_anchor(run_dir):
    frames = loop_frames(run_dir, (5, 6), 10)
    generator = load_generator(run_dir)
    expected = generate_u8(generator, sample_latents(1, MODEL, seeded(5)))[0].transpose(1, 2, 0)
    np.testing.assert_allclose(frames[0].astype(int), expected, atol=1)
    assert len(frames) == 10 and (frames[0] != frames[5]).any()
    for wrong in ({"label": 1}, {"anchors": (1,)}, {"num_frames": 1}):
        with pytest.raises(UserError, match=r"label|anchors|frames"):
            loop_frames(run_dir, **wrong)


def frames_of(path):
    """Return the pictures of a film and, but for mp4, how long each is shown, in milliseconds."""
    if path.suffix == ".mp4":
        reader, frames = cv2.VideoCapture(str(path)), []
        while (found := reader.read())[0]:
            frames.append(found[1][:, :, ::-1])
        return frames, reader.get(cv2.CAP_PROP_FPS)
    frames, durations = [], []
    for image in ImageSequence.Iterator(Image.open(path)):
        frames.append(np.asarray(image.convert("RGB")))
        durations.append(image.info["duration"])
    return frames, durations


GREYS = [np.full((11, 21, 3), 60 * number + 10, np.uint8) for number in range(4)]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_film_holds_its_last_picture(tmp_path, suffix):
    write_film(tmp_path / f"film{suffix}", GREYS, frame_rate=5, hold=1.5)
    frames, durations = frames_of(tmp_path / f"film{suffix}")
    assert durations == [200, 200, 200, 1700]
    for frame, expected in zip(frames, GREYS, strict=True):
        np.testing.assert_allclose(frame.astype(int), expected, atol=6)


def test_an_mp4_repeats_its_last_picture(tmp_path):
    try:
        write_film(tmp_path / "film.mp4", GREYS, frame_rate=5, hold=1)
    except UserError as error:
        pytest.skip(str(error))
    frames, rate = frames_of(tmp_path / "film.mp4")
    assert rate == 5 and len(frames) == 4 + 5
    assert frames[0].shape == (12, 22, 3), "even sides"
    for frame, expected in zip(frames, GREYS + GREYS[-1:] * 5, strict=True):
        np.testing.assert_allclose(frame.mean(), expected.mean(), atol=8)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_colours_are_not_swapped(tmp_path):
    red = [np.zeros((16, 16, 3), np.uint8) for _ in range(2)]
    for number, frame in enumerate(red):
        frame[..., 0] = 255
        frame[number] = 0
    for suffix in (".gif", ".webp", ".mp4"):
        path = tmp_path / f"film{suffix}"
        try:
            write_film(path, red)
        except UserError as error:
            assert suffix == ".mp4" and "encoder" in str(error)
            continue
        frame = frames_of(path)[0][0]
        assert frame[..., 0].mean() > 150 > 100 > frame[..., 2].mean()


def test_other_names_and_places_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.gif or \.webp or \.mp4"):
        write_film(tmp_path / "film.avi", GREYS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_film(tmp_path / "file" / "film.gif", GREYS)


@pytest.mark.drives("film")
def test_the_command_films_trainings_and_loops(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["film", "run", "--hold", "1", "--frame-rate", "4"]) == 0
    assert "3 pictures, 1.8 s: film.gif" in capsys.readouterr().out
    assert frames_of(tmp_path / "film.gif")[1] == [250, 250, 1250]
    words = ["film", "run", "--picture", "4", "--scale", "3", "--out", "one.webp"]
    assert cli.main(words) == 0
    assert Image.open("one.webp").size == (60, 36)
    words = ["film", "run", "--walk", "--frames", "7", "--out", "loop.gif"]
    assert cli.main(words) == 0
    assert Image.open("loop.gif").n_frames == 7
    capsys.readouterr()
    assert cli.main([*words, "--picture", "3"]) == 2
    assert cli.main(["film", "run", "--hold", "-1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
