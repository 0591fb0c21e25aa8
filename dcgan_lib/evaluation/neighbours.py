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
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval

_SHORTLIST = 4


class NearestSearch:
    """Find each query's nearest reference while references arrive in any number of portions.

    A float32 matrix product shortlists four candidates per portion; their distances are then computed
    from differences in float64. So a copy has distance 0, however large its norm.

    Parameters
    ----------
    queries : ndarray
        q x anything, any real type.
    chunk_size : int, default 4096
        References compared at a time; it bounds the memory and does not change the answer.
    """

    def __init__(self, queries: np.ndarray, *, chunk_size: int = 4096) -> None:
        self._queries_qd = _rows(queries)
        self._chunk_size, self._num_seen = chunk_size, 0
        self.distances = np.full(len(queries), np.inf)
        self.indices = np.full(len(queries), -1, dtype=np.int64)

    def add(self, references: np.ndarray) -> None:
        """Compare all queries with more references, shape r x the same; earlier ones win ties.

        Raises
        ------
        UserError
            If the references have another number of values per row.
        """
        for start in range(0, len(references), self._chunk_size):
            part_rd = _rows(references[start : start + self._chunk_size])
            if part_rd.shape[1] != self._queries_qd.shape[1]:
                sizes = self._queries_qd.shape[1], part_rd.shape[1]
                raise UserError(f"queries and references differ in size, {sizes[0]} and {sizes[1]} numbers a row")
            self._compare(part_rd)
            self._num_seen += len(part_rd)

    def _compare(self, part_rd: Tensor) -> None:
        centre_d = part_rd.mean(0)  # small norms keep the shortlist sharp
        part_c = part_rd - centre_d
        half_norms_r = part_c.square().sum(1) / 2
        for start in range(0, len(self._queries_qd), self._chunk_size):
            rows = slice(start, start + self._chunk_size)
            queries = self._queries_qd[rows]
            closeness_qr = (queries - centre_d) @ part_c.T - half_norms_r
            candidates_qk = closeness_qr.topk(min(_SHORTLIST, len(part_rd)), 1).indices.sort(1).values
            exact_qk = torch.stack([_exact(queries, part_rd[column]) for column in candidates_qk.T], 1)
            best_q, column_q = exact_qk.min(1)
            index_q = candidates_qk.gather(1, column_q[:, None])[:, 0].numpy() + self._num_seen
            closer = best_q.numpy() < self.distances[rows]
            self.distances[rows] = np.where(closer, best_q.numpy(), self.distances[rows])
            self.indices[rows] = np.where(closer, index_q, self.indices[rows])


def nearest(queries: np.ndarray, references: np.ndarray, *, chunk_size: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Find each query's nearest reference.

    Parameters
    ----------
    queries, references : ndarray
        q x anything and r x the same, any real type; memory maps are read in portions.
    chunk_size : int, default 4096
        References compared at a time.

    Returns
    -------
    distances : ndarray
        float64, shape (q,).
    indices : ndarray
        int64, shape (q,): rows of ``references``.

    Raises
    ------
    UserError
        If there is no reference, or the rows differ in size.
    """
    if len(references) == 0:
        raise UserError("a nearest neighbour needs at least one reference, but there is none")
    search = NearestSearch(queries, chunk_size=chunk_size)
    search.add(references)
    return search.distances, search.indices


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Hold how close samples lie to what the generator saw, against equally many images it did not.

    Parameters
    ----------
    closer_to_train : Estimate
        Share of samples whose nearest training image is nearer than the nearest held-out one; a tie
        counts one half. 0.5 when nothing is memorised, 1 when everything is. Samples that share their
        nearest image are not independent, and the interval allows for it.
    distance_ratio : Estimate
        Median over samples of (distance to train) / (distance to held-out); 1 when nothing is memorised.
    copies : Estimate
        Share of samples nearer to some image of the whole training set than 99 % of held-out images
        are; near 0.01, or below, when nothing is memorised. Blurred samples raise it too.
    n : int
        Samples.
    n_references : int
        Images on each side of the first two numbers.
    n_train : int
        Images in the whole training set.
    space : str
        "pixels", or the name of the features.
    """

    closer_to_train: Estimate
    distance_ratio: Estimate
    copies: Estimate
    n: int
    n_references: int
    n_train: int
    space: str

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
    seed: int = 0,
) -> Memorisation:
    """Ask whether samples repeat the training images.

    Parameters
    ----------
    generated_u8, train_u8, held_out_u8 : ndarray
        uint8, n x c x h x w, of one size. The held-out images must come from the same source and must
        not have been trained on. From the larger of the two sets, as many as the smaller has are drawn.
    features : FeatureExtractor, optional
        Where to measure distance; by default in pixels, which small shifts fool (paper, section 6).
        Features that were themselves learnt from the training images may tell the two sets apart.
    seed : int, default 0
        Of the draw.

    Raises
    ------
    UserError
        If there are fewer than 20 samples or 100 images on either side.
    """
    if len(generated_u8) < 20 or min(len(train_u8), len(held_out_u8)) < 100:
        sizes = f"{len(generated_u8)} samples, {len(train_u8)} training and {len(held_out_u8)} held-out images"
        raise UserError(f"the memorisation check needs 20 samples and 100 images on either side, but got {sizes}")
    generated, train, held_out = (_embed(images, features) for images in (generated_u8, train_u8, held_out_u8))
    num, rng = min(len(train), len(held_out)), np.random.default_rng(seed)
    train_part, held_part = (side[np.sort(rng.choice(len(side), num, replace=False))] for side in (train, held_out))
    to_train, train_rows = nearest(generated, train_part)
    to_held, held_rows = nearest(generated, held_part)
    ratios = (to_train + 1e-9) / (to_held + 1e-9)
    threshold = np.quantile(nearest(held_out, train)[0], 0.01)
    copies = int((nearest(generated, train)[0] < threshold).sum())
    return Memorisation(
        closer_to_train=_share_closer(to_train, to_held, np.where(to_train <= to_held, train_rows, num + held_rows)),
        distance_ratio=bootstrap_interval(np.median, ratios, seed=seed),
        copies=wilson_interval(copies, len(generated)),
        n=len(generated),
        n_references=num,
        n_train=len(train),
        space="pixels" if features is None else features.name,
    )


def _share_closer(to_train: np.ndarray, to_held: np.ndarray, nearest_row: np.ndarray) -> Estimate:
    """Estimate the share whose nearest image is a training image.

    If training and held-out images were dealt at random, the share's variance would be that of
    n^2 / sum(h^2) independent samples, where h counts the samples that share a nearest image.
    """
    share = float((to_train < to_held).mean() + 0.5 * (to_train == to_held).mean())
    num_independent = len(to_train) ** 2 / float(np.square(np.bincount(nearest_row)).sum())
    return wilson_interval(share * num_independent, num_independent)


def _embed(images_u8: np.ndarray, features: FeatureExtractor | None) -> np.ndarray:
    return images_u8 if features is None else features.extract(images_u8)


def _rows(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values).reshape(len(values), -1).astype(np.float32))


def _exact(left_nd: Tensor, right_nd: Tensor) -> Tensor:
    return (left_nd - right_nd).double().square().sum(1).sqrt()
