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
from dcgan_lib.data.sources import load_image_set, set_names
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
            _check_labels(part)
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

        Notes
        -----
        Ctrl-C while they are given out takes the look back: no result came of it, and the work may go on.
        """
        check_unused(id, again=again, root=root)
        like = {"image_size": self.train.image_size, "channels": self.train.num_channels}
        test = _load(self.source or self.name, "test", **like)
        _given_out.add((full_id(id), root))
        try:
            yield test.images_u8, test.labels
        except KeyboardInterrupt:
            _given_out.discard((full_id(id), root))
            raise


def check_unused(id: str, *, again: bool = False, root: Path | None = None) -> None:
    """Refuse, before anything is computed, what `LabelledSplits.test_for` would refuse."""
    key = full_id(id)
    measured = {row.id for row in load_results(root) if row.is_measured}
    if (key in measured or (key, root) in _given_out) and not again:
        raise UserError(
            f"the test images were used for {key} before, and a second look would make them training data: "
            "choose on validation, or say by --again (in Python again=True) that it is measured again on purpose"
        )


def full_id(id: str) -> str:
    """Return the id as the ledger writes it: without the set's name when that is the paper's own."""
    claim_id, set_name = split_id(id)
    return claim_id if set_name is None else f"{claim_id}:{set_name}"


def plain_name(name: str) -> str:
    """Return a set's name as the ledger writes it: in small letters, with dashes."""
    return str(name).casefold().replace("_", "-")


def one_name(name: str) -> str:
    """Return a known set's plain name; a folder's is left alone, as the case of its letters matters."""
    return plain_name(name) if plain_name(name) in set_names() else str(name)


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
    train = _load(name, "train", **how)
    _check_labels(train)  # before as many more are drawn
    return LabelledSplits(train=train, validation=_load(name, "validation", **how), source=str(name))


def _check_labels(part: ImageSet) -> None:
    if part.labels is None:
        raise UserError(f"the images of {part.name} have no classes to learn: choose a set with labels")


def _load(name: str, split: str, **how: Any) -> ImageSet:
    drawn = plain_name(name) in PROCEDURAL
    return load_image_set(name, split, num_images=NUM_DRAWN_TO_JUDGE if drawn and split != "train" else None, **how)
