"""How well near-duplicates are found (section 4.1.1): by the paper's hash, and by two simpler ones.

Pictures of a set are altered in known ways, so that it is known which pairs are near-duplicates.
Recall is the share of these pairs that get one hash. Pairs of the set's own pictures that get one
hash are either duplicates that nobody planted or mistakes; `likeness` tells them apart.

Axes: n images, m pairs, k bits; ``images_u8`` is n x c x h x w, 0..255.
"""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image
from scipy import stats

from dcgan_lib.command import Command
from dcgan_lib.data.deduplicate import (
    AutoencoderConfig,
    code_entropy,
    exact_hash,
    group,
    perceptual_hash,
    shrink,
    train_autoencoder,
)
from dcgan_lib.data.image_set import ImageSet, is_plain_name
from dcgan_lib.data.load import PROCEDURAL, load_image_set
from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    claim_of,
    id_on,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval

FALSE_POSITIVES, RECALL = "dedup.false-positives", "dedup.recall"
PREVALENCE = 275_000 / 3_000_000
"""[P] Near-duplicates among the paper's bedrooms, and so copies to a picture here."""
CHOOSING = 0.3
"""[O] Share of a set's pictures on which settings are chosen; nothing is reported on them."""
LOOKED_AT = "bedrooms64"
"""The set on all of whose pictures our settings were first explored: its rows are exploratory."""
SAME = 0.5
"""[O] A `likeness` from which two pictures count as one."""
MOST_BITS = 12
"""[O] Bits that two perceptual hashes may differ in, at most, when they are compared."""


# ---------------------------------------------------------------- planted near-duplicates

Alter = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Turns one picture, c x h x w, into another of the same shape."""


def rescaled(share: float) -> Alter:
    """Return a change that shrinks a picture to a share of its side, and enlarges it again."""

    def alter(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        picture = _picture(image_u8)
        size = [max(1, round(side * share)) for side in picture.size]
        small = picture.resize(size, Image.Resampling.LANCZOS)
        return _array(small.resize(picture.size, Image.Resampling.BICUBIC))

    return alter


def compressed(quality: int) -> Alter:
    """Return a change that stores a picture as JPEG."""

    def alter(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        file = io.BytesIO()
        _picture(image_u8).save(file, "JPEG", quality=quality)
        return _array(Image.open(file))

    return alter


def brightened(gain: float) -> Alter:
    """Return a change that multiplies every pixel."""

    def alter(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(np.rint(image_u8 * gain), 0, 255).astype(np.uint8)

    return alter


def cropped(share: float) -> Alter:
    """Return a change that cuts a share of the side from each edge, and enlarges the rest."""

    def alter(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        picture = _picture(image_u8)
        width, height = picture.size
        box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
        return _array(picture.resize(picture.size, Image.Resampling.BICUBIC, box=box))

    return alter


def overlaid(share: float) -> Alter:
    """Return a change that puts a square of one colour, a share of the side wide, at any place."""

    def alter(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        channels, height, width = image_u8.shape
        side = max(1, round(share * min(height, width)))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        altered_u8 = image_u8.copy()
        colour = rng.integers(0, 256, (channels, 1, 1))
        altered_u8[:, top : top + side, left : left + side] = colour
        return altered_u8

    return alter


def mirrored(image_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap left and right."""
    return image_u8[..., ::-1]


KINDS: dict[str, Alter] = {
    "rescaled, 3/4": rescaled(3 / 4),
    "rescaled, 1/2": rescaled(1 / 2),
    "JPEG, quality 85": compressed(85),
    "JPEG, quality 50": compressed(50),
    "brighter by 5 %": brightened(1.05),
    "brighter by 20 %": brightened(1.2),
    "cropped by 1/64": cropped(1 / 64),
    "cropped by 1/20": cropped(1 / 20),
    "overlay, 1/12": overlaid(1 / 12),
    "overlay, 1/6": overlaid(1 / 6),
    "mirrored": mirrored,
}
"""Every kind of near-duplicate, of most at a slight and a stronger degree."""
MIRRORED = "mirrored"
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
        for view in (one, one[:, ::-1]):
            for zoom in ZOOMS:
                found.append(_highest_correlation(_details(_zoomed(view, zoom)), inner))
    return max(found)


def _highest_correlation(image: np.ndarray, inner: np.ndarray) -> float:
    if min(image.std(), inner.std()) < 1e-3:  # flat pictures have no details
        return -1.0
    return float(cv2.matchTemplate(image, inner, cv2.TM_CCOEFF_NORMED).max())


def _details(grey: np.ndarray) -> np.ndarray:
    grey = np.ascontiguousarray(grey)
    return grey - cv2.GaussianBlur(grey, (0, 0), 1.5)


