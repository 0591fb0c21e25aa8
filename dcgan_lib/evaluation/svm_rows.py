"""Features as an SVM's solver reads them: many rows piece by piece, few rows turned until few columns hold them.

Axes: n images, f features, r columns after turning or directions of a sketch, k classifiers. ``x_nf`` features,
``w_kf`` weights; where there is an intercept, it is the weight of one more feature, which is always 1.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError

CHUNK_BYTES = 32 * 2**20
MOST_COMPACT = 4_096
MOST_DIRECTIONS = 256


def prepare(x_nf: "np.ndarray | Tensor | Compact | Sketched") -> "Compact | Sketched":
    """Return rows as `Compact` if they are few and as `Sketched` if they are many, ready to be fitted several times.

    Parameters
    ----------
    x_nf : ndarray or Tensor
        float32, n x f; what is prepared already is returned as it is.
    """
    if isinstance(x_nf, Compact | Sketched):
        return x_nf
    return Sketched(x_nf) if len(check_features(x_nf)) > min(x_nf.shape[1], MOST_COMPACT) else Compact(x_nf)


class Sketched:
    """Rows of features, and the few directions along which they vary most: what makes many rows slow to fit.

    Parameters
    ----------
    x_nf : ndarray or Tensor
        float32, n x f.

    Attributes
    ----------
    rows_nf : ndarray or Tensor
        The rows, as they came.
    num_weights : int
        f + 1.
    squares_f : Tensor
        float64, (f + 1,): the sum of each feature's squares.
    sketch_fr : Tensor
        float64, (f + 1, r), r at most 256: its product with its transpose is about x' x.

    Raises
    ------
    UserError
        If a feature is not finite.

    Notes
    -----
    The directions are those of a randomised range finder for x' x (Halko, Martinsson and Tropp, 2011): two passes
    over the features, and the eigenvectors of a small matrix.
    """

    def __init__(self, x_nf: np.ndarray | Tensor) -> None:
        self.rows_nf, self.num_weights = check_features(x_nf), x_nf.shape[1] + 1
        self.squares_f = sums_of_squares(x_nf, self.num_weights)
        start_fr = torch.randn(
            self.num_weights, min(MOST_DIRECTIONS, self.num_weights), generator=torch.Generator().manual_seed(0)
        ).to(device_of(x_nf))
        found_rf = sum(times_back(times(start_fr.T, chunk), chunk, 1) for _, chunk in chunks_of(x_nf))
        basis_fr = torch.linalg.qr(found_rf.T)[0]
        products = (times(basis_fr.T.float(), chunk) for _, chunk in chunks_of(x_nf))
        values_r, turn_rr = torch.linalg.eigh(sum((m_rn @ m_rn.T).double() for m_rn in products))
        self.sketch_fr = basis_fr @ (turn_rr * values_r.clamp_min(0).sqrt())

    def expand(self, w_kf: Tensor) -> Tensor:
        """Return the weights of the features, which these are."""
        return w_kf


class Compact:
    """Rows of features turned until as few columns as rows hold them: quicker to fit again and again.

    A linear SVM sees its data only through inner products, which turning does not change. It pays where rows are
    few and features many, most of all when several values of C are tried.

    Parameters
    ----------
    x_nf : ndarray or Tensor
        float32, n x f, more features than rows.

    Attributes
    ----------
    rows_nf : Tensor
        float64, n x n: the turned rows, the intercept's constant feature among them.
    num_weights, squares_f, sketch_fr
        See `Sketched`; the columns have no correlations, so that the sketch is empty.

    Raises
    ------
    UserError
        If a feature is not finite.

    Notes
    -----
    The columns are the eigenvectors of the matrix of inner products, each times the root of its eigenvalue.
    """

    def __init__(self, x_nf: np.ndarray | Tensor) -> None:
        self._x_nf = check_features(x_nf)
        n, f = x_nf.shape
        gram_nn = torch.ones(n, n, dtype=torch.float64, device=device_of(x_nf))
        for start in range(0, f, 1024):
            part = x_nf[:, start : start + 1024]
            part = (part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))).double()
            for row in range(0, n, 512):  # eigh reads the lower triangle only
                gram_nn[row : row + 512, : row + 512] += part[row : row + 512] @ part[: row + 512].T
        if not gram_nn.isfinite().all():
            raise UserError("a feature is not a finite number: look at what it was computed from")
        values_r, self._vectors_nr = torch.linalg.eigh(gram_nn)
        self._roots_r = torch.where(values_r > 1e-13 * values_r[-1], values_r, 0).sqrt()
        self.rows_nf, self.num_weights = self._vectors_nr * self._roots_r, n
        self.squares_f = sums_of_squares(self.rows_nf, n)
        self.sketch_fr = self.rows_nf.new_zeros(n, 0)

    def expand(self, w_kr: Tensor) -> Tensor:
        """Return the weights of the features themselves, k x (f + 1), from those of the turned rows."""
        alpha_kn = torch.where(self._roots_r > 0, w_kr / self._roots_r.clamp_min(1e-300), 0) @ self._vectors_nr.T
        w_kf = alpha_kn.new_zeros(len(w_kr), self._x_nf.shape[1] + 1)
        for rows, chunk in chunks_of(self._x_nf):
            w_kf += times_back(alpha_kn[:, rows], chunk, 1)
        return w_kf


def check_features(x_nf: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Return float32 features, n x f, as they came; refuse anything else."""
    if getattr(x_nf, "ndim", 0) != 2 or x_nf.dtype not in (np.float32, torch.float32) or not len(x_nf):
        came = getattr(x_nf, "dtype", type(x_nf).__name__), tuple(getattr(x_nf, "shape", ()))
        raise UserError(f"an SVM reads float32 features, n x f, but got {came[0]} of shape {came[1]}")
    return x_nf


