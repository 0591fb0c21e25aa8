"""Features: the paper's numbers of them, the authors' batch norm, centroids that a plain loop
confirms, named extractors."""

import errno
import os

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import features as module
from dcgan_lib.evaluation.features import (
    INCEPTION_FILE,
    PROBE_EXTRACTORS,
    ConvFeatures,
    KMeansFeatures,
    LayerTable,
    averaged_over_views,
    batch_statistics,
    compute_features,
    get_features,
    normalise_contrast,
    pixel_features,
    probe_features,
    with_statistics,
    zca_whitening,
)
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig, save_probe
from dcgan_lib.models.dcgan import plan_convolutions
from dcgan_lib.models.networks import new_discriminator, untrained_discriminator
from dcgan_lib.models.sampling import from_u8


def make(size=(32, 32), channels=3, width=4, **more):
    model = ModelConfig(image_size=size, num_channels=channels, base_width=width, **more)
    return untrained_discriminator(model)


def noise(num, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


# ---- a discriminator's layers ----
@pytest.mark.parametrize(
    ("name", "expected"), [("paper-imagenet32", 28_672), ("paper-svhn", 7_168)]
)
def test_paper_networks_give_the_paper_s_numbers_of_features(name, expected):
    model = recipe(name).config.model
    assert expected == 16 * sum(layer.coarse_channels for layer in plan_convolutions(model))
    found = ConvFeatures(new_discriminator(model))(noise(2, 3, 32, 32))
    assert found.shape == (2, expected) and found.dtype == np.float32


def test_features_are_pooled_activations_of_the_chosen_layers():
    network, images = make().eval(), noise(5, 3, 32, 32)
    with torch.no_grad():
        maps = network.features(from_u8(torch.from_numpy(images), network.config))
    expected = [F.max_pool2d(h, h.shape[2] // 4).flatten(1).numpy() for h in maps]
    found = ConvFeatures(network)(images)
    np.testing.assert_allclose(found, np.hstack(expected), rtol=1e-4, atol=1e-5)
    found = ConvFeatures(network, layers=[3, 1])(images)
    np.testing.assert_allclose(found, np.hstack(expected[::-2]), atol=1e-5)
    assert ConvFeatures(network, layers=[1], grid=2)(images).shape == (5, 4 * 4)
    small = ConvFeatures(network, layers=[3], grid=8)(images)
    assert small.shape == (5, 16 * 16)  # a 4x4 map is kept as it is


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (20, 12), (64, 48)])
def test_every_image_size_is_read(size):
    network = make(size, channels=1)
    found = ConvFeatures(network)(noise(3, 1, *size))
    most = 16 * sum(layer.coarse_channels for layer in plan_convolutions(network.config))
    assert found.shape[0] == 3 and 0 < found.shape[1] <= most and np.isfinite(found).all()


def test_portions_do_not_change_features(monkeypatch):
    network, images = make(), noise(150, 3, 32, 32)
    whole = compute_features(ConvFeatures(network), images)
    monkeypatch.setattr(module, "PORTION", 32)
    found = compute_features(ConvFeatures(network), images)
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)


