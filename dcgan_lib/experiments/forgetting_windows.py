"""The command ``dcgan forget``: find the maps that draw an object, switch them off, and see what is left."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tyro.conf import Positional

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import DrawnBoxes, load_boxes
from dcgan_lib.evaluation.ledger import Result, load_details, record, save_details
from dcgan_lib.evaluation.probes import load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, mean_interval
from dcgan_lib.interpretation.forgetting import (
    Bench,
    Change,
    Fit,
    Originals,
    Outcome,
    activations,
    check_layer,
    compare,
    compare_scenes,
    fit_maps,
    labelled_positions,
    matched_maps,
    measure_effects,
    positions_inside,
    random_maps,
    regress,
    second_highest,
    silenced,
)
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.sampling import from_u8, generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import find_run, load_config, load_discriminator, load_generator

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
    return Bench(
        generator=load_generator(checkpoint), judge=judge, finder=finder, name=name, other=other
    )


def run_forgetting(
    checkpoint: str = "rooms",
    name: str = "window",
    *,
    layer: int | None = None,
    threshold: float = 0.0,
    c: float = 1.0,
    samples: int = 150,
    measured: int = 1_000,
    draws: int = 10,
    seed: int = 0,
    compare: bool = False,
) -> ForgetStudy:
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
        raise UserError(
            f"{len(maps)} of {num_maps} maps have a weight over {threshold:g}: choose another threshold"
        )
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
    controls = {
        kind: [bench.measure(originals, off, layer) for off in sets]
        for kind, sets in by_chance.items()
    }
    settings = {
        "checkpoint": checkpoint,
        "object": name,
        "other": bench.other,
        "layer": layer,
        "threshold": threshold,
    }
    settings |= {
        "c": c,
        "samples": samples,
        "measured": measured,
        "draws": draws,
        "seed": seed,
        "num_maps": num_maps,
    }
    return ForgetStudy(
        settings=settings,
        fit=fit,
        outcomes=outcomes,
        controls=controls,
        sweep=sweep,
        shown=_shown(bench, originals, {**outcomes, "random": controls["random"][0]}),
        seconds=time.monotonic() - begun,
    )


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


def _shown(
    bench: Bench, originals: Originals, outcomes: dict[str, Outcome]
) -> dict[str, np.ndarray]:
    """Return the first pictures that show the object, before and after."""
    rows = np.flatnonzero(originals.read[bench.name] > 0.5)[:SHOWN]
    shown = {"before": originals.pictures_u8[rows]}
    return shown | {
        way: bench.without(originals, o.maps, o.layer)[rows] for way, o in outcomes.items()
    }


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
        "it falls, and by more than with as many random maps off that are about as active": fall.low
        > max(0, matched),
    }


def rest_checks(study: ForgetStudy) -> dict[str, bool]:
    """Judge ``forget.rest``: other objects are still there, and the scene is still the same."""
    name, other = study.settings["object"], study.settings["other"]
    outcome = study.outcomes["paper"]
    others = [abs(change.fall.value) for key, change in outcome.changes.items() if key != name]
    scene = outcome.scene
    return {
        f"the rate of {other}s falls by {MOST_FALL:.0%} at most": outcome.changes[other].fall.high
        <= MOST_FALL,
        f"the rate of no other object changes by more than {MOST_FALL:.0%}": max(others)
        <= MOST_FALL,
        "outside the boxes, pixels move less than half as far as to an unrelated picture": (
            scene["pixels outside"].high < MOST_MOVED
        ),
        "features move less than half as far as to an unrelated picture": scene["features"].high
        < MOST_MOVED,
        "pixels move farther inside the boxes than outside": scene["pixels inside"].low
        > scene["pixels outside"].high,
    }


def numbers(study: ForgetStudy) -> dict[str, Any]:
    """Return what was measured as plain values; each estimate is value, low, high."""

    def plain(outcome: Outcome) -> dict[str, Any]:
        changes = {
            key: {part: rounded(x) for part, x in vars(c).items()}
            for key, c in outcome.changes.items()
        }
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
    fit = {
        "boxes": study.fit.num_boxes,
        "positions": study.fit.num_positions,
        "accuracy": round(study.fit.accuracy, 4),
    }
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


def record_forgetting(
    study: ForgetStudy, set_name: str, *, command: str, root: Path | None = None
) -> list[Result]:
    """Enter ``forget.object:SET`` and ``forget.rest:SET`` into the ledger when windows were forgotten; keep details."""
    save_details(details_name(set_name, study.settings["object"]), numbers(study), root)
    if study.settings["object"] != "window":
        return []  # the paper's claim is about windows
    outcome, other = study.outcomes["paper"], study.settings["other"]
    shared: dict[str, Any] = {
        "command": command,
        "seconds": study.seconds,
        "seed": study.settings["seed"],
        "unit": "%",
    }
    shared |= {
        "n": study.settings["measured"],
        "checkpoint": study.settings["checkpoint"],
        "root": root,
    }
    shared |= {"data": f"{set_name}, generated"}
    gone, scene = outcome.changes["window"], outcome.scene
    random, matched = (
        mean_fall(study.controls[kind], "window").value for kind in ("random", "matched")
    )
    told = (
        f"Relative fall (below 0: a rise) of the rate of windows when {len(outcome.maps)} of "
        f"{study.settings['num_maps']} maps of layer {outcome.layer} are off, "
        f"all with a weight over {study.settings['threshold']:g}; from "
        f"{gone.before.value:.1%} to {gone.after.value:.1%} of samples; {gone.kept.value:.1%} of those with a window "
        f"keep it. {study.fit.num_boxes} boxes; the regression is right on {study.fit.accuracy:.1%} of positions kept "
        f"out of it. Mean fall with random maps {random:.1%}, with as active ones {matched:.1%}. {_other_ways(study)}"
    )
    stayed = "; ".join(
        f"{key} {change.fall.value:+.1%}"
        for key, change in outcome.changes.items()
        if key != "window"
    )
    rest = (
        f"Relative fall (below 0: a rise) of the rate of {other}s. All falls: {stayed}. "
        "Distance moved over that of unrelated pictures: "
        + ", ".join(f"{key} {value.value:.2f}" for key, value in scene.items())
        + "."
    )
    return [
        record(
            f"forget.object:{set_name}",
            value=gone.fall.scaled(100),
            checks=object_checks(study),
            notes=told,
            **shared,
        ),
        record(
            f"forget.rest:{set_name}",
            value=outcome.changes[other].fall.scaled(100),
            checks=rest_checks(study),
            notes=rest,
            **shared,
        ),
    ]


def _other_ways(study: ForgetStudy) -> str:
    told = []
    for way, label in (
        ("tuned", "best layer and number by weight"),
        ("effect", "chosen by effect"),
    ):
        if way in study.outcomes:
            outcome = study.outcomes[way]
            falls = {
                key: outcome.changes[key].fall
                for key in (study.settings["object"], study.settings["other"])
            }
            shares = ", ".join(
                f"{key} {x.value:.1%} [{x.low:.1%}, {x.high:.1%}]" for key, x in falls.items()
            )
            told.append(
                f"Falls with maps {label} ({len(outcome.maps)} of layer {outcome.layer}): {shares}."
            )
    return " ".join(told)


def load_forgetting(
    set_name: str, name: str = "window", root: Path | None = None
) -> dict[str, Any]:
    """Return what `record_forgetting` kept; see `numbers`.

    Raises
    ------
    UserError
        If it was not measured.
    """
    return load_details(
        details_name(set_name, name), f"dcgan forget ... --object {name} --record {set_name}", root
    )


def details_name(set_name: str, name: str) -> str:
    """Return where the numbers of a set and an object are kept; see `dcgan_lib.evaluation.ledger`."""
    return f"curves/forget.{set_name}.{name}"


FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class DrawnOutcome:
    """Hold what switching maps off did to pictures with boxes.

    Parameters
    ----------
    maps : list of int
        Which.
    scene : dict of str to Estimate
        How far pixels inside and outside the boxes moved, and the discriminator's features; see
        `dcgan_lib.interpretation.forgetting.Outcome`.
    light : dict of str to Estimate
        Brightness over that with all maps on, "inside" and "outside" the boxes.
    more_real : Estimate
        The discriminator's log-odds of "real" less those with all maps on; mean over pictures.
    """

    maps: list[int]
    scene: dict[str, Estimate]
    light: dict[str, Estimate]
    more_real: Estimate


@dataclass(frozen=True, kw_only=True)
class DrawnStudy:
    """Hold what was measured.

    Parameters
    ----------
    settings : dict
        As given.
    fit : Fit
        The regression on all boxes.
    accuracy : dict of str to Estimate
        Share of positions told right in pictures that were kept out, mean over pictures: from the "activations", and
        from the "place" in the picture alone.
    outcomes : dict of str to list of DrawnOutcome
        "paper": all maps with a weight over the threshold. "random" and "matched": as many by chance.
    shown : dict of str to ndarray
        Pictures for a figure.
    seconds : float
        Wall time.
    """

    settings: dict[str, Any]
    fit: Fit
    accuracy: dict[str, Estimate]
    outcomes: dict[str, list[DrawnOutcome]]
    shown: dict[str, np.ndarray]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DrawnBench:
    """Hold a generator, its discriminator, and the boxes drawn on the generator's pictures."""

    generator: Generator
    discriminator: Discriminator
    drawn: DrawnBoxes

    def draw(self, num: int) -> Originals:
        """Draw the pictures that have the boxes, with all maps on."""
        z_nd = sample_latents(num, self.generator.config, seeded(self.drawn.seed))
        pictures = generate_u8(self.generator, z_nd)
        boxes, features = self.drawn.padded(num), self.look(pictures)[0]
        return Originals(
            z_nd=z_nd, pictures_u8=pictures, read={}, boxes_n4=boxes, features_nf=features
        )

    @torch.no_grad()
    def look(self, pictures_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the discriminator makes of pictures: its last layer's activations, n x f, and log-odds, n."""
        x_bchw = from_u8(torch.from_numpy(pictures_u8), self.discriminator.config)
        features = self.discriminator.features(x_bchw)[-1].flatten(1)
        return features.numpy(), self.discriminator(x_bchw).numpy()

    def without(self, z_nd: torch.Tensor, maps: np.ndarray | list[int], layer: int) -> np.ndarray:
        """Return the pictures of latent vectors with maps switched off."""
        with silenced(self.generator, maps, layer):
            return generate_u8(self.generator, z_nd)

    def measure(
        self, originals: Originals, maps: np.ndarray | list[int], layer: int
    ) -> DrawnOutcome:
        """Switch maps off and compare with all maps on."""
        pictures = self.without(originals.z_nd, maps, layer)
        features, logits_n = self.look(pictures)
        return DrawnOutcome(
            maps=[int(i) for i in maps],
            scene=compare_scenes(originals, pictures, {}, features),
            light=compare_light(originals, pictures),
            more_real=bootstrap_interval(np.mean, logits_n - self.look(originals.pictures_u8)[1]),
        )


def compare_light(originals: Originals, pictures_u8: np.ndarray) -> dict[str, Estimate]:
    """Return the mean brightness inside and outside the boxes over that before; see `DrawnOutcome`."""
    size = pictures_u8.shape[2:]
    inside_nhw = positions_inside(originals.boxes_n4, size, size)
    boxed, found = inside_nhw.any((1, 2)), {}
    for place, mask in (("inside", inside_nhw[boxed]), ("outside", ~inside_nhw[boxed])):
        before, after = (
            (x[boxed].mean(1) * mask).sum((1, 2)) / mask.sum((1, 2)).clip(min=1)
            for x in (originals.pictures_u8, pictures_u8)
        )
        found[place] = bootstrap_interval(
            lambda old, new: new.mean() / max(old.mean(), 1e-9), before, after
        )
    return found


def make_drawn_bench(
    checkpoint: str, boxes: Path | None = None, seed: int = 0, name: str = "window"
) -> DrawnBench:
    """Put a generator and the boxes drawn on its pictures together.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    boxes : Path, optional
        Their file; by default ``windows.json`` in the checkpoint's folder.
    seed, name : int, str
        Which pictures they were drawn on, and around what.

    Raises
    ------
    UserError
        If the boxes were drawn on other pictures or around another object, or the generator draws classes.
    """
    config = load_config(checkpoint)[0].model
    if config.num_classes:
        raise UserError("forgetting needs a generator without classes: choose another checkpoint")
    folder = find_run(checkpoint)
    path = folder / "windows.json" if boxes is None else boxes
    drawn = load_boxes(path, config.image_size, checkpoint=folder.name, seed=seed, object=name)
    return DrawnBench(
        generator=load_generator(checkpoint),
        discriminator=load_discriminator(checkpoint),
        drawn=drawn,
    )


def held_out_accuracy(
    maps_nchw: np.ndarray,
    boxes_nk4: np.ndarray,
    image_size: tuple[int, int],
    *,
    c: float,
    seed: int,
) -> Estimate:
    """Return the share of positions told right in pictures that the regression had not seen, by folds of pictures.

    Notes
    -----
    Inside and outside are balanced in each picture, so that guessing is right about half of them. The interval is over
    pictures, because positions of one picture are not independent.
    """
    parts = labelled_positions(maps_nchw, boxes_nk4, image_size, seed)
    folds, right = np.random.default_rng(seed).permutation(len(parts)) % FOLDS, []
    for fold in range(FOLDS):
        model = regress([part for part, its in zip(parts, folds, strict=True) if its != fold], c)
        right += [model.score(*part) for part, its in zip(parts, folds, strict=True) if its == fold]
    return mean_interval(np.array(right))


def places(num: int, grid: tuple[int, int]) -> np.ndarray:
    """Return maps that know nothing but where a position is: down, across, their squares and product; n x 5 x h x w."""
    y_hw, x_hw = np.meshgrid(*(np.linspace(-1, 1, side) for side in grid), indexing="ij")
    return np.tile(
        np.stack([y_hw, x_hw, y_hw**2, x_hw**2, y_hw * x_hw])[None], (num, 1, 1, 1)
    ).astype(np.float32)


def run_drawn_forgetting(
    checkpoint: str,
    boxes: Path,
    name: str = "window",
    *,
    layer: int | None = None,
    threshold: float = 0.0,
    c: float = 1.0,
    samples: int = 150,
    draws: int = 10,
    seed: int = 0,
) -> DrawnStudy:
    """Forget an object by boxes drawn by hand; the parameters are those of ``dcgan forget``.

    Raises
    ------
    UserError
        If the boxes belong to something else, a number is out of range, or no map is left to switch off.
    """
    if samples < 10 or draws < 2 or c <= 0:
        raise UserError(
            f"forgetting needs 10 samples, 2 draws and c > 0, but got {samples}, {draws}, {c}"
        )
    begun, bench = time.monotonic(), make_drawn_bench(checkpoint, boxes, seed, name)
    config = bench.generator.config
    layer = second_highest(config) if layer is None else layer
    num_maps = check_layer(bench.generator, layer)
    originals = bench.draw(samples)
    maps_nchw = activations(bench.generator, originals.z_nd, layer)
    fit = fit_maps(maps_nchw, originals.boxes_n4, config.image_size, c=c, seed=seed)
    maps = fit.maps(threshold)
    if not 0 < len(maps) < num_maps:
        raise UserError(
            f"{len(maps)} of {num_maps} maps have a weight over {threshold:g}: choose another threshold"
        )
    energy_c = np.square(maps_nchw).mean((0, 2, 3))
    ways = {
        "paper": [maps],
        "random": [random_maps(num_maps, len(maps), seed + i) for i in range(draws)],
        "matched": [matched_maps(energy_c, maps, seed + i) for i in range(draws)],
    }
    known = {"activations": maps_nchw, "place": places(samples, maps_nchw.shape[2:])}
    settings = {
        "checkpoint": checkpoint,
        "object": name,
        "layer": layer,
        "threshold": threshold,
        "c": c,
    }
    settings |= {"samples": samples, "draws": draws, "seed": seed, "num_maps": num_maps}
    settings |= {"boxes": len(bench.drawn.boxes)}
    rows = bench.drawn.pictures[:10]
    shown = {"before": originals.pictures_u8[rows]}
    shown |= {
        way: bench.without(originals.z_nd[rows], ways[way][0], layer) for way in ("paper", "random")
    }
    return DrawnStudy(
        settings=settings,
        fit=fit,
        shown=shown,
        accuracy={
            way: held_out_accuracy(seen, originals.boxes_n4, config.image_size, c=c, seed=seed)
            for way, seen in known.items()
        },
        outcomes={
            way: [bench.measure(originals, off, layer) for off in sets]
            for way, sets in ways.items()
        },
        seconds=time.monotonic() - begun,
    )


CONDITIONS = ("before", "paper", "random", "matched")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Hold how many pictures were looked at, and how often the object was seen before and after, by way."""

    num: int
    changes: dict[str, Change]


def trial_pictures(bench: DrawnBench, study: DrawnStudy, num: int) -> dict[str, np.ndarray]:
    """Return pictures of the next seed in the conditions that are counted by eye.

    Parameters
    ----------
    bench : DrawnBench
        See `make_drawn_bench`.
    study : DrawnStudy
        Tells which maps are off: in "random" and "matched", picture i has those of draw i, and then the first again.
    num : int
        How many latent vectors.
    """
    layer = study.settings["layer"]
    z_nd = sample_latents(num, bench.generator.config, seeded(study.settings["seed"] + 1))
    pictures = {"before": bench.without(z_nd, [], layer)}
    for way in CONDITIONS[1:]:
        found = study.outcomes[way]
        turns = [
            bench.without(z_nd[i : i + 1], found[i % len(found)].maps, layer) for i in range(num)
        ]
        pictures[way] = np.concatenate(turns)
    return pictures


def read_counts(path: Path, settings: Mapping[str, Any]) -> Counted:
    """Read what was seen by eye in `trial_pictures`, a string of 0 and 1 for each condition, and compare.

    Raises
    ------
    UserError
        If the file is damaged, or its pictures were other ones.
    """
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        seen = {
            way: np.array([{"0": False, "1": True}[digit] for digit in saved["seen"][way]])
            for way in CONDITIONS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{Path(path).name} is not a file of counts: {type(error).__name__} {error}"
        ) from error
    same = ("checkpoint", "object", "layer", "threshold", "c", "samples", "boxes", "draws", "seed")
    if differing := [key for key in same if saved.get("settings", {}).get(key) != settings[key]]:
        raise UserError(
            f"{Path(path).name} was counted with other settings of {', '.join(differing)}: count again"
        )
    if len({len(row) for row in seen.values()}) != 1:
        raise UserError(f"{Path(path).name} must have as many digits in each condition")
    changes = {way: compare(seen["before"], seen[way]) for way in CONDITIONS[1:]}
    return Counted(num=len(seen["before"]), changes=changes)


def drawn_object_checks(counted: Counted, name: str) -> dict[str, bool]:
    """Judge ``forget.object``: most are gone, and others at random do not do it."""
    fall, random, matched = (counted.changes[way].fall for way in CONDITIONS[1:])
    return {
        f"the rate of {name}s, counted by eye, falls by {LEAST_FALL:.0%} or more": fall.low
        >= LEAST_FALL,
        "it falls, and by more than with as many random maps off": fall.low > max(0, random.high),
        "it falls, and by more than with as many random maps off that are about as active": (
            fall.low > max(0, matched.high)
        ),
    }


def drawn_rest_checks(outcome: DrawnOutcome) -> dict[str, bool]:
    """Judge ``forget.rest``: the scene is still the same."""
    scene = outcome.scene
    return {
        "outside the boxes, pixels move less than half as far as to an unrelated picture": (
            scene["pixels outside"].high < MOST_MOVED
        ),
        "the discriminator's features move less than half as far as to an unrelated picture": (
            scene["features"].high < MOST_MOVED
        ),
        "pixels move farther inside the boxes than outside": scene["pixels inside"].low
        > scene["pixels outside"].high,
    }


def drawn_numbers(study: DrawnStudy, counted: Counted | None) -> dict[str, Any]:
    """Return what was measured as plain values; each estimate is value, low, high."""

    def plain(outcome: DrawnOutcome) -> dict[str, Any]:
        scene = {key: rounded(x) for key, x in outcome.scene.items()}
        light = {key: rounded(x) for key, x in outcome.light.items()}
        return {
            "maps": outcome.maps,
            "scene": scene,
            "light": light,
            "more_real": rounded(outcome.more_real),
        }

    fit = {"boxes": study.fit.num_boxes, "positions": study.fit.num_positions}
    fit |= {"accuracy": {way: rounded(x) for way, x in study.accuracy.items()}}
    seen: dict[str, Any] = {"pictures": counted.num} if counted else {}
    for way, change in counted.changes.items() if counted else ():
        seen[way] = {key: rounded(x) for key, x in vars(change).items()}
    return {
        "settings": study.settings,
        "fit": fit | {"weights": [round(float(w), 4) for w in study.fit.weights_c]},
        "outcomes": {
            way: [plain(outcome) for outcome in found] for way, found in study.outcomes.items()
        },
        "counted": seen,
    }


def record_drawn(
    study: DrawnStudy, counted: Counted, set_name: str, *, command: str, root: Path | None = None
) -> list[Result]:
    """Enter ``forget.object:SET`` and ``forget.rest:SET`` into the ledger; keep details.

    Parameters
    ----------
    study, counted : DrawnStudy, Counted
        What was measured, and what `read_counts` returned.
    set_name, command, root : optional
        See `dcgan_lib.evaluation.ledger.record`.
    """
    name, (outcome,) = study.settings["object"], study.outcomes["paper"]
    save_details(details_name(set_name, name), drawn_numbers(study, counted), root)
    shared: dict[str, Any] = {
        "command": command,
        "seconds": study.seconds,
        "seed": study.settings["seed"],
        "unit": "%",
    }
    shared |= {
        "checkpoint": study.settings["checkpoint"],
        "data": f"{set_name}, generated",
        "root": root,
    }
    (gone, random, matched), accuracy = (
        (counted.changes[way] for way in CONDITIONS[1:]),
        study.accuracy,
    )
    told = (
        f"Relative fall (below 0: a rise) of the rate of {name}s, counted by eye in shuffled pictures, when "
        f"{len(outcome.maps)} of {study.settings['num_maps']} maps of layer {study.settings['layer']} are off, all "
        f"with a weight over {study.settings['threshold']:g}; from {gone.before.value:.1%} to {gone.after.value:.1%} "
        f"of pictures, with random maps to {random.after.value:.1%}, with as active ones to {matched.after.value:.1%}. "
        f"{study.settings['boxes']} boxes drawn by hand "
        f"in {study.fit.num_boxes} pictures; of pictures kept out, the regression tells "
        f"{accuracy['activations'].value:.1%} of positions right, one that knows only the place "
        f"{accuracy['place'].value:.1%}."
    )
    rest = (
        "Distance that pixels outside the boxes moved, in % of that between unrelated pictures. "
        + " ".join(
            f"{label}: {_told(study.outcomes[way])}."
            for way, label in (("paper", "Picked"), ("random", "Random maps"))
        )
    )
    return [
        record(
            f"forget.object:{set_name}",
            value=gone.fall.scaled(100),
            n=counted.num,
            notes=told,
            checks=drawn_object_checks(counted, name),
            **shared,
        ),
        record(
            f"forget.rest:{set_name}",
            value=outcome.scene["pixels outside"].scaled(100),
            n=study.fit.num_boxes,
            checks=drawn_rest_checks(outcome),
            notes=rest,
            **shared,
        ),
    ]


def _told(found: list[DrawnOutcome]) -> str:
    """Return how far the pictures moved in a sentence's middle, as a mean over choices of maps."""
    moved = ", ".join(
        f"{key} {fmean(o.scene[key].value for o in found):.2f}" for key in found[0].scene
    )
    light = ", ".join(
        f"{key} {fmean(o.light[key].value for o in found):.2f}" for key in found[0].light
    )
    more = fmean(o.more_real.value for o in found)
    told = f"as shares, {moved}; brightness over that before, {light}"
    return f"{told}; the discriminator's log-odds of real change by {more:+.1f}"


@dataclass(frozen=True, kw_only=True)
class Forget:
    """Make a generator forget windows, as in Fig. 6: find the maps that draw them, switch them off, and measure."""

    checkpoint: Positional[str] = "rooms"
    """A committed checkpoint of drawn bedrooms or a run's folder; with --boxes, any without classes."""
    object: str = "window"
    """What to forget: window, bed, lamp, door or picture."""
    layer: int | None = None
    """Whose maps, by the transposed convolution that reads them, from 0; unset: the second-highest, 2 at 64 pixels."""
    threshold: float = 0.0
    """Maps whose weight in the regression is greater are switched off."""
    c: float = 1.0
    """Inverse strength of the regression's penalty."""
    samples: int = 150
    """Pictures to choose maps on."""
    measured: int = 1_000
    """Other pictures to measure on."""
    draws: int = 10
    """How often to switch off as many maps by chance."""
    seed: int = 0
    """Of the pictures to choose on; the next two are those of the pictures to measure and to tune on."""
    compare: bool = False
    """Also choose layer and number of maps by weight, and maps by what happens without them; two minutes."""
    boxes: Path | None = None
    """File of boxes drawn by hand with BoxDrawer on the pictures of this seed; then no probe is needed or asked."""
    counts: Path | None = None
    """With --boxes: file of what was seen by eye with maps off."""
    out: Path = Path("forget")
    """Folder of forget.png, maps.json and numbers.json."""
    record: str | None = None
    """Compare, and enter forget.object and forget.rest into the ledger for this set, such as rooms."""

    def run(self) -> None:
        """Forget, measure, write, and record if asked."""
        from dcgan_lib.evaluation.ledger import check_command, split_id

        if self.record:
            split_id(f"forget.object:{self.record}")
            check_command("forget.object", self._command(), self.record)
        if self.boxes:
            return self._run_drawn(self.boxes)
        study = run_forgetting(
            self.checkpoint,
            self.object,
            layer=self.layer,
            threshold=self.threshold,
            c=self.c,
            samples=self.samples,
            measured=self.measured,
            draws=self.draws,
            seed=self.seed,
            compare=self.compare or bool(self.record),
        )
        self._tell(study)
        maps = {
            way: {"layer": outcome.layer, "maps": outcome.maps}
            for way, outcome in study.outcomes.items()
        }
        self._write(study, maps, numbers(study))
        if self.record:
            for row in record_forgetting(study, self.record, command=self._command()):
                print(
                    f"recorded {row.id}: {row.value:.1f} [{row.low:.1f}, {row.high:.1f}] {row.unit} {row.verdict}"
                )

    def _run_drawn(self, boxes: Path) -> None:
        """Do the same with boxes drawn by hand."""
        if self.record and not self.counts:
            raise UserError(
                "without a probe, windows must be counted by eye before a record: add --counts FILE"
            )
        study = run_drawn_forgetting(
            self.checkpoint,
            boxes,
            self.object,
            layer=self.layer,
            threshold=self.threshold,
            c=self.c,
            samples=self.samples,
            draws=self.draws,
            seed=self.seed,
        )
        counted = read_counts(self.counts, study.settings) if self.counts else None
        (outcome,) = study.outcomes["paper"]
        maps = {"paper": {"layer": study.settings["layer"], "maps": outcome.maps}}
        self._write(study, maps, drawn_numbers(study, counted))
        for way, share in study.accuracy.items():
            print(
                f"positions told right by {way}: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
            )
        for way, found in study.outcomes.items():
            moved = ", ".join(
                f"{key} {fmean(o.scene[key].value for o in found):.2f}" for key in outcome.scene
            )
            print(f"{way}, {len(outcome.maps)} maps off, moved: {moved}")
        for way, change in counted.changes.items() if counted else ():
            print(f"{way}, counted by eye: {change.before.value:.1%} -> {change.after.value:.1%}")
        if self.record and counted:
            rows = record_drawn(study, counted, self.record, command=self._command())
            print(
                "\n".join(
                    f"recorded {row.id}: {row.value:.1f} {row.unit} {row.verdict}" for row in rows
                )
            )

    def _write(
        self, study: "ForgetStudy | DrawnStudy", maps: dict[str, Any], numbers: dict[str, Any]
    ) -> None:
        """Write the figure, the maps and the numbers."""
        import numpy as np

        from dcgan_lib.models.sampling import write_grid
        from dcgan_lib.paths import atomic_write

        write_grid(
            self.out / "forget.png",
            np.concatenate(list(study.shown.values())),
            len(study.shown["before"]),
        )
        about = {
            "checkpoint": self.checkpoint,
            "seed": self.seed,
            "rows": list(study.shown),
            "switched off": maps,
        }
        atomic_write(self.out / "maps.json", json.dumps(about, indent=1) + "\n")
        atomic_write(self.out / "numbers.json", json.dumps(numbers, indent=1) + "\n")
        print(f"figure, maps and numbers: {self.out}")

    def _tell(self, study: "ForgetStudy") -> None:

        for way, outcome in study.outcomes.items():
            print(f"{way}: {len(outcome.maps)} maps of layer {outcome.layer} off")
            for key, change in outcome.changes.items():
                fall = change.fall
                share = f"{change.before.value:6.1%} -> {change.after.value:6.1%}"
                print(
                    f"  {key:8} {share}, falls by {fall.value:6.1%} [{fall.low:.1%}, {fall.high:.1%}]"
                )
        for kind, found in study.controls.items():
            fall = mean_fall(found, self.object)
            print(
                f"as many, {kind}: {self.object} falls by {fall.value:.1%} [{fall.low:.1%}, {fall.high:.1%}]"
            )

    def _command(self) -> str:
        chosen = {"boxes": self.boxes, "counts": self.counts}
        words = ["dcgan forget", self.checkpoint, f"--object {self.object}"]
        words += [] if self.layer is None else [f"--layer {self.layer}"]
        words += [f"--threshold {self.threshold:g} --c {self.c:g} --samples {self.samples}"]
        words += [] if self.boxes else [f"--measured {self.measured}"]
        words += [f"--{key} {path.as_posix()}" for key, path in chosen.items() if path]
        return " ".join([*words, f"--draws {self.draws} --seed {self.seed} --record {self.record}"])
