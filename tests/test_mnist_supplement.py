"""Table 3: streams that repeat themselves, counts that resume, rows; and batch norm's study."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.generators import name_digits
from dcgan_lib.evaluation.ledger import load_row
from dcgan_lib.evaluation.probes import load_probe
from dcgan_lib.experiments import mnist_supplement as module
from dcgan_lib.experiments.mnist_supplement import (
    PORTION,
    DeformedStream,
    GeneratedStream,
    RealStream,
    error_estimate,
    gain,
    load_curves,
    neighbour_test,
    record_claim,
    record_row,
    study_config,
    wrong_answers,
)
from dcgan_lib.models.networks import new_generator
from dcgan_lib.training.checkpoints import save_config, save_weights

COMMAND = "dcgan neighbours real --num-images 1000 --draws 2 --split test --record table3.real.50k"


@pytest.fixture(scope="module")
def digits():
    return load_image_set("digits"), load_image_set("digits", "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional generator of 8x8 digits, untrained."""
    folder = tmp_path_factory.mktemp("run")
    model = ModelConfig(image_size=(8, 8), num_channels=1, base_width=4, z_dim=8, num_classes=10)
    save_config(folder, TrainConfig(model=model), {"image_set": "digits", "images": 1_257})
    save_weights(folder / "generator.safetensors", new_generator(model))
    return folder


@pytest.fixture(params=["real", "deformed", "generated"])
def make(request, digits, run):
    """Return a function from a seed to a stream."""
    return {
        "real": lambda seed: RealStream(digits[0], seed),
        "deformed": lambda seed: DeformedStream(digits[0], seed, max_shift=1, alpha=2.0, sigma=0.8),
        "generated": lambda seed: GeneratedStream(str(run), seed),
    }[request.param]


def test_a_portion_depends_on_the_seed_and_its_number_alone(make):
    stream = make(3)
    first, again, other_seed = stream.portion(0), make(3).portion(0), make(4).portion(0)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert stream.key == make(3).key != make(4).key
    assert not np.array_equal(first[0], other_seed[0])
    assert not np.array_equal(first[0][:200], stream.portion(1)[0][:200])
    assert (
        first[0].dtype == np.uint8
        and first[0].shape[1:] == (1, 8, 8)
        and len(first[0]) == len(first[1]) == PORTION
    )


