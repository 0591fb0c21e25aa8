"""What rooms are painted with: colours, a canvas, a camera, and a stage of flat faces.

World axes: x to the right, y up from the floor, z into the room; metres. Verticals stay vertical
(the camera turns about y only and the picture is shifted up or down), as in a photograph of a room.
Legend: points are (x, y, z) tuples; ``_n2`` is N points by (x, y) in picture pixels.
"""

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]
"""RGB, 0..255."""
Point = tuple[float, float, float]
Range = tuple[float, float]
SUPERSAMPLING = 4
NEAR = 0.3
_SHIFT = 4


def palette(codes: str) -> list[Colour]:
    """Return colours from hexadecimal codes, such as ``"ff8000 0a0a0a"``."""
    return [tuple(map(float, bytes.fromhex(code))) for code in codes.split()]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour of a hue, saturation and value, each in [0, 1]."""
    return scale(colorsys.hsv_to_rgb(hue, saturation, value), 255)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return ``first`` moved towards ``second`` by ``share`` in [0, 1]."""
    return tuple((1 - share) * a + share * b for a, b in zip(first, second, strict=True))


def scale(colour: Colour, factor: float) -> Colour:
    """Return a colour made brighter or darker by ``factor``."""
    return tuple(factor * part for part in colour)


def circle(count: int, start: float = 0.0) -> list[tuple[float, float]]:
    """Return ``count`` points around the unit circle, the first ``start`` steps on."""
    turns = [2 * math.pi * (k + start) / count for k in range(count)]
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


class Draws:
    """Hand out one row of uniform numbers, one by one, as ready-made choices.

    Each part of a picture has its own row, so leaving one out does not change the others.
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
    """Paint polygons on a square RGB picture, with a tag in 0..255 for every pixel."""

    def __init__(self, size: int):
        self.size = size
        self.rgbt_hw4 = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING, 4), np.uint8)

    def polygon(
        self, fixed_n2: np.ndarray, colour: Colour, tag: int = 0, *, convex: bool = True
    ) -> None:
        """Fill one polygon whose corners come from `to_fixed`."""
        if convex:
            cv2.fillConvexPoly(self.rgbt_hw4, fixed_n2, (*colour, tag), cv2.LINE_8, _SHIFT)
        else:
            cv2.fillPoly(self.rgbt_hw4, [fixed_n2], (*colour, tag), cv2.LINE_8, _SHIFT)

    def shrink(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the finished picture (size x size x 4, uint8, tag averaged) and its tags' map."""
        half = cv2.resize(self.rgbt_hw4, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        small = cv2.resize(half, (self.size, self.size), interpolation=cv2.INTER_AREA)
        middles = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
        return small, np.ascontiguousarray(self.rgbt_hw4[middles, middles, 3])


def to_fixed(points_n2) -> np.ndarray:
    """Convert points in final pixels to the canvas's fixed-point coordinates (int32)."""
    # A pixel's centre lies at +0.5 in our coordinates and at 0 in OpenCV's.
    scaled = np.asarray(points_n2, np.float32) * (SUPERSAMPLING << _SHIFT) - (1 << _SHIFT) / 2
    return np.clip(scaled, -2e6, 2e6).astype(np.int32)


def tag_box(tags_hw: np.ndarray, tag: int) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) in pixels around a tag, x1 and y1 exclusive; NaN for none."""
    x, y, width, height = cv2.boundingRect(cv2.inRange(tags_hw, tag, tag))
    if not width:
        return (math.nan,) * 4
    return float(x), float(y), float(x + width), float(y + height)


def glow(size: int, centre, radius: float, *, stretch: float = 1.0) -> np.ndarray:
    """Return a Gaussian spot, size x size float32, 1 at the centre, ``stretch`` times taller."""
    axis = np.arange(size, dtype=np.float32) + np.float32(0.5)
    across, along = (
        np.exp(-0.5 * np.square((axis - np.float32(middle)) / np.float32(width)))
        for middle, width in zip(centre, (radius, radius * stretch), strict=True)
    )
    return along[:, None] * across[None, :]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera at z = 0."""

    x: float
    height: float
    yaw: float
    """Turn about the vertical in radians, positive to the right."""
    focal: float
    """Focal length in pixels."""
    centre: tuple[float, float]
    """Picture point (x, y) in pixels of the horizontal line of sight."""

    def project(self, points: Sequence[Point]) -> np.ndarray:
        """Return the picture points (N x 2, pixels) of world points at depth NEAR or beyond."""
        x, y, z = np.array(points, np.float64).reshape(-1, 3).T
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        across = x - self.x
        depth = np.maximum(across * sine + z * cosine, NEAR)
        picture_2n = (
            self.centre[0] + self.focal * (across * cosine - z * sine) / depth,
            self.centre[1] - self.focal * (y - self.height) / depth,
        )
        return np.stack(picture_2n, 1)

    def near_z(self, x: float) -> float:
        """Return the z at which a line along the room at this x passes the near plane."""
        return (NEAR + 1e-3 - (x - self.x) * math.sin(self.yaw)) / math.cos(self.yaw)


