"""The minibatch and the latent vectors of any step, as functions of the seed and the step alone.

Axes: b batch, d latent, c h w channels and grid; ``x_bchw`` images in the networks' range.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.config import TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import from_u8, sample_latents, seeded
from dcgan_lib.training.step import Augment, shift_images, unchanged


class Batches:
    """Give the minibatch of any step: a shuffled pass over the set, then another.

    Parameters
    ----------
    image_set : ImageSet
        At least ``batch_size`` images; labels when the network is conditional.
    config : TrainConfig
        Batch size, seed and value range.
    device : torch.device
        On a GPU the whole set is moved there once, as uint8.
    """

    def __init__(self, image_set: ImageSet, config: TrainConfig, device: torch.device) -> None:
        _check_fit(image_set, config)
        self._config, self._device, self._size = config, device, config.batch_size
        self.per_epoch = len(image_set) // self._size
        self._images, self._labels = image_set.images_u8, image_set.labels if config.model.num_classes else None
        if device.type != "cpu":
            self._images = torch.as_tensor(np.asarray(self._images)).to(device)
        self._epoch, self._order, self._mirrored = -1, np.empty(0, int), np.empty(0, bool)

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return ``x_bchw`` in the networks' range and ``labels_b`` or None."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._config.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self._images))
            self._mirrored = rng.random(len(self._images)) < 0.5 * self._config.mirror
        chosen = np.sort(self._order[place * self._size : (place + 1) * self._size])  # in file order: fewer page faults
        x_u8 = self._images[chosen]
        x_bchw = from_u8(torch.as_tensor(x_u8), self._config.model)
        if self._config.mirror:
            mirrored = torch.as_tensor(self._mirrored[chosen], device=x_bchw.device)
            x_bchw = torch.where(mirrored[:, None, None, None], x_bchw.flip(3), x_bchw)
        if self._config.channels_last:
            x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
        labels = None if self._labels is None else torch.as_tensor(self._labels[chosen]).to(self._device)
        return x_bchw, labels


def _check_fit(image_set: ImageSet, config: TrainConfig) -> None:
    """Refuse a set that the networks cannot read."""
    model = config.model
    wanted = (model.num_channels, *model.image_size)
    got = image_set.images_u8.shape[1:]
    if tuple(got) != wanted:
        raise UserError(
            f"the networks read images of shape {wanted} (channels, height, width), "
            f"but {image_set.name!r} has {tuple(got)}: "
            "set image_size and num_channels to match, or prepare the images at that size"
        )
    if len(image_set) < config.batch_size:
        raise UserError(
            f"{image_set.name!r} has {len(image_set)} images, fewer than one batch of {config.batch_size}: "
            "lower batch_size"
        )
    if model.num_classes and (image_set.labels is None or int(np.max(image_set.labels)) >= model.num_classes):
        raise UserError(
            f"num_classes={model.num_classes} needs labels 0..{model.num_classes - 1}, "
            f"which {image_set.name!r} does not have"
        )


def identity(image_set: ImageSet) -> str | None:
    """Return what tells one set from another: its digest, or the digest of what it was cut from, and the cut."""
    card = image_set.card
    if "digest" in card or "cut_from" not in card:
        return card.get("digest")
    parts = (card["cut_from"].get("digest"), card.get("split"), card.get("subset_seed"), len(image_set))
    return "/".join(str(part) for part in parts if part is not None)


def draw_latents(config: TrainConfig, device: torch.device, step: int) -> Callable[[int], Tensor]:
    """Return the function that draws a step's latent vectors, the same ones whenever it is asked."""

    def draw(turn: int) -> Tensor:
        key = np.random.SeedSequence([config.seed, step, turn]).generate_state(1, np.uint64)[0]
        return sample_latents(config.batch_size, config.model, seeded(int(key >> 1))).to(device)

    return draw


def draw_shifts(config: TrainConfig, step: int) -> Augment:
    """Return the function that shifts images at random, the same way whenever a step is taken again."""
    if not config.d_shift:
        return unchanged
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, step], spawn_key=(1,)))

    def shift(x_bchw: Tensor) -> Tensor:
        pixels = rng.integers(-config.d_shift, config.d_shift + 1, (len(x_bchw), 2))
        return shift_images(x_bchw, torch.as_tensor(pixels))

    return shift
