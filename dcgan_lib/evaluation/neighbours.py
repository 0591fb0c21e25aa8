"""Exact nearest neighbours, and the memorisation check that is built on them.

Axes: q queries, r references, d numbers per row; ``images_u8`` n x c x h x w, 0..255. Distances are
Euclidean: in pixels of 0..255, or in named features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval

_EXACT_COLUMNS = 1_024
"""Products of pixels less 128 are 2^14 at most; so many sum to 2^24, exact in float32."""


class NearestSearch:
    """Find each query's nearest reference while references arrive in any number of portions.

    Between pixels (uint8) the answer is exact, and earlier references win ties; between other
    values, it is exact to the rounding of float64. A copy has distance 0. ``chunk_size`` queries
    and references are compared at a time; it bounds the memory and does not change the answer.

    Before the first reference, ``distances`` (float64, shape (q,)) are infinite and ``indices``
    (int64, shape (q,), counted from the first portion on) are -1.
    """

    def __init__(self, queries: np.ndarray, *, chunk_size: int = 1024) -> None:
        self._queries_qd, self._chunk_size = _rows(queries), chunk_size
        self._squares_q = self._queries_qd.double().square().sum(1)
        self.distances = np.full(len(queries), np.inf)
        self.indices = np.full(len(queries), -1, dtype=np.int64)
        self.num_references = 0

    def add(self, references: np.ndarray) -> None:
        """Compare all queries with more references, of the same size and type."""
        for start in range(0, len(references), self._chunk_size):
            part_rd = _rows(references[start : start + self._chunk_size])
            sizes = self._queries_qd.shape[1], part_rd.shape[1]
            if sizes[0] != sizes[1] or self._queries_qd.dtype != part_rd.dtype:
                raise UserError(
                    f"queries and references differ in size, {sizes[0]} and {sizes[1]} numbers a "
                    "row, or only one of them is uint8"
                )
            squares_r = part_rd.double().square().sum(1)
            for first in range(0, len(self._queries_qd), self._chunk_size):
                self._compare(slice(first, first + self._chunk_size), part_rd, squares_r)
            self.num_references += len(part_rd)

    def _compare(self, rows: slice, part_rd: Tensor, squares_r: Tensor) -> None:
        # |q - r|^2 = |q|^2 - 2 (q.r - |r|^2 / 2): the larger the bracket, the nearer.
        queries_qd, distances, indices = (
            each[rows] for each in (self._queries_qd, self.distances, self.indices)
        )
        blocks = zip(
            queries_qd.split(_EXACT_COLUMNS, 1), part_rd.split(_EXACT_COLUMNS, 1), strict=True
        )
        nearness_qr = sum(((q @ r.T).double() for q, r in blocks), start=-squares_r / 2)
        most_q, columns_q = nearness_qr.max(1)
        squares_q = self._squares_q[rows] - 2 * most_q
        near = (squares_q < torch.from_numpy(distances).square()).nonzero()[:, 0]
        columns = columns_q[near]
        exact = (queries_qd[near].double() - part_rd[columns].double()).square().sum(1).sqrt()
        closer = (exact < torch.from_numpy(distances)[near]).numpy()
        distances[near[closer]] = exact[closer]
        indices[near[closer]] = columns[closer] + self.num_references


def nearest(
    queries: np.ndarray, references: np.ndarray, *, chunk_size: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Return each query's distance to its nearest reference, and that row; see `NearestSearch`."""
    if len(references) == 0:
        raise UserError("a nearest neighbour needs at least one reference, but there is none")
    return _nearest_image(queries, [references], chunk_size)


