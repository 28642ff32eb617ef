"""Documents to rank, as llama-server, Jina, Cohere and text-embeddings-inference (TEI) spell it."""

import math
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field, model_validator

from app.dto.shared import parameters
from app.dto.shared.base import Body, Reply, RequestBody
from app.services.errors import InvalidRequest
from app.services.generation import Ranked, RankRequest

_MOST_DOCUMENTS = 2048


class RerankDocument(Body):
    """A document as an object."""

    text: str = Field(description="the text")


class RerankRequest(RequestBody):
    """A query, and the documents that are to be ranked by how well each answers it."""

    registry = parameters.RERANK

    query: str = Field(examples=["What is a panda?"])
    documents: list[str | RerankDocument] | None = Field(default=None, examples=[["hi", "It is a bear."]])
    texts: list[str] | None = None
    model: str | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False
    return_text: bool = False
    raw_scores: bool = False
    instruction: str | None = None
    truncate: bool = False

    @model_validator(mode="after")
    def _some_documents(self) -> "RerankRequest":
        if self.documents is None and self.texts is None:
            raise ValueError("documents: Field required")
        return self

    @property
    def is_tei(self) -> bool:
        """Whether the answer is a list, as TEI has it."""
        return self.documents is None

    def to_ranking(self) -> RankRequest:
        """Translate to the engine's vocabulary. Raises InvalidRequest for no documents, or too many."""
        self.refuse()
        param = "texts" if self.is_tei else "documents"
        documents = tuple(one if isinstance(one, str) else one.text for one in self.documents or self.texts or ())
        if not documents:
            raise InvalidRequest(f"{param}: there is none in the list", param=param)
        if len(documents) > _MOST_DOCUMENTS:
            raise InvalidRequest(f"{param}: more than {_MOST_DOCUMENTS}; send fewer at a time", param=param)
        if not self.query.strip():
            raise InvalidRequest("query: an empty text asks for nothing", param="query")
        if empty := [index for index, document in enumerate(documents) if not document.strip()]:
            raise InvalidRequest(f"{param}[{empty[0]}]: the document is empty", param=f"{param}[{empty[0]}]")
        return RankRequest(self.query, documents, self.model, self.instruction, param, truncate=self.truncate)

    def scores(self, ranked: Ranked) -> list[tuple[int, float]]:
        """Give the documents by index with their scores, the best first, as many as are wanted."""
        scores = [score if self.raw_scores else _relevance(score) for score in ranked.log_odds]
        order = sorted(range(len(scores)), key=lambda index: -ranked.log_odds[index])
        return [(index, scores[index]) for index in order[: self.top_n]]

    def text(self, index: int) -> str:
        """Give a document."""
        document = (self.documents or self.texts or ())[index]
        return document if isinstance(document, str) else document.text


class RerankUsage(Reply, kw_only=True):
    """Tokens of the request."""

    prompt_tokens: Annotated[int, Meta(description="tokens that were read: of query and documents")]
    total_tokens: Annotated[int, Meta(description="the same number")]


class RankedText(Reply, kw_only=True):
    """A document of the request."""

    text: Annotated[str, Meta(description="the text")]


class RerankResult(Reply, kw_only=True):
    """How well a document answers the query."""

    index: Annotated[int, Meta(description="index of the document in the request")]
    relevance_score: Annotated[float, Meta(description="0 to 1; with raw_scores, any number")]
    document: Annotated[RankedText | UnsetType, Meta(description="the document, with return_documents")] = UNSET


class RerankList(Reply, kw_only=True):
    """The documents, the best first."""

    object: Literal["list"] = "list"
    model: Annotated[str, Meta(description="id of the model")]
    usage: Annotated[RerankUsage, Meta(description="tokens of the request")]
    results: Annotated[list[RerankResult], Meta(description="the documents, the best first")]

    @classmethod
    def of(cls, ranked: Ranked, request: RerankRequest) -> "RerankList":
        """Build it from the log-odds."""
        results = [
            RerankResult(
                index=index,
                relevance_score=score,
                document=RankedText(text=request.text(index)) if request.return_documents else UNSET,
            )
            for index, score in request.scores(ranked)
        ]
        usage = RerankUsage(prompt_tokens=ranked.prompt_tokens, total_tokens=ranked.prompt_tokens)
        return cls(model=ranked.model, usage=usage, results=results)


class RankedDocument(Reply, kw_only=True):
    """How well a document answers the query, in TEI's words."""

    index: Annotated[int, Meta(description="index of the text in the request")]
    score: Annotated[float, Meta(description="0 to 1; with raw_scores, any number")]
    text: Annotated[str | UnsetType, Meta(description="the text, with return_text")] = UNSET


def tei_ranks(ranked: Ranked, request: RerankRequest) -> list[RankedDocument]:
    """Build TEI's reply from the log-odds."""
    return [
        RankedDocument(index=index, score=score, text=request.text(index) if request.return_text else UNSET)
        for index, score in request.scores(ranked)
    ]


def _relevance(log_odds: float) -> float:
    """Give the logistic function of a number of any size."""
    odds: Any = math.exp(-abs(log_odds))
    return float(1 / (1 + odds) if log_odds >= 0 else odds / (1 + odds))
