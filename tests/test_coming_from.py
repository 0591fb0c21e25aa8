"""The page "Coming from another implementation": our side of each row runs, its words are measured.

Every command is taken from the page. It is understood as it stands there, and then run on small
sets that the test makes in their own formats, with the settings of `SMALL` behind it.
"""

import dataclasses
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import savemat
from test_authors import SVHN, write_released
from test_cifar10_features import house_numbers
from test_load import accept_any_sum, make_cifar10, make_lsun, make_mnist, shorten
from test_pytorch_example import ExampleDiscriminator, ExampleGenerator, save_plain

from dcgan_lib import cli
from dcgan_lib.config import recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.prepare import prepared_root
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.experiments.architecture import is_flagged, kept_runs, outcome, summary
from dcgan_lib.training.checkpoints import load_config

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "coming_from.md").read_text(encoding="utf-8")
BASE = "dcgan train --recipe faces --set photos --run-dir runs/mine"

# What is put behind a command of the page, so that it takes a moment: of two, the later one counts.
SMALL = {
    "train": "--base-width 2 --batch-size 4 --num-samples 4 --sample-every 1 --log-every 1 "
    "--precision float32 --threads 1 --device cpu",
    "arithmetic": "--pool 16",
    "features": "--draws 1",
}
STAND_INS = {"features runs/authors-svhn": "features runs/digits"}
SMALL_CODE = {
    "base_width=64": "base_width=2",
    "batch_size=128": "batch_size=4",
    "steps=8_000": "steps=2, precision='float32'",
    '"runs/notebook")\n\n': '"runs/notebook", threads=1)\n\n',
}
NEEDED = {"--tensorboard": "tensorboard", "--onnx": "onnx"}
"""Packages that an option needs and that may be missing: then a sentence has to say so."""


# ---------------------------------------------------------------- the page's tables


