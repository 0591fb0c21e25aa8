"""Every chapter is fit to read: executed in order, free of this machine, described, asserting.

Each rule is a function that yields what is wrong with one chapter. The chapters of the book must
pass them all; a small chapter that breaks one rule on purpose must be caught by that rule and no
other.
"""

import ast
import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "extensions"))
from launch_cell import configured_address, launch_source  # noqa: E402

LAUNCH = launch_source(
    configured_address()
)  # fetches the library in Colab; not counted as the chapter's own code
CHAPTERS = sorted(BOOK.glob("**/*.ipynb"))

MAX_BYTES = 1_500_000
PAGE_COLUMNS = 80  # what a page shows of a line of code; the rest is cut off
UNCHECKED_SHARE = 0.2  # of the code cells, or two, may leave their output uncompared
PICTURES = {"image/png", "image/jpeg", "image/svg+xml"}
CONTROL = "application/vnd.jupyter.widget-view+json"
CONTROL_STATES = "application/vnd.jupyter.widget-state+json"
FIGURE_NAME = re.compile(r"fig-[a-z0-9]+(-[a-z0-9]+)+")
# A path from the root of a Unix system or a drive of a Windows one; not a closing tag, a fraction
# or an address.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w+/.:<\\)}$-])(?:/(?:[\w.@~-]+/)+[\w.@~-]*|~/\w+|[A-Z]:\\{1,2}(?:Users|Windows|Program)\b)"
)
DOWNLOADERS = {"urllib", "requests", "httpx", "wget", "gdown", "ftplib"}
NBVAL_WORDS = re.compile(r"\bNBVAL_(?!IGNORE_OUTPUT)|\bPYTEST_VALIDATE")


# --- reading a chapter ---
def code_cells(chapter: dict) -> list[dict]:
    return [
        cell for cell in chapter["cells"] if cell["cell_type"] == "code" and cell["source"].strip()
    ]


def outputs(chapter: dict) -> Iterator[dict]:
    for cell in code_cells(chapter):
        yield from cell["outputs"]


def own_cells(chapter: dict) -> list[dict]:
    """Return the code cells without the one that fetches the library."""
    return [cell for cell in code_cells(chapter) if cell["source"] != LAUNCH]


def parsed(cell: dict) -> ast.AST:
    """Return the cell's syntax tree, empty when it is not plain Python (a rule of its own reports
    that)."""
    try:
        return ast.parse(cell["source"])
    except SyntaxError:
        return ast.Module([], [])


def nodes(chapter: dict, kind: type | tuple[type, ...]) -> Iterator[ast.AST]:
    for cell in own_cells(chapter):
        yield from (node for node in ast.walk(parsed(cell)) if isinstance(node, kind))


def can_fail(node: ast.AST) -> bool:
    """Return whether the node is an assertion about a value that the code computes."""
    return isinstance(node, ast.Assert) and any(
        isinstance(part, ast.Name) for part in ast.walk(node.test)
    )


def is_unchecked(cell: dict) -> bool:
    tags = cell["metadata"].get("tags", [])
    return "nbval-ignore-output" in tags or "NBVAL_IGNORE_OUTPUT" in cell["source"]


def visible_text(chapter: dict) -> Iterator[str]:
    """Yield what a reader sees as text: sources, printed lines, values, captions; no encoded
    pictures."""
    for cell in chapter["cells"]:
        yield cell["source"]
        yield json.dumps(cell["metadata"], ensure_ascii=False)
    for output in outputs(chapter):
        yield output.get("text", "")
        yield from (
            str(value) for kind, value in output.get("data", {}).items() if kind not in PICTURES
        )


# --- the rules ---
def executed_in_order(chapter: dict) -> Iterator[str]:
    counts = [cell.get("execution_count") for cell in code_cells(chapter)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}: run every cell once, from the top"


def holds_code(chapter: dict) -> Iterator[str]:
    if not code_cells(chapter):
        yield "no code"


