"""Samples after one pass and after five: what is trained, what is kept, and how rows are judged."""

import copy

import numpy as np
import pytest
from PIL import Image
from torch import nn

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.drawn.rooms import draw_rooms
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.ledger import load_row
from dcgan_lib.experiments.bedrooms import (
    grid_path,
    keep_grid,
    load_epochs,
    measure,
    paper_updates,
    passes_of,
    record_claims,
    table,
    train_passes,
    updates_of,
)
from dcgan_lib.training.checkpoints import load_generator

TINY = ModelConfig(image_size=(16, 16), base_width=4)
BATCH, PASS = 8, 5  # 44 images: five whole batches, and four images that no pass sees


def small(images_u8):
    return ImageSet(name="small", images_u8=np.ascontiguousarray(images_u8[:, :, ::4, ::4]))


@pytest.fixture(scope="module")
def train():
    return small(draw_rooms(44, seed=5).images_u8)


@pytest.fixture(scope="module")
def run_dir(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(model=TINY, batch_size=BATCH, decay_fraction=0.5, num_samples=60)
    train_passes(config, train, folder, threads=1, about={"source": "small"})
    return folder


@pytest.fixture(scope="module")
def pixels():
    scaled = lambda x_u8: x_u8.flatten(1) / 255  # noqa: E731
    return FeatureExtractor("pixels", 3 * 16 * 16, nn.Identity(), scaled)


def test_one_training_passes_through_both_points_at_a_constant_rate(run_dir):
    places = passes_of(run_dir)
    assert {name: updates_of(place) for name, place in places.items()} == {
        "untrained": (0, BATCH),
        "one pass": (PASS, BATCH),
        "five passes": (5 * PASS, BATCH),
    }
    weights = [load_generator(place).state_dict() for place in places.values()]
    first = next(iter(weights[0]))
    assert not (weights[0][first] == weights[1][first]).all()
    assert not (weights[1][first] == weights[2][first]).all()
    assert updates_of(run_dir) == (5 * PASS, BATCH)


def test_the_rate_is_not_lowered(run_dir):
    from dcgan_lib.training.checkpoints import load_config
    from dcgan_lib.training.step import scheduled_learning_rate

    config, _ = load_config(run_dir)
    assert scheduled_learning_rate(config, 5 * PASS - 1) == config.learning_rate
    assert config.precision == "float32"


def test_distances_stand_beside_updates_and_images(run_dir, train, pixels):
    held_out = small(draw_rooms(30, seed=6).images_u8)
    found = measure(passes_of(run_dir), train, held_out, pixels, num_images=40)
    row = found["rows"]["five passes"]
    assert (row["updates"], row["images"]) == (25, 200)
    assert found["num_held_out"] == 30 and found["set"] == "small"
    for name in found["rows"]:
        value, low, high = found["rows"][name]["to_held_out"]
        assert low < value < high and value > found["real"][0], name
    said = table(found).splitlines()
    assert len(said) == 6 and said[3].split()[:4] == ["five", "passes", "25", "200"]


def test_a_set_smaller_than_a_batch_is_refused(train, tmp_path):
    from dcgan_lib.errors import UserError

    config = TrainConfig(model=TINY, batch_size=64)
    with pytest.raises(UserError, match="at least 64"):
        train_passes(config, train, tmp_path / "run", threads=1, about={})


# ---------------------------------------------------------------- the verdicts


def row(updates, to_held_out, to_train=None):
    interval = [to_held_out, to_held_out - 0.1, to_held_out + 0.1]
    train = interval if to_train is None else [to_train, to_train - 0.1, to_train + 0.1]
    about = {"updates": updates, "images": 64 * updates}
    return about | {"to_held_out": interval, "to_train": train}


def found_with(one_pass):
    """Return what the paper says: plausible at once, and more training still helps."""
    rows = {
        "untrained": row(0, 3.0),
        "one pass": row(one_pass, 1.0),
        "five passes": row(5 * one_pass, 0.9),
        "longer": row(20 * one_pass, 0.3),
    }
    about = {"set": "bedrooms64", "features": "pixels", "num_images": 40, "num_held_out": 30}
    return about | {"num_train": 3756, "real": [0.1, 0.0, 0.2], "rows": rows}


@pytest.fixture
def judged(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))

    def judge(found, set_name="bedrooms64"):
        record_claims(found, set_name, "dcgan epochs --record", 1.0, 42)
        claims = ("bedrooms.one-epoch", "bedrooms.five-epochs")
        return [load_row(f"{claim}:{set_name}") for claim in claims]

    return judge


def test_fewer_updates_than_the_papers_are_never_called_a_test(judged):
    assert paper_updates(1) == 23438 and paper_updates(5) == 5 * 23438
    for one_pass in (58, paper_updates(1) - 1):
        one, five = judged(found_with(one_pass))
        assert one.verdict == five.verdict == "not tested at scale"
        assert one.value == 1.0 and five.value == 0.9 and f"{one_pass:,} updates" in one.caveat.why
    one, five = judged(found_with(paper_updates(1)))
    assert one.caveat is None and (one.verdict, five.verdict) == ("partly", "reproduced")
    assert judged(found_with(paper_updates(1)), "rooms")[1].verdict == "transfers"


def test_each_check_can_fail(judged):
    sound = found_with(paper_updates(1))

    def checks(**changed):
        found = copy.deepcopy(sound)
        found["rows"] |= {name.replace("_", " "): each for name, each in changed.items()}
        one, five = judged(found)
        return [*one.checks.values(), *five.checks.values()]

    many = paper_updates(1)
    assert checks() == [True, False, True, True]
    assert checks(one_pass=row(many, 2.9)) == [False, False, True, True]
    assert checks(longer=row(20 * many, 0.95)) == [True, True, False, True]
    assert checks(five_passes=row(5 * many, 0.9, to_train=0.2)) == [True, False, True, False]
    # unseen images that lie farther from a network which saw none, too, say nothing
    nearer = {"untrained": row(0, 3.0, to_train=2.3)}
    nearer |= {"five_passes": row(5 * many, 0.9, to_train=0.2)}
    assert checks(**nearer) == [True, False, True, True]


def test_what_was_measured_is_kept_beside_the_rows(judged):
    found = found_with(58)
    judged(found)
    kept = load_epochs("bedrooms64")
    assert kept["rows"] == found["rows"] and kept["command"] == "dcgan epochs --record"


def test_the_first_pictures_of_a_grid_are_kept_small(run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    path = keep_grid(run_dir, PASS, "small", "bedrooms.one-epoch")
    assert path == grid_path("small", "bedrooms.one-epoch") and path.parent.parent == tmp_path
    with Image.open(path) as kept:
        assert kept.size == (8 * 18 + 2, 4 * 18 + 2)  # 32 of 60 pictures, in rows of eight


# ---------------------------------------------------------------- the command


def test_the_command_refuses_rows_that_nobody_could_compare(monkeypatch, capsys):
    monkeypatch.setenv("DCGAN_RESULTS", "nowhere")
    assert cli.main(["epochs", "rooms", "--record", "--beside"]) == 2
    assert "a longer training" in capsys.readouterr().err
    assert cli.main(["epochs", "some/folder", "--record"]) == 2
    assert "no path" in capsys.readouterr().err
