"""Named feature extractors: a metric always says through whose eyes it looked.

Axes: n images, c channels, h x w pixels, d features; ``x_u8`` pixels 0..255.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_files import load_probe
from dcgan_lib.evaluation.probe_model import Probe, frame
from dcgan_lib.paths import data_root

PROBE_EXTRACTORS = {
    "mnist-classifier": "probe-mnist",
    "street-digits-classifier": "probe-street-digits",
    "faces-probe": "probe-faces",
    "rooms-probe": "probe-rooms",
    "portraits-probe": "probe-portraits",
}
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SOURCE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"


class FeatureExtractor(nn.Module):
    """Turn pixels into feature vectors; made by `get_features`.

    Attributes
    ----------
    name : str
        Under which every number measured through it is reported.
    num_features : int
        Length of a vector.
    """

    def __init__(self, name: str, num_features: int, network: nn.Module, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.num_features, self.network, self._transform = name, num_features, network, transform
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x_u8: Tensor) -> Tensor:
        """Return float32 features, shape (n, num_features), of uint8 images, n x c x h x w."""
        if not isinstance(x_u8, Tensor) or x_u8.dtype != torch.uint8 or x_u8.dim() != 4:
            came = getattr(x_u8, "dtype", type(x_u8).__name__), tuple(getattr(x_u8, "shape", ()))
            raise UserError(f"{self.name} reads a uint8 tensor, n x c x h x w, but got {came[0]} of shape {came[1]}")
        return self._transform(x_u8).float()

    def extract(self, images_u8: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Return float32 features, shape (n, num_features), of any number of images.

        Parameters
        ----------
        images_u8 : ndarray
            uint8, n x c x h x w; a memory map is read piece by piece.
        batch_size : int, default 256
            Images at a time; it does not change the answer beyond rounding.
        """
        parts = [images_u8[start : start + batch_size] for start in range(0, len(images_u8), batch_size)]
        return np.concatenate([self(torch.from_numpy(np.array(part))).cpu().numpy() for part in parts])


def get_features(name: str, *, root: Path | None = None) -> FeatureExtractor:
    """Make a feature extractor by name.

    Parameters
    ----------
    name : str
        "mnist-classifier", "street-digits-classifier", "faces-probe", "rooms-probe" or
        "portraits-probe": the last hidden layer of the committed probe, 128 numbers. "inception":
        the 2,048 numbers of the Inception network that published FIDs are measured with (grey images
        are repeated to RGB); its weights (95 MB) are not part of this project.
    root : Path, optional
        Where the probes lie; by default ``data/checkpoints``.

    Raises
    ------
    UserError
        If the name is unknown, or its weights are not there; the message says how to get them.
    """
    if name == "inception":
        return _inception()
    if name not in PROBE_EXTRACTORS:
        known = ", ".join([*PROBE_EXTRACTORS, "inception"])
        raise UserError(f"there are no features called {name!r}: choose from {known}")
    return probe_features(load_probe(PROBE_EXTRACTORS[name], root=root), name, framed=name == "mnist-classifier")


def probe_features(probe: Probe, name: str, *, framed: bool = False) -> FeatureExtractor:
    """Use a probe's last hidden layer as features, under a name of one's own.

    Parameters
    ----------
    probe : Probe
        Any; it is used in evaluation mode.
    name : str
        Under which numbers are reported.
    framed : bool, default False
        Also take images up to 4 pixels a side smaller, and put a black frame around them: 28x28
        digits, for a probe that reads 32x32.
    """
    return FeatureExtractor(name, probe.config.num_features, probe, partial(_through_probe, probe, framed))


def _through_probe(probe: Probe, framed: bool, x_u8: Tensor) -> Tensor:
    if framed:
        x_u8 = frame(x_u8, probe.config.image_size)
    probe.check_images(tuple(x_u8.shape), True)
    return probe.features(probe.scale(x_u8))


def _inception() -> FeatureExtractor:
    from torchmetrics.image.fid import NoTrainInceptionV3  # torch-fidelity is heavy to import

    path = _inception_weights()
    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))

    def transform(x_u8: Tensor) -> Tensor:
        rgb_u8 = x_u8 if x_u8.shape[1] == 3 else x_u8.expand(-1, 3, -1, -1)
        return network(rgb_u8.to(network.fc.weight.device))

    return FeatureExtractor("inception", 2048, network, transform)


def _inception_weights() -> Path:
    """Find the published weights and make sure that they are those, since the file is a pickle."""
    places = [data_root() / INCEPTION_FILE, Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE]
    for path in places:
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not digest.startswith(INCEPTION_FILE.rpartition("-")[2].removesuffix(".pth")):
                raise UserError(f"{path} is not the published Inception network (SHA-256 {digest[:8]}): fetch it again")
            return path
    raise UserError(
        f"the Inception weights are missing: download {INCEPTION_SOURCE} into {places[0].parent}, "
        f"or measure with another extractor: {', '.join(PROBE_EXTRACTORS)}"
    )
