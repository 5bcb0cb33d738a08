"""Position-wise networks, one file each."""
