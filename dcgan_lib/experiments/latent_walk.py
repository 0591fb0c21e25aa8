"""The command ``dcgan walk``: one walk through latent space as a moving picture or a sheet, and its measures."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch.nn import functional as F
from tyro.conf import Positional

from dcgan_lib.config import ModelConfig
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.features import PROBE_EXTRACTORS, FeatureExtractor, get_features
from dcgan_lib.evaluation.generators import BORROWED_FEATURES, FEATURES_OF, HELD_OUT_SPLIT
from dcgan_lib.evaluation.ledger import Result, load_details, record, save_details
from dcgan_lib.evaluation.neighbours import nearest
from dcgan_lib.evaluation.probes import Probe, load_probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.experiments.forgetting_windows import FINDERS
from dcgan_lib.interpretation.directions import MIN_CASES
from dcgan_lib.interpretation.saliency import auc_of_one
from dcgan_lib.interpretation.walk import (
    Changes,
    Curve,
    Phase,
    Steps,
    all_phases,
    count_changes,
    cross_fade,
    draw_paths,
    far_from_real,
    measure_steps,
    object_chances,
    refinement,
)
from dcgan_lib.models.baselines import AnyGenerator, new_generator
from dcgan_lib.models.sampling import (
    from_u8,
    generate_u8,
    refresh_batch_norm,
    sample_latents,
    seeded,
)
from dcgan_lib.training.checkpoints import load_config, load_generator


def train_memoriser(
    images_u8: np.ndarray,
    model: ModelConfig,
    *,
    steps: int = 400,
    batch_size: int = 64,
    seed: int = 0,
) -> AnyGenerator:
    """Train a generator to repeat a few images: each owns a part of latent space, and is all that is shown there.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, k x c x h x w, of the model's size; 2 to 256 of them.
    model : ModelConfig
        The same network as a GAN's generator; without classes.
    steps, batch_size : int
        Of Adam, with a learning rate of 0.002 that falls to 0.
    seed : int
        Of the weights, the parts and the latent vectors.

    Returns
    -------
    Generator
        In evaluation mode.

    Raises
    ------
    UserError
        If there are too few or too many images, or they are of another size.

    Notes
    -----
    Our choice: there is no discriminator. A latent vector belongs to the image whose random direction it is closest
    to, and the loss is the mean absolute difference from that image. A GAN on as few images mostly fails in another
    way: its discriminator wins before anything is learnt by heart.
    """
    if not 2 <= len(images_u8) <= 256 or images_u8.shape[1:] != (
        model.num_channels,
        *model.image_size,
    ):
        wanted = (model.num_channels, *model.image_size)
        raise UserError(f"a memoriser takes 2 to 256 images of {wanted}, but got {images_u8.shape}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = new_generator(model).train()
    rng, targets = seeded(seed), from_u8(torch.from_numpy(np.array(images_u8)), model)
    owners_kd = F.normalize(sample_latents(len(images_u8), model, rng))
    owners_kd = torch.linalg.qr(owners_kd.T).Q.T if len(owners_kd) <= model.z_dim else owners_kd
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


STEPS = 12
"""Steps from anchor to anchor, as in the paper's Fig. 4: 100 pictures through 9 anchors."""


@dataclass(frozen=True, kw_only=True)
class WalkReport:
    """Hold what was measured of a generator's walks.

    Parameters
    ----------
    checkpoint, image_set, held_out, curve : str
        What was measured, and the pictures it was compared with.
    steps, pixel_steps : Steps
        In the features, and in pixels.
    refined : Estimate
        By what factor twice as many steps make the largest one smaller; see `refinement`.
    middles, faded_middles : Estimate
        Distance of the middles from real pictures over that of the ends; on the walk, and when its ends are mixed.
    changes, faded_changes : Changes
        Objects that come and go; on the walk, and when its ends are mixed.
    n, n_real, seed, seconds : int, int, int, float
        Segments; real pictures; of the anchors; wall time.
    """

    checkpoint: str
    image_set: str
    held_out: str
    curve: Curve
    steps: Steps
    pixel_steps: Steps
    refined: Estimate
    middles: Estimate
    faded_middles: Estimate
    changes: Changes
    faded_changes: Changes
    n: int
    n_real: int
    seed: int
    seconds: float


