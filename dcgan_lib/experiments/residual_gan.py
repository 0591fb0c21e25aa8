"""The residual GAN beside the DCGAN: at equal parameters, at equal steps and in equal time.

`VARIANTS` lists the pairs. A `Plan` is made once for a set: the widths at which the pairs have
equally many parameters, the seconds that a step of each takes on this machine, and from these the
steps of each. Every run then trains for the time that the plain pair needs for its steps, and is
measured on the way; one of these looks is at the same number of steps for all. A variant is
compared with the plain pair seed by seed.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError, check_number, check_numbers, require
from dcgan_lib.evaluation.features import RULER
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    describe_hardware,
    has_details,
    id_on,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments import short_runs
from dcgan_lib.experiments.short_runs import (
    SIDE,
    Measure,
    Run,
    Runs,
    Table,
    Trained,
    Yardstick,
    compared,
    draw_pictures,
    find_flags,
    finish_run,
    finished_runs,
    open_set,
    paired,
    share_troubled,
    side_of,
    summary_text,
    usual_config,
)
from dcgan_lib.paths import exclusive
from dcgan_lib.plotting import Compared
from dcgan_lib.training.loop import Batches, choose_device, draw_latents
from dcgan_lib.training.step import make_gan, new_networks, train_step

COMMAND = "dcgan residual"

# ---------------------------------------------------------------- the pairs


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Say which pair a run trains."""

    words: str
    """For figures and tables."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`."""
    r1: bool = False
    """Whether its discriminator has the R1 penalty."""


def _residual(words: str, *, r1: bool, **options: Any) -> Variant:
    return Variant(words=words, r1=r1, model={"architecture": "residual"} | options)


PLAIN, REFERENCE = "plain", "residual"
"""The DCGAN, and the residual pair nearest to the published one: what the claim compares."""

VARIANTS: dict[str, Variant] = {
    PLAIN: Variant(words="DCGAN"),
    REFERENCE: _residual("residual, alpha 0.1, no norm, R1", r1=True),
    "residual-no-r1": _residual("residual, alpha 0.1, no norm, no R1", r1=False),
    "residual-alpha-1": _residual("residual, alpha 1, no norm, R1", r1=True, residual_alpha=1.0),
    "residual-batch-norm": _residual(
        "residual, alpha 0.1, batch norm, no R1", r1=False, residual_norm="batch"
    ),
    "residual-layer-norm": _residual(
        "residual, alpha 0.1, layer norm, R1", r1=True, residual_norm="layer"
    ),
    "plain-r1": Variant(words="DCGAN, R1", r1=True),
}
"""Every pair by name, the plain one first."""


@dataclass(frozen=True, kw_only=True)
class Settings(short_runs.Settings):
    """Hold what all runs of a table share.

    ``steps`` and ``base_width`` are the plain pair's; the time that its steps take is the time of
    every run.
    """

    r1_weight: float


MOST_APART = 0.03
"""How far the numbers of parameters may differ, as a share of the plain pair's."""


def variant_config(
    name: str, settings: Settings, channels: int, *, base_width: int, steps: int, seed: int = 0
) -> TrainConfig:
    """Return the configuration of one run: the paper's but for the pair and R1."""
    variant, config = VARIANTS[name], usual_config(settings, channels, seed)
    return replace(
        config,
        model=replace(config.model, base_width=base_width, **variant.model),
        steps=steps,
        r1_weight=settings.r1_weight if variant.r1 else 0.0,
    )


def count_parameters(model: ModelConfig) -> int:
    """Return how many numbers G and D learn together."""
    with torch.device("meta"):  # nothing is computed
        pair = new_networks(model)
    return sum(weight.numel() for network in pair for weight in network.parameters())


def matching_width(name: str, settings: Settings, channels: int) -> int:
    """Return the base width at which a variant has as many parameters as the plain pair.

    Raises
    ------
    UserError
        If no width comes within `MOST_APART`.
    """

    def count(name: str, width: int) -> int:
        config = variant_config(name, settings, channels, base_width=width, steps=1)
        return count_parameters(config.model)

    wanted = count(PLAIN, settings.base_width)
    widths = range(1, 2 * settings.base_width)
    apart = {width: abs(count(name, width) / wanted - 1) for width in widths}
    best = min(apart, key=apart.get)
    if apart[best] > MOST_APART:
        raise UserError(
            f"no width of {name!r} has as many parameters as a DCGAN of width "
            f"{settings.base_width}: the nearest, {best}, is {apart[best]:.1%} apart, and "
            f"{MOST_APART:.0%} are allowed: choose another base_width, such as 16, 20 or 24"
        )
    return best


