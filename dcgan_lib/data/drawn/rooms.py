"""Bedrooms in perspective, drawn from a seed, with the truth about every one.

Where things stand is in `room_layout`, what they look like in `room_objects`. Boxes are (x0, y0,
x1, y1) in pixels, x1 and y1 exclusive; ``_hw`` is 64 x 64.
"""

from dataclasses import dataclass, fields, replace
from functools import cache

import cv2
import numpy as np

from dcgan_lib.data.drawn import blank, finished, room_objects
from dcgan_lib.data.drawn.painting import Canvas, Draws, Point, Stage, glow, tag_box
from dcgan_lib.data.drawn.room_layout import Layout, make_layout, turned
from dcgan_lib.data.drawn.room_objects import HUE_END, SKIES, TAGS, Sky
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError

SIZE = 64
PRESENCE = {"window": 0.7, "lamp": 0.5, "door": 0.4, "picture": 0.5, "bed": 0.9}
OBJECTS = tuple(PRESENCE)
_RANGES = {"wall_hue": (0, HUE_END), "blanket_hue": (0, HUE_END), "camera_yaw": (-1, 1)}
# Every part of a picture has its own row of uniforms, so no choice moves another part's.
# New parts go to the end: that keeps the pictures of old seeds.
_PARTS = (
    "truth",
    "view",
    "layout",
    "light",
    "paint",
    "shell",
    "window",
    "door",
    "picture",
    "bed",
    "table",
    "lamp",
    "rug",
    "plant",
)
_UNIFORMS = 32


@dataclass(frozen=True, kw_only=True)
class RoomTruth:
    """What can be asked of a drawn bedroom: five objects, two hues and a turn."""

    window: bool
    lamp: bool
    door: bool
    picture: bool
    bed: bool
    wall_hue: float
    """In [0, 0.8): 0 is red, 1/3 green, 2/3 blue. The arc from violet back to red is left out, so
    that near numbers are near colours and a plain regression can learn them."""
    blanket_hue: float
    """In the same range."""
    camera_yaw: float
    """In [-1, 1]: -1 looks 20 degrees to the left, 1 looks 20 degrees to the right."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name} must lie in [{low}, {high}]; got {value}.")


_FIELDS = [field.name for field in fields(RoomTruth)]


def draw_rooms(num_images: int, seed: int = 0, *, progress: bool = False) -> ImageSet:
    """Draw n x 3 x 64 x 64 bedrooms with the truth about each.

    Our choice: the paper's bedrooms come without truth; here "the windows are gone" can be counted.
    Image i depends on the seed and i only: a shorter set is a prefix of a longer one. Attributes,
    each of length n: ``window``, ``lamp``, ``door``, ``picture``, ``bed`` (bool, independent;
    shares in ``PRESENCE``); ``window_box`` ... ``bed_box`` (n x 4 float32, pixels, the visible
    part, NaN where absent); ``wall_hue``, ``blanket_hue`` (float32 in [0, 0.8); blanket NaN where
    there is no bed); ``camera_yaw`` (float32 in [-1, 1]).
    """
    images_u8, numbers = blank("rooms", num_images, seed, SIZE, progress=progress)
    boxes, truths = np.empty((num_images, len(OBJECTS), 4), np.float32), []
    for index in numbers:
        rows = _rows(seed, index)
        truths.append(_draw_truth(rows))
        images_u8[index], boxes[index] = _render(truths[-1], rows)
    attributes = {}
    for name in _FIELDS:
        dtype = bool if name in OBJECTS else np.float32
        attributes[name] = np.array([getattr(truth, name) for truth in truths], dtype)
    attributes["blanket_hue"][~attributes["bed"]] = np.nan
    for k, name in enumerate(OBJECTS):
        attributes[f"{name}_box"] = np.ascontiguousarray(boxes[:, k])
    return finished("rooms", images_u8, seed, notes={}, attributes=attributes)


def room_truth(index: int = 0, seed: int = 0) -> RoomTruth:
    """Return the truth of image ``index`` of ``draw_rooms(..., seed)``."""
    return _draw_truth(_rows(seed, index))


def draw_room(
    index: int = 0, seed: int = 0, **changes: bool | float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw image ``index`` of ``draw_rooms(..., seed)`` again, with fields of its truth changed.

    All else stays: with ``window=False`` the same room is drawn without its window (and without its
    light), with ``camera_yaw=0.5`` the camera turns in the same room. Return the picture (3 x 64 x
    64 uint8) and each object's visible box (4 float32, pixels, NaN where it is absent).
    """
    if unknown := sorted(set(changes) - set(_FIELDS)):
        raise UserError(f"a room has {', '.join(_FIELDS)}; got {', '.join(unknown)}.")
    rows = _rows(seed, index)
    truth = _draw_truth(rows)
    image_u8, boxes = _render(replace(truth, **changes), rows, laid_out_for=truth)
    return image_u8, dict(zip(OBJECTS, boxes, strict=True))


