"""The supervised rival: the discriminator's own body, settings that repeat, a search that resumes,
a row of Table 2."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.data import load as sets
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import protocols
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.experiments import supervised_search as module
from dcgan_lib.experiments.supervised_search import (
    PATIENCE,
    SPACE,
    Search,
    Settings,
    best_trial,
    describe_space,
    draw_labelled,
    draw_settings,
    minibatches,
    train_supervised,
    wrong_answers,
)
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.paths import exclusive

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


@pytest.fixture(scope="module")
def digits():
    return load_image_set("digits"), load_image_set("digits", "validation")


# ---- one training ----
def test_the_body_is_the_discriminator_s():
    config = replace(recipe("paper-svhn").config.model, base_width=4)
    network, rival = SupervisedCnn(config, 10, 0.5).eval(), Discriminator(config).eval()
    body = {
        name: value for name, value in rival.state_dict().items() if not name.startswith("head.")
    }
    head = {"head.1.weight": torch.zeros(10, rival.head.in_features)}
    network.load_state_dict(body | head)  # strict: nothing else
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
    first = describe_space().splitlines()[0]
    assert first.split(maxsplit=1)[1] == "log-uniform from 0.0001 to 0.01"


def test_longer_trainings_are_tried_where_they_are_allowed(monkeypatch):
    monkeypatch.setitem(SPACE, "epochs", [15, 30, 60, 120, 240])
    usual, long = ([draw_settings(0, n, most).epochs for n in range(60)] for most in (60, 240))
    assert set(usual) == {15, 30, 60} and set(long) == {15, 30, 60, 120, 240}
    assert describe_space(120).splitlines()[-1].split(maxsplit=1)[1] == "one of 15, 30, 60, 120"
    with pytest.raises(UserError, match="the longest training must be at least 15 epochs"):
        draw_settings(0, 0, 14)


def test_labels_are_drawn_evenly(digits):
    train, _ = digits
    drawn, again, other = (draw_labelled(train, 100, seed) for seed in ([0, 1], [0, 1], [0, 2]))
    assert (np.bincount(drawn.labels) == 10).all()
    assert len(np.unique(drawn.images_u8, axis=0)) == 100
    np.testing.assert_array_equal(drawn.images_u8, again.images_u8)
    assert not np.array_equal(drawn.images_u8, other.images_u8)
    for number, message in (
        (105, "cannot be drawn evenly"),
        (0, "0 labels of each class"),
        (100_000, "10000 labels of each class"),
    ):
        with pytest.raises(UserError, match=message):
            draw_labelled(train, number, 0)


def test_training_learns_from_right_labels_only_and_repeats_itself(digits):
    train, validation = digits
    labelled = draw_labelled(train, 300, 0)
    network, epoch = train_supervised(labelled, validation, TINY, GOOD, seed=1)
    wrong = wrong_answers(network, validation)
    assert wrong.shape == (180,) and wrong.mean() < 0.2
    assert 1 <= epoch <= GOOD.epochs and not network.training
    again, _ = train_supervised(labelled, validation, TINY, GOOD, seed=1)
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    shuffled = replace(labelled, labels=np.random.default_rng(0).permutation(labelled.labels))
    lost, _ = train_supervised(shuffled, validation, TINY, GOOD, seed=1)
    assert wrong_answers(lost, validation).mean() > 0.6


def test_the_epoch_with_the_least_validation_error_is_kept(digits, monkeypatch):
    errors, met = iter([0.5, 0.3, 0.4, 0.3, *[0.4] * 40]), []

    def judged(network, *_, **__):
        met.append(network.head[1].weight.detach().clone())
        return np.array([next(errors)])

    monkeypatch.setattr(module, "wrong_answers", judged)
    labelled = draw_labelled(digits[0], 50, 0)
    network, epoch = train_supervised(labelled, digits[1], TINY, replace(GOOD, epochs=24), seed=0)
    assert epoch == 2 and torch.equal(network.head[1].weight, met[1])
    assert not torch.equal(met[1], met[2])
    assert len(met) == 2 + PATIENCE, "it stops when it no longer gets better"
    errors, met = iter([0.5, 0.3, *[0.4] * 40]), []
    train_supervised(labelled, digits[1], TINY, replace(GOOD, epochs=96), seed=0)
    assert len(met) == 2 + 96 // 8, "later in a longer training"


def test_batch_norm_forgets_where_it_began(digits):
    labelled = draw_labelled(digits[0], 50, 0)
    still = replace(GOOD, epochs=1, batch_size=25, learning_rate=1e-12)  # two steps
    network, _ = train_supervised(labelled, digits[1], replace(TINY, num_stages=2), still, seed=0)
    assert network.norms[1].running_var.max() < 0.1, "it starts at 1, and the maps hardly vary"


@pytest.mark.parametrize(("name", "mirrored"), [("cifar10", True), ("mnist", False)])
def test_only_photographs_are_mirrored(name, mirrored):
    images = np.zeros((64, 1, 32, 32), np.uint8)
    images[..., 24:] = 255  # bright on the right
    labels = np.zeros(64, np.int64)
    labelled = ImageSet(name=name, images_u8=images, labels=labels, class_names=("one",))
    settings = replace(GOOD, augment=True, batch_size=64)
    ((x_u8, _),) = minibatches(labelled, settings, np.random.default_rng(0))
    bright_left = (x_u8[..., 0] > 0).flatten(1).any(1)
    assert bool(bright_left.any()) == mirrored and len(x_u8.unique(dim=0)) > 1
    plain = replace(settings, augment=False)
    ((x_u8, _),) = minibatches(labelled, plain, np.random.default_rng(0))
    assert len(x_u8.unique(dim=0)) == 1


# ---- the search ----
SMALL = ["search", "--set", "digits", "--recipe", "mnist", "--base-width", "2"]
SMALL += ["--num-labels", "50", "--draws", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Search for seconds, in a folder, a data folder and a ledger of one's own."""
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "ledger"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SPACE, "epochs", [1])


