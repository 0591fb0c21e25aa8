"""Prepare a folder of images once: decode, crop, resize, report, and keep the result as an ImageSet.

Legend: images_u8 is n x c x h x w, uint8, 0..255.
"""

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.data import storage
from dcgan_lib.data.decode import Fit, decode_file
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.listing import Listing, list_images
from dcgan_lib.data.parts import Labels, Part, fill_folder, kept_or_made, make_settings, prepared_root, sound_or_none
from dcgan_lib.errors import UserError

HELD_OUT = 0.1


def prepare(
    source: str | Path,
    name: str,
    *,
    image_size: int | tuple[int, int] = 64,
    channels: str | int = "auto",
    fit: Fit = "crop",
    min_side: int | None = None,
    limit: int | None = None,
    held_out: float = HELD_OUT,
    num_workers: int | None = None,
    overwrite: bool = False,
    about: dict[str, str] | None = None,
    progress: bool = False,
) -> ImageSet:
    """Prepare the images of a folder as ``prepared_root()/name``, or open what is already there.

    Parameters
    ----------
    source : str or Path
        A folder with images in it, or in one folder per class, or deeper. With two or more class
        folders and no image beside them, the first folder of a path is the image's class.
    name : str
        Letters, digits, ``_ - .``.
    image_size : int or tuple of int, optional
        Side, or (height, width), in pixels; default 64.
    channels : {"auto", 1, 3}, optional
        Default "auto": grey when every file is grey.
    fit : {"crop", "stretch", "centre"}, optional
        Default "crop": the shorter side is scaled and the centre cropped; "centre" crops without
        scaling, as the authors did for faces.
    min_side : int, optional
        Files with a shorter side are refused; default half of ``image_size``'s shorter side.
    limit : int, optional
        Use at most this many files, spread over the folder by the hash of their paths.
    held_out : float, optional
        Share for validation, in [0, 1), default 0.1. A file's side depends on its path alone, so
        it stays there when others come or go.
    num_workers : int, optional
        Threads; default one per core. The result does not depend on it.
    overwrite : bool, optional
        Replace a set of the same name that was prepared otherwise, instead of refusing.
    about : dict of str to str, optional
        ``source`` and ``licence`` for the card, where they are known.
    progress : bool, optional
        Whether a bar goes to standard error.

    Returns
    -------
    ImageSet
        Memory-mapped; training images first, then the held-out ones (``card["splits"]``). Its card
        counts the files refused and noted, by reason; report.json beside it names every file.

    Raises
    ------
    UserError
        When an option is wrong, the folder holds no usable image, or ``name`` is already taken by
        other settings or by an earlier state of the folder.

    Notes
    -----
    Two processes that prepare the same set do it once: the second waits. A killed run leaves a
    hidden folder that is never opened and that the next run removes.
    """
    source, folder = Path(source).expanduser(), prepared_root() / name
    settings = make_settings(image_size, channels, fit, min_side)
    if not storage.is_plain_name(name):
        raise UserError(f"a prepared set's name holds letters, digits, '_', '-' and '.'; got {name!r}")
    if (limit is not None and limit < 1) or not 0.0 <= held_out < 1.0:
        raise UserError(f"limit must be at least 1 and held_out in [0, 1); got {limit!r} and {held_out!r}")
    listing = list_images(source)
    wanted = {
        "fingerprint": listing.fingerprint,
        "limit": limit,
        "held_out": held_out,
        "preparation": settings.as_card(),
    }

    def fill(part_folder: Path) -> None:
        files, num_train = _in_order(listing, limit, held_out)
        part = Part(
            names=files,
            decode_one=lambda position, framing: decode_file(source / files[position], framing),
            describe=partial(_describe, files),
            ignored=listing.ignored,
        )
        whence = {"source": f"the folder {source.resolve().name!r}", "licence": "that of the folder's images"}
        card = {**whence, **(about or {}), **wanted}
        splits = {"train": (0, num_train), "validation": (num_train, None)}
        fill_folder(part_folder, name, part, splits, settings, card, num_workers=num_workers, progress=progress)

    return kept_or_made(folder, partial(_find, folder, wanted, overwrite), fill)


def _find(folder: Path, wanted: dict[str, Any], overwrite: bool) -> ImageSet | None:
    """Return the set in ``folder`` if it is the wanted one, None if it has to be made."""
    if not (folder / storage.CARD_FILE).is_file():
        return None
    found = sound_or_none(folder) if overwrite else ImageSet.load(folder)
    if found is None:
        return None
    came = {key: found.card.get(key) for key in wanted}
    if came == wanted:
        return found
    if overwrite:
        return None
    before, now = ({**side, **(side["preparation"] or {})} for side in (came, wanted))
    changes = [f"{key} {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key]]
    told = [change for change in changes if not change.startswith(("preparation", "fingerprint"))]
    what = "; ".join(told) or "the folder's files have come, gone or changed since"
    raise UserError(f"{folder} was prepared otherwise ({what}); allow it to be overwritten or choose another name")


def _in_order(listing: Listing, limit: int | None, held_out: float) -> tuple[list[str], int]:
    """Return the files to use in natural order, held-out ones last, and the number of the others."""
    files = listing.in_natural_order()
    if limit is not None and limit < len(files):
        chosen = set(sorted(files, key=partial(name_share, salt="limit"))[:limit])
        files = tuple(name for name in files if name in chosen)
    held = [name for name in files if name_share(name, "held out") < held_out]
    if len(held) == len(files):  # a folder of one or two files: train on them
        held = []
    held_set = set(held)
    train = [name for name in files if name not in held_set]
    return train + held, len(train)


def name_share(name: str, salt: str) -> float:
    """Return a number in [0, 1) that depends on ``name`` and ``salt`` alone."""
    digest = hashlib.sha256(f"{salt}\n{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _describe(files: list[str], kept: np.ndarray) -> Labels:
    names = [files[position] for position in kept]
    return *classes_of(names), attributes_from_names(names)


def classes_of(names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels (n, int64) and class names by the first folder of each path.

    (None, ()) when an image lies outside every folder or all lie in the same one.
    """
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    class_names = tuple(sorted(set(folders), key=lambda name: (name.casefold(), name)))
    if "" in class_names or len(class_names) < 2:
        return None, ()
    index = {name: label for label, name in enumerate(class_names)}
    return np.array([index[folder] for folder in folders], dtype=np.int64), class_names


def attributes_from_names(names: list[str]) -> dict[str, np.ndarray]:
    """Return ``age`` (n, float32, years) and ``female`` (n, bool) where every path states both.

    The form is ``female/ANYTHING_age31.png`` and ``male/...``; {} for any other folder.
    """
    found = [re.fullmatch(r"(female|male)/.*_age(\d{1,3})\.\w+", name) for name in names]
    if not names or not all(found):
        return {}
    return {
        "age": np.array([float(match[2]) for match in found], dtype=np.float32),
        "female": np.array([match[1] == "female" for match in found]),
    }
