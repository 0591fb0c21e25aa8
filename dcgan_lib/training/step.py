"""One training step: no logging, no files, no randomness of its own.

Axes: b batch, d latent. ``x_bchw`` real images in the networks' range, ``z_bd`` latent vectors,
``labels_b`` class numbers or None, ``shift_b2`` pixels down and right.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.models.networks import (
    AnyDiscriminator,
    AnyGenerator,
    new_discriminator,
    new_generator,
)

Augment = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Gan:
    """Hold the two networks, their optimisers and, with ``ema_decay``, their averages."""

    generator: AnyGenerator
    discriminator: AnyDiscriminator
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    config: TrainConfig
    precision: str
    """``float32`` or ``bfloat16``: the configuration's, or what it left open."""
    g_average: AveragedModel | None = None
    d_average: AveragedModel | None = None

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return next(self.generator.parameters()).device


@dataclass(frozen=True)
class StepRecord:
    """What one step measured, as scalars on the networks' device; None for a network left alone."""

    d_loss: Tensor | None = None
    g_loss: Tensor | None = None
    d_real: Tensor | None = None
    """Mean of D(x), the probability that the discriminator gives to real images."""
    d_fake: Tensor | None = None
    """Mean of D(G(z))."""
    d_sign: Tensor | None = None
    """Mean sign of D's logits on real images; None unless `d_shift_adaptive` asks for it."""
    r1: Tensor | None = None
    """What `r1_penalty` added to ``d_loss``, which leaves it out; None without it."""


def new_networks(config: ModelConfig) -> tuple[AnyGenerator, AnyDiscriminator]:
    """Return an untrained pair."""
    return new_generator(config), new_discriminator(config)


