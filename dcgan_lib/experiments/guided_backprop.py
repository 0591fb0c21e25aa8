"""What features of a discriminator answer to, by guided backpropagation (section 6.2, Fig. 5).

On a set with true boxes it is counted how much of a feature's saliency lies on an object: the lift,
saliency inside the boxes over the boxes' share of what the unit sees. A trained network is compared
with fresh ones, each read in two ways: with batch norm measured on images, as a network has it in
training, and left as it is made, which suits linear classifiers on random features better. The
trained one has to be ahead of both.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import UserError, check_choices, check_number, check_numbers
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    check_command,
    load_details,
    record,
    rounded,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, auc_of_one, bootstrap_interval, presence_auc
from dcgan_lib.interpretation.saliency import (
    METHODS,
    Field,
    Maps,
    Method,
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
from dcgan_lib.paths import write_json
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
    """Folder of saliency.png (left: fresh, right: trained), images.png and numbers.json."""
    record: bool = False
    """Enter saliency.trained-vs-random into the ledger; without boxes only keep the numbers."""

    def run(self) -> None:
        """Find the strongest responses, draw, measure, write, and record if asked."""
        self.check()
        begun, network = time.monotonic(), check_dcgan(load_discriminator(self.checkpoint))
        receptive_field(network.config, self.layer)  # refuses a layer that is not there
        report, chosen_on = load_pictures(self)
        fresh = [
            (way, fresh_network(network.config, images_u8, seed))
            for way, images_u8 in (("measured", chosen_on.images_u8), ("stored", None))
            for seed in range(self.seed, self.seed + self.fresh)
        ]
        draw(self, network, fresh[0][1], report.images_u8)
        found, lifts = measure(self, network, fresh, report, chosen_on)
        write_json(self.out / "numbers.json", found)
        _print(found)
        print(f"figures and numbers: {self.out}")
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
        check_numbers(self, 1, "features", "columns", "chosen", "tried", "fresh")
        for name, least in (("images", 20), ("top", 2), ("seed", 0)):
            check_number(self, name, least)
        if max(self.columns, self.top, self.tried) > self.images:
            raise UserError(
                f"columns, top and tried cannot be more than the {self.images} images: "
                "ask for more images"
            )


def load_pictures(how: Saliency) -> tuple[ImageSet, ImageSet]:
    """Return the images to report on and, where there are boxes, others to choose on."""
    config, about = load_config(how.checkpoint)
    name = source = how.image_set or about["image_set"]
    options: dict[str, Any] = {
        "image_size": config.model.image_size,
        "channels": config.model.num_channels,
    }
    if name == about["image_set"]:
        source, options["fit"] = about.get("source", name), about.get("fit", "crop")
    report = load_image_set(source, HELD_OUT, **options)
    if len(report) < max(how.top, how.columns):
        raise UserError(
            f"{name} has {len(report)} images in its {report.card['split']} split: lower top and "
            "columns to that"
        )
    report = report.subset(slice(0, how.images))
    if not boxes_in(report, how.objects):
        return report, report
    chosen_on = load_image_set(source, "validation", **options)
    return report, chosen_on.subset(slice(0, how.images))


def measure(
    how: Saliency,
    network: Discriminator,
    fresh: Sequence[tuple[str, Discriminator]],
    report: ImageSet,
    chosen_on: ImageSet,
) -> tuple[dict[str, Any], list[Estimate]]:
    """Return a network's saliency beside fresh ones', and the mean lift over the objects of each.

    Estimates are value, low, high. ``fresh`` has networks with how their batch norm is read, see
    `BATCH_NORM`. ``objects[name]`` lists the trained network, then each fresh one, and says in
    ``batch_norm`` how it was read; without boxes it is empty, and so are the lifts.
    ``cascade[method]`` lists the rank correlations with the trained network's maps when 0 layers
    and more are random; ``another feature`` compares with another feature at the same place.
    """
    objects: dict[str, list[dict[str, Any]]] = {}
    lifts = []
    if boxes_in(report, how.objects):
        for way, net in [("trained", network), *fresh]:
            entries, sums_no2 = _on_objects(net, report, chosen_on, how)
            lifts.append(bootstrap_interval(_mean_lift, sums_no2))
            for name, entry in entries.items():
                objects.setdefault(name, []).append({"batch_norm": way} | entry)
    cascade, another = _cascade(network, report.images_u8, chosen_on.images_u8, how)
    found = {
        "settings": {k: v for k, v in asdict(how).items() if k not in ("out", "record")},
        "set": report.name,
        "split": report.card["split"],
        "images": len(report),
        "objects": objects,
        "cascade": cascade,
        "another feature": another,
    }
    return rounded(found, 4), lifts


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
            "lift": estimate_lift(sums_n2),
            "inside": round(float(inside), 2),
            "area": round(float(area), 2),
            "auc_feature": best,
            "auc": auc,
        }
        sums.append(sums_n2)
    return found, np.stack(sums, 1)


def _cascade(
    network: Discriminator, images_u8: np.ndarray, chosen_on_u8: np.ndarray, how: Saliency
) -> tuple[dict[str, list[Estimate]], dict[str, Estimate]]:
    """Compare maps with those of ever more random networks, and with another feature's."""
    answers = responses(network, images_u8, how.layer)
    num_features = answers.shape[1]
    some = np.unique(np.linspace(0, num_features - 1, 64, dtype=int))
    peaks = strongest(answers, some, min(3, len(images_u8)))
    others = [peak._replace(feature=(peak.feature + 1) % num_features) for peak in peaks]
    depths = range(len(network.convs) + 1)
    changed = [randomised(network, depth, chosen_on_u8, how.seed) for depth in depths]
    field, cascade, another = receptive_field(network.config, how.layer), {}, {}
    for method in METHODS:
        own, *random, other = (
            saliency_maps(net, images_u8, at, method, how.layer)
            for net, at in [(network, peaks), *((net, peaks) for net in changed), (network, others)]
        )
        cascade[method] = [_likeness(own, maps, field) for maps in random]
        another[method] = _likeness(own, other, field)
    return cascade, another


