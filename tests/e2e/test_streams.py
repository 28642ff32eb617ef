"""Answers that outlive the page that asked for them."""

import re

from playwright.sync_api import expect

from tests.conftest import Server
from tests.e2e.conftest import Visit
from tests.e2e.test_chat import SONG


def test_a_reload_in_the_middle_of_an_answer_loses_nothing(demo: Server, visit: Visit) -> None:
    person = visit(demo, customJson=SONG, max_tokens=3000)
    person.opens()
    person.writes("Hello")
    expect(person.text).to_have_text(re.compile("(tra la la, ){3}"))
    conversation = person.wire.chat.headers["x-conversation-id"]
    person.page.reload()
    expect(person.stop).to_be_visible()
    answer = person.reads()
    assert re.fullmatch("(tra la la, )+(tra ?)?(la ?)?(la,?)?", answer)
    assert len(person.wire.chats) == 1
    resumed = person.wire.last("/v1/stream", "GET")
    assert (resumed.status, resumed.query) == (200, f"conv_id={conversation}&from=0")
    assert resumed.said().strip() == answer
    assert resumed.events[-1]["timings"]["predicted_n"] == 3000


def test_stop_ends_the_stream_on_the_server_too(demo: Server, visit: Visit) -> None:
    person = visit(demo, customJson=SONG, max_tokens=4000)
    person.opens()
    person.writes("Hello")
    expect(person.text).to_have_text(re.compile("(tra la la, ){3}"))
    person.stop.click()
    person.waits_for_the_end()
    stopped = person.wire.last("/v1/stream", "DELETE")
    assert stopped.status == 204
    lookup = demo.client.post(
        "/v1/streams/lookup", json={"conversation_ids": [person.wire.chat.headers["x-conversation-id"]]}
    )
    assert [stream for stream in lookup.json() if not stream["is_done"]] == []
