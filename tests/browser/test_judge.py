"""The discriminator in Chromium, on a page of its own from a file: the judge's drawing by mouse,
finger and keys, the explorer's opinion of its own pictures, and a stand-in kernel."""

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
from dcgan_lib.widgets.page import STYLE, explorer_html

from .widget_page import WidgetPage, pixels, serious_faults

pytestmark = pytest.mark.browser
STATE = "document.querySelector('.dcgan-judge').judge.state"
SEVEN = [[[0.2, 0.2], [0.8, 0.2], [0.4, 0.9]]]


@pytest.fixture(scope="module")
def widget_page(tmp_path_factory) -> WidgetPage:
    """A static page's folder with the digits' two networks."""
    folder = tmp_path_factory.mktemp("page")
    models = folder / "_static" / "models"
    write_script(export_model("mnist"), models / "mnist.js")
    write_script(export_judge("mnist"), models / "mnist-discriminator.js")
    Image.fromarray(Explorer("mnist").picture).save(models / "mnist.png")
    return WidgetPage(
        folder=folder,
        widgets=("explorer", "judge"),
        style=STYLE,
        mount=judge_html(),
        ready="[data-opinion]",
    )


def opinion(page, before: float | None = None) -> float:
    """Return D's opinion, once it is another than before."""
    if before is not None:
        page.wait_for_function(
            f"document.querySelector('[data-opinion]').dataset.opinion != '{before:.4f}'"
        )
    return float(page.get_attribute("[data-opinion]", "data-opinion"))


def seen_u8(page, selector: str) -> np.ndarray:
    """Return the red levels of a canvas, h x w."""
    return pixels(page, selector)[..., 0].astype(np.uint8)


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
    assert page.evaluate("heard") == [], "a key went on to the page around"


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
    assert serious_faults(page) == []


def test_without_scripts_a_sentence_stays(visit, widget_page):
    page = visit(java_script_enabled=False)
    page.goto(widget_page.write(judge_html()))
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


def test_without_being_asked_the_explorer_loads_no_discriminator(visit, widget_page):
    page, asked = visit(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(widget_page.write(explorer_html("mnist")))
    page.locator(".dcgan-explorer[data-ready]").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".dx-opinion").count() == 0
    assert not [url for url in asked if "discriminator" in url]


# --- in a notebook ---
@pytest.fixture
def with_networks(live):
    """Show a widget in a notebook whose kernel has the digits' two networks."""
    networks = {"generator": export_model("mnist", "half"), "discriminator": export_judge("mnist")}

    def answer(request: dict) -> tuple[dict, bytes]:
        exported = networks[request["network"]]
        about = {key: request[key] for key in ("model", "network")}
        return {"type": "weights", **about, "about": exported.about}, exported.weights

    def open_page(widget) -> object:
        page = live(widget.get_state(), answer)
        page.locator("[data-opinion]").wait_for()
        return page

    return open_page


def test_python_and_the_drawing_follow_each_other(with_networks):
    widget = Judge()
    page = with_networks(widget)
    empty = opinion(page)
    page.evaluate("(strokes) => kernel.fromPython('strokes', strokes)", SEVEN)
    widget.strokes = SEVEN
    assert opinion(page, empty) == pytest.approx(widget.probability, abs=1 / 255)
    page.wait_for_timeout(500)
    assert page.evaluate("kernel.saved") == 0, "what Python says is not said back"
    page.get_by_role("button", name="Draw the digit 0").click()
    page.wait_for_function("kernel.saved == 1")
    widget.strokes = page.evaluate("kernel.state.strokes")
    assert opinion(page) == pytest.approx(widget.probability, abs=1 / 255)
    page.evaluate("kernel.leave()")
    widget.close()


def test_a_notebook_s_explorer_asks_for_both_networks(with_networks):
    widget = Explorer("mnist", seed=6, discriminator=True)
    page = with_networks(widget)
    generator = load_generator("mnist")
    assert torch.is_tensor(widget.z_bd) and generator.config.num_channels == 1
    assert opinion(page) == pytest.approx(by_torch(widget.picture), abs=3 / 255)
    page.evaluate("kernel.leave()")
    widget.close()
