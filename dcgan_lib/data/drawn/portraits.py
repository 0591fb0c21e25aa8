"""Draw heads and shoulders from a seed, with the truth about every one.

Axes: n faces. u_nk are uniform numbers in [0, 1): one row per face, one column per trait or parameter, so every trait
is independent of all else, and changing one leaves the rest of a face as it was.
"""

from types import SimpleNamespace

import cv2
import numpy as np
from tqdm import tqdm

from dcgan_lib.data.drawn.portrait_shapes import Shape, lerp, sketch
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError

HAIR_COLOURS = ("black", "brown", "auburn", "blond", "silver")


def _table(*rows):
    return np.array(rows, np.float64)


_SKIN = _table(  # skin_tone 0 to 1, light to deep
    (255, 226, 204),
    (246, 208, 176),
    (230, 182, 143),
    (205, 150, 110),
    (166, 114, 80),
    (126, 84, 60),
    (92, 60, 46),
)
_HAIR = _table((42, 38, 44), (100, 66, 46), (138, 64, 40), (212, 172, 108), (182, 184, 190))
_GLOSS = _table((42, 42, 52), (50, 38, 26), (50, 32, 20), (40, 38, 28), (36, 36, 38))
_IRIS = _table((70, 44, 30), (104, 70, 40), (74, 110, 140), (82, 112, 76), (96, 104, 116))
_FRAME = _table((34, 30, 34), (96, 52, 30), (150, 40, 46), (40, 58, 96), (60, 62, 66))
_FABRIC = _table(
    (178, 70, 62),
    (222, 150, 70),
    (236, 208, 140),
    (92, 130, 96),
    (58, 104, 120),
    (62, 80, 128),
    (120, 86, 132),
    (210, 130, 140),
    (236, 230, 218),
    (70, 72, 82),
    (140, 168, 180),
    (150, 110, 84),
)
_BACKDROP = _table(
    (232, 196, 160),
    (178, 206, 210),
    (150, 176, 150),
    (214, 170, 172),
    (122, 146, 176),
    (236, 222, 190),
    (164, 150, 184),
    (104, 132, 132),
    (200, 124, 98),
    (88, 98, 124),
    (186, 190, 168),
    (222, 204, 214),
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
    """Return the colours of n faces.

    Parameters
    ----------
    f : SimpleNamespace
        Form, n x 1 each, as `sketch` takes it; ``skin_tone`` and ``hair_colour`` are among the traits.

    Returns
    -------
    SimpleNamespace
        One n x 3 array per painted thing, and ``backdrop``, n x 4 x 4 x 3 uint8.
    """
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


def fill(
    f: SimpleNamespace, c: SimpleNamespace, shapes: list[Shape], outlines_nk2: np.ndarray
) -> list[np.ndarray]:
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
                poly(
                    soft if layer == "soft" else cast,
                    [fixed[i, start:stop]],
                    colour[i],
                    8,
                    _SHIFT + 1,
                )
        flat, parts = (
            cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for x in (flat, parts)
        )
        soft, cast = cv2.GaussianBlur(soft, (5, 5), 1.25), cv2.GaussianBlur(cast, (7, 7), 1.5)
        for plane, drawn in zip(planes, (flat, parts, soft, cast[..., None]), strict=True):
            plane[i] = drawn.transpose(2, 0, 1)
    return planes


def _dome(f: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the light that falls on an ellipsoid around the head, and where each pixel lies on it."""
    cx, cy, a, b, light_x, light_y = (
        np.float32(v)[:, :, None] for v in (f.cx, f.cy, f.a, f.b, -f.shadow_x, f.light_y)
    )
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
    level += (face * (0.60 + 0.48 * lit) * (1 - 0.55 * dark) + neck * (0.58 + 0.42 * lit)) * (
        1 - 0.5 * cast
    )
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

CHANCES = {"smile": 0.5, "glasses": 0.4, "beard": 0.4, "long_hair": 0.5, "hat": 0.3}
TRAITS = (*CHANCES, "yaw", "skin_tone", "hair_colour")
_TURN = 0.75  # radians at yaw 1
# What is drawn of a face besides its traits: each uniform in its range. Angles in radians, cx, cy, a, b (the head's
# centre and half axes), halo* in pixels, the rest as shares of the head. New ones go to the end: old seeds keep theirs.
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
_SKETCHED, _LIT = (
    128,
    4,
)  # faces at a time: many share the outlines' arithmetic, few keep the light in the cache


def draw_portraits(num_images: int, seed: int = 0, *, progress: bool = False) -> ImageSet:
    """Draw portraits with the truth about each.

    Parameters
    ----------
    num_images : int
        How many, at least 1. Image i depends on the seed and i only: a shorter set is a prefix of a longer one.
    seed : int, default 0
        Not negative.
    progress : bool, default False
        Show a progress bar on stderr.

    Returns
    -------
    ImageSet
        `images_u8` n x 3 x 64 x 64, no labels, and in `attributes`, each of length n and all independent:
        `smile`, `glasses`, `beard`, `long_hair`, `hat` (bool; shares in `CHANCES`);
        `yaw` (float32, uniform in [-1, 1): -1 turns the head 43 degrees to the viewer's left, 1 to the right);
        `skin_tone` (float32, uniform in [0, 1): light to deep);
        `hair_colour` (int64, uniform: which of `HAIR_COLOURS`). Some hair shows in every portrait, hat or not.

    Raises
    ------
    UserError
        When `num_images` is under 1 or `seed` is negative.

    Notes
    -----
    Our choice: photographs of faces come without a truth that can be set at will. Here "the man now smiles" can be
    counted. The outlines are computed in float64, so that the pictures do not depend on the processor.
    """
    if num_images < 1:
        raise UserError(f"num_images must be at least 1, but it is {num_images!r}")
    stream = np.random.Generator(_stream(seed))
    images_u8 = np.empty((num_images, 3, SIDE, SIDE), np.uint8)
    traits = []
    with tqdm(total=num_images, desc="portraits", unit="image", disable=not progress) as bar:
        for start in range(0, num_images, _SKETCHED):
            u_nk = stream.random((min(_SKETCHED, num_images - start), _COLUMNS))
            traits.append(_traits(u_nk))
            images_u8[start : start + len(u_nk)] = _draw(u_nk, traits[-1])
            bar.update(len(u_nk))
    attributes = {name: np.concatenate([chunk[name] for chunk in traits]) for name in TRAITS}
    return ImageSet(
        name="portraits", images_u8=images_u8, attributes=attributes, card=_card(num_images, seed)
    )


def draw_portrait(index: int = 0, seed: int = 0, **changes: bool | float | str) -> np.ndarray:
    """Draw image `index` of `draw_portraits(..., seed)` again, with some of its traits changed and all else kept.

    Parameters
    ----------
    index, seed : int
        Which image of which set.
    **changes
        Traits with their new values: `smile`, `glasses`, `beard`, `long_hair`, `hat` (bool), `yaw` (in [-1, 1]),
        `skin_tone` (in [0, 1]), `hair_colour` (a name or number of `HAIR_COLOURS`).

    Returns
    -------
    numpy.ndarray
        3 x 64 x 64, uint8, RGB.

    Raises
    ------
    UserError
        When a change names no trait or its value is out of range.
    """
    u_nk = _row(index, seed)
    traits = _traits(u_nk)
    for name, value in changes.items():
        traits[name] = np.array(
            [_checked(name, value)], traits[name].dtype if name in traits else None
        )
    return _draw(u_nk, traits)[0]


def portrait_traits(index: int = 0, seed: int = 0) -> dict[str, bool | float | int]:
    """Return the traits of image `index` of `draw_portraits(..., seed)`, by name."""
    return {name: values[0].item() for name, values in _traits(_row(index, seed)).items()}


def _stream(seed: int) -> np.random.PCG64:
    if seed < 0:
        raise UserError(f"seed must be at least 0, but it is {seed!r}")
    return np.random.PCG64(seed)


def _row(index: int, seed: int) -> np.ndarray:
    if index < 0:
        raise UserError(f"index must be at least 0, but it is {index!r}")
    return np.random.Generator(_stream(seed).advance(index * _COLUMNS)).random((1, _COLUMNS))


def _checked(name: str, value: bool | float | str) -> bool | float | int:
    """Return a trait's value as a number, or say what it may be."""
    if name not in TRAITS:
        raise UserError(f"a portrait's traits are {', '.join(TRAITS)}; got {name!r}")
    if name == "hair_colour":
        if value in HAIR_COLOURS:
            return HAIR_COLOURS.index(value)
        valid, allowed = (
            value in range(len(HAIR_COLOURS)),
            f"one of {', '.join(HAIR_COLOURS)} or its number",
        )
    elif name in CHANCES:
        valid, allowed = value in (False, True), "True or False"
    else:
        low = -1 if name == "yaw" else 0
        valid, allowed = (
            isinstance(value, int | float | np.floating) and low <= value <= 1,
            f"in [{low}, 1]",
        )
    if not valid:
        raise UserError(f"{name} must be {allowed}, but it is {value!r}")
    return value


def _traits(u_nk: np.ndarray) -> dict[str, np.ndarray]:
    traits = {
        name: u_nk[:, column] < chance for column, (name, chance) in enumerate(CHANCES.items())
    }
    yaw, tone, hair = u_nk[:, len(CHANCES) : len(TRAITS)].T
    traits |= {"yaw": (2 * yaw - 1).astype(np.float32), "skin_tone": tone.astype(np.float32)}
    return traits | {"hair_colour": (hair * len(HAIR_COLOURS)).astype(np.int64)}


def _form(u_nk: np.ndarray, traits: dict[str, np.ndarray]) -> SimpleNamespace:
    """Return every parameter of n faces, n x 1 each, as `sketch` takes them."""
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
        images_u8[rows] = light(_rows(f, rows), c.gloss[rows], [plane[rows] for plane in planes_u8])
    return images_u8


def _rows(f: SimpleNamespace, rows: slice) -> SimpleNamespace:
    return SimpleNamespace(**{name: values[rows] for name, values in vars(f).items()})


def _card(num_images: int, seed: int) -> dict:
    return {
        "name": "portraits",
        "source": f"drawn by dcgan_lib.data.drawn.portraits.draw_portraits({num_images}, seed={seed})",
        "licence": "the same as this library's code",
        "counts": {"images": num_images},
        "preparation": {"image_size": [SIDE, SIDE], "channels": 3, "seed": seed},
        "hair_colours": list(HAIR_COLOURS),
    }
