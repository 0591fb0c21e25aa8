"""Whether samples resemble natural images: the rule, the order by score, and what is recorded."""

import dataclasses

import numpy as np
import pytest
import torch

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data import load as drawn_sets
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.distances import Distance
from dcgan_lib.evaluation.ledger import claims, load_row
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments.natural_images import (
    CLAIM,
    NUM_PARTS,
    REAL,
    RUINED,
    SAMPLES,
    SORTED,
    SPOILT,
    UNTRAINED,
    NaturalImages,
    Part,
    Study,
    Variety,
    chance_above,
    judge,
    load_study,
    measure,
    record_study,
    study_text,
    variety,
)
from dcgan_lib.training import checkpoints
from dcgan_lib.training.step import make_gan

NUM = 16


def distance(value, half=0.1):
    return Distance(
        metric="KID (100 subsets of 4)",
        value=value,
        low=value - half,
        high=value + half,
        n_real=NUM,
        n_fake=NUM,
        features="efficientnet-lite0",
    )


def study(samples=0.5, untrained=3.0, parts=(0.9, 0.8, 0.7, 0.6, 0.5)):
    """A study of made-up numbers, whose ruined pictures lie at 1, 1.5 and 2."""
    places = {REAL: 0.0, SAMPLES: samples, UNTRAINED: untrained}
    places |= dict(zip(RUINED, (1.0, 1.5, 2.0), strict=True))
    share = Estimate(0.5, 0.4, 0.6)
    varied = Variety(precision=share, recall=share, nearest=7, apart=3.0)
    return Study(
        checkpoint="natural",
        image_set="tinyimagenet32",
        distances={name: distance(value) for name, value in places.items()},
        parts=tuple(Part(logits=(-1.0, 1.0), distance=distance(value)) for value in parts),
        picked=distance(0.4),
        varieties={SAMPLES: varied, "picked": varied, REAL: varied},
        told_apart={f"{REAL} above {SAMPLES}": 0.75},
    )


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path))
    return tmp_path


# ---- the rule ----


@pytest.mark.parametrize(
    ("samples", "held", "verdict"),
    [
        (0.5, [True, True, True], "reproduced"),
        (0.85, [False, True, True], "partly"),  # 0.95 overlaps the interval that begins at 0.9
        (1.25, [False, True, True], "partly"),
        (1.6, [False, False, True], "partly"),
        (2.5, [False, False, False], "not reproduced"),
    ],
)
def test_samples_must_be_nearer_than_each_kind_of_ruined_pictures(ledger, samples, held, verdict):
    found = study(samples=samples)
    assert list(judge(found).values()) == held
    record_study(found, NaturalImages(named=50), 1.0)
    assert load_row(f"{CLAIM}:tinyimagenet32").verdict == verdict


@pytest.mark.parametrize(
    ("untrained", "num_telling", "samples", "verdict"),
    [
        (3.0, 3, 1.6, "partly"),
        (2.15, 3, 1.6, "partly"),  # it overlaps the last interval, so it is not nearer
        (1.7, 2, 1.6, "not reproduced"),  # the third kind says nothing, the others are missed
        (1.7, 2, 0.5, "reproduced"),
        (0.5, 0, 0.5, "not tested at scale"),
    ],
)
def test_kinds_that_the_untrained_generator_beats_do_not_count(
    ledger, untrained, num_telling, samples, verdict
):
    found = study(samples=samples, untrained=untrained)
    assert len(found.telling) == num_telling
    assert ("untrained generator is nearer" in study_text(found)) == (num_telling < 3)
    record_study(found, NaturalImages(named=50), 1.0)
    row = load_row(f"{CLAIM}:tinyimagenet32")
    assert row.verdict == verdict
    assert len(row.checks) == (num_telling or 3)
    assert row.verdict_text == f"{verdict}{', exploratory' if num_telling else ''}"


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ((0.9, 0.8, 0.7, 0.6, 0.5), "met"),
        ((0.6, 0.6, 0.6, 0.6, 0.5), "missed"),  # the intervals of 0.1 hide it
        ((0.5, 0.6, 0.7, 0.8, 0.9), "missed"),
    ],
)
def test_the_score_sorts_where_the_best_part_is_nearer(ledger, parts, verdict):
    found = study(parts=parts)
    gain = found.quality_gain
    assert gain.value == pytest.approx(parts[0] - parts[-1])
    assert gain.high - gain.value == pytest.approx(np.hypot(0.1, 0.1))
    record_study(found, NaturalImages(named=50), 1.0)
    assert load_row(f"{SORTED}:tinyimagenet32").verdict == verdict


@pytest.mark.parametrize(
    ("named", "words"), [(None, "nobody looked"), (49, "49 of 100"), (50, "an early state")]
)
def test_samples_without_things_to_name_reproduce_at_most_partly(ledger, named, words):
    record_study(study(samples=0.5), NaturalImages(named=named), 1.0)
    row = load_row(f"{CLAIM}:tinyimagenet32")
    assert row.verdict == ("reproduced" if named == 50 else "partly")
    assert words in row.caveat.why and all(row.checks.values())


