"""The transposed convolution's engine in Node against PyTorch, its numbers, its Python half.

Axes: h w rows and columns; the batch and the channel are 1 and 1. The engine computes in float64,
as PyTorch does here.
"""

import html
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from node import needs_node, run_js

from dcgan_lib.errors import UserError
from dcgan_lib.widgets.transposed_convolution import (
    LIMITS,
    TransposedConvolution,
    convolution_html,
    output_side,
)

SCRIPT = "transposed_convolution.js"
EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "extensions"


def allowed_settings() -> list[dict[str, int]]:
    """Return all settings that the control allows."""
    found = []
    ranges = [range(low, high + 1) for low, high in LIMITS.values()]
    for values in itertools.product(*ranges):
        settings = dict(zip(LIMITS, values, strict=True))
        if settings["output_padding"] < settings["stride"] and output_side(**settings) >= 1:
            found.append(settings)
    return found


def torch_output(x_hw: list, w_hw: list, settings: dict[str, int]) -> np.ndarray:
    """Return what PyTorch computes."""
    x_bchw = torch.tensor(x_hw, dtype=torch.float64)[None, None]
    w_bchw = torch.tensor(w_hw, dtype=torch.float64)[None, None]
    options = {key: settings[key] for key in ("stride", "padding", "output_padding")}
    return F.conv_transpose2d(x_bchw, w_bchw, **options)[0, 0].numpy()


@needs_node
def test_engine_equals_pytorch_for_all_allowed_settings(tmp_path):
    """By stamping and by the written sum, on random numbers; the overlaps on ones."""
    cases = allowed_settings()
    assert len(cases) > 200
    rng = np.random.default_rng(3)
    for case in cases:
        case["x"] = rng.normal(size=(case["size"],) * 2).tolist()
        case["w"] = rng.normal(size=(case["kernel_size"],) * 2).tolist()
    code = """
      answer(read("cases.json").map(({ x, w, ...settings }) => {
        const add = (sum, { i, j, k, l }) => sum + x[i][j] * w[k][l];
        const gathered = grid(outputSize(settings), (o, p) =>
          products(settings, o, p).reduce(add, 0));
        return { stamped: transposedConvolution(x, w, settings), gathered,
          counts: overlapCounts(settings), tidy: tidy(settings) };
      }));
    """
    seen = run_js(tmp_path, code, files={"cases.json": cases}, script=SCRIPT)
    for case, one in zip(cases, seen, strict=True):
        settings = {name: case[name] for name in LIMITS}
        expected_hw = torch_output(case["x"], case["w"], settings)
        np.testing.assert_allclose(one["stamped"], expected_hw, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one["gathered"], expected_hw, rtol=0, atol=1e-12)
        ones_hw = torch_output(np.ones_like(case["x"]), np.ones_like(case["w"]), settings)
        np.testing.assert_array_equal(one["counts"], ones_hw)
        assert one["tidy"] == settings, "allowed settings were changed"
        assert len(expected_hw) == output_side(**settings)


@needs_node
def test_settings_are_made_possible(tmp_path):
    """Whatever comes, the output has a pixel and PyTorch would take the settings."""
    code = """
      const all = [];
      for (const kernel_size of [1, 2, 3, 9]) for (const stride of [0, 1, 3, "x"])
        for (const padding of [-1, 2, 7]) for (const output_padding of [0, 1, 2])
          for (const size of [1, 2, 5.4]) all.push(tidy({
            kernel_size, stride, padding, output_padding, size }));
      answer(all);
    """
    allowed = allowed_settings()
    for settings in run_js(tmp_path, code, script=SCRIPT):
        assert settings in allowed


@needs_node
def test_sentence_about_evenness_is_true_away_from_the_edges(tmp_path):
    """On an input so large that the middle feels no edge."""
    code = """
      const found = [];
      for (let kernel_size = 2; kernel_size <= 5; kernel_size++)
        for (let stride = 1; stride <= 3; stride++) {
          const settings = { kernel_size, stride, padding: 0, output_padding: 0, size: 12 };
          const inner = overlapCounts(settings).slice(4, -4).map((row) => row.slice(4, -4));
          const { isEven, text } = evenness(settings);
          found.push({ kernel_size, stride, isEven, text, counts: [...new Set(inner.flat())] });
        }
      answer(found);
    """
    for case in run_js(tmp_path, code, script=SCRIPT):
        counts = sorted(case["counts"])
        assert case["isEven"] == (len(counts) == 1) == (case["kernel_size"] % case["stride"] == 0)
        told = case["text"].split("away from the edges")[1]
        assert sorted(int(number) for number in re.findall(r"\d+", told)) == counts


