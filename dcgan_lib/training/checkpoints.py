"""What is kept of a run: a state to go on from, and weights to use.

A run's folder holds ``config.json``, ``metrics.jsonl``, ``samples/``, ``state.safetensors``
(everything needed to resume), ``generator.safetensors`` and ``discriminator.safetensors``, and if
asked ``snapshots/``, earlier networks, and ``ema/``, averaged ones: folders that load as a run's does.
Randomness needs no saving: every latent vector and the order of the images are functions of the
seed and the step.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from dcgan_lib import __version__
from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.errors import UserError
from dcgan_lib.models.baselines import (
    AnyDiscriminator,
    AnyGenerator,
    new_discriminator,
    new_generator,
)
from dcgan_lib.models.sampling import from_u8, generate_u8, sample_latents, seeded
from dcgan_lib.paths import atomic_write, checkpoints_root
from dcgan_lib.training.step import Gan

STATE = "state.safetensors"
NETWORKS = ("generator", "discriminator")
Network = TypeVar("Network", bound=nn.Module)


def _tensors(gan: Gan) -> dict[str, Tensor]:
    """Return every tensor of the state under one flat name."""
    found = {}
    for name, network, optimizer in (
        ("generator", gan.generator, gan.g_optimizer),
        ("discriminator", gan.discriminator, gan.d_optimizer),
    ):
        found |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for index, entry in optimizer.state_dict()["state"].items():
            found |= {
                f"{name}_optimizer.{index}.{key}": torch.as_tensor(value)
                for key, value in entry.items()
            }
    for name, average in (("generator", gan.g_average), ("discriminator", gan.d_average)):
        if average is not None:
            found |= {f"{name}_average.{key}": value for key, value in average.state_dict().items()}
    return found


def save_state(run_dir: Path, gan: Gan, progress: dict[str, Any]) -> None:
    """Write the whole state in one file, replaced atomically.

    Parameters
    ----------
    run_dir : Path
        The run's folder.
    gan : Gan
        Networks and optimisers.
    progress : dict
        Plain values kept beside them: step, seconds, threads.
    """
    # clone().contiguous(): safetensors refuses strided storage, and channels_last is strided.
    tensors = {
        name: value.detach().cpu().contiguous().clone() for name, value in _tensors(gan).items()
    }
    atomic_write(run_dir / STATE, to_bytes(tensors, {"progress": json.dumps(progress)}))


def load_state(run_dir: Path, gan: Gan) -> dict[str, Any]:
    """Put a saved state into ``gan`` and return the values saved beside it.

    Raises
    ------
    UserError
        If the file is damaged or was saved by another network.
    """
    try:
        with safe_open(run_dir / STATE, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError) as error:
        raise UserError(
            f"{run_dir / STATE} is not a saved state ({error}): delete it to begin anew"
        ) from error
    for name, network, optimizer in (
        ("generator", gan.generator, gan.g_optimizer),
        ("discriminator", gan.discriminator, gan.d_optimizer),
    ):
        _load_weights(
            network,
            {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")},
        )
        state: dict[int, dict[str, Tensor]] = {}
        parameters = list(network.parameters())
        for key, value in tensors.items():
            if key.startswith(f"{name}_optimizer."):
                _, index, entry = key.split(".")
                weight = parameters[int(index)]
                # Averages lie in memory as their weights do: otherwise plain Adam is slow, and a fused one is wrong.
                value = (
                    torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
                )
                state.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    for name, average in (("generator", gan.g_average), ("discriminator", gan.d_average)):
        if average is not None:
            prefix = f"{name}_average."
            _load_weights(
                average,
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
            )
    return progress


def _load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"these weights are of another network than the configuration's: {reason}"
        ) from error


def save_weights(path: Path, network: nn.Module, *, half: bool = False) -> None:
    """Write a network's weights and batch-norm statistics as safetensors.

    Parameters
    ----------
    path : Path
        The file, replaced atomically.
    network : nn.Module
        Its ``state_dict`` is written.
    half : bool
        Store float16, half the size; loading turns it back into float32.
    """
    weights = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
    }
    if half:
        weights = {
            name: value.half() if value.is_floating_point() else value
            for name, value in weights.items()
        }
    atomic_write(path, to_bytes(weights))


def save_config(run_dir: Path, config: TrainConfig, about: dict[str, Any]) -> None:
    """Write ``config.json``: the configuration and what the run was made from."""
    atomic_write(
        run_dir / "config.json",
        json.dumps({"config": to_dict(config), "about": about}, indent=2) + "\n",
    )


def save_networks(folder: Path, gan: Gan, about: dict[str, Any]) -> None:
    """Write both networks and their configuration into a folder that ``load_generator`` reads; averages into ``ema/``.

    Parameters
    ----------
    folder : Path
        A run's folder or a snapshot's.
    gan : Gan
        Weights and batch-norm statistics are written, optimisers are not.
    about : dict
        See ``save_config``.
    """
    networks = {folder: (gan.generator, gan.discriminator)}
    if gan.g_average is not None:
        networks[folder / "ema"] = (gan.g_average.module, gan.d_average.module)
    for place, pair in networks.items():
        for name, network in zip(NETWORKS, pair, strict=True):
            save_weights(place / f"{name}.safetensors", network)
        save_config(place, gan.config, about)


def start_from(name_or_path: str | Path, gan: Gan) -> None:
    """Put the weights of a checkpoint into both networks, and into their averages.

    Raises
    ------
    UserError
        If there is no such checkpoint, it lacks one of the two, or its networks have another shape.
    """
    pairs = (
        (gan.generator, gan.g_average, load_generator),
        (gan.discriminator, gan.d_average, load_discriminator),
    )
    for network, average, load in pairs:
        _load_weights(network, load(name_or_path).state_dict())
        if average is not None:
            average.module.load_state_dict(network.state_dict())


def find_run(name_or_path: str | Path) -> Path:
    """Return the folder of a committed checkpoint by name, or of a run by path.

    Raises
    ------
    UserError
        If there is neither; the message lists the committed checkpoints.
    """
    for folder in (Path(name_or_path), checkpoints_root() / name_or_path):
        if (folder / "config.json").is_file():
            return folder
    known = sorted(
        {
            path.parent.name
            for kind in NETWORKS
            for path in checkpoints_root().glob(f"*/{kind}.safetensors")
        }
    )
    raise UserError(
        f"no checkpoint or run folder at {str(name_or_path)!r}; committed ones: {', '.join(known) or 'none'}"
    )


def load_config(name_or_path: str | Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the configuration of a checkpoint and what it was made from."""
    path = find_run(name_or_path) / "config.json"
    try:
        saved = json.loads(path.read_text())
        return from_dict(saved["config"]), saved["about"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run's configuration ({error})") from error


def _load(
    name_or_path: str | Path, make: Callable[[ModelConfig], Network], file_name: str
) -> Network:
    folder = find_run(name_or_path)
    path = folder / file_name
    if not path.is_file():
        others = [kind for kind in NETWORKS if (folder / f"{kind}.safetensors").is_file()]
        why = (
            f"it keeps its {others[0]} alone"
            if others
            else "a run writes its weights when it ends or is stopped"
        )
        raise UserError(f"{folder} has no {file_name}: {why}")
    network = make(load_config(folder)[0].model)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): fetch or train it again") from error
    _load_weights(
        network,
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in weights.items()
        },
    )
    return network.eval()


