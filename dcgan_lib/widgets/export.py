"""Export a network for the live page (a script with folded weights), or a generator as ONNX.

Axes: n pictures, d latent, i inputs, o outputs, c channels, h w grid, k kernel. ``x_u8`` pixels
0..255. A network with labels has one more input per class, in every layer.
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
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.directions import load_directions
from dcgan_lib.models.dcgan import (
    Discriminator,
    Generator,
    one_hot,
    plan_convolutions,
    with_labels,
)
from dcgan_lib.models.sampling import (
    from_u8,
    generate_u8,
    in_batches,
    labels_in_turn,
    logits_of,
    to_u8,
)
from dcgan_lib.paths import atomic_write, checkpoints_root
from dcgan_lib.training.checkpoints import (
    find_run,
    load_config,
    load_discriminator,
    load_generator,
)
from dcgan_lib.widgets.latents import seed_latent

Precision = Literal["int8", "half"]
LIMITS = {"int8": (0.7, 4), "mixed": (0.7, 4), "half": (np.inf, 255)}
"""Largest mean and maximum difference from PyTorch's pixels, of 255 levels, over `NUM_CHECKED`
pictures. For int8 it is below the 1 and 6 that the book promises, because some picture that is not
checked will be worse; half precision is the last resort, and taken as it is."""
NUM_CHECKED = 256


@dataclass(frozen=True)
class ExportedModel:
    """A generator or a discriminator as the page gets it."""

    config: ModelConfig
    about: dict[str, Any]
    """What ``network.js`` reads: name, precision, sizes, layers with the places of their weights,
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
    if config.architecture != "convolutional":
        raise UserError(
            f"the page draws convolutional generators, but {name} is a {config.architecture} one: "
            "export it with --onnx"
        )
    _refuse_attributes(config, name)
    z_nd, labels_n = _latents(config, NUM_CHECKED)
    exact_u8 = generate_u8(generator, z_nd, labels_n)
    layers = fold(generator)
    # Smallest first. The last two layers are small, and coarse weights show most there.
    num = len(layers)
    for num_fine in (0, 1, min(2, num - 1), num) if precision == "int8" else (num,):
        types = ["int8"] * (num - num_fine) + ["half"] * num_fine
        exported = _pack("generator", config, name, layers, types)
        drawn_u8 = run_exported(exported, z_nd.numpy(), labels_n)
        apart = np.abs(drawn_u8.astype(np.int16) - exact_u8)
        mean, most = float(apart.mean()), int(apart.max())
        if mean <= LIMITS[exported.precision][0] and most <= LIMITS[exported.precision][1]:
            break
    exported.about["error"] = {"mean": round(mean, 4), "max": most, "pictures": NUM_CHECKED}
    return exported


def discriminator_name(name: str) -> str:
    """Return the name under which a page asks for a checkpoint's discriminator."""
    return f"{name}-discriminator"


def export_judge(name_or_path: str | Path) -> ExportedModel:
    """Export a checkpoint's discriminator for the page, under `discriminator_name`.

    The error is measured on pictures of the checkpoint's own generator, if it has one.
    """
    folder = find_run(name_or_path)
    discriminator = load_discriminator(folder)
    pictures_u8 = None
    if (folder / "generator.safetensors").is_file():
        generator = load_generator(folder)
        pictures_u8 = generate_u8(generator, *_latents(generator.config, NUM_CHECKED))
    return export_discriminator(discriminator, folder.name, pictures_u8)


