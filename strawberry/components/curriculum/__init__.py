"""What changes over the steps of a run: a file each."""
