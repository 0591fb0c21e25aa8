"""The pages that widgets are tried on: one from a disk, as in the book, and one with a stand-in for
the kernel, as in a notebook. The fixtures `show` and `live` of conftest.py open them."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dcgan_lib.widgets.page import classic_script

AXE = Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"
PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<title>Widgets</title><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="page.css">
<style>body {{ margin: 16px; background: {ground}; font-family: sans-serif }}</style>
{scripts}</head>
<body><main><h1 style="color: #777">Page</h1>{body}</main></body></html>"""
GROUNDS = {"light": "#fff", "dark": "#14181e"}

# A widget in a notebook must leave the page's address as it is, so the page has a real one. No
# server is asked for it, because the fixture `live` answers the browser.
NOTEBOOK = "http://notebook.test/"
NOTEBOOK_PAGE = """<!doctype html><html lang="en"><head><title>Notebook</title></head>
<body><main><h1>Notebook</h1><div id="cell"></div></main></body></html>"""
# Show a widget as anywidget does, with a stand-in for the kernel's half.
KERNEL = """async (state) => {
  const blob = new Blob([state._esm], { type: "text/javascript" });
  const { default: widget } = await import(URL.createObjectURL(blob));
  const listeners = {};
  const tell = (event, ...words) => (listeners[event] ?? []).forEach((listen) => listen(...words));
  // As in Jupyter, a change is heard at once, before the next one is set, whoever made it; a value
  // that is the same is no change.
  const set = (key, value) => {
    if (JSON.stringify(state[key]) === JSON.stringify(value)) return;
    state[key] = value;
    tell(`change:${key}`);
  };
  const model = {
    get: (key) => structuredClone(state[key]), // a copy: what is changed in it must also be set
    set,
    save_changes: () => { kernel.saved += 1; },
    on: (event, listen) => { (listeners[event] ??= []).push(listen); },
    off: (event, gone) => { listeners[event] = listeners[event].filter((one) => one !== gone); },
    send: async (request) => {
      kernel.asked += 1;
      const [answer, encoded] = await askPython(request);
      const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
      // The bytes begin at an odd place, as they may in a message: Python put one more before them.
      tell("msg:custom", answer, [new DataView(bytes.buffer, 1)]);
    },
  };
  window.kernel = { state, saved: 0, asked: 0, fromPython: set };
  const style = Object.assign(document.createElement("style"), { textContent: state._css });
  document.head.append(style);
  kernel.leave = widget.render({ model, el: document.querySelector("#cell") });
}"""
# `preload: false`, because a page from a disk may not read its own style sheet. Only rules that are
# experimental or of less weight need that.
SERIOUS = """async () => (await axe.run({ preload: false })).violations
  .filter(({ impact }) => impact === "serious" || impact === "critical")
  .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`)"""


@dataclass(frozen=True, kw_only=True)
class WidgetPage:
    """A page of widgets in a folder, to be opened from there."""

    folder: Path
    widgets: tuple[str, ...]
    """Whose scripts the page loads."""
    style: Path
    mount: str
    """What stands on the page where a test names nothing else."""
    ready: str
    """A selector of what is there once a widget is drawn."""

    def write(self, *mounts: str, theme: str = "light") -> str:
        """Write the page and return its address."""
        for widget in self.widgets:
            (self.folder / f"{widget}.js").write_text(classic_script(widget), encoding="utf-8")
        (self.folder / "page.css").write_bytes(self.style.read_bytes())
        scripts = "".join(f'<script src="{widget}.js" defer></script>' for widget in self.widgets)
        body = "".join(mounts or [self.mount])
        text = PAGE.format(theme=theme, ground=GROUNDS[theme], scripts=scripts, body=body)
        (self.folder / "page.html").write_text(text, encoding="utf-8")
        return (self.folder / "page.html").as_uri()


def need_npm() -> None:
    """Skip where npm's scripts are missing, but not in CI, which must have them."""
    if not AXE.exists() and not os.environ.get("CI"):
        pytest.skip("npm's scripts are missing: install npm and run `make book`")


def serious_faults(page: object) -> list[str]:
    """Return what axe-core finds serious or critical on a page, each with the elements' HTML."""
    need_npm()
    page.evaluate(AXE.read_text(encoding="utf-8"))
    return page.evaluate(SERIOUS)


def pixels(page: object, selector: str = ".dx-stage canvas") -> np.ndarray:
    """Return a canvas's own pixels, h x w x 3, in numbers that can be subtracted."""
    code = """(canvas) => [canvas.width, canvas.height,
      [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]"""
    width, height, values = page.eval_on_selector(selector, code)
    return np.array(values, np.int16).reshape(height, width, 4)[..., :3]