def export_discriminator(
    discriminator: Discriminator, name: str, pictures_u8: np.ndarray | None = None
) -> ExportedModel:
    """Export a discriminator that is in memory, always in half precision.

    A coarse weight moves one pixel of a picture a little, but the one number that a discriminator
    gives a lot: with int8 the committed ones miss PyTorch's probability by 7 to 17 of 255 levels,
    with half precision by less than 0.3. ``about["error"]`` holds the mean and maximum difference
    in levels, over the pictures given (n x c x h x w), the same under noise, and noise alone.
    """
    config = discriminator.config
    if config.architecture != "convolutional":
        kind = config.architecture
        raise UserError(
            f"the page runs convolutional discriminators, but {name}'s is a {kind} one: "
            "choose a checkpoint of the DCGAN"
        )
    _refuse_attributes(config, name)
    checked_u8 = _pictures_to_judge(config, pictures_u8)
    num = len(checked_u8)
    labels_n = labels_in_turn(num, config)
    exact_n = probabilities(logits_of(discriminator, checked_u8, labels_n))
    layers = fold_discriminator(discriminator)
    types = ["half"] * len(layers)
    exported = _pack("discriminator", config, discriminator_name(name), layers, types)
    apart_n = 255 * np.abs(judge_exported(exported, checked_u8, labels_n) - exact_n)
    mean, most = float(apart_n.mean()), float(apart_n.max())
    exported.about["error"] = {"mean": round(mean, 4), "max": round(most, 4), "pictures": num}
    return exported


def _refuse_attributes(config: ModelConfig, name: str) -> None:
    if config.attributes:
        raise UserError(
            f"the page offers classes and no attributes, which {name} has: draw with dcgan "
            "sample --attributes, or export it with --onnx"
        )


def _pictures_to_judge(config: ModelConfig, pictures_u8: np.ndarray | None) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (NUM_CHECKED, config.num_channels, *config.image_size)
    noise_u8 = rng.integers(0, 256, shape, dtype=np.uint8)
    if pictures_u8 is None:
        return noise_u8
    disturbed = pictures_u8 + rng.normal(0, 20, pictures_u8.shape)
    disturbed_u8 = disturbed.clip(0, 255).astype(np.uint8)
    return np.concatenate([pictures_u8, disturbed_u8, noise_u8])


# --- From PyTorch's layers to bytes ---


class Layer(NamedTuple):
    """One layer with its batch norm folded in."""

    about: dict[str, Any]
    weight: np.ndarray
    """float32: a projection (o, i) or a convolution of either kind (i, o, k, k)."""
    bias: np.ndarray
    """float32, (o,)."""


def fold(generator: Generator) -> list[Layer]:
    """Fold a generator's batch norm, running statistics, scale and bias, into the layer before it.

    The last layer has no batch norm, and a bias of zero.
    """
    double, config = copy.deepcopy(generator).double(), generator.config
    layers, size = [], generator.base_shape[1:]
    if config.hidden_units:
        about = {"kind": "linear", "outputs": config.hidden_units, "slope": 0}
        layers.append(_fused(double.hidden, double.hidden_norm, about))
    grid = generator.base_shape
    about = {"kind": "linear", "outputs": int(np.prod(grid)), "grid": list(grid), "slope": 0}
    layers.append(_fused(double.project, double.project_norm, about))
    for conv, norm in zip(double.convs, [*double.norms, None], strict=True):
        stride, k = conv.stride[0], conv.kernel_size[0]
        out = [
            (side - 1) * stride - 2 * conv.padding[0] + k + more
            for side, more in zip(size, conv.output_padding, strict=True)
        ]
        about = {
            "kind": "transposed",
            "inputs": conv.in_channels - config.num_classes,
            "outputs": conv.out_channels,
            "kernel": k,
            "stride": stride,
            "in_size": list(size),
            "out_size": out,
            "slope": 1 if norm is None else 0,
        }
        layers.append(_fused(conv, norm, about))
        size = out
    return layers


def fold_discriminator(discriminator: Discriminator) -> list[Layer]:
    """Fold a discriminator's batch norm in the same way.

    The first convolution has none, and neither has the head, which gives the logit.
    """
    double, config = copy.deepcopy(discriminator).double(), discriminator.config
    layers, slope = [], config.leaky_slope
    plan = plan_convolutions(config)
    for conv, norm, shape in zip(double.convs, double.norms, plan, strict=True):
        about = {
            "kind": "conv",
            "inputs": shape.fine_channels,
            "outputs": shape.coarse_channels,
            "kernel": shape.kernel_size,
            "stride": shape.stride,
            "in_size": list(shape.fine_size),
            "out_size": list(shape.coarse_size),
            "slope": slope,
        }
        is_plain = isinstance(norm, nn.Identity)
        fused = _fused(conv, None if is_plain else norm, about)
        layers.append(fused._replace(weight=fused.weight.swapaxes(0, 1)))
    if config.hidden_units:
        about = {"kind": "linear", "outputs": config.hidden_units, "slope": slope}
        layers.append(_fused(double.hidden, double.hidden_norm, about))
    layers.append(_fused(double.head, None, {"kind": "linear", "outputs": 1, "slope": 1}))
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
        is_transposed = about["kind"] == "transposed"
        weight, bias = fuse_conv_bn_weights(
            weight, None, mean, variance, norm.eps, scale, shift, transpose=is_transposed
        )
    return Layer(about, *(part.detach().float().numpy() for part in (weight, bias)))


