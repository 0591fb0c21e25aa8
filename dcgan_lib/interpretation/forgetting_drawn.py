"""Forgetting with boxes drawn by hand, in pictures that no probe can judge, such as generated photographs.

Axes: n pictures, c maps of a layer, h w its grid, k boxes a picture, f features; ``_u8`` pixels 0..255.

Maps are chosen on the pictures with boxes, and what happens inside and outside the boxes is measured on those. Whether
the object is gone is counted by eye on other pictures; see `dcgan_lib.interpretation.forgetting_counts`.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.drawn_boxes import DrawnBoxes, load_boxes
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, mean_interval
from dcgan_lib.interpretation.forgetting import (
    Fit,
    activations,
    check_layer,
    fit_maps,
    labelled_positions,
    matched_maps,
    positions_inside,
    random_maps,
    regress,
    second_highest,
    silenced,
)
from dcgan_lib.interpretation.forgetting_bench import Originals, compare_scenes
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.sampling import from_u8, generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import find_run, load_config, load_discriminator, load_generator

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class DrawnOutcome:
    """Hold what switching maps off did to pictures with boxes.

    Parameters
    ----------
    maps : list of int
        Which.
    scene : dict of str to Estimate
        How far pixels inside and outside the boxes moved, and the discriminator's features; see
        `dcgan_lib.interpretation.forgetting_bench.Outcome`.
    light : dict of str to Estimate
        Brightness over that with all maps on, "inside" and "outside" the boxes.
    more_real : Estimate
        The discriminator's log-odds of "real" less those with all maps on; mean over pictures.
    """

    maps: list[int]
    scene: dict[str, Estimate]
    light: dict[str, Estimate]
    more_real: Estimate


@dataclass(frozen=True, kw_only=True)
class DrawnStudy:
    """Hold what was measured.

    Parameters
    ----------
    settings : dict
        As given.
    fit : Fit
        The regression on all boxes.
    accuracy : dict of str to Estimate
        Share of positions told right in pictures that were kept out, mean over pictures: from the "activations", and
        from the "place" in the picture alone.
    outcomes : dict of str to list of DrawnOutcome
        "paper": all maps with a weight over the threshold. "random" and "matched": as many by chance.
    shown : dict of str to ndarray
        Pictures for a figure.
    seconds : float
        Wall time.
    """

    settings: dict[str, Any]
    fit: Fit
    accuracy: dict[str, Estimate]
    outcomes: dict[str, list[DrawnOutcome]]
    shown: dict[str, np.ndarray]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DrawnBench:
    """Hold a generator, its discriminator, and the boxes drawn on the generator's pictures."""

    generator: Generator
    discriminator: Discriminator
    drawn: DrawnBoxes

    def draw(self, num: int) -> Originals:
        """Draw the pictures that have the boxes, with all maps on."""
        z_nd = sample_latents(num, self.generator.config, seeded(self.drawn.seed))
        pictures = generate_u8(self.generator, z_nd)
        boxes, features = self.drawn.padded(num), self.look(pictures)[0]
        return Originals(z_nd=z_nd, pictures_u8=pictures, read={}, boxes_n4=boxes, features_nf=features)

    @torch.no_grad()
    def look(self, pictures_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the discriminator makes of pictures: its last layer's activations, n x f, and log-odds, n."""
        x_bchw = from_u8(torch.from_numpy(pictures_u8), self.discriminator.config)
        features = self.discriminator.features(x_bchw)[-1].flatten(1)
        return features.numpy(), self.discriminator(x_bchw).numpy()

    def without(self, z_nd: torch.Tensor, maps: np.ndarray | list[int], layer: int) -> np.ndarray:
        """Return the pictures of latent vectors with maps switched off."""
        with silenced(self.generator, maps, layer):
            return generate_u8(self.generator, z_nd)

    def measure(self, originals: Originals, maps: np.ndarray | list[int], layer: int) -> DrawnOutcome:
        """Switch maps off and compare with all maps on."""
        pictures = self.without(originals.z_nd, maps, layer)
        features, logits_n = self.look(pictures)
        return DrawnOutcome(
            maps=[int(i) for i in maps],
            scene=compare_scenes(originals, pictures, {}, features),
            light=compare_light(originals, pictures),
            more_real=bootstrap_interval(np.mean, logits_n - self.look(originals.pictures_u8)[1]),
        )


def compare_light(originals: Originals, pictures_u8: np.ndarray) -> dict[str, Estimate]:
    """Return the mean brightness inside and outside the boxes over that before; see `DrawnOutcome`."""
    size = pictures_u8.shape[2:]
    inside_nhw = positions_inside(originals.boxes_n4, size, size)
    boxed, found = inside_nhw.any((1, 2)), {}
    for place, mask in (("inside", inside_nhw[boxed]), ("outside", ~inside_nhw[boxed])):
        before, after = (
            (x[boxed].mean(1) * mask).sum((1, 2)) / mask.sum((1, 2)).clip(min=1)
            for x in (originals.pictures_u8, pictures_u8)
        )
        found[place] = bootstrap_interval(lambda old, new: new.mean() / max(old.mean(), 1e-9), before, after)
    return found


def make_drawn_bench(checkpoint: str, boxes: Path | None = None, seed: int = 0, name: str = "window") -> DrawnBench:
    """Put a generator and the boxes drawn on its pictures together.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    boxes : Path, optional
        Their file; by default ``windows.json`` in the checkpoint's folder.
    seed, name : int, str
        Which pictures they were drawn on, and around what.

    Raises
    ------
    UserError
        If the boxes were drawn on other pictures or around another object, or the generator draws classes.
    """
    config = load_config(checkpoint)[0].model
    if config.num_classes:
        raise UserError("forgetting needs a generator without classes: choose another checkpoint")
    folder = find_run(checkpoint)
    path = folder / "windows.json" if boxes is None else boxes
    drawn = load_boxes(path, config.image_size, checkpoint=folder.name, seed=seed, object=name)
    return DrawnBench(generator=load_generator(checkpoint), discriminator=load_discriminator(checkpoint), drawn=drawn)


def held_out_accuracy(
    maps_nchw: np.ndarray, boxes_nk4: np.ndarray, image_size: tuple[int, int], *, c: float, seed: int
) -> Estimate:
    """Return the share of positions told right in pictures that the regression had not seen, by folds of pictures.

    Notes
    -----
    Inside and outside are balanced in each picture, so that guessing is right about half of them. The interval is over
    pictures, because positions of one picture are not independent.
    """
    parts = labelled_positions(maps_nchw, boxes_nk4, image_size, seed)
    folds, right = np.random.default_rng(seed).permutation(len(parts)) % FOLDS, []
    for fold in range(FOLDS):
        model = regress([part for part, its in zip(parts, folds, strict=True) if its != fold], c)
        right += [model.score(*part) for part, its in zip(parts, folds, strict=True) if its == fold]
    return mean_interval(np.array(right))


def places(num: int, grid: tuple[int, int]) -> np.ndarray:
    """Return maps that know nothing but where a position is: down, across, their squares and product; n x 5 x h x w."""
    y_hw, x_hw = np.meshgrid(*(np.linspace(-1, 1, side) for side in grid), indexing="ij")
    return np.tile(np.stack([y_hw, x_hw, y_hw**2, x_hw**2, y_hw * x_hw])[None], (num, 1, 1, 1)).astype(np.float32)


def run_drawn_forgetting(
    checkpoint: str, boxes: Path, name: str = "window", *, layer: int | None = None,
    threshold: float = 0.0, c: float = 1.0, samples: int = 150, draws: int = 10, seed: int = 0,
) -> DrawnStudy:  # fmt: skip
    """Forget an object by boxes drawn by hand; the parameters are those of ``dcgan forget``.

    Raises
    ------
    UserError
        If the boxes belong to something else, a number is out of range, or no map is left to switch off.
    """
    if samples < 10 or draws < 2 or c <= 0:
        raise UserError(f"forgetting needs 10 samples, 2 draws and c > 0, but got {samples}, {draws}, {c}")
    begun, bench = time.monotonic(), make_drawn_bench(checkpoint, boxes, seed, name)
    config = bench.generator.config
    layer = second_highest(config) if layer is None else layer
    num_maps = check_layer(bench.generator, layer)
    originals = bench.draw(samples)
    maps_nchw = activations(bench.generator, originals.z_nd, layer)
    fit = fit_maps(maps_nchw, originals.boxes_n4, config.image_size, c=c, seed=seed)
    maps = fit.maps(threshold)
    if not 0 < len(maps) < num_maps:
        raise UserError(f"{len(maps)} of {num_maps} maps have a weight over {threshold:g}: choose another threshold")
    energy_c = np.square(maps_nchw).mean((0, 2, 3))
    ways = {
        "paper": [maps],
        "random": [random_maps(num_maps, len(maps), seed + i) for i in range(draws)],
        "matched": [matched_maps(energy_c, maps, seed + i) for i in range(draws)],
    }
    known = {"activations": maps_nchw, "place": places(samples, maps_nchw.shape[2:])}
    settings = {"checkpoint": checkpoint, "object": name, "layer": layer, "threshold": threshold, "c": c}
    settings |= {"samples": samples, "draws": draws, "seed": seed, "num_maps": num_maps}
    settings |= {"boxes": len(bench.drawn.boxes)}
    rows = bench.drawn.pictures[:10]
    shown = {"before": originals.pictures_u8[rows]}
    shown |= {way: bench.without(originals.z_nd[rows], ways[way][0], layer) for way in ("paper", "random")}
    return DrawnStudy(
        settings=settings, fit=fit, shown=shown,
        accuracy={
            way: held_out_accuracy(seen, originals.boxes_n4, config.image_size, c=c, seed=seed)
            for way, seen in known.items()
        },
        outcomes={way: [bench.measure(originals, off, layer) for off in sets] for way, sets in ways.items()},
        seconds=time.monotonic() - begun,
    )  # fmt: skip
