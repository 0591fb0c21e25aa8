"""Forgetting an object: which maps of a generator draw it, and what it draws without them.

Section 6.3.1 and Fig. 6 of the paper.

Axes: n pictures, c maps of a layer, h w its grid, 4 a box in pixels (left, top, right, bottom);
``_u8`` pixels 0..255.

A layer is named by the transposed convolution that its maps go into, counted from 0, as in the
explorer: layer 0 is the projected grid, and layer i > 0 holds what came out of transposed
convolution i - 1, after batch norm and ReLU.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import positions_inside, read_boxes
from dcgan_lib.evaluation.features import probe_features
from dcgan_lib.evaluation.probes import Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.models.dcgan import Generator, num_stages
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded


def second_highest(config: ModelConfig) -> int:
    """Return the layer that we take for the paper's "second highest convolution layer".

    Our reading: the paper's generator has maps of 4x4x1024, 8x8x512, 16x16x256 and 32x32x128, and
    200 of them were dropped. So the last hidden layer, with 128, is not meant; the one before it is
    second from the top.
    """
    return num_stages(config) * config.convs_per_stage - 2


def check_layer(generator: nn.Module, layer: int) -> int:
    """Return the number of a layer's maps; refuse a layer that the generator does not have."""
    convs = getattr(generator, "convs", None)
    if convs is None:
        raise UserError(
            "only a DCGAN's generator has maps to switch off: choose another checkpoint"
        )
    if not 0 <= layer < len(convs):
        raise UserError(
            f"the generator's layers are 0 to {len(convs) - 1}, but layer {layer} was asked for"
        )
    return convs[layer].in_channels - generator.config.num_classes


@contextmanager
def silenced(generator: Generator, maps: Iterable[int], layer: int) -> Iterator[Generator]:
    """Switch maps of one layer off, at all positions, for as long as the context lasts.

    Parameters
    ----------
    generator : Generator
        Used as it is; its weights are not touched, and when the context ends nothing of it is left.
    maps : iterable of int
        Which; none is allowed.
    layer : int
        See the module's head. A map is set to 0 after its ReLU, just before the next transposed
        convolution reads it.

    Yields
    ------
    Generator
        The same object.

    Raises
    ------
    UserError
        If a map does not exist; see also `check_layer`.
    """
    num, off = check_layer(generator, layer), sorted({int(i) for i in maps})
    if off and not 0 <= off[0] <= off[-1] < num:
        raise UserError(
            f"layer {layer} has maps 0 to {num - 1}, but {off[0]} to {off[-1]} were asked for"
        )
    off_k = torch.tensor(off, dtype=torch.long)
    handle = generator.convs[layer].register_forward_pre_hook(
        lambda _, given: (given[0].index_fill(1, off_k.to(given[0].device), 0), *given[1:])
    )
    try:
        yield generator
    finally:
        handle.remove()


def activations(generator: Generator, z_nd: Tensor, layer: int) -> np.ndarray:
    """Return a layer's maps after batch norm and ReLU, float32, n x c x h x w."""
    check_layer(generator, layer)
    seen: list[Tensor] = []
    handle = generator.convs[layer].register_forward_pre_hook(
        lambda _, given: seen.append(given[0].detach().clone())
    )
    try:
        generate_u8(generator, z_nd)
    finally:
        handle.remove()
    return torch.cat(seen).float().cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A logistic regression from the maps at a position to "is it inside a box?"."""

    weights_c: np.ndarray
    num_boxes: int
    """Pictures with a box."""
    num_positions: int
    """Positions inside boxes; there are as many outside."""
    accuracy: float
    """Share of positions told right, in a fifth of the pictures that was kept out of a fit of its
    own."""

    def maps(self, threshold: float = 0.0) -> np.ndarray:
        """Return the maps whose weight is greater than a threshold, the greatest weight first."""
        order = np.argsort(-self.weights_c, kind="stable")
        return order[self.weights_c[order] > threshold]


def fit_maps(
    maps_nchw: np.ndarray,
    boxes_n4: np.ndarray,
    image_size: tuple[int, int],
    *,
    c: float = 1.0,
    seed: int = 0,
) -> Fit:
    """Find out which maps tell the inside of boxes from the outside.

    ``c`` is the inverse strength of the L2 penalty. Paper: positions inside the boxes are
    positives, random ones of the same pictures negatives. Our choice, because it does not say: the
    negatives lie outside the box, as many as inside, and the maps are not scaled. At least 5
    pictures must have a box with a position inside.
    """
    parts = labelled_positions(maps_nchw, boxes_n4, image_size, seed)
    if len(parts) < 5:
        raise UserError(
            f"only {len(parts)} pictures have a box with a position inside: use more samples"
        )
    fold = max(1, len(parts) // 5)
    trial, whole = regress(parts[fold:], c), regress(parts, c)
    kept_out = [np.concatenate(column) for column in zip(*parts[:fold], strict=True)]
    return Fit(
        weights_c=whole.coef_[0],
        num_boxes=len(parts),
        num_positions=int(sum(is_there.sum() for _, is_there in parts)),
        accuracy=float(trial.score(*kept_out)),
    )


def labelled_positions(
    maps_nchw: np.ndarray, boxes_n4: np.ndarray, image_size: tuple[int, int], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each picture with a box, activations at p x c positions, and which are inside."""
    inside_nhw = positions_inside(boxes_n4, image_size, maps_nchw.shape[2:])
    rng, parts = np.random.default_rng(seed), []
    for i in np.flatnonzero(inside_nhw.any((1, 2)) & ~inside_nhw.all((1, 2))):
        there, elsewhere = (
            np.flatnonzero(part) for part in (inside_nhw[i].ravel(), ~inside_nhw[i].ravel())
        )
        others = rng.choice(elsewhere, min(len(there), len(elsewhere)), replace=False)
        vectors = maps_nchw[i].reshape(len(maps_nchw[i]), -1).T[np.concatenate([there, others])]
        parts.append((vectors, np.arange(len(vectors)) < len(there)))
    return parts


