"""Trials of Strawberry's ablations on the nodes of a Ray cluster."""
