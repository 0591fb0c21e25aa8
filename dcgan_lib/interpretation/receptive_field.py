"""Which pixels a unit of a convolutional layer can see, from the configuration alone."""

from typing import NamedTuple

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import plan_convolutions


class Field(NamedTuple):
    """Describe receptive fields: side, distance between neighbours, and where the first begins, in pixels."""

    size: int
    step: int
    start: int

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of a unit's field; it may reach outside the image."""
        left, top = self.start + column * self.step, self.start + row * self.step
        return left, top, left + self.size, top + self.size


def receptive_field(config: ModelConfig, layer: int = -1) -> Field:
    """Return the receptive fields of a convolutional layer: 61 pixels for four of kernel 5 and stride 2.

    Parameters
    ----------
    config : ModelConfig
        Of a convolutional network.
    layer : int, default -1
        Counted from the pixels, or from the end when negative.

    Raises
    ------
    UserError
        If there is no such layer.
    """
    plan = plan_convolutions(config)
    size, step, start = 1, 1, 0
    for conv in plan[: layer_index(layer, len(plan)) + 1]:
        start -= (config.kernel_size - 1) // 2 * step
        size += (config.kernel_size - 1) * step
        step *= conv.stride
    return Field(size, step, start)


def layer_index(layer: int, num_layers: int) -> int:
    """Return a layer's place counted from the pixels.

    Raises
    ------
    UserError
        If there is no such layer.
    """
    if not -num_layers <= layer < num_layers:
        raise UserError(f"the discriminator has the convolutional layers 0 to {num_layers - 1}, but layer is {layer}")
    return layer % num_layers
