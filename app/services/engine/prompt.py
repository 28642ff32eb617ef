"""Messages to token ids, through the model's own chat template."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from app.services.context_length import ContextLength
from app.services.engine.model.answer_history import AnswerHistory, Rendered
from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.model.image_markers import lasting, replaced
from app.services.engine.model.prefix_tokenizer import PrefixTokenizer
from app.services.engine.model.prompt_history import Outline, outline
from app.services.engine.output.stop_strings import StopStrings
from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.sampling.call_constraint import CallGrammars
from app.services.engine.sampling.dry import NO_BREAKERS, Breakers
from app.services.engine.sampling.matcher import Matcher
from app.services.engine.scheduler.continuations import TokenizedContinuations, tokenize_continuations
from app.services.engine.vision.prompt_images import NO_IMAGES, PromptImages
from app.services.engine.vision.prompt_tokens import tokenize_with_images
from app.services.errors import InvalidRequest, NoInfill, PromptTooLong, TextTooLong
from app.services.generation import EncodedImage, GenerationRequest, Message

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision

Images = Mapping[bytes, EncodedImage]  # by their digests
NO_ENCODED: Images = {}

# The fill-in-the-middle tokens of model families: before the prefix, the suffix, and the answer that goes between.
_FIM_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
)

# Texts are tokenized in one go up to so many characters for each token of the context, or up to the second number
# where the context is short: mostly twice what fits.
_CHARACTERS_PER_TOKEN, _MIN_CHARACTERS = 8, 2**18
_QUESTIONS = ("Hello", "1", "\n\n- a", "\u00e4")  # whose first tokens have nothing in common
_SLICE = 2**16  # characters of a longer text that are tokenized at a time, to see whether it can fit


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that fits the context, and what the request's texts are compiled to for its answers."""

    text: str
    tokens: list[int]
    thinking: bool  # it ends inside the model's reasoning
    conversation_key: int = 0  # the same for all prompts of a conversation
    digest: bytes = b""  # of the text, for prompts whose answers may be given back
    outline: Outline = ()  # its messages
    matcher: Matcher | None = None  # None if no grammar constrains the answer
    calls: CallGrammars | None = None  # what binds the calls of an answer that is free otherwise
    header: Matcher | None = None  # of what comes before that, in formats whose messages have headers
    stop_strings: StopStrings | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # by token
    breakers: Breakers = NO_BREAKERS  # of DRY
    images: PromptImages = NO_IMAGES


