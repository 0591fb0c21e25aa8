"""Sums of concepts and the turn vector, with a generator and a probe whose right answers are known."""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.experiments import vector_arithmetic as arithmetic_study
from dcgan_lib.experiments import vector_arithmetic as turn_study
from dcgan_lib.experiments.vector_arithmetic import (
    Settings,
    load_shares,
    load_turn,
    record_study,
    record_turn,
    run_study,
    run_turn,
)
from dcgan_lib.interpretation.arithmetic import (
    DESCRIBED,
    SUMS,
    Pool,
    add_up,
    draw_pool,
    exemplars,
    flips,
    layout,
    moved,
    nine,
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
    way_of,
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

    config = MODEL

    def forward(self, x_bchw):
        return -x_bchw[:, 0, 0].square().sum(1)


@pytest.fixture
def world(monkeypatch):
    heads = tuple(
        Head(name=name, kind="continuous" if name == "yaw" else "boolean") for name in NAMES
    )
    probe = Reads(ProbeConfig(image_size=(16, 16), num_channels=3, heads=heads, widths=(2,)))
    for module in (arithmetic_study, turn_study):
        monkeypatch.setattr(module, "load_generator", lambda name: Paints().eval())
        name = "load_panel" if module is arithmetic_study else "load_probe"
        monkeypatch.setattr(module, name, lambda name: probe)
    monkeypatch.setattr(arithmetic_study, "load_discriminator", lambda name: Doubts())
    monkeypatch.setattr(arithmetic_study, "described", lambda name: DESCRIBED["portraits"])
    return SimpleNamespace(
        generator=Paints().eval(), probe=probe, pool=draw_pool(Paints().eval(), probe, 2_000, 0)
    )


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


def test_exemplars_and_ways_follow_the_attribute(world):
    z_t3kd = exemplars(world.pool, "glasses", 100, num=10)
    wanted = SUMS["glasses"].wanted
    assert succeeds(world.generator, world.probe, add_up(z_t3kd), wanted).mean() > 0.95
    assert succeeds(world.generator, world.probe, z_t3kd[:, 2].mean(1), wanted).mean() < 0.05, (
        "C alone must fail"
    )
    everyone = np.ones(len(world.pool.z_nd), bool)
    way = way_of(world.pool, "glasses", everyone)
    assert way[1] > 0.95 and np.linalg.norm(way) == pytest.approx(1) and abs(way[0]) < 0.2
    with pytest.raises(UserError, match="both are needed"):
        way_of(world.pool, "glasses", ~everyone)


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


# --- many sums ---
SMALL = Settings(
    checkpoint="made up", probe="made up", trials=60, pool=3_000, seed=3, confidence=0.7, ahead=3.0
)


def test_a_linear_world_obeys_and_chance_does_not(world, tmp_path):
    study = run_study(SMALL)
    for name in SUMS:
        assert study.share(name, "10").value > 95 > study.share(name, "C alone").value
        assert study.share(name, "10").low > study.share(name, "random").high
    assert study.joined("1", "implausible").mean() > 0.3 > study.joined("3", "implausible").mean()
    rows = {
        row.id: row
        for row in record_study(study, "portraits", command="dcgan arithmetic", root=tmp_path)
    }
    assert set(rows) == {
        f"arithmetic.{n}:portraits" for n in ("smile", "glasses", "three-vs-one", "pixels")
    }
    assert rows["arithmetic.smile:portraits"].verdict == "reproduced"
    assert {row.id for row in load_results(tmp_path) if row.is_measured} == set(rows)
    assert load_shares("portraits", tmp_path)["smile"]["3"]["both"].value == round(
        study.share("smile", "3").value, 2
    )


def test_a_probe_that_guesses_finds_nothing(world, monkeypatch, tmp_path):
    """The wrong twin: exemplars chosen by chance must not pass for concepts."""
    rng = np.random.default_rng(0)
    guess = lambda images_u8: {name: rng.random(len(images_u8)) for name in NAMES}  # noqa: E731
    monkeypatch.setattr(world.probe, "predict", guess)
    study = run_study(Settings(**{**vars(SMALL), "ahead": 1.0}))
    rows = {
        row.id: row
        for row in record_study(study, "portraits", command="dcgan arithmetic", root=tmp_path)
    }
    assert {rows[f"arithmetic.{name}:portraits"].verdict for name in SUMS} == {"not reproduced"}


def test_studies_repeat(world):
    one, two = run_study(SMALL), run_study(SMALL)
    assert one.picked == two.picked and arithmetic_study.numbers(one) == arithmetic_study.numbers(
        two
    )
    other = run_study(Settings(**{**vars(SMALL), "seed": 4}))
    assert arithmetic_study.numbers(other) != arithmetic_study.numbers(one)


def test_wrong_settings_are_refused():
    for change in ({"trials": 1}, {"pool": 0}, {"confidence": 0.4}, {"ahead": 0}):
        with pytest.raises(UserError):
            Settings(**{**vars(SMALL), **change})
    with pytest.raises(UserError, match="was not measured yet"):
        load_shares("nothing")


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


def test_straight_lines_are_told_from_bent_ones():
    steps = np.linspace(-1, 1, 11)
    slopes, r2 = straight_lines(np.stack([3 * steps + 1, steps**2, np.sign(steps), 0 * steps]))
    np.testing.assert_allclose(slopes, [3, 0, np.abs(steps).sum() / (steps @ steps), 0], atol=1e-9)
    assert (
        r2[0] == pytest.approx(1) and r2[1] == pytest.approx(0) and 0.6 < r2[2] < 0.9 and r2[3] == 0
    )
    assert summarise(np.stack([steps, -steps, steps])).rising.value == pytest.approx(2 / 3)


def test_flips_are_counted_against_the_middle():
    read = {"hat": np.array([[0.9, 0.9, 0.1], [0.1, 0.1, 0.1]])}
    assert flips(read, "hat", -1).value == 0.5 and flips(read, "hat", 0).value == 0


def test_a_straight_world_turns_straight(world, tmp_path):
    study = run_turn(num_faces=100, pool=2_000, seed=2, least=0.5)
    row = record_turn(study, "portraits", command="dcgan turn", root=tmp_path)
    assert (
        row.verdict == "reproduced"
        and row.value > 0.95
        and study.pictures_u8.shape == (55, 3, 16, 16)
    )
    kept = load_turn("portraits", tmp_path)
    assert kept["axis"]["yaw"][-1][0] > 1 and abs(kept["random"]["line"]["slope"][0]) < 0.5
    assert study.picked == run_turn(num_faces=100, pool=2_000, seed=2, least=0.5).picked
    with pytest.raises(UserError, match="between 2"):
        run_turn(num_faces=3_000, pool=2_000)


def test_a_bent_world_is_not_called_straight(world, monkeypatch, tmp_path):
    """The wrong twin: a yaw that jumps from left to right at the middle."""
    straight = world.probe.predict
    jump = lambda x_u8: straight(x_u8) | {"yaw": np.sign(straight(x_u8)["yaw"])}  # noqa: E731
    monkeypatch.setattr(world.probe, "predict", jump)
    row = record_turn(
        run_turn(num_faces=100, pool=2_000), "portraits", command="dcgan turn", root=tmp_path
    )
    assert row.verdict == "partly" and row.value < 0.9
    with pytest.raises(UserError, match="was not measured yet"):
        load_turn("nothing", tmp_path)


# --- the command line ---
def test_commands_write_what_they_promise(world, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    importlib.import_module(
        "dcgan_lib.models.sampling"
    )  # first, or it would keep the stand-in for ever
    monkeypatch.setattr(
        "dcgan_lib.training.checkpoints.load_generator", lambda name: world.generator
    )
    small = ["--trials", "20", "--pool", "2000", "--confidence", "0.6", "--ahead", "3"]
    assert cli.main(["arithmetic", *small]) == 0
    assert "smile    3" in capsys.readouterr().out
    picks = json.loads((tmp_path / "arithmetic" / "picks.json").read_text())
    assert np.array(picks["picked [A, B, C]"]["smile"]).shape == (3, 3)
    own = [word for group in "abc" for word in (f"--{group}", "1", "2", "3")]
    assert cli.main(["arithmetic", "portraits", *own, "--out", "own"]) == 0
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"sum.png", "picks.json"}
    assert cli.main(["turn", "--faces", "20", "--pool", "1000"]) == 0
    assert {path.name for path in (tmp_path / "turn").iterdir()} == {
        "turn.png",
        "picks.json",
        "numbers.json",
    }


@pytest.mark.parametrize(
    "words",
    [
        ["arithmetic", "--a", "1", "--b", "2"],
        ["arithmetic", "--a", "1", "--b", "2", "--c", "9999999"],
        ["arithmetic", "--a", "1", "--b", "2", "--c", "3", "--record", "portraits"],
        ["arithmetic", "--trials", "1"],
        ["arithmetic", "nothing"],
        ["arithmetic", "--sums", "smile", "--record", "portraits"],
        ["arithmetic", "--record", "No Set"],
        ["arithmetic", "faces", "--probe", "probe-faces"],
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
