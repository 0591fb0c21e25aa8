"""Short trainings that are compared with each other, seed by seed: one run, and a table of them.

The generator is kept at some steps of a run, the *looks*, so that all can be measured again, with
other features say, without training again. `architecture` and `residual_gan` say which runs there
are, and what their numbers mean.

Axes: n images, f features; ``*_u8`` images n x c x h x w, 0..255.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import HeldElsewhereError, UserError, require
from dcgan_lib.evaluation.distances import kid_of_features
from dcgan_lib.evaluation.features import FeatureExtractor, get_features
from dcgan_lib.evaluation.ledger import has_details, list_details, load_details, save_details
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.evaluation.statistics import Estimate, mean_interval
from dcgan_lib.models.networks import AnyDiscriminator, AnyGenerator
from dcgan_lib.models.sampling import in_batches, sample_latents, seeded, to_u8, write_grid
from dcgan_lib.paths import atomic_write, exclusive, read_json
from dcgan_lib.plotting import Compared
from dcgan_lib.tensor_files import read_tensors, write_tensors
from dcgan_lib.training.loop import Batches, choose_device, draw_latents
from dcgan_lib.training.step import StepRecord, make_gan, new_networks, train_step
from dcgan_lib.training.watch import find_trouble

# ---------------------------------------------------------------- training

SIDE = 32
"""Of the pictures, in pixels."""

WINDOW = 50
"""Steps that the losses are averaged over."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what all runs of a table share; kept with each, so that no two kinds are mixed."""

    set: str
    steps: int
    base_width: int
    batch_size: int
    precision: str


def usual_config(settings: Settings, channels: int, seed: int) -> TrainConfig:
    """Return the paper's recipe at the table's size.

    Notes
    -----
    One minibatch updates D, then G, on the same generated images: that is a third cheaper for each
    pair of updates than the authors' alternation, and a table of many runs lives on many updates.
    """
    return TrainConfig(
        model=ModelConfig(
            image_size=(SIDE, SIDE), num_channels=channels, base_width=settings.base_width
        ),
        batch_size=settings.batch_size,
        steps=settings.steps,
        precision=settings.precision,
        schedule="same_batch",
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """Say what one run trains, and when its generator is kept."""

    config: TrainConfig
    looks: Mapping[int, int]
    """The look that is due after so many steps; the untrained generator is look 0."""
    new_pair: Callable[[ModelConfig], tuple[AnyGenerator, AnyDiscriminator]] = new_networks
    """Builds the two networks."""
    constant_z: bool = False
    """Feed the generator one latent vector over and over."""


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


def train_run(run: Run, image_set: ImageSet, device: str = "cpu") -> Trained:
    """Train one pair; a run whose losses or weights are no longer finite ends there."""
    begun, where, config = time.perf_counter(), choose_device(device), run.config
    gan = make_gan(config, where, run.new_pair)
    batches = Batches(image_set, config, where)
    windows, pending, kept, stopped = [], [], {0: _weights(gan.generator)}, None
    for step in range(config.steps):
        record = train_step(gan, step, batches(step)[0], None, _latents(run, where, step))
        pending.append(record)
        done = step + 1
        if done % WINDOW and done not in run.looks:
            continue
        line = _means(pending) | {"step": done}
        weights = _weights(gan.generator)
        finite = all(math.isfinite(value) for value in line.values())
        if not finite or not all(value.isfinite().all() for value in weights.values()):
            stopped = done
            break
        if done in run.looks:
            kept[run.looks[done]] = weights
        if done % WINDOW == 0 or done == config.steps:
            windows.append(line)
            pending = []
    seconds = time.perf_counter() - begun
    return Trained(windows=windows, stopped=stopped, seconds=seconds, weights=kept)


def _latents(run: Run, device: torch.device, step: int) -> Callable[[int], Tensor]:
    if run.constant_z:
        constant_bd = draw_latents(run.config, device, 0)(0)[:1].expand(run.config.batch_size, -1)
        return lambda turn: constant_bd
    return draw_latents(run.config, device, step)


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
        f"{look} {name}": value
        for look, state in trained.weights.items()
        for name, value in state.items()
    }
    write_tensors(folder / "generators.safetensors", weights)
    about = {
        "windows": trained.windows,
        "stopped": trained.stopped,
        "seconds": round(trained.seconds, 1),
        "config": to_dict(config),
    }
    atomic_write(folder / "run.json", json.dumps(about) + "\n")


