"""Bring the images of any source to one size and keep them as a cached ImageSet.

Legend: images_u8 is n x c x h x w, uint8, 0..255.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dcgan_lib.data import storage
from dcgan_lib.data.decode import FITS, Decoded, Fit, Framing, decode, decode_file
from dcgan_lib.data.folders import exclusive, new_folder
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.stream import stream
from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, data_root

REPORT_FILE = "report.json"
VERSION = 1  # of the pixels: raise it when the same file would decode to others
LARGEST_SIDE = 4096
Labels = tuple[np.ndarray | None, tuple[str, ...], dict[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what decides the pixels of a prepared set, the files apart.

    Parameters
    ----------
    image_size : tuple of int
        (height, width) in pixels, 1..4096 each.
    channels : {"auto", 1, 3}
        "auto" keeps grey when every image is grey.
    fit : {"crop", "stretch", "centre"}
        See `dcgan_lib.data.decode.Framing`.
    min_side : int
        Shorter side in pixels below which an image is refused.
    """

    image_size: tuple[int, int]
    channels: str | int = "auto"
    fit: Fit = "crop"
    min_side: int = 1

    def as_card(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return {**vars(self), "image_size": list(self.image_size), "version": VERSION}


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Hold n images that can be decoded one by one.

    Parameters
    ----------
    names : sequence of str
        What each image is called in the report.
    decode_one : callable
        (position, framing) to a `Decoded`; called from several threads.
    describe : callable
        Positions kept to their labels (int64 or None), class names and attributes.
    ignored : dict of str to list of str
        What else lay there, by reason.
    """

    names: Sequence[str]
    decode_one: Callable[[int, Framing], Decoded]
    describe: Callable[[np.ndarray], Labels]
    ignored: dict[str, list[str]] = field(default_factory=dict)


def make_settings(
    image_size: int | tuple[int, int], channels: str | int = "auto", fit: Fit = "crop", min_side: int | None = None
) -> Settings:
    """Check the options and return them as one record.

    ``min_side`` is by default half of the asked size's shorter side: to enlarge more than twofold
    teaches blur ([O]).
    """
    height, width = check_image_size(image_size)
    if channels not in ("auto", 1, 3):
        raise UserError(f"channels must be 'auto', 1 or 3; got {channels!r}")
    if fit not in FITS:
        raise UserError(f"fit must be one of {', '.join(FITS)}; got {fit!r}")
    least = max(min(height, width) // 2, 1) if min_side is None else min_side
    if least < 1:
        raise UserError(f"min_side must be at least 1 pixel; got {min_side!r}")
    return Settings(image_size=(height, width), channels=channels, fit=fit, min_side=least)


def check_image_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) in pixels from a side or a pair; refuse anything else."""
    pair = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(side, (int, np.integer)) and 1 <= side <= LARGEST_SIDE for side in pair):
        raise UserError(f"image_size must be a side or (height, width), 1..{LARGEST_SIDE} pixels; got {image_size!r}")
    return int(pair[0]), int(pair[1])


def prepared_root() -> Path:
    """Return the folder of prepared sets, ``data_root()/"prepared"``."""
    return data_root() / "prepared"


def part_of_arrays(
    images_u8: np.ndarray,
    labels: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    attributes: dict[str, np.ndarray] | None = None,
) -> Part:
    """Return a part whose images lie in memory."""

    def decode_one(position: int, framing: Framing) -> Decoded:
        image_u8 = images_u8[position]
        if image_u8.shape[1:] == framing.image_size:
            return Decoded(image_u8=image_u8)
        pixels = image_u8[0] if len(image_u8) == 1 else image_u8.transpose(1, 2, 0)
        return decode(lambda: Image.fromarray(np.ascontiguousarray(pixels)), framing)

    names = [str(position) for position in range(len(images_u8))]
    return Part(names=names, decode_one=decode_one, describe=describe_by(labels, class_names, attributes))


def part_of_files(
    paths: Sequence[Path],
    labels: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    attributes: dict[str, np.ndarray] | None = None,
) -> Part:
    """Return a part whose images lie in files."""
    return Part(
        names=[f"{path.parent.name}/{path.name}" for path in paths],
        decode_one=lambda position, framing: decode_file(paths[position], framing),
        describe=describe_by(labels, class_names, attributes),
    )


