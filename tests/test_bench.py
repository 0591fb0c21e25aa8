"""The bench: both contenders do the same maths, and the ratios are those of the clock."""

import dataclasses

import pytest
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.training import bench as module
from dcgan_lib.training.bench import bench, bench_config, bench_text, our_stepper, plain_stepper

CONFIG = bench_config(16, 3, base_width=4, batch_size=8)
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


class Clock:
    """A clock that only the contenders move, so that the ratios are known beforehand."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.inputs = 0.0, {name: [] for name in seconds}
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

        def contender(name):
            turns = iter(seconds[name])

            def step(x_bchw, z_bd):
                self.inputs[name].append((x_bchw, z_bd))
                self.now += next(turns)
                return 0.0, 0.0

            return step

        monkeypatch.setattr(module, "plain_stepper", lambda config: contender("plain"))
        monkeypatch.setattr(module, "our_stepper", lambda config: contender(config.precision))


def test_ratios_are_taken_round_by_round_after_two_rounds_of_warming_up(monkeypatch):
    drift = [1, 2, 4, 8]  # a machine that slows down slows every contender
    seconds = {
        "plain": [50, 90, *(3.0 * slow for slow in drift)],
        "float32": [70, 10, *(1.0 * slow for slow in drift)],
        "bfloat16": [1, 1, *(2.0 * slow for slow in drift)],
    }
    Clock(monkeypatch, seconds)
    rows = {row.contender: row for row in bench(32, base_width=2, batch_size=6, rounds=4)}
    assert list(rows) == ["plain", "float32", "bfloat16"]
    assert {name: row.speedup for name, row in rows.items()} == {
        "plain": 1,
        "float32": 3,
        "bfloat16": 1.5,
    }
    assert all(row.low == row.speedup == row.high for row in rows.values())
    assert rows["float32"].images_per_second == 6 / 3


def test_percentiles_stay_within_what_was_measured(monkeypatch):
    seconds = {"plain": [1, 1, *range(1, 12)], "float32": [1] * 13, "bfloat16": [1] * 13}
    Clock(monkeypatch, seconds)
    row = bench(32, base_width=2, batch_size=2, rounds=11)[1]
    assert (row.low, row.speedup, row.high) == (2, 6, 10)
    Clock(monkeypatch, {"plain": [1, 1, 1, 3], "float32": [1] * 4, "bfloat16": [1] * 4})
    row = bench(32, base_width=2, batch_size=2, rounds=2)[1]
    assert 1 <= row.low <= row.speedup == 2 <= row.high <= 3


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3)])
def test_contenders_get_the_same_minibatch(monkeypatch, size, channels):
    clock = Clock(monkeypatch, {name: [1.0] * 3 for name in ("plain", "float32", "bfloat16")})
    bench(size, base_width=2, batch_size=5, rounds=1)
    for others in zip(*clock.inputs.values(), strict=True):
        for x_bchw, z_bd in others:
            assert (
                x_bchw.shape == (5, channels, size, size)
                and x_bchw.min() >= -1
                and x_bchw.max() <= 1
            )
            assert torch.equal(x_bchw, others[0][0]) and torch.equal(z_bd, others[0][1])
    assert not torch.equal(clock.inputs["plain"][0][1], clock.inputs["plain"][1][1])


def test_a_real_round_and_its_text():
    before = torch.get_num_threads()
    rows = bench(32, base_width=2, batch_size=2, rounds=1, threads=before + 1)
    assert torch.get_num_threads() == before
    assert rows[0].speedup == 1 and all(
        row.images_per_second > 0 and row.speedup > 0 for row in rows
    )
    lines = bench_text(rows).splitlines()
    assert lines[0] == "32 x 32 pixels"
    assert [line.split()[0] for line in lines[2:]] == ["plain", "float32", "bfloat16"]
    assert f"{rows[1].speedup:.2f} [{rows[1].low:.2f}, {rows[1].high:.2f}]" in lines[3]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": 0}, {"threads": -1}])
def test_nothing_to_time_is_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be at least 1"):
        bench(32, base_width=2, batch_size=2, **wrong)
