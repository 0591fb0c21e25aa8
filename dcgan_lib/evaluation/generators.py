"""How good a trained generator is: distances to unseen images, copies, and the digits it draws.

Axes: n images, f features; ``*_u8`` images n x c x h x w, 0..255.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import HELD_OUT, PROCEDURAL, load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.distances import (
    BELOW_ZERO,
    Distance,
    fid_of_features,
    kid_of_features,
)
from dcgan_lib.evaluation.features import (
    FEATURES_OF,
    RULER,
    FeatureExtractor,
    get_features,
)
from dcgan_lib.evaluation.neighbours import MemorisationTest
from dcgan_lib.evaluation.probes import Probe, frame, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.models.networks import AnyGenerator, untrained_generator
from dcgan_lib.models.sampling import labels_in_turn, sample_u8
from dcgan_lib.training.checkpoints import load_config, load_generator

LABELS = {
    "kid": "KID",
    "untrained_kid": "KID before training",
    "fid": "FID",
    "memorised": "memorised",
    "copies": "copies",
    "memorised_pixels": "memorised, in pixels",
    "copies_pixels": "copies, in pixels",
    "agreement": "named as asked",
    "recognised": "recognised, confidence > 0.9",
    "entropy": "evenness of the classes",
}
"""A report's figures, by the last word of their ids in the ledger, and how they are printed."""
MOST_DRAWN = 10_000
"""Held-out images of a drawn set in which neighbours are looked for: as many as MNIST has."""
NUM_SHIFTED = 1_000
WIDEST_SHARE = 0.2
"""[O] A memorised share whose interval is wider says too little for a verdict."""
NEIGHBOURS_OF_DIGITS = "mnist-classifier"
"""[O] Where neighbours of digits are looked for. `RULER` finds more of the shifted copies (38 %
among 1,500 digits, where the classifier finds 19 %), but took twenty times as long for it."""
K_NEAREST = 3
"""The neighbour among its own kind that a point's ball reaches to, for precision and recall."""
LEAST_FOUND = 0.9
"""[O] Copies that are shifted by one pixel have to come to so much, for either share to have a
verdict."""


class Measured(NamedTuple):
    """Hold one figure of a report."""

    label: str
    estimate: Estimate
    """A share between 0 and 1 where the unit is "%"."""
    unit: Literal["%", ""]
    n: int
    """Samples."""
    how: str
    """The protocol, in words."""
    too_weak: str | None = None
    """Why the figure cannot tell what it is asked for, where it cannot."""

    @property
    def in_unit(self) -> Estimate:
        """Return the figure as it is printed and recorded."""
        return self.estimate.scaled(100) if self.unit else self.estimate

    def text(self) -> str:
        """Return one line: the figure with its interval, protocol and n."""
        value, low, high = (f"{x:.1f}" if self.unit else f"{x:.4f}" for x in self.in_unit)
        unit = f" {self.unit}".rstrip()
        return f"  {self.label:28} {value}{unit} [{low}, {high}]  ({self.how}, n {self.n:,})"


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """Hold what was measured of one class of a conditional generator."""

    label: int
    """The class that was asked for."""
    agreement: Estimate
    """Share of its samples that a classifier names so."""
    mistaken_for: int | None
    """The class that the others are named most often; None when there are no others."""
    precision: Estimate
    """Share of samples that lie inside the real images' manifold: they look real."""
    recall: Estimate
    """Share of real images that lie inside the samples' manifold: the samples are as varied."""
    n: int
    """Samples, and as many real images."""


