"""Every setting of a network and of a training run, and the recipes that fix them.

A tag on each field says where its default comes from: [P] the paper's text, [C] the authors'
code, [O] our own choice.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from dcgan_lib.errors import UserError, check_choices, check_number, check_numbers, require

MIN_SIDE, MAX_SIDE = 8, 256
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Describe a generator and a discriminator; the default is the authors' 64x64 faces network."""

    architecture: Literal["convolutional", "dense", "residual"] = "convolutional"
    """[P] The DCGAN, or the permutation-invariant GAN of fully connected layers that Table 3
    compares it with; [O] or the residual GAN that came after the paper."""
    image_size: tuple[int, int] = (64, 64)
    """[P] Height and width in pixels, each 8 to 256."""
    num_channels: Literal[1, 3] = 3
    """[P] 1 for grey, 3 for RGB."""
    z_dim: int = 100
    """[P] Numbers in one latent vector."""
    z_distribution: Literal["uniform", "normal"] = "uniform"
    """[P] What a latent vector is drawn from: U(-1, 1), or N(0, 1) as most later code does."""
    base_width: int = 128
    """[P] Feature maps at the finest resolution; each halving of the side doubles them."""
    kernel_size: Literal[3, 4, 5] = 5
    """[P] Side of every convolution's kernel; 4 in most later code. If residual: 3, whatever is
    set."""
    num_stages: int | None = None
    """[O] How often the side is halved; unset: as often as 4 pixels can be doubled to it. If dense:
    hidden layers."""
    convs_per_stage: Literal[1, 2] = 1
    """[C] 1: each convolution has stride 2. 2: strides 1 and 2 in turn, the authors' ImageNet
    network."""
    projection_bn: Literal["unit", "channel"] = "unit"
    """[C] Batch norm after the projection of z: over each unit, or over each channel as most later
    code does."""
    bn_affine: bool = True
    """[C] Whether batch norm has a learnt scale and bias; off in the authors' MNIST code."""
    bn_eps: float = 1e-5
    """[O] Added to the variance in batch norm; the authors' code has 1e-8, PyTorch 1e-5."""
    leaky_slope: float = 0.2
    """[P] Slope of the discriminator's LeakyReLU below zero."""
    num_classes: int = 0
    """[C] Classes to condition on by concatenating the label at every layer; 0: unconditional."""
    attributes: tuple[str, ...] = ()
    """[O] Names of yes-or-no attributes of the image set to condition on, all at once: in place of
    a class, a label is one 0 or 1 for each; num_classes is then their number."""
    hidden_units: int = 0
    """[C] Units of one fully connected hidden layer in both networks, as in the authors' MNIST
    code; 0: none. If dense: units of every hidden layer."""
    output: Literal["tanh", "sigmoid"] = "tanh"
    """[P] The generator's last activation: images in [-1, 1], or in [0, 1] as in the authors' MNIST
    code."""
    residual_alpha: float = 0.1
    """[O] If residual: what a block adds to its shortcut is multiplied by this."""
    residual_norm: Literal["none", "batch", "layer"] = "none"
    """[O] If residual: what stands before every activation but that of D's first block."""
    residual_activation: Literal["relu", "leaky"] = "leaky"
    """[O] If residual: in both networks; leaky has the slope of ``leaky_slope``."""

    def __post_init__(self) -> None:
        size = self.image_size
        a_pair = isinstance(size, (tuple, list)) and len(size) == 2
        whole = a_pair and all(isinstance(side, int) for side in size)
        allowed = f"two whole numbers (height, width) from {MIN_SIDE} to {MAX_SIDE}"
        fits = whole and min(size) >= MIN_SIDE and max(size) <= MAX_SIDE
        require(fits, "image_size", size, allowed)
        object.__setattr__(self, "image_size", tuple(size))
        check_choices(self)
        check_numbers(self, 1, "z_dim", "base_width")
        check_numbers(self, 0, "num_classes", "hidden_units", "leaky_slope")
        object.__setattr__(self, "attributes", tuple(self.attributes))
        if self.attributes:
            number = len(self.attributes)
            named_twice = len(set(self.attributes)) < number
            if named_twice or number > 16 or self.num_classes not in (0, number):
                raise UserError(
                    f"attributes must be at most 16 different names, and num_classes left out, but "
                    f"got {', '.join(self.attributes)} and num_classes {self.num_classes}"
                )
            object.__setattr__(self, "num_classes", number)
        check_number(self, "bn_eps", 1e-12, 1)
        check_number(self, "residual_alpha", 0, 10)
        if self.architecture == "dense":
            given = (self.hidden_units, self.num_stages)
            what = "hidden_units and num_stages of a dense network"
            require(min(given[0], given[1] or 0) >= 1, what, given, "at least 1 each")
        elif self.num_stages is not None:
            check_number(self, "num_stages", 1, int(math.log2(min(size))))
        if self.architecture == "residual" and (self.hidden_units or self.convs_per_stage == 2):
            given = f"hidden_units {self.hidden_units}, convs_per_stage {self.convs_per_stage}"
            raise UserError(
                f"a residual network has no hidden layer and no plain stages, but got {given}: "
                "leave both out"
            )
        if self.convs_per_stage == 2 and self.kernel_size == 4:
            raise UserError(
                "kernel_size 4 cannot keep the side at stride 1: use 3 or 5 with convs_per_stage 2"
            )

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest pixel value that the networks use."""
        return (-1.0, 1.0) if self.output == "tanh" else (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Describe one training run: the networks, the optimiser, the schedule and the budget."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The pair of networks."""
    batch_size: int = 128
    """[P] Images per minibatch, at least 2 because batch norm needs a spread."""
    learning_rate: float = 2e-4
    """[P] Adam's step size; the paper calls 1e-3 too high."""
    beta1: float = 0.5
    """[P] Adam's momentum; the paper found that 0.9 oscillates."""
    beta2: float = 0.999
    """[C] Adam's memory of squared gradients."""
    weight_decay: float = 1e-5
    """[C] L2 penalty, added to the gradient of every parameter."""
    schedule: Literal["alternate", "same_batch"] = "alternate"
    """[C] alternate: each minibatch updates one network, G first. same_batch: each updates D, then
    G."""
    d_updates: int = 1
    """[C] Updates of the discriminator in one round."""
    g_updates: int = 1
    """[C] Updates of the generator in one round."""
    decay_fraction: float = 0.0
    """[C] Last share of the steps over which the learning rate falls to 0; 0.5 in the authors'
    MNIST code."""
    steps: int = 20_000
    """[O] Minibatches to train on."""
    minutes: float | None = None
    """[O] Stop after this many minutes even if steps are left."""
    mirror: bool = False
    """[O] Show each image left to right or right to left, by chance; the paper does not augment."""
    d_shift: int = 0
    """[O] Shift each image that the discriminator sees, real or generated, at random by up to this
    many pixels in each direction, as Zhao et al. (2020) do; 0, as in the paper: none."""
    d_shift_adaptive: float = 0.0
    """[O] With d_shift: shift only some of the images, more of them while the mean sign of D's
    logits on real images is above this, and fewer below it, as Karras et al. (2020) do with 0.6;
    0: shift all. For a few hundred photographs."""
    r1_weight: float = 0.0
    """[O] gamma of the R1 penalty (Mescheder et al., 2018): D's loss is raised by gamma / 2 times
    the squared norm of its logit's gradient at real images; 0, as in the paper: none."""
    ema_decay: float = 0.0
    """[O] Also keep an exponential moving average of both networks' weights, in the run's ema/,
    with this decay a step (0.999 is usual); 0, as in the paper: none."""
    seed: int = 42
    """[C] Fixes the initial weights, the order of the images and every latent vector."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """[O] Arithmetic of the convolutions; weights and losses stay in float32. auto: both are timed
    when a run begins, and the faster is kept for its whole life. With float32 a run is the same on
    every machine of one kind."""
    channels_last: bool = True
    """[O] Keep channels innermost in memory; the same results, faster on CPUs and GPUs."""
    sync_batch_norm: bool = False
    """[O] With several processes: batch norm over the whole batch, as on the paper's one GPU, so
    that the number of processes changes nothing but rounding. Off, each process normalises its own
    part, which is faster, and a smaller batch to batch norm."""
    log_every: int = 50
    """[O] Steps between lines of metrics.jsonl."""
    sample_every: int = 1_000
    """[O] Steps between grids of samples."""
    num_samples: int = 64
    """[O] Images in a grid, always from the same latent vectors."""
    snapshot_every: int = 0
    """[O] Steps between networks that are kept, the untrained ones included, in the run's
    snapshots/; 0: none."""
    score_every: int = 0
    """[O] Steps between scores in the log: KID of samples to held-out images, measured as
    dcgan evaluate does, but on fewer images; 0: none."""
    score_images: int = 1_000
    """[O] Samples of a score, and held-out images at most."""
    save_seconds: float = 60.0
    """[O] Seconds between saved states, from which a run resumes."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_numbers(self, 1, "d_updates", "g_updates", "steps")
        check_numbers(self, 1, "log_every", "sample_every", "num_samples")
        check_numbers(self, 0, "weight_decay", "r1_weight", "snapshot_every", "save_seconds")
        check_number(self, "score_every", 0)
        check_numbers(self, 2, "batch_size", "score_images")
        for name in ("beta1", "beta2", "ema_decay"):
            check_number(self, name, 0, 1 - 1e-9)
        check_number(self, "decay_fraction", 0, 1)
        check_number(self, "d_shift", 0, min(self.model.image_size) - 1)
        check_number(self, "d_shift_adaptive", 0, 1)
        if self.d_shift_adaptive and not self.d_shift:
            raise UserError(
                f"d_shift_adaptive is {self.d_shift_adaptive:g}, but d_shift is 0, so there is "
                "nothing to adapt: give d_shift too, 8 for example"
            )
        check_number(self, "seed", 0, MAX_SEED)
        check_number(self, "learning_rate", 1e-12, 10)
        if self.minutes is not None:
            check_number(self, "minutes", 0)


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Rebuild a configuration from ``to_dict``'s output; refuse a field that is unknown."""
    values = dict(values)
    model = dict(values.pop("model", {}))
    for kind, given in ((ModelConfig, model), (TrainConfig, values)):
        unknown = set(given) - {entry.name for entry in dataclasses.fields(kind)}
        if unknown:
            raise UserError(
                f"{kind.__name__} has no field {sorted(unknown)}: was it saved by another version?"
            )
    return TrainConfig(model=ModelConfig(**model), **values)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Name a configuration and the image set it was made for."""

    name: str
    image_set: str
    summary: str
    config: TrainConfig
    fit: Literal["crop", "stretch", "centre"] = "crop"
    """How a folder's images are brought to size; see ``dcgan_lib.data.prepare``."""


