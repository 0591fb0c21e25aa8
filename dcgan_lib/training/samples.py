"""Draw pictures with a saved generator and write them to files.

Axes: n pictures, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import from_u8, generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import load_discriminator, load_generator


def draw(
    checkpoint: str | Path,
    num_images: int,
    *,
    seed: int = 0,
    label: int | None = None,
    best_of: int = 1,
    batch_stats: bool = False,
) -> np.ndarray:
    """Draw pictures from a checkpoint.

    Parameters
    ----------
    checkpoint : str or Path
        A committed checkpoint's name or a run's folder.
    num_images : int
        How many to return.
    seed : int
        Of the latent vectors.
    label : int, optional
        Class for a conditional generator; by default all in turn.
    best_of : int
        Draw this many times as many and keep the most real ones in the discriminator's eyes, best
        first. They are picked, so they say nothing about the generator's average.
    batch_stats : bool
        See ``generate_u8``.

    Returns
    -------
    ndarray
        uint8, n x c x h x w.

    Raises
    ------
    UserError
        If there is no such checkpoint, no discriminator to pick with, or no such class, or a number is
        out of range.
    """
    total = num_images * best_of
    for name, value, low in (("num_images", num_images, 1), ("best_of", best_of, 1), ("seed", seed, 0)):
        if not low <= value < 2**63:
            raise UserError(f"{name} must be at least {low} and below 2**63, but it is {value}")
    if batch_stats and total == 1:
        raise UserError("one picture alone has no batch statistics: draw at least 2, or use the running statistics")
    generator = load_generator(checkpoint)
    labels_n = _labels(total, generator.config.num_classes, label)
    z_nd = sample_latents(total, generator.config, seeded(seed))
    size = next((size for size in range(256, 1, -1) if total % size != 1), 256)  # one alone has no batch statistics
    pictures = generate_u8(generator, z_nd, labels_n, batch_stats=batch_stats, batch_size=size)
    if best_of == 1:
        return pictures
    discriminator = load_discriminator(checkpoint)
    with torch.no_grad():
        x_nchw = from_u8(torch.from_numpy(pictures), generator.config)
        parts = [slice(start, start + 256) for start in range(0, total, 256)]
        logits = torch.cat([discriminator(x_nchw[p], None if labels_n is None else labels_n[p]) for p in parts])
    return pictures[logits.argsort(descending=True)[:num_images].numpy()]


def _labels(num: int, num_classes: int, label: int | None) -> torch.Tensor | None:
    """Return the class of each picture, None for a generator without classes."""
    if label is not None and not 0 <= label < num_classes:
        allowed = f"0 to {num_classes - 1}" if num_classes else "left out, because this generator has no classes"
        raise UserError(f"label must be {allowed}, but it is {label}")
    if not num_classes:
        return None
    return torch.arange(num) % num_classes if label is None else torch.full((num,), label)


def write_grid(path: Path, pictures_u8: np.ndarray, columns: int | None = None) -> None:
    """Write pictures as one PNG, two white pixels apart; the last row may be short, and one alone has no border.

    Raises
    ------
    UserError
        If ``columns`` is less than 1, or the file cannot be written.
    """
    if columns is None:
        columns = math.ceil(math.sqrt(len(pictures_u8)))
    if columns < 1:
        raise UserError(f"columns must be at least 1, but it is {columns}")
    grid = make_grid(torch.from_numpy(pictures_u8), columns, padding=2, pad_value=255)
    _save(path, grid.permute(1, 2, 0).numpy())


def write_separately(folder: Path, pictures_u8: np.ndarray) -> None:
    """Write pictures as 000000.png and so on."""
    digits = max(6, len(str(len(pictures_u8) - 1)))
    for number, picture in enumerate(pictures_u8):
        _save(folder / f"{number:0{digits}d}.png", picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))


def _save(path: Path, pixels: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot write {path} ({error}): choose a writable place and a name that ends in .png"
        ) from error
