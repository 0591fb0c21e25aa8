"""Where everything stands in a drawn bedroom: camera, hangings, bed, lamp, rug and plant.

All places in metres; x = 0 is the middle of the room, z = 0 the camera's distance.
"""

import math
from dataclasses import dataclass, replace

from dcgan_lib.data.drawn.painting import Camera, Draws, Point, Range, Wall

MAX_YAW = math.radians(20)
STEP_ASIDE = 0.85
ON_SIDE_WALL = ("door", "door", "door", "window", "window", "window", "picture", "picture", "", "")
MIN_YAW_FOR_SIDE = {"door": 0.2, "window": 0.4, "picture": 0.4}
TABLE_HEIGHT = 0.55


@dataclass(frozen=True)
class Hanging:
    """A door, window or picture."""

    wall: str
    """"back", "left" or "right"."""
    centre: float
    """Along the wall."""
    width: float
    height: float

    def near(self, x: float, reach: float) -> bool:
        """Say whether it hangs on the back wall with its centre within ``reach`` of this x."""
        return self.wall == "back" and abs(x - self.centre) < reach


@dataclass(frozen=True)
class Bed:
    """A bed's ranges of x and z, and where its head is: -1 left, 0 back, 1 right wall."""

    x: Range
    z: Range
    head: int

    def clear_of(self, x: float, room: float) -> bool:
        """Say whether x lies beside the bed, at least ``room`` off it."""
        return x < self.x[0] - room or x > self.x[1] + room


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The places of one room."""

    width: float
    depth: float
    """z of the back wall."""
    height: float
    camera: Camera
    hangings: dict[str, Hanging]
    """Of "door", "window" and "picture", whether they are there or not."""
    bed: Bed
    lamp_x: float
    lamp_tall: bool
    """A standing lamp; otherwise a lamp on a small table."""
    rug: tuple[float, float, float, float]
    """Centre x, centre z, half width, half length."""
    plant_x: float | None
    """Where a plant stands along the back wall, if one does."""

    @property
    def lamp_before_bed(self) -> bool:
        """Say whether the lamp can hide the bed: it and the camera stand on one side of the bed."""
        (left, right), spots = self.bed.x, (self.lamp_x, self.camera.x)
        return not self.bed.head and (max(spots) < left or min(spots) > right)

    @property
    def lamp_point(self) -> Point:
        """The middle of the lamp's shade."""
        height = 1.56 if self.lamp_tall else TABLE_HEIGHT + 0.51
        return self.lamp_x, height, self.depth - 0.28

    def wall(self, name: str) -> Wall:
        """Return a wall ("back", "left" or "right") with u = x on the back wall, z on the sides."""
        half = self.width / 2
        return {
            "back": Wall((0.0, 0.0, self.depth), (1.0, 0.0), (0.0, -1.0)),
            "left": Wall((-half, 0.0, 0.0), (0.0, 1.0), (1.0, 0.0)),
            "right": Wall((half, 0.0, 0.0), (0.0, 1.0), (-1.0, 0.0)),
        }[name]


def turned(camera: Camera, yaw: float) -> Camera:
    """Return the camera turned to ``yaw`` in [-1, 1]; it steps aside, to keep the room in view."""
    x = camera.x - STEP_ASIDE * (yaw - camera.yaw / MAX_YAW)
    return replace(camera, yaw=MAX_YAW * yaw, x=x)


def make_layout(yaw: float, view: Draws, draws: Draws) -> Layout:
    """Place everything in a room seen with this yaw in [-1, 1]."""
    straight = Camera(
        x=view.between(-0.18, 0.18),
        height=view.between(1.4, 1.75),
        yaw=0.0,
        focal=view.between(46.5, 49.5),
        centre=(32.0, view.between(21.5, 26.0)),
    )
    camera = turned(straight, yaw)
    width, depth = view.between(3.5, 4.0), view.between(3.55, 4.05)
    hangings = _hang(yaw, width, depth, draws)
    bed = _place_bed(hangings["door"], width, depth, draws)
    lamp_x, lamp_tall = _place_lamp(camera, hangings, bed, width, depth, draws)
    return Layout(
        width=width,
        depth=depth,
        height=view.between(2.45, 2.75),
        camera=camera,
        hangings=hangings,
        bed=bed,
        lamp_x=lamp_x,
        lamp_tall=lamp_tall,
        rug=_place_rug(bed, width, draws),
        plant_x=_place_plant(hangings, bed, lamp_x, width, draws),
    )


