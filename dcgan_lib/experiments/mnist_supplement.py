"""Is batch norm better without its scale and bias, on MNIST? ``python -m dcgan_lib.experiments.mnist_supplement``.

Section 8.1 says so of both networks, without a number. Here both are trained both ways, with everything else equal,
and each generator is judged by nearest neighbours among its samples. Axes: q test images, s draws.
"""

import argparse
import hashlib
import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torchvision.transforms import v2
from tqdm import tqdm
from tyro.conf import Positional

from dcgan_lib.config import TrainConfig, recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.generators import digit_report
from dcgan_lib.evaluation.ledger import (
    CLAIMS,
    NumericRule,
    Result,
    check_command,
    load_details,
    load_results,
    record,
    save_details,
)
from dcgan_lib.evaluation.neighbours import NearestSearch
from dcgan_lib.evaluation.probes import Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, mean_interval
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import find_run, load_generator
from dcgan_lib.training.loop import fit

PORTION = 1_000
Portion = tuple[np.ndarray, np.ndarray]


class LabelledStream(Protocol):
    """What every stream offers."""

    key: str
    """Tells one stream from another; equal keys give equal images."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    length: int | None
    """How many images there are; None when there is no end."""

    def portion(self, index: int) -> Portion:
        """Return images ``index * PORTION`` and on: uint8 (n, c, h, w) and int64 (n,), n at most `PORTION`."""


class RealStream:
    """Give the images of a set, shuffled.

    Parameters
    ----------
    image_set : ImageSet
        With labels.
    seed : int
        Of the order.
    """

    def __init__(self, image_set: ImageSet, seed: int) -> None:
        _check_labels(image_set)
        self._set, self.length, self.image_size = image_set, len(image_set), image_set.image_size
        self._order = np.random.default_rng(seed).permutation(len(image_set))
        self.key = f"real {image_set.name} {len(image_set)} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the images of one portion and their labels."""
        rows = self._order[index * PORTION : (index + 1) * PORTION]
        return self._set.images_u8[rows], self._set.labels[rows]


class GeneratedStream:
    """Give a conditional generator's pictures, equally many of each class.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    seed : int
        Of the latent vectors.

    Raises
    ------
    UserError
        If the generator knows no classes.
    """

    def __init__(self, checkpoint: str, seed: int) -> None:
        self._generator, self._seed, self.length = load_generator(checkpoint), seed, None
        self._generator.to(memory_format=torch.channels_last)
        self.image_size = self._generator.config.image_size
        if not self._generator.config.num_classes:
            raise UserError(
                f"{checkpoint} draws without labels: choose a conditional generator, such as mnist-paper"
            )
        weights = (find_run(checkpoint) / "generator.safetensors").read_bytes()
        self.key = f"generated {hashlib.sha256(weights).hexdigest()} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the pictures of one portion and the classes they were asked for."""
        config = self._generator.config
        z_bd = sample_latents(PORTION, config, seeded(_seed(self._seed, index)))
        labels_b = torch.arange(index * PORTION, (index + 1) * PORTION) % config.num_classes
        return generate_u8(self._generator, z_bd, labels_b), labels_b.numpy()


class DeformedStream:
    """Give real images, shifted and bent at random, equally many of each class, as InfiMNIST does.

    Parameters
    ----------
    image_set : ImageSet
        With labels.
    seed : int
        Of the choice of images and their deformations.
    max_shift : int, default 1
        Largest shift in pixels, along each side.
    alpha, sigma : float
        Strength and smoothness of torchvision's elastic transform, in pixels.

    Raises
    ------
    UserError
        If the set has no labels, or a strength is out of range.

    Notes
    -----
    Loosli, Canu and Bottou (2007) bend digits along tangent vectors; elastic fields are the nearest thing in
    torchvision. Ten images, one of each class, share a field: that takes an eighth of the time, and no two
    of a class are bent alike.
    """

    def __init__(
        self,
        image_set: ImageSet,
        seed: int,
        *,
        max_shift: int = 1,
        alpha: float = 17.0,
        sigma: float = 4.0,
    ) -> None:
        _check_labels(image_set)
        self._images_u8, self._seed, self.length = image_set.images_u8, seed, None
        self._rows_of = [
            np.flatnonzero(image_set.labels == label) for label in range(image_set.num_classes)
        ]
        self.image_size = height, width = image_set.image_size
        if max_shift < 0 or alpha < 0 or not 0 < 4 * sigma < min(height, width) - 1:
            raise UserError(
                f"a deformation needs max_shift and alpha of 0 or more, and a sigma above 0 and below a quarter of the "
                f"side, {min(height, width)} pixels, but got {max_shift}, {alpha:g} and {sigma:g}"
            )
        self._bend = v2.Compose(
            [
                v2.RandomAffine(0, translate=(max_shift / width, max_shift / height)),
                v2.ElasticTransform(alpha, sigma),
            ]
        )
        settings = f"max_shift {max_shift} alpha {alpha} sigma {sigma}"
        self.key = f"deformed {image_set.name} {len(image_set)} {settings} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the deformed images of one portion and their labels."""
        rng, num_classes = np.random.default_rng([self._seed, index]), len(self._rows_of)
        labels = np.arange(index * PORTION, (index + 1) * PORTION) % num_classes
        places = rng.random(PORTION)
        choices = [self._rows_of[label] for label in labels]
        rows = [rows[int(place * len(rows))] for rows, place in zip(choices, places, strict=True)]
        images = torch.from_numpy(self._images_u8[rows])
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global random numbers
            torch.manual_seed(_seed(self._seed, index))
            bent = torch.cat([self._bend(group) for group in images.split(num_classes)])
        return bent.numpy(), labels


