"""Exemplars picked by eye, kept in a file so that their sums can be made again.

Axes: g concepts, k exemplars of a concept, d latent. An exemplar is the number of a sample: sample i of a pool is the
same whenever the checkpoint, the pool's seed and its size are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import find_run

FILE = "exemplars.json"
TURN = ("looking left", "looking right")
"""The concepts that a turn vector needs; left and right are the viewer's."""


@dataclass(frozen=True, kw_only=True)
class Exemplars:
    """Hold which samples show which concept.

    Parameters
    ----------
    checkpoint : str
        The generator that draws them.
    seed, pool : int
        Seed and size of the pool that the numbers count in.
    concepts : mapping of str to sequence of int
        A concept's name to its samples, counted from 0, all different.
    sums : mapping of str to sequence of str, optional
        A sum's name to its concepts A, B and C, which have equally many samples.

    Raises
    ------
    UserError
        If a number does not lie in the pool or comes twice, or a sum does not fit.
    """

    checkpoint: str
    seed: int
    pool: int
    concepts: Mapping[str, Sequence[int]]
    sums: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers and the sums."""
        if not self.concepts:
            raise UserError("exemplars need at least one concept, but none came")
        for name, numbers in self.concepts.items():
            wrong = [n for n in numbers if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < self.pool]
            if wrong:
                raise UserError(f"{name}: the pool's samples are numbered 0 to {self.pool - 1}, but {wrong[0]!r} came")
            if len(set(numbers)) != len(numbers):
                raise UserError(f"{name}: a sample comes twice among {list(numbers)}")
        for name, trio in self.sums.items():
            if len(trio) != 3:
                raise UserError(f"the sum {name} needs the concepts A, B and C, but has {len(trio)}")
            self.numbers(trio)

    def check_checkpoint(self, name: str) -> None:
        """Refuse a generator other than the one whose samples were picked.

        Raises
        ------
        UserError
            If it is another.
        """
        if Path(name).name != Path(self.checkpoint).name:
            raise UserError(f"the exemplars are samples of {self.checkpoint}, but the checkpoint is {name}")

    def numbers(self, names: Sequence[str]) -> list[list[int]]:
        """Return the samples of some concepts, of each equally many.

        Raises
        ------
        UserError
            If there is no such concept, it is empty, or one has more samples than another.
        """
        unknown = set(names) - set(self.concepts)
        if unknown:
            raise UserError(f"no exemplars of {', '.join(sorted(unknown))}: there are {', '.join(self.concepts)}")
        found = [list(self.concepts[name]) for name in names]
        if len({len(numbers) for numbers in found}) != 1 or not found[0]:
            raise UserError(f"{', '.join(names)} need equally many exemplars, but have {[len(n) for n in found]}")
        return found

    def latents(self, names: Sequence[str], config: ModelConfig) -> np.ndarray:
        """Return the latent vectors of some concepts' exemplars, shape (g, k, d)."""
        return self.pool_latents(config)[np.array(self.numbers(names))]

    def pool_latents(self, config: ModelConfig) -> np.ndarray:
        """Return the latent vectors of the whole pool, float32."""
        return sample_latents(self.pool, config, seeded(self.seed)).numpy()

    def save(self, path: str | Path) -> None:
        """Write them as JSON, for `load_exemplars` and ``dcgan arithmetic --exemplars``."""
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        about |= {"concepts": {name: list(numbers) for name, numbers in self.concepts.items()}}
        about |= {"sums": {name: list(trio) for name, trio in self.sums.items()}} if self.sums else {}
        text = json.dumps(about, indent=1)
        lists = re.compile(r"\[[^\[\]{}]*\]")  # each on one line
        text = lists.sub(lambda found: json.dumps(json.loads(found[0])), text)
        atomic_write(Path(path), text + "\n")


def load_exemplars(name_or_path: str | Path) -> Exemplars:
    """Read exemplars from a file, or those kept beside a checkpoint's weights.

    Parameters
    ----------
    name_or_path : str or Path
        A JSON file, or a checkpoint's name such as "faces".

    Raises
    ------
    UserError
        If there are none, the file is damaged, or see `Exemplars`.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" and not path.is_file():
        raise UserError(f"there is no file of exemplars at {path}: pick some with dcgan_lib.widgets.picker")
    path = path if path.is_file() else find_run(name_or_path) / FILE
    if not path.is_file():
        raise UserError(f"{name_or_path} has no {FILE}: pick exemplars with dcgan_lib.widgets.picker and save them")
    try:
        return Exemplars(**json.loads(path.read_text(encoding="utf-8")))
    except UserError:
        raise
    except (OSError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path.name} holds no exemplars ({error}): pick and save them again") from error