# ---- parts ----


def test_variety_sees_a_collapse():
    rng = np.random.default_rng(0)
    real_nf, varied_nf = rng.normal(size=(2, 200, 5))
    collapsed_nf = np.tile(varied_nf[:10], (20, 1)) + rng.normal(0, 1e-3, (200, 5))
    varied, collapsed = variety(real_nf, varied_nf), variety(real_nf, collapsed_nf)
    assert collapsed.recall.high < varied.recall.low
    assert collapsed.nearest <= 10 < varied.nearest
    assert collapsed.apart < varied.apart


def test_the_chance_of_a_higher_score_counts_ties_half():
    first_n, second_n = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert chance_above(first_n, second_n) == pytest.approx(4.5 / 6)
    assert chance_above(first_n, first_n) == pytest.approx(0.5)


# ---- from end to end ----


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small pair of wide-awake random weights, which counts as trained on drawn digits."""
    folder = tmp_path_factory.mktemp("place")
    model = ModelConfig(
        image_size=(32, 32), base_width=2, z_dim=4, kernel_size=3, convs_per_stage=2
    )
    gan = make_gan(TrainConfig(model=model))
    with torch.no_grad():
        for parameter in [*gan.generator.parameters(), *gan.discriminator.parameters()]:
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    about = {"image_set": "street-digits", "num_images": 3 * NUM}
    checkpoints.save_networks(folder / "run", gan, about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCGAN_DATA", str(folder / "data"))
        patch.setitem(drawn_sets.NUM_DRAWN, "test", 2 * NUM)
        yield folder


@pytest.fixture(scope="module")
def options(place):
    return NaturalImages(checkpoint=str(place / "run"), num_images=NUM, best_of=5, seed=3)


@pytest.fixture(scope="module")
def found(options):
    return measure(options)


def test_everything_is_measured_at_one_size(found):
    assert set(found.distances) == {REAL, SAMPLES, UNTRAINED, *RUINED, *SPOILT}
    every = [*found.distances.values(), found.picked, *(part.distance for part in found.parts)]
    assert {(each.n_real, each.n_fake) for each in every} == {(NUM, NUM)}
    assert len({each.value for each in found.distances.values()}) == len(found.distances)
    assert found.distances[REAL].value < min(found.distances[name].value for name in RUINED)


def test_parts_are_in_order_of_the_score_and_cover_the_draws(found, options):
    ends = [end for part in found.parts for end in part.logits]
    assert len(found.parts) == NUM_PARTS and ends == sorted(ends)
    drawn_u8 = checkpoints.draw(options.checkpoint, NUM * NUM_PARTS, seed=options.seed)
    discriminator = checkpoints.load_discriminator(options.checkpoint)
    logits_n = checkpoints.logits_of(discriminator, drawn_u8)
    assert ends[0] == pytest.approx(logits_n.min(), abs=1e-3)
    assert ends[-1] == pytest.approx(logits_n.max(), abs=1e-3)
    # Five times as many are drawn, so those that are picked are the part with the highest score.
    assert found.picked.value == pytest.approx(found.parts[-1].distance.value, rel=1e-3)


def test_a_second_measurement_gives_the_same_numbers(found, options):
    again = measure(options)
    assert again.distances[SAMPLES] == found.distances[SAMPLES]
    assert again.told_apart == found.told_apart


def test_rows_and_table_are_kept(found, options, ledger):
    asked = dataclasses.replace(options, checkpoint="run", named=25)
    record_study(found, asked, 1.0)
    row = load_row(f"{CLAIM}:street-digits")
    assert row.command == "dcgan natural run --num-images 16 --best-of 5 --seed 3 --named 25"
    assert row.verdict not in {"reproduced", "partly", "not reproduced"}  # not the paper's kind
    assert "an object in 25 of 100 samples" in row.notes
    kept = load_study("run")
    assert kept["n"] == NUM and kept["named"] == 25 and len(kept["parts"]) == NUM_PARTS
    assert kept["distances"][SAMPLES][0] == pytest.approx(row.value, rel=1e-4)
    assert claims()[SORTED].kind == "control"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_images": 4}, "num_images"),
        ({"best_of": 1}, "best_of"),
        ({"named": 101}, "from 0 to 100"),
        ({"num_images": 1_000}, "half of the held-out images"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, wrong, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(options, **wrong).run()


def test_a_set_whose_features_were_not_tested_is_refused(place, tmp_path):
    gan = make_gan(TrainConfig(model=ModelConfig(image_size=(32, 32), base_width=2, z_dim=4)))
    checkpoints.save_networks(tmp_path / "run", gan, {"image_set": "holidays"})
    with pytest.raises(UserError, match="rank-test"):
        NaturalImages(checkpoint=str(tmp_path / "run")).run()
