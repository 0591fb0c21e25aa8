"""How an image set lies on disk: images.npy, labels.npy, attributes.npz and card.json in one folder.

The card is written last and names every file's size and every array's shape and digest, so a folder
without a card, or at odds with it, is never believed.
"""

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write

FORMAT = "dcgan_lib image set 1"
CARD_FILE, IMAGES_FILE, LABELS_FILE, ATTRIBUTES_FILE = "card.json", "images.npy", "labels.npy", "attributes.npz"
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
            steps_aside = before is None and any(folder.parent.glob(f".{folder.name}.*.part/{STEPPED_ASIDE}"))
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
    return found.st_dev, found.st_ino, found.st_ctime_ns  # numbers of deleted folders are used again


def _read(folder: Path, verify: bool) -> dict[str, Any]:
    record = read_record(folder)
    for file_name, size in record["files"].items():
        path = folder / file_name
        came = path.stat().st_size if path.is_file() else None
        if came != size:
            raise _damaged(folder, f"{file_name} should be {size} bytes and is {'missing' if came is None else came}")
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
        "attributes": {k.removeprefix("attributes/"): v for k, v in arrays.items() if k.startswith("attributes/")},
        "card": record["card"],
    }


def read_record(folder: Path) -> dict[str, Any]:
    """Return the parsed card.json of a saved set without opening its arrays."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a prepared image set: it has no {CARD_FILE}; prepare it again")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["format"] == FORMAT and {"name", "class_names", "arrays", "files", "card"} <= record.keys()
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"{CARD_FILE} cannot be read ({error})") from error
    if not known or "images" not in record["arrays"]:
        raise _damaged(folder, f"{CARD_FILE} is of another format than {FORMAT!r}")
    return record


def _entry(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": array_digest(array)}


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"the prepared image set {folder} is damaged: {why}; delete that folder and prepare it again")


def _compare(folder: Path, entries: dict[str, Any], arrays: dict[str, np.ndarray], verify: bool) -> None:
    if entries.keys() != arrays.keys():
        raise _damaged(folder, f"the card lists {sorted(entries)} and the files hold {sorted(arrays)}")
    for key, entry in entries.items():
        array = arrays[key]
        if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
            raise _damaged(folder, f"{key} is {array.dtype.str} {list(array.shape)}, not as on the card")
        if verify and array_digest(array) != entry["sha256"]:
            raise _damaged(folder, f"the bytes of {key} are not those the card was written for")
