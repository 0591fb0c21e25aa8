"""How much a generator memorises, by how many images it learns from (sections 4.1 and 6).

The paper argues that its samples are no copies, because three million images, seen once, leave no
time to learn them by heart. Here one pair of networks is trained on more and more images of a drawn
set, for the same number of updates, so that the fewer there are, the more often each is seen.

Axes: n images, f features; ``*_u8`` images n x c x h x w, 0..255.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from dcgan_lib.command import Command, local
from dcgan_lib.config import TrainConfig, recipe, recipes
from dcgan_lib.data.load import HELD_OUT, PROCEDURAL, load_image_set
from dcgan_lib.errors import UserError, check_numbers, require
from dcgan_lib.evaluation.distances import kid_of_features
from dcgan_lib.evaluation.features import FEATURES_OF, get_features
from dcgan_lib.evaluation.generators import LEAST_FOUND, NUM_SHIFTED, shifted
from dcgan_lib.evaluation.ledger import (
    CONTROL,
    Caveat,
    Result,
    id_on,
    load_details,
    record,
    save_details,
)
from dcgan_lib.evaluation.neighbours import FEWEST_IMAGES, MemorisationTest
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.experiments.generators import MEMORISATION, MOST_COPIES
from dcgan_lib.models.sampling import sample_u8
from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.training.loop import fit


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold what was measured of one run."""

    num_images: int
    seed: int
    passes: float
    """How often each image was seen."""
    memorised: Estimate
    """See `dcgan_lib.evaluation.neighbours.Memorisation`; by features, as is ``copies``."""
    copies: Estimate
    memorised_pixels: Estimate
    copies_pixels: Estimate
    shifted_found: float
    """Share of training images, shifted by one pixel, that count as copies; the lower of the two
    spaces."""
    kid: Estimate
    """Distance of the samples to held-out images."""


@dataclass(frozen=True, kw_only=True)
class MemorisationCurve(Command, verb="memorisation"):
    """Train on more and more images, and measure how much of them the samples repeat."""

    set: str = "rooms"
    """A drawn set with a recipe: rooms or portraits."""
    numbers: tuple[int, ...] = (100, 300, 1_000, 4_000, 16_000, 64_000)
    """Images to learn from."""
    seeds: int = 2
    """Trainings of each."""
    steps: int = 4_000
    """Minibatches of each training."""
    image_size: int = 32
    """Side of the pictures in pixels."""
    base_width: int = 16
    """Of both networks."""
    batch_size: int = 32
    """Images in a minibatch."""
    num_held_out: int = 16_000
    """Unseen images that the samples are also compared with."""
    num_samples: int = 2_000
    """Pictures of each generator."""
    out: Path = local(Path("runs/memorisation"))
    """Folder of the runs; finished ones are not trained again."""
    threads: int | None = local(None)
    """CPU threads; unset: timed, and the fastest kept."""
    record: bool = False
    """Write the claim to the ledger, and the curve beside it."""

    def run(self) -> None:
        """Train what is missing, measure, print, and record if asked."""
        drawn = [name for name in PROCEDURAL if name in recipes()]
        require(self.set in drawn, "--set", self.set, f"a drawn set: {', '.join(drawn)}")
        check_numbers(self, 1, "seeds", "steps")
        check_numbers(self, FEWEST_IMAGES, "num_held_out", "num_samples")
        fewest = min(self.numbers, default=0)
        allowed = f"at least {FEWEST_IMAGES}"
        require(fewest >= FEWEST_IMAGES, "each of numbers", fewest, allowed)
        begun = time.perf_counter()
        numbers = sorted(set(self.numbers))
        for num, seed in product(numbers, range(self.seeds)):
            images = load_image_set(self.set, num_images=num, image_size=self.image_size)
            about = {"source": self.set, "num_images": num, "command": self.command_line()}
            folder = self._folder(num, seed)
            run = fit(self.config(seed), images, folder, threads=self.threads, about=about)
            if run.stopped_by != "steps":
                raise UserError(
                    f"the training on {num:,} images, seed {seed}, ended after {run.step:,} of "
                    f"{self.steps:,} steps ({run.stopped_by}): the same command goes on from there"
                )
        found = self._measure(numbers)
        print(table(found))
        if self.record:
            record_curve(found, self.set, self.command_line(), time.perf_counter() - begun)

    def config(self, seed: int) -> TrainConfig:
        """Return the settings of one training: the set's recipe, smaller and shorter."""
        config = recipe(self.set).config
        size = (self.image_size, self.image_size)
        return replace(
            config,
            model=replace(config.model, image_size=size, base_width=self.base_width),
            batch_size=self.batch_size,
            steps=self.steps,
            precision="float32",
            seed=seed,
        )

    def _folder(self, num_images: int, seed: int) -> Path:
        return self.out / f"{self.set}-{num_images}-{seed}"

    def _measure(self, numbers: Sequence[int]) -> list[Found]:
        train_u8, held_out_u8 = (
            load_image_set(self.set, split, num_images=num, image_size=self.image_size).images_u8
            for split, num in (("train", numbers[-1]), (HELD_OUT, self.num_held_out))
        )
        features = get_features(FEATURES_OF[self.set])
        # The images of a smaller training set are the first of a larger one: all are read once.
        train_nf, held_out_nf = features.extract(train_u8), features.extract(held_out_u8)
        found = []
        for num in numbers:
            ask_features = MemorisationTest(train_nf[:num], held_out_nf)
            ask_pixels = MemorisationTest(train_u8[:num], held_out_u8)
            rows = np.sort(np.random.default_rng(0).permutation(num)[:NUM_SHIFTED])
            shifted_u8 = shifted(train_u8[rows])
            controls = ask_features(features.extract(shifted_u8)), ask_pixels(shifted_u8)
            for seed in range(self.seeds):
                generator = load_generator(self._folder(num, seed))
                samples_u8 = sample_u8(generator, self.num_samples, 1)
                samples_nf = features.extract(samples_u8)
                by_features, by_pixels = ask_features(samples_nf), ask_pixels(samples_u8)
                distance = kid_of_features(
                    held_out_nf[: len(samples_nf)], samples_nf, features.name
                )
                found.append(
                    Found(
                        num_images=num,
                        seed=seed,
                        passes=self.steps * self.batch_size / num,
                        memorised=by_features.memorised,
                        copies=by_features.copies,
                        memorised_pixels=by_pixels.memorised,
                        copies_pixels=by_pixels.copies,
                        shifted_found=min(control.copies.value for control in controls),
                        kid=distance.estimate,
                    )
                )
                print(table(found[-1:]).splitlines()[-1], flush=True)
        return found


