"""Labels drawn, C chosen on validation, the test images given out once a result."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import protocols
from dcgan_lib.evaluation.features import pixel_features
from dcgan_lib.evaluation.ledger import record
from dcgan_lib.evaluation.protocols import (
    PROTOCOLS,
    DrawnSVM,
    LabelledSplits,
    c_at,
    check_unused,
    choose_c,
    draw_labels,
    find_protocol,
    fit_protocol,
    label_curve,
    load_splits,
)
from dcgan_lib.experiments.supervised_search import draw_labelled


@pytest.fixture(autouse=True)
def own_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))


@pytest.fixture(scope="module")
def digits():
    return load_splits("digits")


def fit(name, splits, features=pixel_features, draws=None, **more):
    return fit_protocol(find_protocol(name, draws), splits, features, **more)


def coloured(num, seed, name="cifar10"):
    """Noise whose mean colour tells the class, for the most part."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 10
    centres = np.random.default_rng(7).integers(90, 170, (10, 3, 4, 4))
    images = np.clip(centres[labels] + rng.normal(0, 60, (num, 3, 4, 4)), 0, 255).astype(np.uint8)
    return ImageSet(name=name, images_u8=images, labels=labels, class_names=tuple("abcdefghij"))


# ---- C ----
def test_ladder_and_the_authors_grid():
    assert [c_at(k) for k in PROTOCOLS["1000"].grid] == [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    assert PROTOCOLS["1000"].choosing_draws == 10 and PROTOCOLS["1000"].draws == 100
    assert PROTOCOLS["400"].num_labels(10) == 400 and PROTOCOLS["400"].draws >= 5
    assert [c_at(k) for k in (-1, 0, 1, 2, 3)] == [0.5, 1, 2, 5, 10]


@pytest.mark.parametrize("optimum", [1e-6, 2e-5, 1e-3, 0.05, 1.0])
@pytest.mark.parametrize("grid", [PROTOCOLS["full"].grid, PROTOCOLS["1000"].grid])
def test_grid_grows_to_the_optimum_wherever_it_lies(grid, optimum):
    best, curve = choose_c(lambda c: -abs(np.log(c / optimum)), grid)
    assert best == optimum and list(curve) == sorted(curve)
    assert min(curve) < best < max(curve)


def test_of_equal_scores_the_smaller_c_is_taken_and_a_plateau_ends():
    best, curve = choose_c(lambda c: 50.0, range(-12, -5))
    assert best == min(curve) and len(curve) < 20


# ---- labels ----
def test_labels_are_drawn_evenly_and_differ_between_draws():
    labels = np.repeat(np.arange(10), 50)
    draws = draw_labels(labels, 20, 3, [0, 1])
    for rows in draws:
        assert (np.bincount(labels[rows]) == 20).all() and len(np.unique(rows)) == 200
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[2], draw_labels(labels, 20, 3, [0, 1])[2])
    with pytest.raises(UserError, match="one class has 50"):
        draw_labels(labels, 51, 1, [0])


