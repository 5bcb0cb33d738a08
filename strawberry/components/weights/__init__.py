"""Weight sources: a file each."""
