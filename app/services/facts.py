"""What there is to know of a loaded model, in plain values."""

from dataclasses import dataclass
from pathlib import Path

from app.services.context_length import ContextLength
from app.services.generation import Delivery, Pooling, Sampling


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
    pooling: Pooling  # of embeddings
    calls_tools: bool
    reasons: bool  # it can write down its reasoning before an answer
    max_rows: int
    batching: Batching = Batching()
    blas: str | None = None  # that MLX computes with; None on a GPU
    suppressed_tokens: frozenset[int] = frozenset()  # never drawn
    warnings: tuple[str, ...] = ()  # sentences for whoever loads it: what of it is not as its files have it


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
