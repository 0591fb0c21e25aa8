"""How much a linear classifier gets out of features: Tables 1 and 2, and what they depend on.

``dcgan features`` measures one row, on the test images if it is recorded. ``dcgan feature-study``
changes one thing at a time, on validation images. Below them stands what chapter 7 tries in its
cells.

Axes: n images, f features; accuracies are in per cent.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import euclidean_distances
from tyro.conf import Positional, arg

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import recipe
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    FeatureFunction,
    KMeansFeatures,
    LayerTable,
    batch_statistics,
    check_convolutional,
    compute_features,
    mean_and_std,
    part_of,
    pixel_features,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import (
    Result,
    check_command,
    claim_of,
    full_id,
    has_details,
    id_on,
    is_measured,
    load_details,
    load_row,
    record,
    save_details,
)
from dcgan_lib.evaluation.protocols import (
    DrawnSVM,
    FittedSVMs,
    LabelledSplits,
    Outcome,
    check_unused,
    draw_labels,
    find_protocol,
    fit_draws,
    fit_protocol,
    load_splits,
    plain_name,
)
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval
from dcgan_lib.experiments.svhn_1000_labels import (
    FEATURES,
    SUPERVISED,
    Comparison,
    command_for,
    compare,
    keep_draws,
    mean_error,
)
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import (
    find_run,
    load_config,
    load_discriminator,
    untrained_discriminator,
)
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


def snapshot_folders(run_dir: str | Path) -> list[Path]:
    """Return the folders of a run's snapshots, the earliest first.

    Raises
    ------
    UserError
        If it kept none.
    """
    found = sorted(Path(run_dir).glob("snapshots/step-*"))
    if not found:
        raise UserError(f"{run_dir} has no snapshots: train it with --snapshot-every")
    return found


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
        """Refuse, before anything is loaded, what does not belong into the row of the ledger.

        Raises
        ------
        UserError
            If the id is no row of features, or its protocol, set, statistics or kind of features is
            another; if the row that it is compared with is not measured yet; or if this one is.
        """
        claim, set_name = claim_of(self.record)[0], plain_name(self.set)
        if claim.id not in PROTOCOL_OF:
            raise UserError(
                f"features are recorded in the rows {', '.join(PROTOCOL_OF)}, but got {claim.id!r}"
            )
        trained_on = (
            load_config(self.checkpoint)[1].get("image_set") if self._kind == "dcgan" else None
        )
        own, protocol = id_on(claim.id, set_name), PROTOCOL_OF[claim.id]
        if self.layers or self.grid != 4 or self.draws == 1:
            why = "takes all layers, a grid of 4 and draws: leave --layers, --grid and --draws out"
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
                supervised=compare(on_set).supervised,
            )
            gain = "by {:.1f} points [{:.1f}, {:.1f}]".format(*found.gain)
            who = "the same network, supervised on as many labels (at least 64 trials)"
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


# ---------------------------------------------------------------- one change at a time


GRID_OF_C = range(-15, -5, 3)
MOST_CHOOSING = 3
MOST_AVERAGED = 10_000
MANY_LABELS = 1_000

USUAL = {
    "layers": (),
    "grid": 4,
    "batch_norm": "batches",
    "per_class": 100,
    "scaled": False,
    "seed": 0,
}
"""What a study measures unless it is told otherwise."""
UNTRAINED = USUAL | {"batch_norm": "stored"}
"""The same for random weights, which do better without measured statistics: a control should be
strong."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Name what is varied."""

    layers: tuple[int, ...] = ()
    """1 next to the image; empty: all."""
    grid: int = 4
    """Side of the grid that each layer is max-pooled to."""
    batch_norm: str = "batches"
    """batches: mean statistics over minibatches of the set's training images. stored: the
    checkpoint's."""
    per_class: int | None = 100
    """Labels of each class; None: all labels."""
    scaled: bool = False
    """Whether each feature is brought to mean 0 and variance 1 over the training images that were
    read; the paper does not say, the authors' SVHN script does not."""


