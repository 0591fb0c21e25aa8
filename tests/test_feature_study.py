"""Features under one change at a time: cuts that equal a reading, results that are kept, curves that end somewhere."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import ledger as details
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    LayerTable,
    Source,
    average,
    batch_statistics,
    join,
    open_source,
    pixel_features,
    snapshot_folders,
    with_statistics,
)
from dcgan_lib.evaluation.protocols import LabelledSplits
from dcgan_lib.evaluation.statistics import outlook, predict
from dcgan_lib.experiments import cifar10_features as feature_study
from dcgan_lib.experiments.cifar10_features import (
    Measurement,
    Setting,
    along_labels,
    arrange,
    judge_features,
    keep,
    latest,
    load_study,
    main,
    measure,
    neighbour_agreement,
    points,
    scaled,
)
from dcgan_lib.training.checkpoints import save_config, save_weights, untrained_discriminator

MODEL = ModelConfig(image_size=(16, 16), base_width=4, num_stages=2)


def striped(num: int, seed: int) -> ImageSet:
    """Noise with a bright bar whose place tells one of four classes."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 150, (num, 3, 16, 16), dtype=np.uint8), np.arange(num) % 4
    for at, label in enumerate(labels):
        images[at, :, 4 * label : 4 * label + 4] += 12
    return ImageSet(name="striped", images_u8=images, labels=labels, class_names=tuple("abcd"))


