"""Networks that saliency is compared with: fresh weights, and weights made random layer by layer.

Axes: n images, p peaks, c channels, h x w pixels.
"""

import copy

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.guided_backprop import Maps, check_network
from dcgan_lib.interpretation.receptive_field import Field
from dcgan_lib.models.dcgan import Discriminator, initialise
from dcgan_lib.models.networks import AnyDiscriminator, new_discriminator
from dcgan_lib.models.sampling import from_u8, seeded


def fresh_network(config: ModelConfig, images_u8: np.ndarray, seed: int) -> Discriminator:
    """Return a discriminator that was never trained, with batch norm's statistics of these images.

    Parameters
    ----------
    config : ModelConfig
        Of the trained network that it is compared with.
    images_u8 : ndarray
        uint8, n x c x h x w, at least 2.
    seed : int
        Of the weights.

    Notes
    -----
    The statistics are no weights, and initial ones (mean 0, variance 1) fit nothing: with them the layers of a
    fresh network would not be normalised at all. So they are measured, as they would be in training.
    """
    seeded(seed)  # refuses what is no seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = check_network(new_discriminator(config))
    return measure_batch_norm(network, images_u8, range(len(network.convs)))


def randomised(network: AnyDiscriminator, num_layers: int, images_u8: np.ndarray, seed: int) -> Discriminator:
    """Return a copy whose last convolutional layers have fresh weights; the first ones stay.

    Parameters
    ----------
    network : AnyDiscriminator
        Left as it is.
    num_layers : int
        How many, counted from the last; their batch norm starts anew and is measured on ``images_u8``.
    images_u8, seed : optional
        See `fresh_network`.

    Raises
    ------
    UserError
        If there are not so many layers.

    Notes
    -----
    The cascade of Adebayo et al. (2018), from the layer that is asked down to the pixels.
    """
    changed = copy.deepcopy(check_network(network))
    depth = len(changed.convs)
    if not 0 <= num_layers <= depth:
        raise UserError(f"0 to {depth} layers can be made random, but got {num_layers}")
    layers = range(depth - num_layers, depth)
    seeded(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            changed.convs[layer].apply(initialise)
            changed.norms[layer].apply(initialise)
    return measure_batch_norm(changed, images_u8, layers)


@torch.no_grad()
def measure_batch_norm(
    network: Discriminator, images_u8: np.ndarray, layers: range, *, batch_size: int = 128
) -> Discriminator:
    """Replace the running statistics of some layers by their mean over batches; return the network, in eval mode.

    Raises
    ------
    UserError
        If there are fewer than 2 images.
    """
    if len(images_u8) < 2:
        raise UserError(f"statistics need at least 2 images, but got {len(images_u8)}")
    network.eval()
    norms = [network.norms[i] for i in layers if isinstance(network.norms[i], nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for part in np.array_split(np.arange(len(images_u8)), -(-len(images_u8) // batch_size)):
        x_bchw = from_u8(torch.from_numpy(np.array(images_u8[part])), network.config)
        network.features(x_bchw.to(network.head.weight.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def rank_correlations(one: Maps, other: Maps, field: Field) -> np.ndarray:
    """Return how alike two sets of maps are: Spearman's correlation of their strength, one number a peak.

    Only pixels that the peak can see count; outside its receptive field both maps are 0. An empty map can be compared
    with nothing: NaN. (A guided map is empty when its unit is not active, as after a change of the weights.)

    Parameters
    ----------
    one, other : Maps
        Of the same positions in the same images.
    field : Field
        From `receptive_field`.

    Raises
    ------
    UserError
        If their peaks differ in more than the feature or the response.
    """
    if [peak[1:4] for peak in one.peaks] != [peak[1:4] for peak in other.peaks]:
        raise UserError("maps can be compared only at the same positions of the same images")
    found = []
    for peak, a_hw, b_hw in zip(one.peaks, one.strength, other.strength, strict=True):
        left, top, right, bottom = field.window(peak.row, peak.column)
        part = slice(max(top, 0), bottom), slice(max(left, 0), right)
        a, b = (rankdata(map_hw[part]) for map_hw in (a_hw, b_hw))
        found.append(np.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1]))
    return np.array(found)
