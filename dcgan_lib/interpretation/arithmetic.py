"""Sums of concepts in latent space, their exemplars, and the turn vector (section 6.3.2).

The mean of exemplars of A, minus that of B, plus that of C. Exemplars are picked by eye and kept in
a file (`Exemplars`), or chosen by a probe from a pool of samples (`pick`).

The probe that chose exemplars should not be the only one to judge what came of them, so an
`EdgeReader`, which shares nothing with it but labels, can be asked too; fitted to overlays, it sees
ghosts.

Axes: n samples, d latent, t trials, g groups of k exemplars (3 groups: the concepts A, B and C), s
steps along an axis, c channels, h x w pixels; ``_u8`` pixels 0..255.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dcgan_lib.config import ModelConfig
from dcgan_lib.data.prepare import with_channels
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Panel, Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, picture_grid, sample_latents, seeded
from dcgan_lib.paths import atomic_write, read_json
from dcgan_lib.training.checkpoints import find_run, load_config

# ---------------------------------------------------------------- sums of latent vectors


def add_up(z_t3kd: np.ndarray) -> np.ndarray:
    """Return mean(A) - mean(B) + mean(C), shape (..., d), of exemplars of shape (..., 3, k, d).

    They are latent vectors, or flattened pictures.

    Raises
    ------
    UserError
        If there are not three groups.
    """
    if z_t3kd.ndim < 3 or z_t3kd.shape[-3] != len(SIGNS):
        raise UserError(
            f"a sum takes three groups of exemplars, ... x 3 x k x d, but got shape {z_t3kd.shape}"
        )
    return np.einsum("g,...gkd->...d", np.array(SIGNS) / z_t3kd.shape[-2], z_t3kd)


SIGNS = (1, -1, 1)


def nine(y_d: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a vector amid eight neighbours, y + U(-0.25, 0.25), shape (9, d).

    The fifth is y itself.
    """
    noise = np.random.default_rng(seed).uniform(-0.25, 0.25, (9, len(y_d)))
    noise[4] = 0
    return y_d + noise


def usual_length(config: ModelConfig) -> float:
    """Return the root mean square length of a latent vector."""
    return float(np.sqrt(config.z_dim * (1 if config.z_distribution == "normal" else 1 / 3)))


