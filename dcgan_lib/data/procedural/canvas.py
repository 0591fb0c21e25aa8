"""Fast anti-aliased polygon painting shared by the procedural image sets.

A picture is painted four times too large with plain (not anti-aliased) polygons and then
shrunk by area, so every edge gets 16 samples a pixel. The fourth channel carries a tag, so
one pass gives both the picture and the box of each object's visible part.
Legend: ``_n2`` is N points by (x, y) in final pixels; ``_hw`` is rows by columns; ``_u8`` 0..255.
"""

import colorsys
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

Colour = tuple[float, float, float]
SUPERSAMPLING = 4
_SHIFT = 4
_TO_FIXED = SUPERSAMPLING << _SHIFT


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the RGB colour (0..255 floats) of a hue, saturation and value, each in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return 255 * red, 255 * green, 255 * blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return ``first`` moved towards ``second`` by ``share`` in [0, 1]."""
    keep = 1 - share
    return (
        keep * first[0] + share * second[0],
        keep * first[1] + share * second[1],
        keep * first[2] + share * second[2],
    )


def scale(colour: Colour, factor: float) -> Colour:
    """Return a colour made brighter or darker by ``factor``."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


class Dice:
    """Hand out the numbers of one row of uniforms, one by one, as ready-made choices.

    Parameters
    ----------
    uniforms : sequence of float
        Numbers in [0, 1); a row of its own for each part of a picture keeps the parts
        independent: leaving one out does not change the others.
    """

    __slots__ = ("_next",)

    def __init__(self, uniforms: Sequence[float]):
        self._next: Iterator[float] = iter(uniforms)

    def between(self, low: float, high: float) -> float:
        """Draw a float in [low, high)."""
        return low + (high - low) * next(self._next)

    def chance(self, probability: float) -> bool:
        """Draw True with the given probability."""
        return next(self._next) < probability

    def pick(self, options: Sequence):
        """Draw one of the options, all equally likely."""
        return options[int(next(self._next) * len(options))]


class Canvas:
    """Paint polygons on a square RGB picture with a tag for every pixel.

    Parameters
    ----------
    size : int
        Side of the finished picture, in pixels.
    background : Colour
        RGB, 0..255.
    """

    def __init__(self, size: int, background: Colour = (0, 0, 0)):
        self.size = size
        side = size * SUPERSAMPLING
        self.rgbt_hw4 = np.empty((side, side, 4), np.uint8)
        self.clear(background)

    def clear(self, background: Colour = (0, 0, 0)) -> None:
        """Paint everything in one colour with tag 0, to use the canvas again."""
        pixel = np.array([*background, 0], np.uint8).view(np.uint32)
        self.rgbt_hw4.view(np.uint32)[:] = pixel

    def polygon(self, fixed_n2: np.ndarray, colour: Colour, tag: int = 0, *, convex: bool = True) -> None:
        """Fill one polygon whose corners come from ``to_fixed``, with a tag in 0..255."""
        if convex:
            cv2.fillConvexPoly(self.rgbt_hw4, fixed_n2, (*colour, tag), cv2.LINE_8, _SHIFT)
        else:
            cv2.fillPoly(self.rgbt_hw4, [fixed_n2], (*colour, tag), cv2.LINE_8, _SHIFT)

    def shrink(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the finished picture (size x size x 4, uint8, tag averaged) and its tag map (size x size)."""
        half = cv2.resize(self.rgbt_hw4, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        small = cv2.resize(half, (self.size, self.size), interpolation=cv2.INTER_AREA)
        offset = SUPERSAMPLING // 2
        return small, np.ascontiguousarray(self.rgbt_hw4[offset::SUPERSAMPLING, offset::SUPERSAMPLING, 3])


def to_fixed(points_n2) -> np.ndarray:
    """Convert points in final pixels to the canvas's fixed-point coordinates (int32)."""
    # A pixel's centre lies at +0.5 in our coordinates and at 0 in OpenCV's.
    scaled = np.asarray(points_n2, np.float32) * _TO_FIXED - (1 << _SHIFT) / 2
    return np.clip(scaled, -2e6, 2e6).astype(np.int32)


def tag_box(tags_hw: np.ndarray, tag: int) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) in pixels around a tag's pixels, x1 and y1 exclusive; NaN where there are none."""
    x, y, width, height = cv2.boundingRect(cv2.inRange(tags_hw, tag, tag))
    if not width:
        return (math.nan,) * 4
    return float(x), float(y), float(x + width), float(y + height)


def glow(size: int, centre, radius: float, *, stretch: float = 1.0) -> np.ndarray:
    """Return a size x size float32 map of a soft spot: 1 at the centre, a Gaussian of the given radius.

    ``stretch`` multiplies the radius along y.
    """
    axis = np.arange(size, dtype=np.float32) + np.float32(0.5)
    across = np.exp(-0.5 * np.square((axis - np.float32(centre[0])) / np.float32(radius)))
    along = np.exp(-0.5 * np.square((axis - np.float32(centre[1])) / np.float32(radius * stretch)))
    return along[:, None] * across[None, :]
