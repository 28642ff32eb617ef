"""What the script of the agents' sessions makes of their requests."""

from typing import Any

import pytest

from app.services.generation import GenerationRequest, Message
from tests.agents.scripted_server import Script

TOOLS = ({"type": "function", "function": {"name": "read"}},)
SCRIPT = Script({"ask": ["A tile."], "read": [{"tool": "read", "arguments": {"path": "a"}}, "It says 42."]})
ASKED = (Message("system", "[read] is no turn here"), Message("user", "[ask] What is a tile?"))
ANSWERED = (*ASKED, Message("assistant", "A tile."), Message("user", "[read] And a?"))
CALL = '<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call>'


def request(*messages: Message, **more: Any) -> GenerationRequest:
    return GenerationRequest(messages=messages, **{"tools": TOOLS, **more})


@pytest.mark.parametrize(
    ("messages", "turn", "answer"),
    [
        (ASKED, "ask", "A tile."),
        (ANSWERED, "read", CALL),
        ((*ANSWERED, Message("assistant", ""), Message("tool", "42")), "read", "It says 42."),
        (
            (*ANSWERED, Message("assistant", ""), Message("tool", "[ask]"), Message("user", "<x/>")),
            "read",
            "It says 42.",
        ),
        ((*ANSWERED, Message("assistant", ""), Message("user", "Remember what was said")), None, "A title"),
        ((Message("user", "Hello"),), None, "A title"),
    ],
)
def test_the_turn_is_told_by_the_messages(messages: tuple[Message, ...], turn: str | None, answer: str) -> None:
    script = Script(SCRIPT.turns, otherwise="A title")
    assert script.turn(request(*messages)) == turn
    assert script.answer(turn, request(*messages)) == answer


def test_a_request_without_tools_is_of_no_turn_unless_the_program_has_none() -> None:
    assert SCRIPT.turn(request(*ASKED, tools=())) is None
    assert Script(SCRIPT.turns, has_tools=False).turn(request(*ASKED, tools=())) == "ask"
