"""Speculative decoding: draft tokens come from the prompt or from a small model, and the model verifies them."""
