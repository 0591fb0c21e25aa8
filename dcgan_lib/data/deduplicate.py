"""Find images that look the same: by the paper's autoencoder, by a perceptual hash, or exactly.

Every method turns an image into a few bytes, piece by piece, so that the images may lie in a memory
map that no memory would hold; what is compared afterwards are the bytes.

Axes: n images, c channels, h x w pixels, d = 3072 inputs, k bits, p bytes; ``images_u8`` is
n x c x h x w, 0..255.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.errors import UserError, check_number, check_numbers, require

Method = Literal["autoencoder", "phash", "exact"]
SHRUNK = (32, 32)
HASH_SIDE = 8
MAX_BITS = 8
"""[O] Perceptual hashes that differ in at most so many of their 63 bits are taken for the same
picture. Looked at among 4,175 bedrooms: all nine pairs within 8 bits were the same picture, of the
six pairs at 10 bits one was."""
CHUNK = 4096  # images in memory at a time


def first_of_each(images_u8: np.ndarray, method: Method = "autoencoder") -> np.ndarray:
    """Return for every image the first that looks like it, itself where none does: n, int64.

    "autoencoder" is trained on these very images and takes linear time; so does "exact", which asks
    for equal pixels. "phash" compares every pair of hashes: seconds for 100,000 different ones,
    most of an hour for three million.
    """
    require(method in get_args(Method), "method", method, f"one of {list(get_args(Method))}")
    if method == "phash":
        return first_within(perceptual_hash(images_u8), MAX_BITS)
    if method == "exact":
        return group(exact_hash(images_u8))
    return group(train_autoencoder(images_u8, AutoencoderConfig()).hash(images_u8))


def group(codes_u8: np.ndarray) -> np.ndarray:
    """Return for every code, a row of n x p bytes, the first row equal to it: n, int64.

    [P] Linear time: each code is looked up once in a table.
    """
    first_row: dict[bytes, int] = {}
    found = [first_row.setdefault(code.tobytes(), row) for row, code in enumerate(codes_u8)]
    return np.array(found, np.int64)


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


# ---------------------------------------------------------------- equal pixels


def exact_hash(images_u8: np.ndarray) -> np.ndarray:
    """Return n x 16 bytes that only equal images share."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images_u8)
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


# ---------------------------------------------------------------- the perceptual hash


def perceptual_hash(images_u8: np.ndarray) -> np.ndarray:
    """Return n x 63 bits that hardly change when an image is resized, compressed or lit otherwise.

    This is the usual "pHash": which of the lowest 8x8 frequencies of the grey image at 32x32, its
    mean left out, lie above their median. It needs no training.
    """
    hashes = []
    for chunk in _chunks(images_u8):
        grey = (image.mean(0, dtype=np.float32) for image in chunk)
        small = np.stack([cv2.resize(each, SHRUNK, interpolation=cv2.INTER_AREA) for each in grey])
        low = scipy.fft.dctn(small, axes=(1, 2), norm="ortho")[:, :HASH_SIDE, :HASH_SIDE]
        low_nk = low.reshape(len(small), -1)[:, 1:]
        hashes.append(low_nk > np.median(low_nk, axis=1, keepdims=True))
    return np.concatenate(hashes)


