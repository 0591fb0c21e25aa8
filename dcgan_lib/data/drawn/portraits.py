"""Heads and shoulders, drawn from a seed, with the truth about every one.

The outlines are in `portrait_shapes`. Axes: n faces, k columns of random numbers ``u_nk``, uniform
in [0, 1), one for each trait or parameter: changing one leaves the rest of a face as it was.
"""

from functools import cache
from types import SimpleNamespace

import cv2
import numpy as np

from dcgan_lib.data.drawn import blank, finished
from dcgan_lib.data.drawn.painting import palette
from dcgan_lib.data.drawn.portrait_shapes import Shape, lerp, sketch, xy
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError, require

SIDE = 64
CHANCES = {"smile": 0.5, "glasses": 0.4, "beard": 0.4, "long_hair": 0.5, "hat": 0.3}
TRAITS = (*CHANCES, "yaw", "skin_tone", "hair_colour")
HAIR_COLOURS = ("black", "brown", "auburn", "blond", "silver")
_TURN = 0.75  # radians at yaw 1
# What is drawn of a face besides its traits: each uniform in its range. Angles in radians, cx, cy,
# a, b (the head's centre and half axes), halo* in pixels, the rest as shares of the head. New ones
# go to the end: old seeds keep theirs.
_RANGES = {
    "cx": (30.6, 33.4),
    "cy": (31.6, 34.0),
    "a": (16.4, 18.8),
    "b": (20.6, 22.8),
    "jaw": (0.05, 0.28),
    "roll": (-0.09, 0.09),
    "neck": (0.42, 0.58),
    "shoulder": (1.6, 2.1),
    "neckline": (0.06, 0.34),
    "vee": (0.7, 1.6),
    "eye_lon": (0.40, 0.47),
    "eye_lat": (-0.06, 0.02),
    "eye_open": (0.085, 0.125),
    "eye_wide": (0.20, 0.25),
    "gaze_x": (-0.06, 0.06),
    "gaze_y": (-0.02, 0.015),
    "ear_lat": (-0.16, -0.06),
    "brow_lat": (0.22, 0.29),
    "brow_arch": (0.0, 0.07),
    "brow_tilt": (-0.05, 0.04),
    "brow_thick": (0.022, 0.048),
    "nose_lat": (-0.38, -0.30),
    "nose_wide": (0.13, 0.20),
    "nose_lift": (1.14, 1.28),
    "mouth_lat": (-0.68, -0.60),
    "mouth_wide": (0.26, 0.33),
    "frown": (-0.035, 0.03),
    "lips": (0.7, 1.3),
    "smile_curve": (0.13, 0.20),
    "smile_open": (0.10, 0.17),
    "teeth": (0.35, 0.7),
    "fringe": (0.46, 0.88),
    "part": (-1, 1),
    "tuft": (0.0, 0.07),
    "tuft_freq": (4, 9),
    "phase": (0, 6.28),
    "volume": (0.05, 0.22),
    "curl": (-0.06, 0.09),
    "curl_freq": (3, 8),
    "length": (1.15, 1.75),
    "flare": (0.0, 0.25),
    "wave": (0.0, 0.10),
    "beard_size": (0.03, 0.20),
    "rim": (0.018, 0.038),
    "lens": (0.19, 0.25),
    "squareness": (0.55, 1.0),
    "crown": (0.46, 0.64),
    "crown_power": (0.45, 0.9),
    "crown_wide": (0.86, 1.04),
    "brim_wide": (1.15, 1.38),
    "brim": (0, 1),
    "light_x": (-0.65, 0.65),
    "light_y": (-0.6, -0.25),
    "halo_x": (24, 40),
    "halo_y": (22, 34),
    "halo": (19, 30),
    "has_halo": (0, 1),
    "collar": (0, 1),
    "cloth": (0, 1),
    "trim": (0, 1),
    "frame": (0, 1),
    "iris": (0, 1),
    "hat_colour": (0, 1),
    "back_first": (0, 1),
    "back_second": (0, 1),
    "back_light": (0.82, 1.10),
    "back_slant": (0, 6.28),
    "lip_red": (0, 1),
    "undertone": (-1, 1),
    "hair_light": (-1, 1),
    "strand_x": (0, 2 * SIDE),
    "strand_y": (0, 2 * SIDE),
}
_COLUMNS = len(TRAITS) + len(_RANGES)
# Faces at a time: many share the outlines' arithmetic, few keep the light in the cache.
_SKETCHED, _LIT = 128, 4


