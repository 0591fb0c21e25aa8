"""The command ``dcgan search``: the purely supervised row of the paper's Table 2."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    from dcgan_lib.evaluation.supervised_search import Search as Described


@dataclass(frozen=True, kw_only=True)
class Search:
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

        from dcgan_lib.evaluation import supervised_search as module
        from dcgan_lib.evaluation.held_out import check_unused
        from dcgan_lib.training.loop import choose_device

        if min(self.trials, self.threads) < 1 or self.draws < 2:
            given = f"{self.trials}, {self.threads} and {self.draws}"
            raise UserError(f"a search needs at least 1 trial, 1 thread and 2 draws, but got {given}")
        search = module.Search(self.set, self.recipe, self.base_width, self.num_labels, self.seed, self.precision)
        if self.record:
            module.check_search_row(self.record, search, self.trials, self._command())
            check_unused(self.record, again=self.again)
        run_dir, device = self.run_dir or Path("runs", f"search-{search.image_set}"), str(choose_device(self.device))
        torch.set_num_threads(self.threads)
        trials = self._try(search, run_dir, device)
        best = module.best_trial(trials)
        print(f"best of {len(trials)}: trial {best['trial']}, {_trial_text(best)}")
        if len(trials) < self.trials:
            print(f"{len(trials)} of {self.trials} trials are done: the same command goes on with the rest")
            return
        if not self.record:
            _print_draws(module.repeat_best(search, run_dir, best, self.draws, device=device))
            return
        with search.splits.test_for(self.record, again=self.again) as test:
            draws = module.repeat_best(search, run_dir, best, self.draws, test=test, device=device)
            _print_draws(draws)
            told = {"num_tested": len(test[1]), "command": self._command()}
            row = module.record_search(self.record, search, trials, draws, **told)
        print(f"recorded {row.id}: {row.verdict}")

    def _try(self, search: "Described", run_dir: Path, device: str) -> list[dict[str, Any]]:
        """Run the trials that are left, as far as the minutes last, and return all that are done."""
        from dcgan_lib.evaluation import supervised_search as module

        module.open_search(search, run_dir)
        print(f"settings are drawn from:\n{module.describe_space()}")
        if done := len(module.read_trials(run_dir)):
            print(f"going on in {run_dir}: {done} trials are done")
        begun = time.monotonic()
        for line in module.run_trials(search, run_dir, self.trials, device):
            print(f"trial {line['trial']:2}  {_trial_text(line)}; {line['seconds']:.0f} s", flush=True)
            if self.minutes is not None and time.monotonic() - begun >= 60 * self.minutes:
                break
        return module.read_trials(run_dir)[: self.trials]

    def _command(self) -> str:
        words = [f"dcgan search --set {self.set}", f"--trials {self.trials}", f"--recipe {self.recipe}"]
        words += [f"--base-width {self.base_width}"] if self.base_width is not None else []
        words += [f"--num-labels {self.num_labels}", f"--draws {self.draws}", f"--seed {self.seed}"]
        return " ".join([*words, f"--precision {self.precision}", f"--record {self.record}"])


def _trial_text(line: dict[str, Any]) -> str:
    from dcgan_lib.evaluation.supervised import Settings

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
