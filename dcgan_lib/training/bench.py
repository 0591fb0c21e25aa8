"""How fast the step is on this machine, against the step that most tutorials show.

The contenders take turns on the same minibatch, so a machine whose speed drifts slows all of them.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.training.step import make_gan, train_step


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One contender at one image size."""

    size: int
    """Side of the images in pixels."""
    contender: str
    """``plain``, ``float32`` or ``bfloat16``."""
    images_per_second: float
    """Median over the rounds; an image counts once although both networks learn from it."""
    speedup: float
    """Median over the rounds of plain time / this time."""
    low: float
    """Tenth percentile of the same ratio."""
    high: float
    """Ninetieth percentile of the same ratio."""


def plain_stepper(config: TrainConfig) -> Callable[[Tensor, Tensor], tuple[float, float]]:
    """Return the step as tutorials write it: probabilities, contiguous memory, a gradient for everything.

    The mathematics is that of ``train_step`` with ``schedule="same_batch"``: the same losses on the same
    generated images, the same Adam.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator, discriminator, criterion = (
            Generator(config.model),
            Discriminator(config.model),
            nn.BCELoss(),
        )
    for kind, network in ((nn.ConvTranspose2d, generator), (nn.Conv2d, discriminator)):
        for conv in network.convs:
            conv.__class__ = kind  # PyTorch's own way of computing
    betas = (config.beta1, config.beta2)
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


def our_stepper(config: TrainConfig) -> Callable[[Tensor, Tensor], tuple[float, float]]:
    """Return this library's step behind the same interface."""
    gan = make_gan(config)

    def step(x_bchw: Tensor, z_bd: Tensor) -> tuple[float, float]:
        record = train_step(gan, 0, x_bchw, None, lambda _turn: z_bd)
        return float(record.d_loss), float(record.g_loss)

    return step


def bench_config(size: int, channels: int, base_width: int, batch_size: int) -> TrainConfig:
    """Return the settings under which the contenders do the same work."""
    model = ModelConfig(image_size=(size, size), num_channels=channels, base_width=base_width)
    return TrainConfig(model=model, batch_size=batch_size, schedule="same_batch", weight_decay=0.0)


def bench(
    size: int,
    *,
    base_width: int = 32,
    batch_size: int = 64,
    rounds: int = 15,
    threads: int | None = None,
) -> list[BenchRow]:
    """Time the contenders in turn.

    Parameters
    ----------
    size : int
        Side of the images; 32 stands for grey digits, anything else for colour.
    base_width, batch_size : int
        Size of the work.
    rounds : int, default 15
        Rounds that count, after two that do not.
    threads : int, optional
        CPU threads; PyTorch's choice when unset. What was set before is set again at the end.

    Returns
    -------
    list of BenchRow
        ``plain`` first.

    Raises
    ------
    UserError
        If rounds or threads are fewer than 1, or the networks cannot have that size.
    """
    for name, value in (("rounds", rounds), ("threads", 1 if threads is None else threads)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, but it is {value}")
    config = bench_config(size, 1 if size == 32 else 3, base_width, batch_size)
    steppers = {
        "plain": plain_stepper(config),
        "float32": our_stepper(config),
        "bfloat16": our_stepper(replace(config, precision="bfloat16")),
    }
    x_bchw = (
        torch.rand(batch_size, config.model.num_channels, size, size, generator=seeded(0)) * 2 - 1
    )
    inputs = {
        name: x_bchw if name == "plain" else x_bchw.contiguous(memory_format=torch.channels_last)
        for name in steppers
    }
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    with _threads(threads or torch.get_num_threads()):
        for turn in range(rounds + 2):
            z_bd = sample_latents(batch_size, config.model, seeded(turn))
            for name, step in steppers.items():
                begun = time.perf_counter()
                step(inputs[name], z_bd)
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - begun)
    return [_row(size, name, batch_size, seconds) for name in steppers]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _row(size: int, name: str, batch_size: int, seconds: dict[str, list[float]]) -> BenchRow:
    ratios = sorted(
        plain / ours for plain, ours in zip(seconds["plain"], seconds[name], strict=True)
    )
    tenths = (
        statistics.quantiles(ratios, n=10, method="inclusive") if len(ratios) > 1 else ratios * 9
    )
    return BenchRow(
        size=size,
        contender=name,
        images_per_second=batch_size / statistics.median(seconds[name]),
        speedup=statistics.median(ratios),
        low=tenths[0],
        high=tenths[-1],
    )


def bench_text(rows: list[BenchRow]) -> str:
    """Lay the rows out as text."""
    lines = [
        f"{rows[0].size} x {rows[0].size} pixels",
        "  step       images/s   speed-up over plain [10th, 90th percentile]",
    ]
    lines += [
        f"  {row.contender:9} {row.images_per_second:>9.1f}   {row.speedup:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in rows
    ]
    return "\n".join(lines)
