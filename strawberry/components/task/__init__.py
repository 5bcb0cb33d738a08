"""The built-in tasks: synthetic probes of what a mixer can remember, recall, copy and compute."""
