"""Speculative decoding: draft tokens from the prompt or from a small model."""
