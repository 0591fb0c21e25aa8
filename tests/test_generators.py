"""The report of a generator: the right images, the right numbers, the right rows of the ledger."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data import load as drawn_sets
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import generators
from dcgan_lib.evaluation.features import (
    FEATURES_OF,
    PROBE_EXTRACTORS,
    PROBE_FEATURES_OF,
    RULER,
    FeatureExtractor,
    get_features,
)
from dcgan_lib.evaluation.generators import (
    class_quality,
    draw_samples,
    evaluate_generator,
    measure_copies,
    measure_distances,
    precision_recall,
)
from dcgan_lib.evaluation.ledger import claims, load_results
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig, load_probe, save_probe
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments.generators import (
    check_record,
    load_classes,
    measured_text,
    record_report,
)
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training import checkpoints
from dcgan_lib.training.step import make_gan

NUM = 110  # images a side: the memorisation check needs 100
COMMAND = "dcgan evaluate mnist --record mnist"


def save_tiny_probe(folder, channels, size):
    """Save a probe of random weights, with 12 features, so that FID needs few images."""
    torch.manual_seed(0)
    heads = (Head(name="label", kind="class", class_names=tuple("0123456789")),)
    config = ProbeConfig(
        image_size=(size, size), num_channels=channels, heads=heads, widths=(4, 4), num_features=12
    )
    save_probe(Probe(config), folder, report={}, command="none")


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
        patch.setenv("DCGAN_CHECKPOINTS", str(folder / "probes"))
        patch.setitem(drawn_sets.NUM_DRAWN, "test", NUM)
        save_tiny_probe(folder / "probes" / "probe-street-digits", 3, 32)
        save_tiny_probe(folder / "probes" / "probe-mnist", 1, 16)
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


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


def test_a_report_from_end_to_end(street_report):
    report, rows = street_report, street_report.rows
    assert (report.image_set, report.split, report.seed) == ("street-digits", "test", 3)
    assert (report.num_held_out, report.num_images) == (NUM, NUM) and report.seconds > 0
    shares = ["memorised", "copies", "memorised_pixels", "copies_pixels"]
    assert list(rows) == ["kid", "untrained_kid", *shares]
    assert {row.n for row in rows.values()} == {NUM} and not report.classes
    assert len(report.missing) == 1 and "FID on 1280 features needs" in report.missing[0]
    assert 0 < rows["kid"].estimate.value != rows["untrained_kid"].estimate.value
    assert rows["kid"].how == f"KID (100 subsets of {NUM // 2}) on {RULER}"
    assert rows["kid"].estimate.low < rows["kid"].estimate.value, "subsets differ"
    sides = f"{NUM} training and {NUM} held-out images"
    assert f"50.0% expected; in {RULER}, {sides}" in rows["memorised"].how
    assert f"in pixels, {sides}" in rows["memorised_pixels"].how
    assert "of copies shifted by a pixel" in rows["copies"].how


def test_the_text_has_every_number_with_its_interval_and_n(street_run, street_report):
    first, *lines, missing, last = street_report.text().splitlines()
    assert first == (
        f"{street_run}: {NUM} samples against {NUM} test images of street-digits, seed 3"
    )
    for line, row in zip(lines, street_report.rows.values(), strict=True):
        digits = 1 if row.unit else 4
        value, low, high = (f"{x:.{digits}f}" for x in row.in_unit)
        assert line.strip().startswith(row.label.strip()) and line.endswith(f", n {NUM})")
        assert value in line and f"[{low}, {high}]" in line and row.how in line
    assert missing == f"  not measured: {street_report.missing[0]}"
    assert "KID estimates a squared distance without bias" in last


@pytest.fixture(scope="module")
def street_sets(place):
    return {
        split: load_image_set("street-digits", split, num_images=NUM).images_u8
        for split in ("train", "validation", "test")
    }


@pytest.fixture(scope="module")
def classifier(place):
    return get_features("street-digits-classifier")


def ask_about(street_sets, split, features, **changed):
    """Ask whether the very images of a split are copies of training images."""
    sides = street_sets | changed
    return copies_among(street_sets[split], sides["train"], sides["test"], features)


def copies_among(samples, train, held_out, features):
    return measure_copies(samples, features.extract(samples), train, held_out, features)


def distances(samples, untrained, held_out, features):
    parts = (features.extract(part) for part in (samples, untrained, held_out))
    return measure_distances(*parts, features.name)


def test_identical_sets_are_at_distance_zero_and_others_are_not(street_sets, classifier):
    same = street_sets["test"]
    rows, missing = distances(same, np.zeros_like(same), same, classifier)
    assert abs(rows["kid"].estimate.value) < 0.05 * rows["untrained_kid"].estimate.value
    assert rows["fid"].estimate.value < 1e-3 and not missing


def test_copies_of_training_images_are_noticed(street_sets, classifier):
    rows, _ = ask_about(street_sets, "train", classifier)
    assert list(rows) == ["memorised", "copies", "memorised_pixels", "copies_pixels"]
    assert all(row.estimate.low > 0.9 for row in rows.values())


def test_unseen_images_are_no_copies(street_sets, classifier):
    rows, _ = ask_about(street_sets, "validation", classifier)
    assert rows["memorised"].estimate.low < 0 < rows["memorised"].estimate.high
    assert rows["copies"].estimate.low < 0.03


def test_a_share_that_cannot_be_told_is_called_too_weak(street_sets, classifier):
    rows, _ = ask_about(street_sets, "validation", classifier)
    low, high = rows["memorised"].estimate[1:]
    assert high - low > 0.2, "so few images say little"
    assert f"{100 * (high - low):.0f} points wide" in rows["memorised"].too_weak
    rows, _ = ask_about(street_sets, "train", classifier)
    assert "shifted by one pixel come to" in rows["memorised"].too_weak
    train, test = smooth_pictures()
    rows, _ = copies_among(train, train, test, classifier)
    assert rows["memorised_pixels"].too_weak is None


def smooth_pictures():
    """Draw two sets of pictures that a shift by one pixel hardly changes."""
    blocks = np.random.default_rng(0).integers(0, 256, (2 * NUM, 3, 4, 4), dtype=np.uint8)
    smooth = blocks.repeat(8, axis=2).repeat(8, axis=3)
    return smooth[:NUM], smooth[NUM:]


def test_the_share_of_copies_rests_on_shifted_copies_being_found(street_sets):
    blind = FeatureExtractor(
        "corner", 1, torch.nn.Identity(), lambda x_u8: x_u8[:, :1, :1, -1:].flatten(1).float()
    )
    rows, _ = ask_about(street_sets, "train", blind)
    assert "shifted by one pixel only" in rows["copies"].too_weak
    train, test = smooth_pictures()
    rows, _ = copies_among(train, train, test, get_features("street-digits-classifier"))
    assert rows["copies_pixels"].too_weak is None


def test_what_needs_more_images_is_named_and_the_rest_is_measured(street_sets, classifier):
    few = street_sets["test"][:10]
    noise = np.random.default_rng(0).integers(0, 256, few.shape, dtype=np.uint8)
    rows, missing = distances(street_sets["validation"], noise, few, classifier)
    assert list(rows) == ["kid", "untrained_kid"]
    assert len(missing) == 1 and "FID on 12 features needs at least 15 images" in missing[0]
    rows, missing = copies_among(street_sets["validation"], few, few, classifier)
    assert not rows and len(missing) == 1 and "100 images on either side" in missing[0]
    with pytest.raises(UserError, match="KID on 100 subsets of 0 needs"):
        distances(street_sets["validation"], noise, few[:1], classifier)


def own_set(folder, shape, splits=("train", "test")):
    """Write 30 pictures a split, and the checkpoint of a generator trained on them."""
    rng = np.random.default_rng(0)
    for split in splits:
        (folder / "set" / split).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, shape[1:] + shape[:1], dtype=np.uint8).squeeze()
            Image.fromarray(pixels).save(folder / "set" / split / f"{number}.png")
    model = ModelConfig(num_channels=shape[0], image_size=shape[1:], base_width=2, z_dim=4)
    about = {"image_set": "set", "source": str(folder / "set")}
    return save_generator(folder / "run", model, about)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 32, 64)])
@pytest.mark.drives("evaluate")
def test_an_own_small_set_of_any_size_has_its_kid(place, tmp_path, shape, capsys):
    run = own_set(tmp_path, shape)
    assert cli.main(["evaluate", run, "--num-images", "40"]) == 2
    error = capsys.readouterr().err
    assert "--features; pixels and efficientnet-lite0 fit every size" in error
    probes = "street-digits-classifier"
    assert cli.main(["evaluate", run, "--num-images", "40", "--features", probes]) == 2
    assert "n x (3, 32, 32)" in capsys.readouterr().err
    assert cli.main(["evaluate", run, "--num-images", "40", "--features", "pixels"]) == 0
    text = capsys.readouterr().out
    assert "40 samples against 30 test images of set" in text
    assert "KID (100 subsets of 15) on pixels" in text and "()" not in text
    assert "not measured: FID on" in text and "not measured: the memorisation check" in text


def test_without_a_test_split_the_validation_images_are_compared(place, tmp_path):
    run = own_set(tmp_path, (1, 16, 16), ("train", "val"))
    report = evaluate_generator(run, num_images=20, features="pixels")
    assert (report.split, report.num_held_out) == ("validation", 20)


def test_test_images_are_left_alone_where_there_are_validation_images(place, tmp_path):
    run = own_set(tmp_path, (1, 16, 16), ("train", "val", "test"))
    how = {"num_images": 20, "features": "pixels"}
    assert evaluate_generator(run, **how).split == "validation"
    assert evaluate_generator(run, **how, held_out="test").split == "test"  # asked for


def test_features_and_splits_that_do_not_exist_are_refused(street_run):
    with pytest.raises(UserError, match="no features called 'nonsense'"):
        evaluate_generator(street_run, features="nonsense")
    with pytest.raises(UserError, match="'nonsense'"):
        evaluate_generator(street_run, held_out="nonsense")
    with pytest.raises(UserError, match="--num-images is 1"):
        evaluate_generator(street_run, num_images=1)


def test_every_set_with_features_has_an_extractor():
    assert set(FEATURES_OF.values()) == {RULER}
    assert set(PROBE_FEATURES_OF.values()) <= set(PROBE_EXTRACTORS)
    assert set(PROBE_FEATURES_OF) <= set(FEATURES_OF)


def test_where_pixels_are_the_features_copies_are_looked_for_once(street_sets):
    pixels = FeatureExtractor("pixels", 3072, torch.nn.Identity(), lambda x_u8: x_u8.flatten(1))
    rows, _ = ask_about(street_sets, "validation", pixels)
    assert list(rows) == ["memorised_pixels", "copies_pixels"]


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
            name="mnist",
            images_u8=images.astype(np.uint8),
            labels=labels,
            class_names=names,
            card={"split": "test" if split == "held-out" else split},
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
    assert [(name, split) for name, split, _ in asked] == [
        ("mnist", "train"),
        ("mnist", "held-out"),
        ("mnist", "held-out"),
    ]
    assert [options["num_images"] for *_, options in asked] == [105, None, None], (
        "trained on 105, compared with all"
    )
    assert all(
        options["fit"] == "stretch" and options["image_size"] == (16, 16) for *_, options in asked
    )
    return report


def test_digits_are_read_and_compared_with_what_was_asked(digits_run, digits_report):
    samples, labels = draw_samples(checkpoints.load_generator(digits_run), NUM, seed=1)
    probabilities, rows = load_probe("probe-mnist").predict(samples)["label"], digits_report.rows
    named = probabilities.argmax(1)
    assert rows["agreement"].estimate.value == pytest.approx((named == labels).mean())
    recognised = (probabilities.max(1) > 0.9).mean()
    assert rows["recognised"].estimate.value == pytest.approx(recognised)
    counts = " ".join(map(str, np.bincount(named, minlength=10)))
    assert f"samples a class: {counts}, n {NUM}" in digits_report.text()
    assert [row.label for row in digits_report.classes] == list(range(10))


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
    """The first so many would be digits 0 to 4 here, and the cleaner writers in MNIST."""
    fake_mnist(monkeypatch, num=200)
    about = {"image_set": "mnist", "num_images": None}
    part = generators.load_own_split(about, (16, 16), "test", 100)
    assert len(part) == 100 and set(part.labels) == set(range(10))
    assert min(np.bincount(part.labels)) >= 3
    assert len({image.tobytes() for image in part.images_u8}) == 100
    np.testing.assert_array_equal(
        part.images_u8, generators.load_own_split(about, (16, 16), "test", 100).images_u8
    )
    assert len(generators.load_own_split(about, (16, 16), "test", 500)) == 200
    assert len(generators.load_own_split(about, (16, 16), "train")) == 200


def with_rows(report, **changes):
    changed = {key: report.rows[key]._replace(estimate=found) for key, found in changes.items()}
    return dataclasses.replace(report, rows=report.rows | changed)


@pytest.mark.parametrize("name", ["mnist", "mnist-conditional"])
def test_a_report_becomes_rows_of_the_ledger(digits_report, ledger, name):
    known = {"recognised": Estimate(0.6, 0.5, 0.7), "entropy": Estimate(0.9, 0.8, 0.95)}
    report = with_rows(digits_report, **known)
    rows = record_report(report, name, COMMAND)
    parts = ("kid", "memorised", "copies", "recognised", "entropy")
    assert [row.id for row in rows] == [f"ours.{name}.{part}" for part in parts]
    assert {row.id: row for row in load_results() if row.is_measured} == {r.id: r for r in rows}
    assert {path.name for path in ledger.glob("*.json")} == {f"{row.id}.json" for row in rows}
    assert load_classes(name) == report.classes
    kid, near, copies, recognised, entropy = rows
    assert kid.value == pytest.approx(report.rows["kid"].estimate.value, rel=1e-3) and kid.n == NUM
    assert kid.verdict == "own figure" and not kid.checks
    assert "before training" in kid.notes
    assert kid.data == f"mnist, {NUM} images of its test split"
    assert near.data == copies.data == "mnist, its training images and its test split"
    assert near.value == pytest.approx(100 * report.rows["memorised"].estimate.value, rel=1e-3)
    assert near.unit == "%" and "; in pixels " in near.notes
    assert (recognised.value, recognised.low, recognised.high, recognised.unit) == (60, 50, 70, "%")
    assert (entropy.value, entropy.low, entropy.high, entropy.unit) == (0.9, 0.8, 0.95, "")
    about = {(row.command, row.seed, row.checkpoint) for row in rows}
    assert about == {(COMMAND, 1, report.checkpoint)}


def test_a_share_that_is_too_weak_gets_no_verdict(digits_report, ledger):
    weak = digits_report.rows["memorised"]._replace(too_weak="few are compared")
    report = dataclasses.replace(digits_report, rows=digits_report.rows | {"memorised": weak})
    near = record_report(report, "mnist", COMMAND)[1]
    assert near.verdict == "not tested at scale" and near.caveat.why == "few are compared"


def test_bedrooms_also_answer_the_papers_claim(digits_report, ledger):
    report = dataclasses.replace(digits_report, image_set="bedrooms64")
    report = with_rows(report, copies=Estimate(0.01, 0, 0.03))
    *_, row = record_report(report, "bedrooms", "dcgan evaluate bedrooms --record bedrooms")
    assert row.id == "bedrooms.memorisation:bedrooms64" and row.verdict == "not tested at scale"
    assert (row.value, row.low, row.high, row.unit) == (1, 0, 3, "%")
    many = with_rows(report, copies=Estimate(0.3, 0.2, 0.4))
    *_, other = record_report(many, "bedrooms", "dcgan evaluate bedrooms --record bedrooms")
    first = "by features, at most 5 % of the samples are copies"
    assert row.checks[first] and not other.checks[first]


def test_a_generator_has_a_row_for_each_of_its_claims(street_report, ledger):
    assert "untrained_kid" in street_report.rows and "ours.natural.untrained_kid" not in claims()
    rows = record_report(street_report, "natural", "dcgan evaluate natural")
    assert {row.id for row in rows} == {id for id in claims() if id.startswith("ours.natural.")}
    assert json.loads((ledger / "ours.natural.kid.json").read_text())["n"] == NUM


GENERATORS = sorted({id.split(".")[1] for id in claims() if id.endswith(".copies")})


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generators_card_says_what_was_measured(name):
    card = Path(__file__).parents[1] / "data" / "checkpoints" / name / "card.md"
    text = card.read_text(encoding="utf-8")
    assert text.endswith(measured_text(name)) and text.count("| KID (") == 1


def test_recording_renews_the_card(street_report, ledger, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    (tmp_path / "faces").mkdir()
    card = tmp_path / "faces" / "card.md"
    card.write_text("# faces\n")
    report = dataclasses.replace(street_report, checkpoint="faces")
    for _ in range(2):
        record_report(report, "faces", "dcgan evaluate faces --record faces")
        assert card.read_text() == "# faces\n" + measured_text("faces")


@pytest.mark.parametrize(
    ("name", "command", "message"),
    [
        ("probe", COMMAND, "no generator called 'probe'; it has: .*mnist"),
        ("mnist", "dcgan evaluate /home/me/run", "absolute path"),
    ],
)
def test_what_no_reader_could_repeat_is_not_recorded(street_report, ledger, name, command, message):
    with pytest.raises(UserError, match=message):
        check_record(name, command)
    with pytest.raises(UserError, match=message):
        record_report(street_report, name, command)
    assert not list(ledger.iterdir())
    check_record("mnist", COMMAND)


# --- class by class ---
def cloud(num, seed, centre=0.0, spread=1.0):
    return centre + spread * np.random.default_rng(seed).normal(size=(num, 4))


def test_one_source_has_both():
    precision, recall = precision_recall(cloud(400, 0), cloud(400, 1))
    assert precision.low > 0.6 and recall.low > 0.6
    assert [share.value for share in precision_recall(cloud(400, 0), cloud(400, 0))] == [1, 1]


def test_few_modes_cost_recall_and_noise_costs_precision():
    real = np.concatenate([cloud(200, 0), cloud(200, 1, centre=30)])
    precision, recall = precision_recall(real, cloud(400, 2))
    assert precision.low > 0.6 and 0.3 < recall.value < 0.5
    precision, recall = precision_recall(
        cloud(200, 0), np.concatenate([cloud(100, 1), cloud(100, 2, centre=30)])
    )
    assert 0.3 < precision.value < 0.5 and recall.low > 0.5


def test_far_apart_is_nothing():
    assert [share.value for share in precision_recall(cloud(50, 0), cloud(50, 1, centre=99))] == [
        0,
        0,
    ]


@pytest.mark.parametrize("sizes", [(10, 11), (3, 3)])
def test_sizes_must_match(sizes):
    with pytest.raises(UserError, match=f"got {sizes[0]} and {sizes[1]}"):
        precision_recall(*(cloud(size, 0) for size in sizes))


@pytest.fixture(scope="module")
def rows():
    """Class 0 is right; class 1 comes out as 0 half of the time; class 2 is one image."""
    rng = np.random.default_rng(0)
    means = np.array([40, 120, 200])
    real_labels, asked = np.repeat([0, 1, 2], 60), np.repeat([0, 1, 2], 50)
    drawn = asked.copy()
    drawn[50:75] = 0

    def images(labels):
        return np.clip(
            means[labels][:, None, None, None] + rng.normal(0, 5, (len(labels), 1, 4, 4)), 0, 255
        ).astype(np.uint8)

    real, fake = images(real_labels), images(drawn)
    fake[100:] = fake[100]
    pixels = FeatureExtractor(
        "pixels", 16, torch.nn.Identity(), lambda x_u8: x_u8.flatten(1).float()
    )
    return class_quality(pixels.extract(real), real_labels, pixels.extract(fake), asked, drawn)


def test_each_class_shows_its_own_fault(rows):
    right, confused, collapsed = rows
    assert [row.n for row in rows] == [50, 50, 50] and [row.label for row in rows] == [0, 1, 2]
    assert right.agreement.value == 1 and right.mistaken_for is None and right.recall.value > 0.5
    assert (
        confused.agreement.value == 0.5
        and confused.mistaken_for == 0
        and confused.precision.value < 0.6
    )
    assert collapsed.agreement.value == 1 and collapsed.recall.value < 0.1
