"""The paper's baselines: the dense GAN of Table 3 and the supervised network of section 5.2.

Axes: b batch, k classes; ``x_bchw`` images in the configuration's value range, ``logits_b``,
``logits_bk``.
"""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import (
    Discriminator,
    check_images,
    check_latents,
    initialise,
    one_hot,
    squash,
    with_labels,
)


class DenseGenerator(nn.Module):
    """Turn latent vectors into images by ``num_stages`` dense layers of ``hidden_units`` units."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_shape = (config.num_channels, *config.image_size)
        self.hidden = _hidden_layers(config.z_dim, config)
        self.norms = nn.ModuleList(_norm(config) for _ in self.hidden)
        self.head = _linear(config.hidden_units, math.prod(self.image_shape), config)
        self.apply(initialise)

    def forward(self, z_bd: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return images ``x_bchw``; see ``Generator.forward``."""
        check_latents(z_bd, self.config)
        y_bk, h = one_hot(labels_b, self.config.num_classes), z_bd
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = F.relu(norm(layer(with_labels(h, y_bk))))
        h = self.head(with_labels(h, y_bk)).unflatten(1, self.image_shape)
        return squash(h, self.config)


class DenseDiscriminator(nn.Module):
    """Judge images without a convolution: a positive logit says "real"."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = _hidden_layers(config.num_channels * math.prod(config.image_size), config)
        # None on the layer that sees the image, as in the DCGAN.
        self.norms = nn.ModuleList([nn.Identity(), *(_norm(config) for _ in self.hidden[1:])])
        self.head = _linear(config.hidden_units, 1, config)
        self.apply(initialise)

    def forward(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return ``logits_b``, float32, one per image."""
        check_images(x_bchw, self.config)
        y_bk, h = one_hot(labels_b, self.config.num_classes), x_bchw.flatten(1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = F.leaky_relu(norm(layer(with_labels(h, y_bk))), self.config.leaky_slope)
        return self.head(with_labels(h, y_bk)).squeeze(1).float()


def _linear(inputs: int, outputs: int, config: ModelConfig) -> nn.Linear:
    return nn.Linear(inputs + config.num_classes, outputs, bias=False)


def _hidden_layers(inputs: int, config: ModelConfig) -> nn.ModuleList:
    widths = [inputs, *[config.hidden_units] * config.num_stages]
    return nn.ModuleList(_linear(*pair, config) for pair in pairwise(widths))


def _norm(config: ModelConfig) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(config.hidden_units, eps=config.bn_eps, affine=config.bn_affine)


class SupervisedCnn(Discriminator):
    """Name the class of images: a `Discriminator` with another last layer, all else equal.

    It returns ``logits_bk``, float32; its configuration is convolutional and without labels as an
    input. Paper, section 5.2: "the same architecture". The dropout of the flattened last map is our
    choice: the paper names none.
    """

    def __init__(self, config: ModelConfig, num_classes: int, dropout: float = 0.0) -> None:
        if config.architecture != "convolutional" or config.num_classes:
            given = f"architecture {config.architecture!r} and num_classes {config.num_classes}"
            raise UserError(
                "the supervised network needs an unconditional convolutional configuration; "
                f"got {given}"
            )
        if num_classes < 2 or not 0 <= dropout < 1:
            given = f"{num_classes} and {dropout}"
            raise UserError(
                "the supervised network needs at least 2 classes and dropout in [0, 1); "
                f"got {given}"
            )
        super().__init__(config)
        logits = nn.Linear(self.head.in_features, num_classes, bias=False)
        initialise(logits)
        self.head = nn.Sequential(nn.Dropout(dropout), logits)
