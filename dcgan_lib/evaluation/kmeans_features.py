"""One layer of K-means features, the first row of Table 1: patches, whitening, centroids, pooling.

Axes: n images, c channels, h x w pixels, p patches, d numbers in a patch, k centroids, g x g regions that are pooled,
f = g * g * k features. ``x_u8`` pixels 0..255.
"""

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn import functional as F

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.conv_features import mean_and_spread

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
        self.num_patches, self.seed, self.num_features = num_patches, seed, grid * grid * num_centroids
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
        if images_u8.dtype != np.uint8 or images_u8.ndim != 4 or min(images_u8.shape[2:]) < size + self.grid - 1:
            came = f"{images_u8.dtype}, {images_u8.shape}"
            raise UserError(f"K-means features need uint8 images, n x c x h x w, larger than a patch; got {came}")
        rng, (num, _, height, width) = np.random.default_rng(self.seed), images_u8.shape
        rows = np.sort(rng.integers(num, size=self.num_patches))  # sorted: a memory map likes it
        top, left = (rng.integers(side - size + 1, size=self.num_patches) for side in (height, width))
        windows = np.lib.stride_tricks.sliding_window_view(images_u8, (size, size), (2, 3))
        patches_pd = normalise_contrast(torch.from_numpy(windows[rows, :, top, left]).flatten(1))
        self._mean_d, self._whiten_dd = zca_whitening(patches_pd)
        kmeans = MiniBatchKMeans(self.num_centroids, batch_size=4_096, n_init=1, max_iter=20, random_state=self.seed)
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
            raise UserError("these K-means features have no centroids yet: call fit on training images first")
        if images_u8.dtype != np.uint8 or images_u8.shape[1:] != self._shape:
            came = f"{images_u8.dtype}, {images_u8.shape}"
            raise UserError(f"these K-means features read uint8 images of n x {self._shape}; got {came}")
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
        patches_bpd = self._white(normalise_contrast(F.unfold(x_u8.float(), self.patch_size).transpose(1, 2)))
        down_gh, across_gw = (_regions(side, self.grid) for side in (height, width))
        # Row by row of positions: the distances to thousands of centroids then stay in the processor's cache.
        rows = [across_gw @ self._near(patches_wd) for patches_wd in patches_bpd.flatten(0, 1).split(width)]
        near_bhgk = torch.stack(rows).unflatten(0, (len(x_u8), height))
        return torch.einsum("gh,bhek->bkge", down_gh, near_bhgk)

    def _near(self, patches_pd: Tensor) -> Tensor:
        """Return how much nearer than on average each centroid is to a patch, 0 if it is farther: p x k."""
        squares_pk = torch.addmm(self._squares_k, patches_pd, self._centroids_dk, alpha=-2)
        distance_pk = squares_pk.add_(patches_pd.square().sum(1, keepdim=True)).clamp_min_(0).sqrt_()
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
