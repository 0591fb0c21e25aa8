"""The live explorer in the built book: its script and the generators that the pages name.

A page shows an explorer by the directive below, or by a notebook output of
`dcgan_lib.widgets.explorer.Explorer`.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dcgan_lib.training.checkpoints import find_run
from dcgan_lib.widgets import export, latents, page
from dcgan_lib.widgets.explorer import Explorer

MOUNT_POINT = re.compile(r'<div class="dcgan-explorer" data-explorer="([^"]*)"')
STILL_WIDTH = 256

logger = logging.getLogger(__name__)


def _value(text: str) -> Any:
    """Read an option: JSON where it is JSON, otherwise the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class ExplorerDirective(SphinxDirective):
    """Put an explorer on the page: ``{explorer} faces``, with the explorer's settings as
    options."""

    required_arguments = 1
    option_spec = dict.fromkeys(Explorer.setting_names(), _value)

    def run(self) -> list[nodes.Node]:
        """Return the mount point, which holds a still picture for pages without scripts."""
        settings = {"mode": "free", **self.options}
        return [nodes.raw("", page.explorer_html(self.arguments[0], **settings), format="html")]


class Explorers:
    """What the pages of one build show: each model's name, and whether its training's pictures are
    wanted."""

    def __init__(self) -> None:
        self.models: dict[str, bool] = {}

    def serve(
        self,
        app: Sphinx,
        pagename: str,
        templatename: str,
        context: dict[str, Any],
        doctree: object,
    ) -> None:
        """Give a page the explorer's script and style if it holds a mount point."""
        shown = [
            json.loads(html.unescape(found))
            for found in MOUNT_POINT.findall(context.get("body", ""))
        ]
        if not shown or app.builder.format != "html":
            return
        if not self.models:
            copy_script(Path(app.outdir) / "_static")
        for settings in shown:
            steps = "steps" in (settings.get("mode"), *settings.get("modes", ()))
            for name in (settings["model"], *settings.get("models", ())):
                self.models[name] = steps or self.models.get(name, False)
        app.add_js_file("explorer.js", defer="defer")
        app.add_css_file("explorer.css")

    def export(self, app: Sphinx, exception: Exception | None) -> None:
        """Write the generators that the pages name, unless the ones of an earlier build are still
        good."""
        for name, steps in sorted(self.models.items()) if exception is None else ():
            export_model_files(name, Path(app.outdir) / "_static" / "models", steps)


def copy_script(static: Path) -> None:
    """Write ``explorer.js`` as a script that works from ``file://`` too, and its style."""
    static.mkdir(parents=True, exist_ok=True)
    (static / "explorer.js").write_text(page.classic_script(), encoding="utf-8")
    (static / "explorer.css").write_bytes(page.STYLE.read_bytes())


def export_model_files(name: str, folder: Path, steps: bool) -> None:
    """Write one generator's script and its still picture, which is that of seed 0."""
    script, still = folder / f"{name}.js", folder / f"{name}.png"
    sources = [*Path(find_run(name)).rglob("*"), *page.FOLDER.glob("*.py")]
    newest = max(path.stat().st_mtime for path in sources)
    is_new = script.exists() and still.exists() and script.stat().st_mtime > newest
    if is_new and (not steps or '"samples":' in script.read_text(encoding="utf-8")):
        return
    exported = export.export_model(name, samples=steps)
    labels = np.zeros(1, int) if exported.config.num_classes else None
    z_nd = latents.seed_latent(0, exported.config)[None]
    picture = export.run_exported(exported, z_nd, labels)[0]
    pixels = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    scale = max(1, STILL_WIDTH // pixels.shape[1])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(still)
    export.write_script(exported, script)
    size = script.stat().st_size / 1e6
    logger.info(
        "explorer: %s, %s, %.1f MB, %s", name, exported.precision, size, exported.about["error"]
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps above to the build; pages are written by one process, which remembers what
    they show."""
    explorers = Explorers()
    app.add_directive("explorer", ExplorerDirective)
    app.connect("html-page-context", explorers.serve)
    app.connect("build-finished", explorers.export)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
