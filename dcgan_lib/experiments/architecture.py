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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.stats import linregress

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError, check_number, require
from dcgan_lib.evaluation.features import RULER
from dcgan_lib.evaluation.ledger import Caveat, Result, has_details, id_on, load_details, record
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval
from dcgan_lib.experiments.short_runs import (
    SIDE,
    Measure,
    Run,
    Runs,
    Settings,
    Table,
    Trained,
    Yardstick,
    compared,
    draw_pictures,
    find_flags,
    finish_run,
    finished_runs,
    last_third,
    open_set,
    paired,
    share_troubled,
    side_of,
    summary_text,
    usual_config,
)
from dcgan_lib.models.ablations import Ablation, new_pair
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.plotting import Compared

# ---------------------------------------------------------------- the rules


@dataclass(frozen=True, kw_only=True)
class Change:
    """Say what a run does otherwise than the paper's recipe."""

    words: str
    """For figures and tables."""
    ablation: Ablation = field(default_factory=Ablation)
    """What is broken in the networks."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`."""
    run: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    constant_z: bool = False
    """Feed the generator one latent vector over and over."""

    def new_pair(self, model: ModelConfig) -> tuple[Generator, Discriminator]:
        """Return the untrained networks, with what is broken in them."""
        return new_pair(model, self.ablation)


