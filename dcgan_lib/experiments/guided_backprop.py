"""What features of a discriminator answer to, by guided backpropagation (section 6.2, Fig. 5).

On a set with true boxes it is counted how much of a feature's saliency lies on an object: the lift,
saliency inside the boxes over the boxes' share of what the unit sees. A trained network is compared
with fresh ones, each read in two ways: with batch norm measured on images, as a network has it in
training, and left as it is made, which suits linear classifiers on random features better. The
trained one has to be ahead of both.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import UserError, check_choices, check_number
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    check_command,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, auc_of_one, bootstrap_interval, presence_auc
from dcgan_lib.interpretation.saliency import (
    METHODS,
    Method,
    Peak,
    boxes_in,
    choose_features,
    estimate_lift,
    fresh_network,
    image_tiles,
    lift,
    map_tiles,
    measure_shares,
    randomised,
    rank_correlations,
    receptive_field,
    responses,
    saliency_maps,
    strongest,
)
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import check_dcgan
from dcgan_lib.models.sampling import write_grid
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import load_config, load_discriminator

CLAIM = "saliency.trained-vs-random"
BATCH_NORM = ("measured", "stored")
"""How a fresh network's batch norm is read: with statistics of the images that features are chosen
on, or with those that it stores when it is made, mean 0 and variance 1."""
LEAST_CHANGE = 0.7
"""Rank correlation that maps must fall below when every layer is random. Unrelated maps are at
about 0.6, because all of them fade toward the edge of the receptive field; set on the validation
images."""


@dataclass(frozen=True, kw_only=True)
class Saliency(Command, verb="saliency"):
    """Show what the discriminator's features answer to, as in Fig. 5, and measure it."""

    checkpoint: Positional[str] = "rooms"
    """A committed checkpoint or a run's folder; its discriminator is asked."""
    image_set: str | None = None
    """Images to look at; unset: those of its training, of a split that it never met."""
    objects: tuple[str, ...] = ("bed", "window", "lamp")
    """Whose true boxes are used, where the set has boxes."""
    method: Method = "guided"
    """What a rectifier passes back: see dcgan_lib.interpretation.saliency.BackwardRule."""
    layer: int = -1
    """Convolutional layer, counted from the pixels, or from the end when negative."""
    features: int = 6
    """Rows of the figure: the first features of the layer."""
    columns: int = 5
    """Images a feature in the figure, those with the strongest responses."""
    images: int = 2_000
    """Images to report on, at most, and as many to choose features on."""
    chosen: int = 6
    """Features chosen for each object."""
    top: int = 100
    """Strongest responses a feature that are reported, where the set has true boxes."""
    tried: int = 24
    """Strongest responses a feature that it is chosen by."""
    fresh: int = 5
    """Networks with fresh weights to compare with, each with batch norm read in two ways."""
    seed: int = 0
    """Of the first of them; the others follow."""
    out: Path = local(Path("saliency"))
    """Folder of saliency.png (left: fresh, right: trained), images.png, peaks.json,
    numbers.json."""
    record: bool = False
    """Enter saliency.trained-vs-random into the ledger; without boxes only keep the numbers."""

    def run(self) -> None:
        """Find the strongest responses, draw, measure, write, and record if asked."""
        self.check()
        begun, network = time.monotonic(), check_dcgan(load_discriminator(self.checkpoint))
        receptive_field(network.config, self.layer)  # refuses a layer that is not there
        report, chosen_on, split = load_pictures(self)
        seeds = range(self.seed, self.seed + self.fresh)
        fresh = {
            "measured": [fresh_network(network.config, chosen_on.images_u8, s) for s in seeds],
            "stored": [fresh_network(network.config, None, seed) for seed in seeds],
        }
        peaks = draw(self, network, fresh["measured"][0], report.images_u8)
        found, lifts = measure(self, network, fresh, report, chosen_on, split)
        self._write("numbers.json", found)
        self._write("peaks.json", {"set": report.name, "split": split} | peaks)
        _print(found)
        print(f"figure, peaks and numbers: {self.out}")
        if self.record:
            seconds = time.monotonic() - begun
            save_details(f"curves/saliency.{report.name}", found)
            if lifts:
                record_saliency(self, found, lifts, seconds)
            else:
                print(f"kept as curves/saliency.{report.name}: without true boxes there is no row")

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be measured."""
        check_choices(self)
        if self.record:
            check_command(CLAIM, self.command_line(), self.checkpoint)
        for name in ("features", "columns", "chosen", "tried", "fresh"):
            check_number(self, name, 1)
        for name, least in (("images", 20), ("top", 2), ("seed", 0)):
            check_number(self, name, least)
        if max(self.columns, self.top, self.tried) > self.images:
            raise UserError(
                f"columns, top and tried cannot be more than the {self.images} images: "
                "ask for more images"
            )

    def _write(self, name: str, content: dict[str, Any]) -> None:
        atomic_write(self.out / name, json.dumps(content, indent=1) + "\n")


def load_pictures(how: Saliency) -> tuple[ImageSet, ImageSet, str]:
    """Return the images to report on, those to choose on, and the name of the first one's split."""
    config, about = load_config(how.checkpoint)
    name = how.image_set or about["image_set"]
    size, channels = config.model.image_size, config.model.num_channels
    options: dict[str, Any] = {"image_size": size, "channels": channels}
    source = name
    if name == about["image_set"]:
        source, options["fit"] = about.get("source", name), about.get("fit", "crop")
    found = load_image_set(source, HELD_OUT, **options)
    split = found.card["split"]
    if found.num_channels != channels:
        raise UserError(
            f"{name} has {found.num_channels} channels, but the discriminator reads {channels}"
        )
    if len(found) < max(how.top, how.columns):
        raise UserError(
            f"{name} has {len(found)} images in its {split} split: lower top and columns to that"
        )
    report = found.subset(slice(0, how.images))
    if not boxes_in(report, how.objects):
        return report, report, split
    return (
        report,
        load_image_set(source, "validation", **options).subset(slice(0, how.images)),
        split,
    )


