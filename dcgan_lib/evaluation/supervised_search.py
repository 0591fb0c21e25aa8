"""The random search of section 5.2: trials that resume, the best one on fresh labels, and its row of Table 2.

A run's folder holds ``search.json``, what may not change, and two files of one JSON object a line: ``trials.jsonl``
and ``draws.jsonl``. Axes: n images, c channels, h x w pixels. Errors are in per cent.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.claims import CLAIMS, split_id
from dcgan_lib.evaluation.evidence import check_command
from dcgan_lib.evaluation.few_labels import SUPERVISED as CLAIM
from dcgan_lib.evaluation.few_labels import keep_draws
from dcgan_lib.evaluation.held_out import LabelledSplits, full_id, load_splits, one_name, plain_name
from dcgan_lib.evaluation.results import Result, record
from dcgan_lib.evaluation.statistics import mean_interval
from dcgan_lib.evaluation.supervised import (
    Precision,
    Settings,
    describe_space,
    draw_labelled,
    draw_settings,
    train_supervised,
    wrong_answers,
)
from dcgan_lib.evaluation.verdicts import NumericRule
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.log import read_metrics

PAPER_TRIALS, PAPER_LABELS = 64, 1_000
NUM_MONITORED = 1_000


@dataclass(frozen=True)
class Search:
    """Describe a search: what may not change while it goes on.

    Parameters
    ----------
    image_set : str
        A set with labels; a known one in any case of letters. Its test images are opened only for the ledger.
    recipe : str, default "paper-svhn"
        Whose discriminator is trained on labels; unconditional.
    base_width : int, optional
        Feature maps at its finest resolution, at least 1; by default the recipe's.
    num_labels : int, default 1000
        Labelled images, as many of each class.
    seed : int, default 0
        Of the labels, the settings and the weights; not negative.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions.
    """

    image_set: str
    recipe: str = "paper-svhn"
    base_width: int | None = None
    num_labels: int = PAPER_LABELS
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse a seed and a width that no search can have, and give one set one name."""
        require(self.seed >= 0, "the seed", self.seed, "at least 0")
        width = self.base_width
        require(width is None or width >= 1, "the base width", width, "at least 1, or unset for the recipe's")
        object.__setattr__(self, "image_set", one_name(self.image_set))

    @cached_property
    def splits(self) -> LabelledSplits:
        """Return the set's images at the network's size, and the guard of its test images."""
        return load_splits(self.image_set, image_size=recipe(self.recipe).config.model.image_size)

    @cached_property
    def model(self) -> ModelConfig:
        """Return the discriminator's configuration, with the set's number of channels."""
        model = recipe(self.recipe).config.model
        width = model.base_width if self.base_width is None else self.base_width
        return replace(model, base_width=width, num_channels=self.splits.train.num_channels)

    @cached_property
    def monitor(self) -> ImageSet:
        """Return the validation images that choose an epoch: 1,000 at most, drawn at random."""
        validation = self.splits.validation
        order = np.random.default_rng(self.seed).permutation(len(validation))
        return validation.subset(np.sort(order[:NUM_MONITORED]))

    def labelled(self, draw: int) -> ImageSet:
        """Return labelled images: draw 0 is the search's own, every other number has others."""
        return draw_labelled(self.splits.train, self.num_labels, [self.seed, draw])


