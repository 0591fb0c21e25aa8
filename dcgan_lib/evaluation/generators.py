"""How good a trained generator is: distances to images it never saw, copies, and digits if it draws digits.

Axes: n images, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.distances import Distance, fid, kid
from dcgan_lib.evaluation.features import FeatureExtractor, get_features
from dcgan_lib.evaluation.ledger import (
    claims,
    Result,
    check_command,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.neighbours import Memorisation, memorisation
from dcgan_lib.evaluation.probes import Probe, frame, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.models.baselines import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import load_config, load_generator, untrained_generator


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """Hold what was measured of one class.

    Parameters
    ----------
    label : int
        The class that was asked for.
    agreement : Estimate
        Share of its samples that a classifier names so.
    mistaken_for : int or None
        The class that the others are named most often; None when there are no others.
    precision : Estimate
        Share of samples that lie inside the real images' manifold: they look real.
    recall : Estimate
        Share of real images that lie inside the samples' manifold: the samples are as varied.
    n : int
        Samples, and as many real images.
    """

    label: int
    agreement: Estimate
    mistaken_for: int | None
    precision: Estimate
    recall: Estimate
    n: int


def precision_recall(
    real_nf: np.ndarray, fake_nf: np.ndarray, *, k: int = 3
) -> tuple[Estimate, Estimate]:
    """Measure precision and recall of samples by the balls around each point.

    Parameters
    ----------
    real_nf, fake_nf : ndarray
        Features, n x f; equally many, because the balls shrink as n grows.
    k : int, default 3
        A point's ball reaches to its k-th nearest neighbour among its own kind.

    Returns
    -------
    precision, recall : Estimate
        Share of samples inside some real image's ball, and of real images inside some sample's ball.

    Raises
    ------
    UserError
        If the numbers differ, or there are no more than k.

    Notes
    -----
    Kynkaanniemi et al. (2019).
    """
    if len(real_nf) != len(fake_nf) or len(real_nf) <= k:
        raise UserError(
            f"precision and recall need equally many images, more than {k}, but got {len(real_nf)} and {len(fake_nf)}"
        )
    return _share_inside(fake_nf, real_nf, k), _share_inside(real_nf, fake_nf, k)


def _share_inside(points_nf: np.ndarray, centres_nf: np.ndarray, k: int) -> Estimate:
    search = NearestNeighbors(algorithm="brute").fit(centres_nf)
    radii_n = search.kneighbors(centres_nf, k + 1)[0][:, -1]  # the nearest is the point itself
    distances, rows = search.kneighbors(points_nf, len(centres_nf))
    return wilson_interval(int((distances <= radii_n[rows]).any(1).sum()), len(points_nf))


def class_quality(
    real_u8: np.ndarray,
    real_labels: np.ndarray,
    fake_u8: np.ndarray,
    asked: np.ndarray,
    named: np.ndarray,
    features: FeatureExtractor,
) -> tuple[ClassQuality, ...]:
    """Measure a conditional generator class by class.

    Parameters
    ----------
    real_u8, fake_u8 : ndarray
        Held-out images and samples, uint8, n x c x h x w.
    real_labels, asked, named : ndarray
        int64: classes of the real images, those asked of the generator, and those a classifier names.
    features : FeatureExtractor
        Where the manifolds are.

    Returns
    -------
    tuple of ClassQuality
        One a class, in order; n is what the rarer side has.
    """
    real_nf, fake_nf, rows = features.extract(real_u8), features.extract(fake_u8), []
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


def save_classes(name: str, rows: tuple[ClassQuality, ...], root: Path | None = None) -> None:
    """Keep the rows beside the ledger, as ``classes/NAME.json``."""
    save_details(f"classes/{name}", [asdict(row) for row in rows], root)


def load_classes(name: str, root: Path | None = None) -> tuple[ClassQuality, ...]:
    """Return what `save_classes` kept.

    Raises
    ------
    UserError
        If there is nothing of that name.
    """
    kept = load_details(f"classes/{name}", f"dcgan evaluate {name} --record {name}", root)
    estimates = ("agreement", "precision", "recall")
    return tuple(
        ClassQuality(
            **{key: Estimate(*value) if key in estimates else value for key, value in row.items()}
        )
        for row in kept
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitReport:
    """Hold what a classifier says of generated digits.

    Parameters
    ----------
    recognised : Estimate
        Share of images that the classifier names with confidence over 0.9.
    evenness : Estimate
        Entropy of the classes named, over the log of their number: 1 when all are equally frequent.
    counts : tuple of int
        Images named as each class.
    agreement : Estimate or None
        For a conditional generator: share of images named as the class that was asked for.
    named : ndarray
        int64, shape (n,): the class each image is named.
    n : int
        Images.
    """

    recognised: Estimate
    evenness: Estimate
    counts: tuple[int, ...]
    agreement: Estimate | None
    named: np.ndarray
    n: int


def digit_report(
    images_u8: np.ndarray, probe: Probe, *, labels: np.ndarray | None = None
) -> DigitReport:
    """Score generated digits with a digit classifier.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, n x c x h x w; up to 4 pixels a side smaller than the probe's images, and then framed
        in black, as 28x28 digits are for the 32x32 classifier.
    probe : Probe
        With a class head called "label", such as ``load_probe("probe-mnist")``.
    labels : ndarray, optional
        The classes asked of a conditional generator, int64, shape (n,).

    Raises
    ------
    UserError
        If there are fewer than 2 images, their size does not fit, or ``labels`` has another length.
    """
    if len(images_u8) < 2 or (labels is not None and len(labels) != len(images_u8)):
        num_labels = "no" if labels is None else len(labels)
        raise UserError(
            f"a report needs 2 images and as many labels, but got {len(images_u8)} and {num_labels} labels"
        )
    num_classes = probe.head("label").num_outputs
    probabilities = probe.predict(
        frame(torch.from_numpy(np.array(images_u8)), probe.config.image_size).numpy()
    )["label"]
    named, n = probabilities.argmax(1), len(images_u8)
    agreement = None if labels is None else wilson_interval(int((named == labels).sum()), n)
    return DigitReport(
        recognised=wilson_interval(int((probabilities.max(1) > 0.9).sum()), n),
        evenness=bootstrap_interval(lambda k: _evenness(k, num_classes), named),
        counts=tuple(np.bincount(named, minlength=num_classes).tolist()),
        agreement=agreement,
        named=named,
        n=n,
    )


def _evenness(named_n: np.ndarray, num_classes: int) -> float:
    shares = np.bincount(named_n, minlength=num_classes) / len(named_n)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(num_classes)) + 0.0  # never -0


FEATURES_OF = {
    "mnist": "mnist-classifier",
    "faces64": "faces-probe",
    "rooms": "rooms-probe",
    "bedrooms64": "rooms-probe",
    "portraits": "portraits-probe",
    "street-digits": "street-digits-classifier",
}
BORROWED_FEATURES = frozenset({"bedrooms64"})
"""Sets measured in features learnt on another set: distances may be compared, attributes mean nothing there."""
HELD_OUT_SPLIT = {"mnist": "test", "rooms": "test", "portraits": "test", "street-digits": "test"}


@dataclass(frozen=True, kw_only=True)
class GeneratorReport:
    """Hold what was measured of one generator.

    Parameters
    ----------
    checkpoint, image_set, held_out : str
        What was measured, what it was trained on, and the split it was compared with.
    kid, untrained_kid, fid : Distance
        To the held-out images; ``untrained_kid`` is that of the same network before training.
    memorisation, pixel_memorisation : Memorisation
        Nearest training images against nearest held-out ones, in features and in pixels.
    mirrored_memorisation : Memorisation or None
        In features, each image together with its mirror image: for a generator that was shown both.
    digits : DigitReport or None
        For digits.
    classes : tuple of ClassQuality
        For digits drawn on demand.
    seed, seconds : int, float
        Of the latent vectors; wall time.
    """

    checkpoint: str
    image_set: str
    held_out: str
    kid: Distance
    untrained_kid: Distance
    fid: Distance
    memorisation: Memorisation
    pixel_memorisation: Memorisation
    mirrored_memorisation: Memorisation | None
    digits: DigitReport | None
    classes: tuple[ClassQuality, ...]
    seed: int
    seconds: float


def draw_samples(
    generator: AnyGenerator, num_images: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Generate pictures, and for a conditional network the labels they were asked for, in equal numbers."""
    z_bd = sample_latents(num_images, generator.config, seeded(seed))
    labels: Tensor | None = None
    if generator.config.num_classes:
        labels = torch.arange(num_images) % generator.config.num_classes
    return generate_u8(generator, z_bd, labels), None if labels is None else labels.numpy()


