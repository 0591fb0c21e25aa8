"""Nearest neighbours are exact, and the memorisation check tells copies from honest samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.neighbours import NearestSearch, memorisation, nearest


def pictures(num, seed, side=8):
    """Draw from one smooth family: random sums of the same six patterns."""
    patterns = np.random.default_rng(99).normal(size=(6, side * side))
    images = np.random.default_rng(seed).normal(size=(num, 6)) @ patterns * 20 + 128
    return images.clip(0, 255).astype(np.uint8).reshape(num, 1, side, side)


@pytest.mark.parametrize("chunk_size", [5, 64, 4096])
def test_agrees_with_brute_force(chunk_size):
    queries, references = pictures(60, 0), pictures(300, 1)
    references.setflags(write=False)  # as a memory map is
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(
        references.reshape(300, -1).astype(np.float64)
    )
    expected, rows = search.kneighbors(queries.reshape(60, -1).astype(np.float64))
    distances, indices = nearest(queries, references, chunk_size=chunk_size)
    np.testing.assert_allclose(distances, expected[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(indices, rows[:, 0])


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(0, 1000),
    st.floats(0, 1e4),
)
@settings(max_examples=40)
def test_exact_for_any_shape_and_offset(num_queries, num_references, width, seed, offset):
    rng = np.random.default_rng(seed)
    # In float32, which is what the search reads: an int64 and a float32 give a float64.
    queries, references = (
        (rng.integers(0, 9, (n, width)) + offset).astype(np.float32)
        for n in (num_queries, num_references)
    )
    every = np.linalg.norm(queries[:, None].astype(np.float64) - references[None], axis=2)
    distances, indices = nearest(queries, references, chunk_size=11)
    np.testing.assert_allclose(
        distances, every[np.arange(num_queries), indices], rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(distances, every.min(1), rtol=0.02, atol=1e-9)


def test_copy_among_bright_images_has_distance_zero():
    references = np.full((500, 3, 32, 32), 250, np.uint8)
    references[np.arange(500), 0, np.arange(500) % 32, np.arange(500) // 32] = 249
    distances, indices = nearest(references, references)
    assert (distances == 0).all()
    np.testing.assert_array_equal(indices, np.arange(500))


def test_portions_give_what_one_pass_gives():
    queries, references = pictures(30, 0), pictures(200, 1)
    search = NearestSearch(queries)
    for start in range(0, 200, 63):
        search.add(references[start : start + 63])
    distances, indices = nearest(queries, references)
    np.testing.assert_array_equal(search.indices, indices)
    np.testing.assert_array_equal(search.distances, distances)


def test_bad_references_are_refused():
    with pytest.raises(UserError, match="at least one reference"):
        nearest(pictures(3, 0), pictures(3, 0)[:0])
    with pytest.raises(UserError, match="64 and 16 numbers a row"):
        nearest(pictures(3, 0), pictures(3, 0)[:, :, :4, :4])


@pytest.fixture(scope="module")
def sets():
    return {
        name: pictures(num, seed)
        for name, num, seed in (("train", 900, 1), ("held_out", 600, 2), ("fresh", 400, 3))
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_honest_generator_is_not_flagged(sets, seed):
    report = memorisation(sets["fresh"], sets["train"], sets["held_out"], seed=seed)
    assert not report.is_flagged
    assert report.closer_to_train.low < 0.5 < report.closer_to_train.high
    assert report.copies.value < 0.05
    assert (report.n, report.n_references, report.n_train, report.space) == (
        400,
        600,
        900,
        "pixels",
    )


@pytest.mark.parametrize("noise", [0, 4])
def test_copying_generator_is_flagged(sets, noise):
    rng = np.random.default_rng(0)
    copied = sets["train"][rng.integers(0, 900, 400)].astype(int)
    copies = (copied + rng.integers(-noise, noise + 1, copied.shape)).clip(0, 255).astype(np.uint8)
    report = memorisation(copies, sets["train"], sets["held_out"])
    assert report.is_flagged
    assert report.closer_to_train.low > 0.7
    if noise == 0:
        assert report.copies.value == 1


def test_one_copy_in_five_is_flagged(sets):
    mixed = np.concatenate([sets["train"][:80], sets["fresh"][:320]])
    assert memorisation(mixed, sets["train"][:600], sets["held_out"]).is_flagged
    assert memorisation(mixed, sets["train"], sets["held_out"]).copies.low > 0.1


def test_copies_of_a_far_larger_training_set_show_in_the_second_share_alone(sets):
    train = pictures(4_000, 5)
    copied = train[np.random.default_rng(0).integers(0, 4_000, 1_000)]
    report = memorisation(copied, train, sets["held_out"][:400])
    assert report.of_copies == (1 + 400 / 4_000) / 2
    assert report.closer_to_train.value == pytest.approx(report.of_copies, abs=0.05)
    assert report.copies.value == 1


def test_samples_that_share_a_neighbour_are_one_piece_of_evidence(sets):
    collapsed = np.repeat(sets["train"][:1], 400, 0)
    report = memorisation(collapsed, sets["train"], sets["held_out"], seed=4)
    assert report.closer_to_train.value in (0, 1)
    assert not report.is_flagged
    assert report.copies.value == 1


def test_features_are_named(sets):
    features = FeatureExtractor(
        "halves", 32, torch.nn.Identity(), lambda x_u8: x_u8[:, :, ::2].flatten(1).float()
    )
    assert (
        memorisation(sets["train"][:100], sets["train"], sets["held_out"], features=features).space
        == "halves"
    )
    assert memorisation(
        sets["train"][:100], sets["train"], sets["held_out"], features=features
    ).is_flagged


def test_mirrored_copies_are_found_where_the_mirror_is_asked_for(sets):
    turned = np.ascontiguousarray(sets["train"][:300, ..., ::-1])
    plain, mirrored = (
        memorisation(turned, sets["train"], sets["held_out"], mirrored=on) for on in (False, True)
    )
    assert not plain.is_flagged and plain.copies.value < 0.1
    assert mirrored.is_flagged and mirrored.copies.value == 1
    honest = memorisation(sets["fresh"], sets["train"], sets["held_out"], mirrored=True)
    assert honest.closer_to_train.low < 0.5 < honest.closer_to_train.high
    assert (honest.n_references, honest.n_train) == (600, 900), "an image and its mirror are one"


def test_tiny_samples_are_refused(sets):
    with pytest.raises(UserError, match="20 samples and 100 images"):
        memorisation(sets["fresh"][:19], sets["train"], sets["held_out"])
    with pytest.raises(UserError, match="99 held-out"):
        memorisation(sets["fresh"], sets["train"], sets["held_out"][:99])


def test_a_tie_counts_half_for_either_side():
    same = np.random.default_rng(0).integers(0, 256, (100, 1, 4, 4), dtype=np.uint8)
    assert memorisation(same[:40], same, same).closer_to_train.value == 0.5
