"""The study of batch norm's scale and bias: only they differ, and the verdict follows the paired errors."""

from dataclasses import replace

import numpy as np
import pytest

from dcgan_lib.experiments import mnist_supplement as bn_affine_study
from dcgan_lib.experiments.mnist_supplement import gain, record_claim, study_config, wrong_answers


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


@pytest.mark.parametrize(("gan_without", "verdict"), [(0.05, "reproduced"), (0.10, "partly")])
def test_claim_needs_both_networks(tmp_path, gan_without, verdict):
    shares = {
        ("DCGAN", True): 0.06,
        ("DCGAN", False): 0.04,
        ("GAN", True): 0.10,
        ("GAN", False): gan_without,
    }
    row = record_claim(answers(shares), 1_000, "float32", 1.0, tmp_path)
    assert row.verdict == verdict and row.low > 0 and "1,000 minibatches" in row.notes


def test_a_run_is_trained_judged_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(bn_affine_study, "NUM_DRAWS", 2)
    config = study_config("GAN", True, 20)
    model = replace(config.model, image_size=(8, 8), hidden_units=16, z_dim=8)
    config = replace(config, model=model, batch_size=32, log_every=10, num_samples=10)
    options = {"split": "test", "image_set": "digits", "num_references": 1_000}
    wrong = wrong_answers(config, tmp_path / "run", **options)
    assert wrong.shape == (360, 2) and wrong.dtype == bool and 0.2 < wrong.mean() <= 1
    np.testing.assert_array_equal(wrong_answers(config, tmp_path / "run", **options), wrong)
