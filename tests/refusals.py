"""Errors in the one envelope, and the smallest body of each route."""

import re
from typing import Any

import httpx

from tests.routes import BODIES

CHAT = "/v1/chat/completions"

USER = {"role": "user", "content": "Hi"}

KINDS = {
    400: {"invalid_request_error", "exceed_context_size_error"},
    401: {"authentication_error"},
    403: {"permission_error"},
    404: {"not_found_error"},
    405: {"invalid_request_error"},
    408: {"invalid_request_error"},
    413: {"invalid_request_error"},
    414: {"invalid_request_error"},
    415: {"invalid_request_error"},
    422: {"invalid_request_error"},
    431: {"invalid_request_error"},
    500: {"server_error"},
    501: {"not_supported_error"},
    502: {"server_error"},
    503: {"unavailable_error"},
    507: {"server_error"},
}


def error_of(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    """The error of a refusal, whose envelope has to be right."""
    assert answer.status_code in statuses, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) - {"n_prompt_tokens", "n_ctx"} == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) < 1000
    assert error["type"] in KINDS[answer.status_code]
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert not re.search(r"Traceback|\.py\b|0x[0-9a-f]{6}|pydantic|litestar|msgspec", answer.text)
    return error


BASES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER], "max_tokens": 1},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
    "/completion": {"prompt": "Hi", "n_predict": 1},
    "/infill": {"input_prefix": "Hi", "input_suffix": "!", "n_predict": 1},
    "/tokenize": {"content": "Hi"},
    "/detokenize": {"tokens": [1]},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/decisions": {"input": "Hi", "questions": [{"type": "predicate", "instructions": "It is"}]},
    "/v1/systemone": {"state": "Hi", "questions": {"q": {"type": "noul", "instructions": "Is it?"}}},
    "/embedding": {"content": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["Hi"]},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1, "store": False},
}


# Of routes whose parameters stand in no registry.
_OTHERS = {"/v1/warmup": {"model": "any"}, "/v1/estimate": {"model": "any"}}


def minimal(route: str) -> dict[str, Any]:
    """A body that a route takes."""
    return next(base for first, base in (BASES | _OTHERS).items() if BODIES[first] is BODIES[route])
