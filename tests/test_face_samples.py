"""Faces found in samples: what counts, the controls, the rule, and what is recorded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dcgan_lib.cli import main
from dcgan_lib.data.faces import Faces
from dcgan_lib.evaluation.ledger import load_row
from dcgan_lib.evaluation.statistics import wilson_interval
from dcgan_lib.experiments import faces as module
from dcgan_lib.experiments.faces import (
    FaceSamples,
    SampleShares,
    is_found,
    load_samples_study,
    present,
    record_samples,
    samples_text,
    shuffle_pieces,
)
from dcgan_lib.training.checkpoints import draw


@pytest.fixture(scope="module")
def generated() -> np.ndarray:
    return draw("faces", 24, seed=1)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def shares(
    samples: int, control: int = 0, held_out: int = 970, mean_passes: bool = False
) -> SampleShares:
    return SampleShares(
        image_set="faces64",
        split="validation",
        presentation=(2, 0.25),
        tried={(2, 0.25): wilson_interval(97, 100)},
        held_out=wilson_interval(held_out, 1000),
        samples=wilson_interval(samples, 1000),
        controls={"noise": wilson_interval(control, 1000)},
        mean_passes=mean_passes,
        num_images=1000,
        num_held_out=1000,
    )


# ---- looking ----


def test_the_detector_finds_generated_faces_and_no_face_in_shuffled_ones(generated):
    rng = np.random.default_rng(0)
    assert is_found(generated, (2, 0.25)).mean() > 0.7
    for pieces in (4, 64):
        shuffled = shuffle_pieces(generated, pieces, rng)
        assert is_found(shuffled, (2, 0.25)).mean() < 0.2


def test_a_box_that_is_not_the_picture_does_not_count(generated, monkeypatch):
    def one_box(box):
        return lambda shown_hw, settings: Faces(boxes_n4=np.array([box]), votes_n=np.array([20]))

    # at twice the size, with an edge of a quarter: the picture lies at 32 to 160
    monkeypatch.setattr(module, "find_faces", one_box((32, 32, 160, 160)))
    assert is_found(generated[:2], (2, 0.25)).all()
    monkeypatch.setattr(module, "find_faces", one_box((32, 32, 80, 80)))
    assert not is_found(generated[:2], (2, 0.25)).any()


@given(enlarge=st.integers(1, 3), edge=st.sampled_from([0, 0.25, 0.5]), grey=st.booleans())
def test_a_picture_is_shown_with_its_own_edge_around_it(enlarge, edge, grey):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1 if grey else 3, 16, 16), dtype=np.uint8)
    shown, (left, top, right, bottom) = present(picture, enlarge, edge)
    assert right - left == bottom - top == 16 * enlarge
    assert shown.shape == (right + left, bottom + top)
    assert (shown[: top + 1, left] == shown[top, left]).all()


# ---- the controls ----


@given(pieces=st.sampled_from([1, 2, 4, 8, 16]), channels=st.sampled_from([1, 3]))
def test_shuffled_pieces_are_the_same_pieces(pieces, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, channels, 16, 16), dtype=np.uint8)
    shuffled = shuffle_pieces(images, pieces, rng)
    assert shuffled.shape == images.shape and shuffled.dtype == np.uint8
    side = 16 // pieces

    def cut(image):
        corners = range(0, 16, side)
        return sorted(
            image[:, y : y + side, x : x + side].tobytes() for y in corners for x in corners
        )

    for before, after in zip(images, shuffled, strict=True):
        assert cut(before) == cut(after)
    assert (pieces == 1) == np.array_equal(images, shuffled)


# ---- the rule ----


@pytest.mark.parametrize(
    ("found", "verdict"), [(960, "reproduced"), (880, "partly"), (600, "not reproduced")]
)
def test_the_verdict_follows_the_ratio(found, verdict, results):
    record_samples(shares(found), FaceSamples(), 1.0)
    row = load_row("faces.samples:faces64")
    assert row.verdict == verdict and row.value == pytest.approx(100 * found / 970)
    assert "noise 0.0%" in row.notes and row.caveat is None


def test_a_detector_that_takes_noise_for_faces_reproduces_nothing(results):
    record_samples(shares(960, control=900), FaceSamples(), 1.0)
    row = load_row("faces.samples:faces64")
    assert row.verdict == "partly" and "noise" in row.caveat.why


def test_a_detector_that_takes_a_blur_for_a_face_reproduces_nothing(results):
    record_samples(shares(960, mean_passes=True), FaceSamples(), 1.0)
    row = load_row("faces.samples:faces64")
    assert row.verdict == "partly" and "blurred mean" in row.caveat.why


def test_text_says_every_share():
    text = samples_text(shares(960))
    assert "samples: 96.0%" in text and "noise: 0.0%" in text


def test_the_command_measures_and_records(tmp_path, monkeypatch, results, capsys, generated):
    """On generated faces in place of photographs, with one way of showing them."""
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(module, "PRESENTATIONS", ((1, 0.5),))
    for split, first, num in (("train", 0, 8), ("validation", 8, 16)):
        for at in range(num):
            path = tmp_path / "data" / "faces64" / split / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generated[first + at].transpose(1, 2, 0)).save(path)
    words = "face-samples faces --num-images 12 --choose 6 --record"
    assert main(words.split()) == 0
    assert "held-out photographs" in capsys.readouterr().out
    kept = load_samples_study()
    assert kept["presentation"] == {"enlarged": 1, "edge": 0.5} and len(kept["controls"]) == 3
    assert kept["num_held_out"] == 12 and isinstance(kept["samples"], list)
    assert load_row("faces.samples:faces64").command == f"dcgan {words}"
    assert main(["face-samples", "--num-images", "1"]) == 2
    assert "num_images" in capsys.readouterr().err
