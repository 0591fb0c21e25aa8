"""The command ``dcgan neighbours``: one row of the paper's Table 3."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    from dcgan_lib.evaluation.labelled_streams import LabelledStream


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Classify real test images by their nearest generated, real or deformed neighbour (Table 3)."""

    source: Positional[str]
    """real, deformed, a committed conditional checkpoint (mnist-paper) or a run's folder."""
    num_images: int = 50_000
    """Images to compare with, in thousands."""
    draws: int = 1
    """Repeat with this many seeds, and average."""
    split: Literal["validation", "test"] = "validation"
    """What is classified. Choose on validation; touch test once."""
    seed: int = 0
    """Of the first draw."""
    max_shift: int = 1
    """Of deformed images, in pixels."""
    alpha: float = 17.0
    """Strength of the elastic deformation, in pixels."""
    relabel: bool = False
    """Label each image as the digit classifier names it, to see what wrong labels cost."""
    state: Path | None = None
    """File to resume from if the count is stopped; unset: begin anew."""
    record: str | None = None
    """Enter the error into the claims ledger under this id, such as table3.dcgan.50k."""

    def run(self) -> None:
        """Count, print, and record if asked."""
        from dcgan_lib.data.sources import load_image_set
        from dcgan_lib.evaluation.neighbour_test import check_row, error_estimate, neighbour_test, record_row

        if self.draws < 1:
            raise UserError(f"draws must be at least 1, but it is {self.draws}")
        if self.record:
            if self.relabel:
                raise UserError("Table 3 keeps the labels that were asked for: leave out --relabel, or --record")
            check_row(self.record, self.split, self._command())
        tests = []
        for seed in range(self.seed, self.seed + self.draws):
            stream = self._relabelled(self._stream(seed))
            test = load_image_set("mnist", self.split, image_size=stream.image_size)
            state = self.state and self.state.with_name(f"{self.state.name}.{seed}")
            tests.append(neighbour_test(stream, test, self.num_images, state=state, progress=True))
            points = "  ".join(f"{number:,}: {error:.2f} %" for number, error in tests[-1].curve)
            print(f"seed {seed}  {points}", flush=True)
        value, low, high = error_estimate(tests, test.labels)
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''}"
        print(f"{self.split} error {value:.2f} % [{low:.2f}, {high:.2f}], n {len(test):,}, {draws}")
        if self.record:
            checkpoint = None if self.source in ("real", "deformed") else self.source
            row = record_row(self.record, tests, test, command=self._command(), seed=self.seed, checkpoint=checkpoint)
            print(f"recorded {row.id}: {row.verdict}")

    def _stream(self, seed: int) -> "LabelledStream":
        from dcgan_lib.data.sources import load_image_set
        from dcgan_lib.evaluation import labelled_streams as streams

        if self.source not in ("real", "deformed"):
            return streams.GeneratedStream(self.source, seed)
        train = load_image_set("mnist", image_size=28)
        if self.source == "real":
            return streams.RealStream(train, seed)
        return streams.DeformedStream(train, seed, max_shift=self.max_shift, alpha=self.alpha)

    def _relabelled(self, stream: "LabelledStream") -> "LabelledStream":
        from dcgan_lib.evaluation.labelled_streams import RelabelledStream
        from dcgan_lib.evaluation.probe_files import load_probe

        return RelabelledStream(stream, load_probe("probe-mnist")) if self.relabel else stream

    def _command(self) -> str:
        words = ["dcgan neighbours", self.source, f"--num-images {self.num_images}", f"--draws {self.draws}"]
        words += [f"--split {self.split}", f"--seed {self.seed}"]
        if self.source == "deformed":
            words += [f"--max-shift {self.max_shift}", f"--alpha {self.alpha:g}"]
        return " ".join([*words, f"--record {self.record}"])
