"""Caches of keys and values: in memory, on disk, in files, and what they take."""
