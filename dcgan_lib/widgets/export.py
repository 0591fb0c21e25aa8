"""Export a generator for the live page (a script with folded weights) or as ONNX.

Axes: n pictures, d latent, i inputs, o outputs, h w grid, k kernel. ``x_u8`` pixels 0..255. A
network with labels has one more input per class, in every layer.
"""

import base64
import copy
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.directions import load_directions
from dcgan_lib.models.dcgan import Generator, one_hot, with_labels
from dcgan_lib.models.sampling import generate_u8, in_batches, to_u8
from dcgan_lib.paths import atomic_write, checkpoints_root
from dcgan_lib.training.checkpoints import find_run, load_config, load_generator
from dcgan_lib.widgets.latents import seed_latent

Precision = Literal["int8", "half"]
LIMITS = {"int8": (0.7, 4), "mixed": (0.7, 4), "half": (np.inf, 255)}
"""Largest mean and maximum difference from PyTorch's pixels, of 255 levels, over `NUM_CHECKED`
pictures. For int8 it is below the 1 and 6 that the book promises, because some picture that is not
checked will be worse; half precision is the last resort, and taken as it is."""
NUM_CHECKED = 256


@dataclass(frozen=True)
class ExportedModel:
    """A generator as the page gets it."""

    config: ModelConfig
    about: dict[str, Any]
    """What ``explorer.js`` reads: name, precision, sizes, layers with the places of their weights,
    directions, measured error."""
    weights: bytes

    @property
    def precision(self) -> str:
        """What the weights are kept as: int8, half, or mixed where int8 was too coarse for some."""
        return self.about["precision"]


def names_for_pages() -> list[str]:
    """Return the committed generators that a page can draw: the convolutional ones."""
    found = sorted(path.parent for path in checkpoints_root().glob("*/generator.safetensors"))
    kinds = {folder.name: load_config(folder)[0].model.architecture for folder in found}
    return [name for name, kind in kinds.items() if kind == "convolutional"]


