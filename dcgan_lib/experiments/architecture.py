"""The rules of the paper's sections 3 and 4, each broken alone, and what that does to training.

`RULES` lists them. One run trains one pair by one rule from one seed, and everything else is as in
the recipe, the random numbers included: so a rule is compared with the recipe seed by seed. The
generator is kept at a dozen points of a run; `short_runs` trains and measures one run.

What is measured: the distance to held-out images after a third of the steps and at the end;
collapse, as modes lost and as diversity; divergence; oscillation, of the distance over the last
third and of the losses; how much of the images' colours is reached.

Axes: n images, f features; ``*_u8`` images n x c x h x w, 0..255.
"""

import dataclasses
import html
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import linregress
from torch import Tensor

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import ModelConfig, TrainConfig, replace
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import HeldElsewhereError, UserError, require
from dcgan_lib.evaluation.features import RULER
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    has_details,
    id_on,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval
from dcgan_lib.experiments.short_runs import (
    LINE,
    SIDE,
    Trained,
    Yardstick,
    draw_pictures,
    find_flags,
    find_trained,
    finished_runs,
    is_finished,
    keep_trained,
    kept_seeds,
    last_third,
    measure_look,
    open_set,
    share_troubled,
    train_run,
)
from dcgan_lib.models.ablations import Ablation, describe_pair, new_pair
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.sampling import (
    write_grid,
)
from dcgan_lib.paths import exclusive
from dcgan_lib.plotting import Compared

# ---------------------------------------------------------------- the rules


@dataclass(frozen=True, kw_only=True)
class Change:
    """Say what a run does otherwise than the paper's recipe."""

    words: str
    """For figures and tables."""
    claim: str | None = None
    """The claim of the ledger that it bears on; None: a choice that the paper does not argue."""
    ablation: Ablation = field(default_factory=Ablation)
    """What is broken in the networks."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`."""
    run: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    constant_z: bool = False
    """Feed the generator one latent vector over and over."""
    planted: bool = False
    """Broken on purpose, and so badly that the measures must see it."""

    def new_pair(self, model: ModelConfig) -> tuple[Generator, Discriminator]:
        """Return the untrained networks, with what is broken in them."""
        return new_pair(model, self.ablation)


RULES: dict[str, Change] = {
    "recipe": Change(words="the paper's recipe", claim="arch.stable"),
    "max-pooling": Change(
        words="max pooling in D, nearest upsampling in G",
        claim="arch.strided",
        ablation=Ablation(resampling="max pooling"),
    ),
    "average-pooling": Change(
        words="average pooling in D, nearest upsampling in G",
        claim="arch.strided",
        ablation=Ablation(resampling="average pooling"),
    ),
    "global-pooling": Change(
        words="global average pooling before D's output",
        claim="arch.gap",
        ablation=Ablation(head="global average pooling"),
    ),
    "hidden-dense": Change(
        words="a hidden dense layer of 512 units in both networks",
        claim="arch.fc",
        model={"hidden_units": 512},
    ),
    "no-batch-norm": Change(
        words="no batch norm, weights from N(0, 0.02)",
        claim="arch.bn",
        ablation=Ablation(batch_norm="nowhere"),
    ),
    "no-batch-norm-he": Change(
        words="no batch norm, weights scaled to their inputs (He)",
        claim="arch.bn",
        ablation=Ablation(batch_norm="nowhere", weights="He"),
    ),
    "batch-norm-everywhere": Change(
        words="batch norm also on G's output and D's input layer",
        claim="arch.bn-everywhere",
        ablation=Ablation(batch_norm="everywhere"),
    ),
    "batch-norm-g-output": Change(
        words="batch norm also on G's output",
        claim="arch.bn-everywhere",
        ablation=Ablation(batch_norm="G's output"),
    ),
    "batch-norm-d-input": Change(
        words="batch norm also on D's input layer",
        claim="arch.bn-everywhere",
        ablation=Ablation(batch_norm="D's input"),
    ),
    "unbounded": Change(
        words="no tanh on G's output",
        claim="arch.tanh",
        ablation=Ablation(g_output="unbounded"),
    ),
    "d-relu": Change(words="ReLU in D", claim="arch.leaky", model={"leaky_slope": 0.0}),
    "d-maxout": Change(
        words="maxout in D, with twice the maps",
        claim="arch.leaky",
        ablation=Ablation(d_activation="maxout"),
    ),
    "g-leaky": Change(words="LeakyReLU in G", ablation=Ablation(g_activation="leaky relu")),
    "g-tanh": Change(words="tanh in all of G", ablation=Ablation(g_activation="tanh")),
    "kernel-3": Change(words="kernels of 3", model={"kernel_size": 3}),
    "kernel-4": Change(words="kernels of 4", model={"kernel_size": 4}),
    "weights-pytorch": Change(
        words="PyTorch's default weights", ablation=Ablation(weights="PyTorch")
    ),
    "weights-wide": Change(words="weights from N(0, 0.2)", ablation=Ablation(weights="N(0, 0.2)")),
    "beta1-0.9": Change(words="Adam's beta1 0.9", claim="train.beta1", run={"beta1": 0.9}),
    "rate-1e-3": Change(words="learning rate 1e-3", claim="train.lr", run={"learning_rate": 1e-3}),
    "rate-5e-5": Change(words="learning rate 5e-5", claim="train.lr", run={"learning_rate": 5e-5}),
    "no-weight-decay": Change(words="no weight decay", run={"weight_decay": 0.0}),
    "normal-z": Change(words="z from N(0, 1)", model={"z_distribution": "normal"}),
    "rate-2e-2": Change(words="learning rate 2e-2", run={"learning_rate": 2e-2}),
    "planted-rate": Change(
        words="learning rate 0.5, a planted failure", run={"learning_rate": 0.5}, planted=True
    ),
    "planted-constant": Change(
        words="one z for every image, a planted failure", constant_z=True, planted=True
    ),
}
"""Every rule by name. The recipe comes first; planted failures test the measures."""

