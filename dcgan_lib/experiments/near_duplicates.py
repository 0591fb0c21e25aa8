"""How well near-duplicates are found (section 4.1.1): by the paper's hash, and by two simpler ones.

Pictures of a set are altered in known ways, so that it is known which pairs are near-duplicates.
Recall is the share of these pairs that get one hash. Pairs of the set's own pictures that get one
hash are either duplicates that nobody planted or mistakes; `likeness` tells them apart.

Axes: n images, m pairs, k bits; ``images_u8`` is n x c x h x w, 0..255.
"""

import io
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dcgan_lib.command import Command
from dcgan_lib.data.deduplicate import (
    AutoencoderConfig,
    as_words,
    exact_hash,
    group,
    perceptual_hash,
    shrink,
    train_autoencoder,
)
from dcgan_lib.data.image_set import ImageSet, is_plain_name
from dcgan_lib.data.load import PROCEDURAL, load_image_set
from dcgan_lib.errors import require
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    claim_of,
    id_on,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, poisson_interval, wilson_interval

FALSE_POSITIVES, RECALL = "dedup.false-positives", "dedup.recall"
PREVALENCE = 275_000 / 3_000_000
"""[P] Near-duplicates among the paper's bedrooms, and so copies to a picture here."""
CHOOSING = 0.3
"""[O] Share of a set's pictures on which settings were chosen; nothing is reported on them."""
LOOKED_AT = "bedrooms64"
"""The set on all of whose pictures our settings were first explored: its rows are exploratory."""
SAME = 0.5
"""[O] A `likeness` from which two pictures count as one."""
MOST_BITS = 12
"""[O] Bits that two perceptual hashes may differ in, at most, when they are compared."""


# ---------------------------------------------------------------- planted near-duplicates

Alter = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Turns one picture, c x h x w, into another of the same shape."""


def rescale(image_u8: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Shrink a picture to a share of its side, and enlarge it again."""
    picture = _picture(image_u8)
    size = [max(1, round(side * share)) for side in picture.size]
    small = picture.resize(size, Image.Resampling.LANCZOS)
    return _array(small.resize(picture.size, Image.Resampling.BICUBIC))


def compress(image_u8: np.ndarray, rng: np.random.Generator, quality: int) -> np.ndarray:
    """Store a picture as JPEG."""
    file = io.BytesIO()
    _picture(image_u8).save(file, "JPEG", quality=quality)
    return _array(Image.open(file))


def brighten(image_u8: np.ndarray, rng: np.random.Generator, gain: float) -> np.ndarray:
    """Multiply every pixel."""
    return np.clip(np.rint(image_u8 * gain), 0, 255).astype(np.uint8)


