"""The curve of memorisation: what is trained, what is measured, and the row."""

import dataclasses

import pytest

from dcgan_lib import cli
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments.memorisation import (
    Found,
    load_curve,
    record_curve,
    table,
)

COMMAND = "dcgan memorisation --record"


def found(num_images, seed, copies, **changes):
    share = Estimate(copies, copies - 0.02, copies + 0.02)
    run = Found(
        num_images=num_images,
        seed=seed,
        passes=128_000 / num_images,
        memorised=Estimate(0.0, -0.4, 0.5),
        copies=Estimate(0.01, 0.0, 0.02),
        memorised_pixels=Estimate(0.0, -0.1, 0.1),
        copies_pixels=share,
        shifted_found=1.0,
        kid=Estimate(2.0, 1.9, 2.1),
    )
    return dataclasses.replace(run, **changes)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


def test_a_curve_that_falls_transfers(ledger):
    runs = [found(1_000, 0, 0.3), found(1_000, 1, 0.2), found(64_000, 0, 0.01)]
    runs += [found(64_000, 1, 0.03)]
    row = record_curve(runs, "rooms", COMMAND, 1.0)
    assert (row.id, row.verdict) == ("bedrooms.memorisation:rooms", "transfers")
    assert (row.value, row.low, row.high, row.n) == (2, -1, 5, 2)
    assert load_curve() == tuple(runs)


@pytest.mark.parametrize(
    ("runs", "misses"),
    [
        ([found(1_000, 0, 0.02), found(64_000, 0, 0.01)], 1),  # it does not fall
        ([found(1_000, 0, 0.5), found(64_000, 0, 0.3)], 1),  # much is memorised at the end
        ([found(1_000, 0, 0.3, shifted_found=0.2), found(64_000, 0, 0.01)], 1),  # blind
        ([found(1_000, 0, 0.1, shifted_found=0.2), found(64_000, 0, 0.2)], 3),
    ],
)
def test_what_does_not_hold_is_said(ledger, runs, misses):
    row = record_curve(runs, "rooms", COMMAND, 1.0)
    assert sum(not held for held in row.checks.values()) == misses
    assert row.verdict == ("does not transfer" if misses == 3 else "partly transfers")
    assert row.caveat.kind == "exploratory"


def test_the_table_has_a_line_for_each_run():
    head, line = table([found(1_000, 0, 0.3)]).splitlines()
    assert head.split()[:3] == ["images", "seed", "passes"]
    assert line.split()[:6] == ["1,000", "0", "128.0", "0.0", "[-40.0,", "50.0]"]


@pytest.mark.drives("memorisation")
def test_a_small_curve_from_end_to_end(ledger, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    words = "memorisation --set rooms --numbers 200 100 --seeds 1 --steps 2 --image-size 16"
    words += " --base-width 2 --batch-size 8 --num-held-out 120 --num-samples 120 --threads 1"
    assert cli.main([*words.split(), "--out", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["100", "200"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "rooms-100-0",
        "rooms-200-0",
    ]


def test_mistakes_are_refused_before_anything_is_trained(capsys):
    assert cli.main(["memorisation", "--set", "cifar10"]) == 2
    assert "a drawn set" in capsys.readouterr().err
    assert cli.main(["memorisation", "--numbers", "50", "1000"]) == 2
    assert "each of numbers" in capsys.readouterr().err
