"""Tables 1 and 2, row by row: ``dcgan features`` measures one and records it in the ledger.

A row is the test accuracy (Table 1) or test error (Table 2) of a linear SVM on features: of a
discriminator, of random weights, of K-means, of pixels. The supervised network that Table 2 sets
beside them is searched for in `supervised_search`; `compare` puts the two side by side. The ledger
keeps a row as ``data/results/ID.json``; ``dcgan results`` says which are not measured yet.

Axes: n images, f features; accuracies and errors are in per cent. Beside a row of Table 2 lies what
each draw of labels gave, ``data/results/draws/ID.json``, so that two methods get the same kind of
interval, and are compared image by image.
"""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import Positional, arg

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import ModelConfig, recipe, recipes
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError, check_numbers
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    FeatureFunction,
    KMeansFeatures,
    averaged_over_views,
    batch_statistics,
    compute_features,
    part_of,
    pixel_features,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import (
    FAILED,
    Caveat,
    Claim,
    Result,
    check_command,
    claim_of,
    full_id,
    id_on,
    is_measured,
    load_details,
    load_row,
    record,
    save_details,
)
from dcgan_lib.evaluation.protocols import (
    FittedSVMs,
    LabelledSplits,
    Outcome,
    check_unused,
    find_protocol,
    fit_protocol,
    load_splits,
    plain_name,
)
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval
from dcgan_lib.models.networks import (
    LayeredDiscriminator,
    check_convolutional,
    untrained_discriminator,
)
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import find_run, load_config, load_discriminator
from dcgan_lib.training.loop import choose_device

USUAL_RECIPE = "paper-svhn"
WITHOUT_NETWORK = ("pixels", "kmeans1")
UNLEARNT = ("random", *WITHOUT_NETWORK)
MIRRORED_SETS = ("cifar10",)
"""Sets whose classes do not know left from right; a mirrored digit is another sign or none."""


# ---------------------------------------------------------------- where features come from


@dataclass(frozen=True)
class Source:
    """Name where features come from."""

    name: str
    """pixels, kmeans1, random, or the name of a checkpoint or a run."""
    step: int | None = None
    """Minibatches that a snapshot was trained for."""
    network: LayeredDiscriminator | None = None
    """None for pixels and kmeans1."""


def open_source(word: str, *, recipe_name: str = USUAL_RECIPE, seed: int = 0) -> Source:
    """Load what a word stands for: pixels, kmeans1, random, a checkpoint, a run or a snapshot.

    ``recipe_name`` and ``seed`` say whose network gets random weights, and which. It is a recipe,
    or a run's folder for a network of the same shape; another one than the usual recipe is part of
    the source's name.
    """
    if word in WITHOUT_NETWORK:
        return Source(word)
    if word == "random":
        shape, name = _shape_of(recipe_name)
        network = untrained_discriminator(shape, seed)
        name = word if name == USUAL_RECIPE else f"{word} {name}"
        return Source(name, network=check_convolutional(network))
    folder, network = find_run(word).resolve(), check_convolutional(load_discriminator(word))
    if snapshot := re.fullmatch(r"step-(\d+)", folder.name):
        return Source(folder.parent.parent.name, int(snapshot[1]), network)
    return Source(folder.name, network=network)


def _shape_of(word: str) -> tuple[ModelConfig, str]:
    """Return the shape of a recipe's or a run's network, and the plain name of either."""
    if word in recipes():
        return recipe(word).config.model, word
    try:
        return load_config(word)[0].model, find_run(word).resolve().name
    except UserError as error:
        raise UserError(
            f"{word!r} is neither a recipe (dcgan recipes lists them) nor a run: {error}"
        ) from error


def features_of_pixels(
    name: str, train_u8: np.ndarray, *, num_centroids: int = 1_200, seed: int = 0
) -> FeatureFunction:
    """Return the features that need no network: pixels, or kmeans1 learnt from training images."""
    if name == "pixels":
        return pixel_features
    return KMeansFeatures(num_centroids, seed=seed).fit(train_u8).transform


