"""What a run leaves behind and where it runs: folder, checkpoints, generators, devices."""
