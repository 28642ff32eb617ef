"""What Claude Code writes anew with every request, in the dialects that it may come in."""

from typing import Any

import pytest

from app.dto.anthropic.messages import MessagesRequest
from app.dto.openai.chat import ChatRequest
from app.dto.openai.responses import ResponsesRequest
from app.dto.shared.base import RequestLimits
from app.services.generation import Message

COUNTER = "<total_tokens>{} tokens left</total_tokens>"
RULES, USER, NEXT = Message("system", "Be brief."), Message("user", "Hi"), Message("user", "Go on.")
ANSWER = Message("assistant", "Hello.")


def counter(left: object = 5_000_000) -> str:
    return COUNTER.format(left)


def item(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def chat(*items: Any) -> tuple[Message, ...]:
    return ChatRequest.model_validate({"messages": list(items)}).to_generation(RequestLimits()).messages


def responses(*items: Any) -> tuple[Message, ...]:
    return ResponsesRequest.model_validate({"input": list(items)}).to_generation(RequestLimits()).messages


def anthropic(*items: Any, **more: Any) -> tuple[Message, ...]:
    body = {"messages": list(items)} | more
    return MessagesRequest.model_validate(body).to_generation(RequestLimits()).messages


DIALECTS = [chat, responses, anthropic]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text",
    [
        *(counter(), counter(0), counter("Infinite"), f"\n{counter(81_234)}\n"),
        f"<system-reminder>\n{counter(7)}\n</system-reminder>",
    ],
)
def test_a_message_that_only_counts_tokens_is_left_out(dialect: Any, text: str) -> None:
    count = {"role": "system", "content": text}
    turns = [item(RULES), count, item(USER), count, item(ANSWER), item(NEXT), count]
    assert dialect(*turns) == (RULES, USER, ANSWER, NEXT)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text", [f"You have {counter()}", f"{counter()}\nBe quick.", counter("many"), "<total_tokens>", "5 tokens left"]
)
def test_a_message_that_says_more_than_that_stays(dialect: Any, text: str) -> None:
    more = Message("system", text)
    assert dialect(item(USER), item(more)) == (USER, more)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_count_stays_where_the_user_wrote_it_or_nothing_else_is_there(dialect: Any) -> None:
    written, alone = Message("user", counter()), Message("system", counter())
    assert dialect(item(USER), item(ANSWER), item(written)) == (USER, ANSWER, written)
    assert dialect(item(alone)) == (alone,)
    assert dialect(item(USER), item(ANSWER), item(alone)) == (USER, ANSWER, alone), (
        "the answer is not to be gone on with"
    )


@pytest.mark.parametrize("dialect", [chat, responses])
def test_the_billing_line_is_dropped_in_every_dialect(dialect: Any) -> None:
    billed = Message("system", f"x-anthropic-billing-header: cch=12;\n\n{RULES.content}")
    assert dialect(item(billed), item(USER)) == (RULES, USER)


def test_a_count_among_the_blocks_of_a_message_is_left_out() -> None:
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "12 degrees"}
    count, more = ({"type": "text", "text": text} for text in (counter(), "Go on."))
    found = Message("tool", "12 degrees", tool_call_id="call_1")
    assert anthropic({"role": "user", "content": [result, count]}) == (found,)
    assert anthropic({"role": "user", "content": [count, result, more, count]}) == (found, NEXT)
    assert anthropic({"role": "user", "content": [count]}) == (Message("user", counter()),)
    assert anthropic(item(USER), system=[{"type": "text", "text": RULES.content}, count]) == (RULES, USER)
