"""The one form in which every image set reaches the rest of the library.

Legend: n images, c channels (1 or 3), h x w pixels; ``images_u8`` is n x c x h x w, uint8, 0..255.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.data import folders, storage
from dcgan_lib.errors import UserError

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

    def subset(self, indices: slice | Sequence[int] | np.ndarray, name: str | None = None) -> "ImageSet":
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
        with folders.exclusive(folder) as alone:
            with folders.new_folder(folder, clean=alone) as part:
                np.save(part / storage.IMAGES_FILE, self.images_u8, allow_pickle=False)
                storage.seal(part, self.name, self.class_names, self.labels, self.attributes, self.card)
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
        return cls(**storage.read(Path(folder), verify=verify))


def _check_images(name: str, images_u8: np.ndarray) -> None:
    if not isinstance(images_u8, np.ndarray) or images_u8.dtype != np.uint8 or images_u8.ndim != 4:
        came = getattr(images_u8, "dtype", type(images_u8).__name__), getattr(images_u8, "shape", "no shape")
        raise UserError(f"{name}: images must be a uint8 array, n x c x h x w; got {came[0]}, {came[1]}")
    num, channels, height, width = images_u8.shape
    if channels not in (1, 3):
        raise UserError(f"{name}: images need 1 or 3 channels on axis 1; got {channels} in shape {images_u8.shape}")
    if min(num, height, width) < 1:
        raise UserError(f"{name}: an image set holds at least one image of one pixel; got shape {images_u8.shape}")


def _check_labels(name: str, labels: np.ndarray | None, class_names: tuple[str, ...], num_images: int) -> None:
    if labels is None:
        if class_names:
            raise UserError(f"{name}: {len(class_names)} class names came without labels; give both or neither")
        return
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (num_images,):
        came = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", "no shape")
        raise UserError(f"{name}: labels must be int64 of shape ({num_images},); got {came[0]}, {came[1]}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise UserError(f"{name}: labels must lie in 0..{len(class_names) - 1}, one per class name; got {low}..{high}")


def _check_attribute(name: str, key: str, values: np.ndarray, num_images: int) -> None:
    if not isinstance(key, str) or not storage.is_plain_name(key):
        raise UserError(f"{name}: an attribute's name holds letters, digits, '_', '-' and '.'; got {key!r}")
    if not isinstance(values, np.ndarray) or values.dtype not in ATTRIBUTE_DTYPES:
        came = getattr(values, "dtype", type(values).__name__)
        raise UserError(f"{name}: attribute {key!r} must be an array of bool, int64 or float32; got {came}")
    if values.ndim < 1 or values.shape[0] != num_images:
        raise UserError(f"{name}: attribute {key!r} needs one row per image, {num_images}; got shape {values.shape}")


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
