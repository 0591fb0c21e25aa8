"""Find the image files of a folder, in an order that is the same on every machine."""

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dcgan_lib.data.decode import SUFFIXES, is_image_file
from dcgan_lib.errors import UserError


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
        raise UserError(f"expected a folder of images, but {folder} {what}; give the folder that holds the files")
    walk = _Walk(folder)
    _visit(walk, folder, "")
    if not walk.stats:
        raise UserError(_nothing_found(walk))
    entries = json.dumps(list(walk.stats.items())).encode()
    return Listing(files=tuple(walk.stats), ignored=walk.ignored, fingerprint=hashlib.sha256(entries).hexdigest())


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
