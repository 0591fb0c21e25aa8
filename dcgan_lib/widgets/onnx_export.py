"""Write a generator as ONNX and compare it with PyTorch."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.widgets.latents import seed_latent


def write_onnx(checkpoint: str | Path, path: str | Path) -> float | None:
    """Write a checkpoint's generator as ONNX, float32, for any batch size.

    Parameters
    ----------
    checkpoint : str or Path
        A committed checkpoint's name, or a run's folder.
    path : str or Path
        The file; its input is ``z_bd`` (and ``labels_b``, int64, for a conditional generator), its output ``x_bchw``.

    Returns
    -------
    float or None
        Largest difference from PyTorch on five vectors, in the network's own units; None without onnxruntime.

    Raises
    ------
    UserError
        If the packages of the extra ``onnx`` are missing.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'dcgan-lib[onnx]'")
    generator = load_generator(checkpoint)
    config, batch = generator.config, {0: torch.export.Dim("batch", min=1)}
    given, names, axes = (_latents(config, 5),), ["z_bd"], {"z_bd": batch}
    if config.num_classes:
        given, names = (*given, torch.arange(5) % config.num_classes), [*names, "labels_b"]
        axes["labels_b"] = batch
    program = torch.onnx.export(
        generator, given, input_names=names, output_names=["x_bchw"], dynamic_shapes=axes, dynamo=True, verbose=False
    )
    atomic_write(Path(path), program.model_proto.SerializeToString())
    return _difference(Path(path), generator, given, names)


def _latents(config: object, num: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([seed_latent(seed, config) for seed in range(num)]))


@torch.no_grad()
def _difference(path: Path, generator: torch.nn.Module, given: tuple, names: list[str]) -> float | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    return float(np.abs(session.run(None, fed)[0] - generator(*given).numpy()).max())
