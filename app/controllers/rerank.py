"""Documents ranked by how well they answer a query."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import header, result_of
from app.controllers.openapi import operation
from app.controllers.refusals import RANKING, body_refusals
from app.dto.llama.rerank import RankedDocument, RerankList, RerankRequest, tei_ranks
from app.services.model_service import ModelService

_ANSWER = {
    "object": "list",
    "model": "bge-reranker-v2-m3",
    "usage": {"prompt_tokens": 24, "total_tokens": 24},
    "results": [{"index": 1, "relevance_score": 0.97}, {"index": 0, "relevance_score": 0.01}],
}
_QUERY = {"query": "What is a panda?"}
_REQUESTS = [
    Example(summary="Documents", value=_QUERY | {"documents": ["hi", "It is a bear."], "top_n": 2}),
    Example(summary="TEI's words", value=_QUERY | {"texts": ["hi", "It is a bear."], "return_text": True}),
]


class RerankController(Controller):
    """Ranks."""

    tags = ["Embeddings"]
    opt = {"dialect": "llama.cpp"}

    @post(
        ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking", "/v2/rerank"],
        status_code=200,
        summary="Rank documents",
        operation_class=operation(_ANSWER, others={"with texts": [{"index": 1, "score": 0.97}]}),
        responses=body_refusals(*RANKING),
    )
    async def rerank_documents(
        self,
        data: Annotated[RerankRequest, Body(examples=_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> Response[RerankList | list[RankedDocument]]:
        """Rank documents with a model made for it, or with any that writes: how likely it says yes rather than no."""
        ranked = await result_of(model_service.rank(data.to_ranking()), request)
        reply = tei_ranks(ranked, data) if data.is_tei else RerankList.of(ranked, data)
        return Response(reply, headers=header(data.ignored))
