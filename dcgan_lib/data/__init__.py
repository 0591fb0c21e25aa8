"""Image sets: drawn, downloaded or read from a folder, then kept as memory-mapped arrays."""
