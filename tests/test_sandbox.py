"""The sandbox: its engine in Node against PyTorch, its targets, its presets, its Python half.

Axes: n points of a batch, r updates in turn; coordinates last. The engine computes in float64, as
the twin does here.
"""

import html
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
from torch import nn

from dcgan_lib.errors import UserError
from dcgan_lib.widgets import sandbox as module
from dcgan_lib.widgets.page import EXPORT, classic_script, script
from dcgan_lib.widgets.sandbox import LOSSES, TARGETS, Sandbox, sandbox_html

GAME = {
    "target": "ring",
    "learning_rate": 0.003,
    "beta1": 0.5,
    "loss": "non-saturating",
    "d_updates": 2,
    "g_updates": 1,
    "width": 16,
    "seed": 3,
    "points": [],
}
ROUNDS = 100
EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "extensions"
# Play a game on batches that are written down, with the weights as they were before.
RECORD = """
  const settings = read("settings.json"), game = new Game(settings), list = (x) => [...x];
  const before = { g: list(game.generator.params), d: list(game.discriminator.params) };
  const real = [], d_z = [], g_z = [], d_losses = [], g_losses = [];
  for (let r = 0; r < read("rounds.json"); r++) {
    for (let k = 0; k < settings.d_updates; k++) {
      const x = game.reals(BATCH), z = game.latents(BATCH);
      real.push(list(x));
      d_z.push(list(z));
      d_losses.push(game.updateD(x, z));
    }
    for (let k = 0; k < settings.g_updates; k++) {
      const z = game.latents(BATCH);
      g_z.push(list(z));
      g_losses.push(game.updateG(z));
    }
  }
  answer({ before, real, d_z, g_z, d_losses, g_losses, shown_z: list(game.shownZ),
    generated: list(game.generated()) });
"""


# --- the twin: the same game in plain torch ---
def twin_network(params: list[float], width: int, outputs: int) -> nn.Sequential:
    """Return a network with the engine's parameters: each layer's weights, then its biases."""
    activation = nn.LeakyReLU(0.2)
    network = nn.Sequential(
        nn.Linear(2, width),
        activation,
        nn.Linear(width, width),
        activation,
        nn.Linear(width, outputs),
    ).double()
    nn.utils.vector_to_parameters(torch.tensor(params, dtype=torch.float64), network.parameters())
    return network


def play_twin(settings: dict, seen: dict) -> tuple[np.ndarray, list[float], list[float]]:
    """Return the points that the twin generates after the same batches, and both losses."""
    generator = twin_network(seen["before"]["g"], settings["width"], 2)
    discriminator = twin_network(seen["before"]["d"], settings["width"], 1)
    rate, betas = settings["learning_rate"], (settings["beta1"], 0.999)
    g_adam = torch.optim.Adam(generator.parameters(), lr=rate, betas=betas, eps=1e-8)
    d_adam = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=betas, eps=1e-8)

    def batches(key: str) -> torch.Tensor:
        return torch.tensor(seen[key], dtype=torch.float64).unflatten(1, (-1, 2))

    real_rn2, d_z_rn2, g_z_rn2 = batches("real"), batches("d_z"), batches("g_z")
    d_losses, g_losses = [], []
    for r in range(ROUNDS):
        for k in range(r * settings["d_updates"], (r + 1) * settings["d_updates"]):
            real_logit = discriminator(real_rn2[k])
            fake_logit = discriminator(generator(d_z_rn2[k]).detach())
            d_loss = F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()
            d_adam.zero_grad()
            d_loss.backward()
            d_adam.step()
            d_losses.append(d_loss.item())
        for k in range(r * settings["g_updates"], (r + 1) * settings["g_updates"]):
            probability = torch.sigmoid(discriminator(generator(g_z_rn2[k])))
            if settings["loss"] == "minimax":
                g_loss = torch.log(1 - probability).mean()
            else:
                g_loss = -torch.log(probability).mean()
            g_adam.zero_grad()
            g_loss.backward()
            g_adam.step()
            g_losses.append(g_loss.item())
    shown_z_n2 = torch.tensor(seen["shown_z"], dtype=torch.float64).unflatten(0, (-1, 2))
    with torch.no_grad():
        return generator(shown_z_n2).numpy(), d_losses, g_losses


