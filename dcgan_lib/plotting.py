"""Figures of the book. Every function returns a Figure and shows nothing.

Axes: n images, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

import io
import math
from collections.abc import Mapping, Sequence
from functools import wraps
from importlib.resources import files
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torchvision.utils import make_grid

from dcgan_lib.errors import UserError

STYLE = str(files("dcgan_lib") / "book.mplstyle")
GUIDE = {"color": "0.4", "linewidth": 0.8}
MARKERS = "osD^vP*X"
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
def plot_training(metrics: Sequence[Mapping[str, float]], *, smooth: int = 1) -> Figure:
    """Show a run's losses, and what the discriminator says of real and generated images.

    ``metrics`` come from ``read_metrics``; curves average over ``smooth`` lines. Dotted lines mark
    the discriminator's loss and its probability when it can only guess.
    """
    figure = BookFigure(figsize=(8.0, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = (
        (left, "d_loss", "discriminator", "-"),
        (left, "g_loss", "generator", "--"),
        (right, "d_real", "D(x), real images", "-"),
        (right, "d_fake", "D(G(z)), generated", "--"),
    )
    for panel, name, label, line in curves:
        lines = [entry for entry in metrics if name in entry]
        if not 1 <= smooth <= len(lines):
            raise UserError(
                f"{len(lines)} lines hold {name}, but smooth is {smooth}: it must be from 1 to that"
            )
        steps, values = ([entry[key] for entry in lines] for key in ("step", name))
        kernel = np.ones(smooth) / smooth
        panel.plot(steps[smooth - 1 :], np.convolve(values, kernel, "valid"), line, label=label)
    left.axhline(2 * math.log(2), **GUIDE, linestyle=":")
    right.axhline(0.5, **GUIDE, linestyle=":")
    right.set_ylim(0, 1)
    for panel, title in ((left, "loss"), (right, "probability of being real")):
        panel.set_title(title)
        panel.set_xlabel("step")
        panel.legend(loc="best")
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
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
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
