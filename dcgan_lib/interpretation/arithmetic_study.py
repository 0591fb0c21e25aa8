"""How often does A - B + C show what it should? Many trials, each with exemplars of its own.

Axes: t trials, k exemplars of a concept, d latent.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.details import load_details, save_details
from dcgan_lib.evaluation.probe_model import Probe
from dcgan_lib.evaluation.probe_panel import Panel, load_panel
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.interpretation.arithmetic import (
    Pool,
    add_up,
    draw_pool,
    pick,
    pictures_of,
    pixel_sums,
    rescaled,
    shows,
)  # fmt: skip
from dcgan_lib.interpretation.concepts import Sum, described
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator
from dcgan_lib.models.sampling import from_u8
from dcgan_lib.training.checkpoints import load_discriminator, load_generator

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10)
IMPLAUSIBLE_SHARE = 0.05
"""A picture is implausible when the discriminator finds it less real than all but this share of plain samples."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Say of pictures what they show and whether they are plausible."""

    generator: AnyGenerator
    probe: Probe | Panel
    discriminator: AnyDiscriminator
    limit: float

    def __call__(self, pictures_u8: np.ndarray, asked: Sum) -> dict[str, np.ndarray]:
        """Return bool arrays: "added", "kept" (the carried attribute is as C has it), "both", "implausible"."""
        read = self.probe.predict(pictures_u8)
        parts = {"added": asked.added, "kept": asked.carried}
        seen = {name: shows(read, {key: asked.wanted[key]}) for name, key in parts.items()}
        odd = realness(self.discriminator, pictures_u8) < self.limit
        return {**seen, "both": seen["added"] & seen["kept"], "implausible": odd}


@torch.no_grad()
def realness(discriminator: AnyDiscriminator, pictures_u8: np.ndarray) -> np.ndarray:
    """Return the discriminator's logit for each picture, in evaluation mode; higher is more real."""
    parts = torch.from_numpy(pictures_u8).split(256)
    return np.concatenate([discriminator(from_u8(x_u8, discriminator.config)).ravel().numpy() for x_u8 in parts])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Describe the trials; ``dcgan arithmetic`` says what each number is and holds the defaults."""

    checkpoint: str
    probe: str
    trials: int
    pool: int
    seed: int
    confidence: float
    ahead: float | None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.trials < 2 or self.pool < 1:
            raise UserError(f"trials must be at least 2 and pool at least 1, but got {self.trials} and {self.pool}")
        if not 0.5 <= self.confidence < 1 or (self.ahead is not None and self.ahead <= 0):
            raise UserError(
                f"confidence must lie in 0.5 to 1 and ahead above 0, but got {self.confidence} and {self.ahead}"
            )


@dataclass(frozen=True, kw_only=True)
class Study:
    """Hold, for each sum and condition, what was seen in each trial: bool arrays by "added", "kept" and so on."""

    settings: Settings
    seen: dict[str, dict[str, dict[str, np.ndarray]]]
    picked: dict[str, list[list[int]]]
    seconds: float = field(default=0.0)

    def share(self, sum_name: str, condition: str, what: str = "both") -> Estimate:
        """Return the share of trials in %, with its interval."""
        hits = self.seen[sum_name][condition][what]
        return wilson_interval(int(hits.sum()), len(hits)).scaled(100)

    def joined(self, condition: str, what: str = "both") -> np.ndarray:
        """Return what was seen over all sums, one after the other."""
        return np.concatenate([conditions[condition][what] for conditions in self.seen.values()])

    def gain(self, one: str, other: str, what: str = "both", sum_name: str | None = None) -> Estimate:
        """Return by how many points the first condition's share exceeds the second's, trial by trial."""
        pair = [
            (self.joined(name, what) if sum_name is None else self.seen[sum_name][name][what]) for name in (one, other)
        ]
        difference = 100 * (pair[0].astype(float) - pair[1])
        return bootstrap_interval(np.mean, difference)


def conditions(pool: Pool, asked: Sum, generator: AnyGenerator, settings: Settings) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each condition's name and pictures; trial i of every condition begins with the same exemplars."""
    most, t, seed = max(COUNTS), settings.trials, settings.seed
    options = {"confidence": settings.confidence, "ahead": settings.ahead}
    z_t3kd = pool.z_nd[pick(pool, asked.concepts, most, t, seed, **options)]
    for k in COUNTS:
        yield f"{k}", pictures_of(generator, add_up(z_t3kd[:, :, :k]))
    for k in (1, 3, 10):
        yield f"{k} rescaled", pictures_of(generator, rescaled(add_up(z_t3kd[:, :, :k]), generator.config))
    if settings.ahead is not None:
        anywhere = pool.z_nd[pick(pool, asked.concepts, most, t, seed, confidence=settings.confidence)]
        for k in (1, 3, 10):
            yield f"{k} any pose", pictures_of(generator, add_up(anywhere[:, :, :k]))
    yield "C alone", pictures_of(generator, z_t3kd[:, 2, :3].mean(1))
    by_chance = pick(pool, ({},) * 2, 3, t, seed + 1, ahead=settings.ahead)
    swapped = np.concatenate([pool.z_nd[by_chance], z_t3kd[:, 2:, :3]], 1)
    yield "random", pictures_of(generator, add_up(swapped))
    pictures = pictures_of(generator, z_t3kd[:, :, :3].reshape(-1, z_t3kd.shape[-1]))
    pictures = pictures.reshape(t, 3, 3, *pictures.shape[1:])
    for k in (1, 3):
        yield f"{k} pixels", pixel_sums(pictures[:, :, :k])


