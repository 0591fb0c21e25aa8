"""The live explorer: one widget for notebooks and, as plain HTML, for the built book.

Axes: d latent, h w grid, c channels. ``z`` is the current latent vector; every other trait is a
setting of ``explorer.js``, kept in step with the page both ways.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from traitlets import Bool, Dict, Float, Int, List, Unicode

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.directions import load_directions
from dcgan_lib.interpretation.forgetting import check_layer, silenced
from dcgan_lib.models.sampling import generate_u8
from dcgan_lib.training.checkpoints import find_run, load_config, load_discriminator, load_generator
from dcgan_lib.widgets import latents
from dcgan_lib.widgets.export import ExportedModel, export_judge, export_model
from dcgan_lib.widgets.page import PageWidget, check_mode, explorer_html, script


@lru_cache(maxsize=8)
def _export(folder: Path, samples: bool) -> ExportedModel:
    """Export for a page that a kernel serves: nothing is downloaded, so half precision is free."""
    return export_model(folder, "half", samples=samples)


@lru_cache(maxsize=4)
def _export_judge(folder: Path) -> ExportedModel:
    return export_judge(folder)


def send_weights(widget: PageWidget, content: dict[str, Any], *, samples: bool = False) -> None:
    """Answer a page that asks for a network's weights, or say why it has none."""
    if content.get("type") != "need weights":
        return
    name, network = content["model"], content.get("network", "generator")
    about = {"model": name, "network": network}
    try:
        folder = find_run(name)
        is_judge = network == "discriminator"
        exported = _export_judge(folder) if is_judge else _export(folder, samples)
    except UserError as error:
        widget.send({"type": "no weights", **about, "reason": str(error)})
    else:
        answer = {"type": "weights", **about, "about": exported.about}
        widget.send(answer, [exported.weights])


def _trait(kind: type[traitlets.TraitType], *arguments: Any) -> Any:
    return kind(*arguments).tag(sync=True)


