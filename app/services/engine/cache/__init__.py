"""KV caches: the prefix cache in memory and on disk, slot files, and the memory that a row takes."""
