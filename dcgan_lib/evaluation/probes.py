"""Train probes, score them on held-out images, and keep them as small checkpoints.

The images a probe learns from, those that choose its weights, and those it is scored on are three
disjoint sets. Axes: b or n images, c channels, h x w pixels; ``x_u8`` pixels 0..255.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import r2_score
from torch import Tensor
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_files import load_probe, save_probe
from dcgan_lib.evaluation.probe_model import Head, Probe, ProbeConfig
from dcgan_lib.evaluation.probe_targets import loss, make_heads, truth
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval

__all__ = ["Probe", "load_probe", "probe_report", "save_probe", "train_probe"]

Precision = Literal["float32", "bfloat16"]
_NUM_CHECKS = 8


def train_probe(
    image_set: ImageSet,
    targets: Sequence[str] | None = None,
    *,
    steps: int,
    validation: ImageSet | None = None,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    shift: int = 0,
    flip: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
    progress: bool = False,
) -> Probe:
    """Train a probe on an image set's labels and attributes.

    Parameters
    ----------
    image_set : ImageSet
        What it learns from; never the images it will be scored on.
    targets : sequence of str, optional
        Attributes, or "label"; by default all there are, except boxes.
    steps : int
        Batches to learn from.
    validation : ImageSet, optional
        Chooses among the weights met on the way; by default a tenth of ``image_set``, taken out of it.
    batch_size : int, default 128
        Images in a batch.
    learning_rate : float, default 3e-3
        Peak of the one-cycle schedule.
    shift : int, default 0
        Augment: move each image by up to so many pixels either way, its edge repeated.
    flip : bool, default False
        Augment: mirror every second image, on average. Only where no target knows left from right.
    seed : int, default 0
        Of the weights, the order and the augmentation.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions; bfloat16 pays off only where the processor is fast at it.
    progress : bool, default False
        Show a bar on stderr.

    Returns
    -------
    Probe
        On the CPU, in evaluation mode, with its ``facts`` filled in.

    Raises
    ------
    UserError
        If a target does not exist, or ``steps`` or ``batch_size`` is too small.
    """
    if steps < _NUM_CHECKS or batch_size < 2:
        raise UserError(f"training needs steps >= {_NUM_CHECKS} and batch_size >= 2, but got {steps} and {batch_size}")
    if validation is None:
        image_set, validation = image_set.split(0.1, seed)
    options = {"shift": shift, "flip": flip, "precision": precision, "seed": seed, "batch_size": batch_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the weights' and the dropout's; the caller's stream is left alone
        probe = _build(image_set, targets)
        best = _BestWeights(probe, validation)
        losses = _training_losses(probe, image_set, **options)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
        for step in tqdm(range(1, steps + 1), desc=f"probe on {image_set.name}", disable=not progress):
            optimizer.zero_grad(set_to_none=True)
            next(losses).backward()
            optimizer.step()
            schedule.step()
            if step % (steps // _NUM_CHECKS) == 0 or step == steps:
                best.consider(step)
    probe.facts = {"trained_on": image_set.name, "num_train": len(image_set), "num_validation": len(validation)}
    probe.facts |= {**best.restore(), "steps": steps, "learning_rate": learning_rate, **options}
    return probe.eval()


def augment(x_u8: Tensor, shift: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Move each image by up to ``shift`` pixels either way, and mirror half of them when ``flip``.

    Pixels that come in from outside repeat the edge. Shape and type stay.
    """
    b, _, h, w = x_u8.shape
    if not shift and not flip:
        return x_u8
    rows, columns = (np.arange(side) + rng.integers(-shift, shift + 1, (b, 1)) for side in (h, w))
    if flip:
        mirrored = rng.random(b) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    rows, columns = (torch.from_numpy(i.clip(0, side - 1)) for i, side in ((rows, h), (columns, w)))
    image = torch.arange(b)[:, None, None]
    return x_u8.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def probe_report(probe: Probe, held_out: ImageSet) -> dict[str, dict[str, Any]]:
    """Score a probe on images that it has never met.

    Parameters
    ----------
    probe : Probe
        On any device.
    held_out : ImageSet
        With the truth of every head.

    Returns
    -------
    dict of str to dict
        Per head: ``kind``; ``score`` with ``low`` and ``high`` (95 %); ``measure``, "accuracy" (a
        share, 0 to 1) or "R2"; ``baseline``, what the best constant answer scores; ``n``, the images
        with known truth; for numbers also ``mean_error``, the mean absolute error in their own unit.

    Raises
    ------
    UserError
        If the set lacks a head's truth, or fewer than 2 images have it.
    """
    answers = probe.predict(held_out.images_u8)
    return {head.name: _score(head, answers[head.name], truth(held_out, head)) for head in probe.config.heads}


