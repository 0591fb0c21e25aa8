"""The command ``dcgan turn``: faces turned along an axis from left to right, drawn and measured."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tyro.conf import Positional

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import Result, load_details, record, save_details
from dcgan_lib.evaluation.probes import Panel, Probe, load_panel, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.interpretation.arithmetic import (
    STEPS,
    Exemplars,
    Pool,
    Sum,
    add_up,
    described,
    draw_pool,
    flips,
    moved,
    pick,
    pick_sides,
    pictures_of,
    pixel_sums,
    random_axes,
    read_along,
    rescaled,
    shows,
    summarise,
    turn_axes,
)
from dcgan_lib.models.baselines import AnyDiscriminator, AnyGenerator
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
    return np.concatenate(
        [discriminator(from_u8(x_u8, discriminator.config)).ravel().numpy() for x_u8 in parts]
    )


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
            raise UserError(
                f"trials must be at least 2 and pool at least 1, but got {self.trials} and {self.pool}"
            )
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

    def gain(
        self, one: str, other: str, what: str = "both", sum_name: str | None = None
    ) -> Estimate:
        """Return by how many points the first condition's share exceeds the second's, trial by trial."""
        pair = [
            (self.joined(name, what) if sum_name is None else self.seen[sum_name][name][what])
            for name in (one, other)
        ]
        difference = 100 * (pair[0].astype(float) - pair[1])
        return bootstrap_interval(np.mean, difference)


def conditions(
    pool: Pool, asked: Sum, generator: AnyGenerator, settings: Settings
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each condition's name and pictures; trial i of every condition begins with the same exemplars."""
    most, t, seed = max(COUNTS), settings.trials, settings.seed
    options = {"confidence": settings.confidence, "ahead": settings.ahead}
    z_t3kd = pool.z_nd[pick(pool, asked.concepts, most, t, seed, **options)]
    for k in COUNTS:
        yield f"{k}", pictures_of(generator, add_up(z_t3kd[:, :, :k]))
    for k in (1, 3, 10):
        yield (
            f"{k} rescaled",
            pictures_of(generator, rescaled(add_up(z_t3kd[:, :, :k]), generator.config)),
        )
    if settings.ahead is not None:
        anywhere = pool.z_nd[
            pick(pool, asked.concepts, most, t, seed, confidence=settings.confidence)
        ]
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


def make_judge(
    pool: Pool, generator: AnyGenerator, probe: Probe | Panel, discriminator: AnyDiscriminator
) -> Judge:
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
    generator, discriminator = (
        load_generator(settings.checkpoint),
        load_discriminator(settings.checkpoint),
    )
    probe, sums = (
        load_panel(settings.probe),
        described(settings.checkpoint).sums if sums is None else sums,
    )
    for asked in sums.values():
        for name in (asked.added, asked.carried, *(["yaw"] if settings.ahead is not None else [])):
            probe.head(name)
    pool = draw_pool(generator, probe, settings.pool, settings.seed)
    judge, seen, picked = make_judge(pool, generator, probe, discriminator), {}, {}
    for name, asked in sums.items():
        options = {"confidence": settings.confidence, "ahead": settings.ahead}
        picked[name] = pick(pool, asked.concepts, max(COUNTS), 1, settings.seed, **options)[
            0, :, :3
        ].tolist()
        seen[name] = {
            key: judge(x_u8, asked) for key, x_u8 in conditions(pool, asked, generator, settings)
        }
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


def record_study(
    study: Study, set_name: str, *, command: str, root: Path | None = None
) -> list[Result]:
    """Enter the four claims of Fig. 7 into the ledger, and keep every share beside them."""
    shared = {
        "unit": "%",
        "data": f"{set_name}, generated",
        "checkpoint": study.settings.checkpoint,
        "seed": study.settings.seed,
        "command": command,
        "seconds": study.seconds,
        "root": root,
    }
    rows = [_record_sum(study, name, set_name, shared) for name in study.seen]
    rows += [_record_gain(study, set_name, shared), _record_pixels(study, set_name, shared)]
    save_details(f"curves/arithmetic.{set_name}", numbers(study), root)
    return rows


