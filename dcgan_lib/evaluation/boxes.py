"""Where an object stands: boxes as numbers that a probe can learn, and boxes read off pictures by such a probe.

Axes: n images, 4 a box (left, top, right, bottom) in pixels, right and bottom exclusive; NaN where there is none.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Probe

SIDES = ("left", "top", "right", "bottom")


def with_box_sides(image_set: ImageSet) -> ImageSet:
    """Return an image set whose attributes are each object's presence and the four sides of its box.

    Parameters
    ----------
    image_set : ImageSet
        With a yes-or-no attribute for each object, and its box as ``OBJECT_box``, n x 4.

    Returns
    -------
    ImageSet
        With ``OBJECT`` (bool), ``OBJECT_left`` ... ``OBJECT_bottom`` (float32) and ``OBJECT_box`` for each.

    Raises
    ------
    UserError
        If it has no boxes.
    """
    names = [name.removesuffix("_box") for name in image_set.attributes if name.endswith("_box")]
    if not names:
        raise UserError(f"{image_set.name} has no boxes: choose a drawn set that has them, such as rooms")
    attributes = {name: image_set.attributes[name] for name in names}
    for name in names:
        sides = image_set.attributes[f"{name}_box"].T
        attributes |= {f"{name}_{side}": np.ascontiguousarray(x) for side, x in zip(SIDES, sides, strict=True)}
        attributes[f"{name}_box"] = image_set.attributes[f"{name}_box"]
    return replace(image_set, attributes=attributes)


def boxed_objects(probe: Probe) -> tuple[str, ...]:
    """Return the objects whose presence and box a probe reads."""
    names = {head.name for head in probe.config.heads}
    return tuple(name for name in sorted(names) if all(f"{name}_{side}" in names for side in SIDES))


def read_boxes(probe: Probe, images_u8: np.ndarray, name: str, confidence: float = 0.5) -> np.ndarray:
    """Read one object's boxes off pictures.

    Parameters
    ----------
    probe : Probe
        Trained on the attributes of `with_box_sides`.
    images_u8 : ndarray
        uint8, n x c x h x w.
    name : str
        The object, such as "window".
    confidence : float, default 0.5
        Where the probe is less sure that there is one, there is no box.

    Returns
    -------
    ndarray
        float32, n x 4, inside the picture; NaN where there is no box.

    Raises
    ------
    UserError
        If the probe reads no boxes of that object.
    """
    known = boxed_objects(probe)
    if name not in known:
        raise UserError(f"the probe reads no boxes of {name!r}: it has {', '.join(known) or 'none'}")
    read, (height, width) = probe.predict(images_u8), probe.config.image_size
    sides_4n = [read[f"{name}_{side}"].astype(np.float32) for side in SIDES]
    boxes_n4 = np.stack(sides_4n, 1).clip(0, [width, height] * 2)
    boxes_n4[read[name] <= confidence] = np.nan
    boxes_n4[(boxes_n4[:, 2:] - boxes_n4[:, :2] < 1).any(1)] = np.nan  # thinner than a pixel
    return boxes_n4


def overlap(one_n4: np.ndarray, other_n4: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes, one by one; NaN where either is missing."""
    low, high = np.maximum(one_n4[:, :2], other_n4[:, :2]), np.minimum(one_n4[:, 2:], other_n4[:, 2:])
    shared = (high - low).clip(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (one_n4, other_n4)]
    return shared / (areas[0] + areas[1] - shared)


def overlap_report(probe: Probe, held_out: ImageSet, names: Iterable[str] | None = None) -> dict[str, dict[str, float]]:
    """Return, for each object, the mean overlap of read and true boxes, the share over one half, and their number.

    Parameters
    ----------
    probe : Probe
        See `read_boxes`.
    held_out : ImageSet
        With the true boxes.
    names : iterable of str, optional
        By default all objects that the probe reads.
    """
    found = {}
    for name in boxed_objects(probe) if names is None else names:
        shares = overlap(read_boxes(probe, held_out.images_u8, name), held_out.attributes[f"{name}_box"])
        shares = shares[np.isfinite(shares)]
        found[name] = {"mean": round(float(shares.mean()), 4), "over_half": round(float((shares > 0.5).mean()), 4)}
        found[name]["n"] = len(shares)
    return found


def outlined(images_u8: np.ndarray, boxes_n4: np.ndarray) -> np.ndarray:
    """Return a copy of pictures with each box drawn in: a yellow frame with a black one around it.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, n x c x h x w; grey ones become RGB.
    boxes_n4 : ndarray
        One box a picture; NaN for none. Or several, n x k x 4.
    """
    shown = np.repeat(images_u8, 3, 1) if images_u8.shape[1] == 1 else images_u8.copy()
    high = [shown.shape[3] - 1, shown.shape[2] - 1]
    boxes_nk4 = boxes_n4[:, None] if boxes_n4.ndim == 2 else boxes_n4
    found = [(i, box) for i, boxes_k4 in enumerate(boxes_nk4) for box in boxes_k4 if np.isfinite(box).all()]
    for i, box in found:
        for grow, colour in ((1, (0, 0, 0)), (0, (255, 221, 0))):
            left, top = (box[:2].round().astype(int) - grow).clip(0, high)
            right, bottom = (box[2:].round().astype(int) - 1 + grow).clip(0, high)
            rows, columns, ink = slice(top, bottom + 1), slice(left, right + 1), np.array(colour, np.uint8)[:, None]
            shown[i][:, top, columns] = shown[i][:, bottom, columns] = ink
            shown[i][:, rows, left] = shown[i][:, rows, right] = ink
    return shown
