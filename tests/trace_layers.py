"""Follow one picture or latent vector through a network, layer by layer."""

import torch
from torch import Tensor, nn

TRACED = nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm1d | nn.BatchNorm2d


@torch.no_grad()
def trace_layers(network: nn.Module) -> list[tuple[str, str, str]]:
    """Return each layer's kind, and the shapes of what goes in and comes out, without the batch."""
    rows, config = [], network.config

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes = (" x ".join(map(str, x.shape[1:])) for x in (inputs[0], output))
        rows.append((type(layer).__name__, *shapes))

    for layer in network.modules():
        if isinstance(layer, TRACED):
            layer.register_forward_hook(note)
    image = (config.num_channels, *config.image_size)
    shape = (config.z_dim,) if "Generator" in type(network).__name__ else image
    labels = torch.zeros(1, dtype=torch.long) if config.num_classes else None
    network.eval()(torch.zeros(1, *shape), labels)
    return rows
