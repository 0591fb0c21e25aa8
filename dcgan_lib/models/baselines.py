"""The purely supervised rival of section 5.2: the discriminator's own body under a head of one logit per class.

Axes: b batch, k classes; ``x_bchw`` images in the configuration's value range, ``logits_bk``.
"""

from torch import nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import Discriminator, initialise


class SupervisedCnn(Discriminator):
    """Name the class of images: `Discriminator` with another last layer, so that nothing else can differ.

    Called on ``x_bchw`` it returns ``logits_bk``, float32, one row per image.

    Parameters
    ----------
    config : ModelConfig
        The discriminator's; convolutional, without labels as an input.
    num_classes : int
        Logits per image, at least 2.
    dropout : float, default 0
        Share of the flattened last map that is switched off while training, in [0, 1).

    Raises
    ------
    UserError
        If the configuration is another network's, or a number is outside its range.

    Notes
    -----
    Paper, section 5.2: "the same architecture". The dropout is our choice: the paper names none.
    """

    def __init__(self, config: ModelConfig, num_classes: int, dropout: float = 0.0) -> None:
        if config.architecture != "convolutional" or config.num_classes:
            given = f"architecture {config.architecture!r} and num_classes {config.num_classes}"
            raise UserError(f"the supervised network needs an unconditional convolutional configuration; got {given}")
        if num_classes < 2 or not 0 <= dropout < 1:
            given = f"{num_classes} and {dropout}"
            raise UserError(f"the supervised network needs at least 2 classes and dropout in [0, 1); got {given}")
        super().__init__(config)
        logits = nn.Linear(self.head.in_features, num_classes, bias=False)
        initialise(logits)
        self.head = nn.Sequential(nn.Dropout(dropout), logits)
