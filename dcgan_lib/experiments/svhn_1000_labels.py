"""Table 2's two methods side by side: features with a linear SVM, and a network trained on the labels alone.

Errors are in per cent of the test images. Beside a row of the ledger lie the errors of its draws of labels, so that
both methods get the same kind of interval: ``data/results/draws/ID.json``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import (
    CLAIMS,
    Result,
    command_for,
    load_details,
    load_results,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval

SETS = ("svhn", "cifar10", "mnist", "street-digits")
FEATURES, SUPERVISED = "table2.dcgan", "table2.supervised"

Outcome = Literal["features win", "features are beaten", "cannot be told apart", "not measured"]


def keep_draws(
    row: Result, test_errors: Sequence[float], num_images: int, root: Path | None = None
) -> None:
    """Keep the test error of each draw of labels beside its row.

    Parameters
    ----------
    row : Result
        As recorded.
    test_errors : sequence of float
        One a draw, in per cent.
    num_images : int
        Test images.
    root : Path, optional
        The ledger's folder; by default ``data/results``.
    """
    content = {
        "value": row.value,
        "num_images": num_images,
        "test_errors": [round(error, 4) for error in test_errors],
    }
    save_details(_name(row.id), content, root)


def load_draws(row: Result, root: Path | None = None) -> tuple[np.ndarray, int]:
    """Return the test errors of a measured row's draws, in per cent, and the number of test images.

    Raises
    ------
    UserError
        If they were not kept, or by another measurement than the row's.
    """
    content = load_details(_name(row.id), row.command, root)
    if content["value"] != row.value:
        raise UserError(
            f"the draws kept for {row.id} are of another measurement: run {row.command} again"
        )
    return np.array(content["test_errors"]), content["num_images"]


def mean_error(test_errors: np.ndarray, num_images: int) -> Estimate:
    """Estimate the mean error over draws of labels and over test images, in per cent.

    Parameters
    ----------
    test_errors : ndarray
        One a draw, at least 2.
    num_images : int
        Test images, the same ones for every draw.

    Notes
    -----
    Student's interval of the mean over draws, and Wilson's over images at that mean, added as independent errors.
    Wilson's is that of a single classifier. A mean over several is surer, so that the sum is rather too wide.
    """
    draws = mean_interval(test_errors)
    images = wilson_interval(draws.value / 100 * num_images, num_images).scaled(100)
    below, above = (
        math.hypot(draws[side] - draws.value, images[side] - images.value) for side in (1, 2)
    )
    return Estimate(draws.value, draws.value - below, draws.value + above)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Hold what is measured of the two methods on one image set.

    Parameters
    ----------
    set_name : str
        The image set.
    features, supervised : Estimate or None
        Mean test error in per cent, see `mean_error`; None while it is not measured.
    commands : tuple of str
        What is still to be run.
    """

    set_name: str
    features: Estimate | None
    supervised: Estimate | None
    commands: tuple[str, ...] = ()

    @property
    def gain(self) -> Estimate | None:
        """Return by how many points the features err less, None while a method is not measured.

        The two intervals are added as independent errors. The test images are the same, so that this too is
        cautious.
        """
        if self.features is None or self.supervised is None:
            return None
        (f, f_low, f_high), (s, s_low, s_high) = self.features, self.supervised
        return Estimate(
            s - f,
            s - f - math.hypot(s - s_low, f_high - f),
            s - f + math.hypot(s_high - s, f - f_low),
        )

    @property
    def outcome(self) -> Outcome:
        """Return who wins, as far as the interval of the gain tells."""
        if self.gain is None:
            return "not measured"
        if self.gain.low > 0:
            return "features win"
        return "features are beaten" if self.gain.high < 0 else "cannot be told apart"

    def text(self) -> str:
        """Return the comparison as a sentence, with intervals; what is missing is named with its command."""
        told = [f"features {_text(self.features)}", f"supervised {_text(self.supervised)}"]
        if self.gain:
            told.append(f"gain {_text(self.gain, 'points')}")
        return "\n  run ".join(
            [f"{self.set_name}: {self.outcome}: {', '.join(told)}", *self.commands]
        )


def compare(set_name: str, root: Path | None = None) -> Rivals:
    """Put the ledger's two rows of an image set beside each other.

    Parameters
    ----------
    set_name : str
        One of `SETS`, or any other set with rows.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Raises
    ------
    UserError
        If a row is measured, but the errors of its draws are not there; see `load_draws`.
    """
    rows = {row.id: row for row in load_results(root)}
    found, commands = {}, []
    for claim_id in (FEATURES, SUPERVISED):
        id = claim_id if set_name == CLAIMS[claim_id].home_set else f"{claim_id}:{set_name}"
        measured = id in rows and rows[id].is_measured
        found[claim_id] = mean_error(*load_draws(rows[id], root)) if measured else None
        if not measured:
            commands.append(command_for(id))
    features, supervised = found[FEATURES], found[SUPERVISED]
    return Rivals(
        set_name=set_name, features=features, supervised=supervised, commands=tuple(commands)
    )


def _name(id: str) -> str:
    return f"draws/{id.replace(':', '--')}"


def _text(estimate: Estimate | None, unit: str = "%") -> str:
    if estimate is None:
        return "not measured"
    value, low, high = estimate
    return f"{value:.1f} {unit} [{low:.1f}, {high:.1f}]"
