"""Features judged on images at hand, for chapters that run live: one draw of labels, three parts in one table.

Axes: n images, f features.
"""

import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.protocols import DrawnSVM, choose_on
from dcgan_lib.evaluation.statistics import Estimate, wilson_interval

GRID_OF_C = range(-15, -5, 3)


def judge_features(
    x_nf: np.ndarray, labels: np.ndarray, num_learn: int, num_choose: int
) -> tuple[Estimate, list[tuple[float, float]]]:
    """Fit an L2-SVM on the first rows, choose its C on those that follow, and judge it on the rest.

    Parameters
    ----------
    x_nf, labels : ndarray
        float32 features, n x f, and n labels.
    num_learn, num_choose : int
        Rows to learn from and to choose on.

    Returns
    -------
    accuracy : Estimate
        On the rest, in per cent, with Wilson's interval over images.
    curve : list of (float, float)
        Each C that was tried, and the error on the rows to choose on, in per cent.

    Raises
    ------
    UserError
        If no row is left to judge on.
    """
    end = num_learn + num_choose
    if min(num_learn, num_choose) < 1 or len(labels) != len(x_nf) or len(labels) <= end:
        raise UserError(
            f"of {len(x_nf)} rows none is left after {num_learn} to learn from and {num_choose} to choose on"
        )
    svm = DrawnSVM(x_nf[:num_learn], labels[:num_learn], np.arange(num_learn))
    best, curve = choose_on([svm], x_nf[num_learn:end], labels[num_learn:end], GRID_OF_C)
    right = (svm.fit(best).predict(x_nf[end:]) == labels[end:]).sum()
    return wilson_interval(right, len(labels) - end).scaled(100), [(c, 100 - value) for c, value in curve.items()]