def make_judge(pool: Pool, generator: AnyGenerator, probe: Probe | Panel, discriminator: AnyDiscriminator) -> Judge:
    """Set the limit of plausibility by the first 2,000 samples of the pool."""
    logits = realness(discriminator, pictures_of(generator, pool.z_nd[:2_000]))
    limit = float(np.quantile(logits, IMPLAUSIBLE_SHARE))
    return Judge(generator=generator, probe=probe, discriminator=discriminator, limit=limit)


def run_study(settings: Settings, sums: Mapping[str, Sum] | None = None) -> Study:
    """Make every sum under every condition, and judge the pictures; by default all that `described` names.

    Raises
    ------
    UserError
        If there is no such checkpoint or probe, or the probe does not read the attributes.
    """
    begun = time.monotonic()
    generator, discriminator = load_generator(settings.checkpoint), load_discriminator(settings.checkpoint)
    probe, sums = load_panel(settings.probe), described(settings.checkpoint).sums if sums is None else sums
    for asked in sums.values():
        for name in (asked.added, asked.carried, *(["yaw"] if settings.ahead is not None else [])):
            probe.head(name)
    pool = draw_pool(generator, probe, settings.pool, settings.seed)
    judge, seen, picked = make_judge(pool, generator, probe, discriminator), {}, {}
    for name, asked in sums.items():
        options = {"confidence": settings.confidence, "ahead": settings.ahead}
        picked[name] = pick(pool, asked.concepts, max(COUNTS), 1, settings.seed, **options)[0, :, :3].tolist()
        seen[name] = {key: judge(x_u8, asked) for key, x_u8 in conditions(pool, asked, generator, settings)}
    return Study(settings=settings, seen=seen, picked=picked, seconds=time.monotonic() - begun)


def numbers(study: Study) -> dict[str, Any]:
    """Return every share with its interval as plain values, in %."""
    shares = {
        name: {
            key: {what: [round(x, 2) for x in study.share(name, key, what)] for what in found}
            for key, found in by_condition.items()
        }
        for name, by_condition in study.seen.items()
    }
    return {"settings": vars(study.settings), "unit": "%", "shares [value, low, high]": shares}


def record_study(study: Study, set_name: str, *, command: str, root: Path | None = None) -> list[Result]:
    """Enter the four claims of Fig. 7 into the ledger, and keep every share beside them."""
    shared = {
        "unit": "%", "data": f"{set_name}, generated", "checkpoint": study.settings.checkpoint,
        "seed": study.settings.seed, "command": command, "seconds": study.seconds, "root": root,
    }  # fmt: skip
    rows = [_record_sum(study, name, set_name, shared) for name in study.seen]
    rows += [_record_gain(study, set_name, shared), _record_pixels(study, set_name, shared)]
    save_details(f"curves/arithmetic.{set_name}", numbers(study), root)
    return rows


