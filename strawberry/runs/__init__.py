"""Run folders, checkpoints, random generators, devices."""
