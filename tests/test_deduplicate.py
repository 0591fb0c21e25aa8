"""Duplicates: the same picture in other hands is found, another picture is not."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dcgan_lib.data.deduplicate import is_first_of_its_kind, perceptual_hash
from dcgan_lib.data.drawn.rooms import draw_rooms
from dcgan_lib.data.load import choose_split, load_image_set


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
    assert is_first_of_its_kind(near, max_bits=-1).all()
    assert is_first_of_its_kind(near, max_bits=0)[2] == np.False_


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
