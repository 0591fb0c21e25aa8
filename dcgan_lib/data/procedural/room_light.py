"""Light a drawn bedroom: soft shadows, daylight on the floor, the window's and the lamp's glow, grain.

Legend: ``_hw`` is 64 x 64 float32 or uint8, ``_hw3`` the same with RGB last; 1.0 is neutral light.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from dcgan_lib.data.procedural.canvas import Dice, glow
from dcgan_lib.data.procedural.perspective import Point
from dcgan_lib.data.procedural.room_furniture import lamp_point
from dcgan_lib.data.procedural.room_layout import Layout
from dcgan_lib.data.procedural.room_parts import OTHER, Sky

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
        cv2.line(shade_hw, fixed_n2[first].tolist(), fixed_n2[second].tolist(), _CORNER, 2, cv2.LINE_AA, _SHIFT)
    for k, value in enumerate(values):
        cv2.fillConvexPoly(shade_hw, fixed_n2[8 + 4 * k : 12 + 4 * k], value, cv2.LINE_AA, _SHIFT)
    return cv2.GaussianBlur(shade_hw, (5, 5), 1.2).astype(np.float32) * np.float32(1 / _NEUTRAL)


def _sun_patch(layout: Layout, light: Lighting) -> list[Point]:
    """Return where light through the window's glass meets the floor."""
    wall, half = layout.hangings.walls["window"], layout.width / 2
    u, (width, height) = layout.hangings.centres["window"], layout.hangings.sizes["window"]
    across, into = (-0.35 * light.light_x, -1.0) if wall == "back" else (-1.1 * light.light_x, -0.25)
    patch = []
    for x, y, z in layout.plane(wall).rectangle(u - 0.3 * width, u + 0.3 * width, 1.2, 1.0 + 0.95 * height):
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
        prints.append(((layout.plant_x - 0.17, layout.plant_x + 0.17), (depth - 0.45, depth - 0.12)))
    return prints


def lit_picture(
    rgbt_hw4: np.ndarray, shade_hw: np.ndarray, layout: Layout, light: Lighting, dice: Dice, *, window: bool, lamp: bool
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
        colours += [(0.44 * power, 0.35 * power, 0.16 * power), (0.36 * power, 0.28 * power, 0.12 * power)]
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
