"""What only notebooks need: pictures to step through, choices and tables."""

import html
import io
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from PIL import Image

from dcgan_lib.errors import UserError


def webp_bytes(pixels_hwc: np.ndarray, scale: int = 1) -> bytes:
    """Return an image, uint8, h x w (x 3), as WebP, lossy but small, enlarged ``scale`` times."""
    is_grey_or_rgb = pixels_hwc.ndim == 2 or pixels_hwc.shape[2:] == (3,)
    if pixels_hwc.dtype != np.uint8 or not is_grey_or_rgb or scale < 1:
        came = f"{pixels_hwc.dtype} of shape {pixels_hwc.shape}, scale {scale}"
        raise UserError(
            f"a picture is uint8, h x w x 3 or h x w, at a scale of 1 or more, but got {came}"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(pixels_hwc, scale, 0), scale, 1)).save(
        buffer, "WEBP", quality=80
    )
    return buffer.getvalue()


def step_through(
    pictures: Mapping[str, np.ndarray], description: str, *, scale: int = 1, enlarged: int = 1
) -> widgets.VBox:
    """Return a slider over captioned pictures (uint8, h x w x 3) that works without a kernel.

    ``scale`` repeats pixels before a picture is stored; where the page is wide enough, the browser
    shows it ``enlarged`` times, which costs no bytes.
    """
    if not pictures:
        raise UserError("a slider needs at least one picture, but got none")
    last = len(pictures) - 1
    slider = widgets.IntSlider(
        last,
        0,
        last,
        description=description,
        style={"description_width": "initial"},
        layout=widgets.Layout(width="95%", max_width="32rem"),
        readout=False,
    )
    pages = []
    for caption, pixels in pictures.items():
        picture = widgets.Image(value=webp_bytes(pixels, scale), format="webp")
        if enlarged > 1:
            most = f"{pixels.shape[1] * scale * enlarged}px"
            picture.layout = widgets.Layout(width="100%", max_width=most, height="auto")
        pages.append(widgets.VBox([widgets.Label(caption), picture]))
    return widgets.VBox([slider, _stack(pages, slider, "value")])


def choose_page(pages: Mapping[str, str], description: str) -> widgets.VBox:
    """Return a list to choose from, and the chosen page of HTML, with and without a kernel."""
    if not pages:
        raise UserError("a choice needs at least one page, but got none")
    choice = widgets.Dropdown(
        options=list(pages),
        index=0,
        description=description,
        style={"description_width": "initial"},
        layout=widgets.Layout(width="95%", max_width="32rem"),
    )
    shown = [widgets.HTML(page) for page in pages.values()]
    return widgets.VBox([choice, _stack(shown, choice, "index")])


def html_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay cells of plain text out as a table, for `choose_page`."""
    style = ' style="padding: 0.1em 0.9em 0.1em 0; text-align: left"'
    rows = ["".join(f"<th{style}>{html.escape(head)}</th>" for head in heads)]
    rows += ["".join(f"<td{style}>{html.escape(cell)}</td>" for cell in line) for line in lines]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table style="margin: 0.5em 0">{body}</table>'


def choose_picture(
    pictures: Mapping[tuple[str, ...], np.ndarray], names: Sequence[str], *, scale: int = 1
) -> widgets.VBox:
    """Return buttons for several choices, and the picture for them, with and without a kernel.

    ``pictures``, uint8, h x w x 3, has a key for every combination: one option for each name. Where
    the page is wide enough, the browser enlarges ``scale`` times.
    """
    if not pictures or any(len(key) != len(names) for key in pictures):
        raise UserError(
            f"each picture needs one option for each of {', '.join(names) or 'no choices'}"
        )
    options = [list(dict.fromkeys(column)) for column in zip(*pictures, strict=True)]
    style = {"description_width": "5rem", "button_width": "auto"}
    choices = [
        widgets.ToggleButtons(options=labels, index=0, description=name, style=style)
        for name, labels in zip(names, options, strict=True)
    ]

    def page_of(chosen: tuple[str, ...]) -> widgets.Widget:
        """Return the picture of a full choice, or a stack of pages that the next choice turns."""
        depth, wide = len(chosen), {"width": "100%"}
        if depth < len(options):
            pages = [page_of((*chosen, option)) for option in options[depth]]
            return _stack(pages, choices[depth], "index", layout=widgets.Layout(**wide))
        if chosen not in pictures:
            raise UserError(
                f"there is no picture for {', '.join(chosen)}: every combination needs one"
            )
        most = f"{pictures[chosen].shape[1] * scale}px"
        layout = widgets.Layout(**wide, max_width=most, height="auto")
        picture = widgets.Image(value=webp_bytes(pictures[chosen]), format="webp", layout=layout)
        caption = widgets.Label(", ".join(chosen))
        return widgets.VBox([caption, picture], layout=widgets.Layout(**wide))

    return widgets.VBox([*choices, page_of(())])


def _stack(
    pages: Sequence[widgets.Widget], control: widgets.Widget, trait: str, **box: object
) -> widgets.Stack:
    """Return pages that a control turns, in the browser itself: it works without a kernel."""
    stack = widgets.Stack(pages, selected_index=getattr(control, trait), **box)
    widgets.jslink((control, trait), (stack, "selected_index"))
    return stack
