"""Light a drawn bedroom: soft shadows, daylight on the floor, the window's and the lamp's glow, grain.

Legend: ``_hw`` is 64 x 64 float32 or uint8, ``_hw3`` the same with RGB last; 1.0 is neutral light.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np

from dcgan_lib.data.drawn.painting import (
    Camera,
    Colour,
    Dice,
    Plane,
    Point,
    Stage,
    glow,
    hsv,
    mix,
    scale,
)

MAX_YAW = math.radians(20)
STEP_ASIDE = 0.85
SIDE_ITEMS = ("door", "door", "door", "window", "window", "window", "picture", "picture", "", "")
MIN_YAW_FOR_SIDE = {"door": 0.2, "window": 0.4, "picture": 0.4}


@dataclass(frozen=True)
class Hangings:
    """Hold the wall ("back", "left", "right"), size and centre along it (metres) of door, window and picture."""

    walls: dict[str, str]
    sizes: dict[str, tuple[float, float]]
    centres: dict[str, float]

    def behind(self, name: str, x: float, reach: float) -> bool:
        """Say whether an object hangs on the back wall with its centre within ``reach`` of this x."""
        return self.walls[name] == "back" and abs(x - self.centres[name]) < reach


@dataclass(frozen=True)
class Bed:
    """Hold a bed's ranges of x and z (metres) and where its head stands: -1 left wall, 0 back wall, 1 right wall."""

    x: tuple[float, float]
    z: tuple[float, float]
    head: int

    def clear_of(self, x: float, room: float) -> bool:
        """Say whether x lies beside the bed, at least ``room`` off it."""
        return x < self.x[0] - room or x > self.x[1] + room


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Hold the places of one room, in metres.

    Parameters
    ----------
    width, depth, height : float
        The room's size; x = 0 is its middle, z = 0 the camera's distance, z = depth the back wall.
    camera : Camera
    hangings : Hangings
    bed : Bed
    lamp_x : float
        Where the lamp stands along the back wall.
    lamp_tall : bool
        A standing lamp; otherwise a lamp on a small table.
    rug : tuple of float
        Centre x, centre z, half width, half length.
    plant_x : float or None
        Where a plant stands along the back wall.
    """

    width: float
    depth: float
    height: float
    camera: Camera
    hangings: Hangings
    bed: Bed
    lamp_x: float
    lamp_tall: bool
    rug: tuple[float, float, float, float]
    plant_x: float | None

    @property
    def lamp_before_bed(self) -> bool:
        """Say whether the lamp can hide the bed: when both it and the camera stand on one side of the bed."""
        (left, right), spots = self.bed.x, (self.lamp_x, self.camera.x)
        return not self.bed.head and (max(spots) < left or min(spots) > right)

    def plane(self, wall: str) -> Plane:
        """Return the plane of a wall ("back", "left" or "right") with u = x on the back wall, z on the sides."""
        if wall == "back":
            return Plane((0.0, 0.0, self.depth), (1.0, 0.0), (0.0, -1.0))
        if wall == "left":
            return Plane((-self.width / 2, 0.0, 0.0), (0.0, 1.0), (1.0, 0.0))
        return Plane((self.width / 2, 0.0, 0.0), (0.0, 1.0), (-1.0, 0.0))

    def hanging_point(self, name: str, height: float) -> Point:
        """Return the point on the wall at an object's centre, ``height`` metres up."""
        return self.plane(self.hangings.walls[name]).at(self.hangings.centres[name], height)


def make_camera(yaw: float, dice: Dice) -> Camera:
    """Return a camera turned by ``yaw`` in [-1, 1]."""
    straight = Camera(
        x=dice.between(-0.18, 0.18),
        height=dice.between(1.4, 1.75),
        yaw=0.0,
        focal=dice.between(46.5, 49.5),
        centre=(32.0, dice.between(21.5, 26.0)),
    )
    return turned(straight, yaw)


def turned(camera: Camera, yaw: float) -> Camera:
    """Return the camera turned to ``yaw`` in [-1, 1]; it steps aside as it turns, to keep the room in view."""
    return replace(
        camera, yaw=MAX_YAW * yaw, x=camera.x - STEP_ASIDE * (yaw - camera.yaw / MAX_YAW)
    )


def make_layout(yaw: float, view: Dice, dice: Dice) -> Layout:
    """Place everything in a room seen with this yaw.

    Parameters
    ----------
    yaw : float
        Camera yaw in [-1, 1].
    view, dice : Dice
        Numbers for the camera and the room's size, and for the places.
    """
    camera = make_camera(yaw, view)
    width, depth, height = (
        view.between(3.5, 4.0),
        view.between(3.55, 4.05),
        view.between(2.45, 2.75),
    )
    hangings = _hang(yaw, width, depth, dice)
    bed = _place_bed(hangings, width, depth, dice)
    lamp_x, lamp_tall = _place_lamp(camera, hangings, bed, width, depth, dice)
    return Layout(
        width=width,
        depth=depth,
        height=height,
        camera=camera,
        hangings=hangings,
        bed=bed,
        lamp_x=lamp_x,
        lamp_tall=lamp_tall,
        rug=_place_rug(bed, width, dice),
        plant_x=_place_plant(hangings, bed, lamp_x, width, dice),
    )


