"""Forgetting by boxes drawn by hand, on a generator that paints windows with one known map."""

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
from dcgan_lib.evaluation.boxes import HandBoxes, read_boxes, save_boxes
from dcgan_lib.evaluation.probes import load_probe
from dcgan_lib.experiments.forgetting_windows import (
    Forget,
    HandBench,
    held_out_accuracy,
    make_hand_bench,
    measure_by_hand,
    places,
    read_counts,
    record_by_hand,
    trial_pictures,
)
from dcgan_lib.models.networks import new_discriminator
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
    boxes = HandBoxes(checkpoint="painter", seed=0, boxes=boxes)
    discriminator = new_discriminator(MODEL).eval()
    return HandBench(generator=generator, discriminator=discriminator, boxes=boxes)


HOW = Forget(
    checkpoint="painter",
    boxes=Path("windows.json"),
    layer=0,
    threshold=1.0,
    draws=4,
    record="bedrooms64",
)


@pytest.fixture(scope="module")
def measured(bench):
    return measure_by_hand(HOW, bench)


@pytest.fixture
def found(measured):
    return measured[0]


def write_counts(path, found, **seen) -> None:
    seen = {"matched": seen.get("random", "")} | seen
    path.write_text(json.dumps({"settings": found["settings"], "seen": seen}))


def test_boxes_by_hand_find_the_map_that_paints_the_object(measured, bench):
    found, shown = measured
    (outcome,) = found["outcomes"]["paper"]
    assert outcome["maps"] == [WINDOW] and found["fit"]["weights"][BED] < 0
    assert found["fit"]["boxes"] == len(bench.boxes.boxes) == found["settings"]["boxes"] > 75
    by_map, by_place = (found["fit"]["accuracy"][by] for by in ("activations", "place"))
    assert by_map[1] > 0.95 > by_place[2]
    assert by_place[0] > 0.6, "windows are always in the upper half"
    scene, light = outcome["scene"], outcome["light"]
    assert scene["pixels inside"][0] > 0.9 and scene["pixels outside"][0] == 0
    assert light["inside"][0] < 0.8 and light["outside"] == [1, 1, 1]
    assert [len(some) for some in found["outcomes"].values()] == [1, 4, 4]
    others = [o for o in found["outcomes"]["random"] if WINDOW not in o["maps"]]
    assert max(o["scene"]["pixels inside"][0] for o in others) < 0.1
    assert list(shown) == ["before", "paper", "random"]


def test_accuracy_is_that_of_pictures_kept_out(bench):
    """Activations that hold no information are told right as often as by guessing."""
    boxes = bench.boxes.padded(150)
    noise = np.random.default_rng(0).random((150, 100, 4, 4)).astype(np.float32)
    accuracy = held_out_accuracy(noise, boxes, (16, 16), c=1.0, seed=0)
    assert accuracy.low < 0.5 < accuracy.high


def test_places_know_nothing_of_the_picture():
    found = places(3, (4, 6))
    assert found.shape == (3, 5, 4, 6) and (found[0] == found[2]).all()
    assert len(np.unique(found[0].reshape(5, -1), axis=1).T) == 24, (
        "every position is told from the others"
    )


def test_pictures_to_be_counted_are_of_another_seed_and_in_four_conditions(found, bench):
    pictures = trial_pictures(bench, found, 30)
    whole, picked, random, matched = (seen_windows(part) for part in pictures.values())
    assert whole.sum() > 10 and not picked.any()
    fresh = generate_u8(bench.generator, sample_latents(30, MODEL, seeded(1)))
    np.testing.assert_array_equal(pictures["before"], fresh)
    for way, has in (("random", random), ("matched", matched)):
        maps = [outcome["maps"] for outcome in found["outcomes"][way]]
        without = [WINDOW in maps[i % 4] for i in range(30)]
        np.testing.assert_array_equal(has, whole & ~np.array(without))


