"""The transposed convolution in the built book: a page that shows one gets its script and style.

The mount point comes from a notebook output of
`dcgan_lib.widgets.transposed_convolution.TransposedConvolution`.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from dcgan_lib.widgets.page import classic_script
from dcgan_lib.widgets.transposed_convolution import CONVOLUTION_STYLE

MOUNT_POINT = '<div class="dcgan-transposed_convolution"'


def serve(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Give a page the control's script and style if it holds a mount point."""
    if app.builder.format != "html" or MOUNT_POINT not in context.get("body", ""):
        return
    copy_script(Path(app.outdir) / "_static")
    app.add_js_file("transposed_convolution.js", defer="defer")
    app.add_css_file("transposed_convolution.css")


def copy_script(static: Path) -> None:
    """Write the script, which works from ``file://`` too, and its style."""
    static.mkdir(parents=True, exist_ok=True)
    script = classic_script("transposed_convolution")
    (static / "transposed_convolution.js").write_text(script, encoding="utf-8")
    (static / "transposed_convolution.css").write_bytes(CONVOLUTION_STYLE.read_bytes())


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the step above to the build."""
    app.connect("html-page-context", serve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
