"""Named directions: found where they are, left out where nothing is to be found."""

import json

import numpy as np
import pytest
import torch

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.interpretation import directions
from dcgan_lib.interpretation.directions import (
    Direction,
    fit_directions,
    keep,
    load_directions,
    save_directions,
    stroke_style,
)
from dcgan_lib.models.dcgan import Generator
from dcgan_lib.paths import checkpoints_root

COMMITTED = sorted(path.parent.name for path in checkpoints_root().glob("*/directions.json"))


class Reader(Probe):
    """A probe that reads z itself: a sign, a number, a class, a coin and a rarity."""

    def predict(self, images_u8, *, batch_size=256):
        rng, z = np.random.default_rng(0), self.z
        return {
            "sign": (z[:, 3] > 0).astype(float),
            "number": 2 * z[:, 1] - z[:, 0],
            "coin": rng.random(len(z)),
            "kind": np.eye(3)[np.digitize(z[:, 2], [-0.3, 0.3])],
            "rare": (np.arange(len(z)) < 5).astype(float),
        }


@pytest.fixture
def fitted(monkeypatch):
    model = ModelConfig(image_size=(16, 16), z_dim=5, base_width=1)
    heads = [
        ("sign", "boolean"),
        ("number", "continuous"),
        ("coin", "boolean"),
        ("rare", "boolean"),
    ]
    heads = (
        *(Head(name=name, kind=kind) for name, kind in heads),
        Head(name="kind", kind="class", class_names=tuple("abc")),
    )
    probe = Reader(ProbeConfig(image_size=(16, 16), num_channels=3, heads=heads, widths=(2,)))
    monkeypatch.setattr(directions, "load_generator", lambda name: Generator(model).eval())
    drawn = directions.sample_latents

    def remember(*given):
        probe.z = drawn(*given).numpy()
        return torch.from_numpy(probe.z)

    monkeypatch.setattr(directions, "sample_latents", remember)
    return {found.name: found for found in fit_directions("made up", probe, 800, 1)}


def test_directions_point_where_the_attribute_grows(fitted):
    expected = {
        "sign": [0, 0, 0, 1, 0],
        "number": [-1, 2, 0, 0, 0],
        "kind a": [0, 0, -1, 0, 0],
        "kind c": [0, 0, 1, 0, 0],
    }
    for name, way in expected.items():
        cosine = fitted[name].direction_d @ np.array(way) / np.linalg.norm(way)
        assert cosine > 0.98 and np.linalg.norm(fitted[name].direction_d) == pytest.approx(
            1, abs=1e-6
        ), name
    assert fitted["number"].measure == "R2" and fitted["number"].score > 0.99
    assert fitted["sign"].measure == "balanced accuracy" and fitted["sign"].score > 0.95


def test_chance_is_left_out(fitted):
    assert "rare" not in fitted, "five cases are too few to fit and to check"
    kept = {found.name for found in keep(tuple(fitted.values()))}
    assert {"sign", "number", "kind a", "kind c"} <= kept and "coin" not in kept


def test_style_of_digits_is_found_within_classes(monkeypatch):
    """Two classes of bars, thin and thick: only what varies inside a class is the direction."""
    model = ModelConfig(image_size=(16, 16), num_channels=1, z_dim=4, base_width=1, num_classes=2)
    monkeypatch.setattr(directions, "load_generator", lambda name: Generator(model).eval())
    monkeypatch.setattr(
        directions,
        "generate_u8",
        lambda generator, z_nd, labels_n: bars(z_nd[:, 2], 1 + 3 * labels_n),
    )
    found = {row.name: row for row in fit_directions("made up", "strokes", 800, 1)}
    assert abs(found["slant"].direction_d[2]) > 0.98 and found["slant"].score > 0.9
    assert abs(found["weight"].direction_d[2]) < 0.5 or found["weight"].score < 0.3


def bars(slants, widths):
    """Draw leaning bars, each row shifted by the slant."""
    rows, columns = np.arange(16)[:, None], np.arange(16)
    shifted = columns - 8 - 0.5 * np.asarray(slants)[:, None, None] * (8 - rows)
    ink = np.clip(np.asarray(widths)[:, None, None] + 0.5 - np.abs(shifted), 0, 1)
    return np.round(255 * ink).astype(np.uint8)[:, None]


def test_strokes_are_measured_as_they_are_drawn():
    style = stroke_style(bars(np.array([0.0, 0.5, -0.5, 0.0]), np.array([1, 1, 1, 3])))
    np.testing.assert_allclose(style["slant"], [0, 0.25, -0.25, 0], atol=0.03)
    np.testing.assert_allclose(style["weight"], [2 / 16] * 3 + [6 / 16], rtol=0.02)
    assert style["width"][3] > style["width"][0]
    black = stroke_style(np.zeros((1, 1, 16, 16), np.uint8))
    assert all(np.isnan(values) for values in black.values())


def test_directions_are_kept_beside_the_weights(fitted, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert load_directions(tmp_path) == ()
    save_directions(tmp_path, tuple(fitted.values()), probe="probe-x", n=800, seed=1)
    back = {found.name: found for found in load_directions(tmp_path)}
    assert set(back) == {found.name for found in keep(tuple(fitted.values()))}
    np.testing.assert_array_equal(back["sign"].direction_d, fitted["sign"].direction_d)
    about = json.loads((tmp_path / "directions.json").read_text())
    assert (about["n"], about["held_out"], about["seed"], about["probe"]) == (
        800,
        200,
        1,
        "probe-x",
    )
    assert {row["attribute"] for row in about["directions"]} == set(fitted), (
        "what was left out is told"
    )
    (tmp_path / "directions.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="damaged"):
        load_directions(tmp_path)


def test_wrong_requests_are_refused(capsys):
    with pytest.raises(UserError, match="at least 400"):
        fit_directions("mnist", "probe-mnist", 100)
    with pytest.raises(UserError, match="no probe"):
        fit_directions("mnist", "probe-nothing", 400)
    with pytest.raises(UserError, match="read off grey images"):
        fit_directions("faces", "strokes", 400)
    assert directions.main(["nothing"]) == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_directions_say_what_they_are_worth(name):
    about = json.loads((checkpoints_root() / name / "directions.json").read_text())
    found = load_directions(name)
    assert [row["attribute"] for row in about["directions"] if row["kept"]] == [
        direction.name for direction in found
    ]
    assert about["n"] >= 4_000 and about["held_out"] >= 1_000
    for direction in found:
        assert (
            isinstance(direction, Direction)
            and direction.score >= directions.LEAST[direction.measure]
        )
        assert np.linalg.norm(direction.direction_d) == pytest.approx(1, abs=1e-5)
