"""The ledger as a table: plain text for the command line, Markdown and HTML for the book."""

import dataclasses
import html
import json
import math
import os
import platform
import re
import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import torch

from dcgan_lib import __version__
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import atomic_write, results_root

Verdict = Literal["reproduced", "partly", "not reproduced", "not measured", "quoted"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "partly", "not reproduced", "not measured", "quoted")


@dataclass(frozen=True)
class NumericRule(ABC):
    """Hold what the three numeric rules share: a bound for "reproduced" and a margin for "partly".

    Parameters
    ----------
    target : float
        The paper's number, in the claim's unit.
    slack : float
        How far on the wrong side of the target still counts as the same number.
    margin : float
        How much further the value may miss and still count as "partly".
    unit : str, default "%"
        Of all three; a measurement must be in it.
    """

    target: float
    slack: float
    margin: float
    unit: str = "%"

    @abstractmethod
    def miss(self, x: float) -> float:
        """Return by how much ``x`` misses the bound; zero or less when it meets it."""

    @abstractmethod
    def text(self) -> str:
        """Say the rule in words."""

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def verdict(self, value: float, low: float, high: float) -> Verdict:
        """Judge a value and its interval.

        "reproduced" when the whole interval meets the bound; "partly" when only the value does, or
        when it misses by no more than ``margin``; otherwise "not reproduced".
        """
        if max(self.miss(low), self.miss(high), self.miss(value)) <= 0:
            return "reproduced"
        return "partly" if self.miss(value) <= self.margin else "not reproduced"


class AtLeast(NumericRule):
    """Ask for ``target - slack`` or more."""

    def miss(self, x: float) -> float:
        """Return by how much ``x`` is too small."""
        return self.target - self.slack - x

    def text(self) -> str:
        """Say the rule in words."""
        return f"at least {self.target - self.slack:g}{self._unit}; partly within {self.margin:g}{self._unit} of that"


class AtMost(NumericRule):
    """Ask for ``target + slack`` or less."""

    def miss(self, x: float) -> float:
        """Return by how much ``x`` is too large."""
        return x - self.target - self.slack

    def text(self) -> str:
        """Say the rule in words."""
        return f"at most {self.target + self.slack:g}{self._unit}; partly within {self.margin:g}{self._unit} of that"


class Within(NumericRule):
    """Ask for ``target`` plus or minus ``slack``."""

    def miss(self, x: float) -> float:
        """Return by how much ``x`` is too far away."""
        return abs(x - self.target) - self.slack

    def text(self) -> str:
        """Say the rule in words."""
        return f"{self.target:g} +- {self.slack:g}{self._unit}; partly within a further {self.margin:g}{self._unit}"


@dataclass(frozen=True)
class Criteria:
    """Judge by named checks: all hold "reproduced", some "partly", none "not reproduced"."""

    def text(self) -> str:
        """Say the rule in words."""
        return "every check named in the notes holds; partly when only some do"


@dataclass(frozen=True)
class Quoted:
    """Mark a number that the paper quotes from others, shown for comparison and not measured here."""

    def text(self) -> str:
        """Say the rule in words."""
        return "quoted from the paper, not measured"


Rule = AtLeast | AtMost | Within | Criteria | Quoted


def judge_checks(checks: Mapping[str, bool]) -> Verdict:
    """Turn named checks into a verdict.

    Raises
    ------
    UserError
        If there is no check at all.
    """
    if not checks:
        raise UserError("a claim without a numeric rule is judged by named checks, but there are none: pass checks")
    held = sum(map(bool, checks.values()))
    if held == len(checks):
        return "reproduced"
    return "partly" if held else "not reproduced"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Describe one claim of the paper, or one figure of our own.

    Parameters
    ----------
    id : str
        Lower-case words joined by dots and dashes.
    section : str
        Where the paper makes it; "-" for our own figures.
    claim : str
        The claim in our words.
    paper : str
        The paper's value, or how the paper supports it ("figure", "stated", "argued").
    paper_flag : str
        "V" read in the source, "I" inferred, "R" recalled and not checked, "-" not from the paper.
    chapters : tuple of int
        Chapters of the book that treat it.
    rule : Rule
        Turns a measurement into a verdict.
    home_set : str, optional
        The image set of the paper's number; on another set the numeric rule does not apply, and the
        measurement is judged by named checks.
    """

    id: str
    section: str
    claim: str
    paper: str
    paper_flag: str = "V"
    chapters: tuple[int, ...]
    rule: Rule
    home_set: str | None = None

    @property
    def is_ours(self) -> bool:
        """Tell our own figures from the paper's claims."""
        return self.id.startswith("ours.")

    def rule_on(self, set_name: str | None) -> Rule:
        """Return the rule for a measurement on an image set (None: the paper's own)."""
        if set_name is None or self.home_set is None or isinstance(self.rule, Quoted):
            return self.rule
        return self.rule if set_name == self.home_set else Criteria()


