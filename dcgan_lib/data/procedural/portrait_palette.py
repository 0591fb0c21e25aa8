"""Choose a portrait's colours.

Axes: n faces; every colour is n x 3, float64, RGB, 0..255.
"""

from types import SimpleNamespace

import numpy as np

from dcgan_lib.data.procedural.portrait_head import lerp

HAIR_COLOURS = ("black", "brown", "auburn", "blond", "silver")


def _table(*rows):
    return np.array(rows, np.float64)


_SKIN = _table(  # skin_tone 0 to 1, light to deep
    (255, 226, 204), (246, 208, 176), (230, 182, 143), (205, 150, 110), (166, 114, 80), (126, 84, 60), (92, 60, 46)
)
_HAIR = _table((42, 38, 44), (100, 66, 46), (138, 64, 40), (212, 172, 108), (182, 184, 190))
_GLOSS = _table((42, 42, 52), (50, 38, 26), (50, 32, 20), (40, 38, 28), (36, 36, 38))
_IRIS = _table((70, 44, 30), (104, 70, 40), (74, 110, 140), (82, 112, 76), (96, 104, 116))
_FRAME = _table((34, 30, 34), (96, 52, 30), (150, 40, 46), (40, 58, 96), (60, 62, 66))
_FABRIC = _table(
    (178, 70, 62), (222, 150, 70), (236, 208, 140), (92, 130, 96), (58, 104, 120), (62, 80, 128),
    (120, 86, 132), (210, 130, 140), (236, 230, 218), (70, 72, 82), (140, 168, 180), (150, 110, 84),
)  # fmt: skip
_BACKDROP = _table(
    (232, 196, 160), (178, 206, 210), (150, 176, 150), (214, 170, 172), (122, 146, 176), (236, 222, 190),
    (164, 150, 184), (104, 132, 132), (200, 124, 98), (88, 98, 124), (186, 190, 168), (222, 204, 214),
)  # fmt: skip


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
    cloth, hat, other = _pick(_FABRIC, f.cloth), _pick(_FABRIC, f.hat_colour), _pick(_FABRIC, f.trim)
    lip = lerp(skin * [0.86, 0.62, 0.60], np.array([196, 84, 86]) * (0.5 + skin / 510), 0.15 + 0.45 * f.lip_red)
    first, second = (_pick(_BACKDROP, u) * f.back_light for u in (f.back_first, f.back_second))
    middle = lerp(first, second, 0.5)
    return SimpleNamespace(
        skin=skin, skin_dark=skin * [0.80, 0.70, 0.66], skin_deep=skin * [0.66, 0.52, 0.48],
        hair=hair, hair_dark=hair * 0.74, beard=hair * 0.86, gloss=_GLOSS[kind],
        brow=lerp(hair * 0.72, skin * 0.45, 0.25), lash=skin * 0.16 + [10, 6, 8],
        iris=_pick(_IRIS, f.iris), pupil=np.array([22.0, 18.0, 22.0]),
        sclera=lerp(np.array([246, 244, 240]), skin, 0.08), lip=lip, lip_dark=lip * [0.50, 0.36, 0.38],
        cloth=cloth, trim=lerp(cloth * 0.72, other, np.where(f.collar, 0.9, 0.15)),
        hat=hat, hat_band=lerp(hat * 0.7, other, 0.3), frame=_pick(_FRAME, f.frame),
        halo=lerp(middle, np.array([255, 250, 240]), 0.35),
        backdrop=_backdrop(first, lerp(first, second, 0.75) * 0.86, f.back_slant),
    )  # fmt: skip
