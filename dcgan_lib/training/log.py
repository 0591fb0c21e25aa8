"""What a run writes down while it trains, and the warnings it gives early."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from dcgan_lib.paths import atomic_write
from dcgan_lib.training.step import StepRecord


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
                self._sums[entry.name] = self._sums.get(entry.name, torch.zeros_like(value)).to(value.device) + value
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl``; a last line cut off by a crash is left out, a missing file is empty."""

    def lines() -> Iterator[dict[str, Any]]:
        for text in path.read_text().splitlines() if path.exists() else ():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                return

    return list(lines())


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
