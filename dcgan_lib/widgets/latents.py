"""Latent vectors from a 32-bit seed, the same in Python and in the page, and the vectors made of them.

Axes: n rows, d latent. ``z_d`` one latent vector, float32. The JavaScript twin is in ``explorer.js``, "Numbers".
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.walk import points_on

MAX_SEED32 = 2**32 - 1


def uniforms(seed: int, num: int) -> np.ndarray:
    """Return numbers in [0, 1) from the generator mulberry32.

    Parameters
    ----------
    seed : int
        0 to 2**32 - 1.
    num : int
        How many.

    Returns
    -------
    ndarray
        float64, shape (num,).

    Raises
    ------
    UserError
        If the seed does not fit in 32 bits.
    """
    if not (isinstance(seed, int | np.integer) and 0 <= seed <= MAX_SEED32):
        raise UserError(
            f"an explorer's seed must be a whole number from 0 to {MAX_SEED32}, but it is {seed!r}"
        )
    mask, shift = np.uint64(0xFFFFFFFF), [np.uint64(bits) for bits in (15, 7, 14)]
    state = (
        np.uint64(seed) + np.uint64(0x6D2B79F5) * np.arange(1, num + 1, dtype=np.uint64)
    ) & mask
    t = ((state ^ (state >> shift[0])) * (state | np.uint64(1))) & mask
    t = t ^ ((t + (((t ^ (t >> shift[1])) * (t | np.uint64(61))) & mask)) & mask)
    return (t ^ (t >> shift[2])).astype(np.float64) / 2**32


def normals(seed: int, num: int) -> np.ndarray:
    """Return standard normal numbers, two from each pair of uniform ones (Box and Muller); float64, shape (num,)."""
    first, second = uniforms(seed, num + num % 2).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()[:num]


def seed_latent(seed: int, config: ModelConfig) -> np.ndarray:
    """Return the latent vector that the explorer shows for a seed.

    Parameters
    ----------
    seed : int
        0 to 2**32 - 1.
    config : ModelConfig
        Gives the vector's length and distribution.

    Returns
    -------
    ndarray
        float32, shape (z_dim,).
    """
    if config.z_distribution == "normal":
        return normals(seed, config.z_dim).astype(np.float32)
    return (2 * uniforms(seed, config.z_dim) - 1).astype(np.float32)


def random_directions(seed: int, z_dim: int) -> np.ndarray:
    """Return two random directions of length 1 at right angles, float64, shape (2, z_dim); zeros where none is left."""
    found: list[np.ndarray] = []
    for row in normals((seed ^ 0x9E3779B9) & MAX_SEED32, 2 * z_dim).reshape(2, z_dim):
        for other in found:
            row = row - (row @ other) * other
        length = np.sqrt(row @ row)
        found.append(row / length if length > 1e-9 else np.zeros(z_dim))
    return np.stack(found)


def reach(config: ModelConfig) -> float:
    """Return how far a pad or slider goes at 1: 0.6 of a latent vector's usual length (our choice, by eye)."""
    return 0.6 * float(np.sqrt(config.z_dim * (1 if config.z_distribution == "normal" else 1 / 3)))


def combine(z_dim: int, pairs: Iterable[tuple[float, Sequence[float] | np.ndarray]]) -> np.ndarray:
    """Return the sum of weight x vector over the pairs, added in float64, as float32."""
    total = np.zeros(z_dim)
    for weight, vector in pairs:
        total += weight * np.asarray(vector, dtype=np.float64)
    return total.astype(np.float32)


def walk(seeds: Sequence[int], t: float, curve: str, config: ModelConfig) -> np.ndarray:
    """Return the latent vector at position t of a walk; whole positions are the anchors."""
    anchors = [seed_latent(seed, config) for seed in seeds]
    if len(anchors) == 1:
        return anchors[0]
    place_n = torch.tensor([t], dtype=torch.float64).clamp(0, len(anchors) - 1)
    return points_on(torch.from_numpy(np.stack(anchors)), place_n, curve)[0].numpy()


def arithmetic(groups: Sequence[Sequence[int]], config: ModelConfig) -> np.ndarray:
    """Return mean(A) - mean(B) + mean(C) over the seeds of three groups; an empty group counts as zero."""
    signs, pairs = (1, -1, 1), []
    for sign, group in zip(signs, groups, strict=True):
        mean = combine(
            config.z_dim, [(1 / len(group), seed_latent(seed, config)) for seed in group]
        )
        pairs.append((sign, mean))
    return combine(config.z_dim, pairs)