def _shared_axes(about: dict[str, Any]) -> tuple[int, ...]:
    """Return the axes along which int8 weights share a scale.

    A projection has one scale an output; a convolution one for each pair of input and output, since
    one an output alone is up to twice as coarse.
    """
    return (1,) if about["kind"] == "linear" else (2, 3)


def _pack(
    network: str, config: ModelConfig, name: str, layers: list[Layer], types: list[str]
) -> ExportedModel:
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
    about = {"name": name, "network": network, "precision": precision}
    about["image_size"] = list(config.image_size)
    for field in ("num_channels", "z_dim", "z_distribution", "num_classes", "output"):
        about[field] = getattr(config, field)
    about |= {"layers": described, "directions": []}
    return ExportedModel(config, about, bytes(block))


# --- From bytes to pictures and opinions, as the page does it ---


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
    config, entries, parts = exported.config, exported.about["layers"], _parts(exported)

    def draw(z_bd: Tensor, labels_b: Tensor | None) -> Tensor:
        y_bk, h = one_hot(labels_b, config.num_classes), z_bd
        for entry, (weight, bias) in zip(entries, parts, strict=True):
            h = with_labels(h, y_bk)
            if entry["kind"] == "linear":
                h = F.leaky_relu(F.linear(h, weight, bias), entry["slope"])
                h = h.unflatten(1, entry["grid"]) if "grid" in entry else h
                continue
            k, stride, pad = entry["kernel"], entry["stride"], (entry["kernel"] - 1) // 2
            sizes = zip(entry["in_size"], entry["out_size"], strict=True)
            extra = [out - ((side - 1) * stride - 2 * pad + k) for side, out in sizes]
            h = F.conv_transpose2d(h, weight, bias, stride, pad, extra)
            h = F.leaky_relu(h, entry["slope"])
        return to_u8(h.tanh() if config.output == "tanh" else h.sigmoid(), config)

    labels = None if labels_n is None else torch.as_tensor(labels_n)
    return in_batches(draw, torch.as_tensor(z_nd, dtype=torch.float32), labels)


def _parts(exported: ExportedModel) -> list[tuple[Tensor, Tensor]]:
    parts = []
    for entry in exported.about["layers"]:
        weight, bias = stored_weights(exported, entry)
        parts.append((torch.tensor(weight), torch.tensor(bias)))
    return parts


def judge_exported(
    exported: ExportedModel, pictures_u8: np.ndarray, labels_n: np.ndarray | Tensor | None = None
) -> np.ndarray:
    """Return the probability that each picture is real, (n,), with the exported weights."""
    config, entries, parts = exported.config, exported.about["layers"], _parts(exported)

    def judge(x_u8: np.ndarray, labels_b: Tensor | None) -> Tensor:
        y_bk, h = one_hot(labels_b, config.num_classes), from_u8(torch.tensor(x_u8), config)
        for entry, (weight, bias) in zip(entries, parts, strict=True):
            if entry["kind"] == "linear":
                if h.dim() == 4:
                    h = h.permute(0, 2, 3, 1).flatten(1)  # channels innermost, as in the network
                h = F.linear(with_labels(h, y_bk), weight, bias)
            else:
                weight, pad = weight.swapaxes(0, 1), (entry["kernel"] - 1) // 2
                h = F.conv2d(with_labels(h, y_bk), weight, bias, entry["stride"], pad)
            h = F.leaky_relu(h, entry["slope"])
        return h[:, 0]

    labels = None if labels_n is None else torch.as_tensor(labels_n)
    return probabilities(in_batches(judge, pictures_u8, labels))


