"""One model over several machines: this process decides, and workers repeat what it does to KV caches."""