@dataclass(frozen=True, kw_only=True)
class GeneratorReport:
    """Hold what was measured of one generator."""

    checkpoint: str
    image_set: str
    """What it was trained on."""
    split: str
    """The held-out images it is compared with."""
    num_held_out: int
    num_images: int
    """Samples."""
    seed: int
    """Of the latent vectors."""
    seconds: float
    rows: dict[str, Measured]
    """By the keys of `LABELS`."""
    missing: tuple[str, ...]
    """What could not be measured, and why."""
    classes: tuple[ClassQuality, ...]
    """For digits drawn on demand."""

    def text(self) -> str:
        """Lay the report out as lines, every number with its n, interval and protocol."""
        lines = [
            f"{self.checkpoint}: {self.num_images:,} samples against {self.num_held_out:,} "
            f"{self.split} images of {self.image_set}, seed {self.seed}"
        ]
        lines += [row.text() for row in self.rows.values()]
        lines += [f"  not measured: {why}" for why in self.missing]
        for row in self.classes:
            shares = {"named so": row.agreement, "precision": row.precision, "recall": row.recall}
            parts = [
                f"{name} {100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
                for name, (value, low, high) in shares.items()
            ]
            parts += [] if row.mistaken_for is None else [f"else most often {row.mistaken_for}"]
            lines.append(f"  asked for {row.label}, n {row.n}: {', '.join(parts)}")
        return "\n".join([*lines, BELOW_ZERO])


def evaluate_generator(
    checkpoint: str,
    *,
    num_images: int = 5_000,
    features: str | None = None,
    held_out: str = HELD_OUT,
    seed: int = 1,
) -> GeneratorReport:
    """Measure a generator against images that it was not trained on.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    num_images : int, default 5,000
        Samples; also the most held-out images that are used.
    features : str, optional
        Name for `get_features`, or "pixels", for distances and neighbours alike; by default
        `FEATURES_OF` the set, but `NEIGHBOURS_OF_DIGITS` for the neighbours of MNIST's digits.
    held_out : str, optional
        Split to compare with; by default that of `dcgan_lib.data.load.held_out_split`.
    seed : int, default 1
        Of the latent vectors.

    Raises
    ------
    UserError
        If the image set has no features of its own and none were named, images are missing, or
        there are too few for KID; what else needs more images is named in the report.
    """
    begun = time.perf_counter()
    config, about = load_config(checkpoint)
    name, model = about["image_set"], config.model
    if num_images < 2:
        raise UserError(f"a distance needs at least 2 samples, but --num-images is {num_images}")
    extractor = _extractor(features or FEATURES_OF.get(name), name, model)
    train = load_own_split(about, model.image_size, "train")
    unseen = load_own_split(about, model.image_size, held_out, num_images)
    is_drawn = about.get("source", name) in PROCEDURAL
    num_drawn = min(len(train), MOST_DRAWN) if is_drawn else None
    others = load_own_split(about, model.image_size, held_out, num_drawn=num_drawn)
    samples, labels = draw_samples(load_generator(checkpoint), num_images, seed)
    untrained, _ = draw_samples(untrained_generator(model), len(unseen), seed)
    samples_nf = extractor.extract(samples)
    rows, missing = measure_distances(
        samples_nf,
        extractor.extract(untrained),
        extractor.extract(unseen.images_u8),
        extractor.name,
    )
    near = extractor
    if name == "mnist" and features is None:
        near = get_features(NEIGHBOURS_OF_DIGITS)
        samples_nf = near.extract(samples)
    neighbours, why_not = measure_copies(
        samples, samples_nf, train.images_u8, others.images_u8, near, mirrored=config.mirror
    )
    rows, missing = rows | neighbours, missing + why_not
    classes: tuple[ClassQuality, ...] = ()
    if name == "mnist":
        probe = load_probe("probe-mnist")
        named, confidence = name_digits(samples, probe)
        rows |= digit_rows(named, confidence, probe.head("label").num_outputs, labels)
        if labels is not None:
            real_nf = near.extract(unseen.images_u8)
            classes = class_quality(real_nf, unseen.labels, samples_nf, labels, named)
    return GeneratorReport(
        checkpoint=str(checkpoint),
        image_set=name,
        split=unseen.card["split"],
        num_held_out=len(unseen),
        num_images=num_images,
        seed=seed,
        seconds=time.perf_counter() - begun,
        rows=rows,
        missing=tuple(dict.fromkeys(missing)),
        classes=classes,
    )


