"""The purely supervised row of Table 2: the discriminator's architecture on few labels.

Settings are drawn at random. Each trial, and each of the draws of labels on which the best one is
repeated, is a file of its own in the search's folder, so that the same command goes on with what is
left.

Axes: n images, b of a batch, c x h x w pixels, k classes; errors are in per cent unless they are
bool.
"""

import copy
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
from torch import Tensor
from torch.nn import functional as F
from tyro.conf import arg

from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import ModelConfig, recipe
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import set_names
from dcgan_lib.errors import (
    HeldElsewhereError,
    UserError,
    check_number,
    check_numbers,
    require,
)
from dcgan_lib.evaluation.ledger import Result, check_command, claim_of, full_id, id_on, record
from dcgan_lib.evaluation.neighbours import nearest
from dcgan_lib.evaluation.probes import augment
from dcgan_lib.evaluation.protocols import (
    LabelledSplits,
    check_unused,
    draw_rows,
    load_splits,
    plain_name,
)
from dcgan_lib.evaluation.statistics import Estimate, mean_interval
from dcgan_lib.experiments.tables_1_and_2 import (
    MIRRORED_SETS,
    SUPERVISED,
    Draws,
    keep_draws,
)
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.models.sampling import batch_norms, from_u8, in_batches
from dcgan_lib.paths import exclusive, read_json, write_json
from dcgan_lib.training.loop import choose_device

Precision = Literal["float32", "bfloat16"]

SPACE: dict[str, Any] = {
    "learning_rate": stats.loguniform(1e-4, 1e-2),
    "beta1": [0.5, 0.9],
    "weight_decay": stats.loguniform(1e-4, 1),
    "dropout": stats.uniform(0, 0.7),
    "augment": [False, True],
    "batch_size": [32, 64, 128],
    "epochs": [15, 30, 60, 120, 240],
}
"""Where settings are drawn from; a search leaves out trainings that are longer than it allows."""
LONGEST = 60
PAPER_TRIALS, PAPER_LABELS = 64, 1_000
NUM_MONITORED = 1_000
PATIENCE = 8
"""Epochs without a lower validation error after which a training stops; an eighth of those of a
longer training."""


