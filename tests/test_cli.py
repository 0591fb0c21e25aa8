"""The command line: options explained, mistakes answered in a sentence, the way from a folder."""

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from tyro.conf import Positional

from dcgan_lib import __version__, cli
from dcgan_lib import cli as commands
from dcgan_lib.cli import COMMANDS
from dcgan_lib.config import ModelConfig, TrainConfig, recipe, recipes
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import ledger as results
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments import generators as recording
from dcgan_lib.training.checkpoints import load_config, read_metrics

HEIGHT, WIDTH = 20, 12  # not square, so that a swapped pair shows
SHAPE = ["--image-size", str(HEIGHT), str(WIDTH), "--num-channels", "3"]
TINY = [
    *SHAPE,
    "--base-width",
    "2",
    "--z-dim",
    "4",
    "--batch-size",
    "8",
    "--decay-fraction",
    "0",
    "--log-every",
    "1",
    "--sample-every",
    "2",
    "--num-samples",
    "4",
    "--threads",
    "1",
    "--device",
    "cpu",
]


def draw_folder(folder: Path) -> Path:
    """Make a folder of two classes, with one broken, one small, one odd and one foreign file."""
    rng = np.random.default_rng(0)
    for kind, low in (("dark", 0), ("light", 120)):
        (folder / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(low, low + 120, (28, 18, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    (folder / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.new("RGB", (4, 4)).save(folder / "dark" / "small.png")
    Image.new("RGBA", (18, 28), (9, 9, 9, 128)).save(folder / "light" / "glass.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(*words: str) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data folder and a place to work for the module: nothing is written anywhere else."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("place")
        patch.setenv("DCGAN_DATA", str(folder / "data"))
        patch.chdir(folder)
        threads = torch.get_num_threads()
        yield folder
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def at_the_place(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def prepared(place):
    assert (
        run("prepare", draw_folder(place / "photos" / "mine"), "--image-size", HEIGHT, WIDTH) == 0
    )
    return "mine"


@pytest.fixture(scope="module")
def plain_run(prepared):
    words = ["--steps", "3", "--precision", "float32", "--run-dir", "plain"]
    assert run("train", "--set", prepared, *TINY, *words) == 0
    return Path("plain").resolve()


@pytest.fixture(scope="module")
def class_run(prepared):
    assert (
        run(
            "train",
            "--set",
            prepared,
            *TINY,
            "--steps",
            "2",
            "--num-classes",
            "2",
            "--run-dir",
            "classes",
        )
        == 0
    )
    return Path("classes").resolve()


def options_of(kind) -> set[str]:
    """Return the options that a command's fields, and those of its settings, promise."""
    found, hints = set(), typing.get_type_hints(kind, include_extras=True)
    for entry in dataclasses.fields(kind):
        if entry.name in ("config", "model"):
            found |= options_of({"config": TrainConfig, "model": ModelConfig}[entry.name])
        elif Positional not in typing.get_args(hints[entry.name]):
            found.add("--" + entry.name.replace("_", "-"))
    return found


BARE = re.compile(  # an option and its values with no word of explanation before the default
    r"(--[a-z0-9-]+)(?:, --no-[a-z0-9-]+)?"
    r"(?: (?:\{[^ ]*\}[|A-Z]*|\[.*?\]\]|[A-Z]+))* \((?:default|required)"
)


def help_of(kind, capsys) -> tuple[str, set[str]]:
    """Return a command's help in one line without frames, and the options it shows."""
    with pytest.raises(SystemExit) as ended:
        tyro.cli(kind, args=["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    shown = set(re.findall(r"^\W (--[a-z][a-z0-9-]*)", text, re.MULTILINE))
    return re.sub(r"[\s│|]+", " ", text), shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_and_explains_it(name, capsys):
    kind = cli.find_command(name)
    text, shown = help_of(kind, capsys)
    assert shown == options_of(kind)
    assert kind.__doc__.splitlines()[0].split(":")[0] in text
    assert BARE.findall(text) == []
    with pytest.raises(SystemExit) as ended:
        run(name, "--help")
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: dcgan {name}")


def test_an_option_without_a_word_would_be_noticed(capsys):
    @dataclasses.dataclass
    class Twin:
        """Has options that say nothing."""

        mute: int = 3
        silent: bool = False
        told: int = 4
        """How many."""

    text, shown = help_of(Twin, capsys)
    assert BARE.findall(text) == ["--mute", "--silent"]
    assert shown == {"--mute", "--silent", "--told"}


def test_the_front_page_names_every_command(capsys):
    pages = []
    for words in ([], ["help"], ["-h"], ["--help"]):
        assert run(*words) == 0
        pages.append(capsys.readouterr().out)
    assert len(set(pages)) == 1
    assert all(f"\n  {name} " in pages[0] for name in COMMANDS)
    for line in re.findall(r"^  dcgan (.+?)   ", pages[0], re.MULTILINE):
        cli.parse(line.split()), "what it tells a beginner to type can be typed"
    assert run("--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


MISTAKES = [
    ("learn", "there is no command 'learn'; choose one of: prepare, train"),
    ("train --recipe nonsense", "no recipe is called 'nonsense'; choose one of: paper-faces"),
    ("train --recipe=nonsense", "no recipe is called 'nonsense'"),
    ("train --set nowhere", "no image set or folder 'nowhere'"),
    ("train --set nowhere --threads 0", "threads must be at least 1, but it is 0"),
    ("prepare nowhere", "nowhere does not exist"),
    ("prepare . --name a/b", "name must be letters, digits"),
    ("prepare . --name MNIST", "already names another set"),
    ("prepare . --name street_digits", "already names another set"),
    ("prepare 📷", "choose a name with --name"),
    ("prepare . --limit 0", "limit must be at least 1"),
    ("sample nowhere", "no checkpoint or run folder at 'nowhere'"),
    ("sample nowhere --num-images 0", "num_images must be at least 1 and below 2**63, but it is 0"),
    ("sample nowhere --best-of 0", "best_of must be at least 1"),
    ("sample nowhere --num-images 4 --pictures 3 4", "each of --pictures must be from 0 to 3"),
    ("train --epochs 5 --steps 7", "--epochs and --steps both say how long to train"),
    ("train --epochs 0", "epochs must be more than 0"),
    ("evaluate nowhere", "no checkpoint or run folder at 'nowhere'"),
    (
        "evaluate nowhere --record nonsense",
        "the ledger has no generator called 'nonsense'; it has: bedrooms, bedrooms-shifted",
    ),
    ("evaluate /runs/mine --record mnist", "absolute path"),
    ("bench --rounds 0", "rounds must be at least 1, but it is 0"),
    ("bench --threads 0", "threads must be at least 1, but it is 0"),
    ("bench --base-width 0", "base_width must be at least 1"),
    ("bench --batch-size 1", "batch_size must be at least 2"),
    ("bench --sizes", "--sizes must be 32, 64 or both"),
    ("results --verdict no", "a verdict is one of reproduced, partly"),
    ("publish nowhere name --command x", "no checkpoint or run folder at 'nowhere'"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_gets_one_sentence(words, sentence, capsys):
    assert run(*words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("dcgan: ") and shown.err.count("\n") == 1
    assert sentence in shown.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --steps 0", "steps must be at least 1, but it is 0"),
        ("train --steps many", "many"),
        ("train --recipe", "--recipe"),
        ("train --image-size 64", "--image-size"),
        ("train --image-size 7 64", "image_size must be"),
        ("train --schedule both", "same_batch"),
        ("train --nonsense 1", "--nonsense"),
        ("prepare", "PATH"),
        ("prepare . --fit best", "centre"),
        ("sample", "required"),
        ("bench --sizes 33", "33"),
        ("recipes more", "more"),
    ],
)
def test_an_option_that_does_not_parse_ends_with_2(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*words.split())
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert (
        told in re.sub(r"[\s│]+", " ", shown.err)
        and "Traceback" not in shown.err
        and shown.out == ""
    )


def test_a_defect_keeps_its_traceback(monkeypatch):
    """Only the user's mistakes are put in a sentence."""
    monkeypatch.setattr(commands.Recipes, "run", lambda self: {}["a defect"])
    with pytest.raises(KeyError, match="a defect"):
        run("recipes")


@pytest.mark.drives("recipes")
def test_recipes_are_listed(capsys):
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [name, entry.image_set] for name, entry in recipes().items()
    ]
    assert all(
        f"{entry.config.steps:,} steps" in line
        for line, entry in zip(lines, recipes().values(), strict=True)
    )


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_fills_in_the_defaults_and_options_change_them(name):
    for words in (
        ["--recipe", name],
        [f"--recipe={name}"],
        ["--recipe", "paper-svhn", "--recipe=faces", "--recipe", name],
    ):
        parsed = cli.parse(["train", *words])
        assert (parsed.recipe, parsed.config) == (name, recipe(name).config)
    words = f"train --steps 7 --recipe {name} --image-size 64 48 --no-bn-affine"
    changed = cli.parse(words.split()).config
    model = dataclasses.replace(recipe(name).config.model, image_size=(64, 48), bn_affine=False)
    assert changed == dataclasses.replace(recipe(name).config, steps=7, model=model)


def test_help_shows_the_recipes_defaults(capsys):
    shown = []
    for name in ("mnist", "paper-svhn"):
        with pytest.raises(SystemExit):
            run("train", "--recipe", name, "--help")
        shown.append(re.sub(r"[\s│]+", " ", capsys.readouterr().out))
        config = recipe(name).config
        for option, value in (
            ("--learning-rate", config.learning_rate),
            ("--z-distribution", config.model.z_distribution),
            ("--steps", config.steps),
            ("--base-width", config.model.base_width),
        ):
            assert re.search(
                rf"{option} [^()]*(\([^)]*\)[^()]*)*\(default: {value}\)", shown[-1]
            ), option
    assert shown[0] != shown[1]


def test_prepare_tells_what_became_of_every_file(prepared, place, capsys):
    assert (
        run("prepare", "photos/mine", "--image-size", HEIGHT, WIDTH) == 0
    )  # already there: told again, not made again
    lines = capsys.readouterr().out.splitlines()
    told = [line.split(maxsplit=2) for line in lines if line.startswith("  ")]
    assert re.fullmatch(
        rf"mine: 25 images, 3 x {HEIGHT} x {WIDTH}; \d+ to train on, \d+ held out", lines[0]
    )
    assert sum(map(int, re.findall(r"(\d+) (?:to train on|held out)", lines[0]))) == 25
    assert sorted(told) == [
        ["ignored", "1", "not an image by name or content"],
        ["noted", "1", "transparency over white"],
        ["refused", "1", "not an image"],
        ["refused", "1", "too small"],
    ]
    report = Path(next(line for line in lines if line.startswith("every file")).split(": ")[1])
    assert (
        report.is_relative_to(place / "data") and len(json.loads(report.read_text())["kept"]) == 25
    )
    suggested = lines[-1].partition(": dcgan ")[2].split()
    assert cli.parse(suggested).config.model.image_size == (HEIGHT, WIDTH)
    assert suggested[suggested.index("--set") + 1] == prepared


@pytest.mark.drives("prepare")
def test_a_folder_of_any_script_is_prepared_with_its_splits(place, capsys):
    folder = place / "猫の写真"
    for at, name in enumerate(["Train/a/1", "Train/b/2", "val/a/3", "val/b/4", "TEST/b/5"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (at * 9, 7, 7)).save(folder / f"{name}.png")
    assert run("prepare", "猫の写真", "--image-size", 16, 16, "--max-pixels", 1600) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "猫の写真: 5 images, 3 x 16 x 16; 2 to train on, 2 held out, 1 to test on"
    assert lines[1] == "splits: as the folders say: TEST, Train, val"
    assert run("prepare", "猫の写真", "--name", "cats", "--max-pixels", 1599) == 2
    shown = capsys.readouterr().err
    assert "none of the 5 images of cats could be used: 5 x too many pixels" in shown


def test_a_run_is_scored_against_its_held_out_images(place, capsys):
    rng = np.random.default_rng(0)
    for folder in (Path("scored/train"), Path("scored/val"), Path("few/train"), Path("few/val")):
        folder.mkdir(parents=True)
        for number in range(3 if folder == Path("few/val") else 9):
            pixels = rng.integers(0, 256, (28, 18, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    words = [*TINY, "--steps", 4, "--score-every", 2, "--score-images", 7]
    assert run("train", "--set", "few", *words) == 2
    assert "at least 4 held-out images, but few has 3" in capsys.readouterr().err
    assert run("train", "--set", "scored", *words, "--run-dir", "scores") == 0
    lines = read_metrics(Path("scores/metrics.jsonl"))
    assert [line["step"] for line in lines if "kid" in line] == [2, 4]
    assert all(np.isfinite(line["kid"]) for line in lines if "kid" in line)


def test_a_prepared_set_is_replaced_only_when_asked(place, capsys):
    draw_folder(place / "my photos")
    assert run("prepare", "my photos", "--image-size", 16, 16) == 0
    assert "my-photos: 25 images" in capsys.readouterr().out
    assert run("prepare", "my photos", "--image-size", 16, 16, "--channels", "1") == 2
    assert "prepared otherwise" in capsys.readouterr().err
    assert (
        run("prepare", "my photos", "--image-size", 16, 16, "--channels", "1", "--overwrite") == 0
    )
    assert "1 x 16 x 16" in capsys.readouterr().out


def test_a_run_holds_what_its_last_line_promises(plain_run, capsys):
    config, about = load_config(plain_run)
    assert (config.steps, config.model.image_size, config.model.num_channels) == (
        3,
        (HEIGHT, WIDTH),
        3,
    )
    assert config.learning_rate == recipe("mnist").config.learning_rate, (
        "what was not given is the recipe's"
    )
    assert (about["image_set"], about["source"], about["channels"]) == ("mine", "mine", 3)
    assert [line["step"] for line in read_metrics(plain_run / "metrics.jsonl")] == [1, 2, 3]
    assert {path.name for path in (plain_run / "samples").iterdir()} == {
        "step-0000002.png",
        "step-0000003.png",
    }


def test_a_run_goes_on_where_it_stopped(prepared, capsys):
    words = ["train", "--set", prepared, *TINY, "--run-dir", "longer"]
    assert run(*words, "--steps", 2) == 0
    assert "2 of 2 steps" in capsys.readouterr().out
    assert run(*words, "--steps", 5) == 0
    assert capsys.readouterr().out.splitlines()[1] == "weights, samples and metrics: longer"
    assert [line["step"] for line in read_metrics(Path("longer/metrics.jsonl"))] == [1, 2, 3, 4, 5]
    assert run(*words, "--steps", 5, "--learning-rate", 0.01) == 2
    assert "a run with another learning_rate" in capsys.readouterr().err


@pytest.mark.drives("publish")
def test_a_finished_run_keeps_its_command_and_is_published_with_it(
    prepared, plain_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    assert run("publish", plain_run, "small") == 0
    card = (tmp_path / "small" / "card.md").read_text()
    command = re.search(r"\| made by \| `dcgan (.*)` \|", card)[1]
    assert f"--set {prepared}" in command and "--run-dir" not in command
    config, about = load_config(plain_run)
    assert cli.parse(command.split()).config == config
    assert about["command"] == f"dcgan {command}"


def test_people_think_in_epochs(prepared, capsys):
    words = ["train", "--set", prepared, *TINY, "--num-images", 18, "--run-dir", "epochs"]
    assert run(*words, "--epochs", 2.5) == 0  # 18 images are two batches of 8
    assert capsys.readouterr().out.startswith("5 of 5 steps")


def test_what_was_found_for_a_run_is_said(prepared, capsys):
    words = ["train", "--set", prepared, *TINY, "--steps", 1, "--run-dir", "found"]
    assert run(*words) == 0
    found = re.search(
        r"training on cpu in (float32|bfloat16), CPU threads: 1", capsys.readouterr().err
    )
    assert load_config("found")[1]["precision"] == found[1]
    assert run(*words, "--device", "cuda:99") == 2
    assert "device 'cuda:99' is not available here" in capsys.readouterr().err


@pytest.mark.drives("train")
def test_a_folder_can_be_named_in_place_of_a_set(place):
    draw_folder(place / "raw")
    assert run("train", "--set", place / "raw", *TINY, "--steps", 1) == 0
    assert (place / "runs" / "mnist-raw" / "generator.safetensors").is_file()


def test_a_set_of_another_shape_is_named(prepared, capsys):
    assert run("train", "--set", prepared, "--steps", 1) == 2
    shown = capsys.readouterr().err
    assert (
        "was prepared at (20, 12) with 3 channels; asked for (32, 32) with 1" in shown
        and shown.count("\n") == 1
    )


def test_a_run_is_refused_where_it_cannot_be_kept(prepared, place, capsys):
    (place / "file").write_text("in the way")
    for folder in ("file", "file/run"):
        assert run("train", "--set", prepared, *TINY, "--steps", 1, "--run-dir", folder) == 2
        shown = capsys.readouterr()
        assert "choose another --run-dir" in shown.err and "Traceback" not in shown.err
    assert (place / "file").read_text() == "in the way"


def test_trouble_is_reported_as_such(prepared, capsys):
    words = ["--weight-decay", 1e40, "--steps", 5, "--run-dir", "trouble"]
    assert run("train", "--set", prepared, *TINY, *words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("dcgan: training stopped at step 1: ")
    assert "is no longer a finite number" in last and "weight_decay (1e+40)" in last


def test_tensorboard_that_is_not_installed_is_told_before_work(monkeypatch, capsys):
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    assert run("train", "--set", "nowhere", "--tensorboard") == 2
    assert "pip install tensorboard" in capsys.readouterr().err


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_sample_makes_a_grid_of_any_number(plain_run, capsys):
    assert run("sample", plain_run) == 0
    assert capsys.readouterr().out == "64 pictures: samples.png\n"
    assert size_of("samples.png") == (8 * (WIDTH + 2) + 2, 8 * (HEIGHT + 2) + 2)
    assert (
        run("sample", plain_run, "--num-images", 7, "--columns", 2, "--out", "new/seven.png") == 0
    )
    assert size_of("new/seven.png") == (2 * (WIDTH + 2) + 2, 4 * (HEIGHT + 2) + 2)
    assert run("sample", plain_run, "--num-images", 1, "--out", "one.png") == 0
    assert capsys.readouterr().out.endswith("1 picture: one.png\n")
    assert size_of("one.png") == (WIDTH, HEIGHT)


def test_sample_separately_and_repeatably(plain_run, place, capsys):
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        assert (
            run("sample", plain_run, "--num-images", 3, "--separate", "--out", out, "--seed", seed)
            == 0
        )
    found = {out: [path.read_bytes() for path in sorted((place / out).iterdir())] for out in "abc"}
    assert found["a"] == found["b"] and not set(found["a"]) & set(found["c"])
    assert {path.name for path in (place / "a").iterdir()} == {
        f"00000{number}.png" for number in range(3)
    }
    assert size_of("a/000000.png") == (WIDTH, HEIGHT)
    assert run("sample", plain_run, "--num-images", 2, "--separate") == 0
    assert (
        capsys.readouterr().out.endswith("2 pictures: samples\n")
        and (place / "samples" / "000001.png").is_file()
    )


@pytest.mark.drives("sample")
def test_sample_draws_pictures_of_a_grid_again(plain_run, place):
    words = ["--num-images", 9, "--separate", "--seed", 3]
    assert run("sample", plain_run, *words, "--out", "nine") == 0
    weights = plain_run / "generator.safetensors"
    assert run("sample", weights, *words, "--pictures", 7, 2, "--out", "two") == 0
    nine, two = (
        [path.read_bytes() for path in sorted(Path(name).iterdir())] for name in ("nine", "two")
    )
    assert two == [nine[2], nine[7]]
    assert sorted(path.name for path in Path("two").iterdir()) == ["000002.png", "000007.png"]


def test_sample_picks_the_best_of_many(plain_run):
    for words in (
        ["--num-images", 8, "--out", "all"],
        ["--num-images", 2, "--best-of", 4, "--out", "best"],
    ):
        assert run("sample", plain_run, "--separate", *words) == 0
    everything = [path.read_bytes() for path in sorted(Path("all").iterdir())]
    best = [path.read_bytes() for path in sorted(Path("best").iterdir())]
    assert len(best) == 2 and set(best) < set(everything)


def test_sample_draws_the_class_that_is_asked_for(class_run, plain_run, capsys):
    for label in (0, 1):
        words = ["--label", label, "--num-images", 4, "--out", f"class-{label}.png"]
        assert run("sample", class_run, *words) == 0
    assert Path("class-0.png").read_bytes() != Path("class-1.png").read_bytes()
    capsys.readouterr()
    for folder, label, told in ((class_run, 2, "0 to 1, but it is 2"), (plain_run, 0, "left out")):
        assert run("sample", folder, "--label", label) == 2
        assert f"label must be {told}" in capsys.readouterr().err


def test_sample_says_where_it_cannot_write(plain_run, place, capsys):
    (place / "wall").write_text("")
    for words in (["--out", "wall/x.png"], ["--out", "x.nothing"], ["--out", "wall", "--separate"]):
        assert run("sample", plain_run, *words) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("dcgan: cannot write ") and shown.count("\n") == 1
    assert run("sample", plain_run, "--columns", 0) == 2
    assert "columns must be at least 1" in capsys.readouterr().err


@pytest.mark.drives("export")
def test_export_writes_a_script_for_pages(class_run, place, capsys):
    assert run("export", class_run, "--out", "page/model.js", "--precision", "half") == 0
    told = capsys.readouterr().out
    assert told.startswith("page/model.js: ") and ", half; off PyTorch's pixels by 0.0" in told
    text = (place / "page" / "model.js").read_text()
    assert text.startswith('(window.dcganModels ||= {})["classes"] = {"name":"classes"')
    assert (
        run("export", "nothing") == 2 and "no checkpoint or run folder" in capsys.readouterr().err
    )


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A ledger with two measurements of our own, one met and one missed."""
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    shared = {
        "unit": "%",
        "n": 10,
        "data": "test images",
        "command": "dcgan evaluate",
        "seconds": 1.0,
    }
    results.record("ours.mnist.recognised", Estimate(97.0, 96.0, 98.0), **shared)
    results.record("ours.probe.faces.female", Estimate(40.0, 39.0, 41.0), **shared)


def test_results_are_filtered(ledger, capsys):
    def rows(*words):
        assert run("results", *words) == 0
        text = capsys.readouterr().out
        found = [line.split()[0] for line in text.split("\n\n")[0].splitlines()[2:]]
        assert f"\n{len(found)} rows: " in text
        return found

    everything = rows()
    assert len(everything) == len(results.load_results()) > 50
    assert rows("--verdict", "met") == ["ours.mnist.recognised"]
    assert rows("--verdict", "missed") == ["ours.probe.faces.female"]
    assert rows("--section", "ours.probe.faces") == [
        "ours.probe.faces.female",
        "ours.probe.faces.age",
    ]
    assert rows("--section", "ours.mnist.", "--verdict", "not measured") == [
        "ours.mnist.entropy",
        "ours.mnist.kid",
        "ours.mnist.memorised",
        "ours.mnist.copies",
    ]
    in_chapter = rows("--chapter", 13)
    assert "ours.mnist.kid" in in_chapter and set(in_chapter) < set(everything)
    assert (
        set(rows("--section", "5.1"))
        <= {id for id in everything if not id.startswith("ours")}
        != set()
    )
    assert rows("--section", "nonsense") == []


@pytest.mark.drives("results")
def test_results_as_markdown(ledger, capsys):
    assert run("results", "--verdict", "met", "--markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| id | section |") and lines[2].startswith(
        "| ours.mnist.recognised |"
    )
    assert "97.0 [96.0, 98.0] %" in lines[2]


def test_evaluate_records_the_command_that_repeats_it(monkeypatch, capsys):
    from dcgan_lib.evaluation import generators

    recorded = {}
    monkeypatch.setattr(
        generators,
        "evaluate_generator",
        lambda checkpoint, **options: SimpleNamespace(text=lambda: f"measured {checkpoint}"),
    )
    monkeypatch.setattr(
        recording,
        "record_report",
        lambda report, name, command: recorded.update({name: command}),
    )
    words = "evaluate mnist --num-images 300 --seed 5 --features inception"
    words += " --held-out validation --record mnist"
    assert run(*words.split()) == 0
    assert capsys.readouterr().out == "measured mnist\n"
    again = cli.parse(recorded["mnist"].removeprefix("dcgan ").split())
    assert again == cli.parse(words.split())
    recorded.clear()
    assert run("evaluate", "mnist") == 0 and not recorded, "nothing is recorded unasked"


def test_a_wrong_record_is_refused_before_the_measurement(monkeypatch, capsys):
    from dcgan_lib.evaluation import generators

    monkeypatch.setattr(
        generators, "evaluate_generator", lambda *_, **__: pytest.fail("measured for nothing")
    )
    for words in ("evaluate mnist --record nonsense", "evaluate /tmp/run --record mnist"):
        assert run(*words.split()) == 2


@pytest.mark.drives("bench")
def test_bench_prints_rates(capsys):
    assert run("bench", "--sizes", 32, "--base-width", 2, "--batch-size", 2, "--rounds", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("32 x 32 pixels, ") and lines[0].endswith(" GFLOP a step of 2")
    assert [line.split()[0] for line in lines[2:]] == ["plain", "float32", "bfloat16"]


def start(words, *, buffered=True, **streams) -> subprocess.Popen:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(cli.__file__).parents[1]),
    }
    environment["PYTHONUNBUFFERED"] = "" if buffered else "1"
    code = "import sys; from dcgan_lib.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], env=environment, text=True, **streams
    )


def test_ctrl_c_keeps_the_run_and_the_same_command_resumes_it(prepared, capsys):
    words = ["train", "--set", prepared, *TINY, "--run-dir", "stopped"]
    child = start(
        [*words, "--steps", 1_000_000, "--sample-every", 1_000],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 300
    while (
        not read_metrics(Path("stopped/metrics.jsonl"))
        and child.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    told, log = child.communicate(timeout=300)
    assert child.returncode == 0 and "Traceback" not in log, log
    assert told.splitlines()[0].endswith("stopped by: interrupt")
    done = int(told.split(" of ")[0].replace(",", ""))
    assert 1 <= done < 1_000_000
    assert run("sample", "stopped", "--num-images", 2, "--out", "stopped.png") == 0
    assert run(*words, "--steps", done + 2) == 0
    assert [line["step"] for line in read_metrics(Path("stopped/metrics.jsonl"))] == list(
        range(1, done + 3)
    )


def test_ctrl_c_elsewhere_is_one_line(monkeypatch, capsys):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.Recipes, "run", interrupt)
    assert run("recipes") == 130
    assert capsys.readouterr().err == "dcgan: stopped; nothing half-written is kept\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_one_line_whatever_wrote(monkeypatch, capsys, number):
    def fail(self):
        raise OSError(number, os.strerror(number), "runs/x")

    monkeypatch.setattr(commands.Recipes, "run", fail)
    assert run("recipes") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"dcgan: cannot write runs/x ({os.strerror(number)}): make room")
    assert len(said.splitlines()) == 1
    monkeypatch.setattr(commands.Recipes, "run", lambda self: Path("nowhere").read_text())
    with pytest.raises(FileNotFoundError):  # a defect keeps its traceback
        run("recipes")


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_goes_away_is_no_error(buffered):
    """As `dcgan results | head` does, whether the first line fails or only the last flush."""
    end, ours = os.pipe()
    os.close(end)  # nobody reads: the first write fails
    with os.fdopen(ours, "w") as stream:
        child = start(["recipes"], buffered=buffered, stdout=stream, stderr=subprocess.PIPE)
        _, log = child.communicate(timeout=300)
    assert (child.returncode, log) == (0, "")


def test_user_errors_are_value_errors():
    """So that tyro, too, tells them in words when a setting is refused."""
    assert issubclass(UserError, ValueError)
