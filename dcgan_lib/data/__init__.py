"""Image sets: drawn, downloaded or read from a folder, then kept as memory-mapped arrays."""

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set, set_names

__all__ = ["ImageSet", "load_image_set", "set_names"]
