"""Forgetting, on a generator that is known to paint windows with one map, and beds with another."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.data.drawn.rooms import draw_rooms
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import boxes
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig, load_probe
from dcgan_lib.experiments import forgetting_windows
from dcgan_lib.experiments.forgetting_windows import (
    Forget,
    load_forgetting,
    measure,
    object_checks,
    record_found,
    rest_checks,
)
from dcgan_lib.interpretation.forgetting import (
    Bench,
    activations,
    check_layer,
    compare,
    fit_maps,
    matched_maps,
    measure_effects,
    positions_inside,
    random_maps,
    second_highest,
    silenced,
)
from dcgan_lib.models.dcgan import Generator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.widgets.explorer import Explorer

MODEL = ModelConfig(image_size=(16, 16), z_dim=4, base_width=1)
WINDOW, BED, NUM_MAPS = 5, 2, 8
HEADS = [Head(name=name, kind="boolean") for name in ("window", "bed")]
HEADS += [Head(name=f"window_{side}", kind="continuous") for side in boxes.SIDES]


class Painter(nn.Module):
    """A generator of 8 maps of 4 x 4, each position a block of 4 x 4 pixels.

    Map 5 paints a red window in the upper half, map 2 a green bed in the lowest row, the rest a
    little blue all over.
    """

    def __init__(self):
        super().__init__()
        self.config = MODEL
        self.convs = nn.ModuleList([nn.ConvTranspose2d(NUM_MAPS, 3, 4, 4, bias=False)])
        with torch.no_grad():
            self.convs[0].weight.zero_()
            self.convs[0].weight[WINDOW, 0], self.convs[0].weight[BED, 1] = 2.0, 2.0
            self.convs[0].weight[[i for i in range(NUM_MAPS) if i not in (WINDOW, BED)], 2] = 0.02

    def forward(self, z_bd, labels_b=None):
        h = torch.relu(
            torch.sin(
                torch.arange(NUM_MAPS * 16).view(NUM_MAPS, 4, 4) + 9 * z_bd[:, 1, None, None, None]
            )
        )
        h[:, [WINDOW, BED]] = 0
        for n, z in enumerate(z_bd):
            h[n, WINDOW, int(z[1] > 0), int((z[2] + 1) * 1.999)] = float(z[0] > -0.4)
            h[n, BED, 3, int((z[2] + 1) * 1.999)] = float(z[3] > -0.8)
        return self.convs[0](h).tanh()


class Eyes(Probe):
    """A probe that sees red windows, where they are, and green beds."""

    def predict(self, images_u8, *, batch_size=256):
        red, green = (images_u8[:, channel] > 200 for channel in (0, 1))
        found = {
            "window": red.any((1, 2)).astype(np.float32),
            "bed": green.any((1, 2)).astype(np.float32),
        }
        across, down = red.any(1), red.any(2)
        found |= {"window_left": across.argmax(1), "window_right": 16 - across[:, ::-1].argmax(1)}
        return found | {"window_top": down.argmax(1), "window_bottom": 16 - down[:, ::-1].argmax(1)}


@pytest.fixture
def eyes():
    torch.manual_seed(0)
    probe = Eyes(
        ProbeConfig(
            image_size=(16, 16), num_channels=3, heads=tuple(HEADS), widths=(2,), num_features=8
        )
    )
    return probe.requires_grad_(False).eval()


@pytest.fixture
def bench(eyes):
    return Bench(generator=Painter().eval(), judge=eyes, finder=eyes)


def forget(**options) -> Forget:
    return Forget(**{"layer": 0, "threshold": 1.0, "measured": 300, "draws": 4} | options)


# --- the procedure ---
def test_regression_picks_the_map_that_paints_the_object(bench):
    originals = bench.draw(150, 0)
    fit = bench.fit(originals, 0)
    assert fit.maps()[0] == WINDOW and fit.maps(1.0).tolist() == [WINDOW]
    assert BED not in fit.maps() and fit.weights_c[BED] < 0
    assert fit.num_boxes == (originals.read["window"] > 0.5).sum() == fit.num_positions
    assert fit.accuracy > 0.95


def test_effects_name_the_map_that_the_object_needs(bench):
    effects = measure_effects(bench.generator, bench.finder, bench.draw(60, 0).z_nd, 0, "window")
    assert effects.argmin() == WINDOW and effects[WINDOW] < -1
    np.testing.assert_allclose(np.delete(effects, WINDOW), 0, atol=1e-6)


def test_window_vanishes_and_the_bed_stays_and_chance_does_not_do_it(bench):
    found, _ = measure(forget(), bench)
    outcome = found["outcomes"]["paper"]
    window, bed = outcome["changes"]["window"], outcome["changes"]["bed"]
    assert window["after"][0] == window["kept"][0] == 0 and window["fall"] == [1, 1, 1]
    assert bed["fall"] == [0, 0, 0] and (bed["kept"][0], bed["new"][0]) == (1, 0)
    assert outcome["maps"] == [WINDOW]
    random, matched = (found["controls"][kind]["window"] for kind in ("random", "matched"))
    assert random[0] < 0.5 and all(rest_checks(found).values())
    assert object_checks(window["fall"], random, matched, "it")["it falls by 80% or more"]
    assert outcome["scene"]["pixels inside"][0] > 0.9
    assert outcome["scene"]["pixels outside"][0] == 0


def test_the_same_seed_finds_and_measures_the_same(bench):
    one, same, other = (measure(forget(seed=seed), bench)[0] for seed in (3, 3, 4))
    assert one == same and one["outcomes"] != other["outcomes"]


def test_tuning_finds_the_map_on_pictures_of_another_seed(bench, monkeypatch):
    monkeypatch.setattr(forgetting_windows, "VALIDATED", 100)
    found, shown = measure(forget(compare=True), bench)
    outcomes = found["outcomes"]
    assert outcomes["effect"]["maps"] == [WINDOW] and WINDOW in outcomes["tuned"]["maps"]
    assert outcomes["tuned"]["changes"]["window"]["after"][0] == 0
    assert [row["count"] for row in found["sweep"]["effect"]] == [1]
    assert set(shown) == {"before", "paper", "tuned", "effect", "random"}


# --- boxes and positions ---
def test_positions_inside_are_those_whose_centre_is_in_the_box():
    found = positions_inside(
        np.array([[16, 0, 48, 16], [0, 0, 3, 3], [6, 6, 7, 11]], np.float32), (64, 64), (16, 16)
    )
    assert found.shape == (3, 16, 16) and found[0, :4, 4:12].all() and found[0].sum() == 32
    assert np.argwhere(found[1]).tolist() == [[0, 0]], "the centre of the first cell is at 2"
    assert np.argwhere(found[2]).tolist() == [[1, 1], [2, 1]], "rows go down, columns across"
    assert not positions_inside(np.full((1, 4), np.nan), (64, 64), (4, 4)).any()
    wide = positions_inside(np.array([[20, 0, 40, 10]], np.float32), (10, 40), (5, 20))
    assert wide[0, :, 10:].all() and not wide[0, :, :10].any()


def test_positions_fall_where_the_generator_paints(bench):
    """The box found in the picture, moved to the grid, is where the window's map is on."""
    originals = bench.draw(50, 2)
    on = activations(bench.generator, originals.z_nd, 0)[:, WINDOW] > 0
    np.testing.assert_array_equal(positions_inside(originals.boxes_n4, (16, 16), (4, 4)), on)


