"""The explorer in a static page: its script without modules, and the mount point with what readers see without it."""

import html
import json
from pathlib import Path
from typing import Any

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
MOUNT = 'for (const place of document.querySelectorAll(".dcgan-explorer")) mount(place);'


def classic_script() -> str:
    """Return ``explorer.js`` as a classic script that brings every mount point of a page to life, even from a file."""
    body, found, rest = (
        (FOLDER / "explorer.js")
        .read_text(encoding="utf-8")
        .rpartition("export default { render };")
    )
    if not found or rest.strip():
        raise AssertionError("the last line of explorer.js must be: export default { render };")
    start = f"const start = () => {{ {MOUNT} }};\n"
    when = 'document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();\n'
    return f"(() => {{\n{body}{start}{when}}})();\n"


def explorer_html(model: str, mode: str = "free", **state: Any) -> str:
    """Return the mount point of a static page: the explorer's settings, with a still picture and a sentence inside.

    Parameters
    ----------
    model, mode : str
        A checkpoint's name, and one of `MODES`.
    **state
        Further settings, such as ``seed=5``.
    """
    check_mode(mode)
    settings = html.escape(
        json.dumps({"model": model, "mode": mode, **state}, sort_keys=True), quote=True
    )
    name = html.escape(model, quote=True)
    still = f'<img src="_static/models/{name}.png" alt="A picture that the generator {name} draws" width="256" />'
    words = f"Here, with JavaScript, the generator {name} runs in this page: {MODES[mode]}."
    return f'<div class="dcgan-explorer" data-explorer="{settings}">{still}<p>{words}</p></div>'


def check_mode(mode: str) -> None:
    """Refuse a mode that does not exist."""
    if mode not in MODES:
        raise UserError(f"the explorer has no mode {mode!r}; choose one of: {', '.join(MODES)}")
