"""The one form in which every image set reaches the rest of the library.

Legend: n images, c channels (1 or 3), h x w pixels; ``images_u8`` is n x c x h x w, uint8, 0..255.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, default_mode

FORMAT = "dcgan_lib image set 1"
CARD_FILE, IMAGES_FILE, LABELS_FILE, ATTRIBUTES_FILE = (
    "card.json",
    "images.npy",
    "labels.npy",
    "attributes.npz",
)
STEPPED_ASIDE = "old"  # where a folder waits while a new one takes its name
HASH_ROWS = 4096


def is_plain_name(name: str) -> bool:
    """Say whether ``name`` is safe as a file's name everywhere: letters, digits, ``_ - .``."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", name) is not None


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and bytes, read piece by piece."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for start in range(0, len(array), HASH_ROWS):
        digest.update(np.ascontiguousarray(array[start : start + HASH_ROWS]).data)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Force a written file onto the disk, so that no later rename can overtake it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def seal(
    part: Path,
    name: str,
    class_names: tuple[str, ...],
    labels: np.ndarray | None,
    attributes: dict[str, np.ndarray],
    card: dict[str, Any],
) -> None:
    """Complete a folder that already holds images.npy: labels, attributes and, last, the card.

    Raises
    ------
    UserError
        When the card cannot be written as JSON.
    """
    if labels is not None:
        np.save(part / LABELS_FILE, labels, allow_pickle=False)
    if attributes:
        np.savez(part / ATTRIBUTES_FILE, **attributes)
    arrays = {"images": np.load(part / IMAGES_FILE, mmap_mode="r", allow_pickle=False)}
    arrays |= {} if labels is None else {"labels": labels}
    arrays |= {f"attributes/{key}": values for key, values in attributes.items()}
    entries = {key: _entry(array) for key, array in arrays.items()}
    digest = hashlib.sha256(json.dumps([class_names, entries], sort_keys=True).encode()).hexdigest()
    files = {path.name: path.stat().st_size for path in sorted(part.iterdir()) if path.is_file()}
    record = {
        "format": FORMAT,
        "name": name,
        "class_names": list(class_names),
        "arrays": entries,
        "files": files,
        "card": {**card, "name": name, "digest": digest},
    }
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: the card must hold only what JSON can hold; {error}") from error
    for file_name in files:
        sync(part / file_name)
    atomic_write(part / CARD_FILE, text + "\n")


def read(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """Return the fields of the set in ``folder``, its images memory-mapped, after checking its files.

    A folder that is replaced meanwhile is read again, so that no two states of it are ever mixed and
    the instant between two renames goes unnoticed.
    """
    patience = 100
    while True:
        patience -= 1
        before = _identity(folder)
        try:
            fields = _read(folder, verify)
        except (UserError, FileNotFoundError):
            steps_aside = before is None and any(
                folder.parent.glob(f".{folder.name}.*.part/{STEPPED_ASIDE}")
            )
            if patience == 0 or (_identity(folder) == before and not steps_aside):
                raise
            time.sleep(0.01)
        else:
            if _identity(folder) == before:
                return fields


def _identity(folder: Path) -> tuple[int, ...] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return (
        found.st_dev,
        found.st_ino,
        found.st_ctime_ns,
    )  # numbers of deleted folders are used again


def _read(folder: Path, verify: bool) -> dict[str, Any]:
    record = read_record(folder)
    for file_name, size in record["files"].items():
        path = folder / file_name
        came = path.stat().st_size if path.is_file() else None
        if came != size:
            raise _damaged(
                folder,
                f"{file_name} should be {size} bytes and is {'missing' if came is None else came}",
            )
    arrays: dict[str, np.ndarray] = {}
    try:
        for key in record["arrays"]:
            if key == "images":
                arrays[key] = np.load(folder / IMAGES_FILE, mmap_mode="r", allow_pickle=False)
            elif key == "labels":
                arrays[key] = np.load(folder / LABELS_FILE, allow_pickle=False)
        if ATTRIBUTES_FILE in record["files"]:
            with np.load(folder / ATTRIBUTES_FILE, allow_pickle=False) as attributes:
                arrays |= {f"attributes/{key}": attributes[key] for key in attributes.files}
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, str(error)) from error
    _compare(folder, record["arrays"], arrays, verify)
    return {
        "name": record["name"],
        "images_u8": arrays["images"],
        "labels": arrays.get("labels"),
        "class_names": tuple(record["class_names"]),
        "attributes": {
            k.removeprefix("attributes/"): v
            for k, v in arrays.items()
            if k.startswith("attributes/")
        },
        "card": record["card"],
    }