def make_gan(
    config: TrainConfig,
    device: torch.device | str = "cpu",
    new_pair: Callable[[ModelConfig], tuple[AnyGenerator, AnyDiscriminator]] = new_networks,
) -> Gan:
    """Build the pair from ``config.seed`` alone; precision ``auto`` begins as float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        networks = new_pair(config.model)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    for network in networks:
        network.to(device, memory_format=memory_format)
    betas, decay = (config.beta1, config.beta2), config.weight_decay
    optimizers = [
        torch.optim.Adam(n.parameters(), config.learning_rate, betas, 1e-8, decay, fused=True)
        for n in networks
    ]
    precision = "float32" if config.precision == "auto" else config.precision
    averages = [_moving_average(n, config.ema_decay) for n in networks] if config.ema_decay else []
    return Gan(*networks, *optimizers, config, precision, *averages)


def _moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return an average of weights and statistics that forgets its first steps sooner."""

    def blend(averaged: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        if not averaged.is_floating_point():
            return current
        kept = ((1 + num_averaged) / (10 + num_averaged)).clamp(max=decay)
        return averaged.lerp(current, (1 - kept).to(averaged.dtype))

    return AveragedModel(network, avg_fn=blend, use_buffers=True)


def discriminator_loss(real_logits_b: Tensor, fake_logits_b: Tensor) -> Tensor:
    """Return the binary cross-entropy of calling real images real plus that of calling fakes fake.

    Notes
    -----
    -log D(x) - log(1 - D(G(z))), each averaged over its batch; 2 log 2 = 1.386 at a coin's flip.
    The authors' code adds the two terms; it does not average them.
    """
    return F.softplus(-real_logits_b).mean() + F.softplus(fake_logits_b).mean()


def r1_penalty(x_bchw: Tensor, real_logits_b: Tensor, weight: float) -> Tensor:
    """Return ``weight / 2`` times the mean squared norm of the logit's gradient at real images.

    Mescheder et al. (2018), eq. 9. The images are what the discriminator was shown, and were made
    to require a gradient. The result can itself be differentiated.

    Notes
    -----
    With batch norm a logit depends on the whole batch, so an image's gradient holds what it does to
    its neighbours' logits too. GAN_stability multiplies the mean by its ``reg_param`` without the
    half: its 10 is a weight of 20 here.
    """
    (gradient_bchw,) = torch.autograd.grad(real_logits_b.sum(), x_bchw, create_graph=True)
    return weight / 2 * gradient_bchw.float().square().sum((1, 2, 3)).mean()


def generator_loss(fake_logits_b: Tensor) -> Tensor:
    """Return the non-saturating loss -log D(G(z)), averaged over the batch, as the authors do."""
    return F.softplus(-fake_logits_b).mean()


def unchanged(x_bchw: Tensor) -> Tensor:
    """Return the images as they are: the paper does not augment."""
    return x_bchw


def train_step(
    gan: Gan,
    step: int,
    x_bchw: Tensor,
    labels_b: Tensor | None,
    draw_latents: Callable[[int], Tensor],
    augment: Augment = unchanged,
) -> StepRecord:
    """Use one minibatch as the schedule says, and return the last update of each network.

    Parameters
    ----------
    gan : Gan
        Changed in place.
    step : int
        Number of minibatches used before this one; decides whose turn it is.
    x_bchw, labels_b : Tensor
        Real images in the networks' range, and their labels or None.
    draw_latents : callable
        ``draw_latents(k)`` returns the k-th fresh set of latent vectors of this step.
    augment : callable
        What the discriminator's input passes through, real or generated; differentiable.

    Notes
    -----
    ``alternate`` is the authors' code: with d_updates = g_updates = 1 the generator learns on even
    minibatches, the discriminator on odd ones. ``same_batch`` is what most later code does:
    every minibatch updates the discriminator, then the generator, on the same generated images.
    """
    num_d, num_g = gan.config.d_updates, gan.config.g_updates

    def fakes(turn: int, *, for_generator: bool) -> Tensor:
        with torch.set_grad_enabled(for_generator):  # only the generator's update needs their graph
            return generate(gan, draw_latents(turn), labels_b)

    if gan.config.schedule == "alternate":
        if step % (num_g + num_d) < num_g:
            fake_bchw = fakes(0, for_generator=True)
            record = update_generator(gan, fake_bchw, labels_b, augment)
        else:
            fake_bchw = fakes(0, for_generator=False)
            record = update_discriminator(gan, x_bchw, fake_bchw, labels_b, augment)
    else:
        shared_bchw = fakes(0, for_generator=True)
        for turn in range(num_d):
            fake_bchw = fakes(turn, for_generator=False) if turn else shared_bchw
            record = update_discriminator(gan, x_bchw, fake_bchw, labels_b, augment)
        for turn in range(num_g):
            fake_bchw = fakes(num_d + turn, for_generator=True) if turn else shared_bchw
            g_record = update_generator(gan, fake_bchw, labels_b, augment)
        record = replace(record, g_loss=g_record.g_loss)

    for average, network in ((gan.g_average, gan.generator), (gan.d_average, gan.discriminator)):
        if average is not None:
            average.update_parameters(network)
    return record


def generate(gan: Gan, z_bd: Tensor, labels_b: Tensor | None = None) -> Tensor:
    """Return generated images ``x_bchw`` in the run's precision."""
    with autocast(gan):
        return gan.generator(z_bd, labels_b)


def update_discriminator(
    gan: Gan,
    x_bchw: Tensor,
    fake_bchw: Tensor,
    labels_b: Tensor | None = None,
    augment: Augment = unchanged,
) -> StepRecord:
    """Take one Adam step of the discriminator on real and generated images, both augmented.

    Notes
    -----
    They pass in two batches, so each has its own batch-norm statistics, as in the authors' code:
    one joined batch would let the discriminator read the answer off the mix.
    """
    gan.d_optimizer.zero_grad(set_to_none=True)
    r1_weight, r1 = gan.config.r1_weight, None
    real_bchw = augment(x_bchw)
    if r1_weight:
        real_bchw = real_bchw.detach().requires_grad_()
    with autocast(gan):
        real_logits = gan.discriminator(real_bchw, labels_b)
        fake_logits = gan.discriminator(augment(fake_bchw.detach()), labels_b)
    loss = discriminator_loss(real_logits, fake_logits)
    if r1_weight:
        r1 = r1_penalty(real_bchw, real_logits, r1_weight)
    (loss if r1 is None else loss + r1).backward()
    gan.d_optimizer.step()
    return StepRecord(
        d_loss=loss.detach(),
        d_real=real_logits.detach().sigmoid().mean(),
        d_fake=fake_logits.detach().sigmoid().mean(),
        d_sign=real_logits.detach().sign().mean() if gan.config.d_shift_adaptive else None,
        r1=None if r1 is None else r1.detach(),
    )


def update_generator(
    gan: Gan, fake_bchw: Tensor, labels_b: Tensor | None = None, augment: Augment = unchanged
) -> StepRecord:
    """Take one Adam step of the generator through images that carry its graph.

    The discriminator's own weights need no gradient here, which saves a third of its backward pass.
    """
    gan.g_optimizer.zero_grad(set_to_none=True)
    gan.discriminator.requires_grad_(False)
    try:
        with autocast(gan):
            fake_logits = gan.discriminator(augment(fake_bchw), labels_b)
        loss = generator_loss(fake_logits)
        loss.backward()
    finally:
        gan.discriminator.requires_grad_(True)
    gan.g_optimizer.step()
    return StepRecord(g_loss=loss.detach(), d_fake=fake_logits.detach().sigmoid().mean())


def autocast(gan: Gan) -> AbstractContextManager:
    """Return the context that runs convolutions in the run's precision."""
    enabled = gan.precision == "bfloat16"
    return torch.autocast(gan.device.type, dtype=torch.bfloat16, enabled=enabled)


def shift_images(x_bchw: Tensor, shift_b2: Tensor) -> Tensor:
    """Move each image by its own whole number of pixels, repeating the edge; differentiable."""
    most = int(shift_b2.abs().max())
    if most == 0:
        return x_bchw
    height, width = x_bchw.shape[2:]
    padded = F.pad(x_bchw, (most,) * 4, mode="replicate")
    corners = (most - shift_b2).tolist()
    moved = [
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(padded, corners, strict=True)
    ]
    return torch.stack(moved).contiguous(memory_format=torch.channels_last)


def scheduled_learning_rate(config: TrainConfig, step: int) -> float:
    """Return a step's learning rate: constant, then linear to 0 over ``decay_fraction``."""
    decay_steps = config.decay_fraction * config.steps
    left = config.steps - step
    return config.learning_rate * (min(1.0, left / decay_steps) if decay_steps else 1.0)
