"""One way in: a name or a folder becomes an `ImageSet`, and one split of it is chosen.

Legend: n images, c channels, h x w pixels; ``images_u8`` is n x c x h x w, uint8, 0..255.
"""

import contextlib
import hashlib
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from dcgan_lib.data.decode import Fit, Framing
from dcgan_lib.data.deduplicate import is_first_of_its_kind
from dcgan_lib.data.image_set import CARD_FILE, ImageSet, is_plain_name
from dcgan_lib.data.prepare import prepare, prepared_root, resized, sound_or_none
from dcgan_lib.data.published import PUBLIC_SETS, load_public
from dcgan_lib.errors import UserError
from dcgan_lib.paths import data_root

PROCEDURAL = {"rooms": "rooms", "portraits": "portraits", "street-digits": "street_digits"}
NUM_DRAWN = {"train": 20_000, "validation": 2_000, "test": 2_000}
SEED_STEP = 1_000_000
DEFAULT_SIZE = 64  # [P] of the bedrooms and the faces


@dataclass(frozen=True, kw_only=True)
class KnownFolder:
    """Describe a folder of images whose origin is known."""

    source: str
    licence: str
    image_size: int = DEFAULT_SIZE


KNOWN_FOLDERS = {
    "faces64": KnownFolder(
        source="UTKFace, aligned and cropped, adults only; file names carry the age",
        licence="non-commercial research only; photographs of identifiable people",
    ),
    "bedrooms64": KnownFolder(
        source="Places365, bedrooms in which a detector saw no person",
        licence="research and education only",
    ),
    "smiles64": KnownFolder(
        source="faces from news photographs, labelled smiling or neutral",
        licence="non-commercial research only; photographs of identifiable people",
    ),
    "tinyimagenet32": KnownFolder(
        source="Tiny-ImageNet's training images, box-filtered from 64x64 to 32x32",
        licence="ImageNet's terms: non-commercial research and education only",
        image_size=32,
    ),
}


HELD_OUT = "held-out"
TESTED_ON = {"mnist", "rooms", "portraits", "street-digits"}
"""Sets whose generators are measured on the test split, and chosen by validation."""


def held_out_split(name: str, splits: Container[str]) -> str:
    """Return which of a set's splits generators are compared with: never one that they learn from.

    It is validation, because elsewhere the test images wait for Tables 1 and 2; test of a set in
    `TESTED_ON`, or of one that has no validation images.
    """
    wanted, other = ("test", "validation") if name in TESTED_ON else ("validation", "test")
    return other if wanted not in splits and other in splits else wanted


def set_names() -> tuple[str, ...]:
    """Return the names that `load_image_set` knows, folders and prepared sets apart."""
    return (*PUBLIC_SETS, *PROCEDURAL, *KNOWN_FOLDERS)


