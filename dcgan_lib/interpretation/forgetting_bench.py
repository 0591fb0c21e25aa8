"""Measure what forgetting does: to the object, to the other objects and to the scene.

Axes: n pictures, c maps of a layer, f features; ``_u8`` pixels 0..255. The finder, which puts boxes around objects and
so has a say in which maps are chosen, is never the judge, which reads the pictures afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import read_boxes
from dcgan_lib.evaluation.features import probe_features
from dcgan_lib.evaluation.probe_model import Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.interpretation.forgetting import Fit, activations, check_layer, fit_maps, positions_inside, silenced
from dcgan_lib.models.dcgan import Generator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded

MOST_LOST = 0.15
"""How much of the other object may be lost while maps are chosen; the bound of the claim itself."""


@dataclass(frozen=True, kw_only=True)
class Originals:
    """Hold pictures with all maps on, and what is read off them.

    Parameters
    ----------
    z_nd : Tensor
        Latent vectors.
    pictures_u8 : ndarray
        n x c x h x w.
    read : dict of str to ndarray
        Of each picture, by the judge.
    boxes_n4 : ndarray
        Of the object, by the finder; NaN for none.
    features_nf : ndarray
        The judge's feature vectors.
    """

    z_nd: Tensor
    pictures_u8: np.ndarray
    read: dict[str, np.ndarray]
    boxes_n4: np.ndarray
    features_nf: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Change:
    """Hold how often an object is seen with all maps on and with some off, on the same latent vectors.

    Parameters
    ----------
    before, after : Estimate
        Share of all pictures.
    fall : Estimate
        1 - after / before.
    kept, new : Estimate
        Share that still show it, of those that did; share that show it now, of those that did not.
    """

    before: Estimate
    after: Estimate
    fall: Estimate
    kept: Estimate
    new: Estimate


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what switching maps off did.

    Parameters
    ----------
    maps, layer : list of int, int
        Which.
    changes : dict of str to Change
        For each object.
    scene : dict of str to Estimate
        Distance between a picture before and after, over that between unrelated pictures before: in pixels inside
        and outside the object's box, in the judge's features, and in its hue of the wall and turn of the camera.
    """

    maps: list[int]
    layer: int
    changes: dict[str, Change]
    scene: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Hold who draws, who puts boxes around the object, who judges, and what is to be forgotten.

    Parameters
    ----------
    generator : Generator
        Without classes.
    judge, finder : Probe
        See the module's head.
    name, other : str
        The object to forget, and the one that has to stay.

    Raises
    ------
    UserError
        If the generator draws classes, or the judge does not read the objects.
    """

    generator: Generator
    judge: Probe
    finder: Probe
    name: str = "window"
    other: str = "bed"

    def __post_init__(self) -> None:
        """Check that all fit together."""
        if self.generator.config.num_classes:
            raise UserError("forgetting needs a generator without classes: choose another checkpoint")
        check_layer(self.generator, 0)
        missing = sorted({self.name, self.other} - set(self.objects))
        if missing:
            raise UserError(
                f"the judge reads {', '.join(self.objects)}, but no {', '.join(missing)}: choose from those"
            )
        if self.name == self.other:
            raise UserError(f"the object to forget and the one that has to stay are both {self.name!r}")

    @property
    def objects(self) -> tuple[str, ...]:
        """Return what the judge says yes or no to."""
        return tuple(head.name for head in self.judge.config.heads if head.kind == "boolean")

    def features(self, pictures_u8: np.ndarray) -> np.ndarray:
        """Return the judge's feature vectors."""
        return probe_features(self.judge, "judge").extract(pictures_u8)

    def draw(self, num: int, seed: int) -> Originals:
        """Draw pictures with all maps on and read them."""
        z_nd = sample_latents(num, self.generator.config, seeded(seed))
        pictures = generate_u8(self.generator, z_nd)
        return Originals(
            z_nd=z_nd,
            pictures_u8=pictures,
            read=self.judge.predict(pictures),
            boxes_n4=read_boxes(self.finder, pictures, self.name),
            features_nf=self.features(pictures),
        )

    def without(self, originals: Originals, maps: Sequence[int], layer: int) -> np.ndarray:
        """Return the same pictures with maps switched off."""
        with silenced(self.generator, maps, layer):
            return generate_u8(self.generator, originals.z_nd)

    def fit(self, originals: Originals, layer: int, *, c: float = 1.0, seed: int = 0) -> Fit:
        """Fit the regression of `dcgan_lib.interpretation.forgetting.fit_maps` on pictures and their boxes."""
        maps = activations(self.generator, originals.z_nd, layer)
        return fit_maps(maps, originals.boxes_n4, self.generator.config.image_size, c=c, seed=seed)

    def rates(self, originals: Originals, maps: Sequence[int], layer: int) -> dict[str, float]:
        """Return the share of pictures in which the judge sees each object, with maps switched off."""
        read = self.judge.predict(self.without(originals, maps, layer))
        return {name: float((read[name] > 0.5).mean()) for name in self.objects}

    def measure(self, originals: Originals, maps: Sequence[int], layer: int) -> Outcome:
        """Switch maps off and compare with all maps on."""
        pictures = self.without(originals, maps, layer)
        read = self.judge.predict(pictures)
        return Outcome(
            maps=[int(i) for i in maps],
            layer=layer,
            changes={name: compare(originals.read[name] > 0.5, read[name] > 0.5) for name in self.objects},
            scene=compare_scenes(originals, pictures, read, self.features(pictures)),
        )

    def sweep(self, originals: Originals, order: Sequence[int], layer: int) -> list[dict[str, Any]]:
        """Switch the first 1, 2, 4, ... maps of an order off, and at last all of them; return the rates each time."""
        counts = sorted({*(2**i for i in range(len(order).bit_length())), len(order)} - {0})
        return [
            {"layer": layer, "count": k, "rates": self.rates(originals, order[:k], layer)}
            for k in counts
            if k <= len(order)
        ]

    def best(self, originals: Originals, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the row that shows the object least while at most 15 % of the other is lost.

        Raises
        ------
        UserError
            If every row loses more.
        """
        bound = (1 - MOST_LOST) * (originals.read[self.other] > 0.5).mean()
        allowed = [row for row in rows if row["rates"][self.other] >= bound]
        if not allowed:
            raise UserError(f"every choice of maps loses more than {MOST_LOST:.0%} of {self.other}")
        return min(allowed, key=lambda row: row["rates"][self.name])


def compare(had: np.ndarray, has: np.ndarray) -> Change:
    """Compare an object's presence before and after, picture by picture.

    Raises
    ------
    UserError
        If no picture had it.
    """
    if not had.any():
        raise UserError("no picture shows the object with all maps on: draw more")

    def fall(before: np.ndarray, after: np.ndarray) -> float:
        return 1 - after.mean() / max(before.mean(), 1 / len(before))

    num_others = int((~had).sum())
    return Change(
        before=wilson_interval(int(had.sum()), len(had)),
        after=wilson_interval(int(has.sum()), len(has)),
        fall=bootstrap_interval(fall, had, has),
        kept=wilson_interval(int((had & has).sum()), int(had.sum())),
        new=wilson_interval(int((~had & has).sum()), num_others) if num_others else Estimate(0.0, 0.0, 1.0),
    )


def compare_scenes(
    originals: Originals, pictures_u8: np.ndarray, read: Mapping[str, np.ndarray], features_nf: np.ndarray
) -> dict[str, Estimate]:
    """Return how far pictures moved, in units of how far unrelated pictures lie apart; see `Outcome`."""
    size = pictures_u8.shape[2:]
    inside_nhw = positions_inside(originals.boxes_n4, size, size)
    before, boxed = originals.pictures_u8.astype(np.float32), inside_nhw.any((1, 2))
    found = {}
    for place, mask in (("inside", inside_nhw), ("outside", ~inside_nhw)):
        apart = [_rms(np.roll(before, 1, 0) - before, mask)[boxed], _rms(pictures_u8 - before, mask)[boxed]]
        found[f"pixels {place}"] = _ratio(*apart)
    vectors = {"features": (originals.features_nf, features_nf)}
    vectors |= {
        key: (originals.read[key][:, None], read[key][:, None]) for key in ("wall_hue", "camera_yaw") if key in read
    }
    for key, (old, new) in vectors.items():
        found[key] = _ratio(*(np.linalg.norm(other - old, axis=1) for other in (np.roll(old, 1, 0), new)))
    return found


def _rms(difference_nchw: np.ndarray, mask_nhw: np.ndarray) -> np.ndarray:
    squares = (difference_nchw**2).mean(1)
    return np.sqrt((squares * mask_nhw).sum((1, 2)) / mask_nhw.sum((1, 2)).clip(min=1))


def _ratio(unrelated_n: np.ndarray, moved_n: np.ndarray) -> Estimate:
    if len(moved_n) < 2:
        raise UserError("fewer than 2 pictures have a box: draw more")
    return bootstrap_interval(lambda far, near: near.mean() / max(far.mean(), 1e-9), unrelated_n, moved_n)
