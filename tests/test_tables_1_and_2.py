"""The two methods of Table 2 beside each other: equal intervals, an honest outcome, a command for
what is missing."""

import numpy as np
import pytest

from dcgan_lib import cli
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import claims, id_on, record
from dcgan_lib.evaluation.statistics import mean_interval, wilson_interval
from dcgan_lib.experiments.tables_1_and_2 import (
    Draws,
    command_for,
    compare,
    gain,
    keep_draws,
    load_draws,
)

SETS = ("svhn", "svhn10k", "cifar10", "mnist", "street-digits")


def mean_error(errors, num_images):
    return Draws(test_errors=errors, num_images=num_images).error


@pytest.fixture
def own_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


def enter(id, errors):
    return record(
        id,
        float(np.mean(errors)),
        unit="%",
        n=len(errors),
        data="some, test",
        command="dcgan measure it",
        seconds=1,
        checks={"it is so": True},
    )


def put(id, errors, num_images=10_000, right_n=None):
    """Record a row with what its draws gave."""
    row = enter(id, errors)
    keep_draws(row, Draws(test_errors=np.array(errors), num_images=num_images, right_n=right_n))
    return row


def classify(skill, ease_n, rng, num_draws=20):
    """Return the draws of a method of some skill on images of which some are easy, some hard."""
    right_dn = rng.random((num_draws, len(ease_n))) < np.clip(ease_n + skill, 0, 1)
    errors = 100 - 100 * right_dn.mean(1)
    return Draws(test_errors=errors, num_images=len(ease_n), right_n=right_dn.mean(0))


# ---- intervals ----
def test_a_mean_over_draws_is_as_sure_as_draws_and_images_allow():
    errors = np.array([19.0, 20.0, 21.0, 20.5, 19.5])
    many, few = mean_error(errors, 10**9), mean_error(errors, 100)
    close = pytest.approx(mean_interval(errors), abs=0.01)
    assert many == close, "endless images: only the draws are left"
    still, images = mean_error(np.full(5, 20.0), 100), wilson_interval(20, 100).scaled(100)
    assert still == pytest.approx(images), "equal draws: only the images are left"
    assert few.low < min(still.low, many.low) and few.high > max(still.high, many.high)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        # what each draw's classifier would err on endless images
        right = np.clip(20 + rng.normal(0, 2, 10), 0, 100)
        tested = rng.binomial(500, right / 100) / 5
        found = mean_error(tested, 500)
        hits += found.low <= 20 <= found.high
    assert hits / 400 > 0.93


# ---- outcomes ----
@pytest.mark.parametrize(
    ("features", "supervised", "outcome"),
    [
        ((20, 21, 22), (30, 31, 32), "features win"),
        ((30, 31, 32), (20, 21, 22), "features are beaten"),
        ((20, 21, 22), (21, 22, 23), "cannot be told apart"),
        ((20, 30, 40), (40, 50, 60), "cannot be told apart"),
    ],
)
def test_who_wins_follows_from_the_interval_of_the_gain(own_ledger, features, supervised, outcome):
    put("table2.dcgan:mnist", features)
    put("table2.supervised:mnist", supervised)
    found = compare("mnist")
    assert found.outcome == outcome
    assert found.gain.value == pytest.approx(np.mean(supervised) - np.mean(features))
    assert found.gain.low < found.gain.value < found.gain.high


def test_few_test_images_do_not_decide(own_ledger):
    for num_images, outcome in ((10_000, "features win"), (200, "cannot be told apart")):
        put("table2.dcgan:mnist", (20.0, 20.1, 20.2), num_images)
        put("table2.supervised:mnist", (24.0, 24.1, 24.2), num_images)
        assert compare("mnist").outcome == outcome


def test_the_gain_s_interval_is_turned_the_right_way_round():
    uneven = Draws(test_errors=np.array([1.0, 1.0]), num_images=100)
    surer = Draws(test_errors=np.array([30.0, 30.0]), num_images=10**9)
    found, (error, low, high) = gain(uneven, surer), uneven.error
    assert high - error > 2 * (error - low), "an error near 0 may be more, hardly less"
    assert found.low == pytest.approx(30 - high, abs=0.1), "then the gain is less"
    assert found.high == pytest.approx(30 - low, abs=0.1)


def test_images_that_both_methods_find_hard_do_not_blur_the_gain():
    rng = np.random.default_rng(0)
    ease_n = rng.choice([0.05, 0.95], 2_000)
    better, worse = (classify(skill, ease_n, rng) for skill in (0.02, 0.0))
    paired = gain(better, worse)
    others = [Draws(test_errors=each.test_errors, num_images=2_000) for each in (better, worse)]
    unpaired = gain(*others)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.low > 0 > unpaired.low, "the same images: their hardness cancels"


def test_the_paired_interval_holds_the_truth_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        ease_n = rng.uniform(0.1, 0.8, 400)
        found = gain(classify(0.1, ease_n, rng), classify(0.05, ease_n, rng))
        hits += found.low <= 5 <= found.high
    assert hits / 200 > 0.93


def test_draws_of_another_measurement_are_refused(own_ledger):
    right_n = np.array([0, 1, 1, 2]) / 3
    found = load_draws(put("table2.dcgan:mnist", (20, 21, 22), 4, right_n))
    assert found.test_errors.tolist() == [20, 21, 22] and found.num_images == 4
    assert found.right_n == pytest.approx(right_n)
    assert load_draws(put("table2.dcgan:mnist", (20, 21, 22))).right_n is None
    enter("table2.dcgan:mnist", (29, 30, 31))
    with pytest.raises(UserError, match=r"of another measurement.*run dcgan measure it again"):
        compare("mnist")
    (own_ledger / "draws" / "table2.dcgan--mnist.json").unlink()
    with pytest.raises(UserError, match="run dcgan measure"):
        compare("mnist")


def test_the_committed_rows_have_their_draws():
    for set_name in SETS:
        found = compare(set_name)
        assert (found.outcome == "not measured") == (None in (found.features, found.supervised))


# ---- what is missing ----
def test_what_is_not_measured_is_said(own_ledger):
    assert [compare(name).outcome for name in SETS] == ["not measured"] * len(SETS)
    put("table2.dcgan:cifar10", (20, 21, 22))
    found = compare("cifar10")
    assert found.outcome == "not measured" and found.gain is None
    assert found.features and found.supervised is None


@pytest.mark.parametrize("claim_id", ["table2.dcgan", "table2.supervised"])
@pytest.mark.parametrize("set_name", SETS)
def test_the_commands_shown_are_understood(claim_id, set_name):
    id = id_on(claim_id, set_name)
    *before, last = (cli.parse(words.split()[1:]) for words in command_for(id).split(" && "))
    assert last.record == id and last.set == set_name
    assert [command.set or claims()[claim_id].home for command in before] == [set_name] * len(
        before
    )
