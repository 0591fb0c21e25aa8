"""Directions in latent space that change one attribute, found by regression: ``python -m ...directions NAME``.

Axes: n samples, d latent. A probe reads the attributes off generated pictures, or `stroke_style` the style of digits;
a straight line through latent space that predicts an attribute is the direction in which it changes most. Our own
choice: the paper averages three pictures by hand.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score

from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import find_run, load_config, load_generator

STROKES = "strokes"
WEIGHTS, ABOUT = "directions.safetensors", "directions.json"
LEAST = {"balanced accuracy": 0.6, "R2": 0.1}
"""Least held-out score of a direction that is kept; chance is 0.5 and 0."""
MIN_CASES = 40
"""A yes-or-no attribute needs this many pictures with it and without it, in either part."""


@dataclass(frozen=True)
class Direction:
    """A direction of length 1 along which an attribute grows.

    Parameters
    ----------
    name : str
        The attribute.
    direction_d : ndarray
        float32, shape (z_dim,).
    measure : {"balanced accuracy", "R2"}
        What ``score`` is.
    score : float
        How well the direction alone predicts the attribute of pictures that it was not fitted on.
    """

    name: str
    direction_d: np.ndarray
    measure: str
    score: float


def fit_directions(
    checkpoint: str | Path, probe: str | Path | Probe, n: int = 4_000, seed: int = 0
) -> tuple[Direction, ...]:
    """Find a direction for each attribute that a probe reads.

    Parameters
    ----------
    checkpoint : str or Path
        A generator. If it draws classes on demand, equally many of each are drawn, and an attribute is what remains
        of it when the mean of the class is taken away.
    probe : str, Path or Probe
        Reads pictures of the generator's size; "strokes" measures the style of digits.
    n : int
        Pictures to draw; the last quarter is held out.
    seed : int
        Of the latent vectors.

    Returns
    -------
    tuple of Direction
        All of them, those at chance too; `keep` leaves those out.

    Raises
    ------
    UserError
        If n is below 400, or the probe reads pictures of another size.
    """
    if n < 400:
        raise UserError(
            f"n must be at least 400, but it is {n}: a direction has as many numbers as z"
        )
    generator = load_generator(checkpoint)
    z_nd, num_classes = (
        sample_latents(n, generator.config, seeded(seed)),
        generator.config.num_classes,
    )
    labels_n = torch.arange(n) % num_classes if num_classes else None
    pictures = generate_u8(generator, z_nd, labels_n)
    if probe == STROKES:
        targets = dict(stroke_style(pictures))
    else:
        probe = probe if isinstance(probe, Probe) else load_probe(probe)
        targets = dict(_targets(probe, probe.predict(pictures)))
    if labels_n is not None:
        targets = {
            name: _within_classes(values, labels_n.numpy()) for name, values in targets.items()
        }
    fits = [_fit(name, z_nd.numpy(), truth_n) for name, truth_n in targets.items()]
    return tuple(found for found in fits if found)


def _within_classes(values_n: np.ndarray, labels_n: np.ndarray) -> np.ndarray:
    """Take the mean of its class from each number; yes and no stay as they are."""
    if values_n.dtype == bool:
        return values_n
    means = np.array(
        [np.nanmean(values_n[labels_n == label]) for label in range(labels_n.max() + 1)]
    )
    return values_n - means[labels_n]


def _targets(probe: Probe, read: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each attribute's name and values: bool, or float for a number; a class becomes one attribute a value."""
    for head in probe.config.heads:
        if head.kind == "boolean":
            yield head.name, read[head.name] > 0.5
        elif head.kind == "continuous":
            yield head.name, read[head.name]
        else:
            for number, name in enumerate(head.class_names):
                yield f"{head.name} {name}", read[head.name].argmax(1) == number


def _fit(name: str, z_nd: np.ndarray, truth_n: np.ndarray) -> Direction | None:
    if truth_n.dtype != bool:  # nothing can be read off an empty picture
        z_nd, truth_n = z_nd[np.isfinite(truth_n)], truth_n[np.isfinite(truth_n)]
    cut = len(z_nd) * 3 // 4
    if truth_n.dtype == bool:
        cases = [min(part.sum(), (~part).sum()) for part in (truth_n[:cut], truth_n[cut:])]
        if min(cases) < MIN_CASES:
            return None
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1_000).fit(
            z_nd[:cut], truth_n[:cut]
        )
        measure, score = (
            "balanced accuracy",
            balanced_accuracy_score(truth_n[cut:], model.predict(z_nd[cut:])),
        )
    else:
        model = Ridge(alpha=10.0).fit(z_nd[:cut], truth_n[:cut])
        measure, score = "R2", r2_score(truth_n[cut:], model.predict(z_nd[cut:]))
    weights = model.coef_.ravel()
    return Direction(
        name, (weights / np.linalg.norm(weights)).astype(np.float32), measure, float(score)
    )


