"""Fast weights: a memory of the sequence before the first projection of each block."""