class RelabelledStream:
    """Give another stream's images, labelled as a classifier names them: what remains of an error is not the labels'.

    Parameters
    ----------
    stream : LabelledStream
        Where the images come from.
    probe : Probe
        With a class head called "label", such as ``load_probe("probe-mnist")``.
    """

    def __init__(self, stream: LabelledStream, probe: Probe) -> None:
        self._stream, self._probe = stream, probe
        self.length, self.image_size, self.key = (
            stream.length,
            stream.image_size,
            f"{stream.key} relabelled",
        )

    def portion(self, index: int) -> Portion:
        """Return the images of one portion and the classes that the classifier names."""
        images_u8, _ = self._stream.portion(index)
        return images_u8, digit_report(images_u8, self._probe).named


def _seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)


def _check_labels(image_set: ImageSet) -> None:
    if image_set.labels is None:
        raise UserError(
            f"nearest neighbours need classes to compare, but {image_set.name!r} has none"
        )


SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class NeighbourTest:
    """Hold what 1-nearest-neighbour makes of the test images.

    Parameters
    ----------
    curve : tuple of (int, float)
        Number of references and test error in per cent: 1,000, 2,000, 5,000 and so on, and the last.
    named : ndarray
        int64, shape (q,): the label of each test image's nearest reference at the end.
    seconds : float
        Wall time, earlier parts of a resumed test included.
    """

    curve: tuple[tuple[int, float], ...]
    named: np.ndarray
    seconds: float


def neighbour_test(
    stream: LabelledStream,
    test: ImageSet,
    num_references: int,
    *,
    state: Path | None = None,
    progress: bool = False,
) -> NeighbourTest:
    """Classify images by the label of their nearest reference.

    Parameters
    ----------
    stream : LabelledStream
        Where the references come from.
    test : ImageSet
        What is classified, with labels.
    num_references : int
        How many references to compare with, a multiple of 1,000.
    state : Path, optional
        File that is written every half minute and removed at the end; a test that was stopped goes on from it.
    progress : bool, default False
        Show a progress bar with the time left.

    Raises
    ------
    UserError
        If the number does not fit, or the file holds another test.

    Notes
    -----
    The distance is Euclidean, between pixels of 8 bits, as in the authors' code.
    """
    if num_references < PORTION or num_references % PORTION:
        raise UserError(
            f"references come by the {PORTION:,}, but {num_references:,} were asked for"
        )
    if stream.length is not None and num_references > stream.length:
        raise UserError(
            f"there are {stream.length:,} images to compare with, but {num_references:,} were asked for"
        )
    count = _Count(stream, test)
    if state is not None and state.exists():
        count.load(state)
    last_save = time.monotonic()
    total, done = num_references // PORTION, count.search.num_references // PORTION
    for index in tqdm(
        range(done, total), initial=done, total=total, unit="k", disable=not progress
    ):
        count.add(*stream.portion(index))
        if state is not None and time.monotonic() - last_save > SAVE_SECONDS:
            count.save(state)
            last_save = time.monotonic()
    count.note_point()
    if state is not None:
        state.unlink(missing_ok=True)
    return NeighbourTest(tuple(sorted(count.curve.items())), count.named, count.seconds)


