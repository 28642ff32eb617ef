"""One server with the demo model for all clients. They run in `nox -s clients`, not every day."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.clients)


@pytest.fixture(autouse=True)
def unclosed_connections() -> Iterator[None]:
    """Some clients leave their connections to the collection of garbage: it comes here, and not in somebody's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def forced(demo: Server) -> Server:
    """The same server, where it can make the model call a tool."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    answer: httpx.Response = demo.chat("Hello", tools=[tool], tool_choice="required", max_tokens=40)
    if answer.status_code != 200:
        pytest.skip(f"no tool can be required: {answer.json()['error']['message']}")
    return demo
