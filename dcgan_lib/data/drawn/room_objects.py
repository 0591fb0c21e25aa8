"""What a drawn bedroom is made of: one function an object, which puts its faces on the stage.

Lengths in metres; ``draws`` are an object's own random choices.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from dcgan_lib.data.drawn.painting import (
    Colour,
    Draws,
    Range,
    Stage,
    circle,
    hsv,
    mix,
    palette,
    scale,
)
from dcgan_lib.data.drawn.room_layout import TABLE_HEIGHT, Bed, Hanging, Layout

# Tags of the canvas's fourth channel: 0 is bare room (it takes shadows), all others are things in
# it. They lie close together at the top of the range, so the shrunk channel reads as coverage.
TAGS = {"window": 236, "door": 240, "picture": 244, "bed": 248, "lamp": 252}
OTHER = 232


# --- Colours ---

(WHITE,) = palette("f0ece4")
WOODS = palette("c49668 aa764a 805436 5c3e2c d6b286 96806c")
HUE_END = 0.8
# Pairs of (rank in [0, 1], hue): the share of rooms up to a hue.
HUE_RANKS = ((0.0, 0.0), (0.32, 0.13), (0.46, 0.26), (0.58, 0.44), (0.86, 0.66), (1.0, HUE_END))
# hue, saturation, value of wall paints that go well together; between them both are interpolated.
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
    """What the hour does to a room."""

    name: str
    colours: list[Colour]
    """Behind the glass: high, low, and the land."""
    ambient: Colour
    """Tint of the light, 1 is neutral."""
    sun: float
    """Strength of the light that falls through the window."""


SKIES = (
    Sky("day", palette("60a0e2 c6e2f4 70965a"), (1.06, 1.04, 1.00), 0.55),
    Sky("day", palette("76b2e8 e2eef6 96a096"), (1.05, 1.04, 1.02), 0.45),
    Sky("overcast", palette("b0bcc6 d8dcde 788670"), (0.95, 0.97, 1.00), 0.12),
    Sky("sunset", palette("786eaa fab068 5c4a54"), (1.02, 0.94, 0.86), 0.40),
    Sky("night", palette("0e1434 283464 0c101e"), (0.70, 0.72, 0.84), 0.10),
    Sky("night", palette("0a0e24 1e1e42 080a16"), (0.66, 0.68, 0.78), 0.08),
)


def hue(draws: Draws) -> float:
    """Draw a hue in [0, HUE_END): warm tones and blues more often than greens, as in houses."""
    return _between_knots(HUE_RANKS, draws.between(0, 1))[0]


def wall_paint(hue: float, draws: Draws) -> Colour:
    """Return a wall paint of this hue in [0, HUE_END): pale to deep, never down to grey."""
    deep = draws.between(0, 1) ** 2
    saturation, value = _between_knots(PAINTS, hue)
    saturation *= draws.between(0.72, 1.05)
    return hsv(hue, saturation * (1 + 0.45 * deep), value * (1.06 - 0.34 * deep))


def blanket_dye(hue: float, draws: Draws) -> Colour:
    """Return a blanket's colour of this hue in [0, HUE_END): stronger than a wall's."""
    saturation, value = _between_knots(PAINTS, hue)
    strong = min(0.85, saturation * draws.between(1.25, 1.8))
    return hsv(hue, strong, value * draws.between(0.72, 1.04))


def _between_knots(knots: tuple[tuple[float, ...], ...], at: float) -> list[float]:
    """Interpolate a table whose first column rises; return the other columns."""
    right = next(k for k, row in enumerate(knots) if at <= row[0] and k)
    low, high = knots[right - 1], knots[right]
    share = (at - low[0]) / (high[0] - low[0])
    return [a + (b - a) * share for a, b in zip(low[1:], high[1:], strict=True)]


# --- The room itself ---


def shell(stage: Stage, layout: Layout, paint: Colour, draws: Draws) -> None:
    """Add ceiling, floor, walls with their finish, and skirting boards."""
    half, depth, height = layout.width / 2, layout.depth, layout.height
    near_left, near_right = stage.camera.near_z(-half), stage.camera.near_z(half)
    ceiling = mix(palette("ece9e4")[0], paint, draws.between(0.05, 0.25))
    corners = ((-half, near_left), (half, near_right), (half, depth), (-half, depth))
    stage.face([(x, height, z) for x, z in corners], scale(ceiling, 0.9))
    floor(stage, layout, draws)
    finish = draws.pick(("plain", "plain", "plain", "stripes", "panel"))
    pitch = layout.width / draws.pick((7, 9, 11))
    lower = mix(paint, draws.pick((WHITE, WHITE, scale(paint, 0.6))), 0.75)
    skirting = draws.pick((WHITE, WHITE, mix(paint, WOODS[2], 0.7)))
    # A wall is lit by the light opposite to it, hence left and right swap against a box's flanks.
    for name, u0, u1, light in (
        ("left", near_left, depth, stage.right),
        ("right", near_right, depth, stage.left),
        ("back", -half, half, 0.86),
    ):
        wall, tone = layout.wall(name), scale(paint, light)
        stage.panel(wall, (u0, u1), (0, height), 0, tone)
        if finish == "stripes":
            for k in range(0, math.ceil((u1 - u0) / pitch), 2):
                stripe = max(u0, u1 - (k + 1) * pitch), u1 - k * pitch
                stage.panel(wall, stripe, (0, height), 0, scale(tone, 1.07))
        elif finish == "panel":
            stage.panel(wall, (u0, u1), (0, 0.85), 0, scale(lower, light))
            rail = scale(mix(lower, WHITE, 0.4), light)
            stage.panel(wall, (u0, u1), (0.85, 0.92), 0, rail)
        stage.panel(wall, (u0, u1), (0, 0.11), 0, scale(skirting, light))


def floor(stage: Stage, layout: Layout, draws: Draws) -> None:
    """Add planks, a carpet or tiles."""
    kind = draws.pick(("planks", "planks", "carpet", "tiles"))
    if kind == "carpet":
        base = hsv(draws.between(0, 1), draws.between(0.05, 0.25), draws.between(0.45, 0.75))
    elif kind == "tiles":
        base = hsv(draws.between(0.05, 0.15), draws.between(0.03, 0.15), draws.between(0.65, 0.85))
    else:
        base = draws.pick(WOODS)
    base = scale(base, draws.between(0.8, 1.02))
    strips = 1 if kind == "carpet" else draws.pick((8, 10, 12))
    tones = (0.93, 1.0, 0.96, 1.05, 0.9) if kind == "planks" else (1.0,)
    step, near_z = layout.width / strips, stage.camera.near_z
    for k in range(strips):
        x0, x1 = -layout.width / 2 + k * step, -layout.width / 2 + (k + 1) * step
        corners = ((x0, near_z(x0)), (x1, near_z(x1)), (x1, layout.depth), (x0, layout.depth))
        stage.face([(x, 0, z) for x, z in corners], scale(base, tones[k * 3 % len(tones)]))
        for row in range(k % 2, 9, 2) if kind == "tiles" else ():
            z1 = layout.depth - row * step
            z0 = max(z1 - step, near_z(x0))
            if z1 > z0:
                stage.sheet((x0, x0 + step), (z0, z1), 0, scale(base, 0.86))


# --- What hangs on the walls ---


def _place(stage: Stage, layout: Layout, hung: Hanging) -> tuple:
    """Return an object's wall, its left and right edge along it, and the light there."""
    light = {"back": 0.9, "left": stage.right, "right": stage.left}[hung.wall]
    u0, u1 = hung.centre - hung.width / 2, hung.centre + hung.width / 2
    return layout.wall(hung.wall), u0, u1, light


