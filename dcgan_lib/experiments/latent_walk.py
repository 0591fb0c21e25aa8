"""Chapter 9: walks through latent space, why objects return on them, and fooled neighbours.

``dcgan walk`` draws a walk and measures such walks, ``dcgan walk-returns`` asks why objects come
back on one, and ``dcgan fooled`` how far a nearest neighbour can be trusted. `train_memoriser` is
the control: it learns by heart.

Axes: k images, n samples, s segments, t pictures of a segment, o objects, d latent; ``_u8`` pixels
0..255.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import Tensor
from torch.nn import functional as F
from tyro.conf import Positional

from dcgan_lib.command import Command, local
from dcgan_lib.config import ModelConfig
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import UserError, check_number, require
from dcgan_lib.evaluation.features import (
    BORROWED_FEATURES,
    PROBE_EXTRACTORS,
    PROBE_FEATURES_OF,
    FeatureExtractor,
    get_features,
)
from dcgan_lib.evaluation.ledger import Result, load_details, record, rounded, save_details
from dcgan_lib.evaluation.neighbours import nearest
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.evaluation.statistics import (
    Estimate,
    auc_of_one,
    bootstrap_interval,
    wilson_interval,
)
from dcgan_lib.interpretation.arithmetic import Pool, draw_pool
from dcgan_lib.interpretation.directions import MIN_CASES
from dcgan_lib.interpretation.film import write_film
from dcgan_lib.interpretation.walk import (
    Curve,
    State,
    all_states,
    count_changes,
    cross_fade,
    draw_paths,
    far_from_real,
    measure_steps,
    object_probabilities,
    refinement,
    walk_latents,
)
from dcgan_lib.models.networks import AnyGenerator, new_generator
from dcgan_lib.models.sampling import (
    from_u8,
    generate_u8,
    picture_grid,
    refresh_batch_norm,
    sample_latents,
    seeded,
    write_png,
)
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import load_config, load_generator

STEPS = 12
"""Steps from anchor to anchor, as in the paper's Fig. 4: 100 pictures through 9 anchors."""
FRAME_RATE = 12.5
"""Pictures a second of a walk that moves."""


def load_walker(checkpoint: str) -> AnyGenerator:
    """Load a generator, and refuse one that draws classes on demand."""
    generator = load_generator(checkpoint)
    if generator.config.num_classes:
        raise UserError(
            f"{checkpoint} draws classes on demand: a walk needs a generator without classes"
        )
    return generator


def find_judges(checkpoint: str) -> tuple[str, FeatureExtractor, Probe]:
    """Return a checkpoint's image set, and the features and the probe that measure its walks."""
    image_set = load_config(checkpoint)[1]["image_set"]
    if image_set not in PROBE_FEATURES_OF:
        raise UserError(
            f"no probe was made for the set {image_set!r}, so its walks cannot be measured"
        )
    features = get_features(PROBE_FEATURES_OF[image_set])
    return image_set, features, load_probe(PROBE_EXTRACTORS[features.name])


# ---------------------------------------------------------------- smooth, plausible, meaningful


