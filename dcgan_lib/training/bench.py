"""How fast the step is on this machine, against the step that most tutorials show.

The contenders take turns on the same minibatch, so a machine whose speed drifts slows all of them.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import require
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.training import checkpoints
from dcgan_lib.training.loop import Batches, choose_device, draw_latents, draw_shifts, probe_speed
from dcgan_lib.training.step import StepRecord, make_gan, train_step

Stepper = Callable[[Tensor, Tensor], tuple[float, float]]


def plain_stepper(config: TrainConfig) -> Stepper:
    """Return the step of most tutorials: probabilities, contiguous memory, all gradients.

    The mathematics is that of ``train_step`` with ``schedule="same_batch"``: the same losses on the
    same generated images, the same Adam.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator, discriminator = Generator(config.model), Discriminator(config.model)
    for kind, network in ((nn.ConvTranspose2d, generator), (nn.Conv2d, discriminator)):
        for conv in network.convs:
            conv.__class__ = kind  # PyTorch's own way of computing
    criterion, betas = nn.BCELoss(), (config.beta1, config.beta2)
    g_adam = torch.optim.Adam(generator.parameters(), config.learning_rate, betas)
    d_adam = torch.optim.Adam(discriminator.parameters(), config.learning_rate, betas)

    def step(x_bchw: Tensor, z_bd: Tensor) -> tuple[float, float]:
        ones, zeros = torch.ones(len(x_bchw)), torch.zeros(len(x_bchw))
        discriminator.zero_grad()
        real_loss = criterion(discriminator(x_bchw).sigmoid(), ones)
        real_loss.backward()
        fake_bchw = generator(z_bd)
        fake_loss = criterion(discriminator(fake_bchw.detach()).sigmoid(), zeros)
        fake_loss.backward()
        d_adam.step()
        generator.zero_grad()
        g_loss = criterion(discriminator(fake_bchw).sigmoid(), ones)
        g_loss.backward()
        g_adam.step()
        return real_loss.item() + fake_loss.item(), g_loss.item()

    return step


def our_stepper(config: TrainConfig) -> Stepper:
    """Return this library's step behind the same interface."""
    gan = make_gan(config)

    def step(x_bchw: Tensor, z_bd: Tensor) -> tuple[float, float]:
        record = train_step(gan, 0, x_bchw, None, lambda _turn: z_bd)
        return float(record.d_loss), float(record.g_loss)

    return step


def bench_config(size: int, base_width: int, batch_size: int) -> TrainConfig:
    """Return the settings under which the contenders do the same work.

    A size of 32 stands for grey digits, any other for colour.
    """
    channels = 1 if size == 32 else 3
    model = ModelConfig(image_size=(size, size), num_channels=channels, base_width=base_width)
    run = {"schedule": "same_batch", "weight_decay": 0.0, "precision": "float32"}
    return TrainConfig(model=model, batch_size=batch_size, **run)


