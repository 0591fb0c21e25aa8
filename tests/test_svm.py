"""The L2-SVM is LinearSVC's: the same objective, the same answers. `measure_svm.py` measures time
and memory."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import svm as module
from dcgan_lib.evaluation.svm import L2SVM, prepare


def make(num, num_features, num_classes=10, seed=0):
    """Features as a network's: leaky, not centred, and of very different scales."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    centres = 0.2 * shared.normal(size=(num_classes, num_features))
    scales = np.exp(1.2 * shared.normal(size=num_features))
    labels = own.integers(0, num_classes, num)
    x = scales * (own.normal(size=(num, num_features)) + centres[labels] + 0.7)
    return np.where(x > 0, x, 0.2 * x).astype(np.float32), labels


def reference(x, labels, c, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must have converged
        return LinearSVC(C=c, tol=1e-8, max_iter=100_000, random_state=0, **more).fit(
            x.astype(np.float64), labels
        )


def objectives(model, x, labels, c):
    y = np.where(labels[:, None] == model.classes_, 1.0, -1.0)[:, -len(model.coef_) :]
    slack = np.maximum(0, 1 - y * (x.astype(np.float64) @ model.coef_.T + model.intercept_))
    return ((model.coef_**2).sum(1) + model.intercept_**2) / 2 + c * (slack**2).sum(0)


@pytest.mark.parametrize("c", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize(("num", "num_features", "dual"), [(200, 300, True), (1000, 60, False)])
def test_objective_and_answers_are_those_of_linear_svc(num, num_features, dual, c):
    x, labels = make(num, num_features)
    held_out, answers = make(2_000, num_features, seed=1)
    ours, theirs = L2SVM(c).fit(x, labels), reference(x, labels, c, dual=dual)
    expected = objectives(theirs, x, labels, c)
    np.testing.assert_allclose(objectives(ours, x, labels, c), expected, rtol=1e-4)
    np.testing.assert_allclose(ours.objective_, expected, rtol=1e-4)
    assert (ours.predict(held_out) == theirs.predict(held_out)).mean() >= 0.995
    assert ours.score(held_out, answers) == pytest.approx(
        theirs.score(held_out, answers), abs=0.005
    )


@pytest.mark.parametrize("c", [1, 100])
def test_a_weak_regulariser_gives_the_same_too(c):
    x, labels = make(1500, 20, num_classes=4)
    theirs = reference(x, labels, c, dual=False)
    np.testing.assert_allclose(
        L2SVM(c).fit(x, labels).objective_, objectives(theirs, x, labels, c), rtol=1e-4
    )


@pytest.mark.parametrize("c", [1e-6, 1e-3, 0.03])
@pytest.mark.parametrize("most", [0, 4_096])
def test_few_rows_give_the_same_turned_or_not(c, most, monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPACT", most)
    x, labels = make(200, 500)
    held_out, _ = make(1_000, 500, seed=1)
    ours, theirs = L2SVM(c).fit(x, labels), reference(x, labels, c, dual=True)
    np.testing.assert_allclose(
        objectives(ours, x, labels, c), objectives(theirs, x, labels, c), rtol=1e-4
    )
    assert (ours.predict(held_out) == theirs.predict(held_out)).mean() >= 0.995
    assert prepare(x).rows_nf.shape == ((200, 200) if most else (200, 500))


def test_strong_directions_cost_no_passes_once_they_are_found(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 30)) * 20 @ rng.normal(size=(30, 400))
    x = (x + rng.normal(size=(900, 400))).astype(np.float32)
    labels, passes, ended = rng.integers(0, 5, 900), [], []
    chunks = module._chunks
    monkeypatch.setattr(module, "_chunks", lambda *given: passes.append(1) or chunks(*given))
    for most in (256, 1):
        monkeypatch.setattr(module, "MOST_DIRECTIONS", most)
        ended.append((L2SVM(1e-3).fit(x, labels).objective_, len(passes)))
        passes.clear()
    np.testing.assert_allclose(ended[0][0], ended[1][0], rtol=1e-5)
    assert 2 * ended[0][1] < ended[1][1], "with the directions, and with one of them"


def test_comparison_can_fail():
    x, labels = make(300, 100)
    one, other = (objectives(L2SVM(c).fit(x, labels), x, labels, 1e-3) for c in (1e-3, 2e-3))
    assert np.all(other > one * (1 + 1e-4))


def test_steps_that_are_not_enough_are_told():
    x, labels = make(200, 100)
    with pytest.warns(ConvergenceWarning, match="stopped after 2 steps"):
        L2SVM(1, max_iter=2).fit(x, labels)
    for tol in (1e-2, 1e-6):
        steps = L2SVM(1, tol=tol).fit(x, labels).n_iter_
        with warnings.catch_warnings(action="error"):
            assert L2SVM(1, tol=tol, max_iter=steps).fit(x, labels).n_iter_ == steps, (
                "as many as were taken are enough"
            )
        with pytest.warns(ConvergenceWarning):
            L2SVM(1, tol=tol, max_iter=steps - 1).fit(x, labels)


def test_two_classes_and_odd_names():
    x, labels = make(400, 30, num_classes=2)
    names = np.array(["no", "yes"])[labels]
    ours, theirs = L2SVM(1e-3).fit(x, names), reference(x, names, 1e-3, dual=False)
    assert ours.coef_.shape == theirs.coef_.shape and list(ours.classes_) == ["no", "yes"]
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-2)
    assert (ours.predict(x) == theirs.predict(x)).mean() >= 0.995


def test_warm_start_along_a_grid_is_quicker_and_ends_at_the_same_place():
    x, labels = make(600, 200)
    warm, steps = L2SVM(warm_start=True), []
    for c in (1e-4, 1.2e-4):
        warm.set_params(C=c).fit(x, labels)
        cold = clone(warm).fit(x, labels)
        np.testing.assert_allclose(warm.objective_, cold.objective_, rtol=1e-5)
        steps.append((warm.n_iter_, cold.n_iter_))
    assert steps[1][0] < steps[1][1]
    assert warm.fit(x[:, :50], labels).coef_.shape == (10, 50)  # other features: from the beginning


def test_pieces_memory_maps_and_tensors_change_nothing(monkeypatch, tmp_path):
    x, labels = make(300, 40)
    whole = L2SVM(1e-3).fit(x, labels)
    monkeypatch.setattr(module, "CHUNK_BYTES", 7 * 40 * 4)
    np.save(tmp_path / "x.npy", x)
    for mode in ("r", "c"):
        mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(
                L2SVM(1e-3).fit(mapped, labels).objective_, whole.objective_, rtol=1e-5
            )
            assert (whole.predict(mapped) == whole.predict(x)).all()
    np.testing.assert_allclose(
        L2SVM(1e-3).fit(torch.from_numpy(x), labels).objective_, whole.objective_, rtol=1e-5
    )


@pytest.mark.gpu
def test_features_on_a_gpu():
    x, labels = make(300, 500)
    found = L2SVM(1e-3).fit(torch.from_numpy(x).cuda(), labels)
    np.testing.assert_allclose(found.objective_, L2SVM(1e-3).fit(x, labels).objective_, rtol=1e-4)


def test_what_it_cannot_use_is_refused():
    x, labels = make(20, 5)
    broken = x.copy()
    broken[3, 2] = np.nan
    for arguments, message in (
        ((x.astype(float), labels), "reads float32"),
        ((x[0], labels), "reads float32"),
        ((x, labels[:-1]), "one label a row"),
        ((x, np.zeros(20, int)), "1 classes"),
        ((broken, labels), "not a finite number"),
    ):
        with pytest.raises(UserError, match=message):
            L2SVM().fit(*arguments)
    with pytest.raises(UserError, match="C above 0"):
        L2SVM(0).fit(x, labels)
    with pytest.raises(UserError, match="reads 5 features"):
        L2SVM().fit(x, labels).predict(x[:, :4])
