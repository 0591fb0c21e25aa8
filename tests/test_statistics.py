"""Intervals agree with scipy where it has them, and cover what they promise; curves end
somewhere."""

import math

import numpy as np
import pytest
from scipy import stats

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import (
    Estimate,
    auc_of_one,
    bootstrap_interval,
    mean_interval,
    presence_auc,
    wilson_interval,
)
from dcgan_lib.experiments.cifar10_features import outlook, predict


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 10), (10, 10), (1, 1), (37, 100), (9_950, 10_000)]
)
def test_wilson_is_scipys(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    share, low, high = wilson_interval(successes, n)
    assert share == successes / n
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert low <= share <= high


def test_mean_interval_is_scipys():
    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx((values.mean(), *expected))


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    values = np.random.default_rng(1).normal(0, 1, 2000)
    value, low, high = bootstrap_interval(np.mean, values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert value == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert bootstrap_interval(np.mean, values) == (value, low, high)
    assert bootstrap_interval(np.mean, values, seed=1) != (value, low, high)


def test_bootstrap_keeps_pairs_together():
    left = np.random.default_rng(2).normal(size=200)
    paired = bootstrap_interval(lambda a, b: float(np.corrcoef(a, b)[0, 1]), left, 3 * left)
    assert paired.low == pytest.approx(1.0)


def test_scaling_keeps_the_order():
    assert Estimate(0.5, 0.25, 0.75).scaled(100) == (50, 25, 75)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(3, 2),
        lambda: wilson_interval(-1, 2),
        lambda: wilson_interval(0, 0),
        lambda: mean_interval(np.array([1.0])),
        lambda: mean_interval(np.array([1.0, np.nan])),
        lambda: bootstrap_interval(np.mean, np.arange(1)),
        lambda: bootstrap_interval(np.dot, np.arange(3), np.arange(4)),
    ],
)
def test_what_is_no_sample_is_refused(call):
    with pytest.raises(UserError):
        call()


# ---- extrapolation ----
STEPS = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000]


def noisy(a: float, b: float, c: float, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [100 - a - b * n**-c + rng.normal(0, 0.3, 10) for n in STEPS]


def test_a_curve_that_gets_there_says_when():
    truth = (200 / 17.2) ** (1 / 0.25)
    found = predict(STEPS, noisy(0, 200, 0.25), 82.8, num_resamples=60)
    assert found.needed.low < truth < found.needed.high and "after" in found.text("steps")
    assert found.needed.value == pytest.approx(truth, rel=0.5)
    a, b, c = found.curve
    assert 100 - a - b * truth**-c == pytest.approx(82.8, abs=1)


def test_a_curve_that_levels_off_says_never():
    found = predict(STEPS, noisy(30, 800, 0.6), 82.8, num_resamples=60)
    assert math.isinf(found.needed.low) and found.ceiling.high < 82.8
    assert 69 < found.ceiling.low < found.ceiling.value < 71.5
    told = found.text("steps")
    assert told.startswith("82.8 %: never, by this curve") and "nan" not in told
    lower = predict(STEPS, noisy(30, 800, 0.6), 60, num_resamples=20)
    assert math.isfinite(lower.needed.high), "a lower target is met"


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
        ([0, 1, 2, 3, 4, 5], [[1]] * 6, 50),
        ([1, 1, 2, 3, 4, 5], [[1]] * 6, 50),
        ([1, 2, 3, 4, 5, 6], [[1]] * 5 + [[101]], 50),
        ([1, 2, 3, 4, 5, 6], [[1]] * 5 + [[]], 50),
        ([1, 2, 3, 4, 5, 6], [[1]] * 6, 100),
    ],
)
def test_too_little_for_a_curve_is_refused(n, accuracies, target):
    with pytest.raises(UserError):
        predict(n, accuracies, target)


def test_an_outlook_needs_points():
    assert "fewer than 6" in outlook([1, 2, 2, 3, 4, 5], [[1]] * 6, 50, "steps")
    assert outlook(STEPS, noisy(0, 200, 0.25), 40, "steps").startswith("40 %: after")


def test_presence_is_told_by_ranks():
    answers = np.array([[1.0, 4, 0], [2, 3, 0], [3, 2, 0], [4, 1, 0]])
    there = np.array([False, False, True, True])
    assert presence_auc(answers, there).tolist() == [1, 0, 0.5]
    assert auc_of_one(answers[:, 0], np.ones(4, bool)) == 0.5
    with pytest.raises(UserError, match="some have not"):
        presence_auc(answers, np.ones(4, bool))