@dataclass(frozen=True, kw_only=True)
class Measurement(Setting):
    """Hold one result on validation images: a setting, a source and how well an SVM did."""

    source: str
    step: int | None
    """Both as in `Source`."""
    seed: int
    """Of the draws, of random weights and of centroids."""
    num_labels: int
    """Learnt from, in all."""
    num_features: int
    n: int
    """Validation images judged."""
    c: float
    """Chosen on the same validation images."""
    accuracies: tuple[float, ...]
    """One a draw of labels."""
    accuracy: float
    low: float
    high: float
    """Mean and interval; see `Outcome.accuracy`."""
    seconds: float
    """Wall time of the SVMs, features not included."""
    command: str
    """What repeats it."""

    @property
    def estimate(self) -> Estimate:
        """Return the accuracy with its interval."""
        return Estimate(self.accuracy, self.low, self.high)

    @property
    def key(self) -> tuple:
        """Return what a later measurement must share to replace this one."""
        names = [entry.name for entry in fields(Setting)]
        return tuple(getattr(self, name) for name in (*names, "source", "step", "seed"))

    def text(self) -> str:
        """Return the measurement in one line."""
        words = [self.source + ("" if self.step is None else f" at step {self.step:,}")]
        if self.grid:
            words += [f"layers {'+'.join(map(str, self.layers)) or 'all'}", f"grid {self.grid}"]
        words += [self.batch_norm] if self.batch_norm else []
        words += ["all labels" if self.per_class is None else f"{self.per_class} labels a class"]
        words += ["scaled"] if self.scaled else []
        found = f"{self.accuracy:.2f} % [{self.low:.2f}, {self.high:.2f}], C {self.c:g}"
        return f"{', '.join(words)}: validation accuracy {found}, {self.num_features:,} features"


@dataclass(frozen=True, kw_only=True)
class FeatureStudy(Command, verb="feature-study"):
    """Judge features on validation images under every combination of what is given."""

    sources: Positional[tuple[str, ...]]
    """pixels, kmeans1, random, checkpoints, runs or snapshots."""
    set: str = "cifar10"
    """Image set with labels, as for dcgan features."""
    snapshots: bool = False
    """Take every snapshot of each run."""
    layers: tuple[str, ...] = ("all",)
    """all, 1, 2, 1+2 ...; 1 is next to the image."""
    grid: tuple[int, ...] = (4,)
    """Sides of the grid of max-pooling."""
    batch_norm: tuple[Literal["batches", "stored"], ...] = ("batches",)
    """Statistics: mean over minibatches of the set's training images, or those of the
    checkpoint."""
    labels: tuple[int | Literal["all"], ...] = (100,)
    """Labels of each class: numbers, or all."""
    scaled: tuple[Literal["no", "yes"], ...] = ("no",)
    """Whether to bring features to mean 0 and variance 1."""
    draws: int | None = None
    """Draws of labels; unset: 10, or 3 of more than 1,000 labels."""
    recipe: Annotated[str, arg(metavar="NAME")] = USUAL_RECIPE
    """Whose network random is."""
    seed: int = 0
    """Of draws, random weights and centroids."""

    def run(self) -> None:
        """Measure, keep and print each result as soon as it is there."""
        check_command("table1.dcgan.full", self.command_line(), self.set)
        if self.seed < 0 or (self.draws is not None and self.draws < 1):
            raise UserError(
                f"--seed is at least 0 and --draws at least 1, but got {self.seed} and {self.draws}"
            )
        settings, sources = self.settings(), []
        for word in self.sources:
            for place in snapshot_folders(word) if self.snapshots else [word]:
                sources.append(open_source(str(place), recipe_name=self.recipe, seed=self.seed))
        networks = [source.network for source in sources if source.network]
        for network, setting in product(networks, settings):  # refuses what does not fit
            ConvFeatures(network, layers=setting.layers or None, grid=setting.grid)
        splits = images_for(networks[0] if networks else None, self.set)
        for source in sources:
            for row in measure(
                source,
                splits,
                settings,
                draws=self.draws,
                seed=self.seed,
                command=self.command_line(),
            ):
                keep(splits.name, [row])
                print(row.text(), flush=True)

    def settings(self) -> list[Setting]:
        """Return every combination."""
        if not all(re.fullmatch(r"all|\d+(\+\d+)*", word) for word in self.layers):
            raise UserError(
                f"layers are all, or numbers joined by +, but got {' '.join(self.layers)}"
            )
        combined = product(self.batch_norm, self.layers, self.grid, self.labels, self.scaled)
        return [
            Setting(
                layers=() if layers == "all" else tuple(map(int, layers.split("+"))),
                grid=grid,
                batch_norm=batch_norm,
                per_class=None if labels == "all" else labels,
                scaled=scaled == "yes",
            )
            for batch_norm, layers, grid, labels, scaled in combined
        ]


