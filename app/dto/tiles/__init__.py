"""Tiles' own routes: the session, and memory mode."""
