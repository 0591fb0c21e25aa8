"""Print a network as a table of layers with their shapes."""

import torch
from torch import Tensor, nn

from dcgan_lib.models.baselines import AnyDiscriminator, AnyGenerator

_SHOWN = nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm1d | nn.BatchNorm2d


def _settings(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return f"{layer.kernel_size[0]}x{layer.kernel_size[1]}, stride {layer.stride[0]}"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return "scale and bias" if layer.affine else "no scale, no bias"
    return ""


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape[1:]))


@torch.no_grad()
def layer_table(network: AnyGenerator | AnyDiscriminator) -> list[dict[str, str | int]]:
    """Trace the shapes through a network.

    Parameters
    ----------
    network : AnyGenerator or AnyDiscriminator
        Left as it is.

    Returns
    -------
    list of dict
        One row a layer, in the order of the data: ``layer``, ``kind``, ``settings``, ``input``,
        ``output`` (shapes without the batch axis) and ``weights``.
    """
    rows, config, was_training = [], network.config, network.training
    names = {module: name for name, module in network.named_modules()}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = sum(parameter.numel() for parameter in layer.parameters())
        rows.append(
            {
                "layer": names[layer],
                "kind": type(layer).__name__,
                "settings": _settings(layer),
                "input": _shape(inputs[0]),
                "output": _shape(output),
                "weights": weights,
            }
        )

    hooks = [module.register_forward_hook(note) for module in names if isinstance(module, _SHOWN)]
    device = next(network.parameters()).device
    shape = (
        (config.z_dim,)
        if isinstance(network, AnyGenerator)
        else (config.num_channels, *config.image_size)
    )
    labels = torch.zeros(1, dtype=torch.long, device=device) if config.num_classes else None
    try:
        network.eval()(torch.zeros(1, *shape, device=device), labels)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return rows


def describe(network: AnyGenerator | AnyDiscriminator) -> str:
    """Return the layer table as text, one line a layer, with the number of weights at the end."""
    rows = layer_table(network)
    heads = list(rows[0])
    cells = [
        heads,
        *(
            [f"{row[head]:,}" if head == "weights" else str(row[head]) for head in heads]
            for row in rows
        ),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    lines = [
        "  ".join(
            cell.rjust(width) if head == "weights" else cell.ljust(width)
            for head, cell, width in zip(heads, line, widths, strict=True)
        )
        for line in cells
    ]
    total = sum(int(row["weights"]) for row in rows)
    rule = "-" * len(lines[0])
    return "\n".join([f"{type(network).__name__}: {total:,} weights", lines[0], rule, *lines[1:]])
