"""The command ``dcgan features``: how much a linear classifier gets out of features (section 5, Tables 1 and 2)."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import euclidean_distances
from tyro.conf import Positional, arg

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.features import (
    USUAL_RECIPE,
    ConvFeatures,
    Features,
    KMeansFeatures,
    LayerTable,
    Source,
    average,
    batch_statistics,
    compute_features,
    join,
    mean_and_spread,
    open_source,
    pixel_features,
    snapshot_folders,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import (
    CLAIMS,
    NumericRule,
    Result,
    check_command,
    has_details,
    load_details,
    load_results,
    record,
    save_details,
    split_id,
)
from dcgan_lib.evaluation.protocols import (
    DrawnSVM,
    FittedProtocol,
    LabelledSplits,
    Outcome,
    choose_on,
    draw_labels,
    full_id,
    load_splits,
)
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval
from dcgan_lib.experiments.svhn_1000_labels import FEATURES, keep_draws
from dcgan_lib.models.baselines import AnyDiscriminator

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
}
"""Rows without a number in the paper that are judged by another row, which must do better (a control) or worse."""


def needs_control(id: str) -> bool:
    """Return whether the row is judged against a control that is measured beside it, not by a number or a row."""
    claim_id, set_name = split_id(id)
    return claim_id not in COMPARED_WITH and not isinstance(
        CLAIMS[claim_id].rule_on(set_name), NumericRule
    )


def check_row(
    id: str,
    *,
    kind: str,
    protocol: str,
    set_name: str,
    command: str,
    trained_on: str | None = None,
    batch_norm: str = "batches",
    root: Path | None = None,
) -> None:
    """Refuse, before anything is computed, what does not belong into a row.

    Parameters
    ----------
    id : str
        Such as ``table1.dcgan.full``, or ``table2.dcgan:mnist`` on another set than the paper's.
    kind : str
        Of the features: dcgan, kmeans1, random or pixels.
    protocol, set_name : str
        What is to be measured.
    command : str
        What repeats it.
    trained_on : str, optional
        The image set of the network's training; None for features that were not trained.
    batch_norm : str, default "batches"
        Where batch norm's statistics come from: batches or stored.
    root : Path, optional
        The ledger's folder.

    Raises
    ------
    UserError
        If the id is no such row, or its protocol, set, statistics or kind of features is another; or if the row that
        it is compared with is not measured yet.
    """
    claim_id, on_set = split_id(id)
    if claim_id not in PROTOCOL_OF:
        raise UserError(
            f"features are recorded in the rows {', '.join(PROTOCOL_OF)}, but got {claim_id!r}"
        )
    if claim_id.split(".")[1].partition("-")[0] != kind:
        raise UserError(f"{claim_id} is measured with other features than {kind}")
    if protocol != PROTOCOL_OF[claim_id]:
        raise UserError(
            f"{claim_id} is measured by the protocol {PROTOCOL_OF[claim_id]}, but this is {protocol}"
        )
    home = CLAIMS[claim_id].home_set
    if set_name != (on_set or home):
        hint = claim_id if set_name == home else f"{claim_id}:{set_name}"
        raise UserError(
            f"{id} is a result on {on_set or home}, but this is on {set_name}: record it as {hint}"
        )
    if claim_id.startswith("table1.dcgan.") and trained_on == set_name:
        raise UserError(
            f"{claim_id} asks for a network that never saw {set_name}: see table1.dcgan-cifar"
        )
    if claim_id == "table1.dcgan-cifar" and trained_on != "cifar10":
        raise UserError(
            f"table1.dcgan-cifar asks for a network trained on cifar10, but this one saw {trained_on}"
        )
    if claim_id.startswith("table1.random") and claim_id.endswith("-stored") != (
        batch_norm == "stored"
    ):
        raise UserError(
            f"table1.random is for measured statistics, table1.random-stored for stored: got {batch_norm}"
        )
    check_command(id, command, set_name)
    _compared(claim_id, on_set, root)


def _compared(claim_id: str, on_set: str | None, root: Path | None) -> Result | None:
    """Return the row that this one is judged by, if it is."""
    if claim_id not in COMPARED_WITH:
        return None
    wanted = full_id(COMPARED_WITH[claim_id] + (f":{on_set}" if on_set else ""))
    rows = [row for row in load_results(root) if row.id == wanted and row.is_measured]
    if not rows:
        raise UserError(f"{claim_id} is compared with {wanted}: measure that first")
    return rows[0]


def record_features(
    id: str,
    outcome: Outcome,
    *,
    image_set: str,
    command: str,
    seed: int,
    checkpoint: str | None = None,
    control: tuple[str, Outcome] | None = None,
    notes: str = "",
    root: Path | None = None,
) -> Result:
    """Enter an outcome on test images into the ledger.

    Parameters
    ----------
    id : str
        See `check_row`.
    outcome : Outcome
        On the test images. Table 1 gives its accuracy, Table 2 its error.
    image_set, command, seed, checkpoint, notes : optional
        See `dcgan_lib.evaluation.ledger.record`.
    control : (str, Outcome), optional
        Name and outcome of simpler features under the same protocol, for a row that `needs_control`.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Raises
    ------
    UserError
        If the outcome is not on test images, or the row needs a control.
    """
    if outcome.split != "test":
        raise UserError(f"{id} is a result on test images, but this outcome is on {outcome.split}")
    claim_id, on_set = split_id(id)
    estimate = outcome.error if claim_id.startswith("table2.") else outcome.accuracy
    checks = None
    if other := _compared(claim_id, on_set, root):
        if other.id.startswith("table1.random"):
            checks = {f"random weights, {other.value:.2f} %, do worse": other.high < estimate.low}
        else:
            checks = {
                f"trained features, {other.value:.2f} %, do better": other.low > estimate.high
            }
    elif needs_control(id):
        if control is None:
            raise UserError(f"{id} has no number in the paper: measure a control beside it")
        name, other = control
        checks = {
            f"{name}, {other.accuracy.value:.2f} % right, do worse": other.accuracy.high
            < outcome.accuracy.low
        }
    about = f"{outcome.num_features:,} features, {outcome.num_labels:,} labels, C {outcome.c:g} chosen on validation"
    if len(outcome.accuracies) > 1:
        about += f"; {len(outcome.accuracies)} draws of labels, the interval is 1.96 standard deviations of a draw"
    row = record(
        id,
        value=estimate,
        checks=checks,
        unit="%",
        n=outcome.n,
        data=f"{image_set}, test",
        command=command,
        seconds=outcome.seconds + (control[1].seconds if control else 0),
        seed=seed,
        checkpoint=checkpoint,
        notes=f"{about}; n counts test images{'; ' + notes if notes else ''}",
        root=root,
    )
    if claim_id == FEATURES:
        keep_draws(row, [100 - accuracy for accuracy in outcome.accuracies], outcome.n, root)
    return row


COMMAND = "python -m dcgan_lib.experiments.cifar10_features"
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
"""The same for random weights, which do better without measured statistics: a control should be strong."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Name what is varied.

    Parameters
    ----------
    layers : tuple of int
        1 next to the image; empty: all.
    grid : int
        Side of the grid that each layer is max-pooled to.
    batch_norm : str
        "batches": mean statistics over minibatches of the set's training images. "stored": the checkpoint's.
    per_class : int or None
        Labels of each class; None: all labels.
    scaled : bool
        Whether each feature is brought to mean 0 and variance 1 over the training images that were read; the paper
        does not say, the authors' SVHN script does not.
    """

    layers: tuple[int, ...] = ()
    grid: int = 4
    batch_norm: str = "batches"
    per_class: int | None = 100
    scaled: bool = False


@dataclass(frozen=True, kw_only=True)
class Measurement(Setting):
    """Hold one result on validation images: a setting, a source and how well an SVM did.

    Parameters
    ----------
    source, step
        See `dcgan_lib.evaluation.features.Source`.
    seed : int
        Of the draws, of random weights and of centroids.
    num_labels, num_features, n : int
        Labels learnt from in all; features; validation images judged.
    c : float
        C, chosen on the same validation images.
    accuracies : tuple of float
        One a draw of labels, in per cent.
    accuracy, low, high : float
        Mean and interval; see `Outcome.accuracy`.
    seconds : float
        Wall time of the SVMs, features not included.
    command : str
        What repeats it.
    """

    source: str
    step: int | None
    seed: int
    num_labels: int
    num_features: int
    n: int
    c: float
    accuracies: tuple[float, ...]
    accuracy: float
    low: float
    high: float
    seconds: float
    command: str

    @property
    def estimate(self) -> Estimate:
        """Return the accuracy with its interval."""
        return Estimate(self.accuracy, self.low, self.high)

    @property
    def key(self) -> tuple:
        """Return what a later measurement must share to replace this one."""
        return (
            self.source,
            self.step,
            self.layers,
            self.grid,
            self.batch_norm,
            self.per_class,
            self.scaled,
            self.seed,
        )


def keep(set_name: str, measured: Sequence[Measurement], root: Path | None = None) -> None:
    """Add measurements to those that are kept of a set; one of the same key is replaced, nothing else is lost."""
    before = load_study(set_name, root) if has_details(f"features/{set_name}", root) else []
    kept = {each.key: each for each in [*before, *measured]}
    save_details(f"features/{set_name}", [asdict(each) for each in kept.values()], root)


def load_study(set_name: str, root: Path | None = None, **wanted: object) -> list[Measurement]:
    """Return what was measured on a set, in the order of measuring.

    Parameters
    ----------
    set_name : str
        Such as ``cifar10``.
    root : Path, optional
        The ledger's folder; by default ``data/results``.
    **wanted
        Fields of `Measurement` and the values that are asked for.

    Raises
    ------
    UserError
        If nothing was measured on the set.
    """
    lines = load_details(f"features/{set_name}", f"{COMMAND} ... --set {set_name}", root)
    names = {entry.name for entry in fields(Measurement)}
    if not set(wanted) <= names or any(set(line) != names for line in lines):
        raise UserError(
            f"features/{set_name} has measurements with the fields {', '.join(sorted(names))} only"
        )
    rows = [
        Measurement(**line | {name: tuple(line[name]) for name in ("layers", "accuracies")})
        for line in lines
    ]
    return [
        row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())
    ]


def points(rows: Sequence[Measurement], along: str) -> tuple[list[float], list[tuple[float, ...]]]:
    """Return a curve for `predict`: ``step`` or ``num_labels`` of each row, and its accuracies; step 0 is left out."""
    rows = sorted((row for row in rows if getattr(row, along)), key=lambda row: getattr(row, along))
    return [float(getattr(row, along)) for row in rows], [row.accuracies for row in rows]


def latest(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the rows of the last step among them; a finished network, which has no step, counts as the last."""
    steps = {row.step for row in rows}
    last = None if None in steps or not steps else max(steps)
    return [row for row in rows if row.step == last]


