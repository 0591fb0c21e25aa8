"""The command ``dcgan walk``: one walk through latent space as a moving picture or a sheet, and its measures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".gif", ".webp", ".png")
MOST_FRAMES = 10_000


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Walk through latent space from anchor to anchor, as in the paper's Fig. 4, and measure such walks."""

    checkpoint: Positional[str]
    """A committed checkpoint (rooms, portraits, faces, mnist) or a run's folder."""
    anchors: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    """Seeds of the latent vectors that are met, at least two."""
    frames: int = 100
    """Pictures, at equal distances along the walk."""
    curve: Literal["linear", "spherical"] = "linear"
    """Straight lines between the anchors, or arcs."""
    out: Path = Path("walk.gif")
    """.gif or .webp: a moving picture; .png: all pictures in rows. What it was made of goes into a .json beside it."""
    columns: int = 10
    """Pictures in a row of a .png."""
    sprites: bool = False
    """Leave no space between the pictures of a .png."""
    scale: int = 2
    """Screen pixels to a pixel."""
    milliseconds: int = 80
    """How long each picture of a moving one is shown."""
    measure: bool = False
    """Also measure walks between other anchors: steps, plausibility, objects that come and go."""
    segments: int = 200
    """How many walks to measure, each from one anchor to another."""
    seed: int = 0
    """Of the anchors of the walks that are measured."""
    record: bool = False
    """Measure, and enter walk.smooth and walk.semantic into the claims ledger."""

    def run(self) -> None:
        """Draw, write, and measure if asked."""
        from dcgan_lib.interpretation.walk_study import check_measurable, measure_walks, numbers, record_walks

        self._check()
        if self.measure or self.record:
            check_measurable(self.checkpoint)
        pictures = self._pictures()
        about = {name: getattr(self, name) for name in ("checkpoint", "frames", "curve")}
        about |= {"anchors": list(self.anchors), "size": list(pictures.shape[1:])}
        self._write(pictures, about)
        print(f"{len(pictures):,} pictures through {len(self.anchors)} anchors: {self.out}")
        if not (self.measure or self.record):
            return
        report = measure_walks(self.checkpoint, num_segments=self.segments, curve=self.curve, seed=self.seed)
        about["measured"] = numbers(report)
        self._write(pictures, about)
        for name, value in about["measured"].items():
            print(f"  {name:24} {value}")
        if self.record:
            for row in record_walks(report, self._command()):
                print(f"recorded {row.id}: {row.verdict}")

    def _check(self) -> None:
        if self.out.suffix.lower() not in SUFFIXES:
            raise UserError(f"--out must end in {', '.join(SUFFIXES)}, but it is {self.out}")
        limits = {"frames": (2, MOST_FRAMES), "columns": (1, MOST_FRAMES), "scale": (1, 16), "segments": (2, 100_000)}
        for name, (low, high) in (limits | {"milliseconds": (10, 60_000)}).items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} must lie between {low} and {high}, but it is {getattr(self, name)}")
        if len(self.anchors) < 2:
            raise UserError(f"a walk needs at least two anchors, but got {len(self.anchors)}")

    def _pictures(self) -> "np.ndarray":
        import torch

        from dcgan_lib.interpretation.walk import walk_latents
        from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
        from dcgan_lib.training.checkpoints import load_generator

        generator = load_generator(self.checkpoint)
        if generator.config.num_classes:
            raise UserError(f"{self.checkpoint} draws classes on demand: a walk needs a generator without classes")
        anchors_kd = torch.cat([sample_latents(1, generator.config, seeded(seed)) for seed in self.anchors])
        return generate_u8(generator, walk_latents(anchors_kd, self.frames, self.curve))

    def _write(self, pictures_u8: "np.ndarray", about: dict[str, Any]) -> None:
        from dcgan_lib.paths import atomic_write

        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            (_write_sheet if self.out.suffix.lower() == ".png" else _write_moving)(self, pictures_u8)
            atomic_write(self.out.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.out} ({error}): choose another --out") from error

    def _command(self) -> str:
        words = ["dcgan walk", self.checkpoint, f"--curve {self.curve}", f"--segments {self.segments}"]
        return " ".join([*words, f"--seed {self.seed}", "--record"])


def _write_sheet(walk: Walk, pictures_u8: "np.ndarray") -> None:
    """Write all pictures in rows, left to right and top to bottom."""
    import torch
    from PIL import Image
    from torchvision.utils import make_grid

    gap = 0 if walk.sprites else 2
    grid = make_grid(torch.from_numpy(pictures_u8), walk.columns, padding=gap, pad_value=255).permute(1, 2, 0).numpy()
    Image.fromarray(grid.repeat(walk.scale, 0).repeat(walk.scale, 1)).save(walk.out)


def _write_moving(walk: Walk, pictures_u8: "np.ndarray") -> None:
    """Write an endless GIF or WebP that goes there and back, so that it shows no jump of its own."""
    from PIL import Image

    pixels = pictures_u8.repeat(walk.scale, 2).repeat(walk.scale, 3)
    frames = [Image.fromarray(p[0] if len(p) == 1 else p.transpose(1, 2, 0)) for p in pixels]
    frames += frames[-2:0:-1]
    frames[0].save(walk.out, save_all=True, append_images=frames[1:], duration=walk.milliseconds, loop=0)
