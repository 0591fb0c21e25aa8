"""How each committed probe is made, and what it scores: ``dcgan probe probe-rooms``."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import resize
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import overlap_report, with_box_sides
from dcgan_lib.evaluation.ledger import record
from dcgan_lib.evaluation.probes import load_probe, probe_report, save_probe, train_probe
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import checkpoints_root


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """Say what a probe learns from, for how long, and where its scores go."""

    image_set: str
    image_size: int
    """Side in pixels."""
    training: dict[str, Any]
    """Options of `train_probe`: steps, targets, shift, flip."""
    splits: tuple[str, str | None, str] = ("train", "validation", "test")
    """To learn from, to choose weights on (None: a tenth of the first), and to score on, once."""
    num_train: int | None = None
    num_test: int | None = None
    """How many images to draw of a procedural set."""
    boxes: bool = False
    """Learn where objects stand, and nothing else; see `dcgan_lib.evaluation.boxes`."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Yes-or-no attributes made of classes: a name to the class that has it."""
    window: tuple[int, int, int] | None = None
    """Top, left and side of the square cut from each image and enlarged to ``image_size``."""
    ledger: Mapping[str, str] = field(default_factory=dict)
    """Id of a claim, after ``ours.probe.``, to the head whose score it takes, or to "boolean" or
    "continuous" for the least score of all heads of that kind."""


