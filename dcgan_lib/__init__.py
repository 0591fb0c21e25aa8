"""A runnable edition of the DCGAN paper: models, data, training, evaluation."""

__version__ = "0.1.0"