def _extractor(features: str | None, set_name: str, model: ModelConfig) -> FeatureExtractor:
    if features is None:
        raise UserError(
            f"no features were tested for the set {set_name!r}: name some with --features; pixels "
            f"and {RULER} fit every size, grey or RGB, and so does inception, once its weights are "
            "there, but a probe's features fit only the size that it reads; test them first, by "
            "dcgan rank-test"
        )
    if features != "pixels":
        return get_features(features)
    num_pixels = model.num_channels * math.prod(model.image_size)
    return FeatureExtractor("pixels", num_pixels, nn.Identity(), lambda x_u8: x_u8.flatten(1) / 255)


def load_own_split(
    about: dict[str, Any],
    size: tuple[int, int],
    split: str,
    most: int | None = None,
    *,
    num_drawn: int | None = None,
) -> ImageSet:
    """Load a split of what a checkpoint was trained on, as it was then; of ``most`` at random.

    Of a drawn set's held-out images, ``num_drawn`` are there.
    """
    found = load_image_set(
        about.get("source", about["image_set"]),
        split,
        image_size=size,
        fit=about.get("fit", "crop"),
        channels=about.get("channels", "auto"),
        drop_duplicates=about.get("drop_duplicates", False),
        num_images=about.get("num_images") if split == "train" else num_drawn,
    )
    if not most or len(found) <= most:
        return found
    # A random part: sets lie class by class, or easy images first.
    rows = np.random.default_rng(0).permutation(len(found))[:most]
    return found.subset(np.sort(rows))