def regress(parts: list[tuple[np.ndarray, np.ndarray]], c: float) -> LogisticRegression:
    """Fit the logistic regression to what `labelled_positions` returns."""
    vectors, is_there = (np.concatenate(column) for column in zip(*parts, strict=True))
    return LogisticRegression(C=c, max_iter=5_000).fit(vectors.astype(np.float64), is_there)


def measure_effects(
    generator: Generator, probe: Probe, z_nd: Tensor, layer: int, name: str
) -> np.ndarray:
    """Return how much each map, switched off alone, changes a probe's log-odds of an object.

    The change is the mean over the latent vectors: below 0 where the picture shows less of the
    object without the map. Not in the paper. A regression finds maps that are active *where* the
    object is; this finds maps that the object needs.
    """

    def log_odds(off: list[int]) -> float:
        with silenced(generator, off, layer):
            share = probe.predict(generate_u8(generator, z_nd))[name].clip(1e-3, 1 - 1e-3)
        return float(np.log(share / (1 - share)).mean())

    whole = log_odds([])
    return np.array([log_odds([i]) - whole for i in range(check_layer(generator, layer))])


def random_maps(num_maps: int, num_off: int, seed: int) -> np.ndarray:
    """Choose ``num_off`` maps by chance, as a control."""
    if not 0 <= num_off <= num_maps:
        raise UserError(f"{num_off} of {num_maps} maps cannot be switched off")
    return np.random.default_rng(seed).choice(num_maps, num_off, replace=False)


def matched_maps(energy_c: np.ndarray, maps: np.ndarray, seed: int) -> np.ndarray:
    """Choose as many maps by chance, about as active in mean square: the best of 20,000 draws."""
    chances = np.random.default_rng(seed).random((20_000, len(energy_c)))
    draws = chances.argpartition(max(len(maps) - 1, 0), axis=1)[:, : len(maps)]
    return draws[np.abs(energy_c[draws].sum(1) - energy_c[maps].sum()).argmin()]


MOST_LOST = 0.15
"""How much of the other object may be lost while maps are chosen; the bound of the claim itself."""


