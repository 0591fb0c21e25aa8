"""Figures of the book. Every function returns a Figure and shows nothing.

Axes: n images, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torchvision.utils import make_grid

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    from dcgan_lib.evaluation.ruler import Ladder

STYLE = str(files("dcgan_lib") / "book.mplstyle")
GUIDE = {"color": "0.4", "linewidth": 0.8}
MARKERS = "osD^vP*X"
HEADING = 0.7
"""Height of a group's heading in `plot_compared`, in rows."""
TICKS = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)


class BookFigure(Figure):
    """A figure that shows itself in a notebook; pyplot, with its global state, is left alone."""

    colours: int | None = None
    """Store the picture in a palette of so many colours, a third of the size; unset: all."""

    def _repr_png_(self) -> bytes:
        png, smaller = io.BytesIO(), io.BytesIO()
        with mpl.rc_context(fname=STYLE):
            self.savefig(png, format="png")
        if self.colours is None:
            return png.getvalue()
        Image.open(png).convert("RGB").quantize(self.colours).save(smaller, "PNG", optimize=True)
        return smaller.getvalue()


def _styled(draw: Any) -> Any:
    """Draw in the book's style and leave the reader's own settings alone."""

    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context(fname=STYLE):
            return draw(*args, **kwargs)

    return styled


def _note(panel: Axes, text: str, at: tuple[float, float], offset: tuple[float, float]) -> None:
    panel.annotate(text, at, xytext=offset, textcoords="offset points", color="0.3", fontsize=9)


def tile(images_u8: np.ndarray, columns: int) -> np.ndarray:
    """Lay images, uint8, n x c x h x w, in rows, two white pixels apart: uint8, h x w x 3."""
    if images_u8.dtype != np.uint8 or images_u8.ndim != 4 or not len(images_u8) or columns < 1:
        came = f"{images_u8.dtype} of shape {images_u8.shape} in {columns} columns"
        raise UserError(
            f"a grid takes images, uint8, n x c x h x w, in 1 column or more, but got {came}"
        )
    # A copy: torch warns of memory that is read-only.
    images_nchw = torch.from_numpy(np.array(images_u8))
    return make_grid(images_nchw, columns, padding=2, pad_value=255).permute(1, 2, 0).numpy()


@_styled
def plot_grids(
    groups: Mapping[str, np.ndarray],
    columns: int = 8,
    *,
    width: float = 8.0,
    colours: int | None = None,
) -> Figure:
    """Show groups of images, uint8, n x c x h x w, side by side, each under its title.

    A group, of images of one size, has ``columns`` in a row; the figure is ``width`` inches wide. A
    palette of ``colours``, at most 256, makes a smaller file.
    """
    if not groups:
        raise UserError("a figure needs at least one group of images, but got none")
    tiles = {title: tile(images, columns) for title, images in groups.items()}
    shares = [array.shape[1] / array.shape[0] for array in tiles.values()]
    height = width / sum(shares) + 0.35
    figure = BookFigure(figsize=(width, height), layout="constrained")
    figure.colours = colours
    panels = figure.subplots(1, len(tiles), width_ratios=shares, squeeze=False)[0]
    for panel, (title, array) in zip(panels, tiles.items(), strict=True):
        panel.imshow(array)
        panel.set_title(title)
        panel.axis("off")
    return figure


@_styled
def plot_estimates(
    rows: Mapping[str, tuple[float, float, float]],
    label: str,
    *,
    reference: tuple[str, float] | None = None,
) -> Figure:
    """Show values with their 95 % intervals, (value, low, high) by name, one row each.

    ``reference`` is a named value, drawn as a dashed line.
    """
    wrong = [name for name, (value, low, high) in rows.items() if not low <= value <= high]
    if not rows or wrong:
        raise UserError(
            "each row is value, low, high with low <= value <= high, "
            f"but {', '.join(wrong) or 'none came'}"
        )
    figure = BookFigure(figsize=(8.0, 0.8 + 0.42 * len(rows)), layout="constrained")
    panel = figure.subplots()
    for place, (value, low, high) in enumerate(rows.values()):
        interval = [[value - low], [high - value]]
        panel.errorbar(value, place, xerr=interval, fmt="o", color="C0", capsize=3)
    panel.set_yticks(range(len(rows)), list(rows))
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlabel(label)
    if reference:
        panel.axvline(reference[1], **GUIDE, linestyle="--")
        _note(panel, reference[0], (reference[1], -0.45), offset=(4, 0))
    return figure