def check_measurable(checkpoint: str) -> str:
    """Return the features that a checkpoint's walks are measured in, or say why there are none.

    Raises
    ------
    UserError
        If the generator has classes, or no probe was made for its image set.
    """
    config, about = load_config(checkpoint)
    if config.model.num_classes:
        raise UserError(
            f"{checkpoint} draws classes on demand: a walk needs a generator without classes"
        )
    if about["image_set"] not in FEATURES_OF:
        raise UserError(
            f"no probe was made for the set {about['image_set']!r}, so its walks cannot be measured"
        )
    return FEATURES_OF[about["image_set"]]


def measure_walks(
    checkpoint: str,
    *,
    num_segments: int = 200,
    curve: Curve = "linear",
    seed: int = 0,
    num_real: int = 2_000,
) -> WalkReport:
    """Measure a generator's walks on segments between latent vectors of their own.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    num_segments : int
        How many, each of 12 steps.
    curve : {"linear", "spherical"}
        See `dcgan_lib.interpretation.walk.walk_latents`.
    seed : int
        Of the anchors.
    num_real : int
        Held-out pictures to compare with.

    Raises
    ------
    UserError
        See `check_measurable`; and if the pictures are missing.
    """
    features, begun = get_features(check_measurable(checkpoint)), time.perf_counter()
    config, about = load_config(checkpoint)
    split = HELD_OUT_SPLIT.get(about["image_set"], "validation")
    real = load_image_set(about["image_set"], split, image_size=config.model.image_size).images_u8[
        :num_real
    ]
    fine = draw_paths(load_generator(checkpoint), num_segments, 2 * STEPS, curve=curve, seed=seed)
    paths, probe = np.ascontiguousarray(fine[:, ::2]), load_probe(PROBE_EXTRACTORS[features.name])
    faded, steps = cross_fade(paths), measure_steps(paths, features)
    return WalkReport(
        checkpoint=checkpoint,
        image_set=about["image_set"],
        held_out=split,
        curve=curve,
        steps=steps,
        pixel_steps=measure_steps(paths),
        refined=refinement(steps, measure_steps(fine, features)),
        middles=far_from_real(paths, real, features)[0],
        faded_middles=far_from_real(faded, real, features)[0],
        changes=count_changes(paths, probe),
        faded_changes=count_changes(faded, probe),
        n=num_segments,
        n_real=len(real),
        seed=seed,
        seconds=time.perf_counter() - begun,
    )


def smooth_checks(report: WalkReport) -> dict[str, bool]:
    """Judge ``walk.smooth``: small steps that get smaller, and middles as plausible as samples."""
    return {
        "the largest of 12 steps is under half the distance of unrelated samples, in features and in pixels": (
            max(report.steps.largest.high, report.pixel_steps.largest.high) < 0.5
        ),
        "twice as many steps shrink the largest one by more than 1.5 (smooth: 2; a jump: 1)": report.refined.low
        > 1.5,
        "middles lie at most 5 % farther from real pictures than samples do": report.middles.high
        < 1.05,
        "control: middles of mixed pixels lie farther from real pictures than those of the walk": (
            report.faded_middles.low > report.middles.high
        ),
    }


def semantic_checks(report: WalkReport) -> dict[str, bool]:
    """Judge ``walk.semantic``: objects come and go, and the middle is as clear as a sample."""
    seen, faded = report.changes, report.faded_changes
    return {
        "each object appears and disappears at least 10 times": (
            min([*seen.appeared.values(), *seen.disappeared.values()]) >= 10
        ),
        "changes are single and lasting in at least 95 % of segments": seen.lasting.value >= 0.95,
        "the probe is as sure of middles as of samples, within 5 points": (
            seen.sure_middles.value > seen.sure_ends.value - 0.05
        ),
        "control: it is less sure of the middles of mixed pixels": faded.sure_middles.high
        < seen.sure_middles.low,
    }


