"""Tensors in safetensors files, with a digest that tells when a byte of theirs has changed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write

DIGEST = "sha256"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and texts atomically."""
    # safetensors refuses strided storage, and channels_last is strided
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    texts = dict(metadata or {})
    atomic_write(path, save(plain, texts | {DIGEST: _digest(plain, texts)}))


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors, on the CPU, and its texts.

    A file without a digest, as other programs and earlier versions write it, is read as it is.

    Raises
    ------
    UserError
        If it cannot be read, or is not what was written; the sentence ends with ``remedy``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged or of another kind ({reason}): {remedy}") from error
    digest = texts.pop(DIGEST, None)
    if digest is not None and digest != _digest(tensors, texts):
        raise UserError(f"{path} is damaged (its bytes have changed since): {remedy}")
    return tensors, texts


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(texts.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()