def _hang(yaw: float, width: float, depth: float, dice: Dice) -> Hangings:
    """Choose wall, size and centre of door, window and picture, with none over another.

    One of them may hang on the side wall that the camera turns to, where enough of it is in view.
    """
    walls = dict.fromkeys(("door", "window", "picture"), "back")
    item = dice.pick(SIDE_ITEMS)
    if item and abs(yaw) > MIN_YAW_FOR_SIDE[item]:
        walls[item] = "right" if yaw > 0 else "left"
    columns = _columns(walls, dice)
    window_width = dice.between(0.95, 1.15)
    if columns.get("window") == 0 and "door" not in columns:
        window_width = dice.between(1.15, 1.6)
    sizes = {
        "door": (dice.between(0.8, 0.92), dice.between(1.95, 2.1)),
        "window": (window_width, dice.between(0.95, 1.25)),
        "picture": (dice.between(0.7, 0.92), dice.between(0.6, 0.85)),
    }
    centres = {}
    for name, (breadth, _) in sizes.items():
        middle = (
            columns[name] * (width / 2 - 0.65) if name in columns else depth - 0.4 - breadth / 2
        )
        centres[name] = middle + dice.between(-0.06, 0.06)
    return Hangings(walls, sizes, centres)


def _columns(walls: dict[str, str], dice: Dice) -> dict[str, int]:
    """Choose a column (-1, 0, 1) for each object on the back wall; a door is never in the middle."""
    columns, free, door = {}, [-1, 0, 1], dice.pick((-1, 1))
    if walls["door"] == "back":
        columns["door"] = door
        free.remove(door)
    for name in ("window", "picture"):
        column = dice.pick(free)
        if walls[name] == "back":
            columns[name] = column
            free.remove(column)
    return columns


def _place_bed(hangings: Hangings, width: float, depth: float, dice: Dice) -> Bed:
    """Place the bed away from the door: its head at the back wall, or sideways at a side wall."""
    half, sideways = width / 2, dice.chance(0.3)
    breadth, length = dice.between(1.05, 1.65), dice.between(1.85, 2.05)
    door_side = {"back": math.copysign(1, hangings.centres["door"]), "left": -1, "right": 1}[
        hangings.walls["door"]
    ]
    if sideways:
        head = -int(door_side)
        near, far = head * (half - 0.03 - length), head * (half - 0.03)
        back = depth - dice.between(0.08, 0.6)
        return Bed((min(near, far), max(near, far)), (back - breadth, back), head)
    low, high = -half + 0.12 + breadth / 2, half - 0.12 - breadth / 2
    if hangings.walls["door"] == "back":
        low, high = (low, high - 1.03) if door_side > 0 else (low + 1.03, high)
    x = dice.between(low, high) if low < high else (low + high) / 2
    return Bed((x - breadth / 2, x + breadth / 2), (depth - 0.04 - length, depth - 0.04), 0)


def _place_lamp(
    camera: Camera, hangings: Hangings, bed: Bed, width: float, depth: float, dice: Dice
) -> tuple[float, bool]:
    """Choose a place along the back wall and whether the lamp is tall: in view, off the bed, off what hangs there."""
    half, tall, which = width / 2, dice.chance(0.35), dice.between(0, 1)
    places = []
    for step in range(17):
        x = -half + 0.3 + step * (width - 0.6) / 16
        in_view = 5 < camera.project_one((x, 1.0, depth - 0.3))[0] < 59
        if in_view and (bed.head or bed.clear_of(x, 0.24)) and not hangings.behind("door", x, 0.62):
            places.append(x)
    clear = [
        x
        for x in places
        if not hangings.behind("window", x, 0.35 + hangings.sizes["window"][0] / 2)
    ]
    tall_places = [x for x in clear if not hangings.behind("picture", x, 0.8)] if tall else []
    if tall_places:
        return tall_places[int(which * len(tall_places))], True
    places = clear or places
    if not places:
        return min((bed.x[0] - 0.3, bed.x[1] + 0.3), key=abs), False
    if not bed.head:
        places.sort(key=lambda x: min(abs(x - bed.x[0] + 0.3), abs(x - bed.x[1] - 0.3)))
        places = places[:3]
    return places[int(which * len(places))], False


def _place_rug(bed: Bed, width: float, dice: Dice) -> tuple[float, float, float, float]:
    """Return centre x, centre z, half width and half length of the rug, in front of the bed."""
    x = 0.35 * (bed.x[0] + bed.x[1]) + dice.between(-0.3, 0.3)
    half_width = dice.between(0.7, 1.15)
    limit = width / 2 - 0.1 - half_width
    return (
        max(-limit, min(limit, x)),
        bed.z[0] - dice.between(0.0, 0.45),
        half_width,
        dice.between(0.45, 0.75),
    )


def _place_plant(
    hangings: Hangings, bed: Bed, lamp_x: float, width: float, dice: Dice
) -> float | None:
    """Return the x of a potted plant in a free back corner, or None."""
    wanted, first = dice.chance(0.4), dice.pick((-1, 1))
    if not wanted:
        return None
    for corner in (first, -first):
        x = corner * (width / 2 - 0.3)
        hides = hangings.behind("door", x, 0.65) or hangings.behind("picture", x, 0.7)
        if bed.clear_of(x, 0.25) and not hides and abs(x - lamp_x) > 0.6:
            return x
    return None


# Tags of the canvas's fourth channel: 0 is bare room (it takes shadows), all others are things in it.
# They lie close together at the top of the range, so the shrunk channel reads as coverage.
TAGS = {"window": 236, "door": 240, "picture": 244, "bed": 248, "lamp": 252}
OTHER = 232
WHITE = (240.0, 236.0, 228.0)
WOODS = (
    (196, 150, 104),
    (170, 118, 74),
    (128, 84, 54),
    (92, 62, 44),
    (214, 178, 134),
    (150, 128, 108),
)
# hue, saturation, value of wall paints that go well together; between them both are interpolated.
HUE_END = 0.8
# Pairs of (rank in [0, 1], hue): the share of rooms up to a hue.
HUE_RANKS = ((0.0, 0.0), (0.32, 0.13), (0.46, 0.26), (0.58, 0.44), (0.86, 0.66), (1.0, HUE_END))
PAINTS = (
    (0.0, 0.40, 0.84),
    (0.08, 0.42, 0.90),
    (0.14, 0.46, 0.90),
    (0.24, 0.36, 0.80),
    (0.35, 0.32, 0.74),
    (0.46, 0.36, 0.78),
    (0.55, 0.42, 0.84),
    (0.63, 0.42, 0.80),
    (0.72, 0.36, 0.82),
    (0.80, 0.36, 0.78),
)


