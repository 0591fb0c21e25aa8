"""What chapters show: the library's own source, and pictures behind a slider."""

import ast
import dataclasses
import inspect
import io
import textwrap

import ipywidgets as widgets
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from dcgan_lib import config
from dcgan_lib.errors import UserError
from dcgan_lib.models import dcgan
from dcgan_lib.notebook import (
    choose_page,
    choose_picture,
    html_table,
    show_source,
    step_through,
    webp_bytes,
)
from dcgan_lib.training import step

MODULES = (config, dcgan, step)
PUBLIC = [
    thing
    for module in MODULES
    for name, thing in vars(module).items()
    if not name.startswith("_")
    and getattr(thing, "__module__", "") == module.__name__
    and callable(thing)
]


def code_of(*things) -> str:
    text = show_source(*things).data
    assert text.startswith("```python\n") and text.endswith("\n```")
    return text.removeprefix("```python\n").removesuffix("\n```")


def bare(tree: ast.AST) -> str:
    """Dump a tree without its docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and len(node.body) > 1:
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.dump(tree)


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_the_page_has_the_librarys_own_code_without_docstrings(thing):
    source, code = textwrap.dedent(inspect.getsource(thing)), code_of(thing)
    assert ast.dump(ast.parse(code)) == bare(ast.parse(source))
    lines = source.splitlines()
    assert all(line in lines for line in code.splitlines()), (
        "each line is one of the library's, comments included"
    )
    if len(ast.parse(source).body[0].body) > 1:
        assert inspect.cleandoc(thing.__doc__).splitlines()[0] not in code


def test_methods_lose_their_docstrings_and_fields_keep_their_notes():
    code = code_of(step.Gan, config.ModelConfig)
    assert "Where the networks lie" not in code and "def device(self)" in code
    assert '"""[P] Height and width in pixels, each 8 to 256."""' in code
    assert code.startswith("@dataclass(frozen=True)\nclass Gan:\n    generator: AnyGenerator\n"), (
        "no gap is left behind"
    )


def test_several_objects_stand_apart_in_the_order_asked_for():
    tree = ast.parse(code_of(step.generator_loss, step.discriminator_loss))
    assert [node.name for node in tree.body] == ["generator_loss", "discriminator_loss"]
    assert "\n\n\ndef discriminator_loss" in code_of(step.generator_loss, step.discriminator_loss)


@dataclasses.dataclass
class Undocumented:
    text: str = """not a docstring"""

    def method(self):
        "A docstring in single quotes, over \
        two lines."
        return """not one either"""


def quoted(text='"""'):
    """Lose this line."""
    # Keep this one.
    return text


class Lonely(ValueError):
    """All there is."""


def test_only_docstrings_go():
    """A search for the first triple quotes, the wrong twin, would cut these to pieces."""
    code = code_of(Undocumented)
    assert (
        '"""not a docstring"""' in code
        and '"""not one either"""' in code
        and "single quotes" not in code
    )
    assert code_of(quoted) == 'def quoted(text=\'"""\'):\n    # Keep this one.\n    return text'
    assert '"""All there is."""' in code_of(Lonely), "without it the class would be no Python"


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
