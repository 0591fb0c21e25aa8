"""Compare the L2-SVM with scikit-learn's LinearSVC on real features: time, memory, answers.

usage: DCGAN_DATA=... python tests/measure_svm.py [--images 2500] [--c 1e-5 1e-4 1e-3] [--alone]

The features are 28,672 numbers of each CIFAR-10 image, from the authors' ImageNet network with
random weights. The script ends with status 1 unless, at every C, the objective is LinearSVC's
within 1e-4 and 99.5 % of 2,500 held-out images get the same answer. With --alone only the L2-SVM
runs: 50,000 images are too many for LinearSVC."""

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import LinearSVC
from test_svm import objectives

from dcgan_lib.config import recipe
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    batch_statistics,
    compute_features,
    with_statistics,
)
from dcgan_lib.evaluation.protocols import load_splits
from dcgan_lib.evaluation.svm import L2SVM, prepare
from dcgan_lib.models.networks import untrained_discriminator

NUM_HELD = 2_500


def cifar10_features(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 features and labels of training images, and of validation images if those are
    not enough."""
    splits, network = (
        load_splits("cifar10", image_size=(32, 32)),
        recipe("paper-imagenet32").config.model,
    )
    images_u8, labels = (
        np.concatenate([getattr(part, name) for part in (splits.train, splits.validation)])[
            :num_images
        ]
        for name in ("images_u8", "labels")
    )
    random = untrained_discriminator(network, 0)
    random = with_statistics(random, batch_statistics(random, splits.train.images_u8[:2_000]))
    return compute_features(ConvFeatures(random), images_u8, progress=True), labels


def timed(fit: Callable[[], object]) -> tuple[float, float, float]:
    """Run and return wall seconds, CPU seconds, and how far memory rose above what was held, in GB
    (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    held, wall, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    fit()
    return time.perf_counter() - wall, time.process_time() - cpu, resident("VmHWM") - held


def resident(field: str) -> float:
    """Return a number of this process's memory in GB."""
    return (
        int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
        * 1024
        / 1e9
    )


def compare(
    c: float, x_nf: np.ndarray, labels: np.ndarray, held_nf: np.ndarray
) -> tuple[float, bool]:
    """Fit both with one C; return LinearSVC's seconds, and whether they agree. Without held-out
    images fit ours."""
    ours = L2SVM(c)
    seconds, cpu, memory = timed(lambda: ours.fit(x_nf, labels))
    print(f"C {c:g}: L2SVM {seconds:.1f} s (CPU {cpu:.1f} s), {memory:+.2f} GB", flush=True)
    if not len(held_nf):
        return 0.0, True
    theirs = LinearSVC(C=c, random_state=0, dual=True, max_iter=100_000)
    slow, cpu, memory = timed(lambda: theirs.fit(x_nf, labels))
    print(
        f"  LinearSVC {slow:.1f} s (CPU {cpu:.1f} s), {memory:+.2f} GB: {slow / seconds:.1f} "
        "times as long"
    )
    more = (objectives(ours, x_nf, labels, c) / objectives(theirs, x_nf, labels, c) - 1).max()
    same = float((ours.predict(held_nf) == theirs.predict(held_nf)).mean())
    print(
        f"  objective {more:+.1e} of LinearSVC's; {100 * same:.2f} % of {len(held_nf):,} answers "
        "agree",
        flush=True,
    )
    return slow, bool(more < 1e-4 and same >= 0.995)


def main() -> int:
    """Fit both for each C, then ours for all C in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2_500)
    parser.add_argument("--c", type=float, nargs="+", default=[1e-5, 1e-4, 1e-3])
    parser.add_argument("--alone", action="store_true")
    chosen = parser.parse_args()
    if not chosen.alone and chosen.images > 50_000 - NUM_HELD:
        parser.error(f"{NUM_HELD:,} of 50,000 images are held out: ask for fewer, or --alone")
    x_nf, labels = cifar10_features(chosen.images + (0 if chosen.alone else NUM_HELD))
    x_nf, held_nf, labels = x_nf[: chosen.images], x_nf[chosen.images :], labels[: chosen.images]
    print(
        f"{len(x_nf):,} x {x_nf.shape[1]:,}, {x_nf.nbytes / 1e9:.1f} GB, "
        f"{torch.get_num_threads()} threads"
    )
    found = [compare(c, x_nf, labels, held_nf) for c in chosen.c]
    begun, svm, rows = time.perf_counter(), L2SVM(warm_start=True), prepare(x_nf)
    for c in chosen.c:
        svm.set_params(C=c).fit(rows, labels)
    seconds, slow = time.perf_counter() - begun, sum(slow for slow, _ in found)
    print(
        f"all C in turn: {seconds:.1f} s"
        + (f", {slow / seconds:.1f} times as long by LinearSVC" if slow else "")
    )
    print(f"peak of the process {resident('VmHWM'):.1f} GB")
    return 0 if all(good for _, good in found) else 1


if __name__ == "__main__":
    sys.exit(main())
