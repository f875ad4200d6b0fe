"""Minimal, tested reimplementations of model inversion attacks and defenses, one file a paper."""