def _paper(id: str, section: str, chapters: tuple[int, ...], paper: str, claim: str, rule: Rule | None = None) -> Claim:
    return Claim(id=id, section=section, chapters=chapters, paper=paper, claim=claim, rule=rule or Criteria())


def _table(id: str, section: str, chapter: int, paper: str, claim: str, rule: Rule, home: str, flag: str) -> Claim:
    chapters = (chapter,)
    return Claim(
        id=id, section=section, chapters=chapters, paper=paper, claim=claim, rule=rule, home_set=home, paper_flag=flag
    )


def _table1(row: str, paper: str, claim: str, rule: Rule | None = None) -> Claim:
    section, flag = ("-", "-") if paper == "-" else ("5.1, Table 1", "V")
    return _table(f"table1.{row}", section, 7, paper, claim, rule or Criteria(), "cifar10", flag)


def _table2(row: str, paper: str, claim: str, rule: Rule) -> Claim:
    return _table(f"table2.{row}", "5.2, Table 2", 8, paper, claim, rule, "svhn", "V")


def _table3(row: str, paper: str, claim: str, rule: Rule | None = None) -> Claim:
    flag = "-" if paper == "-" else "R"
    return _table(f"table3.{row}", "8.1, Table 3", 13, paper, claim, rule or Criteria(), "mnist", flag)


def _own(id: str, chapter: int, claim: str, rule: Rule | None = None, section: str = "-") -> Claim:
    return Claim(
        id=id, section=section, chapters=(chapter,), paper="-", paper_flag="-", claim=claim, rule=rule or Criteria()
    )


# Numeric rules read (target, slack, margin, unit); the unit is % unless given.

_GUIDELINES = (
    _paper("arch.stable", "1, 3", (2,), "most settings", "the guidelines train stably across a range of sets"),
    _paper("arch.strided", "3", (2,), "used", "strided and fractionally-strided convolutions replace pooling"),
    _paper("arch.gap", "3", (2,), "stated", "global average pooling is more stable and slower to converge"),
    _paper("arch.fc", "3", (2,), "used", "no hidden fully-connected layers are needed"),
    _paper("arch.bn", "3", (2,), "stated", "batch norm stabilises and keeps G from collapsing to one point"),
    _paper(
        "arch.bn-everywhere", "3", (2,), "stated", "batch norm on G's output and D's input makes training oscillate"
    ),
    _paper("arch.tanh", "3", (2,), "stated", "a bounded output saturates and covers the colour space sooner"),
    _paper("arch.leaky", "3", (2,), "stated", "LeakyReLU in D works well, more so at higher resolution"),
    _paper("train.beta1", "4", (2, 3), "stated", "Adam's beta1 of 0.9 oscillates, 0.5 is stable"),
    _paper("train.lr", "4", (2, 3), "stated", "a learning rate of 0.001 is too high, 0.0002 is good"),
    _paper("train.filter-collapse", "7", (3,), "stated", "long training sometimes collapses filters to one mode"),
)

_SAMPLES = (
    _paper("bedrooms.one-epoch", "4.1, Fig. 2", (4,), "figure", "samples are plausible after one pass"),
    _paper("bedrooms.five-epochs", "4.1, Fig. 3", (4,), "figure", "after five, repeated noise textures: it underfits"),
    _paper("bedrooms.memorisation", "4.1, 6", (4,), "argued", "samples are not copies of training images"),
    _paper(
        "dedup.false-positives",
        "4.1.1",
        (4,),
        "< 1 %",
        "pairs with equal hash that are not duplicates, in %",
        AtMost(1, 0, 1),
    ),
    _paper("dedup.recall", "4.1.1", (4,), "about 275,000 of 3 M removed", "the hash finds most near-duplicates"),
    _paper("faces.crops", "4.2", (5,), "about 350,000 of 3 M", "a detector crops faces from web photographs"),
    _paper("faces.samples", "4.2, Fig. 10", (5,), "figure", "samples look like faces"),
    _paper("imagenet.samples", "4.3, Fig. 11", (6,), "figure", "samples at 32x32 resemble natural images"),
)

