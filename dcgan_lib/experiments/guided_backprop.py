"""The command ``dcgan saliency``: what single features of a discriminator answer to, drawn and measured."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.generators import HELD_OUT_SPLIT
from dcgan_lib.evaluation.ledger import Result, load_details, record, save_details
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval
from dcgan_lib.interpretation.saliency import (
    METHODS,
    Method,
    Peak,
    auc_of_one,
    boxes_in,
    check_network,
    choose_features,
    estimate_lift,
    fresh_network,
    lift,
    measure_shares,
    presence_auc,
    randomised,
    rank_correlations,
    receptive_field,
    responses,
    saliency_maps,
    strongest,
)
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.training.checkpoints import load_config, load_discriminator


@dataclass(frozen=True, kw_only=True)
class SaliencySettings:
    """Hold what is measured, and of how much.

    Parameters
    ----------
    checkpoint : str
        Whose discriminator; a committed checkpoint's name or a run's folder.
    image_set : str, optional
        Whose images; by default those that it was trained on, of a split that it never met.
    objects : tuple of str
        Whose true boxes; they are not asked for where the set has none.
    method, layer : optional
        See `dcgan_lib.interpretation.saliency.BackwardRule` and `receptive_field`.
    features, columns : int
        The first features of the layer, and images for each, in the figure.
    images : int
        To report on, and as many to choose on.
    chosen, top : int
        Features chosen an object; strongest responses a feature that are reported.
    tried : int
        Strongest responses a feature that it is chosen by.
    fresh : int
        Networks that were never trained.
    seed : int
        Of the first of them; the others follow.
    """

    checkpoint: str = "rooms"
    image_set: str | None = None
    objects: tuple[str, ...] = ("bed", "window", "lamp")
    method: Method = "guided"
    layer: int = -1
    features: int = 6
    columns: int = 5
    images: int = 2_000
    chosen: int = 6
    top: int = 100
    tried: int = 24
    fresh: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {
            "features": 1,
            "columns": 1,
            "images": 20,
            "chosen": 1,
            "top": 2,
            "tried": 1,
            "fresh": 1,
            "seed": 0,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, but it is {getattr(self, name)}")
        if max(self.columns, self.top, self.tried) > self.images:
            raise UserError(
                f"columns, top and tried cannot be more than the {self.images} images: ask for more images"
            )
        if self.method not in METHODS:
            raise UserError(f"a method is one of {', '.join(METHODS)}, but got {self.method!r}")


def load_pictures(settings: SaliencySettings) -> tuple[ImageSet, ImageSet, str]:
    """Return the images to report on, those to choose on, and the name of the first one's split.

    Raises
    ------
    UserError
        If the images are missing, or are not of the size and channels that the discriminator reads.
    """
    config, about = load_config(settings.checkpoint)
    name = settings.image_set or about["image_set"]
    is_own = name == about["image_set"]
    split = HELD_OUT_SPLIT.get(name, "validation")
    options: dict[str, Any] = {
        "image_size": config.model.image_size,
        "channels": config.model.num_channels,
    }
    if is_own:
        options["fit"] = about.get("fit", "crop")
    source = about.get("source", name) if is_own else name
    found = load_image_set(source, split, **options)
    if found.num_channels != config.model.num_channels:
        raise UserError(
            f"{name} has {found.num_channels} channels, but the discriminator reads another number"
        )
    if len(found) < settings.top or len(found) < settings.columns:
        raise UserError(
            f"{name} has {len(found)} images in its {split} split: lower top and columns to that"
        )
    report = found.subset(slice(0, settings.images))
    if not any(key.endswith("_box") for key in report.attributes):
        return report, report, split
    chosen_on = load_image_set(source, "validation", **options).subset(slice(0, settings.images))
    return report, chosen_on, split


CLAIM = "saliency.trained-vs-random"
LEAST_CHANGE = 0.7
"""Rank correlation that maps must fall below when every layer is random. Unrelated maps are at about 0.6, because all
of them fade toward the edge of the receptive field; set on the validation images."""


@dataclass(frozen=True, kw_only=True)
class OnObject:
    """Hold how a network's saliency lies on one object.

    ``sums`` n x 2: saliency inside the boxes and their area, added per image over the peaks of the chosen features.
    ``present`` is the share of peaks whose image has the object. ``auc_feature`` is the feature that best tells the
    object's presence, with ``auc`` on the images reported.
    """

    features: list[int]
    sums: np.ndarray
    num_peaks: int
    present: float
    auc_feature: int
    auc: Estimate


@dataclass(frozen=True, kw_only=True)
class SaliencyStudy:
    """Hold what was found; ``objects`` is empty for a set without boxes.

    ``objects[name]`` lists the trained network and then each fresh one. ``cascade[method]`` lists, for 0 layers made
    random and more, the rank correlations with the trained network's maps, NaN where a map is empty;
    ``unlike[method]`` compares with another feature at the same place.
    """

    settings: SaliencySettings
    set_name: str
    split: str
    size: tuple[int, int]
    networks: tuple[Discriminator, Discriminator]
    images_u8: np.ndarray
    peaks: tuple[list[Peak], list[Peak]]
    objects: dict[str, list[OnObject]]
    cascade: dict[str, list[np.ndarray]]
    unlike: dict[str, np.ndarray]
    seconds: float


def run_saliency(settings: SaliencySettings) -> SaliencyStudy:
    """Measure a discriminator's saliency; see `SaliencySettings`.

    Raises
    ------
    UserError
        If the checkpoint, the images and the settings do not fit together.
    """
    begun, network = time.monotonic(), check_network(load_discriminator(settings.checkpoint))
    receptive_field(network.config, settings.layer)  # refuses a layer that is not there
    report, chosen_on, split = load_pictures(settings)
    boxes = boxes_in(report, settings.objects)
    seeds = range(settings.seed, settings.seed + settings.fresh)
    fresh = [fresh_network(network.config, chosen_on.images_u8, seed) for seed in seeds]
    first = [
        strongest(
            responses(net, report.images_u8, settings.layer),
            range(settings.features),
            settings.columns,
        )
        for net in (network, fresh[0])
    ]
    objects: dict[str, list[OnObject]] = {name: [] for name in boxes}
    for net in (network, *fresh) if boxes else ():
        for name, found in _on_objects(net, report, chosen_on, settings).items():
            objects[name].append(found)
    cascade, unlike = _cascade(network, report.images_u8, chosen_on.images_u8, settings)
    return SaliencyStudy(
        settings=settings,
        set_name=report.name,
        split=split,
        size=report.image_size,
        networks=(network, fresh[0]),
        images_u8=report.images_u8,
        peaks=(first[0], first[1]),
        objects=objects,
        cascade=cascade,
        unlike=unlike,
        seconds=time.monotonic() - begun,
    )


def _on_objects(
    network: Discriminator, report: ImageSet, chosen_on: ImageSet, settings: SaliencySettings
) -> dict[str, OnObject]:
    """Choose a network's features for each object on some images, and measure them on the others."""
    how = {"method": settings.method, "layer": settings.layer}
    before, after = (
        responses(network, part.images_u8, settings.layer) for part in (chosen_on, report)
    )
    everyone = range(before.shape[1])
    tried = measure_shares(
        network,
        chosen_on.images_u8,
        boxes_in(chosen_on, settings.objects),
        strongest(before, everyone, settings.tried),
        len(everyone),
        **how,
    )
    found = {}
    for name in settings.objects:
        features = choose_features(tried, name, settings.chosen)
        peaks = strongest(after, features, settings.top)
        boxes = {name: report.attributes[f"{name}_box"]}
        shares = measure_shares(network, report.images_u8, boxes, peaks, len(features), **how)
        there = [np.isfinite(part.attributes[f"{name}_box"]).all(1) for part in (chosen_on, report)]
        best = int(presence_auc(before.max((2, 3)), there[0]).argmax())
        answers = after[:, best].max((1, 2))
        found[name] = OnObject(
            features=features,
            sums=shares.by_image(name, len(report)),
            num_peaks=len(peaks),
            present=float(there[1][[peak.image for peak in peaks]].mean()),
            auc_feature=best,
            auc=bootstrap_interval(auc_of_one, answers, there[1]),
        )
    return found