@needs_node
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
def test_engine_plays_the_game_that_pytorch_plays(loss, beta1, tmp_path):
    settings = {**GAME, "loss": loss, "beta1": beta1}
    files = {"settings.json": settings, "rounds.json": ROUNDS}
    seen = run_js(tmp_path, RECORD, files=files, script="sandbox.js")
    twin_n2, d_losses, g_losses = play_twin(settings, seen)
    np.testing.assert_allclose(np.reshape(seen["generated"], (-1, 2)), twin_n2, rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen["d_losses"], d_losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen["g_losses"], g_losses, rtol=0, atol=1e-6)
    other_n2, _, _ = play_twin({**settings, "beta1": 0.3}, seen)
    assert np.abs(other_n2 - twin_n2).max() > 1e-3, "the game did not depend on beta1"


@needs_node
def test_round_draws_its_batches_in_the_order_that_is_told(tmp_path):
    """`round` is the loop that the twin test writes out."""
    code = RECORD.replace("answer({", "const whole = new Game(settings);\nanswer({ whole: (() => {"
        " for (let r = 0; r < read('rounds.json'); r++) whole.round();"
        " return list(whole.generated()); })(),")  # fmt: skip
    files = {"settings.json": {**GAME, "g_updates": 2}, "rounds.json": 5}
    seen = run_js(tmp_path, code, files=files, script="sandbox.js")
    assert seen["whole"] == seen["generated"]


@needs_node
def test_gradient_of_arrows_is_that_of_the_loss(tmp_path):
    """Moving a generated point a little along an axis changes the loss by the gradient there."""
    code = """
      const game = new Game(read("settings.json")), points = game.generated().slice(0, 20);
      for (let r = 0; r < 20; r++) game.round();
      const { pull } = game.judge(points, 10), gradient = [...pull.slice(0, 20)], slopes = [];
      for (let p = 0; p < 20; p++) {
        const moved = [1e-6, -1e-6].map((step) => {
          const copy = points.slice();
          copy[p] += step;
          return game.judge(copy, 10).loss;
        });
        slopes.push((moved[0] - moved[1]) / 2e-6);
      }
      answer([gradient, slopes]);
    """
    for loss in LOSSES:
        files = {"settings.json": {**GAME, "loss": loss}}
        gradient, slopes = run_js(tmp_path, code, files=files, script="sandbox.js")
        np.testing.assert_allclose(gradient, slopes, rtol=0, atol=1e-7)
        assert np.abs(gradient).max() > 1e-4


# --- targets and score ---
def sample(tmp_path, target: str, count: int = 20_000, drawn: list | None = None) -> np.ndarray:
    code = f"""answer([...samplePoints("{target}", {count}, new Random(5), read("drawn.json"))]);"""
    files = {"drawn.json": drawn or []}
    return np.reshape(run_js(tmp_path, code, files=files, script="sandbox.js"), (-1, 2))


@needs_node
@pytest.mark.parametrize(("target", "num_modes"), [("ring", 8), ("grid9", 9), ("grid25", 25)])
def test_gaussians_have_equal_weight_and_their_standard_deviation(target, num_modes, tmp_path):
    about = run_js(tmp_path, f"answer(TARGETS.{target});", script="sandbox.js")
    modes_m2, points_n2 = np.array(about["modes"]), sample(tmp_path, target)
    distances_nm = np.linalg.norm(points_n2[:, None] - modes_m2, axis=2)
    nearest_n = distances_nm.argmin(1)
    shares_m = np.bincount(nearest_n, minlength=num_modes) / len(points_n2)
    assert len(modes_m2) == num_modes and np.abs(modes_m2).max() < 2
    np.testing.assert_allclose(shares_m, 1 / num_modes, atol=0.01)
    np.testing.assert_allclose((points_n2 - modes_m2[nearest_n]).std(0), about["sd"], rtol=0.03)
    gaps_mm = np.linalg.norm(modes_m2[:, None] - modes_m2, axis=2) + 9 * np.eye(num_modes)
    assert gaps_mm.min() > 6 * about["sd"], "a point could be near two modes"