def describe_by(
    labels: np.ndarray | None, class_names: tuple[str, ...] = (), attributes: dict[str, np.ndarray] | None = None
) -> Callable[[np.ndarray], Labels]:
    """Return the ``describe`` of a part whose labels and attributes are known beforehand."""

    def describe(kept: np.ndarray) -> Labels:
        chosen = {key: values[kept] for key, values in (attributes or {}).items()}
        return None if labels is None else np.ascontiguousarray(labels[kept]), class_names, chosen

    return describe


def sound_or_none(folder: Path) -> ImageSet | None:
    """Open a kept set; None where there is none, or a damaged one, so that it is made anew."""
    try:
        return ImageSet.load(folder)
    except UserError:
        return None


def kept_or_made(folder: Path, find: Callable[[], ImageSet | None], fill: Callable[[Path], None]) -> ImageSet:
    """Return what ``find`` finds; else let ``fill`` write a new folder in ``folder``'s place and open that.

    Of two processes that want the same set, the second waits and then finds the first one's.
    """
    if (found := find()) is not None:
        return found
    try:
        with exclusive(folder) as alone:
            if (found := find()) is not None:
                return found
            with new_folder(folder, clean=alone) as part_folder:
                fill(part_folder)
            return ImageSet.load(folder)
    except OSError as error:  # bad sources are told otherwise: this is the cache, full or not ours to write
        raise UserError(
            f"cannot write {folder} ({error.strerror or error}); set DCGAN_DATA to a folder with room, open to writing"
        ) from error


def fill_folder(
    folder: Path,
    name: str,
    part: Part,
    splits: dict[str, tuple[int, int | None]],
    settings: Settings,
    card: dict[str, Any],
    *,
    num_workers: int | None = None,
    progress: bool = False,
) -> None:
    """Decode a part into ``folder``: images, report, labels and, last, the card.

    ``splits`` gives each split's first position and the one after its last (None: the end), among
    all of the part's images; on the card it is among those kept.
    """
    framing = Framing(image_size=settings.image_size, fit=settings.fit, min_side=settings.min_side)
    tally = stream(
        folder / storage.IMAGES_FILE,
        lambda position: part.decode_one(position, framing),
        len(part.names),
        image_size=settings.image_size,
        channels=None if settings.channels == "auto" else int(settings.channels),
        num_workers=num_workers,
        progress=progress,
        title=name,
    )
    report = tally.counts(part.ignored)
    if not tally.kept:
        raise UserError(f"none of the {len(part.names)} images of {name} could be used: {report['refused']}")
    atomic_write(folder / REPORT_FILE, json.dumps(tally.names(part.names, part.ignored), indent=0))
    kept = np.array(tally.kept)
    ends = {split: (start, len(part.names) if stop is None else stop) for split, (start, stop) in splits.items()}
    spans = {split: np.searchsorted(kept, end).tolist() for split, end in ends.items()}
    counts = {"images": len(kept), **{split: stop - start for split, (start, stop) in spans.items()}}
    card = {**card, "counts": counts, "splits": spans, "preparation": settings.as_card(), "report": report}
    labels, class_names, attributes = part.describe(kept)
    storage.seal(folder, name, class_names, labels, attributes, card)


def resized(image_set: ImageSet, image_size: tuple[int, int]) -> ImageSet:
    """Return an image set at another size, scaled and centre-cropped; n x 4 boxes follow the pixels."""
    if image_size == image_set.image_size:
        return image_set
    part, framing = part_of_arrays(image_set.images_u8), Framing(image_size=image_size)
    images_u8 = np.empty((len(image_set), image_set.num_channels, *image_size), dtype=np.uint8)
    for position in range(len(image_set)):
        images_u8[position] = part.decode_one(position, framing).image_u8
    (height, width), (high, wide) = image_size, image_set.image_size
    scale = min(high / height, wide / width)
    corner = np.array([(wide - width * scale) / 2, (high - height * scale) / 2] * 2)
    attributes = {
        key: ((values - corner) / scale).astype(np.float32) if values.shape[1:] == (4,) else values
        for key, values in image_set.attributes.items()
    }
    card = {key: value for key, value in image_set.card.items() if key != "digest"}
    return replace(image_set, images_u8=images_u8, attributes=attributes, card=card)
