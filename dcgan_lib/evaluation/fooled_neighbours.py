"""Do small changes to a picture fool its nearest neighbour? ``python -m dcgan_lib.evaluation.fooled_neighbours SET``.

The paper's section 6 warns that they do, and gives no number. Here each picture of a sample is changed a little, and
the nearest picture of the whole set is looked up: is it still the original? Axes: n images, c channels, h x w pixels.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dcgan_lib.data.sources import load_image_set
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.features import FeatureExtractor, get_features
from dcgan_lib.evaluation.generators import FEATURES_OF
from dcgan_lib.evaluation.neighbours import nearest
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval


def shift(images_u8: np.ndarray, pixels: int) -> np.ndarray:
    """Move images to the right and down; pixels that come in from outside repeat the edge."""
    rows, columns = ((np.arange(side) - pixels).clip(0, side - 1) for side in images_u8.shape[2:])
    return images_u8[:, :, rows][:, :, :, columns]


def brighten(images_u8: np.ndarray, levels: int) -> np.ndarray:
    """Add grey levels of 0..255 to every pixel, and cut off above 255."""
    return (images_u8.astype(np.int16) + levels).clip(0, 255).astype(np.uint8)


def contrast(images_u8: np.ndarray, factor: float) -> np.ndarray:
    """Move every pixel towards the mean of its image (factor below 1) or away from it."""
    mean = images_u8.mean((1, 2, 3), keepdims=True)
    return ((images_u8 - mean) * factor + mean).round().clip(0, 255).astype(np.uint8)


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shift by 1 pixel": lambda images_u8: shift(images_u8, 1),
    "shift by 2 pixels": lambda images_u8: shift(images_u8, 2),
    "brighter by 20 of 255": lambda images_u8: brighten(images_u8, 20),
    "contrast x 0.8": lambda images_u8: contrast(images_u8, 0.8),
    "mirrored": lambda images_u8: images_u8[:, :, :, ::-1],
}
"""What a person would call the same picture; the sizes are our choice."""


@dataclass(frozen=True, kw_only=True)
class Fooled:
    """Hold how often changed copies have another nearest neighbour than their original.

    Parameters
    ----------
    pixels, features : dict of str to Estimate
        Per transform the share of images, in pixels and in the features.
    n, num_references : int
        Images changed; images compared with, the originals among them.
    features_name : str
        Of the features.
    """

    pixels: dict[str, Estimate]
    features: dict[str, Estimate]
    n: int
    num_references: int
    features_name: str


def fooled_neighbours(images_u8: np.ndarray, features: FeatureExtractor, *, n: int = 1_000, seed: int = 0) -> Fooled:
    """Change images a little and look up their nearest neighbours among all of them.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, images x c x h x w, more than n.
    features : FeatureExtractor
        The second space to look in.
    n : int
        How many images to change, drawn at random.
    seed : int
        Of the draw.

    Raises
    ------
    UserError
        If n is below 2 or there are not more than n images.
    """
    if not 2 <= n < len(images_u8):
        raise UserError(f"n must be at least 2 and less than the {len(images_u8)} images, but it is {n}")
    rows = np.sort(np.random.default_rng(seed).choice(len(images_u8), n, replace=False))
    points, originals, found = features.extract(images_u8), np.asarray(images_u8[rows]), ({}, {})
    for name, change in TRANSFORMS.items():
        changed = np.ascontiguousarray(change(originals))
        for shares, queries, references in (
            (found[0], changed, images_u8),
            (found[1], features.extract(changed), points),
        ):
            missed = int((nearest(queries, references)[1] != rows).sum())
            shares[name] = wilson_interval(missed, n)
    return Fooled(pixels=found[0], features=found[1], n=n, num_references=len(images_u8), features_name=features.name)


def record_fooled(fooled: Fooled, set_name: str, command: str, seed: int, seconds: float) -> Result:
    """Enter the shares into the claims ledger as ``neighbours.fooled:SET``."""
    shift2 = fooled.pixels["shift by 2 pixels"]
    checks = {
        "in pixels, a shift by 2 pixels fools the neighbour of more than half of the images": shift2.low > 0.5,
        "in pixels, each of the small changes, the mirror among them, fools that of more than 1 image in 20": all(
            share.low > 0.05 for share in fooled.pixels.values()
        ),
    }
    told = "; ".join(f"{name} {100 * share.value:.1f} %" for name, share in fooled.pixels.items())
    seen = "; ".join(f"{name} {100 * share.value:.1f} %" for name, share in fooled.features.items())
    return record(
        f"neighbours.fooled:{set_name}", value=shift2.scaled(100), unit="%", n=fooled.n, checks=checks, seed=seed,
        data=f"{set_name}, {fooled.num_references:,} training images", command=command, seconds=seconds,
        notes=f"The value is for a shift by 2 pixels, in pixels. In pixels: {told}. In {fooled.features_name}: {seen}.",
    )  # fmt: skip


@answers_mistakes("fooled_neighbours")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure how often small changes fool the nearest neighbour, print it, and record it if asked."""
    parser = argparse.ArgumentParser(prog="dcgan_lib.evaluation.fooled_neighbours", description=main.__doc__)
    parser.add_argument("name", metavar="SET", help=f"one of {', '.join(FEATURES_OF)}")
    parser.add_argument("--n", type=int, default=1_000, help="images to change")
    parser.add_argument("--num-images", type=int, help="compare with so many training images; unset: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", action="store_true", help="enter the shares into the claims ledger")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    begun = time.perf_counter()
    if chosen.name not in FEATURES_OF:
        raise UserError(f"no features were made for the set {chosen.name!r}: choose from {', '.join(FEATURES_OF)}")
    size = 32 if "mnist" in chosen.name else None
    images = load_image_set(chosen.name, image_size=size, num_images=chosen.num_images).images_u8
    fooled = fooled_neighbours(images, get_features(FEATURES_OF[chosen.name]), n=chosen.n, seed=chosen.seed)
    print(f"{chosen.name}: share of {fooled.n:,} images whose changed copy has another nearest neighbour among")
    print(f"{fooled.num_references:,}; in pixels, and in {fooled.features_name}; 95 % intervals")
    for name, share in fooled.pixels.items():
        print(f"  {name:22} {_percent(share)}   {_percent(fooled.features[name])}")
    if chosen.record:
        command = f"python -m dcgan_lib.evaluation.fooled_neighbours {chosen.name} --n {chosen.n} "
        command += f"--num-images {chosen.num_images} " if chosen.num_images else ""
        command += f"--seed {chosen.seed} --record"
        row = record_fooled(fooled, chosen.name, command, chosen.seed, time.perf_counter() - begun)
        print(f"recorded {row.id}: {row.verdict}")
    return 0


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:5.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