# ---------------------------------------------------------------- one training


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold one point of the search space."""

    learning_rate: float
    """Of AdamW, at the start; it falls to 0 along a line."""
    beta1: float
    weight_decay: float
    """Both of AdamW."""
    dropout: float
    """Before the last layer."""
    augment: bool
    """Whether images are moved, by up to an eighth of their side in photographs and a sixteenth in
    digits, and in photographs mirrored by chance."""
    batch_size: int
    epochs: int
    """Passes over the labelled images, at most."""

    def text(self) -> str:
        """Return the settings in words."""
        return (
            f"learning rate {self.learning_rate:.2g}, beta1 {self.beta1:g}, "
            f"weight decay {self.weight_decay:.2g}, dropout {self.dropout:.2f}, "
            f"augmentation {'on' if self.augment else 'off'}, "
            f"batch {self.batch_size}, {self.epochs} epochs"
        )


def search_space(longest: int = LONGEST) -> dict[str, Any]:
    """Return what each setting is drawn from, without trainings of more epochs than ``longest``."""
    least = min(SPACE["epochs"])
    require(longest >= least, "the longest training", longest, f"at least {least} epochs")
    epochs = [number for number in SPACE["epochs"] if number <= longest]
    return SPACE | {"epochs": epochs}


def describe_space(longest: int = LONGEST) -> str:
    """Return the search space in words, one line a setting."""
    lines = []
    for name, values in search_space(longest).items():
        if isinstance(values, list):
            text = f"one of {', '.join(map(str, values))}"
        else:
            kind = values.dist.name.replace("log", "log-")
            text = "{} from {:g} to {:g}".format(kind, *values.support())
        lines.append(f"{name:14}{text}")
    return "\n".join(lines)


def draw_settings(seed: int, trial: int, longest: int = LONGEST) -> Settings:
    """Draw the settings of a trial, the same ones whenever it is asked."""
    space = search_space(longest)
    (drawn,) = ParameterSampler(space, 1, random_state=_seed(seed, trial))
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in drawn.items()}
    return Settings(**plain)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def draw_labelled(pool: ImageSet, num_labels: int, seed: int | list[int]) -> ImageSet:
    """Choose training images with labels at random, as many of each class."""
    each, left = divmod(num_labels, pool.num_classes)
    if left:
        raise UserError(
            f"{num_labels} labels cannot be drawn evenly from {pool.name}: give a multiple of "
            f"its {pool.num_classes} classes"
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

    The ``monitor`` images, classified after each epoch, say which that is. Return the network in
    evaluation mode, and the epoch, counted from 1.
    """
    patience = max(PATIENCE, settings.epochs // 8)
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
        rng, norms = np.random.default_rng(seed), batch_norms(network)
        for norm in norms:
            norm.momentum = None  # a mean over the epoch: a moving one would not forget its start
        for epoch in range(1, settings.epochs + 1):
            for norm in norms:
                norm.reset_running_stats()
            for x_u8, labels_b in minibatches(labelled, settings, rng):
                logits_bk = _logits(network.train(), x_u8, precision)
                loss = F.cross_entropy(logits_bk, labels_b.to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
            error = wrong_answers(network, monitor, precision=precision).mean()
            if error < best_error:
                best_error, best_epoch = error, epoch
                best_weights = copy.deepcopy(network.state_dict())
            elif epoch - best_epoch >= patience:
                break
    network.load_state_dict(best_weights)
    return network.eval(), best_epoch


def minibatches(
    labelled: ImageSet, settings: Settings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch in a new order; a short rest is dropped, for batch norm's sake."""
    photographs = labelled.name in MIRRORED_SETS
    shift = max(labelled.image_size) // (8 if photographs else 16) if settings.augment else 0
    flip = photographs and settings.augment
    size = min(settings.batch_size, len(labelled))
    order = rng.permutation(len(labelled))
    for start in range(0, len(labelled) - size + 1, size):
        rows = order[start : start + size]
        x_u8 = augment(torch.from_numpy(labelled.images_u8[rows]), shift, flip, rng)
        yield x_u8, torch.from_numpy(labelled.labels[rows])


def wrong_answers(
    network: SupervisedCnn, image_set: ImageSet, *, precision: Precision = "float32"
) -> np.ndarray:
    """Return which images a network names wrongly, in evaluation mode: bool, shape (n,)."""
    network.eval()

    def name(images_u8: np.ndarray) -> Tensor:
        return _logits(network, torch.from_numpy(np.array(images_u8)), precision).argmax(1)

    return in_batches(name, image_set.images_u8, batch_size=500) != image_set.labels


def _logits(network: SupervisedCnn, x_u8: Tensor, precision: Precision) -> Tensor:
    device = next(network.parameters()).device
    x_bchw = from_u8(x_u8.to(device), network.config).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network(x_bchw)


def neighbour_error(labelled: ImageSet, judged: ImageSet) -> float:
    """Return the error of the nearest labelled image in pixels, in per cent."""
    _, rows = nearest(judged.images_u8, labelled.images_u8)
    return _per_cent(labelled.labels[rows] != judged.labels)


def _per_cent(wrong: np.ndarray) -> float:
    return round(100 * float(wrong.mean()), 3)


# ---------------------------------------------------------------- the search


@dataclass(frozen=True, kw_only=True)
class Search(Command, verb="search"):
    """Train the discriminator's architecture on few labels, settings drawn at random (Table 2).

    Ctrl-C ends the search between two trials or within one; the same command goes on with that
    trial. Several processes may work on one search: each takes the trials that no other has begun.
    """

    set: str = "cifar10"
    """Image set with labels: cifar10, svhn, svhn10k, mnist, street-digits, digits, or a folder."""
    trials: int = PAPER_TRIALS
    """Settings to try; the paper's number."""
    run_dir: Path | None = local(None)
    """Folder of the search; unset: runs/search-SET."""
    recipe: Annotated[str, arg(metavar="NAME")] = "paper-svhn"
    """Whose discriminator is trained, unconditional; images are brought to its size. See: dcgan
    recipes."""
    base_width: int | None = None
    """Feature maps at the finest resolution; unset: the recipe's."""
    num_labels: int = PAPER_LABELS
    """Labelled images, as many of each class."""
    longest: int = LONGEST
    """Longest training to try, in epochs: 15, 30, 60, 120 and 240, up to this."""
    draws: int = 10
    """Fresh sets of labels that the best settings are trained on at the end."""
    seed: int = 0
    """Of the labels, the settings and the weights."""
    precision: Precision = "float32"
    """Arithmetic of the convolutions."""
    device: Device = local("auto")
    """Where to train; auto: a GPU if there is one."""
    threads: int = local(1)
    """CPU threads; a resumed search repeats an unbroken one bit for bit only with the same
    number."""
    record: str | None = None
    """Enter the error into the claims ledger under this id, such as table2.supervised:cifar10;
    test is touched now."""
    again: bool = local(False)
    """Measure a recorded result again, on purpose."""

    def run(self) -> None:
        """Search, repeat the best settings on fresh labels, print, and record if asked."""
        check_number(self, "seed", 0)
        check_number(self, "draws", 2)
        check_numbers(self, 1, "trials", "threads")
        if self.base_width is not None:
            check_number(self, "base_width", 1)
        search_space(self.longest)
        if self.record:
            self.check_row()
        torch.set_num_threads(self.threads)
        self.open_folder()
        print(f"settings are drawn from:\n{describe_space(self.longest)}")
        if done := len(self.finished("trial")):
            print(f"going on in {self.folder}: {done} trials are done")
        for found in self.run_trials():
            told = f"{_trial_text(found)}; {found['seconds']:.0f} s"
            print(f"trial {found['trial']:2}  {told}", flush=True)
        trials = self.finished("trial")[: self.trials]
        best = best_trial(trials)
        print(f"best of {len(trials)}: trial {best['trial']}, {_trial_text(best)}")
        if len(trials) < self.trials:
            print(
                f"{len(trials)} of {self.trials} trials are done: the same command goes on with "
                "the rest"
            )
            return
        if not self.record:
            self._show(self.repeat_best(best))
            return
        with self.splits.test_for(self.record, again=self.again) as test:
            draws = self.repeat_best(best, test)
        self._show(draws)
        self.enter(trials, draws, len(test))

    def _show(self, draws: list[dict[str, Any]]) -> None:
        print(f"the same settings on {len(draws)} fresh draws of labels:")
        kinds = {"validation": "validation", "neighbour": "1-NN on pixels, validation"}
        if all("test_error" in found for found in draws):
            kinds["test"] = "test"
        for kind, words in kinds.items():
            print("{} error {:.2f} % [{:.2f}, {:.2f}]".format(words, *_mean(draws, kind)))

    @property
    def set_name(self) -> str:
        """Return a known set's one name; a folder's is left alone, as its letters' case matters."""
        plain = plain_name(self.set)
        return plain if plain in set_names() else self.set

    @property
    def folder(self) -> Path:
        """Return where the search is kept."""
        return self.run_dir or Path("runs", f"search-{self.set_name}")

    @cached_property
    def splits(self) -> LabelledSplits:
        """Return the set's images at the network's size, and the guard of its test images."""
        return load_splits(self.set_name, image_size=recipe(self.recipe).config.model.image_size)

    @cached_property
    def model(self) -> ModelConfig:
        """Return the discriminator's configuration, with the set's number of channels."""
        model = recipe(self.recipe).config.model
        return replace(
            model,
            base_width=self.base_width or model.base_width,
            num_channels=self.splits.train.num_channels,
        )

    @cached_property
    def monitor(self) -> ImageSet:
        """Return the validation images that choose an epoch: 1,000 at most, drawn at random."""
        validation = self.splits.validation
        order = np.random.default_rng(self.seed).permutation(len(validation))
        return validation.subset(np.sort(order[:NUM_MONITORED]))

    def labelled(self, draw: int) -> ImageSet:
        """Return labelled images: draw 0 is the search's own, every other number has others."""
        return draw_labelled(self.splits.train, self.num_labels, [self.seed, draw])

    def check_row(self) -> None:
        """Refuse, before anything is trained, a row that could not be recorded."""
        own = id_on(SUPERVISED, plain_name(self.set))
        if full_id(self.record) != own:
            raise UserError(f"this search is measured as {own}, not {self.record!r}: record it so")
        if self.trials < PAPER_TRIALS:
            raise UserError(
                f"Table 2 has the best of {PAPER_TRIALS} trials, but these are {self.trials}: "
                "try as many"
            )
        if self.num_labels != PAPER_LABELS:
            raise UserError(
                f"Table 2 has {PAPER_LABELS:,} labels, but these are {self.num_labels:,}: give "
                "as many"
            )
        check_command(own, self.command_line(), self.set)
        check_unused(own, again=self.again)

    def open_folder(self) -> None:
        """Begin the search in its folder, or make sure that the one there is the same."""
        SupervisedCnn(self.model, self.labelled(0).num_classes)  # refused: no folder is left behind
        path = self.folder / "search.json"
        fixed = ("recipe", "base_width", "num_labels", "seed", "precision")
        asked = {"set": self.set_name} | {name: getattr(self, name) for name in fixed}
        asked["space"] = describe_space(self.longest).splitlines()
        if path.exists():
            found = read_json(path, "choose another --run-dir")
            if differing := [name for name in asked if asked[name] != found.get(name)]:
                raise UserError(
                    f"{self.folder} holds a search with another {', '.join(differing)}: choose "
                    "another --run-dir"
                )
        try:
            write_json(path, asked)
        except OSError as error:
            raise UserError(
                f"cannot keep a search in {self.folder} ({error}): choose another --run-dir"
            ) from error

    def finished(self, kind: str) -> list[dict[str, Any]]:
        """Return the trials (``trial``) or repeats (``draw``) that are done, in order."""
        return [_read(path) for path in sorted(self.folder.glob(f"{kind}-*.json"))]

    def run_trials(self) -> Iterator[dict[str, Any]]:
        """Run the trials that nobody has run or begun; each is on disk before it is yielded."""
        labelled, judged = self.labelled(0), {"validation": self.splits.validation}
        for trial in range(self.trials):
            path = self.folder / f"trial-{trial:04}.json"
            try:
                with exclusive(path, wait=False):
                    if path.exists():
                        continue
                    begun, settings = (
                        time.monotonic(),
                        draw_settings(self.seed, trial, self.longest),
                    )
                    found = {"trial": trial, "settings": asdict(settings)}
                    found |= self._train(settings, labelled, trial, judged)
                    _keep(path, found, begun)
            except HeldElsewhereError:
                continue
            yield found

    def repeat_best(
        self, best: dict[str, Any], test: ImageSet | None = None
    ) -> list[dict[str, Any]]:
        """Train the best trial's settings anew on fresh labels, beside nearest neighbours.

        With test images from `LabelledSplits.test_for` the error on them is measured too, and
        stands under ``test_error``, with the numbers of the images under ``test_wrong``; a draw
        that has been tested is not tested again.
        ``neighbour_error`` is that of 1-NN on pixels with the same labels, on validation images.
        """
        judged = {"validation": self.splits.validation} | ({"test": test} if test else {})
        draws = []
        for draw in range(1, self.draws + 1):
            path = self.folder / f"draw-{best['trial']:04}-{draw:04}.json"
            found = _read(path) if path.exists() else {}
            if not found or (test and "test_wrong" not in found):
                labelled, begun = self.labelled(draw), time.monotonic()
                found = {"trial": best["trial"], "draw": draw}
                found |= self._train(Settings(**best["settings"]), labelled, draw, judged)
                found["neighbour_error"] = neighbour_error(labelled, judged["validation"])
                _keep(path, found, begun)
            draws.append(found)
        return draws

    def _train(
        self, settings: Settings, labelled: ImageSet, number: int, judged: dict[str, ImageSet]
    ) -> dict[str, Any]:
        """Train once and return the chosen epoch and the error on each set."""
        network, epoch = train_supervised(
            labelled,
            self.monitor,
            self.model,
            settings,
            seed=_seed(self.seed, number),
            precision=self.precision,
            device=choose_device(self.device),
        )
        found = {"epoch": epoch}
        for name, images in judged.items():
            wrong = wrong_answers(network, images, precision=self.precision)
            found[f"{name}_error"] = _per_cent(wrong)
            if name == "test":
                found["test_wrong"] = np.flatnonzero(wrong).tolist()
        return found

    def enter(
        self, trials: list[dict[str, Any]], draws: list[dict[str, Any]], num_tested: int
    ) -> Result:
        """Enter the best trial's validation error, on fresh labels; the notes say the test error.

        Table 2 gives the network's error on validation images, as here, and its rivals' on test
        images. On another set the row is a control, judged by a relation that Table 2 shows:
        nearest neighbours on pixels err more.
        """
        claim, set_name = claim_of(self.record)
        best = best_trial(trials)
        ahead = [found["neighbour_error"] - found["validation_error"] for found in draws]
        nearest = _mean(draws, "neighbour").value
        who = f"nearest neighbours on pixels with the same labels err more ({nearest:.2f} %)"
        checks = {who: mean_interval(np.array(ahead)).low > 0}
        plain = [found["validation_error"] for found in trials if not found["settings"]["augment"]]
        without = f"; the best without augmentation had {min(plain):.2f} % there" if plain else ""
        notes = (
            "test error {:.2f} % [{:.2f}, {:.2f}]; ".format(*_mean(draws, "test"))
            + f"the best of {len(trials)} trials had {best['validation_error']:.2f} % on "
            + "validation: "
            f"{Settings(**best['settings']).text()}{without}. {self.num_labels:,} labels, "
            f"{len(draws)} fresh draws, over which the intervals run and n counts; {self.recipe}'s "
            f"discriminator, width {self.model.base_width}; epochs are chosen on validation "
            "images too"
        )
        row = record(
            self.record,
            _mean(draws, "validation"),
            unit="%",
            n=len(draws),
            data=f"{self.set_name}, validation",
            command=self.command_line(),
            seconds=sum(found["seconds"] for found in [*trials, *draws]),
            seed=self.seed,
            checks=None if claim.rule_on(set_name).is_numeric else checks,
            notes=notes,
        )
        wrong_n = np.concatenate([found["test_wrong"] for found in draws])
        tested = Draws(
            test_errors=np.array([found["test_error"] for found in draws]),
            num_images=num_tested,
            right_n=1 - np.bincount(wrong_n.astype(int), minlength=num_tested) / len(draws),
        )
        keep_draws(row, tested)
        return row


def _keep(path: Path, found: dict[str, Any], begun: float) -> None:
    found["seconds"] = round(time.monotonic() - begun, 1)
    write_json(path, found)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, "delete it, and it is measured again")


def best_trial(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the trial with the least validation error, the first of equals."""
    return min(trials, key=lambda found: found["validation_error"])


def _mean(draws: list[dict[str, Any]], kind: str) -> Estimate:
    return mean_interval(np.array([found[f"{kind}_error"] for found in draws]))


def _trial_text(found: dict[str, Any]) -> str:
    settings = Settings(**found["settings"]).text()
    return (
        f"validation error {found['validation_error']:.2f} % at epoch {found['epoch']}; {settings}"
    )
