"""What the sums of section 6.3.2 are about, for each image set: attributes, and who reads them.

Legend: a concept is a list of attributes, each asked to be there (True) or absent (False).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dcgan_lib.errors import UserError
from dcgan_lib.training.checkpoints import load_config

Concept = Mapping[str, bool]


@dataclass(frozen=True)
class Sum:
    """Describe a sum: A and B differ in one attribute, B and C in another.

    Parameters
    ----------
    added : str
        The attribute that A has, and B and C lack.
    carried : str
        The attribute in which A and B differ from C.
    begins_with : bool
        Whether A and B have the carried attribute; C has the opposite.
    """

    added: str
    carried: str
    begins_with: bool

    @property
    def concepts(self) -> tuple[Concept, Concept, Concept]:
        """Attributes of A, B and C."""
        own, other = self.begins_with, not self.begins_with
        pairs = ((True, own), (False, own), (False, other))
        return tuple({self.added: added, self.carried: carried} for added, carried in pairs)

    @property
    def wanted(self) -> Concept:
        """What A - B + C should show: the added attribute, and the carried one as C has it."""
        return {self.added: True, self.carried: not self.begins_with}


@dataclass(frozen=True, kw_only=True)
class Described:
    """Say which sums can be counted on an image set's generators, and by whom.

    Parameters
    ----------
    sums : mapping of str to Sum
        By the name that the claim has in the ledger.
    probe : str
        Who reads the attributes; several are joined by "+".
    carried : str
        What stands for the paper's man and woman, as a sentence for the ledger.
    """

    sums: Mapping[str, Sum]
    probe: str
    carried: str


SUMS = {"smile": Sum("smile", "long_hair", True), "glasses": Sum("glasses", "long_hair", False)}
"""The two sums of the paper's Fig. 7; long and short hair stand in for its woman and man."""

FACE_SUMS = {"smile": Sum("smile", "female", True)}
"""On faces from photographs: the smile label of one set, the sex label of another; no set at hand labels glasses."""

DESCRIBED: dict[str, Described] = {
    "portraits": Described(
        sums=SUMS, probe="probe-portraits", carried="long_hair stands in for the paper's man and woman"
    ),
    "faces64": Described(
        sums=FACE_SUMS, probe="probe-faces+probe-smiles", carried="man and woman by the set's own sex label"
    ),
}
"""By the image set that a generator learnt from."""


def described(checkpoint: str | Path) -> Described:
    """Return what can be counted on a checkpoint's pictures.

    Raises
    ------
    UserError
        If there is no such checkpoint, or its image set has no description.
    """
    image_set = load_config(checkpoint)[1]["image_set"]
    if image_set not in DESCRIBED:
        raise UserError(
            f"no sums are described for generators of {image_set}: those of {', '.join(DESCRIBED)} have some; "
            "elsewhere name exemplars of your own with --a, --b and --c"
        )
    return DESCRIBED[image_set]