def test_box_sides_become_attributes_and_overlap_is_a_share():
    rooms = draw_rooms(12, seed=5)
    parts = boxes.with_box_sides(rooms)
    sides = np.stack([parts.attributes[f"bed_{side}"] for side in boxes.SIDES], 1)
    np.testing.assert_array_equal(sides, rooms.attributes["bed_box"])
    assert parts.attributes["bed"].dtype == bool and "wall_hue" not in parts.attributes
    square = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]], float)
    other = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [np.nan] * 4])
    np.testing.assert_allclose(boxes.overlap(square, other), [1, 1 / 3, 0, np.nan])


def test_an_outline_stands_on_the_edge_of_its_box():
    images = np.full((2, 1, 8, 8), 9, np.uint8)
    shown = boxes.outlined(images, np.array([[2, 3, 6, 7], [np.nan] * 4]))
    yellow = (shown[0] == np.array([255, 221, 0])[:, None, None]).all(0)
    assert (
        shown.shape == (2, 3, 8, 8)
        and yellow[3, 2:6].all()
        and yellow[3:7, 5].all()
        and yellow.sum() == 12
    )
    assert (shown[0, :, 2, 1:7] == 0).all() and (shown[1] == 9).all() and (images == 9).all()


def test_the_committed_finder_finds_boxes():
    finder, rooms = load_probe("probe-room-boxes"), draw_rooms(200, seed=77)
    found = boxes.overlap_report(finder, rooms)
    assert (
        found["window"]["mean"] > 0.7 and found["bed"]["mean"] > 0.8 and found["lamp"]["mean"] > 0.5
    )
    boxes_n4 = boxes.read_boxes(finder, rooms.images_u8, "window")
    assert ((boxes_n4 >= 0) & (boxes_n4 <= 64) | np.isnan(boxes_n4)).all()
    assert (np.isfinite(boxes_n4[:, 0]) == rooms.attributes["window"]).mean() > 0.97
    with pytest.raises(UserError, match="no boxes of 'plant'"):
        boxes.read_boxes(finder, rooms.images_u8, "plant")


