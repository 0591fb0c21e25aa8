"""The back matter: what is written at build time leaves nothing out, and what is written by hand
agrees with the library."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import dcgan_lib
from dcgan_lib.evaluation.ledger import VERDICTS

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "extensions"))
import dcgan_back_matter as back_matter  # noqa: E402

CHAPTERS = sorted(BOOK.glob("*.ipynb"))
CHINESE = re.compile(r"[\u4e00-\u9fff]")


# --- the map of the code ---
def mapped(text: str) -> set[str]:
    """Return the files that a map lists, each with its folder."""
    found, folder = set(), ""
    for line in text.splitlines():
        if heading := re.match(r"### .*`(.+)`$", line):
            folder = heading[1]
        if row := re.match(r"\| `(\S+\.py)` \| \S", line):
            found.add(f"{folder}/{row[1]}")
    return found


def test_map_of_the_code_has_every_module():
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dcgan_lib").rglob("*.py")}
    there |= {path.relative_to(ROOT).as_posix() for path in (BOOK / "extensions").glob("*.py")}
    assert mapped(back_matter.code_map(ROOT)) == there


def test_module_that_does_not_say_what_it_is_stops_the_map(tmp_path):
    folder = tmp_path / "dcgan_lib"
    folder.mkdir()
    (folder / "one.py").write_text('"""Say one thing. And another.\n\nMore.\n"""\n')
    assert "| `one.py` | Say one thing. |" in back_matter.code_map(tmp_path, ["dcgan_lib"])
    (folder / "two.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"two\.py has no docstring"):
        back_matter.code_map(tmp_path, ["dcgan_lib"])


def test_map_s_questions_point_at_files():
    page = (BOOK / "code_map.md").read_text(encoding="utf-8")
    table = page.partition("## Questions")[2].partition("Imports run")[0]
    named = re.findall(r"`([\w/.]+(?:\.\w+|/))`", table)
    places = (ROOT / "dcgan_lib", ROOT)
    assert len(named) > 20
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


# --- the list of figures ---
def test_list_has_every_figure_that_a_chapter_draws():
    listed = re.findall(r"^- \{numref\}`(\S+)` \S", back_matter.figure_list(BOOK), re.MULTILINE)
    drawn = [
        cell.metadata.mystnb.figure.name
        for path in CHAPTERS
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(drawn) > 50 and set(drawn) <= set(listed)
    assert {"fig-index-faces", "fig-forgetting-drawer"} <= set(listed), "those in the text as well"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("caption", "first"),
    [
        ("Samples get better. Grids of 16.", "Samples get better."),
        ("The KID falls by 0.5 (n = 5; seed 1). More.", "The KID falls by 0.5 (n = 5; seed 1)."),
        ("**All move.** Some do not.", "**All move.**"),
        ("One claim\nwithout an end", "One claim without an end"),
    ],
)
def test_first_sentence(caption, first):
    assert back_matter.first_sentence(caption) == first


def small_book(folder: Path) -> Path:
    """Write a front page and a chapter with one figure, under git."""
    book = folder / "book"
    book.mkdir()
    (book / "index.md").write_text("# Front\n")
    cell = nbformat.v4.new_code_cell("draw()")
    figure = {"name": "fig-one-thing", "caption": "It grows (n = 5, seed 0). The rest."}
    cell.metadata["mystnb"] = {"figure": figure}
    title = nbformat.v4.new_markdown_cell("(label)=\n# A title\n\nText.")
    nbformat.write(nbformat.v4.new_notebook(cells=[title, cell]), book / "03_one.ipynb")
    return book


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_figure_is_linked_at_the_version_that_made_it(tmp_path):
    book = small_book(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    made_at = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "other.txt").write_text("later")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "two")
    text = back_matter.figure_list(book, "https://host/name/")
    assert "## 3. A title" in text and "- {numref}`fig-one-thing` It grows." in text
    path = "book/03_one.ipynb"
    link = f"[`{path}`](https://host/name/blob/{made_at}/{path}), version `{made_at[:7]}`"
    assert link in text and "changed since" not in text
    assert f"`{path}`, version `{made_at[:7]}`" in back_matter.figure_list(book), "without address"
    (book / "03_one.ipynb").write_text((book / "03_one.ipynb").read_text() + "\n")
    assert "changed since" in back_matter.figure_list(book, "https://host/name")


def test_without_git_the_path_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    text = back_matter.figure_list(small_book(tmp_path))
    assert "Source: `book/03_one.ipynb`\n" in text and "version" not in text


# --- the glossary ---
def glossary() -> dict[str, tuple[list[str], str]]:
    """Return what stands under each English term: the other terms, and the definition."""
    page = (BOOK / "glossary.md").read_text(encoding="utf-8")
    body = page.partition(":sorted:\n\n")[2].rpartition("```")[0]
    entries = {}
    for block in body.strip().split("\n\n"):
        lines = block.splitlines()
        terms = [line for line in lines if not line.startswith(" ")]
        entries[terms[0]] = (terms[1:], " ".join(line.strip() for line in lines[len(terms) :]))
    return entries


def test_each_term_has_a_chinese_one_and_a_place_where_it_is_explained():
    entries = glossary()
    assert len(entries) >= 60
    for term, (others, definition) in entries.items():
        assert len(others) == 1 and CHINESE.search(others[0]), term
        assert re.search(r"\{(doc|ref)\}`", definition), term
        assert 1 <= len(re.findall(r"[.?!](?=\s|$)", definition)) <= 4, term


def test_glossary_has_the_ledger_s_words_and_no_other_verdict():
    entries = glossary()
    words = {term for term, (_, definition) in entries.items() if definition.startswith("Verdict")}
    assert words == set(VERDICTS)


# --- the API page ---
def documented() -> list[str]:
    page = (BOOK / "api.md").read_text(encoding="utf-8")
    return re.findall(r"^\.\. auto\w+:: ([\w.]+)", page, re.MULTILINE)


def test_api_page_has_what_the_package_exports():
    assert {f"dcgan_lib.{name}" for name in dcgan_lib.__all__} <= set(documented())


@pytest.mark.parametrize("name", documented())
def test_documented_name_is_where_the_page_says(name):
    place, _, last = name.rpartition(".")
    assert getattr(importlib.import_module(place), last).__doc__


def test_signature_s_parameters_are_lines_and_other_lists_stay():
    row = '<dd><em class="sig-param">x: <span>int</span></em>,</dd>\n'
    kept = "<dl><dt>term</dt><dd>meaning</dd></dl>"
    mended = back_matter.as_lines(f"({kept}\n<dl>\n{row}{row}</dl>)")
    assert kept in mended and mended.count('class="sig-line"') == 2
    assert mended.count("<dl") == mended.count("</dl>") == mended.count("<dd") == 1


def test_example_on_the_api_page_runs(tmp_path, monkeypatch):
    """As it stands there, but for a shorter run on fewer and smaller pictures."""
    page = (BOOK / "api.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    small = "TrainConfig(steps=1, batch_size=2, num_samples=1, model=ModelConfig(base_width=2))"
    changed = code.replace('replace(recipe("rooms").config, steps=300)', small)
    changed = changed.replace('load_image_set("rooms")', 'load_image_set("rooms", num_images=4)')
    changed = changed.replace("import fit,", "import ModelConfig, TrainConfig, fit,")
    assert changed.count("base_width") == changed.count("num_images") == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    exec(compile(changed, "api.md", "exec"), {})
    assert (tmp_path / "rooms.png").stat().st_size > 0
