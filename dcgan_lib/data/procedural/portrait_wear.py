"""Outline what a head carries: hair, beard, glasses, hat. Coordinates are those of `portrait_head`."""

from types import SimpleNamespace

import numpy as np

from dcgan_lib.data.procedural.portrait_head import (
    CLOTH,
    HAIR,
    QUARTER,
    SIDES,
    Sketch,
    around,
    lerp,
    on_head,
    oval,
    ribbon,
    ring,
    span,
    step,
    strip,
    xy,
)


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
    front = f.fringe + 0.3 * f.part * np.sin(1.3 * lon) + f.tuft * np.sin(f.tuft_freq * lon + f.phase)
    # Under a hat a strip of hair still shows.
    front = np.where(f.hat, np.minimum(front, 0.50 + 0.06 * np.sin(f.tuft_freq * lon)), front)
    edge = lerp(front, np.where(f.long_hair, -0.35, -0.02), step(0.70, 1.18, off))
    return lerp(edge, np.where(f.long_hair, -1.0, -0.36), step(1.2, np.where(f.long_hair, 1.6, 1.75), off))


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
    sk.cast(cap + np.stack([1.5 * f.shadow_x, np.full_like(f.cx, 2.0)], -1), 150)


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
        at = f.eye_lon + 0.01, f.eye_lat
        outer = oval(f, side * at[0], at[1], 0.36 + rim, f.lens + rim, lift, f.squareness, 20)
        inner = oval(f, side * at[0], at[1], 0.36 - rim, f.lens - rim, lift, f.squareness, 20)
        rims = np.concatenate([outer, outer[:, :1], inner[:, :1], inner[:, ::-1]], 1)
        sk.add(rims, c.frame, f.glasses)
        s = span(0, 1, 5)
        arm = ribbon(f, side * lerp(f.eye_lon + 0.36, 1.5, s), f.eye_lat + 0.06 - 0.02 * s, 0.8 * rim, lift)
        sk.add(arm, c.frame, f.glasses & (side * f.turn < 0.05))
    s = span(-1, 1, 5)
    sk.add(ribbon(f, s * (f.eye_lon - 0.30), f.eye_lat + 0.10 - 0.03 * s * s, rim, 1.12), c.frame, f.glasses)


def hat(f: SimpleNamespace, c: SimpleNamespace, sk: Sketch) -> None:
    """Add a crown with a band, and on some a visor or a brim all round."""
    t, angle, s, turn = span(-1, 1, 16), span(0, np.pi, 18), span(-1, 1, 14), np.sin(f.turn)
    mid, width = ring(f, 1.0)[0] - 0.05 * f.a * turn, f.a * (1.14 + 0.4 * f.volume)
    line = f.cy - 0.58 * f.b
    low = xy(mid + 0.97 * width * t, line + f.b * (0.14 - 0.16 * t * t))
    cos = np.cos(angle)
    bulge = width * f.crown_wide * np.sign(cos) * np.abs(cos) ** f.crown_power
    crown = xy(mid + bulge, line - f.b * f.crown * np.sin(angle).clip(0) ** 0.8)
    sk.cast(low + np.stack([1.5 * f.shadow_x, np.full_like(f.cx, 2.5)], -1), 170, f.hat)
    sk.add(np.concatenate([low, crown], 1), c.hat, f.hat, CLOTH)
    sk.add(strip(low, low - np.stack([0 * f.b, 0.2 * f.b], -1)), c.hat_band, f.hat, CLOTH)
    back = on_head(f, 0.95 * s, 0.62 - 0.02 * s, 1.06)
    front = on_head(f, 0.85 * s, 0.35 + 0.20 * s**4, 1.45 - 0.3 * s * s)
    sk.add(strip(back, front), c.hat_band, f.hat & f.visor, CLOTH)
    sin = np.sin(around(26))
    brim_x = mid + 0.12 * f.a * turn + width * f.brim_wide * np.cos(around(26))
    brim = xy(brim_x, line + f.b * (0.10 + 0.13 * sin * np.where(sin > 0, 1.0, 0.6)))
    sk.add(brim, c.hat, f.hat & f.brim, CLOTH)