def find_trained(folder: Path, run: Run) -> Trained | None:
    """Return what `keep_trained` wrote of this run; None if it was another, or had other looks."""
    if not (folder / "run.json").is_file():
        return None
    remedy = "remove the folder, and the run begins again"
    about = read_json(folder / "run.json", remedy)
    if from_dict(about.pop("config")) != run.config:
        return None
    weights: dict[int, dict[str, Tensor]] = {}
    for key, value in read_tensors(folder / "generators.safetensors", remedy)[0].items():
        look, name = key.split(" ")
        weights.setdefault(int(look), {})[name] = value
    trained = Trained(weights=weights, **about)
    has_all = trained.stopped is not None or set(run.looks.values()) <= set(weights)
    return trained if has_all else None


def draw_pictures(run: Run, weights: dict[str, Tensor], num: int) -> np.ndarray:
    """Draw pictures as the authors do, by the statistics of the batch; unbounded ones are clipped.

    The latent vectors are the same for every run, but for the one vector of a constant z.
    """
    model = run.config.model
    generator, _ = run.new_pair(model)
    generator.load_state_dict(weights)
    generator.train()
    z_bd = sample_latents(num, model, seeded(1))
    if run.constant_z:
        z_bd = _latents(run, torch.device("cpu"), 0)(0)[:1].repeat(num, 1)

    def draw(z_bd: Tensor) -> Tensor:
        return to_u8(generator(z_bd).clamp(*model.value_range), model)

    return in_batches(draw, z_bd, batch_size=250)


# ---------------------------------------------------------------- what pictures are measured with

NUM_MODES = 20
COMMON = 1e-4
"""Share of all pixels that a colour must have to count as one of the set's."""
PROBE_OF = {"mnist": "probe-mnist", "street-digits": "probe-street-digits"}
"""Sets whose classes a committed probe reads at 32x32."""


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
        self.features, self.num_images, self._probe = features, num_images, probe
        rows = np.random.default_rng(0).permutation(len(held_out))[:num_images]
        real_u8 = held_out.images_u8[np.sort(rows)]
        self._real_nf, self._few_nf = map(features.extract, (real_u8, real_u8[::2]))
        self._clusters = KMeans(NUM_MODES, n_init=4, random_state=0).fit(_thumbnails(real_u8))
        self._real_modes = self._mode_shares(real_u8)
        self._real_classes = None if probe is None else self._class_shares(real_u8)
        self._is_common = _colour_shares(real_u8) > COMMON

    @property
    def measured_with(self) -> tuple[str, int]:
        """Return what must agree for two measurements to be comparable."""
        return self.features.name, self.num_images

    def measure(self, pictures_u8: np.ndarray) -> dict[str, float]:
        """Measure pictures in every way, and return plain values.

        Returns
        -------
        dict
            ``distance``, ``low``, ``high``: KID with its interval; half of the held-out images
            serve fewer pictures than these. ``lost``: the share of the modes that hold less than a
            fifth as many pictures as real images; modes are K-means clusters of thumbnails.
            ``diversity``: the mean distance of two pictures' features over that of two real
            images'. ``colours``: the share of the real images' common colours that pictures also
            reach. With a probe, ``classes_lost``: as ``lost``, of classes.

        Notes
        -----
        Modes are bins of pixels, as Richardson and Weiss (2018) count them. In a network's features
        the pictures of a small GAN lie in a few bins of their own, since none of them looks real:
        that would call every run collapsed.
        """
        found_nf = self.features.extract(pictures_u8)
        is_full = len(found_nf) >= len(self._real_nf)
        real_nf, subsets = (self._real_nf, 100) if is_full else (self._few_nf, 40)
        distance = kid_of_features(real_nf, found_nf, self.features.name, subsets=subsets)
        reached = _colour_shares(pictures_u8) > COMMON / 10
        found = {
            "distance": distance.value,
            "low": distance.low,
            "high": distance.high,
            "lost": _lost(self._real_modes, self._mode_shares(pictures_u8)),
            "diversity": _mean_pairwise(found_nf) / _mean_pairwise(self._real_nf),
            "colours": reached[self._is_common].mean(),
        }
        if self._probe is not None:
            found["classes_lost"] = _lost(self._real_classes, self._class_shares(pictures_u8))
        return {name: float(f"{value:.5g}") for name, value in found.items()}

    def _mode_shares(self, pictures_u8: np.ndarray) -> np.ndarray:
        return _shares(self._clusters.predict(_thumbnails(pictures_u8)), NUM_MODES)

    def _class_shares(self, pictures_u8: np.ndarray) -> np.ndarray:
        classes_n = self._probe.predict(pictures_u8)["label"].argmax(1)
        return _shares(classes_n, len(self._probe.head("label").class_names))