def load_image_set(
    name: str | Path,
    split: str = "train",
    *,
    image_size: int | tuple[int, int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    channels: str | int = "auto",
    fit: Fit = "crop",
    drop_duplicates: bool = False,
    download: bool = False,
    progress: bool = False,
) -> ImageSet:
    """Load one split of an image set; what had to be decoded or drawn is kept for the next time.

    Validation sets are all [O] unless the set or the paper has one: MNIST's last 10,000 training
    images (the number is [P]), CIFAR-10's last 5,000, SVHN's last 10,000 ([P]), 1,000 of svhn10k,
    by photo, and of a folder the tenth of the files that the hash of the path picks, unless folders
    called train, val or test say it. The card says which "split" it is, and in "cut_from" the
    digest of the whole.

    Parameters
    ----------
    name
        In any case of letters: mnist, fashionmnist, cifar10, svhn, svhn10k, celeba, lsun-bedrooms,
        imagenet; rooms, portraits, street-digits (drawn); digits (scikit-learn's 8x8); the name of
        a folder in `data_root()` or of a set made by `prepare`; or the path of either.
    split
        "train", "validation", "test" or "extra", where the set has it; several joined by "+", such
        as "train+validation"; "all"; or "held-out", which is one of them: see `held_out_split`.
    image_size
        Side or (height, width) in pixels; by default the set's own, or 64 for a folder, as in the
        paper. MNIST at 32 is padded by 2 pixels, not resampled.
    num_images, seed
        A drawn set has exactly so many (default 20,000 to train, 2,000 otherwise); of any other a
        random subset is taken, in the set's order.
    channels, fit
        See `dcgan_lib.data.decode.Framing`.
    drop_duplicates
        Keep the first of images that look the same, over all splits; see `data.deduplicate`.
    download
        Let torchvision fetch a missing set: nothing touches the network unasked.
    """
    if num_images is not None and num_images < 1:
        raise UserError(f"num_images must be at least 1; got {num_images}")
    size = None if image_size is None else Framing(image_size=image_size).image_size
    name = str(name)
    plain_name = name.casefold().replace("_", "-")
    name = plain_name if plain_name in set_names() else name
    if name in PROCEDURAL:
        if drop_duplicates:
            raise UserError(f"{name} is drawn, and drop_duplicates for photographs: leave it out")
        split = held_out_split(name, NUM_DRAWN) if split == HELD_OUT else split
        return load_drawn(name, split, size, num_images, seed, channels, progress=progress)
    if name in PUBLIC_SETS:
        own, parts = PUBLIC_SETS[name].image_size, PUBLIC_SETS[name].parts.values()
        split = held_out_split(name, set().union(*parts)) if split == HELD_OUT else split
        framing = Framing(image_size=size or own, channels=channels, fit=fit)
        found = load_public(name, split, framing, download=download, progress=progress)
    else:
        found = _load_by_place(name, size, channels, fit, progress)
        spans = found.card.get("splits", ())
        split = held_out_split(found.name, spans) if split == HELD_OUT else split
    return _draw(choose_split(found, split, drop_duplicates), num_images, seed)


def choose_split(image_set: ImageSet, split: str, drop_duplicates: bool = False) -> ImageSet:
    """Return one split, or several joined by "+", of a set whose card says where they lie.

    Neighbouring splits stay a memory map; others, and those without duplicates, are copied.
    """
    spans: dict[str, list[int]] = image_set.card.get("splits", {"all": [0, len(image_set)]})
    names = list(spans) if split == "all" else split.split("+")
    if len(set(names)) != len(names) or not set(names) <= set(spans):
        raise UserError(
            f"{image_set.name} has the splits {', '.join([*spans, 'all'])}; got {split!r}"
        )
    rows = np.concatenate([np.arange(*spans[name]) for name in names])
    if not len(rows):
        raise UserError(
            f"{image_set.name} is too small to have a {split} split: "
            f"it holds {len(image_set)} images"
        )
    if not drop_duplicates:
        return _cut(image_set, rows, split=split)
    first = is_first_of_its_kind(image_set.images_u8)
    return _cut(
        image_set, rows[first[rows]], split=split, dropped_duplicates=int((~first[rows]).sum())
    )


def _cut(image_set: ImageSet, rows: np.ndarray, **card: str | int) -> ImageSet:
    chosen = image_set.subset(rows)
    origin = image_set.card.get(
        "cut_from", {"digest": image_set.card.get("digest"), "images": len(image_set)}
    )
    return replace(chosen, card={**chosen.card, **card, "cut_from": origin})


def _draw(image_set: ImageSet, num_images: int | None, seed: int) -> ImageSet:
    if num_images is None or num_images == len(image_set):
        return image_set
    if num_images > len(image_set):
        raise UserError(
            f"{image_set.name}: {num_images} images were asked for, "
            f"but this split has {len(image_set)}"
        )
    rows = np.random.default_rng(seed).permutation(len(image_set))[:num_images]
    return _cut(image_set, np.sort(rows), subset_seed=seed)


def _load_by_place(
    name: str, size: tuple[int, int] | None, channels: str | int, fit: Fit, progress: bool
) -> ImageSet:
    other = None
    for folder in _places(name, prepared_root()):
        if (folder / CARD_FILE).is_file():
            other = ImageSet.load(folder)
            if size in (None, other.image_size) and channels in ("auto", other.num_channels):
                return other
    for folder in _places(name, data_root()):
        if folder.is_dir() and not (folder / CARD_FILE).is_file():
            return load_folder(folder, size, channels, fit, progress=progress)
    if other is not None:
        raise UserError(
            f"{name} was prepared at {other.image_size} with {other.num_channels} channels; "
            f"asked for {size or other.image_size} with {channels}: "
            "ask for what it has, or prepare its folder of images again under another name"
        )
    beside = data_root().iterdir() if data_root().is_dir() else ()
    lying = sorted(path.name for path in beside if path.is_dir() and path.name[0] != ".")
    raise UserError(
        f"no image set or folder {name!r}: known are {', '.join(set_names())}; "
        f"in {data_root()} lie {', '.join(lying) or 'no folders'} "
        "(data/README.md says how to get each set)"
    )


def load_folder(
    folder: Path,
    size: tuple[int, int] | None = None,
    channels: str | int = "auto",
    fit: Fit = "crop",
    *,
    progress: bool = False,
) -> ImageSet:
    """Prepare a folder, or open it prepared; the card says where the splits lie."""
    known = KNOWN_FOLDERS.get(folder.resolve().name)
    return prepare(
        folder,
        image_size=size or (known.image_size if known else DEFAULT_SIZE),
        channels=channels,
        fit=fit,
        about={"source": known.source, "licence": known.licence} if known else None,
        progress=progress,
    )


def _places(name: str, root: Path) -> Iterator[Path]:
    if is_plain_name(name):
        yield root / name
    yield Path(os.path.expanduser(name))  # as it stands where there is no such user


def load_drawn(
    name: str,
    split: str,
    size: tuple[int, int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    channels: str | int = "auto",
    *,
    progress: bool = False,
) -> ImageSet:
    """Draw a procedural set, or open the copy kept from the last time that it was asked for."""
    if split not in NUM_DRAWN or not 0 <= seed < SEED_STEP or channels not in ("auto", 3):
        raise UserError(
            f"{name} is drawn in RGB, for the splits {', '.join(NUM_DRAWN)} "
            f"and seeds 0..{SEED_STEP - 1}; "
            f"got {split!r}, seed {seed}, channels {channels!r}"
        )
    num = num_images or NUM_DRAWN[split]
    # no split shares a seed with another
    drawn_seed = seed + list(NUM_DRAWN).index(split) * SEED_STEP
    module = import_module(f"dcgan_lib.data.drawn.{PROCEDURAL[name]}")
    code = _source_digest(Path(module.__file__).parent)
    folder = prepared_root() / f"{name}-{num}-seed{drawn_seed}.{code}"
    found = sound_or_none(folder)
    if found is None:
        draw = getattr(module, f"draw_{PROCEDURAL[name]}")
        found = draw(num, drawn_seed, progress=progress)
        # a data folder that may not be written costs only the time next time
        with contextlib.suppress(UserError):
            found = found.save(folder)
    found = found if size is None else resized(found, size)
    return replace(found, card={**found.card, "split": split})


def _source_digest(folder: Path) -> str:
    """Return a digest of the drawing code, so that a kept set never outlives it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
