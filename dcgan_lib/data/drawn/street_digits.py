"""House numbers, drawn from a seed: a centred digit on a wall or a plate, others beside it.

Axes: n images, k points. Scene coordinates: one digit tall, the centred digit's middle at the
origin, y downwards; the camera maps them to pixels. u_k are an image's uniforms in [0, 1).
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dcgan_lib.data.drawn import blank, finished
from dcgan_lib.data.drawn.painting import Draws, palette
from dcgan_lib.data.image_set import ImageSet

_FILES = tuple(
    f"DejaVu{family}{style}"
    for family, slanted in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
)
_FILES += ("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta")
_FILES += ("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10")
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
    """One digit's outline, one unit tall."""

    points_k2: np.ndarray
    """All contours, joined; float64."""
    splits: tuple[int, ...]
    """Where a new contour begins; filled with the even-odd rule, inner contours are holes."""
    width: float


@cache
def digit_glyphs() -> tuple[tuple[Glyph, ...], ...]:
    """Return the outlines, ``digit_glyphs()[font][digit]``, fonts in the order of `FONTS`.

    Our choice: outlines instead of rendered text, since they do not depend on a rasteriser's
    version or on the fonts a system happens to have.
    """
    return tuple(tuple(_glyph(name, str(digit)) for digit in range(10)) for name in FONTS)


def _glyph(name: str, text: str) -> Glyph:
    contours = _from_strokes(*_HERSHEY[name], text) if name in _HERSHEY else _from_file(name, text)
    points = np.concatenate(contours)
    low, high = points.min(0), points.max(0)
    points = (points - (low + high) / 2) / (high[1] - low[1])
    splits = np.cumsum([len(contour) for contour in contours])[:-1]
    return Glyph(points, tuple(splits.tolist()), float(np.ptp(points[:, 0])))


def _from_file(name: str, text: str) -> list[np.ndarray]:
    # Imported late: whoever draws no digits need not wait for matplotlib to look for fonts.
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    outline = TextPath((0, 0), text, size=40, prop=FontProperties(fname=path))
    return [polygon[:-1] * [1, -1] for polygon in outline.to_polygons(closed_only=True)]