def window(stage: Stage, layout: Layout, sky: Sky, draws: Draws) -> None:
    """Add a window: sky, land, bars, frame, curtains or a blind."""
    stage.tag, hung = TAGS["window"], layout.hangings["window"]
    wall, u0, u1, _ = _place(stage, layout, hung)
    v0 = draws.between(1.02, 1.14)
    v1 = v0 + hung.height
    frame = draws.pick((WHITE, WHITE, WOODS[1], *palette("6e5442")))
    frame = scale(frame, 0.62 if sky.name == "night" else 1.0)
    stage.panel(wall, (u0, u1), (v0, v1), 0.02, frame)
    glass_u, glass_v = (u0 + 0.08, u1 - 0.08), (v0 + 0.08, v1 - 0.08)
    _view(stage, wall, glass_u, glass_v, sky, draws)
    bar, middle = 0.028, (glass_u[0] + glass_u[1]) / 2
    stage.panel(wall, (middle - bar, middle + bar), glass_v, 0.03, frame)
    if draws.chance(0.6):
        level = glass_v[0] + (glass_v[1] - glass_v[0]) * draws.pick((0.5, 0.66))
        stage.panel(wall, glass_u, (level - bar, level + bar), 0.03, frame)
    stage.panel(wall, (u0 - 0.04, u1 + 0.04), (v0 - 0.06, v0), 0.05, scale(frame, 0.92))
    _curtains(stage, wall, (u0, u1), (v0, v1), sky, draws)


