"""Where things lie on disk, and how files are read and replaced so that no part is believed."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from dcgan_lib.errors import UserError


def repository_root() -> Path:
    """Return the folder that holds ``dcgan_lib``; in a checkout, also ``data``."""
    return Path(__file__).resolve().parent.parent


def data_root() -> Path:
    """Return the folder of image sets: ``$DCGAN_DATA``, a checkout's ``data/cache``, or a cache."""
    chosen = os.environ.get("DCGAN_DATA")
    if chosen:
        return Path(chosen).expanduser()
    if (repository_root() / "data").is_dir():
        return repository_root() / "data" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcgan"


def checkpoints_root() -> Path:
    """Return the committed checkpoints' folder: ``$DCGAN_CHECKPOINTS``, or ``data/checkpoints``."""
    return Path(os.environ.get("DCGAN_CHECKPOINTS") or repository_root() / "data" / "checkpoints")


def results_root() -> Path:
    """Return the folder of the claims ledger: ``$DCGAN_RESULTS``, or ``data/results``."""
    return Path(os.environ.get("DCGAN_RESULTS") or repository_root() / "data" / "results")


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    UserError
        If it cannot be read or is damaged; the sentence ends with ``remedy``, what to do about it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy}") from error


def default_mode(mode: int = 0o666) -> int:
    """Return the permissions that a plainly made file (0o666) or folder (0o777) gets here.

    `tempfile` makes private ones; what is renamed into place should look like any other file.
    """
    mask = os.umask(0o077)  # there is no way to read it but to set it
    os.umask(mask)
    return mode & ~mask


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write so that a reader, or a crash, sees the old file or the new one, never a part.

    Parameters
    ----------
    path : Path
        The file to write; its folder is made when missing.
    content : bytes or str
        The whole new content; text is stored as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(default_mode(0o666))
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
