"""The DCGAN with one rule of the paper's sections 3 and 4 broken, so that its effect can be seen.

An `Ablation` says what is broken; `new_pair` builds the two networks. With nothing broken they are
``models.dcgan``'s, weight for weight, since they are made by it and only then changed. A hidden
dense layer, other kernels, ReLU in D (a slope of 0) and another z need no network of their own:
`ModelConfig` has them.

Axes as in ``models.dcgan``: ``z_bd``, ``x_bchw``, ``logits_b``; ``h`` between two layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError, check_choices
from dcgan_lib.models.dcgan import (
    ConvPlan,
    Discriminator,
    Generator,
    check_images,
    check_latents,
    initialise,
    plan_convolutions,
    squash,
)
from dcgan_lib.models.layers import Conv2d


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Say which rules are broken; the defaults are the paper's."""

    resampling: Literal["strided", "max pooling", "average pooling"] = "strided"
    """How the side is halved in D. Pooling: convolutions keep the side, and G doubles it by
    repeating each value (nearest neighbour) before a convolution. As many weights, about four times
    the work."""
    batch_norm: Literal["paper", "everywhere", "G's output", "D's input", "nowhere"] = "paper"
    """paper: on every layer but G's output and D's first. nowhere: its learnt scale and bias stay,
    and only the normalisation goes, so that the number of weights is the same."""
    head: Literal["flatten", "global average pooling"] = "flatten"
    """What D does with its last maps before the one output."""
    g_output: Literal["bounded", "unbounded"] = "bounded"
    """unbounded: no tanh. D sees the numbers as they are; whoever draws pictures has to clip."""
    g_activation: Literal["relu", "leaky relu", "tanh"] = "relu"
    """On every layer of G but the last."""
    d_activation: Literal["leaky relu", "maxout"] = "leaky relu"
    """maxout: each layer of D has twice the maps, and of each pair the larger passes."""
    weights: Literal["paper", "N(0, 0.2)", "PyTorch", "He"] = "paper"
    """How weights are drawn. paper: N(0, 0.02). PyTorch: uniform, the framework's default. He:
    normal, with a standard deviation that keeps the scale of what passes."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_choices(self)

    @property
    def broken(self) -> tuple[str, ...]:
        """Return the names of the fields that differ from the paper."""
        return tuple(
            entry.name for entry in fields(self) if getattr(self, entry.name) != entry.default
        )


def new_pair(config: ModelConfig, ablation: Ablation) -> tuple[Generator, Discriminator]:
    """Return an untrained pair, its weights drawn from PyTorch's global random numbers.

    Raises
    ------
    UserError
        If the configuration is dense or conditional, or its kernel cannot keep the side.
    """
    if config.architecture != "convolutional" or config.num_classes:
        raise UserError(
            "an ablation needs an unconditional convolutional configuration; got architecture "
            f"{config.architecture!r} and num_classes {config.num_classes}"
        )
    if ablation.resampling != "strided" and config.kernel_size % 2 == 0:
        raise UserError(
            f"kernel_size {config.kernel_size} cannot keep the side, as pooling needs: use 3 or 5"
        )
    return AblatedGenerator(config, ablation), AblatedDiscriminator(config, ablation)


class AblatedGenerator(Generator):
    """Turn latent vectors into images as `Generator` does, but for what the ablation breaks."""

    def __init__(self, config: ModelConfig, ablation: Ablation) -> None:
        super().__init__(config)
        self.ablation = ablation
        self.activate = ACTIVATIONS[ablation.g_activation]
        with torch.random.fork_rng(devices=[]):  # what is drawn anew leaves D's weights alone
            self._change(plan_convolutions(config)[::-1])

    def _change(self, plan: list[ConvPlan]) -> None:
        config, ablation = self.config, self.ablation
        if ablation.resampling != "strided":
            self.convs = nn.ModuleList(_upsampling(layer) for layer in plan)
            self.convs.apply(initialise)
        self.output_norm = nn.Identity()
        if ablation.batch_norm in ("everywhere", "G's output"):
            self.output_norm = nn.BatchNorm2d(config.num_channels, eps=config.bn_eps)
            initialise(self.output_norm)
        if ablation.batch_norm == "nowhere":
            _keep_scale_and_bias(self)
        if ablation.weights != "paper":
            self.apply(WEIGHTS[ablation.weights])

    def forward(self, z_bd: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return images ``x_bchw``; there are no labels."""
        check_latents(z_bd, self.config)
        h = z_bd
        if self.config.hidden_units:
            h = self.activate(self.hidden_norm(self.hidden(h)))
        h = self.project(h)
        if self.config.projection_bn == "channel":
            h = self.project_norm(h.unflatten(1, self.base_shape))
        else:
            h = self.project_norm(h).unflatten(1, self.base_shape)
        h = self.activate(h)
        for conv, norm in zip(self.convs, self.norms, strict=False):
            h = self.activate(norm(conv(h)))
        h = self.output_norm(self.convs[-1](h))
        return squash(h, self.config) if self.ablation.g_output == "bounded" else h.float()


