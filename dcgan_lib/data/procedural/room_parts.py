"""Draw the parts of a bedroom: shell, wall hangings and furniture.

Each function adds faces to a ``Stage``, taking its choices from its own ``Dice``.
Colours are RGB floats 0..255; lengths are metres.
"""

import math
from dataclasses import dataclass

from dcgan_lib.data.procedural.canvas import Colour, Dice, hsv, mix, scale
from dcgan_lib.data.procedural.perspective import Plane, Stage
from dcgan_lib.data.procedural.room_layout import Layout

# Tags of the canvas's fourth channel: 0 is bare room (it takes shadows), all others are things in it.
# They lie close together at the top of the range, so the shrunk channel reads as coverage.
TAGS = {"window": 236, "door": 240, "picture": 244, "bed": 248, "lamp": 252}
OTHER = 232
WHITE = (240.0, 236.0, 228.0)
WOODS = ((196, 150, 104), (170, 118, 74), (128, 84, 54), (92, 62, 44), (214, 178, 134), (150, 128, 108))
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
    return hsv(hue, saturation * dice.between(0.72, 1.05) * (1 + 0.45 * deep), value * (1.06 - 0.34 * deep))


def dye(hue: float, dice: Dice) -> Colour:
    """Return a blanket's colour of this hue in [0, HUE_END): stronger than a wall's."""
    saturation, value = _between_knots(PAINTS, hue)
    return hsv(hue, min(0.85, saturation * dice.between(1.25, 1.8)), value * dice.between(0.72, 1.04))


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
        [(-half, height, near_left), (half, height, near_right), (half, height, depth), (-half, height, depth)],
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
    finish, count = dice.pick(("plain", "plain", "plain", "stripes", "panel")), dice.pick((7, 9, 11))
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
                    plane.rectangle(max(u0, u1 - (k + 1) * pitch), u1 - k * pitch, 0, height), scale(tone, 1.07), 0
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
        tone = 1.0 if kind == "carpet" else (0.93, 1.0, 0.96, 1.05, 0.9)[(k * 3) % 5] if kind == "planks" else 1.0
        corners = [(x0, 0, stage.camera.near_z(x0)), (x1, 0, stage.camera.near_z(x1)), (x1, 0, depth), (x0, 0, depth)]
        stage.face(corners, scale(base, tone), 0)
        if kind == "tiles":
            _add_tile_row(stage, x0, step, depth, k, scale(base, 0.86))


def _add_tile_row(stage: Stage, x0: float, step: float, depth: float, row: int, colour: Colour) -> None:
    for k in range(row % 2, 9, 2):
        z1 = depth - k * step
        z0 = max(z1 - step, stage.camera.near_z(x0))
        if z1 > z0:
            stage.face([(x0, 0, z0), (x0 + step, 0, z0), (x0 + step, 0, z1), (x0, 0, z1)], colour, 0)


def add_window(stage: Stage, plane: Plane, u: float, size: tuple[float, float], sky: Sky, dice: Dice) -> None:
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
        stage.face(plane.rectangle(g0, g1, low, high, 0.02), mix(sky.low, sky.high, k / (bands - 1)), tag)
    _add_view(stage, plane, (g0, g1, b0, b1), sky, dice)
    bar = 0.028
    middle = (g0 + g1) / 2
    stage.face(plane.rectangle(middle - bar, middle + bar, b0, b1, 0.03), frame, tag)
    if dice.chance(0.6):
        bar_v = b0 + (b1 - b0) * dice.pick((0.5, 0.66))
        stage.face(plane.rectangle(g0, g1, bar_v - bar, bar_v + bar, 0.03), frame, tag)
    stage.face(plane.rectangle(u0 - 0.04, u1 + 0.04, v0 - 0.06, v0, 0.05), scale(frame, 0.92), tag)
    _add_curtains(stage, plane, (u0, u1, v0, v1), sky, dice)


def _add_view(stage: Stage, plane: Plane, glass: tuple[float, float, float, float], sky: Sky, dice: Dice) -> None:
    g0, g1, b0, b1 = glass
    tag, width, height = TAGS["window"], g1 - g0, b1 - b0
    x, y, radius = g0 + width * dice.between(0.3, 0.7), b0 + height * dice.between(0.6, 0.8), 0.11
    if sky.name in ("night", "sunset") or dice.chance(0.3):
        disc = {"night": (236.0, 236.0, 214.0), "sunset": (255.0, 226.0, 150.0)}.get(sky.name, (255.0, 255.0, 240.0))
        y = y if sky.name != "sunset" else b0 + 0.38 * height
        turn = [2 * math.pi * k / 10 for k in range(10)]
        stage.face([plane.at(x + radius * math.cos(a), y + radius * math.sin(a), 0.02) for a in turn], disc, tag)
    left, peak, right = (height * dice.between(0.08, 0.38) for _ in range(3))
    land = [
        plane.at(g0, b0, 0.02),
        plane.at(g1, b0, 0.02),
        plane.at(g1, b0 + right, 0.02),
        plane.at(g0 + width * dice.between(0.3, 0.7), b0 + peak, 0.02),
        plane.at(g0, b0 + left, 0.02),
    ]
    stage.face(land, sky.ground, tag, convex=False)