def along_labels(set_name: str, source: str, root: Path | None = None) -> list[Measurement]:
    """Return a source's rows from few labels to many: those of its last step that was judged with several numbers."""
    usual = UNTRAINED if source == "random" else USUAL
    asked = {name: value for name, value in usual.items() if name != "per_class"}
    rows = load_study(set_name, root, source=source, **asked)
    several = [
        row
        for row in rows
        if len({other.per_class for other in rows if other.step == row.step}) > 1
    ]
    return sorted(latest(several), key=lambda row: row.num_labels)


MOST_CHOOSING = 3
MOST_AVERAGED = 10_000
MANY_LABELS = 1_000


def measure(
    source: Source,
    splits: LabelledSplits,
    settings: Sequence[Setting],
    *,
    draws: int | None = None,
    seed: int = 0,
    command: str = "",
    progress: bool = False,
) -> Iterator[Measurement]:
    """Judge one source's features under each setting; the images are read once for each kind of batch norm.

    Parameters
    ----------
    source : Source
        Of the features. Layers, grid and batch norm mean nothing to pixels and kmeans1, which are judged once a
        number of labels and scaling.
    splits : LabelledSplits
        Training and validation images.
    settings : sequence of Setting
        What to vary.
    draws : int, optional
        Draws of labels; by default 10, or 3 of more than 1,000 labels. With all labels there is one.
    seed : int, default 0
        Of the draws and the centroids.
    command : str
        What repeats it.
    progress : bool, default False
        Show bars.

    Yields
    ------
    Measurement
        As soon as it is there. C is chosen on the first three draws, and batch norm's statistics are averaged over
        the first 10,000 training images, which is cheaper; `dcgan features` takes all.
    """
    labels, drawn = splits.train.labels, {}
    for per_class in {setting.per_class for setting in settings}:
        if per_class is None:
            drawn[None] = [np.arange(len(labels))]
        else:
            few = per_class * splits.train.num_classes <= MANY_LABELS
            drawn[per_class] = draw_labels(
                labels, per_class, draws or (10 if few else 3), [seed, 1]
            )
    used = np.unique(np.concatenate([*chain(*drawn.values())]))
    images_u8 = np.concatenate([splits.train.images_u8[used], splits.validation.images_u8])
    if not source.networks:
        settings = list(
            dict.fromkeys(
                replace(setting, layers=(), grid=0, batch_norm="") for setting in settings
            )
        )
    for batch_norm in dict.fromkeys(setting.batch_norm for setting in settings):
        wanted = [setting for setting in settings if setting.batch_norm == batch_norm]
        tables = _tables(source, splits, images_u8, wanted, seed, progress)
        for setting in wanted:
            begun = time.monotonic()
            x_nf = _side_by_side([table.cut(setting.layers, setting.grid) for table in tables])
            rows = [np.searchsorted(used, draw) for draw in drawn[setting.per_class]]
            x_nf = scaled(x_nf, np.unique(np.concatenate(rows))) if setting.scaled else x_nf
            found = _judge(x_nf, labels[used], splits.validation.labels, rows, begun)
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
                seconds=round(found.seconds, 1),
                command=command,
            )


