"""Texts that stand within images, between their tiles or rows."""

from collections.abc import Callable, Sequence

import mlx.core as mx

from app.services.engine.vision.family import Layout

Encode = Callable[[str], Sequence[int]]  # tokenizes a text, without what a prompt begins with
Embed = Callable[[mx.array], mx.array]  # gives tokens (tokens,) as a text model embeds them (tokens, hidden size)


class Texts:
    """What texts are in the prompts of one model. `tokens` is for any thread, `between` for the engine's."""

    def __init__(self, encode: Encode, embed: Embed) -> None:
        self._encode = encode
        self._embed: Embed | None = embed
        self._tokens: dict[str, Sequence[int]] = {}

    def tokens(self, text: str) -> Sequence[int]:
        """Give the tokens of a text."""
        if text not in self._tokens:
            self._tokens[text] = self._encode(text)
        return self._tokens[text]

    def length(self, layout: Layout) -> int:
        """Count the tokens of an image with its texts."""
        return sum(part if isinstance(part, int) else len(self.tokens(part)) for part in layout)

    def between(self, layout: Layout, embeddings: mx.array) -> mx.array:
        """Put the embeddings of texts between those (tokens, hidden size) of the parts of an image."""
        assert self._embed is not None
        parts, start = [], 0
        for part in layout:
            if isinstance(part, int):
                parts.append(embeddings[start : start + part])
                start += part
            else:
                parts.append(self._embed(mx.array(list(self.tokens(part)))).astype(embeddings.dtype))
        return mx.concatenate(parts)

    def free(self) -> None:
        """Let go of the text model."""
        self._embed = None
