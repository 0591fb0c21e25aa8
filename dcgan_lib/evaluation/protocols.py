"""The protocols by which Tables 1 and 2 judge features: which labels an SVM gets, and how its C is chosen.

Axes: n images, f features. C is chosen on validation images alone; the test images come last, from
`dcgan_lib.evaluation.protocols`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import PROCEDURAL, load_image_set, set_names
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import Features, compute_features
from dcgan_lib.evaluation.ledger import full_id, is_measured
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval
from dcgan_lib.evaluation.svm import L2SVM, prepare
from dcgan_lib.paths import results_root

NUM_DRAWN_TO_JUDGE = 10_000
"""Validation and test images of a drawn set: as many as the published sets have."""

_given_out: set[tuple[str, Path]] = set()


@dataclass(frozen=True, kw_only=True)
class LabelledSplits:
    """Hold the training and validation images of a set, and guard its test images.

    Parameters
    ----------
    train, validation : ImageSet
        With labels of the same classes.
    source : str, optional
        Where the test images are loaded from; by default the set's name.
    """

    train: ImageSet
    validation: ImageSet
    source: str | None = None

    def __post_init__(self) -> None:
        """Refuse sets without labels, and sets that differ."""
        for part in (self.train, self.validation):
            _check_labels(part)
        kinds = {
            (part.name, part.class_names, part.images_u8.shape[1:])
            for part in (self.train, self.validation)
        }
        if len(kinds) > 1:
            raise UserError(
                f"training and validation images must be of one set and size, but are {sorted(kinds)}"
            )

    @property
    def name(self) -> str:
        """Return the set's name."""
        return self.train.name

    @contextmanager
    def test_for(self, id: str, *, again: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give out the test images and labels for one result of the ledger.

        Parameters
        ----------
        id : str
            The result that they are for, such as ``table1.dcgan.full``.
        again : bool, default False
            Measure a result that was measured before, on purpose.

        Yields
        ------
        images_u8, labels : ndarray
            uint8, n x c x h x w, and int64, n.

        Raises
        ------
        UserError
            If there is no such claim, or the result was measured before.

        Notes
        -----
        Ctrl-C while they are given out takes the look back: no result came of it, and the work may go on.
        """
        check_unused(id, again=again)
        like = {"image_size": self.train.image_size, "channels": self.train.num_channels}
        test = _load(self.source or self.name, "test", **like)
        _given_out.add((full_id(id), results_root()))
        try:
            yield test.images_u8, test.labels
        except KeyboardInterrupt:
            _given_out.discard((full_id(id), results_root()))
            raise


def check_unused(id: str, *, again: bool = False) -> None:
    """Refuse, before anything is computed, what `LabelledSplits.test_for` would refuse."""
    key = full_id(id)
    if (is_measured(key) or (key, results_root()) in _given_out) and not again:
        raise UserError(
            f"the test images were used for {key} before, and a second look would make them training data: "
            "choose on validation, or say by --again (in Python again=True) that it is measured again on purpose"
        )


def plain_name(name: str) -> str:
    """Return a set's name as the ledger writes it: in small letters, with dashes."""
    return str(name).casefold().replace("_", "-")


def one_name(name: str) -> str:
    """Return a known set's plain name; a folder's is left alone, as the case of its letters matters."""
    return plain_name(name) if plain_name(name) in set_names() else str(name)


def load_splits(
    name: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | str = "auto",
    download: bool = False,
) -> LabelledSplits:
    """Load the training and validation images of a set.

    Parameters
    ----------
    name, image_size, channels, download
        See `dcgan_lib.data.load.load_image_set`.
    """
    how = {"image_size": image_size, "channels": channels, "download": download}
    train = _load(name, "train", **how)
    _check_labels(train)  # before as many more are drawn
    return LabelledSplits(
        train=train, validation=_load(name, "validation", **how), source=str(name)
    )


def _check_labels(part: ImageSet) -> None:
    if part.labels is None:
        raise UserError(
            f"the images of {part.name} have no classes to learn: choose a set with labels"
        )


def _load(name: str, split: str, **how: Any) -> ImageSet:
    drawn = plain_name(name) in PROCEDURAL
    return load_image_set(
        name, split, num_images=NUM_DRAWN_TO_JUDGE if drawn and split != "train" else None, **how
    )


MOST_EXTENSIONS = 12  # steps of the ladder that a grid may grow: four decades


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Describe how labels are drawn and C is chosen.

    Parameters
    ----------
    num_labels : callable or None
        From the number of classes to labels a class; None: all labels.
    choosing_draws, draws : int
        Draws of labels that C is chosen on, and that the accuracy is reported over.
    grid : range
        First values of C, as positions on the ladder of `c_at`. Where the best lies at an end, the grid grows there;
        where the steps are wide, the best one's neighbours are tried too.
    """

    num_labels: Callable[[int], int] | None
    choosing_draws: int
    draws: int
    grid: range


PROTOCOLS = {
    # [O] CIFAR-10's grid was not published: decades from 1e-6, since a large C takes long, then the steps between.
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


def c_at(position: int) -> float:
    """Return a step of the ladder ... 0.1, 0.2, 0.5, 1, 2, 5 ...; position 0 is 1."""
    decade, step = divmod(position, 3)
    return float(f"{(1, 2, 5)[step]}e{decade}")


def choose_c(score: Callable[[float], float], grid: range) -> tuple[float, dict[float, float]]:
    """Find the C with the highest score, the smaller one of equals.

    Parameters
    ----------
    score : callable
        From C to, for example, validation accuracy.
    grid : range
        Positions on the ladder to begin with.

    Returns
    -------
    float, dict
        The best C, and the score of every C that was tried, in order.
    """
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


def draw_rows(labels: np.ndarray, per_class: int, seed: int | Sequence[int]) -> np.ndarray:
    """Draw rows at random, equally many of each class, and return them in order.

    Raises
    ------
    UserError
        If a class has too few.
    """
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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold how well an SVM did.

    Parameters
    ----------
    split : str
        "validation" or "test".
    accuracies : tuple of float
        One a draw of labels, in per cent.
    c : float
        The chosen C.
    curve : dict of float to float
        Mean validation accuracy of every C that was tried, in per cent.
    n, num_labels, num_features : int
        Images judged, labels learnt from, features.
    seconds : float
        Wall time, features included.
    """

    split: str
    accuracies: tuple[float, ...]
    c: float
    curve: dict[float, float]
    n: int
    num_labels: int
    num_features: int
    seconds: float

    @property
    def accuracy(self) -> Estimate:
        """Return the accuracy in per cent with its interval.

        Over several draws of labels it is the mean, and 1.96 standard deviations of a draw either side, as the
        authors print it; of one, Wilson's interval over images.
        """
        value = float(np.mean(self.accuracies))
        if len(self.accuracies) == 1:
            return wilson_interval(value / 100 * self.n, self.n).scaled(100)
        half = 1.96 * float(np.std(self.accuracies))
        return Estimate(value, value - half, value + half)

    @property
    def error(self) -> Estimate:
        """Return the error in per cent with its interval."""
        value, low, high = self.accuracy
        return Estimate(100 - value, 100 - high, 100 - low)


class DrawnSVM:
    """The SVM of one draw of labels, fitted again for each C from where the last one ended.

    Parameters
    ----------
    x_nf, labels : ndarray
        float32 features, n x f, and n labels.
    rows : ndarray
        The draw.
    """

    def __init__(self, x_nf: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
        x_nf, self._labels = x_nf if len(rows) == len(x_nf) else x_nf[rows], labels[rows]
        self._x, self._model = prepare(x_nf), L2SVM(warm_start=True)

    def fit(self, c: float) -> L2SVM:
        """Return the SVM for this C."""
        return self._model.set_params(C=c).fit(self._x, self._labels)


def choose_on(
    draws: Sequence[DrawnSVM], held_nf: np.ndarray, held: np.ndarray, grid: range
) -> tuple[float, dict[float, float]]:
    """Choose C by the mean accuracy of draws on validation images; see `choose_c`."""
    return choose_c(
        lambda c: float(np.mean([100 * draw.fit(c).score(held_nf, held) for draw in draws])), grid
    )


class FittedProtocol:
    """SVMs whose C is chosen, ready to be judged; made by `fit_protocol`."""

    def __init__(
        self, features: Features, models: list[L2SVM], num_labels: int, on_validation: Outcome
    ) -> None:
        self._features, self._models, self._num_labels = features, models, num_labels
        self.on_validation = on_validation

    def on_test(
        self, images_u8: np.ndarray, labels: np.ndarray, *, progress: bool = False
    ) -> Outcome:
        """Judge on the test images, which `LabelledSplits.test_for` gives out."""
        begun, before = time.monotonic(), self.on_validation
        if not self._models:
            raise UserError(
                "this protocol was fitted for validation only: fit it with for_test=True"
            )
        x_nf = compute_features(self._features, images_u8, progress=progress)
        accuracies = tuple(100 * model.score(x_nf, labels) for model in self._models)
        return Outcome(
            split="test",
            accuracies=accuracies,
            c=before.c,
            curve=before.curve,
            n=len(labels),
            num_labels=self._num_labels,
            num_features=before.num_features,
            seconds=before.seconds + time.monotonic() - begun,
        )


def fit_protocol(
    name: str,
    splits: LabelledSplits,
    features: Features,
    *,
    draws: int | None = None,
    seed: int = 0,
    for_test: bool = False,
    path: Path | None = None,
    progress: bool = False,
) -> FittedProtocol:
    """Choose C on the validation images, then fit the SVMs that are reported.

    Parameters
    ----------
    name : str
        "full": all labels. "400": 400 of each class. "1000": 1,000 in all, equally many of each class.
    splits : LabelledSplits
        The images.
    features : callable
        From uint8 images, n x c x h x w, to float32 features, n x f.
    draws : int, optional
        Draws of labels to report over; by default the protocol's.
    seed : int, default 0
        Of the draws.
    for_test : bool, default False
        With all labels, learn from those of the validation images too once C is chosen.
    path : Path, optional
        A .npy file for the features of the training and validation images; by default they stay in memory.
    progress : bool, default False
        Show bars.

    Raises
    ------
    UserError
        If there is no such protocol, or a class has too few labels.

    Notes
    -----
    Validation images are the set's own (SVHN: 10,000, as in the paper). An accuracy on them, at a C chosen on
    them, is a little too good.
    """
    begun, plan = time.monotonic(), _plan(name, draws)
    train, held = splits.train.labels, splits.validation.labels
    choosing, reporting = _draws(plan, splits, seed)
    used = np.unique(np.concatenate(choosing + reporting))
    images_u8 = np.concatenate([splits.train.images_u8[used], splits.validation.images_u8])
    table_nf = compute_features(features, images_u8, path=path, progress=progress)
    x_nf, held_nf, labels = table_nf[: len(used)], table_nf[len(used) :], train[used]
    choosing, reporting = (
        [np.searchsorted(used, rows) for rows in draws] for draws in (choosing, reporting)
    )
    best, curve = choose_on(
        [DrawnSVM(x_nf, labels, rows) for rows in choosing], held_nf, held, plan.grid
    )
    if plan.num_labels is None:
        accuracies, both = (curve[best],), np.concatenate([labels, held])
        models = [DrawnSVM(table_nf, both, np.arange(len(both))).fit(best)] if for_test else []
    else:
        bar = tqdm(reporting, "draws", disable=not progress)
        models = [DrawnSVM(x_nf, labels, rows).fit(best) for rows in bar]
        accuracies = tuple(100 * model.score(held_nf, held) for model in models)
    outcome = Outcome(
        split="validation",
        accuracies=accuracies,
        c=best,
        curve=curve,
        n=len(held),
        num_labels=len(choosing[0]),
        num_features=table_nf.shape[1],
        seconds=time.monotonic() - begun,
    )
    return FittedProtocol(
        features, models, len(table_nf if plan.num_labels is None else choosing[0]), outcome
    )


def check_protocol(name: str, splits: LabelledSplits, draws: int | None = None) -> None:
    """Refuse, before any feature is computed, what `fit_protocol` would refuse."""
    _draws(_plan(name, draws), splits, 0)


def _draws(
    plan: Protocol, splits: LabelledSplits, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the rows of each draw to choose C on, and of each to report over."""
    labels = splits.train.labels
    if plan.num_labels is None:
        return [np.arange(len(labels))], [np.arange(len(labels))]
    per_class = plan.num_labels(splits.train.num_classes)
    return (
        draw_labels(labels, per_class, plan.choosing_draws, [seed, 0]),
        draw_labels(labels, per_class, plan.draws, [seed, 1]),
    )


def _plan(name: str, draws: int | None) -> Protocol:
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name!r}: choose from {', '.join(PROTOCOLS)}")
    plan = PROTOCOLS[name]
    if draws is None:
        return plan
    if (plan.num_labels is None and draws != 1) or draws < 1:
        raise UserError(f"protocol {name!r} cannot have {draws} draws of labels")
    return Protocol(
        num_labels=plan.num_labels, choosing_draws=plan.choosing_draws, draws=draws, grid=plan.grid
    )


def label_curve(
    splits: LabelledSplits,
    test: ImageSet,
    features: Features,
    per_class: Sequence[int],
    *,
    draws: int = 10,
    choosing_draws: int = 3,
    grid: range = PROTOCOLS["1000"].grid,
    seed: int = 0,
) -> dict[int, Outcome]:
    """Judge features by the protocol of Table 2, with several numbers of labels.

    Parameters
    ----------
    splits : LabelledSplits
        Labels are drawn from the training images; C is chosen on the validation images, anew for each number.
    test : ImageSet
        What is classified in the end; not the images of a result in the ledger, which are given out once.
    features : callable
        From uint8 images, n x c x h x w, to float32 features, n x f; computed once for each image.
    per_class : sequence of int
        Labels a class.
    draws, choosing_draws : int
        Draws of labels to report over, 10 by default, and to choose C on, 3 by default: fewer than the authors'.
    grid : range, optional
        First values of C, as positions on the ladder of `dcgan_lib.evaluation.protocols.c_at`; by default the
        authors'.
    seed : int, default 0
        Of the draws; every kind of features gets the same ones.

    Returns
    -------
    dict of int to Outcome
        Labels a class to the outcome on ``test``.

    Raises
    ------
    UserError
        If a class has too few labels.
    """
    labels, held = splits.train.labels, splits.validation.labels
    drawn = {
        each: [
            draw_labels(labels, each, *stage)
            for stage in ((choosing_draws, [seed, 0]), (draws, [seed, 1]))
        ]
        for each in per_class
    }
    begun, found = time.monotonic(), {}
    train_nf, held_nf, test_nf = (
        compute_features(features, part.images_u8)
        for part in (splits.train, splits.validation, test)
    )
    for each, (choosing, reporting) in drawn.items():
        trials = [DrawnSVM(train_nf, labels, rows) for rows in choosing]
        best, curve = choose_on(trials, held_nf, held, grid)
        models = [DrawnSVM(train_nf, labels, rows).fit(best) for rows in reporting]
        found[each] = Outcome(
            split="test",
            accuracies=tuple(100 * model.score(test_nf, test.labels) for model in models),
            c=best,
            curve=curve,
            n=len(test),
            num_labels=len(reporting[0]),
            num_features=train_nf.shape[1],
            seconds=time.monotonic() - begun,
        )
    return found