def _record_sum(study: Study, name: str, set_name: str, shared: dict[str, Any]) -> Result:
    value = study.share(name, "3")
    checks = {
        "more than half of the sums show both attributes": value.low > 50,
        "more do than with a random difference in place of A - B": study.gain(
            "3", "random", sum_name=name
        ).low
        > 0,
    }
    keys = [key for key in ("random", "C alone", "3 any pose") if key in study.seen[name]]
    other = ", ".join(f"{key} {study.share(name, key).value:.1f} %" for key in keys)
    pose = "in any pose" if study.settings.ahead is None else "looking ahead"
    notes = (
        f"Three exemplars {pose}, read by {study.settings.probe}; {described(study.settings.checkpoint).carried}. "
        f"Other conditions: {other}."
    )
    n = study.settings.trials
    return record(
        f"arithmetic.{name}:{set_name}", value=value, n=n, checks=checks, notes=notes, **shared
    )


def _record_gain(study: Study, set_name: str, shared: dict[str, Any]) -> Result:
    gains = {name: study.gain("3", "1", sum_name=name) for name in study.seen}
    calmer = study.gain("1", "3", "implausible")
    checks = {
        f"{name}: three succeed more often than one": gain.low > 0 for name, gain in gains.items()
    }
    checks["with three, fewer sums are implausible to the discriminator"] = calmer.low > 0
    each = ", ".join(
        f"{name} {gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
        for name, gain in gains.items()
    )
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
        "the probe sees both attributes less often in pixel sums": study.gain("3", "3 pixels").low
        > 0,
    }
    both = [100 * study.joined(key).mean() for key in ("3 pixels", "3")]
    notes = (
        f"The value is the share of pixel sums that are less real to the discriminator than 95 % of samples; latent "
        f"sums: {100 * study.joined('3', 'implausible').mean():.1f} %. Both attributes, by the probe: pixels "
        f"{both[0]:.1f} %, latent {both[1]:.1f} %."
    )
    return record(
        f"arithmetic.pixels:{set_name}",
        value=value,
        n=len(odd),
        checks=checks,
        notes=notes,
        **shared,
    )


