"""What is kept beside the rows of the ledger so that figures can be drawn: ``data/results/FOLDER/NAME.json``."""

import json
from pathlib import Path
from typing import Any

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, results_root


def save_details(name: str, content: Any, root: Path | None = None) -> None:
    """Keep plain values.

    Parameters
    ----------
    name : str
        Folder and name, such as ``curves/table3.dcgan.50k``.
    content : Any
        What JSON can hold.
    root : Path, optional
        The ledger's folder; by default ``data/results``.
    """
    atomic_write(_path(name, root), json.dumps(content, indent=1) + "\n")


def load_details(name: str, command: str, root: Path | None = None) -> Any:
    """Return what `save_details` kept.

    Parameters
    ----------
    name, root : optional
        See `save_details`.
    command : str
        What measures it, for the message.

    Raises
    ------
    UserError
        If it was not measured, or the file is damaged.
    """
    path = _path(name, root)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{name} was not measured yet: run {command}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run {command} again") from error


def has_details(name: str, root: Path | None = None) -> bool:
    """Return whether `save_details` kept anything under this name."""
    return _path(name, root).is_file()


def _path(name: str, root: Path | None) -> Path:
    return (results_root() if root is None else Path(root)) / f"{name}.json"
