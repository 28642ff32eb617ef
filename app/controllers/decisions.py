"""Questions whose answers are probabilities, as OpenAI and llama-server have them."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import header, result_of
from app.controllers.openapi import operation
from app.controllers.refusals import DECISION, IMAGE, body_refusals
from app.dto.llama.systemone import SystemOneReply, SystemOneRequest
from app.dto.openai.decisions import Decision, DecisionRequest
from app.services.errors import FeatureNotSupported, ReadsTextOnly
from app.services.model_service import ModelService
from app.settings import Settings

_STATE = "I was charged twice for my order last week, and nobody has replied."
_REQUESTS = [
    Example(
        summary="A predicate, a choice and a score",
        value={
            "input": _STATE,
            "questions": [
                {"type": "predicate", "name": "angry", "instructions": "The customer is angry."},
                {
                    "type": "choice",
                    "instructions": "Which team should handle this?",
                    "choices": [{"value": "billing", "description": "payments and refunds"}, {"value": "shipping"}],
                },
                {
                    "type": "score",
                    "instructions": "How urgent is this?",
                    "levels": [{"label": "can wait"}, {"label": "today"}],
                },
            ],
        },
    )
]
_ANSWER = {
    "model": "tiles-nano",
    "answers": [
        {"type": "predicate", "name": "angry", "probability": 0.83},
        {
            "type": "choice",
            "name": None,
            "choice": "billing",
            "confidence": 0.9,
            "probabilities": [{"value": "billing", "probability": 0.95}, {"value": "shipping", "probability": 0.05}],
        },
        {
            "type": "score",
            "name": None,
            "score": 0.75,
            "confidence": 0.5,
            "probabilities": [
                {"label": "can wait", "value": 0, "probability": 0.25},
                {"label": "today", "value": 1, "probability": 0.75},
            ],
        },
    ],
    "usage": {
        "input_tokens": 131,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 131,
    },
}
_SYSTEM_ONE_REQUESTS = [
    Example(
        summary="A choice, a score and a noul",
        value={
            "state": _STATE,
            "questions": {
                "route": {
                    "type": "choice",
                    "instructions": "Which team should handle this?",
                    "criteria": {"billing": "payments and refunds", "shipping": None},
                },
                "urgency": {
                    "type": "score",
                    "instructions": "How urgent is this?",
                    "criteria": ["can wait", "today"],
                },
                "angry": {"type": "noul", "instructions": "Is the customer angry?"},
            },
        },
    )
]
_SYSTEM_ONE_ANSWER = {
    "model": "tiles-nano",
    "answers": {
        "route": {
            "type": "choice",
            "choice": "billing",
            "probabilities": {"billing": 0.95, "shipping": 0.05},
            "confidence": 0.9,
        },
        "urgency": {
            "type": "score",
            "score": 0.75,
            "legend": {"0": "can wait", "1": "today"},
            "probabilities": {"0": 0.25, "1": 0.75},
            "confidence": 0.5,
        },
        "angry": {"type": "noul", "noul": 0.83},
    },
    "usage": {"input_tokens": 201, "output_tokens": 0},
}


class DecisionsController(Controller):
    """Decisions, as OpenAI has them."""

    tags = ["Decisions"]
    opt = {"dialect": "OpenAI"}

    @post(
        "/v1/decisions",
        status_code=200,
        summary="Answer questions with probabilities",
        operation_class=operation(_ANSWER),
        responses=body_refusals(*DECISION, IMAGE),
    )
    async def decide(
        self,
        data: Annotated[DecisionRequest, Body(examples=_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
    ) -> Response[Decision]:
        """Say how likely the answers to questions about an input are. Nothing is generated; any model can do it."""
        scored = await result_of(model_service.score(data.to_scoring()), request)
        return Response(Decision.of(scored, data, settings.decision_temperature), headers=header(data.ignored))


class SystemOneController(Controller):
    """Decisions, as llama-server has them."""

    tags = ["Decisions"]
    opt = {"dialect": "llama.cpp"}

    @post(
        "/v1/systemone",
        status_code=200,
        summary="Answer typed questions as llama-server does",
        operation_class=operation(_SYSTEM_ONE_ANSWER),
        responses=body_refusals(
            *DECISION, IMAGE, FeatureNotSupported("This model reads text only, it cannot take images")
        ),
    )
    async def decide_as_system_one(
        self,
        data: Annotated[SystemOneRequest, Body(examples=_SYSTEM_ONE_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
    ) -> Response[SystemOneReply]:
        """Say how likely the answers to questions about a state are. Nothing is generated; any model can do it."""
        try:
            scored = await result_of(model_service.score(data.to_scoring()), request)
        except ReadsTextOnly as error:  # a 501, as llama-server has it
            raise FeatureNotSupported(error.message) from None
        return Response(SystemOneReply.of(scored, data, settings.decision_temperature), headers=header(data.ignored))