def _cascade(
    network: Discriminator,
    images_u8: np.ndarray,
    chosen_on_u8: np.ndarray,
    settings: SaliencySettings,
) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """Compare maps with those after more and more layers were made random, and with another feature's."""
    layer, field = settings.layer, receptive_field(network.config, settings.layer)
    found = responses(network, images_u8, layer)
    num_features = found.shape[1]
    peaks = strongest(
        found, np.unique(np.linspace(0, num_features - 1, 64, dtype=int)), min(3, len(images_u8))
    )
    others = [peak._replace(feature=(peak.feature + 1) % num_features) for peak in peaks]
    changed = [
        randomised(network, k, chosen_on_u8, settings.seed) for k in range(len(network.convs) + 1)
    ]
    cascade: dict[str, list[np.ndarray]] = {}
    unlike: dict[str, np.ndarray] = {}
    for method in METHODS:
        own = saliency_maps(network, images_u8, peaks, method, layer)
        unlike[method] = rank_correlations(
            own, saliency_maps(network, images_u8, others, method, layer), field
        )
        cascade[method] = [
            rank_correlations(own, saliency_maps(net, images_u8, peaks, method, layer), field)
            for net in changed
        ]
    return cascade, unlike


def combined(study: SaliencyStudy, network: int) -> Estimate:
    """Return the mean lift over the objects of one network (0: trained), with its interval over images."""
    sums_no2 = np.stack([found[network].sums for found in study.objects.values()], 1)
    return bootstrap_interval(
        lambda some: np.mean([lift(some[:, o]) for o in range(some.shape[1])]), sums_no2
    )


