"""The prompt of a turn begins with the prompt and the answer of the turn before, whatever a client makes of the answer.

TILES_TEST_TEMPLATES names a folder of chat templates, such as models/templates of llama.cpp's sources.
"""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx_lm import tokenizer_utils

from app.services.context_length import ContextLength
from app.services.engine.model import answer_history
from app.services.engine.model.answer_history import AnswerHistory
from app.services.engine.output.detokenizer import detokenizer_factory
from app.services.engine.output.markup import Markup
from app.services.engine.prompt import Prompt, PromptBuilder
from app.services.errors import InvalidRequest
from app.services.generation import GenerationRequest, Message, ToolCall
from tests.engine.families import Family, byte_tokenizer

FOLDER = Path(os.environ.get("TILES_TEST_TEMPLATES") or "/nowhere")
TILES_NANO = Path(__file__).parents[2] / "app" / "tiles_nano"
LARGE = ContextLength(10**6, 10**6, "a test")
MARKER = re.compile(r"<[|｜]?[\w:/▁ -]+[|｜]?>|\[/?[A-Z_]+\]")  # noqa: RUF001
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "number"}}}
TOOLS = ({"type": "function", "function": {"name": "look_up", "description": "Looks.", "parameters": CITY}},)
# Reasoning is written where it belongs to the last question, and dropped once another is asked.
THINKING = """\
{%- if tools %}{{ '<|im_start|>system\\n<tools>' + tools | tojson + '</tools>' }}
{{- '<tool_call>{"name": <name>, "arguments": <arguments>}</tool_call><|im_end|>\\n' }}{% endif -%}
{%- set ns = namespace(last=0) -%}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and loop.index0 > ns.last and message.reasoning_content -%}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message.content -}}
{%- for call in message.tool_calls or [] -%}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- call.function.arguments | tojson + '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
TEMPLATES = {"thinking": THINKING, "demo": (TILES_NANO / "chat_template.jinja").read_text()}


class Conversation:
    """A model whose answers are written here token by token, and a client that gives them back in its own way."""

    def __init__(self, tokenizer: Any, ends: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.markup = Markup.of(tokenizer)
        known = {tokenizer.convert_tokens_to_ids(end) for end in ends} - {None}
        self.end_tokens = self.markup.end_tokens(tokenizer) | known
        detokenizer = detokenizer_factory(tokenizer, self.markup.markers())
        self._make_history = lambda: AnswerHistory(tokenizer, self.markup, detokenizer, frozenset(self.end_tokens))
        self.restart()
        self.plain = PromptBuilder(tokenizer, self.markup.think_start, LARGE)
        self.messages: tuple[Message, ...] = (Message("system", "Be brief."), Message("user", "Question"))

    def restart(self, *computed: Sequence[int]) -> None:
        """Go on with a history that knows only what is kept with these sequences of tokens."""
        history = self._make_history()
        for tokens in computed:
            array = np.array(tokens, np.int32)
            history.load(array, self.history.save(array))
            history.load(array, saved := history.save(array))
            assert history.save(array) == saved, "nothing is doubled"
        self.history = history
        self.prompts = PromptBuilder(self.tokenizer, self.markup.think_start, LARGE, answers=history)

    def build(self, *more: Message, plain: bool = False) -> Prompt:
        builder = self.plain if plain else self.prompts
        return builder.build(GenerationRequest(messages=(*self.messages, *more), tools=TOOLS))

    def written(self, message: Message, following: Message) -> str | None:
        """What the template writes between the prompt and the end of this answer; None if it changes the prompt."""
        prompt, text = self.build(plain=True).text, self.build(message, following, plain=True).text
        ends = [self.tokenizer.convert_ids_to_tokens(end) for end in self.end_tokens]
        places = [at for end in ends if (at := text.find(end, len(prompt))) >= 0]
        return text[len(prompt) : min(places)] if text.startswith(prompt) and places else None

    def answer(self, tokens: Sequence[int], message: Message, following: Message) -> bool:
        """Answer with tokens, which a client reads as this message; whether they are in the next prompt as they are."""
        prompt = self.build()
        answer: list[int] = []
        self.prompts.remember(prompt, [answer])
        answer += [*tokens, min(self.end_tokens)]  # while it is computed
        following_tokens = self.build(message, following).tokens
        self.messages += (message, following)
        return following_tokens[: len(prompt.tokens) + len(tokens)] == [*prompt.tokens, *tokens]

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def call(number: int, **arguments: Any) -> ToolCall:
    return ToolCall(0, f"callabcd{number}", "look_up", json.dumps(arguments, ensure_ascii=False))


def result(number: int) -> Message:
    return Message("tool", f"Sunny {number}", tool_call_id=f"callabcd{number}")


def conversation(folder: Path, template: str, ends: Sequence[str] = ("<|im_end|>",)) -> Conversation:
    markers = tuple(dict.fromkeys((*MARKER.findall(template), *ends)))
    return Conversation(byte_tokenizer(folder, Family(None, template), markers), ends)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Conversation]:
    return lambda name: conversation(tmp_path, TEMPLATES[name])


CALLS = {
    "no spaces": '<tool_call>{"name":"look_up","arguments":{"city":"Zürich","days":3}}</tool_call>',
    "another order": '<tool_call>\n{"arguments": {"days": 3, "city": "Zürich"}, "name": "look_up"}\n</tool_call>',
    "days first": '<tool_call>\n{"name": "look_up", "arguments": {"days": 3, "city": "Zürich"}}\n</tool_call>',
    "escapes": '<tool_call>\n{"name": "look_up", "arguments": {"city": "Z\\u00fcrich", "days": 3}}\n</tool_call>',
    "a fraction": '<tool_call>\n{"name": "look_up", "arguments": {"city": "Zürich", "days": 3.0}}\n</tool_call>',
    "lines": '<tool_call>\n{\n "name": "look_up",\n "arguments": {\n  "city": "Zürich", "days": 3}\n}\n</tool_call>\n',
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("text", ["", "Let me see.", "Let me see.\n\n"])
@pytest.mark.parametrize("written", CALLS.values(), ids=CALLS)
def test_a_call_is_in_the_next_prompt_as_the_model_wrote_it(
    make: Callable[[str], Conversation], name: str, text: str, written: str
) -> None:
    one = make(name)
    back = Message("assistant", text.strip(), tool_calls=(call(0, city="Zürich", days=3),))
    assert one.answer(one.tokens(text + written), back, result(0))
    assert one.answer(one.tokens(" Sunny.\n"), Message("assistant", "Sunny."), Message("user", "And then?"))
    assert one.answer(one.tokens("Rain."), Message("assistant", "Rain."), Message("user", "And then?"))
    assert one.build().text.count(text + written) == 1


CHANGED = [
    Message("assistant", tool_calls=(call(0, city="Bern", days=3),)),
    Message("assistant", tool_calls=(call(0, city="Zürich", days=True),)),
    Message("assistant", tool_calls=(call(0, city="Zürich", days="3"),)),
    Message("assistant", tool_calls=(call(0, city="Zürich"),)),
    Message("assistant", "Well.", tool_calls=(call(0, city="Zürich", days=3),)),
    Message("assistant", tool_calls=(call(0, city="Zürich", days=3), call(1, city="Bern", days=3))),
    Message("assistant", "Zürich"),
]


@pytest.mark.parametrize("changed", CHANGED)
def test_what_a_client_changes_is_changed(make: Callable[[str], Conversation], changed: Message) -> None:
    one = make("demo")
    assert not one.answer(one.tokens(CALLS["no spaces"]), changed, result(0))
    assert one.build().text == one.build(plain=True).text


def test_reasoning_is_in_the_prompt_where_client_and_template_leave_it(make: Callable[[str], Conversation]) -> None:
    one = make("thinking")
    written = one.tokens(f"<think>Hm.</think>{CALLS['no spaces']}")
    back = Message("assistant", reasoning="Hm.", tool_calls=(call(0, city="Zürich", days=3),))
    assert one.answer(written, back, result(0))
    assert "<think>Hm.</think><tool_call>" in one.build().text
    again = Message("user", "And then?")
    assert one.build(Message("assistant", "Sunny."), again).text.count("Hm.") == 0, "the template drops it"
    one.messages = one.messages[:2]
    assert not one.answer(written, replace(back, reasoning=None), result(0)), "the client left it out"


@pytest.fixture(scope="module")
def demo() -> Conversation:
    return Conversation(tokenizer_utils.load(TILES_NANO))


NUMBERS = itertools.count()


@settings(max_examples=30)
@given(data=st.data())
def test_an_answer_keeps_its_tokens(demo: Conversation, data: st.DataObject) -> None:
    """However it was split into them: models do not always split text as their tokenizer does."""
    one = demo
    one.messages = (Message("user", f"Question {next(NUMBERS)}"),)
    for _ in range(3):
        text = data.draw(st.text("ab é\n.🙂", min_size=1, max_size=20).map(str.strip).filter(bool))
        cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=5)))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        tokens = [token for piece in pieces for token in one.tokens(piece)]
        assume(one.prompts.detokenize(tokens) == text)
        assert one.answer(tokens, Message("assistant", text), Message("user", "And then?"))
    assert one.build().text == one.build(plain=True).text


@settings(max_examples=20)
@given(data=st.data())
def test_answers_are_read_again_after_a_restart(demo: Conversation, data: st.DataObject) -> None:
    """From what is kept with the tokens that were computed, to which the last ones of an answer may not belong."""
    one = demo
    one.messages = (Message("user", f"Question {next(NUMBERS)}"),)
    other = one.build().tokens
    for word in ("Sunny", "Rainy", "Windy"):
        tokens = [token for piece in (" ", *word, ".", "\n") for token in one.tokens(piece)]
        computed = [*one.build().tokens, *tokens]
        assert one.answer(tokens, Message("assistant", f"{word}."), Message("user", "And then?"))
        if data.draw(st.booleans()):
            one.restart(other, computed[: len(computed) - data.draw(st.integers(0, min(8, len(tokens) - 1)))])
        assert one.build().tokens[: len(computed)] == computed
    one.restart(other)
    assert one.build().tokens == one.build(plain=True).tokens


@given(saved=st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=9).map(json.dumps))
def test_notes_that_are_none_are_refused(demo: Conversation, saved: str) -> None:
    with contextlib.suppress(ValueError):
        demo.history.load(np.arange(9, dtype=np.int32), saved)


def test_a_fork_of_a_conversation_has_its_own_answers(make: Callable[[str], Conversation]) -> None:
    one = make("demo")
    beginning, question = one.messages, Message("user", "And then?")
    answers = [one.tokens(f" {word}.\n") for word in ("Sunny", "Rainy", "Windy")]
    prompt = one.build()
    one.prompts.remember(prompt, answers)  # of one request
    for word, tokens in zip(("Sunny", "Rainy", "Windy"), answers, strict=True):
        built = one.build(Message("assistant", f"{word}."), question)
        assert built.tokens[: len(prompt.tokens) + len(tokens)] == [*prompt.tokens, *tokens]
    one.messages = (*beginning[:1], Message("user", "Another question"))
    assert one.build(Message("assistant", "Sunny."), question).text.count(" Sunny.\n") == 0


def test_conversations_are_forgotten_the_oldest_first(
    make: Callable[[str], Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_history, "_MOST_TOKENS", 30)
    one = make("demo")
    beginnings = [(Message("user", f"Question {number}"),) for number in range(4)]
    answer = Message("assistant", "Sunny.")
    for beginning in beginnings:
        one.messages = beginning
        assert one.answer(one.tokens(" Sunny.\n   "), answer, Message("user", "And then?"))
    counts = []
    for beginning in beginnings:
        one.messages = beginning
        counts.append(one.build(answer, Message("user", "And then?")).text.count(" Sunny.\n   "))
    assert counts == [0, 1, 1, 1]


# Turns of an agent: calls with reasoning and without words, an answer, another question.
AGENT = (
    (Message("assistant", reasoning="Thought one.", tool_calls=(call(0, city="Zürich", days=1),)), result(0)),
    (Message("assistant", reasoning="Thought two.", tool_calls=(call(1, city='a "b"\n', days=2),)), result(1)),
    (Message("assistant", "Fine answer.", reasoning="Thought three."), Message("user", "And then?")),
    (Message("assistant", "Another answer."), Message("user", "Last?")),
)


# Of which no token here tells how calls are written, or where an answer ends.
UNREAD = {"ByteDance-Seed-OSS", "GigaChat3-10B-A1.8B", "Kimi-K3", "LFM2.5-Instruct"}


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="TILES_TEST_TEMPLATES names no folder")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_what_a_real_template_leaves_in_place_is_found_again(path: Path, tmp_path: Path) -> None:
    """Where it changes the prompt itself, such as the reasoning of the turns before, nothing can be found."""
    template = path.read_text()
    try:
        first = conversation(tmp_path, template, ends=())
        answered = (Message("user", "Question"), Message("assistant", "Fine answer."), Message("user", "More?"))
        text = first.plain.render(GenerationRequest(messages=answered))
        first.build(*(message for turn in AGENT for message in turn))
    except InvalidRequest as error:
        pytest.skip(str(error))
    end = MARKER.match(text[text.index("Fine answer.") + len("Fine answer.") :].lstrip())
    if end is None or path.stem in UNREAD:
        pytest.skip("no token ends its answers alone")
    one = conversation(tmp_path, template, ends=(end[0], "<|call|>", "<|eom_id|>", "<|observation|>"))
    one.end_tokens -= {one.tokenizer.convert_tokens_to_ids("<|end|>")} if end[0] != "<|end|>" else set()
    found = 0
    for answer, following in AGENT:
        answer = answer if one.markup.think_start else replace(answer, reasoning=None)
        written = one.written(answer, following)
        if written is None:
            one.messages += (answer, following)
            continue
        tokens = one.tokens(f" {written.rstrip()}\n")
        backwards = [
            replace(each, arguments=json.dumps(dict(reversed(json.loads(each.arguments).items()))))
            for each in answer.tool_calls
        ]
        back = replace(answer, tool_calls=tuple(backwards))
        assert one.answer(tokens, back, following)
        found += 1
    if not found:
        pytest.skip("it changes every prompt")
