"""nbval ignores the digits behind the sign for "about equal", and no others."""

import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def write_notebook(path: Path, prints: str, stored: str) -> None:
    cell = nbformat.v4.new_code_cell(f"print({prints!r})", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored + "\n")]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(notebook, path)


def test_only_digits_behind_the_sign_may_change(tmp_path):
    cases = {
        "digits_behind_the_sign": ("modes ≈  7.5 of 8", "modes ≈ 10.25 of 8"),
        "sign_of_the_number": ("gain ≈ -0.1.", "gain ≈ 0.3."),
        "digits_without_the_sign": ("modes 7.5 of 8", "modes 7.6 of 8"),
        "digits_before_the_sign": ("8 modes ≈ 7.5", "9 modes ≈ 7.5"),
        "words_behind_the_number": ("modes ≈ 7.5 of 8", "modes ≈ 7.5 of 9"),
    }
    for name, (prints, stored) in cases.items():
        write_notebook(tmp_path / f"{name}.ipynb", prints, stored)

    # From the repository's root, so that the project's own options apply.
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    options = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-rA"]
    run = subprocess.run(
        [*command, *options, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )

    for name in cases:
        passed = name in ("digits_behind_the_sign", "sign_of_the_number")
        outcome = "PASSED" if passed else "FAILED"
        lines = [line for line in run.stdout.splitlines() if f"{name}.ipynb" in line]
        assert any(line.startswith(outcome) for line in lines), run.stdout
