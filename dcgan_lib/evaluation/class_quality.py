"""How well a conditional generator draws each class: named as asked, real-looking, as varied as the real images.

Axes: n images, f features; ``images_u8`` n x c x h x w, 0..255.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.details import load_details, save_details
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """Hold what was measured of one class.

    Parameters
    ----------
    label : int
        The class that was asked for.
    agreement : Estimate
        Share of its samples that a classifier names so.
    mistaken_for : int or None
        The class that the others are named most often; None when there are no others.
    precision : Estimate
        Share of samples that lie inside the real images' manifold: they look real.
    recall : Estimate
        Share of real images that lie inside the samples' manifold: the samples are as varied.
    n : int
        Samples, and as many real images.
    """

    label: int
    agreement: Estimate
    mistaken_for: int | None
    precision: Estimate
    recall: Estimate
    n: int


def precision_recall(real_nf: np.ndarray, fake_nf: np.ndarray, *, k: int = 3) -> tuple[Estimate, Estimate]:
    """Measure precision and recall of samples by the balls around each point.

    Parameters
    ----------
    real_nf, fake_nf : ndarray
        Features, n x f; equally many, because the balls shrink as n grows.
    k : int, default 3
        A point's ball reaches to its k-th nearest neighbour among its own kind.

    Returns
    -------
    precision, recall : Estimate
        Share of samples inside some real image's ball, and of real images inside some sample's ball.

    Raises
    ------
    UserError
        If the numbers differ, or there are no more than k.

    Notes
    -----
    Kynkaanniemi et al. (2019).
    """
    if len(real_nf) != len(fake_nf) or len(real_nf) <= k:
        raise UserError(
            f"precision and recall need equally many images, more than {k}, but got {len(real_nf)} and {len(fake_nf)}"
        )
    return _share_inside(fake_nf, real_nf, k), _share_inside(real_nf, fake_nf, k)


def _share_inside(points_nf: np.ndarray, centres_nf: np.ndarray, k: int) -> Estimate:
    search = NearestNeighbors(algorithm="brute").fit(centres_nf)
    radii_n = search.kneighbors(centres_nf, k + 1)[0][:, -1]  # the nearest is the point itself
    distances, rows = search.kneighbors(points_nf, len(centres_nf))
    return wilson_interval(int((distances <= radii_n[rows]).any(1).sum()), len(points_nf))


def class_quality(
    real_u8: np.ndarray,
    real_labels: np.ndarray,
    fake_u8: np.ndarray,
    asked: np.ndarray,
    named: np.ndarray,
    features: FeatureExtractor,
) -> tuple[ClassQuality, ...]:
    """Measure a conditional generator class by class.

    Parameters
    ----------
    real_u8, fake_u8 : ndarray
        Held-out images and samples, uint8, n x c x h x w.
    real_labels, asked, named : ndarray
        int64: classes of the real images, those asked of the generator, and those a classifier names.
    features : FeatureExtractor
        Where the manifolds are.

    Returns
    -------
    tuple of ClassQuality
        One a class, in order; n is what the rarer side has.
    """
    real_nf, fake_nf, rows = features.extract(real_u8), features.extract(fake_u8), []
    for label in np.unique(asked):
        real, mine = np.flatnonzero(real_labels == label), np.flatnonzero(asked == label)
        n = min(len(real), len(mine))
        precision, recall = precision_recall(real_nf[real[:n]], fake_nf[mine[:n]])
        others = np.bincount(named[mine][named[mine] != label])
        rows.append(
            ClassQuality(
                label=int(label), agreement=wilson_interval(int((named[mine] == label).sum()), len(mine)),
                mistaken_for=int(others.argmax()) if others.sum() else None, precision=precision, recall=recall, n=n,
            )
        )  # fmt: skip
    return tuple(rows)


def save_classes(name: str, rows: tuple[ClassQuality, ...], root: Path | None = None) -> None:
    """Keep the rows beside the ledger, as ``classes/NAME.json``."""
    save_details(f"classes/{name}", [asdict(row) for row in rows], root)


def load_classes(name: str, root: Path | None = None) -> tuple[ClassQuality, ...]:
    """Return what `save_classes` kept.

    Raises
    ------
    UserError
        If there is nothing of that name.
    """
    kept = load_details(f"classes/{name}", f"dcgan evaluate {name} --record {name}", root)
    estimates = ("agreement", "precision", "recall")
    return tuple(
        ClassQuality(**{key: Estimate(*value) if key in estimates else value for key, value in row.items()})
        for row in kept
    )
