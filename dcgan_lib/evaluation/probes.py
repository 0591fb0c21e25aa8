"""Probes: small networks that read labels and attributes off images; their training and files.

A probe learns from one set of images, a second chooses among the weights that it had on the way,
and a third scores it; no two of them share an image.

Axes: b or n images, h heads of a probe, k outputs of a head; ``x_u8`` pixels 0..255, ``x_pm1`` in
[-1, 1], both with the axes c channels, height, width.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.prepare import with_channels
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import bootstrap_interval, wilson_interval
from dcgan_lib.models.sampling import in_batches
from dcgan_lib.paths import atomic_write, checkpoints_root, read_json
from dcgan_lib.tensor_files import read_tensors, write_tensors

# ---------------------------------------------------------------- the network


@dataclass(frozen=True, kw_only=True)
class Head:
    """Describe one thing that a probe reads off an image."""

    name: str
    """The attribute's name; "label" for the set's classes."""
    kind: Literal["boolean", "class", "continuous"]
    """Yes or no; one of several; a number."""
    class_names: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    """For a number, over the training images: the head learns ``(value - mean) / std``."""

    @property
    def num_outputs(self) -> int:
        """Return how many numbers the head puts out."""
        return len(self.class_names) if self.kind == "class" else 1


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Describe a probe: what goes in, the layers, the heads."""

    image_size: tuple[int, int]
    """Height and width in pixels."""
    num_channels: int
    heads: tuple[Head, ...]
    """Their names all differ."""
    widths: tuple[int, ...]
    """Maps of each stage; a stage halves the sides."""
    num_features: int = 128
    """Length of the feature vector under the heads."""

    def __post_init__(self) -> None:
        _check_names(self.heads)


