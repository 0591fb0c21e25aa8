"""The outlines of n drawn faces, part by part; each function is named after what it adds.

Axes: n faces, k points. Numbers of a face are n x 1 arrays, so that they broadcast over the points
of an outline. Coordinates on the head: longitude and latitude in radians, (0, 0) in the middle of
the face, which looks ahead at yaw 0; in the picture: pixels, y downwards, before the head's tilt.
``f`` is the form and ``c`` the colours of `sketch`.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

FACE, NECK, HAIR, CLOTH = range(4)
QUARTER = np.pi / 2
SIDES = (-1, 1)


class Shape(NamedTuple):
    """One filled outline for each of n faces."""

    layer: str
    """"flat" (plain colour), "soft" (dark, light, blush; blurred) or "cast" (shadow; blurred)."""
    start: int
    stop: int
    colour: list[list[int]]
    visible: list[bool]
    part: int | None
    """FACE, NECK, HAIR or CLOTH: which light falls on it; None keeps what lies beneath."""


class Sketch:
    """Collect the shapes of n faces in painting order; what is given for one face, all share."""

    def __init__(self, num_faces: int):
        self.num_faces, self.shapes, self.outlines, self._num_points = num_faces, [], [], 0

    def add(self, points_nk2, colour, visible=True, part=None, layer="flat") -> None:
        """Add an outline with its colour: by default a plain one."""
        start, self._num_points = self._num_points, self._num_points + points_nk2.shape[1]
        self.outlines.append(np.broadcast_to(points_nk2, (self.num_faces, *points_nk2.shape[1:])))
        colours = np.broadcast_to(colour, (self.num_faces, np.shape(colour)[-1]))
        colour = np.clip(colours, 0, 255).astype(int).tolist()
        visible = np.broadcast_to(np.ravel(visible), self.num_faces).tolist()
        self.shapes.append(Shape(layer, start, self._num_points, colour, visible, part))

    def shade(self, points_nk2, dark: int = 0, light: int = 0, blush: int = 0) -> None:
        """Add soft modelling of the skin."""
        self.add(points_nk2, (dark, light, blush), layer="soft")

    def cast(self, points_nk2, strength: int, visible=True) -> None:
        """Add a shadow cast on the skin; strength 0 takes away those before it."""
        self.add(points_nk2, (strength,), visible, layer="cast")


def lerp(low, high, amount):
    """Mix ``low`` and ``high``: ``amount`` 0 gives the first, 1 the second."""
    return low + (high - low) * amount


def step(low: float, high, x):
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def span(low: float, high: float, num: int) -> np.ndarray:
    """Return ``num`` even steps, 1 x k, both ends included."""
    return np.linspace(low, high, num)[None]


def around(num: int) -> np.ndarray:
    """Return ``num`` angles of a full turn, 1 x k."""
    return np.linspace(0, 2 * np.pi, num, endpoint=False)[None]


def xy(x, y) -> np.ndarray:
    """Join coordinates, n x k each, into points, n x k x 2."""
    return np.stack(np.broadcast_arrays(x, y), -1)


def strip(first_nk2: np.ndarray, second_nk2: np.ndarray) -> np.ndarray:
    """Outline the strip between two edges that run the same way."""
    return np.concatenate([first_nk2, second_nk2[:, ::-1]], 1)


def ring(f: SimpleNamespace, lat) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the middle, half width and height in pixels of the head at a latitude."""
    up = np.sin(lat)
    down = np.maximum(-up, 0)
    cos = np.sqrt(np.maximum(1 - up * up, 0))
    half = f.a * np.sqrt(cos * np.sqrt(cos)) * (1 - f.jaw * down * np.sqrt(down))
    # The chin leads a turn and the crown trails it.
    return f.cx - f.lead * up, half, f.cy - f.b * up


def on_head(f: SimpleNamespace, lon, lat, lift=None) -> np.ndarray:
    """Return the pixels of points on the head, ``lift`` times as far from its axis as the skin."""
    middle, half, y = ring(f, lat)
    turned = lon + f.turn
    if lift is None:
        return xy(middle + half * np.sin(np.clip(turned, -QUARTER, QUARTER)), y)
    return xy(middle + lift * half * np.sin(turned), y)


