"""The sandbox in Chromium, on a page of its own from a file: it draws, trains, obeys hands and
keys, and keeps its settings in the address."""

import json

import pytest

from dcgan_lib.widgets.sandbox import SANDBOX_STYLE, Sandbox, sandbox_html

from .widget_page import WidgetPage, serious_faults

pytestmark = pytest.mark.browser
COLOURS = """() => {
  const canvas = document.querySelector(".sx-plane"), { width } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, width);
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 3).join());
  return seen.size;
}"""
PLACES = "JSON.stringify([...document.querySelector('.dcgan-sandbox').sandbox.game.generated()])"
SETTINGS = "JSON.stringify(document.querySelector('.dcgan-sandbox').sandbox.settings)"


@pytest.fixture
def widget_page(tmp_path) -> WidgetPage:
    return WidgetPage(
        folder=tmp_path,
        widgets=("sandbox",),
        style=SANDBOX_STYLE,
        mount=sandbox_html(),
        ready=".dcgan-sandbox[data-ready]",
    )


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
    assert page.evaluate("heard") == [], "a key went on to the page around"


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
    assert serious_faults(page) == []


def test_notebook_and_page_follow_each_other(live):
    widget = Sandbox(target="grid9", seed=5)
    page = live(widget.get_state())
    widget.close()
    page.locator(".dcgan-sandbox[data-ready]").wait_for()
    assert settings(page)["target"] == "grid9"
    assert page.get_by_role("button", name="Copy link").count() == 0
    page.get_by_label("Width").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("[kernel.state.width, kernel.saved, heard]") == [16, 1, []]
    page.evaluate("kernel.fromPython('beta1', 0.9)")
    assert settings(page)["beta1"] == 0.9 and page.evaluate("kernel.saved") == 1
    page.evaluate("kernel.leave()")


def test_a_preset_in_a_notebook_sets_no_half_of_itself(live):
    page = live(Sandbox(width=4).get_state())
    page.evaluate(
        """() => {
          const { sandbox } = document.querySelector(".dcgan-sandbox");
          const set = sandbox.set.bind(sandbox);
          window.followed = 0;
          sandbox.set = (changes, how) => {
            if (how?.fromPython) followed += 1;
            return set(changes, how);
          };
        }"""
    )
    page.locator(".sx-preset").nth(2).click()
    told = settings(page)
    assert page.evaluate("kernel.saved") == 1 and page.evaluate("followed") == 0
    assert all(page.evaluate("(key) => kernel.state[key]", key) == told[key] for key in told)
