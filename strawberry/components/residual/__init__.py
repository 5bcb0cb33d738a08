"""The residual stream: a file each."""