RECIPE = "recipe"

GROUPS: dict[str, tuple[str, ...]] = {
    "1. strides, not pooling": ("max-pooling", "average-pooling"),
    "2. batch norm, but not at the two ends": (
        "no-batch-norm",
        "no-batch-norm-he",
        "batch-norm-everywhere",
        "batch-norm-g-output",
        "batch-norm-d-input",
    ),
    "3. no hidden dense layers": ("hidden-dense", "global-pooling"),
    "4. ReLU in G, tanh at its output": ("g-leaky", "g-tanh", "unbounded"),
    "5. LeakyReLU in D": ("d-relu", "d-maxout"),
    "section 4: first weights and optimiser": (
        "weights-pytorch",
        "weights-wide",
        "beta1-0.9",
        "rate-1e-3",
        "rate-5e-5",
        "rate-2e-2",
        "no-weight-decay",
    ),
    "choices that the paper does not argue": ("kernel-3", "kernel-4", "normal-z"),
    "planted failures": ("planted-rate", "planted-constant"),
}
"""Every rule but the recipe, by the guideline of section 3 that it breaks, for figures."""

SETS = ("cifar10", "street-digits", "mnist", "faces64", "bedrooms64", "rooms", "portraits")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what all runs of a table share; kept with each, so that no two kinds are mixed."""

    set: str
    steps: int
    base_width: int
    batch_size: int
    precision: str


def run_config(change: Change, settings: Settings, seed: int, channels: int) -> TrainConfig:
    """Return the configuration of one run: the recipe's but for the change.

    Notes
    -----
    One minibatch updates D, then G, on the same generated images: that is a third cheaper for each
    pair of updates than the authors' alternation, and a table of ablations lives on many updates.
    """
    model = ModelConfig(
        image_size=(SIDE, SIDE), num_channels=channels, base_width=settings.base_width
    )
    config = TrainConfig(
        model=replace(model, **change.model),
        batch_size=settings.batch_size,
        steps=settings.steps,
        precision=settings.precision,
        schedule="same_batch",
        seed=seed,
    )
    return replace(config, **change.run)


# ---------------------------------------------------------------- training

LOOKS = (0, 1, 2, 3, 6, 12, 13, 14, 15, 16, 17, 18)
"""When the generator is kept, in eighteenths of the steps: untrained, early, after a third, and
seven times over the last third."""
THIRD, END, LAST_THIRD = 6, 18, 12


def train_one(
    change: Change, config: TrainConfig, image_set: ImageSet, device: str = "cpu"
) -> Trained:
    """Train one pair by a rule; see `short_runs.train_run`."""
    due = {round(config.steps * look / END): look for look in LOOKS}
    return train_run(
        config, image_set, due, change.new_pair, constant_z=change.constant_z, device=device
    )


# ---------------------------------------------------------------- measuring a run


def measure_run(
    change: Change,
    config: TrainConfig,
    trained: Trained,
    yardstick: Yardstick,
) -> dict[str, Any]:
    """Measure every look of a run, and return plain values.

    A run that ended early is measured where it was last sound.

    Returns
    -------
    dict
        ``looks``: for each look its ``step``, ``distance``, ``low``, ``high``, ``lost``,
        ``diversity``, ``colours`` and, with a probe, ``classes_lost``. ``measures``: the run's
        numbers, by the keys of `MEASURES`.
        ``flags``: what went wrong, in words; empty for a sound run.
    """
    looks = []
    for look in LOOKS:
        if look not in trained.weights:
            continue
        num = yardstick.num_images // (1 if look in (THIRD, END) else 2)
        pictures_u8 = draw_by_rule(change, config, trained.weights[look], num)
        place = {"look": look, "step": round(config.steps * look / END)}
        looks.append(place | measure_look(pictures_u8, yardstick))
    measures = summarise_run(looks, trained.windows, config.steps)
    return {
        "looks": looks,
        "measures": measures,
        "flags": find_flags(measures, looks[-1].get("classes_lost", 0.0), trained.stopped),
    }


def draw_by_rule(
    change: Change, config: TrainConfig, weights: dict[str, Tensor], num: int
) -> np.ndarray:
    """Draw pictures of a rule's generator; see `short_runs.draw_pictures`."""
    return draw_pictures(config, weights, num, change.new_pair, constant_z=change.constant_z)


