"""Which tokens of a recursion go on: a file each."""
