"""The box drawer's page in Chromium, with a stand-in for the kernel: mouse, keyboard and labels."""

import pytest

from dcgan_lib.widgets.page import STYLE, script

from .widget_page import serious_faults

pytestmark = pytest.mark.browser
STATE = {"object": "window", "num_images": 3, "width": 64, "height": 64, "index": 0, "boxes": []}
GREY = bytes([150]) * (64 * 64 * 4)


@pytest.fixture
def page(live):
    source = {"_esm": script("box_drawer.js"), "_css": STYLE.read_text()}
    page = live(source | STATE, lambda asked: ({"type": "picture", "index": asked["index"]}, GREY))
    page.locator(".dcgan-explorer[data-ready='0']").wait_for()
    return page


def saved(page) -> list:
    return page.evaluate("[kernel.state.index, kernel.state.boxes]")


def drag(page, *corners) -> None:
    """Move the mouse between places, in pixels of the picture, with its button held."""
    place = page.locator(".dx-stage canvas").bounding_box()
    at = [
        (place["x"] + x * place["width"] / 64, place["y"] + y * place["height"] / 64)
        for x, y in corners
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    for corner in at[1:]:
        page.mouse.move(*corner)
    page.mouse.up()


def test_mouse_draws_and_takes_away(page):
    drag(page, (10.5, 12.5), (30, 30), (39.5, 31.5))
    assert saved(page) == [0, [[0, 10, 12, 40, 32]]]
    drag(page, (50.5, 60.5), (90, 90))
    assert saved(page)[1][1] == [0, 50, 60, 64, 64], (
        "a drag that leaves the picture ends at its edge"
    )
    drag(page, (5, 5))
    assert len(saved(page)[1]) == 2, "a click beside the boxes does nothing"
    drag(page, (20, 20))
    assert saved(page)[1] == [[0, 50, 60, 64, 64]]


def test_keyboard_does_everything(page):
    page.locator(".dx-stage").focus()
    for key in ("Enter", "ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert saved(page)[1] == [[0, 22, 22, 42, 44]] and page.evaluate("heard") == [], (
        "a key went on to the page around"
    )
    page.keyboard.press("PageDown")
    page.locator(".dcgan-explorer[data-ready='1']").wait_for()
    for key in ("Enter", "Enter", "ArrowLeft", "n", "ArrowUp"):
        page.keyboard.press(key)
    assert saved(page) == [1, [[0, 22, 22, 42, 44], [1, 21, 20, 42, 41], [1, 20, 21, 41, 42]]]
    for key in ("Delete", "PageUp", "PageUp"):
        page.keyboard.press(key)
    assert saved(page) == [0, [[0, 22, 22, 42, 44], [1, 20, 21, 41, 42]]]
    assert "Picture 0, 1 box" in page.locator("[aria-live]").inner_text()


def test_buttons_turn_and_add_and_remove(page):
    for name in ("Add box", "Next", "Add box", "Next", "Next"):
        page.get_by_role("button", name=name).click()
    assert saved(page) == [2, [[0, 21, 21, 42, 42], [1, 21, 21, 42, 42]]]
    page.get_by_label("Picture", exact=True).fill("1")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove box").click()
    assert saved(page) == [1, [[0, 21, 21, 42, 42]]]
    assert "1 in 1 of 3 pictures" in page.locator(".dx-hint").inner_text()


def test_number_field_tells_the_picture_that_is_shown(page):
    field = page.get_by_label("Picture", exact=True)
    for typed, index in (("999", 2), ("1", 1), ("", 1), ("-4", 0)):
        field.fill(typed)
        page.keyboard.press("Enter")
        assert (saved(page)[0], field.input_value()) == (index, str(index))


def test_controls_have_names(page):
    assert serious_faults(page) == []