def search(*words: str) -> int:
    return cli.main([*SMALL, *words])


def described(*words: str) -> Search:
    return cli.parse([*SMALL, *words])


def done(folder: str, kind: str = "trial") -> list[dict]:
    found = described("--run-dir", folder).finished(kind)
    return [{name: value for name, value in each.items() if name != "seconds"} for each in found]


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


def test_a_search_that_is_stopped_goes_on_with_its_trial(monkeypatch, capsys):
    assert search("--trials", "4", "--run-dir", "whole") == 0
    whole = capsys.readouterr().out
    assert "best of 4: trial" in whole and "validation error" in whole and "test error" not in whole
    calls = stop_at_the_third_training(monkeypatch)
    assert search("--trials", "4", "--run-dir", "broken") == 130
    assert len(done("broken")) == 2
    assert search("--trials", "4", "--run-dir", "broken") == 0
    trained = "only the trial that was stopped is run again; then two draws"
    assert calls[2] == calls[3] and len(calls) == 7, trained
    assert done("broken") == done("whole") and done("broken", "draw") == done("whole", "draw")
    assert "going on in broken: 2 trials are done" in capsys.readouterr().out
    Path("broken", "trial-0001.json").write_text('{"trial": 1, "settings": {"learn')
    assert search("--trials", "4", "--run-dir", "broken") == 2
    assert "trial-0001.json cannot be read" in capsys.readouterr().err


