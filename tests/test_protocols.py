"""Labels drawn, C chosen on validation, the test images seen once a result, rows that reach the ledger."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import protocols
from dcgan_lib.evaluation import protocols as held_out
from dcgan_lib.evaluation.features import pixel_features
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.evaluation.protocols import (
    PROTOCOLS,
    DrawnSVM,
    LabelledSplits,
    Outcome,
    c_at,
    check_unused,
    choose_c,
    draw_labels,
    fit_protocol,
    load_splits,
)
from dcgan_lib.experiments import cifar10_features as feature_rows
from dcgan_lib.experiments.cifar10_features import check_row, needs_control, record_features
from dcgan_lib.experiments.supervised_search import draw_labelled

COMMAND = "dcgan features pixels --set digits --protocol 1000 --split test --seed 0"


@pytest.fixture(autouse=True)
def nothing_given_out(monkeypatch):
    monkeypatch.setattr(held_out, "_given_out", set())


@pytest.fixture(scope="module")
def digits():
    return load_splits("digits")


def coloured(num, seed, name="cifar10"):
    """Noise whose mean colour tells the class, for the most part."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 10
    centres = np.random.default_rng(7).integers(90, 170, (10, 3, 4, 4))
    images = np.clip(centres[labels] + rng.normal(0, 60, (num, 3, 4, 4)), 0, 255).astype(np.uint8)
    return ImageSet(name=name, images_u8=images, labels=labels, class_names=tuple("abcdefghij"))


def outcome(*accuracies, split="test", n=1_000, **more):
    given = {
        "c": 1e-3,
        "curve": {1e-3: 70.0},
        "num_labels": 1_000,
        "num_features": 48,
        "seconds": 2.0,
    }
    return Outcome(split=split, accuracies=accuracies, n=n, **given | more)


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
    assert all(
        (np.bincount(labels[rows]) == 20).all() and len(np.unique(rows)) == 200 for rows in draws
    )
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[2], draw_labels(labels, 20, 3, [0, 1])[2])
    with pytest.raises(UserError, match="one class has 50"):
        draw_labels(labels, 51, 1, [0])