def measure(
    source: Source,
    splits: LabelledSplits,
    settings: Sequence[Setting],
    *,
    draws: int | None = None,
    seed: int = 0,
    command: str = "",
) -> Iterator[Measurement]:
    """Judge one source's features under each setting.

    C is chosen on the first three draws, and batch norm's statistics are averaged over the first
    10,000 training images, which is cheaper; `dcgan features` takes all. Layers, grid and batch
    norm mean nothing to pixels and kmeans1, which are judged once a number of labels and scaling.
    """
    train, held = splits.train, splits.validation.labels
    drawn = {}
    for each in {setting.per_class for setting in settings}:
        if each is None:
            drawn[each] = [np.arange(len(train))]
        else:
            usual = 10 if each * train.num_classes <= MANY_LABELS else 3
            drawn[each] = draw_labels(train.labels, each, draws or usual, [seed, 1])
    used = np.unique(np.concatenate([rows for each in drawn.values() for rows in each]))
    images_u8 = np.concatenate([train.images_u8[used], splits.validation.images_u8])
    if source.network is None:
        settings = [replace(setting, layers=(), grid=0, batch_norm="") for setting in settings]
        settings = list(dict.fromkeys(settings))
    for batch_norm in dict.fromkeys(setting.batch_norm for setting in settings):
        wanted = [setting for setting in settings if setting.batch_norm == batch_norm]
        cut = _table(source, batch_norm, train.images_u8, images_u8, wanted, seed)
        for setting in wanted:
            begun, table_nf = time.monotonic(), cut(setting.layers, setting.grid)
            rows = [np.searchsorted(used, draw) for draw in drawn[setting.per_class]]
            if setting.scaled:
                table_nf = scaled(table_nf, np.unique(np.concatenate(rows)))
            x_nf, held_nf = table_nf[: len(used)], table_nf[len(used) :]
            svms = [DrawnSVM(x_nf, train.labels[used], draw) for draw in rows]
            fitted = fit_draws(svms[:MOST_CHOOSING], svms, held_nf, held, GRID_OF_C)
            found = fitted.judge("validation", held_nf, held)
            value, low, high = found.accuracy
            yield Measurement(
                **asdict(setting),
                source=source.name,
                step=source.step,
                seed=seed,
                num_labels=found.num_labels,
                num_features=found.num_features,
                n=found.n,
                c=found.c,
                accuracies=found.accuracies,
                accuracy=value,
                low=low,
                high=high,
                seconds=round(time.monotonic() - begun, 1),
                command=command,
            )


def _table(
    source: Source,
    batch_norm: str,
    train_u8: np.ndarray,
    images_u8: np.ndarray,
    settings: Sequence[Setting],
    seed: int,
) -> Callable[[tuple[int, ...], int], np.ndarray]:
    """Read the images once, and return what gives the features of some layers on some grid."""
    if source.network is None:
        features = features_of_pixels(source.name, train_u8, seed=seed)
        table_nf = compute_features(features, images_u8)
        return lambda layers, grid: table_nf
    network = with_batch_norm(source.network, batch_norm, train_u8[:MOST_AVERAGED])
    return LayerTable(network, images_u8, max(setting.grid for setting in settings)).cut


