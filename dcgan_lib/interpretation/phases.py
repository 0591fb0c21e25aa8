"""When a probe is sure of an object along a walk, and when of its absence.

Axes: s segments of a walk, t pictures of a segment, o objects; ``chance_sto`` s x t x o, what a probe says, 0..1.
"""

from typing import NamedTuple

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Probe

SURE = 0.9
"""A probe is sure of an object above this probability, and of its absence below 1 - this."""


class Phase(NamedTuple):
    """Hold a stretch of a segment in which the probe is sure of the same thing; doubt in between is part of it.

    ``first`` and ``last`` are its outer sure pictures, ``surest`` is the one that it is surest of, and ``chance`` what
    it says there.
    """

    present: bool
    first: int
    last: int
    surest: int
    chance: float


def object_chances(probe: Probe, paths_u8: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Read the yes-or-no heads of a probe along paths: their names, and float, s x t x o.

    Raises
    ------
    UserError
        If the probe has no such head, or reads pictures of another size.
    """
    names = [head.name for head in probe.config.heads if head.kind == "boolean"]
    if not names:
        raise UserError("the probe has no yes-or-no head, so nothing can appear or disappear for it")
    answers = probe.predict(paths_u8.reshape(-1, *paths_u8.shape[2:]))
    return names, np.stack([answers[name] for name in names], -1).reshape(*paths_u8.shape[:2], -1)


def find_phases(chance_t: np.ndarray, sure: float = SURE) -> list[Phase]:
    """Return the phases of one object along one segment, in order; each shows the opposite of the one before.

    Parameters
    ----------
    chance_t : ndarray
        Shape (t,), 0..1.
    sure : float
        See `SURE`.
    """
    found: list[Phase] = []
    for t in np.flatnonzero((chance_t > sure) | (chance_t < 1 - sure)).tolist():
        chance, present = float(chance_t[t]), bool(chance_t[t] > sure)
        if not found or found[-1].present != present:
            found.append(Phase(present, t, t, t, chance))
        else:
            surer = abs(chance - 0.5) > abs(found[-1].chance - 0.5)
            found[-1] = found[-1]._replace(last=t, **({"surest": t, "chance": chance} if surer else {}))
    return found


def all_phases(chance_sto: np.ndarray, sure: float = SURE) -> list[list[list[Phase]]]:
    """Return the phases of each segment and, in it, of each object; see `find_phases`."""
    return [[find_phases(chance_t, sure) for chance_t in chance_to.T] for chance_to in chance_sto]
