"""Normalisations: a file each."""