# --- switching off ---
def test_silencing_leaves_the_generator_as_it_was():
    generator = load_generator("rooms")
    z_nd, weights = sample_latents(3, generator.config, seeded(1)), generator.state_dict()
    before = generate_u8(generator, z_nd)
    kept = {name: value.clone() for name, value in weights.items()}
    with silenced(generator, [3, 40], 2) as same:
        during = generate_u8(same, z_nd)
    assert same is generator and (during != before).any()
    np.testing.assert_array_equal(generate_u8(generator, z_nd), before)
    assert all(torch.equal(kept[name], value) for name, value in generator.state_dict().items())
    with pytest.raises(RuntimeError, match="inside"), silenced(generator, [0], 2):
        raise RuntimeError("inside")
    assert not any(conv._forward_pre_hooks for conv in generator.convs), (
        "an error leaves no hook behind"
    )
    with silenced(generator, [], 2):
        np.testing.assert_array_equal(generate_u8(generator, z_nd), before)


def test_a_silenced_map_is_zero_after_its_relu_and_others_are_untouched():
    generator = load_generator("rooms")
    z_nd, seen = sample_latents(2, generator.config, seeded(1)), []
    whole = activations(generator, z_nd, 2)
    assert whole.shape == (2, 64, 16, 16) and whole.min() >= 0
    with silenced(generator, [7], 2):
        handle = generator.convs[2].register_forward_pre_hook(
            lambda _, given: seen.append(given[0].clone())
        )
        generate_u8(generator, z_nd)
        handle.remove()
    assert not seen[0][:, 7].any()
    np.testing.assert_array_equal(np.delete(seen[0].numpy(), 7, 1), np.delete(whole, 7, 1))


def test_a_silenced_map_equals_one_whose_weights_are_zero():
    generator, edited = load_generator("rooms"), load_generator("rooms")
    z_nd = sample_latents(2, generator.config, seeded(3))
    with torch.no_grad():
        edited.convs[1].weight[[5, 9]] = 0
    with silenced(generator, [9, 5], 1):
        np.testing.assert_array_equal(generate_u8(generator, z_nd), generate_u8(edited, z_nd))


def test_the_explorer_switches_the_same_maps_off():
    explorer = Explorer("rooms", "maps", 4, layer=2, off=[1, 2, 3])
    with silenced(load_generator("rooms"), [1, 2, 3], 2) as generator:
        np.testing.assert_array_equal(
            generate_u8(generator, explorer.z_bd)[0].transpose(1, 2, 0), explorer.picture
        )


def test_second_highest_is_the_layer_before_the_last_hidden_one():
    paper = ModelConfig(image_size=(64, 64), base_width=128, z_dim=2)
    assert second_highest(paper) == 2
    narrow = Generator(ModelConfig(image_size=(64, 64), base_width=4, z_dim=2)).eval()
    assert check_layer(narrow, 2) == 8 and activations(narrow, torch.zeros(1, 2), 2).shape == (
        1,
        8,
        16,
        16,
    )
    assert second_highest(ModelConfig(image_size=(16, 16))) == 0


# --- chance ---
def test_random_maps_are_all_different_and_repeatable():
    maps = random_maps(64, 40, 1)
    assert len(set(maps.tolist())) == 40 and maps.max() < 64
    np.testing.assert_array_equal(maps, random_maps(64, 40, 1))
    with pytest.raises(UserError, match="65 of 64"):
        random_maps(64, 65, 0)


