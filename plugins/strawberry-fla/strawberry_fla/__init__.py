"""Flash-linear-attention's layers as a plugin."""
