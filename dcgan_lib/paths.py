"""Where things lie on disk, and how a file is replaced without ever being half written."""

import os
import tempfile
from pathlib import Path


def repository_root() -> Path:
    """Return the folder that holds ``dcgan_lib`` and ``data``."""
    return Path(__file__).resolve().parent.parent


def data_root() -> Path:
    """Return the folder of image sets: ``$DCGAN_DATA``, or ``data/cache`` when it is unset."""
    chosen = os.environ.get("DCGAN_DATA")
    return Path(chosen).expanduser() if chosen else repository_root() / "data" / "cache"


def checkpoints_root() -> Path:
    """Return the folder of the committed checkpoints."""
    return repository_root() / "data" / "checkpoints"


def results_root() -> Path:
    """Return the folder of the claims ledger."""
    return repository_root() / "data" / "results"


def default_mode(mode: int = 0o666) -> int:
    """Return the permissions that a plainly made file (0o666) or folder (0o777) gets here.

    `tempfile` makes private ones; what is renamed into place should look like any other file.
    """
    mask = os.umask(0o077)  # there is no way to read it but to set it
    os.umask(mask)
    return mode & ~mask


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one, never a part.

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