def test_counts_become_rates_and_rows(found, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))
    path, half = tmp_path / "counts.json", "01" * 25 + "0" * 50
    counts = {"before": "1111" * 20 + "0000" * 5, "paper": "0000" * 25}
    write_counts(path, found, **counts, random="1110" * 20 + "0000" * 5)
    counted = read_counts(path, found["settings"])
    assert counted["pictures"] == 100 and counted["paper"]["fall"] == [1, 1, 1]
    assert counted["random"]["after"][0] == 0.6
    assert counted["random"]["fall"][0] == pytest.approx(0.25)
    gone, rest = record_by_hand(HOW, found | {"counted": counted}, seconds=1.0)
    assert (gone.value, gone.n) == (100, 100) and all(gone.checks.values())
    assert gone.verdict == "partly" and "one observer" in gone.caveat.why
    assert (rest.value, rest.n) == (0, found["fit"]["boxes"])
    write_counts(path, found, before="1" * 50 + "0" * 50, paper=half, random=half)
    same = found | {"counted": read_counts(path, found["settings"])}
    gone, _ = record_by_hand(HOW, same, seconds=1.0)
    assert gone.verdict == "not reproduced", "random maps do the same"


def test_damaged_counts_are_refused_in_a_sentence(found, tmp_path):
    path, settings = tmp_path / "counts.json", found["settings"]
    for seen, told in (
        ({"before": "101", "paper": "000"}, "not a file of counts"),
        ({"before": "1x1", "paper": "000", "random": "000"}, "not a file of counts"),
        ({"before": "101", "paper": "00", "random": "000"}, "as many digits"),
    ):
        write_counts(path, found, **seen)
        with pytest.raises(UserError, match=told):
            read_counts(path, settings)
    write_counts(path, found, before="101", paper="000", random="000")
    with pytest.raises(UserError, match="other settings of seed"):
        read_counts(path, settings | {"seed": 1})
    with pytest.raises(UserError, match="cannot be read"):
        read_counts(tmp_path / "none.json", settings)


def test_boxes_of_other_pictures_are_refused(tmp_path):
    path = tmp_path / "windows.json"
    save_boxes(path, HandBoxes(checkpoint="rooms", seed=0, boxes=((0, 1, 1, 9, 9),)))
    assert make_hand_bench("rooms", path, 0).boxes.pictures == [0]
    for words, told in (
        (("rooms", path, 1), "for seed 0, but 1"),
        (("portraits", path, 0), "for checkpoint 'rooms'"),
        (("rooms", path, 0, "bed"), "for object"),
        (("mnist-conditional", path, 0), "without classes"),
    ):
        with pytest.raises(UserError, match=told):
            make_hand_bench(*words)


# --- the command ---
@pytest.fixture
def room_boxes(tmp_path):
    """Boxes around windows in the first rooms, as the finder sees them."""
    sides = read_boxes(load_probe("probe-room-boxes"), draw("rooms", 30), "window")
    found = np.flatnonzero(np.isfinite(sides[:, 0]))
    boxes = tuple((int(i), *(int(x) for x in (*sides[i, :2], *sides[i, 2:] + 0.99))) for i in found)
    save_boxes(tmp_path / "windows.json", HandBoxes(checkpoint="rooms", seed=0, boxes=boxes))
    return tmp_path / "windows.json"


def test_command_forgets_by_boxes(room_boxes, tmp_path, capsys):
    words = f"forget rooms --boxes {room_boxes} --samples 30 --draws 2 --out {tmp_path}".split()
    assert cli.main(words) == 0
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert found["counted"] == {}
    maps = sorted(found["outcomes"]["paper"][0]["maps"])
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
    words = f"forget rooms --boxes {room_boxes} --samples 12 --out {tmp_path / 'out'}".split()
    assert cli.main(words) == 2
    assert "but only 0 to 11 are drawn" in capsys.readouterr().err
