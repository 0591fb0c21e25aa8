"""The linear L2-SVM of section 5, for features too many for scikit-learn's own solver.

Axes: n images, f features (one more with the intercept), k classifiers, one a class. ``x_nf`` features,
``y_kn`` +1 or -1, ``w_kf`` weights, ``m_kn`` what the classifiers say.
"""

import warnings
from collections.abc import Callable, Iterator
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


def prepare(x_nf: "np.ndarray | Tensor | Compact | Sketched") -> "Compact | Sketched":
    """Return rows as `Compact` if they are few and as `Sketched` if they are many, ready to be fitted several times.

    Parameters
    ----------
    x_nf : ndarray or Tensor
        float32, n x f; what is prepared already is returned as it is.
    """
    if isinstance(x_nf, Compact | Sketched):
        return x_nf
    return (
        Sketched(x_nf)
        if len(check_features(x_nf)) > min(x_nf.shape[1], MOST_COMPACT)
        else Compact(x_nf)
    )


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
            self.num_weights,
            min(MOST_DIRECTIONS, self.num_weights),
            generator=torch.Generator().manual_seed(0),
        ).to(device_of(x_nf))
        found_rf = sum(
            times_back(times(start_fr.T, chunk), chunk, 1) for _, chunk in chunks_of(x_nf)
        )
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
        alpha_kn = (
            torch.where(self._roots_r > 0, w_kr / self._roots_r.clamp_min(1e-300), 0)
            @ self._vectors_nr.T
        )
        w_kf = alpha_kn.new_zeros(len(w_kr), self._x_nf.shape[1] + 1)
        for rows, chunk in chunks_of(self._x_nf):
            w_kf += times_back(alpha_kn[:, rows], chunk, 1)
        return w_kf


