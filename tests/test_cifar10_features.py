"""The commands of chapter 7 from files to the ledger, on a small copy of SVHN in its own format."""

import hashlib
import json
import os
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data import published
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    batch_statistics,
    compute_features,
    pixel_features,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import load_results, load_row, record
from dcgan_lib.evaluation.protocols import PROTOCOLS, LabelledSplits, Outcome, load_splits
from dcgan_lib.experiments import cifar10_features as module
from dcgan_lib.experiments import supervised_search
from dcgan_lib.experiments import tables_1_and_2 as tables
from dcgan_lib.experiments.cifar10_features import (
    Measurement,
    Setting,
    along_labels,
    judge_features,
    keep,
    latest,
    load_study,
    measure,
    scaled,
)
from dcgan_lib.experiments.supervised_search import SPACE
from dcgan_lib.experiments.tables_1_and_2 import (
    Draws,
    Features,
    Source,
    compare,
    keep_draws,
    open_source,
)
from dcgan_lib.models.networks import new_discriminator, untrained_discriminator
from dcgan_lib.paths import results_root
from dcgan_lib.training.checkpoints import (
    load_config,
    load_discriminator,
    save_config,
    save_weights,
    snapshot_folders,
)

TRAIN, VALIDATION, TEST = 1_050, 100, 100


