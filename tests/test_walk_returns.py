"""Why objects return: phases, planes and second opinions, on objects whose borders are known."""

import numpy as np
import pytest

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.experiments import latent_walk as walk_returns
from dcgan_lib.experiments.latent_walk import (
    Samples,
    agreement,
    both_sure,
    count_returns,
    load_returns,
    measure_returns,
    returns_by_object,
    rivals,
    sureness,
    told_by_network,
    told_by_plane,
    told_in_halves,
    turned_by,
)
from dcgan_lib.interpretation.walk import Phase, all_phases, find_phases

HERE, GONE, DOUBT = 0.97, 0.02, 0.5


def chances(*segments) -> np.ndarray:
    """Return one object along segments, s x t x 1."""
    return np.array(segments)[:, :, None]


def test_phases_are_told_in_order_and_doubt_is_none():
    found = find_phases(np.array([DOUBT, 0.92, 0.99, DOUBT, 0.95, GONE, DOUBT, 0.91]))
    assert found == [
        Phase(True, 1, 4, 2, 0.99),
        Phase(False, 5, 5, 5, GONE),
        Phase(True, 7, 7, 7, 0.91),
    ]
    assert find_phases(np.array([DOUBT, 0.9, 0.1])) == []
    assert len(find_phases(np.array([0.92, GONE, 0.99]), sure=0.95)) == 2, "0.92 is not sure enough"


def test_returns_are_counted_against_changes():
    steady, single = [HERE] * 5, [HERE, HERE, DOUBT, GONE, GONE]
    back = [HERE, GONE, GONE, DOUBT, HERE]
    found = count_returns(all_phases(chances(steady, single, back, back)))
    assert (found["returned"], found["changed"], found["excursion"]) == ([2], [3], 2)
    assert found["lasting"][0] == 0.5 and found["returns"][0] == pytest.approx(2 / 3, abs=1e-3)
    assert count_returns(all_phases(chances(steady, single)))["excursion"] is None


def test_half_steps_keep_the_returns_and_double_the_excursions():
    fine = chances([HERE] * 6 + [GONE] * 8 + [HERE] * 7, [GONE] * 9 + [HERE] * 12)
    coarse, finer = (count_returns(all_phases(part)) for part in (fine[:, ::2], fine))
    assert (
        coarse["returned"] == finer["returned"] == [1]
        and finer["excursion"] == 2 * coarse["excursion"]
    )


def test_two_probes_are_sure_only_together():
    joined = both_sure(np.array([0.99, 0.99, 0.01, 0.01]), np.array([0.95, 0.01, 0.03, 0.6]))
    assert joined.tolist() == [0.95, 0.5, 0.03, 0.5]


def test_agreement_is_asked_at_the_surest_pictures():
    phases = all_phases(chances([HERE, GONE, HERE], [HERE, 0.95, GONE], [HERE] * 3))
    agreed = agreement(phases, chances([0.9, 0.8, 0.9], [0.6, 0.1, 0.4], [0, 0, 0]))
    assert agreed["returns"][0] == 0 and agreed["single"][0] == 1, (
        "the second picture of the second is not the surest"
    )


def test_sureness_tells_a_weak_excursion():
    weak = [
        all_phases(chances(row))[0][0]
        for row in [[0.999, 0.09, 0.999]] * 6 + [[0.999, 0.5, 0.001]] * 6
    ]
    told = sureness(weak)
    assert told["excursions"][2] < 3 < 6 < told["single changes"][1]
    assert sureness(weak[:4]) == {}, "four of a kind are too few"


@pytest.fixture(scope="module")
def drawn():
    """Objects on one side of a plane, within a shell, and on a side that another object chooses."""
    z_nd = np.random.default_rng(0).uniform(-1, 1, (3_000, 3)).astype(np.float32)
    x, _, other = z_nd.T
    read = {
        "plane": x > 0,
        "shell": np.abs(x) > 0.5,
        "chosen": x * np.sign(other) > 0,
        "chooser": other > 0,
    }
    return Samples(
        z_nd, {name: has.astype(np.float32) for name, has in read.items()}, np.arange(3_000) < 2_100
    )


def test_a_plane_tells_what_a_plane_parts(drawn):
    flat, round_ = (told_by_plane(drawn, drawn.read[name] > 0.5) for name in ("plane", "shell"))
    assert flat.low > 0.99
    assert round_.high < 0.6, "two pieces"
    assert told_by_network(drawn, drawn.read["shell"] > 0.5).low > 0.95


def test_halves_find_the_attribute_that_turns_the_plane(drawn):
    heads = tuple(Head(name=name, kind="boolean") for name in drawn.read)
    probe = Probe(ProbeConfig(image_size=(16, 16), num_channels=3, heads=heads, widths=(2,)))
    found = told_in_halves(drawn, "chosen", probe)
    assert (
        found["chooser"] > 0.99
        and max(found["chance"], found["shell"]) < 0.65
        and "chosen" not in found
    )


def made_up(**ways) -> dict:
    """Return findings of two objects: one that a plane tells, one that turns with the yaw and returns."""
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
    told = {"hat": {"plane": [0.98, 0.97, 0.99], "halves": {"yaw": 0.98, "chance": 0.98}}}
    return {
        "ways": kinds,
        "objects": told | {"smile": {"plane": [0.72, 0.7, 0.74], "halves": halves}},
    }


def test_findings_become_verdicts():
    fewer = {"returns": [0.1, 0.08, 0.12]}
    assert all(rivals(made_up(surer=fewer)).values())
    assert [*rivals(made_up()).values()] == [True, True, False, True], "a surer probe sees as many"
    assert [*rivals(made_up(arcs=fewer, surer=fewer)).values()] == [True, False, True, True]
    flicker = {"returned": [0, 40], "excursion": 3.0}
    assert [*rivals(made_up(half_steps=flicker, surer=fewer)).values()] == [False, True, True, True]


def test_objects_are_ranked_by_their_plane():
    found = returns_by_object(made_up())
    assert (
        list(found) == ["smile", "hat"]
        and found["smile"][1].value == 0.4
        and found["hat"][1].low == 0
    )
    assert turned_by(made_up()) == {"smile": "yaw"} and turned_by(made_up(), gain=0.2) == {}


def test_study_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dcgan_lib.evaluation.ledger.results_root", lambda: tmp_path)
    words = ["rooms", "--segments", "30", "--samples", "1000", "--record"]
    assert walk_returns.main_returns(words) == 0
    assert "kept as curves/returns.rooms" in capsys.readouterr().out
    found = load_returns("rooms")
    assert (
        list(found["ways"]) == ["line", "half steps", "surer", "arcs", "two probes"]
        and found["segments"] == 30
    )
    assert list(found["objects"]) == ["window", "lamp", "door", "picture", "bed"]
    for coarse, finer in zip(
        found["ways"]["line"]["returned"], found["ways"]["half steps"]["returned"], strict=True
    ):
        assert coarse <= finer, "the finer walk meets the same pictures and more"


def test_mistakes_are_told_in_a_sentence(tmp_path, capsys):
    with pytest.raises(UserError, match="30 segments and 1,000 samples"):
        measure_returns("rooms", segments=29)
    with pytest.raises(UserError, match="not measured yet: run python -m"):
        load_returns("rooms", tmp_path)
    assert walk_returns.main_returns(["mnist-conditional"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