def record_walks(report: WalkReport, command: str) -> list[Result]:
    """Enter ``walk.smooth:SET`` and, where the probe was made for the set, ``walk.semantic:SET`` into the ledger."""
    shared: dict[str, Any] = {
        "command": command,
        "seconds": report.seconds,
        "seed": report.seed,
        "n": report.n,
    }
    data = f"{report.image_set}, {report.n_real:,} images of its {report.held_out} split"
    shared |= {"checkpoint": report.checkpoint, "data": data, "unit": ""}
    told = (
        f"Median over {report.n} segments of {STEPS} steps, {report.curve}: the largest step in {report.steps.space}, "
        f"over the distance of unrelated samples; in pixels {report.pixel_steps.largest.value:.3f}. "
        f"Largest over median step {report.steps.unevenness.value:.2f}. Distance to real pictures, middle over end: "
        f"{report.middles.value:.3f}; mixed pixels {report.faded_middles.value:.3f}. Refinement "
        f"{report.refined.value:.2f}."
    )
    seen, faded = report.changes, report.faded_changes
    counts = ", ".join(
        f"{name} +{up} -{seen.disappeared[name]}" for name, up in seen.appeared.items()
    )
    again = ", ".join(f"{name} {count}" for name, count in seen.returned.items())
    changed = (
        f"Objects that change per segment, by a probe that is over 90 % sure before and after: {counts}. "
        f"No object changes twice in {seen.lasting.value:.1%} [{seen.lasting.low:.1%}, {seen.lasting.high:.1%}] of "
        f"segments; when pixels are mixed {faded.lasting.value:.1%}. Segments in which it does: {again}. Sure of "
        f"{seen.sure_middles.value:.1%} of objects in middles, {seen.sure_ends.value:.1%} in ends, "
        f"{faded.sure_middles.value:.1%} in mixed pixels."
    )
    rows = [("smooth", report.steps.largest, smooth_checks(report), told)]
    if report.image_set not in BORROWED_FEATURES:
        rows.append(("semantic", seen.per_segment, semantic_checks(report), changed))
    return [
        record(f"walk.{name}:{report.image_set}", value=value, checks=checks, notes=notes, **shared)
        for name, value, checks, notes in rows
    ]


def numbers(report: WalkReport) -> dict[str, Any]:
    """Return what was measured as plain values; each estimate is value, low, high."""
    plain = {
        "largest_step": report.steps.largest,
        "largest_step_pixels": report.pixel_steps.largest,
        "largest_over_median": report.steps.unevenness,
        "length": report.steps.length,
        "refined": report.refined,
        "middles_from_real": report.middles,
        "mixed_middles_from_real": report.faded_middles,
        "changes_per_segment": report.changes.per_segment,
        "lasting": report.changes.lasting,
        "lasting_mixed": report.faded_changes.lasting,
        "sure_ends": report.changes.sure_ends,
        "sure_middles": report.changes.sure_middles,
        "sure_mixed_middles": report.faded_changes.sure_middles,
    }
    shown: dict[str, Any] = {
        name: [round(x, 4) for x in estimate] for name, estimate in plain.items()
    }
    counts = {"appeared": report.changes.appeared, "disappeared": report.changes.disappeared}
    return (
        shown | counts | {"segments": report.n, "seed": report.seed, "features": report.steps.space}
    )


SURER = 0.99


class Samples(NamedTuple):
    """Hold samples and what a probe reads off them, in two parts: to fit on, and held out."""

    z_nd: np.ndarray
    read: dict[str, np.ndarray]
    fitted_n: np.ndarray


def count_returns(phases: list[list[list[Phase]]]) -> dict[str, Any]:
    """Count returns along segments; intervals are over segments.

    Parameters
    ----------
    phases : list
        Of each segment and object, see `dcgan_lib.interpretation.walk.all_phases`.

    Returns
    -------
    dict
        ``lasting``: share of segments without a return. ``returns``: how many of the objects that change return.
        ``returned``, ``changed``: for each object, in how many segments. ``excursion``: mean number of pictures from
        the first to the last sure one of a phase that has others before and after it; None without any.
    """
    num_so = np.array([[len(found) for found in segment] for segment in phases])
    lengths = [p.last - p.first + 1 for segment in phases for found in segment for p in found[1:-1]]
    return {
        "lasting": _plain(wilson_interval(int((num_so < 3).all(1).sum()), len(num_so))),
        "returns": _plain(bootstrap_interval(_share, (num_so > 2).sum(1), (num_so > 1).sum(1))),
        "returned": (num_so > 2).sum(0).tolist(),
        "changed": (num_so > 1).sum(0).tolist(),
        "excursion": round(float(np.mean(lengths)), 3) if lengths else None,
    }