def draw_samples(
    generator: AnyGenerator, num_images: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Generate pictures, and for a conditional network the labels asked for, equally often."""
    labels = labels_in_turn(num_images, generator.config)
    pictures = sample_u8(generator, num_images, seed, labels)
    return pictures, None if labels is None else labels.numpy()


# ---------------------------------------------------------------- distances and copies


def measure_distances(
    samples_nf: np.ndarray, untrained_nf: np.ndarray, held_out_nf: np.ndarray, name: str
) -> tuple[dict[str, Measured], list[str]]:
    """Measure KID and FID of samples to images that their generator did not see.

    All are features, those called ``name``; ``untrained_nf`` of what it drew before training.

    Returns
    -------
    rows, missing
        The figures, and a sentence for each that needs more images than there are.

    Raises
    ------
    UserError
        If there are not even enough for KID, 4 on either side.
    """
    rows: dict[str, Measured] = {}
    for key, fake_nf in (("kid", samples_nf), ("untrained_kid", untrained_nf)):
        found = kid_of_features(held_out_nf, fake_nf, name)
        rows[key] = _distance(key, found)
    try:
        found = fid_of_features(held_out_nf, samples_nf[: len(held_out_nf)], name)
    except UserError as error:
        return rows, [str(error)]
    return rows | {"fid": _distance("fid", found)}, []


def kid_score(
    about: dict[str, Any], size: tuple[int, int], num_images: int
) -> Callable[[np.ndarray], dict[str, float]]:
    """Return the function that gives samples their KID, for `dcgan_lib.training.loop.fit`.

    It is measured by `RULER`, which will do for comparing one run's samples with its earlier ones
    also where it was not tested for the set.

    Parameters
    ----------
    about
        As `fit` keeps it of a run: which images it learns from, and how they are read.
    num_images
        Held-out images that the samples are compared with, at most.

    Raises
    ------
    UserError
        If there are fewer than four held-out images, or the features are not there.
    """
    held_out = load_own_split(about, size, HELD_OUT, num_images)
    if len(held_out) < 4:
        raise UserError(
            f"a score needs at least 4 held-out images, but {held_out.name} has {len(held_out)}: "
            "add images, or leave --score-every out"
        )
    extractor = get_features(RULER)
    real_nf = extractor.extract(held_out.images_u8)

    def score(samples_u8: np.ndarray) -> dict[str, float]:
        fake_nf = extractor.extract(samples_u8)
        found = kid_of_features(real_nf, fake_nf, extractor.name)
        return {"kid": found.value}

    return score


def _distance(key: str, found: Distance) -> Measured:
    how = f"{found.metric} on {found.features}"
    return Measured(LABELS[key], found.estimate, "", found.n_fake, how)


def measure_copies(
    samples_u8: np.ndarray,
    samples_nf: np.ndarray,
    train_u8: np.ndarray,
    held_out_u8: np.ndarray,
    features: FeatureExtractor,
    *,
    mirrored: bool = False,
) -> tuple[dict[str, Measured], list[str]]:
    """Measure how far samples repeat training images, in features and in pixels.

    As a control, training images that are shifted by one pixel are asked about too.

    Parameters
    ----------
    samples_u8, train_u8, held_out_u8, mirrored
        See `dcgan_lib.evaluation.neighbours.MemorisationTest`.
    samples_nf, features
        Where neighbours are looked for, and what the samples are there; "pixels" for pixels alone.

    Returns
    -------
    rows, missing
        The figures, or why there are none.
    """
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(train_u8))[:NUM_SHIFTED])
    shifted_u8 = shifted(train_u8[chosen])
    spaces = [("_pixels", None, samples_u8)]
    if features.name != "pixels":
        spaces.insert(0, ("", features, samples_nf))
    rows: dict[str, Measured] = {}
    for suffix, space, samples in spaces:
        try:
            ask = MemorisationTest(train_u8, held_out_u8, features=space, mirrored=mirrored)
            found, control = ask(samples), ask(shifted_u8)
        except UserError as error:
            return rows, [str(error)]
        sides = f"{found.n_train:,} training and {found.n_held_out:,} held-out images"
        how = (
            f"{found.closer_to_train.value:.1%} closer to training images, "
            f"{found.expected:.1%} expected; in {found.space}, {sides}"
        )
        low, high = found.memorised.low, found.memorised.high
        too_weak = None
        if control.memorised.value < LEAST_FOUND:
            too_weak = (
                "copies that are shifted by one pixel come to "
                f"{max(0, control.memorised.value):.0%} in place of 100%"
            )
        if high - low > WIDEST_SHARE:
            too_weak = (
                f"with {sides} the interval is {100 * (high - low):.0f} points wide, from "
                f"{100 * low:.0f} to {100 * high:.0f} %"
            )
        key = f"memorised{suffix}"
        rows[key] = Measured(LABELS[key], found.memorised, "%", found.n, how, too_weak)
        share = f"{control.copies.value:.0%}"
        how = f"1 % expected; in {found.space}; of copies shifted by a pixel {share} are found"
        too_weak = None
        if control.copies.value < LEAST_FOUND:
            too_weak = f"of copies that are shifted by one pixel only {share} are found"
        key = f"copies{suffix}"
        rows[key] = Measured(LABELS[key], found.copies, "%", found.n, how, too_weak)
    return rows, []


def shifted(images_u8: np.ndarray) -> np.ndarray:
    """Return images moved by one pixel to the left and one down; the edge is repeated."""
    padded_u8 = np.pad(images_u8, ((0, 0), (0, 0), (1, 0), (0, 1)), mode="edge")
    return np.ascontiguousarray(padded_u8[:, :, :-1, 1:])


# ---------------------------------------------------------------- digits


def name_digits(images_u8: np.ndarray, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that a digit classifier gives each picture (int64, n), and its confidence.

    Parameters
    ----------
    images_u8 : ndarray
        Up to 4 pixels a side smaller than the probe's images, and then framed in black, as 28x28
        digits are for the 32x32 classifier.
    probe : Probe
        With a class head called "label", such as ``load_probe("probe-mnist")``.
    """
    framed = frame(torch.tensor(images_u8), probe.config.image_size).numpy()
    probabilities = probe.predict(framed)["label"]
    return probabilities.argmax(1), probabilities.max(1)


def digit_rows(
    named: np.ndarray, confidence: np.ndarray, num_classes: int, asked: np.ndarray | None = None
) -> dict[str, Measured]:
    """Return how many digits are recognised, how even the classes are, how many are as asked."""
    n, counts = len(named), np.bincount(named, minlength=num_classes)
    shares = {} if asked is None else {"agreement": named == asked}
    shares["recognised"] = confidence > 0.9
    rows = {
        key: Measured(LABELS[key], wilson_interval(int(so.sum()), n), "%", n, "digit classifier")
        for key, so in shares.items()
    }
    even = bootstrap_interval(lambda k: _evenness(k, num_classes), named)
    how = f"class entropy / log {num_classes}; samples a class: {' '.join(map(str, counts))}"
    return rows | {"entropy": Measured(LABELS["entropy"], even, "", n, how)}


def _evenness(named_n: np.ndarray, num_classes: int) -> float:
    shares = np.bincount(named_n, minlength=num_classes) / len(named_n)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(num_classes)) + 0.0  # never -0


