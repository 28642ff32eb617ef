"""How likely the tokens of a prompt are, which a request may want to know beside those of its answer."""

import mlx.core as mx

from app.services.engine.output.detokenizer import Detokenizer
from app.services.engine.sampling.logprobs import BatchLogprobs, token_logprob
from app.services.generation import PromptLogprobs, TokenLogprob

LOGIT_BYTES = 2**28  # of the logits of one call


class PromptScorer:
    """Collects the log-probabilities of a prompt's tokens while it is computed. The first one has none."""

    def __init__(self, prompt: list[int], width: int, detokenizer: Detokenizer, vocabulary: int) -> None:
        self.most_tokens = max(1, LOGIT_BYTES // (4 * vocabulary))  # whose logits are computed in one call
        self._prompt = prompt
        self._width = width  # alternatives to each token
        self._detokenizer = detokenizer  # of the answer; it is asked for bytes only
        self._logprobs: list[TokenLogprob] = []  # of the tokens from the second on

    def add(self, logits: mx.array, position: int) -> None:
        """Take in the logits (length, vocabulary) of the tokens from a position on; those may come again."""
        del self._logprobs[position:]
        following = self._prompt[position + 1 : position + 1 + logits.shape[0]]
        if not following:
            return
        rows = range(len(following))
        logprobs = BatchLogprobs(logits[: len(following)], mx.array(following), rows, self._width)
        self._logprobs += [
            token_logprob(token, logprobs.of_row(row), self._width, self._detokenizer)
            for row, token in enumerate(following)
        ]

    def event(self) -> PromptLogprobs:
        """Give what there is to say once the prompt is computed."""
        return PromptLogprobs(self._detokenizer.token_bytes(self._prompt[0]), tuple(self._logprobs))
