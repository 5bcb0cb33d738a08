"""Token mixers: a file each."""