@_styled
def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    *,
    reference: tuple[str, float] | None = None,
) -> Figure:
    """Show how a quantity falls as a count grows: points (x, y) by name, on logarithmic axes.

    A curve of one point is a mark; ``reference`` is a named y, drawn as a dashed line.
    """
    points = [point for curve in curves.values() for point in curve]
    numbers = [number for point in points for number in point]
    if not numbers or not all(number > 0 for number in numbers):
        raise UserError(
            f"logarithmic axes need positive numbers, but got {sorted(numbers)[:3] or 'no curve'}"
        )
    figure = BookFigure(figsize=(8.0, 3.6), layout="constrained")
    panel = figure.subplots()
    for place, (name, curve) in enumerate(curves.items()):
        marker = {"marker": MARKERS[place % len(MARKERS)], "markersize": 4}
        panel.loglog(*zip(*curve, strict=True), **marker, label=name)
    if reference:
        panel.axhline(reference[1], **GUIDE, linestyle="--")
        _note(panel, reference[0], (min(x for x, _ in points), reference[1]), offset=(4, 3))
    low, high = panel.get_ylim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    if high > 300 * low:
        ticks = [10**power for power in range(-9, 10) if low <= 10**power <= high]
    panel.set_yticks(ticks, [f"{tick:,g}" for tick in ticks])
    panel.yaxis.set_minor_formatter("")
    panel.set_xlabel(x_label)
    panel.set_ylabel(y_label)
    panel.legend(loc="best")
    return figure


