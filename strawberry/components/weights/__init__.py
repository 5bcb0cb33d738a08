"""Weight sources, one file each."""
