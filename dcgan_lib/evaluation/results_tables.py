"""The ledger as a table: plain text for the command line, Markdown and HTML for the book."""

import html
import math
import textwrap
from collections.abc import Iterable, Sequence

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.claims import CLAIMS
from dcgan_lib.evaluation.results import Result
from dcgan_lib.evaluation.verdicts import VERDICTS

_COLUMNS = ("id", "section", "claim", "paper", "measured", "n", "data", "verdict")
_MARKS = {"reproduced": "●", "partly": "◐", "not reproduced": "○", "not measured": "-", "quoted": "”"}
_TEXT_COLUMNS = ("id", "section", "paper", "measured", "n", "verdict")
_CELL_WIDTH = 33
_RECALLED = "(recalled): the paper's number was not checked against a copy of it."


def select(
    results: Iterable[Result],
    *,
    section: str | None = None,
    verdict: str | None = None,
    chapter: int | None = None,
    ours: bool | None = None,
) -> tuple[Result, ...]:
    """Keep the rows that match every filter given.

    Parameters
    ----------
    results : iterable of Result
        From `load_results`.
    section : str, optional
        Start of a section ("6.3" keeps 6.3.1 and 6.3.2) or of an id ("table1").
    verdict : str, optional
        One of the five verdicts.
    chapter : int, optional
        A chapter of the book.
    ours : bool, optional
        True for our own figures only, False for the paper's claims only.

    Raises
    ------
    UserError
        If the verdict is none of the five.
    """
    if verdict is not None and verdict not in VERDICTS:
        raise UserError(f"a verdict is one of {', '.join(VERDICTS)}, but got {verdict!r}")
    kept = []
    for result in results:
        places = [part.strip() for part in result.section.split(",")]
        in_section = section is None or result.id.startswith(section) or any(p.startswith(section) for p in places)
        in_chapter = chapter is None or chapter in result.chapters
        is_ours = CLAIMS[result.id.partition(":")[0]].is_ours
        if in_section and in_chapter and verdict in (None, result.verdict) and ours in (None, is_ours):
            kept.append(result)
    return tuple(kept)


def format_measured(result: Result) -> str:
    """Write a value with its interval and unit, to the digits that the interval supports."""
    if not result.is_measured:
        return "not measured" if result.verdict == "not measured" else "-"
    half = (result.high - result.low) / 2
    decimals = 0 if half == 0 and result.value == int(result.value) else 1 - math.floor(math.log10(half or 0.01))
    decimals = min(max(decimals, 0), 6)
    unit = f" {result.unit}" if result.unit else ""
    value, low, high = (f"{x:,.{decimals}f}" for x in (result.value, result.low, result.high))
    return f"{value}{unit}" if low == high else f"{value} [{low}, {high}]{unit}"


def count_verdicts(results: Iterable[Result]) -> dict[str, int]:
    """Count the rows under each of the five verdicts, zeros included."""
    verdicts = [result.verdict for result in results]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def results_table(results: Sequence[Result]) -> str:
    """Lay rows out as plain text, one line each, with a line of totals and the commands for what is not measured."""
    cells = [_cells(result) | {"measured": format_measured(result)} for result in results]
    rows = [_TEXT_COLUMNS, *(tuple(row[name] for name in _TEXT_COLUMNS) for row in cells)]
    rows = [tuple(textwrap.shorten(cell, _CELL_WIDTH, placeholder=" ...") for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TEXT_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    totals = ", ".join(f"{count} {verdict}" for verdict, count in count_verdicts(results).items())
    waiting = [f"{row.id} is not measured: run {row.command}" for row in results if row.command and not row.is_measured]
    return "\n".join([*lines, "", f"{len(results)} rows: {totals}", *waiting, *_footnote(results)])


def results_markdown(results: Sequence[Result]) -> str:
    """Lay rows out as a Markdown table with every column."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for result in results:
        cells = _cells(result)
        lines.append("| " + " | ".join(cells[name].replace("|", "\\|").replace("\n", " ") for name in _COLUMNS) + " |")
    return "\n".join([*lines, "", *_footnote(results)]).rstrip()


def results_html(results: Sequence[Result], caption: str = "Claims and measurements") -> str:
    """Lay rows out as an HTML table; each verdict has a word and a mark, never a colour alone."""
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    body = []
    for result in results:
        cells = {name: html.escape(text) for name, text in _cells(result).items()}
        title = html.escape(result.notes, quote=True).replace("\n", "&#10;")
        others = "".join(f"<td>{cells[name]}</td>" for name in _COLUMNS[1:-1])
        body.append(
            f'<tr><th scope="row"><code>{cells["id"]}</code></th>{others}'
            f'<td class="verdict-{result.verdict.replace(" ", "-")}" title="{title}">{cells["verdict"]}</td></tr>'
        )
    return (
        f'<table class="ledger"><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in _footnote(results))
    )


def _footnote(results: Iterable[Result]) -> list[str]:
    return [_RECALLED] if any(result.paper_flag == "R" for result in results) else []


def _cells(result: Result) -> dict[str, str]:
    recalled = " (recalled)" if result.paper_flag == "R" else ""
    how = f": run {result.command}" if result.command and not result.is_measured else ""
    return {
        "id": result.id,
        "section": result.section,
        "claim": result.claim,
        "paper": result.paper + recalled,
        "measured": format_measured(result) + how,
        "n": f"{result.n:,}" if result.n else "-",
        "data": result.data or "-",
        "verdict": f"{_MARKS[result.verdict]} {result.verdict}",
    }
