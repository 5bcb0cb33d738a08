"""Synthetic tasks: probes of what a mixer can remember, recall, copy and compute."""
