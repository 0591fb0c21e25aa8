"""Why objects come back along a straight walk, asked rival by rival: ``python -m ...walk_returns NAME``.

Axes: s segments of a walk, t pictures of a segment, o objects, n samples, d latent. A return is an object that changes
more than once in a segment. A straight line crosses a plane at most once, so an object that one plane of latent space
tells cannot return.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.details import load_details, save_details
from dcgan_lib.evaluation.features import PROBE_EXTRACTORS
from dcgan_lib.evaluation.probe_files import load_probe
from dcgan_lib.evaluation.probe_model import Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.interpretation.directions import MIN_CASES
from dcgan_lib.interpretation.forgetting_study import FINDERS
from dcgan_lib.interpretation.phases import Phase, all_phases, object_chances
from dcgan_lib.interpretation.saliency_boxes import auc_of_one
from dcgan_lib.interpretation.walk import draw_paths
from dcgan_lib.interpretation.walk_study import STEPS, check_measurable
from dcgan_lib.models.networks import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.training.checkpoints import load_config, load_generator

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
        Of each segment and object, see `dcgan_lib.interpretation.phases.all_phases`.

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
    return {name: _plain(wilson_interval(sum(hits), len(hits))) for name, hits in seen.items() if hits}


def sureness(phases: list[list[Phase]]) -> dict[str, list[float]]:
    """Return one object's median log-odds: at the height of excursions, and of the less sure side of single changes."""
    away = [abs(logit(p.chance)) for found in phases for p in found[1:-1]]
    single = [min(abs(logit(p.chance)) for p in found) for found in phases if len(found) == 2]
    told = {"excursions": np.array(away), "single changes": np.array(single)}
    return {name: _plain(bootstrap_interval(np.median, x.clip(max=20))) for name, x in told.items() if len(x) > 4}


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
    said = [(head.name, samples.read[head.name]) for head in probe.config.heads if head.kind != "class"]
    for other, values_n in [*said, ("chance", rng.random(len(present_n)))]:
        cut = 0.5 if other == "chance" or probe.head(other).kind == "boolean" else np.median(values_n)
        halves = [values_n > cut, values_n <= cut]
        cases = [(present_n == has) & half & part for has in (0, 1) for half in halves for part in parts]
        if other == name or min(case.sum() for case in cases) < MIN_CASES:
            continue
        planes = [
            told_by_plane(Samples(samples.z_nd[half], {}, samples.fitted_n[half]), present_n[half], 1).value
            for half in halves
        ]
        weights = [(half & ~samples.fitted_n).sum() for half in halves]
        found[other] = round(float(np.average(planes, weights=weights)), 4)
    return found


def measure_returns(checkpoint: str, *, segments: int = 400, samples: int = 10_000, seed: int = 5) -> dict[str, Any]:
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
        See `dcgan_lib.interpretation.walk_study.check_measurable`.
    """
    if segments < 30 or samples < 1_000:
        raise UserError(f"at least 30 segments and 1,000 samples are needed, but got {segments} and {samples}")
    probe = load_probe(PROBE_EXTRACTORS[check_measurable(checkpoint)])
    image_set, generator = load_config(checkpoint)[1]["image_set"], load_generator(checkpoint)
    fine = draw_paths(generator, segments, 2 * STEPS, seed=seed)
    names, fine_sto = object_chances(probe, fine)
    chance_sto, arcs = fine_sto[:, ::2], draw_paths(generator, segments, STEPS, curve="spherical", seed=seed)
    phases = all_phases(chance_sto)
    ways = {"line": phases, "half steps": all_phases(fine_sto), "surer": all_phases(chance_sto, SURER)}
    ways["arcs"] = all_phases(object_chances(probe, arcs)[1])
    kept: dict[str, Any] = {"set": image_set, "checkpoint": checkpoint, "segments": segments, "seed": seed}
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
            "halves": told_in_halves(drawn, name, probe), "sure": sureness([segment[o] for segment in phases]),
        }  # fmt: skip
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
    line, half, arcs, surer = (found["ways"][way] for way in ("line", "half steps", "arcs", "surer"))
    told = {
        "half steps find at most a tenth more returns, and what left stays away for twice as many pictures": (
            sum(half["returned"]) <= 1.1 * sum(line["returned"])
            and abs(half["excursion"] / line["excursion"] - 2) < 0.3
        ),
        "on arcs returns are not rarer": arcs["returns"][0] > line["returns"][1],
        "where 99 % of sureness is asked for, fewer changes return": surer["returns"][2] < line["returns"][1],
        "and still too many: under 95 % of segments are without a return": surer["lasting"][2] < 0.95,
    }
    if "two probes" in found["ways"]:
        both, agreed = found["ways"]["two probes"], found["agreement"]
        told |= {
            "a second probe sees returns less often than single changes": agreed["returns"][2] < agreed["single"][1],
            "where both must be sure, fewer changes return": both["returns"][2] < line["returns"][1],
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
    return f"python -m dcgan_lib.interpretation.walk_returns {checkpoint} {options}"


@answers_mistakes("walk_returns")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure why objects return along a checkpoint's walks, print it, and keep it for the chapter if asked."""
    parser = argparse.ArgumentParser(prog="dcgan_lib.interpretation.walk_returns", description=main.__doc__)
    parser.add_argument("checkpoint", help="a committed checkpoint, such as rooms or portraits, or a run's folder")
    parser.add_argument("--segments", type=int, default=400)
    parser.add_argument("--samples", type=int, default=10_000, help="samples that planes are fitted on and tried on")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", action="store_true", help="keep the numbers in data/results/curves")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    how = {"segments": chosen.segments, "samples": chosen.samples, "seed": chosen.seed}
    found = measure_returns(chosen.checkpoint, **how)
    for way, counted in found["ways"].items():
        print(f"{way:12} lasting {counted['lasting']}  returns {counted['returns']}  {counted['returned']}")
    for name, told in found["objects"].items():
        print(f"{name:12} plane {told['plane']}  network {told['network']}  in halves {told['halves']}")
    if chosen.record:
        save_details(f"curves/returns.{found['set']}", found | {"command": _command(chosen.checkpoint, **how)})
        print(f"kept as curves/returns.{found['set']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