def measure(
    how: Saliency,
    network: Discriminator,
    fresh: Mapping[str, Sequence[Discriminator]],
    report: ImageSet,
    chosen_on: ImageSet,
    split: str,
) -> tuple[dict[str, Any], list[Estimate]]:
    """Return a network's saliency beside fresh ones', and the mean lift over the objects of each.

    Estimates are value, low, high. ``fresh`` has networks by how their batch norm is read, see
    `BATCH_NORM`. ``objects[name]`` lists the trained network, then each fresh one, and says in
    ``batch_norm`` how it was read; without boxes it is empty, and so are the lifts.
    ``cascade[method]`` lists the rank correlations with the trained network's maps when 0 layers
    and more are random; ``another feature`` compares with another feature at the same place.
    """
    objects: dict[str, list[dict[str, Any]]] = {}
    lifts = []
    if boxes_in(report, how.objects):
        read = [("trained", network)]
        read += [(way, net) for way in BATCH_NORM for net in fresh[way]]
        for way, net in read:
            entries, sums_no2 = _on_objects(net, report, chosen_on, how)
            lifts.append(bootstrap_interval(_mean_lift, sums_no2))
            for name, entry in entries.items():
                objects.setdefault(name, []).append({"batch_norm": way} | entry)
    cascade, another = _cascade(network, report.images_u8, chosen_on.images_u8, how)
    settings = {k: v for k, v in asdict(how).items() if k not in ("out", "record")}
    found = {
        "settings": settings | {"objects": list(how.objects)},
        "set": report.name,
        "split": split,
        "images": len(report),
        "objects": objects,
        "cascade": cascade,
        "another feature": another,
    }
    return found, lifts


def _mean_lift(sums_no2: np.ndarray) -> float:
    return float(np.mean([lift(sums_no2[:, o]) for o in range(sums_no2.shape[1])]))


