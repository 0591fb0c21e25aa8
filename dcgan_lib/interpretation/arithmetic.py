"""Sums of concepts in latent space: the mean of exemplars of A, minus that of B, plus that of C (section 6.3.2).

Axes: n samples, d latent, t trials, k exemplars of a concept, 3 the concepts A, B and C; ``_u8`` pixels 0..255.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import make_grid

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Panel, Probe
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval
from dcgan_lib.models.baselines import AnyGenerator
from dcgan_lib.models.sampling import generate_u8, sample_latents, seeded
from dcgan_lib.paths import atomic_write
from dcgan_lib.training.checkpoints import find_run, load_config

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
        sums=SUMS,
        probe="probe-portraits",
        carried="long_hair stands in for the paper's man and woman",
    ),
    "faces64": Described(
        sums=FACE_SUMS,
        probe="probe-faces+probe-smiles",
        carried="man and woman by the set's own sex label",
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


FILE = "exemplars.json"
TURN = ("looking left", "looking right")
"""The concepts that a turn vector needs; left and right are the viewer's."""


@dataclass(frozen=True, kw_only=True)
class Exemplars:
    """Hold which samples show which concept.

    Parameters
    ----------
    checkpoint : str
        The generator that draws them.
    seed, pool : int
        Seed and size of the pool that the numbers count in.
    concepts : mapping of str to sequence of int
        A concept's name to its samples, counted from 0, all different.
    sums : mapping of str to sequence of str, optional
        A sum's name to its concepts A, B and C, which have equally many samples.

    Raises
    ------
    UserError
        If a number does not lie in the pool or comes twice, or a sum does not fit.
    """

    checkpoint: str
    seed: int
    pool: int
    concepts: Mapping[str, Sequence[int]]
    sums: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers and the sums."""
        if not self.concepts:
            raise UserError("exemplars need at least one concept, but none came")
        for name, numbers in self.concepts.items():
            wrong = [
                n
                for n in numbers
                if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < self.pool
            ]
            if wrong:
                raise UserError(
                    f"{name}: the pool's samples are numbered 0 to {self.pool - 1}, but {wrong[0]!r} came"
                )
            if len(set(numbers)) != len(numbers):
                raise UserError(f"{name}: a sample comes twice among {list(numbers)}")
        for name, trio in self.sums.items():
            if len(trio) != 3:
                raise UserError(
                    f"the sum {name} needs the concepts A, B and C, but has {len(trio)}"
                )
            self.numbers(trio)

    def check_checkpoint(self, name: str) -> None:
        """Refuse a generator other than the one whose samples were picked.

        Raises
        ------
        UserError
            If it is another.
        """
        if Path(name).name != Path(self.checkpoint).name:
            raise UserError(
                f"the exemplars are samples of {self.checkpoint}, but the checkpoint is {name}"
            )

    def numbers(self, names: Sequence[str]) -> list[list[int]]:
        """Return the samples of some concepts, of each equally many.

        Raises
        ------
        UserError
            If there is no such concept, it is empty, or one has more samples than another.
        """
        unknown = set(names) - set(self.concepts)
        if unknown:
            raise UserError(
                f"no exemplars of {', '.join(sorted(unknown))}: there are {', '.join(self.concepts)}"
            )
        found = [list(self.concepts[name]) for name in names]
        if len({len(numbers) for numbers in found}) != 1 or not found[0]:
            raise UserError(
                f"{', '.join(names)} need equally many exemplars, but have {[len(n) for n in found]}"
            )
        return found

    def latents(self, names: Sequence[str], config: ModelConfig) -> np.ndarray:
        """Return the latent vectors of some concepts' exemplars, shape (g, k, d)."""
        return self.pool_latents(config)[np.array(self.numbers(names))]

    def pool_latents(self, config: ModelConfig) -> np.ndarray:
        """Return the latent vectors of the whole pool, float32."""
        return sample_latents(self.pool, config, seeded(self.seed)).numpy()

    def save(self, path: str | Path) -> None:
        """Write them as JSON, for `load_exemplars` and ``dcgan arithmetic --exemplars``."""
        about = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        about |= {"concepts": {name: list(numbers) for name, numbers in self.concepts.items()}}
        about |= (
            {"sums": {name: list(trio) for name, trio in self.sums.items()}} if self.sums else {}
        )
        text = json.dumps(about, indent=1)
        lists = re.compile(r"\[[^\[\]{}]*\]")  # each on one line
        text = lists.sub(lambda found: json.dumps(json.loads(found[0])), text)
        atomic_write(Path(path), text + "\n")


