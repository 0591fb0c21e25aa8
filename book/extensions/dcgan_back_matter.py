"""Pages of the back matter that are written when the book is built, so that they do not go stale.

The list of figures comes from the chapters, the map of the code from its modules' docstrings, the
API page from the docstrings of what it names.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "dcgan_lib": "The package",
    "dcgan_lib/data": "Image sets",
    "dcgan_lib/data/drawn": "Drawn sets",
    "dcgan_lib/models": "Networks",
    "dcgan_lib/training": "Training",
    "dcgan_lib/evaluation": "Measuring",
    "dcgan_lib/interpretation": "Looking inside",
    "dcgan_lib/experiments": "What the book measures",
    "dcgan_lib/widgets": "Controls in the page",
    "book/extensions": "The built book",
}
"""What the map shows, in the order in which data becomes a page."""
MARK = "<!-- written when the book is built -->"
FIGURE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{figure\}.*?^:name: *(?P<name>\S+).*?\n\n(?P<caption>.*?)^(?P=fence)",
    re.DOTALL | re.MULTILINE,
)
# A sentence ends where the next one begins, and may be in bold.
SENTENCE = re.compile(r".+?[.?!](?:\*\*)?(?=\s+[^a-z\s]|\s*$)", re.DOTALL)
# How it was measured, in brackets at a sentence's end: it holds a number, or several parts.
PROTOCOL = re.compile(r"\s*\([^()]*[\d;][^()]*\)(?=\.$)")
PARAMETERS = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)
CHINESE = re.compile(r"<dt (?=[^>]*>[^<]*[\u4e00-\u9fff])")


class Figure(NamedTuple):
    """One figure of a page."""

    name: str
    caption: str


def first_sentence(text: str) -> str:
    """Return a text's first sentence, on one line; all of a text that has no end."""
    line = " ".join(text.split())
    found = SENTENCE.match(line)
    return found[0] if found else line


def heading_of(page: Path) -> str:
    """Return a page's title, behind its chapter's number."""
    if page.stem == "index":
        return "The front page"
    cells = nbformat.read(page, as_version=4).cells
    title = re.search(r"^# (.+)$", cells[0].source, re.MULTILINE)[1]
    return f"{int(page.stem[:2])}. {title}"


def figures_in(page: Path) -> Iterator[Figure]:
    """Yield a page's figures in reading order: those that cells draw, and those in the text."""
    if page.suffix == ".md":
        yield from _figures_in_text(page.read_text(encoding="utf-8"))
        return
    for cell in nbformat.read(page, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield from _figures_in_text(cell.source)
        elif figure := cell.metadata.get("mystnb", {}).get("figure"):
            yield Figure(figure["name"], figure["caption"])


def _figures_in_text(text: str) -> Iterator[Figure]:
    for found in FIGURE.finditer(text):
        yield Figure(found["name"], found["caption"])


def pages(book: Path) -> list[Path]:
    """Return the pages that may hold figures: the front page, then the chapters in their order."""
    return [book / "index.md", *sorted(book.glob("*.ipynb"))]


def version_of(path: Path) -> tuple[str, bool]:
    """Return the commit that changed a file last, and whether it was changed since.

    The commit is empty where git does not know.
    """

    def git(*words: str) -> str:
        try:
            command = ["git", "-C", str(path.parent), *words, "--", path.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return ""

    return git("log", "-1", "--format=%H").strip(), bool(git("status", "--porcelain"))


def source_link(path: str, commit: str, changed: bool, repository: str) -> str:
    """Return Markdown that leads to a file as it was; without an address, its path and version."""
    if not commit:
        return f"`{path}`"
    at = f"version `{commit[:7]}`" + (", changed since" if changed else "")
    if not repository:
        return f"`{path}`, {at}"
    return f"[`{path}`]({repository.rstrip('/')}/blob/{commit}/{path}), {at}"


def figure_list(book: Path, repository: str = "") -> str:
    """Return the list of figures as Markdown."""
    parts = []
    for page in pages(book):
        figures = list(figures_in(page))
        if not figures:
            continue
        path = page.relative_to(book.parent).as_posix()
        parts.append(f"## {heading_of(page)}\n")
        source = source_link(path, *version_of(page), repository)
        parts.append(f"{{doc}}`Read it <{page.stem}>`. Source: {source}\n")
        for name, caption in figures:
            said = PROTOCOL.sub("", first_sentence(caption)).replace("**", "")
            parts.append(f"- {{numref}}`{name}` {said}")
        parts.append("")
    return "\n".join(parts)


def summary_of(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(
            f"{path.name} has no docstring, so the map of the code cannot say what it is"
        )
    return first_sentence(docstring.split("\n\n")[0]).replace("``", "`")


def code_map(root: Path, folders: Sequence[str] = tuple(FOLDERS)) -> str:
    """Return every module with its first sentence, folder by folder, as Markdown."""
    parts = []
    for folder in folders:
        parts.append(f"### {FOLDERS[folder]}: `{folder}`\n\n| File | What it is |\n|---|---|")
        modules = sorted(path for path in (root / folder).glob("*.py") if path.stem != "__init__")
        package = root / folder / "__init__.py"
        for path in [package, *modules] if package.exists() else modules:
            parts.append(f"| `{path.name}` | {summary_of(path)} |")
        parts.append("")
    return "\n".join(parts)


def write_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what is written at build time in the place of a page's mark."""
    book = Path(app.srcdir)
    repository = app.config.html_theme_options.get("repository_url", "")
    writers: dict[str, tuple[Callable[[], str], list[Path]]] = {
        "figures": (lambda: figure_list(book, repository), pages(book)),
        "code_map": (lambda: code_map(ROOT), [p for f in FOLDERS for p in (ROOT / f).glob("*.py")]),
    }
    if docname in writers:
        write, read = writers[docname]
        before, _, after = source[0].partition(MARK)
        source[0] = before + write() + after
        for path in read:
            app.env.note_dependency(str(path))


class FieldSentences:
    """Keep the sentence under a field whole: Napoleon takes "word: text" there for a type."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def keep(
        self, app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
    ) -> None:
        """Remember the lines before Napoleon reads them."""
        self.lines = list(lines)

    def restore(
        self, app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
    ) -> None:
        """Put a field's lines back after it."""
        if what in ("attribute", "data", "property"):
            lines[:] = self.lines


def as_lines(body: str) -> str:
    """Turn a signature's parameters into lines; Sphinx makes them a list of meanings without terms,
    which screen readers read out as broken."""

    def lines(found: re.Match) -> str:
        inside = found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f'<span class="sig-lines">{inside}</span>'

    return PARAMETERS.sub(lines, body)


def mend(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Make signatures readable to everyone, and name the language of Chinese terms."""
    if pagename == "api" and "body" in context:
        context["body"] = as_lines(context["body"])
    if pagename == "glossary" and "body" in context:
        context["body"] = CHINESE.sub('<dt lang="zh-Hans" ', context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps above to the build."""
    fields = FieldSentences()
    app.connect("source-read", write_page)
    app.connect("autodoc-process-docstring", fields.keep, priority=400)
    app.connect("autodoc-process-docstring", fields.restore, priority=600)
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