_TABLES = (
    _table1("kmeans1.full", "80.6 %", "one-layer K-means, accuracy", Within(80.6, 2, 3)),
    _table1("kmeans1.400", "63.7 +- 0.7 %", "one-layer K-means, 400 labels a class, accuracy", Within(63.7, 2, 3)),
    _table1("dcgan.full", "82.8 %", "DCGAN features + L2-SVM, accuracy", AtLeast(82.8, 2, 5)),
    _table1("dcgan.400", "73.8 +- 0.4 %", "DCGAN features + L2-SVM, 400 labels a class, accuracy", AtLeast(73.8, 2, 5)),
    _table1(
        "kmeans3",
        "82.0 % · 70.7 +- 0.7 % with 400 a class",
        "three-layer K-means with learned receptive fields, accuracy",
        Quoted(),
    ),
    _table1("viewinvariant", "81.9 % · 72.6 +- 0.7 % with 400 a class", "view-invariant K-means, accuracy", Quoted()),
    _table1("exemplar", "84.3 % · 77.4 +- 0.2 % with 400 a class", "Exemplar CNN, accuracy", Quoted()),
    _table1("random", "-", "control: features of a discriminator with random weights, accuracy"),
    _table1("random-stored", "-", "control: the same, batch norm's statistics left at 0 and 1, accuracy"),
    _table1("pixels", "-", "control: raw pixels, accuracy"),
    _table1("dcgan-cifar", "-", "control: discriminator trained on CIFAR-10 without labels, accuracy"),
    _table2("dcgan", "22.48 %", "DCGAN features + L2-SVM, 1,000 labels, test error", AtMost(22.48, 2, 8)),
    _table2(
        "supervised", "28.87 % (validation)", "the same network, supervised, 1,000 labels, error", Within(28.87, 3, 5)
    ),
    _table2(
        "quoted",
        "KNN 77.93 · TSVM 66.55 · M1+KNN 65.63 · M1+TSVM 54.33 · M1+M2 36.02 · SWWAE 27.83 · with dropout 23.56 %",
        "test error of other methods, 1,000 labels",
        Quoted(),
    ),
    _table3("real.50k", "3.1 %", "1-NN on real data, test error", Within(3.1, 0.3, 0.7)),
    _table3("infimnist.50k", "-", "1-NN on deformed digits, test error; as many real digits do better"),
    _table3("infimnist.10m", "2.6 %", "1-NN on deformed digits, test error", Within(2.6, 0.3, 0.7)),
    _table3("gan.50k", "6.28 %", "1-NN on a plain GAN's digits, test error", Within(6.28, 1, 2)),
    _table3("gan.10m", "5.65 %", "1-NN on a plain GAN's digits, test error", Within(5.65, 1, 2)),
    _table3("dcgan.50k", "2.98 %", "1-NN on DCGAN's digits, test error", AtMost(2.98, 0.3, 1)),
    _table3("dcgan.10m", "1.48 %", "1-NN on DCGAN's digits, test error", AtMost(1.48, 0.3, 1)),
    _table3("align", "1.4 %", "1-NN on AlignMNIST, test error", Quoted()),
    _paper("table3.bn-affine", "8.1", (13,), "stated", "removing batch norm's scale and bias is better for both"),
)

_INSIDE = (
    _paper("walk.smooth", "6.1, Fig. 4", (9,), "figure", "a latent walk is smooth, and every point is plausible"),
    _paper("walk.semantic", "6.1", (9,), "figure", "objects appear and disappear along the way"),
    _paper("neighbours.fooled", "6", (4, 9), "stated", "small image transforms fool nearest neighbours"),
    _paper(
        "saliency.trained-vs-random", "6.2, Fig. 5", (10,), "figure", "trained features see objects, random ones not"
    ),
    _paper("forget.object", "6.3.1, Fig. 6", (11,), "figure; 200 maps", "dropping maps removes most windows"),
    _paper("forget.rest", "6.3.1", (11,), "figure", "the rest of the scene stays"),
    _paper("arithmetic.smile", "6.3.2, Fig. 7", (12,), "figure", "smiling woman - woman + man = smiling man"),
    _paper(
        "arithmetic.glasses", "6.3.2, Fig. 7", (12,), "figure", "man with glasses - man + woman = woman with glasses"
    ),
    _paper("arithmetic.three-vs-one", "6.3.2", (12,), "stated", "one exemplar is unstable, the mean of three stable"),
    _paper("arithmetic.pixels", "6.3.2, Fig. 7", (12,), "figure", "the same sums in pixel space only overlay images"),
    _paper("turn.linear", "6.3.2, Fig. 8", (12,), "figure", "pose moves linearly along the turn vector"),
    _own(
        "residual.plain",
        14,
        "the residual GAN against the plain one, equal parameters and time",
        section="after the paper",
    ),
)

