"""The explorer's Python half: the same latent vectors as the page, settings that follow each other,
honest errors."""

import html
import json
import re

import numpy as np
import pytest
import torch
from node import needs_node, run_js

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import generate_u8
from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.widgets import latents
from dcgan_lib.widgets.explorer import Explorer
from dcgan_lib.widgets.page import EXPORT, MODES, classic_script, explorer_html, script

NORMAL, UNIFORM = ModelConfig(z_distribution="normal", z_dim=101), ModelConfig()
SEEDS = [0, 1, 42, 2**31, 2**32 - 1]


@pytest.fixture
def explorer():
    made = []

    def make(*words, **settings) -> Explorer:
        made.append(Explorer(*words, **settings))
        return made[-1]

    yield make
    for widget in made:
        widget.close()


def about(config: ModelConfig) -> dict:
    return {"z_dim": config.z_dim, "z_distribution": config.z_distribution}


# --- numbers ---
@needs_node
@pytest.mark.parametrize("config", [UNIFORM, NORMAL], ids=["uniform", "normal"])
def test_a_seed_gives_the_same_vector_in_the_page(config, tmp_path):
    code = "answer(read('seeds.json').map((seed) => [...seedLatent(seed, read('about.json'))]));"
    seen = np.array(
        run_js(tmp_path, code, files={"seeds.json": SEEDS, "about.json": about(config)}), np.float32
    )
    np.testing.assert_array_equal(
        seen, np.stack([latents.seed_latent(seed, config) for seed in SEEDS])
    )


def test_numbers_are_mulberry32_s():
    """The first numbers of the published generator for seed 1, and the spread of many."""
    np.testing.assert_allclose(
        latents.uniforms(1, 2), [0.6270739405881613, 0.002735721180215478], rtol=0, atol=1e-15
    )
    many = latents.uniforms(7, 40_000)
    assert abs(many.mean() - 0.5) < 0.01 and many.min() >= 0 and many.max() < 1
    normal = latents.normals(7, 40_001)
    assert len(normal) == 40_001 and abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    assert (
        abs(np.corrcoef(latents.seed_latent(3, UNIFORM), latents.seed_latent(4, UNIFORM))[0, 1])
        < 0.4
    )


@needs_node
def test_directions_walks_and_sums_agree(tmp_path):
    config, groups = NORMAL, [[1, 2, 3], [4], []]
    code = """
      const about = read('about.json'), ends = [seedLatent(1, about), seedLatent(2, about)];
      const sum = arithmeticLatents({ groups: read('groups.json'), noise: 3 }, about);
      answer({ random: randomDirections(5, about.z_dim).map((row) => [...row]), reach: reach(about),
        linear: [...between(...ends, 0.3, "linear")],
        spherical: [...between(...ends, 0.3, "spherical")],
        same: [...between(ends[0], ends[0], 0.5, "spherical")],
        nine: sum.nine.map((z) => [...z]) });
    """
    seen = run_js(tmp_path, code, files={"about.json": about(config), "groups.json": groups})
    near = {"rtol": 0, "atol": 1e-6}
    np.testing.assert_allclose(seen["random"], latents.random_directions(5, config.z_dim), **near)
    assert seen["reach"] == pytest.approx(latents.reach(config))
    first, second = latents.seed_latent(1, config), latents.seed_latent(2, config)
    for curve in ("linear", "spherical"):
        np.testing.assert_allclose(seen[curve], latents.walk([1, 2], 0.3, curve, config), **near)
    np.testing.assert_allclose(seen["same"], first, **near)
    np.testing.assert_allclose(seen["nine"][4], latents.arithmetic(groups, config), **near)
    offsets = np.array(seen["nine"]) - seen["nine"][4]
    assert np.abs(offsets).max() <= 0.2501 and (np.abs(np.delete(offsets, 4, 0)).max(1) > 0.2).all()
    assert not np.allclose(second, first)


def test_random_directions_stand_at_right_angles():
    first, second = latents.random_directions(9, 50)
    assert first @ second == pytest.approx(0, abs=1e-12) and first @ first == pytest.approx(1)
    assert not latents.random_directions(9, 1)[1].any()  # one dimension has no second direction


