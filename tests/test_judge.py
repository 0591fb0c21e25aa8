"""The judge: the drawing's pixels in Node and in Python, its opinion, its presets, its settings."""

import base64
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from node import needs_node, run_js

from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import logits_of
from dcgan_lib.training.checkpoints import load_discriminator
from dcgan_lib.widgets.explorer import Explorer
from dcgan_lib.widgets.export import export_judge, probabilities
from dcgan_lib.widgets.judge import MAX_POINTS, Judge, judge_html, rasterise
from dcgan_lib.widgets.page import EXPORT, classic_script, explorer_html, script

SEVEN = [[[0.2, 0.2], [0.8, 0.2], [0.4, 0.9]]]
EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "extensions"
DRAWINGS = {
    "nothing": [],
    "a dot": [[[0.1, 0.9]]],
    "a seven": SEVEN,
    "two strokes": [[[0.3, 0.1], [0.3, 0.5], [0.7, 0.55]], [[0.6, 0.2], [0.55, 0.95]]],
    "a flat line": [[[0.0, 0.5], [1.0, 0.5]]],
}


@pytest.fixture
def judge():
    made = []

    def make(*words, **settings) -> Judge:
        made.append(Judge(*words, **settings))
        return made[-1]

    yield make
    for widget in made:
        widget.close()


# --- pixels ---
@needs_node
@pytest.mark.parametrize("size", [(32, 32), (28, 20)], ids=str)
@pytest.mark.parametrize("fit", [True, False])
def test_a_drawing_has_the_same_pixels_in_the_page(size, fit, tmp_path):
    code = (
        "const { drawings, size, fit } = read('given.json');\n"
        "answer(drawings.map((strokes) => [...rasterise(strokes, size, 2.6, fit)]));\n"
    )
    given = {"drawings": list(DRAWINGS.values()), "size": size, "fit": fit}
    seen = run_js(tmp_path, code, files={"given.json": given}, script="judge.js")
    for name, levels in zip(DRAWINGS, seen, strict=True):
        drawn_u8 = rasterise(DRAWINGS[name], size, 2.6, fit)
        assert np.abs(np.reshape(levels, size) - drawn_u8.astype(int)).max() <= 1, name
        assert (drawn_u8.max() == 255) == (name != "nothing"), name


def test_fit_brings_a_drawing_to_mnist_s_size_and_place():
    small = [[[x / 4, y / 4] for x, y in stroke] for stroke in SEVEN]
    fitted_u8 = rasterise(small, (32, 32), 2.6, True)
    np.testing.assert_array_equal(fitted_u8, rasterise(SEVEN, (32, 32), 2.6, True))
    rows, columns = np.nonzero(fitted_u8)
    assert 19 <= np.ptp(rows) + 1 <= 22 and np.ptp(columns) < np.ptp(rows)
    weight = fitted_u8 / fitted_u8.sum()
    centre = [(weight.sum(1) @ np.arange(32)), (weight.sum(0) @ np.arange(32))]
    assert np.allclose(centre, 15.5, atol=0.6)
    left_alone = rasterise(small, (32, 32), 2.6, False)
    assert left_alone[:10, :10].any() and not left_alone[16:].any()


def test_a_wider_pen_leaves_more_ink():
    ink = [rasterise(SEVEN, (32, 32), pen, True).sum() for pen in (1, 2.6, 6)]
    assert ink[0] < ink[1] < ink[2]


# --- the opinion ---
@needs_node
def test_presets_are_judged_as_pytorch_judges_them(tmp_path):
    code = """
      const about = read("about.json"), network = networkOf(about, fromBase64(about.weights));
      const found = Object.keys(PRESETS).map((name) => {
        const strokes = preset(name), levels = rasterise(strokes, about.image_size, 2.6, true);
        return [name, strokes, network.probability(levels)];
      });
      answer(found);
    """
    exported = export_judge("mnist")
    about = exported.about | {"weights": base64.b64encode(exported.weights).decode()}
    seen = run_js(tmp_path, code, files={"about.json": about}, script="judge.js")
    drawn_u8 = np.stack([rasterise(strokes, (32, 32), 2.6, True) for _, strokes, _ in seen])
    exact = probabilities(logits_of(load_discriminator("mnist"), drawn_u8[:, None]))
    in_page = np.array([opinion for _, _, opinion in seen])
    assert {str(digit) for digit in range(10)} <= {name for name, _, _ in seen}
    assert np.abs(in_page - exact).max() <= 2 / 255  # the pixels may differ by a level


