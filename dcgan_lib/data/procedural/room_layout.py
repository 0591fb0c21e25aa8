"""Where things stand in a drawn bedroom, so that nothing hides anything.

A layout places all five objects whether or not they are drawn: leaving one out changes
nothing else. World axes and metres as in ``perspective``.
"""

import math
from dataclasses import dataclass, replace

from dcgan_lib.data.procedural.canvas import Dice
from dcgan_lib.data.procedural.perspective import Camera, Plane, Point

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
    return replace(camera, yaw=MAX_YAW * yaw, x=camera.x - STEP_ASIDE * (yaw - camera.yaw / MAX_YAW))


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
    width, depth, height = view.between(3.5, 4.0), view.between(3.55, 4.05), view.between(2.45, 2.75)
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
        middle = columns[name] * (width / 2 - 0.65) if name in columns else depth - 0.4 - breadth / 2
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
    door_side = {"back": math.copysign(1, hangings.centres["door"]), "left": -1, "right": 1}[hangings.walls["door"]]
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
    clear = [x for x in places if not hangings.behind("window", x, 0.35 + hangings.sizes["window"][0] / 2)]
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
    return max(-limit, min(limit, x)), bed.z[0] - dice.between(0.0, 0.45), half_width, dice.between(0.45, 0.75)


def _place_plant(hangings: Hangings, bed: Bed, lamp_x: float, width: float, dice: Dice) -> float | None:
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
