"""Paint sketched faces: flat colours with OpenCV, then soft light on a whole batch.

Axes: n faces, c channels, h x w pixels. A plane is n x h x w, float32, 0..1 unless it says otherwise.
"""

from types import SimpleNamespace

import cv2
import numpy as np

from dcgan_lib.data.procedural.portrait_head import Shape

SIDE = 64
SCALE = 2
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_PARTS = ((255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255))
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)
_WARM, _COOL = (1.0, 0.985, 0.96), (0.90, 0.94, 1.06)  # tint of the lit and of the shaded side, RGB


def _fixed(f: SimpleNamespace, outlines_nk2: np.ndarray) -> np.ndarray:
    """Tilt outlines about the foot of the neck and return them in the fine canvas's fixed-point coordinates."""
    unit = SCALE << _SHIFT
    cos, sin = np.cos(f.roll) * unit, np.sin(f.roll) * unit
    pivot_x, pivot_y = f.cx, f.cy + 1.3 * f.b
    x, y = outlines_nk2[..., 0] - pivot_x, outlines_nk2[..., 1] - pivot_y
    # A pixel's centre lies at +0.5 in our coordinates and at 0 in OpenCV's.
    to_centre = (1 << _SHIFT) / 2
    fixed = np.empty(outlines_nk2.shape, np.int32)
    fixed[..., 0] = np.rint(x * cos - y * sin + (pivot_x * unit - to_centre))
    fixed[..., 1] = np.rint(x * sin + y * cos + (pivot_y * unit - to_centre))
    return fixed


def fill(f: SimpleNamespace, c: SimpleNamespace, shapes: list[Shape], outlines_nk2: np.ndarray) -> list[np.ndarray]:
    """Fill the outlines of n sketched faces.

    Parameters
    ----------
    f, c : SimpleNamespace
        Form and colours, as `sketch` takes them.
    shapes, outlines_nk2
        What `sketch` returned.

    Returns
    -------
    list of numpy.ndarray
        Four arrays, n x c x 64 x 64, uint8: flat colours (3), part masks (4), soft detail (3), cast shadow (1).
    """
    num = len(outlines_nk2)
    planes = [np.empty((num, channels, SIDE, SIDE), np.uint8) for channels in (3, 4, 3, 1)]
    fixed = _fixed(f, outlines_nk2)
    side, poly, smooth = SIDE * SCALE, cv2.fillPoly, cv2.LINE_AA
    for i in range(num):
        flat = cv2.resize(c.backdrop[i], (side // 4, side // 4), interpolation=cv2.INTER_CUBIC)
        flat = cv2.resize(flat, (side, side), interpolation=cv2.INTER_LINEAR)
        parts = np.zeros((side, side, 4), np.uint8)
        soft, cast = (np.zeros((SIDE, SIDE, channels), np.uint8) for channels in (3, 1))
        for layer, start, stop, colour, visible, part in shapes:
            if not visible[i]:
                continue
            if layer == "flat":
                poly(flat, [fixed[i, start:stop]], colour[i], smooth, _SHIFT)
                if part is not None:
                    poly(parts, [fixed[i, start:stop]], _PARTS[part], 8, _SHIFT)
            else:
                # One more fractional bit halves the coordinates: these canvases have one pixel per pixel.
                poly(soft if layer == "soft" else cast, [fixed[i, start:stop]], colour[i], 8, _SHIFT + 1)
        flat, parts = (cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for x in (flat, parts))
        soft, cast = cv2.GaussianBlur(soft, (5, 5), 1.25), cv2.GaussianBlur(cast, (7, 7), 1.5)
        for plane, drawn in zip(planes, (flat, parts, soft, cast[..., None]), strict=True):
            plane[i] = drawn.transpose(2, 0, 1)
    return planes


def _dome(f: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the light that falls on an ellipsoid around the head, and where each pixel lies on it."""
    cx, cy, a, b, light_x, light_y = (np.float32(v)[:, :, None] for v in (f.cx, f.cy, f.a, f.b, -f.shadow_x, f.light_y))
    grow, light_z = np.float32(1.32), np.sqrt(1 - light_x**2 - light_y**2)
    x, y = (_X - cx) / (a * grow), (_Y - cy) / (b * grow)
    r2 = x * x + y * y
    z = np.sqrt(np.maximum(1 - r2, 0))
    lit = (x * light_x + y * light_y) / np.sqrt(np.maximum(r2, 1)) + z * light_z
    return np.maximum(lit, 0), x, y


def _streaks() -> np.ndarray:
    """Return a sheet of fine vertical streaks, mean 0, standard deviation 1: strands of hair."""
    noise = np.random.default_rng(7).random((3 * SIDE, 3 * SIDE), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.8, sigmaY=6)
    # Rounded, so that a processor's last bit in the blur cannot show.
    return np.rint(np.clip((noise - noise.mean()) / noise.std(), -2, 2) * 32) / np.float32(32)


def light(f: SimpleNamespace, gloss_n3: np.ndarray, planes_u8: list[np.ndarray]) -> np.ndarray:
    """Light n filled faces: a key light from one side, cast shadows, sheen on the hair, a blush.

    Parameters
    ----------
    f : SimpleNamespace
        Form, as `sketch` takes it.
    gloss_n3 : numpy.ndarray
        What the sheen adds to each colour channel, 0..255.
    planes_u8 : list of numpy.ndarray
        What `fill` returned.

    Returns
    -------
    numpy.ndarray
        n x 3 x 64 x 64, uint8, RGB.
    """
    planes = [plane.astype(np.float32) for plane in planes_u8]
    rgb = planes[0].transpose(1, 0, 2, 3)
    (face, neck, hair, cloth), (dark, light, blush), (cast,) = (
        p.transpose(1, 0, 2, 3) * np.float32(1 / 255) for p in planes[1:]
    )
    lit, x, y = _dome(f)
    level = 1 - np.minimum(face + neck + hair + cloth, 1)  # the background
    level += (face * (0.60 + 0.48 * lit) * (1 - 0.55 * dark) + neck * (0.58 + 0.42 * lit)) * (1 - 0.5 * cast)
    strand_n2 = np.concatenate([f.strand_x, f.strand_y], 1).astype(int)
    strand = np.stack([_STREAKS[top : top + SIDE, left : left + SIDE] for left, top in strand_n2])
    level += hair * (0.64 + 0.48 * lit + 0.10 * strand) + cloth * (0.62 + 0.42 * lit)
    side = np.float32(-f.shadow_x)[:, :, None]
    band = np.maximum(1 - np.abs(y + 0.46 + 0.10 * x * x - 0.15 * side) / 0.16, 0)
    sheen = hair * band * np.maximum(1 - np.abs(x - 0.5 * side), 0) * (1 + 0.5 * strand)
    shine, flush = face * light, face * blush * np.float32(0.30)
    shade = np.minimum(level, 1)
    out = np.empty(rgb.shape, np.float32)
    for k in range(3):
        out[k] = rgb[k] * level * (_COOL[k] + (_WARM[k] - _COOL[k]) * shade)
        out[k] += shine * (40, 36, 31)[k] + sheen * np.float32(gloss_n3[:, k, None, None])
        out[k] += flush * ((76, 34, 30)[k] + (0.64, 0.28, 0.25)[k] * rgb[k] - out[k])
    return np.clip(out + np.float32(0.5), 0, 255).astype(np.uint8).transpose(1, 0, 2, 3)


_STREAKS = _streaks()