@dataclass(frozen=True, kw_only=True)
class Walk(Command, verb="walk"):
    """Walk through latent space, as in the paper's Fig. 4, and measure such walks."""

    checkpoint: Positional[str]
    """A committed checkpoint (rooms, portraits, faces, mnist) or a run's folder."""
    anchors: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    """Seeds of the latent vectors that are met, at least two."""
    frames: int = 100
    """Pictures, at equal distances along the walk."""
    curve: Curve = "linear"
    """Straight lines between the anchors, or arcs."""
    out: Path = local(Path("walk.gif"))
    """.gif or .webp: a moving picture; .png: all pictures in rows. What it was made of goes into a
    .json beside it."""
    columns: int = 10
    """Pictures in a row of a .png."""
    scale: int = 2
    """Screen pixels to a pixel."""
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
        out = self.out if self.out.suffix else self.out.with_suffix(".gif")
        allowed = "one that ends in .gif, .webp or .png"
        require(out.suffix.lower() in (".gif", ".webp", ".png"), "--out", str(out), allowed)
        require(len(self.anchors) >= 2, "the number of anchors", len(self.anchors), "at least 2")
        check_number(self, "frames", 2, 10_000)
        check_number(self, "scale", 1, 16)
        check_number(self, "segments", 2)
        generator, measures = load_walker(self.checkpoint), self.measure or self.record
        judges = find_judges(self.checkpoint) if measures else None
        z_kd = torch.cat([sample_latents(1, generator.config, seeded(k)) for k in self.anchors])
        pictures_u8 = generate_u8(generator, walk_latents(z_kd, self.frames, self.curve))
        self._write(out, pictures_u8)
        print(f"{self.frames:,} pictures through {len(self.anchors)} anchors: {out}")
        about = {name: getattr(self, name) for name in ("checkpoint", "frames", "curve", "anchors")}
        about["size"] = pictures_u8.shape[1:]
        if judges:
            about["measured"] = self._measure(generator, *judges)
        atomic_write(out.with_suffix(".json"), json.dumps(about, indent=1) + "\n")

    def _write(self, out: Path, pictures_u8: np.ndarray) -> None:
        """Write a sheet, or an endless film that goes there and back, so that it shows no jump."""

        def grid_of(pictures_u8: np.ndarray) -> np.ndarray:
            grid = picture_grid(pictures_u8, self.columns)
            return grid.repeat(self.scale, 0).repeat(self.scale, 1)

        if out.suffix.lower() == ".png":
            write_png(out, grid_of(pictures_u8))
        else:
            frames = [grid_of(picture_u8[None]) for picture_u8 in pictures_u8]
            write_film(out, frames + frames[-2:0:-1], frame_rate=FRAME_RATE)

    def _measure(
        self, generator: AnyGenerator, image_set: str, features: FeatureExtractor, probe: Probe
    ) -> dict[str, Any]:
        begun = time.perf_counter()
        held_out = load_image_set(image_set, HELD_OUT, image_size=generator.config.image_size)
        real_u8 = held_out.images_u8[:2_000]
        how = {"segments": self.segments, "curve": self.curve, "seed": self.seed}
        found = measure_walks(generator, features, probe, real_u8, **how)
        shown = rounded(found, 4)
        for name, value in shown.items():
            print(f"  {name:24} {value}")
        if self.record:
            record_walks(
                found,
                image_set,
                data=f"{image_set}, {len(real_u8):,} images of its {held_out.card['split']} split",
                checkpoint=self.checkpoint,
                command=self.command_line(),
                seconds=time.perf_counter() - begun,
            )
        return shown


