"""State dicts of the PyTorch example and of the tutorial made of it, turned into checkpoints.

https://github.com/pytorch/examples/tree/main/dcgan writes ``netG_epoch_24.pth`` and
``netD_epoch_24.pth``. Its pair is the DCGAN of this library with kernel 4, normal z and batch norm
over channels, so the same numbers give the same pictures. Two layers are written otherwise there:
a transposed convolution of one cell of z to 4x4 is our projection, and a convolution of 4x4 to one
cell is our output.

Only tensors are read from a file. One that wants to run code is refused.
"""

import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import is_plain_name
from dcgan_lib.errors import UserError, require
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.networks import untrained_discriminator, untrained_generator
from dcgan_lib.training.checkpoints import check_import_place, write_import

EXAMPLE = "https://github.com/pytorch/examples/tree/main/dcgan"
NORM = ("weight", "bias", "running_mean", "running_var")

GENERATOR_LAYERS = {
    "main.0": "project",
    "main.1": "project_norm",
    "main.3": "convs.0",
    "main.4": "norms.0",
    "main.6": "convs.1",
    "main.7": "norms.1",
    "main.9": "convs.2",
    "main.10": "norms.2",
    "main.12": "convs.3",
}
"""The example's name of each layer, and ours."""
DISCRIMINATOR_LAYERS = {
    "main.0": "convs.0",
    "main.2": "convs.1",
    "main.3": "norms.1",
    "main.5": "convs.2",
    "main.6": "norms.2",
    "main.8": "convs.3",
    "main.9": "norms.3",
    "main.11": "head",
}

# ---------------------------------------------------------------- reading


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.pth`` file on the CPU, without the ``module.`` of DataParallel.

    Raises
    ------
    UserError
        If it is not there, damaged, or anything but a state dict. Code in it is never run.
    """
    path = Path(path)
    expected = f"{path} should be a state dict, as torch.save(netG.state_dict(), FILE) writes it"
    if not path.is_file():
        raise UserError(f"{expected}, but there is no such file: give the path of a .pth")
    if _is_torchscript(path):
        raise UserError(f"{expected}, but is a TorchScript archive: save the network's state dict")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{expected}, but holds more than tensors, such as a whole network or code, which is "
            "not run, or is another kind of file: save the network's state dict alone"
        ) from error
    except Exception as error:  # hostile bytes end the unpickler in a dozen ways
        raise UserError(
            f"{expected}, but is cut off, damaged or another kind of file: copy it again"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(
            f"{expected}, but holds a {type(found).__name__} of other things: take the state dict "
            "out of it"
        )
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _is_torchscript(path: Path) -> bool:
    """Return whether a file is a zip archive with the part that only TorchScript writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == "constants.pkl" for name in archive.namelist())
    except Exception:  # an older format, or damaged in one of many ways: the reader says so
        return False


def read_generator(path: str | Path) -> Generator:
    """Return the generator of a ``.pth`` file, in evaluation mode.

    Raises
    ------
    UserError
        If the file is no state dict, or not one of the example's generator.
    """
    theirs = read_state_dict(path)
    _check_names(path, theirs, "generator", GENERATOR_LAYERS, DISCRIMINATOR_LAYERS)
    z_dim = theirs["main.0.weight"].shape[0]
    width, channels, *_ = theirs["main.12.weight"].shape
    generator = untrained_generator(_model(path, width, channels, z_dim))
    ours = _renamed(theirs, GENERATOR_LAYERS)
    # z x channels x 4 x 4 becomes units x z, as one cell of z is multiplied by it.
    ours["project.weight"] = ours["project.weight"].flatten(1).T
    return _filled(path, generator, ours)


def read_discriminator(path: str | Path) -> Discriminator:
    """Return the discriminator of a ``.pth`` file; see `read_generator`."""
    theirs = read_state_dict(path)
    _check_names(path, theirs, "discriminator", DISCRIMINATOR_LAYERS, GENERATOR_LAYERS)
    width, channels, *_ = theirs["main.0.weight"].shape
    discriminator = untrained_discriminator(_model(path, width, channels, 100))
    ours = _renamed(theirs, DISCRIMINATOR_LAYERS)
    # Our last maps are flattened one cell after another, each with all of its channels.
    ours["head.weight"] = ours["head.weight"].permute(0, 2, 3, 1).flatten(1)
    return _filled(path, discriminator, ours)


def _check_names(
    path: str | Path,
    theirs: dict[str, Tensor],
    kind: str,
    layers: dict[str, str],
    layers_of_other: dict[str, str],
) -> None:
    """Refuse a state dict with other layers than the example's, or with others besides."""
    # PyTorch writes the counters from 0.4 on, and no network needs them.
    found, wanted = theirs.keys() - _counters(layers), _names(layers)
    if theirs.keys() - _counters(layers_of_other) == _names(layers_of_other):
        other = {"generator": "discriminator", "discriminator": "generator"}[kind]
        raise UserError(
            f"{path} should be a {kind}, but is a {other}: give the generator first, then the "
            "discriminator"
        )
    missing, foreign = sorted(wanted - found), sorted(found - wanted)
    convolutions = [f"{name}.weight" for name, ours in layers.items() if "norm" not in ours]
    if missing:
        what = f"it lacks {missing[0]}"
    elif foreign:
        what = f"it also has {foreign[0]}"
    elif any(theirs[name].dim() != 4 for name in convolutions):
        what = "its layers are of another kind"
    else:
        return
    raise UserError(
        f"{path} is not a {kind} of the PyTorch example ({EXAMPLE}), which has five convolutions, "
        f"main.0 to {list(layers)[-1]}, for pictures of 64 x 64: {what}"
    )


