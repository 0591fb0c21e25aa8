"""Chapter 12: how often sums of concepts succeed, and whether a face turns evenly.

``dcgan arithmetic`` counts sums under several conditions and controls, ``dcgan turn`` reads the yaw
of turned faces; both also draw the paper's figures.

Axes: n faces, t trials, k exemplars, s steps along an axis, d latent; 3 the concepts A, B and C;
``_u8`` pixels 0..255.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.errors import UserError, check_number
from dcgan_lib.evaluation.ledger import check_command, load_details, record, save_details
from dcgan_lib.evaluation.probes import Panel, Probe, load_panel, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.experiments.latent_walk import rounded
from dcgan_lib.interpretation.arithmetic import (
    STEPS,
    Exemplars,
    Pool,
    Sum,
    add_up,
    countable_sums,
    draw_pool,
    drawn_turn,
    flips,
    layout,
    load_exemplars,
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
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator
from dcgan_lib.models.sampling import logits_of, write_grid
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import load_discriminator, load_generator

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10)
IMPLAUSIBLE_SHARE = 0.05
"""A picture is implausible when the discriminator finds it less real than all but this share of
plain samples."""

Seen = dict[str, dict[str, dict[str, np.ndarray]]]
"""By sum and condition, what was seen in each trial, bool: "added", "kept" (the carried attribute
is as C has it), "both", "implausible"."""
Shares = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""The same as shares of the trials, in %."""


def _write_json(path: Path, found: Any) -> None:
    atomic_write(path, json.dumps(found, indent=1) + "\n")


