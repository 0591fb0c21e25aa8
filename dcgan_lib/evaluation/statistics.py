"""Intervals for the numbers we report: shares, means, and anything a resample can recompute.

Every interval is at 95 % unless said otherwise.
"""

from collections.abc import Callable
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
        raise UserError(f"confidence must lie between 0 and 1, but it is {confidence!r}: use 0.95 for 95 %")


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
    return Estimate(share, float(max(0.0, min(share, centre - half))), float(min(1.0, max(share, centre + half))))


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
        raise UserError(f"a mean's interval needs at least 2 finite values, but got {len(values)}: add repeats")
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
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
        raise UserError(f"a bootstrap needs arrays of one length, at least 2, but got lengths {sorted(lengths)}")
    n, rng = lengths.pop(), np.random.default_rng(seed)
    value = float(statistic(*arrays))
    draws = []
    for _ in range(num_resamples):
        rows = rng.integers(0, n, n)
        draws.append(float(statistic(*(array[rows] for array in arrays))))
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)))