def table(found: Sequence[Found]) -> str:
    """Lay the curve out as text, one line a run."""
    head = f"{'images':>7} {'seed':>4} {'passes':>7} {'memorised, %':>22} {'copies, %':>10}"
    lines = [f"{head} {'memorised in pixels':>22} {'copies':>7} {'distance':>8} {'control':>8}"]
    for run in found:
        by_features, by_pixels = (
            share.scaled(100).text(".1f") for share in (run.memorised, run.memorised_pixels)
        )
        lines.append(
            f"{run.num_images:>7,} {run.seed:>4} {run.passes:>7.1f} {by_features:>22} "
            f"{100 * run.copies.value:>10.1f} {by_pixels:>22} "
            f"{100 * run.copies_pixels.value:>7.1f} {run.kid.value:>8.2f} {run.shifted_found:>8.0%}"
        )
    return "\n".join(lines)


def record_curve(found: Sequence[Found], set_name: str, command: str, seconds: float) -> Result:
    """Write the curve, and the claim on a drawn set: with many images, samples are not copies.

    Copies are counted, and not the memorised share, whose intervals are up to 100 points wide here.
    """
    fewest, most = min(run.num_images for run in found), max(run.num_images for run in found)
    first = {run.seed: run for run in found if run.num_images == fewest}
    last = {run.seed: run for run in found if run.num_images == most}
    highest = max(max(run.copies.high, run.copies_pixels.high) for run in last.values())
    checks = {
        f"from {most:,} images at most {100 * MOST_COPIES:.0f} % of the samples are copies, by "
        "features and by pixels, in every seed": highest <= MOST_COPIES,
        f"from {fewest:,} images more are, by pixels, intervals apart, in every seed": all(
            first[seed].copies_pixels.low > last[seed].copies_pixels.high for seed in last
        ),
        f"{CONTROL}training images that are shifted by a pixel are found": all(
            run.shifted_found >= LEAST_FOUND for run in found
        ),
    }
    about = {"set": set_name, "command": command, "seconds": round(seconds, 1)}
    save_details(f"memorisation/{set_name}", {**about, "runs": [asdict(run) for run in found]})
    shares = [run.copies_pixels for run in last.values()]
    value = Estimate(
        float(np.mean([share.value for share in shares])),
        min(share.low for share in shares),
        max(share.high for share in shares),
    )
    few = ", ".join(f"{100 * run.copies_pixels.value:.1f}" for run in first.values())
    return record(
        id_on(MEMORISATION, set_name),
        value.scaled(100),
        unit="%",
        n=len(last),
        data=f"{set_name}, {most:,} images to learn from",
        command=command,
        seconds=seconds,
        seed=0,
        checks=checks,
        caveat=Caveat(
            kind="exploratory",
            why="the memorised share was to be the measure; after a look at it copies are counted",
        ),
        notes=(
            f"copies by pixels, mean of {len(last)} trainings, with the ends of all their "
            f"intervals; from {fewest:,} images: {few} %"
        ),
    )


def load_curve(set_name: str = "rooms") -> tuple[Found, ...]:
    """Return the curve that was recorded."""
    command = MemorisationCurve(set=set_name, record=True).command_line()
    kept = load_details(f"memorisation/{set_name}", command)
    return tuple(
        Found(**{key: Estimate(*v) if isinstance(v, list) else v for key, v in run.items()})
        for run in kept["runs"]
    )
