"""Tokens of a prompt and of the texts that may follow it: how they join is for the tokenizer to decide."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.services.engine.cache.prefixes import TokenArray, common_prefix_length
from app.services.engine.vision.prompt_images import NO_IMAGES, PromptImages
from app.services.generation import Continuations

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class TokenizedContinuations:
    """The texts that may follow one prompt, in tokens.

    All begin at the same character: the tokenizer may join the end of a prompt to the beginning of a text, and where
    it does so with one of them, that end counts for all.
    """

    prompt_tokens: int
    shared: TokenArray  # tokens before all texts (length,)
    texts: tuple[tuple[int, ...], ...]  # the tokens of each text after those
    images: PromptImages = NO_IMAGES  # of the prompt

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest text."""
        return len(self.shared) + max(map(len, self.texts))

    def behind(self, tokens: Sequence[int], images: PromptImages) -> "TokenizedContinuations":
        """Give the same prompt with tokens before it, which images are among."""
        shared = np.concatenate([np.asarray(tokens, dtype=np.int32), self.shared])
        return replace(self, prompt_tokens=len(tokens) + self.prompt_tokens, shared=shared, images=images)

    def with_end(self, token: int) -> "TokenizedContinuations":
        """Give the texts with a token behind each."""
        return replace(self, texts=tuple((*text, token) for text in self.texts))


def without_template(continuations: Continuations) -> Continuations:
    """Give a conversation as plain text that a model without a chat template goes on with."""
    texts = [message.content for message in continuations.prompt.messages]
    prompt = replace(continuations.prompt, messages=(), prompt=("\n\n".join(texts) + "\n\nAnswer:",))
    return replace(continuations, prompt=prompt, texts=tuple(f" {text}" for text in continuations.texts))


def tokenize_continuations(
    prompt: str,
    tokens: Sequence[int],
    texts: Sequence[str],
    *,
    controls: frozenset[int],
    tokenize: Tokenize,  # of a text that begins a prompt
    tokenize_piece: Tokenize,  # of one that does not
    detokenize: Callable[[Sequence[int]], str],
) -> TokenizedContinuations:
    """Tokenize the texts behind a prompt, whose tokens are known.

    A tokenizer never joins what stands before a control token with what comes after it, so what begins with the last
    one is tokenized alone, if that gives the tokens that the prompt ends with. Token ids that are not what their text
    would be tokenized to stay as they are.
    """
    ways = [(0, prompt, tokenize)]
    if last := next((index for index in range(len(tokens) - 1, 0, -1) if tokens[index] in controls), 0):
        ways.insert(0, (last, detokenize(tokens[last:]), tokenize_piece))
    for start, tail, encode in ways:
        if encode(tail) == list(tokens[start:]):
            joined = [encode(tail + text) for text in texts]
            break
    else:
        start = len(tokens)
        joined = [tokenize_piece(text) for text in texts]
    ending = np.asarray(tokens[start:], dtype=np.int32)
    common = min(common_prefix_length(ending, np.asarray(each, dtype=np.int32)) for each in joined)
    return TokenizedContinuations(
        len(tokens),
        np.asarray([*tokens[:start], *ending[:common]], dtype=np.int32),
        tuple(tuple(each[common:]) for each in joined),
    )
