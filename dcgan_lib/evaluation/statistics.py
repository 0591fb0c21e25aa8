"""Intervals for the numbers we report: shares, means, and anything a resample can recompute.

Every interval is at 95 % unless said otherwise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from dcgan_lib.errors import UserError


class Estimate(NamedTuple):
    """Hold a number with its interval: ``low <= value <= high``."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit, e.g. times 100 for per cent; ``factor`` must be positive."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(
            f"confidence must lie between 0 and 1, but it is {confidence!r}: use 0.95 for 95 %"
        )


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> Estimate:
    """Estimate a share from counts, by Wilson's score interval.

    It keeps its coverage for shares near 0 and 1, where the usual plus-or-minus does not.

    Parameters
    ----------
    successes : float
        How many of the ``n`` trials succeeded; a tie may count one half.
    n : float
        Number of trials, at least 1; of independent ones, where trials depend on each other.
    confidence : float, default 0.95
        Coverage.

    Returns
    -------
    Estimate
        The share and its interval, each in [0, 1].

    Raises
    ------
    UserError
        If ``n`` is below 1 or ``successes`` is outside 0..n.
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n * (1 + 1e-9):
        raise UserError(f"a share needs 0 <= successes <= n and n >= 1, but got {successes} of {n}")
    z = stats.norm.ppf(0.5 + confidence / 2)
    share = min(1.0, successes / n)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(
        share,
        float(max(0.0, min(share, centre - half))),
        float(min(1.0, max(share, centre + half))),
    )


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Estimate a mean from independent repeats, such as seeds, by Student's t.

    Parameters
    ----------
    values : ndarray
        One number per repeat, at least 2.
    confidence : float, default 0.95
        Coverage.

    Raises
    ------
    UserError
        If there are fewer than 2 values, or one is not finite.
    """
    _check_confidence(confidence)
    values = np.asarray(values, dtype=np.float64).ravel()
    if len(values) < 2 or not np.isfinite(values).all():
        raise UserError(
            f"a mean's interval needs at least 2 finite values, but got {len(values)}: add repeats"
        )
    half = (
        stats.t.ppf(0.5 + confidence / 2, len(values) - 1)
        * values.std(ddof=1)
        / np.sqrt(len(values))
    )
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate any statistic by the percentile bootstrap.

    Parameters
    ----------
    statistic : callable
        Takes as many arrays as there are ``samples``; returns a number.
    *samples : ndarray
        Arrays of one length N, resampled together along the first axis (pairs stay pairs).
    num_resamples : int, default 1000
        Resamples.
    confidence : float, default 0.95
        Coverage.
    seed : int, default 0
        Of the resampling.

    Raises
    ------
    UserError
        If there are fewer than 2 rows, or the arrays differ in length.
    """
    _check_confidence(confidence)
    arrays = [np.asarray(sample) for sample in samples]
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or min(lengths) < 2:
        raise UserError(
            f"a bootstrap needs arrays of one length, at least 2, but got lengths {sorted(lengths)}"
        )
    n, rng = lengths.pop(), np.random.default_rng(seed)
    value = float(statistic(*arrays))
    draws = []
    for _ in range(num_resamples):
        rows = rng.integers(0, n, n)
        draws.append(float(statistic(*(array[rows] for array in arrays))))
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


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
    if (
        len(n) < MIN_POINTS
        or len(draws) != len(n)
        or n.min() <= 0
        or len(np.unique(n)) < MIN_POINTS
    ):
        raise UserError(
            f"a curve needs at least {MIN_POINTS} different points above 0, but got {n.tolist()}"
        )
    if (
        any(len(point) < 1 or point.min() < 0 or point.max() > 100 for point in draws)
        or not 0 < target < 100
    ):
        raise UserError(
            "accuracies and the target must be per cent, and each point needs one at least"
        )
    curve, rng = (
        _fit(n, np.array([100 - point.mean() for point in draws])),
        np.random.default_rng(seed),
    )
    found = []
    while len(found) < num_resamples:
        rows = rng.integers(0, len(n), len(n))
        if len(np.unique(n[rows])) >= MIN_RESAMPLED:
            errors = [100 - rng.choice(draws[row], len(draws[row])).mean() for row in rows]
            found.append(_fit(n[rows], np.array(errors)))
    meets = np.array([_meets(each, target) for each in found])
    return Reach(
        target=target,
        curve=curve,
        needed=_interval(_meets(curve, target), meets),
        ceiling=_interval(100 - curve[0], np.array([100 - each[0] for each in found])),
        never=float(np.isinf(meets).mean()),
    )


def outlook(
    n: Sequence[float], accuracies: Sequence[Sequence[float]], target: float, unit: str
) -> str:
    """Return `predict`'s answer as a sentence, also where too few points are measured to ask."""
    if len(set(n)) < MIN_POINTS:
        return f"{target:g} %: not known, as fewer than {MIN_POINTS} points are measured"
    return predict(n, accuracies, target).text(unit)


def _fit(n: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Return the a, b and c, none below 0, that leave the least squares; n is scaled, so that b is an error as a is."""
    scale, lowest, highest = n.max(), FLATTEST, STEEPEST
    for _ in range(
        2
    ):  # for a given c, a and b are a line's: only c is searched, and then once more around the best
        c_t = np.geomspace(lowest, highest, NUM_TRIED)
        x_tp = (n / scale) ** -c_t[:, None]
        x_t1 = x_tp.mean(1, keepdims=True)
        b_t = ((x_tp - x_t1) @ errors) / ((x_tp - x_t1) ** 2).sum(1)
        b_t = np.where(
            b_t * x_t1[:, 0] > errors.mean(), x_tp @ errors / (x_tp**2).sum(1), b_t.clip(0)
        )
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
    low, high = np.quantile(
        found, [0.025, 0.975], method="nearest"
    )  # infinities cannot be averaged
    return Estimate(value, min(value, float(low)), max(value, float(high)))
