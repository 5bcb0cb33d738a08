"""The processes (ranks) of a run: identity, collectives, and launch."""