@pytest.fixture(scope="module")
def splits():
    return LabelledSplits(train=striped(400, 0), validation=striped(200, 1))


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """Return a run with three snapshots, whose results are kept in the same place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(details, "results_root", lambda: tmp_path)
    monkeypatch.setattr(
        feature_study,
        "load_splits",
        lambda name, **like: LabelledSplits(train=striped(400, 0), validation=striped(200, 1)),
    )
    for step in (0, 10, 20):
        folder = tmp_path / "mine" / "snapshots" / f"step-{step:07d}"
        save_weights(folder / "discriminator.safetensors", untrained_discriminator(MODEL, step))
        save_config(folder, TrainConfig(model=MODEL), {"step": step})
    return tmp_path / "mine"


def measurement(**changes) -> Measurement:
    values = {
        "source": "mine",
        "step": 10,
        "seed": 0,
        "num_labels": 40,
        "num_features": 8,
        "n": 100,
        "c": 1e-3,
    }
    values |= {
        "accuracies": (50.0, 52.0),
        "accuracy": 51.0,
        "low": 49.0,
        "high": 53.0,
        "seconds": 1.0,
    }
    return Measurement(**values | {"command": "c"} | changes)


# ---- tables ----
@pytest.mark.parametrize("layers", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_what_is_cut_equals_what_is_read(splits, layers, grid):
    network, images = untrained_discriminator(MODEL), splits.validation.images_u8[:9]
    table = LayerTable(network, images, 8)
    read = ConvFeatures(network, layers=layers or None, grid=grid)(images)
    np.testing.assert_allclose(table.cut(layers, grid), read, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "grid"), [((3,), 4), ((0,), 4), ((), 3), ((1, 1), 8), ((), 0), ((), -2)]
)
def test_what_cannot_be_cut_is_refused(splits, layers, grid):
    table = LayerTable(untrained_discriminator(MODEL), splits.validation.images_u8[:2], 8)
    with pytest.raises(UserError, match="but got layers"):
        table.cut(layers, grid)
    for grid in (3, 0):
        with pytest.raises(UserError, match=f"grid of {grid} x {grid}"):
            LayerTable(untrained_discriminator(MODEL), splits.validation.images_u8[:2], grid)
    reversed_nf = LayerTable(
        untrained_discriminator(MODEL), splits.validation.images_u8[:2], 8
    ).cut((2, 1))
    np.testing.assert_array_equal(
        reversed_nf, np.concatenate([table.cut((2,)), table.cut((1,))], 1)
    )


def test_snapshots_are_named_joined_and_averaged(run_dir):
    sources = [open_source(str(folder)) for folder in snapshot_folders(run_dir)]
    assert [(source.name, source.step) for source in sources] == [
        ("mine", 0),
        ("mine", 10),
        ("mine", 20),
    ]
    both = join(sources[1:])
    assert (
        both.name == "mine at 10 + mine at 20"
        and both.networks == sources[1].networks + sources[2].networks
    )
    mean = average(sources)
    weights = [source.networks[0].convs[1].weight for source in sources]
    torch.testing.assert_close(mean.networks[0].convs[1].weight, torch.stack(weights).mean(0))
    torch.testing.assert_close(weights[0], untrained_discriminator(MODEL, 0).convs[1].weight)
    assert [open_source("random", recipe=name).name for name in ("paper-svhn", "mnist")] == [
        "random",
        "random mnist",
    ]
    with pytest.raises(UserError, match="of networks, not of pixels"):
        join([sources[0], open_source("pixels")])
    with pytest.raises(UserError, match="of one configuration"):
        average([sources[0], open_source("random", recipe="mnist")])
    with pytest.raises(UserError, match="--snapshot-every"):
        snapshot_folders(run_dir / "nowhere")


# ---- measurements ----
def test_every_setting_is_judged_and_more_labels_help(splits):
    source = Source("random", None, (untrained_discriminator(MODEL),))
    settings = [Setting(per_class=number) for number in (2, 50, None)] + [
        Setting(layers=(1,), grid=1)
    ]
    few, many, every, blind = measure(source, splits, settings, draws=4)
    assert [row.num_labels for row in (few, many, every, blind)] == [8, 200, 400, 400]
    assert len(few.accuracies) == len(many.accuracies) == 4 and len(every.accuracies) == 1
    assert few.low <= few.accuracy <= few.high and few.accuracy + 5 < many.accuracy
    assert blind.num_features == 4 and blind.accuracy < every.accuracy
    (pixels,) = measure(
        open_source("pixels"),
        splits,
        [Setting(per_class=50), Setting(per_class=50, grid=1)],
        draws=2,
    )
    assert (pixels.grid, pixels.batch_norm, pixels.num_features) == (
        0,
        "",
        768,
    ) and pixels.accuracy > 60


def test_batch_norm_has_statistics_of_the_first_training_images_or_those_that_are_stored(
    splits, monkeypatch
):
    network, read = untrained_discriminator(MODEL), []
    monkeypatch.setattr(feature_study, "MOST_AVERAGED", 128)
    monkeypatch.setattr(
        feature_study,
        "LayerTable",
        lambda which, *a, **k: read.append(which) or LayerTable(which, *a, **k),
    )
    settings = [Setting(per_class=2, batch_norm=kind) for kind in ("stored", "batches")]
    stored, batches = measure(Source("random", None, (network,)), splits, settings, draws=1)
    averaged = with_statistics(network, batch_statistics(network, splits.train.images_u8[:128]))
    for found, expected in zip(read, (network, averaged), strict=True):
        torch.testing.assert_close(found.state_dict(), expected.state_dict())
    assert (stored.batch_norm, batches.batch_norm) == ("stored", "batches")


def test_the_command_keeps_each_snapshot_and_replaces_what_is_measured_again(
    run_dir, tmp_path, capsys
):
    assert main(["mine", "--snapshots", "--set", "striped", "--labels", "5", "--draws", "2"]) == 0
    assert (
        main(
            [
                "mine/snapshots/step-0000010",
                "--set",
                "striped",
                "--labels",
                "5",
                "20",
                "--draws",
                "3",
            ]
        )
        == 0
    )
    rows = load_study("striped")
    assert [(row.step, row.per_class, len(row.accuracies)) for row in rows] == [
        (0, 5, 2),
        (10, 5, 3),
        (20, 5, 2),
        (10, 20, 3),
    ]
    assert rows[1].command.endswith(
        "mine/snapshots/step-0000010 --set striped --labels 5 20 --draws 3"
    )
    assert load_study("striped", step=10, per_class=20) == [rows[3]]
    assert (
        "mine at step 10, layers all, grid 4, batches, 5 labels a class" in capsys.readouterr().out
    )
    assert points(rows, "step")[0] == [10, 10, 20] and len(points(rows, "num_labels")[1]) == 4
    assert (
        main([str(run_dir), "--set", "striped"]) == 2 and "absolute path" in capsys.readouterr().err
    )


def test_scaling_makes_the_units_of_features_count_for_nothing(splits):
    rng = np.random.default_rng(0)
    x_nf = rng.normal(3, [1, 0, 50], (200, 3)).astype(np.float32)
    found = scaled(x_nf, np.arange(150))
    np.testing.assert_allclose(found[:150, [0, 2]].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found[:150, [0, 2]].std(0), 1, rtol=1e-4)
    assert found.dtype == np.float32 and not found[:, 1].any(), "what never moves stays finite"
    np.testing.assert_allclose(scaled(x_nf * 7 + 1, np.arange(150)), found, atol=1e-4)
    source = Source("random", None, (untrained_discriminator(MODEL),))
    plain, even = measure(
        source, splits, [Setting(per_class=50, scaled=flag) for flag in (False, True)], draws=2
    )
    (pixels,) = measure(
        open_source("pixels"), splits, [Setting(per_class=50, scaled=True)], draws=2
    )
    assert (plain.scaled, even.scaled, pixels.scaled) == (
        False,
        True,
        True,
    ) and even.accuracies != plain.accuracies
    assert plain.key != even.key


def test_what_is_kept_is_only_added_to(tmp_path):
    first, again, other = measurement(), measurement(accuracy=51.5), measurement(grid=2)
    keep("set", [first], tmp_path)
    keep("set", [other], tmp_path)
    keep("set", [again], tmp_path)
    assert load_study("set", tmp_path) == [again, other]
    (tmp_path / "features" / "set.json").write_text("[")
    with pytest.raises(UserError, match="damaged"):
        keep("set", [first], tmp_path)
    (tmp_path / "features" / "set.json").write_text(json.dumps([asdict(first) | {"more": 1}]))
    with pytest.raises(UserError, match="fields"):
        load_study("set", tmp_path)
    with pytest.raises(UserError, match="not measured yet"):
        load_study("another", tmp_path)


def test_a_finished_network_comes_after_its_snapshots():
    early, late, done = measurement(step=10), measurement(step=20), measurement(step=None)
    assert (
        latest([late, early]) == [late]
        and latest([early, done, late]) == [done]
        and latest([]) == []
    )


def test_a_curve_along_labels_is_of_one_network(tmp_path):
    many = [
        measurement(step=20, per_class=number, num_labels=10 * number) for number in (300, 10, 100)
    ]
    keep(
        "set",
        [
            *many,
            measurement(step=10, num_labels=1_000),
            measurement(step=30),
            measurement(step=20, grid=2),
        ],
        tmp_path,
    )
    assert [row.per_class for row in along_labels("set", "mine", tmp_path)] == [10, 100, 300]
    assert along_labels("set", "another", tmp_path) == []
    fresh = [
        measurement(source="random", step=None, per_class=number, batch_norm="stored")
        for number in (10, 30)
    ]
    keep("set", [*fresh, measurement(source="random", step=None, per_class=300)], tmp_path)
    assert [row.per_class for row in along_labels("set", "random", tmp_path)] == [10, 30]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid 0 4", "must be at least 1"),
        ("--layers 1+1", "different numbers"),
        ("--layers 9", "from 1 to 2"),
        ("--seed -1", "--seed is at least 0"),
        ("--draws 0", "--draws at least 1"),
    ],
)
def test_a_study_of_nothing_is_refused_before_images_are_read(
    words, message, run_dir, monkeypatch, capsys
):
    monkeypatch.setattr(feature_study, "load_splits", None)
    assert main(["mine/snapshots/step-0000010", "--set", "striped", *words.split()]) == 2
    assert message in capsys.readouterr().err and not (run_dir.parent / "features").exists()


def test_scaling_does_not_depend_on_what_else_is_asked(splits):
    source = Source("random", None, (untrained_discriminator(MODEL),))
    alone, beside = (
        next(
            measure(
                source, splits, [Setting(per_class=each, scaled=True) for each in labels], draws=2
            )
        )
        for labels in ([5], [5, None])
    )
    assert alone.accuracies == beside.accuracies


def test_live_features_are_judged_on_what_is_left(splits):
    both = [splits.train, splits.validation]
    pixels = pixel_features(np.concatenate([part.images_u8 for part in both]))
    labels = np.concatenate([part.labels for part in both])
    (value, low, high), curve = judge_features(pixels, labels, 200, 200)
    blind = judge_features(pixels, np.random.default_rng(0).permutation(labels), 200, 200)[0]
    assert low < value < high and value > 40 > blind.value and len(curve) >= 6
    unknown = np.where(np.arange(600) < 400, labels, 9)
    (none, *_), same = judge_features(pixels, unknown, 200, 200)
    assert none == 0 and same == curve, "C is chosen without what it is judged on"
    with pytest.raises(UserError, match="none is left"):
        judge_features(pixels, labels, 400, 200)


# ---- maps ----
def test_a_map_puts_alike_features_side_by_side():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), 16))
    features = np.eye(4)[labels] * 10 + rng.normal(0, 0.5, (64, 4))
    order = arrange(features, 8)
    assert sorted(order) == list(range(64)) and neighbour_agreement(features, labels).low > 90
    assert neighbour_agreement(features, rng.permutation(labels)).high < 60

    def alike(places: np.ndarray) -> float:
        grid = labels[places].reshape(8, 8)
        return float(
            np.mean([(grid[1:] == grid[:-1]).mean(), (grid[:, 1:] == grid[:, :-1]).mean()])
        )

    assert alike(order) > 0.65 > 0.45 > alike(np.arange(64)), (
        "as many as can be, against one in four by chance"
    )
    np.testing.assert_array_equal(arrange(features, 8), order)
    with pytest.raises(UserError, match="whole rows"):
        arrange(features, 7)


# ---- predictions ----
STEPS = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000]


def noisy(a: float, b: float, c: float, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [100 - a - b * n**-c + rng.normal(0, 0.3, 10) for n in STEPS]


def test_a_curve_that_gets_there_says_when():
    truth = (200 / 17.2) ** (1 / 0.25)
    found = predict(STEPS, noisy(0, 200, 0.25), 82.8, num_resamples=60)
    assert found.needed.low < truth < found.needed.high and found.needed.value == pytest.approx(
        truth, rel=0.5
    )
    assert found.accuracy(truth) == pytest.approx(82.8, abs=1) and "after" in found.text("steps")


def test_a_curve_that_levels_off_says_never():
    found = predict(STEPS, noisy(30, 800, 0.6), 82.8, num_resamples=60)
    assert math.isinf(found.needed.value) and found.never > 0.9 and found.ceiling.high < 82.8
    assert 69 < found.ceiling.low < found.ceiling.value < 71.5
    assert found.text("steps").startswith(
        "82.8 %: never, by this curve"
    ) and "nan" not in found.text("steps")
    assert predict(STEPS, noisy(30, 800, 0.6), 60, num_resamples=20).never == 0, (
        "a lower target is met"
    )


def test_the_interval_of_six_points_holds_the_truth_though_the_points_err_together():
    held = 0
    for seed in range(10):
        off = np.random.default_rng([seed, 1]).normal(0, 0.5, len(STEPS))
        points = [draws + each for draws, each in zip(noisy(30, 800, 0.6, seed), off, strict=True)]
        found = predict(STEPS[1:], points[1:], 60, num_resamples=30).ceiling
        held += found.low <= 70 <= found.high
    assert held >= 7, "less often, and points hardly vary when they are resampled, as four do"


@pytest.mark.parametrize(
    ("n", "accuracies", "target"),
    [
        ([1, 2, 3, 4, 5], [[1]] * 5, 50),
        ([0, 1, 2, 3, 4, 5], [[1]] * 6, 50),
        ([1, 1, 2, 3, 4, 5], [[1]] * 6, 50),
        ([1, 2, 3, 4, 5, 6], [[1]] * 5 + [[101]], 50),
        ([1, 2, 3, 4, 5, 6], [[1]] * 6, 100),
    ],
)
def test_too_little_for_a_curve_is_refused(n, accuracies, target):
    with pytest.raises(UserError):
        predict(n, accuracies, target)


def test_an_outlook_needs_points():
    assert "fewer than 6" in outlook([1, 2, 2, 3, 4, 5], [[1]] * 6, 50, "steps")
    assert outlook(STEPS, noisy(0, 200, 0.25), 40, "steps").startswith("40 %: after")
