"""Guesses of what an answer says next: what a small model with the same vocabulary would say."""

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import Layers
from app.services.engine.cache.prefixes import shared
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.memory_budget import out_of_memory
from app.services.engine.model.prefill import forward
from app.services.engine.sampling.sampler import Sampler, SamplingParams
from app.services.engine.speculative.proposer import DraftLength

_SLICE = 0.1  # seconds of a prompt between two tokens of its answer
_FEW = 16  # tokens that are computed together with the guess
_LONGEST_PAUSE = 64  # steps; a guess costs several calls of the small model


class DraftModel:
    """A small model with one cache, which follows whichever row asks. On the engine thread."""

    def __init__(self, model: Any, *, vocabulary: int, context_length: int, most: int) -> None:
        self.footprint = measure(model)
        self.vocabulary = vocabulary  # of the large model
        self.context_length = context_length  # tokens
        self.most = most  # tokens guessed at once
        self._model = model
        self._width = logits_width(model)
        self._pace = ChunkSizer()
        self._layers: Layers = []
        self._held: list[int] = []  # tokens in the layers

    def guess(self, tokens: Sequence[int], count: int, sampler: Sampler) -> list[int]:
        """Draw tokens to follow; none while there are more to compute before than a step has time for."""
        try:
            return self._guess(tokens, count, sampler)
        except Exception:
            self.forget()  # the layers may hold more than was noted
            raise

    def forget(self) -> None:
        """Let go of the cache."""
        self._layers, self._held = [], []

    def free(self) -> None:
        """Let go of the model too."""
        self.forget()
        self._model = None

    def _guess(self, tokens: Sequence[int], count: int, sampler: Sampler) -> list[int]:
        self._cut(tokens)
        rest = list(tokens[len(self._held) :])
        if len(rest) <= _FEW:
            return self._decode(rest, count, sampler)
        part = rest[: min(len(rest) - 1, self._pace.tokens(_SLICE))]
        with self._pace.measured(len(part)):
            forward(self._model, self._layers, self._readable(part))
        self._held += part
        return []

    def _cut(self, tokens: Sequence[int]) -> None:
        """Cut the cache to what it shares with the tokens, all but their last, which is yet to be fed."""
        known = shared(np.array(self._held), np.array(tokens[:-1]))
        if not known:
            self._layers, self._held = make_prompt_cache(self._model), []
            return
        for layer in self._layers:
            layer.trim(len(self._held) - known)
        del self._held[known:]

    def _decode(self, tokens: list[int], count: int, sampler: Sampler) -> list[int]:
        """Feed tokens, then each guess but the last; all of it is computed in one go."""
        fed, drawn = mx.array([self._readable(tokens)]), mx.array([self.vocabulary])
        drafted = []
        for _ in range(count):
            logits = self._model(fed, cache=self._layers)[:, -1]
            drawn = sampler(self._widened(logits), drawn)
            drafted.append(drawn)
            fed = drawn[:, None]
        guess = cast("list[int]", mx.concatenate(drafted).tolist())
        self._held += [*tokens, *guess[:-1]]
        return guess

    def _widened(self, logits: mx.array) -> mx.array:
        """Cut or fill up logits (1, its width) to the large model's; what is filled up is never drawn."""
        missing = max(0, self.vocabulary - self._width)
        return mx.pad(logits[:, : self.vocabulary], [(0, 0), (0, missing)], constant_values=-mx.inf)

    def _readable(self, tokens: Sequence[int]) -> list[int]:
        """Put its last token for those that it does not have; a wrong guess is the worst that comes of it."""
        return [min(token, self._width - 1) for token in tokens]


class DraftModelProposer:
    """The guesses of a draft model for one row, drawn as the row draws; nothing follows an end token.

    A draw's noise depends on its place and the token alone. So where the two models think alike they say the same, at
    any temperature.
    """

    def __init__(self, model: DraftModel, choice: SamplingParams, prompt: int, end_tokens: frozenset[int]) -> None:
        self._model = model
        self._choice = choice
        self._prompt = prompt  # tokens
        self._end_tokens = end_tokens
        self._boldness = DraftLength(model.most, _LONGEST_PAUSE)

    @property
    def wants_all(self) -> bool:
        """Whether to wait for what is not read yet: to guess it again would be a waste."""
        return not self._boldness.pause

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """Give tokens that may follow all those of a prompt and its answer; no more than there is room for."""
        count = min(self._boldness.size, room, self._model.context_length - len(tokens))
        if self._boldness.pauses() or count < 1 or tokens[-1] in self._end_tokens:
            return []
        try:
            guess = self._model.guess(tokens, count, self._sampler(tokens))
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.learn(count, 0)  # the answer goes on without
            return []
        ends = (place for place, token in enumerate(guess) if token in self._end_tokens)
        return guess[: next(ends, len(guess)) + 1]

    def learn(self, guessed: int, right: int) -> None:
        """Note how many of the guessed tokens were right."""
        self._boldness.learn(guessed, right)

    def _sampler(self, tokens: Sequence[int]) -> Sampler:
        prompt, answer = tokens[: self._prompt], tokens[self._prompt :]
        return Sampler([self._choice], [answer], [len(answer)], self._model.vocabulary, [prompt])


def logits_width(model: Any) -> int:
    """How wide a model's logits are; nothing is computed for it."""
    return int(model(mx.array([[0]])).shape[-1])
