"""Whether filters collapse in long training (section 7 of the paper).

The paper's discussion says that models which are trained for longer "sometimes collapse a subset
of filters to a single oscillating mode". In numbers: maps of a layer come to vary together, or not
at all, and that comes and goes. So the snapshots of long runs are measured one by one.

Axes: v values (of all pictures and places), c maps of a layer.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tyro.conf import Positional

from dcgan_lib.command import Command
from dcgan_lib.data.load import HELD_OUT, load_image_set
from dcgan_lib.errors import UserError, check_number, require
from dcgan_lib.evaluation.ledger import Caveat, Result, id_on, record, save_details
from dcgan_lib.evaluation.statistics import mean_interval
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import AnyGenerator, check_dcgan
from dcgan_lib.models.sampling import network_input, sample_latents, seeded
from dcgan_lib.training.checkpoints import (
    load_config,
    load_discriminator,
    load_generator,
    snapshot_folders,
)

CLAIM = "train.filter-collapse"
DEAD, ALIKE = 0.01, 0.95
"""A map is dead below this share of its layer's median standard deviation, and like another above
this correlation. Our choice."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Say how the maps of one layer vary together."""

    num_maps: int
    effective_rank: float
    """exp of the entropy of the shares of variance along the principal axes: from 1 to num_maps."""
    dead: int
    """Maps that hardly vary."""
    alike: int
    """Maps that do what an earlier map of the layer does."""

    @property
    def collapsed(self) -> float:
        """Share of the maps that are dead or like another."""
        return (self.dead + self.alike) / self.num_maps


def measure_layer(maps_bchw: Tensor) -> Layer:
    """Measure the maps of one layer over all pictures and places."""
    num_maps = maps_bchw.shape[1]
    values_vc = maps_bchw.movedim(1, -1).reshape(-1, num_maps).double()
    values_vc = values_vc - values_vc.mean(0)
    covariance_cc = values_vc.T @ values_vc / len(values_vc)
    std_c = covariance_cc.diagonal().sqrt()
    is_dead_c = std_c <= DEAD * std_c.median()
    living_cc = covariance_cc[~is_dead_c][:, ~is_dead_c]
    std_c = std_c[~is_dead_c]
    correlations_cc = living_cc / (std_c[:, None] * std_c)
    alike = int((correlations_cc.triu(1) > ALIKE).any(0).sum())
    share_c = torch.linalg.eigvalsh(covariance_cc).clamp(min=0)
    rank = torch.special.entr(share_c / share_c.sum().clamp(min=1e-30)).sum().exp()
    return Layer(
        num_maps=num_maps,
        effective_rank=round(float(rank), 2),
        dead=int(is_dead_c.sum()),
        alike=alike,
    )


