"""Tokens to text, and text to events: reasoning, tool calls, stop strings."""
