"""Prepare a folder of images once: decode, crop, resize, report, and keep the result as an ImageSet.

Legend: images_u8 is n x c x h x w, uint8, 0..255.
"""

import hashlib
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from dcgan_lib.data import image_set as storage
from dcgan_lib.data.decode import (
    FITS,
    SUFFIXES,
    Decoded,
    Fit,
    Framing,
    decode,
    decode_file,
    decoding,
    is_image_file,
)
from dcgan_lib.data.image_set import ImageSet, exclusive, new_folder
from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, data_root


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Hold what was found in a folder.

    Parameters
    ----------
    files : tuple of str
        Paths of image files relative to the folder, with ``/``, in the order of their bytes.
    ignored : dict of str to list of str
        Everything else, by reason.
    fingerprint : str
        SHA-256 of every image file's path, size and time of change.
    """

    files: tuple[str, ...]
    ignored: dict[str, list[str]]
    fingerprint: str

    def in_natural_order(self) -> tuple[str, ...]:
        """Return ``files`` with 2.png before 10.png, folder by folder."""
        return tuple(sorted(self.files, key=natural_key))


@dataclass
class _Walk:
    root: Path
    stats: dict[str, tuple[int, int]] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    folders: set[tuple[int, int]] = field(default_factory=set)

    def ignore(self, reason: str, name: str) -> None:
        self.ignored.setdefault(reason, []).append(name)


def list_images(folder: Path) -> Listing:
    """List the image files under ``folder``, any depth, links followed.

    A file counts when its name ends as an image's does, or when it begins as an image does. Files
    and folders whose names begin with a dot, and ``__MACOSX``, are left out.

    Raises
    ------
    UserError
        When ``folder`` is missing, or holds no image: the message says what it holds.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"expected a folder of images, but {folder} {what}; give the folder that holds the files"
        )
    walk = _Walk(folder)
    _visit(walk, folder, "")
    if not walk.stats:
        raise UserError(_nothing_found(walk))
    entries = json.dumps(list(walk.stats.items())).encode()
    return Listing(
        files=tuple(walk.stats),
        ignored=walk.ignored,
        fingerprint=hashlib.sha256(entries).hexdigest(),
    )


def natural_key(name: str) -> tuple:
    """Return a sorting key that puts ``2.png`` before ``10.png``, folder by folder."""
    parts = []
    for part in name.split("/"):
        pieces = re.split(r"([0-9]+)", part.casefold())
        pieces[1::2] = [int(digits) for digits in pieces[1::2]]
        parts.append(tuple(pieces))
    return tuple(parts), name


def _visit(walk: _Walk, folder: Path, prefix: str) -> None:
    try:
        found = folder.stat()
        if (found.st_dev, found.st_ino) in walk.folders:
            walk.ignore("folder seen before, through a link", prefix)
            return
        walk.folders.add((found.st_dev, found.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        walk.ignore(f"folder cannot be read ({error.strerror})", prefix)
        return
    for entry in entries:
        name = prefix + entry.name
        looks_like_image = os.path.splitext(entry.name)[1].lower() in SUFFIXES
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            walk.ignore("hidden", name)
        elif entry.is_dir():
            if looks_like_image:
                walk.ignore("folder named like an image", name)
            _visit(walk, Path(entry.path), name + "/")
        elif looks_like_image or (entry.is_file() and is_image_file(Path(entry.path))):
            walk.stats[name] = _stat(entry)
        else:
            walk.ignore("not an image by name or content", name)


def _stat(entry: os.DirEntry) -> tuple[int, int]:
    try:
        found = entry.stat()
    except OSError:  # a broken link: decoding will say so
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _nothing_found(walk: _Walk) -> str:
    """Say what a folder without images holds, so that the user sees which mistake it is."""
    names = [name for seen in walk.ignored.values() for name in seen]
    if not names:
        seen = "it is empty"
    else:
        endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in names)
        kinds = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(5))
        seen = f"it holds {len(names)} other files or folders ({kinds}), such as {', '.join(names[:3])}"
    return f"found 0 images in {walk.root}: {seen}; expected files such as .jpg, .png or .webp, in subfolders or not"


BATCH = 32
NOTHING: Mapping[str, Sequence[str]] = {}


