"""The sandbox: a GAN on points in the plane that trains live in the page, without a kernel.

The engine and the page are ``sandbox.js``; here are only its settings, kept in step both ways.
"""

import html
import json
import math
from typing import Any

import traitlets
from traitlets import Float, Int, List, Unicode

from dcgan_lib.errors import UserError
from dcgan_lib.widgets.page import FOLDER, PageWidget, script

# Each name with the words for it; the shapes themselves are in sandbox.js, "Targets".
TARGETS = {
    "ring": "a ring of 8 Gaussians",
    "grid9": "a grid of 9 Gaussians",
    "grid25": "a grid of 25 Gaussians",
    "moons": "two moons",
    "gaussian": "one Gaussian",
    "own": "points that a reader draws",
}
LOSSES = ("non-saturating", "minimax")
SANDBOX_STYLE = FOLDER / "sandbox.css"
REACH = 2.0  # the plane's edge
MAX_POINTS = 300


class Sandbox(PageWidget):
    """Train a small GAN on points in the plane, in the page and by hand.

    Both networks have two hidden layers with LeakyReLU (slope 0.2); z is a 2-d standard normal.
    A round is `d_updates` of the discriminator, then `g_updates` of the generator, each by Adam
    (beta2 0.999) on a fresh batch of 64.

    Parameters
    ----------
    target : str
        Where the real points come from: one of `TARGETS`.
    learning_rate, beta1 : float
        Adam's, for both networks: at most 0.1; 0 to 0.999.
    loss : str
        The generator's: "non-saturating" is the mean of -log D, "minimax" that of log(1 - D).
    d_updates, g_updates : int
        Updates a round, 0 to 20.
    width : int
        Units of each hidden layer, 1 to 128.
    seed : int
        0 to 2**32 - 1.
    points : list of list of float
        What is drawn for the target "own": at most 300 pairs of x and y, each from -2 to 2.

    Raises
    ------
    UserError
        If a setting is not one of those above.
    """

    _esm = script("sandbox.js")
    _css = SANDBOX_STYLE
    target = Unicode("ring").tag(sync=True)
    learning_rate = Float(0.003).tag(sync=True)
    beta1 = Float(0.5).tag(sync=True)
    loss = Unicode("non-saturating").tag(sync=True)
    d_updates = Int(1).tag(sync=True)
    g_updates = Int(1).tag(sync=True)
    width = Int(32).tag(sync=True)
    seed = Int(1).tag(sync=True)
    points = List(List(Float())).tag(sync=True)

    def __init__(self, **settings: Any) -> None:
        known = self.setting_names()
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise UserError(
                f"the sandbox has no setting {unknown[0]!r}; choose among: {', '.join(known)}"
            )
        super().__init__(**settings)

    # --- what is allowed ---
    @traitlets.validate("target")
    def _valid_target(self, proposal: dict[str, Any]) -> str:
        return _one_of("target", proposal["value"], TARGETS)

    @traitlets.validate("loss")
    def _valid_loss(self, proposal: dict[str, Any]) -> str:
        return _one_of("loss", proposal["value"], LOSSES)

    @traitlets.validate("learning_rate")
    def _valid_learning_rate(self, proposal: dict[str, Any]) -> float:
        return _between("learning_rate", proposal["value"], 1e-6, 0.1)

    @traitlets.validate("beta1")
    def _valid_beta1(self, proposal: dict[str, Any]) -> float:
        return _between("beta1", proposal["value"], 0, 0.999)

    @traitlets.validate("d_updates", "g_updates")
    def _valid_updates(self, proposal: dict[str, Any]) -> int:
        return _between(proposal["trait"].name, proposal["value"], 0, 20)

    @traitlets.validate("width")
    def _valid_width(self, proposal: dict[str, Any]) -> int:
        return _between("width", proposal["value"], 1, 128)

    @traitlets.validate("seed")
    def _valid_seed(self, proposal: dict[str, Any]) -> int:
        return _between("seed", proposal["value"], 0, 2**32 - 1)

    @traitlets.validate("points")
    def _valid_points(self, proposal: dict[str, Any]) -> list[list[float]]:
        points = proposal["value"]
        if len(points) > MAX_POINTS:
            raise UserError(f"a drawing has at most {MAX_POINTS} points, but {len(points)} came")
        for point in points:
            if len(point) != 2:
                raise UserError(f"a point is a pair of x and y, but {point} came")
            for value in point:
                _between("a point's coordinate", value, -REACH, REACH)
        return points

    # --- how it is shown ---
    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the names of all settings, in the order of the documentation."""
        names = [
            "target",
            "learning_rate",
            "beta1",
            "loss",
            "d_updates",
            "g_updates",
            "width",
            "seed",
            "points",
        ]
        return names

    def settings(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        changed = {}
        for name in self.setting_names():
            value = getattr(self, name)
            if value != self.class_traits()[name].default():
                changed[name] = value
        return changed

    def __repr__(self) -> str:
        """Name the settings that differ from the defaults; the same on every machine."""
        words = [f"{name}={value!r}" for name, value in self.settings().items()]
        return f"Sandbox({', '.join(words)})"

    def page(self) -> str:
        """Return the same sandbox as HTML, for pages without a kernel."""
        return sandbox_html(**self.settings())


def sandbox_html(**settings: Any) -> str:
    """Return a static page's mount point: the settings, with a sentence inside."""
    text = html.escape(json.dumps(settings, sort_keys=True))
    target = TARGETS[settings.get("target", "ring")]
    words = (
        "Here, with JavaScript, a generator and a discriminator of 2-d points train in this page; "
        f"the real points are {target}."
    )
    return f'<div class="dcgan-sandbox" data-sandbox="{text}"><p>{words}</p></div>'


def _one_of(name: str, value: str, known: Any) -> str:
    if value not in known:
        raise UserError(
            f"the sandbox's {name} must be one of {', '.join(known)}, but it is {value!r}"
        )
    return value


def _between(name: str, value: float, low: float, high: float) -> Any:
    if not (math.isfinite(value) and low <= value <= high):
        raise UserError(f"the sandbox's {name} must be from {low} to {high}, but it is {value!r}")
    return value
