"""A photograph projected into latent space: the vector whose picture is nearest to it.

The vector is searched by gradient descent from several random starts, since most starts end in a
local minimum. A generator can draw little of what it was not trained on, so the distance that is
left is reported beside two others: that of random samples, and that of a picture of the generator's
own, which it can draw.

Axes: s starts, n samples, d latent, c channels, h w pixels; ``_u8`` 0..255.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import ModelConfig
from dcgan_lib.data.decode import Framing, decode_file, with_channels
from dcgan_lib.errors import UserError, check_number, require
from dcgan_lib.interpretation.walk import walk_latents
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import (
    generate_u8,
    labels_alike,
    network_input,
    sample_latents,
    sample_u8,
    seeded,
    write_grid,
)
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import load_discriminator, load_generator

COLUMNS = 8
SAMPLES = 256
"""Random pictures that a projection is compared with."""
MOST_DEVIATIONS = 2.5
"""Of a normal latent vector's numbers; 1 in 80 of those that are drawn lies farther out."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Hold what a search found from each of its starts, the nearest first."""

    z_sd: Tensor
    pictures_u8: np.ndarray
    """s x c x h x w."""
    distance_s: np.ndarray
    """What was minimised: squared error in the network's range, or of features."""
    error_s: np.ndarray
    """Root mean squared error in grey levels, 0..255."""
    space: str
    """"pixels" or "features"."""