def _view(stage: Stage, wall, u: Range, v: Range, sky: Sky, draws: Draws) -> None:
    (u0, u1), (v0, v1), (high, low, ground) = u, v, sky.colours
    width, height, bands = u1 - u0, v1 - v0, 4
    for k in range(bands):
        band = v0 + height * k / bands, v0 + height * (k + 1) / bands
        stage.panel(wall, u, band, 0.02, mix(low, high, k / (bands - 1)))
    x, y = u0 + width * draws.between(0.3, 0.7), v0 + height * draws.between(0.6, 0.8)
    if sky.name in ("night", "sunset") or draws.chance(0.3):
        y = v0 + 0.38 * height if sky.name == "sunset" else y
        moon, low_sun, sun = palette("ececd6 ffe296 fffff0")
        disc = {"night": moon, "sunset": low_sun}.get(sky.name, sun)
        stage.on_wall(wall, [(x + 0.11 * c, y + 0.11 * s) for c, s in circle(10)], 0.02, disc)
    left, peak, right = (height * draws.between(0.08, 0.38) for _ in range(3))
    top = u0 + width * draws.between(0.3, 0.7)
    land = [(u0, v0), (u1, v0), (u1, v0 + right), (top, v0 + peak), (u0, v0 + left)]
    stage.on_wall(wall, land, 0.02, ground, convex=False)


def _curtains(stage: Stage, wall, u: Range, v: Range, sky: Sky, draws: Draws) -> None:
    (u0, u1), (v0, v1) = u, v
    kind = draws.pick(("curtains", "curtains", "curtains", "blind", "bare"))
    cloth = hsv(draws.between(0, 1), draws.between(0.05, 0.6), draws.between(0.6, 0.95))
    cloth = scale(cloth, 0.75 if sky.name == "night" else 1.0)
    if kind == "blind":
        low = v1 - (v1 - v0) * draws.between(0.2, 0.5)
        stage.panel(wall, u, (low, v1 + 0.05), 0.06, cloth)
        stage.panel(wall, u, (low, low + 0.05), 0.06, scale(cloth, 0.8))
    elif kind == "curtains":
        share = (u1 - u0) * draws.between(0.17, 0.27)
        for start in (u0 - 0.12, u1 + 0.12 - share):
            for k, tone in enumerate((0.86, 1.04, 0.9)):
                fold = start + share * k / 3, start + share * (k + 1) / 3
                stage.panel(wall, fold, (v0 - 0.14, v1 + 0.1), 0.07, scale(cloth, tone))
        (rod,) = palette("5c483a")
        stage.panel(wall, (u0 - 0.18, u1 + 0.18), (v1 + 0.08, v1 + 0.13), 0.08, rod)