@needs_node
def test_other_targets_lie_where_they_should(tmp_path):
    one_n2 = sample(tmp_path, "gaussian")
    np.testing.assert_allclose(one_n2.mean(0), [1, 0.8], atol=0.01)
    np.testing.assert_allclose(one_n2.std(0), 0.2, rtol=0.03)
    assert abs(np.corrcoef(one_n2.T)[0, 1]) < 0.03
    moons_n2 = sample(tmp_path, "moons")
    to_upper_n = np.abs(np.linalg.norm(moons_n2 - [-0.5, -0.25], axis=1) - 1)
    to_lower_n = np.abs(np.linalg.norm(moons_n2 - [0.5, 0.25], axis=1) - 1)
    assert (np.minimum(to_upper_n, to_lower_n) < 0.4).all()
    np.testing.assert_allclose(moons_n2.mean(0), 0, atol=0.02)
    assert 0.45 < (to_upper_n < to_lower_n).mean() < 0.55
    drawn_n2 = sample(tmp_path, "own", drawn=[[1.5, -1.5], [-1, 1]])
    at_first_n = np.linalg.norm(drawn_n2 - [1.5, -1.5], axis=1) < 0.4
    assert 0.48 < at_first_n.mean() < 0.52
    assert (np.linalg.norm(drawn_n2[~at_first_n] - [-1, 1], axis=1) < 0.4).all()


@needs_node
def test_mode_counts_as_covered_by_a_quarter_of_its_share(tmp_path):
    """Of 80 points on the ring a fair share is 10, so 3 points within 3 standard deviations cover a
    mode and 2 do not."""
    code = """
      const points = new Float64Array(160).fill(1.95), { modes } = TARGETS.ring;
      const [[x, y], [u, v], [s, t]] = modes;
      const put = (n, from, a, b) => {
        for (let i = 0; i < n; i++) points.set([a, b], 2 * (from + i));
      };
      put(3, 0, x + 0.29, y);
      put(2, 3, u, v);
      put(9, 5, s + 0.31, t);
      answer(coverage("ring", points));
    """
    seen = run_js(tmp_path, code, script="sandbox.js")
    assert (seen["covered"], seen["of"]) == (1, 8)
    assert seen["near"] == pytest.approx(5 / 80)


@needs_node
def test_contour_follows_the_level(tmp_path):
    code = """
      const side = 9, values = Array.from({ length: side * side }, (_, k) =>
        Math.hypot((k % side) - 4, Math.floor(k / side) - 4));
      answer(contour(values, side, 2.5));
    """
    pieces = np.reshape(run_js(tmp_path, code, script="sandbox.js"), (-1, 2))
    assert len(pieces) > 20
    np.testing.assert_allclose(np.linalg.norm(pieces - 4, axis=1), 2.5, atol=0.12)


# --- presets: what their words promise, on seeds besides the page's own ---
def play_preset(tmp_path, name: str, seed: int, code: str) -> object:
    """Play a preset, and return what the code answers; the code sees the helpers below."""
    head = f"""
      const preset = PRESETS.find(({{ name }}) => name === "{name}");
      const game = new Game({{ ...DEFAULTS, ...preset.settings, seed: {seed} }});
      const until = (rounds) => {{ while (game.rounds < rounds) game.round(); }};
      const covered = (rounds) => {{
        until(rounds);
        return coverage(game.settings.target, game.generated()).covered;
      }};
      const lengths = () => {{
        const {{ pull }} = game.judge(game.generated(), SHOWN), found = [];
        for (let p = 0; p < 2 * SHOWN; p += 2)
          found.push(SHOWN * Math.hypot(pull[p], pull[p + 1]));
        return found.sort((a, b) => a - b);
      }};
    """
    return run_js(tmp_path, head + code, script="sandbox.js")


