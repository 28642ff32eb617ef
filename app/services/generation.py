"""The one vocabulary: a GenerationRequest goes in, events come out.

Every dialect translates its words into these and back; the engine knows no others.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from app.services.stages import Stages

FinishReason = Literal["stop", "length", "tool_calls"]
FinishCause = Literal["end_token", "stop_string", "tool_call", "max_tokens", "context", "repetition", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfChoice:
    """What is said of one answer: `choice` counts the answers of a request that has several, from 0."""

    choice: int = 0


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


@dataclass(frozen=True, slots=True)
class ToolCall(OfChoice):
    """A call the model made, or one that a client gives back. `arguments` is JSON text, as on the wire.

    Of a call that is being made, ToolArguments bring more of them.
    """

    index: int
    id: str
    name: str
    arguments: str

    @property
    def values(self) -> dict[str, Any] | None:
        """The arguments as an object. None where they are none: cut off, or no JSON."""
        try:
            values = json.loads(self.arguments, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) else None

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are an object to its last brace, also one that is too deep or too large to be read."""
        try:
            return isinstance(json.loads(self.arguments, parse_int=float, parse_constant=_refuse), dict)
        except ValueError:
            return False
        except RecursionError:
            brackets = re.sub(r'"(?:[^"\\]|\\.)*"|[^{}\[\]]', "", self.arguments, flags=re.DOTALL)
            return 2 * sum(map(brackets.count, "{[")) == len(brackets)


@dataclass(frozen=True, slots=True)
class ToolArguments(OfChoice):
    """More of the arguments of the call with this index; nothing else is said between its pieces."""

    index: int
    text: str


# How calls are held to their tools where the model need not call: `lazy` by a grammar from where one begins.
ToolCallGrammar = Literal["lazy", "off"]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether and how the model calls its tools. All but the plain `auto` is enforced."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()  # of the tools that may be called; none named are all
    strict: frozenset[str] = frozenset()  # tools whose arguments have to match their schema, also where mode is auto
    parallel: bool = True  # more than one call in an answer
    param: str = "tool_choice"  # what asks for it


MOST_IMAGES = 64  # of one request


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a message, as it was sent; nothing of it is decoded yet."""

    source: str | bytes  # base64, bare or in a data URL; or a URL; or the file itself, once it is fetched
    param: str = "messages"  # where it stands in the request, for errors
    is_small: bool = False  # it may be made small, where that takes fewer tokens: `detail` of `low`
    is_required: bool = True  # a model that reads text only refuses it; else it answers without
    fetched: object = field(default=None, compare=False, repr=False)  # by which the bytes of a fetched file are counted


@dataclass(slots=True)
class ImageUse:
    """What became of the images of a request, for whoever made it."""

    seen: bool = False  # the model that answers sees them


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture whose header is checked, without its base64."""

    data: bytes
    digest: bytes  # of the data
    width: int  # pixels, as it is to be shown
    height: int
    param: str = "messages"
    fetched: object = field(default=None, compare=False, repr=False)  # that of the Image


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    parts: tuple[str | Image, ...] = ()  # the same for a model that sees, where there are images; `content` is text

    @property
    def images(self) -> tuple[Image, ...]:
        """Its pictures, in their order."""
        return tuple(part for part in self.parts if isinstance(part, Image))


SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. None means the model's own default.

    The bias is added to the logits; then come the samplers in their order, which is llama.cpp's unless a request has
    another. A sampler that is not named does nothing.
    """

    temperature: float | None = None
    top_k: int | None = None  # 0 keeps all
    top_p: float | None = None
    min_p: float | None = None
    xtc_probability: float = 0.0  # how often all but the least of the tokens over the threshold are left out
    xtc_threshold: float = 0.1
    seed: int | None = None  # None draws one, so equal prompts differ
    repetition_penalty: float | None = None  # divides positive logits, multiplies negative ones; 1 is off
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int | None = None  # last tokens of prompt and answer that count; None is the whole answer alone
    logit_bias: Mapping[int | str, float] = field(default_factory=dict)  # of a text: of all tokens that it is made of
    typical_p: float = 1.0
    top_n_sigma: float = -1.0  # 0 or less is off
    dynatemp_range: float = 0.0  # how far the temperature moves with the entropy
    dynatemp_exponent: float = 1.0
    min_keep: int = 0  # tokens that top_p, min_p, typical_p and XTC leave at least
    dry_multiplier: float = 0.0  # of what is taken off a token that goes on with a repetition; 0 is off
    dry_base: float = 1.75  # to the power of the repetition's length beyond the allowed one
    dry_allowed_length: int = 2
    dry_window: int | None = 64  # last tokens of prompt and answer that are looked at; None is all
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")  # no repetition reaches over them
    samplers: tuple[str, ...] = SAMPLERS

    @property
    def uses_dry(self) -> bool:
        """Whether DRY, which penalises repetitions, changes anything."""
        return self.dry_multiplier > 0 and self.dry_window != 0 and "dry" in self.samplers

    def over(self, defaults: "Sampling") -> "Sampling":
        """The same, with the value of `defaults` for each that is None here and has a default of the model's own."""
        undecided = [name for name in _MODEL_DEFAULTS if getattr(self, name) is None]
        return replace(self, **{name: getattr(defaults, name) for name in undecided})


_MODEL_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# llama.cpp's values of these; a model's generation_config.json may have others.
LLAMA_SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repetition_penalty=1.0)

WITHOUT_REASONING = {"enable_thinking": False}  # for a chat template


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer has to be, as a grammar. `param` is the parameter that asks for it."""

    kind: Literal["json_schema", "regex", "choice", "gbnf", "lark"]
    text: str  # a JSON schema, a pattern, a JSON list of strings, or a grammar
    param: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the answer is told. Nothing is computed by it; /slots shows it."""

    stream: bool = False
    timings_per_token: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Everything the engine needs for one answer: a conversation, or a `prompt` that goes past the chat template."""

    messages: tuple[Message, ...] = ()
    model: str | None = None  # who should answer, by any of its names
    prompt: tuple[str | int | Image, ...] | None = None  # text, token ids and pictures, in any order
    slot: int | None = None  # the place of the batch that it would like, if that is free
    suffix: str | None = None  # what follows the answer: the model fills in between the prompt and this
    tools: tuple[Mapping[str, Any], ...] = ()  # OpenAI function tools, as the chat template takes them
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continue_final_message: bool = False  # go on with the last assistant message instead of answering it
    generation_prompt: bool = True  # end the prompt with what begins an answer, where no message is gone on with
    sampling: Sampling = field(default_factory=Sampling)
    lora: Mapping[int, float] | None = None  # adapters by number, with how much each counts; None is the usual ones
    answers: int = 1  # to the same prompt, which is computed once
    max_tokens: int | None = None  # None is up to the context; 0 is prefill only
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    constraint: Constraint | None = None  # binds the answer, not the reasoning before it
    logprobs: int | None = None  # None is none; else how many alternatives each token comes with
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt, all of which are computed then
    post_sampling: bool = False  # whether log-probabilities are of what the samplers leave, not of what the model says
    thinking_budget: int | None = None  # tokens of reasoning, after which it is closed; None is no bound
    effort_budget: int | None = None  # the same for an effort, where the template has no levels of effort of its own
    tool_choice: ToolChoice = ToolChoice()
    tool_call_grammar: ToolCallGrammar | None = None  # None is the server's own way
    split_reasoning: bool = True  # False leaves the reasoning and its tags in the text
    delivery: Delivery = Delivery()
    image_use: ImageUse = field(default_factory=ImageUse, compare=False)

    @property
    def images(self) -> tuple[Image, ...]:
        """Its pictures, in their order: of the messages, or of the prompt."""
        of_messages = (image for message in self.messages for image in message.images)
        return (*of_messages, *(part for part in self.prompt or () if isinstance(part, Image)))

    @property
    def prompt_parts(self) -> tuple[str | int, ...]:
        """The texts and token ids of the prompt; markers stand for its pictures by the time that it is tokenized."""
        return tuple(part for part in self.prompt or () if not isinstance(part, Image))


Pooling = Literal["mean", "cls", "last", "max"]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts that are to become vectors, each of text and token ids in any order."""

    inputs: tuple[tuple[str | int, ...], ...]
    model: str | None = None  # who should answer, by any of its names
    pooling: Pooling | None = None  # over the last hidden states of a text; None is the model's own way
    dimensions: int | None = None  # that vectors are cut to; None is the model's own number
    prompt_name: str | None = None  # of the model's prompts, put before each text; None is the model's own way
    truncate: bool = False  # cut texts that are too long at their end, instead of refusing them


