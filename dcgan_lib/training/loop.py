"""The loop around the step: a run that logs, draws samples, saves, stops cleanly and resumes.

Axes as in ``step``. Everything random is a function of (seed, step), so a resumed run repeats the
uninterrupted one bit for bit on the same CPU with the same number of threads and the same
precision.
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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dcgan_lib.config import TrainConfig, to_dict
from dcgan_lib.data.image_set import ImageSet, array_digest
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import (
    from_u8,
    generate_u8,
    labels_in_turn,
    picture_grid,
    refresh_batch_norm,
    sample_latents,
    seeded,
    to_u8,
    write_png,
)
from dcgan_lib.paths import exclusive
from dcgan_lib.training import checkpoints
from dcgan_lib.training.adaptive import AdaptiveShift
from dcgan_lib.training.processes import ALONE, Processes, find_processes
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
from dcgan_lib.training.watch import Watch, warnings_at_start

Score = Callable[[np.ndarray], dict[str, float]]
"""From samples, uint8, n x c x h x w, to numbers by name, such as a distance to held-out images."""

STOPS = (None, "minutes", "interrupt")


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
    score: Score | None = None,
) -> FitResult:
    """Train a pair of networks, or go on with a run that stopped.

    A folder that already holds a run of the same settings is resumed; only the budget (steps,
    minutes) and how often things are written may differ. Raise UserError when the images do not fit
    the networks, or the folder holds another run, cannot be written or is held by another process.

    Started by ``torchrun`` or ``accelerate launch``, the processes share each batch; see
    ``training.processes``. All return the same result.

    Parameters
    ----------
    device
        See `choose_device`.
    threads
        CPU threads; unset: some numbers are timed, and the fastest is kept for the run's whole
        life.
    tensorboard
        Also write TensorBoard events; needs the package ``tensorboard``.
    about
        Plain values to keep in ``config.json``: what a later evaluation needs to find the images
        again.
    progress
        Show a progress bar, and what was chosen for the run, on stderr.
    start_from
        A committed checkpoint or another run, whose two networks are the initial weights.
    score
        What ``config.score_every`` asks for: called with samples, it returns numbers by name, which
        join the losses in the log.
    """
    if bool(config.score_every) != (score is not None):
        raise UserError(
            f"score_every is {config.score_every}, but a function score was "
            f"{'given' if score else 'not given'}: give both or neither"
        )
    run_dir, (processes, device) = Path(run_dir), find_processes(device)
    with processes.together():
        processes.check_batch(config)
        chosen_device = choose_device(device)
        gan = make_gan(config, chosen_device)
        batches = Batches(image_set, config, chosen_device, processes)
        kept = {"image_set": image_set.name, "images": len(image_set)}
        kept |= {"digest": identity(image_set)} | (about or {})
        if start_from:
            kept["start_from"] = str(start_from)
        if processes.count > 1:
            kept["processes"] = processes.count
        resumed = checkpoints.has_state(run_dir)
        if not resumed:
            checkpoints.check_unused(run_dir)
            if start_from:
                checkpoints.start_from(start_from, gan)
    same = (to_dict(config), kept["digest"], resumed)
    processes.check_same(same, "command, images and --run-dir, on a disk that they share")
    processes.join(gan)
    usual = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        with ExitStack() as held, processes.noticing_the_end_of_others():
            with processes.together() as is_main:
                if is_main:
                    held.enter_context(exclusive(run_dir / checkpoints.STATE, wait=False))
            run = _Run(gan, batches, run_dir, kept, threads, tensorboard, progress, score)
            stop_asked = held.enter_context(_stop_requests())
            if run.log:
                held.enter_context(closing(run.log))
            with run.bar:
                stopped_by = run.train(stop_asked)
            run.finish(stopped_by)
    except OSError as error:
        raise UserError(
            f"cannot write into {run_dir} ({error}): make room or choose another --run-dir; "
            "the last saved state is kept, and the same command goes on from there"
        ) from error
    finally:
        torch.set_num_threads(usual[0])
        torch.set_float32_matmul_precision(usual[1])
    return FitResult(run.gan, run.step, run.seconds, stopped_by, tuple(run.warnings))


class _Run:
    """The moving parts of one call of ``fit``."""

    def __init__(
        self,
        gan: Gan,
        batches: "Batches",
        run_dir: Path,
        about: dict[str, Any],
        threads: int | None,
        tensorboard: bool,
        progress: bool,
        score: Score | None,
    ) -> None:
        self.gan, self.config, self.batches = gan, gan.config, batches
        self.processes, progress = batches.processes, progress and batches.processes.is_main
        self.run_dir, self.about, self.warnings = run_dir, about, []
        self.step, self.seconds, self.means = 0, 0.0, RunningMeans()
        self.shift = AdaptiveShift(self.config, processes=self.processes)
        precision, start = self.config.precision, about.get("start_from")
        resumed, self.to_tell = checkpoints.has_state(run_dir), []
        if resumed:
            with self.processes.together():
                checkpoints.check_resumable(run_dir, self.config, about["digest"], start)
                saved_config, saved_about = checkpoints.load_config(run_dir)
            precision = saved_about.get("precision", saved_config.precision)
            self.about["precision"] = precision
            if not start:  # asked for only now, perhaps; the seed fixes the initial weights
                self._keep_snapshot()
            with self.processes.together():
                saved = checkpoints.load_state(run_dir, gan)
            if "damaged" in saved:
                self.to_tell.append(f"went on from the state before the last: {saved['damaged']}")
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.means = RunningMeans(saved["means"])
            self.shift = AdaptiveShift(self.config, saved.get("shift"), self.processes)
            threads = threads or saved["threads"]
        found = probe_speed(gan, batches, threads, precision)
        self.threads, precision = self.processes.gather(found)[0]
        torch.set_num_threads(self.threads)
        self.gan, self.about["precision"] = replace(gan, precision=precision), precision
        if not resumed:
            self._keep_snapshot()
        if progress:
            threads = f", CPU threads: {self.threads}" if gan.device.type == "cpu" else ""
            count = self.processes.count
            several = f", processes: {count}" if count > 1 else ""
            on_cuda = gan.device.type == "cuda"
            tf32 = " (products in TF32)" if on_cuda and precision == "float32" else ""
            chosen = f"{precision}{tf32}{threads}{several}"
            print(f"training on {gan.device} in {chosen}", file=sys.stderr)
        with self.processes.together() as is_main:
            if is_main:
                checkpoints.save_config(run_dir, self.config, self.about)
                if self.to_tell:  # or the damaged state would take the sound one's place
                    (run_dir / checkpoints.STATE).unlink(missing_ok=True)
        self.save()
        self.score, self.scores = score, {}
        self.watch = Watch(to_u8(batches(0)[0], self.config.model).cpu().numpy(), self.step)
        self.log: MetricsLog | None = None
        with self.processes.together() as is_main:
            if is_main:
                self.log = MetricsLog(run_dir, self.step, tensorboard=tensorboard)
        self.bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            unit="step",
            disable=not progress,
            dynamic_ncols=True,
        )

    def train(self, stop_asked: Callable[[], bool]) -> str:
        config, earlier = self.config, self.seconds
        for sentence in [*self.to_tell, *warnings_at_start(config, self.batches.num_images)]:
            self._warn(sentence)
        begun = last_save = last_log = time.monotonic()
        logged = self.step
        while self.step < config.steps:
            self._take_step()
            self.bar.update()
            now = time.monotonic()
            self.seconds = earlier + now - begun
            out_of_time = config.minutes is not None and now - begun >= 60 * config.minutes
            stop = "interrupt" if stop_asked() else "minutes" if out_of_time else None
            save = now - last_save >= config.save_seconds
            number, save = self.processes.largest(STOPS.index(stop), save)
            stop = STOPS[number]
            log = self._due(config.log_every) or self._due(config.score_every)
            draw = self._due(config.sample_every) or self._due(config.snapshot_every)
            sound = not (stop or save or log or draw) or self._is_sound()
            if log:
                images = (self.step - logged) * config.batch_size
                self._write_metrics(images / max(now - last_log, 1e-9), sound=sound)
                last_log, logged = time.monotonic(), self.step
            if not sound:
                return "trouble"  # the last good state stays on disk
            if self._due(config.sample_every):
                self._write_samples()
            self._keep_snapshot()
            if stop:
                return stop
            if save:
                self.save()
                last_save = time.monotonic()
        return "steps" if self._is_sound() else "trouble"

    def finish(self, stopped_by: str) -> None:
        if stopped_by == "trouble":
            return
        self.save()
        self._write_samples()
        _refresh_generators(self.gan)
        with self.processes.together() as is_main:
            if is_main:
                checkpoints.save_networks(self.run_dir, self.gan, self.about)

    def save(self) -> None:
        progress = {"step": self.step, "seconds": self.seconds, "threads": self.threads}
        means = self.processes.mean_sums(self.means.pending())
        progress |= {"precision": self.gan.precision, "means": means, "shift": self.shift.state()}
        with self.processes.together() as is_main:
            if is_main:
                checkpoints.save_state(self.run_dir, self.gan, progress)

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _take_step(self) -> None:
        for optimizer in (self.gan.g_optimizer, self.gan.d_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = scheduled_learning_rate(self.config, self.step)
        x_bchw, labels_b = self.batches(self.step)
        latents = draw_latents(self.config, self.gan.device, self.step, self.processes)
        augment = draw_shifts(self.config, self.step, self.processes, self.shift.probability)
        with self.processes.one_step(self.gan):
            record = train_step(self.gan, self.step, x_bchw, labels_b, latents, augment)
        self.means.add(record)
        self.shift.add(record)
        self.step += 1

    def _is_sound(self) -> bool:
        broken = checkpoints.not_finite(self.gan)
        if broken:
            config = self.config
            remedy = "" if self.gan.precision == "float32" else ", or use float32"
            self._warn(
                f"{broken} is no longer a finite number: lower learning_rate "
                f"({config.learning_rate:g}) or weight_decay ({config.weight_decay:g}){remedy}"
            )
        return not broken

    def _warn(self, trouble: str) -> None:
        if trouble not in self.warnings:
            self.warnings.append(trouble)
            if not self.bar.disable:
                self.bar.write(f"step {self.step}: {trouble}", file=sys.stderr)

    def _write_metrics(self, images_per_second: float, *, sound: bool) -> None:
        means = RunningMeans(self.processes.mean_sums(self.means.pending())).flush()
        means = {name: round(value, 5) for name, value in means.items()}
        self.means = RunningMeans()
        epoch = round(self.step / self.batches.per_epoch, 3)
        line = {"step": self.step, "epoch": epoch, "seconds": round(self.seconds, 1)} | means
        if self.config.d_shift_adaptive:
            line["shift_probability"] = round(self.shift.probability, 5)
        line["images_per_second"] = round(images_per_second, 1)
        sentences: list[str] = []
        with self.processes.together():
            if self.log:
                if sound and self._due(self.config.score_every):
                    samples_u8 = draw_with_batch_stats(self.gan, self.config.score_images)
                    self.scores = {name: round(x, 5) for name, x in self.score(samples_u8).items()}
                    line |= self.scores
                self.log.write(line)
                if sound:
                    sentences = self.watch.look(line, fixed_samples(self.gan)[0])
        shown = means | self.scores
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()})
        for sentence in self.processes.gather(sentences)[0]:
            self._warn(sentence)

    def _write_samples(self) -> None:
        with self.processes.together():
            if self.log:
                grid = picture_grid(*fixed_samples(self.gan))
                self.log.write_image("samples", grid, self.step)
                try:
                    write_png(self.run_dir / "samples" / f"step-{self.step:07d}.png", grid)
                except UserError as error:  # pictures can be drawn again, so the run goes on
                    self._warn(str(error))

    def _keep_snapshot(self) -> None:
        if not self._due(self.config.snapshot_every):
            return
        with self.processes.together() as is_main:
            if is_main:
                folder = self.run_dir / "snapshots" / f"step-{self.step:07d}"
                settled = copy.deepcopy(self.gan)
                _refresh_generators(settled)
                checkpoints.save_networks(folder, settled, self.about | {"step": self.step})


def _refresh_generators(gan: Gan) -> None:
    """Measure afresh the generators' batch-norm statistics, which trail the weights."""
    refresh_batch_norm(gan.generator, num_batches=20)
    if gan.g_average is not None:
        refresh_batch_norm(gan.g_average.module, num_batches=20)


