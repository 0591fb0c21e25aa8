"""What features depend on, one setting at a time: ``python -m dcgan_lib.evaluation.feature_study``.

Layers, grids, labels, batch norm and steps of training are compared on validation images; the test images stay
closed. Each measurement is kept in ``data/results/features/SET.json``. Axes: n images, f features.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, product

import numpy as np

from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.conv_features import (
    ConvFeatures,
    batch_statistics,
    compute_features,
    mean_and_spread,
    pixel_features,
    with_statistics,
)
from dcgan_lib.evaluation.evidence import check_command
from dcgan_lib.evaluation.feature_measurements import COMMAND, Measurement, Setting, keep
from dcgan_lib.evaluation.held_out import LabelledSplits, load_splits
from dcgan_lib.evaluation.kmeans_features import KMeansFeatures
from dcgan_lib.evaluation.layer_tables import (
    USUAL_RECIPE,
    LayerTable,
    Source,
    average,
    join,
    open_source,
    snapshot_folders,
)
from dcgan_lib.evaluation.live import GRID_OF_C
from dcgan_lib.evaluation.protocols import DrawnSVM, Outcome, choose_on, draw_labels

MOST_CHOOSING = 3
MOST_AVERAGED = 10_000
MANY_LABELS = 1_000


def measure(
    source: Source, splits: LabelledSplits, settings: Sequence[Setting], *, draws: int | None = None, seed: int = 0,
    command: str = "", progress: bool = False,
) -> Iterator[Measurement]:  # fmt: skip
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
            drawn[per_class] = draw_labels(labels, per_class, draws or (10 if few else 3), [seed, 1])
    used = np.unique(np.concatenate([*chain(*drawn.values())]))
    images_u8 = np.concatenate([splits.train.images_u8[used], splits.validation.images_u8])
    if not source.networks:
        settings = list(dict.fromkeys(replace(setting, layers=(), grid=0, batch_norm="") for setting in settings))
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
                **asdict(setting), source=source.name, step=source.step, seed=seed, num_labels=found.num_labels,
                num_features=found.num_features, n=found.n, c=found.c, accuracies=found.accuracies, accuracy=value,
                low=low, high=high, seconds=round(found.seconds, 1), command=command,
            )  # fmt: skip


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
        read = pixel_features if source.name == "pixels" else KMeansFeatures(seed=seed).fit(splits.train.images_u8)
        read = read if source.name == "pixels" else read.transform
        return [_PlainTable(compute_features(read, images_u8, progress=progress))]
    networks, finest = source.networks, max(setting.grid for setting in settings)
    if settings[0].batch_norm == "batches":
        some_u8 = splits.train.images_u8[:MOST_AVERAGED]
        networks = [with_statistics(network, batch_statistics(network, some_u8)) for network in networks]
    return [LayerTable(network, images_u8, finest, progress=progress) for network in networks]


def scaled(x_nf: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and variance 1 over these rows."""
    mean_f, std_f = mean_and_spread(x_nf[measured])
    return (x_nf - mean_f) / std_f


def _side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def _judge(
    table_nf: np.ndarray, labels: np.ndarray, held: np.ndarray, draws: list[np.ndarray], begun: float
) -> Outcome:
    x_nf, held_nf = table_nf[: len(labels)], table_nf[len(labels) :]
    svms = [DrawnSVM(x_nf, labels, rows) for rows in draws]
    best, curve = choose_on(svms[:MOST_CHOOSING], held_nf, held, GRID_OF_C)
    accuracies = tuple(100 * svm.fit(best).score(held_nf, held) for svm in svms)
    return Outcome(
        split="validation", accuracies=accuracies, c=best, curve=curve, n=len(held), num_labels=len(draws[0]),
        num_features=table_nf.shape[1], seconds=time.monotonic() - begun,
    )  # fmt: skip


def _labels(word: str) -> int | None:
    return None if word == "all" else int(word)


