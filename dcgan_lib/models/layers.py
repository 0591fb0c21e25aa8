"""The two layers at the pixels, which compute what PyTorch's do and train faster on a CPU.

A convolution between few channels, as at the pixels, keeps a CPU's vector units half empty. With
kernel 5 and stride 2 the finer grid has four phases (even or odd row, even or odd column); taken as
channels, they turn the same sums into a dense 3x3 convolution on the coarser grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_CHANNELS = 4


class Conv2d(nn.Conv2d):
    """PyTorch's layer, faster where it reads the pixels and their gradient is wanted."""

    def forward(self, h: Tensor) -> Tensor:
        """Return the maps at the coarser size."""
        even = all(side % 2 == 0 for side in h.shape[2:])
        if not (even and h.requires_grad and _gains(self, self.in_channels, h)):
            return super().forward(h)
        dense = _phases(self.weight).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        phases = F.pixel_unshuffle(h, 2).contiguous(memory_format=torch.channels_last)
        return F.conv2d(phases, dense.contiguous(memory_format=torch.channels_last), padding=1)


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's layer, faster where it gives the pixels and is trained."""

    def forward(self, h: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the maps at the finer size."""
        doubles = set(self.output_padding) == {1}
        if not (doubles and torch.is_grad_enabled() and _gains(self, self.out_channels, h)):
            return super().forward(h, output_size)
        dense = _phases(self.weight).flip(2, 4).permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        phases = F.conv2d(h, dense.contiguous(memory_format=torch.channels_last), padding=1)
        return F.pixel_shuffle(phases, 2)


def _gains(layer: nn.Conv2d | nn.ConvTranspose2d, fine_channels: int, h: Tensor) -> bool:
    shape = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    return shape == (5, 2, 2) and fine_channels <= FEW_CHANNELS and h.device.type == "cpu"


def _phases(weight: Tensor) -> Tensor:
    """Cut a 5x5 kernel, padded to 6x6, into 3x3 taps for each of 2x2 phases: (..., 3, 2, 3, 2)."""
    return F.pad(weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2))
