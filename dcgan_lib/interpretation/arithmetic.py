"""Sums of concepts in latent space: the mean of exemplars of A, minus that of B, plus that of C (section 6.3.2).

Axes: n samples, d latent, t trials, k exemplars of a concept, 3 the concepts A, B and C; ``_u8`` pixels 0..255.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.utils import make_grid

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Probe
from dcgan_lib.evaluation.probe_panel import Panel
from dcgan_lib.interpretation.concepts import SUMS, Concept, Sum
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded

SIGNS = (1, -1, 1)
_PORTION = 2_000


@dataclass(frozen=True)
class Pool:
    """Hold samples to choose exemplars from.

    Parameters
    ----------
    z_nd : ndarray
        float32, their latent vectors.
    read : dict of str to ndarray
        What a probe reads off each picture.
    """

    z_nd: np.ndarray
    read: dict[str, np.ndarray]


def pictures_of(generator: AnyGenerator, z_nd: np.ndarray) -> np.ndarray:
    """Return the generator's pictures, uint8, of latent vectors given as an array."""
    return generate_u8(generator, torch.from_numpy(np.ascontiguousarray(z_nd, dtype=np.float32)))


def draw_pool(generator: AnyGenerator, probe: Probe | Panel, num: int, seed: int) -> Pool:
    """Draw samples and read their attributes; sample i is the same whenever ``num`` and ``seed`` are.

    Parameters
    ----------
    generator : AnyGenerator
        Unconditional, on any device.
    probe : Probe or Panel
        Reads pictures of the generator's size.
    num : int
        How many.
    seed : int
        Of the latent vectors.
    """
    z_nd = sample_latents(num, generator.config, seeded(seed)).numpy()
    parts = [probe.predict(pictures_of(generator, z_nd[i : i + _PORTION])) for i in range(0, num, _PORTION)]
    return Pool(z_nd, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def shows(read: Mapping[str, np.ndarray], concept: Concept, confidence: float = 0.5) -> np.ndarray:
    """Return which pictures show a concept: each attribute read as asked, with more than this confidence.

    Raises
    ------
    UserError
        If the probe does not read an attribute.
    """
    unknown = set(concept) - set(read)
    if unknown:
        raise UserError(f"the probe reads {', '.join(read)}, but no {', '.join(sorted(unknown))}: choose another probe")
    return np.all([(read[name] if has else 1 - read[name]) > confidence for name, has in concept.items()], 0)


def pick(
    pool: Pool, concepts: tuple[Concept, ...], num: int, trials: int, seed: int, *,
    confidence: float = 0.9, ahead: float | None = None,
) -> np.ndarray:  # fmt: skip
    """Choose exemplars of each concept by chance, anew for each trial.

    Parameters
    ----------
    pool : Pool
        Samples to choose from.
    concepts : tuple of Concept
        What the exemplars of each group must show.
    num, trials : int
        Exemplars a group, all different, and how often to choose.
    seed : int
        Of the choice.
    confidence : float, default 0.9
        How sure the probe must be of each attribute.
    ahead : float, optional
        Take only faces whose yaw, read by the probe, is at most this far from 0.

    Returns
    -------
    ndarray
        int64, shape (trials, groups, num): indices into the pool.

    Raises
    ------
    UserError
        If fewer than ``num`` samples show a concept.
    """
    facing = np.ones(len(pool.z_nd), bool) if ahead is None else np.abs(pool.read["yaw"]) <= ahead
    named = [", ".join(name if has else f"no {name}" for name, has in concept.items()) for concept in concepts]
    fits = [shows(pool.read, concept, confidence) & facing for concept in concepts]
    return choose([(f"show {name}", fit) for name, fit in zip(named, fits, strict=True)], num, trials, seed)


def choose(groups: Sequence[tuple[str, np.ndarray]], num: int, trials: int, seed: int) -> np.ndarray:
    """Choose ``num`` samples of each group by chance, anew for each trial: int64, shape (trials, groups, num).

    A group is what its samples do, such as "look left", and which they are: bool, shape (n,).

    Raises
    ------
    UserError
        If a group has fewer samples than that.
    """
    rng, chosen = np.random.default_rng(seed), []
    for what, fits in groups:
        found = np.flatnonzero(fits)
        if len(found) < num:
            raise UserError(f"{len(found)} of {len(fits)} samples {what}, but {num} are needed: draw more")
        chosen.append(np.stack([rng.choice(found, num, replace=False) for _ in range(trials)]))
    return np.stack(chosen, 1)


def add_up(z_t3kd: np.ndarray) -> np.ndarray:
    """Return mean(A) - mean(B) + mean(C).

    Parameters
    ----------
    z_t3kd : ndarray
        Exemplars, shape (..., 3, k, d): latent vectors, or flattened pictures.

    Returns
    -------
    ndarray
        Shape (..., d).

    Raises
    ------
    UserError
        If there are not three groups.
    """
    if z_t3kd.ndim < 3 or z_t3kd.shape[-3] != len(SIGNS):
        raise UserError(f"a sum takes three groups of exemplars, ... x 3 x k x d, but got shape {z_t3kd.shape}")
    return np.einsum("g,...gkd->...d", np.array(SIGNS) / z_t3kd.shape[-2], z_t3kd)


def exemplars(
    pool: Pool, name: str | Sum, trials: int, num: int = 3, seed: int = 0, ahead: float | None = 0.4
) -> np.ndarray:
    """Return latent vectors chosen by `pick` for a sum, or for one of `SUMS` by name, shape (trials, 3, num, d)."""
    asked = SUMS[name] if isinstance(name, str) else name
    return pool.z_nd[pick(pool, asked.concepts, num, trials, seed, ahead=ahead)]


def succeeds(generator: AnyGenerator, probe: Probe | Panel, y_td: np.ndarray, wanted: Concept) -> np.ndarray:
    """Return for each vector whether the probe sees all that is wanted in its picture; bool, shape (t,)."""
    return shows(probe.predict(pictures_of(generator, y_td)), wanted)


def way_of(pool: Pool, name: str, among: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Return the direction from samples without an attribute to those with it, of length 1.

    Parameters
    ----------
    pool : Pool
        Samples.
    name : str
        A yes-or-no attribute.
    among : ndarray
        bool, shape (n,): which samples count.
    confidence : float, default 0.9
        How sure the probe must be.

    Returns
    -------
    ndarray
        Shape (d,): the difference of the two means, scaled.

    Raises
    ------
    UserError
        If there are no samples of either kind.
    """
    with_it, without = (among & shows(pool.read, {name: has}, confidence) for has in (True, False))
    if not (with_it.any() and without.any()):
        raise UserError(f"{with_it.sum()} samples show {name} and {without.sum()} do not, but both are needed")
    way = pool.z_nd[with_it].mean(0) - pool.z_nd[without].mean(0)
    return way / np.linalg.norm(way)


def usual_length(config: ModelConfig) -> float:
    """Return the root mean square length of a latent vector: sqrt(d) times the spread of one number."""
    return float(np.sqrt(config.z_dim * (1 if config.z_distribution == "normal" else 1 / 3)))


def rescaled(y_td: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Return vectors in their own directions, each of the usual length."""
    return y_td * (usual_length(config) / np.linalg.norm(y_td, axis=-1, keepdims=True))


def nine(y_d: np.ndarray, seed: int = 0, scale: float = 0.25) -> np.ndarray:
    """Return a vector amid eight neighbours, y + U(-scale, scale), shape (9, d); the fifth is y itself."""
    noise = np.random.default_rng(seed).uniform(-scale, scale, (9, len(y_d)))
    noise[4] = 0
    return y_d + noise


def pixel_sums(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the same sum made of pictures instead of latent vectors, cut off at black and white.

    Parameters
    ----------
    pictures_u8 : ndarray
        Exemplars, shape (t, 3, k, c, h, w).

    Returns
    -------
    ndarray
        uint8, shape (t, c, h, w).
    """
    t, shape = len(pictures_u8), pictures_u8.shape[3:]
    sums = add_up(pictures_u8.reshape(*pictures_u8.shape[:3], -1).astype(np.float32))
    return sums.clip(0, 255).round().astype(np.uint8).reshape(t, *shape)


def layout(generator: AnyGenerator, z_3kd: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw one sum as the paper's Fig. 7 does.

    Parameters
    ----------
    generator : AnyGenerator
        Draws every picture.
    z_3kd : ndarray
        The exemplars of A, B and C.
    seed : int
        Of the noise of the eight neighbours.

    Returns
    -------
    dict of str to ndarray
        One picture each, uint8, 1 x 3 x h x w, all of one height. "A", "B" and "C": the exemplars above their mean.
        "A - B + C": nine pictures around the sum. "pixels": the sum of the exemplars' pictures.
    """
    exemplars = [pictures_of(generator, z_kd) for z_kd in z_3kd]
    means = pictures_of(generator, z_3kd.mean(1))
    columns = {name: np.concatenate([x, m[None]]) for name, x, m in zip("ABC", exemplars, means, strict=True)}
    columns["A − B + C"] = pictures_of(generator, nine(add_up(z_3kd), seed))
    columns["pixels"] = pixel_sums(np.stack(exemplars)[None])
    tiles = {name: _tile(x, 3 if len(x) == 9 and name[1:] else 1) for name, x in columns.items()}
    height = max(x.shape[1] for x in tiles.values())
    return {name: np.pad(x, ((0, 0), (0, height - x.shape[1]), (0, 0)), constant_values=255)[None]
            for name, x in tiles.items()}  # fmt: skip


def _tile(images_u8: np.ndarray, columns: int) -> np.ndarray:
    return make_grid(torch.from_numpy(images_u8), columns, padding=2, pad_value=255).numpy()
