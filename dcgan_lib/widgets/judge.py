"""The judge: a reader draws a picture, and a discriminator in the page gives its opinion of it.

Axes: s segments, p points, h w grid. A stroke is a list of points (x, y), each 0 to 1, from the top
left. The JavaScript twin of the pixels is in ``judge.js``.
"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from traitlets import Bool, Float, List, Unicode

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import logits_of
from dcgan_lib.training.checkpoints import load_config, load_discriminator
from dcgan_lib.widgets.explorer import send_weights
from dcgan_lib.widgets.export import probabilities
from dcgan_lib.widgets.page import PageWidget, script

Strokes = Sequence[Sequence[Sequence[float]]]
MAX_POINTS = 2000


class Judge(PageWidget):
    """Draw a picture by hand, in white on black, and see how real a discriminator takes it to be.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint or a run's folder, whose discriminator judges grey pictures.
    strokes : list of list of list of float
        The drawing: at most 2,000 points in all.
    pen : float
        Width of a stroke in the network's pixels, 1 to 6.
    fit : bool
        Scale the drawing to 20 of 32 pixels and put its centre of mass in the middle, as the makers
        of MNIST did.

    Raises
    ------
    UserError
        If a setting is not one of those above, or the discriminator judges other pictures.
    """

    _esm = script("judge.js")
    model = Unicode("mnist").tag(sync=True)
    strokes = List(List(List(Float()))).tag(sync=True)
    pen = Float(2.6).tag(sync=True)
    fit = Bool(True).tag(sync=True)

    def __init__(self, checkpoint: str = "mnist", **settings: Any) -> None:
        unknown = sorted(set(settings) - {"strokes", "pen", "fit"})
        if unknown:
            raise UserError(f"the judge has no setting {unknown[0]!r}: choose strokes, pen or fit")
        super().__init__(model=str(checkpoint), **settings)
        load_discriminator(self.model)
        self.on_msg(self._answer)

    # --- what is allowed ---
    @traitlets.validate("model")
    def _valid_model(self, proposal: dict[str, Any]) -> str:
        config = load_config(proposal["value"])[0].model
        is_plain = config.architecture == "convolutional" and not config.num_classes
        if config.num_channels != 1 or not is_plain:
            raise UserError(
                "the judge needs a convolutional discriminator of grey pictures without labels, "
                f"which {proposal['value']} is not: choose mnist"
            )
        return proposal["value"]

    @traitlets.validate("pen")
    def _valid_pen(self, proposal: dict[str, Any]) -> float:
        if not 1 <= proposal["value"] <= 6:
            raise UserError(f"pen must be from 1 to 6 pixels, but it is {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("strokes")
    def _valid_strokes(self, proposal: dict[str, Any]) -> list[list[list[float]]]:
        strokes = proposal["value"]
        points = [point for stroke in strokes for point in stroke]
        if len(points) > MAX_POINTS:
            raise UserError(f"a drawing has at most {MAX_POINTS} points, but {len(points)} came")
        for point in points:
            if len(point) != 2 or not all(0 <= value <= 1 for value in point):
                raise UserError(f"a point is x and y, each from 0 to 1, but {point} came")
        return strokes

    # --- what it shows ---
    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return load_config(self.model)[0].model

    @property
    def picture(self) -> np.ndarray:
        """What the discriminator sees: uint8, h x w."""
        return rasterise(self.strokes, self.config.image_size, self.pen, self.fit)

    @property
    def probability(self) -> float:
        """PyTorch's opinion of the picture: the probability that it is real."""
        logits = logits_of(load_discriminator(self.model), self.picture[None, None])
        return float(probabilities(logits)[0])

    def _answer(self, _: Any, content: dict[str, Any], __: list[bytes]) -> None:
        send_weights(self, content)

    def settings(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        changed = {}
        for name in ("strokes", "pen", "fit"):
            value = getattr(self, name)
            if value != self.class_traits()[name].default():
                changed[name] = value
        return changed

    def __repr__(self) -> str:
        return f"Judge(checkpoint={self.model!r}, {len(self.strokes)} strokes)"

    def page(self) -> str:
        """Return the same judge as HTML, for pages without a kernel."""
        return judge_html(Path(self.model).name, **self.settings())


def judge_html(model: str = "mnist", **settings: Any) -> str:
    """Return a static page's mount point: the settings, with a sentence inside."""
    text = html.escape(json.dumps({"model": model, **settings}, sort_keys=True))
    name = html.escape(model)
    words = (
        f"Here, with JavaScript, you draw a digit, and the discriminator {name} says in this page "
        "how likely it takes the drawing to be real."
    )
    return f'<div class="dcgan-judge" data-judge="{text}"><p>{words}</p></div>'


def rasterise(strokes: Strokes, size: tuple[int, int], pen: float, fit: bool) -> np.ndarray:
    """Return a drawing's pixels, uint8, h x w: white ink on black.

    A pixel's level falls from 255 to 0 over the last pixel of its distance from the nearest stroke.
    """
    height, width = size
    a_s2, b_s2 = _segments(strokes)
    a_s2, b_s2 = a_s2 * (width, height), b_s2 * (width, height)
    if not len(a_s2):
        return np.zeros(size, np.uint8)
    if fit:
        a_s2, b_s2 = _fitted(a_s2, b_s2, size, pen)
    y_hw, x_hw = np.mgrid[:height, :width] + 0.5
    nearest_hw = np.full(size, np.inf)
    for (ax, ay), (bx, by) in zip(a_s2, b_s2, strict=True):
        dx, dy = bx - ax, by - ay
        along_hw = (x_hw - ax) * dx + (y_hw - ay) * dy
        t_hw = np.clip(along_hw / max(1e-12, dx * dx + dy * dy), 0, 1)
        distance_hw = (x_hw - ax - t_hw * dx) ** 2 + (y_hw - ay - t_hw * dy) ** 2
        nearest_hw = np.minimum(nearest_hw, distance_hw)
    ink_hw = np.clip(pen / 2 + 0.5 - np.sqrt(nearest_hw), 0, 1)
    return np.floor(255 * ink_hw + 0.5).astype(np.uint8)


def _segments(strokes: Strokes) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last points of the straight pieces, each (s, 2)."""
    first, last = [], []
    for stroke in strokes:
        if len(stroke) == 1:
            first.append(stroke[0])
            last.append(stroke[0])
        for i in range(1, len(stroke)):
            first.append(stroke[i - 1])
            last.append(stroke[i])
    return np.reshape(np.array(first, float), (-1, 2)), np.reshape(np.array(last, float), (-1, 2))


def _fitted(
    a_s2: np.ndarray, b_s2: np.ndarray, size: tuple[int, int], pen: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and centre pieces as MNIST's makers did: 20 of 28 pixels, or of 32 with a margin."""
    points_p2 = np.concatenate([a_s2, b_s2])
    sides = points_p2.max(0) - points_p2.min(0)
    box = 20 * min(*size, 28) / 28 * max(1, min(size) / 32)
    scale = min(4, (box - pen) / max(1e-6, *sides))
    length_s = np.sqrt(((b_s2 - a_s2) ** 2).sum(1)) + 1e-6
    centre = (length_s[:, None] * (a_s2 + b_s2) / 2).sum(0) / length_s.sum()
    middle = np.array([size[1], size[0]]) / 2
    return middle + scale * (a_s2 - centre), middle + scale * (b_s2 - centre)
