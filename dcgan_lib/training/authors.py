"""The networks that the paper's authors released, turned into checkpoints of this library.

Their repository (https://github.com/Newmu/dcgan_code, MIT licence) keeps each network as a joblib
pickle, and beside it its arrays, one plain .npy file a part: of the first layer a kernel, of the
others a kernel and batch norm's gain and bias. Only the arrays are read, so nothing is unpickled.

Four things are written otherwise there. Theano convolves, where PyTorch correlates, so each kernel
is turned by 180 degrees. A dense layer is inputs x outputs. The discriminator's last maps are
flattened one map after another, here one cell after another. And batch norm keeps no statistics:
their scripts measure them on images, and so does the import.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import Recipe, TrainConfig, recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import Discriminator, Generator, plan_convolutions
from dcgan_lib.models.networks import (
    untrained_discriminator,
    untrained_generator,
    without_output,
)
from dcgan_lib.models.sampling import measure_batch_norm, refresh_batch_norm
from dcgan_lib.paths import data_root
from dcgan_lib.training.checkpoints import check_import_place, write_import

REPOSITORY = "https://github.com/Newmu/dcgan_code"
REMEDY = f"fetch the file again from {REPOSITORY}"
BATCH = 128
MOST_BATCHES = 100
"""Of images, to measure a discriminator on."""
OWN_BATCHES = 20
"""Of pictures, to measure a generator on, as many as at the end of a training."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """Name a pair of networks that the authors released."""

    name: str
    """Of its checkpoint."""
    folder: str
    """In the authors' models/."""
    epoch: int
    recipe: Recipe
    """The settings of this library that describe it."""
    sets: tuple[str, ...]
    """Images to measure the discriminator on, the first that is there: the set it was trained on,
    or one that stands in for it. ImageNet itself is left to --set, because preparing it takes
    hours."""

    def path(self, place: Path, network: str, number: int) -> Path:
        """Return the file of a part, counted from 1; ``network`` is discrim or gen."""
        return place / f"{self.epoch}_{network}_params.jl_{number:02d}.npy"


RELEASED = (
    Released(
        name="authors-svhn",
        folder="svhn_unsup_all_conv_dcgan_100z_gaussian_lr_0.0005_64mb",
        epoch=200,
        recipe=recipe("paper-svhn"),
        sets=("svhn", "svhn10k"),
    ),
    Released(
        name="authors-imagenet",
        folder="imagenet_gan_pretrain_128f_relu_lrelu_7l_3x3_256z",
        epoch=30,
        recipe=recipe("paper-imagenet32"),
        sets=("tinyimagenet32", "cifar10"),
    ),
)


# ---------------------------------------------------------------- reading


@dataclass(kw_only=True)
class Pair:
    """Hold what could be read of a released pair; a network that is None is not usable."""

    released: Released
    config: TrainConfig
    discriminator: Discriminator | None = None
    generator: Generator | None = None
    lacking: tuple[str, ...] = ()
    """What the discriminator lacks of the authors' own: layers, counted from the pixels; output."""
    notes: list[str] = field(default_factory=list)
    """What is not there, and what follows from it, to be printed."""


def parts_of(network: Discriminator | Generator) -> list[tuple[str, str]]:
    """List the parts of a network in the authors' order: where each belongs, and our name for it.

    Layers are counted along the way of the data: a discriminator's from the pixels, a generator's
    from z.
    """
    if isinstance(network, Discriminator):
        parts = [("layer 1", "convs.0.weight")]
        for index in range(1, len(network.convs)):
            parts += _layer(index + 1, f"convs.{index}", f"norms.{index}")
        return [*parts, ("output", "head.weight")]
    parts = _layer(1, "project", "project_norm")
    for index in range(len(network.norms)):
        parts += _layer(index + 2, f"convs.{index}", f"norms.{index}")
    last = len(network.convs)
    return [*parts, (f"layer {last + 1}", f"convs.{last - 1}.weight")]


def _layer(number: int, layer: str, norm: str) -> list[tuple[str, str]]:
    names = (f"{layer}.weight", f"{norm}.weight", f"{norm}.bias")
    return [(f"layer {number}", name) for name in names]


def read_pair(released: Released, place: Path) -> Pair:
    """Read both networks from a folder; what is missing is left out, and damage is refused.

    A discriminator without its last layers is kept as the smaller network that its first stages
    are, without an output: nothing is filled in.

    Raises
    ------
    UserError
        If a file is there but is not what it should be.
    """
    pair = Pair(released=released, config=released.recipe.config)
    _read_discriminator(pair, place)
    _read_generator(pair, place)
    return pair


