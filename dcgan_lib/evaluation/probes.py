"""Train probes, score them on held-out images, and keep them as small checkpoints.

The images a probe learns from, those that choose its weights, and those it is scored on are three
disjoint sets. Axes: b or n images, c channels, h x w pixels; ``x_u8`` pixels 0..255.
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
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.prepare import with_channels
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.paths import atomic_write, checkpoints_root


@dataclass(frozen=True, kw_only=True)
class Head:
    """Describe one thing that a probe reads off an image.

    Parameters
    ----------
    name : str
        The attribute's name; "label" for the set's classes.
    kind : {"boolean", "class", "continuous"}
        Yes or no; one of several; a number.
    class_names : tuple of str, optional
        For a class, one name per value.
    mean, std : float, optional
        For a number, over the training images: the head learns ``(value - mean) / std``.
    """

    name: str
    kind: Literal["boolean", "class", "continuous"]
    class_names: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @property
    def num_outputs(self) -> int:
        """Return how many numbers the head puts out."""
        return len(self.class_names) if self.kind == "class" else 1


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Describe a probe: what goes in, the trunk, the heads.

    Parameters
    ----------
    image_size : tuple of int
        Height and width in pixels, each 16 to 128.
    num_channels : {1, 3}
        Grey or RGB.
    heads : tuple of Head
        At least one, names all different.
    widths : tuple of int
        Maps of each stage; a stage halves the sides.
    num_features : int, default 128
        Length of the feature vector under the heads.
    """

    image_size: tuple[int, int]
    num_channels: int
    heads: tuple[Head, ...]
    widths: tuple[int, ...]
    num_features: int = 128

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        names = [head.name for head in self.heads]
        if not names or len(set(names)) != len(names):
            raise UserError(
                f"a probe needs at least one head and names that differ, but got {names}"
            )
        if self.num_channels not in (1, 3) or not all(
            16 <= side <= 128 for side in self.image_size
        ):
            shape = (self.num_channels, *self.image_size)
            raise UserError(
                f"a probe reads 1 or 3 channels and sides of 16 to 128 pixels, but got {shape}"
            )


