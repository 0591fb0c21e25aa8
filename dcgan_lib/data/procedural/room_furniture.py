"""Draw the furniture of a bedroom: bed, lamp with its table, rug, plant.

Each function adds faces to a ``Stage``, taking its choices from its own ``Dice``.
Colours are RGB floats 0..255; lengths are metres.
"""

import math
from itertools import pairwise

from dcgan_lib.data.procedural.canvas import Colour, Dice, hsv, mix, scale
from dcgan_lib.data.procedural.perspective import Point, Stage
from dcgan_lib.data.procedural.room_layout import Layout
from dcgan_lib.data.procedural.room_parts import OTHER, TAGS, WHITE, WOODS, dye

SIDE_TABLE_HEIGHT = 0.55


class _BedFrame:
    """Map lengths from the head (a) and across (b), each a share of the bed, to ranges of x and z."""

    def __init__(self, layout: Layout):
        self.head, self.x, self.z = layout.bed.head, layout.bed.x, layout.bed.z

    def ranges(self, a: tuple[float, float], b: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the x and z ranges of a part of the bed; a = 0 is the head."""
        (x0, x1), (z0, z1) = self.x, self.z
        if not self.head:
            return ((x0 + b[0] * (x1 - x0), x0 + b[1] * (x1 - x0)), (z1 - a[1] * (z1 - z0), z1 - a[0] * (z1 - z0)))
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


def _add_band(stage: Stage, frame: _BedFrame, a0: float, a1: float, y: float, colour: Colour) -> None:
    x, z = frame.ranges((a0, a1), (-0.015, 1.015))
    stage.face([(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])], colour, TAGS["bed"])


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
    return layout.lamp_x, 1.56 if layout.lamp_tall else SIDE_TABLE_HEIGHT + 0.51, layout.depth - 0.28


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
        shade = dice.pick(((150.0, 52.0, 52.0), (44.0, 70.0, 96.0), (58.0, 54.0, 54.0), (64.0, 92.0, 74.0)))
    bottom = 0.0 if layout.lamp_tall else SIDE_TABLE_HEIGHT
    half_top, half_low, half_high = dice.between(0.13, 0.19), dice.between(0.24, 0.29), dice.between(0.19, 0.23)
    stick = 0.035 if layout.lamp_tall else 0.06
    stage.face(_flat(x, z, stick, stick, bottom, y), metal, tag)
    stage.face(_flat(x, z, 0.15, 0.12, bottom, bottom + 0.05), scale(metal, 0.8), tag)
    stage.face(_flat(x, z, half_low, half_top, y - half_high, y + half_high), shade, tag)
    if lit:
        stage.face(
            _flat(x, z, half_low * 0.5, half_top * 0.5, y - half_high, y + half_high * 0.7), (255.0, 252.0, 236.0), tag
        )
    else:
        stage.face(_flat(x, z, half_low, half_low * 0.94, y - half_high, y - half_high + 0.06), scale(shade, 1.5), tag)


def _flat(x: float, z: float, half_low: float, half_high: float, y0: float, y1: float) -> list[Point]:
    return [(x - half_low, y0, z), (x + half_low, y0, z), (x + half_high, y1, z), (x - half_high, y1, z)]


def add_rug(stage: Stage, layout: Layout, dice: Dice) -> None:
    """Add a rug with a border on the floor in front of the bed, or nothing."""
    if not dice.chance(0.55):
        return
    x, z, half_width, half_length = layout.rug
    round_one, hue = dice.chance(0.4), dice.between(0, 1)
    outer = hsv(hue, dice.between(0.2, 0.6), dice.between(0.4, 0.85))
    inner = hsv((hue + dice.between(-0.1, 0.1)) % 1, dice.between(0.1, 0.5), dice.between(0.6, 0.95))
    for share, colour in ((1.0, outer), (0.78, inner), (0.5, mix(outer, inner, 0.35))):
        w, d = half_width * share, half_length * share
        count = 16 if round_one else 4
        turn = [2 * math.pi * (k + 0.5) / count for k in range(count)]
        reach = 1.0 if round_one else math.sqrt(2)
        stage.face([(x + reach * w * math.cos(a), 0.0, z + reach * d * math.sin(a)) for a in turn], colour, 0)


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
            [(x, 0.3, z), (mid[0] - side[0], mid[1] + side[1], z), tip, (mid[0] + side[0], mid[1] - side[1], z)],
            scale(green, 0.8 + 0.08 * (k * 3 % 7 - 1)),
            OTHER,
        )