@dataclass(frozen=True)
class Sky:
    """Hold what the hour does to a room: colours behind the glass, tint and strength of the light."""

    name: str
    high: Colour
    low: Colour
    ground: Colour
    ambient: Colour
    sun: float


SKIES = (
    Sky("day", (96, 160, 226), (198, 226, 244), (112, 150, 90), (1.06, 1.04, 1.00), 0.55),
    Sky("day", (118, 178, 232), (226, 238, 246), (150, 160, 150), (1.05, 1.04, 1.02), 0.45),
    Sky("overcast", (176, 188, 198), (216, 220, 222), (120, 134, 112), (0.95, 0.97, 1.00), 0.12),
    Sky("sunset", (120, 110, 170), (250, 176, 104), (92, 74, 84), (1.02, 0.94, 0.86), 0.40),
    Sky("night", (14, 20, 52), (40, 52, 100), (12, 16, 30), (0.70, 0.72, 0.84), 0.10),
    Sky("night", (10, 14, 36), (30, 30, 66), (8, 10, 22), (0.66, 0.68, 0.78), 0.08),
)


def draw_hue(dice: Dice) -> float:
    """Draw a hue in [0, HUE_END): warm tones and blues more often than greens, as in houses."""
    return _between_knots(HUE_RANKS, dice.between(0, 1))[0]


def paint(hue: float, dice: Dice) -> Colour:
    """Return a wall paint of this hue in [0, HUE_END): pale to deep, never down to grey."""
    deep = dice.between(0, 1) ** 2
    saturation, value = _between_knots(PAINTS, hue)
    return hsv(
        hue, saturation * dice.between(0.72, 1.05) * (1 + 0.45 * deep), value * (1.06 - 0.34 * deep)
    )


def dye(hue: float, dice: Dice) -> Colour:
    """Return a blanket's colour of this hue in [0, HUE_END): stronger than a wall's."""
    saturation, value = _between_knots(PAINTS, hue)
    return hsv(
        hue, min(0.85, saturation * dice.between(1.25, 1.8)), value * dice.between(0.72, 1.04)
    )


def _between_knots(knots: tuple[tuple[float, ...], ...], at: float) -> list[float]:
    """Interpolate a table whose first column rises: return the other columns at a point of the first."""
    right = next(k for k, row in enumerate(knots) if at <= row[0] and k)
    low, high = knots[right - 1], knots[right]
    share = (at - low[0]) / (high[0] - low[0])
    return [a + (b - a) * share for a, b in zip(low[1:], high[1:], strict=True)]


def add_shell(stage: Stage, layout: Layout, wall: Colour, dice: Dice) -> None:
    """Add ceiling, floor, walls with their finish, and skirting boards."""
    half, depth, height = layout.width / 2, layout.depth, layout.height
    near_left, near_right = stage.camera.near_z(-half), stage.camera.near_z(half)
    ceiling = mix((236.0, 233.0, 228.0), wall, dice.between(0.05, 0.25))
    stage.face(
        [
            (-half, height, near_left),
            (half, height, near_right),
            (half, height, depth),
            (-half, height, depth),
        ],
        scale(ceiling, 0.9),
        0,
    )
    _add_floor(stage, layout, dice)
    # A wall is lit by the light opposite to it, hence left and right swap against a box's flanks.
    sides = (
        ("left", near_left, depth, stage.right),
        ("right", near_right, depth, stage.left),
        ("back", -half, half, 0.86),
    )
    finish, count = (
        dice.pick(("plain", "plain", "plain", "stripes", "panel")),
        dice.pick((7, 9, 11)),
    )
    lower = mix(wall, dice.pick((WHITE, WHITE, scale(wall, 0.6))), 0.75)
    skirting = dice.pick((WHITE, WHITE, mix(wall, WOODS[2], 0.7)))
    for name, u0, u1, light in sides:
        plane, tone = layout.plane(name), scale(wall, light)
        stage.face(plane.rectangle(u0, u1, 0, height), tone, 0)
        if finish == "stripes":
            pitch = layout.width / count
            number = math.ceil((u1 - u0) / pitch)
            for k in range(0, number, 2):
                stage.face(
                    plane.rectangle(max(u0, u1 - (k + 1) * pitch), u1 - k * pitch, 0, height),
                    scale(tone, 1.07),
                    0,
                )
        elif finish == "panel":
            stage.face(plane.rectangle(u0, u1, 0, 0.85), scale(lower, light), 0)
            stage.face(plane.rectangle(u0, u1, 0.85, 0.92), scale(mix(lower, WHITE, 0.4), light), 0)
        stage.face(plane.rectangle(u0, u1, 0, 0.11), scale(skirting, light), 0)


