"""Executors: a file each."""