def test_generated_and_deformed_images_are_balanced_over_classes(digits, run):
    for stream in (
        GeneratedStream(str(run), 0),
        DeformedStream(digits[0], 0, alpha=2.0, sigma=0.8),
    ):
        assert (np.bincount(stream.portion(2)[1]) == PORTION // 10).all()


def test_deformed_images_keep_their_class_and_no_two_of_a_class_share_a_field(digits):
    train, _ = digits
    still = DeformedStream(train, 0, max_shift=0, alpha=0.0, sigma=0.8)
    images, labels = still.portion(0)
    rows = [np.flatnonzero((train.images_u8 == image).all((1, 2, 3))) for image in images[:200]]
    assert all(label in train.labels[row] for row, label in zip(rows, labels, strict=False))
    one = train.subset([int(np.flatnonzero(train.labels == k)[0]) for k in range(10)])
    bent = DeformedStream(one, 0, alpha=4.0, sigma=0.8).portion(0)[0]
    assert len(np.unique(bent[::10], axis=0)) > 90


def test_real_stream_ends_with_a_part(digits):
    stream = RealStream(digits[0], 0)
    assert [len(stream.portion(k)[1]) for k in range(2)] == [1_000, 257] and stream.length == 1_257


def test_errors_are_those_of_scikit_learn(digits):
    train, test = digits
    stream = RealStream(train, 5)
    found = neighbour_test(stream, test, 1_000)
    images, labels = stream.portion(0)
    expected = KNeighborsClassifier(1, algorithm="brute").fit(
        images.reshape(1_000, -1).astype(float), labels
    )
    np.testing.assert_array_equal(
        found.named, expected.predict(test.images_u8.reshape(len(test), -1).astype(float))
    )
    assert found.curve == ((1_000, 100 * (found.named != test.labels).mean()),)
    assert 1 < found.curve[0][1] < 6  # a classifier, neither blind nor told the answers


def test_curve_has_points_at_round_numbers_and_the_end(digits, run):
    curve = neighbour_test(GeneratedStream(str(run), 0), digits[1], 11_000).curve
    assert [number for number, _ in curve] == [1_000, 2_000, 5_000, 10_000, 11_000]


def test_a_stopped_count_goes_on_to_the_same_answer(digits, run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    state, stream, whole = tmp_path / "state", GeneratedStream(str(run), 0), None
    whole = neighbour_test(stream, digits[1], 6_000)

    def stop_at_four(index):
        if index == 4:
            raise KeyboardInterrupt
        return GeneratedStream.portion(stream, index)

    stopping = GeneratedStream(str(run), 0)
    monkeypatch.setattr(stopping, "portion", stop_at_four)
    with pytest.raises(KeyboardInterrupt):
        neighbour_test(stopping, digits[1], 6_000, state=state)
    asked = []
    resumed = GeneratedStream(str(run), 0)
    monkeypatch.setattr(
        resumed, "portion", lambda k: asked.append(k) or GeneratedStream.portion(stream, k)
    )
    found = neighbour_test(resumed, digits[1], 6_000, state=state)
    assert asked == [4, 5] and found.curve == whole.curve and not state.exists()
    np.testing.assert_array_equal(found.named, whole.named)


def test_another_tests_state_and_a_damaged_one_are_refused(digits, run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module.Path, "unlink", lambda self, missing_ok=False: None)
    state = tmp_path / "state"
    neighbour_test(GeneratedStream(str(run), 0), digits[1], 1_000, state=state)
    with pytest.raises(UserError, match="another test"):
        neighbour_test(GeneratedStream(str(run), 1), digits[1], 2_000, state=state)
    with pytest.raises(UserError, match="another test"):
        neighbour_test(
            GeneratedStream(str(run), 0), digits[1].subset(slice(100)), 2_000, state=state
        )
    state.write_bytes(b"not a state")
    with pytest.raises(UserError, match="not a test's state"):
        neighbour_test(GeneratedStream(str(run), 0), digits[1], 2_000, state=state)


@pytest.mark.parametrize("number", [0, 999, 1_500])
def test_references_come_by_the_thousand(digits, number):
    with pytest.raises(UserError, match="come by the 1,000"):
        neighbour_test(RealStream(digits[0], 0), digits[1], number)


def test_what_has_no_classes_or_too_few_images_is_refused(digits):
    train, test = digits
    nameless = ImageSet(name="nameless", images_u8=train.images_u8)
    with pytest.raises(UserError, match="1,257 images to compare with, but 2,000"):
        neighbour_test(RealStream(train, 0), test, 2_000)
    with pytest.raises(UserError, match="'nameless' has none"):
        RealStream(nameless, 0)
    with pytest.raises(UserError, match="'nameless' has none"):
        neighbour_test(RealStream(train, 0), nameless, 1_000)
    with pytest.raises(UserError, match="draws without labels"):
        GeneratedStream("mnist", 0)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


def test_a_row_reaches_the_ledger_with_its_curve(digits, ledger):
    train, test = digits
    tests = [neighbour_test(RealStream(train, seed), test, 1_000) for seed in (0, 1)]
    row = record_row("table3.real.50k", tests, test, command=COMMAND, seed=0)
    errors = [draw.curve[-1][1] for draw in tests]
    assert row.value == pytest.approx(np.mean(errors)) and row.low < row.value < row.high
    assert row.n == 360 and "2 draws: " in row.notes and "1,000 references" in row.notes
    assert load_row("table3.real.50k").value == row.value
    curves = load_curves("table3.real.50k")
    assert curves["draws"] == [[list(point) for point in draw.curve] for draw in tests]


@pytest.mark.parametrize("checkpoint", [None, "mnist-paper"])
def test_a_row_of_a_network_says_that_it_rests_on_one_training(digits, ledger, checkpoint):
    train, test = digits
    tests = [neighbour_test(RealStream(train, 0), test, 1_000)]
    row = record_row(
        "table3.dcgan.50k", tests, test, command=COMMAND, seed=0, checkpoint=checkpoint
    )
    assert ("one training" in row.notes) == (checkpoint is not None)


def test_a_row_without_a_number_in_the_paper_is_compared_with_real_digits(digits, ledger):
    train, test = digits
    bent = [neighbour_test(DeformedStream(train, 0, alpha=2.0, sigma=0.8), test, 1_000)]
    command = COMMAND.replace("real", "deformed").replace("deformed.50k", "infimnist.50k")
    with pytest.raises(UserError, match=r"table3.real.50k is not measured yet: run dcgan neigh"):
        record_row("table3.infimnist.50k", bent, test, command=command, seed=0)
    real = [neighbour_test(RealStream(train, 0), test, 1_000)]
    record_row("table3.real.50k", real, test, command=COMMAND, seed=0)
    row = record_row("table3.infimnist.50k", bent, test, command=command, seed=0)
    assert row.verdict in ("met", "missed") and "do better" in next(iter(row.checks))


def test_the_interval_is_over_test_images():
    labels = np.zeros(400, int)
    tests = [
        module.NeighbourTest(((1_000, 0.0),), named, 1.0)
        for named in (labels, np.r_[np.ones(40, int), labels[40:]])
    ]
    value, low, high = error_estimate(tests, labels)
    assert value == pytest.approx(5) and 3 < low < 5 < high < 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("real --record table3.align --split test", "no row 'table3.align'"),
        ("real --record table3.real.50k", "on the test split"),
        ("real --draws 0", "draws must be at least 1"),
        ("deformed --alpha -1", "alpha must be at least 0"),
        ("real --relabel --record table3.real.50k --split test", "labels that were asked for"),
        ("/nowhere/x --record table3.dcgan.50k --split test", "absolute path"),
    ],
)
def test_mistakes_are_answered_before_anything_is_counted(words, message, capsys):
    assert cli.main(["neighbours", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_unmeasured_rows_have_no_curve(ledger):
    with pytest.raises(UserError, match="was not measured yet: run dcgan neighbours mnist-paper"):
        load_curves("table3.dcgan.10m")


@pytest.mark.real_data("MNIST")
def test_command_classifies_real_digits(capsys):
    assert cli.main(["neighbours", "real", "--num-images", "2000", "--draws", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("seed 0  1,000: ")
    assert 7 < float(lines[2].split()[2]) < 10  # real digits: 8.3 % at 2,000


def test_a_classifier_labels_the_references_anew():
    stream = GeneratedStream("mnist-gan", 0)
    images_u8, asked = stream.portion(0)
    test = ImageSet(name="same", images_u8=images_u8, labels=asked, class_names=tuple("0123456789"))
    classifier = load_probe("probe-mnist")
    plain = neighbour_test(stream, test, 1_000)
    renamed = neighbour_test(stream, test, 1_000, classifier=classifier)
    np.testing.assert_array_equal(plain.named, asked)  # each image is its own neighbour
    np.testing.assert_array_equal(renamed.named, name_digits(images_u8, classifier)[0])
    assert 0.95 < (renamed.named == asked).mean() < 1


# --- batch norm with and without scale and bias ---
@pytest.mark.parametrize("network", ["DCGAN", "GAN"])
def test_the_runs_differ_in_nothing_else(network):
    one, other = (study_config(network, affine, 500) for affine in (True, False))
    assert replace(one, model=replace(one.model, bn_affine=False)) == other != one


def answers(shares, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.random((2_000, 1))
    return {key: np.repeat(hard < share, 3, 1) for key, share in shares.items()}


def test_gain_is_paired():
    wrong = answers({True: 0.10, False: 0.09})
    value, low, high = gain(wrong[True], wrong[False])
    assert 0.3 < value < 1.8 and 0 < low <= value <= high < 2.5, (
        "ten points apart on 2,000 images would not be enough"
    )


@pytest.mark.parametrize(
    ("gan_without", "steps", "verdict"),
    [
        (0.05, 78_000, "reproduced"),
        (0.10, 78_000, "partly"),
        (0.05, 5_850, "not tested at scale"),
    ],
)
def test_claim_needs_both_networks_and_the_papers_passes(ledger, gan_without, steps, verdict):
    shares = {
        ("DCGAN", True): 0.06,
        ("DCGAN", False): 0.04,
        ("GAN", True): 0.10,
        ("GAN", False): gan_without,
    }
    row = record_claim(answers(shares), steps, "dcgan bn-affine --record", 1.0)
    assert row.verdict == verdict and row.low > 0 and f"{steps:,} minibatches" in row.notes
    if steps == 5_850:
        assert row.caveat.why == "15 of the paper's 200 passes"


def test_a_run_is_trained_judged_and_resumed(tmp_path):
    config = study_config("GAN", True, 20)
    model = replace(config.model, image_size=(8, 8), hidden_units=16, z_dim=8)
    config = replace(config, model=model, batch_size=32, log_every=10, num_samples=10)
    options = {"split": "test", "image_set": "digits", "num_references": 1_000, "num_draws": 2}
    wrong = wrong_answers(config, tmp_path / "run", **options)
    assert wrong.shape == (360, 2) and wrong.dtype == bool and 0.2 < wrong.mean() <= 1
    np.testing.assert_array_equal(wrong_answers(config, tmp_path / "run", **options), wrong)