def house_numbers(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bar whose place tells the digit, h x w x c x n; in a file's labels, 10 is the
    digit 0."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 120, (32, 32, 3, num), dtype=np.uint8), np.arange(num) % 10
    for at, label in enumerate(labels):
        images[3 * label : 3 * label + 4, 8:24, label % 3, at] += 120
    return images, np.where(labels == 0, 10, labels)[:, None]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with SVHN's files and runs whose discriminators saw several sets."""
    folder = tmp_path_factory.mktemp("place")
    for part, num in (("train", TRAIN + VALIDATION), ("test", TEST)):
        images, labels = house_numbers(num, num)
        savemat(folder / f"{part}_32x32.mat", {"X": images, "y": labels})
    for name, about, channels in (
        ("mine", "svhn", 3),
        ("grey", "mnist", 1),
        ("tiny", "tinyimagenet32", 3),
        ("cifar", "cifar10", 3),
    ):
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
def ledger(place, monkeypatch, tmp_path):
    """Work in the folder, with a ledger of its own."""
    monkeypatch.setenv("DCGAN_DATA", str(place))
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    monkeypatch.chdir(place)
    monkeypatch.setattr(
        "torchvision.datasets.svhn.check_integrity", lambda path, md5=None: os.path.isfile(path)
    )
    splits = {"train": (0, TRAIN), "validation": (TRAIN, TRAIN + VALIDATION)}
    monkeypatch.setitem(published.PUBLIC_SETS["svhn"].parts, "train", splits)
    return tmp_path


def run(words: str) -> int:
    return cli.main(["features", *words.split()])


def accuracy(shown: str, split: str) -> float:
    return float(re.search(rf"{split} accuracy ([\d.]+) %", shown)[1])


def outcome(*accuracies, split="test", n=1_000):
    return Outcome(
        split=split,
        accuracies=accuracies,
        c=1e-3,
        curve={1e-3: 70.0},
        n=n,
        num_labels=1_000,
        num_features=48,
    )


# ---- from files to the ledger ----
@pytest.mark.drives("features")
def test_from_mat_files_to_table_2(capsys):
    words = "mine --set svhn --protocol 1000 --draws 3 --split test --record table2.dcgan"
    assert run(words) == 0
    shown, row = capsys.readouterr().out, load_row("table2.dcgan")
    assert "448 features, 1,000 labels, 3 draws" in shown and "recorded table2.dcgan" in shown
    assert row.value == pytest.approx(100 - accuracy(shown, "test"), abs=0.01)
    assert row.low < row.value < row.high and row.seconds > 0
    assert (row.n, row.data, row.checkpoint) == (TEST, "svhn, test", "mine")
    assert cli.parse(row.command.split()[1:]) == cli.parse(["features", *words.split()])
    assert run(words) == 2
    assert "a second look" in capsys.readouterr().err


@pytest.mark.drives("search")
def test_both_rows_of_table_2_from_mat_files(monkeypatch, tmp_path, capsys):
    """The files are in SVHN's format; small are the numbers of images, of trials and of epochs."""
    monkeypatch.setattr(supervised_search, "PAPER_TRIALS", 4)
    for name, values in (("epochs", [1]), ("batch_size", [128]), ("learning_rate", [5e-3])):
        monkeypatch.setitem(SPACE, name, values)
    assert compare("svhn").outcome == "not measured"
    assert run("mine --set svhn --protocol 1000 --draws 3 --split test --record table2.dcgan") == 0
    words = ["search", "--set", "svhn", "--trials", "4", "--base-width", "2", "--draws", "4"]
    words += ["--record", "table2.supervised"]
    assert cli.main([*words, "--run-dir", str(tmp_path / "search")]) == 0
    shown, row = capsys.readouterr().out, load_row("table2.supervised")
    assert "best of 4: trial" in shown and "recorded table2.supervised" in shown
    assert (row.n, row.data, row.verdict) == (4, "svhn, validation", "not reproduced")
    assert "1,000 labels" in row.notes
    assert cli.parse(row.command.split()[1:]) == cli.parse(words)
    found = compare("svhn")
    assert found.features.error.value == pytest.approx(100 - accuracy(shown, "test"), abs=0.01)
    test_error = float(re.search(r"^test error ([\d.]+) %", shown, re.M)[1])
    assert found.supervised.error.value == pytest.approx(test_error, abs=0.01)
    for draws in (found.features, found.supervised):  # image by image, the errors are the same
        assert 100 * (1 - draws.right_n.mean()) == pytest.approx(draws.error.value)
    assert found.outcome != "not measured"


def test_both_rows_of_table_2_on_the_part_of_svhn(monkeypatch, tmp_path, capsys):
    """The same commands, on a small svhn10k that is read from SVHN's test file."""
    images, labels = house_numbers(1_300, 0)
    savemat(tmp_path / "test_32x32.mat", {"X": images, "y": labels})
    digest = hashlib.sha256((labels % 10).astype(np.uint8)).hexdigest()
    table = tmp_path / "photos.toml"
    table.write_text(f'digits_per_photo = "{"2" * 650}"\nlabels_sha256 = "{digest}"\n')
    monkeypatch.setattr(published, "SVHN10K_PHOTOS", table)
    parts = published.PUBLIC_SETS["svhn10k"].parts
    monkeypatch.setitem(parts, "train", {"train": (0, 1_100), "validation": (1_100, 1_200)})
    monkeypatch.setitem(parts, "test", {"test": (0, 100)})
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    monkeypatch.setattr(supervised_search, "PAPER_TRIALS", 1)
    for name, values in (("epochs", [1]), ("batch_size", [128])):
        monkeypatch.setitem(SPACE, name, values)
    words = ["search", "--set", "svhn10k", "--trials", "1", "--base-width", "2", "--draws", "2"]
    words += ["--run-dir", str(tmp_path / "search"), "--record", "table2.supervised:svhn10k"]
    assert cli.main(words) == 0
    assert load_row("table2.supervised:svhn10k").data == "svhn10k, validation"
    row = "--split test --record table2.dcgan:svhn10k"
    mine = "mine --set svhn10k --protocol 1000 --draws 2"
    assert run(f"{mine} {row}") == 0
    shown = capsys.readouterr().out
    assert "448 features, 1,000 labels, 2 draws" in shown and accuracy(shown, "validation") > 30
    found = load_row("table2.dcgan:svhn10k")
    assert (found.n, found.data) == (100, "svhn10k, test")
    assert compare("svhn10k").outcome != "not measured"
    assert run(f"{mine} {row}") == 2
    assert "a second look" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "features"),
    [
        ("mine --set svhn", 448),
        ("mine --set svhn --grid 2 --batch-norm stored --features-file kept.npy", 112),
        ("grey --set svhn --protocol 1000 --draws 2", 448),  # and is shown grey images
        ("pixels --set digits", 64),
        ("kmeans1 --set digits --centroids 20", 80),
        ("random --set digits --recipe grey", 448),  # of a run's shape
    ],
)
def test_validation_is_what_is_shown_unless_asked(words, features, ledger, capsys, monkeypatch):
    monkeypatch.setattr(LabelledSplits, "test_for", None)  # whoever asks for test images fails
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert f"{features:,} features" in shown and "validation accuracy by C" in shown
    assert accuracy(shown, "validation") > 30
    assert not list(ledger.iterdir())


