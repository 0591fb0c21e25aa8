"""Between an image set's ground truth and a probe's heads: which heads, which targets, which loss.

Axes: n images, k outputs of one head. Absent truth is NaN (numbers) or negative (classes), and is
left out of losses and scores.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Head

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
        raise UserError(f"{image_set.name} has no {head.name!r} with one value per image: its attributes are {known}")
    values = values.astype(np.float32)
    return np.where(values < 0, np.nan, values).astype(np.float32) if head.kind == "class" else values


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
        known = ", ".join([LABEL] * (image_set.labels is not None) + list(image_set.attributes)) or "none"
        raise UserError(f"{image_set.name} has no {name!r} with one value per image: choose from {known}")
    known_values = values[np.isfinite(values)]
    if len(np.unique(known_values)) < 2:
        raise UserError(f"{image_set.name}: {name!r} never varies, so nothing can be learnt from it: leave it out")
    if values.dtype == np.bool_:
        return Head(name=name, kind="boolean")
    if values.dtype == np.int64:
        names = image_set.card.get(f"{name}s") or range(int(known_values.max()) + 1)
        return Head(name=name, kind="class", class_names=tuple(map(str, names)))
    return Head(name=name, kind="continuous", mean=float(known_values.mean()), std=float(known_values.std()))
