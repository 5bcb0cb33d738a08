"""Which parts a block has, in which order: a file each."""
