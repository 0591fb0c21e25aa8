"""Find images that look the same, by a perceptual hash.

Axes: n images, c channels, h x w pixels, k bits; ``images_u8`` is n x c x h x w, 0..255.
"""

import cv2
import numpy as np
import scipy.fft

HASH_SIDE = 8
SHRUNK_SIDE = 32
MAX_BITS = 8
"""[O] Hashes that differ in at most so many of their 63 bits are taken for the same picture. Looked
at among 4,175 bedrooms: all nine pairs within 8 bits were the same picture, of the six pairs at 10
bits one was."""


def perceptual_hash(images_u8: np.ndarray) -> np.ndarray:
    """Return n x 63 bits that hardly change when an image is resized, compressed or lit otherwise.

    This is the usual "pHash": which of the lowest 8x8 frequencies of the grey image at 32x32, its
    mean left out, lie above their median. The paper hashed with an autoencoder; this one needs no
    training, and its false positives can be looked at.
    """
    side = (SHRUNK_SIDE, SHRUNK_SIDE)
    grey = (image.mean(0, dtype=np.float32) for image in images_u8)
    small = np.stack([cv2.resize(image, side, interpolation=cv2.INTER_AREA) for image in grey])
    low = scipy.fft.dctn(small, axes=(1, 2), norm="ortho")[:, :HASH_SIDE, :HASH_SIDE]
    low_nk = low.reshape(len(small), -1)[:, 1:]
    return low_nk > np.median(low_nk, axis=1, keepdims=True)


def is_first_of_its_kind(images_u8: np.ndarray, max_bits: int = MAX_BITS) -> np.ndarray:
    """Return which images look like no earlier one: n, bool.

    Two look alike when their hashes differ in at most ``max_bits``. Every pair is compared, which
    takes seconds for 100,000 images and most of an hour for three million.
    """
    packed = np.packbits(perceptual_hash(images_u8), axis=1)
    words = np.ascontiguousarray(packed).view(np.uint64)[:, 0]
    first = np.ones(len(words), bool)
    for row in range(1, len(words)):
        first[row] = np.bitwise_count(words[:row] ^ words[row]).min() > max_bits
    return first
