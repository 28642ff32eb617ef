"""Embeddings, as OpenAI and llama.cpp spell them."""

import base64
from typing import Annotated, Any, Literal, cast

from msgspec import Meta
from pydantic import Field, model_validator

import app.services.generation as gen
from app.dto.openai.prompt import Prompt, split_prompts
from app.dto.shared import parameters
from app.dto.shared.base import Reply, RequestBody
from app.services.errors import InvalidRequest

_MOST_INPUTS = 2048


def split_inputs(texts: Any, param: str) -> tuple[tuple[str | int, ...], ...]:
    """Give the texts one by one. Raises AppError for too many, and for images."""
    inputs = split_prompts(texts, param, _MOST_INPUTS, f"{_MOST_INPUTS} texts")
    for part in (part for parts in inputs for part in parts if isinstance(part, gen.Image)):
        raise InvalidRequest("Text alone becomes a vector here, no image", param=part.param)
    return cast("tuple[tuple[str | int, ...], ...]", tuple(inputs))


def unit_length(vectors: Any) -> Any:
    """Give vectors (inputs, size) the length 1."""
    lengths = (vectors.astype(float) ** 2).sum(axis=1, keepdims=True) ** 0.5
    return (vectors / lengths.clip(min=1e-12)).astype(vectors.dtype)


class _Embedding(RequestBody):
    """What both dialects share."""

    model: str | None = None
    pooling: gen.Pooling | None = None
    embd_normalize: Literal[-1, 2] = 2
    prompt_name: str | None = None
    truncate: bool = False

    def to_request(self, texts: Prompt, param: str, dimensions: int | None = None) -> gen.EmbeddingRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        self.refuse()
        return gen.EmbeddingRequest(
            inputs=split_inputs(texts, param),
            model=self.model,
            pooling=self.pooling,
            dimensions=dimensions,
            prompt_name=self.prompt_name,
            truncate=self.truncate,
        )

    def normalize(self, vectors: Any) -> Any:
        """Give the vectors (inputs, size) the length that was asked for."""
        return vectors if self.embd_normalize == -1 else unit_length(vectors)


class EmbeddingsRequest(_Embedding):
    """Texts that are to become vectors, as OpenAI's clients ask for it."""

    registry = parameters.EMBEDDINGS

    input: Prompt = Field(examples=["Hello world"])
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)

    def to_embedding(self) -> gen.EmbeddingRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        return self.to_request(self.input, "input", self.dimensions)


class NativeEmbeddingRequest(_Embedding):
    """Texts that are to become vectors, as llama.cpp's clients ask for it."""

    registry = parameters.EMBEDDING

    content: Prompt | None = Field(default=None, examples=["Hello world"])
    input: Prompt | None = None

    @model_validator(mode="after")
    def _some_text(self) -> "NativeEmbeddingRequest":
        if self.content is None and self.input is None:
            raise ValueError("content: Field required")
        return self

    def to_embedding(self) -> gen.EmbeddingRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        if self.input is not None:
            return self.to_request(self.input, "input")
        assert self.content is not None
        return self.to_request(self.content, "content")


class EmbeddingUsage(Reply, kw_only=True):
    """Tokens of the texts."""

    prompt_tokens: Annotated[int, Meta(description="tokens of all texts")]
    total_tokens: Annotated[int, Meta(description="the same number")]


class EmbeddingItem(Reply, kw_only=True):
    """The vector of a text, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: Annotated[int, Meta(description="index of the text")]
    embedding: Annotated[list[float] | str, Meta(description="the vector: numbers, or base64 of little-endian float32")]


class EmbeddingList(Reply, kw_only=True):
    """The vectors of all texts, in their order."""

    object: Literal["list"] = "list"
    model: Annotated[str, Meta(description="id of the model")]
    data: Annotated[list[EmbeddingItem], Meta(description="the vectors, in the order of the texts")]
    usage: Annotated[EmbeddingUsage, Meta(description="tokens of the texts")]

    @classmethod
    def of(cls, embedded: gen.Embedded, request: EmbeddingsRequest) -> "EmbeddingList":
        """Build it from the vectors."""
        spell = _base64 if request.encoding_format == "base64" else _numbers
        vectors = request.normalize(embedded.vectors)
        return cls(
            model=embedded.model,
            data=[EmbeddingItem(index=index, embedding=spell(vector)) for index, vector in enumerate(vectors)],
            usage=EmbeddingUsage(prompt_tokens=embedded.prompt_tokens, total_tokens=embedded.prompt_tokens),
        )


class NativeEmbedding(Reply, kw_only=True):
    """The vector of a text, as llama.cpp says it: the only one of a list."""

    index: Annotated[int, Meta(description="index of the text")]
    embedding: Annotated[list[list[float]], Meta(description="a list that holds the vector")]


def native_embeddings(embedded: gen.Embedded, request: NativeEmbeddingRequest) -> list[NativeEmbedding]:
    """Build llama.cpp's reply from the vectors."""
    vectors = request.normalize(embedded.vectors)
    return [NativeEmbedding(index=index, embedding=[_numbers(vector)]) for index, vector in enumerate(vectors)]


def _numbers(vector: Any) -> list[float]:
    return [float(number) for number in vector.tolist()]


def _base64(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
