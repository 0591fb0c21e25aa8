"""Forgetting as in section 6.3.1, its controls, two other ways to choose maps, and the paper's claims in the ledger.

Three seeds in a row: maps are chosen on pictures of the first, what can be tuned is tuned on pictures of the third,
and everything is measured on pictures of the second, once.
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
from dcgan_lib.evaluation.statistics import Estimate, mean_interval
from dcgan_lib.interpretation.forgetting import (
    Fit,
    activations,
    check_layer,
    matched_maps,
    measure_effects,
    random_maps,
    second_highest,
)
from dcgan_lib.interpretation.forgetting_bench import Bench, Originals, Outcome
from dcgan_lib.training.checkpoints import load_config, load_generator

FINDERS = {"rooms": ("probe-rooms", "probe-room-boxes")}
"""For each image set, who judges its pictures and who finds boxes in them."""
LEAST_FALL, MOST_FALL, MOST_MOVED = 0.8, 0.15, 0.5
"""What counts as forgotten, and as the rest staying; set before the measurement."""
SHOWN, VALIDATED = 10, 500


@dataclass(frozen=True, kw_only=True)
class ForgetStudy:
    """Hold what was measured.

    Parameters
    ----------
    settings : dict
        As given.
    fit : Fit
        The regression.
    outcomes : dict of str to Outcome
        "paper": all maps with a weight over the threshold. If asked for, also "tuned", the layer and number of maps
        that serve best by weight, and "effect", maps chosen by what happens without them.
    controls : dict of str to list of Outcome
        "random" and "matched": as many maps as in "paper", by chance.
    sweep : dict of str to list
        Rates on the third seed against the number of maps, by "weight" and by "effect".
    shown : dict of str to ndarray
        Pictures for a figure.
    seconds : float
        Wall time.
    """

    settings: dict[str, Any]
    fit: Fit
    outcomes: dict[str, Outcome]
    controls: dict[str, list[Outcome]]
    sweep: dict[str, list[dict[str, Any]]]
    shown: dict[str, np.ndarray]
    seconds: float


def make_bench(checkpoint: str, name: str = "window") -> Bench:
    """Put a generator, its judge and its finder together.

    Raises
    ------
    UserError
        If no finder was made for the image set; see also `Bench`.
    """
    image_set = load_config(checkpoint)[1]["image_set"]
    if image_set not in FINDERS:
        known = ", ".join(FINDERS)
        raise UserError(
            f"no probe finds objects in pictures of {image_set!r}: choose a generator of {known}, or give boxes drawn "
            "by hand with --boxes"
        )
    judge, finder = (load_probe(probe) for probe in FINDERS[image_set])
    other = "window" if name == "bed" else "bed"
    return Bench(generator=load_generator(checkpoint), judge=judge, finder=finder, name=name, other=other)


def run_forgetting(
    checkpoint: str = "rooms", name: str = "window", *, layer: int | None = None, threshold: float = 0.0,
    c: float = 1.0, samples: int = 150, measured: int = 1_000, draws: int = 10, seed: int = 0, compare: bool = False,
) -> ForgetStudy:  # fmt: skip
    """Forget an object and measure what is lost; the parameters are those of ``dcgan forget``.

    Raises
    ------
    UserError
        If a number is out of range, or no map is left to switch off.
    """
    if min(samples, measured) < 10 or draws < 2 or c <= 0:
        raise UserError(
            f"forgetting needs 10 samples, 10 measured, 2 draws and c > 0, but got {samples}, {measured}, {draws}, {c}"
        )
    begun, bench = time.monotonic(), make_bench(checkpoint, name)
    layer = second_highest(bench.generator.config) if layer is None else layer
    num_maps = check_layer(bench.generator, layer)
    chosen_on = bench.draw(samples, seed)
    fit = bench.fit(chosen_on, layer, c=c, seed=seed)
    maps = fit.maps(threshold)
    if not 0 < len(maps) < num_maps:
        raise UserError(f"{len(maps)} of {num_maps} maps have a weight over {threshold:g}: choose another threshold")
    originals = bench.draw(measured, seed + 1)
    outcomes, sweep = {"paper": bench.measure(originals, maps, layer)}, {}
    if compare:
        found, sweep = _tune(bench, chosen_on, layer, c, seed)
        outcomes |= {way: bench.measure(originals, *picked) for way, picked in found.items()}
    energy_c = np.square(activations(bench.generator, chosen_on.z_nd, layer)).mean((0, 2, 3))
    by_chance = {
        "random": [random_maps(num_maps, len(maps), seed + i) for i in range(draws)],
        "matched": [matched_maps(energy_c, maps, seed + i) for i in range(draws)],
    }
    controls = {kind: [bench.measure(originals, off, layer) for off in sets] for kind, sets in by_chance.items()}
    settings = {"checkpoint": checkpoint, "object": name, "other": bench.other, "layer": layer, "threshold": threshold}
    settings |= {"c": c, "samples": samples, "measured": measured, "draws": draws, "seed": seed, "num_maps": num_maps}
    return ForgetStudy(
        settings=settings, fit=fit, outcomes=outcomes, controls=controls, sweep=sweep,
        shown=_shown(bench, originals, {**outcomes, "random": controls["random"][0]}), seconds=time.monotonic() - begun,
    )  # fmt: skip


def _tune(
    bench: Bench, chosen_on: Originals, layer: int, c: float, seed: int
) -> tuple[dict[str, tuple[np.ndarray, int]], dict[str, list[dict[str, Any]]]]:
    """Choose layer and number of maps, by weight and by effect, on pictures of the third seed.

    By effect, only this layer and the one below it are tried: each map costs as many pictures as there are samples.
    """
    validation, layers = bench.draw(VALIDATED, seed + 2), range(len(bench.generator.convs))
    orders: dict[str, dict[int, np.ndarray]] = {"weight": {}, "effect": {}}
    for other in layers:
        try:
            orders["weight"][other] = bench.fit(chosen_on, other, c=c, seed=seed).maps()
        except UserError:  # the object is smaller than a position of this layer's grid
            continue
    for at in {max(layer - 1, 0), layer}:
        effects_c = measure_effects(bench.generator, bench.finder, chosen_on.z_nd, at, bench.name)
        orders["effect"][at] = np.argsort(effects_c, kind="stable")[: int((effects_c < 0).sum())]
    sweep = {
        way: [row for at, order in found.items() for row in bench.sweep(validation, order, at)]
        for way, found in orders.items()
    }
    picked = {}
    for way, rows in (("tuned", sweep["weight"]), ("effect", sweep["effect"])):
        row = bench.best(validation, rows)
        order = orders["weight" if way == "tuned" else way][row["layer"]]
        picked[way] = order[: row["count"]], row["layer"]
    return picked, sweep


def _shown(bench: Bench, originals: Originals, outcomes: dict[str, Outcome]) -> dict[str, np.ndarray]:
    """Return the first pictures that show the object, before and after."""
    rows = np.flatnonzero(originals.read[bench.name] > 0.5)[:SHOWN]
    shown = {"before": originals.pictures_u8[rows]}
    return shown | {way: bench.without(originals, o.maps, o.layer)[rows] for way, o in outcomes.items()}


def mean_fall(outcomes: list[Outcome], name: str) -> Estimate:
    """Return the mean relative fall of an object's rate over several choices of maps."""
    return mean_interval(np.array([outcome.changes[name].fall.value for outcome in outcomes]))