def door(stage: Stage, layout: Layout, draws: Draws) -> None:
    """Add a door with its frame, panels and knob."""
    stage.tag, hung = TAGS["door"], layout.hangings["door"]
    wall, u0, u1, light = _place(stage, layout, hung)
    leaf = draws.pick((WHITE, *palette("ded6c8"), *WOODS[:4]))
    trim = draws.pick((WHITE, scale(leaf, 0.72)))
    leaf = scale(leaf, light)
    stage.panel(wall, (u0, u1), (0, hung.height), 0.02, scale(trim, light))
    u0, u1, top = u0 + 0.08, u1 - 0.08, hung.height - 0.08
    stage.panel(wall, (u0, u1), (0, top), 0.02, leaf)
    columns, rows = (
        draws.pick((1, 2)),
        draws.pick(((0.5, 0.5), (0.35, 0.65), (0.3, 0.3, 0.4), (1.0,))),
    )
    wide, low = (u1 - u0 - 0.1) / columns, 0.16
    for share in reversed(rows):
        high = low + (top - 0.26) * share
        for column in range(columns):
            left = u0 + 0.05 + column * wide
            inset = left + 0.05, left + wide - 0.05
            stage.panel(wall, inset, (low + 0.05, high - 0.05), 0.03, scale(leaf, 0.8))
        low = high
    knob = u0 + 0.09 if draws.chance(0.5) else u1 - 0.09
    metal = draws.pick(palette("e2be60 464240"))
    stage.panel(wall, (knob - 0.035, knob + 0.035), (0.93, 1.03), 0.06, metal)


def picture(stage: Stage, layout: Layout, draws: Draws) -> None:
    """Add a framed picture: a landscape, blocks of colour, or a round shape."""
    stage.tag, hung = TAGS["picture"], layout.hangings["picture"]
    wall, u0, u1, light = _place(stage, layout, hung)
    v0 = draws.between(1.3, 1.42)
    v1 = v0 + hung.height
    frame = draws.pick(palette("2c2624 2c2624 583a26 cea454"))

    def inside(margin: float, colour: Colour) -> None:
        stage.panel(wall, (u0 + margin, u1 - margin), (v0 + margin, v1 - margin), 0.03, colour)

    inside(0, scale(frame, light))
    inside(0.07, scale(WHITE, light))
    first = draws.between(0, 1)
    tones = [
        scale(hsv((first + turn) % 1, draws.between(0.4, 0.8), draws.between(0.45, 0.95)), light)
        for turn in (0.0, draws.between(0.3, 0.6), draws.between(0.05, 0.2))
    ]
    inside(0.14, tones[0])
    a0, a1, b0, b1 = u0 + 0.14, u1 - 0.14, v0 + 0.14, v1 - 0.14
    kind = draws.pick(("land", "blocks", "round"))
    x, y = a0 + (a1 - a0) * draws.between(0.3, 0.7), b0 + (b1 - b0) * draws.between(0.35, 0.65)
    if kind == "land":
        low = (b0 + y) / 2
        hill = [(a0, b0), (a1, b0), (a1, low), (x, y), (a0, low)]
        stage.on_wall(wall, hill, 0.03, tones[1], convex=False)
    elif kind == "blocks":
        stage.panel(wall, (a0, x), (b0, y), 0.03, tones[1])
        stage.panel(wall, (x, a1), (y, b1), 0.03, tones[2])
    else:
        radius, x, y = 0.34 * min(a1 - a0, b1 - b0), (a0 + a1) / 2, (b0 + b1) / 2
        disc = [(x + radius * c, y + radius * s) for c, s in circle(10)]
        stage.on_wall(wall, disc, 0.03, tones[1])


# --- What stands in the room ---


def _on_bed(bed: Bed, a: Range, b: Range) -> tuple[Range, Range]:
    """Return x and z of a part of the bed: ``a`` is 0 at the head, 1 at the foot; ``b`` across."""
    (x0, x1), (z0, z1) = bed.x, bed.z
    wide, deep = x1 - x0, z1 - z0
    if not bed.head:
        return (x0 + b[0] * wide, x0 + b[1] * wide), (z1 - a[1] * deep, z1 - a[0] * deep)
    along = z1 - b[1] * deep, z1 - b[0] * deep
    if bed.head < 0:
        return (x0 + a[0] * wide, x0 + a[1] * wide), along
    return (x1 - a[1] * wide, x1 - a[0] * wide), along


