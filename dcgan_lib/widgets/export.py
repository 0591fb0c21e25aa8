"""Export a generator for the page: batch norm folded in, weights as int8 or half precision, the error measured.

Axes: n pictures, d latent, i inputs, o outputs, h w grid, k kernel. ``x_u8`` pixels 0..255. A network with labels
has one more input per class, in every layer.
"""

import base64
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from scipy.special import expit
from torch import nn
from tyro.conf import Positional

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.directions import load_directions
from dcgan_lib.models.dcgan import Generator
from dcgan_lib.models.sampling import generate_u8
from dcgan_lib.paths import atomic_write, checkpoints_root
from dcgan_lib.training.checkpoints import find_run, load_config, load_generator
from dcgan_lib.widgets.latents import seed_latent

Precision = Literal["int8", "half"]
LIMITS = {"int8": (0.7, 4), "mixed": (0.7, 4), "half": (1.0, 1)}
"""Largest mean and maximum difference from PyTorch's pixels, of 255 levels, over `NUM_CHECKED` pictures. For int8 it is
below the 1 and 6 that the book promises, because some picture that is not checked will be worse."""
NUM_CHECKED = 256


@dataclass(frozen=True)
class Layer:
    """One layer with its batch norm folded in: a projection (o, i) or a transposed convolution (i, o, k, k)."""

    kind: Literal["linear", "conv"]
    weight: np.ndarray
    bias: np.ndarray
    about: dict[str, Any]


@dataclass(frozen=True)
class ExportedModel:
    """A generator as the page gets it.

    Parameters
    ----------
    name : str
        The checkpoint's.
    config : ModelConfig
        Of the generator.
    precision : str
        "int8" or "half"; "mixed" when int8 was asked for and some layers had to stay in half precision.
    about : dict
        What ``explorer.js`` reads: sizes, layers with the places of their weights, directions, measured error.
    weights : bytes
        All layers' weights, scales and biases.
    """

    name: str
    config: ModelConfig
    precision: str
    about: dict[str, Any]
    weights: bytes


def names_for_pages() -> list[str]:
    """Return the committed generators that a page can draw: the convolutional ones."""
    folders = sorted(path.parent for path in checkpoints_root().glob("*/generator.safetensors"))
    return [
        folder.name
        for folder in folders
        if load_config(folder)[0].model.architecture == "convolutional"
    ]


def fold(generator: Generator) -> list[Layer]:
    """Fold batch norm's running statistics, scale and bias into the layer before it.

    Returns
    -------
    list of Layer
        float32, in the order of the data; the last has no batch norm and a bias of zero.
    """
    layers, convs = [], list(generator.convs)
    if generator.config.hidden_units:
        layers.append(_fold_linear(generator.hidden, generator.hidden_norm, None))
    layers.append(_fold_linear(generator.project, generator.project_norm, generator.base_shape))
    size = generator.base_shape[1:]
    for conv, norm in zip(convs, [*generator.norms, None], strict=True):
        weight = conv.weight.detach().double().numpy()
        scale, bias = _scale_and_bias(norm, weight.shape[1])
        (stride, _), (k, _), (pad, _), extra = (
            conv.stride,
            conv.kernel_size,
            conv.padding,
            conv.output_padding,
        )
        out = tuple(
            (side - 1) * stride - 2 * pad + k + more for side, more in zip(size, extra, strict=True)
        )
        about = {
            "inputs": weight.shape[0] - generator.config.num_classes,
            "outputs": weight.shape[1],
            "kernel": k,
            "stride": stride,
            "in_size": list(size),
            "out_size": list(out),
            "relu": norm is not None,
        }
        layers.append(
            Layer("conv", (weight * scale[:, None, None]).astype(np.float32), bias, about)
        )
        size = out
    return layers


def _fold_linear(linear: nn.Linear, norm: nn.Module, grid: tuple[int, int, int] | None) -> Layer:
    weight = linear.weight.detach().double().numpy()
    scale, bias = _scale_and_bias(norm, norm.num_features)
    repeats = len(weight) // len(
        scale
    )  # above 1 when the norm is over channels and the layer gives units
    scale, bias = np.repeat(scale, repeats), np.repeat(bias, repeats)
    about: dict[str, Any] = {"outputs": len(weight)} | ({"grid": list(grid)} if grid else {})
    return Layer("linear", (weight * scale[:, None]).astype(np.float32), bias, about)