def project(
    generator: AnyGenerator,
    target_u8: np.ndarray,
    *,
    discriminator: Discriminator | None = None,
    label: int | None = None,
    num_starts: int = 8,
    steps: int = 300,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> Projection:
    """Search latent vectors whose pictures are near a target, uint8, c x h x w.

    Parameters
    ----------
    discriminator
        Compare the maps of its layers instead of pixels, each layer's squared error over the mean
        square of the target's maps, so that all layers count alike.
    steps
        Of Adam, for all starts at once; the rate falls to 0 along half a cosine.

    Notes
    -----
    The numbers are kept where latent vectors are drawn from: within -1 to 1, or 2.5 standard
    deviations. Outside, a closer picture would be found that no sample looks like.
    """
    config = generator.config
    require(num_starts >= 1, "num_starts", num_starts, "at least 1")
    require(steps >= 1, "steps", steps, "at least 1")
    labels_s = labels_alike(num_starts, label, config)
    target_bchw = network_input(generator, target_u8[None])
    wanted = [] if discriminator is None else _maps(discriminator, target_bchw, label)
    bound = 1.0 if config.z_distribution == "uniform" else MOST_DEVIATIONS
    z_sd = sample_latents(num_starts, config, seeded(seed)).clamp(-bound, bound)
    z_sd.requires_grad_()
    optimizer = torch.optim.Adam([z_sd], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def distance(z_sd: Tensor) -> Tensor:
        x_schw = generator(z_sd, labels_s)
        if discriminator is None:
            return (x_schw - target_bchw).square().mean((1, 2, 3))
        found = _maps(discriminator, x_schw, label)
        errors = [
            (h_schw - h_bchw).square().mean((1, 2, 3)) / h_bchw.square().mean()
            for h_schw, h_bchw in zip(found, wanted, strict=True)
        ]
        return torch.stack(errors).mean(0)

    for _ in range(steps):
        # Only the latent vectors' gradient is asked for, so the networks stay as they are.
        z_sd.grad = torch.autograd.grad(distance(z_sd).sum(), z_sd)[0]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            z_sd.clamp_(-bound, bound)
    z_sd = z_sd.detach()
    with torch.no_grad():
        distance_s = distance(z_sd).numpy()
    order = np.argsort(distance_s, kind="stable")
    z_sd = z_sd[torch.from_numpy(order)]
    pictures_u8 = generate_u8(generator, z_sd, labels_s)
    return Projection(
        z_sd=z_sd,
        pictures_u8=pictures_u8,
        distance_s=distance_s[order],
        error_s=pixel_error(pictures_u8, target_u8),
        space="pixels" if discriminator is None else "features",
    )


def _maps(discriminator: Discriminator, x_bchw: Tensor, label: int | None) -> list[Tensor]:
    labels_b = labels_alike(len(x_bchw), label, discriminator.config)
    return discriminator.features(x_bchw, labels_b)


def pixel_error(pictures_u8: np.ndarray, target_u8: np.ndarray) -> np.ndarray:
    """Return the root mean squared error of each picture in grey levels, 0..255."""
    difference = pictures_u8.astype(np.float64) - target_u8
    return np.sqrt((difference**2).mean((1, 2, 3)))


def errors_of_samples(
    generator: AnyGenerator, target_u8: np.ndarray, *, label: int | None = None, seed: int = 0
) -> np.ndarray:
    """Return the errors of 256 random samples: what is found without a search."""
    labels_n = labels_alike(SAMPLES, label, generator.config)
    return pixel_error(sample_u8(generator, SAMPLES, seed, labels_n), target_u8)


def read_picture(path: str | Path, config: ModelConfig) -> np.ndarray:
    """Return a photograph, cut and scaled to what a network draws, uint8, c x h x w."""
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}: give the path of a photograph")
    decoded = decode_file(Path(path), Framing(image_size=config.image_size))
    if decoded.image_u8 is None:
        raise UserError(f"{path} cannot be read ({decoded.reason}): convert it to PNG or JPEG")
    return with_channels(decoded.image_u8, config.num_channels)


# ---------------------------------------------------------------- the command


@dataclass(frozen=True, kw_only=True)
class Project(Command, verb="project"):
    """Search the latent vector of a photograph, to see what of it this generator can draw.

    The picture that is written shows in its first row the photograph, the nearest picture by
    pixels, the nearest by the discriminator's features, and other starts; in its second row a walk
    from the nearest to a random latent vector.
    """

    photo: Positional[str]
    """A file of a picture; it is cropped and scaled to the generator's size."""
    checkpoint: Positional[str]
    """A committed checkpoint (faces, bedrooms, rooms, portraits, mnist) or a run's folder."""
    out: Path = local(Path("projection.png"))
    """Where the picture goes; the latent vectors and distances go into a .json beside it."""
    starts: int = 8
    """Random latent vectors to start from."""
    steps: int = 300
    """Of Adam."""
    learning_rate: float = 0.05
    """Of Adam; it falls to 0."""
    label: int | None = None
    """Class, for a conditional generator."""
    seed: int = 0
    """Of the starts, and of the picture of the generator's own that is searched as a control."""

    def run(self) -> None:
        """Search in both spaces, and in pixels for the control; print, and write."""
        check_number(self, "starts", 1, 256)
        check_number(self, "steps", 1, 100_000)
        check_number(self, "learning_rate", 1e-6, 10)
        generator = load_generator(self.checkpoint)
        target_u8 = read_picture(self.photo, generator.config)
        how = {"label": self.label, "num_starts": self.starts, "steps": self.steps}
        how |= {"learning_rate": self.learning_rate, "seed": self.seed}
        found = {"pixels": project(generator, target_u8, **how)}
        discriminator = _discriminator_or_none(self.checkpoint)
        if discriminator is not None:
            found["features"] = project(generator, target_u8, discriminator=discriminator, **how)
        self._draw(generator, target_u8, list(found.values()))
        own_u8 = self._own_picture(generator)
        found["control"] = project(generator, own_u8, **how)
        report = {}
        print("root mean squared error in grey levels: nearest start, of random samples")
        names = {"pixels": "by pixels", "features": "by features", "control": "own picture"}
        for name, each in found.items():
            searched_u8 = own_u8 if name == "control" else target_u8
            line = report[name] = _report(generator, each, searched_u8, self.label)
            print(
                f"  {names[name]:12} {line['error']:6.1f}   nearest of {SAMPLES} samples "
                f"{line['nearest_sample']:6.1f}, median {line['median_sample']:6.1f}"
            )
        content = json.dumps({"checkpoint": self.checkpoint, **report}, indent=1)
        atomic_write(self.out.with_suffix(".json"), content + "\n")
        print(f"{self.out}")

    def _own_picture(self, generator: AnyGenerator) -> np.ndarray:
        # The vector behind those of the starts, so that none begins where it should end.
        z_nd = sample_latents(self.starts + 1, generator.config, seeded(self.seed))
        z_nd = z_nd.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)  # where the search looks
        return generate_u8(generator, z_nd[-1:], labels_alike(1, self.label, generator.config))[0]

    def _draw(
        self, generator: AnyGenerator, target_u8: np.ndarray, found: list[Projection]
    ) -> None:
        best = found[0]
        row = [target_u8, *(each.pictures_u8[0] for each in found)]
        row += list(best.pictures_u8[1 : 1 + COLUMNS - len(row)])
        row += [np.full_like(target_u8, 255)] * (COLUMNS - len(row))
        # From the nearest by pixels to the first start
        other_1d = sample_latents(1, generator.config, seeded(self.seed))
        z_td = walk_latents(torch.cat([best.z_sd[:1], other_1d]), COLUMNS)
        walk_u8 = generate_u8(generator, z_td, labels_alike(COLUMNS, self.label, generator.config))
        write_grid(self.out, np.concatenate([np.stack(row), walk_u8]), COLUMNS)


def _discriminator_or_none(checkpoint: str) -> Discriminator | None:
    """Return the discriminator, or None where there is none with convolutional layers."""
    try:
        discriminator = load_discriminator(checkpoint)
    except UserError:  # it keeps its generator alone
        return None
    return discriminator if isinstance(discriminator, Discriminator) else None


def _report(
    generator: AnyGenerator, found: Projection, target_u8: np.ndarray, label: int | None
) -> dict:
    samples_n = errors_of_samples(generator, target_u8, label=label, seed=10_000)
    return {
        "error": round(float(found.error_s[0]), 2),
        "errors": [round(float(error), 2) for error in found.error_s],
        "nearest_sample": round(float(samples_n.min()), 2),
        "median_sample": round(float(np.median(samples_n)), 2),
        "z": [round(number, 5) for number in found.z_sd[0].tolist()],
    }
