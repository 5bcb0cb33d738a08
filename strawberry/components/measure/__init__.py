"""Metrics of evaluations: a file each."""