def _read_discriminator(pair: Pair, place: Path) -> None:
    model = pair.config.model
    network = untrained_discriminator(model)
    weights, missing = _read_parts(network, pair.released, place, "discrim")
    if not weights:
        pair.notes.append("the folder has no discriminator")
        return
    layers = [f"layer {number + 1}" for number in range(len(network.convs))]
    depth = next((n for n, layer in enumerate(layers) if layer in missing), len(layers))
    if missing:
        pair.notes.append(f"of the discriminator there is no {_listed(missing)}")
    if depth < len(layers):
        stages = depth // model.convs_per_stage
        if not stages:
            pair.notes.append("so none of its stages is whole, and it is left out")
            return
        model = replace(model, num_stages=stages)
        network = untrained_discriminator(model)
    pair.lacking = tuple(layers[len(network.convs) :])
    if pair.lacking or "output" in missing:
        pair.lacking += ("output",)
        network = without_output(network, pair.lacking)
    pair.config = replace(pair.config, model=model)
    pair.discriminator = _filled(network, weights)


def _read_generator(pair: Pair, place: Path) -> None:
    network = untrained_generator(pair.released.recipe.config.model)
    weights, missing = _read_parts(network, pair.released, place, "gen")
    if not weights:
        pair.notes.append("the folder has no generator")
    elif missing:
        pair.notes.append(f"of the generator there is no {_listed(missing)}, so it is left out")
    elif pair.config != pair.released.recipe.config:
        pair.notes.append(
            "the generator is left out: in a checkpoint both networks have one shape, and the "
            "discriminator lacks layers"
        )
    else:
        pair.generator = _filled(network, weights)


def _listed(missing: dict[str, list[str]]) -> str:
    return ", ".join(f"{name} ({where})" for where, names in missing.items() for name in names)