class _BestWeights:
    """Remember the weights with the least validation loss."""

    def __init__(self, probe: Probe, validation: ImageSet) -> None:
        self.probe, self.validation = probe, validation
        self.truths = {head.name: truth(validation, head) for head in probe.config.heads}
        self.loss, self.step, self.weights = float("inf"), 0, None

    @torch.no_grad()
    def consider(self, step: int) -> None:
        """Measure the present weights and keep them when they are the best so far."""
        self.probe.eval()
        images, total = self.validation.images_u8, 0.0
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            truths = {name: values[rows] for name, values in self.truths.items()}
            x_u8 = torch.from_numpy(np.array(images[rows]))
            total += float(_loss(self.probe, x_u8, truths, "float32")) * len(x_u8) / len(images)
        if total < self.loss:
            self.loss, self.step, self.weights = total, step, copy.deepcopy(self.probe.state_dict())

    def restore(self) -> dict[str, float]:
        """Put the best weights back and say which they were."""
        if self.weights is None:
            raise UserError(
                f"the probe for {self.validation.name} did not learn (loss not finite): lower learning_rate"
            )
        self.probe.load_state_dict(self.weights)
        return {"chosen_step": self.step, "validation_loss": round(self.loss, 5)}


def _build(image_set: ImageSet, targets: Sequence[str] | None) -> Probe:
    """Make an untrained probe; three stages up to 32 pixels, four above."""
    config = ProbeConfig(
        image_size=image_set.image_size,
        num_channels=image_set.num_channels,
        heads=make_heads(image_set, targets),
        widths=(24, 48, 96) if max(image_set.image_size) <= 32 else (16, 32, 64, 96),
    )
    return Probe(config).to(memory_format=torch.channels_last)


def _training_losses(
    probe: Probe, image_set: ImageSet, *, batch_size: int, shift: int, flip: bool, precision: Precision, seed: int
) -> Iterator[Tensor]:
    """Yield the loss of one batch after another, each epoch in a new order; short rests are dropped."""
    rng, num = np.random.default_rng(seed), len(image_set)
    truths, size = {head.name: truth(image_set, head) for head in probe.config.heads}, min(batch_size, num)
    while True:
        order = rng.permutation(num)
        for start in range(0, num - size + 1, size):
            rows = np.sort(order[start : start + size])  # sorted: a memory map likes it
            x_u8 = augment(torch.from_numpy(image_set.images_u8[rows]), shift, flip, rng)
            yield _loss(probe.train(), x_u8, {name: values[rows] for name, values in truths.items()}, precision)


def _loss(probe: Probe, x_u8: Tensor, truths: dict[str, np.ndarray], precision: Precision) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = probe(probe.scale(x_u8))
    losses = [loss(head, outputs[head.name], torch.from_numpy(truths[head.name])) for head in probe.config.heads]
    return torch.stack(losses).mean()


def _score(head: Head, answers: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(values)
    answers, values = answers[known], values[known]
    if len(values) < 2:
        raise UserError(
            f"{head.name!r} is known for {len(values)} held-out images, but a score needs 2: use more images"
        )
    if head.kind in ("boolean", "class"):
        guesses = answers.argmax(1) if head.kind == "class" else answers > 0.5
        share = wilson_interval(int((guesses == values).sum()), len(values))
        baseline = np.unique(values, return_counts=True)[1].max() / len(values)
        return _entry(head, "accuracy", share, float(baseline), len(values))
    explained = bootstrap_interval(r2_score, values, answers, num_resamples=200)
    error = np.abs(answers - values).mean()
    return _entry(head, "R2", explained, 0.0, len(values)) | {"mean_error": round(float(error), 4)}


def _entry(head: Head, measure: str, estimate: Estimate, baseline: float, n: int) -> dict[str, Any]:
    score, low, high = (round(x, 5) for x in estimate)
    return {
        "kind": head.kind, "measure": measure, "score": score, "low": low, "high": high,
        "baseline": round(baseline, 4), "n": n,
    }  # fmt: skip
