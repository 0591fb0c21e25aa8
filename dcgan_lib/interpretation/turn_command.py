"""The command ``dcgan turn``: faces turned along an axis from left to right, drawn and measured."""

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from dcgan_lib.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Turn faces along an axis from left-looking to right-looking samples, as in Fig. 8, and measure their yaw.

    With --exemplars the two sides come from a file, and the turn is only drawn: no probe needs to read a yaw.
    """

    checkpoint: Positional[str] = "portraits"
    """A committed checkpoint or a run's folder."""
    exemplars: Path | None = None
    """File of exemplars that look left and right, such as data/checkpoints/faces/exemplars.json."""
    probe: str = "probe-portraits"
    """Who reads the yaw."""
    faces: int = 300
    """Faces to turn, each along an axis of its own."""
    pool: int = 4_000
    """Samples to choose exemplars from."""
    least: float = 0.6
    """Least yaw of an exemplar, to either side."""
    seed: int = 1
    """Of the samples and the choice."""
    out: Path = Path("turn")
    """Folder of turn.png, picks.json and numbers.json."""
    record: str | None = None
    """Enter turn.linear into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Turn, measure, write, and record if asked."""
        from dcgan_lib.evaluation.claims import split_id
        from dcgan_lib.evaluation.evidence import check_command
        from dcgan_lib.interpretation.turn_study import numbers, record_turn, run_turn
        from dcgan_lib.paths import atomic_write
        from dcgan_lib.training.samples import write_grid

        if self.exemplars:
            self._draw_own()
            return
        if self.record:
            split_id(f"turn.linear:{self.record}")
            check_command("turn.linear", self._command(), self.record)
        study = run_turn(self.checkpoint, self.probe, self.faces, self.pool, self.seed, self.least)
        write_grid(self.out / "turn.png", study.pictures_u8, 11)
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        about |= {"faces": study.faces, "exemplars [left, right]": study.picked}
        atomic_write(self.out / "picks.json", json.dumps(about, indent=1) + "\n")
        found = numbers(study)
        atomic_write(self.out / "numbers.json", json.dumps(found, indent=1) + "\n")
        for name in ("axis", "random"):
            for key, (value, low, high) in found[name]["line"].items():
                print(f"{name:7} {key:7} {value:.3f} [{low:.3f}, {high:.3f}]")
        print(f"figure and picks: {self.out}")
        if self.record:
            row = record_turn(study, self.record, command=self._command())
            print(f"recorded {row.id}: {row.value:.3f} [{row.low:.3f}, {row.high:.3f}] {row.verdict}")

    def _draw_own(self) -> None:
        """Turn the pool's first five samples along the axis that the file's exemplars give."""
        from dcgan_lib.interpretation.exemplars import load_exemplars
        from dcgan_lib.interpretation.turn import drawn_turn
        from dcgan_lib.training.checkpoints import load_generator
        from dcgan_lib.training.samples import write_grid

        if self.record:
            raise UserError("exemplars chosen by hand are drawn, not measured: leave out --record, or --exemplars")
        own = load_exemplars(self.exemplars)
        own.check_checkpoint(self.checkpoint)
        write_grid(self.out / "turn.png", drawn_turn(load_generator(self.checkpoint), own), 11)
        print(f"figure: {self.out}")

    def _command(self) -> str:
        words = ["dcgan turn", self.checkpoint, f"--probe {self.probe}", f"--faces {self.faces}"]
        words += [f"--pool {self.pool}", f"--least {self.least:g}", f"--seed {self.seed}"]
        return " ".join([*words, f"--record {self.record}"])
