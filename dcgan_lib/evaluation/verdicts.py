"""The rules that turn a measurement into a verdict; a verdict is never typed in.

A claim carries one rule. A numeric rule reads the value and its 95 % interval; ``Criteria`` reads
yes-or-no checks that the measuring code passes, each under a sentence that says what was checked.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dcgan_lib.errors import UserError

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