@needs_node
def test_kernels_are_what_their_names_say(tmp_path):
    code = """
      answer([2, 3, 4, 5].map((side) => Object.fromEntries(
        ["bilinear", "ones", "corners", "random-1", "random-1", "random-2"].map((kind, n) =>
          [`${n} ${kind}`, startKernel(kind, { kernel_size: side, stride: 2 })]))));
    """
    for side, found in zip((2, 3, 4, 5), run_js(tmp_path, code, script=SCRIPT), strict=True):
        assert (np.array(found["1 ones"]) == 1).all()
        corners = np.array(found["2 corners"])
        assert corners[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [1, 2, 3, 4]
        assert np.count_nonzero(corners) == 4 and corners.shape == (side, side)
        assert found["3 random-1"] == found["4 random-1"] != found["5 random-2"]


@needs_node
def test_bilinear_kernel_keeps_a_constant_constant_where_it_is_wide_enough(tmp_path):
    """As bilinear enlargement does; also where the overlap is uneven, as at DCGAN's 5 and 2."""
    code = """
      answer([[2, 1], [5, 1], [3, 2], [4, 2], [5, 2], [5, 3], [2, 2]].map(
        ([kernel_size, stride]) =>
          ({ stride, w: startKernel("bilinear", { kernel_size, stride }) })));
    """
    cases = run_js(tmp_path, code, script=SCRIPT)
    middles = []
    for case in cases:
        settings = {"stride": case["stride"], "padding": 0, "output_padding": 0}
        output_hw = torch_output(np.ones((8, 8)), case["w"], settings)
        middles.append(output_hw[5:-5, 5:-5] if case["stride"] > 1 else output_hw[4:-4, 4:-4])
    for middle_hw in middles[:-1]:
        np.testing.assert_allclose(middle_hw, 1)
    assert middles[-1].max() < 0.6, "a kernel of 2 is too narrow for stride 2"


@needs_node
def test_address_brings_the_state_back_and_survives_damage(tmp_path):
    code = """
      const given = "stride:1;kernel_size:2;size:3;view:counts;kernel:25,-100,900,0";
      const state = decode(given, DEFAULTS);
      const text = encode(state, DEFAULTS);
      const random = encode(decode("kernel:random-4;input:ones", DEFAULTS), DEFAULTS);
      const damaged = decode("stride:far;;kernel:1,2;input:toString;view:;size:3", DEFAULTS);
      answer({ text, state, back: decode(text, DEFAULTS), random, damaged,
        none: encode(decode("", DEFAULTS), DEFAULTS), standard: decode("size:3", DEFAULTS) });
    """
    seen = run_js(tmp_path, code, script=SCRIPT)
    assert seen["state"]["w"] == [[0.25, -1], [9, 0]]
    assert seen["back"] == seen["state"] and seen["none"] == ""
    assert re.fullmatch(r"[\w:;,.-]+", seen["text"]), "would need escapes in an address"
    assert sorted(seen["random"].split(";")) == ["input:ones", "kernel:random-4"]
    assert seen["damaged"] == seen["standard"]


@needs_node
def test_defaults_and_limits_are_those_of_python(tmp_path):
    seen = run_js(tmp_path, "answer({ DEFAULTS, LIMITS });", script=SCRIPT)
    traits = TransposedConvolution.class_traits()
    assert seen["DEFAULTS"] == {name: traits[name].default() for name in LIMITS}
    assert seen["LIMITS"] == {name: list(limits) for name, limits in LIMITS.items()}


@pytest.fixture
def make():
    made = []

    def new(**settings) -> TransposedConvolution:
        made.append(TransposedConvolution(**settings))
        return made[-1]

    yield new
    for widget in made:
        widget.close()


def test_what_a_notebook_stores_is_the_same_everywhere(make):
    widget = make(kernel_size=4, padding=1, output_padding=0)
    data, _ = widget._repr_mimebundle_()
    told = "TransposedConvolution(kernel_size=4, stride=2, padding=1, output_padding=0, size=4)"
    assert data["text/plain"] == repr(widget) == told
    mount = re.match(
        r'<div class="dcgan-transposed_convolution" data-settings="([^"]*)"><p>', data["text/html"]
    )
    assert json.loads(html.unescape(mount[1])) == widget.settings()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert make(stride=1).output_padding == 0, "a stride alone must be possible"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kernel_size": 6}, "kernel_size must be from 2 to 5, but it is 6"),
        ({"stride": 0}, "stride must be from 1 to 3"),
        ({"padding": -1}, "padding must be from 0 to 2"),
        ({"size": 9}, "size must be from 2 to 5"),
        ({"stride": 1, "output_padding": 1}, "output_padding must be below the stride"),
        ({"size": 2, "kernel_size": 2, "stride": 1}, "crops the whole output"),
        ({"dilation": 2}, "no setting 'dilation'"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(settings, told, make):
    with pytest.raises(UserError, match=re.escape(told)) as found:
        make(**settings)
    assert "\n" not in str(found.value)


def test_built_page_gets_script_and_style_only_where_a_control_is(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text(
        f"extensions = ['dcgan_widgets']\nimport sys; sys.path.insert(0, {str(EXTENSIONS)!r})"
    )
    mount = convolution_html(stride=3)
    (source / "index.rst").write_text(
        f"Page\n====\n\n.. toctree::\n\n   other\n\n.. raw:: html\n\n   {mount}\n"
    )
    (source / "other.rst").write_text("Other\n=====\n")
    built = tmp_path / "built"
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", source, built], check=True)
    page, other = ((built / f"{name}.html").read_text() for name in ("index", "other"))
    for part in ("transposed_convolution.js", "transposed_convolution.css"):
        assert part in page and part not in other
        assert (built / "_static" / part).stat().st_size > 1000
