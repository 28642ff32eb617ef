"""Where thoughts end and answers begin, over HTTP: stop strings, marks in the middle, grammars."""

from typing import Any

import pytest

from tests.conftest import Server, said

pytestmark = pytest.mark.slow

THINKING: dict[str, Any] = {"temperature": 1, "max_tokens": 60, "thinking_budget_tokens": 12, "ignore_eos": True}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stop_strings_are_looked_for_in_the_answer_alone(server: Server, seed: int) -> None:
    asked = THINKING | {"seed": seed, "chat_template_kwargs": {"enable_thinking": True}}
    free = server.chat("Think", **asked).json()["choices"][0]["message"]
    thought, text = free["reasoning_content"], free["content"]
    stops = [*sorted(set(thought) & set(text)), "think", "</", ">"]
    assert len(stops) > 3
    for stop in stops[:: max(1, len(stops) // 6)]:
        bound = server.chat("Think", **asked, stop=[stop]).json()["choices"][0]["message"]
        assert (bound["reasoning_content"], bound["content"]) == (thought, text.partition(stop)[0])
        chunks = server.stream("Think", **asked, stop=[stop])
        assert (said(chunks, "reasoning_content"), said(chunks)) == (thought, text.partition(stop)[0])


def test_where_reasoning_is_not_split_off_they_are_looked_for_in_all(server: Server) -> None:
    asked = THINKING | {"seed": 1, "chat_template_kwargs": {"enable_thinking": True}, "reasoning_format": "none"}
    text = server.chat("Think", **asked).json()["choices"][0]["message"]["content"]
    stop = text[2:4]
    assert (
        server.chat("Think", **asked, stop=[stop]).json()["choices"][0]["message"]["content"] == text.partition(stop)[0]
    )


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(
    ("bound", "answers"),
    [
        ({"regex": "BEGIN <t(hink|qqqq)> AFTER END"}, ["BEGIN <think> AFTER END", "BEGIN <tqqqq> AFTER END"]),
        ({"regex": "<t(hin|qqq)k>[ab]"}, [f"<t{inner}k>{end}" for inner in ("hin", "qqq") for end in "ab"]),
        (
            {"regex": r"\{\"a\": \"x <(/think|tool_call)> y\"\}"},
            ['{"a": "x </think> y"}', '{"a": "x <tool_call> y"}'],
        ),
    ],
)
def test_under_a_grammar_a_mark_is_text(server: Server, bound: Any, answers: list[str], thinking: bool) -> None:
    how: dict[str, Any] = {"temperature": 1.2, "max_tokens": 200, "thinking_budget_tokens": 5}
    how |= {"chat_template_kwargs": {"enable_thinking": thinking}} | bound
    for seed in range(4):
        choice = server.chat("Say", **how, seed=seed).json()["choices"][0]
        if choice["finish_reason"] == "stop":
            assert choice["message"]["content"] in answers
        chunks = server.stream("Say", **how, seed=seed)
        assert said(chunks) == choice["message"]["content"]
        assert thinking or "reasoning_content" not in choice["message"]
