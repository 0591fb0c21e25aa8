"""What chapters show: pictures behind a slider, choices and tables."""

import io

import ipywidgets as widgets
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from dcgan_lib.errors import UserError
from dcgan_lib.notebook import (
    choose_page,
    choose_picture,
    html_table,
    step_through,
    webp_bytes,
)


def picture(value, height=3, width=2):
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("scale", [1, 4])
def test_webp_holds_each_pixel_scale_by_scale(scale):
    pixels = np.repeat(np.linspace(0, 255, 24).astype(np.uint8)[:, None, None], 16, 1).repeat(3, 2)
    expected = np.kron(pixels, np.ones((scale, scale, 1), np.uint8))
    with Image.open(io.BytesIO(webp_bytes(pixels, scale))) as image:
        assert (image.format, image.size) == ("WEBP", (16 * scale, 24 * scale))
        gap = np.abs(np.asarray(image.convert("RGB")).astype(int) - expected)
    assert gap.mean() < 4 < np.abs(expected[::-1].astype(int) - expected).mean(), (
        "close to it, and not to it upside down"
    )


@pytest.mark.parametrize(
    ("pixels", "scale"),
    [
        (picture(0) / 255, 1),
        (picture(0).transpose(2, 0, 1), 1),
        (picture(0)[None], 1),
        (picture(0), 0),
    ],
)
def test_webp_of_anything_else_is_refused(pixels, scale):
    with pytest.raises(UserError, match="but got"):
        webp_bytes(pixels, scale)


PICTURES = {"step 10": picture(10), "step 20": picture(20), "step 30": picture(30)}


def test_each_picture_is_a_page_with_its_caption():
    slider, stack = step_through(PICTURES, "training step", scale=2).children
    assert isinstance(stack, widgets.Stack) and len(stack.children) == 3
    for page, (caption, pixels) in zip(stack.children, PICTURES.items(), strict=True):
        label, image = page.children
        assert label.value == caption and image.format == "webp"
        assert image.value == webp_bytes(pixels, 2)
    assert (slider.min, slider.max, slider.value, slider.description) == (0, 2, 2, "training step")
    assert stack.selected_index == 2, "the page begins at the end, where the slider stands"


def test_the_browser_may_enlarge_a_step_without_more_bytes():
    plain, enlarged = (
        step_through(PICTURES, "step", enlarged=factor).children[1].children[0].children[1]
        for factor in (1, 3)
    )
    wide = Image.open(io.BytesIO(plain.value)).width
    assert enlarged.value == plain.value
    assert plain.layout.max_width is None and enlarged.layout.max_width == f"{3 * wide}px"


def test_the_slider_is_linked_in_the_page_itself():
    """A link made by Python would be dead in a book without a kernel."""
    slider, stack = step_through(PICTURES, "step").children
    state = widgets.Widget.get_manager_state()["state"]
    links = [entry["state"] for entry in state.values() if entry["model_name"] == "LinkModel"]
    source, target = (f"IPY_MODEL_{widget.model_id}" for widget in (slider, stack))
    wanted = {"source": [source, "value"], "target": [target, "selected_index"]}
    assert any(wanted.items() <= link.items() for link in links)


def test_what_is_compared_between_two_runs_is_the_same():
    """Strict nbval reads the text that stands beside a widget."""
    texts = [
        DisplayFormatter().format(step_through(PICTURES, "step"))[0]["text/plain"] for _ in range(2)
    ]
    assert texts[0] == texts[1] and "0x" not in texts[0]
    other = DisplayFormatter().format(step_through(PICTURES, "another name"))[0]["text/plain"]
    assert other != texts[0]


def test_no_picture_is_refused_and_one_is_enough():
    with pytest.raises(UserError, match="at least one picture"):
        step_through({}, "step")
    slider, stack = step_through({"only": picture(1)}, "step").children
    assert (slider.max, stack.selected_index) == (0, 0)


# --- several choices at once ---
CHOICES = {
    (a, b): picture(10 * i + j)
    for i, a in enumerate(("one", "two"))
    for j, b in enumerate(("x", "y", "z"))
}


def test_every_combination_has_its_page():
    first, second, stack = choose_picture(CHOICES, ("number", "letter")).children
    assert (first.options, second.options) == (("one", "two"), ("x", "y", "z"))
    assert (first.description, second.description, first.index) == ("number", "letter", 0)
    for page, a in zip(stack.children, ("one", "two"), strict=True):
        for leaf, b in zip(page.children, ("x", "y", "z"), strict=True):
            label, image = leaf.children
            assert label.value == f"{a}, {b}" and image.value == webp_bytes(CHOICES[a, b])


def test_every_stack_is_linked_in_the_page_itself():
    first, second, stack = choose_picture(CHOICES, ("number", "letter")).children
    state = widgets.Widget.get_manager_state()["state"]
    links = [entry["state"] for entry in state.values() if entry["model_name"] == "LinkModel"]
    for choice, pages in ((first, stack), *((second, inner) for inner in stack.children)):
        source, target = (f"IPY_MODEL_{widget.model_id}" for widget in (choice, pages))
        wanted = {"source": [source, "index"], "target": [target, "selected_index"]}
        assert any(wanted.items() <= link.items() for link in links)


def test_missing_combinations_are_refused():
    for wrong in ({}, {("one",): picture(1)}, {key: CHOICES[key] for key in list(CHOICES)[:-1]}):
        with pytest.raises(UserError):
            choose_picture(wrong, ("number", "letter"))


def test_a_choice_turns_the_page_in_the_page_itself():
    choice, stack = choose_page({"one": "<b>1</b>", "two": "<b>2</b>"}, "rule").children
    assert choice.options == ("one", "two") and (choice.index, stack.selected_index) == (0, 0)
    assert [page.value for page in stack.children] == ["<b>1</b>", "<b>2</b>"]
    state = widgets.Widget.get_manager_state()["state"]
    links = [entry["state"] for entry in state.values() if entry["model_name"] == "LinkModel"]
    source, target = (f"IPY_MODEL_{widget.model_id}" for widget in (choice, stack))
    wanted = {"source": [source, "index"], "target": [target, "selected_index"]}
    assert any(wanted.items() <= link.items() for link in links)
    with pytest.raises(UserError, match="at least one page"):
        choose_page({}, "rule")


def test_a_table_has_a_row_for_each_line_and_shows_cells_as_they_are():
    table = html_table(["rule", "flagged"], [["max pooling", "0 of 3"], ["x < 1 & y", ""]])
    assert table.count("<tr>") == table.count("</tr>") == 3 and table.count("<td") == 4
    assert ">rule</th>" in table and ">0 of 3</td>" in table
    assert ">x &lt; 1 &amp; y</td>" in table