def rescaled(y_td: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Return vectors in their own directions, each of the usual length."""
    return y_td * (usual_length(config) / np.linalg.norm(y_td, axis=-1, keepdims=True))


def pictures_of(generator: AnyGenerator, z_nd: np.ndarray) -> np.ndarray:
    """Return the pictures of an array of latent vectors (..., d), uint8, n x c x h x w."""
    rows_nd = np.ascontiguousarray(z_nd, dtype=np.float32).reshape(-1, z_nd.shape[-1])
    return generate_u8(generator, torch.from_numpy(rows_nd))


def pixel_sums(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the same sums, t x c x h x w, of t x 3 x k pictures, cut off at black and white."""
    t, shape = len(pictures_u8), pictures_u8.shape[3:]
    sums = add_up(pictures_u8.reshape(*pictures_u8.shape[:3], -1).astype(np.float32))
    return sums.clip(0, 255).round().astype(np.uint8).reshape(t, *shape)


def layout(generator: AnyGenerator, z_3kd: np.ndarray) -> dict[str, np.ndarray]:
    """Draw one sum as the paper's Fig. 7 does: one picture each, uint8, 1 x 3 x h x w.

    "A", "B" and "C": the exemplars above their mean. "A − B + C": nine pictures around the sum.
    "pixels": the sum of the exemplars' pictures. All have one height.
    """
    exemplars = [pictures_of(generator, z_kd) for z_kd in z_3kd]
    means = pictures_of(generator, z_3kd.mean(1))
    tiles = {
        name: _tile(np.concatenate([pictures, mean[None]]), 1)
        for name, pictures, mean in zip("ABC", exemplars, means, strict=True)
    }
    tiles["A − B + C"] = _tile(pictures_of(generator, nine(add_up(z_3kd))), 3)
    tiles["pixels"] = _tile(pixel_sums(np.stack(exemplars)[None]), 1)
    height = max(x.shape[1] for x in tiles.values())
    return {
        name: np.pad(x, ((0, 0), (0, height - x.shape[1]), (0, 0)), constant_values=255)[None]
        for name, x in tiles.items()
    }


def _tile(images_u8: np.ndarray, columns: int) -> np.ndarray:
    return picture_grid(images_u8, columns).transpose(2, 0, 1)


# ---------------------------------------------------------------- concepts, and who reads them


class Reader(Protocol):
    """Read attributes off pictures: a `Probe`, a `Panel` or an `EdgeReader`."""

    def predict(self, images_u8: np.ndarray) -> dict[str, np.ndarray]:
        """Return by attribute a probability, or a number in its own unit, shape (n,)."""
        ...


Concept = Mapping[str, bool]
"""Attributes, and whether a picture must have them."""


@dataclass(frozen=True)
class Sum:
    """Describe a sum: A and B differ in one attribute, B and C in another."""

    added: str
    """The attribute that A has, and B and C lack."""
    carried: str
    """The attribute in which A and B differ from C."""
    begins_with: bool
    """Whether A and B have the carried attribute; C has the opposite."""

    @property
    def concepts(self) -> tuple[Concept, Concept, Concept]:
        """Attributes of A, B and C."""
        a = {self.added: True, self.carried: self.begins_with}
        b = a | {self.added: False}
        return a, b, b | {self.carried: not self.begins_with}

    @property
    def wanted(self) -> Concept:
        """What A - B + C should show: the added attribute, and the carried one as C has it."""
        return {self.added: True, self.carried: not self.begins_with}


SUMS = {"smile": Sum("smile", "long_hair", True), "glasses": Sum("glasses", "long_hair", False)}
"""The two sums of the paper's Fig. 7; long and short hair stand in for its woman and man."""

FACE_SUMS = {"smile": Sum("smile", "female", True)}
"""On faces from photographs: the smile label of one set, the sex label of another; no set at hand
labels glasses."""


class Countable(NamedTuple):
    """Say which sums can be counted on the generators of an image set, and by whom."""

    sums: Mapping[str, Sum]
    """By the name that the claim has in the ledger."""
    probe: str
    """Who reads the attributes; several are joined by "+"."""
    carried: str
    """What stands for the paper's man and woman, for the ledger."""


COUNTABLE = {
    "portraits": Countable(
        SUMS, "probe-portraits", "long_hair stands in for the paper's man and woman"
    ),
    "faces64": Countable(
        FACE_SUMS, "probe-faces+probe-smiles", "man and woman by the set's own sex label"
    ),
}
"""By image set."""


def countable_sums(checkpoint: str | Path) -> Countable:
    """Return what can be counted on a checkpoint's pictures, by the image set that it learnt."""
    image_set = load_config(checkpoint)[1]["image_set"]
    if image_set not in COUNTABLE:
        raise UserError(
            f"sums can be counted on generators of {', '.join(COUNTABLE)}, but not of {image_set}: "
            "name exemplars of your own with --a, --b and --c"
        )
    return COUNTABLE[image_set]


# ---------------------------------------------------------------- a second reader, and overlays


def edge_features(images_u8: np.ndarray) -> np.ndarray:
    """Return histograms of edge directions in cells of 8 and of 4 pixels, float32, n x f.

    Colours are turned to grey, and each block of cells is brought to one contrast, as Dalal and
    Triggs (2005) do. Sides must be multiples of 8 and at least 16.
    """
    grey_nhw = with_channels(images_u8, 1)[:, 0]
    height, width = grey_nhw.shape[1:]
    if height % 8 or width % 8 or min(height, width) < 16:
        raise UserError(
            "edges are read off pictures whose sides are multiples of 8 and at least 16, but got "
            f"{height} x {width}"
        )
    parts = []
    for cell in (8, 4):
        block, step = (2 * cell, 2 * cell), (cell, cell)
        histograms = cv2.HOGDescriptor((width, height), block, step, step, 9)
        rows = [histograms.compute(np.ascontiguousarray(picture)) for picture in grey_nhw]
        parts.append(np.stack(rows).reshape(len(grey_nhw), -1))
    return np.concatenate(parts, 1)


class EdgeReader:
    """Read attributes off the directions of edges by linear models: no network, no pretraining.

    Logistic regression for what is so or not, ridge regression for numbers; both see features of
    mean 0 and variance 1. ``facts`` is free for what the fit was worth.
    """

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}

    def fit(self, images_u8: np.ndarray, truth: Mapping[str, np.ndarray]) -> "EdgeReader":
        """Learn attributes, one value per image each, beside those learnt before."""
        features_nf = edge_features(images_u8)
        for name, values in truth.items():
            # C and alpha: our choice, the best of three on the drawn smiles.
            is_yes_or_no = values.dtype == np.bool_
            model = LogisticRegression(C=0.01, max_iter=1000) if is_yes_or_no else Ridge(1e4)
            self._models[name] = make_pipeline(StandardScaler(), model).fit(features_nf, values)
        return self

    def predict(self, images_u8: np.ndarray) -> dict[str, np.ndarray]:
        """Return by attribute a probability, or a number in its own unit, shape (n,)."""
        features_nf = edge_features(images_u8)
        return {
            name: model.predict_proba(features_nf)[:, 1]
            if hasattr(model, "predict_proba")
            else model.predict(features_nf)
            for name, model in self._models.items()
        }


