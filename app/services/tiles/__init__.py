"""Tiles itself on this machine: where it is installed, its daemon, and its configuration."""