# ---------------------------------------------------------------- sums


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Command, verb="arithmetic"):
    """Add and subtract concepts in latent space: A - B + C, as in Fig. 7; draw one sum, count many.

    With --a, --b and --c the exemplars are yours, named by their numbers among the samples of
    --seed, and the sum is only drawn; with --exemplars they come from a file. Without either a
    probe chooses, and counts how often the sum shows what it should.
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
    """File of exemplars, such as data/checkpoints/faces/exemplars.json; it brings its own seed and
    pool."""
    sums: tuple[Literal["smile", "glasses"], ...] = ()
    """Which sums to count, if the probe chooses; by default all that the checkpoint's image set
    has."""
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
    out: Path = local(Path("arithmetic"))
    """Folder of the figures, picks.json and numbers.json."""
    record: str | None = None
    """Enter the claims about sums into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Draw, count, write, and record if asked."""
        by_hand = any([self.a, self.b, self.c])
        if (by_hand or self.exemplars) and (self.record or (by_hand and self.exemplars)):
            raise UserError(
                "exemplars chosen by hand are drawn, not counted: give --a, --b and --c, or "
                "--exemplars, or --record"
            )
        if not by_hand and not self.exemplars:
            return self._count()
        own = load_exemplars(self.exemplars) if self.exemplars else self._named()
        own.check_checkpoint(self.checkpoint)
        if not own.sums:
            raise UserError(
                "the file of exemplars names no sums: add a sum with its concepts A, B and C"
            )
        generator = load_generator(self.checkpoint)
        picked = {name: own.numbers(trio) for name, trio in own.sums.items()}
        self._draw(generator, own.pool_latents(generator.config), picked, own.seed)

    def _named(self) -> Exemplars:
        concepts, trio = {"A": self.a, "B": self.b, "C": self.c}, {"sum": ("A", "B", "C")}
        place = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        return Exemplars(**place, concepts=concepts, sums=trio)

    def _count(self) -> None:
        begun, known = time.monotonic(), countable_sums(self.checkpoint)
        names, probe_name = self.sums or tuple(known.sums), self.probe or known.probe
        if not set(names) <= set(known.sums):
            raise UserError(
                f"{self.checkpoint} has the sums {', '.join(known.sums)}, but --sums names "
                f"{', '.join(names)}"
            )
        if self.record:
            check_command(f"arithmetic.smile:{self.record}", self.command_line(), self.record)
            if set(names) != set(known.sums):
                raise UserError("the claims compare over all sums: leave out --sums to record them")
        check_number(self, "trials", 2)
        check_number(self, "pool", 1)
        check_number(self, "confidence", 0.5, 0.999)
        probe, generator = load_panel(probe_name), load_generator(self.checkpoint)
        ahead = self.ahead if probe.reads("yaw") else None
        sums = {name: known.sums[name] for name in names}
        for attribute in {attribute for asked in sums.values() for attribute in asked.wanted}:
            probe.head(attribute)  # or say that it reads none, before anything is drawn
        networks = generator, probe, load_discriminator(self.checkpoint)
        options = {"seed": self.seed, "confidence": self.confidence, "ahead": ahead}
        pool, picked = draw_pool(generator, probe, self.pool, self.seed), {}
        for name, asked in sums.items():
            chosen = pick(pool, asked.concepts, max(COUNTS), trials=1, **options)
            picked[name] = chosen[0, :, :3].tolist()
        seen = measure_sums(*networks, pool, sums, trials=self.trials, **options)
        self._draw(generator, pool.z_nd, picked, self.seed)
        settings = {"checkpoint": self.checkpoint, "probe": probe_name, "trials": self.trials}
        settings |= {"pool": self.pool} | options
        shares = shares_of(seen)
        found = {"settings": settings, "unit": "%", "shares [value, low, high]": shares}
        _write_json(self.out / "numbers.json", rounded(found, 2))
        for name, conditions in shares.items():
            for key, share in conditions.items():
                (value, low, high), odd = share["both"], share["implausible"].value
                row = f"{name:8} {key:12} {value:5.1f} % [{low:.1f}, {high:.1f}]"
                print(f"{row}  implausible {odd:.1f} %")
        if self.record:
            save_details(f"curves/arithmetic.{self.record}", rounded(found, 2))
            pose = "in any pose" if ahead is None else "looking ahead"
            record_sums(
                seen,
                self.record,
                f"Three exemplars {pose}, read by {probe_name}; {known.carried}.",
                checkpoint=self.checkpoint,
                seed=self.seed,
                command=self.command_line(),
                seconds=time.monotonic() - begun,
            )

    def _draw(
        self, generator: AnyGenerator, z_nd: np.ndarray, picked: dict[str, Any], seed: int
    ) -> None:
        """Write one figure a sum, and which samples it was made of."""
        for name, groups in picked.items():
            figure = np.concatenate([*layout(generator, z_nd[groups]).values()], 3)
            write_grid(self.out / f"{name}.png", figure)
        about = {"checkpoint": self.checkpoint, "seed": seed, "pool": len(z_nd)}
        _write_json(self.out / "picks.json", about | {"picked [A, B, C]": picked})
        print(f"figures and picks: {self.out}")


def measure_sums(
    generator: AnyGenerator,
    probe: Probe | Panel,
    discriminator: AnyDiscriminator,
    pool: Pool,
    sums: Mapping[str, Sum],
    *,
    trials: int,
    seed: int,
    confidence: float,
    ahead: float | None,
) -> Seen:
    """Judge every sum under every condition; the pool's first 2,000 say what is implausible."""
    plain = logits_of(discriminator, pictures_of(generator, pool.z_nd[:2_000]))
    limit = float(np.quantile(plain, IMPLAUSIBLE_SHARE))
    options = {"trials": trials, "seed": seed, "confidence": confidence, "ahead": ahead}
    seen: Seen = {}
    for name, asked in sums.items():
        seen[name] = {}
        for key, pictures in _conditions(generator, pool, asked, **options):
            read = probe.predict(pictures)
            added, kept = (shows(read, {key: has}) for key, has in asked.wanted.items())
            odd = logits_of(discriminator, pictures) < limit
            found = {"added": added, "kept": kept, "both": added & kept, "implausible": odd}
            seen[name][key] = found
    return seen