MEASURES = {
    "distance_third": "distance after a third of the steps",
    "distance": "distance at the end",
    "lost": "share of the modes lost at the end",
    "diversity": "diversity at the end, real images 1",
    "swing": "oscillation of the distance over the last third",
    "d_loss_swing": "oscillation of D's loss over the last third",
    "g_loss_swing": "oscillation of G's loss over the last third",
    "colours_early": "share of the colours reached, mean of the first looks",
    "colours": "share of the colours reached at the end",
    "troubled": "share of the last third in which the losses are out of bounds",
}
"""Numbers of a run. Oscillation is a standard deviation, about a line for the distance, which is
still falling, and of means over `WINDOW` steps for the losses."""


def summarise_run(
    looks: list[dict[str, float]], windows: list[dict[str, float]], steps: int
) -> dict[str, float | None]:
    """Return a run's numbers from its looks and its losses.

    Oscillations are None for a run that ended before its last third.
    """
    last = looks[-1]
    third = [look for look in looks if look["look"] <= THIRD][-1]
    early = [look for look in looks if 0 < look["look"] < THIRD] or looks[:1]
    late = [look for look in looks if look["look"] >= LAST_THIRD]
    ending = last_third(windows, steps)
    swing = d_loss_swing = g_loss_swing = None
    if len(late) > 2 and len(ending) > 1:
        x, y = (np.array([look[name] for look in late]) for name in ("step", "distance"))
        line = linregress(x, y)
        swing = float(np.std(y - line.intercept - line.slope * x, ddof=2))
        d_loss_swing = float(np.std([line["d_loss"] for line in ending]))
        g_loss_swing = float(np.std([line["g_loss"] for line in ending]))
    found = {
        "distance_third": third["distance"],
        "distance": last["distance"],
        "lost": last["lost"],
        "diversity": last["diversity"],
        "swing": swing,
        "d_loss_swing": d_loss_swing,
        "g_loss_swing": g_loss_swing,
        "colours_early": float(np.mean([look["colours"] for look in early])),
        "colours": last["colours"],
        "troubled": share_troubled(windows, steps),
    }
    return {name: None if value is None else float(f"{value:.5g}") for name, value in found.items()}


# ---------------------------------------------------------------- the command


