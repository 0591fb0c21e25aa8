"""The command ``dcgan arithmetic``: sums of concepts in latent space, drawn and counted."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from dcgan_lib.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Add and subtract concepts in latent space: A - B + C, as in Fig. 7; draw one sum, count many.

    With --a, --b and --c the exemplars are yours, named by their numbers among the samples of --seed, and the sum is
    only drawn. Without them a probe chooses, and counts how often the sum shows what it should.
    """

    checkpoint: Positional[str] = "portraits"
    """A committed checkpoint or a run's folder."""
    a: tuple[int, ...] = ()
    """Your exemplars of A: numbers among the pool's samples, counted from 0."""
    b: tuple[int, ...] = ()
    """Of B, as many."""
    c: tuple[int, ...] = ()
    """Of C, as many."""
    sums: tuple[Literal["smile", "glasses"], ...] = ("smile", "glasses")
    """Which sums to count, if the probe chooses."""
    probe: str = "probe-portraits"
    """Who reads the attributes."""
    trials: int = 300
    """Sums to count, each with exemplars of its own."""
    pool: int = 8_000
    """Samples to choose from."""
    confidence: float = 0.9
    """How sure the probe must be of an exemplar."""
    ahead: float = 0.4
    """Largest yaw of an exemplar to either side."""
    seed: int = 1
    """Of the samples and the choice."""
    out: Path = Path("arithmetic")
    """Folder of the figures, picks.json and numbers.json."""
    record: str | None = None
    """Enter the four claims into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Draw, count, write, and record if asked."""
        chosen = [self.a, self.b, self.c]
        if any(chosen):
            self._draw_own(chosen)
        else:
            self._count()

    def _draw_own(self, chosen: list[tuple[int, ...]]) -> None:
        if self.record:
            raise UserError("exemplars chosen by hand are drawn, not counted: leave out --record, or --a, --b and --c")
        if len({len(group) for group in chosen}) != 1:
            raise UserError(
                f"A, B and C need equally many exemplars, but have {', '.join(str(len(g)) for g in chosen)}"
            )
        wrong = [number for group in chosen for number in group if not 0 <= number < self.pool]
        if wrong:
            raise UserError(f"the pool's samples are numbered 0 to {self.pool - 1}, but {wrong[0]} was asked for")
        self._draw({"sum": [list(group) for group in chosen]})

    def _count(self) -> None:
        from dcgan_lib.evaluation.claims import split_id
        from dcgan_lib.evaluation.evidence import check_command
        from dcgan_lib.interpretation.arithmetic import SUMS
        from dcgan_lib.interpretation.arithmetic_study import Settings, numbers, record_study, run_study
        from dcgan_lib.paths import atomic_write

        if not self.sums:
            raise UserError("--sums needs a sum: smile, glasses or both")
        if self.record:
            split_id(f"arithmetic.smile:{self.record}")
            check_command("arithmetic.smile", self._command(), self.record)
            if set(self.sums) != set(SUMS):
                raise UserError("the claims compare over both sums: leave out --sums to record them")
        settings = {entry.name: getattr(self, entry.name) for entry in fields(Settings)}
        study = run_study(Settings(**settings), {name: SUMS[name] for name in self.sums})
        self._draw(study.picked)
        atomic_write(self.out / "numbers.json", json.dumps(numbers(study), indent=1) + "\n")
        for name, found in study.seen.items():
            for key in found:
                value, low, high = study.share(name, key)
                odd = study.share(name, key, "implausible").value
                print(f"{name:8} {key:12} {value:5.1f} % [{low:.1f}, {high:.1f}]  implausible {odd:.1f} %")
        if self.record:
            for row in record_study(study, self.record, command=self._command()):
                print(f"recorded {row.id}: {row.value:.1f} [{row.low:.1f}, {row.high:.1f}] {row.verdict}")

    def _draw(self, picked: dict[str, list[list[int]]]) -> None:
        """Write one figure a sum, and which samples it was made of."""
        import numpy as np

        from dcgan_lib.interpretation.arithmetic import layout
        from dcgan_lib.models.sampling import sample_latents, seeded
        from dcgan_lib.paths import atomic_write
        from dcgan_lib.training.checkpoints import load_generator
        from dcgan_lib.training.samples import write_grid

        generator = load_generator(self.checkpoint)
        z_nd = sample_latents(self.pool, generator.config, seeded(self.seed)).numpy()
        for name, groups in picked.items():
            write_grid(self.out / f"{name}.png", np.concatenate(list(layout(generator, z_nd[groups]).values()), 3))
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool, "picked [A, B, C]": picked}
        atomic_write(self.out / "picks.json", json.dumps(about, indent=1) + "\n")
        print(f"figures and picks: {self.out}")

    def _command(self) -> str:
        words = ["dcgan arithmetic", self.checkpoint, f"--probe {self.probe}", f"--trials {self.trials}"]
        words += [f"--pool {self.pool}", f"--confidence {self.confidence:g}", f"--ahead {self.ahead:g}"]
        return " ".join([*words, f"--seed {self.seed}", f"--record {self.record}"])
