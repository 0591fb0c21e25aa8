"""A result is measured again beside the ledger, never into it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from dcgan_lib import cli
from dcgan_lib.command import Command, local
from dcgan_lib.evaluation.ledger import load_results, load_row, record
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import results_root

NOW = {"train.lr": Estimate(3.0, 2.0, 4.0), "train.beta1": Estimate(1.0, 0.5, 1.5)}


def measure(id: str, estimate: Estimate, command: str) -> None:
    record(
        id,
        estimate,
        unit="",
        n=3,
        data="rooms",
        command=command,
        seconds=1.0,
        checks={"holds": True},
    )


@dataclass(frozen=True, kw_only=True)
class Measure(Command, verb="measure"):
    """Record two rows, as many commands do."""

    out: Path = local(Path("figures"))
    """Where figures go."""
    run_dir: Path = local(Path("run"))
    """Where work is kept, which would be taken up again."""
    again: bool = local(False)
    """Measure what was measured before."""

    def run(self) -> None:
        assert self.again and self.out != Path("figures") and self.run_dir != Path("run")
        for id, estimate in NOW.items():
            measure(id, estimate, self.command_line())


@pytest.fixture
def ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    parse = cli.parse
    monkeypatch.setattr(cli, "parse", lambda w: Measure() if w == ["measure"] else parse(w))
    return tmp_path


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        (NOW["train.lr"], "the same figure"),
        (Estimate(3.5, 2.5, 4.5), "each inside the other's interval"),
        (Estimate(9.0, 8.0, 10.0), "one lies outside the other's interval"),
    ],
)
def test_both_figures_stand_side_by_side_and_the_ledger_stays(ledger, capsys, then, sentence):
    measure("train.lr", then, "dcgan measure")
    before = load_results()
    capsys.readouterr()
    cli.Reproduce(id="train.lr").run()
    told = capsys.readouterr().out
    assert told.startswith("dcgan measure\nrecorded on ")
    assert f"recorded  {then.value:.1f}" in told and "now       3.0" in told and sentence in told
    assert "\ntrain.beta1\n  now       1.0" in told  # a row that the command measures too
    assert load_results() == before and results_root() == ledger


def test_what_is_not_measured_is_said(ledger, capsys):
    assert cli.main(["reproduce", "table2.supervised"]) == 2
    assert "dcgan search --set svhn" in capsys.readouterr().err


def test_a_dry_run_only_says_what_it_would_cost(ledger, capsys):
    measure("train.lr", NOW["train.lr"], "dcgan something-long")
    capsys.readouterr()
    cli.Reproduce(id="train.lr", dry_run=True).run()
    assert "dcgan something-long" in capsys.readouterr().out
    assert load_row("train.lr").value == 3.0


def test_all_cheap_rows_are_measured_again_each_command_once(ledger, capsys):
    for id, estimate in NOW.items():
        measure(id, estimate, "dcgan measure")
    measure("train.lr:mnist", NOW["train.lr"], "dcgan neighbours no-such-checkpoint")
    before = load_results()
    capsys.readouterr()
    cli.Reproduce(within=1.0).run()
    told = capsys.readouterr().out
    assert told.count("dcgan measure\n") == 1 and "not measured: " in told
    assert "2 commands, 2 s when they were recorded" in told
    assert "   2  the same figure" in told and "   1  not measured" in told
    assert load_results() == before
    cli.Reproduce(within=0.5).run()
    assert "0 commands" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["train.lr", "--within", "60"]])
def test_one_row_or_all_cheap_ones(ledger, capsys, words):
    assert cli.main(["reproduce", *words]) == 2
    assert "--within SECONDS" in capsys.readouterr().err