def load_shares(
    set_name: str, root: Path | None = None
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return the shares that `record_study` kept: by sum, condition and what was seen, in %.

    Raises
    ------
    UserError
        If they were not measured.
    """
    command = f"dcgan arithmetic ... --record {set_name}"
    kept = load_details(f"curves/arithmetic.{set_name}", command, root)["shares [value, low, high]"]
    return {
        name: {
            key: {what: Estimate(*x) for what, x in found.items()} for key, found in entries.items()
        }
        for name, entries in kept.items()
    }


def curve(
    found: Mapping[str, Mapping[str, Estimate]], kind: str = ""
) -> list[tuple[int, float, float, float]]:
    """Return a sum's success against the number of exemplars, as points of `dcgan_lib.plotting.plot_bands`.

    Parameters
    ----------
    found : mapping of str to mapping
        A sum's shares by condition, from `load_shares`.
    kind : str, default ""
        Which conditions: "" for plain latent sums, else "rescaled", "any pose" or "pixels".
    """
    keys = [
        key for key in found if key.partition(" ")[0].isdigit() and key.partition(" ")[2] == kind
    ]
    return [(int(key.partition(" ")[0]), *found[key]["both"]) for key in keys]


ROWS = 5
LEAST_R2, LEAST_RISING = 0.9, 0.95
"""What counts as linear; set before the measurement."""


@dataclass(frozen=True, kw_only=True)
class TurnStudy:
    """Hold what the probe read at each step, along the turn axes and along random ones of the same lengths."""

    settings: dict[str, Any]
    along: dict[str, np.ndarray]
    by_chance: dict[str, np.ndarray]
    pictures_u8: np.ndarray
    faces: list[int]
    picked: list[list[list[int]]]
    seconds: float


def run_turn(
    checkpoint: str = "portraits",
    probe: str = "probe-portraits",
    num_faces: int = 300,
    pool: int = 4_000,
    seed: int = 1,
    least: float = 0.6,
) -> TurnStudy:
    """Turn faces and read them; the parameters are those of ``dcgan turn``.

    Raises
    ------
    UserError
        If there are too few faces, or the pool has too few that look to a side.
    """
    if not 2 <= num_faces <= pool:
        raise UserError(f"faces must lie between 2 and the pool's {pool}, but it is {num_faces}")
    begun, generator, reader = time.monotonic(), load_generator(checkpoint), load_probe(probe)
    reader.head("yaw")
    samples = draw_pool(generator, reader, pool, seed)
    picked = pick_sides(samples, num_faces, seed, least=least)
    axes_nd = turn_axes(samples.z_nd[picked])
    faces = np.random.default_rng(seed).choice(pool, num_faces, replace=False)
    z_nd = samples.z_nd[faces]
    shown = moved(z_nd[:ROWS], axes_nd[:ROWS])
    settings = {
        "checkpoint": checkpoint,
        "probe": probe,
        "pool": pool,
        "least": least,
        "seed": seed,
    }
    return TurnStudy(
        settings=settings,
        along=read_along(generator, reader, z_nd, axes_nd),
        by_chance=read_along(generator, reader, z_nd, random_axes(axes_nd, seed)),
        pictures_u8=pictures_of(generator, shown.reshape(-1, shown.shape[-1])),
        faces=faces[:ROWS].tolist(),
        picked=picked[:ROWS].tolist(),
        seconds=time.monotonic() - begun,
    )


def turn_numbers(study: TurnStudy) -> dict[str, Any]:
    """Return, for both kinds of axis, the mean yaw at each step, the straight line, and what else changes, plainly."""
    found: dict[str, Any] = {"settings": study.settings, "steps": STEPS.round(3).tolist()}
    for name, read in (("axis", study.along), ("random", study.by_chance)):
        means = [bootstrap_interval(np.mean, column) for column in read["yaw"].T]
        yes_or_no = [
            key
            for key, values in read.items()
            if values.ndim == 2 and key not in ("yaw", "skin_tone")
        ]
        found[name] = {
            "line": {
                key: [round(x, 4) for x in value]
                for key, value in vars(summarise(read["yaw"])).items()
            },
            "yaw": [[round(x, 4) for x in mean] for mean in means],
            "flips": {key: [round(100 * x, 2) for x in flips(read, key, -1)] for key in yes_or_no},
        }
    return found


def record_turn(
    study: TurnStudy, set_name: str, *, command: str, root: Path | None = None
) -> Result:
    """Enter the mean R2 of a straight line into the ledger, and keep the curve beside it."""
    line, chance, faces = (
        summarise(study.along["yaw"]),
        summarise(study.by_chance["yaw"]),
        study.along["yaw"],
    )
    checks = {
        f"the yaw rises along the axis for {LEAST_RISING:.0%} of faces": line.rising.low
        >= LEAST_RISING,
        f"a straight line explains {LEAST_R2:.0%} of a face's yaw on average": line.r2.low
        >= LEAST_R2,
        "the yaw moves, and along a random axis of the same length it does not": line.slope.low
        > chance.slope.high,
    }
    notes = (
        f"R2 of a straight line against the step, mean over faces; slope {line.slope.value:.2f} "
        f"[{line.slope.low:.2f}, {line.slope.high:.2f}] yaw an axis; rising {line.rising.value:.1%}; mean yaw from "
        f"{faces[:, 0].mean():.2f} to {faces[:, -1].mean():.2f}; along a random axis: slope {chance.slope.value:.2f}, "
        f"R2 {chance.r2.value:.2f}."
    )
    row = record(
        f"turn.linear:{set_name}",
        value=line.r2,
        unit="",
        n=len(faces),
        data=f"{set_name}, generated",
        checks=checks,
        command=command,
        seconds=study.seconds,
        seed=study.settings["seed"],
        checkpoint=study.settings["checkpoint"],
        notes=notes,
        root=root,
    )
    save_details(f"curves/turn.{set_name}", turn_numbers(study), root)
    return row


def load_turn(set_name: str, root: Path | None = None) -> dict[str, Any]:
    """Return what `record_turn` kept beside the row; see `numbers`.

    Raises
    ------
    UserError
        If it was not measured.
    """
    return load_details(f"curves/turn.{set_name}", f"dcgan turn ... --record {set_name}", root)


def yaw_curve(turned: dict[str, Any], name: str) -> list[tuple[float, float, float, float]]:
    """Return the mean yaw at each step along the "axis" or a "random" one, from `load_turn`, for `plot_bands`."""
    return [(step, *yaw) for step, yaw in zip(turned["steps"], turned[name]["yaw"], strict=True)]


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Add and subtract concepts in latent space: A - B + C, as in Fig. 7; draw one sum, count many.

    With --a, --b and --c the exemplars are yours, named by their numbers among the samples of --seed, and the sum is
    only drawn; with --exemplars they come from a file. Without either a probe chooses, and counts how often the sum
    shows what it should.
    """

    checkpoint: Positional[str] = "portraits"
    """A committed checkpoint or a run's folder."""
    a: tuple[int, ...] = ()
    """Your exemplars of A: numbers among the pool's samples, counted from 0."""
    b: tuple[int, ...] = ()
    """Of B, as many."""
    c: tuple[int, ...] = ()
    """Of C, as many."""
    exemplars: Path | None = None
    """File of exemplars, such as data/checkpoints/faces/exemplars.json; it brings its own seed and pool."""
    sums: tuple[Literal["smile", "glasses"], ...] = ()
    """Which sums to count, if the probe chooses; by default all that the checkpoint's image set has."""
    probe: str | None = None
    """Who reads the attributes, several joined by "+"; by default those that fit the image set."""
    trials: int = 300
    """Sums to count, each with exemplars of its own."""
    pool: int = 8_000
    """Samples to choose from."""
    confidence: float = 0.9
    """How sure the probe must be of an exemplar."""
    ahead: float = 0.4
    """Largest yaw of an exemplar to either side, where the probe reads a yaw."""
    seed: int = 1
    """Of the samples and the choice."""
    out: Path = Path("arithmetic")
    """Folder of the figures, picks.json and numbers.json."""
    record: str | None = None
    """Enter the claims about sums into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Draw, count, write, and record if asked."""
        from dcgan_lib.interpretation.arithmetic import Exemplars, load_exemplars

        by_hand = any([self.a, self.b, self.c])
        if (by_hand or self.exemplars) and (self.record or (by_hand and self.exemplars)):
            raise UserError(
                "exemplars chosen by hand are drawn, not counted: give --a, --b and --c, or --exemplars, or --record"
            )
        if self.exemplars:
            self._draw_own(load_exemplars(self.exemplars))
        elif by_hand:
            groups, trio = {"A": self.a, "B": self.b, "C": self.c}, {"sum": ("A", "B", "C")}
            picked = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
            self._draw_own(Exemplars(**picked, concepts=groups, sums=trio))
        else:
            self._count()

    def _draw_own(self, own: "Exemplars") -> None:
        own.check_checkpoint(self.checkpoint)
        if not own.sums:
            raise UserError(
                "the file of exemplars names no sums: add a sum with its concepts A, B and C"
            )
        self._draw({name: own.numbers(trio) for name, trio in own.sums.items()}, own.seed, own.pool)

    def _count(self) -> None:
        from dcgan_lib.evaluation.ledger import check_command, split_id
        from dcgan_lib.evaluation.probes import load_panel
        from dcgan_lib.interpretation.arithmetic import described
        from dcgan_lib.paths import atomic_write

        known = described(self.checkpoint)
        probe, sums = self.probe or known.probe, self.sums or tuple(known.sums)
        if not set(sums) <= set(known.sums):
            raise UserError(
                f"{self.checkpoint} has the sums {', '.join(known.sums)}, but --sums names {', '.join(sums)}"
            )
        ahead = self.ahead if load_panel(probe).reads("yaw") else None
        if self.record:
            split_id(f"arithmetic.smile:{self.record}")
            check_command("arithmetic.smile", self._command(probe, ahead), self.record)
            if set(sums) != set(known.sums):
                raise UserError("the claims compare over all sums: leave out --sums to record them")
        settings = {entry.name: getattr(self, entry.name) for entry in fields(Settings)}
        settings |= {"probe": probe, "ahead": ahead}
        study = run_study(Settings(**settings), {name: known.sums[name] for name in sums})
        self._draw(study.picked, self.seed, self.pool)
        atomic_write(self.out / "numbers.json", json.dumps(numbers(study), indent=1) + "\n")
        for name, found in study.seen.items():
            for key in found:
                value, low, high = study.share(name, key)
                odd = study.share(name, key, "implausible").value
                print(
                    f"{name:8} {key:12} {value:5.1f} % [{low:.1f}, {high:.1f}]  implausible {odd:.1f} %"
                )
        if self.record:
            for row in record_study(study, self.record, command=self._command(probe, ahead)):
                print(
                    f"recorded {row.id}: {row.value:.1f} [{row.low:.1f}, {row.high:.1f}] {row.verdict}"
                )

    def _draw(self, picked: dict[str, list[list[int]]], seed: int, pool: int) -> None:
        """Write one figure a sum, and which samples it was made of."""
        import numpy as np

        from dcgan_lib.interpretation.arithmetic import layout
        from dcgan_lib.models.sampling import sample_latents, seeded, write_grid
        from dcgan_lib.paths import atomic_write
        from dcgan_lib.training.checkpoints import load_generator

        generator = load_generator(self.checkpoint)
        z_nd = sample_latents(pool, generator.config, seeded(seed)).numpy()
        for name, groups in picked.items():
            write_grid(
                self.out / f"{name}.png",
                np.concatenate(list(layout(generator, z_nd[groups]).values()), 3),
            )
        about = {
            "checkpoint": self.checkpoint,
            "seed": seed,
            "pool": pool,
            "picked [A, B, C]": picked,
        }
        atomic_write(self.out / "picks.json", json.dumps(about, indent=1) + "\n")
        print(f"figures and picks: {self.out}")

    def _command(self, probe: str, ahead: float | None) -> str:
        words = ["dcgan arithmetic", self.checkpoint, f"--probe {probe}", f"--trials {self.trials}"]
        words += [f"--pool {self.pool}", f"--confidence {self.confidence:g}"]
        words += [] if ahead is None else [f"--ahead {ahead:g}"]
        return " ".join([*words, f"--seed {self.seed}", f"--record {self.record}"])


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Turn faces along an axis from left-looking to right-looking samples, as in Fig. 8, and measure their yaw.

    With --exemplars the two sides come from a file, and the turn is only drawn: no probe needs to read a yaw.
    """

    checkpoint: Positional[str] = "portraits"
    """A committed checkpoint or a run's folder."""
    exemplars: Path | None = None
    """File of exemplars that look left and right, such as data/checkpoints/faces/exemplars.json."""
    probe: str = "probe-portraits"
    """Who reads the yaw."""
    faces: int = 300
    """Faces to turn, each along an axis of its own."""
    pool: int = 4_000
    """Samples to choose exemplars from."""
    least: float = 0.6
    """Least yaw of an exemplar, to either side."""
    seed: int = 1
    """Of the samples and the choice."""
    out: Path = Path("turn")
    """Folder of turn.png, picks.json and numbers.json."""
    record: str | None = None
    """Enter turn.linear into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Turn, measure, write, and record if asked."""
        from dcgan_lib.evaluation.ledger import check_command, split_id
        from dcgan_lib.models.sampling import write_grid
        from dcgan_lib.paths import atomic_write

        if self.exemplars:
            self._draw_own()
            return
        if self.record:
            split_id(f"turn.linear:{self.record}")
            check_command("turn.linear", self._command(), self.record)
        study = run_turn(self.checkpoint, self.probe, self.faces, self.pool, self.seed, self.least)
        write_grid(self.out / "turn.png", study.pictures_u8, 11)
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        about |= {"faces": study.faces, "exemplars [left, right]": study.picked}
        atomic_write(self.out / "picks.json", json.dumps(about, indent=1) + "\n")
        found = turn_numbers(study)
        atomic_write(self.out / "numbers.json", json.dumps(found, indent=1) + "\n")
        for name in ("axis", "random"):
            for key, (value, low, high) in found[name]["line"].items():
                print(f"{name:7} {key:7} {value:.3f} [{low:.3f}, {high:.3f}]")
        print(f"figure and picks: {self.out}")
        if self.record:
            row = record_turn(study, self.record, command=self._command())
            print(
                f"recorded {row.id}: {row.value:.3f} [{row.low:.3f}, {row.high:.3f}] {row.verdict}"
            )

    def _draw_own(self) -> None:
        """Turn the pool's first five samples along the axis that the file's exemplars give."""
        from dcgan_lib.interpretation.arithmetic import drawn_turn, load_exemplars
        from dcgan_lib.models.sampling import write_grid
        from dcgan_lib.training.checkpoints import load_generator

        if self.record:
            raise UserError(
                "exemplars chosen by hand are drawn, not measured: leave out --record, or --exemplars"
            )
        own = load_exemplars(self.exemplars)
        own.check_checkpoint(self.checkpoint)
        write_grid(self.out / "turn.png", drawn_turn(load_generator(self.checkpoint), own), 11)
        print(f"figure: {self.out}")

    def _command(self) -> str:
        words = ["dcgan turn", self.checkpoint, f"--probe {self.probe}", f"--faces {self.faces}"]
        words += [f"--pool {self.pool}", f"--least {self.least:g}", f"--seed {self.seed}"]
        return " ".join([*words, f"--record {self.record}"])
