"""Averages of weights: a file each."""
