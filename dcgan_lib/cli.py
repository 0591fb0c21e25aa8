"""The command line ``dcgan``: the core's commands, and the way to those of the experiments.

A command is imported when it is named, so that the front page and mistakes are answered at once.
"""

import dataclasses
import importlib
import importlib.util
import math
import os
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from dcgan_lib import __version__
from dcgan_lib.command import Command, Device, local
from dcgan_lib.config import Recipe, TrainConfig, recipe, recipes
from dcgan_lib.errors import UserError, answers_mistakes, require
from dcgan_lib.paths import results_root

if TYPE_CHECKING:
    from dcgan_lib.data.image_set import ImageSet
    from dcgan_lib.evaluation.ledger import Result

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "make": {
        "prepare": ("cli:Prepare", "decode a folder of images once, for training"),
        "train": ("cli:Train", "train a generator and a discriminator, or go on with a run"),
        "sample": ("cli:Sample", "draw pictures with a trained generator"),
        "canvas": ("cli:PaintCanvas", "one picture of any size up to 4096 x 4096"),
        "film": ("interpretation.film:Film", "a film of a training, or of a loop in latent space"),
        "import-authors": (
            "training.authors:ImportAuthors",
            "turn the networks that the paper's authors released into checkpoints",
        ),
        "import-pth": (
            "training.pytorch_example:ImportPth",
            "turn .pth files of the PyTorch example into a checkpoint",
        ),
        "export": ("widgets.export:Export", "write a generator for web pages, or as ONNX"),
    },
    "measure": {
        "evaluate": ("cli:Evaluate", "KID and FID to held-out images, copies, digits recognised"),
        "features": (
            "experiments.tables_1_and_2:Features",
            "features and a linear SVM, as in Tables 1 and 2",
        ),
        "feature-study": (
            "experiments.cifar10_features:FeatureStudy",
            "the same by layer, snapshot and labels",
        ),
        "search": (
            "experiments.supervised_search:Search",
            "the supervised rival of Table 2, by random search",
        ),
        "neighbours": (
            "experiments.mnist_supplement:Neighbours",
            "1-NN on generated digits, as in Table 3",
        ),
        "bn-affine": (
            "experiments.mnist_supplement:BnAffine",
            "batch norm with and without scale and bias",
        ),
        "ablate": (
            "experiments.architecture:Ablate",
            "the paper's rules, broken one at a time",
        ),
        "residual": (
            "experiments.residual_gan:Residual",
            "the residual GAN beside the DCGAN, at equal parameters and time",
        ),
        "filters": (
            "experiments.filter_collapse:Filters",
            "whether filters collapse in long training",
        ),
        "rank-test": (
            "experiments.ruler_ranks:RankTestOfSet",
            "whether features rank damaged pictures of a set",
        ),
        "near-duplicates": (
            "experiments.near_duplicates:NearDuplicates",
            "planted near-duplicates, found or not",
        ),
        "memorisation": (
            "experiments.memorisation:MemorisationCurve",
            "how much is memorised, by the number of images",
        ),
        "epochs": (
            "experiments.bedrooms:Epochs",
            "samples after one pass and after five, as in Figs. 2 and 3",
        ),
        "face-crops": (
            "experiments.faces:FaceCropsStudy",
            "how well faces are found in composed photographs",
        ),
        "face-samples": (
            "experiments.faces:FaceSamples",
            "whether a detector finds faces in samples",
        ),
        "natural": (
            "experiments.natural_images:NaturalImages",
            "whether samples resemble natural images, and what sorting does",
        ),
        "fooled": (
            "experiments.latent_walk:Fooled",
            "nearest neighbours under small image transforms",
        ),
        "probe": ("experiments.probes:TrainProbe", "train the small networks that read attributes"),
    },
    "look inside": {
        "walk": ("experiments.latent_walk:Walk", "a walk through latent space, as in Fig. 4"),
        "project": (
            "interpretation.projection:Project",
            "search the latent vector of a photograph",
        ),
        "walk-returns": ("experiments.latent_walk:WalkReturns", "why objects come back on a walk"),
        "saliency": (
            "experiments.guided_backprop:Saliency",
            "what features answer to, as in Fig. 5",
        ),
        "forget": (
            "experiments.forgetting_windows:Forget",
            "switch off the maps that draw windows, as in Fig. 6",
        ),
        "arithmetic": (
            "experiments.vector_arithmetic:Arithmetic",
            "A - B + C in latent space, as in Fig. 7",
        ),
        "turn": ("experiments.vector_arithmetic:Turn", "turn faces along one vector, as in Fig. 8"),
        "directions": (
            "interpretation.directions:FindDirections",
            "find what a probe reads along lines in z",
        ),
    },
    "the book": {
        "results": ("cli:Results", "every claim of the paper beside what was measured here"),
        "reproduce": ("cli:Reproduce", "run the command behind a result again, and compare"),
        "publish": ("cli:Publish", "turn a run into a small checkpoint"),
        "bench": ("cli:Bench", "time a training step on this machine"),
        "recipes": ("cli:Recipes", "the settings that dcgan train starts from"),
    },
}
"""Every command: where its class stands, and what it does."""