_DIGITS = ("mnist", "mnist-conditional", "mnist-paper", "mnist-gan")

_GENERATORS = (
    *(
        _own(
            f"ours.{name}.recognised",
            13,
            f"{name}: generated digits that the probe names with confidence over 0.9, in %",
            AtLeast(90, 0, 10),
        )
        for name in _DIGITS
    ),
    *(
        _own(
            f"ours.{name}.entropy",
            13,
            f"{name}: how evenly generated digits cover the ten classes: entropy / log 10",
            AtLeast(0.98, 0, 0.05, ""),
        )
        for name in _DIGITS
    ),
    *(
        _own(f"ours.{name}.kid", chapter, f"KID of the {name} generator against held-out images")
        for name, chapter in {
            **dict.fromkeys(_DIGITS, 13),
            "street-digits": 8,
            "faces": 5,
            "bedrooms": 4,
            "rooms": 4,
            "portraits": 5,
            "imagenet": 6,
        }.items()
    ),
    *(
        _own(
            f"ours.{name}.memorised",
            chapter,
            f"{name} samples closer to a training image than to a held-out one, in %",
            AtMost(50, 5, 5),
        )
        for name, chapter in {
            **dict.fromkeys(_DIGITS, 13),
            "faces": 5,
            "bedrooms": 4,
            "rooms": 4,
            "portraits": 5,
        }.items()
    ),
)

_PROBES = (
    _own("ours.probe.mnist", 13, "digit classifier, test accuracy in %", AtLeast(99, 0, 1)),
    _own("ours.probe.street-digits", 8, "drawn-digit classifier, test accuracy in %", AtLeast(95, 0, 5)),
    _own("ours.probe.faces.female", 5, "faces probe: the set's own sex label, test accuracy in %", AtLeast(85, 0, 5)),
    _own("ours.probe.faces.age", 5, "faces probe: the age label, R2 on test images", AtLeast(0.5, 0, 0.2, "")),
    _own(
        "ours.probe.smiles",
        12,
        "smile probe: its set's own label, smiling or neutral, accuracy in %",
        AtLeast(85, 0, 5),
    ),
    *(
        _own(
            f"ours.probe.{name}.presence",
            chapter,
            f"{name} probe: lowest accuracy over its yes-or-no labels, in %",
            AtLeast(97, 0, 2),
        )
        for name, chapter in {"rooms": 4, "portraits": 5}.items()
    ),
    *(
        _own(
            f"ours.probe.{name}.measures",
            chapter,
            f"{name} probe: lowest R2 over its continuous labels",
            AtLeast(0.95, 0, 0.05, ""),
        )
        for name, chapter in {"rooms": 4, "portraits": 5}.items()
    ),
)

CLAIMS: dict[str, Claim] = {
    claim.id: claim for claim in _GUIDELINES + _SAMPLES + _TABLES + _INSIDE + _GENERATORS + _PROBES
}


