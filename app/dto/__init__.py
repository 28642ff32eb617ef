"""The typed DTO layer: per dialect the wire shapes and three pure translations, to_generation, of and feed."""
