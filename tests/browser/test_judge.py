"""The discriminator in Chromium, on a page of its own from a file: the judge's drawing by mouse,
finger and keys, the explorer's opinion of its own pictures, and a stand-in kernel."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib.models.sampling import logits_of
from dcgan_lib.training.checkpoints import load_discriminator, load_generator
from dcgan_lib.widgets.explorer import Explorer
from dcgan_lib.widgets.export import (
    export_judge,
    export_model,
    probabilities,
    write_script,
)
from dcgan_lib.widgets.judge import Judge, judge_html
from dcgan_lib.widgets.page import STYLE, classic_script, explorer_html, script

from .conftest import AXE

pytestmark = pytest.mark.browser
PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<title>Judge</title><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="explorer.css">
<style>body {{ margin: 16px; background: {ground}; font-family: sans-serif }}</style>
<script src="explorer.js" defer></script><script src="judge.js" defer></script></head>
<body><main><h1 style="color: #777">Page</h1>{body}</main></body></html>"""
SERIOUS = """async () => (await axe.run({ preload: false })).violations
  .filter(({ impact }) => impact === "serious" || impact === "critical")
  .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`)"""
STATE = "document.querySelector('.dcgan-judge').judge.state"
SEVEN = [[[0.2, 0.2], [0.8, 0.2], [0.4, 0.9]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A static page's folder with the digits' two networks."""
    place = tmp_path_factory.mktemp("page")
    models = place / "_static" / "models"
    write_script(export_model("mnist"), models / "mnist.js")
    write_script(export_judge("mnist"), models / "mnist-discriminator.js")
    Image.fromarray(Explorer("mnist").picture).save(models / "mnist.png")
    for widget in ("explorer", "judge"):
        (place / f"{widget}.js").write_text(classic_script(widget), encoding="utf-8")
    (place / "explorer.css").write_bytes(STYLE.read_bytes())
    return place


@pytest.fixture
def visit(browser):
    """Open pages in fresh profiles; each test ends with no error told and nothing asked of other
    places."""
    contexts, problems = [], []

    def note_request(request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "http://judge.test/")):
            problems.append(f"asked for {request.url}")

    def note_message(message) -> None:
        if message.type == "error":
            problems.append(message.text)

    def new_page(width=800, **options) -> object:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", note_message)
        page.on("request", note_request)
        return page

    yield new_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def show(visit, folder):
    """Open a page with a judge, or what else is given, and wait for its first opinion."""

    def open_page(body="", theme="light", **options) -> object:
        ground = {"light": "#fff", "dark": "#14181e"}[theme]
        text = PAGE.format(theme=theme, ground=ground, body=body or judge_html())
        (folder / "page.html").write_text(text)
        page = visit(**options)
        page.goto((folder / "page.html").as_uri())
        page.locator("[data-opinion]").first.wait_for()
        return page

    return open_page


def opinion(page, before: float | None = None) -> float:
    """Return D's opinion, once it is another than before."""
    if before is not None:
        page.wait_for_function(
            f"document.querySelector('[data-opinion]').dataset.opinion != '{before:.4f}'"
        )
    return float(page.get_attribute("[data-opinion]", "data-opinion"))


def seen_u8(page, selector: str) -> np.ndarray:
    """Return the red levels of a canvas, h x w."""
    code = """(canvas) => [canvas.width, canvas.height,
      [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]"""
    width, height, values = page.eval_on_selector(selector, code)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., 0]


def by_torch(x_u8: np.ndarray) -> float:
    return float(probabilities(logits_of(load_discriminator("mnist"), x_u8[None, None]))[0])


def draw_seven(page) -> None:
    box = page.locator(".dx-paper").bounding_box()
    place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN[0]]
    page.mouse.move(*place[0])
    page.mouse.down()
    for point in place[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()


# --- the judge ---
def test_a_hand_draws_and_the_opinion_follows(show):
    page = show()
    empty = opinion(page)
    assert empty == pytest.approx(by_torch(np.zeros((32, 32), np.uint8)), abs=1 / 255)
    draw_seven(page)
    drawn = opinion(page, empty)
    page.wait_for_timeout(500)
    strokes, drawn = page.evaluate(f"{STATE}.strokes"), opinion(page)
    assert len(strokes) == 1 and len(strokes[0]) > 20
    x_u8 = seen_u8(page, ".dx-seen")
    widget = Judge(strokes=strokes)
    assert np.abs(x_u8.astype(int) - widget.picture).max() <= 1
    assert drawn == pytest.approx(by_torch(x_u8), abs=1 / 255)
    widget.close()
    assert seen_u8(page, ".dx-sheet").max() == 255, "the sheet shows no ink"
    words = f"D: {drawn:.2f} real"
    assert page.inner_text(".dx-verdict") == words and page.inner_text("[aria-live]") == words
    meter = page.locator("[role=meter]")
    assert float(meter.get_attribute("aria-valuenow")) == pytest.approx(drawn, abs=1e-3)
    page.get_by_role("button", name="Clear").click()
    assert opinion(page, drawn) == empty
    page.wait_for_timeout(500)
    assert page.inner_text("[aria-live]").startswith("An empty picture. D: ")


def test_keys_alone_draw_undo_and_clear(show):
    page = show()
    page.evaluate("document.addEventListener('keydown', (event) => (window.heard = event.key))")
    before = opinion(page)
    page.get_by_role("button", name="Draw the digit 4").focus()
    page.keyboard.press("Enter")
    four = opinion(page, before)
    assert len(page.evaluate(f"{STATE}.strokes")) == 3
    page.get_by_role("button", name="Draw a star").focus()
    page.keyboard.press("Space")
    star = opinion(page, four)
    page.get_by_role("slider", name="Pen").focus()
    page.keyboard.press("ArrowRight")
    thick = opinion(page, star)
    page.get_by_label("Scale and centre").focus()
    page.keyboard.press("Space")
    opinion(page, thick)
    assert page.evaluate(f"[{STATE}.pen, {STATE}.fit]") == [2.8, False]
    page.get_by_role("button", name="Undo").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert page.evaluate(f"{STATE}.strokes") == [] and opinion(page) == before
    assert page.evaluate("window.heard") is None, "a key went on to the page around"


def test_a_pen_that_keys_move_draws(show):
    page = show()
    page.locator(".dx-paper").focus()
    for key in ("Shift+ArrowUp", "Space", "ArrowRight", "ArrowDown", "Space", "ArrowDown"):
        page.keyboard.press(key)
    stroke = [[0.5, 0.375], [0.5313, 0.375], [0.5313, 0.4063]]
    assert page.evaluate(f"{STATE}.strokes") == [stroke]
    page.keyboard.press("Space")
    page.keyboard.press("Backspace")
    assert page.evaluate(f"{STATE}.strokes") == [stroke], "only the second stroke goes"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{STATE}.strokes") == [stroke], "the pen is up again"


def test_a_finger_draws_and_does_not_scroll(show):
    page = show(width=390, has_touch=True, is_mobile=True)
    before, box = opinion(page), page.locator(".dx-paper").bounding_box()
    driver = page.context.new_cdp_session(page)
    for kind, y in (
        ("touchStart", 0.2),
        ("touchMove", 0.5),
        ("touchMove", 0.9),
        ("touchEnd", None),
    ):
        x = box["x"] + box["width"] / 2
        points = [] if y is None else [{"x": x, "y": box["y"] + y * box["height"]}]
        driver.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    opinion(page, before)
    assert page.evaluate(f"{STATE}.strokes.length") == 1 and page.evaluate("scrollY") == 0
    assert page.evaluate(f"{STATE}.strokes[0].length") >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_controls_have_names_and_contrast_and_fit(theme, width, show):
    both = judge_html(strokes=SEVEN) + explorer_html("mnist", discriminator=True)
    page = show(both, theme=theme, width=width)
    page.locator(".dcgan-explorer .dx-opinion").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    if not AXE.exists():
        pytest.skip("npm's scripts are missing")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate(SERIOUS) == []


def test_without_scripts_a_sentence_stays(visit, folder):
    body = PAGE.format(theme="light", ground="#fff", body=judge_html())
    (folder / "still.html").write_text(body)
    page = visit(java_script_enabled=False)
    page.goto((folder / "still.html").as_uri())
    assert "you draw a digit" in page.inner_text(".dcgan-judge p")


# --- the explorer ---
@pytest.mark.parametrize("mode", ["free", "walk", "maps"])
def test_the_explorer_shows_the_opinion_of_its_picture(mode, show):
    page = show(explorer_html("mnist", mode, discriminator=True, seed=3))
    page.wait_for_timeout(500)
    canvas = "figure:last-child canvas" if mode == "maps" else ".dx-stage canvas"
    first = opinion(page)
    assert first == pytest.approx(by_torch(seen_u8(page, canvas)), abs=1 / 255)
    if mode == "free":
        page.focus(".dx-pad")
        page.keyboard.press("Shift+ArrowRight")
    elif mode == "walk":
        page.focus(".dx-track input")
        page.keyboard.press("ArrowRight")
    else:
        page.click("text=All off")
    opinion(page, first)
    page.wait_for_timeout(600)
    moved = opinion(page)
    assert moved == pytest.approx(by_torch(seen_u8(page, canvas)), abs=1 / 255)
    words = page.inner_text(".dx-verdict")
    assert words.startswith("D: ") and page.inner_text(".dx-live").endswith(f". {words}")


def test_without_being_asked_the_explorer_loads_no_discriminator(visit, folder):
    text = PAGE.format(theme="light", ground="#fff", body=explorer_html("mnist"))
    (folder / "page.html").write_text(text)
    page, asked = visit(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / "page.html").as_uri())
    page.locator(".dcgan-explorer[data-ready]").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".dx-opinion").count() == 0
    assert not [url for url in asked if "discriminator" in url]


