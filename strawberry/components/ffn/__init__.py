"""Position-wise networks: a file each."""
