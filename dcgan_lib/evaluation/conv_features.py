"""A discriminator's convolutional layers as features: section 5 of the paper.

Axes: n images, c channels, h x w grid, f features; ``images_u8`` n x c x h x w, 0..255.
Whatever turns ``images_u8`` into float32 features, n x f, fits where these do: see `Features`.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import AnyDiscriminator
from dcgan_lib.models.sampling import from_u8

BATCH = 128
PORTION = 1024

Features = Callable[[np.ndarray], np.ndarray]
Statistics = list[tuple[Tensor, Tensor]]


class ConvFeatures:
    """Read images with the convolutional layers of a discriminator.

    Every chosen layer, after batch norm and LeakyReLU, is max-pooled to a small grid and flattened; the layers are
    joined in the order given.

    Parameters
    ----------
    discriminator : AnyDiscriminator
        Convolutional and without classes, on any device; used in evaluation mode. For batch norm as the authors
        had it, pass it through `with_statistics`.
    layers : sequence of int, optional
        Which layers, 1 for the one next to the image; by default all.
    grid : int, default 4
        Side of the grid that each layer is pooled to; a smaller map is kept as it is.
    batch_size : int, default 128
        Images at a time; it does not change the features beyond rounding.

    Raises
    ------
    UserError
        If the network is dense or conditional, or a number does not fit.

    Notes
    -----
    Paper, section 5.1: all layers, a 4x4 grid: 28,672 features for the authors' ImageNet network (recipe
    paper-imagenet32), 7,168 for their SVHN network (paper-svhn).
    """

    def __init__(
        self,
        discriminator: AnyDiscriminator,
        *,
        layers: Sequence[int] | None = None,
        grid: int = 4,
        batch_size: int = BATCH,
    ) -> None:
        self._network = check_convolutional(discriminator).eval().to(memory_format=torch.channels_last)
        total = len(self._network.convs)
        self.layers = tuple(range(1, total + 1)) if layers is None else tuple(layers)
        if (
            not self.layers
            or len(set(self.layers)) < len(self.layers)
            or not set(self.layers) <= {*range(1, total + 1)}
        ):
            raise UserError(f"layers must be different numbers from 1 to {total}, but got {self.layers}")
        if grid < 1 or batch_size < 1:
            raise UserError(f"grid and batch_size must be at least 1, but got {grid} and {batch_size}")
        self.grid, self._batch_size = grid, batch_size

    @torch.inference_mode()
    def __call__(self, images_u8: np.ndarray) -> np.ndarray:
        """Return float32 features, n x f.

        Raises
        ------
        UserError
            If the images are of another size, or grey where the network reads colour.
        """
        parts = [self._read(x_bchw) for x_bchw in _batches(self._network, images_u8, self._batch_size)]
        return torch.cat(parts).cpu().numpy()

    def _read(self, x_bchw: Tensor) -> Tensor:
        maps = self._network.features(x_bchw)
        return torch.cat([_pooled(maps[layer - 1], self.grid).flatten(1) for layer in self.layers], 1)


def check_convolutional(discriminator: AnyDiscriminator) -> Discriminator:
    """Return the network if it has convolutional layers that read images alone.

    Raises
    ------
    UserError
        If it is dense or conditional.
    """
    if not isinstance(discriminator, Discriminator):
        raise UserError("these features are convolutional layers, but the network has only fully connected ones")
    if classes := discriminator.config.num_classes:
        raise UserError(f"features must not know the label, but this network reads it ({classes} classes)")
    return discriminator


def _pooled(h_bchw: Tensor, grid: int) -> Tensor:
    height, width = h_bchw.shape[2:]
    if height % grid or width % grid:
        return F.adaptive_max_pool2d(h_bchw, (min(grid, height), min(grid, width)))
    return F.max_pool2d(h_bchw, (height // grid, width // grid))


def _batches(network: Discriminator, images_u8: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """Yield ``x_bchw`` in the network's range, on its device, channels innermost."""
    config, device = network.config, next(network.parameters()).device
    wanted, got = (config.num_channels, *config.image_size), tuple(images_u8.shape[1:])
    if images_u8.dtype != np.uint8 or got != wanted:
        hint = "load the set with channels=3" if got == (1, *wanted[1:]) else "load the set at that size"
        raise UserError(f"the network reads uint8 images of shape {wanted}, but got {images_u8.dtype} {got}: {hint}")
    for start in range(0, len(images_u8), batch_size):
        x_u8 = torch.from_numpy(np.array(images_u8[start : start + batch_size]))
        yield from_u8(x_u8.to(device), config).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def batch_statistics(discriminator: AnyDiscriminator, images_u8: np.ndarray, *, progress: bool = False) -> Statistics:
    """Average batch norm's statistics over minibatches of 128 images.

    Parameters
    ----------
    discriminator : AnyDiscriminator
        Left as it was.
    images_u8 : ndarray
        Training images; no labels are needed. An incomplete last minibatch is left out, unless it is the only one.
    progress : bool, default False
        Show a bar.

    Returns
    -------
    list of (Tensor, Tensor)
        Mean and variance of each layer with batch norm, float32, finest first.

    Notes
    -----
    As the authors' SVHN script does: while they are gathered, every layer is normalised by its own minibatch, and
    the variance is that of the minibatch itself, not an estimate of the population's.
    """
    network = copy.deepcopy(check_convolutional(discriminator)).train().to(memory_format=torch.channels_last)
    norms = _norms(network)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    size = min(BATCH, len(images_u8))
    whole = images_u8[: len(images_u8) // size * size]
    for x_bchw in tqdm(_batches(network, whole, size), total=len(whole) // size, unit="batch", disable=not progress):
        maps = network.features(x_bchw)
    counts = [h.numel() // h.shape[1] for h in maps[1:]]
    return [
        (norm.running_mean, norm.running_var * (1 - 1 / count)) for norm, count in zip(norms, counts, strict=True)
    ]  # PyTorch keeps the population's estimate, larger by n / (n - 1)


def with_statistics(discriminator: AnyDiscriminator, statistics: Statistics) -> Discriminator:
    """Return a copy of the network whose batch norm uses these statistics from now on."""
    network = copy.deepcopy(check_convolutional(discriminator)).eval()
    for norm, (mean, variance) in zip(_norms(network), statistics, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return network


def _norms(network: Discriminator) -> list[nn.BatchNorm2d]:
    return [norm for norm in network.norms if isinstance(norm, nn.BatchNorm2d)]


def compute_features(
    features: Features, images_u8: np.ndarray, *, path: Path | None = None, progress: bool = False
) -> np.ndarray:
    """Compute features of any number of images, a thousand at a time.

    Parameters
    ----------
    features : callable
        From images to float32 features, n x f.
    images_u8 : ndarray
        In memory or memory-mapped.
    path : Path, optional
        A .npy file to put them in, whole or not at all; by default they stay in memory.
    progress : bool, default False
        Show a bar.

    Returns
    -------
    ndarray
        float32, n x f; of a file, a memory map that may be changed without changing the file.

    Raises
    ------
    UserError
        If what the callable returns is no such array, or the file cannot be written.
    """
    table, part = None, path and part_of(path)
    try:
        for start in tqdm(range(0, len(images_u8), PORTION), unit="k images", disable=not progress):
            found = features(images_u8[start : start + PORTION])
            if table is None:
                table = _new_table((len(images_u8), *found.shape[1:]), part)
            if found.dtype != np.float32 or found.shape != (len(table[start : start + PORTION]), *table.shape[1:]):
                raise UserError(f"features must be float32, one row an image, but are {found.dtype} {found.shape}")
            table[start : start + PORTION] = found
        if not part:
            return table
        table.flush()
        os.replace(part, path)
    except BaseException as error:
        if part:
            part.unlink(missing_ok=True)
        if part and isinstance(error, OSError):
            raise UserError(f"the features cannot be kept in {path}: {error.strerror}") from error
        raise
    return np.load(path, mmap_mode="c")


def part_of(path: Path) -> Path:
    """Return where to write until the file is whole, in a folder that exists then.

    Raises
    ------
    UserError
        If the path is a folder, or its folder cannot be made.
    """
    if path.is_dir() or not path.name:
        raise UserError(f"features are kept in a .npy file, but {path} is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the features cannot be kept in {path}: {error.strerror}") from error
    return path.with_name(f"{path.name}.part")


def _new_table(shape: tuple[int, ...], path: Path | None) -> np.ndarray:
    if len(shape) != 2:
        raise UserError(f"features must be n x f, but have shape {shape}")
    if path is None:
        return np.empty(shape, np.float32)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)


def mean_and_spread(x_nf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and standard deviation, at least a hundredth of the largest one; 1 if none moves.

    Divided by these, what hardly ever moves is not blown up.
    """
    mean_f, std_f = x_nf.mean(0), x_nf.std(0)
    return mean_f, np.maximum(std_f, 0.01 * std_f.max() or 1)


def pixel_features(images_u8: np.ndarray) -> np.ndarray:
    """Return pixels as features in [-1, 1], float32, n x f: what the discriminator itself is shown."""
    return images_u8.reshape(len(images_u8), -1).astype(np.float32) / 127.5 - 1