def load_exemplars(name_or_path: str | Path) -> Exemplars:
    """Read exemplars from a file, or those kept beside a checkpoint's weights.

    Parameters
    ----------
    name_or_path : str or Path
        A JSON file, or a checkpoint's name such as "faces".

    Raises
    ------
    UserError
        If there are none, the file is damaged, or see `Exemplars`.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" and not path.is_file():
        raise UserError(
            f"there is no file of exemplars at {path}: pick some with dcgan_lib.widgets.picker"
        )
    path = path if path.is_file() else find_run(name_or_path) / FILE
    if not path.is_file():
        raise UserError(
            f"{name_or_path} has no {FILE}: pick exemplars with dcgan_lib.widgets.picker and save them"
        )
    try:
        return Exemplars(**json.loads(path.read_text(encoding="utf-8")))
    except UserError:
        raise
    except (OSError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path.name} holds no exemplars ({error}): pick and save them again"
        ) from error


SIGNS = (1, -1, 1)
_PORTION = 2_000


@dataclass(frozen=True)
class Pool:
    """Hold samples to choose exemplars from.

    Parameters
    ----------
    z_nd : ndarray
        float32, their latent vectors.
    read : dict of str to ndarray
        What a probe reads off each picture.
    """

    z_nd: np.ndarray
    read: dict[str, np.ndarray]


def pictures_of(generator: AnyGenerator, z_nd: np.ndarray) -> np.ndarray:
    """Return the generator's pictures, uint8, of latent vectors given as an array."""
    return generate_u8(generator, torch.from_numpy(np.ascontiguousarray(z_nd, dtype=np.float32)))


