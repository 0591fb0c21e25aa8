"""Distances between real and generated images: KID and FID on a named feature extractor.

Both are torchmetrics' own; we add the interval, the guard against too few samples, and a record that
says what was measured. Axes: n images, c channels, h x w pixels, d features.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.statistics import Estimate

_NUM_GROUPS = 10


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Hold a distance and the protocol it was measured under.

    ``std`` is the spread over KID's subsets, or FID's standard error; ``low`` and ``high`` bound the
    95 % interval. Numbers compare only when ``metric``, ``features`` and the sample sizes agree.
    """

    metric: str
    value: float
    std: float
    low: float
    high: float
    n_real: int
    n_fake: int
    features: str
    seed: int | None = None

    @property
    def estimate(self) -> Estimate:
        """Return value and interval, as the ledger takes them."""
        return Estimate(self.value, self.low, self.high)


def kid(
    real_u8: np.ndarray,
    fake_u8: np.ndarray,
    features: FeatureExtractor,
    *,
    subsets: int = 100,
    subset_size: int = 500,
    seed: int = 0,
) -> Distance:
    """Measure the kernel distance (KID): unbiased, so it compares fairly at a few thousand images.

    Parameters
    ----------
    real_u8, fake_u8 : ndarray
        uint8, n x c x h x w.
    features : FeatureExtractor
        From `get_features`.
    subsets : int, default 100
        Random subsets that the value is a mean over.
    subset_size : int, default 500
        Images of either kind in a subset.
    seed : int, default 0
        Of the subsets.

    Returns
    -------
    Distance
        ``value`` near 0 for two halves of one set (slightly negative is possible). The interval is
        1.96 * std / sqrt(k), where k = n / subset_size counts subsets that share no image: random
        subsets overlap, so 1 / sqrt(subsets) would promise too much.

    Raises
    ------
    UserError
        If either side has fewer than ``subset_size`` images.
    """
    smaller = min(len(real_u8), len(fake_u8))
    if subset_size < 2 or subsets < 2 or smaller < subset_size:
        raise UserError(
            f"KID needs at least {subset_size} images on either side (subset_size) and 2 subsets of 2 or more, "
            f"but got {len(real_u8)} real, {len(fake_u8)} fake, {subsets} subsets: add images or lower subset_size"
        )
    with _quiet_about_memory():
        metric = KernelInceptionDistance(
            feature=nn.Identity(), subsets=subsets, subset_size=subset_size
        )
    metric.update(torch.from_numpy(features.extract(real_u8)).double(), real=True)
    metric.update(torch.from_numpy(features.extract(fake_u8)).double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value, std = (float(x) for x in metric.compute())
    half = 1.96 * std / np.sqrt(smaller / subset_size)
    return Distance(
        metric=f"KID ({subsets} subsets of {subset_size})",
        value=value,
        std=std,
        low=float(value - half),
        high=float(value + half),
        n_real=len(real_u8),
        n_fake=len(fake_u8),
        features=features.name,
        seed=seed,
    )


def fid(real_u8: np.ndarray, fake_u8: np.ndarray, features: FeatureExtractor) -> Distance:
    """Measure the Frechet distance (FID) between Gaussians fitted to the features.

    It is biased upwards by an amount that shrinks with n: compare only at equal n.

    Parameters
    ----------
    real_u8, fake_u8 : ndarray
        uint8, n x c x h x w.
    features : FeatureExtractor
        From `get_features`.

    Returns
    -------
    Distance
        ``std`` and the interval come from a jackknife that leaves out a tenth of both sides at a time.

    Raises
    ------
    UserError
        If nine tenths of either side are not more images than there are features, because a
        covariance cannot be fitted then.
    """
    least = int(features.num_features * _NUM_GROUPS / (_NUM_GROUPS - 1)) + 2
    if min(len(real_u8), len(fake_u8)) < least:
        raise UserError(
            f"FID on {features.num_features} features needs at least {least} images on either side, "
            f"but got {len(real_u8)} real and {len(fake_u8)} fake: add images or use kid()"
        )
    real_nd, fake_nd = (
        torch.from_numpy(features.extract(side)).double() for side in (real_u8, fake_u8)
    )
    value = _frechet(real_nd, fake_nd)
    without = []
    for group in range(_NUM_GROUPS):
        real_part, fake_part = (
            side[torch.arange(len(side)) % _NUM_GROUPS != group] for side in (real_nd, fake_nd)
        )
        without.append(_frechet(real_part, fake_part))
    std = float(np.sqrt((_NUM_GROUPS - 1) * np.var(without)))
    half = float(stats.t.ppf(0.975, _NUM_GROUPS - 1)) * std
    return Distance(
        metric="FID",
        value=value,
        std=std,
        low=value - half,
        high=value + half,
        n_real=len(real_u8),
        n_fake=len(fake_u8),
        features=features.name,
    )


def _frechet(real_nd: Tensor, fake_nd: Tensor) -> float:
    identity = nn.Identity()
    identity.num_features = real_nd.shape[1]
    metric = FrechetInceptionDistance(feature=identity)
    metric.update(real_nd, real=True)
    metric.update(fake_nd, real=False)
    return float(metric.compute())


@contextmanager
def _quiet_about_memory() -> Iterator[None]:
    """Hide torchmetrics' note that KID keeps all features: they are a few MB here, and meant to be."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Metric `Kernel Inception Distance`", category=UserWarning
        )
        yield
