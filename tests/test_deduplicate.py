"""Duplicates: the same picture in other hands is found, another picture is not."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dcgan_lib.data import deduplicate
from dcgan_lib.data.deduplicate import (
    AutoencoderConfig,
    HashingAutoencoder,
    code_entropy,
    entropy_needed,
    exact_hash,
    first_of_each,
    first_within,
    group,
    is_first_of_its_kind,
    perceptual_hash,
    shrink,
    standardise,
    train_autoencoder,
)
from dcgan_lib.data.drawn.rooms import draw_rooms
from dcgan_lib.data.load import choose_split, load_image_set
from dcgan_lib.data.prepare import prepare
from dcgan_lib.errors import UserError


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return draw_rooms(40, seed=5).images_u8


def changed(image_u8: np.ndarray, how: str) -> np.ndarray:
    picture = Image.fromarray(image_u8.transpose(1, 2, 0))
    if how == "jpeg":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=60)
        picture = Image.open(file)
    elif how == "resized":
        picture = picture.resize((48, 48), Image.Resampling.LANCZOS).resize(
            (64, 64), Image.Resampling.BILINEAR
        )
    else:
        picture = picture.point(lambda value: min(int(value * 0.8) + 20, 255))
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize("how", ["jpeg", "resized", "lit otherwise"])
def test_a_copy_is_found_and_the_first_is_kept(pictures, how):
    copies = np.stack([changed(image, how) for image in pictures[:10]])
    first = is_first_of_its_kind(np.concatenate([pictures, copies]))
    assert first[: len(pictures)].all() and not first[len(pictures) :].any()


def test_mirrored_pictures_are_other_pictures(pictures):
    assert is_first_of_its_kind(np.concatenate([pictures, pictures[..., ::-1]])).mean() > 0.9


def test_hashes_have_63_bits_half_of_them_set(pictures):
    bits = perceptual_hash(pictures)
    assert bits.shape == (40, 63) and (bits.sum(1) == 31).all()


def test_exact_copies_alone_with_no_bits_to_spare(pictures):
    near = np.stack([pictures[0], changed(pictures[0], "jpeg"), pictures[0]])
    bits = perceptual_hash(near)
    assert first_within(bits, 0)[2] == 0
    with pytest.raises(UserError, match="max_bits"):
        first_within(bits, -1)


def test_a_held_out_copy_of_a_training_image_is_dropped(pictures):
    whole = load_image_set("rooms", num_images=4)
    images = np.concatenate([pictures[:6], pictures[2:4], pictures[6:8]])
    card = {"splits": {"train": [0, 6], "validation": [6, 10]}, "digest": "d"}
    whole = replace(whole, images_u8=images, attributes={}, labels=None, card=card)
    train, held_out = (
        choose_split(whole, split, drop_duplicates=True) for split in ("train", "validation")
    )
    assert (len(train), len(held_out)) == (6, 2) and held_out.card["dropped_duplicates"] == 2
    assert np.array_equal(held_out.images_u8, pictures[6:8])
    assert len(choose_split(whole, "validation")) == 4


# ---------------------------------------------------------------- grouping


def test_equal_codes_are_grouped_by_their_first_row():
    codes_u8 = np.random.default_rng(0).integers(0, 3, (200, 4), dtype=np.uint8)
    slow = [next(j for j in range(200) if (codes_u8[j] == row).all()) for row in codes_u8]
    assert group(codes_u8).tolist() == slow and len(set(slow)) < 200


def test_equal_pixels_alone_have_equal_exact_hashes(pictures):
    other = pictures[1].copy()
    other[0, 0, 0] ^= 1
    images_u8 = np.stack([pictures[0], pictures[1], pictures[0], other])
    assert first_of_each(images_u8, "exact").tolist() == [0, 1, 0, 3]
    assert exact_hash(images_u8).shape == (4, 16)


def test_images_are_read_piece_by_piece(pictures, monkeypatch):
    images_u8 = np.concatenate([pictures, pictures[:3]])
    autoencoder = HashingAutoencoder()
    whole = perceptual_hash(images_u8), autoencoder.hash(images_u8)

    class Watched:
        """Images of which only a slice may be asked, as of a memory map too large for memory."""

        shape = images_u8.shape

        def __len__(self):
            return len(images_u8)

        def __getitem__(self, rows):
            assert len(images_u8[rows]) <= 7
            return images_u8[rows]

    monkeypatch.setattr(deduplicate, "CHUNK", 7)
    assert np.array_equal(perceptual_hash(Watched()), whole[0])
    assert np.array_equal(autoencoder.hash(Watched()), whole[1])


# ---------------------------------------------------------------- the paper's autoencoder

QUICK = {"steps": 40, "entropy": 20.0}


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """Coarse random pictures at 32x32, which a code can tell apart after a few steps."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (600, 3, 4, 4), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 1, 8, 8), np.uint8))


@pytest.fixture(scope="module")
def trained(many) -> HashingAutoencoder:
    return train_autoencoder(many, AutoencoderConfig(**QUICK))


def test_the_network_is_the_papers(trained, many):
    weights = {name: tuple(value.shape) for name, value in trained.named_parameters()}
    assert weights["encoder.weight"] == (128, 3072) and weights["decoder.weight"] == (3072, 128)
    code = trained.encode(standardise(shrink(many[:50])))
    assert np.array_equal(trained.bits(many[:50]), (code > 0).numpy()) and code.min() == 0
    assert np.array_equal(np.unpackbits(trained.hash(many[:50]), axis=1), trained.bits(many[:50]))


