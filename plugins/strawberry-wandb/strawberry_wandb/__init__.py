"""Weights & Biases as a plugin."""
