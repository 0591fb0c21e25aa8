"""The transposed convolution in Chromium, on a page of its own from a file: it draws, obeys hands
and keys, and keeps its state in the address."""

import json

import pytest

from dcgan_lib.widgets.transposed_convolution import (
    CONVOLUTION_STYLE,
    TransposedConvolution,
    convolution_html,
)

from .widget_page import WidgetPage, serious_faults

pytestmark = pytest.mark.browser
SETTINGS = (
    "JSON.stringify(document.querySelector('.dcgan-transposed_convolution').control.settings)"
)
CONTROL = ".dcgan-transposed_convolution"


@pytest.fixture
def widget_page(tmp_path) -> WidgetPage:
    return WidgetPage(
        folder=tmp_path,
        widgets=("transposed_convolution",),
        style=CONVOLUTION_STYLE,
        mount=convolution_html(),
        ready=f"{CONTROL}[data-ready]",
    )


def settings(page) -> dict:
    return json.loads(page.evaluate(SETTINGS))


def cell(page, grid: str, row: int, column: int):
    """Return a cell by its grid's name and its place, from 1 as a reader counts."""
    squares = page.get_by_role("grid", name=grid)
    return squares.locator(f'[data-row="{row - 1}"][data-column="{column - 1}"]')


def numbers(page, grid: str) -> list[list[float]]:
    """Return the numbers that a grid shows."""
    found = []
    for row in page.get_by_role("grid", name=grid).locator("[role=row]").all():
        texts = row.locator(".tc-number").all_inner_texts()
        found.append([float(text.replace("−", "-")) for text in texts])
    return found


def marks(page, grid: str) -> dict[str, list[str]]:
    """Return each mark that a grid's cells bear, with their places."""
    found = {}
    for one in page.get_by_role("grid", name=grid).locator('.tc-mark:not([data-mark=""])').all():
        place = one.locator("..").get_attribute("aria-label").split(", ", 1)[1]
        found.setdefault(one.get_attribute("data-mark"), []).append(place)
    return found


def told(page) -> str:
    return page.locator(".tc-sum").inner_text()


def test_shows_the_output_and_the_products_of_a_pixel(show):
    page = show()
    output = numbers(page, "Output")
    assert len(output) == 8 and {len(row) for row in output} == {8}
    assert "(4 − 1) × 2 − 2 × 2 + 5 + 1 = 8" in page.locator(".tc-formula").inner_text()
    cell(page, "Output", 4, 4).click()
    assert "4 inputs reach it" in told(page)
    assert "1 × 0.25 + b2 × 0.25 + c0 × 0.25 + d1 × 0.25 = 1" in told(page).replace("b ", "b")
    assert output[3][3] == 1
    assert marks(page, "Input")["b"] == ["row 2, column 3"]
    assert marks(page, "Kernel")["b"] == ["row 4, column 2"]
    assert cell(page, "Output", 4, 4).get_attribute("aria-selected") == "true"


def test_input_stamps_a_block_and_padding_crops_it(show):
    page = show()
    cell(page, "Input", 1, 1).click()
    stamped = page.get_by_role("grid", name="Output").locator(".tc-cell-block")
    assert stamped.count() == 9 and "padding crops the other 16" in told(page)
    assert page.locator(".tc-cropped-lit").count() == 16
    cell(page, "Input", 2, 2).hover()
    assert stamped.count() == 25 and page.locator(".tc-cropped-lit").count() == 0
    page.mouse.move(2, 2)
    assert stamped.count() == 9, "what was chosen must come back when the mouse leaves"
    cell(page, "Kernel", 3, 3).click()
    assert page.get_by_role("grid", name="Output").locator(".tc-cell-lit").count() == 16
    assert "on every second row and column" in told(page)


def test_keyboard_alone_moves_changes_and_sets(show):
    page = show()
    cell(page, "Output", 4, 4).focus()
    for key in ("ArrowRight", "ArrowDown", "End"):
        page.keyboard.press(key)
    assert told(page).startswith("Output row 5, column 8")
    page.get_by_role("button", name="one pixel").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert told(page).startswith("Input row 1, column 1"), "one stop of Tab for each grid"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowUp")
    assert numbers(page, "Input")[1][0] == 0.5
    page.keyboard.press("-")
    page.keyboard.type("1,25")
    page.keyboard.press("Enter")
    assert numbers(page, "Input")[1][0] == -1.25
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("Input row 2, column 2"), "Enter must give the cell back"
    page.get_by_label("stride").focus()
    page.keyboard.press("ArrowLeft")
    assert (settings(page)["stride"], settings(page)["output_padding"]) == (1, 0)
    assert page.get_by_label("output padding").is_disabled()
    assert page.evaluate("heard") == [], "a key went on to the page around"


