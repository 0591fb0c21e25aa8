"""One reading of images by a network's layers, from which fewer layers and coarser grids are cut.

Axes: n images, c channels, g x g grid, f features; ``images_u8`` n x c x h x w, 0..255.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from dcgan_lib.config import recipe as recipe_named
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.conv_features import ConvFeatures, check_convolutional, compute_features
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.training.checkpoints import find_run, load_discriminator, untrained_discriminator

WITHOUT_NETWORK = ("pixels", "kmeans1")
USUAL_RECIPE = "paper-svhn"


@dataclass(frozen=True)
class Source:
    """Name where features come from.

    Parameters
    ----------
    name : str
        pixels, kmeans1, random, or the name of a checkpoint or a run; several joined by " + ".
    step : int or None
        Minibatches that a snapshot was trained for.
    networks : tuple of Discriminator
        None for pixels and kmeans1; with several, their features stand side by side.
    """

    name: str
    step: int | None
    networks: tuple[Discriminator, ...]

    @property
    def label(self) -> str:
        """Return the name, with the step of a snapshot."""
        return self.name if self.step is None else f"{self.name} at {self.step}"


def open_source(word: str, *, recipe: str = USUAL_RECIPE, seed: int = 0) -> Source:
    """Load what a word stands for.

    Parameters
    ----------
    word : str
        pixels, kmeans1, random, a committed checkpoint, a run's folder or one of its snapshots.
    recipe : str, default "paper-svhn"
        Whose network random is; another one's name is part of the source's.
    seed : int, default 0
        Of random weights.
    """
    if word in WITHOUT_NETWORK:
        return Source(word, None, ())
    if word == "random":
        name = word if recipe == USUAL_RECIPE else f"{word} {recipe}"
        return Source(name, None, (untrained_discriminator(recipe_named(recipe).config.model, seed),))
    folder, network = find_run(word), check_convolutional(load_discriminator(word))
    if snapshot := re.fullmatch(r"step-(\d+)", folder.name):
        return Source(folder.resolve().parent.parent.name, int(snapshot[1]), (network,))
    return Source(folder.resolve().name, None, (network,))


def snapshot_folders(run_dir: str | Path) -> list[Path]:
    """Return the folders of a run's snapshots, the earliest first.

    Raises
    ------
    UserError
        If it kept none.
    """
    found = sorted(Path(run_dir).glob("snapshots/step-*"))
    if not found:
        raise UserError(f"{run_dir} has no snapshots: train it with --snapshot-every")
    return found


def join(sources: Sequence[Source]) -> Source:
    """Return the sources' features side by side as one source."""
    if not all(source.networks for source in sources):
        raise UserError("features are joined of networks, not of pixels or kmeans1")
    return Source(
        " + ".join(source.label for source in sources), None, sum((source.networks for source in sources), ())
    )


def average(sources: Sequence[Source]) -> Source:
    """Return one network whose weights are the mean of the sources', which are snapshots of one run.

    Raises
    ------
    UserError
        If their networks differ.
    """
    networks = join(sources).networks
    if len({network.config for network in networks}) > 1:
        raise UserError("weights can be averaged only of networks of one configuration")
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    network = copy.deepcopy(networks[0])
    network.load_state_dict(mean)
    return Source(f"mean of {', '.join(source.label for source in sources)}", None, (network,))


class LayerTable:
    """Features of every layer at the finest grid asked for; fewer and coarser ones are cut from them.

    The maximum over a cell is the maximum over the maxima of its parts, so that nothing is read twice.

    Parameters
    ----------
    network : Discriminator
        In evaluation mode.
    images_u8 : ndarray
        What it reads.
    grid : int
        Side of the finest grid.
    progress : bool, default False
        Show a bar.

    Raises
    ------
    UserError
        If the grid is below 1, or a layer's map cannot be divided into it.
    """

    def __init__(self, network: Discriminator, images_u8: np.ndarray, grid: int, *, progress: bool = False) -> None:
        with torch.no_grad():
            maps = network.features(torch.zeros(1, network.config.num_channels, *network.config.image_size))
        if grid < 1 or any(side % grid for h in maps for side in h.shape[2:] if side > grid):
            raise UserError(f"the network's layers cannot be divided into a grid of {grid} x {grid}")
        self._shapes = [(h.shape[1], *(min(grid, side) for side in h.shape[2:])) for h in maps]
        self._ends = np.cumsum([np.prod(shape) for shape in self._shapes])
        self.grid, self.num_layers = grid, len(maps)
        self._table_nf = compute_features(ConvFeatures(network, grid=grid), images_u8, progress=progress)

    def cut(self, layers: Sequence[int] = (), grid: int | None = None) -> np.ndarray:
        """Return what `ConvFeatures` gives for these layers (none: all) and this grid: float32, n x f.

        Raises
        ------
        UserError
            If there is no such layer, one is named twice, or the grid does not divide the finest one.
        """
        grid, every = self.grid if grid is None else grid, tuple(range(1, self.num_layers + 1))
        layers = tuple(layers) or every
        if not set(layers) <= set(every) or len(set(layers)) < len(layers) or grid < 1 or self.grid % grid:
            raise UserError(
                f"layers are different ones of 1..{self.num_layers} and grids divide {self.grid}, but got layers "
                f"{layers}, grid {grid}"
            )
        if grid == self.grid and layers == every:
            return self._table_nf
        return np.concatenate([self._layer(layer - 1, grid) for layer in layers], 1)

    def _layer(self, index: int, grid: int) -> np.ndarray:
        (channels, height, width), end = self._shapes[index], self._ends[index]
        part_nf = self._table_nf[:, end - channels * height * width : end]
        if grid >= max(height, width):
            return part_nf
        h_ncgg = torch.from_numpy(np.ascontiguousarray(part_nf)).view(-1, channels, height, width)
        kernel = tuple(max(1, side // grid) for side in (height, width))
        return F.max_pool2d(h_ncgg, kernel).flatten(1).numpy()
