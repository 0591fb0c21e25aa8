"""A generator that learns a few images by heart: what a walk looks like when nothing was understood.

Axes: b batch, k images, d latent, c channels, h x w pixels; ``x_u8`` pixels 0..255, ``x_bchw`` the networks' range.
"""

import numpy as np
import torch
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.networks import AnyGenerator, new_generator
from dcgan_lib.models.sampling import from_u8, refresh_batch_norm, sample_latents, seeded


def train_memoriser(
    images_u8: np.ndarray, model: ModelConfig, *, steps: int = 400, batch_size: int = 64, seed: int = 0
) -> AnyGenerator:
    """Train a generator to repeat a few images: each owns a part of latent space, and is all that is shown there.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, k x c x h x w, of the model's size; 2 to 256 of them.
    model : ModelConfig
        The same network as a GAN's generator; without classes.
    steps, batch_size : int
        Of Adam, with a learning rate of 0.002 that falls to 0.
    seed : int
        Of the weights, the parts and the latent vectors.

    Returns
    -------
    Generator
        In evaluation mode.

    Raises
    ------
    UserError
        If there are too few or too many images, or they are of another size.

    Notes
    -----
    Our choice: there is no discriminator. A latent vector belongs to the image whose random direction it is closest
    to, and the loss is the mean absolute difference from that image. A GAN on as few images mostly fails in another
    way: its discriminator wins before anything is learnt by heart.
    """
    if not 2 <= len(images_u8) <= 256 or images_u8.shape[1:] != (model.num_channels, *model.image_size):
        wanted = (model.num_channels, *model.image_size)
        raise UserError(f"a memoriser takes 2 to 256 images of {wanted}, but got {images_u8.shape}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = new_generator(model).train()
    rng, targets = seeded(seed), from_u8(torch.from_numpy(np.array(images_u8)), model)
    owners_kd = F.normalize(sample_latents(len(images_u8), model, rng))
    owners_kd = torch.linalg.qr(owners_kd.T).Q.T if len(owners_kd) <= model.z_dim else owners_kd
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        z_bd = sample_latents(batch_size, model, rng)
        loss = F.l1_loss(generator(z_bd), targets[(z_bd @ owners_kd.T).argmax(1)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    refresh_batch_norm(generator, num_batches=20, seed=seed)
    return generator.eval()