def test_matched_maps_are_as_active():
    energy = np.arange(1.0, 33)
    maps = np.array([0, 1, 2, 3])
    found = matched_maps(energy, maps, 0)
    assert len(set(found.tolist())) == 4 and energy[found].sum() == pytest.approx(10, abs=10)
    assert energy[random_maps(32, 4, 0)].sum() > 30


# --- mistakes ---
def test_what_cannot_be_is_refused_in_a_sentence(bench, eyes):
    generator = bench.generator
    for layer in (-1, 1):
        with pytest.raises(UserError, match=f"layers are 0 to 0, but layer {layer}"):
            check_layer(generator, layer)
    with pytest.raises(UserError, match=r"maps 0 to 7, but 3 to 8"), silenced(generator, [3, 8], 0):
        pass
    with pytest.raises(UserError, match="only a DCGAN's generator"):
        check_layer(nn.Linear(2, 2), 0)
    with pytest.raises(UserError, match="only 0 pictures have a box"):
        fit_maps(np.zeros((3, 8, 4, 4), np.float32), np.full((3, 4), np.nan), (16, 16))
    with pytest.raises(UserError, match="but no plant"):
        Bench(generator=generator, judge=eyes, finder=eyes, name="plant")
    with pytest.raises(UserError, match="both 'bed'"):
        Bench(generator=generator, judge=eyes, finder=eyes, name="bed")
    with pytest.raises(UserError, match="no picture shows"):
        compare(np.zeros(4, bool), np.ones(4, bool))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["portraits"], "choose a generator of rooms, or give boxes drawn by hand with --boxes"),
        (["nowhere"], "nowhere"),
        (["rooms", "--object", "sofa"], "but no sofa"),
        (["rooms", "--layer", "9"], "layers are 0 to 3, but layer 9"),
        (["rooms", "--samples", "3"], "samples must be at least 10"),
        (["rooms", "--threshold", "99"], "0 of 64 maps"),
        (["rooms", "--record", "no set"], "a set's name"),
    ],
)
def test_command_says_what_is_wrong(words, problem, tmp_path, capsys):
    quick = ["--measured", "12", "--draws", "2"]
    assert cli.main(["forget", *words, *quick, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


# --- the command and the ledger ---
@pytest.mark.drives("forget")
def test_command_writes_what_it_promises(tmp_path, capsys):
    words = "forget rooms --samples 40 --measured 60 --draws 2 --out"
    assert cli.main([*words.split(), str(tmp_path)]) == 0
    found = json.loads((tmp_path / "numbers.json").read_text())
    outcome, weights = found["outcomes"]["paper"], np.array(found["fit"]["weights"])
    assert outcome["layer"] == 2 and sorted(outcome["maps"]) == np.flatnonzero(weights > 0).tolist()
    assert Image.open(tmp_path / "forget.png").size == (10 * 66 + 2, 3 * 66 + 2)
    said = capsys.readouterr().out
    assert "paper: " in said and "as many, random" in said and "window" in said
    assert "rows are before, paper, random" in said
    assert set(outcome["changes"]) == {"window", "lamp", "door", "picture", "bed"}


def test_recorded_rows_follow_from_the_numbers(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    monkeypatch.setattr(forgetting_windows, "VALIDATED", 100)
    how = forget(record="rooms")
    rows = record_found(how, measure(how, bench)[0], seconds=1.0)
    assert [row.id for row in rows] == ["forget.object:rooms", "forget.rest:rooms"]
    assert (rows[0].value, rows[1].value, rows[1].verdict) == (100, 0, "transfers")
    assert rows[0].command == how.command_line() and "--record rooms" in rows[0].command
    assert {row.id for row in load_results()} >= {row.id for row in rows}
    with pytest.raises(UserError, match="not measured yet"):
        load_forgetting("rooms", "lamp")


def test_the_bound_on_the_other_object_is_a_share_of_its_own_rate(bench):
    """Half of the pictures show a bed, so that 15 % of them lost leave 42.5 %."""
    originals = SimpleNamespace(read={"bed": np.repeat([1.0, 0.0], 50)})
    rows = [{"rates": {"window": w, "bed": b}} for w, b in ((0.1, 0.42), (0.3, 0.43))]
    assert bench.best(originals, rows) is rows[1]
