"""What a study of saliency looks at, and the images for it."""

from dataclasses import dataclass
from typing import Any

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.sources import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.generators import HELD_OUT_SPLIT
from dcgan_lib.interpretation.guided_backprop import METHODS, Method
from dcgan_lib.training.checkpoints import load_config


@dataclass(frozen=True, kw_only=True)
class SaliencySettings:
    """Hold what is measured, and of how much.

    Parameters
    ----------
    checkpoint : str
        Whose discriminator; a committed checkpoint's name or a run's folder.
    image_set : str, optional
        Whose images; by default those that it was trained on, of a split that it never met.
    objects : tuple of str
        Whose true boxes; they are not asked for where the set has none.
    method, layer : optional
        See `dcgan_lib.interpretation.guided_backprop.BackwardRule` and `receptive_field`.
    features, columns : int
        The first features of the layer, and images for each, in the figure.
    images : int
        To report on, and as many to choose on.
    chosen, top : int
        Features chosen an object; strongest responses a feature that are reported.
    tried : int
        Strongest responses a feature that it is chosen by.
    fresh : int
        Networks that were never trained.
    seed : int
        Of the first of them; the others follow.
    """

    checkpoint: str = "rooms"
    image_set: str | None = None
    objects: tuple[str, ...] = ("bed", "window", "lamp")
    method: Method = "guided"
    layer: int = -1
    features: int = 6
    columns: int = 5
    images: int = 2_000
    chosen: int = 6
    top: int = 100
    tried: int = 24
    fresh: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {"features": 1, "columns": 1, "images": 20, "chosen": 1, "top": 2, "tried": 1, "fresh": 1, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, but it is {getattr(self, name)}")
        if max(self.columns, self.top, self.tried) > self.images:
            raise UserError(f"columns, top and tried cannot be more than the {self.images} images: ask for more images")
        if self.method not in METHODS:
            raise UserError(f"a method is one of {', '.join(METHODS)}, but got {self.method!r}")


def load_pictures(settings: SaliencySettings) -> tuple[ImageSet, ImageSet, str]:
    """Return the images to report on, those to choose on, and the name of the first one's split.

    Raises
    ------
    UserError
        If the images are missing, or are not of the size and channels that the discriminator reads.
    """
    config, about = load_config(settings.checkpoint)
    name = settings.image_set or about["image_set"]
    is_own = name == about["image_set"]
    split = HELD_OUT_SPLIT.get(name, "validation")
    options: dict[str, Any] = {"image_size": config.model.image_size, "channels": config.model.num_channels}
    if is_own:
        options["fit"] = about.get("fit", "crop")
    source = about.get("source", name) if is_own else name
    found = load_image_set(source, split, **options)
    if found.num_channels != config.model.num_channels:
        raise UserError(f"{name} has {found.num_channels} channels, but the discriminator reads another number")
    if len(found) < settings.top or len(found) < settings.columns:
        raise UserError(f"{name} has {len(found)} images in its {split} split: lower top and columns to that")
    report = found.subset(slice(0, settings.images))
    if not any(key.endswith("_box") for key in report.attributes):
        return report, report, split
    chosen_on = load_image_set(source, "validation", **options).subset(slice(0, settings.images))
    return report, chosen_on, split