def both_sure(one_sto: np.ndarray, other_sto: np.ndarray) -> np.ndarray:
    """Join two probes: what the less sure one says where they agree, and 0.5 where they do not."""
    agreed = np.where(one_sto > 0.5, np.minimum(one_sto, other_sto), np.maximum(one_sto, other_sto))
    return np.where((one_sto > 0.5) == (other_sto > 0.5), agreed, 0.5)


def agreement(phases: list[list[list[Phase]]], other_sto: np.ndarray) -> dict[str, list[float]]:
    """Return how often another probe agrees, at the surest picture of every phase: for returns, and single changes."""
    seen: dict[str, list[bool]] = {"returns": [], "single": []}
    for segment, other_to in zip(phases, other_sto, strict=True):
        for found, other_t in zip(segment, other_to.T, strict=True):
            if len(found) > 1:
                agreed = all((other_t[p.surest] > 0.5) == p.present for p in found[:3])
                seen["returns" if len(found) > 2 else "single"].append(agreed)
    return {
        name: _plain(wilson_interval(sum(hits), len(hits))) for name, hits in seen.items() if hits
    }


def sureness(phases: list[list[Phase]]) -> dict[str, list[float]]:
    """Return one object's median log-odds: at the height of excursions, and of the less sure side of single changes."""
    away = [abs(logit(p.chance)) for found in phases for p in found[1:-1]]
    single = [min(abs(logit(p.chance)) for p in found) for found in phases if len(found) == 2]
    told = {"excursions": np.array(away), "single changes": np.array(single)}
    return {
        name: _plain(bootstrap_interval(np.median, x.clip(max=20)))
        for name, x in told.items()
        if len(x) > 4
    }


def told_by_plane(samples: Samples, present_n: np.ndarray, resamples: int = 300) -> Estimate:
    """Return how well one plane of latent space tells held-out samples with an object from those without, as AUC."""
    return _tell(samples, present_n, LogisticRegression(C=0.1, max_iter=500), resamples)


def told_by_network(samples: Samples, present_n: np.ndarray, resamples: int = 300) -> Estimate:
    """Return the same for a network with one hidden layer, whose border may be curved."""
    network = MLPClassifier((256,), alpha=1.0, early_stopping=True, random_state=0)
    return _tell(samples, present_n, network, resamples)


def told_in_halves(samples: Samples, name: str, probe: Probe) -> dict[str, float]:
    """Return the AUC of two planes, one for each half of the samples by another attribute, or by chance."""
    present_n, rng = samples.read[name] > 0.5, np.random.default_rng(0)
    parts, found = (samples.fitted_n, ~samples.fitted_n), {}
    said = [
        (head.name, samples.read[head.name]) for head in probe.config.heads if head.kind != "class"
    ]
    for other, values_n in [*said, ("chance", rng.random(len(present_n)))]:
        cut = (
            0.5 if other == "chance" or probe.head(other).kind == "boolean" else np.median(values_n)
        )
        halves = [values_n > cut, values_n <= cut]
        cases = [
            (present_n == has) & half & part for has in (0, 1) for half in halves for part in parts
        ]
        if other == name or min(case.sum() for case in cases) < MIN_CASES:
            continue
        planes = [
            told_by_plane(
                Samples(samples.z_nd[half], {}, samples.fitted_n[half]), present_n[half], 1
            ).value
            for half in halves
        ]
        weights = [(half & ~samples.fitted_n).sum() for half in halves]
        found[other] = round(float(np.average(planes, weights=weights)), 4)
    return found


