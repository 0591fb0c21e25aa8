"""The one form in which every image set reaches the rest of the library, in memory and on disk.

Legend: n images, c channels (1 or 3), h x w pixels; ``images_u8`` is n x c x h x w, uint8, 0..255.
"""

import contextlib
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, exclusive, new_in_place_of, read_json

FORMAT = "dcgan_lib image set 1"
CARD_FILE, IMAGES_FILE = "card.json", "images.npy"
LABELS_FILE, ATTRIBUTES_FILE = "labels.npy", "attributes.npz"
ATTRIBUTE_DTYPES = (np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.float32))
HASH_ROWS = 4096


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageSet:
    """Hold images of one size with their labels, attributes and card; refuse what does not fit."""

    name: str
    images_u8: np.ndarray
    """n x c x h x w, n >= 1; in memory or a read-only memory map; copied unless C-contiguous."""
    labels: np.ndarray | None = None
    """n, int64, each in 0 .. ``len(class_names) - 1``; None when the set has no classes."""
    class_names: tuple[str, ...] = ()
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    """Ground truth per image: bool, int64 or float32, first axis n (boxes are n x 4 float32, left,
    top, right, bottom in pixels, NaN where the object is absent)."""
    card: dict[str, Any] = field(default_factory=dict)
    """Source, licence, counts, preparation, report and digest, as JSON can hold them."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"an image set needs a name, a non-empty string; got {self.name!r}")
        self._check_images()
        if not self.images_u8.flags.c_contiguous:
            object.__setattr__(self, "images_u8", np.ascontiguousarray(self.images_u8))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        self._check_labels()
        for key, values in self.attributes.items():
            self._require(
                isinstance(key, str) and is_plain_name(key),
                "an attribute's name holds letters, digits, '_', '-' and '.'",
                repr(key),
            )
            rows = (
                f"attribute {key!r} must be bool, int64 or float32, one row per image, {len(self)}"
            )
            valid = isinstance(values, np.ndarray) and values.dtype in ATTRIBUTE_DTYPES
            self._require(valid and values.shape[:1] == (len(self),), rows, values)

    def _require(self, holds: bool, what: str, came: Any) -> None:
        if not holds:
            if isinstance(came, np.ndarray):
                came = f"{came.dtype} of shape {came.shape}"
            elif not isinstance(came, str):
                came = type(came).__name__
            raise UserError(f"{self.name}: {what}; got {came}")

    def _check_images(self) -> None:
        images = self.images_u8
        is_u8 = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
        self._require(is_u8, "images must be a uint8 array, n x c x h x w", images)
        self._require(images.shape[1] in (1, 3), "images need 1 or 3 channels on axis 1", images)
        self._require(images.size > 0, "an image set holds at least one image of one pixel", images)

    def _check_labels(self) -> None:
        labels, num_classes = self.labels, len(self.class_names)
        if labels is None:
            self._require(
                not num_classes,
                "class names need labels; give both or neither",
                f"{num_classes} names",
            )
            return
        valid = isinstance(labels, np.ndarray) and labels.dtype == np.int64
        shape = (len(self),)
        self._require(valid and labels.shape == shape, f"labels must be int64 of {shape}", labels)
        low, high = int(labels.min()), int(labels.max())
        self._require(
            low >= 0 and high < num_classes,
            f"labels must lie in 0..{num_classes - 1}, one per class name",
            f"{low}..{high}",
        )

    def __len__(self) -> int:
        return self.images_u8.shape[0]

    def __repr__(self) -> str:
        """Return one line that is the same on every machine."""
        shape = " x ".join(str(extent) for extent in self.images_u8.shape)
        classes = f", {self.num_classes} classes" if self.class_names else ""
        attributes = f", attributes: {', '.join(self.attributes)}" if self.attributes else ""
        return f"ImageSet({self.name}: {shape} uint8{classes}{attributes})"

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
        """Return the images at positions, or where a mask holds, with their labels and attributes.

        A slice, or positions that rise one by one, gives a view (a memory map stays one); anything
        else copies. The result's card lacks the digest and the split table, which no longer hold.
        """
        rows = self._rows(indices)
        return replace(
            self,
            name=name or self.name,
            images_u8=self.images_u8[rows],
            labels=None if self.labels is None else self.labels[rows],
            attributes={key: values[rows] for key, values in self.attributes.items()},
            card={
                key: value for key, value in self.card.items() if key not in ("digest", "splits")
            },
        )

    def _rows(self, indices: slice | Sequence[int] | np.ndarray) -> slice | np.ndarray:
        """Return a slice where that is possible, so that a memory map is not copied."""
        num = len(self)
        rows = np.arange(num)[indices] if isinstance(indices, slice) else np.asarray(indices)
        if rows.dtype == np.bool_ and rows.shape == (num,):
            rows = np.flatnonzero(rows)
        valid = rows.ndim == 1 and rows.size > 0 and np.issubdtype(rows.dtype, np.integer)
        what = f"choose images by a non-empty list of positions or a mask of length {num}"
        self._require(valid, what, rows)
        low, high = int(rows.min()), int(rows.max())
        self._require(
            low >= 0 and high < num, f"positions must lie in 0..{num - 1}", f"{low}..{high}"
        )
        if high - low + 1 == rows.size and (np.diff(rows) == 1).all():
            return slice(low, high + 1)
        return rows

    def split(self, fraction: float, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """Split at random into (rest, held-out), in the set's order, at least one image in each."""
        self._require(
            0.0 < fraction < 1.0 and len(self) > 1,
            "a split needs a fraction inside (0, 1) and at least 2 images",
            f"{fraction!r} of {len(self)} images",
        )
        num_held = min(max(round(len(self) * fraction), 1), len(self) - 1)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.subset(np.sort(order[num_held:])), self.subset(np.sort(order[:num_held]))

    def save(self, folder: str | Path) -> "ImageSet":
        """Write the set as a folder, whole or not at all, and return it memory-mapped.

        An image set that already lies there is replaced; anything else is refused.
        """
        with new_folder(Path(folder)) as part:
            np.save(part / IMAGES_FILE, self.images_u8, allow_pickle=False)
            seal(part, self.name, self.class_names, self.labels, self.attributes, self.card)
        return ImageSet.load(folder)

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> "ImageSet":
        """Open a saved set; the images stay on disk as a read-only memory map.

        Raise UserError where a file does not match the card: in name, size, type or shape, and with
        ``verify`` also in its digest, for which everything is read.
        """
        folder = Path(folder)
        while True:  # once more where the set was replaced meanwhile: two states are never mixed
            before = _state(folder)
            if before is None:
                _read_card(folder)  # says what is missing, unless the set has just come
                continue
            try:
                fields = _read(folder, verify)
            except UserError:
                if _state(folder) == before:
                    raise
            else:
                if _state(folder) == before:
                    return cls(**fields)