def _layers(word: str) -> tuple[int, ...]:
    return () if word == "all" else tuple(int(layer) for layer in word.split("+"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dcgan_lib.evaluation.feature_study", description=main.__doc__)
    parser.add_argument("sources", nargs="+", help="pixels, kmeans1, random, checkpoints, runs or snapshots")
    parser.add_argument("--set", default="cifar10", help="labelled images: cifar10, svhn, mnist, street-digits")
    parser.add_argument("--snapshots", action="store_true", help="take every snapshot of each run")
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--join", action="store_true", help="put the sources' features side by side")
    several.add_argument("--average", action="store_true", help="average the sources' weights")
    parser.add_argument("--layers", nargs="+", type=_layers, default=[()], help="all, 1, 2, 1+2 ...")
    parser.add_argument("--grid", nargs="+", type=int, default=[4], help="sides of the grid of max-pooling")
    parser.add_argument("--batch-norm", nargs="+", choices=("batches", "stored"), default=["batches"])
    parser.add_argument("--labels", nargs="+", type=_labels, default=[100], help="of each class: numbers, or all")
    parser.add_argument("--scaled", nargs="+", choices=("no", "yes"), default=["no"], help="to mean 0 and variance 1")
    parser.add_argument("--draws", type=int, help="of labels; unset: 10, or 3 of more than 1,000 labels")
    parser.add_argument("--recipe", default=USUAL_RECIPE, help="whose network random is")
    parser.add_argument("--seed", type=int, default=0, help="of draws, random weights and centroids")
    return parser


@answers_mistakes("feature_study")
def main(arguments: Sequence[str] | None = None) -> int:
    """Judge features on validation images under every combination of what is given, and keep each result."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen, command = _parser().parse_args(words), " ".join([COMMAND, *words])
    check_command("a study", command, chosen.set)
    if chosen.seed < 0 or (chosen.draws is not None and chosen.draws < 1):
        raise UserError(f"--seed is at least 0 and --draws at least 1, but got {chosen.seed} and {chosen.draws}")
    named = [path for word in chosen.sources for path in (snapshot_folders(word) if chosen.snapshots else [word])]
    sources = [open_source(str(word), recipe=chosen.recipe, seed=chosen.seed) for word in named]
    if chosen.join or chosen.average:
        sources = [join(sources) if chosen.join else average(sources)]
    settings = [
        Setting(layers=layers, grid=grid, batch_norm=batch_norm, per_class=per_class, scaled=word == "yes")
        for batch_norm, layers, grid, per_class, word in product(
            chosen.batch_norm, chosen.layers, chosen.grid, chosen.labels, chosen.scaled
        )
    ]
    for network, setting in product(chain(*(source.networks for source in sources)), settings):
        ConvFeatures(network, layers=setting.layers or None, grid=setting.grid)  # refuses what does not fit
    models = [network.config for source in sources for network in source.networks]
    like = {"image_size": models[0].image_size, "channels": models[0].num_channels} if models else {}
    splits = load_splits(chosen.set, **like)
    for source in sources:
        for row in measure(source, splits, settings, draws=chosen.draws, seed=chosen.seed, command=command):
            keep(splits.name, [row])
            print(_text(row), flush=True)
    return 0


def _text(row: Measurement) -> str:
    where = "" if not row.grid else f", layers {'+'.join(map(str, row.layers)) or 'all'}, grid {row.grid}"
    step = "" if row.step is None else f" at step {row.step:,}"
    labels = "all labels" if row.per_class is None else f"{row.per_class} labels a class"
    labels += ", scaled" * row.scaled
    return (
        f"{row.source}{step}{where}{', ' if row.batch_norm else ''}{row.batch_norm}, {labels}: validation accuracy "
        f"{row.accuracy:.2f} % [{row.low:.2f}, {row.high:.2f}], C {row.c:g}, {row.num_features:,} features"
    )


if __name__ == "__main__":
    sys.exit(main())
