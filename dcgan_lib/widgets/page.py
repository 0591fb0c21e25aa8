"""What the widgets' pages are made of: scripts, mount point, a form without a kernel."""

import html
import json
from pathlib import Path
from typing import Any

import anywidget

from dcgan_lib.errors import UserError

MODES = {
    "free": "a pad and sliders move through latent space",
    "walk": "a walk between latent vectors",
    "arithmetic": "the means of chosen pictures are added and subtracted",
    "turn": "rows of pictures move along one direction",
    "maps": "feature maps are switched off one by one",
    "steps": "stored pictures show its training",
}
FOLDER = Path(__file__).parent
RUN_NETWORKS = ("explorer.js", "judge.js")
STYLE = FOLDER / "explorer.css"
EXPORT = "export default { render };\n"
MOUNT = """\
const start = () => document.querySelectorAll(".dcgan-WIDGET").forEach((place) => mount(place));
document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
"""


def script(name: str) -> str:
    """Return a widget's script, a module: what it shares with others, then its own lines."""
    shared = ["elements.js"]
    if name in RUN_NETWORKS:
        shared.append("network.js")
    if name == "explorer.js":
        shared.append("tour.js")
    parts = [(FOLDER / part).read_text(encoding="utf-8") for part in [*shared, name]]
    return "".join(parts)


def classic_script(widget: str = "explorer") -> str:
    """Return a widget's script without modules; it mounts all of a page, of class dcgan-WIDGET."""
    body, found, rest = script(f"{widget}.js").rpartition(EXPORT)
    if not found or rest:
        raise AssertionError(f"the last line of {widget}.js must be: {EXPORT}")
    return f"(() => {{\n{body}{MOUNT.replace('WIDGET', widget)}}})();\n"


def explorer_html(model: str, mode: str = "free", **state: Any) -> str:
    """Return a static page's mount point: settings such as ``seed=5``, and a still picture."""
    check_mode(mode)
    settings = json.dumps({"model": model, "mode": mode, **state}, sort_keys=True)
    name = html.escape(model)
    source, alt = f"_static/models/{name}.png", f"A picture that the generator {name} draws"
    still = f'<img src="{source}" alt="{alt}" width="256" />'
    words = f"Here, with JavaScript, the generator {name} runs in this page: {MODES[mode]}."
    start = f'<div class="dcgan-explorer" data-explorer="{html.escape(settings)}">'
    return f"{start}{still}<p>{words}</p></div>"


def check_mode(mode: str) -> None:
    """Refuse a mode that does not exist."""
    if mode not in MODES:
        raise UserError(f"the explorer has no mode {mode!r}; choose one of: {', '.join(MODES)}")


class PageWidget(anywidget.AnyWidget):
    """A widget with a form that needs no kernel, whose name is the same on every machine."""

    _css = STYLE

    def page(self) -> str:
        """Return the HTML that stands in the widget's place where there is no kernel."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        data, about = shown if isinstance(shown, tuple) else (shown, {})
        return {**(data or {}), "text/plain": repr(self), "text/html": self.page()}, about
