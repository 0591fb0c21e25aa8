"""Walks: even where the generator is a straight line, caught where it jumps, and written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.evaluation.neighbours import nearest
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.evaluation.statistics import wilson_interval
from dcgan_lib.experiments.latent_walk import (
    TRANSFORMS,
    Walk,
    draw_owners,
    find_judges,
    fooled_neighbours,
    measure_walks,
    record_fooled,
    record_walks,
    semantic_checks,
    smooth_checks,
    train_memoriser,
)
from dcgan_lib.interpretation.walk import (
    State,
    count_changes,
    cross_fade,
    draw_paths,
    far_from_real,
    find_states,
    measure_steps,
    refinement,
    walk_latents,
)
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded

MODEL = ModelConfig(image_size=(16, 16), z_dim=3, base_width=4)


class Painted(nn.Module):
    """A generator that paints each colour evenly: ``paint(z)`` of the three numbers of z."""

    def __init__(self, paint):
        super().__init__()
        self.config, self.paint = MODEL, paint
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, z_bd, labels_b=None):
        return self.paint(z_bd)[:, :, None, None].expand(-1, -1, 16, 16)


LINEAR = Painted(lambda z_bd: z_bd * 0.9)
JUMP = Painted(lambda z_bd: torch.sign(z_bd) * 0.9)


class Bright(Probe):
    """A probe that sees a lamp where red is bright and is sure of it away from the middle."""

    def predict(self, images_u8, *, batch_size=256):
        return {"lamp": np.clip((images_u8[:, 0].mean((1, 2)) / 255 - 0.5) * 3 + 0.5, 0, 1)}


def lamp_probe(kind="boolean"):
    heads = (Head(name="lamp", kind=kind),)
    return Bright(ProbeConfig(image_size=(16, 16), num_channels=3, heads=heads, widths=(2,)))


HALVES = FeatureExtractor("halves", 3, nn.Identity(), lambda x_u8: x_u8.float().mean((2, 3)) / 2)
"""Features that are pixels in half size."""


# --- the curve ---
@pytest.mark.parametrize("curve", ["linear", "spherical"])
def test_a_walk_meets_its_anchors_and_is_one(curve):
    anchors_kd = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    z_nd = walk_latents(anchors_kd, 97, curve)
    assert z_nd.shape == (97, 5) and z_nd.dtype == torch.float32
    torch.testing.assert_close(z_nd[::12], anchors_kd)
    steps = (z_nd[1:] - z_nd[:-1]).norm(dim=1)
    assert steps.max() < 0.4 * (anchors_kd[1:] - anchors_kd[:-1]).norm(dim=1).max(), (
        "no step leaps over a segment"
    )


def test_an_arc_keeps_the_length_and_a_line_loses_it():
    ends = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    torch.testing.assert_close(
        walk_latents(ends, 7, "spherical").norm(dim=1), torch.full((7,), 3.0)
    )
    assert walk_latents(ends, 7, "linear")[3].norm() == pytest.approx(3 / 2**0.5)
    angles = torch.atan2(*walk_latents(ends, 7, "spherical").T.flip(0))
    torch.testing.assert_close(angles.diff(), torch.full((6,), np.pi / 12, dtype=torch.float32))


def test_an_arc_between_parallel_vectors_is_a_line():
    for ends in (
        torch.tensor([[1.0, 0.0], [2.0, 0.0]]),
        torch.tensor([[1.0, 0.0], [-1.0, 0.0]]),
        torch.zeros(2, 2),
    ):
        torch.testing.assert_close(
            walk_latents(ends, 5, "spherical"), walk_latents(ends, 5, "linear")
        )


@pytest.mark.parametrize(
    ("num", "frames", "curve"), [(1, 5, "linear"), (2, 1, "linear"), (2, 5, "cubic")]
)
def test_impossible_walks_are_refused(num, frames, curve):
    with pytest.raises(UserError, match="at least 2 anchors"):
        walk_latents(torch.zeros(num, 3), frames, curve)


def test_paths_repeat_themselves_by_seed():
    one, same, other = (draw_paths(LINEAR, 4, 6, seed=seed) for seed in (3, 3, 4))
    assert one.shape == (4, 7, 3, 16, 16) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(draw_paths(LINEAR, 4, 12, seed=3)[:, ::2], one)
    with pytest.raises(UserError, match="at least 2 segments"):
        draw_paths(LINEAR, 1, 6)


# --- the measures ---
def test_a_linear_generator_has_even_steps_and_a_jump_is_caught():
    even, jump = (
        measure_steps(draw_paths(generator, 60, 12, seed=1)) for generator in (LINEAR, JUMP)
    )
    assert even.unevenness.value == pytest.approx(1, abs=0.25), (
        "rounding to whole grey levels is all that is uneven"
    )
    assert even.largest.high < 0.15 and even.n == 60 and even.space == "pixels"
    assert jump.largest.low > 0.5 and jump.unevenness.value > 10


def test_finer_steps_shrink_unless_the_picture_jumps():
    for generator, factor in ((LINEAR, 2), (JUMP, 1)):
        fine = draw_paths(generator, 60, 24, seed=1)
        found = refinement(measure_steps(fine[:, ::2]), measure_steps(fine))
        assert found.value == pytest.approx(factor, abs=0.2)


def test_refinement_refuses_other_segments():
    paths = draw_paths(LINEAR, 4, 6)
    with pytest.raises(UserError, match="the same segments"):
        refinement(measure_steps(paths), measure_steps(paths, HALVES))
    with pytest.raises(UserError, match="the same segments"):
        refinement(measure_steps(paths), measure_steps(paths[:3]))


def test_steps_are_shares_so_features_may_have_any_scale():
    paths = draw_paths(LINEAR, 30, 6, seed=2)
    assert measure_steps(paths, HALVES).largest.value == pytest.approx(
        measure_steps(paths).largest.value, rel=0.02
    )
    assert measure_steps(paths, HALVES).space == "halves"


def test_a_cross_fade_is_even_in_pixels_whatever_the_generator():
    faded = cross_fade(draw_paths(JUMP, 40, 12, seed=1))
    assert measure_steps(faded).unevenness.value < 1.1
    two = np.stack([np.full((3, 4, 4), level, np.uint8) for level in (0, 9, 100)])[None]
    assert cross_fade(two)[0, :, 0, 0, 0].tolist() == [0, 50, 100]


def test_middles_off_the_set_are_far_from_real():
    """The jump paints corners of a cube only: its own middles are corners, mixed ones are not."""
    paths, levels = draw_paths(JUMP, 60, 13 - 1, seed=1), np.array([13, 242], np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    real = np.broadcast_to(cube[:, :, None, None], (8, 3, 16, 16))
    paths = paths + np.arange(2, dtype=np.uint8)[None, None, None, None].repeat(
        8, -1
    )  # never exactly a real picture
    own, distances = far_from_real(paths, real)
    mixed, _ = far_from_real(cross_fade(paths), real)
    assert own.value == pytest.approx(1, abs=0.2) and mixed.low > 5 and distances.shape == (60, 3)


def test_objects_that_come_and_go_are_counted_once():
    levels = np.array(
        [[0, 120, 255, 120, 130, 255, 0], [255, 140, 120, 120, 140, 200, 255]], np.uint8
    )
    paths = np.broadcast_to(levels[:, :, None, None, None], (2, 7, 3, 16, 16))
    seen = count_changes(paths, lamp_probe())
    assert (seen.appeared, seen.disappeared) == ({"lamp": 1}, {"lamp": 1}), (
        "doubt in between is no change"
    )
    assert seen.per_segment.value == 1 and seen.n == 2 and seen.lasting.value == 0.5
    assert seen.sure_ends.value == 1 and seen.sure_middles.value == 0
    with pytest.raises(UserError, match="no yes-or-no head"):
        count_changes(paths, lamp_probe("continuous"))


def test_a_lamp_that_comes_and_goes_again_does_not_last():
    levels = np.array(
        [[0, 255, 0, 0, 0], [0, 120, 255, 255, 255], [0, 255, 120, 255, 255]], np.uint8
    )
    seen = count_changes(
        np.broadcast_to(levels[:, :, None, None, None], (3, 5, 3, 16, 16)), lamp_probe()
    )
    assert seen.returned == {"lamp": 1}
    assert (
        seen.lasting.value == pytest.approx(2 / 3) and seen.lasting.low < 2 / 3 < seen.lasting.high
    )


def test_states_come_in_order_and_doubt_is_none():
    doubt, gone = 0.5, 0.02
    found = find_states(np.array([doubt, 0.92, 0.99, doubt, 0.95, gone, doubt, 0.91]))
    assert found == [
        State(True, 1, 4, 2, 0.99),
        State(False, 5, 5, 5, gone),
        State(True, 7, 7, 7, 0.91),
    ]
    assert find_states(np.array([doubt, 0.9, 0.1])) == [], "at the threshold is not beyond it"
    assert len(find_states(np.array([0.92, gone, 0.99]), sure=0.95)) == 2, "0.92 is not sure enough"


def test_paths_of_another_shape_are_refused():
    paths = draw_paths(LINEAR, 4, 5)
    for wrong in (paths[:1], paths[:, :2], paths[0], paths.astype(np.float32)):
        with pytest.raises(UserError, match="paths are uint8"):
            measure_steps(wrong)
    with pytest.raises(UserError, match="odd number"):
        far_from_real(paths, paths[0])
    with pytest.raises(UserError, match="all pictures are the same"):
        measure_steps(np.zeros_like(paths))


# --- learnt by heart ---
def test_a_memoriser_shows_its_images():
    rng = np.random.default_rng(0)
    images, others = (
        np.repeat(rng.integers(0, 256, (n, 3, 1, 1), np.uint8), 256, 3) for n in (2, 50)
    )
    images, others = (part.reshape(-1, 3, 16, 16) for part in (images, others))
    model = ModelConfig(image_size=(16, 16), z_dim=4, base_width=4)
    generator = train_memoriser(images, model, steps=150)
    samples = draw_paths(generator, 50, 2, seed=5)[:, 0]
    assert (nearest(samples, images)[0] < nearest(samples, others)[0]).mean() > 0.8
    z_nd = sample_latents(200, model, seeded(6))
    owner_n = (z_nd @ draw_owners(2, model, seeded(0)).T).argmax(1).numpy()
    copied_n = nearest(generate_u8(generator, z_nd), images)[1]
    assert (copied_n == owner_n).mean() > 0.95, "the owners of seed 0 are those it was trained with"
    with pytest.raises(UserError, match="2 to 256 images"):
        train_memoriser(images[:1], model)
    with pytest.raises(UserError, match="2 to 256 images"):
        train_memoriser(images[:, :, :8], model)


# --- small changes ---
def test_changes_are_what_they_say():
    image = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    assert TRANSFORMS["shift by 1 pixel"](image)[0, 0].tolist()[1] == [0, 0, 1, 2]
    assert TRANSFORMS["shift by 2 pixels"](image)[0, 0].tolist()[3] == [4, 4, 4, 5]
    assert TRANSFORMS["mirrored"](image)[0, 0].tolist()[0] == [3, 2, 1, 0]
    two = np.array([[[[250, 3]]], [[[0, 100]]]], np.uint8)
    assert TRANSFORMS["brighter by 20 of 255"](two)[0].ravel().tolist() == [255, 23]
    assert TRANSFORMS["contrast x 0.8"](two)[1].ravel().tolist() == [10, 90]


def test_stripes_are_fooled_by_a_shift_and_features_that_ignore_it_are_not():
    """Shifted, each image is another one of the set; its mean colour stays its own."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, (40, 3, 1, 1), np.uint8)
    stripes = np.where(np.arange(16) % 8 < 4, 0, 40).astype(np.uint8)
    images = np.concatenate(
        [base + np.roll(stripes, k) + np.zeros((16, 1), np.uint8) for k in range(8)]
    )
    found = fooled_neighbours(images, HALVES, n=100, seed=1)
    assert found["pixels"]["shift by 2 pixels"].low > 0.8
    unlike = rng.integers(0, 256, (300, 3, 16, 16), np.uint8)
    found = fooled_neighbours(unlike, HALVES, n=100, seed=1)
    assert found["pixels"]["brighter by 20 of 255"].high < 0.05, "nothing else is near"
    with pytest.raises(UserError, match="less than the 300 images"):
        fooled_neighbours(unlike, HALVES, n=300)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))


