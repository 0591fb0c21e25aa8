"""Short trainings that are compared with each other: one run, its looks, and what it is judged by.

The generator is kept at some steps of a run, the *looks*, so that all can be measured again, with
other features say, without training again. `architecture` and `residual_gan` say which runs there
are, and what their numbers mean.

Axes: n images, f features; ``*_u8`` images n x c x h x w, 0..255.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.distances import kid
from dcgan_lib.evaluation.features import RULER, FeatureExtractor, get_features
from dcgan_lib.evaluation.ledger import has_details, list_details, load_details
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator
from dcgan_lib.models.sampling import in_batches, sample_latents, seeded, to_u8
from dcgan_lib.paths import atomic_write, read_json
from dcgan_lib.training.checkpoints import to_bytes
from dcgan_lib.training.loop import Batches, choose_device, draw_latents
from dcgan_lib.training.step import Gan, StepRecord, make_gan, train_step
from dcgan_lib.training.watch import find_trouble

NewPair = Callable[[ModelConfig], tuple[AnyGenerator, AnyDiscriminator]]

# ---------------------------------------------------------------- training

SIDE = 32
"""Of the pictures, in pixels."""

WINDOW = 50
"""Steps that the losses are averaged over."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Hold what a run leaves: its losses, and the generator at each look that it lived to see."""

    windows: list[dict[str, float]]
    """Means of d_loss, g_loss, d_real and d_fake over `WINDOW` steps, with the ``step`` after."""
    stopped: int | None
    """The step at which a number was found no longer finite; None where the run came to its end."""
    seconds: float
    weights: dict[int, dict[str, Tensor]]
    """The generator's weights by look."""


def train_run(
    config: TrainConfig,
    image_set: ImageSet,
    looks: Mapping[int, int],
    new_pair: NewPair,
    *,
    constant_z: bool = False,
    device: str = "cpu",
) -> Trained:
    """Train one pair; a run whose losses or weights are no longer finite ends there.

    Parameters
    ----------
    looks
        The look that is due after so many steps; the untrained generator is look 0.
    new_pair
        Builds the two networks.
    constant_z
        Feed the generator one latent vector over and over.
    """
    begun, where = time.perf_counter(), choose_device(device)
    gan = make_gan(config, where, new_pair)
    batches = Batches(image_set, config, where)
    windows, pending, kept, stopped = [], [], {0: _weights(gan.generator)}, None
    for step in range(config.steps):
        latents = _latents(config, gan, step, constant_z=constant_z)
        record = train_step(gan, step, batches(step)[0], None, latents)
        pending.append(record)
        done = step + 1
        if done % WINDOW and done not in looks:
            continue
        line = _means(pending) | {"step": done}
        weights = _weights(gan.generator)
        finite = all(math.isfinite(value) for value in line.values())
        if not finite or not all(value.isfinite().all() for value in weights.values()):
            stopped = done
            break
        if done in looks:
            kept[looks[done]] = weights
        if done % WINDOW == 0 or done == config.steps:
            windows.append(line)
            pending = []
    seconds = time.perf_counter() - begun
    return Trained(windows=windows, stopped=stopped, seconds=seconds, weights=kept)


def _latents(
    config: TrainConfig, gan: Gan, step: int, *, constant_z: bool
) -> Callable[[int], Tensor]:
    if constant_z:
        constant_bd = draw_latents(config, gan.device, 0)(0)[:1].expand(config.batch_size, -1)
        return lambda turn: constant_bd
    return draw_latents(config, gan.device, step)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


LINE = ("step", "d_loss", "g_loss", "d_real", "d_fake")


def _means(records: list[StepRecord]) -> dict[str, float]:
    means = {}
    for name in LINE[1:]:
        mean = torch.stack([getattr(record, name) for record in records]).mean()
        means[name] = float(f"{mean:.5g}")
    return means


