"""What a measurement must bring before it is judged: numbers in order, a command, named checks."""

import math
import os
import platform
import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.verdicts import NumericRule, Quoted, Rule

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
