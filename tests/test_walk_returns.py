"""Why objects return: states, planes and second opinions, on objects whose borders are known."""

import numpy as np
import pytest

from dcgan_lib import cli
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.experiments.latent_walk import (
    NETWORK,
    PLANE,
    agreement,
    auc_in_halves,
    both_sure,
    check_explanations,
    count_returns,
    held_out_auc,
    load_returns,
    sureness,
)
from dcgan_lib.interpretation.arithmetic import Pool
from dcgan_lib.interpretation.walk import all_states

HERE, GONE, DOUBT = 0.97, 0.02, 0.5


def chances(*segments) -> np.ndarray:
    """Return one object along segments, s x t x 1."""
    return np.array(segments)[:, :, None]


def test_returns_are_counted_against_changes():
    steady, single = [HERE] * 5, [HERE, HERE, DOUBT, GONE, GONE]
    back = [HERE, GONE, GONE, DOUBT, HERE]
    found = count_returns(all_states(chances(steady, single, back, back)))
    assert (found["returned"], found["changed"], found["excursion"]) == ([2], [3], 2)
    assert found["lasting"][0] == 0.5 and found["returns"][0] == pytest.approx(2 / 3, abs=1e-3)
    assert count_returns(all_states(chances(steady, single)))["excursion"] is None


def test_half_steps_keep_the_returns_and_double_the_excursions():
    fine = chances([HERE] * 6 + [GONE] * 8 + [HERE] * 7, [GONE] * 9 + [HERE] * 12)
    coarse, finer = (count_returns(all_states(part)) for part in (fine[:, ::2], fine))
    assert (
        coarse["returned"] == finer["returned"] == [1]
        and finer["excursion"] == 2 * coarse["excursion"]
    )


def test_two_probes_are_sure_only_together():
    joined = both_sure(np.array([0.99, 0.99, 0.01, 0.01]), np.array([0.95, 0.01, 0.03, 0.6]))
    assert joined.tolist() == [0.95, 0.5, 0.03, 0.5]


def test_agreement_is_asked_at_the_surest_pictures():
    states = all_states(chances([HERE, GONE, HERE], [HERE, 0.95, GONE], [HERE] * 3))
    agreed = agreement(states, chances([0.9, 0.8, 0.9], [0.6, 0.1, 0.4], [0, 0, 0]))
    assert agreed["returns"][0] == 0 and agreed["single"][0] == 1, (
        "the second picture of the second is not the surest"
    )


def test_sureness_finds_a_weak_excursion():
    weak = [
        all_states(chances(row))[0][0]
        for row in [[0.999, 0.09, 0.999]] * 6 + [[0.999, 0.5, 0.001]] * 6
    ]
    found = sureness(weak)
    assert found["excursions"].high < 3 < 6 < found["single changes"].low
    assert sureness(weak[:4]) == {}, "four of a kind are too few"


@pytest.fixture(scope="module")
def pool():
    """Objects on one side of a plane, within a shell, and on a side that another object chooses."""
    z_nd = np.random.default_rng(0).uniform(-1, 1, (3_000, 3)).astype(np.float32)
    x, _, other = z_nd.T
    read = {
        "plane": x > 0,
        "shell": np.abs(x) > 0.5,
        "chosen": x * np.sign(other) > 0,
        "chooser": other > 0,
    }
    return Pool(z_nd, {name: has.astype(np.float32) for name, has in read.items()})


FITTED = np.arange(3_000) < 2_100


def test_a_plane_separates_what_a_plane_parts(pool):
    def auc(model, name):
        return held_out_auc(model, pool.z_nd, pool.read[name] > 0.5, FITTED)

    assert auc(PLANE, "plane").low > 0.99
    assert auc(PLANE, "shell").high < 0.6, "two pieces"
    assert auc(NETWORK, "shell").low > 0.95


def test_halves_find_the_attribute_that_turns_the_plane(pool):
    heads = tuple(Head(name=name, kind="boolean") for name in pool.read)
    probe = Probe(ProbeConfig(image_size=(16, 16), num_channels=3, heads=heads, widths=(2,)))
    found = auc_in_halves(pool, FITTED, "chosen", probe)
    assert found["chooser"] > 0.99 and max(found["chance"], found["shell"]) < 0.65
    assert "chosen" not in found


def made_up(**ways) -> dict:
    """Return findings of two objects: one that a plane separates, one that turns and returns."""
    line = {
        "lasting": [0.8, 0.7, 0.85],
        "returns": [0.2, 0.18, 0.22],
        "returned": [0, 20],
        "changed": [50, 50],
    }
    kinds = {
        name: line | {"excursion": 3.0} | ways.get(name, {})
        for name in ("line", "half_steps", "arcs", "surer")
    }
    kinds["half steps"] = kinds.pop("half_steps") | (
        {"excursion": 6.0} if "half_steps" not in ways else {}
    )
    halves = {"hat": 0.7, "yaw": 0.85, "chance": 0.72}
    hat = {"plane": [0.98, 0.97, 0.99], "halves": {"yaw": 0.98, "chance": 0.98}}
    return {
        "ways": kinds,
        "objects": {"hat": hat, "smile": {"plane": [0.72, 0.7, 0.74], "halves": halves}},
    }


def test_findings_become_verdicts():
    fewer = {"returns": [0.1, 0.08, 0.12]}
    assert all(check_explanations(made_up(surer=fewer)).values())
    assert [*check_explanations(made_up()).values()] == [True, True, False, True], (
        "a surer probe sees as many"
    )
    assert [*check_explanations(made_up(arcs=fewer, surer=fewer)).values()] == [
        True,
        False,
        True,
        True,
    ]
    flicker = {"returned": [0, 40], "excursion": 3.0}
    assert [*check_explanations(made_up(half_steps=flicker, surer=fewer)).values()] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.drives("walk-returns")
def test_study_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    with pytest.raises(UserError, match="not measured yet: run dcgan walk-returns rooms --record"):
        load_returns("rooms")
    words = "walk-returns rooms --segments 30 --samples 1000 --record"
    assert cli.main(words.split()) == 0
    assert "kept as curves/returns.rooms" in capsys.readouterr().out
    found = load_returns("rooms")
    assert list(found["ways"]) == ["line", "half steps", "surer", "arcs", "two probes"]
    assert found["segments"] == 30 and found["command"] == f"dcgan {words}"
    assert list(found["objects"]) == ["window", "lamp", "door", "picture", "bed"]
    for coarse, finer in zip(
        found["ways"]["line"]["returned"], found["ways"]["half steps"]["returned"], strict=True
    ):
        assert coarse <= finer, "the finer walk meets the same pictures and more"


@pytest.mark.parametrize("words", ["rooms --segments 29", "mnist-conditional"])
def test_mistakes_are_answered_in_a_sentence(words, capsys):
    assert cli.main(["walk-returns", *words.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1
