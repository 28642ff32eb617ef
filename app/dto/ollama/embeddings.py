"""Ollama's embeddings, in its new and in its old form."""

from typing import Annotated

from msgspec import Meta
from pydantic import Field

import app.services.generation as gen
from app.dto.ollama.answer import tagged
from app.dto.ollama.request import OllamaRequest
from app.dto.openai.embeddings import split_inputs, unit_length
from app.dto.shared import parameters
from app.dto.shared.base import Reply


class OllamaEmbedRequest(OllamaRequest):
    """Texts that are to become vectors."""

    registry = parameters.OLLAMA_EMBED

    input: str | list[str] = Field(default_factory=list, examples=["Hello world"])
    dimensions: int | None = Field(default=None, ge=1)
    truncate: bool = True

    @property
    def texts(self) -> list[str]:
        """The texts; none for the empty one, with which clients load a model."""
        return ([self.input] if self.input else []) if isinstance(self.input, str) else self.input

    def to_embedding(self) -> gen.EmbeddingRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        self.refuse()
        return gen.EmbeddingRequest(
            split_inputs(self.texts, "input"), self.model_name, None, self.dimensions, truncate=self.truncate
        )


class OllamaEmbeddingsRequest(OllamaRequest):
    """A text that is to become a vector, in the old form."""

    registry = parameters.OLLAMA_EMBEDDINGS

    prompt: str = Field(default="", examples=["Hello world"])

    def to_embedding(self) -> gen.EmbeddingRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        self.refuse()
        return gen.EmbeddingRequest(split_inputs(self.prompt, "prompt"), self.model_name)


class OllamaEmbedded(Reply, kw_only=True):
    """The vectors of all texts, in their order."""

    model: Annotated[str, Meta(description="name of the model, with its tag")]
    embeddings: Annotated[list[list[float]], Meta(description="a vector of length 1 for each text")]
    total_duration: Annotated[int, Meta(description="nanoseconds that it took")]
    load_duration: Annotated[int, Meta(description="always 0; Ollama's field")] = 0
    prompt_eval_count: Annotated[int, Meta(description="tokens of all texts")]

    @classmethod
    def of(cls, embedded: gen.Embedded | None, model: str, seconds: float) -> "OllamaEmbedded":
        """Build it from the vectors, if there were texts."""
        return cls(
            model=tagged(embedded.model if embedded else model),
            embeddings=unit_length(embedded.vectors).tolist() if embedded else [],
            total_duration=round(seconds * 1e9),
            prompt_eval_count=embedded.prompt_tokens if embedded else 0,
        )


class OllamaEmbedding(Reply, kw_only=True):
    """The vector of a text, in the old form: of any length."""

    embedding: Annotated[list[float], Meta(description="the vector, empty without a text")]

    @classmethod
    def of(cls, embedded: gen.Embedded | None) -> "OllamaEmbedding":
        """Build it from the vector, if there was a text."""
        return cls(embedding=embedded.vectors[0].tolist() if embedded else [])