def fixed_samples(gan: Gan) -> tuple[np.ndarray, int]:
    """Return pictures of the run's fixed latent vectors, and how many stand in a row of their grid.

    Each class has a row when the network is conditional.
    """
    model, count = gan.config.model, gan.config.num_samples
    drawn = max(count, 2)  # batch norm needs a spread
    columns, labels = math.ceil(math.sqrt(count)), None
    if model.num_classes:
        kinds = 2**model.num_classes if model.attributes else model.num_classes
        columns = math.ceil(count / kinds)
        labels = labels_in_turn(drawn, model)[torch.arange(drawn) // columns]
    return draw_with_batch_stats(gan, drawn, labels)[:count], columns


def draw_with_batch_stats(gan: Gan, num: int, labels_n: Tensor | None = None) -> np.ndarray:
    """Return the pictures of ``num`` latent vectors, always the same; of all classes by default.

    The statistics of the batch are used, as in the authors' code, since the running ones trail the
    weights while training.
    """
    model = gan.config.model
    z_nd = sample_latents(num, model, seeded(gan.config.seed))
    if labels_n is None:
        labels_n = labels_in_turn(num, model)
    size = next(size for size in range(min(num, 256), 1, -1) if num % size != 1)
    return generate_u8(gan.generator, z_nd, labels_n, batch_stats=True, batch_size=size)


class Batches:
    """Give the minibatch of any step: a shuffled pass over the set, then another.

    Of several processes each gets its own part. On a GPU the whole set is moved there once, as
    uint8; where it does not fit, and if asked, a thread reads the next minibatch while one is used.
    """

    def __init__(
        self,
        image_set: ImageSet,
        config: TrainConfig,
        device: torch.device,
        processes: Processes = ALONE,
        *,
        read_ahead: bool | None = None,
    ) -> None:
        _check_fit(image_set, config)
        self._config, self._device, self._size = config, device, config.batch_size
        self.processes = processes
        self.per_epoch = len(image_set) // self._size
        self._images, self.num_images = image_set.images_u8, len(image_set)
        self._labels = _labels(image_set, config)
        self._epoch, self._order, self._mirrored = -1, np.empty(0, int), np.empty(0, bool)
        self._ahead: tuple[int, Future] | None = None
        if read_ahead is None:
            read_ahead = not fits_on(device, self._images.nbytes)
        self._reader = ThreadPoolExecutor(1, initializer=_same_gpu()) if read_ahead else None
        if device.type != "cpu" and not read_ahead:
            self._images = torch.tensor(np.array(self._images), device=device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return ``x_bchw`` in the networks' range and ``labels_b`` or None."""
        x_u8, mirrored, labels_b = self._read_ahead(step) if self._reader else self._read(step)
        x_bchw = from_u8(x_u8, self._config.model)
        if mirrored is not None:
            x_bchw = torch.where(mirrored[:, None, None, None], x_bchw.flip(3), x_bchw)
        if self._config.channels_last:
            x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
        return x_bchw, labels_b

    def _read_ahead(self, step: int) -> list[Tensor | None]:
        """Read a minibatch, or take the one that was begun; begin the next one's."""
        ahead, future = self._ahead or (None, None)
        found = future.result() if future else None
        if ahead != step:
            found = self._read(step)
        self._ahead = step + 1, self._reader.submit(self._read, step + 1)
        return found

    def _read(self, step: int) -> list[Tensor | None]:
        """Return pixels, which of them are mirrored, and labels, on the device."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._config.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self._images))
            self._mirrored = rng.random(len(self._images)) < 0.5 * self._config.mirror
        chosen = self._order[place * self._size : (place + 1) * self._size]
        chosen = np.sort(chosen)  # in file order: fewer page faults
        chosen = chosen[self.processes.part]
        if isinstance(self._images, Tensor):
            x_u8 = self._images[to_device(chosen, self._device)]
        else:
            x_u8 = to_device(self._images[chosen], self._device)
        mirrored = to_device(self._mirrored[chosen], self._device) if self._config.mirror else None
        labels = None if self._labels is None else to_device(self._labels[chosen], self._device)
        return [x_u8, mirrored, labels]


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy from memory; to a GPU from pinned memory, so that neither waits for the other."""
    tensor = torch.as_tensor(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _same_gpu() -> Callable[[], None] | None:
    """Return what lets another thread use this one's GPU, and not wake the first one."""
    here = torch.cuda.current_device() if torch.cuda.is_available() else None
    return None if here is None else partial(torch.cuda.set_device, here)


def fits_on(device: torch.device, num_bytes: int) -> bool:
    """Return whether a GPU has room for so much and for the training: half of what is free."""
    return device.type != "cuda" or num_bytes < torch.cuda.mem_get_info(device)[0] / 2


def _check_fit(image_set: ImageSet, config: TrainConfig) -> None:
    model, name = config.model, image_set.name
    wanted = (model.num_channels, *model.image_size)
    got = tuple(image_set.images_u8.shape[1:])
    if got != wanted:
        raise UserError(
            f"the networks read images of shape {wanted} (channels, height, width), but {name!r} "
            f"has {got}: set image_size and num_channels to match, or prepare the images at that "
            "size"
        )
    if len(image_set) < config.batch_size:
        raise UserError(
            f"{name!r} has {len(image_set)} images, fewer than one batch of {config.batch_size}: "
            "lower batch_size"
        )
    if model.attributes:
        return
    num_labels = 0 if image_set.labels is None else int(np.max(image_set.labels)) + 1
    if model.num_classes and not 0 < num_labels <= model.num_classes:
        has = f"has labels 0..{num_labels - 1}" if num_labels else "has none"
        raise UserError(
            f"num_classes={model.num_classes} needs labels 0..{model.num_classes - 1}, but "
            f"{name!r} {has}: set num_classes to {num_labels}"
        )


def _labels(image_set: ImageSet, config: TrainConfig) -> np.ndarray | None:
    """Return class numbers, n, or the attributes that are asked for, n x k of 0 and 1, or None."""
    if not config.model.attributes:
        return image_set.labels if config.model.num_classes else None
    known = {k: v for k, v in image_set.attributes.items() if v.dtype == bool and v.ndim == 1}
    missing = [name for name in config.model.attributes if name not in known]
    if missing:
        raise UserError(
            f"{image_set.name!r} has no yes-or-no attribute {missing[0]!r}; it has: "
            f"{', '.join(known) or 'none'} (dcgan prepare --attributes reads some from a table)"
        )
    return np.stack([known[name] for name in config.model.attributes], 1).astype(np.int64)


def identity(image_set: ImageSet) -> str:
    """Return what tells sets apart: the digest, or that of what a set was cut from, and the cut."""
    card = image_set.card
    if "digest" in card:
        return card["digest"]
    origin = card.get("cut_from", {}).get("digest") or array_digest(image_set.images_u8)
    parts = origin, card.get("split"), card.get("subset_seed"), len(image_set)
    return "/".join(str(part) for part in parts if part is not None)


def draw_latents(
    config: TrainConfig, device: torch.device, step: int, processes: Processes = ALONE
) -> Callable[[int], Tensor]:
    """Return the function that draws a step's latent vectors, the same whenever it is asked."""

    def draw(turn: int) -> Tensor:
        key = np.random.SeedSequence([config.seed, step, turn]).generate_state(1, np.uint64)[0]
        z_bd = sample_latents(config.batch_size, config.model, seeded(int(key >> 1)))
        return to_device(z_bd[processes.part], device)

    return draw


def draw_shifts(
    config: TrainConfig, step: int, processes: Processes = ALONE, probability: float = 1.0
) -> Augment:
    """Return the function that shifts images at random, the same way when a step is repeated.

    Each image is shifted with this probability, and left alone otherwise.
    """
    if not config.d_shift:
        return unchanged
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, step], spawn_key=(1,)))

    def shift(x_bchw: Tensor) -> Tensor:
        num = len(x_bchw) * processes.count  # of the global batch
        pixels = rng.integers(-config.d_shift, config.d_shift + 1, (num, 2))
        if probability < 1:
            pixels[rng.random(num) >= probability] = 0
        pixels = pixels[processes.part]
        return shift_images(x_bchw, torch.as_tensor(pixels))

    return shift


