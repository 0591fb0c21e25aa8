"""A camera in a room and a stage that collects flat faces in painter's order.

World axes: x to the right, y up from the floor, z into the room; metres. Verticals stay
vertical (the camera turns about y only and the picture is shifted up or down), as in a
photograph of a room.
Legend: points are (x, y, z) tuples; ``_n2`` is N points by (x, y) in picture pixels.
"""

import math
from dataclasses import dataclass
from itertools import chain

import numpy as np

from dcgan_lib.data.procedural.canvas import Canvas, Colour, scale, to_fixed

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
        picture_n2[:, 0] = self.centre[0] + self.focal * (across * cosine - flat[:, 2] * sine) / depth
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
        return (x + u * self.along[0] + lift * self.normal[0], y + v, z + u * self.along[1] + lift * self.normal[1])

    def rectangle(self, u0: float, u1: float, v0: float, v1: float, lift: float = 0.0) -> list[Point]:
        """Return the four corners of an upright rectangle on the wall."""
        return [self.at(u0, v0, lift), self.at(u1, v0, lift), self.at(u1, v1, lift), self.at(u0, v1, lift)]


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
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], colour: Colour, tag: int
    ) -> None:
        """Add the visible faces of a box with sides along the axes: one flank, the front, the top."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        if self.camera.x < x0:
            self.face([(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)], scale(colour, self.left), tag)
        elif self.camera.x > x1:
            self.face([(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)], scale(colour, self.right), tag)
        self.face([(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], scale(colour, self.front), tag)
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