# To add a recipe, add an entry to RECIPES: a name, the image set, one line for `dcgan recipes`, the
# networks' settings and the run's, each only where it differs from the defaults above.

AUTHORS = {"bn_eps": 1e-8}
AUTHORS_MNIST = {
    "image_size": (28, 28),
    "num_channels": 1,
    "base_width": 64,
    "num_classes": 10,
    "hidden_units": 1024,
    "bn_affine": False,
    "bn_eps": 1e-8,
    "output": "sigmoid",
}
AUTHORS_MNIST_RUN = {
    "weight_decay": 2.5e-5,
    "decay_fraction": 0.5,
    "steps": 200 * (50_000 // 128),
}

# For two CPU cores: a quarter of the width, and batches of 64, which give twice the updates for the
# same work. The learning rate falls to 0 over the second half, as in the authors' MNIST code: the
# last samples are the best.
SMALL = {"image_size": (64, 64), "base_width": 32}
SMALL_RUN = {
    "batch_size": 64,
    "schedule": "same_batch",
    "weight_decay": 0.0,
    "decay_fraction": 0.5,
    "steps": 10_000,
}


def _recipe(
    name: str, image_set: str, summary: str, model: dict, run: dict, fit: str = "crop"
) -> Recipe:
    config = TrainConfig(model=ModelConfig(**model), **run)
    return Recipe(name=name, image_set=image_set, summary=summary, config=config, fit=fit)


RECIPES = (
    _recipe(
        "paper-faces",
        "celeba",
        "the authors' faces network, width 128; theirs were 350,000 detector crops",
        model=AUTHORS,
        run={"steps": 25 * (350_000 // 128)},
        fit="centre",
    ),
    _recipe(
        "paper-bedrooms",
        "lsun-bedrooms",
        "the paper's LSUN bedrooms, width 128, five epochs of 3 million images",
        model=AUTHORS,
        run={"steps": 5 * (3_033_042 // 128)},
    ),
    _recipe(
        "paper-imagenet32",
        "imagenet",
        "the authors' seven-layer 3x3 network with a z of 256",
        model=AUTHORS
        | {"image_size": (32, 32), "z_dim": 256, "kernel_size": 3, "convs_per_stage": 2},
        run={"steps": 30 * (1_281_167 // 128)},
    ),
    _recipe(
        "paper-svhn",
        "svhn",
        "the authors' SVHN network: Gaussian z, batch 64, learning rate 5e-4",
        model=AUTHORS | {"image_size": (32, 32), "z_distribution": "normal", "base_width": 64},
        run={"batch_size": 64, "learning_rate": 5e-4, "steps": 200 * (73_257 // 64)},
    ),
    _recipe(
        "paper-mnist",
        "mnist",
        "the authors' conditional MNIST network, sigmoid output, no scale and bias in batch norm",
        model=AUTHORS_MNIST,
        run=AUTHORS_MNIST_RUN,
    ),
    _recipe(
        "mnist-gan",
        "mnist",
        "the permutation-invariant GAN that Table 3 compares with; its layers are our choice",
        model=AUTHORS_MNIST | {"architecture": "dense", "num_stages": 2},
        run=AUTHORS_MNIST_RUN,
    ),
    _recipe(
        "mnist",
        "mnist",
        "digits at 32x32, width 32: ten to twenty minutes on one CPU core",
        model=SMALL | {"image_size": (32, 32), "num_channels": 1},
        run=SMALL_RUN | {"steps": 8_000},
    ),
    _recipe(
        "faces",
        "faces64",
        "faces at 64x64, width 32: half an hour in bfloat16 on one fast CPU core",
        model=SMALL,
        run=SMALL_RUN | {"steps": 6_000},
    ),
    _recipe(
        "bedrooms",
        "bedrooms64",
        "bedrooms at 64x64, width 32, mirrored by chance: 4,000 photographs are few",
        model=SMALL,
        run=SMALL_RUN | {"mirror": True},
    ),
    _recipe(
        "rooms",
        "rooms",
        "drawn bedrooms at 64x64, width 32; no download",
        model=SMALL,
        run=SMALL_RUN,
    ),
    _recipe(
        "portraits",
        "portraits",
        "drawn portraits at 64x64, width 32; no download",
        model=SMALL,
        run=SMALL_RUN,
    ),
)


def recipes() -> dict[str, Recipe]:
    """Return every recipe by name; ``paper-`` marks the authors' own settings."""
    return {recipe.name: recipe for recipe in RECIPES}


def recipe(name: str) -> Recipe:
    """Return one recipe by its name."""
    known = recipes()
    if name not in known:
        raise UserError(f"no recipe is called {name!r}; choose one of: {', '.join(known)}")
    return known[name]