def draw_portraits(num_images: int, seed: int = 0, *, progress: bool = False) -> ImageSet:
    """Draw n x 3 x 64 x 64 portraits with the truth about each.

    Our choice: photographs of faces come without a truth that can be set at will; here "the man now
    smiles" can be counted. Image i depends on the seed and i only: a shorter set is a prefix of a
    longer one. Attributes, each of length n and all independent: `smile`, `glasses`, `beard`,
    `long_hair`, `hat` (bool; shares in `CHANCES`); `yaw` (float32, uniform in [-1, 1): -1 turns the
    head 43 degrees to the viewer's left, 1 to the right); `skin_tone` (float32, uniform in [0, 1):
    light to deep); `hair_colour` (int64, uniform: which of `HAIR_COLOURS`). Some hair shows in
    every portrait, hat or not. The outlines are computed in float64, so that the pictures do not
    depend on the processor.
    """
    images_u8, starts = blank(
        "portraits", num_images, seed, SIDE, progress=progress, step=_SKETCHED
    )
    stream, parts = np.random.Generator(np.random.PCG64(seed)), []
    for start in starts:
        u_nk = stream.random((min(_SKETCHED, num_images - start), _COLUMNS))
        parts.append(_traits(u_nk))
        images_u8[start : start + len(u_nk)] = _draw(u_nk, parts[-1])
    traits = {name: np.concatenate([part[name] for part in parts]) for name in TRAITS}
    notes = {"hair_colours": list(HAIR_COLOURS)}
    return finished("portraits", images_u8, seed, notes=notes, attributes=traits)


def draw_portrait(index: int = 0, seed: int = 0, **changes: bool | float | str) -> np.ndarray:
    """Draw image `index` of `draw_portraits(..., seed)` again, with some of its traits changed.

    They are `smile`, `glasses`, `beard`, `long_hair`, `hat` (bool), `yaw` (in [-1, 1]), `skin_tone`
    (in [0, 1]) and `hair_colour` (a name or number of `HAIR_COLOURS`). Return 3 x 64 x 64, uint8.
    """
    u_nk = _row(index, seed)
    traits = _traits(u_nk)
    for name, value in changes.items():
        number = _checked(name, value)
        traits[name] = np.array([number], traits[name].dtype)
    return _draw(u_nk, traits)[0]


def portrait_traits(index: int = 0, seed: int = 0) -> dict[str, bool | float | int]:
    """Return the traits of image `index` of `draw_portraits(..., seed)`, by name."""
    return {name: values[0].item() for name, values in _traits(_row(index, seed)).items()}


def _row(index: int, seed: int) -> np.ndarray:
    require(index >= 0, "index", index, "at least 0")
    require(seed >= 0, "seed", seed, "at least 0")
    stream = np.random.PCG64(seed).advance(index * _COLUMNS)
    return np.random.Generator(stream).random((1, _COLUMNS))


def _checked(name: str, value: bool | float | str) -> bool | float | int:
    if name not in TRAITS:
        raise UserError(f"a portrait's traits are {', '.join(TRAITS)}; got {name!r}")
    if name == "hair_colour":
        value = HAIR_COLOURS.index(value) if value in HAIR_COLOURS else value
        valid = value in range(len(HAIR_COLOURS))
        allowed = f"one of {', '.join(HAIR_COLOURS)} or its number"
    elif name in CHANCES:
        valid, allowed = value in (False, True), "True or False"
    else:
        low = -1 if name == "yaw" else 0
        valid = isinstance(value, int | float | np.floating) and low <= value <= 1
        allowed = f"in [{low}, 1]"
    require(valid, name, value, allowed)
    return value


