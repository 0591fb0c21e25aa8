"""Numbers that describe images: layers, K-means, pixels, and the named extractors of metrics.

The first three are callables from uint8 images, n x c x h x w, to float32 features, n x f, for a
linear classifier to read (Tables 1 and 2); `get_features` names those through which distances
between sets of images are measured.

Axes: n images, b of a batch, c channels, h x w pixels or positions, f features, g cells of a grid,
p patches of d numbers, k centroids; ``x_u8`` pixels 0..255.
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.probes import Probe, frame, load_probe
from dcgan_lib.models.efficientnet import NUM_FEATURES as NUM_EFFICIENTNET
from dcgan_lib.models.efficientnet import load_efficientnet_lite0
from dcgan_lib.models.networks import (
    AnyDiscriminator,
    LayeredDiscriminator,
    check_convolutional,
)
from dcgan_lib.models.sampling import batch_norms, in_batches, measuring_batch_norm, network_input
from dcgan_lib.paths import data_root, reserve

BATCH = 128
PORTION = 1024
NUM_SCALED = 5_000
"""Training images that the scale of K-means features is measured on, at most."""

FeatureFunction = Callable[[np.ndarray], np.ndarray]
Statistics = list[tuple[Tensor, Tensor]]
"""Mean and variance of each layer with batch norm, float32, finest first."""


# ---------------------------------------------------------------- a discriminator's layers


class ConvFeatures:
    """Read images with the convolutional layers of a discriminator.

    Every chosen layer, after batch norm and LeakyReLU, is max-pooled to a small grid and flattened;
    the layers are joined in the order given. A residual network's layers are its blocks.

    Parameters
    ----------
    discriminator : AnyDiscriminator
        Convolutional and without classes, on any device; used in evaluation mode. For batch norm as
        the authors had it, pass it through `with_statistics`.
    layers : sequence of int, optional
        Which layers, 1 for the one next to the image; by default all.
    grid : int, default 4
        Side of the grid that each layer is pooled to; a smaller map is kept as it is.

    Raises
    ------
    UserError
        If the network is dense or conditional, or a number does not fit.

    Notes
    -----
    Paper, section 5.1: all layers, a 4x4 grid: 28,672 features for the authors' ImageNet network
    (recipe paper-imagenet32), 7,168 for their SVHN network (paper-svhn).
    """

    def __init__(
        self,
        discriminator: AnyDiscriminator,
        *,
        layers: Sequence[int] | None = None,
        grid: int = 4,
    ) -> None:
        network = check_convolutional(discriminator)
        self._network = network.eval().to(memory_format=torch.channels_last)
        self.layers = _check_layers(layers, network.num_layers)
        if grid < 1:
            raise UserError(f"the grid must be at least 1, but it is {grid}")
        self.grid = grid

    def __call__(self, images_u8: np.ndarray) -> np.ndarray:
        """Return float32 features, n x f.

        Raises
        ------
        UserError
            If the images are of another size, or grey where the network reads colour.
        """
        _check_images(self._network, images_u8)
        return in_batches(self._read, images_u8, batch_size=BATCH)

    def _read(self, x_u8: np.ndarray) -> Tensor:
        maps = self._network.features(_input(self._network, x_u8))
        parts = [_pooled(maps[layer - 1], self.grid).flatten(1) for layer in self.layers]
        return torch.cat(parts, 1)


class LayerTable:
    """Features of every layer at the finest grid; fewer and coarser ones are cut from them.

    The maximum over a cell is the maximum over the maxima of its parts, so that nothing is read
    twice.

    Parameters
    ----------
    network : LayeredDiscriminator
        As for `ConvFeatures`.
    images_u8 : ndarray
        What it reads.
    grid : int
        Side of the finest grid.

    Raises
    ------
    UserError
        If the grid is below 1, or a layer's map cannot be divided into it.
    """

    def __init__(
        self,
        network: LayeredDiscriminator,
        images_u8: np.ndarray,
        grid: int,
        *,
        progress: bool = False,
    ) -> None:
        shape = (1, network.config.num_channels, *network.config.image_size)
        with torch.no_grad():
            maps = network.features(torch.zeros(shape))
        if grid < 1 or any(side % grid for h in maps for side in h.shape[2:] if side > grid):
            raise UserError(
                f"the network's layers cannot be divided into a grid of {grid} x {grid}"
            )
        self._shapes = [(h.shape[1], *(min(grid, side) for side in h.shape[2:])) for h in maps]
        self._ends = np.cumsum([np.prod(shape) for shape in self._shapes])
        self.grid = grid
        self._table_nf = compute_features(
            ConvFeatures(network, grid=grid), images_u8, progress=progress
        )

    def cut(self, layers: Sequence[int] = (), grid: int | None = None) -> np.ndarray:
        """Return what `ConvFeatures` gives for these layers (none: all) and this grid.

        Raises
        ------
        UserError
            If there is no such layer, one is named twice, or the grid does not divide the finest
            one.
        """
        grid = self.grid if grid is None else grid
        layers = _check_layers(layers or None, len(self._shapes))
        if grid < 1 or self.grid % grid:
            raise UserError(f"the grid must divide {self.grid}, but it is {grid}")
        if grid == self.grid and layers == _check_layers(None, len(self._shapes)):
            return self._table_nf
        return np.concatenate([self._layer(layer - 1, grid) for layer in layers], 1)

    def _layer(self, index: int, grid: int) -> np.ndarray:
        shape, end = self._shapes[index], self._ends[index]
        part_nf = np.ascontiguousarray(self._table_nf[:, end - np.prod(shape) : end])
        return _pooled(torch.from_numpy(part_nf).unflatten(1, shape), grid).flatten(1).numpy()


def averaged_over_views(features: FeatureFunction, shift: int, *, mirror: bool) -> FeatureFunction:
    """Return features that are means over views of an image: an extension of ours, not the paper's.

    The views are the image and its shifts by ``shift`` pixels up, down, left and right, where the
    edge is repeated; with ``mirror`` also the mirror images of all five.
    """
    require(shift >= 1, "shift", shift, "at least 1 pixel")

    def read(images_u8: np.ndarray) -> np.ndarray:
        views = list(_views(images_u8, shift))
        if mirror:
            views += [view_u8[..., ::-1] for view_u8 in views]
        total_nf = features(views[0])
        for view_u8 in views[1:]:
            total_nf += features(view_u8)
        return total_nf / np.float32(len(views))

    return read


def _views(images_u8: np.ndarray, shift: int) -> Iterator[np.ndarray]:
    height, width = images_u8.shape[2:]
    margins = ((0, 0), (0, 0), (shift, shift), (shift, shift))
    padded_u8 = np.pad(images_u8, margins, mode="edge")
    for down, right in ((0, 0), (shift, 0), (-shift, 0), (0, shift), (0, -shift)):
        top, left = shift - down, shift - right
        yield padded_u8[:, :, top : top + height, left : left + width]


def _check_layers(layers: Sequence[int] | None, total: int) -> tuple[int, ...]:
    chosen = tuple(range(1, total + 1)) if layers is None else tuple(layers)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= {*range(1, total + 1)}:
        raise UserError(f"layers must be different numbers from 1 to {total}, but got {chosen}")
    return chosen


def _check_images(network: LayeredDiscriminator, images_u8: np.ndarray) -> None:
    wanted = (network.config.num_channels, *network.config.image_size)
    got = tuple(images_u8.shape[1:])
    if images_u8.dtype != np.uint8 or got != wanted:
        grey = got == (1, *wanted[1:])
        hint = "load the set with channels=3" if grey else "load the set at that size"
        raise UserError(
            f"the network reads uint8 images of shape {wanted}, but got {images_u8.dtype} {got}: "
            f"{hint}"
        )


def _input(network: LayeredDiscriminator, images_u8: np.ndarray) -> Tensor:
    # channels innermost, which is faster
    return network_input(network, images_u8).contiguous(memory_format=torch.channels_last)


def _pooled(h_bchw: Tensor, grid: int) -> Tensor:
    height, width = h_bchw.shape[2:]
    if height % grid or width % grid:
        return F.adaptive_max_pool2d(h_bchw, (min(grid, height), min(grid, width)))
    return F.max_pool2d(h_bchw, (height // grid, width // grid))


@torch.no_grad()
def batch_statistics(
    discriminator: AnyDiscriminator, images_u8: np.ndarray, *, progress: bool = False
) -> Statistics:
    """Average batch norm's statistics over minibatches of 128 training images.

    The network is left as it was. An incomplete last minibatch is left out, unless it is the only
    one.

    Notes
    -----
    As the authors' SVHN script does: while they are gathered, every layer is normalised by its own
    minibatch, and the variance is that of the minibatch itself, not an estimate of the
    population's.
    """
    network = copy.deepcopy(check_convolutional(discriminator)).to(
        memory_format=torch.channels_last
    )
    _check_images(network, images_u8)
    norms, size, counts = batch_norms(network), min(BATCH, len(images_u8)), {}

    def count(norm: nn.Module, given: tuple[Tensor]) -> None:
        counts[norm] = given[0].numel() // given[0].shape[1]

    for norm in norms:
        norm.register_forward_pre_hook(count)
    with measuring_batch_norm(norms):
        starts = range(0, len(images_u8) - size + 1, size)
        for start in tqdm(starts, unit="batch", disable=not progress):
            network.features(_input(network, images_u8[start : start + size]))
    return [
        (norm.running_mean, norm.running_var * (1 - 1 / counts[norm])) for norm in norms
    ]  # PyTorch keeps the population's estimate, larger by n / (n - 1)


def with_statistics(
    discriminator: AnyDiscriminator, statistics: Statistics
) -> LayeredDiscriminator:
    """Return a copy of the network whose batch norm uses these statistics from now on."""
    network = copy.deepcopy(check_convolutional(discriminator)).eval()
    for norm, (mean, variance) in zip(batch_norms(network), statistics, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return network


# ---------------------------------------------------------------- K-means and pixels


def pixel_features(images_u8: np.ndarray) -> np.ndarray:
    """Return pixels in [-1, 1], float32, n x f: what the discriminator itself is shown."""
    return images_u8.reshape(len(images_u8), -1).astype(np.float32) / 127.5 - 1


class KMeansFeatures:
    """Describe images by how near their patches lie to learnt centroids.

    Parameters
    ----------
    num_centroids : int, default 1200
        k; each region of the pooling has so many numbers: an image has 4,800 by default, as in the
        paper's Table 1.
    patch_size : int, default 6
        Side of a patch in pixels.
    grid : int, default 2
        g: the positions of patches are averaged over g x g regions; 2 are quadrants.
    num_patches : int, default 400000
        Random patches that the whitening and the centroids are learnt from.
    seed : int, default 0
        Of the patches and the centroids.

    Raises
    ------
    UserError
        If a number is below what it can be.

    Notes
    -----
    Coates, Ng and Lee (2011); Coates and Ng (2012). Theirs are the contrast normalisation, the
    whitening, the triangle activation, the quadrants and the number of patches; the K-means in
    batches is our choice. The 4,800 "feature units" of Table 1's row may be centroids, with four
    features each.
    """

    def __init__(
        self,
        num_centroids: int = 1_200,
        *,
        patch_size: int = 6,
        grid: int = 2,
        num_patches: int = 400_000,
        seed: int = 0,
    ) -> None:
        if min(num_centroids, patch_size) < 2 or grid < 1 or num_patches < num_centroids:
            raise UserError(
                "K-means features need at least 2 centroids, patches of 2 pixels, a grid of 1 and "
                f"as many patches as centroids, but got {num_centroids}, {patch_size}, {grid} and "
                f"{num_patches}"
            )
        self.num_centroids, self.patch_size, self.grid = num_centroids, patch_size, grid
        self.num_patches, self.seed = num_patches, seed
        self._shape: tuple[int, ...] | None = None

    def fit(self, images_u8: np.ndarray) -> "KMeansFeatures":
        """Learn whitening, centroids and scale from training images, and return itself.

        Raises
        ------
        UserError
            If the images have another type or are too small.
        """
        size, is_u8 = self.patch_size, images_u8.dtype == np.uint8 and images_u8.ndim == 4
        if not is_u8 or min(images_u8.shape[2:]) < size + self.grid - 1:
            raise UserError(
                "K-means features need uint8 images, n x c x h x w, larger than a patch; got "
                f"{images_u8.dtype}, {images_u8.shape}"
            )
        rng, (num, _, height, width) = np.random.default_rng(self.seed), images_u8.shape
        rows = np.sort(rng.integers(num, size=self.num_patches))  # sorted: a memory map likes it
        top = rng.integers(height - size + 1, size=self.num_patches)
        left = rng.integers(width - size + 1, size=self.num_patches)
        windows = np.lib.stride_tricks.sliding_window_view(images_u8, (size, size), (2, 3))
        patches_pd = normalise_contrast(torch.from_numpy(windows[rows, :, top, left]).flatten(1))
        self.mean_d, self.whiten_dd = zca_whitening(patches_pd)
        kmeans = MiniBatchKMeans(
            self.num_centroids, batch_size=4_096, n_init=1, max_iter=20, random_state=self.seed
        )
        kmeans.fit(self._white(patches_pd).numpy())
        self.centroids_dk = torch.from_numpy(kmeans.cluster_centers_.T.copy()).float()
        self._squares_k = self.centroids_dk.square().sum(0)
        self._shape, self.mean_f, self.std_f = images_u8.shape[1:], np.float32(0), np.float32(1)
        some_u8 = images_u8[np.sort(rng.permutation(num)[:NUM_SCALED])]
        self.mean_f, self.std_f = mean_and_std(self.transform(some_u8))
        return self

    def transform(self, images_u8: np.ndarray) -> np.ndarray:
        """Return float32 features, n x f, about mean 0 and variance 1 over the training images.

        Raises
        ------
        UserError
            If `fit` was not called, or the images have another type or shape than it met.
        """
        if self._shape is None:
            raise UserError(
                "these K-means features have no centroids yet: call fit on training images first"
            )
        if images_u8.dtype != np.uint8 or images_u8.shape[1:] != self._shape:
            raise UserError(
                f"these K-means features read uint8 images of n x {self._shape}; got "
                f"{images_u8.dtype}, {images_u8.shape}"
            )
        features_nf = in_batches(self._read, images_u8, batch_size=32)
        features_nf -= self.mean_f
        features_nf /= self.std_f
        return features_nf

    def _white(self, patches_pd: Tensor) -> Tensor:
        return (patches_pd - self.mean_d) @ self.whiten_dd

    def _read(self, images_u8: np.ndarray) -> Tensor:
        """Return how near the centroids are on average in each region, b x f."""
        x_u8 = torch.from_numpy(np.array(images_u8))
        height, width = (side - self.patch_size + 1 for side in x_u8.shape[2:])
        patches_bpd = F.unfold(x_u8.float(), self.patch_size).transpose(1, 2)
        patches_bpd = self._white(normalise_contrast(patches_bpd))
        down_gh, across_gw = (_regions(side, self.grid) for side in (height, width))
        # Row by row of positions: the distances to thousands of centroids then stay in the
        # processor's cache.
        rows = patches_bpd.flatten(0, 1).split(width)
        near_gk = [across_gw @ self._near(patches_wd) for patches_wd in rows]
        near_bhgk = torch.stack(near_gk).unflatten(0, (len(x_u8), height))
        return torch.einsum("gh,bhek->bkge", down_gh, near_bhgk).flatten(1)

    def _near(self, patches_pd: Tensor) -> Tensor:
        """Return how much nearer than on average each centroid is, 0 if it is farther: p x k."""
        distance_pk = torch.addmm(self._squares_k, patches_pd, self.centroids_dk, alpha=-2)
        distance_pk.add_(patches_pd.square().sum(1, keepdim=True)).clamp_min_(0).sqrt_()
        return (distance_pk.mean(1, keepdim=True) - distance_pk).relu_()


def _regions(side: int, grid: int) -> Tensor:
    """Return a g x side matrix that averages positions over regions, which may overlap."""
    return F.adaptive_avg_pool1d(torch.eye(side), grid).T


def normalise_contrast(patches: Tensor) -> Tensor:
    """Bring patches of pixels 0..255, each along the last axis, to mean 0 and about variance 1.

    10 is added to the variance, so that noise in a flat patch is not blown up; a flat patch becomes
    0.
    """
    patches = patches.float()
    variance, mean = torch.var_mean(patches, -1, keepdim=True, correction=0)
    return (patches - mean) / (variance + 10).sqrt()


def zca_whitening(patches_pd: Tensor, eps: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the mean and the symmetric matrix that take away nearly all correlations.

    ``eps`` is added to the variance along each principal axis; what lies far below it is not blown
    up.
    """
    mean_d = patches_pd.mean(0)
    variance_d, axes_dd = torch.linalg.eigh((patches_pd - mean_d).T.double().cov(correction=0))
    return mean_d, (axes_dd / (variance_d + eps).sqrt() @ axes_dd.T).float()