def no_stored_failures(chapter: dict) -> Iterator[str]:
    for output in outputs(chapter):
        if output["output_type"] == "error":
            yield f"a stored error: {output['ename']}"
        if output.get("name") == "stderr":
            yield f"stored stderr: {output['text'][:60]!r}"


def no_absolute_paths(chapter: dict) -> Iterator[str]:
    for text in visible_text(chapter):
        yield from (f"an absolute path: {match[0]!r}" for match in ABSOLUTE_PATH.finditer(text))


def figures_are_described(chapter: dict) -> Iterator[str]:
    names = []
    for cell in code_cells(chapter):
        num_pictures = sum(
            bool(PICTURES & set(output.get("data", {}))) for output in cell["outputs"]
        )
        if not num_pictures:
            continue
        described = cell["metadata"].get("mystnb", {})
        figure, image = described.get("figure", {}), described.get("image", {})
        names.append(figure.get("name", ""))
        if num_pictures > 1:
            yield f"{num_pictures} pictures in one cell share a description"
        if not FIGURE_NAME.fullmatch(names[-1]):
            yield f"a figure is named {names[-1]!r}: use fig-<chapter>-<what>"
        if len(figure.get("caption", "").split()) < 4:
            yield f"{names[-1]}: the caption states no claim"
        if len(image.get("alt", "").split()) < 3:
            yield f"{names[-1]}: no alt text that says what is seen"
    if len(names) != len(set(names)):
        yield "two figures share a name"


