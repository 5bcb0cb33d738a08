"""Files of the original project: its JSON configuration, checkpoints, encoders and data sets."""