def _mean_of_known(values: np.ndarray) -> Estimate:
    known = values[np.isfinite(values)]
    return bootstrap_interval(np.mean, known) if len(known) > 1 else Estimate(0.0, 0.0, 0.0)


def numbers(study: SaliencyStudy) -> dict[str, Any]:
    """Return what was found as plain values; each estimate is value, low, high; the trained network stands first."""
    plain: dict[str, Any] = {
        "settings": vars(study.settings) | {"objects": list(study.settings.objects)}
    }
    plain |= {
        "set": study.set_name,
        "split": study.split,
        "images": len(study.images_u8),
        "objects": {},
    }
    for name, networks in study.objects.items():
        plain["objects"][name] = [
            {
                "features": found.features,
                "lift": _rounded(estimate_lift(found.sums)),
                "inside": round(100 * float(found.sums[:, 0].sum()) / found.num_peaks, 2),
                "area": round(100 * float(found.sums[:, 1].sum()) / found.num_peaks, 2),
                "present": round(100 * found.present, 1),
                "auc_feature": found.auc_feature,
                "auc": _rounded(found.auc),
            }
            for found in networks
        ]
    plain["cascade"] = {
        method: [_rounded(_mean_of_known(values)) for values in steps]
        for method, steps in study.cascade.items()
    }
    plain["another feature"] = {
        method: _rounded(_mean_of_known(values)) for method, values in study.unlike.items()
    }
    return plain


def _rounded(estimate: Estimate) -> list[float]:
    return [round(float(x), 4) for x in estimate]


