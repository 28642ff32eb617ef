"""What there is to know of a loaded model, in plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from app.services.context_length import ContextLength
from app.services.errors import FeatureNotSupported, InvalidRequest, NoEmbeddings
from app.services.generation import Delivery, EmbeddingRequest, Pooling, Sampling
from app.services.model_folder import Task


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """A LoRA adapter over a model."""

    number: int
    path: Path
    scale: float  # where a request says nothing


@dataclass(frozen=True, slots=True)
class Batching:
    """Why rows of a model are not computed together, in plain words; None where they are."""

    decoding: str | None = None  # why each is in a batch of its own; then prompts are computed one by one as well
    prefill: str | None = None  # why short prompts are not padded and computed in one call


@dataclass(frozen=True, slots=True)
class SentenceFacts:
    """How texts become vectors, as the model's own files have it."""

    size: int = 0  # of a vector; 0 if unknown
    pooling: Pooling = "mean"
    prompts: Mapping[str, str] = field(default_factory=dict)  # that may be put before a text, by name
    default_prompt: str | None = None  # the name of the one that stands before a text where a request names none

    def prompt(self, name: str | None) -> str:
        """Give what stands before each text. Raises InvalidRequest for a name that there is not."""
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if (prompt := self.prompts.get(name)) is None:
            names = ", ".join(sorted(self.prompts)) or "none"
            raise InvalidRequest(
                f"prompt_name: there is no {name[:100]!r}; this model has {names}", param="prompt_name"
            )
        return prompt

    def check(self, request: EmbeddingRequest) -> None:
        """Raise InvalidRequest for more dimensions than there are, or a prompt that there is not."""
        if self.size and request.dimensions is not None and request.dimensions > self.size:
            raise InvalidRequest(f"dimensions: this model's vectors have {self.size}", param="dimensions")
        self.prompt(request.prompt_name)


class KVBits(NamedTuple):
    """Bits that each number of older keys and values is rounded to in KV caches."""

    keys: int
    values: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of the model that answers, for /props and /v1/models."""

    id: str
    path: Path
    model_type: str
    context: ContextLength
    vocabulary: int  # width of the logits
    hidden_size: int
    parameters: int
    weight_bytes: int
    precision: str
    created: int  # Unix seconds
    chat_template: str
    bos_token: str
    eos_token: str
    end_tokens: frozenset[int]
    defaults: Sampling  # every value decided
    calls_tools: bool
    reasons: bool  # it can write down its reasoning before an answer
    max_rows: int
    sees: bool = False  # it reads images
    batching: Batching = Batching()
    blas: str | None = None  # that MLX computes with; None on a GPU
    kv_bits: KVBits | None = None  # None where nothing is rounded
    suppressed_tokens: frozenset[int] = frozenset()  # never drawn
    sentence: SentenceFacts = SentenceFacts()
    task: Task = "completion"  # what it was made for
    is_encoder: bool = False  # it writes no text
    machines: int = 1  # that serve it together
    warnings: tuple[str, ...] = ()  # sentences for whoever loads it: what of it is not as its files have it

    def check_tokens(self, parts: Iterable[str | int], param: str) -> None:
        """Raise InvalidRequest for a token id, among texts, that the model does not have."""
        for part in parts:
            if isinstance(part, int) and not 0 <= part < self.vocabulary:
                raise InvalidRequest(
                    f"{param}: {part} is no token of this model, which has {self.vocabulary}", param=param
                )

    def check_embedding(self, request: EmbeddingRequest) -> None:
        """Raise AppError for vectors that the model does not give."""
        if self.machines > 1:
            raise NoEmbeddings("This model is served by several machines, which give no vectors")
        self.sentence.check(request)

    def check_slot_files(self) -> None:
        """Raise FeatureNotSupported where no slot can be written to a file."""
        if self.machines > 1:
            raise FeatureNotSupported("This model is served by several machines, each of which has a part of a slot")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A GPU."""

    name: str
    total_bytes: int  # that may be used; where memory is shared, less than the machine has


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """Facts of a server with several models."""

    max_models: int  # in memory at the same time


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How an answer is made, every value decided."""

    sampling: Sampling = Sampling()
    ignore_eos: bool = False
    scales: tuple[float, ...] = ()  # of adapters, by their number
    logprobs: int | None = None
    post_sampling: bool = False
    delivery: Delivery = Delivery()


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A place of the batch: of an answer at work in it, or of what the last one left. Numbers count tokens."""

    id: int
    task: int | None = None  # counts the answers; None for a place that was never used
    processing: bool = False
    prompt_tokens: int = 0  # of the prompt; of all that was left, where nothing is at work
    prompt_done: int = 0  # computed, beyond what was cached
    cached: int = 0
    decoded: int = 0
    limit: int = 0  # of the answer
    settings: AnswerSettings = AnswerSettings()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One of the machines that serve a model together."""

    host: str  # as ssh reaches it
    state: Literal["waiting", "loading", "ready"]  # "waiting" until it has connected
    device: str = ""  # that it computes with
    free_bytes: int | None = None  # for KV caches; None of this machine


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """The machines that serve a model together, this one first."""

    sharding: Literal["tensor", "pipeline"] | None  # None until it is chosen
    back_end: str  # of MLX's collectives
    machines: tuple[MachineFacts, ...]
    lost: str | None = None  # why they serve no more

    @property
    def waits_for(self) -> str | None:
        """Name the machine that is waited for; None while none is."""
        for number, machine in enumerate(self.machines, 1):
            if machine.state == "waiting":
                return f"machine {number} of {len(self.machines)} ({machine.host})"
        return None