class _PlainTable:
    """Features that have no layers to choose from."""

    def __init__(self, table_nf: np.ndarray) -> None:
        self._table_nf = table_nf

    def cut(self, layers: tuple[int, ...], grid: int) -> np.ndarray:
        return self._table_nf


def _tables(
    source: Source,
    splits: LabelledSplits,
    images_u8: np.ndarray,
    settings: Sequence[Setting],
    seed: int,
    progress: bool,
) -> list[LayerTable | _PlainTable]:
    if not source.networks:
        read = (
            pixel_features
            if source.name == "pixels"
            else KMeansFeatures(seed=seed).fit(splits.train.images_u8)
        )
        read = read if source.name == "pixels" else read.transform
        return [_PlainTable(compute_features(read, images_u8, progress=progress))]
    networks, finest = source.networks, max(setting.grid for setting in settings)
    if settings[0].batch_norm == "batches":
        some_u8 = splits.train.images_u8[:MOST_AVERAGED]
        networks = [
            with_statistics(network, batch_statistics(network, some_u8)) for network in networks
        ]
    return [LayerTable(network, images_u8, finest, progress=progress) for network in networks]


def scaled(x_nf: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and variance 1 over these rows."""
    mean_f, std_f = mean_and_spread(x_nf[measured])
    return (x_nf - mean_f) / std_f


def _side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def _judge(
    table_nf: np.ndarray,
    labels: np.ndarray,
    held: np.ndarray,
    draws: list[np.ndarray],
    begun: float,
) -> Outcome:
    x_nf, held_nf = table_nf[: len(labels)], table_nf[len(labels) :]
    svms = [DrawnSVM(x_nf, labels, rows) for rows in draws]
    best, curve = choose_on(svms[:MOST_CHOOSING], held_nf, held, GRID_OF_C)
    accuracies = tuple(100 * svm.fit(best).score(held_nf, held) for svm in svms)
    return Outcome(
        split="validation",
        accuracies=accuracies,
        c=best,
        curve=curve,
        n=len(held),
        num_labels=len(draws[0]),
        num_features=table_nf.shape[1],
        seconds=time.monotonic() - begun,
    )


def _labels(word: str) -> int | None:
    return None if word == "all" else int(word)


def _layers(word: str) -> tuple[int, ...]:
    return () if word == "all" else tuple(int(layer) for layer in word.split("+"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcgan_lib.experiments.cifar10_features", description=main.__doc__
    )
    parser.add_argument(
        "sources", nargs="+", help="pixels, kmeans1, random, checkpoints, runs or snapshots"
    )
    parser.add_argument(
        "--set", default="cifar10", help="labelled images: cifar10, svhn, mnist, street-digits"
    )
    parser.add_argument("--snapshots", action="store_true", help="take every snapshot of each run")
    several = parser.add_mutually_exclusive_group()
    several.add_argument(
        "--join", action="store_true", help="put the sources' features side by side"
    )
    several.add_argument("--average", action="store_true", help="average the sources' weights")
    parser.add_argument(
        "--layers", nargs="+", type=_layers, default=[()], help="all, 1, 2, 1+2 ..."
    )
    parser.add_argument(
        "--grid", nargs="+", type=int, default=[4], help="sides of the grid of max-pooling"
    )
    parser.add_argument(
        "--batch-norm", nargs="+", choices=("batches", "stored"), default=["batches"]
    )
    parser.add_argument(
        "--labels", nargs="+", type=_labels, default=[100], help="of each class: numbers, or all"
    )
    parser.add_argument(
        "--scaled",
        nargs="+",
        choices=("no", "yes"),
        default=["no"],
        help="to mean 0 and variance 1",
    )
    parser.add_argument(
        "--draws", type=int, help="of labels; unset: 10, or 3 of more than 1,000 labels"
    )
    parser.add_argument("--recipe", default=USUAL_RECIPE, help="whose network random is")
    parser.add_argument(
        "--seed", type=int, default=0, help="of draws, random weights and centroids"
    )
    return parser


@answers_mistakes("feature_study")
def main(arguments: Sequence[str] | None = None) -> int:
    """Judge features on validation images under every combination of what is given, and keep each result."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen, command = _parser().parse_args(words), " ".join([COMMAND, *words])
    check_command("a study", command, chosen.set)
    if chosen.seed < 0 or (chosen.draws is not None and chosen.draws < 1):
        raise UserError(
            f"--seed is at least 0 and --draws at least 1, but got {chosen.seed} and {chosen.draws}"
        )
    named = [
        path
        for word in chosen.sources
        for path in (snapshot_folders(word) if chosen.snapshots else [word])
    ]
    sources = [open_source(str(word), recipe=chosen.recipe, seed=chosen.seed) for word in named]
    if chosen.join or chosen.average:
        sources = [join(sources) if chosen.join else average(sources)]
    settings = [
        Setting(
            layers=layers,
            grid=grid,
            batch_norm=batch_norm,
            per_class=per_class,
            scaled=word == "yes",
        )
        for batch_norm, layers, grid, per_class, word in product(
            chosen.batch_norm, chosen.layers, chosen.grid, chosen.labels, chosen.scaled
        )
    ]
    for network, setting in product(chain(*(source.networks for source in sources)), settings):
        ConvFeatures(
            network, layers=setting.layers or None, grid=setting.grid
        )  # refuses what does not fit
    models = [network.config for source in sources for network in source.networks]
    like = (
        {"image_size": models[0].image_size, "channels": models[0].num_channels} if models else {}
    )
    splits = load_splits(chosen.set, **like)
    for source in sources:
        for row in measure(
            source, splits, settings, draws=chosen.draws, seed=chosen.seed, command=command
        ):
            keep(splits.name, [row])
            print(_text(row), flush=True)
    return 0


def _text(row: Measurement) -> str:
    where = (
        ""
        if not row.grid
        else f", layers {'+'.join(map(str, row.layers)) or 'all'}, grid {row.grid}"
    )
    step = "" if row.step is None else f" at step {row.step:,}"
    labels = "all labels" if row.per_class is None else f"{row.per_class} labels a class"
    labels += ", scaled" * row.scaled
    return (
        f"{row.source}{step}{where}{', ' if row.batch_norm else ''}{row.batch_norm}, {labels}: validation accuracy "
        f"{row.accuracy:.2f} % [{row.low:.2f}, {row.high:.2f}], C {row.c:g}, {row.num_features:,} features"
    )


if __name__ == "__main__":
    sys.exit(main())

GRID_OF_C = range(-15, -5, 3)


def judge_features(
    x_nf: np.ndarray, labels: np.ndarray, num_learn: int, num_choose: int
) -> tuple[Estimate, list[tuple[float, float]]]:
    """Fit an L2-SVM on the first rows, choose its C on those that follow, and judge it on the rest.

    Parameters
    ----------
    x_nf, labels : ndarray
        float32 features, n x f, and n labels.
    num_learn, num_choose : int
        Rows to learn from and to choose on.

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
            f"of {len(x_nf)} rows none is left after {num_learn} to learn from and {num_choose} to choose on"
        )
    svm = DrawnSVM(x_nf[:num_learn], labels[:num_learn], np.arange(num_learn))
    best, curve = choose_on([svm], x_nf[num_learn:end], labels[num_learn:end], GRID_OF_C)
    right = (svm.fit(best).predict(x_nf[end:]) == labels[end:]).sum()
    return wilson_interval(right, len(labels) - end).scaled(100), [
        (c, 100 - value) for c, value in curve.items()
    ]


MOST_COMPONENTS = 50


def arrange(features_nf: np.ndarray, columns: int, *, seed: int = 0) -> np.ndarray:
    """Return the order in which to tile images, row by row, so that alike ones become neighbours.

    Parameters
    ----------
    features_nf : ndarray
        n x f, n a multiple of ``columns`` and at least 16.
    columns : int
        Cells in a row of the map.
    seed : int, default 0
        Of the embedding.

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
    The features are reduced to 50 principal components, laid out in the plane by t-SNE, and moved to the cells of a
    grid by the assignment with the least sum of squared distances. What is near on the map is alike; what is far
    apart need not differ more than what is less far.
    """
    n = len(features_nf)
    if n < 16 or columns < 1 or n % columns:
        raise UserError(
            f"a map needs at least 16 images in whole rows, but got {n} images in {columns} columns"
        )
    plain = PCA(min(MOST_COMPONENTS, n - 1, features_nf.shape[1]), random_state=seed).fit_transform(
        features_nf
    )
    xy = TSNE(perplexity=min(30, n // 5), init="pca", random_state=seed).fit_transform(plain)
    xy = (xy - xy.min(0)) / np.maximum(np.ptp(xy, axis=0), 1e-12)
    rows, places = np.divmod(np.arange(n), columns)
    cells = np.stack([places / max(columns - 1, 1), rows / max(rows.max(), 1)], 1)
    return linear_sum_assignment(cdist(cells, xy, "sqeuclidean"))[1]


def neighbour_agreement(features_nf: np.ndarray, labels: np.ndarray) -> Estimate:
    """Return the share of images, in per cent, whose nearest other image by features has the same label."""
    apart_nn = euclidean_distances(features_nf)
    np.fill_diagonal(apart_nn, np.inf)
    return wilson_interval((labels[apart_nn.argmin(1)] == labels).sum(), len(labels)).scaled(100)


UNLEARNT = ("random", "pixels", "kmeans1")


@dataclass(frozen=True, kw_only=True)
class FeaturesCommand:
    """Classify images by a discriminator's layers and a linear SVM, as in the paper's Tables 1 and 2."""

    checkpoint: Positional[str]
    """A committed checkpoint or a run's folder with a discriminator; or random (its weights), pixels, kmeans1 (one
    layer of K-means features)."""
    set: str = "cifar10"
    """Labelled image set: cifar10, svhn, mnist, street-digits."""
    protocol: Literal["full", "400", "1000"] = "full"
    """full: all labels; 400: of each class (Table 1). 1000: in all, as many of each class (Table 2)."""
    split: Literal["validation", "test"] = "validation"
    """What is classified. test needs --record, and is used once a result."""
    record: str | None = None
    """Enter the result into the claims ledger under this id, such as table1.dcgan.full or table2.dcgan:mnist."""
    again: bool = False
    """Measure a recorded result again, on purpose."""
    recipe: Annotated[str, arg(metavar="NAME")] = "paper-svhn"
    """Whose network to give random weights."""
    layers: tuple[int, ...] = ()
    """Convolutional layers to use, 1 next to the image; unset: all, as in the paper."""
    grid: int = 4
    """Side of the grid that each layer is max-pooled to."""
    batch_norm: Literal["batches", "stored"] = "batches"
    """Statistics: mean over minibatches of the set's training images, as the authors; or those of the checkpoint."""
    draws: int | None = None
    """Draws of labels to report over; unset: 10 for 400, 100 for 1000."""
    centroids: int = 1_200
    """Of kmeans1, which has four features each: one a quadrant."""
    seed: int = 0
    """Of the draws, of random weights and of centroids."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network runs; auto: a GPU if there is one."""
    features_file: Path | None = None
    """Keep the features in this .npy file instead of in memory."""
    download: bool = False
    """Let torchvision fetch a missing set."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        from dcgan_lib.evaluation.features import part_of
        from dcgan_lib.evaluation.protocols import check_protocol

        if (self.split == "test") != (self.record is not None):
            raise UserError(
                "the test images are for results that are recorded: give both --split test and --record ID"
            )
        if self.seed < 0:
            raise UserError(f"--seed is at least 0, but got {self.seed}")
        if self.record:
            self._check_record()
        if self.features_file:
            part_of(self.features_file)
        network = self._network()
        splits = self._splits(network and network.config)
        check_protocol(self.protocol, splits, self.draws)
        fitted = self._fit(self._features(network, splits), splits, self.features_file)
        _show(self.checkpoint, splits.name, fitted.on_validation)
        if self.record:
            control = self._control(network, splits) if needs_control(self.record) else None
            with splits.test_for(self.record, again=self.again) as (images_u8, labels):
                outcome = fitted.on_test(images_u8, labels, progress=True)
                beside = control and (
                    control[0],
                    control[1].on_test(images_u8, labels, progress=True),
                )
            _show(self.checkpoint, splits.name, outcome)
            row = record_features(
                self.record,
                outcome,
                image_set=splits.name,
                command=self._command(),
                seed=self.seed,
                control=beside,
                checkpoint=None if self.checkpoint in UNLEARNT else Path(self.checkpoint).name,
                notes=self._training(),
            )
            print(f"recorded {row.id}: {row.verdict}")

    def _network(self) -> "AnyDiscriminator | None":
        from dcgan_lib.config import recipe
        from dcgan_lib.evaluation.features import ConvFeatures
        from dcgan_lib.training.checkpoints import load_discriminator, untrained_discriminator

        if self.checkpoint in UNLEARNT[1:]:
            if self._changed:
                raise UserError(
                    f"{self.checkpoint} has no layers, grid or batch norm to choose: leave these options out"
                )
            return None
        if self.checkpoint == "random":
            network = untrained_discriminator(recipe(self.recipe).config.model, self.seed)
        else:
            network = load_discriminator(self.checkpoint)
        ConvFeatures(
            network, layers=self.layers or None, grid=self.grid
        )  # refuses what does not fit
        return network

    @property
    def _changed(self) -> bool:
        """Tell whether the network is read otherwise than in the paper."""
        return bool(self.layers) or self.grid != 4 or self.batch_norm != "batches"

    def _splits(self, model: "ModelConfig | None") -> "LabelledSplits":
        from dcgan_lib.evaluation.protocols import load_splits

        like = (
            {}
            if model is None
            else {"image_size": model.image_size, "channels": model.num_channels}
        )
        return load_splits(self.set, download=self.download, **like)

    def _features(self, network: "AnyDiscriminator | None", splits: "LabelledSplits") -> "Features":
        from dcgan_lib.evaluation import features as conv_features
        from dcgan_lib.evaluation.features import KMeansFeatures
        from dcgan_lib.training.loop import choose_device

        if self.checkpoint == "kmeans1":
            return (
                KMeansFeatures(self.centroids, seed=self.seed).fit(splits.train.images_u8).transform
            )
        if network is None:
            return conv_features.pixel_features
        network = network.to(choose_device(self.device))
        if self.batch_norm == "batches":
            statistics = conv_features.batch_statistics(
                network, splits.train.images_u8, progress=True
            )
            network = conv_features.with_statistics(network, statistics)
        return conv_features.ConvFeatures(network, layers=self.layers or None, grid=self.grid)

    def _control(
        self, network: "AnyDiscriminator | None", splits: "LabelledSplits"
    ) -> "tuple[str, FittedProtocol]":
        """Fit what the row is compared with: pixels, or the same network with random weights.

        Measured statistics may harm random weights. A control should be strong, so both kinds are tried, and the one
        with the better validation accuracy is taken.
        """
        from dcgan_lib.evaluation.features import pixel_features
        from dcgan_lib.training.checkpoints import untrained_discriminator

        if network is None:
            return "pixels", self._fit(pixel_features, splits)
        twin = untrained_discriminator(network.config, self.seed)
        tried = {
            f"features of the same network with random weights (--batch-norm {kind})": self._fit(
                replace(self, batch_norm=kind)._features(twin, splits), splits
            )
            for kind in ("batches", "stored")
        }
        return max(tried.items(), key=lambda item: item[1].on_validation.accuracy.value)

    def _fit(
        self, features: "Features", splits: "LabelledSplits", path: Path | None = None
    ) -> "FittedProtocol":
        from dcgan_lib.evaluation.protocols import fit_protocol

        return fit_protocol(
            self.protocol,
            splits,
            features,
            draws=self.draws,
            seed=self.seed,
            for_test=self.split == "test",
            path=path,
            progress=True,
        )

    def _check_record(self) -> None:
        """Refuse, before anything is loaded, what does not belong into the row."""
        from dcgan_lib.evaluation import protocols as held_out
        from dcgan_lib.training.checkpoints import load_config

        if self.layers or self.grid != 4 or self.draws == 1:
            raise UserError(
                "a row takes all layers, a grid of 4 and several draws: leave --layers, --grid and --draws out"
            )
        trained = self.checkpoint not in UNLEARNT
        check_row(
            self.record,
            protocol=self.protocol,
            set_name=held_out.plain_name(self.set),
            kind="dcgan" if trained else self.checkpoint,
            command=self._command(),
            batch_norm=self.batch_norm,
            trained_on=load_config(self.checkpoint)[1].get("image_set") if trained else None,
        )
        held_out.check_unused(self.record, again=self.again)

    def _training(self) -> str:
        """Say how a network was trained that is not committed."""
        from dcgan_lib.paths import checkpoints_root
        from dcgan_lib.training.checkpoints import find_run, load_config

        if (
            self.checkpoint in UNLEARNT
            or find_run(self.checkpoint).resolve().parent == checkpoints_root().resolve()
        ):
            return ""
        config, about = load_config(self.checkpoint)
        return (
            f"the network is a run that is not committed: {config.steps:,} minibatches of {config.batch_size} from "
            f"{about['images']:,} images of {about['image_set']}, seed {config.seed}"
        )

    def _command(self) -> str:
        words = [
            "dcgan features",
            self.checkpoint,
            f"--set {self.set}",
            f"--protocol {self.protocol}",
        ]
        words += [f"--split {self.split}", f"--seed {self.seed}"]
        if self.checkpoint == "random":
            words.append(f"--recipe {self.recipe}")
        if self.checkpoint == "kmeans1":
            words.append(f"--centroids {self.centroids}")
        if self._changed:
            layers = f" --layers {' '.join(map(str, self.layers))}" if self.layers else ""
            words.append(f"--grid {self.grid} --batch-norm {self.batch_norm}{layers}")
        words += [f"--draws {self.draws}"] if self.draws else []
        return " ".join([*words, f"--record {self.record}"])


def _show(source: str, set_name: str, outcome: "Outcome") -> None:
    value, low, high = outcome.accuracy
    grid = "  ".join(f"{c:g}: {accuracy:.2f}" for c, accuracy in outcome.curve.items())
    if outcome.split == "validation":
        print(f"validation accuracy by C, in %:  {grid}")
    draws = f", {len(outcome.accuracies)} draws" if len(outcome.accuracies) > 1 else ""
    print(
        f"{source} on {set_name}: {outcome.num_features:,} features, {outcome.num_labels:,} labels{draws}"
    )
    print(
        f"{outcome.split} accuracy {value:.2f} % [{low:.2f}, {high:.2f}], C {outcome.c:g}, n {outcome.n:,}",
        flush=True,
    )
