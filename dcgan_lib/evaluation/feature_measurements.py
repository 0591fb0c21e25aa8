"""Measurements of features on validation images, kept in ``data/results/features/SET.json`` beside the ledger."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.details import has_details, load_details, save_details
from dcgan_lib.evaluation.statistics import Estimate

COMMAND = "python -m dcgan_lib.evaluation.feature_study"
USUAL = {"layers": (), "grid": 4, "batch_norm": "batches", "per_class": 100, "scaled": False, "seed": 0}
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
        See `dcgan_lib.evaluation.layer_tables.Source`.
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
        return (self.source, self.step, self.layers, self.grid, self.batch_norm, self.per_class, self.scaled, self.seed)


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
        raise UserError(f"features/{set_name} has measurements with the fields {', '.join(sorted(names))} only")
    rows = [Measurement(**line | {name: tuple(line[name]) for name in ("layers", "accuracies")}) for line in lines]
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


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
    several = [row for row in rows if len({other.per_class for other in rows if other.step == row.step}) > 1]
    return sorted(latest(several), key=lambda row: row.num_labels)
