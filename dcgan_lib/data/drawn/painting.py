"""A camera in a room and a stage that collects flat faces in painter's order.

World axes: x to the right, y up from the floor, z into the room; metres. Verticals stay
vertical (the camera turns about y only and the picture is shifted up or down), as in a
photograph of a room.
Legend: points are (x, y, z) tuples; ``_n2`` is N points by (x, y) in picture pixels.
"""

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

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

    def polygon(
        self, fixed_n2: np.ndarray, colour: Colour, tag: int = 0, *, convex: bool = True
    ) -> None:
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
        return small, np.ascontiguousarray(
            self.rgbt_hw4[offset::SUPERSAMPLING, offset::SUPERSAMPLING, 3]
        )


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


Point = tuple[float, float, float]
NEAR = 0.3


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Describe a pinhole camera.

    Parameters
    ----------
    x, height : float
        Position in metres; it stands at z = 0.
    yaw : float
        Turn about the vertical in radians, positive to the right.
    focal : float
        Focal length in pixels.
    centre : tuple of float
        Picture point (x, y) in pixels of the horizontal line of sight.
    """

    x: float
    height: float
    yaw: float
    focal: float
    centre: tuple[float, float]

    def project(self, points: list[Point]) -> np.ndarray:
        """Return the picture points (N x 2, pixels) of world points; depths under NEAR are moved to it."""
        flat = np.fromiter(chain.from_iterable(points), np.float64, 3 * len(points)).reshape(-1, 3)
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        across = flat[:, 0] - self.x
        depth = np.maximum(across * sine + flat[:, 2] * cosine, NEAR)
        picture_n2 = np.empty((len(points), 2))
        picture_n2[:, 0] = (
            self.centre[0] + self.focal * (across * cosine - flat[:, 2] * sine) / depth
        )
        picture_n2[:, 1] = self.centre[1] - self.focal * (flat[:, 1] - self.height) / depth
        return picture_n2

    def project_one(self, point: Point) -> tuple[float, float, float]:
        """Return (x, y, depth) of one world point: pixels, pixels, metres."""
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        across = point[0] - self.x
        depth = max(across * sine + point[2] * cosine, NEAR)
        return (
            self.centre[0] + self.focal * (across * cosine - point[2] * sine) / depth,
            self.centre[1] - self.focal * (point[1] - self.height) / depth,
            depth,
        )

    def near_z(self, x: float) -> float:
        """Return the z at which a line along the room at this x passes the near plane."""
        return (NEAR + 1e-3 - (x - self.x) * math.sin(self.yaw)) / math.cos(self.yaw)


@dataclass(frozen=True)
class Plane:
    """Stand on a wall: (u, v) in metres along it and up; ``lift`` moves off it into the room."""

    origin: Point
    along: tuple[float, float]
    normal: tuple[float, float]

    def at(self, u: float, v: float, lift: float = 0.0) -> Point:
        """Return the world point of wall coordinates."""
        x, y, z = self.origin
        return (
            x + u * self.along[0] + lift * self.normal[0],
            y + v,
            z + u * self.along[1] + lift * self.normal[1],
        )

    def rectangle(
        self, u0: float, u1: float, v0: float, v1: float, lift: float = 0.0
    ) -> list[Point]:
        """Return the four corners of an upright rectangle on the wall."""
        return [
            self.at(u0, v0, lift),
            self.at(u1, v0, lift),
            self.at(u1, v1, lift),
            self.at(u0, v1, lift),
        ]


class Stage:
    """Collect faces from back to front, then paint them in one go.

    Parameters
    ----------
    camera : Camera
    light_x : float
        Where the main light stands: -1 far left, 0 in front of the viewer's back wall, 1 far right.
    """

    def __init__(self, camera: Camera, light_x: float):
        self.camera = camera
        self.left = 0.78 - 0.20 * light_x
        self.right = 0.78 + 0.20 * light_x
        self.front = 0.80
        self._points: list[Point] = []
        self._faces: list[tuple[int, Colour, int, bool]] = []

    def face(self, points: list[Point], colour: Colour, tag: int, *, convex: bool = True) -> None:
        """Add one flat polygon."""
        self._points.extend(points)
        self._faces.append((len(points), colour, tag, convex))

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: Colour,
        tag: int,
    ) -> None:
        """Add the visible faces of a box with sides along the axes: one flank, the front, the top."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        if self.camera.x < x0:
            self.face(
                [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)],
                scale(colour, self.left),
                tag,
            )
        elif self.camera.x > x1:
            self.face(
                [(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)],
                scale(colour, self.right),
                tag,
            )
        self.face(
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], scale(colour, self.front), tag
        )
        if self.camera.height > y1:
            self.face([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], colour, tag)

    def paint(self, canvas: Canvas) -> None:
        """Paint all collected faces in the order in which they were added, and forget them."""
        fixed_n2 = to_fixed(self.camera.project(self._points))
        start = 0
        for count, colour, tag, convex in self._faces:
            canvas.polygon(fixed_n2[start : start + count], colour, tag, convex=convex)
            start += count
        self._points.clear()
        self._faces.clear()