def with_batch_norm(
    network: LayeredDiscriminator, kind: str, train_u8: np.ndarray, *, progress: bool = False
) -> LayeredDiscriminator:
    """Return the network with ``stored`` statistics, or averaged over ``batches`` of images."""
    if kind == "stored":
        return network
    return with_statistics(network, batch_statistics(network, train_u8, progress=progress))


def images_for(
    network: LayeredDiscriminator | None, name: str, *, download: bool = False
) -> LabelledSplits:
    """Load a set's images at the size and in the colours that a network reads."""
    model = network and network.config
    like = {"image_size": model.image_size, "channels": model.num_channels} if model else {}
    return load_splits(name, download=download, **like)


# ---------------------------------------------------------------- Table 2's methods side by side


FEATURES, SUPERVISED = "table2.dcgan", "table2.supervised"
COMMANDS = {
    FEATURES: "dcgan train --recipe paper-svhn --set {set} && dcgan features runs/paper-svhn-{set} "
    "--set {set} --protocol 1000 --split test --record {id}",
    SUPERVISED: "dcgan search --set {set} --record {id}",
}
"""What measures a row on another set than the paper's."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Hold how a method did on the test images of a set, over several draws of labels."""

    test_errors: np.ndarray
    """One a draw of labels, in per cent; at least 2."""
    num_images: int
    """Test images, the same ones for every draw."""
    right_n: np.ndarray | None = None
    """Of each test image, the share of draws that named it rightly; None where it was not kept."""

    @property
    def error(self) -> Estimate:
        """Estimate the mean error over draws of labels and over test images, in per cent.

        Notes
        -----
        Student's interval of the mean over draws, and Wilson's over images at that mean, added as
        independent errors. Wilson's is that of a single classifier. A mean over several is surer,
        so that the sum is rather too wide.
        """
        draws = mean_interval(self.test_errors)
        images = wilson_interval(draws.value / 100 * self.num_images, self.num_images).scaled(100)
        below = math.hypot(draws.low - draws.value, images.low - images.value)
        above = math.hypot(draws.high - draws.value, images.high - images.value)
        return Estimate(draws.value, draws.value - below, draws.value + above)


def keep_draws(row: Result, draws: Draws) -> None:
    """Keep what each draw of labels gave beside its row."""
    errors = [round(float(error), 4) for error in draws.test_errors]
    content = {"value": row.value, "num_images": draws.num_images, "test_errors": errors}
    if draws.right_n is not None:
        counts_n = np.rint(draws.right_n * len(errors)).astype(int)
        content["right"] = " ".join(map(str, counts_n))
    save_details(_name(row.id), content)


def load_draws(row: Result) -> Draws:
    """Return what `keep_draws` kept of a row."""
    content = load_details(_name(row.id), row.command)
    if content["value"] != row.value:
        raise UserError(
            f"the draws kept for {row.id} are of another measurement: run {row.command} again"
        )
    errors, right_n = np.array(content["test_errors"]), None
    if "right" in content:
        right_n = np.array(content["right"].split(), float) / len(errors)
    return Draws(test_errors=errors, num_images=content["num_images"], right_n=right_n)


def _name(id: str) -> str:
    return f"draws/{id.replace(':', '--')}"


