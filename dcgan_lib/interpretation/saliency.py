"""What single units of a discriminator answer to: the gradient of their response to the pixels.

Guided backpropagation (section 6.2, Fig. 5) and its two relatives, the receptive field of a unit,
the controls (networks that were never trained, layers made random), and how much of a map lies on
an object.

Axes: n images, p peaks, f features with k peaks each, o objects, i j a map's rows and columns, c
channels, h x w pixels; ``_u8`` pixels 0..255. A layer is counted from the pixels, or from the end
when negative.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dcgan_lib.config import ModelConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import positions_inside
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval
from dcgan_lib.models.dcgan import Discriminator, initialise, plan_convolutions
from dcgan_lib.models.networks import AnyDiscriminator, check_dcgan, untrained_discriminator
from dcgan_lib.models.sampling import GAP, in_batches, measure_batch_norm, network_input, seeded

Method = Literal["guided", "gradient", "deconvnet"]
PEAKS_AT_ONCE = 512
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

    The network is not touched: nothing is patched, no hook stays behind, and other threads notice
    nothing. The method is what a unit with input u and leak a passes back of the gradient g that
    reaches it. ``gradient``: g where u > 0, else a * g, the derivative. ``deconvnet``: g where g >
    0, else 0, whatever u was. ``guided``: g where u > 0 and g > 0, else 0.

    Springenberg et al. (2015) state guided backpropagation for ReLU: what both the derivative and
    the deconvnet of Zeiler and Fergus (2014) would stop is stopped. The DCGAN paper applies it to
    LeakyReLU and does not say what becomes of the leak. Our choice: backwards there is none, so
    that the rule is Springenberg's; the forward pass keeps it.
    """

    def __init__(self, method: Method) -> None:
        if method not in METHODS:
            raise UserError(f"a method is one of {', '.join(METHODS)}, but got {method!r}")
        super().__init__()
        self.method = method

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
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
    """A unit in an image: its feature, the image's index, its place in the map, the response."""

    feature: int
    image: int
    row: int
    column: int
    response: float


@dataclass(frozen=True)
class Maps:
    """Saliency: ``values`` float32, p x c x h x w, the gradient of each peak's response."""

    values: np.ndarray
    peaks: tuple[Peak, ...]

    @property
    def strength(self) -> np.ndarray:
        """Return p x h x w: the gradient's absolute values, added over the channels."""
        return np.abs(self.values).sum(1)


def layer_index(layer: int, num_layers: int) -> int:
    """Return a layer's place counted from the pixels; refuse one that is not there."""
    if not -num_layers <= layer < num_layers:
        raise UserError(
            f"the discriminator has the convolutional layers 0 to {num_layers - 1}, "
            f"but layer is {layer}"
        )
    return layer % num_layers


@contextmanager
def _evaluating(network: AnyDiscriminator) -> Iterator[Discriminator]:
    """Give the network in evaluation mode; its mode comes back at the end."""
    network, was_training = check_dcgan(network), network.training
    network.eval()
    try:
        yield network
    finally:
        network.train(was_training)


def responses(network: AnyDiscriminator, images_u8: np.ndarray, layer: int = -1) -> np.ndarray:
    """Return what a layer's units answer, in evaluation mode: float32, n x f x i x j."""
    with _evaluating(network) as network:
        index = layer_index(layer, len(network.convs))

        def answer(part_u8: np.ndarray) -> Tensor:
            return network.features(network_input(network, part_u8))[index]

        return in_batches(answer, images_u8)


def strongest(responses_nfij: np.ndarray, features: Sequence[int], num: int) -> list[Peak]:
    """Return each feature's ``num`` strongest responses, in order, each in an image of its own."""
    n, num_features, _, width = responses_nfij.shape
    if not 1 <= num <= n:
        raise UserError(
            f"{num} images a feature were asked for, but there are {n}: ask for 1 to {n}"
        )
    if wrong := [feature for feature in features if not 0 <= feature < num_features]:
        raise UserError(f"the layer has the features 0 to {num_features - 1}, but got {wrong[0]}")
    peaks = []
    for feature in features:
        flat = responses_nfij[:, feature].reshape(n, -1)
        places = flat.argmax(1)
        for image in np.argsort(-flat.max(1), kind="stable")[:num]:
            row, column = divmod(int(places[image]), width)
            response = float(flat[image, places[image]])
            peaks.append(Peak(int(feature), int(image), row, column, response))
    return peaks