def _read_parts(
    network: Discriminator | Generator, released: Released, place: Path, kind: str
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Return the parts that are there, by our name and in our layout, and the missing files."""
    state, weights, missing = network.state_dict(), {}, {}
    for number, (where, name) in enumerate(parts_of(network), start=1):
        path = released.path(place, kind, number)
        if path.exists():
            weights[name] = _read_part(path, where, name, network, tuple(state[name].shape))
        else:
            missing.setdefault(where, []).append(path.name)
    return weights, missing


def _read_part(
    path: Path, where: str, name: str, network: Discriminator | Generator, shape: tuple[int, ...]
) -> Tensor:
    theirs = shape[::-1] if len(shape) == 2 else shape
    expected = f"{path} should hold float32 numbers of shape {theirs} ({where})"
    try:
        # Mapped, not read: a damaged header cannot ask for more memory than the file has.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy lets Python's tokenizer read headers: a dozen kinds
        reason = " ".join(str(error).split())
        raise UserError(f"{expected}, but it cannot be read ({reason}): {REMEDY}") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{expected}, but it is an archive: {REMEDY}")
    if array.dtype != np.float32 or array.shape != theirs:
        raise UserError(f"{expected}, but holds {array.dtype} of shape {array.shape}: {REMEDY}")
    if not np.isfinite(array).all():
        raise UserError(f"{expected}, but some of them are not finite: {REMEDY}")
    return torch.tensor(np.ascontiguousarray(_in_our_layout(np.asarray(array), name, network)))


def _in_our_layout(array: np.ndarray, name: str, network: Discriminator | Generator) -> np.ndarray:
    if array.ndim == 4:
        return array[:, :, ::-1, ::-1]
    if name == "head.weight":
        last = plan_convolutions(network.config)[-1]
        maps = array.reshape(last.coarse_channels, *last.coarse_size)
        return maps.transpose(1, 2, 0).reshape(1, -1)
    return array.T


def _filled(network: Any, weights: dict[str, Tensor]) -> Any:
    buffers = dict(network.named_buffers())
    network.load_state_dict(
        {name: buffers[name] if name in buffers else weights[name] for name in network.state_dict()}
    )
    return network


def find_released(folder: Path) -> dict[Released, Path]:
    """Return where each released pair lies: in ``folder``, in its models/, or ``folder`` itself.

    Raises
    ------
    UserError
        If none is there.
    """
    found = {}
    for released in RELEASED:
        places = (folder / "models" / released.folder, folder / released.folder, folder.resolve())
        for place in places:
            if place.name == released.folder and place.is_dir():
                found.setdefault(released, place)
    if not found:
        wanted = " or ".join(f"{released.folder}/" for released in RELEASED)
        raise UserError(
            f"{folder} holds none of the authors' networks, which would be {wanted}, alone or "
            f"in models/: clone {REPOSITORY} and give its folder"
        )
    return found


# ---------------------------------------------------------------- statistics of batch norm


def images_to_measure_on(released: Released, set_name: str | None) -> ImageSet | None:
    """Load the training images of a set, or of the first usual one that is there, or None."""
    model = released.recipe.config.model
    how = {"image_size": model.image_size, "channels": model.num_channels, "progress": True}
    if set_name is not None:
        return load_image_set(set_name, "train", **how)
    for name in released.sets:
        try:
            return load_image_set(name, "train", **how)
        except UserError:  # it is not there; the next may be, and what was used is printed
            continue
    return None


def measure_discriminator(discriminator: Discriminator, images_u8: np.ndarray) -> int:
    """Set batch norm's statistics to their mean over minibatches of images, as the authors do.

    At most 100 minibatches of 128, shuffled, since a folder's images come sorted by class; the
    number of images is returned.
    """
    size = min(BATCH, len(images_u8))
    num = size * min(MOST_BATCHES, len(images_u8) // size)
    rows = np.random.default_rng(0).permutation(len(images_u8))[:num]
    measure_batch_norm(discriminator, images_u8[rows], range(len(discriminator.convs)))
    return num


def measure_pair(pair: Pair, set_name: str | None) -> dict[str, str]:
    """Measure the statistics of both networks, and say on what; without images D is left out.

    The generator's are measured on latent vectors of its own, as at the end of a training.
    """
    measured, released = {}, pair.released
    if pair.discriminator is not None:
        images = images_to_measure_on(released, set_name)
        if images is None:
            pair.discriminator = None
            pair.notes.append(
                "the discriminator is left out: its batch norm is measured on images, and "
                f"{data_root()} has neither {' nor '.join(released.sets)}; give --set NAME"
            )
        else:
            num = measure_discriminator(pair.discriminator, images.images_u8)
            measured["discriminator"] = f"{num:,} images of {images.name}"
    if pair.generator is not None:
        refresh_batch_norm(pair.generator, num_batches=OWN_BATCHES, batch_size=BATCH)
        measured["generator"] = f"{OWN_BATCHES * BATCH:,} pictures of its own"
    return measured


# ---------------------------------------------------------------- writing


def write_pair(folder: Path, pair: Pair, measured: dict[str, str], command: str) -> None:
    """Write a folder that loads as a run's does, in place of an earlier import, or nothing."""
    released = pair.released
    what = f"released by the paper's authors, {REPOSITORY}, {released.folder}"
    about = {
        "image_set": released.recipe.image_set,
        "released": f"{what}, epoch {released.epoch}, MIT licence",
        "batch_norm": measured,
        "command": command,
    }
    if pair.lacking:
        about["lacking"] = list(pair.lacking)
    networks = {"generator": pair.generator, "discriminator": pair.discriminator}
    write_import(folder, networks, pair.config, about)


@dataclass(frozen=True, kw_only=True)
class ImportAuthors(Command, verb="import-authors"):
    """Turn the networks that the paper's authors released into checkpoints.

    They become OUT/authors-svhn and OUT/authors-imagenet, which every command takes as it takes a
    run. What their folder lacks is named and left out. The weights are the authors' own
    (https://github.com/Newmu/dcgan_code, MIT licence), and are no part of this project.
    """

    folder: Positional[Path | None] = local(None)
    """A clone of the authors' repository, or a part of it; unset: authors-weights in the data
    folder."""
    set: str | None = None
    """Images to measure the discriminators' batch norm on; unset: svhn or svhn10k for the one,
    tinyimagenet32 or cifar10 for the other, whichever is there."""
    out: Path = local(Path("runs"))
    """Where the checkpoints' folders go."""

    def run(self) -> None:
        """Read everything, measure, write, and say what is missing."""
        found = find_released(self.folder or data_root() / "authors-weights")
        for released in found:
            check_import_place(self.out / released.name)
        pairs = [read_pair(released, place) for released, place in found.items()]
        measured = [measure_pair(pair, self.set) for pair in pairs]
        for pair, on in zip(pairs, measured, strict=True):
            folder = self.out / pair.released.name
            if on:
                write_pair(folder, pair, on, self.command_line())
            self._show(pair, folder, on)
        if not any(measured):
            raise UserError("no network could be imported: the lines above say why")

    def _show(self, pair: Pair, folder: Path, measured: dict[str, str]) -> None:
        print(f"{folder}" if measured else f"{pair.released.name}: nothing to import")
        for kind, images in measured.items():
            what = f"whole {kind}"
            if kind == "discriminator" and pair.lacking:
                num = len(pair.discriminator.convs)
                what = f"discriminator's layers 1 to {num}, without {', '.join(pair.lacking)}"
            print(f"  {what}; batch norm measured on {images}")
        for note in pair.notes:
            print(f"  {note}")
