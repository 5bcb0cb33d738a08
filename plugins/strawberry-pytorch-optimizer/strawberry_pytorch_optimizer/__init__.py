"""Optimizers of pytorch-optimizer as a plugin."""
