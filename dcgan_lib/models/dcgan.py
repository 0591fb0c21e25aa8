"""The DCGAN of the paper's section 3: fractionally strided and strided convolutions.

Axes: b batch, d latent, c channels, h height, w width, k classes. ``x_bchw`` are images in the
configuration's value range ([-1, 1] for tanh); ``h`` is whatever passes between two layers. The
generator is the discriminator read backwards: both are built from one plan of convolutions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.layers import Conv2d, ConvTranspose2d


class Generator(nn.Module):
    """Turn latent vectors into images.

    Paper, sections 3 and 4 and Fig. 1: z is projected and reshaped to a small grid; every layer but
    the last has batch norm and ReLU; no layer has a bias of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        plan = plan_convolutions(config)[::-1]
        classes = config.num_classes
        norm = {"eps": config.bn_eps, "affine": config.bn_affine}
        self.base_shape = (plan[0].coarse_channels, *plan[0].coarse_size)
        inputs, units = config.z_dim, math.prod(self.base_shape)
        if config.hidden_units:
            self.hidden = nn.Linear(inputs + classes, config.hidden_units, bias=False)
            self.hidden_norm = nn.BatchNorm1d(config.hidden_units, **norm)
            inputs = config.hidden_units
        self.project = nn.Linear(inputs + classes, units, bias=False)
        if config.projection_bn == "unit":
            self.project_norm = nn.BatchNorm1d(units, **norm)
        else:
            self.project_norm = nn.BatchNorm2d(plan[0].coarse_channels, **norm)
        self.convs = nn.ModuleList(
            ConvTranspose2d(
                layer.coarse_channels + classes,
                layer.fine_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.output_padding,
                bias=False,
            )
            for layer in plan
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(layer.fine_channels, **norm) for layer in plan[:-1]
        )
        self.apply(initialise)

    def forward(self, z_bd: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return images ``x_bchw``; labels (int64) are for conditional networks."""
        check_latents(z_bd, self.config)
        y_bk = one_hot(labels_b, self.config.num_classes)
        h = z_bd
        if self.config.hidden_units:
            h = F.relu(self.hidden_norm(self.hidden(with_labels(h, y_bk))))
        h = self.project(with_labels(h, y_bk))
        if self.config.projection_bn == "unit":
            h = F.relu(self.project_norm(h)).unflatten(1, self.base_shape)
        else:
            h = F.relu(self.project_norm(h.unflatten(1, self.base_shape)))
        for conv, norm in zip(self.convs, self.norms, strict=False):
            h = F.relu(norm(conv(with_labels(h, y_bk))), inplace=True)
        return squash(self.convs[-1](with_labels(h, y_bk)), self.config)


class Discriminator(nn.Module):
    """Judge images: a positive logit says "real".

    Paper, sections 3 and 4: LeakyReLU everywhere, batch norm on all but the first layer, the last
    map flattened into one output. The sigmoid is left to the loss, which is stabler on logits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        plan = plan_convolutions(config)
        classes = config.num_classes
        norm = {"eps": config.bn_eps, "affine": config.bn_affine}
        self.convs = nn.ModuleList(
            Conv2d(
                layer.fine_channels + classes,
                layer.coarse_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                bias=False,
            )
            for layer in plan
        )
        self.norms = nn.ModuleList(
            [nn.Identity(), *(nn.BatchNorm2d(layer.coarse_channels, **norm) for layer in plan[1:])]
        )
        units = plan[-1].coarse_channels * math.prod(plan[-1].coarse_size)
        if config.hidden_units:
            self.hidden = nn.Linear(units + classes, config.hidden_units, bias=False)
            self.hidden_norm = nn.BatchNorm1d(config.hidden_units, **norm)
            units = config.hidden_units
        self.head = nn.Linear(units + classes, 1, bias=False)
        self.apply(initialise)

    @property
    def num_layers(self) -> int:
        """How many maps `features` returns."""
        return len(self.convs)

    def features(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> list[Tensor]:
        """Return the activations of every convolutional layer, finest first."""
        check_images(x_bchw, self.config)
        y_bk = one_hot(labels_b, self.config.num_classes)
        maps, h, slope = [], x_bchw, self.config.leaky_slope
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(with_labels(h, y_bk))), slope, inplace=True)
            maps.append(h)
        return maps

    def forward(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return ``logits_b``, float32, one per image."""
        y_bk = one_hot(labels_b, self.config.num_classes)
        # Channels innermost, as they lie in memory: the gradient comes back in the same layout,
        # which is far faster.
        h = self.features(x_bchw, labels_b)[-1].permute(0, 2, 3, 1).flatten(1)
        if self.config.hidden_units:
            h = self.hidden_norm(self.hidden(with_labels(h, y_bk)))
            h = F.leaky_relu(h, self.config.leaky_slope)
        return self.head(with_labels(h, y_bk)).squeeze(1).float()


@dataclass(frozen=True)
class ConvPlan:
    """Shape of one convolution in the discriminator; its mirror stands in the generator."""

    fine_channels: int
    coarse_channels: int
    kernel_size: int
    stride: int
    fine_size: tuple[int, int]
    coarse_size: tuple[int, int]

    @property
    def padding(self) -> int:
        """Pixels added on each side of the finer map."""
        return (self.kernel_size - 1) // 2

    @property
    def output_padding(self) -> tuple[int, int]:
        """Which of the finer sizes is meant, of those that shrink to the coarse one."""
        return tuple(
            fine - ((coarse - 1) * self.stride - 2 * self.padding + self.kernel_size)
            for fine, coarse in zip(self.fine_size, self.coarse_size, strict=True)
        )


def plan_convolutions(config: ModelConfig) -> list[ConvPlan]:
    """List the discriminator's convolutions from the image down to the base grid.

    Odd sides are rounded up by odd kernels and down by kernel 4, so every side from 8 on works.
    """
    kernel = config.kernel_size
    plan, size, channels = [], config.image_size, config.num_channels
    for stage in range(num_stages(config)):
        width = config.base_width * 2**stage
        if config.convs_per_stage == 2:
            plan.append(ConvPlan(channels, width, kernel, 1, size, size))
            channels = width
        half = tuple((side + kernel % 2) // 2 for side in size)
        plan.append(ConvPlan(channels, width, kernel, 2, size, half))
        size, channels = half, width
    return plan


def num_stages(config: ModelConfig) -> int:
    """Return how often the side is halved: as set, or as often as 4 pixels can be doubled to it."""
    return config.num_stages or max(1, int(math.log2(min(config.image_size) / 4)))


def initialise(module: nn.Module) -> None:
    """Draw weights as the authors do: N(0, 0.02), batch norm's scale N(1, 0.02), its bias 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def squash(h: Tensor, config: ModelConfig) -> Tensor:
    """Bring the generator's last layer into the configuration's value range, in float32."""
    return h.float().tanh() if config.output == "tanh" else h.float().sigmoid()


def with_labels(h: Tensor, y_bk: Tensor | None) -> Tensor:
    """Concatenate one-hot labels to units (b, c) or, spread over the grid, to maps (b, c, h, w)."""
    if y_bk is None:
        return h
    y_bk = y_bk.to(h.dtype)
    if h.dim() == 4:
        y_bk = y_bk[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return torch.cat([h, y_bk], 1)


def one_hot(labels_b: Tensor | None, num_classes: int) -> Tensor | None:
    """Turn class numbers into rows of 0 and 1; refuse labels that are missing or not wanted.

    Labels of several attributes, b x k, are such rows already.
    """
    if (labels_b is None) != (num_classes == 0):
        need, got = ("needs", "none came") if num_classes else ("takes no", "some came")
        raise UserError(
            f"a network with num_classes={num_classes} {need} labels, but {got}: "
            "pass labels_b to match"
        )
    if labels_b is None:
        return None
    if labels_b.dim() == 2:
        _check_shape("labels of attributes", labels_b, (num_classes,))
        return labels_b
    return F.one_hot(labels_b, num_classes)


def check_latents(z_bd: Tensor, config: ModelConfig) -> None:
    """Refuse latent vectors of another shape than (b, z_dim)."""
    _check_shape("latent vectors", z_bd, (config.z_dim,))


def check_images(x_bchw: Tensor, config: ModelConfig) -> None:
    """Refuse images of another shape than the configuration's."""
    _check_shape("images", x_bchw, (config.num_channels, *config.image_size))


def _check_shape(what: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape[1:]) != expected:
        wanted = ", ".join(map(str, expected))
        raise UserError(
            f"{what} must have shape (batch, {wanted}), but came as {tuple(tensor.shape)}"
        )
