"""Switch off the maps that draw windows, and measure what is lost (section 6.3.1, Fig. 6).

Where a probe finds and judges objects (drawn rooms), rates are read by it. Where none was made,
boxes are drawn by hand (`dcgan_lib.widgets.box_drawer`), and windows are counted by eye.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.errors import UserError, check_number, check_numbers, require
from dcgan_lib.evaluation.boxes import HandBoxes, load_boxes
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    check_command,
    load_details,
    record,
    rounded,
    save_details,
)
from dcgan_lib.evaluation.probes import load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, mean_interval
from dcgan_lib.interpretation.forgetting import (
    Bench,
    Fit,
    Originals,
    activations,
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
from dcgan_lib.models.sampling import from_u8, generate_u8, sample_latents, seeded, write_grid
from dcgan_lib.paths import read_json, write_json
from dcgan_lib.training.checkpoints import find_run, load_config, load_discriminator, load_generator

FINDERS = {"rooms": ("probe-rooms", "probe-room-boxes")}
"""For each image set, who judges its pictures and who finds boxes in them."""
LEAST_FALL, MOST_FALL, MOST_MOVED = 0.8, 0.15, 0.5
"""What counts as forgotten, and as the rest staying; set before the measurement."""
SHOWN, VALIDATED, FOLDS = 10, 500, 5
CONDITIONS = ("before", "paper", "random", "matched")
"""All maps on; those off that the regression picks; as many by chance, and as many that are about
as active."""


@dataclass(frozen=True, kw_only=True)
class Forget(Command, verb="forget"):
    """Find the maps of a generator that draw windows, as in Fig. 6, switch them off, measure."""

    checkpoint: Positional[str] = "rooms"
    """A committed checkpoint of drawn bedrooms or a run's folder; with --boxes, any without
    classes."""
    object: str = "window"
    """What to forget: window, bed, lamp, door or picture."""
    layer: int | None = None
    """Whose maps, by the transposed convolution that reads them, from 0; unset: the
    second-highest."""
    threshold: float = 0.0
    """Maps whose weight in the regression is greater are switched off."""
    c: float = 1.0
    """Inverse strength of the regression's penalty."""
    samples: int = 150
    """Pictures to choose maps on."""
    measured: int = 1_000
    """Other pictures to measure on; with --boxes, those that have boxes are measured."""
    draws: int = 10
    """How often to switch off as many maps by chance."""
    seed: int = 0
    """Of the pictures to choose on; the next two are those to measure and to tune on."""
    compare: bool = False
    """Also choose layer and number of maps by weight, and maps by what happens without them."""
    boxes: Path | None = None
    """File of boxes drawn by hand with BoxDrawer on the pictures of this seed: no probe is
    asked."""
    counts: Path | None = None
    """With --boxes: file of what was seen by eye with maps off."""
    out: Path = local(Path("forget"))
    """Folder of forget.png and numbers.json."""
    record: str | None = None
    """Compare, and enter forget.object and forget.rest into the ledger for this set, such as
    rooms."""

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be measured."""
        check_numbers(self, 10, "samples", "measured")
        check_number(self, "draws", 2)
        require(self.c > 0, "c", self.c, "above 0")
        if self.record:
            check_command(f"forget.object:{self.record}", self.command_line(), self.record)
            if self.boxes and not self.counts:
                raise UserError(
                    "without a probe, windows must be counted by eye before a record: "
                    "add --counts FILE"
                )

    def run(self) -> None:
        """Forget, measure, write, and record if asked."""
        self.check()
        begun = time.monotonic()
        if self.boxes:
            bench = make_hand_bench(self.checkpoint, self.boxes, self.seed, self.object)
            found, shown = measure_by_hand(self, bench)
            print_by_hand(found)
        else:
            found, shown = measure(self, make_bench(self.checkpoint, self.object))
            print_found(found)
        write_grid(self.out / "forget.png", np.concatenate([*shown.values()]), len(shown["before"]))
        write_json(self.out / "numbers.json", found)
        print(f"numbers and figure, whose rows are {', '.join(shown)}: {self.out}")
        if self.record:
            save_details(f"curves/forget.{self.record}.{self.object}", found)
            if self.object == "window":  # the paper's claim is about windows
                entries = record_by_hand if self.boxes else record_found
                entries(self, found, time.monotonic() - begun)


def load_forgetting(set_name: str, name: str = "window") -> dict[str, Any]:
    """Return what was recorded of a set and an object; see `measure` and `measure_by_hand`."""
    command = f"dcgan forget ... --object {name} --record {set_name}"
    return load_details(f"curves/forget.{set_name}.{name}", command)


SETTINGS = ("checkpoint", "object", "threshold", "c", "samples", "draws", "seed")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Maps to switch off, and the regression that picks them."""

    layer: int
    fit: Fit
    off: dict[str, list[np.ndarray]]
    """Sets of maps: "paper" has the one that the regression picks; "random" and "matched" have one
    a draw, see `CONDITIONS`."""

    def about(self, how: Forget) -> dict[str, Any]:
        """Return settings and fit as plain values."""
        fit, settings = self.fit, {name: getattr(how, name) for name in SETTINGS}
        return {
            "settings": settings | {"layer": self.layer, "num_maps": len(fit.weights_c)},
            "fit": {
                "boxes": fit.num_boxes,
                "positions": fit.num_positions,
                "accuracy": fit.accuracy,
                "weights": fit.weights_c.tolist(),
            },
        }


