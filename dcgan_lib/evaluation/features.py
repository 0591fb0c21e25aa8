"""Named feature extractors: a metric always says through whose eyes it looked.

Axes: n images, c channels, h x w pixels, d features; ``x_u8`` pixels 0..255.
"""

import copy
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dcgan_lib.config import recipe as recipe_named
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Probe, frame, load_probe
from dcgan_lib.models.baselines import AnyDiscriminator
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.sampling import from_u8
from dcgan_lib.paths import data_root
from dcgan_lib.training.checkpoints import find_run, load_discriminator, untrained_discriminator

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
        self._network = (
            check_convolutional(discriminator).eval().to(memory_format=torch.channels_last)
        )
        total = len(self._network.convs)
        self.layers = tuple(range(1, total + 1)) if layers is None else tuple(layers)
        if (
            not self.layers
            or len(set(self.layers)) < len(self.layers)
            or not set(self.layers) <= {*range(1, total + 1)}
        ):
            raise UserError(
                f"layers must be different numbers from 1 to {total}, but got {self.layers}"
            )
        if grid < 1 or batch_size < 1:
            raise UserError(
                f"grid and batch_size must be at least 1, but got {grid} and {batch_size}"
            )
        self.grid, self._batch_size = grid, batch_size

    @torch.inference_mode()
    def __call__(self, images_u8: np.ndarray) -> np.ndarray:
        """Return float32 features, n x f.

        Raises
        ------
        UserError
            If the images are of another size, or grey where the network reads colour.
        """
        parts = [
            self._read(x_bchw) for x_bchw in _batches(self._network, images_u8, self._batch_size)
        ]
        return torch.cat(parts).cpu().numpy()

    def _read(self, x_bchw: Tensor) -> Tensor:
        maps = self._network.features(x_bchw)
        return torch.cat(
            [_pooled(maps[layer - 1], self.grid).flatten(1) for layer in self.layers], 1
        )


