"""The protocols by which Tables 1 and 2 judge features: draw labels, choose C on validation, score.

Test images are given out by `LabelledSplits.test_for` alone, once for each result of the ledger.

Axes: n images, f features; accuracies and errors are in per cent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import PROCEDURAL, load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureFunction, compute_features
from dcgan_lib.evaluation.ledger import full_id, is_measured
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval
from dcgan_lib.evaluation.svm import L2SVM, prepare
from dcgan_lib.paths import results_root

NUM_DRAWN_TO_JUDGE = 10_000
"""Validation and test images of a procedural set: as many as the published sets have."""
MOST_EXTENSIONS = 12
"""Steps of the ladder that a grid of C may grow: four decades."""


# ---------------------------------------------------------------- images


_given_out: set[tuple[str, Path]] = set()
"""Results that this process looked at test images for, by id and ledger, recorded or not."""


@dataclass(frozen=True, kw_only=True)
class LabelledSplits:
    """Hold the training and validation images of a set, with labels, and guard its test images."""

    train: ImageSet
    validation: ImageSet
    source: str | None = None
    """Where the test images are loaded from; by default the set's name."""

    def __post_init__(self) -> None:
        kinds = set()
        for part in (self.train, self.validation):
            _check_labels(part)
            kinds.add((part.name, part.class_names, part.images_u8.shape[1:]))
        if len(kinds) > 1:
            raise UserError(
                "training and validation images must be of one set and size, but are "
                f"{sorted(kinds)}"
            )

    @property
    def name(self) -> str:
        """Return the set's name."""
        return self.train.name

    @contextmanager
    def test_for(self, id: str, *, again: bool = False) -> Iterator[ImageSet]:
        """Give out the test images for one result of the ledger, such as ``table1.dcgan.full``.

        A result that was measured or looked at before is refused, unless ``again`` says that this
        is on purpose. Ctrl-C while they are given out takes the look back: no result came of it.
        """
        check_unused(id, again=again)
        like = {"image_size": self.train.image_size, "channels": self.train.num_channels}
        test, key = _load(self.source or self.name, "test", **like), (full_id(id), results_root())
        _given_out.add(key)
        try:
            yield test
        except KeyboardInterrupt:
            _given_out.discard(key)
            raise


def check_unused(id: str, *, again: bool = False) -> None:
    """Refuse, before anything is computed, what `LabelledSplits.test_for` would refuse."""
    looked_at = (full_id(id), results_root()) in _given_out
    if (is_measured(id) or looked_at) and not again:
        raise UserError(
            f"the test images were used for {full_id(id)} before, and a second look would make "
            "them training data: "
            "choose on validation, or say by --again (in Python again=True) that it is measured "
            "again on purpose"
        )


def plain_name(name: str) -> str:
    """Return a set's name as the ledger writes it: in small letters, with dashes."""
    return str(name).casefold().replace("_", "-")


def load_splits(
    name: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | str = "auto",
    download: bool = False,
) -> LabelledSplits:
    """Load a set's training and validation images; see `load_image_set`."""
    how = {"image_size": image_size, "channels": channels, "download": download}
    train = _load(name, "train", **how)
    _check_labels(train)  # before as many more are drawn
    validation = _load(name, "validation", **how)
    return LabelledSplits(train=train, validation=validation, source=str(name))


def _check_labels(part: ImageSet) -> None:
    if part.labels is None:
        raise UserError(
            f"the images of {part.name} have no classes to learn: choose a set with labels"
        )


def _load(name: str, split: str, **how: Any) -> ImageSet:
    judged = plain_name(name) in PROCEDURAL and split != "train"
    return load_image_set(name, split, num_images=NUM_DRAWN_TO_JUDGE if judged else None, **how)


