"""Embeddings."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import header, result_of
from app.controllers.openapi import operation
from app.controllers.refusals import EMBEDDING, body_refusals
from app.dto.openai.embeddings import (
    EmbeddingList,
    EmbeddingsRequest,
    NativeEmbedding,
    NativeEmbeddingRequest,
    native_embeddings,
)
from app.services.model_service import ModelService

_ANSWER = {
    "object": "list",
    "model": "tiles-nano",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}
_NATIVE_ANSWER = [{"index": 0, "embedding": [[0.6, -0.8]]}]
_REQUESTS = [
    Example(summary="A text", value={"input": "Hello world"}),
    Example(summary="Several texts", value={"input": ["Hello world", "Good night"], "encoding_format": "base64"}),
    Example(summary="Token ids", value={"input": [355, 75, 330], "pooling": "last"}),
]
_NATIVE_REQUESTS = [Example(summary="A text", value={"content": "Hello world"})]
_REFUSALS = body_refusals(*EMBEDDING)


class EmbeddingsController(Controller):
    """Embeddings, as OpenAI has them."""

    tags = ["Embeddings"]
    opt = {"dialect": "OpenAI"}

    @post(
        "/v1/embeddings",
        status_code=200,
        summary="Create embeddings",
        operation_class=operation(_ANSWER),
        responses=_REFUSALS,
    )
    async def create_embeddings(
        self,
        data: Annotated[EmbeddingsRequest, Body(examples=_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> Response[EmbeddingList]:
        """Turn texts into vectors with the hidden states of the model that is served."""
        embedded = await result_of(model_service.embed(data.to_embedding()), request)
        return Response(EmbeddingList.of(embedded, data), headers=header(data.ignored))


class NativeEmbeddingsController(Controller):
    """Embeddings, as llama.cpp has them."""

    tags = ["Embeddings"]
    opt = {"dialect": "llama.cpp"}

    @post(
        ["/embedding", "/embeddings"],
        status_code=200,
        summary="Create embeddings as llama.cpp does",
        operation_class=operation(_NATIVE_ANSWER),
        responses=_REFUSALS,
    )
    async def create_native_embeddings(
        self,
        data: Annotated[NativeEmbeddingRequest, Body(examples=_NATIVE_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> Response[list[NativeEmbedding]]:
        """Turn texts into vectors; the answer is a list as llama.cpp's is."""
        embedded = await result_of(model_service.embed(data.to_embedding()), request)
        return Response(native_embeddings(embedded, data), headers=header(data.ignored))