def sums_of_squares(x_nf: np.ndarray | Tensor, num_weights: int) -> Tensor:
    """Return the sum of each feature's squares, float64; a weight more than there are features is an intercept."""
    squares_f = torch.full((num_weights,), float(len(x_nf)), dtype=torch.float64, device=device_of(x_nf))
    squares_f[: x_nf.shape[1]] = sum(chunk.square().sum(0).double() for _, chunk in chunks_of(x_nf))
    if not squares_f.isfinite().all():
        raise UserError("a feature is not a finite number: look at what it was computed from")
    return squares_f


def device_of(x_nf: np.ndarray | Tensor) -> torch.device:
    """Return where features lie."""
    return x_nf.device if isinstance(x_nf, Tensor) else torch.device("cpu")


def chunks_of(x_nf: np.ndarray | Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and their features, as many at a time as fit in a piece of memory."""
    size = max(1, CHUNK_BYTES // (x_nf.itemsize * x_nf.shape[1]))
    for start in range(0, len(x_nf), size):
        rows = slice(start, start + size)
        chunk = x_nf[rows]
        if not isinstance(chunk, Tensor):
            # PyTorch warns about arrays that must not be written to: those are copied, piece by piece.
            chunk = torch.from_numpy(chunk if chunk.flags.writeable else np.array(chunk))
        yield rows, chunk


def times(w_kf: Tensor, chunk: Tensor) -> Tensor:
    """Return w x' of some rows; a weight more than there are features is an intercept."""
    f = chunk.shape[1]
    return w_kf[:, :f] @ chunk.T + w_kf[:, f:].sum(1, keepdim=True)


def times_back(u_kn: Tensor, chunk: Tensor, num_intercepts: int) -> Tensor:
    """Return u x of some rows, float64, with the sum of u for the intercept."""
    sums_kf = (u_kn.to(chunk.dtype) @ chunk).double()
    return torch.cat([sums_kf, u_kn.double().sum(1, keepdim=True)[:, :num_intercepts]], 1)