def test_draws_are_the_ones_that_recorded_results_were_made_with():
    """Another stream of random numbers would give a search that goes on other labels than it began with."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 20))
    rows = [[6, 12, 14, 15, 24, 38, 47, 58, 59], [9, 14, 28, 30, 31, 47, 55, 57, 58]]
    assert [found.tolist() for found in draw_labels(labels, 3, 2, [0, 1])] == rows
    pictures = np.arange(60, dtype=np.uint8)[:, None, None, None]
    pool = ImageSet(name="numbered", images_u8=pictures, labels=labels, class_names=("a", "b", "c"))
    chosen = [draw_labelled(pool, 9, seed).images_u8.ravel().tolist() for seed in ([0, 1, 1], 5)]
    assert chosen == [rows[1], [0, 15, 17, 23, 28, 30, 33, 39, 46]]


# ---- protocols ----
def test_accuracy_is_that_of_linear_svc_with_the_chosen_c(digits):
    found = fit_protocol("full", digits, pixel_features, for_test=True)
    with pytest.raises(UserError, match="for validation only"):
        fit_protocol("full", digits, pixel_features).on_test(
            digits.validation.images_u8, digits.validation.labels
        )
    best = found.on_validation
    assert best.accuracies == (max(best.curve.values()),) and (best.n, best.num_labels) == (
        180,
        1_257,
    )
    x, held = (pixel_features(part.images_u8) for part in (digits.train, digits.validation))
    svm = LinearSVC(C=best.c, tol=1e-6, max_iter=20_000, random_state=0).fit(x, digits.train.labels)
    assert best.accuracies[0] == pytest.approx(
        100 * svm.score(held, digits.validation.labels), abs=0.6
    )
    with digits.test_for("table1.dcgan.full:digits") as (images, labels):
        test = found.on_test(images, labels)
    assert (test.split, test.n, test.num_labels, test.c) == ("test", 360, 1_437, best.c)
    assert 80 < test.accuracy.low < test.accuracy.value < 99


def test_thousand_labels(digits, tmp_path):
    found = fit_protocol("1000", digits, pixel_features, draws=4, path=tmp_path / "features.npy")
    best = found.on_validation
    assert len(best.accuracies) == 4 and len(set(best.accuracies)) > 1 and best.num_labels == 1_000
    assert np.load(tmp_path / "features.npy").shape == (1_257 + 180, 64)
    mean, low, high = best.accuracy
    assert high - mean == pytest.approx(mean - low) == pytest.approx(1.96 * np.std(best.accuracies))
    assert best.error == pytest.approx((100 - mean, 100 - high, 100 - low))
    again = fit_protocol("1000", digits, pixel_features, draws=4).on_validation
    assert again.accuracies == best.accuracies and again.curve == best.curve
    assert (
        fit_protocol("1000", digits, pixel_features, draws=4, seed=1).on_validation.accuracies
        != best.accuracies
    )


@pytest.fixture
def learnt(monkeypatch):
    """Return what each SVM is to learn from, features and labels, where C is given."""
    made = []

    class Watched(DrawnSVM):
        def __init__(self, x_nf, labels, rows):
            made.append((x_nf[rows], labels[rows]))
            super().__init__(x_nf, labels, rows)

    monkeypatch.setattr(protocols, "DrawnSVM", Watched)
    monkeypatch.setattr(protocols, "choose_on", lambda *_: (1e-3, {1e-3: 50.0}))
    return made


def test_accuracy_is_reported_over_other_draws_of_labels_than_c_was_chosen_on(digits, learnt):
    fit_protocol("1000", digits, pixel_features, draws=2, seed=3)
    train = digits.train
    drawn = draw_labels(train.labels, 100, 10, [3, 0]) + draw_labels(train.labels, 100, 2, [3, 1])
    for (x, labels), rows in zip(learnt, drawn, strict=True):
        np.testing.assert_array_equal(x, pixel_features(train.images_u8[rows]))
        np.testing.assert_array_equal(labels, train.labels[rows])


def test_with_all_labels_c_is_chosen_without_the_validation_labels_and_the_final_svm_has_them_too(
    digits, learnt
):
    fit_protocol("full", digits, pixel_features, for_test=True)
    for (x, labels), parts in zip(
        learnt, ([digits.train], [digits.train, digits.validation]), strict=True
    ):
        np.testing.assert_array_equal(
            x, pixel_features(np.concatenate([part.images_u8 for part in parts]))
        )
        np.testing.assert_array_equal(labels, np.concatenate([part.labels for part in parts]))


def test_four_hundred_labels_a_class_and_features_without_a_clue():
    splits = LabelledSplits(train=coloured(4_500, 0), validation=coloured(500, 1))
    found = fit_protocol("400", splits, pixel_features, draws=5).on_validation
    assert found.num_labels == 4_000 and len(found.accuracies) == 5 and found.accuracy.value > 60
    blind = np.random.default_rng(0)
    guess = fit_protocol(
        "400", splits, lambda x: blind.normal(size=(len(x), 8)).astype(np.float32), draws=2
    )
    assert guess.on_validation.accuracy.value < 20


def test_what_is_no_protocol_is_refused(digits):
    for name, more, message in (
        ("some", {}, "no protocol 'some'"),
        ("full", {"draws": 2}, "cannot have 2 draws"),
        ("1000", {"draws": 0}, "cannot have 0 draws"),
        ("400", {}, "400 labels of each class were asked for"),
    ):
        with pytest.raises(UserError, match=message):
            fit_protocol(name, digits, pixel_features, **more)


# ---- the test images ----
def test_test_images_are_given_out_once_a_result(digits, tmp_path):
    with digits.test_for("table2.dcgan:digits", root=tmp_path) as (images, labels):
        assert images.shape == (360, 1, 8, 8) and labels.shape == (360,)
    with (
        pytest.raises(UserError, match=r"used for table2\.dcgan:digits before"),
        digits.test_for("table2.dcgan:digits", root=tmp_path),
    ):
        pass
    with digits.test_for("table1.pixels:digits", root=tmp_path):  # another result
        pass
    with digits.test_for("table2.dcgan:digits", again=True, root=tmp_path):
        pass
    with (
        pytest.raises(UserError, match="not the id of a claim"),
        digits.test_for("table2.mine", root=tmp_path),
    ):
        pass


def test_a_recorded_result_keeps_the_test_images_closed_in_later_sessions(tmp_path):
    check_unused("table2.dcgan:svhn", root=tmp_path)
    record_features(
        "table2.dcgan",
        outcome(76.0, 77.0),
        image_set="svhn",
        command=COMMAND,
        seed=0,
        root=tmp_path,
    )
    for id in ("table2.dcgan", "table2.dcgan:svhn"):  # one result under two names
        with pytest.raises(UserError, match=r"by --again .* measured again on purpose"):
            check_unused(id, root=tmp_path)
    check_unused("table2.dcgan", again=True, root=tmp_path)


def test_test_images_are_not_loaded_before(digits, monkeypatch):
    asked = []
    load = held_out.load_image_set
    monkeypatch.setattr(
        held_out, "load_image_set", lambda *a, **k: asked.append(a) or load(*a, **k)
    )
    splits = load_splits("digits")
    fit_protocol("full", splits, pixel_features, for_test=True)
    assert asked == [("digits", "train"), ("digits", "validation")]
    assert not hasattr(splits, "test")


def test_splits_that_do_not_fit_are_refused(digits):
    nameless = ImageSet(name="nameless", images_u8=digits.train.images_u8)
    with pytest.raises(UserError, match="the images of nameless have no classes to learn"):
        LabelledSplits(train=nameless, validation=nameless)
    with pytest.raises(UserError, match="of one set and size"):
        LabelledSplits(train=digits.train, validation=coloured(20, 0))


# ---- rows ----
@pytest.mark.parametrize(
    ("id", "changes", "message"),
    [
        ("table3.real.50k", {}, "features are recorded in the rows"),
        ("table1.dcgan.full", {"protocol": "400"}, "by the protocol full, but this is 400"),
        ("table1.pixels", {}, "other features than dcgan"),
        ("table1.kmeans1.full", {}, "other features than dcgan"),
        ("table1.dcgan.full", {"set_name": "mnist"}, "record it as table1.dcgan.full:mnist"),
        ("table1.dcgan.full:mnist", {}, "record it as table1.dcgan.full"),
        ("table1.dcgan.full", {"trained_on": "cifar10"}, "never saw cifar10"),
        ("table1.dcgan-cifar", {}, "trained on cifar10, but this one saw tinyimagenet32"),
        ("table1.dcgan.full", {"command": "dcgan features /here/run"}, "absolute path"),
        ("table1.random", {"kind": "random"}, "table1.dcgan.full: measure that first"),
        (
            "table1.random",
            {"kind": "random", "batch_norm": "stored"},
            "table1.random-stored for stored: got stored",
        ),
        ("table1.random-stored", {"kind": "random"}, "table1.random is for measured statistics"),
        ("table1.dcgan-cifar", {"trained_on": "cifar10"}, "table1.random: measure that first"),
    ],
)
def test_what_does_not_belong_into_a_row_is_refused(id, changes, message, tmp_path):
    given = {"kind": "dcgan", "protocol": "full", "set_name": "cifar10", "command": COMMAND}
    given |= {"trained_on": "tinyimagenet32", "root": tmp_path}
    check_row("table1.dcgan.full", **given)
    with pytest.raises(UserError, match=message):
        check_row(id, **given | changes)


def test_rows_are_accuracies_in_table_1_and_errors_in_table_2(tmp_path):
    how = {"command": COMMAND, "seed": 0, "root": tmp_path}
    first = record_features(
        "table1.dcgan.full", outcome(83.5, n=10_000), image_set="cifar10", **how
    )
    second = record_features("table2.dcgan", outcome(76.0, 78.0), image_set="svhn", **how)
    assert (first.value, first.n, first.verdict) == (83.5, 10_000, "reproduced")
    assert (second.value, second.low, second.high) == pytest.approx((23, 23 - 1.96, 23 + 1.96))
    assert "2 draws of labels" in second.notes and "C 0.001 chosen on validation" in second.notes
    assert {row.id for row in load_results(tmp_path) if row.is_measured} == {
        "table1.dcgan.full",
        "table2.dcgan",
    }


def test_rows_without_the_paper_s_number_are_judged_by_a_control(tmp_path):
    how = {"command": COMMAND, "seed": 0, "root": tmp_path}
    trained, weak = outcome(83.5, n=10_000), outcome(70.0, n=10_000)
    record_features("table1.dcgan.full", trained, image_set="cifar10", **how)
    assert (
        record_features("table1.pixels", weak, image_set="cifar10", **how).verdict == "reproduced"
    )
    assert (
        record_features("table1.random", trained, image_set="cifar10", **how).verdict
        == "not reproduced"
    )
    worse = record_features(
        "table1.dcgan-cifar", outcome(83.0, n=10_000), image_set="cifar10", **how
    )
    assert worse.verdict == "not reproduced" and "random weights, 83.50 %, do worse" in worse.notes
    record_features("table1.random", weak, image_set="cifar10", **how)
    better = record_features(
        "table1.dcgan-cifar", outcome(83.0, n=10_000), image_set="cifar10", **how
    )
    assert better.verdict == "reproduced"
    assert [
        needs_control(id) for id in ("table1.dcgan-cifar", "table2.dcgan:mnist", "table2.dcgan")
    ] == [
        False,
        True,
        False,
    ]
    with pytest.raises(UserError, match="measure a control"):
        record_features("table2.dcgan:mnist", trained, image_set="mnist", **how)
    row = record_features(
        "table2.dcgan:mnist", trained, image_set="mnist", control=("pixels", weak), **how
    )
    assert (
        row.verdict == "reproduced"
        and "pixels, 70.00 % right, do worse" in row.notes
        and row.seconds == 4
    )
    with pytest.raises(UserError, match="this outcome is on validation"):
        record_features("table2.dcgan", outcome(80.0, split="validation"), image_set="svhn", **how)
    assert set(feature_rows.PROTOCOL_OF.values()) == set(PROTOCOLS)
