"""The command ``dcgan search``: the purely supervised row of the paper's Table 2."""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import ParameterSampler
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn import functional as F
from tyro.conf import arg

from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError, require
from dcgan_lib.evaluation.ledger import CLAIMS, NumericRule, Result, check_command, record, split_id
from dcgan_lib.evaluation.probes import augment
from dcgan_lib.evaluation.protocols import (
    LabelledSplits,
    draw_rows,
    full_id,
    load_splits,
    one_name,
    plain_name,
)
from dcgan_lib.evaluation.statistics import mean_interval
from dcgan_lib.experiments.svhn_1000_labels import SUPERVISED as CLAIM
from dcgan_lib.experiments.svhn_1000_labels import keep_draws
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.models.sampling import from_u8
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import read_metrics

Precision = Literal["float32", "bfloat16"]

SPACE: dict[str, Any] = {
    "learning_rate": stats.loguniform(1e-4, 1e-2),
    "beta1": [0.5, 0.9],
    "weight_decay": stats.loguniform(1e-4, 1),
    "dropout": stats.uniform(0, 0.7),
    "augment": [False, True],
    "batch_size": [32, 64, 128],
    "epochs": [15, 30, 60],
}
MIRRORED_SETS = ("cifar10",)
"""Sets whose classes do not know left from right; a mirrored digit is another sign or none."""
PATIENCE = 8
"""Epochs without a lower validation error after which a training stops."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold one point of the search space.

    Parameters
    ----------
    learning_rate : float
        Of AdamW, at the start; it falls to 0 along a line.
    beta1, weight_decay : float
        Of AdamW.
    dropout : float
        Before the last layer.
    augment : bool
        Whether images are moved, by up to an eighth of their side in photographs and a sixteenth in digits, and in
        photographs mirrored by chance.
    batch_size, epochs : int
        Images in a batch; passes over the labelled images at most.
    """

    learning_rate: float
    beta1: float
    weight_decay: float
    dropout: float
    augment: bool
    batch_size: int
    epochs: int

    def text(self) -> str:
        """Return the settings in words."""
        return (
            f"learning rate {self.learning_rate:.2g}, beta1 {self.beta1:g}, weight decay {self.weight_decay:.2g}, "
            f"dropout {self.dropout:.2f}, augmentation {'on' if self.augment else 'off'}, "
            f"batch {self.batch_size}, {self.epochs} epochs"
        )


def describe_space() -> str:
    """Return the search space in words, one line a setting."""
    lines = []
    for name, values in SPACE.items():
        if isinstance(values, list):
            text = f"one of {', '.join(map(str, values))}"
        else:
            text = "{} from {:g} to {:g}".format(
                values.dist.name.replace("log", "log-"), *values.support()
            )
        lines.append(f"{name:14}{text}")
    return "\n".join(lines)


def draw_settings(seed: int, trial: int) -> Settings:
    """Draw the settings of a trial, the same ones whenever it is asked."""
    random_state = int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])
    (drawn,) = ParameterSampler(SPACE, 1, random_state=random_state)
    return Settings(
        **{
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in drawn.items()
        }
    )


def draw_labelled(pool: ImageSet, num_labels: int, seed: int | list[int]) -> ImageSet:
    """Choose labelled images at random, as many of each class.

    Parameters
    ----------
    pool : ImageSet
        Training images with labels.
    num_labels : int
        A multiple of the number of classes.
    seed : int or list of int
        Of the draw.

    Raises
    ------
    UserError
        If the set has no classes, ``num_labels`` cannot be shared out evenly, or a class has too few images.
    """
    classes = pool.num_classes
    if classes < 2:
        raise UserError(
            f"labels are drawn by class, but {pool.name} has {classes} classes: choose a set with labels"
        )
    each, left = divmod(num_labels, classes)
    counts = np.bincount(pool.labels, minlength=classes)
    if left or not 1 <= each <= counts.min():
        raise UserError(
            f"{num_labels} labels cannot be drawn evenly from {pool.name}: give a multiple of its {classes} classes, "
            f"at most {counts.min()} a class"
        )
    return pool.subset(draw_rows(pool.labels, each, seed))


