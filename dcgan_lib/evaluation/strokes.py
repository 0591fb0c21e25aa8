"""How a digit is written, read off its pixels: no classifier is needed.

Axes: n images, h x w pixels; ``images_u8`` n x 1 x h x w, 0..255, black outside the digit.
"""

import numpy as np

from dcgan_lib.errors import UserError


def stroke_style(images_u8: np.ndarray) -> dict[str, np.ndarray]:
    """Measure slant, weight and width.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, n x 1 x h x w.

    Returns
    -------
    dict of str to ndarray
        float32, shape (n,), NaN for a black image. ``slant``: columns to the right per row upwards, by which the
        digit leans. ``weight``: ink as a share of the image. ``width``: spread of the ink along rows, over its spread
        along columns.

    Raises
    ------
    UserError
        If the images are not grey.

    Notes
    -----
    From the moments of the ink, as in the classical deskewing of MNIST (LeCun et al., 1998).
    """
    if images_u8.ndim != 4 or images_u8.shape[1] != 1:
        raise UserError(f"strokes are read off grey images, n x 1 x h x w, but got shape {images_u8.shape}")
    ink = images_u8[:, 0].astype(np.float64) / 255
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ink / ink.sum((1, 2), keepdims=True)
        up, right = -np.arange(ink.shape[1])[:, None], np.arange(ink.shape[2])
        centre = [(share * axis).sum((1, 2)) for axis in (up, right)]
        off_up, off_right = (axis - middle[:, None, None] for axis, middle in zip((up, right), centre, strict=True))
        var_up, var_right, both = (
            (share * a * b).sum((1, 2)) for a, b in ((off_up, off_up), (off_right, off_right), (off_up, off_right))
        )
        style = {"slant": both / var_up, "weight": ink.mean((1, 2)), "width": np.sqrt(var_right / var_up)}
    return {
        name: np.where(np.isfinite(values) & (ink.sum((1, 2)) > 0), values, np.nan).astype(np.float32)
        for name, values in style.items()
    }