def measure_returns(
    checkpoint: str, *, segments: int = 400, samples: int = 10_000, seed: int = 5
) -> dict[str, Any]:
    """Measure how often objects return along walks, and what each rival explanation says.

    Parameters
    ----------
    checkpoint : str
        A committed checkpoint's name or a run's folder.
    segments : int
        Walks, each between two latent vectors of its own.
    samples : int
        To fit planes on; the last 3 of 10 are held out.
    seed : int
        Of the walks' ends; the samples follow.

    Returns
    -------
    dict
        Plain values, each estimate as value, low, high; ``objects`` in the order of ``ways``' counts. ``ways`` are
        those of `count_returns`: 12 steps on a line, half steps, arcs, a surer probe, and, for rooms, two probes.

    Raises
    ------
    UserError
        See `dcgan_lib.experiments.latent_walk.check_measurable`.
    """
    if segments < 30 or samples < 1_000:
        raise UserError(
            f"at least 30 segments and 1,000 samples are needed, but got {segments} and {samples}"
        )
    probe = load_probe(PROBE_EXTRACTORS[check_measurable(checkpoint)])
    image_set, generator = load_config(checkpoint)[1]["image_set"], load_generator(checkpoint)
    fine = draw_paths(generator, segments, 2 * STEPS, seed=seed)
    names, fine_sto = object_chances(probe, fine)
    chance_sto, arcs = (
        fine_sto[:, ::2],
        draw_paths(generator, segments, STEPS, curve="spherical", seed=seed),
    )
    phases = all_phases(chance_sto)
    ways = {
        "line": phases,
        "half steps": all_phases(fine_sto),
        "surer": all_phases(chance_sto, SURER),
    }
    ways["arcs"] = all_phases(object_chances(probe, arcs)[1])
    kept: dict[str, Any] = {
        "set": image_set,
        "checkpoint": checkpoint,
        "segments": segments,
        "seed": seed,
    }
    if image_set in FINDERS:
        second = load_probe(FINDERS[image_set][1])
        seconds, other_sto = object_chances(second, np.ascontiguousarray(fine[:, ::2]))
        other_sto = other_sto[:, :, [seconds.index(name) for name in names]]
        ways["two probes"] = all_phases(both_sure(chance_sto, other_sto))
        kept["agreement"] = agreement(phases, other_sto)
    kept["ways"] = {way: count_returns(found) for way, found in ways.items()}
    drawn = _draw(generator, probe, samples, seed + 1)
    kept["objects"] = {}
    for o, name in enumerate(names):
        told = {"plane": told_by_plane(drawn, drawn.read[name] > 0.5)}
        told["network"] = told_by_network(drawn, drawn.read[name] > 0.5)
        kept["objects"][name] = {how: _plain(auc) for how, auc in told.items()} | {
            "halves": told_in_halves(drawn, name, probe),
            "sure": sureness([segment[o] for segment in phases]),
        }
    return kept | {"samples": samples}


def load_returns(set_name: str, root: Path | None = None) -> dict[str, Any]:
    """Return what ``--record`` kept; see `measure_returns`.

    Raises
    ------
    UserError
        If it was not measured.
    """
    return load_details(f"curves/returns.{set_name}", _command("CHECKPOINT"), root)


def rivals(found: dict[str, Any]) -> dict[str, bool]:
    """Judge what `measure_returns` found: explanations that do not hold, and what is left where one holds in part."""
    line, half, arcs, surer = (
        found["ways"][way] for way in ("line", "half steps", "arcs", "surer")
    )
    told = {
        "half steps find at most a tenth more returns, and what left stays away for twice as many pictures": (
            sum(half["returned"]) <= 1.1 * sum(line["returned"])
            and abs(half["excursion"] / line["excursion"] - 2) < 0.3
        ),
        "on arcs returns are not rarer": arcs["returns"][0] > line["returns"][1],
        "where 99 % of sureness is asked for, fewer changes return": surer["returns"][2]
        < line["returns"][1],
        "and still too many: under 95 % of segments are without a return": surer["lasting"][2]
        < 0.95,
    }
    if "two probes" in found["ways"]:
        both, agreed = found["ways"]["two probes"], found["agreement"]
        told |= {
            "a second probe sees returns less often than single changes": agreed["returns"][2]
            < agreed["single"][1],
            "where both must be sure, fewer changes return": both["returns"][2]
            < line["returns"][1],
            "and still too many for 95 % of segments": both["lasting"][2] < 0.95,
        }
    return told


def returns_by_object(*found: dict[str, Any]) -> dict[str, tuple[float, Estimate]]:
    """Return, for each object, how well a plane tells it (AUC) and which share of its changes return; the worst first.

    Parameters
    ----------
    *found : dict
        Of `measure_returns`, a set each.
    """
    rows = {}
    for part in found:
        counts = zip(part["ways"]["line"]["returned"], part["ways"]["line"]["changed"], strict=True)
        for (name, told), (returned, changed) in zip(part["objects"].items(), counts, strict=True):
            rows[name] = (told["plane"][0], wilson_interval(returned, changed))
    return dict(sorted(rows.items(), key=lambda row: row[1][0]))


