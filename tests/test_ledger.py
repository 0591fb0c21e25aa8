"""The ledger refuses what is not a measurement, and no verdict can be typed in."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcgan_lib.cli import parse
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import (
    VERDICTS,
    Caveat,
    Result,
    Rule,
    claims,
    count_verdicts,
    format_measured,
    load_results,
    load_row,
    record,
    results_markdown,
    results_table,
    select,
)
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import results_root

PAPER_IDS = """
arch.stable arch.strided arch.gap arch.fc arch.bn arch.bn-everywhere arch.tanh arch.leaky
train.beta1 train.lr train.filter-collapse bedrooms.one-epoch bedrooms.five-epochs
bedrooms.memorisation dedup.false-positives dedup.recall faces.crops faces.samples
imagenet.samples imagenet.sorted
table1.kmeans1.full table1.kmeans1.400 table1.dcgan.full table1.dcgan.400 table1.authors.full
table1.authors.400 table1.kmeans3 table1.viewinvariant table1.exemplar
table1.random table1.random-stored table1.random.400 table1.authors-random.full
table1.authors-random.400 table1.pixels table1.views.full table1.views.400
table1.views-authors.400 table1.views-random.400 table1.dcgan-cifar table2.dcgan table2.authors
table2.random table2.pixels table2.supervised table2.quoted walk.smooth
walk.semantic neighbours.fooled saliency.trained-vs-random forget.object forget.rest
arithmetic.smile arithmetic.glasses arithmetic.three-vs-one arithmetic.pixels turn.linear
table3.real.50k table3.infimnist.50k table3.infimnist.10m table3.gan.50k table3.gan.10m
table3.dcgan.50k table3.dcgan.10m table3.align table3.bn-affine residual.plain
"""
QUOTED = {
    "table1.kmeans3",
    "table1.viewinvariant",
    "table1.exemplar",
    "table2.quoted",
    "table3.align",
}


@pytest.fixture(autouse=True)
def own_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


def measurement(value=83.0, low=82.0, high=84.0, **changes):
    usual = {
        "value": Estimate(value, low, high),
        "unit": "%",
        "n": 10_000,
        "data": "CIFAR-10, test",
        "command": "dcgan features mine",
        "seconds": 12.5,
    }
    return usual | changes


def test_table_holds_every_claim_of_the_paper():
    assert {id for id, claim in claims().items() if not claim.is_ours} == set(PAPER_IDS.split())
    recalled = {
        claim.paper_flag
        for id, claim in claims().items()
        if id.startswith("table3.") and "%" in claim.paper
    }
    assert recalled == {"R"}
    assert all(1 <= chapter <= 15 for claim in claims().values() for chapter in claim.chapters)
    for claim in claims().values():
        assert claim.rule.text()
        if claim.rule.is_numeric and not claim.is_ours:
            assert f"{claim.rule.target:g}" in claim.paper


def test_empty_ledger_shows_every_claim_as_not_measured_or_quoted():
    rows = load_results()
    assert [row.id for row in rows] == list(claims())
    assert {row.id for row in rows if row.verdict == "quoted"} == QUOTED
    assert {row.verdict for row in rows if row.id not in QUOTED} == {"not measured"}


def test_recorded_row_comes_back_unchanged_and_is_replaced_by_the_next(own_ledger, capsys):
    row = record("table1.dcgan.full", **measurement())
    assert "recorded table1.dcgan.full: 83.0 [82.0, 84.0] %, reproduced" in capsys.readouterr().out
    stored = json.loads((own_ledger / "table1.dcgan.full.json").read_text(encoding="utf-8"))
    assert list(stored) == [field.name for field in dataclasses.fields(Result)]
    assert row in load_results() and load_row("table1.dcgan.full") == row == load_row(
        "table1.dcgan.full:cifar10"
    )
    assert row.hardware and row.date[:2] == "20" and "torch" in row.version
    second = record("table1.dcgan.full", **measurement(60.0, 59.0, 61.0))
    assert second.verdict == "not reproduced"
    assert [row for row in load_results() if row.is_measured] == [second]


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (83, 82, 84, "reproduced"),
        (81, 80, 82, "partly"),
        (77, 76, 78, "partly"),
        (75, 74, 76, "not reproduced"),
    ],
)
def test_numeric_verdict_needs_the_whole_interval(value, low, high, verdict):
    assert record("table1.dcgan.full", **measurement(value, low, high)).verdict == verdict


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("train.beta1", ("reproduced", "partly", "not reproduced")),
        ("walk.smooth:bedrooms64", ("reproduced", "partly", "not reproduced")),
        ("walk.smooth:rooms", ("transfers", "partly transfers", "does not transfer")),
        ("table2.dcgan:mnist", ("transfers", "partly transfers", "does not transfer")),
        ("table2.supervised:mnist", ("met", "missed", "missed")),
        ("table1.pixels", ("met", "missed", "missed")),
    ],
)
def test_checks_decide_where_no_number_does_in_words_that_fit_the_data(id, words):
    """Only a statement of the paper on its own kind of data is reproduced; a control is met or
    missed."""
    outcomes = (
        {"first": True, "second": True},
        {"first": True, "second": False},
        {"first": False, "second": False},
    )
    for checks, word in zip(outcomes, words, strict=True):
        assert record(id, **measurement(checks=checks)).verdict == word
        assert load_row(id).checks == checks


def test_our_own_figures_are_met_or_missed_or_not_judged():
    assert record("ours.mnist.recognised", **measurement(95.0, 94.0, 96.0)).verdict == "met"
    assert record("ours.mnist.recognised", **measurement(85.0, 84.0, 86.0)).verdict == "missed"
    assert record("ours.mnist.kid", **measurement(0.1, 0.0, 0.2, unit="")).verdict == "own figure"


def test_a_caveat_bounds_the_verdict():
    held = measurement(checks={"holds": True})
    exploratory = record(
        "walk.smooth:rooms", **held, caveat=Caveat(kind="exploratory", why="changed after a look")
    )
    assert (exploratory.verdict, exploratory.verdict_text) == (
        "transfers",
        "transfers, exploratory",
    )
    few = Caveat(kind="at most partly", why="one observer")
    assert record("walk.smooth:bedrooms64", **held, caveat=few).verdict == "partly"
    missed = record("walk.smooth:bedrooms64", **measurement(checks={"holds": False}), caveat=few)
    assert missed.verdict == "not reproduced"
    small = record(
        "table3.bn-affine", **held, caveat=Caveat(kind="not at scale", why="15 of 200 passes")
    )
    assert small.verdict == "not tested at scale" and small in load_results()


@pytest.mark.parametrize(
    ("id", "changes", "message"),
    [
        ("table1.dcgan.ful", {}, "did you mean"),
        ("table1.dcgan.full", {"low": 83.5}, "low <= value <= high"),
        ("table1.dcgan.full", {"low": None}, "finite"),
        ("table1.dcgan.full", {"value": float("nan")}, "finite"),
        ("table1.dcgan.full", {"n": 2.5}, "whole number"),
        ("table1.dcgan.full", {"seconds": -1.0}, "seconds"),
        ("table1.dcgan.full", {"data": ""}, "empty"),
        (
            "table1.dcgan.full",
            {"command": "DCGAN_DATA=/home/me/sets dcgan evaluate"},
            "absolute path",
        ),
        ("table1.dcgan.full", {"unit": ""}, "unit"),
        ("table1.dcgan.full", {"checks": {"looks right": True}}, "without checks"),
        ("table1.kmeans3", {}, "quoted"),
        ("train.beta1", {}, "pass checks"),
        ("table2.dcgan:Not A Set", {"checks": {"a": True}}, "single dashes"),
    ],
)
def test_record_refuses(own_ledger, id, changes, message):
    with pytest.raises(UserError, match=message):
        record(id, **measurement(**changes))
    assert list(own_ledger.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "not reproduced"},
        {"verdict": "excellent"},
        {"value": 60.0, "low": 59.0},
        {"value": None},
        {"value": "83"},
        {"id": "table1.dcgan.400"},
        {"surprise": 1},
    ],
)
def test_row_edited_by_hand_is_refused(own_ledger, change):
    record("table1.dcgan.full", **measurement())
    path = own_ledger / "table1.dcgan.full.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"table1\.dcgan"):
        load_results()


def test_damaged_file_is_named(own_ledger):
    (own_ledger / "train.lr.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.lr\.json"):
        load_results()


def test_another_set_leaves_the_papers_row_open_and_shows_no_number_of_the_paper():
    record("table2.dcgan:cifar10", **measurement(50, 49, 51, checks={"beats": True}))
    with pytest.raises(UserError, match="pass checks"):
        record("table2.dcgan:mnist", **measurement())
    rows = [row for row in load_results() if row.claim_id == "table2.dcgan"]
    assert [(row.id, row.comparable_paper) for row in rows] == [
        ("table2.dcgan", "22.48 %"),
        ("table2.dcgan:cifar10", "-"),
    ]
    part = record(
        "table2.dcgan:svhn10k", **measurement(22, 21.5, 22.5)
    )  # the same photographs: its number applies
    home = record("table2.dcgan:svhn", **measurement(22, 21.5, 22.5))
    assert (home.id, home.verdict, part.verdict) == ("table2.dcgan", "reproduced", "reproduced")
    assert part.comparable_paper == "22.48 %"


def test_a_row_that_is_not_measured_names_what_would_measure_it():
    with pytest.raises(
        UserError, match=r"table2\.supervised is not measured yet: run dcgan search"
    ):
        load_row("table2.supervised")
    with pytest.raises(UserError, match="did you mean"):
        load_row("table2.supervise")


def test_claim_texts_come_from_the_table(own_ledger):
    record("train.lr", **measurement(checks={"diverges": True}))
    path = own_ledger / "train.lr.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace(claims()["train.lr"].claim, "old words"),
        encoding="utf-8",
    )
    assert load_row("train.lr").claim == claims()["train.lr"].claim


def test_committed_ledger_is_sound_and_up_to_date(monkeypatch):
    monkeypatch.delenv("DCGAN_RESULTS")
    rows = [row for row in load_results() if row.is_measured]
    assert {row.id for row in rows} == {
        path.stem.replace("--", ":") for path in results_root().glob("*.json")
    }
    for row in rows:
        entry = json.loads(
            (results_root() / f"{row.id.replace(':', '--')}.json").read_text(encoding="utf-8")
        )
        assert entry == json.loads(json.dumps(dataclasses.asdict(row))), (
            f"{row.id}: its texts are not the table's"
        )


def recorded_commands() -> list[str]:
    """Return every command that the ledger, the table of claims or a details file names."""
    found = {row.command for row in load_results() if row.command}
    for path in (Path(__file__).parent.parent / "data" / "results").glob("*/*.json"):
        stack = [json.loads(path.read_text(encoding="utf-8"))]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                found |= {value["command"]} if isinstance(value.get("command"), str) else set()
                stack += value.values()
            elif isinstance(value, list):
                stack += value
    return sorted({part.strip() for command in found for part in command.split("&&")})


def test_every_recorded_command_is_one_that_todays_command_line_takes(monkeypatch):
    """It parses, and what it parses to gives a command line that parses to the same."""
    monkeypatch.delenv("DCGAN_RESULTS")
    commands = recorded_commands()
    assert len(commands) > 60
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "dcgan", command
        parsed = parse(words)
        again = parse(shlex.split(parsed.command_line())[1:])
        assert again == parsed, command


NUMBERS = st.floats(-1e3, 1e3)


@given(
    target=NUMBERS,
    slack=st.floats(0, 10),
    margin=st.floats(0, 10),
    value=NUMBERS,
    half=st.floats(0, 10),
)
def test_moving_towards_the_good_side_never_worsens_an_outcome(target, slack, margin, value, half):
    for kind, better in (("at_least", 1), ("at_most", -1)):
        rule = Rule(kind=kind, target=target, slack=slack, margin=margin)
        moved = value + 5 * better
        assert rule.outcome(moved, moved - half, moved + half) <= rule.outcome(
            value, value - half, value + half
        )
    within = Rule(kind="within", target=target, slack=slack, margin=margin)
    inside = max(within.miss(value - half), within.miss(value + half)) <= 0
    assert (within.outcome(value, value - half, value + half) == 0) == inside


def test_filters():
    record("table1.dcgan.full", **measurement())
    rows = load_results()
    assert {row.section.partition(",")[0] for row in select(rows, section="6.3")} == {
        "6.3.1",
        "6.3.2",
    }
    assert [row.id for row in select(rows, verdict="reproduced")] == ["table1.dcgan.full"]
    assert all(13 in row.chapters for row in select(rows, chapter=13))
    with pytest.raises(UserError, match="one of reproduced"):
        select(rows, verdict="great")


def test_tables_show_every_row_the_misses_and_the_unchecked_numbers():
    record("dedup.false-positives", **measurement(5.0, 4.0, 6.0, notes="a | b"))
    rows = load_results()
    for text in (results_table(rows), results_markdown(rows)):
        assert all(row.id in text for row in rows)
        assert "○ not reproduced" in text and "not measured" in text and "(recalled)" in text
    assert len(results_markdown(rows).splitlines()) == len(rows) + 4
    assert sum(count_verdicts(rows).values()) == len(rows) and set(count_verdicts(rows)) == set(
        VERDICTS
    )


@pytest.mark.parametrize(
    ("estimate", "unit", "text"),
    [
        (Estimate(82.8123, 82.1, 83.5), "%", "82.81 [82.10, 83.50] %"),
        (Estimate(0.012341, 0.0120, 0.0127), "", "0.01234 [0.01200, 0.01270]"),
        (28672, "", "28,672"),
        (Estimate(1234.5, 1000.0, 1500.0), "images/s", "1,234 [1,000, 1,500] images/s"),
    ],
)
def test_digits_follow_the_interval(estimate, unit, text):
    assert (
        format_measured(
            record("train.lr", **measurement(unit=unit, checks={"a": True}) | {"value": estimate})
        )
        == text
    )