# ---------------------------------------------------------------- the plan


SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""When a run is measured, as shares of its steps; and at the plan's equal steps."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold what was counted and timed before the first run of a table."""

    settings: Settings
    base_width: dict[str, int]
    parameters: dict[str, int]
    seconds_a_step: dict[str, float]
    """Medians, see `time_steps`, on the machine that ``hardware`` names."""
    hardware: str
    channels: int

    @property
    def steps(self) -> dict[str, int]:
        """Return the steps of each variant in the time that the plain pair's steps take."""
        time_given = self.settings.steps * self.seconds_a_step[PLAIN]
        return {
            name: max(1, round(time_given / seconds))
            for name, seconds in self.seconds_a_step.items()
        }

    @property
    def equal_steps(self) -> int:
        """Return the steps at which all variants are compared: those of the slowest."""
        return min(self.steps.values())

    def run(self, name: str, seed: int) -> Run:
        """Return one run; a look is named after its step."""
        steps = self.steps[name]
        size = {"base_width": self.base_width[name], "steps": steps}
        due = {max(1, round(steps * share)) for share in SHARES} | {self.equal_steps}
        return Run(
            config=variant_config(name, self.settings, self.channels, seed=seed, **size),
            looks={step: step for step in sorted(due)},
        )

    def about(self, name: str) -> dict[str, Any]:
        """Return what a run was made with, as plain values."""
        return dataclasses.asdict(self.settings) | {
            "run_width": self.base_width[name],
            "run_parameters": self.parameters[name],
            "run_steps": self.steps[name],
            "equal_steps": self.equal_steps,
            "seconds_a_step": self.seconds_a_step[name],
        }

    def table(self) -> Table:
        """Return the table of all variants' runs."""
        return Table(
            command=COMMAND,
            kind="variant",
            folder=f"residual/{self.settings.set}",
            settings={name: self.about(name) for name in VARIANTS},
        )


def make_plan(settings: Settings, train: ImageSet, device: str = "cpu", rounds: int = 10) -> Plan:
    """Match the widths, count the parameters, and time a step of every variant."""
    channels = train.num_channels
    widths = {name: matching_width(name, settings, channels) for name in VARIANTS}
    configs = {
        name: variant_config(name, settings, channels, base_width=width, steps=rounds + 2)
        for name, width in widths.items()
    }
    return Plan(
        settings=settings,
        base_width=widths,
        parameters={name: count_parameters(config.model) for name, config in configs.items()},
        seconds_a_step=time_steps(configs, train, device, rounds),
        hardware=describe_hardware(),
        channels=channels,
    )


def time_steps(
    configs: Mapping[str, TrainConfig], train: ImageSet, device: str, rounds: int
) -> dict[str, float]:
    """Return the median seconds of a step; all take turns, so that a drift slows all of them.

    Two rounds come first and do not count. Of one CPU thread the processor's time is taken, which
    is the wall time on a core of its own: other processes must not decide who gets more steps.
    """
    where = choose_device(device)
    is_alone = where.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_alone else time.perf_counter
    gans = {name: make_gan(config, where) for name, config in configs.items()}
    x_bchw, _ = Batches(train, next(iter(configs.values())), where)(0)
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    for step in range(rounds + 2):
        for name, gan in gans.items():
            begun = clock()
            latents = draw_latents(gan.config, where, step)
            float(train_step(gan, step, x_bchw, None, latents).g_loss)  # waits for a GPU
            seconds[name].append(clock() - begun)
    return {name: round(median(found[2:]), 5) for name, found in seconds.items()}


