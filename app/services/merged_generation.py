"""Several answers that are generated side by side and read as one."""

from collections.abc import Sequence
from dataclasses import replace

from app.services.engine.scheduler.running_generation import Bell, RunningGeneration
from app.services.generation import Event


class MergedGeneration:
    """Generations as one Generation: each event says of which answer it is."""

    def __init__(self, generations: Sequence[RunningGeneration]) -> None:
        self.choices = len(generations)
        self._generations = generations
        self._bell = Bell()
        for generation in generations:
            generation.share_bell(self._bell)

    async def ready(self) -> Sequence[Event]:
        """Wait for events of any answer and give all that have come; none after `wake`. Raises what ended an answer."""
        if not any(generation.pending for generation in self._generations):
            await self._bell.wait()
        return [
            replace(event, choice=choice)
            for choice, generation in enumerate(self._generations)
            for event in generation.take()
        ]

    def wake(self) -> None:
        """Let a reader that waits go on without an event."""
        self._bell.ring()

    def cancel(self) -> None:
        """Stop all of them within one engine step. Calling it again, or after the end, does nothing."""
        for generation in self._generations:
            generation.cancel()

    def note_readers(self, count: int) -> None:
        """Say how many read them; it is the same for all."""
        for generation in self._generations:
            generation.note_readers(count)

    def end_reasoning(self) -> bool:
        """Have all of them close their reasoning. False once every one is over."""
        return sum(generation.end_reasoning() for generation in self._generations) > 0