def test_two_processes_share_a_search(capsys):
    with exclusive(Path("shared", "trial-0001.json")):
        assert search("--trials", "3", "--run-dir", "shared") == 0
        assert "2 of 3 trials are done" in capsys.readouterr().out
        assert [found["trial"] for found in done("shared")] == [0, 2]
    assert search("--trials", "3", "--run-dir", "shared") == 0
    assert [found["trial"] for found in done("shared")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--run-dir one --seed 5", "another seed"),
        ("--recipe paper-mnist", "unconditional"),
        ("--trials 0", "trials must be at least 1"),
        ("--base-width 0", "base_width must be at least 1"),
        ("--num-labels 7", "cannot be drawn evenly"),
        ("--seed -1", "seed must be at least 0"),
        ("--set rooms", "the images of rooms have no classes to learn"),
        ("--record table2.supervised:mnist", "table2.supervised:digits"),
        ("--record table2.supervised:digits --trials 8", "64 trials"),
        ("--record table2.supervised:digits --trials 64", "1,000 labels, but these are 50"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_begins(words, message, capsys, monkeypatch):
    monkeypatch.setitem(sets.NUM_DRAWN, "train", 20)  # of rooms, which have no labels
    assert search("--trials", "1", "--run-dir", "one") == 0
    assert search("--trials", "1", "--run-dir", "two", *words.split()) == 2
    assert message in capsys.readouterr().err
    assert not Path("two").exists(), "the corrected command may use the folder"


def test_test_images_are_opened_for_the_ledger_alone_and_once(monkeypatch):
    opened, load = [], protocols.load_image_set

    def watched(name, split, **named):
        opened.append(split)
        return load(name, split, **named)

    monkeypatch.setattr(protocols, "load_image_set", watched)
    found = described("--run-dir", "run", "--trials", "2")
    first, second = found.run_trials()
    plain = found.repeat_best(first)
    assert "test" not in opened and all("test_error" not in draw for draw in plain)
    with found.splits.test_for("table2.supervised:digits") as test:
        pass
    tested = found.repeat_best(first, test)
    assert opened.count("test") == 1 and all(0 < draw["test_error"] <= 100 for draw in tested)
    errors = [[draw["validation_error"] for draw in draws] for draws in (plain, tested)]
    assert errors[0] == errors[1]
    found.repeat_best(second, test)  # more trials found a better one
    monkeypatch.setattr(module, "train_supervised", None)
    assert found.repeat_best(first, test) == tested, "nothing is trained or tested again"
    kept = [(draw["trial"], draw["draw"]) for draw in found.finished("draw")]
    assert kept == [(0, 1), (0, 2), (1, 1), (1, 2)]


# ---- the row ----
@pytest.fixture
def recording(monkeypatch):
    """Return the words of a small search that is recorded."""
    monkeypatch.setattr(module, "PAPER_TRIALS", 1)
    monkeypatch.setattr(module, "PAPER_LABELS", 50)
    return ["--trials", "1", "--record", "table2.supervised:digits"]


def measured():
    return [row for row in load_results() if row.is_measured]


def test_a_recorded_search_is_measured_again_only_on_purpose(recording, capsys):
    assert search(*recording, "--run-dir", "first") == 0
    (row,) = measured()
    other = [*recording, "--seed", "1", "--run-dir", "second"]
    assert search(*other) == 2
    refused = "refused before it begins"
    assert "--again" in capsys.readouterr().err and not Path("second").exists(), refused
    assert measured() == [row]
    assert search(*other, "--again") == 0
    (changed,) = measured()
    assert (row.seed, changed.seed) == (0, 1)
    command = replace(described(*recording, "--seed", "1"), device="auto")
    assert cli.parse(changed.command.split()[1:]) == command


def test_a_search_that_is_stopped_while_it_is_recorded_goes_on(recording, monkeypatch):
    calls = stop_at_the_third_training(monkeypatch)
    assert search(*recording, "--run-dir", "broken") == 130
    assert search(*recording, "--run-dir", "broken") == 0, "in the same session too"
    once = "the draw that was tested is not tested again"
    assert calls[2] == calls[3] and len(calls) == 4, once
    assert search(*recording, "--run-dir", "broken") == 2, "now it is recorded"


def test_a_set_has_one_name(recording, tmp_path):
    assert Search(set="Street_Digits").set_name == "street-digits"
    assert Search(set="My_Set").set_name == "My_Set", "a folder's letters are its own"
    Search(set="SVHN", num_labels=50, record="table2.supervised").check_row()
    assert search(*recording, "--set", "DIGITS") == 0
    assert (tmp_path / "ledger" / "table2.supervised--digits.json").exists()
    assert (tmp_path / "runs" / "search-digits").is_dir()


def found_by(errors, nearest=60.0):
    """Return made-up trials and draws."""
    trials = [{"settings": vars(GOOD), "epoch": 1, "seconds": 1.0} for _ in range(64)]
    trials = [each | {"trial": k, "validation_error": 40.0 + k} for k, each in enumerate(trials)]
    same = {"neighbour_error": nearest, "seconds": 1.0}
    draws = [
        same
        | {
            "validation_error": error,
            "test_error": error + 1,
            "test_wrong": list(range(error + 1)),  # of 100 images
        }
        for error in errors
    ]
    return trials, draws


@pytest.mark.parametrize(
    ("set_name", "errors", "verdict"),
    [
        ("mnist", (40, 41, 42), "met"),  # against neighbours
        ("mnist", (40, 60, 80), "missed"),
        ("svhn", (28, 29, 30), "reproduced"),  # the paper's own set, by its number
        ("svhn", (48, 49, 50), "not reproduced"),
    ],
)
def test_rows_are_judged_by_the_paper_s_number_or_by_neighbours(
    set_name, errors, verdict, monkeypatch, capsys
):
    digits = load_image_set("digits")
    monkeypatch.setattr(protocols, "load_image_set", lambda *_, **__: digits)
    id = "table2.supervised" + (":mnist" if set_name == "mnist" else "")
    row = Search(set=set_name, record=id).enter(*found_by(errors), 100)
    assert (row.id, row.verdict, row.n, row.value) == (id, verdict, 3, np.mean(errors))
    assert row.data == f"{set_name}, validation" and "best of 64 trials had 40.00 %" in row.notes
    assert f"test error {np.mean(errors) + 1:.2f} %" in row.notes
    assert f"recorded {id}" in capsys.readouterr().out and load_results()


def test_the_first_of_equal_trials_is_the_best():
    trials, _ = found_by((40, 41))
    assert best_trial(trials)["trial"] == 0
    assert best_trial([trial | {"validation_error": 1.0} for trial in trials])["trial"] == 0
