"""The sandbox in Chromium, on a page of its own from a file: it draws, trains, obeys hands and
keys, and keeps its settings in the address."""

import json
from pathlib import Path

import pytest

from dcgan_lib.widgets.page import classic_script, script
from dcgan_lib.widgets.sandbox import SANDBOX_STYLE, Sandbox, sandbox_html

from .conftest import AXE, Visit

pytestmark = pytest.mark.browser
PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<title>Sandbox</title><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="sandbox.css">
<style>body {{ margin: 16px; background: {ground}; font-family: sans-serif }}</style>
<script src="sandbox.js" defer></script></head>
<body><main><h1 style="color: #777">Page</h1>{body}</main></body></html>"""
SERIOUS = """async () => (await axe.run({ preload: false })).violations
  .filter(({ impact }) => impact === "serious" || impact === "critical")
  .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`)"""
COLOURS = """() => {
  const canvas = document.querySelector(".sx-plane"), { width } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, width);
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 3).join());
  return seen.size;
}"""
PLACES = "JSON.stringify([...document.querySelector('.dcgan-sandbox').sandbox.game.generated()])"
SETTINGS = "JSON.stringify(document.querySelector('.dcgan-sandbox').sandbox.settings)"
# Show the widget as anywidget does, with a stand-in for the kernel's half.
SHOW = """async ([source, css, state]) => {
  const blob = new Blob([source], { type: "text/javascript" });
  const { default: widget } = await import(URL.createObjectURL(blob));
  const listeners = {};
  window.state = state;
  window.saved = 0;
  window.heard = [];
  document.addEventListener("keydown", (event) => window.heard.push(event.key));
  window.fromPython = (key, value) => {
    state[key] = value;
    (listeners[`change:${key}`] ?? []).forEach((listener) => listener());
  };
  const model = {
    get: (key) => structuredClone(state[key]),
    set: (key, value) => { state[key] = value; },
    save_changes: () => { window.saved += 1; },
    on: (name, listener) => (listeners[name] ??= []).push(listener),
    off: (name) => { delete listeners[name]; },
  };
  document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  const host = document.createElement("div");
  document.body.append(host);
  window.leave = widget.render({ model, el: host });
}"""


@pytest.fixture
def visit(browser):
    """Open pages in fresh profiles; each test ends with no error told and nothing asked of other
    places."""
    visits = []

    def new_page(**options) -> object:
        visits.append(Visit(browser, **options))
        return visits[-1].page

    yield new_page
    problems = [problem for one in visits for problem in one.problems]
    for one in visits:
        one.context.close()
    assert problems == []


@pytest.fixture
def show(visit, tmp_path: Path):
    """Open a page with sandboxes from a file and wait until the first is drawn."""
    (tmp_path / "sandbox.js").write_text(classic_script("sandbox"), encoding="utf-8")
    (tmp_path / "sandbox.css").write_bytes(SANDBOX_STYLE.read_bytes())

    def open_page(*mounts: str, theme="light", hash="", **options) -> object:
        ground = {"light": "#fff", "dark": "#14181e"}[theme]
        body = "".join(mounts or [sandbox_html()])
        (tmp_path / "page.html").write_text(PAGE.format(theme=theme, ground=ground, body=body))
        page = visit(**options)
        page.goto((tmp_path / "page.html").as_uri() + hash)
        page.locator(".dcgan-sandbox[data-ready]").first.wait_for()
        return page

    return open_page


def settings(page) -> dict:
    return json.loads(page.evaluate(SETTINGS))


def rounds(page) -> int:
    return int(page.locator(".dcgan-sandbox").first.get_attribute("data-rounds"))


def wait_for_rounds(page, most: int) -> None:
    page.wait_for_function(
        f"document.querySelector('.dcgan-sandbox').dataset.rounds > {most}", timeout=120_000
    )


def test_plays_pauses_steps_and_starts_again(show):
    page = show()
    assert page.evaluate(COLOURS) > 100, "the field is not drawn"
    at_first = page.evaluate(PLACES)
    page.get_by_role("button", name="Play").click()
    wait_for_rounds(page, 5)
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(200)
    reached = rounds(page)
    page.wait_for_timeout(200)
    assert rounds(page) == reached and page.evaluate(PLACES) != at_first
    page.get_by_role("button", name="One step").click()
    page.wait_for_function(
        f"document.querySelector('.dcgan-sandbox').dataset.rounds == {reached + 1}"
    )
    told = page.locator("[aria-live]").inner_text()
    assert f"Round {reached + 1:,}. G covers" in told and "D’s loss is" in told
    page.get_by_role("button", name="Reset").click()
    page.wait_for_timeout(200)
    assert rounds(page) == 0 and page.evaluate(PLACES) == at_first


def test_keyboard_alone_sets_and_plays(show):
    page = show()
    page.evaluate("document.addEventListener('keydown', (event) => (window.heard = event.key))")
    page.get_by_label("Learning rate").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("Real points").focus()
    page.keyboard.press("ArrowDown")
    assert (settings(page)["learning_rate"], settings(page)["target"]) == (0.005, "grid9")
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Space")
    wait_for_rounds(page, 2)
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Play").is_visible()
    page.locator(".sx-stage").focus()
    for key in ("ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert "At (0.10, 0.50) D says: real with probability" in (
        page.locator("[aria-live]").inner_text()
    )
    assert page.evaluate("window.heard") is None, "a key went on to the page around"


def test_reader_draws_by_mouse_and_by_keys(show):
    page = show(sandbox_html(target="own", points=[[0.5, 0.5]]))
    page.get_by_role("button", name="Clear the drawing").click()
    page.get_by_role("button", name="Play").click()
    assert "Draw some points first" in page.locator("[aria-live]").inner_text()
    place = page.locator(".sx-plane").bounding_box()
    page.mouse.move(place["x"] + place["width"] / 4, place["y"] + place["height"] / 4)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 4, steps=10)
    page.mouse.up()
    drawn = settings(page)["points"]
    assert len(drawn) >= 8 and drawn[0] == pytest.approx([-1, 1], abs=0.02)
    assert all(y == pytest.approx(1, abs=0.02) for _, y in drawn)
    page.mouse.move(5, 5)
    page.locator(".sx-stage").focus()
    for key in ("ArrowLeft", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert settings(page)["points"] == [*drawn, [-0.1, -0.1]]
    page.keyboard.press("Backspace")
    assert settings(page)["points"] == drawn
    page.get_by_role("button", name="One step").click()
    wait_for_rounds(page, 0)


def test_address_holds_the_settings_and_brings_them_back(show):
    page = show(sandbox_html(target="moons"), hash="#x1=pad:1,1")
    page.get_by_label("G’s loss").select_option("minimax")
    page.get_by_label("Seed", exact=True).fill("77")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('seed:77')")
    hash = page.evaluate("location.hash")
    assert hash.startswith("#x1=pad:1,1&s1="), "another widget's part was lost"
    page.get_by_role("button", name="One step").click()
    wait_for_rounds(page, 0)
    stepped = page.evaluate(PLACES)
    again = show(sandbox_html(target="moons"), hash=hash)
    assert settings(again) == settings(page)
    again.get_by_role("button", name="One step").click()
    wait_for_rounds(again, 0)
    assert again.evaluate(PLACES) == stepped, "a link does not give the same game"
    again.evaluate("location.hash = '#s1=width:8;target:nowhere'")
    again.wait_for_timeout(200)
    assert (settings(again)["width"], settings(again)["target"]) == (8, "moons")


def test_presets_set_everything_and_play(show):
    page = show(sandbox_html(width=4, seed=9))
    presets = page.locator(".sx-preset")
    assert presets.count() >= 5
    told = set()
    for i in range(presets.count()):
        presets.nth(i).click()
        wait_for_rounds(page, 0)
        assert presets.nth(i).get_attribute("aria-pressed") == "true"
        assert page.locator(".sx-preset[aria-pressed=true]").count() == 1
        told.add(page.locator(".sx-says").inner_text())
    assert len(told) == presets.count()


def test_two_on_a_page_keep_apart_and_rest_out_of_sight(show):
    far = '<div style="height: 4000px"></div>'
    page = show(sandbox_html(), far, sandbox_html(target="moons"), hash="#s2=width:8")
    both = page.evaluate(
        "[...document.querySelectorAll('.dcgan-sandbox')].map((one) => one.sandbox.settings.width)"
    )
    assert both == [32, 8]
    page.get_by_role("button", name="Play").first.click()
    wait_for_rounds(page, 2)
    page.evaluate("scrollTo(0, 4000)")
    page.wait_for_timeout(300)
    left = rounds(page)
    page.wait_for_timeout(300)
    assert rounds(page) == left, "it trains where nobody sees it"
    page.evaluate("scrollTo(0, 0)")
    wait_for_rounds(page, left)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_controls_have_names_and_contrast_and_fit(theme, width, show):
    page = show(sandbox_html(target="own"), theme=theme, width=width)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    if not AXE.exists():
        pytest.skip("npm's scripts are missing")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate(SERIOUS) == []


def test_notebook_and_page_follow_each_other(visit):
    widget = Sandbox(target="grid9", seed=5)
    state = {name: getattr(widget, name) for name in Sandbox.setting_names()}
    widget.close()
    page = visit()
    page.evaluate(SHOW, [script("sandbox.js"), SANDBOX_STYLE.read_text(), state])
    page.locator(".dcgan-sandbox[data-ready]").wait_for()
    assert settings(page)["target"] == "grid9"
    assert page.get_by_role("button", name="Copy link").count() == 0
    page.get_by_label("Width").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("[state.width, saved, heard]") == [16, 1, []]
    page.evaluate("fromPython('beta1', 0.9)")
    assert settings(page)["beta1"] == 0.9 and page.evaluate("saved") == 1
    page.evaluate("leave()")
