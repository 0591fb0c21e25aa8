"""Measuring: features, distances, probes and the claims ledger."""
