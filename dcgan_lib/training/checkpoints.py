"""What is kept of a run: a state to go on from, and weights to use.

A run's folder holds ``config.json``, ``metrics.jsonl``, ``samples/``, ``state.safetensors``
(everything needed to resume), ``generator.safetensors`` and ``discriminator.safetensors``, and if
asked ``snapshots/``, earlier networks, and ``ema/``, averaged ones: folders that load as a run's does.
Randomness needs no saving: every latent vector and the order of the images are functions of the
seed and the step.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.errors import UserError
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator, new_discriminator, new_generator
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
            found |= {f"{name}_optimizer.{index}.{key}": torch.as_tensor(value) for key, value in entry.items()}
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
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in _tensors(gan).items()}
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
        raise UserError(f"{run_dir / STATE} is not a saved state ({error}): delete it to begin anew") from error
    for name, network, optimizer in (
        ("generator", gan.generator, gan.g_optimizer),
        ("discriminator", gan.discriminator, gan.d_optimizer),
    ):
        _load_weights(network, {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
        state: dict[int, dict[str, Tensor]] = {}
        parameters = list(network.parameters())
        for key, value in tensors.items():
            if key.startswith(f"{name}_optimizer."):
                _, index, entry = key.split(".")
                weight = parameters[int(index)]
                # Averages lie in memory as their weights do: otherwise plain Adam is slow, and a fused one is wrong.
                value = torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
                state.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    for name, average in (("generator", gan.g_average), ("discriminator", gan.d_average)):
        if average is not None:
            prefix = f"{name}_average."
            _load_weights(average, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return progress


def _load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"these weights are of another network than the configuration's: {reason}") from error


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
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    atomic_write(path, to_bytes(weights))


def save_config(run_dir: Path, config: TrainConfig, about: dict[str, Any]) -> None:
    """Write ``config.json``: the configuration and what the run was made from."""
    atomic_write(run_dir / "config.json", json.dumps({"config": to_dict(config), "about": about}, indent=2) + "\n")


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
    pairs = ((gan.generator, gan.g_average, load_generator), (gan.discriminator, gan.d_average, load_discriminator))
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
    known = sorted({path.parent.name for kind in NETWORKS for path in checkpoints_root().glob(f"*/{kind}.safetensors")})
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


def _load(name_or_path: str | Path, make: Callable[[ModelConfig], Network], file_name: str) -> Network:
    folder = find_run(name_or_path)
    path = folder / file_name
    if not path.is_file():
        others = [kind for kind in NETWORKS if (folder / f"{kind}.safetensors").is_file()]
        why = f"it keeps its {others[0]} alone" if others else "a run writes its weights when it ends or is stopped"
        raise UserError(f"{folder} has no {file_name}: {why}")
    network = make(load_config(folder)[0].model)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): fetch or train it again") from error
    _load_weights(
        network, {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
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


def check_resumable(run_dir: Path, config: TrainConfig, digest: str | None, start_from: str | None = None) -> None:
    """Refuse to go on with a run of other settings, another image set or other initial weights.

    Raises
    ------
    UserError
        Naming the settings that differ.
    """
    free = {"steps", "minutes", "log_every", "sample_every", "num_samples", "snapshot_every", "save_seconds"}
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
        raise UserError(f"{run_dir} was trained on another image set ({about.get('image_set')}): choose another folder")