# ---------------------------------------------------------------- class by class


def class_quality(
    real_nf: np.ndarray,
    real_labels: np.ndarray,
    fake_nf: np.ndarray,
    asked: np.ndarray,
    named: np.ndarray,
) -> tuple[ClassQuality, ...]:
    """Measure a conditional generator class by class.

    Parameters
    ----------
    real_nf, fake_nf : ndarray
        Held-out images and samples, by the features where the manifolds are.
    real_labels, asked, named : ndarray
        int64: classes of the real images, those asked of the generator, and those a classifier
        names.

    Returns
    -------
    tuple of ClassQuality
        One a class, in order; n is what the rarer side has.
    """
    rows = []
    for label in np.unique(asked):
        real, mine = np.flatnonzero(real_labels == label), np.flatnonzero(asked == label)
        n = min(len(real), len(mine))
        precision, recall = precision_recall(real_nf[real[:n]], fake_nf[mine[:n]])
        others = np.bincount(named[mine][named[mine] != label])
        rows.append(
            ClassQuality(
                label=int(label),
                agreement=wilson_interval(int((named[mine] == label).sum()), len(mine)),
                mistaken_for=int(others.argmax()) if others.sum() else None,
                precision=precision,
                recall=recall,
                n=n,
            )
        )
    return tuple(rows)


def precision_recall(real_nf: np.ndarray, fake_nf: np.ndarray) -> tuple[Estimate, Estimate]:
    """Measure precision and recall of samples (Kynkaanniemi et al., 2019).

    Parameters
    ----------
    real_nf, fake_nf : ndarray
        Features; equally many, because the balls shrink as n grows.

    Returns
    -------
    precision, recall : Estimate
        Share of samples inside some real image's ball, and of real images inside some sample's
        ball.

    Raises
    ------
    UserError
        If the numbers differ, or there are no more than `K_NEAREST`.
    """
    if len(real_nf) != len(fake_nf) or len(real_nf) <= K_NEAREST:
        raise UserError(
            f"precision and recall need equally many images, more than {K_NEAREST}, but got "
            f"{len(real_nf)} and {len(fake_nf)}"
        )
    return _share_inside(fake_nf, real_nf), _share_inside(real_nf, fake_nf)


def _share_inside(points_nf: np.ndarray, centres_nf: np.ndarray) -> Estimate:
    apart = cdist(centres_nf, centres_nf)
    radius = np.partition(apart, K_NEAREST, 1)[:, K_NEAREST]  # the nearest is the point itself
    inside = (cdist(points_nf, centres_nf) <= radius).any(1)
    return wilson_interval(int(inside.sum()), len(points_nf))