def probe_speed(
    gan: Gan,
    batches: Callable[[int], tuple[Tensor, Tensor | None]],
    threads: int | None,
    precision: str,
    *,
    num_steps: int = 3,
) -> tuple[int, str]:
    """Choose the number of CPU threads, if unset, and the precision, if ``auto``, by the clock.

    OpenMP threads wait for each other by spinning. When another process holds a core, training with
    every core can be five to ten times slower than with one fewer. bfloat16 runs at 0.2 to 0.3 of
    float32's speed on a processor without its instructions, and at 2 on one with them; it has to be
    a tenth faster, so that chance does not choose where nothing is won. On CUDA, float32 rounds the
    factors of products to TF32, whose 10 bits are 3 more than bfloat16 keeps.
    """
    before, kind = torch.get_num_threads(), gan.device.type
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")
    usual = sorted({1, most // 2, most - 1, most, before} - {0}) if kind == "cpu" else [before]
    counts, precisions = [threads] if threads else usual, [precision]
    if precision == "auto":
        precisions = ["float32"] if kind == "mps" else ["float32", "bfloat16"]
    choices = [(count, name) for count in counts for name in precisions]
    if len(choices) == 1:
        return choices[0]
    trial, (x_bchw, labels_b) = copy.deepcopy(gan), batches(0)
    z_bd = sample_latents(len(x_bchw), gan.config.model, seeded(0)).to(gan.device)
    seconds = {}
    for count, name in choices:
        torch.set_num_threads(count)
        timed = replace(trial, precision=name)
        for number in range(1 + num_steps):
            if number == 1:
                begun = time.perf_counter()
            fake_bchw = generate(timed, z_bd, labels_b)
            update_discriminator(timed, x_bchw, fake_bchw, labels_b)
            float(update_generator(timed, fake_bchw, labels_b).g_loss)  # waits for a GPU
        handicap = 1.1 if name == "bfloat16" else 1.0
        seconds[count, name] = handicap * (time.perf_counter() - begun)
    torch.set_num_threads(before)
    return min(seconds, key=seconds.get)


class RunningMeans:
    """Average the records of many steps on the device, so that no step waits for a number."""

    def __init__(self, pending: dict[str, list[float]] | None = None) -> None:
        self._sums: dict[str, list] = pending or {}

    def add(self, record: StepRecord) -> None:
        """Add one step's record."""
        for name, value in vars(record).items():
            if value is not None:
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = [value + total, count + 1]

    def pending(self) -> dict[str, list[float]]:
        """Return the sums and counts since the last flush, from which they can be built again."""
        return {name: [float(total), count] for name, (total, count) in self._sums.items()}

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush and begin anew."""
        means = {name: float(total) / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


class MetricsLog:
    """Append one JSON object a line to ``metrics.jsonl``, and to TensorBoard if asked.

    Lines after ``from_step`` are dropped: they belong to a run that was killed before it saved.
    """

    def __init__(self, folder: Path, from_step: int, *, tensorboard: bool = False) -> None:
        path, self._writer = folder / "metrics.jsonl", None
        kept = [line for line in checkpoints.read_metrics(path) if line["step"] <= from_step]
        checkpoints.write_metrics(path, kept)
        self._file = path.open("a")
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

    def write_image(self, name: str, image_hwc: np.ndarray, step: int) -> None:
        """Show a grid of samples in TensorBoard."""
        if self._writer:
            self._writer.add_image(name, image_hwc, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer:
            self._writer.close()


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a flag; a second one acts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)

    def note(_number: int, _frame: object) -> None:
        asked.set()
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        restore()


def choose_device(name: str) -> torch.device:
    """Return ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or for ``auto`` the best that is there."""
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    there = ["cuda", *cards] if cards else []
    there += ["mps", "cpu"] if torch.backends.mps.is_available() else ["cpu"]
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise UserError(f"device {name!r} is not available here; there is: {', '.join(there)}")
    return torch.device(name)