COMMANDS: dict[str, str] = {
    verb: place for group in GROUPS.values() for verb, (place, _) in group.items()
}


def usage() -> str:
    """Return the front page of the command line."""
    lines = [
        f"dcgan {__version__}: train, measure and look inside deep convolutional GANs",
        "",
        "usage: dcgan COMMAND ...",
    ]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {verb:14} {summary}" for verb, (_, summary) in commands.items()]
    lines += ["", "dcgan COMMAND --help lists a command's options. Begin with:", ""]
    lines += ["  dcgan train --recipe rooms --minutes 5       no download: bedrooms that are drawn"]
    lines += ["  dcgan prepare FOLDER --name mine             your own images"]
    lines += ["  dcgan train --recipe faces --set mine        learn to make more of them"]
    return "\n".join(lines)


def find_command(verb: str) -> type[Command]:
    """Import the class of one command.

    Raises
    ------
    UserError
        If there is no such command.
    """
    if verb not in COMMANDS:
        raise UserError(f"there is no command {verb!r}; choose one of: {', '.join(COMMANDS)}")
    module, _, kind = COMMANDS[verb].partition(":")
    return getattr(importlib.import_module(f"dcgan_lib.{module}"), kind)


def parse(arguments: Sequence[str]) -> Command:
    """Turn arguments into a command; a recipe named among them fills in its defaults.

    Raises
    ------
    UserError
        If there is no such command or recipe.
    """
    verb, *rest = arguments
    kind = find_command(verb)
    options: dict[str, Any] = {"prog": f"dcgan {verb}", "args": rest}
    if verb == "train":
        chosen = _recipe_in(rest)
        options["default"] = kind(recipe=chosen.name, config=chosen.config)
    return tyro.cli(kind, **options)


def _recipe_in(arguments: Sequence[str]) -> Recipe:
    """Find --recipe before the other options are read: their defaults come from it."""
    name = "mnist"
    for word, after in zip(
        arguments, [*arguments[1:], ""], strict=True
    ):  # the last one counts, as with any option
        if word.startswith("--recipe="):
            name = word.partition("=")[2]
        elif word == "--recipe" and after:
            name = after
    return recipe(name)


@answers_mistakes("dcgan", on_interrupt="stopped; nothing half-written is kept")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 2 for the user's mistake, or 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(usage())
        elif words[0] == "--version":
            print(__version__)
        else:
            parse(words).run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python complains when it flushes at the end
    return 0