def _nearest_image(
    queries: np.ndarray, views: list[np.ndarray], chunk_size: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to the nearest image in any view, and which image it is."""
    search = NearestSearch(queries, chunk_size=chunk_size)
    for view in views:
        search.add(view)
    return search.distances, search.indices % len(views[0])


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Hold how close samples lie to images that the generator saw, against as many unseen ones."""

    closer_to_train: Estimate
    """Share of samples whose nearest training image is nearer than the nearest held-out one; a tie
    counts one half. 0.5 when nothing is memorised. Copies of all training images, equally often,
    give about (1 + n_references / n_train) / 2, so it is near 1 for them only where most of the
    training set is compared; ``copies`` sees them always. Samples that share their nearest image
    are not independent, and the interval allows for it."""
    copies: Estimate
    """Share of samples nearer to some image of the whole training set than 99 % of held-out images
    are; near 0.01, or below, when nothing is memorised. Blurred samples raise it too."""
    n: int
    """Samples."""
    n_references: int
    """Images on each side of ``closer_to_train``."""
    n_train: int
    space: str
    """"pixels", or the name of the features."""

    @property
    def of_copies(self) -> float:
        """Return what ``closer_to_train`` comes to where every sample is a copy, of any image.

        Where it is near 0.5, as for a training set ten times as large as the held-out one, that
        share cannot tell copies from none.
        """
        return (1 + self.n_references / self.n_train) / 2

    @property
    def is_flagged(self) -> bool:
        """Tell whether the samples lie closer to the training images than chance allows."""
        return self.closer_to_train.low > 0.5


def memorisation(
    generated_u8: np.ndarray,
    train_u8: np.ndarray,
    held_out_u8: np.ndarray,
    *,
    features: FeatureExtractor | None = None,
    mirrored: bool = False,
    seed: int = 0,
) -> Memorisation:
    """Ask whether samples repeat the training images.

    All images are uint8, n x c x h x w, of one size: at least 20 samples, and 100 images on either
    side. The held-out images must come from the same source and must not have been trained on. From
    the larger of the two sets, as many as the smaller has are drawn.

    Distance is measured in pixels, which small shifts fool (paper, section 6), or in features; such
    as were themselves learnt from the training images may tell the two sets apart. ``mirrored``
    lets each image stand for its mirror image too, whichever is nearer: for a generator that was
    shown both.
    """
    if len(generated_u8) < 20 or min(len(train_u8), len(held_out_u8)) < 100:
        raise UserError(
            "the memorisation check needs 20 samples and 100 images on either side, but got "
            f"{len(generated_u8)} samples, {len(train_u8)} training and {len(held_out_u8)} "
            "held-out images"
        )

    def embed(images_u8: np.ndarray) -> np.ndarray:
        return images_u8 if features is None else features.extract(images_u8)

    def views(images_u8: np.ndarray) -> list[np.ndarray]:
        plain = embed(images_u8)
        return [plain, embed(np.ascontiguousarray(images_u8[..., ::-1]))] if mirrored else [plain]

    generated, train, held_out = embed(generated_u8), views(train_u8), views(held_out_u8)
    num, rng, sides = min(len(train_u8), len(held_out_u8)), np.random.default_rng(seed), []
    for side in (train, held_out):
        rows = np.sort(rng.choice(len(side[0]), num, replace=False))
        sides.append(_nearest_image(generated, [view[rows] for view in side]))
    (to_train, train_rows), (to_held, held_rows) = sides
    threshold = np.quantile(_nearest_image(held_out[0], train)[0], 0.01)
    copies = int((_nearest_image(generated, train)[0] < threshold).sum())
    nearest_rows = np.where(to_train <= to_held, train_rows, num + held_rows)
    return Memorisation(
        closer_to_train=_share_closer(to_train, to_held, nearest_rows),
        copies=wilson_interval(copies, len(generated)),
        n=len(generated),
        n_references=num,
        n_train=len(train_u8),
        space="pixels" if features is None else features.name,
    )


def _share_closer(to_train: np.ndarray, to_held: np.ndarray, nearest_rows: np.ndarray) -> Estimate:
    """Estimate the share whose nearest image is a training image.

    If training and held-out images were dealt at random, the share's variance would be that of n^2
    / sum(h^2) independent samples, where h counts the samples that share a nearest image.
    """
    share = float((to_train < to_held).mean() + 0.5 * (to_train == to_held).mean())
    num_independent = len(to_train) ** 2 / float(np.square(np.bincount(nearest_rows)).sum())
    return wilson_interval(share * num_independent, num_independent)


def _rows(values: np.ndarray) -> Tensor:
    """Return one row each: pixels less 128 in float32, all else in float64."""
    flat = np.asarray(values).reshape(len(values), -1)
    if flat.dtype == np.uint8:
        return torch.from_numpy(flat.astype(np.float32)) - 128
    return torch.from_numpy(flat.astype(np.float64))
