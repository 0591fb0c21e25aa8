"""Whichever pair of networks a configuration describes: convolutional or dense, untrained."""

import torch

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
