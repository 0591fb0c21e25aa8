"""Intervals agree with scipy where it has them, and cover what they promise."""

import numpy as np
import pytest
from scipy import stats

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import (
    Estimate,
    auc_of_one,
    bootstrap_interval,
    mean_interval,
    poisson_interval,
    presence_auc,
    ratio_interval,
    wilson_interval,
)


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


@pytest.mark.parametrize(("p", "q"), [(0.95, 0.97), (0.5, 0.9), (0.03, 0.9)])
def test_a_ratio_of_shares_is_covered_as_often_as_promised(p, q):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        share = wilson_interval(rng.binomial(500, p), 500)
        found = ratio_interval(share, wilson_interval(rng.binomial(500, q), 500))
        assert found.low <= found.value <= found.high
        covered += found.low <= p / q <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_a_ratio_of_no_successes_has_an_upper_limit():
    nothing, most = wilson_interval(0, 100), wilson_interval(90, 100)
    found = ratio_interval(nothing, most)
    assert found.value == found.low == 0 < found.high < 0.1
    with pytest.raises(UserError, match="above 0"):
        ratio_interval(most, nothing)


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


def test_presence_is_told_by_ranks():
    answers = np.array([[1.0, 4, 0], [2, 3, 0], [3, 2, 0], [4, 1, 0]])
    there = np.array([False, False, True, True])
    assert presence_auc(answers, there).tolist() == [1, 0, 0.5]
    assert auc_of_one(answers[:, 0], np.ones(4, bool)) == 0.5
    with pytest.raises(UserError, match="some have not"):
        presence_auc(answers, np.ones(4, bool))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_interval_of_a_count_leaves_out_what_makes_it_too_rare(count):
    value, low, high = poisson_interval(count)
    assert value == count and low <= value <= high
    assert stats.poisson.cdf(count, high) == pytest.approx(0.025)
    assert stats.poisson.sf(count - 1, low) == pytest.approx(0.025 if count else 1)


def test_an_estimate_is_written_with_its_interval():
    assert Estimate(0.5, 0.25, 0.75).text(".0%") == "50% [25%, 75%]"