def _traits(u_nk: np.ndarray) -> dict[str, np.ndarray]:
    traits = {
        name: u_nk[:, column] < chance for column, (name, chance) in enumerate(CHANCES.items())
    }
    yaw, tone, hair = u_nk[:, len(CHANCES) : len(TRAITS)].T
    traits |= {"yaw": (2 * yaw - 1).astype(np.float32), "skin_tone": tone.astype(np.float32)}
    return traits | {"hair_colour": (hair * len(HAIR_COLOURS)).astype(np.int64)}


def _form(u_nk: np.ndarray, traits: dict[str, np.ndarray]) -> SimpleNamespace:
    """Return every number of n faces, n x 1 each, as `sketch` takes them."""
    columns = zip(_RANGES.items(), u_nk[:, len(TRAITS) :].T, strict=True)
    f = SimpleNamespace(**{name: lerp(*ends, u_n[:, None]) for (name, ends), u_n in columns})
    f.__dict__.update({name: values[:, None] for name, values in traits.items()})
    f.turn = _TURN * np.float64(f.yaw)
    f.lead = 0.13 * f.a * np.sin(f.turn)
    f.collar, f.has_halo = f.collar < 0.35, f.has_halo < 0.4
    f.brim, f.visor = f.brim < 0.4, (f.brim > 0.4) & (f.brim < 0.7)
    f.curl = np.maximum(f.curl, 0)  # some hair is straight
    f.shadow_x = -f.light_x
    return f


def _draw(u_nk: np.ndarray, traits: dict[str, np.ndarray]) -> np.ndarray:
    f = _form(u_nk, traits)
    c = choose_colours(f)
    planes_u8 = fill(f, c, *sketch(f, c))
    images_u8 = np.empty((len(u_nk), 3, SIDE, SIDE), np.uint8)
    for start in range(0, len(u_nk), _LIT):
        rows = slice(start, start + _LIT)
        few = SimpleNamespace(**{name: values[rows] for name, values in vars(f).items()})
        images_u8[rows] = light(few, c.gloss[rows], [plane[rows] for plane in planes_u8])
    return images_u8


# --- Colours ---


def _table(codes: str) -> np.ndarray:
    return np.array(palette(codes))


_SKIN = _table("ffe2cc f6d0b0 e6b68f cd966e a67250 7e543c 5c3c2e")  # light to deep
_HAIR = _table("2a262c 64422e 8a4028 d4ac6c b6b8be")
_GLOSS = _table("2a2a34 32261a 322014 28261c 242426")
_IRIS = _table("462c1e 684628 4a6e8c 52704c 606874")
_FRAME = _table("221e22 60341e 96282e 283a60 3c3e42")
_FABRIC = _table(
    "b2463e de9646 ecd08c 5c8260 3a6878 3e5080 785684 d2828c ece6da 464852 8ca8b4 966e54"
)
_BACKDROP = _table(
    "e8c4a0 b2ced2 96b096 d6aaac 7a92b0 ecdebe a496b8 688484 c87c62 58627c babea8 deccd6"
)


def _pick(table: np.ndarray, u_n1: np.ndarray) -> np.ndarray:
    return table[(np.ravel(u_n1) * len(table)).astype(int)]


def _skin(tone_n: np.ndarray) -> np.ndarray:
    place = np.float64(tone_n) * (len(_SKIN) - 1)
    below = np.minimum(place.astype(int), len(_SKIN) - 2)
    return lerp(_SKIN[below], _SKIN[below + 1], (place - below)[:, None])


def _backdrop(first: np.ndarray, second: np.ndarray, slant_n1: np.ndarray) -> np.ndarray:
    """Return 4 x 4 pixels per face that are later stretched into a soft slope with a vignette."""
    y, x = np.mgrid[-0.7:0.7:4j, -0.7:0.7:4j]
    slope = 0.5 + 0.7 * (x * np.cos(slant_n1)[:, :, None] + y * np.sin(slant_n1)[:, :, None])
    mixed = lerp(first[:, None, None], second[:, None, None], np.clip(slope, 0, 1)[..., None])
    return np.clip(mixed * (1.06 - 0.16 * (x * x + y * y))[..., None], 0, 255).astype(np.uint8)


