"""Silia, the seed project's later mixer, as a plugin."""