class Probe(nn.Module):
    """Read labels and attributes off images, through one feature vector of about unit size.

    Positions stay known to it, because it flattens the maps instead of averaging them. ``facts``
    says how it was trained and what it scored; `train_probe` and `load_probe` fill it.
    """

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.config, self.facts = config, {}
        layers: list[nn.Module] = []
        channels, sides = config.num_channels, config.image_size
        for width in config.widths:
            layers += _convolution(channels, width, 2) + _convolution(width, width, 1)
            channels, sides = width, tuple(math.ceil(side / 2) for side in sides)
        self.maps = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.1)
        self.vector = nn.Sequential(
            nn.Linear(channels * math.prod(sides), config.num_features, bias=False),
            nn.BatchNorm1d(config.num_features),
            nn.ReLU(),
        )
        self.heads = nn.Linear(config.num_features, sum(head.num_outputs for head in config.heads))

    def features(self, x_pm1: Tensor) -> Tensor:
        """Return the feature vectors, shape (b, num_features)."""
        return self.vector(self.dropout(self.maps(x_pm1).flatten(1)))

    def forward(self, x_pm1: Tensor) -> Tensor:
        """Return the heads' raw outputs side by side: logits, or numbers in units of ``std``."""
        return self.heads(self.features(x_pm1))

    def by_head(self, outputs: Tensor) -> list[tuple[Head, Tensor]]:
        """Cut what `forward` returns into each head's b x k."""
        parts = outputs.split([head.num_outputs for head in self.config.heads], 1)
        return list(zip(self.config.heads, parts, strict=True))

    def predict(self, images_u8: np.ndarray, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Read every head off uint8 images, in evaluation mode, where the probe then stays.

        By head, float32: a boolean's probability (n,), a class's probabilities (n, k), or a number
        in its own unit (n,).
        """
        self.check_images(images_u8.shape, images_u8.dtype == np.uint8)
        self.eval()
        outputs = in_batches(
            lambda x_u8: self(self.scale(torch.tensor(x_u8))), images_u8, batch_size=batch_size
        )
        return {
            head.name: _decode(head, part.contiguous()).numpy()
            for head, part in self.by_head(torch.from_numpy(outputs))
        }

    def head(self, name: str) -> Head:
        """Return a head's description; a UserError if there is none of that name."""
        return _find_head(self.config.heads, name)

    def scale(self, x_u8: Tensor) -> Tensor:
        """Turn pixels 0..255 into [-1, 1] on the probe's device."""
        device = self.heads.weight.device
        return x_u8.to(device, memory_format=torch.channels_last).float().mul_(2 / 255).sub_(1)

    def check_images(self, shape: tuple[int, ...], is_u8: bool) -> None:
        """Refuse images of another size or type."""
        expected = (self.config.num_channels, *self.config.image_size)
        if len(shape) != 4 or tuple(shape[1:]) != expected or not is_u8:
            raise UserError(
                f"the probe reads uint8 images of n x {expected}, but got {tuple(shape)}: "
                "prepare them so, or choose other features"
            )


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def _decode(head: Head, outputs_bk: Tensor) -> Tensor:
    """Turn a head's raw output into probabilities or into a number in its own unit."""
    if head.kind == "boolean":
        return outputs_bk[:, 0].sigmoid()
    if head.kind == "class":
        return outputs_bk.softmax(1)
    return outputs_bk[:, 0] * head.std + head.mean


def _check_names(heads: Sequence[Head]) -> None:
    names = [head.name for head in heads]
    if not names or len(set(names)) != len(names):
        raise UserError(
            "a probe, or several joined, must read different things, at least one, but would read "
            f"{', '.join(names) or 'none'}"
        )


def _find_head(heads: Sequence[Head], name: str) -> Head:
    found = {head.name: head for head in heads}
    if name not in found:
        raise UserError(f"the probe has no head {name!r}: it has {', '.join(found)}")
    return found[name]


def frame(x_u8: Tensor, size: tuple[int, int]) -> Tensor:
    """Put a black frame around images, up to 4 pixels a side in all, so that they have ``size``."""
    down, across = (want - have for want, have in zip(size, x_u8.shape[2:], strict=True))
    if not (0 <= down <= 4 and 0 <= across <= 4):
        came = tuple(x_u8.shape[2:])
        raise UserError(
            f"digits must be {size} or up to 4 pixels a side smaller, but they are {came}: "
            "prepare them so"
        )
    return F.pad(x_u8, (across // 2, across - across // 2, down // 2, down - down // 2))


class Panel:
    """Read the attributes of several probes, which must all differ, off the same pictures."""

    def __init__(self, *probes: Probe) -> None:
        self.probes, self._heads = probes, [head for p in probes for head in p.config.heads]
        _check_names(self._heads)

    def predict(self, images_u8: np.ndarray) -> dict[str, np.ndarray]:
        """Read every head, as `Probe.predict` does; a grey probe sees the luma of RGB pictures."""
        read: dict[str, np.ndarray] = {}
        for probe in self.probes:
            read |= probe.predict(with_channels(images_u8, probe.config.num_channels))
        return read

    def reads(self, name: str) -> bool:
        """Return whether one of the probes has a head of this name."""
        return any(head.name == name for head in self._heads)

    def head(self, name: str) -> Head:
        """Return a head's description; a UserError if there is none of that name."""
        return _find_head(self._heads, name)


# ---------------------------------------------------------------- what there is to learn

LABEL = "label"


def _make_head(image_set: ImageSet, name: str) -> Head:
    """Choose a head, its kind by the truth's type."""
    values = _values(image_set, name)
    if values is image_set.labels:
        return Head(name=name, kind="class", class_names=image_set.class_names)
    known = values[np.isfinite(values)]
    if len(np.unique(known)) < 2:
        raise UserError(
            f"{image_set.name}: {name!r} never varies, so nothing can be learnt from it: leave it "
            "out"
        )
    if values.dtype == np.bool_:
        return Head(name=name, kind="boolean")
    if values.dtype == np.int64:
        names = image_set.card.get(f"{name}s") or range(int(known.max()) + 1)
        return Head(name=name, kind="class", class_names=tuple(map(str, names)))
    return Head(name=name, kind="continuous", mean=float(known.mean()), std=float(known.std()))


def _values(image_set: ImageSet, name: str) -> np.ndarray:
    known = _targets(image_set)
    if name not in known:
        raise UserError(
            f"{image_set.name} has no {name!r} with one value per image: choose from "
            f"{', '.join(known) or 'none'}"
        )
    return known[name]


def _targets(image_set: ImageSet) -> dict[str, np.ndarray]:
    """Return all that a probe could learn: what has one value per image."""
    labels = {} if image_set.labels is None else {LABEL: image_set.labels}
    flat = {name: values for name, values in image_set.attributes.items() if values.ndim == 1}
    return labels | flat | labels


def truth(image_set: ImageSet, head: Head) -> np.ndarray:
    """Return a head's truth as float32, shape (n,), NaN where it is absent."""
    values_n = _values(image_set, head.name).astype(np.float32)
    if head.kind == "class":
        values_n[values_n < 0] = np.nan
    return values_n


# ---------------------------------------------------------------- training and scores

_NUM_CHECKS = 8
"""How often the validation images choose among the weights."""


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
    progress: bool = False,
) -> Probe:
    """Train a probe on an image set's labels and attributes, on the CPU.

    It must not learn from images that it will be scored on. ``targets`` are attributes or "label",
    by default all there are, except boxes. The validation images choose among the weights met on
    the way; by default they are a tenth of ``image_set``, taken out of it. The learning rate is the
    peak of the one-cycle schedule. Mirror only where no target knows left from right.
    """
    if steps < _NUM_CHECKS or batch_size < 2:
        raise UserError(
            f"training needs steps >= {_NUM_CHECKS} and batch_size >= 2, but got {steps} and "
            f"{batch_size}"
        )
    if validation is None:
        image_set, validation = image_set.split(0.1, seed)
    options = {"batch_size": batch_size, "shift": shift, "flip": flip, "seed": seed}
    best, best_loss, chosen_step = None, math.inf, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the weights' and the dropout's; the caller's stream is left alone
        probe = _build(image_set, targets)
        minibatches = _minibatches(image_set, _truths(probe, image_set), **options)
        truth_vh = _truths(probe, validation)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
        for step in tqdm(
            range(1, steps + 1), desc=f"probe on {image_set.name}", disable=not progress
        ):
            optimizer.zero_grad(set_to_none=True)
            _loss(probe.train(), *next(minibatches)).backward()
            optimizer.step()
            schedule.step()
            if step % (steps // _NUM_CHECKS) == 0 or step == steps:
                loss = _mean_loss(probe.eval(), validation.images_u8, truth_vh)
                if loss < best_loss:
                    best, best_loss, chosen_step = copy.deepcopy(probe.state_dict()), loss, step
    if best is None:
        raise UserError(
            f"the probe for {validation.name} did not learn (loss not finite): lower learning_rate"
        )
    probe.load_state_dict(best)
    probe.facts = {
        "trained_on": image_set.name,
        "num_train": len(image_set),
        "num_validation": len(validation),
        "chosen_step": chosen_step,
        "validation_loss": round(best_loss, 5),
        "steps": steps,
        "learning_rate": learning_rate,
        **options,
    }
    return probe.eval()


def _build(image_set: ImageSet, targets: Sequence[str] | None) -> Probe:
    """Make an untrained probe; three stages up to 32 pixels, four above."""
    targets = _targets(image_set) if targets is None else targets
    config = ProbeConfig(
        image_size=image_set.image_size,
        num_channels=image_set.num_channels,
        heads=tuple(_make_head(image_set, name) for name in targets),
        widths=(24, 48, 96) if max(image_set.image_size) <= 32 else (16, 32, 64, 96),
    )
    return Probe(config).to(memory_format=torch.channels_last)


def _truths(probe: Probe, image_set: ImageSet) -> np.ndarray:
    return np.stack([truth(image_set, head) for head in probe.config.heads], 1)


def _minibatches(
    image_set: ImageSet, truth_nh: np.ndarray, batch_size: int, shift: int, flip: bool, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures and their truth, each epoch in a new order; a short rest is left out."""
    rng, num = np.random.default_rng(seed), len(image_set)
    size = min(batch_size, num)
    while True:
        order = rng.permutation(num)
        for start in range(0, num - size + 1, size):
            rows = np.sort(order[start : start + size])  # sorted: a memory map likes it
            x_u8 = augment(torch.from_numpy(image_set.images_u8[rows]), shift, flip, rng)
            yield x_u8, torch.from_numpy(truth_nh[rows])


def augment(x_u8: Tensor, shift: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Move images by up to ``shift`` pixels, repeating edges; mirror half of them if ``flip``."""
    if not shift and not flip:
        return x_u8
    b, _, h, w = x_u8.shape
    rows, columns = (
        (np.arange(side) + rng.integers(-shift, shift + 1, (b, 1))).clip(0, side - 1)
        for side in (h, w)
    )
    if flip:
        mirrored = rng.random(b) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    image = np.arange(b)[:, None, None]
    return x_u8[image, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _loss(probe: Probe, x_u8: Tensor, truth_bh: Tensor) -> Tensor:
    """Return the mean over heads of cross-entropy, or of squared error in units of ``std``."""
    losses = []
    heads = probe.by_head(probe(probe.scale(x_u8)))
    for (head, outputs_bk), truth_b in zip(heads, truth_bh.T, strict=True):
        known = ~truth_b.isnan()
        outputs_bk, values = outputs_bk[known], truth_b[known]
        if len(values) == 0:
            losses.append(outputs_bk.sum())  # zero, with a gradient of zero
        elif head.kind == "boolean":
            losses.append(F.binary_cross_entropy_with_logits(outputs_bk[:, 0], values))
        elif head.kind == "class":
            losses.append(F.cross_entropy(outputs_bk, values.long()))
        else:
            losses.append(F.mse_loss(outputs_bk[:, 0], (values - head.mean) / head.std))
    return torch.stack(losses).mean()


def _mean_loss(probe: Probe, images_u8: np.ndarray, truth_nh: np.ndarray) -> float:
    def part(x_u8: np.ndarray, truth_bh: np.ndarray) -> np.ndarray:
        loss = _loss(probe, torch.tensor(x_u8), torch.from_numpy(truth_bh))
        return np.array([float(loss) * len(x_u8) / len(images_u8)])

    return float(sum(in_batches(part, images_u8, truth_nh, batch_size=500)))


def probe_report(probe: Probe, held_out: ImageSet) -> dict[str, dict[str, Any]]:
    """Score a probe on images that it has never met.

    Each head has a ``score`` with ``low`` and ``high`` (95 %); ``measure``, "accuracy" (a share, 0
    to 1) or "R2"; ``baseline``, what the best constant answer scores; ``n``, the images with known
    truth; and for numbers ``mean_error``, the mean absolute error in their own unit.
    """
    answers = probe.predict(held_out.images_u8)
    return {
        head.name: _score(head, answers[head.name], truth(held_out, head))
        for head in probe.config.heads
    }


def _score(head: Head, answers: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(values)
    answers, values = answers[known], values[known]
    if len(values) < 2:
        raise UserError(
            f"{head.name!r} is known for {len(values)} held-out images, but a score needs 2: use "
            "more images"
        )
    if head.kind == "continuous":
        estimate = bootstrap_interval(r2_score, values, answers, num_resamples=200)
        measure, baseline = "R2", 0.0
        more = {"mean_error": round(float(np.abs(answers - values).mean()), 4)}
    else:
        guesses = answers.argmax(1) if head.kind == "class" else answers > 0.5
        estimate = wilson_interval(int((guesses == values).sum()), len(values))
        measure, more = "accuracy", {}
        baseline = float(np.unique(values, return_counts=True)[1].max() / len(values))
    score, low, high = (round(x, 5) for x in estimate)
    return {
        "kind": head.kind,
        "measure": measure,
        "score": score,
        "low": low,
        "high": high,
        "baseline": round(baseline, 4),
        "n": len(values),
        **more,
    }


# ---------------------------------------------------------------- files

WEIGHTS, CONFIG, CARD = "probe.safetensors", "config.json", "card.md"


def save_probe(
    probe: Probe, name: str | Path, *, report: dict[str, dict[str, Any]], command: str
) -> Path:
    """Write a probe's weights, description and card, and return the folder.

    The name is a folder's among the committed checkpoints, such as probe-rooms, or an absolute
    path; ``report`` comes from `probe_report`, and ``command`` trains the probe again. Weights are
    stored in float16, batch norm's running statistics in float32.
    """
    folder = checkpoints_root() / name
    weights = {}
    for key, value in probe.state_dict().items():
        is_halved = value.is_floating_point() and "running" not in key
        weights[key] = (value.half() if is_halved else value).contiguous()
    described = {
        "format": "dcgan_lib probe 1",
        "name": folder.name,
        "config": dataclasses.asdict(probe.config),
        "facts": probe.facts,
        "report": report,
        "command": command,
    }
    write_tensors(folder / WEIGHTS, weights, {"name": folder.name})
    atomic_write(folder / CONFIG, json.dumps(described, indent=1) + "\n")
    atomic_write(folder / CARD, _card(probe, folder.name, report, command))
    return folder


def load_probe(name: str | Path) -> Probe:
    """Load a committed probe by name, such as "probe-mnist", or any other from its folder.

    It is float32, on the CPU, in evaluation mode, its weights fixed; its held-out scores stand
    under "report" in ``facts``.
    """
    root = checkpoints_root()
    folder = root / name if (root / name / CONFIG).is_file() else Path(name)
    if not (folder / CONFIG).is_file():
        known = ", ".join(sorted(path.parent.name for path in root.glob(f"*/{WEIGHTS}")))
        raise UserError(
            f"there is no probe {str(name)!r}: choose from {known or 'none yet'}, or give a "
            "probe's folder"
        )
    described = read_json(folder / CONFIG, "train the probe again")
    try:
        config = described["config"]
        for head in config["heads"]:
            head["class_names"] = tuple(head["class_names"])
        config["heads"] = tuple(Head(**head) for head in config["heads"])
        config |= {key: tuple(config[key]) for key in ("image_size", "widths")}
        probe = Probe(ProbeConfig(**config))
        weights, _ = read_tensors(folder / WEIGHTS, "train the probe again")
        probe.load_state_dict(weights)  # back to float32 on the way
        probe.facts = {**described["facts"], "report": described["report"]}
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the probe in {folder.name} is damaged ({reason}): train the probe again"
        ) from error
    return probe.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def load_panel(names: str) -> Panel:
    """Load probes whose names are joined by "+", such as "probe-faces+probe-smiles"."""
    return Panel(*(load_probe(name) for name in names.split("+")))


def _card(probe: Probe, name: str, report: dict[str, dict[str, Any]], command: str) -> str:
    """Describe the probe for a reader: what it reads, how well, what it is for."""
    (height, width), facts = probe.config.image_size, probe.facts
    colour = "grey" if probe.config.num_channels == 1 else "RGB"
    num_weights = sum(parameter.numel() for parameter in probe.parameters())
    rows = "\n".join(
        f"| {head} | {row['kind']} | {row['measure']} "
        f"| {row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}] "
        f"| {row['baseline']:.4f} | {row['n']:,} |"
        for head, row in report.items()
    )
    return f"""# {name}

A small convolutional network ({num_weights:,} weights, stored in float16) that reads \
{height}x{width} {colour} images. It measures what a generator draws; it is no product for use on \
people.

Trained on {facts.get("num_train", 0):,} images ({facts.get("trained_on")}), weights chosen on \
{facts.get("num_validation", 0):,} others, scored once on held-out images with the stored weights:

| reads | kind | measure | held-out score [95 %] | constant answer | n |
|---|---|---|---|---|---|
{rows}

Train it again:

    {command}
"""