def object_checks(study: ForgetStudy) -> dict[str, bool]:
    """Judge ``forget.object``: most are gone, and others at random do not do it."""
    name = study.settings["object"]
    fall = study.outcomes["paper"].changes[name].fall
    random, matched = (mean_fall(study.controls[kind], name).high for kind in ("random", "matched"))
    return {
        f"the rate of {name}s falls by {LEAST_FALL:.0%} or more": fall.low >= LEAST_FALL,
        "it falls, and by more than with as many random maps off": fall.low > max(0, random),
        "it falls, and by more than with as many random maps off that are about as active": fall.low > max(0, matched),
    }


def rest_checks(study: ForgetStudy) -> dict[str, bool]:
    """Judge ``forget.rest``: other objects are still there, and the scene is still the same."""
    name, other = study.settings["object"], study.settings["other"]
    outcome = study.outcomes["paper"]
    others = [abs(change.fall.value) for key, change in outcome.changes.items() if key != name]
    scene = outcome.scene
    return {
        f"the rate of {other}s falls by {MOST_FALL:.0%} at most": outcome.changes[other].fall.high <= MOST_FALL,
        f"the rate of no other object changes by more than {MOST_FALL:.0%}": max(others) <= MOST_FALL,
        "outside the boxes, pixels move less than half as far as to an unrelated picture": (
            scene["pixels outside"].high < MOST_MOVED
        ),
        "features move less than half as far as to an unrelated picture": scene["features"].high < MOST_MOVED,
        "pixels move farther inside the boxes than outside": scene["pixels inside"].low > scene["pixels outside"].high,
    }


