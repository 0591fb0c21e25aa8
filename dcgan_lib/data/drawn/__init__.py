"""Image sets drawn from a seed, with the truth about every picture."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import require


def blank(
    name: str, num_images: int, seed: int, side: int, *, progress: bool, step: int = 1
) -> tuple[np.ndarray, Iterable[int]]:
    """Return an array for a set's pictures, and every ``step``-th number, with a progress bar."""
    require(num_images >= 1, "num_images", num_images, "at least 1")
    require(seed >= 0, "seed", seed, "at least 0")
    starts = range(0, num_images, step)
    bar = tqdm(starts, desc=name, unit="image", unit_scale=step, disable=not progress)
    return np.empty((num_images, 3, side, side), np.uint8), bar


def finished(
    name: str, images_u8: np.ndarray, seed: int, *, notes: dict[str, Any], **arrays: Any
) -> ImageSet:
    """Return the set of drawn pictures, with a card that says how to draw them again.

    ``notes`` go into the card; ``arrays`` are ``labels``, ``class_names`` and ``attributes``.
    """
    card = {
        "name": name,
        "source": f"drawn by dcgan_lib.data.drawn.{name.replace('-', '_')}",
        "licence": "the same as this library's code",
        "counts": {"images": len(images_u8)},
        "preparation": {"seed": seed, "image_size": list(images_u8.shape[2:]), "channels": 3},
    }
    return ImageSet(name=name, images_u8=images_u8, card=card | notes, **arrays)
