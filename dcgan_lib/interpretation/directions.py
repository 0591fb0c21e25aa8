"""Directions in latent space that change one attribute, found by regression on generated pictures.

Axes: n samples, d latent. A probe reads the attributes off the pictures, or `stroke_style` the
style of digits; the gradient of a linear model that predicts an attribute from z is the direction
in which it changes most. Our own choice: the paper averages three pictures by hand.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score
from tyro.conf import Positional

from dcgan_lib.command import Command
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, labels_in_turn, sample_latents, seeded
from dcgan_lib.paths import atomic_write, read_json
from dcgan_lib.tensor_files import read_tensors, write_tensors
from dcgan_lib.training.checkpoints import find_run, load_config, load_generator

STROKES = "strokes"
WEIGHTS, ABOUT = "directions.safetensors", "directions.json"
LEAST = {"balanced accuracy": 0.6, "R2": 0.1}
"""Least held-out score of a direction that is kept; chance is 0.5 and 0."""
MIN_CASES = 40
"""A yes-or-no attribute needs this many pictures with it and without it, in either part."""


@dataclass(frozen=True)
class Direction:
    """A direction along which an attribute grows."""

    name: str
    direction_d: np.ndarray
    """float32, shape (z_dim,), of length 1."""
    measure: str
    """What ``score`` is: a key of `LEAST`."""
    score: float
    """How well the direction alone predicts the attribute of pictures that it was not fitted on."""

    @property
    def is_kept(self) -> bool:
        """Tell whether the score is well above chance; see `LEAST`."""
        return self.score >= LEAST[self.measure]


def fit_directions(
    generator: AnyGenerator,
    read: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    n: int = 4_000,
    seed: int = 0,
) -> tuple[Direction, ...]:
    """Find a direction for each attribute, those at chance too; the last quarter is held out.

    ``read``, such as `stroke_style`, or `probe_attributes` with a probe, returns each attribute of
    pictures, shape (n,): bool, or float with NaN where there is nothing to read. If the generator
    draws classes on demand, equally many of each are drawn, and a number is what remains of it when
    the mean of the class is taken away.
    """
    if n < 400:
        raise UserError(
            f"n must be at least 400, but it is {n}: a direction has as many numbers as z"
        )
    z_nd = sample_latents(n, generator.config, seeded(seed))
    labels_n = labels_in_turn(n, generator.config)
    found = []
    for name, values_n in read(generate_u8(generator, z_nd, labels_n)).items():
        if labels_n is not None and values_n.dtype != bool:
            _, kinds_n = np.unique(labels_n, axis=0, return_inverse=True)
            means = [np.nanmean(values_n[kinds_n == kind]) for kind in range(kinds_n.max() + 1)]
            values_n = values_n - np.array(means)[kinds_n]
        found.append(_fit(name, z_nd.numpy(), values_n))
    return tuple(direction for direction in found if direction)


def _fit(name: str, z_nd: np.ndarray, values_n: np.ndarray) -> Direction | None:
    """Fit on the first three quarters, score on the rest; None where there are too few cases."""
    is_yes_or_no = values_n.dtype == bool
    known_n = np.isfinite(values_n)  # nothing can be read off an empty picture
    z_nd, values_n = z_nd[known_n], values_n[known_n]
    cut = len(z_nd) * 3 // 4
    if is_yes_or_no:
        if (
            min(np.bincount(part, minlength=2).min() for part in np.split(values_n, [cut]))
            < MIN_CASES
        ):
            return None
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1_000)
        measure, score_of = "balanced accuracy", balanced_accuracy_score
    else:
        model, measure, score_of = Ridge(alpha=10.0), "R2", r2_score
    model.fit(z_nd[:cut], values_n[:cut])
    score, weights = score_of(values_n[cut:], model.predict(z_nd[cut:])), model.coef_.ravel()
    direction_d = (weights / np.linalg.norm(weights)).astype(np.float32)
    return Direction(name, direction_d, measure, float(score))


def probe_attributes(probe: Probe, pictures_u8: np.ndarray) -> dict[str, np.ndarray]:
    """Read attributes with a probe: bool, or float for a number; a class becomes one a value."""
    answers, found = probe.predict(pictures_u8), {}
    for head in probe.config.heads:
        values = answers[head.name]
        if head.kind == "class":
            named = values.argmax(1)
            found |= {f"{head.name} {c}": named == i for i, c in enumerate(head.class_names)}
        else:
            found[head.name] = values > 0.5 if head.kind == "boolean" else values
    return found


def stroke_style(images_u8: np.ndarray) -> dict[str, np.ndarray]:
    """Measure slant, weight and width of grey strokes, n x 1 x h x w.

    Each is float32, shape (n,), NaN for a black image. ``slant``: columns to the right per row
    upwards, by which the digit leans. ``weight``: ink as a share of the image. ``width``: standard
    deviation of the ink along rows, over that along columns. All follow from the moments of the
    ink, as in the classical deskewing of MNIST (LeCun et al., 1998).
    """
    if images_u8.ndim != 4 or images_u8.shape[1] != 1:
        raise UserError(
            f"strokes are read off grey images, n x 1 x h x w, but got shape {images_u8.shape}"
        )
    moments = [cv2.moments(np.ascontiguousarray(image)) for image in images_u8[:, 0]]
    ink, right, both, down = (
        np.array([row[name] for row in moments]) for name in ("m00", "mu20", "mu11", "mu02")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        style = {
            "slant": -both / down,
            "weight": images_u8.mean((1, 2, 3)) / 255,
            "width": np.sqrt(right / down),
        }
    return {
        name: np.where(np.isfinite(values) & (ink > 0), values, np.nan).astype(np.float32)
        for name, values in style.items()
    }


def save_directions(
    folder: Path, directions: Sequence[Direction], *, probe: str, n: int, seed: int
) -> None:
    """Write the kept directions and, beside them, what was measured of all."""
    rows = [
        {"attribute": d.name, "measure": d.measure, "score": round(d.score, 4), "kept": d.is_kept}
        for d in directions
    ]
    about = {"directions": rows, "probe": probe, "n": n, "held_out": n - n * 3 // 4, "seed": seed}
    write_tensors(
        folder / WEIGHTS, {d.name: torch.from_numpy(d.direction_d) for d in directions if d.is_kept}
    )
    atomic_write(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def load_directions(name_or_path: str | Path) -> tuple[Direction, ...]:
    """Return the directions that were kept of a checkpoint, none if none were fitted."""
    folder = find_run(name_or_path)
    if not (folder / WEIGHTS).is_file():
        return ()
    remedy = "fit the directions again"
    vectors, _ = read_tensors(folder / WEIGHTS, remedy)
    try:
        return tuple(
            Direction(
                row["attribute"], vectors[row["attribute"]].numpy(), row["measure"], row["score"]
            )
            for row in read_json(folder / ABOUT, remedy)["directions"]
            if row["kept"]
        )
    except (LookupError, TypeError) as error:
        raise UserError(f"the directions in {folder} are damaged ({error!r}): {remedy}") from error


@dataclass(frozen=True, kw_only=True)
class FindDirections(Command, verb="directions"):
    """Fit a direction to each attribute, and keep those that predict held-out pictures."""

    names: Positional[tuple[str, ...]]
    """Committed checkpoints or runs' folders."""
    probe: str | None = None
    """Who reads the attributes; unset: strokes for digits, else probe-NAME of the image set."""
    n: int = 4_000
    """Pictures to draw."""
    seed: int = 0
    """Of the latent vectors."""

    def run(self) -> None:
        """Fit, store and print the held-out scores."""
        for name in self.names:
            image_set = load_config(name)[1]["image_set"]
            usual = STROKES if image_set == "mnist" else f"probe-{image_set.removesuffix('64')}"
            probe = self.probe or usual
            read = (
                stroke_style if probe == STROKES else partial(probe_attributes, load_probe(probe))
            )
            found = fit_directions(load_generator(name), read, self.n, self.seed)
            save_directions(find_run(name), found, probe=probe, n=self.n, seed=self.seed)
            for row in found:
                kept = "kept" if row.is_kept else "left out"
                print(f"{name}: {row.name:20} {row.measure} {row.score:.3f}  {kept}")
