"""Ablations of the paper's rules: what each run changes, what is kept, what the measures see."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dcgan_lib import cli
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.ledger import claims, load_row, save_details
from dcgan_lib.evaluation.probes import load_probe
from dcgan_lib.experiments.architecture import (
    EXPECTATIONS,
    GROUPS,
    LOOKS,
    MEASURES,
    PLANTED,
    RECIPE,
    RULES,
    compared_with_recipe,
    count_flagged,
    differences_table,
    kept_runs,
    measure_run,
    plan_run,
    record_claims,
    settings_of,
    sort_rules,
    summarise_run,
    summary,
    table_of,
    table_text,
)
from dcgan_lib.experiments.short_runs import (
    Settings,
    Yardstick,
    draw_pictures,
    find_flags,
    find_trained,
    keep_trained,
    train_run,
)
from dcgan_lib.models.ablations import Ablation
from dcgan_lib.paths import exclusive

TINY = Settings(set="blobs", steps=36, base_width=4, batch_size=16, precision="float32")
TABLE = table_of(TINY)


def blobs(num, seed):
    """Coloured discs on a dark ground: 32x32 images of four colours."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    images = np.full((num, 3, 32, 32), 30, np.uint8)
    for image in images:
        top, left = rng.integers(8, 24, 2)
        disc = (rows - top) ** 2 + (columns - left) ** 2 < rng.integers(20, 60)
        image[:, disc] = rng.choice([[220, 40, 40], [40, 220, 40], [40, 40, 220], [200] * 3])[
            :, None
        ]
    card = {"splits": {"train": [0, num // 6], "validation": [num // 6, num]}}
    return ImageSet(name="blobs", images_u8=images, card=card)


@pytest.fixture(scope="module")
def train():
    return blobs(128, 0)


@pytest.fixture(scope="module")
def yardstick():
    features = FeatureExtractor(
        "means", 48, nn.Identity(), lambda x: nn.functional.avg_pool2d(x / 255, 8).flatten(1)
    )
    return Yardstick(blobs(200, 1), features, num_images=100)


def run_of(rule, seed=0):
    return plan_run(rule, TINY, seed, 3)


def config_of(rule):
    return run_of(rule).config


# --- the rules ---
def test_the_recipe_is_the_paper_s():
    config = config_of(RECIPE)
    assert next(iter(RULES)) == RECIPE and RULES[RECIPE].ablation == Ablation()
    assert (config.learning_rate, config.beta1, config.model.kernel_size) == (2e-4, 0.5, 5)
    assert config.model.z_distribution == "uniform" and config.model.leaky_slope == 0.2


@pytest.mark.parametrize("rule", [name for name in RULES if name != RECIPE])
def test_a_rule_changes_what_it_says_and_nothing_else(rule):
    change, usual = RULES[rule], config_of(RECIPE)
    model = replace(usual.model, **change.model)
    assert config_of(rule) == replace(usual, model=model, **change.run)
    said = [change.ablation.broken, change.model, change.run, change.constant_z]
    if rule != "no-batch-norm-he":
        assert sum(map(bool, said)) == 1 and sum(len(each) for each in said[:3]) <= 1
    assert config_of(rule) != usual or change.ablation.broken or change.constant_z


def test_every_rule_of_a_claim_stands_in_the_ledger_and_in_an_expectation():
    expected = {each.rule for group in EXPECTATIONS.values() for each in group}
    assert expected <= set(RULES)
    for claim, group in EXPECTATIONS.items():
        assert claim in claims()
        assert all(each.measure in MEASURES for each in group)


def test_every_rule_but_the_recipe_has_its_group():
    grouped = [rule for rules in GROUPS.values() for rule in rules]
    assert sorted([RECIPE, *grouped]) == sorted(RULES)
    assert all("planted failure" in RULES[name].words for name in PLANTED)


# --- training ---
def test_a_run_keeps_its_looks_and_repeats_itself(train, tmp_path):
    run = run_of("d-maxout")
    first, again = (train_run(run, train) for _ in range(2))
    assert tuple(first.weights) == LOOKS and first.stopped is None
    assert first.windows == again.windows and first.windows[-1]["step"] == 36
    assert train_run(run_of("d-maxout", seed=1), train).windows != first.windows
    keep_trained(tmp_path, first, run.config)
    found = find_trained(tmp_path, run)
    assert found.windows == first.windows and found.weights.keys() == first.weights.keys()
    for look, state in first.weights.items():
        assert all(torch.equal(value, found.weights[look][name]) for name, value in state.items())
    assert find_trained(tmp_path, run_of("d-maxout", seed=1)) is None
    assert find_trained(tmp_path, dataclasses.replace(run, looks={30: 19})) is None
    assert find_trained(tmp_path / "nowhere", run) is None


def test_a_run_that_is_no_longer_finite_ends_there_and_is_measured_where_it_was(
    train, yardstick, tmp_path
):
    run = run_of(RECIPE)
    run = dataclasses.replace(run, config=replace(run.config, weight_decay=1e300))
    trained = train_run(run, train)
    assert trained.stopped == 2 and list(trained.weights) == [0]
    found = measure_run(run, trained, yardstick)
    assert any("no longer finite" in flag for flag in found["flags"])
    json.dumps(found, allow_nan=False)
    keep_trained(tmp_path, trained, run.config)
    assert find_trained(tmp_path, run).stopped == 2


# --- the measures ---
def test_held_out_images_are_near_whole_and_colourful(yardstick):
    found = yardstick.measure(blobs(200, 2).images_u8)
    assert found["low"] < 0.01 and found["lost"] < 0.1
    assert 0.9 < found["diversity"] < 1.1 and found["colours"] == 1


def test_planted_collapse_is_seen(yardstick):
    real_u8 = blobs(200, 2).images_u8
    real, one = map(yardstick.measure, (real_u8, np.repeat(real_u8[:1], 200, 0)))
    assert one["diversity"] == 0 and one["lost"] >= 0.9
    assert one["colours"] < 1
    assert one["low"] > real["high"]


def test_a_probe_s_classes_are_counted_where_there_is_a_probe(yardstick):
    digits = load_image_set("street-digits", num_images=120, seed=5)
    pixels = FeatureExtractor("pixels", 3_072, nn.Identity(), lambda x: x.flatten(1) / 255)
    with_probe = Yardstick(digits, pixels, load_probe("probe-street-digits"), num_images=100)
    ones = digits.images_u8[digits.labels == 1]
    assert with_probe.measure(digits.images_u8)["classes_lost"] == 0
    assert with_probe.measure(ones)["classes_lost"] == pytest.approx(0.9)
    assert "classes_lost" not in yardstick.measure(digits.images_u8)


def test_grey_images_have_colours_too():
    grey = blobs(100, 0).images_u8[:, :1]
    features = FeatureExtractor("pixels", 1_024, nn.Identity(), lambda x: x.flatten(1) / 255)
    yardstick = Yardstick(ImageSet(name="grey", images_u8=grey), features, num_images=100)
    assert yardstick.measure(grey)["colours"] == 1
    assert yardstick.measure(np.zeros_like(grey))["colours"] < 1


def test_planted_failures_are_flagged_after_a_tiny_run(train, yardstick):
    run = run_of("planted-constant")
    found = measure_run(run, train_run(run, train), yardstick)
    assert found["measures"]["diversity"] < 0.01
    assert any("differ less than a quarter" in flag for flag in found["flags"])
    assert any("modes are lost" in flag for flag in found["flags"])


def test_the_same_pictures_are_drawn_for_every_measure(train):
    run = run_of("unbounded")
    weights = train_run(run, train).weights[18]
    one, other = (draw_pictures(run, weights, 20) for _ in range(2))
    assert one.dtype == np.uint8 and one.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(one, other)


def look(number, distance=0.1, **more):
    usual = {"low": 0.0, "high": 1.0, "lost": 0.0, "diversity": 1.0, "colours": 1.0}
    return {"look": number, "step": 10 * number, "distance": distance} | usual | more


def losses(step, d_loss=1.0, g_loss=1.5, d_real=0.6, d_fake=0.4):
    return {"step": step, "d_loss": d_loss, "g_loss": g_loss, "d_real": d_real, "d_fake": d_fake}


WINDOWS = [losses(step) for step in range(5, 185, 5)]


def test_a_steady_fall_is_no_oscillation_and_a_zigzag_is():
    falling = [look(number, 1 - number / 20) for number in LOOKS]
    zigzag = [look(number, 0.1 + 0.05 * (number % 2)) for number in LOOKS]
    assert summarise_run(falling, WINDOWS, 180)["swing"] < 1e-9
    assert summarise_run(zigzag, WINDOWS, 180)["swing"] > 0.02


def test_a_run_s_numbers_come_from_the_looks_they_are_named_after():
    looks = [look(number, number / 100, colours=number / 18) for number in LOOKS]
    found = summarise_run(looks, WINDOWS, 180)
    assert (found["distance_third"], found["distance"]) == (0.06, 0.18)
    assert found["colours_early"] == pytest.approx(2 / 18, abs=1e-4) and found["colours"] == 1
    assert found["d_loss_swing"] == found["troubled"] == 0


@pytest.mark.parametrize(
    ("changed", "troubled", "stopped", "said"),
    [
        ({}, 0.0, None, []),
        ({"lost": 0.6}, 0.0, None, ["collapsed: more than half of the modes"]),
        ({"classes_lost": 0.6}, 0.0, None, ["collapsed: more than half of the classes"]),
        ({"diversity": 0.2}, 0.0, None, ["collapsed: samples differ"]),
        ({}, 0.6, None, ["diverged: the losses"]),
        ({}, 0.0, 40, ["diverged: a number was no longer finite"]),
    ],
)
def test_flags_say_what_went_wrong(changed, troubled, stopped, said):
    found = find_flags({"lost": 0.1, "diversity": 0.9} | changed, troubled, stopped)
    assert len(found) == len(said)
    assert all(flag.startswith(start) for flag, start in zip(found, said, strict=True))


def test_losses_out_of_bounds_are_trouble():
    bad = [losses(step, d_loss=0.01) if step > 120 else losses(step) for step in range(5, 185, 5)]
    assert summarise_run([look(number) for number in LOOKS], bad, 180)["troubled"] == 1


# --- what is kept, and the table ---
@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


def keep(rule, seed, flags=(), settings=TINY, **measures):
    rng = np.random.default_rng([seed, list(RULES).index(rule)])
    usual = {name: 0.5 + 0.001 * rng.random() for name in MEASURES} | measures
    content = {
        "rule": rule,
        "seed": seed,
        "settings": dataclasses.asdict(settings),
        "features": "means",
        "num_images": 100,
        "seconds": 2.0,
        "measures": usual,
        "flags": list(flags),
    }
    save_details(table_of(settings).place(rule, seed), content)


def test_finished_runs_are_known_by_settings_and_by_what_they_were_measured_with(ledger, yardstick):
    keep("d-relu", 0)
    measured = yardstick.measured_with
    assert TABLE.is_finished("d-relu", 0, measured)
    assert not TABLE.is_finished("d-relu", 1, measured)
    assert not TABLE.is_finished("d-relu", 0, ("grey", 100))
    assert not TABLE.is_finished("d-relu", 0, ("means", 90))
    with pytest.raises(UserError, match="made with other settings"):
        table_of(dataclasses.replace(TINY, steps=37)).is_finished("d-relu", 0, measured)


def test_effects_are_paired_by_seed(ledger, yardstick):
    for seed in range(3):
        keep(RECIPE, seed, distance=0.1 * seed)
        keep("d-relu", seed, distance=0.1 * seed + 0.01 + 0.0001 * seed)
        keep("d-maxout", seed, distance=0.1 * (2 - seed))
    runs = TABLE.load(yardstick.measured_with)
    rows = {row.rule: row for row in summary(runs)}
    assert set(rows) == {RECIPE, "d-relu", "d-maxout"}
    effect = rows["d-relu"].effects["distance"]
    assert effect.differs and effect.difference.value == pytest.approx(0.0101)
    assert effect.mean.high - effect.mean.low > 0.3  # the seeds themselves differ far more
    assert not rows["d-maxout"].effects["distance"].differs
    text = table_text(runs)
    assert len(text.splitlines()) == 5 and "+0.010±" in text and "0 of 3" in text


def test_a_run_that_ends_far_off_is_flagged(ledger, yardstick):
    for seed in range(2):
        keep(RECIPE, seed, distance=0.1)
        keep("d-relu", seed, distance=0.29)
        keep("d-maxout", seed, distance=0.29 + 0.02 * seed)
    rows = {row.rule: row.flagged for row in summary(TABLE.load(yardstick.measured_with))}
    assert rows == {RECIPE: 0, "d-relu": 0, "d-maxout": 1}


def test_runs_that_were_measured_otherwise_are_left_out(ledger, yardstick):
    for seed in range(2):
        keep(RECIPE, seed)
        keep("d-relu", seed)
    assert len(TABLE.load(yardstick.measured_with)) == 4 and TABLE.load(("means", 90)) == {}


def test_a_run_that_ended_early_is_not_called_steady(ledger, yardstick):
    early = summarise_run([look(0), look(1)], [losses(5)], 180)
    assert early["swing"] is early["d_loss_swing"] is early["g_loss_swing"] is None
    assert early["troubled"] == 1
    for seed in range(3):
        keep(RECIPE, seed)
        keep("beta1-0.9", seed, ["diverged"], swing=None)
    runs = TABLE.load(yardstick.measured_with)
    rows = {row.rule: row for row in summary(runs)}
    assert rows["beta1-0.9"].effects["swing"] is None
    assert rows["beta1-0.9"].effects["distance"] is not None
    assert "  -  " in table_text(runs).splitlines()[-1]


def keep_all(**measures_by_rule):
    for seed in range(3):
        for rule in RULES:
            flags = ["collapsed"] if rule in PLANTED else []
            keep(rule, seed, flags, **measures_by_rule.get(rule.replace("-", "_"), {}))


def test_claims_are_judged_by_the_paired_differences(ledger, yardstick):
    keep_all(
        hidden_dense={"distance": 0.9},
        d_relu={"distance": 0.9},
        d_maxout={"distance": 0.9},
        batch_norm_everywhere={"swing": 0.1, "distance": 0.1},
    )
    record_claims(TABLE.load(yardstick.measured_with), TINY, "dcgan ablate --set blobs --record")
    assert load_row("arch.stable:blobs").verdict == "transfers"
    assert load_row("arch.fc:blobs").verdict == "transfers"
    assert load_row("arch.leaky:blobs").verdict == "partly transfers"
    assert load_row("arch.bn-everywhere:blobs").verdict == "does not transfer"
    row = load_row("train.lr:blobs")
    assert row.verdict == "not tested at scale" and "width 4" in row.caveat.why
    assert row.n == 3 and row.low < row.value < row.high and row.seconds == 2 * 3 * len(RULES)


def test_a_flagged_recipe_or_an_unseen_failure_is_not_stable(ledger, yardstick):
    keep_all()
    keep(RECIPE, 1, ["diverged"])
    for seed in range(3):
        keep("planted-rate", seed, [])
    record_claims(TABLE.load(yardstick.measured_with), TINY, "dcgan ablate --set blobs --record")
    row = load_row("arch.stable:blobs")
    assert row.verdict == "does not transfer" and row.value == pytest.approx(200 / 3)


def test_a_claim_is_recorded_once_all_of_its_rules_have_run(ledger, yardstick):
    command = "dcgan ablate --set blobs --record"
    for seed in range(3):
        keep(RECIPE, seed)
        keep("planted-rate", seed, ["diverged"])
    with pytest.raises(UserError, match="no claim has two finished seeds"):
        record_claims(TABLE.load(yardstick.measured_with), TINY, command)
    for seed in range(2):
        keep("planted-constant", seed, ["collapsed"])
    written = record_claims(TABLE.load(yardstick.measured_with), TINY, command)
    assert [row.id for row in written] == ["arch.stable:blobs"]


# --- for the chapter ---
def test_runs_are_read_without_the_set_and_none_is_mixed_in(ledger):
    assert kept_runs("blobs") == {}
    for seed in range(2):
        keep(RECIPE, seed)
        keep("d-relu", seed)
    keep("d-maxout", 0, settings=dataclasses.replace(TINY, steps=37))
    assert set(kept_runs("blobs")) == {(name, k) for name in (RECIPE, "d-relu") for k in range(2)}


def keep_two_sets():
    """Return the tables of a set on which things differ, and of one on which some do."""
    other = dataclasses.replace(TINY, set="spots")
    for seed in range(3):
        usual = 0.5 + 0.01 * seed
        for settings in (TINY, other):
            keep(RECIPE, seed, settings=settings, distance=usual)
            keep("hidden-dense", seed, settings=settings, distance=2 * usual)
            keep("max-pooling", seed, settings=settings, distance=usual / 2)
            keep("planted-rate", seed, ["collapsed"], settings, distance=4 * usual)
        keep("d-relu", seed, settings=TINY, distance=usual)
        keep("d-relu", seed, settings=other, distance=0.8 * usual)
        keep("d-maxout", seed, settings=TINY, distance=1.1 * usual)
    return {name: kept_runs(name) for name in ("blobs", "spots")}


def test_rules_are_sorted_by_what_they_did_on_each_set(ledger):
    found = sort_rules({name: summary(runs) for name, runs in keep_two_sets().items()})
    assert next(iter(found)) == "worse on blobs and spots"
    assert list(found)[-1] == "better on blobs and spots"
    assert found["worse on blobs and spots"] == [RULES["hidden-dense"].words]
    assert found["better on blobs and spots"] == [RULES["max-pooling"].words]
    assert found["no difference shown on blobs; better on spots"] == ["ReLU in D"]
    assert found["worse on blobs; too few runs on spots"] == [RULES["d-maxout"].words]
    listed = [words for each in found.values() for words in each]
    assert len(listed) == len(set(listed)) == len(RULES) - len(PLANTED) - 1


def test_the_table_holds_what_differs_and_names_the_rest(ledger):
    runs = keep_two_sets()["blobs"]
    table = differences_table(summary(runs))
    head, rule, *lines = table.splitlines()
    assert all(line.count("|") == head.count("|") == rule.count("|") for line in lines[:-2])
    line = {line.split(" | ")[0]: line.split(" | ") for line in lines}
    assert line["the paper's recipe"][2] == "0.51" and "" not in line["the paper's recipe"][1:-1]
    assert line[RULES["hidden-dense"].words][2] == "▲ 1.02"
    assert line[RULES["max-pooling"].words][2] == "▼ 0.26"
    assert line[RULES["planted-rate"].words][-1] == "3 of 3"
    assert lines[-1].startswith("No difference shown") and "ReLU in D" in lines[-1]


def test_distances_are_compared_as_multiples_of_the_recipe_s(ledger):
    keep("kernel-3", 0, distance=1.02, distance_third=0.2)
    found = {name: compared_with_recipe(runs) for name, runs in keep_two_sets().items()}["blobs"]
    usual, double = found["the paper's recipe"], found[RULES["hidden-dense"].words]
    assert np.mean(usual.points) == pytest.approx(1) and usual.interval is None and not usual.note
    np.testing.assert_allclose(double.points, 2 * np.array(usual.points))
    assert double.interval[0] > 1.8 and double.interval[1] < 2.2 and double.note == "worse"
    assert found[RULES["planted-rate"].words].note == "worse, 3 flagged"
    runs = kept_runs("blobs")
    assert settings_of(runs) == TINY
    assert count_flagged(runs, ["planted-rate", RECIPE]) == (3, 6)
    del runs[RECIPE, 0]
    assert count_flagged(runs, ["planted-rate"]) == (2, 2)
    alone = found[RULES["kernel-3"].words]
    assert alone.interval is None and alone.points == pytest.approx([2.04])
    assert alone.early == pytest.approx(0.4, abs=0.01)


# --- the command ---
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rules nonsense", "each of --rules must be one of recipe, max-pooling"),
        ("--seeds 0", "seeds must be at least 1"),
        ("--seeds 1 --record", "seeds must be at least 2"),
        ("--set nowhere", "no image set or folder 'nowhere'"),
    ],
)
def test_mistakes_are_answered_at_once(words, message, capsys):
    assert cli.main(["ablate", *words.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.drives("ablate")
def test_a_finished_run_is_not_made_again_and_a_kept_training_is_only_measured(
    ledger, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "sets"))
    blobs(120, 0).save(tmp_path / "sets" / "prepared" / "blobs")
    words = "ablate --set blobs --rules d-relu --seeds 2 --steps 18 --base-width 4 --batch-size 8"
    words = [*words.split(), "--num-images", "60", "--out", str(tmp_path / "out")]
    folder, training = tmp_path / "ablations" / "blobs", tmp_path / "out" / "blobs" / "d-relu-0"
    assert cli.main(words) == 0
    first = capsys.readouterr().out.splitlines()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert sorted(kept) == ["d-relu-0.json", "d-relu-1.json", "recipe-0.json", "recipe-1.json"]
    assert first[3].startswith("d-relu, seed 1: distance") and first[-1].startswith("d-relu")
    trained = (training / "run.json").stat().st_mtime_ns
    (folder / "d-relu-0.json").unlink()
    assert cli.main(words) == 0
    second = capsys.readouterr().out.splitlines()
    assert second[0].startswith("d-relu, seed 0") and second[1:] == first[-4:]
    assert trained == (training / "run.json").stat().st_mtime_ns
    assert cli.main(words) == 0 and capsys.readouterr().out.splitlines() == first[-4:]
    assert kept["recipe-0.json"] == (folder / "recipe-0.json").stat().st_mtime_ns


def test_a_run_that_another_process_holds_is_left_to_it(ledger, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "sets"))
    blobs(120, 0).save(tmp_path / "sets" / "prepared" / "blobs")
    words = "ablate --set blobs --rules recipe --seeds 1 --steps 18 --base-width 4 --num-images 60"
    with exclusive(tmp_path / "out" / "blobs" / "recipe-0" / "run.json"):
        assert cli.main([*words.split(), "--out", str(tmp_path / "out")]) == 0
    assert "another process has begun it" in capsys.readouterr().out
    assert not (tmp_path / "ablations").exists()
