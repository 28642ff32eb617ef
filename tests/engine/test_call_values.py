"""Arguments that are hard to write: whatever a family's notation, they come out as they went in."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.families import (
    FAMILIES,
    arg_key,
    command_r,
    deepseek,
    dsml,
    hermes,
    hunyuan,
    kimi,
    llama,
    minicpm,
    minimax,
    minimax_m3,
    muse,
    objects,
    qwen_coder,
    seed,
    solar,
    to_json,
)
from tests.engine.parsing import markup, parse

NESTED = {"type": "object", "properties": {"text": {"type": "string"}, "list": {"type": "array"}}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "string"},
                    "b": {"type": "integer"},
                    "c": {"type": ["string", "null"]},
                    "o": NESTED,
                    "l": {"type": "array", "items": {"type": "string"}},
                    "t": {"type": "boolean"},
                    "f": {"type": "number"},
                },
            },
        },
    }
]


def text(arguments: dict[str, Any]) -> dict[str, Any]:
    """Values as a template writes them between tags."""
    return {key: value if isinstance(value, str) else to_json(value) for key, value in arguments.items()}


def gemma(start: str, end: str, quote: str) -> Callable[[dict[str, Any]], str]:
    def value(item: Any) -> str:
        if isinstance(item, str):
            return f"{quote}{item}{quote}"
        if isinstance(item, dict):
            return f"{{{','.join(f'{key}:{value(member)}' for key, member in item.items())}}}"
        if isinstance(item, list):
            return f"[{','.join(map(value, item))}]"
        return to_json(item)

    return lambda arguments: f"{start}call:add{value(arguments)}{end}"


def m3(arguments: dict[str, Any]) -> str:
    mark = "]<]minimax[>["

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "".join(f"{mark}<{key}>{value(member)}{mark}</{key}>" for key, member in item.items())
        if isinstance(item, list):
            return "".join(f"{mark}<item>{value(member)}{mark}</item>" for member in item)
        return item if isinstance(item, str) else to_json(item)

    return minimax_m3({key: value(item) for key, item in arguments.items()})


# How families write a call.
WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "qwen3_coder": lambda arguments: qwen_coder(text(arguments)),
    "seed_oss": lambda arguments: seed(text(arguments)),
    "minicpm5": lambda arguments: minicpm(text(arguments)),
    "minimax_m2": lambda arguments: f"<minimax:tool_call>\n{minimax(text(arguments))}</minimax:tool_call>",
    "muse_spark": lambda arguments: f"<atem:function_calls>\n{muse(text(arguments))}</atem:function_calls>",
    "glm47": lambda arguments: arg_key("", text(arguments)),
    "laguna": lambda arguments: arg_key("", text(arguments)),
    "hunyuan_3": lambda arguments: f"<tool_calls:opensource>\n{hunyuan(text(arguments))}</tool_calls:opensource>",
    "longcat": lambda arguments: arg_key("longcat_", text(arguments)),
    "dsml": lambda arguments: f"<｜DSML｜function_calls>\n{dsml(arguments)}</｜DSML｜function_calls>",  # noqa: RUF001
    "minimax_m3": lambda arguments: f"]<]minimax[>[<tool_call>\n{m3(arguments)}]<]minimax[>[</tool_call>",
    "function_gemma": gemma("<start_function_call>", "<end_function_call>", "<escape>"),
    "gemma4": gemma("<|tool_call>", "<tool_call|>", '<|"|>'),
    "json_tools": hermes,
    "llama": llama,
    "kimi_k2": lambda arguments: f"<|tool_calls_section_begin|>{kimi(0, arguments)}<|tool_calls_section_end|>",
    "cohere": lambda arguments: f"<|START_ACTION|>[\n    {command_r(arguments)}\n]<|END_ACTION|>",
    "command_r": lambda arguments: f"Action: ```json\n[\n    {command_r(arguments)}\n]```",
    "apertus": lambda arguments: f'<|tools_prefix|>[{{"add": {to_json(arguments)}}}]<|tools_suffix|>',
    "deepseek": lambda arguments: f"<｜tool▁calls▁begin｜>{deepseek(arguments)}<｜tool▁calls▁end｜>",  # noqa: RUF001
    "nemotron": lambda arguments: f"<TOOLCALL>[{objects(arguments)}]</TOOLCALL>",
    "granite": lambda arguments: f"<|tool_call|>[{objects(arguments)}]",
    "solar": lambda arguments: f"<|tool_calls|>{solar(1, arguments)}<|calls|>",
    "functionary": lambda arguments: f"<function=add>{to_json(arguments)}</function>",
    "mistral heads": lambda arguments: f"[TOOL_CALLS]add[ARGS]{to_json(arguments)}",
}
STRINGS = [
    *("", " ", "null", "None", "12", "-3.50", "true", "[]", '{"x": 1}', '"quoted"', "it's", "a}b{c", "x]", "\\n", "\\"),
    *(
        " leading",
        "trailing ",
        "  both  ",
        "two\nlines",
        "  indented\n    code\n",
        "\ttab",
        "größer 你好 🙂",
        "a=1, b(2)",
    ),
    *("<b>x</b>", "a < b > c", "<think>", "</think>", "```json\n{}\n```", "%d {{ x }}", 'say "a", "b": 1'),
]
OBJECTS = [
    {"b": 2, "a": "x"},
    {"a": "x", "t": True, "f": 1.5, "c": None},
    {"o": {"text": "a } b", "list": [1, 2]}, "b": -1},
    {"l": ["a", "null", "x, y", "{", "12"], "b": 0},
    {"o": {"text": "12", "list": []}, "a": ""},
]


def parse_one(name: str, written: str) -> dict[str, Any]:
    family = FAMILIES[name]
    family_markup = markup(family.parser, template=family.template)
    whole = parse([written], family_markup, tools=TOOLS)
    assert parse(list(written), family_markup, tools=TOOLS) == whole
    ((index, called, arguments),) = [part for part in whole[0] if isinstance(part, tuple)]
    assert not "".join(part[0] for part in whole[0] if isinstance(part, list)).strip()
    assert (index, called) == (0, "add")
    value = json.loads(arguments)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("value", STRINGS)
def test_a_string_comes_out_as_it_was_written(name: str, value: str) -> None:
    assert parse_one(name, WRITERS[name]({"a": value, "b": 2})) == {"a": value, "b": 2}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("arguments", OBJECTS)
def test_other_values_are_of_the_type_in_the_schema(name: str, arguments: dict[str, Any]) -> None:
    assert parse_one(name, WRITERS[name](arguments)) == arguments


@pytest.mark.parametrize("name", WRITERS)
def test_a_call_without_arguments_is_one(name: str) -> None:
    assert parse_one(name, WRITERS[name]({})) == {}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30), st.integers(-9, 99))
def test_any_text_comes_out_as_it_was_written(name: str, value: str, number: int) -> None:
    arguments = {"b": number, "a": value}
    assert parse_one(name, WRITERS[name](arguments)) == arguments
