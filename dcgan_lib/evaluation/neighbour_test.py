"""The paper's test of a conditional generator: how good a nearest-neighbour classifier its samples make.

Section 8.1 and Table 3. Up to ten million labelled samples stream past the test images; none is stored.
Axes: q test images, s draws.
"""

import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.claims import CLAIMS
from dcgan_lib.evaluation.details import load_details, save_details
from dcgan_lib.evaluation.evidence import check_command
from dcgan_lib.evaluation.labelled_streams import PORTION, LabelledStream
from dcgan_lib.evaluation.neighbours import NearestSearch
from dcgan_lib.evaluation.results import Result, load_results, record
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, mean_interval
from dcgan_lib.evaluation.verdicts import NumericRule
from dcgan_lib.paths import atomic_write

SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class NeighbourTest:
    """Hold what 1-nearest-neighbour makes of the test images.

    Parameters
    ----------
    curve : tuple of (int, float)
        Number of references and test error in per cent: 1,000, 2,000, 5,000 and so on, and the last.
    named : ndarray
        int64, shape (q,): the label of each test image's nearest reference at the end.
    seconds : float
        Wall time, earlier parts of a resumed test included.
    """

    curve: tuple[tuple[int, float], ...]
    named: np.ndarray
    seconds: float


def neighbour_test(
    stream: LabelledStream,
    test: ImageSet,
    num_references: int,
    *,
    state: Path | None = None,
    progress: bool = False,
) -> NeighbourTest:
    """Classify images by the label of their nearest reference.

    Parameters
    ----------
    stream : LabelledStream
        Where the references come from.
    test : ImageSet
        What is classified, with labels.
    num_references : int
        How many references to compare with, a multiple of 1,000.
    state : Path, optional
        File that is written every half minute and removed at the end; a test that was stopped goes on from it.
    progress : bool, default False
        Show a progress bar with the time left.

    Raises
    ------
    UserError
        If the number does not fit, or the file holds another test.

    Notes
    -----
    The distance is Euclidean, between pixels of 8 bits, as in the authors' code.
    """
    if num_references < PORTION or num_references % PORTION:
        raise UserError(f"references come by the {PORTION:,}, but {num_references:,} were asked for")
    if stream.length is not None and num_references > stream.length:
        raise UserError(f"there are {stream.length:,} images to compare with, but {num_references:,} were asked for")
    count = _Count(stream, test)
    if state is not None and state.exists():
        count.load(state)
    last_save = time.monotonic()
    total, done = num_references // PORTION, count.search.num_references // PORTION
    for index in tqdm(range(done, total), initial=done, total=total, unit="k", disable=not progress):
        count.add(*stream.portion(index))
        if state is not None and time.monotonic() - last_save > SAVE_SECONDS:
            count.save(state)
            last_save = time.monotonic()
    count.note_point()
    if state is not None:
        state.unlink(missing_ok=True)
    return NeighbourTest(tuple(sorted(count.curve.items())), count.named, count.seconds)


class _Count:
    """A test under way, and how it is kept on disk."""

    def __init__(self, stream: LabelledStream, test: ImageSet) -> None:
        if test.labels is None:
            raise UserError(f"nearest neighbours need classes to compare, but {test.name!r} has none")
        self.search, self._labels = NearestSearch(test.images_u8), test.labels
        self.named, self.curve = np.full(len(test), -1), {}
        self.key = f"{stream.key} | {hashlib.sha256(np.ascontiguousarray(test.images_u8)).hexdigest()}"
        self._earlier, self._begun = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._begun

    def add(self, images_u8: np.ndarray, labels: np.ndarray) -> None:
        before = self.search.num_references
        self.search.add(images_u8)
        changed = self.search.indices >= before
        self.named[changed] = labels[self.search.indices[changed] - before]
        if str(self.search.num_references).strip("0") in ("1", "2", "5"):
            self.note_point()

    def note_point(self) -> None:
        self.curve[self.search.num_references] = 100 * float((self.named != self._labels).mean())

    def save(self, path: Path) -> None:
        about = {"key": self.key, "seconds": self.seconds, "curve": list(self.curve.items())}
        about["num_references"] = self.search.num_references
        buffer = io.BytesIO()
        np.savez(
            buffer, distances=self.search.distances, indices=self.search.indices, named=self.named,
            about=np.array(json.dumps(about)),
        )  # fmt: skip
        atomic_write(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        try:
            with np.load(path) as file:
                about = json.loads(str(file["about"]))
                parts = {name: file[name] for name in ("distances", "indices", "named")}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} is not a test's state ({error}): delete it to begin anew") from error
        if about["key"] != self.key:
            raise UserError(f"{path} holds the state of another test: delete it, or name another file")
        self.search.distances, self.search.indices, self.named = parts.values()
        self.search.num_references, self._earlier = about["num_references"], about["seconds"]
        self.curve = {int(number): error for number, error in about["curve"]}