def keep(directions: Sequence[Direction]) -> tuple[Direction, ...]:
    """Return the directions whose held-out score is well above chance; see `LEAST`."""
    return tuple(found for found in directions if found.score >= LEAST[found.measure])


def save_directions(
    folder: Path, directions: Sequence[Direction], *, probe: str, n: int, seed: int
) -> None:
    """Write ``directions.safetensors`` and, beside it, what was measured, left-out ones included."""
    kept = keep(directions)
    rows = [
        {"attribute": d.name, "measure": d.measure, "score": round(d.score, 4), "kept": d in kept}
        for d in directions
    ]
    about = {"directions": rows, "probe": probe, "n": n, "held_out": n - n * 3 // 4, "seed": seed}
    atomic_write(folder / WEIGHTS, save({found.name: found.direction_d for found in kept}))
    atomic_write(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def load_directions(name_or_path: str | Path) -> tuple[Direction, ...]:
    """Return a checkpoint's named directions, none if none were fitted.

    Raises
    ------
    UserError
        If there is no such checkpoint or its files are damaged.
    """
    folder = find_run(name_or_path)
    if not (folder / WEIGHTS).is_file():
        return ()
    try:
        vectors = load_file(folder / WEIGHTS)
        rows = [
            row for row in json.loads((folder / ABOUT).read_text())["directions"] if row["kept"]
        ]
        return tuple(
            Direction(row["attribute"], vectors[row["attribute"]], row["measure"], row["score"])
            for row in rows
        )
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"the directions in {folder} are damaged ({error}): fit them again"
        ) from error


@answers_mistakes("directions")
def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the directions of checkpoints, store them beside the weights and print their held-out scores."""
    parser = argparse.ArgumentParser(
        prog="dcgan_lib.interpretation.directions", description=main.__doc__
    )
    parser.add_argument("names", nargs="+", help="checkpoints")
    parser.add_argument(
        "--probe", help="by default strokes for digits, else probe-NAME of the image set"
    )
    parser.add_argument("--n", type=int, default=4_000, help="pictures to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    for name in chosen.names:
        image_set = load_config(name)[1]["image_set"]
        probe = chosen.probe or (
            STROKES if image_set == "mnist" else f"probe-{image_set.removesuffix('64')}"
        )
        found = fit_directions(name, probe, chosen.n, chosen.seed)
        save_directions(find_run(name), found, probe=probe, n=chosen.n, seed=chosen.seed)
        for row in found:
            kept = "kept" if row in keep(found) else "left out"
            print(f"{name}: {row.name:20} {row.measure} {row.score:.3f}  {kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())


def stroke_style(images_u8: np.ndarray) -> dict[str, np.ndarray]:
    """Measure slant, weight and width.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, n x 1 x h x w.

    Returns
    -------
    dict of str to ndarray
        float32, shape (n,), NaN for a black image. ``slant``: columns to the right per row upwards, by which the
        digit leans. ``weight``: ink as a share of the image. ``width``: spread of the ink along rows, over its spread
        along columns.

    Raises
    ------
    UserError
        If the images are not grey.

    Notes
    -----
    From the moments of the ink, as in the classical deskewing of MNIST (LeCun et al., 1998).
    """
    if images_u8.ndim != 4 or images_u8.shape[1] != 1:
        raise UserError(
            f"strokes are read off grey images, n x 1 x h x w, but got shape {images_u8.shape}"
        )
    ink = images_u8[:, 0].astype(np.float64) / 255
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ink / ink.sum((1, 2), keepdims=True)
        up, right = -np.arange(ink.shape[1])[:, None], np.arange(ink.shape[2])
        centre = [(share * axis).sum((1, 2)) for axis in (up, right)]
        off_up, off_right = (
            axis - middle[:, None, None] for axis, middle in zip((up, right), centre, strict=True)
        )
        var_up, var_right, both = (
            (share * a * b).sum((1, 2))
            for a, b in ((off_up, off_up), (off_right, off_right), (off_up, off_right))
        )
        style = {
            "slant": both / var_up,
            "weight": ink.mean((1, 2)),
            "width": np.sqrt(var_right / var_up),
        }
    return {
        name: np.where(np.isfinite(values) & (ink.sum((1, 2)) > 0), values, np.nan).astype(
            np.float32
        )
        for name, values in style.items()
    }