def test_python_gives_the_opinion_of_what_is_drawn(judge):
    widget = judge(strokes=SEVEN)
    x_u8 = widget.picture[None, None]
    assert x_u8.shape == (1, 1, 32, 32)
    logit = logits_of(load_discriminator("mnist"), x_u8)
    assert widget.probability == pytest.approx(1 / (1 + np.exp(-logit[0])), abs=1e-6)
    before = widget.probability
    widget.strokes = DRAWINGS["two strokes"]
    assert widget.probability != before


# --- the widget ---
@needs_node
def test_settings_are_the_same_on_both_sides(tmp_path):
    code = "answer([DEFAULTS, MOST_POINTS]);"
    defaults, most_points = run_js(tmp_path, code, script="judge.js")
    traits = Judge.class_traits(sync=True)
    assert {name: traits[name].default() for name in defaults} == defaults
    assert most_points == MAX_POINTS


def test_mistakes_are_told_in_a_sentence(judge):
    for settings, told in (
        ({"checkpoint": "nothing"}, "no checkpoint or run folder at 'nothing'"),
        ({"checkpoint": "portraits"}, "grey pictures without labels, which portraits is not"),
        ({"checkpoint": "mnist-paper"}, "choose mnist"),
        ({"pen": 0}, "pen must be from 1 to 6"),
        ({"colour": "red"}, "no setting 'colour'"),
        ({"strokes": [[[0.5, 2.0]]]}, "each from 0 to 1"),
        ({"strokes": [[[0.5]]]}, "x and y"),
        ({"strokes": [[[0.5, 0.5]] * (MAX_POINTS + 1)]}, "at most 2000 points"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            judge(**settings)


@pytest.mark.parametrize("kind", ["judge", "explorer"])
def test_weights_are_sent_when_the_page_asks(kind, judge, monkeypatch):
    widget, sent = (judge() if kind == "judge" else Explorer("mnist")), []
    monkeypatch.setattr(
        widget, "send", lambda content, buffers=None: sent.append((content, buffers))
    )
    ask = {"type": "need weights", "network": "discriminator"}
    for content in ({"type": "other"}, ask | {"model": "mnist"}, ask | {"model": "mnist-paper"}):
        widget._handle_custom_msg(content, [])
    (good, buffers), (bad, none) = sent
    assert (good["type"], good["network"], good["about"]["network"]) == (
        "weights",
        "discriminator",
        "discriminator",
    )
    assert len(buffers) == 1 and len(buffers[0]) == len(export_judge("mnist").weights)
    assert bad["type"] == "no weights" and "has no discriminator" in bad["reason"] and none is None
    widget.close()


def test_what_a_notebook_stores_is_the_same_everywhere(judge):
    widget, again = judge(strokes=SEVEN), judge(strokes=SEVEN)
    assert repr(widget) == repr(again) == "Judge(checkpoint='mnist', 1 strokes)"
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["text/plain"] == repr(widget)
    settings = json.loads(html.unescape(re.search('data-judge="([^"]*)"', data["text/html"])[1]))
    assert settings == {"model": "mnist", "strokes": SEVEN}
    assert "<p>Here, with JavaScript, you draw a digit" in judge_html()


def test_script_for_pages_has_no_module_syntax():
    text, source = classic_script("judge"), script("judge.js")
    assert not re.search(r"^\s*(export|import)\b", text, re.MULTILINE) and "mount(place)" in text
    assert source.endswith(EXPORT) and len(re.findall(r"^export\b", source, re.MULTILINE)) == 1
    assert "fetch(" not in source and not re.search(r"https?://", source)


# --- the book ---
def test_a_page_gets_what_it_shows_and_no_more(tmp_path):
    """A page with a judge, one whose explorer asks for a discriminator, and one that does not."""
    source, html_folder = tmp_path / "source", tmp_path / "html"
    source.mkdir()
    (source / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXTENSIONS)!r})\nextensions = ['dcgan_explorer']\n"
    )
    mounts = {
        "index": judge_html() + judge_html(strokes=SEVEN),
        "asks": explorer_html("portraits", discriminator=True),
        "plain": explorer_html("rooms"),
    }
    for name, mount in mounts.items():
        text = f"Page\n====\n\n.. raw:: html\n\n   {mount}\n"
        if name == "index":
            text += "\n.. toctree::\n\n   asks\n   plain\n"
        (source / f"{name}.rst").write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", source, html_folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown = (html_folder / "index.html").read_text()
    assert len(re.findall(r"_static/judge\.js", shown)) == 1 and "_static/explorer.css" in shown
    assert "_static/explorer.js" not in shown
    assert "_static/judge.js" not in (html_folder / "asks.html").read_text()
    assert (html_folder / "_static" / "judge.js").read_text() == classic_script("judge")
    models = {path.name for path in (html_folder / "_static" / "models").glob("*.js")}
    assert models == {
        "mnist-discriminator.js",
        "portraits-discriminator.js",
        "portraits.js",
        "rooms.js",
    }