class PromptBuilder:
    """Renders and tokenizes for one model. Not safe for two threads at once."""

    def __init__(
        self,
        tokenizer: Any,
        think_start: str | None,
        context: ContextLength,
        longest_token: int | None = None,
        answers: AnswerHistory | None = None,
        vision: "Vision | None" = None,
    ) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._think_start = think_start
        self._context = context
        self._max_characters = max(_MIN_CHARACTERS, _CHARACTERS_PER_TOKEN * context.tokens)
        self._longest_token = longest_token  # bytes; None if unknown
        self._token_bytes = TokenBytes(tokenizer)
        self._template = ChatTemplate(tokenizer)
        self._answers = answers
        self._vision = vision  # None for a model that reads text only
        added = tokenizer.added_tokens_decoder
        self._controls = frozenset(int(token) for token in added if added[token].special)
        self._fim_tokens = _fim_tokens(tokenizer.added_tokens_decoder.values())

    def build(
        self, request: GenerationRequest, images: Images = NO_ENCODED, tokenizer: PrefixTokenizer | None = None
    ) -> Prompt:
        """Render and tokenize. `images` are those that markers in messages stand for.

        `tokenizer` is for prompts of text that begin alike. Raises InvalidRequest for what the template refuses, and
        PromptTooLong.
        """
        self._check_min_tokens(_texts(request))
        key = _conversation_key(request)
        text, parts, digest = self._rendered(request, key)
        whole = parts[0] if len(parts) == 1 and not images else None
        if tokenizer is None or not isinstance(whole, str) or not tokenizer.shares(whole):
            self.check_fits(parts)
        if tokenizer is not None and isinstance(whole, str):
            tokens, positions = tokenizer(whole), NO_IMAGES
        else:
            tokens, positions = self._tokens(parts, request, images)
        if len(tokens) > self._context.tokens - (0 if request.max_tokens == 0 else 1):
            raise self._too_long(len(tokens))
        if not tokens and request.prompt is not None:
            raise InvalidRequest(
                "An empty prompt cannot be continued: this model has no token to begin with", param="prompt"
            )
        if not tokens:
            raise InvalidRequest("The chat template made an empty prompt of these messages", param="messages")
        text = self.detokenize(tokens) if text is None else text
        thinking = self._ends_thinking(text, request)
        messages = self._outline(text, request, images)
        return Prompt(
            text, tokens, thinking=thinking, conversation_key=key, digest=digest, outline=messages, images=positions
        )

    def remember(self, prompt: Prompt, answers: Iterable[Sequence[int]]) -> None:
        """Note the answers to a prompt, by lists that get their tokens, for prompts that give them back."""
        if self._answers is not None and prompt.digest:
            self._answers.add(
                prompt.conversation_key,
                prompt.text,
                len(prompt.tokens),
                prompt.digest,
                answers,
                thinking=prompt.thinking,
            )

    def shared_prefix(self, request: GenerationRequest) -> list[int]:
        """Give the tokens that all conversations begin with that begin with these messages and have these tools.

        They are found by asking different questions, since templates put system prompts and tools where they like.
        Raises InvalidRequest and PromptTooLong as `build` does.
        """
        prompts = (replace(request, messages=(*request.messages, Message("user", text))) for text in _QUESTIONS)
        columns = zip(*(self.build(prompt).tokens for prompt in prompts), strict=False)
        return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]

    def count(self, request: GenerationRequest, images: Images = NO_ENCODED) -> int:
        """Count the tokens of a prompt, whether or not it fits. Raises UnprocessableBody for a very long one."""
        self.check_length(_texts(request), "messages")
        parts = self._rendered(request, _conversation_key(request)).parts
        self.check_length(parts, "messages")
        return len(self._tokens(parts, request, images)[0])

    def shown(self, text: str) -> str:
        """Give the text of a prompt with one token in the place of each image."""
        return replaced(text, lambda _: self._place(1))

    def _rendered(self, request: GenerationRequest, key: int) -> Rendered:
        if request.prompt is None:
            text = self.render(request)
            if self._answers is None or request.continue_final_message:
                return Rendered(text, (text,))
            return self._answers.restore(text, key, request)
        parts = (
            request.prompt_parts
            if request.suffix is None
            else (_infill(request.prompt_parts, request.suffix, self._fim_tokens),)
        )
        texts = [part for part in parts if isinstance(part, str)]
        return Rendered("".join(texts) if len(texts) == len(parts) else None, parts)

    def _tokens(
        self, parts: Sequence[str | int], request: GenerationRequest, images: Images
    ) -> tuple[list[int], PromptImages]:
        special = request.prompt is not None  # templates write their own
        if not images or self._vision is None:
            return self.tokenize_parts(parts, special=special), NO_IMAGES
        first = partial(self.tokenize, special=special)
        return tokenize_with_images(parts, images, self._vision, self.tokenize, first)

    def _outline(self, text: str, request: GenerationRequest, images: Images) -> Outline:
        """Find the messages in the text that the tokens of a prompt have."""
        if not images or self._vision is None:
            return outline(text, request.messages, request.tools)
        lengths = {digest: self._vision.placed(image, 0).length for digest, image in images.items()}
        whole = partial(replaced, by=lambda digest: self._place(lengths[digest]))
        messages = [replace(message, content=whole(message.content)) for message in request.messages]
        return outline(whole(text), messages, request.tools)

    def _place(self, length: int) -> str:
        """Give the text of an image in a prompt that has so many tokens."""
        if self._vision is None:
            return ""
        family, token = self._vision.family, self.detokenize([self._vision.placeholder])
        return family.before + token * length + family.after

    def check_fits(self, parts: Sequence[str | int]) -> None:
        """Raise PromptTooLong if text and ids cannot fit, without tokenizing more of them than shows it.

        A long text is tokenized in slices until there are too many tokens. Slices have a few more than the text as a
        whole, so a quarter more than fits is allowed here.
        """
        self._check_min_tokens(parts)
        texts = [part for part in parts if isinstance(part, str)]
        if sum(map(len, texts)) <= self._max_characters:
            return
        tokens = len(parts) - len(texts)
        for text in texts:
            for start in range(0, len(text), _SLICE):
                tokens += len(self.tokenize(text[start : start + _SLICE]))
                if tokens > self._context.tokens * 5 // 4:
                    raise self._too_long(tokens, at_least=True)

    def _check_min_tokens(self, parts: Sequence[str | int]) -> None:
        """Raise PromptTooLong for what cannot fit however long tokens are, without rendering or tokenizing it."""
        if (tokens := self.min_tokens(parts)) > self._context.tokens:
            raise self._too_long(tokens, at_least=True)

    def _too_long(self, tokens: int, *, at_least: bool = False) -> PromptTooLong:
        return PromptTooLong(tokens, self._context.tokens, can_grow=self._context.can_grow, at_least=at_least)

    def min_tokens(self, parts: Sequence[str | int]) -> int:
        """Give a lower bound of the tokens of texts and ids; 0 if it is unknown how long a token may be."""
        if not self._longest_token:
            return 0
        ids = sum(isinstance(part, int) for part in parts)
        return ids + sum(len(part) for part in parts if isinstance(part, str)) // self._longest_token

    def check_length(self, parts: Iterable[str | int], param: str) -> None:
        """Raise UnprocessableBody for texts that are not to be tokenized in one go, whether or not they would fit."""
        if (length := sum(len(part) for part in parts if isinstance(part, str))) > self._max_characters:
            most = self._max_characters
            raise TextTooLong(
                f"{param}: a text of {length} characters; this server tokenizes {most} in one request", param=param
            )

    def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text. Raises InvalidRequest for what the template refuses."""
        self.check_length(_arguments(request), "messages")  # they are JSON, which is parsed for the template
        return self._template.render(request)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Give the ids of a text; `special` adds the tokens that begin and end a prompt, unless it begins with one."""
        bos = self._tokenizer.bos_token
        has_bos = bool(bos) and text.startswith(bos)
        return list(self._tokenizer.encode(text, add_special_tokens=special and not has_bos))

    def tokenize_parts(self, parts: Sequence[str | int], *, special: bool) -> list[int]:
        """Give the ids of text and ids in any order; `special` is for a text that begins it."""
        tokens: list[int] = []
        for index, part in enumerate(parts):
            if isinstance(part, int):
                tokens.append(part)
            else:
                tokens += self.tokenize(part, special=special and index == 0)
        return tokens

    def prefix_tokenizer(self, *, special: bool) -> PrefixTokenizer:
        """Give what tokenizes texts that begin alike; `special` adds the tokens that begin and end a prompt."""
        return PrefixTokenizer(partial(self.tokenize, special=special), self.tokenize)

    def continuations(self, prompt: Prompt, texts: Sequence[str], tokenizer: PrefixTokenizer) -> TokenizedContinuations:
        """Tokenize texts behind a prompt, with what has tokenized it. Raises PromptTooLong."""
        self.check_length([prompt.text, *texts], "questions")
        start = prompt.images.end  # no text joins what comes before
        tokenized = tokenize_continuations(
            self.detokenize(prompt.tokens[start:]) if start else prompt.text,
            prompt.tokens[start:],
            texts,
            controls=self._controls,
            tokenize=self.tokenize if start else tokenizer,
            tokenize_piece=self.tokenize,
            detokenize=self.detokenize,
        ).behind(prompt.tokens[:start], prompt.images)
        if tokenized.longest > self._context.tokens:
            raise self._too_long(tokenized.longest)
        return tokenized

    def tokenize_input(self, parts: Sequence[str | int], *, truncate: bool) -> list[int]:
        """Give the ids of a text that becomes a vector, those that begin and end a text too.

        What does not fit is cut before those that end it, or refused. Raises InvalidRequest for no text, PromptTooLong.
        """
        most = self._context.tokens
        if truncate:
            parts = [part[: self._max_characters] if isinstance(part, str) else part for part in parts]
        else:
            self.check_fits(parts)
        tokens = self.tokenize_parts(parts, special=True)
        if not tokens:
            raise InvalidRequest("input: an empty text has no vector", param="input")
        if len(tokens) <= most:
            return tokens
        if not truncate:
            raise self._too_long(len(tokens))
        bare, whole = self.tokenize("a"), self.tokenize("a", special=True)
        ends = whole[whole.index(bare[-1]) + 1 :] if bare and bare[-1] in whole else []
        return [*tokens[: most - len(ends)], *ends]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Give the text of ids, control tokens too."""
        return self._token_bytes.decode(tokens)

    def piece(self, token: int) -> bytes:
        """Give the bytes of one id; they may be a part of a character."""
        return self._token_bytes[token]

    def _ends_thinking(self, text: str, request: GenerationRequest) -> bool:
        if self._think_start is None or request.prompt is not None:
            return False
        if request.continue_final_message:
            last = request.messages[-1]
            return bool(last.reasoning) and not last.content
        return text.rstrip().endswith(self._think_start)


def _conversation_key(request: GenerationRequest) -> int:
    """Hash what all turns of a conversation begin with: the system prompt and first question, or a prompt's start.

    It is the same after a restart.
    """
    begin: list[Any]
    if request.prompt is not None:
        begin = [part if isinstance(part, int) else lasting(part[:256]) for part in request.prompt_parts[:64]]
    else:
        question = next((index for index, message in enumerate(request.messages) if message.role == "user"), 0)
        begin = [[message.role, lasting(message.content)] for message in request.messages[: question + 1]]
    return int.from_bytes(blake2b(json.dumps(begin).encode(), digest_size=8).digest())


def _texts(request: GenerationRequest) -> list[str]:
    """The texts that a template surely shows; it may leave out the reasoning of earlier turns."""
    return [message.content for message in request.messages] + _arguments(request)


def _arguments(request: GenerationRequest) -> list[str]:
    return [call.arguments for message in request.messages for call in message.tool_calls]


def _infill(prompt: Sequence[str | int], suffix: str, fim_tokens: tuple[str, str, str] | None) -> str:
    """Give the text of a prompt whose answer goes between it and a suffix. Raises NoInfill, InvalidRequest."""
    if fim_tokens is None:
        raise NoInfill
    texts = [part for part in prompt if isinstance(part, str)]
    if len(texts) < len(prompt):
        raise InvalidRequest("A suffix goes with a prompt of text, not with token ids", param="suffix")
    before_prefix, before_suffix, before_answer = fim_tokens
    return f"{before_prefix}{''.join(texts)}{before_suffix}{suffix}{before_answer}"


def _fim_tokens(added_tokens: Iterable[Any]) -> tuple[str, str, str] | None:
    texts = {token.content for token in added_tokens}
    return next((tokens for tokens in _FIM_TOKENS if texts.issuperset(tokens)), None)