def split_id(full_id: str) -> tuple[str, str | None]:
    """Split ``ID`` or ``ID:SET`` into the claim's id and the image set's name.

    Raises
    ------
    UserError
        If the id is not in the table, or the set's name is not made of a-z, 0-9 and single dashes.
    """
    id, colon, set_name = full_id.partition(":")
    if id not in CLAIMS:
        near = get_close_matches(id, CLAIMS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see dcgan_lib.evaluation.ledger"
        raise UserError(f"{id!r} is not the id of a claim: {hint}")
    if not colon:
        return id, None
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", set_name):
        raise UserError(f"a set's name in {full_id!r} must be a-z, 0-9 and single dashes, such as street-digits")
    return id, None if set_name == CLAIMS[id].home_set else set_name


_HELD, _FAILED = "holds: ", "fails: "


def describe_hardware() -> str:
    """Name this machine's GPU if it has one, else its processor, with the number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        name = found.group(1).strip() if found else name
    return f"{name}, {os.cpu_count()} cores"


def checks_in(notes: str) -> dict[str, bool]:
    """Read back the checks that `join_notes` wrote."""
    lines = notes.splitlines()
    return {line[len(_HELD) :]: line.startswith(_HELD) for line in lines if line.startswith((_HELD, _FAILED))}


def join_notes(id: str, rule: Rule, unit: str, checks: Mapping[str, bool] | None, notes: str) -> str:
    """Write checks as lines in front of the notes; refuse evidence that does not fit the rule."""
    if isinstance(rule, Quoted):
        raise UserError(f"{id} is quoted from the paper: nothing is measured for it, so nothing can be recorded")
    if isinstance(rule, NumericRule) and unit != rule.unit:
        raise UserError(f"{id} is judged in the unit {rule.unit!r}, but the value came in {unit!r}: convert it")
    if isinstance(rule, NumericRule) and checks:
        raise UserError(f"{id} is judged by its number ({rule.text()}): record it without checks")
    if not isinstance(rule, NumericRule) and not checks:
        raise UserError(f"{id} has no numeric rule: pass checks, each a sentence that says what was checked")
    if checks_in(notes) or any(not text.strip() or "\n" in text for text in checks or {}):
        raise UserError(f"{id}: a check must be one non-empty line and must come through checks, not through notes")
    lines = [f"{_HELD if held else _FAILED}{text}" for text, held in (checks or {}).items()]
    return "\n".join(lines + ([notes.strip()] if notes.strip() else []))


def check_numbers(id: str, value: float, low: float | None, high: float | None, n: int, seconds: float) -> None:
    """Refuse a value outside its interval, anything not finite, and an empty sample."""
    numbers = (value, low, high, seconds)
    if any(not isinstance(x, Real) or isinstance(x, bool) or not math.isfinite(x) for x in numbers):
        raise UserError(f"{id} needs a finite value, low, high and seconds, but got {numbers}")
    if not low <= value <= high:
        raise UserError(f"{id} needs low <= value <= high, but got {low} <= {value} <= {high}")
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise UserError(f"{id} needs n, a whole number of at least 1, but got {n!r}")
    if seconds < 0:
        raise UserError(f"{id} needs seconds of 0 or more, but got {seconds!r}")


def check_command(id: str, command: str, data: str) -> None:
    """Refuse a row that a reader could not repeat."""
    if not command.strip() or not data.strip():
        raise UserError(f"{id} needs the command that repeats it and the data it ran on, but one of them is empty")
    if re.search(r"(^|[\s='\"])(~|/|[A-Za-z]:\\)", command):
        raise UserError(f"{id}: the command names an absolute path, which no reader has: make it relative")


def save_details(name: str, content: Any, root: Path | None = None) -> None:
    """Keep plain values.

    Parameters
    ----------
    name : str
        Folder and name, such as ``curves/table3.dcgan.50k``.
    content : Any
        What JSON can hold.
    root : Path, optional
        The ledger's folder; by default ``data/results``.
    """
    atomic_write(_details_path(name, root), json.dumps(content, indent=1) + "\n")


def load_details(name: str, command: str, root: Path | None = None) -> Any:
    """Return what `save_details` kept.

    Parameters
    ----------
    name, root : optional
        See `save_details`.
    command : str
        What measures it, for the message.

    Raises
    ------
    UserError
        If it was not measured, or the file is damaged.
    """
    path = _details_path(name, root)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{name} was not measured yet: run {command}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run {command} again") from error


def has_details(name: str, root: Path | None = None) -> bool:
    """Return whether `save_details` kept anything under this name."""
    return _details_path(name, root).is_file()


def _details_path(name: str, root: Path | None) -> Path:
    return (results_root() if root is None else Path(root)) / f"{name}.json"


_COMMANDS = {
    "table2.dcgan": (
        "dcgan train --recipe paper-svhn{other} && "
        "dcgan features runs/paper-svhn{suffix} --set {set} --protocol 1000 --split test --record {id}"
    ),
    "table2.supervised": "dcgan search --set {set} --record {id}",
}


def command_for(id: str) -> str | None:
    """Return what measures a row, or None where no single command does.

    Parameters
    ----------
    id : str
        Of the row; with ``:SET``, the command is the one for that image set.
    """
    claim_id, set_name = split_id(id)
    if claim_id not in _COMMANDS:
        return None
    other, suffix = (f" --set {set_name}", f"-{set_name}") if set_name else ("", "")
    words = {"set": set_name or CLAIMS[claim_id].home_set, "id": claim_id + (f":{set_name}" if set_name else "")}
    return _COMMANDS[claim_id].format(**words, other=other, suffix=suffix)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hold one row of the ledger.

    ``value`` is None when the claim is not measured, and then so are all the fields that a
    measurement fills, but for ``command``, which says what would measure it where one command does.
    ``low`` and ``high`` bound the 95 % interval, in ``unit``; ``n`` counts what the value is an
    average over; ``seconds`` is the measurement's wall time; ``date`` is in UTC.
    """

    id: str
    claim: str
    section: str
    paper: str
    paper_flag: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    n: int | None = None
    data: str | None = None
    checkpoint: str | None = None
    seed: int | None = None
    command: str | None = None
    hardware: str | None = None
    seconds: float | None = None
    date: str | None = None
    version: str | None = None
    verdict: Verdict
    notes: str = ""

    @property
    def is_measured(self) -> bool:
        """Tell a measurement from a row that only waits for one or quotes the paper."""
        return self.value is not None

    @property
    def set_name(self) -> str | None:
        """Return the image set after the id's colon, if there is one."""
        return self.id.partition(":")[2] or None

    @property
    def chapters(self) -> tuple[int, ...]:
        """Return the chapters of the book that treat the claim."""
        return CLAIMS[self.id.partition(":")[0]].chapters


def record(
    id: str,
    *,
    value: float | Estimate,
    low: float | None = None,
    high: float | None = None,
    unit: str,
    n: int,
    data: str,
    command: str,
    seconds: float,
    checks: Mapping[str, bool] | None = None,
    checkpoint: str | None = None,
    seed: int | None = None,
    notes: str = "",
    hardware: str | None = None,
    root: Path | None = None,
) -> Result:
    """Judge a measurement and write it to the ledger, replacing an earlier one.

    Parameters
    ----------
    id : str
        A claim of `dcgan_lib.evaluation.ledger`; ``ID:SET`` when it was measured on the image set SET.
    value, low, high : float
        The number and its 95 % interval; or pass an `Estimate` as ``value`` alone. An exact count
        has ``low == value == high``.
    unit : str
        "%", "s", "images/s", or "" for a plain number; the rule's own unit where the rule is numeric.
    n : int
        What the value is an average over: images, pairs, seeds.
    data : str
        The image set and split, in words.
    command : str
        What repeats the measurement, relative to the repository.
    seconds : float
        Wall time of the measurement.
    checks : mapping of str to bool, optional
        For a claim without a numeric rule: what was checked, as a sentence, and whether it held.
    checkpoint, seed, notes : optional
        The checkpoint's name, the seed, and anything a reader must know.
    hardware : str, optional
        Where it ran; by default this machine.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Returns
    -------
    Result
        As written, verdict included.

    Raises
    ------
    UserError
        If the id is unknown or only quoted, a number is missing, not finite or out of order, the
        command is empty or names an absolute path, or the checks do not fit the claim's rule.
    """
    claim_id, set_name = split_id(id)
    claim, rule = CLAIMS[claim_id], CLAIMS[claim_id].rule_on(set_name)
    if isinstance(value, Estimate):
        value, low, high = value
    full_id = claim_id if set_name is None else f"{claim_id}:{set_name}"
    check_numbers(full_id, value, low, high, n, seconds)
    check_command(full_id, command, data)
    numbers = {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high), "unit": unit, "n": int(n)}
    origin = {"data": data, "checkpoint": checkpoint, "seed": seed, "command": command}
    result = dataclasses.replace(
        _placeholder(claim_id),
        id=full_id,
        **numbers,
        **origin,
        hardware=hardware or describe_hardware(),
        seconds=round(float(seconds), 3),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        version=f"dcgan_lib {__version__}, torch {torch.__version__.partition('+')[0]}",
        notes=join_notes(full_id, rule, unit, checks, notes),
    )
    result = dataclasses.replace(result, verdict=_judge(result, rule))
    folder = results_root() if root is None else Path(root)
    _write(folder, result)
    if set_name is not None and claim.home_set is None:
        _drop_placeholder(folder, claim_id)
    return result