def turned_by(found: dict[str, Any], gain: float = 0.1) -> dict[str, str]:
    """Return the objects that planes tell better in halves by another attribute than by chance, and that attribute."""
    turned = {}
    for name, told in found["objects"].items():
        best = max(told["halves"], key=told["halves"].get)
        if told["halves"][best] > told["halves"]["chance"] + gain:
            turned[name] = best
    return turned


def _draw(generator: AnyGenerator, probe: Probe, num: int, seed: int) -> Samples:
    z_nd, read = sample_latents(num, generator.config, seeded(seed)), []
    for part in z_nd.split(1_000):  # so that the pictures need not be held together
        read.append(probe.predict(generate_u8(generator, part)))
    joined = {name: np.concatenate([some[name] for some in read]) for name in read[0]}
    return Samples(z_nd.numpy(), joined, np.arange(num) < 0.7 * num)


def _tell(samples: Samples, present_n: np.ndarray, model: Any, resamples: int) -> Estimate:
    fit, kept = samples.fitted_n, ~samples.fitted_n
    chance_n = model.fit(samples.z_nd[fit], present_n[fit]).predict_proba(samples.z_nd[kept])[:, 1]
    return bootstrap_interval(auc_of_one, chance_n, present_n[kept], num_resamples=resamples)


def _share(again_s: np.ndarray, changed_s: np.ndarray) -> float:
    return float(again_s.sum() / max(changed_s.sum(), 1))


def _plain(estimate: Estimate) -> list[float]:
    return [round(float(x), 4) for x in estimate]


def _command(checkpoint: str, segments: int = 400, samples: int = 10_000, seed: int = 5) -> str:
    options = f"--segments {segments} --samples {samples} --seed {seed} --record"
    return f"python -m dcgan_lib.experiments.latent_walk {checkpoint} {options}"


@answers_mistakes("walk_returns")
def main_returns(arguments: Sequence[str] | None = None) -> int:
    """Measure why objects return along a checkpoint's walks, print it, and keep it for the chapter if asked."""
    parser = argparse.ArgumentParser(
        prog="dcgan_lib.experiments.latent_walk", description=main_returns.__doc__
    )
    parser.add_argument(
        "checkpoint", help="a committed checkpoint, such as rooms or portraits, or a run's folder"
    )
    parser.add_argument("--segments", type=int, default=400)
    parser.add_argument(
        "--samples", type=int, default=10_000, help="samples that planes are fitted on and tried on"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--record", action="store_true", help="keep the numbers in data/results/curves"
    )
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    how = {"segments": chosen.segments, "samples": chosen.samples, "seed": chosen.seed}
    found = measure_returns(chosen.checkpoint, **how)
    for way, counted in found["ways"].items():
        print(
            f"{way:12} lasting {counted['lasting']}  returns {counted['returns']}  {counted['returned']}"
        )
    for name, told in found["objects"].items():
        print(
            f"{name:12} plane {told['plane']}  network {told['network']}  in halves {told['halves']}"
        )
    if chosen.record:
        save_details(
            f"curves/returns.{found['set']}",
            found | {"command": _command(chosen.checkpoint, **how)},
        )
        print(f"kept as curves/returns.{found['set']}")
    return 0


if __name__ == "__main__":
    sys.exit(main_returns())


def shift(images_u8: np.ndarray, pixels: int) -> np.ndarray:
    """Move images to the right and down; pixels that come in from outside repeat the edge."""
    rows, columns = ((np.arange(side) - pixels).clip(0, side - 1) for side in images_u8.shape[2:])
    return images_u8[:, :, rows][:, :, :, columns]


def brighten(images_u8: np.ndarray, levels: int) -> np.ndarray:
    """Add grey levels of 0..255 to every pixel, and cut off above 255."""
    return (images_u8.astype(np.int16) + levels).clip(0, 255).astype(np.uint8)


