"""Films: how the samples of a run changed while it trained, and loops through latent space.

Axes: t pictures of a film, c channels, h w pixels, ``_u8`` 0..255; k anchors, d latent.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.data.decode import with_channels
from dcgan_lib.errors import UserError, check_number, require
from dcgan_lib.interpretation.walk import Curve, loop_latents
from dcgan_lib.models.sampling import GAP, generate_u8, labels_alike, sample_latents, seeded
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import find_run, load_config, load_generator

SUFFIXES = (".gif", ".webp", ".mp4")


def training_frames(run_dir: str | Path, picture: int | None = None) -> list[np.ndarray]:
    """Return a run's grids of samples, the earliest first, each h x w x 3, or one picture of each.

    ``picture`` is counted from 0, as the grid is read. A committed checkpoint keeps at most ten.

    Raises
    ------
    UserError
        If there are fewer than two grids, or no such picture in them.
    """
    folder = find_run(run_dir)
    paths = sorted(path for end in ("png", "webp") for path in folder.glob(f"samples/step-*.{end}"))
    if len(paths) < 2:
        raise UserError(
            f"a film needs at least 2 grids of samples, but {folder} has {len(paths)}: train with "
            "a smaller --sample-every"
        )
    frames = []
    for path in paths:
        try:
            frames.append(np.asarray(Image.open(path).convert("RGB")))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error}): delete or replace it") from error
    # Grids of more or fewer pictures, if --num-samples was changed, would jump.
    frames = [frame for frame in frames if frame.shape == frames[-1].shape]
    if len(frames) < 2:
        raise UserError(
            f"{folder} has only one grid of samples of its last size, and a film needs at least 2: "
            "train on with the same --num-samples"
        )
    if picture is not None:
        height, width = load_config(folder)[0].model.image_size
        frames = [cut_from_grid(frame, picture, (height, width)) for frame in frames]
    return frames


def cut_from_grid(grid_hwc: np.ndarray, picture: int, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of a grid that ``picture_grid`` laid out, counted from 0 along the rows."""
    (height, width), (grid_height, grid_width) = size, grid_hwc.shape[:2]
    gap = 0 if (grid_height, grid_width) == (height, width) else GAP  # one alone has no border
    rows, columns = (grid_height - gap) // (height + gap), (grid_width - gap) // (width + gap)
    require(0 <= picture < rows * columns, "picture", picture, f"from 0 to {rows * columns - 1}")
    row, column = divmod(picture, columns)
    top, left = gap + row * (height + gap), gap + column * (width + gap)
    return grid_hwc[top : top + height, left : left + width]


def loop_frames(
    checkpoint: str | Path,
    anchors: tuple[int, ...] = (1, 2, 3, 4),
    num_frames: int = 80,
    *,
    curve: Curve = "spherical",
    label: int | None = None,
) -> list[np.ndarray]:
    """Return the pictures of a closed walk through the latent vectors of some seeds, h x w x 3."""
    require(len(anchors) >= 2, "the number of anchors", len(anchors), "at least 2")
    require(num_frames >= 2, "frames", num_frames, "at least 2")
    generator = load_generator(checkpoint)
    labels_t = labels_alike(num_frames, label, generator.config)
    z_kd = torch.cat([sample_latents(1, generator.config, seeded(k)) for k in anchors])
    z_td = loop_latents(z_kd, num_frames, curve)
    frames_u8 = with_channels(generate_u8(generator, z_td, labels_t), 3)
    return list(frames_u8.transpose(0, 2, 3, 1))


# ---------------------------------------------------------------- writing


