"""Forgetting by boxes drawn by hand, on the generator that is known to paint windows with one map."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_forgetting import BED, MODEL, WINDOW, Eyes, Painter

from dcgan_lib import cli
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import DrawnBoxes, read_boxes, save_boxes
from dcgan_lib.evaluation.probes import load_probe
from dcgan_lib.experiments import forgetting_windows as forgetting_drawn
from dcgan_lib.experiments.forgetting_windows import (
    DrawnBench,
    load_forgetting,
    make_drawn_bench,
    places,
    read_counts,
    record_drawn,
    run_drawn_forgetting,
    trial_pictures,
)
from dcgan_lib.models.baselines import new_discriminator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import draw


def seen_windows(pictures_u8: np.ndarray) -> np.ndarray:
    return Eyes.predict(None, pictures_u8)["window"] > 0.5


@pytest.fixture(scope="module")
def bench():
    """The painter, with boxes as a careful hand would draw them."""
    generator = Painter().eval()
    pictures = generate_u8(generator, sample_latents(150, MODEL, seeded(0)))
    found = Eyes.predict(None, pictures)
    sides = np.stack([found[f"window_{side}"] for side in ("left", "top", "right", "bottom")], 1)
    boxes = tuple((int(i), *map(int, sides[i])) for i in np.flatnonzero(seen_windows(pictures)))
    torch.manual_seed(0)
    drawn = DrawnBoxes(checkpoint="painter", seed=0, boxes=boxes)
    return DrawnBench(
        generator=generator, discriminator=new_discriminator(MODEL).eval(), drawn=drawn
    )


@pytest.fixture(scope="module")
def study(bench):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting_drawn, "make_drawn_bench", lambda *_: bench)
        return run_drawn_forgetting(
            "painter", Path("windows.json"), layer=0, threshold=1.0, draws=4
        )


def write_counts(path, study, **seen) -> None:
    seen = {"matched": seen.get("random", "")} | seen
    path.write_text(json.dumps({"settings": study.settings, "seen": seen}))


def test_boxes_by_hand_find_the_map_that_paints_the_object(study, bench):
    (outcome,) = study.outcomes["paper"]
    assert outcome.maps == [WINDOW] and study.fit.weights_c[BED] < 0
    assert study.fit.num_boxes == len(bench.drawn.boxes) == study.settings["boxes"] > 75
    assert study.accuracy["activations"].low > 0.95 > study.accuracy["place"].high
    assert study.accuracy["place"].value > 0.6, "windows are always in the upper half"
    assert outcome.scene["pixels inside"].value > 0.9 and outcome.scene["pixels outside"].value == 0
    assert outcome.light["inside"].value < 0.8 and outcome.light["outside"] == (1, 1, 1)
    assert [len(found) for found in study.outcomes.values()] == [1, 4, 4]
    others = [
        o.scene["pixels inside"].value for o in study.outcomes["random"] if WINDOW not in o.maps
    ]
    assert max(others) < 0.1 and list(study.shown) == ["before", "paper", "random"]


def test_accuracy_is_that_of_pictures_kept_out(bench):
    """Activations that hold no information are told right as often as by guessing, however many there are."""
    boxes = bench.drawn.padded(150)
    noise = np.random.default_rng(0).random((150, 100, 4, 4)).astype(np.float32)
    accuracy = forgetting_drawn.held_out_accuracy(noise, boxes, (16, 16), c=1.0, seed=0)
    assert accuracy.low < 0.5 < accuracy.high


def test_places_know_nothing_of_the_picture():
    found = places(3, (4, 6))
    assert found.shape == (3, 5, 4, 6) and (found[0] == found[2]).all()
    assert len(np.unique(found[0].reshape(5, -1), axis=1).T) == 24, (
        "every position is told from the others"
    )


def test_pictures_to_be_counted_are_of_another_seed_and_in_four_conditions(study, bench):
    pictures = trial_pictures(bench, study, 30)
    whole, picked, random, matched = (seen_windows(part) for part in pictures.values())
    assert whole.sum() > 10 and not picked.any()
    np.testing.assert_array_equal(
        pictures["before"], generate_u8(bench.generator, sample_latents(30, MODEL, seeded(1)))
    )
    for way, has in (("random", random), ("matched", matched)):
        without = [WINDOW in study.outcomes[way][i % 4].maps for i in range(30)]
        np.testing.assert_array_equal(has, whole & ~np.array(without))


def test_counts_become_rates_rows_and_details(study, tmp_path):
    path = tmp_path / "counts.json"
    write_counts(
        path,
        study,
        before="1111" * 20 + "0000" * 5,
        paper="0000" * 25,
        random="1110" * 20 + "0000" * 5,
    )
    counted = read_counts(path, study.settings)
    assert counted.num == 100 and counted.changes["paper"].fall == (1, 1, 1)
    assert counted.changes["random"].after.value == 0.6 and counted.changes[
        "random"
    ].fall.value == pytest.approx(0.25)
    words = "dcgan forget painter --boxes windows.json --counts counts.json --record bedrooms64"
    gone, rest = record_drawn(study, counted, "bedrooms64", command=words, root=tmp_path)
    assert (gone.value, gone.n, gone.verdict) == (
        100,
        100,
        "reproduced",
    ) and "counted by eye" in gone.notes
    assert rest.value == 0 and rest.n == study.fit.num_boxes and rest.id == "forget.rest:bedrooms64"
    kept = load_forgetting("bedrooms64", root=tmp_path)
    assert kept["counted"]["pictures"] == 100 and kept["outcomes"]["paper"][0]["maps"] == [WINDOW]
    write_counts(
        path,
        study,
        before="1" * 50 + "0" * 50,
        paper="01" * 25 + "0" * 50,
        random="01" * 25 + "0" * 50,
    )
    same = read_counts(path, study.settings)
    gone, _ = record_drawn(study, same, "bedrooms64", command=words, root=tmp_path)
    assert gone.verdict == "not reproduced", "random maps do the same"


def test_damaged_counts_are_refused_in_a_sentence(study, tmp_path):
    path = tmp_path / "counts.json"
    for seen, told in (
        ({"before": "101", "paper": "000"}, "not a file of counts"),
        ({"before": "1x1", "paper": "000", "random": "000"}, "not a file of counts"),
        ({"before": "101", "paper": "00", "random": "000"}, "as many digits"),
    ):
        write_counts(path, study, **seen)
        with pytest.raises(UserError, match=told):
            read_counts(path, study.settings)
    write_counts(path, study, before="101", paper="000", random="000")
    for key, value in (("seed", 1), ("boxes", 3), ("layer", 1)):
        with pytest.raises(UserError, match=f"other settings of {key}"):
            read_counts(path, study.settings | {key: value})
    with pytest.raises(UserError, match="not a file of counts"):
        read_counts(tmp_path / "none.json", study.settings)


def test_boxes_of_other_pictures_are_refused(tmp_path):
    path = tmp_path / "windows.json"
    save_boxes(path, DrawnBoxes(checkpoint="rooms", seed=0, boxes=((0, 1, 1, 9, 9),)))
    assert make_drawn_bench("rooms", path, 0).drawn.pictures == [0]
    for words, told in (
        (("rooms", path, 1), "for seed 0, but 1"),
        (("portraits", path, 0), "for checkpoint 'rooms'"),
        (("rooms", path, 0, "bed"), "for object"),
        (("mnist-conditional", path, 0), "without classes"),
    ):
        with pytest.raises(UserError, match=told):
            make_drawn_bench(*words)


# --- the command ---
@pytest.fixture
def room_boxes(tmp_path):
    """Boxes around windows in the first rooms, as the finder sees them."""
    sides = read_boxes(load_probe("probe-room-boxes"), draw("rooms", 30), "window")
    found = np.flatnonzero(np.isfinite(sides[:, 0]))
    boxes = tuple((int(i), *(int(x) for x in (*sides[i, :2], *sides[i, 2:] + 0.99))) for i in found)
    save_boxes(tmp_path / "windows.json", DrawnBoxes(checkpoint="rooms", seed=0, boxes=boxes))
    return tmp_path / "windows.json"


def test_command_forgets_by_boxes(room_boxes, tmp_path, capsys):
    words = [
        "forget",
        "rooms",
        "--boxes",
        str(room_boxes),
        "--samples",
        "30",
        "--draws",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert cli.main(words) == 0
    about, found = (
        json.loads((tmp_path / name).read_text()) for name in ("maps.json", "numbers.json")
    )
    assert about["rows"] == ["before", "paper", "random"] and found["counted"] == {}
    maps = sorted(about["switched off"]["paper"]["maps"])
    assert (
        maps == np.flatnonzero(np.array(found["fit"]["weights"]) > 0).tolist()
        and 0 < len(maps) < 64
    )
    assert Image.open(tmp_path / "forget.png").size[1] == 3 * 66 + 2
    said = capsys.readouterr().out
    assert "told right by activations" in said and re.search(
        r"random, \d+ maps off, moved: pixels inside", said
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--boxes", "nothing.json"], "no file of boxes at nothing.json"),
        (["--boxes", "nothing.json", "--record", "bedrooms64"], "add --counts FILE"),
    ],
)
def test_command_says_what_is_wrong(words, problem, tmp_path, capsys):
    assert cli.main(["forget", "rooms", *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_command_needs_enough_samples_for_its_boxes(room_boxes, tmp_path, capsys):
    words = [
        "forget",
        "rooms",
        "--boxes",
        str(room_boxes),
        "--samples",
        "12",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(words) == 2
    assert "but only 0 to 11 are drawn" in capsys.readouterr().err
