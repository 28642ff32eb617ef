"""Whatever the document allows or forbids is asked of a real server: each answer is one that the document tells of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks

from app.application import create_app
from app.settings import Settings
from tests.conftest import Server, running

pytestmark = pytest.mark.slow
load_all_checks()

EXAMPLES = 12  # drawn for each operation, besides some hundred that go through its schema's borders
# 500, 501 and 502, and meant; an error of Ollama's routes is a text alone.
EXPECTED_FAILURES = {"model_load_failed", "feature_disabled", "download_failed", "estimate_failed"}
# Rules that no schema can say (a prompt that fits, an id that is there) refuse what a schema allows; and some of what
# a schema forbids is taken, as clients send it.
CHECKED = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
# Second addresses of operations that are asked by their first.
ALIASES = (
    "/models/sse",  # it has no end
    *("/chat/completions", "/completions", "/embedding", "/embeddings", "/v1/health", "/models"),
    *("/chat/completions/input_tokens", "/chat/completions/control", "/responses", "/responses/input_tokens"),
)
# Operations with some hundred fields and their kinds of values: of the cases at the borders every eighth is asked.
LARGE = (
    *("/v1/chat/completions", "/v1/chat/completions/input_tokens", "/apply-template"),
    *("/v1/completions", "/completion", "/infill", "/v1/messages", "/v1/messages/count_tokens"),
    *("/v1/responses", "/v1/responses/input_tokens"),
)
SHARE = 8


@pytest.fixture(scope="module")
def fuzzed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("fuzzed")
    with running(home, "--model", str(tiny), "--context-length", "64") as server:
        yield server
        assert server.errors() == []


# Its cases are made while tests are collected: tests/conftest.py leaves this file alone where slow tests are left out.
document = schemathesis.openapi.from_dict(create_app(Settings()).openapi_schema.to_schema())


def is_asked(case: schemathesis.Case) -> bool:
    """Whether a case belongs to the share of its operation's; the same ones in every run.

    With Anthropic's header lists of models and errors are Anthropic's, of which the document has an example alone.
    """
    if "anthropic-version" in case.headers:
        return False
    if case.path not in LARGE or case.meta is None or case.meta.phase.name.value != "coverage":
        return True
    sent = json.dumps([case.method, case.path, case.media_type, case.body], sort_keys=True, default=repr)
    return crc32(sent.encode()) % SHARE == 0


def is_expected(status: int, error: Any) -> bool:
    """Whether an answer that is the server's fault is one that is meant."""
    return status == 501 if isinstance(error, str) else error["code"] in EXPECTED_FAILURES


@document.exclude(path=list(ALIASES)).parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_every_answer_is_one_that_the_document_tells_of(case: schemathesis.Case, fuzzed: Server) -> None:
    if not is_asked(case):
        return
    answer = case.call(base_url=fuzzed.url, timeout=60)
    if answer.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return  # its schema is that of an event's data; tests/test_openapi.py holds those against it
    assert answer.status_code < 500 or is_expected(answer.status_code, answer.json()["error"])
    case.validate_response(answer, checks=[CHECKS.get_one(name) for name in CHECKED])