class Explorer(PageWidget):
    """Move through a generator's latent space by hand, or from Python.

    ``mode`` is "free", "walk", "arithmetic", "turn", "maps" or "steps"; ``seed``, 0 to 2**32 - 1,
    gives the latent vector. Every attribute below can be given as a setting.

    Attributes
    ----------
    z : list of float
        The current latent vector. Set it to show one of your own.
    pad, axes, axis_seed : list of float, list of str, int
        Mode free: position in [-1, 1]; what its axes are, each "random" or a direction's name; the
        random ones' seed.
    values : dict[str, float]
        Mode free: the sliders of the named directions, each in [-1, 1].
    extra : dict[str, list[float]]
        Directions of your own, by name, each of length 1.
    anchors, t, curve : list of int, float, str
        Mode walk: seeds; position, whole numbers at the anchors; "linear" or "spherical".
    gallery, groups, noise : list of int, list of list of int, int
        Mode arithmetic: seeds to choose from; those chosen for A, B and C; seed of the noise.
    direction, far, rows, columns : str, float, int, int
        Mode turn: a direction's name or "random", and how far it goes.
    layer, off : int, list of int
        Mode maps: which maps are switched off in front of which transposed convolution, counted
        from 0.
    step : int
        Mode steps: which stored picture, from 0; -1 is the last.
    discriminator : bool
        Modes free, walk and maps: show the checkpoint's discriminator's opinion of the picture.
    """

    _esm = script("explorer.js")
    model, mode, curve, direction = (_trait(Unicode, text) for text in ("", "free", "linear", ""))
    models, modes, axes = _trait(List), _trait(List), _trait(List, Unicode(), ["random", "random"])
    seed, label, axis_seed, noise, layer = (_trait(Int, 0) for _ in range(5))
    step, rows, columns = _trait(Int, -1), _trait(Int, 4), _trait(Int, 7)
    t, far = _trait(Float, 0.0), _trait(Float, 1.0)
    z, base = _trait(List, Float()), _trait(List, Float())
    pad, anchors = _trait(List, Float(), [0.0, 0.0]), _trait(List, Int(), [1, 2, 3, 4, 5])
    gallery, off = _trait(List, Int()), _trait(List, Int())
    groups = _trait(List, List(Int()), [[], [], []])
    values, extra = _trait(Dict), _trait(Dict)
    discriminator = _trait(Bool, False)

    def __init__(
        self, checkpoint: str = "faces", mode: str = "free", seed: int = 0, **settings: Any
    ) -> None:
        self._ready, self._computing = False, False
        if unknown := set(settings) - set(self.class_trait_names(sync=True)):
            raise UserError(f"the explorer has no setting {sorted(unknown)}; see help(Explorer)")
        load_config(checkpoint)
        z = settings.pop("z", None)
        super().__init__(model=checkpoint, mode=mode, seed=seed, **settings)
        for name in [self.model, *self.models] if self.discriminator else []:
            load_discriminator(name)
        self._ready = True
        self.on_msg(self._answer)
        self._follow()
        if z is not None:
            self.z = list(z)

    # --- what is allowed ---
    @traitlets.validate("mode")
    def _valid_mode(self, proposal: dict[str, Any]) -> str:
        check_mode(proposal["value"])
        return proposal["value"]

    @traitlets.validate("model")
    def _valid_model(self, proposal: dict[str, Any]) -> str:
        load_config(proposal["value"])
        return proposal["value"]

    @traitlets.validate("seed", "axis_seed", "noise")
    def _valid_seed(self, proposal: dict[str, Any]) -> int:
        latents.uniforms(proposal["value"], 0)
        return proposal["value"]

    @traitlets.validate("pad")
    def _valid_pad(self, proposal: dict[str, Any]) -> list[float]:
        if len(proposal["value"]) != 2 or not all(-1 <= value <= 1 for value in proposal["value"]):
            raise UserError(f"pad must be two numbers from -1 to 1, but it is {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("z", "base")
    def _valid_z(self, proposal: dict[str, Any]) -> list[float]:
        values, wanted = [float(value) for value in proposal["value"]], self.config.z_dim
        if values and (len(values) != wanted or not np.isfinite(values).all()):
            raise UserError(
                f"z must be {wanted} finite numbers for {self.model}, but {len(values)} came"
            )
        return values

    # --- the current latent vector ---
    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return load_config(self.model)[0].model

    @traitlets.observe("z")
    def _take(self, change: dict[str, Any]) -> None:
        """Show a vector that Python has set: it becomes the base, with all sliders at 0."""
        if not self._computing:
            with self.hold_trait_notifications():
                self.base, self.pad, self.values = change["new"], [0.0, 0.0], {}
                if self.mode in ("walk", "arithmetic", "steps"):  # modes with vectors of their own
                    self.mode = "free"

    @traitlets.observe("seed")
    def _forget_base(self, _: dict[str, Any]) -> None:
        if self._ready:
            self.base = []

    @traitlets.observe(
        "model",
        "mode",
        "seed",
        "base",
        "pad",
        "axes",
        "axis_seed",
        "values",
        "extra",
        "anchors",
        "t",
        "curve",
        "groups",
        "gallery",
    )
    def _follow(self, _: Any = None) -> None:
        if self._ready:
            self._computing = True
            try:
                self.z = [float(value) for value in self._latent()]
            finally:
                self._computing = False

    def _latent(self) -> np.ndarray:
        config = self.config
        if self.mode == "walk":
            return latents.walk(self.anchors, self.t, self.curve, config)
        if self.mode == "arithmetic":
            shelf = self.gallery or [(self.seed + i) % 2**32 for i in range(3)]
            groups = self.groups if any(self.groups) else [shelf[i : i + 1] for i in range(3)]
            return latents.arithmetic(groups, config)
        has_base = len(self.base) == config.z_dim
        base = np.asarray(self.base, np.float32)
        if not has_base:
            base = latents.seed_latent(self.seed, config)
        if self.mode != "free":
            return base
        far, known = latents.reach(config), self._directions()
        by_chance = latents.random_directions(self.axis_seed, config.z_dim)
        moved = [
            (far * p, known.get(name, by_chance[i]))
            for i, (name, p) in enumerate(zip(self.axes, self.pad, strict=True))
        ]
        slid = [(far * value, known[name]) for name, value in self.values.items() if name in known]
        return latents.combine(config.z_dim, [(1, base), *moved, *slid])

    def _directions(self) -> dict[str, Any]:
        named = {found.name: found.direction_d for found in load_directions(self.model)}
        return named | dict(self.extra)

    @property
    def z_bd(self) -> torch.Tensor:
        """The current latent vector as a batch of one: float32, shape (1, z_dim)."""
        return torch.tensor([self.z], dtype=torch.float32)

    @property
    def picture(self) -> np.ndarray:
        """PyTorch's picture of the current latent vector: uint8, h x w x 3, or h x w for grey."""
        generator = load_generator(self.model)
        num_maps = check_layer(generator, self.layer)
        off = [i for i in self.off if self.mode == "maps" and i < num_maps]
        labels = torch.tensor([self.label]) if self.config.num_classes else None
        with silenced(generator, off, self.layer):
            pixels = generate_u8(generator, self.z_bd, labels)[0]
        return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)

    # --- how it is shown ---
    def _answer(self, _: Any, content: dict[str, Any], __: list[bytes]) -> None:
        send_weights(self, content, samples="steps" in (self.mode, *self.modes))

    def __repr__(self) -> str:
        return f"Explorer(checkpoint={self.model!r}, mode={self.mode!r}, seed={self.seed})"

    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the settings that a page may give: all but model and latent vector."""
        return sorted(set(Explorer.class_own_traits(sync=True)) - {"model", "z", "base"})

    def settings(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults; not mode and own directions."""
        return {
            name: getattr(self, name)
            for name in self.setting_names()
            if name not in ("mode", "extra")
            and getattr(self, name) != self.class_traits()[name].default()
        }

    def page(self) -> str:
        """Return the same explorer as HTML, for pages without a kernel."""
        return explorer_html(Path(self.model).name, self.mode, **self.settings())