def numbers(study: ForgetStudy) -> dict[str, Any]:
    """Return what was measured as plain values; each estimate is value, low, high."""

    def plain(outcome: Outcome) -> dict[str, Any]:
        changes = {key: {part: rounded(x) for part, x in vars(c).items()} for key, c in outcome.changes.items()}
        scene = {key: rounded(x) for key, x in outcome.scene.items()}
        return {"maps": outcome.maps, "layer": outcome.layer, "changes": changes, "scene": scene}

    controls = {
        kind: {key: rounded(mean_fall(found, key)) for key in found[0].changes}
        for kind, found in study.controls.items()
    }
    falls = {
        kind: [round(o.changes[study.settings["object"]].fall.value, 4) for o in found]
        for kind, found in study.controls.items()
    }
    fit = {"boxes": study.fit.num_boxes, "positions": study.fit.num_positions, "accuracy": round(study.fit.accuracy, 4)}
    return {
        "settings": study.settings,
        "fit": fit | {"weights": [round(float(w), 4) for w in study.fit.weights_c]},
        "outcomes": {way: plain(outcome) for way, outcome in study.outcomes.items()},
        "controls": controls,
        "control_falls": falls,
        "sweep": study.sweep,
    }


def rounded(estimate: Estimate) -> list[float]:
    """Return an estimate as value, low, high."""
    return [round(float(x), 4) for x in estimate]


def record_forgetting(study: ForgetStudy, set_name: str, *, command: str, root: Path | None = None) -> list[Result]:
    """Enter ``forget.object:SET`` and ``forget.rest:SET`` into the ledger when windows were forgotten; keep details."""
    save_details(details_name(set_name, study.settings["object"]), numbers(study), root)
    if study.settings["object"] != "window":
        return []  # the paper's claim is about windows
    outcome, other = study.outcomes["paper"], study.settings["other"]
    shared: dict[str, Any] = {"command": command, "seconds": study.seconds, "seed": study.settings["seed"], "unit": "%"}
    shared |= {"n": study.settings["measured"], "checkpoint": study.settings["checkpoint"], "root": root}
    shared |= {"data": f"{set_name}, generated"}
    gone, scene = outcome.changes["window"], outcome.scene
    random, matched = (mean_fall(study.controls[kind], "window").value for kind in ("random", "matched"))
    told = (
        f"Relative fall (below 0: a rise) of the rate of windows when {len(outcome.maps)} of "
        f"{study.settings['num_maps']} maps of layer {outcome.layer} are off, "
        f"all with a weight over {study.settings['threshold']:g}; from "
        f"{gone.before.value:.1%} to {gone.after.value:.1%} of samples; {gone.kept.value:.1%} of those with a window "
        f"keep it. {study.fit.num_boxes} boxes; the regression is right on {study.fit.accuracy:.1%} of positions kept "
        f"out of it. Mean fall with random maps {random:.1%}, with as active ones {matched:.1%}. {_other_ways(study)}"
    )
    stayed = "; ".join(f"{key} {change.fall.value:+.1%}" for key, change in outcome.changes.items() if key != "window")
    rest = (
        f"Relative fall (below 0: a rise) of the rate of {other}s. All falls: {stayed}. "
        "Distance moved over that of unrelated pictures: "
        + ", ".join(f"{key} {value.value:.2f}" for key, value in scene.items())
        + "."
    )
    return [
        record(
            f"forget.object:{set_name}", value=gone.fall.scaled(100), checks=object_checks(study), notes=told, **shared
        ),
        record(
            f"forget.rest:{set_name}", value=outcome.changes[other].fall.scaled(100), checks=rest_checks(study),
            notes=rest, **shared,
        ),
    ]  # fmt: skip


def _other_ways(study: ForgetStudy) -> str:
    told = []
    for way, label in (("tuned", "best layer and number by weight"), ("effect", "chosen by effect")):
        if way in study.outcomes:
            outcome = study.outcomes[way]
            falls = {key: outcome.changes[key].fall for key in (study.settings["object"], study.settings["other"])}
            shares = ", ".join(f"{key} {x.value:.1%} [{x.low:.1%}, {x.high:.1%}]" for key, x in falls.items())
            told.append(f"Falls with maps {label} ({len(outcome.maps)} of layer {outcome.layer}): {shares}.")
    return " ".join(told)


def load_forgetting(set_name: str, name: str = "window", root: Path | None = None) -> dict[str, Any]:
    """Return what `record_forgetting` kept; see `numbers`.

    Raises
    ------
    UserError
        If it was not measured.
    """
    return load_details(details_name(set_name, name), f"dcgan forget ... --object {name} --record {set_name}", root)


def details_name(set_name: str, name: str) -> str:
    """Return where the numbers of a set and an object are kept; see `dcgan_lib.evaluation.details`."""
    return f"curves/forget.{set_name}.{name}"
