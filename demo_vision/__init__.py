"""Teaches `tiles-nano`, the demo model, to see: its scenes and questions, its training and its evaluation."""