@dataclass(kw_only=True)
class Tally:
    """Count what became of each image: positions kept, (position, reason, detail) refused, notes."""

    kept: list[int] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    noted: dict[str, list[int]] = field(default_factory=dict)

    def counts(self, ignored: Mapping[str, Sequence[str]] = NOTHING) -> dict[str, Any]:
        """Count images by what became of them, for the card."""
        return {
            "found": len(self.kept) + len(self.refused),
            "kept": len(self.kept),
            "refused": dict(sorted(Counter(reason for _, reason, _ in self.refused).items())),
            "noted": {note: len(positions) for note, positions in sorted(self.noted.items())},
            "ignored": {reason: len(paths) for reason, paths in sorted(ignored.items())},
        }

    def names(
        self, names: Sequence[str], ignored: Mapping[str, Sequence[str]] = NOTHING
    ) -> dict[str, Any]:
        """Name every file: kept ones in the order of the images, the others with their reasons."""
        return {
            "kept": [names[at] for at in self.kept],
            "refused": [
                {"file": names[at], "reason": reason, "detail": more}
                for at, reason, more in self.refused
            ],
            "noted": {
                note: [names[at] for at in positions]
                for note, positions in sorted(self.noted.items())
            },
            "ignored": dict(ignored),
        }


class NpyWriter:
    """Append images to a .npy file whose length is only known at the end.

    Parameters
    ----------
    path : Path
        The file to make.
    shape : tuple of int
        (channels, height, width) of every image.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.shape, self.count = shape, 0
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115  closed by __exit__
        self._write_header()
        self._start = self._file.tell()

    def __enter__(self) -> "NpyWriter":
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ):
        """Put the true count into the header and close."""
        with self._file:
            self._file.seek(0)
            self._write_header()
            if self._file.tell() != self._start:
                raise RuntimeError("the .npy header changed its length between two counts")

    def append(self, image_u8: np.ndarray) -> None:
        """Write one image of the writer's shape."""
        if image_u8.shape != self.shape or image_u8.dtype != np.uint8:
            raise ValueError(f"expected uint8 {self.shape}, got {image_u8.dtype} {image_u8.shape}")
        self._file.write(np.ascontiguousarray(image_u8).data)
        self.count += 1

    def _write_header(self) -> None:
        # NumPy pads the header so that the first axis can grow without moving the data.
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def stream(
    path: Path,
    decode_one: Callable[[int], Decoded],
    num_images: int,
    *,
    image_size: tuple[int, int],
    channels: int | None,
    num_workers: int | None = None,
    progress: bool = False,
    title: str = "",
) -> Tally:
    """Write images 0 .. ``num_images - 1`` to the .npy file ``path``, in that order.

    Parameters
    ----------
    path : Path
        The file to make.
    decode_one : callable
        Returns the `Decoded` image of one position; called from several threads (decoders release
        the interpreter's lock).
    num_images : int
        How many to decode.
    image_size : tuple of int
        (height, width) of every image.
    channels : {1, 3} or None
        None keeps grey when every image is grey, and RGB otherwise.
    num_workers : int, optional
        Threads; by default one per core that this process may use.
    progress : bool, optional
        Whether a bar goes to standard error.
    title : str, optional
        What the bar is called.

    Returns
    -------
    Tally
        What was kept, refused and noted.
    """
    tally, all_grey = Tally(), True
    results = _in_order(decode_one, num_images, num_workers or _num_cores())
    with decoding(), NpyWriter(path, (channels or 3, *image_size)) as writer, closing(results):
        bar = tqdm(results, total=num_images, desc=title, unit="image", disable=not progress)
        for position, decoded in enumerate(bar):
            for note in decoded.notes:
                tally.noted.setdefault(note, []).append(position)
            if decoded.image_u8 is None:
                tally.refused.append((position, decoded.reason, decoded.detail))
                continue
            all_grey &= len(decoded.image_u8) == 1
            writer.append(with_channels(decoded.image_u8, channels or 3))
            tally.kept.append(position)
    if channels is None and all_grey and tally.kept:
        _keep_first_channel(path)
    return tally


def with_channels(image_u8: np.ndarray, channels: int) -> np.ndarray:
    """Return a c x h x w (or n x c x h x w) image as grey or RGB.

    Grey is Pillow's ITU-R 601 luma, to the last bit.
    """
    axis = image_u8.ndim - 3
    if image_u8.shape[axis] == channels:
        return image_u8
    if channels == 3:
        return np.repeat(image_u8, 3, axis=axis)
    return _luma(image_u8, axis)


