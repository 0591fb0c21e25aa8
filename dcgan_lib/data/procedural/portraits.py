"""Draw heads and shoulders from a seed, with the truth about every one.

Axes: n faces. u_nk are uniform numbers in [0, 1): one row per face, one column per trait or parameter, so every trait
is independent of all else, and changing one leaves the rest of a face as it was.
"""

from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.procedural.portrait_head import lerp
from dcgan_lib.data.procedural.portrait_light import SIDE, fill, light
from dcgan_lib.data.procedural.portrait_palette import HAIR_COLOURS, choose_colours
from dcgan_lib.data.procedural.portrait_shapes import sketch
from dcgan_lib.errors import UserError

CHANCES = {"smile": 0.5, "glasses": 0.4, "beard": 0.4, "long_hair": 0.5, "hat": 0.3}
TRAITS = (*CHANCES, "yaw", "skin_tone", "hair_colour")
_TURN = 0.75  # radians at yaw 1
# What is drawn of a face besides its traits: each uniform in its range. Angles in radians, cx, cy, a, b (the head's
# centre and half axes), halo* in pixels, the rest as shares of the head. New ones go to the end: old seeds keep theirs.
_RANGES = {
    "cx": (30.6, 33.4), "cy": (31.6, 34.0), "a": (16.4, 18.8), "b": (20.6, 22.8), "jaw": (0.05, 0.28),
    "roll": (-0.09, 0.09), "neck": (0.42, 0.58), "shoulder": (1.6, 2.1), "neckline": (0.06, 0.34), "vee": (0.7, 1.6),
    "eye_lon": (0.40, 0.47), "eye_lat": (-0.06, 0.02), "eye_open": (0.085, 0.125), "eye_wide": (0.20, 0.25),
    "gaze_x": (-0.06, 0.06), "gaze_y": (-0.02, 0.015), "ear_lat": (-0.16, -0.06), "brow_lat": (0.22, 0.29),
    "brow_arch": (0.0, 0.07), "brow_tilt": (-0.05, 0.04), "brow_thick": (0.022, 0.048), "nose_lat": (-0.38, -0.30),
    "nose_wide": (0.13, 0.20), "nose_lift": (1.14, 1.28), "mouth_lat": (-0.68, -0.60), "mouth_wide": (0.26, 0.33),
    "frown": (-0.035, 0.03), "lips": (0.7, 1.3), "smile_curve": (0.13, 0.20), "smile_open": (0.10, 0.17),
    "teeth": (0.35, 0.7), "fringe": (0.46, 0.88), "part": (-1, 1), "tuft": (0.0, 0.07), "tuft_freq": (4, 9),
    "phase": (0, 6.28), "volume": (0.05, 0.22), "curl": (-0.06, 0.09), "curl_freq": (3, 8), "length": (1.15, 1.75),
    "flare": (0.0, 0.25), "wave": (0.0, 0.10), "beard_size": (0.03, 0.20), "rim": (0.018, 0.038),
    "lens": (0.19, 0.25), "squareness": (0.55, 1.0), "crown": (0.46, 0.64), "crown_power": (0.45, 0.9),
    "crown_wide": (0.86, 1.04), "brim_wide": (1.15, 1.38), "brim": (0, 1), "light_x": (-0.65, 0.65),
    "light_y": (-0.6, -0.25), "halo_x": (24, 40), "halo_y": (22, 34), "halo": (19, 30), "has_halo": (0, 1),
    "collar": (0, 1), "cloth": (0, 1), "trim": (0, 1), "frame": (0, 1), "iris": (0, 1), "hat_colour": (0, 1),
    "back_first": (0, 1), "back_second": (0, 1), "back_light": (0.82, 1.10), "back_slant": (0, 6.28),
    "lip_red": (0, 1), "undertone": (-1, 1), "hair_light": (-1, 1), "strand_x": (0, 2 * SIDE),
    "strand_y": (0, 2 * SIDE),
}  # fmt: skip
_COLUMNS = len(TRAITS) + len(_RANGES)
_SKETCHED, _LIT = 128, 4  # faces at a time: many share the outlines' arithmetic, few keep the light in the cache


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
    return ImageSet(name="portraits", images_u8=images_u8, attributes=attributes, card=_card(num_images, seed))


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
        traits[name] = np.array([_checked(name, value)], traits[name].dtype if name in traits else None)
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
        valid, allowed = value in range(len(HAIR_COLOURS)), f"one of {', '.join(HAIR_COLOURS)} or its number"
    elif name in CHANCES:
        valid, allowed = value in (False, True), "True or False"
    else:
        low = -1 if name == "yaw" else 0
        valid, allowed = isinstance(value, int | float | np.floating) and low <= value <= 1, f"in [{low}, 1]"
    if not valid:
        raise UserError(f"{name} must be {allowed}, but it is {value!r}")
    return value


def _traits(u_nk: np.ndarray) -> dict[str, np.ndarray]:
    traits = {name: u_nk[:, column] < chance for column, (name, chance) in enumerate(CHANCES.items())}
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
        "source": f"drawn by dcgan_lib.data.procedural.portraits.draw_portraits({num_images}, seed={seed})",
        "licence": "the same as this library's code",
        "counts": {"images": num_images},
        "preparation": {"image_size": [SIDE, SIDE], "channels": 3, "seed": seed},
        "hair_colours": list(HAIR_COLOURS),
    }
