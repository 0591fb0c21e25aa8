"""The bench: both contenders do the same maths."""

import dataclasses

import pytest
import torch

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.training.bench import (
    DryRun,
    bench,
    bench_config,
    bench_text,
    dry_run_text,
    our_stepper,
    peak_rates,
    plain_stepper,
    step_operations,
)
from dcgan_lib.training.step import make_gan

CONFIG = bench_config(16, base_width=4, batch_size=8)
NUM_STEPS = 6


def losses(stepper, config=CONFIG) -> list[float]:
    """Run a stepper over minibatches that every stepper gets alike; d and g losses in turn."""
    found = []
    for turn in range(NUM_STEPS):
        x_pm1 = torch.rand(config.batch_size, 3, 16, 16, generator=seeded(100 + turn)) * 2 - 1
        found += stepper(x_pm1, sample_latents(config.batch_size, config.model, seeded(turn)))
    return found


@pytest.fixture(scope="module")
def plain_losses():
    return losses(plain_stepper(CONFIG))


def test_both_steps_have_the_same_losses(plain_losses):
    assert len(plain_losses) == 2 * NUM_STEPS and all(loss > 0 for loss in plain_losses)
    assert losses(our_stepper(CONFIG)) == pytest.approx(plain_losses, rel=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 4e-4},
        {"beta1": 0.9},
        {"weight_decay": 0.1},
        {"seed": 43},
        {"d_updates": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_twin_has_other_losses(plain_losses, change):
    """What the guard above has to catch: each of these is one step that trains differently."""
    assert losses(our_stepper(dataclasses.replace(CONFIG, **change))) != pytest.approx(
        plain_losses, rel=1e-4
    )


def test_both_start_from_the_same_loss_and_move(plain_losses):
    """Equal losses would say little if nothing were learnt."""
    assert abs(plain_losses[-2] - plain_losses[0]) > 0.01


def test_bfloat16_does_the_same_work_to_its_own_precision(plain_losses):
    found = losses(our_stepper(dataclasses.replace(CONFIG, precision="bfloat16")))
    assert found == pytest.approx(plain_losses, rel=0.1)
    assert found != pytest.approx(plain_losses, rel=1e-6)


def test_the_contenders_leave_randomness_alone():
    before = torch.get_rng_state()
    plain_stepper(CONFIG), our_stepper(CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_text_gives_ratios_round_by_round():
    """A machine that slows down slows every contender, so its drift leaves no trace."""
    drift = [1, 2, 4, 8]
    seconds = {
        "plain": [3.0 * slow for slow in drift],
        "float32": [1.0 * slow for slow in drift],
        "bfloat16": [3.0, 3.0, 2.0, 2.0],
    }
    config = bench_config(32, base_width=32, batch_size=6)
    rate = step_operations(config) / 3.0  # of the float32 step, at its median of 3 seconds
    peaks = {"float32": 2 * rate, "bfloat16": 4 * rate}
    lines = bench_text(config, seconds, peaks).splitlines()
    assert lines[0] == f"32 x 32 pixels, {3 * rate / 1e9:.1f} GFLOP a step of 6"
    shown = [line.replace("%", "").split() for line in lines[2:5]]
    assert [[row[0], row[1], *row[3:]] for row in shown] == [
        ["plain", "0.7", "17", "1.00", "[1.00,", "1.00]"],
        ["float32", "2.0", "50", "3.00", "[3.00,", "3.00]"],
        ["bfloat16", "2.4", "30", "4.00", "[1.30,", "10.20]"],
    ]


def test_operations_of_a_step_by_hand():
    """Two stages of a kernel of 5 on 8 x 8 pixels: each pass of a layer is its multiply-adds."""
    model = ModelConfig(image_size=(8, 8), num_channels=1, num_stages=1, base_width=2, z_dim=3)
    config = TrainConfig(model=model, batch_size=4, schedule="same_batch")
    conv, project, head = 4 * 4 * 2 * 25, 3 * 2 * 16, 2 * 16  # multiply-adds of one image
    g_forward, d_forward = project + conv, conv + head
    # D: forward on real and fake, weights of both, and the input of its head alone
    d_step = 2 * (d_forward + d_forward + head)
    # G: D forward and all of its inputs, G's weights and the input of its convolution
    g_step = g_forward + (d_forward + d_forward) + (g_forward + conv)
    assert step_operations(config) == 2 * 4 * (d_step + g_step)
    assert step_operations(dataclasses.replace(config, batch_size=8)) == 4 * 4 * (d_step + g_step)


def test_peaks_are_of_both_precisions_and_leave_the_threads_alone():
    before = torch.get_num_threads()
    peaks = peak_rates(before + 1, side=64)
    assert set(peaks) == {"float32", "bfloat16"} and min(peaks.values()) > 0
    assert torch.get_num_threads() == before


def test_a_round_times_every_contender_and_leaves_the_threads_alone():
    before = torch.get_num_threads()
    seconds = bench(32, base_width=2, batch_size=2, rounds=2, threads=before + 1)
    assert torch.get_num_threads() == before
    assert {name: len(found) for name, found in seconds.items()} == {
        "plain": 2,
        "float32": 2,
        "bfloat16": 2,
    }


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": 0}, {"threads": -1}])
def test_nothing_to_time_is_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be at least 1"):
        bench(32, base_width=2, batch_size=2, **wrong)


# --- what a run would be ---
SMALL = "--num-images 40 --image-size 16 16 --base-width 2 --z-dim 4 --batch-size 8 --steps 50"


@pytest.mark.parametrize("schedule", ["alternate", "same_batch"])
def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(
    schedule, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    words = f"train --recipe rooms {SMALL} --threads 1 --device cpu --schedule {schedule} --dry-run"
    assert cli.main(words.split()) == 0
    said = capsys.readouterr().out
    pair = make_gan(TrainConfig(model=ModelConfig(image_size=(16, 16), base_width=2, z_dim=4)))
    for network in (pair.generator, pair.discriminator):
        assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in said
    assert "40 of rooms" in said and "50 steps of 8 images, 10.0 passes" in said
    assert list(tmp_path.iterdir()) == [] and torch.get_num_threads() == before


def test_a_dry_run_refuses_what_a_training_would(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = f"train --recipe rooms {SMALL} --dry-run".split()
    assert cli.main([*words, "--batch-size", "64"]) == 2
    assert "fewer than one batch" in capsys.readouterr().err
    assert cli.main([*words, "--start-from", "mnist"]) == 2
    assert "another network" in capsys.readouterr().err


def test_the_time_of_all_steps_follows_from_one():
    config = dataclasses.replace(CONFIG, steps=7200)
    numbers = {"g_parameters": 1, "d_parameters": 2, "images": 8, "epochs": 3.0, "threads": 2}
    where = {"device": "cpu", "precision": "float32", "memory": 2_500_000_000}
    said = dry_run_text(config, "tiny", DryRun(seconds_per_step=0.5, **numbers, **where))
    assert "about 60 minutes (1.0 hours)" in said and "2.5 GB" in said
    assert "0.500 s on cpu, float32, 2 threads" in said
