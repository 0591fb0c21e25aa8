"""The rank test of a set: the command, what it keeps, and what the kept tests say."""

import json
from dataclasses import replace

import pytest

from dcgan_lib import cli
from dcgan_lib.evaluation.distances import Distance
from dcgan_lib.evaluation.features import FEATURES_OF, PROBE_FEATURES_OF, RULER
from dcgan_lib.evaluation.ledger import load_details
from dcgan_lib.evaluation.ruler import DAMAGES, Ladder, RankTest
from dcgan_lib.experiments.architecture import kept_runs
from dcgan_lib.experiments.ruler_ranks import (
    EARLY,
    LATE,
    generator_ladder,
    keep_rank_test,
    load_rank_test,
    rank_text,
)
from dcgan_lib.paths import repository_root


def make_ladder(kind, *values):
    about = {"metric": "KID (9 subsets of 5)", "n_real": 20, "n_fake": 20, "features": "mine"}
    distances = [Distance(value=x, low=x - 0.1, high=x + 0.1, **about) for x in values]
    steps = ("real", "slight", "strong")[: len(values)]
    return Ladder(kind=kind, steps=steps, distances=tuple(distances))


GOOD, BAD = make_ladder("blur", 0.0, 1.0, 2.0), make_ladder("noise", 0.0, 2.0, 1.0)


# --- the command ---
def test_the_table_names_each_degree_and_the_ladders_that_fail():
    lines = rank_text(RankTest(features="mine", ladders=(GOOD, BAD))).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        *("none", "blur", "strong", "noise", "strong", "mine")
    ]
    assert [line for line in lines if "NOT in order" in line] == [lines[-2]]
    assert lines[-1] == "mine fails on noise"
    passed = rank_text(RankTest(features="mine", ladders=(GOOD,)))
    assert "NOT" not in passed and passed.endswith("\nmine passes")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))
    return tmp_path


FEATURES = "street-digits-classifier"
QUICK = f"rank-test --set street-digits --features {FEATURES} --num-images 100 --subsets 5"


@pytest.mark.drives("rank-test")
def test_the_command_prints_and_keeps_what_it_found(folders, capsys):
    assert cli.main(QUICK.split()) == 0
    said = capsys.readouterr().out
    assert f"{FEATURES} fails on " in said and not (folders / "results").exists()
    assert cli.main([*QUICK.split(), "--record"]) == 0
    kept = load_details(f"ruler/street-digits--{FEATURES}", "")
    assert kept["command"] == f"dcgan {QUICK} --record"
    assert (kept["n"], kept["metric"]) == (100, "KID (5 subsets of 25)") and kept["seconds"] > 0
    assert [ladder["kind"] for ladder in kept["ladders"]] == list(DAMAGES)
    assert rank_text(load_rank_test("street-digits", FEATURES)) in said


def test_what_is_kept_comes_back(folders):
    keep_rank_test("blobs", RankTest(features="mine", ladders=(GOOD, BAD)), {"command": "x"})
    found = load_rank_test("blobs", "mine")
    assert found.ladders == (GOOD, BAD) and found.failed_kinds == ("noise",)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--set street-digits --num-images 99", "num_images must be at least 100, but it is 99"),
        ("--set street-digits --subsets 1", "subsets must be at least 2"),
        ("--set nowhere", "no image set or folder 'nowhere'"),
        ("--set digits", "400 images were asked for, but this split has 180"),
        ("--set rooms --features nothing", "there are no features called 'nothing'"),
        ("--set street-digits --features rooms-probe", "reads uint8 images of n x (3, 64, 64)"),
        ("--set digits --features mnist-classifier --num-images 100", "must be (32, 32)"),
        ("--set digits --features rooms-probe --num-images 100", "n x (3, 64, 64), but got"),
        ("--set ./mine --record", "--set must be a set's name, and no path, for what is recorded"),
    ],
)
def test_a_mistake_gets_one_sentence(folders, capsys, words, sentence):
    assert cli.main(["rank-test", *words.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and sentence in shown.err


# --- what was found ---
@pytest.fixture
def committed(monkeypatch):
    monkeypatch.delenv("DCGAN_RESULTS", raising=False)


PAIRS = [*FEATURES_OF.items(), *PROBE_FEATURES_OF.items()]


@pytest.mark.parametrize(("name", "features"), PAIRS)
def test_every_set_has_a_kept_test_whose_verdicts_follow_from_its_numbers(
    committed, name, features
):
    path = repository_root() / "data" / "results" / "ruler" / f"{name}--{features}.json"
    kept, found = json.loads(path.read_text()), load_rank_test(name, features)
    assert (kept["set"], kept["features"], kept["n"]) == (name, features, 400)
    assert [ladder["in_order"] for ladder in kept["ladders"]] == [
        ladder.in_order for ladder in found.ladders
    ]
    assert kept["passed"] is found.passed
    kinds = {ladder.kind for ladder in found.ladders}
    assert kinds == set(DAMAGES) - ({"colour"} if name == "mnist" else set())


# --- generators while they learn ---
def test_generators_come_nearer_from_a_third_of_a_run_on_and_not_before(committed):
    """What the module `ruler` says of the recipe's runs: what it ranks, and what it does not."""
    runs = [run for (rule, _), run in kept_runs("cifar10").items() if rule == "recipe"]
    assert len(runs) >= 2 and {run["features"] for run in runs} == {RULER}
    late = [generator_ladder(run, LATE) for run in runs]
    assert all(ladder.in_order for ladder in late), late
    early = [generator_ladder(run, EARLY) for run in runs]
    assert not any(ladder.in_order for ladder in early), early
    turned = [replace(ladder, distances=ladder.distances[:0:-1]) for ladder in early]
    assert any(ladder.in_order for ladder in turned), "the untrained one is the nearer of two"
