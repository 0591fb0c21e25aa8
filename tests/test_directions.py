"""Named directions: found where they are, left out where nothing is to be found."""

import json
import shutil
from functools import partial

import numpy as np
import pytest

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig
from dcgan_lib.interpretation.directions import (
    LEAST,
    fit_directions,
    load_directions,
    probe_attributes,
    save_directions,
    stroke_style,
)
from dcgan_lib.models.dcgan import Generator
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import load_generator

COMMITTED = sorted(path.parent.name for path in checkpoints_root().glob("*/directions.json"))


MODEL = ModelConfig(image_size=(16, 16), z_dim=5, base_width=1)


class Reader(Probe):
    """A probe that knows z itself: a sign, a number, a class, a coin and a rarity."""

    def predict(self, images_u8, *, batch_size=256):
        z = sample_latents(len(images_u8), MODEL, seeded(1)).numpy()
        return {
            "sign": (z[:, 3] > 0).astype(float),
            "number": 2 * z[:, 1] - z[:, 0],
            "coin": np.random.default_rng(0).random(len(z)),
            "kind": np.eye(3)[np.digitize(z[:, 2], [-0.3, 0.3])],
            "rare": (np.arange(len(z)) < 5).astype(float),
        }


@pytest.fixture(scope="module")
def fitted():
    kinds = {"sign": "boolean", "number": "continuous", "coin": "boolean", "rare": "boolean"}
    heads = [Head(name=name, kind=kind) for name, kind in kinds.items()]
    heads.append(Head(name="kind", kind="class", class_names=tuple("abc")))
    probe = Reader(
        ProbeConfig(image_size=(16, 16), num_channels=3, heads=tuple(heads), widths=(2,))
    )
    found = fit_directions(Generator(MODEL).eval(), partial(probe_attributes, probe), 800, 1)
    return {direction.name: direction for direction in found}


def test_directions_point_where_the_attribute_grows(fitted):
    expected = {
        "sign": [0, 0, 0, 1, 0],
        "number": [-1, 2, 0, 0, 0],
        "kind a": [0, 0, -1, 0, 0],
        "kind c": [0, 0, 1, 0, 0],
    }
    for name, axis in expected.items():
        cosine = fitted[name].direction_d @ np.array(axis) / np.linalg.norm(axis)
        assert cosine > 0.98 and np.linalg.norm(fitted[name].direction_d) == pytest.approx(
            1, abs=1e-6
        ), name
    assert fitted["number"].measure == "R2" and fitted["number"].score > 0.99
    assert fitted["sign"].measure == "balanced accuracy" and fitted["sign"].score > 0.95


def test_chance_is_left_out(fitted):
    assert "rare" not in fitted, "five cases are too few to fit and to check"
    kept = {name for name, found in fitted.items() if found.is_kept}
    assert {"sign", "number", "kind a", "kind c"} <= kept and "coin" not in kept


def test_style_of_digits_is_found_within_classes():
    """Two classes of bars, thin and thick: only what varies inside a class is the direction."""
    model = ModelConfig(image_size=(16, 16), num_channels=1, z_dim=4, base_width=1, num_classes=2)

    def read(pictures_u8):
        z_nd, labels_n = sample_latents(800, model, seeded(1)).numpy(), np.arange(800) % 2
        return stroke_style(bars(z_nd[:, 2], 1 + 3 * labels_n))

    found = {row.name: row for row in fit_directions(Generator(model).eval(), read, 800, 1)}
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
    assert set(back) == {name for name, found in fitted.items() if found.is_kept}
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


def test_too_few_pictures_and_colours_are_refused():
    with pytest.raises(UserError, match="at least 400"):
        fit_directions(load_generator("mnist"), stroke_style, 100)
    with pytest.raises(UserError, match="read off grey images"):
        stroke_style(np.zeros((2, 3, 8, 8), np.uint8))


@pytest.mark.drives("directions")
def test_command_fits_what_the_set_needs(tmp_path, monkeypatch, capsys):
    for name in ("mnist", "probe-mnist"):
        shutil.copytree(checkpoints_root() / name, tmp_path / name)
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    before = load_directions("mnist")
    assert cli.main(["directions", "mnist", "--n", "4000"]) == 0
    assert "mnist: slant" in capsys.readouterr().out
    for old, new in zip(before, load_directions("mnist"), strict=True):
        assert new.name == old.name and new.direction_d @ old.direction_d > 0.999
    for words in (["nothing"], ["mnist", "--probe", "probe-nothing"]):
        assert cli.main(["directions", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_directions_say_what_they_are_worth(name):
    about = json.loads((checkpoints_root() / name / "directions.json").read_text())
    found = load_directions(name)
    assert [row["attribute"] for row in about["directions"] if row["kept"]] == [
        direction.name for direction in found
    ]
    assert about["n"] >= 4_000 and about["held_out"] >= 1_000
    for direction in found:
        assert direction.score >= LEAST[direction.measure]
        assert np.linalg.norm(direction.direction_d) == pytest.approx(1, abs=1e-5)