def test_fooled_row_follows_from_the_shares(ledger):
    about = {"n": 100, "data": "made up", "seed": 0, "command": "dcgan fooled x", "seconds": 1.0}
    for missed, outcome in ((90, "reproduced"), (20, "partly"), (0, "not reproduced")):
        shares = {name: wilson_interval(missed, 100) for name in TRANSFORMS}
        found = {"pixels": shares, "features": shares}
        row = record_fooled(found, "faces64", "halves", **about)
        assert (row.verdict, row.value, row.id) == (outcome, missed, "neighbours.fooled:faces64")
    assert record_fooled(found, "rooms", "halves", **about).verdict == "does not transfer"


@pytest.mark.drives("fooled")
def test_fooled_command_prints_and_records(ledger, capsys):
    words = ["fooled", "portraits", "--n", "20", "--num-images", "60", "--record"]
    assert cli.main(words) == 0
    assert "recorded neighbours.fooled:portraits" in capsys.readouterr().out
    row = {row.id: row for row in load_results()}["neighbours.fooled:portraits"]
    assert row.command == " ".join(["dcgan", *words]) and row.n == 20
    assert cli.main(["fooled", "nothing"]) == 2


# --- the measurement and the command ---
def measured(generator):
    real = draw_paths(generator, 20, 24, seed=1)[:, 0]
    return measure_walks(generator, HALVES, lamp_probe(), real, segments=40, seed=1)