def _likeness(one: Maps, other: Maps, field: Field) -> Estimate:
    """Return the mean rank correlation over peaks where both maps show something."""
    known = rank_correlations(one, other, field)
    known = known[np.isfinite(known)]
    return bootstrap_interval(np.mean, known) if len(known) > 1 else Estimate(0.0, 0.0, 0.0)


def draw(
    how: Saliency, network: Discriminator, fresh: Discriminator, images_u8: np.ndarray
) -> None:
    """Write the maps, fresh left and trained right, and their images."""
    field = receptive_field(network.config, how.layer)
    maps_by_side, images_by_side = [], []
    for net in (fresh, network):
        peaks = strongest(responses(net, images_u8, how.layer), range(how.features), how.columns)
        maps = saliency_maps(net, images_u8, peaks, how.method, how.layer)
        maps_by_side.append(map_tiles(maps, field))
        images_by_side.append(image_tiles(images_u8, peaks, field))
    for name, sides in (("saliency.png", maps_by_side), ("images.png", images_by_side)):
        rows = [side.reshape(how.features, how.columns, *side.shape[1:]) for side in sides]
        tiles = np.concatenate(rows, 1)
        write_grid(how.out / name, tiles.reshape(-1, *tiles.shape[2:]), 2 * how.columns)


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
        "control: with every layer random, the maps' rank correlation with the trained ones is "
        f"below {LEAST_CHANGE}"
    ] = found["cascade"][how.method][-1][2] < LEAST_CHANGE
    by_object, means = [], []
    for name, entries in found["objects"].items():
        for key, label in (("lift", name), ("auc", "told to be there by one feature, AUC")):
            value, low, high = entries[0][key]
            fresh = _range_by_batch_norm(entries, key)
            by_object.append(f"{label} {value:.2f} [{low:.2f}, {high:.2f}], fresh {fresh}")
    values_by_way = np.array([lift.value for lift in lifts[1:]]).reshape(len(BATCH_NORM), -1)
    for way, values in zip(BATCH_NORM, values_by_way, strict=True):
        means.append(f"{values.mean():.2f} ({way}), the highest {values.max():.2f}")
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
        f"chosen on other images, at their {how.top} strongest responses. "
        f"{'; '.join(by_object)}. Mean lift of the fresh networks {'; '.join(means)}.",
    )


def _range_by_batch_norm(entries: list[dict[str, Any]], key: str) -> str:
    """Say between which values the fresh networks lie, for each reading of their batch norm."""
    parts = []
    for way in BATCH_NORM:
        values = [entry[key][0] for entry in entries if entry["batch_norm"] == way]
        parts.append(f"{min(values):.2f} to {max(values):.2f} ({way})")
    return ", ".join(parts)


def load_saliency(set_name: str) -> dict[str, Any]:
    """Return what was measured on a set; see `measure`."""
    return load_details(f"curves/saliency.{set_name}", "dcgan saliency CHECKPOINT --record")
