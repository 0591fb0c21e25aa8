"""What is kept of a run: a state to go on from, weights to use, and a small checkpoint to publish.

A run's folder holds ``config.json``, ``metrics.jsonl``, ``samples/``, ``state.safetensors``
(everything needed to resume), ``generator.safetensors`` and ``discriminator.safetensors``, and if
asked ``snapshots/``, earlier networks, and ``ema/``, averaged ones: folders that load as a run's
does.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dcgan_lib import __version__
from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.data.image_set import is_plain_name
from dcgan_lib.errors import UserError, require
from dcgan_lib.models.networks import (
    AnyDiscriminator,
    AnyGenerator,
    new_discriminator,
    new_generator,
    without_output,
)
from dcgan_lib.models.sampling import (
    generate_u8,
    labels_alike,
    labels_in_turn,
    logits_of,
    picture_grid,
    sample_latents,
    sample_u8,
    seeded,
)
from dcgan_lib.paths import atomic_write, checkpoints_root, new_in_place_of, read_json
from dcgan_lib.tensor_files import read_tensors, write_tensors
from dcgan_lib.training.step import Gan

STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"
AVERAGES = "ema"
NETWORKS = {"generator": new_generator, "discriminator": new_discriminator}
WEIGHTS = [f"{kind}.safetensors" for kind in NETWORKS]


# Finding and loading.


def find_run(name_or_path: str | Path) -> Path:
    """Return a committed checkpoint's folder by name, or a run's by its path or weights file."""
    path = Path(name_or_path)
    if path.is_file():
        if path.name in WEIGHTS and (path.parent / "config.json").is_file():
            return path.parent
        raise UserError(
            f"{path} is not a network that this library wrote: it reads generator.safetensors or "
            "discriminator.safetensors with the config.json of its run beside it, and dcgan "
            "import-pth a .pth of the PyTorch example"
        )
    for folder in (path, checkpoints_root() / name_or_path):
        if (folder / "config.json").is_file():
            return folder
    files = [path for name in WEIGHTS for path in checkpoints_root().glob(f"*/{name}")]
    known = ", ".join(sorted({path.parent.name for path in files}))
    raise UserError(
        f"no checkpoint or run folder at {str(name_or_path)!r}; committed ones: {known or 'none'}"
    )


def snapshot_folders(run_dir: str | Path) -> list[Path]:
    """Return the folders of a run's snapshots, the earliest first."""
    found = sorted(Path(run_dir).glob("snapshots/step-*"))
    if not found:
        raise UserError(f"{run_dir} has no snapshots: train it with --snapshot-every")
    return found