def bed(stage: Stage, layout: Layout, blanket_hue: float, draws: Draws) -> None:
    """Add headboard, frame, mattress, pillows, blanket with its fold, and perhaps a footboard."""
    stage.tag = TAGS["bed"]
    wood = draws.pick(WOODS)
    board = draws.pick((wood, wood, hsv(draws.between(0, 1), 0.25, 0.6), scale(WHITE, 0.92)))
    sheet = mix(WHITE, hsv(blanket_hue, 0.5, 0.9), draws.between(0.0, 0.2))
    blanket = blanket_dye(blanket_hue, draws)

    def block(a: Range, b: Range, y: Range, colour: Colour) -> None:
        x, z = _on_bed(layout.bed, a, b)
        stage.box(x, y, z, colour)

    def band(a0: float, a1: float, colour: Colour) -> None:
        stage.sheet(*_on_bed(layout.bed, (a0, a1), (-0.015, 1.015)), top + 0.05, colour)

    top = draws.between(0.48, 0.56)
    block((0.0, 0.035), (-0.03, 1.03), (0.0, draws.between(0.88, 1.02)), board)
    block((0.03, 1.0), (0.0, 1.0), (0.08, 0.28), scale(wood, 0.9))
    block((0.03, 0.99), (0.01, 0.99), (0.26, top), sheet)
    _pillows(stage, layout.bed, top, sheet, draws)
    start = draws.between(0.3, 0.42)
    block((start, 1.0), (-0.015, 1.015), (draws.between(0.14, 0.24), top + 0.05), blanket)
    pattern = draws.pick(("plain", "fold", "fold", "stripes", "throw"))
    other = hsv((blanket_hue + draws.pick((0.0, 0.04, 0.96))) % 1, 0.25, 0.97)
    if pattern == "stripes":
        for k in range(3):
            middle = start + (1 - start) * (0.25 + 0.27 * k)
            band(middle - 0.03, middle + 0.03, other)
    elif pattern == "throw":
        band(0.72, 0.9, scale(blanket, 0.62))
    if pattern != "plain":
        band(start, start + 0.1, other)
    if draws.chance(0.3):
        block((0.985, 1.02), (-0.02, 1.02), (0.0, top + 0.12), board)


def _pillows(stage: Stage, bed: Bed, top: float, sheet: Colour, draws: Draws) -> None:
    count = draws.pick((1, 2) if bed.head else (1, 2, 2))
    colour = mix(sheet, draws.pick((WHITE, WHITE, hsv(draws.between(0, 1), 0.35, 0.92))), 0.9)
    edges = [0.08 + 0.84 * k / count for k in range(count + 1)]
    for b0, b1 in reversed(list(pairwise(edges))):
        x, z = _on_bed(bed, (0.06, 0.27), (b0 + 0.03, b1 - 0.03))
        stage.box(x, (top, top + 0.05), z, scale(colour, 0.82))
        outline = []
        for turn in circle(12):
            c, s = (math.copysign(abs(part) ** 0.5, part) for part in turn)  # a rounded square
            lean = bed.head * c if bed.head else s
            at_x, at_z = (
                (x[0] + x[1] + c * (x[1] - x[0])) / 2,
                (z[0] + z[1] + s * (z[1] - z[0])) / 2,
            )
            outline.append((at_x, top + 0.13 + 0.09 * lean, at_z))
        stage.face(outline, colour)


def side_table(stage: Stage, layout: Layout, draws: Draws) -> None:
    """Add the small table of a table lamp; it stands there with or without the lamp."""
    stage.tag, (x, _, z) = OTHER, layout.lamp_point
    wood = draws.pick(WOODS)
    stage.box((x - 0.24, x + 0.24), (0.0, TABLE_HEIGHT), (z - 0.2, z + 0.22), wood)
    for low in (0.1, 0.32):
        stage.cutout(x, z - 0.21, (0.19, 0.19), (low, low + 0.16), scale(wood, 0.66))


