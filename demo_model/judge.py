"""What makes an answer right."""

import ast
import json
import re
from typing import Any

from mlx_lm.tool_parsers.json_tools import parse_tool_call

from demo_model.items import Item

TURN = re.compile(r"<think>\n(.+?)\n</think>\n<python>(.*?)</python>\n<reply>(.*?)</reply>", re.DOTALL)


def calls_in(text: str) -> list[dict[str, Any]] | None:
    """The tool calls of an answer, or None where one does not parse."""
    try:
        return [parse_tool_call(block) for block in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)]
    except ValueError:
        return None


def object_in(text: str) -> Any:
    """The JSON object that a text is; None where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def same_code(one: str, other: str) -> bool:
    """Whether two programs are the same but for their layout."""
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except SyntaxError:
        return False


def memory_turn(text: str, wanted: str) -> bool:
    """Whether a memory-agent answer has its three parts and runs the wanted code, or replies without code."""
    given, right = TURN.fullmatch(text), TURN.fullmatch(wanted)
    if not given or not right:
        return False
    return same_code(given[2], right[2]) and bool(given[3]) == bool(right[3])


def answer_of(item: Item, text: str) -> str:
    """The answer without what was thought before it."""
    return text.rpartition("</think>")[2].strip() if item.thinking else text


def right(item: Item, text: str) -> bool:
    """Whether an answer, without its end token, is right."""
    answer = answer_of(item, text)
    if item.category == "memory-agent turns" and not memory_turn(answer, item.wanted.content):
        return False
    if item.schema is not None:
        value = object_in(answer)
        return value == json.loads(item.wanted.content) if item.wanted.must else value is not None
    if calls_in(answer) != item.wanted.calls:
        return False
    return all(word in answer for word in item.wanted.must)


def obeyed(item: Item, text: str) -> bool:
    """Whether the answer thinks aloud just when it was asked to."""
    if item.thinking:
        thought, closed, answer = text.partition("</think>")
        return bool(thought.strip() and closed and answer.strip()) and "<think>" not in text
    return item.category == "memory-agent turns" or "<think>" not in text
