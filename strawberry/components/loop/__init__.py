"""Ways to run a recursion: a file each."""