def test_other_sets_than_the_paper_s_are_judged_by_a_control(capsys):
    assert run("mine --set svhn --split test --record table1.dcgan.full:svhn") == 2
    assert "never saw svhn" in capsys.readouterr().err
    assert run("grey --set svhn --split test --record table1.dcgan.full:svhn") == 0
    row = load_row("table1.dcgan.full:svhn")
    (check,) = row.checks
    assert "the same network with random weights (--batch-norm" in check and row.n == TEST
    assert "a run that is not committed: " in row.notes
    assert "from 2,000 images of mnist" in row.notes
    words = "kmeans1 --centroids 20 --set svhn --split test --record table1.kmeans1.full:svhn"
    assert run(words) == 0
    row = load_row("table1.kmeans1.full:svhn")
    assert "pixels" in next(iter(row.checks)) and "--centroids 20" in row.command
    assert row.checkpoint is None and "not committed" not in row.notes


def supervised(id: str, errors: tuple[float, ...]) -> None:
    how = {"unit": "%", "n": 3, "data": "svhn10k", "command": "dcgan search", "seconds": 1}
    row = record(id, float(np.mean(errors)), checks={"it is so": True}, **how)
    keep_draws(row, Draws(test_errors=np.array(errors), num_images=10_000))


def test_table_2_on_another_set_asks_whether_the_supervised_network_errs_more(capsys):
    words = "mine --set digits --protocol 1000 --split test --record table2.dcgan:digits"
    assert run(words) == 2
    assert (
        "table2.supervised:digits: measure that first: dcgan search --set digits --record "
        "table2.supervised:digits" in capsys.readouterr().err
    )
    how = Features(checkpoint="mine", set="digits", record="table2.dcgan:digits")
    control = {"random weights": outcome(70.0, 70.5)}
    for errors, verdict in (((40, 41, 42), "transfers"), ((23, 24, 25), "does not transfer")):
        supervised("table2.supervised:digits", errors)
        row = how.enter(outcome(75.0, 77.0), control, "digits", 2.0)
        ((check, held),) = row.checks.items()
        assert row.verdict == verdict and held == (verdict == "transfers")
        assert f"errs more: by {np.mean(errors) - 24:.1f} points [" in check
        assert "control: random weights, 70.25 % right" in row.notes and row.seconds == 2
    # Killed between the row and its draws, it can be measured again; without the rival's draws
    # it is refused before the test images are used.
    (results_root() / "draws" / "table2.dcgan--digits.json").unlink()
    assert how.enter(outcome(75.0, 77.0), control, "digits", 2.0).value == pytest.approx(24)
    (results_root() / "draws" / "table2.supervised--digits.json").unlink()
    with pytest.raises(UserError, match="dcgan search"):
        replace(how, protocol="1000", split="test", again=True).check_row()


@pytest.fixture
def fits(monkeypatch):
    """Return what the command has fitted: features of nine images, and options; accuracies are
    given."""
    found, accuracies = [], []

    def fit(plan, splits, features, **how):
        some_u8 = splits.train.images_u8[:9]
        found.append((compute_features(features, some_u8, path=how["path"]), how))
        judged = replace(outcome(accuracies[len(found) - 1]), split="validation", n=TEST)
        return Fake(judged), judged

    class Fake:
        def __init__(self, judged):
            self.judged = judged

        def judge(self, *_):
            return replace(self.judged, split="test")

    monkeypatch.setattr(tables, "fit_protocol", fit)
    return found, accuracies


