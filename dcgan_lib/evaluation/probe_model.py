"""A probe: one small CNN trunk that sees an image, and one head per label or attribute.

Axes: n or b images, c channels, h x w pixels, d features, k outputs. ``x_u8`` pixels 0..255,
``x_pm1`` the same in [-1, 1]. All of it is our own choice: the paper judges by eye.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Head:
    """Describe one thing that a probe reads off an image.

    Parameters
    ----------
    name : str
        The attribute's name; "label" for the set's classes.
    kind : {"boolean", "class", "continuous"}
        Yes or no; one of several; a number.
    class_names : tuple of str, optional
        For a class, one name per value.
    mean, std : float, optional
        For a number, over the training images: the head learns ``(value - mean) / std``.
    """

    name: str
    kind: Literal["boolean", "class", "continuous"]
    class_names: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @property
    def num_outputs(self) -> int:
        """Return how many numbers the head puts out."""
        return len(self.class_names) if self.kind == "class" else 1


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Describe a probe: what goes in, the trunk, the heads.

    Parameters
    ----------
    image_size : tuple of int
        Height and width in pixels, each 16 to 128.
    num_channels : {1, 3}
        Grey or RGB.
    heads : tuple of Head
        At least one, names all different.
    widths : tuple of int
        Maps of each stage; a stage halves the sides.
    num_features : int, default 128
        Length of the feature vector under the heads.
    """

    image_size: tuple[int, int]
    num_channels: int
    heads: tuple[Head, ...]
    widths: tuple[int, ...]
    num_features: int = 128

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        names = [head.name for head in self.heads]
        if not names or len(set(names)) != len(names):
            raise UserError(f"a probe needs at least one head and names that differ, but got {names}")
        if self.num_channels not in (1, 3) or not all(16 <= side <= 128 for side in self.image_size):
            shape = (self.num_channels, *self.image_size)
            raise UserError(f"a probe reads 1 or 3 channels and sides of 16 to 128 pixels, but got {shape}")


class Probe(nn.Module):
    """Read labels and attributes off images, through one feature vector.

    Each stage of the trunk is two 3x3 convolutions, the first with stride 2, each with batch norm and
    ReLU; a linear layer with batch norm and ReLU turns the last maps into ``num_features`` numbers of
    about unit size. Positions stay known to it, because it flattens instead of averaging.

    Parameters
    ----------
    config : ProbeConfig
        What to build.

    Attributes
    ----------
    facts : dict
        How it was trained and what it scored; filled by `train_probe` and `load_probe`.
    """

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.config, self.facts = config, {}
        layers: list[nn.Module] = []
        channels, sides = config.num_channels, config.image_size
        for width in config.widths:
            layers += _convolution(channels, width, 2) + _convolution(width, width, 1)
            channels, sides = width, tuple(math.ceil(side / 2) for side in sides)
        self.maps = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.1)
        units = channels * sides[0] * sides[1]
        self.vector = nn.Sequential(
            nn.Linear(units, config.num_features, bias=False), nn.BatchNorm1d(config.num_features), nn.ReLU()
        )
        self.heads = nn.Linear(config.num_features, sum(head.num_outputs for head in config.heads))

    def features(self, x_pm1: Tensor) -> Tensor:
        """Return the feature vectors, shape (b, num_features), of images in [-1, 1]."""
        return self.vector(self.dropout(self.maps(x_pm1).flatten(1)))

    def forward(self, x_pm1: Tensor) -> dict[str, Tensor]:
        """Return each head's raw output, shape (b, num_outputs): logits, or numbers in units of ``std``."""
        outputs = self.heads(self.features(x_pm1)).float()
        parts = outputs.split([head.num_outputs for head in self.config.heads], 1)
        return {head.name: part for head, part in zip(self.config.heads, parts, strict=True)}

    def head(self, name: str) -> Head:
        """Return a head's description.

        Raises
        ------
        UserError
            If the probe has no such head.
        """
        for head in self.config.heads:
            if head.name == name:
                return head
        raise UserError(f"the probe has no head {name!r}: it has {', '.join(h.name for h in self.config.heads)}")

    @torch.no_grad()
    def predict(self, images_u8: np.ndarray, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Read every head off images, in evaluation mode.

        Parameters
        ----------
        images_u8 : ndarray
            uint8, n x c x h x w, of the size the probe was made for.
        batch_size : int, default 256
            Images at a time; it does not change the answer.

        Returns
        -------
        dict of str to ndarray
            float32 per head: a boolean's probability (n,), a class's probabilities (n, k), or a number
            in its own unit (n,).
        """
        was_training = self.training
        self.eval()
        try:
            parts = [self(x_pm1) for x_pm1 in self.batches(images_u8, batch_size)]
        finally:
            self.train(was_training)
        outputs = {head.name: torch.cat([part[head.name] for part in parts]) for head in self.config.heads}
        return {head.name: decode(head, outputs[head.name]).cpu().numpy() for head in self.config.heads}

    def batches(self, images_u8: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        """Yield images as float32 tensors in [-1, 1] on the probe's device, channels last."""
        self.check_images(images_u8.shape, images_u8.dtype == np.uint8)
        for start in range(0, len(images_u8), batch_size):
            yield self.scale(torch.from_numpy(np.array(images_u8[start : start + batch_size])))

    def scale(self, x_u8: Tensor) -> Tensor:
        """Turn pixels 0..255 into [-1, 1] on the probe's device."""
        device = self.heads.weight.device
        return x_u8.to(device, memory_format=torch.channels_last).float().mul_(2 / 255).sub_(1)

    def check_images(self, shape: tuple[int, ...], is_u8: bool) -> None:
        """Refuse images of another size or type.

        Raises
        ------
        UserError
            If they are not uint8, n x c x h x w, of the probe's own c, h and w.
        """
        expected = (self.config.num_channels, *self.config.image_size)
        if len(shape) != 4 or tuple(shape[1:]) != expected or not is_u8:
            raise UserError(f"the probe reads uint8 images of n x {expected}, but got {tuple(shape)}: prepare them so")


def decode(head: Head, outputs_bk: Tensor) -> Tensor:
    """Turn a head's raw output into probabilities or into a number in its own unit."""
    if head.kind == "boolean":
        return outputs_bk[:, 0].sigmoid()
    if head.kind == "class":
        return outputs_bk.softmax(1)
    return outputs_bk[:, 0] * head.std + head.mean


def frame(x_u8: Tensor, size: tuple[int, int]) -> Tensor:
    """Put a black frame around images, up to 4 pixels a side in all, so that they have ``size``.

    Raises
    ------
    UserError
        If they are larger than ``size``, or smaller by more than a frame should hide.
    """
    missing = [want - have for want, have in zip(size, x_u8.shape[2:], strict=True)]
    if not all(0 <= side <= 4 for side in missing):
        came = tuple(x_u8.shape[2:])
        raise UserError(f"digits must be {size} or up to 4 pixels a side smaller, but they are {came}: prepare them so")
    (down, across) = missing
    return F.pad(x_u8, (across // 2, across - across // 2, down // 2, down - down // 2))


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