def choose_maps(how: Forget, generator: Generator, chosen_on: Originals) -> Choice:
    """Pick maps by the regression, as many by chance, and as many that are about as active."""
    layer = second_highest(generator.config) if how.layer is None else how.layer
    maps_nchw = activations(generator, chosen_on.z_nd, layer)
    size = generator.config.image_size
    fit = fit_maps(maps_nchw, chosen_on.boxes_n4, size, c=how.c, seed=how.seed)
    picked, num_maps = fit.maps(how.threshold), len(fit.weights_c)
    if not 0 < len(picked) < num_maps:
        raise UserError(
            f"{len(picked)} of {num_maps} maps have a weight over {how.threshold:g}: "
            "choose another threshold"
        )
    energy_c, seeds = np.square(maps_nchw).mean((0, 2, 3)), range(how.seed, how.seed + how.draws)
    off = {
        "paper": [picked],
        "random": [random_maps(num_maps, len(picked), seed) for seed in seeds],
        "matched": [matched_maps(energy_c, picked, seed) for seed in seeds],
    }
    return Choice(layer=layer, fit=fit, off=off)


# --- pictures that a probe reads ---
def make_bench(checkpoint: str, name: str = "window") -> Bench:
    """Put a generator, its judge and its finder together."""
    image_set = load_config(checkpoint)[1]["image_set"]
    if image_set not in FINDERS:
        raise UserError(
            f"no probe finds objects in pictures of {image_set!r}: choose a generator of "
            f"{', '.join(FINDERS)}, or give boxes drawn by hand with --boxes"
        )
    judge, finder = (load_probe(probe) for probe in FINDERS[image_set])
    other = "window" if name == "bed" else "bed"
    generator = load_generator(checkpoint)
    return Bench(generator=generator, judge=judge, finder=finder, name=name, other=other)


