"""What tests of the parser share: markup as mlx-lm's tokenizers have it, and parts merged across pieces."""

import importlib
import itertools
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from app.services.engine.output.markup import Markup
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import OutputPart
from app.services.engine.output.tool_calls import CallMarkup
from app.services.generation import ToolArguments, ToolCall

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}},
        },
    }
]


def markup(
    parser: str | None = None, think: tuple[str, str] | None = ("<think>", "</think>"), template: str = "", **more: Any
) -> Markup:
    start, end = think or (None, None)
    return Markup(**({"think_start": start, "think_end": end, "calls": calls_of(parser, template)} | more))


def calls_of(parser: str | None, template: str = "") -> CallMarkup | None:
    """What CallMarkup reads off a tokenizer for which mlx-lm chose this parser."""
    module = importlib.import_module(f"mlx_lm.tool_parsers.{parser}") if parser else None
    return CallMarkup.of(
        SimpleNamespace(
            chat_template=template,
            added_tokens_decoder={},
            tool_parser=module and module.parse_tool_call,
            tool_call_start=module and module.tool_call_start,
            tool_call_end=module and module.tool_call_end,
        )
    )


JSON = markup("json_tools")
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": "x", "b": 2}}\n</tool_call>'
ADDED = (0, "add", '{"a": "x", "b": 2}')


def merge_parts(parts: Iterable[OutputPart]) -> list[Any]:
    """Parts without the seams between pieces and without the random ids of calls; arguments as they are written."""
    whole: list[Any] = []
    for part in parts:
        if isinstance(part, ToolCall):
            whole.append((part.index, part.name, part.arguments))
        elif isinstance(part, ToolArguments):
            index, name, arguments = whole[-1]
            assert index == part.index
            whole[-1] = (index, name, arguments + part.text)
        elif whole and isinstance(whole[-1], list) and whole[-1][1] == part.reasoning:
            whole[-1][0] += part.text
        else:
            whole.append([part.text, part.reasoning])
    return whole


def parse(pieces: Iterable[str], family_markup: Markup, **options: Any) -> tuple[list[Any], str | None]:
    parser = OutputParser(family_markup, **options)
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
    return merge_parts(parts), parser.stop_string


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[begin:end] for begin, end in itertools.pairwise(places)]
