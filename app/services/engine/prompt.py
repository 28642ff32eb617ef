"""Messages to token ids, through the model's own chat template."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.services.engine.chat_template import ChatTemplate
from app.services.engine.dry import NO_BREAKERS, Breakers
from app.services.engine.text import pieces
from app.services.errors import InvalidRequest, PromptTooLong
from app.services.generation import GenerationRequest

# Of the model families that can fill in: what stands before the text, before what follows, and before the answer.
_INFILL_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that fits: its text and tokens, whether it ends inside the model's reasoning, what binds its answer."""

    text: str
    tokens: list[int]
    thinking: bool
    beginning: int = 0  # the same for prompts of one conversation
    matcher: Any = None  # llguidance's LLMatcher
    stops: Any = None  # speech.StopStrings
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    breakers: Breakers = NO_BREAKERS


class PromptBuilder:
    """Renders and tokenizes for one model. Not safe for two threads at once."""

    def __init__(
        self, tokenizer: Any, think_start: str | None, context_length: int, longest_token: int | None = None
    ) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._think_start = think_start
        self._context_length = context_length
        self._longest_token = longest_token  # bytes, None where that cannot be told
        self._piece = pieces(tokenizer)
        self._template = ChatTemplate(tokenizer)
        self._infill_marks = _infill_marks(tokenizer.added_tokens_decoder.values())

    def build(self, request: GenerationRequest) -> Prompt:
        """Raises InvalidRequest for what the template refuses, PromptTooLong for what does not fit."""
        parts = self._parts(request)
        self._refuse_by_length(parts)
        tokens = self._tokens(parts, request)
        room = self._context_length - (0 if request.max_tokens == 0 else 1)
        if len(tokens) > room:
            raise PromptTooLong(len(tokens), self._context_length)
        if not tokens and request.prompt is not None:
            raise InvalidRequest(
                "An empty prompt cannot be continued: this model has no token to begin with", param="prompt"
            )
        if not tokens:
            raise InvalidRequest("The chat template made an empty prompt of these messages", param="messages")
        texts = [part for part in parts if isinstance(part, str)]
        text = "".join(texts) if len(texts) == len(parts) else self.detokenize(tokens)
        return Prompt(text, tokens, thinking=self._ends_thinking(text, request), beginning=_beginning(request))

    def count(self, request: GenerationRequest) -> int:
        """Count the tokens of a prompt, whether or not it fits."""
        return len(self._tokens(self._parts(request), request))

    def _parts(self, request: GenerationRequest) -> Sequence[str | int]:
        if request.prompt is None:
            return (self.render(request),)
        return request.prompt if request.suffix is None else (self._infill(request.prompt, request.suffix),)

    def _tokens(self, parts: Sequence[str | int], request: GenerationRequest) -> list[int]:
        return self.tokenize_parts(parts, special=request.prompt is not None)  # templates write their own

    def _refuse_by_length(self, parts: Sequence[str | int]) -> None:
        """Do not tokenize what cannot fit however long its tokens are."""
        if not self._longest_token:
            return
        characters = sum(len(part) for part in parts if isinstance(part, str))
        least = characters // self._longest_token + sum(isinstance(part, int) for part in parts)
        if least > self._context_length:
            raise PromptTooLong(least, self._context_length)

    def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text. Raises InvalidRequest for what the template refuses."""
        return self._template.render(request)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Give the ids of a text; `special` adds what the model wants before and after, unless it is there."""
        bos = self._tokenizer.bos_token
        there = bool(bos) and text.startswith(bos)
        return list(self._tokenizer.encode(text, add_special_tokens=special and not there))

    def tokenize_parts(self, parts: Sequence[str | int], *, special: bool) -> list[int]:
        """Give the ids of text and ids in any order; `special` is for a text that begins it."""
        tokens: list[int] = []
        for place, part in enumerate(parts):
            if isinstance(part, int):
                tokens.append(part)
            else:
                tokens += self.tokenize(part, special=special and place == 0)
        return tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Give the text of ids, control tokens too."""
        decoded = self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(decoded)

    def piece(self, token: int) -> bytes:
        """Give the bytes of one id; they may be a part of a character."""
        return self._piece(token)

    def _infill(self, before: Sequence[str | int], after: str) -> str:
        if self._infill_marks is None:
            raise InvalidRequest(
                "This model has no fill-in-the-middle tokens, so it cannot write what stands before a suffix",
                param="suffix",
                code="no_infill",
            )
        texts = [part for part in before if isinstance(part, str)]
        if len(texts) < len(before):
            raise InvalidRequest("A suffix goes with a prompt of text, not with token ids", param="suffix")
        prefix, suffix, middle = self._infill_marks
        return f"{prefix}{''.join(texts)}{suffix}{after}{middle}"

    def _ends_thinking(self, text: str, request: GenerationRequest) -> bool:
        if self._think_start is None or request.prompt is not None:
            return False
        if request.continue_final_message:
            last = request.messages[-1]
            return bool(last.reasoning) and not last.content
        return text.rstrip().endswith(self._think_start)


def _beginning(request: GenerationRequest) -> int:
    """Number a conversation by its system prompt and first question, a raw prompt by its first words."""
    if request.prompt is not None:
        return hash(tuple(part if isinstance(part, int) else part[:256] for part in request.prompt[:64]))
    asked = next((place for place, message in enumerate(request.messages) if message.role == "user"), 0)
    return hash(tuple((message.role, message.content) for message in request.messages[: asked + 1]))


def _infill_marks(added: Iterable[Any]) -> tuple[str, str, str] | None:
    known = {token.content for token in added}
    return next((marks for marks in _INFILL_MARKS if known.issuperset(marks)), None)
