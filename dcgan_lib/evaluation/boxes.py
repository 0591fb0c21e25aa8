"""Where an object stands: boxes that a probe reads off pictures, and boxes drawn by hand.

Axes: n images, 4 a box (left, top, right, bottom) in pixels, right and bottom exclusive; NaN where
there is none.
"""

import json
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.data.decode import with_channels
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Probe
from dcgan_lib.paths import atomic_write, read_json

SIDES = ("left", "top", "right", "bottom")


def with_box_sides(image_set: ImageSet) -> ImageSet:
    """Return an image set with only each object's presence, box and four sides as attributes."""
    names = [name.removesuffix("_box") for name in image_set.attributes if name.endswith("_box")]
    if not names:
        raise UserError(
            f"{image_set.name} has no boxes: choose a drawn set that has them, such as rooms"
        )
    attributes = {name: image_set.attributes[name] for name in names}
    for name in names:
        sides = image_set.attributes[f"{name}_box"].T
        attributes |= {
            f"{name}_{side}": np.ascontiguousarray(x) for side, x in zip(SIDES, sides, strict=True)
        }
        attributes[f"{name}_box"] = image_set.attributes[f"{name}_box"]
    return replace(image_set, attributes=attributes)


def boxed_objects(probe: Probe) -> tuple[str, ...]:
    """Return the objects whose presence and box a probe reads."""
    names = {head.name for head in probe.config.heads}
    return tuple(name for name in sorted(names) if all(f"{name}_{side}" in names for side in SIDES))


def read_boxes(probe: Probe, images_u8: np.ndarray, name: str) -> np.ndarray:
    """Return one object's boxes, float32, n x 4, inside the picture; NaN where none is seen."""
    known = boxed_objects(probe)
    if name not in known:
        raise UserError(
            f"the probe reads no boxes of {name!r}: it has {', '.join(known) or 'none'}"
        )
    read, (height, width) = probe.predict(images_u8), probe.config.image_size
    sides_4n = [read[f"{name}_{side}"].astype(np.float32) for side in SIDES]
    boxes_n4 = np.stack(sides_4n, 1).clip(0, [width, height] * 2)
    boxes_n4[read[name] <= 0.5] = np.nan
    boxes_n4[(boxes_n4[:, 2:] - boxes_n4[:, :2] < 1).any(1)] = np.nan  # thinner than a pixel
    return boxes_n4


