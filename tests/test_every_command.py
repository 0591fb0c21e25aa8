"""Every command of ``dcgan`` is driven by a test, on small files that the test made.

A test says by ``@pytest.mark.drives("canvas")`` that it brings ``dcgan canvas`` to a good end and
looks at what it wrote; conftest.py lets it fail if it did not. Most such tests stand with their
command's others. Here are those of the commands that have only been tested in parts elsewhere.
"""

import ast
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_load import make_mnist, shorten

from dcgan_lib import cli
from dcgan_lib.config import TrainConfig, recipe
from dcgan_lib.data.deduplicate import AutoencoderConfig
from dcgan_lib.evaluation.ledger import load_details, load_row
from dcgan_lib.experiments import bedrooms, mnist_supplement, near_duplicates
from dcgan_lib.paths import results_root
from dcgan_lib.training.checkpoints import draw

TESTS = Path(__file__).parent
NOT_EVERYWHERE = ("gpu", "real_data", "browser", "skip")
"""Markers of tests that some machines leave out, so that they count for nothing here."""


# ---------------------------------------------------------------- none is left out


def driven_in(source: str) -> set[str]:
    """Return the commands that the marked tests of a file drive on every machine."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            if any(f"mark.{name}" in mark for mark in marks for name in NOT_EVERYWHERE):
                continue
            for mark in node.decorator_list:
                if ast.unparse(mark).startswith("pytest.mark.drives("):
                    found |= {verb.value for verb in mark.args}
    return found


def test_every_command_is_driven_by_a_test():
    driven = set().union(*(driven_in(path.read_text()) for path in TESTS.glob("test_*.py")))
    grouped = {verb for commands in cli.GROUPS.values() for verb in commands}
    assert grouped - driven == set(), "mark the test that drives it, or write one"
    assert driven - grouped == set(), "there is no such command"


def test_only_marked_tests_that_run_everywhere_count():
    drives = '@pytest.mark.drives("film", "walk")\n'
    test = "def test_x():\n    cli.main(['film'])\n"
    assert driven_in(drives + test) == {"film", "walk"}
    assert driven_in(test) == set()
    assert driven_in(drives + '@pytest.mark.real_data("MNIST")\n' + test) == set()
    assert driven_in(drives + test.replace("test_x", "helper")) == set()


def test_only_commands_that_end_well_count(commands_run, capsys):
    with commands_run() as done:
        assert cli.main(["recipes"]) == 0
        assert cli.main(["results", "--verdict", "nonsense"]) == 2
        with pytest.raises(SystemExit):
            cli.main(["train", "--help"])
    assert done == {"recipes"}
    assert cli.main(["results"]) == 0 and done == {"recipes"}


# ---------------------------------------------------------------- small sets in their own formats

NUM_TRAIN, NUM_TEST = 1_000, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with MNIST's files, and with faces64 and bedrooms64 as folders of pictures.

    Generators drew the pictures, so that a detector finds faces in them.
    """
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCGAN_DATA", str(folder))
        patch.setattr(os, "fsync", lambda descriptor: None)
        make_mnist(folder / "MNIST" / "raw", NUM_TRAIN + 100, NUM_TEST)
        spans = {"train": (0, NUM_TRAIN), "validation": (NUM_TRAIN, NUM_TRAIN + 100)}
        shorten(patch, "mnist", train=spans)
        write_pictures(folder / "faces64" / "train", draw("faces", 40, seed=1))
        write_pictures(folder / "faces64" / "val", draw("faces", 16, seed=2))
        write_pictures(folder / "bedrooms64", draw("bedrooms", 750, seed=1))
        yield folder


def write_pictures(folder: Path, images_u8: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images_u8):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{20 + number}_0_{number}.png")


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A place to work, with an empty ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))


def dcgan(words: str) -> None:
    assert cli.main(words.split()) == 0


def kept() -> set[str]:
    """Return the files of the ledger."""
    root = results_root()
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def narrow(config: TrainConfig, **model: int) -> TrainConfig:
    """Return settings with networks that take a moment, and small minibatches."""
    return replace(config, model=replace(config.model, base_width=2, **model), batch_size=16)


