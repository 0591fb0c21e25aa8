"""Whichever pair of networks a configuration describes: convolutional or dense, untrained."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.baselines import DenseDiscriminator, DenseGenerator
from dcgan_lib.models.dcgan import Discriminator, Generator

AnyGenerator = Generator | DenseGenerator
AnyDiscriminator = Discriminator | DenseDiscriminator


def new_generator(config: ModelConfig) -> AnyGenerator:
    """Return a generator whose weights are drawn from PyTorch's global random numbers."""
    return DenseGenerator(config) if config.architecture == "dense" else Generator(config)


def new_discriminator(config: ModelConfig) -> AnyDiscriminator:
    """Return a discriminator; see `new_generator`."""
    return DenseDiscriminator(config) if config.architecture == "dense" else Discriminator(config)


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


def without_output(discriminator: Discriminator, lacking: Sequence[str]) -> Discriminator:
    """Take the output of a discriminator away; ``lacking`` names all that is not there.

    What is left has features, and weights of no output that somebody could take for trained ones.
    """
    discriminator.head = NoOutput(lacking)
    return discriminator


def check_convolutional(discriminator: AnyDiscriminator) -> Discriminator:
    """Return the network if it has convolutional layers that read images alone; refuse others."""
    if not isinstance(discriminator, Discriminator):
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