def _from_strokes(font: int, thickness: int, text: str) -> list[np.ndarray]:
    scale = 88 / cv2.getTextSize(text, font, 1.0, 1)[0][1]
    canvas = np.zeros((200, 200), np.uint8)
    cv2.putText(canvas, text, (50, 150), font, scale, 255, thickness, cv2.LINE_8)
    contours, _ = cv2.findContours(canvas, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [
        cv2.approxPolyDP(c, 0.8, True)[:, 0].astype(np.float64) for c in contours if len(c) > 12
    ]


SIDE = 32
_SCALE = 2  # painted twice as large
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_COLUMNS = 64  # uniforms per image; unused ones are kept so that old seeds keep their pictures
_LUMA = np.array([0.299, 0.587, 0.114])
_WALLS = np.array(
    palette(
        "a85c48 c4b092 787c80 e2dcce 5c4a3e 4a5c70 96a08c "
        "3a3c42 cc966e b0bac4 28423c e4cc78 8e2c2c 6e82a8"
    )
)
_PAINTS = np.array(palette("141418 f6f4ee c6a046 b4b8be a02826 244278 2c6042 785032 e6c83c 5a5e64"))


def draw_street_digits(num_images: int, seed: int = 0, *, progress: bool = False) -> ImageSet:
    """Draw n x 3 x 32 x 32 digits in the spirit of SVHN (paper, section 5.2), with their labels.

    Image i depends on the seed and i only: a shorter set is a prefix of a longer one. The label is
    the centred digit, uniform. Attributes, each of length n: `font` (int64, which of `FONTS`,
    uniform) and `contrast` (float32, the difference in luma between the digit's paint and what is
    behind it before lighting, 0..1). Our choice: digits light on dark and dark on light, blurred,
    seen at an angle and flanked by others, so that single pixels say little about the label.
    """
    images_u8, numbers = blank("street-digits", num_images, seed, SIDE, progress=progress)
    stream = np.random.default_rng(seed)
    labels, fonts = np.empty(num_images, np.int64), np.empty(num_images, np.int64)
    contrasts = np.empty(num_images, np.float32)
    for i in numbers:
        u_k = stream.random(_COLUMNS).tolist()
        labels[i], fonts[i] = int(u_k[0] * 10), int(u_k[1] * len(FONTS))
        contrasts[i], image_hwc = _draw(u_k)
        images_u8[i] = image_hwc.transpose(2, 0, 1)
    return finished(
        "street-digits",
        images_u8,
        seed,
        notes={"fonts": list(FONTS)},
        labels=labels,
        class_names=tuple("0123456789"),
        attributes={"font": fonts, "contrast": contrasts},
    )


def _draw(u: list[float]) -> tuple[float, np.ndarray]:
    """Return one image's contrast and pixels (h x w x c, uint8) from its uniforms."""
    camera, draws = _Camera(Draws(u[2:10])), Draws(u[10:12])
    wall = draws.pick(_WALLS) * draws.between(0.8, 1.1)
    canvas = np.empty((SIDE * _SCALE, SIDE * _SCALE, 3), np.uint8)
    canvas[:] = np.clip(wall, 0, 255)
    _surface(Draws(u[12:17]), Draws(u[17:20]), canvas, camera, wall)
    behind, draws = wall, Draws(u[20:27])
    if draws.chance(0.45):
        behind = draws.pick(_PAINTS)
        _plate(draws, canvas, camera, behind)
    paint, contrast = _paint_for(Draws(u[27:30]), np.clip(behind, 0, 255))
    glyphs = digit_glyphs()[int(u[1] * len(FONTS))]
    digits = _digits(Draws(u[34:42]), glyphs, glyphs[int(u[0] * 10)])
    _write(Draws(u[30:34]), canvas, camera, digits, paint, behind)
    return contrast, _light(Draws(u[42:50]), canvas)


class _Camera:
    """Map scene points to the fine canvas: scale, turn, slant, and a little perspective."""

    def __init__(self, draws: Draws):
        unit, size = _SCALE << _SHIFT, draws.between(17.0, 24.0)
        turn, slant = draws.between(-0.22, 0.22), draws.between(-0.3, 0.3)
        stretch = np.array([[draws.between(0.78, 1.12), slant], [0.0, 1.0]])
        cos, sin = np.cos(turn), np.sin(turn)
        self._linear = (np.array([[cos, -sin], [sin, cos]]) @ stretch).T * (size * unit)
        self._tilt = np.array([draws.between(-0.22, 0.22) for _ in range(2)])
        centre = np.array([draws.between(-1.6, 1.6) for _ in range(2)]) + SIDE / 2
        # A pixel's centre lies at +0.5 in our coordinates and at 0 in OpenCV's.
        self._centre = centre * unit - (1 << _SHIFT) / 2

    def __call__(self, points_k2: np.ndarray) -> np.ndarray:
        depth = np.maximum(1 + points_k2 @ self._tilt, 0.2)
        return np.rint(points_k2 @ self._linear / depth[:, None] + self._centre).astype(np.int32)


def _pieces(place, rows: int, columns: int, gap: float, offset: float = 0.0) -> np.ndarray:
    """Return corners (n x 4 x 2) that cover the picture, odd rows ``offset`` widths further on."""
    height, width = 2.8 / rows, 3.4 / columns
    row, column = np.mgrid[0 : rows + 1, -1 : columns + 1].reshape(2, -1)
    x0 = -1.7 + (column + offset * (row % 2) + place[0]) * width
    y0 = -1.4 + (row - place[1]) * height
    x1, y1 = x0 + width - gap, y0 + height - gap
    return np.stack([x0, y0, x1, y0, x1, y1, x0, y1], 1).reshape(-1, 2)


def _surface(
    pattern: Draws, shade: Draws, canvas: np.ndarray, camera: _Camera, wall: np.ndarray
) -> None:
    kind = pattern.pick(("plaster", "bricks", "boards", "tiles", "bars"))
    place = pattern.between(0, 1), pattern.between(0, 1)
    if kind == "plaster":
        return
    if kind == "bricks":
        rows, columns = int(pattern.between(6, 10)), int(pattern.between(3, 6))
        corners = _pieces(place, rows, columns, 0.04, offset=0.5)
    elif kind == "boards":
        corners = _pieces(place, int(pattern.between(4, 9)), 1, 0.03)
    elif kind == "tiles":
        side = int(pattern.between(3, 6))
        corners = _pieces(place, side, side, 0.05)
    else:
        corners = _pieces(place, 1, int(pattern.between(4, 10)), pattern.between(0.05, 0.2))
    contrast, offset = shade.between(6, 26), shade.between(0, 1)
    # Each piece's shade comes from its number: no further uniforms are needed.
    turns = np.arange(1, len(corners) // 4 + 1) * (12.9898 + offset)
    shades = np.modf(np.sin(turns) * 43758.5453)[0]
    colours = wall * shade.between(0.9, 1.25) + contrast * shades[:, None]
    canvas[:] = wall * 0.72  # the joints
    pieces = camera(corners).reshape(-1, 4, 2)
    for piece, colour in zip(pieces, np.clip(colours, 0, 255).tolist(), strict=True):
        cv2.fillConvexPoly(canvas, piece, colour, cv2.LINE_8, _SHIFT)


def _plate(draws: Draws, canvas: np.ndarray, camera: _Camera, colour: np.ndarray) -> None:
    half_w, half_h = draws.between(0.55, 1.5), draws.between(0.6, 0.85)
    middle = draws.between(-0.4, 0.4) * max(half_w - 0.55, 0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    power = draws.between(0.15, 0.7)
    shape = np.stack([np.sign(f) * np.abs(f) ** power for f in (np.cos(angle), np.sin(angle))], 1)
    for size, shade in ((1.08, draws.between(0.4, 1.3)), (1.0, 1.0)):
        outline = camera(shape * [half_w * size, half_h * size] + [middle, 0])
        paint = np.clip(colour * shade, 0, 255).tolist()
        cv2.fillPoly(canvas, [outline], paint, cv2.LINE_AA, _SHIFT)


def _digits(
    draws: Draws, glyphs: tuple[Glyph, ...], centred: Glyph
) -> list[tuple[np.ndarray, Glyph]]:
    placed = []
    for side in (-1, 1):
        there, other = draws.chance(0.75), draws.pick(glyphs)
        reach = max(centred.width, 0.45) / 2 + draws.between(0.04, 0.32) + other.width / 2
        at = np.array([side * reach, draws.between(-0.06, 0.06)])
        if there:
            placed.append((other.points_k2 + at, other))
    return [*placed, (centred.points_k2, centred)]


def _write(
    draws: Draws, canvas: np.ndarray, camera: _Camera, digits, paint: np.ndarray, behind: np.ndarray
) -> None:
    style, shade = draws.between(0, 1), 0.5 if draws.chance(0.6) else 1.5
    edge = np.clip(behind * shade, 0, 255).tolist()
    drop = np.array([draws.between(-2.2, 2.2), draws.between(0.6, 2.2)]) * (_SCALE << _SHIFT) / 2
    for points, glyph in digits:
        contours = np.split(camera(points), glyph.splits)
        if style < 0.3:
            shadow = [contour + np.int32(drop) for contour in contours]
            cv2.fillPoly(canvas, shadow, edge, cv2.LINE_AA, _SHIFT)
        elif style < 0.5:
            cv2.polylines(canvas, contours, True, edge, 3, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(canvas, contours, paint.tolist(), cv2.LINE_AA, _SHIFT)


def _paint_for(draws: Draws, behind: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a paint whose luma differs from what is behind it, and by how much (0..1)."""
    base, paint = behind @ _LUMA, draws.pick(_PAINTS)
    room = np.array([base, 255 - base])  # darker, lighter
    wanted, lighter = draws.between(46, 170), draws.chance(0.5)
    if not (room >= wanted).all():
        lighter = bool(room[1] > room[0])
    target = base + min(wanted, room[int(lighter)]) * (1 if lighter else -1)
    luma = paint @ _LUMA
    # Towards black or white until the luma fits: the hue stays.
    if target < luma:
        paint = paint * (target / luma)
    else:
        paint = paint + (255 - paint) * ((target - luma) / (255 - luma))
    return paint, abs(float(paint @ _LUMA - base)) / 255


def _light(draws: Draws, canvas: np.ndarray) -> np.ndarray:
    sigma = draws.between(0.0, 2.2)
    if sigma > 0.5:
        canvas = cv2.GaussianBlur(canvas, (7, 7), sigma)
    image = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    corners = np.float32([draws.between(0.62, 1.18) for _ in range(4)]).reshape(2, 2)
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None]
    left, right = (corners[0] + (corners[1] - corners[0]) * down).T
    image *= (left[:, None] + (right - left)[:, None] * down.T)[..., None]
    y, x = (int(draws.between(0, 1) * 3 * SIDE) for _ in range(2))
    image += _noise()[y : y + SIDE, x : x + SIDE] * np.float32(draws.between(0.0, 9.0))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@cache
def _noise() -> np.ndarray:
    """Return a sheet of standard normal noise; each image takes its own window."""
    return np.random.default_rng(11).standard_normal((4 * SIDE, 4 * SIDE, 3), dtype=np.float32)