def choose_colours(f: SimpleNamespace) -> SimpleNamespace:
    """Return n faces' colours: n x 3 per painted thing, and ``backdrop``, n x 4 x 4 x 3 uint8."""
    tint = _skin(f.skin_tone[:, 0])
    skin = tint + f.undertone * np.array([2.0, 0.0, -4.0])
    kind = f.hair_colour[:, 0]
    hair = _HAIR[kind] * (1 + 0.10 * f.hair_light)
    cloth, hat, other = (
        _pick(_FABRIC, f.cloth),
        _pick(_FABRIC, f.hat_colour),
        _pick(_FABRIC, f.trim),
    )
    lip = lerp(
        skin * [0.86, 0.62, 0.60],
        np.array([196, 84, 86]) * (0.5 + skin / 510),
        0.15 + 0.45 * f.lip_red,
    )
    first, second = (_pick(_BACKDROP, u) * f.back_light for u in (f.back_first, f.back_second))
    middle = lerp(first, second, 0.5)
    return SimpleNamespace(
        skin=skin,
        skin_dark=skin * [0.80, 0.70, 0.66],
        skin_deep=skin * [0.66, 0.52, 0.48],
        hair=hair,
        hair_dark=hair * 0.74,
        beard=hair * 0.86,
        gloss=_GLOSS[kind],
        brow=lerp(hair * 0.72, skin * 0.45, 0.25),
        lash=skin * 0.16 + [10, 6, 8],
        iris=_pick(_IRIS, f.iris),
        pupil=np.array([22.0, 18.0, 22.0]),
        sclera=lerp(np.array([246, 244, 240]), skin, 0.08),
        lip=lip,
        lip_dark=lip * [0.50, 0.36, 0.38],
        cloth=cloth,
        trim=lerp(cloth * 0.72, other, np.where(f.collar, 0.9, 0.15)),
        hat=hat,
        hat_band=lerp(hat * 0.7, other, 0.3),
        frame=_pick(_FRAME, f.frame),
        halo=lerp(middle, np.array([255, 250, 240]), 0.35),
        backdrop=_backdrop(first, lerp(first, second, 0.75) * 0.86, f.back_slant),
    )


# --- Filling ---

SCALE = 2
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_PARTS = ((255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255))


def _fixed(f: SimpleNamespace, outlines_nk2: np.ndarray) -> np.ndarray:
    """Tilt outlines about the foot of the neck; return them in fixed-point coordinates."""
    unit = SCALE << _SHIFT
    cos, sin = np.cos(f.roll) * unit, np.sin(f.roll) * unit
    pivot_x, pivot_y = f.cx, f.cy + 1.3 * f.b
    x, y = outlines_nk2[..., 0] - pivot_x, outlines_nk2[..., 1] - pivot_y
    # A pixel's centre lies at +0.5 in our coordinates and at 0 in OpenCV's.
    to_centre = (1 << _SHIFT) / 2
    turned = xy(
        x * cos - y * sin + (pivot_x * unit - to_centre),
        x * sin + y * cos + (pivot_y * unit - to_centre),
    )
    return np.rint(turned).astype(np.int32)