class _Count:
    """A test under way, and how it is kept on disk."""

    def __init__(self, stream: LabelledStream, test: ImageSet) -> None:
        if test.labels is None:
            raise UserError(
                f"nearest neighbours need classes to compare, but {test.name!r} has none"
            )
        self.search, self._labels = NearestSearch(test.images_u8), test.labels
        self.named, self.curve = np.full(len(test), -1), {}
        self.key = (
            f"{stream.key} | {hashlib.sha256(np.ascontiguousarray(test.images_u8)).hexdigest()}"
        )
        self._earlier, self._begun = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._begun

    def add(self, images_u8: np.ndarray, labels: np.ndarray) -> None:
        before = self.search.num_references
        self.search.add(images_u8)
        changed = self.search.indices >= before
        self.named[changed] = labels[self.search.indices[changed] - before]
        if str(self.search.num_references).strip("0") in ("1", "2", "5"):
            self.note_point()

    def note_point(self) -> None:
        self.curve[self.search.num_references] = 100 * float((self.named != self._labels).mean())

    def save(self, path: Path) -> None:
        about = {"key": self.key, "seconds": self.seconds, "curve": list(self.curve.items())}
        about["num_references"] = self.search.num_references
        buffer = io.BytesIO()
        np.savez(
            buffer,
            distances=self.search.distances,
            indices=self.search.indices,
            named=self.named,
            about=np.array(json.dumps(about)),
        )
        atomic_write(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        try:
            with np.load(path) as file:
                about = json.loads(str(file["about"]))
                parts = {name: file[name] for name in ("distances", "indices", "named")}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is not a test's state ({error}): delete it to begin anew"
            ) from error
        if about["key"] != self.key:
            raise UserError(
                f"{path} holds the state of another test: delete it, or name another file"
            )
        self.search.distances, self.search.indices, self.named = parts.values()
        self.search.num_references, self._earlier = about["num_references"], about["seconds"]
        self.curve = {int(number): error for number, error in about["curve"]}