def read_record(folder: Path) -> dict[str, Any]:
    """Return the parsed card.json of a saved set without opening its arrays."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} is not a prepared image set: it has no {CARD_FILE}; prepare it again"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = (
            record["format"] == FORMAT
            and {"name", "class_names", "arrays", "files", "card"} <= record.keys()
        )
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"{CARD_FILE} cannot be read ({error})") from error
    if not known or "images" not in record["arrays"]:
        raise _damaged(folder, f"{CARD_FILE} is of another format than {FORMAT!r}")
    return record


def _entry(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": array_digest(array)}


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(
        f"the prepared image set {folder} is damaged: {why}; delete that folder and prepare it again"
    )


def _compare(
    folder: Path, entries: dict[str, Any], arrays: dict[str, np.ndarray], verify: bool
) -> None:
    if entries.keys() != arrays.keys():
        raise _damaged(
            folder, f"the card lists {sorted(entries)} and the files hold {sorted(arrays)}"
        )
    for key, entry in entries.items():
        array = arrays[key]
        if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
            raise _damaged(
                folder, f"{key} is {array.dtype.str} {list(array.shape)}, not as on the card"
            )
        if verify and array_digest(array) != entry["sha256"]:
            raise _damaged(folder, f"the bytes of {key} are not those the card was written for")


ATTRIBUTE_DTYPES = (np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.float32))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageSet:
    """Hold images of one size with their labels, attributes and card.

    Parameters
    ----------
    name : str
        What the set is called in messages, results and captions.
    images_u8 : numpy.ndarray
        n x c x h x w, uint8, 0..255, n >= 1, c = 1 (grey) or 3 (RGB). In memory, or a read-only
        memory map; copied once when it is not C-contiguous.
    labels : numpy.ndarray or None, optional
        n, int64, each in 0 .. ``len(class_names) - 1``; None when the set has no classes.
    class_names : tuple of str, optional
        One name per class; empty when ``labels`` is None.
    attributes : dict of str to numpy.ndarray, optional
        Ground truth per image: bool, int64 or float32, first axis n (boxes are n x 4 float32,
        left, top, right, bottom in pixels, NaN where the object is absent).
    card : dict, optional
        Where the images come from: source, licence, counts, preparation settings, report, digest.
        Everything in it can be written as JSON.

    Raises
    ------
    UserError
        When an array has the wrong type, shape, length or range.
    """

    name: str
    images_u8: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"an image set needs a name, a non-empty string; got {self.name!r}")
        _check_images(self.name, self.images_u8)
        if not self.images_u8.flags.c_contiguous:
            object.__setattr__(self, "images_u8", np.ascontiguousarray(self.images_u8))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        _check_labels(self.name, self.labels, self.class_names, len(self))
        for key, values in self.attributes.items():
            _check_attribute(self.name, key, values, len(self))

    def __len__(self) -> int:
        """Return the number of images."""
        return self.images_u8.shape[0]

    def __repr__(self) -> str:
        """Return one line that is the same on every machine."""
        shape = " x ".join(str(extent) for extent in self.images_u8.shape)
        classes = f", {self.num_classes} classes" if self.class_names else ""
        attributes = f", attributes: {', '.join(self.attributes)}" if self.attributes else ""
        return f"ImageSet({self.name}: {shape} uint8{classes}{attributes})"

    @property
    def num_images(self) -> int:
        """Return n, the number of images."""
        return len(self)

    @property
    def num_channels(self) -> int:
        """Return c: 1 for grey, 3 for RGB."""
        return self.images_u8.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        return self.images_u8.shape[2], self.images_u8.shape[3]

    @property
    def num_classes(self) -> int:
        """Return the number of classes; 0 for a set without labels."""
        return len(self.class_names)

    def subset(
        self, indices: slice | Sequence[int] | np.ndarray, name: str | None = None
    ) -> "ImageSet":
        """Return the images at ``indices``, in that order, with their labels and attributes.

        Parameters
        ----------
        indices : slice, sequence of int or numpy.ndarray
            Positions in 0 .. n - 1, or a boolean mask of length n. A slice, or positions that rise
            one by one, gives a view (a memory map stays one); anything else copies.
        name : str, optional
            The name of the result; by default this set's own.

        Returns
        -------
        ImageSet
            Its card is this one's without the digest and the split table, which no longer hold.

        Raises
        ------
        UserError
            When no image is chosen, or a position lies outside the set.
        """
        rows = _rows(self, indices)
        card = {key: value for key, value in self.card.items() if key not in ("digest", "splits")}
        return replace(
            self,
            name=name or self.name,
            images_u8=self.images_u8[rows],
            labels=None if self.labels is None else self.labels[rows],
            attributes={key: values[rows] for key, values in self.attributes.items()},
            card=card,
        )

    def split(self, fraction: float, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """Split at random into (rest, held-out), each in the set's own order.

        Parameters
        ----------
        fraction : float
            The held-out share, inside (0, 1); rounded to at least one image on either side.
        seed : int, optional
            Seed of the draw; the same seed gives the same split on every machine.
        """
        if not 0.0 < fraction < 1.0 or len(self) < 2:
            raise UserError(
                f"{self.name}: a split needs a fraction inside (0, 1) and at least 2 images; "
                f"got {fraction!r} of {len(self)} images"
            )
        num_held = min(max(round(len(self) * fraction), 1), len(self) - 1)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.subset(np.sort(order[num_held:])), self.subset(np.sort(order[:num_held]))

    def save(self, folder: str | Path) -> "ImageSet":
        """Write the set as a folder, whole or not at all, and return it memory-mapped.

        Parameters
        ----------
        folder : str or Path
            Replaced when it already holds an image set; refused when it holds anything else.

        Notes
        -----
        The folder holds images.npy, labels.npy, attributes.npz and, written last, card.json with
        the shape, size and SHA-256 digest of each.
        """
        folder = Path(folder)
        with exclusive(folder) as alone:
            with new_folder(folder, clean=alone) as part:
                np.save(part / IMAGES_FILE, self.images_u8, allow_pickle=False)
                seal(part, self.name, self.class_names, self.labels, self.attributes, self.card)
            return ImageSet.load(folder)

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> "ImageSet":
        """Open a saved set; the images stay on disk as a read-only memory map.

        Parameters
        ----------
        folder : str or Path
            A folder written by `save` or by `dcgan_lib.data.prepare`.
        verify : bool, optional
            Also read everything and compare the digests; without it only names, sizes, types and
            shapes are compared.

        Raises
        ------
        UserError
            When the card is missing or a file does not match it.
        """
        return cls(**read(Path(folder), verify=verify))


def _check_images(name: str, images_u8: np.ndarray) -> None:
    if not isinstance(images_u8, np.ndarray) or images_u8.dtype != np.uint8 or images_u8.ndim != 4:
        came = (
            getattr(images_u8, "dtype", type(images_u8).__name__),
            getattr(images_u8, "shape", "no shape"),
        )
        raise UserError(
            f"{name}: images must be a uint8 array, n x c x h x w; got {came[0]}, {came[1]}"
        )
    num, channels, height, width = images_u8.shape
    if channels not in (1, 3):
        raise UserError(
            f"{name}: images need 1 or 3 channels on axis 1; got {channels} in shape {images_u8.shape}"
        )
    if min(num, height, width) < 1:
        raise UserError(
            f"{name}: an image set holds at least one image of one pixel; got shape {images_u8.shape}"
        )


def _check_labels(
    name: str, labels: np.ndarray | None, class_names: tuple[str, ...], num_images: int
) -> None:
    if labels is None:
        if class_names:
            raise UserError(
                f"{name}: {len(class_names)} class names came without labels; give both or neither"
            )
        return
    if (
        not isinstance(labels, np.ndarray)
        or labels.dtype != np.int64
        or labels.shape != (num_images,)
    ):
        came = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", "no shape")
        raise UserError(
            f"{name}: labels must be int64 of shape ({num_images},); got {came[0]}, {came[1]}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise UserError(
            f"{name}: labels must lie in 0..{len(class_names) - 1}, one per class name; got {low}..{high}"
        )


def _check_attribute(name: str, key: str, values: np.ndarray, num_images: int) -> None:
    if not isinstance(key, str) or not is_plain_name(key):
        raise UserError(
            f"{name}: an attribute's name holds letters, digits, '_', '-' and '.'; got {key!r}"
        )
    if not isinstance(values, np.ndarray) or values.dtype not in ATTRIBUTE_DTYPES:
        came = getattr(values, "dtype", type(values).__name__)
        raise UserError(
            f"{name}: attribute {key!r} must be an array of bool, int64 or float32; got {came}"
        )
    if values.ndim < 1 or values.shape[0] != num_images:
        raise UserError(
            f"{name}: attribute {key!r} needs one row per image, {num_images}; got shape {values.shape}"
        )


def _rows(image_set: ImageSet, indices: slice | Sequence[int] | np.ndarray) -> slice | np.ndarray:
    """Turn ``indices`` into a slice where that is possible, so that a memory map is not copied."""
    num = len(image_set)
    if isinstance(indices, slice):
        indices = np.arange(num)[indices]
    rows = np.asarray(indices)
    if rows.dtype == np.bool_ and rows.shape == (num,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise UserError(
            f"{image_set.name}: choose images by a non-empty list of positions or a mask of length {num}; "
            f"got {rows.dtype} of shape {rows.shape}"
        )
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= num:
        raise UserError(f"{image_set.name}: positions must lie in 0..{num - 1}; got {low}..{high}")
    if high - low + 1 == rows.size and (np.diff(rows) == 1).all():
        return slice(low, high + 1)
    return rows


try:
    import fcntl
except (
    ImportError
):  # Windows: new folders are still unique, only the waiting for one another is lost
    fcntl = None

ATTEMPTS = 50  # more than one is needed only where writers cannot lock one another out


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Wait for, then hold, the writer's lock of ``folder``; yield False where there are no locks.

    The kernel drops the lock of a process that dies, however it dies.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    descriptor = _lock(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(
                missing_ok=True
            )  # before the lock is dropped: a waiter then sees that it is gone
            os.close(descriptor)


@contextlib.contextmanager
def new_folder(folder: Path, *, clean: bool) -> Iterator[Path]:
    """Yield a new folder that takes ``folder``'s place on success and vanishes on failure.

    ``clean`` removes what dead writers left; only the lock's holder knows that they are dead.

    Raises
    ------
    UserError
        When ``folder`` holds something that is not an image set.
    """
    if (
        folder.exists()
        and not (folder / CARD_FILE).is_file()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise UserError(
            f"{folder} exists and is not an image set, so it is not replaced; move it away or choose another name"
        )
    if clean:
        for left in folder.parent.glob(f".{folder.name}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        part.chmod(default_mode(0o777))
        yield part
        _swap(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _lock(path: Path) -> int | None:
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass  # the holder before us removed the file when it was done: take a fresh one
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _swap(part: Path, folder: Path) -> None:
    """Rename ``part`` to ``folder``; a folder cannot be renamed onto a full one, so that one steps aside."""
    aside: list[Path] = []
    try:
        for attempt in range(ATTEMPTS):
            try:
                os.replace(part, folder)
                return
            except OSError:
                if attempt == ATTEMPTS - 1:
                    raise
            aside.append(
                Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
            )
            with contextlib.suppress(FileNotFoundError):  # another writer moved it first
                os.replace(folder, aside[-1] / STEPPED_ASIDE)
    finally:
        for (
            left
        ) in aside:  # only now: a reader that finds no folder looks here to know that one is coming
            shutil.rmtree(left, ignore_errors=True)