def mean_and_std(x_nf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and standard deviation, at least a hundredth of the largest.

    Divided by these, what hardly ever moves is not blown up.
    """
    mean_f, std_f = x_nf.mean(0), x_nf.std(0)
    return mean_f, np.maximum(std_f, 0.01 * std_f.max() or 1)


# ---------------------------------------------------------------- many images


def compute_features(
    features: FeatureFunction,
    images_u8: np.ndarray,
    *,
    path: Path | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Compute features of any number of images, in memory or memory-mapped, a thousand at a time.

    Parameters
    ----------
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
            portion_u8 = images_u8[start : start + PORTION]
            found = features(portion_u8)
            if found.dtype != np.float32 or found.ndim != 2 or len(found) != len(portion_u8):
                raise UserError(
                    f"features must be float32, one row an image, but are {found.dtype} "
                    f"{found.shape}"
                )
            if table is None:
                shape = len(images_u8), found.shape[1]
                if part:
                    table = np.lib.format.open_memmap(part, "w+", np.float32, shape)
                    reserve(part)
                else:
                    table = np.empty(shape, np.float32)
            table[start : start + PORTION] = found
        if not part:
            return table
        table.flush()
        os.replace(part, path)
    except BaseException as error:
        if part:
            part.unlink(missing_ok=True)
        if part and isinstance(error, OSError):
            raise UserError(
                f"the features cannot be kept in {path}: {error.strerror or error}"
            ) from error
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


# ---------------------------------------------------------------- named extractors, for distances


RULER = "efficientnet-lite0"
"""The features that rank damaged pictures as the eye does: see `dcgan_lib.evaluation.ruler`."""
PROBE_EXTRACTORS = {
    "mnist-classifier": "probe-mnist",
    "street-digits-classifier": "probe-street-digits",
    "faces-probe": "probe-faces",
    "rooms-probe": "probe-rooms",
    "portraits-probe": "probe-portraits",
}
FEATURES_OF = dict.fromkeys(
    (
        "mnist",
        "faces64",
        "rooms",
        "bedrooms64",
        "portraits",
        "street-digits",
        "cifar10",
        "tinyimagenet32",
        "svhn10k",
    ),
    RULER,
)
"""The features that distances to an image set are measured in: they pass its `ruler.rank_test`, but
for a slight blur of svhn10k, which they hardly see."""
PROBE_FEATURES_OF = {
    "mnist": "mnist-classifier",
    "faces64": "faces-probe",
    "rooms": "rooms-probe",
    "bedrooms64": "rooms-probe",
    "portraits": "portraits-probe",
    "street-digits": "street-digits-classifier",
}
"""The features that neighbours, walks and single classes are measured in; distances never are,
because these rank blurred and noisy pictures beside real ones."""
BORROWED_FEATURES = frozenset({"bedrooms64"})
"""Sets in features learnt on another set: distances may be compared, attributes mean nothing."""
EFFICIENTNET_SIDE = 96
"""What pictures of any size are resized to, our choice: ImageNet's 224 costs five times as much."""
CPU_PORTION = 16
"""Pictures at a time on a CPU: the wide first layers then stay in its cache."""
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SOURCE = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
)


