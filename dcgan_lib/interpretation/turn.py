"""The turn vector: from faces that look left to faces that look right (section 6.3.2, Fig. 8).

Axes: n samples or faces, d latent, s steps along the axis.
"""

from dataclasses import dataclass

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.interpretation.arithmetic import Pool, choose, pictures_of
from dcgan_lib.interpretation.exemplars import TURN, Exemplars
from dcgan_lib.models.networks import AnyGenerator

STEPS = np.linspace(-1, 1, 11)
"""Eleven columns as in Fig. 8, the face itself in the middle; 1 adds the whole axis (our choice)."""
NUM_EXEMPLARS = 4


def pick_sides(pool: Pool, trials: int, seed: int, *, least: float = 0.6, num: int = NUM_EXEMPLARS) -> np.ndarray:
    """Choose faces that look left and faces that look right, anew for each trial.

    Parameters
    ----------
    pool : Pool
        Samples, with the yaw that a probe reads.
    trials, seed : int
        How often to choose, and the seed of the choice.
    least : float, default 0.6
        Least yaw to either side; 1 is the most that the drawn portraits have.
    num : int, default 4
        Faces a side, as in the paper.

    Returns
    -------
    ndarray
        int64, shape (trials, 2, num): indices into the pool, left first.

    Raises
    ------
    UserError
        If the probe reads no yaw, or too few samples look to a side.
    """
    if "yaw" not in pool.read:
        raise UserError(f"the probe reads {', '.join(pool.read)}, but no yaw: choose another probe")
    yaw = pool.read["yaw"]
    return choose([("look left", -yaw >= least), ("look right", yaw >= least)], num, trials, seed)


def turn_axes(z_n2kd: np.ndarray) -> np.ndarray:
    """Return mean(right) - mean(left), shape (n, d), of exemplars of shape (n, 2, k, d)."""
    left, right = np.moveaxis(z_n2kd.mean(2), 1, 0)
    return right - left


def random_axes(axes_nd: np.ndarray, seed: int) -> np.ndarray:
    """Return axes of the same lengths in random directions."""
    ways = np.random.default_rng(seed).normal(size=axes_nd.shape)
    return ways * (np.linalg.norm(axes_nd, axis=1) / np.linalg.norm(ways, axis=1))[:, None]


def moved(z_nd: np.ndarray, axes_nd: np.ndarray, steps_s: np.ndarray = STEPS) -> np.ndarray:
    """Return each vector at each step along its axis, shape (n, s, d)."""
    return z_nd[:, None] + np.asarray(steps_s)[:, None] * axes_nd[:, None]


def drawn_turn(generator: AnyGenerator, own: Exemplars, num_faces: int = 5) -> np.ndarray:
    """Turn a pool's first samples along the axis that exemplars picked by eye give.

    Parameters
    ----------
    generator : AnyGenerator
        The one whose samples were picked.
    own : Exemplars
        With those that look left and those that look right; see `TURN`.
    num_faces : int, default 5
        Rows, as in the paper.

    Returns
    -------
    ndarray
        uint8, n x c x h x w: eleven pictures a face, the face itself in the middle.
    """
    axis_d = turn_axes(own.latents(TURN, generator.config)[None])
    z_nsd = moved(own.pool_latents(generator.config)[:num_faces], axis_d)
    return pictures_of(generator, z_nsd.reshape(-1, z_nsd.shape[-1]))


def read_along(
    generator: AnyGenerator, probe: Probe, z_nd: np.ndarray, axes_nd: np.ndarray, steps_s: np.ndarray = STEPS
) -> dict[str, np.ndarray]:
    """Read every attribute at each step; float32 arrays of shape (n, s, ...)."""
    z_nsd = moved(z_nd, axes_nd, steps_s)
    read = probe.predict(pictures_of(generator, z_nsd.reshape(-1, z_nsd.shape[-1])))
    return {name: values.reshape(*z_nsd.shape[:2], *values.shape[1:]) for name, values in read.items()}


@dataclass(frozen=True)
class Line:
    """Hold how straight a quantity runs against the step, over faces.

    Parameters
    ----------
    slope : Estimate
        Mean change over one step unit.
    r2 : Estimate
        Mean share of a face's own variation that a straight line explains.
    rising : Estimate
        Share of faces whose straight line rises.
    """

    slope: Estimate
    r2: Estimate
    rising: Estimate


def straight_lines(values_ns: np.ndarray, steps_s: np.ndarray = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Fit a straight line to each row; return slopes and R2, each of shape (n,). A constant row has an R2 of 0."""
    steps = np.asarray(steps_s, np.float64) - np.mean(steps_s)
    values = values_ns - values_ns.mean(1, keepdims=True)
    slopes, total = values @ steps / (steps @ steps), (values**2).sum(1)
    return slopes, np.divide(slopes**2 * (steps @ steps), total, out=np.zeros(len(values)), where=total > 0)


def summarise(values_ns: np.ndarray, steps_s: np.ndarray = STEPS) -> Line:
    """Return mean slope, mean R2 and the share of rising lines, each with its interval over the rows."""
    slopes, r2 = straight_lines(values_ns, steps_s)
    rising = wilson_interval(int((slopes > 0).sum()), len(slopes))
    return Line(bootstrap_interval(np.mean, slopes), bootstrap_interval(np.mean, r2), rising)


def flips(read: dict[str, np.ndarray], name: str, column: int) -> Estimate:
    """Return the share of faces whose yes-or-no attribute differs between the middle step and another."""
    yes_ns = read[name] > 0.5
    changed = yes_ns[:, column] != yes_ns[:, yes_ns.shape[1] // 2]
    return wilson_interval(int(changed.sum()), len(changed))
