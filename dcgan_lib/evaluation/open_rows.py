"""The commands that would measure a row which nobody has measured yet."""

from dcgan_lib.evaluation.claims import CLAIMS, split_id

_COMMANDS = {
    "table2.dcgan": (
        "dcgan train --recipe paper-svhn{other} && "
        "dcgan features runs/paper-svhn{suffix} --set {set} --protocol 1000 --split test --record {id}"
    ),
    "table2.supervised": "dcgan search --set {set} --record {id}",
}


def command_for(id: str) -> str | None:
    """Return what measures a row, or None where no single command does.

    Parameters
    ----------
    id : str
        Of the row; with ``:SET``, the command is the one for that image set.
    """
    claim_id, set_name = split_id(id)
    if claim_id not in _COMMANDS:
        return None
    other, suffix = (f" --set {set_name}", f"-{set_name}") if set_name else ("", "")
    words = {"set": set_name or CLAIMS[claim_id].home_set, "id": claim_id + (f":{set_name}" if set_name else "")}
    return _COMMANDS[claim_id].format(**words, other=other, suffix=suffix)
