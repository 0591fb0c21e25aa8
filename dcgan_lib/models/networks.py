"""Whichever pair of networks a configuration describes: the DCGAN, dense or residual, untrained."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.baselines import DenseDiscriminator, DenseGenerator
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.residual import ResidualDiscriminator, ResidualGenerator

AnyGenerator = Generator | DenseGenerator | ResidualGenerator
AnyDiscriminator = Discriminator | DenseDiscriminator | ResidualDiscriminator
LayeredDiscriminator = Discriminator | ResidualDiscriminator
"""What has ``features``, the maps of its layers."""

PAIRS = {
    "convolutional": (Generator, Discriminator),
    "dense": (DenseGenerator, DenseDiscriminator),
    "residual": (ResidualGenerator, ResidualDiscriminator),
}
"""The networks of each architecture."""


def new_generator(config: ModelConfig) -> AnyGenerator:
    """Return a generator whose weights are drawn from PyTorch's global random numbers."""
    return PAIRS[config.architecture][0](config)


def new_discriminator(config: ModelConfig) -> AnyDiscriminator:
    """Return a discriminator; see `new_generator`."""
    return PAIRS[config.architecture][1](config)


def untrained_generator(config: ModelConfig, seed: int = 0) -> AnyGenerator:
    """Return a generator with the initial weights of a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_generator(config).eval()


def untrained_discriminator(config: ModelConfig, seed: int = 0) -> AnyDiscriminator:
    """Return a discriminator with the initial weights of a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_discriminator(config).eval()


class NoOutput(nn.Module):
    """Stand where a discriminator has no output, and refuse to judge in its place."""

    def __init__(self, lacking: Sequence[str]) -> None:
        super().__init__()
        self.lacking = tuple(lacking)

    def forward(self, h: Tensor) -> Tensor:
        """Refuse."""
        raise UserError(
            f"this discriminator lacks {', '.join(self.lacking)}, so it gives features but cannot "
            "say how real a picture is: choose a whole one"
        )


def without_output(
    discriminator: LayeredDiscriminator, lacking: Sequence[str]
) -> LayeredDiscriminator:
    """Take the output of a discriminator away; ``lacking`` names all that is not there.

    What is left has features, and weights of no output that somebody could take for trained ones.
    """
    discriminator.head = NoOutput(lacking)
    return discriminator


def check_convolutional(discriminator: AnyDiscriminator) -> LayeredDiscriminator:
    """Return the network if it has convolutional layers that read images alone; refuse others."""
    if not isinstance(discriminator, LayeredDiscriminator):
        raise UserError(
            "this needs convolutional layers, but the discriminator has only fully connected ones: "
            "choose another"
        )
    if classes := discriminator.config.num_classes:
        raise UserError(
            "this needs a discriminator that is not told the label of an image, but this one reads "
            f"{classes} classes: choose another"
        )
    return discriminator


def check_dcgan(discriminator: AnyDiscriminator) -> Discriminator:
    """Return the network if each of its layers is one convolution; refuse others, see above."""
    network = check_convolutional(discriminator)
    if not isinstance(network, Discriminator):
        raise UserError(
            "this follows the DCGAN's plain convolutions, but the discriminator is a residual one: "
            "choose another"
        )
    return network
