"""Keep a probe as a small checkpoint: probe.safetensors (float16), config.json, card.md."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Head, Probe, ProbeConfig
from dcgan_lib.paths import atomic_write, checkpoints_root

WEIGHTS, CONFIG, CARD = "probe.safetensors", "config.json", "card.md"


def save_probe(
    probe: Probe, name: str, *, report: dict[str, dict[str, Any]], command: str, root: Path | None = None
) -> Path:
    """Write a probe's weights, description and card.

    Parameters
    ----------
    probe : Probe
        Its weights are stored in float16, batch norm's running statistics in float32.
    name : str
        The checkpoint's name, such as "probe-rooms".
    report : dict
        From `probe_report` on held-out images.
    command : str
        What trains it again.
    root : Path, optional
        By default ``data/checkpoints``.

    Returns
    -------
    Path
        The checkpoint's folder.
    """
    folder = (checkpoints_root() if root is None else Path(root)) / name
    weights = {key: _stored(key, value) for key, value in probe.state_dict().items()}
    described = {
        "format": "dcgan_lib probe 1",
        "name": name,
        "config": dataclasses.asdict(probe.config),
        "facts": probe.facts,
        "report": report,
        "command": command,
    }
    atomic_write(folder / WEIGHTS, save(weights, metadata={"name": name}))
    atomic_write(folder / CONFIG, json.dumps(described, indent=1) + "\n")
    atomic_write(folder / CARD, _card(probe, name, report, command))
    return folder


def load_probe(name: str | Path, *, root: Path | None = None) -> Probe:
    """Load a probe by name or from a folder.

    Parameters
    ----------
    name : str or Path
        A committed probe, such as "probe-mnist", or the folder of any other.
    root : Path, optional
        Where names are looked up; by default ``data/checkpoints``.

    Returns
    -------
    Probe
        float32, on the CPU, in evaluation mode, its weights fixed; ``facts`` also holds its held-out
        scores under "report".

    Raises
    ------
    UserError
        If there is no such probe, or its files do not fit together.
    """
    base = checkpoints_root() if root is None else Path(root)
    folder = base / name if (base / name / CONFIG).is_file() else Path(name)
    if not (folder / CONFIG).is_file():
        known = ", ".join(sorted(path.parent.name for path in base.glob(f"*/{WEIGHTS}")))
        raise UserError(f"there is no probe {str(name)!r}: choose from {known or 'none yet'}, or give a probe's folder")
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        probe = Probe(_config_from(described["config"]))
        weights = load_file(folder / WEIGHTS)
        probe.load_state_dict({key: value.to(probe.state_dict()[key].dtype) for key, value in weights.items()})
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the probe in {folder.name} is damaged ({error}): train it again") from error
    probe.facts = {**described["facts"], "report": described["report"]}
    return probe.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def _stored(key: str, value: torch.Tensor) -> torch.Tensor:
    value = value.detach().cpu().contiguous()
    return value if "running" in key or not value.is_floating_point() else value.half()


def _config_from(entry: dict[str, Any]) -> ProbeConfig:
    heads = tuple(Head(**{**head, "class_names": tuple(head["class_names"])}) for head in entry["heads"])
    sizes = {key: tuple(entry[key]) for key in ("image_size", "widths")}
    return ProbeConfig(**{**entry, **sizes, "heads": heads})


def _card(probe: Probe, name: str, report: dict[str, dict[str, Any]], command: str) -> str:
    """Describe the probe for a reader: what it reads, how well, what it is for."""
    config, facts = probe.config, probe.facts
    size, colour = "x".join(map(str, config.image_size)), "grey" if config.num_channels == 1 else "RGB"
    num_weights = sum(parameter.numel() for parameter in probe.parameters())
    lines = [
        f"# {name}",
        "",
        f"A small convolutional network ({num_weights:,} weights, stored in float16) that reads "
        f"{size} {colour} images. It measures what a generator draws; it is no product for use on people.",
        "",
        f"Trained on {facts.get('num_train', 0):,} images ({facts.get('trained_on')}), weights chosen on "
        f"{facts.get('num_validation', 0):,} others, scored once on held-out images with the stored weights:",
        "",
        "| reads | kind | measure | held-out score [95 %] | constant answer | n |",
        "|---|---|---|---|---|---|",
    ]
    for head, row in report.items():
        lines.append(
            f"| {head} | {row['kind']} | {row['measure']} | {row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}] "
            f"| {row['baseline']:.4f} | {row['n']:,} |"
        )
    return "\n".join([*lines, "", "Train it again:", "", f"    {command}", ""])
