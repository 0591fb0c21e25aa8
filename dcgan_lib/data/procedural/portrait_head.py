"""Turn points on a head into pixels, for many heads at once, and collect the shapes drawn there.

Everything on a face is given by longitude and latitude (radians) on a head that is turned before it is flattened, so
features shift and foreshorten as they do on a solid. Longitude 0 is the middle of the face and grows to the viewer's
right; latitude 0 is the middle of the head and grows upwards.

Axes: n faces, k points. Every parameter in ``f`` is n x 1, every colour in ``c`` n x 3 (RGB, 0..255); an outline is
n x k x 2 in pixels of the 64 x 64 picture, y downwards.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

FACE, NECK, HAIR, CLOTH = range(4)
QUARTER = np.pi / 2
SIDES = (-1, 1)


class Shape(NamedTuple):
    """Hold one filled outline for each of n faces.

    Attributes
    ----------
    layer : str
        "flat" (plain colour), "soft" (dark, light, blush; blurred) or "cast" (shadow; blurred).
    start, stop : int
        Which points of the joined outlines are its own.
    colour : list of list of int
        One per face.
    visible : list of bool
        Whether each face shows it.
    part : int or None
        FACE, NECK, HAIR or CLOTH: which light falls on it; None keeps what lies beneath.
    """

    layer: str
    start: int
    stop: int
    colour: list
    visible: list
    part: int | None


class Sketch:
    """Collect the shapes of n faces in painting order.

    Parameters
    ----------
    num_faces : int
        Every outline, colour and flag is for that many, or for one and then shared.
    """

    def __init__(self, num_faces: int):
        self.num_faces, self.shapes, self.outlines, self._num_points = num_faces, [], [], 0

    def add(self, points_nk2, colour, visible=True, part=None, layer="flat") -> None:
        """Add an outline with its colour: by default a plain one."""
        start, self._num_points = self._num_points, self._num_points + points_nk2.shape[1]
        self.outlines.append(np.broadcast_to(points_nk2, (self.num_faces, *points_nk2.shape[1:])))
        colour = np.clip(np.broadcast_to(colour, (self.num_faces, np.shape(colour)[-1])), 0, 255).astype(int).tolist()
        visible = np.broadcast_to(np.ravel(visible), self.num_faces).tolist()
        self.shapes.append(Shape(layer, start, self._num_points, colour, visible, part))

    def shade(self, points_nk2, dark: int = 0, light: int = 0, blush: int = 0) -> None:
        """Add soft modelling of the skin."""
        self.add(points_nk2, (dark, light, blush), layer="soft")

    def cast(self, points_nk2, strength: int, visible=True) -> None:
        """Add a shadow cast on the skin; strength 0 takes away those before it."""
        self.add(points_nk2, (strength,), visible, layer="cast")


def lerp(low, high, amount):
    """Mix ``low`` and ``high``: ``amount`` 0 gives the first, 1 the second."""
    return low + (high - low) * amount


def step(low: float, high, x):
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def span(low: float, high: float, num: int) -> np.ndarray:
    """Return ``num`` even steps, 1 x k, both ends included."""
    return np.linspace(low, high, num)[None]


def around(num: int) -> np.ndarray:
    """Return ``num`` angles of a full turn, 1 x k."""
    return np.linspace(0, 2 * np.pi, num, endpoint=False)[None]


def xy(x, y) -> np.ndarray:
    """Join coordinates, n x k each, into points, n x k x 2."""
    return np.stack(np.broadcast_arrays(x, y), -1)


def strip(first_nk2: np.ndarray, second_nk2: np.ndarray) -> np.ndarray:
    """Outline the strip between two edges that run the same way."""
    return np.concatenate([first_nk2, second_nk2[:, ::-1]], 1)


def ring(f: SimpleNamespace, lat) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the middle, half width and height in pixels of the head at a latitude."""
    up = np.sin(lat)
    down = np.maximum(-up, 0)
    cos = np.sqrt(np.maximum(1 - up * up, 0))
    half = f.a * np.sqrt(cos * np.sqrt(cos)) * (1 - f.jaw * down * np.sqrt(down))
    # The chin leads a turn and the crown trails it.
    return f.cx - f.lead * up, half, f.cy - f.b * up


def on_head(f: SimpleNamespace, lon, lat, lift=None) -> np.ndarray:
    """Return the pixels of points on the head, ``lift`` times as far out from its axis as the skin."""
    middle, half, y = ring(f, lat)
    turned = lon + f.turn
    if lift is None:
        return xy(middle + half * np.sin(np.clip(turned, -QUARTER, QUARTER)), y)
    return xy(middle + lift * half * np.sin(turned), y)


def oval(f: SimpleNamespace, lon, lat, rx, ry, lift=None, power=None, num: int = 12) -> np.ndarray:
    """Outline an oval of half axes ``rx``, ``ry`` radians on the head; ``power`` below 1 squares it off."""
    t = around(num)
    c, s = np.cos(t), np.sin(t)
    if power is not None:
        c, s = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    return on_head(f, lon + rx * c, lat + ry * s, lift)


def ribbon(f: SimpleNamespace, lon, lat, thickness, lift=None) -> np.ndarray:
    """Outline a stroke along a line on the head, ``thickness`` radians to either side."""
    return strip(on_head(f, lon, lat + thickness, lift), on_head(f, lon, lat - thickness, lift))
