"""One picture of any size from a convolutional generator: a field of latent vectors, in tiles.

The convolutions of a generator take a map of any size, so only the projection has to be said anew.
It gives a block of base cells, 4x4 as a rule, and each cell has weights and batch norm of its own.
On a canvas such blocks lie side by side, and z may change from cell to cell. The layers behind
blend what is next to each other.

Axes: y x base cells, d latent, c channels, h w pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.errors import UserError, require
from dcgan_lib.models.dcgan import Generator, squash
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import sample_latents, seeded, to_u8

Style = Literal["pictures", "smooth", "texture"]
MAX_SIDE = 4096
TILE = 512
"""Pixels on a side that are computed at once; memory grows with its square."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Hold a generator and the latent vectors of a canvas, of which any window can be painted."""

    generator: Generator
    size: tuple[int, int]
    """Height and width in pixels."""
    z_yxd: Tensor
    """A latent vector for each base cell, and for a block more below and to the right."""
    style: Style


def plan_canvas(
    generator: AnyGenerator,
    size: tuple[int, int],
    *,
    style: Style = "smooth",
    spacing: float = 2.0,
    seed: int = 0,
) -> Canvas:
    """Draw the latent vectors of a canvas.

    Parameters
    ----------
    size
        Height and width in pixels, up to 4096 each.
    style
        pictures: each block has one vector of its own, so the generator's pictures lie side by
        side, blended at their edges, and each in whole blocks (32 x 32 for pictures of 28 x 28).
        smooth: the vectors of a grid, and arcs between them. texture: every cell has a vector of
        its own, and the blocks of neighbouring cells overlap and are added, as where a generator's
        first layer is a transposed convolution of stride 1 (soumith/dcgan.torch).
    spacing
        Of the grid of smooth, in pictures.

    Raises
    ------
    UserError
        If the generator has no convolutions, draws classes or has a hidden layer before the
        projection, or the size is not allowed.
    """
    config = generator.config
    if not isinstance(generator, Generator) or config.num_classes or config.hidden_units:
        raise UserError(
            "a canvas needs a convolutional generator without classes and hidden units, whose "
            "projection is linear: choose another checkpoint"
        )
    for side in size:
        require(1 <= side <= MAX_SIDE, "a side of the canvas", side, f"from 1 to {MAX_SIDE}")
    require(spacing >= 0.25, "spacing", spacing, "at least 0.25")
    require(style in ("pictures", "smooth", "texture"), "style", style, "pictures, smooth, texture")
    block = generator.base_shape[1:]
    cells = [
        -(-side // scale_of(generator)) + extent for side, extent in zip(size, block, strict=True)
    ]
    steps = {
        "pictures": block,
        "smooth": [extent * spacing for extent in block],
        "texture": (1, 1),
    }[style]
    points = [int((count - 1) / step) + 2 for count, step in zip(cells, steps, strict=True)]
    z_yxd = sample_latents(math.prod(points), config, seeded(seed)).unflatten(0, points)
    if style == "smooth":
        for axis in (0, 1):
            z_yxd = _along_arcs(z_yxd, axis, cells[axis], steps[axis])
    else:
        rows, columns = (torch.arange(n) // step for n, step in zip(cells, steps, strict=True))
        z_yxd = z_yxd[rows][:, columns]
    return Canvas(generator=generator, size=tuple(size), z_yxd=z_yxd, style=style)


def _along_arcs(z_yxd: Tensor, axis: int, count: int, step: float) -> Tensor:
    """Put points between those of one axis.

    The weights are a quarter circle's, cosine and sine: between independent vectors, which are
    nearly at right angles, that is an arc, and each number keeps its variance.
    """
    places = torch.arange(count) / step
    first = places.long()
    angle = (places - first) * (math.pi / 2)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    before, after = (z_yxd.index_select(axis, first + n) for n in (0, 1))
    return angle.cos().view(shape) * before + angle.sin().view(shape) * after


def scale_of(generator: Generator) -> int:
    """Return how many pixels a base cell becomes on a side."""
    return math.prod(conv.stride[0] for conv in generator.convs)


# ---------------------------------------------------------------- painting


@torch.no_grad()
def paint(canvas: Canvas, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return a window of the canvas, ``x_chw`` in the network's range: rows from, to; columns.

    It is computed from those base cells alone that it depends on, so it is the same for any window
    around it. Batch norm uses its running statistics.
    """
    generator, scale = canvas.generator, scale_of(canvas.generator)
    needed = [
        _cells_behind(generator, span, -(-side // scale))
        for span, side in zip((rows, columns), canvas.size, strict=True)
    ]
    h = _base_map(canvas, *needed)
    for number, conv in enumerate(generator.convs):
        h = _enlarge(conv, h)
        if number < len(generator.norms):
            h = F.relu_(_apply_norm(generator.norms[number], h))
    top, left = rows[0] - needed[0][0] * scale, columns[0] - needed[1][0] * scale
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    return squash(h[0, :, top : top + height, left : left + width], generator.config)


def _cells_behind(generator: Generator, span: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the base cells, first and end, that some pixels of one axis depend on."""
    first, last = span[0], span[1] - 1
    for conv in reversed(generator.convs):
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        first = (first + padding - (kernel - 1)) // stride
        last = (last + padding) // stride
    return max(0, first), min(count, last + 1)


def _base_map(canvas: Canvas, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return the projection of some base cells, after batch norm and ReLU, shape 1 x c x y x x."""
    generator, (_, height, width) = canvas.generator, canvas.generator.base_shape
    weight_cijd, bias_cij = _linear_projection(generator)
    if canvas.style == "texture":
        # The blocks of all vectors whose block reaches here. Each cell is a sum over height x width
        # of them, divided so that the variance is that of one; the constants are averaged.
        z_yxd = canvas.z_yxd[rows[0] : rows[1] + height - 1, columns[0] : columns[1] + width - 1]
        kernel = weight_cijd.permute(3, 0, 1, 2) / math.sqrt(height * width)
        h = F.conv_transpose2d(z_yxd.permute(2, 0, 1)[None], kernel)
        h = h[:, :, height - 1 : h.shape[2] - height + 1, width - 1 : h.shape[3] - width + 1]
        return F.relu(h + bias_cij.mean((1, 2))[:, None, None])
    z_yxd = canvas.z_yxd[rows[0] : rows[1], columns[0] : columns[1]]
    h_yxc = z_yxd.new_empty(*z_yxd.shape[:2], len(weight_cijd))
    for i in range(height):
        for j in range(width):
            # The cells of the window with this place in their block
            down = slice((i - rows[0]) % height, None, height)
            across = slice((j - columns[0]) % width, None, width)
            at = down, across
            h_yxc[at] = F.linear(z_yxd[at], weight_cijd[:, i, j], bias_cij[:, i, j])
    return F.relu(h_yxc).permute(2, 0, 1)[None]


def _linear_projection(generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the projection and its batch norm as one linear map: weights c x i x j x d, biases."""
    norm, shape = generator.project_norm, generator.base_shape
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    bias = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
    per_unit = isinstance(norm, nn.BatchNorm1d)
    scale_cij, bias_cij = (
        each.view(shape) if per_unit else each[:, None, None].expand(shape)
        for each in (scale, bias)
    )
    return generator.project.weight.unflatten(0, shape) * scale_cij[..., None], bias_cij


def _enlarge(conv: nn.ConvTranspose2d, h: Tensor) -> Tensor:
    """Apply a layer to a map of any size; what comes out is exactly stride times as large."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    lacking = stride - kernel + 2 * padding
    return F.conv_transpose2d(h, conv.weight, None, stride, padding, lacking)


def _apply_norm(norm: nn.BatchNorm2d, h: Tensor) -> Tensor:
    return F.batch_norm(
        h, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )


def tiles(canvas: Canvas, tile: int = TILE) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut a canvas into windows: rows and columns of each."""
    spans = [
        [(first, min(first + tile, side)) for first in range(0, side, tile)] for side in canvas.size
    ]
    for rows in spans[0]:
        for columns in spans[1]:
            yield rows, columns


def paint_u8(canvas: Canvas, tile: int = TILE) -> np.ndarray:
    """Paint a whole canvas tile by tile, uint8, c x h x w: the memory is that of one tile."""
    config = canvas.generator.config
    painted_u8 = np.empty((config.num_channels, *canvas.size), np.uint8)
    for rows, columns in tiles(canvas, tile):
        painted_u8[:, slice(*rows), slice(*columns)] = to_u8(paint(canvas, rows, columns), config)
    return painted_u8