def lamp(stage: Stage, layout: Layout, lit: bool, draws: Draws) -> None:
    """Add a table or standing lamp; its shade faces the camera."""
    stage.tag, (x, y, z) = TAGS["lamp"], layout.lamp_point
    metal = draws.pick(palette("3c3634 c8a45a ebe6de"))
    shade = draws.pick(palette("fff0b8 ffe6a0 fff6d0" if lit else "963434 2c4660 3a3636 405c4a"))
    bottom, stick = (0.0, 0.035) if layout.lamp_tall else (TABLE_HEIGHT, 0.06)
    top, low, half = draws.between(0.13, 0.19), draws.between(0.24, 0.29), draws.between(0.19, 0.23)
    stage.cutout(x, z, (stick, stick), (bottom, y), metal)
    stage.cutout(x, z, (0.15, 0.12), (bottom, bottom + 0.05), scale(metal, 0.8))
    stage.cutout(x, z, (low, top), (y - half, y + half), shade)
    if lit:
        (core,) = palette("fffcec")
        stage.cutout(x, z, (low * 0.5, top * 0.5), (y - half, y + half * 0.7), core)
    else:
        stage.cutout(x, z, (low, low * 0.94), (y - half, y - half + 0.06), scale(shade, 1.5))


def rug(stage: Stage, layout: Layout, draws: Draws) -> None:
    """Add a rug with a border on the floor in front of the bed, or nothing."""
    if not draws.chance(0.55):
        return
    stage.tag, (x, z, half_width, half_length) = 0, layout.rug
    is_round, first = draws.chance(0.4), draws.between(0, 1)
    outer = hsv(first, draws.between(0.2, 0.6), draws.between(0.4, 0.85))
    second = (first + draws.between(-0.1, 0.1)) % 1
    inner = hsv(second, draws.between(0.1, 0.5), draws.between(0.6, 0.95))
    count, reach = (16, 1.0) if is_round else (4, math.sqrt(2))
    for share, colour in ((1.0, outer), (0.78, inner), (0.5, mix(outer, inner, 0.35))):
        w, d = reach * (half_width * share), reach * (half_length * share)
        stage.face([(x + w * c, 0.0, z + d * s) for c, s in circle(count, 0.5)], colour)


def plant(stage: Stage, layout: Layout, draws: Draws) -> None:
    """Add a potted plant where the layout has one."""
    if layout.plant_x is None:
        return
    stage.tag, x, z = OTHER, layout.plant_x, layout.depth - 0.3
    pot = draws.pick(palette("c46c4a e2dcd2 54545a"))
    green = hsv(draws.between(0.24, 0.4), draws.between(0.45, 0.7), draws.between(0.35, 0.62))
    tall = draws.between(0.45, 0.75)
    stage.cutout(x, z, (0.13, 0.18), (0.0, 0.32), pot)
    stage.cutout(x, z, (0.18, 0.18), (0.27, 0.32), scale(pot, 0.8))
    for k in range(7):
        angle = (k - 3) * 0.36 + draws.between(-0.1, 0.1)
        reach = tall * (1.0 - 0.06 * abs(k - 3))
        sine, cosine = math.sin(angle), math.cos(angle)
        tip_x, tip_y = x + 0.75 * reach * sine, 0.3 + reach * cosine
        mid_x, mid_y, side_x, side_y = (
            (x + tip_x) / 2,
            (0.3 + tip_y) / 2,
            0.07 * cosine,
            0.07 * sine,
        )
        left, right = (mid_x - side_x, mid_y + side_y, z), (mid_x + side_x, mid_y - side_y, z)
        leaf = scale(green, 0.8 + 0.08 * (k * 3 % 7 - 1))
        stage.face([(x, 0.3, z), left, (tip_x, tip_y, z), right], leaf)