def error_estimate(tests: Sequence[NeighbourTest], labels: np.ndarray) -> Estimate:
    """Return the mean test error over draws, in per cent, and its interval over the choice of test images.

    Parameters
    ----------
    tests : sequence of NeighbourTest
        Draws of one stream on the same test images.
    labels : ndarray
        int64, shape (q,).
    """
    wrong_qs = np.stack([test.named != labels for test in tests], 1)
    return bootstrap_interval(np.mean, wrong_qs).scaled(100)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Hold what is kept beside a row of Table 3, for figures.

    Parameters
    ----------
    draws : list of list of (int, float)
        For each draw, numbers of references and test errors in per cent.
    confusion : ndarray
        int64, classes x classes: test images of each class by the label of their nearest reference, over all draws.
    """

    draws: list[list[tuple[int, float]]]
    confusion: np.ndarray


def check_row(id: str, split: str, command: str, root: Path | None = None) -> None:
    """Refuse, before anything is counted, what `record_row` would refuse after it.

    Raises
    ------
    UserError
        If the id is no row of Table 3 that is measured so, the split is not the test split, the command names an
        absolute path, or the row of real digits is missing that this one is compared with.
    """
    rows = [
        row
        for row in CLAIMS
        if row.startswith("table3.") and row not in ("table3.align", "table3.bn-affine")
    ]
    if id not in rows:
        raise UserError(f"Table 3 has no row {id!r}; its rows are: {', '.join(rows)}")
    if split != "test":
        raise UserError(
            f"a row of Table 3 is an error on the test split, but this is on {split}: add --split test"
        )
    check_command(id, command, "mnist")
    _real_row(id, root)


def _real_row(id: str, root: Path | None) -> Result | None:
    """Return the row of as many real digits, if a row without a number in the paper is compared with it."""
    if isinstance(CLAIMS[id].rule, NumericRule):
        return None
    number = id.rpartition(".")[2]
    rows = [
        row for row in load_results(root) if row.id == f"table3.real.{number}" and row.is_measured
    ]
    if not rows:
        raise UserError(f"{id} is compared with table3.real.{number}: measure that first")
    return rows[0]


def record_row(
    id: str,
    tests: Sequence[NeighbourTest],
    test: ImageSet,
    *,
    command: str,
    seed: int,
    checkpoint: str | None = None,
    root: Path | None = None,
) -> Result:
    """Enter the mean error over draws into the ledger, and keep the curves beside it.

    Parameters
    ----------
    id : str
        Such as ``table3.dcgan.50k``.
    tests : sequence of NeighbourTest
        Draws of one stream.
    test : ImageSet
        What was classified.
    command, seed, checkpoint : optional
        See `record`.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Raises
    ------
    UserError
        See `check_row`.
    """
    check_row(id, "test", command, root)
    ends = [draw.curve[-1] for draw in tests]
    notes = f"1-NN, Euclidean, 8-bit pixels, {ends[0][0]:,} references; n counts test images"
    if len(tests) > 1:
        mean = mean_interval(np.array([error for _, error in ends]))
        notes += f"; {len(tests)} draws: {', '.join(f'{error:.2f}' for _, error in ends)} %"
        notes += f", 95 % interval over draws {mean.low:.2f} to {mean.high:.2f} %"
    error, real = error_estimate(tests, test.labels), _real_row(id, root)
    checks = real and {
        f"as many real digits, {real.value:.2f} % wrong, do better": error.low > real.value
    }
    row = record(
        id,
        value=error,
        checks=checks,
        unit="%",
        n=len(test),
        data=f"{test.name}, test",
        command=command,
        seconds=sum(draw.seconds for draw in tests),
        seed=seed,
        checkpoint=checkpoint,
        notes=notes,
        root=root,
    )
    confusion = np.zeros((test.num_classes, test.num_classes), int)
    for draw in tests:
        np.add.at(confusion, (test.labels, draw.named), 1)
    kept = {"draws": [list(draw.curve) for draw in tests], "confusion": confusion.tolist()}
    save_details(f"curves/{id}", kept, root)
    return row


def load_curves(id: str, root: Path | None = None) -> Curves:
    """Return what `record_row` kept beside a row.

    Raises
    ------
    UserError
        If the row was not measured.
    """
    kept = load_details(f"curves/{id}", f"dcgan neighbours ... --record {id}", root)
    draws = [[(int(number), float(error)) for number, error in draw] for draw in kept["draws"]]
    return Curves(draws=draws, confusion=np.array(kept["confusion"]))


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Classify real test images by their nearest generated, real or deformed neighbour (Table 3)."""

    source: Positional[str]
    """real, deformed, a committed conditional checkpoint (mnist-paper) or a run's folder."""
    num_images: int = 50_000
    """Images to compare with, in thousands."""
    draws: int = 1
    """Repeat with this many seeds, and average."""
    split: Literal["validation", "test"] = "validation"
    """What is classified. Choose on validation; touch test once."""
    seed: int = 0
    """Of the first draw."""
    max_shift: int = 1
    """Of deformed images, in pixels."""
    alpha: float = 17.0
    """Strength of the elastic deformation, in pixels."""
    relabel: bool = False
    """Label each image as the digit classifier names it, to see what wrong labels cost."""
    state: Path | None = None
    """File to resume from if the count is stopped; unset: begin anew."""
    record: str | None = None
    """Enter the error into the claims ledger under this id, such as table3.dcgan.50k."""

    def run(self) -> None:
        """Count, print, and record if asked."""
        from dcgan_lib.data.load import load_image_set

        if self.draws < 1:
            raise UserError(f"draws must be at least 1, but it is {self.draws}")
        if self.record:
            if self.relabel:
                raise UserError(
                    "Table 3 keeps the labels that were asked for: leave out --relabel, or --record"
                )
            check_row(self.record, self.split, self._command())
        tests = []
        for seed in range(self.seed, self.seed + self.draws):
            stream = self._relabelled(self._stream(seed))
            test = load_image_set("mnist", self.split, image_size=stream.image_size)
            state = self.state and self.state.with_name(f"{self.state.name}.{seed}")
            tests.append(neighbour_test(stream, test, self.num_images, state=state, progress=True))
            points = "  ".join(f"{number:,}: {error:.2f} %" for number, error in tests[-1].curve)
            print(f"seed {seed}  {points}", flush=True)
        value, low, high = error_estimate(tests, test.labels)
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''}"
        print(f"{self.split} error {value:.2f} % [{low:.2f}, {high:.2f}], n {len(test):,}, {draws}")
        if self.record:
            checkpoint = None if self.source in ("real", "deformed") else self.source
            row = record_row(
                self.record,
                tests,
                test,
                command=self._command(),
                seed=self.seed,
                checkpoint=checkpoint,
            )
            print(f"recorded {row.id}: {row.verdict}")

    def _stream(self, seed: int) -> "LabelledStream":
        from dcgan_lib.data.load import load_image_set

        if self.source not in ("real", "deformed"):
            return GeneratedStream(self.source, seed)
        train = load_image_set("mnist", image_size=28)
        if self.source == "real":
            return RealStream(train, seed)
        return DeformedStream(train, seed, max_shift=self.max_shift, alpha=self.alpha)

    def _relabelled(self, stream: "LabelledStream") -> "LabelledStream":
        from dcgan_lib.evaluation.probes import load_probe

        return RelabelledStream(stream, load_probe("probe-mnist")) if self.relabel else stream

    def _command(self) -> str:
        words = [
            "dcgan neighbours",
            self.source,
            f"--num-images {self.num_images}",
            f"--draws {self.draws}",
        ]
        words += [f"--split {self.split}", f"--seed {self.seed}"]
        if self.source == "deformed":
            words += [f"--max-shift {self.max_shift}", f"--alpha {self.alpha:g}"]
        return " ".join([*words, f"--record {self.record}"])


