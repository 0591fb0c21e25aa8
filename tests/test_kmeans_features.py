"""K-means features: whitening that whitens, centroids that are found, an answer that a second way confirms."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import KMeansFeatures, normalise_contrast, zca_whitening

SMALL = {"num_centroids": 12, "patch_size": 3, "num_patches": 2_000}


@pytest.fixture(scope="module")
def digits():
    return load_image_set("digits"), load_image_set("digits", "validation")


@pytest.fixture(scope="module")
def fitted(digits):
    return KMeansFeatures(**SMALL).fit(digits[0].images_u8)


def test_contrast_is_normalised():
    patches = torch.tensor([[0, 200, 0, 200], [9, 9, 9, 9]], dtype=torch.uint8)
    expected = 100 / np.sqrt(100**2 + 10)
    torch.testing.assert_close(
        normalise_contrast(patches),
        torch.tensor([[-expected, expected] * 2, [0] * 4], dtype=torch.float32),
    )


def test_whitening_takes_correlations_away():
    rng = np.random.default_rng(0)
    mixed = torch.from_numpy(rng.normal(size=(5_000, 6)) @ rng.normal(size=(6, 6)) + 3).float()
    mean_d, whiten_dd = zca_whitening(mixed, eps=1e-6)
    white = (mixed - mean_d) @ whiten_dd
    torch.testing.assert_close(white.T.cov(), torch.eye(6), atol=0.01, rtol=0)
    torch.testing.assert_close(whiten_dd, whiten_dd.T)  # ZCA, not another rotation
    _, gentle_dd = zca_whitening(mixed, eps=0.1)
    assert ((mixed - mean_d) @ gentle_dd).var(0).max() < 1


def test_features_are_those_of_a_plain_loop(digits, fitted):
    """Compute two images' features before scaling patch by patch, with NumPy, and compare."""
    images = digits[0].images_u8[:2]
    raw = fitted.transform(images) * fitted._std_f + fitted._mean_f
    mean_d, whiten_dd, centroids_kd = (
        values.numpy().astype(float)
        for values in (fitted._mean_d, fitted._whiten_dd, fitted._centroids_dk.T)
    )
    for image, found in zip(images, raw, strict=True):
        near = np.zeros((6, 6, 12))
        for top in range(6):
            for left in range(6):
                patch = image[:, top : top + 3, left : left + 3].ravel().astype(float)
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
                distance = np.linalg.norm((patch - mean_d) @ whiten_dd - centroids_kd, axis=1)
                near[top, left] = np.maximum(0, distance.mean() - distance)
        quadrants = near.reshape(2, 3, 2, 3, 12).mean((1, 3))  # row of regions, column, centroid
        np.testing.assert_allclose(found, quadrants.transpose(2, 0, 1).ravel(), atol=1e-4)


def test_batches_and_seeds(digits, fitted):
    train, validation = digits
    features = fitted.transform(validation.images_u8)
    assert (
        features.shape == (180, fitted.num_features) == (180, 48) and features.dtype == np.float32
    )
    np.testing.assert_allclose(
        fitted.transform(validation.images_u8, batch_size=7), features, atol=1e-4
    )
    again = KMeansFeatures(**SMALL).fit(train.images_u8)
    np.testing.assert_array_equal(again.transform(validation.images_u8), features)
    other = KMeansFeatures(**SMALL, seed=1).fit(train.images_u8)
    assert not np.allclose(other.transform(validation.images_u8), features)
    assert KMeansFeatures().num_features == 4_800, "the paper's Table 1"


def test_features_are_standardised_on_the_training_images(digits, fitted):
    features = fitted.transform(digits[0].images_u8)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.median(features.std(0)), 1, atol=1e-3)


def test_a_linear_classifier_reads_more_from_them_than_from_pixels(digits):
    """One label in ten of the digits: features help, and features of shuffled labels say nothing."""
    train, validation = digits
    features = KMeansFeatures(64, patch_size=4, num_patches=5_000).fit(train.images_u8)
    few = train.subset(slice(0, 120))

    def accuracy(read, labels):
        svm = LinearSVC(C=0.01, max_iter=5_000, random_state=0).fit(read(few.images_u8), labels)
        return svm.score(read(validation.images_u8), validation.labels)

    ours = accuracy(features.transform, few.labels)
    assert ours > 0.9 and ours > accuracy(
        lambda images: images.reshape(len(images), -1) / 255, few.labels
    )
    assert accuracy(features.transform, np.random.default_rng(0).permutation(few.labels)) < 0.4


def test_what_cannot_be_read_is_refused(digits, fitted):
    images = digits[0].images_u8
    with pytest.raises(UserError, match="no centroids yet"):
        KMeansFeatures(**SMALL).transform(images)
    with pytest.raises(UserError, match="larger than a patch"):
        KMeansFeatures(**SMALL | {"patch_size": 9}).fit(images)
    with pytest.raises(UserError, match="uint8"):
        KMeansFeatures(**SMALL).fit(images / 255)
    for wrong in (images.repeat(3, 1), images[..., :7], images.astype(np.float32)):
        with pytest.raises(UserError, match="read uint8 images"):
            fitted.transform(wrong)


@pytest.mark.parametrize(
    "change", [{"num_centroids": 1}, {"patch_size": 1}, {"grid": 0}, {"num_patches": 3}]
)
def test_impossible_numbers_are_refused(change):
    with pytest.raises(UserError, match="at least 2 centroids"):
        KMeansFeatures(**SMALL | change)
