"""Table 2's two methods side by side: features with a linear SVM, and a network trained on labels.

Errors are in per cent of the test images. Beside a row of the ledger lie the errors of its draws of
labels, so that both methods get the same kind of interval: ``data/results/draws/ID.json``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import (
    Result,
    claim_of,
    id_on,
    is_measured,
    load_details,
    load_row,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate, mean_interval, wilson_interval

SETS = ("svhn", "cifar10", "mnist", "street-digits")
FEATURES, SUPERVISED = "table2.dcgan", "table2.supervised"
COMMANDS = {
    FEATURES: "dcgan train --recipe paper-svhn --set {set} && dcgan features runs/paper-svhn-{set} "
    "--set {set} --protocol 1000 --split test --record {id}",
    SUPERVISED: "dcgan search --set {set} --record {id}",
}
"""What measures a row on another set than the paper's."""

Outcome = Literal["features win", "features are beaten", "cannot be told apart", "not measured"]


def keep_draws(row: Result, test_errors: Sequence[float], num_images: int) -> None:
    """Keep the test error of each draw of labels, on ``num_images``, beside its row."""
    errors = [round(error, 4) for error in test_errors]
    content = {"value": row.value, "num_images": num_images, "test_errors": errors}
    save_details(_name(row.id), content)


def load_draws(row: Result) -> tuple[np.ndarray, int]:
    """Return the test errors of a measured row's draws, and the number of test images.

    Raises
    ------
    UserError
        If they were not kept, or by another measurement than the row's.
    """
    content = load_details(_name(row.id), row.command)
    if content["value"] != row.value:
        raise UserError(
            f"the draws kept for {row.id} are of another measurement: run {row.command} again"
        )
    return np.array(content["test_errors"]), content["num_images"]


def _name(id: str) -> str:
    return f"draws/{id.replace(':', '--')}"


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
    Student's interval of the mean over draws, and Wilson's over images at that mean, added as
    independent errors. Wilson's is that of a single classifier. A mean over several is surer, so
    that the sum is rather too wide.
    """
    draws = mean_interval(test_errors)
    images = wilson_interval(draws.value / 100 * num_images, num_images).scaled(100)
    below = math.hypot(draws.low - draws.value, images.low - images.value)
    above = math.hypot(draws.high - draws.value, images.high - images.value)
    return Estimate(draws.value, draws.value - below, draws.value + above)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold the mean test errors of the two methods on one image set; None while not measured."""

    set_name: str
    features: Estimate | None
    supervised: Estimate | None
    commands: tuple[str, ...] = ()
    """What is still to be run."""

    @property
    def gain(self) -> Estimate | None:
        """Return by how many points the features err less, None while a method is not measured.

        The two intervals are added as independent errors. The test images are the same, so that
        this too is cautious.
        """
        if self.features is None or self.supervised is None:
            return None
        (f, f_low, f_high), (s, s_low, s_high) = self.features, self.supervised
        below, above = math.hypot(s - s_low, f_high - f), math.hypot(s_high - s, f - f_low)
        return Estimate(s - f, s - f - below, s - f + above)

    @property
    def outcome(self) -> Outcome:
        """Return who wins, as far as the interval of the gain tells."""
        if self.gain is None:
            return "not measured"
        if self.gain.low > 0:
            return "features win"
        return "features are beaten" if self.gain.high < 0 else "cannot be told apart"

    def text(self) -> str:
        """Return the comparison as a sentence; what is missing is named with its command."""
        parts = [f"features {_text(self.features)}", f"supervised {_text(self.supervised)}"]
        if self.gain:
            parts.append(f"gain {_text(self.gain, 'points')}")
        sentence = f"{self.set_name}: {self.outcome}: {', '.join(parts)}"
        return "\n  run ".join([sentence, *self.commands])


def _text(estimate: Estimate | None, unit: str = "%") -> str:
    if estimate is None:
        return "not measured"
    value, low, high = estimate
    return f"{value:.1f} {unit} [{low:.1f}, {high:.1f}]"


def compare(set_name: str) -> Comparison:
    """Put the ledger's two rows of an image set, one of `SETS` or any other, beside each other.

    Raises
    ------
    UserError
        If a row is measured, but the errors of its draws are not there; see `load_draws`.
    """
    found, commands = {}, []
    for method, claim_id in (("features", FEATURES), ("supervised", SUPERVISED)):
        id = id_on(claim_id, set_name)
        found[method] = mean_error(*load_draws(load_row(id))) if is_measured(id) else None
        if found[method] is None:
            commands.append(command_for(id))
    return Comparison(set_name=set_name, commands=tuple(commands), **found)


def command_for(id: str) -> str:
    """Return what measures a row of Table 2."""
    claim, set_name = claim_of(id)
    return COMMANDS[claim.id].format(set=set_name, id=id) if set_name else claim.command
