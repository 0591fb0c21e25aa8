"""Widgets that need nothing but their script in the built book: a page gets those that it shows.

The mount points come from notebook outputs of the classes in `dcgan_lib.widgets`.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from dcgan_lib.widgets.page import FOLDER, classic_script

WIDGETS = ("sandbox", "transposed_convolution")


def serve(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Give a page the script and the style of each widget that has a mount point there."""
    if app.builder.format != "html":
        return
    for widget in WIDGETS:
        if f'<div class="dcgan-{widget}"' in context.get("body", ""):
            copy_script(widget, Path(app.outdir) / "_static")
            app.add_js_file(f"{widget}.js", defer="defer")
            app.add_css_file(f"{widget}.css")


def copy_script(widget: str, static: Path) -> None:
    """Write a widget's script, so that it works from ``file://`` too, and its style."""
    static.mkdir(parents=True, exist_ok=True)
    (static / f"{widget}.js").write_text(classic_script(widget), encoding="utf-8")
    (static / f"{widget}.css").write_bytes((FOLDER / f"{widget}.css").read_bytes())


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the step above to the build."""
    app.connect("html-page-context", serve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