@pytest.mark.parametrize(
    ("batch_norm", "better", "given"),
    [("batches", "stored", (80, 60, 70)), ("stored", "batches", (80, 70, 60))],
)
def test_the_control_is_the_better_untrained_twin_and_the_file_keeps_the_network_s_features(
    batch_norm, better, given, ledger, fits
):
    found, accuracies = fits
    accuracies[:] = given
    words = f"--seed 5 --batch-norm {batch_norm} --device cpu --features-file {ledger / 'kept.npy'}"
    assert run(f"grey --set svhn {words} --split test --record table1.dcgan.full:svhn") == 0
    train, own = load_splits("svhn", channels=1).train.images_u8, load_discriminator("grey")
    expected = {}
    for name, network in (("own", own), ("twin", untrained_discriminator(own.config, 5))):
        averaged = with_statistics(network, batch_statistics(network, train))
        for kind, each in (("batches", averaged), ("stored", network)):
            expected[name, kind] = ConvFeatures(each)(train[:9])
    kinds = ("own", batch_norm), ("twin", "batches"), ("twin", "stored")
    for (x_nf, how), kind in zip(found, kinds, strict=True):
        np.testing.assert_allclose(x_nf, expected[kind], rtol=0, atol=1e-6)
        assert how["seed"] == 5
    np.testing.assert_array_equal(np.load(ledger / "kept.npy"), found[0][0])
    row = load_row("table1.dcgan.full:svhn")
    (check,) = row.checks
    assert f"(--batch-norm {better}), 70.00 %" in check and (row.seed, row.value) == (5, 80)


def test_random_weights_and_centroids_follow_the_seed(fits):
    found, accuracies = fits
    accuracies[:] = 50, 50, 50
    for seed in (3, 3, 4):
        assert run(f"kmeans1 --set digits --centroids 4 --seed {seed}") == 0
    (first, how), (again, _), (other, _) = found
    assert how["seed"] == 3 and np.array_equal(first, again) and not np.array_equal(first, other)
    weights = [open_source("random", seed=seed).network.convs[0].weight for seed in (0, 0, 1)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere --set svhn", "no checkpoint or run folder at 'nowhere'"),
        ("mine --set svhn --split test", "give both --split test and --record"),
        ("mine --set svhn --split test --record nonsense", "'nonsense' is not the id of a claim"),
        ("random --recipe nonsense", "'nonsense' is neither a recipe"),
        ("random --recipe paper-mnist", "not told the label"),
        ("mine --set svhn --grid 0", "the grid must be at least 1"),
        ("mine --set svhn --draws 3", "cannot have 3 draws"),
        ("mine --set svhn --protocol 400", "400 labels of each class were asked for"),
        ("kmeans1 --set svhn --centroids 1", "at least 2 centroids"),
        ("pixels --set nowhere", "no image set or folder 'nowhere'"),
        ("pixels --set svhn --grid 2", "pixels has no grid"),
        ("mine --set svhn --seed -1", "seed must be at least 0"),
        ("mine --set svhn --shift -1", "shift must be at least 0"),
        ("pixels --set svhn --shift 2", "pixels has no grid"),
        ("mine --set svhn --features-file .", "is a folder"),
        ("mine --set svhn --batch-norm better --features-file f.npy", "better tries two"),
        ("mine --set svhn --features-file train_32x32.mat/f.npy", "cannot be kept in"),
    ],
)
def test_a_mistake_gets_one_sentence(words, message, capsys):
    assert run(words) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out