def evaluate_generator(
    checkpoint: str,
    *,
    num_images: int = 5_000,
    features: str | None = None,
    held_out: str | None = None,
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
        Name for `get_features`; by default the probe made for the image set.
    held_out : str, optional
        Split to compare with; by default the test split, or validation where that is all there is.
    seed : int, default 1
        Of the latent vectors.

    Raises
    ------
    UserError
        If the image set has no features of its own and none were named, or images are missing.
    """
    begun = time.perf_counter()
    config, about = load_config(checkpoint)
    name = about["image_set"]
    if features is None and name not in FEATURES_OF:
        raise UserError(
            f"no features were made for the set {name!r}: name some, such as --features inception"
        )
    extractor = get_features(features or FEATURES_OF[name])
    split = held_out or HELD_OUT_SPLIT.get(name, "validation")
    train = _load_split(about, config.model.image_size, "train")
    unseen = _load_split(about, config.model.image_size, split, num_images)
    samples, labels = draw_samples(load_generator(checkpoint), num_images, seed)
    untrained, _ = draw_samples(untrained_generator(config.model), len(unseen), seed)
    subset_size = min(500, len(unseen), num_images)
    distances = [
        kid(unseen.images_u8, fake, extractor, subset_size=subset_size)
        for fake in (samples, untrained)
    ]
    compared = samples[: min(1_000, num_images)]
    sides, mirrored = (compared, train.images_u8, unseen.images_u8), None
    if config.mirror:
        mirrored = memorisation(*sides, features=extractor, mirrored=True)
    digits = (
        digit_report(samples, load_probe("probe-mnist"), labels=labels) if name == "mnist" else None
    )
    classes: tuple[ClassQuality, ...] = ()
    if digits and labels is not None:
        classes = class_quality(
            unseen.images_u8, unseen.labels, samples, labels, digits.named, extractor
        )
    return GeneratorReport(
        checkpoint=str(checkpoint),
        image_set=name,
        held_out=split,
        kid=distances[0],
        untrained_kid=distances[1],
        fid=fid(unseen.images_u8, samples[: len(unseen)], extractor),
        memorisation=memorisation(*sides, features=extractor),
        pixel_memorisation=memorisation(*sides),
        mirrored_memorisation=mirrored,
        digits=digits,
        classes=classes,
        seed=seed,
        seconds=time.perf_counter() - begun,
    )


def _load_split(
    about: dict[str, Any], size: tuple[int, int], split: str, most: int | None = None
) -> ImageSet:
    found = load_image_set(
        about.get("source", about["image_set"]),
        split,
        image_size=size,
        fit=about.get("fit", "crop"),
        channels=about.get("channels", "auto"),
        drop_duplicates=about.get("drop_duplicates", False),
        num_images=about.get("num_images") if split == "train" else None,
    )
    if not most or len(found) <= most:
        return found
    rows = np.random.default_rng(0).permutation(len(found))[
        :most
    ]  # sets lie class by class, or easy ones first
    return found.subset(np.sort(rows))


def check_record(claim_name: str, command: str) -> None:
    """Refuse, before anything is measured, what `record_report` would refuse after it.

    Raises
    ------
    UserError
        If the ledger has no generator of that name, or the command names an absolute path.
    """
    if f"ours.{claim_name}.kid" not in claims():
        known = sorted(
            id.split(".")[1] for id in claims() if id.startswith("ours.") and id.endswith(".kid")
        )
        raise UserError(
            f"the ledger has no generator called {claim_name!r}; it has: {', '.join(known)}"
        )
    check_command(f"ours.{claim_name}.kid", command, "held-out images")


def record_report(
    report: GeneratorReport, claim_name: str, command: str, *, root: Path | None = None
) -> list[Result]:
    """Enter a report into the claims ledger.

    Parameters
    ----------
    report : GeneratorReport
        Of a committed checkpoint.
    claim_name : str
        The middle of the ids ``ours.NAME.kid``, ``ours.NAME.memorised`` and so on.
    command : str
        What repeats the measurement.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Raises
    ------
    UserError
        See `check_record`.
    """
    check_record(claim_name, command)
    shared: dict[str, Any] = {"command": command, "seconds": report.seconds, "seed": report.seed}
    shared |= {"checkpoint": report.checkpoint, "root": root}
    data = f"{report.image_set}, {report.kid.n_real:,} images of its {report.held_out} split"
    kid_, ratio = report.kid, report.kid.value / report.untrained_kid.value
    rows = [
        record(
            f"ours.{claim_name}.kid",
            value=kid_.estimate,
            unit="",
            n=kid_.n_fake,
            data=data,
            checks={
                "KID is at most a tenth of that of the same network before training": ratio <= 0.1
            },
            notes=f"{kid_.metric} on {kid_.features}; before training {report.untrained_kid.value:.3f}; "
            f"FID on the same features {report.fid.value:.2f} at n {report.fid.n_fake:,}",
            **shared,
        ),
    ]
    if f"ours.{claim_name}.memorised" in claims():
        near, pixels = report.memorisation, report.pixel_memorisation
        rows.append(
            record(
                f"ours.{claim_name}.memorised",
                value=near.closer_to_train.scaled(100),
                unit="%",
                n=near.n,
                data=data,
                notes=f"in {near.space}, {near.n_references:,} images a side; in pixels "
                f"{100 * pixels.closer_to_train.value:.1f} %",
                **shared,
            )
        )
        if report.mirrored_memorisation:
            kept = {
                "plain": list(near.closer_to_train),
                "mirrored": list(report.mirrored_memorisation.closer_to_train),
            }
            save_details(f"curves/memorised.{claim_name}", kept | {"command": command}, root)
    if report.digits:
        digits = report.digits
        for id, estimate, unit in (
            (f"ours.{claim_name}.recognised", digits.recognised.scaled(100), "%"),
            (f"ours.{claim_name}.entropy", digits.evenness, ""),
        ):
            if id in claims():
                row = record(
                    id,
                    value=estimate,
                    unit=unit,
                    n=digits.n,
                    data=f"{digits.n:,} samples",
                    **shared,
                )
                rows.append(row)
    if report.classes:
        save_classes(claim_name, report.classes, root)
    return rows


def report_text(report: GeneratorReport) -> str:
    """Lay a report out as lines of text, every number with its n, interval and protocol."""
    near, pixels, mirrored = (
        report.memorisation,
        report.pixel_memorisation,
        report.mirrored_memorisation,
    )
    lines = [
        f"{report.checkpoint}: {report.kid.n_fake:,} samples against {report.kid.n_real:,} {report.held_out} images "
        f"of {report.image_set}, seed {report.seed}",
        _distance_line("KID", report.kid),
        _distance_line("KID before training", report.untrained_kid),
        _distance_line("FID", report.fid),
        f"  {'closer to training images':28} {_percent(near.closer_to_train)}  (50 % expected; {near.space})",
        f"  {'  the same in pixels':28} {_percent(pixels.closer_to_train)}  (n {pixels.n:,})",
        *(
            [
                f"  {'  with their mirror images':28} {_percent(mirrored.closer_to_train)}  ({mirrored.space})"
            ]
            if mirrored
            else []
        ),
        f"  {'copies':28} {_percent(near.copies)}  (nearer than 99 % of held-out images are; {near.space})",
    ]
    if report.digits:
        digits, even = report.digits, report.digits.evenness
        lines += (
            [f"  {'named as asked':28} {_percent(digits.agreement)}  (n {digits.n:,})"]
            if digits.agreement
            else []
        )
        lines += [
            f"  {'recognised, confidence > 0.9':28} {_percent(digits.recognised)}  (n {digits.n:,})",
            f"  {'class entropy / log 10':28} {even.value:.4f} [{even.low:.4f}, {even.high:.4f}]",
            f"  {'samples a class':28} {' '.join(map(str, digits.counts))}",
        ]
    for row in report.classes:
        parts = [f"named so {_percent(row.agreement)}", f"precision {_percent(row.precision)}"]
        parts += [f"recall {_percent(row.recall)}"]
        parts += [] if row.mistaken_for is None else [f"else most often {row.mistaken_for}"]
        lines.append(f"  asked for {row.label}, n {row.n}: {', '.join(parts)}")
    return "\n".join(lines)


def _distance_line(name: str, distance: Distance) -> str:
    interval = f"[{distance.low:.4f}, {distance.high:.4f}]"
    return (
        f"  {name:28} {distance.value:.4f} {interval}  ({distance.features}, n {distance.n_fake:,})"
    )


def _percent(share: Any) -> str:
    return f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"