def test_draws_are_the_ones_that_recorded_results_were_made_with():
    """Another stream of random numbers would give a search that goes on other labels than it began
    with."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 20))
    rows = [[6, 12, 14, 15, 24, 38, 47, 58, 59], [9, 14, 28, 30, 31, 47, 55, 57, 58]]
    assert [found.tolist() for found in draw_labels(labels, 3, 2, [0, 1])] == rows
    pictures = np.arange(60, dtype=np.uint8)[:, None, None, None]
    pool = ImageSet(name="numbered", images_u8=pictures, labels=labels, class_names=("a", "b", "c"))
    chosen = [draw_labelled(pool, 9, seed).images_u8.ravel().tolist() for seed in ([0, 1, 1], 5)]
    assert chosen == [rows[1], [0, 15, 17, 23, 28, 30, 33, 39, 46]]


# ---- protocols ----
def test_accuracy_is_that_of_linear_svc_with_the_chosen_c(digits):
    svms, best = fit("full", digits, for_test=True)
    assert best.accuracies == (max(best.curve.values()),)
    assert (best.split, best.n, best.num_labels) == ("validation", 180, 1_257)
    x, held = (pixel_features(part.images_u8) for part in (digits.train, digits.validation))
    svm = LinearSVC(C=best.c, tol=1e-6, max_iter=20_000, random_state=0).fit(x, digits.train.labels)
    score = 100 * svm.score(held, digits.validation.labels)
    assert best.accuracies[0] == pytest.approx(score, abs=0.6)
    with digits.test_for("table1.dcgan.full:digits") as test:
        pass
    found = svms.judge("test", pixel_features(test.images_u8), test.labels)
    assert (found.split, found.n, found.num_labels, found.c) == ("test", 360, 1_437, best.c)
    assert 80 < found.accuracy.low < found.accuracy.value < 99
    svms, _ = fit("full", digits)
    with pytest.raises(UserError, match="for_test=True"):
        svms.judge("test", pixel_features(test.images_u8), test.labels)


def test_thousand_labels(digits, tmp_path):
    _, best = fit("1000", digits, draws=4, path=tmp_path / "features.npy")
    assert len(best.accuracies) == 4 and len(set(best.accuracies)) > 1 and best.num_labels == 1_000
    assert np.load(tmp_path / "features.npy").shape == (1_257 + 180, 64)
    mean, low, high = best.accuracy
    assert high - mean == pytest.approx(mean - low) == pytest.approx(1.96 * np.std(best.accuracies))
    assert best.error == pytest.approx((100 - mean, 100 - high, 100 - low))
    _, again = fit("1000", digits, draws=4)
    assert again.accuracies == best.accuracies and again.curve == best.curve
    assert fit("1000", digits, draws=4, seed=1)[1].accuracies != best.accuracies


@pytest.fixture
def learnt(monkeypatch):
    """Return what each SVM is to learn from, features and labels, where C is given."""
    made = []

    class Watched(DrawnSVM):
        def __init__(self, x_nf, labels, rows=None):
            rows = np.arange(len(labels)) if rows is None else rows
            made.append((x_nf[rows], labels[rows]))
            super().__init__(x_nf, labels, rows)

    monkeypatch.setattr(protocols, "DrawnSVM", Watched)
    monkeypatch.setattr(protocols, "choose_c", lambda *_: (1e-3, {1e-3: 50.0}))
    return made


def test_accuracy_is_reported_over_other_draws_of_labels_than_c_was_chosen_on(digits, learnt):
    fit("1000", digits, draws=2, seed=3)
    train = digits.train
    drawn = draw_labels(train.labels, 100, 10, [3, 0]) + draw_labels(train.labels, 100, 2, [3, 1])
    for (x, labels), rows in zip(learnt, drawn, strict=True):
        np.testing.assert_array_equal(x, pixel_features(train.images_u8[rows]))
        np.testing.assert_array_equal(labels, train.labels[rows])


def test_the_last_svm_of_all_labels_learns_from_the_validation_labels_and_c_does_not(
    digits, learnt
):
    fit("full", digits, for_test=True)
    both = [digits.train, digits.validation]
    for (x, labels), parts in zip(learnt, (both[:1], both), strict=True):
        images_u8 = np.concatenate([part.images_u8 for part in parts])
        np.testing.assert_array_equal(x, pixel_features(images_u8))
        np.testing.assert_array_equal(labels, np.concatenate([part.labels for part in parts]))


def test_four_hundred_labels_a_class_and_features_without_a_clue():
    splits = LabelledSplits(train=coloured(4_500, 0), validation=coloured(500, 1))
    _, found = fit("400", splits, draws=5)
    assert found.num_labels == 4_000 and len(found.accuracies) == 5 and found.accuracy.value > 60
    blind = np.random.default_rng(0)
    _, guess = fit(
        "400", splits, lambda x: blind.normal(size=(len(x), 8)).astype(np.float32), draws=2
    )
    assert guess.accuracy.value < 20


def test_what_is_no_protocol_is_refused(digits):
    for name, draws, message in (
        ("some", None, "no protocol 'some'"),
        ("full", 2, "cannot have 2 draws"),
        ("1000", 0, "cannot have 0 draws"),
    ):
        with pytest.raises(UserError, match=message):
            find_protocol(name, draws)
    with pytest.raises(UserError, match="400 labels of each class were asked for"):
        fit("400", digits)


# ---- more labels ----
def test_more_labels_help_and_the_draws_are_the_same_for_every_kind(digits):
    test = load_image_set("digits", "test")
    curve = label_curve(digits, test, pixel_features, (2, 30), draws=4)
    few, many = curve[2], curve[30]
    assert few.error.low > many.error.high and few.split == "test"
    assert (few.num_labels, many.num_labels, few.n) == (20, 300, 360)
    assert len(few.accuracies) == 4 and np.std(few.accuracies) > np.std(many.accuracies)
    twice = label_curve(digits, test, lambda x: np.tile(pixel_features(x), 2), (2,), draws=4)
    close = pytest.approx(few.accuracies, abs=5)
    assert twice[2].accuracies == close, "the same labels, the same knowledge"
    with pytest.raises(UserError, match="500 labels of each class"):
        label_curve(digits, test, pixel_features, (500,))


def test_c_is_chosen_on_validation_and_never_on_what_is_classified_in_the_end(digits):
    test = load_image_set("digits", "test")
    wrong, wrong_held = (
        replace(part, labels=(part.labels + 1) % 10) for part in (test, digits.validation)
    )
    cases = (digits, test), (digits, wrong), (replace(digits, validation=wrong_held), test)
    right, misjudged, misled = (
        label_curve(*case, pixel_features, (2,), draws=1)[2] for case in cases
    )
    assert (misjudged.curve, misjudged.c) == (right.curve, right.c)
    assert misjudged.accuracies != right.accuracies and misled.curve != right.curve


# ---- the test images ----
def look(splits, id, **options):
    with splits.test_for(id, **options) as test:
        return test


def test_test_images_are_given_out_once_a_result(digits):
    test = look(digits, "table2.dcgan:digits")
    assert test.images_u8.shape == (360, 1, 8, 8) and test.labels.shape == (360,)
    how = {"unit": "%", "n": 9, "data": "some, test", "command": "dcgan measure it", "seconds": 1}
    record("table2.dcgan", 23.0, **how)
    # looked at and not recorded; recorded; recorded, by its other name
    for id in ("table2.dcgan:digits", "table2.dcgan", "table2.dcgan:svhn"):
        with pytest.raises(UserError, match=r"by --again .* measured again on purpose"):
            look(digits, id)
        check_unused(id, again=True)
    look(digits, "table2.dcgan:digits", again=True)
    look(digits, "table1.pixels:digits")  # another result
    with pytest.raises(UserError, match="not the id of a claim"):
        look(digits, "table2.mine")


def test_ctrl_c_takes_a_look_back(digits):
    with pytest.raises(KeyboardInterrupt), digits.test_for("table2.dcgan:digits"):
        raise KeyboardInterrupt
    look(digits, "table2.dcgan:digits")
    with pytest.raises(UserError, match="by --again"):
        look(digits, "table2.dcgan:digits")


@pytest.fixture
def asked(monkeypatch):
    """Return what is loaded: sets, splits and numbers of images."""
    found, load = [], load_image_set

    def watched(name, split, *, num_images=None, **how):
        found.append((name, split, num_images))
        return load("digits", split)

    monkeypatch.setattr(protocols, "load_image_set", watched)
    return found


def test_test_images_are_not_loaded_before(asked):
    fit("full", load_splits("digits"), for_test=True)
    assert asked == [("digits", "train", None), ("digits", "validation", None)]


def test_a_procedural_set_is_judged_on_as_many_images_as_a_published_one(asked):
    load_splits("street_digits")
    assert [num for _, _, num in asked] == [None, 10_000]


def test_splits_that_do_not_fit_are_refused(digits):
    nameless = ImageSet(name="nameless", images_u8=digits.train.images_u8)
    with pytest.raises(UserError, match="the images of nameless have no classes to learn"):
        LabelledSplits(train=nameless, validation=nameless)
    with pytest.raises(UserError, match="of one set and size"):
        LabelledSplits(train=digits.train, validation=coloured(20, 0))
