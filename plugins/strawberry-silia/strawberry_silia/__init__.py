"""Silia, the original project's later mixer, as a plugin."""
