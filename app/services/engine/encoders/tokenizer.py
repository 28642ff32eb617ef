"""Texts to the tokens of an encoder: alone, or in pairs of a query and a document."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from app.services.engine.model.spare_tokens import without
from app.services.errors import InvalidRequest, LoadFailed, PromptTooLong

_CHARACTERS_PER_TOKEN = 64  # a text of more for each token that fits is not tokenized as a whole to see that it is long


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What an encoder reads at a time."""

    tokens: list[int]
    second: int  # index where the second text begins, in models that tell two texts apart
    prompt: int = 0  # tokens at the start that belong to a prompt

    def __len__(self) -> int:
        """Give the number of tokens."""
        return len(self.tokens)


class EncoderTokenizer:
    """The tokenizer of a model folder, which adds the tokens that begin and end a text. Not safe for two threads."""

    def __init__(self, folder: Path, most_tokens: int, vocabulary: int) -> None:
        """Read it, without tokens beyond those that the model knows. Raises LoadFailed."""
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = without(Tokenizer.from_file(str(path)), vocabulary)
        except Exception as error:  # the library raises no other class
            raise LoadFailed(f"{path} cannot be read: {str(error)[:200]}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._most = most_tokens
        self._begin, self._end = _around(self._tokenizer.encode("a"))
        pair = self._tokenizer.encode("a", "b")
        texts = [index for index, text in enumerate(pair.sequence_ids) if text is not None]
        first = [index for index in texts if pair.sequence_ids[index] == 0]
        second = [index for index in texts if pair.sequence_ids[index] == 1]
        self._pair_begin, self._pair_end = list(pair.ids[: first[0]]), list(pair.ids[second[-1] + 1 :])
        self._between = list(pair.ids[first[-1] + 1 : second[0]])
        self._has_types = 1 in pair.type_ids

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(self._tokenizer.get_vocab_size())

    def encode(
        self, parts: Sequence[str | int], *, prompt: str = "", truncate: bool = False, param: str = "input"
    ) -> EncoderInput:
        """Give a text as the encoder reads it, after a prompt. What is too long is cut at its end, or refused.

        Raises InvalidRequest for no text at all, PromptTooLong.
        """
        before = self._ids(prompt) if prompt else []
        texts = (prompt + parts[0], *parts[1:]) if prompt and parts and isinstance(parts[0], str) else parts
        tokens = [*(before if texts is parts else ()), *self._ids_of(texts)]
        if len(tokens) <= len(before) and not any(isinstance(part, int) for part in parts):
            raise InvalidRequest(f"{param}: an empty text has no vector", param=param)
        tokens = self._bare(tokens)
        space = self._most - len(self._begin) - len(self._end)
        if len(tokens) > space and not truncate:
            raise too_long(param, len(tokens) + self._most - space, self._most)
        whole = [*self._begin, *tokens[:space], *self._end]
        return EncoderInput(whole, len(whole), len(self._begin) + len(before) if before else 0)

    def pair(self, query: str, document: str, *, truncate: bool, param: str) -> EncoderInput:
        """Give a query and a document as the encoder reads them. A document that is too long is cut, or refused.

        Raises PromptTooLong.
        """
        query_ids, document_ids = self._ids(query), self._ids(document)
        space = self._most - len(query_ids) - self._special
        if space < 1:
            raise too_long("query", len(query_ids) + self._special, self._most)
        if len(document_ids) > space and not truncate:
            raise too_long(param, len(document_ids) + self._most - space, self._most)
        first = [*self._pair_begin, *query_ids, *self._between]
        tokens = [*first, *document_ids[:space], *self._pair_end]
        return EncoderInput(tokens, len(first) if self._has_types else len(tokens))

    @property
    def _special(self) -> int:
        return len(self._pair_begin) + len(self._between) + len(self._pair_end)

    def _bare(self, tokens: list[int]) -> list[int]:
        """Leave out the tokens that begin and end a text, where ids came with them."""
        if self._begin and tokens[: len(self._begin)] == self._begin:
            tokens = tokens[len(self._begin) :]
            tokens = tokens[: -len(self._end)] if self._end and tokens[-len(self._end) :] == self._end else tokens
        return tokens

    def tokens(self, parts: Sequence[str | int], *, special: bool) -> list[tuple[int, bytes]]:
        """Give the ids of text and ids with their texts, between those that begin and end a text if these belong."""
        ids = self._ids_of(parts)
        ids = [*self._begin, *ids, *self._end] if special else ids
        return [(token, self._tokenizer.decode([token], skip_special_tokens=False).encode()) for token in ids]

    def decode(self, tokens: list[int]) -> str:
        """Give the text of ids, those too that begin and end it."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _ids_of(self, parts: Sequence[str | int]) -> list[int]:
        return [token for part in parts for token in ([part] if isinstance(part, int) else self._ids(part))]

    def _ids(self, text: str) -> list[int]:
        """Tokenize a text; of a very long one as much as shows how long it is."""
        tokens: list[int] = []
        for piece in _pieces(text, _CHARACTERS_PER_TOKEN * self._most):
            tokens += self._tokenizer.encode(piece, add_special_tokens=False).ids
            if len(tokens) > self._most:
                break
        return tokens


def too_long(param: str, tokens: int, most: int) -> PromptTooLong:
    """Make the error for a text that is too long."""
    return PromptTooLong(tokens, most, text=param)


def _around(encoding: Any) -> tuple[list[int], list[int]]:
    """Give the tokens that begin a text and those that end it."""
    texts = [index for index, text in enumerate(encoding.sequence_ids) if text is not None]
    return list(encoding.ids[: texts[0]]), list(encoding.ids[texts[-1] + 1 :])


def _pieces(text: str, length: int) -> Iterator[str]:
    """Cut a text that is much longer than a model reads; what is cut where a piece ends is read by no model."""
    yield from (text[start : start + length] for start in range(0, len(text), length)) if text else ()