def _make_folder(folder: Path) -> None:
    """Make the folder of a run, or say at once, not after an hour, that it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write into {folder}")
    except OSError as error:
        raise UserError(
            f"cannot keep a run in {folder} ({error}): choose another --run-dir"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Prepare(Command, verb="prepare"):
    """Decode, crop and resize images once, and keep them ready for training, on disk.

    The set can then be named: dcgan train --set NAME. Broken files are left out and listed. The
    set may be larger than memory; a preparation that was killed goes on when it is asked for again.
    """

    source: Positional[Path]
    """A folder of images, or of one folder per class, or a .tar or .tar.gz of one; folders named
    train, val, test are splits. Or an LMDB's folder, as LSUN comes."""
    name: str | None = None
    """Name of the prepared set; unset: the folder's own, with - for what a name cannot hold."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels."""
    channels: Literal["auto", "1", "3"] = "auto"
    """1 for grey, 3 for RGB; auto: grey when every file is grey."""
    fit: Literal["crop", "stretch", "centre"] = "crop"
    """crop: scale the shorter side and cut; stretch; centre: cut without scaling ([C], faces)."""
    min_side: int | None = None
    """Refuse files with a shorter side; unset: half of the size asked for."""
    crop: Literal["none", "faces"] = "none"
    """faces: find faces, as the paper did, and cut out one square each; none: take files whole."""
    min_face: int = 40
    """With --crop faces: the smallest side of a face's box, in pixels; a photograph whose longer
    side is above 1600 is looked at in 1600."""
    margin: float = 0.0
    """With --crop faces: what a crop adds to the box on each side, as a share of it."""
    limit: int | None = None
    """Use at most this many files."""
    deduplicate: Literal["autoencoder", "phash", "exact"] | None = None
    """Leave out images that look like an earlier one: by the paper's autoencoder, which is trained
    on these images ([P]), by a perceptual hash, or only where all pixels are equal."""
    attributes: Path | None = None
    """A CSV table of yes-or-no attributes to condition on: file,smiling,glasses in its first row,
    then a row for each image, with its path in the folder and 0 or 1."""
    max_pixels: int = 89_478_485
    """Refuse files with more pixels, which take 3 bytes each while they are read."""
    overwrite: bool = False
    """Replace a set of this name that was prepared with other settings."""

    def run(self) -> None:
        """Prepare the folder and print what became of its files."""
        from dcgan_lib.data.load import set_names
        from dcgan_lib.data.prepare import name_of_folder, prepare, prepared_root

        crop = None
        if self.crop == "faces":
            from dcgan_lib.data.faces import FaceCrops

            crop = FaceCrops(min_face=self.min_face, margin=self.margin)
        elif (self.min_face, self.margin) != (Prepare.min_face, Prepare.margin):
            raise UserError("--min-face and --margin are about --crop faces: give it too")
        name = name_of_folder(self.source) if self.name is None else self.name
        if not name:
            raise UserError(
                f"no letter of {self.source.resolve().name!r} can stand in a set's name: "
                "choose a name with --name"
            )
        if name.casefold().replace("_", "-") in set_names():
            raise UserError(
                f"{name!r} already names another set, which --set would find: "
                "choose a name with --name"
            )
        image_set = prepare(
            self.source,
            name,
            image_size=self.image_size,
            channels=self.channels if self.channels == "auto" else int(self.channels),
            fit=self.fit,
            min_side=self.min_side,
            max_pixels=self.max_pixels,
            limit=self.limit,
            deduplicate=self.deduplicate,
            overwrite=self.overwrite,
            crop=crop,
            attributes=self.attributes,
            progress=True,
        )
        (height, width), channels = image_set.image_size, image_set.num_channels
        counts, report = image_set.card["counts"], image_set.card["report"]
        named = {"train": "to train on", "validation": "held out", "test": "to test on"}
        splits = ", ".join(
            f"{counts[key]:,} {what}" for key, what in named.items() if key in counts
        )
        print(f"{name}: {len(image_set):,} images, {channels} x {height} x {width}; {splits}")
        print(f"splits: {report['splits']}")
        if crop is not None:
            print(f"crops: {report['crops']}")
        if self.deduplicate is not None:
            print(f"duplicates left out: {report['duplicates']:,} (report.json names each)")
        for kind in ("refused", "noted", "ignored"):
            for reason, count in report[kind].items():
                hint = "; raise --max-pixels to read them" if reason == "too many pixels" else ""
                print(f"  {kind:8} {count:>7,}  {reason}{hint}")
        print(f"every file by name: {prepared_root() / name / 'report.json'}")
        shape = f"--image-size {height} {width} --num-channels {channels}"
        print(f"learn from it: dcgan train --recipe faces --set {name} {shape}")


