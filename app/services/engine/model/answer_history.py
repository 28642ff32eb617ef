"""Answers as a model wrote them, put into the prompts in which clients give them back."""

import json
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from app.services.engine.cache.prefixes import TokenArray
from app.services.engine.model.image_markers import lasting
from app.services.engine.output.detokenizer import DetokenizerFactory
from app.services.engine.output.markup import Markup
from app.services.engine.output.message_parser import MessageParser
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import TextPiece
from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.output.tool_call_arguments import parse_arguments
from app.services.generation import GenerationRequest, ToolArguments, ToolCall

_MOST_ANSWERS, _MOST_TOKENS = 4096, 2**20  # of all conversations; one that goes on is complete
_MOST_UNCOMPUTED = 8  # tokens at the end of an answer that were not fed to the model


class Rendered(NamedTuple):
    """A prompt: its text, and the text and token ids that it is made of."""

    text: str | None  # None where it is still to be made of the ids
    parts: Sequence[str | int]
    digest: bytes = b""  # of the text; empty where no answer to it will be given back


class _Meaning(NamedTuple):
    text: str
    reasoning: str
    calls: tuple[tuple[str, Any], ...]  # name and arguments
    ids: tuple[str, ...]  # of the calls, whether or not they stand in the answer


@dataclass(slots=True)
class _Answer:
    prompt_length: int  # characters
    prompt_tokens: int
    prompt_digest: bytes
    thinking: bool  # its prompt ends inside the reasoning
    tokens: Sequence[int]  # more come while it is drawn
    # The hash of the last text in its place, and whether that says the same.
    judged: tuple[int, bool] = field(default=(0, False), compare=False)


