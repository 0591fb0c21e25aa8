"""Sums of concepts and the turn vector, with a generator and a probe whose right answers are
known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import load_results, rounded
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments.vector_arithmetic import (
    OverlayInstrument,
    fit_judge,
    load_facts,
    load_shares,
    load_turn,
    measure_sums,
    measure_turn,
    overlay_instrument,
    record_sums,
    record_turn,
    shares_of,
)
from dcgan_lib.interpretation.arithmetic import (
    SUMS,
    EdgeReader,
    Pool,
    add_up,
    draw_pool,
    edge_features,
    exemplars,
    flips,
    layout,
    moved,
    nine,
    overlays_of_two,
    pick,
    pick_sides,
    pictures_of,
    pixel_sums,
    random_axes,
    rescaled,
    shows,
    straight_lines,
    succeeds,
    summarise,
    turn_axes,
    usual_length,
)

NAMES = ("smile", "glasses", "long_hair", "yaw")
MODEL = ModelConfig(image_size=(16, 16), z_dim=8, base_width=1)


class Paints(nn.Module):
    """A generator that writes z into the first row of the picture, half as strong."""

    def __init__(self):
        super().__init__()
        self.config, self.unused = MODEL, nn.Parameter(torch.zeros(1))

    def forward(self, z_bd, labels_b=None):
        x_bchw = torch.zeros(len(z_bd), 3, 16, 16)
        x_bchw[:, 0, 0, :8] = (z_bd / 4).clamp(-1, 1)
        return x_bchw


class Reads(Probe):
    """A probe that reads the first row back: three attributes by their sign, and the yaw."""

    def predict(self, images_u8, *, batch_size=256):
        row = (images_u8[:, 0, 0].astype(np.float32) / 127.5 - 1) * 4
        chances = 1 / (1 + np.exp(-20 * row[:, :3]))
        return {**dict(zip(NAMES, chances.T, strict=False)), "yaw": row[:, 3]}


class Doubts(nn.Module):
    """A discriminator that finds long vectors less real."""

    def __init__(self):
        super().__init__()
        self.config, self.unused = MODEL, nn.Parameter(torch.zeros(1))

    def forward(self, x_bchw, labels_b=None):
        return -x_bchw[:, 0, 0].square().sum(1)


@pytest.fixture
def world():
    heads = tuple(
        Head(name=name, kind="continuous" if name == "yaw" else "boolean") for name in NAMES
    )
    probe = Reads(ProbeConfig(image_size=(16, 16), num_channels=3, heads=heads, widths=(2,)))
    generator = Paints().eval()
    pool = draw_pool(generator, probe, 2_000, 0)
    return SimpleNamespace(generator=generator, probe=probe, doubts=Doubts(), pool=pool)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))


ABOUT = {"checkpoint": "made up", "seed": 3, "command": "dcgan x", "seconds": 1.0}


# --- sums ---
def test_concepts_are_those_of_the_paper():
    smile, glasses = SUMS["smile"], SUMS["glasses"]
    assert smile.concepts == (
        {"smile": True, "long_hair": True},
        {"smile": False, "long_hair": True},
        {"smile": False, "long_hair": False},
    )
    assert smile.wanted == {"smile": True, "long_hair": False}
    assert glasses.wanted == {"glasses": True, "long_hair": True}, (
        "the paper's second sum ends with the woman"
    )


def test_sum_of_means_is_a_minus_b_plus_c():
    z = np.arange(3 * 2 * 4, dtype=float).reshape(3, 2, 4)
    np.testing.assert_allclose(add_up(z), z[0].mean(0) - z[1].mean(0) + z[2].mean(0))
    np.testing.assert_allclose(add_up(z[None])[0], add_up(z))
    assert not np.allclose(add_up(z), add_up(z[[1, 0, 2]])), "the order of A and B matters"
    with pytest.raises(UserError, match="three groups"):
        add_up(z[:2])


def test_three_exemplars_keep_the_usual_length():
    z = np.random.default_rng(0).uniform(-1, 1, (2_000, 3, 3, 100))
    wide = ModelConfig(z_dim=100)
    three, one = (np.linalg.norm(add_up(part), axis=1).mean() for part in (z, z[:, :, :1]))
    assert three == pytest.approx(usual_length(wide), rel=0.01)
    assert one == pytest.approx(3**0.5 * usual_length(wide), rel=0.01)
    short = rescaled(add_up(z), wide)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), usual_length(wide))


def test_exemplars_show_what_was_asked(world):
    picked = pick(world.pool, SUMS["smile"].concepts, 3, 50, seed=4, ahead=0.4)
    assert picked.shape == (50, 3, 3)
    for group, concept in enumerate(SUMS["smile"].concepts):
        chosen = {
            name: values[picked[:, group].ravel()] for name, values in world.pool.read.items()
        }
        assert shows(chosen, concept, 0.9).all() and (np.abs(chosen["yaw"]) <= 0.4).all()
        assert not shows(chosen, {"smile": not concept["smile"]}).any()
    assert all(len(set(group)) == 3 for trial in picked.tolist() for group in trial)


def test_the_same_seed_picks_the_same(world):
    again = draw_pool(world.generator, world.probe, 2_000, 0)
    np.testing.assert_array_equal(world.pool.z_nd, again.z_nd)
    one, two, other = (
        pick(pool, SUMS["glasses"].concepts, 3, 20, seed)
        for pool, seed in ((world.pool, 1), (again, 1), (again, 2))
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_wrong_choices_are_refused(world):
    with pytest.raises(UserError, match="but no moustache"):
        pick(world.pool, ({"smile": True, "moustache": False},), 1, 1, 0)
    with pytest.raises(UserError, match="are needed: draw more"):
        pick(
            Pool(world.pool.z_nd[:4], {k: v[:4] for k, v in world.pool.read.items()}),
            SUMS["smile"].concepts,
            3,
            1,
            0,
        )


def test_exemplars_follow_the_attribute(world):
    z_t3kd = exemplars(world.pool, "glasses", 100, num=10)
    wanted = SUMS["glasses"].wanted
    assert succeeds(world.generator, world.probe, add_up(z_t3kd), wanted).mean() > 0.95
    assert succeeds(world.generator, world.probe, z_t3kd[:, 2].mean(1), wanted).mean() < 0.05, (
        "C alone must fail"
    )


def test_nine_surround_the_sum():
    y = np.linspace(-1, 1, 8)
    grid = nine(y, seed=3)
    np.testing.assert_array_equal(grid[4], y)
    away = np.delete(np.abs(grid - y), 4, 0)
    assert away.max() <= 0.25 and away.max() > 0.2 and (away.max(1) > 0).all()
    np.testing.assert_array_equal(grid, nine(y, seed=3))
    assert not np.array_equal(grid, nine(y, seed=4))


def test_pixel_sums_overlay_and_are_cut_off():
    x = np.zeros((1, 3, 2, 1, 1, 2), np.uint8)
    x[0, 0], x[0, 1], x[0, 2] = 200, 50, 100  # 250
    x[0, :, :, 0, 0, 1] = np.array([[200, 200], [0, 0], [100, 101]])  # 300.5: too bright
    assert pixel_sums(x).ravel().tolist() == [250, 255]
    assert pixel_sums(x[:, [1, 0, 2]]).ravel().tolist() == [0, 0]


def test_layout_is_of_one_height(world):
    shown = layout(world.generator, world.pool.z_nd[:9].reshape(3, 3, 8))
    assert list(shown) == ["A", "B", "C", "A − B + C", "pixels"]
    assert {x.shape[2] for x in shown.values()} == {4 * 18 + 2} and shown["A − B + C"].shape[
        3
    ] == 3 * 18 + 2
    assert (shown["pixels"][0, :, 22:] == 255).all()


# --- a second judge, and who sees overlays ---
def crosses(num, seed=0, *, anywhere=False):
    """Pictures with one bright cross each, on noise, and whether its arms stand upright.

    The others slant; ``anywhere`` moves each cross, so that two of them hardly ever coincide.
    """
    rng, rows = np.random.default_rng(seed), np.arange(16)
    x_u8 = rng.integers(0, 60, (num, 3, 16, 16)).astype(np.uint8)
    upright = rng.random(num) < 0.5
    for image, stands in zip(x_u8, upright, strict=True):
        if stands:
            image[:, 7:9] = image[:, :, 7:9] = 220
        else:
            image[:, rows, rows] = image[:, rows, 15 - rows] = 220
        if anywhere:
            image[:] = np.roll(image, rng.integers(-5, 6, 2), (1, 2))
    return x_u8, upright


def test_edges_tell_shapes_apart_and_do_not_see_contrast():
    x_u8, upright = crosses(400)
    reader = EdgeReader().fit(x_u8[:200], {"upright": upright[:200], "size": 2.0 * upright[:200]})
    read = reader.predict(x_u8[200:])
    assert ((read["upright"] > 0.5) == upright[200:]).mean() > 0.95
    assert np.corrcoef(read["size"], upright[200:])[0, 1] > 0.9
    faded = reader.predict(x_u8[200:] // 2)
    assert ((faded["upright"] > 0.5) == upright[200:]).mean() > 0.95
    with pytest.raises(UserError, match="multiples of 8"):
        edge_features(np.zeros((1, 3, 20, 20), np.uint8))


def test_overlays_of_two_are_means_and_can_have_their_contrast_back():
    x_u8 = np.random.default_rng(0).integers(60, 190, (400, 3, 16, 16)).astype(np.uint8)
    means = overlays_of_two(x_u8)
    np.testing.assert_allclose(means[0], (x_u8[0].astype(float) + x_u8[200]) / 2, atol=0.51)
    ratio = means.std(0).mean() / x_u8.std(0).mean()
    restored = overlays_of_two(x_u8, restored=True).std(0).mean() / x_u8.std(0).mean()
    assert ratio == pytest.approx(0.5**0.5, abs=0.03) and restored == pytest.approx(1, abs=0.03)


class Crosses(Paints):
    """A generator whose pictures show one cross each, somewhere."""

    def forward(self, z_bd, labels_b=None):
        x_u8, _ = crosses(len(z_bd), seed=abs(int(1e6 * float(z_bd[0, 0]))), anywhere=True)
        return torch.from_numpy(x_u8).float() / 127.5 - 1


class Clouds(Paints):
    """A generator of plain noise, in which an overlay is noise as well."""

    def forward(self, z_bd, labels_b=None):
        rng = np.random.default_rng(abs(int(1e6 * float(z_bd[0, 0]))))
        return torch.from_numpy(rng.normal(0, 0.2, (len(z_bd), 3, 16, 16))).float().clamp(-1, 1)


def test_an_instrument_for_overlays_passes_where_they_can_be_seen_and_only_there():
    sees = overlay_instrument(Crosses().eval(), 0)
    assert sees.passes and sees.found["overlays of two, contrast restored"].value > 30
    x_u8, _ = crosses(900, seed=5, anywhere=True)
    assert sees.sees(pixel_sums(x_u8.reshape(-1, 3, 3, 3, 16, 16))).mean() > 0.9
    assert sees.sees(x_u8).mean() < 0.15
    assert not overlay_instrument(Clouds().eval(), 0).passes, "noise upon noise is no overlay"


def test_a_second_judge_learns_from_the_sets_of_the_probes(monkeypatch):
    monkeypatch.setattr("dcgan_lib.experiments.vector_arithmetic.JUDGE_TRAIN", 300)
    monkeypatch.setattr("dcgan_lib.experiments.vector_arithmetic.JUDGE_TEST", 200)
    judge = fit_judge("probe-portraits", {"long_hair", "yaw"})
    assert judge.facts["long_hair"] > 90 and judge.facts["yaw"] > 0.5
    with pytest.raises(UserError, match="set of a committed probe"):
        fit_judge("probe-nothing", {"smile"})


# --- many sums ---
def blind(passes=True):
    """An instrument that sees the brightest 5 % as overlays, with a made-up record."""
    share = Estimate(99.0, 98.0, 100.0) if passes else Estimate(20.0, 15.0, 25.0)
    few = Estimate(5.0, 4.0, 6.0)
    found = {"sums of any three samples": share, "faded samples": few}
    reader = SimpleNamespace(predict=lambda x_u8: {"overlay": x_u8.mean((1, 2, 3))})
    return OverlayInstrument(reader=reader, limit=0.0, found=found)


JUDGE = SimpleNamespace(facts={"smile": 90.0})


def measured_sums(world, seed=3, ahead=3.0):
    pool = draw_pool(world.generator, world.probe, 3_000, seed)
    networks = world.generator, world.probe, world.doubts
    how = {"trials": 60, "seed": seed, "confidence": 0.7, "ahead": ahead}
    others = {"judge": world.probe, "overlays": blind()}
    return measure_sums(*networks, pool, SUMS, **others, **how)


def measured_rows():
    return {row.id: row for row in load_results() if row.is_measured}


def test_a_linear_world_obeys_and_chance_does_not(world, ledger):
    seen = measured_sums(world)
    for share in shares_of(seen).values():
        assert share["10"]["both"].value > 95 > share["C alone"]["both"].value
        assert share["10"]["both"].low > share["random"]["both"].high
        assert share["1"]["implausible"].value > 30 > share["3"]["implausible"].value
    record_sums(seen, "faces64", "Who reads.", JUDGE, blind(), **ABOUT)
    rows = measured_rows()
    claims = ("smile", "glasses", "three-vs-one", "pixels")
    assert set(rows) == {f"arithmetic.{name}:faces64" for name in claims}
    smile, gain = rows["arithmetic.smile:faces64"], rows["arithmetic.three-vs-one:faces64"]
    assert smile.verdict == "reproduced" and smile.notes.startswith("Who reads. Other conditions:")
    assert (smile.n, gain.n) == (60, 120) and gain.value > 0
    assert "the two agree on 100.0 % of the sums" in smile.notes
    assert "With exemplars of any pose: smile +" in gain.notes


def test_without_an_instrument_no_overlay_is_seen(world, ledger):
    seen = measured_sums(world)
    assert all(found["3 pixels"]["overlay"].all() for found in seen.values())
    for passes in (True, False):
        record_sums(seen, "faces64", "Who reads.", JUDGE, blind(passes), **ABOUT)
        row = measured_rows()["arithmetic.pixels:faces64"]
        assert row.checks["most pixel sums look like overlays"] is passes
        assert ("there is no instrument" in row.notes) is not passes


def test_a_second_judge_who_disagrees_is_heard(world, ledger):
    pool = draw_pool(world.generator, world.probe, 3_000, 3)
    contrary = lambda x_u8: {k: 1 - v for k, v in world.probe.predict(x_u8).items()}  # noqa: E731
    seen = measure_sums(
        *(world.generator, world.probe, world.doubts, pool, SUMS),
        judge=SimpleNamespace(predict=contrary),
        overlays=blind(),
        **{"trials": 60, "seed": 3, "confidence": 0.7, "ahead": 3.0},
    )
    record_sums(seen, "faces64", "Who reads.", JUDGE, blind(), **ABOUT)
    row = measured_rows()["arithmetic.smile:faces64"]
    assert row.checks["more than half do by a judge that took no part in the choice"] is False
    assert row.verdict == "partly"


def test_a_probe_that_guesses_finds_nothing(world, monkeypatch, ledger):
    """The wrong twin: exemplars chosen by chance must not pass for concepts."""
    rng = np.random.default_rng(0)
    guess = lambda images_u8: {name: rng.random(len(images_u8)) for name in NAMES}  # noqa: E731
    monkeypatch.setattr(world.probe, "predict", guess)
    seen = measured_sums(world, ahead=1.0)
    record_sums(seen, "portraits", "Who reads.", JUDGE, blind(), **ABOUT)
    rows = measured_rows()
    verdicts = {rows[f"arithmetic.{name}:portraits"].verdict for name in SUMS}
    assert verdicts == {"does not transfer"}


def test_sums_repeat_by_seed(world):
    one, two, other = (shares_of(measured_sums(world, seed)) for seed in (3, 3, 4))
    assert one == two != other
    assert "3 any pose" not in shares_of(measured_sums(world, ahead=None))["smile"]


def test_what_is_not_measured_is_refused(ledger):
    for load in (load_shares, load_turn):
        with pytest.raises(UserError, match="was not measured yet: run dcgan"):
            load("nothing")


# --- the turn ---
def test_axis_points_from_left_to_right(world):
    picked = pick_sides(world.pool, 30, 0, least=0.5)
    yaw = world.pool.read["yaw"][picked]
    assert picked.shape == (30, 2, 4) and yaw[:, 0].max() <= -0.5 and yaw[:, 1].min() >= 0.5
    axes = turn_axes(world.pool.z_nd[picked])
    assert (axes[:, 3] > 1).all() and abs(axes[:, 5].mean()) < 0.2
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(np.linalg.norm(random_axes(axes, 0), axis=1), lengths)
    with pytest.raises(UserError, match="look left"):
        pick_sides(world.pool, 1, 0, least=2)
    with pytest.raises(UserError, match="no yaw"):
        pick_sides(Pool(world.pool.z_nd, {"smile": world.pool.read["smile"]}), 1, 0)


def test_steps_run_through_the_face():
    z, axes = np.ones((2, 3)), np.full((2, 3), 2.0)
    path = moved(z, axes)
    assert path.shape == (2, 11, 3)
    np.testing.assert_array_equal(path[:, 5], z)
    np.testing.assert_array_equal(path[:, -1] - path[:, 0], 2 * axes)


def test_straight_lines_differ_from_bent_ones():
    steps = np.linspace(-1, 1, 11)
    slopes, r2 = straight_lines(np.stack([3 * steps + 1, steps**2, np.sign(steps), 0 * steps]))
    np.testing.assert_allclose(slopes, [3, 0, np.abs(steps).sum() / (steps @ steps), 0], atol=1e-9)
    assert (
        r2[0] == pytest.approx(1) and r2[1] == pytest.approx(0) and 0.6 < r2[2] < 0.9 and r2[3] == 0
    )
    assert summarise(np.stack([steps, -steps, steps]))["rising"].value == pytest.approx(2 / 3)


def test_flips_are_counted_against_the_middle():
    hat = np.array([[0.9, 0.9, 0.1], [0.1, 0.1, 0.1]])
    assert flips(hat, -1).value == 0.5 and flips(hat, 0).value == 0


def measured_turn(world):
    axes_nd = turn_axes(world.pool.z_nd[pick_sides(world.pool, 100, 2, least=0.5)])
    faces_nd = world.pool.z_nd[:100]
    return measure_turn(world.generator, world.probe, world.probe, faces_nd, axes_nd, 2)


def test_a_straight_world_turns_straight(world, ledger):
    found = measured_turn(world)
    record_turn(found, "faces64", n=100, **ABOUT)
    row = measured_rows()["turn.linear:faces64"]
    assert row.verdict == "reproduced" and row.value > 0.95
    kept = rounded(found, 4)
    assert kept["axis"]["yaw"][-1][0] > 1 and abs(kept["random"]["line"]["slope"][0]) < 0.5
    assert set(kept["axis"]["flips"]) == {"smile", "glasses", "long_hair"}, "a yaw does not flip"
    assert found["axis"]["second"] == found["axis"]["line"] and found["axis"]["changes"] == {}
    assert measured_turn(world) == found


def test_a_bent_world_is_not_called_straight(world, monkeypatch, ledger):
    """The wrong twin: a yaw that jumps from left to right at the middle."""
    straight = world.probe.predict
    jump = lambda x_u8: straight(x_u8) | {"yaw": np.sign(straight(x_u8)["yaw"])}  # noqa: E731
    monkeypatch.setattr(world.probe, "predict", jump)
    record_turn(measured_turn(world), "faces64", n=100, **ABOUT)
    row = measured_rows()["turn.linear:faces64"]
    assert row.verdict == "partly" and row.value < 0.9


# --- the command line ---
@pytest.mark.drives("arithmetic", "turn")
def test_commands_write_what_they_promise(ledger, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    few = {"JUDGE_TRAIN": 300, "JUDGE_TEST": 100, "OVERLAY_SAMPLES": 300, "OVERLAY_TESTS": 100}
    for name, number in few.items():
        monkeypatch.setattr(f"dcgan_lib.experiments.vector_arithmetic.{name}", number)
    words = "arithmetic portraits --trials 4 --pool 2000 --record portraits"
    assert cli.main(words.split()) == 0
    assert "smile    3" in capsys.readouterr().out
    picks = json.loads((tmp_path / "arithmetic" / "picks.json").read_text())
    assert np.array(picks["picked [A, B, C]"]["smile"]).shape == (3, 3)
    smile, kept = measured_rows()["arithmetic.smile:portraits"], load_shares("portraits")
    assert kept["smile"]["3"]["both"].value == round(smile.value, 2)
    assert smile.command == f"dcgan {words}" and smile.n == 4
    known = load_facts("portraits", "known overlays found")
    assert 0 <= known["faded samples"][0] < known["sums of any three samples"][0] <= 100
    assert set(load_facts("portraits", "second judge, held out")) == {
        "smile",
        "glasses",
        "long_hair",
    }
    own = [word for group in "abc" for word in (f"--{group}", "1", "2", "3")]
    assert cli.main(["arithmetic", "portraits", *own, "--out", "own"]) == 0
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"sum.png", "picks.json"}
    assert cli.main(words.replace("arithmetic", "turn").replace("trials", "faces").split()) == 0
    made = {path.name for path in (tmp_path / "turn").iterdir()}
    assert made == {"turn.png", "numbers.json"}
    names = ["checkpoint", "probe", "pool", "least", "seed"]
    turned = load_turn("portraits")
    assert list(turned["settings"]) == names
    assert turned["axis"]["changes"]["skin_tone"][0] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["arithmetic", "--a", "1", "--b", "2"],
        ["arithmetic", "--a", "1", "--b", "2", "--c", "3", "--record", "portraits"],
        ["arithmetic", "--trials", "1"],
        ["arithmetic", "nothing"],
        ["arithmetic", "--record", "No Set"],
        ["turn", "--faces", "1"],
        ["turn", "faces", "--probe", "probe-faces"],
        ["turn", "--record", "No Set"],
    ],
)
def test_mistakes_are_answered_in_one_sentence(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_pictures_follow_z(world):
    z = np.array([[4.0, -4, 0, 0, 0, 0, 0, 0]])
    assert pictures_of(world.generator, z)[0, 0, 0, :3].tolist() == [255, 0, 128]
