"""Extractors are named, fixed, and say how to get what is missing."""

import numpy as np
import pytest
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import features as module
from dcgan_lib.evaluation.features import (
    INCEPTION_FILE,
    PROBE_EXTRACTORS,
    get_features,
    probe_features,
)
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig, save_probe


def make_probe(size=32, channels=1):
    torch.manual_seed(0)
    heads = (Head(name="label", kind="class", class_names=("a", "b")),)
    return Probe(
        ProbeConfig(image_size=(size, size), num_channels=channels, heads=heads, widths=(8, 8, 8))
    )


def images(num=20, size=32, channels=1):
    return np.random.default_rng(0).integers(0, 256, (num, channels, size, size), dtype=np.uint8)


@pytest.mark.parametrize("name", PROBE_EXTRACTORS)
def test_features_come_from_the_named_probe(tmp_path, name):
    probe = make_probe()
    save_probe(probe, PROBE_EXTRACTORS[name], report={}, command="train", root=tmp_path)
    extractor = get_features(name, root=tmp_path)
    assert (extractor.name, extractor.num_features) == (name, 128)
    found = extractor.extract(images())
    assert found.dtype == np.float32 and found.shape == (20, 128)
    with torch.no_grad():
        expected = probe.eval().features(probe.scale(torch.from_numpy(images())))
    np.testing.assert_allclose(found, expected.numpy(), atol=0.02)  # the stored weights are float16
    np.testing.assert_allclose(extractor.extract(images(), batch_size=3), found, atol=1e-4)


def test_extractor_never_leaves_evaluation_mode_and_never_learns():
    extractor = probe_features(make_probe(), "mine")
    before = extractor.extract(images())
    extractor.train()
    np.testing.assert_array_equal(extractor.extract(images()), before)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(2, 1, 32, 32),
        torch.zeros(2, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(x):
    with pytest.raises(UserError, match="but got"):
        probe_features(make_probe(), "mine")(x)


def test_small_digits_are_framed_in_black(tmp_path):
    save_probe(make_probe(), "probe-mnist", report={}, command="train", root=tmp_path)
    small = images(size=28)
    padded = np.pad(small, ((0, 0), (0, 0), (2, 2), (2, 2)))
    extractor = get_features("mnist-classifier", root=tmp_path)
    np.testing.assert_array_equal(extractor.extract(small), extractor.extract(padded))
    with pytest.raises(UserError, match="up to 4 pixels"):
        extractor.extract(images(size=24))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"mnist-classifier.*inception"):
        get_features("vgg")


def test_missing_probe_is_explained(tmp_path):
    with pytest.raises(UserError, match="there is no probe 'probe-rooms'"):
        get_features("rooms-probe", root=tmp_path)


def test_missing_inception_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "data_root", lambda: tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match=rf"download https://.*{INCEPTION_FILE} into"):
        get_features("inception")
    (tmp_path / INCEPTION_FILE).write_bytes(b"another network")
    with pytest.raises(UserError, match="not the published Inception network"):
        get_features("inception")
