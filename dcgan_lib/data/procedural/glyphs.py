"""Outline the digits 0 to 9 in many fonts that every installation carries: matplotlib's own and OpenCV's.

An outline is k x 2, float64: x to the right, y downwards, the digit one unit tall and centred on the origin.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

_DEJAVU = tuple(f"DejaVu{kind}{style}" for kind, styles in {
    "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "SansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
}.items() for style in styles)  # fmt: skip
_FILES = (*_DEJAVU, "STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta",
          "cmr10", "cmb10", "cmss10", "cmtt10", "cmti10")  # fmt: skip
_HERSHEY = {  # name: OpenCV's font, stroke in pixels of a digit about 88 tall
    "HersheySimplex": (cv2.FONT_HERSHEY_SIMPLEX, 11), "HersheySimplexBold": (cv2.FONT_HERSHEY_SIMPLEX, 19),
    "HersheyPlain": (cv2.FONT_HERSHEY_PLAIN, 13), "HersheyDuplex": (cv2.FONT_HERSHEY_DUPLEX, 15),
    "HersheyComplex": (cv2.FONT_HERSHEY_COMPLEX, 9), "HersheyTriplex": (cv2.FONT_HERSHEY_TRIPLEX, 9),
    "HersheyTriplexItalic": (cv2.FONT_HERSHEY_TRIPLEX | cv2.FONT_ITALIC, 9),
}  # fmt: skip
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
    return Glyph(points, tuple(np.cumsum([len(c) for c in contours])[:-1].tolist()), float(np.ptp(points[:, 0])))


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
    return [cv2.approxPolyDP(c, 0.8, True)[:, 0].astype(np.float64) for c in contours if len(c) > 12]
