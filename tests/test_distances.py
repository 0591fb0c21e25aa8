"""KID and FID agree with closed forms, and do not depend on anything but the images."""

import warnings
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.distances import fid, kid
from dcgan_lib.evaluation.features import FeatureExtractor

quick_kid = partial(kid, subsets=20, subset_size=400)


def make_extractor(num_features=4):
    return FeatureExtractor(
        "pixels", num_features, torch.nn.Identity(), lambda x_u8: x_u8.flatten(1).float() / 16
    )


def gaussian_images(num, means, stds, seed):
    values = np.random.default_rng(seed).normal(means, stds, (num, 4))
    return values.round().clip(0, 255).astype(np.uint8).reshape(num, 1, 2, 2)


@pytest.fixture(scope="module")
def images():
    means, stds = np.array([100, 110, 120, 130]), np.array([10, 20, 15, 5])
    return {
        "a": gaussian_images(1500, means, stds, 0),
        "a_again": gaussian_images(1500, means, stds, 1),
        "shifted": gaussian_images(1500, means + 12, stds, 2),
        "wider": gaussian_images(1500, means, stds * 2, 3),
    }


def expected_fid(a, b):
    a, b = (x.reshape(len(x), -1) / 16 for x in (a, b))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)


def expected_kid(a, b):
    """The unbiased estimate on all pairs, written out."""
    a, b = (x.reshape(len(x), -1) / 16 for x in (a, b))
    kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3  # noqa: E731
    aa, bb, n = kernel(a, a), kernel(b, b), len(a)
    return (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (n * (n - 1)) - 2 * kernel(
        a, b
    ).mean()


@pytest.mark.parametrize("other", ["a_again", "shifted", "wider"])
def test_fid_is_the_closed_form(images, other):
    assert fid(images["a"], images[other], make_extractor()).value == pytest.approx(
        expected_fid(images["a"], images[other]), rel=1e-4, abs=1e-4
    )


def test_fid_of_two_known_gaussians():
    a = gaussian_images(40_000, [100] * 4, [10, 20, 15, 5], 0)
    b = gaussian_images(40_000, [116] * 4, [20, 10, 15, 10], 1)
    distance = fid(a, b, make_extractor())
    expected = 4 * 1.0 + ((np.array([10, 20, 15, 5]) - [20, 10, 15, 10]) ** 2).sum() / 16**2
    assert distance.value == pytest.approx(expected, rel=0.02)
    assert distance.low < expected < distance.high


def test_kid_over_many_subsets_is_the_written_out_estimate_on_all_pairs(images):
    a, b = images["a"][:300], images["shifted"][:300]
    found = kid(a, b, make_extractor(), subsets=1000)
    assert found.value == pytest.approx(expected_kid(a, b), rel=0.02)


@pytest.mark.parametrize("metric", [quick_kid, fid])
def test_same_source_is_near_zero_and_another_is_not(images, metric):
    same = metric(images["a"], images["a_again"], make_extractor())
    other = metric(images["a"], images["shifted"], make_extractor())
    assert same.low < 0.05 * other.value
    assert abs(same.value) < 0.05 * other.value
    assert other.low > same.high
    assert same.low <= same.value <= same.high


def test_identical_images_have_no_distance(images):
    assert abs(fid(images["a"], images["a"], make_extractor()).value) < 1e-6
    same = kid(images["a"], images["a"], make_extractor())
    assert same.low < 0 < same.high


@pytest.mark.parametrize("metric", [quick_kid, fid])
def test_symmetry_and_batch_size(images, metric, monkeypatch):
    extractor = make_extractor()
    there = metric(images["a"], images["wider"], extractor)
    back = metric(images["wider"], images["a"], extractor)
    assert back.value == pytest.approx(there.value, rel=0.2 if metric is quick_kid else 1e-6)
    extract = FeatureExtractor.extract
    monkeypatch.setattr(FeatureExtractor, "extract", lambda self, x: extract(self, x, batch_size=7))
    assert metric(images["a"], images["wider"], extractor).value == pytest.approx(
        there.value, rel=1e-9
    )


def test_kid_subsets_follow_the_seed_and_leave_the_global_one_alone(images):
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    runs = [
        quick_kid(images["a"], images["wider"], make_extractor(), subset_size=200, seed=seed).value
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert torch.rand(1) == first


def test_record_names_its_protocol(images):
    distance = kid(
        images["a"], images["shifted"][:700], make_extractor(), subsets=20, subset_size=300
    )
    assert (distance.features, distance.n_real, distance.n_fake) == ("pixels", 1500, 700)
    assert distance.metric == "KID (20 subsets of 300)"
    assert distance.estimate == (distance.value, distance.low, distance.high)


@pytest.mark.parametrize("subset_size", [60, 150, 300])
def test_kid_interval_is_as_wide_as_repeats_scatter(subset_size):
    """However large the share of the images that each subset takes."""
    means, stds = np.array([100, 110, 120, 130]), np.array([10, 20, 15, 5])
    pairs = [
        (gaussian_images(600, means, stds, k), gaussian_images(600, means + 12, stds, 50 + k))
        for k in range(40)
    ]
    scatter = 1.96 * np.std([expected_kid(*pair) for pair in pairs], ddof=1)
    found = [
        quick_kid(*pair, make_extractor(), subset_size=subset_size, subsets=50)
        for pair in pairs[:12]
    ]
    half = np.mean([(each.high - each.low) / 2 for each in found])
    assert 0.75 * scatter < half < 1.4 * scatter


def test_fid_interval_does_not_depend_on_classes_that_stand_in_turn():
    rng = np.random.default_rng(0)
    classes = rng.uniform(40, 200, (10, 4))  # a tenth of the images each, far apart
    sides = []
    for seed in (1, 2):
        means = classes[np.arange(2_000) % 10]
        sides.append(gaussian_images(2_000, means, np.full(4, 5.0), seed))
    in_turn = fid(*sides, make_extractor())
    shuffled = fid(*(rng.permutation(side) for side in sides), make_extractor())
    assert in_turn.value == pytest.approx(shuffled.value)
    assert in_turn.high - in_turn.value < 3 * (shuffled.high - shuffled.value)


def test_fid_cannot_be_negative_and_kid_can(images):
    """At 60 images a side the jackknife alone would reach below 0."""
    a, b = images["a"][:60], images["a_again"][:60]
    distance = fid(a, b, make_extractor())
    assert 0 == distance.low < distance.value < distance.high
    assert kid(a, b, make_extractor(), subset_size=30).low < 0


def test_too_few_images_are_refused(images):
    with pytest.raises(UserError, match=r"twice as many images .* got 1500 real and 499 fake"):
        kid(images["a"], images["wider"][:499], make_extractor(), subset_size=250)
    with pytest.raises(UserError, match="at least 6 images on either side"):
        fid(images["a"][:5], images["wider"], make_extractor())


def test_nothing_is_said_on_stderr(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kid(images["a"], images["wider"], make_extractor(), subsets=2)
        fid(images["a"], images["wider"], make_extractor())
