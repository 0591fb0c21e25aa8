"""The discriminator as a feature extractor: the paper's numbers of features, the authors' batch norm, any callable."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import features as module
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    batch_statistics,
    compute_features,
    pixel_features,
    with_statistics,
)
from dcgan_lib.models.baselines import new_discriminator
from dcgan_lib.models.dcgan import plan_convolutions
from dcgan_lib.models.sampling import from_u8


def make(size=(32, 32), channels=3, width=4, **more):
    torch.manual_seed(0)
    return new_discriminator(
        ModelConfig(image_size=size, num_channels=channels, base_width=width, **more)
    )


def noise(num, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


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
    np.testing.assert_allclose(
        ConvFeatures(network)(images), np.hstack(expected), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        ConvFeatures(network, layers=[3, 1])(images), np.hstack(expected[::-2]), atol=1e-5
    )
    assert ConvFeatures(network, layers=[1], grid=2)(images).shape == (5, 4 * 4)
    assert ConvFeatures(network, layers=[3], grid=8)(images).shape == (
        5,
        16 * 16,
    )  # a 4x4 map is kept as it is


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (20, 12), (64, 48)])
def test_every_image_size_is_read(size):
    network = make(size, channels=1)
    found = ConvFeatures(network)(noise(3, 1, *size))
    most = 16 * sum(layer.coarse_channels for layer in plan_convolutions(network.config))
    assert found.shape[0] == 3 and 0 < found.shape[1] <= most and np.isfinite(found).all()


def test_batch_size_and_portions_do_not_change_features(monkeypatch):
    network, images = make(), noise(70, 3, 32, 32)
    whole = compute_features(ConvFeatures(network), images)
    for size in (1, 33):
        np.testing.assert_allclose(
            ConvFeatures(network, batch_size=size)(images), whole, rtol=1e-4, atol=1e-5
        )
    monkeypatch.setattr(module, "PORTION", 32)
    np.testing.assert_allclose(
        compute_features(ConvFeatures(network), images), whole, rtol=1e-4, atol=1e-5
    )


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
    np.testing.assert_allclose(
        ConvFeatures(frozen, layers=[3])(images), last.flatten(1).numpy(), atol=2e-3
    )


def test_features_lie_in_a_file_when_asked(tmp_path):
    images, path = noise(20, 3, 8, 8), tmp_path / "deep" / "features.npy"
    found = compute_features(pixel_features, images, path=path)
    assert isinstance(found, np.memmap) and [item.name for item in path.parent.iterdir()] == [
        "features.npy"
    ]
    np.testing.assert_array_equal(found, np.load(path))
    np.testing.assert_allclose(found, images.reshape(20, -1) / 127.5 - 1, atol=1e-6)
    with pytest.raises(UserError, match="one row an image"):
        compute_features(lambda part: np.zeros((3, 2), np.float32), images, path=path)
    assert [item.name for item in path.parent.iterdir()] == ["features.npy"]


@pytest.mark.parametrize(
    "wrong", [np.zeros((5, 2)), np.zeros((4, 2), np.float32), np.zeros((5, 2, 2), np.float32)]
)
def test_callables_that_return_something_else_are_refused(wrong):
    with pytest.raises(UserError, match="features must be"):
        compute_features(lambda part: wrong, noise(5, 1, 8, 8))


def test_images_and_networks_that_do_not_fit_are_refused():
    reader = ConvFeatures(make())
    with pytest.raises(UserError, match="load the set with channels=3"):
        reader(noise(2, 1, 32, 32))
    with pytest.raises(UserError, match="load the set at that size"):
        reader(noise(2, 3, 28, 28))
    with pytest.raises(UserError, match="uint8"):
        reader(np.zeros((2, 3, 32, 32), np.float32))
    with pytest.raises(UserError, match="must not know the label"):
        ConvFeatures(make(num_classes=10))
    with pytest.raises(UserError, match="only fully connected"):
        ConvFeatures(make(architecture="dense", hidden_units=8, num_stages=1))
    for layers in ([], [0], [4], [1, 1]):
        with pytest.raises(UserError, match="numbers from 1 to 3"):
            ConvFeatures(make(), layers=layers)
    with pytest.raises(UserError, match="at least 1"):
        ConvFeatures(make(), grid=0)
