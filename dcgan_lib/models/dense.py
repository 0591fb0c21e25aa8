"""The permutation-invariant pair: a GAN of fully connected layers, to which the order of the pixels means nothing.

Axes as in ``dcgan``: ``z_bd`` latent vectors, ``x_bchw`` images, ``labels_b`` class numbers, ``logits_b``.
The paper's Table 3 compares the DCGAN with such a GAN but does not give its layers; these are our choice, with the
DCGAN's own activations and batch norm.
"""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.models.dcgan import check_images, check_latents, initialise, one_hot, with_labels


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
            nn.Linear(inputs + config.num_classes, outputs, bias=False) for inputs, outputs in pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, eps=config.bn_eps, affine=config.bn_affine) for width in widths[1:]
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
            self.head(with_labels(h, y_bk)).float().unflatten(1, (self.config.num_channels, *self.config.image_size))
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
            nn.Linear(inputs + config.num_classes, outputs, bias=False) for inputs, outputs in pairwise(widths)
        )
        norms = (nn.BatchNorm1d(width, eps=config.bn_eps, affine=config.bn_affine) for width in widths[2:])
        self.norms = nn.ModuleList([nn.Identity(), *norms])  # none on the layer that sees the image, as in the DCGAN
        self.head = nn.Linear(widths[-1] + config.num_classes, 1, bias=False)
        self.apply(initialise)

    def forward(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return ``logits_b``, float32, one per image."""
        check_images(x_bchw, self.config)
        y_bk, h = one_hot(labels_b, self.config.num_classes), x_bchw.flatten(1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = F.leaky_relu(norm(layer(with_labels(h, y_bk))), self.config.leaky_slope)
        return self.head(with_labels(h, y_bk)).squeeze(1).float()
