"""How many CPU threads to train with: measured, because two can be slower than one."""

import copy
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.training.step import Gan, generate, update_discriminator, update_generator


def probe_threads(gan: Gan, batches: Callable[[int], tuple[Tensor, Tensor | None]], *, num_steps: int = 3) -> int:
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