@needs_node
@pytest.mark.parametrize("seed", [1, 2])
def test_collapse_keeps_to_one_or_two_modes_and_its_cure_covers_the_ring(seed, tmp_path):
    code = "answer([200, 300, 400, 500, 600].map(covered));"
    seen = play_preset(tmp_path, "Mode collapse", seed, code)
    assert max(seen) <= 2 and np.median(seen) <= 1
    code = "answer(covered(1200));"
    assert play_preset(tmp_path, "Collapse cured", seed, code) >= 7
    assert play_preset(tmp_path, "It converges", seed, code) >= 7


@needs_node
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gradient_vanishes_under_minimax_alone(seed, tmp_path):
    code = """
      until(60);
      const minimax = lengths()[SHOWN / 2];
      game.settings = { ...game.settings, loss: "non-saturating" };
      answer([minimax, lengths()[SHOWN / 2]]);
    """
    minimax, non_saturating = play_preset(tmp_path, "Vanishing gradient", seed, code)
    assert minimax < 0.01 and non_saturating > 1


@needs_node
def test_swing_is_wider_than_with_the_papers_beta1(tmp_path):
    """The standard deviation, over rounds 100 to 400, of the mean of G's points; three seeds."""
    code = """
      const means = [];
      game.settings = { ...game.settings, beta1: BETA1 };
      for (let rounds = 100; rounds <= 400; rounds += 3) {
        until(rounds);
        const sums = [0, 0];
        game.generated().forEach((value, p) => (sums[p % 2] += value));
        means.push(sums.map((sum) => sum / SHOWN));
      }
      answer(means);
    """
    swings = {}
    for beta1 in (0.5, 0.9):
        found = []
        for seed in (1, 2, 3):
            played = code.replace("BETA1", str(beta1))
            means_r2 = np.array(play_preset(tmp_path, "β₁ = 0.9 swings", seed, played))
            found.append(np.sqrt(means_r2.var(0).sum()))
        swings[beta1] = np.mean(found)
    assert swings[0.9] > 1.5 * swings[0.5], swings


# --- settings ---
@needs_node
def test_defaults_names_and_limits_are_those_of_python(tmp_path):
    code = """
      const [targets, losses] = [TARGETS, LOSSES].map(Object.keys);
      answer({ DEFAULTS, targets, losses, MOST_POINTS });
    """
    seen = run_js(tmp_path, code, script="sandbox.js")
    traits = Sandbox.class_traits()
    assert list(seen["DEFAULTS"]) == Sandbox.setting_names()
    for name, value in seen["DEFAULTS"].items():
        assert traits[name].default() == value, name
    assert seen["targets"] == list(TARGETS) and seen["losses"] == list(LOSSES)
    assert seen["MOST_POINTS"] == module.MAX_POINTS


