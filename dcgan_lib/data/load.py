"""Load the sets that need no download: drawn ones by seed, and scikit-learn's digits."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from dcgan_lib.data import image_set as storage
from dcgan_lib.data.decode import Fit
from dcgan_lib.data.deduplicate import is_first_of_its_kind
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.prepare import (
    KNOWN_FOLDERS,
    check_image_size,
    load_folder,
    make_settings,
    prepared_root,
    resized,
    sound_or_none,
)
from dcgan_lib.data.published import PUBLIC_SETS, load_public
from dcgan_lib.errors import UserError
from dcgan_lib.paths import data_root


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

    Parameters
    ----------
    name : str or Path
        In any case of letters: mnist, fashionmnist, cifar10, svhn, celeba, lsun-bedrooms, imagenet; rooms, portraits,
        street-digits (drawn); digits (scikit-learn's 8x8); the name of a folder in `data_root()` or
        of a set made by `prepare`; or the path of either.
    split : str, optional
        "train" (default), "validation", "test" or "extra", where the set has it; several joined by
        "+", such as "train+validation"; or "all".
    image_size : int or tuple of int, optional
        Side or (height, width) in pixels; by default the set's own, or 64 for a folder, as in the
        paper. MNIST at 32 is padded by 2 pixels, not resampled.
    num_images : int, optional
        How many: a drawn set has exactly so many (default 20,000 to train, 2,000 otherwise); of
        any other a random subset is taken, in the set's order.
    seed : int, optional
        Seed of the drawing, or of the random subset; default 0.
    channels : {"auto", 1, 3}, optional
        Default "auto": the set's own.
    fit : {"crop", "stretch", "centre"}, optional
        See `dcgan_lib.data.prepare.prepare`; for images that come in other sizes.
    drop_duplicates : bool, optional
        Keep the first of images that look the same, over all splits; see `dcgan_lib.data.deduplicate`.
        Default False.
    download : bool, optional
        Let torchvision fetch a missing set; default False: nothing touches the network unasked.
    progress : bool, optional
        Whether a bar goes to standard error.

    Returns
    -------
    ImageSet
        ``card["split"]`` says which split; ``card["cut_from"]`` the digest of the whole.

    Raises
    ------
    UserError
        When the set, the split or enough images are missing; the message says how to get them.

    Notes
    -----
    Validation sets, all [O] unless the set or the paper has one: MNIST the last 10,000 training
    images (the number is [P]), CIFAR-10 the last 5,000, SVHN the last 10,000 ([P]), folders the
    tenth of the files that the hash of the path picks. A folder whose only subfolders are train
    and val or test is taken at its word.
    """
    if num_images is not None and num_images < 1:
        raise UserError(f"num_images must be at least 1; got {num_images}")
    size, name = None if image_size is None else check_image_size(image_size), str(name)
    plain_name = name.casefold().replace("_", "-")
    name = plain_name if plain_name in set_names() else name
    if name in PROCEDURAL:
        return load_drawn(name, split, size, num_images, seed, channels, progress=progress)
    if name in PUBLIC_SETS:
        settings = make_settings(size or PUBLIC_SETS[name].image_size, channels, fit, min_side=1)
        found = load_public(name, split, settings, download=download, progress=progress)
    else:
        found = _load_by_place(name, split, size, channels, fit, progress)
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
            f"{image_set.name} is too small to have a {split} split: it holds {len(image_set)} images"
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
            f"{image_set.name}: {num_images} images were asked for, but this split has {len(image_set)}"
        )
    rows = np.random.default_rng(seed).permutation(len(image_set))[:num_images]
    return _cut(image_set, np.sort(rows), subset_seed=seed)


def _load_by_place(
    name: str,
    split: str,
    size: tuple[int, int] | None,
    channels: str | int,
    fit: Fit,
    progress: bool,
) -> ImageSet:
    """Load a prepared set or a folder of images, found by name or by path."""
    other = None
    for folder in _places(name, prepared_root()):
        if (folder / storage.CARD_FILE).is_file():
            other = ImageSet.load(folder)
            if size in (None, other.image_size) and channels in ("auto", other.num_channels):
                return other
    for folder in _places(name, data_root()):
        if folder.is_dir() and not (folder / storage.CARD_FILE).is_file():
            return load_folder(folder, split, size, channels, fit, progress=progress)
    if other is not None:
        raise UserError(
            f"{name} was prepared at {other.image_size} with {other.num_channels} channels; asked for "
            f"{size or other.image_size} with {channels}: prepare its folder of images again, so"
        )
    lying = (
        sorted(path.name for path in data_root().iterdir() if path.is_dir())
        if data_root().is_dir()
        else []
    )
    raise UserError(
        f"no image set or folder {name!r}: known are {', '.join(set_names())}; "
        f"in {data_root()} lie {', '.join(lying) or 'no folders'} (data/README.md says how to get each set)"
    )


def _places(name: str, root: Path) -> Iterator[Path]:
    if storage.is_plain_name(name):
        yield root / name
    yield Path(name).expanduser()


PROCEDURAL = {"rooms": "rooms", "portraits": "portraits", "street-digits": "street_digits"}
NUM_DRAWN = {"train": 20_000, "validation": 2_000, "test": 2_000}
SEED_STEP = 1_000_000


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
    """Draw a procedural set, or open the copy kept from the last time that the same was asked for."""
    if split not in NUM_DRAWN or not 0 <= seed < SEED_STEP or channels not in ("auto", 3):
        raise UserError(
            f"{name} is drawn in RGB, for the splits {', '.join(NUM_DRAWN)} and seeds 0..{SEED_STEP - 1}; "
            f"got {split!r}, seed {seed}, channels {channels!r}"
        )
    num = num_images or NUM_DRAWN[split]
    drawn_seed = (
        seed + list(NUM_DRAWN).index(split) * SEED_STEP
    )  # no split shares a seed with another
    module = import_module(f"dcgan_lib.data.drawn.{PROCEDURAL[name]}")
    folder = (
        prepared_root()
        / f"{name}-{num}-seed{drawn_seed}.{_source_digest(Path(module.__file__).parent)}"
    )
    found = sound_or_none(folder)
    if found is None:
        draw: Callable[..., ImageSet] = getattr(module, f"draw_{PROCEDURAL[name]}")
        found = draw(num, drawn_seed, progress=progress)
        with contextlib.suppress(
            OSError
        ):  # a data folder that may not be written costs only the time next time
            found = found.save(folder)
    found = found if size is None else resized(found, size)
    return replace(found, card={**found.card, "split": split})


def _source_digest(folder: Path) -> str:
    """Return a digest of the drawing code, so that a kept set never outlives it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