@dataclass(frozen=True, slots=True)
class RankRequest:
    """Documents that are to be ranked by how well each answers a query."""

    query: str
    documents: tuple[str, ...]
    model: str | None = None  # who should rank, by any of its names
    instruction: str | None = None  # what to look for, in words; encoders know none
    param: str = "documents"  # what the request calls them
    truncate: bool = False  # cut documents that are too long at their end, instead of refusing them


@dataclass(frozen=True, slots=True)
class Continuations:
    """Texts of which each might follow a prompt. None is empty."""

    prompt: GenerationRequest  # a conversation, or a prompt that goes past the chat template
    texts: tuple[str, ...]
    whole: bool = False  # whether the answer has to end there, which counts then; else more may follow
    param: str | None = None  # the longest field that it is made of


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """Prompts with continuations whose probabilities are wanted. What prompts begin with alike is computed once."""

    prompts: tuple[Continuations, ...]
    model: str | None = None  # who should answer, by any of its names


@dataclass(frozen=True, slots=True)
class PromptScores:
    """How likely the continuations of one prompt are, in their order."""

    prompt_tokens: int
    logprobs: tuple[tuple[float, ...], ...]  # natural logarithm of each token's probability after those before it

    @property
    def sums(self) -> list[float]:
        """The log-probability of each continuation as a whole."""
        return [sum(each) for each in self.logprobs]

    @property
    def means(self) -> list[float]:
        """The same per token, so that a long continuation may be as good as a short one."""
        return [sum(each) / len(each) for each in self.logprobs]


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a ScoringRequest."""

    model: str
    prompts: tuple[PromptScores, ...]
    prompt_tokens: int  # of all prompts and continuations; what several begin with counts once
    cached_tokens: int  # of those, the ones from the prefix cache


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went. Milliseconds on the engine's clock; the prompt's count leaves out what was cached."""

    cached_tokens: int
    prompt_tokens: int
    prompt_ms: float
    completion_tokens: int
    completion_ms: float
    first_token_ms: float  # from the acceptance of the request
    total_ms: float
    draft_tokens: int = 0  # proposed by speculative decoding
    accepted_tokens: int = 0  # of those, the ones that are in the answer

    @classmethod
    def together(cls, several: Sequence["Timings"], answers: int = 1) -> "Timings":
        """Sum up answers that were made side by side: tokens add, the longest time counts.

        They come in the order of their prompts, so many answers to each; a prompt counts once.
        """
        return cls(
            cached_tokens=sum(one.cached_tokens for one in several[::answers]),
            prompt_tokens=sum(one.prompt_tokens for one in several[::answers]),
            prompt_ms=max(one.prompt_ms for one in several),
            completion_tokens=sum(one.completion_tokens for one in several),
            completion_ms=max(one.completion_ms for one in several),
            first_token_ms=min(one.first_token_ms for one in several),
            total_ms=max(one.total_ms for one in several),
            draft_tokens=sum(one.draft_tokens for one in several),
            accepted_tokens=sum(one.accepted_tokens for one in several),
        )