def overlap(one_n4: np.ndarray, other_n4: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes, one by one; NaN where either is missing."""
    low = np.maximum(one_n4[:, :2], other_n4[:, :2])
    high = np.minimum(one_n4[:, 2:], other_n4[:, 2:])
    shared = (high - low).clip(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (one_n4, other_n4)]
    return shared / (areas[0] + areas[1] - shared)


def overlap_report(probe: Probe, held_out: ImageSet) -> dict[str, dict[str, float]]:
    """Return each object's mean overlap of read and true boxes, the share over one half, and n."""
    found = {}
    for name in boxed_objects(probe):
        shares = overlap(
            read_boxes(probe, held_out.images_u8, name), held_out.attributes[f"{name}_box"]
        )
        shares = shares[np.isfinite(shares)]
        found[name] = {
            "mean": round(float(shares.mean()), 4),
            "over_half": round(float((shares > 0.5).mean()), 4),
            "n": len(shares),
        }
    return found


def positions_inside(
    boxes_n4: np.ndarray, image_size: tuple[int, int], grid: tuple[int, int]
) -> np.ndarray:
    """Return which positions of a grid have their centre in a box of each picture, bool, n x h x w.

    ``boxes_n4`` in pixels, NaN for no box, or several a picture, n x k x 4; sizes are (height,
    width).
    """
    y_h, x_w = (
        (np.arange(count) + 0.5) * side / count
        for side, count in zip(image_size, grid, strict=True)
    )
    boxes_nk4 = boxes_n4[:, None] if boxes_n4.ndim == 2 else boxes_n4
    left, top, right, bottom = (boxes_nk4[..., i, None] for i in range(4))
    rows, columns = (y_h >= top) & (y_h < bottom), (x_w >= left) & (x_w < right)
    return (rows[..., :, None] & columns[..., None, :]).any(1)


def outlined(images_u8: np.ndarray, boxes_n4: np.ndarray) -> np.ndarray:
    """Return a copy of pictures with each box drawn in: a yellow frame with a black one around it.

    ``boxes_n4`` holds one box a picture, NaN for none, or several: n x k x 4. Grey pictures become
    RGB.
    """
    shown = np.array(with_channels(images_u8, 3))
    high = [shown.shape[3] - 1, shown.shape[2] - 1]
    boxes_nk4 = boxes_n4[:, None] if boxes_n4.ndim == 2 else boxes_n4
    for picture, boxes_k4 in zip(shown, boxes_nk4, strict=True):
        for box in boxes_k4[np.isfinite(boxes_k4).all(1)]:
            for grow, colour in ((1, (0, 0, 0)), (0, (255, 221, 0))):
                left, top = (box[:2].round().astype(int) - grow).clip(0, high)
                right, bottom = (box[2:].round().astype(int) - 1 + grow).clip(0, high)
                ink_c11 = np.array(colour, np.uint8)[:, None, None]
                picture[:, [top, bottom], left : right + 1] = ink_c11
                picture[:, top : bottom + 1, [left, right]] = ink_c11
    return shown


@dataclass(frozen=True, kw_only=True)
class HandBoxes:
    """Boxes drawn by hand on the pictures of a generator."""

    checkpoint: str
    """Name of the generator, or of its run's folder."""
    seed: int
    """Of its latent vectors."""
    object: str = "window"
    boxes: tuple[tuple[int, ...], ...] = ()
    """Each the number of a picture, from 0, and left, top, right, bottom; a picture may have
    several, or none."""

    @property
    def pictures(self) -> list[int]:
        """Return the numbers of the pictures that have a box."""
        return sorted({box[0] for box in self.boxes})

    def padded(self, num_images: int) -> np.ndarray:
        """Return each picture's boxes: float32, n x k x 4, NaN where it has fewer than k."""
        if self.pictures and self.pictures[-1] >= num_images:
            raise UserError(
                f"there is a box in picture {self.pictures[-1]}, "
                f"but only 0 to {num_images - 1} are drawn: ask for more"
            )
        rows: list[list[tuple[int, ...]]] = [[] for _ in range(num_images)]
        for index, *sides in self.boxes:
            rows[index].append(tuple(sides))
        boxes_nk4 = np.full((num_images, max(1, *map(len, rows)), 4), np.nan, np.float32)
        for boxes_k4, row in zip(boxes_nk4, rows, strict=True):
            boxes_k4[: len(row)] = np.reshape(row, (-1, 4))
        return boxes_nk4


def check_boxes(
    boxes: Any, num_images: int | None, image_size: tuple[int, int]
) -> tuple[tuple[int, ...], ...]:
    """Return boxes as plain numbers, in order of their pictures; refuse what lies outside."""
    (height, width), checked = image_size, []
    for box in boxes:
        if len(box) != 5 or not all(
            isinstance(x, Integral) and not isinstance(x, bool) for x in box
        ):
            raise UserError(
                "a box is five whole numbers (picture, left, top, right, bottom), "
                f"but one is {list(box)}"
            )
        index, left, top, right, bottom = (int(x) for x in box)
        if index < 0 or (num_images is not None and index >= num_images):
            allowed = "0 or more" if num_images is None else f"0 to {num_images - 1}"
            raise UserError(
                f"pictures are numbered {allowed}, but there is a box in picture {index}"
            )
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UserError(
                f"the box {[left, top, right, bottom]} of picture {index} is empty or outside its "
                f"{width} x {height} pixels: left < right and top < bottom are needed"
            )
        checked.append((index, left, top, right, bottom))
    return tuple(sorted(checked, key=lambda box: box[0]))


def save_boxes(path: str | Path, hand: HandBoxes) -> None:
    """Write boxes to a JSON file, one a line."""
    about = {key: value for key, value in asdict(hand).items() if key != "boxes"}
    lines = ",\n  ".join(json.dumps(list(box)) for box in hand.boxes)
    head = json.dumps(about, indent=1).removesuffix("\n}")
    atomic_write(Path(path), f'{head},\n "boxes": [\n  {lines}\n ]\n}}\n')


def load_boxes(path: str | Path, image_size: tuple[int, int], **wanted: Any) -> HandBoxes:
    """Read boxes that were drawn for the ``wanted`` checkpoint, seed or object from a JSON file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file of boxes at {path.as_posix()}: draw them first")
    saved = read_json(path, "draw them again")
    try:
        hand = HandBoxes(**{key: saved[key] for key in ("checkpoint", "seed", "object", "boxes")})
        boxes = check_boxes([list(box) for box in hand.boxes], None, image_size)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path.name} is not a file of boxes: {type(error).__name__} {error}"
        ) from error
    for key, value in wanted.items():
        if getattr(hand, key) != value:
            raise UserError(
                f"{path.name} holds boxes for {key} {getattr(hand, key)!r}, but {value!r} was "
                "asked for: choose another file"
            )
    return replace(hand, boxes=boxes)
