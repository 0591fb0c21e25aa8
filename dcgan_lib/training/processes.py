"""Several processes that train one pair of networks: started by ``torchrun`` or ``accelerate``.

Each process takes every count-th place of the global batch, so images, latent vectors and shifts
stay functions of (seed, step). Before each update the gradients are averaged, which is the joint
batch's gradient because the losses are means and the parts are equal. So all processes hold equal
networks at all times, and the main one (rank 0) writes for all. Hugging Face Accelerate and
torch.distributed do the work.
"""

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dcgan_lib.config import TrainConfig
from dcgan_lib.errors import StoppedElsewhereError, UserError, require
from dcgan_lib.models.sampling import batch_norms
from dcgan_lib.training.step import Gan


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Say which of how many processes this one is, and let them act as one; alone by default."""

    rank: int = 0
    count: int = 1
    control: Any = None
    """The group for decisions, on the CPU: to agree there does not wait for a GPU."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, samples and states."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """Its places in a global batch: not one block, for batches lie in file order."""
        return slice(self.rank, None, self.count)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in the order of their ranks."""
        found = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(found, value, group=self.control)
        return found

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Return the largest that any process gave, number by number."""
        if self.count == 1:
            return numbers
        both = torch.tensor(numbers)
        distributed.all_reduce(both, distributed.ReduceOp.MAX, group=self.control)
        return tuple(both.tolist())

    @contextmanager
    def together(self) -> Iterator[bool]:
        """Wait for all at the block's end; if it failed in one, the first that failed says why.

        The block is given whether this process is the main one.
        """
        failure = None
        try:
            yield self.is_main
        except Exception as error:
            failure = error
        failed = self.gather(failure is not None)
        if failure is not None and self.rank == failed.index(True):
            raise failure
        if any(failed):
            raise StoppedElsewhereError("another process of this run failed, and said why")

    def check_same(self, value: Any, what: str) -> None:
        """Refuse values that differ; every process learns of it."""
        found = self.gather(value)
        if found != [found[0]] * self.count:
            message = f"all {self.count} processes need the same {what}, but theirs differ"
            raise (UserError if self.is_main else StoppedElsewhereError)(message)

    @contextmanager
    def noticing_the_end_of_others(self) -> Iterator[None]:
        """Turn the error that a lost process causes into one sentence."""
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
            if self.count == 1 or not lost:
                raise
            if threading.current_thread() is threading.main_thread():
                # The launcher ends the others by SIGTERM, which would cut the sentence off.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise UserError(
                f"another of the {self.count} processes ended, so process {self.rank} stops too: "
                "the last saved state is kept, and the same command goes on from there, on "
                "any number of processes that divides batch_size"
            ) from error

    def check_batch(self, config: TrainConfig) -> None:
        """Refuse a batch of which the processes cannot take equal parts."""
        fewest = 1 if config.sync_batch_norm else 2  # batch norm needs two images
        fits = config.batch_size % self.count == 0 and config.batch_size >= fewest * self.count
        multiple = f"a multiple of the {self.count} processes"
        alone = f", at least {fewest} for each" if fewest > 1 else ""
        require(self.count == 1 or fits, "batch_size", config.batch_size, multiple + alone)

    def join(self, gan: Gan) -> None:
        """Let each update of the networks use the gradients' mean over all processes."""
        if self.count > 1:
            for optimizer in (gan.g_optimizer, gan.d_optimizer):
                optimizer.register_step_pre_hook(_average_gradients)

    @contextmanager
    def one_step(self, gan: Gan) -> Iterator[None]:
        """Let the block's steps normalise by the joint batch, or average the statistics after it.

        Only here, because samples are drawn by the main process alone.
        """
        joint = self.count > 1 and gan.config.sync_batch_norm
        norms = [*batch_norms(gan.generator), *batch_norms(gan.discriminator)] if joint else []
        for norm in norms:
            norm.forward = partial(joint_batch_norm, norm)
        try:
            yield
        finally:
            for norm in norms:
                del norm.forward
        if self.count > 1 and not joint:
            networks = (gan.generator, gan.discriminator, gan.g_average, gan.d_average)
            buffers = [b for n in networks if n is not None for b in n.buffers()]
            _average([buffer for buffer in buffers if buffer.is_floating_point()])

    def mean_sums(self, sums: dict[str, list]) -> dict[str, list]:
        """Return ``{name: (sum, count)}`` with each sum's mean over the processes."""
        if self.count == 1 or not sums:
            return sums
        totals = torch.tensor([float(total) for total, _ in sums.values()], dtype=torch.float64)
        distributed.all_reduce(totals, group=self.control)
        means = (totals / self.count).tolist()
        return {name: [mean, sums[name][1]] for name, mean in zip(sums, means, strict=True)}


ALONE = Processes()


def find_processes(device: str = "auto") -> tuple[Processes, str]:
    """Return the processes that the launcher started, and this one's device, "cuda:1" for example.

    Without a launcher this process is alone and its device is the one asked for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(), device
    if not importlib.util.find_spec("accelerate"):
        raise UserError(
            "several processes need the package accelerate: pip install accelerate, or start one"
        )
    from accelerate import PartialState

    cards, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    require(device in ("auto", "cpu", "cuda"), "device of several processes", device, "cpu or cuda")
    on_cpu = device == "cpu" or (device == "auto" and cards == 0)
    if not on_cpu and local > cards:
        raise UserError(
            f"{local} processes on this machine need as many GPUs, but it has {cards}: "
            "start fewer, or add --device cpu"
        )
    state = PartialState(cpu=on_cpu)
    control = distributed.new_group(backend="gloo")
    found = Processes(rank=state.process_index, count=state.num_processes, control=control)
    return found, "cpu" if on_cpu else f"cuda:{state.local_process_index}"


def _average(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over the processes, in one message."""
    from accelerate.utils import reduce

    if tensors:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        means = reduce(flat, "mean").split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))


@torch.no_grad()
def _average_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    _average([p.grad for p in parameters if p.grad is not None])


class _SumOverProcesses(torch.autograd.Function):
    """Add up a tensor over all processes; each process's loss depends on every one's tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the sum, the same in every process."""
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Add up the gradients of all losses; this can be differentiated once more, as R1 is."""
        return _SumOverProcesses.apply(gradient)


def joint_batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, h: Tensor) -> Tensor:
    """Normalise by the statistics of all processes' parts, which are equally large.

    PyTorch's SyncBatchNorm does the same on CUDA alone. The gradient passes through both sums, as
    often as it is asked for, so R1 is that of the joint batch too.
    """
    axes, shape = [0, *range(2, h.dim())], [1, -1, *[1] * (h.dim() - 2)]
    count, x = distributed.get_world_size(), h.float()

    def joint_mean(x: Tensor) -> Tensor:
        return _SumOverProcesses.apply(x.mean(axes)) / count

    mean = joint_mean(x)
    centred = x - mean.view(shape)
    variance = joint_mean(centred.square())
    with torch.no_grad():
        values = count * x.numel() // x.shape[1]
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * values / (values - 1), norm.momentum)
    normalised = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        normalised = torch.addcmul(norm.bias.view(shape), normalised, norm.weight.view(shape))
    return normalised.to(h.dtype)
