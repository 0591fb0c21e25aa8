"""Training: a pure step, a loop around it, and runs that can be resumed."""