@dataclass(frozen=True, slots=True)
class PromptChange:
    """Where a prompt departs from an earlier one, by the index of the token, and how the words begin that stand there.

    They are of a message of that role, or of the tools.
    """

    token: int
    role_before: str
    before: str
    role: str
    now: str


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How much of the prompt was known, and why not more: `first_diff` is the index of the first token that differs
    from the nearest prompt that is known."""

    cached_tokens: int
    reason: Literal["whole", "first_diff", "evicted", "not_stored", "other_model"]
    first_diff: int | None = None
    change: PromptChange | None = None  # since the nearest prompt that the same caller sent before


@dataclass(frozen=True, slots=True)
class Started(OfChoice):
    """The request is accepted and its prompt is about to be computed."""

    model: str
    prompt_tokens: int
    prompt: str = ""  # as text
    context_length: int = 0  # tokens
    defaults: Sampling = Sampling()  # what the model samples with where the request says nothing


@dataclass(frozen=True, slots=True)
class Progress(OfChoice):
    """So much of the prompt is computed; `done` counts the cached tokens too."""

    done: int
    total: int
    cached: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, natural logarithm, rounded: before penalties and temperature, unless it was asked for
    after all samplers. Then it is minus infinity for a token that none of them would have drawn."""

    token: int
    data: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()  # the most likely tokens instead, the best first


@dataclass(frozen=True, slots=True)
class PromptLogprobs(OfChoice):
    """How likely the tokens of the prompt are; the first has nothing before it that it could follow."""

    first: bytes
    logprobs: tuple[TokenLogprob, ...]  # of the others


@dataclass(frozen=True, slots=True)
class Text(OfChoice):
    """A piece of the answer."""

    text: str
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: tuple[int, ...] = ()  # that it is made of, without an end token


@dataclass(frozen=True, slots=True)
class Reasoning(OfChoice):
    """A piece of the model's reasoning."""

    text: str
    timings: Timings


@dataclass(frozen=True, slots=True)
class Finished(OfChoice):
    """The answer is whole. `stop` is the stop string that ended it, if one did."""

    reason: FinishReason
    stop: str | None
    timings: Timings
    cause: FinishCause = "end_token"
    cache: CacheUse = CacheUse(0, "not_stored")
    logprobs: tuple[TokenLogprob, ...] = ()  # of tokens without text, but not the end token
    stages: Stages | None = field(default=None, compare=False)  # when it came to each


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of an EmbeddingRequest."""

    model: str
    prompt_tokens: int  # of all inputs
    vectors: Any  # numpy, float32 (inputs, dimensions), as they are pooled


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer to a RankRequest."""

    model: str
    prompt_tokens: int  # of the query and the documents
    log_odds: tuple[float, ...]  # of each document; their logistic function is its relevance


Event = Started | Progress | PromptLogprobs | Text | Reasoning | ToolCall | ToolArguments | Finished


class Generation(Protocol):
    """An answer in the making, or several: read the events until every one is Finished, or cancel it."""

    @property
    def choices(self) -> int:
        """How many answers there will be."""

    async def ready(self) -> Sequence[Event]:
        """Wait for events and give all that have come; none after `wake`. Raises what ended the answer."""

    def wake(self) -> None:
        """Let a reader that waits go on without an event."""

    def cancel(self) -> None:
        """Stop within one engine step. Calling it again, or after the end, does nothing."""

    def end_reasoning(self) -> bool:
        """Have the model close its reasoning, if it is in it, and answer. False once the answer is over."""

    def note_readers(self, count: int) -> None:
        """Say how many read what is kept of it, where it goes on without a reader; one, until this is called."""


@dataclass(slots=True)
class Completion:
    """The whole answer: a fold over the events that a stream would send, onto what was there before."""

    started: Started | None = None
    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    prompt_logprobs: PromptLogprobs | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.started.model if self.started else ""

    def add(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case Started():
                self.started = event
            case PromptLogprobs():
                self.prompt_logprobs = event
            case Text():
                self.text += event.text
                self.logprobs.extend(event.logprobs)
            case Reasoning():
                self.reasoning += event.text
            case ToolCall():
                self.tool_calls.append(event)
            case ToolArguments():
                call = self.tool_calls[event.index]
                self.tool_calls[event.index] = replace(call, arguments=call.arguments + event.text)
            case Finished():
                self.finished = event
                self.logprobs.extend(event.logprobs)
            case Progress():
                pass
