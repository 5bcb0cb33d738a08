"""The built-in data sources."""
