"""Tests of the drawn street digits: balanced, repeatable, and out of a linear method's reach."""

import numpy as np
import pytest

from dcgan_lib.data.drawn.street_digits import FONTS, digit_glyphs, draw_street_digits
from dcgan_lib.errors import UserError


@pytest.fixture(scope="module")
def many():
    return draw_street_digits(2400, seed=5)


def linear_accuracy(x_nd, y_n, num_train, ridge):
    """Return the held-out accuracy of ridge regression on one-hot labels."""
    x_nd = x_nd.reshape(len(x_nd), -1).astype(np.float64)
    x_nd = (x_nd - x_nd[:num_train].mean(0)) / (x_nd[:num_train].std() + 1e-9)
    train, held = x_nd[:num_train], x_nd[num_train:]
    weights = np.linalg.solve(
        train @ train.T + ridge * np.eye(num_train), np.eye(10)[y_n[:num_train]] - 0.1
    )
    return ((held @ train.T @ weights).argmax(1) == y_n[num_train:]).mean()


def test_schema(many):
    assert many.images_u8.shape == (2400, 3, 32, 32)
    assert many.class_names == tuple("0123456789")
    assert many.attributes["font"].dtype == np.int64
    assert many.attributes["contrast"].dtype == np.float32


def test_same_seed_same_pictures_other_seed_other_pictures():
    first, again, other = (draw_street_digits(6, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.images_u8, again.images_u8)
    assert np.array_equal(first.labels, again.labels)
    assert (first.images_u8 != other.images_u8).any(axis=(1, 2, 3)).all()


def test_shorter_set_is_a_prefix(many):
    shorter = draw_street_digits(40, seed=5)
    assert np.array_equal(shorter.images_u8, many.images_u8[:40])
    assert np.array_equal(shorter.labels, many.labels[:40])
    assert np.array_equal(shorter.attributes["contrast"], many.attributes["contrast"][:40])


def test_labels_and_fonts_are_balanced_and_independent(many):
    num = len(many)
    for values, kinds in ((many.labels, 10), (many.attributes["font"], len(FONTS))):
        counts, share = np.bincount(values, minlength=kinds), 1 / kinds
        assert len(counts) == kinds
        assert np.abs(counts - num * share).max() < 4.5 * np.sqrt(num * share * (1 - share))
    correlation = np.corrcoef(
        [many.labels, many.attributes["font"], many.attributes["contrast"]]
    ) - np.eye(3)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(num)


def test_every_digit_can_be_told_from_its_ground(many):
    assert many.attributes["contrast"].min() > 0.15
    assert many.attributes["contrast"].max() < 0.75
    spread = many.images_u8[:, :, 4:28, 6:26].std(axis=(2, 3)).mean(1)
    low, high = np.argsort(many.attributes["contrast"]).reshape(2, -1)
    assert spread[high].mean() > 1.3 * spread[low].mean()


def test_a_linear_method_fails_where_it_succeeds_on_bare_digits(many):
    assert linear_accuracy(many.images_u8, many.labels, 1800, 3e4) < 0.5
    # The labels are learnable: the same method on the bare shapes, 8 x 8 occupancy of each outline.
    bare, labels = [], []
    for font in digit_glyphs():
        for digit, glyph in enumerate(font):
            bare.append(np.histogram2d(*glyph.points_k2.T, bins=8, range=[[-0.6, 0.6]] * 2)[0] > 0)
            labels.append(digit)
    order = np.random.default_rng(0).permutation(len(bare))
    assert linear_accuracy(np.array(bare)[order], np.array(labels)[order], 210, 30.0) > 0.7


def test_glyphs_are_one_tall_and_all_different():
    fonts = digit_glyphs()
    assert len(fonts) == len(FONTS) == len(set(FONTS))
    for font in fonts:
        assert len({glyph.points_k2.tobytes() for glyph in font}) == 10
        for glyph in font:
            assert np.ptp(glyph.points_k2[:, 1]) == pytest.approx(1)
            assert 0.15 < glyph.width < 1.1
    holes = [np.median([len(font[digit].splits) for font in fonts]) for digit in range(10)]
    assert holes[8] == 2
    assert holes[1] == holes[2] == holes[3] == holes[5] == holes[7] == 0


def test_refuses_an_empty_set_and_a_negative_seed():
    with pytest.raises(UserError, match="num_images must be at least 1"):
        draw_street_digits(0)
    with pytest.raises(UserError, match="seed must be at least 0"):
        draw_street_digits(1, seed=-1)
