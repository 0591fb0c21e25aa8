"""The command ``dcgan forget``: find the maps that draw an object, switch them off, and see what is left."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    from dcgan_lib.interpretation.forgetting_drawn import DrawnStudy
    from dcgan_lib.interpretation.forgetting_study import ForgetStudy


@dataclass(frozen=True, kw_only=True)
class Forget:
    """Make a generator forget windows, as in Fig. 6: find the maps that draw them, switch them off, and measure."""

    checkpoint: Positional[str] = "rooms"
    """A committed checkpoint of drawn bedrooms or a run's folder; with --boxes, any without classes."""
    object: str = "window"
    """What to forget: window, bed, lamp, door or picture."""
    layer: int | None = None
    """Whose maps, by the transposed convolution that reads them, from 0; unset: the second-highest, 2 at 64 pixels."""
    threshold: float = 0.0
    """Maps whose weight in the regression is greater are switched off."""
    c: float = 1.0
    """Inverse strength of the regression's penalty."""
    samples: int = 150
    """Pictures to choose maps on."""
    measured: int = 1_000
    """Other pictures to measure on."""
    draws: int = 10
    """How often to switch off as many maps by chance."""
    seed: int = 0
    """Of the pictures to choose on; the next two are those of the pictures to measure and to tune on."""
    compare: bool = False
    """Also choose layer and number of maps by weight, and maps by what happens without them; two minutes."""
    boxes: Path | None = None
    """File of boxes drawn by hand with BoxDrawer on the pictures of this seed; then no probe is needed or asked."""
    counts: Path | None = None
    """With --boxes: file of what was seen by eye with maps off."""
    out: Path = Path("forget")
    """Folder of forget.png, maps.json and numbers.json."""
    record: str | None = None
    """Compare, and enter forget.object and forget.rest into the ledger for this set, such as rooms."""

    def run(self) -> None:
        """Forget, measure, write, and record if asked."""
        from dcgan_lib.evaluation.claims import split_id
        from dcgan_lib.evaluation.evidence import check_command
        from dcgan_lib.interpretation.forgetting_study import numbers, record_forgetting, run_forgetting

        if self.record:
            split_id(f"forget.object:{self.record}")
            check_command("forget.object", self._command(), self.record)
        if self.boxes:
            return self._run_drawn(self.boxes)
        study = run_forgetting(
            self.checkpoint, self.object, layer=self.layer, threshold=self.threshold, c=self.c, samples=self.samples,
            measured=self.measured, draws=self.draws, seed=self.seed, compare=self.compare or bool(self.record),
        )  # fmt: skip
        self._tell(study)
        maps = {way: {"layer": outcome.layer, "maps": outcome.maps} for way, outcome in study.outcomes.items()}
        self._write(study, maps, numbers(study))
        if self.record:
            for row in record_forgetting(study, self.record, command=self._command()):
                print(f"recorded {row.id}: {row.value:.1f} [{row.low:.1f}, {row.high:.1f}] {row.unit} {row.verdict}")

    def _run_drawn(self, boxes: Path) -> None:
        """Do the same with boxes drawn by hand."""
        from dcgan_lib.interpretation.forgetting_counts import drawn_numbers, read_counts, record_drawn
        from dcgan_lib.interpretation.forgetting_drawn import run_drawn_forgetting

        if self.record and not self.counts:
            raise UserError("without a probe, windows must be counted by eye before a record: add --counts FILE")
        study = run_drawn_forgetting(
            self.checkpoint, boxes, self.object, layer=self.layer, threshold=self.threshold, c=self.c,
            samples=self.samples, draws=self.draws, seed=self.seed,
        )  # fmt: skip
        counted = read_counts(self.counts, study.settings) if self.counts else None
        (outcome,) = study.outcomes["paper"]
        maps = {"paper": {"layer": study.settings["layer"], "maps": outcome.maps}}
        self._write(study, maps, drawn_numbers(study, counted))
        for way, share in study.accuracy.items():
            print(f"positions told right by {way}: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}]")
        for way, found in study.outcomes.items():
            moved = ", ".join(f"{key} {fmean(o.scene[key].value for o in found):.2f}" for key in outcome.scene)
            print(f"{way}, {len(outcome.maps)} maps off, moved: {moved}")
        for way, change in counted.changes.items() if counted else ():
            print(f"{way}, counted by eye: {change.before.value:.1%} -> {change.after.value:.1%}")
        if self.record and counted:
            rows = record_drawn(study, counted, self.record, command=self._command())
            print("\n".join(f"recorded {row.id}: {row.value:.1f} {row.unit} {row.verdict}" for row in rows))

    def _write(self, study: "ForgetStudy | DrawnStudy", maps: dict[str, Any], numbers: dict[str, Any]) -> None:
        """Write the figure, the maps and the numbers."""
        import numpy as np

        from dcgan_lib.paths import atomic_write
        from dcgan_lib.training.samples import write_grid

        write_grid(self.out / "forget.png", np.concatenate(list(study.shown.values())), len(study.shown["before"]))
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "rows": list(study.shown), "switched off": maps}
        atomic_write(self.out / "maps.json", json.dumps(about, indent=1) + "\n")
        atomic_write(self.out / "numbers.json", json.dumps(numbers, indent=1) + "\n")
        print(f"figure, maps and numbers: {self.out}")

    def _tell(self, study: "ForgetStudy") -> None:
        from dcgan_lib.interpretation.forgetting_study import mean_fall

        for way, outcome in study.outcomes.items():
            print(f"{way}: {len(outcome.maps)} maps of layer {outcome.layer} off")
            for key, change in outcome.changes.items():
                fall = change.fall
                share = f"{change.before.value:6.1%} -> {change.after.value:6.1%}"
                print(f"  {key:8} {share}, falls by {fall.value:6.1%} [{fall.low:.1%}, {fall.high:.1%}]")
        for kind, found in study.controls.items():
            fall = mean_fall(found, self.object)
            print(f"as many, {kind}: {self.object} falls by {fall.value:.1%} [{fall.low:.1%}, {fall.high:.1%}]")

    def _command(self) -> str:
        chosen = {"boxes": self.boxes, "counts": self.counts}
        words = ["dcgan forget", self.checkpoint, f"--object {self.object}"]
        words += [] if self.layer is None else [f"--layer {self.layer}"]
        words += [f"--threshold {self.threshold:g} --c {self.c:g} --samples {self.samples}"]
        words += [] if self.boxes else [f"--measured {self.measured}"]
        words += [f"--{key} {path.as_posix()}" for key, path in chosen.items() if path]
        return " ".join([*words, f"--draws {self.draws} --seed {self.seed} --record {self.record}"])