class FeatureExtractor(nn.Module):
    """Turn pixels into feature vectors of ``num_features``; made by `get_features`.

    Every number that is measured through it is reported under its ``name``. It never leaves
    evaluation mode.
    """

    def __init__(
        self,
        name: str,
        num_features: int,
        network: nn.Module,
        transform: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.name, self.num_features = name, num_features
        self.network, self._transform = network, transform
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x_u8: Tensor) -> Tensor:
        """Return float32 features, shape (n, num_features), of uint8 images, n x c x h x w."""
        if x_u8.dtype != torch.uint8 or x_u8.dim() != 4:
            raise UserError(
                f"{self.name} reads a uint8 tensor, n x c x h x w, but got {x_u8.dtype} of shape "
                f"{tuple(x_u8.shape)}"
            )
        return self._transform(x_u8).float()

    def extract(self, images_u8: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Return float32 features, n x num_features, of any number of uint8 images."""
        return in_batches(
            lambda part: self(torch.from_numpy(np.array(part))), images_u8, batch_size=batch_size
        )


def get_features(name: str) -> FeatureExtractor:
    """Make a feature extractor by name.

    Parameters
    ----------
    name : str
        "efficientnet-lite0": the 1,280 numbers below the classifier of an ImageNet network, which
        reads pictures of any size, grey or RGB; its weights come in a package of their own.
        "mnist-classifier", "street-digits-classifier", "faces-probe", "rooms-probe" or
        "portraits-probe": the last hidden layer of the committed probe, 128 numbers. "inception":
        the 2,048 numbers of the Inception network that published FIDs are measured with (grey
        images are repeated to RGB); its weights (95 MB) are not part of this project.

    Raises
    ------
    UserError
        If the name is unknown, or its weights are not there; the message says how to get them.
    """
    if name == RULER:
        return _efficientnet()
    if name == "inception":
        return _inception()
    if name not in PROBE_EXTRACTORS:
        known = ", ".join([RULER, *PROBE_EXTRACTORS, "inception"])
        raise UserError(f"there are no features called {name!r}: choose from {known}")
    probe = load_probe(PROBE_EXTRACTORS[name])
    return probe_features(probe, name, framed=name == "mnist-classifier")


def probe_features(probe: Probe, name: str, *, framed: bool = False) -> FeatureExtractor:
    """Use a probe's last hidden layer as features, under a name of one's own.

    ``framed``: also take images up to 4 pixels a side smaller, and put a black frame around them
    (28x28 digits, for a probe that reads 32x32).
    """

    def transform(x_u8: Tensor) -> Tensor:
        if framed:
            x_u8 = frame(x_u8, probe.config.image_size)
        probe.check_images(tuple(x_u8.shape), True)
        return probe.features(probe.scale(x_u8))

    return FeatureExtractor(name, probe.config.num_features, probe, transform)


def _efficientnet() -> FeatureExtractor:
    network = load_efficientnet_lite0()

    def transform(x_u8: Tensor) -> Tensor:
        device = next(network.parameters()).device
        found = []
        for part_u8 in x_u8.split(CPU_PORTION if device.type == "cpu" else BATCH):
            x_bchw = part_u8.to(device).float().expand(-1, 3, -1, -1)
            side = (EFFICIENTNET_SIDE, EFFICIENTNET_SIDE)
            x_bchw = F.interpolate(x_bchw, side, mode="bilinear", antialias=True)
            x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
            found.append(network((x_bchw - 127) / 128))  # as the network was trained
        return torch.cat(found)

    return FeatureExtractor(RULER, NUM_EFFICIENTNET, network, transform)


def _inception() -> FeatureExtractor:
    from torchmetrics.image.fid import NoTrainInceptionV3  # torch-fidelity is heavy to import

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(_inception_weights()))

    def transform(x_u8: Tensor) -> Tensor:
        return network(x_u8.expand(-1, 3, -1, -1).to(network.fc.weight.device))

    return FeatureExtractor("inception", 2048, network, transform)


def _inception_weights() -> Path:
    """Find the published weights and make sure that they are those, since the file is a pickle."""
    folders = (data_root(), Path(torch.hub.get_dir()) / "checkpoints")
    for path in (folder / INCEPTION_FILE for folder in folders):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not digest.startswith(INCEPTION_FILE.rpartition("-")[2].removesuffix(".pth")):
                raise UserError(
                    f"{path} is not the published Inception network (SHA-256 {digest[:8]}): "
                    "fetch it again"
                )
            return path
    raise UserError(
        f"the Inception weights are missing: download {INCEPTION_SOURCE} into {folders[0]}, "
        f"or measure with another extractor: {', '.join(PROBE_EXTRACTORS)}"
    )
