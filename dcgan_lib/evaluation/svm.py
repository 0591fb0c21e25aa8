"""The linear L2-SVM of section 5, for features too many for scikit-learn's own solver.

Axes: n images, f features (one more with the intercept), r directions, k classifiers, one a class.
``x_nf`` features, ``y_kn`` +1 or -1, ``w_kf`` weights, ``m_kn`` what the classifiers say.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from dcgan_lib.errors import UserError

CHUNK_BYTES = 32 * 2**20
MOST_COMPACT = 4_096
MOST_DIRECTIONS = 256
MOST_CG_STEPS = 250


class L2SVM(ClassifierMixin, BaseEstimator):
    """Separate each class from the rest by a hyperplane, with squared hinge loss.

    It minimises 0.5 |w|^2 + C sum max(0, 1 - y (x w + b))^2 for each class, b being regularised
    like w: the objective of scikit-learn's ``LinearSVC``, whose place it takes where features are
    many.

    Parameters
    ----------
    tol : float
        Stop when a Newton step promises to lower the objective by less than this share of it.
    max_iter : int
        Most Newton steps; as ``LinearSVC`` does, it warns when they were not enough.
    warm_start : bool
        Begin at the last fit's weights, if the features and the classes are as many: quicker along
        a grid of C.

    Attributes
    ----------
    coef_, intercept_ : ndarray
        float64, shapes (k, f) and (k,); k is 1 for two classes.
    objective_ : ndarray
        float64, shape (k,): what was reached.

    Notes
    -----
    The authors used ``LinearSVC``. Here all classes are solved together by Newton's method in the
    primal, each step by conjugate gradients: every pass over the features serves all classes.
    Features of networks vary along a few directions far more than along the rest, which costs plain
    conjugate gradients hundreds of passes; `prepare` finds those directions first. Products are in
    float32; weights, and sums over pieces of the data, in float64. The features are never copied
    whole: besides them, memory for a piece of 32 MB and a few arrays of k x n, k x f and 256 x
    (n + f) is used. Rows that are fewer than the features, and at most 4,096, are turned until as
    few columns hold them; their products are in float64. Few rows with a C far above what
    validation would choose need more steps than the default: mind the warning.
    """

    def __init__(
        self, C: float = 1.0, *, tol: float = 1e-6, max_iter: int = 100, warm_start: bool = False
    ) -> None:
        self.C, self.tol, self.max_iter, self.warm_start = C, tol, max_iter, warm_start

    def fit(self, x_nf: "np.ndarray | Tensor | Prepared", y: np.ndarray) -> Self:
        """Find the weights from float32 features, n x f, and n labels of at least two classes.

        A memory map is read piece by piece, a tensor may lie on a GPU. Rows that are fitted several
        times are best made ready once, by `prepare`.
        """
        prepared = x_nf if isinstance(x_nf, Prepared) else prepare(x_nf)
        rows = prepared.rows_nf
        classes, codes = np.unique(np.asarray(y), return_inverse=True)
        if codes.shape != (len(rows),) or len(classes) < 2 or not self.C > 0:
            raise UserError(
                f"an SVM needs one label a row, two classes and C above 0, but got {len(rows)} "
                "rows, "
                f"labels of shape {codes.shape}, {len(classes)} classes and C {self.C}"
            )
        is_kn = torch.arange(len(classes))[:, None] == torch.from_numpy(codes)
        y_kn = (is_kn if len(classes) > 2 else is_kn[1:]).to(rows.device, rows.dtype) * 2 - 1
        shape = len(y_kn), len(prepared.energy_f)
        last_kf = getattr(self, "_found_kf", None) if self.warm_start else None
        if last_kf is None or last_kf.shape != shape or not np.array_equal(classes, self.classes_):
            last_kf = torch.zeros(shape, dtype=torch.float64)
        problem = _Problem(prepared, y_kn, float(self.C))
        self._found_kf, self.objective_, self.n_iter_, enough = _newton(
            problem, last_kf.to(rows.device), self.tol, self.max_iter
        )
        if not enough:
            warnings.warn(
                f"the SVM with C {self.C:g} stopped after {self.max_iter} steps",
                ConvergenceWarning,
                2,
            )
        w_kf = prepared.expand(self._found_kf).cpu().numpy()
        self.classes_, self.coef_, self.intercept_ = classes, w_kf[:, :-1], w_kf[:, -1]
        self.n_features_in_ = self.coef_.shape[1]
        return self

    def decision_function(self, x_nf: np.ndarray | Tensor) -> np.ndarray:
        """Return what each classifier says, above 0 for its class: n x k, or n for two classes."""
        x_nf = _checked(x_nf)
        if x_nf.shape[1] != self.n_features_in_:
            raise UserError(
                f"this SVM reads {self.n_features_in_} features, but got {x_nf.shape[1]}"
            )
        w_kf = torch.from_numpy(np.column_stack([self.coef_, self.intercept_]))
        w_kf = w_kf.to(x_nf.device, torch.float32)
        m_nk = torch.cat([_times(w_kf, chunk) for _, chunk in _chunks(x_nf)], 1).T.cpu().numpy()
        return m_nk[:, 0] if len(self.classes_) == 2 else m_nk

    def predict(self, x_nf: np.ndarray | Tensor) -> np.ndarray:
        """Return the class of each row, the one whose classifier is surest."""
        found = self.decision_function(x_nf)
        return self.classes_[found.argmax(1) if found.ndim == 2 else (found > 0).astype(int)]


# ---------------------------------------------------------------- rows made ready


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Rows of features ready to be fitted several times; made by `prepare`."""

    rows_nf: Tensor
    """The features, or float64 rows turned until their columns have no correlations."""
    energy_f: Tensor
    """float64: about the sum of squares along each axis of the weights, the directions aside."""
    expand: Callable[[Tensor], Tensor]
    """From weights of these rows to those of the features and the intercept, k x (f + 1)."""
    directions_fr: Tensor | None = None
    energy_r: Tensor | None = None
    """Orthonormal directions along which the rows vary most, and the sum of squares along each;
    None where the columns have no correlations."""


