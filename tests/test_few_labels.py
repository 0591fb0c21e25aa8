"""The two methods of Table 2 beside each other: equal intervals, an honest verdict, a command for what is missing."""

from dataclasses import replace

import numpy as np
import pytest

from dcgan_lib import cli
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import protocols as held_out
from dcgan_lib.evaluation.features import pixel_features
from dcgan_lib.evaluation.ledger import (
    CLAIMS,
    command_for,
    load_results,
    record,
    results_html,
    results_markdown,
    results_table,
)
from dcgan_lib.evaluation.protocols import label_curve, load_splits
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval
from dcgan_lib.experiments.svhn_1000_labels import (
    SETS,
    Rivals,
    compare,
    keep_draws,
    load_draws,
    mean_error,
)


def put(root, id, errors, num_images=10_000):
    """Record a row with the errors of its draws."""
    value = float(np.mean(errors))
    row = record(
        id,
        value=value,
        low=value,
        high=value,
        unit="%",
        n=len(errors),
        data="some, test",
        command="dcgan measure it",
        seconds=1,
        checks={"it is so": True},
        root=root,
    )
    keep_draws(row, errors, num_images, root)
    return row


# ---- intervals ----
def test_a_mean_over_draws_is_as_sure_as_draws_and_images_allow():
    errors = np.array([19.0, 20.0, 21.0, 20.5, 19.5])
    many, few = mean_error(errors, 10**9), mean_error(errors, 100)
    assert many == pytest.approx(mean_interval(errors), abs=0.01), (
        "endless images: only the draws are left"
    )
    still = mean_error(np.full(5, 20.0), 100)
    assert still == pytest.approx(wilson_interval(20, 100).scaled(100)), (
        "equal draws: only the images are left"
    )
    assert (
        few.low < still.low
        and few.low < many.low
        and few.high > still.high
        and few.high > many.high
    )


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        right = np.clip(
            20 + rng.normal(0, 2, 10), 0, 100
        )  # what each draw's classifier would err on endless images
        tested = rng.binomial(500, right / 100) / 5
        found = mean_error(tested, 500)
        hits += found.low <= 20 <= found.high
    assert hits / 400 > 0.93


# ---- verdicts ----
@pytest.mark.parametrize(
    ("features", "supervised", "outcome"),
    [
        ((20, 21, 22), (30, 31, 32), "features win"),
        ((30, 31, 32), (20, 21, 22), "features are beaten"),
        ((20, 21, 22), (21, 22, 23), "cannot be told apart"),
        ((20, 30, 40), (40, 50, 60), "cannot be told apart"),
    ],
)
def test_who_wins_follows_from_the_interval_of_the_gain(tmp_path, features, supervised, outcome):
    put(tmp_path, "table2.dcgan:mnist", features)
    put(tmp_path, "table2.supervised:mnist", supervised)
    found = compare("mnist", tmp_path)
    assert found.outcome == outcome and found.text().startswith(
        f"mnist: {outcome}: features {np.mean(features):.1f} %"
    )
    assert found.gain.value == pytest.approx(np.mean(supervised) - np.mean(features))
    assert (
        found.gain.low < found.gain.value < found.gain.high
        and found.text().count("[") == 3
        and not found.commands
    )


def test_few_test_images_do_not_decide(tmp_path):
    for num_images, outcome in ((10_000, "features win"), (200, "cannot be told apart")):
        put(tmp_path, "table2.dcgan:mnist", (20.0, 20.1, 20.2), num_images)
        put(tmp_path, "table2.supervised:mnist", (24.0, 24.1, 24.2), num_images)
        assert compare("mnist", tmp_path).outcome == outcome


def test_the_gain_s_interval_is_turned_the_right_way_round():
    uneven = Rivals(set_name="s", features=Estimate(20, 19, 24), supervised=Estimate(30, 30, 30))
    assert uneven.gain == pytest.approx((10, 6, 11)), (
        "features that may be worse by 4 leave a gain of 6"
    )


def test_draws_of_another_measurement_are_refused(tmp_path):
    row = put(tmp_path, "table2.dcgan:mnist", (20, 21, 22))
    errors, num_images = load_draws(row, tmp_path)
    assert errors.tolist() == [20, 21, 22] and num_images == 10_000
    record(
        row.id,
        value=30,
        low=29,
        high=31,
        unit="%",
        n=3,
        data="some, test",
        command="dcgan measure",
        seconds=1,
        checks={"it is so": True},
        root=tmp_path,
    )
    with pytest.raises(UserError, match=r"of another measurement.*run dcgan measure again"):
        compare("mnist", tmp_path)
    (tmp_path / "draws" / "table2.dcgan--mnist.json").unlink()
    with pytest.raises(UserError, match="run dcgan measure"):
        compare("mnist", tmp_path)