@_styled
def plot_bands(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]],
    x_label: str,
    y_label: str,
    *,
    y_range: tuple[float, float] | None = None,
) -> Figure:
    """Show curves, (x, value, low, high), with their 95 % intervals as bands, by panel and name.

    A name keeps its colour and mark in every panel.
    """
    points = [point for curves in panels.values() for curve in curves.values() for point in curve]
    wrong = [point for point in points if not point[2] <= point[1] <= point[3]]
    if wrong or not panels or not all(panels.values()):
        raise UserError(
            f"each panel needs curves of x, value, low, high with low <= value <= high: {wrong[:1]}"
        )
    figure = BookFigure(figsize=(8.0, 3.1), layout="constrained")
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            place = names.index(name)
            x, value, low, high = np.array(curve).T
            style = {"color": f"C{place}", "marker": MARKERS[place % 5], "markersize": 4}
            axis.plot(x, value, **style, label=name)
            axis.fill_between(x, low, high, color=f"C{place}", alpha=0.18, linewidth=0)
        axis.set_title(title)
        axis.set_xlabel(x_label)
        if all(point[0] == round(point[0]) for point in points):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel(y_label)
    if y_range:
        axes[0].set_ylim(*y_range)
    axes[-1].legend(loc="best")
    return figure


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One row of `plot_compared` in one panel; all numbers are multiples of the reference."""

    points: tuple[float, ...]
    """One for each repeat."""
    interval: tuple[float, float] | None = None
    """Of their mean; None where there are too few repeats."""
    early: float | None = None
    """The mean at an earlier time, as a multiple of the reference at that time."""
    note: str = ""
    """What to say beside the row, in a word or two; a row with a note is drawn in colour."""


@_styled
def plot_compared(
    panels: Mapping[str, Mapping[str, Compared]],
    groups: Mapping[str, Sequence[str]],
    x_label: str,
    *,
    labels: tuple[str, str, str] = ("one repeat", "95 % interval", "mean, earlier"),
    limits: tuple[float, float] = (0.4, 8.0),
) -> Figure:
    """Show many rows beside a reference of 1, in groups, one panel for each title.

    The row's label stands above its marks, so that the figure is narrow enough for a phone. What
    lies outside ``limits`` is drawn at the edge, intervals with an arrow. Rows of a group that no
    panel has are left out, and so is a group without rows. A mark without a label is not explained.
    """
    there = {label for rows in panels.values() for label in rows}
    kept = {head: [each for each in rows if each in there] for head, rows in groups.items()}
    kept = {head: rows for head, rows in kept.items() if rows}
    numbers = [x for rows in panels.values() for row in rows.values() for x in row.points]
    if not kept or not all(number > 0 for number in numbers):
        raise UserError(
            "a comparison needs panels whose rows stand in a group, and multiples above 0, "
            f"but got {len(kept)} groups and {sorted(numbers)[:1]}"
        )
    num_lines = sum(len(rows) for rows in kept.values()) + HEADING * len(kept)
    figure = BookFigure(figsize=(4.8, 1.1 + 0.34 * num_lines), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    place, places, heads = 0.0, {}, {}
    for head, rows in kept.items():
        heads[head] = place + 0.45
        place += HEADING
        for label in rows:
            places[label] = place + 0.6
            place += 1
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        axis.set_xscale("log")
        axis.set_xlim(*limits)
        axis.set_ylim(place + 0.1, 0)
        ticks = [tick for tick in (0.25, 0.5, 1, 2, 4, 8, 16) if limits[0] <= tick <= limits[1]]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.yaxis.set_visible(False)
        axis.spines["left"].set_visible(False)
        axis.set_title(title)
        axis.axvline(1, **GUIDE, linestyle="--")
        for label, row in rows.items():
            if label in places:
                _draw_compared(axis, places[label], row, limits)
    axes[0].set_zorder(2)  # the labels run on over the next panel
    axes[0].patch.set_visible(False)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    lines = [(y, head, 9.5, "bold") for head, y in heads.items()]
    lines += [(y - 0.42, label, 8.5, "normal") for label, y in places.items()]
    for y, text, size, weight in lines:
        written = axes[0].annotate(
            text,
            (0, y),
            xycoords=("axes fraction", "data"),
            annotation_clip=False,
            va="center",
            bbox=box,
            fontsize=size,
            weight=weight,
        )
        written.set_in_layout(False)  # they need no room beside the panel
    marks = [
        Line2D([], [], marker="o", linestyle="", color="0.35", markersize=4.5),
        Line2D([], [], color="0.35", linewidth=1.6),
        Line2D([], [], marker="D", linestyle="", color="0.35", markersize=5, fillstyle="none"),
    ]
    shown = [(mark, label) for mark, label in zip(marks, labels, strict=True) if label]
    figure.legend(*zip(*shown, strict=True), loc="outside upper left", ncols=3, fontsize=8.5)
    figure.supxlabel(x_label, fontsize=9.5)
    return figure


def _draw_compared(axis: Axes, y: float, row: Compared, limits: tuple[float, float]) -> None:
    colour = "0.35" if not row.note else "C1" if np.mean(row.points) > 1 else "C0"
    low, high = limits
    style = {"color": colour, "clip_on": False}
    drawn = [*row.points]
    if row.interval is not None:
        drawn += row.interval
        ends = np.clip(row.interval, low * 1.01, high / 1.01)
        axis.plot(ends, [y, y], **style, linewidth=3 if row.note else 1.6, alpha=0.55)
        for bound, end, mark in zip(row.interval, ends, "<>", strict=True):
            if bound != end:
                axis.plot(end, y, mark, **style, markersize=5)
    if row.early is not None:
        drawn.append(row.early)
        at = np.clip(row.early, low, high)
        axis.plot(at, y, "D", **style, markersize=5, fillstyle="none", markeredgewidth=1)
    axis.plot(np.clip(row.points, low, high), [y] * len(row.points), "o", **style, markersize=4.5)
    first, last = np.clip([min(drawn), max(drawn)], low, high)
    on_the_left = first / low > high / last  # where there is more room
    place = {"x": low * 1.05, "ha": "left"} if on_the_left else {"x": high / 1.02, "ha": "right"}
    style = {"fontsize": 8, "color": "0.15", "va": "center"}
    style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # over an interval
    axis.text(y=y, s=row.note, **style, **place)


@_styled
def plot_ladders(
    panels: Mapping[str, "Sequence[Ladder]"],
    x_label: str,
    *,
    words: Mapping[str, str] | None = None,
    columns: int = 3,
) -> Figure:
    """Show how far away each kind of damage puts pictures, degree by degree, one panel a title.

    A panel's ladders begin at the same undamaged pictures, which are drawn as a band. Ladders that
    are not in order are dashed, and marked. ``words`` gives kinds other names.
    """
    ladders = [ladder for panel in panels.values() for ladder in panel]
    names = list(dict.fromkeys(ladder.kind for ladder in ladders))
    fewest = min((len(ladder.steps) for ladder in ladders), default=0)
    if not all(panels.values()) or fewest < 2:
        raise UserError(
            "each panel needs ladders of two steps or more, but got "
            f"{len(panels)} panels, {len(ladders)} ladders, and one of {fewest} steps"
        )
    rows = math.ceil(len(panels) / columns)
    size = (8.0, 0.7 + rows * (0.45 + 0.2 * len(names)))
    figure = BookFigure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        real = panel[0].distances[0]
        axis.axvspan(real.low, real.high, color="0.8", linewidth=0)
        for ladder in panel:
            _draw_ladder(axis, names.index(ladder.kind), ladder)
        axis.set_title(title)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    axes[0].set_xscale("symlog", linthresh=0.1, linscale=0.5)
    axes[0].set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    axes[0].set_yticks(range(len(names)), [(words or {}).get(name, name) for name in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    marks = [
        Line2D([], [], color="0.8", linewidth=6),
        Line2D([], [], color="C0", marker="o", markersize=5, fillstyle="none"),
        Line2D([], [], color="C0", marker="o", markersize=5),
        Line2D([], [], color="C1", marker="X", markersize=6, linestyle="--"),
    ]
    labels = ("undamaged", "slightly damaged", "badly damaged", "not in order")
    figure.legend(marks, labels, loc="outside upper left", ncols=4)
    figure.supxlabel(x_label, fontsize=10)
    return figure


def _draw_ladder(axis: Axes, place: int, ladder: "Ladder") -> None:
    worse = ladder.distances[1:]
    colour, line, marker = ("C0", "-", "o") if ladder.in_order else ("C1", "--", "X")
    values = [distance.value for distance in ladder.distances]
    axis.plot(values, [place] * len(values), line, color=colour, linewidth=1)
    for number, distance in enumerate(worse, start=1):
        interval = [[distance.value - distance.low], [distance.high - distance.value]]
        style = {"color": colour, "capsize": 2, "marker": marker, "markersize": 4.5}
        inside = colour if number == len(worse) else "white"
        axis.errorbar(distance.value, place, xerr=interval, **style, markerfacecolor=inside)