def error_estimate(tests: Sequence[NeighbourTest], labels: np.ndarray) -> Estimate:
    """Return the mean test error over draws, in per cent, and its interval over the choice of test images.

    Parameters
    ----------
    tests : sequence of NeighbourTest
        Draws of one stream on the same test images.
    labels : ndarray
        int64, shape (q,).
    """
    wrong_qs = np.stack([test.named != labels for test in tests], 1)
    return bootstrap_interval(np.mean, wrong_qs).scaled(100)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Hold what is kept beside a row of Table 3, for figures.

    Parameters
    ----------
    draws : list of list of (int, float)
        For each draw, numbers of references and test errors in per cent.
    confusion : ndarray
        int64, classes x classes: test images of each class by the label of their nearest reference, over all draws.
    """

    draws: list[list[tuple[int, float]]]
    confusion: np.ndarray


def check_row(id: str, split: str, command: str, root: Path | None = None) -> None:
    """Refuse, before anything is counted, what `record_row` would refuse after it.

    Raises
    ------
    UserError
        If the id is no row of Table 3 that is measured so, the split is not the test split, the command names an
        absolute path, or the row of real digits is missing that this one is compared with.
    """
    rows = [row for row in CLAIMS if row.startswith("table3.") and row not in ("table3.align", "table3.bn-affine")]
    if id not in rows:
        raise UserError(f"Table 3 has no row {id!r}; its rows are: {', '.join(rows)}")
    if split != "test":
        raise UserError(f"a row of Table 3 is an error on the test split, but this is on {split}: add --split test")
    check_command(id, command, "mnist")
    _real_row(id, root)


def _real_row(id: str, root: Path | None) -> Result | None:
    """Return the row of as many real digits, if a row without a number in the paper is compared with it."""
    if isinstance(CLAIMS[id].rule, NumericRule):
        return None
    number = id.rpartition(".")[2]
    rows = [row for row in load_results(root) if row.id == f"table3.real.{number}" and row.is_measured]
    if not rows:
        raise UserError(f"{id} is compared with table3.real.{number}: measure that first")
    return rows[0]


def record_row(
    id: str, tests: Sequence[NeighbourTest], test: ImageSet, *, command: str, seed: int,
    checkpoint: str | None = None, root: Path | None = None,
) -> Result:  # fmt: skip
    """Enter the mean error over draws into the ledger, and keep the curves beside it.

    Parameters
    ----------
    id : str
        Such as ``table3.dcgan.50k``.
    tests : sequence of NeighbourTest
        Draws of one stream.
    test : ImageSet
        What was classified.
    command, seed, checkpoint : optional
        See `record`.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Raises
    ------
    UserError
        See `check_row`.
    """
    check_row(id, "test", command, root)
    ends = [draw.curve[-1] for draw in tests]
    notes = f"1-NN, Euclidean, 8-bit pixels, {ends[0][0]:,} references; n counts test images"
    if len(tests) > 1:
        mean = mean_interval(np.array([error for _, error in ends]))
        notes += f"; {len(tests)} draws: {', '.join(f'{error:.2f}' for _, error in ends)} %"
        notes += f", 95 % interval over draws {mean.low:.2f} to {mean.high:.2f} %"
    error, real = error_estimate(tests, test.labels), _real_row(id, root)
    checks = real and {f"as many real digits, {real.value:.2f} % wrong, do better": error.low > real.value}
    row = record(
        id, value=error, checks=checks, unit="%", n=len(test), data=f"{test.name}, test", command=command,
        seconds=sum(draw.seconds for draw in tests), seed=seed, checkpoint=checkpoint, notes=notes, root=root,
    )  # fmt: skip
    confusion = np.zeros((test.num_classes, test.num_classes), int)
    for draw in tests:
        np.add.at(confusion, (test.labels, draw.named), 1)
    kept = {"draws": [list(draw.curve) for draw in tests], "confusion": confusion.tolist()}
    save_details(f"curves/{id}", kept, root)
    return row


def load_curves(id: str, root: Path | None = None) -> Curves:
    """Return what `record_row` kept beside a row.

    Raises
    ------
    UserError
        If the row was not measured.
    """
    kept = load_details(f"curves/{id}", f"dcgan neighbours ... --record {id}", root)
    draws = [[(int(number), float(error)) for number, error in draw] for draw in kept["draws"]]
    return Curves(draws=draws, confusion=np.array(kept["confusion"]))