def contrast(images_u8: np.ndarray, factor: float) -> np.ndarray:
    """Move every pixel towards the mean of its image (factor below 1) or away from it."""
    mean = images_u8.mean((1, 2, 3), keepdims=True)
    return ((images_u8 - mean) * factor + mean).round().clip(0, 255).astype(np.uint8)


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shift by 1 pixel": lambda images_u8: shift(images_u8, 1),
    "shift by 2 pixels": lambda images_u8: shift(images_u8, 2),
    "brighter by 20 of 255": lambda images_u8: brighten(images_u8, 20),
    "contrast x 0.8": lambda images_u8: contrast(images_u8, 0.8),
    "mirrored": lambda images_u8: images_u8[:, :, :, ::-1],
}
"""What a person would call the same picture; the sizes are our choice."""


@dataclass(frozen=True, kw_only=True)
class Fooled:
    """Hold how often changed copies have another nearest neighbour than their original.

    Parameters
    ----------
    pixels, features : dict of str to Estimate
        Per transform the share of images, in pixels and in the features.
    n, num_references : int
        Images changed; images compared with, the originals among them.
    features_name : str
        Of the features.
    """

    pixels: dict[str, Estimate]
    features: dict[str, Estimate]
    n: int
    num_references: int
    features_name: str


def fooled_neighbours(
    images_u8: np.ndarray, features: FeatureExtractor, *, n: int = 1_000, seed: int = 0
) -> Fooled:
    """Change images a little and look up their nearest neighbours among all of them.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, images x c x h x w, more than n.
    features : FeatureExtractor
        The second space to look in.
    n : int
        How many images to change, drawn at random.
    seed : int
        Of the draw.

    Raises
    ------
    UserError
        If n is below 2 or there are not more than n images.
    """
    if not 2 <= n < len(images_u8):
        raise UserError(
            f"n must be at least 2 and less than the {len(images_u8)} images, but it is {n}"
        )
    rows = np.sort(np.random.default_rng(seed).choice(len(images_u8), n, replace=False))
    points, originals, found = features.extract(images_u8), np.asarray(images_u8[rows]), ({}, {})
    for name, change in TRANSFORMS.items():
        changed = np.ascontiguousarray(change(originals))
        for shares, queries, references in (
            (found[0], changed, images_u8),
            (found[1], features.extract(changed), points),
        ):
            missed = int((nearest(queries, references)[1] != rows).sum())
            shares[name] = wilson_interval(missed, n)
    return Fooled(
        pixels=found[0],
        features=found[1],
        n=n,
        num_references=len(images_u8),
        features_name=features.name,
    )


def record_fooled(fooled: Fooled, set_name: str, command: str, seed: int, seconds: float) -> Result:
    """Enter the shares into the claims ledger as ``neighbours.fooled:SET``."""
    shift2 = fooled.pixels["shift by 2 pixels"]
    checks = {
        "in pixels, a shift by 2 pixels fools the neighbour of more than half of the images": shift2.low
        > 0.5,
        "in pixels, each of the small changes, the mirror among them, fools that of more than 1 image in 20": all(
            share.low > 0.05 for share in fooled.pixels.values()
        ),
    }
    told = "; ".join(f"{name} {100 * share.value:.1f} %" for name, share in fooled.pixels.items())
    seen = "; ".join(f"{name} {100 * share.value:.1f} %" for name, share in fooled.features.items())
    return record(
        f"neighbours.fooled:{set_name}",
        value=shift2.scaled(100),
        unit="%",
        n=fooled.n,
        checks=checks,
        seed=seed,
        data=f"{set_name}, {fooled.num_references:,} training images",
        command=command,
        seconds=seconds,
        notes=f"The value is for a shift by 2 pixels, in pixels. In pixels: {told}. In {fooled.features_name}: {seen}.",
    )


