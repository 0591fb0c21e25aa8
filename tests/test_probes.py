"""Probes learn what can be learnt, admit what cannot, and come back from disk as they were."""

import json

import numpy as np
import pytest
import torch

from dcgan_lib import cli
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation import probes
from dcgan_lib.evaluation.generators import digit_rows, name_digits
from dcgan_lib.evaluation.ledger import load_row
from dcgan_lib.evaluation.probes import (
    CARD,
    CONFIG,
    WEIGHTS,
    Head,
    Probe,
    ProbeConfig,
    augment,
    frame,
    load_probe,
    probe_report,
    save_probe,
    train_probe,
    truth,
)
from dcgan_lib.experiments.probes import RECIPES, ProbeRecipe
from dcgan_lib.paths import checkpoints_root


def squares(num, seed, size=16):
    """Grey pictures with one square: its quadrant is the class; brightness, frame: attributes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (num, 1, size, size), dtype=np.uint8)
    labels, framed = rng.integers(0, 4, num), rng.random(num) < 0.5
    brightness = rng.uniform(80, 250, num).astype(np.float32)
    for image, label, frame_on, bright in zip(
        images[:, 0], labels, framed, brightness, strict=True
    ):
        top, left = (
            (label // 2) * size // 2 + rng.integers(1, 4),
            (label % 2) * size // 2 + rng.integers(1, 4),
        )
        image[top : top + 4, left : left + 4] = bright
        if frame_on:
            image[[0, -1]] = 255
    return ImageSet(
        name="squares",
        images_u8=images,
        labels=labels.astype(np.int64),
        class_names=("nw", "ne", "sw", "se"),
        attributes={
            "framed": framed,
            "brightness": brightness,
            "boxes": np.zeros((num, 4), np.float32),
        },
    )


def with_attribute(image_set, name, values):
    attributes = {**image_set.attributes, name: values}
    return ImageSet(name=image_set.name, images_u8=image_set.images_u8, attributes=attributes)


@pytest.fixture(scope="module")
def trained():
    return train_probe(squares(1500, 0), steps=96, batch_size=48)


def test_learns_labels_booleans_and_numbers(trained):
    report = probe_report(trained, squares(400, 1))
    assert {name: row["kind"] for name, row in report.items()} == {
        "label": "class",
        "framed": "boolean",
        "brightness": "continuous",
    }
    assert report["label"]["score"] > 0.97 and report["framed"]["score"] > 0.97
    assert report["brightness"]["score"] > 0.9 and report["brightness"]["mean_error"] < 15
    assert all(
        row["low"] <= row["score"] <= row["high"] and row["n"] == 400 for row in report.values()
    )
    assert report["label"]["baseline"] == pytest.approx(0.25, abs=0.06)


def test_scores_are_those_of_the_predictions(trained):
    held_out = squares(200, 2)
    answers, report = trained.predict(held_out.images_u8), probe_report(trained, held_out)
    assert report["label"]["score"] == round(
        float((answers["label"].argmax(1) == held_out.labels).mean()), 5
    )
    error = answers["brightness"] - held_out.attributes["brightness"]
    assert report["brightness"]["score"] == pytest.approx(
        1 - error.var() / held_out.attributes["brightness"].var(), abs=0.1
    )
    np.testing.assert_allclose(answers["label"].sum(1), 1, atol=1e-5)
    assert answers["framed"].min() >= 0 and answers["framed"].max() <= 1


def test_nothing_is_learnt_from_shuffled_truth():
    image_set = squares(900, 0)
    noise = np.random.default_rng(5).random(900) < 0.5
    probe = train_probe(
        with_attribute(image_set, "noise", noise), ["noise"], steps=48, batch_size=32
    )
    held_out = with_attribute(squares(400, 1), "noise", np.random.default_rng(6).random(400) < 0.5)
    row = probe_report(probe, held_out)["noise"]
    assert row["low"] < row["baseline"] + 0.05 and row["score"] < 0.62


def test_absent_truth_is_left_out_of_training_and_scores():
    values = squares(1200, 0).attributes["brightness"].copy()
    values[::2] = np.nan
    probe = train_probe(
        with_attribute(squares(1200, 0), "brightness", values),
        ["brightness"],
        steps=64,
        batch_size=48,
    )
    held_out = squares(300, 1)
    known = held_out.attributes["brightness"].copy()
    known[:100] = np.nan
    report = probe_report(probe, with_attribute(held_out, "brightness", known))
    assert report["brightness"]["n"] == 200 and report["brightness"]["score"] > 0.8
    with pytest.raises(UserError, match="known for 0 held-out images"):
        probe_report(
            probe, with_attribute(held_out, "brightness", np.full(300, np.nan, np.float32))
        )


def test_training_repeats_itself_and_leaves_the_global_seed_alone():
    torch.manual_seed(7)
    before = torch.rand(1)
    torch.manual_seed(7)
    runs = [
        train_probe(squares(200, 0), ["framed"], steps=8, batch_size=16, seed=seed, shift=1)
        for seed in (0, 0, 1)
    ]
    weights = [probe.heads.weight for probe in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.rand(1) == before


def test_validation_images_are_not_learnt_from():
    image_set = squares(500, 0)
    probe = train_probe(image_set, ["framed"], steps=8, batch_size=16)
    assert (probe.facts["num_train"], probe.facts["num_validation"]) == (450, 50)
    given = train_probe(image_set, ["framed"], steps=8, batch_size=16, validation=squares(60, 3))
    assert (given.facts["num_train"], given.facts["num_validation"]) == (500, 60)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["colour"], {}, "has no 'colour'"),
        (["boxes"], {}, "has no 'boxes' with one value"),
        (["framed"], {"steps": 3}, "steps >= 8"),
        (["framed"], {"batch_size": 1}, "batch_size >= 2"),
        ([], {}, "at least one, but would read none"),
        (["framed", "framed"], {}, "different things"),
    ],
)
def test_training_refuses(targets, options, message):
    with pytest.raises(UserError, match=message):
        train_probe(squares(50, 0), targets, **{"steps": 8, "batch_size": 8, **options})


def test_constant_truth_is_refused():
    with pytest.raises(UserError, match="never varies"):
        train_probe(with_attribute(squares(50, 0), "lamp", np.ones(50, bool)), ["lamp"], steps=8)


def test_prediction_does_not_depend_on_the_batch(trained):
    images = squares(50, 4).images_u8
    images.setflags(write=False)  # as a memory map is
    whole, parts = trained.predict(images), trained.predict(images, batch_size=7)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 16, 16), np.uint8),
        np.zeros((2, 1, 12, 12), np.uint8),
        np.zeros((2, 1, 16, 16), np.float32),
    ],
)
def test_other_images_are_refused(trained, images):
    with pytest.raises(UserError, match="the probe reads uint8 images"):
        trained.predict(images)


@pytest.mark.parametrize(
    ("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((64, 64), 3), ((48, 64), 1)]
)
def test_every_size_between_28_and_64(size, channels):
    heads = (
        Head(name="label", kind="class", class_names=("a", "b", "c")),
        Head(name="x", kind="continuous"),
    )
    probe = Probe(
        ProbeConfig(image_size=size, num_channels=channels, heads=heads, widths=(8, 8, 8))
    )
    answers = probe.predict(np.zeros((3, channels, *size), np.uint8))
    assert answers["label"].shape == (3, 3) and answers["x"].shape == (3,)


def test_augment_moves_whole_images_and_repeats_the_edge():
    x_u8 = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    assert augment(x_u8, 0, False, np.random.default_rng(0)) is x_u8
    moved = augment(x_u8, 1, False, np.random.default_rng(0))
    assert moved.shape == x_u8.shape and moved.dtype == torch.uint8
    assert {int(image[0, 4, 4]) for image in moved} == {
        36 + down * 8 + right for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    assert int(moved[:, 0, 0, 0].max()) == 9 and int(moved[:, 0, 0, 0].min()) == 0
    mirrored = augment(x_u8, 0, True, np.random.default_rng(0))
    kinds = [
        torch.equal(image, x_u8[0]) + 2 * torch.equal(image, x_u8[0].flip(2)) for image in mirrored
    ]
    assert set(kinds) == {1, 2} and 60 < kinds.count(2) < 140


def test_saved_probe_answers_as_before_and_fits_in_a_megabyte(trained, tmp_path, monkeypatch):
    report = probe_report(trained, squares(100, 1))
    folder = save_probe(trained, tmp_path / "probe-squares", report=report, command="make it")
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, CARD}
    assert (folder / WEIGHTS).stat().st_size < 1_000_000
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    loaded, images = load_probe("probe-squares"), squares(100, 3).images_u8
    assert load_probe(folder).config == loaded.config == trained.config
    assert loaded.facts == {**trained.facts, "report": report}
    before, after = trained.predict(images), loaded.predict(images)
    np.testing.assert_allclose(after["label"], before["label"], atol=0.02)
    np.testing.assert_allclose(after["brightness"], before["brightness"], atol=1)
    card = (folder / CARD).read_text(encoding="utf-8")
    assert f"{report['label']['score']:.4f}" in card and "    make it" in card
    again = save_probe(loaded, "again", report=report, command="make it")
    for name, values in load_probe(again).predict(images).items():
        np.testing.assert_array_equal(values, after[name])


@pytest.mark.parametrize(
    ("file", "content"), [(CONFIG, b"{"), (CONFIG, b"{}"), (WEIGHTS, b"not weights")]
)
def test_damaged_probe_is_refused(trained, tmp_path, file, content):
    folder = save_probe(trained, tmp_path / "probe-squares", report={}, command="make it")
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=r"(damaged|cannot be read) .*: train (it|the probe) again"):
        load_probe(folder)


def test_weights_of_another_probe_are_refused(trained, tmp_path):
    folder = save_probe(trained, tmp_path / "probe-squares", report={}, command="make it")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["config"]["num_features"] = 64
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        load_probe(folder)


def test_missing_probe_lists_the_others(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    save_probe(trained, "probe-squares", report={}, command="make it")
    with pytest.raises(UserError, match="choose from probe-squares"):
        load_probe("probe-circles")
    with pytest.raises(UserError, match="no head 'colour'"):
        trained.head("colour")


def test_unknown_recipe_is_refused(capsys):
    assert cli.main(["probe", "probe-squares"]) == 2
    assert "choose from probe-mnist" in capsys.readouterr().err


@pytest.mark.drives("probe")
def test_the_command_trains_scores_keeps_and_records(tmp_path, monkeypatch, capsys):
    """With another --out and another ledger, nothing of the repository is touched."""
    for name in ("RESULTS", "CHECKPOINTS", "DATA"):
        monkeypatch.setenv(f"DCGAN_{name}", str(tmp_path / name))
    recipe = ProbeRecipe(
        image_set="digits",
        image_size=16,
        training={"steps": 60},
        splits=("train", None, "test"),
        ledger={"mnist": "label"},
    )
    monkeypatch.setitem(RECIPES, "probe-digits", recipe)
    words = ["probe", "probe-digits", "--seed", "3", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert not (tmp_path / "CHECKPOINTS").exists()
    report = load_probe(tmp_path / "out" / "probe-digits").facts["report"]["label"]
    row = load_row("ours.probe.mnist")
    assert row.value == pytest.approx(100 * report["score"]) and row.value > 50
    assert (row.n, row.command) == (report["n"], "dcgan probe probe-digits --seed 3")
    assert "recorded ours.probe.mnist" in capsys.readouterr().out


def test_digits_are_named_framed_and_counted(trained):
    even = squares(400, 8)
    even.images_u8.setflags(write=False)
    named, confidence = name_digits(even.images_u8, trained)
    rows = digit_rows(named, confidence, 4, even.labels)
    assert {row.n for row in rows.values()} == {400}
    assert rows["entropy"].estimate.value > 0.98 and rows["agreement"].estimate.value > 0.95
    assert rows["recognised"].estimate.value > 0.9
    collapsed = even.subset(even.labels == 2)
    rows = digit_rows(*name_digits(collapsed.images_u8, trained), 4)
    assert "agreement" not in rows and rows["entropy"].estimate.value < 0.3
    small = even.images_u8[:, :, 2:-2, 2:-2]
    framed = frame(torch.from_numpy(small.copy()), (16, 16)).numpy()
    np.testing.assert_array_equal(framed[:, :, 2:-2, 2:-2], small)
    assert framed[:, :, :2].max() == 0 and len(name_digits(small, trained)[0]) == 400


def test_untrained_classifier_recognises_nothing():
    heads = (Head(name="label", kind="class", class_names=tuple("0123456789")),)
    untrained = Probe(
        ProbeConfig(image_size=(16, 16), num_channels=1, heads=heads, widths=(8, 8, 8))
    )
    _, confidence = name_digits(squares(100, 0).images_u8, untrained)
    assert (confidence > 0.9).mean() < 0.1


@pytest.mark.parametrize("side", [11, 20])
def test_digits_of_another_size_are_refused(trained, side):
    with pytest.raises(UserError, match="up to 4 pixels a side smaller"):
        name_digits(np.zeros((5, 1, side, side), np.uint8), trained)


@pytest.mark.parametrize("name", RECIPES)
def test_committed_probe_is_small_scored_and_documented(name):
    folder = checkpoints_root() / name
    probe = load_probe(name)
    assert (folder / WEIGHTS).stat().st_size < 1_000_000
    assert set(probe.facts["report"]) == {head.name for head in probe.config.heads}
    assert all(
        row["score"] > row["baseline"] and row["n"] >= 1000
        for row in probe.facts["report"].values()
    )
    card = (folder / CARD).read_text(encoding="utf-8")
    assert (
        all(f"| {head.name} |" in card for head in probe.config.heads)
        and f"dcgan probe {name}" in card
    )


@pytest.mark.parametrize(
    ("name", "drawn"), [("probe-rooms", "rooms"), ("probe-portraits", "portraits")]
)
def test_committed_probe_reads_newly_drawn_images(name, drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    fresh = load_image_set(drawn, num_images=300, seed=4321)
    probe = load_probe(name)
    answers = probe.predict(fresh.images_u8)
    for head in probe.config.heads:
        if head.kind == "boolean":
            assert ((answers[head.name] > 0.5) == truth(fresh, head)).mean() > 0.94


def test_weights_are_chosen_on_validation_images(monkeypatch):
    seen, mean_loss = [], probes._mean_loss

    def noting(probe, images_u8, truth):
        seen.append(images_u8)
        return mean_loss(probe, images_u8, truth)

    monkeypatch.setattr(probes, "_mean_loss", noting)
    train, validation = squares(100, 0), squares(30, 1)
    probes.train_probe(train, validation=validation, steps=8)
    assert len(seen) == 8
    assert all(np.array_equal(images, validation.images_u8) for images in seen)
