"""The MNIST supplement (section 8.1): Table 3, and batch norm with and without its scale and bias.

Real test digits are named by their nearest neighbour among generated, real or deformed ones, so a
generator is good when its digits tell the classes apart. The deformations are home-made: they stand
in for the paper's InfiMNIST, and the rows table3.infimnist.* hold them.

Axes: q test images, s draws; ``*_u8`` images n x c x h x w, 0..255.
"""

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torchvision.transforms import v2
from tqdm import tqdm
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import TrainConfig, recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError, check_number, check_numbers
from dcgan_lib.evaluation.generators import name_digits
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    check_command,
    claims,
    load_details,
    load_row,
    record,
    save_details,
)
from dcgan_lib.evaluation.neighbours import NearestSearch
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, mean_interval
from dcgan_lib.models.sampling import sample_u8
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import find_run, load_generator
from dcgan_lib.training.loop import fit

# ---------------------------------------------------------------- Table 3

ROW_COMMAND = "dcgan neighbours"


@dataclass(frozen=True, kw_only=True)
class Neighbours(Command, verb="neighbours"):
    """Classify test images by their nearest generated, real or deformed neighbour (Table 3)."""

    source: Positional[str]
    """real, deformed (home-made deformations of MNIST), a committed conditional checkpoint
    (mnist-paper) or a run's folder."""
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
    state: Path | None = local(None)
    """File to resume from if the count is stopped; unset: begin anew."""
    record: str | None = None
    """Enter the error into the claims ledger under this id, such as table3.dcgan.50k."""

    def run(self) -> None:
        """Count, print, and record if asked."""
        check_number(self, "draws", 1)
        check_numbers(self, 0, "max_shift", "alpha")
        if self.record:
            self._check_record()
        classifier = load_probe("probe-mnist") if self.relabel else None
        tests = []
        for seed in range(self.seed, self.seed + self.draws):
            stream = self._stream(seed)
            test = load_image_set("mnist", self.split, image_size=stream.image_size)
            state = self.state and self.state.with_name(f"{self.state.name}.{seed}")
            how = {"classifier": classifier, "state": state, "progress": True}
            tests.append(neighbour_test(stream, test, self.num_images, **how))
            points = "  ".join(f"{number:,}: {error:.2f} %" for number, error in tests[-1].curve)
            print(f"seed {seed}  {points}", flush=True)
        value, low, high = error_estimate(tests, test.labels)
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''}"
        print(f"{self.split} error {value:.2f} % [{low:.2f}, {high:.2f}], n {len(test):,}, {draws}")
        if self.record:
            checkpoint = None if self.source in ("real", "deformed") else self.source
            about = {"seed": self.seed, "checkpoint": checkpoint}
            record_row(self.record, tests, test, command=self.command_line(), **about)

    def _check_record(self) -> None:
        rows = [
            id for id, claim in claims().items() if (claim.command or "").startswith(ROW_COMMAND)
        ]
        if self.record not in rows:
            raise UserError(f"Table 3 has no row {self.record!r}; its rows are: {', '.join(rows)}")
        if self.split != "test":
            raise UserError(
                f"a row of Table 3 is an error on the test split, but this is on {self.split}: add "
                "--split test"
            )
        if self.relabel:
            raise UserError(
                "Table 3 keeps the labels that were asked for: leave out --relabel, or --record"
            )
        check_command(self.record, self.command_line(), "mnist")
        _real_row(self.record)

    def _stream(self, seed: int) -> "Stream":
        if self.source not in ("real", "deformed"):
            return GeneratedStream(self.source, seed)
        train = load_image_set("mnist", image_size=28)
        if self.source == "real":
            return RealStream(train, seed)
        return DeformedStream(train, seed, max_shift=self.max_shift, alpha=self.alpha)


def record_row(
    id: str,
    tests: Sequence["NeighbourTest"],
    test: ImageSet,
    *,
    command: str,
    seed: int,
    checkpoint: str | None = None,
) -> Result:
    """Enter the mean error over draws into the ledger, and keep the curves beside it."""
    ends = [draw.curve[-1] for draw in tests]
    notes = f"1-NN, Euclidean, 8-bit pixels, {ends[0][0]:,} references; n counts test images"
    if checkpoint is not None:  # the interval does not cover what another seed would train
        notes += "; one training"
    if len(tests) > 1:
        mean = mean_interval(np.array([error for _, error in ends]))
        notes += f"; {len(tests)} draws: {', '.join(f'{error:.2f}' for _, error in ends)} %"
        notes += f", 95 % interval over draws {mean.low:.2f} to {mean.high:.2f} %"
    error, real = error_estimate(tests, test.labels), _real_row(id)
    row = record(
        id,
        error,
        checks=real
        and {f"as many real digits, {real.value:.2f} % wrong, do better": error.low > real.value},
        unit="%",
        n=len(test),
        data=f"{test.name}, test",
        command=command,
        seconds=sum(draw.seconds for draw in tests),
        seed=seed,
        checkpoint=checkpoint,
        notes=notes,
    )
    save_details(f"curves/{id}", {"draws": [list(draw.curve) for draw in tests]})
    return row