@answers_mistakes("fooled_neighbours")
def main_fooled(arguments: Sequence[str] | None = None) -> int:
    """Measure how often small changes fool the nearest neighbour, print it, and record it if asked."""
    parser = argparse.ArgumentParser(
        prog="dcgan_lib.experiments.latent_walk", description=main_fooled.__doc__
    )
    parser.add_argument("name", metavar="SET", help=f"one of {', '.join(FEATURES_OF)}")
    parser.add_argument("--n", type=int, default=1_000, help="images to change")
    parser.add_argument(
        "--num-images", type=int, help="compare with so many training images; unset: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--record", action="store_true", help="enter the shares into the claims ledger"
    )
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    begun = time.perf_counter()
    if chosen.name not in FEATURES_OF:
        raise UserError(
            f"no features were made for the set {chosen.name!r}: choose from {', '.join(FEATURES_OF)}"
        )
    size = 32 if "mnist" in chosen.name else None
    images = load_image_set(chosen.name, image_size=size, num_images=chosen.num_images).images_u8
    fooled = fooled_neighbours(
        images, get_features(FEATURES_OF[chosen.name]), n=chosen.n, seed=chosen.seed
    )
    print(
        f"{chosen.name}: share of {fooled.n:,} images whose changed copy has another nearest neighbour among"
    )
    print(f"{fooled.num_references:,}; in pixels, and in {fooled.features_name}; 95 % intervals")
    for name, share in fooled.pixels.items():
        print(f"  {name:22} {_percent(share)}   {_percent(fooled.features[name])}")
    if chosen.record:
        command = f"python -m dcgan_lib.experiments.latent_walk {chosen.name} --n {chosen.n} "
        command += f"--num-images {chosen.num_images} " if chosen.num_images else ""
        command += f"--seed {chosen.seed} --record"
        row = record_fooled(fooled, chosen.name, command, chosen.seed, time.perf_counter() - begun)
        print(f"recorded {row.id}: {row.verdict}")
    return 0


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:5.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


if __name__ == "__main__":
    sys.exit(main_fooled())

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
        report = measure_walks(
            self.checkpoint, num_segments=self.segments, curve=self.curve, seed=self.seed
        )
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
        limits = {
            "frames": (2, MOST_FRAMES),
            "columns": (1, MOST_FRAMES),
            "scale": (1, 16),
            "segments": (2, 100_000),
        }
        for name, (low, high) in (limits | {"milliseconds": (10, 60_000)}).items():
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"{name} must lie between {low} and {high}, but it is {getattr(self, name)}"
                )
        if len(self.anchors) < 2:
            raise UserError(f"a walk needs at least two anchors, but got {len(self.anchors)}")

    def _pictures(self) -> "np.ndarray":
        import torch

        from dcgan_lib.interpretation.walk import walk_latents
        from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
        from dcgan_lib.training.checkpoints import load_generator

        generator = load_generator(self.checkpoint)
        if generator.config.num_classes:
            raise UserError(
                f"{self.checkpoint} draws classes on demand: a walk needs a generator without classes"
            )
        anchors_kd = torch.cat(
            [sample_latents(1, generator.config, seeded(seed)) for seed in self.anchors]
        )
        return generate_u8(generator, walk_latents(anchors_kd, self.frames, self.curve))

    def _write(self, pictures_u8: "np.ndarray", about: dict[str, Any]) -> None:
        from dcgan_lib.paths import atomic_write

        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            (_write_sheet if self.out.suffix.lower() == ".png" else _write_moving)(
                self, pictures_u8
            )
            atomic_write(self.out.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.out} ({error}): choose another --out") from error

    def _command(self) -> str:
        words = [
            "dcgan walk",
            self.checkpoint,
            f"--curve {self.curve}",
            f"--segments {self.segments}",
        ]
        return " ".join([*words, f"--seed {self.seed}", "--record"])


def _write_sheet(walk: Walk, pictures_u8: "np.ndarray") -> None:
    """Write all pictures in rows, left to right and top to bottom."""
    import torch
    from PIL import Image
    from torchvision.utils import make_grid

    gap = 0 if walk.sprites else 2
    grid = (
        make_grid(torch.from_numpy(pictures_u8), walk.columns, padding=gap, pad_value=255)
        .permute(1, 2, 0)
        .numpy()
    )
    Image.fromarray(grid.repeat(walk.scale, 0).repeat(walk.scale, 1)).save(walk.out)


def _write_moving(walk: Walk, pictures_u8: "np.ndarray") -> None:
    """Write an endless GIF or WebP that goes there and back, so that it shows no jump of its own."""
    from PIL import Image

    pixels = pictures_u8.repeat(walk.scale, 2).repeat(walk.scale, 3)
    frames = [Image.fromarray(p[0] if len(p) == 1 else p.transpose(1, 2, 0)) for p in pixels]
    frames += frames[-2:0:-1]
    frames[0].save(
        walk.out, save_all=True, append_images=frames[1:], duration=walk.milliseconds, loop=0
    )