def load_generator(name_or_path: str | Path) -> AnyGenerator:
    """Return a trained generator in evaluation mode, on the CPU.

    Parameters
    ----------
    name_or_path : str or Path
        A committed checkpoint's name, such as ``"mnist"``, or a run's folder.

    Raises
    ------
    UserError
        If there is no such checkpoint or its files do not fit together.
    """
    return _load(name_or_path, new_generator, "generator.safetensors")


def load_discriminator(name_or_path: str | Path) -> AnyDiscriminator:
    """Return a trained discriminator in evaluation mode, on the CPU; see ``load_generator``."""
    return _load(name_or_path, new_discriminator, "discriminator.safetensors")


def untrained_generator(model: ModelConfig, seed: int = 0) -> AnyGenerator:
    """Return a generator with its initial weights, the yardstick for a trained one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_generator(model).eval()


def untrained_discriminator(model: ModelConfig, seed: int = 0) -> AnyDiscriminator:
    """Return a discriminator with its initial weights; see ``untrained_generator``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_discriminator(model).eval()


def check_resumable(
    run_dir: Path, config: TrainConfig, digest: str | None, start_from: str | None = None
) -> None:
    """Refuse to go on with a run of other settings, another image set or other initial weights.

    Raises
    ------
    UserError
        Naming the settings that differ.
    """
    free = {
        "steps",
        "minutes",
        "log_every",
        "sample_every",
        "num_samples",
        "snapshot_every",
        "save_seconds",
    }
    saved_config, about = load_config(run_dir)
    saved, asked = to_dict(saved_config), to_dict(config)
    if asked["decay_fraction"]:
        free.discard("steps")  # the learning rate depends on it
    differing = sorted(name for name in asked if name not in free and saved[name] != asked[name])
    if differing == ["steps"]:
        raise UserError(
            f"{run_dir} holds a run of {saved['steps']:,} steps whose learning rate falls to 0 by then (decay_fraction "
            f"{saved['decay_fraction']:g}): more steps would be another run; choose another folder"
        )
    if differing:
        raise UserError(
            f"{run_dir} holds a run with other settings of {', '.join(differing)}: choose another folder or delete it"
        )
    if about.get("start_from") != start_from:
        raise UserError(
            f"{run_dir} was started from {about.get('start_from') or 'random weights'}: "
            "give the same --start-from, or choose another folder"
        )
    if about.get("digest") != digest:
        raise UserError(
            f"{run_dir} was trained on another image set ({about.get('image_set')}): choose another folder"
        )


