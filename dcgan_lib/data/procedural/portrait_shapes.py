"""Outline head, shoulders and features. Coordinates are those of `portrait_head`."""

from types import SimpleNamespace

import numpy as np

from dcgan_lib.data.procedural import portrait_wear as wear
from dcgan_lib.data.procedural.portrait_head import (
    CLOTH,
    FACE,
    NECK,
    QUARTER,
    SIDES,
    Shape,
    Sketch,
    around,
    lerp,
    on_head,
    oval,
    ribbon,
    ring,
    span,
    strip,
    xy,
)


def _bust(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
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
    torso = np.concatenate([scoop, xy(foot_x + out, slope), floor, xy(foot_x - out, slope)[:, ::-1]], 1)
    sk.add(torso, c.cloth, part=CLOTH)
    sk.add(strip(scoop, scoop + np.array([0, 1.3])), c.trim, part=CLOTH)
    for side in SIDES:
        corners = ((0.95, -0.14), (1.5, 0.02), (0.9, 0.30), (0.05, 0.12))
        lapel = np.concatenate([xy(foot_x + side * w * across, foot_y + f.b * down) for across, down in corners], 1)
        sk.add(lapel, c.trim, f.collar, CLOTH)


def _ears(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch, *, in_front: bool) -> None:
    t = around(14)
    for side in SIDES:
        root = side * 1.52
        faces_viewer = np.abs(root + f.turn) < QUARTER
        shown = (faces_viewer & ~f.long_hair) if in_front else ~faces_viewer
        for size, colour in ((1.0, c.skin), (0.55, c.skin_dark)):
            depth = 0.5 + 0.5 * size * np.cos(t)
            lat = f.ear_lat + 0.21 * size * np.sin(t) * (1.05 - 0.15 * np.sin(t))
            sk.add(on_head(f, root + side * 0.33 * depth, lat, 1 + 0.24 * depth), colour, shown, FACE)


def _face(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    lat = span(QUARTER, -QUARTER, 20)
    middle, half, y = ring(f, lat)
    outline = strip(xy(middle + half, y), xy(middle - half, y))
    sk.add(outline, c.skin, part=FACE)
    sk.cast(outline + np.stack([2.0 * f.shadow_x, np.full_like(f.cx, 5.0)], -1), 190)
    sk.cast(outline, 0)


def _nose(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
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
    sk.add(strip(upper, on_head(f, 0.9 * f.nose_wide * s, base - 0.045 + 0.0225 * s * s, lift)), c.skin_deep)


def _mouth(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    s, lift = span(-1, 1, 11), 1.13
    arch = 1 - s * s
    x, line = f.mouth_wide * s, f.mouth_lat - f.frown * s * s
    upper = line + 0.055 * f.lips * arch * (1 - 0.35 * np.clip(1 - np.abs(s) / 0.3, 0, 1))
    lower = line - 0.085 * f.lips * arch
    sk.add(strip(on_head(f, x, upper, lift), on_head(f, x, lower, lift)), c.lip, ~f.smile)
    sk.add(ribbon(f, 1.02 * x, line, 0.018, lift), c.lip_dark, ~f.smile)
    # A smile: wider, raised corners, parted lips, teeth.
    x, curve = 1.4 * f.mouth_wide * s, f.mouth_lat - 0.03 + f.smile_curve * (s * s - 0.35)
    top, bottom = curve + 0.05 * arch, curve - f.smile_open * arch
    lips = strip(on_head(f, 1.06 * x, top + 0.05, lift), on_head(f, 1.06 * x, bottom - 0.06 * f.lips, lift))
    sk.add(lips, c.lip, f.smile)
    sk.add(strip(on_head(f, x, top, lift), on_head(f, x, bottom, lift)), c.lip_dark, f.smile)
    teeth = strip(on_head(f, 0.93 * x, top, lift), on_head(f, 0.9 * x, lerp(top, bottom, f.teeth), lift))
    sk.add(teeth, (246, 242, 234), f.smile)
    sk.shade(oval(f, 0.0, f.mouth_lat - 0.22, 0.2, 0.06), dark=90)
    for side in SIDES:
        sk.shade(oval(f, side * 0.62, -0.30, 0.22, 0.15), blush=190)


def _eyes(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    t = span(-1, 1, 9)
    lids = f.eye_open * (1 - np.abs(t) ** 2.2)
    for side in SIDES:
        lon, tilt = side * f.eye_lon, 0.03 * t * side
        x, upper = lon + f.eye_wide * t, f.eye_lat + lids + tilt
        sk.add(strip(on_head(f, x, upper), on_head(f, x, f.eye_lat - 0.62 * lids + tilt)), c.sclera)
        at_x, at_y = lon + f.gaze_x, f.eye_lat + 0.22 * f.eye_open + f.gaze_y
        sk.add(oval(f, at_x, at_y, 0.135, 0.092), c.iris)
        sk.add(oval(f, at_x, at_y, 0.065, 0.046, num=8), c.pupil)
        sk.add(oval(f, at_x - 0.05 * np.sign(f.shadow_x), at_y + 0.04, 0.035, 0.026, num=6), (255, 255, 255))
        sk.add(ribbon(f, x, upper + 0.015, 0.030 * (1.1 - 0.5 * t * t)), c.lash)
        brow = f.brow_lat + f.brow_arch * (1 - t * t) + f.brow_tilt * t * side
        tail = 1.05 - 0.6 * np.clip(t * side, 0, 1) ** 1.5
        sk.add(ribbon(f, 1.02 * lon + 0.24 * t, brow, f.brow_thick * tail), c.brow)
        sk.shade(oval(f, lon - side * 0.04, f.eye_lat + 0.06, 0.33, 0.17), dark=110)


def sketch(f: SimpleNamespace, c: SimpleNamespace) -> tuple[list[Shape], np.ndarray]:
    """Outline n faces.

    Parameters
    ----------
    f : SimpleNamespace
        Form: one n x 1 array per parameter of `portraits._RANGES`, the traits, and ``turn`` in radians.
    c : SimpleNamespace
        Colours, n x 3 each, RGB, 0..255.

    Returns
    -------
    shapes : list of Shape
        In painting order.
    outlines_nk2 : numpy.ndarray
        The points of all shapes, joined; float64, in pixels, before the head's tilt.
    """
    sk = Sketch(len(f.cx))
    t = around(32)
    sk.add(xy(f.halo_x + f.halo * np.cos(t), f.halo_y + f.halo * np.sin(t)), c.halo, f.has_halo)
    wear.hair_back(f, c, sk)
    _bust(f, c, sk)
    _ears(f, c, sk, in_front=False)
    _face(f, c, sk)
    _nose(f, c, sk)
    wear.beard(f, c, sk)
    _mouth(f, c, sk)
    _eyes(f, c, sk)
    wear.hair_front(f, c, sk)
    _ears(f, c, sk, in_front=True)
    wear.glasses(f, c, sk)
    wear.hat(f, c, sk)
    return sk.shapes, np.concatenate(sk.outlines, 1)
