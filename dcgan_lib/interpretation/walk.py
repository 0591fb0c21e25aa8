"""Walks through latent space: small steps, plausible points, objects that come and go.

Axes: k anchors, s segments of a walk, t pictures of a segment, n vectors in a row, o objects, d
latent, c channels, h x w pixels; ``paths_u8`` s x t x c x h x w, 0..255. A segment leads from one
anchor to the next. Segments that share no anchor are independent of each other, so intervals are
over them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.neighbours import nearest
from dcgan_lib.evaluation.probes import Probe
from dcgan_lib.evaluation.statistics import (
    Estimate,
    bootstrap_interval,
    mean_interval,
    wilson_interval,
)
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded

Curve = Literal["linear", "spherical"]

# ---------------------------------------------------------------- the path


def walk_latents(anchors_kd: Tensor, num_frames: int, curve: Curve = "linear") -> Tensor:
    """Return latent vectors at equal distances along one open walk through anchors, float32.

    The first and the last are the outer anchors. Where ``num_frames - 1`` is a multiple of ``k -
    1``, every anchor is met. In the paper's Fig. 4 the last picture of a row and the first of the
    next are one ordinary step apart: its 100 pictures are one walk, and it does not return to its
    start.
    """
    if len(anchors_kd) < 2 or num_frames < 2 or curve not in ("linear", "spherical"):
        came = f"{len(anchors_kd)} anchors, {num_frames} frames, curve {curve!r}"
        raise UserError(
            f"a walk needs at least 2 anchors and 2 frames, linear or spherical, but got {came}"
        )
    return points_on(
        anchors_kd, torch.linspace(0, len(anchors_kd) - 1, num_frames, dtype=torch.float64), curve
    )


def loop_latents(anchors_kd: Tensor, num_frames: int, curve: Curve = "spherical") -> Tensor:
    """Return latent vectors at equal distances along a closed walk, float32.

    The first is the first anchor; the last lies one step before it, so that a film can begin again.
    """
    closed_kd = torch.cat([anchors_kd, anchors_kd[:1]])
    return walk_latents(closed_kd, num_frames + 1, curve)[:-1]


def points_on(anchors_kd: Tensor, places_n: Tensor, curve: Curve) -> Tensor:
    """Return the points of a walk at some places, float32; whole places are the anchors, from 0 on.

    Along a straight line between two random vectors the length falls to about 0.7 of theirs; on an
    arc, by spherical interpolation, length and angle change evenly, but single numbers leave the
    range of the uniform distribution. Between parallel vectors an arc is a line.
    """
    first_n = places_n.long().clamp(max=len(anchors_kd) - 2)
    a_nd, b_nd = anchors_kd.double()[first_n], anchors_kd.double()[first_n + 1]
    t_n1 = (places_n - first_n)[:, None]
    line_nd = (1 - t_n1) * a_nd + t_n1 * b_nd
    if curve == "linear":
        return line_nd.float()
    lengths_n1 = a_nd.norm(dim=1, keepdim=True) * b_nd.norm(dim=1, keepdim=True)
    cosine_n1 = (a_nd * b_nd).sum(1, keepdim=True) / lengths_n1.clamp(min=1e-12)
    angle_n1 = cosine_n1.clamp(-1, 1).arccos()
    sine_n1 = angle_n1.sin()
    arc_nd = ((1 - t_n1) * angle_n1).sin() * a_nd + (t_n1 * angle_n1).sin() * b_nd
    return torch.where(sine_n1 > 1e-6, arc_nd / sine_n1.clamp(min=1e-12), line_nd).float()


def draw_paths(
    generator: AnyGenerator,
    num_segments: int,
    steps: int = 12,
    *,
    curve: Curve = "linear",
    seed: int = 0,
) -> np.ndarray:
    """Draw segments of walks, each between two latent vectors of its own.

    Return uint8, s x (steps + 1) x c x h x w; the generator has no classes. Twelve steps as in the
    paper's Fig. 4, where 9 anchors make 8 segments of 100 pictures. The anchors depend on the seed
    only, not on ``steps`` or ``curve``.
    """
    if num_segments < 2 or steps < 2:
        raise UserError(
            f"paths need at least 2 segments of 2 steps, but got {num_segments} of {steps}"
        )
    ends_nd = sample_latents(2 * num_segments, generator.config, seeded(seed))
    z_nd = torch.cat([walk_latents(ends_kd, steps + 1, curve) for ends_kd in ends_nd.split(2)])
    pictures = generate_u8(generator, z_nd)
    return pictures.reshape(num_segments, steps + 1, *pictures.shape[1:])


def cross_fade(paths_u8: np.ndarray) -> np.ndarray:
    """Replace each segment by a mix of its two ends: the smoothest path there is in pixels."""
    t = np.linspace(0, 1, paths_u8.shape[1], dtype=np.float32)[None, :, None, None, None]
    first, last = (paths_u8[:, [place]].astype(np.float32) for place in (0, -1))
    return np.round((1 - t) * first + t * last).astype(np.uint8)


# ---------------------------------------------------------------- smooth


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Hold how large the steps of a walk are, from one picture to the next."""

    largest: Estimate
    """The largest step of a segment, as a share of the median distance between unrelated samples;
    the median over segments. A picture that jumps gives about 1; s even steps on a straight way
    give 1 / s."""
    unevenness: Estimate
    """Largest over median step of a segment; the median over segments. Even steps give 1, whatever
    their size."""
    length: Estimate
    """All steps of a segment together, over the distance of unrelated samples; the median over
    segments."""
    largest_s: np.ndarray
    """The first of these for each segment."""
    n: int
    """Segments."""
    space: str
    """"pixels", or the name of the features."""