MAX_METRICS, MAX_GRIDS = 200, 10
LOADERS = {"generator": load_generator, "discriminator": load_discriminator}
Keep = Literal["both", "generator", "discriminator"]
WRITTEN = {
    "generator.safetensors",
    "discriminator.safetensors",
    "config.json",
    "metrics.jsonl",
    "card.md",
    "samples",
}


def publish(run_dir: str | Path, name: str, *, command: str, keep: Keep = "both") -> Path:
    """Copy a run's weights in half precision, its settings, metrics and samples, and write its card.

    Parameters
    ----------
    run_dir : str or Path
        A finished run.
    name : str
        Folder under ``data/checkpoints``; an earlier checkpoint of that name is replaced.
    command : str
        What made the run; the card prints it.
    keep : {"both", "generator", "discriminator"}, default "both"
        One network alone makes the checkpoint half as large.

    Returns
    -------
    Path
        The checkpoint's folder. Its ``metrics.jsonl`` keeps every k-th line, 200 at most, and ``samples`` every k-th
        grid, 10 at most, the last one among them.

    Raises
    ------
    UserError
        If the run has not ended, the name is not a plain one, or what belongs to the earlier checkpoint's weights
        (directions, exemplars, boxes) would be lost.
    """
    run, folder = find_run(run_dir), checkpoints_root() / name
    if Path(name).name != name or name.startswith("."):
        raise UserError(
            f"a checkpoint's name must be a plain word such as faces, but it is {name!r}"
        )
    metrics, (config, about) = read_metrics(run / "metrics.jsonl"), load_config(run)
    if not metrics:
        raise UserError(f"{run} has no metrics: train it before it is published")
    networks = {kind: load(run) for kind, load in LOADERS.items() if keep in ("both", kind)}
    others = sorted(path.name for path in folder.glob("*") if path.name not in WRITTEN)
    if others:
        raise UserError(
            f"{folder} also holds {', '.join(others)}, made for its weights: move them away, then publish"
        )
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    for kind, network in networks.items():
        save_weights(folder / f"{kind}.safetensors", network, half=True)
    save_config(folder, config, about)
    every = -(-len(metrics) // MAX_METRICS)
    atomic_write(
        folder / "metrics.jsonl",
        "".join(json.dumps(line) + "\n" for line in metrics[every - 1 :: every]),
    )
    grids = sorted(run.glob("samples/*.png"), reverse=True)
    for path in grids[:: max(1, -(-len(grids) // MAX_GRIDS))]:
        Image.open(path).save(folder / "samples" / f"{path.stem}.webp", quality=80)
    atomic_write(folder / "card.md", _card(name, command, metrics[-1], run, keep))
    return folder


def _networks(model: ModelConfig) -> str:
    if model.architecture == "dense":
        return f"fully connected, {model.num_stages} hidden layers of {model.hidden_units} units"
    return f"DCGAN, base width {model.base_width}, kernel {model.kernel_size}"


def _card(name: str, command: str, last: dict[str, float], run: Path, keep: Keep) -> str:
    config, about = load_config(run)
    model = config.model
    height, width = model.image_size
    rows = {
        "made by": f"`{command}`",
        "image set": f"{about['image_set']}, {about['images']:,} images (data/README.md has source and licence)",
        "pictures": f"{model.num_channels} x {height} x {width}",
        "networks": f"{_networks(model)}, z of {model.z_dim}, {model.z_distribution}",
        "training": f"{last['step']:,} steps of {config.batch_size}, {last['epoch']:.1f} epochs, "
        f"{last['seconds'] / 60:.0f} minutes, {config.precision}, seed {config.seed}",
        "stored": "half precision, batch-norm statistics measured afresh at the end",
        "versions": f"dcgan_lib {__version__}, torch {torch.__version__.partition('+')[0]}",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    shown = f"# {name}\n\n| | |\n|---|---|\n{table}\n"
    if keep == "discriminator":
        return shown
    return (
        f"{shown}\nHow good it is: `dcgan results --section ours.{name}.`; to measure again: "
        f"`dcgan evaluate {name} --record {name}`.\n"
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl``; a last line cut off by a crash is left out, a missing file is empty."""

    def lines() -> Iterator[dict[str, Any]]:
        for text in path.read_text().splitlines() if path.exists() else ():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                return

    return list(lines())


def draw(
    checkpoint: str | Path,
    num_images: int,
    *,
    seed: int = 0,
    label: int | None = None,
    best_of: int = 1,
    batch_stats: bool = False,
) -> np.ndarray:
    """Draw pictures from a checkpoint.

    Parameters
    ----------
    checkpoint : str or Path
        A committed checkpoint's name or a run's folder.
    num_images : int
        How many to return.
    seed : int
        Of the latent vectors.
    label : int, optional
        Class for a conditional generator; by default all in turn.
    best_of : int
        Draw this many times as many and keep the most real ones in the discriminator's eyes, best
        first. They are picked, so they say nothing about the generator's average.
    batch_stats : bool
        See ``generate_u8``.

    Returns
    -------
    ndarray
        uint8, n x c x h x w.

    Raises
    ------
    UserError
        If there is no such checkpoint, no discriminator to pick with, or no such class, or a number is
        out of range.
    """
    total = num_images * best_of
    for name, value, low in (
        ("num_images", num_images, 1),
        ("best_of", best_of, 1),
        ("seed", seed, 0),
    ):
        if not low <= value < 2**63:
            raise UserError(f"{name} must be at least {low} and below 2**63, but it is {value}")
    if batch_stats and total == 1:
        raise UserError(
            "one picture alone has no batch statistics: draw at least 2, or use the running statistics"
        )
    generator = load_generator(checkpoint)
    labels_n = _labels(total, generator.config.num_classes, label)
    z_nd = sample_latents(total, generator.config, seeded(seed))
    size = next(
        (size for size in range(256, 1, -1) if total % size != 1), 256
    )  # one alone has no batch statistics
    pictures = generate_u8(generator, z_nd, labels_n, batch_stats=batch_stats, batch_size=size)
    if best_of == 1:
        return pictures
    discriminator = load_discriminator(checkpoint)
    with torch.no_grad():
        x_nchw = from_u8(torch.from_numpy(pictures), generator.config)
        parts = [slice(start, start + 256) for start in range(0, total, 256)]
        logits = torch.cat(
            [discriminator(x_nchw[p], None if labels_n is None else labels_n[p]) for p in parts]
        )
    return pictures[logits.argsort(descending=True)[:num_images].numpy()]


def _labels(num: int, num_classes: int, label: int | None) -> torch.Tensor | None:
    """Return the class of each picture, None for a generator without classes."""
    if label is not None and not 0 <= label < num_classes:
        allowed = (
            f"0 to {num_classes - 1}"
            if num_classes
            else "left out, because this generator has no classes"
        )
        raise UserError(f"label must be {allowed}, but it is {label}")
    if not num_classes:
        return None
    return torch.arange(num) % num_classes if label is None else torch.full((num,), label)
