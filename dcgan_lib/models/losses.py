"""The two losses of the game, written on logits so that neither can overflow."""

from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real_logits_b: Tensor, fake_logits_b: Tensor) -> Tensor:
    """Return the binary cross-entropy of calling real images real plus that of calling fakes fake.

    Notes
    -----
    -log D(x) - log(1 - D(G(z))), each averaged over its batch; 2 log 2 = 1.386 at a coin's flip.
    The authors' code adds the two terms; it does not average them.
    """
    return F.softplus(-real_logits_b).mean() + F.softplus(fake_logits_b).mean()


def generator_loss(fake_logits_b: Tensor) -> Tensor:
    """Return the non-saturating loss -log D(G(z)), averaged over the batch, as in the authors' code."""
    return F.softplus(-fake_logits_b).mean()