# ---------------------------------------------------------------- protocols


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Describe how labels are drawn and C is chosen."""

    num_labels: Callable[[int], int] | None
    """From the number of classes to labels a class; None: all labels."""
    choosing_draws: int
    draws: int
    """Draws of labels that C is chosen on, and that the accuracy is reported over."""
    grid: range
    """First values of C, as positions on the ladder of `c_at`. Where the best lies at an end, the
    grid grows there; where the steps are wide, the best one's neighbours are tried too."""

    def draw(self, train: ImageSet, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the rows of each draw of labels to choose C on, and of each to report over."""
        if self.num_labels is None:
            return [np.arange(len(train))], [np.arange(len(train))]
        per_class = self.num_labels(train.num_classes)
        return (
            draw_labels(train.labels, per_class, self.choosing_draws, [seed, 0]),
            draw_labels(train.labels, per_class, self.draws, [seed, 1]),
        )


PROTOCOLS = {
    # [O] CIFAR-10's grid was not published: decades from 1e-6, since a large C takes long, then
    # the steps between.
    "full": Protocol(num_labels=None, choosing_draws=1, draws=1, grid=range(-18, -8, 3)),
    "400": Protocol(
        num_labels=lambda num_classes: 400, choosing_draws=5, draws=10, grid=range(-18, -8, 3)
    ),
    # [C] 1e-4 to 1e-2, ten draws of 1,000 labels to choose and a hundred to report.
    "1000": Protocol(
        num_labels=lambda num_classes: 1_000 // num_classes,
        choosing_draws=10,
        draws=100,
        grid=range(-12, -5),
    ),
}


def find_protocol(name: str, draws: int | None = None) -> Protocol:
    """Return a protocol by name, with another number of draws to report over if one is given."""
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name!r}: choose from {', '.join(PROTOCOLS)}")
    plan = PROTOCOLS[name]
    draws = plan.draws if draws is None else draws
    if draws < 1 or (plan.num_labels is None and draws != 1):
        raise UserError(f"protocol {name!r} cannot have {draws} draws of labels")
    return replace(plan, draws=draws)


def draw_rows(labels: np.ndarray, per_class: int, seed: int | Sequence[int]) -> np.ndarray:
    """Draw rows at random, equally many of each class, and return them in order."""
    classes, counts = np.unique(labels, return_counts=True)
    if per_class < 1 or counts.min() < per_class:
        raise UserError(
            f"{per_class} labels of each class were asked for, but one class has {counts.min()}"
        )
    rng = np.random.default_rng(seed)
    picks = [
        rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in classes
    ]
    return np.sort(np.concatenate(picks))


def draw_labels(
    labels: np.ndarray, per_class: int, num_draws: int, seed: Sequence[int]
) -> list[np.ndarray]:
    """Return as many draws of `draw_rows`, the n-th with n at the end of its seed."""
    return [draw_rows(labels, per_class, [*seed, draw]) for draw in range(num_draws)]


def c_at(position: int) -> float:
    """Return a step of the ladder ... 0.1, 0.2, 0.5, 1, 2, 5 ...; position 0 is 1."""
    decade, step = divmod(position, 3)
    return float(f"{(1, 2, 5)[step]}e{decade}")


def choose_c(score: Callable[[float], float], grid: range) -> tuple[float, dict[float, float]]:
    """Return the C with the highest score, the smaller of equals, and the score of each C tried."""
    tried = {position: score(c_at(position)) for position in grid}

    def best() -> int:
        return max(tried, key=lambda position: (tried[position], -position))

    for _ in range(MOST_EXTENSIONS // grid.step):
        if min(tried) < best() < max(tried):
            break
        position = best() - grid.step if best() == min(tried) else best() + grid.step
        tried[position] = score(c_at(position))
    centre = best()
    for position in range(centre - grid.step + 1, centre + grid.step):
        if position not in tried:
            tried[position] = score(c_at(position))
    return c_at(best()), {c_at(position): tried[position] for position in sorted(tried)}


# ---------------------------------------------------------------- draw labels, choose C, score


class DrawnSVM:
    """The SVM of one draw of labels, fitted again for each C from where the last one ended."""

    def __init__(
        self, x_nf: np.ndarray, labels: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        """Take features and labels; ``rows`` is the draw, by default all."""
        if rows is not None and len(rows) < len(x_nf):
            x_nf, labels = x_nf[rows], labels[rows]
        self.labels, self._x, self._model = labels, prepare(x_nf), L2SVM(warm_start=True)

    def fit(self, c: float) -> L2SVM:
        """Return the SVM for this C."""
        return self._model.set_params(C=c).fit(self._x, self.labels)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold how well an SVM did."""

    split: str
    accuracies: tuple[float, ...]
    """One a draw of labels."""
    c: float
    curve: dict[float, float]
    """Mean validation accuracy of every C that was tried."""
    n: int
    """Images judged."""
    num_labels: int
    """Learnt from."""
    num_features: int
    right_n: np.ndarray | None = None
    """Of each image, the share of draws that named it rightly."""

    @property
    def accuracy(self) -> Estimate:
        """Return the accuracy with its interval.

        Over several draws of labels it is the mean, and 1.96 standard deviations of a draw either
        side, as the authors print it; of one, Wilson's interval over images.
        """
        value = float(np.mean(self.accuracies))
        if len(self.accuracies) == 1:
            return wilson_interval(value / 100 * self.n, self.n).scaled(100)
        half = 1.96 * float(np.std(self.accuracies))
        return Estimate(value, value - half, value + half)

    @property
    def error(self) -> Estimate:
        """Return the error with its interval."""
        value, low, high = self.accuracy
        return Estimate(100 - value, 100 - high, 100 - low)


@dataclass(frozen=True, kw_only=True)
class FittedSVMs:
    """SVMs, one a draw of labels, whose C was chosen on validation images; made by `fit_draws`."""

    models: list[L2SVM]
    c: float
    curve: dict[float, float]
    num_labels: int

    def judge(self, split: str, x_nf: np.ndarray, labels: np.ndarray) -> Outcome:
        """Score every SVM on these images."""
        if not self.models:
            raise UserError("these SVMs were fitted to choose C only: fit them with for_test=True")
        right_dn = np.stack([model.predict(x_nf) == labels for model in self.models])
        return Outcome(
            split=split,
            accuracies=tuple(100 * float(mean) for mean in right_dn.mean(1)),
            c=self.c,
            curve=self.curve,
            n=len(labels),
            num_labels=self.num_labels,
            num_features=x_nf.shape[1],
            right_n=right_dn.mean(0),
        )


def fit_draws(
    choosing: Sequence[DrawnSVM],
    reporting: Iterable[DrawnSVM],
    held_nf: np.ndarray,
    held: np.ndarray,
    grid: range,
) -> FittedSVMs:
    """Choose C by the mean accuracy of some draws on held-out rows, and fit those to report.

    ``choosing`` and ``reporting`` may share members. ``reporting`` is read once: a generator needs
    the memory of one draw.
    """

    def score(c: float) -> float:
        return float(np.mean([100 * svm.fit(c).score(held_nf, held) for svm in choosing]))

    c, curve = choose_c(score, grid)
    models = [svm.fit(c) for svm in reporting]
    return FittedSVMs(models=models, c=c, curve=curve, num_labels=len(choosing[0].labels))


def fit_protocol(
    plan: Protocol,
    splits: LabelledSplits,
    features: FeatureFunction,
    *,
    seed: int = 0,
    for_test: bool = False,
    path: Path | None = None,
    progress: bool = False,
) -> tuple[FittedSVMs, Outcome]:
    """Choose C on the validation images, fit the SVMs that are reported, and judge them there.

    The validation images are the set's own (SVHN: 10,000, as in the paper). An accuracy on them, at
    a C chosen on them, is a little too good. With all labels, ``for_test`` fits a last SVM, which
    also learns from the validation images' labels. ``path`` is a .npy file for the features, which
    else stay in memory.
    """
    choosing, reporting = plan.draw(splits.train, seed)
    used = np.unique(np.concatenate(choosing + reporting))
    images_u8 = np.concatenate([splits.train.images_u8[used], splits.validation.images_u8])
    table_nf = compute_features(features, images_u8, path=path, progress=progress)
    x_nf, held_nf = table_nf[: len(used)], table_nf[len(used) :]
    labels, held = splits.train.labels[used], splits.validation.labels

    def svms(drawn: Iterable[np.ndarray]) -> Iterator[DrawnSVM]:
        return (DrawnSVM(x_nf, labels, np.searchsorted(used, rows)) for rows in drawn)

    chosen = list(svms(choosing))
    if plan.num_labels is not None:
        bar = tqdm(reporting, "draws", disable=not progress)
        fitted = fit_draws(chosen, svms(bar), held_nf, held, plan.grid)
        return fitted, fitted.judge("validation", held_nf, held)
    fitted = fit_draws(chosen, chosen, held_nf, held, plan.grid)
    judged = replace(
        fitted.judge("validation", held_nf, held), accuracies=(fitted.curve[fitted.c],)
    )
    final = [DrawnSVM(table_nf, np.concatenate([labels, held])).fit(fitted.c)] if for_test else []
    return replace(fitted, models=final, num_labels=len(table_nf)), judged


def label_curve(
    splits: LabelledSplits,
    test: ImageSet,
    features: FeatureFunction,
    per_class: Sequence[int],
    *,
    draws: int = 10,
    choosing_draws: int = 3,
    grid: range = PROTOCOLS["1000"].grid,
) -> dict[int, Outcome]:
    """Judge features by the protocol of Table 2, with several numbers of labels a class.

    Labels are drawn from the training images, the same ones for every kind of features; C is chosen
    on the validation images, anew for each number; by default with fewer draws than the authors'.
    ``test`` is what is classified in the end: not the images of a result in the ledger, which are
    given out once.
    """
    labels, held, found = splits.train.labels, splits.validation.labels, {}
    train_nf, held_nf, test_nf = (
        compute_features(features, part.images_u8)
        for part in (splits.train, splits.validation, test)
    )
    for each in per_class:
        plan = Protocol(
            num_labels=lambda _, each=each: each,
            choosing_draws=choosing_draws,
            draws=draws,
            grid=grid,
        )
        choosing, reporting = (
            [DrawnSVM(train_nf, labels, rows) for rows in drawn]
            for drawn in plan.draw(splits.train)
        )
        fitted = fit_draws(choosing, reporting, held_nf, held, grid)
        found[each] = fitted.judge("test", test_nf, test.labels)
    return found