def open_search(search: Search, run_dir: Path) -> None:
    """Begin a search in a folder, or make sure that the one there is the same.

    Raises
    ------
    UserError
        If the labels cannot be drawn, the network does not fit the set, the folder cannot be written, or it holds
        another search or another space of settings.
    """
    SupervisedCnn(search.model, search.labelled(0).num_classes)  # what is refused must leave no folder behind
    path = run_dir / "search.json"
    told = asdict(search) | {"space": describe_space().splitlines()}
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): choose another --run-dir") from error
        differing = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
        if differing:
            raise UserError(f"{run_dir} holds a search with another {', '.join(differing)}: choose another --run-dir")
    try:
        atomic_write(path, json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot keep a search in {run_dir} ({error}): choose another --run-dir") from error


def run_trials(search: Search, run_dir: Path, num_trials: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """Run the trials that are still to be run; each is on disk before it is yielded.

    Yields
    ------
    dict
        ``trial``, ``settings``, ``epoch``, the ``validation_error`` over all validation images, ``seconds``.
    """
    labelled, validation = search.labelled(0), search.splits.validation
    done = read_trials(run_dir)
    for trial in range(len(done), num_trials):
        settings, begun = draw_settings(search.seed, trial), time.monotonic()
        line = {"trial": trial, "settings": asdict(settings)}
        line |= _fit(search, settings, labelled, trial, {"validation": validation}, device)
        done.append(line | {"seconds": round(time.monotonic() - begun, 1)})
        _write_lines(run_dir / "trials.jsonl", done)
        yield done[-1]


def read_trials(run_dir: Path) -> list[dict[str, Any]]:
    """Return the trials that are done, in order; a last line that was cut off does not count."""
    return read_metrics(run_dir / "trials.jsonl")


def best_trial(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the trial with the least validation error, the first of equals."""
    return min(trials, key=lambda line: line["validation_error"])


def repeat_best(
    search: Search, run_dir: Path, best: dict[str, Any], num_draws: int, *,
    test: tuple[np.ndarray, np.ndarray] | None = None, device: str = "cpu",
) -> list[dict[str, Any]]:  # fmt: skip
    """Train the best trial's settings anew on fresh labels, and classify by neighbours beside it.

    Parameters
    ----------
    search, run_dir, device : optional
        See `run_trials`.
    best : dict
        From `best_trial`.
    num_draws : int
        Labelled sets, none of them the search's own.
    test : (images_u8, labels), optional
        From `LabelledSplits.test_for`, to measure the error on them too. A draw that has been tested is not tested
        again.

    Returns
    -------
    list of dict
        One a draw: ``trial``, ``draw``, ``epoch``, ``validation_error``, ``neighbour_error`` (1-NN on pixels with
        the same labels, on validation images), ``seconds``, and ``test_error`` where it was asked for.
    """
    kept = {(line["trial"], line["draw"]): line for line in read_metrics(run_dir / "draws.jsonl")}
    keys = [(best["trial"], draw) for draw in range(1, num_draws + 1)]
    judged = {"validation": search.splits.validation}
    if test is not None:
        classes = search.splits.train.class_names
        judged["test"] = ImageSet(name=search.image_set, images_u8=test[0], labels=test[1], class_names=classes)
    for trial, draw in keys:
        if "test_error" in (found := kept.get((trial, draw), {})) or (found and test is None):
            continue
        labelled, begun = search.labelled(draw), time.monotonic()
        line = {"trial": trial, "draw": draw}
        line |= _fit(search, Settings(**best["settings"]), labelled, draw, judged, device)
        line["neighbour_error"] = neighbour_error(labelled, judged["validation"])
        kept[trial, draw] = line | {"seconds": round(time.monotonic() - begun, 1)}
        _write_lines(run_dir / "draws.jsonl", [kept[other] for other in sorted(kept)])
    return [kept[key] for key in keys]


def neighbour_error(labelled: ImageSet, judged: ImageSet) -> float:
    """Return the error of the nearest labelled image in pixels, in per cent."""
    flat, others = (images.images_u8.reshape(len(images), -1).astype(np.float32) for images in (labelled, judged))
    neighbours = KNeighborsClassifier(1, algorithm="brute").fit(flat, labelled.labels)
    return round(100 * float(np.mean(neighbours.predict(others) != judged.labels)), 3)


def check_search_row(id: str, search: Search, num_trials: int, command: str) -> None:
    """Refuse, before anything is trained, a row that could not be recorded.

    Raises
    ------
    UserError
        If the id is not this claim's on this set, the trials or the labels are not as many as the paper's, or the
        command names an absolute path.
    """
    own = full_id(f"{CLAIM}:{plain_name(search.image_set)}")
    if full_id(id) != own:
        raise UserError(f"this search is measured as {own}, not {id!r}: record it so")
    if num_trials < PAPER_TRIALS:
        raise UserError(f"Table 2 has the best of {PAPER_TRIALS} trials, but these are {num_trials}: try as many")
    if search.num_labels != PAPER_LABELS:
        raise UserError(f"Table 2 has {PAPER_LABELS:,} labels, but these are {search.num_labels:,}: give as many")
    check_command(id, command, search.image_set)


def record_search(
    id: str, search: Search, trials: list[dict[str, Any]], draws: list[dict[str, Any]], *,
    num_tested: int, command: str, root: Path | None = None,
) -> Result:  # fmt: skip
    """Enter the best trial's validation error, on fresh labels, into the ledger; the test error goes into the notes.

    Parameters
    ----------
    id : str
        ``table2.supervised``, with ``:SET`` on any set but the paper's own.
    search : Search
        What was searched.
    trials, draws : list of dict
        From `read_trials` and `repeat_best`; the draws with their test errors, on ``num_tested`` images.
    command : str
        What repeats it.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Notes
    -----
    Table 2 gives the network's error on validation images, as here, and its rivals' on test images. On another set
    the row is judged by a relation that Table 2 shows: the network errs less than nearest neighbours on pixels.
    """
    check_search_row(id, search, len(trials), command)
    best = best_trial(trials)
    errors, tested, nearest = (
        np.array([line[f"{kind}_error"] for line in draws]) for kind in ("validation", "test", "neighbour")
    )
    test, ahead = mean_interval(tested), mean_interval(nearest - errors)
    checks = {f"nearest neighbours on pixels with the same labels err more ({nearest.mean():.2f} %)": ahead.low > 0}
    numeric = isinstance(CLAIMS[CLAIM].rule_on(split_id(id)[1]), NumericRule)
    plain = min((line["validation_error"] for line in trials if not line["settings"]["augment"]), default=None)
    without = "" if plain is None else f"; the best without augmentation had {plain:.2f} % there"
    notes = (
        f"test error {test.value:.2f} % [{test.low:.2f}, {test.high:.2f}]; the best of {len(trials)} trials had "
        f"{best['validation_error']:.2f} % on validation: {Settings(**best['settings']).text()}{without}. "
        f"{search.num_labels:,} labels, {len(draws)} fresh draws, over which the intervals run and n counts; "
        f"{search.recipe}'s discriminator, width {search.model.base_width}; epochs are chosen on validation images too"
    )
    row = record(
        id, value=mean_interval(errors), unit="%", n=len(draws), data=f"{search.image_set}, validation",
        command=command, seconds=sum(line["seconds"] for line in [*trials, *draws]), seed=search.seed,
        checks=None if numeric else checks, notes=notes, root=root,
    )  # fmt: skip
    keep_draws(row, tested.tolist(), num_tested, root)
    return row


def _fit(
    search: Search, settings: Settings, labelled: ImageSet, number: int, judged: dict[str, ImageSet], device: str
) -> dict[str, Any]:
    """Train once and return the chosen epoch and the error on each set."""
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    options = {"seed": seed, "precision": search.precision, "device": device}
    network, epoch = train_supervised(labelled, search.monitor, search.model, settings, **options)
    errors = {
        f"{name}_error": round(100 * float(wrong_answers(network, images, precision=search.precision).mean()), 3)
        for name, images in judged.items()
    }
    return {"epoch": epoch} | errors


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    atomic_write(path, "".join(json.dumps(line) + "\n" for line in lines))
