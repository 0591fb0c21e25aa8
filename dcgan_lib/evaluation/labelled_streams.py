"""Labelled images in portions, as many as are asked for: real ones, generated ones, and deformed copies.

Any portion is a function of the seed and its number alone, so nothing is stored and a long count can go on where it
stopped. Axes: n images, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

import hashlib
from typing import Protocol

import numpy as np
import torch
from torchvision.transforms import v2

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.digits import digit_report
from dcgan_lib.evaluation.probe_model import Probe
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import find_run, load_generator

PORTION = 1_000
Portion = tuple[np.ndarray, np.ndarray]


class LabelledStream(Protocol):
    """What every stream offers."""

    key: str
    """Tells one stream from another; equal keys give equal images."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    length: int | None
    """How many images there are; None when there is no end."""

    def portion(self, index: int) -> Portion:
        """Return images ``index * PORTION`` and on: uint8 (n, c, h, w) and int64 (n,), n at most `PORTION`."""


class RealStream:
    """Give the images of a set, shuffled.

    Parameters
    ----------
    image_set : ImageSet
        With labels.
    seed : int
        Of the order.
    """

    def __init__(self, image_set: ImageSet, seed: int) -> None:
        _check_labels(image_set)
        self._set, self.length, self.image_size = image_set, len(image_set), image_set.image_size
        self._order = np.random.default_rng(seed).permutation(len(image_set))
        self.key = f"real {image_set.name} {len(image_set)} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the images of one portion and their labels."""
        rows = self._order[index * PORTION : (index + 1) * PORTION]
        return self._set.images_u8[rows], self._set.labels[rows]


class GeneratedStream:
    """Give a conditional generator's pictures, equally many of each class.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    seed : int
        Of the latent vectors.

    Raises
    ------
    UserError
        If the generator knows no classes.
    """

    def __init__(self, checkpoint: str, seed: int) -> None:
        self._generator, self._seed, self.length = load_generator(checkpoint), seed, None
        self._generator.to(memory_format=torch.channels_last)
        self.image_size = self._generator.config.image_size
        if not self._generator.config.num_classes:
            raise UserError(f"{checkpoint} draws without labels: choose a conditional generator, such as mnist-paper")
        weights = (find_run(checkpoint) / "generator.safetensors").read_bytes()
        self.key = f"generated {hashlib.sha256(weights).hexdigest()} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the pictures of one portion and the classes they were asked for."""
        config = self._generator.config
        z_bd = sample_latents(PORTION, config, seeded(_seed(self._seed, index)))
        labels_b = torch.arange(index * PORTION, (index + 1) * PORTION) % config.num_classes
        return generate_u8(self._generator, z_bd, labels_b), labels_b.numpy()


class DeformedStream:
    """Give real images, shifted and bent at random, equally many of each class, as InfiMNIST does.

    Parameters
    ----------
    image_set : ImageSet
        With labels.
    seed : int
        Of the choice of images and their deformations.
    max_shift : int, default 1
        Largest shift in pixels, along each side.
    alpha, sigma : float
        Strength and smoothness of torchvision's elastic transform, in pixels.

    Raises
    ------
    UserError
        If the set has no labels, or a strength is out of range.

    Notes
    -----
    Loosli, Canu and Bottou (2007) bend digits along tangent vectors; elastic fields are the nearest thing in
    torchvision. Ten images, one of each class, share a field: that takes an eighth of the time, and no two
    of a class are bent alike.
    """

    def __init__(
        self, image_set: ImageSet, seed: int, *, max_shift: int = 1, alpha: float = 17.0, sigma: float = 4.0
    ) -> None:
        _check_labels(image_set)
        self._images_u8, self._seed, self.length = image_set.images_u8, seed, None
        self._rows_of = [np.flatnonzero(image_set.labels == label) for label in range(image_set.num_classes)]
        self.image_size = height, width = image_set.image_size
        if max_shift < 0 or alpha < 0 or not 0 < 4 * sigma < min(height, width) - 1:
            raise UserError(
                f"a deformation needs max_shift and alpha of 0 or more, and a sigma above 0 and below a quarter of the "
                f"side, {min(height, width)} pixels, but got {max_shift}, {alpha:g} and {sigma:g}"
            )
        self._bend = v2.Compose(
            [
                v2.RandomAffine(0, translate=(max_shift / width, max_shift / height)),
                v2.ElasticTransform(alpha, sigma),
            ]
        )
        settings = f"max_shift {max_shift} alpha {alpha} sigma {sigma}"
        self.key = f"deformed {image_set.name} {len(image_set)} {settings} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the deformed images of one portion and their labels."""
        rng, num_classes = np.random.default_rng([self._seed, index]), len(self._rows_of)
        labels = np.arange(index * PORTION, (index + 1) * PORTION) % num_classes
        places = rng.random(PORTION)
        choices = [self._rows_of[label] for label in labels]
        rows = [rows[int(place * len(rows))] for rows, place in zip(choices, places, strict=True)]
        images = torch.from_numpy(self._images_u8[rows])
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global random numbers
            torch.manual_seed(_seed(self._seed, index))
            bent = torch.cat([self._bend(group) for group in images.split(num_classes)])
        return bent.numpy(), labels


class RelabelledStream:
    """Give another stream's images, labelled as a classifier names them: what remains of an error is not the labels'.

    Parameters
    ----------
    stream : LabelledStream
        Where the images come from.
    probe : Probe
        With a class head called "label", such as ``load_probe("probe-mnist")``.
    """

    def __init__(self, stream: LabelledStream, probe: Probe) -> None:
        self._stream, self._probe = stream, probe
        self.length, self.image_size, self.key = stream.length, stream.image_size, f"{stream.key} relabelled"

    def portion(self, index: int) -> Portion:
        """Return the images of one portion and the classes that the classifier names."""
        images_u8, _ = self._stream.portion(index)
        return images_u8, digit_report(images_u8, self._probe).named


def _seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)


def _check_labels(image_set: ImageSet) -> None:
    if image_set.labels is None:
        raise UserError(f"nearest neighbours need classes to compare, but {image_set.name!r} has none")