class AblatedDiscriminator(Discriminator):
    """Judge images as `Discriminator` does, but for what the ablation breaks."""

    def __init__(self, config: ModelConfig, ablation: Ablation) -> None:
        super().__init__(config)
        self.ablation = ablation
        self.pool = POOLS[ablation.resampling]
        with torch.random.fork_rng(devices=[]):
            self._change(plan_convolutions(config))

    def _change(self, plan: list[ConvPlan]) -> None:
        config, ablation = self.config, self.ablation
        norm = {"eps": config.bn_eps, "affine": config.bn_affine}
        pairs = 1
        if ablation.d_activation == "maxout":
            pairs = 2
            wide = [nn.BatchNorm2d(2 * layer.coarse_channels, **norm) for layer in plan[1:]]
            self.convs = nn.ModuleList(_doubled(layer) for layer in plan)
            self.norms = nn.ModuleList([nn.Identity(), *wide])
            self.convs.apply(initialise)
            self.norms.apply(initialise)
        if ablation.resampling != "strided":
            for conv in self.convs:
                conv.stride = (1, 1)
        if ablation.batch_norm in ("everywhere", "D's input"):
            self.norms[0] = nn.BatchNorm2d(pairs * plan[0].coarse_channels, **norm)
            initialise(self.norms[0])
        if ablation.head != "flatten":
            inputs = config.hidden_units or plan[-1].coarse_channels
            if config.hidden_units:
                self.hidden = nn.Linear(plan[-1].coarse_channels, inputs, bias=False)
                initialise(self.hidden)
            self.head = nn.Linear(inputs, 1, bias=False)
            initialise(self.head)
        if ablation.batch_norm == "nowhere":
            _keep_scale_and_bias(self)
        if ablation.weights != "paper":
            self.apply(WEIGHTS[ablation.weights])

    def features(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> list[Tensor]:
        """Return the activations of every convolutional layer, after pooling, finest first."""
        check_images(x_bchw, self.config)
        maps, h = [], x_bchw
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = self.pool(self._activate(norm(conv(h))))
            maps.append(h)
        return maps

    def forward(self, x_bchw: Tensor, labels_b: Tensor | None = None) -> Tensor:
        """Return ``logits_b``, float32, one per image."""
        h = self.features(x_bchw)[-1]
        h = h.permute(0, 2, 3, 1).flatten(1) if self.ablation.head == "flatten" else h.mean((2, 3))
        if self.config.hidden_units:
            h = F.leaky_relu(self.hidden_norm(self.hidden(h)), self.config.leaky_slope)
        return self.head(h).squeeze(1).float()

    def _activate(self, h: Tensor) -> Tensor:
        if self.ablation.d_activation == "maxout":
            return torch.maximum(*h.chunk(2, 1))
        return F.leaky_relu(h, self.config.leaky_slope)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Describe one layer of a pair, with the normalisation and the pooling that follow it."""

    name: str
    shape: str
    """Of what it gives: maps x height x width, or units."""
    weights: int
    multiplications: int
    """For one picture, without normalisation."""
    field: int
    """Side in pixels of the square that one cell of its output sees (D) or changes (G), cut at
    the picture's."""


def describe_pair(config: ModelConfig, ablation: Ablation) -> dict[str, list[Layer]]:
    """Return the layers of ``generator`` and ``discriminator``, in order, for square pictures."""
    with torch.random.fork_rng(devices=[]):
        generator, discriminator = new_pair(config, ablation)
    pooled = ablation.resampling != "strided"
    z_bd = torch.zeros(2, config.z_dim)
    x_bchw = torch.zeros(2, config.num_channels, *config.image_size)
    whole = config.image_size[0]

    # Backwards from the picture: what one cell of each layer's output changes.
    reach, reaches = 1, [1]
    for layer in plan_convolutions(config):
        wide = 2 * reach if pooled else 2 * (reach - 1) + 1
        reach = wide + layer.kernel_size - 1
        reaches.insert(0, reach)
    hidden = [("hidden", "hidden_norm")] if config.hidden_units else []
    up = [(f"convs.{k}", f"norms.{k}") for k in range(len(reaches) - 1)]
    places = [*hidden, ("project", "project_norm"), *up]
    places[-1] = (places[-1][0], "output_norm")
    names = [*("hidden" for _ in hidden), "project", *(f"up {k + 1}" for k in range(len(up)))]
    fields_g = [*(whole for _ in hidden), *reaches]
    rows_g = _describe(generator, z_bd, places, names, fields_g, whole)
    first = len(hidden)
    rows_g[first] = replace(rows_g[first], shape=" × ".join(map(str, generator.base_shape)))

    # Forwards from the picture: what one cell of each layer's output sees.
    field, distance, fields_d = 1, 1, []
    for conv in discriminator.convs:
        field += (conv.kernel_size[0] - 1) * distance
        distance *= conv.stride[0]
        if pooled:
            field, distance = field + distance, 2 * distance
        fields_d.append(field)
    places = [(f"convs.{k}", f"norms.{k}") for k in range(len(fields_d))]
    names = [f"down {k + 1}" for k in range(len(fields_d))]
    places += [*hidden, ("head", "")]
    names += [*("hidden" for _ in hidden), "output"]
    fields_d += [whole] * (len(hidden) + 1)
    rows_d = _describe(discriminator, x_bchw, places, names, fields_d, whole)
    with torch.no_grad():
        maps = discriminator.eval().features(x_bchw)
    for k, h in enumerate(maps):  # after maxout and pooling
        rows_d[k] = replace(rows_d[k], shape=_shape(h))
    return {"generator": rows_g, "discriminator": rows_d}


def _describe(
    network: nn.Module,
    inputs: Tensor,
    places: list[tuple[str, str]],
    names: list[str],
    fields: list[int],
    whole: int,
) -> list[Layer]:
    shapes, multiplied = {}, {}

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[layer] = _shape(output)
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # Each weight meets each cell once: of the output, or, where stamped, of the input.
            cells = given[0] if isinstance(layer, nn.ConvTranspose2d) else output
            multiplied[layer] = layer.weight.numel() * cells[0, 0].numel()

    hooks = [layer.register_forward_hook(note) for layer in network.modules()]
    with torch.no_grad():
        network.eval()(inputs)
    for hook in hooks:
        hook.remove()
    rows = []
    for (place, norm), name, field in zip(places, names, fields, strict=True):
        layer = network.get_submodule(place)
        parts = [layer, network.get_submodule(norm)] if norm else [layer]
        rows.append(
            Layer(
                name=name,
                shape=shapes[layer],
                weights=sum(each.numel() for part in parts for each in part.parameters()),
                multiplications=sum(multiplied.get(part, 0) for part in layer.modules()),
                field=min(field, whole),
            )
        )
    return rows


def _shape(h: Tensor) -> str:
    return " × ".join(str(side) for side in h.shape[1:])


class ScaleAndBias(nn.Module):
    """Scale and shift each map or unit as batch norm does at its end, without normalising."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num))
        self.bias = nn.Parameter(torch.zeros(num))

    def forward(self, h: Tensor) -> Tensor:
        """Return ``h``, (b, num) or (b, num, h, w), scaled and shifted."""
        shape = (1, -1) if h.dim() == 2 else (1, -1, 1, 1)
        return h * self.weight.view(shape).to(h.dtype) + self.bias.view(shape).to(h.dtype)


def _keep_scale_and_bias(network: nn.Module) -> None:
    """Put `ScaleAndBias` in the place of every batch norm, with the weights that it had."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                plain = ScaleAndBias(child.num_features) if child.affine else nn.Identity()
                if child.affine:
                    plain.load_state_dict({"weight": child.weight, "bias": child.bias})
                setattr(module, name, plain)


def _upsampling(layer: ConvPlan) -> nn.Sequential:
    kernel = layer.kernel_size
    return nn.Sequential(
        nn.Upsample(size=layer.fine_size, mode="nearest"),
        Conv2d(layer.coarse_channels, layer.fine_channels, kernel, 1, kernel // 2, bias=False),
    )


def _doubled(layer: ConvPlan) -> Conv2d:
    return Conv2d(
        layer.fine_channels,
        2 * layer.coarse_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        bias=False,
    )


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky relu": lambda h: F.leaky_relu(h, 0.2),
    "tanh": torch.tanh,
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "strided": lambda h: h,
    "max pooling": lambda h: F.max_pool2d(h, 2),
    "average pooling": lambda h: F.avg_pool2d(h, 2),
}


def _draw_wide(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.2)


def _draw_as_pytorch(module: nn.Module) -> None:
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


def _draw_as_he(module: nn.Module) -> None:
    """Draw N(0, 2 / inputs), where inputs counts the numbers that one output is a sum of."""
    if isinstance(module, nn.ConvTranspose2d):
        # Each output of a fractionally strided layer meets every stride-th tap of the kernel.
        taps = module.weight[0, 0].numel() / (module.stride[0] * module.stride[1])
        nn.init.normal_(module.weight, 0.0, (2 / (module.in_channels * taps)) ** 0.5)
    elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


WEIGHTS: dict[str, Callable[[nn.Module], None]] = {
    "N(0, 0.2)": _draw_wide,
    "PyTorch": _draw_as_pytorch,
    "He": _draw_as_he,
}
