"""Chapter 12: how often sums of concepts succeed, and whether a face turns evenly.

``dcgan arithmetic`` counts sums under several conditions and controls, ``dcgan turn`` reads the yaw
of turned faces; both also draw the paper's figures.

Axes: n faces, t trials, k exemplars, s steps along an axis, d latent; 3 the concepts A, B and C;
``_u8`` pixels 0..255.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.errors import UserError, check_number
from dcgan_lib.evaluation.ledger import (
    Caveat,
    check_command,
    load_details,
    record,
    rounded,
    save_details,
)
from dcgan_lib.evaluation.probes import Panel, Probe, load_panel, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.experiments.probes import RECIPES, load_part
from dcgan_lib.interpretation.arithmetic import (
    STEPS,
    EdgeReader,
    Exemplars,
    Pool,
    Reader,
    Sum,
    add_up,
    countable_sums,
    draw_pool,
    drawn_turn,
    fit_overlay_reader,
    flips,
    layout,
    load_exemplars,
    moved,
    overlays_of_two,
    pick,
    pick_sides,
    pictures_of,
    pixel_sums,
    random_axes,
    read_along,
    rescaled,
    shows,
    spread,
    summarise,
    turn_axes,
)
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator
from dcgan_lib.models.sampling import logits_of, sample_latents, seeded, write_grid
from dcgan_lib.paths import write_json
from dcgan_lib.training.checkpoints import load_discriminator, load_generator

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10)
AHEAD = 0.4
"""Largest yaw of an exemplar to either side, where the probe reads a yaw."""
IMPLAUSIBLE_SHARE = 0.05
"""A picture is implausible when the discriminator finds it less real than all but this share of
plain samples."""

Seen = dict[str, dict[str, dict[str, np.ndarray]]]
"""By sum and condition, what was seen in each trial, bool: "both" attributes, "implausible",
"overlay"; "second": both, by the reader that took no part in the choice; "agree": the two say the
same about both."""
Shares = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""The same as shares of the trials, in %."""


# ---------------------------------------------------------------- who else judges

JUDGE_TRAIN, JUDGE_TEST = 6_000, 2_000
"""Images that a second judge learns from, and is scored on, at most."""


def fit_judge(probe_names: str, attributes: set[str], seed: int = 0) -> EdgeReader:
    """Fit a second judge on the sets that the probes learnt from, and score it on held-out images.

    Its ``facts`` hold, by attribute, an accuracy in % or a correlation. Attributes that no probe
    reads are left out.
    """
    judge, rng = EdgeReader(), np.random.default_rng(seed)
    for name in probe_names.split("+"):
        if name not in RECIPES:
            raise UserError(
                f"a second judge learns from the set of a committed probe, but {name} is none: "
                f"choose from {', '.join(RECIPES)}"
            )
        recipe = RECIPES[name]
        if recipe.num_train:
            recipe = replace(recipe, num_train=JUDGE_TRAIN, num_test=JUDGE_TEST)
        train, test = (
            part.subset(np.sort(rng.permutation(len(part))[:most]))
            for part, most in (
                (load_part(recipe, recipe.splits[0]), JUDGE_TRAIN),
                (load_part(recipe, recipe.splits[2]), JUDGE_TEST),
            )
        )
        asked = [head.name for head in load_probe(name).config.heads if head.name in attributes]
        judge.fit(train.images_u8, {key: train.attributes[key] for key in asked})
        answers = judge.predict(test.images_u8)
        for key in asked:
            truth = test.attributes[key]
            if truth.dtype == np.bool_:
                judge.facts[key] = float(100 * ((answers[key] > 0.5) == truth).mean())
            else:
                judge.facts[key] = float(np.corrcoef(answers[key], truth)[0, 1])
    return judge


OVERLAY_SAMPLES = 6_000
OVERLAY_TESTS = 1_000
LEAST_FOUND, MOST_FALSE = 90, 10
"""Per cent: how many known overlays the instrument must find, and how many samples of less contrast
it may take for overlays, to be one."""


