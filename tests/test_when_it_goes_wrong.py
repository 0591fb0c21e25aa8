"""The page "When it goes wrong" quotes the library's own messages, and its short cures work."""

import ast
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dcgan_lib import cli, generate_u8, load_generator
from dcgan_lib.models.sampling import batch_norms, refresh_batch_norm, sample_latents, seeded

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "extensions"))
from launch_cell import launch_source  # noqa: E402

PAGE = (ROOT / "book" / "when_it_goes_wrong.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"```\{code-block\} text\n:class: message\n(.*?)\n```", PAGE, re.DOTALL)
SOURCES = [*(ROOT / "dcgan_lib").rglob("*.py"), *(ROOT / "book" / "extensions").glob("*.py")]
SCRIPTS = "\n".join(path.read_text() for path in (ROOT / "dcgan_lib").rglob("*.js"))
FEWEST_LETTERS = 12  # of its own, so that a text of gaps alone matches nothing


def templates_in(source: str) -> list[re.Pattern]:
    """Return every string of a program as a pattern, in which its values may be anything."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        pattern, letters = "", 0
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                pattern += re.escape(part.value)
                letters += len(part.value.strip())
            elif isinstance(part, ast.FormattedValue):
                pattern += ".*?"
        if letters >= FEWEST_LETTERS:
            found.append(re.compile(pattern))
    return found


@pytest.fixture(scope="module")
def templates() -> list[re.Pattern]:
    programs = [path.read_text(encoding="utf-8") for path in SOURCES]
    programs.append(launch_source(""))
    return [pattern for program in programs for pattern in templates_in(program)]


def is_said(message: str, templates: list[re.Pattern]) -> bool:
    """Return whether the library can say this; what follows "stopped at step N: " is looked up
    too."""
    said = message.removeprefix("dcgan: ")
    stopped = re.fullmatch(r"training stopped at step \d+: (.*)", said)
    if stopped:
        said = stopped[1]
    return said in SCRIPTS or any(pattern.fullmatch(said) for pattern in templates)


def test_page_quotes_messages():
    assert len(MESSAGES) > 15


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[:40])
def test_quoted_message_is_the_library_s(message, templates):
    assert is_said(message, templates)


def test_changed_message_is_noticed(templates):
    known = "'photos' has 38 images, fewer than one batch of 64: lower batch_size"
    assert is_said(known, templates)
    assert not is_said(known.replace("lower", "reduce"), templates)
    assert not is_said("anything at all, with 3 numbers: 1 2 3", templates)


def test_every_symptom_of_the_table_has_its_section():
    linked = re.findall(r"^\| \[.*\]\(#(wrong-[a-z-]+)\) \|", PAGE, re.MULTILINE)
    sections = re.findall(r"^\((wrong-[a-z-]+)\)=$", PAGE, re.MULTILINE)
    assert linked == sections and len(linked) > 10


def test_page_stands_after_the_machines():
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    front = [entry["file"] for entry in contents["parts"][0]["chapters"]]
    assert front.index("when_it_goes_wrong") == front.index("hardware") + 1


@pytest.fixture
def at_a_desk(tmp_path, monkeypatch):
    """An empty folder to work in, with an empty data folder."""
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


COMMANDS = re.findall(
    r"```bash\n([^`]*?)\n```\n\n```\{code-block\} text\n:class: message\n(.*?)\n```",
    PAGE,
    re.DOTALL,
)
CHEAP = ("dcgan sample faces", "mkdir notes", "--device cuda", "--image-size 512 512")


@pytest.mark.parametrize("start", CHEAP)
def test_command_gives_the_message_that_stands_below_it(start, at_a_desk, capsys):
    if start == "--device cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    [(command, message)] = [pair for pair in COMMANDS if start in pair[0]]
    lines = command.splitlines()
    if lines[0].startswith("mkdir"):
        Path("notes").mkdir()
        Path("notes/a.raw").touch()
        Path("notes/b.txt").touch()
    words = lines[-1].split()
    assert words[0] == "dcgan"
    try:
        status = cli.main(words[1:])
    except SystemExit as stop:  # a setting that cannot be read
        status = stop.code
    captured = capsys.readouterr()
    shown = " ".join((captured.err + captured.out).replace("│", " ").split())
    assert status == 2 and message in shown


def test_a_device_that_is_not_there_is_refused_before_images_are_drawn(at_a_desk, capsys):
    assert cli.main(["train", "--recipe", "rooms", "--device", "cuda:99"]) == 2
    assert "is not available here" in capsys.readouterr().err
    assert not Path("data").exists() and not Path("runs").exists()


def test_pictures_without_statistics_are_flat_until_they_are_measured():
    generator = load_generator("portraits")
    z_bd = sample_latents(16, generator.config, seeded(0))

    def contrast() -> float:
        return generate_u8(generator, z_bd).std(axis=(1, 2, 3)).mean()

    stored = contrast()
    for norm in batch_norms(generator):
        norm.reset_running_stats()
    assert contrast() < stored / 10
    refresh_batch_norm(generator)
    assert contrast() > 0.9 * stored
