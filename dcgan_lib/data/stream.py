"""Decode images in parallel, in order, straight into an images.npy that may exceed the memory.

Legend: image_u8 is c x h x w, uint8, 0..255.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.decode import Decoded, decoding

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

    def names(self, names: Sequence[str], ignored: Mapping[str, Sequence[str]] = NOTHING) -> dict[str, Any]:
        """Name every file: kept ones in the order of the images, the others with their reasons."""
        return {
            "kept": [names[at] for at in self.kept],
            "refused": [{"file": names[at], "reason": reason, "detail": more} for at, reason, more in self.refused],
            "noted": {note: [names[at] for at in positions] for note, positions in sorted(self.noted.items())},
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

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
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