def prepare(x_nf: np.ndarray | Tensor) -> Prepared:
    """Make float32 features, n x f, ready to be fitted.

    A linear SVM sees its data only through inner products, which turning does not change. Where
    rows are few, they are turned onto the eigenvectors of the matrix of inner products. Where they
    are many, a randomised singular value decomposition (Halko, Martinsson and Tropp, 2011) finds
    the 256 directions along which they vary most.
    """
    x_nf = _checked(x_nf)
    n, f = x_nf.shape
    return _turned(x_nf) if n <= min(f, MOST_COMPACT) else _with_directions(x_nf)


def _turned(x_nf: Tensor) -> Prepared:
    n, f = x_nf.shape
    gram_nn = torch.ones(n, n, dtype=torch.float64, device=x_nf.device)
    for part in x_nf.split(1024, 1):
        part = part.double()
        for row in range(0, n, 512):  # eigh reads the lower triangle only
            gram_nn[row : row + 512, : row + 512] += part[row : row + 512] @ part[: row + 512].T
    _check_finite(gram_nn)
    values_r, vectors_nr = torch.linalg.eigh(gram_nn)
    roots_r = torch.where(values_r > 1e-13 * values_r[-1], values_r, 0).sqrt()

    def expand(w_kr: Tensor) -> Tensor:
        alpha_kn = torch.where(roots_r > 0, w_kr / roots_r.clamp_min(1e-300), 0) @ vectors_nr.T
        return sum(_times_back(alpha_kn[:, rows], chunk, f + 1) for rows, chunk in _chunks(x_nf))

    rows_nf = vectors_nr * roots_r
    return Prepared(rows_nf=rows_nf, energy_f=rows_nf.square().sum(0), expand=expand)