def test_the_committed_rows_have_their_draws():
    for set_name in SETS:
        compare(set_name).text()


# ---- what is missing ----
def test_what_is_not_measured_is_said_with_its_command(tmp_path):
    assert [compare(name, tmp_path).outcome for name in SETS] == ["not measured"] * 4
    put(tmp_path, "table2.dcgan:cifar10", (20, 21, 22))
    found = compare("cifar10", tmp_path)
    assert (
        found.outcome == "not measured"
        and found.gain is None
        and found.features
        and found.supervised is None
    )
    assert found.commands == ("dcgan search --set cifar10 --record table2.supervised:cifar10",)
    assert "supervised not measured" in found.text() and found.text().endswith(
        f"run {found.commands[0]}"
    )


@pytest.mark.parametrize("id", ["table2.dcgan", "table2.supervised"])
@pytest.mark.parametrize("set_name", SETS)
def test_the_commands_shown_are_understood(id, set_name):
    full_id = id if set_name == CLAIMS[id].home_set else f"{id}:{set_name}"
    *before, last = (cli.parse(words.split()[1:]) for words in command_for(full_id).split(" && "))
    assert last.record == full_id and last.set == set_name
    assert [command.set or "svhn" for command in before] == [set_name] * (id == "table2.dcgan")


def test_the_ledger_shows_the_command_of_what_is_not_measured(tmp_path):
    rows = load_results(tmp_path)
    commands = {row.id: row.command for row in rows if row.command}
    assert (
        set(commands) == {"table2.dcgan", "table2.supervised"}
        and command_for("table1.dcgan.full") is None
    )
    for text in (results_table(rows), results_markdown(rows)):
        assert all(command in text for command in commands.values())
    assert "not measured: run dcgan search --set svhn --record table2.supervised" in results_html(
        rows
    )
    record(
        "table2.dcgan",
        value=22,
        low=21,
        high=23,
        unit="%",
        n=9,
        data="svhn",
        command="dcgan measure",
        seconds=1,
        root=tmp_path,
    )
    assert "table2.dcgan is not measured" not in results_table(load_results(tmp_path))


# ---- more labels ----
def test_more_labels_help_and_the_draws_are_the_same_for_every_kind():
    splits, test = load_splits("digits"), load_image_set("digits", "test")
    curve = label_curve(splits, test, pixel_features, (2, 30), draws=4)
    few, many = curve[2], curve[30]
    assert few.error.low > many.error.high and (few.num_labels, many.num_labels, few.n) == (
        20,
        300,
        360,
    )
    assert (
        few.split == "test"
        and len(few.accuracies) == 4
        and np.std(few.accuracies) > np.std(many.accuracies)
    )
    twice = label_curve(splits, test, lambda x: np.tile(pixel_features(x), 2), (2,), draws=4)
    assert twice[2].accuracies == pytest.approx(few.accuracies, abs=5), (
        "the same labels, the same knowledge"
    )
    with pytest.raises(UserError, match="500 labels of each class"):
        label_curve(splits, test, pixel_features, (500,))


def test_c_for_a_number_of_labels_is_chosen_on_validation_and_never_on_what_is_classified_in_the_end():
    splits, test = load_splits("digits"), load_image_set("digits", "test")
    wrong, wrong_held = (
        replace(part, labels=(part.labels + 1) % 10) for part in (test, splits.validation)
    )
    cases = (splits, test), (splits, wrong), (replace(splits, validation=wrong_held), test)
    right, misjudged, misled = (
        label_curve(*case, pixel_features, (2,), draws=1)[2] for case in cases
    )
    assert (misjudged.curve, misjudged.c) == (
        right.curve,
        right.c,
    ) and misjudged.accuracies != right.accuracies
    assert misled.curve != right.curve


def test_a_drawn_set_is_judged_on_as_many_images_as_a_published_one(monkeypatch):
    asked = {}
    digits = load_image_set("digits")
    monkeypatch.setattr(
        held_out,
        "load_image_set",
        lambda name, split, num_images, **_: asked.update({split: num_images}) or digits,
    )
    load_splits("street_digits")
    assert asked == {"train": None, "validation": 10_000}
    load_splits("cifar10")
    assert asked == {"train": None, "validation": None}
