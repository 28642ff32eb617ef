"""The evaluation: items are asked of a server as they were trained, and every row of the table is there."""

from collections.abc import Iterator

import httpx
import pytest

from demo_model.evaluate import as_markdown, table
from demo_model.items import CATEGORIES, all_items
from demo_model.served import answers, request, serving
from demo_model.template import FOLDER, Template

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(FOLDER) as client:
        yield client


def test_the_server_renders_items_as_they_are_trained(client: httpx.Client) -> None:
    template = Template()
    for item in all_items(0.1):
        messages = [message.as_dict() for message in item.messages]
        options = {"add_generation_prompt": True, "enable_thinking": item.thinking}
        answer = client.post("/apply-template", json=request(item))
        assert answer.json()["prompt"] == template.prompt(messages, item.tools, **options)


def test_every_row_of_the_table_is_asked_and_judged(client: httpx.Client) -> None:
    items = all_items(0.01)
    free, held = answers(client, items, "off"), answers(client, [item for item in items if item.tools], "lazy")
    rows = {row.name: row for row in table(free, held)}
    assert rows.keys() > {category.name for category in CATEGORIES}
    assert all(row.count for row in rows.values())
    with_tools = {item.category for item in items if item.tools}
    assert {name for name, row in rows.items() if row.held is not None} == with_tools
    assert rows["greetings and self-description"].score == 1
    assert as_markdown(list(rows.values())).count("\n") == len(rows) + 1