def _scale_and_bias(norm: nn.Module | None, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    if norm is None:
        return np.ones(outputs), np.zeros(outputs, np.float32)
    scale = 1 / np.sqrt(norm.running_var.double().numpy() + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.detach().double().numpy()
    shift = norm.bias.detach().double().numpy() if norm.affine else 0.0
    return scale, (shift - scale * norm.running_mean.double().numpy()).astype(np.float32)


def _quantise(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights and their float32 scales, the largest weight that shares a scale at 127.

    A projection has one scale an output; a convolution one for each pair of input and output, since one an output
    alone is up to twice as coarse.
    """
    shared = tuple(range(1, layer.weight.ndim)) if layer.kind == "linear" else (2, 3)
    scale = np.maximum(np.abs(layer.weight).max(shared), 1e-12).astype(np.float32) / np.float32(127)
    steps = layer.weight / np.expand_dims(scale, shared)
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scale


def _pack(layers: list[Layer], kinds: list[str]) -> tuple[list[dict[str, Any]], bytes]:
    """Lay the layers out in one block of bytes, each part at a multiple of four."""
    block, described = bytearray(), []

    def put(values: np.ndarray) -> int:
        block.extend(b"\0" * (-len(block) % 4))
        start = len(block)
        block.extend(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
        return start

    for layer, kind in zip(layers, kinds, strict=True):
        entry = {"kind": layer.kind, "type": kind, **layer.about}
        if kind == "int8":
            stored, scale = _quantise(layer)
            entry |= {"weight": put(stored), "scale": put(scale)}
        else:
            entry["weight"] = put(layer.weight.astype(np.float16))
        described.append(entry | {"bias": put(layer.bias.astype(np.float32))})
    return described, bytes(block)


def _describe(
    generator: Generator, name: str, layers: list[Layer], kinds: list[str], precision: str
) -> ExportedModel:
    config = generator.config
    described, weights = _pack(layers, kinds)
    for entry, inputs in zip(described, [config.z_dim, config.hidden_units or 0], strict=False):
        if entry["kind"] == "linear":
            entry["inputs"] = inputs
    fields = ("image_size", "num_channels", "z_dim", "z_distribution", "num_classes", "output")
    about = {"name": name, "precision": precision} | {
        field: getattr(config, field) for field in fields
    }
    about |= {"image_size": list(config.image_size), "layers": described, "directions": []}
    return ExportedModel(name, config, precision, about, weights)


def _candidates(num_layers: int, precision: Precision) -> list[tuple[str, list[str]]]:
    """List ways to store the layers, smallest first: the last two are small, and coarse weights show most there."""
    whole = ("half", ["half"] * num_layers)
    if precision == "half":
        return [whole]
    fine = [0, 1, min(2, num_layers - 1)]
    ways = [["int8"] * (num_layers - count) + ["half"] * count for count in fine]
    return [("mixed" if "half" in way else "int8", way) for way in ways] + [whole]


def export_generator(
    generator: Generator, name: str, precision: Precision = "int8"
) -> ExportedModel:
    """Export a generator that is in memory; see `export_model`."""
    if precision not in ("int8", "half"):
        raise UserError(f"precision must be 'int8' or 'half', but it is {precision!r}")
    if generator.config.architecture == "dense":
        raise UserError(
            f"the page draws convolutional generators, but {name} is a dense one: export it with --onnx"
        )
    layers, exact = fold(generator), None
    for chosen, kinds in _candidates(len(layers), precision):
        exported = _describe(generator, name, layers, kinds, chosen)
        mean, most, exact = _difference(exported, generator, exact)
        limits = LIMITS[chosen]
        if (mean <= limits[0] and most <= limits[1]) or chosen == "half":
            exported.about["error"] = {"mean": round(mean, 4), "max": most, "pictures": NUM_CHECKED}
            return exported
    raise AssertionError("half precision always ends the search")


def export_model(
    name_or_path: str | Path,
    precision: Precision = "int8",
    *,
    samples: bool = False,
    directions: bool = True,
) -> ExportedModel:
    """Export a checkpoint's generator for the page.

    Parameters
    ----------
    name_or_path : str or Path
        A committed checkpoint's name, or a run's folder.
    precision : {"int8", "half"}
        int8: one byte a weight and one scale per output, 1.1 MB at 64x64 and width 32. Layers that would bring
        the error above `LIMITS` stay in half precision; the result's ``precision`` then says "mixed", or "half".
    samples : bool, default False
        Add the stored pictures of its training, for the explorer's mode "steps".
    directions : bool, default True
        Add the named directions, if the checkpoint has any.

    Returns
    -------
    ExportedModel
        Its ``about["error"]`` holds the mean and maximum difference from PyTorch's pixels, in levels of 255.

    Raises
    ------
    UserError
        If there is no such checkpoint or precision.
    """
    folder = find_run(name_or_path)
    exported = export_generator(load_generator(name_or_path), folder.name, precision)
    if directions:
        exported.about["directions"] = [
            {
                "name": found.name,
                "score": round(found.score, 3),
                "measure": found.measure,
                "vector": [round(float(value), 5) for value in found.direction_d],
            }
            for found in load_directions(folder)
        ]
    if samples:
        exported.about["samples"] = stored_samples(folder)
    return exported


def stored_samples(folder: Path) -> list[dict[str, Any]]:
    """Return the grids of pictures that were stored while training, as WebP data addresses, in order."""
    found = []
    for path in sorted([*folder.glob("samples/step-*.webp"), *folder.glob("samples/step-*.png")]):
        raw = path.read_bytes()
        if path.suffix == ".png":
            buffer = io.BytesIO()
            Image.open(path).save(buffer, "WEBP", quality=80)
            raw = buffer.getvalue()
        picture = "data:image/webp;base64," + base64.b64encode(raw).decode()
        found.append({"step": int(path.stem.removeprefix("step-")), "picture": picture})
    return found


def script_text(exported: ExportedModel) -> str:
    """Return the classic script that hands a model to ``explorer.js``."""
    about = exported.about | {"weights": base64.b64encode(exported.weights).decode()}
    return f"(window.dcganModels ||= {{}})[{json.dumps(exported.name)}] = {json.dumps(about, separators=(',', ':'))};\n"


def write_script(exported: ExportedModel, path: str | Path) -> Path:
    """Write the model as a script that a page loads, even from ``file://``, and return its path."""
    atomic_write(Path(path), script_text(exported))
    return Path(path)


def _difference(
    exported: ExportedModel, generator: Generator, exact: np.ndarray | None
) -> tuple[float, int, np.ndarray]:
    """Return mean and maximum difference in pixels, and PyTorch's pictures for the next call."""
    config = exported.config
    z_nd = np.stack([seed_latent(seed, config) for seed in range(NUM_CHECKED)])
    labels_n = np.arange(NUM_CHECKED) % config.num_classes if config.num_classes else None
    if exact is None:
        labels = None if labels_n is None else torch.from_numpy(labels_n)
        exact = generate_u8(generator, torch.from_numpy(z_nd), labels)
    apart = np.abs(run_exported(exported, z_nd, labels_n).astype(np.int16) - exact)
    return float(apart.mean()), int(apart.max()), exact


def stored_weights(exported: ExportedModel, entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return one layer's weights, as the page reads them, and its biases; float32."""
    columns, outputs = entry["inputs"] + exported.config.num_classes, entry["outputs"]
    shape = (
        (outputs, columns)
        if entry["kind"] == "linear"
        else (columns, outputs, *2 * (entry.get("kernel"),))
    )
    count = int(np.prod(shape))

    def read(place: str, kind: str, size: int) -> np.ndarray:
        return np.frombuffer(exported.weights, kind, size, entry[place])

    weight = (
        read("weight", "i1" if entry["type"] == "int8" else "<f2", count)
        .astype(np.float32)
        .reshape(shape)
    )
    if entry["type"] == "int8":
        shared = (
            (1,) if entry["kind"] == "linear" else (2, 3)
        )  # the axes along which weights share a scale
        scales = tuple(size for axis, size in enumerate(shape) if axis not in shared)
        weight = weight * np.expand_dims(
            read("scale", "<f4", int(np.prod(scales))).reshape(scales), shared
        )
    return weight, read("bias", "<f4", outputs)


def run_exported(
    exported: ExportedModel, z_nd: np.ndarray, labels_n: np.ndarray | None = None
) -> np.ndarray:
    """Turn latent vectors into pictures with the exported weights.

    Parameters
    ----------
    exported : ExportedModel
        From `export_model`.
    z_nd : ndarray
        float32, shape (n, z_dim).
    labels_n : ndarray, optional
        Class numbers, exactly when the network is conditional.

    Returns
    -------
    ndarray
        uint8, n x c x h x w.
    """
    num_classes, h = exported.config.num_classes, z_nd.astype(np.float32)
    y_nk = (
        np.eye(num_classes, dtype=np.float32)[labels_n]
        if num_classes
        else np.zeros((len(z_nd), 0), np.float32)
    )
    for entry in exported.about["layers"]:
        weight, bias = stored_weights(exported, entry)
        if entry["kind"] == "linear":
            h = np.maximum(np.concatenate([h, y_nk], 1) @ weight.T + bias, 0)
            h = h.reshape(-1, *entry["grid"]) if "grid" in entry else h
        else:
            spread = np.broadcast_to(y_nk[:, :, None, None], (*y_nk.shape, *h.shape[2:]))
            h = (
                _transposed_convolution(np.concatenate([h, spread], 1), weight, entry)
                + bias[:, None, None]
            )
            h = np.maximum(h, 0) if entry["relu"] else h
    x_01 = (np.tanh(h) + 1) / 2 if exported.config.output == "tanh" else expit(h)
    return np.rint(x_01 * 255).astype(np.uint8)


def _transposed_convolution(h: np.ndarray, weight: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """Add each tap's contribution to a frame that is wide enough, then cut the frame off."""
    k, stride, pad = entry["kernel"], entry["stride"], (entry["kernel"] - 1) // 2
    (height, width), (tall, wide) = entry["in_size"], entry["out_size"]
    n, inputs = h.shape[:2]
    flat = h.transpose(0, 2, 3, 1).reshape(-1, inputs)
    frame_size = (n, tall + 2 * k, wide + 2 * k, entry["outputs"])
    frame = np.zeros(frame_size, np.float32)
    for ky in range(k):
        for kx in range(k):
            tap = (flat @ weight[:, :, ky, kx]).reshape(n, height, width, -1)
            frame[:, ky : ky + stride * height : stride, kx : kx + stride * width : stride] += tap
    return frame[:, pad : pad + tall, pad : pad + wide].transpose(0, 3, 1, 2)


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
        generator,
        given,
        input_names=names,
        output_names=["x_bchw"],
        dynamic_shapes=axes,
        dynamo=True,
        verbose=False,
    )
    atomic_write(Path(path), program.model_proto.SerializeToString())
    return _onnx_difference(Path(path), generator, given, names)


def _latents(config: object, num: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([seed_latent(seed, config) for seed in range(num)]))


@torch.no_grad()
def _onnx_difference(
    path: Path, generator: torch.nn.Module, given: tuple, names: list[str]
) -> float | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    return float(np.abs(session.run(None, fed)[0] - generator(*given).numpy()).max())


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a trained generator for the web: a script that the live explorer loads, or ONNX."""

    checkpoint: Positional[str]
    """A committed checkpoint (mnist, faces, bedrooms, rooms, portraits) or a run's folder."""
    out: Path | None = None
    """File to write; unset: NAME.js, or NAME.onnx with --onnx."""
    precision: Literal["int8", "half"] = "int8"
    """One byte a weight, layers that would suffer kept in half precision; or half precision throughout."""
    samples: bool = False
    """Add the stored pictures of its training."""
    onnx: bool = False
    """Write ONNX in float32 instead, and compare it with PyTorch if onnxruntime is installed."""

    def run(self) -> None:
        """Export, then say how large the file is and how far its pictures are from PyTorch's."""
        from dcgan_lib.training.checkpoints import find_run

        name = find_run(self.checkpoint).name
        out = self.out or Path(f"{name}.{'onnx' if self.onnx else 'js'}")
        if self.onnx:
            apart = write_onnx(self.checkpoint, out)
            checked = (
                "not compared: onnxruntime is not installed"
                if apart is None
                else f"within {apart:.1g} of PyTorch"
            )
            print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, float32, {checked}")
            return

        exported = export_model(self.checkpoint, self.precision, samples=self.samples)
        size, error = write_script(exported, out).stat().st_size, exported.about["error"]
        print(
            f"{out}: {size / 1e6:.1f} MB, {exported.precision}; off PyTorch's pixels by {error['mean']:.2f} of 255 "
            f"levels on average, {error['max']} at most (n {error['pictures']} pictures)"
        )
