"""The cells that a chapter calls complete run alone, in order, with the usual packages only.

A reader is told to type them into an empty notebook. They carry the tag ``standalone``.
"""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
ALLOWED = {"torch", "torchvision", "matplotlib", "numpy"}
REFUSE_THE_LIBRARY = "import sys\nsys.modules['dcgan_lib'] = None\n"


def standalone_source(name: str) -> str:
    """Return a chapter's standalone cells as one program."""
    chapter = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in chapter.cells if "standalone" in cell.metadata.get("tags", [])]
    assert cells, f"no cell of {name} is tagged standalone"
    return "\n".join(cell.source for cell in cells)


def imported_packages(source: str) -> set[str]:
    """Return the first part of every module that a program imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def run_alone(source: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a program in a fresh process that cannot import the library, in an empty folder."""
    command = [sys.executable, "-c", REFUSE_THE_LIBRARY + source]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["01_adversarial_game", "02_architecture"])
def test_cells_called_complete_need_no_library(name):
    packages = imported_packages(standalone_source(name))
    assert packages - set(sys.stdlib_module_names) <= ALLOWED


def test_the_game_of_chapter_1_runs_in_an_empty_notebook(tmp_path):
    source = standalone_source("01_adversarial_game")
    assert len([line for line in source.splitlines() if line.strip()]) < 50, "the chapter says so"
    ask = """
z_bd = torch.randn(100, 2)
before = generator(z_bd).detach(), discriminator(z_bd).detach()
losses = [play_round() for _ in range(20)]
assert np.isfinite(losses).all(), losses
for network, old in zip((generator, discriminator), before):
    assert (network(z_bd).detach() - old).abs().max() > 0.01, "a player did not learn"
print("played alone")
"""
    run = run_alone(source + ask, tmp_path)
    assert run.returncode == 0, run.stderr
    assert "played alone" in run.stdout


def test_the_networks_of_chapter_2_run_in_an_empty_notebook(tmp_path):
    source = standalone_source("02_architecture")
    ask = """
def count(network):
    return sum(weight.numel() for weight in network.parameters())
wide = make_generator(width=128), make_discriminator(width=128)
print("counts", *[count(network) for network in wide])
logits = wide[1](wide[0](torch.rand(2, 100)))
print("shape", tuple(logits.shape))
stds = [layer.weight.std().item() for layer in generator if isinstance(layer, WITH_WEIGHTS)]
assert all(abs(std - 0.02) < 0.002 for std in stds), stds
"""
    run = run_alone(source + ask, tmp_path)
    assert run.returncode == 0, run.stderr
    # Figure 1's convolutions, and two numbers for each batch-normalised unit or map.
    g_count = 18_851_200 + 2 * (16_384 + 512 + 256 + 128)
    d_count = 17_229_184 + 2 * (256 + 512 + 1_024)
    assert f"counts {g_count} {d_count}" in run.stdout
    assert "shape (2, 1)" in run.stdout


def test_a_cell_that_leans_on_the_library_is_caught(tmp_path):
    run = run_alone("from dcgan_lib.config import ModelConfig", tmp_path)
    assert run.returncode != 0 and "dcgan_lib" in run.stderr
    assert imported_packages("import scipy.signal\nfrom torch import nn") == {"scipy", "torch"}