# ---- rows ----
@pytest.mark.parametrize(
    ("id", "words", "message"),
    [
        ("table3.real.50k", "tiny", "features are recorded in the rows"),
        ("table1.dcgan.full", "tiny --protocol 400", "by the protocol full, but this is 400"),
        ("table1.pixels", "tiny", "measured with pixels, but tiny is dcgan"),
        ("table1.kmeans1.full", "pixels", "measured with kmeans1, but pixels is pixels"),
        ("table1.authors.full", "tiny", "measured with authors, but tiny is dcgan"),
        ("table1.views.full", "tiny", "is measured with --shift"),
        ("table1.dcgan.full", "tiny --shift 2", "is measured without --shift"),
        ("table1.views.full", "cifar --shift 2", "never saw cifar10"),
        ("table1.views.full", "tiny --shift 2", "table1.dcgan.full: measure that first"),
        (
            "table1.random",
            "random --recipe tiny",
            "measured with random, but random is random in the shape of tiny",
        ),
        (
            "table1.authors-random.full",
            "random --batch-norm better --recipe tiny",
            "measured with authors-random, but random is random in the shape of tiny",
        ),
        ("table1.dcgan.full", "tiny --set mnist", "record it as table1.dcgan.full:mnist"),
        ("table1.dcgan.full:mnist", "tiny", "record it as table1.dcgan.full"),
        ("table1.dcgan.full", "cifar", "never saw cifar10"),
        ("table1.dcgan-cifar", "tiny", "trained on cifar10, but this one saw tinyimagenet32"),
        ("table1.random", "random", "table1.dcgan.full: measure that first"),
        ("table1.random", "random --batch-norm stored", "with --batch-norm batches"),
        ("table1.random-stored", "random", "with --batch-norm stored, but"),
        ("table1.dcgan-cifar", "cifar", "table1.random: measure that first"),
        ("table2.dcgan", "tiny --set svhn --protocol 1000 --draws 1", "leave --grid and --draws"),
        ("table2.dcgan", "tiny --set svhn --protocol 1000 --grid 2", "leave --grid and --draws"),
    ],
)
def test_what_does_not_belong_into_a_row_is_refused(id, words, message, place):
    ending = ["--split", "test", "--record"]
    cli.parse(["features", "tiny", *ending, "table1.dcgan.full"]).check_row()
    with pytest.raises(UserError, match=message):
        cli.parse(["features", *words.split(), *ending, id]).check_row()
    with pytest.raises(UserError, match="absolute path"):
        Features(checkpoint=str(place / "tiny"), record="table1.dcgan.full").check_row()


def enter(id, *accuracies, kind="pixels", n=10_000):
    set_name = "svhn" if id.startswith("table2") else "cifar10"
    command = Features(checkpoint=kind, set=set_name, record=id)
    return command.enter(outcome(*accuracies, n=n), {}, set_name, 2.0)


def test_rows_are_accuracies_in_table_1_and_errors_in_table_2():
    first, second = enter("table1.dcgan.full", 83.5), enter("table2.dcgan", 76.0, 78.0)
    assert (first.value, first.n, first.verdict) == (83.5, 10_000, "reproduced")
    assert (second.value, second.low, second.high) == pytest.approx((23, 23 - 1.96, 23 + 1.96))
    assert "2 draws of labels" in second.notes and "C 0.001 chosen on validation" in second.notes
    measured = {row.id for row in load_results() if row.is_measured}
    assert measured == {"table1.dcgan.full", "table2.dcgan"}


def test_controls_are_met_or_missed_by_another_row():
    enter("table1.dcgan.full", 83.5)
    assert enter("table1.pixels", 70.0).verdict == "met"
    assert enter("table1.random", 83.5).verdict == "missed"
    worse = enter("table1.dcgan-cifar", 83.0)
    assert worse.verdict == "missed"
    assert worse.checks == {"random weights, 83.50 %, do worse": False}
    enter("table1.random", 70.0)
    assert enter("table1.dcgan-cifar", 83.0).verdict == "met"
    assert {row.protocol for row in tables.ROWS.values()} == set(PROTOCOLS)