def test_number_is_changed_by_touch_and_nonsense_is_refused(show):
    page = show(width=390, has_touch=True)
    cell(page, "Kernel", 3, 3).tap()
    before = numbers(page, "Output")
    page.get_by_role("button", name="Raise by 0.5").tap()
    assert numbers(page, "Kernel")[2][2] == 1.5 and numbers(page, "Output") != before
    field = page.get_by_label("Kernel, row 3, column 3", exact=True)
    for text, kept in (("99", "9"), ("two", "9"), ("", "9"), ("0.333", "0.33")):
        field.fill(text)
        page.keyboard.press("Enter")
        assert field.input_value() == kept
    page.get_by_role("button", name="bilinear").tap()
    assert numbers(page, "Output") == before


def test_counts_show_the_checkerboard_and_presets_set_it(show):
    page = show()
    page.get_by_role("button", name="overlap counts").click()
    expected = {"DCGAN": {4, 6, 9}, "PyTorch tutorial": {4}, "Kernel 3, stride 2": {1, 2, 4}}
    for name, counts in expected.items():
        preset = page.get_by_role("button", name=name)
        preset.click()
        inner = [row[2:-2] for row in numbers(page, "Output")[2:-2]]
        assert {number for row in inner for number in row} == counts, name
        assert preset.get_attribute("aria-pressed") == "true"
        verdict = "Even overlap" if len(counts) == 1 else "Uneven overlap"
        assert page.locator(".tc-even").inner_text().startswith(verdict)


def test_address_holds_the_state_and_brings_it_back(show):
    page = show(convolution_html(stride=2, output_padding=0), hash="#x1=pad:1,1")
    page.get_by_role("button", name="corner marks").click()
    cell(page, "Kernel", 1, 1).click()
    page.keyboard.press("Shift+ArrowDown")
    page.get_by_role("button", name="overlap counts").click()
    page.get_by_label("kernel size").fill("3")
    page.wait_for_function("location.hash.includes('kernel_size:3')")
    hash = page.evaluate("location.hash")
    assert hash.startswith("#x1=pad:1,1&t1="), "another widget's part was lost"
    again = show(convolution_html(stride=2, output_padding=0), hash=hash)
    assert settings(again) == settings(page)
    for grid in ("Input", "Kernel", "Output"):
        assert numbers(again, grid) == numbers(page, grid)
    again.evaluate("location.hash = '#t1=size:2;view:nothing'")
    again.wait_for_function("document.querySelector('.tc-output .tc-size').innerText == '3 × 3'")


def test_mouse_may_rest_where_a_grid_shrinks(show):
    page = show()
    cell(page, "Output", 8, 8).hover()
    page.get_by_label("stride").focus()
    page.keyboard.press("ArrowLeft")
    assert len(numbers(page, "Output")) == 4


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_controls_have_names_and_contrast_and_fit(theme, width, show):
    page = show(
        convolution_html(),
        convolution_html(stride=3),
        theme=theme,
        width=width,
        hash="#t2=kernel:random",
    )
    cell(page.locator(CONTROL).first, "Input", 1, 1).click()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert serious_faults(page) == []


def test_notebook_and_page_follow_each_other(live):
    widget = TransposedConvolution(kernel_size=3, stride=1, padding=0)
    page = live(widget.get_state())
    page.locator(f"{CONTROL}[data-ready]").wait_for()
    assert settings(page) == widget.settings()
    widget.close()
    page.get_by_role("button", name="DCGAN").click()
    dcgan = {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1, "size": 4}
    state = page.evaluate("kernel.state")
    assert {key: state[key] for key in dcgan} == dcgan and page.evaluate("kernel.saved") == 1
    page.evaluate("kernel.fromPython('stride', 1)")
    assert settings(page) == {**dcgan, "stride": 1, "output_padding": 0}
    assert page.evaluate("[kernel.state.output_padding, kernel.saved]") == [0, 2], (
        "Python must hear what was not possible"
    )
    page.get_by_role("slider", name="padding", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("[kernel.state.padding, heard]") == [1, []]
    page.evaluate("kernel.leave()")