def _on_objects(
    network: Discriminator, report: ImageSet, chosen_on: ImageSet, how: Saliency
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Choose features for each object on some images, measure them on the others.

    Returns the numbers by object, and saliency inside and area added up per image, n x o x 2.
    """
    way = {"method": how.method, "layer": how.layer}
    before, after = (responses(network, part.images_u8, how.layer) for part in (chosen_on, report))
    everyone = range(before.shape[1])
    tried_on = strongest(before, everyone, how.tried)
    boxes = boxes_in(chosen_on, how.objects)
    tried = measure_shares(network, chosen_on.images_u8, boxes, tried_on, len(everyone), **way)
    found, sums = {}, []
    for name in how.objects:
        features = choose_features(tried, name, how.chosen)
        peaks = strongest(after, features, how.top)
        boxes = boxes_in(report, [name])
        shares = measure_shares(network, report.images_u8, boxes, peaks, len(features), **way)
        sums_n2 = shares.by_image(name, len(report))
        inside, area = 100 * sums_n2.sum(0) / len(peaks)
        there = [np.isfinite(part.attributes[f"{name}_box"]).all(1) for part in (chosen_on, report)]
        best = int(presence_auc(before.max((2, 3)), there[0]).argmax())
        auc = bootstrap_interval(auc_of_one, after[:, best].max((1, 2)), there[1])
        found[name] = {
            "features": features,
            "lift": _rounded(estimate_lift(sums_n2)),
            "inside": round(float(inside), 2),
            "area": round(float(area), 2),
            "present": round(100 * float(there[1][[peak.image for peak in peaks]].mean()), 1),
            "auc_feature": best,
            "auc": _rounded(auc),
        }
        sums.append(sums_n2)
    return found, np.stack(sums, 1)


def _cascade(
    network: Discriminator, images_u8: np.ndarray, chosen_on_u8: np.ndarray, how: Saliency
) -> tuple[dict[str, list[list[float]]], dict[str, list[float]]]:
    """Compare maps with those of ever more random networks, and with another feature's."""
    field, answers = (
        receptive_field(network.config, how.layer),
        responses(network, images_u8, how.layer),
    )
    num_features = answers.shape[1]
    some = np.unique(np.linspace(0, num_features - 1, 64, dtype=int))
    peaks = strongest(answers, some, min(3, len(images_u8)))
    others = [peak._replace(feature=(peak.feature + 1) % num_features) for peak in peaks]
    depths = range(len(network.convs) + 1)
    changed = [randomised(network, depth, chosen_on_u8, how.seed) for depth in depths]
    cascade, another = {}, {}
    for method in METHODS:
        own = saliency_maps(network, images_u8, peaks, method, how.layer)

        def alike(net: Discriminator, at: list[Peak], own=own, method=method) -> list[float]:
            maps = saliency_maps(net, images_u8, at, method, how.layer)
            known = rank_correlations(own, maps, field)
            known = known[np.isfinite(known)]
            return _rounded(bootstrap_interval(np.mean, known)) if len(known) > 1 else [0.0] * 3

        another[method] = alike(network, others)
        cascade[method] = [alike(net, peaks) for net in changed]
    return cascade, another


def _rounded(estimate: Estimate) -> list[float]:
    return [round(float(x), 4) for x in estimate]


def draw(
    how: Saliency, network: Discriminator, fresh: Discriminator, images_u8: np.ndarray
) -> dict[str, Any]:
    """Write the maps, fresh left and trained right, and their images; return each tile's unit."""
    field = receptive_field(network.config, how.layer)
    maps_by_side, images_by_side, found = [], [], {"receptive field": field.size}
    for name, net in (("fresh", fresh), ("trained", network)):
        peaks = strongest(responses(net, images_u8, how.layer), range(how.features), how.columns)
        maps = saliency_maps(net, images_u8, peaks, how.method, how.layer)
        maps_by_side.append(map_tiles(maps, field))
        images_by_side.append(image_tiles(images_u8, peaks, field))
        found[name] = [
            peak._asdict()
            | {"response": round(peak.response, 4), "window": field.window(peak.row, peak.column)}
            for peak in peaks
        ]
    for name, sides in (("saliency.png", maps_by_side), ("images.png", images_by_side)):
        rows = [side.reshape(how.features, how.columns, *side.shape[1:]) for side in sides]
        tiles = np.concatenate(rows, 1)
        write_grid(how.out / name, tiles.reshape(-1, *tiles.shape[2:]), 2 * how.columns)
    return found


def _print(found: dict[str, Any]) -> None:
    for name, entries in found["objects"].items():
        value, low, high = entries[0]["lift"]
        print(
            f"{name:8} saliency over area {value:.2f} [{low:.2f}, {high:.2f}]; "
            f"fresh {_range_by_batch_norm(entries, 'lift')}"
        )
    for method, steps in found["cascade"].items():
        print(f"{method:10} every layer random: rank correlation {steps[-1][0]:.2f}")


def record_saliency(
    how: Saliency, found: dict[str, Any], lifts: list[Estimate], seconds: float
) -> Result:
    """Enter the trained network's mean lift over the objects into the ledger."""
    checks = {}
    for name, (trained, *fresh) in found["objects"].items():
        highest = max(network["lift"][2] for network in fresh)
        checks[
            f"{name}: saliency over the boxes' area is higher than in each of {how.fresh} fresh "
            "networks, with batch norm measured and as stored, beyond both intervals"
        ] = trained["lift"][1] > highest
    checks[
        "with every layer random, the maps' rank correlation with the trained ones is below "
        f"{LEAST_CHANGE}"
    ] = found["cascade"][how.method][-1][2] < LEAST_CHANGE
    by_object = "; ".join(_sentence(name, entries) for name, entries in found["objects"].items())
    means = [
        f"{np.mean(values):.2f} ({way}), the highest {max(values):.2f}"
        for way, values in _by_batch_norm(lifts[1:]).items()
    ]
    return record(
        f"{CLAIM}:{found['set']}",
        lifts[0],
        unit="",
        n=found["images"],
        data=f"{found['set']}, {found['split']} split",
        checks=checks,
        caveat=Caveat(
            kind="at most partly",
            why="exploratory, since the measure was redesigned after a first look at the maps; and "
            "not of the features alone: at the same places other active features, and a random "
            "last layer on the trained lower ones, have nearly the same lift (chapter 10)",
        ),
        command=how.command_line(),
        seconds=seconds,
        seed=how.seed,
        checkpoint=how.checkpoint,
        notes=f"Share of {how.method} saliency inside the true boxes over the boxes' share of what "
        f"the unit sees; mean over {', '.join(found['objects'])}; {how.chosen} features an object, "
        f"chosen on other images, at their {how.top} strongest responses. {by_object}. Mean lift "
        f"of the fresh networks {'; '.join(means)}.",
    )


def _by_batch_norm(lifts: list[Estimate]) -> dict[str, list[float]]:
    """Return the fresh networks' lifts by how batch norm was read: as many of each, in order."""
    values = np.array([estimate.value for estimate in lifts]).reshape(len(BATCH_NORM), -1)
    return dict(zip(BATCH_NORM, values.tolist(), strict=True))


def _range_by_batch_norm(entries: list[dict[str, Any]], key: str) -> str:
    """Say between which values the fresh networks lie, for each reading of their batch norm."""
    parts = []
    for way in BATCH_NORM:
        values = [entry[key][0] for entry in entries if entry["batch_norm"] == way]
        parts.append(f"{min(values):.2f} to {max(values):.2f} ({way})")
    return ", ".join(parts)


def _sentence(name: str, entries: list[dict[str, Any]]) -> str:
    """Say one object's numbers: of the trained network, and the ranges of the fresh ones."""
    parts = []
    for key, label in (("lift", ""), ("auc", "told to be there by one feature, AUC ")):
        value, low, high = entries[0][key]
        fresh = _range_by_batch_norm(entries, key)
        parts.append(f"{label}{value:.2f} [{low:.2f}, {high:.2f}], fresh {fresh}")
    return f"{name} " + "; ".join(parts)


def load_saliency(set_name: str) -> dict[str, Any]:
    """Return what was measured on a set; see `measure`."""
    return load_details(f"curves/saliency.{set_name}", "dcgan saliency CHECKPOINT --record")
