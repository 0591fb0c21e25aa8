"""Exact nearest neighbours, and the memorisation check that is built on them.

Axes: q queries, r references, d numbers per row; ``images_u8`` n x c x h x w, 0..255. Distances are
Euclidean: in pixels of 0..255, or in named features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval

FEWEST_IMAGES = 100
FEWEST_PICTURES = 20
MOST_UNSEEN = 2_000
PARTS_OF_UNSEEN = 20
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
    """Hold how close pictures lie to images that a generator saw, beside images that it did not."""

    closer_to_train: Estimate
    """Share of pictures whose nearest image is a training image and not a held-out one; a tie
    counts one half. Pictures that share their nearest image are not independent, and the interval
    allows for it."""
    expected: float
    """What ``closer_to_train`` comes to when nothing is memorised: the training images' share of
    all images, since then any image is as likely to be the nearest as any other."""
    copies: Estimate
    """Share of pictures that lie so much nearer to a training image than to a held-out one as 1 %
    of held-out images do, which are compared with the other held-out ones; so about 0.01, or less,
    when nothing is memorised. Blurred pictures lie near to everything, and do not raise it. Its
    interval takes the threshold as exact, which few held-out images do not make it; and where 1 %
    of them repeat training images, the threshold is so low that it finds nothing: ask about changed
    copies too."""
    n: int
    """Pictures."""
    n_train: int
    n_held_out: int
    space: str
    """"pixels", or the name of the features."""

    @property
    def memorised(self) -> Estimate:
        """Return the share of copies that would raise ``closer_to_train`` above what is expected.

        Copies come to 1 and unseen images to 0, give or take what chance adds: an estimate may lie
        below 0. The fewer images are held out, the wider is the interval.
        """
        shares = ((share - self.expected) / (1 - self.expected) for share in self.closer_to_train)
        return Estimate(*shares)

    @property
    def is_flagged(self) -> bool:
        """Tell whether the pictures lie closer to the training images than chance allows."""
        return self.closer_to_train.low > self.expected


def memorisation(
    generated_u8: np.ndarray,
    train_u8: np.ndarray,
    held_out_u8: np.ndarray,
    *,
    features: FeatureExtractor | None = None,
    mirrored: bool = False,
) -> Memorisation:
    """Ask once what `MemorisationTest` asks of any number of sets of pictures."""
    return MemorisationTest(train_u8, held_out_u8, features=features, mirrored=mirrored)(
        generated_u8
    )


class MemorisationTest:
    """Ask whether pictures repeat training images.

    All images are uint8, n x c x h x w, of one size: at least 100 on either side, and 20 pictures.
    The held-out images must come from the same source and must not have been trained on.

    Parameters
    ----------
    train_u8, held_out_u8 : ndarray
        Images of either kind; as many as there are, because a copy of an image that is left out
        goes unnoticed. Or features of theirs, n x f, if those of the pictures are asked about.
    features : FeatureExtractor, optional
        Where distances are measured; by default in pixels, which small shifts fool (paper, section
        6). Features that were themselves learnt from the training images may tell the two kinds
        apart.
    mirrored : bool, default False
        Let each image stand for its mirror image too, whichever is nearer: for a generator that was
        shown both.
    """

    def __init__(
        self,
        train_u8: np.ndarray,
        held_out_u8: np.ndarray,
        *,
        features: FeatureExtractor | None = None,
        mirrored: bool = False,
    ) -> None:
        if min(len(train_u8), len(held_out_u8)) < FEWEST_IMAGES:
            raise UserError(
                f"the memorisation check needs {FEWEST_IMAGES} images on either side, but got "
                f"{len(train_u8)} training and {len(held_out_u8)} held-out images"
            )
        self._features = features
        in_pixels = "pixels" if train_u8.dtype == np.uint8 else "features"
        self._space = in_pixels if features is None else features.name
        self._train = self._views(train_u8, mirrored)
        self._held_out = self._views(held_out_u8, mirrored)
        self._threshold = np.quantile(self._ratios_of_unseen(), 0.01)

    def __call__(self, pictures: np.ndarray) -> Memorisation:
        """Compare pictures, or features of theirs, with all images of both kinds."""
        if len(pictures) < FEWEST_PICTURES:
            raise UserError(
                f"the memorisation check needs {FEWEST_PICTURES} samples, but got {len(pictures)}"
            )
        pictures = self._embed(pictures)
        to_train, train_rows = _nearest_image(pictures, self._train)
        to_held, held_rows = _nearest_image(pictures, self._held_out)
        num_train, num_held = len(self._train[0]), len(self._held_out[0])
        nearest_rows = np.where(to_train <= to_held, train_rows, num_train + held_rows)
        copies = int((_ratio(to_train, to_held) < self._threshold).sum())
        return Memorisation(
            closer_to_train=_share_closer(to_train, to_held, nearest_rows),
            expected=num_train / (num_train + num_held),
            copies=wilson_interval(copies, len(pictures)),
            n=len(pictures),
            n_train=num_train,
            n_held_out=num_held,
            space=self._space,
        )

    def _embed(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images, or what is given where it is features, or none are."""
        if self._features is None or images.dtype != np.uint8:
            return images
        return self._features.extract(images)

    def _views(self, images_u8: np.ndarray, mirrored: bool) -> list[np.ndarray]:
        views = [images_u8]
        if mirrored:
            require(images_u8.ndim == 4, "mirrored", mirrored, "False for features")
            views.append(np.ascontiguousarray(images_u8[..., ::-1]))
        return [self._embed(view) for view in views]

    def _ratios_of_unseen(self) -> np.ndarray:
        """Return the ratio of held-out images, each compared with the other held-out ones.

        They are taken out in parts, because the nearest image to any of them would be itself; so
        each is compared with nearly as many as a picture is.
        """
        num = len(self._held_out[0])
        asked = np.random.default_rng(0).permutation(num)[:MOST_UNSEEN]
        unseen = self._held_out[0][asked]
        to_train, _ = _nearest_image(unseen, self._train)
        to_held = np.empty(len(asked))
        for places in np.array_split(np.arange(len(asked)), PARTS_OF_UNSEEN):
            others = [np.delete(view, asked[places], axis=0) for view in self._held_out]
            to_held[places], _ = _nearest_image(unseen[places], others)
        return _ratio(to_train, to_held)


def _ratio(to_train: np.ndarray, to_held: np.ndarray) -> np.ndarray:
    """Return distance by distance, 1 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(to_train == to_held, 1.0, to_train / to_held)


def _share_closer(to_train: np.ndarray, to_held: np.ndarray, nearest_rows: np.ndarray) -> Estimate:
    """Estimate the share whose nearest image is a training image.

    If training and held-out images were dealt at random, the share's variance would be that of n^2
    / sum(h^2) independent pictures, where h counts the pictures that share a nearest image.
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
