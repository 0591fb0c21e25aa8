"""Tests of the drawn portraits: the truth is true, independent, and moves only what it should."""

import numpy as np
import pytest

from dcgan_lib.data.drawn.portraits import (
    CHANCES,
    TRAITS,
    draw_portrait,
    draw_portraits,
    portrait_traits,
)
from dcgan_lib.errors import UserError

BOOLEANS = tuple(CHANCES)
# Bare faces that look ahead: what a trait adds is then seen whole.
BARE = {
    "smile": False,
    "glasses": False,
    "beard": False,
    "long_hair": False,
    "hat": False,
    "yaw": 0.0,
}


@pytest.fixture(scope="module")
def many():
    return draw_portraits(1500, seed=4)


def changed_rows_and_columns(index, before, after):
    """Return where two versions of a face differ by more than 8 grey levels in some channel."""
    first, second = (
        draw_portrait(index, **{**BARE, **traits}).astype(int) for traits in (before, after)
    )
    return np.nonzero((np.abs(first - second) > 8).any(0))


def test_schema(many):
    assert many.images_u8.shape == (1500, 3, 64, 64)
    assert many.labels is None
    assert tuple(many.attributes) == TRAITS
    kinds = {name: values.dtype.name for name, values in many.attributes.items()}
    assert kinds == dict.fromkeys(BOOLEANS, "bool") | {
        "yaw": "float32",
        "skin_tone": "float32",
        "hair_colour": "int64",
    }


def test_same_seed_same_pictures_other_seed_other_pictures():
    first, again, other = (draw_portraits(5, seed).images_u8 for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()


def test_shorter_set_is_a_prefix_and_one_portrait_is_a_row(many):
    shorter = draw_portraits(131, seed=4)  # not a multiple of any batch inside
    assert np.array_equal(shorter.images_u8, many.images_u8[:131])
    for index in (0, 127, 128, 130, 1499):
        assert np.array_equal(draw_portrait(index, seed=4), many.images_u8[index])
        assert portrait_traits(index, seed=4) == {
            name: many.attributes[name][index] for name in TRAITS
        }
    assert not np.array_equal(draw_portrait(129, seed=4), many.images_u8[128])


def test_marginals(many):
    num = len(many)
    for name, chance in CHANCES.items():
        assert abs(many.attributes[name].mean() - chance) < 4.5 * np.sqrt(
            chance * (1 - chance) / num
        )
    counts = np.bincount(many.attributes["hair_colour"], minlength=5)
    assert np.abs(counts - num / 5).max() < 4.5 * np.sqrt(num * 0.2 * 0.8)
    for name, low, high in (("yaw", -1, 1), ("skin_tone", 0, 1)):
        rank = np.sort((many.attributes[name] - low) / (high - low))
        assert rank[0] >= 0
        assert rank[-1] <= 1
        distance = np.abs(rank - (np.arange(num) + 0.5) / num).max()  # Kolmogorov and Smirnov's
        assert distance < 2.2 / np.sqrt(num)


def test_traits_are_independent(many):
    columns = np.stack([many.attributes[name].astype(float) for name in TRAITS])
    correlation = np.corrcoef(columns) - np.eye(len(TRAITS))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(many))
    # The same check must see a dependence where there is one.
    columns[0] = columns[0] * 0.8 + columns[1] * 0.2
    assert np.abs(np.corrcoef(columns) - np.eye(len(TRAITS))).max() > 4.5 / np.sqrt(len(many))


@pytest.mark.parametrize(
    ("trait", "top", "bottom", "fewest"),
    [("smile", 40, 56, 25), ("glasses", 26, 44, 60), ("beard", 30, 63, 150), ("hat", 0, 44, 250)],
)
def test_a_toggled_trait_changes_pixels_only_where_it_lies(trait, top, bottom, fewest):
    for index in range(12):
        rows, columns = changed_rows_and_columns(index, {trait: False}, {trait: True})
        assert len(rows) >= fewest
        assert top <= rows.min() <= rows.max() <= bottom, f"portrait {index}"
        if trait != "hat":  # some brims are as wide as the picture
            assert 4 <= columns.min() <= columns.max() <= 59


def test_long_hair_leaves_the_middle_of_the_face_alone():
    for index in range(12):
        rows, columns = changed_rows_and_columns(index, {"long_hair": False}, {"long_hair": True})
        assert len(rows) >= 200
        assert not ((np.abs(rows - 38) < 10) & (np.abs(columns - 32) < 6)).any()


def test_no_change_changes_nothing():
    for index in range(8):
        assert np.array_equal(draw_portrait(index), draw_portrait(index, **portrait_traits(index)))


def test_features_follow_the_turn_of_the_head():
    for index in range(8):
        middles = []
        for yaw in (-1.0, -0.5, 0.0, 0.5, 1.0):
            _, columns = changed_rows_and_columns(
                index, {"smile": False, "yaw": yaw}, {"smile": True, "yaw": yaw}
            )
            middles.append(columns.mean())
        assert (np.diff(middles) > 1.5).all()


def test_skin_darkens_with_its_tone():
    for index in range(8):
        faces = [draw_portrait(index, **BARE, skin_tone=tone) for tone in (0, 0.25, 0.5, 0.75, 1)]
        assert (np.diff([face[:, 38:42, 29:35].mean() for face in faces]) < -8).all()


def test_hair_shows_even_under_a_hat():
    for index in range(20):
        for yaw in (-1.0, 0.0, 1.0):
            under = {"hat": True, "yaw": yaw}
            rows, _ = changed_rows_and_columns(
                index, under | {"hair_colour": "black"}, under | {"hair_colour": "silver"}
            )
            assert len(rows) >= 110  # the brows alone are under 60


def test_hair_colour_by_name_and_by_number_agree():
    assert np.array_equal(draw_portrait(2, hair_colour="blond"), draw_portrait(2, hair_colour=3))


def test_refuses_an_empty_set_and_negative_seeds():
    with pytest.raises(UserError, match="num_images must be at least 1"):
        draw_portraits(0)
    with pytest.raises(UserError, match="seed must be at least 0"):
        draw_portraits(1, seed=-1)
    with pytest.raises(UserError, match="index must be at least 0"):
        draw_portrait(-1)


@pytest.mark.parametrize(
    "change",
    [
        {"moustache": True},
        {"smile": 0.5},
        {"yaw": float("nan")},
        {"skin_tone": -0.1},
        {"hair_colour": 5},
    ],
)
def test_refuses_a_trait_or_value_there_is_not(change):
    with pytest.raises(UserError, match=next(iter(change))):
        draw_portrait(0, **change)


@pytest.mark.parametrize(
    "change", [{"yaw": -1}, {"yaw": 1.0}, {"skin_tone": 0}, {"smile": np.True_}, {"hair_colour": 4}]
)
def test_takes_values_up_to_the_ends(change):
    assert draw_portrait(0, **change).shape == (3, 64, 64)
