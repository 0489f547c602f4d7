"""Data sets: download, archive check, discovery, cache, loader."""