def gain(draws: Draws, rival: Draws) -> Estimate:
    """Estimate by how many points a method errs less than its rival on the same test images.

    Notes
    -----
    Where it is kept of each image how often either method named it rightly, the difference is taken
    image by image, and its interval over images is added to those over draws of labels, which are
    taken as independent even where both methods had the same ones. Elsewhere the intervals of the
    two errors are added as if the images were others, too. Both are cautious.
    """
    error, other = draws.error, rival.error
    value = other.value - error.value
    if draws.right_n is None or rival.right_n is None:
        below = math.hypot(other.value - other.low, error.high - error.value)
        above = math.hypot(other.high - other.value, error.value - error.low)
        return Estimate(value, value - below, value + above)
    over_images = mean_interval(100 * (draws.right_n - rival.right_n))
    over_draws = [mean_interval(each.test_errors) for each in (draws, rival)]
    half = math.hypot(*(each.high - each.value for each in (over_images, *over_draws)))
    return Estimate(value, value - half, value + half)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold what two methods did on the same test images of one set; None while not measured."""

    features: Draws | None
    supervised: Draws | None

    @property
    def gain(self) -> Estimate | None:
        """Return by how many points the features err less, None while a method is not measured."""
        if self.features is None or self.supervised is None:
            return None
        return gain(self.features, self.supervised)

    @property
    def outcome(self) -> str:
        """Return who wins, as far as the interval of the gain tells."""
        if self.gain is None:
            return "not measured"
        if self.gain.low > 0:
            return "features win"
        return "features are beaten" if self.gain.high < 0 else "cannot be told apart"


def compare(set_name: str) -> Comparison:
    """Put the ledger's two rows of an image set beside each other."""
    features, supervised = (
        measured_draws(id_on(claim_id, set_name)) for claim_id in (FEATURES, SUPERVISED)
    )
    return Comparison(features=features, supervised=supervised)


def measured_draws(id: str) -> Draws | None:
    """Return the draws of a row of Table 2; None while it is not measured."""
    return load_draws(load_row(id)) if is_measured(id) else None


def command_for(id: str) -> str:
    """Return what measures a row; empty where no command is known for the set."""
    claim, set_name = claim_of(id)
    if set_name is None:
        return claim.command or ""
    return COMMANDS.get(claim.id, "").format(set=set_name, id=id)


# ---------------------------------------------------------------- rows of Tables 1 and 2


class Row(NamedTuple):
    """Say what belongs into a row of Table 1 or 2, and which row judges it."""

    protocol: Literal["full", "400", "1000"]
    kind: Literal["dcgan", "authors", "random", "authors-random", "pixels", "kmeans1"]
    """Where the features come from; authors: a network that the authors released, and
    authors-random: random weights in its shape."""
    views: bool = False
    """Whether they are averaged over shifted and mirrored views."""
    batch_norm: Literal["batches", "stored", "better"] = "batches"
    """Statistics of batch norm, as in `Features`."""
    above: str | None = None
    below: str | None = None
    """A row without a number in the paper must do better than ``above``, or worse than ``below``,
    on the same set."""


ROWS = {
    "table1.dcgan.full": Row("full", "dcgan"),
    "table1.dcgan.400": Row("400", "dcgan"),
    "table1.authors.full": Row("full", "authors"),
    "table1.authors.400": Row("400", "authors"),
    "table1.kmeans1.full": Row("full", "kmeans1"),
    "table1.kmeans1.400": Row("400", "kmeans1"),
    "table1.pixels": Row("full", "pixels", below="table1.dcgan.full"),
    "table1.random": Row("full", "random", below="table1.dcgan.full"),
    "table1.random-stored": Row("full", "random", batch_norm="stored", below="table1.dcgan.full"),
    "table1.random.400": Row("400", "random", below="table1.dcgan.400", batch_norm="better"),
    "table1.authors-random.full": Row(
        "full", "authors-random", below="table1.authors.full", batch_norm="better"
    ),
    "table1.authors-random.400": Row(
        "400", "authors-random", below="table1.authors.400", batch_norm="better"
    ),
    "table1.dcgan-cifar": Row("full", "dcgan", above="table1.random"),
    "table1.views.full": Row("full", "dcgan", views=True, above="table1.dcgan.full"),
    "table1.views.400": Row("400", "dcgan", views=True, above="table1.dcgan.400"),
    "table1.views-authors.400": Row("400", "authors", views=True, above="table1.authors.400"),
    "table1.views-random.400": Row(
        "400", "random", views=True, above="table1.random.400", batch_norm="better"
    ),
    "table2.dcgan": Row("1000", "dcgan", above=SUPERVISED),
    "table2.authors": Row("1000", "authors"),
    "table2.random": Row("1000", "random", below=FEATURES, batch_norm="better"),
    "table2.pixels": Row("1000", "pixels", below=FEATURES),
}
"""What `dcgan features` can record, by the claim's id."""