def _add_floor(stage: Stage, layout: Layout, dice: Dice) -> None:
    half, depth = layout.width / 2, layout.depth
    kind = dice.pick(("planks", "planks", "carpet", "tiles"))
    if kind == "carpet":
        base = hsv(dice.between(0, 1), dice.between(0.05, 0.25), dice.between(0.45, 0.75))
    elif kind == "tiles":
        base = hsv(dice.between(0.05, 0.15), dice.between(0.03, 0.15), dice.between(0.65, 0.85))
    else:
        base = tuple(float(c) for c in dice.pick(WOODS))
    base = scale(base, dice.between(0.8, 1.02))
    strips = 1 if kind == "carpet" else dice.pick((8, 10, 12))
    step = layout.width / strips
    for k in range(strips):
        x0, x1 = -half + k * step, -half + (k + 1) * step
        tone = (
            1.0
            if kind == "carpet"
            else (0.93, 1.0, 0.96, 1.05, 0.9)[(k * 3) % 5]
            if kind == "planks"
            else 1.0
        )
        corners = [
            (x0, 0, stage.camera.near_z(x0)),
            (x1, 0, stage.camera.near_z(x1)),
            (x1, 0, depth),
            (x0, 0, depth),
        ]
        stage.face(corners, scale(base, tone), 0)
        if kind == "tiles":
            _add_tile_row(stage, x0, step, depth, k, scale(base, 0.86))


def _add_tile_row(
    stage: Stage, x0: float, step: float, depth: float, row: int, colour: Colour
) -> None:
    for k in range(row % 2, 9, 2):
        z1 = depth - k * step
        z0 = max(z1 - step, stage.camera.near_z(x0))
        if z1 > z0:
            stage.face(
                [(x0, 0, z0), (x0 + step, 0, z0), (x0 + step, 0, z1), (x0, 0, z1)], colour, 0
            )


def add_window(
    stage: Stage, plane: Plane, u: float, size: tuple[float, float], sky: Sky, dice: Dice
) -> None:
    """Add a window centred at ``u`` along a wall: sky, land, bars, frame, curtains or a blind."""
    tag, (width, height) = TAGS["window"], size
    u0, u1, v0 = u - width / 2, u + width / 2, dice.between(1.02, 1.14)
    v1 = v0 + height
    frame = dice.pick((WHITE, WHITE, scale(tuple(map(float, WOODS[1])), 1.0), (110.0, 84.0, 66.0)))
    frame = scale(frame, 0.62 if sky.name == "night" else 1.0)
    stage.face(plane.rectangle(u0, u1, v0, v1, 0.02), frame, tag)
    g0, g1, b0, b1 = u0 + 0.08, u1 - 0.08, v0 + 0.08, v1 - 0.08
    bands = 4
    for k in range(bands):
        low, high = b0 + (b1 - b0) * k / bands, b0 + (b1 - b0) * (k + 1) / bands
        stage.face(
            plane.rectangle(g0, g1, low, high, 0.02), mix(sky.low, sky.high, k / (bands - 1)), tag
        )
    _add_view(stage, plane, (g0, g1, b0, b1), sky, dice)
    bar = 0.028
    middle = (g0 + g1) / 2
    stage.face(plane.rectangle(middle - bar, middle + bar, b0, b1, 0.03), frame, tag)
    if dice.chance(0.6):
        bar_v = b0 + (b1 - b0) * dice.pick((0.5, 0.66))
        stage.face(plane.rectangle(g0, g1, bar_v - bar, bar_v + bar, 0.03), frame, tag)
    stage.face(plane.rectangle(u0 - 0.04, u1 + 0.04, v0 - 0.06, v0, 0.05), scale(frame, 0.92), tag)
    _add_curtains(stage, plane, (u0, u1, v0, v1), sky, dice)


def _add_view(
    stage: Stage, plane: Plane, glass: tuple[float, float, float, float], sky: Sky, dice: Dice
) -> None:
    g0, g1, b0, b1 = glass
    tag, width, height = TAGS["window"], g1 - g0, b1 - b0
    x, y, radius = g0 + width * dice.between(0.3, 0.7), b0 + height * dice.between(0.6, 0.8), 0.11
    if sky.name in ("night", "sunset") or dice.chance(0.3):
        disc = {"night": (236.0, 236.0, 214.0), "sunset": (255.0, 226.0, 150.0)}.get(
            sky.name, (255.0, 255.0, 240.0)
        )
        y = y if sky.name != "sunset" else b0 + 0.38 * height
        turn = [2 * math.pi * k / 10 for k in range(10)]
        stage.face(
            [plane.at(x + radius * math.cos(a), y + radius * math.sin(a), 0.02) for a in turn],
            disc,
            tag,
        )
    left, peak, right = (height * dice.between(0.08, 0.38) for _ in range(3))
    land = [
        plane.at(g0, b0, 0.02),
        plane.at(g1, b0, 0.02),
        plane.at(g1, b0 + right, 0.02),
        plane.at(g0 + width * dice.between(0.3, 0.7), b0 + peak, 0.02),
        plane.at(g0, b0 + left, 0.02),
    ]
    stage.face(land, sky.ground, tag, convex=False)


def _add_curtains(
    stage: Stage, plane: Plane, opening: tuple[float, float, float, float], sky: Sky, dice: Dice
) -> None:
    u0, u1, v0, v1 = opening
    tag, kind = TAGS["window"], dice.pick(("curtains", "curtains", "curtains", "blind", "bare"))
    cloth = hsv(dice.between(0, 1), dice.between(0.05, 0.6), dice.between(0.6, 0.95))
    cloth = scale(cloth, 0.75 if sky.name == "night" else 1.0)
    if kind == "blind":
        low = v1 - (v1 - v0) * dice.between(0.2, 0.5)
        stage.face(plane.rectangle(u0, u1, low, v1 + 0.05, 0.06), cloth, tag)
        stage.face(plane.rectangle(u0, u1, low, low + 0.05, 0.06), scale(cloth, 0.8), tag)
    elif kind == "curtains":
        share = (u1 - u0) * dice.between(0.17, 0.27)
        for start, step in ((u0 - 0.12, share), (u1 + 0.12 - share, share)):
            for k, tone in enumerate((0.86, 1.04, 0.9)):
                stage.face(
                    plane.rectangle(
                        start + step * k / 3, start + step * (k + 1) / 3, v0 - 0.14, v1 + 0.1, 0.07
                    ),
                    scale(cloth, tone),
                    tag,
                )
        stage.face(
            plane.rectangle(u0 - 0.18, u1 + 0.18, v1 + 0.08, v1 + 0.13, 0.08),
            (92.0, 72.0, 58.0),
            tag,
        )


