"""Several probes that answer as one, each shown the pictures in the channels that it reads.

Axes: n images, c channels, h x w pixels; ``images_u8`` pixels 0..255.
"""

from pathlib import Path

import numpy as np

from dcgan_lib.data.stream import with_channels
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_files import load_probe
from dcgan_lib.evaluation.probe_model import Head, Probe


class Panel:
    """Read the attributes of several probes off the same pictures.

    Parameters
    ----------
    *probes : Probe
        At least one; no two with a head of one name.

    Raises
    ------
    UserError
        If there is no probe, or two read the same attribute.
    """

    def __init__(self, *probes: Probe) -> None:
        names = [head.name for probe in probes for head in probe.config.heads]
        if not names or len(set(names)) != len(names):
            raise UserError(f"joined probes must read different things, but they read {', '.join(names) or 'nothing'}")
        self.probes = probes

    def predict(self, images_u8: np.ndarray) -> dict[str, np.ndarray]:
        """Read every head of every probe; a grey probe sees the luma of colour pictures. See `Probe.predict`."""
        read: dict[str, np.ndarray] = {}
        for probe in self.probes:
            read |= probe.predict(with_channels(images_u8, probe.config.num_channels))
        return read

    def reads(self, name: str) -> bool:
        """Return whether one of the probes has a head of this name."""
        return any(head.name == name for probe in self.probes for head in probe.config.heads)

    def head(self, name: str) -> Head:
        """Return a head's description.

        Raises
        ------
        UserError
            If no probe has such a head.
        """
        heads = {head.name: head for probe in self.probes for head in probe.config.heads}
        if name not in heads:
            raise UserError(f"the probe has no head {name!r}: it has {', '.join(heads)}")
        return heads[name]


def load_panel(names: str, *, root: Path | None = None) -> Panel:
    """Load probes whose names are joined by "+", such as "probe-faces+probe-smiles"; see `load_probe`."""
    return Panel(*(load_probe(name, root=root) for name in names.split("+")))