def draw_pool(generator: AnyGenerator, probe: Probe | Panel, num: int, seed: int) -> Pool:
    """Draw samples and read their attributes; sample i is the same whenever ``num`` and ``seed`` are.

    Parameters
    ----------
    generator : AnyGenerator
        Unconditional, on any device.
    probe : Probe or Panel
        Reads pictures of the generator's size.
    num : int
        How many.
    seed : int
        Of the latent vectors.
    """
    z_nd = sample_latents(num, generator.config, seeded(seed)).numpy()
    parts = [
        probe.predict(pictures_of(generator, z_nd[i : i + _PORTION]))
        for i in range(0, num, _PORTION)
    ]
    return Pool(z_nd, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def shows(read: Mapping[str, np.ndarray], concept: Concept, confidence: float = 0.5) -> np.ndarray:
    """Return which pictures show a concept: each attribute read as asked, with more than this confidence.

    Raises
    ------
    UserError
        If the probe does not read an attribute.
    """
    unknown = set(concept) - set(read)
    if unknown:
        raise UserError(
            f"the probe reads {', '.join(read)}, but no {', '.join(sorted(unknown))}: choose another probe"
        )
    return np.all(
        [(read[name] if has else 1 - read[name]) > confidence for name, has in concept.items()], 0
    )


def pick(
    pool: Pool,
    concepts: tuple[Concept, ...],
    num: int,
    trials: int,
    seed: int,
    *,
    confidence: float = 0.9,
    ahead: float | None = None,
) -> np.ndarray:
    """Choose exemplars of each concept by chance, anew for each trial.

    Parameters
    ----------
    pool : Pool
        Samples to choose from.
    concepts : tuple of Concept
        What the exemplars of each group must show.
    num, trials : int
        Exemplars a group, all different, and how often to choose.
    seed : int
        Of the choice.
    confidence : float, default 0.9
        How sure the probe must be of each attribute.
    ahead : float, optional
        Take only faces whose yaw, read by the probe, is at most this far from 0.

    Returns
    -------
    ndarray
        int64, shape (trials, groups, num): indices into the pool.

    Raises
    ------
    UserError
        If fewer than ``num`` samples show a concept.
    """
    facing = np.ones(len(pool.z_nd), bool) if ahead is None else np.abs(pool.read["yaw"]) <= ahead
    named = [
        ", ".join(name if has else f"no {name}" for name, has in concept.items())
        for concept in concepts
    ]
    fits = [shows(pool.read, concept, confidence) & facing for concept in concepts]
    return choose(
        [(f"show {name}", fit) for name, fit in zip(named, fits, strict=True)], num, trials, seed
    )


def choose(
    groups: Sequence[tuple[str, np.ndarray]], num: int, trials: int, seed: int
) -> np.ndarray:
    """Choose ``num`` samples of each group by chance, anew for each trial: int64, shape (trials, groups, num).

    A group is what its samples do, such as "look left", and which they are: bool, shape (n,).

    Raises
    ------
    UserError
        If a group has fewer samples than that.
    """
    rng, chosen = np.random.default_rng(seed), []
    for what, fits in groups:
        found = np.flatnonzero(fits)
        if len(found) < num:
            raise UserError(
                f"{len(found)} of {len(fits)} samples {what}, but {num} are needed: draw more"
            )
        chosen.append(np.stack([rng.choice(found, num, replace=False) for _ in range(trials)]))
    return np.stack(chosen, 1)


def add_up(z_t3kd: np.ndarray) -> np.ndarray:
    """Return mean(A) - mean(B) + mean(C).

    Parameters
    ----------
    z_t3kd : ndarray
        Exemplars, shape (..., 3, k, d): latent vectors, or flattened pictures.

    Returns
    -------
    ndarray
        Shape (..., d).

    Raises
    ------
    UserError
        If there are not three groups.
    """
    if z_t3kd.ndim < 3 or z_t3kd.shape[-3] != len(SIGNS):
        raise UserError(
            f"a sum takes three groups of exemplars, ... x 3 x k x d, but got shape {z_t3kd.shape}"
        )
    return np.einsum("g,...gkd->...d", np.array(SIGNS) / z_t3kd.shape[-2], z_t3kd)


def exemplars(
    pool: Pool, name: str | Sum, trials: int, num: int = 3, seed: int = 0, ahead: float | None = 0.4
) -> np.ndarray:
    """Return latent vectors chosen by `pick` for a sum, or for one of `SUMS` by name, shape (trials, 3, num, d)."""
    asked = SUMS[name] if isinstance(name, str) else name
    return pool.z_nd[pick(pool, asked.concepts, num, trials, seed, ahead=ahead)]


def succeeds(
    generator: AnyGenerator, probe: Probe | Panel, y_td: np.ndarray, wanted: Concept
) -> np.ndarray:
    """Return for each vector whether the probe sees all that is wanted in its picture; bool, shape (t,)."""
    return shows(probe.predict(pictures_of(generator, y_td)), wanted)


def way_of(pool: Pool, name: str, among: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Return the direction from samples without an attribute to those with it, of length 1.

    Parameters
    ----------
    pool : Pool
        Samples.
    name : str
        A yes-or-no attribute.
    among : ndarray
        bool, shape (n,): which samples count.
    confidence : float, default 0.9
        How sure the probe must be.

    Returns
    -------
    ndarray
        Shape (d,): the difference of the two means, scaled.

    Raises
    ------
    UserError
        If there are no samples of either kind.
    """
    with_it, without = (among & shows(pool.read, {name: has}, confidence) for has in (True, False))
    if not (with_it.any() and without.any()):
        raise UserError(
            f"{with_it.sum()} samples show {name} and {without.sum()} do not, but both are needed"
        )
    way = pool.z_nd[with_it].mean(0) - pool.z_nd[without].mean(0)
    return way / np.linalg.norm(way)


def usual_length(config: ModelConfig) -> float:
    """Return the root mean square length of a latent vector: sqrt(d) times the spread of one number."""
    return float(np.sqrt(config.z_dim * (1 if config.z_distribution == "normal" else 1 / 3)))


def rescaled(y_td: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Return vectors in their own directions, each of the usual length."""
    return y_td * (usual_length(config) / np.linalg.norm(y_td, axis=-1, keepdims=True))


def nine(y_d: np.ndarray, seed: int = 0, scale: float = 0.25) -> np.ndarray:
    """Return a vector amid eight neighbours, y + U(-scale, scale), shape (9, d); the fifth is y itself."""
    noise = np.random.default_rng(seed).uniform(-scale, scale, (9, len(y_d)))
    noise[4] = 0
    return y_d + noise


def pixel_sums(pictures_u8: np.ndarray) -> np.ndarray:
    """Return the same sum made of pictures instead of latent vectors, cut off at black and white.

    Parameters
    ----------
    pictures_u8 : ndarray
        Exemplars, shape (t, 3, k, c, h, w).

    Returns
    -------
    ndarray
        uint8, shape (t, c, h, w).
    """
    t, shape = len(pictures_u8), pictures_u8.shape[3:]
    sums = add_up(pictures_u8.reshape(*pictures_u8.shape[:3], -1).astype(np.float32))
    return sums.clip(0, 255).round().astype(np.uint8).reshape(t, *shape)


def layout(generator: AnyGenerator, z_3kd: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw one sum as the paper's Fig. 7 does.

    Parameters
    ----------
    generator : AnyGenerator
        Draws every picture.
    z_3kd : ndarray
        The exemplars of A, B and C.
    seed : int
        Of the noise of the eight neighbours.

    Returns
    -------
    dict of str to ndarray
        One picture each, uint8, 1 x 3 x h x w, all of one height. "A", "B" and "C": the exemplars above their mean.
        "A - B + C": nine pictures around the sum. "pixels": the sum of the exemplars' pictures.
    """
    exemplars = [pictures_of(generator, z_kd) for z_kd in z_3kd]
    means = pictures_of(generator, z_3kd.mean(1))
    columns = {
        name: np.concatenate([x, m[None]])
        for name, x, m in zip("ABC", exemplars, means, strict=True)
    }
    columns["A − B + C"] = pictures_of(generator, nine(add_up(z_3kd), seed))
    columns["pixels"] = pixel_sums(np.stack(exemplars)[None])
    tiles = {name: _tile(x, 3 if len(x) == 9 and name[1:] else 1) for name, x in columns.items()}
    height = max(x.shape[1] for x in tiles.values())
    return {
        name: np.pad(x, ((0, 0), (0, height - x.shape[1]), (0, 0)), constant_values=255)[None]
        for name, x in tiles.items()
    }


def _tile(images_u8: np.ndarray, columns: int) -> np.ndarray:
    return make_grid(torch.from_numpy(images_u8), columns, padding=2, pad_value=255).numpy()


STEPS = np.linspace(-1, 1, 11)
"""Eleven columns as in Fig. 8, the face itself in the middle; 1 adds the whole axis (our choice)."""
NUM_EXEMPLARS = 4


def pick_sides(
    pool: Pool, trials: int, seed: int, *, least: float = 0.6, num: int = NUM_EXEMPLARS
) -> np.ndarray:
    """Choose faces that look left and faces that look right, anew for each trial.

    Parameters
    ----------
    pool : Pool
        Samples, with the yaw that a probe reads.
    trials, seed : int
        How often to choose, and the seed of the choice.
    least : float, default 0.6
        Least yaw to either side; 1 is the most that the drawn portraits have.
    num : int, default 4
        Faces a side, as in the paper.

    Returns
    -------
    ndarray
        int64, shape (trials, 2, num): indices into the pool, left first.

    Raises
    ------
    UserError
        If the probe reads no yaw, or too few samples look to a side.
    """
    if "yaw" not in pool.read:
        raise UserError(f"the probe reads {', '.join(pool.read)}, but no yaw: choose another probe")
    yaw = pool.read["yaw"]
    return choose([("look left", -yaw >= least), ("look right", yaw >= least)], num, trials, seed)


def turn_axes(z_n2kd: np.ndarray) -> np.ndarray:
    """Return mean(right) - mean(left), shape (n, d), of exemplars of shape (n, 2, k, d)."""
    left, right = np.moveaxis(z_n2kd.mean(2), 1, 0)
    return right - left


def random_axes(axes_nd: np.ndarray, seed: int) -> np.ndarray:
    """Return axes of the same lengths in random directions."""
    ways = np.random.default_rng(seed).normal(size=axes_nd.shape)
    return ways * (np.linalg.norm(axes_nd, axis=1) / np.linalg.norm(ways, axis=1))[:, None]


def moved(z_nd: np.ndarray, axes_nd: np.ndarray, steps_s: np.ndarray = STEPS) -> np.ndarray:
    """Return each vector at each step along its axis, shape (n, s, d)."""
    return z_nd[:, None] + np.asarray(steps_s)[:, None] * axes_nd[:, None]


def drawn_turn(generator: AnyGenerator, own: Exemplars, num_faces: int = 5) -> np.ndarray:
    """Turn a pool's first samples along the axis that exemplars picked by eye give.

    Parameters
    ----------
    generator : AnyGenerator
        The one whose samples were picked.
    own : Exemplars
        With those that look left and those that look right; see `TURN`.
    num_faces : int, default 5
        Rows, as in the paper.

    Returns
    -------
    ndarray
        uint8, n x c x h x w: eleven pictures a face, the face itself in the middle.
    """
    axis_d = turn_axes(own.latents(TURN, generator.config)[None])
    z_nsd = moved(own.pool_latents(generator.config)[:num_faces], axis_d)
    return pictures_of(generator, z_nsd.reshape(-1, z_nsd.shape[-1]))


def read_along(
    generator: AnyGenerator,
    probe: Probe,
    z_nd: np.ndarray,
    axes_nd: np.ndarray,
    steps_s: np.ndarray = STEPS,
) -> dict[str, np.ndarray]:
    """Read every attribute at each step; float32 arrays of shape (n, s, ...)."""
    z_nsd = moved(z_nd, axes_nd, steps_s)
    read = probe.predict(pictures_of(generator, z_nsd.reshape(-1, z_nsd.shape[-1])))
    return {
        name: values.reshape(*z_nsd.shape[:2], *values.shape[1:]) for name, values in read.items()
    }


@dataclass(frozen=True)
class Line:
    """Hold how straight a quantity runs against the step, over faces.

    Parameters
    ----------
    slope : Estimate
        Mean change over one step unit.
    r2 : Estimate
        Mean share of a face's own variation that a straight line explains.
    rising : Estimate
        Share of faces whose straight line rises.
    """

    slope: Estimate
    r2: Estimate
    rising: Estimate


def straight_lines(
    values_ns: np.ndarray, steps_s: np.ndarray = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a straight line to each row; return slopes and R2, each of shape (n,). A constant row has an R2 of 0."""
    steps = np.asarray(steps_s, np.float64) - np.mean(steps_s)
    values = values_ns - values_ns.mean(1, keepdims=True)
    slopes, total = values @ steps / (steps @ steps), (values**2).sum(1)
    return slopes, np.divide(
        slopes**2 * (steps @ steps), total, out=np.zeros(len(values)), where=total > 0
    )


def summarise(values_ns: np.ndarray, steps_s: np.ndarray = STEPS) -> Line:
    """Return mean slope, mean R2 and the share of rising lines, each with its interval over the rows."""
    slopes, r2 = straight_lines(values_ns, steps_s)
    rising = wilson_interval(int((slopes > 0).sum()), len(slopes))
    return Line(bootstrap_interval(np.mean, slopes), bootstrap_interval(np.mean, r2), rising)


def flips(read: dict[str, np.ndarray], name: str, column: int) -> Estimate:
    """Return the share of faces whose yes-or-no attribute differs between the middle step and another."""
    yes_ns = read[name] > 0.5
    changed = yes_ns[:, column] != yes_ns[:, yes_ns.shape[1] // 2]
    return wilson_interval(int(changed.sum()), len(changed))