def add_door(
    stage: Stage, plane: Plane, u: float, size: tuple[float, float], light: float, dice: Dice
) -> None:
    """Add a door with its frame, panels and knob."""
    tag, (width, height) = TAGS["door"], size
    leaf = dice.pick((WHITE, (222.0, 214.0, 200.0), *(tuple(map(float, w)) for w in WOODS[:4])))
    trim = dice.pick((WHITE, scale(leaf, 0.72)))
    leaf, trim = scale(leaf, light), scale(trim, light)
    u0, u1 = u - width / 2, u + width / 2
    stage.face(plane.rectangle(u0, u1, 0, height, 0.02), trim, tag)
    u0, u1, top = u0 + 0.08, u1 - 0.08, height - 0.08
    stage.face(plane.rectangle(u0, u1, 0, top, 0.02), leaf, tag)
    columns, rows = (
        dice.pick((1, 2)),
        dice.pick(((0.5, 0.5), (0.35, 0.65), (0.3, 0.3, 0.4), (1.0,))),
    )
    dent, wide = scale(leaf, 0.8), (u1 - u0 - 0.1) / columns
    low = 0.16
    for share in reversed(rows):
        high = low + (top - 0.26) * share
        for column in range(columns):
            left = u0 + 0.05 + column * wide
            stage.face(
                plane.rectangle(left + 0.05, left + wide - 0.05, low + 0.05, high - 0.05, 0.03),
                dent,
                tag,
            )
        low = high
    knob = u0 + 0.09 if dice.chance(0.5) else u1 - 0.09
    stage.face(
        plane.rectangle(knob - 0.035, knob + 0.035, 0.93, 1.03, 0.06),
        dice.pick(((226.0, 190.0, 96.0), (70.0, 66.0, 64.0))),
        tag,
    )


def add_picture(
    stage: Stage, plane: Plane, u: float, size: tuple[float, float], light: float, dice: Dice
) -> None:
    """Add a framed picture: a landscape, blocks of colour, or a round shape."""
    tag, (width, height) = TAGS["picture"], size
    v0 = dice.between(1.3, 1.42)
    u0, u1, v1 = u - width / 2, u + width / 2, v0 + height
    frame = dice.pick(
        ((44.0, 38.0, 36.0), (44.0, 38.0, 36.0), (88.0, 58.0, 38.0), (206.0, 164.0, 84.0))
    )
    stage.face(plane.rectangle(u0, u1, v0, v1, 0.03), scale(frame, light), tag)
    stage.face(
        plane.rectangle(u0 + 0.07, u1 - 0.07, v0 + 0.07, v1 - 0.07, 0.03), scale(WHITE, light), tag
    )
    a0, a1, b0, b1 = u0 + 0.14, u1 - 0.14, v0 + 0.14, v1 - 0.14
    hue = dice.between(0, 1)
    tones = [
        scale(hsv((hue + turn) % 1, dice.between(0.4, 0.8), dice.between(0.45, 0.95)), light)
        for turn in (0.0, dice.between(0.3, 0.6), dice.between(0.05, 0.2))
    ]
    stage.face(plane.rectangle(a0, a1, b0, b1, 0.03), tones[0], tag)
    kind, x, y = (
        dice.pick(("land", "blocks", "round")),
        dice.between(0.3, 0.7),
        dice.between(0.35, 0.65),
    )
    x, y = a0 + (a1 - a0) * x, b0 + (b1 - b0) * y
    if kind == "land":
        stage.face(
            [
                plane.at(a0, b0, 0.03),
                plane.at(a1, b0, 0.03),
                plane.at(a1, (b0 + y) / 2, 0.03),
                plane.at(x, y, 0.03),
                plane.at(a0, (b0 + y) / 2, 0.03),
            ],
            tones[1],
            tag,
            convex=False,
        )
    elif kind == "blocks":
        stage.face(plane.rectangle(a0, x, b0, y, 0.03), tones[1], tag)
        stage.face(plane.rectangle(x, a1, y, b1, 0.03), tones[2], tag)
    else:
        radius = 0.34 * min(a1 - a0, b1 - b0)
        turn = [2 * math.pi * k / 10 for k in range(10)]
        stage.face(
            [
                plane.at(
                    (a0 + a1) / 2 + radius * math.cos(a), (b0 + b1) / 2 + radius * math.sin(a), 0.03
                )
                for a in turn
            ],
            tones[1],
            tag,
        )


SIDE_TABLE_HEIGHT = 0.55


