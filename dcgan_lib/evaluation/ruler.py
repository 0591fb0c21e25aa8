"""Test a distance before it is used: damaged pictures must lie farther away than real ones.

Most kinds of damage come in two degrees. Features pass where real pictures that were not damaged
lie nearest to the held-out ones, slightly damaged ones farther, badly damaged ones farther still,
and their intervals do not overlap.

What `RULER`, the features that pass, does not see: colours faded by half lie inside the interval
of real pictures (rooms, portraits, bedrooms64; 400 images). House numbers blurred slightly are not
told from others (svhn10k, 400 or 1,000 images): of nine sets, it is the only one that fails the
test.

Nor does it rank nonsense among nonsense. In the recipe's runs on cifar10 generators come nearer
from a third of the steps on. But before that one may lie farther away than an untrained one, so a
distance says little about the first steps of a run.

Axes: n images, c channels, h x w pixels; ``*_u8`` pixels 0..255.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dcgan_lib.evaluation.distances import Distance, kid_of_features
from dcgan_lib.evaluation.features import FeatureExtractor

Damage = Callable[[np.ndarray], np.ndarray]
"""From uint8 images to as many damaged ones of the same shape, the same at each call."""
SEED = 0

# ---------------------------------------------------------------- damages


def blur(images_u8: np.ndarray, size: int) -> np.ndarray:
    """Replace each pixel by the mean of the ``size`` x ``size`` pixels around it."""
    damaged_u8 = np.empty_like(images_u8)
    for index, image_u8 in enumerate(images_u8):
        x_hwc = np.ascontiguousarray(image_u8.transpose(1, 2, 0))
        found = cv2.blur(x_hwc, (size, size), borderType=cv2.BORDER_REPLICATE)
        damaged_u8[index] = found.reshape(x_hwc.shape).transpose(2, 0, 1)
    return damaged_u8


def add_noise(images_u8: np.ndarray, levels: float) -> np.ndarray:
    """Add independent normal noise to each pixel; ``levels`` is its standard deviation."""
    rng = np.random.default_rng(SEED)
    noise = rng.standard_normal(images_u8.shape, dtype=np.float32) * levels
    return _rounded(images_u8 + noise)


def shuffle_patches(images_u8: np.ndarray, num_moved: int) -> np.ndarray:
    """Cut each picture into 4 x 4 patches, and let ``num_moved`` of them change places."""
    height, width = (side // 4 for side in images_u8.shape[2:])
    rng, damaged_u8 = np.random.default_rng(SEED), images_u8.copy()
    for image_u8, damaged in zip(images_u8, damaged_u8, strict=True):
        places = rng.choice(16, num_moved, replace=False)
        for target, source in zip(places, np.roll(places, 1), strict=True):
            top, left = target // 4 * height, target % 4 * width
            from_top, from_left = source // 4 * height, source % 4 * width
            damaged[:, top : top + height, left : left + width] = image_u8[
                :, from_top : from_top + height, from_left : from_left + width
            ]
    return damaged_u8


def mosaic(images_u8: np.ndarray, size: int, share: float = 1) -> np.ndarray:
    """Replace blocks of ``size`` x ``size`` pixels by their mean.

    ``share`` is that of either side which is replaced, about the middle of the picture.
    """
    height, width = images_u8.shape[2:]
    num_down, num_across = int(share * height / size), int(share * width / size)
    top, left = (height - size * num_down) // 2, (width - size * num_across) // 2
    rows, columns = slice(top, top + size * num_down), slice(left, left + size * num_across)
    blocks = images_u8[:, :, rows, columns].reshape(
        *images_u8.shape[:2], num_down, size, num_across, size
    )
    damaged_u8 = images_u8.copy()
    damaged_u8[:, :, rows, columns] = (
        _rounded(blocks.mean((3, 5))).repeat(size, axis=2).repeat(size, axis=3)
    )
    return damaged_u8


def fog(images_u8: np.ndarray, density: float) -> np.ndarray:
    """Mix each picture with a fog of its mean colour, in which soft clouds are lighter or darker.

    ``density`` is the fog's share, and 1 leaves nothing but fog.
    """
    rng = np.random.default_rng(SEED)
    height, width = images_u8.shape[2:]
    damaged = np.empty(images_u8.shape, np.float32)
    for index, image_u8 in enumerate(images_u8):
        coarse = rng.normal(0, 24, (4, 4)).astype(np.float32)
        clouds = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        veil = image_u8.mean((1, 2), keepdims=True) + clouds
        damaged[index] = (1 - density) * image_u8 + density * veil
    return _rounded(damaged)


def fade(images_u8: np.ndarray, share: float) -> np.ndarray:
    """Take away a share of the colour; 1 leaves grey pictures."""
    grey = images_u8.mean(1, keepdims=True)
    return _rounded((1 - share) * images_u8 + share * grey)


def repeat_few(images_u8: np.ndarray, num_distinct: int) -> np.ndarray:
    """Repeat the first pictures in place of all others: what a collapsed generator does."""
    return images_u8[np.arange(len(images_u8)) % num_distinct]


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


DAMAGES: dict[str, dict[str, Damage]] = {
    "blur": {
        "2 x 2": lambda x_u8: blur(x_u8, 2),
        "4 x 4": lambda x_u8: blur(x_u8, 4),
    },
    "noise": {
        "8 levels": lambda x_u8: add_noise(x_u8, 8),
        "32 levels": lambda x_u8: add_noise(x_u8, 32),
    },
    "shuffled patches": {
        "4 of 16": lambda x_u8: shuffle_patches(x_u8, 4),
        "16 of 16": lambda x_u8: shuffle_patches(x_u8, 16),
    },
    "mosaic": {
        "2 x 2": lambda x_u8: mosaic(x_u8, 2),
        "4 x 4": lambda x_u8: mosaic(x_u8, 4),
    },
    "mosaic inside": {"4 x 4": lambda x_u8: mosaic(x_u8, 4, share=0.5)},
    "fog": {
        "half": lambda x_u8: fog(x_u8, 0.5),
        "nothing else": lambda x_u8: fog(x_u8, 1),
    },
    "colour": {"none": lambda x_u8: fade(x_u8, 1)},
    "few pictures": {
        "one in 20": lambda x_u8: repeat_few(x_u8, max(2, len(x_u8) // 20)),
        "one in 100": lambda x_u8: repeat_few(x_u8, max(1, len(x_u8) // 100)),
    },
}
"""By kind, from slight to strong; grey pictures have no colour to lose."""

# ---------------------------------------------------------------- the rank test


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Hold the distances of pictures that get worse step by step."""

    kind: str
    """What gets worse."""
    steps: tuple[str, ...]
    """What was measured, from good to bad."""
    distances: tuple[Distance, ...]
    """One a step."""

    @property
    def in_order(self) -> bool:
        """Whether each step is farther away than the one before, beyond both intervals."""
        pairs = zip(self.distances, self.distances[1:], strict=False)
        return all(worse.low > better.high for better, worse in pairs)


