"""Run an exported generator in numpy, as ``explorer.js`` does in the page: the yardstick for its error.

Axes: n pictures, i inputs, o outputs, h w grid, k kernel. ``x_u8`` pixels 0..255.
"""

from typing import Any

import numpy as np
from scipy.special import expit

from dcgan_lib.widgets.export import ExportedModel


def stored_weights(exported: ExportedModel, entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return one layer's weights, as the page reads them, and its biases; float32."""
    columns, outputs = entry["inputs"] + exported.config.num_classes, entry["outputs"]
    shape = (outputs, columns) if entry["kind"] == "linear" else (columns, outputs, *2 * (entry.get("kernel"),))
    count = int(np.prod(shape))

    def read(place: str, kind: str, size: int) -> np.ndarray:
        return np.frombuffer(exported.weights, kind, size, entry[place])

    weight = read("weight", "i1" if entry["type"] == "int8" else "<f2", count).astype(np.float32).reshape(shape)
    if entry["type"] == "int8":
        shared = (1,) if entry["kind"] == "linear" else (2, 3)  # the axes along which weights share a scale
        scales = tuple(size for axis, size in enumerate(shape) if axis not in shared)
        weight = weight * np.expand_dims(read("scale", "<f4", int(np.prod(scales))).reshape(scales), shared)
    return weight, read("bias", "<f4", outputs)


def run_exported(exported: ExportedModel, z_nd: np.ndarray, labels_n: np.ndarray | None = None) -> np.ndarray:
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
    y_nk = np.eye(num_classes, dtype=np.float32)[labels_n] if num_classes else np.zeros((len(z_nd), 0), np.float32)
    for entry in exported.about["layers"]:
        weight, bias = stored_weights(exported, entry)
        if entry["kind"] == "linear":
            h = np.maximum(np.concatenate([h, y_nk], 1) @ weight.T + bias, 0)
            h = h.reshape(-1, *entry["grid"]) if "grid" in entry else h
        else:
            spread = np.broadcast_to(y_nk[:, :, None, None], (*y_nk.shape, *h.shape[2:]))
            h = _transposed_convolution(np.concatenate([h, spread], 1), weight, entry) + bias[:, None, None]
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