def fill(
    f: SimpleNamespace, c: SimpleNamespace, shapes: list[Shape], outlines_nk2: np.ndarray
) -> list[np.ndarray]:
    """Fill the outlines of n faces: flat colours, part masks, soft detail and cast shadow.

    These planes are n x c x 64 x 64, uint8, with 3, 4, 3 and 1 channels.
    """
    num = len(outlines_nk2)
    planes = [np.empty((num, channels, SIDE, SIDE), np.uint8) for channels in (3, 4, 3, 1)]
    fixed = _fixed(f, outlines_nk2)
    side = SIDE * SCALE
    for i in range(num):
        flat = cv2.resize(c.backdrop[i], (side // 4, side // 4), interpolation=cv2.INTER_CUBIC)
        flat = cv2.resize(flat, (side, side), interpolation=cv2.INTER_LINEAR)
        parts = np.zeros((side, side, 4), np.uint8)
        soft, cast = (np.zeros((SIDE, SIDE, channels), np.uint8) for channels in (3, 1))
        for layer, start, stop, colour, visible, part in shapes:
            if not visible[i]:
                continue
            outline = [fixed[i, start:stop]]
            if layer == "flat":
                cv2.fillPoly(flat, outline, colour[i], cv2.LINE_AA, _SHIFT)
                if part is not None:
                    cv2.fillPoly(parts, outline, _PARTS[part], cv2.LINE_8, _SHIFT)
            else:
                # One more fractional bit halves the coordinates: one pixel here is one of the
                # picture.
                canvas = soft if layer == "soft" else cast
                cv2.fillPoly(canvas, outline, colour[i], cv2.LINE_8, _SHIFT + 1)
        flat, parts = (
            cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for x in (flat, parts)
        )
        soft, cast = cv2.GaussianBlur(soft, (5, 5), 1.25), cv2.GaussianBlur(cast, (7, 7), 1.5)
        for plane, drawn in zip(planes, (flat, parts, soft, cast[..., None]), strict=True):
            plane[i] = drawn.transpose(2, 0, 1)
    return planes


# --- Light ---

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)
_WARM, _COOL = (1.0, 0.985, 0.96), (0.90, 0.94, 1.06)  # tint of the lit and of the shaded side, RGB


def light(f: SimpleNamespace, gloss_n3: np.ndarray, planes_u8: list[np.ndarray]) -> np.ndarray:
    """Light n faces (n x 3 x 64 x 64, uint8): key light, cast shadows, sheen on the hair, a blush.

    ``gloss_n3`` is what the sheen adds to each colour channel, 0..255.
    """
    planes = [plane.astype(np.float32) for plane in planes_u8]
    rgb = planes[0].transpose(1, 0, 2, 3)
    (face, neck, hair, cloth), (dark, light, blush), (cast,) = (
        p.transpose(1, 0, 2, 3) * np.float32(1 / 255) for p in planes[1:]
    )
    lit, x, y = _dome(f)
    level = 1 - np.minimum(face + neck + hair + cloth, 1)  # the background
    level += (face * (0.60 + 0.48 * lit) * (1 - 0.55 * dark) + neck * (0.58 + 0.42 * lit)) * (
        1 - 0.5 * cast
    )
    strand_n2 = np.concatenate([f.strand_x, f.strand_y], 1).astype(int)
    strand = np.stack([_streaks()[top : top + SIDE, left : left + SIDE] for left, top in strand_n2])
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


def _dome(f: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the light on an ellipsoid around the head, and where each pixel lies on it."""
    cx, cy, a, b, light_x, light_y = (
        np.float32(v)[:, :, None] for v in (f.cx, f.cy, f.a, f.b, -f.shadow_x, f.light_y)
    )
    grow, light_z = np.float32(1.32), np.sqrt(1 - light_x**2 - light_y**2)
    x, y = (_X - cx) / (a * grow), (_Y - cy) / (b * grow)
    r2 = x * x + y * y
    z = np.sqrt(np.maximum(1 - r2, 0))
    lit = (x * light_x + y * light_y) / np.sqrt(np.maximum(r2, 1)) + z * light_z
    return np.maximum(lit, 0), x, y


@cache
def _streaks() -> np.ndarray:
    """Return a sheet of fine vertical streaks, mean 0, standard deviation 1: strands of hair."""
    noise = np.random.default_rng(7).random((3 * SIDE, 3 * SIDE), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.8, sigmaY=6)
    # Rounded, so that a processor's last bit in the blur cannot show.
    return np.rint(np.clip((noise - noise.mean()) / noise.std(), -2, 2) * 32) / np.float32(32)