def markdown_images_have_alt_text(chapter: dict) -> Iterator[str]:
    for cell in chapter["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        if re.search(r"!\[\s*\]\(", cell["source"]):
            yield "an image in the text has no alt text"
        for block in re.findall(
            r"^(`{3,}|:{3,})\{(?:figure|image)\}(.*?)^\1", cell["source"], re.DOTALL | re.MULTILINE
        ):
            if not re.search(r"^:alt: *\S", block[1], re.MULTILINE):
                yield "a figure in the text has no :alt:"


def charts_turn_dark(chapter: dict) -> Iterator[str]:
    """Pages invert what is marked as a chart; grids of pictures must not be."""
    for cell in code_cells(chapter):
        calls = {
            ast.unparse(node.func) for node in ast.walk(parsed(cell)) if isinstance(node, ast.Call)
        }
        drawn = {call for call in calls if call.startswith("plotting.plot_")}
        marked = cell["metadata"].get("mystnb", {}).get("image", {}).get("classes") == "chart"
        if drawn and marked == ("plotting.plot_grids" in drawn):
            yield (
                f"{', '.join(sorted(drawn))}: mark charts, and only those, "
                "with the image's classes: chart"
            )


def asserts_something(chapter: dict) -> Iterator[str]:
    if not any(can_fail(node) for node in nodes(chapter, ast.Assert)):
        yield "no assertion about anything it computes"


def nbval_compares_it(chapter: dict) -> Iterator[str]:
    cells = code_cells(chapter)
    unchecked = [cell for cell in cells if is_unchecked(cell)]
    if len(unchecked) > max(2, int(UNCHECKED_SHARE * len(cells))):
        yield f"nbval compares no output of {len(unchecked)} of {len(cells)} cells"
    if any(can_fail(node) for cell in unchecked for node in ast.walk(parsed(cell))):
        yield "a cell that carries a claim is tagged nbval-ignore-output"
    for cell in cells:
        hidden = {"nbval-skip", "nbval-raises-exception", "raises-exception", "skip-execution"}
        if hidden & set(cell["metadata"].get("tags", [])) or NBVAL_WORDS.search(cell["source"]):
            yield "a cell is kept from nbval"


def is_plain_python(chapter: dict) -> Iterator[str]:
    for cell in code_cells(chapter):
        try:
            ast.parse(cell["source"])
        except SyntaxError as error:
            yield f"not plain Python (no !commands, no %magics): {(error.text or '').strip()!r}"


def code_fits_the_page(chapter: dict) -> Iterator[str]:
    for cell in code_cells(chapter):
        for line in cell["source"].splitlines():
            if len(line) > PAGE_COLUMNS:
                yield f"a line of {len(line)} columns: {line.strip()[:50]}"


def hides_no_warning(chapter: dict) -> Iterator[str]:
    for node in nodes(chapter, ast.Call):
        if ast.unparse(node.func).split(".")[-1] in {"filterwarnings", "simplefilter"}:
            yield "filters warnings: mend what warns"


def downloads_nothing(chapter: dict) -> Iterator[str]:
    for node in nodes(chapter, ast.Constant):
        if isinstance(node.value, str) and re.search(r"\b(https?|ftp)://", node.value):
            yield f"code names an address: {node.value[:60]!r}"
    for node in nodes(chapter, (ast.Import, ast.ImportFrom)):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
        if DOWNLOADERS & {name.split(".")[0] for name in names}:
            yield f"imports a downloader: {ast.unparse(node)}"


def controls_have_states(chapter: dict) -> Iterator[str]:
    stored = chapter["metadata"].get("widgets", {}).get(CONTROL_STATES, {}).get("state", {})
    for output in outputs(chapter):
        view = output.get("data", {}).get(CONTROL)
        if view and view["model_id"] not in stored:
            yield "a control without its stored state shows nothing in the built page"


def runs_in_any_kernel(chapter: dict) -> Iterator[str]:
    if chapter["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernel must be called python3"


RULES = [
    holds_code,
    executed_in_order,
    no_stored_failures,
    no_absolute_paths,
    figures_are_described,
    markdown_images_have_alt_text,
    charts_turn_dark,
    asserts_something,
    nbval_compares_it,
    is_plain_python,
    code_fits_the_page,
    hides_no_warning,
    downloads_nothing,
    controls_have_states,
    runs_in_any_kernel,
]


def problems(path: Path) -> dict[str, list[str]]:
    """Return what each rule finds wrong with a chapter; rules that find nothing are left out."""
    chapter = nbformat.read(path, as_version=4)
    nbformat.validate(chapter)
    found = {rule.__name__: list(rule(chapter)) for rule in RULES}
    if path.stat().st_size >= MAX_BYTES:
        found["is_small"] = [f"{path.stat().st_size:,} bytes ({MAX_BYTES:,} at most)"]
    return {name: listed for name, listed in found.items() if listed}


# --- the book ---
def test_book_has_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_fit_to_read(path):
    assert problems(path) == {}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_where_it_came_alone(path):
    first = code_cells(nbformat.read(path, as_version=4))[0]
    assert first["source"] == LAUNCH, "run: python book/extensions/launch_cell.py"


def pages_in_toc(entry: dict) -> Iterator[str]:
    """Yield every page that a table of contents names, in reading order."""
    yield from (entry[key] for key in ("root", "file") if key in entry)
    for key in ("parts", "chapters", "sections", "subtrees", "entries"):
        for child in entry.get(key, []):
            yield from pages_in_toc(child)


def test_contents_name_every_page_and_no_other():
    named = list(pages_in_toc(yaml.safe_load((BOOK / "_toc.yml").read_text())))
    there = [
        path.relative_to(BOOK).with_suffix("").as_posix()
        for path in (*CHAPTERS, *BOOK.glob("*.md"))
    ]
    assert sorted(named) == sorted(there)


def test_front_page_marks_the_chapters_that_are_there():
    marked = re.findall(
        r"^\| \{doc\}`\d+\. .* <(.*)>` \|.*\*\*here\*\* \|$",
        (BOOK / "index.md").read_text(),
        re.MULTILINE,
    )
    assert marked == sorted(path.stem for path in CHAPTERS)


def test_chapters_are_named_and_ordered_by_number():
    named = pages_in_toc(yaml.safe_load((BOOK / "_toc.yml").read_text()))
    chapters = [name for name in named if (BOOK / f"{name}.ipynb").exists()]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", name) for name in chapters) and chapters == sorted(
        chapters
    )


def test_pages_name_no_path_of_a_machine():
    found = {
        page.name: ABSOLUTE_PATH.findall(page.read_text(encoding="utf-8"))
        for page in BOOK.glob("*.md")
    }
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_book_has_no_static_folder():
    assert not (BOOK / "_static").exists(), (
        "Jupyter Book would load its scripts twice on every page: use book/assets"
    )


def test_bibliography_has_no_key_twice():
    keys = re.findall(
        r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(keys) > 1 and len(keys) == len(set(keys))


# --- wrong twins ---
def good_chapter() -> nbformat.NotebookNode:
    """Return a small chapter that every rule accepts."""
    v4 = nbformat.v4
    compute = v4.new_code_cell(
        "total = sum(range(5))\nprint('total:', total)\nassert total == 10", execution_count=1
    )
    compute.outputs = [v4.new_output("stream", name="stdout", text="total: 10\n")]
    draw = v4.new_code_cell("show(total)", execution_count=2)
    draw.outputs = [v4.new_output("display_data", data={"image/png": "QUJD/tmp/dir/abc="})]
    figure = {"name": "fig-03-total", "caption": "The total grows with n (n = 5)."}
    draw.metadata = {"mystnb": {"figure": figure, "image": {"alt": "One bar of height ten."}}}
    control = v4.new_code_cell("slider(total)", execution_count=3)
    control.outputs = [
        v4.new_output("display_data", data={CONTROL: {"model_id": "abc", "version_major": 2}})
    ]
    text = v4.new_markdown_cell(
        "# A chapter\n\nSee [the code](../dcgan_lib/config.py), 1/2 and/or <b>x</b>, https://a.org/b/c."
    )
    chapter = v4.new_notebook(cells=[text, compute, draw, control])
    chapter.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    chapter.metadata["widgets"] = {
        CONTROL_STATES: {"state": {"abc": {}}, "version_major": 2, "version_minor": 0}
    }
    return chapter


def written(chapter: nbformat.NotebookNode, folder: Path) -> Path:
    path = folder / "03_trial.ipynb"
    nbformat.write(chapter, path)
    return path


def add_code(chapter: nbformat.NotebookNode, source: str, *tags: str) -> None:
    count = len(code_cells(chapter)) + 1
    chapter.cells.append(
        nbformat.v4.new_code_cell(
            source, execution_count=count, metadata={"tags": list(tags)} if tags else {}
        )
    )


def add_text(chapter: nbformat.NotebookNode, source: str) -> None:
    chapter.cells.append(nbformat.v4.new_markdown_cell(source))


def add_output(chapter: nbformat.NotebookNode, kind: str, **values: object) -> None:
    chapter.cells[1].outputs.append(nbformat.v4.new_output(kind, **values))


def describe(chapter: nbformat.NotebookNode, part: str, **values: str) -> None:
    chapter.cells[2].metadata["mystnb"][part].update(values)


def repeat_figure(chapter: nbformat.NotebookNode) -> None:
    again = copy.deepcopy(chapter.cells[2])
    again.update(id="another", execution_count=4)
    chapter.cells.append(again)


def remove_cells(chapter: nbformat.NotebookNode) -> None:
    del chapter.cells[1:]


WRONG: list[tuple[str, Callable[[nbformat.NotebookNode], object]]] = [
    ("executed_in_order", lambda c: c.cells[2].update(execution_count=None)),
    ("executed_in_order", lambda c: c.cells[2].update(execution_count=7)),
    ("executed_in_order", lambda c: c.cells.reverse()),
    (
        "no_stored_failures",
        lambda c: add_output(c, "error", ename="ValueError", evalue="", traceback=[]),
    ),
    ("no_stored_failures", lambda c: add_output(c, "stream", name="stderr", text="a warning")),
    ("code_fits_the_page", lambda c: add_code(c, "total = " + "1 + " * 19 + "1")),
    ("no_absolute_paths", lambda c: add_code(c, "open('/home/someone/images')")),
    ("no_absolute_paths", lambda c: add_code(c, r"open('C:\\Users\\someone')")),
    ("no_absolute_paths", lambda c: add_text(c, "Images lie in `/data/sets/faces`.")),
    (
        "no_absolute_paths",
        lambda c: add_output(c, "stream", name="stdout", text="saved to /scratch/run/grid.png"),
    ),
    (
        "no_absolute_paths",
        lambda c: add_output(c, "display_data", data={"text/plain": "PosixPath('/opt/runs/a')"}),
    ),
    ("no_absolute_paths", lambda c: add_code(c, "open('~/images')")),
    ("figures_are_described", lambda c: c.cells[2].metadata.clear()),
    ("figures_are_described", lambda c: describe(c, "figure", name="Figure 1")),
    ("figures_are_described", lambda c: describe(c, "figure", caption="A plot")),
    ("figures_are_described", lambda c: describe(c, "image", alt="")),
    ("figures_are_described", repeat_figure),
    ("figures_are_described", lambda c: c.cells[2].outputs.append(c.cells[2].outputs[0])),
    ("markdown_images_have_alt_text", lambda c: add_text(c, "![](assets/a.png)")),
    (
        "markdown_images_have_alt_text",
        lambda c: add_text(c, "```{figure} assets/a.png\n:name: fig-03-a\n\nA claim.\n```"),
    ),
    ("charts_turn_dark", lambda c: c.cells[2].update(source="plotting.plot_curves(total)")),
    (
        "charts_turn_dark",
        lambda c: [
            c.cells[2].update(source="plotting.plot_grids(total)"),
            describe(c, "image", classes="chart"),
        ],
    ),
    ("asserts_something", lambda c: c.cells[1].update(source="print('total:', 10)")),
    (
        "asserts_something",
        lambda c: c.cells[1].update(source="assert True, 'always'\nassert 1 < 2"),
    ),
    (
        "nbval_compares_it",
        lambda c: [add_code(c, f"print({i})", "nbval-ignore-output") for i in range(3)],
    ),
    ("nbval_compares_it", lambda c: add_code(c, "assert total == 10", "nbval-ignore-output")),
    ("nbval_compares_it", lambda c: add_code(c, "# NBVAL_IGNORE_OUTPUT\nassert total == 10")),
    ("nbval_compares_it", lambda c: add_code(c, "# NBVAL_SKIP\ntotal += 1")),
    ("nbval_compares_it", lambda c: add_code(c, "total += 1", "raises-exception")),
    ("is_plain_python", lambda c: add_code(c, "!pip install torch")),
    ("is_plain_python", lambda c: add_code(c, "%pip install torch")),
    ("is_plain_python", lambda c: add_code(c, "%%time\ntotal += 1")),
    (
        "hides_no_warning",
        lambda c: add_code(c, "import warnings\nwarnings.filterwarnings('ignore')"),
    ),
    ("downloads_nothing", lambda c: add_code(c, "load('https://a.org/weights.pt')")),
    ("downloads_nothing", lambda c: add_code(c, "from urllib.request import urlretrieve")),
    ("controls_have_states", lambda c: c.metadata.widgets[CONTROL_STATES]["state"].clear()),
    ("controls_have_states", lambda c: c.metadata.pop("widgets")),
    ("runs_in_any_kernel", lambda c: c.metadata.kernelspec.update(name="my-env")),
    ("is_small", lambda c: add_text(c, "word " * (MAX_BYTES // 5))),
]


def test_good_chapter_passes(tmp_path):
    assert problems(written(good_chapter(), tmp_path)) == {}


@pytest.mark.parametrize(
    ("rule", "spoil"), WRONG, ids=[f"{rule}-{number}" for number, (rule, _) in enumerate(WRONG)]
)
def test_spoilt_chapter_is_caught_by_its_rule_alone(rule, spoil, tmp_path):
    chapter = good_chapter()
    spoil(chapter)
    assert list(problems(written(chapter, tmp_path))) == [rule]


def test_chapter_without_code_is_caught(tmp_path):
    chapter = good_chapter()
    remove_cells(chapter)
    assert "holds_code" in problems(written(chapter, tmp_path))


def test_every_rule_has_a_wrong_twin():
    assert {rule.__name__ for rule in RULES} - {rule for rule, _ in WRONG} == {"holds_code"}