def _luma(image_u8: np.ndarray, axis: int) -> np.ndarray:
    red, green, blue = (image_u8.take([index], axis=axis).astype(np.uint32) for index in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def _in_order(
    decode_one: Callable[[int], Decoded], num_images: int, num_workers: int
) -> Generator[Decoded, None, None]:
    """Decode in threads, a bounded number of batches ahead, and yield in order."""

    def run(start: int) -> list[Decoded]:
        return [decode_one(position) for position in range(start, min(start + BATCH, num_images))]

    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
    waiting: deque[Future[list[Decoded]]] = deque()
    try:
        for start in range(0, num_images, BATCH):
            waiting.append(pool.submit(run, start))
            if len(waiting) > 2 * num_workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _keep_first_channel(path: Path) -> None:
    images_u8 = np.load(path, mmap_mode="r", allow_pickle=False)
    narrow = path.with_name("grey.npy")
    with NpyWriter(narrow, (1, *images_u8.shape[2:])) as writer:
        for image_u8 in images_u8:
            writer.append(image_u8[:1])
    os.replace(narrow, path)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    image_size: int | tuple[int, int],
    channels: str | int = "auto",
    fit: Fit = "crop",
    min_side: int | None = None,
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
    if len(pair) != 2 or not all(
        isinstance(side, (int, np.integer)) and 1 <= side <= LARGEST_SIDE for side in pair
    ):
        raise UserError(
            f"image_size must be a side or (height, width), 1..{LARGEST_SIDE} pixels; got {image_size!r}"
        )
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
    return Part(
        names=names, decode_one=decode_one, describe=describe_by(labels, class_names, attributes)
    )


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
    labels: np.ndarray | None,
    class_names: tuple[str, ...] = (),
    attributes: dict[str, np.ndarray] | None = None,
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


def kept_or_made(
    folder: Path, find: Callable[[], ImageSet | None], fill: Callable[[Path], None]
) -> ImageSet:
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
    except (
        OSError
    ) as error:  # bad sources are told otherwise: this is the cache, full or not ours to write
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
        raise UserError(
            f"none of the {len(part.names)} images of {name} could be used: {report['refused']}"
        )
    atomic_write(folder / REPORT_FILE, json.dumps(tally.names(part.names, part.ignored), indent=0))
    kept = np.array(tally.kept)
    ends = {
        split: (start, len(part.names) if stop is None else stop)
        for split, (start, stop) in splits.items()
    }
    spans = {split: np.searchsorted(kept, end).tolist() for split, end in ends.items()}
    counts = {
        "images": len(kept),
        **{split: stop - start for split, (start, stop) in spans.items()},
    }
    card = {
        **card,
        "counts": counts,
        "splits": spans,
        "preparation": settings.as_card(),
        "report": report,
    }
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
        raise UserError(
            f"a prepared set's name holds letters, digits, '_', '-' and '.'; got {name!r}"
        )
    if (limit is not None and limit < 1) or not 0.0 <= held_out < 1.0:
        raise UserError(
            f"limit must be at least 1 and held_out in [0, 1); got {limit!r} and {held_out!r}"
        )
    listing = list_images(source)
    wanted = {
        "fingerprint": listing.fingerprint,
        "limit": limit,
        "held_out": held_out,
        "preparation": settings.as_card(),
    }

    def fill(part_folder: Path) -> None:
        files, num_train = _rows_in_order(listing, limit, held_out)
        part = Part(
            names=files,
            decode_one=lambda position, framing: decode_file(source / files[position], framing),
            describe=partial(_describe, files),
            ignored=listing.ignored,
        )
        whence = {
            "source": f"the folder {source.resolve().name!r}",
            "licence": "that of the folder's images",
        }
        card = {**whence, **(about or {}), **wanted}
        splits = {"train": (0, num_train), "validation": (num_train, None)}
        fill_folder(
            part_folder,
            name,
            part,
            splits,
            settings,
            card,
            num_workers=num_workers,
            progress=progress,
        )

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
    changes = [
        f"{key} {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key]
    ]
    told = [change for change in changes if not change.startswith(("preparation", "fingerprint"))]
    what = "; ".join(told) or "the folder's files have come, gone or changed since"
    raise UserError(
        f"{folder} was prepared otherwise ({what}); allow it to be overwritten or choose another name"
    )


def _rows_in_order(listing: Listing, limit: int | None, held_out: float) -> tuple[list[str], int]:
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
        raise UserError(
            f"{folder} has the splits {', '.join(inner)}, one folder each; got {split!r}"
        )
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
    found = {
        split: path
        for split, names in SPLIT_FOLDERS.items()
        for path in inner
        if path.name.casefold() in names
    }
    return found if "train" in found and len(found) == len(inner) > 1 else {}


def _cache_name(name: str, folder: Path, settings: Settings) -> str:
    """Name the cached folder by settings and place; a place inside the data folder may move with it."""
    place, root = folder.resolve(), data_root().resolve()
    place_name = (
        place.relative_to(root).as_posix() if place.is_relative_to(root) else place.as_posix()
    )
    digest = hashlib.sha256(json.dumps([settings.as_card(), place_name]).encode()).hexdigest()[:8]
    plain = (
        "".join(letter if storage.is_plain_name("_" + letter) else "_" for letter in name).lstrip(
            ".-"
        )
        or "folder"
    )
    height, width = settings.image_size
    return f"{plain}.{height}x{width}.{digest}"
