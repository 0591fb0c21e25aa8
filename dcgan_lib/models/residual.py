"""The residual GAN that came after the paper: 3x3 convolutions in residual blocks, and pooling.

No convolution has a stride and none is transposed. The discriminator halves the side by average
pooling, the generator doubles it by repeating each value, and what passes through a block is
``shortcut(h) + alpha * f(h)``. Closest published code: LMescheder/GAN_stability (Mescheder et al.,
2018), with alpha 0.1 and no normalisation.

Axes as in ``models.dcgan``: ``z_bd``, ``x_bchw``, ``logits_b``; ``h`` between two layers. Here too
the generator is the discriminator read backwards: both are built from one list of widths.
"""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.models.dcgan import (
    check_images,
    check_latents,
    num_stages,
    one_hot,
    squash,
    with_labels,
)


class ResidualBlock(nn.Module):
    """Add ``alpha * f(h)`` to what comes in: f is twice normalise, activate, convolve.

    The maps between the two convolutions are as many as the fewer of ``inputs`` and ``outputs``.
    A 1x1 convolution without bias stands in the shortcut where the two numbers differ.
    """

    def __init__(
        self, inputs: int, outputs: int, config: ModelConfig, *, reads_pixels: bool = False
    ) -> None:
        super().__init__()
        hidden = min(inputs, outputs)
        self.config = config
        self.norm_1 = nn.Identity() if reads_pixels else new_norm(inputs, config)
        self.conv_1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.norm_2 = new_norm(hidden, config)
        self.conv_2 = nn.Conv2d(hidden, outputs, 3, padding=1)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Return maps of the same height and width."""
        f = self.conv_1(activate(self.norm_1(h), self.config))
        f = self.conv_2(activate(self.norm_2(f), self.config))
        return self.shortcut(h) + self.config.residual_alpha * f


class ResidualGenerator(nn.Module):
    """Turn latent vectors into images: a projection, blocks with upsampling between, a convolution.

    Labels of a conditional pair are concatenated to z alone: our choice.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths, self.sizes = plan_widths(config)[::-1], plan_sizes(config)[::-1]
        self.base_shape = (widths[0], *self.sizes[0])
        units = math.prod(self.base_shape)
        self.project = nn.Linear(config.z_dim + config.num_classes, units)
        self.blocks = nn.ModuleList(ResidualBlock(*pair, config) for pair in pairwise(widths))
        self.norm = new_norm(widths[-1], config)
        self.to_pixels = nn.Conv2d(widths[-1], config.num_channels, 3, padding=1)
        self.apply(initialise_residual)

    def forward(self, z_bd: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return images ``x_bchw``; see ``Generator.forward``."""
        check_latents(z_bd, self.config)
        y_bk = one_hot(labels_b, self.config.num_classes)
        h = self.project(with_labels(z_bd, y_bk)).unflatten(1, self.base_shape)
        for block, size in zip(self.blocks, self.sizes[1:], strict=False):
            h = F.interpolate(block(h), size=size, mode="nearest")
        h = self.blocks[-1](h)
        h = self.to_pixels(activate(self.norm(h), self.config))
        return squash(h, self.config)


class ResidualDiscriminator(nn.Module):
    """Judge images: a convolution, blocks with pooling between, the last maps flattened.

    Nothing is normalised before the first block, which reads a convolution of the pixels: so the
    DCGAN's rule for D's input holds. Labels are concatenated to the pixels and to the flattened
    maps: our choice.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths, sizes, classes = plan_widths(config), plan_sizes(config), config.num_classes
        self.from_pixels = nn.Conv2d(config.num_channels + classes, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(*pair, config, reads_pixels=place == 0)
            for place, pair in enumerate(pairwise(widths))
        )
        self.norm = new_norm(widths[-1], config)
        self.head = nn.Linear(widths[-1] * math.prod(sizes[-1]) + classes, 1)
        self.apply(initialise_residual)

    @property
    def num_layers(self) -> int:
        """How many maps `features` returns."""
        return len(self.blocks)

    def features(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> list[Tensor]:
        """Return what each block gives, pooled and activated, finest first.

        The last is normalised too, where the pair has a norm: it is what the output reads.
        """
        maps = self._maps(x_bchw, labels_b)
        return [activate(h, self.config) for h in [*maps[:-1], self.norm(maps[-1])]]

    def forward(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return ``logits_b``, float32, one per image."""
        y_bk = one_hot(labels_b, self.config.num_classes)
        h = activate(self.norm(self._maps(x_bchw, labels_b)[-1]), self.config)
        h = h.permute(0, 2, 3, 1).flatten(1)  # channels innermost, as in the DCGAN
        return self.head(with_labels(h, y_bk)).squeeze(1).float()

    def _maps(self, x_bchw: Tensor, labels_b: Tensor | None) -> list[Tensor]:
        check_images(x_bchw, self.config)
        y_bk = one_hot(labels_b, self.config.num_classes)
        maps, h = [], self.from_pixels(with_labels(x_bchw, y_bk))
        for place, block in enumerate(self.blocks):
            h = block(h)
            if place < len(self.blocks) - 1:
                h = F.avg_pool2d(h, 2, ceil_mode=True)
            maps.append(h)
        return maps


def plan_widths(config: ModelConfig) -> list[int]:
    """List the numbers of maps before and after each of D's blocks: 64, 64, 128, 256, 512, 512.

    That is base width 64 at 64x64. The first and the last block keep their number of maps, and the
    blocks between double it.
    """
    doubling = [config.base_width * 2**stage for stage in range(num_stages(config))]
    return [doubling[0], *doubling, doubling[-1]]


def plan_sizes(config: ModelConfig) -> list[tuple[int, int]]:
    """List the heights and widths of D's maps, block by block; odd sides are rounded up."""
    sizes = [config.image_size]
    for _ in range(num_stages(config)):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes


def new_norm(num_maps: int, config: ModelConfig) -> nn.Module:
    """Return the normalisation of one layer's maps; layer norm is over all maps of an image."""
    if config.residual_norm == "batch":
        return nn.BatchNorm2d(num_maps, eps=config.bn_eps, affine=config.bn_affine)
    if config.residual_norm == "layer":
        return nn.GroupNorm(1, num_maps, eps=config.bn_eps, affine=config.bn_affine)
    return nn.Identity()


def activate(h: Tensor, config: ModelConfig) -> Tensor:
    """Apply ReLU or LeakyReLU, the same in both networks."""
    if config.residual_activation == "relu":
        return F.relu(h)
    return F.leaky_relu(h, config.leaky_slope)


def initialise_residual(module: nn.Module) -> None:
    """Draw weights that keep the scale of what passes; biases begin at 0, norms at 1 and 0.

    Notes
    -----
    Our choice. N(0, 0.02) counts on batch norm to restore the scale, and without it a dozen layers
    would starve the output. He's N(0, 2 / inputs) stands where an activation comes before, so in
    f and before the pixels; N(0, 1 / inputs) where none does (the projection, the shortcuts and
    D's first convolution), and in D's output, for small logits at the start. The trunk then grows
    by alpha^2 of f's variance a block: hardly with 0.1, about twofold with 1. GAN_stability has
    PyTorch's default, kwotsin/mimicry Xavier with gain sqrt(2) in f and 1 in the shortcut, which
    is much the same as this.
    """
    if isinstance(module, ResidualBlock):
        for conv in (module.conv_1, module.conv_2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    elif isinstance(module, ResidualGenerator):
        nn.init.kaiming_normal_(module.to_pixels.weight, nonlinearity="relu")
    elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
