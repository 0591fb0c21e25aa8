"""How the error of features falls as more labels are given.

Axes: n images, f features.
"""

import time
from collections.abc import Sequence

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.evaluation.conv_features import Features, compute_features
from dcgan_lib.evaluation.held_out import LabelledSplits
from dcgan_lib.evaluation.protocols import PROTOCOLS, DrawnSVM, Outcome, choose_on, draw_labels


def label_curve(
    splits: LabelledSplits, test: ImageSet, features: Features, per_class: Sequence[int], *, draws: int = 10,
    choosing_draws: int = 3, grid: range = PROTOCOLS["1000"].grid, seed: int = 0,
) -> dict[int, Outcome]:  # fmt: skip
    """Judge features by the protocol of Table 2, with several numbers of labels.

    Parameters
    ----------
    splits : LabelledSplits
        Labels are drawn from the training images; C is chosen on the validation images, anew for each number.
    test : ImageSet
        What is classified in the end; not the images of a result in the ledger, which are given out once.
    features : callable
        From uint8 images, n x c x h x w, to float32 features, n x f; computed once for each image.
    per_class : sequence of int
        Labels a class.
    draws, choosing_draws : int
        Draws of labels to report over, 10 by default, and to choose C on, 3 by default: fewer than the authors'.
    grid : range, optional
        First values of C, as positions on the ladder of `dcgan_lib.evaluation.protocols.c_at`; by default the
        authors'.
    seed : int, default 0
        Of the draws; every kind of features gets the same ones.

    Returns
    -------
    dict of int to Outcome
        Labels a class to the outcome on ``test``.

    Raises
    ------
    UserError
        If a class has too few labels.
    """
    labels, held = splits.train.labels, splits.validation.labels
    drawn = {
        each: [draw_labels(labels, each, *stage) for stage in ((choosing_draws, [seed, 0]), (draws, [seed, 1]))]
        for each in per_class
    }
    begun, found = time.monotonic(), {}
    train_nf, held_nf, test_nf = (
        compute_features(features, part.images_u8) for part in (splits.train, splits.validation, test)
    )
    for each, (choosing, reporting) in drawn.items():
        trials = [DrawnSVM(train_nf, labels, rows) for rows in choosing]
        best, curve = choose_on(trials, held_nf, held, grid)
        models = [DrawnSVM(train_nf, labels, rows).fit(best) for rows in reporting]
        found[each] = Outcome(
            split="test", accuracies=tuple(100 * model.score(test_nf, test.labels) for model in models), c=best,
            curve=curve, n=len(test), num_labels=len(reporting[0]), num_features=train_nf.shape[1],
            seconds=time.monotonic() - begun,
        )  # fmt: skip
    return found
