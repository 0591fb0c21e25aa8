"""The cells that chapter 3 calls a complete program run alone, with the usual packages only."""

import subprocess
import sys
from pathlib import Path

import nbformat

CHAPTER = Path(__file__).resolve().parent.parent / "book" / "03_training_details.ipynb"
ALONE = """
import sys
import matplotlib
sys.modules["dcgan_lib"] = None
matplotlib.use("Agg")
"""
SHORT_RUN = "if step == 2:"
ASK = """
import sys
assert len(log) == 3, len(log)
assert generator(draw_z(2)).shape == (2, 1, SIDE, SIDE)
assert torch.isfinite(torch.tensor(list(log[-1].values()))).all()
assert sys.modules["dcgan_lib"] is None
print("trained alone")
"""


def standalone_source() -> str:
    cells = nbformat.read(CHAPTER, as_version=4).cells
    chosen = [cell.source for cell in cells if "standalone" in cell.metadata.get("tags", [])]
    return "\n".join(chosen)


def test_the_loop_runs_in_an_empty_notebook(tmp_path):
    source = standalone_source()
    assert source.count("if step == 500:") == 1, "the run's length is shortened here"
    source = source.replace("if step == 500:", SHORT_RUN)
    source = source.replace("(20, 80, 250, 500)", "(0, 1, 2)")
    source = source.replace("3_000", "100")
    command = [sys.executable, "-c", ALONE + source + ASK]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "trained alone" in run.stdout


def test_a_program_that_leans_on_the_library_is_caught(tmp_path):
    command = [sys.executable, "-c", ALONE + "from dcgan_lib import fit"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert run.returncode != 0
