"""Draft tokens from a small model with the same vocabulary."""

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
import numpy as np

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import Layers
from app.services.engine.cache.prefixes import common_prefix_length
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import out_of_memory
from app.services.engine.model.prefill import forward
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.sampling.sampler import Sampler
from app.services.engine.speculative.proposer import DraftLength

_SLICE_SECONDS = 0.1  # of the draft model's prefill between two tokens of the answer
_FEW = 16  # tokens that are computed together with the draft
_LONGEST_PAUSE = 64  # steps; a draft costs several calls of the small model


class DraftModel:
    """A small model with one KV cache, for whichever row asks. Lives on the engine thread."""

    def __init__(self, model: LanguageModel, *, vocabulary: int, context_length: int, max_draft_tokens: int) -> None:
        self.footprint = measure(model.network)
        self.vocabulary = vocabulary  # of the large model
        self.context_length = context_length  # tokens
        self.max_draft_tokens = max_draft_tokens  # at once
        self._model = model
        self._width = logits_width(model.network)
        self._chunk_sizer = ChunkSizer()
        self._layers: Layers | None = None
        self._tokens: list[int] = []  # in the layers

    def draw(self, tokens: Sequence[int], count: int, sampler: Sampler) -> list[int]:
        """Draw tokens to follow; none while the tokens before take more prefill than a step has time for."""
        try:
            return self._draw(tokens, count, sampler)
        except Exception:
            self.forget()  # the layers may hold more than was noted
            raise

    def forget(self) -> None:
        """Let go of the cache."""
        self._layers, self._tokens = None, []

    def free(self) -> None:
        """Let go of the model too."""
        self.forget()
        del self._model

    def _draw(self, tokens: Sequence[int], count: int, sampler: Sampler) -> list[int]:
        layers = self._trim(tokens)
        rest = list(tokens[len(self._tokens) :])
        if len(rest) <= _FEW:
            return self._decode(layers, rest, count, sampler)
        chunk = rest[: min(len(rest) - 1, self._chunk_sizer.tokens(_SLICE_SECONDS))]
        with self._chunk_sizer.measure(len(chunk)):
            forward(self._model, layers, self._clamp(chunk))
        self._tokens += chunk
        return []

    def _trim(self, tokens: Sequence[int]) -> Layers:
        """Trim the cache to what it shares with the tokens, all but their last, which is yet to be fed. Returns it."""
        length = common_prefix_length(np.array(self._tokens, dtype=np.int32), np.array(tokens[:-1], dtype=np.int32))
        if self._layers is None or not length:
            self._layers, self._tokens = self._model.new_layers(), []
        else:
            self._layers.trim(len(self._tokens) - length)
            del self._tokens[length:]
        return self._layers

    def _decode(self, layers: Layers, tokens: list[int], count: int, sampler: Sampler) -> list[int]:
        """Feed tokens, then each draft token but the last; all of it is computed in one go."""
        fed, drawn = mx.array([self._clamp(tokens)]), mx.array([self.vocabulary])
        draws = []
        for _ in range(count):
            logits = self._model.step(layers, fed)[:, -1]
            drawn = sampler(self._fit_width(logits), drawn)
            draws.append(drawn)
            fed = drawn[:, None]
        draft = cast("list[int]", mx.concatenate(draws).tolist())
        self._tokens += [*tokens, *draft[:-1]]
        return draft

    def _fit_width(self, logits: mx.array) -> mx.array:
        """Cut or pad logits (1, width of the draft model) to the large model's width; padding is never drawn."""
        missing = max(0, self.vocabulary - self._width)
        return mx.pad(logits[:, : self.vocabulary], [(0, 0), (0, missing)], constant_values=-mx.inf)

    def _clamp(self, tokens: Sequence[int]) -> list[int]:
        """Replace tokens that the draft model lacks by its last one; at worst its draft is rejected."""
        return [min(token, self._width - 1) for token in tokens]


class DraftModelProposer:
    """Proposes what a draft model draws, with the row's own sampling; nothing after an end token.

    A draw's noise depends on its position and the token alone. So where the two models agree they draw the same, at
    any temperature.
    """

    def __init__(
        self, model: DraftModel, params: SamplingParams, prompt_tokens: int, end_tokens: frozenset[int]
    ) -> None:
        self._model = model
        self._params = params
        self._prompt_tokens = prompt_tokens
        self._end_tokens = end_tokens
        self._draft_length = DraftLength(model.max_draft_tokens, _LONGEST_PAUSE)

    @property
    def needs_last_token(self) -> bool:
        """Whether to read the last token before `propose`, unless it pauses: to draw that token again is a waste."""
        return not self._draft_length.pause

    def is_ready(self, answer: Sequence[int]) -> bool:
        """Whether to ask for draft tokens behind an answer."""
        return True

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Give up to `limit` draft tokens that may follow the tokens of a prompt and its answer."""
        count = min(self._draft_length.tokens, limit, self._model.context_length - len(tokens))
        if self._draft_length.skip_step() or count < 1 or tokens[-1] in self._end_tokens:
            return []
        try:
            draft = self._model.draw(tokens, count, self._sampler(tokens))
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.update(count, 0)  # the answer goes on without
            return []
        ends = (index for index, token in enumerate(draft) if token in self._end_tokens)
        return draft[: next(ends, len(draft)) + 1]

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        """Note how many of the draft tokens were accepted."""
        self._draft_length.update(draft_tokens, accepted_tokens)

    def _sampler(self, tokens: Sequence[int]) -> Sampler:
        prompt, answer = tokens[: self._prompt_tokens], tokens[self._prompt_tokens :]
        return Sampler([self._params], [answer], [len(answer)], self._model.vocabulary, [prompt])


def logits_width(network: Any) -> int:
    """Width of a model's logits, the size of its padded vocabulary; nothing is computed for it."""
    return int(network(mx.array([[0]])).shape[-1])
