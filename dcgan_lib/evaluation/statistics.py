"""Intervals, all at 95 %, of shares, means and resampled statistics; the area under a ROC curve."""

from collections.abc import Callable, Sequence
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

    def text(self, digits: str) -> str:
        """Write the number and its interval in brackets; ``digits`` is a format such as ".1%"."""
        return f"{self.value:{digits}} [{self.low:{digits}}, {self.high:{digits}}]"

    @classmethod
    def around(cls, value: float, interval: Sequence[float]) -> "Estimate":
        """Return a value with its interval, widened where the value lies outside."""
        low, high = interval
        return cls(value, min(value, float(low)), max(value, float(high)))


def wilson_interval(successes: float, n: float) -> Estimate:
    """Estimate a share in [0, 1] from counts, by Wilson's score interval.

    It keeps its coverage for shares near 0 and 1, where the usual plus-or-minus does not. SciPy's
    refuses fractional counts; here a tie may count one half, and ``n`` may be the number of
    independent trials where trials depend on each other.
    """
    if n < 1 or not 0 <= successes <= n * (1 + 1e-9):
        raise UserError(f"a share needs 0 <= successes <= n and n >= 1, but got {successes} of {n}")
    z = stats.norm.ppf(0.975)
    share = min(1.0, successes / n)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = min(share, centre - half), max(share, centre + half)
    return Estimate(share, float(max(0.0, low)), float(min(1.0, high)))


def poisson_interval(count: int) -> Estimate:
    """Estimate the expected number of independent events from one count, by the exact interval."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return Estimate(count, float(low), float(stats.chi2.ppf(0.975, 2 * count + 2) / 2))


def ratio_interval(share: Estimate, reference: Estimate) -> Estimate:
    """Estimate the ratio of two independent shares from their own intervals.

    The limits are recovered from those of the shares, as Donner and Zou (2012, "Closed-form
    confidence intervals for functions of the normal mean and standard deviation") do it. Unlike the
    logarithm's, they exist for a share of 0 or 1.
    """
    (p, p_low, p_high), (q, q_low, q_high) = share, reference
    if not q_low > 0:
        raise UserError(f"a ratio needs a reference whose interval lies above 0, but got {q_low:g}")
    low_root = (p * q) ** 2 - p_low * q_high * (2 * p - p_low) * (2 * q - q_high)
    high_root = (p * q) ** 2 - p_high * q_low * (2 * p - p_high) * (2 * q - q_low)
    low = (p * q - np.sqrt(max(low_root, 0))) / (q_high * (2 * q - q_high))
    high = (p * q + np.sqrt(max(high_root, 0))) / (q_low * (2 * q - q_low))
    return Estimate.around(p / q, (max(low, 0.0), high))


def mean_interval(values: np.ndarray) -> Estimate:
    """Estimate a mean from at least 2 independent repeats, such as seeds, by Student's t."""
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

    The ``samples`` have one length and are resampled together by row, so that pairs stay pairs.
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
    return Estimate.around(float(statistic(*arrays)), np.quantile(draws, [0.025, 0.975]))


def presence_auc(responses_nf: np.ndarray, is_there_n: np.ndarray) -> np.ndarray:
    """Return how well each feature's strongest response tells an object's presence, shape (f,).

    The area under the ROC curve: the chance that an image with the object has the larger response;
    ties count half. Images of both kinds are needed.
    """
    num, missing = int(is_there_n.sum()), int((~is_there_n).sum())
    if not num or not missing:
        raise UserError(
            "an object's presence can be told only if some images have it and some have not"
        )
    ranks = stats.rankdata(responses_nf, axis=0)
    return (ranks[is_there_n].sum(0) - num * (num + 1) / 2) / (num * missing)


def auc_of_one(responses_n: np.ndarray, is_there_n: np.ndarray) -> float:
    """Return `presence_auc` of one feature; 0.5 where all images, or none, have the object."""
    if is_there_n.all() or not is_there_n.any():
        return 0.5
    return float(presence_auc(responses_n, is_there_n))
