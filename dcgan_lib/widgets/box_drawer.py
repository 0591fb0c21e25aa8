"""A widget to draw boxes around an object by hand, as the paper did for windows.

Axes: n pictures, c h w channels and grid; ``_u8`` pixels 0..255. Every trait is a setting of
``box_drawer.js``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from traitlets import Int, List, Unicode

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import HandBoxes, check_boxes, load_boxes, save_boxes
from dcgan_lib.training.checkpoints import draw, find_run, load_config
from dcgan_lib.widgets.page import PageWidget, script

NOTE = (
    "Here one draws boxes with the mouse or the keyboard, in JupyterLab: open this chapter as a "
    "notebook and run this cell. Without a kernel there is nothing to draw in."
)


class BoxDrawer(PageWidget):
    """Draw boxes around an object, picture by picture; each change is saved to the file ``path``.

    The file is read if it is there; the ``boxes`` given are for where it is not. Each box is the
    number of a picture, from 0, and left, top, right, bottom in pixels, right and bottom exclusive.
    """

    _esm = script("box_drawer.js")
    generator, object = (Unicode().tag(sync=True) for _ in range(2))
    seed, num_images, width, height, index = (Int(0).tag(sync=True) for _ in range(5))
    boxes = List(List(Int())).tag(sync=True)

    def __init__(
        self,
        generator_name: str = "bedrooms",
        num_images: int = 150,
        seed: int = 0,
        path: str | Path = "windows.json",
        *,
        object: str = "window",
        boxes: Iterable[Iterable[int]] = (),
    ) -> None:
        config = load_config(generator_name)[0].model
        if config.num_classes:
            raise UserError(
                "boxes are drawn on pictures of a generator without classes: choose another one"
            )
        self._pictures_u8, self.path = draw(generator_name, num_images, seed=seed), Path(path)
        name, size = find_run(generator_name).name, config.image_size
        if self.path.exists():
            boxes = load_boxes(self.path, size, checkpoint=name, seed=seed, object=object).boxes
        checked = [list(box) for box in check_boxes(list(boxes), num_images, size)]
        height, width = size
        super().__init__(
            generator=name,
            object=object,
            seed=seed,
            num_images=num_images,
            width=width,
            height=height,
            boxes=checked,
        )
        self.on_msg(self._answer)
        self.observe(lambda _: self.save(), "boxes")

    @traitlets.validate("boxes")
    def _valid_boxes(self, proposal: dict[str, Any]) -> list[list[int]]:
        size = (self.height, self.width)
        return [list(box) for box in check_boxes(proposal["value"], self.num_images, size)]

    @traitlets.validate("index")
    def _valid_index(self, proposal: dict[str, Any]) -> int:
        if not 0 <= proposal["value"] < self.num_images:
            raise UserError(
                f"pictures are numbered 0 to {self.num_images - 1}; got {proposal['value']}"
            )
        return proposal["value"]

    @property
    def drawn(self) -> HandBoxes:
        """The boxes with what they were drawn on."""
        boxes = tuple(tuple(box) for box in self.boxes)
        return HandBoxes(checkpoint=self.generator, seed=self.seed, object=self.object, boxes=boxes)

    def save(self) -> None:
        """Write the boxes to the file."""
        save_boxes(self.path, self.drawn)

    def picture(self, index: int) -> np.ndarray:
        """Return a picture: uint8, h x w x 4, red, green, blue and full opacity."""
        pixels_chw = self._pictures_u8[index]
        rgb_chw = np.broadcast_to(pixels_chw, (3, *pixels_chw.shape[1:]))
        return np.concatenate([rgb_chw, np.full_like(rgb_chw[:1], 255)]).transpose(1, 2, 0)

    def _answer(self, _: Any, content: dict[str, Any], __: list[bytes]) -> None:
        index = content.get("index")
        if content.get("type") == "need picture" and index in range(self.num_images):
            self.send({"type": "picture", "index": index}, [self.picture(index).tobytes()])

    def __repr__(self) -> str:
        return f"BoxDrawer({self.generator!r}, num_images={self.num_images}, seed={self.seed})"

    def page(self) -> str:
        """Return a note, for pages without a kernel."""
        return f'<p class="dcgan-boxes">{NOTE}</p>'