def write_film(
    path: Path, frames: list[np.ndarray], *, frame_rate: float = 10.0, hold: float = 0.0
) -> None:
    """Write a film whole or not at all, in the format that its name ends in: .gif, .webp or .mp4.

    The last of the ``frames``, each h x w x 3, uint8, is shown ``hold`` seconds longer. A .gif has
    256 colours and its times are rounded to hundredths of a second. An .mp4 is MPEG-4 Part 2, which
    players show but most browsers do not.

    Raises
    ------
    UserError
        If the name ends otherwise, this build of OpenCV has no encoder, or the place cannot be
        written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    require(suffix in SUFFIXES, "the end of a film's name", path.name, " or ".join(SUFFIXES))
    try:
        if suffix == ".mp4":
            _write_mp4(path, frames, frame_rate, hold)
        else:
            atomic_write(path, _encoded(suffix, frames, frame_rate, hold))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): choose another --out") from error


def _encoded(suffix: str, frames: list[np.ndarray], frame_rate: float, hold: float) -> bytes:
    images = [Image.fromarray(frame) for frame in frames]
    durations = [round(1000 / frame_rate)] * len(frames)
    durations[-1] += round(1000 * hold)
    if suffix == ".gif":  # it counts in hundredths, which Pillow would cut off
        durations = [10 * max(1, round(duration / 10)) for duration in durations]
    file, options = io.BytesIO(), {"quality": 85, "method": 4} if suffix == ".webp" else {}
    images[0].save(
        file,
        suffix[1:].upper(),
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        **options,
    )
    return file.getvalue()


def _write_mp4(path: Path, frames: list[np.ndarray], frame_rate: float, hold: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part.mp4")
    height, width = (side + side % 2 for side in frames[0].shape[:2])  # an encoder wants even sides
    writer = cv2.VideoWriter(
        str(part), cv2.VideoWriter_fourcc(*"mp4v"), frame_rate, (width, height)
    )
    try:
        if not writer.isOpened():
            raise UserError(
                f"OpenCV cannot write {path} here, for want of an encoder or of a writable place: "
                "choose a name that ends in .gif or .webp, or another folder"
            )
        for frame in [*frames, *[frames[-1]] * round(hold * frame_rate)]:
            extra = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
            writer.write(np.pad(frame, extra, mode="edge")[:, :, ::-1].copy())
        writer.release()
        os.replace(part, path)
    finally:
        writer.release()
        part.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Film(Command, verb="film"):
    """Make a film of a run's samples while it trained, or of a loop through latent space."""

    checkpoint: Positional[str]
    """A run's folder or a committed checkpoint."""
    out: Path = local(Path("film.gif"))
    """.gif or .webp, which browsers show, or .mp4 (MPEG-4 Part 2, for players)."""
    frame_rate: float = 10.0
    """Pictures a second."""
    hold: float | None = None
    """Seconds for which the last picture stays; unset: 2, or 0 with --walk, which has no end."""
    picture: int | None = None
    """Only this picture of each grid, counted from 0; unset: the whole grid."""
    scale: int = 1
    """Screen pixels to a pixel."""
    walk: bool = False
    """Film a closed walk through latent vectors instead of the training."""
    anchors: tuple[int, ...] = (1, 2, 3, 4)
    """With --walk: seeds of the latent vectors that are met."""
    frames: int = 80
    """With --walk: pictures."""
    curve: Curve = "spherical"
    """With --walk: arcs between the latent vectors, or straight lines."""
    label: int | None = None
    """With --walk: the class to draw, for a conditional generator."""

    def run(self) -> None:
        """Collect or draw the pictures, and write them."""
        check_number(self, "frame_rate", 0.1, 100)
        check_number(self, "scale", 1, 16)
        hold = (0 if self.walk else 2) if self.hold is None else self.hold
        require(0 <= hold <= 600, "hold", hold, "between 0 and 600")
        if self.walk:
            require(self.picture is None, "picture", self.picture, "left out with --walk")
            how = {"curve": self.curve, "label": self.label}
            frames = loop_frames(self.checkpoint, self.anchors, self.frames, **how)
        else:
            frames = training_frames(self.checkpoint, self.picture)
        frames = [frame.repeat(self.scale, 0).repeat(self.scale, 1) for frame in frames]
        write_film(self.out, frames, frame_rate=self.frame_rate, hold=hold)
        print(f"{len(frames)} pictures, {len(frames) / self.frame_rate + hold:.1f} s: {self.out}")