def input_gradients(
    network: Discriminator,
    x_pchw: Tensor,
    units: Sequence[tuple[int, int, int]],
    method: Method = "guided",
    layer: int = -1,
) -> Tensor:
    """Return the gradient of one unit an image with respect to its pixels, p x c x h x w.

    The network must be in evaluation mode, so that no image depends on its neighbours; the images
    are in its value range and floating-point type. A unit is its feature, row and column.
    """
    if network.training:
        raise UserError(
            "in training mode an image's maps depend on its batch: call eval() on it first"
        )
    if len(units) != len(x_pchw):
        raise UserError(
            f"each image needs one unit, but there are {len(x_pchw)} images and {len(units)} units"
        )
    x_pchw = x_pchw.detach().requires_grad_()
    index = layer_index(layer, len(network.convs))
    with torch.enable_grad(), BackwardRule(method):
        maps_pfij = network.features(x_pchw)[index]
        feature, row, column = torch.tensor(list(units), device=x_pchw.device).T
        image = torch.arange(len(x_pchw), device=x_pchw.device)
        answers = maps_pfij[image, feature, row, column].sum()
        # The seed passes the unit's own rectifier too: a unit that is not active has an empty
        # guided map.
        return torch.autograd.grad(answers, x_pchw)[0]


def saliency_maps(
    network: AnyDiscriminator,
    images_u8: np.ndarray,
    peaks: Sequence[Peak],
    method: Method = "guided",
    layer: int = -1,
    *,
    batch_size: int = 128,
) -> Maps:
    """Return the gradient of each peak's response with respect to the pixels of its image."""
    units = np.array([(peak.feature, peak.row, peak.column) for peak in peaks])
    images = np.array([peak.image for peak in peaks])
    with _evaluating(network) as network:

        def gradients(images_p: np.ndarray, units_p3: np.ndarray) -> Tensor:
            x_pchw = network_input(network, images_u8[images_p])
            return input_gradients(network, x_pchw, units_p3.tolist(), method, layer)

        return Maps(in_batches(gradients, images, units, batch_size=batch_size), tuple(peaks))


# --- what a unit sees ---
class Field(NamedTuple):
    """A layer's receptive fields, in pixels: side, distance of neighbours, start of the first."""

    size: int
    step: int
    start: int

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of a unit's field; it may reach outside the image."""
        left, top = self.start + column * self.step, self.start + row * self.step
        return left, top, left + self.size, top + self.size


def receptive_field(config: ModelConfig, layer: int = -1) -> Field:
    """Return a convolutional layer's receptive fields: 61 pixels for four of kernel 5, stride 2."""
    plan = plan_convolutions(config)
    size, step, start = 1, 1, 0
    for conv in plan[: layer_index(layer, len(plan)) + 1]:
        start -= (config.kernel_size - 1) // 2 * step
        size += (config.kernel_size - 1) * step
        step *= conv.stride
    return Field(size, step, start)


# --- controls ---
def fresh_network(config: ModelConfig, images_u8: np.ndarray | None, seed: int) -> Discriminator:
    """Return an untrained discriminator; its batch norm has measured these images, two or more.

    Without images batch norm stays as it is made, with mean 0 and variance 1. Which of the two
    makes the stronger control depends on what is measured.
    """
    seeded(seed)  # refuses what is no seed
    network = check_dcgan(untrained_discriminator(config, seed))
    if images_u8 is None:
        return network
    return measure_batch_norm(network, images_u8, range(len(network.convs)))


def randomised(
    network: AnyDiscriminator, num_layers: int, images_u8: np.ndarray, seed: int
) -> Discriminator:
    """Return a copy whose last convolutional layers have fresh weights; the first ones stay.

    The cascade of Adebayo et al. (2018), from the layer that is asked down to the pixels. Batch
    norm of those layers starts anew and is measured on ``images_u8``.
    """
    changed = copy.deepcopy(check_dcgan(network))
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