# --- a stand-in for the kernel ---
KERNEL = """
import widget from "./module.js";
const networks = JSON.parse(document.querySelector("#networks").textContent), listeners = {};
const tell = (event, ...given) => (listeners[event] ?? []).forEach((f) => f(...given));
const bytes = (about) => Uint8Array.from(atob(about.weights), (c) => c.charCodeAt(0));
window.kernel = {
  traits: TRAITS, saved: 0,
  get(key) { return this.traits[key]; },
  set(key, value) { this.traits[key] = value; },
  save_changes() { this.saved += 1; },
  on(event, f) { (listeners[event] ??= []).push(f); },
  off(event, f) { listeners[event] = listeners[event].filter((g) => g !== f); },
  send({ model, network }) {
    const about = networks[network], answer = { type: "weights", model, network, about };
    setTimeout(() => tell("msg:custom", answer, [new DataView(bytes(about).buffer)]));
  },
  fromPython(key, value) { this.traits[key] = value; tell(`change:${key}`); },
};
window.clean = widget.render({ model: kernel, el: document.querySelector("#cell") });
"""


@pytest.fixture
def with_kernel(visit, tmp_path):
    """Show a widget as anywidget does, with a stand-in for the kernel's half."""

    def open_page(widget, name: str, keys: list[str]) -> object:
        networks = {}
        for network, exported in (
            ("generator", export_model("mnist", "half")),
            ("discriminator", export_judge("mnist")),
        ):
            weights = base64.b64encode(exported.weights).decode()
            networks[network] = exported.about | {"weights": weights}
        traits = {key: getattr(widget, key) for key in keys}
        (tmp_path / "module.js").write_text(script(name))
        (tmp_path / "page.html").write_text(
            '<div id="cell"></div>'
            f'<script type="application/json" id="networks">{json.dumps(networks)}</script>'
            '<script type="module" src="kernel.js"></script>'
        )
        (tmp_path / "kernel.js").write_text(KERNEL.replace("TRAITS", json.dumps(traits)))
        page = visit()  # modules need http: the browser is answered from the folder
        page.route(
            "http://judge.test/*",
            lambda route: route.fulfill(path=tmp_path / route.request.url.split("/")[-1]),
        )
        page.goto("http://judge.test/page.html")
        page.locator("[data-opinion]").wait_for()
        return page

    return open_page