RECIPES = {"DCGAN": "paper-mnist", "GAN": "mnist-gan"}
NUM_REFERENCES, NUM_DRAWS = 50_000, 3
CLAIM = "table3.bn-affine"
COMMAND = "python -m dcgan_lib.experiments.mnist_supplement --steps {steps} --precision {precision} --record"


def study_config(network: str, affine: bool, steps: int, precision: str = "float32") -> TrainConfig:
    """Return a network's recipe with or without batch norm's scale and bias."""
    config = recipe(RECIPES[network]).config
    return replace(
        config, model=replace(config.model, bn_affine=affine), steps=steps, precision=precision
    )


def wrong_answers(
    config: TrainConfig,
    folder: Path,
    *,
    split: str,
    image_set: str = "mnist",
    num_references: int = NUM_REFERENCES,
) -> np.ndarray:
    """Train, or go on with a run, and return which images each draw's nearest neighbours get wrong: bool, (q, s)."""
    size = config.model.image_size
    run = fit(
        config,
        load_image_set(image_set, image_size=size),
        folder,
        device="cpu",
        about={"source": image_set},
    )
    if run.stopped_by != "steps":
        raise UserError(
            f"training in {folder} stopped at step {run.step:,} ({run.stopped_by}): start again to resume"
        )
    test = load_image_set(image_set, split, image_size=size)
    streams = (GeneratedStream(str(folder), seed) for seed in range(NUM_DRAWS))
    return np.stack(
        [neighbour_test(stream, test, num_references).named != test.labels for stream in streams], 1
    )


def gain(with_qs: np.ndarray, without_qs: np.ndarray) -> Estimate:
    """Return by how many points the error is lower without scale and bias, paired over the test images."""
    return bootstrap_interval(lambda a, b: float((a.mean() - b.mean()) * 100), with_qs, without_qs)


def record_claim(
    wrong: dict[tuple[str, bool], np.ndarray],
    steps: int,
    precision: str,
    seconds: float,
    root: Path | None = None,
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
        CLAIM,
        value=gains["DCGAN"],
        unit="points",
        n=len(wrong["DCGAN", True]),
        data="mnist, test",
        seconds=seconds,
        command=COMMAND.format(steps=steps, precision=precision),
        root=root,
        checks={
            f"without scale and bias, the {network}'s error is lower by more than chance": gains[
                network
            ].low
            > 0
            for network in RECIPES
        },
        notes=f"{told}. {steps:,} minibatches, one run each; {NUM_REFERENCES:,} samples, {NUM_DRAWS} draws",
    )


@answers_mistakes("bn_affine_study")
def main_bn_affine(arguments: Sequence[str] | None = None) -> int:
    """Train both networks both ways, print the errors of their neighbours, and record the claim if asked."""
    parser = argparse.ArgumentParser(
        prog="dcgan_lib.experiments.mnist_supplement", description=main_bn_affine.__doc__
    )
    parser.add_argument(
        "--steps", type=int, default=78_000, help="of each run; the authors' 200 passes by default"
    )
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/bn-affine"), help="where runs are kept, and resumed"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="judge on test digits and write the claim to the ledger",
    )
    chosen = parser.parse_args(arguments)
    begun, wrong = time.monotonic(), {}
    for network in RECIPES:
        for affine in (True, False):
            config = study_config(network, affine, chosen.steps, chosen.precision)
            folder = chosen.runs / f"{network.lower()}-{'with' if affine else 'without'}"
            split = "test" if chosen.record else "validation"
            wrong[network, affine] = wrong_answers(config, folder, split=split)
            print(
                f"{folder.name}: {100 * wrong[network, affine].mean():.2f} % wrong ({split})",
                flush=True,
            )
    if chosen.record:
        row = record_claim(wrong, chosen.steps, chosen.precision, time.monotonic() - begun)
        print(f"{row.id}: {row.verdict}. {row.notes}")
    return 0


if __name__ == "__main__":
    sys.exit(main_bn_affine())
