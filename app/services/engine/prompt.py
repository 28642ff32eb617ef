"""Messages to token ids, through the model's own chat template."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.output.detokenizer import token_to_piece
from app.services.engine.sampling.dry import NO_BREAKERS, Breakers
from app.services.errors import InvalidRequest, NoInfill, PromptTooLong, TextTooLong
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

# Characters that are tokenized in one go, to a token of the context and at least: mostly twice what fits.
_TOKENIZED, _FEWEST_TOKENIZED = 8, 2**18
_SLICE = 2**16  # characters of a longer text that are tokenized at a time, to see whether it can fit


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that fits: its text and tokens, whether it ends inside the model's reasoning, what binds its answer."""

    text: str
    tokens: list[int]
    thinking: bool
    beginning: int = 0  # the same for prompts of one conversation
    matcher: Any = None  # llguidance's LLMatcher
    stops: Any = None  # StopStrings
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
        self._most_characters = max(_FEWEST_TOKENIZED, _TOKENIZED * context_length)
        self._longest_token = longest_token  # bytes, None where that cannot be told
        self._piece = token_to_piece(tokenizer)
        self._template = ChatTemplate(tokenizer)
        self._infill_marks = _infill_marks(tokenizer.added_tokens_decoder.values())

    def build(self, request: GenerationRequest) -> Prompt:
        """Raises InvalidRequest for what the template refuses, PromptTooLong for what does not fit."""
        self._refuse_by_length(_texts(request))
        parts = self._parts(request)
        self.refuse_unfit(parts)
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
        """Count the tokens of a prompt, whether or not it fits. Raises UnprocessableBody for a very long one."""
        self.refuse_very_long(_texts(request), "messages")
        parts = self._parts(request)
        self.refuse_very_long(parts, "messages")
        return len(self._tokens(parts, request))

    def _parts(self, request: GenerationRequest) -> Sequence[str | int]:
        if request.prompt is None:
            return (self.render(request),)
        return request.prompt if request.suffix is None else (self._infill(request.prompt, request.suffix),)

    def _tokens(self, parts: Sequence[str | int], request: GenerationRequest) -> list[int]:
        return self.tokenize_parts(parts, special=request.prompt is not None)  # templates write their own

    def refuse_unfit(self, parts: Sequence[str | int]) -> None:
        """Tokenize no more of what cannot fit than shows it: of a long text, slices until there are too many tokens.

        Slices have a few tokens more than the text that they make up, so a quarter more than fits is allowed here.
        Raises PromptTooLong.
        """
        self._refuse_by_length(parts)
        texts = [part for part in parts if isinstance(part, str)]
        if sum(map(len, texts)) <= self._most_characters:
            return
        tokens = len(parts) - len(texts)
        for text in texts:
            for start in range(0, len(text), _SLICE):
                tokens += len(self.tokenize(text[start : start + _SLICE]))
                if tokens > self._context_length * 5 // 4:
                    raise PromptTooLong(tokens, self._context_length, at_least=True)

    def _refuse_by_length(self, parts: Sequence[str | int]) -> None:
        """Do not render or tokenize what cannot fit however long its tokens are."""
        if (fewest := self.fewest_tokens(parts)) > self._context_length:
            raise PromptTooLong(fewest, self._context_length, at_least=True)

    def fewest_tokens(self, parts: Sequence[str | int]) -> int:
        """How many tokens texts and ids have at least; 0 where it cannot be told how long a token is."""
        if not self._longest_token:
            return 0
        ids = sum(isinstance(part, int) for part in parts)
        return ids + sum(len(part) for part in parts if isinstance(part, str)) // self._longest_token

    def refuse_very_long(self, parts: Iterable[str | int], param: str) -> None:
        """Raise UnprocessableBody for texts that are not to be tokenized in one go, whether or not they would fit."""
        if (length := sum(len(part) for part in parts if isinstance(part, str))) > self._most_characters:
            most = self._most_characters
            raise TextTooLong(
                f"{param}: a text of {length} characters; this server tokenizes {most} in one request", param=param
            )

    def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text. Raises InvalidRequest for what the template refuses."""
        self.refuse_very_long(_arguments_of(request), "messages")  # they are JSON, which is parsed for the template
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
            raise NoInfill
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


def _texts(request: GenerationRequest) -> list[str]:
    """What a template shows of a conversation, as far as can be told; old thoughts may be left out."""
    return [message.content for message in request.messages] + _arguments_of(request)


def _arguments_of(request: GenerationRequest) -> list[str]:
    return [call.arguments for message in request.messages for call in message.tool_calls]


def _infill_marks(added: Iterable[Any]) -> tuple[str, str, str] | None:
    known = {token.content for token in added}
    return next((marks for marks in _INFILL_MARKS if known.issuperset(marks)), None)