_DRAWN = {"image_size": 64, "num_train": 20_000, "num_test": 5000}
# A folder of photographs has no test split: a tenth of its training images chooses, its held-out
# tenth scores.
_PHOTOGRAPHS = {"image_size": 64, "splits": ("train", None, "validation")}
RECIPES: dict[str, ProbeRecipe] = {
    "probe-mnist": ProbeRecipe(
        image_set="mnist",
        image_size=32,
        training={"steps": 5000, "shift": 2},
        ledger={"mnist": "label"},
    ),
    "probe-street-digits": ProbeRecipe(
        image_set="street-digits",
        image_size=32,
        training={"steps": 4000, "targets": ("label",), "shift": 1},
        num_train=30_000,
        num_test=5000,
        ledger={"street-digits": "label"},
    ),
    "probe-faces": ProbeRecipe(
        image_set="faces64",
        training={"steps": 1500, "targets": ("female", "age"), "shift": 2, "flip": True},
        ledger={"faces.female": "female", "faces.age": "age"},
        **_PHOTOGRAPHS,
    ),
    # Faces stand smaller and lower here than in faces64: in this window, eyes and mouth lie where
    # they do there.
    "probe-smiles": ProbeRecipe(
        image_set="smiles64",
        training={"steps": 1500, "targets": ("smile",), "shift": 3, "flip": True},
        named={"smile": "smiling"},
        window=(8, 4, 56),
        ledger={"smiles": "smile"},
        **_PHOTOGRAPHS,
    ),
    "probe-rooms": ProbeRecipe(
        image_set="rooms",
        training={"steps": 1500},
        ledger={"rooms.presence": "boolean", "rooms.measures": "continuous"},
        **_DRAWN,
    ),
    "probe-room-boxes": ProbeRecipe(
        image_set="rooms", training={"steps": 800}, boxes=True, **_DRAWN
    ),
    "probe-portraits": ProbeRecipe(
        image_set="portraits",
        training={"steps": 1500},
        ledger={"portraits.presence": "boolean", "portraits.measures": "continuous"},
        **_DRAWN,
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainProbe(Command, verb="probe"):
    """Train one of the committed probes, and score the stored weights once, on held-out images."""

    name: Positional[str]
    """probe-mnist, probe-street-digits, probe-faces, probe-smiles, probe-rooms, probe-room-boxes or
    probe-portraits."""
    seed: int = 0
    """Of the training."""
    threads: int | None = local(None)
    """CPU threads; unset: PyTorch's choice."""
    out: Path | None = local(None)
    """Where the probe's folder is made; unset: among the committed checkpoints."""
    record: bool = True
    """Enter the scores into the claims ledger."""

    def run(self) -> None:
        """Train, score, keep, record, and print the scores."""
        if self.name not in RECIPES:
            raise UserError(
                f"there is no recipe for a probe {self.name!r}: choose from {', '.join(RECIPES)}"
            )
        if self.threads:
            torch.set_num_threads(self.threads)
        recipe, begun, command = RECIPES[self.name], time.perf_counter(), self.command_line()
        train, validation, test = (load_part(recipe, split) for split in recipe.splits)
        trained = train_probe(
            train, validation=validation, seed=self.seed, progress=True, **recipe.training
        )
        folder = (self.out or checkpoints_root()).resolve() / self.name
        save_probe(trained, folder, report={}, command=command)
        stored = load_probe(folder)
        report = probe_report(stored, test)
        if recipe.boxes:
            trained.facts["box_overlap"] = overlap_report(stored, test)
        save_probe(trained, folder, report=report, command=command)
        print(self.name, json.dumps(trained.facts | {"report": report}, indent=1))
        for id, what in recipe.ledger.items() if self.record else ():
            self._record(f"ours.probe.{id}", what, report, test, time.perf_counter() - begun)

    def _record(
        self, id: str, what: str, report: dict[str, Any], test: ImageSet, seconds: float
    ) -> None:
        """Enter one head's score, or the least of several, into the ledger; shares in per cent."""
        rows = {head: row for head, row in report.items() if what in (head, row["kind"])}
        head, row = min(rows.items(), key=lambda item: item[1]["score"])
        is_share = row["measure"] == "accuracy"
        others = ", ".join(f"{other} {entry['score']:.4f}" for other, entry in rows.items())
        record(
            id,
            Estimate(row["score"], row["low"], row["high"]).scaled(100 if is_share else 1),
            unit="%" if is_share else "",
            n=row["n"],
            data=f"{test.name}, {len(test):,} held-out images",
            checkpoint=self.name,
            seed=self.seed,
            command=self.command_line(),
            seconds=seconds,
            notes=f"least of: {others}" if len(rows) > 1 else f"{row['measure']} of {head}",
        )


def load_part(recipe: ProbeRecipe, split: str | None) -> ImageSet | None:
    """Load one split as a recipe shows it to its probe; None for None."""
    if split is None:
        return None
    num_images = {recipe.splits[0]: recipe.num_train, recipe.splits[2]: recipe.num_test}.get(split)
    size = recipe.image_size
    image_set = load_image_set(
        recipe.image_set, split, image_size=size, num_images=num_images, progress=True
    )
    image_set = with_attributes(image_set, recipe.named)
    image_set = cut_out(image_set, recipe.window) if recipe.window else image_set
    return with_box_sides(image_set) if recipe.boxes else image_set


def with_attributes(image_set: ImageSet, named: Mapping[str, str]) -> ImageSet:
    """Return an image set with yes-or-no attributes; ``named`` says which class has each."""
    classes, made = image_set.class_names, {}
    for name, which in named.items():
        if which not in classes:
            raise UserError(
                f"{image_set.name} has no class {which}: its classes are "
                f"{', '.join(classes) or 'none'}"
            )
        made[name] = image_set.labels == classes.index(which)
    return replace(image_set, attributes={**image_set.attributes, **made})


def cut_out(image_set: ImageSet, window: tuple[int, int, int]) -> ImageSet:
    """Cut one square window (top, left, side) out of each image, and enlarge it to the old size."""
    (top, left, side), (height, width) = window, image_set.image_size
    if height != width or min(window) < 0 or side < 1 or max(top, left) + side > height:
        raise UserError(
            f"the window {window} must lie inside square images, but they are {(height, width)}"
        )
    cut = torch.tensor(image_set.images_u8[:, :, top : top + side, left : left + side])
    return replace(image_set, images_u8=resize(cut, [height, width], antialias=True).numpy())
