"""The report of a generator: against the right images, with the right numbers, and into the right rows."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data import load as drawn_sets
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import generators
from dcgan_lib.evaluation import probes as probe_files
from dcgan_lib.evaluation.features import PROBE_EXTRACTORS
from dcgan_lib.evaluation.generators import (
    FEATURES_OF,
    HELD_OUT_SPLIT,
    check_record,
    draw_samples,
    evaluate_generator,
    load_classes,
    record_report,
    report_text,
)
from dcgan_lib.evaluation.ledger import CLAIMS, load_details, load_results
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig, save_probe
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training import checkpoints
from dcgan_lib.training.step import make_gan

NUM = 110  # images a side: the memorisation check needs 100
COMMAND = "dcgan evaluate mnist --record mnist"


def save_tiny_probe(root, name, channels, size):
    """Save a probe of random weights, with 12 features, so that FID needs few images."""
    torch.manual_seed(0)
    heads = (Head(name="label", kind="class", class_names=tuple("0123456789")),)
    config = ProbeConfig(
        image_size=(size, size), num_channels=channels, heads=heads, widths=(4, 4), num_features=12
    )
    save_probe(Probe(config), name, report={}, command="none", root=root)


def save_generator(folder, model, about, *, scale=1.0):
    gan = make_gan(TrainConfig(model=model))
    with torch.no_grad():
        for parameter in gan.generator.parameters():
            parameter.mul_(scale if parameter.dim() > 1 else 1)
    checkpoints.save_config(folder, gan.config, about)
    checkpoints.save_weights(folder / "generator.safetensors", gan.generator)
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, probes and drawn sets of the module: small, and nothing outside the folder."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCGAN_DATA", str(folder / "data"))
        patch.setattr(probe_files, "checkpoints_root", lambda: folder / "probes")
        patch.setitem(drawn_sets.NUM_DRAWN, "test", NUM)
        save_tiny_probe(folder / "probes", "probe-street-digits", 3, 32)
        save_tiny_probe(folder / "probes", "probe-mnist", 1, 16)
        yield folder


@pytest.fixture(scope="module")
def street_run(place):
    model = ModelConfig(image_size=(32, 32), base_width=2, z_dim=4)
    about = {
        "image_set": "street-digits",
        "source": "street-digits",
        "num_images": NUM,
        "channels": 3,
        "fit": "crop",
    }
    return save_generator(place / "street", model, about, scale=8.0)


@pytest.fixture(scope="module")
def street_report(street_run):
    return evaluate_generator(street_run, num_images=NUM, seed=3)


def test_a_report_from_end_to_end(street_run, street_report):
    report = street_report
    assert (report.image_set, report.held_out, report.seed) == ("street-digits", "test", 3)
    assert {distance.features for distance in (report.kid, report.untrained_kid, report.fid)} == {
        "street-digits-classifier"
    }
    assert (
        (report.kid.n_real, report.kid.n_fake)
        == (NUM, NUM)
        == (report.fid.n_real, report.fid.n_fake)
    )
    assert (
        report.kid.value > 0
        and report.fid.value > 0
        and report.kid.value != report.untrained_kid.value
    )
    assert report.kid.metric == f"KID (100 subsets of {NUM})"
    assert (report.memorisation.space, report.pixel_memorisation.space) == (
        "street-digits-classifier",
        "pixels",
    )
    assert (report.memorisation.n, report.memorisation.n_train) == (NUM, NUM)
    assert report.digits is None and report.seconds > 0


def test_the_text_has_every_number_with_its_n(street_run, street_report):
    lines = report_text(street_report).splitlines()
    assert (
        lines[0]
        == f"{street_run}: {NUM} samples against {NUM} test images of street-digits, seed 3"
    )
    for name, distance in (("KID", street_report.kid), ("FID", street_report.fid)):
        (line,) = [line for line in lines if line.split()[:2] == [name, f"{distance.value:.4f}"]]
        assert (
            f"[{distance.low:.4f}, {distance.high:.4f}]  (street-digits-classifier, n {NUM})"
            in line
        )
    (line,) = [line for line in lines if "closer to training images" in line]
    assert f"{100 * street_report.memorisation.closer_to_train.value:.1f} %" in line
    assert "recognised" not in report_text(street_report)


def evaluate_copies(monkeypatch, run, split):
    """Evaluate a generator whose samples are the very images of a split."""
    copied = load_image_set(
        "street-digits", split, num_images=NUM if split == "train" else None
    ).images_u8
    untrained, _ = draw_samples(checkpoints.load_generator(run), NUM, 0)
    drawn = iter([copied, untrained])
    monkeypatch.setattr(generators, "draw_samples", lambda *_: (next(drawn), None))
    return evaluate_generator(run, num_images=NUM)


def test_identical_sets_are_at_distance_zero_and_others_are_not(monkeypatch, street_run):
    report = evaluate_copies(monkeypatch, street_run, "test")
    assert abs(report.kid.value) < 0.05 * report.untrained_kid.value
    assert abs(report.fid.value) < 1e-3
    assert report.pixel_memorisation.closer_to_train.value < 0.05, (
        "copies of held-out images are no memories"
    )


def test_copies_of_training_images_are_noticed(monkeypatch, street_run):
    report = evaluate_copies(monkeypatch, street_run, "train")
    for found in (report.memorisation, report.pixel_memorisation):
        assert found.is_flagged and found.closer_to_train.value > 0.95 and found.copies.value > 0.95
    assert "copies" in report_text(report)


def test_a_set_without_features_needs_them_named(place):
    run = save_generator(
        place / "mine", ModelConfig(image_size=(32, 32), base_width=2), {"image_set": "mine"}
    )
    with pytest.raises(UserError, match="no features were made for the set 'mine': name some"):
        evaluate_generator(run)
    with pytest.raises(UserError, match="no features called 'nonsense'"):
        evaluate_generator(run, features="nonsense")
    with pytest.raises(UserError, match="no image set or folder 'mine'"):
        evaluate_generator(run, features="street-digits-classifier")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": "nonsense"}, "'nonsense'"),
        ({"num_images": 1}, "at least 2|2 or more"),
        ({"num_images": 15}, "20 samples"),
    ],
)
def test_what_cannot_be_measured_is_refused(street_run, options, message):
    with pytest.raises(UserError, match=message):
        evaluate_generator(street_run, **options)


def test_every_set_with_features_has_an_extractor():
    assert set(FEATURES_OF.values()) <= set(PROBE_EXTRACTORS)
    assert set(HELD_OUT_SPLIT) <= set(FEATURES_OF)


def fake_mnist(monkeypatch, num=NUM):
    """Stand in for MNIST: 16x16 noise, the classes one after another, brighter with every class."""
    asked = []

    def load(name, split, **options):
        asked.append((name, split, options))
        labels = np.arange(num) * 10 // num
        rng = np.random.default_rng(len(split))
        images = rng.integers(0, 56, (num, 1, 16, 16)) + 20 * labels[:, None, None, None]
        names = tuple(map(str, range(10)))
        return ImageSet(
            name="mnist", images_u8=images.astype(np.uint8), labels=labels, class_names=names
        )

    monkeypatch.setattr(generators, "load_image_set", load)
    return asked


@pytest.fixture(scope="module")
def digits_run(place):
    model = ModelConfig(image_size=(16, 16), num_channels=1, base_width=2, z_dim=4, num_classes=10)
    about = {
        "image_set": "mnist",
        "source": "mnist",
        "num_images": 105,
        "channels": 1,
        "fit": "stretch",
    }
    return save_generator(place / "digits", model, about, scale=8.0)


@pytest.fixture(scope="module")
def digits_report(digits_run):
    with pytest.MonkeyPatch.context() as patch:
        asked = fake_mnist(patch)
        report = evaluate_generator(digits_run, num_images=NUM)
    assert [(name, split) for name, split, _ in asked] == [("mnist", "train"), ("mnist", "test")]
    assert [options["num_images"] for *_, options in asked] == [105, None], (
        "trained on 105, compared with all"
    )
    assert all(
        options["fit"] == "stretch" and options["image_size"] == (16, 16) for *_, options in asked
    )
    return report


def test_digits_are_read_and_compared_with_what_was_asked(digits_run, digits_report):
    samples, labels = draw_samples(checkpoints.load_generator(digits_run), NUM, seed=1)
    probabilities = probe_files.load_probe("probe-mnist").predict(samples)["label"]
    named, digits = probabilities.argmax(1), digits_report.digits
    assert digits.counts == tuple(np.bincount(named, minlength=10)) and digits.n == NUM
    assert digits.agreement.value == pytest.approx((named == labels).mean())
    assert digits.recognised.value == pytest.approx((probabilities.max(1) > 0.9).mean())
    lines = [line.split() for line in report_text(digits_report).splitlines()]
    assert ["samples", "a", "class", *map(str, digits.counts)] in lines
    (line,) = [line for line in lines if line[:3] == ["named", "as", "asked"]]
    assert line[3] == f"{100 * digits.agreement.value:.1f}"


def test_samples_are_the_seeds_and_classes_come_in_equal_numbers():
    generator = make_gan(
        TrainConfig(model=ModelConfig(image_size=(8, 8), base_width=2, num_classes=3))
    ).generator.eval()
    pictures, labels = draw_samples(generator, 6, seed=4)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    z_nd = sample_latents(6, generator.config, seeded(4))
    np.testing.assert_array_equal(pictures, generate_u8(generator, z_nd, torch.tensor(labels)))
    plain = make_gan(TrainConfig(model=ModelConfig(image_size=(8, 8), base_width=2))).generator
    assert draw_samples(plain, 3, seed=0)[1] is None


def test_held_out_images_are_drawn_from_the_whole_split(monkeypatch):
    """The first so many, the wrong twin, would be digits 0 to 4 here, and the cleaner writers in MNIST."""
    fake_mnist(monkeypatch, num=200)
    about = {"image_set": "mnist", "num_images": None}
    part = generators._load_split(about, (16, 16), "test", 100)
    assert len(part) == 100 and set(part.labels) == set(range(10))
    assert min(np.bincount(part.labels)) >= 3
    assert len({image.tobytes() for image in part.images_u8}) == 100
    np.testing.assert_array_equal(
        part.images_u8, generators._load_split(about, (16, 16), "test", 100).images_u8
    )
    assert len(generators._load_split(about, (16, 16), "test", 500)) == 200
    assert len(generators._load_split(about, (16, 16), "train")) == 200


@pytest.mark.parametrize("name", ["mnist", "mnist-conditional"])
def test_a_report_becomes_rows_of_the_ledger(digits_report, tmp_path, name):
    known = {"recognised": Estimate(0.6, 0.5, 0.7), "evenness": Estimate(0.9, 0.8, 0.95)}
    digits_report = dataclasses.replace(
        digits_report, digits=dataclasses.replace(digits_report.digits, **known)
    )
    rows = record_report(digits_report, name, COMMAND, root=tmp_path)
    parts = ("kid", "memorised", "recognised", "entropy")
    assert [row.id for row in rows] == [f"ours.{name}.{part}" for part in parts]
    written = {row.id: row for row in load_results(tmp_path) if row.is_measured}
    assert written == {row.id: row for row in rows}
    assert {path.name for path in tmp_path.glob("*.json")} == {f"{row.id}.json" for row in rows}
    assert [row.label for row in load_classes(name, tmp_path)] == list(range(10))
    kid, near, recognised, entropy = rows
    assert (kid.value, kid.low, kid.high) == pytest.approx(
        tuple(digits_report.kid.estimate), rel=1e-3
    ) and kid.n == NUM
    assert (
        "FID on the same features" in kid.notes
        and kid.data == f"mnist, {NUM} images of its test split"
    )
    assert near.value == pytest.approx(
        100 * digits_report.memorisation.closer_to_train.value, rel=1e-3
    )
    assert near.unit == "%"
    assert (recognised.value, recognised.low, recognised.high, recognised.unit) == (60, 50, 70, "%")
    assert (entropy.value, entropy.low, entropy.high, entropy.unit) == (0.9, 0.8, 0.95, "")
    assert all(
        (row.command, row.seed, row.checkpoint) == (COMMAND, 1, digits_report.checkpoint)
        for row in rows
    )


def test_a_generator_that_saw_mirrored_images_is_also_compared_with_those(
    digits_report, street_report, tmp_path
):
    assert digits_report.mirrored_memorisation is street_report.mirrored_memorisation is None
    near = digits_report.memorisation
    seen = dataclasses.replace(near, closer_to_train=Estimate(0.4, 0.3, 0.5))
    report = dataclasses.replace(digits_report, mirrored_memorisation=seen)
    assert re.search(r"with their mirror images +40\.0 % \[30\.0, 50\.0\]", report_text(report))
    record_report(report, "mnist", COMMAND, root=tmp_path)
    kept = load_details("curves/memorised.mnist", COMMAND, tmp_path)
    assert kept == {
        "plain": list(near.closer_to_train),
        "mirrored": [0.4, 0.3, 0.5],
        "command": COMMAND,
    }


def test_chapter_9_may_say_that_chance_is_in_the_interval_with_mirror_images_too():
    kept = load_details("curves/memorised.bedrooms", "dcgan evaluate bedrooms --record bedrooms")
    assert all(low < 0.5 < high for _, low, high in (kept["plain"], kept["mirrored"]))


@pytest.mark.parametrize(("factor", "verdict"), [(0.1, "reproduced"), (0.11, "not reproduced")])
def test_the_target_is_a_tenth_of_the_distance_before_training(
    digits_report, tmp_path, factor, verdict
):
    value = 2.0 * factor
    shared = {"std": 0.0, "n_real": NUM, "n_fake": NUM, "features": "mnist-classifier"}
    kid = dataclasses.replace(digits_report.kid, value=value, low=value, high=value, **shared)
    before = dataclasses.replace(kid, value=2.0, low=2.0, high=2.0)
    report = dataclasses.replace(digits_report, kid=kid, untrained_kid=before)
    assert record_report(report, "mnist", COMMAND, root=tmp_path)[0].verdict == verdict


def test_a_generator_with_one_claim_has_one_row(street_report, tmp_path):
    assert "ours.street-digits.memorised" not in CLAIMS
    rows = record_report(
        street_report, "street-digits", "dcgan evaluate street-digits", root=tmp_path
    )
    assert [row.id for row in rows] == ["ours.street-digits.kid"]


@pytest.mark.parametrize(
    ("name", "command", "message"),
    [
        ("nonsense", COMMAND, "no generator called 'nonsense'; it has: .*mnist"),
        ("probe", COMMAND, "no generator called 'probe'"),
        ("mnist", "dcgan evaluate /home/me/run", "absolute path"),
        ("mnist", " ", "needs the command"),
    ],
)
def test_what_no_reader_could_repeat_is_not_recorded(
    street_report, tmp_path, name, command, message
):
    with pytest.raises(UserError, match=message):
        check_record(name, command)
    with pytest.raises(UserError, match=message):
        record_report(street_report, name, command, root=tmp_path)
    assert not list(tmp_path.iterdir())
    check_record("mnist", COMMAND)
