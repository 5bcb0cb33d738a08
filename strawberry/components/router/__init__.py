"""Routers of a recursion's tokens, one file each."""
