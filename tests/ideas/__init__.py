"""Ideas of papers, a file each, by the public API alone: see plugins/README.md."""
