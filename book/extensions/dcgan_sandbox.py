"""The sandbox in the built book: a page that shows one gets its script and its style.

The mount point comes from a notebook output of `dcgan_lib.widgets.sandbox.Sandbox`.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from dcgan_lib.widgets.page import classic_script
from dcgan_lib.widgets.sandbox import SANDBOX_STYLE

MOUNT_POINT = '<div class="dcgan-sandbox"'


def serve(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Give a page the sandbox's script and style if it holds a mount point."""
    if app.builder.format != "html" or MOUNT_POINT not in context.get("body", ""):
        return
    copy_script(Path(app.outdir) / "_static")
    app.add_js_file("sandbox.js", defer="defer")
    app.add_css_file("sandbox.css")


def copy_script(static: Path) -> None:
    """Write ``sandbox.js`` as a script that works from ``file://`` too, and its style."""
    static.mkdir(parents=True, exist_ok=True)
    (static / "sandbox.js").write_text(classic_script("sandbox"), encoding="utf-8")
    (static / "sandbox.css").write_bytes(SANDBOX_STYLE.read_bytes())


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the step above to the build."""
    app.connect("html-page-context", serve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
