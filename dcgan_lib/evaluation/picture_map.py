"""A map of pictures: those with alike features lie next to each other.

Axes: n images, f features. A map has as many cells as there are images.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import euclidean_distances

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval

MOST_COMPONENTS = 50


def arrange(features_nf: np.ndarray, columns: int, *, seed: int = 0) -> np.ndarray:
    """Return the order in which to tile images, row by row, so that alike ones become neighbours.

    Parameters
    ----------
    features_nf : ndarray
        n x f, n a multiple of ``columns`` and at least 16.
    columns : int
        Cells in a row of the map.
    seed : int, default 0
        Of the embedding.

    Returns
    -------
    ndarray
        A permutation of 0 .. n - 1.

    Raises
    ------
    UserError
        If the images do not fill whole rows.

    Notes
    -----
    The features are reduced to 50 principal components, laid out in the plane by t-SNE, and moved to the cells of a
    grid by the assignment with the least sum of squared distances. What is near on the map is alike; what is far
    apart need not differ more than what is less far.
    """
    n = len(features_nf)
    if n < 16 or columns < 1 or n % columns:
        raise UserError(f"a map needs at least 16 images in whole rows, but got {n} images in {columns} columns")
    plain = PCA(min(MOST_COMPONENTS, n - 1, features_nf.shape[1]), random_state=seed).fit_transform(features_nf)
    xy = TSNE(perplexity=min(30, n // 5), init="pca", random_state=seed).fit_transform(plain)
    xy = (xy - xy.min(0)) / np.maximum(np.ptp(xy, axis=0), 1e-12)
    rows, places = np.divmod(np.arange(n), columns)
    cells = np.stack([places / max(columns - 1, 1), rows / max(rows.max(), 1)], 1)
    return linear_sum_assignment(cdist(cells, xy, "sqeuclidean"))[1]


def neighbour_agreement(features_nf: np.ndarray, labels: np.ndarray) -> Estimate:
    """Return the share of images, in per cent, whose nearest other image by features has the same label."""
    apart_nn = euclidean_distances(features_nf)
    np.fill_diagonal(apart_nn, np.inf)
    return wilson_interval((labels[apart_nn.argmin(1)] == labels).sum(), len(labels)).scaled(100)