@dataclass(frozen=True, kw_only=True)
class RankTest:
    """Hold the ladders that a set's features were tested on."""

    features: str
    ladders: tuple[Ladder, ...]

    @property
    def passed(self) -> bool:
        """Whether every ladder is in order."""
        return all(ladder.in_order for ladder in self.ladders)

    @property
    def failed_kinds(self) -> tuple[str, ...]:
        """Return the kinds of damage that are ranked wrongly, or not told apart."""
        return tuple(ladder.kind for ladder in self.ladders if not ladder.in_order)


def rank_test(
    held_out_u8: np.ndarray,
    real_u8: np.ndarray,
    features: FeatureExtractor,
    *,
    subsets: int = 100,
) -> RankTest:
    """Ask whether KID in these features ranks damaged pictures as the eye does.

    Parameters
    ----------
    held_out_u8, real_u8 : ndarray
        Two real sets that share no image: what is measured against, and what is damaged.
    subsets : int
        As for `kid`, each of a quarter of the smaller side.
    """
    subset_size = min(len(held_out_u8), len(real_u8)) // 4
    held_out_nf = features.extract(held_out_u8)

    def distance(images_u8: np.ndarray) -> Distance:
        return kid_of_features(
            held_out_nf,
            features.extract(images_u8),
            features.name,
            subsets=subsets,
            subset_size=subset_size,
        )

    real, ladders = distance(real_u8), []
    for kind, degrees in DAMAGES.items():
        if kind == "colour" and real_u8.shape[1] == 1:
            continue
        found = (real, *(distance(damage(real_u8)) for damage in degrees.values()))
        ladders.append(Ladder(kind=kind, steps=("real", *degrees), distances=found))
    return RankTest(features=features.name, ladders=tuple(ladders))