@pytest.fixture
def released(place):
    """Return the folder of an imported network that lacks layers."""
    folder = place / "released"
    folder.mkdir(exist_ok=True)
    config, about = load_config(place / "mine")
    lacking = ["layer 5", "layer 6", "output"]
    save_config(folder, config, about | {"released": "their network", "lacking": lacking})
    return "released"


@pytest.mark.parametrize(
    ("accuracy", "verdict", "caveat"),
    [
        (83.9, "partly", "at most partly"),
        (76.5, "partly", "at most partly"),
        (70.0, "not tested at scale", "not at scale"),
    ],
)
def test_an_incomplete_network_neither_reproduces_nor_refutes(accuracy, verdict, caveat, released):
    row = enter("table1.authors.full", accuracy, kind=released)
    assert (row.verdict, row.caveat.kind) == (verdict, caveat)
    assert row.caveat.why == "measured without layer 5 and layer 6 of the network"
    assert "the network was their network, without layer 5, layer 6, output" in row.notes
    assert enter("table1.dcgan.full", accuracy, kind="tiny").caveat is None


def test_random_weights_get_the_batch_norm_that_does_better(fits, released, capsys):
    found, accuracies = fits
    accuracies[:] = 30, 40
    enter("table1.authors.full", 80.0, kind=released)
    words = "random --batch-norm better --recipe released --set svhn --split test --record"
    assert run(f"{words} table1.authors-random.full:svhn") == 2
    assert "compared with table1.authors.full:svhn: measure that first" in capsys.readouterr().err
    how = {"set": "svhn", "record": "table1.authors.full:svhn"}
    Features(checkpoint=released, **how).enter(outcome(80.0), {"pixels": outcome(9.0)}, "svhn", 1)
    assert run(f"{words} table1.authors-random.full:svhn") == 0
    row = load_row("table1.authors-random.full:svhn")
    assert (row.value, row.verdict, row.checkpoint) == (40, "met", None)
    assert "batch norm's statistics are chosen on validation: stored" in row.notes
    assert len(found) == 2, "a control has no control"


def test_a_row_says_how_much_its_draws_share_and_what_it_was_told(capsys):
    words = "pixels --set svhn --protocol 1000 --draws 2 --split test --record table2.pixels"
    assert run(words) == 2
    assert "compared with table2.dcgan: measure that first" in capsys.readouterr().err
    assert run("mine --set svhn --protocol 1000 --draws 2 --split test --record table2.dcgan") == 0
    assert run(f"{words} --note seen-before") == 0
    row = load_row("table2.pixels")
    assert "so two draws share 95 % of theirs" in row.notes and "seen-before" in row.notes
    assert "seen-before" not in row.command
    ((check, held),) = row.checks.items()
    assert "the trained features err less: by" in check
    assert row.verdict == ("met" if held else "missed")


# ---- studies ----
MODEL = ModelConfig(image_size=(16, 16), base_width=4, num_stages=2)
RANDOM = Source("random", network=untrained_discriminator(MODEL))


def striped(num: int, seed: int) -> ImageSet:
    """Noise with a bright bar whose place tells one of four classes."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 150, (num, 3, 16, 16), dtype=np.uint8), np.arange(num) % 4
    for at, label in enumerate(labels):
        images[at, :, 4 * label : 4 * label + 4] += 12
    return ImageSet(name="striped", images_u8=images, labels=labels, class_names=tuple("abcd"))


@pytest.fixture(scope="module")
def splits():
    return LabelledSplits(train=striped(400, 0), validation=striped(200, 1))


@pytest.fixture
def run_dir(tmp_path, monkeypatch, splits):
    """Return a run with three snapshots, and let every set be the striped one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "load_splits", lambda name, **like: splits)
    for step in (0, 10, 20):
        folder = tmp_path / "mine" / "snapshots" / f"step-{step:07d}"
        save_weights(folder / "discriminator.safetensors", untrained_discriminator(MODEL, step))
        save_config(folder, TrainConfig(model=MODEL), {"step": step})
    return tmp_path / "mine"