def _real_row(id: str) -> Result | None:
    """Return the row of as many real digits, for a row that is judged by it."""
    if claims()[id].rule.kind != "checks":
        return None
    return load_row(f"table3.real.{id.rpartition('.')[2]}")


def load_curves(id: str) -> dict[str, Any]:
    """Return what `record_row` kept beside a row.

    ``draws``: for each draw, pairs of the number of references and the test error in per cent.
    """
    return load_details(f"curves/{id}", claims()[id].command)


def error_estimate(tests: Sequence["NeighbourTest"], labels_q: np.ndarray) -> Estimate:
    """Return the mean test error over draws, in per cent, with its interval over test images."""
    wrong_qs = np.stack([test.named != labels_q for test in tests], 1)
    return bootstrap_interval(np.mean, wrong_qs).scaled(100)


# ---------------------------------------------------------------- the count

SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class NeighbourTest:
    """Hold what 1-nearest-neighbour makes of the test images."""

    curve: tuple[tuple[int, float], ...]
    """Number of references (1,000, 2,000, 5,000 ... and the last) and test error in per cent."""
    named: np.ndarray
    """int64, shape (q,): the label of each test image's nearest reference at the end."""
    seconds: float
    """Wall time, earlier parts of a resumed test included."""


def neighbour_test(
    stream: "Stream",
    test: ImageSet,
    num_references: int,
    *,
    classifier: Probe | None = None,
    state: Path | None = None,
    progress: bool = False,
) -> NeighbourTest:
    """Classify images by the label of their nearest among a multiple of 1,000 references.

    The distance is Euclidean, between pixels of 8 bits, as in the authors' code. A digit
    ``classifier`` names the references anew: what remains of an error is then not the labels'. The
    ``state`` file is written every half minute and removed at the end; a test that was stopped goes
    on from it.
    """
    if num_references < PORTION or num_references % PORTION:
        raise UserError(
            f"references come by the {PORTION:,}, but {num_references:,} were asked for"
        )
    if stream.length is not None and num_references > stream.length:
        raise UserError(
            f"there are {stream.length:,} images to compare with, but {num_references:,} were "
            "asked for"
        )
    _check_labels(test)
    search, named, curve = NearestSearch(test.images_u8), np.full(len(test), -1), {}
    digest = hashlib.sha256(np.ascontiguousarray(test.images_u8)).hexdigest()
    key = f"{stream.key}{' relabelled' if classifier else ''} | {digest}"
    begun = last_save = time.monotonic()
    if state is not None and state.exists():
        kept = _load_state(state, key)
        search.distances, search.indices, named = (
            kept[name] for name in ("distances", "indices", "named")
        )
        search.num_references = int(kept["num_references"])
        curve = {int(number): float(error) for number, error in kept["curve"]}
        begun -= float(kept["seconds"])
    total, done = num_references // PORTION, search.num_references // PORTION
    for index in tqdm(
        range(done, total), initial=done, total=total, unit="k", disable=not progress
    ):
        images_u8, labels = stream.portion(index)
        if classifier is not None:
            labels, _ = name_digits(images_u8, classifier)
        before = search.num_references
        search.add(images_u8)
        changed = search.indices >= before
        named[changed] = labels[search.indices[changed] - before]
        number = search.num_references
        if index + 1 == total or str(number).strip("0") in ("1", "2", "5"):
            curve[number] = 100 * float((named != test.labels).mean())
        if state is not None and time.monotonic() - last_save > SAVE_SECONDS:
            last_save, buffer = time.monotonic(), io.BytesIO()
            np.savez(
                buffer,
                key=key,
                distances=search.distances,
                indices=search.indices,
                named=named,
                num_references=number,
                curve=list(curve.items()),
                seconds=last_save - begun,
            )
            atomic_write(state, buffer.getvalue())
    if state is not None:
        state.unlink(missing_ok=True)
    return NeighbourTest(tuple(sorted(curve.items())), named, time.monotonic() - begun)