def load_results(root: Path | None = None) -> tuple[Result, ...]:
    """Return the whole ledger, in the order of the table of claims.

    Every claim appears: with its measurements, or as "not measured" or "quoted". Claim texts come
    from the table, so a file never shows an old wording.

    Raises
    ------
    UserError
        If a file is damaged, names no known claim, or its verdict does not follow from its numbers.
    """
    folder = results_root() if root is None else Path(root)
    rows: dict[str, list[Result]] = {id: [] for id in CLAIMS}
    for path in sorted(folder.glob("*.json")):
        result = _read(path)
        rows[result.id.partition(":")[0]].append(result)
    for id, found in rows.items():
        found.sort(key=lambda result: (result.id != id, result.id))  # the paper's own set comes first
        if not found or (CLAIMS[id].home_set is not None and found[0].id != id):
            found.insert(0, _placeholder(id))
    return tuple(result for found in rows.values() for result in found)


def write_missing(root: Path | None = None) -> list[str]:
    """Write a row for every claim that has no file yet, and bring claim texts up to date.

    Returns
    -------
    list of str
        The ids whose file was written.
    """
    folder = results_root() if root is None else Path(root)
    written = []
    for result in load_results(folder):
        path = _path(folder, result.id)
        if not path.exists() or path.read_text(encoding="utf-8") != _to_json(result):
            _write(folder, result)
            written.append(result.id)
    return written


