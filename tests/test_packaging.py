"""The project's files agree: one version, one list of packages, commands that exist."""

import ast
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import dcgan_lib
from dcgan_lib import cli
from dcgan_lib.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ["3.11", "3.12", "3.13"]
GUIDES = ["README.md", "CONTRIBUTING.md"]
TREE = {
    ".ci",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "_config.yml",
    "book",
    "constraints.txt",
    "data",
    "dcgan_lib",
    "environment.yml",
    "pyproject.toml",
    "tests",
}
# Imports run downwards only: a layer may use those before it.
LAYERS = [
    "errors",
    "paths",
    "tensor_files",
    "command",
    "config",
    "models",
    "data",
    "training",
    "evaluation",
    "interpretation",
    "plotting",
    "notebook",
    "widgets",
    "experiments",
    "cli",
]
IMPORT_NAMES = {"PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn"}
OPTIONAL_EXTRAS = ["distributed", "lsun", "heif", "tensorboard", "onnx"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_files() -> list[str]:
    """Return the files that a commit would hold, as paths from the root."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def pins() -> dict[str, str]:
    lines = [
        line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in lines), (
        "each line is name==version"
    )
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names)), "in order, each package once"
    return dict(line.split("==") for line in lines)


def requirements(*extras: str) -> dict[str, SpecifierSet]:
    """Return the packages that pyproject.toml asks for, with the versions it allows."""
    lines = [
        *PROJECT["dependencies"],
        *(line for extra in extras for line in PROJECT["optional-dependencies"][extra]),
    ]
    return {
        canonicalize_name(Requirement(line).name): Requirement(line).specifier for line in lines
    }


# --- versions and packages ---
def test_version_is_stated_once():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert "version" not in yaml.safe_load(read("CITATION.cff"))
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert newest and newest[1] == dcgan_lib.__version__


def test_every_package_is_pinned_within_its_range():
    wanted, pinned = requirements("book", "test", "tensorboard"), pins()
    assert set(wanted) <= set(pinned)
    outside = {
        name: pinned[name] for name, allowed in wanted.items() if not allowed.contains(pinned[name])
    }
    assert not outside


def test_supported_versions_are_the_designed_ones():
    wanted = requirements("book")
    assert not wanted["torch"].contains("2.10.0") and wanted["torch"].contains("2.11.0")
    assert not wanted["torchvision"].contains("0.25.0") and wanted["torchvision"].contains("0.26.0")
    assert not wanted["opencv-python-headless"].contains("5.0.0")
    assert not wanted["jupyter-book"].contains("2.0.0")


def test_pythons_agree_everywhere():
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(30) if allowed.contains(f"3.{minor}.0")] == [11, 12, 13]
    prefix = "Programming Language :: Python :: "
    assert [
        line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)
    ] == PYTHONS
    ci = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS


def conda_disagreements(text: str) -> list[str]:
    """Return where an environment.yml differs from what pyproject.toml and `make` install."""
    listed = yaml.safe_load(text)["dependencies"]
    by_conda = {line.split()[0]: line for line in listed if isinstance(line, str)}
    by_pip = [line for entry in listed if isinstance(entry, dict) for line in entry["pip"]]
    problems = []
    if by_conda.pop("python", "") != f"python {PROJECT['requires-python']}":
        problems.append("another range of Pythons")
    if extra := set(by_conda) - {"pip", "make"}:
        problems.append(f"conda would bring packages that pip pins: {sorted(extra)}")
    if by_pip != ["-c constraints.txt", "-e .[book,test]"]:
        problems.append("pip installs something other than what `make` does")
    return problems


def test_environment_agrees_with_pyproject():
    assert conda_disagreements(read("environment.yml")) == []
    assert '-e ".[book,test]" $(CONSTRAINTS)' in read("Makefile")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("<3.14", "<3.15"),
        ("  - make\n", "  - make\n  - numpy\n"),
        ("[book,test]", "[book]"),
        ("      - -c constraints.txt\n", ""),
    ],
)
def test_environment_that_drifts_is_seen(right, wrong):
    text = read("environment.yml")
    assert right in text and len(conda_disagreements(text.replace(right, wrong))) == 1


def test_hooks_use_the_pinned_versions():
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    needs = [Requirement(need) for hook in hooks for need in hook["additional_dependencies"]]
    checked = {need.name for need in needs if need.name in pins()}
    assert checked == {"ruff", "codespell"}
    assert all(need.specifier.contains(pins()[need.name]) for need in needs if need.name in checked)


# --- the library as a package ---
def library_modules() -> list[Path]:
    return sorted((ROOT / "dcgan_lib").rglob("*.py"))


def imported_names(tree: ast.AST) -> set[str]:
    """Return the dotted names that a module imports, wherever in it they stand."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def undeclared(tree: ast.AST) -> set[str]:
    """Return the packages that a module imports although pyproject.toml does not name them."""
    declared = set(requirements(*OPTIONAL_EXTRAS)) | {"dcgan-lib"}
    roots = {name.split(".")[0] for name in imported_names(tree)} - set(sys.stdlib_module_names)
    return {canonicalize_name(IMPORT_NAMES.get(root, root)) for root in roots} - declared


def upward_imports(layer: str, tree: ast.AST) -> set[str]:
    """Return the layers above its own that a module imports."""
    used = {name.split(".")[1] for name in imported_names(tree) if name.startswith("dcgan_lib.")}
    return {name for name in used & set(LAYERS) if LAYERS.index(name) > LAYERS.index(layer)}


def test_every_import_is_a_declared_package():
    found = {path.name: undeclared(ast.parse(path.read_text())) for path in library_modules()}
    assert {name: missing for name, missing in found.items() if missing} == {}
    assert undeclared(ast.parse("import json, torch\nfrom PIL import Image\nimport pandas")) == {
        "pandas"
    }


def test_imports_run_downwards():
    found = {}
    for path in library_modules():
        layer = path.relative_to(ROOT / "dcgan_lib").with_suffix("").parts[0]
        if layer != "__init__":
            assert layer in LAYERS, f"{path.name} stands in no known layer"
            found[path.name] = upward_imports(layer, ast.parse(path.read_text()))
    assert {name: above for name, above in found.items() if above} == {}
    assert upward_imports("models", ast.parse("from dcgan_lib.training import step")) == {
        "training"
    }
    assert upward_imports("models", ast.parse("from dcgan_lib import config, cli")) == {"cli"}


WITHOUT_EXPERIMENTS = """
import pkgutil, sys
sys.modules["dcgan_lib.experiments"] = None  # as if the folder were deleted
import dcgan_lib
for module in pkgutil.walk_packages(dcgan_lib.__path__, "dcgan_lib."):
    if not module.name.startswith("dcgan_lib.experiments"):
        __import__(module.name)
from dcgan_lib.cli import main
size = "--image-size 16 16 --base-width 2 --z-dim 4 --batch-size 8 --num-samples 4 --threads 1"
for words in (
    f"train --recipe rooms --num-images 32 --steps 2 --run-dir run {size}",
    "sample run --num-images 4",
    "export run --out run.js",
    "evaluate run --num-images 16 --features pixels",
    "results",
):
    assert main(words.split()) == 0, words
"""


def test_the_core_works_without_the_experiments(tmp_path):
    """It trains, samples, evaluates and exports: experiments are built on it, not into it."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXPERIMENTS],
        cwd=tmp_path,
        env=os.environ | {"DCGAN_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def modules_after(statement: str) -> set[str]:
    """Return the modules of the library that a fresh interpreter holds after a statement."""
    program = (
        f"{statement}; import sys; print(*(n for n in sys.modules if n.startswith('dcgan_lib')))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return {name for name in ran.stdout.split() if name.startswith("dcgan_lib")}


def test_help_and_a_command_import_no_more_than_they_need():
    """Help needs neither torch nor any command's module; a command needs its own only."""
    help_alone = modules_after("from dcgan_lib.cli import usage; usage()")
    assert help_alone == {
        "dcgan_lib",
        *(f"dcgan_lib.{n}" for n in ("cli", "command", "config", "errors", "paths")),
    }
    found = modules_after("from dcgan_lib.cli import find_command; find_command('walk')")
    experiments = {name for name in found if name.startswith("dcgan_lib.experiments.")}
    assert experiments == {"dcgan_lib.experiments.latent_walk"}


def test_the_names_a_newcomer_needs_are_at_the_top():
    for name in dcgan_lib.__all__:
        assert getattr(dcgan_lib, name).__doc__
    assert "dcgan_lib.evaluation" not in modules_after("from dcgan_lib import fit, load_image_set")
    with pytest.raises(AttributeError, match="no attribute 'gan'"):
        dcgan_lib.gan  # noqa: B018


def test_package_data_covers_every_file():
    patterns = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["package-data"]["*"]
    names = [Path(name) for name in tracked_files() if name.startswith("dcgan_lib/")]
    assert names
    left_out = [
        str(path)
        for path in names
        if path.suffix != ".py" and not any(fnmatch(path.name, p) for p in patterns)
    ]
    assert left_out == []
    without_init = {
        str(path.parent) for path in names if not (ROOT / path.parent / "__init__.py").exists()
    }
    assert without_init == set()


# --- what a reader is told to type ---
def commands(text: str, program: str) -> set[tuple[str, ...]]:
    """Return the arguments of each call of a program in a page's code blocks and code spans."""
    code = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(
        r"(?<!`)`([^`\n]+)`(?!`)", text
    )
    found = re.findall(rf"(?:^|/|&& )\b{program} ([^#&\n]+)", "\n".join(code), re.MULTILINE)
    return {tuple(shlex.split(arguments)) for arguments in found}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def test_commands_are_found_in_text():
    block = "```bash\n.venv/bin/dcgan train --recipe x\ncd a && make test\n```"
    page = f"Run `make book`, then:\n{block}\nWe make friends."
    assert commands(page, "make") == {("book",), ("test",)}
    assert commands(page, "dcgan") == {("train", "--recipe", "x")}


def test_make_has_the_promised_targets():
    assert {"book", "test", "demo", "bench", "clean"} <= make_targets()
    phony = re.search(r"^\.PHONY: (.+)$", read("Makefile"), re.MULTILINE)
    assert phony and set(phony[1].split()) == make_targets()


@pytest.mark.parametrize("page", GUIDES)
def test_guides_name_make_targets_that_exist(page):
    named = {target for target, *_ in commands(read(page), "make")}
    assert named and named <= make_targets()


def is_understood(arguments: tuple[str, ...]) -> bool:
    """Return whether the command line takes these arguments; nothing is run."""
    try:
        cli.parse(arguments)
    except SystemExit as end:  # help ends with 0, a wrong option with another number
        return not end.code
    except UserError:
        return False
    return True


@pytest.mark.parametrize("page", [*GUIDES, "Makefile"])
def test_guides_name_commands_that_exist(page):
    text = read(page)
    named = commands(
        re.sub(r"\t\$\(BIN\)/(.+)", r"`\1`", text) if page == "Makefile" else text, "dcgan"
    )
    assert named and [arguments for arguments in named if not is_understood(arguments)] == []


def test_commands_that_do_not_exist_are_seen(capsys):
    assert is_understood(("train", "--help"))
    assert not is_understood(("tarin",)) and not is_understood(("train", "--recipe", "nothing"))
    assert not is_understood(("sample", "runs/a", "--number", "3"))


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("target", ["book", "test", "demo", "bench", "clean"])
def test_make_understands_each_target(target):
    shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


def test_ci_runs_the_readme_s_test_command():
    script = read(".ci/run")
    assert "make test" in read("README.md") and re.search(r"^make .*\btest$", script, re.MULTILINE)
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    for workflow in ("ci.yml", "weekly.yml"):
        steps = [
            step
            for job in yaml.safe_load(read(f".github/workflows/{workflow}"))["jobs"].values()
            for step in job["steps"]
        ]
        assert any(step.get("run") == "bash .ci/run" for step in steps)


# --- the tree ---
def test_top_level_holds_only_what_the_design_names():
    assert {Path(name).parts[0] for name in tracked_files()} == TREE


def test_no_committed_file_is_large():
    large = {
        name: (ROOT / name).stat().st_size
        for name in tracked_files()
        if (ROOT / name).stat().st_size > 16_000_000
    }
    assert large == {}


def test_names_are_good_on_every_system():
    bad = [name for name in tracked_files() if re.search(r'[:*?"<>|\\ ]', name)]
    assert bad == []
    folded = [name.lower() for name in tracked_files()]
    assert len(folded) == len(set(folded))


# --- the tests' own guards ---
def test_network_is_out_of_reach():
    with socket.socket() as line, pytest.raises(pytest.fail.Exception, match="tried to reach"):
        line.connect(("192.0.2.1", 80))  # an address kept for documentation
    with socket.socket() as server, socket.socket() as line:
        server.bind(("127.0.0.1", 0))
        server.listen()
        line.connect(server.getsockname())


def test_markers_skip_for_what_is_missing(reason_to_skip, monkeypatch, tmp_path):
    monkeypatch.delenv("DCGAN_DATA", raising=False)
    assert reason_to_skip(pytest.mark.real_data("MNIST").mark) == "DCGAN_DATA is unset"
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    assert reason_to_skip(pytest.mark.real_data("MNIST").mark) == "not in DCGAN_DATA: MNIST"
    (tmp_path / "MNIST").mkdir()
    assert reason_to_skip(pytest.mark.real_data("MNIST").mark) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reason_to_skip(pytest.mark.browser.mark) == "no Chromium or no playwright"