@needs_node
def test_address_brings_settings_back_and_survives_damage(tmp_path):
    changed = {**GAME, "target": "own", "loss": "minimax", "points": [[0.25, -1.5], [2, 0]]}
    code = """
      const text = encode(read("changed.json"), DEFAULTS);
      const damaged = decode("seed:4;width:wide;target:;;nothing:1;points:1,x,3;beta1:0.9");
      const silly = { target: "toString", learning_rate: 9, d_updates: -3, width: 1e9, seed: 2.6 };
      answer({ text, back: tidy({ ...DEFAULTS, ...decode(text) }), none: encode(DEFAULTS, DEFAULTS),
        damaged: tidy({ ...DEFAULTS, ...damaged }), silly: tidy(silly) });
    """
    seen = run_js(tmp_path, code, files={"changed.json": changed}, script="sandbox.js")
    assert seen["back"] == changed and seen["none"] == ""
    assert re.fullmatch(r"[\w:;,.-]+", seen["text"]), "would need escapes in an address"
    assert (seen["damaged"]["seed"], seen["damaged"]["beta1"]) == (4, 0.9)
    assert (seen["damaged"]["width"], seen["damaged"]["points"]) == (32, [])
    silly = seen["silly"]
    assert (silly["target"], silly["learning_rate"], silly["d_updates"]) == ("ring", 0.1, 0)
    assert (silly["width"], silly["seed"]) == (128, 3)


@pytest.fixture
def sandbox():
    made = []

    def make(**settings) -> Sandbox:
        made.append(Sandbox(**settings))
        return made[-1]

    yield make
    for widget in made:
        widget.close()


def test_what_a_notebook_stores_is_the_same_everywhere(sandbox):
    assert repr(sandbox()) == "Sandbox()"
    widget = sandbox(target="moons", beta1=0.9, seed=4)
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == repr(widget) == "Sandbox(target='moons', beta1=0.9, seed=4)"
    mount = re.fullmatch(
        r'<div class="dcgan-sandbox" data-sandbox="([^"]*)"><p>.*two moons\.</p></div>',
        data["text/html"],
    )
    assert json.loads(html.unescape(mount[1])) == widget.settings()
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target": "spiral"}, "target must be one of ring, grid9"),
        ({"loss": "hinge"}, "loss must be one of non-saturating, minimax"),
        ({"learning_rate": 0.5}, "learning_rate must be from 1e-06 to 0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"beta1": 1}, "beta1 must be from 0 to 0.999"),
        ({"g_updates": 21}, "g_updates must be from 0 to 20"),
        ({"width": 0}, "width must be from 1 to 128"),
        ({"seed": -1}, "seed must be from 0"),
        ({"points": [[0.0, 3.0]]}, "coordinate must be from -2.0 to 2.0"),
        ({"points": [[0.0]]}, "pair of x and y"),
        ({"points": [[0.0, 0.0]] * 301}, "at most 300 points, but 301"),
        ({"momentum": 1}, "no setting 'momentum'"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(settings, told, sandbox):
    with pytest.raises(UserError, match=re.escape(told)) as found:
        sandbox(**settings)
    assert "\n" not in str(found.value)


def test_built_page_gets_script_and_style_only_where_a_sandbox_is(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    settings = (
        f"extensions = ['dcgan_widgets']\nimport sys; sys.path.insert(0, {str(EXTENSIONS)!r})"
    )
    (source / "conf.py").write_text(settings)
    (source / "index.rst").write_text(
        f"Page\n====\n\n.. toctree::\n\n   other\n\n.. raw:: html\n\n   {sandbox_html(seed=4)}\n"
    )
    (source / "other.rst").write_text("Other\n=====\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", source, tmp_path / "html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    shown, other = ((tmp_path / "html" / f"{name}.html").read_text() for name in ("index", "other"))
    assert re.search(r'<script defer="defer" src="_static/sandbox\.js', shown)
    assert "_static/sandbox.css" in shown and "sandbox" not in other
    static = tmp_path / "html" / "_static"
    assert (static / "sandbox.js").read_text() == classic_script("sandbox")
    assert (static / "sandbox.css").exists()


def test_script_asks_no_other_place():
    source = script("sandbox.js")
    assert source.endswith(EXPORT) and len(re.findall(r"^export\b", source, re.MULTILINE)) == 1
    assert "fetch(" not in source and not re.search(r"https?://", source)
    assert 'querySelectorAll(".dcgan-sandbox")' in classic_script("sandbox")
    assert "<script" not in sandbox_html(target="moons")