@dataclass(frozen=True, kw_only=True)
class Train(Command, verb="train"):
    """Train a generator and a discriminator, or go on with a run that was stopped.

    Ctrl-C saves and ends the run; the same command resumes it. [P] marks a default from the paper,
    [C] from the authors' code, [O] our own.
    """

    recipe: Annotated[str, arg(metavar="NAME")] = "mnist"
    """Settings to start from; the options below change them. See: dcgan recipes."""
    set: str | None = None
    """Image set, prepared set or folder; unset: the recipe's."""
    run_dir: Path | None = local(None)
    """Folder of the run; unset: runs/RECIPE, or runs/RECIPE-SET for a set of your own choice."""
    start_from: str | None = None
    """A committed checkpoint or a run whose networks the run begins with; unset: random ones."""
    epochs: float | None = None
    """Train for this many passes over the images, in place of --steps."""
    num_images: int | None = None
    """Train on this many images; unset: all of them."""
    drop_duplicates: bool = False
    """Leave out images that look like an earlier one."""
    device: Device = local("auto")
    """Where to train; auto: a GPU if there is one."""
    threads: int | None = local(None)
    """CPU threads; unset: timed, and the fastest kept."""
    tensorboard: bool = local(False)
    """Also write TensorBoard events into the run's folder."""
    download: bool = local(False)
    """Let torchvision fetch a missing set."""
    dry_run: bool = local(False)
    """Only say what would be trained, and how long it would take here, after a few steps that are
    thrown away."""
    config: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    """Settings of the run."""

    def _defaults(self) -> "Train":
        return Train(recipe="mnist", config=recipe(self.recipe).config)

    def run(self) -> None:
        """Train, then say where everything lies."""
        from dcgan_lib.training.loop import fit
        from dcgan_lib.training.processes import find_processes

        processes, device = find_processes(self.device)
        with processes.together() as is_main:
            config, image_set, how = self._look(device, progress=is_main)
            if self.dry_run and is_main:
                self._print_dry_run(config, image_set)
            suffix = f"-{image_set.name}" if self.set else ""
            run_dir = self.run_dir or Path("runs", self.recipe + suffix)
            if not self.dry_run:
                _make_folder(run_dir)
        if self.dry_run:
            return
        about = {"command": self.command_line(), **how}
        score = None
        if config.score_every:
            from dcgan_lib.evaluation.generators import kid_score

            learnt_from = about | {"image_set": image_set.name}
            score = kid_score(learnt_from, config.model.image_size, config.score_images)
        result = fit(
            config,
            image_set,
            run_dir,
            device=self.device,
            threads=self.threads,
            tensorboard=self.tensorboard,
            about=about,
            start_from=self.start_from,
            score=score,
        )
        with processes.together() as is_main:
            if is_main and result.stopped_by == "trouble":
                raise UserError(f"training stopped at step {result.step:,}: {result.warnings[-1]}")
        if is_main:
            done = f"{result.step:,} of {config.steps:,} steps, {result.seconds / 60:.1f} minutes"
            print(f"{done}; stopped by: {result.stopped_by}")
            print(f"weights, samples and metrics: {run_dir}")

    def _look(
        self, device: str, *, progress: bool
    ) -> tuple[TrainConfig, "ImageSet", dict[str, Any]]:
        """Return the settings, the images and how they were read, or say what is wrong."""
        from dcgan_lib.data.load import load_image_set
        from dcgan_lib.training.loop import choose_device

        choose_device(device)  # a mistake is answered before the images are read
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "at least 1")
        if self.tensorboard and not importlib.util.find_spec("tensorboard"):
            raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard")
        chosen, config = recipe(self.recipe), self.config
        if self.epochs is not None:
            require(0 < self.epochs < math.inf, "epochs", self.epochs, "more than 0, and finite")
            if config.steps != chosen.config.steps:
                raise UserError("--epochs and --steps both say how long to train: give one of them")
        source = self.set or chosen.image_set
        how = {"num_images": self.num_images, "drop_duplicates": self.drop_duplicates}
        how |= {"fit": chosen.fit, "channels": config.model.num_channels}
        size = config.model.image_size
        image_set = load_image_set(
            source, image_size=size, download=self.download, progress=progress, **how
        )
        if self.epochs is not None:
            per_epoch = len(image_set) // config.batch_size
            config = replace(config, steps=max(1, round(self.epochs * per_epoch)))
        return config, image_set, {"source": source, **how}

    def _print_dry_run(self, config: TrainConfig, image_set: "ImageSet") -> None:
        from dcgan_lib.training.bench import dry_run, dry_run_text

        where = {"device": self.device, "threads": self.threads, "start_from": self.start_from}
        print(dry_run_text(config, image_set.name, dry_run(config, image_set, **where)))


