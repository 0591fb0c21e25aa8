"""How often the discriminator's input is shifted, found while training (for a few hundred images).

Karras et al. (2020) augment as much as D's overfitting asks for: the mean sign of its logits on
real images is near 0 where it can hardly tell them from generated ones, and 1 where it is sure of
every one. Above a target the probability rises, below it falls.
"""

from typing import Any

from torch import Tensor

from dcgan_lib.config import TrainConfig
from dcgan_lib.training.processes import ALONE, Processes
from dcgan_lib.training.step import StepRecord

ADAPT_EVERY = 16
"""Updates of D between two changes, at which the device is waited for; 4 in the paper."""
RAMP_IMAGES = 100_000
"""Images over which the probability can rise from 0 to 1: a fifth of the paper's, because our runs
are shorter than theirs of 25 million images."""


class AdaptiveShift:
    """Keep the probability that an image is shifted; without a target it is 1.

    Parameters
    ----------
    config
        Its ``d_shift_adaptive`` is the target.
    saved
        What `state` returned, of a run to go on with.
    processes
        Whose parts of each batch make up the whole.
    """

    def __init__(
        self,
        config: TrainConfig,
        saved: dict[str, Any] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._target, self._batch_size = config.d_shift_adaptive, config.batch_size
        self._processes = processes
        saved = saved or {"probability": 0.0 if self._target else 1.0, "total": 0.0, "count": 0}
        self.probability: float = saved["probability"]
        self._total: Tensor | float = saved["total"]
        self._count: int = saved["count"]

    def add(self, record: StepRecord) -> None:
        """Note a step, and change the probability when it is time."""
        if not self._target or record.d_sign is None:
            return
        self._total, self._count = record.d_sign + self._total, self._count + 1
        if self._count == ADAPT_EVERY:
            above = self._mean_total() / self._count > self._target
            change = self._count * self._batch_size / RAMP_IMAGES
            moved = self.probability + (change if above else -change)
            self.probability = min(1.0, max(0.0, moved))
            self._total, self._count = 0.0, 0

    def state(self) -> dict[str, Any]:
        """Return plain values from which it goes on as if it had not been stopped."""
        return {
            "probability": self.probability,
            "total": self._mean_total(),
            "count": self._count,
        }

    def _mean_total(self) -> float:
        sums = self._processes.mean_sums({"sign": [self._total, self._count]})
        return float(sums["sign"][0])