def is_plain_name(name: str) -> bool:
    """Say whether a name holds only letters and digits of any script, ``_``, ``-`` and ``.``.

    The first is neither ``-`` nor ``.``: it is no option and no hidden file.
    """
    plain = (letter in "_-." or unicodedata.category(letter)[0] in "LMN" for letter in name)
    return name[:1] not in ("", "-", ".") and all(plain)


@contextlib.contextmanager
def new_folder(folder: Path, *, resume: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes ``folder``'s place in the end, unless it stays empty.

    A second process waits. What a killed one left is never opened, and removed by the next, or with
    ``resume`` given to it. A ``folder`` that holds something other than an image set is refused.
    """
    try:
        with exclusive(folder):
            is_empty = folder.is_dir() and not any(folder.iterdir())
            if folder.exists() and not is_empty and not (folder / CARD_FILE).is_file():
                raise UserError(
                    f"{folder} exists and is not an image set, so it is not replaced; "
                    "move it away or choose another name"
                )
            with new_in_place_of(folder, resume=resume) as part:
                yield part
    except OSError as error:  # what is read answers for itself: the disk is full or not ours
        raise UserError(
            f"cannot write {folder} ({error.strerror or error}); "
            "set DCGAN_DATA to a folder with room, open to writing"
        ) from error


def seal(
    part: Path,
    name: str,
    class_names: tuple[str, ...],
    labels: np.ndarray | None,
    attributes: dict[str, np.ndarray],
    card: dict[str, Any],
) -> None:
    """Complete a folder that already holds images.npy: labels, attributes and, last, the card."""
    arrays = {"images": np.load(part / IMAGES_FILE, mmap_mode="r", allow_pickle=False)}
    if labels is not None:
        np.save(part / LABELS_FILE, labels, allow_pickle=False)
        arrays["labels"] = labels
    if attributes:
        np.savez(part / ATTRIBUTES_FILE, **attributes)
        arrays |= {f"attributes/{key}": values for key, values in attributes.items()}
    entries = {
        key: {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": array_digest(array)}
        for key, array in arrays.items()
    }
    digest = hashlib.sha256(json.dumps([class_names, entries], sort_keys=True).encode()).hexdigest()
    files = {path.name: path.stat().st_size for path in sorted(part.glob("[!.]*"))}
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
    for file_name in files:  # onto the disk, so that the rename cannot overtake them
        with open(part / file_name, "rb+") as file:
            os.fsync(file.fileno())
    atomic_write(part / CARD_FILE, text + "\n")


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and bytes, read piece by piece."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for start in range(0, len(array), HASH_ROWS):
        digest.update(np.ascontiguousarray(array[start : start + HASH_ROWS]).data)
    return digest.hexdigest()


def _state(folder: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = (folder / CARD_FILE).stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _read_card(folder: Path) -> Any:
    return read_json(
        folder / CARD_FILE,
        f"{folder} is not a prepared image set, or a damaged one; prepare it again",
    )


def _read(folder: Path, verify: bool) -> dict[str, Any]:
    """Return the fields of the set in ``folder``, after checking its files against its card."""
    record = _read_card(folder)
    fields = {"name", "class_names", "arrays", "files", "card"}
    if not isinstance(record, dict) or record.get("format") != FORMAT or fields - record.keys():
        raise _damaged(folder, f"{CARD_FILE} is of another format than {FORMAT!r}")
    try:
        arrays = _read_arrays(folder, record["files"])
        came = {key: [array.dtype.str, list(array.shape)] for key, array in arrays.items()}
        listed = {key: [entry["dtype"], entry["shape"]] for key, entry in record["arrays"].items()}
        if came != listed:
            raise ValueError(f"the card lists {listed}, and the files hold {came}")
        for key, array in arrays.items():
            if verify and array_digest(array) != record["arrays"][key]["sha256"]:
                raise ValueError(f"the bytes of {key} are not those the card was written for")
        return {
            "name": record["name"],
            "images_u8": arrays.pop("images"),
            "labels": arrays.pop("labels", None),
            "class_names": tuple(record["class_names"]),
            "attributes": {key.removeprefix("attributes/"): arrays[key] for key in arrays},
            "card": dict(record["card"]),
        }
    # A damaged file fails in any of a dozen ways: NumPy lets Python's tokenizer read its headers.
    except Exception as error:
        raise _damaged(folder, " ".join(f"{error}".split())) from error


def _read_arrays(folder: Path, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    for file_name, size in sizes.items():
        came = (folder / file_name).stat().st_size
        if came != size:
            raise ValueError(f"{file_name} should be {size} bytes and is {came}")
    arrays = {"images": np.load(folder / IMAGES_FILE, mmap_mode="r", allow_pickle=False)}
    if LABELS_FILE in sizes:
        arrays["labels"] = np.load(folder / LABELS_FILE, allow_pickle=False)
    if ATTRIBUTES_FILE in sizes:
        with np.load(folder / ATTRIBUTES_FILE, allow_pickle=False) as stored:
            arrays |= {f"attributes/{key}": values for key, values in stored.items()}
    return arrays


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(
        f"the prepared image set {folder} is damaged: {why}; "
        "delete that folder and prepare it again"
    )
