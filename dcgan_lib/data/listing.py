"""Find the images of a folder, a tar archive or an LMDB: what each is called, and how to read it.

What an archive holds is never unpacked to paths: a name only says a class and a split, and what the
report calls the image. Nothing here keeps more than a few bytes of memory an image.
"""

import gzip
import hashlib
import heapq
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from dcgan_lib.data.decode import (
    Decoded,
    Framing,
    decode_bytes,
    decode_file,
    decoding,
    holds_image,
    named_like_image,
)
from dcgan_lib.errors import UserError
from dcgan_lib.paths import data_root

BLOCK = 128  # values that are packed together, and blocks that are kept unpacked
SORTED_AT_ONCE = 2**13
HEAD_BYTES = 2**16  # that tell what a member is whose name does not


class Packed(Sequence):
    """Hold many values of JSON, such as names, in a few bytes each: compressed, block by block."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._last: list[Any] = []
        self._values = lru_cache(BLOCK)(lambda at: json.loads(zlib.decompress(self._blocks[at])))

    def append(self, value: Any) -> None:
        """Add a value; a tuple may come back as a list."""
        self._last.append(value)
        if len(self._last) == BLOCK:
            self._blocks.append(zlib.compress(json.dumps(self._last).encode(), 1))
            self._last = []

    def __len__(self) -> int:
        return len(self._blocks) * BLOCK + len(self._last)

    def __getitem__(self, at: int) -> Any:
        if not 0 <= at < len(self):
            raise IndexError(at)
        block, place = divmod(int(at), BLOCK)
        return (self._values(block) if block < len(self._blocks) else self._last)[place]


@dataclass(frozen=True, eq=False)
class Chosen(Sequence):
    """Give ``value(row)`` for each of some rows, each time that it is asked for."""

    value: Callable[[int], Any]
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Any:
        return self.value(self.rows[at])


def in_order(values: Sequence[Any], key: Callable[[Any], Any]) -> np.ndarray:
    """Return the rows of values in the order of their keys, few of which are held at a time: int32.

    Half the usual width, as these rows are most of what a long list takes in memory.
    """

    def key_of(row: int) -> Any:
        return key(values[row])

    pieces = [
        array("i", sorted(range(start, min(start + SORTED_AT_ONCE, len(values))), key=key_of))
        for start in range(0, len(values), SORTED_AT_ONCE)
    ]
    return np.fromiter(heapq.merge(*pieces, key=key_of), np.int32, len(values))


def natural_key(name: str) -> tuple:
    """Return a sorting key that puts ``2.png`` before ``10.png``, folder by folder."""
    pieces = (re.split("([0-9]+)", part.casefold()) for part in name.split("/"))
    key = [[int(p) if at % 2 else p for at, p in enumerate(part)] for part in pieces]
    return key, name


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """Hold what was found."""

    kind: str
    """``folder``, ``archive`` or ``database``."""
    names: Sequence[str]
    """Paths with ``/``, in natural order (of a database: its keys, in its own)."""
    decode_one: Callable[[int, Framing], Decoded]
    """From a position among the names and the framing; called from several threads."""
    ignored: dict[str, Sequence[str]]
    fingerprint: str
    """SHA-256 of every image file's path, size and time of change; else of the one file's."""


def list_images(source: Path) -> Listing:
    """List the images of a folder, a tar archive (also packed by gzip) or an LMDB's folder.

    A file or member counts when its name ends, or its content begins, as an image's does. Names
    that begin with a dot, and ``__MACOSX``, are left out.
    """
    if source.is_file():
        return _list_archive(source)
    if not source.is_dir():
        raise UserError(
            f"expected a folder of images, but {source} does not exist; "
            "give the folder that holds the files"
        )
    if not (source / "data.mdb").is_file():
        return _list_folder(source)
    try:
        return list_database(source)
    except OSError as error:
        raise UserError(f"{source} is no sound LMDB ({error}): fetch or make it again") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _list_folder(folder: Path) -> Listing:
    """List the image files under ``folder``, any depth, links followed."""
    found, ignored = Packed(), defaultdict(Packed)
    seen: set[tuple[int, int]] = set()

    def inside(path: str) -> str:
        return os.path.relpath(path, folder).replace(os.sep, "/")

    def cannot_read(error: OSError) -> None:
        ignored[f"folder cannot be read ({error.strerror})"].append(inside(error.filename))

    with decoding():
        for place, folders, names in os.walk(folder, followlinks=True, onerror=cannot_read):
            prefix = "" if Path(place) == folder else inside(place) + "/"
            state = os.stat(place)
            if (state.st_dev, state.st_ino) in seen:
                ignored["folder seen before, through a link"].append(prefix)
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            is_folder = set(folders)
            for name in sorted(folders + names):
                path = Path(place, name)
                if _is_hidden(name):
                    ignored["hidden"].append(prefix + name)
                elif name in is_folder:
                    if named_like_image(name):
                        ignored["folder named like an image"].append(prefix + name)
                elif named_like_image(name) or (path.is_file() and holds_image(path)):
                    found.append((prefix + name, file_state(path)))
                else:
                    ignored["not an image by name or content"].append(prefix + name)
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
    _check_found(folder, found, ignored)
    rows = in_order(found, lambda entry: natural_key(entry[0]))
    names = Chosen(lambda row: found[row][0], rows)
    return Listing(
        kind="folder",
        names=names,
        decode_one=lambda at, framing: decode_file(folder / names[at], framing),
        ignored=dict(ignored),
        fingerprint=_fingerprint(found),
    )


def _fingerprint(found: Sequence[Any]) -> str:
    """Return the SHA-256 of the JSON of all entries, in the order of their folders' names."""
    digest = hashlib.sha256(b"[")
    rows = in_order(found, lambda entry: entry[0].split("/"))
    for number, row in enumerate(rows):
        digest.update((", " if number else "").encode() + json.dumps(found[row]).encode())
    digest.update(b"]")
    return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Return a file's size and time of change, -1 for a broken link: decoding will name it."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _check_found(source: Path, found: Sequence[Any], ignored: dict[str, Sequence[str]]) -> None:
    if len(found):
        return
    others = [name for names in ignored.values() for name in names]
    seen = "it is empty"
    if others:
        endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in others)
        kinds = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(5))
        seen = f"it holds {len(others)} other files or folders ({kinds}), such as "
        seen += ", ".join(others[:3])
    raise UserError(
        f"found 0 images in {source}: {seen}; "
        "expected files such as .jpg, .png or .webp, in subfolders or not"
    )


