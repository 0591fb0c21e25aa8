"""The command ``dcgan saliency``: what single features of a discriminator answer to, drawn and measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from dcgan_lib.interpretation.saliency_study import SaliencyStudy


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Show what the discriminator's features answer to, by guided backpropagation as in Fig. 5, and measure it."""

    checkpoint: Positional[str] = "rooms"
    """A committed checkpoint or a run's folder; its discriminator is asked."""
    image_set: str | None = None
    """Images to look at; unset: those that the checkpoint was trained on, of a split that it never met."""
    method: Literal["guided", "gradient", "deconvnet"] = "guided"
    """What a rectifier passes back: see dcgan_lib.interpretation.guided_backprop."""
    layer: int = -1
    """Convolutional layer, counted from the pixels, or from the end when negative."""
    features: int = 6
    """Rows of the figure: the first features of the layer."""
    columns: int = 5
    """Images a feature, those with the strongest responses."""
    images: int = 2_000
    """Images to look through, at most."""
    top: int = 100
    """Strongest responses a feature that are measured, where the set has true boxes."""
    fresh: int = 5
    """Networks with fresh weights to compare with."""
    seed: int = 0
    """Of the first of them."""
    out: Path = Path("saliency")
    """Folder of saliency.png (left: fresh weights, right: trained), images.png, peaks.json and numbers.json."""
    record: bool = False
    """Enter saliency.trained-vs-random into the claims ledger; without true boxes only keep the numbers beside it."""

    def run(self) -> None:
        """Find the strongest responses, draw, measure, write, and record if asked."""
        from dcgan_lib.evaluation.evidence import check_command
        from dcgan_lib.interpretation.saliency_settings import SaliencySettings
        from dcgan_lib.interpretation.saliency_study import CLAIM, keep_saliency, numbers, record_saliency, run_saliency
        from dcgan_lib.paths import atomic_write

        if self.record:
            check_command(CLAIM, self._command(), self.checkpoint)
        named = ("checkpoint", "image_set", "method", "layer", "features", "columns", "images", "top", "fresh", "seed")
        settings = SaliencySettings(**{name: getattr(self, name) for name in named})
        study = run_saliency(settings)
        self._draw(study)
        found = numbers(study)
        atomic_write(self.out / "peaks.json", json.dumps(_peaks(study), indent=1) + "\n")
        atomic_write(self.out / "numbers.json", json.dumps(found, indent=1) + "\n")
        for name, (trained, *fresh) in found["objects"].items():
            value, low, high = trained["lift"]
            least, most = (rule(entry["lift"][0] for entry in fresh) for rule in (min, max))
            print(f"{name:8} saliency over area {value:.2f} [{low:.2f}, {high:.2f}]; fresh {least:.2f} to {most:.2f}")
        for method, steps in found["cascade"].items():
            print(f"{method:10} every layer random: rank correlation {steps[-1][0]:.2f} with the trained maps")
        print(f"figure, peaks and numbers: {self.out}")
        if self.record and not study.objects:
            keep_saliency(study)
            print(f"kept as curves/saliency.{study.set_name}; without true boxes there is no row to record")
        elif self.record:
            row = record_saliency(study, command=self._command())
            print(f"recorded {row.id}: {row.value:.2f} [{row.low:.2f}, {row.high:.2f}] {row.verdict}")

    def _draw(self, study: "SaliencyStudy") -> None:
        """Write the maps and what they were made from, a row a feature: fresh weights left, trained ones right."""
        import numpy as np

        from dcgan_lib.interpretation.guided_backprop import saliency_maps
        from dcgan_lib.interpretation.receptive_field import receptive_field
        from dcgan_lib.interpretation.saliency_pictures import image_tiles, map_tiles
        from dcgan_lib.training.samples import write_grid

        sheets: dict[str, list[np.ndarray]] = {"saliency.png": [], "images.png": []}
        for network, peaks in zip(study.networks[::-1], study.peaks[::-1], strict=True):
            field = receptive_field(network.config, self.layer)
            maps = saliency_maps(network, study.images_u8, peaks, self.method, self.layer)
            sheets["saliency.png"].append(map_tiles(maps, field))
            sheets["images.png"].append(image_tiles(study.images_u8, peaks, field))
        for name, sides in sheets.items():
            rows = [side.reshape(self.features, self.columns, *side.shape[1:]) for side in sides]
            tiles = np.concatenate(rows, 1)
            write_grid(self.out / name, tiles.reshape(-1, *tiles.shape[2:]), 2 * self.columns)

    def _command(self) -> str:
        words = ["dcgan saliency", self.checkpoint, *([f"--image-set {self.image_set}"] if self.image_set else [])]
        words += [f"--method {self.method}", f"--layer {self.layer}", f"--images {self.images}", f"--top {self.top}"]
        return " ".join([*words, f"--fresh {self.fresh}", f"--seed {self.seed}", "--record"])


def _peaks(study: "SaliencyStudy") -> dict[str, Any]:
    """Return which unit of which image stands in each tile, row by row."""
    from dcgan_lib.interpretation.receptive_field import receptive_field

    field = receptive_field(study.networks[0].config, study.settings.layer)
    told: dict[str, Any] = {"set": study.set_name, "split": study.split, "receptive field": field.size}
    for name, peaks in zip(("trained", "fresh"), study.peaks, strict=True):
        told[name] = [
            {**peak._asdict(), "response": round(peak.response, 4), "window": field.window(peak.row, peak.column)}
            for peak in peaks
        ]
    return told
