"""A chapter that came alone, as in Colab: torch and Jupyter are there, the library and the
repository are not."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "book" / "extensions"))
from launch_cell import configured_address, launch_source, with_launch_cell

CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
RUN = """
import sys, nbformat, nbclient
chapter = nbformat.read("chapter.ipynb", as_version=4)
nbclient.NotebookClient(chapter, timeout=300, kernel_name="python3").execute()
"""


def git(folder: Path, *arguments: str) -> str:
    settings = ("user.name=test", "user.email=test@localhost", "commit.gpgsign=false")
    command = ["git", *(word for each in settings for word in ("-c", each)), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a repository that holds the project as it stands here."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("public") / "book"
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "The book")
    return folder.as_uri()


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """Return a Python that has this one's packages, but not the library that is installed in
    editable mode."""
    venv.create(tmp_path / "colab", with_pip=False)
    python = tmp_path / "colab" / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # Folders named in a .pth file have their own .pth files left unread, and the library is there
    # only by one.
    Path(own, "packages.pth").write_text(
        "\n".join({sysconfig.get_paths()[key] for key in ("purelib", "platlib")})
    )
    return python


def environment(repository: str) -> dict[str, str]:
    """Return the environment of a reader without this project: no search path, no data, no network
    for pip."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "DCGAN_DATA", "PYTHONHOME")
    }
    pip = {
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    return (
        kept | pip | {"DCGAN_REPOSITORY": repository, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "2"}
    )


def test_chapter_runs_where_only_torch_and_jupyter_are(repository, bare_python, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    surroundings = environment(repository)
    absent = [bare_python, "-c", "import torch, nbclient, dcgan_lib"]
    refused = subprocess.run(absent, cwd=place, env=surroundings, capture_output=True, text=True)
    assert "No module named 'dcgan_lib'" in refused.stderr
    chapter = with_launch_cell(nbformat.read(CHAPTERS[0], as_version=4), configured_address())
    nbformat.write(chapter, place / "chapter.ipynb")
    ran = subprocess.run(
        [bare_python, "-c", RUN], cwd=place, env=surroundings, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert (place / "dcgan-lib" / "data" / "results").is_dir()


def test_launch_cell_does_nothing_where_the_library_is(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it tried to install"))
    for address in ("", "https://github.com/someone/dcgan-book"):
        exec(launch_source(address), {})


def test_launch_cell_says_what_is_missing_where_no_address_is_known(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it tried to install"))
    monkeypatch.setitem(sys.modules, "dcgan_lib", None)
    monkeypatch.delenv("DCGAN_REPOSITORY", raising=False)
    with pytest.raises(ImportError, match=r"needs the package dcgan_lib: .* set DCGAN_REPOSITORY"):
        exec(launch_source(""), {})
