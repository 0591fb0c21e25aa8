"""Prepare an image set for a probe: attributes made of its classes, faces brought to another set's framing.

Axes: n images, c channels, h x w pixels; ``images_u8`` is n x c x h x w, uint8, 0..255.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError


def with_attributes(image_set: ImageSet, named: Mapping[str, str]) -> ImageSet:
    """Return an image set with yes-or-no attributes that its classes decide.

    Parameters
    ----------
    image_set : ImageSet
        With classes, if ``named`` is not empty.
    named : mapping of str to str
        An attribute's name to the class that has it, such as "smile" to "smiling".

    Raises
    ------
    UserError
        If the set has no such class.
    """
    unknown = set(named.values()) - set(image_set.class_names)
    if unknown:
        known = ", ".join(image_set.class_names) or "none"
        raise UserError(f"{image_set.name} has no class {', '.join(sorted(unknown))}: its classes are {known}")
    made = {name: image_set.labels == image_set.class_names.index(which) for name, which in named.items()}
    return replace(image_set, attributes={**image_set.attributes, **made})


def cut_out(image_set: ImageSet, window: tuple[int, int, int]) -> ImageSet:
    """Return an image set of one square window of each image, enlarged to the images' own size.

    Parameters
    ----------
    image_set : ImageSet
        Of square images.
    window : tuple of int
        Top, left and side, in pixels.

    Raises
    ------
    UserError
        If the images are not square, or the window does not lie inside them.
    """
    (top, left, side), (height, width) = window, image_set.image_size
    if height != width or min(window) < 0 or side < 1 or max(top, left) + side > height:
        raise UserError(f"the window {window} must lie inside square images, but they are {(height, width)}")
    cut = torch.from_numpy(np.array(image_set.images_u8[:, :, top : top + side, left : left + side]))
    return replace(image_set, images_u8=resize(cut, [height, width], antialias=True).numpy())