@dataclass(frozen=True, kw_only=True)
class Sample(Command, verb="sample"):
    """Draw pictures with a trained generator: one grid, or one file each."""

    checkpoint: Positional[str]
    """A committed checkpoint (mnist, faces, bedrooms, rooms, portraits), a run's folder, or its
    generator.safetensors."""
    out: Path | None = None
    """The grid's file, samples.png if unset; with --separate, the pictures' folder, or samples."""
    num_images: int = 64
    """How many pictures; any number makes a grid."""
    pictures: tuple[int, ...] = ()
    """Numbers of those to write, counted from 0 as the grid of all is read; unset: all of them."""
    separate: bool = False
    """Write one PNG a picture instead of a grid."""
    columns: int | None = None
    """Pictures in a row of the grid; unset: as square as can be."""
    label: int | None = None
    """Class to draw, for a conditional generator; unset: all in turn."""
    attributes: str | None = None
    """Attributes to draw, for a generator of several: smiling=1,glasses=0; those left out, in
    turn."""
    best_of: int = 1
    """Draw this many times as many, and keep those that the discriminator finds most real."""
    best: int | None = None
    """Keep this many of --num-images, those that the discriminator finds most real, best first; all
    of them are sorted if it is --num-images itself."""
    batch_stats: bool = False
    """Normalise with the statistics of the batch, as the authors did, not the running ones."""
    seed: int = 0
    """Of the latent vectors."""

    def run(self) -> None:
        """Draw and write the pictures."""
        from dcgan_lib.models.sampling import write_grid, write_separately
        from dcgan_lib.training.checkpoints import draw

        out = self.out or Path("samples" if self.separate else "samples.png")
        kept = self.best or self.num_images
        for number in self.pictures:
            allowed = f"from 0 to {kept - 1}, or --num-images larger"
            require(0 <= number < kept, "each of --pictures", number, allowed)
        pictures = draw(
            self.checkpoint,
            self.num_images,
            seed=self.seed,
            label=self.label,
            attributes=self._attributes(),
            best_of=self.best_of,
            best=self.best,
            batch_stats=self.batch_stats,
        )
        if self.pictures:
            pictures = pictures[list(self.pictures)]
        if self.separate:
            write_separately(out, pictures, self.pictures or None)
        else:
            write_grid(out, pictures, self.columns)
        print(f"{len(pictures):,} picture{'s' if len(pictures) > 1 else ''}: {out}")

    def _attributes(self) -> dict[str, bool]:
        found = {}
        for part in (self.attributes or "").split(","):
            name, _, value = part.strip().partition("=")
            if part.strip():
                require(value in ("0", "1"), "each of --attributes", part, "NAME=1 or NAME=0")
                found[name] = value == "1"
        return found