def record_saliency(study: SaliencyStudy, *, command: str, root: Path | None = None) -> Result:
    """Enter the trained network's lift over the objects into the ledger, and keep all numbers beside it.

    Raises
    ------
    UserError
        If the set has no boxes.
    """
    if not study.objects:
        raise UserError(
            f"{study.set_name} has no true boxes, so there is nothing to record: use a drawn set"
        )
    found = numbers(study)
    lifts = {
        name: [entry["lift"] for entry in entries] for name, entries in found["objects"].items()
    }
    checks = {
        f"{name}: saliency over the boxes' area is higher than in each of {study.settings.fresh} fresh networks, "
        "beyond both intervals": trained[1] > max(fresh[2] for fresh in others)
        for name, (trained, *others) in lifts.items()
    }
    last = found["cascade"][study.settings.method][-1]
    checks[
        f"with every layer random, the maps' rank correlation with the trained ones is below {LEAST_CHANGE}"
    ] = last[2] < LEAST_CHANGE
    told = "; ".join(_told(name, entries) for name, entries in found["objects"].items())
    fresh = [combined(study, k) for k in range(1, study.settings.fresh + 1)]
    notes = (
        f"Share of {study.settings.method} saliency inside the true boxes over the boxes' share of what the unit sees; "
        f"mean over {', '.join(lifts)}; {study.settings.chosen} features an object, chosen on other images, at their "
        f"{study.settings.top} strongest responses. {told}. Mean lift of the fresh networks "
        f"{np.mean([x.value for x in fresh]):.2f}, the highest {max(x.value for x in fresh):.2f}."
    )
    row = record(
        f"{CLAIM}:{study.set_name}",
        value=combined(study, 0),
        unit="",
        n=len(study.images_u8),
        data=f"{study.set_name}, {study.split} split",
        checks=checks,
        command=command,
        seconds=study.seconds,
        seed=study.settings.seed,
        checkpoint=study.settings.checkpoint,
        notes=notes,
        root=root,
    )
    keep_saliency(study, root)
    return row


def keep_saliency(study: SaliencyStudy, root: Path | None = None) -> None:
    """Keep all numbers for a chapter, as `record_saliency` does; a set without boxes has no row beside them."""
    save_details(f"curves/saliency.{study.set_name}", numbers(study), root)


def _told(name: str, entries: list[dict[str, Any]]) -> str:
    """Return one object's numbers as words: of the trained network, and the range of the fresh ones."""
    parts = []
    for key, label in (("lift", ""), ("auc", "told to be there by one feature, AUC ")):
        trained, *fresh = (entry[key] for entry in entries)
        low, high = min(entry[0] for entry in fresh), max(entry[0] for entry in fresh)
        value = f"{trained[0]:.2f} [{trained[1]:.2f}, {trained[2]:.2f}]"
        parts.append(f"{label}{value}, fresh {low:.2f} to {high:.2f}")
    return f"{name} " + "; ".join(parts)


