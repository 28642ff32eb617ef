"""This server in the place of Tiles' own, and back: where Tiles keeps its server, and how the two change places."""


class CannotSwap(Exception):
    """Nothing was changed; the message is for people, and says what to do."""