def _conditions(
    generator: AnyGenerator,
    pool: Pool,
    asked: Sum,
    *,
    trials: int,
    seed: int,
    confidence: float,
    ahead: float | None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each condition's name and pictures; trial i always begins with the same exemplars."""
    most, how = max(COUNTS), {"trials": trials, "seed": seed, "confidence": confidence}
    z_t3kd = pool.z_nd[pick(pool, asked.concepts, most, **how, ahead=ahead)]
    sums = {f"{k}": add_up(z_t3kd[:, :, :k]) for k in COUNTS}
    sums |= {f"{k} rescaled": rescaled(sums[f"{k}"], generator.config) for k in (1, 3, 10)}
    if ahead is not None:
        anywhere = pool.z_nd[pick(pool, asked.concepts, most, **how)]
        sums |= {f"{k} any pose": add_up(anywhere[:, :, :k]) for k in (1, 3, 10)}
    sums["C alone"] = z_t3kd[:, 2, :3].mean(1)
    by_chance = pick(pool, ({}, {}), 3, trials, seed + 1, ahead=ahead)
    sums["random"] = add_up(np.concatenate([pool.z_nd[by_chance], z_t3kd[:, 2:, :3]], 1))
    for name, y_td in sums.items():
        yield name, pictures_of(generator, y_td)
    pictures = pictures_of(generator, z_t3kd[:, :, :3])
    pictures = pictures.reshape(trials, 3, 3, *pictures.shape[1:])
    for k in (1, 3):
        yield f"{k} pixels", pixel_sums(pictures[:, :, :k])


def _share(hits_t: np.ndarray) -> Estimate:
    return wilson_interval(int(hits_t.sum()), len(hits_t)).scaled(100)


def shares_of(seen: Seen) -> Shares:
    """Return every share with its interval, in %."""
    return {
        name: {
            key: {what: _share(hits_t) for what, hits_t in found.items()}
            for key, found in conditions.items()
        }
        for name, conditions in seen.items()
    }


def record_sums(seen: Seen, set_name: str, who: str, **about: Any) -> None:
    """Enter the claims of Fig. 7; ``who`` says who the exemplars are and who reads them."""
    about |= {"unit": "%", "data": f"{set_name}, generated"}

    def hits(condition: str, what: str = "both") -> np.ndarray:
        """Join the trials of all sums."""
        return np.concatenate([found[condition][what] for found in seen.values()])

    def gain(one_t: np.ndarray, other_t: np.ndarray) -> Estimate:
        """Return by how many points the first share exceeds the second, trial by trial."""
        return bootstrap_interval(np.mean, 100 * (one_t.astype(float) - other_t))

    gains = {}
    for name, found in seen.items():
        both = {key: what["both"] for key, what in found.items()}
        gains[name], share = gain(both["3"], both["1"]), _share(both["3"])
        other = ", ".join(
            f"{key} {_share(both[key]).value:.1f} %"
            for key in ("random", "C alone", "3 any pose")
            if key in both
        )
        checks = {
            "more than half of the sums show both attributes": share.low > 50,
            "more do than with a random difference in place of A - B": (
                gain(both["3"], both["random"]).low > 0
            ),
        }
        notes, n = f"{who} Other conditions: {other}.", len(both["3"])
        record(f"arithmetic.{name}:{set_name}", share, n=n, checks=checks, notes=notes, **about)

    three, pixels, n = hits("3"), hits("3 pixels"), len(hits("3"))
    odd = {key: hits(key, "implausible") for key in ("1", "3", "3 pixels")}
    calmer = gain(odd["1"], odd["3"])
    checks = {f"{name}: three succeed more often than one": x.low > 0 for name, x in gains.items()}
    checks["with three, fewer sums are implausible to the discriminator"] = calmer.low > 0
    each = ", ".join(
        f"{name} {x.value:+.1f} [{x.low:+.1f}, {x.high:+.1f}]" for name, x in gains.items()
    )
    notes = (
        f"Points gained over one exemplar: {each}. Implausible with one, not with three: "
        f"{calmer.value:.1f} points [{calmer.low:.1f}, {calmer.high:.1f}]."
    )
    id, value = f"arithmetic.three-vs-one:{set_name}", gain(three, hits("1"))
    record(id, value, n=n, checks=checks, notes=notes, **about)

    value = _share(odd["3 pixels"])
    checks = {
        "most pixel sums are implausible to the discriminator": value.low > 50,
        "latent sums are so less often": gain(odd["3 pixels"], odd["3"]).low > 0,
        "the probe sees both attributes less often in pixel sums": gain(three, pixels).low > 0,
    }
    notes = (
        "The value is the share of pixel sums that are less real to the discriminator than 95 % "
        f"of samples; latent sums: {100 * odd['3'].mean():.1f} %. Both attributes, by the probe: "
        f"pixels {100 * pixels.mean():.1f} %, latent {100 * three.mean():.1f} %."
    )
    record(f"arithmetic.pixels:{set_name}", value, n=n, checks=checks, notes=notes, **about)


def load_shares(set_name: str) -> Shares:
    """Return the shares that ``dcgan arithmetic --record`` kept."""
    kept = load_details(
        f"curves/arithmetic.{set_name}", f"dcgan arithmetic CHECKPOINT --record {set_name}"
    )
    return {
        name: {
            key: {what: Estimate(*x) for what, x in found.items()} for key, found in entries.items()
        }
        for name, entries in kept["shares [value, low, high]"].items()
    }


def curve(
    found: Mapping[str, Mapping[str, Estimate]], kind: str = ""
) -> list[tuple[int, float, float, float]]:
    """Return a sum's success against the number of exemplars, for `plotting.plot_bands`.

    ``kind`` is "" for plain latent sums, else "rescaled", "any pose" or "pixels".
    """
    wanted = re.compile(rf"(\d+) ?{kind}")
    matches = {key: wanted.fullmatch(key) for key in found}
    return [(int(match[1]), *found[key]["both"]) for key, match in matches.items() if match]


# ---------------------------------------------------------------- the turn

ROWS = 5
LEAST_R2, LEAST_RISING = 0.9, 0.95
"""What counts as linear; set before the measurement."""


@dataclass(frozen=True, kw_only=True)
class Turn(Command, verb="turn"):
    """Turn faces from left to right along a vector, as in Fig. 8, and measure their yaw.

    With --exemplars the two sides come from a file, and the turn is only drawn: no probe needs to
    read a yaw.
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
    out: Path = local(Path("turn"))
    """Folder of turn.png, picks.json and numbers.json."""
    record: str | None = None
    """Enter turn.linear into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Turn, measure, write, and record if asked."""
        begun = time.monotonic()
        if self.exemplars:
            return self._draw_own(self.exemplars)
        if self.record:
            check_command(f"turn.linear:{self.record}", self.command_line(), self.record)
        check_number(self, "faces", 2, self.pool)
        generator, probe = load_generator(self.checkpoint), load_probe(self.probe)
        probe.head("yaw")
        pool = draw_pool(generator, probe, self.pool, self.seed)
        picked = pick_sides(pool, self.faces, self.seed, least=self.least)
        faces = np.random.default_rng(self.seed).choice(self.pool, self.faces, replace=False)
        z_nd, axes_nd = pool.z_nd[faces], turn_axes(pool.z_nd[picked])
        write_grid(
            self.out / "turn.png", pictures_of(generator, moved(z_nd[:ROWS], axes_nd[:ROWS])), 11
        )
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        about |= {"faces": faces[:ROWS].tolist(), "exemplars [left, right]": picked[:ROWS].tolist()}
        _write_json(self.out / "picks.json", about)
        names = ("checkpoint", "probe", "pool", "least", "seed")
        found = {"settings": {name: getattr(self, name) for name in names}}
        found |= measure_turn(generator, probe, z_nd, axes_nd, self.seed)
        _write_json(self.out / "numbers.json", rounded(found, 4))
        for name in ("axis", "random"):
            for key, (value, low, high) in found[name]["line"].items():
                print(f"{name:7} {key:7} {value:.3f} [{low:.3f}, {high:.3f}]")
        print(f"figure and picks: {self.out}")
        if self.record:
            save_details(f"curves/turn.{self.record}", rounded(found, 4))
            record_turn(
                found,
                self.record,
                n=self.faces,
                checkpoint=self.checkpoint,
                seed=self.seed,
                command=self.command_line(),
                seconds=time.monotonic() - begun,
            )

    def _draw_own(self, path: Path) -> None:
        """Turn the pool's first five samples along the axis that the file's exemplars give."""
        if self.record:
            raise UserError(
                "exemplars chosen by hand are not measured: leave out --record or --exemplars"
            )
        own = load_exemplars(path)
        own.check_checkpoint(self.checkpoint)
        write_grid(self.out / "turn.png", drawn_turn(load_generator(self.checkpoint), own), 11)
        print(f"figure: {self.out}")


def measure_turn(
    generator: AnyGenerator, probe: Probe, z_nd: np.ndarray, axes_nd: np.ndarray, seed: int
) -> dict[str, Any]:
    """Read faces at each step along their turn axes, and along random ones of the same lengths.

    ``steps``; for "axis" and "random" the straight ``line`` of the yaw (see `summarise`), its mean
    at each step (``yaw``), and the share of faces, in %, that each yes-or-no attribute ``flips`` in
    until the last step. Estimates are value, low, high. The seed is that of the random axes.
    """
    yes_or_no = [head.name for head in probe.config.heads if head.kind == "boolean"]
    found: dict[str, Any] = {"steps": STEPS.round(3).tolist()}
    for name, axes in (("axis", axes_nd), ("random", random_axes(axes_nd, seed))):
        read = read_along(generator, probe, z_nd, axes)
        found[name] = {
            "line": summarise(read["yaw"]),
            "yaw": [bootstrap_interval(np.mean, column) for column in read["yaw"].T],
            "flips": rounded({key: flips(read[key], -1).scaled(100) for key in yes_or_no}, 2),
        }
    return found


def record_turn(found: dict[str, Any], set_name: str, *, n: int, **about: Any) -> None:
    """Enter the mean R2 of a straight line into the ledger; ``about`` is the rest of the row."""
    line, chance = found["axis"]["line"], found["random"]["line"]
    slope, r2, rising = line["slope"], line["r2"], line["rising"]
    checks = {
        f"the yaw rises along the axis for {LEAST_RISING:.0%} of faces": (
            rising.low >= LEAST_RISING
        ),
        f"a straight line explains {LEAST_R2:.0%} of a face's yaw on average": r2.low >= LEAST_R2,
        "the yaw moves, and along a random axis of the same length it does not": (
            slope.low > chance["slope"].high
        ),
    }
    first, last = (found["axis"]["yaw"][step].value for step in (0, -1))
    notes = (
        f"R2 of a straight line against the step, mean over faces; slope {slope.value:.2f} "
        f"[{slope.low:.2f}, {slope.high:.2f}] yaw an axis; rising {rising.value:.1%}; mean yaw "
        f"from {first:.2f} to {last:.2f}; along a random axis: slope "
        f"{chance['slope'].value:.2f}, R2 {chance['r2'].value:.2f}."
    )
    about |= {"unit": "", "n": n, "data": f"{set_name}, generated"}
    record(f"turn.linear:{set_name}", r2, checks=checks, notes=notes, **about)


def load_turn(set_name: str) -> dict[str, Any]:
    """Return what ``dcgan turn --record`` kept; see `measure_turn`."""
    return load_details(f"curves/turn.{set_name}", f"dcgan turn CHECKPOINT --record {set_name}")


def yaw_curve(turned: dict[str, Any], name: str) -> list[tuple[float, float, float, float]]:
    """Return the mean yaw at each step along the "axis" or a "random" one, for `plot_bands`."""
    return [(step, *yaw) for step, yaw in zip(turned["steps"], turned[name]["yaw"], strict=True)]