def _hang(yaw: float, width: float, depth: float, draws: Draws) -> dict[str, Hanging]:
    """Hang door, window and picture, none over another; one may go to the side wall in view."""
    walls = dict.fromkeys(("door", "window", "picture"), "back")
    item = draws.pick(ON_SIDE_WALL)
    if item and abs(yaw) > MIN_YAW_FOR_SIDE[item]:
        walls[item] = "right" if yaw > 0 else "left"
    columns = _columns(walls, draws)
    window_width = draws.between(0.95, 1.15)
    if columns.get("window") == 0 and "door" not in columns:
        window_width = draws.between(1.15, 1.6)
    sizes = {
        "door": (draws.between(0.8, 0.92), draws.between(1.95, 2.1)),
        "window": (window_width, draws.between(0.95, 1.25)),
        "picture": (draws.between(0.7, 0.92), draws.between(0.6, 0.85)),
    }
    hangings = {}
    for name, (breadth, height) in sizes.items():
        middle = depth - 0.4 - breadth / 2
        if name in columns:
            middle = columns[name] * (width / 2 - 0.65)
        centre = middle + draws.between(-0.06, 0.06)
        hangings[name] = Hanging(walls[name], centre, breadth, height)
    return hangings


def _columns(walls: dict[str, str], draws: Draws) -> dict[str, int]:
    """Choose a column (-1, 0, 1) for what is on the back wall; a door is never in the middle."""
    columns, free = {}, [-1, 0, 1]
    for name in walls:
        column = draws.pick((-1, 1) if name == "door" else free)
        if walls[name] == "back":
            columns[name] = column
            free.remove(column)
    return columns


def _place_bed(door: Hanging, width: float, depth: float, draws: Draws) -> Bed:
    """Place the bed away from the door: its head at the back wall, or sideways at a side wall."""
    half, sideways = width / 2, draws.chance(0.3)
    breadth, length = draws.between(1.05, 1.65), draws.between(1.85, 2.05)
    door_side = {"back": math.copysign(1, door.centre), "left": -1, "right": 1}[door.wall]
    if sideways:
        head = -int(door_side)
        ends = head * (half - 0.03 - length), head * (half - 0.03)
        back = depth - draws.between(0.08, 0.6)
        return Bed((min(ends), max(ends)), (back - breadth, back), head)
    low, high = -half + 0.12 + breadth / 2, half - 0.12 - breadth / 2
    if door.wall == "back":
        low, high = (low, high - 1.03) if door_side > 0 else (low + 1.03, high)
    x = draws.between(low, high) if low < high else (low + high) / 2
    return Bed((x - breadth / 2, x + breadth / 2), (depth - 0.04 - length, depth - 0.04), 0)


def _place_lamp(
    camera: Camera,
    hangings: dict[str, Hanging],
    bed: Bed,
    width: float,
    depth: float,
    draws: Draws,
) -> tuple[float, bool]:
    """Choose a place in view, off bed and hangings, and whether the lamp is tall."""
    tall, which = draws.chance(0.35), draws.between(0, 1)
    door, window, picture = hangings.values()
    steps = [-width / 2 + 0.3 + step * (width - 0.6) / 16 for step in range(17)]
    seen = camera.project([(x, 1.0, depth - 0.3) for x in steps])[:, 0]
    places = [
        x
        for x, column in zip(steps, seen, strict=True)
        if 5 < column < 59 and (bed.head or bed.clear_of(x, 0.24)) and not door.near(x, 0.62)
    ]
    clear = [x for x in places if not window.near(x, 0.35 + window.width / 2)]
    tall_places = [x for x in clear if tall and not picture.near(x, 0.8)]
    if tall_places:
        return tall_places[int(which * len(tall_places))], True
    places = clear or places
    if not places:
        return min((bed.x[0] - 0.3, bed.x[1] + 0.3), key=abs), False
    if not bed.head:
        places.sort(key=lambda x: min(abs(x - bed.x[0] + 0.3), abs(x - bed.x[1] - 0.3)))
        places = places[:3]
    return places[int(which * len(places))], False


def _place_rug(bed: Bed, width: float, draws: Draws) -> tuple[float, float, float, float]:
    """Return centre x, centre z, half width and half length of the rug, in front of the bed."""
    x = 0.35 * (bed.x[0] + bed.x[1]) + draws.between(-0.3, 0.3)
    half_width = draws.between(0.7, 1.15)
    limit = width / 2 - 0.1 - half_width
    z = bed.z[0] - draws.between(0.0, 0.45)
    return max(-limit, min(limit, x)), z, half_width, draws.between(0.45, 0.75)


def _place_plant(
    hangings: dict[str, Hanging], bed: Bed, lamp_x: float, width: float, draws: Draws
) -> float | None:
    """Return the x of a potted plant in a free back corner, or None."""
    wanted, first = draws.chance(0.4), draws.pick((-1, 1))
    for corner in (first, -first) if wanted else ():
        x = corner * (width / 2 - 0.3)
        hides = hangings["door"].near(x, 0.65) or hangings["picture"].near(x, 0.7)
        if bed.clear_of(x, 0.25) and not hides and abs(x - lamp_x) > 0.6:
            return x
    return None
