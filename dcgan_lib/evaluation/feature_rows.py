"""Rows of Tables 1 and 2 in the claims ledger: which measurement may stand in which, and how it is judged."""

from pathlib import Path

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.claims import CLAIMS, split_id
from dcgan_lib.evaluation.evidence import check_command
from dcgan_lib.evaluation.few_labels import FEATURES, keep_draws
from dcgan_lib.evaluation.held_out import full_id
from dcgan_lib.evaluation.protocols import Outcome
from dcgan_lib.evaluation.results import Result, load_results, record
from dcgan_lib.evaluation.verdicts import NumericRule

PROTOCOL_OF = {
    "table1.dcgan.full": "full",
    "table1.dcgan.400": "400",
    "table1.kmeans1.full": "full",
    "table1.kmeans1.400": "400",
    "table1.random": "full",
    "table1.random-stored": "full",
    "table1.pixels": "full",
    "table1.dcgan-cifar": "full",
    "table2.dcgan": "1000",
}
COMPARED_WITH = {
    "table1.random": "table1.dcgan.full",
    "table1.random-stored": "table1.dcgan.full",
    "table1.pixels": "table1.dcgan.full",
    "table1.dcgan-cifar": "table1.random",
}
"""Rows without a number in the paper that are judged by another row, which must do better (a control) or worse."""


def needs_control(id: str) -> bool:
    """Return whether the row is judged against a control that is measured beside it, not by a number or a row."""
    claim_id, set_name = split_id(id)
    return claim_id not in COMPARED_WITH and not isinstance(CLAIMS[claim_id].rule_on(set_name), NumericRule)


def check_row(
    id: str, *, kind: str, protocol: str, set_name: str, command: str, trained_on: str | None = None,
    batch_norm: str = "batches", root: Path | None = None,
) -> None:  # fmt: skip
    """Refuse, before anything is computed, what does not belong into a row.

    Parameters
    ----------
    id : str
        Such as ``table1.dcgan.full``, or ``table2.dcgan:mnist`` on another set than the paper's.
    kind : str
        Of the features: dcgan, kmeans1, random or pixels.
    protocol, set_name : str
        What is to be measured.
    command : str
        What repeats it.
    trained_on : str, optional
        The image set of the network's training; None for features that were not trained.
    batch_norm : str, default "batches"
        Where batch norm's statistics come from: batches or stored.
    root : Path, optional
        The ledger's folder.

    Raises
    ------
    UserError
        If the id is no such row, or its protocol, set, statistics or kind of features is another; or if the row that
        it is compared with is not measured yet.
    """
    claim_id, on_set = split_id(id)
    if claim_id not in PROTOCOL_OF:
        raise UserError(f"features are recorded in the rows {', '.join(PROTOCOL_OF)}, but got {claim_id!r}")
    if claim_id.split(".")[1].partition("-")[0] != kind:
        raise UserError(f"{claim_id} is measured with other features than {kind}")
    if protocol != PROTOCOL_OF[claim_id]:
        raise UserError(f"{claim_id} is measured by the protocol {PROTOCOL_OF[claim_id]}, but this is {protocol}")
    home = CLAIMS[claim_id].home_set
    if set_name != (on_set or home):
        hint = claim_id if set_name == home else f"{claim_id}:{set_name}"
        raise UserError(f"{id} is a result on {on_set or home}, but this is on {set_name}: record it as {hint}")
    if claim_id.startswith("table1.dcgan.") and trained_on == set_name:
        raise UserError(f"{claim_id} asks for a network that never saw {set_name}: see table1.dcgan-cifar")
    if claim_id == "table1.dcgan-cifar" and trained_on != "cifar10":
        raise UserError(f"table1.dcgan-cifar asks for a network trained on cifar10, but this one saw {trained_on}")
    if claim_id.startswith("table1.random") and claim_id.endswith("-stored") != (batch_norm == "stored"):
        raise UserError(f"table1.random is for measured statistics, table1.random-stored for stored: got {batch_norm}")
    check_command(id, command, set_name)
    _compared(claim_id, on_set, root)


def _compared(claim_id: str, on_set: str | None, root: Path | None) -> Result | None:
    """Return the row that this one is judged by, if it is."""
    if claim_id not in COMPARED_WITH:
        return None
    wanted = full_id(COMPARED_WITH[claim_id] + (f":{on_set}" if on_set else ""))
    rows = [row for row in load_results(root) if row.id == wanted and row.is_measured]
    if not rows:
        raise UserError(f"{claim_id} is compared with {wanted}: measure that first")
    return rows[0]


def record_features(
    id: str, outcome: Outcome, *, image_set: str, command: str, seed: int, checkpoint: str | None = None,
    control: tuple[str, Outcome] | None = None, notes: str = "", root: Path | None = None,
) -> Result:  # fmt: skip
    """Enter an outcome on test images into the ledger.

    Parameters
    ----------
    id : str
        See `check_row`.
    outcome : Outcome
        On the test images. Table 1 gives its accuracy, Table 2 its error.
    image_set, command, seed, checkpoint, notes : optional
        See `dcgan_lib.evaluation.results.record`.
    control : (str, Outcome), optional
        Name and outcome of simpler features under the same protocol, for a row that `needs_control`.
    root : Path, optional
        The ledger's folder; by default ``data/results``.

    Raises
    ------
    UserError
        If the outcome is not on test images, or the row needs a control.
    """
    if outcome.split != "test":
        raise UserError(f"{id} is a result on test images, but this outcome is on {outcome.split}")
    claim_id, on_set = split_id(id)
    estimate = outcome.error if claim_id.startswith("table2.") else outcome.accuracy
    checks = None
    if other := _compared(claim_id, on_set, root):
        if other.id.startswith("table1.random"):
            checks = {f"random weights, {other.value:.2f} %, do worse": other.high < estimate.low}
        else:
            checks = {f"trained features, {other.value:.2f} %, do better": other.low > estimate.high}
    elif needs_control(id):
        if control is None:
            raise UserError(f"{id} has no number in the paper: measure a control beside it")
        name, other = control
        checks = {f"{name}, {other.accuracy.value:.2f} % right, do worse": other.accuracy.high < outcome.accuracy.low}
    about = f"{outcome.num_features:,} features, {outcome.num_labels:,} labels, C {outcome.c:g} chosen on validation"
    if len(outcome.accuracies) > 1:
        about += f"; {len(outcome.accuracies)} draws of labels, the interval is 1.96 standard deviations of a draw"
    row = record(
        id, value=estimate, checks=checks, unit="%", n=outcome.n, data=f"{image_set}, test", command=command,
        seconds=outcome.seconds + (control[1].seconds if control else 0), seed=seed, checkpoint=checkpoint,
        notes=f"{about}; n counts test images{'; ' + notes if notes else ''}", root=root,
    )  # fmt: skip
    if claim_id == FEATURES:
        keep_draws(row, [100 - accuracy for accuracy in outcome.accuracies], outcome.n, root)
    return row
