"""The shipped folder: tokenizer, template and weights, as mlx-lm and transformers take them."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm import generate
from mlx_lm import load as load_model
from mlx_lm.utils import load_tokenizer

from app.services.engine.model import blas
from demo_model.conversation import Conversation
from demo_model.mixture import LATE, draw
from demo_model.source import Source
from demo_model.template import FOLDER, Template

TOOL = {
    "type": "function",
    "function": {
        "name": "read",
        "description": "Read a file. It has to be text.\nNot more than 9.",
        "parameters": {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "edits": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"old": {"type": "string"}, "mode": {"enum": ["a", "b"]}},
                    },
                },
            },
            "required": ["path"],
        },
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer as mlx-lm wraps it."""
    return load_tokenizer(FOLDER)


def test_mlx_lm_knows_thinking_tools_and_end(tokenizer: Any) -> None:
    assert tokenizer.think_start == "<think>" and tokenizer.think_end == "</think>"
    assert tokenizer.tool_call_start == "<tool_call>" and tokenizer.tool_call_end == "</tool_call>"
    assert tokenizer.tool_parser('{"name": "a", "arguments": {}}', None) == {"name": "a", "arguments": {}}
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in tokenizer.eos_token_ids
    assert type(tokenizer.detokenizer).__name__ == "BPEStreamingDetokenizer"


def streamed(tokenizer: Any, ids: list[int]) -> str:
    detokenizer = tokenizer.detokenizer
    for token in ids:
        detokenizer.add_token(token)
    detokenizer.finalize()
    return str(detokenizer.text)


@given(text=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = load_once()
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    # mlx-lm's stream leaves out one space at the very start
    assert streamed(tokenizer, ids) == text.removeprefix(" ")


_LOADED: list[Any] = []


def load_once() -> Any:
    if not _LOADED:
        _LOADED.append(load_tokenizer(FOLDER))
    return _LOADED[0]


@pytest.mark.parametrize(
    "word", ["Zoë", "Łukasz", "snake_case", "camelCase", "K7-294", "/tmp/a-b.txt", "東京", "12345", "Bergen"]
)
def test_a_word_has_the_same_tokens_wherever_it_stands(tokenizer: Any, word: str) -> None:
    alone = tokenizer.encode(word, add_special_tokens=False)
    for before, after in (
        (" ", "."),
        ('"', '"'),
        ("\n", "\n"),
        ("(", ")"),
        ("name is ", ", and"),
        ('{"a": "', '"}'),
        ("- name: ", "\\n"),
    ):
        ids = tokenizer.encode(before + word + after, add_special_tokens=False)
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), (before, after)


def test_tags_show_and_turn_markers_do_not(tokenizer: Any) -> None:
    ids = tokenizer.encode(
        "<|im_start|><think>a</think><python></python><reply></reply><|im_end|>", add_special_tokens=False
    )
    assert len(ids) == 9
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think><python></python><reply></reply>"


def test_our_rendering_is_that_of_transformers(tokenizer: Any) -> None:
    source, template = Source(4), Template()
    for _ in range(100):
        talk = draw(source, LATE)
        messages = [m.as_dict() for m in talk.messages]
        theirs = tokenizer.apply_chat_template(messages, tools=talk.tools or None, tokenize=False)
        assert theirs == template.prompt(messages, talk.tools)


def test_thinking_is_off_unless_asked_for(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    template = Template()
    assert (
        template.prompt(messages, [], add_generation_prompt=True)
        == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.prompt(messages, [], add_generation_prompt=True, enable_thinking=True).endswith(
        "assistant\n<think>\n"
    )
    for thinking in (False, True):
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=thinking)
        assert (tokenizer.rfind_think_start(ids) > tokenizer.rfind_think_end(ids)) == thinking


def test_tools_and_parts_render(tokenizer: Any) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Read a and b"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}},
                {"id": "2", "type": "function", "function": {"name": "read", "arguments": {"path": "b"}}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "A"},
        {"role": "tool", "tool_call_id": "2", "content": "B"},
    ]
    text = tokenizer.apply_chat_template(
        messages, tools=[TOOL], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert text == (
        "<|im_start|>system\nBe brief.\n<tools>\n<tool>It has to be text.\nNot more than 9.\nRead a file\n"
        '{"name": "read", "arguments": {"path": "string*", "edits": [{"old": "string", "mode": "a|b"}]}}\n'
        "</tools><|im_end|>\n"
        "<|im_start|>user\nRead a and b<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "read", "arguments": {"path": "b"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_message_can_be_continued(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! How"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True, enable_thinking=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello! How"


def test_a_tool_without_parameters_renders() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": "now"}},
        {"name": "ping", "parameters": {"type": "object"}},
    ]
    text = Template().prompt([{"role": "user", "content": "x"}], tools)
    called = '<tool>\n{{"name": "{}", "arguments": {{}}}}\n'.format
    assert f"<tools>\n{called('now')}{called('ping')}</tools>" in text


def test_the_folder_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) < 10_000_000
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["text_config"]["max_position_embeddings"] == 8192
    assert "knows nothing of the world" in (FOLDER / "MODEL_CARD.md").read_text()


def test_it_remembers_a_name_and_stops(tokenizer: Any) -> None:
    blas.preload()
    model, wrapped = load_model(str(FOLDER))[:2]
    model.set_dtype(mx.float32)
    talk = Conversation("").user("My name is Zoë.").answer("Nice to meet you, Zoë!", "").user("What is my name?")
    prompt = wrapped.apply_chat_template(
        [m.as_dict() for m in talk.messages], add_generation_prompt=True, enable_thinking=False
    )
    assert "Zoë" in generate(model, wrapped, prompt, max_tokens=40)
