"""Latent vectors from a 32-bit seed, the same in Python and in the page, and sums of them.

Axes: n rows, d latent. ``z_d`` one latent vector, float32. The JavaScript twin is in
``explorer.js``, "Numbers".
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.walk import points_on

MAX_SEED32 = 2**32 - 1


def uniforms(seed: int, num: int) -> np.ndarray:
    """Return numbers in [0, 1), float64, from the generator mulberry32, whose seed has 32 bits."""
    if not (isinstance(seed, int | np.integer) and 0 <= seed <= MAX_SEED32):
        raise UserError(
            f"an explorer's seed must be a whole number from 0 to {MAX_SEED32}, but it is {seed!r}"
        )
    count = np.arange(1, num + 1, dtype=np.uint32)  # its arithmetic is modulo 2**32
    state = np.uint32(seed) + np.uint32(0x6D2B79F5) * count
    t = (state ^ (state >> 15)) * (state | 1)
    t ^= t + (t ^ (t >> 7)) * (t | 61)
    return (t ^ (t >> 14)) / 2**32


def normals(seed: int, num: int) -> np.ndarray:
    """Return ``num`` standard normal numbers, two from each pair of uniforms (Box and Muller)."""
    first, second = uniforms(seed, num + num % 2).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()[:num]


def seed_latent(seed: int, config: ModelConfig) -> np.ndarray:
    """Return the latent vector, float32, that the explorer shows for a seed of 32 bits."""
    if config.z_distribution == "normal":
        return normals(seed, config.z_dim).astype(np.float32)
    return (2 * uniforms(seed, config.z_dim) - 1).astype(np.float32)


def random_directions(seed: int, z_dim: int) -> np.ndarray:
    """Return two random directions of length 1 at right angles (zeros where none is left)."""
    found: list[np.ndarray] = []
    for row in normals((seed ^ 0x9E3779B9) & MAX_SEED32, 2 * z_dim).reshape(2, z_dim):
        for other in found:
            row = row - (row @ other) * other
        length = np.sqrt(row @ row)
        found.append(row / length if length > 1e-9 else np.zeros(z_dim))
    return np.stack(found)


def reach(config: ModelConfig) -> float:
    """Return how far a slider goes at 1: 0.6 of a latent vector's usual length (our choice)."""
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
    """Return mean(A) - mean(B) + mean(C) over groups of seeds; an empty one counts as zero."""
    pairs = []
    for sign, group in zip((1, -1, 1), groups, strict=True):
        members = [(1 / len(group), seed_latent(seed, config)) for seed in group]
        pairs.append((sign, combine(config.z_dim, members)))
    return combine(config.z_dim, pairs)