def crop(image_u8: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Cut a share of the side from each edge, and enlarge the rest."""
    picture = _picture(image_u8)
    width, height = picture.size
    box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return _array(picture.resize(picture.size, Image.Resampling.BICUBIC, box=box))


def overlay(image_u8: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Put a square of one colour, a share of the side wide, at any place."""
    channels, height, width = image_u8.shape
    side = max(1, round(share * min(height, width)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    altered_u8 = image_u8.copy()
    altered_u8[:, top : top + side, left : left + side] = rng.integers(0, 256, (channels, 1, 1))
    return altered_u8


def mirror(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap left and right."""
    return image_u8[..., ::-1]


MIRRORED = "mirrored"
KINDS: dict[str, Alter] = {
    "rescaled, 3/4": partial(rescale, share=3 / 4),
    "rescaled, 1/2": partial(rescale, share=1 / 2),
    "JPEG, quality 85": partial(compress, quality=85),
    "JPEG, quality 50": partial(compress, quality=50),
    "brighter by 5 %": partial(brighten, gain=1.05),
    "brighter by 20 %": partial(brighten, gain=1.2),
    "cropped by 1/64": partial(crop, share=1 / 64),
    "cropped by 1/20": partial(crop, share=1 / 20),
    "overlay, 1/12": partial(overlay, share=1 / 12),
    "overlay, 1/6": partial(overlay, share=1 / 6),
    MIRRORED: mirror,
}
"""Every kind of near-duplicate, of most at a slight and a stronger degree."""
SLIGHT = tuple(KINDS)[0:-1:2]


def plant(images_u8: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
    """Return a near-duplicate of every picture."""
    require(kind in KINDS, "kind", kind, f"one of {list(KINDS)}")
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return np.stack([KINDS[kind](image_u8, rng) for image_u8 in images_u8])


def _picture(image_u8: np.ndarray) -> Image.Image:
    pixels = image_u8[0] if len(image_u8) == 1 else image_u8.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _array(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


# ---------------------------------------------------------------- one picture or two?

ZOOMS = (1.0, 1.04, 1.08, 1.12)
MARGIN = 4  # pixels of 32 that a detail may have moved by


def likeness(first_u8: np.ndarray, second_u8: np.ndarray) -> float:
    """Return how alike the fine details of two pictures, c x h x w, are: -1 to 1.

    The hashes read coarse structures, so they are judged by what they do not read: the grey picture
    at 32x32 less its blurred self. It is the highest correlation of the details over small shifts,
    zooms and mirroring. Different photographs of similar rooms have different details.
    """
    first, second = (
        shrink(image[None])[0].mean(0).astype(np.float32) for image in (first_u8, second_u8)
    )
    found = [-1.0]
    for one, other in ((first, second), (second, first)):
        inner = _details(other)[MARGIN:-MARGIN, MARGIN:-MARGIN]
        for view in (one, np.ascontiguousarray(one[:, ::-1])):
            for zoom in ZOOMS:
                details = _details(_zoomed(view, zoom))
                if min(details.std(), inner.std()) > 1e-3:  # flat pictures have no details
                    correlations = cv2.matchTemplate(details, inner, cv2.TM_CCOEFF_NORMED)
                    found.append(float(correlations.max()))
    return max(found)


def _details(grey: np.ndarray) -> np.ndarray:
    return grey - cv2.GaussianBlur(grey, (0, 0), 1.5)


def _zoomed(grey: np.ndarray, zoom: float) -> np.ndarray:
    side = len(grey)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), 0, zoom)
    how = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REFLECT_101}
    return cv2.warpAffine(grey, matrix, (side, side), **how)


MOST_JUDGED = 500


def false_pairs(images_u8: np.ndarray, pairs_m2: np.ndarray) -> int:
    """Return how many pairs of rows are two pictures; of more than 500, by a sample."""
    chosen = np.random.default_rng(0).permutation(len(pairs_m2))[:MOST_JUDGED]
    wrong = sum(likeness(images_u8[i], images_u8[j]) < SAME for i, j in pairs_m2[chosen])
    return round(wrong * len(pairs_m2) / max(1, len(chosen)))


# ---------------------------------------------------------------- pairs


def equal_pairs(codes_u8: np.ndarray) -> np.ndarray:
    """Return the pairs of rows with equal codes: m x 2, the smaller row first."""
    rows_of = defaultdict(list)
    for row, first in enumerate(group(codes_u8)):
        rows_of[first].append(row)
    pairs = [pair for rows in rows_of.values() for pair in combinations(rows, 2)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def near_pairs(bits_nk: np.ndarray, max_bits: int) -> np.ndarray:
    """Return the pairs of rows that differ in at most so many bits, and in how many: m x 3."""
    words = as_words(bits_nk)
    pairs = [np.empty((0, 3), np.int64)]
    for row in range(1, len(words)):
        differ = np.bitwise_count(words[:row] ^ words[row])
        near = np.flatnonzero(differ <= max_bits)
        pairs.append(np.stack([near, np.full(len(near), row), differ[near]], axis=1))
    return np.concatenate(pairs)


# ---------------------------------------------------------------- measured


def measure(
    images_u8: np.ndarray,
    config: AutoencoderConfig | None = None,
    *,
    num_planted: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how each method does on the images, as plain numbers.

    The autoencoder is trained on the images themselves, as the paper's was; it never sees an
    altered one. ``recall`` holds [value, low, high] by kind; ``false_share`` is the share of pairs
    with one hash that are two pictures, if 9 % of the images had a near-duplicate as in the paper.
    The perceptual hash is measured at each number of bits that two hashes may differ in.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(images_u8))[:num_planted])
    altered = {kind: plant(images_u8[rows], kind, seed) for kind in KINDS}
    autoencoder = train_autoencoder(images_u8, config)
    found: dict[str, Any] = {"n": len(images_u8), "num_planted": len(rows)}
    for name, hash in (("autoencoder", autoencoder.hash), ("exact", exact_hash)):
        codes_u8 = hash(images_u8)
        hits = {k: (hash(copies) == codes_u8[rows]).all(1) for k, copies in altered.items()}
        found[name] = _summary(images_u8, hits, equal_pairs(codes_u8))
    bits_nk = perceptual_hash(images_u8)
    differ = {k: (perceptual_hash(a) != bits_nk[rows]).sum(1) for k, a in altered.items()}
    pairs_m3 = near_pairs(bits_nk, MOST_BITS)
    found["phash"] = {}
    for bits in range(0, MOST_BITS + 1, 2):
        hits = {kind: values <= bits for kind, values in differ.items()}
        found["phash"][str(bits)] = _summary(images_u8, hits, pairs_m3[pairs_m3[:, 2] <= bits, :2])
    found["judge"] = judge(images_u8, rows, altered, rng)
    return found


def _summary(
    images_u8: np.ndarray, hits: Mapping[str, np.ndarray], pairs_m2: np.ndarray
) -> dict[str, Any]:
    recall = {kind: wilson_interval(int(hit.sum()), len(hit)) for kind, hit in hits.items()}
    overall = float(np.mean([recall[kind].value for kind in recall if kind != MIRRORED]))
    wrong = false_pairs(images_u8, pairs_m2)
    right = len(pairs_m2) - wrong + overall * PREVALENCE * len(images_u8)
    return {
        "recall": {kind: _plain(estimate) for kind, estimate in recall.items()},
        "overall": round(overall, 4),
        "pairs": len(pairs_m2),
        "false_pairs": wrong,
        "false_share": _plain(false_share(wrong, right)),
    }


def false_share(wrong: int, right: float) -> Estimate:
    """Estimate the share of false pairs among those found; false ones are counted as by Poisson."""
    return Estimate(*(each / max(each + right, 1e-9) for each in poisson_interval(wrong)))


def judge(
    images_u8: np.ndarray,
    rows: np.ndarray,
    altered: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    num: int = 100,
) -> dict[str, float]:
    """Return by how much `likeness` tells known pairs apart: the share of each that it names right.

    Planted pairs are one picture, and random pairs are two.
    """
    originals_u8 = images_u8[rows[:num]]
    planted = [
        likeness(*pair) >= SAME
        for copies_u8 in altered.values()
        for pair in zip(originals_u8, copies_u8, strict=False)
    ]
    firsts_u8, seconds_u8 = images_u8[rng.permutation(len(images_u8))[: 2 * num].reshape(2, -1)]
    random = [likeness(*pair) < SAME for pair in zip(firsts_u8, seconds_u8, strict=True)]
    return {
        "planted": round(float(np.mean(planted)), 4),
        "random": round(float(np.mean(random)), 4),
    }


def _plain(estimate: Estimate) -> list[float]:
    return [float(f"{x:.4g}") for x in estimate]


def phash_at(found: Mapping[str, Any]) -> str:
    """Return the most bits at which the perceptual hash makes few mistakes.

    Few: a share of false pairs of at most 1 %, or of the autoencoder's where that is more.
    """
    allowed = max(0.01, found["autoencoder"]["false_share"][0])
    kept = [bits for bits, each in found["phash"].items() if each["false_share"][0] <= allowed]
    return kept[-1] if kept else "0"


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(Command, verb="near-duplicates"):
    """Plant near-duplicates in a set, and count what the paper's hash and two others find.

    Settings were chosen on three tenths of the pictures, and figures are reported on the others.
    """

    set: str = "bedrooms64"
    """Image set, prepared set or folder; all of its splits."""
    num_images: int | None = None
    """Report on at most so many of the pictures; of a drawn set, draw so many in all, 4,000 if
    unset."""
    num_planted: int = 1000
    """Pictures that are altered, each in every way."""
    seed: int = 0
    """Of the parts, the autoencoder and what is planted."""
    record: bool = False
    """Write the rows to the ledger, and everything measured beside them."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        require(self.num_planted >= 10, "num_planted", self.num_planted, "at least 10")
        if self.record:
            allowed = "a set's name, and no path, for what is recorded"
            require(is_plain_name(self.set), "--set", self.set, allowed)
        begun = time.perf_counter()
        reporting, _ = self._load().split(CHOOSING, self.seed)
        if self.num_images is not None and self.num_images < len(reporting):
            order = np.random.default_rng(self.seed).permutation(len(reporting))
            reporting = reporting.subset(np.sort(order[: self.num_images]))
        config = AutoencoderConfig(seed=self.seed)
        how = {"num_planted": self.num_planted, "seed": self.seed}
        found = measure(np.ascontiguousarray(reporting.images_u8), config, **how)
        print(f"{reporting.name}\n{table(found)}")
        if self.record:
            seconds = time.perf_counter() - begun
            record_claims(found, reporting.name, self.command_line(), seconds, self.seed)

    def _load(self) -> ImageSet:
        if self.set in PROCEDURAL:
            return load_image_set(self.set, num_images=self.num_images or 4_000)
        return load_image_set(self.set, "all")


def table(found: Mapping[str, Any]) -> str:
    """Lay what was measured out as text: recall by kind and method, and the false pairs."""
    bits = phash_at(found)
    columns = {
        "autoencoder": found["autoencoder"],
        "pHash equal": found["phash"]["0"],
        f"pHash <= {bits} bits": found["phash"][bits],
        "exact": found["exact"],
    }
    rows = {"": [f"{name:>18}" for name in columns]}
    methods = columns.values()
    for kind in KINDS:
        rows[kind] = [f"{each['recall'][kind][0]:18.1%}" for each in methods]
    rows["all but mirrored"] = [f"{each['overall']:18.1%}" for each in methods]
    rows["pairs, one hash"] = [f"{each['pairs']:18,}" for each in methods]
    rows["of two pictures"] = [f"{each['false_pairs']:18,}" for each in methods]
    rows["false, if 9 % are"] = [f"{each['false_share'][0]:18.2%}" for each in methods]
    lines = [f"{title:18}" + "".join(cells) for title, cells in rows.items()]
    lines.append(
        f"{found['n']:,} pictures, {found['num_planted']:,} altered; {_judged(found['judge'])}"
    )
    return "\n".join(lines)


def _judged(shares: Mapping[str, float]) -> str:
    return (
        f"the judge names {shares['planted']:.1%} of planted and {shares['random']:.1%} of random "
        "pairs rightly"
    )


def record_claims(
    found: Mapping[str, Any], set_name: str, command: str, seconds: float, seed: int
) -> list[Result]:
    """Write both rows, and everything measured beside them."""
    ours, bits = found["autoencoder"], phash_at(found)
    rival, equal = found["phash"][bits], found["phash"]["0"]
    about = {"command": command, "seconds": round(seconds, 1)}
    save_details(f"near-duplicates/{set_name}", {"set": set_name, **about, **found})
    share = Estimate(*ours["false_share"])
    id = id_on(FALSE_POSITIVES, set_name)
    claim, other = claim_of(id)
    looked_at = None
    if set_name == LOOKED_AT:
        why = "the autoencoder's settings were laid out after a look at all of these pictures"
        looked_at = Caveat(kind="exploratory", why=why)
    checks, caveat = {}, looked_at
    if not claim.rule_on(other).is_numeric:
        if share.value <= 0.01 < share.high:
            why = f"{found['n']:,} pictures leave the share of false pairs uncertain"
            caveat = Caveat(kind="not at scale", why=why)
        checks = {
            "fewer than 1 in 100 pairs with equal hash are two pictures, by the whole interval": (
                share.high < 0.01
            )
        }
    common = {
        "data": f"{set_name}, its part for reporting",
        "command": command,
        "seconds": seconds,
        "seed": seed,
    }
    false_row = record(
        id,
        share.scaled(100),
        unit="%",
        n=found["n"],
        checks=checks,
        caveat=caveat,
        notes=(
            f"if 9.2 % had a near-duplicate, as in the paper; {ours['pairs']} pairs of the set's "
            f"own pictures had one hash, {ours['false_pairs']} of them two pictures by their "
            f"details; {_judged(found['judge'])}"
        ),
        **common,
    )
    recall, num = ours["recall"], found["num_planted"]
    overall = wilson_interval(ours["overall"] * num, num)  # one picture, one trial
    recall_row = record(
        id_on(RECALL, set_name),
        overall.scaled(100),
        unit="%",
        n=num,
        caveat=looked_at,
        checks={
            "over all kinds but mirrored ones more than half are found": overall.low > 0.5,
            "of every kind but mirrored ones, at its slighter degree, more than half are found": (
                min(recall[kind][1] for kind in SLIGHT) > 0.5
            ),
        },
        notes=(
            f"{len(KINDS) - 1} kinds and degrees; mirrored ones {recall[MIRRORED][0]:.1%}; "
            f"equal perceptual hashes {equal['overall']:.1%}, and within {bits} bits, which "
            f"compares every pair, {rival['overall']:.1%} at {rival['false_share'][0]:.2%} false"
        ),
        **common,
    )
    return [false_row, recall_row]


def load_measured(set_name: str) -> dict[str, Any]:
    """Return what was kept of a set: recall by kind and method, false pairs, and the judge."""
    command = f"dcgan near-duplicates --set {set_name} --record"
    return load_details(f"near-duplicates/{set_name}", command)
