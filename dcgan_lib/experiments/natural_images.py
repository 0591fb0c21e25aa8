"""Whether samples resemble natural images, which show many kinds of things (section 4.3).

The paper shows a figure. Here the distance of samples to held-out photographs is compared with that
of other held-out photographs which were damaged until they show nothing any more. It is also
measured what the order does in which the authors show samples: by the discriminator's score.

Axes: n images, f features; ``*_u8`` images n x c x h x w, 0..255; a logit is the
discriminator's score before the sigmoid.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist, pdist
from tqdm import tqdm
from tyro.conf import Positional

from dcgan_lib.command import Command
from dcgan_lib.data.load import HELD_OUT
from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.distances import Distance, kid_of_features
from dcgan_lib.evaluation.features import FEATURES_OF, get_features
from dcgan_lib.evaluation.generators import load_own_split, precision_recall
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    check_command,
    id_on,
    load_details,
    record,
    rounded,
    save_details,
)
from dcgan_lib.evaluation.ruler import DAMAGES, Damage
from dcgan_lib.evaluation.statistics import Estimate, auc_of_one, wilson_interval
from dcgan_lib.models.networks import untrained_generator
from dcgan_lib.models.sampling import logits_of, sample_u8
from dcgan_lib.training.checkpoints import load_config, load_discriminator, load_generator

CLAIM, SORTED = "imagenet.samples", "imagenet.sorted"

RUINED: dict[str, Damage] = {
    "16 patches shuffled": DAMAGES["shuffled patches"]["16 of 16"],
    "mosaic of 4 x 4 pixels": DAMAGES["mosaic"]["4 x 4"],
    "nothing but fog": DAMAGES["fog"]["nothing else"],
}
"""Damage after which nobody would call a picture natural. The rule, fixed before the checkpoint was
measured: samples resemble natural images where they are nearer to held-out ones than each of these,
beyond both intervals; partly where that holds for some. A kind than which the untrained generator
is nearer too can tell nothing, and is left out. It is a low bar, so that the verdict is at most
partly unless an observer can name an object in half of `NUM_LOOKED` samples."""
RULE_CHANGED = (
    "a first version of the rule asked that the untrained generator lie beyond every kind of "
    "ruined pictures; a look at an early state of the run, with 100 pictures a side, showed it "
    "beside the shuffled ones, so that now a kind counts where the untrained generator is not "
    "nearer"
)
SPOILT: dict[str, Damage] = {
    "blur of 2 x 2 pixels": DAMAGES["blur"]["2 x 2"],
    "4 patches shuffled": DAMAGES["shuffled patches"]["4 of 16"],
    "blur of 4 x 4 pixels": DAMAGES["blur"]["4 x 4"],
    "mosaic of 2 x 2 pixels": DAMAGES["mosaic"]["2 x 2"],
    "noise of 32 levels": DAMAGES["noise"]["32 levels"],
}
"""Milder damage, to say between which of them the samples lie; not part of the rule."""
REAL, SAMPLES, UNTRAINED = "held-out images", "samples", "untrained generator"
NUM_PARTS = 5
NUM_LOOKED = 100


@dataclass(frozen=True, kw_only=True)
class NaturalImages(Command, verb="natural"):
    """Measure whether samples resemble natural images, and what sorting by D's score does.

    Distances are KID in the features that are tested for the set. Samples are compared with
    held-out images, damaged ones among them; by fifths of the discriminator's score; and after
    picking the best of many.
    """

    checkpoint: Positional[str] = "natural"
    """A committed checkpoint's name or a run's folder, with both networks."""
    num_images: int = 1_000
    """Pictures on either side of each distance."""
    best_of: int = 20
    """So many times as many are drawn, and those with the highest score are picked."""
    seed: int = 1
    """Of the latent vectors and of the choice of real images."""
    named: int | None = None
    """Of the first 100 samples, those in which an observer can name an object, if somebody
    looked."""
    record: bool = False
    """Write the claim to the ledger, and the table for the book."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        require(self.num_images >= 8, "num_images", self.num_images, "at least 8")
        require(self.best_of >= NUM_PARTS, "best_of", self.best_of, f"at least {NUM_PARTS}")
        allowed = f"from 0 to {NUM_LOOKED}"
        require(0 <= (self.named or 0) <= NUM_LOOKED, "named", self.named, allowed)
        if self.record:
            check_command(CLAIM, self.command_line(), "held-out images")
        begun = time.perf_counter()
        found = measure(self)
        seconds = time.perf_counter() - begun
        print(study_text(found))
        if self.record:
            record_study(found, self, seconds)


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True, kw_only=True)
class Variety:
    """Say how varied pictures are, beside equally many real ones."""

    precision: Estimate
    """Share of pictures inside the real ones' manifold."""
    recall: Estimate
    """Share of real images inside the pictures' manifold."""
    nearest: int
    """Distinct held-out images that are the nearest one of some picture."""
    apart: float
    """Mean distance between two of the pictures, in features."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Hold one part of the samples, by the discriminator's score."""

    logits: tuple[float, float]
    """Lowest and highest."""
    distance: Distance