def probabilities(logits_n: np.ndarray) -> np.ndarray:
    """Return the sigmoid of logits, in float64."""
    return 1 / (1 + np.exp(-np.asarray(logits_n, np.float64)))


def _latents(config: ModelConfig, num: int) -> tuple[Tensor, Tensor | None]:
    """Return the vectors of the first seeds, and labels in turn for a conditional network."""
    z_nd = torch.tensor(np.stack([seed_latent(seed, config) for seed in range(num)]))
    return z_nd, labels_in_turn(num, config)


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
    """Return the classic script that hands a model to ``network.js``."""
    about = exported.about | {"weights": base64.b64encode(exported.weights).decode()}
    name, text = json.dumps(about["name"]), json.dumps(about, separators=(",", ":"))
    return f"(window.dcganModels ||= {{}})[{name}] = {text};\n"


def write_script(exported: ExportedModel, path: str | Path) -> Path:
    """Write the model as a script that a page loads, even from ``file://``, and return its path."""
    return _write(path, script_text(exported))


def write_weights(checkpoint: str | Path, path: str | Path, *, discriminator: bool = False) -> int:
    """Write a network's plain state dict as safetensors, float32; return its number of tensors."""
    network = load_discriminator(checkpoint) if discriminator else load_generator(checkpoint)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    _write(path, to_bytes(state))
    return len(state)


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
    """Write a trained network for the web (a script that the live pages load), ONNX or weights."""

    checkpoint: Positional[str]
    """A committed checkpoint (mnist, faces, bedrooms, rooms, portraits) or a run's folder."""
    out: Path | None = local(None)
    """File to write, or folder to write it in; unset: NAME.js, or NAME.onnx with --onnx."""
    precision: Precision = "int8"
    """One byte a weight, layers that would suffer kept in half precision; or half throughout."""
    samples: bool = False
    """Add the stored pictures of its training."""
    discriminator: bool = False
    """Write the discriminator's script, NAME-discriminator.js, instead of the generator's; always
    in half precision."""
    onnx: bool = False
    """Write ONNX in float32 instead, and compare it with PyTorch if onnxruntime is installed."""
    weights: bool = False
    """Write the plain state dict instead, float32, as NAME.safetensors, which safetensors.torch's
    load_file reads; with --discriminator, the discriminator's."""

    def run(self) -> None:
        """Export, then say how large the file is and how far its pictures are from PyTorch's."""
        if self.discriminator and (self.onnx or self.samples):
            raise UserError("--discriminator goes with neither --onnx nor --samples: drop one")
        if self.weights and (self.onnx or self.samples):
            raise UserError("--weights goes with neither --onnx nor --samples: drop one")
        out = self.out or Path()
        if out.is_dir():
            name = find_run(self.checkpoint).name
            name = discriminator_name(name) if self.discriminator else name
            kind = "onnx" if self.onnx else "safetensors" if self.weights else "js"
            out /= f"{name}.{kind}"
        if self.weights:
            num_tensors = write_weights(self.checkpoint, out, discriminator=self.discriminator)
            precision, checked = "float32, ", f"{num_tensors} tensors"
        elif self.onnx:
            apart = write_onnx(self.checkpoint, out)
            precision, checked = "float32, ", "not compared: onnxruntime is not installed"
            if apart is not None:
                checked = f"within {apart:.1g} of PyTorch"
        elif self.discriminator:
            exported = export_judge(self.checkpoint)
            write_script(exported, out)
            precision, error = f"{exported.precision}; ", exported.about["error"]
            checked = (
                f"off PyTorch's probabilities by {error['mean']:.2f} of 255 levels on average, "
                f"{error['max']:.2f} at most (n {error['pictures']} pictures)"
            )
        else:
            exported = export_model(self.checkpoint, self.precision, samples=self.samples)
            write_script(exported, out)
            precision, error = f"{exported.precision}; ", exported.about["error"]
            checked = (
                f"off PyTorch's pixels by {error['mean']:.2f} of 255 levels on average, "
                f"{error['max']} at most (n {error['pictures']} pictures)"
            )
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {precision}{checked}")
