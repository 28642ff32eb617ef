"""What is counted of images, for the meter."""

from dataclasses import dataclass


@dataclass(slots=True)
class ImageCounts:
    """Totals since the server started, of all models."""

    computed: int = 0  # by towers
    seconds: float = 0.0  # in towers
    cached: int = 0  # whose embeddings were known, where they were to be computed into a KV cache
    refused: int = 0  # requests with one that could not be taken; written by the event loop, the others by the engine
