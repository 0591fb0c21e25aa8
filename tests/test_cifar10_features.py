"""The command from files to the ledger, on a small copy of SVHN in its own format."""

import os
import re
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.io import savemat

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, Recipe, TrainConfig
from dcgan_lib.data import published as public_sets
from dcgan_lib.evaluation import ledger as details
from dcgan_lib.evaluation import ledger as results
from dcgan_lib.evaluation import protocols
from dcgan_lib.evaluation import protocols as held_out
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    batch_statistics,
    compute_features,
    pixel_features,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.evaluation.protocols import Outcome, load_splits
from dcgan_lib.experiments import supervised_search
from dcgan_lib.experiments.supervised_search import SPACE
from dcgan_lib.experiments.svhn_1000_labels import compare
from dcgan_lib.models.baselines import new_discriminator
from dcgan_lib.training.checkpoints import (
    load_discriminator,
    save_config,
    save_weights,
    untrained_discriminator,
)

TRAIN, VALIDATION, TEST = 1_050, 100, 100
TINY = ModelConfig(image_size=(8, 8), num_channels=1, base_width=6)


def house_numbers(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bar whose place tells the digit, h x w x c x n; in a file's labels, 10 is the digit 0."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 120, (32, 32, 3, num), dtype=np.uint8), np.arange(num) % 10
    for at, label in enumerate(labels):
        images[3 * label : 3 * label + 4, 8:24, label % 3, at] += 120
    return images, np.where(labels == 0, 10, labels)[:, None]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with SVHN's files and a run whose discriminator saw them."""
    folder = tmp_path_factory.mktemp("place")
    for part, num in (("train", TRAIN + VALIDATION), ("test", TEST)):
        images, labels = house_numbers(num, num)
        savemat(folder / f"{part}_32x32.mat", {"X": images, "y": labels})
    for name, about, channels in (("mine", "svhn", 3), ("grey", "mnist", 1)):
        (folder / name).mkdir()
        torch.manual_seed(0)
        model = ModelConfig(image_size=(32, 32), num_channels=channels, base_width=4)
        save_config(folder / name, TrainConfig(model=model), {"image_set": about, "images": 2_000})
        discriminator = new_discriminator(model).train()
        with torch.no_grad():
            for _ in range(40):  # batch norm's stored statistics are those of a run
                discriminator(torch.rand(50, channels, 32, 32) * 2 - 1)
        save_weights(folder / name / "discriminator.safetensors", discriminator)
    return folder


@pytest.fixture(autouse=True)
def at_the_place(place, monkeypatch, tmp_path):
    monkeypatch.setenv("DCGAN_DATA", str(place))
    monkeypatch.chdir(place)
    monkeypatch.setattr(
        "torchvision.datasets.svhn.check_integrity", lambda path, md5=None: os.path.isfile(path)
    )
    splits = {"train": (0, TRAIN), "validation": (TRAIN, TRAIN + VALIDATION)}
    monkeypatch.setitem(public_sets.PUBLIC_SETS["svhn"].parts, "train", splits)
    for module in (results, details):
        monkeypatch.setattr(module, "results_root", lambda: tmp_path)
    monkeypatch.setattr(held_out, "_given_out", set())
    return tmp_path


def run(words: str) -> int:
    return cli.main(["features", *words.split()])


@pytest.fixture
def fits(monkeypatch):
    """Return what the command has fitted, features of nine images and options; nothing is: accuracies are given."""
    found, accuracies = [], []

    def fit(name, splits, features, **how):
        found.append(
            (compute_features(features, splits.train.images_u8[:9], path=how["path"]), how)
        )
        seen = Outcome(
            split="validation",
            accuracies=(accuracies[len(found) - 1],),
            c=1e-3,
            curve={},
            n=TEST,
            num_labels=TRAIN,
            num_features=448,
            seconds=1.0,
        )
        return SimpleNamespace(
            on_validation=seen, on_test=lambda *_, **__: replace(seen, split="test")
        )

    monkeypatch.setattr(protocols, "fit_protocol", fit)
    return SimpleNamespace(found=found, accuracies=accuracies)


def accuracy(shown: str, split: str) -> float:
    return float(re.search(rf"{split} accuracy ([\d.]+) %", shown)[1])


def test_from_mat_files_to_table_2(at_the_place, capsys):
    words = "mine --set svhn --protocol 1000 --draws 3 --split test --record table2.dcgan"
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "448 features, 1,000 labels, 3 draws" in shown and "recorded table2.dcgan" in shown
    row = next(row for row in load_results(at_the_place) if row.id == "table2.dcgan")
    assert (
        row.value == pytest.approx(100 - accuracy(shown, "test"), abs=0.01)
        and row.low < row.value < row.high
    )
    assert (row.n, row.data, row.checkpoint) == (TEST, "svhn, test", "mine") and row.seconds > 0
    assert row.command.startswith(
        "dcgan features mine --set svhn --protocol 1000 --split test --seed 0 --draws 3"
    )
    assert run(words) == 2
    assert "a second look" in capsys.readouterr().err


def test_both_rows_of_table_2_from_mat_files(at_the_place, monkeypatch, tmp_path, capsys):
    """The files are in SVHN's format; small are the numbers of images, of trials and of epochs."""
    monkeypatch.setattr(supervised_search, "PAPER_TRIALS", 4)
    for name, values in (("epochs", [1]), ("batch_size", [128]), ("learning_rate", [5e-3])):
        monkeypatch.setitem(SPACE, name, values)
    assert compare("svhn").outcome == "not measured" and len(compare("svhn").commands) == 2
    assert run("mine --set svhn --protocol 1000 --draws 3 --split test --record table2.dcgan") == 0
    words = ["search", "--set", "svhn", "--trials", "4", "--base-width", "2", "--draws", "4"]
    words += ["--record", "table2.supervised"]
    assert cli.main([*words, "--run-dir", str(tmp_path / "search")]) == 0
    shown = capsys.readouterr().out
    assert "best of 4: trial" in shown and "recorded table2.supervised" in shown
    row = next(row for row in load_results(at_the_place) if row.id == "table2.supervised")
    assert (row.n, row.data, row.verdict) == (
        4,
        "svhn, validation",
        "not reproduced",
    ) and "1,000 labels" in row.notes
    assert row.command.startswith(
        "dcgan search --set svhn --trials 4 --recipe paper-svhn --base-width 2"
    )
    found = compare("svhn")
    assert found.features.value == pytest.approx(100 - accuracy(shown, "test"), abs=0.01)
    assert found.supervised.value == pytest.approx(
        float(re.search(r"^test error ([\d.]+) %", shown, re.M)[1]), abs=0.01
    )
    assert found.outcome != "not measured" and not found.commands


@pytest.mark.parametrize(
    ("words", "features"),
    [
        ("mine --set svhn", 448),
        ("mine --set svhn --layers 1 3 --grid 2 --batch-norm stored --features-file kept.npy", 80),
        ("pixels --set digits", 64),
        ("kmeans1 --set digits --centroids 20", 80),
        ("random --set digits --recipe tiny", 96),
    ],
)
def test_validation_is_what_is_shown_unless_asked(
    words, features, at_the_place, capsys, monkeypatch
):
    tiny = Recipe(name="tiny", image_set="digits", summary="", config=TrainConfig(model=TINY))
    monkeypatch.setattr("dcgan_lib.config.recipe", {"tiny": tiny}.get)
    monkeypatch.setattr(
        held_out.LabelledSplits, "test_for", None
    )  # whoever asks for test images fails
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert f"{features:,} features" in shown and "validation accuracy by C" in shown
    assert accuracy(shown, "validation") > 40
    assert not list(at_the_place.iterdir())


def test_other_sets_are_judged_by_the_same_network_with_random_weights(at_the_place, capsys):
    assert (
        run("grey --set svhn --protocol 1000 --draws 2") == 0
    )  # a grey network is shown grey images
    assert run("mine --set svhn --split test --record table1.dcgan.full:svhn") == 2
    assert "never saw svhn" in capsys.readouterr().err
    assert run("grey --set svhn --split test --record table1.dcgan.full:svhn") == 0
    row = next(row for row in load_results(at_the_place) if row.id == "table1.dcgan.full:svhn")
    assert (
        "features of the same network with random weights (--batch-norm" in row.notes
        and row.n == TEST
    )
    assert (
        "a run that is not committed: " in row.notes and "from 2,000 images of mnist" in row.notes
    )
    assert (
        run("kmeans1 --centroids 20 --set svhn --split test --record table1.kmeans1.full:svhn") == 0
    )
    row = next(row for row in load_results(at_the_place) if row.id == "table1.kmeans1.full:svhn")
    assert "pixels" in row.notes and "--centroids 20" in row.command and row.checkpoint is None
    assert "not committed" not in row.notes


@pytest.mark.parametrize(
    ("batch_norm", "better", "given"),
    [("batches", "stored", (80, 60, 70)), ("stored", "batches", (80, 70, 60))],
)
def test_the_control_is_the_better_untrained_twin_and_the_file_keeps_the_network_s_features(
    batch_norm, better, given, at_the_place, fits
):
    fits.accuracies[:] = given
    words = f"--seed 5 --batch-norm {batch_norm} --device cpu --features-file {at_the_place / 'kept.npy'} --split test"
    assert run(f"grey --set svhn {words} --record table1.dcgan.full:svhn") == 0
    train, own, expected = (
        load_splits("svhn", channels=1).train.images_u8,
        load_discriminator("grey"),
        {},
    )
    for name, network in (("own", own), ("twin", untrained_discriminator(own.config, 5))):
        averaged = with_statistics(network, batch_statistics(network, train))
        for kind, each in (("batches", averaged), ("stored", network)):
            expected[name, kind] = ConvFeatures(each)(train[:9])
    kinds = ("own", batch_norm), ("twin", "batches"), ("twin", "stored")
    for (x_nf, how), kind in zip(fits.found, kinds, strict=True):
        np.testing.assert_allclose(x_nf, expected[kind], rtol=0, atol=1e-6)
        assert how["seed"] == 5
    np.testing.assert_array_equal(np.load(at_the_place / "kept.npy"), fits.found[0][0])
    row = next(row for row in load_results(at_the_place) if row.id == "table1.dcgan.full:svhn")
    assert f"(--batch-norm {better}), 70.00 %" in row.notes and (row.seed, row.value) == (5, 80)


def test_random_weights_and_centroids_follow_the_seed_of_the_command(fits, monkeypatch):
    tiny = Recipe(name="tiny", image_set="digits", summary="", config=TrainConfig(model=TINY))
    monkeypatch.setattr("dcgan_lib.config.recipe", {"tiny": tiny}.get)
    kmeans = Mock()
    kmeans.return_value.fit.return_value.transform = pixel_features
    monkeypatch.setattr("dcgan_lib.evaluation.features.KMeansFeatures", kmeans)
    fits.accuracies[:] = 50, 50
    assert run("random --set digits --recipe tiny --batch-norm stored --seed 3 --device cpu") == 0
    assert run("kmeans1 --set digits --centroids 4 --seed 3") == 0
    (x_nf, how), (_, of_kmeans) = fits.found
    features = ConvFeatures(untrained_discriminator(TINY, 3))
    np.testing.assert_allclose(
        x_nf, features(load_splits("digits").train.images_u8[:9]), rtol=0, atol=1e-6
    )
    kmeans.assert_called_once_with(4, seed=3)
    assert how["seed"] == of_kmeans["seed"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere --set svhn", "no checkpoint or run folder at 'nowhere'"),
        ("mine --set svhn --split test", "give both --split test and --record"),
        ("mine --set svhn --record table2.dcgan", "give both --split test and --record"),
        ("mine --set svhn --split test --record nonsense", "'nonsense' is not the id of a claim"),
        (
            "mine --set svhn --split test --record table2.dcgan",
            "by the protocol 1000, but this is full",
        ),
        (
            "pixels --set svhn --protocol 1000 --split test --record table2.dcgan",
            "other features than pixels",
        ),
        ("random --recipe nonsense", "no recipe is called 'nonsense'"),
        ("random --recipe paper-mnist", "must not know the label"),
        ("mine --set svhn --layers 7", "numbers from 1 to 3"),
        ("mine --set svhn --draws 3", "cannot have 3 draws"),
        ("mine --set svhn --protocol 400", "400 labels of each class were asked for"),
        ("kmeans1 --set svhn --centroids 1", "at least 2 centroids"),
        ("pixels --set nowhere", "no image set or folder 'nowhere'"),
        ("pixels --set svhn --layers 1", "pixels has no layers"),
        ("mine --set svhn --seed -1", "--seed is at least 0"),
        ("mine --set svhn --features-file .", "is a folder"),
        (
            "mine --set svhn --features-file train_32x32.mat/f.npy",
            "cannot be kept in train_32x32.mat/f.npy",
        ),
        (
            "mine --set svhn --protocol 1000 --split test --record table2.dcgan --draws 1",
            "leave --layers, --grid",
        ),
        (
            "mine --set svhn --protocol 1000 --split test --record table2.dcgan --grid 2",
            "leave --layers, --grid",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(words, message, capsys):
    assert run(words) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_random_weights_follow_the_seed():
    model = ModelConfig(image_size=(8, 8), base_width=2)
    first, again, other = (
        untrained_discriminator(model, seed).state_dict()["head.weight"] for seed in (0, 0, 1)
    )
    assert first.equal(again) and not first.equal(other)
