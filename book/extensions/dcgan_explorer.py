"""The live explorer and the judge in the built book: their scripts and the networks they name.

A page shows an explorer by the directive below, or by a notebook output of
`dcgan_lib.widgets.explorer.Explorer`; a judge by one of `dcgan_lib.widgets.judge.Judge`.
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

MOUNT_POINTS = {
    widget: re.compile(rf'<div class="dcgan-{widget}" data-{widget}="([^"]*)"')
    for widget in ("explorer", "judge")
}
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


class Networks:
    """What the pages of one build show: each generator's name, and whether its training's pictures
    are wanted; and the names of the discriminators."""

    def __init__(self) -> None:
        self.generators: dict[str, bool] = {}
        self.discriminators: set[str] = set()

    def serve(
        self,
        app: Sphinx,
        pagename: str,
        templatename: str,
        context: dict[str, Any],
        doctree: object,
    ) -> None:
        """Give a page the script and the style of each widget whose mount point it holds."""
        if app.builder.format != "html":
            return
        for widget, mount_point in MOUNT_POINTS.items():
            shown = mount_point.findall(context.get("body", ""))
            for found in shown:
                self.remember(widget, json.loads(html.unescape(found)))
            if shown:
                copy_script(Path(app.outdir) / "_static", widget)
                app.add_js_file(f"{widget}.js", defer="defer")
                app.add_css_file("explorer.css")

    def remember(self, widget: str, settings: dict[str, Any]) -> None:
        """Note which networks a mount point will ask for."""
        names = [settings["model"], *settings.get("models", ())]
        if widget == "judge" or settings.get("discriminator"):
            self.discriminators.update(names)
        if widget == "explorer":
            steps = "steps" in (settings.get("mode"), *settings.get("modes", ()))
            for name in names:
                self.generators[name] = steps or self.generators.get(name, False)

    def export(self, app: Sphinx, exception: Exception | None) -> None:
        """Write the networks that the pages name, unless the ones of an earlier build are still
        good."""
        if exception is not None:
            return
        folder = Path(app.outdir) / "_static" / "models"
        for name, steps in sorted(self.generators.items()):
            export_model_files(name, folder, steps)
        for name in sorted(self.discriminators):
            export_discriminator_file(name, folder)


def copy_script(static: Path, widget: str = "explorer") -> None:
    """Write a widget's script so that it works from ``file://`` too, and the style of both."""
    static.mkdir(parents=True, exist_ok=True)
    (static / f"{widget}.js").write_text(page.classic_script(widget), encoding="utf-8")
    (static / "explorer.css").write_bytes(page.STYLE.read_bytes())


def newest_source(name: str) -> float:
    """Return when a checkpoint or the code that exports it was changed last."""
    sources = [*Path(find_run(name)).rglob("*"), *page.FOLDER.glob("*.py")]
    return max(path.stat().st_mtime for path in sources)


def export_discriminator_file(name: str, folder: Path) -> None:
    """Write one discriminator's script."""
    script = folder / f"{export.discriminator_name(name)}.js"
    if script.exists() and script.stat().st_mtime > newest_source(name):
        return
    exported = export.export_judge(name)
    export.write_script(exported, script)
    size = script.stat().st_size / 1e6
    logger.info("discriminator: %s, %.1f MB, %s", name, size, exported.about["error"])


def export_model_files(name: str, folder: Path, steps: bool) -> None:
    """Write one generator's script and its still picture, which is that of seed 0."""
    script, still = folder / f"{name}.js", folder / f"{name}.png"
    is_new = script.exists() and still.exists() and script.stat().st_mtime > newest_source(name)
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
    networks = Networks()
    app.add_directive("explorer", ExplorerDirective)
    app.connect("html-page-context", networks.serve)
    app.connect("build-finished", networks.export)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