class _BedFrame:
    """Map lengths from the head (a) and across (b), each a share of the bed, to ranges of x and z."""

    def __init__(self, layout: Layout):
        self.head, self.x, self.z = layout.bed.head, layout.bed.x, layout.bed.z

    def ranges(
        self, a: tuple[float, float], b: tuple[float, float]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the x and z ranges of a part of the bed; a = 0 is the head."""
        (x0, x1), (z0, z1) = self.x, self.z
        if not self.head:
            return (
                (x0 + b[0] * (x1 - x0), x0 + b[1] * (x1 - x0)),
                (z1 - a[1] * (z1 - z0), z1 - a[0] * (z1 - z0)),
            )
        along = (z1 - b[1] * (z1 - z0), z1 - b[0] * (z1 - z0))
        if self.head < 0:
            return (x0 + a[0] * (x1 - x0), x0 + a[1] * (x1 - x0)), along
        return (x1 - a[1] * (x1 - x0), x1 - a[0] * (x1 - x0)), along


def add_bed(stage: Stage, layout: Layout, blanket_hue: float, dice: Dice) -> None:
    """Add headboard, frame, mattress, pillows, blanket with its fold, and perhaps a footboard."""
    tag, frame = TAGS["bed"], _BedFrame(layout)
    wood = tuple(map(float, dice.pick(WOODS)))
    board = dice.pick((wood, wood, hsv(dice.between(0, 1), 0.25, 0.6), scale(WHITE, 0.92)))
    sheet = mix(WHITE, hsv(blanket_hue, 0.5, 0.9), dice.between(0.0, 0.2))
    blanket = dye(blanket_hue, dice)

    def block(a, b, y, colour: Colour) -> None:
        x, z = frame.ranges(a, b)
        stage.box(x, y, z, colour, tag)

    top = dice.between(0.48, 0.56)
    block((0.0, 0.035), (-0.03, 1.03), (0.0, dice.between(0.88, 1.02)), board)
    block((0.03, 1.0), (0.0, 1.0), (0.08, 0.28), scale(wood, 0.9))
    block((0.03, 0.99), (0.01, 0.99), (0.26, top), sheet)
    _add_pillows(stage, frame, top, sheet, dice)
    start = dice.between(0.3, 0.42)
    block((start, 1.0), (-0.015, 1.015), (dice.between(0.14, 0.24), top + 0.05), blanket)
    pattern = dice.pick(("plain", "fold", "fold", "stripes", "throw"))
    other = hsv((blanket_hue + dice.pick((0.0, 0.04, 0.96))) % 1, 0.25, 0.97)
    if pattern == "stripes":
        for k in range(3):
            middle = start + (1 - start) * (0.25 + 0.27 * k)
            _add_band(stage, frame, middle - 0.03, middle + 0.03, top + 0.05, other)
    elif pattern == "throw":
        _add_band(stage, frame, 0.72, 0.9, top + 0.05, scale(blanket, 0.62))
    if pattern != "plain":
        _add_band(stage, frame, start, start + 0.1, top + 0.05, other)
    if dice.chance(0.3):
        block((0.985, 1.02), (-0.02, 1.02), (0.0, top + 0.12), board)


def _add_band(
    stage: Stage, frame: _BedFrame, a0: float, a1: float, y: float, colour: Colour
) -> None:
    x, z = frame.ranges((a0, a1), (-0.015, 1.015))
    stage.face(
        [(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])], colour, TAGS["bed"]
    )


def _add_pillows(stage: Stage, frame: _BedFrame, top: float, sheet: Colour, dice: Dice) -> None:
    count = dice.pick((1, 2, 2)) if not frame.head else dice.pick((1, 2))
    colour = mix(sheet, dice.pick((WHITE, WHITE, hsv(dice.between(0, 1), 0.35, 0.92))), 0.9)
    edges = [0.08 + 0.84 * k / count for k in range(count + 1)]
    for b0, b1 in reversed(list(pairwise(edges))):
        x, z = frame.ranges((0.06, 0.27), (b0 + 0.03, b1 - 0.03))
        stage.box(x, (top, top + 0.05), z, scale(colour, 0.82), TAGS["bed"])
        stage.face(_cushion(x, z, top + 0.13, frame.head), colour, TAGS["bed"])


def _cushion(x: tuple[float, float], z: tuple[float, float], y: float, head: int) -> list[Point]:
    """Return the rounded outline of a pillow that leans on the head of the bed."""
    points = []
    for k in range(12):
        c, s = math.cos(2 * math.pi * k / 12), math.sin(2 * math.pi * k / 12)
        c, s = math.copysign(abs(c) ** 0.5, c), math.copysign(abs(s) ** 0.5, s)
        px, pz = (x[0] + x[1] + c * (x[1] - x[0])) / 2, (z[0] + z[1] + s * (z[1] - z[0])) / 2
        lean = s if not head else head * c
        points.append((px, y + 0.09 * lean, pz))
    return points


def lamp_point(layout: Layout) -> Point:
    """Return the middle of the lamp's shade."""
    return (
        layout.lamp_x,
        1.56 if layout.lamp_tall else SIDE_TABLE_HEIGHT + 0.51,
        layout.depth - 0.28,
    )


def add_side_table(stage: Stage, layout: Layout, dice: Dice) -> None:
    """Add the small table of a table lamp; it stands there with or without the lamp."""
    x, z = layout.lamp_x, layout.depth - 0.28
    wood = tuple(map(float, dice.pick(WOODS)))
    stage.box((x - 0.24, x + 0.24), (0.0, SIDE_TABLE_HEIGHT), (z - 0.2, z + 0.22), wood, OTHER)
    for low in (0.1, 0.32):
        stage.face(
            [
                (x - 0.19, low, z - 0.21),
                (x + 0.19, low, z - 0.21),
                (x + 0.19, low + 0.16, z - 0.21),
                (x - 0.19, low + 0.16, z - 0.21),
            ],
            scale(wood, 0.66),
            OTHER,
        )


def add_lamp(stage: Stage, layout: Layout, lit: bool, dice: Dice) -> None:
    """Add a table or standing lamp; its shade faces the camera."""
    tag, (x, y, z) = TAGS["lamp"], lamp_point(layout)
    metal = dice.pick(((60.0, 54.0, 52.0), (200.0, 164.0, 90.0), (235.0, 230.0, 222.0)))
    if lit:
        shade = dice.pick(((255.0, 240.0, 184.0), (255.0, 230.0, 160.0), (255.0, 246.0, 208.0)))
    else:
        shade = dice.pick(
            ((150.0, 52.0, 52.0), (44.0, 70.0, 96.0), (58.0, 54.0, 54.0), (64.0, 92.0, 74.0))
        )
    bottom = 0.0 if layout.lamp_tall else SIDE_TABLE_HEIGHT
    half_top, half_low, half_high = (
        dice.between(0.13, 0.19),
        dice.between(0.24, 0.29),
        dice.between(0.19, 0.23),
    )
    stick = 0.035 if layout.lamp_tall else 0.06
    stage.face(_flat(x, z, stick, stick, bottom, y), metal, tag)
    stage.face(_flat(x, z, 0.15, 0.12, bottom, bottom + 0.05), scale(metal, 0.8), tag)
    stage.face(_flat(x, z, half_low, half_top, y - half_high, y + half_high), shade, tag)
    if lit:
        stage.face(
            _flat(x, z, half_low * 0.5, half_top * 0.5, y - half_high, y + half_high * 0.7),
            (255.0, 252.0, 236.0),
            tag,
        )
    else:
        stage.face(
            _flat(x, z, half_low, half_low * 0.94, y - half_high, y - half_high + 0.06),
            scale(shade, 1.5),
            tag,
        )


def _flat(
    x: float, z: float, half_low: float, half_high: float, y0: float, y1: float
) -> list[Point]:
    return [
        (x - half_low, y0, z),
        (x + half_low, y0, z),
        (x + half_high, y1, z),
        (x - half_high, y1, z),
    ]


def add_rug(stage: Stage, layout: Layout, dice: Dice) -> None:
    """Add a rug with a border on the floor in front of the bed, or nothing."""
    if not dice.chance(0.55):
        return
    x, z, half_width, half_length = layout.rug
    round_one, hue = dice.chance(0.4), dice.between(0, 1)
    outer = hsv(hue, dice.between(0.2, 0.6), dice.between(0.4, 0.85))
    inner = hsv(
        (hue + dice.between(-0.1, 0.1)) % 1, dice.between(0.1, 0.5), dice.between(0.6, 0.95)
    )
    for share, colour in ((1.0, outer), (0.78, inner), (0.5, mix(outer, inner, 0.35))):
        w, d = half_width * share, half_length * share
        count = 16 if round_one else 4
        turn = [2 * math.pi * (k + 0.5) / count for k in range(count)]
        reach = 1.0 if round_one else math.sqrt(2)
        stage.face(
            [(x + reach * w * math.cos(a), 0.0, z + reach * d * math.sin(a)) for a in turn],
            colour,
            0,
        )


def add_plant(stage: Stage, layout: Layout, dice: Dice) -> None:
    """Add a potted plant where the layout has one."""
    if layout.plant_x is None:
        return
    x, z = layout.plant_x, layout.depth - 0.3
    pot = dice.pick(((196.0, 108.0, 74.0), (226.0, 220.0, 210.0), (84.0, 84.0, 90.0)))
    green = hsv(dice.between(0.24, 0.4), dice.between(0.45, 0.7), dice.between(0.35, 0.62))
    tall = dice.between(0.45, 0.75)
    stage.face(_flat(x, z, 0.13, 0.18, 0.0, 0.32), pot, OTHER)
    stage.face(_flat(x, z, 0.18, 0.18, 0.27, 0.32), scale(pot, 0.8), OTHER)
    for k in range(7):
        angle = (k - 3) * 0.36 + dice.between(-0.1, 0.1)
        reach = tall * (1.0 - 0.06 * abs(k - 3))
        tip = (x + 0.75 * reach * math.sin(angle), 0.3 + reach * math.cos(angle), z)
        side = 0.07 * math.cos(angle), 0.07 * math.sin(angle)
        mid = (x + tip[0]) / 2, (0.3 + tip[1]) / 2
        stage.face(
            [
                (x, 0.3, z),
                (mid[0] - side[0], mid[1] + side[1], z),
                tip,
                (mid[0] + side[0], mid[1] - side[1], z),
            ],
            scale(green, 0.8 + 0.08 * (k * 3 % 7 - 1)),
            OTHER,
        )


GRAIN = 5.0
_GRAIN_SHEET = 320
_NEUTRAL, _CORNER, _SHADOW = 160, 128, 88
_SHIFT = 4
# The tags of all things lie between 232 and 252; over their middle the shrunk tag is a coverage.
_TO_COVERAGE = np.float32(1 / (OTHER + 10))
_WINDOW_GLOW = {
    "day": (0.22, 0.22, 0.21),
    "overcast": (0.15, 0.16, 0.17),
    "sunset": (0.32, 0.22, 0.14),
    "night": (0.03, 0.05, 0.08),
}


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """Hold the light of one room.

    Parameters
    ----------
    sky : Sky
        The hour.
    light_x : float
        Where the light comes from: -1 from the left wall, 0 from the back wall's middle, 1 from the right wall.
    lamp_lit : bool
        Whether the lamp, if there is one, burns.
    """

    sky: Sky
    light_x: float
    lamp_lit: bool


def soft_shadows(layout: Layout, light: Lighting, *, window: bool, bed: bool) -> np.ndarray:
    """Return the light on the bare room (64 x 64 float32): dark corners, contact shadows, a patch of sun."""
    half, depth, height, camera = layout.width / 2, layout.depth, layout.height, layout.camera
    near_left, near_right = camera.near_z(-half), camera.near_z(half)
    points: list[Point] = [
        (-half, 0, depth),
        (half, 0, depth),
        (half, height, depth),
        (-half, height, depth),
        (-half, 0, near_left),
        (half, 0, near_right),
        (half, height, near_right),
        (-half, height, near_left),
    ]
    values = []
    if window and light.sky.sun > 0.2:
        points += _sun_patch(layout, light)
        values.append(min(255, round(_NEUTRAL * (1 + light.sky.sun))))
    for x, z in _footprints(layout, bed):
        lean = -0.22 * light.light_x
        x0, x1 = x[0] + min(lean, 0.0), x[1] + max(lean, 0.0)
        points += [(x0, 0, z[0]), (x1, 0, z[0]), (x1, 0, z[1]), (x0, 0, z[1])]
        values.append(_SHADOW)
    fixed_n2 = np.clip(camera.project(points) * (1 << _SHIFT), -8000, 8000).astype(np.int32)
    shade_hw = np.full((64, 64), _NEUTRAL, np.uint8)
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 5), (2, 6), (3, 7)):
        cv2.line(
            shade_hw,
            fixed_n2[first].tolist(),
            fixed_n2[second].tolist(),
            _CORNER,
            2,
            cv2.LINE_AA,
            _SHIFT,
        )
    for k, value in enumerate(values):
        cv2.fillConvexPoly(shade_hw, fixed_n2[8 + 4 * k : 12 + 4 * k], value, cv2.LINE_AA, _SHIFT)
    return cv2.GaussianBlur(shade_hw, (5, 5), 1.2).astype(np.float32) * np.float32(1 / _NEUTRAL)