def export_model(
    name_or_path: str | Path,
    precision: Precision = "int8",
    *,
    samples: bool = False,
    directions: bool = True,
) -> ExportedModel:
    """Export a checkpoint's generator for the page.

    int8 is one byte a weight and some scales: 1.1 MB at 64x64 and width 32. Layers that would bring
    the error above `LIMITS` stay in half precision; the result's ``precision`` then says "mixed",
    or "half". ``samples`` adds the stored pictures of its training, for the explorer's mode
    "steps"; ``directions`` the named ones, if the checkpoint has any. ``about["error"]`` holds the
    mean and maximum difference from PyTorch's pixels, in levels of 255.
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


def export_generator(
    generator: Generator, name: str, precision: Precision = "int8"
) -> ExportedModel:
    """Export a generator that is in memory; see `export_model`."""
    if precision not in get_args(Precision):
        raise UserError(f"precision must be 'int8' or 'half', but it is {precision!r}")
    config = generator.config
    if config.architecture == "dense":
        raise UserError(
            f"the page draws convolutional generators, but {name} is a dense one: "
            "export it with --onnx"
        )
    z_nd, labels_n = _latents(config, NUM_CHECKED)
    exact_u8 = generate_u8(generator, z_nd, labels_n)
    layers = fold(generator)
    # Smallest first. The last two layers are small, and coarse weights show most there.
    num = len(layers)
    for num_fine in (0, 1, min(2, num - 1), num) if precision == "int8" else (num,):
        types = ["int8"] * (num - num_fine) + ["half"] * num_fine
        exported = _pack(config, name, layers, types)
        drawn_u8 = run_exported(exported, z_nd.numpy(), labels_n)
        apart = np.abs(drawn_u8.astype(np.int16) - exact_u8)
        mean, most = float(apart.mean()), int(apart.max())
        if mean <= LIMITS[exported.precision][0] and most <= LIMITS[exported.precision][1]:
            break
    exported.about["error"] = {"mean": round(mean, 4), "max": most, "pictures": NUM_CHECKED}
    return exported


# --- From PyTorch's layers to bytes ---


class Layer(NamedTuple):
    """One layer with its batch norm folded in."""

    about: dict[str, Any]
    weight: np.ndarray
    """float32: a projection (o, i) or a transposed convolution (i, o, k, k)."""
    bias: np.ndarray
    """float32, (o,)."""


def fold(generator: Generator) -> list[Layer]:
    """Fold batch norm's running statistics, scale and bias into the layer before it.

    The last layer has no batch norm, and a bias of zero.
    """
    double, config = copy.deepcopy(generator).double(), generator.config
    layers, size = [], generator.base_shape[1:]
    if config.hidden_units:
        about = {"kind": "linear", "outputs": config.hidden_units}
        layers.append(_fused(double.hidden, double.hidden_norm, about))
    grid = generator.base_shape
    about = {"kind": "linear", "outputs": int(np.prod(grid)), "grid": list(grid)}
    layers.append(_fused(double.project, double.project_norm, about))
    for conv, norm in zip(double.convs, [*double.norms, None], strict=True):
        stride, k = conv.stride[0], conv.kernel_size[0]
        out = [
            (side - 1) * stride - 2 * conv.padding[0] + k + more
            for side, more in zip(size, conv.output_padding, strict=True)
        ]
        about = {
            "kind": "conv",
            "inputs": conv.in_channels - config.num_classes,
            "outputs": conv.out_channels,
            "kernel": k,
            "stride": stride,
            "in_size": list(size),
            "out_size": out,
            "relu": norm is not None,
        }
        layers.append(_fused(conv, norm, about))
        size = out
    return layers


def _fused(layer: nn.Module, norm: nn.Module | None, about: dict[str, Any]) -> Layer:
    weight, bias = layer.weight, torch.zeros(about["outputs"])
    if norm is not None:
        # More than one where the norm is over channels and the layer gives a channel's units.
        repeats = about["outputs"] // norm.num_features
        given = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, variance, scale, shift = (
            None if each is None else each.repeat_interleave(repeats) for each in given
        )
        is_conv = about["kind"] == "conv"
        weight, bias = fuse_conv_bn_weights(
            weight, None, mean, variance, norm.eps, scale, shift, transpose=is_conv
        )
    return Layer(about, *(part.detach().float().numpy() for part in (weight, bias)))


def _shared_axes(about: dict[str, Any]) -> tuple[int, ...]:
    """Return the axes along which int8 weights share a scale.

    A projection has one scale an output; a convolution one for each pair of input and output, since
    one an output alone is up to twice as coarse.
    """
    return (1,) if about["kind"] == "linear" else (2, 3)


def _pack(config: ModelConfig, name: str, layers: list[Layer], types: list[str]) -> ExportedModel:
    """Lay the layers out in one block of bytes, each part at a multiple of four."""
    block, described = bytearray(), []

    def put(values: np.ndarray, dtype: str) -> int:
        block.extend(b"\0" * (-len(block) % 4))
        start = len(block)
        block.extend(values.astype(dtype).tobytes())
        return start

    for (about, weight, bias), stored in zip(layers, types, strict=True):
        entry = {"kind": about["kind"], "type": stored, **about}
        if stored == "int8":
            axes = _shared_axes(about)
            largest = np.maximum(np.abs(weight).max(axes, keepdims=True), 1e-12)
            scale = largest.astype(np.float32) / np.float32(127)
            steps = np.clip(np.rint(weight / scale), -127, 127)
            entry |= {"weight": put(steps, "i1"), "scale": put(scale, "<f4")}
        else:
            entry["weight"] = put(weight, "<f2")
        entry["bias"] = put(bias, "<f4")
        entry.setdefault("inputs", weight.shape[1] - config.num_classes)
        described.append(entry)
    precision = "mixed" if len(set(types)) > 1 else types[0]
    about = {"name": name, "precision": precision, "image_size": list(config.image_size)}
    for field in ("num_channels", "z_dim", "z_distribution", "num_classes", "output"):
        about[field] = getattr(config, field)
    about |= {"layers": described, "directions": []}
    return ExportedModel(config, about, bytes(block))


# --- From bytes to pictures, as the page does it ---


def stored_weights(exported: ExportedModel, entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return one layer's weights, as the page reads them, and its biases; float32."""
    columns, outputs = entry["inputs"] + exported.config.num_classes, entry["outputs"]
    is_linear, k = entry["kind"] == "linear", entry.get("kernel")
    shape = (outputs, columns) if is_linear else (columns, outputs, k, k)

    def read(place: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.frombuffer(exported.weights, dtype, count, entry[place]).reshape(shape)

    weight = read("weight", "i1" if entry["type"] == "int8" else "<f2", shape).astype(np.float32)
    if entry["type"] == "int8":
        axes = _shared_axes(entry)
        weight *= read("scale", "<f4", tuple(1 if a in axes else n for a, n in enumerate(shape)))
    return weight, read("bias", "<f4", (outputs,))


def run_exported(
    exported: ExportedModel, z_nd: np.ndarray, labels_n: np.ndarray | Tensor | None = None
) -> np.ndarray:
    """Turn latent vectors into pictures, uint8, n x c x h x w, with the exported weights."""
    config, entries = exported.config, exported.about["layers"]
    parts = [tuple(map(torch.tensor, stored_weights(exported, entry))) for entry in entries]

    def draw(z_bd: Tensor, labels_b: Tensor | None) -> Tensor:
        y_bk, h = one_hot(labels_b, config.num_classes), z_bd
        for entry, (weight, bias) in zip(entries, parts, strict=True):
            h = with_labels(h, y_bk)
            if entry["kind"] == "linear":
                h = F.linear(h, weight, bias).relu()
                h = h.unflatten(1, entry["grid"]) if "grid" in entry else h
                continue
            k, stride, pad = entry["kernel"], entry["stride"], (entry["kernel"] - 1) // 2
            sizes = zip(entry["in_size"], entry["out_size"], strict=True)
            extra = [out - ((side - 1) * stride - 2 * pad + k) for side, out in sizes]
            h = F.conv_transpose2d(h, weight, bias, stride, pad, extra)
            h = h.relu() if entry["relu"] else h
        return to_u8(h.tanh() if config.output == "tanh" else h.sigmoid(), config)

    labels = None if labels_n is None else torch.as_tensor(labels_n)
    return in_batches(draw, torch.as_tensor(z_nd, dtype=torch.float32), labels)


def _latents(config: ModelConfig, num: int) -> tuple[Tensor, Tensor | None]:
    """Return the vectors of the first seeds, and labels in turn for a conditional network."""
    z_nd = torch.tensor(np.stack([seed_latent(seed, config) for seed in range(num)]))
    return z_nd, torch.arange(num) % config.num_classes if config.num_classes else None


# --- Files ---


def stored_samples(folder: Path) -> list[dict[str, Any]]:
    """Return the grids of pictures stored while training, as WebP data addresses, in order."""
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
    name, text = json.dumps(about["name"]), json.dumps(about, separators=(",", ":"))
    return f"(window.dcganModels ||= {{}})[{name}] = {text};\n"


def write_script(exported: ExportedModel, path: str | Path) -> Path:
    """Write the model as a script that a page loads, even from ``file://``, and return its path."""
    return _write(path, script_text(exported))


def _write(path: str | Path, content: bytes | str) -> Path:
    try:
        atomic_write(Path(path), content)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): choose a place with room") from error
    return Path(path)