def measure_walks(
    generator: AnyGenerator,
    features: FeatureExtractor,
    probe: Probe,
    real_u8: np.ndarray,
    *,
    segments: int = 200,
    curve: Curve = "linear",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure segments of 12 steps between latent vectors of their own, and their cross-fades.

    ``real_u8`` are held-out pictures. Estimates come as value, low, high, counts by object: see
    `Steps`, `refinement`, `far_from_real` and, for all that is not named here, `Changes`; "mixed"
    is the cross-fade.
    """
    fine = draw_paths(generator, segments, 2 * STEPS, curve=curve, seed=seed)
    paths = np.ascontiguousarray(fine[:, ::2])
    mixed = cross_fade(paths)
    steps = measure_steps(paths, features)
    seen, seen_mixed = (count_changes(each, probe) for each in (paths, mixed))
    return {
        "largest_step": steps.largest,
        "largest_step_pixels": measure_steps(paths).largest,
        "largest_over_median": steps.unevenness,
        "length": steps.length,
        "refined": refinement(steps, measure_steps(fine, features)),
        "middles_from_real": far_from_real(paths, real_u8, features)[0],
        "mixed_middles_from_real": far_from_real(mixed, real_u8, features)[0],
        **vars(seen),
        "lasting_mixed": seen_mixed.lasting,
        "sure_mixed_middles": seen_mixed.sure_middles,
        "curve": curve,
        "seed": seed,
        "features": features.name,
    }


def smooth_checks(found: dict[str, Any]) -> dict[str, bool]:
    """Judge ``walk.smooth``: small steps that get smaller, and middles as plausible as samples."""
    largest = max(found["largest_step"].high, found["largest_step_pixels"].high)
    middles, mixed = found["middles_from_real"], found["mixed_middles_from_real"]
    return {
        (
            "the largest of 12 steps is under half the distance of unrelated samples, in "
            "features and in pixels"
        ): largest < 0.5,
        "twice as many steps shrink the largest one by more than 1.5 (smooth: 2; a jump: 1)": (
            found["refined"].low > 1.5
        ),
        "middles lie at most 5 % farther from real pictures than samples do": middles.high < 1.05,
        "control: middles of mixed pixels lie farther from real pictures than those of the walk": (
            mixed.low > middles.high
        ),
    }


def semantic_checks(found: dict[str, Any]) -> dict[str, bool]:
    """Judge ``walk.semantic``: objects come and go, and the middle is as clear as a sample."""
    counts = [*found["appeared"].values(), *found["disappeared"].values()]
    middles, mixed = found["sure_middles"], found["sure_mixed_middles"]
    return {
        "each object appears and disappears at least 10 times": min(counts) >= 10,
        "changes are single and lasting in at least 95 % of segments": (
            found["lasting"].value >= 0.95
        ),
        "the probe is as sure of middles as of samples, within 5 points": (
            middles.value > found["sure_ends"].value - 0.05
        ),
        "control: it is less sure of the middles of mixed pixels": mixed.high < middles.low,
    }


def record_walks(found: dict[str, Any], image_set: str, **about: Any) -> list[Result]:
    """Enter ``walk.smooth:SET``, and where a probe was made for the set ``walk.semantic:SET``."""
    about |= {"unit": "", "n": found["n"], "seed": found["seed"]}
    value = {name: x.value for name, x in found.items() if isinstance(x, Estimate)}
    notes = (
        f"Median over {found['n']} segments of {STEPS} steps, {found['curve']}: the largest "
        f"step in {found['features']}, over the distance of unrelated samples; in pixels "
        f"{value['largest_step_pixels']:.3f}. Largest over median step "
        f"{value['largest_over_median']:.2f}. Distance to real pictures, middle over end: "
        f"{value['middles_from_real']:.3f}; mixed pixels {value['mixed_middles_from_real']:.3f}. "
        f"Refinement {value['refined']:.2f}."
    )
    about |= {"notes": notes, "checks": smooth_checks(found)}
    rows = [record(f"walk.smooth:{image_set}", found["largest_step"], **about)]
    if image_set in BORROWED_FEATURES:
        return rows
    gone, (_, low, high) = found["disappeared"], found["lasting"]
    counts = ", ".join(f"{name} +{up} -{gone[name]}" for name, up in found["appeared"].items())
    again = ", ".join(f"{name} {count}" for name, count in found["returned"].items())
    notes = (
        "Objects that change per segment, by a probe that is over 90 % sure before and after: "
        f"{counts}. No object changes twice in {value['lasting']:.1%} [{low:.1%}, {high:.1%}] of "
        f"segments; when pixels are mixed {value['lasting_mixed']:.1%}. Segments in which it does: "
        f"{again}. Sure of {value['sure_middles']:.1%} of objects in middles, "
        f"{value['sure_ends']:.1%} in ends, {value['sure_mixed_middles']:.1%} in mixed pixels."
    )
    about |= {"notes": notes, "checks": semantic_checks(found)}
    return [*rows, record(f"walk.semantic:{image_set}", found["per_segment"], **about)]


# ---------------------------------------------------------------- why objects return

SURER = 0.99
SECOND_PROBES = {"rooms": "probe-room-boxes"}
"""For each image set that has one, another probe that reads the same objects."""


@dataclass(frozen=True, kw_only=True)
class WalkReturns(Command, verb="walk-returns"):
    """Measure how often objects return along a walk, and what each explanation predicts."""

    checkpoint: Positional[str]
    """A committed checkpoint, such as rooms or portraits, or a run's folder."""
    segments: int = 400
    """Walks, each between two latent vectors of its own."""
    samples: int = 10_000
    """Samples that classifiers of z are fitted on; the last 3 of 10 are held out."""
    seed: int = 5
    """Of the walks' ends; the samples follow."""
    record: bool = False
    """Keep the numbers for the chapter."""

    def run(self) -> None:
        """Measure, print, and keep if asked."""
        generator = load_walker(self.checkpoint)
        image_set, _, probe = find_judges(self.checkpoint)
        second = SECOND_PROBES.get(image_set)
        how = {"segments": self.segments, "samples": self.samples, "seed": self.seed}
        found = measure_returns(generator, probe, second and load_probe(second), **how)
        shown = {
            "ways": ("lasting", "returns", "returned"),
            "objects": ("plane", "network", "halves"),
        }
        for part, names in shown.items():
            for key, seen in found[part].items():
                print(f"{key:12}", *(f"{name} {seen[name]} " for name in names))
        if self.record:
            about = {"set": image_set, "checkpoint": self.checkpoint}
            place = f"curves/returns.{image_set}"
            save_details(place, about | found | {"command": self.command_line()})
            print(f"kept as {place}")


def load_returns(set_name: str) -> dict[str, Any]:
    """Return what ``dcgan walk-returns --record`` kept; see `measure_returns`."""
    command = WalkReturns(checkpoint=set_name, record=True).command_line()
    return load_details(f"curves/returns.{set_name}", command)


def measure_returns(
    generator: AnyGenerator,
    probe: Probe,
    second: Probe | None = None,
    *,
    segments: int = 400,
    samples: int = 10_000,
    seed: int = 5,
) -> dict[str, Any]:
    """Measure how often objects return along walks, and what each explanation says.

    ``second`` reads the same objects as ``probe``. Estimates come as value, low, high. ``ways``:
    what `count_returns` says of 12 steps on a line, of half steps, of arcs, of a surer probe and of
    two probes. ``objects``: for each, in the order of the counts, how well a plane of latent space
    and a small network separate it (held-out AUC), the plane in ``halves`` (see `auc_in_halves`),
    and how ``sure`` the probe is (see `sureness`).
    """
    if segments < 30 or samples < 1_000:
        raise UserError(
            f"at least 30 segments and 1,000 samples are needed, but got {segments} and {samples}"
        )
    fine = draw_paths(generator, segments, 2 * STEPS, seed=seed)
    arcs = draw_paths(generator, segments, STEPS, curve="spherical", seed=seed)
    names, fine_sto = object_probabilities(probe, fine)
    line_sto = fine_sto[:, ::2]
    states_so = all_states(line_sto)
    ways = {
        "line": states_so,
        "half steps": all_states(fine_sto),
        "surer": all_states(line_sto, SURER),
        "arcs": all_states(object_probabilities(probe, arcs)[1]),
    }
    found: dict[str, Any] = {"segments": segments, "seed": seed}
    if second:
        others, other_sto = object_probabilities(second, np.ascontiguousarray(fine[:, ::2]))
        other_sto = other_sto[:, :, [others.index(name) for name in names]]
        ways["two probes"] = all_states(both_sure(line_sto, other_sto))
        found["agreement"] = agreement(states_so, other_sto)
    found["ways"] = {way: count_returns(seen) for way, seen in ways.items()}
    pool = draw_pool(generator, probe, samples, seed + 1)
    fitted_n = np.arange(samples) < 0.7 * samples
    found["objects"] = {}
    for o, name in enumerate(names):
        labelled = pool.z_nd, pool.read[name] > 0.5, fitted_n
        found["objects"][name] = {
            "plane": held_out_auc(PLANE, *labelled),
            "network": held_out_auc(NETWORK, *labelled),
            "halves": auc_in_halves(pool, fitted_n, name, probe),
            "sure": sureness(states_so[:, o]),
        }
    return rounded(found | {"samples": samples}, 4)


def count_returns(states_so: np.ndarray) -> dict[str, Any]:
    """Count returns along segments, from `all_states`; intervals are over segments.

    ``lasting``: share of segments without a return. ``returns``: how many of the objects that
    change return. ``returned``, ``changed``: for each object, in how many segments. ``excursion``:
    mean number of pictures from the first to the last sure one of a state that has others before
    and after it; None without any.
    """
    num_so = np.vectorize(len)(states_so)
    lengths = [s.last - s.first + 1 for states in states_so.flat for s in states[1:-1]]
    returned_so, changed_so = num_so > 2, num_so > 1
    return {
        "lasting": wilson_interval(int((~returned_so).all(1).sum()), len(num_so)),
        "returns": bootstrap_interval(
            lambda again_s, changed_s: again_s.sum() / max(changed_s.sum(), 1),
            returned_so.sum(1),
            changed_so.sum(1),
        ),
        "returned": returned_so.sum(0).tolist(),
        "changed": changed_so.sum(0).tolist(),
        "excursion": round(float(np.mean(lengths)), 3) if lengths else None,
    }


def both_sure(one_sto: np.ndarray, other_sto: np.ndarray) -> np.ndarray:
    """Join two probes: what the less sure one says where they agree, and 0.5 where they do not."""
    agreed = np.where(one_sto > 0.5, np.minimum(one_sto, other_sto), np.maximum(one_sto, other_sto))
    return np.where((one_sto > 0.5) == (other_sto > 0.5), agreed, 0.5)


def agreement(states_so: np.ndarray, other_sto: np.ndarray) -> dict[str, Estimate]:
    """Return how often another probe agrees, for returns and for single changes.

    It is asked at the surest picture of every state.
    """
    seen: dict[str, list[bool]] = {"returns": [], "single": []}
    for (s, o), states in np.ndenumerate(states_so):
        if len(states) > 1:
            agreed = all((other_sto[s, x.surest, o] > 0.5) == x.present for x in states[:3])
            seen["returns" if len(states) > 2 else "single"].append(agreed)
    return {name: wilson_interval(sum(hits), len(hits)) for name, hits in seen.items() if hits}


def sureness(states_s: Sequence[list[State]]) -> dict[str, Estimate]:
    """Return one object's median log-odds, from its states along each segment.

    "excursions": at their height. "single changes": of the less sure side.
    """
    odds_s = [[abs(logit(x.probability)) for x in states] for states in states_s]
    away = [x for odds in odds_s for x in odds[1:-1]]
    single = [min(odds) for odds in odds_s if len(odds) == 2]
    return {
        name: bootstrap_interval(np.median, np.clip(found, None, 20))
        for name, found in (("excursions", away), ("single changes", single))
        if len(found) > 4
    }


PLANE = LogisticRegression(C=0.1, max_iter=500)
NETWORK = MLPClassifier((256,), alpha=1.0, early_stopping=True, random_state=0)
"""With one hidden layer, so that its border may be curved."""


def held_out_auc(
    model: LogisticRegression | MLPClassifier,
    z_nd: np.ndarray,
    present_n: np.ndarray,
    fitted_n: np.ndarray,
    num_resamples: int = 300,
) -> Estimate:
    """Return how well a classifier of z separates held-out samples with an object from others."""
    scores_n = model.fit(z_nd[fitted_n], present_n[fitted_n]).predict_proba(z_nd[~fitted_n])[:, 1]
    return bootstrap_interval(
        auc_of_one, scores_n, present_n[~fitted_n], num_resamples=num_resamples
    )


def auc_in_halves(pool: Pool, fitted_n: np.ndarray, name: str, probe: Probe) -> dict[str, float]:
    """Return the AUC of two planes, one for each half of the samples by another attribute.

    "chance" is a half at random.
    """
    present_n, upper, found = pool.read[name] > 0.5, {}, {}
    for head in probe.config.heads:
        if head.kind != "class" and head.name != name:
            values_n = pool.read[head.name]
            upper[head.name] = values_n > (0.5 if head.kind == "boolean" else np.median(values_n))
    upper["chance"] = np.random.default_rng(0).random(len(present_n)) > 0.5
    for other, upper_n in upper.items():
        # A code for each half, with and without the object, fitted and held out.
        if np.bincount(4 * upper_n + 2 * present_n + fitted_n, minlength=8).min() < MIN_CASES:
            continue
        aucs, weights = [], []
        for half in (upper_n, ~upper_n):
            rows = pool.z_nd[half], present_n[half], fitted_n[half]
            aucs.append(held_out_auc(PLANE, *rows, num_resamples=1).value)
            weights.append((half & ~fitted_n).sum())
        found[other] = float(np.average(aucs, weights=weights))
    return found


def check_explanations(found: dict[str, Any]) -> dict[str, bool]:
    """Judge the explanations by what `measure_returns` found."""
    line, half, arcs, surer = (
        found["ways"][way] for way in ("line", "half steps", "arcs", "surer")
    )
    checks = {
        (
            "half steps find at most a tenth more returns, and what left stays away for twice as "
            "many pictures"
        ): (
            sum(half["returned"]) <= 1.1 * sum(line["returned"])
            and abs(half["excursion"] / line["excursion"] - 2) < 0.3
        ),
        "on arcs returns are not rarer": arcs["returns"][0] > line["returns"][1],
        "where 99 % of sureness is asked for, fewer changes return": (
            surer["returns"][2] < line["returns"][1]
        ),
        "and still too many: under 95 % of segments are without a return": (
            surer["lasting"][2] < 0.95
        ),
    }
    if "two probes" in found["ways"]:
        both, agreed = found["ways"]["two probes"], found["agreement"]
        checks |= {
            "a second probe sees returns less often than single changes": (
                agreed["returns"][2] < agreed["single"][1]
            ),
            "where both must be sure, fewer changes return": (
                both["returns"][2] < line["returns"][1]
            ),
            "and still too many for 95 % of segments": both["lasting"][2] < 0.95,
        }
    return checks


# ---------------------------------------------------------------- learnt by heart


def draw_owners(num: int, model: ModelConfig, rng: torch.Generator) -> Tensor:
    """Draw a direction of latent space for each stored image, of length 1, shape (num, z_dim).

    They are orthogonal where there are as many dimensions, so that no two images are neighbours.
    `train_memoriser` draws its own first, from its seed.
    """
    owners_kd = F.normalize(sample_latents(num, model, rng))
    return torch.linalg.qr(owners_kd.T).Q.T if num <= model.z_dim else owners_kd


def train_memoriser(
    images_u8: np.ndarray,
    model: ModelConfig,
    *,
    steps: int = 400,
    batch_size: int = 64,
    seed: int = 0,
) -> AnyGenerator:
    """Train a generator to repeat a few images, 2 to 256: each owns a part of latent space.

    The network is that of a GAN's generator, without classes; Adam's learning rate falls from 0.002
    to 0. Our choice: there is no discriminator. A latent vector belongs to the image whose random
    direction it is closest to, and the loss is the mean absolute difference from that image. A GAN
    on as few images mostly fails in another way: its discriminator wins before anything is learnt
    by heart.
    """
    wanted = (model.num_channels, *model.image_size)
    if not 2 <= len(images_u8) <= 256 or images_u8.shape[1:] != wanted:
        raise UserError(f"a memoriser takes 2 to 256 images of {wanted}, but got {images_u8.shape}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = new_generator(model).train()
    rng, targets = seeded(seed), from_u8(torch.from_numpy(np.array(images_u8)), model)
    owners_kd = draw_owners(len(images_u8), model, rng)
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        z_bd = sample_latents(batch_size, model, rng)
        loss = F.l1_loss(generator(z_bd), targets[(z_bd @ owners_kd.T).argmax(1)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    refresh_batch_norm(generator, num_batches=20, seed=seed)
    return generator.eval()


# ---------------------------------------------------------------- nearest neighbours, fooled


@dataclass(frozen=True, kw_only=True)
class Fooled(Command, verb="fooled"):
    """Measure how often a small change gives an image another nearest neighbour than itself."""

    image_set: Positional[str]
    """A set that a probe was made for, such as rooms, portraits or faces64."""
    n: int = 1_000
    """Images to change, drawn at random."""
    num_images: int | None = None
    """Compare with so many training images; unset: all."""
    seed: int = 0
    """Of the draw."""
    record: bool = False
    """Enter neighbours.fooled into the claims ledger."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        begun, name = time.perf_counter(), self.image_set
        if name not in PROBE_FEATURES_OF:
            known = ", ".join(PROBE_FEATURES_OF)
            raise UserError(f"no features were made for the set {name!r}: choose from {known}")
        size = 32 if "mnist" in name else None
        images = load_image_set(name, image_size=size, num_images=self.num_images).images_u8
        features = get_features(PROBE_FEATURES_OF[name])
        found = fooled_neighbours(images, features, n=self.n, seed=self.seed)
        print(
            f"{name}: share of {self.n:,} images whose changed copy has another nearest neighbour"
        )
        print(f"among {len(images):,}; in pixels, and in {features.name}; 95 % intervals")
        for change in TRANSFORMS:
            pair = [found[space][change].scaled(100) for space in ("pixels", "features")]
            shares = "   ".join(f"{x.value:5.1f} % [{x.low:.1f}, {x.high:.1f}]" for x in pair)
            print(f"  {change:22} {shares}")
        if self.record:
            record_fooled(
                found,
                name,
                features.name,
                n=self.n,
                data=f"{name}, {len(images):,} training images",
                seed=self.seed,
                command=self.command_line(),
                seconds=time.perf_counter() - begun,
            )


def _shift(images_u8: np.ndarray, pixels: int) -> np.ndarray:
    """Move images to the right and down; pixels that come in from outside repeat the edge."""
    margin = (pixels, 0)
    return np.pad(images_u8, ((0, 0), (0, 0), margin, margin), "edge")[:, :, :-pixels, :-pixels]


def _contrast(images_u8: np.ndarray, factor: float) -> np.ndarray:
    """Move every pixel towards the mean of its image (factor below 1) or away from it."""
    mean = images_u8.mean((1, 2, 3), keepdims=True)
    return ((images_u8 - mean) * factor + mean).round().clip(0, 255).astype(np.uint8)


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shift by 1 pixel": lambda images_u8: _shift(images_u8, 1),
    "shift by 2 pixels": lambda images_u8: _shift(images_u8, 2),
    "brighter by 20 of 255": lambda images_u8: images_u8.clip(0, 235) + np.uint8(20),
    "contrast x 0.8": lambda images_u8: _contrast(images_u8, 0.8),
    "mirrored": lambda images_u8: images_u8[:, :, :, ::-1],
}
"""What a person would call the same picture; the sizes are our choice."""


def fooled_neighbours(
    images_u8: np.ndarray, features: FeatureExtractor, *, n: int = 1_000, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """Return by space and change the share of images whose nearest neighbour becomes another."""
    if not 2 <= n < len(images_u8):
        raise UserError(
            f"n must be at least 2 and less than the {len(images_u8)} images, but it is {n}"
        )
    rows = np.sort(np.random.default_rng(seed).choice(len(images_u8), n, replace=False))
    spaces = {"pixels": np.asarray, "features": features.extract}
    changed = {
        name: np.ascontiguousarray(change(np.asarray(images_u8[rows])))
        for name, change in TRANSFORMS.items()
    }
    found: dict[str, dict[str, Estimate]] = {}
    for space, embed in spaces.items():
        references = embed(images_u8)
        misses = {
            name: (nearest(embed(x), references)[1] != rows).sum() for name, x in changed.items()
        }
        found[space] = {name: wilson_interval(int(count), n) for name, count in misses.items()}
    return found


def record_fooled(
    found: dict[str, dict[str, Estimate]], set_name: str, features: str, **about: Any
) -> Result:
    """Enter the shares into the claims ledger as ``neighbours.fooled:SET``."""
    pixels = found["pixels"]
    checks = {
        "in pixels, a shift by 2 pixels fools the neighbour of more than half of the images": (
            pixels["shift by 2 pixels"].low > 0.5
        ),
        (
            "in pixels, each of the small changes, the mirror among them, fools that of more than "
            "1 image in 20"
        ): all(share.low > 0.05 for share in pixels.values()),
    }
    seen, seen_in_features = (
        "; ".join(f"{name} {100 * share.value:.1f} %" for name, share in found[space].items())
        for space in ("pixels", "features")
    )
    return record(
        f"neighbours.fooled:{set_name}",
        pixels["shift by 2 pixels"].scaled(100),
        unit="%",
        checks=checks,
        notes="The value is for a shift by 2 pixels, in pixels. "
        f"In pixels: {seen}. In {features}: {seen_in_features}.",
        **about,
    )
