"""The near-duplicate experiment: what is planted, how pairs are judged, and the rows."""

import cv2
import numpy as np
import pytest

from dcgan_lib import cli
from dcgan_lib.data.drawn.rooms import draw_rooms
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import load_row
from dcgan_lib.experiments.near_duplicates import (
    KINDS,
    MIRRORED,
    SAME,
    SLIGHT,
    equal_pairs,
    false_pairs,
    false_share,
    likeness,
    load_measured,
    near_pairs,
    phash_at,
    plant,
    record_claims,
)


@pytest.fixture(scope="module")
def rooms():
    return draw_rooms(24, seed=11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_near_duplicate_differs_and_is_still_the_same_picture(rooms, kind):
    images_u8 = rooms.images_u8[:6]
    copies_u8 = plant(images_u8, kind)
    assert copies_u8.shape == images_u8.shape and copies_u8.dtype == np.uint8
    assert all((copy != image).any() for copy, image in zip(copies_u8, images_u8, strict=True))
    found = [likeness(*pair) for pair in zip(images_u8, copies_u8, strict=True)]
    assert np.median(found) > SAME
    assert np.array_equal(copies_u8, plant(images_u8, kind))


def test_grey_pictures_can_be_altered_too(rooms):
    for kind in KINDS:
        assert plant(rooms.images_u8[:2, :1], kind).shape == (2, 1, 64, 64)
    with pytest.raises(UserError, match="one of"):
        plant(rooms.images_u8, "torn")


def test_the_judge_reads_details_and_not_the_coarse_picture():
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.uniform(60, 180, (3, 3, 3)), (32, 32)).transpose(2, 0, 1)
    one, other = (
        np.clip(coarse + rng.normal(0, 8, (3, 32, 32)), 0, 255).astype(np.uint8) for _ in range(2)
    )
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.85
    assert likeness(one, other) < SAME < 0.99 < likeness(one, plant(one[None], MIRRORED)[0])
    assert likeness(np.full((3, 32, 32), 90, np.uint8), one) == -1


def test_pairs_of_equal_codes_are_all_named_once():
    codes_u8 = np.array([[1], [2], [1], [3], [1], [2]], np.uint8)
    assert sorted(map(tuple, equal_pairs(codes_u8))) == [(0, 2), (0, 4), (1, 5), (2, 4)]
    assert equal_pairs(codes_u8[:2]).shape == (0, 2)


def test_near_pairs_are_those_of_a_slow_comparison():
    bits_nk = np.random.default_rng(3).random((40, 12)) < 0.5
    found = {(i, j): bits for i, j, bits in near_pairs(bits_nk, 3).tolist()}
    slow = {
        (i, j): int((bits_nk[i] != bits_nk[j]).sum())
        for j in range(40)
        for i in range(j)
        if (bits_nk[i] != bits_nk[j]).sum() <= 3
    }
    assert found == slow and slow


def test_a_pair_of_two_pictures_is_false_and_a_copy_is_not(rooms):
    copies_u8 = plant(rooms.images_u8[:3], SLIGHT[1])
    images_u8 = np.concatenate([rooms.images_u8[:3], copies_u8])
    true = np.array([[0, 3], [1, 4], [2, 5]])
    noise_u8 = np.random.default_rng(1).integers(0, 256, images_u8.shape, dtype=np.uint8)
    assert false_pairs(images_u8, true) == 0
    assert (
        false_pairs(np.concatenate([images_u8, noise_u8]), np.append(true, [[0, 6]], axis=0)) == 1
    )


def test_no_false_pair_still_leaves_some_doubt():
    none = false_share(0, 100.0)
    assert none.value == 0 and 0.03 < none.high < 0.04
    assert false_share(0, 1000.0).high < none.high
    some = false_share(5, 95.0)
    assert some.low < 0.05 < some.high and some.value == pytest.approx(0.05)


def summary(recall, share=(0.001, 0.0, 0.005)):
    values = {kind: [recall, recall - 0.02, recall + 0.02] for kind in KINDS}
    values[MIRRORED] = [0.0, 0.0, 0.01]
    return {
        "recall": values, "overall": recall, "pairs": 9, "false_pairs": 1, "false_share": [*share],
    }  # fmt: skip


def measured(recall=0.8, share=(0.001, 0.0, 0.005)):
    phash = {"0": summary(0.4, (0, 0, 0.01)), "6": summary(0.7), "8": summary(0.9, (0.2, 0.1, 0.3))}
    return {
        "n": 2000, "num_planted": 500, "autoencoder": summary(recall, share), "phash": phash,
        "exact": summary(0.05), "judge": {"planted": 0.99, "random": 1.0},
    }  # fmt: skip


def test_the_rival_is_taken_at_the_precision_of_the_paper():
    assert phash_at(measured()) == "6"
    assert phash_at(measured(share=(0.25, 0.2, 0.3))) == "8"


@pytest.mark.parametrize(
    ("recall", "share", "verdicts"),
    [
        (0.8, (0.001, 0.0, 0.005), ("reproduced", "reproduced")),
        (0.8, (0.001, 0.0, 0.015), ("partly", "reproduced")),
        (0.3, (0.5, 0.4, 0.6), ("not reproduced", "not reproduced")),
    ],
)
def test_rows_of_bedrooms(tmp_path, monkeypatch, recall, share, verdicts):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    found = measured(recall, share)
    rows = record_claims(found, "bedrooms64", "dcgan near-duplicates --record", 1.0, 0)
    assert tuple(row.verdict for row in rows) == verdicts
    assert load_row("dedup.recall:bedrooms64") == rows[1]
    assert load_measured("bedrooms64")["autoencoder"] == found["autoencoder"]


def test_other_sets_are_asked_whether_it_transfers(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    for share, verdict in (
        ((0, 0, 0.009), "transfers"),
        ((0, 0, 0.02), "not tested at scale"),
        ((0.03, 0.02, 0.05), "does not transfer"),
    ):
        rows = record_claims(measured(share=share), "rooms", "dcgan near-duplicates", 1.0, 0)
        assert [row.verdict for row in rows] == [verdict, "transfers"]


def test_the_command_refuses_what_it_cannot_do(capsys):
    assert cli.main(["near-duplicates", "--num-planted", "1"]) == 2
    assert "at least 10" in capsys.readouterr().err
    assert cli.main(["near-duplicates", "--set", "../x", "--record"]) == 2
    assert "a set's name" in capsys.readouterr().err
    assert cli.main(["near-duplicates", "--set", "rooms", "--num-images", "30"]) == 2
    assert "at least 500 images" in capsys.readouterr().err