@dataclass(frozen=True, kw_only=True)
class Study:
    """Hold everything that the command found."""

    checkpoint: str
    image_set: str
    distances: dict[str, Distance]
    """To held-out images: of other held-out images, damaged ones, samples, untrained ones."""
    parts: tuple[Part, ...]
    """Fifths of the samples, from the lowest score to the highest."""
    picked: Distance
    """Of the samples with the highest scores of many."""
    varieties: dict[str, Variety]
    """Of samples, picked ones, and other held-out images."""
    told_apart: dict[str, float]
    """Chance that D gives the first of two kinds the higher score."""

    @property
    def num_images(self) -> int:
        """Return how many pictures stand on either side."""
        return self.distances[SAMPLES].n_fake

    @property
    def quality_gain(self) -> Estimate:
        """Return by how much the best part is nearer than the worst.

        The interval takes the errors of the two distances for independent.
        """
        worst, best = self.parts[0].distance, self.parts[-1].distance
        half = np.hypot(worst.high - worst.value, best.high - best.value)
        gain = worst.value - best.value
        return Estimate(gain, gain - float(half), gain + float(half))

    def is_nearer(self, kind: str, ruined: str) -> bool:
        """Tell whether one kind is nearer than another, beyond both intervals."""
        return self.distances[kind].high < self.distances[ruined].low

    @property
    def telling(self) -> tuple[str, ...]:
        """Return the kinds of ruined pictures than which the untrained generator is not nearer."""
        return tuple(name for name in RUINED if not self.is_nearer(UNTRAINED, name))


