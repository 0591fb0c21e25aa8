"""The two methods of Table 2 beside each other: equal intervals, an honest outcome, a command for
what is missing."""

import numpy as np
import pytest

from dcgan_lib import cli
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import claims, id_on, record
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval
from dcgan_lib.experiments.tables_1_and_2 import (
    SETS,
    Comparison,
    command_for,
    compare,
    keep_draws,
    load_draws,
    mean_error,
)


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


def put(id, errors, num_images=10_000):
    """Record a row with the errors of its draws."""
    row = enter(id, errors)
    keep_draws(row, errors, num_images)
    return row


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
    assert found.outcome == outcome and not found.commands
    assert found.text().startswith(f"mnist: {outcome}: features {np.mean(features):.1f} %")
    assert found.gain.value == pytest.approx(np.mean(supervised) - np.mean(features))
    assert found.gain.low < found.gain.value < found.gain.high and found.text().count("[") == 3


def test_few_test_images_do_not_decide(own_ledger):
    for num_images, outcome in ((10_000, "features win"), (200, "cannot be told apart")):
        put("table2.dcgan:mnist", (20.0, 20.1, 20.2), num_images)
        put("table2.supervised:mnist", (24.0, 24.1, 24.2), num_images)
        assert compare("mnist").outcome == outcome


def test_the_gain_s_interval_is_turned_the_right_way_round():
    features, supervised = Estimate(20, 19, 24), Estimate(30, 30, 30)
    uneven = Comparison(set_name="s", features=features, supervised=supervised)
    close = pytest.approx((10, 6, 11))
    assert uneven.gain == close, "features that may be worse by 4 leave a gain of 6"


def test_draws_of_another_measurement_are_refused(own_ledger):
    errors, num_images = load_draws(put("table2.dcgan:mnist", (20, 21, 22)))
    assert errors.tolist() == [20, 21, 22] and num_images == 10_000
    enter("table2.dcgan:mnist", (29, 30, 31))
    with pytest.raises(UserError, match=r"of another measurement.*run dcgan measure it again"):
        compare("mnist")
    (own_ledger / "draws" / "table2.dcgan--mnist.json").unlink()
    with pytest.raises(UserError, match="run dcgan measure"):
        compare("mnist")


def test_the_committed_rows_have_their_draws():
    for set_name in SETS:
        compare(set_name).text()


# ---- what is missing ----
def test_what_is_not_measured_is_said_with_its_command(own_ledger):
    assert [compare(name).outcome for name in SETS] == ["not measured"] * 4
    put("table2.dcgan:cifar10", (20, 21, 22))
    found = compare("cifar10")
    assert found.outcome == "not measured" and found.gain is None
    assert found.features and found.supervised is None
    command = "dcgan search --set cifar10 --record table2.supervised:cifar10"
    assert found.commands == (command,)
    assert "supervised not measured" in found.text() and found.text().endswith(f"run {command}")


@pytest.mark.parametrize("claim_id", ["table2.dcgan", "table2.supervised"])
@pytest.mark.parametrize("set_name", [*SETS, "svhn10k"])
def test_the_commands_shown_are_understood(claim_id, set_name):
    id = id_on(claim_id, set_name)
    *before, last = (cli.parse(words.split()[1:]) for words in command_for(id).split(" && "))
    assert last.record == id and last.set == set_name
    assert [command.set or claims()[claim_id].home for command in before] == [set_name] * len(
        before
    )