def check_features(x_nf: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Return float32 features, n x f, as they came; refuse anything else."""
    if (
        getattr(x_nf, "ndim", 0) != 2
        or x_nf.dtype not in (np.float32, torch.float32)
        or not len(x_nf)
    ):
        came = getattr(x_nf, "dtype", type(x_nf).__name__), tuple(getattr(x_nf, "shape", ()))
        raise UserError(
            f"an SVM reads float32 features, n x f, but got {came[0]} of shape {came[1]}"
        )
    return x_nf


def sums_of_squares(x_nf: np.ndarray | Tensor, num_weights: int) -> Tensor:
    """Return the sum of each feature's squares, float64; a weight more than there are features is an intercept."""
    squares_f = torch.full(
        (num_weights,), float(len(x_nf)), dtype=torch.float64, device=device_of(x_nf)
    )
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


MOST_CG_STEPS = 250


class L2SVM(ClassifierMixin, BaseEstimator):
    """Separate each class from the rest by a hyperplane, with squared hinge loss.

    It minimises 0.5 |w|^2 + C sum max(0, 1 - y (x w + b))^2 for each class, b being regularised like w: the
    objective of scikit-learn's ``LinearSVC``, whose place it takes where features are many.

    Parameters
    ----------
    C : float, default 1.0
        Weight of the loss against the regulariser.
    tol : float, default 1e-6
        Stop when a Newton step promises to lower the objective by less than this share of it.
    max_iter : int, default 100
        Most Newton steps.
    warm_start : bool, default False
        Begin at the last fit's weights, if the features and the classes are as many: quicker along a grid of C.

    Attributes
    ----------
    classes_ : ndarray
        The classes, in order.
    coef_, intercept_ : ndarray
        float64, shapes (k, f) and (k,); k is 1 for two classes.
    objective_ : ndarray
        float64, shape (k,): what was reached.
    n_iter_ : int
        Newton steps taken; as ``LinearSVC`` does, it warns when they were not enough.

    Notes
    -----
    The authors used ``LinearSVC``. Here all classes are solved together by Newton's method in the primal, each
    step by conjugate gradients: every pass over the features serves all classes. Features of networks vary along a
    few directions far more than along the rest, which costs plain conjugate gradients hundreds of passes; those
    directions are found first (`Sketched`) and dealt with exactly. Products are in float32; weights, and sums over
    pieces of the data, in float64. The features are never copied whole: besides them, memory for a piece of 32 MB
    and a few arrays of k x n, k x f and 256 x f is used. Rows that are fewer than the features, and at most 4,096,
    are made `Compact` instead, whose products are in float64. Few rows with a C far above what validation would choose
    need more steps than the default: mind the warning.
    """

    def __init__(
        self, C: float = 1.0, *, tol: float = 1e-6, max_iter: int = 100, warm_start: bool = False
    ) -> None:
        self.C, self.tol, self.max_iter, self.warm_start = C, tol, max_iter, warm_start

    def fit(self, x_nf: "np.ndarray | Tensor | Compact | Sketched", y: np.ndarray) -> Self:
        """Find the weights.

        Parameters
        ----------
        x_nf : ndarray, Tensor, Compact or Sketched
            float32, n x f; a memory map is read piece by piece, a tensor may lie on a GPU. Rows that are
            fitted several times are best prepared once, by `dcgan_lib.evaluation.svm.prepare`.
        y : ndarray
            n labels of at least two classes.

        Raises
        ------
        UserError
            If the shapes do not match, there is one class only, C is not positive, or a feature is not finite.
        """
        prepared = prepare(x_nf)
        rows = prepared.rows_nf
        classes, codes = np.unique(np.asarray(y), return_inverse=True)
        if codes.shape != (len(rows),) or len(classes) < 2 or not self.C > 0:
            raise UserError(
                f"an SVM needs one label a row, two classes and C above 0, but got {len(rows)} rows, labels of shape "
                f"{codes.shape}, {len(classes)} classes and C {self.C}"
            )
        is_kn = torch.arange(len(classes))[:, None] == torch.from_numpy(codes)
        y_kn = (is_kn if len(classes) > 2 else is_kn[1:]).float() * 2 - 1
        problem = _Problem(prepared, y_kn.to(device_of(rows)), float(self.C))
        start_kf = self._start(problem, classes)
        found_kf, self.objective_, self.n_iter_, enough = _newton(
            problem, start_kf, self.tol, self.max_iter
        )
        if not enough:
            warnings.warn(
                f"the SVM with C {self.C:g} stopped after {self.max_iter} steps",
                ConvergenceWarning,
                2,
            )
        self._found_kf, self.classes_ = found_kf, classes
        w_kf = prepared.expand(found_kf).cpu().numpy()
        self.coef_, self.intercept_ = w_kf[:, :-1], w_kf[:, -1]
        self.n_features_in_ = self.coef_.shape[1]
        return self

    def _start(self, problem: "_Problem", classes: np.ndarray) -> Tensor:
        zeros_kf = torch.zeros(
            len(problem.y_kn), problem.num_weights, dtype=torch.float64, device=problem.y_kn.device
        )
        last_kf = getattr(self, "_found_kf", None)
        fits = (
            last_kf is not None
            and last_kf.shape == zeros_kf.shape
            and np.array_equal(classes, self.classes_)
        )
        return last_kf.to(zeros_kf.device) if self.warm_start and fits else zeros_kf

    def decision_function(self, x_nf: np.ndarray | Tensor) -> np.ndarray:
        """Return what each classifier says, above 0 for its own class: n x k, or n for two classes."""
        if check_features(x_nf).shape[1] != self.n_features_in_:
            raise UserError(
                f"this SVM reads {self.n_features_in_} features, but got {x_nf.shape[1]}"
            )
        w_kf = (
            torch.from_numpy(np.column_stack([self.coef_, self.intercept_]))
            .to(device_of(x_nf))
            .float()
        )
        m_nk = torch.cat([times(w_kf, chunk) for _, chunk in chunks_of(x_nf)], 1).T.cpu().numpy()
        return m_nk[:, 0] if len(self.classes_) == 2 else m_nk

    def predict(self, x_nf: np.ndarray | Tensor) -> np.ndarray:
        """Return the class of each row, the one whose classifier is surest."""
        found = self.decision_function(x_nf)
        return self.classes_[found.argmax(1) if found.ndim == 2 else (found > 0).astype(int)]


class _Problem:
    """The objective of all classes, and the passes over the features that it takes."""

    def __init__(self, prepared: Compact | Sketched, y_kn: Tensor, c: float) -> None:
        self.prepared, self.x_nf, self.num_weights, self.c = (
            prepared,
            prepared.rows_nf,
            prepared.num_weights,
            c,
        )
        self.dtype = torch.float64 if self.x_nf.dtype == torch.float64 else torch.float32
        self.y_kn = y_kn.to(self.dtype)

    def _pass(
        self, w_kf: Tensor, weigh: Callable[[slice, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return m = w x' and weigh(m) x, reading the features once."""
        products, sums_kf = [], torch.zeros_like(w_kf)
        for rows, chunk in chunks_of(self.x_nf):
            products.append(times(w_kf.to(self.dtype), chunk))
            sums_kf += times_back(
                weigh(rows, products[-1]), chunk, self.num_weights - chunk.shape[1]
            )
        return torch.cat(products, 1), sums_kf

    def gradient(self, w_kf: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and the gradient at w."""

        def slack(rows: slice, m_kn: Tensor) -> Tensor:
            y_kn = self.y_kn[:, rows]
            return torch.where(y_kn * m_kn < 1, m_kn - y_kn, 0)

        m_kn, sums_kf = self._pass(w_kf, slack)
        return m_kn, w_kf + 2 * self.c * sums_kf

    def curvature(self, v_kf: Tensor, active_kn: Tensor) -> tuple[Tensor, Tensor]:
        """Return v x' and the Hessian times v, where ``active_kn`` is 1 for the points that the loss counts."""
        d_kn, sums_kf = self._pass(v_kf, lambda rows, d: active_kn[:, rows] * d)
        return d_kn, v_kf + 2 * self.c * sums_kf

    def objective(self, w_kf: Tensor, m_kn: Tensor) -> Tensor:
        """Return the objective of each class."""
        return (w_kf**2).sum(1) / 2 + self.c * (
            (1 - self.y_kn * m_kn).clamp_min(0).double() ** 2
        ).sum(1)


class _NearlyInverse:
    """Multiply by about the inverse of each class's Hessian, to need few conjugate gradients.

    The Hessian 1 + 2 C x' x, over the points that the loss counts, is taken to be a diagonal plus the sketch's low
    rank, scaled by their share; such a matrix is inverted by Woodbury's formula.
    """

    def __init__(self, problem: _Problem, active_kn: Tensor) -> None:
        self._v_fr, squares_f = problem.prepared.sketch_fr, problem.prepared.squares_f
        share_k1 = 2 * problem.c * active_kn.mean(1, keepdim=True, dtype=torch.float64)
        self._scale_kf = 1 + share_k1 * (squares_f - self._v_fr.square().sum(1)).clamp_min(0)
        inner_krr = torch.stack(
            [(self._v_fr / scale_f[:, None]).T @ self._v_fr for scale_f in self._scale_kf]
        )
        self._share_k1, eye_rr = share_k1, torch.eye(self._v_fr.shape[1]).to(inner_krr)
        self._root_krr = torch.linalg.cholesky(eye_rr + share_k1[..., None] * inner_krr)

    def __call__(self, r_kf: Tensor) -> Tensor:
        z_kf = r_kf / self._scale_kf
        along_kr1 = torch.cholesky_solve((z_kf @ self._v_fr)[..., None], self._root_krr)
        return z_kf - self._share_k1 * (along_kr1[..., 0] @ self._v_fr.T) / self._scale_kf


def _newton(
    problem: _Problem, w_kf: Tensor, tol: float, max_iter: int
) -> tuple[Tensor, np.ndarray, int, bool]:
    """Return weights, objectives, the number of steps, and whether they were enough."""
    for num_steps in count():
        m_kn, g_kf = problem.gradient(w_kf)
        objective = problem.objective(w_kf, m_kn)
        # The objective is at least as curved as |w|^2 / 2, so that it cannot be lowered by more than |g|^2 / 2.
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
    """Solve H v = -g by conjugate gradients, all classes at once; return v, v x' and the drop that v promises."""
    active_kn = (problem.y_kn * m_kn < 1).to(m_kn.dtype)
    nearly = _NearlyInverse(problem, active_kn)
    v_kf, d_kn, r_kf = torch.zeros_like(g_kf), torch.zeros_like(m_kn), -g_kf
    p_kf = nearly(r_kf)
    rz_k1 = (r_kf * p_kf).sum(1, keepdim=True)
    goal_k1 = 0.01 * rz_k1
    for _ in range(MOST_CG_STEPS):
        open_k1 = rz_k1 > goal_k1
        if not open_k1.any():
            break
        dp_kn, hp_kf = problem.curvature(p_kf, active_kn)
        a_k1 = torch.where(open_k1, rz_k1 / (p_kf * hp_kf).sum(1, keepdim=True), 0.0)
        v_kf, d_kn, r_kf = (
            v_kf + a_k1 * p_kf,
            d_kn + a_k1.to(d_kn.dtype) * dp_kn,
            r_kf - a_k1 * hp_kf,
        )
        z_kf = nearly(r_kf)
        new_k1 = torch.where(open_k1, (r_kf * z_kf).sum(1, keepdim=True), rz_k1)
        p_kf, rz_k1 = z_kf + new_k1 / rz_k1.clamp_min(1e-300) * p_kf, new_k1
    return v_kf, d_kn, -(g_kf * v_kf).sum(1) / 2


def _line_search(
    problem: _Problem, w_kf: Tensor, m_kn: Tensor, v_kf: Tensor, d_kn: Tensor
) -> Tensor:
    """Return how far to go along v for each class: the exact minimum, by Newton on a parabola with kinks."""
    sums = {"dim": 1, "keepdim": True, "dtype": torch.float64}
    wv_k1, vv_k1 = (w_kf * v_kf).sum(**sums), v_kf.square().sum(**sums)
    t_k1, low_k1 = torch.ones_like(vv_k1), torch.zeros_like(vv_k1)
    high_k1 = torch.full_like(vv_k1, torch.inf)
    for _ in range(30):
        slack_kn = (1 - problem.y_kn * (m_kn + t_k1.to(d_kn.dtype) * d_kn)).clamp_min(0)
        along_kn = torch.where(slack_kn > 0, d_kn, 0)
        slope_k1 = (
            wv_k1 + t_k1 * vv_k1 - 2 * problem.c * (slack_kn * problem.y_kn * along_kn).sum(**sums)
        )
        bend_k1 = vv_k1 + 2 * problem.c * along_kn.square().sum(**sums)
        low_k1, high_k1 = (
            torch.where(slope_k1 < 0, t_k1, low_k1),
            torch.where(slope_k1 >= 0, t_k1, high_k1),
        )
        next_k1 = t_k1 - slope_k1 / bend_k1.clamp_min(1e-300)
        middle_k1 = torch.where(high_k1.isinf(), 2 * t_k1, (low_k1 + high_k1) / 2)
        next_k1 = torch.where((next_k1 > low_k1) & (next_k1 < high_k1), next_k1, middle_k1)
        if ((next_k1 - t_k1).abs() <= 1e-4 * t_k1).all():
            return next_k1
        t_k1 = next_k1
    return t_k1
