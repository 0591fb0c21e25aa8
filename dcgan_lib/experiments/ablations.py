"""Is a learning rate of 0.001 too high, and does a beta1 of 0.9 oscillate? ``python -m ...optimiser_study``.

The paper's section 4 says so without a number. Here each setting trains the small digits network from several seeds,
and the distance to held-out digits is followed along the way.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dcgan_lib.config import TrainConfig, recipe
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.distances import kid
from dcgan_lib.evaluation.features import get_features
from dcgan_lib.evaluation.ledger import Result, record
from dcgan_lib.evaluation.statistics import Estimate, mean_interval
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.loop import fit

SETTINGS = {
    "paper": {},
    "rate 0.001": {"learning_rate": 1e-3},
    "beta1 0.9": {"beta1": 0.9},
}
FEATURES = "mnist-classifier"
COMMAND = "python -m dcgan_lib.experiments.ablations --steps {steps} --seeds {seeds} --record"


def study_config(steps: int, seed: int) -> TrainConfig:
    """Return the small digits recipe with the paper's constant learning rate."""
    changed = {"steps": steps, "seed": seed, "decay_fraction": 0.0, "precision": "float32"}
    return replace(recipe("mnist").config, **changed)


def kid_curve(
    config: TrainConfig, *, num_points: int = 10, num_images: int = 2_000, threads: int = 1
) -> np.ndarray:
    """Train, and measure KID to the validation digits at equal distances along the run.

    Parameters
    ----------
    config : TrainConfig
        ``steps`` is a multiple of ``num_points``.
    num_points, num_images, threads : int
        Measurements; samples and held-out digits for each; CPU threads of the training.

    Returns
    -------
    ndarray
        float64, shape (num_points,).
    """
    train, held_out = (
        load_image_set("mnist", image_size=32),
        load_image_set("mnist", "validation", image_size=32),
    )
    features, real_u8 = get_features(FEATURES), held_out.images_u8[:num_images]
    z_bd = sample_latents(num_images, config.model, seeded(1))
    curve = []
    with tempfile.TemporaryDirectory() as folder:
        for point in range(1, num_points + 1):
            part = replace(config, steps=config.steps * point // num_points)
            run = fit(part, train, Path(folder), device="cpu", threads=threads, progress=False)
            if run.stopped_by != "steps":
                raise UserError(f"training stopped early ({run.stopped_by}) with {run.warnings}")
            curve.append(
                kid(
                    real_u8, generate_u8(run.gan.generator.eval(), z_bd), features, subsets=20
                ).value
            )
    return np.maximum(curve, 1e-3)  # KID is unbiased, so near 0 it can be negative


def rises(curve: np.ndarray) -> float:
    """Return how far KID went up again, summed over the second half of a run, as a share of where that half began."""
    late = curve[len(curve) // 2 - 1 :]
    return float(np.maximum(np.diff(late), 0).sum() / late[0])


def ratio(worse: Sequence[float], better: Sequence[float]) -> Estimate:
    """Return the geometric mean of worse / better over the seeds, and its interval by Student's t."""
    estimate = mean_interval(np.log(np.asarray(worse) / np.asarray(better)))
    return Estimate(*np.exp(estimate))


def record_claims(curves: dict[str, list[np.ndarray]], steps: int, seconds: float) -> list[Result]:
    """Write what the runs say about the two claims to the ledger."""
    num_seeds = len(curves["paper"])
    ends = {name: [float(curve[-1]) for curve in runs] for name, runs in curves.items()}
    swings = {name: [rises(curve) for curve in runs] for name, runs in curves.items()}
    shared = {
        "unit": "",
        "n": num_seeds,
        "data": "mnist, validation",
        "seconds": seconds,
        "command": COMMAND.format(steps=steps, seeds=num_seeds),
    }
    told = f"{steps:,} steps of 64, base width 32, constant rate; KID in {FEATURES} features, 2,000 samples"
    pairs = list(zip(ends["rate 0.001"], ends["paper"], strict=True))
    higher = {
        "with 0.001, KID ends higher for every seed": all(high > low for high, low in pairs),
        "with 0.0002, KID falls over the run for every seed": all(
            run[-1] < run[0] for run in curves["paper"]
        ),
    }
    value = ratio(ends["rate 0.001"], ends["paper"])
    rate = record(
        "train.lr",
        value=value,
        checks=higher,
        notes=f"Final KID, 0.001 / 0.0002. {told}.",
        **shared,
    )
    swung = {
        "with 0.9, KID rises again by more for every seed": all(
            high > low for high, low in zip(swings["beta1 0.9"], swings["paper"], strict=True)
        ),
        "with 0.9, KID ends higher for every seed": all(
            high > low for high, low in zip(ends["beta1 0.9"], ends["paper"], strict=True)
        ),
    }
    value = ratio(ends["beta1 0.9"], ends["paper"])
    means = [float(np.mean(swings[name])) for name in ("beta1 0.9", "paper")]
    notes = f"Final KID, 0.9 / 0.5. Rises in the second half: {means[0]:.0%} against {means[1]:.0%}. {told}."
    return [rate, record("train.beta1", value=value, checks=swung, notes=notes, **shared)]


@answers_mistakes("optimiser_study")
def main(arguments: Sequence[str] | None = None) -> int:
    """Train each setting from several seeds, print KID along the runs, and record both claims if asked."""
    parser = argparse.ArgumentParser(
        prog="dcgan_lib.experiments.ablations", description=main.__doc__
    )
    parser.add_argument("--steps", type=int, default=1_500, help="of each run, a multiple of 10")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each setting, at least 2")
    parser.add_argument("--record", action="store_true", help="write the two claims to the ledger")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 2 or chosen.steps < 10 or chosen.steps % 10:
        parser.error("--seeds must be at least 2, and --steps a multiple of 10")
    begun, curves = time.monotonic(), {name: [] for name in SETTINGS}
    for seed in range(chosen.seeds):
        for name, changed in SETTINGS.items():
            curves[name].append(kid_curve(replace(study_config(chosen.steps, seed), **changed)))
            print(
                f"seed {seed}, {name:10}",
                *(f"{value:.3f}" for value in curves[name][-1]),
                flush=True,
            )
    if chosen.record:
        for row in record_claims(curves, chosen.steps, time.monotonic() - begun):
            print(
                f"{row.id}: {row.value:.2f} [{row.low:.2f}, {row.high:.2f}], {row.verdict}. {row.notes}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
