"""Measure a generator's walks against controls that must fail, and enter the paper's two claims into the ledger.

Axes: s segments, t pictures of a segment; ``paths_u8`` s x t x c x h x w, 0..255.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dcgan_lib.data.sources import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import PROBE_EXTRACTORS, get_features
from dcgan_lib.evaluation.generators import BORROWED_FEATURES, FEATURES_OF, HELD_OUT_SPLIT
from dcgan_lib.evaluation.probe_files import load_probe
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.interpretation.walk import (
    Changes,
    Curve,
    Steps,
    count_changes,
    cross_fade,
    draw_paths,
    far_from_real,
    measure_steps,
    refinement,
)  # fmt: skip
from dcgan_lib.training.checkpoints import load_config, load_generator

STEPS = 12
"""Steps from anchor to anchor, as in the paper's Fig. 4: 100 pictures through 9 anchors."""


@dataclass(frozen=True, kw_only=True)
class WalkReport:
    """Hold what was measured of a generator's walks.

    Parameters
    ----------
    checkpoint, image_set, held_out, curve : str
        What was measured, and the pictures it was compared with.
    steps, pixel_steps : Steps
        In the features, and in pixels.
    refined : Estimate
        By what factor twice as many steps make the largest one smaller; see `refinement`.
    middles, faded_middles : Estimate
        Distance of the middles from real pictures over that of the ends; on the walk, and when its ends are mixed.
    changes, faded_changes : Changes
        Objects that come and go; on the walk, and when its ends are mixed.
    n, n_real, seed, seconds : int, int, int, float
        Segments; real pictures; of the anchors; wall time.
    """

    checkpoint: str
    image_set: str
    held_out: str
    curve: Curve
    steps: Steps
    pixel_steps: Steps
    refined: Estimate
    middles: Estimate
    faded_middles: Estimate
    changes: Changes
    faded_changes: Changes
    n: int
    n_real: int
    seed: int
    seconds: float


def check_measurable(checkpoint: str) -> str:
    """Return the features that a checkpoint's walks are measured in, or say why there are none.

    Raises
    ------
    UserError
        If the generator has classes, or no probe was made for its image set.
    """
    config, about = load_config(checkpoint)
    if config.model.num_classes:
        raise UserError(f"{checkpoint} draws classes on demand: a walk needs a generator without classes")
    if about["image_set"] not in FEATURES_OF:
        raise UserError(f"no probe was made for the set {about['image_set']!r}, so its walks cannot be measured")
    return FEATURES_OF[about["image_set"]]


def measure_walks(
    checkpoint: str, *, num_segments: int = 200, curve: Curve = "linear", seed: int = 0, num_real: int = 2_000
) -> WalkReport:
    """Measure a generator's walks on segments between latent vectors of their own.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    num_segments : int
        How many, each of 12 steps.
    curve : {"linear", "spherical"}
        See `dcgan_lib.interpretation.walk.walk_latents`.
    seed : int
        Of the anchors.
    num_real : int
        Held-out pictures to compare with.

    Raises
    ------
    UserError
        See `check_measurable`; and if the pictures are missing.
    """
    features, begun = get_features(check_measurable(checkpoint)), time.perf_counter()
    config, about = load_config(checkpoint)
    split = HELD_OUT_SPLIT.get(about["image_set"], "validation")
    real = load_image_set(about["image_set"], split, image_size=config.model.image_size).images_u8[:num_real]
    fine = draw_paths(load_generator(checkpoint), num_segments, 2 * STEPS, curve=curve, seed=seed)
    paths, probe = np.ascontiguousarray(fine[:, ::2]), load_probe(PROBE_EXTRACTORS[features.name])
    faded, steps = cross_fade(paths), measure_steps(paths, features)
    return WalkReport(
        checkpoint=checkpoint,
        image_set=about["image_set"],
        held_out=split,
        curve=curve,
        steps=steps,
        pixel_steps=measure_steps(paths),
        refined=refinement(steps, measure_steps(fine, features)),
        middles=far_from_real(paths, real, features)[0],
        faded_middles=far_from_real(faded, real, features)[0],
        changes=count_changes(paths, probe),
        faded_changes=count_changes(faded, probe),
        n=num_segments,
        n_real=len(real),
        seed=seed,
        seconds=time.perf_counter() - begun,
    )


