"""Saliency as pictures: grey is no influence, and every tile is as large as a receptive field.

Axes: p peaks, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.guided_backprop import Maps, Peak
from dcgan_lib.interpretation.receptive_field import Field

GREY = 128
GAP = 2  # pixels around each tile of a sheet, as torchvision's make_grid has them


def shown(values_pchw: np.ndarray) -> np.ndarray:
    """Return gradients as pictures, uint8: grey where they are 0, brighter where positive, darker where negative.

    Each is scaled by its own 99.5th percentile, so that brightness cannot be compared between pictures.
    """
    highest = np.quantile(np.abs(values_pchw), 0.995, axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(values_pchw, highest, out=np.zeros_like(values_pchw), where=highest > 0)
    return (GREY + 127 * scaled.clip(-1, 1)).round().astype(np.uint8)


def crop(picture_chw: np.ndarray, window: tuple[int, int, int, int], fill: int = GREY) -> np.ndarray:
    """Cut a window out of a picture; where the window reaches outside, ``fill`` is put.

    Raises
    ------
    UserError
        If the window is empty or lies wholly outside.
    """
    left, top, right, bottom = window
    height, width = picture_chw.shape[1:]
    if not (left < right and top < bottom and left < width and top < height and right > 0 and bottom > 0):
        raise UserError(f"the window {window} shows nothing of a picture of {width} x {height} pixels")
    cut = np.full((len(picture_chw), bottom - top, right - left), fill, picture_chw.dtype)
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    inside = picture_chw[:, rows, columns]
    down, across = rows.start - top, columns.start - left
    cut[:, down : down + inside.shape[1], across : across + inside.shape[2]] = inside
    return cut


def map_tiles(maps: Maps, field: Field) -> np.ndarray:
    """Return each map cut to its peak's receptive field: uint8, p x c x size x size."""
    pictures = shown(maps.values)
    return np.stack([crop(pictures[i], field.window(peak.row, peak.column)) for i, peak in enumerate(maps.peaks)])


def image_tiles(images_u8: np.ndarray, peaks: Sequence[Peak], field: Field) -> np.ndarray:
    """Return the part of its image that each peak sees: uint8, p x c x size x size."""
    return np.stack([crop(images_u8[peak.image], field.window(peak.row, peak.column)) for peak in peaks])


def read_sheet(path: str | Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a sheet that ``dcgan saliency`` wrote.

    Parameters
    ----------
    path : str or Path
        Of saliency.png or images.png, or of a copy in another format.
    size : int
        Side of a tile in pixels: that of the receptive field.

    Returns
    -------
    fresh, trained : ndarray
        uint8, p x 3 x size x size: the left and the right half, row by row.

    Raises
    ------
    UserError
        If the picture is not made of such tiles.
    """
    pixels_hwc, step = np.asarray(Image.open(path).convert("RGB"))[GAP:, GAP:], size + GAP
    (rows, over), (columns, aside) = (divmod(side, step) for side in pixels_hwc.shape[:2])
    if over or aside or columns % 2 or not rows:
        raise UserError(f"{Path(path).name} has no two halves of tiles of {size} pixels: it is no sheet of such maps")
    tiles = pixels_hwc.reshape(rows, step, columns, step, 3)[:, :size, :, :size].transpose(0, 2, 4, 1, 3)
    halves = np.split(tiles, 2, axis=1)
    return halves[0].reshape(-1, 3, size, size), halves[1].reshape(-1, 3, size, size)


def outlined(picture_chw: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return a copy of a picture with a frame one pixel wide along a box: left, top, right, bottom, ends exclusive.

    The frame is white between black lines where there is room, so that it shows on any ground. A box of NaN, of an
    object that is absent, leaves the picture as it is.
    """
    framed = picture_chw.copy()
    if np.isnan(box).any():
        return framed
    left, top, right, bottom = (int(edge) for edge in box)
    for inset, value in ((-1, 0), (1, 0), (0, 255)):
        x0, y0 = max(left + inset, 0), max(top + inset, 0)
        x1, y1 = min(right - inset, framed.shape[2]), min(bottom - inset, framed.shape[1])
        if x1 - x0 > 1 and y1 - y0 > 1:
            framed[:, [y0, y1 - 1], x0:x1] = value
            framed[:, y0:y1, [x0, x1 - 1]] = value
    return framed