def judged_by(id: str) -> str | None:
    """Return the id of the row that this one is judged by, if there is one."""
    claim, set_name = claim_of(id)
    other = ROWS[claim.id].above or ROWS[claim.id].below
    if other is None or claim.rule_on(set_name).is_numeric:
        return None
    return full_id(other + (f":{set_name}" if set_name else ""))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Hold features of one kind, the SVMs on them, and how these did on validation images."""

    features: FeatureFunction
    svms: FittedSVMs
    validation: Outcome
    batch_norm: str

    def judge(self, test: ImageSet) -> Outcome:
        """Classify the test images."""
        test_nf = compute_features(self.features, test.images_u8, progress=True)
        return self.svms.judge("test", test_nf, test.labels)


@dataclass(frozen=True, kw_only=True)
class Features(Command, verb="features"):
    """Classify images by a discriminator's layers and a linear SVM, as in Tables 1 and 2."""

    checkpoint: Positional[str]
    """A committed checkpoint or a run's folder with a discriminator; or random (its weights),
    pixels, kmeans1 (one layer of K-means features)."""
    set: str = "cifar10"
    """Image set with labels: cifar10, svhn, svhn10k, mnist, street-digits, or a folder with one
    folder a class."""
    protocol: Literal["full", "400", "1000"] = "full"
    """full: all labels; 400: of each class (Table 1). 1000: in all, as many of each class (Table
    2)."""
    split: Literal["validation", "test"] = "validation"
    """What is classified. test needs --record, and is used once a result."""
    record: str | None = None
    """Enter the result into the claims ledger under this id, such as table1.dcgan.full or
    table2.dcgan:mnist."""
    again: bool = local(False)
    """Measure a recorded result again, on purpose."""
    note: str = local("")
    """Words for the recorded row, such as what was known of the test images before."""
    recipe: Annotated[str, arg(metavar="NAME")] = USUAL_RECIPE
    """Whose network to give random weights: a recipe's, or one of a run's shape."""
    grid: int = 4
    """Side of the grid that each layer is max-pooled to."""
    shift: int = 0
    """Average the features over the image, its shifts by so many pixels up, down, left and right,
    and, of photographs, the mirror images of all five; an extension of ours. 0: the image alone."""
    batch_norm: Literal["batches", "stored", "better"] = "batches"
    """Statistics: mean over minibatches of the set's training images, as the authors; those of the
    checkpoint; or whichever does better on validation images."""
    draws: int | None = None
    """Draws of labels to report over; unset: 10 for 400, 100 for 1000."""
    centroids: int = 1_200
    """Of kmeans1, which has four features each: one a quadrant."""
    seed: int = 0
    """Of the draws, of random weights and of centroids."""
    device: Device = local("auto")
    """Where the network runs; auto: a GPU if there is one."""
    features_file: Path | None = local(None)
    """Keep the features in this .npy file instead of in memory."""
    download: bool = local(False)
    """Let torchvision fetch a missing set."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        if (self.split == "test") != (self.record is not None):
            raise UserError(
                "the test images are for results that are recorded: give both --split test and "
                "--record ID"
            )
        check_numbers(self, 0, "seed", "shift")
        if self.record:
            self.check_row()
        if self.features_file:
            if self.batch_norm == "better":
                raise UserError(
                    "--features-file keeps the features of one batch norm, but better tries two: "
                    "give --batch-norm batches or stored"
                )
            part_of(self.features_file)
        begun, network = time.monotonic(), self._network()
        splits = images_for(network, self.set, download=self.download)
        plan = find_protocol(self.protocol, self.draws)
        plan.draw(splits.train)  # refused before anything is read
        fit = self._fit(network, splits)
        self._show(splits, fit.validation)
        if not self.record:
            return
        controls = self._controls(network, splits)
        with splits.test_for(self.record, again=self.again) as test:
            outcome = fit.judge(test)
            beside = {name: control.judge(test) for name, control in controls.items()}
        self._show(splits, outcome)
        notes = [self.note] if self.note else []
        if self.batch_norm == "better":
            notes.append(f"batch norm's statistics are chosen on validation: {fit.batch_norm}")
        if len(outcome.accuracies) > 1:
            notes += _shared_labels(splits.train, outcome.num_labels)
        self.enter(outcome, beside, splits.name, time.monotonic() - begun, notes)

    @cached_property
    def _about(self) -> dict[str, Any]:
        """Return what a network was made from; nothing for features that nobody trained."""
        return {} if self.checkpoint in UNLEARNT else load_config(self.checkpoint)[1]

    @property
    def _kind(self) -> str:
        if self.checkpoint == "random" and self.recipe != USUAL_RECIPE:
            released = self.recipe not in recipes() and "released" in load_config(self.recipe)[1]
            return "authors-random" if released else f"random in the shape of {self.recipe}"
        if self.checkpoint in UNLEARNT:
            return self.checkpoint
        return "authors" if "released" in self._about else "dcgan"

    def check_row(self) -> None:
        """Refuse, before anything is loaded, what does not belong into the row of the ledger."""
        claim, set_name = claim_of(self.record)[0], plain_name(self.set)
        if claim.id not in ROWS:
            raise UserError(
                f"features are recorded in the rows {', '.join(ROWS)}, but got {claim.id!r}"
            )
        row, own = ROWS[claim.id], id_on(claim.id, set_name)
        trained_on = self._about.get("image_set")
        in_table_2, own_set = _counts_errors(claim), claim.id == "table1.dcgan-cifar"
        if self.grid != 4 or self.draws == 1:
            why = "takes a grid of 4 and draws: leave --grid and --draws out"
        elif row.kind != self._kind:
            why = f"is measured with {row.kind}, but {self.checkpoint} is {self._kind}"
            if self._kind == "authors":
                why += ", which have rows of their own, such as table1.authors.full"
        elif self.protocol != row.protocol:
            why = f"is measured by the protocol {row.protocol}, but this is {self.protocol}"
        elif row.views != bool(self.shift):
            why = f"is measured {'with' if row.views else 'without'} --shift"
        elif "random" in row.kind and self.batch_norm != row.batch_norm:
            why = f"is measured with --batch-norm {row.batch_norm}, but this is {self.batch_norm}"
        elif full_id(self.record) != own:
            why = f"is a result on another set than {set_name}: record it as {own}"
        elif own_set and trained_on != "cifar10":
            why = f"asks for a network trained on cifar10, but this one saw {trained_on}"
        elif row.kind == "dcgan" and not in_table_2 and not own_set and trained_on == set_name:
            why = f"asks for a network that never saw {set_name}: see table1.dcgan-cifar"
        elif (other := judged_by(own)) and not is_measured(other):
            command = command_for(other)
            why = f"is compared with {other}: measure that first" + (command and f": {command}")
        else:
            check_command(own, self.command_line(), set_name)
            check_unused(own, again=self.again)
            if other and in_table_2:
                measured_draws(other)  # refused now, not after the test images are used
            return
        raise UserError(f"{self.record} {why}")

    def _network(self) -> LayeredDiscriminator | None:
        network = open_source(self.checkpoint, recipe_name=self.recipe, seed=self.seed).network
        if network is not None:
            ConvFeatures(network, grid=self.grid)  # refuses what does not fit
        elif self.grid != 4 or self.batch_norm != "batches" or self.shift:
            raise UserError(
                f"{self.checkpoint} has no grid, shifts or batch norm to choose: leave these "
                "options out"
            )
        return network

    def _fit(self, network: LayeredDiscriminator | None, splits: LabelledSplits) -> Fit:
        """Fit SVMs on the features, with the batch norm that was asked for."""
        kinds = ("batches", "stored") if self.batch_norm == "better" else (self.batch_norm,)
        tried = [self._fit_one(network, splits, kind) for kind in kinds]
        return max(tried, key=lambda each: each.validation.accuracy.value)

    def _fit_one(
        self, network: LayeredDiscriminator | None, splits: LabelledSplits, batch_norm: str
    ) -> Fit:
        train_u8 = splits.train.images_u8
        if network is None:
            features = features_of_pixels(
                self.checkpoint, train_u8, num_centroids=self.centroids, seed=self.seed
            )
        else:
            network = network.to(choose_device(self.device))
            network = with_batch_norm(network, batch_norm, train_u8, progress=True)
            features = ConvFeatures(network, grid=self.grid)
            if self.shift:
                mirror = splits.name in MIRRORED_SETS
                features = averaged_over_views(features, self.shift, mirror=mirror)
        svms, outcome = fit_protocol(
            find_protocol(self.protocol, self.draws),
            splits,
            features,
            seed=self.seed,
            for_test=self.split == "test",
            path=self.features_file,
            progress=True,
        )
        return Fit(features=features, svms=svms, validation=outcome, batch_norm=batch_norm)

    def _controls(
        self, network: LayeredDiscriminator | None, splits: LabelledSplits
    ) -> dict[str, Fit]:
        """Fit a control, by its name, for a statement of the paper that is asked of another set.

        Measured statistics may harm random weights. A control should be strong, so both kinds are
        tried, and the one with the better validation accuracy is taken.
        """
        claim, set_name = claim_of(self.record)
        if claim.kind != "paper" or set_name is None or claim.rule_on(set_name).is_numeric:
            return {}
        how = replace(self, features_file=None)
        if network is None:
            return {"pixels": replace(how, checkpoint="pixels")._fit(None, splits)}
        twin = untrained_discriminator(network.config, self.seed)
        fit = replace(how, batch_norm="better")._fit(twin, splits)
        words = f"--batch-norm {fit.batch_norm}"
        return {f"features of the same network with random weights ({words})": fit}

    def enter(
        self,
        outcome: Outcome,
        control: dict[str, Outcome],
        set_name: str,
        seconds: float,
        notes: Sequence[str] = (),
    ) -> Result:
        """Enter an outcome on test images: an accuracy in Table 1, an error in Table 2.

        ``control`` holds the name and the outcome of simpler features for a row without a number in
        the paper.
        """
        claim, on_set = claim_of(self.record)
        in_table_2 = _counts_errors(claim)
        estimate = outcome.error if in_table_2 else outcome.accuracy
        draws = Draws(
            test_errors=100 - np.array(outcome.accuracies),
            num_images=outcome.n,
            right_n=outcome.right_n,
        )
        about = [
            f"{outcome.num_features:,} features, {outcome.num_labels:,} labels, C {outcome.c:g} "
            "chosen on validation"
        ]
        if (num := len(outcome.accuracies)) > 1:
            about.append(
                f"{num} draws of labels, the interval is 1.96 standard deviations of a draw"
            )
        about += ["n counts test images", *self._training(), *notes]
        if self.shift:
            about.append(f"features are means over the image and its shifts by {self.shift} pixels")
        checks = {}
        if other := judged_by(self.record):
            checks = (
                _compared_by_errors(claim.id, other, draws)
                if in_table_2
                else _compared_by_accuracy(claim.id, other, estimate)
            )
        for name, simpler in control.items():
            beside = f"{name}, {simpler.accuracy.value:.2f} % right"
            if other:
                about.append(f"control: {beside}")
            else:
                checks = {f"{beside}, do worse": simpler.accuracy.high < outcome.accuracy.low}
        row = record(
            self.record,
            estimate,
            checks=checks,
            caveat=self._caveat(claim, on_set, estimate),
            unit="%",
            n=outcome.n,
            data=f"{set_name}, test",
            command=self.command_line(),
            seconds=seconds,
            seed=self.seed,
            checkpoint=None if self.checkpoint in UNLEARNT else Path(self.checkpoint).name,
            notes="; ".join(about),
        )
        if in_table_2:
            keep_draws(row, draws)
        return row

    def _caveat(self, claim: Claim, set_name: str | None, estimate: Estimate) -> Caveat | None:
        """Bound the verdict on a network that lacks layers: it cannot refute the paper's number."""
        lacking = [part for part in self._about.get("lacking", ()) if part.startswith("layer")]
        rule = claim.rule_on(set_name)
        if not lacking or not rule.is_numeric:
            return None
        missed = rule.outcome(*estimate) == FAILED
        return Caveat(
            kind="not at scale" if missed else "at most partly",
            why=f"measured without {' and '.join(lacking)} of the network",
        )

    def _training(self) -> list[str]:
        """Say how a network was trained that is not committed."""
        if self.checkpoint in UNLEARNT:
            return []
        if find_run(self.checkpoint).resolve().parent == checkpoints_root().resolve():
            return []
        config, about = load_config(self.checkpoint)
        if "released" in about:
            lacking = about.get("lacking")
            without = f", without {', '.join(lacking)}" if lacking else ""
            return [f"the network was {about['released']}{without}"]
        return [
            f"the network is a run that is not committed: {config.steps:,} minibatches of "
            f"{config.batch_size} from "
            f"{about['images']:,} images of {about['image_set']}, seed {config.seed}"
        ]

    def _show(self, splits: LabelledSplits, outcome: Outcome) -> None:
        value, low, high = outcome.accuracy
        if outcome.split == "validation":
            grid = "  ".join(f"{c:g}: {accuracy:.2f}" for c, accuracy in outcome.curve.items())
            print(f"validation accuracy by C, in %:  {grid}")
        num = len(outcome.accuracies)
        draws = f", {num} draws" if num > 1 else ""
        about = f"{outcome.num_features:,} features, {outcome.num_labels:,} labels{draws}"
        print(f"{self.checkpoint} on {splits.name}: {about}")
        where = f"[{low:.2f}, {high:.2f}], C {outcome.c:g}, n {outcome.n:,}"
        print(f"{outcome.split} accuracy {value:.2f} % {where}", flush=True)