def _load_state(path: Path, key: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            kept = dict(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a test's state ({error}): delete it to begin anew"
        ) from error
    if kept.get("key") != key:
        raise UserError(f"{path} holds the state of another test: delete it, or name another file")
    return kept


# ---------------------------------------------------------------- where the references come from

PORTION = 1_000
Portion = tuple[np.ndarray, np.ndarray]


class Stream:
    """References in portions."""

    key: str
    """Tells one stream from another; equal keys give equal images."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    length: int | None = None
    """None when there is no end."""

    def portion(self, index: int) -> Portion:
        """Return images ``index * PORTION`` and on, `PORTION` at most, and their int64 labels."""
        raise NotImplementedError


class RealStream(Stream):
    """Give the images of a set with labels, shuffled by the seed."""

    def __init__(self, image_set: ImageSet, seed: int) -> None:
        _check_labels(image_set)
        self._set, self.length, self.image_size = image_set, len(image_set), image_set.image_size
        self._order = np.random.default_rng(seed).permutation(len(image_set))
        self.key = f"real {image_set.name} {len(image_set)} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the images of one portion and their labels."""
        rows = self._order[index * PORTION : (index + 1) * PORTION]
        return self._set.images_u8[rows], self._set.labels[rows]


class GeneratedStream(Stream):
    """Give a conditional generator's pictures, equally many of each class."""

    def __init__(self, checkpoint: str, seed: int) -> None:
        self._generator, self._seed = load_generator(checkpoint), seed
        self._generator.to(memory_format=torch.channels_last)
        self.image_size = self._generator.config.image_size
        if not self._generator.config.num_classes:
            raise UserError(
                f"{checkpoint} draws without labels: choose a conditional generator, such as "
                "mnist-paper"
            )
        weights = (find_run(checkpoint) / "generator.safetensors").read_bytes()
        self.key = f"generated {hashlib.sha256(weights).hexdigest()} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the pictures of one portion and the classes they were asked for."""
        labels = torch.from_numpy(_balanced(index, self._generator.config.num_classes))
        seed = _seed(self._seed, index)
        return sample_u8(self._generator, PORTION, seed, labels), labels.numpy()


class DeformedStream(Stream):
    """Give real images, shifted and bent at random, equally many of each class.

    Home-made, in place of the paper's InfiMNIST. The shift goes up to ``max_shift`` pixels along
    each side; ``alpha`` and ``sigma`` are strength and smoothness of torchvision's elastic
    transform, in pixels. Loosli, Canu and Bottou (2007) bend digits along tangent vectors; elastic
    fields are the nearest thing in torchvision. Ten images, one of each class, share a field: that
    takes an eighth of the time, and no two of a class are bent alike.
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
        self._images_u8, self._seed = image_set.images_u8, seed
        kinds = range(image_set.num_classes)
        self._rows_of = [np.flatnonzero(image_set.labels == label) for label in kinds]
        self.image_size = height, width = image_set.image_size
        shift = v2.RandomAffine(0, translate=(max_shift / width, max_shift / height))
        self._bend = v2.Compose([shift, v2.ElasticTransform(alpha, sigma)])
        settings = f"max_shift {max_shift} alpha {alpha} sigma {sigma}"
        self.key = f"deformed {image_set.name} {len(image_set)} {settings} seed {seed}"

    def portion(self, index: int) -> Portion:
        """Return the deformed images of one portion and their labels."""
        labels = _balanced(index, len(self._rows_of))
        places = np.random.default_rng([self._seed, index]).random(PORTION)
        choices = [self._rows_of[label] for label in labels]
        rows = [rows[int(place * len(rows))] for rows, place in zip(choices, places, strict=True)]
        images = torch.from_numpy(self._images_u8[rows])
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global random numbers
            torch.manual_seed(_seed(self._seed, index))
            bent = torch.cat([self._bend(group) for group in images.split(len(self._rows_of))])
        return bent.numpy(), labels


def _balanced(index: int, num_classes: int) -> np.ndarray:
    return np.arange(index * PORTION, (index + 1) * PORTION) % num_classes


def _seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)


def _check_labels(image_set: ImageSet) -> None:
    if image_set.labels is None:
        raise UserError(
            f"nearest neighbours need classes to compare, but {image_set.name!r} has none"
        )


# ---------------------------------------------------------------- batch norm's scale and bias

RECIPES = {"DCGAN": "paper-mnist", "GAN": "mnist-gan"}
PAPER_STEPS, PAPER_PASSES = 78_000, 200
NUM_REFERENCES, NUM_DRAWS = 50_000, 3


@dataclass(frozen=True, kw_only=True)
class BnAffine(Command, verb="bn-affine"):
    """Ask whether batch norm is better without its scale and bias on MNIST, as section 8.1 says.

    Both networks are trained both ways, and each generator is judged by nearest neighbours among
    its digits.
    """

    steps: int = PAPER_STEPS
    """Of each run; the authors' 200 passes by default."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the training."""
    out: Path = local(Path("runs/bn-affine"))
    """Where runs are kept, and resumed."""
    record: bool = False
    """Judge on test digits, and write the claim to the ledger."""

    def run(self) -> None:
        """Train, print the errors of the neighbours, and record the claim if asked."""
        begun, wrong, split = time.monotonic(), {}, "test" if self.record else "validation"
        for network in RECIPES:
            for affine in (True, False):
                config = study_config(network, affine, self.steps, self.precision)
                folder = self.out / f"{network.lower()}-{'with' if affine else 'without'}"
                wrong[network, affine] = wrong_answers(config, folder, split=split)
                share = 100 * wrong[network, affine].mean()
                print(f"{folder.name}: {share:.2f} % wrong ({split})", flush=True)
        if self.record:
            seconds = time.monotonic() - begun
            record_claim(wrong, self.steps, self.command_line(), seconds)


def study_config(network: str, affine: bool, steps: int, precision: str = "float32") -> TrainConfig:
    """Return a network's recipe with or without batch norm's scale and bias."""
    config = recipe(RECIPES[network]).config
    model = replace(config.model, bn_affine=affine)
    return replace(config, model=model, steps=steps, precision=precision)


def wrong_answers(
    config: TrainConfig,
    folder: Path,
    *,
    split: str,
    image_set: str = "mnist",
    num_references: int = NUM_REFERENCES,
    num_draws: int = NUM_DRAWS,
) -> np.ndarray:
    """Train, or go on with a run; return which images the neighbours get wrong: bool, (q, s)."""
    size = config.model.image_size
    train = load_image_set(image_set, image_size=size)
    run = fit(config, train, folder, device="cpu", about={"source": image_set})
    if run.stopped_by != "steps":
        raise UserError(
            f"training in {folder} stopped at step {run.step:,} ({run.stopped_by}): start again to "
            "resume"
        )
    test = load_image_set(image_set, split, image_size=size)
    streams = (GeneratedStream(str(folder), seed) for seed in range(num_draws))
    return np.stack(
        [neighbour_test(stream, test, num_references).named != test.labels for stream in streams], 1
    )


def gain(with_qs: np.ndarray, without_qs: np.ndarray) -> Estimate:
    """Return by how many points the error is lower without, paired over the test images."""
    return bootstrap_interval(lambda a, b: float((a.mean() - b.mean()) * 100), with_qs, without_qs)


def record_claim(
    wrong: dict[tuple[str, bool], np.ndarray], steps: int, command: str, seconds: float
) -> Result:
    """Write what the four runs say to the ledger; the value is the DCGAN's gain."""
    gains = {network: gain(wrong[network, True], wrong[network, False]) for network in RECIPES}
    found, checks = [], {}
    for network, (value, low, high) in gains.items():
        errors = [100 * wrong[network, affine].mean() for affine in (True, False)]
        found.append(
            f"{network}: {errors[0]:.2f} % with, {errors[1]:.2f} % without, gain {value:.2f} "
            f"[{low:.2f}, {high:.2f}] points"
        )
        statement = f"without scale and bias, the {network}'s error is lower by more than chance"
        checks[statement] = low > 0
    passes = PAPER_PASSES * steps / PAPER_STEPS
    why = f"{passes:.0f} of the paper's {PAPER_PASSES} passes"
    return record(
        "table3.bn-affine",
        gains["DCGAN"],
        unit="points",
        n=len(wrong["DCGAN", True]),
        data="mnist, test",
        seconds=seconds,
        command=command,
        checks=checks,
        caveat=Caveat(kind="not at scale", why=why) if steps < PAPER_STEPS else None,
        notes=f"{'; '.join(found)}. {steps:,} minibatches, one run each; {NUM_REFERENCES:,} "
        f"samples, {NUM_DRAWS} draws",
    )
