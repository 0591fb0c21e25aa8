"""What only notebooks need: the library's own source on the page, and pictures that a slider steps through."""

import inspect
import io
import textwrap
from collections.abc import Callable, Mapping

import ipywidgets as widgets
import numpy as np
from IPython.display import Markdown
from PIL import Image


def show_source(*objects: Callable[..., object]) -> Markdown:
    """Return the library's own lines for display, docstrings left out.

    Parameters
    ----------
    *objects : callable
        Functions or classes of the library.
    """
    parts = []
    for thing in objects:
        source = textwrap.dedent(inspect.getsource(thing))
        if thing.__doc__:
            start = source.index('"""')
            end = source.index('"""', start + 3) + 3
            source = source[:start].rstrip() + source[end:]
        parts.append(source.strip())
    return Markdown("```python\n" + "\n\n\n".join(parts) + "\n```")


def png_bytes(pixels_hwc: np.ndarray, scale: int = 1) -> bytes:
    """Return an image as PNG, each pixel drawn ``scale`` x ``scale``."""
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(pixels_hwc, scale, 0), scale, 1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def step_through(pictures: Mapping[str, np.ndarray], description: str, *, scale: int = 1) -> widgets.VBox:
    """Return a slider over still pictures that works with and without a kernel.

    Parameters
    ----------
    pictures : mapping of str to ndarray
        Caption to pixels, h x w x 3 uint8, in the order of the slider.
    description : str
        The slider's name.
    scale : int, default 1
        Screen pixels to a pixel.
    """
    pages = [
        widgets.VBox([widgets.Label(caption), widgets.Image(value=png_bytes(pixels, scale), format="png")])
        for caption, pixels in pictures.items()
    ]
    stack = widgets.Stack(pages, selected_index=len(pages) - 1)
    style, layout = {"description_width": "initial"}, widgets.Layout(width="95%", max_width="32rem")
    slider = widgets.IntSlider(
        len(pages) - 1, 0, len(pages) - 1, description=description, style=style, layout=layout, readout=False
    )
    widgets.jslink((slider, "value"), (stack, "selected_index"))
    return widgets.VBox([slider, stack])