def rows_of(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each line of a page's tables but their heads, as its cells, with the section's name."""
    section, lines = "", page.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("#"):
            section = line.strip("# ")
        elif line.startswith("| ") and not below.startswith("|--"):
            yield section, [cell.strip() for cell in line.strip("|").split(" | ")]


def part(title: str) -> str:
    """Return what stands below one of the page's main titles."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def commands_in(cell: str) -> list[str]:
    """Return the commands of a cell; options that stand alone belong to `BASE`."""
    spans = re.findall(r"`([^`]+)`", cell)
    return [
        span if span.startswith("dcgan ") else f"{BASE} {span}"
        for span in spans
        if span.startswith(("dcgan ", "--")) and span != "dcgan import-pth"
    ]


OURS = [
    (f"{section}: {cells[0]}", cells[-1])
    for section, cells in rows_of(part("Your commands, and ours"))
]
RUN = [(name, cell) for name, cell in OURS if not cell.startswith("not here")]


def test_every_program_has_its_table():
    sections = {name.split(":")[0] for name, _ in OURS}
    assert len(sections) == 8 and len(OURS) > 50
    assert all(len(cells) == 3 for _, cells in rows_of(part("Your commands, and ours")))
    assert f"```bash\n{BASE}\n```" in PAGE
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    back = [entry["file"] for entry in contents["parts"][-1]["chapters"]]
    assert "coming_from" in back


def test_each_row_has_a_command_or_says_that_there_is_none():
    assert [name for name, cell in RUN if not commands_in(cell)] == []
    assert commands_in("`--epochs 3`, or `dcgan recipes`") == [
        f"{BASE} --epochs 3",
        "dcgan recipes",
    ]
    assert commands_in("kept by every run") == []


# ---------------------------------------------------------------- small sets and files


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A place to work, with every set and file that the page's commands name, and `runs/mine`."""
    place = tmp_path_factory.mktemp("desk")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("DCGAN_DATA", str(place / "data"))
        patch.setattr(os, "fsync", lambda descriptor: None)
        make_sets(patch, place / "data")
        rng = np.random.default_rng(0)
        for number in range(24):
            kind = Path("photos", f"kind{number % 2}")
            kind.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (100, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(kind / f"{number}.png")
        for name in ("{}_epoch_24.pth", "{}.pth"):
            save_plain(Path(name.format("netG")), ExampleGenerator(2, 3))
            save_plain(Path(name.format("netD")), ExampleDiscriminator(2, 3))
        write_released(Path("dcgan_code", "models", SVHN.folder), SVHN)
        run(BASE)
        run("dcgan import-pth netG.pth netD.pth --name theirs")
        run("dcgan train --recipe paper-svhn --run-dir runs/digits")
        yield place
    torch.set_num_threads(threads)


def make_sets(patch: pytest.MonkeyPatch, data: Path) -> None:
    """Write MNIST, CIFAR-10, SVHN and LSUN, each small, in its own format."""
    make_mnist(data / "MNIST" / "raw")
    shorten(patch, "mnist", train={"train": (0, 20), "validation": (20, 30)})
    make_cifar10(data)
    shorten(patch, "cifar10", train={"train": (0, 40), "validation": (40, 50)})
    for name, num in (("train", 1_100), ("test", 50)):
        images, labels = house_numbers(num, 0)
        savemat(data / f"{name}_32x32.mat", {"X": images, "y": labels})
    shorten(patch, "svhn", train={"train": (0, 1_050), "validation": (1_050, 1_100)})
    for module in ("cifar", "svhn"):
        accept_any_sum(patch, module)
    make_lsun(data / "bedroom_train_lmdb", 7, seed=0)
    make_lsun(data / "bedroom_val_lmdb", 3, seed=50)


def smaller(words: list[str]) -> list[str]:
    """Return a command's words with small settings behind them."""
    words = [*words, *SMALL.get(words[0], "").split()]
    if words[0] == "train":
        words += ["--epochs", "1"] if "--epochs" in words else ["--steps", "2"]
    if "rooms" in words:
        words += ["--num-images", "8"]  # to be drawn
    if "--best-of" in words:
        words += ["--best-of", "2"]
    return words


def run(command: str) -> tuple[cli.Command, int]:
    """Run a command of the page on small files; return it as it was run, and its status."""
    for named, instead in STAND_INS.items():
        command = command.replace(named, instead)
    words = smaller(shlex.split(command)[1:])
    return cli.parse(words), cli.main(words)


# ---------------------------------------------------------------- each row is run


def check_train(command: cli.Train, said: str) -> None:
    if command.dry_run:
        assert "steps" in said and not command.run_dir.exists()
        return
    made = {path.name for path in command.run_dir.iterdir()}
    networks = {"generator.safetensors", "discriminator.safetensors"}
    assert made >= networks | {"config.json", "metrics.jsonl", "state.safetensors", "samples"}
    config, _ = load_config(command.run_dir)
    steps = config.steps if command.epochs else command.config.steps
    assert config == dataclasses.replace(command.config, steps=steps)
    assert list((command.run_dir / "samples").glob("*.png"))
    assert bool(config.snapshot_every) == (command.run_dir / "snapshots").is_dir()
    assert bool(list(command.run_dir.rglob("events.*"))) == command.tensorboard


def check_sample(command: cli.Sample, said: str) -> None:
    num = command.best or command.num_images
    assert f"{num:,} pictures" in said
    if command.separate:
        assert len(list(command.out.glob("*.png"))) == num
        return
    height, width = load_config(command.checkpoint)[0].model.image_size
    with Image.open(command.out or "samples.png") as grid:
        columns, rows = (grid.width - 2) / (width + 2), (grid.height - 2) / (height + 2)
    assert columns * (rows - 1) < num <= columns * rows
    assert command.columns in (None, columns)


def check_picture(command, said: str) -> None:
    with Image.open(command.out) as picture:
        assert picture.size == command.size[::-1]


def check_frames(command, said: str) -> None:
    with Image.open(command.out) as film:
        is_moving = command.out.suffix == ".gif"
        assert (film.n_frames > 1) == is_moving and (is_moving or film.width > film.height > 64)


def check_sum(command, said: str) -> None:
    assert {path.name for path in command.out.iterdir()} == {"sum.png", "picks.json"}


def check_export(command, said: str) -> None:
    kind = "onnx" if command.onnx else "safetensors" if command.weights else "js"
    assert Path(f"mine.{kind}").stat().st_size > 1_000 and f"mine.{kind}" in said


def check_import(command, said: str) -> None:
    folder = Path(said.split()[0].rstrip(":"))
    networks = {"generator.safetensors", "discriminator.safetensors"}
    assert {path.name for path in folder.iterdir()} >= networks | {"config.json"}


def check_prepare(command: cli.Prepare, said: str) -> None:
    prepared = ImageSet.load(prepared_root() / command.name)
    assert prepared.images_u8.shape == (24, 3, 64, 64)
    assert command.fit == prepared.card["preparation"]["fit"]


def check_features(command, said: str) -> None:
    assert "features, 1,000 labels" in said and "validation accuracy" in said


CHECKS = {
    "train": check_train,
    "sample": check_sample,
    "canvas": check_picture,
    "film": check_frames,
    "walk": check_frames,
    "arithmetic": check_sum,
    "export": check_export,
    "import-pth": check_import,
    "import-authors": check_import,
    "prepare": check_prepare,
    "features": check_features,
}
"""How what a command wrote is looked at."""


@pytest.fixture
def missing():
    """Return the packages of an option that are not installed."""
    return [o for o, package in NEEDED.items() if importlib.util.find_spec(package) is None]


@pytest.mark.parametrize(("name", "cell"), RUN, ids=[name for name, _ in RUN])
def test_our_side_of_a_row_runs(name, cell, desk, missing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))
    for command in commands_in(cell):
        cli.parse(shlex.split(command)[1:])  # just as the page has it
        if command.startswith("dcgan train") and command != BASE:
            folder = tmp_path / "run"  # or two rows would share one
            command = f"{command.replace('--run-dir runs/mine', '')} --run-dir {folder}"
        if "authors-svhn" in command and not Path("runs/authors-svhn").exists():
            run("dcgan import-authors dcgan_code --set svhn")
        capsys.readouterr()
        parsed, status = run(command)
        shown = capsys.readouterr()
        lacking = [option for option in missing if option in command]
        if lacking:
            assert status == 2 and f"pip install {NEEDED[lacking[0]]}" in shown.err
            continue
        assert status == 0, shown.err
        CHECKS[parsed.verb](parsed, shown.out)
    assert not (tmp_path / "results").exists()


def test_the_notebook_s_lines_run(desk, monkeypatch):
    monkeypatch.chdir(desk)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for large, little in SMALL_CODE.items():
        assert code.count(large) == 1
        code = code.replace(large, little)
    names = {}
    exec(code, names)
    assert names["pictures_u8"].shape == (64, 3, 64, 64)
    assert load_config("runs/notebook")[0] == names["config"]


def test_networks_with_biases_are_refused_as_the_page_says(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    state = ExampleGenerator(2, 3).state_dict()
    torch.save(state | {"main.0.bias": torch.zeros(16)}, "biased.pth")
    assert cli.main(["import-pth", "biased.pth", "--name", "biased"]) == 2
    assert not Path("runs/biased").exists() and "biased.pth" in capsys.readouterr().err


def test_a_command_that_is_not_ours_would_be_seen():
    with pytest.raises(SystemExit):
        cli.parse(shlex.split(f"{BASE} --niter 25")[1:])


# ---------------------------------------------------------------- what the page says of defaults


def is_value(cell: str, value: object) -> bool:
    """Tell whether a cell, such as `5` in backticks, holds a setting's value."""
    text = cell.strip("`")
    return float(text) == value if isinstance(value, int | float) else text == value


def setting(config, option: str) -> object:
    name = option.removeprefix("--").replace("-", "_")
    return getattr(config if hasattr(config, name) else config.model, name)


def test_defaults_are_the_recipes_own_and_the_usual_pair_has_theirs():
    rows = [cells for _, cells in rows_of(part("What will surprise you"))]
    assert len(rows) == 9
    line = re.search(r"```bash\n(dcgan train .*?)\n```", PAGE.replace("\\\n", ""), re.DOTALL)[1]
    usual = cli.parse(shlex.split(line)[1:]).config
    for what, _, small, paper, theirs in rows:
        option, value = theirs.strip("`").split()
        assert is_value(small, setting(recipe("faces").config, option)), what
        assert is_value(paper, setting(recipe("paper-faces").config, option)), what
        assert is_value(value, setting(usual, option)), what
    assert not is_value("`4`", setting(recipe("faces").config, "--kernel-size"))


# ---------------------------------------------------------------- what the page says was measured


@pytest.fixture(scope="module")
def measured() -> dict[str, str]:
    """Return the words for each rule that was broken on CIFAR-10, and the ledger's verdicts."""
    runs, words = kept_runs("cifar10"), {}
    for row in summary(runs):
        early, late = (outcome(row.effects[name]) for name in ("distance_third", "distance"))
        text = late if early == late else f"{early} after a third of the steps, then {late}"
        if early != late and early == "no difference shown":
            text = f"{late}, but not yet after a third of the steps"
        flagged = sum(is_flagged(runs, row.rule, seed) for seed in range(row.seeds))
        words[row.rule] = text + (f", {flagged} of {row.seeds} runs flagged" if flagged else "")
    return words | {row.id: row.verdict for row in load_results() if row.is_measured}


def wrong_words(cell: str, measured: dict[str, str]) -> list[str]:
    """Return what a cell says of a measurement, `NAME`: WORDS; and was not found."""
    wrong = []
    for name, said in re.findall(r"`([a-z][a-z0-9.:-]+)`: ([^;]+)", cell):
        known = measured.get(name)
        if said != known:
            wrong.append(f"{name}: {said} (measured: {known})")
    return wrong


DISAGREEMENTS = [cells for _, cells in rows_of(part("Where they disagree"))]


def test_what_each_difference_did_is_what_was_measured(measured):
    assert len(DISAGREEMENTS) > 25 and all(len(cells) == 5 for cells in DISAGREEMENTS)
    found = {cells[0]: wrong_words(cells[-1], measured) for cells in DISAGREEMENTS}
    assert {what: wrong for what, wrong in found.items() if wrong} == {}
    silent = [
        cells[0]
        for cells in DISAGREEMENTS
        if not re.search(r"`[a-z0-9.:-]+`: |not measured|nothing to measure", cells[-1])
    ]
    assert silent == []


def test_other_words_than_the_measured_ones_would_be_seen(measured):
    [cell] = [cells[-1] for cells in DISAGREEMENTS if cells[0].startswith("hidden dense")]
    assert wrong_words(cell.replace("worse", "better"), measured)
    assert wrong_words(cell + ", 1 of 3 runs flagged", measured)
    assert wrong_words("`no-such-rule`: worse", measured)
    assert wrong_words("`table3.bn-affine`: reproduced", measured)


def test_options_of_the_disagreements_exist():
    words = {word for cells in DISAGREEMENTS for word in re.findall(r"`--([a-z0-9-]+)`", cells[0])}
    kinds = (
        cli.Train,
        cli.Sample,
        type(recipe("faces").config),
        type(recipe("faces").config.model),
    )
    known = {entry.name.replace("_", "-") for kind in kinds for entry in dataclasses.fields(kind)}
    assert len(words) > 10 and words <= known
