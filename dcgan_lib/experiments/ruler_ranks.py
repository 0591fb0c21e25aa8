"""Whether a set's distances can be trusted: the rank test of every image set, and what it found.

`dcgan_lib.evaluation.ruler` damages real pictures by degrees, and features pass where the distance
grows with the damage. Here that is run and kept, one file for each set and features, so that a
chapter shows it without measuring again. Trained generators are ranked too: a run's own pictures
should come nearer to real ones while it learns.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcgan_lib.command import Command
from dcgan_lib.data.image_set import is_plain_name
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import check_number, require
from dcgan_lib.evaluation.distances import Distance
from dcgan_lib.evaluation.features import RULER, get_features
from dcgan_lib.evaluation.ledger import describe_hardware, load_details, save_details
from dcgan_lib.evaluation.ruler import Ladder, RankTest, rank_test
from dcgan_lib.experiments.architecture import END, LAST_THIRD, THIRD, num_pictures

FEWEST = 100
"""Pictures a side: one kind of damage keeps one picture in a hundred."""


@dataclass(frozen=True, kw_only=True)
class RankTestOfSet(Command, verb="rank-test"):
    """Test whether features rank damaged pictures of a set: the worse, the farther from real ones.

    Training pictures are damaged by degrees and compared with held-out ones by KID. A kind of
    damage is in order where each degree is farther away than the one before, beyond the intervals.
    """

    set: str
    """Image set, prepared set or folder, at its own size."""
    features: str = RULER
    """What the distance is measured in: efficientnet-lite0 fits every set, a probe those of its
    size and colours."""
    num_images: int = 400
    """Pictures on either side."""
    subsets: int = 100
    """Random subsets, each of a quarter of the pictures, that a distance is averaged over."""
    record: bool = False
    """Keep what was found in data/results/ruler/, for the book."""

    def run(self) -> None:
        """Measure, print, and keep it if asked."""
        check_number(self, "num_images", FEWEST)
        check_number(self, "subsets", 2)
        if self.record:
            allowed = "a set's name, and no path, for what is recorded"
            require(is_plain_name(self.set), "--set", self.set, allowed)
        begun = time.perf_counter()
        features = get_features(self.features)
        held_out, train = (
            load_image_set(self.set, split, num_images=self.num_images)
            for split in (HELD_OUT, "train")
        )
        found = rank_test(held_out.images_u8, train.images_u8, features, subsets=self.subsets)
        seconds = time.perf_counter() - begun
        print(f"{train.name}, {self.num_images} pictures a side\n{rank_text(found)}")
        if self.record:
            about = {"command": self.command_line(), "seconds": round(seconds, 1)}
            keep_rank_test(train.name, found, about | {"hardware": describe_hardware()})


def rank_text(found: RankTest) -> str:
    """Lay a test out as a table, and say last whether the features pass."""
    lines = [f"{'damage':18} {'degree':14} {'KID':>7}  95 % interval"]
    lines.append(_line("none", "", found.ladders[0].distances[0]))
    for ladder in found.ladders:
        kind = ladder.kind
        for step, distance in zip(ladder.steps[1:], ladder.distances[1:], strict=True):
            lines.append(_line(kind, step, distance))
            kind = ""
        if not ladder.in_order:
            lines[-1] += "  NOT in order"
    verdict = "passes" if found.passed else f"fails on {', '.join(found.failed_kinds)}"
    return "\n".join([*lines, f"{found.features} {verdict}"])


def _line(kind: str, step: str, distance: Distance) -> str:
    interval = f"{distance.low:.3f} to {distance.high:.3f}"
    return f"{kind:18} {step:14} {distance.value:7.3f}  {interval:16}".rstrip()


# ---------------------------------------------------------------- what is kept


def keep_rank_test(set_name: str, found: RankTest, about: Mapping[str, Any]) -> None:
    """Keep a test, and ``about`` how it was made, under the names of its set and features."""
    real = found.ladders[0].distances[0]
    ladders = [
        {
            "kind": ladder.kind,
            "in_order": ladder.in_order,
            "degrees": {
                step: [float(f"{x:.6g}") for x in distance.estimate]
                for step, distance in zip(ladder.steps, ladder.distances, strict=True)
            },
        }
        for ladder in found.ladders
    ]
    content = {
        "set": set_name,
        "features": found.features,
        **about,
        "metric": real.metric,
        "n": real.n_real,
        "passed": found.passed,
        "ladders": ladders,
    }
    save_details(f"ruler/{set_name}--{found.features}", content)


def load_rank_test(set_name: str, features: str = RULER) -> RankTest:
    """Return the test that `dcgan rank-test` kept of a set; needs neither pictures nor features."""
    command = f"dcgan rank-test --set {set_name} --features {features} --record"
    kept = load_details(f"ruler/{set_name}--{features}", command)
    ladders = []
    for ladder in kept["ladders"]:
        distances = tuple(
            _distance(degree, kept["metric"], features, kept["n"])
            for degree in ladder["degrees"].values()
        )
        steps = tuple(ladder["degrees"])
        ladders.append(Ladder(kind=ladder["kind"], steps=steps, distances=distances))
    return RankTest(features=features, ladders=tuple(ladders))


def _distance(estimate: Sequence[float], metric: str, features: str, num: int) -> Distance:
    value, low, high = estimate
    about = {"metric": metric, "features": features, "n_real": num, "n_fake": num}
    return Distance(value=value, low=low, high=high, **about)


# ---------------------------------------------------------------- generators while they learn

EARLY = (0, 2, THIRD)
"""Looks at a run: untrained, after a ninth of the steps, after a third."""
LATE = (THIRD, LAST_THIRD, END)
"""After a third, two thirds and all of the steps."""


def generator_ladder(run: Mapping[str, Any], looks: Iterable[int]) -> Ladder:
    """Rank the generators of one of `architecture.kept_runs`: the earlier, the farther away."""
    kept = {each["look"]: each for each in run["looks"]}
    steps, distances = [], []
    for look in sorted(looks, reverse=True):
        estimate = [kept[look][name] for name in ("distance", "low", "high")]
        num = num_pictures(look, run["num_images"])
        distances.append(_distance(estimate, "KID", run["features"], num))
        steps.append(f"{kept[look]['step']:,} steps")
    return Ladder(kind="generators", steps=tuple(steps), distances=tuple(distances))