def overlays_of_two(images_u8: np.ndarray, *, restored: bool = False) -> np.ndarray:
    """Return the mean of each picture of the first half with one of the second half, uint8.

    A mean of two has less contrast than a picture: ``restored`` spreads it about the mean picture
    by the square root of 2, so that contrast alone does not give it away.
    """
    half = len(images_u8) // 2
    means = (images_u8[:half].astype(np.float32) + images_u8[half : 2 * half]) / 2
    return spread(means, images_u8, 2**0.5) if restored else means.round().astype(np.uint8)


def spread(images: np.ndarray, about_u8: np.ndarray, factor: float) -> np.ndarray:
    """Multiply pictures' deviations from the mean picture of ``about_u8``; uint8."""
    mean = about_u8.mean(0, dtype=np.float32)
    return ((images - mean) * factor + mean).clip(0, 255).round().astype(np.uint8)


def fit_overlay_reader(samples_u8: np.ndarray) -> EdgeReader:
    """Learn to tell overlays of two samples from samples, as the attribute "overlay".

    A third of the pictures are shown as they are, the others in pairs. Half of either kind is
    spread or faded, so that the contrast does not tell them apart.
    """
    third = len(samples_u8) // 3
    single, paired = samples_u8[:third], samples_u8[third : 3 * third]
    half, quarter = third // 2, third // 2 * 2
    shown = [
        single[:half],
        spread(single[half:], samples_u8, 0.5**0.5),
        overlays_of_two(paired[:quarter]),
        overlays_of_two(paired[quarter:], restored=True),
    ]
    is_overlay = np.repeat([False, False, True, True], [len(part) for part in shown])
    return EdgeReader().fit(np.concatenate(shown), {"overlay": is_overlay})


# ---------------------------------------------------------------- exemplars chosen by a probe


class Pool(NamedTuple):
    """Hold samples to choose exemplars from."""

    z_nd: np.ndarray
    """float32."""
    read: dict[str, np.ndarray]
    """What a probe reads off each picture."""