def _add_curtains(stage: Stage, plane: Plane, opening: tuple[float, float, float, float], sky: Sky, dice: Dice) -> None:
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
                    plane.rectangle(start + step * k / 3, start + step * (k + 1) / 3, v0 - 0.14, v1 + 0.1, 0.07),
                    scale(cloth, tone),
                    tag,
                )
        stage.face(plane.rectangle(u0 - 0.18, u1 + 0.18, v1 + 0.08, v1 + 0.13, 0.08), (92.0, 72.0, 58.0), tag)


def add_door(stage: Stage, plane: Plane, u: float, size: tuple[float, float], light: float, dice: Dice) -> None:
    """Add a door with its frame, panels and knob."""
    tag, (width, height) = TAGS["door"], size
    leaf = dice.pick((WHITE, (222.0, 214.0, 200.0), *(tuple(map(float, w)) for w in WOODS[:4])))
    trim = dice.pick((WHITE, scale(leaf, 0.72)))
    leaf, trim = scale(leaf, light), scale(trim, light)
    u0, u1 = u - width / 2, u + width / 2
    stage.face(plane.rectangle(u0, u1, 0, height, 0.02), trim, tag)
    u0, u1, top = u0 + 0.08, u1 - 0.08, height - 0.08
    stage.face(plane.rectangle(u0, u1, 0, top, 0.02), leaf, tag)
    columns, rows = dice.pick((1, 2)), dice.pick(((0.5, 0.5), (0.35, 0.65), (0.3, 0.3, 0.4), (1.0,)))
    dent, wide = scale(leaf, 0.8), (u1 - u0 - 0.1) / columns
    low = 0.16
    for share in reversed(rows):
        high = low + (top - 0.26) * share
        for column in range(columns):
            left = u0 + 0.05 + column * wide
            stage.face(plane.rectangle(left + 0.05, left + wide - 0.05, low + 0.05, high - 0.05, 0.03), dent, tag)
        low = high
    knob = u0 + 0.09 if dice.chance(0.5) else u1 - 0.09
    stage.face(
        plane.rectangle(knob - 0.035, knob + 0.035, 0.93, 1.03, 0.06),
        dice.pick(((226.0, 190.0, 96.0), (70.0, 66.0, 64.0))),
        tag,
    )


def add_picture(stage: Stage, plane: Plane, u: float, size: tuple[float, float], light: float, dice: Dice) -> None:
    """Add a framed picture: a landscape, blocks of colour, or a round shape."""
    tag, (width, height) = TAGS["picture"], size
    v0 = dice.between(1.3, 1.42)
    u0, u1, v1 = u - width / 2, u + width / 2, v0 + height
    frame = dice.pick(((44.0, 38.0, 36.0), (44.0, 38.0, 36.0), (88.0, 58.0, 38.0), (206.0, 164.0, 84.0)))
    stage.face(plane.rectangle(u0, u1, v0, v1, 0.03), scale(frame, light), tag)
    stage.face(plane.rectangle(u0 + 0.07, u1 - 0.07, v0 + 0.07, v1 - 0.07, 0.03), scale(WHITE, light), tag)
    a0, a1, b0, b1 = u0 + 0.14, u1 - 0.14, v0 + 0.14, v1 - 0.14
    hue = dice.between(0, 1)
    tones = [
        scale(hsv((hue + turn) % 1, dice.between(0.4, 0.8), dice.between(0.45, 0.95)), light)
        for turn in (0.0, dice.between(0.3, 0.6), dice.between(0.05, 0.2))
    ]
    stage.face(plane.rectangle(a0, a1, b0, b1, 0.03), tones[0], tag)
    kind, x, y = dice.pick(("land", "blocks", "round")), dice.between(0.3, 0.7), dice.between(0.35, 0.65)
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
            [plane.at((a0 + a1) / 2 + radius * math.cos(a), (b0 + b1) / 2 + radius * math.sin(a), 0.03) for a in turn],
            tones[1],
            tag,
        )
