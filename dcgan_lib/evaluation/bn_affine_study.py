"""Is batch norm better without its scale and bias, on MNIST? ``python -m dcgan_lib.evaluation.bn_affine_study``.

Section 8.1 says so of both networks, without a number. Here both are trained both ways, with everything else equal,
and each generator is judged by nearest neighbours among its samples. Axes: q test images, s draws.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dcgan_lib.config import TrainConfig, recipe
from dcgan_lib.data.sources import load_image_set
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.labelled_streams import GeneratedStream
from dcgan_lib.evaluation.neighbour_test import neighbour_test
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval
from dcgan_lib.training.loop import fit

RECIPES = {"DCGAN": "paper-mnist", "GAN": "mnist-gan"}
NUM_REFERENCES, NUM_DRAWS = 50_000, 3
CLAIM = "table3.bn-affine"
COMMAND = "python -m dcgan_lib.evaluation.bn_affine_study --steps {steps} --precision {precision} --record"


def study_config(network: str, affine: bool, steps: int, precision: str = "float32") -> TrainConfig:
    """Return a network's recipe with or without batch norm's scale and bias."""
    config = recipe(RECIPES[network]).config
    return replace(config, model=replace(config.model, bn_affine=affine), steps=steps, precision=precision)


def wrong_answers(
    config: TrainConfig, folder: Path, *, split: str, image_set: str = "mnist", num_references: int = NUM_REFERENCES
) -> np.ndarray:
    """Train, or go on with a run, and return which images each draw's nearest neighbours get wrong: bool, (q, s)."""
    size = config.model.image_size
    run = fit(config, load_image_set(image_set, image_size=size), folder, device="cpu", about={"source": image_set})
    if run.stopped_by != "steps":
        raise UserError(f"training in {folder} stopped at step {run.step:,} ({run.stopped_by}): start again to resume")
    test = load_image_set(image_set, split, image_size=size)
    streams = (GeneratedStream(str(folder), seed) for seed in range(NUM_DRAWS))
    return np.stack([neighbour_test(stream, test, num_references).named != test.labels for stream in streams], 1)


def gain(with_qs: np.ndarray, without_qs: np.ndarray) -> Estimate:
    """Return by how many points the error is lower without scale and bias, paired over the test images."""
    return bootstrap_interval(lambda a, b: float((a.mean() - b.mean()) * 100), with_qs, without_qs)


def record_claim(
    wrong: dict[tuple[str, bool], np.ndarray], steps: int, precision: str, seconds: float, root: Path | None = None
) -> Result:
    """Write what the four runs say to the ledger; the value is the DCGAN's gain."""
    gains = {network: gain(wrong[network, True], wrong[network, False]) for network in RECIPES}
    errors = {key: 100 * values.mean() for key, values in wrong.items()}
    told = "; ".join(
        f"{network}: {errors[network, True]:.2f} % with, {errors[network, False]:.2f} % without, gain "
        f"{gains[network].value:.2f} [{gains[network].low:.2f}, {gains[network].high:.2f}] points"
        for network in RECIPES
    )
    return record(
        CLAIM, value=gains["DCGAN"], unit="points", n=len(wrong["DCGAN", True]), data="mnist, test", seconds=seconds,
        command=COMMAND.format(steps=steps, precision=precision), root=root,
        checks={
            f"without scale and bias, the {network}'s error is lower by more than chance": gains[network].low > 0
            for network in RECIPES
        },
        notes=f"{told}. {steps:,} minibatches, one run each; {NUM_REFERENCES:,} samples, {NUM_DRAWS} draws",
    )  # fmt: skip


@answers_mistakes("bn_affine_study")
def main(arguments: Sequence[str] | None = None) -> int:
    """Train both networks both ways, print the errors of their neighbours, and record the claim if asked."""
    parser = argparse.ArgumentParser(prog="dcgan_lib.evaluation.bn_affine_study", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=78_000, help="of each run; the authors' 200 passes by default")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--runs", type=Path, default=Path("runs/bn-affine"), help="where runs are kept, and resumed")
    parser.add_argument("--record", action="store_true", help="judge on test digits and write the claim to the ledger")
    chosen = parser.parse_args(arguments)
    begun, wrong = time.monotonic(), {}
    for network in RECIPES:
        for affine in (True, False):
            config = study_config(network, affine, chosen.steps, chosen.precision)
            folder = chosen.runs / f"{network.lower()}-{'with' if affine else 'without'}"
            split = "test" if chosen.record else "validation"
            wrong[network, affine] = wrong_answers(config, folder, split=split)
            print(f"{folder.name}: {100 * wrong[network, affine].mean():.2f} % wrong ({split})", flush=True)
    if chosen.record:
        row = record_claim(wrong, chosen.steps, chosen.precision, time.monotonic() - begun)
        print(f"{row.id}: {row.verdict}. {row.notes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