@torch.inference_mode()
def generator_maps(generator: AnyGenerator, z_bd: Tensor) -> list[Tensor]:
    """Return the maps after each ReLU but the projection's, the coarsest layer first."""
    maps: list[Tensor] = []

    def keep(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps.append(F.relu(output))

    with ExitStack() as hooks:
        for norm in generator.norms:
            hooks.enter_context(norm.register_forward_hook(keep))
        generator.eval()(z_bd)
    return maps


@torch.inference_mode()
def discriminator_maps(discriminator: Discriminator, images_u8: np.ndarray) -> list[Tensor]:
    """Return the maps of every convolution, the finest layer first."""
    return discriminator.eval().features(network_input(discriminator, images_u8))


@dataclass(frozen=True, kw_only=True)
class Filters(Command, verb="filters"):
    """Measure along the snapshots of long runs whether filters collapse.

    A layer of D is measured on held-out images of the run's set, one of G on latent vectors of one
    seed. Train the runs with --snapshot-every, and for many times the usual number of steps.
    """

    runs: Positional[tuple[Path, ...]]
    """Folders of runs, of one image set."""
    num_images: int = 256
    """Pictures that the maps are measured on."""
    record: bool = False
    """Write the claim to the ledger; two runs or more."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        check_number(self, "num_images", 2)
        least = 2 if self.record else 1
        require(len(self.runs) >= least, "the number of runs", len(self.runs), f"at least {least}")
        begun = time.perf_counter()
        sets = {load_config(folder)[1]["image_set"] for folder in self.runs}
        if len(sets) > 1:
            raise UserError(f"the runs must have one image set, but have {', '.join(sorted(sets))}")
        histories = {}
        for folder in self.runs:
            history = histories[folder.name] = measure_run(folder, self.num_images)
            print(f"{folder.name}\n{history_text(history)}")
        if self.record:
            seconds = time.perf_counter() - begun
            record_claim(histories, sets.pop(), self.command_line(), seconds)


History = dict[int, dict[str, Layer]]
"""What was measured by step and by layer, such as "G 1" or "D 3"."""


def measure_run(run_dir: Path, num_images: int) -> History:
    """Measure every layer of both networks in each snapshot of a run."""
    config, about = load_config(run_dir)
    size, channels = config.model.image_size, config.model.num_channels
    about_set = {"image_size": size, "channels": channels, "num_images": num_images}
    held_out = load_image_set(about["image_set"], HELD_OUT, **about_set)
    z_bd = sample_latents(num_images, config.model, seeded(0))
    history: History = {}
    for folder in snapshot_folders(run_dir):
        discriminator = check_dcgan(load_discriminator(folder))
        networks = {
            "G": generator_maps(load_generator(folder), z_bd),
            "D": discriminator_maps(discriminator, held_out.images_u8),
        }
        history[int(folder.name.removeprefix("step-"))] = {
            f"{name} {number}": measure_layer(maps)
            for name, layers in networks.items()
            for number, maps in enumerate(layers, start=1)
        }
    return history


def history_text(history: History) -> str:
    """Lay a run's measurements out as text: effective rank and collapsed maps by step and layer."""
    names = list(next(iter(history.values())))
    lines = ["step    " + "".join(f"{name:>14}" for name in names)]
    for step, layers in history.items():
        cells = [
            f"{layer.effective_rank:.1f} {layer.dead}+{layer.alike}" for layer in layers.values()
        ]
        lines.append(f"{step:<8}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join([*lines, "each: effective rank, dead + alike maps"])


GROWN = 0.05
"""Share of a layer's maps that must have collapsed since the first fifth of a run."""


def growth(history: History) -> dict[str, np.ndarray]:
    """Return, by layer, what share of the maps has collapsed since the first fifth of the run."""
    steps = np.array(list(history))
    early = steps <= steps[-1] / 5
    if not early.any() or early.all():
        raise UserError(
            "a run needs snapshots in its first fifth and later, but has them at "
            f"{', '.join(map(str, steps))}: train it with a smaller --snapshot-every"
        )
    found = {}
    for name in next(iter(history.values())):
        share = np.array([layers[name].collapsed for layers in history.values()])
        found[name] = share[~early] - share[early].max()
    return found


def record_claim(
    histories: dict[str, History], set_name: str, command: str, seconds: float
) -> Result:
    """Write the row: the largest growth of each run, in points, averaged over runs.

    A few small runs that show nothing do not contradict a "sometimes": such a row says "not tested
    at scale".
    """
    growths = [growth(history) for history in histories.values()]
    largest = [100 * max(each.max() for each in layers.values()) for layers in growths]
    collapses = [each for layers in growths for each in layers.values() if each.max() > GROWN]
    returns = [each for each in collapses if each[each.argmax() :].min() < each.max() / 2]
    checks = {
        "in some run more than 5 % of a layer's maps collapse after the first fifth": bool(
            collapses
        ),
        "and half of that collapse goes away again": bool(returns),
    }
    longest = max(step for history in histories.values() for step in history)
    scale = f"{len(histories)} runs of up to {longest:,} steps"
    caveat = None
    if not collapses:
        caveat = Caveat(kind="not at scale", why=f"nothing collapsed in {scale}")
    details = {
        run: {
            step: {name: vars(layer) for name, layer in layers.items()}
            for step, layers in history.items()
        }
        for run, history in histories.items()
    }
    save_details(f"filters/{set_name}", details)
    return record(
        id_on(CLAIM, set_name),
        mean_interval(np.array(largest)),
        unit="points",
        n=len(histories),
        data=set_name,
        command=command,
        seconds=seconds,
        seed=0,
        checks=checks,
        caveat=caveat,
        notes=f"largest growth of the share of dead or like maps in a layer; {scale}",
    )
