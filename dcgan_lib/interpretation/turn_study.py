"""Does the yaw follow a straight line along the turn vector? Many faces, each with an axis of its own.

Axes: n faces, s steps along the axis.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.details import load_details, save_details
from dcgan_lib.evaluation.probe_files import load_probe
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.evaluation.statistics import bootstrap_interval
from dcgan_lib.interpretation.arithmetic import draw_pool, pictures_of
from dcgan_lib.interpretation.turn import STEPS, flips, moved, pick_sides, random_axes, read_along, summarise, turn_axes
from dcgan_lib.training.checkpoints import load_generator

ROWS = 5
LEAST_R2, LEAST_RISING = 0.9, 0.95
"""What counts as linear; set before the measurement."""


@dataclass(frozen=True, kw_only=True)
class TurnStudy:
    """Hold what the probe read at each step, along the turn axes and along random ones of the same lengths."""

    settings: dict[str, Any]
    along: dict[str, np.ndarray]
    by_chance: dict[str, np.ndarray]
    pictures_u8: np.ndarray
    faces: list[int]
    picked: list[list[list[int]]]
    seconds: float


def run_turn(
    checkpoint: str = "portraits", probe: str = "probe-portraits", num_faces: int = 300, pool: int = 4_000,
    seed: int = 1, least: float = 0.6,
) -> TurnStudy:  # fmt: skip
    """Turn faces and read them; the parameters are those of ``dcgan turn``.

    Raises
    ------
    UserError
        If there are too few faces, or the pool has too few that look to a side.
    """
    if not 2 <= num_faces <= pool:
        raise UserError(f"faces must lie between 2 and the pool's {pool}, but it is {num_faces}")
    begun, generator, reader = time.monotonic(), load_generator(checkpoint), load_probe(probe)
    reader.head("yaw")
    samples = draw_pool(generator, reader, pool, seed)
    picked = pick_sides(samples, num_faces, seed, least=least)
    axes_nd = turn_axes(samples.z_nd[picked])
    faces = np.random.default_rng(seed).choice(pool, num_faces, replace=False)
    z_nd = samples.z_nd[faces]
    shown = moved(z_nd[:ROWS], axes_nd[:ROWS])
    settings = {"checkpoint": checkpoint, "probe": probe, "pool": pool, "least": least, "seed": seed}
    return TurnStudy(
        settings=settings,
        along=read_along(generator, reader, z_nd, axes_nd),
        by_chance=read_along(generator, reader, z_nd, random_axes(axes_nd, seed)),
        pictures_u8=pictures_of(generator, shown.reshape(-1, shown.shape[-1])),
        faces=faces[:ROWS].tolist(),
        picked=picked[:ROWS].tolist(),
        seconds=time.monotonic() - begun,
    )


def numbers(study: TurnStudy) -> dict[str, Any]:
    """Return, for both kinds of axis, the mean yaw at each step, the straight line, and what else changes, plainly."""
    found: dict[str, Any] = {"settings": study.settings, "steps": STEPS.round(3).tolist()}
    for name, read in (("axis", study.along), ("random", study.by_chance)):
        means = [bootstrap_interval(np.mean, column) for column in read["yaw"].T]
        yes_or_no = [key for key, values in read.items() if values.ndim == 2 and key not in ("yaw", "skin_tone")]
        found[name] = {
            "line": {key: [round(x, 4) for x in value] for key, value in vars(summarise(read["yaw"])).items()},
            "yaw": [[round(x, 4) for x in mean] for mean in means],
            "flips": {key: [round(100 * x, 2) for x in flips(read, key, -1)] for key in yes_or_no},
        }
    return found


def record_turn(study: TurnStudy, set_name: str, *, command: str, root: Path | None = None) -> Result:
    """Enter the mean R2 of a straight line into the ledger, and keep the curve beside it."""
    line, chance, faces = summarise(study.along["yaw"]), summarise(study.by_chance["yaw"]), study.along["yaw"]
    checks = {
        f"the yaw rises along the axis for {LEAST_RISING:.0%} of faces": line.rising.low >= LEAST_RISING,
        f"a straight line explains {LEAST_R2:.0%} of a face's yaw on average": line.r2.low >= LEAST_R2,
        "the yaw moves, and along a random axis of the same length it does not": line.slope.low > chance.slope.high,
    }
    notes = (
        f"R2 of a straight line against the step, mean over faces; slope {line.slope.value:.2f} "
        f"[{line.slope.low:.2f}, {line.slope.high:.2f}] yaw an axis; rising {line.rising.value:.1%}; mean yaw from "
        f"{faces[:, 0].mean():.2f} to {faces[:, -1].mean():.2f}; along a random axis: slope {chance.slope.value:.2f}, "
        f"R2 {chance.r2.value:.2f}."
    )
    row = record(
        f"turn.linear:{set_name}", value=line.r2, unit="", n=len(faces), data=f"{set_name}, generated", checks=checks,
        command=command, seconds=study.seconds, seed=study.settings["seed"], checkpoint=study.settings["checkpoint"],
        notes=notes, root=root,
    )  # fmt: skip
    save_details(f"curves/turn.{set_name}", numbers(study), root)
    return row


def load_turn(set_name: str, root: Path | None = None) -> dict[str, Any]:
    """Return what `record_turn` kept beside the row; see `numbers`.

    Raises
    ------
    UserError
        If it was not measured.
    """
    return load_details(f"curves/turn.{set_name}", f"dcgan turn ... --record {set_name}", root)


def yaw_curve(turned: dict[str, Any], name: str) -> list[tuple[float, float, float, float]]:
    """Return the mean yaw at each step along the "axis" or a "random" one, from `load_turn`, for `plot_bands`."""
    return [(step, *yaw) for step, yaw in zip(turned["steps"], turned[name]["yaw"], strict=True)]
