"""The claims ledger: what the paper says, what was measured here, and the verdict that follows.

``claims.toml`` beside this file is the table of claims. Each measurement is one JSON file in
``data/results``, written by `record` alone: ``ID.json`` for the paper's own image set,
``ID--SET.json`` for another (inside, the id reads ``ID:SET``). A verdict is never typed in: it
follows from the claim's rule and the numbers, and is computed again when a file is read.
"""

import dataclasses
import functools
import json
import math
import os
import platform
import re
import textwrap
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import torch

from dcgan_lib import __version__
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import atomic_write, read_json, results_root

Verdict = Literal[
    "reproduced", "partly", "not reproduced",
    "transfers", "partly transfers", "does not transfer",
    "met", "missed", "own figure",
    "not tested at scale", "not measured", "quoted",
]  # fmt: skip
"""The first three: a statement of the paper, tested on the kind of data that it is about. The next
three: the same statement, asked of other data. Then our own: a target or a control, or a figure
that is not judged."""

VERDICTS: dict[Verdict, str] = {
    "reproduced": "●", "partly": "◐", "not reproduced": "○",
    "transfers": "●", "partly transfers": "◐", "does not transfer": "○",
    "met": "●", "missed": "○", "own figure": "·",
    "not tested at scale": "?", "not measured": "-", "quoted": "”",
}  # fmt: skip
"""Every verdict with its mark in a table."""

_OUTCOMES: dict[str, tuple[Verdict, Verdict, Verdict]] = {
    "paper": ("reproduced", "partly", "not reproduced"),
    "elsewhere": ("transfers", "partly transfers", "does not transfer"),
    "ours": ("met", "missed", "missed"),
}
"""What is said where everything holds, where some of it does, and where nothing does."""

HELD, PARTLY, FAILED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Turn a value and its 95 % interval, or named checks, into an outcome."""

    kind: Literal["at_least", "at_most", "within", "checks", "none", "quoted"] = "checks"
    """The first three read the number. checks: yes-or-no checks that the measuring code passes.
    none: not judged."""
    target: float = math.nan
    """The number aimed at, the paper's where there is one, in ``unit``."""
    slack: float = 0.0
    """How far on the wrong side of the target still counts as the same number."""
    margin: float = 0.0
    """How much further the value may miss and still count as "partly"."""
    unit: str = "%"
    """A measurement must be in it."""

    @property
    def is_numeric(self) -> bool:
        """Tell a rule that reads the number from one that reads checks, or nothing."""
        return self.kind in ("at_least", "at_most", "within")

    def miss(self, x: float) -> float:
        """Return by how much ``x`` misses the target; zero or less when it meets it."""
        too_low, too_high = self.target - self.slack - x, x - self.target - self.slack
        return {"at_least": too_low, "at_most": too_high, "within": max(too_low, too_high)}[
            self.kind
        ]

    def outcome(self, value: float, low: float, high: float) -> int:
        """Return HELD where the whole interval meets the target, PARTLY where the value is near."""
        if max(map(self.miss, (value, low, high))) <= 0:
            return HELD
        return PARTLY if self.miss(value) <= self.margin else FAILED

    def text(self) -> str:
        """Say the rule in words."""
        if not self.is_numeric:
            return {
                "checks": "every check holds; partly when some do, or a control fails",
                "none": "not judged",
                "quoted": "quoted",
            }[self.kind]
        unit = f" {self.unit}" if self.unit else ""
        aim = {
            "at_least": f"the whole interval at least {self.target - self.slack:g}",
            "at_most": f"the whole interval at most {self.target + self.slack:g}",
            "within": f"the whole interval in {self.target:g} +- {self.slack:g}",
        }[self.kind]
        return f"{aim}{unit}; partly: the value, or within a further {self.margin:g}{unit}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One entry of ``claims.toml``, whose head explains the fields."""

    id: str
    claim: str
    section: str = "-"
    paper: str = "-"
    paper_flag: str = "V"
    chapters: tuple[int, ...]
    home: str | None = None
    sets: tuple[str, ...] = ()
    kind: Literal["paper", "control"] = "paper"
    elsewhere: Literal["transfers", "control"] = "transfers"
    rule: Rule = field(default_factory=Rule)
    command: str | None = None

    @property
    def is_ours(self) -> bool:
        """Tell our own figures, whose ids begin with ``ours.``, from the paper's claims."""
        return self.id.startswith("ours.")

    def is_about(self, set_name: str | None) -> bool:
        """Tell whether a set is of the statement's own kind; None is the paper's own set."""
        return set_name in (None, self.home, *self.sets)

    def rule_on(self, set_name: str | None) -> Rule:
        """Return the rule on an image set: the paper's number does not apply to other data."""
        return Rule() if self.rule.is_numeric and not self.is_about(set_name) else self.rule

    def words_on(self, set_name: str | None) -> tuple[Verdict, Verdict, Verdict]:
        """Return the verdicts for holds, partly and fails on an image set."""
        if self.is_ours or self.kind == "control":
            return _OUTCOMES["ours"]
        if self.is_about(set_name):
            return _OUTCOMES["paper"]
        return _OUTCOMES["elsewhere" if self.elsewhere == "transfers" else "ours"]


