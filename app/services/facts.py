"""What there is to know of a loaded model, in plain values."""

from dataclasses import dataclass
from pathlib import Path

from app.services.generation import Pooling, Sampling


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """A LoRA adapter over a model."""

    number: int
    path: Path
    scale: float  # where a request says nothing


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of the model that answers, for /props and /v1/models."""

    id: str
    path: Path
    model_type: str
    context_length: int  # tokens, capped by --context-length
    trained_context_length: int
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
    thinks: bool
    calls_tools: bool
    max_rows: int
