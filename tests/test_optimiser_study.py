"""What the study of Adam's settings makes of its curves; the training itself is tested elsewhere."""

import functools

import numpy as np
import pytest

from dcgan_lib.experiments import ablations as optimiser_study
from dcgan_lib.experiments.ablations import SETTINGS, ratio, record_claims, rises, study_config


def test_rises_count_only_the_way_up_in_the_second_half():
    assert rises(np.array([9.0, 1.0, 8.0, 4.0, 3.0, 2.0])) == 0
    assert rises(np.array([9.0, 1.0, 4.0, 2.0, 5.0, 4.0])) == pytest.approx(3 / 4)


def test_ratio_is_a_geometric_mean():
    estimate = ratio([2.0, 8.0], [1.0, 1.0])
    assert estimate.value == pytest.approx(4) and estimate.low < 1 < 4 < estimate.high


def test_settings_change_one_thing_each():
    config = study_config(1_000, seed=3)
    assert (config.learning_rate, config.beta1, config.decay_fraction, config.seed) == (
        2e-4,
        0.5,
        0.0,
        3,
    )
    assert [len(changed) for changed in SETTINGS.values()] == [0, 1, 1]


def test_claims_are_judged_by_every_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        optimiser_study, "record", functools.partial(optimiser_study.record, root=tmp_path)
    )
    good, bad = np.linspace(4, 1, 10), np.array([5.0, 4, 3, 4, 3, 4, 3, 4, 3, 4])
    for last, verdicts in (
        (bad, ["reproduced", "reproduced"]),
        (good * 0.9, ["partly", "not reproduced"]),
    ):
        curves = {"paper": [good, good * 1.1], "rate 0.001": [bad, last], "beta1 0.9": [last, last]}
        assert [row.verdict for row in record_claims(curves, 1_000, 1.0)] == verdicts
