"""A transposed convolution, number by number: a control that needs no kernel of a notebook.

The engine and the page are ``transposed_convolution.js``; here are only the settings, kept in step
both ways.
"""

import html
import json
from typing import Any

import traitlets
from traitlets import Int

from dcgan_lib.errors import UserError
from dcgan_lib.widgets.page import FOLDER, PageWidget, script

# The least and the most of each setting, in the order of the documentation.
LIMITS = {
    "kernel_size": (2, 5),
    "stride": (1, 3),
    "padding": (0, 2),
    "output_padding": (0, 2),
    "size": (2, 5),
}
CONVOLUTION_STYLE = FOLDER / "transposed_convolution.css"


class TransposedConvolution(PageWidget):
    """Show which products make each output pixel of a transposed convolution.

    The settings mean what they mean for ``torch.nn.ConvTranspose2d``, with one channel, dilation 1
    and no bias. The defaults are those of DCGAN's layers.

    Parameters
    ----------
    kernel_size : int
        2 to 5.
    stride : int
        1 to 3.
    padding : int
        0 to 2: rows and columns that are cropped from each side of the output.
    output_padding : int
        0 to 2, and below the stride.
    size : int
        Side of the input, 2 to 5.

    Raises
    ------
    UserError
        If a setting is not one of those above, or no output pixel is left.
    """

    _esm = script("transposed_convolution.js")
    _css = CONVOLUTION_STYLE
    kernel_size = Int(5).tag(sync=True)
    stride = Int(2).tag(sync=True)
    padding = Int(2).tag(sync=True)
    output_padding = Int(1).tag(sync=True)
    size = Int(4).tag(sync=True)

    def __init__(self, **settings: Any) -> None:
        unknown = sorted(set(settings) - set(LIMITS))
        if unknown:
            raise UserError(
                f"a transposed convolution has no setting {unknown[0]!r}; "
                f"choose among: {', '.join(LIMITS)}"
            )
        whole = {}
        for name in LIMITS:
            whole[name] = settings.get(name, self.class_traits()[name].default())
        # Of a stride that a caller chose, the default output padding may be too much.
        if "output_padding" not in settings:
            whole["output_padding"] = min(whole["output_padding"], max(whole["stride"] - 1, 0))
        check_settings(**whole)
        super().__init__(**whole)

    @traitlets.validate(*LIMITS)
    def _valid_setting(self, proposal: dict[str, Any]) -> int:
        return _between(proposal["trait"].name, proposal["value"])

    def settings(self) -> dict[str, int]:
        """Return all settings."""
        return {name: getattr(self, name) for name in LIMITS}

    def __repr__(self) -> str:
        """Name all settings; the same on every machine."""
        words = [f"{name}={value}" for name, value in self.settings().items()]
        return f"TransposedConvolution({', '.join(words)})"

    def page(self) -> str:
        """Return the same control as HTML, for pages without a kernel."""
        return convolution_html(**self.settings())


def output_side(
    *, size: int, kernel_size: int, stride: int, padding: int, output_padding: int
) -> int:
    """Return the side of the output."""
    return (size - 1) * stride - 2 * padding + kernel_size + output_padding


def check_settings(**settings: int) -> None:
    """Refuse settings that no transposed convolution has, or that are too large to be shown."""
    for name, value in settings.items():
        _between(name, value)
    if settings["output_padding"] >= settings["stride"]:
        raise UserError(
            f"output_padding must be below the stride, but output_padding is "
            f"{settings['output_padding']} and stride is {settings['stride']}"
        )
    if output_side(**settings) < 1:
        raise UserError(
            f"padding {settings['padding']} crops the whole output: choose a smaller one"
        )


def convolution_html(**settings: int) -> str:
    """Return a static page's mount point: the settings, with a sentence inside."""
    text = html.escape(json.dumps(settings, sort_keys=True))
    words = (
        "Here, with JavaScript, an input, a kernel and the output of their transposed convolution "
        "stand side by side, and each output pixel shows the products that make it."
    )
    start = f'<div class="dcgan-transposed_convolution" data-settings="{text}">'
    return f"{start}<p>{words}</p></div>"


def _between(name: str, value: int) -> int:
    low, high = LIMITS[name]
    if not low <= value <= high:
        raise UserError(f"{name} must be from {low} to {high}, but it is {value!r}")
    return value