def draw_pool(generator: AnyGenerator, probe: Probe | Panel, num: int, seed: int) -> Pool:
    """Draw samples of an unconditional generator and read their attributes.

    Sample i is the same whenever ``num`` and ``seed`` are.
    """
    z_nd = sample_latents(num, generator.config, seeded(seed))
    parts = [probe.predict(generate_u8(generator, part)) for part in z_nd.split(_PORTION)]
    return Pool(
        z_nd.numpy(), {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )


_PORTION = 2_000  # so that the pictures need not be held together


def shows(read: Mapping[str, np.ndarray], concept: Concept, confidence: float = 0.5) -> np.ndarray:
    """Return which pictures show a concept: each attribute as asked, with enough confidence."""
    unknown = set(concept) - set(read)
    if unknown:
        raise UserError(
            f"the probe reads {', '.join(read)}, but no {', '.join(unknown)}: choose another one"
        )
    return np.all(
        [(read[name] if has else 1 - read[name]) > confidence for name, has in concept.items()], 0
    )


def pick(
    pool: Pool,
    concepts: Sequence[Concept],
    num: int,
    trials: int,
    seed: int,
    *,
    confidence: float = 0.9,
    ahead: float | None = None,
) -> np.ndarray:
    """Choose exemplars of each concept at random, anew for each trial.

    Return indices into the pool, int64, shape (trials, groups, num), all different in a group. The
    probe must be surer than ``confidence`` of each attribute, and the face's yaw at most ``ahead``
    from 0.
    """
    facing = True if ahead is None else np.abs(pool.read["yaw"]) <= ahead
    groups = [
        (
            "show " + ", ".join(name if has else f"no {name}" for name, has in concept.items()),
            np.ones(len(pool.z_nd), bool) & shows(pool.read, concept, confidence) & facing,
        )
        for concept in concepts
    ]
    return _choose(groups, num, trials, seed)


def _choose(
    groups: Sequence[tuple[str, np.ndarray]], num: int, trials: int, seed: int
) -> np.ndarray:
    """Choose samples of each group: what they do, such as "look left", and which they are."""
    rng, chosen = np.random.default_rng(seed), []
    for what, fits in groups:
        found = np.flatnonzero(fits)
        if len(found) < num:
            raise UserError(
                f"{len(found)} of {len(fits)} samples {what}, but {num} are needed: draw more"
            )
        chosen.append(np.stack([rng.choice(found, num, replace=False) for _ in range(trials)]))
    return np.stack(chosen, 1)


def exemplars(
    pool: Pool, name: str | Sum, trials: int, num: int = 3, ahead: float | None = 0.4
) -> np.ndarray:
    """Return latent vectors that `pick` chooses for a sum or its name, (trials, 3, num, d)."""
    asked = SUMS[name] if isinstance(name, str) else name
    return pool.z_nd[pick(pool, asked.concepts, num, trials, 0, ahead=ahead)]


def succeeds(
    generator: AnyGenerator, probe: Reader, y_td: np.ndarray, wanted: Concept
) -> np.ndarray:
    """Return for each vector whether the probe sees all that is wanted, bool, shape (t,)."""
    return shows(probe.predict(pictures_of(generator, y_td)), wanted)


# ---------------------------------------------------------------- exemplars picked by eye

FILE = "exemplars.json"
TURN = ("looking left", "looking right")
"""The concepts that a turn vector needs; left and right are the viewer's."""


@dataclass(frozen=True, kw_only=True)
class Exemplars:
    """Hold which samples show which concept."""

    checkpoint: str
    seed: int
    pool: int
    """Seed and size of the pool that the numbers count in."""
    concepts: Mapping[str, Sequence[int]]
    """A concept's name to its samples, counted from 0, all different."""
    sums: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """A sum's name to its concepts A, B and C, which have equally many samples."""

    def __post_init__(self) -> None:
        if not self.concepts:
            raise UserError("exemplars need at least one concept, but none came")
        for name, numbers in self.concepts.items():
            for number in numbers:
                if type(number) is not int or not 0 <= number < self.pool:
                    raise UserError(
                        f"{name}: samples are numbered 0 to {self.pool - 1}, but {number!r} came"
                    )
            if len(set(numbers)) != len(numbers):
                raise UserError(f"{name}: a sample comes twice among {list(numbers)}")
        for name, trio in self.sums.items():
            if len(trio) != 3:
                raise UserError(
                    f"the sum {name} needs the concepts A, B and C, but has {len(trio)}"
                )
            self.numbers(trio)

    def check_checkpoint(self, name: str) -> None:
        """Refuse a generator other than the one whose samples were picked."""
        if Path(name).name != Path(self.checkpoint).name:
            raise UserError(
                f"the exemplars are samples of {self.checkpoint}, but the checkpoint is {name}"
            )

    def numbers(self, names: Sequence[str]) -> list[list[int]]:
        """Return the samples of some concepts, which must all have equally many."""
        unknown = set(names) - set(self.concepts)
        if unknown:
            raise UserError(
                f"no exemplars of {', '.join(sorted(unknown))}: there are "
                f"{', '.join(self.concepts)}"
            )
        found = [list(self.concepts[name]) for name in names]
        if len({len(numbers) for numbers in found}) != 1 or not found[0]:
            raise UserError(
                f"{', '.join(names)} need equally many exemplars, but have "
                f"{[len(n) for n in found]}"
            )
        return found

    def latents(self, names: Sequence[str], config: ModelConfig) -> np.ndarray:
        """Return the latent vectors of some concepts' exemplars, shape (g, k, d)."""
        return self.pool_latents(config)[np.array(self.numbers(names))]

    def pool_latents(self, config: ModelConfig) -> np.ndarray:
        """Return the latent vectors of the whole pool, float32."""
        return sample_latents(self.pool, config, seeded(self.seed)).numpy()

    def save(self, path: str | Path) -> None:
        """Write them as JSON, each list on one line, for `load_exemplars`."""
        about = {name: value for name, value in asdict(self).items() if name != "sums" or value}
        text = re.sub(
            r"\[[^\[\]{}]*\]",
            lambda found: json.dumps(json.loads(found[0])),
            json.dumps(about, indent=1),
        )
        atomic_write(Path(path), text + "\n")


def load_exemplars(name_or_path: str | Path) -> Exemplars:
    """Read exemplars from a JSON file, or those kept beside a checkpoint's weights."""
    path = Path(name_or_path)
    if path.suffix != ".json":
        path = find_run(name_or_path) / FILE
    if not path.is_file():
        raise UserError(
            f"there are no exemplars at {path}: pick and save some with dcgan_lib.widgets.picker"
        )
    kept = read_json(path, "pick and save them again")
    try:
        return Exemplars(**kept)
    except (TypeError, AttributeError) as error:
        raise UserError(
            f"{path.name} holds no exemplars ({error}): pick and save them again"
        ) from error


# ---------------------------------------------------------------- the turn vector

STEPS = np.linspace(-1, 1, 11)
"""Eleven columns as in Fig. 8, the face itself in the middle; 1 adds the whole axis (our
choice)."""


def pick_sides(pool: Pool, trials: int, seed: int, *, least: float = 0.6) -> np.ndarray:
    """Choose faces that look left and faces that look right, anew for each trial.

    Return indices into the pool, int64, shape (trials, 2, 4), left first: four faces a side as in
    the paper. ``least`` is the least yaw; 1 is the most that the drawn portraits have.
    """
    if "yaw" not in pool.read:
        raise UserError(f"the probe reads {', '.join(pool.read)}, but no yaw: choose another probe")
    yaw = pool.read["yaw"]
    return _choose([("look left", -yaw >= least), ("look right", yaw >= least)], 4, trials, seed)


def turn_axes(z_n2kd: np.ndarray) -> np.ndarray:
    """Return mean(right) - mean(left), shape (n, d), of exemplars of shape (n, 2, k, d)."""
    left, right = np.moveaxis(z_n2kd.mean(2), 1, 0)
    return right - left


def random_axes(axes_nd: np.ndarray, seed: int) -> np.ndarray:
    """Return axes of the same lengths in random directions."""
    random_nd = np.random.default_rng(seed).normal(size=axes_nd.shape)
    return (
        random_nd * (np.linalg.norm(axes_nd, axis=1) / np.linalg.norm(random_nd, axis=1))[:, None]
    )


def moved(z_nd: np.ndarray, axes_nd: np.ndarray) -> np.ndarray:
    """Return each vector at each of `STEPS` along its axis, shape (n, s, d)."""
    return z_nd[:, None] + STEPS[:, None] * axes_nd[:, None]


def drawn_turn(generator: AnyGenerator, own: Exemplars, num_faces: int = 5) -> np.ndarray:
    """Turn a pool's first samples along the axis that exemplars picked by eye give.

    Return eleven pictures a face, the face itself in the middle: uint8, n x c x h x w.
    """
    axis_d = turn_axes(own.latents(TURN, generator.config)[None])
    return pictures_of(generator, moved(own.pool_latents(generator.config)[:num_faces], axis_d))


def read_along(
    generator: AnyGenerator, readers: Sequence[Reader], z_nd: np.ndarray, axes_nd: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Let each reader read every attribute at each step; float32 arrays of shape (n, s, ...)."""
    pictures_u8 = pictures_of(generator, moved(z_nd, axes_nd))
    found = []
    for reader in readers:
        read = reader.predict(pictures_u8)
        found.append({k: x.reshape(-1, len(STEPS), *x.shape[1:]) for k, x in read.items()})
    return found


def straight_lines(values_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a straight line against `STEPS` to each row; return slopes and R2, shape (n,).

    A constant row has an R2 of 0.
    """
    values = values_ns - values_ns.mean(1, keepdims=True)
    slopes, total = values @ STEPS / (STEPS @ STEPS), (values**2).sum(1)
    explained = slopes**2 * (STEPS @ STEPS)
    return slopes, np.divide(explained, total, out=np.zeros(len(values)), where=total > 0)


def summarise(values_ns: np.ndarray) -> dict[str, Estimate]:
    """Say how straight a quantity runs against the step, with intervals over the rows.

    "slope": the mean change over one unit. "r2": the mean share of a row's own variation that a
    straight line explains. "rising": the share of rows whose line rises.
    """
    slopes, r2 = straight_lines(values_ns)
    rising = wilson_interval(int((slopes > 0).sum()), len(slopes))
    slope, explained = (bootstrap_interval(np.mean, values) for values in (slopes, r2))
    return {"slope": slope, "r2": explained, "rising": rising}


def flips(probability_ns: np.ndarray, column: int) -> Estimate:
    """Return the share of rows whose yes or no differs between the middle step and another."""
    yes_ns = probability_ns > 0.5
    changed = yes_ns[:, column] != yes_ns[:, yes_ns.shape[1] // 2]
    return wilson_interval(int(changed.sum()), len(changed))