def _record_sum(study: Study, name: str, set_name: str, shared: dict[str, Any]) -> Result:
    value = study.share(name, "3")
    checks = {
        "more than half of the sums show both attributes": value.low > 50,
        "more do than with a random difference in place of A - B": study.gain("3", "random", sum_name=name).low > 0,
    }
    keys = [key for key in ("random", "C alone", "3 any pose") if key in study.seen[name]]
    other = ", ".join(f"{key} {study.share(name, key).value:.1f} %" for key in keys)
    pose = "in any pose" if study.settings.ahead is None else "looking ahead"
    notes = (
        f"Three exemplars {pose}, read by {study.settings.probe}; {described(study.settings.checkpoint).carried}. "
        f"Other conditions: {other}."
    )
    n = study.settings.trials
    return record(f"arithmetic.{name}:{set_name}", value=value, n=n, checks=checks, notes=notes, **shared)


def _record_gain(study: Study, set_name: str, shared: dict[str, Any]) -> Result:
    gains = {name: study.gain("3", "1", sum_name=name) for name in study.seen}
    calmer = study.gain("1", "3", "implausible")
    checks = {f"{name}: three succeed more often than one": gain.low > 0 for name, gain in gains.items()}
    checks["with three, fewer sums are implausible to the discriminator"] = calmer.low > 0
    each = ", ".join(f"{name} {gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]" for name, gain in gains.items())
    notes = (
        f"Points gained over one exemplar: {each}. Implausible with one, not with three: {calmer.value:.1f} points "
        f"[{calmer.low:.1f}, {calmer.high:.1f}]."
    )
    id, n = f"arithmetic.three-vs-one:{set_name}", len(study.joined("3"))
    return record(id, value=study.gain("3", "1"), n=n, checks=checks, notes=notes, **shared)


def _record_pixels(study: Study, set_name: str, shared: dict[str, Any]) -> Result:
    odd = study.joined("3 pixels", "implausible")
    value = wilson_interval(int(odd.sum()), len(odd)).scaled(100)
    checks = {
        "most pixel sums are implausible to the discriminator": value.low > 50,
        "latent sums are so less often": study.gain("3 pixels", "3", "implausible").low > 0,
        "the probe sees both attributes less often in pixel sums": study.gain("3", "3 pixels").low > 0,
    }
    both = [100 * study.joined(key).mean() for key in ("3 pixels", "3")]
    notes = (
        f"The value is the share of pixel sums that are less real to the discriminator than 95 % of samples; latent "
        f"sums: {100 * study.joined('3', 'implausible').mean():.1f} %. Both attributes, by the probe: pixels "
        f"{both[0]:.1f} %, latent {both[1]:.1f} %."
    )
    return record(f"arithmetic.pixels:{set_name}", value=value, n=len(odd), checks=checks, notes=notes, **shared)


def load_shares(set_name: str, root: Path | None = None) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return the shares that `record_study` kept: by sum, condition and what was seen, in %.

    Raises
    ------
    UserError
        If they were not measured.
    """
    command = f"dcgan arithmetic ... --record {set_name}"
    kept = load_details(f"curves/arithmetic.{set_name}", command, root)["shares [value, low, high]"]
    return {
        name: {key: {what: Estimate(*x) for what, x in found.items()} for key, found in entries.items()}
        for name, entries in kept.items()
    }


def curve(found: Mapping[str, Mapping[str, Estimate]], kind: str = "") -> list[tuple[int, float, float, float]]:
    """Return a sum's success against the number of exemplars, as points of `dcgan_lib.plotting.plot_bands`.

    Parameters
    ----------
    found : mapping of str to mapping
        A sum's shares by condition, from `load_shares`.
    kind : str, default ""
        Which conditions: "" for plain latent sums, else "rescaled", "any pose" or "pixels".
    """
    keys = [key for key in found if key.partition(" ")[0].isdigit() and key.partition(" ")[2] == kind]
    return [(int(key.partition(" ")[0]), *found[key]["both"]) for key in keys]
