"""The shift's probability: it follows the discriminator's overfitting, and resumes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import CONFIG, MODEL, all_tensors, same_bits

from dcgan_lib.config import TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import sample_u8
from dcgan_lib.training import adaptive
from dcgan_lib.training.adaptive import ADAPT_EVERY, RAMP_IMAGES, AdaptiveShift
from dcgan_lib.training.checkpoints import read_metrics
from dcgan_lib.training.loop import draw_shifts, fit
from dcgan_lib.training.step import StepRecord, make_gan

ADAPTIVE = dataclasses.replace(
    CONFIG, d_shift=2, d_shift_adaptive=0.6, schedule="same_batch", save_seconds=60
)
STEP = ADAPT_EVERY * CONFIG.batch_size / RAMP_IMAGES


def feed(shift: AdaptiveShift, sign: float, times: int) -> float:
    for _ in range(times * ADAPT_EVERY):
        shift.add(StepRecord(d_sign=torch.tensor(sign)))
    return shift.probability


def test_it_rises_above_the_target_falls_below_and_stays_a_probability():
    shift = AdaptiveShift(ADAPTIVE)
    assert feed(shift, 0.5, 3) == 0
    assert feed(shift, 0.7, 3) == pytest.approx(3 * STEP)
    assert feed(shift, 0.5, 1) == pytest.approx(2 * STEP)
    assert feed(shift, 1.0, round(2 / STEP)) == 1
    assert feed(AdaptiveShift(CONFIG), 0.0, 3) == 1  # without a target all are shifted


def train(config: TrainConfig, images_u8: np.ndarray, folder: Path) -> list[dict]:
    image_set = ImageSet(name="some", images_u8=images_u8, card={"digest": "some"})
    fit(config, image_set, folder, device="cpu", threads=1, progress=False)
    return read_metrics(folder / "metrics.jsonl")


def test_it_rises_where_d_overfits_twenty_images_and_stays_down_where_it_cannot(tmp_path):
    """The second set shows what the untrained generator itself draws."""
    config = dataclasses.replace(
        ADAPTIVE, steps=20 * ADAPT_EVERY, log_every=10 * ADAPT_EVERY, learning_rate=1e-3
    )
    few_u8 = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    own_u8 = sample_u8(make_gan(dataclasses.replace(CONFIG, seed=9)).generator.train(), 2_000, 0)
    overfit, cannot = (
        [line["shift_probability"] for line in train(config, images_u8, tmp_path / name)]
        for name, images_u8 in (("few", few_u8), ("own", own_u8))
    )
    assert overfit[1] > overfit[0] > 5 * STEP
    assert max(cannot) <= STEP


def test_as_many_images_are_shifted_as_the_probability_says():
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(400, -1, -1, -1)

    def share(probability: float) -> float:
        shifted = draw_shifts(ADAPTIVE, 0, probability=probability)(ramp)
        return float((shifted != ramp).flatten(1).any(1).float().mean())

    assert share(0) == 0 and share(1) > 0.9
    assert 0.25 < share(0.4) < 0.5  # one in 25 shifts is by nothing
    assert torch.equal(
        draw_shifts(ADAPTIVE, 0)(ramp), draw_shifts(ADAPTIVE, 0, probability=1.0)(ramp)
    )


def test_it_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """It is made quick, so that a probability that was forgotten would show in the weights."""
    monkeypatch.setattr(adaptive, "ADAPT_EVERY", 3)
    monkeypatch.setattr(adaptive, "RAMP_IMAGES", 100)
    images_u8 = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    eager = dataclasses.replace(ADAPTIVE, steps=24, d_shift_adaptive=0.01, log_every=1)
    whole = train(eager, images_u8, tmp_path / "whole")
    for steps in (10, 24):
        parts = train(dataclasses.replace(eager, steps=steps), images_u8, tmp_path / "parts")
    found = [[line["shift_probability"] for line in lines] for lines in (whole, parts)]
    assert found[0] == found[1] and max(found[0]) > 0
    assert same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "parts"))
    always = dataclasses.replace(eager, d_shift_adaptive=0.0)
    train(always, images_u8, tmp_path / "always")
    assert not same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "always"))


def test_a_target_without_a_shift_is_refused():
    with pytest.raises(UserError, match="nothing to adapt"):
        TrainConfig(model=MODEL, d_shift_adaptive=0.6)