def load_saliency(set_name: str, root: Path | None = None) -> dict[str, Any]:
    """Return what `keep_saliency` kept; see `numbers`.

    Raises
    ------
    UserError
        If it was not measured.
    """
    return load_details(f"curves/saliency.{set_name}", "dcgan saliency ... --record", root)


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Show what the discriminator's features answer to, by guided backpropagation as in Fig. 5, and measure it."""

    checkpoint: Positional[str] = "rooms"
    """A committed checkpoint or a run's folder; its discriminator is asked."""
    image_set: str | None = None
    """Images to look at; unset: those that the checkpoint was trained on, of a split that it never met."""
    method: Literal["guided", "gradient", "deconvnet"] = "guided"
    """What a rectifier passes back: see dcgan_lib.interpretation.saliency."""
    layer: int = -1
    """Convolutional layer, counted from the pixels, or from the end when negative."""
    features: int = 6
    """Rows of the figure: the first features of the layer."""
    columns: int = 5
    """Images a feature, those with the strongest responses."""
    images: int = 2_000
    """Images to look through, at most."""
    top: int = 100
    """Strongest responses a feature that are measured, where the set has true boxes."""
    fresh: int = 5
    """Networks with fresh weights to compare with."""
    seed: int = 0
    """Of the first of them."""
    out: Path = Path("saliency")
    """Folder of saliency.png (left: fresh weights, right: trained), images.png, peaks.json and numbers.json."""
    record: bool = False
    """Enter saliency.trained-vs-random into the claims ledger; without true boxes only keep the numbers beside it."""

    def run(self) -> None:
        """Find the strongest responses, draw, measure, write, and record if asked."""
        from dcgan_lib.evaluation.ledger import check_command
        from dcgan_lib.paths import atomic_write

        if self.record:
            check_command(CLAIM, self._command(), self.checkpoint)
        named = (
            "checkpoint",
            "image_set",
            "method",
            "layer",
            "features",
            "columns",
            "images",
            "top",
            "fresh",
            "seed",
        )
        settings = SaliencySettings(**{name: getattr(self, name) for name in named})
        study = run_saliency(settings)
        self._draw(study)
        found = numbers(study)
        atomic_write(self.out / "peaks.json", json.dumps(_peaks(study), indent=1) + "\n")
        atomic_write(self.out / "numbers.json", json.dumps(found, indent=1) + "\n")
        for name, (trained, *fresh) in found["objects"].items():
            value, low, high = trained["lift"]
            least, most = (rule(entry["lift"][0] for entry in fresh) for rule in (min, max))
            print(
                f"{name:8} saliency over area {value:.2f} [{low:.2f}, {high:.2f}]; fresh {least:.2f} to {most:.2f}"
            )
        for method, steps in found["cascade"].items():
            print(
                f"{method:10} every layer random: rank correlation {steps[-1][0]:.2f} with the trained maps"
            )
        print(f"figure, peaks and numbers: {self.out}")
        if self.record and not study.objects:
            keep_saliency(study)
            print(
                f"kept as curves/saliency.{study.set_name}; without true boxes there is no row to record"
            )
        elif self.record:
            row = record_saliency(study, command=self._command())
            print(
                f"recorded {row.id}: {row.value:.2f} [{row.low:.2f}, {row.high:.2f}] {row.verdict}"
            )

    def _draw(self, study: "SaliencyStudy") -> None:
        """Write the maps and what they were made from, a row a feature: fresh weights left, trained ones right."""
        import numpy as np

        from dcgan_lib.interpretation.saliency import (
            image_tiles,
            map_tiles,
            receptive_field,
            saliency_maps,
        )
        from dcgan_lib.models.sampling import write_grid

        sheets: dict[str, list[np.ndarray]] = {"saliency.png": [], "images.png": []}
        for network, peaks in zip(study.networks[::-1], study.peaks[::-1], strict=True):
            field = receptive_field(network.config, self.layer)
            maps = saliency_maps(network, study.images_u8, peaks, self.method, self.layer)
            sheets["saliency.png"].append(map_tiles(maps, field))
            sheets["images.png"].append(image_tiles(study.images_u8, peaks, field))
        for name, sides in sheets.items():
            rows = [side.reshape(self.features, self.columns, *side.shape[1:]) for side in sides]
            tiles = np.concatenate(rows, 1)
            write_grid(self.out / name, tiles.reshape(-1, *tiles.shape[2:]), 2 * self.columns)

    def _command(self) -> str:
        words = [
            "dcgan saliency",
            self.checkpoint,
            *([f"--image-set {self.image_set}"] if self.image_set else []),
        ]
        words += [
            f"--method {self.method}",
            f"--layer {self.layer}",
            f"--images {self.images}",
            f"--top {self.top}",
        ]
        return " ".join([*words, f"--fresh {self.fresh}", f"--seed {self.seed}", "--record"])


def _peaks(study: "SaliencyStudy") -> dict[str, Any]:
    """Return which unit of which image stands in each tile, row by row."""
    from dcgan_lib.interpretation.saliency import receptive_field

    field = receptive_field(study.networks[0].config, study.settings.layer)
    told: dict[str, Any] = {
        "set": study.set_name,
        "split": study.split,
        "receptive field": field.size,
    }
    for name, peaks in zip(("trained", "fresh"), study.peaks, strict=True):
        told[name] = [
            {
                **peak._asdict(),
                "response": round(peak.response, 4),
                "window": field.window(peak.row, peak.column),
            }
            for peak in peaks
        ]
    return told
