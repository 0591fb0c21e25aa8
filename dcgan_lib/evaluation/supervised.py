"""Train the purely supervised rival of Table 2 on few labels, with settings drawn at random.

Axes: b or n images, c channels, h x w pixels, k classes; ``x_u8`` pixels 0..255. The paper gives the number of
trials, 64, and no search space: all of it is our own choice.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import ParameterSampler
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import augment
from dcgan_lib.evaluation.protocols import draw_rows
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.models.sampling import from_u8

Precision = Literal["float32", "bfloat16"]

SPACE: dict[str, Any] = {
    "learning_rate": stats.loguniform(1e-4, 1e-2),
    "beta1": [0.5, 0.9],
    "weight_decay": stats.loguniform(1e-4, 1),
    "dropout": stats.uniform(0, 0.7),
    "augment": [False, True],
    "batch_size": [32, 64, 128],
    "epochs": [15, 30, 60],
}
MIRRORED_SETS = ("cifar10",)
"""Sets whose classes do not know left from right; a mirrored digit is another sign or none."""
PATIENCE = 8
"""Epochs without a lower validation error after which a training stops."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold one point of the search space.

    Parameters
    ----------
    learning_rate : float
        Of AdamW, at the start; it falls to 0 along a line.
    beta1, weight_decay : float
        Of AdamW.
    dropout : float
        Before the last layer.
    augment : bool
        Whether images are moved, by up to an eighth of their side in photographs and a sixteenth in digits, and in
        photographs mirrored by chance.
    batch_size, epochs : int
        Images in a batch; passes over the labelled images at most.
    """

    learning_rate: float
    beta1: float
    weight_decay: float
    dropout: float
    augment: bool
    batch_size: int
    epochs: int

    def text(self) -> str:
        """Return the settings in words."""
        return (
            f"learning rate {self.learning_rate:.2g}, beta1 {self.beta1:g}, weight decay {self.weight_decay:.2g}, "
            f"dropout {self.dropout:.2f}, augmentation {'on' if self.augment else 'off'}, "
            f"batch {self.batch_size}, {self.epochs} epochs"
        )


def describe_space() -> str:
    """Return the search space in words, one line a setting."""
    lines = []
    for name, values in SPACE.items():
        if isinstance(values, list):
            text = f"one of {', '.join(map(str, values))}"
        else:
            text = "{} from {:g} to {:g}".format(values.dist.name.replace("log", "log-"), *values.support())
        lines.append(f"{name:14}{text}")
    return "\n".join(lines)


def draw_settings(seed: int, trial: int) -> Settings:
    """Draw the settings of a trial, the same ones whenever it is asked."""
    random_state = int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])
    (drawn,) = ParameterSampler(SPACE, 1, random_state=random_state)
    return Settings(**{name: value.item() if isinstance(value, np.generic) else value for name, value in drawn.items()})


def draw_labelled(pool: ImageSet, num_labels: int, seed: int | list[int]) -> ImageSet:
    """Choose labelled images at random, as many of each class.

    Parameters
    ----------
    pool : ImageSet
        Training images with labels.
    num_labels : int
        A multiple of the number of classes.
    seed : int or list of int
        Of the draw.

    Raises
    ------
    UserError
        If the set has no classes, ``num_labels`` cannot be shared out evenly, or a class has too few images.
    """
    classes = pool.num_classes
    if classes < 2:
        raise UserError(f"labels are drawn by class, but {pool.name} has {classes} classes: choose a set with labels")
    each, left = divmod(num_labels, classes)
    counts = np.bincount(pool.labels, minlength=classes)
    if left or not 1 <= each <= counts.min():
        raise UserError(
            f"{num_labels} labels cannot be drawn evenly from {pool.name}: give a multiple of its {classes} classes, "
            f"at most {counts.min()} a class"
        )
    return pool.subset(draw_rows(pool.labels, each, seed))


def train_supervised(
    labelled: ImageSet,
    monitor: ImageSet,
    model: ModelConfig,
    settings: Settings,
    *,
    seed: int,
    precision: Precision = "float32",
    device: str | torch.device = "cpu",
) -> tuple[SupervisedCnn, int]:
    """Train the discriminator's architecture on labels, and keep the weights of its best epoch.

    Parameters
    ----------
    labelled : ImageSet
        What it learns from.
    monitor : ImageSet
        Validation images that choose the epoch, after each of which they are classified.
    model : ModelConfig
        The discriminator's.
    settings : Settings
        Of the optimiser and the schedule.
    seed : int
        Of the weights, the order, the dropout and the augmentation.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions.
    device : str or torch.device, default "cpu"
        Where to train.

    Returns
    -------
    network : SupervisedCnn
        In evaluation mode.
    epoch : int
        The epoch that was chosen, counted from 1.
    """
    steps = settings.epochs * max(1, len(labelled) // settings.batch_size)
    best_error, best_epoch, best_weights = np.inf, 0, {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SupervisedCnn(model, labelled.num_classes, settings.dropout)
        network = network.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, (settings.beta1, 0.999), weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        rng = np.random.default_rng(seed)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # a mean over the epoch: few steps are too few for a moving one to forget its start
        for epoch in range(1, settings.epochs + 1):
            for norm in norms:
                norm.reset_running_stats()
            for x_u8, labels_b in _minibatches(labelled, settings, rng):
                loss = F.cross_entropy(_logits(network.train(), x_u8, precision), labels_b.to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
            error = wrong_answers(network, monitor, precision=precision).mean()
            if error < best_error:
                best_error, best_epoch, best_weights = error, epoch, copy.deepcopy(network.state_dict())
            elif epoch - best_epoch >= PATIENCE:
                break
    network.load_state_dict(best_weights)
    return network.eval(), best_epoch


@torch.no_grad()
def wrong_answers(network: SupervisedCnn, image_set: ImageSet, *, precision: Precision = "float32") -> np.ndarray:
    """Return which images a network names wrongly, in evaluation mode: bool, shape (n,)."""
    network.eval()
    portions = (slice(start, start + 500) for start in range(0, len(image_set), 500))
    named = [
        _logits(network, torch.from_numpy(np.array(image_set.images_u8[rows])), precision).argmax(1).cpu().numpy()
        for rows in portions
    ]
    return np.concatenate(named) != image_set.labels


def _logits(network: SupervisedCnn, x_u8: Tensor, precision: Precision) -> Tensor:
    device = next(network.parameters()).device
    x_bchw = from_u8(x_u8.to(device), network.config).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network(x_bchw)


def _minibatches(labelled: ImageSet, settings: Settings, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch in a new order; a short rest is dropped, as batch norm wants batches of one size."""
    photographs = labelled.name in MIRRORED_SETS
    shift = max(labelled.image_size) // (8 if photographs else 16) if settings.augment else 0
    size = min(settings.batch_size, len(labelled))
    order = rng.permutation(len(labelled))
    for start in range(0, len(labelled) - size + 1, size):
        rows = order[start : start + size]
        x_u8 = augment(torch.from_numpy(labelled.images_u8[rows]), shift, photographs and settings.augment, rng)
        yield x_u8, torch.from_numpy(labelled.labels[rows])