def _placeholder(id: str) -> Result:
    claim = CLAIMS[id]
    return Result(
        id=id,
        claim=claim.claim,
        section=claim.section,
        paper=claim.paper,
        paper_flag=claim.paper_flag,
        command=command_for(id),
        verdict="quoted" if isinstance(claim.rule, Quoted) else "not measured",
    )


def _judge(result: Result, rule: Rule) -> Verdict:
    """Compute the verdict from what the row holds, so that it can be computed again when read."""
    if isinstance(rule, Quoted):
        return "quoted"
    if not result.is_measured:
        return "not measured"
    if isinstance(rule, NumericRule):
        return rule.verdict(result.value, result.low, result.high)
    return judge_checks(checks_in(result.notes))


def _rounded(x: float) -> float:
    """Drop digits that are arithmetic noise; rounding keeps the order of value and interval."""
    return float(f"{x:.10g}")


def _path(folder: Path, id: str) -> Path:
    return folder / f"{id.replace(':', '--')}.json"


def _to_json(result: Result) -> str:
    return json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(folder: Path, result: Result) -> None:
    atomic_write(_path(folder, result.id), _to_json(result))


def _drop_placeholder(folder: Path, claim_id: str) -> None:
    path = _path(folder, claim_id)
    if path.is_file() and not _read(path).is_measured:
        path.unlink()


def _read(path: Path) -> Result:
    try:
        result = Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path.name} is not a ledger row ({error}): record the measurement again") from error
    claim_id, set_name = split_id(result.id)
    if path.name != _path(path.parent, result.id).name:
        raise UserError(f"{path.name} holds the row {result.id!r}: a file is named after its id, with -- for the colon")
    if result.is_measured:
        check_numbers(result.id, result.value, result.low, result.high, result.n, result.seconds)
    if result.verdict != _judge(result, CLAIMS[claim_id].rule_on(set_name)):
        raise UserError(
            f"{path.name}: the verdict {result.verdict!r} does not follow from its numbers: record it again"
        )
    table = _placeholder(claim_id)
    words = {name: getattr(table, name) for name in ("claim", "section", "paper", "paper_flag")}
    return dataclasses.replace(result, **words, command=result.command if result.is_measured else table.command)


_COLUMNS = ("id", "section", "claim", "paper", "measured", "n", "data", "verdict")
_MARKS = {"reproduced": "●", "partly": "◐", "not reproduced": "○", "not measured": "-", "quoted": "”"}
_TEXT_COLUMNS = ("id", "section", "paper", "measured", "n", "verdict")
_CELL_WIDTH = 33
_RECALLED = "(recalled): the paper's number was not checked against a copy of it."