def _shares(kinds_n: np.ndarray, num_kinds: int) -> np.ndarray:
    return np.bincount(kinds_n, minlength=num_kinds) / len(kinds_n)


def _lost(real_shares: np.ndarray, shares: np.ndarray) -> float:
    return (shares < real_shares / 5)[real_shares > 0].mean()


def _thumbnails(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the means of 4 x 4 pixels, in 0..1, flattened."""
    n, c, h, w = pictures_u8.shape
    blocks = pictures_u8.reshape(n, c, h // 4, 4, w // 4, 4)
    return (blocks.mean((3, 5)) / 255).reshape(n, -1)


def _colour_shares(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the share of pixels in each cell: 8 x 8 x 8 of RGB, or 32 of grey."""
    if pictures_u8.shape[1] == 1:
        return _shares(pictures_u8.ravel() // 8, 32)
    red, green, blue = (pictures_u8[:, k].astype(np.int64).ravel() // 32 for k in range(3))
    return _shares((red * 8 + green) * 8 + blue, 512)


def _mean_pairwise(features_nf: np.ndarray, most: int = 500) -> float:
    some_nf = features_nf[:most].astype(np.float64)
    distances = cdist(some_nf, some_nf)
    return float(distances.sum() / (len(some_nf) * (len(some_nf) - 1)))


def open_set(name: str, features: str, num_images: int) -> tuple[ImageSet, Yardstick]:
    """Load a set's training images at 32x32, and what its generators are measured with."""
    train = load_image_set(name, image_size=SIDE)
    held_out = load_image_set(name, HELD_OUT, image_size=SIDE)
    probe = load_probe(PROBE_OF[train.name]) if train.name in PROBE_OF else None
    return train, Yardstick(held_out, get_features(features), probe, num_images)


# ---------------------------------------------------------------- what a run is judged by


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


def find_flags(last: Mapping[str, float], troubled: float, stopped: int | None) -> list[str]:
    """Say what went wrong in a run, by bounds that were chosen on trial runs of the recipe.

    ``last`` is its last look, ``troubled`` what `share_troubled` says of it.
    """
    flags = []
    if stopped is not None:
        flags.append("diverged: a number was no longer finite")
    elif troubled > MOST_TROUBLED:
        flags.append("diverged: the losses are out of bounds for most of the last third")
    if last["lost"] > MOST_LOST:
        flags.append("collapsed: more than half of the modes are lost")
    if last.get("classes_lost", 0.0) > MOST_LOST:
        flags.append("collapsed: more than half of the classes are lost")
    if last["diversity"] < LEAST_DIVERSITY:
        flags.append("collapsed: samples differ less than a quarter as much as real images")
    return flags


# ---------------------------------------------------------------- a table of runs

Runs = dict[tuple[str, int], dict[str, Any]]
"""What is kept of each run, by the name of what it trains and its seed."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Say which runs are compared with each other, and where the ledger keeps them."""

    command: str
    """What makes them."""
    kind: str
    """What the name of a run is: "rule", say."""
    folder: str
    """Of the ledger; a run is kept there as NAME-SEED."""
    settings: Mapping[str, dict[str, Any]]
    """What the runs of each name are made with, so that no two kinds are mixed."""

    def place(self, name: str, seed: int) -> str:
        """Return the name under which the ledger keeps a run."""
        return f"{self.folder}/{name}-{seed}"

    def is_finished(self, name: str, seed: int, measured_with: tuple[str, int]) -> bool:
        """Return whether a run is kept, and was measured the same way; refuse other settings."""
        place = self.place(name, seed)
        if not has_details(place):
            return False
        kept = load_details(place, self.command)
        if kept["settings"] != self.settings[name]:
            raise UserError(
                f"data/results/{place}.json was made with other settings ({kept['settings']}): "
                "give those, or --again to replace it"
            )
        return _measured_with(kept) == measured_with

    def load(self, measured_with: tuple[str, int] | None = None) -> Runs:
        """Return the kept runs that were made with the settings and measured in one way.

        They are in the order of names and seeds. ``measured_with`` are features and their number
        of images; unset, those of the first run.
        """
        kept: Runs = {}
        for place in list_details(self.folder):
            name, _, seed = place.rpartition("/")[2].rpartition("-")
            if name in self.settings and seed.isdigit():
                run = load_details(place, self.command)
                if run["settings"] == self.settings[name]:
                    kept[name, int(seed)] = run
        names = list(self.settings)
        keys = sorted(kept, key=lambda key: (names.index(key[0]), key[1]))
        if keys and measured_with is None:
            measured_with = _measured_with(kept[keys[0]])
        return {key: kept[key] for key in keys if _measured_with(kept[key]) == measured_with}


def _measured_with(kept: Mapping[str, Any]) -> tuple[str, int]:
    return kept["features"], kept["num_images"]


def finish_run(
    table: Table,
    name: str,
    run: Run,
    measure: Callable[[Run, Trained, Yardstick], dict[str, Any]],
    image_set: ImageSet,
    yardstick: Yardstick,
    *,
    out: Path,
    device: str,
    again: bool,
) -> None:
    """Train, measure and keep a run, or what of that is missing, and print how it ended.

    A run that another process has begun is left to it.
    """
    seed = run.config.seed
    folder = out / f"{name}-{seed}"
    try:
        with exclusive(folder / "run.json", wait=False):
            if not again and table.is_finished(name, seed, yardstick.measured_with):
                return
            trained = None if again else find_trained(folder, run)
            if trained is None:
                trained = train_run(run, image_set, device)
                keep_trained(folder, trained, run.config)
            last = max(trained.weights)
            write_grid(folder / "samples.png", draw_pictures(run, trained.weights[last], 64))
            begun = time.perf_counter()
            found = measure(run, trained, yardstick)
            seconds = trained.seconds + time.perf_counter() - begun
            content = {
                table.kind: name,
                "seed": seed,
                "settings": table.settings[name],
                "features": yardstick.features.name,
                "num_images": yardstick.num_images,
                "stopped": trained.stopped,
                "seconds": round(seconds, 1),
                "training_seconds": round(trained.seconds, 1),
                **found,
                "losses": [[line[each] for each in LINE] for line in trained.windows],
            }
            save_details(table.place(name, seed), content)
    except HeldElsewhereError:
        print(f"{name}, seed {seed}: another process has begun it", flush=True)
        return
    last = found["looks"][-1]
    print(
        f"{name}, seed {seed}: distance {last['distance']:.4f} after {last['step']:,} steps, "
        f"diversity {last['diversity']:.2f}, {seconds:.0f} s  {'; '.join(found['flags'])}",
        flush=True,
    )


def finished_runs(runs: Runs, names: Iterable[str], num_seeds: int) -> Runs:
    """Return the runs of these names and seeds; refuse a table that lacks one."""
    wanted = {(name, seed) for name in names for seed in range(num_seeds)}
    if missing := sorted(wanted - set(runs)):
        raise UserError(
            f"{len(missing)} of {len(wanted)} runs are not finished, such as {missing[0][0]} with "
            f"seed {missing[0][1]}: run this again, or wait for the process that has begun them"
        )
    return {key: run for key, run in runs.items() if key in wanted}


# ---------------------------------------------------------------- over the seeds

Measure = Callable[[Mapping[str, Any]], float | None]
"""Takes one number out of what is kept of a run."""


def paired(runs: Runs, name: str, reference: str, measure: Measure) -> np.ndarray:
    """Return a measure of both for each seed that both have, in order: pairs x 2.

    A seed of which one run ended too soon to have the measure is left out.
    """
    seeds = sorted(seed for each, seed in runs if each == name and (reference, seed) in runs)
    pairs = [[measure(runs[each, seed]) for each in (name, reference)] for seed in seeds]
    return np.array([pair for pair in pairs if None not in pair]).reshape(-1, 2)


def paired_difference(runs: Runs, name: str, reference: str, measure: Measure) -> Estimate | None:
    """Return the mean of one minus the other over pairs of equal seed, by Student's t.

    None with fewer than two such pairs.
    """
    values, usual = paired(runs, name, reference, measure).T
    return mean_interval(values - usual) if len(values) > 1 else None


NO_DIFFERENCE = "no difference shown"


def side_of(difference: Estimate | None, below: str, above: str) -> str:
    """Say what a difference is: one of two words where its whole interval is on one side of 0."""
    if difference is None:
        return "too few runs"
    if difference.low <= 0 <= difference.high:
        return NO_DIFFERENCE
    return below if difference.high < 0 else above


def compared(
    runs: Runs, name: str, reference: str, measure: Measure, below: str, above: str
) -> Compared | None:
    """Return a row for `dcgan_lib.plotting.plot_compared`; None without a run to compare.

    All are multiples of the reference's mean over the same seeds, and the interval of the paired
    difference stands about 1. A row of one seed has no interval. The note is what `side_of` says.
    """
    values, usual = paired(runs, name, reference, measure).T
    if not len(values):
        return None
    points, interval, note = (values / usual.mean()).tolist(), None, ""
    difference = paired_difference(runs, name, reference, measure)
    if name != reference and difference is not None:
        interval = tuple(1 + bound / usual.mean() for bound in difference[1:])
        side = side_of(difference, below, above)
        note = "" if side == NO_DIFFERENCE else side
    return Compared(points=tuple(points), interval=interval, note=note)


def summary_text(
    runs: Runs,
    names: Iterable[str],
    reference: str,
    columns: Mapping[str, Measure],
    is_flagged: Callable[[str, int], bool],
) -> str:
    """Lay out as text what each name's runs measured, and how that differs from the reference."""
    lines = [
        "Means over the seeds, then the paired differences to the first line with half of their "
        "95 % interval.",
        f"{'':24}" + "".join(f"{head:>20}" for head in columns) + "  flagged",
    ]
    for name in names:
        seeds = [seed for each, seed in runs if each == name]
        if not seeds:
            continue
        cells = ""
        for measure in columns.values():
            values = [measure(runs[name, seed]) for seed in seeds]
            cell = "-" if None in values else f"{np.mean(values):.3f}"
            difference = paired_difference(runs, name, reference, measure)
            if name != reference and difference is not None:
                half = difference.high - difference.value
                cell += f" {difference.value:+.3f}±{half:.3f}"
            cells += f"{cell:>20}"
        flagged = sum(is_flagged(name, seed) for seed in seeds)
        lines.append(f"{name:24}{cells}  {flagged} of {len(seeds)}")
    return "\n".join(lines)
