"""The loop around the step: a run that logs, draws samples, saves, stops cleanly and resumes.

Axes as in ``step``. Everything random is a function of (seed, step), so a resumed run repeats the
uninterrupted one bit for bit on the same CPU with the same number of threads.
"""

import copy
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from dcgan_lib.config import TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import (
    from_u8,
    generate_u8,
    refresh_batch_norm,
    sample_latents,
    seeded,
)
from dcgan_lib.paths import atomic_write
from dcgan_lib.training import checkpoints
from dcgan_lib.training.checkpoints import read_metrics
from dcgan_lib.training.step import (
    Augment,
    Gan,
    StepRecord,
    generate,
    make_gan,
    scheduled_learning_rate,
    shift_images,
    train_step,
    unchanged,
    update_discriminator,
    update_generator,
)


class Batches:
    """Give the minibatch of any step: a shuffled pass over the set, then another.

    Parameters
    ----------
    image_set : ImageSet
        At least ``batch_size`` images; labels when the network is conditional.
    config : TrainConfig
        Batch size, seed and value range.
    device : torch.device
        On a GPU the whole set is moved there once, as uint8.
    """

    def __init__(self, image_set: ImageSet, config: TrainConfig, device: torch.device) -> None:
        _check_fit(image_set, config)
        self._config, self._device, self._size = config, device, config.batch_size
        self.per_epoch = len(image_set) // self._size
        self._images, self._labels = (
            image_set.images_u8,
            image_set.labels if config.model.num_classes else None,
        )
        if device.type != "cpu":
            self._images = torch.as_tensor(np.asarray(self._images)).to(device)
        self._epoch, self._order, self._mirrored = -1, np.empty(0, int), np.empty(0, bool)

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return ``x_bchw`` in the networks' range and ``labels_b`` or None."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._config.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self._images))
            self._mirrored = rng.random(len(self._images)) < 0.5 * self._config.mirror
        chosen = np.sort(
            self._order[place * self._size : (place + 1) * self._size]
        )  # in file order: fewer page faults
        x_u8 = self._images[chosen]
        x_bchw = from_u8(torch.as_tensor(x_u8), self._config.model)
        if self._config.mirror:
            mirrored = torch.as_tensor(self._mirrored[chosen], device=x_bchw.device)
            x_bchw = torch.where(mirrored[:, None, None, None], x_bchw.flip(3), x_bchw)
        if self._config.channels_last:
            x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
        labels = (
            None if self._labels is None else torch.as_tensor(self._labels[chosen]).to(self._device)
        )
        return x_bchw, labels


def _check_fit(image_set: ImageSet, config: TrainConfig) -> None:
    """Refuse a set that the networks cannot read."""
    model = config.model
    wanted = (model.num_channels, *model.image_size)
    got = image_set.images_u8.shape[1:]
    if tuple(got) != wanted:
        raise UserError(
            f"the networks read images of shape {wanted} (channels, height, width), "
            f"but {image_set.name!r} has {tuple(got)}: "
            "set image_size and num_channels to match, or prepare the images at that size"
        )
    if len(image_set) < config.batch_size:
        raise UserError(
            f"{image_set.name!r} has {len(image_set)} images, fewer than one batch of {config.batch_size}: "
            "lower batch_size"
        )
    if model.num_classes and (
        image_set.labels is None or int(np.max(image_set.labels)) >= model.num_classes
    ):
        raise UserError(
            f"num_classes={model.num_classes} needs labels 0..{model.num_classes - 1}, "
            f"which {image_set.name!r} does not have"
        )


def identity(image_set: ImageSet) -> str | None:
    """Return what tells one set from another: its digest, or the digest of what it was cut from, and the cut."""
    card = image_set.card
    if "digest" in card or "cut_from" not in card:
        return card.get("digest")
    parts = (
        card["cut_from"].get("digest"),
        card.get("split"),
        card.get("subset_seed"),
        len(image_set),
    )
    return "/".join(str(part) for part in parts if part is not None)


def draw_latents(config: TrainConfig, device: torch.device, step: int) -> Callable[[int], Tensor]:
    """Return the function that draws a step's latent vectors, the same ones whenever it is asked."""

    def draw(turn: int) -> Tensor:
        key = np.random.SeedSequence([config.seed, step, turn]).generate_state(1, np.uint64)[0]
        return sample_latents(config.batch_size, config.model, seeded(int(key >> 1))).to(device)

    return draw


