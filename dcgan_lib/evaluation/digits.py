"""How good and how varied generated digits are, as a digit classifier sees them.

Axes: n images, h x w pixels; ``images_u8`` n x 1 x h x w, 0..255, black outside the digit.
"""

from dataclasses import dataclass

import numpy as np
import torch

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probe_model import Probe, frame
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval, wilson_interval


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitReport:
    """Hold what a classifier says of generated digits.

    Parameters
    ----------
    recognised : Estimate
        Share of images that the classifier names with confidence over 0.9.
    evenness : Estimate
        Entropy of the classes named, over the log of their number: 1 when all are equally frequent.
    counts : tuple of int
        Images named as each class.
    agreement : Estimate or None
        For a conditional generator: share of images named as the class that was asked for.
    named : ndarray
        int64, shape (n,): the class each image is named.
    n : int
        Images.
    """

    recognised: Estimate
    evenness: Estimate
    counts: tuple[int, ...]
    agreement: Estimate | None
    named: np.ndarray
    n: int


def digit_report(images_u8: np.ndarray, probe: Probe, *, labels: np.ndarray | None = None) -> DigitReport:
    """Score generated digits with a digit classifier.

    Parameters
    ----------
    images_u8 : ndarray
        uint8, n x c x h x w; up to 4 pixels a side smaller than the probe's images, and then framed
        in black, as 28x28 digits are for the 32x32 classifier.
    probe : Probe
        With a class head called "label", such as ``load_probe("probe-mnist")``.
    labels : ndarray, optional
        The classes asked of a conditional generator, int64, shape (n,).

    Raises
    ------
    UserError
        If there are fewer than 2 images, their size does not fit, or ``labels`` has another length.
    """
    if len(images_u8) < 2 or (labels is not None and len(labels) != len(images_u8)):
        num_labels = "no" if labels is None else len(labels)
        raise UserError(f"a report needs 2 images and as many labels, but got {len(images_u8)} and {num_labels} labels")
    num_classes = probe.head("label").num_outputs
    probabilities = probe.predict(frame(torch.from_numpy(np.array(images_u8)), probe.config.image_size).numpy())[
        "label"
    ]
    named, n = probabilities.argmax(1), len(images_u8)
    agreement = None if labels is None else wilson_interval(int((named == labels).sum()), n)
    return DigitReport(
        recognised=wilson_interval(int((probabilities.max(1) > 0.9).sum()), n),
        evenness=bootstrap_interval(lambda k: _evenness(k, num_classes), named),
        counts=tuple(np.bincount(named, minlength=num_classes).tolist()),
        agreement=agreement,
        named=named,
        n=n,
    )


def _evenness(named_n: np.ndarray, num_classes: int) -> float:
    shares = np.bincount(named_n, minlength=num_classes) / len(named_n)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(num_classes)) + 0.0  # never -0