class Probe(nn.Module):
    """Read labels and attributes off images, through one feature vector.

    Each stage of the trunk is two 3x3 convolutions, the first with stride 2, each with batch norm and
    ReLU; a linear layer with batch norm and ReLU turns the last maps into ``num_features`` numbers of
    about unit size. Positions stay known to it, because it flattens instead of averaging.

    Parameters
    ----------
    config : ProbeConfig
        What to build.

    Attributes
    ----------
    facts : dict
        How it was trained and what it scored; filled by `train_probe` and `load_probe`.
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
        units = channels * sides[0] * sides[1]
        self.vector = nn.Sequential(
            nn.Linear(units, config.num_features, bias=False),
            nn.BatchNorm1d(config.num_features),
            nn.ReLU(),
        )
        self.heads = nn.Linear(config.num_features, sum(head.num_outputs for head in config.heads))

    def features(self, x_pm1: Tensor) -> Tensor:
        """Return the feature vectors, shape (b, num_features), of images in [-1, 1]."""
        return self.vector(self.dropout(self.maps(x_pm1).flatten(1)))

    def forward(self, x_pm1: Tensor) -> dict[str, Tensor]:
        """Return each head's raw output, shape (b, num_outputs): logits, or numbers in units of ``std``."""
        outputs = self.heads(self.features(x_pm1)).float()
        parts = outputs.split([head.num_outputs for head in self.config.heads], 1)
        return {head.name: part for head, part in zip(self.config.heads, parts, strict=True)}

    def head(self, name: str) -> Head:
        """Return a head's description.

        Raises
        ------
        UserError
            If the probe has no such head.
        """
        for head in self.config.heads:
            if head.name == name:
                return head
        raise UserError(
            f"the probe has no head {name!r}: it has {', '.join(h.name for h in self.config.heads)}"
        )

    @torch.no_grad()
    def predict(self, images_u8: np.ndarray, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Read every head off images, in evaluation mode.

        Parameters
        ----------
        images_u8 : ndarray
            uint8, n x c x h x w, of the size the probe was made for.
        batch_size : int, default 256
            Images at a time; it does not change the answer.

        Returns
        -------
        dict of str to ndarray
            float32 per head: a boolean's probability (n,), a class's probabilities (n, k), or a number
            in its own unit (n,).
        """
        was_training = self.training
        self.eval()
        try:
            parts = [self(x_pm1) for x_pm1 in self.batches(images_u8, batch_size)]
        finally:
            self.train(was_training)
        outputs = {
            head.name: torch.cat([part[head.name] for part in parts]) for head in self.config.heads
        }
        return {
            head.name: decode(head, outputs[head.name]).cpu().numpy() for head in self.config.heads
        }

    def batches(self, images_u8: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        """Yield images as float32 tensors in [-1, 1] on the probe's device, channels last."""
        self.check_images(images_u8.shape, images_u8.dtype == np.uint8)
        for start in range(0, len(images_u8), batch_size):
            yield self.scale(torch.from_numpy(np.array(images_u8[start : start + batch_size])))

    def scale(self, x_u8: Tensor) -> Tensor:
        """Turn pixels 0..255 into [-1, 1] on the probe's device."""
        device = self.heads.weight.device
        return x_u8.to(device, memory_format=torch.channels_last).float().mul_(2 / 255).sub_(1)

    def check_images(self, shape: tuple[int, ...], is_u8: bool) -> None:
        """Refuse images of another size or type.

        Raises
        ------
        UserError
            If they are not uint8, n x c x h x w, of the probe's own c, h and w.
        """
        expected = (self.config.num_channels, *self.config.image_size)
        if len(shape) != 4 or tuple(shape[1:]) != expected or not is_u8:
            raise UserError(
                f"the probe reads uint8 images of n x {expected}, but got {tuple(shape)}: prepare them so"
            )


def decode(head: Head, outputs_bk: Tensor) -> Tensor:
    """Turn a head's raw output into probabilities or into a number in its own unit."""
    if head.kind == "boolean":
        return outputs_bk[:, 0].sigmoid()
    if head.kind == "class":
        return outputs_bk.softmax(1)
    return outputs_bk[:, 0] * head.std + head.mean


def frame(x_u8: Tensor, size: tuple[int, int]) -> Tensor:
    """Put a black frame around images, up to 4 pixels a side in all, so that they have ``size``.

    Raises
    ------
    UserError
        If they are larger than ``size``, or smaller by more than a frame should hide.
    """
    missing = [want - have for want, have in zip(size, x_u8.shape[2:], strict=True)]
    if not all(0 <= side <= 4 for side in missing):
        came = tuple(x_u8.shape[2:])
        raise UserError(
            f"digits must be {size} or up to 4 pixels a side smaller, but they are {came}: prepare them so"
        )
    (down, across) = missing
    return F.pad(x_u8, (across // 2, across - across // 2, down // 2, down - down // 2))


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


LABEL = "label"


def make_heads(image_set: ImageSet, targets: Sequence[str] | None = None) -> tuple[Head, ...]:
    """Choose a head for each target, its kind by the truth's type.

    Parameters
    ----------
    image_set : ImageSet
        The training images; their truth gives a number's mean and standard deviation.
    targets : sequence of str, optional
        Names of attributes, or "label" for the classes; by default all there are, except boxes.

    Returns
    -------
    tuple of Head
        bool gives "boolean", int64 "class", float32 "continuous".

    Raises
    ------
    UserError
        If a target does not exist, is not one number per image, or never varies.
    """
    if targets is None:
        targets = [name for name, values in image_set.attributes.items() if values.ndim == 1]
        targets = ([LABEL] if image_set.labels is not None else []) + targets
    return tuple(_make_head(image_set, name) for name in targets)


def truth(image_set: ImageSet, head: Head) -> np.ndarray:
    """Return a head's truth as float32, shape (n,), NaN where it is absent.

    Raises
    ------
    UserError
        If the set does not hold it.
    """
    values = image_set.labels if head.name == LABEL else image_set.attributes.get(head.name)
    if values is None or values.ndim != 1:
        known = ", ".join(image_set.attributes) or "none"
        raise UserError(
            f"{image_set.name} has no {head.name!r} with one value per image: its attributes are {known}"
        )
    values = values.astype(np.float32)
    return (
        np.where(values < 0, np.nan, values).astype(np.float32) if head.kind == "class" else values
    )


def loss(head: Head, outputs_nk: Tensor, truth_n: Tensor) -> Tensor:
    """Return a head's mean loss over the images whose truth is known; zero when there is none.

    Cross-entropy for a boolean or a class, squared error in units of ``std`` for a number.
    """
    known = ~truth_n.isnan()
    outputs, values = outputs_nk[known], truth_n[known]
    if len(values) == 0:
        return outputs_nk.sum() * 0
    if head.kind == "boolean":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], values)
    if head.kind == "class":
        return F.cross_entropy(outputs, values.long())
    return F.mse_loss(outputs[:, 0], (values - head.mean) / head.std)


def _make_head(image_set: ImageSet, name: str) -> Head:
    if name == LABEL and image_set.labels is not None:
        return Head(name=name, kind="class", class_names=image_set.class_names)
    values = image_set.attributes.get(name)
    if values is None or values.ndim != 1:
        known = (
            ", ".join([LABEL] * (image_set.labels is not None) + list(image_set.attributes))
            or "none"
        )
        raise UserError(
            f"{image_set.name} has no {name!r} with one value per image: choose from {known}"
        )
    known_values = values[np.isfinite(values)]
    if len(np.unique(known_values)) < 2:
        raise UserError(
            f"{image_set.name}: {name!r} never varies, so nothing can be learnt from it: leave it out"
        )
    if values.dtype == np.bool_:
        return Head(name=name, kind="boolean")
    if values.dtype == np.int64:
        names = image_set.card.get(f"{name}s") or range(int(known_values.max()) + 1)
        return Head(name=name, kind="class", class_names=tuple(map(str, names)))
    return Head(
        name=name, kind="continuous", mean=float(known_values.mean()), std=float(known_values.std())
    )


WEIGHTS, CONFIG, CARD = "probe.safetensors", "config.json", "card.md"


def save_probe(
    probe: Probe,
    name: str,
    *,
    report: dict[str, dict[str, Any]],
    command: str,
    root: Path | None = None,
) -> Path:
    """Write a probe's weights, description and card.

    Parameters
    ----------
    probe : Probe
        Its weights are stored in float16, batch norm's running statistics in float32.
    name : str
        The checkpoint's name, such as "probe-rooms".
    report : dict
        From `probe_report` on held-out images.
    command : str
        What trains it again.
    root : Path, optional
        By default ``data/checkpoints``.

    Returns
    -------
    Path
        The checkpoint's folder.
    """
    folder = (checkpoints_root() if root is None else Path(root)) / name
    weights = {key: _stored(key, value) for key, value in probe.state_dict().items()}
    described = {
        "format": "dcgan_lib probe 1",
        "name": name,
        "config": dataclasses.asdict(probe.config),
        "facts": probe.facts,
        "report": report,
        "command": command,
    }
    atomic_write(folder / WEIGHTS, save(weights, metadata={"name": name}))
    atomic_write(folder / CONFIG, json.dumps(described, indent=1) + "\n")
    atomic_write(folder / CARD, _card(probe, name, report, command))
    return folder


def load_probe(name: str | Path, *, root: Path | None = None) -> Probe:
    """Load a probe by name or from a folder.

    Parameters
    ----------
    name : str or Path
        A committed probe, such as "probe-mnist", or the folder of any other.
    root : Path, optional
        Where names are looked up; by default ``data/checkpoints``.

    Returns
    -------
    Probe
        float32, on the CPU, in evaluation mode, its weights fixed; ``facts`` also holds its held-out
        scores under "report".

    Raises
    ------
    UserError
        If there is no such probe, or its files do not fit together.
    """
    base = checkpoints_root() if root is None else Path(root)
    folder = base / name if (base / name / CONFIG).is_file() else Path(name)
    if not (folder / CONFIG).is_file():
        known = ", ".join(sorted(path.parent.name for path in base.glob(f"*/{WEIGHTS}")))
        raise UserError(
            f"there is no probe {str(name)!r}: choose from {known or 'none yet'}, or give a probe's folder"
        )
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        probe = Probe(_config_from(described["config"]))
        weights = load_file(folder / WEIGHTS)
        probe.load_state_dict(
            {key: value.to(probe.state_dict()[key].dtype) for key, value in weights.items()}
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"the probe in {folder.name} is damaged ({error}): train it again"
        ) from error
    probe.facts = {**described["facts"], "report": described["report"]}
    return probe.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def _stored(key: str, value: torch.Tensor) -> torch.Tensor:
    value = value.detach().cpu().contiguous()
    return value if "running" in key or not value.is_floating_point() else value.half()


def _config_from(entry: dict[str, Any]) -> ProbeConfig:
    heads = tuple(
        Head(**{**head, "class_names": tuple(head["class_names"])}) for head in entry["heads"]
    )
    sizes = {key: tuple(entry[key]) for key in ("image_size", "widths")}
    return ProbeConfig(**{**entry, **sizes, "heads": heads})


def _card(probe: Probe, name: str, report: dict[str, dict[str, Any]], command: str) -> str:
    """Describe the probe for a reader: what it reads, how well, what it is for."""
    config, facts = probe.config, probe.facts
    size, colour = (
        "x".join(map(str, config.image_size)),
        "grey" if config.num_channels == 1 else "RGB",
    )
    num_weights = sum(parameter.numel() for parameter in probe.parameters())
    lines = [
        f"# {name}",
        "",
        f"A small convolutional network ({num_weights:,} weights, stored in float16) that reads "
        f"{size} {colour} images. It measures what a generator draws; it is no product for use on people.",
        "",
        f"Trained on {facts.get('num_train', 0):,} images ({facts.get('trained_on')}), weights chosen on "
        f"{facts.get('num_validation', 0):,} others, scored once on held-out images with the stored weights:",
        "",
        "| reads | kind | measure | held-out score [95 %] | constant answer | n |",
        "|---|---|---|---|---|---|",
    ]
    for head, row in report.items():
        lines.append(
            f"| {head} | {row['kind']} | {row['measure']} | {row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}] "
            f"| {row['baseline']:.4f} | {row['n']:,} |"
        )
    return "\n".join([*lines, "", "Train it again:", "", f"    {command}", ""])


class Panel:
    """Read the attributes of several probes off the same pictures.

    Parameters
    ----------
    *probes : Probe
        At least one; no two with a head of one name.

    Raises
    ------
    UserError
        If there is no probe, or two read the same attribute.
    """

    def __init__(self, *probes: Probe) -> None:
        names = [head.name for probe in probes for head in probe.config.heads]
        if not names or len(set(names)) != len(names):
            raise UserError(
                f"joined probes must read different things, but they read {', '.join(names) or 'nothing'}"
            )
        self.probes = probes

    def predict(self, images_u8: np.ndarray) -> dict[str, np.ndarray]:
        """Read every head of every probe; a grey probe sees the luma of colour pictures. See `Probe.predict`."""
        read: dict[str, np.ndarray] = {}
        for probe in self.probes:
            read |= probe.predict(with_channels(images_u8, probe.config.num_channels))
        return read

    def reads(self, name: str) -> bool:
        """Return whether one of the probes has a head of this name."""
        return any(head.name == name for probe in self.probes for head in probe.config.heads)

    def head(self, name: str) -> Head:
        """Return a head's description.

        Raises
        ------
        UserError
            If no probe has such a head.
        """
        heads = {head.name: head for probe in self.probes for head in probe.config.heads}
        if name not in heads:
            raise UserError(f"the probe has no head {name!r}: it has {', '.join(heads)}")
        return heads[name]


def load_panel(names: str, *, root: Path | None = None) -> Panel:
    """Load probes whose names are joined by "+", such as "probe-faces+probe-smiles"; see `load_probe`."""
    return Panel(*(load_probe(name, root=root) for name in names.split("+")))


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
        raise UserError(
            f"training needs steps >= {_NUM_CHECKS} and batch_size >= 2, but got {steps} and {batch_size}"
        )
    if validation is None:
        image_set, validation = image_set.split(0.1, seed)
    options = {
        "shift": shift,
        "flip": flip,
        "precision": precision,
        "seed": seed,
        "batch_size": batch_size,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the weights' and the dropout's; the caller's stream is left alone
        probe = _build(image_set, targets)
        best = _BestWeights(probe, validation)
        losses = _training_losses(probe, image_set, **options)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
        for step in tqdm(
            range(1, steps + 1), desc=f"probe on {image_set.name}", disable=not progress
        ):
            optimizer.zero_grad(set_to_none=True)
            next(losses).backward()
            optimizer.step()
            schedule.step()
            if step % (steps // _NUM_CHECKS) == 0 or step == steps:
                best.consider(step)
    probe.facts = {
        "trained_on": image_set.name,
        "num_train": len(image_set),
        "num_validation": len(validation),
    }
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
    return x_u8.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


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
    return {
        head.name: _score(head, answers[head.name], truth(held_out, head))
        for head in probe.config.heads
    }


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
    probe: Probe,
    image_set: ImageSet,
    *,
    batch_size: int,
    shift: int,
    flip: bool,
    precision: Precision,
    seed: int,
) -> Iterator[Tensor]:
    """Yield the loss of one batch after another, each epoch in a new order; short rests are dropped."""
    rng, num = np.random.default_rng(seed), len(image_set)
    truths, size = (
        {head.name: truth(image_set, head) for head in probe.config.heads},
        min(batch_size, num),
    )
    while True:
        order = rng.permutation(num)
        for start in range(0, num - size + 1, size):
            rows = np.sort(order[start : start + size])  # sorted: a memory map likes it
            x_u8 = augment(torch.from_numpy(image_set.images_u8[rows]), shift, flip, rng)
            yield _loss(
                probe.train(),
                x_u8,
                {name: values[rows] for name, values in truths.items()},
                precision,
            )


def _loss(
    probe: Probe, x_u8: Tensor, truths: dict[str, np.ndarray], precision: Precision
) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = probe(probe.scale(x_u8))
    losses = [
        loss(head, outputs[head.name], torch.from_numpy(truths[head.name]))
        for head in probe.config.heads
    ]
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
        "kind": head.kind,
        "measure": measure,
        "score": score,
        "low": low,
        "high": high,
        "baseline": round(baseline, 4),
        "n": n,
    }