def measure(options: NaturalImages) -> Study:
    """Measure a checkpoint against the held-out images of the set that it learnt from."""
    config, about = load_config(options.checkpoint)
    name, num = about["image_set"], options.num_images
    if name not in FEATURES_OF:
        raise UserError(f"no features were tested for the set {name!r}: run dcgan rank-test first")
    features = get_features(FEATURES_OF[name])
    size = config.model.image_size
    held_out_u8 = load_own_split(about, size, HELD_OUT).images_u8
    train_u8 = load_own_split(about, size, "train").images_u8
    allowed = f"at most {len(held_out_u8) // 2}, half of the held-out images"
    require(2 * num <= len(held_out_u8), "num_images", num, allowed)
    rng = np.random.default_rng(options.seed)
    rows = np.sort(rng.permutation(len(held_out_u8))[: 2 * num])
    reference_u8, other_u8 = held_out_u8[rows[::2]], held_out_u8[rows[1::2]]
    seen_u8 = train_u8[np.sort(rng.permutation(len(train_u8))[:num])]
    drawn_u8 = sample_u8(load_generator(options.checkpoint), num * options.best_of, options.seed)
    discriminator = load_discriminator(options.checkpoint)
    logits_n = logits_of(discriminator, drawn_u8)
    untrained_u8 = sample_u8(untrained_generator(config.model), num, options.seed)

    reference_nf = features.extract(reference_u8)
    kinds = {REAL: other_u8}
    kinds |= {kind: damage(other_u8) for kind, damage in (SPOILT | RUINED).items()}
    kinds[UNTRAINED] = untrained_u8
    features_of = {}
    for kind, images_u8 in tqdm(kinds.items(), desc="measuring", unit="kind"):
        features_of[kind] = features.extract(images_u8)
    some_nf = features.extract(drawn_u8[: num * NUM_PARTS])
    best = np.sort(np.argsort(-logits_n, kind="stable")[:num])
    picked_nf = features.extract(drawn_u8[best])
    features_of[SAMPLES] = some_nf[:num]

    def distance(fake_nf: np.ndarray) -> Distance:
        return kid_of_features(reference_nf, fake_nf, features.name, subset_size=num // 4)

    order = np.argsort(logits_n[: len(some_nf)], kind="stable")
    parts = []
    for chosen in np.split(order, NUM_PARTS):
        ends = float(logits_n[chosen[0]]), float(logits_n[chosen[-1]])
        parts.append(Part(logits=ends, distance=distance(some_nf[np.sort(chosen)])))
    held_out_n = logits_of(discriminator, np.concatenate([reference_u8, other_u8]))
    seen_n = logits_of(discriminator, seen_u8)
    return Study(
        checkpoint=Path(options.checkpoint).name,
        image_set=name,
        distances={kind: distance(kind_nf) for kind, kind_nf in features_of.items()},
        parts=tuple(parts),
        picked=distance(picked_nf),
        varieties={
            SAMPLES: variety(reference_nf, features_of[SAMPLES]),
            "picked": variety(reference_nf, picked_nf),
            REAL: variety(reference_nf, features_of[REAL]),
        },
        told_apart={
            f"{REAL} above {SAMPLES}": chance_above(held_out_n, logits_n),
            f"training images above {SAMPLES}": chance_above(seen_n, logits_n),
            f"training images above {REAL}": chance_above(seen_n, held_out_n),
        },
    )


def variety(real_nf: np.ndarray, fake_nf: np.ndarray) -> Variety:
    """Measure how varied pictures are beside equally many real ones, both as features."""
    precision, recall = precision_recall(real_nf, fake_nf)
    return Variety(
        precision=precision,
        recall=recall,
        nearest=len(np.unique(cdist(fake_nf, real_nf).argmin(1))),
        apart=float(pdist(fake_nf).mean()),
    )


def chance_above(first_n: np.ndarray, second_n: np.ndarray) -> float:
    """Return the chance that a first value is above a second one; ties count half."""
    is_first = np.arange(len(first_n) + len(second_n)) < len(first_n)
    return auc_of_one(np.concatenate([first_n, second_n]), is_first)


# ---------------------------------------------------------------- what is said and kept


def judge(found: Study) -> dict[str, bool]:
    """Return the rule's checks: samples are nearer than each telling kind of ruined pictures."""
    return {
        f"samples are nearer to held-out images than real ones with {name}, beyond both "
        "intervals": found.is_nearer(SAMPLES, name)
        for name in found.telling or RUINED
    }


def study_text(found: Study) -> str:
    """Lay what was found out as text."""
    lines = [f"{found.checkpoint}, {found.image_set}, n {found.num_images:,} on either side"]
    ranked = sorted(found.distances.items(), key=lambda item: item[1].value)
    lines += [f"  {kind:24} {distance.estimate.text('.3f')}" for kind, distance in ranked]
    lines.append("fifths of the samples by D's score, from the lowest:")
    for part in found.parts:
        low, high = part.logits
        lines.append(f"  logits {low:6.2f} to {high:6.2f}   {part.distance.estimate.text('.3f')}")
    lines.append(f"  picked                   {found.picked.estimate.text('.3f')}")
    for kind, each in found.varieties.items():
        lines.append(
            f"{kind}: precision {each.precision.text('.1%')}, recall {each.recall.text('.1%')}, "
            f"{each.nearest} distinct nearest, {each.apart:.2f} apart"
        )
    lines += [f"D scores {pair}: {chance:.1%}" for pair, chance in found.told_apart.items()]
    blunt = [name for name in RUINED if name not in found.telling]
    if blunt:
        lines.append(f"the untrained generator is nearer than real ones with {', '.join(blunt)}")
    return "\n".join(lines)


def record_study(found: Study, options: NaturalImages, seconds: float) -> list[Result]:
    """Write the table for the book, the paper's claim and the control.

    The control asks whether sorting by the score sorts by quality.
    """
    samples, varied = found.distances[SAMPLES], found.varieties[SAMPLES]
    content = {
        "command": options.command_line(),
        "set": found.image_set,
        "metric": samples.metric,
        "features": samples.features,
        "n": found.num_images,
        "best_of": options.best_of,
        "named": options.named,
        "distances": {kind: each.estimate for kind, each in found.distances.items()},
        "ruined": list(RUINED),
        "parts": [
            {"logits": each.logits, "distance": each.distance.estimate} for each in found.parts
        ],
        "picked": found.picked.estimate,
        "varieties": {kind: asdict(each) for kind, each in found.varieties.items()},
        "told apart": found.told_apart,
    }
    save_details(f"natural/{found.checkpoint}", rounded(content, 6))
    about = {
        "unit": "",
        "n": found.num_images,
        "data": f"{found.num_images:,} samples and as many held-out images of {found.image_set}",
        "command": options.command_line(),
        "seconds": seconds,
        "checkpoint": found.checkpoint,
        "seed": options.seed,
    }
    looked = ""
    if options.named is not None:
        share = wilson_interval(options.named, NUM_LOOKED).scaled(100)
        looked = (
            f" One observer could name an object in {options.named} of {NUM_LOOKED} samples "
            f"[{share.low:.0f}, {share.high:.0f}]."
        )
    where = {kind: each.estimate.text(".3f") for kind, each in found.distances.items()}
    ruined = ", ".join(f"{name} {where[name]}" for name in RUINED)
    resembles = record(
        id_on(CLAIM, found.image_set),
        samples.estimate,
        checks=judge(found),
        caveat=_caveat(found, options.named),
        notes=f"{samples.metric} on {samples.features}; {ruined}; before training "
        f"{where[UNTRAINED]}; undamaged {where[REAL]}. "
        f"Precision {varied.precision.text('.1%')}, recall {varied.recall.text('.1%')}; of other "
        f"held-out images {found.varieties[REAL].recall.text('.1%')}.{looked} One training.",
        **about,
    )
    gain = found.quality_gain
    lowest, highest = (found.parts[at].distance.estimate.text(".3f") for at in (0, -1))
    sorts = record(
        id_on(SORTED, found.image_set),
        gain,
        checks={
            "the fifth of the samples with D's highest scores is nearer to held-out images than "
            "that with the lowest, beyond the interval of the difference": gain.low > 0
        },
        notes=f"Lowest fifth {lowest}, highest {highest}. The best of {options.best_of} times as "
        f"many: {found.picked.estimate.text('.3f')}, recall "
        f"{found.varieties['picked'].recall.text('.1%')}.",
        **about,
    )
    return [resembles, sorts]


def _caveat(found: Study, named: int | None) -> Caveat:
    """Return what bounds the verdict; ``named`` is the number of samples that show an object."""
    if not found.telling:
        why = "the untrained generator is nearer than every kind of ruined pictures"
        return Caveat(kind="not at scale", why=why)
    if named is not None and named >= NUM_LOOKED / 2:
        return Caveat(kind="exploratory", why=RULE_CHANGED)
    seen = "nobody looked whether"
    if named is not None:
        seen = f"one observer found in {named} of {NUM_LOOKED} samples that"
    why = (
        f"to be nearer than ruined photographs is a low bar, and {seen} an object can be named; "
        f"exploratory too: {RULE_CHANGED}"
    )
    return Caveat(kind="at most partly", why=why)


def load_study(checkpoint: str = "natural") -> dict[str, Any]:
    """Return what `dcgan natural --record` kept: distances, fifths, varieties, scores."""
    return load_details(f"natural/{checkpoint}", f"dcgan natural {checkpoint} --record")
