"""The command ``dcgan features``: how much a linear classifier gets out of features (section 5, Tables 1 and 2)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from dcgan_lib.errors import UserError

if TYPE_CHECKING:
    from dcgan_lib.config import ModelConfig
    from dcgan_lib.evaluation.conv_features import Features
    from dcgan_lib.evaluation.held_out import LabelledSplits
    from dcgan_lib.evaluation.protocols import FittedProtocol, Outcome
    from dcgan_lib.models.networks import AnyDiscriminator


UNTRAINED = ("random", "pixels", "kmeans1")


@dataclass(frozen=True, kw_only=True)
class FeaturesCommand:
    """Classify images by a discriminator's layers and a linear SVM, as in the paper's Tables 1 and 2."""

    checkpoint: Positional[str]
    """A committed checkpoint or a run's folder with a discriminator; or random (its weights), pixels, kmeans1 (one
    layer of K-means features)."""
    set: str = "cifar10"
    """Labelled image set: cifar10, svhn, mnist, street-digits."""
    protocol: Literal["full", "400", "1000"] = "full"
    """full: all labels; 400: of each class (Table 1). 1000: in all, as many of each class (Table 2)."""
    split: Literal["validation", "test"] = "validation"
    """What is classified. test needs --record, and is used once a result."""
    record: str | None = None
    """Enter the result into the claims ledger under this id, such as table1.dcgan.full or table2.dcgan:mnist."""
    again: bool = False
    """Measure a recorded result again, on purpose."""
    recipe: Annotated[str, arg(metavar="NAME")] = "paper-svhn"
    """Whose network to give random weights."""
    layers: tuple[int, ...] = ()
    """Convolutional layers to use, 1 next to the image; unset: all, as in the paper."""
    grid: int = 4
    """Side of the grid that each layer is max-pooled to."""
    batch_norm: Literal["batches", "stored"] = "batches"
    """Statistics: mean over minibatches of the set's training images, as the authors; or those of the checkpoint."""
    draws: int | None = None
    """Draws of labels to report over; unset: 10 for 400, 100 for 1000."""
    centroids: int = 1_200
    """Of kmeans1, which has four features each: one a quadrant."""
    seed: int = 0
    """Of the draws, of random weights and of centroids."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network runs; auto: a GPU if there is one."""
    features_file: Path | None = None
    """Keep the features in this .npy file instead of in memory."""
    download: bool = False
    """Let torchvision fetch a missing set."""

    def run(self) -> None:
        """Measure, print, and record if asked."""
        from dcgan_lib.evaluation import feature_rows
        from dcgan_lib.evaluation.conv_features import part_of
        from dcgan_lib.evaluation.protocols import check_protocol

        if (self.split == "test") != (self.record is not None):
            raise UserError("the test images are for results that are recorded: give both --split test and --record ID")
        if self.seed < 0:
            raise UserError(f"--seed is at least 0, but got {self.seed}")
        if self.record:
            self._check_record()
        if self.features_file:
            part_of(self.features_file)
        network = self._network()
        splits = self._splits(network and network.config)
        check_protocol(self.protocol, splits, self.draws)
        fitted = self._fit(self._features(network, splits), splits, self.features_file)
        _show(self.checkpoint, splits.name, fitted.on_validation)
        if self.record:
            control = self._control(network, splits) if feature_rows.needs_control(self.record) else None
            with splits.test_for(self.record, again=self.again) as (images_u8, labels):
                outcome = fitted.on_test(images_u8, labels, progress=True)
                beside = control and (control[0], control[1].on_test(images_u8, labels, progress=True))
            _show(self.checkpoint, splits.name, outcome)
            row = feature_rows.record_features(
                self.record, outcome, image_set=splits.name, command=self._command(), seed=self.seed, control=beside,
                checkpoint=None if self.checkpoint in UNTRAINED else Path(self.checkpoint).name, notes=self._training(),
            )  # fmt: skip
            print(f"recorded {row.id}: {row.verdict}")

    def _network(self) -> "AnyDiscriminator | None":
        from dcgan_lib.config import recipe
        from dcgan_lib.evaluation.conv_features import ConvFeatures
        from dcgan_lib.training.checkpoints import load_discriminator, untrained_discriminator

        if self.checkpoint in UNTRAINED[1:]:
            if self._changed:
                raise UserError(
                    f"{self.checkpoint} has no layers, grid or batch norm to choose: leave these options out"
                )
            return None
        if self.checkpoint == "random":
            network = untrained_discriminator(recipe(self.recipe).config.model, self.seed)
        else:
            network = load_discriminator(self.checkpoint)
        ConvFeatures(network, layers=self.layers or None, grid=self.grid)  # refuses what does not fit
        return network

    @property
    def _changed(self) -> bool:
        """Tell whether the network is read otherwise than in the paper."""
        return bool(self.layers) or self.grid != 4 or self.batch_norm != "batches"

    def _splits(self, model: "ModelConfig | None") -> "LabelledSplits":
        from dcgan_lib.evaluation.held_out import load_splits

        like = {} if model is None else {"image_size": model.image_size, "channels": model.num_channels}
        return load_splits(self.set, download=self.download, **like)

    def _features(self, network: "AnyDiscriminator | None", splits: "LabelledSplits") -> "Features":
        from dcgan_lib.evaluation import conv_features
        from dcgan_lib.evaluation.kmeans_features import KMeansFeatures
        from dcgan_lib.training.loop import choose_device

        if self.checkpoint == "kmeans1":
            return KMeansFeatures(self.centroids, seed=self.seed).fit(splits.train.images_u8).transform
        if network is None:
            return conv_features.pixel_features
        network = network.to(choose_device(self.device))
        if self.batch_norm == "batches":
            statistics = conv_features.batch_statistics(network, splits.train.images_u8, progress=True)
            network = conv_features.with_statistics(network, statistics)
        return conv_features.ConvFeatures(network, layers=self.layers or None, grid=self.grid)

    def _control(self, network: "AnyDiscriminator | None", splits: "LabelledSplits") -> "tuple[str, FittedProtocol]":
        """Fit what the row is compared with: pixels, or the same network with random weights.

        Measured statistics may harm random weights. A control should be strong, so both kinds are tried, and the one
        with the better validation accuracy is taken.
        """
        from dcgan_lib.evaluation.conv_features import pixel_features
        from dcgan_lib.training.checkpoints import untrained_discriminator

        if network is None:
            return "pixels", self._fit(pixel_features, splits)
        twin = untrained_discriminator(network.config, self.seed)
        tried = {
            f"features of the same network with random weights (--batch-norm {kind})": self._fit(
                replace(self, batch_norm=kind)._features(twin, splits), splits
            )
            for kind in ("batches", "stored")
        }
        return max(tried.items(), key=lambda item: item[1].on_validation.accuracy.value)

    def _fit(self, features: "Features", splits: "LabelledSplits", path: Path | None = None) -> "FittedProtocol":
        from dcgan_lib.evaluation.protocols import fit_protocol

        return fit_protocol(
            self.protocol, splits, features, draws=self.draws, seed=self.seed, for_test=self.split == "test",
            path=path, progress=True,
        )  # fmt: skip

    def _check_record(self) -> None:
        """Refuse, before anything is loaded, what does not belong into the row."""
        from dcgan_lib.evaluation import feature_rows, held_out
        from dcgan_lib.training.checkpoints import load_config

        if self.layers or self.grid != 4 or self.draws == 1:
            raise UserError(
                "a row takes all layers, a grid of 4 and several draws: leave --layers, --grid and --draws out"
            )
        trained = self.checkpoint not in UNTRAINED
        feature_rows.check_row(
            self.record, protocol=self.protocol, set_name=held_out.plain_name(self.set),
            kind="dcgan" if trained else self.checkpoint, command=self._command(), batch_norm=self.batch_norm,
            trained_on=load_config(self.checkpoint)[1].get("image_set") if trained else None,
        )  # fmt: skip
        held_out.check_unused(self.record, again=self.again)

    def _training(self) -> str:
        """Say how a network was trained that is not committed."""
        from dcgan_lib.training.checkpoints import checkpoints_root, find_run, load_config

        if self.checkpoint in UNTRAINED or find_run(self.checkpoint).resolve().parent == checkpoints_root().resolve():
            return ""
        config, about = load_config(self.checkpoint)
        return (
            f"the network is a run that is not committed: {config.steps:,} minibatches of {config.batch_size} from "
            f"{about['images']:,} images of {about['image_set']}, seed {config.seed}"
        )

    def _command(self) -> str:
        words = ["dcgan features", self.checkpoint, f"--set {self.set}", f"--protocol {self.protocol}"]
        words += [f"--split {self.split}", f"--seed {self.seed}"]
        if self.checkpoint == "random":
            words.append(f"--recipe {self.recipe}")
        if self.checkpoint == "kmeans1":
            words.append(f"--centroids {self.centroids}")
        if self._changed:
            layers = f" --layers {' '.join(map(str, self.layers))}" if self.layers else ""
            words.append(f"--grid {self.grid} --batch-norm {self.batch_norm}{layers}")
        words += [f"--draws {self.draws}"] if self.draws else []
        return " ".join([*words, f"--record {self.record}"])


def _show(source: str, set_name: str, outcome: "Outcome") -> None:
    value, low, high = outcome.accuracy
    grid = "  ".join(f"{c:g}: {accuracy:.2f}" for c, accuracy in outcome.curve.items())
    if outcome.split == "validation":
        print(f"validation accuracy by C, in %:  {grid}")
    draws = f", {len(outcome.accuracies)} draws" if len(outcome.accuracies) > 1 else ""
    print(f"{source} on {set_name}: {outcome.num_features:,} features, {outcome.num_labels:,} labels{draws}")
    print(
        f"{outcome.split} accuracy {value:.2f} % [{low:.2f}, {high:.2f}], C {outcome.c:g}, n {outcome.n:,}", flush=True
    )