def plan_text(plan: Plan) -> str:
    """Lay the plan out as text."""
    lines = [f"{'variant':22}{'width':>6}{'parameters':>12}{'ms a step':>11}{'steps':>8}"]
    for name, seconds in plan.seconds_a_step.items():
        cells = f"{plan.base_width[name]:>6}{plan.parameters[name]:>12,}{1000 * seconds:>11.0f}"
        lines.append(f"{name:22}{cells}{plan.steps[name]:>8,}")
    minutes = plan.settings.steps * plan.seconds_a_step[PLAIN] / 60
    lines.append(f"each run: {minutes:.1f} minutes; equal steps: {plan.equal_steps:,}")
    return "\n".join(lines)


# ---------------------------------------------------------------- measuring a run


def measure_run(
    run: Run, trained: Trained, yardstick: Yardstick, *, equal_steps: int
) -> dict[str, Any]:
    """Measure every look of a run, and return plain values.

    A run that ended early is measured where it was last sound, which stands for what it did not
    live to see.

    Returns
    -------
    dict
        ``looks``: for each its ``step`` and what `Yardstick.measure` says; ``at_equal_steps`` and
        ``at_equal_time``: the two of them that are compared; ``flags``: what went wrong, in words.
    """
    looks = []
    for step, weights in sorted(trained.weights.items()):
        if step == 0 and len(trained.weights) > 1:
            continue
        in_full = step in (equal_steps, run.config.steps, max(trained.weights))
        num = yardstick.num_images // (1 if in_full else 2)
        pictures_u8 = draw_pictures(run, weights, num)
        looks.append({"step": step} | yardstick.measure(pictures_u8))
    last = looks[-1]
    troubled = share_troubled(trained.windows, run.config.steps)
    return {
        "looks": looks,
        "at_equal_steps": [look for look in looks if look["step"] <= equal_steps][-1],
        "at_equal_time": last,
        "flags": find_flags(last, troubled, trained.stopped),
    }


# ---------------------------------------------------------------- the command