@functools.cache
def claims() -> dict[str, Claim]:
    """Return the table of claims by id, in its order."""
    table = tomllib.loads(files(__package__).joinpath("claims.toml").read_text(encoding="utf-8"))
    entries = chain.from_iterable(_named(id, entry) for id, entry in table.items())
    return {id: _claim(id, entry) for id, entry in entries}


def _named(id: str, entry: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an entry, or one for each of its ``names``, which stand with their chapters."""
    names = entry.pop("names", None)
    if names is None:
        yield id, entry
        return
    for name, chapter in names.items():
        texts = {
            key: value.replace("NAME", name)
            for key, value in entry.items()
            if isinstance(value, str)
        }
        yield id.replace("NAME", name), entry | texts | {"chapters": [chapter]}


def _claim(id: str, entry: dict[str, Any]) -> Claim:
    rule = entry.pop("rule", "checks")
    if isinstance(rule, dict):
        (kind, target), *others = rule.items()
        rule = Rule(kind=kind, target=target, **dict(others))
    else:
        rule = Rule(kind=rule)
    lists = {name: tuple(entry.pop(name, ())) for name in ("chapters", "sets")}
    return Claim(id=id, rule=rule, **lists, **entry)


def claim_of(id: str) -> tuple[Claim, str | None]:
    """Split ``ID`` or ``ID:SET`` into the claim and the image set, None for the paper's own."""
    name, colon, set_name = id.partition(":")
    if name not in claims():
        near = get_close_matches(name, claims(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "dcgan results lists them"
        raise UserError(f"{name!r} is not the id of a claim: {hint}")
    claim = claims()[name]
    if colon and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", set_name):
        raise UserError(
            f"a set's name in {id!r} must be a-z, 0-9 and single dashes, such as street-digits"
        )
    return claim, set_name if colon and set_name != claim.home else None


def full_id(id: str) -> str:
    """Return the id as the ledger writes it: without the name of the paper's own set."""
    claim, set_name = claim_of(id)
    return claim.id if set_name is None else f"{claim.id}:{set_name}"


def id_on(claim_id: str, set_name: str) -> str:
    """Return the id of a claim's row on an image set."""
    return full_id(f"{claim_id}:{set_name}")


CONTROL = "control: "


@dataclass(frozen=True, kw_only=True)
class Caveat:
    """Bound what a measurement may be called, whatever its rule says."""

    kind: Literal["at most partly", "exploratory", "not at scale"]
    """exploratory: its rule was changed after a first look; the verdict stands, and is marked."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the ledger; a claim that is not measured has no value, n, data and so on."""

    id: str
    claim: str
    section: str
    paper: str
    paper_flag: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """``low`` and ``high`` bound the 95 % interval, in ``unit``."""
    unit: str | None = None
    n: int | None = None
    """What the value is an average over: images, pairs, seeds."""
    data: str | None = None
    checkpoint: str | None = None
    seed: int | None = None
    command: str | None = None
    """What repeats the measurement, or would make it."""
    hardware: str | None = None
    seconds: float | None = None
    """Wall time."""
    date: str | None = None
    """In UTC."""
    version: str | None = None
    verdict: Verdict = "not measured"
    checks: dict[str, bool] = field(default_factory=dict)
    """For a rule without a number: what was checked, as a sentence, and whether it held. One that
    begins with `CONTROL` asks whether the measurement could see what it looks for: it is no
    evidence for the claim, and where it fails, the claim is held partly at most."""
    caveat: Caveat | None = None
    notes: str = ""

    @property
    def is_measured(self) -> bool:
        """Tell a measurement from a row that only waits for one or quotes the paper."""
        return self.value is not None

    @property
    def claim_id(self) -> str:
        """Return the id without the image set."""
        return self.id.partition(":")[0]

    @property
    def set_name(self) -> str | None:
        """Return the image set after the id's colon, if there is one."""
        return self.id.partition(":")[2] or None

    @property
    def chapters(self) -> tuple[int, ...]:
        """Return the chapters of the book that treat the claim."""
        return claims()[self.claim_id].chapters

    @property
    def comparable_paper(self) -> str:
        """Return the paper's value where the measurement may be compared with it, else a dash."""
        claim, set_name = claim_of(self.id)
        return "-" if claim.rule.is_numeric and not claim.is_about(set_name) else self.paper

    @property
    def verdict_text(self) -> str:
        """Return the verdict, marked where it is exploratory."""
        return (
            f"{self.verdict}, exploratory"
            if self.caveat and self.caveat.kind == "exploratory"
            else self.verdict
        )


def record(
    id: str,
    value: float | Estimate,
    *,
    unit: str,
    n: int,
    data: str,
    command: str,
    seconds: float,
    checks: Mapping[str, bool] | None = None,
    caveat: Caveat | None = None,
    checkpoint: str | None = None,
    seed: int | None = None,
    notes: str = "",
) -> Result:
    """Judge a measurement, write it in place of an earlier one, and print what was recorded.

    A measurement that is incomplete or does not fit the claim's rule is refused.

    Parameters
    ----------
    id : str
        ``ID:SET`` when the claim ID was measured on another image set than the paper's.
    value : Estimate or float
        With its 95 % interval; a float alone is an exact count.
    unit : str
        "%", "s", "points", or "" for a plain number; the rule's own unit where the rule is numeric.
    data : str
        The image set and split, in words.
    command : str
        What repeats the measurement, relative to the repository: absolute paths are refused.
    """
    claim, set_name = claim_of(id)
    value, low, high = value if isinstance(value, Estimate) else (value,) * 3
    check_command(id, command, data)
    result = dataclasses.replace(
        _not_measured(claim),
        id=full_id(id),
        value=_rounded(value),
        low=_rounded(low),
        high=_rounded(high),
        unit=unit,
        n=n,
        data=data,
        checkpoint=checkpoint,
        seed=seed,
        command=command,
        hardware=describe_hardware(),
        seconds=round(float(seconds), 3),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        version=f"dcgan_lib {__version__}, torch {torch.__version__.partition('+')[0]}",
        checks={text: bool(held) for text, held in (checks or {}).items()},
        caveat=caveat,
        notes=notes.strip(),
    )
    _check_evidence(result, claim.rule_on(set_name))
    result = dataclasses.replace(result, verdict=_judge(result))
    atomic_write(
        _path(result.id),
        json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False) + "\n",
    )
    print(f"recorded {result.id}: {format_measured(result)}, {result.verdict_text}")
    return result


def check_command(id: str, command: str, data: str) -> None:
    """Refuse, before anything is computed, a row without a claim, or that nobody could repeat."""
    claim_of(id)
    if not command.strip() or not data.strip():
        raise UserError(
            f"{id} needs the command that repeats it and the data it ran on, but one is empty"
        )
    if re.search(r"(^|[\s='\"])(~|/|[A-Za-z]:\\)", command):
        raise UserError(
            f"{id}: the command names an absolute path, which no reader has: make it relative"
        )


def _check_evidence(row: Result, rule: Rule) -> None:
    """Refuse numbers that are no measurement, and evidence that does not fit the rule."""
    numbers = (row.value, row.low, row.high, row.seconds)
    if any(not isinstance(x, Real) or isinstance(x, bool) or not math.isfinite(x) for x in numbers):
        raise UserError(f"{row.id} needs a finite value, low, high and seconds, but got {numbers}")
    if not row.low <= row.value <= row.high:
        raise UserError(
            f"{row.id} needs low <= value <= high, but got {row.low} <= {row.value} <= {row.high}"
        )
    if not isinstance(row.n, Integral) or isinstance(row.n, bool) or row.n < 1:
        raise UserError(f"{row.id} needs n, a whole number of at least 1, but got {row.n!r}")
    if row.seconds < 0:
        raise UserError(f"{row.id} needs seconds of 0 or more, but got {row.seconds!r}")
    if rule.kind == "quoted":
        raise UserError(f"{row.id} is quoted from the paper: nothing can be recorded for it")
    if rule.is_numeric and row.unit != rule.unit:
        raise UserError(
            f"{row.id} is judged in the unit {rule.unit!r}, but the value came in {row.unit!r}: "
            "convert it"
        )
    if rule.is_numeric and row.checks:
        raise UserError(
            f"{row.id} is judged by its number ({rule.text()}): record it without checks"
        )
    said = all(text.strip() for text in row.checks)
    if rule.kind == "checks" and not (said and _checks_and_controls(row)[0]):
        raise UserError(
            f"{row.id} has no numeric rule: pass checks, each a sentence that says what was checked"
        )


def _judge(row: Result) -> Verdict:
    claim, set_name = claim_of(row.id)
    rule, caveat = claim.rule_on(set_name), row.caveat.kind if row.caveat else None
    if rule.kind == "quoted":
        return "quoted"
    if not row.is_measured:
        return "not measured"
    if caveat == "not at scale":
        return "not tested at scale"
    if rule.kind == "none":
        return "own figure"
    if rule.is_numeric:
        outcome = rule.outcome(row.value, row.low, row.high)
    else:
        checks, controls = _checks_and_controls(row)
        outcome = HELD if all(checks) else PARTLY if any(checks) else FAILED
        if not all(controls):
            outcome = max(outcome, PARTLY)
    if caveat == "at most partly":
        outcome = max(outcome, PARTLY)
    return claim.words_on(set_name)[outcome]


def _checks_and_controls(row: Result) -> tuple[list[bool], list[bool]]:
    sides: tuple[list[bool], list[bool]] = [], []
    for text, held in row.checks.items():
        sides[text.startswith(CONTROL)].append(held)
    return sides


def describe_hardware() -> str:
    """Name this machine's GPU if it has one, else its processor, with the number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if info.is_file() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        name = found[1].strip()
    return f"{name}, {os.cpu_count()} cores"


def _rounded(x: float) -> float:
    """Drop digits that are arithmetic noise; rounding keeps the order of value and interval."""
    return float(f"{x:.10g}") if isinstance(x, Real) else x


# ---------------------------------------------------------------- reading


def load_results() -> tuple[Result, ...]:
    """Return the whole ledger, in the order of the table of claims.

    Every claim appears: with its measurements, or as "not measured" or "quoted". Claim texts come
    from the table, so a file never shows an old wording. A file whose verdict does not follow from
    its numbers is refused.
    """
    rows: dict[str, list[Result]] = {id: [] for id in claims()}
    for path in sorted(results_root().glob("*.json")):
        row = _read(path)
        rows[row.claim_id].append(row)
    for id, found in rows.items():
        found.sort(key=lambda row: (row.id != id, row.id))  # the paper's own set comes first
        if not found or (claims()[id].home and found[0].id != id):
            found.insert(0, _not_measured(claims()[id]))
    return tuple(row for found in rows.values() for row in found)


def load_row(id: str) -> Result:
    """Return one measured row; the error for a row not measured names what would measure it."""
    wanted = full_id(id)
    path = _path(wanted)
    if not path.is_file():
        command = claim_of(id)[0].command if ":" not in wanted else None
        raise UserError(f"{wanted} is not measured yet{f': run {command}' if command else ''}")
    return _read(path)


def is_measured(id: str) -> bool:
    """Return whether the ledger holds a measurement under this id."""
    return _path(full_id(id)).is_file()


def _not_measured(claim: Claim) -> Result:
    verdict = "quoted" if claim.rule.kind == "quoted" else "not measured"
    return Result(id=claim.id, command=claim.command, verdict=verdict, **_words(claim))


def _words(claim: Claim) -> dict[str, str]:
    """Return what a row says of its claim, besides the id."""
    return {name: getattr(claim, name) for name in ("claim", "section", "paper", "paper_flag")}


def _path(id: str) -> Path:
    return results_root() / f"{id.replace(':', '--')}.json"


def _read(path: Path) -> Result:
    remedy = "record the measurement again"
    fields = read_json(path, remedy)
    try:
        caveat = fields.pop("caveat", None)
        row = Result(**fields, caveat=Caveat(**caveat) if caveat else None)
        texts = [value for name, value in fields.items() if name in _TEXTS and value is not None]
        if not all(isinstance(text, str) for text in [*texts, row.id, *row.checks]):
            raise TypeError("a text is none")
        claim, set_name = claim_of(row.id)
        _check_evidence(row, claim.rule_on(set_name))
        follows = row.verdict == _judge(row)
    except UserError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path.name} is not a ledger row ({error}): {remedy}") from error
    if path.name != _path(row.id).name:
        raise UserError(
            f"{path.name} holds the row {row.id!r}: a file is named after its id, "
            "with -- for the colon"
        )
    if not follows:
        raise UserError(
            f"{path.name}: the verdict {row.verdict!r} does not follow from its numbers: "
            "record it again"
        )
    return dataclasses.replace(row, **_words(claim))


_TEXTS = {entry.name for entry in dataclasses.fields(Result) if entry.type in (str, str | None)}


# ---------------------------------------------------------------- kept beside the rows


def save_details(name: str, content: Any) -> None:
    """Keep plain values for figures in ``data/results``, under the name ``FOLDER/NAME``."""
    atomic_write(_path(name), json.dumps(content, indent=1) + "\n")


def rounded(found: Any, digits: int) -> Any:
    """Return plain values, such as JSON holds, with every float rounded."""
    return json.loads(json.dumps(found), parse_float=lambda text: round(float(text), digits))


def load_details(name: str, command: str) -> Any:
    """Return what `save_details` kept; where there is nothing, the error names ``command``."""
    path = _path(name)
    if not path.is_file():
        raise UserError(f"{name} was not measured yet: run {command}")
    return read_json(path, f"run {command} again")


def has_details(name: str) -> bool:
    """Return whether `save_details` kept anything under this name."""
    return _path(name).is_file()


def list_details(folder: str) -> list[str]:
    """Return the names under which `save_details` kept anything in a folder, sorted."""
    return sorted(f"{folder}/{path.stem}" for path in (results_root() / folder).glob("*.json"))


# ---------------------------------------------------------------- tables


_COLUMNS = ("id", "section", "claim", "paper", "measured", "n", "data", "verdict")
_TEXT_COLUMNS = ("id", "section", "paper", "measured", "n", "verdict")
_CELL_WIDTH = 33
_RECALLED = "(recalled): the paper's number was not checked against a copy of it."


def select(
    results: Iterable[Result],
    *,
    section: str | None = None,
    verdict: str | None = None,
    chapter: int | None = None,
) -> tuple[Result, ...]:
    """Keep the rows that match every filter given.

    A section may be its start ("6.3" keeps 6.3.1 and 6.3.2), or the start of an id ("table1").
    """
    if verdict is not None and verdict not in VERDICTS:
        raise UserError(f"a verdict is one of {', '.join(VERDICTS)}, but got {verdict!r}")
    kept = []
    for row in results:
        places = [row.id, *(part.strip() for part in row.section.split(","))]
        if section is not None and not any(place.startswith(section) for place in places):
            continue
        if chapter is not None and chapter not in row.chapters:
            continue
        if verdict in (None, row.verdict):
            kept.append(row)
    return tuple(kept)


def format_measured(row: Result) -> str:
    """Write a value with its interval and unit, to the digits that the interval supports."""
    if not row.is_measured:
        return "not measured" if row.verdict == "not measured" else "-"
    half = (row.high - row.low) / 2
    decimals = (
        0 if half == 0 and row.value == int(row.value) else 1 - math.floor(math.log10(half or 0.01))
    )
    decimals = min(max(decimals, 0), 6)
    unit = f" {row.unit}" if row.unit else ""
    value, low, high = (f"{x:,.{decimals}f}" for x in (row.value, row.low, row.high))
    return f"{value}{unit}" if low == high else f"{value} [{low}, {high}]{unit}"


def count_verdicts(results: Iterable[Result]) -> dict[str, int]:
    """Count the rows under each verdict, zeros included."""
    verdicts = [row.verdict for row in results]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def results_table(results: Sequence[Result]) -> str:
    """Lay rows out as text, one line each, with totals and the commands for what is missing."""
    cells = [_cells(row) | {"measured": format_measured(row)} for row in results]
    rows = [_TEXT_COLUMNS]
    for row in cells:
        texts = (row[name] for name in _TEXT_COLUMNS)
        rows.append([textwrap.shorten(text, _CELL_WIDTH, placeholder=" ...") for text in texts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    totals = ", ".join(
        f"{count} {verdict}" for verdict, count in count_verdicts(results).items() if count
    )
    waiting = [
        f"{row.id} is not measured: run {row.command}"
        for row in results
        if row.command and not row.is_measured
    ]
    return "\n".join(
        [*lines, "", f"{len(results)} rows: {totals or 'none'}", *waiting, *_footnote(results)]
    )


def results_markdown(results: Sequence[Result]) -> str:
    """Lay rows out as a Markdown table with every column."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for row in results:
        cells = _cells(row)
        texts = (cells[name].replace("|", "\\|").replace("\n", " ") for name in _COLUMNS)
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join([*lines, "", *_footnote(results)]).rstrip()


def _footnote(results: Iterable[Result]) -> list[str]:
    return [_RECALLED] if any(row.paper_flag == "R" and row.paper != "-" for row in results) else []


def _cells(row: Result) -> dict[str, str]:
    paper = row.comparable_paper
    recalled = " (recalled)" if row.paper_flag == "R" and paper != "-" else ""
    how = f": run {row.command}" if row.command and not row.is_measured else ""
    return {
        "id": row.id,
        "section": row.section,
        "claim": row.claim,
        "paper": paper + recalled,
        "measured": format_measured(row) + how,
        "n": f"{row.n:,}" if row.n else "-",
        "data": row.data or "-",
        "verdict": f"{VERDICTS[row.verdict]} {row.verdict_text}",
    }