def select(
    results: Iterable[Result],
    *,
    section: str | None = None,
    verdict: str | None = None,
    chapter: int | None = None,
    ours: bool | None = None,
) -> tuple[Result, ...]:
    """Keep the rows that match every filter given.

    Parameters
    ----------
    results : iterable of Result
        From `load_results`.
    section : str, optional
        Start of a section ("6.3" keeps 6.3.1 and 6.3.2) or of an id ("table1").
    verdict : str, optional
        One of the five verdicts.
    chapter : int, optional
        A chapter of the book.
    ours : bool, optional
        True for our own figures only, False for the paper's claims only.

    Raises
    ------
    UserError
        If the verdict is none of the five.
    """
    if verdict is not None and verdict not in VERDICTS:
        raise UserError(f"a verdict is one of {', '.join(VERDICTS)}, but got {verdict!r}")
    kept = []
    for result in results:
        places = [part.strip() for part in result.section.split(",")]
        in_section = section is None or result.id.startswith(section) or any(p.startswith(section) for p in places)
        in_chapter = chapter is None or chapter in result.chapters
        is_ours = CLAIMS[result.id.partition(":")[0]].is_ours
        if in_section and in_chapter and verdict in (None, result.verdict) and ours in (None, is_ours):
            kept.append(result)
    return tuple(kept)


def format_measured(result: Result) -> str:
    """Write a value with its interval and unit, to the digits that the interval supports."""
    if not result.is_measured:
        return "not measured" if result.verdict == "not measured" else "-"
    half = (result.high - result.low) / 2
    decimals = 0 if half == 0 and result.value == int(result.value) else 1 - math.floor(math.log10(half or 0.01))
    decimals = min(max(decimals, 0), 6)
    unit = f" {result.unit}" if result.unit else ""
    value, low, high = (f"{x:,.{decimals}f}" for x in (result.value, result.low, result.high))
    return f"{value}{unit}" if low == high else f"{value} [{low}, {high}]{unit}"


def count_verdicts(results: Iterable[Result]) -> dict[str, int]:
    """Count the rows under each of the five verdicts, zeros included."""
    verdicts = [result.verdict for result in results]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def results_table(results: Sequence[Result]) -> str:
    """Lay rows out as plain text, one line each, with a line of totals and the commands for what is not measured."""
    cells = [_cells(result) | {"measured": format_measured(result)} for result in results]
    rows = [_TEXT_COLUMNS, *(tuple(row[name] for name in _TEXT_COLUMNS) for row in cells)]
    rows = [tuple(textwrap.shorten(cell, _CELL_WIDTH, placeholder=" ...") for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TEXT_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    totals = ", ".join(f"{count} {verdict}" for verdict, count in count_verdicts(results).items())
    waiting = [f"{row.id} is not measured: run {row.command}" for row in results if row.command and not row.is_measured]
    return "\n".join([*lines, "", f"{len(results)} rows: {totals}", *waiting, *_footnote(results)])


def results_markdown(results: Sequence[Result]) -> str:
    """Lay rows out as a Markdown table with every column."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for result in results:
        cells = _cells(result)
        lines.append("| " + " | ".join(cells[name].replace("|", "\\|").replace("\n", " ") for name in _COLUMNS) + " |")
    return "\n".join([*lines, "", *_footnote(results)]).rstrip()


def results_html(results: Sequence[Result], caption: str = "Claims and measurements") -> str:
    """Lay rows out as an HTML table; each verdict has a word and a mark, never a colour alone."""
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    body = []
    for result in results:
        cells = {name: html.escape(text) for name, text in _cells(result).items()}
        title = html.escape(result.notes, quote=True).replace("\n", "&#10;")
        others = "".join(f"<td>{cells[name]}</td>" for name in _COLUMNS[1:-1])
        body.append(
            f'<tr><th scope="row"><code>{cells["id"]}</code></th>{others}'
            f'<td class="verdict-{result.verdict.replace(" ", "-")}" title="{title}">{cells["verdict"]}</td></tr>'
        )
    return (
        f'<table class="ledger"><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in _footnote(results))
    )


def _footnote(results: Iterable[Result]) -> list[str]:
    return [_RECALLED] if any(result.paper_flag == "R" for result in results) else []


def _cells(result: Result) -> dict[str, str]:
    recalled = " (recalled)" if result.paper_flag == "R" else ""
    how = f": run {result.command}" if result.command and not result.is_measured else ""
    return {
        "id": result.id,
        "section": result.section,
        "claim": result.claim,
        "paper": result.paper + recalled,
        "measured": format_measured(result) + how,
        "n": f"{result.n:,}" if result.n else "-",
        "data": result.data or "-",
        "verdict": f"{_MARKS[result.verdict]} {result.verdict}",
    }
