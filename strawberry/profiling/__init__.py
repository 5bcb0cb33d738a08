"""Where a training step's time and memory go, by component."""