def _names(layers: dict[str, str]) -> set[str]:
    """Return the names of the tensors of some layers, as the example writes them."""
    return {
        f"{theirs}.{part}"
        for theirs, ours in layers.items()
        for part in (NORM if "norm" in ours else NORM[:1])
    }


def _counters(layers: dict[str, str]) -> set[str]:
    return {f"{theirs}.num_batches_tracked" for theirs, ours in layers.items() if "norm" in ours}


def _renamed(theirs: dict[str, Tensor], layers: dict[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, value in theirs.items():
        layer, _, part = name.rpartition(".")
        found[f"{layers[layer]}.{part}"] = value.float() if value.is_floating_point() else value
    return found


def _model(path: str | Path, width: int, channels: int, z_dim: int) -> ModelConfig:
    if channels not in (1, 3):
        raise UserError(f"{path} is of pictures with {channels} channels: 1 or 3 can be imported")
    return ModelConfig(
        image_size=(64, 64),
        num_channels=channels,
        z_dim=z_dim,
        z_distribution="normal",
        base_width=width,
        kernel_size=4,
        projection_bn="channel",
        bn_eps=1e-5,
    )


def _filled(path: str | Path, network: Any, weights: dict[str, Tensor]) -> Any:
    state = network.state_dict()
    for name, value in weights.items():
        if value.shape != state[name].shape:
            raise UserError(
                f"{path} is not a network of the PyTorch example with {network.config.base_width} "
                f"maps at the pixels: what becomes {name} has {value.numel():,} numbers of shape "
                f"{tuple(value.shape)}, not {tuple(state[name].shape)}"
            )
        if not value.isfinite().all():
            raise UserError(f"{path} holds numbers that are not finite: take an earlier epoch")
    network.load_state_dict(state | weights)
    return network.eval()


# ---------------------------------------------------------------- writing


def import_pair(
    folder: str | Path,
    generator_path: str | Path,
    discriminator_path: str | Path | None = None,
    *,
    image_set: str = "unknown",
    about: dict[str, str] | None = None,
) -> TrainConfig:
    """Write a folder that every command takes as it takes a run; return its configuration.

    ``image_set`` is the set that the pair was trained on, which an evaluation compares with. The
    settings of a training are the example's.

    Raises
    ------
    UserError
        If a file is not of the example, the two do not belong together, or the folder holds
        anything but an earlier import.
    """
    folder = Path(folder)
    check_import_place(folder)
    generator, discriminator = read_generator(generator_path), None
    model = generator.config
    if discriminator_path is not None:
        discriminator = read_discriminator(discriminator_path)
        if replace(discriminator.config, z_dim=model.z_dim) != model:
            shapes = [f"{m.base_width}, {m.num_channels}" for m in (model, discriminator.config)]
            raise UserError(
                f"{generator_path} and {discriminator_path} differ in maps at the pixels and "
                f"channels of a picture ({shapes[0]} against {shapes[1]}), and a checkpoint has "
                "one shape: import the generator alone"
            )
        discriminator.config = model
    config = TrainConfig(model=model, batch_size=64, schedule="same_batch", weight_decay=0.0)
    kept = {"image_set": image_set, "imported": f"a state dict of the PyTorch example, {EXAMPLE}"}
    networks = {"generator": generator, "discriminator": discriminator}
    write_import(folder, networks, config, kept | (about or {}))
    return config


@dataclass(frozen=True, kw_only=True)
class ImportPth(Command, verb="import-pth"):
    """Turn networks that the PyTorch example or tutorial saved (.pth) into a checkpoint.

    It becomes OUT/NAME, which every command takes as it takes a run. Only tensors are read from
    the files: code in them is never run.
    """

    generator: Positional[Path]
    """The generator's state dict, such as netG_epoch_24.pth."""
    discriminator: Positional[Path | None] = None
    """The discriminator's, such as netD_epoch_24.pth; unset: the checkpoint has none, so it can be
    sampled, but not trained further."""
    name: str
    """Of the checkpoint's folder."""
    set: str = "unknown"
    """Image set that the networks were trained on, for dcgan evaluate."""
    out: Path = local(Path("runs"))
    """Where the checkpoint's folder goes."""

    def run(self) -> None:
        """Read, check, write, and say how to go on."""
        require(is_plain_name(self.name), "--name", self.name, "a plain word such as faces-pth")
        folder = self.out / self.name
        config = import_pair(
            folder,
            self.generator,
            self.discriminator,
            image_set=self.set,
            about={"source": self.set, "command": self.command_line()},
        )
        model = config.model
        kinds = "generator" if self.discriminator is None else "generator and discriminator"
        print(f"{folder}: {kinds}, width {model.base_width}, z of {model.z_dim}")
        print(
            f"draw with it: dcgan sample {folder} --batch-stats (as the example does, or without)"
        )
        if self.discriminator is not None:
            print(f"train it further: {_train_command(folder, model)}")


def _train_command(folder: Path, model: ModelConfig) -> str:
    """Return the command that goes on with an import on a set of one's own."""
    words = f"--base-width {model.base_width} --z-dim {model.z_dim}"
    words += f" --num-channels {model.num_channels}"
    words += " --kernel-size 4 --projection-bn channel --z-distribution normal"
    return f"dcgan train --recipe faces --set SET --start-from {folder} {words}"