def _sun_patch(layout: Layout, light: Lighting) -> list[Point]:
    """Return where light through the window's glass meets the floor."""
    wall, half = layout.hangings.walls["window"], layout.width / 2
    u, (width, height) = layout.hangings.centres["window"], layout.hangings.sizes["window"]
    across, into = (
        (-0.35 * light.light_x, -1.0) if wall == "back" else (-1.1 * light.light_x, -0.25)
    )
    patch = []
    for x, y, z in layout.plane(wall).rectangle(
        u - 0.3 * width, u + 0.3 * width, 1.2, 1.0 + 0.95 * height
    ):
        reach = y / 1.1
        patch.append((max(-half, min(half, x + across * reach)), 0.0, max(0.4, z + into * reach)))
    return patch


def _footprints(layout: Layout, bed: bool):
    """Return the x and z ranges of what stands on the floor, a little grown."""
    prints, depth = [], layout.depth
    if bed:
        (x0, x1), (z0, z1) = layout.bed.x, layout.bed.z
        prints.append(((x0 - 0.07, x1 + 0.07), (z0 - 0.07, z1)))
    if not layout.lamp_tall:
        prints.append(((layout.lamp_x - 0.29, layout.lamp_x + 0.29), (depth - 0.53, depth - 0.06)))
    if layout.plant_x is not None:
        prints.append(
            ((layout.plant_x - 0.17, layout.plant_x + 0.17), (depth - 0.45, depth - 0.12))
        )
    return prints