def study(words: str) -> int:
    return cli.main(["feature-study", *words.split()])


def measurement(**changes) -> Measurement:
    usual = Measurement(
        source="mine",
        step=10,
        seed=0,
        num_labels=40,
        num_features=8,
        n=100,
        c=1e-3,
        accuracies=(50.0, 52.0),
        accuracy=51.0,
        low=49.0,
        high=53.0,
        seconds=1.0,
        command="c",
    )
    return replace(usual, **changes)


def test_sources_are_named(run_dir):
    sources = [open_source(str(folder)) for folder in snapshot_folders(run_dir)]
    names = [(source.name, source.step) for source in sources]
    assert names == [("mine", 0), ("mine", 10), ("mine", 20)]
    names = [open_source("random", recipe_name=name).name for name in ("paper-svhn", "mnist")]
    assert names == ["random", "random mnist"]
    with pytest.raises(UserError, match="--snapshot-every"):
        snapshot_folders(run_dir / "nowhere")


def test_every_setting_is_judged_and_more_labels_help(splits):
    settings = [Setting(per_class=number) for number in (2, 50, None)]
    settings.append(Setting(layers=(1,), grid=1))
    few, many, every, blind = measure(RANDOM, splits, settings, draws=4)
    assert [row.num_labels for row in (few, many, every, blind)] == [8, 200, 400, 400]
    assert len(few.accuracies) == len(many.accuracies) == 4 and len(every.accuracies) == 1
    assert few.low <= few.accuracy <= few.high and few.accuracy + 5 < many.accuracy
    assert blind.num_features == 4 and blind.accuracy < every.accuracy
    settings = [Setting(per_class=50), Setting(per_class=50, grid=1)]
    (pixels,) = measure(open_source("pixels"), splits, settings, draws=2)
    assert (pixels.grid, pixels.batch_norm, pixels.num_features) == (0, "", 768)
    assert pixels.accuracy > 60


def test_batch_norm_has_statistics_of_the_first_training_images_or_those_that_are_stored(
    splits, monkeypatch
):
    monkeypatch.setattr(module, "MOST_AVERAGED", 128)
    network = RANDOM.network
    averaged = with_statistics(network, batch_statistics(network, splits.train.images_u8[:128]))
    settings = [Setting(per_class=2, batch_norm=kind) for kind in ("stored", "batches")]
    stored, batches = measure(RANDOM, splits, settings, draws=1)
    given = Source("averaged", network=averaged)
    (again,) = measure(given, splits, [Setting(per_class=2, batch_norm="stored")], draws=1)
    assert (stored.batch_norm, batches.batch_norm) == ("stored", "batches")
    assert batches.accuracies == again.accuracies != stored.accuracies


def test_scaling_makes_the_units_of_features_count_for_nothing(splits):
    rng = np.random.default_rng(0)
    x_nf = rng.normal(3, [1, 0, 50], (200, 3)).astype(np.float32)
    found = scaled(x_nf, np.arange(150))
    np.testing.assert_allclose(found[:150, [0, 2]].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found[:150, [0, 2]].std(0), 1, rtol=1e-4)
    assert found.dtype == np.float32 and not found[:, 1].any(), "what never moves stays finite"
    np.testing.assert_allclose(scaled(x_nf * 7 + 1, np.arange(150)), found, atol=1e-4)
    settings = [Setting(per_class=50, scaled=flag) for flag in (False, True)]
    plain, even = measure(RANDOM, splits, settings, draws=2)
    assert (plain.scaled, even.scaled) == (False, True)
    assert even.accuracies != plain.accuracies and plain.key != even.key


def test_scaling_does_not_depend_on_what_else_is_asked(splits):
    alone, beside = (
        next(measure(RANDOM, splits, [Setting(per_class=each, scaled=True) for each in labels]))
        for labels in ([5], [5, None])
    )
    assert alone.accuracies == beside.accuracies