def measure(how: Forget, bench: Bench) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Forget an object and measure what is lost; with --compare or --record, in other ways too.

    Return plain values, an estimate being value, low, high, and the first pictures that show the
    object, before and after. ``outcomes``: "paper", all maps with a weight over the threshold; if
    compared, "tuned", the layer and number of maps that serve best by weight, and "effect", maps
    chosen by what happens without them. ``controls``: the object's mean fall with "random" and
    "matched" maps off. ``sweep``: rates on the third seed against the number of maps, by "weight"
    and by "effect".
    """
    chosen_on = bench.draw(how.samples, how.seed)
    choice = choose_maps(how, bench.generator, chosen_on)
    originals = bench.draw(how.measured, how.seed + 1)
    outcomes, sweep = {"paper": bench.measure(originals, choice.off["paper"][0], choice.layer)}, {}
    if how.compare or how.record:
        picked, sweep = _tune(how, bench, chosen_on, choice.layer)
        outcomes |= {way: bench.measure(originals, *chosen) for way, chosen in picked.items()}
    has_it, controls = originals.read[bench.name] > 0.5, {}
    for kind in ("random", "matched"):
        rates = [bench.rates(originals, off, choice.layer) for off in choice.off[kind]]
        falls = [1 - rate[bench.name] / has_it.mean() for rate in rates]
        controls[kind] = {bench.name: mean_interval(falls)}
    rows = np.flatnonzero(has_it)[:SHOWN]
    shown = {"before": originals.pictures_u8[rows]}
    for way, outcome in outcomes.items():
        shown[way] = bench.without(originals, outcome.maps, outcome.layer)[rows]
    shown["random"] = bench.without(originals, choice.off["random"][0], choice.layer)[rows]
    found = choice.about(how)
    found["settings"] |= {"measured": how.measured, "other": bench.other}
    found |= {
        "outcomes": {way: asdict(outcome) for way, outcome in outcomes.items()},
        "controls": controls,
        "sweep": sweep,
    }
    return rounded(found, 4), shown


def _tune(
    how: Forget, bench: Bench, chosen_on: Originals, layer: int
) -> tuple[dict[str, tuple[np.ndarray, int]], dict[str, list[dict[str, Any]]]]:
    """Choose layer and number of maps, by weight and by effect, on pictures of the third seed.

    By effect, only this layer and the one below are tried: each map costs as many pictures as there
    are samples.
    """
    validation = bench.draw(VALIDATED, how.seed + 2)
    orders: dict[str, dict[int, np.ndarray]] = {"weight": {}, "effect": {}}
    for other in range(len(bench.generator.convs)):
        try:
            orders["weight"][other] = bench.fit(chosen_on, other, c=how.c, seed=how.seed).maps()
        except UserError:  # the object is smaller than a position of this layer's grid
            continue
    for at in {max(layer - 1, 0), layer}:
        effects_c = measure_effects(bench.generator, bench.finder, chosen_on.z_nd, at, bench.name)
        orders["effect"][at] = np.argsort(effects_c, kind="stable")[: int((effects_c < 0).sum())]
    sweep = {
        way: [row for at, order in by_layer.items() for row in bench.sweep(validation, order, at)]
        for way, by_layer in orders.items()
    }
    picked = {}
    for way, by in (("tuned", "weight"), ("effect", "effect")):
        row = bench.best(validation, sweep[by])
        picked[way] = orders[by][row["layer"]][: row["count"]], row["layer"]
    return picked, sweep


def print_found(found: dict[str, Any]) -> None:
    """Print what each choice of maps did to each object."""
    for way, outcome in found["outcomes"].items():
        print(f"{way}: {len(outcome['maps'])} maps of layer {outcome['layer']} off")
        for name, change in outcome["changes"].items():
            before, after = change["before"][0], change["after"][0]
            print(f"  {name:8} {before:6.1%} -> {after:6.1%}, falls by {_share(change['fall'])}")
    name = found["settings"]["object"]
    for kind, falls in found["controls"].items():
        print(f"as many, {kind}: {name} falls by {_share(falls[name])}")


def _share(estimate: list[float]) -> str:
    value, low, high = estimate
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def object_checks(
    fall: list[float], random: list[float], matched: list[float], rate: str
) -> dict[str, bool]:
    """Judge ``forget.object``: most are gone, and as many maps by chance do not do it."""
    as_many = "it falls, and by more than with as many random maps off"
    return {
        f"{rate} falls by {LEAST_FALL:.0%} or more": fall[1] >= LEAST_FALL,
        as_many: fall[1] > max(0, random[2]),
        f"{as_many} that are about as active": fall[1] > max(0, matched[2]),
    }


def scene_checks(scene: dict[str, list[float]], features: str) -> dict[str, bool]:
    """Judge ``forget.rest``: the scene is still the same."""
    unrelated = "less than half as far as to an unrelated picture"
    outside, inside = scene["pixels outside"], scene["pixels inside"]
    return {
        f"outside the boxes, pixels move {unrelated}": outside[2] < MOST_MOVED,
        f"{features} move {unrelated}": scene["features"][2] < MOST_MOVED,
        "pixels move farther inside the boxes than outside": inside[1] > outside[2],
    }


def rest_checks(found: dict[str, Any]) -> dict[str, bool]:
    """Judge ``forget.rest`` by a probe too: other objects are still there."""
    outcome, other = found["outcomes"]["paper"], found["settings"]["other"]
    falls = {name: change["fall"] for name, change in outcome["changes"].items()}
    most = max(abs(fall[0]) for name, fall in falls.items() if name != found["settings"]["object"])
    return {
        f"the rate of {other}s falls by {MOST_FALL:.0%} at most": falls[other][2] <= MOST_FALL,
        f"the rate of no other object changes by more than {MOST_FALL:.0%}": most <= MOST_FALL,
        **scene_checks(outcome["scene"], "features"),
    }


def record_found(how: Forget, found: dict[str, Any], seconds: float) -> list[Result]:
    """Enter ``forget.object:SET`` and ``forget.rest:SET`` into the ledger."""
    outcome, settings, fit = found["outcomes"]["paper"], found["settings"], found["fit"]
    gone, other = outcome["changes"]["window"], settings["other"]
    random, matched = (found["controls"][kind]["window"] for kind in ("random", "matched"))
    notes = (
        f"Relative fall (below 0: a rise) of the rate of windows when {len(outcome['maps'])} of "
        f"{settings['num_maps']} maps of layer {outcome['layer']} are off, all with a weight over "
        f"{how.threshold:g}; from {gone['before'][0]:.1%} to {gone['after'][0]:.1%} of samples; "
        f"{gone['kept'][0]:.1%} of those with a window keep it. {fit['boxes']} boxes; the "
        f"regression is right on {fit['accuracy']:.1%} of positions kept out of it. Mean fall with "
        f"random maps {random[0]:.1%}, with as active ones {matched[0]:.1%}. {_other_ways(found)}"
    )
    stayed = "; ".join(
        f"{name} {change['fall'][0]:+.1%}"
        for name, change in outcome["changes"].items()
        if name != "window"
    )
    moved = ", ".join(f"{name} {value[0]:.2f}" for name, value in outcome["scene"].items())
    rest = (
        f"Relative fall (below 0: a rise) of the rate of {other}s. All falls: {stayed}. "
        f"Distance moved over that of unrelated pictures: {moved}."
    )
    checks = object_checks(gone["fall"], random, matched, "the rate of windows")
    stay = outcome["changes"][other]["fall"]
    about = {"seconds": seconds, "n": how.measured}
    return [
        _enter(how, "object", gone["fall"], checks=checks, notes=notes, **about),
        _enter(how, "rest", stay, checks=rest_checks(found), notes=rest, **about),
    ]


def _enter(how: Forget, part: str, share: list[float], **row: Any) -> Result:
    return record(
        f"forget.{part}:{how.record}",
        Estimate(*share).scaled(100),
        unit="%",
        data=f"{how.record}, generated",
        command=how.command_line(),
        seed=how.seed,
        checkpoint=how.checkpoint,
        **row,
    )


def _other_ways(found: dict[str, Any]) -> str:
    sentences = []
    for way, label in (
        ("tuned", "best layer and number by weight"),
        ("effect", "chosen by effect"),
    ):
        outcome = found["outcomes"][way]
        maps = f"{len(outcome['maps'])} of layer {outcome['layer']}"
        gone, stay = (
            f"{name} {_share(outcome['changes'][name]['fall'])}"
            for name in ("window", found["settings"]["other"])
        )
        sentences.append(f"Falls with maps {label} ({maps}): {gone}, {stay}.")
    return " ".join(sentences)


# --- boxes drawn by hand, windows counted by eye ---
@dataclass(frozen=True, kw_only=True)
class HandBench:
    """A generator, its discriminator, and the boxes drawn by hand on the generator's pictures."""

    generator: Generator
    discriminator: Discriminator
    boxes: HandBoxes

    def draw(self, num: int) -> Originals:
        """Draw the pictures that have the boxes, with all maps on."""
        z_nd = sample_latents(num, self.generator.config, seeded(self.boxes.seed))
        pictures = generate_u8(self.generator, z_nd)
        return Originals(
            z_nd=z_nd,
            pictures_u8=pictures,
            read={},
            boxes_n4=self.boxes.padded(num),
            features_nf=self.look(pictures)[0],
        )

    @torch.no_grad()
    def look(self, pictures_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the discriminator's last layer, n x f, and its log-odds of "real", n."""
        x_bchw = from_u8(torch.from_numpy(pictures_u8), self.discriminator.config)
        features = self.discriminator.features(x_bchw)[-1].flatten(1)
        return features.numpy(), self.discriminator(x_bchw).numpy()

    def without(self, z_nd: torch.Tensor, maps: np.ndarray | list[int], layer: int) -> np.ndarray:
        """Return the pictures of latent vectors with maps switched off."""
        with silenced(self.generator, maps, layer):
            return generate_u8(self.generator, z_nd)

    def measure(self, originals: Originals, maps: np.ndarray, layer: int) -> dict[str, Any]:
        """Switch maps off and compare with all maps on.

        ``scene``: see `Outcome`, features are the discriminator's. ``light``: brightness inside and
        outside the boxes over that before. ``more_real``: the discriminator's log-odds of "real"
        less those before.
        """
        pictures = self.without(originals.z_nd, maps, layer)
        features, logits_n = self.look(pictures)
        scene = compare_scenes(originals, pictures, {}, features)
        light = compare_light(originals, pictures)
        gain_n = logits_n - self.look(originals.pictures_u8)[1]
        more_real = bootstrap_interval(np.mean, gain_n)
        return {"maps": maps.tolist(), "scene": scene, "light": light, "more_real": more_real}


def make_hand_bench(
    checkpoint: str, boxes: Path | None = None, seed: int = 0, name: str = "window"
) -> HandBench:
    """Put a generator and the boxes drawn on its pictures together.

    The file of boxes is by default ``windows.json`` in the checkpoint's folder; boxes drawn on
    pictures of another seed, or around another object, are refused.
    """
    config = load_config(checkpoint)[0].model
    if config.num_classes:
        raise UserError("forgetting needs a generator without classes: choose another checkpoint")
    folder = find_run(checkpoint)
    path = folder / "windows.json" if boxes is None else boxes
    return HandBench(
        generator=load_generator(checkpoint),
        discriminator=load_discriminator(checkpoint),
        boxes=load_boxes(path, config.image_size, checkpoint=folder.name, seed=seed, object=name),
    )


def compare_light(originals: Originals, pictures_u8: np.ndarray) -> dict[str, Estimate]:
    """Return the mean brightness inside and outside the boxes over that before."""
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


def held_out_accuracy(
    maps_nchw: np.ndarray, boxes_nk4: np.ndarray, image_size: tuple[int, int], c: float, seed: int
) -> Estimate:
    """Return the share of positions told right in held-out pictures, by folds of pictures.

    Inside and outside are balanced in each picture, so that guessing is right about half of them.
    The interval is over pictures, because positions of one picture are not independent.
    """
    parts = labelled_positions(maps_nchw, boxes_nk4, image_size, seed)
    folds, right = np.random.default_rng(seed).permutation(len(parts)) % FOLDS, []
    for fold in range(FOLDS):
        model = regress([part for part, its in zip(parts, folds, strict=True) if its != fold], c)
        right += [model.score(*part) for part, its in zip(parts, folds, strict=True) if its == fold]
    return mean_interval(np.array(right))


def places(num: int, grid: tuple[int, int]) -> np.ndarray:
    """Return maps of the place alone: down, across, their squares and product, n x 5 x h x w."""
    y_hw, x_hw = np.meshgrid(*(np.linspace(-1, 1, side) for side in grid), indexing="ij")
    maps_chw = np.stack([y_hw, x_hw, y_hw**2, x_hw**2, y_hw * x_hw]).astype(np.float32)
    return np.tile(maps_chw, (num, 1, 1, 1))


def measure_by_hand(how: Forget, bench: HandBench) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Forget an object by boxes drawn by hand; return plain values, and pictures before and after.

    An estimate is value, low, high. ``fit.accuracy``: positions told right in pictures that were
    kept out, from the "activations", and from the "place" alone. ``outcomes``: see
    `HandBench.measure`, one a choice of maps. ``counted``: what was seen by eye, where --counts
    names it.
    """
    originals, size = bench.draw(how.samples), bench.generator.config.image_size
    choice = choose_maps(how, bench.generator, originals)
    maps_nchw = activations(bench.generator, originals.z_nd, choice.layer)
    known = {"activations": maps_nchw, "place": places(how.samples, maps_nchw.shape[2:])}
    found = choice.about(how)
    found["settings"]["boxes"] = len(bench.boxes.boxes)
    found["fit"]["accuracy"] = {
        by: held_out_accuracy(seen, originals.boxes_n4, size, how.c, how.seed)
        for by, seen in known.items()
    }
    found["outcomes"] = {
        way: [bench.measure(originals, off, choice.layer) for off in sets]
        for way, sets in choice.off.items()
    }
    found["counted"] = read_counts(how.counts, found["settings"]) if how.counts else {}
    rows = bench.boxes.pictures[:SHOWN]
    shown = {"before": originals.pictures_u8[rows]}
    for way in ("paper", "random"):
        shown[way] = bench.without(originals.z_nd[rows], choice.off[way][0], choice.layer)
    return rounded(found, 4), shown


def trial_pictures(bench: HandBench, found: dict[str, Any], num: int) -> dict[str, np.ndarray]:
    """Return pictures of the next seed in the conditions that are counted by eye.

    In "random" and "matched", picture i has the maps of draw i off, and then the first again.
    """
    layer, seed = found["settings"]["layer"], found["settings"]["seed"]
    z_nd = sample_latents(num, bench.generator.config, seeded(seed + 1))
    pictures = {"before": bench.without(z_nd, [], layer)}
    for way in CONDITIONS[1:]:
        maps = [outcome["maps"] for outcome in found["outcomes"][way]]
        turns = [bench.without(z_nd[i : i + 1], maps[i % len(maps)], layer) for i in range(num)]
        pictures[way] = np.concatenate(turns)
    return pictures


def read_counts(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was seen by eye in `trial_pictures`, a 0 or 1 a picture, and compare.

    ``pictures``: how many were looked at; then by condition what `Change` holds. Counts of other
    pictures are refused.
    """
    saved = read_json(path, "count again")
    try:
        seen = {
            way: np.array([{"0": False, "1": True}[digit] for digit in saved["seen"][way]])
            for way in CONDITIONS
        }
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path.name} is not a file of counts: {type(error).__name__} {error}"
        ) from error
    same = (*SETTINGS, "layer", "boxes")
    if differing := [key for key in same if saved.get("settings", {}).get(key) != settings[key]]:
        raise UserError(
            f"{path.name} was counted with other settings of {', '.join(differing)}: count again"
        )
    if len({len(row) for row in seen.values()}) != 1:
        raise UserError(f"{path.name} must have as many digits in each condition")
    changes = {way: asdict(compare(seen["before"], seen[way])) for way in CONDITIONS[1:]}
    return rounded({"pictures": len(seen["before"])} | changes, 4)


