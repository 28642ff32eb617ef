"""Where a prompt differs from the ones before it, and what stood there."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.services.engine.cache.prefixes import TokenArray, common_prefix_length
from app.services.engine.output.token_bytes import TokenBytes
from app.services.generation import Message, PromptChange

_MOST_PROMPTS = 64
_TOKENS, _CHARACTERS = 32, 80  # of what stands where prompts differ
_SOUGHT = 64  # characters of a message by which it is found in its prompt

Outline = Sequence[tuple[int, str]]  # where messages end in the text of a prompt, and whose they are


@dataclass(frozen=True, slots=True)
class _Past:
    who: tuple[str, ...]
    tokens: TokenArray
    outline: Outline
    answers: Sequence[Sequence[int]]  # lists that grow while they are drawn

    def sequences(self, shared: int) -> Iterator[TokenArray]:
        """Give the prompt with each answer, if it shares all of the prompt's tokens; else the prompt alone."""
        if shared < len(self.tokens) or not self.answers:
            yield self.tokens
            return
        for answer in self.answers:
            # Its last token may be the end of the answer, which templates write in their own way.
            yield np.concatenate([self.tokens, np.asarray(answer[:-1], dtype=np.int32)])


class PromptHistory:
    """The last prompts of one model, for its engine's thread. No client gets to read what another one sent."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._prompts: deque[_Past] = deque(maxlen=_MOST_PROMPTS)

    def add(
        self, who: tuple[str, ...], tokens: Sequence[int], outline: Outline, answers: Sequence[Sequence[int]]
    ) -> PromptChange | None:
        """Note a prompt with its answers. Says where it departs from the nearest one before, if it does not go on."""
        prompt = np.asarray(tokens, dtype=np.int32)
        change = self._change(who, prompt, outline)
        self._prompts.append(_Past(who, prompt, outline, answers))
        return change

    def _change(self, who: tuple[str, ...], prompt: TokenArray, outline: Outline) -> PromptChange | None:
        shared, before, past = 0, None, None
        for other in reversed(self._prompts):  # of several that are equally near, the latest
            if other.who != who:
                continue
            for tokens in other.sequences(common_prefix_length(other.tokens, prompt)):
                length = common_prefix_length(tokens, prompt)
                if length > shared:
                    shared, before, past = length, tokens, other
        if before is None or past is None or shared in (len(before), len(prompt)):
            return None
        at = len(self._text(prompt[:shared]))
        ours, theirs = _role(outline, at), _role(past.outline, at)
        return PromptChange(shared, theirs, self._words(before[shared:]), ours, self._words(prompt[shared:]))

    def _text(self, tokens: Iterable[int]) -> str:
        return b"".join(self._token_bytes[int(token)] for token in tokens).decode(errors="ignore")

    def _words(self, tokens: TokenArray) -> str:
        return " ".join(self._text(tokens[:_TOKENS]).split())[:_CHARACTERS]


def outline(text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Outline:
    """Find the messages in the text of a prompt, by what they begin with; the tools count as one of them."""
    ends: list[tuple[int, str]] = []
    position = 0
    for message in messages:
        content = message.content.strip() or next((call.name for call in message.tool_calls), "")
        if content and (at := text.find(content[:_SOUGHT], position)) >= 0:
            position = at + len(content)
            ends.append((position, message.role))
    first = text.find(_name(tools[0])) if tools else -1
    if first >= 0:
        following = next((index for index, (end, role) in enumerate(ends) if role != "system"), len(ends))
        before = ends[following - 1][0] if following else 0
        last = max((at + len(name) for name in map(_name, tools) if (at := text.find(name, before)) >= 0), default=0)
        if last and (following == len(ends) or last < ends[following][0]):
            ends.insert(following, (last, "tools"))
    return tuple(ends)


def _name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return str(function.get("name") or "\n") if isinstance(function, Mapping) else "\n"


def _role(outline: Outline, at: int) -> str:
    """Say whose words stand at a position; what follows the last message is the answer."""
    index = bisect_right([end for end, _ in outline], at)
    return outline[index][1] if index < len(outline) else "assistant"
