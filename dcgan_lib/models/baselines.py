"""The purely supervised rival of section 5.2: the discriminator's own body under a head of one logit per class.

Axes: b batch, k classes; ``x_bchw`` images in the configuration's value range, ``logits_bk``.
"""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import (
    Discriminator,
    Generator,
    check_images,
    check_latents,
    initialise,
    one_hot,
    with_labels,
)


class DenseGenerator(nn.Module):
    """Turn latent vectors into images without a convolution.

    Parameters
    ----------
    config : ModelConfig
        With ``architecture="dense"``: ``num_stages`` hidden layers of ``hidden_units`` units.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.z_dim, *[config.hidden_units] * config.num_stages]
        self.hidden = nn.ModuleList(
            nn.Linear(inputs + config.num_classes, outputs, bias=False)
            for inputs, outputs in pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, eps=config.bn_eps, affine=config.bn_affine)
            for width in widths[1:]
        )
        num_values = config.num_channels * math.prod(config.image_size)
        self.head = nn.Linear(widths[-1] + config.num_classes, num_values, bias=False)
        self.apply(initialise)

    def forward(self, z_bd: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return images ``x_bchw`` in the configuration's value range; see ``Generator.forward``."""
        check_latents(z_bd, self.config)
        y_bk, h = one_hot(labels_b, self.config.num_classes), z_bd
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = F.relu(norm(layer(with_labels(h, y_bk))))
        x_bchw = (
            self.head(with_labels(h, y_bk))
            .float()
            .unflatten(1, (self.config.num_channels, *self.config.image_size))
        )
        return x_bchw.tanh() if self.config.output == "tanh" else x_bchw.sigmoid()


class DenseDiscriminator(nn.Module):
    """Judge images without a convolution: a positive logit says "real".

    Parameters
    ----------
    config : ModelConfig
        The same object as the generator's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num_values = config.num_channels * math.prod(config.image_size)
        widths = [num_values, *[config.hidden_units] * config.num_stages]
        self.hidden = nn.ModuleList(
            nn.Linear(inputs + config.num_classes, outputs, bias=False)
            for inputs, outputs in pairwise(widths)
        )
        norms = (
            nn.BatchNorm1d(width, eps=config.bn_eps, affine=config.bn_affine)
            for width in widths[2:]
        )
        self.norms = nn.ModuleList(
            [nn.Identity(), *norms]
        )  # none on the layer that sees the image, as in the DCGAN
        self.head = nn.Linear(widths[-1] + config.num_classes, 1, bias=False)
        self.apply(initialise)

    def forward(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return ``logits_b``, float32, one per image."""
        check_images(x_bchw, self.config)
        y_bk, h = one_hot(labels_b, self.config.num_classes), x_bchw.flatten(1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = F.leaky_relu(norm(layer(with_labels(h, y_bk))), self.config.leaky_slope)
        return self.head(with_labels(h, y_bk)).squeeze(1).float()


class SupervisedCnn(Discriminator):
    """Name the class of images: `Discriminator` with another last layer, so that nothing else can differ.

    Called on ``x_bchw`` it returns ``logits_bk``, float32, one row per image.

    Parameters
    ----------
    config : ModelConfig
        The discriminator's; convolutional, without labels as an input.
    num_classes : int
        Logits per image, at least 2.
    dropout : float, default 0
        Share of the flattened last map that is switched off while training, in [0, 1).

    Raises
    ------
    UserError
        If the configuration is another network's, or a number is outside its range.

    Notes
    -----
    Paper, section 5.2: "the same architecture". The dropout is our choice: the paper names none.
    """

    def __init__(self, config: ModelConfig, num_classes: int, dropout: float = 0.0) -> None:
        if config.architecture != "convolutional" or config.num_classes:
            given = f"architecture {config.architecture!r} and num_classes {config.num_classes}"
            raise UserError(
                f"the supervised network needs an unconditional convolutional configuration; got {given}"
            )
        if num_classes < 2 or not 0 <= dropout < 1:
            given = f"{num_classes} and {dropout}"
            raise UserError(
                f"the supervised network needs at least 2 classes and dropout in [0, 1); got {given}"
            )
        super().__init__(config)
        logits = nn.Linear(self.head.in_features, num_classes, bias=False)
        initialise(logits)
        self.head = nn.Sequential(nn.Dropout(dropout), logits)


AnyGenerator = Generator | DenseGenerator
AnyDiscriminator = Discriminator | DenseDiscriminator


def new_generator(config: ModelConfig) -> AnyGenerator:
    """Return an untrained generator, its weights drawn from PyTorch's global random numbers."""
    return DenseGenerator(config) if config.architecture == "dense" else Generator(config)


def new_discriminator(config: ModelConfig) -> AnyDiscriminator:
    """Return an untrained discriminator; see `new_generator`."""
    return DenseDiscriminator(config) if config.architecture == "dense" else Discriminator(config)