def write_onnx(checkpoint: str | Path, path: str | Path) -> float | None:
    """Write a checkpoint's generator as ONNX, float32, for any batch size, and return its error.

    The input is ``z_bd`` (and ``labels_b``, int64, for a conditional generator), the output
    ``x_bchw``. The error is the largest difference from PyTorch on five vectors, in the network's
    own units; None without onnxruntime.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        wanted = " ".join([*missing, "onnxruntime"])
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install {wanted}")
    generator = load_generator(checkpoint)
    z_bd, labels_b = _latents(generator.config, 5)
    given = {"z_bd": z_bd} if labels_b is None else {"z_bd": z_bd, "labels_b": labels_b}
    # One axis has a name; PyTorch finds that the other is as long, and warns of a second name.
    batch, as_long = torch.export.Dim("batch", min=1), torch.export.Dim.AUTO
    program = torch.onnx.export(
        generator,
        tuple(given.values()),
        input_names=list(given),
        output_names=["x_bchw"],
        dynamic_shapes={name: {0: batch if name == "z_bd" else as_long} for name in given},
        dynamo=True,
        verbose=False,
    )
    _write(path, program.model_proto.SerializeToString())
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    drawn = session.run(None, {name: value.numpy() for name, value in given.items()})[0]
    with torch.no_grad():
        return float(np.abs(drawn - generator(*given.values()).numpy()).max())


@dataclass(frozen=True, kw_only=True)
class Export(Command, verb="export"):
    """Write a trained generator for the web: a script that the live explorer loads, or ONNX."""

    checkpoint: Positional[str]
    """A committed checkpoint (mnist, faces, bedrooms, rooms, portraits) or a run's folder."""
    out: Path | None = local(None)
    """File to write, or folder to write it in; unset: NAME.js, or NAME.onnx with --onnx."""
    precision: Precision = "int8"
    """One byte a weight, layers that would suffer kept in half precision; or half throughout."""
    samples: bool = False
    """Add the stored pictures of its training."""
    onnx: bool = False
    """Write ONNX in float32 instead, and compare it with PyTorch if onnxruntime is installed."""

    def run(self) -> None:
        """Export, then say how large the file is and how far its pictures are from PyTorch's."""
        out = self.out or Path()
        if out.is_dir():
            out /= f"{find_run(self.checkpoint).name}.{'onnx' if self.onnx else 'js'}"
        if self.onnx:
            apart = write_onnx(self.checkpoint, out)
            precision, checked = "float32, ", "not compared: onnxruntime is not installed"
            if apart is not None:
                checked = f"within {apart:.1g} of PyTorch"
        else:
            exported = export_model(self.checkpoint, self.precision, samples=self.samples)
            write_script(exported, out)
            precision, error = f"{exported.precision}; ", exported.about["error"]
            checked = (
                f"off PyTorch's pixels by {error['mean']:.2f} of 255 levels on average, "
                f"{error['max']} at most (n {error['pictures']} pictures)"
            )
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {precision}{checked}")