def train_supervised(
    labelled: ImageSet,
    monitor: ImageSet,
    model: ModelConfig,
    settings: Settings,
    *,
    seed: int,
    precision: Precision = "float32",
    device: str | torch.device = "cpu",
) -> tuple[SupervisedCnn, int]:
    """Train the discriminator's architecture on labels, and keep the weights of its best epoch.

    Parameters
    ----------
    labelled : ImageSet
        What it learns from.
    monitor : ImageSet
        Validation images that choose the epoch, after each of which they are classified.
    model : ModelConfig
        The discriminator's.
    settings : Settings
        Of the optimiser and the schedule.
    seed : int
        Of the weights, the order, the dropout and the augmentation.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions.
    device : str or torch.device, default "cpu"
        Where to train.

    Returns
    -------
    network : SupervisedCnn
        In evaluation mode.
    epoch : int
        The epoch that was chosen, counted from 1.
    """
    steps = settings.epochs * max(1, len(labelled) // settings.batch_size)
    best_error, best_epoch, best_weights = np.inf, 0, {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SupervisedCnn(model, labelled.num_classes, settings.dropout)
        network = network.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            network.parameters(),
            settings.learning_rate,
            (settings.beta1, 0.999),
            weight_decay=settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        rng = np.random.default_rng(seed)
        norms = [
            module
            for module in network.modules()
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        ]
        for norm in norms:
            norm.momentum = None  # a mean over the epoch: few steps are too few for a moving one to forget its start
        for epoch in range(1, settings.epochs + 1):
            for norm in norms:
                norm.reset_running_stats()
            for x_u8, labels_b in _minibatches(labelled, settings, rng):
                loss = F.cross_entropy(
                    _logits(network.train(), x_u8, precision), labels_b.to(device)
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
            error = wrong_answers(network, monitor, precision=precision).mean()
            if error < best_error:
                best_error, best_epoch, best_weights = (
                    error,
                    epoch,
                    copy.deepcopy(network.state_dict()),
                )
            elif epoch - best_epoch >= PATIENCE:
                break
    network.load_state_dict(best_weights)
    return network.eval(), best_epoch


@torch.no_grad()
def wrong_answers(
    network: SupervisedCnn, image_set: ImageSet, *, precision: Precision = "float32"
) -> np.ndarray:
    """Return which images a network names wrongly, in evaluation mode: bool, shape (n,)."""
    network.eval()
    portions = (slice(start, start + 500) for start in range(0, len(image_set), 500))
    named = [
        _logits(network, torch.from_numpy(np.array(image_set.images_u8[rows])), precision)
        .argmax(1)
        .cpu()
        .numpy()
        for rows in portions
    ]
    return np.concatenate(named) != image_set.labels


def _logits(network: SupervisedCnn, x_u8: Tensor, precision: Precision) -> Tensor:
    device = next(network.parameters()).device
    x_bchw = from_u8(x_u8.to(device), network.config).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network(x_bchw)


def _minibatches(
    labelled: ImageSet, settings: Settings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch in a new order; a short rest is dropped, as batch norm wants batches of one size."""
    photographs = labelled.name in MIRRORED_SETS
    shift = max(labelled.image_size) // (8 if photographs else 16) if settings.augment else 0
    size = min(settings.batch_size, len(labelled))
    order = rng.permutation(len(labelled))
    for start in range(0, len(labelled) - size + 1, size):
        rows = order[start : start + size]
        x_u8 = augment(
            torch.from_numpy(labelled.images_u8[rows]), shift, photographs and settings.augment, rng
        )
        yield x_u8, torch.from_numpy(labelled.labels[rows])


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
        require(
            width is None or width >= 1,
            "the base width",
            width,
            "at least 1, or unset for the recipe's",
        )
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
    SupervisedCnn(
        search.model, search.labelled(0).num_classes
    )  # what is refused must leave no folder behind
    path = run_dir / "search.json"
    told = asdict(search) | {"space": describe_space().splitlines()}
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): choose another --run-dir") from error
        differing = sorted(
            name for name in told.keys() | found.keys() if told.get(name) != found.get(name)
        )
        if differing:
            raise UserError(
                f"{run_dir} holds a search with another {', '.join(differing)}: choose another --run-dir"
            )
    try:
        atomic_write(path, json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot keep a search in {run_dir} ({error}): choose another --run-dir"
        ) from error


def run_trials(
    search: Search, run_dir: Path, num_trials: int, device: str = "cpu"
) -> Iterator[dict[str, Any]]:
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
    search: Search,
    run_dir: Path,
    best: dict[str, Any],
    num_draws: int,
    *,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
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
        judged["test"] = ImageSet(
            name=search.image_set, images_u8=test[0], labels=test[1], class_names=classes
        )
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
    flat, others = (
        images.images_u8.reshape(len(images), -1).astype(np.float32)
        for images in (labelled, judged)
    )
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
        raise UserError(
            f"Table 2 has the best of {PAPER_TRIALS} trials, but these are {num_trials}: try as many"
        )
    if search.num_labels != PAPER_LABELS:
        raise UserError(
            f"Table 2 has {PAPER_LABELS:,} labels, but these are {search.num_labels:,}: give as many"
        )
    check_command(id, command, search.image_set)


def record_search(
    id: str,
    search: Search,
    trials: list[dict[str, Any]],
    draws: list[dict[str, Any]],
    *,
    num_tested: int,
    command: str,
    root: Path | None = None,
) -> Result:
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
        np.array([line[f"{kind}_error"] for line in draws])
        for kind in ("validation", "test", "neighbour")
    )
    test, ahead = mean_interval(tested), mean_interval(nearest - errors)
    checks = {
        f"nearest neighbours on pixels with the same labels err more ({nearest.mean():.2f} %)": ahead.low
        > 0
    }
    numeric = isinstance(CLAIMS[CLAIM].rule_on(split_id(id)[1]), NumericRule)
    plain = min(
        (line["validation_error"] for line in trials if not line["settings"]["augment"]),
        default=None,
    )
    without = "" if plain is None else f"; the best without augmentation had {plain:.2f} % there"
    notes = (
        f"test error {test.value:.2f} % [{test.low:.2f}, {test.high:.2f}]; the best of {len(trials)} trials had "
        f"{best['validation_error']:.2f} % on validation: {Settings(**best['settings']).text()}{without}. "
        f"{search.num_labels:,} labels, {len(draws)} fresh draws, over which the intervals run and n counts; "
        f"{search.recipe}'s discriminator, width {search.model.base_width}; epochs are chosen on validation images too"
    )
    row = record(
        id,
        value=mean_interval(errors),
        unit="%",
        n=len(draws),
        data=f"{search.image_set}, validation",
        command=command,
        seconds=sum(line["seconds"] for line in [*trials, *draws]),
        seed=search.seed,
        checks=None if numeric else checks,
        notes=notes,
        root=root,
    )
    keep_draws(row, tested.tolist(), num_tested, root)
    return row


def _fit(
    search: Search,
    settings: Settings,
    labelled: ImageSet,
    number: int,
    judged: dict[str, ImageSet],
    device: str,
) -> dict[str, Any]:
    """Train once and return the chosen epoch and the error on each set."""
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    options = {"seed": seed, "precision": search.precision, "device": device}
    network, epoch = train_supervised(labelled, search.monitor, search.model, settings, **options)
    errors = {
        f"{name}_error": round(
            100 * float(wrong_answers(network, images, precision=search.precision).mean()), 3
        )
        for name, images in judged.items()
    }
    return {"epoch": epoch} | errors


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    atomic_write(path, "".join(json.dumps(line) + "\n" for line in lines))


@dataclass(frozen=True, kw_only=True)
class SearchCommand:
    """Train the discriminator's architecture on few labels, with settings drawn at random (Table 2).

    Ctrl-C ends the search between two trials or within one; the same command goes on with that trial.
    """

    set: str = "cifar10"
    """Image set with labels: cifar10, svhn, mnist, street-digits, digits."""
    trials: int = 64
    """Settings to try; the paper's number."""
    run_dir: Path | None = None
    """Folder of the search; unset: runs/search-SET."""
    recipe: Annotated[str, arg(metavar="NAME")] = "paper-svhn"
    """Whose discriminator is trained; images are brought to its size. See: dcgan recipes."""
    base_width: int | None = None
    """Feature maps at the finest resolution; unset: the recipe's."""
    num_labels: int = 1_000
    """Labelled images, as many of each class."""
    draws: int = 10
    """Fresh sets of labels that the best settings are trained on at the end."""
    minutes: float | None = None
    """Begin no trial after this many minutes; the same command goes on later."""
    seed: int = 0
    """Of the labels, the settings and the weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the convolutions."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto: a GPU if there is one."""
    threads: int = 1
    """CPU threads; a resumed search repeats an unbroken one bit for bit only with the same number."""
    record: str | None = None
    """Enter the error into the claims ledger under this id, such as table2.supervised:cifar10; test is touched now."""
    again: bool = False
    """Measure a recorded result again, on purpose."""

    def run(self) -> None:
        """Search, repeat the best settings on fresh labels, print, and record if asked."""
        import torch

        from dcgan_lib.evaluation.protocols import check_unused
        from dcgan_lib.training.loop import choose_device

        if min(self.trials, self.threads) < 1 or self.draws < 2:
            given = f"{self.trials}, {self.threads} and {self.draws}"
            raise UserError(
                f"a search needs at least 1 trial, 1 thread and 2 draws, but got {given}"
            )
        search = Search(
            self.set, self.recipe, self.base_width, self.num_labels, self.seed, self.precision
        )
        if self.record:
            check_search_row(self.record, search, self.trials, self._command())
            check_unused(self.record, again=self.again)
        run_dir, device = (
            self.run_dir or Path("runs", f"search-{search.image_set}"),
            str(choose_device(self.device)),
        )
        torch.set_num_threads(self.threads)
        trials = self._try(search, run_dir, device)
        best = best_trial(trials)
        print(f"best of {len(trials)}: trial {best['trial']}, {_trial_text(best)}")
        if len(trials) < self.trials:
            print(
                f"{len(trials)} of {self.trials} trials are done: the same command goes on with the rest"
            )
            return
        if not self.record:
            _print_draws(repeat_best(search, run_dir, best, self.draws, device=device))
            return
        with search.splits.test_for(self.record, again=self.again) as test:
            draws = repeat_best(search, run_dir, best, self.draws, test=test, device=device)
            _print_draws(draws)
            told = {"num_tested": len(test[1]), "command": self._command()}
            row = record_search(self.record, search, trials, draws, **told)
        print(f"recorded {row.id}: {row.verdict}")

    def _try(self, search: "Search", run_dir: Path, device: str) -> list[dict[str, Any]]:
        """Run the trials that are left, as far as the minutes last, and return all that are done."""
        open_search(search, run_dir)
        print(f"settings are drawn from:\n{describe_space()}")
        if done := len(read_trials(run_dir)):
            print(f"going on in {run_dir}: {done} trials are done")
        begun = time.monotonic()
        for line in run_trials(search, run_dir, self.trials, device):
            print(
                f"trial {line['trial']:2}  {_trial_text(line)}; {line['seconds']:.0f} s", flush=True
            )
            if self.minutes is not None and time.monotonic() - begun >= 60 * self.minutes:
                break
        return read_trials(run_dir)[: self.trials]

    def _command(self) -> str:
        words = [
            f"dcgan search --set {self.set}",
            f"--trials {self.trials}",
            f"--recipe {self.recipe}",
        ]
        words += [f"--base-width {self.base_width}"] if self.base_width is not None else []
        words += [f"--num-labels {self.num_labels}", f"--draws {self.draws}", f"--seed {self.seed}"]
        return " ".join([*words, f"--precision {self.precision}", f"--record {self.record}"])


def _trial_text(line: dict[str, Any]) -> str:

    settings = Settings(**line["settings"]).text()
    return f"validation error {line['validation_error']:.2f} % at epoch {line['epoch']}; {settings}"


def _print_draws(draws: list[dict[str, Any]]) -> None:
    import numpy as np

    from dcgan_lib.evaluation.statistics import mean_interval

    print(f"the same settings on {len(draws)} fresh draws of labels:")
    for kind in ("validation", "neighbour", "test"):
        if all(f"{kind}_error" in line for line in draws):
            value, low, high = mean_interval(np.array([line[f"{kind}_error"] for line in draws]))
            told = "1-NN on pixels, validation" if kind == "neighbour" else kind
            print(f"{told} error {value:.2f} % [{low:.2f}, {high:.2f}]")
