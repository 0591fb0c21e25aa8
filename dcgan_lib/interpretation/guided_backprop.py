"""What a unit of the discriminator answers to: gradients at the pixels, guided or not (section 6.2, Fig. 5).

Axes: n images, f features (the maps of a layer), c channels, h x w pixels, i x j positions in a map; p peaks, a peak
being a feature at a position of an image. ``x_nchw`` images in the network's value range, ``_u8`` pixels 0..255.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.receptive_field import layer_index
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import AnyDiscriminator
from dcgan_lib.models.sampling import from_u8

Method = Literal["guided", "gradient", "deconvnet"]
METHODS: tuple[Method, ...] = get_args(Method)


class _Rectified(torch.autograd.Function):
    """Run LeakyReLU forwards as it is, and backwards as a method asks."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, slope: float, method: Method) -> Tensor:
        ctx.save_for_backward(u)
        ctx.slope, ctx.method = slope, method
        return F.leaky_relu(u, slope)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        if ctx.method == "gradient":
            return torch.where(u > 0, gradient, ctx.slope * gradient), None, None
        passed = gradient.clamp(min=0)
        return passed if ctx.method == "deconvnet" else passed * (u > 0), None, None


class BackwardRule(TorchFunctionMode):
    """Within ``with BackwardRule(method):``, rectifiers that run have that method's backward pass.

    The network is not touched: nothing is patched, no hook stays behind, and other threads notice nothing.

    Parameters
    ----------
    method : {"guided", "gradient", "deconvnet"}
        What a unit with input u and leak a passes back of the gradient g that reaches it.
        ``gradient``: g where u > 0, else a * g, the derivative. ``deconvnet``: g where g > 0, else 0,
        whatever u was. ``guided``: g where u > 0 and g > 0, else 0.

    Raises
    ------
    UserError
        If there is no such method.

    Notes
    -----
    Springenberg et al. (2015) state guided backpropagation for ReLU: what both the derivative and the
    deconvnet of Zeiler and Fergus (2014) would stop is stopped. The DCGAN paper applies it to LeakyReLU and
    does not say what becomes of the leak. Our choice: backwards there is none, so that the rule is
    Springenberg's; the forward pass keeps it.
    """

    def __init__(self, method: Method) -> None:
        if method not in METHODS:
            raise UserError(f"a method is one of {', '.join(METHODS)}, but got {method!r}")
        super().__init__()
        self.method = method

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the rectifiers' backward pass; leave every other function as it is."""
        kwargs = kwargs or {}
        if function is F.leaky_relu:
            slope = args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)
            return _Rectified.apply(args[0], slope, self.method)
        if function in (F.relu, torch.relu):
            return _Rectified.apply(args[0], 0.0, self.method)
        return function(*args, **kwargs)


class Peak(NamedTuple):
    """Name a unit in an image: the feature, the image's index, the position in the map, and the response there."""

    feature: int
    image: int
    row: int
    column: int
    response: float


@dataclass(frozen=True)
class Maps:
    """Hold saliency: ``values`` float32, p x c x h x w, the gradient of each peak's response, and the peaks."""

    values: np.ndarray
    peaks: tuple[Peak, ...]

    @property
    def strength(self) -> np.ndarray:
        """Return p x h x w: the gradient's absolute values, added over the channels."""
        return np.abs(self.values).sum(1)


def check_network(network: AnyDiscriminator) -> Discriminator:
    """Return the network if its units can be asked; refuse one with classes or without convolutions.

    Raises
    ------
    UserError
        See above.
    """
    if not isinstance(network, Discriminator):
        raise UserError("a unit's position needs convolutions, but this discriminator is dense: choose another")
    if network.config.num_classes:
        raise UserError("this discriminator is told the class of an image: choose one without classes")
    return network


@torch.no_grad()
def responses(
    network: AnyDiscriminator, images_u8: np.ndarray, layer: int = -1, *, batch_size: int = 256
) -> np.ndarray:
    """Return what a layer's units answer, in evaluation mode: float32, n x f x i x j.

    Parameters
    ----------
    network : AnyDiscriminator
        Convolutional, without classes; left as it is.
    images_u8 : ndarray
        uint8, n x c x h x w.
    layer : int, default -1
        Counted from the pixels, or from the end when negative.
    batch_size : int, default 256
        Images at a time; it does not change the answer.

    Raises
    ------
    UserError
        If the network, the images or the layer do not fit.
    """
    network = check_network(network)
    index, was_training = layer_index(layer, len(network.convs)), network.training
    network.eval()
    try:
        parts = [
            network.features(_scaled(images_u8[start : start + batch_size], network))[index].cpu().numpy()
            for start in range(0, len(images_u8), batch_size)
        ]
    finally:
        network.train(was_training)
    return np.concatenate(parts)


