"""Where order comes from: a file each."""
