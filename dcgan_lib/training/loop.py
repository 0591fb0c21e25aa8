"""The loop around the step: a run that logs, draws samples, saves, stops cleanly and resumes.

Axes as in ``step``. Everything random is a function of (seed, step), so a resumed run repeats the
uninterrupted one bit for bit on the same CPU with the same number of threads.
"""

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from dcgan_lib.config import TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import generate_u8, refresh_batch_norm, sample_latents, seeded
from dcgan_lib.training import checkpoints
from dcgan_lib.training.batches import Batches, draw_latents, draw_shifts, identity
from dcgan_lib.training.log import MetricsLog, RunningMeans, find_trouble
from dcgan_lib.training.step import Gan, make_gan, scheduled_learning_rate, train_step
from dcgan_lib.training.threads import probe_threads


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
        tqdm(total=config.steps, initial=run.step, unit="step", disable=not progress, dynamic_ncols=True) as bar,
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
        self.about = {"image_set": image_set.name, "images": len(image_set), "digest": identity(image_set)} | about
        resumed = (run_dir / checkpoints.STATE).exists()
        if resumed:
            checkpoints.check_resumable(run_dir, config, identity(image_set), self.about.get("start_from"))
        elif "start_from" in self.about:
            checkpoints.start_from(self.about["start_from"], self.gan)
        if not (resumed and "start_from" in self.about):
            self._keep_snapshot()  # the initial weights, also of a run that is resumed: the seed fixes them
        if resumed:
            saved = checkpoints.load_state(run_dir, self.gan)
            self.step, self.seconds, threads = saved["step"], saved["seconds"], threads or saved["threads"]
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
                line = self._write_metrics((self.step - logged) * config.batch_size / max(now - last_log, 1e-9), bar)
                bar.set_postfix(
                    {key: f"{line[key]:.3f}" for key in ("d_loss", "g_loss", "d_real", "d_fake") if key in line}
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
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there.get(name.split(":")[0]):
        raise UserError(
            f"device {name!r} is not available here; there is: {', '.join(k for k, ok in there.items() if ok)}"
        )
    return torch.device(name)
