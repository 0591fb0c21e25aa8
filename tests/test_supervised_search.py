"""The supervised rival: the discriminator's own body, settings that repeat, a search that resumes, a row of Table 2."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.data import load as drawn_sets
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import ledger as details
from dcgan_lib.evaluation import ledger as results
from dcgan_lib.evaluation import protocols as held_out
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.experiments import supervised_search as module
from dcgan_lib.experiments import supervised_search as supervised
from dcgan_lib.experiments.supervised_search import (
    SPACE,
    Search,
    Settings,
    _minibatches,
    best_trial,
    describe_space,
    draw_labelled,
    draw_settings,
    read_trials,
    record_search,
    train_supervised,
    wrong_answers,
)
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.models.dcgan import Discriminator

TINY = ModelConfig(image_size=(8, 8), num_channels=1, base_width=8, num_stages=1)
GOOD = Settings(
    learning_rate=5e-3,
    beta1=0.9,
    weight_decay=1e-2,
    dropout=0.1,
    augment=False,
    batch_size=32,
    epochs=8,
)
COMMAND = "dcgan search --set mnist --trials 64 --record table2.supervised:mnist"


@pytest.fixture(scope="module")
def digits():
    return load_image_set("digits"), load_image_set("digits", "validation")


def test_the_body_is_the_discriminator_s():
    config = replace(recipe("paper-svhn").config.model, base_width=4)
    network, rival = SupervisedCnn(config, 10, 0.5).eval(), Discriminator(config).eval()
    body = {
        name: value for name, value in rival.state_dict().items() if not name.startswith("head.")
    }
    network.load_state_dict(
        body | {"head.1.weight": torch.zeros(10, rival.head.in_features)}
    )  # strict: nothing else
    x_bchw = torch.rand(3, 3, 32, 32) * 2 - 1
    for ours, theirs in zip(network.features(x_bchw), rival.features(x_bchw), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert network(x_bchw).shape == (3, 10)


@pytest.mark.parametrize(
    ("change", "classes", "dropout"),
    [
        ({"num_classes": 10}, 10, 0.0),
        ({"architecture": "dense", "hidden_units": 8, "num_stages": 1}, 10, 0.0),
        ({}, 1, 0.0),
        ({}, 10, 1.0),
    ],
)
def test_other_networks_are_refused(change, classes, dropout):
    with pytest.raises(UserError, match="the supervised network needs"):
        SupervisedCnn(replace(TINY, **change), classes, dropout)


def test_settings_depend_on_the_seed_and_the_trial_alone():
    drawn = [draw_settings(3, trial) for trial in range(200)]
    assert drawn[7] == draw_settings(3, 7) != draw_settings(4, 7) and len(set(drawn)) == 200
    for name, values in SPACE.items():
        found = np.array([getattr(settings, name) for settings in drawn])
        if isinstance(values, list):
            assert set(found.tolist()) == set(values), "every choice is met"
        else:
            assert stats.kstest(found, values.cdf).pvalue > 1e-3
        assert name in describe_space()
    assert (
        describe_space().splitlines()[0].split(maxsplit=1)[1] == "log-uniform from 0.0001 to 0.01"
    )


def test_labels_are_drawn_evenly(digits):
    train, _ = digits
    drawn, again, other = (draw_labelled(train, 100, seed) for seed in ([0, 1], [0, 1], [0, 2]))
    assert (np.bincount(drawn.labels) == 10).all() and len(
        np.unique(drawn.images_u8, axis=0)
    ) == 100
    np.testing.assert_array_equal(drawn.images_u8, again.images_u8)
    assert not np.array_equal(drawn.images_u8, other.images_u8)


def test_labels_that_cannot_be_drawn_evenly_are_refused(digits):
    train, _ = digits
    for number in (0, 105, 100_000):
        with pytest.raises(UserError, match="cannot be drawn evenly"):
            draw_labelled(train, number, 0)
    with pytest.raises(UserError, match="0 classes"):
        draw_labelled(ImageSet(name="bare", images_u8=train.images_u8), 10, 0)


def test_training_learns_from_right_labels_only_and_repeats_itself(digits):
    train, validation = digits
    labelled = draw_labelled(train, 300, 0)
    network, epoch = train_supervised(labelled, validation, TINY, GOOD, seed=1)
    wrong = wrong_answers(network, validation)
    assert (
        wrong.shape == (180,)
        and wrong.mean() < 0.2
        and 1 <= epoch <= GOOD.epochs
        and not network.training
    )
    again, _ = train_supervised(labelled, validation, TINY, GOOD, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True)
    )
    shuffled = replace(labelled, labels=np.random.default_rng(0).permutation(labelled.labels))
    lost, _ = train_supervised(shuffled, validation, TINY, GOOD, seed=1)
    assert wrong_answers(lost, validation).mean() > 0.6


def test_the_epoch_with_the_least_validation_error_is_kept(digits, monkeypatch):
    errors, met = iter([0.5, 0.3, 0.4, 0.3, *[0.4] * 40]), []

    def judged(network, *_, **__):
        met.append(network.head[1].weight.detach().clone())
        return np.array([next(errors)])

    monkeypatch.setattr(supervised, "wrong_answers", judged)
    labelled = draw_labelled(digits[0], 50, 0)
    network, epoch = train_supervised(labelled, digits[1], TINY, replace(GOOD, epochs=24), seed=0)
    assert (
        epoch == 2
        and torch.equal(network.head[1].weight, met[1])
        and not torch.equal(met[1], met[2])
    )
    assert len(met) == 2 + supervised.PATIENCE, "it stops when it no longer gets better"


def test_batch_norm_forgets_where_it_began(digits):
    labelled = draw_labelled(digits[0], 50, 0)
    still = replace(GOOD, epochs=1, batch_size=25, learning_rate=1e-12)  # two steps
    network, _ = train_supervised(labelled, digits[1], replace(TINY, num_stages=2), still, seed=0)
    assert network.norms[1].running_var.max() < 0.1, "it starts at 1, and the maps hardly vary"


@pytest.mark.parametrize(("name", "mirrored"), [("cifar10", True), ("mnist", False)])
def test_only_photographs_are_mirrored(name, mirrored):
    images = np.zeros((64, 1, 32, 32), np.uint8)
    images[..., 24:] = 255  # bright on the right
    labelled = ImageSet(
        name=name, images_u8=images, labels=np.zeros(64, np.int64), class_names=("one",)
    )
    settings = replace(GOOD, augment=True, batch_size=64)
    ((x_u8, _),) = _minibatches(labelled, settings, np.random.default_rng(0))
    bright_left = (x_u8[..., 0] > 0).flatten(1).any(1)
    assert bool(bright_left.any()) == mirrored and len(x_u8.unique(dim=0)) > 1
    ((plain, _),) = _minibatches(
        labelled, replace(settings, augment=False), np.random.default_rng(0)
    )
    assert len(plain.unique(dim=0)) == 1


# --- the search ---
@pytest.fixture
def options(tmp_path, monkeypatch):
    """A search of seconds, in a data folder of its own."""
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SPACE, "epochs", [1])
    words = [
        "search",
        "--set",
        "digits",
        "--recipe",
        "mnist",
        "--base-width",
        "2",
        "--num-labels",
        "50",
    ]
    return [*words, "--draws", "2", "--device", "cpu"]


def timeless(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def stop_at_the_third_training(monkeypatch):
    """Press Ctrl-C in the third training, and return the list of seeds that were trained with."""
    train, calls = module.train_supervised, []

    def stopped(*arguments, **named):
        calls.append(named["seed"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **named)

    monkeypatch.setattr(module, "train_supervised", stopped)
    return calls


def test_a_search_that_is_stopped_goes_on_with_its_trial(options, tmp_path, monkeypatch, capsys):
    assert cli.main([*options, "--trials", "4", "--run-dir", "whole"]) == 0
    whole = capsys.readouterr().out
    assert "best of 4: trial" in whole and "validation error" in whole and "test error" not in whole
    calls = stop_at_the_third_training(monkeypatch)
    assert cli.main([*options, "--trials", "4", "--run-dir", "broken"]) == 130
    assert len(read_trials(tmp_path / "broken")) == 2
    with (tmp_path / "broken" / "trials.jsonl").open("a") as file:
        file.write(
            '{"trial": 2, "settings": {"learn'
        )  # what a full disk or a lost machine may leave
    assert cli.main([*options, "--trials", "4", "--run-dir", "broken"]) == 0
    assert calls[2] == calls[3] and len(calls) == 7, (
        "only the trial that was stopped is run again; then two draws"
    )
    assert timeless(read_trials(tmp_path / "broken")) == timeless(read_trials(tmp_path / "whole"))
    assert "going on in broken: 2 trials are done" in capsys.readouterr().out


def test_minutes_end_a_search_between_trials(options, tmp_path, capsys):
    assert cli.main([*options, "--trials", "3", "--run-dir", "short", "--minutes", "0"]) == 0
    assert "1 of 3 trials are done" in capsys.readouterr().out
    assert (
        len(read_trials(tmp_path / "short")) == 1
        and not (tmp_path / "short" / "draws.jsonl").exists()
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--run-dir", "one", "--seed", "5"], "another seed"),
        (["--run-dir", "two", "--recipe", "paper-mnist"], "unconditional"),
        (["--run-dir", "two", "--trials", "0"], "at least 1 trial"),
        (["--run-dir", "two", "--base-width", "0"], "the base width must be at least 1"),
        (["--run-dir", "two", "--num-labels", "7"], "cannot be drawn evenly"),
        (["--run-dir", "two", "--seed", "-1"], "the seed must be at least 0"),
        (["--run-dir", "two", "--set", "rooms"], "the images of rooms have no classes to learn"),
        (["--run-dir", "two", "--record", "table2.supervised:mnist"], "table2.supervised:digits"),
        (
            ["--run-dir", "two", "--record", "table2.supervised:digits", "--trials", "8"],
            "64 trials",
        ),
        (
            ["--run-dir", "two", "--record", "table2.supervised:digits", "--trials", "64"],
            "1,000 labels, but these are 50",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_begins(
    options, words, told, capsys, monkeypatch
):
    monkeypatch.setitem(drawn_sets.NUM_DRAWN, "train", 20)  # of rooms, which have no labels
    assert cli.main([*options, "--trials", "1", "--run-dir", "one"]) == 0
    assert cli.main([*options, "--trials", "1", *words]) == 2
    assert told in capsys.readouterr().err
    assert not Path("two").exists(), "the corrected command may use the folder"


def test_test_images_are_opened_for_the_ledger_alone_and_once(options, tmp_path, monkeypatch):
    opened = []
    load = held_out.load_image_set
    monkeypatch.setattr(
        held_out,
        "load_image_set",
        lambda name, split, **named: opened.append(split) or load(name, split, **named),
    )
    search, folder = Search("digits", "mnist", 2, 50), tmp_path / "run"
    best = best_trial(list(module.run_trials(search, folder, 2)))
    plain = module.repeat_best(search, folder, best, 2)
    assert "test" not in opened and all("test_error" not in line for line in plain)
    with search.splits.test_for("table2.supervised:digits", root=tmp_path) as test:
        tested = module.repeat_best(search, folder, best, 2, test=test)
    assert opened.count("test") == 1 and all(0 < line["test_error"] <= 100 for line in tested)
    assert [line["validation_error"] for line in tested] == [
        line["validation_error"] for line in plain
    ]
    monkeypatch.setattr(module, "train_supervised", None)
    assert module.repeat_best(search, folder, best, 2, test=test) == tested, (
        "nothing is trained or tested again"
    )


def test_tested_draws_of_another_trial_are_kept(options, tmp_path):
    search, folder = Search("digits", "mnist", 2, 50), tmp_path / "run"
    first, second = module.run_trials(search, folder, 2)
    with search.splits.test_for("table2.supervised:digits", root=tmp_path) as test:
        tested = module.repeat_best(search, folder, first, 2, test=test)
        module.repeat_best(search, folder, second, 2, test=test)  # more trials found a better one
        assert module.repeat_best(search, folder, first, 2, test=test) == tested
    found = [json.loads(line) for line in (folder / "draws.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["draw"]) for line in found] == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.fixture
def recording(options, tmp_path, monkeypatch):
    """Return the words of a search that is recorded in a ledger of its own."""
    for holder, name, value in ((module, "PAPER_TRIALS", 1), (module, "PAPER_LABELS", 50)):
        monkeypatch.setattr(holder, name, value)
    for holder in (results, details):
        monkeypatch.setattr(holder, "results_root", lambda: tmp_path / "ledger")
    monkeypatch.setattr(held_out, "_given_out", set())
    return [*options, "--trials", "1", "--record", "table2.supervised:digits"]


def test_a_recorded_search_is_measured_again_only_on_purpose(
    recording, tmp_path, monkeypatch, capsys
):
    assert cli.main([*recording, "--run-dir", "first"]) == 0
    (row,) = [row for row in load_results(tmp_path / "ledger") if row.is_measured]
    monkeypatch.setattr(held_out, "_given_out", set())  # as in a later session
    other = [*recording, "--seed", "1", "--run-dir", "second"]
    assert cli.main(other) == 2
    assert "--again" in capsys.readouterr().err and not Path("second").exists(), (
        "refused before it begins"
    )
    assert [found for found in load_results(tmp_path / "ledger") if found.is_measured] == [row]
    assert cli.main([*other, "--again"]) == 0
    (changed,) = [found for found in load_results(tmp_path / "ledger") if found.is_measured]
    assert (row.seed, changed.seed) == (0, 1) and "--again" not in changed.command


def test_a_search_that_is_stopped_while_it_is_recorded_goes_on(recording, tmp_path, monkeypatch):
    calls = stop_at_the_third_training(monkeypatch)
    assert cli.main([*recording, "--run-dir", "broken"]) == 130
    assert cli.main([*recording, "--run-dir", "broken"]) == 0, "in the same session too"
    assert calls[2] == calls[3] and len(calls) == 4, "the draw that was tested is not tested again"
    assert cli.main([*recording, "--run-dir", "broken"]) == 2, "now it is recorded"


def test_a_set_has_one_name(recording, tmp_path, monkeypatch):
    asked = []
    load = held_out.load_image_set
    monkeypatch.setattr(
        held_out,
        "load_image_set",
        lambda *words, **named: asked.append(named["num_images"]) or load("digits"),
    )
    assert (
        Search("Street_Digits").image_set == "street-digits"
        and len(Search("street_digits").monitor) == 1_000
    )
    assert asked == [None, 10_000]
    monkeypatch.setattr(held_out, "load_image_set", load)
    module.check_search_row("table2.supervised", Search("SVHN", num_labels=50), 1, COMMAND)
    assert Search("My_Set").image_set == "My_Set", "a folder's letters are its own"
    assert cli.main([*recording, "--set", "DIGITS"]) == 0
    assert (tmp_path / "ledger" / "table2.supervised--digits.json").exists()
    assert (tmp_path / "runs" / "search-digits").is_dir()


def lines(errors, nearest=60.0):
    trials = [
        {
            "trial": k,
            "settings": vars(GOOD),
            "epoch": 1,
            "validation_error": 40.0 + k,
            "seconds": 1.0,
        }
        for k in range(64)
    ]
    draws = [
        {
            "draw": k,
            "validation_error": error,
            "test_error": error + 1,
            "neighbour_error": nearest,
            "seconds": 1.0,
        }
        for k, error in enumerate(errors)
    ]
    return trials, draws


@pytest.fixture
def described(monkeypatch):
    """Return a function that describes a search on a set that need not be there."""
    monkeypatch.setattr(held_out, "load_image_set", lambda *_, **__: load_image_set("digits"))
    return Search


@pytest.mark.parametrize(
    ("errors", "verdict"), [((40, 41, 42), "reproduced"), ((40, 60, 80), "not reproduced")]
)
def test_a_row_on_another_set_is_judged_against_neighbours(tmp_path, described, errors, verdict):
    where = {"num_tested": 100, "root": tmp_path}
    row = record_search(
        "table2.supervised:mnist", described("mnist"), *lines(errors), command=COMMAND, **where
    )
    assert (
        row.verdict == verdict
        and row.n == 3
        and row.value == np.mean(errors)
        and row.data == "mnist, validation"
    )
    assert "test error 42.00 %" in row.notes or verdict != "reproduced"
    assert "best of 64 trials had 40.00 %" in row.notes and load_results(tmp_path)


@pytest.mark.parametrize(
    ("errors", "verdict"), [((28, 29, 30), "reproduced"), ((48, 49, 50), "not reproduced")]
)
def test_the_paper_s_own_set_is_judged_by_its_number(tmp_path, described, errors, verdict):
    command = COMMAND.replace("mnist", "svhn")
    where = {"num_tested": 100, "root": tmp_path}
    row = record_search(
        "table2.supervised", described("svhn"), *lines(errors), command=command, **where
    )
    assert row.verdict == verdict and row.id == "table2.supervised"


def test_the_recorded_command_is_understood():
    command = cli.parse(
        ["search", "--set", "mnist", "--base-width", "32", "--record", "table2.supervised:mnist"]
    )
    again = cli.parse(command._command().split()[1:])
    assert again == command