def _counts_errors(claim: Claim) -> bool:
    """Tell a row of Table 2, which has errors, from one of Table 1, which has accuracies."""
    return claim.id.startswith("table2.")


def _shared_labels(train: ImageSet, num_labels: int) -> list[str]:
    """Say how much two draws of labels have in common, where that is much."""
    counts = np.bincount(train.labels)
    share = float(np.mean(num_labels / len(counts) / counts))
    if share < 0.1:
        return []
    return [
        f"labels are drawn from {len(train):,} images, so two draws share {100 * share:.0f} % of "
        "theirs and differ less than draws from a larger set would"
    ]


def _compared_by_errors(claim_id: str, other: str, draws: Draws) -> dict[str, bool]:
    rival = measured_draws(other)
    if ROWS[claim_id].below:
        gained, words = gain(rival, draws), "the trained features err less"
    else:
        gained = gain(draws, rival)
        words = "the same network, supervised on as many labels, errs more"
    by = "{:.1f} points [{:.1f}, {:.1f}]".format(*gained)
    return {f"{words}: by {by}": gained.low > 0}


def _compared_by_accuracy(claim_id: str, other: str, accuracy: Estimate) -> dict[str, bool]:
    rival = load_row(other)
    if ROWS[claim_id].below:
        return {f"trained features, {rival.value:.2f} %, do better": rival.low > accuracy.high}
    who = "random weights" if rival.claim_id == "table1.random" else "features of the image alone"
    return {f"{who}, {rival.value:.2f} %, do worse": rival.high < accuracy.low}