def test_the_central_square_is_hashed(pictures):
    wide = np.concatenate([pictures[..., :10] * 0, pictures, pictures[..., :10] * 0], axis=3)
    assert np.array_equal(shrink(wide), shrink(pictures))
    grey = shrink(pictures[:, :1])
    assert grey.shape == (40, 3, 32, 32) and np.array_equal(grey[:, 0], grey[:, 2])


def test_light_does_not_change_a_row_but_a_flat_picture_stays_flat():
    image_u8 = np.random.default_rng(0).integers(20, 100, (1, 3, 32, 32), dtype=np.uint8)
    change = (standardise(image_u8) - standardise(image_u8 * 2 + 10)).abs().max()
    assert change < 0.1
    assert standardise(np.full((1, 3, 32, 32), 9, np.uint8)).abs().max() == 0


def test_training_again_gives_the_same_code_and_another_seed_another(trained, many):
    again = train_autoencoder(many, AutoencoderConfig(**QUICK))
    other = train_autoencoder(many, AutoencoderConfig(**QUICK, seed=1))
    assert np.array_equal(again.hash(many), trained.hash(many))
    assert not np.array_equal(other.hash(many), trained.hash(many))


def test_copies_get_one_hash_and_other_pictures_do_not(trained, many):
    slight = np.clip(
        many.astype(int) + np.random.default_rng(1).integers(-1, 2, many.shape), 0, 255
    )
    same = (trained.hash(slight.astype(np.uint8)) == trained.hash(many)).all(1)
    assert same.mean() > 0.5
    assert (group(trained.hash(many)) == np.arange(600)).mean() > 0.9
    assert (trained.hash(many) == trained.hash(many[::-1])).all(1).mean() < 0.1


def test_a_code_that_tells_too_little_is_refused(many):
    with pytest.raises(UserError, match="bits of information to tell 600 images apart"):
        train_autoencoder(np.repeat(many[:1], 600, axis=0), AutoencoderConfig(**QUICK))
    with pytest.raises(UserError, match="at least 500 images, but got 499"):
        train_autoencoder(many[:499])


def test_entropy_counts_bits_that_vary():
    bits = np.random.default_rng(0).random((4000, 10)) < [0.5] * 4 + [0.0] * 3 + [1.0] * 3
    assert code_entropy(bits) == pytest.approx(4, abs=0.01)
    assert entropy_needed(2**20) - entropy_needed(2**10) == pytest.approx(22)


@pytest.mark.parametrize("wrong", [{"noise": -1}, {"dropout": 1.0}, {"steps": 0}, {"entropy": 200}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        AutoencoderConfig(**wrong)
    with pytest.raises(UserError, match="method"):
        first_of_each(np.zeros((2, 3, 8, 8), np.uint8), "guess")


# ---------------------------------------------------------------- dcgan prepare --deduplicate


def a_folder(place, images_u8):
    place.mkdir()
    for number, image_u8 in enumerate(images_u8):
        Image.fromarray(image_u8.transpose(1, 2, 0)).save(place / f"{number:04}.png")
    return place


@pytest.mark.parametrize(("method", "left"), [("exact", 12), ("phash", 10)])
def test_a_set_is_prepared_without_its_duplicates(tmp_path, monkeypatch, pictures, method, left):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    copies = [changed(image_u8, "jpeg") for image_u8 in pictures[:2]]
    images_u8 = np.stack([*pictures[:10], pictures[3], *copies])
    folder = a_folder(tmp_path / "photos", images_u8)
    found = prepare(folder, "without", held_out=0.0, deduplicate=method)
    assert np.array_equal(found.images_u8, np.concatenate([images_u8[:10], images_u8[11:]])[:left])
    assert (
        found.card["report"]["duplicates"] == 13 - left and found.card["splits"]["train"][1] == left
    )
    report = json.loads((tmp_path / "prepared" / "without" / "report.json").read_text())
    assert {"file": "0010.png", "of": "0003.png"} in report["duplicates"]
    assert len(report["kept"]) == left
    again = prepare(folder, "without", held_out=0.0, deduplicate=method)
    assert again.card == found.card
    with pytest.raises(UserError, match="deduplicate"):
        prepare(folder, "without", held_out=0.0)
    whole = prepare(folder, "whole", held_out=0.0)
    assert len(whole) == 13 and "duplicates" not in whole.card["report"]
    with pytest.raises(UserError, match="deduplicate"):
        prepare(folder, "whole", held_out=0.0, deduplicate=method)


def test_a_set_is_prepared_by_the_autoencoder(tmp_path, monkeypatch, many):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    monkeypatch.setattr(AutoencoderConfig, "__init__", _quick_config(AutoencoderConfig.__init__))
    folder = a_folder(tmp_path / "photos", np.concatenate([many[:520], many[:5]]))
    found = prepare(folder, "x", image_size=32, held_out=0.0, deduplicate="autoencoder")
    report = json.loads((tmp_path / "prepared" / "x" / "report.json").read_text())
    originals = {entry["file"]: entry["of"] for entry in report["duplicates"]}
    copies = {f"{520 + number:04}.png": f"{number:04}.png" for number in range(5)}
    assert copies.items() <= originals.items() and len(found) == 525 - len(originals)
    with pytest.raises(UserError, match="at least 500 images"):
        prepare(a_folder(tmp_path / "few", many[:9]), "y", image_size=32, deduplicate="autoencoder")


def _quick_config(usual):
    def init(self, **given):
        usual(self, **{**QUICK, **given})

    return init