@pytest.mark.drives("feature-study")
def test_the_command_keeps_each_snapshot_and_replaces_what_is_measured_again(run_dir, capsys):
    assert study("mine --snapshots --set striped --labels 5 --draws 2") == 0
    again = "mine/snapshots/step-0000010 --set striped --labels 5 20 --draws 3"
    assert study(again) == 0
    rows = load_study("striped")
    found = [(row.step, row.per_class, len(row.accuracies)) for row in rows]
    assert found == [(0, 5, 2), (10, 5, 3), (20, 5, 2), (10, 20, 3)]
    command = cli.parse(["feature-study", *again.split()])
    assert rows[1].command == command.command_line() == f"dcgan feature-study {again}"
    assert load_study("striped", step=10, per_class=20) == [rows[3]]
    told = "mine at step 10, layers all, grid 4, batches, 5 labels a class: validation accuracy"
    assert told in capsys.readouterr().out
    assert study(f"{run_dir} --set striped") == 2 and "absolute path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid 0 4", "must be at least 1"),
        ("--layers 1+1", "different numbers"),
        ("--layers 1+two", "layers are all, or numbers joined by +"),
        ("--seed -1", "seed must be at least 0"),
        ("--draws 0", "draws must be at least 1"),
    ],
)
def test_a_study_of_nothing_is_refused_before_images_are_read(
    words, message, run_dir, monkeypatch, capsys
):
    monkeypatch.setattr(tables, "load_splits", None)
    assert study(f"mine/snapshots/step-0000010 --set striped {words}") == 2
    assert message in capsys.readouterr().err and not (run_dir.parent / "features").exists()


def test_what_is_kept_is_only_added_to(tmp_path):
    first, again, other = measurement(), measurement(accuracy=51.5), measurement(grid=2)
    for each in (first, other, again):
        keep("set", [each])
    assert load_study("set") == [again, other]
    path = tmp_path / "features" / "set.json"
    path.write_text("[")
    with pytest.raises(UserError, match="cannot be read"):
        keep("set", [first])
    path.write_text(json.dumps([asdict(first) | {"more": 1}]))
    with pytest.raises(UserError, match="other fields"):
        load_study("set")
    with pytest.raises(UserError, match="not measured yet"):
        load_study("another")


def test_a_finished_network_comes_after_its_snapshots():
    early, late, done = (measurement(step=step) for step in (10, 20, None))
    assert latest([late, early]) == [late] and latest([early, done, late]) == [done]
    assert latest([]) == []


def test_a_curve_along_labels_is_of_one_network():
    rows = [measurement(step=20, per_class=num, num_labels=10 * num) for num in (300, 10, 100)]
    rows += [measurement(num_labels=1_000), measurement(step=30), measurement(step=20, grid=2)]
    keep("set", rows)
    assert [row.per_class for row in along_labels("set", "mine")] == [10, 100, 300]
    assert along_labels("set", "another") == []
    fresh = measurement(source="random", step=None, batch_norm="stored")
    keep("set", [replace(fresh, per_class=number) for number in (10, 30)])
    keep("set", [replace(fresh, per_class=300, batch_norm="batches")])
    assert [row.per_class for row in along_labels("set", "random")] == [10, 30]


# ---- in a chapter's cells ----
def test_live_features_are_judged_on_what_is_left(splits):
    both = [splits.train, splits.validation]
    pixels = pixel_features(np.concatenate([part.images_u8 for part in both]))
    labels = np.concatenate([part.labels for part in both])
    (value, low, high), curve = judge_features(pixels, labels, 200, 200)
    blind = judge_features(pixels, np.random.default_rng(0).permutation(labels), 200, 200)[0]
    assert low < value < high and value > 40 > blind.value and len(curve) >= 6
    unknown = np.where(np.arange(600) < 400, labels, 9)
    (none, *_), same = judge_features(pixels, unknown, 200, 200)
    assert none == 0 and same == curve, "C is chosen without what it is judged on"
    with pytest.raises(UserError, match="none is left"):
        judge_features(pixels, labels, 400, 200)
