"""Draw latent vectors and turn them into pictures, with the mode of batch norm made explicit.

Axes: b batch, d latent, c h w channels and grid; ``x_u8`` pixels 0..255.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from dcgan_lib.config import MAX_SEED, ModelConfig
from dcgan_lib.errors import UserError, require
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator
from dcgan_lib.paths import atomic_write

GAP = 2
"""Pixels around each picture of a grid."""


def sample_latents(num: int, config: ModelConfig, rng: torch.Generator) -> Tensor:
    """Draw latent vectors on the CPU, float32, shape (num, z_dim), the same for every device."""
    if config.z_distribution == "uniform":
        return torch.rand(num, config.z_dim, generator=rng) * 2 - 1
    return torch.randn(num, config.z_dim, generator=rng)


def seeded(seed: int) -> torch.Generator:
    """Return a fresh CPU generator of random numbers; a seed has at most 63 bits."""
    require(0 <= seed <= MAX_SEED, "seed", seed, f"between 0 and {MAX_SEED}")
    return torch.Generator().manual_seed(seed)


def to_u8(x_bchw: Tensor, config: ModelConfig) -> Tensor:
    """Round images from the networks' value range to pixels 0..255; refuse any outside of it."""
    low, high = config.value_range
    if not (x_bchw.min() >= low - 1e-4 and x_bchw.max() <= high + 1e-4):
        found = f"[{x_bchw.min():.3g}, {x_bchw.max():.3g}]"
        raise UserError(
            f"images must lie in [{low:g}, {high:g}], but lie in {found}: scale them first"
        )
    return ((x_bchw - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def from_u8(x_u8: Tensor, config: ModelConfig) -> Tensor:
    """Scale pixels 0..255 to the networks' range, float32; the only preprocessing there is."""
    low, high = config.value_range
    return x_u8.to(torch.float32) * ((high - low) / 255) + low


def network_input(network: AnyGenerator | AnyDiscriminator, images_u8: np.ndarray) -> Tensor:
    """Return images ``x_bchw`` in a network's range and on its device."""
    x_u8 = torch.from_numpy(np.array(images_u8)).to(next(network.parameters()).device)
    return from_u8(x_u8, network.config)


def generate_u8(
    generator: AnyGenerator,
    z_bd: Tensor,
    labels_b: Tensor | None = None,
    *,
    batch_stats: bool = False,
    batch_size: int = 256,
) -> np.ndarray:
    """Turn latent vectors into pictures, uint8, n x c x h x w; the generator is left as it was.

    With ``batch_stats`` each batch is normalised by its own statistics, as in the authors' code,
    instead of the running ones. Then a picture depends on its neighbours in the batch, so no batch
    may hold one vector alone.
    """
    if batch_stats and (batch_size == 1 or len(z_bd) % batch_size == 1):
        raise UserError("a batch of one latent vector has no statistics: give at least 2 at a time")
    was_training, device = generator.training, next(generator.parameters()).device
    saved = [buffer.clone() for buffer in generator.buffers()] if batch_stats else []

    def pictures(z_bd: Tensor, labels_b: Tensor | None) -> Tensor:
        labels_b = None if labels_b is None else labels_b.to(device)
        return to_u8(generator(z_bd.to(device), labels_b), generator.config)

    try:
        generator.train(batch_stats)
        return in_batches(pictures, z_bd, labels_b, batch_size=batch_size)
    finally:
        generator.train(was_training)
        for buffer, before in zip(generator.buffers(), saved, strict=False):
            buffer.copy_(before)


def labels_in_turn(num: int, config: ModelConfig) -> Tensor | None:
    """Return labels of a conditional network, all classes in turn; None for any other.

    Of attributes, num x k, all combinations come in turn.
    """
    if not config.num_classes:
        return None
    labels_n = torch.arange(num)
    if config.attributes:
        return labels_n[:, None] >> torch.arange(config.num_classes) & 1
    return labels_n % config.num_classes


def labels_alike(num: int, label: int | None, config: ModelConfig) -> Tensor | None:
    """Return one class for all of ``num`` pictures, which only networks without classes leave out.

    Of attributes, ``label`` is a combination's number in `labels_in_turn`: its binary digits, the
    first attribute's last, say which are there.

    Raises
    ------
    UserError
        If there is no such class, none is given where there are classes, or one where there are
        none.
    """
    last = (2**config.num_classes if config.attributes else config.num_classes) - 1
    if not config.num_classes:
        require(label is None, "label", label, "left out, as there are no classes")
        return None
    require(label is not None and 0 <= label <= last, "label", label, f"0 to {last}")
    return labels_in_turn(label + 1, config)[-1:].repeat_interleave(num, dim=0)


def sample_u8(
    generator: AnyGenerator, num: int, seed: int, labels_n: Tensor | None = None
) -> np.ndarray:
    """Draw the pictures of ``num`` fresh latent vectors, uint8, n x c x h x w."""
    return generate_u8(generator, sample_latents(num, generator.config, seeded(seed)), labels_n)


def in_batches(
    function: Callable[..., Tensor | np.ndarray],
    *rows: Tensor | np.ndarray | None,
    batch_size: int = 256,
) -> np.ndarray:
    """Apply a function to some rows at a time, without gradients, and join what it returns.

    It gets as many arguments as there are ``rows``, cut along the first axis; a None stays None.
    """
    found = []
    with torch.no_grad():
        for start in range(0, len(rows[0]), batch_size):
            chosen = slice(start, start + batch_size)
            part = function(*(None if each is None else each[chosen] for each in rows))
            found.append(part.cpu().numpy() if isinstance(part, Tensor) else part)
    return np.concatenate(found)


def logits_of(
    discriminator: AnyDiscriminator, pictures_u8: np.ndarray, labels_n: Tensor | None = None
) -> np.ndarray:
    """Return a discriminator's logit for each picture, float32, in the network's current mode."""

    def judge(x_u8: np.ndarray, labels_b: Tensor | None) -> Tensor:
        x_bchw = network_input(discriminator, x_u8)
        return discriminator(x_bchw, None if labels_b is None else labels_b.to(x_bchw.device))

    return in_batches(judge, pictures_u8, labels_n)


@contextmanager
def measuring_batch_norm(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Replace batch norm's running statistics by their mean over the batches of this block.

    The layers are in training mode inside the block; the caller chooses the mode afterwards.
    """
    norms = list(norms)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def measure_batch_norm(
    discriminator: Discriminator, images_u8: np.ndarray, layers: range
) -> Discriminator:
    """Measure batch norm of some layers afresh on images, by 128 or so at a time.

    The network itself is returned, in evaluation mode.
    """
    if len(images_u8) < 2:
        raise UserError(f"statistics need at least 2 images, but got {len(images_u8)}")
    discriminator.eval()
    norms = [discriminator.norms[i] for i in layers]
    with measuring_batch_norm(norm for norm in norms if isinstance(norm, nn.BatchNorm2d)):
        for part in np.array_split(np.arange(len(images_u8)), -(-len(images_u8) // 128)):
            discriminator.features(network_input(discriminator, images_u8[part]))
    return discriminator.eval()


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Return a network's batch-norm layers, in the order in which they were made."""
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


@torch.no_grad()
def refresh_batch_norm(
    generator: AnyGenerator, *, num_batches: int = 100, batch_size: int = 128, seed: int = 0
) -> None:
    """Replace the running statistics by their mean over fresh batches of latent vectors.

    While training runs, the running statistics trail the weights. The authors never meet this,
    because they sample with the statistics of the batch. Our choice: measure them once, at the end.
    """
    if not batch_norms(generator):
        return
    was_training, rng = generator.training, seeded(seed)
    device, num_classes = next(generator.parameters()).device, generator.config.num_classes
    generator.train()
    with measuring_batch_norm(batch_norms(generator)):
        for _ in range(num_batches):
            labels = None
            if generator.config.attributes:
                labels = torch.randint(2, (batch_size, num_classes), generator=rng).to(device)
            elif num_classes:
                labels = torch.randint(num_classes, (batch_size,), generator=rng).to(device)
            generator(sample_latents(batch_size, generator.config, rng).to(device), labels)
    generator.train(was_training)


def picture_grid(pictures_u8: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay pictures out two white pixels apart, h x w x 3; one alone has no border."""
    if columns is None:
        columns = math.ceil(math.sqrt(len(pictures_u8)))
    if columns < 1:
        raise UserError(f"columns must be at least 1, but it is {columns}")
    grid = make_grid(torch.from_numpy(pictures_u8), columns, padding=GAP, pad_value=255)
    return grid.permute(1, 2, 0).numpy()


def write_grid(path: Path, pictures_u8: np.ndarray, columns: int | None = None) -> None:
    """Write pictures as one PNG; see `picture_grid`."""
    write_png(path, picture_grid(pictures_u8, columns))


def write_separately(
    folder: Path, pictures_u8: np.ndarray, numbers: Sequence[int] | None = None
) -> None:
    """Write pictures as 000000.png and so on, or under numbers of their own."""
    numbers = range(len(pictures_u8)) if numbers is None else numbers
    digits = max(6, len(str(max(numbers, default=0))))
    for number, picture in zip(numbers, pictures_u8, strict=True):
        pixels = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
        write_png(folder / f"{number:0{digits}d}.png", pixels)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels, h x w (x 3), whole or not at all; raise UserError where that fails."""
    encoded = io.BytesIO()
    try:
        Image.fromarray(pixels).save(encoded, Image.registered_extensions()[path.suffix.lower()])
        atomic_write(path, encoded.getvalue())
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot write {path} ({error}): choose a writable place and a name that ends in .png"
        ) from error