def measure_steps(paths_u8: np.ndarray, features: FeatureExtractor | None = None) -> Steps:
    """Measure the steps of at least 2 paths of 3 pictures, in named features or in pixels."""
    _check_paths(paths_u8)
    pictures = paths_u8.reshape(-1, *paths_u8.shape[2:])
    rows = pictures.astype(np.float32) if features is None else features.extract(pictures)
    points_std = rows.reshape(*paths_u8.shape[:2], -1)
    steps_st = np.linalg.norm(np.diff(points_std, axis=1), axis=2)
    # The start of one segment and the end of another share no latent vector.
    apart_s = np.linalg.norm(points_std[:, 0] - np.roll(points_std[:, -1], 1, 0), axis=1)
    unrelated = float(np.median(apart_s))
    if unrelated == 0:
        raise UserError("all pictures are the same, so no step can be compared with their distance")
    largest_s = steps_st.max(1) / unrelated
    uneven_s = steps_st.max(1) / np.maximum(np.median(steps_st, 1), 1e-9)
    return Steps(
        largest=bootstrap_interval(np.median, largest_s),
        unevenness=bootstrap_interval(np.median, uneven_s),
        length=bootstrap_interval(np.median, steps_st.sum(1) / unrelated),
        largest_s=largest_s,
        n=len(paths_u8),
        space="pixels" if features is None else features.name,
    )


def refinement(coarse: Steps, fine: Steps) -> Estimate:
    """Return by what factor the largest step shrinks when the same segments get more steps.

    With r times as many steps it is r for a smooth path; a jump keeps its size, and the factor is
    1.
    """
    if coarse.n != fine.n or coarse.space != fine.space:
        raise UserError(
            "refinement compares the same segments in the same features: measure both alike"
        )
    return bootstrap_interval(np.median, coarse.largest_s / np.maximum(fine.largest_s, 1e-9))


# ---------------------------------------------------------------- plausible