def rank_correlations(one: Maps, other: Maps, field: Field) -> np.ndarray:
    """Return Spearman's correlation of the strength of two sets of maps, one number a peak.

    Only pixels that the peak can see count; outside its receptive field both maps are 0. An empty
    map can be compared with nothing: NaN. (A guided map is empty when its unit is not active, as
    after a change of the weights.) Peaks may differ in the feature and the response only.
    """
    if [peak[1:4] for peak in one.peaks] != [peak[1:4] for peak in other.peaks]:
        raise UserError("maps can be compared only at the same positions of the same images")
    found = []
    for peak, a_hw, b_hw in zip(one.peaks, one.strength, other.strength, strict=True):
        left, top, right, bottom = field.window(peak.row, peak.column)
        seen = slice(max(top, 0), bottom), slice(max(left, 0), right)
        a, b = a_hw[seen].ravel(), b_hw[seen].ravel()
        constant = np.ptp(a) == 0 or np.ptp(b) == 0
        found.append(np.nan if constant else float(spearmanr(a, b).statistic))
    return np.array(found)


# --- objects and their boxes ---
def boxes_in(image_set: ImageSet, objects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the true boxes of some objects, n x 4 each; empty when the set has no boxes at all."""
    known = [name.removesuffix("_box") for name in image_set.attributes if name.endswith("_box")]
    if wrong := [name for name in objects if name not in known] if known else []:
        raise UserError(
            f"{image_set.name} has boxes of {', '.join(known)}, but not of {', '.join(wrong)}"
        )
    return {name: image_set.attributes[f"{name}_box"] for name in objects} if known else {}


@dataclass(frozen=True)
class Shares:
    """Each peak's share of saliency inside an object's box, and the box's share of what it sees.

    ``inside`` and ``area`` are float64, f x k for k peaks a feature; both 0 where the object is
    absent or the map is empty. ``image``, int64, f x k, is the image of each peak.
    """

    inside: dict[str, np.ndarray]
    area: dict[str, np.ndarray]
    image: np.ndarray

    def lifts(self, name: str) -> np.ndarray:
        """Return each feature's lift, shape (f,): inside over area; 0 where it met no object."""
        inside, area = self.inside[name].sum(1), self.area[name].sum(1)
        return np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)

    def by_image(self, name: str, num_images: int) -> np.ndarray:
        """Return inside and area added up per image, shape (n, 2), for a bootstrap over images."""
        sums = [
            np.bincount(self.image.ravel(), x[name].ravel(), num_images)
            for x in (self.inside, self.area)
        ]
        return np.stack(sums, 1)


def measure_shares(
    network: Discriminator,
    images_u8: np.ndarray,
    boxes: Mapping[str, np.ndarray],
    peaks: Sequence[Peak],
    num_features: int,
    method: Method = "guided",
    layer: int = -1,
) -> Shares:
    """Measure how much of each peak's saliency lies in boxes; `strongest` sorts the peaks."""
    field, size = receptive_field(network.config, layer), network.config.image_size

    def shares(some: Sequence[Peak]) -> np.ndarray:
        strength = saliency_maps(network, images_u8, some, method, layer).strength
        strength = strength.astype(np.float64)
        total = strength.sum((1, 2))
        windows = np.array([field.window(peak.row, peak.column) for peak in some])
        seen = positions_inside(windows, size, size)
        found = []
        for boxes_n4 in boxes.values():
            in_box = positions_inside(boxes_n4[[peak.image for peak in some]], size, size)
            part = (strength * in_box).sum((1, 2))
            inside = np.divide(part, total, out=np.zeros_like(part), where=total > 0)
            area = (total > 0) * (in_box & seen).sum((1, 2)) / seen.sum((1, 2))
            found.append(np.stack([inside, area], 1))
        return np.stack(found, 1)

    found_po2 = in_batches(shares, peaks, batch_size=PEAKS_AT_ONCE)
    found_fko2 = found_po2.reshape(num_features, -1, len(boxes), 2)
    return Shares(
        {name: found_fko2[:, :, o, 0] for o, name in enumerate(boxes)},
        {name: found_fko2[:, :, o, 1] for o, name in enumerate(boxes)},
        np.array([peak.image for peak in peaks]).reshape(num_features, -1),
    )


def choose_features(shares: Shares, name: str, num: int) -> list[int]:
    """Return the features whose saliency lies most on an object, relative to its area.

    Features that hardly meet the object at their strongest responses do not count: their area must
    be at least a third of the features' mean.
    """
    area = shares.area[name].mean(1)
    score = np.where(area >= area.mean() / 3, shares.lifts(name), -1.0)
    return np.argsort(-score, kind="stable")[:num].tolist()


