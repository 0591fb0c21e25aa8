"""Layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """PyTorch's layer; when the pixels' gradient is wanted, it computes the same sums in a way that CPUs train faster.

    The mirror of `ConvTranspose2d`: the four phases of the grid become channels, and a 3x3 convolution adds them up.
    """

    def forward(self, h: Tensor) -> Tensor:
        """Return the maps at the coarser size."""
        halves = (self.kernel_size[0], self.stride[0], self.padding[0]) == (5, 2, 2) and not any(
            side % 2 for side in h.shape[2:]
        )
        if self.in_channels > 4 or not halves or h.device.type != "cpu" or not h.requires_grad:
            return super().forward(h)
        taps = F.pad(self.weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2))
        dense = (
            taps.permute(0, 1, 3, 5, 2, 4)
            .flatten(1, 3)
            .contiguous(memory_format=torch.channels_last)
        )
        phases = F.pixel_unshuffle(h, 2).contiguous(memory_format=torch.channels_last)
        return F.conv2d(phases, dense, padding=1)


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's layer; to few channels, as the pixels are, it computes the same sums in a way that CPUs train faster.

    Each channel is computed as four, one a phase of the doubled grid: a 3x3 convolution gives them, a shuffle puts
    them in place.
    """

    def forward(self, h: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the maps at the finer size."""
        doubles = (
            self.kernel_size[0],
            self.stride[0],
            self.padding[0],
            *set(self.output_padding),
        ) == (5, 2, 2, 1)
        if (
            self.out_channels > 4
            or not doubles
            or h.device.type != "cpu"
            or not torch.is_grad_enabled()
        ):
            return super().forward(h, output_size)
        taps = F.pad(self.weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
        dense = (
            taps.permute(1, 3, 5, 0, 2, 4)
            .flatten(0, 2)
            .contiguous(memory_format=torch.channels_last)
        )
        return F.pixel_shuffle(F.conv2d(h, dense, padding=1), 2)