def oval(f: SimpleNamespace, lon, lat, rx, ry, lift=None, power=None, num: int = 12) -> np.ndarray:
    """Outline an oval of half axes ``rx``, ``ry`` radians; ``power`` below 1 squares it off."""
    t = around(num)
    c, s = np.cos(t), np.sin(t)
    if power is not None:
        c, s = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    return on_head(f, lon + rx * c, lat + ry * s, lift)


def band(f: SimpleNamespace, lon, upper, lower, lift=None) -> np.ndarray:
    """Outline what lies between two latitudes along a line of longitudes on the head."""
    return strip(on_head(f, lon, upper, lift), on_head(f, lon, lower, lift))


def ribbon(f: SimpleNamespace, lon, lat, thickness, lift=None) -> np.ndarray:
    """Outline a stroke along a line on the head, ``thickness`` radians to either side."""
    return band(f, lon, lat + thickness, lat - thickness, lift)


def hair_back(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add the hair behind the head: a short nape, or a curtain to the shoulders."""
    s, back = span(0, 1, 12), f.cx - 0.16 * f.a * np.sin(f.turn)
    drop = np.where(f.long_hair, f.length, 0.42)
    y = lerp(f.cy - 0.35 * f.b, f.cy + drop * f.b, s)
    flare = np.where(f.long_hair, 0.12 + f.flare, -0.02)
    wave = f.wave * s * np.sin(f.curl_freq * 2.2 * s + f.phase)
    tuck = np.where(f.long_hair, 0.15, 0.45) * step(0.6, 1, s)
    width = f.a * (1 + f.volume + flare * step(0, 0.6, s) + wave - tuck)
    t = span(-1, 1, 9)
    hem = xy(back + t * width[:, -1:], f.cy + f.b * (drop + 0.12 * (1 - t * t)))
    outline = np.concatenate([xy(back - width, y), hem, xy(back + width, y)[:, ::-1]], 1)
    sk.add(outline, c.hair_dark, part=HAIR)


def _hairline(f, lon):
    """Return the latitude of the hair's lower edge at each longitude."""
    off = np.abs(lon)
    front = (
        f.fringe + 0.3 * f.part * np.sin(1.3 * lon) + f.tuft * np.sin(f.tuft_freq * lon + f.phase)
    )
    # Under a hat a strip of hair still shows.
    front = np.where(f.hat, np.minimum(front, 0.50 + 0.06 * np.sin(f.tuft_freq * lon)), front)
    edge = lerp(front, np.where(f.long_hair, -0.35, -0.02), step(0.70, 1.18, off))
    return lerp(
        edge, np.where(f.long_hair, -1.0, -0.36), step(1.2, np.where(f.long_hair, 1.6, 1.75), off)
    )


def hair_front(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add the hair on the skull, down to the hairline, and its shadow on the skin."""
    turned, s = span(-QUARTER, QUARTER, 30), span(0, 1, 14)
    lat = _hairline(f, (turned - f.turn + np.pi) % (2 * np.pi) - np.pi)
    middle, half, y = ring(f, lat)
    outline = [xy(middle + 1.02 * half * np.sin(turned), y)]
    crown = -0.10 * f.a * np.sin(f.turn)
    for side, arc in ((1, lerp(lat[:, -1:], QUARTER, s)), (-1, lerp(QUARTER, lat[:, :1], s))):
        curl = f.curl * np.abs(np.sin(f.curl_freq * arc + f.phase)) * step(-0.5, 0, arc)
        grow = f.volume * step(-0.5, 0.4, arc) + curl
        grow = np.where(f.hat, np.minimum(grow, 0.08), grow)
        middle, half, y = ring(f, arc)
        outline.append(xy(middle + crown + side * half * (1 + grow), y + 0.8 * (y - f.cy) * grow))
    cap = np.concatenate(outline, 1)
    sk.add(cap, c.hair, part=HAIR)
    sk.cast(cap + xy(1.5 * f.shadow_x, 2.0), 150)


def beard(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add a full beard, from the sideburns round the mouth to the chin."""
    turned = span(-QUARTER, QUARTER, 30)
    off = np.abs(turned - f.turn)
    edge = f.nose_lat - 0.10 - 0.07 * step(0, 0.35, off) - 0.13 * step(0.3, 0.62, off)
    edge = lerp(edge, -0.02, step(0.65, 1.25, off)) - 0.6 * step(1.5, 1.8, off)
    s = span(0, 1, 14)
    middle, half, y = ring(f, edge)
    outline = [xy(middle + half * np.sin(turned), y)]
    for side, lat in ((1, lerp(edge[:, -1:], -QUARTER, s)), (-1, lerp(-QUARTER, edge[:, :1], s))):
        grow = f.beard_size * step(0.1, 1.2, -lat)
        middle, half, y = ring(f, lat)
        outline.append(xy(middle + side * half * (1 + 0.5 * grow), y + (y - f.cy) * grow))
    sk.add(np.concatenate(outline, 1), c.beard, f.beard, HAIR)


def glasses(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add two rims, a bridge and the arm that faces the viewer."""
    lift, rim = 1.07, f.rim
    for side in SIDES:
        lon, lat = side * (f.eye_lon + 0.01), f.eye_lat
        outer = oval(f, lon, lat, 0.36 + rim, f.lens + rim, lift, f.squareness, 20)
        inner = oval(f, lon, lat, 0.36 - rim, f.lens - rim, lift, f.squareness, 20)
        rims = np.concatenate([outer, outer[:, :1], inner[:, :1], inner[:, ::-1]], 1)
        sk.add(rims, c.frame, f.glasses)
        s = span(0, 1, 5)
        arm = ribbon(
            f, side * lerp(f.eye_lon + 0.36, 1.5, s), f.eye_lat + 0.06 - 0.02 * s, 0.8 * rim, lift
        )
        sk.add(arm, c.frame, f.glasses & (side * f.turn < 0.05))
    s = span(-1, 1, 5)
    sk.add(
        ribbon(f, s * (f.eye_lon - 0.30), f.eye_lat + 0.10 - 0.03 * s * s, rim, 1.12),
        c.frame,
        f.glasses,
    )


def hat(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add a crown with a band, and on some a visor or a brim all round."""
    t, angle, s, turn = span(-1, 1, 16), span(0, np.pi, 18), span(-1, 1, 14), np.sin(f.turn)
    mid, width = ring(f, 1.0)[0] - 0.05 * f.a * turn, f.a * (1.14 + 0.4 * f.volume)
    line = f.cy - 0.58 * f.b
    low = xy(mid + 0.97 * width * t, line + f.b * (0.14 - 0.16 * t * t))
    cos = np.cos(angle)
    bulge = width * f.crown_wide * np.sign(cos) * np.abs(cos) ** f.crown_power
    crown = xy(mid + bulge, line - f.b * f.crown * np.sin(angle).clip(0) ** 0.8)
    sk.cast(low + xy(1.5 * f.shadow_x, 2.5), 170, f.hat)
    sk.add(np.concatenate([low, crown], 1), c.hat, f.hat, CLOTH)
    sk.add(strip(low, low - xy(0, 0.2 * f.b)), c.hat_band, f.hat, CLOTH)
    back = on_head(f, 0.95 * s, 0.62 - 0.02 * s, 1.06)
    front = on_head(f, 0.85 * s, 0.35 + 0.20 * s**4, 1.45 - 0.3 * s * s)
    sk.add(strip(back, front), c.hat_band, f.hat & f.visor, CLOTH)
    sin = np.sin(around(26))
    brim_x = mid + 0.12 * f.a * turn + width * f.brim_wide * np.cos(around(26))
    brim = xy(brim_x, line + f.b * (0.10 + 0.13 * sin * np.where(sin > 0, 1.0, 0.6)))
    sk.add(brim, c.hat, f.hat & f.brim, CLOTH)


def bust(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add neck, torso, neckline and, on some, a collar."""
    s, t = span(0, 1, 8), span(0, 1, 12)
    foot_x, foot_y, w = f.cx + 0.02 * f.a * np.sin(f.turn), f.cy + 1.22 * f.b, f.a * f.neck
    x, y = lerp(ring(f, -1.2)[0], foot_x, s), lerp(f.cy + 0.5 * f.b, foot_y + 0.14 * f.b, s)
    flared = w * (1 + 0.35 * s**3)
    sk.add(strip(xy(x - flared, y), xy(x + flared, y)), c.skin, part=NECK)
    reach, top = f.a * f.shoulder, foot_y - 0.06 * f.b
    slope, out = top + 0.42 * f.b * t**1.7, 1.02 * w + (reach - w) * t
    angle = span(np.pi, 0, 10)
    scoop = xy(foot_x + 1.02 * w * np.cos(angle), top + f.b * f.neckline * np.sin(angle) ** f.vee)
    floor = xy(foot_x + reach * np.array([[1, -1]]), 72.0)
    torso = np.concatenate(
        [scoop, xy(foot_x + out, slope), floor, xy(foot_x - out, slope)[:, ::-1]], 1
    )
    sk.add(torso, c.cloth, part=CLOTH)
    sk.add(strip(scoop, scoop + np.array([0, 1.3])), c.trim, part=CLOTH)
    for side in SIDES:
        corners = ((0.95, -0.14), (1.5, 0.02), (0.9, 0.30), (0.05, 0.12))
        lapel = np.concatenate(
            [xy(foot_x + side * w * across, foot_y + f.b * down) for across, down in corners], 1
        )
        sk.add(lapel, c.trim, f.collar, CLOTH)


def ears(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch, *, in_front: bool) -> None:
    """Add the ears that the head hides, or, ``in_front``, those before it."""
    t = around(14)
    for side in SIDES:
        root = side * 1.52
        faces_viewer = np.abs(root + f.turn) < QUARTER
        shown = (faces_viewer & ~f.long_hair) if in_front else ~faces_viewer
        for size, colour in ((1.0, c.skin), (0.55, c.skin_dark)):
            depth = 0.5 + 0.5 * size * np.cos(t)
            lat = f.ear_lat + 0.21 * size * np.sin(t) * (1.05 - 0.15 * np.sin(t))
            sk.add(
                on_head(f, root + side * 0.33 * depth, lat, 1 + 0.24 * depth), colour, shown, FACE
            )


def face(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add the face, and its shadow on the neck."""
    lat = span(QUARTER, -QUARTER, 20)
    middle, half, y = ring(f, lat)
    outline = strip(xy(middle + half, y), xy(middle - half, y))
    sk.add(outline, c.skin, part=FACE)
    sk.cast(outline + xy(2.0 * f.shadow_x, 5.0), 190)
    sk.cast(outline, 0)


def nose(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add the nose's shading and nostrils."""
    t, s = span(0, 1, 8), span(-1, 1, 9)
    lat = lerp(f.eye_lat + 0.08, f.nose_lat, t)
    width = lerp(0.05, f.nose_wide, t * t)
    away = np.sign(f.shadow_x)
    ridge = on_head(f, 0 * t, lat, lerp(1.0, f.nose_lift, t**1.3))
    sk.shade(strip(ridge, on_head(f, away * width * 1.25, lat - 0.02)), dark=150)
    sk.shade(strip(ridge, on_head(f, -away * width * 0.6, lat, lerp(1.0, 1.1, t))), light=110)
    sk.shade(oval(f, 0.0, f.nose_lat, f.nose_wide * 0.8, 0.06, f.nose_lift), light=120)
    base = f.nose_lat - 0.075 + 0.05 * s * s
    lift = lerp(1.02, f.nose_lift, 0.6 - 0.4 * s * s)
    upper = on_head(f, f.nose_wide * s, base, lift)
    sk.add(
        strip(upper, on_head(f, 0.9 * f.nose_wide * s, base - 0.045 + 0.0225 * s * s, lift)),
        c.skin_deep,
    )


def mouth(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add closed lips, or a smile with teeth; the chin's shade and a blush."""
    s, lift = span(-1, 1, 11), 1.13
    arch = 1 - s * s
    x, line = f.mouth_wide * s, f.mouth_lat - f.frown * s * s
    upper = line + 0.055 * f.lips * arch * (1 - 0.35 * np.clip(1 - np.abs(s) / 0.3, 0, 1))
    lower = line - 0.085 * f.lips * arch
    sk.add(band(f, x, upper, lower, lift), c.lip, ~f.smile)
    sk.add(ribbon(f, 1.02 * x, line, 0.018, lift), c.lip_dark, ~f.smile)
    # A smile: wider, raised corners, parted lips, teeth.
    x, curve = 1.4 * f.mouth_wide * s, f.mouth_lat - 0.03 + f.smile_curve * (s * s - 0.35)
    top, bottom = curve + 0.05 * arch, curve - f.smile_open * arch
    lips = strip(
        on_head(f, 1.06 * x, top + 0.05, lift), on_head(f, 1.06 * x, bottom - 0.06 * f.lips, lift)
    )
    sk.add(lips, c.lip, f.smile)
    sk.add(band(f, x, top, bottom, lift), c.lip_dark, f.smile)
    teeth = strip(
        on_head(f, 0.93 * x, top, lift), on_head(f, 0.9 * x, lerp(top, bottom, f.teeth), lift)
    )
    sk.add(teeth, (246, 242, 234), f.smile)
    sk.shade(oval(f, 0.0, f.mouth_lat - 0.22, 0.2, 0.06), dark=90)
    for side in SIDES:
        sk.shade(oval(f, side * 0.62, -0.30, 0.22, 0.15), blush=190)


def eyes(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add eyes, lashes and brows."""
    t = span(-1, 1, 9)
    lids = f.eye_open * (1 - np.abs(t) ** 2.2)
    for side in SIDES:
        lon, tilt = side * f.eye_lon, 0.03 * t * side
        x, upper = lon + f.eye_wide * t, f.eye_lat + lids + tilt
        sk.add(band(f, x, upper, f.eye_lat - 0.62 * lids + tilt), c.sclera)
        at_x, at_y = lon + f.gaze_x, f.eye_lat + 0.22 * f.eye_open + f.gaze_y
        sk.add(oval(f, at_x, at_y, 0.135, 0.092), c.iris)
        sk.add(oval(f, at_x, at_y, 0.065, 0.046, num=8), c.pupil)
        sk.add(
            oval(f, at_x - 0.05 * np.sign(f.shadow_x), at_y + 0.04, 0.035, 0.026, num=6),
            (255, 255, 255),
        )
        sk.add(ribbon(f, x, upper + 0.015, 0.030 * (1.1 - 0.5 * t * t)), c.lash)
        brow = f.brow_lat + f.brow_arch * (1 - t * t) + f.brow_tilt * t * side
        tail = 1.05 - 0.6 * np.clip(t * side, 0, 1) ** 1.5
        sk.add(ribbon(f, 1.02 * lon + 0.24 * t, brow, f.brow_thick * tail), c.brow)
        sk.shade(oval(f, lon - side * 0.04, f.eye_lat + 0.06, 0.33, 0.17), dark=110)


def sketch(f: SimpleNamespace, c: SimpleNamespace) -> tuple[list[Shape], np.ndarray]:
    """Return the shapes of n faces, in painting order, and their joined points (float64, pixels).

    ``f`` holds one n x 1 array for each parameter of `portraits._RANGES`, the traits, and ``turn``
    in radians; ``c`` holds colours, n x 3 each, RGB, 0..255.
    """
    sk = Sketch(len(f.cx))
    t = around(32)
    sk.add(xy(f.halo_x + f.halo * np.cos(t), f.halo_y + f.halo * np.sin(t)), c.halo, f.has_halo)
    hair_back(f, c, sk)
    bust(f, c, sk)
    ears(f, c, sk, in_front=False)
    face(f, c, sk)
    nose(f, c, sk)
    beard(f, c, sk)
    mouth(f, c, sk)
    eyes(f, c, sk)
    hair_front(f, c, sk)
    ears(f, c, sk, in_front=True)
    glasses(f, c, sk)
    hat(f, c, sk)
    return sk.shapes, np.concatenate(sk.outlines, 1)