def draw_shifts(config: TrainConfig, step: int) -> Augment:
    """Return the function that shifts images at random, the same way whenever a step is taken again."""
    if not config.d_shift:
        return unchanged
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, step], spawn_key=(1,)))

    def shift(x_bchw: Tensor) -> Tensor:
        pixels = rng.integers(-config.d_shift, config.d_shift + 1, (len(x_bchw), 2))
        return shift_images(x_bchw, torch.as_tensor(pixels))

    return shift


def probe_threads(
    gan: Gan, batches: Callable[[int], tuple[Tensor, Tensor | None]], *, num_steps: int = 3
) -> int:
    """Time a few steps on a copy of the networks and return the fastest number of threads.

    Parameters
    ----------
    gan : Gan
        Left as it is. On a GPU nothing is timed and PyTorch's own choice is returned.
    batches : callable
        Gives the minibatch of a step.
    num_steps : int, default 3
        Steps that are timed for each number of threads, after one that is not.

    Notes
    -----
    OpenMP threads wait for each other by spinning. When another process holds a core, training
    with every core can be five to ten times slower than with one fewer.
    """
    most = os.cpu_count() or 1
    before = torch.get_num_threads()
    if gan.device.type != "cpu" or most == 1:
        return before
    trial = copy.deepcopy(gan)
    x_bchw, labels_b = batches(0)
    z_bd = sample_latents(len(x_bchw), gan.config.model, seeded(0))

    def one_step() -> None:
        fake_bchw = generate(trial, z_bd, labels_b)
        update_discriminator(trial, x_bchw, fake_bchw, labels_b)
        update_generator(trial, fake_bchw, labels_b)

    seconds = {}
    for count in sorted({1, most // 2, most - 1, most} - {0}):
        torch.set_num_threads(count)
        one_step()
        begun = time.perf_counter()
        for _ in range(num_steps):
            one_step()
        seconds[count] = time.perf_counter() - begun
    torch.set_num_threads(before)
    return min(seconds, key=seconds.get)


class RunningMeans:
    """Average the records of many steps on the device, so that no step waits for a number."""

    def __init__(self, pending: dict[str, list[float]] | None = None) -> None:
        pairs = (pending or {}).items()
        self._sums = {name: torch.tensor(total) for name, (total, _) in pairs}
        self._counts = {name: int(count) for name, (_, count) in pairs}

    def add(self, record: StepRecord) -> None:
        """Add one step's record."""
        for entry in fields(record):
            value = getattr(record, entry.name)
            if value is not None:
                self._sums[entry.name] = (
                    self._sums.get(entry.name, torch.zeros_like(value)).to(value.device) + value
                )
                self._counts[entry.name] = self._counts.get(entry.name, 0) + 1

    def pending(self) -> dict[str, list[float]]:
        """Return the sums and counts since the last flush, from which they can be built again."""
        return {name: [float(total), self._counts[name]] for name, total in self._sums.items()}

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush and begin anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self.__init__()
        return means


class MetricsLog:
    """Append one JSON object a line to ``metrics.jsonl``, and to TensorBoard where that is asked for.

    Parameters
    ----------
    folder : Path
        The run's folder.
    from_step : int
        Lines after this step are dropped: they belong to a run that was killed before it saved.
    tensorboard : bool
        Also write TensorBoard events; needs the package ``tensorboard``.
    """

    def __init__(self, folder: Path, from_step: int, *, tensorboard: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= from_step]
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a")
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(folder / "tensorboard", purge_step=from_step)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line and hand it to the operating system."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._writer:
            for name, value in line.items():
                if name != "step":
                    self._writer.add_scalar(name, value, line["step"])

    def write_image(self, name: str, image_hwc: Any, step: int) -> None:
        """Show a grid of samples in TensorBoard."""
        if self._writer:
            self._writer.add_image(name, image_hwc, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer:
            self._writer.close()


def find_trouble(line: dict[str, float]) -> str | None:
    """Return a sentence about a run that is going wrong, or None.

    Parameters
    ----------
    line : dict
        One line of metrics.

    Notes
    -----
    The thresholds are our choice. A discriminator that is sure of nearly every image gives the
    generator a gradient that says little; at d_loss < 0.05 it has in effect won.
    """
    broken = [name for name in ("d_loss", "g_loss") if not math.isfinite(line.get(name, 0.0))]
    if broken:
        return f"{' and '.join(broken)} is no longer a finite number: lower the learning rate, or use float32"
    if line.get("d_loss", 1.0) < 0.05:
        return (
            "the discriminator has won (d_loss below 0.05): the generator learns little from it; "
            "try more g_updates, a lower learning rate, or more images"
        )
    if line.get("d_real", 1.0) < 0.02 and line.get("d_fake", 1.0) < 0.02:
        return "the discriminator calls everything fake: it has collapsed; restart with another seed or a lower rate"
    return None


@dataclass(frozen=True)
class FitResult:
    """How a run ended."""

    gan: Gan
    step: int
    seconds: float
    """Time spent training, earlier parts of a resumed run included."""
    stopped_by: str
    """``steps``, ``minutes``, ``interrupt`` or ``trouble``."""
    warnings: tuple[str, ...]


def sample_grid(gan: Gan) -> Tensor:
    """Return a uint8 grid (c, h, w) of samples from the run's fixed latent vectors.

    Each class has a row when the network is conditional. The statistics of the batch are used, as
    in the authors' code, since the running ones trail the weights while training.
    """
    model, count = gan.config.model, gan.config.num_samples
    drawn = max(count, 2)  # batch norm needs a spread
    z_bd = sample_latents(drawn, model, seeded(gan.config.seed))
    columns, labels = math.ceil(math.sqrt(count)), None
    if model.num_classes:
        columns = math.ceil(count / model.num_classes)
        labels = torch.arange(drawn) // columns
    pictures = generate_u8(gan.generator, z_bd, labels, batch_stats=True, batch_size=drawn)[:count]
    return make_grid(torch.from_numpy(pictures), columns, padding=2, pad_value=255)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a flag; a second one acts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(_number: int, _frame: object) -> None:
        asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(
    config: TrainConfig,
    image_set: ImageSet,
    run_dir: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    tensorboard: bool = False,
    about: dict[str, Any] | None = None,
    progress: bool = True,
    start_from: str | Path | None = None,
) -> FitResult:
    """Train a pair of networks, or go on with a run that stopped.

    Parameters
    ----------
    config : TrainConfig
        Settings. A folder that already holds a run of the same settings is resumed; only the budget
        (steps, minutes) and how often things are written may differ.
    image_set : ImageSet
        What to learn.
    run_dir : str or Path
        Where everything is written.
    device : str, default "auto"
        ``cpu``, ``cuda``, ``mps``, or the best that is there.
    threads : int, optional
        CPU threads; unset: one and two are timed, and the faster is kept for the run's whole life.
    tensorboard : bool
        Also write TensorBoard events.
    about : dict, optional
        Plain values to keep in ``config.json``: what a later evaluation needs to find the images again.
    progress : bool
        Show a progress bar on stderr.
    start_from : str or Path, optional
        A committed checkpoint or another run, whose two networks are the initial weights.

    Returns
    -------
    FitResult
        The trained pair and how the run ended.

    Raises
    ------
    UserError
        If the images do not fit the networks, or the folder holds another run.
    """
    about = (about or {}) | ({"start_from": str(start_from)} if start_from else {})
    run = _Run(config, image_set, Path(run_dir), choose_device(device), threads, tensorboard, about)
    with (
        _stop_requests() as stop_asked,
        tqdm(
            total=config.steps,
            initial=run.step,
            unit="step",
            disable=not progress,
            dynamic_ncols=True,
        ) as bar,
    ):
        stopped_by = run.train(stop_asked, bar)
    run.finish(stopped_by)
    return FitResult(run.gan, run.step, run.seconds, stopped_by, tuple(run.warnings))


class _Run:
    """The moving parts of one call of ``fit``."""

    def __init__(
        self,
        config: TrainConfig,
        image_set: ImageSet,
        run_dir: Path,
        device: torch.device,
        threads: int | None,
        tensorboard: bool,
        about: dict[str, Any],
    ) -> None:
        self.config, self.run_dir, self.warnings = config, run_dir, []
        self.gan = make_gan(config, device)
        self.batches = Batches(image_set, config, self.gan.device)
        self.step, self.seconds, self.means = 0, 0.0, RunningMeans()
        self.about = {
            "image_set": image_set.name,
            "images": len(image_set),
            "digest": identity(image_set),
        } | about
        resumed = (run_dir / checkpoints.STATE).exists()
        if resumed:
            checkpoints.check_resumable(
                run_dir, config, identity(image_set), self.about.get("start_from")
            )
        elif "start_from" in self.about:
            checkpoints.start_from(self.about["start_from"], self.gan)
        if not (resumed and "start_from" in self.about):
            self._keep_snapshot()  # the initial weights, also of a run that is resumed: the seed fixes them
        if resumed:
            saved = checkpoints.load_state(run_dir, self.gan)
            self.step, self.seconds, threads = (
                saved["step"],
                saved["seconds"],
                threads or saved["threads"],
            )
            self.means = RunningMeans(saved["means"])
        self.threads = threads or probe_threads(self.gan, self.batches)
        torch.set_num_threads(self.threads)
        checkpoints.save_config(run_dir, config, self.about)
        self.log = MetricsLog(run_dir, self.step, tensorboard=tensorboard)
        self.save()

    def save(self) -> None:
        progress = {"step": self.step, "seconds": self.seconds, "threads": self.threads}
        progress["means"] = self.means.pending()
        checkpoints.save_state(self.run_dir, self.gan, progress)

    def train(self, stop_asked: Callable[[], bool], bar: tqdm) -> str:
        config, earlier = self.config, self.seconds
        begun = last_save = last_log = time.monotonic()
        logged = self.step
        while self.step < config.steps:
            self._take_step()
            bar.update()
            now = time.monotonic()
            self.seconds = earlier + now - begun
            if self.step % config.log_every == 0:
                line = self._write_metrics(
                    (self.step - logged) * config.batch_size / max(now - last_log, 1e-9), bar
                )
                bar.set_postfix(
                    {
                        key: f"{line[key]:.3f}"
                        for key in ("d_loss", "g_loss", "d_real", "d_fake")
                        if key in line
                    }
                )
                last_log, logged = now, self.step
                if not all(map(math.isfinite, line.values())):
                    return "trouble"  # the last good state stays on disk
            if self.step % config.sample_every == 0:
                self._write_samples()
            self._keep_snapshot()
            if stop_asked():
                return "interrupt"
            if config.minutes is not None and now - begun >= 60 * config.minutes:
                return "minutes"
            if now - last_save >= config.save_seconds:
                self.save()
                last_save = time.monotonic()
        return "steps"

    def _take_step(self) -> None:
        for optimizer in (self.gan.g_optimizer, self.gan.d_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = scheduled_learning_rate(self.config, self.step)
        x_bchw, labels_b = self.batches(self.step)
        latents = draw_latents(self.config, self.gan.device, self.step)
        augment = draw_shifts(self.config, self.step)
        self.means.add(train_step(self.gan, self.step, x_bchw, labels_b, latents, augment))
        self.step += 1

    def _write_metrics(self, images_per_second: float, bar: tqdm) -> dict[str, float]:
        line = {
            "step": self.step,
            "epoch": round(self.step / self.batches.per_epoch, 3),
            "seconds": round(self.seconds, 1),
        }
        line |= {name: round(value, 5) for name, value in self.means.flush().items()}
        line["images_per_second"] = round(images_per_second, 1)
        trouble = find_trouble(line)
        if trouble and trouble not in self.warnings:
            self.warnings.append(trouble)
            if not bar.disable:
                bar.write(f"step {self.step}: {trouble}", file=sys.stderr)
        self.log.write(line)
        return line

    def _write_samples(self) -> None:
        grid = sample_grid(self.gan).permute(1, 2, 0).numpy()
        folder = self.run_dir / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(grid).save(folder / f"step-{self.step:07d}.png")
        self.log.write_image("samples", grid, self.step)

    def _keep_snapshot(self) -> None:
        if self.config.snapshot_every and self.step % self.config.snapshot_every == 0:
            folder = self.run_dir / "snapshots" / f"step-{self.step:07d}"
            settled = copy.deepcopy(self.gan)
            _refresh_generators(settled)
            checkpoints.save_networks(folder, settled, self.about | {"step": self.step})

    def finish(self, stopped_by: str) -> None:
        self.log.close()
        if stopped_by == "trouble":
            return
        self.save()
        self._write_samples()
        _refresh_generators(self.gan)
        checkpoints.save_networks(self.run_dir, self.gan, self.about)


def _refresh_generators(gan: Gan) -> None:
    """Measure the generators' batch-norm statistics, which trail the weights while training, afresh."""
    refresh_batch_norm(gan.generator, num_batches=20)
    if gan.g_average is not None:
        refresh_batch_norm(gan.g_average.module, num_batches=20)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``, or for ``auto`` the best that is there.

    Raises
    ------
    UserError
        If the device is unknown or not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there.get(name.split(":")[0]):
        raise UserError(
            f"device {name!r} is not available here; there is: {', '.join(k for k, ok in there.items() if ok)}"
        )
    return torch.device(name)