def far_from_real(
    paths_u8: np.ndarray, real_u8: np.ndarray, features: FeatureExtractor | None = None
) -> tuple[Estimate, np.ndarray]:
    """Compare how far the middle of each segment lies from real pictures with how far its ends do.

    The segments have an odd number of pictures; the real ones, uint8, n x c x h x w, are unseen by
    the generator, or, to find copies, those that it learnt from. Return the mean distance from a
    middle to the nearest real picture, over that from an end (1 where a middle is as plausible as a
    sample), and the distances of each segment's first, middle and last picture, shape (s, 3).
    """
    _check_paths(paths_u8)
    num = paths_u8.shape[1]
    if num % 2 == 0:
        raise UserError(f"a middle needs an odd number of pictures, but a segment has {num}")
    chosen = paths_u8[:, [0, num // 2, -1]].reshape(-1, *paths_u8.shape[2:])
    embed: Callable[[np.ndarray], np.ndarray] = features.extract if features else np.asarray
    nearest_st = nearest(embed(chosen), embed(real_u8))[0].reshape(-1, 3)
    ratio = bootstrap_interval(
        lambda d_st: d_st[:, 1].mean() / max(d_st[:, [0, 2]].mean(), 1e-9), nearest_st
    )
    return ratio, nearest_st


def _check_paths(paths_u8: np.ndarray) -> None:
    is_u8 = paths_u8.ndim == 5 and paths_u8.dtype == np.uint8
    if not is_u8 or len(paths_u8) < 2 or paths_u8.shape[1] < 3:
        raise UserError(
            "paths are uint8, s x t x c x h x w, with at least 2 segments of 3 pictures, "
            f"but got {paths_u8.dtype} of shape {paths_u8.shape}"
        )


# ---------------------------------------------------------------- meaningful

SURE = 0.9
"""A probe is sure of an object above this probability, and of its absence below 1 - this."""


class State(NamedTuple):
    """Hold a stretch in which a probe is sure of an object's presence, or of its absence.

    Doubt in between does not end it, as in thresholding with hysteresis.
    """

    present: bool
    first: int
    last: int
    """``first`` and ``last`` are its outer sure pictures."""
    surest: int
    """The picture that the probe is surest of."""
    probability: float
    """Of the object's presence, there."""


def find_states(probability_t: np.ndarray, sure: float = SURE) -> list[State]:
    """Return the states of one object along one segment: present and absent take turns."""
    found = []
    sure_t = np.flatnonzero((probability_t > sure) | (probability_t < 1 - sure)).tolist()
    for present, group in groupby(sure_t, key=lambda t: bool(probability_t[t] > sure)):
        places = list(group)
        surest = max(places, key=lambda t: abs(float(probability_t[t]) - 0.5))
        found.append(State(present, places[0], places[-1], surest, float(probability_t[surest])))
    return found


def all_states(probability_sto: np.ndarray, sure: float = SURE) -> np.ndarray:
    """Return the states of each object along each segment: an array of lists, s x o."""
    states_so = np.empty(probability_sto.shape[::2], object)
    for s, o in np.ndindex(states_so.shape):
        states_so[s, o] = find_states(probability_sto[s, :, o], sure)
    return states_so


def object_probabilities(probe: Probe, paths_u8: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Read the yes-or-no heads of a probe along paths: their names, and float, s x t x o."""
    names = [head.name for head in probe.config.heads if head.kind == "boolean"]
    if not names:
        raise UserError(
            "the probe has no yes-or-no head, so nothing can appear or disappear for it"
        )
    answers = probe.predict(paths_u8.reshape(-1, *paths_u8.shape[2:]))
    return names, np.stack([answers[name] for name in names], -1).reshape(*paths_u8.shape[:2], -1)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Hold what a probe saw come and go."""

    appeared: dict[str, int]
    """Per object, how often it went from surely absent to surely present."""
    disappeared: dict[str, int]
    """The other way."""
    per_segment: Estimate
    """Changes of either kind in a segment, the mean."""
    returned: dict[str, int]
    """Per object, in how many segments it changed more than once."""
    lasting: Estimate
    """Share of segments in which no object changes more than once: what came stays, what went stays
    away."""
    sure_ends: Estimate
    """Share of objects that the probe is sure about, either way, in the first and last pictures."""
    sure_middles: Estimate
    """The same in the middle."""
    n: int
    """Segments."""


def count_changes(paths_u8: np.ndarray, probe: Probe) -> Changes:
    """Count the objects that appear and disappear along paths, by a probe's yes-or-no heads.

    A change counts when the probe was sure before and is sure of the opposite later.
    """
    _check_paths(paths_u8)
    names, probability_sto = object_probabilities(probe, paths_u8)
    states_so = all_states(probability_sto)
    up_so = np.vectorize(lambda states: sum(s.present for s in states[1:]))(states_so)
    down_so = np.vectorize(lambda states: sum(not s.present for s in states[1:]))(states_so)
    again_so = up_so + down_so > 1
    sure_sto = (probability_sto > SURE) | (probability_sto < 1 - SURE)
    appeared, disappeared, returned = (
        dict(zip(names, counts_so.sum(0).tolist(), strict=True))
        for counts_so in (up_so, down_so, again_so)
    )
    return Changes(
        appeared=appeared,
        disappeared=disappeared,
        per_segment=mean_interval((up_so + down_so).sum(1)),
        returned=returned,
        lasting=wilson_interval(int((~again_so.any(1)).sum()), len(paths_u8)),
        sure_ends=mean_interval(sure_sto[:, [0, -1]].mean((1, 2))),
        sure_middles=mean_interval(sure_sto[:, sure_sto.shape[1] // 2].mean(1)),
        n=len(paths_u8),
    )
