"""Boxes drawn by hand around an object in a generator's pictures, and the file that keeps them.

Axes: n pictures, k boxes a picture, 4 a box (left, top, right, bottom) in pixels, right and bottom exclusive.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write


@dataclass(frozen=True, kw_only=True)
class DrawnBoxes:
    """Hold boxes and what they were drawn on.

    Parameters
    ----------
    checkpoint : str
        Name of the generator, or of its run's folder.
    seed : int
        Of its latent vectors.
    object : str, default "window"
        What is in the boxes.
    boxes : tuple of tuple of int
        Each the number of a picture, from 0, and left, top, right, bottom. A picture may have several, or none.
    """

    checkpoint: str
    seed: int
    object: str = "window"
    boxes: tuple[tuple[int, ...], ...] = ()

    @property
    def pictures(self) -> list[int]:
        """Return the numbers of the pictures that have a box."""
        return sorted({box[0] for box in self.boxes})

    def padded(self, num_images: int) -> np.ndarray:
        """Return the boxes of each picture: float32, n x k x 4, NaN where a picture has fewer than k.

        Raises
        ------
        UserError
            If a box belongs to a picture beyond the last.
        """
        if self.pictures and self.pictures[-1] >= num_images:
            raise UserError(
                f"there is a box in picture {self.pictures[-1]}, but only 0 to {num_images - 1} are drawn: ask for more"
            )
        rows: list[list[tuple[int, ...]]] = [[] for _ in range(num_images)]
        for index, *sides in self.boxes:
            rows[index].append(tuple(sides))
        boxes_nk4 = np.full((num_images, max(1, *map(len, rows)), 4), np.nan, np.float32)
        for boxes_k4, row in zip(boxes_nk4, rows, strict=True):
            boxes_k4[: len(row)] = np.reshape(row, (-1, 4))
        return boxes_nk4


def check_boxes(boxes: Any, num_images: int | None, image_size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Return boxes as plain numbers, in order of their pictures; refuse what lies outside.

    Parameters
    ----------
    boxes : sequence
        See `DrawnBoxes`.
    num_images : int, optional
        How many pictures there are; unset: not checked.
    image_size : tuple of int
        Height and width.

    Raises
    ------
    UserError
        If a box is not five whole numbers, is empty, or reaches out of its picture or past the last one.
    """
    (height, width), checked = image_size, []
    for box in boxes:
        if len(box) != 5 or not all(isinstance(x, Integral) and not isinstance(x, bool) for x in box):
            raise UserError(f"a box is five whole numbers (picture, left, top, right, bottom), but one is {list(box)}")
        index, left, top, right, bottom = (int(x) for x in box)
        if index < 0 or (num_images is not None and index >= num_images):
            allowed = "0 or more" if num_images is None else f"0 to {num_images - 1}"
            raise UserError(f"pictures are numbered {allowed}, but there is a box in picture {index}")
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UserError(
                f"the box {[left, top, right, bottom]} of picture {index} is empty or outside its {width} x {height} "
                "pixels: left < right and top < bottom are needed"
            )
        checked.append((index, left, top, right, bottom))
    return tuple(sorted(checked, key=lambda box: box[0]))


def save_boxes(path: str | Path, drawn: DrawnBoxes) -> None:
    """Write boxes to a JSON file, one a line."""
    about = {key: value for key, value in asdict(drawn).items() if key != "boxes"}
    lines = ",\n  ".join(json.dumps(list(box)) for box in drawn.boxes)
    head = json.dumps(about, indent=1).removesuffix("\n}")
    atomic_write(Path(path), f'{head},\n "boxes": [\n  {lines}\n ]\n}}\n')


def load_boxes(path: str | Path, image_size: tuple[int, int], **wanted: Any) -> DrawnBoxes:
    """Read boxes from a JSON file.

    Parameters
    ----------
    path : str or Path
        As written by `save_boxes`.
    image_size : tuple of int
        Height and width of the pictures.
    **wanted
        The checkpoint, seed or object that they must have been drawn for.

    Raises
    ------
    UserError
        If there is no such file, it is damaged or holds an impossible box, or it was drawn for something else.
    """
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        drawn = DrawnBoxes(**{key: saved[key] for key in ("checkpoint", "seed", "object", "boxes")})
        boxes: Sequence[Sequence[int]] = [list(box) for box in drawn.boxes]
    except FileNotFoundError as error:
        raise UserError(f"there is no file of boxes at {Path(path).as_posix()}: draw them first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{Path(path).name} is not a file of boxes: {type(error).__name__} {error}") from error
    for key, value in wanted.items():
        if getattr(drawn, key) != value:
            raise UserError(
                f"{Path(path).name} holds boxes for {key} {getattr(drawn, key)!r}, but {value!r} was asked for: "
                "choose another file"
            )
    checked = check_boxes(boxes, None, image_size)
    return DrawnBoxes(checkpoint=drawn.checkpoint, seed=drawn.seed, object=drawn.object, boxes=checked)