@needs_node
def test_address_round_trip(tmp_path):
    """Every setting that the address holds comes back from it; what is damaged is left out."""
    code = """
      globalThis.location = { hash: "", href: "file:///page.html" };
      const changed = { model: "a b", mode: "maps", seed: 4294967295, label: 3,
        axes: ["age", "x,y;z~&"], axis_seed: 2, pad: [0.25, -1],
        values: { "hair~red": -0.35, age: 1 }, anchors: [5, 6], t: 0.75, curve: "spherical",
        gallery: [3, 4], groups: [[1], [], [2, 3]], noise: 8, direction: "age", far: 0.5,
        layer: 2, off: [0, 1, 2, 7],
        step: 3 };
      const href = address("x2", { ...DEFAULTS, ...changed }, DEFAULTS);
      location.hash = "#section&" + href.split("#")[1] + "&x1=seed:5;pad:a,b;nonsense:1;seed";
      const both = address("x1", { ...DEFAULTS, seed: 6 }, DEFAULTS);
      const bare = address("x2", DEFAULTS, DEFAULTS);
      answer({ changed, back: readAddress("x2"), other: readAddress("x1"), both, bare });
    """
    seen = run_js(tmp_path, code)
    assert seen["back"] == seen["changed"]
    assert seen["other"] == {"seed": 5}
    assert seen["both"].startswith("file:///page.html#section&x2=") and seen["both"].endswith(
        "&x1=seed:6"
    )
    assert "x2" not in seen["bare"]


@needs_node
def test_settings_are_the_same_on_both_sides(tmp_path):
    defaults = run_js(tmp_path, "answer([DEFAULTS, Object.keys(MODES)]);")
    assert defaults[1] == list(MODES)
    traits = Explorer.class_traits(sync=True)
    assert {name: traits[name].default() for name in defaults[0]} == defaults[0]


# --- the widget ---
def test_explorer_draws_what_pytorch_draws(explorer):
    widget = explorer("mnist", seed=5)
    generator = load_generator("mnist")
    z_d = latents.seed_latent(5, generator.config)
    assert widget.z_bd.shape == (1, 100) and widget.z_bd.dtype == torch.float32
    np.testing.assert_array_equal(widget.z_bd[0].numpy(), z_d)
    np.testing.assert_array_equal(
        widget.picture, generate_u8(generator, torch.from_numpy(z_d)[None])[0, 0]
    )


def test_latent_follows_every_setting(explorer):
    widget, config = explorer("mnist"), ModelConfig()
    seen = [widget.z]
    for name, value in (
        ("seed", 6),
        ("pad", [0.5, 0.0]),
        ("axis_seed", 3),
        ("pad", [0.5, -0.5]),
        ("mode", "walk"),
        ("t", 0.5),
        ("curve", "spherical"),
        ("anchors", [8, 9]),
        ("mode", "arithmetic"),
        ("groups", [[1], [2], [3]]),
    ):
        setattr(widget, name, value)
        assert widget.z not in seen, name
        seen.append(widget.z)
    widget.mode = "maps"
    np.testing.assert_array_equal(np.float32(widget.z), latents.seed_latent(6, config))
    widget.mode, widget.pad = "free", [0.5, 0.0]
    step = np.array(widget.z) - latents.seed_latent(6, config)
    np.testing.assert_allclose(
        step, 0.5 * latents.reach(config) * latents.random_directions(3, 100)[0], atol=1e-6
    )


def test_own_directions_can_be_named(explorer):
    direction = np.eye(100)[7].tolist()
    widget = explorer("mnist", extra={"mine": direction}, values={"mine": 0.5, "unknown": 1.0})
    before = latents.seed_latent(0, ModelConfig())
    assert widget.z[7] - before[7] == pytest.approx(0.5 * latents.reach(ModelConfig()), abs=1e-5)
    widget.axes, widget.values, widget.pad = ["mine", "random"], {}, [1.0, 0.0]
    assert widget.z[7] - before[7] == pytest.approx(latents.reach(ModelConfig()), abs=1e-5)


def test_a_latent_of_one_s_own_is_shown_until_the_seed_changes(explorer):
    widget = explorer("mnist", mode="walk", seed=2)
    widget.z = [0.25] * 100
    assert (
        widget.mode == "free"
        and widget.base == widget.z == [0.25] * 100
        and widget.pad == [0.0, 0.0]
    )
    widget.seed = 3
    np.testing.assert_array_equal(np.float32(widget.z), latents.seed_latent(3, ModelConfig()))
    assert explorer("mnist", z=[0.5] * 100).z == [0.5] * 100