def _rows(seed: int, index: int) -> dict[str, list[float]]:
    """Return each part's own uniforms for one image."""
    if seed < 0 or index < 0:
        raise UserError(f"seed and index must not be negative; got seed {seed}, index {index}.")
    rows = np.random.default_rng((seed, index)).random((len(_PARTS), _UNIFORMS)).tolist()
    return dict(zip(_PARTS, rows, strict=True))


def _draw_truth(rows: dict[str, list[float]]) -> RoomTruth:
    draws = Draws(rows["truth"])
    present = {name: draws.chance(share) for name, share in PRESENCE.items()}
    hues = {name: room_objects.hue(draws) for name in ("wall_hue", "blanket_hue")}
    return RoomTruth(**present, **hues, camera_yaw=draws.between(-1, 1))


def _render(
    truth: RoomTruth, rows: dict[str, list[float]], laid_out_for: RoomTruth | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture (3 x 64 x 64 uint8) and the boxes (objects x 4 float32) of one room.

    ``laid_out_for`` is the truth whose view decided where things stand: this one's when None.
    """
    draws = {part: Draws(row) for part, row in rows.items()}
    layout = make_layout((laid_out_for or truth).camera_yaw, draws["view"], draws["layout"])
    if laid_out_for:
        layout = replace(layout, camera=turned(layout.camera, truth.camera_yaw))
    light = _draw_light(layout, draws["light"])
    stage, canvas = Stage(layout.camera, light.x), Canvas(SIZE)
    _furnish(stage, layout, truth, light, draws)
    stage.paint(canvas)
    rgbt_hw4, tags_hw = canvas.shrink()
    image_u8 = _lit(rgbt_hw4, layout, light, truth, draws["light"])
    absent = (np.nan,) * 4
    boxes = [tag_box(tags_hw, TAGS[k]) if getattr(truth, k) else absent for k in OBJECTS]
    return image_u8, np.array(boxes, np.float32)


def _furnish(
    stage: Stage, layout: Layout, truth: RoomTruth, light: "Light", draws: dict[str, Draws]
) -> None:
    paint = room_objects.wall_paint(truth.wall_hue, draws["paint"])
    room_objects.shell(stage, layout, paint, draws["shell"])
    if truth.door:
        room_objects.door(stage, layout, draws["door"])
    if truth.picture:
        room_objects.picture(stage, layout, draws["picture"])
    if truth.window:
        room_objects.window(stage, layout, light.sky, draws["window"])
    room_objects.rug(stage, layout, draws["rug"])
    room_objects.plant(stage, layout, draws["plant"])
    if truth.bed and layout.lamp_before_bed:
        room_objects.bed(stage, layout, truth.blanket_hue, draws["bed"])
    if not layout.lamp_tall:
        room_objects.side_table(stage, layout, draws["table"])
    if truth.lamp:
        room_objects.lamp(stage, layout, light.lamp_lit, draws["lamp"])
    if truth.bed and not layout.lamp_before_bed:
        room_objects.bed(stage, layout, truth.blanket_hue, draws["bed"])


# --- Light: soft shadows, daylight on the floor, the window's and the lamp's glow, grain ---

GRAIN = 5.0
_GRAIN_SHEET = 320
_NEUTRAL, _CORNER, _SHADOW = 160, 128, 88
_SHIFT = 4
# The tags of all things lie between 232 and 252; over their middle the shrunk tag is a coverage.
_TO_COVERAGE = np.float32(1 / 242)
_WINDOW_GLOW = {
    "day": (0.22, 0.22, 0.21),
    "overcast": (0.15, 0.16, 0.17),
    "sunset": (0.32, 0.22, 0.14),
    "night": (0.03, 0.05, 0.08),
}
_EVERYWHERE, _MIDDLE = np.ones((SIZE, SIZE), np.float32), glow(SIZE, (32.0, 34.0), 26.0)


@dataclass(frozen=True)
class Light:
    """The light of one room."""

    sky: Sky
    x: float
    """Where it comes from: -1 the left wall, 0 the back wall's middle, 1 the right wall."""
    lamp_lit: bool


def _draw_light(layout: Layout, draws: Draws) -> Light:
    sky, lit, across = draws.pick(SKIES), draws.chance(0.8), draws.between(-0.6, 0.6)
    x = {"back": across, "left": -1.0, "right": 1.0}[layout.hangings["window"].wall]
    return Light(sky, x, lit or sky.name == "night")


def _lit(
    rgbt_hw4: np.ndarray, layout: Layout, light: Light, truth: RoomTruth, draws: Draws
) -> np.ndarray:
    """Return the finished picture (3 x 64 x 64 uint8) from flat colours and the light.

    Shadows fall on the bare room only; the glow of window and lamp falls on everything.
    """
    spots = [(_EVERYWHERE, light.sky.ambient), (_MIDDLE, (draws.between(0.04, 0.14),) * 3)]
    if truth.window:
        hung = layout.hangings["window"]
        x, y = layout.camera.project([layout.wall(hung.wall).at(hung.centre, 1.5)])[0]
        spots.append((glow(SIZE, (x, y + 3), 15, stretch=1.3), _WINDOW_GLOW[light.sky.name]))
    if truth.lamp and light.lamp_lit:
        place = layout.camera.project([layout.lamp_point])[0]
        power = 1.0 if light.sky.name == "night" else 0.45
        for spot, colour in (
            (glow(SIZE, place, 11, stretch=1.2), (0.44, 0.35, 0.16)),
            (glow(SIZE, place, 4.5), (0.36, 0.28, 0.12)),
        ):
            spots.append((spot, tuple(power * part for part in colour)))
    maps, colours = zip(*spots, strict=True)
    rgbt_4hw = rgbt_hw4.transpose(2, 0, 1).astype(np.float32)
    bare_hw = np.maximum(1 - rgbt_4hw[3] * _TO_COVERAGE, 0)
    light_3hw = np.tensordot(np.array(colours, np.float32).T, np.array(maps), axes=1)
    light_3hw *= 1 + (_soft_shadows(layout, light, truth) - 1) * bare_hw
    light_3hw *= rgbt_4hw[:3]
    x, y = (int(draws.between(0, _GRAIN_SHEET - SIZE)) for _ in range(2))
    light_3hw += _grain()[y : y + SIZE, x : x + SIZE]
    return np.clip(light_3hw, 0, 255, out=light_3hw).astype(np.uint8)


def _soft_shadows(layout: Layout, light: Light, truth: RoomTruth) -> np.ndarray:
    """Return the light on the bare room (64 x 64 float32, 1 neutral): corners, shadows, sun."""
    half, camera = layout.width / 2, layout.camera
    ends = [(-half, 0), (half, 0), (half, layout.height), (-half, layout.height)]
    points: list[Point] = [(x, y, layout.depth) for x, y in ends]
    points += [(x, y, camera.near_z(x)) for x, y in ends]
    values = []
    if truth.window and light.sky.sun > 0.2:
        points += _sun_patch(layout, light)
        values.append(min(255, round(_NEUTRAL * (1 + light.sky.sun))))
    for (x0, x1), (z0, z1) in _footprints(layout, truth):
        lean = -0.22 * light.x
        x0, x1 = x0 + min(lean, 0.0), x1 + max(lean, 0.0)
        points += [(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]
        values.append(_SHADOW)
    fixed_n2 = np.clip(camera.project(points) * (1 << _SHIFT), -8000, 8000).astype(np.int32)
    shade_hw = np.full((SIZE, SIZE), _NEUTRAL, np.uint8)
    for first, second in [*((k, (k + 1) % 4) for k in range(4)), *((k, k + 4) for k in range(4))]:
        edge = fixed_n2[first].tolist(), fixed_n2[second].tolist()
        cv2.line(shade_hw, *edge, _CORNER, 2, cv2.LINE_AA, _SHIFT)
    for k, value in enumerate(values):
        cv2.fillConvexPoly(shade_hw, fixed_n2[8 + 4 * k : 12 + 4 * k], value, cv2.LINE_AA, _SHIFT)
    return cv2.GaussianBlur(shade_hw, (5, 5), 1.2).astype(np.float32) * np.float32(1 / _NEUTRAL)


def _sun_patch(layout: Layout, light: Light) -> list[Point]:
    """Return where light through the window's glass meets the floor."""
    hung, half = layout.hangings["window"], layout.width / 2
    across, into = (-0.35, -1.0) if hung.wall == "back" else (-1.1, -0.25)
    left, right = (hung.centre + sign * 0.3 * hung.width for sign in (-1, 1))
    low, high = 1.2, 1.0 + 0.95 * hung.height
    patch = []
    for u, v in ((left, low), (right, low), (right, high), (left, high)):
        x, y, z = layout.wall(hung.wall).at(u, v)
        x += across * light.x * (y / 1.1)
        patch.append((max(-half, min(half, x)), 0.0, max(0.4, z + into * (y / 1.1))))
    return patch


def _footprints(layout: Layout, truth: RoomTruth):
    """Return the x and z ranges of what stands on the floor, a little grown."""
    prints, depth = [], layout.depth
    if truth.bed:
        (x0, x1), (z0, z1) = layout.bed.x, layout.bed.z
        prints.append(((x0 - 0.07, x1 + 0.07), (z0 - 0.07, z1)))
    if not layout.lamp_tall:
        prints.append(((layout.lamp_x - 0.29, layout.lamp_x + 0.29), (depth - 0.53, depth - 0.06)))
    if layout.plant_x is not None:
        x = layout.plant_x
        prints.append(((x - 0.17, x + 0.17), (depth - 0.45, depth - 0.12)))
    return prints


@cache
def _grain() -> np.ndarray:
    """Return a sheet of film grain (float32, around 0); each picture takes its own window."""
    sheet = np.random.default_rng(0).random((_GRAIN_SHEET, _GRAIN_SHEET), dtype=np.float32)
    return (sheet - np.float32(0.5)) * np.float32(GRAIN)
