"""Filters that collapse: what is counted, how a run is judged, and the command."""

import numpy as np
import pytest
import torch

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import load_details, load_row
from dcgan_lib.experiments.filter_collapse import (
    Layer,
    discriminator_maps,
    generator_maps,
    growth,
    measure_layer,
    record_claim,
)
from dcgan_lib.models.dcgan import squash
from dcgan_lib.models.networks import untrained_discriminator, untrained_generator
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.training.loop import fit

TINY = ModelConfig(image_size=(16, 16), base_width=4)


def test_independent_maps_use_all_directions():
    layer = measure_layer(torch.randn(500, 6, 4, 4))
    assert layer.effective_rank == pytest.approx(6, abs=0.05)
    assert layer.dead == layer.alike == layer.collapsed == 0


def test_maps_that_follow_another_or_do_nothing_are_counted():
    maps_bchw = torch.randn(100, 8, 4, 4)
    maps_bchw[:, 3] = 2 * maps_bchw[:, 0] + 5  # like an earlier one
    maps_bchw[:, 4] = maps_bchw[:, 3] + 0.1 * torch.randn(100, 4, 4)
    maps_bchw[:, 6] = 1.0  # constant
    maps_bchw[:, 7] = -maps_bchw[:, 1]  # the contrary is not the same
    layer = measure_layer(maps_bchw)
    assert (layer.dead, layer.alike, layer.collapsed) == (1, 2, 3 / 8)


def test_one_mode_has_rank_one():
    one_bchw = torch.randn(50, 1, 4, 4)
    layer = measure_layer(one_bchw * torch.arange(1.0, 6).view(1, 5, 1, 1))
    assert layer.effective_rank == 1 and layer.alike == 4
    dead = measure_layer(torch.ones(10, 5, 2, 2))
    assert dead.dead == 5 and dead.effective_rank == 1


def test_the_last_maps_of_both_networks_make_what_they_return():
    generator, z_bd = untrained_generator(TINY).eval(), sample_latents(4, TINY, seeded(0))
    maps = generator_maps(generator, z_bd)
    with torch.inference_mode():
        again = squash(generator.convs[-1](maps[-1]), TINY)
        assert [m.shape[1] for m in maps] == [4] and torch.allclose(again, generator(z_bd))
    discriminator = untrained_discriminator(TINY)
    images_u8 = np.zeros((2, 3, 16, 16), np.uint8)
    assert [m.shape[1] for m in discriminator_maps(discriminator, images_u8)] == [4, 8]


def history(*collapsed):
    return {
        100 * number: {"D 1": Layer(num_maps=100, effective_rank=9.0, dead=dead, alike=0)}
        for number, dead in enumerate(collapsed, start=1)
    }


def test_growth_is_counted_from_the_first_fifth():
    found = growth(history(3, 5, 1, 8, 20, 6, 5, 5, 5, 5))["D 1"]
    assert np.round(100 * found).tolist() == [-4, 3, 15, 1, 0, 0, 0, 0]
    with pytest.raises(UserError, match="snapshots in its first fifth and later"):
        growth(history(1, 2))


@pytest.mark.parametrize(
    ("late", "verdict"),
    [
        ([0, 9, 2, 9, 1], "transfers"),
        ([0, 3, 6, 9, 9], "partly transfers"),
        ([5, 0, 5, 0, 5], "not tested at scale"),
    ],
)
def test_the_claim_needs_a_collapse_that_comes_and_goes(tmp_path, monkeypatch, late, verdict):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    histories = {"a": history(0, *late), "b": history(0, 0, 0, 0, 0, 0)}
    record_claim(histories, "blobs", "dcgan filters runs/a runs/b --record", 1.0)
    row = load_row("train.filter-collapse:blobs")
    assert row.verdict == verdict and row.n == 2 and row.value == max(late) / 2
    assert load_details("filters/blobs", "")["a"]["100"]["D 1"]["num_maps"] == 100


@pytest.mark.drives("filters")
def test_the_command_reads_the_snapshots_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "sets"))
    rng = np.random.default_rng(0)
    images_u8 = rng.integers(0, 255, (200, 3, 16, 16), np.uint8)
    card = {"splits": {"train": [0, 100], "validation": [100, 200]}}
    blobs = ImageSet(name="blobs", images_u8=images_u8, card=card)
    blobs.save(tmp_path / "sets" / "prepared" / "blobs")
    config = TrainConfig(model=TINY, batch_size=8, steps=6, snapshot_every=1, precision="float32")
    fit(config, blobs, tmp_path / "run")
    assert cli.main(["filters", str(tmp_path / "run"), "--num-images", "20"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["step", "G", "1", "D", "1", "D", "2"] and len(said) >= 8
    assert cli.main(["filters", str(tmp_path / "run"), "--record"]) == 2
    assert "the number of runs must be at least 2" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert cli.main(["filters", str(tmp_path / "none")]) == 2
