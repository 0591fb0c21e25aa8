"""Make a folder appear whole or not at all, with one writer at a time across processes."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dcgan_lib.data.storage import CARD_FILE, STEPPED_ASIDE
from dcgan_lib.errors import UserError
from dcgan_lib.paths import default_mode

try:
    import fcntl
except ImportError:  # Windows: new folders are still unique, only the waiting for one another is lost
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
            path.unlink(missing_ok=True)  # before the lock is dropped: a waiter then sees that it is gone
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
    if folder.exists() and not (folder / CARD_FILE).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
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
            aside.append(Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part")))
            with contextlib.suppress(FileNotFoundError):  # another writer moved it first
                os.replace(folder, aside[-1] / STEPPED_ASIDE)
    finally:
        for left in aside:  # only now: a reader that finds no folder looks here to know that one is coming
            shutil.rmtree(left, ignore_errors=True)