@dataclass(frozen=True, kw_only=True)
class Residual(Command, verb="residual"):
    """Compare the residual GAN with the DCGAN at equal parameters, equal steps and equal time.

    First a step of every variant is timed, and the plan is kept with the results; a resumed table
    keeps to it. A run that was cut off begins again; finished ones are kept. Several processes may
    work on one table: each takes the runs that no other has begun.

    The default widths are those at which the residual pair's numbers of maps are powers of two
    (16, 32, 64), which a CPU computes at the price of 13, 26 and 52: a width of 16 for the DCGAN
    would handicap its rival.
    """

    set: str = "cifar10"
    """Image set, brought to 32x32."""
    variants: tuple[str, ...] = ()
    """Which pairs, by name; unset: all of them. The plain one is always among them."""
    seeds: int = 2
    """Runs of each variant."""
    steps: int = 5_000
    """Minibatches of the plain pair, each an update of D and one of G; the others train as long."""
    base_width: int = 20
    """Of the plain pair; the residual one's follows from the number of parameters."""
    batch_size: int = 32
    """Images in a minibatch."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the training."""
    r1_weight: float = 10.0
    """gamma of the R1 penalty, where a variant has it; Mescheder et al. (2018) use 10."""
    features: str = RULER
    """What distances and diversity are measured in. Finished trainings are measured again,
    not trained again."""
    num_images: int = 1_000
    """Held-out images, and samples, at the two points that are compared."""
    device: Device = local("cpu")
    """Where to train."""
    threads: int = local(1)
    """CPU threads."""
    out: Path = local(Path("runs/residual"))
    """Where the generators and grids of samples are kept."""
    again: bool = local(False)
    """Time, train and measure anew what is finished."""
    record: bool = False
    """Write the comparison to the ledger, once all runs are there."""

    def run(self) -> None:
        """Train what is missing, print the table, and record if asked."""
        for name in self.variants:
            require(name in VARIANTS, "each of --variants", name, f"one of {', '.join(VARIANTS)}")
        chosen = [name for name in VARIANTS if name in (PLAIN, *(self.variants or VARIANTS))]
        if self.record and REFERENCE not in chosen:
            raise UserError(f"--record compares {PLAIN} and {REFERENCE}: give both in --variants")
        check_number(self, "seeds", 2 if self.record else 1)
        check_numbers(self, 1, "steps", "threads")
        require(self.r1_weight > 0, "r1_weight", self.r1_weight, "above 0")
        torch.set_num_threads(self.threads)
        train, yardstick = open_set(self.set, self.features, self.num_images)
        settings = Settings(
            set=train.name,
            steps=self.steps,
            base_width=self.base_width,
            batch_size=self.batch_size,
            precision=self.precision,
            r1_weight=self.r1_weight,
        )
        plan = self._plan(settings, train)
        print(plan_text(plan), flush=True)
        table, measure = plan.table(), partial(measure_run, equal_steps=plan.equal_steps)
        for seed in range(self.seeds):
            for name in chosen:
                finish_run(
                    table,
                    name,
                    plan.run(name, seed),
                    measure,
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
            record_claim(kept, plan, self.command_line())

    def _plan(self, settings: Settings, train: ImageSet) -> Plan:
        """Return the plan that is kept with the results, or make and keep it."""
        with exclusive(self.out / settings.set / "plan.json"):
            kept = None if self.again else kept_plan(settings.set)
            if kept is None:
                kept = make_plan(settings, train, self.device)
                save_details(plan_name(settings.set), dataclasses.asdict(kept))
        if kept.settings != settings:
            raise UserError(
                f"data/results/{plan_name(settings.set)}.json was made with other settings "
                f"({dataclasses.asdict(kept.settings)}): give those, or --again to begin anew"
            )
        return kept


# ---------------------------------------------------------------- what is kept


def plan_name(set_name: str) -> str:
    """Return the name under which the ledger keeps a plan."""
    return f"residual/{set_name}/plan"


def kept_plan(set_name: str) -> Plan | None:
    """Return the plan of a set's runs; None where there is none."""
    if not has_details(plan_name(set_name)):
        return None
    kept = load_details(plan_name(set_name), COMMAND)
    return Plan(settings=Settings(**kept.pop("settings")), **kept)


def kept_runs(set_name: str) -> Runs:
    """Return a set's runs that were made by its plan and measured as the plain one's first.

    Needs neither the images nor the features: it only reads what the ledger keeps.
    """
    plan = kept_plan(set_name)
    return plan.table().load() if plan else {}


# ---------------------------------------------------------------- over the seeds

Budget = Literal["at_equal_steps", "at_equal_time"]
BUDGETS: dict[Budget, str] = {"at_equal_steps": "equal steps", "at_equal_time": "equal time"}


def distance_at(budget: Budget) -> Measure:
    """Return what takes the distance in one of the comparisons out of a run."""
    return lambda run: run[budget]["distance"]


def paired_difference(runs: Runs, one: str, other: str, budget: Budget) -> Estimate | None:
    """Return the distance of one variant minus another's; see `short_runs.paired_difference`."""
    return short_runs.paired_difference(runs, one, other, distance_at(budget))


def table_text(runs: Runs) -> str:
    """Lay the table out as text."""
    columns: dict[str, Measure] = {words: distance_at(budget) for budget, words in BUDGETS.items()}
    columns["diversity"] = lambda run: run["at_equal_time"]["diversity"]

    def is_flagged(name: str, seed: int) -> bool:
        return bool(runs[name, seed]["flags"])

    return summary_text(runs, VARIANTS, PLAIN, columns, is_flagged)


# ---------------------------------------------------------------- what the chapter says

CONTRASTS: dict[str, tuple[str, str]] = {
    "the residual pair with R1 instead of the DCGAN": (REFERENCE, PLAIN),
    "the residual pair instead of the DCGAN, both without R1": ("residual-no-r1", PLAIN),
    "the residual pair instead of the DCGAN, both with R1": (REFERENCE, "plain-r1"),
    "the residual pair with alpha 1 and R1 instead of the DCGAN": ("residual-alpha-1", PLAIN),
    "the residual pair with batch norm instead of the DCGAN": ("residual-batch-norm", PLAIN),
    "R1 in the DCGAN": ("plain-r1", PLAIN),
    "R1 in the residual pair": (REFERENCE, "residual-no-r1"),
    "alpha 1 instead of 0.1, with R1": ("residual-alpha-1", REFERENCE),
    "batch norm in the residual pair, without R1": ("residual-batch-norm", "residual-no-r1"),
    "layer norm in the residual pair, with R1": ("residual-layer-norm", REFERENCE),
}
"""What is changed in words, and the variants with the change and without it."""


def outcome(difference: Estimate | None) -> str:
    """Say what a change did to the distance, where the whole paired interval is on one side."""
    return side_of(difference, "nearer", "farther")


def contrasts_table(runs: Runs) -> str:
    """Lay out in Markdown what each change did: per seed, and the mean with its interval."""
    lines = [["change", *BUDGETS.values()], ["---"] * (len(BUDGETS) + 1)]
    for words, (one, other) in CONTRASTS.items():
        cells = [words]
        for budget in BUDGETS:
            difference = paired_difference(runs, one, other, budget)
            if difference is None:
                cells.append("too few runs")
                continue
            value, low, high = difference
            seeds = [a - b for a, b in paired(runs, one, other, distance_at(budget))]
            cells.append(
                f"{outcome(difference)}: {value:+.2f} ({low:+.2f} to {high:+.2f}); "
                f"by seed {', '.join(f'{each:+.2f}' for each in seeds)}"
            )
        lines.append(cells)
    return "\n".join(" | ".join(line) for line in lines)


def compared_with_plain(runs: Runs, budget: Budget) -> dict[str, Compared]:
    """Return each variant's row by its words; see `short_runs.compared`."""
    rows = {
        variant.words: compared(runs, name, PLAIN, distance_at(budget), "nearer", "farther")
        for name, variant in VARIANTS.items()
    }
    return {words: row for words, row in rows.items() if row is not None}


# ---------------------------------------------------------------- the claim

CLAIM = "residual.plain"
CHECK = "the residual pair's distance is below the plain one's at equal parameters and equal time"


def record_claim(runs: Runs, plan: Plan, command: str) -> Result:
    """Write the row of one set into the ledger: residual minus plain in equal time.

    The check holds where the whole interval of the paired difference lies below 0. Where it lies
    on neither side of 0, so few seeds cannot tell, and the row says "not tested at scale".

    Raises
    ------
    UserError
        If there are not two finished seeds of both.
    """
    found = {budget: paired_difference(runs, REFERENCE, PLAIN, budget) for budget in BUDGETS}
    difference = found["at_equal_time"]
    if difference is None:
        raise UserError(
            f"{CLAIM} needs two finished seeds of {PLAIN} and {REFERENCE}: run {COMMAND}"
        )
    settings = plan.settings
    seeds = sorted(seed for name, seed in runs if name == PLAIN and (REFERENCE, seed) in runs)
    scale = (
        f"DCGAN of width {plan.base_width[PLAIN]} and residual pair of width "
        f"{plan.base_width[REFERENCE]} ({plan.parameters[PLAIN]:,} and "
        f"{plan.parameters[REFERENCE]:,} parameters), {len(seeds)} seeds"
    )
    notes = [scale]
    for budget, words in BUDGETS.items():
        parts = []
        for name in (REFERENCE, PLAIN):
            looks = [runs[name, seed][budget] for seed in seeds]
            mean = np.mean([look["distance"] for look in looks])
            parts.append(f"{name} {mean:.4f} after {looks[0]['step']:,} steps")
        value, low, high = found[budget]
        between = f"difference {value:+.4f} ({low:+.4f} to {high:+.4f})"
        notes.append(f"{words}: {', '.join(parts)}, {between}")
    flagged = [f"{name} seed {seed}" for (name, seed), run in sorted(runs.items()) if run["flags"]]
    notes.append(f"flagged: {', '.join(flagged) or 'none'}")
    notes.append(f"distances are KID on {runs[PLAIN, seeds[0]]['features']}")
    caveat = None
    if difference.low <= 0 <= difference.high:
        caveat = Caveat(kind="not at scale", why=f"the interval holds 0, few seeds: {scale}")
    return record(
        id_on(CLAIM, settings.set),
        difference,
        unit="",
        n=len(seeds),
        data=f"{settings.set} at {SIDE}x{SIDE}",
        command=command,
        seconds=sum(run["seconds"] for run in runs.values()),
        checks={CHECK: difference.high < 0},
        caveat=caveat,
        seed=0,
        notes="; ".join(notes),
    )