def bench(
    size: int,
    *,
    base_width: int = 32,
    batch_size: int = 64,
    rounds: int = 15,
    threads: int | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of each round for ``plain``, ``float32`` and ``bfloat16``, taken in turn.

    Two more rounds come first and do not count. PyTorch's number of threads is set again at the
    end.
    """
    before = torch.get_num_threads()
    threads = before if threads is None else threads
    require(rounds >= 1, "rounds", rounds, "at least 1")
    require(threads >= 1, "threads", threads, "at least 1")
    config = bench_config(size, base_width, batch_size)
    steppers = {
        "plain": plain_stepper(config),
        "float32": our_stepper(config),
        "bfloat16": our_stepper(replace(config, precision="bfloat16")),
    }
    shape = (batch_size, config.model.num_channels, size, size)
    x_bchw = torch.rand(shape, generator=seeded(0)) * 2 - 1
    ours_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    torch.set_num_threads(threads)
    try:
        for turn in range(rounds + 2):
            z_bd = sample_latents(batch_size, config.model, seeded(turn))
            for name, step in steppers.items():
                begun = time.perf_counter()
                step(x_bchw if name == "plain" else ours_bchw, z_bd)
                seconds[name].append(time.perf_counter() - begun)
    finally:
        torch.set_num_threads(before)
    return {name: found[2:] for name, found in seconds.items()}


def step_operations(config: TrainConfig) -> int:
    """Return what a step of ``schedule="same_batch"`` has to compute, a multiply-add as 2.

    Convolutions and matrix products alone, without the gradients that no update needs.
    """
    with torch.device("meta"):
        generator, discriminator = Generator(config.model), Discriminator(config.model)
        z_bd = torch.zeros(config.batch_size, config.model.z_dim)
        x_bchw = torch.zeros(config.batch_size, config.model.num_channels, *config.model.image_size)
    with FlopCounterMode(display=False) as counter:
        fake_bchw = generator(z_bd)
        (discriminator(x_bchw) - discriminator(fake_bchw.detach())).mean().backward()
        discriminator.requires_grad_(False)
        (-discriminator(fake_bchw)).mean().backward()
    return counter.get_total_flops()


def peak_rates(threads: int | None = None, side: int = 1024) -> dict[str, float]:
    """Return the operations a second of large matrix products, by precision; the best of five."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    rates = {}
    try:
        for name in ("float32", "bfloat16"):
            a, b = torch.rand(2, side, side, dtype=getattr(torch, name), device="cpu")
            seconds = []
            for _ in range(6):
                begun = time.perf_counter()
                torch.mm(a, b)
                seconds.append(time.perf_counter() - begun)
            rates[name] = 2 * side**3 / min(seconds[1:])
    finally:
        torch.set_num_threads(before)
    return rates


def bench_text(
    config: TrainConfig, seconds: dict[str, list[float]], peaks: dict[str, float]
) -> str:
    """Lay out median rates, shares of the ``peaks``, and ratios to the plain step round by round.

    An image counts once although both networks learn from it.
    """
    height, width = config.model.image_size
    operations = step_operations(config)
    lines = [
        f"{height} x {width} pixels, {operations / 1e9:.1f} GFLOP a step of {config.batch_size}",
        "  step       images/s  GFLOP/s   of peak   speed-up over plain [10th, 90th percentile]",
    ]
    for name, found in seconds.items():
        low, middle, high = np.quantile(np.divide(seconds["plain"], found), (0.1, 0.5, 0.9))
        rate = operations / np.median(found)
        share = rate / peaks["bfloat16" if name == "bfloat16" else "float32"]
        lines.append(
            f"  {name:9} {config.batch_size / np.median(found):>9.1f} {rate / 1e9:>8.0f} "
            f"{100 * share:>7.0f} %   {middle:.2f} [{low:.2f}, {high:.2f}]"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- what a run would be


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Hold what a training would be, after a few steps of it that are thrown away."""

    g_parameters: int
    d_parameters: int
    images: int
    epochs: float
    """Passes over the images, of all steps."""
    device: str
    precision: str
    threads: int
    seconds_per_step: float
    """The mean over a few steps; under ``alternate``, over as many of G as come to one of D."""
    memory: int
    """Bytes at the peak: of the GPU, or of this whole process; 0 on Windows, where none is read."""


def dry_run(
    config: TrainConfig,
    image_set: ImageSet,
    *,
    device: str = "auto",
    threads: int | None = None,
    start_from: str | None = None,
) -> DryRun:
    """Take a few steps of a training in memory, write nothing, and return what it would be.

    Raises
    ------
    UserError
        As `fit` would: when the images do not fit the networks, or ``start_from`` does not.
    """
    chosen, threads_before = choose_device(device), torch.get_num_threads()
    gan, batches = make_gan(config, chosen), Batches(image_set, config, chosen)
    if start_from:
        checkpoints.start_from(start_from, gan)
    num_threads, precision = probe_speed(gan, batches, threads, config.precision)
    gan = replace(gan, precision=precision)
    one_round = config.d_updates + config.g_updates if config.schedule == "alternate" else 1
    num_steps = one_round * max(1, round(4 / one_round))
    torch.set_num_threads(num_threads)
    try:
        for step in range(one_round + num_steps):
            if step == one_round:  # the first ones allocate memory
                begun = time.perf_counter()
            x_bchw, labels_b = batches(step % batches.per_epoch)
            latents = draw_latents(config, gan.device, step)
            record = train_step(gan, step, x_bchw, labels_b, latents, draw_shifts(config, step))
            _wait_for(record)
        seconds = (time.perf_counter() - begun) / num_steps
    finally:
        torch.set_num_threads(threads_before)
    return DryRun(
        g_parameters=sum(p.numel() for p in gan.generator.parameters()),
        d_parameters=sum(p.numel() for p in gan.discriminator.parameters()),
        images=len(image_set),
        epochs=config.steps / batches.per_epoch,
        device=str(chosen),
        precision=precision,
        threads=num_threads,
        seconds_per_step=seconds,
        memory=_peak_memory(chosen),
    )


def _wait_for(record: StepRecord) -> None:
    """Read every number of a step, for which a GPU has to end it."""
    for value in vars(record).values():
        if value is not None:
            float(value)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # Unix has it

    # Linux counts in kibibytes, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def dry_run_text(config: TrainConfig, image_set_name: str, found: DryRun) -> str:
    """Lay out what a training would be."""
    model, whole = config.model, found.seconds_per_step * config.steps
    height, width = model.image_size
    shape = f"{model.num_channels} x {height} x {width}"
    where = f"{found.device}, {found.precision}"
    if found.device == "cpu":
        where += f", {found.threads} thread{'s' if found.threads > 1 else ''}"
    rows = {
        "images": f"{found.images:,} of {image_set_name}, {shape}",
        "generator": f"{found.g_parameters:,} parameters, z of {model.z_dim}",
        "discriminator": f"{found.d_parameters:,} parameters",
        "training": f"{config.steps:,} steps of {config.batch_size} images, {found.epochs:.1f} "
        "passes over the set",
        "a step": f"{found.seconds_per_step:.3f} s on {where}",
        "all steps": f"about {whole / 60:,.0f} minutes ({whole / 3600:,.1f} hours)",
        "memory": f"{found.memory / 1e9:.1f} GB at the peak",
    }
    lines = [f"{name:14} {text}" for name, text in rows.items()]
    return "\n".join([*lines, "nothing was written: leave --dry-run out to train"])