def test_statistics_are_means_over_minibatches_each_normalised_by_itself():
    network, images = make(), noise(300, 3, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = batch_statistics(network, images)
    first, second = [], []
    with torch.no_grad():
        for start in (0, 128):  # the last 44 images are no whole minibatch
            x = from_u8(torch.from_numpy(images[start : start + 128]), network.config)
            h = network.convs[1](F.leaky_relu(network.convs[0](x), 0.2))
            first.append((h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)))
            norm = network.norms[1]
            h = F.batch_norm(h, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
            h = network.convs[2](F.leaky_relu(h, 0.2))
            second.append((h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)))
    for layer, expected in zip(found, (first, second), strict=True):
        for value, parts in zip(layer, zip(*expected, strict=True), strict=True):
            torch.testing.assert_close(value, torch.stack(parts).mean(0), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_frozen_statistics_replace_the_stored_ones_in_a_copy():
    network, images = make(), noise(128, 3, 32, 32)
    frozen = with_statistics(network, batch_statistics(network, images))
    stored, measured = ConvFeatures(network)(images), ConvFeatures(frozen)(images)
    assert np.abs(stored - measured).max() > 0.1
    # Over the very minibatch that they come from, frozen statistics are batch norm's own.
    with torch.no_grad():
        last = network.train().features(from_u8(torch.from_numpy(images), network.config))[-1]
    found = ConvFeatures(frozen, layers=[3])(images)
    np.testing.assert_allclose(found, last.flatten(1).numpy(), atol=2e-3)


def test_features_of_views_are_the_mean_over_shifts_and_mirror_images():
    image_u8 = np.zeros((1, 1, 4, 4), np.uint8)
    image_u8[0, 0, 1, 0] = 100  # at the left edge, which a shift to the right repeats
    seen = []

    def read(images_u8):
        seen.append(images_u8[0, 0].copy())
        return images_u8.reshape(1, -1).astype(np.float32)

    found_nf = averaged_over_views(read, 1, mirror=False)(image_u8)
    assert len(seen) == 5 and found_nf.dtype == np.float32
    plain, down, up, right, left = (np.argwhere(view).tolist() for view in seen)
    assert (plain, down, up) == ([[1, 0]], [[2, 0]], [[0, 0]])
    assert right == [[1, 0], [1, 1]] and left == []
    np.testing.assert_allclose(found_nf[0], np.mean(seen, 0).ravel(), rtol=1e-6)

    seen.clear()
    averaged_over_views(read, 1, mirror=True)(image_u8)
    assert len(seen) == 10
    for view, mirrored in zip(seen[:5], seen[5:], strict=True):
        np.testing.assert_array_equal(mirrored, view[:, ::-1])
    with pytest.raises(UserError, match="shift must be at least 1 pixel"):
        averaged_over_views(read, 0, mirror=False)


def test_features_of_views_do_not_depend_on_the_order_of_the_views():
    network = untrained_discriminator(ModelConfig(image_size=(8, 8), base_width=4))
    images_u8 = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    read = averaged_over_views(ConvFeatures(network), 2, mirror=True)
    mirrored_u8 = np.ascontiguousarray(images_u8[..., ::-1])
    np.testing.assert_allclose(read(images_u8), read(mirrored_u8), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layers", [(), (1,), (2,), (2, 1)])
@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_what_is_cut_from_a_table_equals_what_is_read(layers, grid):
    network, images = make((16, 16), num_stages=2), noise(9, 3, 16, 16)
    table = LayerTable(network, images, 8)
    read = ConvFeatures(network, layers=layers or None, grid=grid)(images)
    np.testing.assert_allclose(table.cut(layers, grid), read, rtol=0, atol=1e-6)


def test_what_cannot_be_cut_is_refused():
    network, images = make((16, 16), num_stages=2), noise(2, 3, 16, 16)
    table = LayerTable(network, images, 8)
    for layers, grid, message in (
        ((3,), 4, "from 1 to 2, but got"),
        ((1, 1), 8, "different numbers"),
        ((), 3, "must divide 8"),
        ((), 0, "must divide 8"),
    ):
        with pytest.raises(UserError, match=message):
            table.cut(layers, grid)
    for grid in (3, 0):
        with pytest.raises(UserError, match=f"grid of {grid} x {grid}"):
            LayerTable(network, images, grid)


def test_images_and_networks_that_do_not_fit_are_refused():
    reader = ConvFeatures(make())
    with pytest.raises(UserError, match="load the set with channels=3"):
        reader(noise(2, 1, 32, 32))
    with pytest.raises(UserError, match="load the set at that size"):
        reader(noise(2, 3, 28, 28))
    with pytest.raises(UserError, match="uint8"):
        reader(np.zeros((2, 3, 32, 32), np.float32))
    with pytest.raises(UserError, match="not told the label"):
        ConvFeatures(make(num_classes=10))
    with pytest.raises(UserError, match="only fully connected"):
        ConvFeatures(make(architecture="dense", hidden_units=8, num_stages=1))
    for layers in ([], [0], [4], [1, 1]):
        with pytest.raises(UserError, match="numbers from 1 to 3"):
            ConvFeatures(make(), layers=layers)
    with pytest.raises(UserError, match="at least 1"):
        ConvFeatures(make(), grid=0)


# ---- many images ----
def test_features_lie_in_a_file_when_asked(tmp_path):
    images, path = noise(20, 3, 8, 8), tmp_path / "deep" / "features.npy"
    found = compute_features(pixel_features, images, path=path)
    assert isinstance(found, np.memmap) and list(path.parent.iterdir()) == [path]
    np.testing.assert_array_equal(found, np.load(path))
    np.testing.assert_allclose(found, images.reshape(20, -1) / 127.5 - 1, atol=1e-6)
    with pytest.raises(UserError, match="one row an image"):
        compute_features(lambda part: np.zeros((3, 2), np.float32), images, path=path)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way to ask for room at once")
def test_a_disk_without_room_for_the_features_is_told_at_once(tmp_path, monkeypatch):
    """Where room came page by page, the first that found none would end the process by SIGBUS."""
    asked = []

    def full(file: int, start: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    images, path = noise(20, 3, 8, 8), tmp_path / "features.npy"
    with pytest.raises(UserError, match=r"cannot be kept in .*features\.npy: No space left"):
        compute_features(pixel_features, images, path=path)
    assert not list(tmp_path.iterdir()) and asked[0] > 20 * 3 * 8 * 8 * 4


@pytest.mark.parametrize(
    "wrong", [np.zeros((5, 2)), np.zeros((4, 2), np.float32), np.zeros((5, 2, 2), np.float32)]
)
def test_callables_that_return_something_else_are_refused(wrong):
    with pytest.raises(UserError, match="features must be"):
        compute_features(lambda part: wrong, noise(5, 1, 8, 8))


# ---- K-means ----
SMALL = {"num_centroids": 12, "patch_size": 3, "num_patches": 2_000}


@pytest.fixture(scope="module")
def digits():
    return load_image_set("digits"), load_image_set("digits", "validation")


@pytest.fixture(scope="module")
def fitted(digits):
    return KMeansFeatures(**SMALL).fit(digits[0].images_u8)


def test_contrast_is_normalised():
    patches = torch.tensor([[0, 200, 0, 200], [9, 9, 9, 9]], dtype=torch.uint8)
    bright = 100 / np.sqrt(100**2 + 10)
    expected = torch.tensor([[-bright, bright] * 2, [0] * 4], dtype=torch.float32)
    torch.testing.assert_close(normalise_contrast(patches), expected)


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
    raw = fitted.transform(images) * fitted.std_f + fitted.mean_f
    mean_d, whiten_dd, centroids_kd = (
        values.numpy().astype(float)
        for values in (fitted.mean_d, fitted.whiten_dd, fitted.centroids_dk.T)
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


def test_seeds_and_scale_of_k_means_features(digits, fitted):
    train, validation = digits
    features = fitted.transform(validation.images_u8)
    assert features.shape == (180, 48) and features.dtype == np.float32
    part = fitted.transform(validation.images_u8[:7])
    np.testing.assert_allclose(part, features[:7], atol=1e-4)
    again = KMeansFeatures(**SMALL).fit(train.images_u8)
    np.testing.assert_array_equal(again.transform(validation.images_u8), features)
    other = KMeansFeatures(**SMALL, seed=1).fit(train.images_u8)
    assert not np.allclose(other.transform(validation.images_u8), features)
    scaled = fitted.transform(train.images_u8)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.median(scaled.std(0)), 1, atol=1e-3)
    assert 4 * KMeansFeatures().num_centroids == 4_800, "the paper's Table 1"


def test_a_linear_classifier_reads_more_from_them_than_from_pixels(digits):
    """One label in ten of the digits: features help, and features of shuffled labels say
    nothing."""
    train, validation = digits
    features = KMeansFeatures(64, patch_size=4, num_patches=5_000).fit(train.images_u8)
    few = train.subset(slice(0, 120))

    def accuracy(read, labels):
        svm = LinearSVC(C=0.01, max_iter=5_000, random_state=0).fit(read(few.images_u8), labels)
        return svm.score(read(validation.images_u8), validation.labels)

    ours = accuracy(features.transform, few.labels)
    pixels = accuracy(lambda images: images.reshape(len(images), -1) / 255, few.labels)
    assert ours > 0.9 and ours > pixels
    assert accuracy(features.transform, np.random.default_rng(0).permutation(few.labels)) < 0.4


def test_what_k_means_cannot_read_is_refused(digits, fitted):
    images = digits[0].images_u8
    with pytest.raises(UserError, match="no centroids yet"):
        KMeansFeatures(**SMALL).transform(images)
    with pytest.raises(UserError, match="larger than a patch"):
        KMeansFeatures(**SMALL | {"patch_size": 9}).fit(images)
    with pytest.raises(UserError, match="uint8"):
        KMeansFeatures(**SMALL).fit(images / 255)
    for wrong in (images.repeat(3, 1), images.astype(np.float32)):
        with pytest.raises(UserError, match="read uint8 images"):
            fitted.transform(wrong)
    for change in ({"num_centroids": 1}, {"grid": 0}, {"num_patches": 3}):
        with pytest.raises(UserError, match="at least 2 centroids"):
            KMeansFeatures(**SMALL | change)


# ---- named extractors ----
@pytest.fixture
def probes(tmp_path, monkeypatch):
    """Keep a small probe under every name, in a folder of checkpoints of its own."""
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    return tmp_path


def make_probe(size=32, channels=1):
    torch.manual_seed(0)
    heads = (Head(name="label", kind="class", class_names=("a", "b")),)
    return Probe(
        ProbeConfig(image_size=(size, size), num_channels=channels, heads=heads, widths=(8, 8, 8))
    )


@pytest.mark.parametrize("name", PROBE_EXTRACTORS)
def test_features_come_from_the_named_probe(probes, name):
    probe, images = make_probe(), noise(20, 1, 32, 32)
    save_probe(probe, PROBE_EXTRACTORS[name], report={}, command="train")
    extractor = get_features(name)
    assert (extractor.name, extractor.num_features) == (name, 128)
    found = extractor.extract(images)
    assert found.dtype == np.float32 and found.shape == (20, 128)
    with torch.no_grad():
        expected = probe.eval().features(probe.scale(torch.from_numpy(images)))
    np.testing.assert_allclose(found, expected.numpy(), atol=0.02)  # the stored weights are float16
    np.testing.assert_allclose(extractor.extract(images, batch_size=3), found, atol=1e-4)


def test_extractor_never_leaves_evaluation_mode_and_never_learns():
    extractor, images = probe_features(make_probe(), "mine"), noise(20, 1, 32, 32)
    before = extractor.extract(images)
    extractor.train()
    np.testing.assert_array_equal(extractor.extract(images), before)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(2, 1, 32, 32),
        torch.zeros(2, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(x):
    with pytest.raises(UserError, match="but got"):
        probe_features(make_probe(), "mine")(x)


def test_small_digits_are_framed_in_black(probes):
    save_probe(make_probe(), "probe-mnist", report={}, command="train")
    small = noise(20, 1, 28, 28)
    padded = np.pad(small, ((0, 0), (0, 0), (2, 2), (2, 2)))
    extractor = get_features("mnist-classifier")
    np.testing.assert_array_equal(extractor.extract(small), extractor.extract(padded))
    with pytest.raises(UserError, match="up to 4 pixels"):
        extractor.extract(noise(2, 1, 24, 24))


def test_what_is_not_there_is_explained(probes):
    with pytest.raises(UserError, match=r"mnist-classifier.*inception"):
        get_features("vgg")
    with pytest.raises(UserError, match="there is no probe 'probe-rooms'"):
        get_features("rooms-probe")


def test_missing_inception_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match=rf"download https://.*{INCEPTION_FILE} into"):
        get_features("inception")
    (tmp_path / INCEPTION_FILE).write_bytes(b"another network")
    with pytest.raises(UserError, match="not the published Inception network"):
        get_features("inception")
