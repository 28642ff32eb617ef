"""Streamed answers under way, by the ids that their readers know."""

from weakref import WeakValueDictionary

from app.services.generation import Generation


class Ongoing:
    """A singleton of the application. It holds nothing: an answer that nobody makes any more is not in it."""

    def __init__(self) -> None:
        self._answers: WeakValueDictionary[str, Generation] = WeakValueDictionary()

    def add(self, identity: str, generation: Generation) -> None:
        """Note an answer whose stream carries this id."""
        self._answers[identity] = generation

    def end_reasoning(self, identity: str) -> bool:
        """Have an answer's model stop thinking and answer. False if there is no such answer, or none any more."""
        generation = self._answers.get(identity)
        return generation is not None and generation.end_reasoning()