def load_config(name_or_path: str | Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the configuration of a checkpoint and what it was made from."""
    path = find_run(name_or_path) / "config.json"
    remedy = "it is not a run's configuration; fetch or train the run again"
    saved = read_json(path, remedy)
    try:
        return from_dict(saved["config"]), dict(saved["about"])
    except UserError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): {remedy}") from error


def load_generator(name_or_path: str | Path) -> AnyGenerator:
    """Return a committed checkpoint's generator, or a run's, in evaluation mode, on the CPU."""
    return _load(name_or_path, "generator")


def load_discriminator(name_or_path: str | Path) -> AnyDiscriminator:
    """Return a discriminator; see ``load_generator``."""
    return _load(name_or_path, "discriminator")


def _load(name_or_path: str | Path, kind: str) -> AnyGenerator | AnyDiscriminator:
    folder = find_run(name_or_path)
    path = folder / f"{kind}.safetensors"
    if not path.is_file():
        why = "a run writes its weights when it ends or is stopped"
        for other in NETWORKS:
            if (folder / f"{other}.safetensors").is_file():
                why = f"it keeps its {other} alone"
        raise UserError(f"{folder} has no {path.name}: {why}")
    config, about = load_config(folder)
    try:
        network = NETWORKS[kind](config.model)
    except RuntimeError as error:
        raise UserError(
            f"the {kind} that {folder} describes cannot be built ({str(error).splitlines()[0]}): "
            "free memory, or mend its config.json"
        ) from error
    if kind == "discriminator" and about.get("lacking"):
        network = without_output(network, about["lacking"])
    weights, _ = read_tensors(path, "fetch or train it again")
    _fill(network, {k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return network.eval()


def _fill(network: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"these weights are of another network than the configuration's: {reason}"
        ) from error


def start_from(name_or_path: str | Path, gan: Gan) -> None:
    """Put the weights of a checkpoint into both networks, and into their averages."""
    _fill(gan.generator, load_generator(name_or_path).state_dict())
    _fill(gan.discriminator, load_discriminator(name_or_path).state_dict())
    if gan.g_average is not None:
        gan.g_average.module.load_state_dict(gan.generator.state_dict())
        gan.d_average.module.load_state_dict(gan.discriminator.state_dict())


# The state, from which a run goes on.


def _modules(gan: Gan) -> dict[str, nn.Module]:
    found = {"generator": gan.generator, "discriminator": gan.discriminator}
    if gan.g_average is not None:
        found |= {"generator_average": gan.g_average, "discriminator_average": gan.d_average}
    return found


def _optimizers(gan: Gan) -> dict[str, torch.optim.Optimizer]:
    return {"generator_optimizer": gan.g_optimizer, "discriminator_optimizer": gan.d_optimizer}


def state_tensors(gan: Gan) -> dict[str, Tensor]:
    """Return every tensor of the state under one flat name."""
    found = {}
    for part, module in _modules(gan).items():
        found |= {f"{part}.{key}": value for key, value in module.state_dict().items()}
    for part, optimizer in _optimizers(gan).items():
        for index, entry in optimizer.state_dict()["state"].items():
            for key, value in entry.items():
                found[f"{part}.{index}.{key}"] = torch.as_tensor(value)
    return found


def not_finite(gan: Gan) -> str | None:
    """Return the name of a tensor of the state that holds a NaN or an infinity, or None."""
    return next(
        (name for name, value in state_tensors(gan).items() if not value.isfinite().all()), None
    )


def has_state(run_dir: Path) -> bool:
    """Return whether a run can go on from what was saved."""
    return any((run_dir / name).exists() for name in (STATE, PREVIOUS))


def save_state(run_dir: Path, gan: Gan, progress: dict[str, Any]) -> None:
    """Write the state and plain values such as the step, atomically; refuse NaN and infinity."""
    broken = not_finite(gan)
    if broken:
        raise UserError(f"{broken} is no longer finite, so this state cannot be saved")
    _keep_as_previous(run_dir)
    write_tensors(run_dir / STATE, state_tensors(gan), {"progress": json.dumps(progress)})


def _keep_as_previous(run_dir: Path) -> None:
    """Give the last state a second name, without copying it; some file systems cannot."""
    if (run_dir / STATE).exists():
        part = run_dir / f".{PREVIOUS}.part"
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
            os.link(run_dir / STATE, part)
            os.replace(part, run_dir / PREVIOUS)


def load_state(run_dir: Path, gan: Gan) -> dict[str, Any]:
    """Put the saved state into ``gan`` and return the values saved beside it.

    Where the last one is damaged the one before is taken, and "damaged" among the values says so.
    """
    try:
        return _load_state(run_dir / STATE, gan)
    except UserError as error:
        if not (run_dir / PREVIOUS).is_file():
            raise
        return _load_state(run_dir / PREVIOUS, gan) | {"damaged": str(error)}


def _load_state(path: Path, gan: Gan) -> dict[str, Any]:
    remedy = "delete the run to begin anew"
    tensors, texts = read_tensors(path, remedy)
    try:
        progress = json.loads(texts["progress"])
        _put(tensors, gan)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a state of this run ({reason}): {remedy}") from error
    return progress


def _put(tensors: dict[str, Tensor], gan: Gan) -> None:
    def part_of(part: str) -> dict[str, Tensor]:
        return {
            k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")
        }

    for part, module in _modules(gan).items():
        _fill(module, part_of(part))
    for part, optimizer in _optimizers(gan).items():
        parameters = optimizer.param_groups[0]["params"]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part_of(part).items():
            index, name = key.split(".")
            weight = parameters[int(index)]
            if value.shape == weight.shape:
                # In memory as its weights lie: otherwise plain Adam is slow, and a fused one is
                # wrong.
                value = torch.empty_like(weight).copy_(value)
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def check_resumable(
    run_dir: Path, config: TrainConfig, digest: str | None, start_from: str | None = None
) -> None:
    """Refuse to go on with a run of other settings, another image set or other initial weights."""
    free = {"steps", "minutes", "log_every", "sample_every", "num_samples", "snapshot_every"}
    free |= {"save_seconds", "score_every", "score_images"}
    saved_config, about = load_config(run_dir)
    if config.precision in ("auto", about.get("precision")):
        free.add("precision")  # what was found for a run is kept
    if config.decay_fraction:
        free.discard("steps")  # the learning rate depends on it
    saved, asked = _flat(saved_config), _flat(config)
    saved |= {"image set": about.get("digest"), "--start-from": about.get("start_from")}
    asked |= {"image set": digest, "--start-from": start_from}
    differing = sorted(name for name in asked if name not in free and saved[name] != asked[name])
    if differing == ["steps"]:
        raise UserError(
            f"{run_dir} holds a run of {saved['steps']:,} steps whose learning rate falls to 0 by "
            f"then (decay_fraction {config.decay_fraction:g}), so more steps would be another run: "
            f"to train its networks further, give --start-from {run_dir} and another --run-dir"
        )
    if differing:
        changes = [
            name if name == "image set" else f"{name} ({saved[name]}; you asked for {asked[name]})"
            for name in differing
        ]
        raise UserError(
            f"{run_dir} holds a run with another {', '.join(changes)}: give the same, or choose "
            "another folder"
        )


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of the run and of its networks, side by side."""
    settings = to_dict(config)
    model = settings.pop("model")
    return settings | model


def check_unused(run_dir: Path) -> None:
    """Refuse to train over networks that no state belongs to, as in a copied checkpoint."""
    if any((run_dir / name).exists() for name in WEIGHTS):
        raise UserError(
            f"{run_dir} holds trained networks but no {STATE} to go on from: choose another "
            f"--run-dir, and give --start-from {run_dir} to train these networks further"
        )


# Weights, settings and metrics.


def save_weights(path: Path, network: nn.Module, *, half: bool = False) -> None:
    """Write a network's weights and batch-norm statistics as safetensors, perhaps in float16."""
    weights = network.state_dict()
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    write_tensors(path, weights)


def save_config(run_dir: Path, config: TrainConfig, about: dict[str, Any]) -> None:
    """Write ``config.json``: the configuration and what the run was made from."""
    content = {"config": to_dict(config), "about": about}
    atomic_write(run_dir / "config.json", json.dumps(content, indent=2) + "\n")


def save_networks(folder: Path, gan: Gan, about: dict[str, Any]) -> None:
    """Write a folder that ``load_generator`` reads: both networks and their configuration."""
    networks = {folder: (gan.generator, gan.discriminator)}
    if gan.g_average is not None:
        networks[folder / AVERAGES] = (gan.g_average.module, gan.d_average.module)
    for place, pair in networks.items():
        for name, network in zip(WEIGHTS, pair, strict=True):
            save_weights(place / name, network)
        save_config(place, gan.config, about)


def write_metrics(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write ``metrics.jsonl`` anew: one JSON object a line."""
    atomic_write(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` up to a line that a crash cut off; a missing file is empty."""
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # not JSON, or not even text
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines


# Publishing.

MAX_METRICS, MAX_GRIDS = 200, 10
Keep = Literal["both", "generator", "discriminator"]
WRITTEN = {*WEIGHTS, "config.json", "metrics.jsonl", "card.md", "samples"}


def publish(
    run_dir: str | Path, name: str, *, command: str | None = None, keep: Keep = "both"
) -> Path:
    """Copy a run in half precision to ``data/checkpoints/name``, write its card, return the folder.

    An earlier checkpoint of that name is replaced, unless it also holds what was made for its
    weights (directions, exemplars, boxes). The card needs a ``command``; unset: the one that the
    run was started with. To ``keep`` one network alone halves the size. Of the metrics every k-th
    line is kept, 200 at most, and of the samples every k-th grid, 10 at most, the last one among
    them. Of a run's ``ema/`` the averaged networks are copied, with the run's metrics and one grid
    of their own.
    """
    run, folder = find_run(run_dir), checkpoints_root() / name
    require(is_plain_name(name), "a checkpoint's name", name, "a plain word such as faces")
    if run.resolve() == folder.resolve():
        raise UserError(f"{name} cannot be published onto itself: give the run that it came from")
    is_average = run.name == AVERAGES and (run.parent / "config.json").is_file()
    whole_run = run.parent if is_average else run
    metrics, (config, about) = read_metrics(whole_run / "metrics.jsonl"), load_config(run)
    if not metrics:
        raise UserError(f"{run} has no metrics: train it before it is published")
    if command:
        about["command"] = command
    if is_average:
        about["weights"] = f"moving averages, decay {config.ema_decay:g}"
    if "command" not in about:
        raise UserError(f"{run} does not say what command made it: give it with --command")
    networks = {kind: _load(run, kind) for kind in NETWORKS if keep in ("both", kind)}
    others = sorted(path.name for path in folder.glob("[!.]*") if path.name not in WRITTEN)
    if others:
        raise UserError(
            f"{folder} also holds {', '.join(others)}, made for its weights: move them away, "
            "then publish"
        )
    grids = {}
    if not is_average:
        paths = sorted(run.glob("samples/*.png"), reverse=True)
        every = max(1, -(-len(paths) // MAX_GRIDS))
        grids = {path.stem: Image.open(path) for path in paths[::every]}
    elif "generator" in networks:  # the run's grids show the plain weights
        labels_n = labels_in_turn(config.num_samples, config.model)
        pictures = sample_u8(networks["generator"], config.num_samples, config.seed, labels_n)
        grids = {f"step-{metrics[-1]['step']:07d}": Image.fromarray(picture_grid(pictures))}
    with new_in_place_of(folder) as part:
        (part / "samples").mkdir()
        for kind, network in networks.items():
            save_weights(part / f"{kind}.safetensors", network, half=True)
        save_config(part, config, about)
        every = -(-len(metrics) // MAX_METRICS)
        write_metrics(part / "metrics.jsonl", metrics[::-1][::every][::-1])
        for stem, grid in grids.items():
            grid.save(part / "samples" / f"{stem}.webp", quality=80)
        card = _card(name, config, about, metrics[-1])
        if keep != "discriminator":
            card += f"\nHow good it is: `dcgan results --section ours.{name}.`; to measure again: "
            card += f"`dcgan evaluate {name} --record {name}`.\n"
        atomic_write(part / "card.md", card)
    return folder


def _card(name: str, config: TrainConfig, about: dict[str, Any], last: dict[str, float]) -> str:
    model = config.model
    height, width = model.image_size
    networks = f"DCGAN, base width {model.base_width}, kernel {model.kernel_size}"
    if model.architecture == "dense":
        layers = f"{model.num_stages} hidden layers of {model.hidden_units} units"
        networks = f"fully connected, {layers}"
    elif model.architecture == "residual":
        networks = (
            f"residual, base width {model.base_width}, alpha {model.residual_alpha:g}, "
            f"norm {model.residual_norm}, "
            f"{'relu' if model.residual_activation == 'relu' else 'leaky relu'}"
        )
    rows = {
        "made by": f"`{about['command']}`",
        "image set": f"{about['image_set']}, {about['images']:,} images "
        "(data/README.md has source and licence)",
        "pictures": f"{model.num_channels} x {height} x {width}",
        "networks": f"{networks}, z of {model.z_dim}, {model.z_distribution}",
        "training": f"{last['step']:,} steps of {config.batch_size}, {last['epoch']:.1f} epochs, "
        f"{last['seconds'] / 60:.0f} minutes, {about.get('precision', config.precision)}, "
        f"seed {config.seed}",
        "stored": "half precision; the generator's batch-norm statistics measured at the end",
    }
    if "weights" in about:
        rows["weights"] = about["weights"]
    rows["versions"] = f"dcgan_lib {__version__}, torch {torch.__version__.partition('+')[0]}"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"# {name}\n\n| | |\n|---|---|\n{table}\n"


# Networks that came from elsewhere.


def check_import_place(folder: Path) -> None:
    """Refuse to write over anything but an earlier import."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        try:
            is_import = bool({"released", "imported"} & set(load_config(folder)[1]))
        except UserError:
            is_import = False
        if not is_import or (folder / STATE).exists():
            raise UserError(
                f"{folder} holds something other than an earlier import: move it away, or choose "
                "another --out"
            )


def write_import(
    folder: Path, networks: dict[str, nn.Module | None], config: TrainConfig, about: dict[str, Any]
) -> None:
    """Write a folder that loads as a run's does, in place of an earlier import, or nothing.

    ``networks`` are the generator and the discriminator by these words, None where there is none.
    """
    try:
        with new_in_place_of(folder) as part:
            for kind, network in networks.items():
                if network is not None:
                    save_weights(part / f"{kind}.safetensors", network)
            save_config(part, config, about)
    except OSError as error:
        raise UserError(
            f"cannot write {folder} ({error.strerror or error}): choose another --out"
        ) from error


# Drawing.

BLOCK = 64


def draw(
    checkpoint: str | Path,
    num_images: int,
    *,
    seed: int = 0,
    label: int | None = None,
    attributes: Mapping[str, bool] | None = None,
    best_of: int = 1,
    best: int | None = None,
    batch_stats: bool = False,
) -> np.ndarray:
    """Draw pictures, uint8, n x c x h x w; picture k is the same however many are asked for.

    A conditional generator draws all classes in turn where no ``label`` is given; one of several
    attributes, all combinations of those that ``attributes`` leaves open. ``best_of`` draws
    that many times as many and keeps the most real ones in the discriminator's eyes, best first:
    they are picked, so they say nothing about the generator's average. ``best`` keeps that many of
    ``num_images`` in the same way; if it is all of them, they are sorted. With ``batch_stats`` (see
    ``generate_u8``) a picture does depend on the others.
    """
    total = num_images * best_of
    for name, value, low in (
        ("num_images", num_images, 1),
        ("best_of", best_of, 1),
        ("seed", seed, 0),
    ):
        require(low <= value < 2**63, name, value, f"at least {low} and below 2**63")
    if best is not None:
        require(1 <= best <= num_images, "best", best, f"from 1 to num_images, {num_images}")
        require(best_of == 1, "best_of", best_of, "left out where best is given")
    if batch_stats and total == 1:
        raise UserError(
            "one picture alone has no batch statistics: draw at least 2, or use the running ones"
        )
    generator = load_generator(checkpoint)
    # Normal numbers come in blocks, and sums may depend on a batch's size.
    whole = -(-total // BLOCK) * BLOCK
    num, size = whole, BLOCK
    if batch_stats:  # one picture alone would have no statistics
        num, size = total, next(size for size in range(256, 1, -1) if total % size != 1)
    z_nd = sample_latents(whole, generator.config, seeded(seed))[:num]
    labels_n = _labels(num, generator.config, label, attributes or {})
    pictures = generate_u8(generator, z_nd, labels_n, batch_stats=batch_stats, batch_size=size)
    pictures = pictures[:total]
    if best_of == 1 and best is None:
        return pictures
    labels_n = None if labels_n is None else labels_n[:total]
    logits = logits_of(load_discriminator(checkpoint), pictures, labels_n)
    return pictures[np.argsort(-logits, kind="stable")[: best or num_images]]


def _labels(
    num: int, config: ModelConfig, label: int | None, attributes: Mapping[str, bool]
) -> Tensor | None:
    for name in attributes:
        known = ", ".join(config.attributes) or "none: leave attributes out"
        require(name in config.attributes, "an attribute", repr(name), f"one of the run's: {known}")
    if label is not None:
        require(not config.attributes, "label", label, "left out, as there are attributes")
        return labels_alike(num, label, config)
    labels_n = labels_in_turn(num, config)
    for name, value in attributes.items():
        labels_n[:, config.attributes.index(name)] = int(value)
    return labels_n