def check_convolutional(discriminator: AnyDiscriminator) -> Discriminator:
    """Return the network if it has convolutional layers that read images alone.

    Raises
    ------
    UserError
        If it is dense or conditional.
    """
    if not isinstance(discriminator, Discriminator):
        raise UserError(
            "these features are convolutional layers, but the network has only fully connected ones"
        )
    if classes := discriminator.config.num_classes:
        raise UserError(
            f"features must not know the label, but this network reads it ({classes} classes)"
        )
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
        hint = (
            "load the set with channels=3"
            if got == (1, *wanted[1:])
            else "load the set at that size"
        )
        raise UserError(
            f"the network reads uint8 images of shape {wanted}, but got {images_u8.dtype} {got}: {hint}"
        )
    for start in range(0, len(images_u8), batch_size):
        x_u8 = torch.from_numpy(np.array(images_u8[start : start + batch_size]))
        yield from_u8(x_u8.to(device), config).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def batch_statistics(
    discriminator: AnyDiscriminator, images_u8: np.ndarray, *, progress: bool = False
) -> Statistics:
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
    network = (
        copy.deepcopy(check_convolutional(discriminator))
        .train()
        .to(memory_format=torch.channels_last)
    )
    norms = _norms(network)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    size = min(BATCH, len(images_u8))
    whole = images_u8[: len(images_u8) // size * size]
    for x_bchw in tqdm(
        _batches(network, whole, size), total=len(whole) // size, unit="batch", disable=not progress
    ):
        maps = network.features(x_bchw)
    counts = [h.numel() // h.shape[1] for h in maps[1:]]
    return [
        (norm.running_mean, norm.running_var * (1 - 1 / count))
        for norm, count in zip(norms, counts, strict=True)
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
            if found.dtype != np.float32 or found.shape != (
                len(table[start : start + PORTION]),
                *table.shape[1:],
            ):
                raise UserError(
                    f"features must be float32, one row an image, but are {found.dtype} {found.shape}"
                )
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


NUM_SCALED = 5_000
"""Training images that the features' mean and spread are measured on, at most."""


class KMeansFeatures:
    """Describe images by how near their patches lie to learnt centroids.

    Parameters
    ----------
    num_centroids : int, default 1200
        k; each region of the pooling has so many numbers.
    patch_size : int, default 6
        Side of a patch in pixels.
    grid : int, default 2
        g: the positions of patches are averaged over g x g regions; 2 are quadrants.
    num_patches : int, default 400000
        Random patches that the whitening and the centroids are learnt from.
    seed : int, default 0
        Of the patches and the centroids.

    Attributes
    ----------
    num_features : int
        f, the length of an image's vector: 4,800 by default, as in the paper's Table 1.

    Raises
    ------
    UserError
        If a number is below what it can be.

    Notes
    -----
    Coates, Ng and Lee (2011); Coates and Ng (2012). Theirs are the contrast normalisation, the whitening, the
    triangle activation, the quadrants and the number of patches; the K-means in batches is our choice. The 4,800
    "feature units" of Table 1's row may be centroids, with four features each.
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
            given = f"{num_centroids}, {patch_size}, {grid} and {num_patches}"
            raise UserError(
                f"K-means features need at least 2 centroids, patches of 2 pixels, a grid of 1 and as many patches as "
                f"centroids, but got {given}"
            )
        self.num_centroids, self.patch_size, self.grid = num_centroids, patch_size, grid
        self.num_patches, self.seed, self.num_features = (
            num_patches,
            seed,
            grid * grid * num_centroids,
        )
        self._shape: tuple[int, ...] | None = None

    def fit(self, images_u8: np.ndarray) -> "KMeansFeatures":
        """Learn the whitening, the centroids and the features' scale from training images.

        Parameters
        ----------
        images_u8 : ndarray
            uint8, n x c x h x w; labels are not used.

        Returns
        -------
        KMeansFeatures
            Itself.

        Raises
        ------
        UserError
            If the images have another type or are too small.
        """
        size = self.patch_size
        if (
            images_u8.dtype != np.uint8
            or images_u8.ndim != 4
            or min(images_u8.shape[2:]) < size + self.grid - 1
        ):
            came = f"{images_u8.dtype}, {images_u8.shape}"
            raise UserError(
                f"K-means features need uint8 images, n x c x h x w, larger than a patch; got {came}"
            )
        rng, (num, _, height, width) = np.random.default_rng(self.seed), images_u8.shape
        rows = np.sort(rng.integers(num, size=self.num_patches))  # sorted: a memory map likes it
        top, left = (
            rng.integers(side - size + 1, size=self.num_patches) for side in (height, width)
        )
        windows = np.lib.stride_tricks.sliding_window_view(images_u8, (size, size), (2, 3))
        patches_pd = normalise_contrast(torch.from_numpy(windows[rows, :, top, left]).flatten(1))
        self._mean_d, self._whiten_dd = zca_whitening(patches_pd)
        kmeans = MiniBatchKMeans(
            self.num_centroids, batch_size=4_096, n_init=1, max_iter=20, random_state=self.seed
        )
        kmeans.fit(self._white(patches_pd).numpy())
        self._centroids_dk = torch.from_numpy(kmeans.cluster_centers_.T.copy()).float()
        self._squares_k = self._centroids_dk.square().sum(0)
        self._shape, self._mean_f, self._std_f = images_u8.shape[1:], np.float32(0), np.float32(1)
        plain = self.transform(images_u8[np.sort(rng.permutation(num)[:NUM_SCALED])])
        self._mean_f, self._std_f = mean_and_spread(plain)
        return self

    def transform(self, images_u8: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the features of images.

        Parameters
        ----------
        images_u8 : ndarray
            uint8, n x c x h x w, of the shape that `fit` met; a memory map is read piece by piece.
        batch_size : int, default 32
            Images at a time; it does not change the answer beyond rounding.

        Returns
        -------
        ndarray
            float32, (n, f): about mean 0 and variance 1 over the training images.

        Raises
        ------
        UserError
            If `fit` was not called, or the images have another type or shape.
        """
        if self._shape is None:
            raise UserError(
                "these K-means features have no centroids yet: call fit on training images first"
            )
        if images_u8.dtype != np.uint8 or images_u8.shape[1:] != self._shape:
            came = f"{images_u8.dtype}, {images_u8.shape}"
            raise UserError(
                f"these K-means features read uint8 images of n x {self._shape}; got {came}"
            )
        features_nf = np.empty((len(images_u8), self.num_features), np.float32)
        for start in range(0, len(images_u8), batch_size):
            x_u8 = torch.from_numpy(np.array(images_u8[start : start + batch_size]))
            pooled_bkgg = self._pooled(x_u8)
            features_nf[start : start + batch_size] = pooled_bkgg.flatten(1).numpy()
        features_nf -= self._mean_f
        features_nf /= self._std_f
        return features_nf

    def _white(self, patches_pd: Tensor) -> Tensor:
        return (patches_pd - self._mean_d) @ self._whiten_dd

    def _pooled(self, x_u8: Tensor) -> Tensor:
        """Return how near the centroids are on average in each region, b x k x g x g."""
        height, width = (side - self.patch_size + 1 for side in x_u8.shape[2:])
        patches_bpd = self._white(
            normalise_contrast(F.unfold(x_u8.float(), self.patch_size).transpose(1, 2))
        )
        down_gh, across_gw = (_regions(side, self.grid) for side in (height, width))
        # Row by row of positions: the distances to thousands of centroids then stay in the processor's cache.
        rows = [
            across_gw @ self._near(patches_wd)
            for patches_wd in patches_bpd.flatten(0, 1).split(width)
        ]
        near_bhgk = torch.stack(rows).unflatten(0, (len(x_u8), height))
        return torch.einsum("gh,bhek->bkge", down_gh, near_bhgk)

    def _near(self, patches_pd: Tensor) -> Tensor:
        """Return how much nearer than on average each centroid is to a patch, 0 if it is farther: p x k."""
        squares_pk = torch.addmm(self._squares_k, patches_pd, self._centroids_dk, alpha=-2)
        distance_pk = (
            squares_pk.add_(patches_pd.square().sum(1, keepdim=True)).clamp_min_(0).sqrt_()
        )
        return (distance_pk.mean(1, keepdim=True) - distance_pk).relu_()


def _regions(side: int, grid: int) -> Tensor:
    """Return what averages positions over regions: a g x side matrix; regions overlap where they must."""
    return F.adaptive_avg_pool1d(torch.eye(side), grid).T


def normalise_contrast(patches: Tensor) -> Tensor:
    """Bring patches of pixels 0..255 to mean 0 and about variance 1 each; a flat patch becomes 0.

    Parameters
    ----------
    patches : Tensor
        Any type; the last axis holds a patch's numbers.

    Notes
    -----
    10 is added to the variance, so that noise in a flat patch is not blown up.
    """
    patches = patches.float()
    variance, mean = torch.var_mean(patches, -1, keepdim=True, correction=0)
    return (patches - mean) / (variance + 10).sqrt()


def zca_whitening(patches_pd: Tensor, eps: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and the symmetric matrix (d, d) after which patches have nearly no correlations.

    Parameters
    ----------
    patches_pd : Tensor
        float32, (p, d).
    eps : float, default 0.1
        Added to the variance along each principal axis; what lies far below it is not blown up.
    """
    mean_d = patches_pd.mean(0)
    variance_d, axes_dd = torch.linalg.eigh((patches_pd - mean_d).T.double().cov(correction=0))
    return mean_d, (axes_dd / (variance_d + eps).sqrt() @ axes_dd.T).float()


PROBE_EXTRACTORS = {
    "mnist-classifier": "probe-mnist",
    "street-digits-classifier": "probe-street-digits",
    "faces-probe": "probe-faces",
    "rooms-probe": "probe-rooms",
    "portraits-probe": "probe-portraits",
}
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SOURCE = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
)


class FeatureExtractor(nn.Module):
    """Turn pixels into feature vectors; made by `get_features`.

    Attributes
    ----------
    name : str
        Under which every number measured through it is reported.
    num_features : int
        Length of a vector.
    """

    def __init__(
        self,
        name: str,
        num_features: int,
        network: nn.Module,
        transform: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.name, self.num_features, self.network, self._transform = (
            name,
            num_features,
            network,
            transform,
        )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x_u8: Tensor) -> Tensor:
        """Return float32 features, shape (n, num_features), of uint8 images, n x c x h x w."""
        if not isinstance(x_u8, Tensor) or x_u8.dtype != torch.uint8 or x_u8.dim() != 4:
            came = getattr(x_u8, "dtype", type(x_u8).__name__), tuple(getattr(x_u8, "shape", ()))
            raise UserError(
                f"{self.name} reads a uint8 tensor, n x c x h x w, but got {came[0]} of shape {came[1]}"
            )
        return self._transform(x_u8).float()

    def extract(self, images_u8: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Return float32 features, shape (n, num_features), of any number of images.

        Parameters
        ----------
        images_u8 : ndarray
            uint8, n x c x h x w; a memory map is read piece by piece.
        batch_size : int, default 256
            Images at a time; it does not change the answer beyond rounding.
        """
        parts = [
            images_u8[start : start + batch_size] for start in range(0, len(images_u8), batch_size)
        ]
        return np.concatenate(
            [self(torch.from_numpy(np.array(part))).cpu().numpy() for part in parts]
        )


def get_features(name: str) -> FeatureExtractor:
    """Make a feature extractor by name.

    Parameters
    ----------
    name : str
        "mnist-classifier", "street-digits-classifier", "faces-probe", "rooms-probe" or
        "portraits-probe": the last hidden layer of the committed probe, 128 numbers. "inception":
        the 2,048 numbers of the Inception network that published FIDs are measured with (grey images
        are repeated to RGB); its weights (95 MB) are not part of this project.

    Raises
    ------
    UserError
        If the name is unknown, or its weights are not there; the message says how to get them.
    """
    if name == "inception":
        return _inception()
    if name not in PROBE_EXTRACTORS:
        known = ", ".join([*PROBE_EXTRACTORS, "inception"])
        raise UserError(f"there are no features called {name!r}: choose from {known}")
    probe = load_probe(PROBE_EXTRACTORS[name])
    return probe_features(probe, name, framed=name == "mnist-classifier")


def probe_features(probe: Probe, name: str, *, framed: bool = False) -> FeatureExtractor:
    """Use a probe's last hidden layer as features, under a name of one's own.

    Parameters
    ----------
    probe : Probe
        Any; it is used in evaluation mode.
    name : str
        Under which numbers are reported.
    framed : bool, default False
        Also take images up to 4 pixels a side smaller, and put a black frame around them: 28x28
        digits, for a probe that reads 32x32.
    """
    return FeatureExtractor(
        name, probe.config.num_features, probe, partial(_through_probe, probe, framed)
    )


def _through_probe(probe: Probe, framed: bool, x_u8: Tensor) -> Tensor:
    if framed:
        x_u8 = frame(x_u8, probe.config.image_size)
    probe.check_images(tuple(x_u8.shape), True)
    return probe.features(probe.scale(x_u8))


def _inception() -> FeatureExtractor:
    from torchmetrics.image.fid import NoTrainInceptionV3  # torch-fidelity is heavy to import

    path = _inception_weights()
    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))

    def transform(x_u8: Tensor) -> Tensor:
        rgb_u8 = x_u8 if x_u8.shape[1] == 3 else x_u8.expand(-1, 3, -1, -1)
        return network(rgb_u8.to(network.fc.weight.device))

    return FeatureExtractor("inception", 2048, network, transform)


def _inception_weights() -> Path:
    """Find the published weights and make sure that they are those, since the file is a pickle."""
    places = [
        data_root() / INCEPTION_FILE,
        Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE,
    ]
    for path in places:
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not digest.startswith(INCEPTION_FILE.rpartition("-")[2].removesuffix(".pth")):
                raise UserError(
                    f"{path} is not the published Inception network (SHA-256 {digest[:8]}): fetch it again"
                )
            return path
    raise UserError(
        f"the Inception weights are missing: download {INCEPTION_SOURCE} into {places[0].parent}, "
        f"or measure with another extractor: {', '.join(PROBE_EXTRACTORS)}"
    )


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
        return Source(
            name, None, (untrained_discriminator(recipe_named(recipe).config.model, seed),)
        )
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
        " + ".join(source.label for source in sources),
        None,
        sum((source.networks for source in sources), ()),
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

    def __init__(
        self, network: Discriminator, images_u8: np.ndarray, grid: int, *, progress: bool = False
    ) -> None:
        with torch.no_grad():
            maps = network.features(
                torch.zeros(1, network.config.num_channels, *network.config.image_size)
            )
        if grid < 1 or any(side % grid for h in maps for side in h.shape[2:] if side > grid):
            raise UserError(
                f"the network's layers cannot be divided into a grid of {grid} x {grid}"
            )
        self._shapes = [(h.shape[1], *(min(grid, side) for side in h.shape[2:])) for h in maps]
        self._ends = np.cumsum([np.prod(shape) for shape in self._shapes])
        self.grid, self.num_layers = grid, len(maps)
        self._table_nf = compute_features(
            ConvFeatures(network, grid=grid), images_u8, progress=progress
        )

    def cut(self, layers: Sequence[int] = (), grid: int | None = None) -> np.ndarray:
        """Return what `ConvFeatures` gives for these layers (none: all) and this grid: float32, n x f.

        Raises
        ------
        UserError
            If there is no such layer, one is named twice, or the grid does not divide the finest one.
        """
        grid, every = self.grid if grid is None else grid, tuple(range(1, self.num_layers + 1))
        layers = tuple(layers) or every
        if (
            not set(layers) <= set(every)
            or len(set(layers)) < len(layers)
            or grid < 1
            or self.grid % grid
        ):
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