@dataclass(frozen=True, kw_only=True)
class Ablate(Command, verb="ablate"):
    """Break the paper's rules one at a time, and measure what each does to training.

    A run that was cut off begins again; finished ones are kept. Several processes may work on one
    table: each takes the runs that no other has begun.

    Width 16 and batches of 32 take 18 ms a step on one core in bfloat16, so 5,000 steps take a
    minute and a half: a small network, but updated often enough to part what works from what does
    not. In a trial of 3,000 such steps on CIFAR-10 the recipe's KID fell from 2.6 to 0.21, and
    that of a learning rate of 2e-2 stayed at 0.69.
    """

    set: str = "street-digits"
    """Image set, brought to 32x32."""
    rules: tuple[str, ...] = ()
    """Which rules, by name; unset: all of them."""
    seeds: int = 3
    """Runs of each rule."""
    steps: int = 5_000
    """Minibatches of a run, each an update of D and one of G."""
    base_width: int = 16
    """Feature maps at the finest resolution."""
    batch_size: int = 32
    """Images in a minibatch."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the training."""
    features: str = RULER
    """What distances and diversity are measured in. Finished trainings are measured again,
    not trained again."""
    num_images: int = 1_000
    """Held-out images, and samples, at the two points that are measured in full."""
    device: Device = local("cpu")
    """Where to train."""
    threads: int = local(1)
    """CPU threads."""
    out: Path = local(Path("runs/ablations"))
    """Where the generators and grids of samples are kept."""
    again: bool = local(False)
    """Train and measure anew what is finished."""
    record: bool = False
    """Write the claims that the rules bear on to the ledger, once all their runs are there."""

    def run(self) -> None:
        """Train what is missing, print the table, and record if asked."""
        for name in self.rules:
            require(name in RULES, "each of --rules", name, f"one of {', '.join(RULES)}")
        chosen = (RECIPE, *(name for name in self.rules or RULES if name != RECIPE))
        least = 2 if self.record else 1
        require(self.seeds >= least, "seeds", self.seeds, f"at least {least}")
        require(self.threads >= 1, "threads", self.threads, "at least 1")
        torch.set_num_threads(self.threads)
        train, yardstick = open_set(self.set, self.features, self.num_images)
        settings = Settings(
            set=train.name,
            steps=self.steps,
            base_width=self.base_width,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        for seed in range(self.seeds):
            for name in chosen:
                self._one(name, seed, settings, train, yardstick)
        runs = load_runs(settings, yardstick)
        print(summary_text(summary(runs)))
        if self.record:
            kept = finished_runs(runs, chosen, self.seeds)
            record_claims(kept, settings, self.command_line())

    def _one(
        self, name: str, seed: int, settings: Settings, train: ImageSet, yardstick: Yardstick
    ) -> None:
        place = details_name(settings, name, seed)
        folder = self.out / settings.set / f"{name}-{seed}"
        try:
            with exclusive(folder / "run.json", wait=False):
                if not self.again and is_finished(
                    place, dataclasses.asdict(settings), yardstick, "dcgan ablate"
                ):
                    return
                content = self._train_and_measure(name, seed, settings, train, yardstick, folder)
                save_details(place, content)
        except HeldElsewhereError:
            print(f"{name}, seed {seed}: another process has begun it", flush=True)
            return
        measures, flags = content["measures"], "; ".join(content["flags"])
        print(
            f"{name}, seed {seed}: distance {measures['distance']:.4f}, "
            f"diversity {measures['diversity']:.2f}, {content['seconds']:.0f} s  {flags}",
            flush=True,
        )

    def _train_and_measure(
        self,
        name: str,
        seed: int,
        settings: Settings,
        train: ImageSet,
        yardstick: Yardstick,
        folder: Path,
    ) -> dict[str, Any]:
        change = RULES[name]
        config = run_config(change, settings, seed, train.num_channels)
        trained = None if self.again else find_trained(folder, config)
        if trained is None:
            trained = train_one(change, config, train, self.device)
            keep_trained(folder, trained, config)
        for look in (THIRD, END):
            if look in trained.weights:
                pictures_u8 = draw_by_rule(change, config, trained.weights[look], 64)
                write_grid(folder / f"look-{look:02}.png", pictures_u8)
        begun = time.perf_counter()
        found = measure_run(change, config, trained, yardstick)
        return {
            "rule": name,
            "seed": seed,
            "settings": dataclasses.asdict(settings),
            "features": yardstick.features.name,
            "num_images": yardstick.num_images,
            "stopped": trained.stopped,
            "seconds": round(trained.seconds + time.perf_counter() - begun, 1),
            "training_seconds": round(trained.seconds, 1),
            **found,
            "losses": [[line[name] for name in LINE] for line in trained.windows],
        }


# ---------------------------------------------------------------- what is kept


def details_name(settings: Settings, rule: str, seed: int) -> str:
    """Return the name under which the ledger keeps a run."""
    return f"ablations/{settings.set}/{rule}-{seed}"


def load_runs(settings: Settings, yardstick: Yardstick) -> dict[tuple[str, int], dict[str, Any]]:
    """Return every run of a table that was made and measured in one way, by rule and seed."""
    return _kept_like(settings, yardstick.features.name, yardstick.num_images)


def kept_runs(set_name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return a set's runs that were made and measured as the recipe's first; none without it.

    Needs neither the images nor the features: it only reads what the ledger keeps.
    """
    first = f"ablations/{set_name}/{RECIPE}-0"
    if not has_details(first):
        return {}
    kept = load_details(first, "dcgan ablate")
    return _kept_like(Settings(**kept["settings"]), kept["features"], kept["num_images"])


def settings_of(runs: dict[tuple[str, int], dict[str, Any]]) -> Settings:
    """Return what all runs of a table share."""
    return Settings(**next(iter(runs.values()))["settings"])


def _kept_like(
    settings: Settings, features: str, num_images: int
) -> dict[tuple[str, int], dict[str, Any]]:
    measured = features, num_images
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for rule in RULES:
        for seed in kept_seeds(f"ablations/{settings.set}/{rule}"):
            kept = load_details(details_name(settings, rule, seed), "dcgan ablate")
            found = kept["features"], kept["num_images"]
            if kept["settings"] == dataclasses.asdict(settings) and found == measured:
                runs[rule, seed] = kept
    return runs


# ---------------------------------------------------------------- over the seeds


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Hold a rule's measure over the seeds, and its difference to the recipe."""

    rule: str
    measure: str
    mean: Estimate
    """Over the seeds, by Student's t."""
    difference: Estimate
    """Rule minus recipe, the mean over pairs of equal seed."""
    seeds: int

    @property
    def differs(self) -> bool:
        """Tell whether the interval of the paired difference leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold a rule's line of the table."""

    rule: str
    effects: dict[str, Effect | None]
    """By the keys of `MEASURES`; None where runs ended too soon to have the measure."""
    flagged: int
    """Seeds on which something went wrong; see `is_flagged`."""
    seeds: int


def summary(runs: dict[tuple[str, int], dict[str, Any]]) -> list[Row]:
    """Return each rule's means over the seeds, and how it differs from the recipe, seed by seed.

    A rule differs where the 95 % interval of the paired difference leaves out 0. With three seeds
    that interval is wide, so only plain effects are called differences. Rules of fewer than two
    seeds are left out.
    """
    rows = []
    for rule in RULES:
        seeds = [seed for name, seed in runs if name == rule and (RECIPE, seed) in runs]
        if len(seeds) < 2:
            continue
        effects = {name: _effect(runs, rule, name, seeds) for name in MEASURES}
        flagged = sum(is_flagged(runs, rule, seed) for seed in seeds)
        rows.append(Row(rule=rule, effects=effects, flagged=flagged, seeds=len(seeds)))
    return rows


FAR = 3.0


def is_flagged(runs: dict[tuple[str, int], dict[str, Any]], rule: str, seed: int) -> bool:
    """Tell whether a run diverged, collapsed, or ended far off.

    Far is three times the distance of the recipe's run of the same seed: a bound that holds for
    whatever features. The recipe itself is judged by the other two.
    """
    distance, usual = (runs[name, seed]["measures"]["distance"] for name in (rule, RECIPE))
    return bool(runs[rule, seed]["flags"]) or distance > FAR * max(usual, 0.0)


def _effect(runs: dict, rule: str, measure: str, seeds: list[int]) -> Effect | None:
    pairs = [[runs[name, seed]["measures"][measure] for name in (rule, RECIPE)] for seed in seeds]
    pairs = [pair for pair in pairs if None not in pair]
    if len(pairs) < 2:
        return None
    values, usual = np.array(pairs).T
    return Effect(
        rule=rule,
        measure=measure,
        mean=mean_interval(values),
        difference=mean_interval(values - usual),
        seeds=len(pairs),
    )


SHOWN = {
    "distance_third": "after a third",
    "distance": "at the end",
    "swing": "oscillation",
    "lost": "modes lost",
    "diversity": "diversity",
    "colours_early": "colours early",
}
"""Measures of the table, and the heads of their columns."""


def summary_text(rows: list[Row]) -> str:
    """Lay the table out as text; a star marks what differs from the recipe."""
    lines = [
        "Means over the seeds, with half of the 95 % interval; * differs from the recipe, seed by "
        'seed. "After a third" and "at the end" are distances.',
        "".join([f"{'rule':24}", *(f"{words:>15}" for words in SHOWN.values()), "  flagged"]),
    ]
    for row in rows:
        cells = []
        for name in SHOWN:
            effect = row.effects[name]
            if effect is None:
                cells.append(f"{'-':>15}")
                continue
            star = "*" if effect.differs else " "
            half = effect.mean.high - effect.mean.value
            cells.append(f"{effect.mean.value:.3f} ±{half:.3f}{star}".rjust(15))
        lines.append("".join([f"{row.rule:24}", *cells, f"  {row.flagged} of {row.seeds}"]))
    return "\n".join(lines)


# ---------------------------------------------------------------- for the chapter


Outcome = Literal["worse", "better", "no difference shown", "too few runs"]


def outcome(effect: Effect | None) -> Outcome:
    """Say what a rule did to a distance: worse where the whole paired interval lies above 0."""
    if effect is None:
        return "too few runs"
    if not effect.differs:
        return "no difference shown"
    return "worse" if effect.difference.low > 0 else "better"


def sort_rules(tables: dict[str, list[Row]], measure: str = "distance") -> dict[str, list[str]]:
    """Sort the rules, planted failures aside, by what they did to a distance on each set.

    Returns
    -------
    dict
        From an outcome in words, "worse on cifar10; no difference shown on digits" say, to the
        rules' words; worse on most sets first.
    """
    found: dict[tuple[Outcome, ...], list[str]] = {}
    for rule, change in RULES.items():
        if rule == RECIPE or change.planted:
            continue
        effects = (find_effect(rows, rule, measure) for rows in tables.values())
        found.setdefault(tuple(map(outcome, effects)), []).append(change.words)
    order = sorted(found, key=lambda each: (each.count("better") - each.count("worse"), each))
    return {_in_words(each, list(tables)): found[each] for each in order}


def find_effect(rows: list[Row], rule: str, measure: str) -> Effect | None:
    """Return a rule's effect; None where the rule has no row, or the row not the measure."""
    return next((row.effects[measure] for row in rows if row.rule == rule), None)


def _in_words(outcomes: tuple[Outcome, ...], sets: list[str]) -> str:
    parts = []
    for each in dict.fromkeys(outcomes):
        where = [name for name, found in zip(sets, outcomes, strict=True) if found == each]
        parts.append(f"{each} on {' and '.join(where)}")
    return "; ".join(parts)


def differences_table(rows: list[Row]) -> str:
    """Lay out in Markdown where rules differ from the recipe, and which had runs flagged.

    The recipe's line gives every mean; another rule's only those whose paired difference leaves
    out 0. Rules without any are named below the table.
    """
    lines = [" | ".join(["rule", *SHOWN.values(), "flagged"])]
    lines.append(" | ".join(["---"] * (len(SHOWN) + 2)))
    same = []
    for row in rows:
        words = RULES[row.rule].words
        differs = any(row.effects[name] and row.effects[name].differs for name in SHOWN)
        if not (differs or row.flagged or row.rule == RECIPE):
            same.append(words)
            continue
        cells = []
        for name in SHOWN:
            effect = row.effects[name]
            if effect is None or not (effect.differs or row.rule == RECIPE):
                cells.append("")
                continue
            sign = "▲" if effect.difference.low > 0 else "▼"
            sign = f"{sign} " if effect.differs else ""
            cells.append(f"{sign}{effect.mean.value:.2f}")
        flagged = f"{row.flagged} of {row.seeds}" if row.flagged else ""
        lines.append(" | ".join([words, *cells, flagged]))
    if same:
        lines.append(f"\nNo difference shown in any measure, no run flagged: {'; '.join(same)}.")
    return "\n".join(lines)


def count_flagged(
    runs: dict[tuple[str, int], dict[str, Any]], rules: Iterable[str]
) -> tuple[int, int]:
    """Return how many runs of these rules are flagged, and how many there are to compare."""
    there = [(rule, seed) for rule, seed in runs if rule in set(rules) and (RECIPE, seed) in runs]
    return sum(is_flagged(runs, rule, seed) for rule, seed in there), len(there)


def compared_with_recipe(runs: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Compared]:
    """Return each rule's distances for `dcgan_lib.plotting.plot_compared`, by the rule's words.

    All are multiples of the recipe's mean over the same seeds: the distance at the end of each
    seed, the paired difference's interval about 1, and the mean distance after a third over the
    recipe's after a third. A rule of one seed has no interval.
    """
    rows = {row.rule: row for row in summary(runs)}
    found = {}
    for rule, change in RULES.items():
        seeds = [seed for name, seed in runs if name == rule and (RECIPE, seed) in runs]
        if not seeds:
            continue
        measured = {}
        for name in ("distance", "distance_third"):
            pairs = [
                [runs[each, seed]["measures"][name] for each in (rule, RECIPE)] for seed in seeds
            ]
            values, usual = np.array(pairs).T
            measured[name] = values / usual.mean(), usual.mean()
        ends, usual = measured["distance"]
        interval, note = None, ""
        if rule in rows and rule != RECIPE:
            effect = rows[rule].effects["distance"]
            interval = tuple(1 + bound / usual for bound in effect.difference[1:])
            note = "" if outcome(effect) == "no difference shown" else outcome(effect)
        flagged = count_flagged(runs, [rule])[0]
        if flagged:
            note = ", ".join(filter(None, [note, f"{flagged} flagged"]))
        found[change.words] = Compared(
            points=tuple(map(float, ends)),
            interval=interval,
            early=float(measured["distance_third"][0].mean()),
            note=note,
        )
    return found


def rule_page(rule: str, tables: dict[str, list[Row]], settings: Settings) -> str:
    """Return a page of HTML: a rule's networks, layer by layer, and its rows beside the recipe's.

    ``tables`` has a summary for each set; the networks are those for images of three colours.
    """
    change = RULES[rule]
    parts = [f"<p><b>{html.escape(change.words)}</b></p>"]
    totals = {}
    for each in dict.fromkeys((RECIPE, rule)):
        config = run_config(RULES[each], settings, 0, 3)
        totals[each] = describe_pair(config.model, RULES[each].ablation)
    for network in ("generator", "discriminator"):
        layers = totals[rule][network]
        last = "one cell changes" if network == "generator" else "one cell sees"
        lines = [
            (layer.name, layer.shape, f"{layer.weights:,}", f"{layer.field} × {layer.field}")
            for layer in layers
        ]
        parts.append(_html_table((network, "gives", "weights", last), lines))
        for what in ("weights", "multiplications"):
            mine, usual = (
                sum(getattr(layer, what) for layer in totals[each][network])
                for each in (rule, RECIPE)
            )
            beside = "" if mine == usual else f" (the recipe {usual:,})"
            parts.append(f"{what}: {mine:,}{beside}<br>")
    lines = []
    for name, table in tables.items():
        rows = {row.rule: row for row in table}
        for each in dict.fromkeys((RECIPE, rule)):
            which = "the recipe" if each == RECIPE else "this rule"
            lines.append((f"{name}, {which}", *_measured_cells(rows.get(each))))
    heads = ("measured", "distance at the end", "rule minus recipe", "flagged")
    parts.append(_html_table(heads, lines))
    return '<div style="line-height: 1.5">' + "\n".join(parts) + "</div>"


def _measured_cells(row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return "too few runs", "", ""
    effect = row.effects["distance"]
    mean = f"{effect.mean.value:.2f}"
    value, low, high = effect.difference
    between = f"{value:+.2f} ({low:+.2f} to {high:+.2f})" if row.rule != RECIPE else ""
    return mean, between, f"{row.flagged} of {row.seeds}"


def _html_table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    style = ' style="padding: 0.1em 0.9em 0.1em 0; text-align: left"'
    rows = ["".join(f"<th{style}>{html.escape(head)}</th>" for head in heads)]
    rows += ["".join(f"<td{style}>{html.escape(cell)}</td>" for cell in line) for line in lines]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table style="margin: 0.5em 0">{body}</table>'


# ---------------------------------------------------------------- the claims


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Say what the paper leads one to expect of a broken rule, compared with the recipe."""

    rule: str
    measure: str
    direction: Literal["higher", "lower"]
    words: str

    def holds(self, effect: Effect | None) -> bool:
        """Tell whether the paired difference lies wholly on the expected side of 0."""
        if effect is None:
            return False
        if self.direction == "higher":
            return effect.difference.low > 0
        return effect.difference.high < 0


EXPECTATIONS: dict[str, tuple[Expectation, ...]] = {
    "arch.strided": (
        Expectation(
            rule="max-pooling",
            measure="distance",
            direction="higher",
            words="with max pooling and upsampling the distance is larger",
        ),
        Expectation(
            rule="average-pooling",
            measure="distance",
            direction="higher",
            words="with average pooling and upsampling the distance is larger",
        ),
    ),
    "arch.gap": (
        Expectation(
            rule="global-pooling",
            measure="distance_third",
            direction="higher",
            words="with global average pooling the distance after a third is larger",
        ),
        Expectation(
            rule="global-pooling",
            measure="swing",
            direction="lower",
            words="with global average pooling the distance oscillates less",
        ),
    ),
    "arch.fc": (
        Expectation(
            rule="hidden-dense",
            measure="distance",
            direction="higher",
            words="with a hidden dense layer the distance is larger",
        ),
    ),
    "arch.bn": (
        Expectation(
            rule="no-batch-norm",
            measure="distance",
            direction="higher",
            words="without batch norm the distance is larger",
        ),
        Expectation(
            rule="no-batch-norm",
            measure="diversity",
            direction="lower",
            words="without batch norm the samples are less diverse",
        ),
        Expectation(
            rule="no-batch-norm-he",
            measure="diversity",
            direction="lower",
            words="so they are with weights scaled to their inputs",
        ),
    ),
    "arch.bn-everywhere": (
        Expectation(
            rule="batch-norm-everywhere",
            measure="swing",
            direction="higher",
            words="with batch norm everywhere the distance oscillates more",
        ),
        Expectation(
            rule="batch-norm-everywhere",
            measure="distance",
            direction="higher",
            words="with batch norm everywhere the distance is larger",
        ),
    ),
    "arch.tanh": (
        Expectation(
            rule="unbounded",
            measure="colours_early",
            direction="lower",
            words="without tanh fewer of the colours are reached early",
        ),
    ),
    "arch.leaky": (
        Expectation(
            rule="d-relu",
            measure="distance",
            direction="higher",
            words="with ReLU in D the distance is larger",
        ),
        Expectation(
            rule="d-maxout",
            measure="distance",
            direction="higher",
            words="with maxout in D the distance is larger",
        ),
    ),
    "train.beta1": (
        Expectation(
            rule="beta1-0.9",
            measure="swing",
            direction="higher",
            words="with beta1 0.9 the distance oscillates more",
        ),
        Expectation(
            rule="beta1-0.9",
            measure="d_loss_swing",
            direction="higher",
            words="with beta1 0.9 the loss of D oscillates more",
        ),
    ),
    "train.lr": (
        Expectation(
            rule="rate-1e-3",
            measure="distance",
            direction="higher",
            words="with a learning rate of 1e-3 the distance is larger",
        ),
    ),
}
"""What each claim of the ledger leads one to expect. The row's value is the paired difference of
the first one that could be measured."""


STABLE = "arch.stable"
"""The one claim that is judged by what goes wrong, and not by a difference."""

RULES_OF = {STABLE: {RECIPE, *(name for name, change in RULES.items() if change.planted)}} | {
    claim: {RECIPE, *(each.rule for each in expected)} for claim, expected in EXPECTATIONS.items()
}
"""The rules that a claim cannot be judged without."""


PARTLY_ASKED = {"arch.leaky": f"the claim is stronger at higher resolution; asked at {SIDE}x{SIDE}"}
"""Claims that these runs ask only a part of, and why."""


def record_claims(
    runs: dict[tuple[str, int], dict[str, Any]], settings: Settings, command: str
) -> list[Result]:
    """Write the rows of one set into the ledger, for each claim whose rules have all been run.

    An expectation holds where the interval of the paired difference lies wholly on the expected
    side of 0. Where no interval of a claim leaves out 0, on either side, these small networks
    cannot tell, and the row says "not tested at scale".

    Raises
    ------
    UserError
        If no claim has two finished seeds of each of its rules.
    """
    rows = {row.rule: row for row in summary(runs)}
    judged = [claim for claim, rules in RULES_OF.items() if rules <= set(rows)]
    if not judged:
        raise UserError(
            "no claim has two finished seeds of each of its rules: run dcgan ablate without "
            f"--rules, or for {STABLE} alone with --rules {' '.join(sorted(RULES_OF[STABLE]))}"
        )
    scale = (
        f"networks of width {settings.base_width} and {settings.steps:,} steps at "
        f"{SIDE}x{SIDE}, {rows[RECIPE].seeds} seeds"
    )
    features = {run["features"] for run in runs.values()}
    about = {
        "data": f"{settings.set} at {SIDE}x{SIDE}",
        "command": command,
        "seconds": sum(run["seconds"] for run in runs.values()),
        "seed": 0,
        "notes": f"{scale}; distances are KID on {', '.join(sorted(features))}",
    }
    written = [_record_stable(rows, settings, about)] if STABLE in judged else []
    for claim, expected in EXPECTATIONS.items():
        if claim not in judged:
            continue
        found = {each: rows[each.rule].effects[each.measure] for each in expected}
        checks = {each.words: each.holds(effect) for each, effect in found.items()}
        effects = [effect for effect in found.values() if effect is not None]
        if not effects:
            raise UserError(f"{claim} cannot be judged: all of its runs ended too soon")
        caveat = None
        if claim in PARTLY_ASKED:
            caveat = Caveat(kind="at most partly", why=PARTLY_ASKED[claim])
        if not any(effect.differs for effect in effects):
            why = f"no difference beyond chance in {scale}"
            caveat = Caveat(kind="not at scale", why=why)
        written.append(
            record(
                id_on(claim, settings.set),
                effects[0].difference,
                unit="",
                n=effects[0].seeds,
                checks=checks,
                caveat=caveat,
                **about,
            )
        )
    return written


def _record_stable(rows: dict[str, Row], settings: Settings, about: dict[str, Any]) -> Result:
    usual = rows[RECIPE]
    planted = [row for name, row in rows.items() if RULES[name].planted]
    checks = {
        "the recipe neither diverges nor collapses on any seed": usual.flagged == 0,
        "the measures see every planted failure": all(row.flagged == row.seeds for row in planted),
    }
    sound = wilson_interval(usual.seeds - usual.flagged, usual.seeds)
    id = id_on(STABLE, settings.set)
    return record(id, sound.scaled(100), unit="%", n=usual.seeds, checks=checks, **about)
