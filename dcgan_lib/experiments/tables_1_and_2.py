"""Tables 1 and 2, row by row: ``dcgan features`` measures one and records it in the ledger.

A row is the test accuracy (Table 1) or test error (Table 2) of a linear SVM on features: of a
discriminator, of random weights, of K-means, of pixels. The supervised network that Table 2 sets
beside them is searched for in `supervised_search`; `compare` puts the two side by side. The ledger
keeps a row as ``data/results/ID.json``; ``dcgan results`` says which are not measured yet.

Axes: n images, f features; accuracies and errors are in per cent. Beside a row of Table 2 lie the
errors of its draws of labels, ``data/results/draws/ID.json``, so that both methods get the same
kind of interval.
"""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import recipe
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    FeatureFunction,
    KMeansFeatures,
    batch_statistics,
    compute_features,
    part_of,
    pixel_features,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import (
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
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import check_convolutional, untrained_discriminator
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import find_run, load_config, load_discriminator
from dcgan_lib.training.loop import choose_device

USUAL_RECIPE = "paper-svhn"
WITHOUT_NETWORK = ("pixels", "kmeans1")
UNLEARNT = ("random", *WITHOUT_NETWORK)


# ---------------------------------------------------------------- where features come from


@dataclass(frozen=True)
class Source:
    """Name where features come from."""

    name: str
    """pixels, kmeans1, random, or the name of a checkpoint or a run."""
    step: int | None = None
    """Minibatches that a snapshot was trained for."""
    network: Discriminator | None = None
    """None for pixels and kmeans1."""


def open_source(word: str, *, recipe_name: str = USUAL_RECIPE, seed: int = 0) -> Source:
    """Load what a word stands for: pixels, kmeans1, random, a checkpoint, a run or a snapshot.

    ``recipe_name`` and ``seed`` say whose network gets random weights, and which; another recipe
    than the usual one is part of the source's name.
    """
    if word in WITHOUT_NETWORK:
        return Source(word)
    if word == "random":
        network = untrained_discriminator(recipe(recipe_name).config.model, seed)
        name = word if recipe_name == USUAL_RECIPE else f"{word} {recipe_name}"
        return Source(name, network=check_convolutional(network))
    folder, network = find_run(word).resolve(), check_convolutional(load_discriminator(word))
    if snapshot := re.fullmatch(r"step-(\d+)", folder.name):
        return Source(folder.parent.parent.name, int(snapshot[1]), network)
    return Source(folder.name, network=network)


def features_of_pixels(
    name: str, train_u8: np.ndarray, *, num_centroids: int = 1_200, seed: int = 0
) -> FeatureFunction:
    """Return the features that need no network: pixels, or kmeans1 learnt from training images."""
    if name == "pixels":
        return pixel_features
    return KMeansFeatures(num_centroids, seed=seed).fit(train_u8).transform


def with_batch_norm(
    network: Discriminator, kind: str, train_u8: np.ndarray, *, progress: bool = False
) -> Discriminator:
    """Return the network with ``stored`` statistics, or averaged over ``batches`` of images."""
    if kind == "stored":
        return network
    return with_statistics(network, batch_statistics(network, train_u8, progress=progress))


def images_for(
    network: Discriminator | None, name: str, *, download: bool = False
) -> LabelledSplits:
    """Load a set's images at the size and in the colours that a network reads."""
    model = network and network.config
    like = {"image_size": model.image_size, "channels": model.num_channels} if model else {}
    return load_splits(name, download=download, **like)


# ---------------------------------------------------------------- Table 2's methods side by side


SETS = ("svhn", "cifar10", "mnist", "street-digits")
FEATURES, SUPERVISED = "table2.dcgan", "table2.supervised"
COMMANDS = {
    FEATURES: "dcgan train --recipe paper-svhn --set {set} && dcgan features runs/paper-svhn-{set} "
    "--set {set} --protocol 1000 --split test --record {id}",
    SUPERVISED: "dcgan search --set {set} --record {id}",
}
"""What measures a row on another set than the paper's."""

Winner = Literal["features win", "features are beaten", "cannot be told apart", "not measured"]


def keep_draws(row: Result, test_errors: Sequence[float], num_images: int) -> None:
    """Keep the test error of each draw of labels, on ``num_images``, beside its row."""
    errors = [round(error, 4) for error in test_errors]
    content = {"value": row.value, "num_images": num_images, "test_errors": errors}
    save_details(_name(row.id), content)


def load_draws(row: Result) -> tuple[np.ndarray, int]:
    """Return the test errors of a row's own draws of labels, and the number of test images."""
    content = load_details(_name(row.id), row.command)
    if content["value"] != row.value:
        raise UserError(
            f"the draws kept for {row.id} are of another measurement: run {row.command} again"
        )
    return np.array(content["test_errors"]), content["num_images"]


def _name(id: str) -> str:
    return f"draws/{id.replace(':', '--')}"


def mean_error(test_errors: np.ndarray, num_images: int) -> Estimate:
    """Estimate the mean error over draws of labels and over test images, in per cent.

    Parameters
    ----------
    test_errors : ndarray
        One a draw, at least 2.
    num_images : int
        Test images, the same ones for every draw.

    Notes
    -----
    Student's interval of the mean over draws, and Wilson's over images at that mean, added as
    independent errors. Wilson's is that of a single classifier. A mean over several is surer, so
    that the sum is rather too wide.
    """
    draws = mean_interval(test_errors)
    images = wilson_interval(draws.value / 100 * num_images, num_images).scaled(100)
    below = math.hypot(draws.low - draws.value, images.low - images.value)
    above = math.hypot(draws.high - draws.value, images.high - images.value)
    return Estimate(draws.value, draws.value - below, draws.value + above)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold the mean test errors of the two methods on one image set; None while not measured."""

    set_name: str
    features: Estimate | None
    supervised: Estimate | None
    commands: tuple[str, ...] = ()
    """What is still to be run."""

    @property
    def gain(self) -> Estimate | None:
        """Return by how many points the features err less, None while a method is not measured.

        The two intervals are added as independent errors. The test images are the same, so that
        this too is cautious.
        """
        if self.features is None or self.supervised is None:
            return None
        (f, f_low, f_high), (s, s_low, s_high) = self.features, self.supervised
        below, above = math.hypot(s - s_low, f_high - f), math.hypot(s_high - s, f - f_low)
        return Estimate(s - f, s - f - below, s - f + above)

    @property
    def outcome(self) -> Winner:
        """Return who wins, as far as the interval of the gain tells."""
        if self.gain is None:
            return "not measured"
        if self.gain.low > 0:
            return "features win"
        return "features are beaten" if self.gain.high < 0 else "cannot be told apart"

    def text(self) -> str:
        """Return the comparison as a sentence; what is missing is named with its command."""
        parts = [f"features {_text(self.features)}", f"supervised {_text(self.supervised)}"]
        if self.gain:
            parts.append(f"gain {_text(self.gain, 'points')}")
        sentence = f"{self.set_name}: {self.outcome}: {', '.join(parts)}"
        return "\n  run ".join([sentence, *self.commands])


def _text(estimate: Estimate | None, unit: str = "%") -> str:
    if estimate is None:
        return "not measured"
    value, low, high = estimate
    return f"{value:.1f} {unit} [{low:.1f}, {high:.1f}]"


def compare(set_name: str) -> Comparison:
    """Put the ledger's two rows of an image set, one of `SETS` or any other, beside each other."""
    ids = [id_on(claim_id, set_name) for claim_id in (FEATURES, SUPERVISED)]
    features, supervised = (measured_error(id) for id in ids)
    commands = tuple(command_for(id) for id in ids if not is_measured(id))
    return Comparison(
        set_name=set_name, features=features, supervised=supervised, commands=commands
    )


def measured_error(id: str) -> Estimate | None:
    """Return the mean test error of a row of Table 2; None while it is not measured."""
    return mean_error(*load_draws(load_row(id))) if is_measured(id) else None


def command_for(id: str) -> str:
    """Return what measures a row of Table 2."""
    claim, set_name = claim_of(id)
    return COMMANDS[claim.id].format(set=set_name, id=id) if set_name else claim.command


# ---------------------------------------------------------------- rows of Tables 1 and 2


PROTOCOL_OF = {
    "table1.dcgan.full": "full",
    "table1.dcgan.400": "400",
    "table1.kmeans1.full": "full",
    "table1.kmeans1.400": "400",
    "table1.random": "full",
    "table1.random-stored": "full",
    "table1.pixels": "full",
    "table1.dcgan-cifar": "full",
    "table2.dcgan": "1000",
}
COMPARED_WITH = {
    "table1.random": "table1.dcgan.full",
    "table1.random-stored": "table1.dcgan.full",
    "table1.pixels": "table1.dcgan.full",
    "table1.dcgan-cifar": "table1.random",
    FEATURES: SUPERVISED,
}
"""The row that one without a number in the paper is judged by: it must do better (for a control)
or worse."""


def judged_by(id: str) -> str | None:
    """Return the id of the row that this one is judged by, if there is one."""
    claim, set_name = claim_of(id)
    if claim.id not in COMPARED_WITH or claim.rule_on(set_name).is_numeric:
        return None
    return full_id(COMPARED_WITH[claim.id] + (f":{set_name}" if set_name else ""))


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
    recipe: Annotated[str, arg(metavar="NAME")] = USUAL_RECIPE
    """Whose network to give random weights."""
    layers: tuple[int, ...] = ()
    """Convolutional layers to use, 1 next to the image; unset: all, as in the paper."""
    grid: int = 4
    """Side of the grid that each layer is max-pooled to."""
    batch_norm: Literal["batches", "stored"] = "batches"
    """Statistics: mean over minibatches of the set's training images, as the authors; or those of
    the checkpoint."""
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
        if self.seed < 0:
            raise UserError(f"--seed is at least 0, but got {self.seed}")
        if self.record:
            self.check_row()
        if self.features_file:
            part_of(self.features_file)
        begun, network = time.monotonic(), self._network()
        splits = images_for(network, self.set, download=self.download)
        find_protocol(self.protocol, self.draws).draw(
            splits.train
        )  # refused before anything is read
        features = self._features(network, splits)
        fitted, outcome = self._fit(features, splits, self.features_file)
        self._show(splits, outcome)
        if not self.record:
            return
        control = self._control(network, splits)
        with splits.test_for(self.record, again=self.again) as test:

            def on_test(features: FeatureFunction, fitted: FittedSVMs) -> Outcome:
                test_nf = compute_features(features, test.images_u8, progress=True)
                return fitted.judge("test", test_nf, test.labels)

            outcome = on_test(features, fitted)
            beside = {name: on_test(*fit) for name, fit in control.items()}
        self._show(splits, outcome)
        self.enter(outcome, beside, splits.name, time.monotonic() - begun)

    @property
    def _kind(self) -> str:
        return self.checkpoint if self.checkpoint in UNLEARNT else "dcgan"

    def check_row(self) -> None:
        """Refuse, before anything is loaded, what does not belong into the row of the ledger."""
        claim, set_name = claim_of(self.record)[0], plain_name(self.set)
        if claim.id not in PROTOCOL_OF:
            raise UserError(
                f"features are recorded in the rows {', '.join(PROTOCOL_OF)}, but got {claim.id!r}"
            )
        about = load_config(self.checkpoint)[1] if self._kind == "dcgan" else {}
        trained_on, lacking = about.get("image_set"), about.get("lacking")
        own, protocol = id_on(claim.id, set_name), PROTOCOL_OF[claim.id]
        if self.layers or self.grid != 4 or self.draws == 1:
            why = "takes all layers, a grid of 4 and draws: leave --layers, --grid and --draws out"
        elif lacking and (claim.id == FEATURES or claim.id.startswith("table1.dcgan.")):
            why = f"takes all layers, but {self.checkpoint} lacks {', '.join(lacking)}"
        elif claim.id.split(".")[1].partition("-")[0] != self._kind:
            why = f"is measured with other features than {self._kind}"
        elif self.protocol != protocol:
            why = f"is measured by the protocol {protocol}, but this is {self.protocol}"
        elif full_id(self.record) != own:
            why = f"is a result on another set than {set_name}: record it as {own}"
        elif claim.id.startswith("table1.dcgan.") and trained_on == set_name:
            why = f"asks for a network that never saw {set_name}: see table1.dcgan-cifar"
        elif claim.id == "table1.dcgan-cifar" and trained_on != "cifar10":
            why = f"asks for a network trained on cifar10, but this one saw {trained_on}"
        elif self._kind == "random" and claim.id.endswith("-stored") != (
            self.batch_norm == "stored"
        ):
            why = f"is for other statistics than {self.batch_norm}: see table1.random and -stored"
        elif (other := judged_by(own)) and not is_measured(other):
            how = f": {command_for(other)}" if claim.id == FEATURES else ""
            why = f"is compared with {other}: measure that first{how}"
        else:
            check_command(own, self.command_line(), set_name)
            check_unused(own, again=self.again)
            if other and claim.id == FEATURES:
                measured_error(other)  # refused now, not after the test images are used
            return
        raise UserError(f"{self.record} {why}")

    def _network(self) -> Discriminator | None:
        network = open_source(self.checkpoint, recipe_name=self.recipe, seed=self.seed).network
        if network is not None:
            self._reader(network)  # refuses what does not fit
        elif self.layers or self.grid != 4 or self.batch_norm != "batches":
            raise UserError(
                f"{self.checkpoint} has no layers, grid or batch norm to choose: leave these "
                "options out"
            )
        return network

    def _reader(self, network: Discriminator) -> ConvFeatures:
        return ConvFeatures(network, layers=self.layers or None, grid=self.grid)

    def _features(self, network: Discriminator | None, splits: LabelledSplits) -> FeatureFunction:
        train_u8 = splits.train.images_u8
        if network is None:
            return features_of_pixels(
                self.checkpoint, train_u8, num_centroids=self.centroids, seed=self.seed
            )
        network = network.to(choose_device(self.device))
        return self._reader(with_batch_norm(network, self.batch_norm, train_u8, progress=True))

    def _fit(
        self, features: FeatureFunction, splits: LabelledSplits, path: Path | None = None
    ) -> tuple[FittedSVMs, Outcome]:
        return fit_protocol(
            find_protocol(self.protocol, self.draws),
            splits,
            features,
            seed=self.seed,
            for_test=self.split == "test",
            path=path,
            progress=True,
        )

    def _control(
        self, network: Discriminator | None, splits: LabelledSplits
    ) -> dict[str, tuple[FeatureFunction, FittedSVMs]]:
        """Fit a control for a row on another set than the paper's.

        Measured statistics may harm random weights. A control should be strong, so both kinds are
        tried, and the one with the better validation accuracy is taken.
        """
        claim, set_name = claim_of(self.record)
        if set_name is None or claim.rule_on(set_name).is_numeric:
            return {}
        if network is None:
            return {"pixels": (pixel_features, self._fit(pixel_features, splits)[0])}
        twin, tried = untrained_discriminator(network.config, self.seed), []
        for kind in ("batches", "stored"):
            features = replace(self, batch_norm=kind)._features(twin, splits)
            fitted, outcome = self._fit(features, splits)
            name = f"features of the same network with random weights (--batch-norm {kind})"
            tried.append((outcome.accuracy.value, name, (features, fitted)))
        _, name, best = max(tried, key=lambda each: each[0])
        return {name: best}

    def enter(
        self, outcome: Outcome, control: dict[str, Outcome], set_name: str, seconds: float
    ) -> Result:
        """Enter an outcome on test images: an accuracy in Table 1, an error in Table 2.

        ``control`` holds the name and the outcome of simpler features for a row without a number in
        the paper.
        """
        claim, on_set = claim_of(self.record)
        estimate, checks = outcome.error if claim.id == FEATURES else outcome.accuracy, {}
        errors = [100 - accuracy for accuracy in outcome.accuracies]
        notes = [
            f"{outcome.num_features:,} features, {outcome.num_labels:,} labels, C {outcome.c:g} "
            "chosen on validation"
        ]
        if (num := len(errors)) > 1:
            notes.append(
                f"{num} draws of labels, the interval is 1.96 standard deviations of a draw"
            )
        notes += ["n counts test images", *self._training()]
        other = judged_by(self.record)
        if claim.id == FEATURES and other:
            found = Comparison(
                set_name=on_set,
                features=mean_error(np.array(errors), outcome.n),
                supervised=measured_error(other),
            )
            gain = "by {:.1f} points [{:.1f}, {:.1f}]".format(*found.gain)
            who = "the same network, supervised on as many labels"
            checks = {f"{who}, errs more: {gain}": found.gain.low > 0}
        elif other:
            row = load_row(other)
            if row.claim_id == "table1.random":
                checks = {f"random weights, {row.value:.2f} %, do worse": row.high < estimate.low}
            else:
                checks = {
                    f"trained features, {row.value:.2f} %, do better": row.low > estimate.high
                }
        for name, simpler in control.items():
            beside = f"{name}, {simpler.accuracy.value:.2f} % right"
            if other:
                notes.append(f"control: {beside}")
            else:
                checks = {f"{beside}, do worse": simpler.accuracy.high < outcome.accuracy.low}
        row = record(
            self.record,
            estimate,
            checks=checks,
            unit="%",
            n=outcome.n,
            data=f"{set_name}, test",
            command=self.command_line(),
            seconds=seconds,
            seed=self.seed,
            checkpoint=Path(self.checkpoint).name if self._kind == "dcgan" else None,
            notes="; ".join(notes),
        )
        if claim.id == FEATURES:
            keep_draws(row, errors, outcome.n)
        return row

    def _training(self) -> list[str]:
        """Say how a network was trained that is not committed."""
        if self._kind != "dcgan":
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
