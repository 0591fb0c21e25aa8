"""The ledger refuses what is not a measurement, and no verdict can be typed in."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import (
    CLAIMS,
    VERDICTS,
    AtLeast,
    AtMost,
    Criteria,
    NumericRule,
    Result,
    Within,
    count_verdicts,
    format_measured,
    load_results,
    record,
    results_html,
    results_markdown,
    results_table,
    select,
    write_missing,
)
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import results_root

PAPER_IDS = """
arch.stable arch.strided arch.gap arch.fc arch.bn arch.bn-everywhere arch.tanh arch.leaky train.beta1 train.lr
train.filter-collapse bedrooms.one-epoch bedrooms.five-epochs bedrooms.memorisation dedup.false-positives dedup.recall
faces.crops faces.samples imagenet.samples table1.kmeans1.full table1.kmeans1.400 table1.dcgan.full table1.dcgan.400
table1.kmeans3 table1.viewinvariant table1.exemplar table1.random table1.random-stored table1.pixels
table1.dcgan-cifar table2.dcgan table2.supervised table2.quoted walk.smooth walk.semantic neighbours.fooled
saliency.trained-vs-random forget.object forget.rest arithmetic.smile arithmetic.glasses arithmetic.three-vs-one
arithmetic.pixels turn.linear table3.real.50k table3.infimnist.50k table3.infimnist.10m table3.gan.50k table3.gan.10m
table3.dcgan.50k table3.dcgan.10m table3.align table3.bn-affine residual.plain
"""
FIELDS = """id claim section paper paper_flag value low high unit n data checkpoint seed command hardware seconds date
version verdict notes"""
QUOTED = {"table1.kmeans3", "table1.viewinvariant", "table1.exemplar", "table2.quoted", "table3.align"}


def measurement(**changes):
    given_values = {
        "value": 83.0,
        "low": 82.0,
        "high": 84.0,
        "unit": "%",
        "n": 10_000,
        "data": "CIFAR-10, test",
        "command": "dcgan evaluate --claim table1.dcgan.full",
        "seconds": 12.5,
    }
    return {**given_values, **changes}


def test_table_holds_every_claim_of_the_paper_and_marks_our_own():
    assert [id for id in CLAIMS if not CLAIMS[id].is_ours] == sorted(PAPER_IDS.split(), key=list(CLAIMS).index)
    assert set(PAPER_IDS.split()) <= set(CLAIMS)
    assert all(claim.paper == "-" and claim.paper_flag == "-" for claim in CLAIMS.values() if claim.is_ours)
    assert {claim.paper_flag for id, claim in CLAIMS.items() if id.startswith("table3.") and "%" in claim.paper} == {
        "R"
    }
    assert all(1 <= chapter <= 15 for claim in CLAIMS.values() for chapter in claim.chapters)


def test_empty_ledger_shows_every_claim_as_not_measured_or_quoted(tmp_path):
    rows = load_results(tmp_path)
    assert [row.id for row in rows] == list(CLAIMS)
    assert {row.id for row in rows if row.verdict == "quoted"} == QUOTED
    assert {row.verdict for row in rows if row.id not in QUOTED} == {"not measured"}
    assert not any(row.is_measured for row in rows)


def test_recorded_row_has_the_stated_fields_and_comes_back_unchanged(tmp_path):
    row = record("table1.dcgan.full", **measurement(), root=tmp_path)
    stored = json.loads((tmp_path / "table1.dcgan.full.json").read_text(encoding="utf-8"))
    assert list(stored) == FIELDS.split() == [field.name for field in dataclasses.fields(Result)]
    assert row.verdict == "reproduced"
    assert row in load_results(tmp_path)
    assert row.hardware and row.date[:2] == "20" and "torch" in row.version
    assert [path.name for path in tmp_path.iterdir()] == ["table1.dcgan.full.json"]


def test_recording_again_replaces(tmp_path):
    record("table1.dcgan.full", **measurement(), root=tmp_path)
    second = record("table1.dcgan.full", **measurement(value=60.0, low=59.0, high=61.0), root=tmp_path)
    assert second.verdict == "not reproduced"
    assert [row for row in load_results(tmp_path) if row.is_measured] == [second]


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [(83, 82, 84, "reproduced"), (81, 80, 82, "partly"), (77, 76, 78, "partly"), (75, 74, 76, "not reproduced")],
)
def test_numeric_verdict_needs_the_whole_interval(tmp_path, value, low, high, verdict):
    assert record("table1.dcgan.full", **measurement(value=value, low=low, high=high), root=tmp_path).verdict == verdict


def test_checks_decide_a_claim_without_a_number(tmp_path):
    numbers = measurement(value=3.0, low=2.0, high=4.0, unit="")
    both = {"0.9 swings more than 0.5": True, "0.5 ends lower": True}
    assert record("train.beta1", **numbers, checks=both, root=tmp_path).verdict == "reproduced"
    some = record("train.beta1", **numbers, checks={**both, "0.5 ends lower": False}, notes="3 seeds", root=tmp_path)
    assert some.verdict == "partly"
    assert some.notes == "holds: 0.9 swings more than 0.5\nfails: 0.5 ends lower\n3 seeds"
    none = record("train.beta1", **numbers, checks=dict.fromkeys(both, False), root=tmp_path)
    assert none.verdict == "not reproduced"
    assert none in load_results(tmp_path)


@pytest.mark.parametrize(
    ("id", "changes", "message"),
    [
        ("table1.dcgan.ful", {}, "did you mean"),
        ("table1.dcgan.full", {"low": 83.5}, "low <= value <= high"),
        ("table1.dcgan.full", {"high": 82.5}, "low <= value <= high"),
        ("table1.dcgan.full", {"low": None}, "finite"),
        ("table1.dcgan.full", {"value": float("nan")}, "finite"),
        ("table1.dcgan.full", {"n": 0}, "at least 1"),
        ("table1.dcgan.full", {"n": 2.5}, "whole number"),
        ("table1.dcgan.full", {"seconds": -1.0}, "seconds"),
        ("table1.dcgan.full", {"command": "  "}, "empty"),
        ("table1.dcgan.full", {"data": ""}, "empty"),
        ("table1.dcgan.full", {"command": "DCGAN_DATA=/home/me/sets dcgan evaluate"}, "absolute path"),
        ("table1.dcgan.full", {"unit": ""}, "unit"),
        ("table1.dcgan.full", {"checks": {"looks right": True}}, "without checks"),
        ("table1.kmeans3", {}, "quoted"),
        ("train.beta1", {}, "pass checks"),
        ("train.beta1", {"checks": {}}, "pass checks"),
        ("train.beta1", {"checks": {"two\nlines": True}}, "one non-empty line"),
        ("train.beta1", {"checks": {"a": False}, "notes": "holds: by hand"}, "through checks"),
        ("table2.dcgan:Not A Set", {"checks": {"a": True}}, "single dashes"),
    ],
)
def test_record_refuses(tmp_path, id, changes, message):
    with pytest.raises(UserError, match=message):
        record(id, **measurement(**changes), root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "not reproduced"},
        {"verdict": "excellent"},
        {"value": 60.0, "low": 59.0},
        {"value": None},
        {"n": 0},
        {"value": "83"},
        {"id": "table1.dcgan.400"},
        {"surprise": 1},
    ],
)
def test_row_edited_by_hand_is_refused(tmp_path, change):
    record("table1.dcgan.full", **measurement(), root=tmp_path)
    path = tmp_path / "table1.dcgan.full.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(UserError, match=r"table1\.dcgan"):
        load_results(tmp_path)


def test_claiming_an_unmeasured_row_is_refused(tmp_path):
    write_missing(tmp_path)
    path = tmp_path / "train.beta1.json"
    path.write_text(path.read_text(encoding="utf-8").replace("not measured", "reproduced"), encoding="utf-8")
    with pytest.raises(UserError, match="does not follow"):
        load_results(tmp_path)


def test_dropping_the_checks_by_hand_is_refused(tmp_path):
    record("train.beta1", **measurement(checks={"swings more": True}), root=tmp_path)
    path = tmp_path / "train.beta1.json"
    path.write_text(path.read_text(encoding="utf-8").replace("holds: ", ""), encoding="utf-8")
    with pytest.raises(UserError, match="named checks"):
        load_results(tmp_path)


def test_damaged_file_is_named(tmp_path):
    (tmp_path / "train.lr.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.lr\.json"):
        load_results(tmp_path)


def test_another_set_is_judged_by_checks_and_leaves_the_papers_row_open(tmp_path):
    other = record(
        "table2.dcgan:cifar10", **measurement(value=50, low=49, high=51, checks={"beats": True}), root=tmp_path
    )
    assert (tmp_path / "table2.dcgan--cifar10.json").is_file()
    assert other.verdict == "reproduced" and other.set_name == "cifar10"
    with pytest.raises(UserError, match="pass checks"):
        record("table2.dcgan:mnist", **measurement(), root=tmp_path)
    rows = [row for row in load_results(tmp_path) if row.id.startswith("table2.dcgan")]
    assert [(row.id, row.verdict) for row in rows] == [
        ("table2.dcgan", "not measured"),
        ("table2.dcgan:cifar10", "reproduced"),
    ]
    home = record("table2.dcgan:svhn", **measurement(value=22, low=21.5, high=22.5), root=tmp_path)
    assert home.id == "table2.dcgan" and home.verdict == "reproduced"
    rows = [row.id for row in load_results(tmp_path) if row.id.startswith("table2.dcgan")]
    assert rows == ["table2.dcgan", "table2.dcgan:cifar10"]


def test_placeholder_gives_way_to_a_measurement_on_a_set(tmp_path):
    assert len(write_missing(tmp_path)) == len(CLAIMS)
    assert write_missing(tmp_path) == []
    record("walk.smooth:rooms", **measurement(checks={"steps are even": True}), root=tmp_path)
    record("walk.smooth:faces", **measurement(checks={"steps are even": False}), root=tmp_path)
    rows = [row.id for row in load_results(tmp_path) if row.id.startswith("walk.smooth")]
    assert rows == ["walk.smooth:faces", "walk.smooth:rooms"]
    assert not (tmp_path / "walk.smooth.json").exists()


def test_rewording_a_claim_rewords_its_row(tmp_path):
    record("train.lr", **measurement(checks={"diverges": True}), root=tmp_path)
    path = tmp_path / "train.lr.json"
    path.write_text(path.read_text(encoding="utf-8").replace(CLAIMS["train.lr"].claim, "old words"), encoding="utf-8")
    assert next(row for row in load_results(tmp_path) if row.id == "train.lr").claim == CLAIMS["train.lr"].claim
    assert "train.lr" in write_missing(tmp_path)
    assert "old words" not in path.read_text(encoding="utf-8")


def test_committed_ledger_is_whole_sound_and_up_to_date():
    rows = load_results()
    assert {row.id.partition(":")[0] for row in rows} == set(CLAIMS)
    stored = {path.stem.replace("--", ":") for path in results_root().glob("*.json")}
    assert {row.id for row in rows} == stored
    for row in rows:
        entry = json.loads((results_root() / f"{row.id.replace(':', '--')}.json").read_text(encoding="utf-8"))
        assert entry == dataclasses.asdict(row), f"{row.id}: run write_missing()"


NUMBERS = st.floats(-1e3, 1e3)


@given(target=NUMBERS, slack=st.floats(0, 10), margin=st.floats(0, 10), value=NUMBERS, half=st.floats(0, 10))
def test_moving_towards_the_good_side_never_worsens_a_verdict(target, slack, margin, value, half):
    rank = VERDICTS.index
    for rule, better in ((AtLeast(target, slack, margin), 1), (AtMost(target, slack, margin), -1)):
        here = rule.verdict(value, value - half, value + half)
        there = rule.verdict(value + 5 * better, value + 5 * better - half, value + 5 * better + half)
        assert rank(there) <= rank(here)
    within = Within(target, slack, margin).verdict(value, value - half, value + half)
    assert (within == "reproduced") == (abs(value - half - target) <= slack and abs(value + half - target) <= slack)


def test_every_rule_says_itself_in_words():
    for claim in CLAIMS.values():
        assert len(claim.rule.text()) > 10
        if isinstance(claim.rule, NumericRule) and not claim.is_ours:
            assert f"{claim.rule.target:g}" in claim.paper
    assert CLAIMS["table2.dcgan"].rule_on("cifar10") == Criteria()


def test_filters(tmp_path):
    record("table1.dcgan.full", **measurement(), root=tmp_path)
    rows = load_results(tmp_path)
    assert {row.section.partition(",")[0] for row in select(rows, section="6.3")} == {"6.3.1", "6.3.2"}
    assert [row.id for row in select(rows, verdict="reproduced")] == ["table1.dcgan.full"]
    assert {row.id for row in select(rows, verdict="quoted")} == QUOTED
    assert all(13 in row.chapters for row in select(rows, chapter=13))
    assert all(row.id.startswith("ours.") for row in select(rows, ours=True))
    assert len(select(rows, ours=True)) + len(select(rows, ours=False)) == len(rows)
    with pytest.raises(UserError, match="one of reproduced"):
        select(rows, verdict="great")


def test_tables_show_every_row_the_misses_and_the_unchecked_numbers(tmp_path):
    record("dedup.false-positives", **measurement(value=5.0, low=4.0, high=6.0, notes="a | b <c>"), root=tmp_path)
    rows = load_results(tmp_path)
    for text in (results_table(rows), results_markdown(rows), results_html(rows)):
        assert all(row.id in text for row in rows)
        assert "○ not reproduced" in text and "not measured" in text and "(recalled)" in text
    assert len(results_markdown(rows).splitlines()) == len(rows) + 4
    assert "&lt;c&gt;" in results_html(rows) and "<c>" not in results_html(rows)
    assert "&lt; 1 %" in results_html(rows)
    assert sum(count_verdicts(rows).values()) == len(rows)


@pytest.mark.parametrize(
    ("estimate", "unit", "text"),
    [
        (Estimate(82.8123, 82.1, 83.5), "%", "82.81 [82.10, 83.50] %"),
        (Estimate(0.012341, 0.0120, 0.0127), "", "0.01234 [0.01200, 0.01270]"),
        (Estimate(28672, 28672, 28672), "", "28,672"),
        (Estimate(1234.5, 1000.0, 1500.0), "images/s", "1,234 [1,000, 1,500] images/s"),
    ],
)
def test_digits_follow_the_interval(tmp_path, estimate, unit, text):
    row = record("train.lr", **measurement(value=estimate, unit=unit, checks={"a": True}), root=tmp_path)
    assert format_measured(row) == text