def test_checks_separate_a_line_from_a_jump():
    smooth, jump = (list(smooth_checks(measured(g)).values()) for g in (LINEAR, JUMP))
    assert smooth[:2] == [True, True] and jump[:2] == [False, False]
    come_and_go, lasting, *_ = semantic_checks(measured(LINEAR)).values()
    assert lasting and not come_and_go, "the lamp lasts, but 40 segments show it too rarely"


def test_rows_are_recorded_under_the_set(ledger):
    found = measured(LINEAR)
    about = {"data": "made up", "checkpoint": "x", "command": "dcgan walk x", "seconds": 1.0}
    rows = record_walks(found, "rooms", **about)
    assert [row.id for row in rows] == ["walk.smooth:rooms", "walk.semantic:rooms"]
    assert {row.id for row in load_results() if row.is_measured} == {row.id for row in rows}
    assert rows[0].value == pytest.approx(found["largest_step"].value) and rows[0].n == 40
    assert [row.id for row in record_walks(found, "bedrooms64", **about)] == [
        "walk.smooth:bedrooms64"
    ], "a probe of drawn rooms reads no photographs"


@pytest.mark.parametrize("name", ["w.gif", "w.webp", "w.png", "w"])
@pytest.mark.drives("walk")
def test_command_writes_the_walk(tmp_path, name):
    out = tmp_path / "new" / name
    words = "walk mnist --anchors 1 2 3 --frames 5 --curve spherical --columns 3 --scale 3 --out"
    assert cli.main([*words.split(), str(out)]) == 0
    about = json.loads(out.with_suffix(".json").read_text())
    assert about == {
        "checkpoint": "mnist",
        "frames": 5,
        "curve": "spherical",
        "anchors": [1, 2, 3],
        "size": [1, 32, 32],
    }
    with Image.open(out if out.suffix else out.with_suffix(".gif")) as image:
        if name.endswith("png"):
            assert image.size == (3 * (3 * 34 + 2), 3 * (2 * 34 + 2))
        else:
            assert image.n_frames == 8 and image.size == (96, 96), "five pictures there, three back"


def test_a_walk_is_measured_beside_its_picture(tmp_path, capsys):
    words = "walk rooms --frames 2 --measure --segments 3 --out"
    assert cli.main([*words.split(), str(tmp_path / "w.png")]) == 0
    about = json.loads((tmp_path / "w.json").read_text())
    assert about["measured"]["n"] == 3 and len(about["measured"]["largest_step"]) == 3
    assert "middles_from_real" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["rooms", "--out", "w.mp4"],
        ["rooms", "--anchors", "1"],
        ["rooms", "--frames", "1"],
        ["rooms", "--anchors", "-1", "2"],
        ["nothing"],
        ["mnist-conditional"],
    ],
)
def test_mistakes_get_one_sentence(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["walk", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_what_a_row_keeps_is_not_about_the_picture():
    assert Walk(checkpoint="rooms", out="a.png", record=True).command_line() == (
        "dcgan walk rooms --record"
    )


def test_borrowed_features_are_found():
    image_set, features, probe = find_judges("bedrooms")
    assert (image_set, features.name) == ("bedrooms64", "rooms-probe") and probe.head("window")
