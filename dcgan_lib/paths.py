"""Where things lie on disk, and how files are read, replaced and held by one process."""

import errno
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from dcgan_lib.errors import HeldElsewhereError, UserError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def repository_root() -> Path:
    """Return the folder that holds ``dcgan_lib``; in a checkout, also ``data``."""
    return Path(__file__).resolve().parent.parent


def data_root() -> Path:
    """Return ``$DCGAN_DATA``, else a checkout's ``data/cache``, else the user's cache folder."""
    chosen = os.environ.get("DCGAN_DATA")
    if chosen:
        return Path(chosen).expanduser()
    if (repository_root() / "data").is_dir():
        return repository_root() / "data" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcgan"


def checkpoints_root() -> Path:
    """Return the committed checkpoints' folder: ``$DCGAN_CHECKPOINTS`` or ``data/checkpoints``."""
    return Path(os.environ.get("DCGAN_CHECKPOINTS") or repository_root() / "data" / "checkpoints")


def results_root() -> Path:
    """Return the folder of the claims ledger: ``$DCGAN_RESULTS``, or ``data/results``."""
    return Path(os.environ.get("DCGAN_RESULTS") or repository_root() / "data" / "results")


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds; the UserError about a bad one ends with ``remedy``."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy}") from error


def write_json(path: Path, content: Any) -> None:
    """Write plain values as an indented JSON file, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one, never a part.

    Nothing is asked of the file system but to create and to rename: some refuse chmod.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def reserve(path: Path) -> None:
    """Let the disk give a file the room that it claims, where the system can.

    A file that is mapped takes its room page by page, and where a page finds none, the system kills
    the process without a word. Asked for at once, a lack of room is an OSError.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


@contextmanager
def new_in_place_of(folder: Path, *, resume: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` if nothing goes wrong meanwhile.

    Otherwise, or where nothing is put into it, ``folder`` stays as it is. What a killed process
    left is removed by the next; with ``resume``, that one finds it, also after an interrupt or on a
    disk that was full.
    """
    part, old = (folder.with_name(f".{folder.name}.{state}") for state in ("part", "old"))
    _put_back(folder, old)
    if not resume:
        shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, exist_ok=resume)
    stays = False
    try:
        yield part
        if any(part.iterdir()):
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
    except (KeyboardInterrupt, OSError):
        stays = resume
        raise
    finally:
        _put_back(folder, old)
        if not stays:
            shutil.rmtree(part, ignore_errors=True)


def _put_back(folder: Path, old: Path) -> None:
    """Undo the first of two renamings where the second was not reached; then ``old`` can go."""
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file or folder against other processes; the lock beside it ends with its process.

    Without ``wait``, one that is held already gives a HeldElsewhereError that names its holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder, place = (path.with_name(f".{path.name}.{end}") for end in ("holder", "lock"))
    lock, timeout = FileLock(place), -1 if wait else 0
    try:
        try:
            lock.acquire(timeout=timeout)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            # where the file system has no locks, a file stands for one; never the one just made
            lock = SoftFileLock(place.with_suffix(".held"))
            lock.acquire(timeout=timeout)
    except Timeout as error:
        who = holder.read_text() if holder.is_file() else "another process"
        raise HeldElsewhereError(
            f"{path} is held by {who}: wait until it ends, or choose another folder"
        ) from error
    try:
        now = datetime.now()
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now:%F %T}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