@dataclass(frozen=True)
class Wall:
    """A wall with its own coordinates: (u, v) in metres along it and up; ``lift`` is off it."""

    origin: Point
    along: tuple[float, float]
    normal: tuple[float, float]

    def at(self, u: float, v: float, lift: float = 0.0) -> Point:
        """Return the world point of wall coordinates."""
        (x, y, z), (along_x, along_z), (normal_x, normal_z) = self.origin, self.along, self.normal
        return x + u * along_x + lift * normal_x, y + v, z + u * along_z + lift * normal_z


class Stage:
    """Collect faces from back to front, each with the tag set when it comes; then paint them.

    The main light stands at ``light_x``: -1 far left, 0 before the back wall, 1 far right.
    """

    def __init__(self, camera: Camera, light_x: float):
        self.camera, self.tag = camera, 0
        self.left, self.right, self.front = 0.78 - 0.20 * light_x, 0.78 + 0.20 * light_x, 0.80
        self._points: list[Point] = []
        self._faces: list[tuple[int, Colour, int, bool]] = []

    def face(self, points: Sequence[Point], colour: Colour, *, convex: bool = True) -> None:
        """Add one flat polygon."""
        self._points.extend(points)
        self._faces.append((len(points), colour, self.tag, convex))

    def on_wall(
        self,
        wall: Wall,
        outline: Sequence[tuple[float, float]],
        lift: float,
        colour: Colour,
        *,
        convex: bool = True,
    ) -> None:
        """Add one polygon in a wall's coordinates."""
        self.face([wall.at(u, v, lift) for u, v in outline], colour, convex=convex)

    def panel(self, wall: Wall, u: Range, v: Range, lift: float, colour: Colour) -> None:
        """Add an upright rectangle on a wall."""
        (u0, u1), (v0, v1) = u, v
        self.on_wall(wall, [(u0, v0), (u1, v0), (u1, v1), (u0, v1)], lift, colour)

    def sheet(self, x: Range, z: Range, y: float, colour: Colour) -> None:
        """Add a level rectangle."""
        (x0, x1), (z0, z1) = x, z
        self.face([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], colour)

    def cutout(self, x: float, z: float, half_widths: Range, y: Range, colour: Colour) -> None:
        """Add an upright shape that faces the camera; half widths at the bottom and the top."""
        (low, high), (y0, y1) = half_widths, y
        self.face(
            [(x - low, y0, z), (x + low, y0, z), (x + high, y1, z), (x - high, y1, z)], colour
        )

    def box(self, x: Range, y: Range, z: Range, colour: Colour) -> None:
        """Add the faces that can be seen of a box along the axes: one flank, the front, the top."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        flanks = [(x0, self.left)] if self.camera.x < x0 else []
        flanks = [(x1, self.right)] if self.camera.x > x1 else flanks
        for flank, light in flanks:
            self.face(
                [(flank, y0, z0), (flank, y0, z1), (flank, y1, z1), (flank, y1, z0)],
                scale(colour, light),
            )
        self.face(
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], scale(colour, self.front)
        )
        if self.camera.height > y1:
            self.sheet(x, z, y1, colour)

    def paint(self, canvas: Canvas) -> None:
        """Paint all collected faces in the order in which they were added."""
        fixed_n2 = to_fixed(self.camera.project(self._points))
        start = 0
        for count, colour, tag, convex in self._faces:
            canvas.polygon(fixed_n2[start : start + count], colour, tag, convex=convex)
            start += count