def keep_trained(folder: Path, trained: Trained, config: TrainConfig) -> None:
    """Write a run's losses and generators; the description comes last, so it means all is there."""
    weights = {
        f"{look} {name}": value.contiguous()
        for look, state in trained.weights.items()
        for name, value in state.items()
    }
    atomic_write(folder / "generators.safetensors", to_bytes(weights))
    about = {
        "windows": trained.windows,
        "stopped": trained.stopped,
        "seconds": round(trained.seconds, 1),
        "config": to_dict(config),
    }
    atomic_write(folder / "run.json", json.dumps(about) + "\n")


def find_trained(folder: Path, config: TrainConfig) -> Trained | None:
    """Return what `keep_trained` wrote for this configuration, or None."""
    if not (folder / "run.json").is_file():
        return None
    about = read_json(folder / "run.json", "remove the folder, and the run begins again")
    if from_dict(about.pop("config")) != config:
        return None
    weights: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "generators.safetensors").items():
        look, name = key.split(" ")
        weights.setdefault(int(look), {})[name] = value
    return Trained(weights=weights, **about)


# ---------------------------------------------------------------- what pictures are measured with


NUM_MODES = 20


class Remembering(FeatureExtractor):
    """Give the features of another extractor, and read no array twice while it is remembered."""

    def __init__(self, features: FeatureExtractor, *known: np.ndarray) -> None:
        super().__init__(features.name, features.num_features, features, features)
        self._known = [(images_u8, features.extract(images_u8)) for images_u8 in known]

    def remember(self, images_u8: np.ndarray) -> np.ndarray:
        """Return an array's features, and know them from now on."""
        self._known = [*self._known[:2], (images_u8, self.extract(images_u8))]
        return self._known[-1][1]

    def extract(self, images_u8: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Return float32 features, n x num_features."""
        for known_u8, features_nf in self._known:
            if known_u8 is images_u8:
                return features_nf
        return self.network.extract(images_u8, batch_size=batch_size)


class Yardstick:
    """Measure pictures against a set's held-out images.

    Parameters
    ----------
    held_out : ImageSet
        Images that no run learns from.
    features : FeatureExtractor
        What distances and diversity are measured in.
    probe : Probe, optional
        Names the class of an image.
    num_images : int, default 1,000
        How many of the held-out images are used, at random; and how many samples are measured at
        the two points that count, with half as many at the other looks.

    Raises
    ------
    UserError
        If there are fewer held-out images, or not twice as many as modes are asked for.
    """

    def __init__(
        self,
        held_out: ImageSet,
        features: FeatureExtractor,
        probe: Probe | None = None,
        num_images: int = 1_000,
    ) -> None:
        allowed = f"from {2 * NUM_MODES} to the {len(held_out):,} held-out images there are"
        require(2 * NUM_MODES <= num_images <= len(held_out), "num_images", num_images, allowed)
        self.num_images = num_images
        rows = np.random.default_rng(0).permutation(len(held_out))[:num_images]
        self.real_u8 = held_out.images_u8[np.sort(rows)]
        self.few_u8 = self.real_u8[::2]
        self.features = Remembering(features, self.real_u8, self.few_u8)
        self._probe = probe
        real_nf = self.features.extract(self.real_u8)
        self._spread = _mean_pairwise(real_nf)
        self._clusters = KMeans(NUM_MODES, n_init=4, random_state=0).fit(_thumbnails(self.real_u8))
        self._real_modes = self._mode_shares(self.real_u8)
        self._real_classes = None if probe is None else self._class_shares(self.real_u8)
        self._real_colours = _colour_shares(self.real_u8) > COMMON

    def distance(self, pictures_u8: np.ndarray) -> Estimate:
        """Return KID with its interval; half of the held-out images serve fewer than a thousand."""
        self.features.remember(pictures_u8)
        if len(pictures_u8) >= len(self.real_u8):
            size = min(500, len(self.real_u8) // 2)
            return kid(self.real_u8, pictures_u8, self.features, subset_size=size).estimate
        size = min(len(self.few_u8), len(pictures_u8)) // 2
        return kid(self.few_u8, pictures_u8, self.features, subsets=40, subset_size=size).estimate

    def lost(self, pictures_u8: np.ndarray) -> float:
        """Return the share of modes lost: K-means clusters of the held-out images' thumbnails.

        One is lost where less than a fifth as many pictures fall into it as real images do.

        Notes
        -----
        Bins of pixels, as Richardson and Weiss (2018) count them. In a network's features the
        pictures of a small GAN lie in a few bins of their own, since none of them looks real: that
        would call every run collapsed.
        """
        return _lost(self._real_modes, self._mode_shares(pictures_u8))

    def classes_lost(self, pictures_u8: np.ndarray) -> float | None:
        """Return the share of the classes lost, as the probe names them; None without a probe."""
        if self._probe is None:
            return None
        return _lost(self._real_classes, self._class_shares(pictures_u8))

    def diversity(self, pictures_u8: np.ndarray) -> float:
        """Return the mean distance of two pictures' features over that of two real images'."""
        return _mean_pairwise(self.features.extract(pictures_u8)) / self._spread

    def colours(self, pictures_u8: np.ndarray) -> float:
        """Return the share of the real images' common colours that pictures also reach."""
        return float((_colour_shares(pictures_u8) > COMMON / 10)[self._real_colours].mean())

    def _mode_shares(self, pictures_u8: np.ndarray) -> np.ndarray:
        modes_n = self._clusters.predict(_thumbnails(pictures_u8))
        return np.bincount(modes_n, minlength=NUM_MODES) / len(modes_n)

    def _class_shares(self, pictures_u8: np.ndarray) -> np.ndarray:
        classes_n = self._probe.predict(pictures_u8)["label"].argmax(1)
        number = len(self._probe.head("label").class_names)
        return np.bincount(classes_n, minlength=number) / len(classes_n)


def _lost(real_shares: np.ndarray, shares: np.ndarray) -> float:
    return float((shares < real_shares / 5)[real_shares > 0].mean())


def _thumbnails(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the means of 4 x 4 pixels, in 0..1, flattened."""
    n, c, h, w = pictures_u8.shape
    blocks = pictures_u8.reshape(n, c, h // 4, 4, w // 4, 4)
    return (blocks.mean((3, 5)) / 255).reshape(n, -1)


COMMON = 1e-4
"""Share of all pixels that a colour must have to count as one of the set's."""


def _colour_shares(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the share of pixels in each cell: 8 x 8 x 8 of RGB, or 32 of grey."""
    if pictures_u8.shape[1] == 1:
        cells, number = pictures_u8[:, 0] // 8, 32
    else:
        red, green, blue = (pictures_u8[:, k].astype(np.int64) // 32 for k in range(3))
        cells, number = (red * 8 + green) * 8 + blue, 512
    return np.bincount(cells.ravel(), minlength=number) / cells.size


def _mean_pairwise(features_nf: np.ndarray, most: int = 500) -> float:
    some_nf = features_nf[:most].astype(np.float64)
    distances = cdist(some_nf, some_nf)
    return float(distances.sum() / (len(some_nf) * (len(some_nf) - 1)))


PROBE_OF = {"mnist": "probe-mnist", "street-digits": "probe-street-digits"}
"""Sets whose classes a committed probe reads at 32x32."""


def open_set(
    name: str, features: str = RULER, num_images: int = 1_000
) -> tuple[ImageSet, Yardstick]:
    """Load a set's training images at 32x32, and what its generators are measured with."""
    train = load_image_set(name, image_size=SIDE)
    held_out = load_image_set(name, HELD_OUT, image_size=SIDE)
    probe = load_probe(PROBE_OF[train.name]) if train.name in PROBE_OF else None
    extractor = get_features(features)
    return train, Yardstick(held_out, extractor, probe, num_images)


def draw_pictures(
    config: TrainConfig,
    weights: dict[str, Tensor],
    num: int,
    new_pair: NewPair,
    *,
    constant_z: bool = False,
    seed: int = 1,
) -> np.ndarray:
    """Draw pictures as the authors do, by the statistics of the batch; unbounded ones are clipped.

    The latent vectors are those of ``seed`` for every run, and the one vector of a run with a
    constant z.
    """
    generator, _ = new_pair(config.model)
    generator.load_state_dict(weights)
    generator.train()
    z_bd = sample_latents(num, config.model, seeded(seed))
    if constant_z:
        z_bd = draw_latents(config, torch.device("cpu"), 0)(0)[:1].repeat(num, 1)
    low, high = config.model.value_range

    def draw(z_bd: Tensor) -> Tensor:
        return to_u8(generator(z_bd).clamp(low, high), config.model)

    return in_batches(draw, z_bd, batch_size=250)


# ---------------------------------------------------------------- what a run is judged by


def measure_look(pictures_u8: np.ndarray, yardstick: Yardstick) -> dict[str, float]:
    """Return distance, low, high, lost, diversity, colours and, with a probe, classes_lost."""
    distance = yardstick.distance(pictures_u8)
    found = {
        "distance": distance.value,
        "low": distance.low,
        "high": distance.high,
        "lost": yardstick.lost(pictures_u8),
        "diversity": yardstick.diversity(pictures_u8),
        "colours": yardstick.colours(pictures_u8),
    }
    classes_lost = yardstick.classes_lost(pictures_u8)
    if classes_lost is not None:
        found["classes_lost"] = classes_lost
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def share_troubled(windows: list[dict[str, float]], steps: int) -> float:
    """Return the share of the last third of the steps in which the losses are out of bounds.

    A run that ended before then counts as out of bounds.
    """
    ending = last_third(windows, steps)
    troubled = [find_trouble(line) is not None for line in ending]
    return float(np.mean(troubled)) if troubled else 1.0


def last_third(windows: list[dict[str, float]], steps: int) -> list[dict[str, float]]:
    """Return the windows of the last third of the steps."""
    return [line for line in windows if line["step"] > steps * 2 / 3]


MOST_LOST, LEAST_DIVERSITY, MOST_TROUBLED = 0.5, 0.25, 0.5


def find_flags(measures: dict[str, float], classes_lost: float, stopped: int | None) -> list[str]:
    """Say what went wrong in a run, by bounds that were chosen on trial runs of the recipe."""
    flags = []
    if stopped is not None:
        flags.append("diverged: a number was no longer finite")
    elif measures["troubled"] > MOST_TROUBLED:
        flags.append("diverged: the losses are out of bounds for most of the last third")
    if measures["lost"] > MOST_LOST:
        flags.append("collapsed: more than half of the modes are lost")
    if classes_lost > MOST_LOST:
        flags.append("collapsed: more than half of the classes are lost")
    if measures["diversity"] < LEAST_DIVERSITY:
        flags.append("collapsed: samples differ less than a quarter as much as real images")
    return flags


# ---------------------------------------------------------------- what is kept


def is_finished(name: str, settings: dict[str, Any], yardstick: Yardstick, command: str) -> bool:
    """Return whether a run is kept, was made with the same settings, and measured the same way.

    Raises
    ------
    UserError
        If it was made with other settings.
    """
    if not has_details(name):
        return False
    kept = load_details(name, command)
    if kept["settings"] != settings:
        raise UserError(
            f"data/results/{name}.json was made with other settings ({kept['settings']}): give "
            "those, or --again to replace it"
        )
    measured = yardstick.features.name, yardstick.num_images
    return (kept["features"], kept["num_images"]) == measured


def kept_seeds(name: str) -> list[int]:
    """Return the seeds of which the ledger keeps a run NAME-SEED, in order; some may be missing."""
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    found = map(pattern.fullmatch, list_details(name.rpartition("/")[0]))
    return sorted(int(match[1]) for match in found if match)


RunsByKey = dict[tuple[str, int], dict[str, Any]]
"""What is kept of each run, by the name of what it trains and its seed."""


def finished_runs(runs: RunsByKey, names: Iterable[str], num_seeds: int) -> RunsByKey:
    """Return the runs of these names and seeds; refuse a table that lacks one."""
    wanted = {(name, seed) for name in names for seed in range(num_seeds)}
    if missing := sorted(wanted - set(runs)):
        raise UserError(
            f"{len(missing)} of {len(wanted)} runs are not finished, such as {missing[0][0]} with "
            f"seed {missing[0][1]}: run this again, or wait for the process that has begun them"
        )
    return {key: run for key, run in runs.items() if key in wanted}