@dataclass(frozen=True, kw_only=True)
class OverlayInstrument:
    """Tell overlays from samples, with 5 % of samples taken for overlays."""

    reader: EdgeReader
    limit: float
    found: Mapping[str, Estimate]
    """Shares called overlays among held-out pictures, in %: see `overlay_instrument`."""

    def sees(self, images_u8: np.ndarray) -> np.ndarray:
        """Return which pictures look more like an overlay than 95 % of samples, bool."""
        return self.reader.predict(images_u8)["overlay"] > self.limit

    @property
    def passes(self) -> bool:
        """Whether it finds known overlays, by more than their contrast."""
        known, faded = self.found["sums of any three samples"], self.found["faded samples"]
        return known.value >= LEAST_FOUND and faded.value <= MOST_FALSE


def overlay_instrument(generator: AnyGenerator, seed: int) -> OverlayInstrument:
    """Fit an instrument to overlays of two samples, and test it on overlays that are known.

    The pictures that it is tested on are new samples of the generator: plain, faded (that must not
    look like an overlay), overlays of two, the same with the contrast of samples, and pixel sums of
    three groups of one or of three samples, chosen without regard to what they show.
    """
    z_nd = sample_latents(OVERLAY_SAMPLES + 4 * OVERLAY_TESTS, generator.config, seeded(seed))
    pictures_u8 = pictures_of(generator, z_nd.numpy())
    samples_u8, held_out_u8 = pictures_u8[:OVERLAY_SAMPLES], pictures_u8[OVERLAY_SAMPLES:]
    reader = fit_overlay_reader(samples_u8)
    plain_u8, others_u8 = held_out_u8[:OVERLAY_TESTS], held_out_u8[OVERLAY_TESTS:]
    limit = float(np.quantile(reader.predict(plain_u8)["overlay"], 1 - IMPLAUSIBLE_SHARE))
    groups = others_u8[: len(others_u8) // 9 * 9].reshape(-1, 3, 3, *others_u8.shape[1:])
    tests = {
        "faded samples": spread(plain_u8, samples_u8, 0.5**0.5),
        "overlays of two": overlays_of_two(others_u8),
        "overlays of two, contrast restored": overlays_of_two(others_u8, restored=True),
        "sums of any one sample": pixel_sums(groups[:, :, :1]),
        "sums of any three samples": pixel_sums(groups),
    }
    found = {
        name: _share(reader.predict(part_u8)["overlay"] > limit) for name, part_u8 in tests.items()
    }
    return OverlayInstrument(reader=reader, limit=limit, found=found)


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
    trials: int = 300
    """Sums to count, each with exemplars of its own."""
    pool: int = 8_000
    """Samples to choose from."""
    seed: int = 1
    """Of the samples and the choice."""
    out: Path = local(Path("arithmetic"))
    """Folder of the figures, picks.json and numbers.json."""
    record: str | None = None
    """Enter the claims about sums into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Draw, count, write, and record if asked."""
        named, from_file = any([self.a, self.b, self.c]), self.exemplars is not None
        if named + from_file + (self.record is not None) > 1:
            raise UserError(
                "exemplars chosen by hand are drawn, not counted: give --a, --b and --c, or "
                "--exemplars, or --record"
            )
        if not named and not from_file:
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
        if self.record:
            check_command(f"arithmetic.smile:{self.record}", self.command_line(), self.record)
        check_number(self, "trials", 2)
        check_number(self, "pool", 1)
        probe, generator = load_panel(known.probe), load_generator(self.checkpoint)
        networks = generator, probe, load_discriminator(self.checkpoint)
        attributes = {attribute for asked in known.sums.values() for attribute in asked.wanted}
        judge = fit_judge(known.probe, attributes)
        overlays = overlay_instrument(generator, self.seed + 1_000)
        how = {"trials": self.trials, "seed": self.seed}
        how["ahead"] = AHEAD if probe.reads("yaw") else None
        pool, picked = draw_pool(generator, probe, self.pool, self.seed), {}
        for name, asked in known.sums.items():
            chosen = pick(pool, asked.concepts, max(COUNTS), **how | {"trials": 1})
            picked[name] = chosen[0, :, :3].tolist()
        seen = measure_sums(*networks, pool, known.sums, judge=judge, overlays=overlays, **how)
        self._draw(generator, pool.z_nd, picked, self.seed)
        shares = shares_of(seen)
        about = {"checkpoint": self.checkpoint, "probe": known.probe, "pool": self.pool}
        found = {
            "settings": about | how,
            "unit": "%",
            "shares [value, low, high]": shares,
            "second judge, held out": judge.facts,
            "known overlays found": overlays.found,
        }
        write_json(self.out / "numbers.json", rounded(found, 2))
        for name, conditions in shares.items():
            for key, share in conditions.items():
                (value, low, high), odd = share["both"], share["implausible"].value
                row = f"{name:8} {key:12} {value:5.1f} % [{low:.1f}, {high:.1f}]"
                second = share["second"].value
                print(f"{row}  second judge {second:.1f} %  implausible {odd:.1f} %")
        if self.record:
            save_details(f"curves/arithmetic.{self.record}", rounded(found, 2))
            pose = "looking ahead" if how["ahead"] else "in any pose"
            record_sums(
                seen,
                self.record,
                f"Three exemplars {pose}, chosen and read by {known.probe}; {known.carried}.",
                judge,
                overlays,
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
        write_json(self.out / "picks.json", about | {"picked [A, B, C]": picked})
        print(f"figures and picks: {self.out}")


def measure_sums(
    generator: AnyGenerator,
    probe: Probe | Panel,
    discriminator: AnyDiscriminator,
    pool: Pool,
    sums: Mapping[str, Sum],
    *,
    judge: Reader,
    overlays: OverlayInstrument,
    **how: Any,
) -> Seen:
    """Judge every sum under every condition; the pool's first 2,000 say what is implausible.

    ``how`` holds trials, seed and ahead, as `pick` takes them.
    """
    plain = logits_of(discriminator, pictures_of(generator, pool.z_nd[:2_000]))
    limit = float(np.quantile(plain, IMPLAUSIBLE_SHARE))
    seen: Seen = {}
    for name, asked in sums.items():
        seen[name] = {}
        for key, pictures in _conditions(generator, pool, asked, **how):
            both, second = (shows(who.predict(pictures), asked.wanted) for who in (probe, judge))
            seen[name][key] = {
                "both": both,
                "implausible": logits_of(discriminator, pictures) < limit,
                "second": second,
                "agree": second == both,
                "overlay": overlays.sees(pictures),
            }
    return seen


def _conditions(
    generator: AnyGenerator, pool: Pool, asked: Sum, **how: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each condition's name and pictures; trial i always begins with the same exemplars."""
    most = max(COUNTS)
    z_t3kd = pool.z_nd[pick(pool, asked.concepts, most, **how)]
    sums = {f"{k}": add_up(z_t3kd[:, :, :k]) for k in COUNTS}
    sums |= {f"{k} rescaled": rescaled(sums[f"{k}"], generator.config) for k in (1, 3, 10)}
    if how["ahead"] is not None:
        anywhere = pool.z_nd[pick(pool, asked.concepts, most, **how | {"ahead": None})]
        sums |= {f"{k} any pose": add_up(anywhere[:, :, :k]) for k in (1, 3, 10)}
    sums["C alone"] = z_t3kd[:, 2, :3].mean(1)
    by_chance = pick(pool, ({}, {}), 3, **how | {"seed": how["seed"] + 1})
    sums["random"] = add_up(np.concatenate([pool.z_nd[by_chance], z_t3kd[:, 2:, :3]], 1))
    for name, y_td in sums.items():
        yield name, pictures_of(generator, y_td)
    pictures = pictures_of(generator, z_t3kd[:, :, :3])
    pictures = pictures.reshape(-1, 3, 3, *pictures.shape[1:])
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


AFTER_A_LOOK = Caveat(
    kind="exploratory",
    why="The rule was changed after a first count: a second judge, exemplars of any pose and an "
    "instrument for overlays were added.",
)


def record_sums(
    seen: Seen,
    set_name: str,
    who: str,
    judge: EdgeReader,
    overlays: OverlayInstrument,
    **about: Any,
) -> None:
    """Enter the claims of Fig. 7; ``who`` says who the exemplars are and who reads them."""
    about |= {"unit": "%", "data": f"{set_name}, generated"}
    scores = ", ".join(f"{key} {score:.1f} %" for key, score in judge.facts.items())
    gains, any_pose = {}, {}
    for name, found in seen.items():
        both = {key: what["both"] for key, what in found.items()}
        share, second = (_share(found["3"][key]) for key in ("both", "second"))
        by_chance = found["random"]["second"]
        gains[name] = _gain(both["3"], both["1"])
        if "3 any pose" in both:
            any_pose[name] = _gain(both["3 any pose"], both["1 any pose"])
        checks = {
            "more than half of the sums show both attributes": share.low > 50,
            "more do than with a random difference in place of A - B": (
                _gain(both["3"], both["random"]).low > 0
            ),
            "more than half do by a judge that took no part in the choice": second.low > 50,
            "more do than with a random difference, by that judge": (
                _gain(found["3"]["second"], by_chance).low > 0
            ),
        }
        others = (key for key in ("random", "C alone", "3 any pose") if key in both)
        other = ", ".join(f"{key} {_mean(both[key])}" for key in others)
        notes = (
            f"{who} Other conditions: {other}. By a second judge, linear on edge directions (held "
            f"out: {scores}): {second.value:.1f} % [{second.low:.1f}, {second.high:.1f}], random "
            f"{_mean(by_chance)}; the two agree on {_mean(found['3']['agree'])} of the sums."
        )
        row = {"n": len(both["3"]), "checks": checks, "notes": notes, "caveat": AFTER_A_LOOK}
        record(f"arithmetic.{name}:{set_name}", share, **row, **about)

    def hits(condition: str, what: str = "both") -> np.ndarray:
        """Join the trials of all sums."""
        return np.concatenate([found[condition][what] for found in seen.values()])

    calmer = _gain(hits("1", "implausible"), hits("3", "implausible"))
    by_second = _gain(hits("3", "second"), hits("1", "second"))
    more = "three succeed more often than one"
    checks = {f"{name}: {more}": gain.low > 0 for name, gain in gains.items()}
    checks |= {
        f"{name}, exemplars of any pose: {more}": gain.low > 0 for name, gain in any_pose.items()
    }
    checks["with three, fewer sums are implausible to the discriminator"] = calmer.low > 0
    pose = "that look ahead" if any_pose else "of any pose"
    notes = f"Points gained over one exemplar, with exemplars {pose}: {_listed(gains)}. "
    if any_pose:
        notes += f"With exemplars of any pose: {_listed(any_pose)}. "
    notes += (
        f"By the second judge: {_listed({'all sums': by_second})}. "
        "Implausible with one, not with three: "
        f"{calmer.value:.1f} points [{calmer.low:.1f}, {calmer.high:.1f}]."
    )
    about["n"] = len(hits("3"))
    row = {"checks": checks, "notes": notes}
    if any_pose:  # without a yaw the rule is the old one
        row["caveat"] = AFTER_A_LOOK
    gained = _gain(hits("3"), hits("1"))
    record(f"arithmetic.three-vs-one:{set_name}", gained, **row, **about)

    ghosts, works = _share(hits("3 pixels", "overlay")), overlays.passes
    fewer = _gain(hits("3 pixels", "overlay"), hits("3", "overlay"))
    checks = {
        "control: the instrument finds known overlays and is not misled by contrast": works,
        "most pixel sums look like overlays": works and ghosts.low > 50,
        "latent sums do so less often": works and fewer.low > 0,
        "the probe sees both attributes less often in pixel sums": (
            _gain(hits("3"), hits("3 pixels")).low > 0
        ),
    }
    tested = ", ".join(f"{name} {share.value:.1f} %" for name, share in overlays.found.items())

    def beside(what: str) -> str:
        return f"pixels {_mean(hits('3 pixels', what))}, latent {_mean(hits('3', what))}"

    notes = (
        "The value is the share of pixel sums that look more like an overlay than 95 % of samples, "
        "to a linear classifier on edge directions that learnt overlays of two; latent sums: "
        f"{_mean(hits('3', 'overlay'))}. Of held-out pictures it calls overlays: {tested}. "
        + ("" if works else "So there is no instrument. ")
        + f"Less real to the discriminator than 95 % of samples: {beside('implausible')}. "
        f"Both attributes, by the probe: {beside('both')}; by the second judge: "
        f"{beside('second')}."
    )
    row = {"checks": checks, "notes": notes, "caveat": AFTER_A_LOOK}
    record(f"arithmetic.pixels:{set_name}", ghosts, **row, **about)


def _gain(one_t: np.ndarray, other_t: np.ndarray) -> Estimate:
    """Return by how many points the first share exceeds the second, trial by trial."""
    return bootstrap_interval(np.mean, 100 * (one_t.astype(float) - other_t))


def _mean(hits_t: np.ndarray) -> str:
    return f"{100 * hits_t.mean():.1f} %"


def _listed(points: Mapping[str, Estimate]) -> str:
    return ", ".join(
        f"{name} {x.value:+.1f} [{x.low:+.1f}, {x.high:+.1f}]" for name, x in points.items()
    )


def load_facts(set_name: str, about: Literal["second judge, held out", "known overlays found"]):
    """Return what the judges were worth when ``dcgan arithmetic --record`` counted, in %."""
    return _load(set_name)[about]


def load_shares(set_name: str) -> Shares:
    """Return the shares that ``dcgan arithmetic --record`` kept."""
    return {
        name: {
            key: {what: Estimate(*x) for what, x in found.items()} for key, found in entries.items()
        }
        for name, entries in _load(set_name)["shares [value, low, high]"].items()
    }


def _load(set_name: str) -> dict[str, Any]:
    command = f"dcgan arithmetic CHECKPOINT --record {set_name}"
    return load_details(f"curves/arithmetic.{set_name}", command)


def curve(
    found: Mapping[str, Mapping[str, Estimate]], kind: str = ""
) -> list[tuple[int, float, float, float]]:
    """Return a sum's success against the number of exemplars, for `plotting.plot_bands`.

    ``kind`` is "" for plain latent sums, else "rescaled", "any pose" or "pixels".
    """
    keys = {k: f"{k} {kind}".strip() for k in COUNTS}
    return [(k, *found[key]["both"]) for k, key in keys.items() if key in found]


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
    """Folder of turn.png and numbers.json."""
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
        names = ("checkpoint", "probe", "pool", "least", "seed")
        settings = {name: getattr(self, name) for name in names}
        judge = fit_judge(self.probe, {"yaw"})
        found = {"settings": settings, "second judge, held out": judge.facts}
        found |= measure_turn(generator, probe, judge, z_nd, axes_nd, self.seed)
        write_json(self.out / "numbers.json", rounded(found, 4))
        for name in ("axis", "random"):
            for key, (value, low, high) in found[name]["line"].items():
                print(f"{name:7} {key:7} {value:.3f} [{low:.3f}, {high:.3f}]")
        print(f"figure and numbers: {self.out}")
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
    generator: AnyGenerator,
    probe: Probe,
    judge: Reader,
    z_nd: np.ndarray,
    axes_nd: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Read faces at each step along their turn axes, and along random ones of the same lengths.

    ``steps``; for "axis" and "random" the straight ``line`` of the yaw (see `summarise`), its mean
    at each step (``yaw``), the share of faces, in %, that each yes-or-no attribute ``flips`` in
    until the last step, and by how much each other number ``changes`` until then: its mean absolute
    change. ``second`` is the yaw's line by a judge that took no part in the choice. Estimates are
    value, low, high. The seed is that of the random axes.
    """
    yes_or_no = [head.name for head in probe.config.heads if head.kind == "boolean"]
    numbers = [head.name for head in probe.config.heads if head.kind == "continuous"]
    found: dict[str, Any] = {"steps": STEPS.round(3).tolist()}

    for name, axes in (("axis", axes_nd), ("random", random_axes(axes_nd, seed))):
        read, other = read_along(generator, (probe, judge), z_nd, axes)
        found[name] = {
            "line": summarise(read["yaw"]),
            "yaw": [bootstrap_interval(np.mean, column) for column in read["yaw"].T],
            "flips": rounded({key: flips(read[key], -1).scaled(100) for key in yes_or_no}, 2),
            "changes": {
                key: bootstrap_interval(
                    np.mean, np.abs(read[key][:, -1] - read[key][:, len(STEPS) // 2])
                )
                for key in numbers
                if key != "yaw"
            },
            "second": summarise(other["yaw"]),
        }
    return found


def record_turn(found: dict[str, Any], set_name: str, *, n: int, **about: Any) -> None:
    """Enter the mean R2 of a straight line into the ledger; ``about`` is the rest of the row."""
    axis, random = found["axis"], found["random"]
    (slope, r2, rising), chance = axis["line"].values(), random["line"]
    checks = {
        f"the yaw rises along the axis for {LEAST_RISING:.0%} of faces": (
            rising.low >= LEAST_RISING
        ),
        f"a straight line explains {LEAST_R2:.0%} of a face's yaw on average": r2.low >= LEAST_R2,
        "the yaw moves, and along a random axis of the same length it does not": (
            slope.low > chance["slope"].high
        ),
    }
    second = axis["second"]
    notes = (
        f"R2 of a straight line against the step, mean over faces; slope {slope.value:.2f} "
        f"[{slope.low:.2f}, {slope.high:.2f}] yaw an axis; rising {rising.value:.1%}; mean yaw "
        f"from {axis['yaw'][0].value:.2f} to {axis['yaw'][-1].value:.2f}; along a random axis: "
        f"slope {chance['slope'].value:.2f}, R2 {chance['r2'].value:.2f}. By a second judge, "
        f"linear on edge directions: slope {second['slope'].value:.2f}, R2 "
        f"{second['r2'].value:.2f}, rising {second['rising'].value:.1%}."
    )
    for name, change in axis["changes"].items():
        notes += (
            f" Mean absolute change of {name} until the last step: {change.value:.3f}, along a "
            f"random axis {random['changes'][name].value:.3f}."
        )
    about |= {"unit": "", "n": n, "data": f"{set_name}, generated"}
    record(f"turn.linear:{set_name}", r2, checks=checks, notes=notes, **about)


def load_turn(set_name: str) -> dict[str, Any]:
    """Return what ``dcgan turn --record`` kept; see `measure_turn`."""
    return load_details(f"curves/turn.{set_name}", f"dcgan turn CHECKPOINT --record {set_name}")


def yaw_curve(turned: dict[str, Any], name: str) -> list[tuple[float, float, float, float]]:
    """Return the mean yaw at each step along the "axis" or a "random" one, for `plot_bands`."""
    return [(step, *yaw) for step, yaw in zip(turned["steps"], turned[name]["yaw"], strict=True)]
