"""Parametrizations, one file each."""