@dataclass(frozen=True, kw_only=True)
class PaintCanvas(Command, verb="canvas"):
    """Paint one picture of any size: a convolutional generator over a field of latent vectors."""

    checkpoint: Positional[str]
    """A committed checkpoint (rooms, faces, bedrooms, portraits, mnist) or a run's folder."""
    out: Path = local(Path("canvas.png"))
    """File of the picture: .png, .jpg or .webp."""
    size: tuple[int, int] = (512, 512)
    """Height and width in pixels, up to 4096 each."""
    style: Literal["pictures", "smooth", "texture"] = "smooth"
    """pictures: the generator's pictures side by side; smooth: latent vectors that turn into each
    other along arcs; texture: overlapping projections, as in the Torch implementation."""
    spacing: float = 2.0
    """With smooth: pictures from one latent vector to the next."""
    seed: int = 0
    """Of the latent vectors."""

    def run(self) -> None:
        """Paint, and say where."""
        from dcgan_lib.models.canvas import paint_u8, plan_canvas
        from dcgan_lib.models.sampling import write_png
        from dcgan_lib.training.checkpoints import load_generator

        canvas = plan_canvas(
            load_generator(self.checkpoint),
            self.size,
            style=self.style,
            spacing=self.spacing,
            seed=self.seed,
        )
        painted_u8 = paint_u8(canvas)
        grey = len(painted_u8) == 1
        write_png(self.out, painted_u8[0] if grey else painted_u8.transpose(1, 2, 0))
        print(f"{self.size[0]} x {self.size[1]} pixels: {self.out}")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command, verb="evaluate"):
    """Measure a generator: KID and FID to held-out images, copies, digits recognised."""

    checkpoint: Positional[str]
    """A committed checkpoint or a run's folder."""
    num_images: int = 5_000
    """Samples, and the most held-out images to compare with."""
    features: str | None = None
    """Whose features to compare; unset: efficientnet-lite0, but a digit classifier's for MNIST's
    nearest neighbours. pixels and efficientnet-lite0 fit every size, grey or RGB; so does
    inception, once its weights are there."""
    held_out: str = "held-out"
    """Split to compare with; held-out: test of mnist and of the drawn sets, validation of others,
    or the one of the two that there is."""
    seed: int = 1
    """Of the latent vectors."""
    record: str | None = None
    """Enter the figures into the claims ledger under ours.RECORD."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        from dcgan_lib.evaluation.generators import evaluate_generator

        if self.record:
            from dcgan_lib.experiments.generators import check_record, record_report

            check_record(self.record, self.command_line())
        report = evaluate_generator(
            self.checkpoint,
            num_images=self.num_images,
            features=self.features,
            held_out=self.held_out,
            seed=self.seed,
        )
        print(report.text())
        if self.record:
            record_report(report, self.record, self.command_line())


@dataclass(frozen=True, kw_only=True)
class Results(Command, verb="results"):
    """Show the claims ledger: each claim beside what was measured here, misses included."""

    section: str | None = None
    """Only this section of the paper (5.1, 6) or ids that begin so (table1, ours)."""
    verdict: str | None = None
    """Only this verdict, such as "not reproduced"."""
    chapter: int | None = None
    """Only this chapter of the book."""
    markdown: bool = False
    """Print a Markdown table with every column."""

    def run(self) -> None:
        """Print the table."""
        from dcgan_lib.evaluation.ledger import (
            load_results,
            results_markdown,
            results_table,
            select,
        )

        rows = select(
            load_results(), section=self.section, verdict=self.verdict, chapter=self.chapter
        )
        print(results_markdown(rows) if self.markdown else results_table(rows))


@dataclass(frozen=True, kw_only=True)
class Reproduce(Command, verb="reproduce"):
    """Run the command behind a row of the claims ledger again, and print both figures side by side.

    The ledger and the checkpoints stay as they are: what is measured now goes to a folder that is
    removed at the end.
    """

    id: Positional[str | None] = None
    """Of a measured row, such as table3.real.50k or walk.smooth:rooms; see: dcgan results."""
    within: float | None = None
    """In place of a row: every row whose command took at most so many seconds, each command once.
    What cannot be measured here, because an image set is missing say, is named and passed over."""
    dry_run: bool = False
    """Only say which command it is, and how long it took."""

    def run(self) -> None:
        """Measure again and compare."""
        from dcgan_lib.evaluation.ledger import load_results, load_row

        if (self.id is None) == (self.within is None):
            raise UserError("give the ID of one row, or --within SECONDS for all the cheap ones")
        if self.id is not None:
            row = load_row(self.id)
            self._introduce(row)
            if not self.dry_run:
                self._compare(parse(shlex.split(row.command)[1:]))
            return
        cheap = [row for row in load_results() if row.is_measured and row.seconds <= self.within]
        rows = {row.command: row for row in sorted(cheap, key=lambda row: row.seconds)}
        found: Counter[str] = Counter()
        for row in rows.values():
            self._introduce(row)
            if self.dry_run:
                continue
            try:
                found.update(self._compare(parse(shlex.split(row.command)[1:])))
            except UserError as error:
                print(f"not measured: {error}")
                found["not measured"] += 1
            print(flush=True)
        seconds = sum(row.seconds for row in rows.values())
        print(f"{len(rows)} commands, {seconds:,.0f} s when they were recorded")
        for words, number in found.most_common():
            print(f"{number:4}  {words}")

    def _introduce(self, row: "Result") -> None:
        print(row.command)
        print(f"recorded on {row.date} in {row.seconds:,.0f} s on {row.hardware}", flush=True)

    def _compare(self, command: Command) -> list[str]:
        """Run a command beside the ledger; print each row that it writes, and say how it agrees."""
        from dcgan_lib.evaluation.ledger import format_measured, load_results, load_row

        before = {row.id: row for row in load_results() if row.is_measured}
        options = {entry.name for entry in dataclasses.fields(command)}
        with _scratch_ledger() as scratch:
            changed = {"again": True, "out": scratch / "out", "run_dir": scratch / "run"}
            changed = {name: value for name, value in changed.items() if name in options}
            written = {path.name: path.stat().st_mtime_ns for path in results_root().glob("*.json")}
            dataclasses.replace(command, **changed).run()
            after = [
                load_row(path.stem.replace("--", ":"))
                for path in sorted(results_root().glob("*.json"))
                if path.stat().st_mtime_ns != written.get(path.name)
            ]
        agreements = []
        for now in after:
            id, then = now.id, before.get(now.id)
            print(f"\n{id}")
            if then is not None:
                print(f"  recorded  {format_measured(then):28} {then.verdict_text}")
            print(f"  now       {format_measured(now):28} {now.verdict_text}")
            agreements.append("not in the ledger" if then is None else _agreement(then, now))
            if then is not None:
                print(f"  {agreements[-1]}")
        return agreements


@contextmanager
def _scratch_ledger() -> Iterator[Path]:
    """Let results be recorded into a copy of the ledger, in a folder that is removed at the end."""
    usual = os.environ.get("DCGAN_RESULTS")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(results_root(), Path(scratch, "results"))
        os.environ["DCGAN_RESULTS"] = str(Path(scratch, "results"))
        try:
            yield Path(scratch)
        finally:
            del os.environ["DCGAN_RESULTS"]
            if usual is not None:
                os.environ["DCGAN_RESULTS"] = usual


def _agreement(then: "Result", now: "Result") -> str:
    """Say how two measurements of one row compare."""
    from dcgan_lib.evaluation.ledger import format_measured

    if format_measured(then) == format_measured(now):
        return "the same figure"
    if then.low <= now.value <= then.high and now.low <= then.value <= now.high:
        return "another figure, each inside the other's interval"
    return "they differ: one lies outside the other's interval"


@dataclass(frozen=True, kw_only=True)
class Bench(Command, verb="bench"):
    """Time a training step on this CPU against that of most tutorials, in turns on equal work."""

    sizes: tuple[Literal[32, 64], ...] = (32, 64)
    """Sides of the images: 32 grey, 64 colour."""
    base_width: int = 32
    """Feature maps at the finest resolution."""
    batch_size: int = 64
    """Images in a minibatch."""
    rounds: int = 15
    """Rounds that count."""
    threads: int | None = local(None)
    """CPU threads; unset: PyTorch's choice."""

    def run(self) -> None:
        """Time and print the rates and their ratios."""
        from dcgan_lib.training.bench import bench, bench_config, bench_text, peak_rates

        require(bool(self.sizes), "--sizes", self.sizes, "32, 64 or both")
        load = {"base_width": self.base_width, "batch_size": self.batch_size}
        for size in self.sizes:
            seconds = bench(size, rounds=self.rounds, threads=self.threads, **load)
            peaks = peak_rates(self.threads)
            print(bench_text(bench_config(size, **load), seconds, peaks), flush=True)


@dataclass(frozen=True, kw_only=True)
class Publish(Command, verb="publish"):
    """Copy a finished run to data/checkpoints: half precision, metrics, samples and a card."""

    run_dir: Positional[Path]
    """A finished run."""
    name: Positional[str]
    """Name of the checkpoint."""
    command: str | None = None
    """What made the run, for the card; unset: the command that the run itself keeps."""
    keep: Literal["both", "generator", "discriminator"] = "both"
    """One network alone makes the checkpoint half as large."""

    def run(self) -> None:
        """Publish and say how large it is."""
        from dcgan_lib.training.checkpoints import publish

        folder = publish(self.run_dir, self.name, command=self.command, keep=self.keep)
        print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*')) / 1e6:.1f} MB")


@dataclass(frozen=True, kw_only=True)
class Recipes(Command, verb="recipes"):
    """List the recipes that dcgan train starts from."""

    def run(self) -> None:
        """Print one line a recipe."""
        for name, entry in recipes().items():
            print(f"{name:18} {entry.image_set:14} {entry.config.steps:>9,} steps  {entry.summary}")


if __name__ == "__main__":
    sys.exit(main())