RULES: dict[str, Change] = {
    "recipe": Change(words="the paper's recipe"),
    "max-pooling": Change(
        words="max pooling in D, nearest upsampling in G",
        ablation=Ablation(resampling="max pooling"),
    ),
    "average-pooling": Change(
        words="average pooling in D, nearest upsampling in G",
        ablation=Ablation(resampling="average pooling"),
    ),
    "global-pooling": Change(
        words="global average pooling before D's output",
        ablation=Ablation(head="global average pooling"),
    ),
    "hidden-dense": Change(
        words="a hidden dense layer of 512 units in both networks",
        model={"hidden_units": 512},
    ),
    "no-batch-norm": Change(
        words="no batch norm, weights from N(0, 0.02)",
        ablation=Ablation(batch_norm="nowhere"),
    ),
    "no-batch-norm-he": Change(
        words="no batch norm, weights scaled to their inputs (He)",
        ablation=Ablation(batch_norm="nowhere", weights="He"),
    ),
    "batch-norm-everywhere": Change(
        words="batch norm also on G's output and D's input layer",
        ablation=Ablation(batch_norm="everywhere"),
    ),
    "batch-norm-g-output": Change(
        words="batch norm also on G's output",
        ablation=Ablation(batch_norm="G's output"),
    ),
    "batch-norm-d-input": Change(
        words="batch norm also on D's input layer",
        ablation=Ablation(batch_norm="D's input"),
    ),
    "unbounded": Change(
        words="no tanh on G's output",
        ablation=Ablation(g_output="unbounded"),
    ),
    "d-relu": Change(words="ReLU in D", model={"leaky_slope": 0.0}),
    "d-maxout": Change(
        words="maxout in D, with twice the maps",
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
    "beta1-0.9": Change(words="Adam's beta1 0.9", run={"beta1": 0.9}),
    "rate-1e-3": Change(words="learning rate 1e-3", run={"learning_rate": 1e-3}),
    "rate-5e-5": Change(words="learning rate 5e-5", run={"learning_rate": 5e-5}),
    "no-weight-decay": Change(words="no weight decay", run={"weight_decay": 0.0}),
    "normal-z": Change(words="z from N(0, 1)", model={"z_distribution": "normal"}),
    "rate-2e-2": Change(words="learning rate 2e-2", run={"learning_rate": 2e-2}),
    "planted-rate": Change(
        words="learning rate 0.5, a planted failure", run={"learning_rate": 0.5}
    ),
    "planted-constant": Change(words="one z for every image, a planted failure", constant_z=True),
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

PLANTED = GROUPS["planted failures"]
"""Broken on purpose, and so badly that the measures must see it."""

SETS = ("cifar10", "street-digits", "mnist", "faces64", "bedrooms64", "rooms", "portraits")


LOOKS = (0, 1, 2, 3, 6, 12, 13, 14, 15, 16, 17, 18)
"""When the generator is kept, in eighteenths of the steps: untrained, early, after a third, and
seven times over the last third."""
THIRD, END, LAST_THIRD = 6, 18, 12


def plan_run(rule: str, settings: Settings, seed: int, channels: int) -> Run:
    """Return one run: the recipe's but for what the rule changes."""
    change, config = RULES[rule], usual_config(settings, channels, seed)
    model = replace(config.model, **change.model)
    return Run(
        config=replace(config, model=model, **change.run),
        looks={round(settings.steps * look / END): look for look in LOOKS},
        new_pair=change.new_pair,
        constant_z=change.constant_z,
    )


# ---------------------------------------------------------------- measuring a run


def num_pictures(look: int, num_images: int) -> int:
    """Return how many pictures a look is measured with: all at two looks, half at the others."""
    return num_images if look in (THIRD, END) else num_images // 2


def measure_run(run: Run, trained: Trained, yardstick: Yardstick) -> dict[str, Any]:
    """Measure every look of a run, and return plain values.

    A run that ended early is measured where it was last sound.

    Returns
    -------
    dict
        ``looks``: for each look its ``step`` and what `Yardstick.measure` says. ``measures``: the
        run's numbers, `MEASURES`. ``flags``: what went wrong, in words; empty for a sound run.
    """
    looks = []
    for look in LOOKS:
        if look not in trained.weights:
            continue
        num = num_pictures(look, yardstick.num_images)
        pictures_u8 = draw_pictures(run, trained.weights[look], num)
        place = {"look": look, "step": round(run.config.steps * look / END)}
        looks.append(place | yardstick.measure(pictures_u8))
    measures = summarise_run(looks, trained.windows, run.config.steps)
    flags = find_flags(looks[-1], measures["troubled"], trained.stopped)
    return {"looks": looks, "measures": measures, "flags": flags}


MEASURES = (
    "distance_third",  # after a third of the steps
    "distance",  # at the end, as those below
    "lost",
    "diversity",
    "swing",  # oscillation of the distance over the last third
    "d_loss_swing",
    "g_loss_swing",
    "colours_early",  # mean of the first looks
    "colours",
    "troubled",  # share of the last third in which the losses are out of bounds
)
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
    swings = dict.fromkeys(("swing", "d_loss_swing", "g_loss_swing"))
    if len(late) > 2 and len(ending) > 1:
        x, y = (np.array([look[name] for look in late]) for name in ("step", "distance"))
        line = linregress(x, y)
        swings["swing"] = np.std(y - line.intercept - line.slope * x, ddof=2)
        for loss in ("d_loss", "g_loss"):
            swings[f"{loss}_swing"] = np.std([window[loss] for window in ending])
    found = {
        "distance_third": third["distance"],
        "distance": last["distance"],
        "lost": last["lost"],
        "diversity": last["diversity"],
        **swings,
        "colours_early": np.mean([look["colours"] for look in early]),
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
        check_number(self, "seeds", 2 if self.record else 1)
        check_number(self, "threads", 1)
        torch.set_num_threads(self.threads)
        train, yardstick = open_set(self.set, self.features, self.num_images)
        settings = Settings(
            set=train.name,
            steps=self.steps,
            base_width=self.base_width,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        table = table_of(settings)
        for seed in range(self.seeds):
            for name in chosen:
                finish_run(
                    table,
                    name,
                    plan_run(name, settings, seed, train.num_channels),
                    measure_run,
                    train,
                    yardstick,
                    out=self.out / settings.set,
                    device=self.device,
                    again=self.again,
                )
        runs = table.load(yardstick.measured_with)
        print(table_text(runs))
        if self.record:
            kept = finished_runs(runs, chosen, self.seeds)
            record_claims(kept, settings, self.command_line())


# ---------------------------------------------------------------- what is kept


def table_of(settings: Settings) -> Table:
    """Return the table of all rules on one set."""
    return Table(
        command="dcgan ablate",
        kind="rule",
        folder=f"ablations/{settings.set}",
        settings=dict.fromkeys(RULES, dataclasses.asdict(settings)),
    )


def kept_runs(set_name: str) -> Runs:
    """Return a set's runs that were made and measured as the recipe's first; none without it.

    Needs neither the images nor the features: it only reads what the ledger keeps.
    """
    first = f"ablations/{set_name}/{RECIPE}-0"
    if not has_details(first):
        return {}
    kept = load_details(first, "dcgan ablate")
    return table_of(Settings(**kept["settings"])).load()


def settings_of(runs: Runs) -> Settings:
    """Return what all runs of a table share."""
    return Settings(**next(iter(runs.values()))["settings"])


# ---------------------------------------------------------------- over the seeds


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Hold a rule's measure over the seeds, and its difference to the recipe."""

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


def measure_of(name: str) -> Measure:
    """Return what takes one of `MEASURES` out of a run."""
    return lambda run: run["measures"][name]


def summary(runs: Runs) -> list[Row]:
    """Return each rule's means over the seeds, and how it differs from the recipe, seed by seed.

    A rule differs where the 95 % interval of the paired difference leaves out 0. With three seeds
    that interval is wide, so only plain effects are called differences. Rules of fewer than two
    seeds are left out.
    """
    rows = []
    for rule in RULES:
        flagged, seeds = count_flagged(runs, [rule])
        if seeds > 1:
            effects = {name: _effect(runs, rule, name) for name in MEASURES}
            rows.append(Row(rule=rule, effects=effects, flagged=flagged, seeds=seeds))
    return rows


def _effect(runs: Runs, rule: str, measure: str) -> Effect | None:
    values, usual = paired(runs, rule, RECIPE, measure_of(measure)).T
    if len(values) < 2:
        return None
    difference = mean_interval(values - usual)
    return Effect(mean=mean_interval(values), difference=difference, seeds=len(values))


FAR = 3.0


def is_flagged(runs: Runs, rule: str, seed: int) -> bool:
    """Tell whether a run diverged, collapsed, or ended far off.

    Far is three times the distance of the recipe's run of the same seed: a bound that holds for
    whatever features. The recipe itself is judged by the other two.
    """
    distance, usual = (runs[name, seed]["measures"]["distance"] for name in (rule, RECIPE))
    return bool(runs[rule, seed]["flags"]) or distance > FAR * max(usual, 0.0)


def count_flagged(runs: Runs, rules: Iterable[str]) -> tuple[int, int]:
    """Return how many runs of these rules are flagged, and how many there are to compare."""
    there = [(rule, seed) for rule, seed in runs if rule in set(rules) and (RECIPE, seed) in runs]
    return sum(is_flagged(runs, rule, seed) for rule, seed in there), len(there)


SHOWN = {
    "distance_third": "after a third",
    "distance": "at the end",
    "swing": "oscillation",
    "lost": "modes lost",
    "diversity": "diversity",
    "colours_early": "colours early",
}
"""Measures of the table, and the heads of their columns."""


def table_text(runs: Runs) -> str:
    """Lay the table out as text."""
    runs = {key: run for key, run in runs.items() if (RECIPE, key[1]) in runs}
    columns = {words: measure_of(name) for name, words in SHOWN.items()}
    return summary_text(runs, RULES, RECIPE, columns, partial(is_flagged, runs))


# ---------------------------------------------------------------- for the chapter


def outcome(effect: Effect | None) -> str:
    """Say what a rule did to a distance: worse where the whole paired interval lies above 0."""
    return side_of(effect and effect.difference, "better", "worse")


def sort_rules(tables: Mapping[str, list[Row]]) -> dict[str, list[str]]:
    """Sort the rules, planted failures aside, by what they did to the distance on each set.

    Returns
    -------
    dict
        From an outcome in words, "worse on cifar10; no difference shown on digits" say, to the
        rules' words; worse on most sets first.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for rule, change in RULES.items():
        if rule == RECIPE or rule in PLANTED:
            continue
        outcomes = []
        for rows in tables.values():
            effects = {row.rule: row.effects["distance"] for row in rows}
            outcomes.append(outcome(effects.get(rule)))
        found.setdefault(tuple(outcomes), []).append(change.words)
    order = sorted(found, key=lambda each: (each.count("better") - each.count("worse"), each))
    return {_in_words(each, list(tables)): found[each] for each in order}


def _in_words(outcomes: tuple[str, ...], sets: list[str]) -> str:
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
    lines = [["rule", *SHOWN.values(), "flagged"], ["---"] * (len(SHOWN) + 2)]
    same = []
    for row in rows:
        words, cells = RULES[row.rule].words, []
        for name in SHOWN:
            effect = row.effects[name]
            if effect and effect.differs:
                sign = side_of(effect.difference, "▼", "▲")
                cells.append(f"{sign} {effect.mean.value:.2f}")
            else:
                cells.append(f"{effect.mean.value:.2f}" if effect and row.rule == RECIPE else "")
        if any(cells) or row.flagged:
            flagged = f"{row.flagged} of {row.seeds}" if row.flagged else ""
            lines.append([words, *cells, flagged])
        else:
            same.append(words)
    table = "\n".join(" | ".join(line) for line in lines)
    if same:
        table += f"\n\nNo difference shown in any measure, no run flagged: {'; '.join(same)}."
    return table


def compared_with_recipe(runs: Runs) -> dict[str, Compared]:
    """Return each rule's distances for `dcgan_lib.plotting.plot_compared`, by the rule's words.

    See `short_runs.compared`; ``early`` is the mean distance after a third of the steps over the
    recipe's after a third.
    """
    found = {}
    for rule, change in RULES.items():
        row = compared(runs, rule, RECIPE, measure_of("distance"), "better", "worse")
        if row is None:
            continue
        early, usual = paired(runs, rule, RECIPE, measure_of("distance_third")).T
        flagged, _ = count_flagged(runs, [rule])
        notes = [row.note, f"{flagged} flagged" if flagged else ""]
        found[change.words] = dataclasses.replace(
            row,
            early=float((early / usual.mean()).mean()),
            note=", ".join(filter(None, notes)),
        )
    return found


# ---------------------------------------------------------------- the claims


class Expectation(NamedTuple):
    """Say what the paper leads one to expect of a broken rule, compared with the recipe."""

    rule: str
    measure: str
    direction: Literal["lower", "higher"]
    words: str

    def holds(self, effect: Effect | None) -> bool:
        """Tell whether the paired difference lies wholly on the expected side of 0."""
        return side_of(effect and effect.difference, "lower", "higher") == self.direction


EXPECTATIONS: dict[str, tuple[Expectation, ...]] = {
    "arch.strided": (
        Expectation(
            "max-pooling",
            "distance",
            "higher",
            "with max pooling and upsampling the distance is larger",
        ),
        Expectation(
            "average-pooling",
            "distance",
            "higher",
            "with average pooling and upsampling the distance is larger",
        ),
    ),
    "arch.gap": (
        Expectation(
            "global-pooling",
            "distance_third",
            "higher",
            "with global average pooling the distance after a third is larger",
        ),
        Expectation(
            "global-pooling",
            "swing",
            "lower",
            "with global average pooling the distance oscillates less",
        ),
    ),
    "arch.fc": (
        Expectation(
            "hidden-dense", "distance", "higher", "with a hidden dense layer the distance is larger"
        ),
    ),
    "arch.bn": (
        Expectation(
            "no-batch-norm", "distance", "higher", "without batch norm the distance is larger"
        ),
        Expectation(
            "no-batch-norm", "diversity", "lower", "without batch norm the samples are less diverse"
        ),
        Expectation(
            "no-batch-norm-he",
            "diversity",
            "lower",
            "so they are with weights scaled to their inputs",
        ),
    ),
    "arch.bn-everywhere": (
        Expectation(
            "batch-norm-everywhere",
            "swing",
            "higher",
            "with batch norm everywhere the distance oscillates more",
        ),
        Expectation(
            "batch-norm-everywhere",
            "distance",
            "higher",
            "with batch norm everywhere the distance is larger",
        ),
    ),
    "arch.tanh": (
        Expectation(
            "unbounded",
            "colours_early",
            "lower",
            "without tanh fewer of the colours are reached early",
        ),
    ),
    "arch.leaky": (
        Expectation("d-relu", "distance", "higher", "with ReLU in D the distance is larger"),
        Expectation("d-maxout", "distance", "higher", "with maxout in D the distance is larger"),
    ),
    "train.beta1": (
        Expectation("beta1-0.9", "swing", "higher", "with beta1 0.9 the distance oscillates more"),
        Expectation(
            "beta1-0.9", "d_loss_swing", "higher", "with beta1 0.9 the loss of D oscillates more"
        ),
    ),
    "train.lr": (
        Expectation(
            "rate-1e-3", "distance", "higher", "with a learning rate of 1e-3 the distance is larger"
        ),
    ),
}
"""What each claim of the ledger leads one to expect. The row's value is the paired difference of
the first one that could be measured."""


STABLE = "arch.stable"
"""The one claim that is judged by what goes wrong, and not by a difference."""

RULES_OF = {STABLE: {RECIPE, *PLANTED}} | {
    claim: {RECIPE, *(each.rule for each in expected)} for claim, expected in EXPECTATIONS.items()
}
"""The rules that a claim cannot be judged without."""


PARTLY_ASKED = {"arch.leaky": f"the claim is stronger at higher resolution; asked at {SIDE}x{SIDE}"}
"""Claims that these runs ask only a part of, and why."""


def record_claims(runs: Runs, settings: Settings, command: str) -> list[Result]:
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
    features = next(iter(runs.values()))["features"]
    about = {
        "data": f"{settings.set} at {SIDE}x{SIDE}",
        "command": command,
        "seconds": sum(run["seconds"] for run in runs.values()),
        "seed": 0,
        "notes": f"{scale}; distances are KID on {features}",
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
    planted = [rows[name] for name in PLANTED]
    seen = all(row.flagged == row.seeds for row in planted)
    checks = {
        "the recipe neither diverges nor collapses on any seed": usual.flagged == 0,
        "control: the measures see every planted failure": seen,
    }
    sound = wilson_interval(usual.seeds - usual.flagged, usual.seeds)
    id = id_on(STABLE, settings.set)
    return record(id, sound.scaled(100), unit="%", n=usual.seeds, checks=checks, **about)