def scaled(x_nf: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and variance 1 over these rows."""
    mean_f, std_f = mean_and_std(x_nf[measured])
    return (x_nf - mean_f) / std_f


def keep(set_name: str, measured: Sequence[Measurement]) -> None:
    """Add measurements to those that are kept of a set; one of the same key is replaced."""
    before = load_study(set_name) if has_details(f"features/{set_name}") else []
    kept = {each.key: each for each in [*before, *measured]}
    save_details(f"features/{set_name}", [asdict(each) for each in kept.values()])


def load_study(set_name: str, **wanted: Any) -> list[Measurement]:
    """Return what was measured on a set, where fields have the values ``wanted``.

    Raises
    ------
    UserError
        If nothing was measured on the set, or the file does not hold such measurements.
    """
    command = f"dcgan feature-study ... --set {set_name}"
    lines = load_details(f"features/{set_name}", command)
    try:
        rows = [
            Measurement(**line | {name: tuple(line[name]) for name in ("layers", "accuracies")})
            for line in lines
        ]
    except (TypeError, KeyError) as error:
        raise UserError(
            f"features/{set_name} holds other fields than a measurement's ({error}): run "
            f"{command} again"
        ) from error
    return [row for row in rows if all(getattr(row, name) == wanted[name] for name in wanted)]


def points(rows: Sequence[Measurement], along: str) -> tuple[list[float], list[tuple[float, ...]]]:
    """Return a curve for `predict`: ``step`` (0 left out) or ``num_labels``, and accuracies."""
    rows = sorted((row for row in rows if getattr(row, along)), key=lambda row: getattr(row, along))
    return [float(getattr(row, along)) for row in rows], [row.accuracies for row in rows]


def latest(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the rows of the last step; a finished network, which has none, counts as the last."""
    steps = {row.step for row in rows}
    last = None if None in steps or not steps else max(steps)
    return [row for row in rows if row.step == last]


def along_labels(set_name: str, source: str) -> list[Measurement]:
    """Return a source's rows of the last step judged with several numbers of labels, few first."""
    usual = UNTRAINED if source == "random" else USUAL
    asked = {name: value for name, value in usual.items() if name != "per_class"}
    numbers, rows = {}, load_study(set_name, source=source, **asked)
    for row in rows:
        numbers.setdefault(row.step, set()).add(row.per_class)
    several = [row for row in rows if len(numbers[row.step]) > 1]
    return sorted(latest(several), key=lambda row: row.num_labels)


# ---------------------------------------------------------------- in a chapter's cells


MOST_COMPONENTS = 50


def judge_features(
    x_nf: np.ndarray, labels: np.ndarray, num_learn: int, num_choose: int
) -> tuple[Estimate, list[tuple[float, float]]]:
    """Fit an L2-SVM on the first rows, choose its C on those that follow, and judge it on the rest.

    Returns
    -------
    accuracy : Estimate
        On the rest, in per cent, with Wilson's interval over images.
    curve : list of (float, float)
        Each C that was tried, and the error on the rows to choose on, in per cent.

    Raises
    ------
    UserError
        If no row is left to judge on.
    """
    end = num_learn + num_choose
    if min(num_learn, num_choose) < 1 or len(labels) != len(x_nf) or len(labels) <= end:
        raise UserError(
            f"of {len(x_nf)} rows none is left after {num_learn} to learn from and {num_choose} "
            "to choose on"
        )
    svm = [DrawnSVM(x_nf[:num_learn], labels[:num_learn])]
    held_nf, held = x_nf[num_learn:end], labels[num_learn:end]
    found = fit_draws(svm, svm, held_nf, held, GRID_OF_C).judge("test", x_nf[end:], labels[end:])
    return found.accuracy, [(c, 100 - value) for c, value in found.curve.items()]


def arrange(features_nf: np.ndarray, columns: int, *, seed: int = 0) -> np.ndarray:
    """Return the order in which to tile images, row by row, so that alike ones become neighbours.

    Parameters
    ----------
    features_nf : ndarray
        n x f, n a multiple of ``columns`` and at least 16.
    columns : int
        Cells in a row of the map.

    Returns
    -------
    ndarray
        A permutation of 0 .. n - 1.

    Raises
    ------
    UserError
        If the images do not fill whole rows.

    Notes
    -----
    The features are reduced to 50 principal components, laid out in the plane by t-SNE, and moved
    to the cells of a grid by the assignment with the least sum of squared distances. What is near
    on the map is alike; what is far apart need not differ more than what is less far.
    """
    n = len(features_nf)
    if n < 16 or columns < 1 or n % columns:
        raise UserError(
            f"a map needs at least 16 images in whole rows, but got {n} images in {columns} columns"
        )
    components = min(MOST_COMPONENTS, n - 1, features_nf.shape[1])
    plain = PCA(components, random_state=seed).fit_transform(features_nf)
    xy = TSNE(perplexity=min(30, n // 5), init="pca", random_state=seed).fit_transform(plain)
    xy = (xy - xy.min(0)) / np.maximum(np.ptp(xy, axis=0), 1e-12)
    rows, places = np.divmod(np.arange(n), columns)
    cells = np.stack([places / max(columns - 1, 1), rows / max(rows.max(), 1)], 1)
    return linear_sum_assignment(cdist(cells, xy, "sqeuclidean"))[1]


def neighbour_agreement(features_nf: np.ndarray, labels: np.ndarray) -> Estimate:
    """Return the share of images, in per cent, whose nearest other image has the same label."""
    apart_nn = euclidean_distances(features_nf)
    np.fill_diagonal(apart_nn, np.inf)
    return wilson_interval((labels[apart_nn.argmin(1)] == labels).sum(), len(labels)).scaled(100)
