"""Chapter 7: what the features of Table 1 depend on, judged on validation images.

``dcgan feature-study`` changes one thing at a time. The rows of Table 1 themselves are measured in
`tables_1_and_2`.

Axes: n images, f features; accuracies are in per cent.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import Positional, arg

from dcgan_lib.command import Command
from dcgan_lib.errors import UserError, check_number
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    LayerTable,
    compute_features,
    mean_and_std,
)
from dcgan_lib.evaluation.ledger import (
    check_command,
    has_details,
    load_details,
    save_details,
)
from dcgan_lib.evaluation.protocols import (
    DrawnSVM,
    LabelledSplits,
    draw_labels,
    fit_draws,
)
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments.tables_1_and_2 import (
    USUAL_RECIPE,
    Source,
    features_of_pixels,
    images_for,
    open_source,
    with_batch_norm,
)
from dcgan_lib.training.checkpoints import snapshot_folders

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
    """In all."""
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
        words = [self.source if self.step is None else f"{self.source} at step {self.step:,}"]
        if self.grid:
            layers = "+".join(map(str, self.layers)) or "all"
            words += [f"layers {layers}", f"grid {self.grid}", self.batch_norm]
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
        check_number(self, "seed", 0)
        if self.draws is not None:
            check_number(self, "draws", 1)
        settings, sources = self.settings(), []
        for word in self.sources:
            for place in snapshot_folders(word) if self.snapshots else [word]:
                sources.append(open_source(str(place), recipe_name=self.recipe, seed=self.seed))
        networks = [source.network for source in sources if source.network]
        for network, setting in product(networks, settings):  # refuses what does not fit
            ConvFeatures(network, layers=setting.layers or None, grid=setting.grid)
        splits = images_for(networks[0] if networks else None, self.set)
        how = {"draws": self.draws, "seed": self.seed, "command": self.command_line()}
        for source in sources:
            for row in measure(source, splits, settings, **how):
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
    """Return what was measured on a set, where fields have the values ``wanted``."""
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


def latest(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the rows of the last step; a finished network, which has none, counts as the last."""
    steps = {row.step for row in rows}
    last = None if None in steps or not steps else max(steps)
    return [row for row in rows if row.step == last]


def along_labels(set_name: str, source: str) -> list[Measurement]:
    """Return a source's rows of the last step judged with several numbers of labels, few first."""
    usual = UNTRAINED if source == "random" else USUAL
    asked = {name: value for name, value in usual.items() if name != "per_class"}
    rows = load_study(set_name, source=source, **asked)
    numbers = Counter(row.step for row in rows)
    several = [row for row in rows if numbers[row.step] > 1]
    return sorted(latest(several), key=lambda row: row.num_labels)


# ---------------------------------------------------------------- in a chapter's cells


def judge_features(
    x_nf: np.ndarray, labels: np.ndarray, num_learn: int, num_choose: int
) -> tuple[Estimate, list[tuple[float, float]]]:
    """Fit an L2-SVM on the first rows, choose its C on those that follow, and judge it on the rest.

    Return the accuracy in per cent, with Wilson's interval over images, and each C that was tried
    with the error on the rows to choose on, in per cent.
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
