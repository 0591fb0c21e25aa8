"""Precision, recall and confusion by class tell what is wrong with a generator, and only that."""

import numpy as np
import pytest
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import FeatureExtractor
from dcgan_lib.evaluation.generators import (
    class_quality,
    load_classes,
    precision_recall,
    save_classes,
)


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
    """Class 0 is right; class 1 is drawn as 0 half of the time; class 2 has collapsed to one image."""
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
    return class_quality(real, real_labels, fake, asked, drawn, pixels)


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


def test_rows_come_back_as_they_were_kept(rows, tmp_path):
    save_classes("mine", rows, tmp_path)
    assert load_classes("mine", tmp_path) == rows
    with pytest.raises(UserError, match="was not measured yet"):
        load_classes("other", tmp_path)
