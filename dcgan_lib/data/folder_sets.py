"""Load a folder of images split by split, prepared under a name that settings and place decide."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from dcgan_lib.data import storage
from dcgan_lib.data.decode import Fit
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.parts import Settings, make_settings
from dcgan_lib.data.prepare import HELD_OUT, prepare
from dcgan_lib.errors import UserError
from dcgan_lib.paths import data_root

DEFAULT_SIZE = 64  # [P] of the bedrooms and the faces
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, kw_only=True)
class KnownFolder:
    """Describe a folder of images whose origin is known: its own size in pixels, source and licence."""

    image_size: int
    source: str
    licence: str


KNOWN_FOLDERS = {
    "faces64": KnownFolder(
        image_size=64,
        source="UTKFace, aligned and cropped, adults only; file names carry the age",
        licence="non-commercial research only; photographs of identifiable people",
    ),
    "bedrooms64": KnownFolder(
        image_size=64,
        source="Places365, bedrooms in which a detector saw no person",
        licence="research and education only",
    ),
    "smiles64": KnownFolder(
        image_size=64,
        source="faces from news photographs, labelled smiling or neutral",
        licence="non-commercial research only; photographs of identifiable people",
    ),
    "tinyimagenet32": KnownFolder(
        image_size=32,
        source="Tiny-ImageNet's training images, box-filtered from 64x64 to 32x32",
        licence="ImageNet's terms: non-commercial research and education only",
    ),
}


def load_folder(
    folder: Path,
    split: str,
    size: tuple[int, int] | None,
    channels: str | int = "auto",
    fit: Fit = "crop",
    *,
    progress: bool = False,
) -> ImageSet:
    """Prepare a folder, or open it prepared; the card says where the splits lie.

    A folder whose subfolders are train and val or test is taken at its word: only the asked split
    is prepared and returned. Elsewhere the hash of a file's path decides.
    """
    name = folder.resolve().name
    known = KNOWN_FOLDERS.get(name)
    settings = make_settings(size or (known.image_size if known else DEFAULT_SIZE), channels, fit)
    inner = _split_folders(folder)
    if inner and split not in inner:
        raise UserError(f"{folder} has the splits {', '.join(inner)}, one folder each; got {split!r}")
    source = inner.get(split, folder)
    prepared = prepare(
        source,
        _cache_name(name, source, settings),
        **vars(settings),
        held_out=0.0 if inner else HELD_OUT,
        overwrite=True,  # the name is ours: only a change in the folder's files brings us here again
        about={"source": known.source, "licence": known.licence} if known else None,
        progress=progress,
    )
    splits = {split: [0, len(prepared)]} if inner else prepared.card["splits"]
    return replace(prepared, name=name, card={**prepared.card, "splits": splits})


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split where the subfolders are train and val or test, and {} otherwise."""
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found = {split: path for split, names in SPLIT_FOLDERS.items() for path in inner if path.name.casefold() in names}
    return found if "train" in found and len(found) == len(inner) > 1 else {}


def _cache_name(name: str, folder: Path, settings: Settings) -> str:
    """Name the cached folder by settings and place; a place inside the data folder may move with it."""
    place, root = folder.resolve(), data_root().resolve()
    place_name = place.relative_to(root).as_posix() if place.is_relative_to(root) else place.as_posix()
    digest = hashlib.sha256(json.dumps([settings.as_card(), place_name]).encode()).hexdigest()[:8]
    plain = "".join(letter if storage.is_plain_name("_" + letter) else "_" for letter in name).lstrip(".-") or "folder"
    height, width = settings.image_size
    return f"{plain}.{height}x{width}.{digest}"