# ---------------------------------------------------------------- one file that holds many


def _state_of_one(path: Path) -> str:
    return hashlib.sha256(json.dumps(file_state(path)).encode()).hexdigest()


def _list_archive(path: Path) -> Listing:
    """List a tar's members; where each lies is kept, so that threads can read them in any order."""
    found, ignored = Packed(), defaultdict(Packed)
    file = _open_tar(path)
    try:
        file.seek(0)
        with decoding(), tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0:
                    raise tarfile.ReadError("a member's size is below zero")  # it would go round
                tar.members.clear()  # or tarfile would keep every member
                _sort_in(member, file, found, ignored)
            file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops without a word
            raise tarfile.ReadError("it is cut off or damaged: the mark of its end is missing")
    # tarfile lets out whatever a hostile header brings; a damaged archive is one sentence.
    except Exception as error:
        file.close()
        raise UserError(
            f"{path} is a file, but no sound tar archive ({error}): give a folder of images, a "
            ".tar or .tar.gz that is whole, or an LMDB's folder"
        ) from error
    _check_found(path, found, ignored)
    first = found[0][0].split("/")[0] + "/"  # what the members lie in, unless they lie in several
    cut = len(first) if all(name.startswith(first) for name, *_ in found) else 0
    rows = in_order(found, lambda entry: natural_key(entry[0]))
    names, lock = Chosen(lambda row: found[row][0][cut:], rows), threading.Lock()

    def decode_one(at: int, framing: Framing) -> Decoded:
        name, start, size = found[rows[at]]
        with lock:
            file.seek(start)
            raw = file.read(size)
        return decode_bytes(raw, framing, suffix=os.path.splitext(name)[1].lower())

    return Listing(
        kind="archive",
        names=names,
        decode_one=decode_one,
        ignored=dict(ignored),
        fingerprint=_state_of_one(path),
    )


def _open_tar(path: Path) -> IO[bytes]:
    """Open an archive; one packed by gzip, in which no place can be found, unpacked without a name.

    That copy lies in the data folder, and ends with the process.
    """
    file = open(path, "rb")  # noqa: SIM115
    if file.read(2) != b"\x1f\x8b":
        return file
    file.close()
    data_root().mkdir(parents=True, exist_ok=True)
    plain = tempfile.TemporaryFile(dir=data_root())  # noqa: SIM115
    try:
        with gzip.open(path) as packed:
            shutil.copyfileobj(packed, plain, 2**20)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        plain.close()
        raise UserError(f"{path} cannot be unpacked ({error}): fetch or make it again") from error
    return plain


def _sort_in(
    member: tarfile.TarInfo, file: IO[bytes], found: Packed, ignored: dict[str, Packed]
) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    if member.isdir():
        return
    if not member.isreg() or member.sparse is not None:
        ignored["link, device or sparse file"].append(name)
    elif any(map(_is_hidden, parts)):  # also "..", so that no name leads out of the archive
        ignored["hidden"].append(name)
    elif named_like_image(name) or holds_image(_head_of(member, file)):
        found.append((name, member.offset_data, member.size))
    else:
        ignored["not an image by name or content"].append(name)


def _head_of(member: tarfile.TarInfo, file: IO[bytes]) -> IO[bytes]:
    file.seek(member.offset_data)
    return io.BytesIO(file.read(min(member.size, HEAD_BYTES)))


def list_database(folder: Path) -> Listing:
    """List an LMDB whose values are encoded images, as LSUN comes; every key counts.

    Raises
    ------
    OSError
        If the folder holds none, or a damaged one.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError(
            "LSUN is an LMDB database, which needs the lmdb package: run pip install lmdb"
        ) from error
    keys = Packed()
    try:
        database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        with database.begin() as reading:
            for key in reading.cursor().iternext(keys=True, values=False):
                keys.append(key.decode("utf-8", "surrogateescape"))
    except lmdb.Error as error:
        raise OSError(str(error)) from error
    _check_found(folder, keys, {})

    def decode_one(at: int, framing: Framing) -> Decoded:
        with database.begin() as reading:
            raw = reading.get(keys[at].encode("utf-8", "surrogateescape"))
        return decode_bytes(raw, framing)

    return Listing(
        kind="database",
        names=keys,
        decode_one=decode_one,
        ignored={},
        fingerprint=_state_of_one(folder / "data.mdb"),
    )
