"""Positional components, one file each."""
