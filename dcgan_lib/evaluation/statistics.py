"""Intervals for what is reported: shares, means, resampled statistics, extrapolations.

Every interval is at 95 %.
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
        """Return the estimate in another unit, e.g. times 100 for per cent."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def wilson_interval(successes: float, n: float) -> Estimate:
    """Estimate a share in [0, 1] from counts, by Wilson's score interval.

    It keeps its coverage for shares near 0 and 1, where the usual plus-or-minus does not. SciPy's
    refuses fractional counts; here a tie may count one half, and ``n`` may be the number of
    independent trials where trials depend on each other.

    Raises
    ------
    UserError
        If ``n`` is below 1 or ``successes`` is outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n * (1 + 1e-9):
        raise UserError(f"a share needs 0 <= successes <= n and n >= 1, but got {successes} of {n}")
    z = stats.norm.ppf(0.975)
    share = min(1.0, successes / n)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = min(share, centre - half), max(share, centre + half)
    return Estimate(share, float(max(0.0, low)), float(min(1.0, high)))


def mean_interval(values: np.ndarray) -> Estimate:
    """Estimate a mean from independent repeats, such as seeds, by Student's t.

    Raises
    ------
    UserError
        If there are fewer than 2 values, or one is not finite.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if len(values) < 2 or not np.isfinite(values).all():
        raise UserError(
            f"a mean's interval needs at least 2 finite values, but got {len(values)}: add repeats"
        )
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate any statistic by the percentile bootstrap.

    Parameters
    ----------
    statistic : callable
        Takes as many arrays as there are ``samples``; returns a number.
    *samples : ndarray
        Arrays of one length, resampled together along the first axis (pairs stay pairs).

    Raises
    ------
    UserError
        If there are fewer than 2 rows, or the arrays differ in length.
    """
    arrays = [np.asarray(sample) for sample in samples]
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or min(lengths) < 2:
        raise UserError(
            f"a bootstrap needs arrays of one length, at least 2, but got lengths {sorted(lengths)}"
        )
    n, rng = lengths.pop(), np.random.default_rng(seed)
    draws = []
    for _ in range(num_resamples):
        rows = rng.integers(0, n, n)
        draws.append(float(statistic(*(array[rows] for array in arrays))))
    return _around(float(statistic(*arrays)), np.quantile(draws, [0.025, 0.975]))


def _around(value: float, interval: np.ndarray) -> Estimate:
    low, high = interval
    return Estimate(value, min(value, float(low)), max(value, float(high)))


# ---------------------------------------------------------------- extrapolation


MIN_POINTS = 6
"""Fewer hardly vary when they are resampled, and the interval would be much too narrow."""
MIN_RESAMPLED = 4
FLATTEST, STEEPEST, NUM_TRIED = 1e-3, 3.0, 200  # of the exponent c


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Hold what it would take to reach a target, by the curve error(n) = a + b n^-c."""

    target: float
    """Accuracy in per cent."""
    curve: tuple[float, float, float]
    """a, b and c."""
    needed: Estimate
    """n at which the curve meets the target; infinite where it never does."""
    ceiling: Estimate
    """The accuracy that the curve tends to, 100 - a."""

    def text(self, unit: str) -> str:
        """Say it in a sentence; ``unit`` is what n counts."""
        value, low, high = (_number(x) for x in self.needed)
        ceiling = "its ceiling is {:.1f} % [{:.1f}, {:.1f}]".format(*self.ceiling)
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

    Raises
    ------
    UserError
        If there are too few points, or a number is out of range.

    Notes
    -----
    A resample draws points, and of each point as many draws of labels, with replacement; those of
    fewer than four different points are drawn again. A fit far outside the measured range is a
    guess: say so where it is shown.
    """
    n, draws = np.asarray(n, float), [np.asarray(point, float) for point in accuracies]
    if len(draws) != len(n) or len(np.unique(n)) < MIN_POINTS or n.min() <= 0:
        raise UserError(
            f"a curve needs at least {MIN_POINTS} different points above 0, but got {n.tolist()}"
        )
    all_draws = np.concatenate(draws)
    if min(map(len, draws)) < 1 or not 0 <= all_draws.min() <= all_draws.max() <= 100:
        raise UserError("each point needs at least one accuracy, in per cent")
    if not 0 < target < 100:
        raise UserError(f"the target must lie between 0 and 100 %, but it is {target}")
    curve = _fit(n, np.array([100 - point.mean() for point in draws]))
    rng, found = np.random.default_rng(seed), []
    while len(found) < num_resamples:
        rows = rng.integers(0, len(n), len(n))
        if len(np.unique(n[rows])) >= MIN_RESAMPLED:
            errors = [100 - rng.choice(draws[row], len(draws[row])).mean() for row in rows]
            found.append(_fit(n[rows], np.array(errors)))

    def interval(value: float, values: list[float]) -> Estimate:
        # "nearest", because infinities cannot be averaged
        return _around(value, np.quantile(values, [0.025, 0.975], method="nearest"))

    return Reach(
        target=target,
        curve=curve,
        needed=interval(_meets(curve, target), [_meets(each, target) for each in found]),
        ceiling=interval(100 - curve[0], [100 - a for a, _, _ in found]),
    )


def outlook(
    n: Sequence[float], accuracies: Sequence[Sequence[float]], target: float, unit: str
) -> str:
    """Return `predict`'s answer as a sentence, also where too few points are measured to ask."""
    if len(set(n)) < MIN_POINTS:
        return f"{target:g} %: not known, as fewer than {MIN_POINTS} points are measured"
    return predict(n, accuracies, target).text(unit)


def _fit(n: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Return the a, b and c, none below 0, that leave the least squares."""
    scale = n.max()  # so that b is an error as a is
    lowest, highest = FLATTEST, STEEPEST
    for _ in range(2):  # for a given c, a and b are a line's: only c is searched, then finer
        c_t = np.geomspace(lowest, highest, NUM_TRIED)
        x_tp = (n / scale) ** -c_t[:, None]
        x_t1 = x_tp.mean(1, keepdims=True)
        b_t = ((x_tp - x_t1) @ errors) / ((x_tp - x_t1) ** 2).sum(1)
        through_zero_t = x_tp @ errors / (x_tp**2).sum(1)  # where a would be below 0
        b_t = np.where(b_t * x_t1[:, 0] > errors.mean(), through_zero_t, b_t.clip(0))
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