# ---------------------------------------------------------------- the commands


@pytest.mark.drives("neighbours", "reproduce")
def test_nearest_digits_are_counted_and_counted_again(data, capsys):
    dcgan("neighbours real --num-images 1000 --split test --record table3.real.50k")
    row = load_row("table3.real.50k")
    assert row.n == NUM_TEST and kept() == {"table3.real.50k.json", "curves/table3.real.50k.json"}
    before = (results_root() / "table3.real.50k.json").read_bytes()
    capsys.readouterr()
    dcgan("reproduce table3.real.50k")
    assert "the same figure" in capsys.readouterr().out
    assert (results_root() / "table3.real.50k.json").read_bytes() == before


@pytest.mark.drives("bn-affine")
def test_batch_norm_with_and_without_scale_and_bias(data, monkeypatch):
    count = mnist_supplement.wrong_answers

    def count_few(config, folder, split):
        few = {"num_references": 1_000, "num_draws": 1}
        return count(narrow(config, hidden_units=8), folder, split=split, **few)

    monkeypatch.setattr(mnist_supplement, "wrong_answers", count_few)
    dcgan("bn-affine --steps 1 --out runs --record")
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        f"{network}-{which}" for network in ("dcgan", "gan") for which in ("with", "without")
    ]
    assert load_row("table3.bn-affine").n == NUM_TEST and kept() == {"table3.bn-affine.json"}


@pytest.mark.drives("near-duplicates")
def test_near_duplicates_are_planted_and_looked_for(data, monkeypatch):
    shorter = partial(AutoencoderConfig, steps=40, entropy=8.0)
    monkeypatch.setattr(near_duplicates, "AutoencoderConfig", shorter)
    dcgan("near-duplicates --num-planted 10 --record")
    names = {f"dedup.{what}--bedrooms64.json" for what in ("false-positives", "recall")}
    assert kept() == names | {"near-duplicates/bedrooms64.json"}
    assert load_row("dedup.recall:bedrooms64").n == 10


@pytest.mark.drives("epochs")
def test_one_pass_and_five_are_trained_and_measured(data, monkeypatch):
    usual = recipe("bedrooms")
    small = replace(usual, config=narrow(usual.config))  # fewer images than a batch of --beside
    monkeypatch.setattr(bedrooms, "recipe", lambda name: small)
    words = "--num-train 32 --num-images 8 --run-dir run --threads 1 --record"
    dcgan(f"epochs bedrooms64 {words}")
    passes = ("one-epoch", "five-epochs")
    names = {f"bedrooms.{name}--bedrooms64.json" for name in passes}
    grids = {f"epochs/bedrooms64.{name}.webp" for name in passes}
    assert kept() == names | grids | {"epochs/bedrooms64.json"}
    assert Path("run/generator.safetensors").is_file()


@pytest.mark.drives("face-crops")
def test_faces_are_looked_for_in_composed_photographs(data):
    dcgan("face-crops --choose 0 --report 10 --record")
    assert kept() == {
        "faces.crops--composed-faces64-turned.json",
        "crops/composed-faces64-turned.json",
    }


@pytest.mark.drives("face-samples")
def test_faces_are_looked_for_in_samples(data):
    dcgan("face-samples faces --num-images 6 --choose 4 --record")
    assert kept() == {"faces.samples--faces64.json", "crops/samples-faces.json"}
    assert load_row("faces.samples:faces64").n == 6


@pytest.mark.drives("natural")
def test_samples_are_compared_with_ruined_pictures(data):
    dcgan("natural faces --num-images 8 --best-of 5 --record")
    names = {f"imagenet.{what}--faces64.json" for what in ("samples", "sorted")}
    assert kept() == names | {"natural/faces.json"}
    table = load_details("natural/faces", "dcgan natural faces --record")
    assert table["n"] == 8 and len(table["parts"]) == 5
