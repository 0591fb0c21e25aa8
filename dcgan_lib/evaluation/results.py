"""The claims ledger: one JSON file per measured claim, written by `record` alone.

``data/results/ID.json`` holds a measurement on the paper's own kind of data, ``ID--SET.json`` one on
the image set SET; inside the file the id reads ``ID:SET``.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from dcgan_lib import __version__
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.claims import CLAIMS, split_id
from dcgan_lib.evaluation.evidence import check_command, check_numbers, checks_in, describe_hardware, join_notes
from dcgan_lib.evaluation.open_rows import command_for
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.evaluation.verdicts import NumericRule, Quoted, Rule, Verdict, judge_checks
from dcgan_lib.paths import atomic_write, results_root


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
        A claim of `dcgan_lib.evaluation.claims`; ``ID:SET`` when it was measured on the image set SET.
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