def smooth_checks(report: WalkReport) -> dict[str, bool]:
    """Judge ``walk.smooth``: small steps that get smaller, and middles as plausible as samples."""
    return {
        "the largest of 12 steps is under half the distance of unrelated samples, in features and in pixels": (
            max(report.steps.largest.high, report.pixel_steps.largest.high) < 0.5
        ),
        "twice as many steps shrink the largest one by more than 1.5 (smooth: 2; a jump: 1)": report.refined.low > 1.5,
        "middles lie at most 5 % farther from real pictures than samples do": report.middles.high < 1.05,
        "control: middles of mixed pixels lie farther from real pictures than those of the walk": (
            report.faded_middles.low > report.middles.high
        ),
    }


def semantic_checks(report: WalkReport) -> dict[str, bool]:
    """Judge ``walk.semantic``: objects come and go, and the middle is as clear as a sample."""
    seen, faded = report.changes, report.faded_changes
    return {
        "each object appears and disappears at least 10 times": (
            min([*seen.appeared.values(), *seen.disappeared.values()]) >= 10
        ),
        "changes are single and lasting in at least 95 % of segments": seen.lasting.value >= 0.95,
        "the probe is as sure of middles as of samples, within 5 points": (
            seen.sure_middles.value > seen.sure_ends.value - 0.05
        ),
        "control: it is less sure of the middles of mixed pixels": faded.sure_middles.high < seen.sure_middles.low,
    }


def record_walks(report: WalkReport, command: str) -> list[Result]:
    """Enter ``walk.smooth:SET`` and, where the probe was made for the set, ``walk.semantic:SET`` into the ledger."""
    shared: dict[str, Any] = {"command": command, "seconds": report.seconds, "seed": report.seed, "n": report.n}
    data = f"{report.image_set}, {report.n_real:,} images of its {report.held_out} split"
    shared |= {"checkpoint": report.checkpoint, "data": data, "unit": ""}
    told = (
        f"Median over {report.n} segments of {STEPS} steps, {report.curve}: the largest step in {report.steps.space}, "
        f"over the distance of unrelated samples; in pixels {report.pixel_steps.largest.value:.3f}. "
        f"Largest over median step {report.steps.unevenness.value:.2f}. Distance to real pictures, middle over end: "
        f"{report.middles.value:.3f}; mixed pixels {report.faded_middles.value:.3f}. Refinement "
        f"{report.refined.value:.2f}."
    )
    seen, faded = report.changes, report.faded_changes
    counts = ", ".join(f"{name} +{up} -{seen.disappeared[name]}" for name, up in seen.appeared.items())
    again = ", ".join(f"{name} {count}" for name, count in seen.returned.items())
    changed = (
        f"Objects that change per segment, by a probe that is over 90 % sure before and after: {counts}. "
        f"No object changes twice in {seen.lasting.value:.1%} [{seen.lasting.low:.1%}, {seen.lasting.high:.1%}] of "
        f"segments; when pixels are mixed {faded.lasting.value:.1%}. Segments in which it does: {again}. Sure of "
        f"{seen.sure_middles.value:.1%} of objects in middles, {seen.sure_ends.value:.1%} in ends, "
        f"{faded.sure_middles.value:.1%} in mixed pixels."
    )
    rows = [("smooth", report.steps.largest, smooth_checks(report), told)]
    if report.image_set not in BORROWED_FEATURES:
        rows.append(("semantic", seen.per_segment, semantic_checks(report), changed))
    return [
        record(f"walk.{name}:{report.image_set}", value=value, checks=checks, notes=notes, **shared)
        for name, value, checks, notes in rows
    ]


def numbers(report: WalkReport) -> dict[str, Any]:
    """Return what was measured as plain values; each estimate is value, low, high."""
    plain = {
        "largest_step": report.steps.largest, "largest_step_pixels": report.pixel_steps.largest,
        "largest_over_median": report.steps.unevenness, "length": report.steps.length, "refined": report.refined,
        "middles_from_real": report.middles, "mixed_middles_from_real": report.faded_middles,
        "changes_per_segment": report.changes.per_segment, "lasting": report.changes.lasting,
        "lasting_mixed": report.faded_changes.lasting, "sure_ends": report.changes.sure_ends,
        "sure_middles": report.changes.sure_middles, "sure_mixed_middles": report.faded_changes.sure_middles,
    }  # fmt: skip
    shown: dict[str, Any] = {name: [round(x, 4) for x in estimate] for name, estimate in plain.items()}
    counts = {"appeared": report.changes.appeared, "disappeared": report.changes.disappeared}
    return shown | counts | {"segments": report.n, "seed": report.seed, "features": report.steps.space}
