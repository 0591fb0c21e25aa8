"""Which classes a configuration asks for."""

from dcgan_lib.config import ModelConfig
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.dense import DenseDiscriminator, DenseGenerator

AnyGenerator = Generator | DenseGenerator
AnyDiscriminator = Discriminator | DenseDiscriminator


def new_generator(config: ModelConfig) -> AnyGenerator:
    """Return an untrained generator, its weights drawn from PyTorch's global random numbers."""
    return DenseGenerator(config) if config.architecture == "dense" else Generator(config)


def new_discriminator(config: ModelConfig) -> AnyDiscriminator:
    """Return an untrained discriminator; see `new_generator`."""
    return DenseDiscriminator(config) if config.architecture == "dense" else Discriminator(config)
