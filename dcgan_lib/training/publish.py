"""Turn a finished run into a small checkpoint that can be committed."""

import json
import shutil
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from dcgan_lib import __version__
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, checkpoints_root
from dcgan_lib.training.checkpoints import (
    find_run,
    load_config,
    load_discriminator,
    load_generator,
    save_config,
    save_weights,
)  # fmt: skip
from dcgan_lib.training.log import read_metrics

MAX_METRICS, MAX_GRIDS = 200, 10
LOADERS = {"generator": load_generator, "discriminator": load_discriminator}
Keep = Literal["both", "generator", "discriminator"]
WRITTEN = {"generator.safetensors", "discriminator.safetensors", "config.json", "metrics.jsonl", "card.md", "samples"}


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
        raise UserError(f"a checkpoint's name must be a plain word such as faces, but it is {name!r}")
    metrics, (config, about) = read_metrics(run / "metrics.jsonl"), load_config(run)
    if not metrics:
        raise UserError(f"{run} has no metrics: train it before it is published")
    networks = {kind: load(run) for kind, load in LOADERS.items() if keep in ("both", kind)}
    others = sorted(path.name for path in folder.glob("*") if path.name not in WRITTEN)
    if others:
        raise UserError(f"{folder} also holds {', '.join(others)}, made for its weights: move them away, then publish")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    for kind, network in networks.items():
        save_weights(folder / f"{kind}.safetensors", network, half=True)
    save_config(folder, config, about)
    every = -(-len(metrics) // MAX_METRICS)
    atomic_write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics[every - 1 :: every]))
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
