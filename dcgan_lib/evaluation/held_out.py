"""Labelled images whose test part is given out once for each result that is recorded.

Choices are made on validation images, so that the test images tell something new: they are not even loaded before
a result asks for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_lib.data.drawn_sets import PROCEDURAL
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.sources import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.claims import split_id
from dcgan_lib.evaluation.results import load_results

NUM_DRAWN_TO_JUDGE = 10_000
"""Validation and test images of a drawn set: as many as the published sets have."""

_given_out: set[tuple[str, Path | None]] = set()


@dataclass(frozen=True, kw_only=True)
class LabelledSplits:
    """Hold the training and validation images of a set, and guard its test images.

    Parameters
    ----------
    train, validation : ImageSet
        With labels of the same classes.
    source : str, optional
        Where the test images are loaded from; by default the set's name.
    """

    train: ImageSet
    validation: ImageSet
    source: str | None = None

    def __post_init__(self) -> None:
        """Refuse sets without labels, and sets that differ."""
        for part in (self.train, self.validation):
            if part.labels is None:
                raise UserError(f"an SVM needs classes to tell apart, but {part.name!r} has none")
        kinds = {(part.name, part.class_names, part.images_u8.shape[1:]) for part in (self.train, self.validation)}
        if len(kinds) > 1:
            raise UserError(f"training and validation images must be of one set and size, but are {sorted(kinds)}")

    @property
    def name(self) -> str:
        """Return the set's name."""
        return self.train.name

    @contextmanager
    def test_for(
        self, id: str, *, again: bool = False, root: Path | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give out the test images and labels for one result of the ledger.

        Parameters
        ----------
        id : str
            The result that they are for, such as ``table1.dcgan.full``.
        again : bool, default False
            Measure a result that was measured before, on purpose.
        root : Path, optional
            The ledger's folder; by default ``data/results``.

        Yields
        ------
        images_u8, labels : ndarray
            uint8, n x c x h x w, and int64, n.

        Raises
        ------
        UserError
            If there is no such claim, or the result was measured before.
        """
        check_unused(id, again=again, root=root)
        like = {"image_size": self.train.image_size, "channels": self.train.num_channels}
        test = _load(self.source or self.name, "test", **like)
        _given_out.add((full_id(id), root))
        yield test.images_u8, test.labels


def check_unused(id: str, *, again: bool = False, root: Path | None = None) -> None:
    """Refuse, before anything is computed, what `LabelledSplits.test_for` would refuse."""
    key = full_id(id)
    measured = {row.id for row in load_results(root) if row.is_measured}
    if (key in measured or (key, root) in _given_out) and not again:
        raise UserError(
            f"the test images were used for {key} before, and a second look would make them training data: "
            "choose on validation, or say that the result is measured again on purpose"
        )


def full_id(id: str) -> str:
    """Return the id as the ledger writes it: without the set's name when that is the paper's own."""
    claim_id, set_name = split_id(id)
    return claim_id if set_name is None else f"{claim_id}:{set_name}"


def load_splits(
    name: str, *, image_size: tuple[int, int] | None = None, channels: int | str = "auto", download: bool = False
) -> LabelledSplits:
    """Load the training and validation images of a set.

    Parameters
    ----------
    name, image_size, channels, download
        See `dcgan_lib.data.sources.load_image_set`.
    """
    how = {"image_size": image_size, "channels": channels, "download": download}
    train, validation = (_load(name, split, **how) for split in ("train", "validation"))
    return LabelledSplits(train=train, validation=validation, source=str(name))


def _load(name: str, split: str, **how: Any) -> ImageSet:
    drawn = str(name).casefold().replace("_", "-") in PROCEDURAL
    return load_image_set(name, split, num_images=NUM_DRAWN_TO_JUDGE if drawn and split != "train" else None, **how)
