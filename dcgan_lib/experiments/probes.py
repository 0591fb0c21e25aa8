"""How each committed probe is made: ``python -m dcgan_lib.experiments.probes probe-rooms``."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.boxes import overlap_report, with_box_sides
from dcgan_lib.evaluation.ledger import record
from dcgan_lib.evaluation.probes import Probe, load_probe, probe_report, save_probe, train_probe
from dcgan_lib.evaluation.statistics import Estimate


def with_attributes(image_set: ImageSet, named: Mapping[str, str]) -> ImageSet:
    """Return an image set with yes-or-no attributes that its classes decide.

    Parameters
    ----------
    image_set : ImageSet
        With classes, if ``named`` is not empty.
    named : mapping of str to str
        An attribute's name to the class that has it, such as "smile" to "smiling".

    Raises
    ------
    UserError
        If the set has no such class.
    """
    unknown = set(named.values()) - set(image_set.class_names)
    if unknown:
        known = ", ".join(image_set.class_names) or "none"
        raise UserError(
            f"{image_set.name} has no class {', '.join(sorted(unknown))}: its classes are {known}"
        )
    made = {
        name: image_set.labels == image_set.class_names.index(which)
        for name, which in named.items()
    }
    return replace(image_set, attributes={**image_set.attributes, **made})


def cut_out(image_set: ImageSet, window: tuple[int, int, int]) -> ImageSet:
    """Return an image set of one square window of each image, enlarged to the images' own size.

    Parameters
    ----------
    image_set : ImageSet
        Of square images.
    window : tuple of int
        Top, left and side, in pixels.

    Raises
    ------
    UserError
        If the images are not square, or the window does not lie inside them.
    """
    (top, left, side), (height, width) = window, image_set.image_size
    if height != width or min(window) < 0 or side < 1 or max(top, left) + side > height:
        raise UserError(
            f"the window {window} must lie inside square images, but they are {(height, width)}"
        )
    cut = torch.from_numpy(
        np.array(image_set.images_u8[:, :, top : top + side, left : left + side])
    )
    return replace(image_set, images_u8=resize(cut, [height, width], antialias=True).numpy())


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """Say what a probe learns from, for how long, and where its scores go.

    Parameters
    ----------
    image_set : str
        Name for `load_image_set`.
    image_size : int
        Side in pixels.
    steps : int
        Batches of 128.
    targets : tuple of str, optional
        Heads; by default every label and attribute.
    splits : tuple of str
        To learn from, to choose weights on (None: a tenth of the first), and to score on, once.
    num_train, num_test : int, optional
        How many images to draw of a procedural set.
    shift, flip : int, bool
        Augmentation, as in `train_probe`.
    boxes : bool
        Learn where objects stand, and nothing else; see `dcgan_lib.evaluation.boxes`.
    named : mapping of str to str
        Yes-or-no attributes made of classes: a name to the class that has it.
    window : tuple of int, optional
        Top, left and side of the square that is cut from each image and enlarged to ``image_size``.
    ledger : mapping of str to str
        Id of a claim to the head whose score it takes, or to "boolean" or "continuous" for the least
        score of all heads of that kind.
    """

    image_set: str
    image_size: int
    steps: int
    targets: tuple[str, ...] | None = None
    splits: tuple[str, str | None, str] = ("train", "validation", "test")
    num_train: int | None = None
    num_test: int | None = None
    shift: int = 0
    flip: bool = False
    boxes: bool = False
    named: Mapping[str, str] = field(default_factory=dict)
    window: tuple[int, int, int] | None = None
    ledger: Mapping[str, str] = field(default_factory=dict)


RECIPES: dict[str, ProbeRecipe] = {
    "probe-mnist": ProbeRecipe(
        image_set="mnist", image_size=32, steps=5000, shift=2, ledger={"ours.probe.mnist": "label"}
    ),
    "probe-street-digits": ProbeRecipe(
        image_set="street-digits",
        image_size=32,
        steps=4000,
        targets=("label",),
        num_train=30_000,
        num_test=5000,
        shift=1,
        ledger={"ours.probe.street-digits": "label"},
    ),
    # The folder has no test split: a tenth of its training images chooses, its held-out tenth scores.
    "probe-faces": ProbeRecipe(
        image_set="faces64",
        image_size=64,
        steps=1500,
        targets=("female", "age"),
        splits=("train", None, "validation"),
        shift=2,
        flip=True,
        ledger={"ours.probe.faces.female": "female", "ours.probe.faces.age": "age"},
    ),
    # Faces stand smaller and lower here than in faces64: in this window, eyes and mouth lie where they do there.
    "probe-smiles": ProbeRecipe(
        image_set="smiles64",
        image_size=64,
        steps=1500,
        targets=("smile",),
        splits=("train", None, "validation"),
        shift=3,
        flip=True,
        named={"smile": "smiling"},
        window=(8, 4, 56),
        ledger={"ours.probe.smiles": "smile"},
    ),
    "probe-rooms": ProbeRecipe(
        image_set="rooms",
        image_size=64,
        steps=1500,
        num_train=20_000,
        num_test=5000,
        ledger={"ours.probe.rooms.presence": "boolean", "ours.probe.rooms.measures": "continuous"},
    ),
    "probe-room-boxes": ProbeRecipe(
        image_set="rooms", image_size=64, steps=800, num_train=20_000, num_test=5000, boxes=True
    ),
    "probe-portraits": ProbeRecipe(
        image_set="portraits",
        image_size=64,
        steps=1500,
        num_train=20_000,
        num_test=5000,
        ledger={
            "ours.probe.portraits.presence": "boolean",
            "ours.probe.portraits.measures": "continuous",
        },
    ),
}


def make_probe(
    name: str,
    *,
    seed: int = 0,
    progress: bool = False,
    root: Path | None = None,
    results: Path | None = None,
) -> Probe:
    """Train one of the committed probes, score the stored weights once, and record the scores.

    Parameters
    ----------
    name : str
        A key of `RECIPES`.
    seed : int, default 0
        Of the training.
    progress : bool, default False
        Show bars on stderr.
    root, results : Path, optional
        Folders for the checkpoint and the ledger; by default the project's own.

    Returns
    -------
    Probe
        As loaded from its checkpoint.

    Raises
    ------
    UserError
        If there is no such recipe, or its image set is missing.
    """
    if name not in RECIPES:
        raise UserError(
            f"there is no recipe for a probe {name!r}: choose from {', '.join(RECIPES)}"
        )
    recipe, start = RECIPES[name], time.perf_counter()
    train, validation, test = (_load(recipe, split, progress) for split in recipe.splits)
    trained = train_probe(
        train,
        recipe.targets,
        validation=validation,
        steps=recipe.steps,
        shift=recipe.shift,
        flip=recipe.flip,
        seed=seed,
        progress=progress,
    )
    command = f"python -m dcgan_lib.experiments.probes {name} --seed {seed}"
    save_probe(trained, name, report={}, command=command, root=root)
    stored = load_probe(name, root=root)
    report = probe_report(stored, test)
    if recipe.boxes:
        trained.facts["box_overlap"] = overlap_report(stored, test)
    save_probe(trained, name, report=report, command=command, root=root)
    for id, what in recipe.ledger.items():
        _record(id, what, report, test, name, seed, command, time.perf_counter() - start, results)
    return load_probe(name, root=root)


@answers_mistakes("probe_recipes")
def main(arguments: Sequence[str] | None = None) -> int:
    """Make the probes named on the command line and print their held-out scores."""
    parser = argparse.ArgumentParser(prog="dcgan_lib.experiments.probes", description=main.__doc__)
    parser.add_argument("names", nargs="+", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    for name in chosen.names:
        probe = make_probe(name, seed=chosen.seed, progress=True)
        print(name, json.dumps(probe.facts, indent=1))
    return 0


def _load(recipe: ProbeRecipe, split: str | None, progress: bool) -> ImageSet | None:
    if split is None:
        return None
    num_images = {recipe.splits[0]: recipe.num_train, recipe.splits[2]: recipe.num_test}.get(split)
    image_set = load_image_set(
        recipe.image_set,
        split,
        image_size=recipe.image_size,
        num_images=num_images,
        progress=progress,
    )
    image_set = with_attributes(image_set, recipe.named)
    image_set = cut_out(image_set, recipe.window) if recipe.window else image_set
    return with_box_sides(image_set) if recipe.boxes else image_set


def _record(
    id: str,
    what: str,
    report: dict[str, dict[str, Any]],
    test: ImageSet,
    name: str,
    seed: int,
    command: str,
    seconds: float,
    results: Path | None,
) -> None:
    """Enter one head's score, or the least of several, into the ledger; shares in per cent."""
    rows = {head: row for head, row in report.items() if what in (head, row["kind"])}
    head, row = min(rows.items(), key=lambda item: item[1]["score"])
    is_share = row["measure"] == "accuracy"
    estimate = Estimate(row["score"], row["low"], row["high"])
    others = ", ".join(f"{other} {entry['score']:.4f}" for other, entry in rows.items())
    record(
        id,
        value=estimate.scaled(100) if is_share else estimate,
        unit="%" if is_share else "",
        n=row["n"],
        data=f"{test.name}, {len(test):,} held-out images",
        checkpoint=name,
        seed=seed,
        command=command,
        seconds=seconds,
        notes=f"least of: {others}" if len(rows) > 1 else f"{row['measure']} of {head}",
        root=results,
    )


if __name__ == "__main__":
    sys.exit(main())