def as_words(bits_nk: np.ndarray) -> np.ndarray:
    """Return rows of at most 64 bits as one number each: n, uint64."""
    require(bits_nk.shape[1] <= 64, "the number of bits", bits_nk.shape[1], "at most 64")
    packed = np.zeros((len(bits_nk), 8), np.uint8)
    packed[:, : -(-bits_nk.shape[1] // 8)] = np.packbits(bits_nk, axis=1)
    return packed.view(np.uint64)[:, 0]


def first_within(bits_nk: np.ndarray, max_bits: int) -> np.ndarray:
    """Return for every hash the first that differs in at most ``max_bits`` bits: n, int64.

    Every pair of different hashes is compared.
    """
    require(max_bits >= 0, "max_bits", max_bits, "at least 0")
    words, first, which = np.unique(as_words(bits_nk), return_index=True, return_inverse=True)
    order = np.argsort(first)  # in which the hashes appear
    words, first, place = words[order], first[order], np.argsort(order)
    found = first.copy()
    for at in range(1, len(words)):
        is_near = np.bitwise_count(words[:at] ^ words[at]) <= max_bits
        if is_near.any():
            found[at] = first[is_near.argmax()]
    return found[place[which]]


def is_first_of_its_kind(images_u8: np.ndarray) -> np.ndarray:
    """Return which images look like no earlier one by the perceptual hash: n, bool."""
    return first_of_each(images_u8, "phash") == np.arange(len(images_u8))


# ---------------------------------------------------------------- the paper's autoencoder

NUM_INPUTS = 3 * 32 * 32
NUM_BITS = 128  # [P]
FEWEST_IMAGES = 500
"""[O] Fewer images are too few to learn a code from: the perceptual hash needs none."""
WIDEST_THRESHOLD = 5.0
NUM_TRIALS = 6


def entropy_needed(num_images: int) -> float:
    """Return how many bits of `code_entropy` tell so many images apart.

    [O] Of the paper's images about 9 % were near-duplicates, and less than 1 % of those found were
    not. To keep to this, a pair of different images may share its code with a chance of 2^-b at
    most, b = log2(num_images) + 9. A code's bits depend on each other: codes of bedrooms needed
    about 2.2 bits of `code_entropy` for one of b.
    """
    return 2.2 * (math.log2(max(2, num_images)) + 9)


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Say how the hashing autoencoder is trained.

    The paper gives its sizes, that it denoises, that dropout regularises it, and its ReLU. The rest
    is our choice, after a look at planted near-duplicates of all 4,175 bedrooms. Noise of 2 rather
    than 4 was chosen on 20,000 pictures of tinyimagenet32 on which nothing is reported: both found
    38 % of what was planted, with 4 and 23 pairs of different pictures, when the threshold was
    searched for in four trials.
    """

    noise: float = 2.0
    """[O] Standard deviation of the Gaussian noise on the input, in standard deviations of the
    picture. So much noise leaves the encoder only coarse structures, which survive a JPEG."""
    dropout: float = 0.5
    """[O] Share of the code's units that are switched off at each step."""
    entropy: float | None = None
    """[O] Bits of `code_entropy` that the code should hold at least: more make fewer mistakes and
    find less. Unset: `entropy_needed` by the whole set's number of images."""
    first_weights: float = 0.2
    """[O] Factor on PyTorch's first weights of the encoder: what it has not learnt stays small."""
    learning_rate: float = 1e-3
    """[O] Adam's; it falls linearly to zero."""
    batch_size: int = 128
    """[O] As for the paper's other networks."""
    steps: int = 400
    """[O] Updates."""
    max_images: int = 30_000
    """[O] Learn from at most so many images, drawn at random."""
    seed: int = 0
    """Of the weights, the noise and the order of the images."""

    def __post_init__(self) -> None:
        check_numbers(self, 0, "noise", "seed")
        check_number(self, "first_weights", 0.01, 10)
        if self.entropy is not None:
            check_number(self, "entropy", 0, NUM_BITS)
        check_number(self, "dropout", 0, 0.99)
        check_number(self, "learning_rate", 1e-6, 1)
        check_numbers(self, 1, "batch_size", "steps", "max_images")


def shrink(images_u8: np.ndarray) -> np.ndarray:
    """Return the images' central squares as RGB at 32x32: n x 3 x 32 x 32, uint8."""
    height, width = images_u8.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre_u8 = images_u8[:, :, top : top + side, left : left + side]
    small_u8 = np.empty((len(images_u8), 3, *SHRUNK), np.uint8)
    for row, image_u8 in enumerate(centre_u8):
        pixels = np.ascontiguousarray(image_u8.transpose(1, 2, 0))
        pixels = cv2.resize(pixels, SHRUNK, interpolation=cv2.INTER_AREA)
        small_u8[row] = pixels.reshape(*SHRUNK, -1).transpose(2, 0, 1)
    return small_u8


def standardise(small_u8: np.ndarray) -> Tensor:
    """Return pictures as rows with mean 0 and standard deviation 1: n x d, float32.

    [O] So a picture that is lit otherwise is the same row, but for what was clipped.
    """
    x_nd = torch.from_numpy(small_u8.reshape(len(small_u8), -1).astype(np.float32))
    x_nd = x_nd - x_nd.mean(1, keepdim=True)
    return x_nd / (x_nd.std(1, keepdim=True) + 1.0)  # 1 of 255 levels: a flat picture stays flat


class HashingAutoencoder(nn.Module):
    """[P] 3072-128-3072 with a ReLU code, whose units above zero are the bits of the hash."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Linear(NUM_INPUTS, NUM_BITS)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(NUM_BITS, NUM_INPUTS)
        self.register_buffer("mean_d", torch.zeros(NUM_INPUTS))

    def encode(self, x_nd: Tensor) -> Tensor:
        """Return the code, n x k, of what `standardise` gives."""
        return F.relu(self.encoder(x_nd - self.mean_d))

    def forward(self, x_nd: Tensor) -> Tensor:
        """Return the input as the code remembers it."""
        return self.decoder(self.dropout(self.encode(x_nd))) + self.mean_d

    @torch.inference_mode()
    def bits(self, images_u8: np.ndarray) -> np.ndarray:
        """Return the hash bit by bit: n x 128, bool."""
        self.eval()
        codes = [self.encode(standardise(shrink(chunk))) > 0 for chunk in _chunks(images_u8)]
        return torch.cat(codes).numpy()

    def hash(self, images_u8: np.ndarray) -> np.ndarray:
        """Return the hash as n x 16 bytes, to `group` by."""
        packed = [np.packbits(self.bits(chunk), axis=1) for chunk in _chunks(images_u8)]
        return np.concatenate(packed)


def train_autoencoder(
    images_u8: np.ndarray, config: AutoencoderConfig | None = None
) -> HashingAutoencoder:
    """Train the autoencoder to undo noise on images of a set, on the CPU.

    The encoder's biases begin at so many standard deviations below zero that each unit answers to
    few pictures: the fewer, the more often are the codes of near-duplicates equal, and those of
    different pictures too. The largest of a few such thresholds is kept that leaves the code the
    information it needs. [O]

    The same images, settings and number of threads give the same weights.

    Raises
    ------
    UserError
        If the images are fewer than 500, or no code came out that tells them apart.
    """
    config = config or AutoencoderConfig()
    if len(images_u8) < FEWEST_IMAGES:
        raise UserError(
            f"the autoencoder learns its code from at least {FEWEST_IMAGES} images, but got "
            f"{len(images_u8)}: find duplicates by phash or exact"
        )
    needed = entropy_needed(len(images_u8)) if config.entropy is None else config.entropy
    rows = np.random.default_rng(config.seed).permutation(len(images_u8))[: config.max_images]
    rows.sort()
    small_u8 = np.concatenate([shrink(images_u8[chunk]) for chunk in _chunks(rows)])
    best, low, high = None, 0.0, WIDEST_THRESHOLD
    for _ in range(NUM_TRIALS):
        threshold = (low + high) / 2
        autoencoder = _train(small_u8, config, threshold)
        entropy = code_entropy(autoencoder.bits(small_u8))
        if entropy >= needed:
            best, low = autoencoder, threshold
        else:
            high = threshold
    if best is None:
        raise UserError(
            f"the autoencoder's code needs {needed:.0f} bits of information to tell "
            f"{len(images_u8):,} images apart, but came out with {entropy:.0f}: "
            "find duplicates by phash or exact"
        )
    return best


def _train(small_u8: np.ndarray, config: AutoencoderConfig, threshold: float) -> HashingAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        autoencoder = HashingAutoencoder(config.dropout).train()
        encoder = autoencoder.encoder
        first_nd = standardise(small_u8[:CHUNK])
        autoencoder.mean_d.copy_(first_nd.mean(0))
        with torch.no_grad():
            encoder.weight *= config.first_weights
            noisy_nd = first_nd + config.noise * torch.randn_like(first_nd)
            answers_nk = encoder(noisy_nd - autoencoder.mean_d)
            encoder.bias -= threshold * answers_nk.std()
        _fit(autoencoder, small_u8, config)
    return autoencoder.eval()


def _fit(autoencoder: HashingAutoencoder, small_u8: np.ndarray, config: AutoencoderConfig) -> None:
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=config.learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=config.steps)
    rng, order = np.random.default_rng(config.seed), np.empty(0, np.int64)
    for _ in range(config.steps):
        while len(order) < config.batch_size:
            order = np.concatenate([order, rng.permutation(len(small_u8))])
        rows, order = order[: config.batch_size], order[config.batch_size :]
        clean_nd = standardise(small_u8[rows])
        noisy_nd = clean_nd + config.noise * torch.randn_like(clean_nd)
        loss = F.mse_loss(autoencoder(noisy_nd), clean_nd)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()


def code_entropy(bits_nk: np.ndarray) -> float:
    """Return the bits of information of a code, summed over its bits as if they were independent.

    Of 128 bits that are set in half of the pictures it is 128; a bit that is always or never set
    adds nothing.
    """
    share_k = np.clip(bits_nk.mean(0), 1e-12, 1 - 1e-12)
    return float(-(share_k * np.log2(share_k) + (1 - share_k) * np.log2(1 - share_k)).sum())
