"""Windows counted by eye, where no probe can judge, and the paper's claims about forgetting in the ledger.

The pictures are those of the seed after that of the boxes. Each stands before the eye four times, with all maps on,
with the picked ones off and with as many others off, random or matched ones; all are shuffled, and nothing tells which
is which.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.details import save_details
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.interpretation.forgetting_bench import Change, compare
from dcgan_lib.interpretation.forgetting_drawn import DrawnBench, DrawnOutcome, DrawnStudy
from dcgan_lib.interpretation.forgetting_study import LEAST_FALL, MOST_MOVED, details_name, rounded
from dcgan_lib.models.sampling import sample_latents, seeded

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
        turns = [bench.without(z_nd[i : i + 1], found[i % len(found)].maps, layer) for i in range(num)]
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
        seen = {way: np.array([{"0": False, "1": True}[digit] for digit in saved["seen"][way]]) for way in CONDITIONS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{Path(path).name} is not a file of counts: {type(error).__name__} {error}") from error
    same = ("checkpoint", "object", "layer", "threshold", "c", "samples", "boxes", "draws", "seed")
    if differing := [key for key in same if saved.get("settings", {}).get(key) != settings[key]]:
        raise UserError(f"{Path(path).name} was counted with other settings of {', '.join(differing)}: count again")
    if len({len(row) for row in seen.values()}) != 1:
        raise UserError(f"{Path(path).name} must have as many digits in each condition")
    changes = {way: compare(seen["before"], seen[way]) for way in CONDITIONS[1:]}
    return Counted(num=len(seen["before"]), changes=changes)


def drawn_object_checks(counted: Counted, name: str) -> dict[str, bool]:
    """Judge ``forget.object``: most are gone, and others at random do not do it."""
    fall, random, matched = (counted.changes[way].fall for way in CONDITIONS[1:])
    return {
        f"the rate of {name}s, counted by eye, falls by {LEAST_FALL:.0%} or more": fall.low >= LEAST_FALL,
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
        "pixels move farther inside the boxes than outside": scene["pixels inside"].low > scene["pixels outside"].high,
    }


def drawn_numbers(study: DrawnStudy, counted: Counted | None) -> dict[str, Any]:
    """Return what was measured as plain values; each estimate is value, low, high."""

    def plain(outcome: DrawnOutcome) -> dict[str, Any]:
        scene = {key: rounded(x) for key, x in outcome.scene.items()}
        light = {key: rounded(x) for key, x in outcome.light.items()}
        return {"maps": outcome.maps, "scene": scene, "light": light, "more_real": rounded(outcome.more_real)}

    fit = {"boxes": study.fit.num_boxes, "positions": study.fit.num_positions}
    fit |= {"accuracy": {way: rounded(x) for way, x in study.accuracy.items()}}
    seen: dict[str, Any] = {"pictures": counted.num} if counted else {}
    for way, change in counted.changes.items() if counted else ():
        seen[way] = {key: rounded(x) for key, x in vars(change).items()}
    return {
        "settings": study.settings,
        "fit": fit | {"weights": [round(float(w), 4) for w in study.fit.weights_c]},
        "outcomes": {way: [plain(outcome) for outcome in found] for way, found in study.outcomes.items()},
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
        See `dcgan_lib.evaluation.results.record`.
    """
    name, (outcome,) = study.settings["object"], study.outcomes["paper"]
    save_details(details_name(set_name, name), drawn_numbers(study, counted), root)
    shared: dict[str, Any] = {"command": command, "seconds": study.seconds, "seed": study.settings["seed"], "unit": "%"}
    shared |= {"checkpoint": study.settings["checkpoint"], "data": f"{set_name}, generated", "root": root}
    (gone, random, matched), accuracy = (counted.changes[way] for way in CONDITIONS[1:]), study.accuracy
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
    rest = "Distance that pixels outside the boxes moved, in % of that between unrelated pictures. " + " ".join(
        f"{label}: {_told(study.outcomes[way])}." for way, label in (("paper", "Picked"), ("random", "Random maps"))
    )
    return [
        record(
            f"forget.object:{set_name}", value=gone.fall.scaled(100), n=counted.num, notes=told,
            checks=drawn_object_checks(counted, name), **shared,
        ),
        record(
            f"forget.rest:{set_name}", value=outcome.scene["pixels outside"].scaled(100), n=study.fit.num_boxes,
            checks=drawn_rest_checks(outcome), notes=rest, **shared,
        ),
    ]  # fmt: skip


def _told(found: list[DrawnOutcome]) -> str:
    """Return how far the pictures moved in a sentence's middle, as a mean over choices of maps."""
    moved = ", ".join(f"{key} {fmean(o.scene[key].value for o in found):.2f}" for key in found[0].scene)
    light = ", ".join(f"{key} {fmean(o.light[key].value for o in found):.2f}" for key in found[0].light)
    more = fmean(o.more_real.value for o in found)
    told = f"as shares, {moved}; brightness over that before, {light}"
    return f"{told}; the discriminator's log-odds of real change by {more:+.1f}"
