"""Image sets drawn from a seed, with the truth about every picture."""
