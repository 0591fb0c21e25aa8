"""Words while training: healthy runs are left in peace, and spoilt ones are told what to do."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_training import CONFIG, all_tensors, run, same_bits

from dcgan_lib.config import recipes
from dcgan_lib.errors import UserError
from dcgan_lib.training.checkpoints import read_metrics
from dcgan_lib.training.watch import (
    ALL_FAKE,
    SWINGING,
    WON,
    WORDS,
    Watch,
    find_trouble,
    warnings_at_start,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "when_it_goes_wrong.md").read_text(encoding="utf-8")
HEALTHY = {"d_loss": 0.9, "g_loss": 1.2, "d_real": 0.7, "d_fake": 0.3}
RNG = np.random.default_rng(0)
VARIED = RNG.integers(0, 256, (16, 1, 8, 8), dtype=np.uint8)
ALIKE = VARIED[:1].repeat(16, 0)


def said_of(lines, samples_u8=VARIED) -> list[str]:
    watch = Watch(VARIED, 0)
    return [sentence for line in lines for sentence in watch.look(line, samples_u8)]


def lines_of(changed: dict[str, float], last: int = 300, every: int = 50) -> list[dict]:
    return [{"step": step} | HEALTHY | changed for step in range(every, last + 1, every)]


def test_trouble_in_a_line_is_named_and_health_is_not():
    assert find_trouble(HEALTHY) is None
    assert find_trouble(HEALTHY | {"d_loss": 0.001, "g_loss": 100.0}) == WON
    assert find_trouble(HEALTHY | {"d_real": 0.001, "d_fake": 0.001}) == ALL_FAKE
    for early in ({"d_loss": 5.1}, {"g_loss": 20.5}):
        assert find_trouble(HEALTHY | early) == SWINGING


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"d_loss": 0.02, "g_loss": 5.5}, None),
        ({"d_loss": 0.02, "g_loss": 9.0}, "the discriminator has won"),
        ({"d_real": 0.01, "d_fake": 0.01}, "the discriminator calls everything fake"),
        ({"d_loss": 2.4, "g_loss": 0.3}, "the losses diverge"),
    ],
)
def test_lasting_trouble_is_said_once(changed, said):
    found = said_of(lines_of(changed))
    assert [sentence.split(":")[0] for sentence in found] == ([said] if said else [])


@pytest.mark.parametrize("every", [1, 50, 1_000])
def test_trouble_has_to_last_for_a_hundred_steps(every):
    bad = {"d_loss": 0.01, "g_loss": 9.0}
    short = lines_of(bad, last=99, every=every)
    assert said_of(short) == []
    interrupted = [*short, {"step": 100} | HEALTHY, {"step": 101} | HEALTHY | bad]
    assert said_of(interrupted) == []
    assert len(said_of(lines_of(bad, last=1_000, every=every))) == 1


def test_networks_that_take_turns_in_the_log_are_judged_together():
    turns = [{"g_loss": 9.0, "d_fake": 0.0}, {"d_loss": 0.01, "d_real": 0.99, "d_fake": 0.0}]
    lines = [{"step": step} | turns[step % 2] for step in range(1, 150)]
    assert len(said_of(lines)) == 1


def test_samples_that_become_alike_or_stay_so_are_a_collapse_and_a_young_run_s_are_none():
    def said(step: int, *all_samples: np.ndarray) -> list[str]:
        watch = Watch(VARIED, step - 50)
        lines = [{"step": step + 50 * turn} | HEALTHY for turn in range(len(all_samples))]
        looks = zip(lines, all_samples, strict=True)
        return [words for line, samples in looks for words in watch.look(line, samples)]

    assert said(50, *[ALIKE] * 8) == said(50, ALIKE, *[VARIED] * 8) == []
    for found in (said(50, VARIED, *[ALIKE] * 8), said(1_050, *[ALIKE] * 8)):
        assert len(found) == 1 and found[0].startswith("the generator has collapsed")


CHECKPOINTS = sorted((ROOT / "data" / "checkpoints").glob("*/metrics.jsonl"))


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.parent.name)
def test_no_committed_run_is_called_troubled(path):
    assert said_of(read_metrics(path)) == []


SPOILT = sorted((ROOT / "data" / "results" / "ablations" / "cifar10").glob("planted-*.json"))


@pytest.mark.parametrize("path", SPOILT, ids=lambda path: path.stem)
def test_runs_that_were_spoilt_on_purpose_are_called_troubled(path):
    names = ("step", "d_loss", "g_loss", "d_real", "d_fake")
    losses = json.loads(path.read_text())["losses"]
    found = said_of([dict(zip(names, line, strict=True)) for line in losses])
    assert any("has won" in sentence for sentence in found)


def test_a_run_warns_while_it_trains_and_keeps_quiet_without_need(tmp_path):
    config = dataclasses.replace(CONFIG, steps=120, log_every=20, save_seconds=60)
    assert run(config, tmp_path / "healthy").warnings == ()
    spoilt = dataclasses.replace(config, learning_rate=1.0)
    first, *others = run(spoilt, tmp_path / "spoilt").warnings
    assert first.startswith("learning_rate 1 is high") and others
    assert all("When it goes wrong" in sentence for sentence in others)


def test_few_images_that_are_seen_often_are_named_before_the_first_step():
    few, often = 300, dataclasses.replace(CONFIG, steps=10_000)
    [sentence] = warnings_at_start(often, few)
    assert sentence.startswith("300 images are few, and 267 passes over them are planned")
    assert warnings_at_start(CONFIG, few) == []
    assert warnings_at_start(often, 20_000) == []
    for recipe in recipes().values():
        assert warnings_at_start(recipe.config, 4_000) == []


def test_every_sentence_names_a_section_of_the_page():
    sections = [*(section for _, section in WORDS.values()), "Few photographs"]
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert set(sections) <= set(titles) and "A section that is not there" not in titles
    assert PAGE.startswith("# When it goes wrong\n")


# --- scores ---


def mean_grey(samples_u8: np.ndarray) -> dict[str, float]:
    """Score samples by their mean, after upsetting what a score might upset."""
    np.random.seed(3)
    return {"mean_grey": float(samples_u8.mean())}


def without_clock(path: Path) -> list[dict]:
    clock = {"seconds", "images_per_second"}
    lines = read_metrics(path / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def test_a_run_with_scores_trains_the_same_weights_and_resumes(tmp_path):
    config = dataclasses.replace(CONFIG, score_every=6, score_images=11)
    run(CONFIG, tmp_path / "plain")
    run(config, tmp_path / "scored", score=mean_grey)
    for steps in (3, 7, 12):
        part = dataclasses.replace(config, steps=steps)
        run(part, tmp_path / "parts", score=mean_grey)
    plain = all_tensors(tmp_path / "plain")
    assert same_bits(plain, all_tensors(tmp_path / "scored"))
    assert same_bits(plain, all_tensors(tmp_path / "parts"))
    scored = without_clock(tmp_path / "scored")
    assert scored == without_clock(tmp_path / "parts")
    assert [line["step"] for line in scored] == [4, 6, 8, 12]
    assert [line["step"] for line in scored if "mean_grey" in line] == [6, 12]
    assert all("d_loss" in line or "g_loss" in line for line in scored)


def test_scores_need_a_function_and_a_function_scores(tmp_path):
    with pytest.raises(UserError, match="give both or neither"):
        run(dataclasses.replace(CONFIG, score_every=6), tmp_path)
    with pytest.raises(UserError, match="give both or neither"):
        run(CONFIG, tmp_path, score=mean_grey)
    assert list(tmp_path.iterdir()) == []
