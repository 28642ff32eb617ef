"""Models that read a text as a whole: their layers, and how texts become vectors or scores."""
