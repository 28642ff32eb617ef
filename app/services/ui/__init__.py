"""The llama.cpp Web UI: what is served of it, and how it is had."""


class NoUi(Exception):
    """A Web UI that cannot be had; the message is fit for users."""