class AnswerHistory:
    """The answers of one model, by conversation. Prompts are rendered on one thread, answers may come from another.

    A chat template writes an answer in its own way, with other spaces than the model or another order of members, and
    the tokenizer splits it otherwise than the model did. The prompt would then differ from what was computed. So where
    an answer follows the very prompt that it was given to, and says the same as the model's (as the model's own format
    is read: the same text, reasoning and calls), the model's tokens take its place. What a client or the template
    changes or leaves out stays changed.
    """

    def __init__(
        self, tokenizer: Any, markup: Markup, detokenizer: DetokenizerFactory, end_tokens: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._markup = markup
        self._detokenizer = detokenizer
        self._end_tokens = end_tokens
        self._token_bytes = TokenBytes(tokenizer)
        self._ends = tuple(text for token in end_tokens if (text := self._token_bytes[token].decode(errors="replace")))
        self._conversations: OrderedDict[int, list[_Answer]] = OrderedDict()  # the one that went on last comes last
        self._lock = threading.Lock()

    def add(
        self,
        conversation: int,
        prompt: str,
        prompt_tokens: int,
        digest: bytes,
        answers: Iterable[Sequence[int]],
        *,
        thinking: bool,
    ) -> None:
        """Note the answers to a prompt by the lists that their tokens are added to."""
        self._add(conversation, [_Answer(len(prompt), prompt_tokens, digest, thinking, tokens) for tokens in answers])

    def _add(self, conversation: int, answers: Iterable[_Answer]) -> None:
        with self._lock:
            self._conversations.setdefault(conversation, []).extend(answers)
            self._conversations.move_to_end(conversation)
            while len(self._conversations) > 1 and self._is_full():
                self._conversations.popitem(last=False)

    def save(self, tokens: TokenArray) -> str:
        """Write down the answers that stand in a sequence of tokens which was computed. On any thread."""
        with self._lock:
            pairs = [(key, answer) for key, answers in self._conversations.items() for answer in answers]
        saved = []
        for key, answer in pairs:
            start = answer.prompt_tokens
            if not answer.tokens or start >= len(tokens) or tokens[start] != answer.tokens[0]:
                continue
            own = [token for token in answer.tokens if token not in self._end_tokens]
            computed = tokens[start : start + len(own)].tolist()
            rest = own[len(computed) :]
            if own[: len(computed)] == computed and len(rest) <= _MOST_UNCOMPUTED:
                prompt = answer.prompt_length, start, answer.prompt_digest.hex(), answer.thinking
                saved.append([key, *prompt, len(computed), rest])
        return json.dumps(saved)

    def load(self, tokens: TokenArray, saved: str) -> None:
        """Read what `save` wrote down of the same tokens. Raises ValueError where it is no such thing."""
        try:
            for key, length, start, digest, thinking, count, rest in json.loads(saved):
                own = array("i", [*tokens[start : start + count].tolist(), *rest])
                answer = _Answer(int(length), int(start), bytes.fromhex(digest), bool(thinking), own)
                if answer not in self._conversations.get(int(key), ()):  # sequences may begin alike
                    self._add(int(key), [answer])
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error

    def _is_full(self) -> bool:
        sizes = [len(answer.tokens) for answers in self._conversations.values() for answer in answers]
        return len(sizes) > _MOST_ANSWERS or sum(sizes) > _MOST_TOKENS

    def restore(self, text: str, conversation: int, request: GenerationRequest) -> Rendered:
        """Put the model's own tokens in the place of answers in a rendered prompt."""
        with self._lock:
            latest_first = self._conversations.get(conversation, [])[::-1]
        answers = sorted(latest_first, key=lambda answer: answer.prompt_length)
        digest = blake2b(digest_size=16)
        parts: list[str | int] = []
        texts: list[str] = []
        offset = 0  # characters of the restored prompt before `text`
        position = 0  # in `text`; what is before is in the digest
        for answer in answers:
            start = answer.prompt_length - offset
            if start < position:
                continue
            if start > len(text) or (end := self._end(text, start)) is None:
                break
            digest.update(lasting(text[position:start]).encode())
            position = start
            if digest.digest() != answer.prompt_digest or not self._says(answer, text[start:end], request):
                continue
            own_text = self._text(tokens := self._compact(answer))
            digest.update(own_text.encode())
            parts += [text[:start], *tokens]
            texts += [text[:start], own_text]
            offset += start + len(own_text)
            text, position = text[end:], 0
        digest.update(lasting(text[position:]).encode())
        return Rendered("".join([*texts, text]), [*parts, text], digest.digest())

    def _end(self, text: str, start: int) -> int | None:
        """Find where the first token that ends an answer stands behind a position."""
        return min((at for end in self._ends if (at := text.find(end, start)) >= 0), default=None)

    def _compact(self, answer: _Answer) -> Sequence[int]:
        """Give the tokens of an answer that is over, without the one that ended it."""
        if not isinstance(answer.tokens, array):
            answer.tokens = array("i", (token for token in answer.tokens if token not in self._end_tokens))
        return answer.tokens

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(self._token_bytes[token] for token in tokens).decode(errors=self._token_bytes.errors)

    def _says(self, answer: _Answer, text: str, request: GenerationRequest) -> bool:
        """Whether a text says what an answer says."""
        if answer.judged[0] != hash(text):
            answer.judged = (hash(text), self._compare(answer, text, request))
        return answer.judged[1]

    def _compare(self, answer: _Answer, text: str, request: GenerationRequest) -> bool:
        tokens = [token for token in answer.tokens if token not in self._end_tokens]
        if not tokens:
            return False
        if (own_text := self._text(tokens)) == text:
            return True
        other = self._meaning(self._tokenizer.encode(text, add_special_tokens=False), answer.thinking, request)
        # Results refer to the ids of calls, where a format writes them.
        if any(identity in text and identity not in own_text for identity in other.ids):
            return False
        return self._meaning(tokens, answer.thinking, request)[:3] == other[:3]

    def _meaning(self, tokens: Iterable[int], thinking: bool, request: GenerationRequest) -> _Meaning:
        parser: OutputParser | MessageParser
        if self._markup.has_headers:
            parser = MessageParser(tools=request.tools, thinking=thinking)
        else:
            parser = OutputParser(self._markup, tools=request.tools, thinking=thinking)
        detokenizer = self._detokenizer(continues=False)
        text = "".join([*(detokenizer.feed(token) for token in tokens), detokenizer.finish()])
        parts = [*parser.feed(text), *parser.finish(ended=True)]
        texts = ["", ""]  # of the answer, and of the reasoning
        calls: list[ToolCall] = []
        arguments: list[str] = []
        for part in parts:
            match part:
                case TextPiece():
                    texts[part.reasoning] += part.text
                case ToolCall():
                    calls.append(part)
                    arguments.append(part.arguments)
                case ToolArguments():
                    arguments[part.index] += part.text
        values = tuple(
            (call.name, _comparable(parse_arguments(text))) for call, text in zip(calls, arguments, strict=True)
        )
        return _Meaning(texts[False].strip(), texts[True].strip(), values, tuple(call.id for call in calls))


def _comparable(value: Any) -> Any:
    """Give a JSON value that equals another if both mean the same: 1 is 1.0, but true is not 1."""
    if isinstance(value, Mapping):
        return {name: _comparable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return (isinstance(value, bool), value)