def lift(sums_n2: np.ndarray) -> float:
    """Return saliency inside over area, of sums per image; 1 where it is spread evenly."""
    inside, area = sums_n2.sum(0)
    return float(inside / area) if area > 0 else 0.0


def estimate_lift(sums_n2: np.ndarray) -> Estimate:
    """Return `lift` with its interval over images."""
    return bootstrap_interval(lift, sums_n2)


# --- as pictures ---
GREY = 128


def shown(values_pchw: np.ndarray) -> np.ndarray:
    """Return gradients as pictures, uint8: grey is 0, brighter positive, darker negative.

    Each is scaled by its own 99.5th percentile, so that brightness cannot be compared between
    pictures.
    """
    highest = np.quantile(np.abs(values_pchw), 0.995, axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(values_pchw, highest, out=np.zeros_like(values_pchw), where=highest > 0)
    return (GREY + 127 * scaled.clip(-1, 1)).round().astype(np.uint8)


def crop(
    picture_chw: np.ndarray, window: tuple[int, int, int, int], fill: int = GREY
) -> np.ndarray:
    """Cut a window out of a picture; where the window reaches outside, ``fill`` is put."""
    left, top, right, bottom = window
    height, width = picture_chw.shape[1:]
    if not (max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)):
        raise UserError(
            f"the window {window} shows nothing of a picture of {width} x {height} pixels"
        )
    margin = max(-left, -top, right - width, bottom - height, 0)
    pads = [(0, 0), (margin, margin), (margin, margin)]
    padded = np.pad(picture_chw, pads, constant_values=fill)
    return padded[:, top + margin : bottom + margin, left + margin : right + margin]


def map_tiles(maps: Maps, field: Field) -> np.ndarray:
    """Return each map cut to its peak's receptive field: uint8, p x c x size x size."""
    return _tiles(shown(maps.values), maps.peaks, field)


def image_tiles(images_u8: np.ndarray, peaks: Sequence[Peak], field: Field) -> np.ndarray:
    """Return the part of its image that each peak sees: uint8, p x c x size x size."""
    return _tiles(images_u8[[peak.image for peak in peaks]], peaks, field)


def _tiles(pictures_pchw: np.ndarray, peaks: Sequence[Peak], field: Field) -> np.ndarray:
    windows = [field.window(peak.row, peak.column) for peak in peaks]
    return np.stack([crop(*pair) for pair in zip(pictures_pchw, windows, strict=True)])


def read_sheet(path: str | Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the halves, fresh and trained, of a sheet of tiles that ``dcgan saliency`` wrote.

    Each is uint8, p x 3 x size x size, read row by row; the sheet may be in any format.
    """
    pixels_hwc, step = np.asarray(Image.open(path).convert("RGB"))[GAP:, GAP:], size + GAP
    (rows, over), (columns, aside) = (divmod(side, step) for side in pixels_hwc.shape[:2])
    if over or aside or columns % 2 or not rows:
        raise UserError(
            f"{Path(path).name} has no two halves of tiles of {size} pixels: "
            "it is no sheet of such maps"
        )
    tiles = pixels_hwc.reshape(rows, step, columns, step, 3)[:, :size, :, :size]
    fresh, trained = np.split(tiles.transpose(0, 2, 4, 1, 3), 2, axis=1)
    return fresh.reshape(-1, 3, size, size), trained.reshape(-1, 3, size, size)


def outlined(picture_chw: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return a copy of a picture with a frame along a box (left, top, right, bottom).

    The frame is one pixel wide and white between black lines where there is room, so that it shows
    on any ground. A box of NaN, of an object that is absent, leaves the picture as it is.
    """
    framed = picture_chw.copy()
    if np.isnan(box).any():
        return framed
    left, top, right, bottom = (int(edge) for edge in box)
    for inset, value in ((-1, 0), (1, 0), (0, 255)):
        x0, y0 = max(left + inset, 0), max(top + inset, 0)
        x1, y1 = min(right - inset, framed.shape[2]), min(bottom - inset, framed.shape[1])
        if x1 - x0 > 1 and y1 - y0 > 1:
            framed[:, [y0, y1 - 1], x0:x1] = value
            framed[:, y0:y1, [x0, x1 - 1]] = value
    return framed
