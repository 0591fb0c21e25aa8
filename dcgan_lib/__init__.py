"""A runnable edition of the DCGAN paper: models, data, training, evaluation.

from dcgan_lib import TrainConfig, fit, load_image_set

result = fit(TrainConfig(steps=100), load_image_set("rooms"), "runs/rooms")
generator = result.gan.generator
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Generator": "models.dcgan",
    "Discriminator": "models.dcgan",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "recipe": "config",
    "load_image_set": "data.load",
    "fit": "training.loop",
    "load_generator": "training.checkpoints",
    "load_discriminator": "training.checkpoints",
    "generate_u8": "models.sampling",
}
__all__ = list(_PLACES)  # imported when asked for, so that the command line starts at once


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
