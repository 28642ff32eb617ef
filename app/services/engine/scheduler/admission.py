"""Which rows may begin: those for which there is memory, as far as that is known before."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx

from app.services.engine.cache.footprint import Footprint
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.engine.scheduler.row import Row
from app.services.engine.speculative.draft_model import DraftModel
from app.services.engine.vision.prompt_images import NO_IMAGES, PromptImages
from app.services.errors import MemoryExceeded, MemoryInUse

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision

_GROWTH = 1024  # tokens of an answer for which memory is reserved at first
_MORE = 512  # and each time that those are used up


class Admission:
    """Reserves memory for rows, and evicts stored prompts before it refuses."""

    def __init__(
        self,
        footprint: Footprint,  # of the model
        memory_budget: MemoryBudget | None,
        prefixes: PrefixCache,
        draft: DraftModel | None,
        vision: "Vision | None" = None,
    ) -> None:
        self.footprint = footprint + draft.footprint if draft else footprint
        self._draft = draft
        self._vision = vision
        self._memory_budget = memory_budget
        self._prefixes = prefixes
        self._most_bytes = sys.maxsize  # bytes that there are for rows while nothing runs

    def free(self) -> int:
        """Bytes that can be taken now."""
        return self._memory_budget.free() if self._memory_budget else sys.maxsize

    def free_stored(self) -> None:
        """Free all that is only stored for later."""
        self._prefixes.evict(sys.maxsize)
        if self._draft is not None:
            self._draft.forget()
        if self._vision is not None:
            self._vision.forget()
        mx.clear_cache()

    def settle(self) -> None:
        """Measure how much memory there is while nothing runs."""
        self._most_bytes = self.free()

    def check(self, tokens: int, answers: int, images: PromptImages = NO_IMAGES) -> None:
        """Raise MemoryExceeded for a prompt of so many tokens that has no room even alone. On any thread."""
        needed = self._bytes_needed(tokens + 1, answers, others=0) + self._image_bytes(images)
        if needed > self._most_bytes and needed > self.free():
            raise MemoryExceeded(
                f"This prompt has {tokens} tokens and needs {_size(needed)} of memory for {_what(images)}; beside the "
                f"model there are {_size(self._most_bytes)}. Shorten it, or see --max-memory."
            )

    def admit(self, row: Row, running: Sequence[Row]) -> bool:
        """Reserve memory for a row beside the others, if there is enough; stored prompts are evicted for it."""
        growth = min(row.max_tokens - len(row.answer), _GROWTH)
        tokens = max(len(row.prefill.tokens) + growth, _least_tokens(row) if row.scoring else 0)
        others = sum(self.footprint.bytes(other.length) for other in running)
        needed = self._bytes_needed(tokens, 1 + len(row.siblings), others)
        needed += self._copied_bytes(row) + self._image_bytes(row.images) + self._reserved_bytes(running)
        if not self._free_memory(needed, row.prefill.tokens):
            tokens = _least_tokens(row)  # alone it may begin; its answer then ends where memory does
            if running or not self._free_memory(self._least_bytes(row), row.prefill.tokens):
                return False
            if row.scoring is not None:
                row.scoring.most_rows = 1
        row.reserve(tokens)
        return True

    def grow(self, row: Row, running: Iterable[Row]) -> bool:
        """Reserve memory for more tokens of an answer, if there is enough."""
        reserved = row.prefill.reserved_tokens
        growth = self.footprint.bytes(reserved + _MORE) - self.footprint.bytes(reserved)
        if not self._free_memory(growth + self._reserved_bytes(running), row.prefill.tokens):
            return False
        row.reserve(reserved + _MORE)
        return True

    def refusal(self, row: Row) -> MemoryInUse:
        """Give the error of a row that cannot begin although nothing else runs."""
        needed = self._least_bytes(row)
        return MemoryInUse(
            f"This prompt has {len(row.prefill.tokens)} tokens and needs {_size(needed)} of memory for "
            f"{_what(row.images)}; "
            f"{_size(max(0, self.free()))} are free. Something else on this machine uses the rest.",
            retry_after=10,
        )

    def _least_bytes(self, row: Row) -> int:
        """Bytes without which a row cannot begin even alone."""
        return self._bytes_needed(_least_tokens(row), 1 + len(row.siblings), others=0) + self._image_bytes(row.images)

    def _bytes_needed(self, tokens: int, answers: int, others: int) -> int:
        """Bytes for a row and its siblings; who joins others is copied, and so are they."""
        own = self.footprint.bytes(tokens) * answers
        return own + (own + others if others or answers > 1 else 0)

    def _reserved_bytes(self, running: Iterable[Row]) -> int:
        size = self.footprint.bytes
        return sum(
            max(0, size(row.prefill.reserved_tokens) - size(row.length))
            + self._copied_bytes(row)
            + (self._image_bytes(row.images) if row.prefill.tokens_left else 0)
            for row in running
        )

    def _image_bytes(self, images: PromptImages) -> int:
        """Bytes for what is still to be computed of the images of a prompt."""
        return self._vision.bytes_needed(images) if images and self._vision is not None else 0

    def _copied_bytes(self, row: Row) -> int:
        """Bytes of the copies for the texts that are scored together, which are there while they are computed."""
        if row.scoring is None:
            return 0
        return self.footprint.forked_bytes(len(row.prefill.tokens) + row.scoring.longest, row.scoring.most_rows)

    def _free_memory(self, needed: int, tokens: Sequence[int]) -> bool:
        """Evict stored prompts, but not the prefix of these tokens, until so many bytes are free. False if it fails."""
        missing = needed - self.free()
        if 0 < missing <= self._prefixes.nbytes:
            self._prefixes.evict(missing, keep=tokens)
            missing = needed - self.free()
        return missing <= 0


def _least_tokens(row: Row) -> int:
    """Give the tokens of a row that have to be in memory: its prompt, and a token or the longest text behind it."""
    return len(row.prefill.tokens) + (row.scoring.longest if row.scoring is not None else 1)


def _what(images: PromptImages) -> str:
    return "its cache and its images" if images else "its cache"


def _size(number: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