def print_by_hand(found: dict[str, Any]) -> None:
    """Print how well positions are told, how far pictures move, and what was counted."""
    for by, share in found["fit"]["accuracy"].items():
        print(f"positions told right by {by}: {_share(share)}")
    for way, some in found["outcomes"].items():
        print(f"{way}, {len(some[0]['maps'])} maps off, moved: {_means(some, 'scene')}")
    for way in CONDITIONS[1:] if found["counted"] else ():
        before, after = (found["counted"][way][part][0] for part in ("before", "after"))
        print(f"{way}, counted by eye: {before:.1%} -> {after:.1%}")


def _means(outcomes: list[dict[str, Any]], part: str) -> str:
    names = outcomes[0][part]
    return ", ".join(f"{name} {fmean(o[part][name][0] for o in outcomes):.2f}" for name in names)


def record_by_hand(how: Forget, found: dict[str, Any], seconds: float) -> list[Result]:
    """Enter ``forget.object:SET`` and ``forget.rest:SET`` into the ledger, as counted by eye."""
    settings, fit, counted = found["settings"], found["fit"], found["counted"]
    (outcome,) = found["outcomes"]["paper"]
    gone, random, matched = (counted[way] for way in CONDITIONS[1:])
    notes = (
        f"Relative fall (below 0: a rise) of the rate of windows, counted by eye, when "
        f"{len(outcome['maps'])} of {settings['num_maps']} maps of layer {settings['layer']} are "
        f"off, all with a weight over {how.threshold:g}; from {gone['before'][0]:.1%} to "
        f"{gone['after'][0]:.1%} of pictures, with random maps to {random['after'][0]:.1%}, with "
        f"as active ones to {matched['after'][0]:.1%}. {settings['boxes']} boxes drawn by hand in "
        f"{fit['boxes']} pictures; of pictures kept out, the regression tells "
        f"{fit['accuracy']['activations'][0]:.1%} of positions right, one that knows only the "
        f"place {fit['accuracy']['place'][0]:.1%}."
    )
    labels = {"paper": "Picked", "random": "Random maps"}
    moved = " ".join(f"{label}: {_moved(found['outcomes'][way])}." for way, label in labels.items())
    few = Caveat(
        kind="at most partly",
        why=f"{counted['pictures']} pictures, judged by one observer who had drawn the boxes; "
        "random maps take most windows away too, and every picture darkens",
    )
    falls = (change["fall"] for change in (gone, random, matched))
    checks = object_checks(*falls, "the rate of windows, counted by eye,")
    scene = outcome["scene"]
    return [
        _enter(
            how,
            "object",
            gone["fall"],
            seconds=seconds,
            n=counted["pictures"],
            checks=checks,
            caveat=few,
            notes=notes,
        ),
        _enter(
            how,
            "rest",
            scene["pixels outside"],
            seconds=seconds,
            n=fit["boxes"],
            checks=scene_checks(scene, "the discriminator's features"),
            notes="Distance that pixels outside the boxes moved, in % of that between unrelated "
            f"pictures. {moved}",
        ),
    ]


def _moved(outcomes: list[dict[str, Any]]) -> str:
    """Say how far the pictures moved, as a mean over choices of maps."""
    more = fmean(o["more_real"][0] for o in outcomes)
    return (
        f"as shares, {_means(outcomes, 'scene')}; brightness over that before, "
        f"{_means(outcomes, 'light')}; the discriminator's log-odds of real change by {more:+.1f}"
    )
