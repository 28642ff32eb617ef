"""OpenAI's harmony format, which gpt-oss speaks: messages, each with a header that says what it is for.

    <|channel|>analysis<|message|>They greet.<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>

The channel `analysis` is reasoning, `final` is the answer, and so is `commentary`: OpenAI's guide calls it a preamble,
which the user is to see. A message to a function is a call, and its text the arguments; the recipient stands behind the
role or behind the channel. The prompt ends with `<|start|>assistant`, so that an answer begins within a header.
Source: OpenAI's guide to the harmony response format.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import regex

from app.services.engine.output.detokenizer import CONTROL
from app.services.engine.output.json_reader import ObjectReader
from app.services.generation import ToolArguments, ToolCall

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN, END, CALL, RETURN = "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"
TOKENS = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)

ANALYSIS = f"{CHANNEL}analysis{MESSAGE}"  # opens the reasoning
FINAL = f"{CHANNEL}final{MESSAGE}"  # opens the answer
BEGIN = f"{START}assistant"  # begins a message
NEXT = END + BEGIN  # ends a message and begins the next
NO_REASONING = ANALYSIS + NEXT  # reasoning without a text, after which the model chooses what comes

_LONGEST_HEADER = 1024  # characters
_REST = f"[^{CONTROL}]{{0,200}}"
_BLANK = r"\s{0,20}+"
_OTHER_ROLES = r"user|system|developer|tool|functions\.[\w.-]{0,200}"
# A header, or the beginning of one. Models that forget it begin with text, which is neither a role nor a recipient.
_HEADER = regex.compile(
    rf"{_BLANK}(?:{CONTROL}<\|start\|>{_BLANK}(?:{_OTHER_ROLES})?)?(?:assistant)?{_BLANK}(?:to={_REST})?"
    rf"(?:{CONTROL}<\|(?:channel|constrain)\|>{_REST})*"
)
_ROLE = re.compile(rf"\s*{CONTROL}<\|start\|>\s*([^\s{CONTROL}]*)")
_CHANNEL_NAME = re.compile(rf"{CONTROL}<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(rf"\bto=([^\s{CONTROL}]+)")
_FUNCTIONS = "functions."
RECIPIENT = f"to={_FUNCTIONS}"  # stands before the name of the tool that a message calls


def control(token: str) -> str:
    """Spell a control token as the parser sees it: unlike the same characters in the text."""
    return CONTROL + token


def end_tokens(tokenizer: Any, tokens: Iterable[int]) -> frozenset[int]:
    """Correct the end tokens that a model's files name: calls end a turn, the end of a message does not."""
    ids = {entry.content: int(token) for token, entry in tokenizer.added_tokens_decoder.items()}
    ends = {ids[text] for text in (CALL, RETURN) if text in ids}
    return (frozenset(tokens) | ends) - ({ids[END]} if ends and END in ids else set())


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a message says."""

    is_own: bool = True  # the message is the assistant's, not one that it makes up for another role
    is_reasoning: bool = False
    function: str | None = None  # the tool that the message calls

    @classmethod
    def parse(cls, text: str, tools: Iterable[Mapping[str, Any]], *, known_only: bool = False) -> "Header":
        """Read it, as lenient as OpenAI's own parser: a channel may be missing, and come twice.

        With `known_only` there is no call of other functions than the tools.
        """
        role = _ROLE.match(text)
        channels, recipients = _CHANNEL_NAME.findall(text), _RECIPIENT.findall(text)
        names = {tool["function"]["name"] for tool in tools}
        recipient = recipients[-1] if recipients else ""
        name = recipient.removeprefix(_FUNCTIONS)
        is_function = name in names or bool(names and not known_only and name != recipient)
        return cls(
            is_own=role is None or role[1] in ("", "assistant"),
            is_reasoning=bool(channels) and channels[-1] == "analysis",
            function=name if is_function else None,
        )


def may_be_header(text: str) -> bool:
    """Whether a text is a header so far."""
    return len(text) <= _LONGEST_HEADER and _HEADER.fullmatch(text, partial=True) is not None


def text_of(header: str) -> str:
    """Give the text that came where a header was expected: without the role and the control tokens."""
    header = header.removeprefix(control(START) + "assistant")
    for token in TOKENS:
        header = header.replace(control(token), "")
    return header


class MessageCall:
    """Reads a message that is a call: its header has the name, its text are the arguments.

    `is_text`: it is no call, because the text is no object; `text` is all of it so far.
    """

    def __init__(self, header: Header, index: int, *, well_formed: bool) -> None:
        self.header = header
        self.text = ""
        self.is_text = False
        self.is_complete = False
        self._index = index
        self._arguments = ObjectReader(well_formed=well_formed)

    @property
    def has_begun(self) -> bool:
        """Whether it is certain that it is a call."""
        return bool(self.text.strip()) and not self.is_text

    def feed(self, text: str) -> list[ToolCall | ToolArguments]:
        """Take in text and give what is certain now. What follows the arguments is dropped."""
        parts: list[ToolCall | ToolArguments] = []
        if not self.has_begun:
            self.text += text
            text = self.text.lstrip()
            self.is_text = text[:1] not in ("", "{")
            if not self.has_begun:
                return []
            parts.append(self._begin())
        return parts if self.is_complete else parts + self._emit(self._arguments.feed(text))

    def trust(self) -> None:
        """Note that the arguments need no repair."""
        self._arguments.well_formed = True

    def finish(self, *, ended: bool) -> list[ToolCall | ToolArguments]:
        """Give what was held back. A message that has `ended` without a text is a call without arguments."""
        if self.is_complete or self.is_text:
            return []
        if self.has_begun:
            return self._emit(self._arguments.finish())
        self.is_complete = ended
        return [self._begin("{}")] if ended else []

    def _begin(self, arguments: str = "") -> ToolCall:
        assert self.header.function is not None
        return ToolCall(self._index, f"call_{secrets.token_hex(12)}", self.header.function, arguments)

    def _emit(self, piece: str) -> list[ToolCall | ToolArguments]:
        self.is_complete = self._arguments.over
        return [ToolArguments(self._index, piece)] if piece else []