def test_maps_that_are_off_change_the_picture(explorer):
    widget = explorer("mnist", mode="maps", layer=2, seed=1)
    before = widget.picture
    widget.off = [*range(widget.config.base_width), 999]
    assert np.unique(widget.picture).size == 1 < np.unique(before).size, (
        "with no maps the picture is flat"
    )
    widget.mode = "free"
    np.testing.assert_array_equal(widget.picture, before)


def test_mistakes_are_told_in_a_sentence(explorer):
    for settings, told in (
        ({"checkpoint": "nothing"}, "no checkpoint or run folder at 'nothing'"),
        ({"mode": "fly"}, "no mode 'fly'"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**32}, "seed must be"),
        ({"speed": 3}, "no setting ['speed']"),
        ({"discriminator": True, "models": ["mnist-paper"]}, "has no discriminator.safetensors"),
        ({"z": [1.0]}, "z must be 100 finite numbers"),
        ({"z": [float("nan")] * 100}, "finite"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            explorer(**{"checkpoint": "mnist"} | settings)
    widget = explorer("mnist")
    for name, value in (
        ("mode", "fly"),
        ("model", "nothing"),
        ("seed", -2),
        ("z", [0.0]),
        ("pad", [2.0, 0.0]),
    ):
        with pytest.raises(UserError):
            setattr(widget, name, value)
    assert (widget.mode, widget.model, widget.seed) == ("free", "mnist", 0)


def test_weights_are_sent_when_the_page_asks(explorer, monkeypatch):
    widget, sent = explorer("mnist"), []
    monkeypatch.setattr(
        widget, "send", lambda content, buffers=None: sent.append((content, buffers))
    )
    for content in (
        {"type": "something else"},
        {"type": "need weights", "model": "mnist"},
        {"type": "need weights", "model": "nothing"},
    ):
        widget._handle_custom_msg(content, [])
    (good, buffers), (bad, none) = sent
    assert (
        good["type"] == "weights"
        and good["model"] == "mnist"
        and good["about"]["precision"] == "half"
    )
    assert len(buffers) == 1 and len(buffers[0]) > 900_000
    assert bad["type"] == "no weights" and "no checkpoint" in bad["reason"] and none is None


def test_what_a_notebook_stores_is_the_same_everywhere(explorer):
    widget = explorer("mnist", "walk", anchors=[3, 4], t=0.5)
    again = explorer("mnist", "walk", anchors=[3, 4], t=0.5)
    assert repr(widget) == repr(again) == "Explorer(checkpoint='mnist', mode='walk', seed=0)"
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["text/plain"] == repr(widget)
    assert data["text/html"] == again._repr_mimebundle_()[0]["text/html"]
    settings = json.loads(html.unescape(re.search('data-explorer="([^"]*)"', data["text/html"])[1]))
    assert settings == {"model": "mnist", "mode": "walk", "anchors": [3, 4], "t": 0.5}


def test_an_explorer_with_its_discriminator_says_so_on_the_page(explorer):
    asked, plain = explorer("mnist", discriminator=True), explorer("mnist")
    assert "&quot;discriminator&quot;: true" in asked.page()
    assert "discriminator" not in plain.page()


# --- the page ---
def test_mount_point_holds_settings_and_a_still_picture():
    text = explorer_html("a&b", "turn", direction='say "hi"')
    settings = json.loads(html.unescape(re.search('data-explorer="([^"]*)"', text)[1]))
    assert settings == {"model": "a&b", "mode": "turn", "direction": 'say "hi"'}
    assert '<img src="_static/models/a&amp;b.png" alt="' in text and "<p>" in text
    with pytest.raises(UserError, match="no mode"):
        explorer_html("mnist", "fly")


def test_script_for_pages_has_no_module_syntax():
    text = classic_script()
    assert not re.search(r"^\s*(export|import)\b", text, re.MULTILINE) and "mount(place)" in text
    source = script("explorer.js")
    assert source.endswith(EXPORT) and len(re.findall(r"^export\b", source, re.MULTILINE)) == 1
    assert "fetch(" not in source and not re.search(r"https?://", source), (
        "nothing is asked of another place"
    )
