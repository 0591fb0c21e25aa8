"""Draw house numbers from a seed: one centred digit on a wall or a plate, parts of others beside it.

Axes: n images, k points. Scene coordinates: one digit tall, the centred digit's middle at the origin, y downwards;
the camera maps them to the picture's pixels. u_k are one image's uniform numbers in [0, 1).
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError

_DEJAVU = tuple(
    f"DejaVu{kind}{style}"
    for kind, styles in {
        "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "SansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
    }.items()
    for style in styles
)
_FILES = (
    *_DEJAVU,
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmtt10",
    "cmti10",
)
_HERSHEY = {  # name: OpenCV's font, stroke in pixels of a digit about 88 tall
    "HersheySimplex": (cv2.FONT_HERSHEY_SIMPLEX, 11),
    "HersheySimplexBold": (cv2.FONT_HERSHEY_SIMPLEX, 19),
    "HersheyPlain": (cv2.FONT_HERSHEY_PLAIN, 13),
    "HersheyDuplex": (cv2.FONT_HERSHEY_DUPLEX, 15),
    "HersheyComplex": (cv2.FONT_HERSHEY_COMPLEX, 9),
    "HersheyTriplex": (cv2.FONT_HERSHEY_TRIPLEX, 9),
    "HersheyTriplexItalic": (cv2.FONT_HERSHEY_TRIPLEX | cv2.FONT_ITALIC, 9),
}
FONTS = (*_FILES, *_HERSHEY)


class Glyph(NamedTuple):
    """Hold one digit's outline.

    Attributes
    ----------
    points_k2 : numpy.ndarray
        All contours, joined; float64.
    splits : tuple of int
        Where a new contour begins; filled with the even-odd rule, inner contours are holes.
    width : float
        Of a digit one unit tall.
    """

    points_k2: np.ndarray
    splits: tuple[int, ...]
    width: float


@cache
def digit_glyphs() -> tuple[tuple[Glyph, ...], ...]:
    """Return the outlines, ``digit_glyphs()[font][digit]``, fonts in the order of `FONTS`.

    Notes
    -----
    Our choice: outlines instead of rendered text, since they do not depend on a rasteriser's version or on the fonts a
    system happens to have. Worked out once per process, in about half a second.
    """
    return tuple(tuple(_glyph(name, str(digit)) for digit in range(10)) for name in FONTS)


def _glyph(name: str, text: str) -> Glyph:
    contours = _from_strokes(*_HERSHEY[name], text) if name in _HERSHEY else _from_file(name, text)
    points = np.concatenate(contours)
    low, high = points.min(0), points.max(0)
    points = (points - (low + high) / 2) / (high[1] - low[1])
    return Glyph(
        points,
        tuple(np.cumsum([len(c) for c in contours])[:-1].tolist()),
        float(np.ptp(points[:, 0])),
    )


def _from_file(name: str, text: str) -> list[np.ndarray]:
    # Imported late: whoever draws no digits need not wait for matplotlib to look for fonts.
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    outline = TextPath((0, 0), text, size=40, prop=FontProperties(fname=path))
    return [polygon[:-1] * [1, -1] for polygon in outline.to_polygons(closed_only=True)]


def _from_strokes(font: int, thickness: int, text: str) -> list[np.ndarray]:
    """Trace the contours of a large digit drawn with OpenCV's stroke fonts."""
    scale = 88 / cv2.getTextSize(text, font, 1.0, 1)[0][1]
    canvas = np.zeros((200, 200), np.uint8)
    cv2.putText(canvas, text, (50, 150), font, scale, 255, thickness, cv2.LINE_8)
    contours, _ = cv2.findContours(canvas, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [
        cv2.approxPolyDP(c, 0.8, True)[:, 0].astype(np.float64) for c in contours if len(c) > 12
    ]


SIDE = 32
_SCALE, _SHIFT = (
    2,
    4,
)  # painted twice as large; OpenCV's fixed-point coordinates have 4 fractional bits
_COLUMNS = 64  # uniforms per image; unused ones are kept so that old seeds keep their pictures
_LUMA = np.array([0.299, 0.587, 0.114])
_WALLS = np.array(
    [
        (168, 92, 72),
        (196, 176, 146),
        (120, 124, 128),
        (226, 220, 206),
        (92, 74, 62),
        (74, 92, 112),
        (150, 160, 140),
        (58, 60, 66),
        (204, 150, 110),
        (176, 186, 196),
        (40, 66, 60),
        (228, 204, 120),
        (142, 44, 44),
        (110, 130, 168),
    ],
    np.float64,
)
_PAINTS = np.array(
    [
        (20, 20, 24),
        (246, 244, 238),
        (198, 160, 70),
        (180, 184, 190),
        (160, 40, 38),
        (36, 66, 120),
        (44, 96, 66),
        (120, 80, 50),
        (230, 200, 60),
        (90, 94, 100),
    ],
    np.float64,
)


def draw_street_digits(num_images: int, seed: int = 0, *, progress: bool = False) -> ImageSet:
    """Draw street-number digits with their labels.

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
        `images_u8` n x 3 x 32 x 32; `labels` the centred digit, 0 to 9, uniform; `class_names` "0" to "9"; and in
        `attributes`, each of length n: `font` (int64, which of `glyphs.FONTS`, uniform) and `contrast` (float32,
        the difference in luma between the digit's paint and what is behind it before lighting, 0..1).

    Raises
    ------
    UserError
        When `num_images` is under 1 or `seed` is negative.

    Notes
    -----
    Our choice, in the spirit of SVHN (paper, section 5.2): digits light on dark and dark on light, blurred, seen at an
    angle and flanked by others, so that single pixels say little about the label.
    """
    if num_images < 1:
        raise UserError(f"num_images must be at least 1, but it is {num_images!r}")
    if seed < 0:
        raise UserError(f"seed must be at least 0, but it is {seed!r}")
    stream = np.random.default_rng(seed)
    images_u8 = np.empty((num_images, 3, SIDE, SIDE), np.uint8)
    labels, fonts = np.empty(num_images, np.int64), np.empty(num_images, np.int64)
    contrasts = np.empty(num_images, np.float32)
    for i in tqdm(range(num_images), desc="street digits", unit="image", disable=not progress):
        u_k = stream.random(_COLUMNS).tolist()
        labels[i], fonts[i] = int(u_k[0] * 10), int(u_k[1] * len(FONTS))
        contrasts[i], image_hwc = _draw(u_k)
        images_u8[i] = image_hwc.transpose(2, 0, 1)
    return ImageSet(
        name="street-digits",
        images_u8=images_u8,
        labels=labels,
        class_names=tuple("0123456789"),
        attributes={"font": fonts, "contrast": contrasts},
        card=_card(num_images, seed),
    )


def _card(num_images: int, seed: int) -> dict:
    return {
        "name": "street-digits",
        "source": f"drawn by dcgan_lib.data.drawn.street_digits.draw_street_digits({num_images}, seed={seed})",
        "licence": "the same as this library's code",
        "counts": {"images": num_images},
        "preparation": {"image_size": [SIDE, SIDE], "channels": 3, "seed": seed},
        "fonts": list(FONTS),
    }


def _draw(u: list[float]) -> tuple[float, np.ndarray]:
    """Return one image's contrast and pixels (h x w x c, uint8) from its uniforms."""
    camera = _Camera(u[2:10])
    wall = _WALLS[int(u[10] * len(_WALLS))] * _between(u[11], 0.8, 1.1)
    canvas = np.empty((SIDE * _SCALE, SIDE * _SCALE, 3), np.uint8)
    canvas[:] = np.clip(wall, 0, 255)
    _surface(u[12:20], canvas, camera, wall)
    behind = wall
    if u[20] < 0.45:
        behind = _PAINTS[int(u[21] * len(_PAINTS))]
        _plate(u[22:27], canvas, camera, behind)
    paint, contrast = _paint_for(u[27:30], np.clip(behind, 0, 255))
    line = _line(u[34:42], digit_glyphs()[int(u[1] * len(FONTS))], int(u[0] * 10))
    _write(u[30:34], canvas, camera, line, paint, behind)
    return contrast, _light(u[42:50], canvas)


def _between(u: float, low: float, high: float) -> float:
    return low + (high - low) * u


class _Camera:
    """Map scene points to the fine canvas: scale, turn, slant, and a little perspective."""

    def __init__(self, u):
        size = _between(u[0], 17.0, 24.0)
        turn, slant, aspect = (
            _between(u[1], -0.22, 0.22),
            _between(u[2], -0.3, 0.3),
            _between(u[3], 0.78, 1.12),
        )
        cos, sin = np.cos(turn), np.sin(turn)
        stretch = np.array([[aspect, slant], [0.0, 1.0]])
        self._linear = (np.array([[cos, -sin], [sin, cos]]) @ stretch).T * (
            size * (_SCALE << _SHIFT)
        )
        self._tilt = np.array([_between(u[4], -0.22, 0.22), _between(u[5], -0.22, 0.22)])
        centre = np.array([_between(u[6], -1.6, 1.6), _between(u[7], -1.6, 1.6)]) + SIDE / 2
        # A pixel's centre lies at +0.5 in our coordinates and at 0 in OpenCV's.
        self._centre = centre * (_SCALE << _SHIFT) - (1 << _SHIFT) / 2

    def __call__(self, points_k2: np.ndarray) -> np.ndarray:
        depth = np.maximum(1 + points_k2 @ self._tilt, 0.2)
        return np.rint(points_k2 @ self._linear / depth[:, None] + self._centre).astype(np.int32)


def _boxes(x0, y0, x1, y1) -> np.ndarray:
    """Return the corners of many rectangles, one after the other."""
    x0, y0, x1, y1 = (v.ravel() for v in np.broadcast_arrays(x0, y0, x1, y1))
    return np.stack([x0, y0, x1, y0, x1, y1, x0, y1], 1).reshape(-1, 2)


def _pieces(place, rows: int, columns: int, gap: float, offset: float = 0.0) -> np.ndarray:
    """Return rectangles laid over the whole picture, every other row moved by ``offset`` of a width."""
    height, width = 2.8 / rows, 3.4 / columns
    row, column = np.mgrid[0 : rows + 1, -1 : columns + 1]
    x = -1.7 + (column + offset * (row % 2) + place[0]) * width
    y = -1.4 + (row - place[1]) * height
    return _boxes(x, y, x + width - gap, y + height - gap)


def _surface(u, canvas: np.ndarray, camera: _Camera, wall: np.ndarray) -> None:
    """Paint plaster, bricks, boards, tiles or a fence of bars."""
    kind, place, coarse, fine = int(u[0] * 5), u[1:3], u[3], u[4]
    if kind == 0:
        return
    if kind == 1:
        corners = _pieces(
            place, int(_between(coarse, 6, 10)), int(_between(fine, 3, 6)), 0.04, offset=0.5
        )
    elif kind == 2:
        corners = _pieces(place, int(_between(coarse, 4, 9)), 1, 0.03)
    elif kind == 3:
        corners = _pieces(place, int(_between(coarse, 3, 6)), int(_between(coarse, 3, 6)), 0.05)
    else:
        corners = _pieces(place, 1, int(_between(coarse, 4, 10)), _between(fine, 0.05, 0.2))
    # Each piece's shade comes from its number: no further uniforms are needed.
    shades = np.modf(np.sin(np.arange(1, len(corners) // 4 + 1) * (12.9898 + u[6])) * 43758.5453)[0]
    colours = wall * _between(u[7], 0.9, 1.25) + _between(u[5], 6, 26) * shades[:, None]
    canvas[:] = wall * 0.72  # the joints
    for piece, colour in zip(
        camera(corners).reshape(-1, 4, 2), np.clip(colours, 0, 255).tolist(), strict=True
    ):
        cv2.fillConvexPoly(canvas, piece, colour, cv2.LINE_8, _SHIFT)


def _plate(u, canvas: np.ndarray, camera: _Camera, colour: np.ndarray) -> None:
    """Paint a number plate with a rim."""
    half_w, half_h = _between(u[0], 0.55, 1.5), _between(u[1], 0.6, 0.85)
    middle = _between(u[2], -0.4, 0.4) * max(half_w - 0.55, 0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    power = _between(u[3], 0.15, 0.7)
    shape = np.stack([np.sign(f) * np.abs(f) ** power for f in (np.cos(angle), np.sin(angle))], 1)
    for size, shade in ((1.08, _between(u[4], 0.4, 1.3)), (1.0, 1.0)):
        outline = camera(shape * [half_w * size, half_h * size] + [middle, 0])
        cv2.fillPoly(
            canvas, [outline], np.clip(colour * shade, 0, 255).tolist(), cv2.LINE_AA, _SHIFT
        )


def _line(u, fonts: tuple[Glyph, ...], digit: int) -> list[tuple[np.ndarray, Glyph]]:
    """Place the centred digit and, often, one on each side, as outlines in the scene."""
    glyph = fonts[digit]
    placed = []
    for side, (there, which, gap, down) in ((-1, u[0:4]), (1, u[4:8])):
        if there < 0.75:
            other = fonts[int(which * 10)]
            x = side * (max(glyph.width, 0.45) / 2 + _between(gap, 0.04, 0.32) + other.width / 2)
            placed.append((other.points_k2 + np.array([x, _between(down, -0.06, 0.06)]), other))
    return [*placed, (glyph.points_k2, glyph)]


def _write(
    u, canvas: np.ndarray, camera: _Camera, line, paint: np.ndarray, behind: np.ndarray
) -> None:
    """Paint the digits, some with a drop shadow or an edge."""
    colour = paint.tolist()
    edge = np.clip(behind * (0.5 if u[1] < 0.6 else 1.5), 0, 255).tolist()
    drop = np.array([_between(u[2], -2.2, 2.2), _between(u[3], 0.6, 2.2)]) * (_SCALE << _SHIFT) / 2
    for points, glyph in line:
        contours = np.split(camera(points), glyph.splits)
        if u[0] < 0.3:
            cv2.fillPoly(canvas, [c + np.int32(drop) for c in contours], edge, cv2.LINE_AA, _SHIFT)
        elif u[0] < 0.5:
            cv2.polylines(canvas, contours, True, edge, 3, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(canvas, contours, colour, cv2.LINE_AA, _SHIFT)


def _paint_for(u, behind: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a paint whose luma differs from what is behind it, and by how much (0..1)."""
    base, paint = behind @ _LUMA, _PAINTS[int(u[0] * len(_PAINTS))]
    room = np.array([base, 255 - base])  # darker, lighter
    wanted = _between(u[1], 46, 170)
    fits = room >= wanted
    lighter = u[2] < 0.5 if fits.all() else bool(room[1] > room[0])
    target = base + min(wanted, room[int(lighter)]) * (1 if lighter else -1)
    luma = paint @ _LUMA
    # Towards black or white until the luma fits: the hue stays.
    paint = (
        paint * (target / luma)
        if target < luma
        else paint + (255 - paint) * ((target - luma) / (255 - luma))
    )
    return paint, abs(float(paint @ _LUMA - base)) / 255


def _light(u, canvas: np.ndarray) -> np.ndarray:
    """Blur, shrink, light from one side and add the sensor's noise."""
    sigma = _between(u[0], 0.0, 2.2)
    if sigma > 0.5:
        canvas = cv2.GaussianBlur(canvas, (7, 7), sigma)
    image = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    corners = np.float32([_between(v, 0.62, 1.18) for v in u[1:5]]).reshape(2, 2)
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None]
    left, right = (corners[0] + (corners[1] - corners[0]) * down).T
    image *= (left[:, None] + (right - left)[:, None] * down.T)[..., None]
    y, x = int(u[5] * 3 * SIDE), int(u[6] * 3 * SIDE)
    image += _noise()[y : y + SIDE, x : x + SIDE] * np.float32(_between(u[7], 0.0, 9.0))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@cache
def _noise() -> np.ndarray:
    """Return a sheet of noise, mean 0, standard deviation 1, from which each image takes its own window."""
    return np.random.default_rng(11).standard_normal((4 * SIDE, 4 * SIDE, 3), dtype=np.float32)
