"""Documents ranked: by the head of an encoder, or by how much rather a model that writes says yes than no."""

from dataclasses import replace

from app.services.errors import PromptTooLong
from app.services.facts import ModelFacts
from app.services.generation import (
    WITHOUT_REASONING,
    Continuations,
    GenerationRequest,
    Message,
    Ranked,
    RankRequest,
    Scored,
    ScoringRequest,
)
from app.services.served_model import ServedModel

_ANSWERS = ("yes", "no")
_QUESTION = "Given a web search query, retrieve relevant passages that answer the query"  # that Qwen3-Reranker knows
_MADE_FOR_IT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {}\n<Query>: {}'
    "\n<Document>: {}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_SLACK = 64  # tokens that a chat template may add
_SYSTEM = "You judge whether a document answers a query. Your whole answer is one word: yes or no."


async def rank(request: RankRequest, model: ServedModel) -> Ranked:
    """Say how well documents answer a query: by a model's head, or by what it writes. Raises AppError."""
    if model.facts.is_encoder:
        numbers = await model.compute(lambda engine, caller: engine.rank(request, caller))
        return Ranked(numbers.model, numbers.prompt_tokens, tuple(map(float, numbers.vectors[:, 0])))
    if request.truncate:
        request = await cut(request, model)
    scoring = scoring_request(request, model.facts)
    try:
        return ranked(await model.compute(lambda engine, caller: engine.score(scoring, caller)))
    except PromptTooLong as error:
        raise too_long(error, request) from None


def scoring_request(request: RankRequest, facts: ModelFacts) -> ScoringRequest:
    """Ask of each document whether it answers the query. What comes before the document is computed once."""
    prompt = _reranker_prompt if facts.task == "rerank" else _chat_prompt
    continuations = (Continuations(prompt(request, document), _ANSWERS) for document in request.documents)
    return ScoringRequest(tuple(continuations), request.model)


async def cut(request: RankRequest, model: ServedModel) -> RankRequest:
    """Cut documents at their end so that each fits behind the query."""
    around = f"{_MADE_FOR_IT}{_SYSTEM}{request.instruction or _QUESTION}{request.query}"
    used = len(await model.tokenize((around,), special=True)) + _SLACK
    most = max(1, model.facts.context.tokens - used)
    documents = list(request.documents)
    for index, document in enumerate(documents):
        if len(document) > most:  # else it has no more tokens than that, but for rare characters
            tokens = await model.tokenize((document,), special=False)
            if len(tokens) > most:
                documents[index] = await model.detokenize([token for token, _ in tokens[:most]])
    return replace(request, documents=tuple(documents))


def too_long(error: PromptTooLong, request: RankRequest) -> PromptTooLong:
    """Name the text of a request that is too long: the longest of all."""
    index = max(range(len(request.documents)), key=lambda index: len(request.documents[index]))
    is_query = len(request.query) > len(request.documents[index])
    return error.naming("query" if is_query else f"{request.param}[{index}]")


def ranked(scored: Scored) -> Ranked:
    """Give the log-odds of yes against no, of each document."""
    pairs = (prompt.sums for prompt in scored.prompts)
    return Ranked(scored.model, scored.prompt_tokens, tuple(yes - no for yes, no in pairs))


def _reranker_prompt(request: RankRequest, document: str) -> GenerationRequest:
    """Write what Qwen3-Reranker was trained with."""
    return GenerationRequest(
        prompt=(_MADE_FOR_IT.format(request.instruction or _QUESTION, request.query, document),), max_tokens=0
    )


def _chat_prompt(request: RankRequest, document: str) -> GenerationRequest:
    system = f"{_SYSTEM} {request.instruction}" if request.instruction else _SYSTEM
    question = f"Query: {request.query}\n\nDocument: {document}\n\nDoes the document answer the query? Say yes or no."
    return GenerationRequest(
        messages=(Message("system", system), Message("user", question)),
        template_kwargs=WITHOUT_REASONING,
        max_tokens=0,
    )