def lit_picture(
    rgbt_hw4: np.ndarray,
    shade_hw: np.ndarray,
    layout: Layout,
    light: Lighting,
    dice: Dice,
    *,
    window: bool,
    lamp: bool,
) -> np.ndarray:
    """Return the finished picture (3 x 64 x 64 uint8) from flat colours, shadows and the light's glow.

    Shadows fall on the bare room only; the glow of window and lamp falls on everything.
    """
    centre = dice.between(0.04, 0.14)
    spots, colours = [_EVERYWHERE, _MIDDLE], [light.sky.ambient, (centre, centre, centre)]
    if window:
        x, y, _ = layout.camera.project_one(layout.hanging_point("window", 1.5))
        spots.append(glow(64, (x, y + 3), 15, stretch=1.3))
        colours.append(_WINDOW_GLOW[light.sky.name])
    if lamp and light.lamp_lit:
        x, y, _ = layout.camera.project_one(lamp_point(layout))
        power = 1.0 if light.sky.name == "night" else 0.45
        spots += [glow(64, (x, y), 11, stretch=1.2), glow(64, (x, y), 4.5)]
        colours += [
            (0.44 * power, 0.35 * power, 0.16 * power),
            (0.36 * power, 0.28 * power, 0.12 * power),
        ]
    rgbt_4hw = rgbt_hw4.transpose(2, 0, 1).astype(np.float32)
    bare_hw = np.maximum(1 - rgbt_4hw[3] * _TO_COVERAGE, 0)
    light_3hw = np.tensordot(np.array(colours, np.float32).T, np.array(spots), axes=1)
    light_3hw *= 1 + (shade_hw - 1) * bare_hw
    light_3hw *= rgbt_4hw[:3]
    light_3hw += _grain(dice)
    return np.clip(light_3hw, 0, 255, out=light_3hw).astype(np.uint8)


def _grain(dice: Dice) -> np.ndarray:
    """Return film grain (64 x 64 float32, grey levels around 0): a random window of one fixed sheet."""
    x, y = int(dice.between(0, _GRAIN_SHEET - 64)), int(dice.between(0, _GRAIN_SHEET - 64))
    return _grain_sheet()[y : y + 64, x : x + 64]


@cache
def _grain_sheet() -> np.ndarray:
    sheet = np.random.default_rng(0).random((_GRAIN_SHEET, _GRAIN_SHEET), dtype=np.float32)
    return (sheet - np.float32(0.5)) * np.float32(GRAIN)


_EVERYWHERE = np.ones((64, 64), np.float32)
_MIDDLE = glow(64, (32.0, 34.0), 26.0)
