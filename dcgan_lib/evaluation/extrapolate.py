"""How far a measured curve would have to go on: an error that falls as a power of steps or labels, and where it ends.

Axes: p points, s draws. Accuracies and errors are in per cent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import Estimate

MIN_POINTS = 6
"""Fewer hardly vary when they are resampled, and the interval would be much too narrow."""
MIN_RESAMPLED = 4
FLATTEST, STEEPEST, NUM_TRIED = 1e-3, 3.0, 200  # of the exponent c


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Hold what it would take to reach a target, by the curve error(n) = a + b n^-c.

    Parameters
    ----------
    target : float
        Accuracy in per cent.
    curve : tuple of float
        a, b and c.
    needed : Estimate
        n at which the curve meets the target; infinite where it never does.
    ceiling : Estimate
        The accuracy that the curve tends to, 100 - a.
    never : float
        Share of the resamples whose curve never meets the target.
    """

    target: float
    curve: tuple[float, float, float]
    needed: Estimate
    ceiling: Estimate
    never: float

    def accuracy(self, n: np.ndarray) -> np.ndarray:
        """Return the curve's accuracy, in per cent, at any n above 0."""
        a, b, c = self.curve
        return 100 - a - b * np.asarray(n, float) ** -c

    def text(self, unit: str) -> str:
        """Say it in a sentence; ``unit`` is what n counts."""
        value, low, high = (_number(x) for x in self.needed)
        ceiling = f"its ceiling is {self.ceiling.value:.1f} % [{self.ceiling.low:.1f}, {self.ceiling.high:.1f}]"
        if math.isinf(self.needed.value):
            soonest = "" if math.isinf(self.needed.low) else f" (at the soonest after {low} {unit})"
            return f"{self.target:g} %: never, by this curve{soonest}; {ceiling}"
        latest = "or never" if math.isinf(self.needed.high) else f"to {high}"
        return f"{self.target:g} %: after {value} {unit}, by this curve [{low} {latest}]; {ceiling}"


def _number(x: float) -> str:
    return "never" if math.isinf(x) else f"{x:.2g}" if x >= 1e7 else f"{float(f'{x:.2g}'):,.0f}"


def predict(
    n: Sequence[float],
    accuracies: Sequence[Sequence[float]],
    target: float,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> Reach:
    """Fit the curve to measured accuracies, and find where it meets a target.

    Parameters
    ----------
    n : sequence of float
        Steps or labels of each of at least six points, above 0.
    accuracies : sequence of sequences of float
        Accuracies in per cent at each point, one a draw of labels.
    target : float
        Accuracy in per cent.
    num_resamples, seed : int
        Of the bootstrap that gives the intervals.

    Returns
    -------
    Reach
        Intervals at 95 %.

    Raises
    ------
    UserError
        If there are too few points, or a number is out of range.

    Notes
    -----
    A resample draws points, and of each point as many draws of labels, with replacement; those of fewer than four
    different points are drawn again. A fit far outside the measured range is a guess: say so where it is shown.
    """
    n, draws = np.asarray(n, float), [np.asarray(point, float) for point in accuracies]
    if len(n) < MIN_POINTS or len(draws) != len(n) or n.min() <= 0 or len(np.unique(n)) < MIN_POINTS:
        raise UserError(f"a curve needs at least {MIN_POINTS} different points above 0, but got {n.tolist()}")
    if any(len(point) < 1 or point.min() < 0 or point.max() > 100 for point in draws) or not 0 < target < 100:
        raise UserError("accuracies and the target must be per cent, and each point needs one at least")
    curve, rng = _fit(n, np.array([100 - point.mean() for point in draws])), np.random.default_rng(seed)
    found = []
    while len(found) < num_resamples:
        rows = rng.integers(0, len(n), len(n))
        if len(np.unique(n[rows])) >= MIN_RESAMPLED:
            errors = [100 - rng.choice(draws[row], len(draws[row])).mean() for row in rows]
            found.append(_fit(n[rows], np.array(errors)))
    meets = np.array([_meets(each, target) for each in found])
    return Reach(
        target=target, curve=curve, needed=_interval(_meets(curve, target), meets),
        ceiling=_interval(100 - curve[0], np.array([100 - each[0] for each in found])),
        never=float(np.isinf(meets).mean()),
    )  # fmt: skip


def outlook(n: Sequence[float], accuracies: Sequence[Sequence[float]], target: float, unit: str) -> str:
    """Return `predict`'s answer as a sentence, also where too few points are measured to ask."""
    if len(set(n)) < MIN_POINTS:
        return f"{target:g} %: not known, as fewer than {MIN_POINTS} points are measured"
    return predict(n, accuracies, target).text(unit)


def _fit(n: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Return the a, b and c, none below 0, that leave the least squares; n is scaled, so that b is an error as a is."""
    scale, lowest, highest = n.max(), FLATTEST, STEEPEST
    for _ in range(2):  # for a given c, a and b are a line's: only c is searched, and then once more around the best
        c_t = np.geomspace(lowest, highest, NUM_TRIED)
        x_tp = (n / scale) ** -c_t[:, None]
        x_t1 = x_tp.mean(1, keepdims=True)
        b_t = ((x_tp - x_t1) @ errors) / ((x_tp - x_t1) ** 2).sum(1)
        b_t = np.where(b_t * x_t1[:, 0] > errors.mean(), x_tp @ errors / (x_tp**2).sum(1), b_t.clip(0))
        a_t = (errors.mean() - b_t * x_t1[:, 0]).clip(0)
        best = int(((a_t[:, None] + b_t[:, None] * x_tp - errors) ** 2).sum(1).argmin())
        lowest, highest = c_t[max(best - 1, 0)], c_t[min(best + 1, NUM_TRIED - 1)]
    return float(a_t[best]), float(b_t[best] * scale ** c_t[best]), float(c_t[best])


def _meets(curve: tuple[float, float, float], target: float) -> float:
    a, b, c = curve
    left = 100 - target - a
    if left <= 0:
        return math.inf
    log = math.log(b / left) / c if b > 0 else -math.inf
    return math.exp(log) if log < 80 else math.inf  # more than there are atoms in a star is never


def _interval(value: float, found: np.ndarray) -> Estimate:
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")  # infinities cannot be averaged
    return Estimate(value, min(value, float(low)), max(value, float(high)))