def _with_directions(x_nf: Tensor) -> Prepared:
    n, f = x_nf.shape
    total = _check_finite(
        sum(chunk.square().sum(dtype=torch.float64) for _, chunk in _chunks(x_nf))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, values_r, directions_fr = torch.svd_lowrank(x_nf, min(MOST_DIRECTIONS, n, f), niter=1)
    directions_fr = torch.linalg.qr(directions_fr.double())[0]  # orthonormal beyond float32
    energy_r = values_r.double().square()
    energy_f = torch.full((f + 1,), float(n), dtype=torch.float64, device=x_nf.device)  # intercept
    energy_f[:f] = (total - energy_r.sum()).clamp_min(0) / max(1, f - len(energy_r))
    no_intercept_1r = torch.zeros_like(directions_fr[:1])
    return Prepared(
        rows_nf=x_nf,
        energy_f=energy_f,
        expand=lambda w_kf: w_kf,
        directions_fr=torch.cat([directions_fr, no_intercept_1r]),
        energy_r=energy_r,
    )


def _checked(x_nf: np.ndarray | Tensor) -> Tensor:
    """Return float32 features, n x f, as a tensor over the same memory; refuse anything else."""
    if (
        getattr(x_nf, "ndim", 0) != 2
        or x_nf.dtype not in (np.float32, torch.float32)
        or not len(x_nf)
    ):
        came = getattr(x_nf, "dtype", type(x_nf).__name__), tuple(getattr(x_nf, "shape", ()))
        raise UserError(
            f"an SVM reads float32 features, n x f, but got {came[0]} of shape {came[1]}"
        )
    if isinstance(x_nf, Tensor):
        return x_nf
    with warnings.catch_warnings():  # a read-only memory map: nothing here writes to it
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(x_nf)


def _check_finite(found: Tensor) -> Tensor:
    if not found.isfinite().all():
        raise UserError("a feature is not a finite number: look at what it was computed from")
    return found


# ---------------------------------------------------------------- passes over the features


def _chunks(x_nf: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and their features, as many at a time as fit in a piece of memory."""
    size = max(1, CHUNK_BYTES // (x_nf.itemsize * x_nf.shape[1]))
    for start in range(0, len(x_nf), size):
        yield slice(start, start + size), x_nf[start : start + size]


def _times(w_kf: Tensor, chunk: Tensor) -> Tensor:
    """Return w x' of some rows; a weight more than there are features is an intercept."""
    f = chunk.shape[1]
    return w_kf[:, :f] @ chunk.T + w_kf[:, f:].sum(1, keepdim=True)


def _times_back(u_kn: Tensor, chunk: Tensor, num_weights: int) -> Tensor:
    """Return u x of some rows, float64, with the sum of u for an intercept."""
    sums_kf = (u_kn.to(chunk.dtype) @ chunk).double()
    return torch.cat([sums_kf, u_kn.double().sum(1, keepdim=True)], 1)[:, :num_weights]


class _Problem:
    """The objective of all classes, and the passes over the features that it takes."""

    def __init__(self, prepared: Prepared, y_kn: Tensor, c: float) -> None:
        self.prepared, self.y_kn, self.c = prepared, y_kn, c

    def _pass(
        self, w_kf: Tensor, weigh: Callable[[slice, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return m = w x' and w + 2 C weigh(m) x, reading the features once."""
        products, sums_kf = [], torch.zeros_like(w_kf)
        for rows, chunk in _chunks(self.prepared.rows_nf):
            products.append(_times(w_kf.to(chunk.dtype), chunk))
            sums_kf += _times_back(weigh(rows, products[-1]), chunk, w_kf.shape[1])
        return torch.cat(products, 1), w_kf + 2 * self.c * sums_kf

    def gradient(self, w_kf: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and the gradient at w."""

        def slack(rows: slice, m_kn: Tensor) -> Tensor:
            y_kn = self.y_kn[:, rows]
            return torch.where(y_kn * m_kn < 1, m_kn - y_kn, 0)

        return self._pass(w_kf, slack)

    def curvature(self, v_kf: Tensor, active_kn: Tensor) -> tuple[Tensor, Tensor]:
        """Return v x' and the Hessian times v; ``active_kn`` is 1 where the loss counts."""
        return self._pass(v_kf, lambda rows, d: active_kn[:, rows] * d)

    def objective(self, w_kf: Tensor, m_kn: Tensor) -> Tensor:
        """Return the objective of each class."""
        losses_kn = (1 - self.y_kn * m_kn).clamp_min(0).double() ** 2
        return (w_kf**2).sum(1) / 2 + self.c * losses_kn.sum(1)

    def nearly_inverse(self, active_kn: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by about the inverse of each class's Hessian.

        The Hessian 1 + 2 C x' x, over the points that the loss counts, is taken to be diagonal in
        the basis of the directions, and its curvature to be those points' share of all points'.
        """
        share_k1 = 2 * self.c * active_kn.mean(1, keepdim=True, dtype=torch.float64)
        inverse_kf = 1 / (1 + share_k1 * self.prepared.energy_f)
        directions_fr = self.prepared.directions_fr
        if directions_fr is None:
            return lambda r_kf: r_kf * inverse_kf
        more_kr = 1 / (1 + share_k1 * self.prepared.energy_r) - inverse_kf[:, :1]
        return lambda r_kf: r_kf * inverse_kf + (r_kf @ directions_fr * more_kr) @ directions_fr.T


# ---------------------------------------------------------------- Newton's method


def _newton(
    problem: _Problem, w_kf: Tensor, tol: float, max_iter: int
) -> tuple[Tensor, np.ndarray, int, bool]:
    """Return weights, objectives, the number of steps, and whether they were enough."""
    for num_steps in count():
        m_kn, g_kf = problem.gradient(w_kf)
        objective = problem.objective(w_kf, m_kn)
        # The objective is at least as curved as |w|^2 / 2: it cannot fall by more than |g|^2 / 2.
        enough = bool((g_kf.square().sum(1) / 2 <= tol * objective).all())
        if enough or num_steps == max_iter:
            return w_kf, objective.cpu().numpy(), num_steps, enough
        v_kf, d_kn, promised = _step(problem, m_kn, g_kf)
        t_k1 = _line_search(problem, w_kf, m_kn, v_kf, d_kn)
        w_kf = w_kf + t_k1 * v_kf
        if (promised <= tol * objective).all():
            objective = problem.objective(w_kf, m_kn + t_k1.to(d_kn.dtype) * d_kn)
            return w_kf, objective.cpu().numpy(), num_steps + 1, True


def _step(problem: _Problem, m_kn: Tensor, g_kf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Solve H v = -g by conjugate gradients; return v, v x' and the drop that v promises."""
    active_kn = (problem.y_kn * m_kn < 1).to(m_kn.dtype)
    nearly_inverse = problem.nearly_inverse(active_kn)
    v_kf, d_kn, r_kf = torch.zeros_like(g_kf), torch.zeros_like(m_kn), -g_kf
    p_kf = nearly_inverse(r_kf)
    rz_k1 = (r_kf * p_kf).sum(1, keepdim=True)
    goal_k1 = 0.01 * rz_k1
    for _ in range(MOST_CG_STEPS):
        open_k1 = rz_k1 > goal_k1
        if not open_k1.any():
            break
        dp_kn, hp_kf = problem.curvature(p_kf, active_kn)
        a_k1 = torch.where(open_k1, rz_k1 / (p_kf * hp_kf).sum(1, keepdim=True), 0.0)
        v_kf, r_kf = v_kf + a_k1 * p_kf, r_kf - a_k1 * hp_kf
        d_kn = d_kn + a_k1.to(d_kn.dtype) * dp_kn
        z_kf = nearly_inverse(r_kf)
        new_k1 = torch.where(open_k1, (r_kf * z_kf).sum(1, keepdim=True), rz_k1)
        p_kf, rz_k1 = z_kf + new_k1 / rz_k1.clamp_min(1e-300) * p_kf, new_k1
    return v_kf, d_kn, -(g_kf * v_kf).sum(1) / 2


def _line_search(
    problem: _Problem, w_kf: Tensor, m_kn: Tensor, v_kf: Tensor, d_kn: Tensor
) -> Tensor:
    """Return how far to go along v for each class: the minimum of a kinked parabola."""
    sums = {"dim": 1, "keepdim": True, "dtype": torch.float64}
    wv_k1, vv_k1 = (w_kf * v_kf).sum(**sums), v_kf.square().sum(**sums)
    t_k1, low_k1 = torch.ones_like(vv_k1), torch.zeros_like(vv_k1)
    high_k1, twice_c = torch.full_like(vv_k1, torch.inf), 2 * problem.c
    for _ in range(30):
        slack_kn = (1 - problem.y_kn * (m_kn + t_k1.to(d_kn.dtype) * d_kn)).clamp_min(0)
        along_kn = torch.where(slack_kn > 0, d_kn, 0)
        loss_k1 = (slack_kn * problem.y_kn * along_kn).sum(**sums)
        slope_k1 = wv_k1 + t_k1 * vv_k1 - twice_c * loss_k1
        bend_k1 = vv_k1 + twice_c * along_kn.square().sum(**sums)
        low_k1 = torch.where(slope_k1 < 0, t_k1, low_k1)
        high_k1 = torch.where(slope_k1 >= 0, t_k1, high_k1)
        next_k1 = t_k1 - slope_k1 / bend_k1.clamp_min(1e-300)
        middle_k1 = torch.where(high_k1.isinf(), 2 * t_k1, (low_k1 + high_k1) / 2)
        next_k1 = torch.where((next_k1 > low_k1) & (next_k1 < high_k1), next_k1, middle_k1)
        if ((next_k1 - t_k1).abs() <= 1e-4 * t_k1).all():
            return next_k1
        t_k1 = next_k1
    return t_k1
