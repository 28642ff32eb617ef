"""The errors that the OpenAPI document tells of, and a look whether an answer is one of them."""

import re
from typing import Any

import httpx

from app.services.errors import every_error

CODES = {error.code for error in every_error()}
# What is refused before a route is known, and so stands in no operation.
WITHOUT_ROUTE = {"invalid_http", "url_too_long", "headers_too_large"}


def codes(response: dict[str, Any]) -> set[str | None]:
    """The codes in the examples of a documented error."""
    examples = response["content"]["application/json"]["examples"].values()
    errors = (example["value"]["error"] for example in examples)
    return {error.get("code") for error in errors if isinstance(error, dict)}  # Ollama's are bare sentences


def check(answer: httpx.Response) -> None:
    """Fail for an error that the document does not tell of, of an operation that it tells of."""
    if answer.status_code < 400 or not answer.headers.get("content-type", "").startswith("application/json"):
        return
    if not answer.read():  # of HEAD
        return
    body = answer.json()
    code = body["error"].get("code") if isinstance(body, dict) and isinstance(body.get("error"), dict) else None
    assert code is None or code in CODES, code
    operation = _operation(answer.request.method.lower(), answer.request.url.path)
    if operation is None or code in WITHOUT_ROUTE or answer.status_code in {405, 414, 431}:
        return
    documented = operation["responses"].get(str(answer.status_code))
    assert documented is not None, f"{answer.request.method} {answer.request.url.path} answers {answer.text[:500]}"
    assert code is None or code in codes(documented), f"{answer.request.url.path} answers {answer.text[:500]}"


def _document() -> dict[str, Any]:
    """The document, made when it is first needed: most runs of few tests see no error."""
    from tests.document import DOCUMENT

    return DOCUMENT


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for template, operations in _document()["paths"].items():
        if method in operations and re.fullmatch(re.sub(r"\{[a-z_]+\}", "[^/]+", template), path):
            operation: dict[str, Any] = operations[method]
            return operation
    return None
