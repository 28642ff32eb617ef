"""What a conversation is after turns, relays and a full context; outcome messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.memory.conversation import Conversation
from app.services.memory.outcome import MOST_SHOWN, Outcome, shorten


def told(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages()]


def relayed() -> Conversation:
    conversation = Conversation()
    conversation.begin("", "one")
    conversation.answer("<python>a</python>")
    conversation.result(Outcome("{'a': 1}").message())
    conversation.answer("<reply>done</reply>")
    return conversation


def test_an_outcome_is_said_as_the_model_was_trained() -> None:
    assert Outcome("{'x': 1}").message() == "<result>\n{'x': 1}\n</result>"
    failed = Outcome("{'x': 1}", error="NameError: name 'y' is not defined")
    assert failed.message() == "<result>\n({'x': 1}, {NameError: name 'y' is not defined})\n</result>"


def test_a_long_outcome_is_cut_and_says_how_much() -> None:
    message = Outcome("x" * MOST_SHOWN, length=20_000).message()
    assert message.startswith("<result>\nxxx")
    assert message.endswith("\n[cut: 12,000 of 20,000 characters are not shown]\n</result>")
    whole = Outcome("x" * MOST_SHOWN).message()
    assert whole == "<result>\n" + "x" * MOST_SHOWN + "\n</result>"
    failed = Outcome("x" * MOST_SHOWN, length=20_000, error="ValueError: no").message()
    assert failed.endswith("{ValueError: no})\n</result>")
    assert len(Outcome(error="E" * 100_000).message()) < MOST_SHOWN


@given(st.text(max_size=300), st.integers(0, 300))
def test_shortening_keeps_the_tags_and_only_touches_results(text: str, most: int) -> None:
    short = shorten(f"<result>\n{text}\n</result>", most)
    assert short.startswith("<result>\n")
    assert short.endswith("\n</result>")
    assert len(short) <= len(text[:most]) + 90
    assert shorten(text, most) == text or text.startswith("<result>\n")


def test_a_reply_that_stands_in_an_answer_does_not_stand_twice() -> None:
    conversation = relayed()
    conversation.begin("done", "two")
    assert told(conversation)[-2:] == [("assistant", "<reply>done</reply>"), ("user", "two")]


def test_a_reply_that_the_server_does_not_know_is_added() -> None:
    conversation = Conversation()
    conversation.begin("", "one")
    conversation.answer("hm")
    conversation.begin("I am here", "two")
    assert told(conversation) == [("user", "one"), ("assistant", "hm\nI am here"), ("user", "two")]


def test_roles_alternate_whatever_happens() -> None:
    conversation = Conversation()
    conversation.result("<result>\n{}\n</result>")
    conversation.begin("", "one")
    assert told(conversation) == [("user", "<result>\n{}\n</result>\none")]


def test_old_turns_go_first_and_whole() -> None:
    conversation = relayed()
    conversation.begin("done", "two")
    conversation.answer("three")
    conversation.begin("", "four")
    assert conversation.shorten() == "turn dropped"
    assert told(conversation) == [("user", "two"), ("assistant", "three"), ("user", "four")]
    assert conversation.shorten() == "turn dropped"
    assert told(conversation) == [("user", "four")]
    assert conversation.shorten() is None


def test_the_newest_turn_is_cut_in_its_longest_result_and_then_loses_relays() -> None:
    conversation = Conversation()
    conversation.begin("", "one")
    for size in (1000, 4000):
        conversation.answer("<python>x</python>")
        conversation.result(Outcome("x" * size).message())
    assert conversation.shorten() == "result cut"
    lengths = [len(content) for role, content in told(conversation) if "<result>" in content]
    assert lengths[0] == 1019
    assert lengths[1] < 2200
    steps = []
    while step := conversation.shorten():
        steps.append(step)
    assert steps[-2:] == ["relay dropped", "relay dropped"]
    assert told(conversation) == [("user", "one")]


@pytest.mark.parametrize("turns", [1, 3])
def test_a_copy_grows_by_itself(turns: int) -> None:
    conversation = relayed()
    before = told(conversation)
    copy = conversation.copy()
    copy.result("x")
    copy.begin("", "y")
    assert told(conversation) == before
