"""The command ``dcgan export``: a generator as a script for web pages, or as ONNX."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


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
            from dcgan_lib.widgets.onnx_export import write_onnx

            apart = write_onnx(self.checkpoint, out)
            checked = (
                "not compared: onnxruntime is not installed" if apart is None else f"within {apart:.1g} of PyTorch"
            )
            print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, float32, {checked}")
            return
        from dcgan_lib.widgets.export import export_model, write_script

        exported = export_model(self.checkpoint, self.precision, samples=self.samples)
        size, error = write_script(exported, out).stat().st_size, exported.about["error"]
        print(
            f"{out}: {size / 1e6:.1f} MB, {exported.precision}; off PyTorch's pixels by {error['mean']:.2f} of 255 "
            f"levels on average, {error['max']} at most (n {error['pictures']} pictures)"
        )