@dataclass(frozen=True, kw_only=True)
class Originals:
    """Pictures with all maps on, and what is read off them."""

    z_nd: Tensor
    pictures_u8: np.ndarray
    read: dict[str, np.ndarray]
    """By the judge."""
    boxes_n4: np.ndarray
    """Of the object, by the finder; NaN for none."""
    features_nf: np.ndarray
    """Of the judge."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How often an object is seen with all maps on and with some off, in the same pictures."""

    before: Estimate
    """Share of all pictures, as ``after``."""
    after: Estimate
    fall: Estimate
    """1 - after / before."""
    kept: Estimate
    """Share that still show it, of those that did."""
    new: Estimate
    """Share that show it now, of those that did not."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What switching maps off did."""

    maps: list[int]
    layer: int
    changes: dict[str, Change]
    """By object."""
    scene: dict[str, Estimate]
    """Distance between a picture before and after, over that between unrelated pictures before: in
    pixels inside and outside the object's box, in the judge's features, and in its hue of the wall
    and turn of the camera."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A generator, a probe that judges its pictures, one that finds boxes, what is to be forgotten.

    ``name`` is the object to forget, ``other`` the one that has to stay.
    """

    generator: Generator
    judge: Probe
    finder: Probe
    name: str = "window"
    other: str = "bed"

    def __post_init__(self) -> None:
        if self.generator.config.num_classes:
            raise UserError(
                "forgetting needs a generator without classes: choose another checkpoint"
            )
        check_layer(self.generator, 0)
        missing = sorted({self.name, self.other} - set(self.objects))
        if missing:
            raise UserError(
                f"the judge reads {', '.join(self.objects)}, but no {', '.join(missing)}: "
                "choose from those"
            )
        if self.name == self.other:
            raise UserError(
                f"the object to forget and the one that has to stay are both {self.name!r}"
            )

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
        """Fit the regression of `fit_maps` on pictures and their boxes."""
        maps = activations(self.generator, originals.z_nd, layer)
        return fit_maps(maps, originals.boxes_n4, self.generator.config.image_size, c=c, seed=seed)

    def rates(self, originals: Originals, maps: Sequence[int], layer: int) -> dict[str, float]:
        """Return the share of pictures in which the judge sees each object, with maps off."""
        read = self.judge.predict(self.without(originals, maps, layer))
        return {name: float((read[name] > 0.5).mean()) for name in self.objects}

    def measure(self, originals: Originals, maps: Sequence[int], layer: int) -> Outcome:
        """Switch maps off and compare with all maps on."""
        pictures = self.without(originals, maps, layer)
        read = self.judge.predict(pictures)
        return Outcome(
            maps=[int(i) for i in maps],
            layer=layer,
            changes={
                name: compare(originals.read[name] > 0.5, read[name] > 0.5) for name in self.objects
            },
            scene=compare_scenes(originals, pictures, read, self.features(pictures)),
        )

    def sweep(self, originals: Originals, order: Sequence[int], layer: int) -> list[dict[str, Any]]:
        """Return the rates with the first 1, 2, 4, ... maps of an order off, at last with all."""
        counts = sorted({*(2**i for i in range(len(order).bit_length())), len(order)} - {0})
        return [
            {"layer": layer, "count": k, "rates": self.rates(originals, order[:k], layer)}
            for k in counts
        ]

    def best(self, originals: Originals, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the row that shows the object least while at most 15 % of the other is lost."""
        bound = (1 - MOST_LOST) * (originals.read[self.other] > 0.5).mean()
        allowed = [row for row in rows if row["rates"][self.other] >= bound]
        if not allowed:
            raise UserError(f"every choice of maps loses more than {MOST_LOST:.0%} of {self.other}")
        return min(allowed, key=lambda row: row["rates"][self.name])


def compare(had: np.ndarray, has: np.ndarray) -> Change:
    """Compare an object's presence before and after; some picture must have shown it before."""
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
        new=wilson_interval(int((~had & has).sum()), num_others)
        if num_others
        else Estimate(0.0, 0.0, 1.0),
    )


def compare_scenes(
    originals: Originals,
    pictures_u8: np.ndarray,
    read: Mapping[str, np.ndarray],
    features_nf: np.ndarray,
) -> dict[str, Estimate]:
    """Return how far pictures moved, over how far unrelated pictures lie apart; see `Outcome`."""
    size = pictures_u8.shape[2:]
    inside_nhw = positions_inside(originals.boxes_n4, size, size)
    before, boxed = originals.pictures_u8.astype(np.float32), inside_nhw.any((1, 2))
    found = {}
    for place, mask in (("inside", inside_nhw), ("outside", ~inside_nhw)):
        apart, moved = (
            _rms(other - before, mask)[boxed] for other in (np.roll(before, 1, 0), pictures_u8)
        )
        found[f"pixels {place}"] = _ratio(apart, moved)
    vectors = {"features": (originals.features_nf, features_nf)}
    for key in ("wall_hue", "camera_yaw"):
        if key in read:
            vectors[key] = originals.read[key][:, None], read[key][:, None]
    for key, (old, new) in vectors.items():
        apart, moved = (np.linalg.norm(other - old, axis=1) for other in (np.roll(old, 1, 0), new))
        found[key] = _ratio(apart, moved)
    return found


def _rms(difference_nchw: np.ndarray, mask_nhw: np.ndarray) -> np.ndarray:
    squares = (difference_nchw**2).mean(1)
    return np.sqrt((squares * mask_nhw).sum((1, 2)) / mask_nhw.sum((1, 2)).clip(min=1))


def _ratio(unrelated_n: np.ndarray, moved_n: np.ndarray) -> Estimate:
    if len(moved_n) < 2:
        raise UserError("fewer than 2 pictures have a box: draw more")
    return bootstrap_interval(
        lambda far, near: near.mean() / max(far.mean(), 1e-9), unrelated_n, moved_n
    )