def test_python_and_the_drawing_follow_each_other(with_kernel):
    widget = Judge()
    page = with_kernel(widget, "judge.js", ["model", "strokes", "pen", "fit"])
    empty = opinion(page)
    page.evaluate("(strokes) => kernel.fromPython('strokes', strokes)", SEVEN)
    widget.strokes = SEVEN
    assert opinion(page, empty) == pytest.approx(widget.probability, abs=1 / 255)
    page.wait_for_timeout(500)
    assert page.evaluate("kernel.saved") == 0, "what Python says is not said back"
    page.get_by_role("button", name="Draw the digit 0").click()
    page.wait_for_function("kernel.saved == 1")
    widget.strokes = page.evaluate("kernel.traits.strokes")
    assert opinion(page) == pytest.approx(widget.probability, abs=1 / 255)
    page.evaluate("clean()")
    widget.close()


def test_a_notebook_s_explorer_asks_for_both_networks(with_kernel):
    widget = Explorer("mnist", seed=6, discriminator=True)
    keys = [key for key in Explorer.class_own_traits(sync=True) if key != "z"]
    page = with_kernel(widget, "explorer.js", keys)
    generator = load_generator("mnist")
    assert torch.is_tensor(widget.z_bd) and generator.config.num_channels == 1
    assert opinion(page) == pytest.approx(by_torch(widget.picture), abs=3 / 255)
    page.evaluate("clean()")
    widget.close()