def _scaled(images_u8: np.ndarray, network: Discriminator) -> Tensor:
    return from_u8(torch.from_numpy(np.array(images_u8)), network.config).to(network.head.weight.device)


def strongest(responses_nfij: np.ndarray, features: Sequence[int], num: int) -> list[Peak]:
    """Find the strongest responses of single features, each in an image of its own.

    Parameters
    ----------
    responses_nfij : ndarray
        From `responses`.
    features : sequence of int
        Which features; the paper shows the first six of the last layer.
    num : int
        Images a feature.

    Returns
    -------
    list of Peak
        Feature by feature, the strongest first; of equal ones the first.

    Raises
    ------
    UserError
        If there is no such feature, or there are fewer than ``num`` images.
    """
    n, num_features, _, width = responses_nfij.shape
    if not 1 <= num <= n:
        raise UserError(f"{num} images a feature were asked for, but there are {n}: ask for 1 to {n}")
    if wrong := [feature for feature in features if not 0 <= feature < num_features]:
        raise UserError(f"the layer has the features 0 to {num_features - 1}, but got {wrong[0]}")
    peaks = []
    for feature in features:
        flat = responses_nfij[:, feature].reshape(n, -1)
        places = flat.argmax(1)
        for image in np.argsort(-flat.max(1), kind="stable")[:num]:
            row, column = divmod(int(places[image]), width)
            peaks.append(Peak(int(feature), int(image), row, column, float(flat[image, places[image]])))
    return peaks


def input_gradients(
    network: Discriminator, x_pchw: Tensor, units: Sequence[tuple[int, int, int]], method: Method = "guided",
    layer: int = -1,
) -> Tensor:  # fmt: skip
    """Return the gradient of one unit an image with respect to its pixels, p x c x h x w.

    Parameters
    ----------
    network : Discriminator
        In evaluation mode, so that no image depends on its neighbours.
    x_pchw : Tensor
        One image a unit, in the network's value range and floating-point type.
    units : sequence of (int, int, int)
        Feature, row, column.
    method : {"guided", "gradient", "deconvnet"}
        See `BackwardRule`.
    layer : int, default -1
        See `responses`.

    Raises
    ------
    UserError
        If the network is in training mode, or there is not one unit an image.
    """
    if network.training:
        raise UserError("in training mode an image's maps depend on its batch: call eval() on the discriminator first")
    if len(units) != len(x_pchw):
        raise UserError(f"each image needs one unit, but there are {len(x_pchw)} images and {len(units)} units")
    x_pchw = x_pchw.detach().requires_grad_()
    index = layer_index(layer, len(network.convs))
    with torch.enable_grad(), BackwardRule(method):
        maps_pfij = network.features(x_pchw)[index]
        feature, row, column = torch.tensor(list(units), device=x_pchw.device).T
        answers = maps_pfij[torch.arange(len(x_pchw), device=x_pchw.device), feature, row, column].sum()
        # The seed passes the unit's own rectifier too: a unit that is not active has an empty guided map.
        return torch.autograd.grad(answers, x_pchw)[0]


def saliency_maps(
    network: AnyDiscriminator, images_u8: np.ndarray, peaks: Sequence[Peak], method: Method = "guided",
    layer: int = -1, *, batch_size: int = 128,
) -> Maps:  # fmt: skip
    """Return the gradient of each peak's response with respect to the pixels of its image.

    Parameters
    ----------
    network : AnyDiscriminator
        Convolutional, without classes; left as it is.
    images_u8 : ndarray
        uint8, n x c x h x w: the images that the peaks count in.
    peaks : sequence of Peak
        From `strongest`, or made by hand.
    method, layer : optional
        See `input_gradients`.
    batch_size : int, default 128
        Peaks at a time; it does not change the answer.
    """
    network, was_training, parts = check_network(network), network.training, []
    network.eval()
    try:
        for start in range(0, len(peaks), batch_size):
            some = peaks[start : start + batch_size]
            x_pchw = _scaled(images_u8[[peak.image for peak in some]], network)
            units = [(peak.feature, peak.row, peak.column) for peak in some]
            parts.append(input_gradients(network, x_pchw, units, method, layer).cpu().numpy())
    finally:
        network.train(was_training)
    return Maps(np.concatenate(parts), tuple(peaks))