def _zoomed(grey: np.ndarray, zoom: float) -> np.ndarray:
    side = len(grey)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), 0, zoom)
    return cv2.warpAffine(
        np.ascontiguousarray(grey),
        matrix,
        (side, side),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )


MOST_JUDGED = 500


def false_pairs(images_u8: np.ndarray, pairs_m2: np.ndarray) -> int:
    """Return how many pairs of rows are two pictures; of more than 500, by a sample."""
    judged_m2 = pairs_m2
    if len(pairs_m2) > MOST_JUDGED:
        chosen = np.random.default_rng(0).permutation(len(pairs_m2))[:MOST_JUDGED]
        judged_m2 = pairs_m2[chosen]
    wrong = sum(likeness(images_u8[i], images_u8[j]) < SAME for i, j in judged_m2)
    return round(wrong * len(pairs_m2) / max(1, len(judged_m2)))


# ---------------------------------------------------------------- pairs


def equal_pairs(codes_u8: np.ndarray) -> np.ndarray:
    """Return the pairs of rows with equal codes: m x 2, the smaller row first."""
    first = group(codes_u8)
    rows = np.argsort(first, kind="stable")
    ends = np.flatnonzero(np.r_[first[rows][1:] != first[rows][:-1], True]) + 1
    pairs, start = [], 0
    for end in ends:
        upper = np.triu_indices(end - start, 1)
        if len(upper[0]):
            pairs.append(np.stack([rows[start + upper[0]], rows[start + upper[1]]], axis=1))
        start = end
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def near_pairs(bits_nk: np.ndarray, max_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of rows that differ in at most so many bits, m x 2, and the bits: m."""
    packed = np.zeros((len(bits_nk), 8), np.uint8)
    packed[:, : -(-bits_nk.shape[1] // 8)] = np.packbits(bits_nk, axis=1)
    words = packed.view(np.uint64)[:, 0]
    pairs, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for row in range(1, len(words)):
        differ = np.bitwise_count(words[:row] ^ words[row])
        near = np.flatnonzero(differ <= max_bits)
        pairs.append(np.stack([near, np.full(len(near), row)], axis=1))
        distances.append(differ[near].astype(np.int64))
    return np.concatenate(pairs), np.concatenate(distances)


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
    entropy = code_entropy(autoencoder.bits(images_u8))
    found: dict[str, Any] = {"n": len(images_u8), "num_planted": len(rows)}
    for name, hash in (("autoencoder", autoencoder.hash), ("exact", exact_hash)):
        codes_u8 = hash(images_u8)
        hits = {k: (hash(copies) == codes_u8[rows]).all(1) for k, copies in altered.items()}
        found[name] = _summary(images_u8, hits, equal_pairs(codes_u8))
    found["autoencoder"]["entropy"] = round(entropy, 1)
    bits_nk = perceptual_hash(images_u8)
    differ = {k: (perceptual_hash(a) != bits_nk[rows]).sum(1) for k, a in altered.items()}
    pairs_m2, distances = near_pairs(bits_nk, MOST_BITS)
    found["phash"] = {}
    for bits in range(0, MOST_BITS + 1, 2):
        hits = {kind: values <= bits for kind, values in differ.items()}
        found["phash"][str(bits)] = _summary(images_u8, hits, pairs_m2[distances <= bits])
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
    low = stats.chi2.ppf(0.025, 2 * wrong) / 2 if wrong else 0.0
    high = stats.chi2.ppf(0.975, 2 * wrong + 2) / 2
    share, low, high = (each / max(each + right, 1e-9) for each in (wrong, low, high))
    return Estimate(share, low, high)


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
    same = [
        likeness(images_u8[row], copies[at]) >= SAME
        for copies in altered.values()
        for at, row in enumerate(rows[:num])
    ]
    firsts, seconds = rng.permutation(len(images_u8))[: 2 * num].reshape(2, -1)
    other = [
        likeness(images_u8[i], images_u8[j]) < SAME for i, j in zip(firsts, seconds, strict=True)
    ]
    return {"planted": round(float(np.mean(same)), 4), "random": round(float(np.mean(other)), 4)}


def _plain(estimate: Estimate) -> list[float]:
    return [float(f"{x:.4g}") for x in estimate]


def phash_at(found: Mapping[str, Any], most: float = 0.01) -> str:
    """Return the most bits at which the perceptual hash's share of false pairs is not above."""
    allowed = max(most, found["autoencoder"]["false_share"][0])
    kept = [bits for bits, each in found["phash"].items() if each["false_share"][0] <= allowed]
    return kept[-1] if kept else "0"


GRID = (
    {"noise": 2.0, "dropout": 0.5},
    {"noise": 2.0, "dropout": 0.2},
    {"noise": 4.0, "dropout": 0.5},
)
"""Settings that `NearDuplicates.choose` compares."""


def parts(image_set: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Return the pictures to choose settings on, and those to report on."""
    reporting, choosing = image_set.split(CHOOSING, seed)
    return choosing, reporting


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(Command, verb="near-duplicates"):
    """Plant near-duplicates in a set, and count what the paper's hash and two others find.

    Settings are chosen on three tenths of the pictures, and figures reported on the others.
    """

    set: str = "bedrooms64"
    """Image set, prepared set or folder; all of its splits."""
    num_images: int | None = None
    """Use at most so many of the pictures to choose or to report on; of a drawn set, draw so many
    for both together, 4,000 if unset."""
    num_planted: int = 1000
    """Pictures that are altered, each in every way."""
    choose: bool = False
    """Compare settings of the autoencoder on the pictures that are kept for it."""
    seed: int = 0
    """Of the parts, the autoencoder and what is planted."""
    record: bool = False
    """Write the rows to the ledger, or with --choose the comparison beside them."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        require(self.num_planted >= 10, "num_planted", self.num_planted, "at least 10")
        if self.record:
            allowed = "a set's name, and no path, for what is recorded"
            require(is_plain_name(self.set), "--set", self.set, allowed)
        begun = time.perf_counter()
        whole = load_pictures(self.set, self.num_images)
        choosing, reporting = (self._limited(part) for part in parts(whole, self.seed))
        if self.choose:
            found = self._choose(choosing.images_u8)
            if self.record:
                seconds = round(time.perf_counter() - begun, 1)
                about = {"command": self.command_line(), "seconds": seconds}
                save_details(f"near-duplicates/{choosing.name}--choice", {**about, "tried": found})
            return
        config = AutoencoderConfig(seed=self.seed)
        how = {"num_planted": self.num_planted, "seed": self.seed}
        found = measure(np.ascontiguousarray(reporting.images_u8), config, **how)
        print(f"{reporting.name}\n{table(found)}")
        if self.record:
            seconds = time.perf_counter() - begun
            record_claims(found, reporting.name, self.command_line(), seconds, self.seed)

    def _limited(self, part: ImageSet) -> ImageSet:
        """Draw from a part after it was cut off, so that the parts never change sides."""
        if self.num_images is None or self.num_images >= len(part):
            return part
        order = np.random.default_rng(self.seed).permutation(len(part))
        return part.subset(np.sort(order[: self.num_images]))

    def _choose(self, images_u8: np.ndarray) -> list[dict[str, Any]]:
        tried = []
        for settings in GRID:
            config = AutoencoderConfig(seed=self.seed, **settings)
            try:
                found = measure(images_u8, config, num_planted=self.num_planted, seed=self.seed)
            except UserError as error:
                print(f"{settings}: {error}", flush=True)
                continue
            each = found["autoencoder"]
            print(
                f"{settings}: recall {each['overall']:.1%}, {each['pairs']} pairs, "
                f"{each['false_pairs']} false",
                flush=True,
            )
            tried.append({**settings, **each})
        return tried


def load_pictures(name: str, num_images: int | None = None) -> ImageSet:
    """Load all pictures of a set; of a drawn one, draw so many, or 4,000."""
    if name in PROCEDURAL:
        return load_image_set(name, num_images=num_images or 4_000)
    return load_image_set(name, "all")


def table(found: Mapping[str, Any]) -> str:
    """Lay what was measured out as text: recall by kind and method, and the false pairs."""
    bits = phash_at(found)
    columns = {
        "autoencoder": found["autoencoder"],
        "pHash equal": found["phash"]["0"],
        f"pHash <= {bits} bits": found["phash"][bits],
        "exact": found["exact"],
    }
    lines = [f"{'':18}" + "".join(f"{name:>18}" for name in columns)]
    for kind in KINDS:
        values = "".join(f"{each['recall'][kind][0]:18.1%}" for each in columns.values())
        lines.append(f"{kind:18}" + values)
    lines.append(
        f"{'all but mirrored':18}" + "".join(f"{e['overall']:18.1%}" for e in columns.values())
    )
    for key, name in (("pairs", "pairs, one hash"), ("false_pairs", "of two pictures")):
        lines.append(f"{name:18}" + "".join(f"{each[key]:18,}" for each in columns.values()))
    shares = "".join(f"{each['false_share'][0]:18.2%}" for each in columns.values())
    lines.append(f"{'false, if 9 % are':18}" + shares)
    judged = found["judge"]
    lines.append(
        f"{found['n']:,} pictures, {found['num_planted']:,} altered; the judge names "
        f"{judged['planted']:.1%} of planted and {judged['random']:.1%} of random pairs rightly"
    )
    return "\n".join(lines)


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
    part = f"{set_name}, its part for reporting"
    common = {"data": part, "command": command}
    common |= {"seconds": seconds, "seed": seed}
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
            f"details; the judge names {found['judge']['planted']:.1%} of planted and "
            f"{found['judge']['random']:.1%} of random pairs rightly"
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
