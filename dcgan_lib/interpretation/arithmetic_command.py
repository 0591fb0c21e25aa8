"""The command ``dcgan arithmetic``: sums of concepts in latent space, drawn and counted."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    from dcgan_lib.interpretation.exemplars import Exemplars


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Add and subtract concepts in latent space: A - B + C, as in Fig. 7; draw one sum, count many.

    With --a, --b and --c the exemplars are yours, named by their numbers among the samples of --seed, and the sum is
    only drawn; with --exemplars they come from a file. Without either a probe chooses, and counts how often the sum
    shows what it should.
    """

    checkpoint: Positional[str] = "portraits"
    """A committed checkpoint or a run's folder."""
    a: tuple[int, ...] = ()
    """Your exemplars of A: numbers among the pool's samples, counted from 0."""
    b: tuple[int, ...] = ()
    """Of B, as many."""
    c: tuple[int, ...] = ()
    """Of C, as many."""
    exemplars: Path | None = None
    """File of exemplars, such as data/checkpoints/faces/exemplars.json; it brings its own seed and pool."""
    sums: tuple[Literal["smile", "glasses"], ...] = ()
    """Which sums to count, if the probe chooses; by default all that the checkpoint's image set has."""
    probe: str | None = None
    """Who reads the attributes, several joined by "+"; by default those that fit the image set."""
    trials: int = 300
    """Sums to count, each with exemplars of its own."""
    pool: int = 8_000
    """Samples to choose from."""
    confidence: float = 0.9
    """How sure the probe must be of an exemplar."""
    ahead: float = 0.4
    """Largest yaw of an exemplar to either side, where the probe reads a yaw."""
    seed: int = 1
    """Of the samples and the choice."""
    out: Path = Path("arithmetic")
    """Folder of the figures, picks.json and numbers.json."""
    record: str | None = None
    """Enter the claims about sums into the ledger for this set, such as portraits."""

    def run(self) -> None:
        """Draw, count, write, and record if asked."""
        from dcgan_lib.interpretation.exemplars import Exemplars, load_exemplars

        by_hand = any([self.a, self.b, self.c])
        if (by_hand or self.exemplars) and (self.record or (by_hand and self.exemplars)):
            raise UserError(
                "exemplars chosen by hand are drawn, not counted: give --a, --b and --c, or --exemplars, or --record"
            )
        if self.exemplars:
            self._draw_own(load_exemplars(self.exemplars))
        elif by_hand:
            groups, trio = {"A": self.a, "B": self.b, "C": self.c}, {"sum": ("A", "B", "C")}
            picked = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
            self._draw_own(Exemplars(**picked, concepts=groups, sums=trio))
        else:
            self._count()

    def _draw_own(self, own: "Exemplars") -> None:
        own.check_checkpoint(self.checkpoint)
        if not own.sums:
            raise UserError("the file of exemplars names no sums: add a sum with its concepts A, B and C")
        self._draw({name: own.numbers(trio) for name, trio in own.sums.items()}, own.seed, own.pool)

    def _count(self) -> None:
        from dcgan_lib.evaluation.claims import split_id
        from dcgan_lib.evaluation.evidence import check_command
        from dcgan_lib.evaluation.probe_panel import load_panel
        from dcgan_lib.interpretation.arithmetic_study import Settings, numbers, record_study, run_study
        from dcgan_lib.interpretation.concepts import described
        from dcgan_lib.paths import atomic_write

        known = described(self.checkpoint)
        probe, sums = self.probe or known.probe, self.sums or tuple(known.sums)
        if not set(sums) <= set(known.sums):
            raise UserError(
                f"{self.checkpoint} has the sums {', '.join(known.sums)}, but --sums names {', '.join(sums)}"
            )
        ahead = self.ahead if load_panel(probe).reads("yaw") else None
        if self.record:
            split_id(f"arithmetic.smile:{self.record}")
            check_command("arithmetic.smile", self._command(probe, ahead), self.record)
            if set(sums) != set(known.sums):
                raise UserError("the claims compare over all sums: leave out --sums to record them")
        settings = {entry.name: getattr(self, entry.name) for entry in fields(Settings)}
        settings |= {"probe": probe, "ahead": ahead}
        study = run_study(Settings(**settings), {name: known.sums[name] for name in sums})
        self._draw(study.picked, self.seed, self.pool)
        atomic_write(self.out / "numbers.json", json.dumps(numbers(study), indent=1) + "\n")
        for name, found in study.seen.items():
            for key in found:
                value, low, high = study.share(name, key)
                odd = study.share(name, key, "implausible").value
                print(f"{name:8} {key:12} {value:5.1f} % [{low:.1f}, {high:.1f}]  implausible {odd:.1f} %")
        if self.record:
            for row in record_study(study, self.record, command=self._command(probe, ahead)):
                print(f"recorded {row.id}: {row.value:.1f} [{row.low:.1f}, {row.high:.1f}] {row.verdict}")

    def _draw(self, picked: dict[str, list[list[int]]], seed: int, pool: int) -> None:
        """Write one figure a sum, and which samples it was made of."""
        import numpy as np

        from dcgan_lib.interpretation.arithmetic import layout
        from dcgan_lib.models.sampling import sample_latents, seeded
        from dcgan_lib.paths import atomic_write
        from dcgan_lib.training.checkpoints import load_generator
        from dcgan_lib.training.samples import write_grid

        generator = load_generator(self.checkpoint)
        z_nd = sample_latents(pool, generator.config, seeded(seed)).numpy()
        for name, groups in picked.items():
            write_grid(self.out / f"{name}.png", np.concatenate(list(layout(generator, z_nd[groups]).values()), 3))
        about = {"checkpoint": self.checkpoint, "seed": seed, "pool": pool, "picked [A, B, C]": picked}
        atomic_write(self.out / "picks.json", json.dumps(about, indent=1) + "\n")
        print(f"figures and picks: {self.out}")

    def _command(self, probe: str, ahead: float | None) -> str:
        words = ["dcgan arithmetic", self.checkpoint, f"--probe {probe}", f"--trials {self.trials}"]
        words += [f"--pool {self.pool}", f"--confidence {self.confidence:g}"]
        words += [] if ahead is None else [f"--ahead {ahead:g}"]
        return " ".join([*words, f"--seed {self.seed}", f"--record {self.record}"])
