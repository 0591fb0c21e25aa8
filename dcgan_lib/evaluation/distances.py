"""Distances between real and generated images: KID and FID on a named feature extractor.

Both are torchmetrics' own; we add the interval, the guard against too few samples, and a record
that says what was measured. Axes: n images, d features; ``*_u8`` images n x c x h x w, 0..255.
"""

import warnings
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

BELOW_ZERO = (
    "KID estimates a squared distance without bias, so near 0 it and its interval may fall below; "
    "FID is a distance, which cannot"
)


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Hold a distance, its 95 % interval, and the protocol it was measured under.

    Numbers compare only when ``metric``, ``features`` and the sample sizes agree.
    """

    metric: str
    value: float
    low: float
    high: float
    n_real: int
    n_fake: int
    features: str

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
    subset_size: int | None = None,
    seed: int = 0,
) -> Distance:
    """Measure the kernel distance (KID): unbiased, so it compares fairly at a few thousand images.

    Parameters
    ----------
    subsets : int, default 100
        Random subsets that the value is a mean over.
    subset_size : int, optional
        Images of either kind in a subset, at most half of the smaller side; by default that, or
        500.
    seed : int, default 0
        Of the subsets.

    Returns
    -------
    Distance
        ``value`` is near 0 for two halves of one set. An unbiased estimate of a squared distance,
        it scatters about the truth, so near 0 the value and the interval may fall below 0. The
        interval is 1.96 * std * sqrt(m / (n - m)), for subsets of m from the n images of the
        smaller side. They are drawn without replacement, so they share images and differ by less
        than samples of m would: 1 / sqrt(subsets) promises too much, and so does sqrt(m / n).

    Raises
    ------
    UserError
        If either side has fewer than twice as many images as a subset.
    """
    _subset_size(len(real_u8), len(fake_u8), subsets, subset_size)
    return kid_of_features(
        features.extract(real_u8),
        features.extract(fake_u8),
        features.name,
        subsets=subsets,
        subset_size=subset_size,
        seed=seed,
    )


def kid_of_features(
    real_nf: np.ndarray,
    fake_nf: np.ndarray,
    name: str,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
) -> Distance:
    """Measure `kid` between features, n x f, that were computed before, and are called ``name``."""
    subset_size = _subset_size(len(real_nf), len(fake_nf), subsets, subset_size)
    with warnings.catch_warnings():  # it keeps all features: a few MB here, and meant to be
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
        metric = KernelInceptionDistance(
            feature=nn.Identity(), subsets=subsets, subset_size=subset_size
        )
    metric.update(torch.from_numpy(real_nf).double(), real=True)
    metric.update(torch.from_numpy(fake_nf).double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value, std = (float(x) for x in metric.compute())
    num = min(len(real_nf), len(fake_nf))
    half = float(1.96 * std * np.sqrt(subset_size / (num - subset_size)))
    return Distance(
        metric=f"KID ({subsets} subsets of {subset_size})",
        value=value,
        low=value - half,
        high=value + half,
        n_real=len(real_nf),
        n_fake=len(fake_nf),
        features=name,
    )


def _subset_size(num_real: int, num_fake: int, subsets: int, asked: int | None) -> int:
    most = min(num_real, num_fake) // 2
    size = min(500, most) if asked is None else asked
    if subsets < 2 or not 2 <= size <= most:
        raise UserError(
            f"KID on {subsets} subsets of {size} needs 2 subsets or more, of 2 images or more, and "
            f"at least twice as many images on either side as a subset has, but got {num_real} "
            f"real and {num_fake} fake: add images or take smaller subsets"
        )
    return size


def fid(real_u8: np.ndarray, fake_u8: np.ndarray, features: FeatureExtractor) -> Distance:
    """Measure the Frechet distance (FID) between Gaussians fitted to the features.

    It is biased upwards by an amount that shrinks with n: compare only at equal n.

    Returns
    -------
    Distance
        The interval comes from a jackknife that leaves out a tenth of both sides at a time, and
        ends at 0: a distance cannot be negative.

    Raises
    ------
    UserError
        If nine tenths of either side are not more images than there are features, because a
        covariance cannot be fitted then.
    """
    _check_enough_for_fid(len(real_u8), len(fake_u8), features.num_features)
    return fid_of_features(features.extract(real_u8), features.extract(fake_u8), features.name)


def fid_of_features(real_nf: np.ndarray, fake_nf: np.ndarray, name: str) -> Distance:
    """Measure `fid` between features, n x f, that were computed before, and are called ``name``."""
    _check_enough_for_fid(len(real_nf), len(fake_nf), real_nf.shape[1])
    real_nd, fake_nd = (torch.from_numpy(side).double() for side in (real_nf, fake_nf))
    value, without = _frechet(real_nd, fake_nd), []
    rng = np.random.default_rng(0)  # classes may stand in turn, and a tenth must not be one of them
    groups = [
        torch.from_numpy(rng.permutation(len(side)) % _NUM_GROUPS) for side in (real_nd, fake_nd)
    ]
    for group in range(_NUM_GROUPS):
        sides = zip((real_nd, fake_nd), groups, strict=True)
        without.append(_frechet(*(side[of_side != group] for side, of_side in sides)))
    std = np.sqrt((_NUM_GROUPS - 1) * np.var(without))
    half = float(stats.t.ppf(0.975, _NUM_GROUPS - 1) * std)
    return Distance(
        metric="FID",
        value=value,
        low=max(0.0, value - half),
        high=value + half,
        n_real=len(real_nf),
        n_fake=len(fake_nf),
        features=name,
    )


def _check_enough_for_fid(num_real: int, num_fake: int, num_features: int) -> None:
    least = int(num_features * _NUM_GROUPS / (_NUM_GROUPS - 1)) + 2
    if min(num_real, num_fake) < least:
        raise UserError(
            f"FID on {num_features} features needs at least {least} images on either "
            f"side, but got {num_real} real and {num_fake} fake: add images, or use KID"
        )


def _frechet(real_nd: Tensor, fake_nd: Tensor) -> float:
    identity = nn.Identity()
    identity.num_features = real_nd.shape[1]
    metric = FrechetInceptionDistance(feature=identity)
    metric.update(real_nd, real=True)
    metric.update(fake_nd, real=False)
    return max(0.0, float(metric.compute()))  # rounding may fall a little below
