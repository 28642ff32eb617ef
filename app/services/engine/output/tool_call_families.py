"""How families of models write tool calls whose arguments are not JSON, by mlx-lm's name of the parser."""

import re
from collections.abc import Callable
from typing import Any

from app.services.engine.output.tool_call_literals import gemma_syntax, parser_syntax, pythonic_syntax
from app.services.engine.output.tool_call_nested import M3_MARK, nested_value
from app.services.engine.output.tool_call_notations import dsml_block
from app.services.engine.output.tool_call_syntax import CallSyntax
from app.services.engine.output.tool_call_tags import TagSyntax

_NAME = r"""(?:"(?P<name>[^"<>]{1,200})"|'(?P<name>[^'<>]{1,200})'|(?P<name>[^\s"'<>]{1,200}))"""
_KEY = r"""(?:"(?P<key>[^"<>]{1,200})"|'(?P<key>[^'<>]{1,200})'|(?P<key>[^\s"'<>]{1,200}))"""
_GEMMA_DELIMITERS = {"gemma4": '<|"|>', "function_gemma": "<escape>"}  # of strings
_OTHERS = r'(?:[\w:-]++="[^"<>]*+"\s++)*?'  # attributes before the one that counts


def call_syntax(parser: str, parse: Callable[[str, list[Any]], Any], end: str) -> CallSyntax:
    """Choose the syntax by mlx-lm's parser name. `parse` is mlx-lm's parser, `end` its end marker."""
    if tags := tag_syntax(parser):
        return tags
    if parser in _GEMMA_DELIMITERS:
        return gemma_syntax(_GEMMA_DELIMITERS[parser], end)
    if parser == "pythonic":
        return pythonic_syntax(parse)
    return parser_syntax(parse, end, r"\s*+<\|tool_call_begin\|>" if parser == "kimi_k2" else "")


def tag_syntax(parser: str, template: str = "") -> TagSyntax | None:
    """Choose the syntax by the parser's name and the chat template. None: these calls are not written as tags."""
    makers: dict[str, Callable[[], TagSyntax]] = {
        "dsml": lambda: _dsml(dsml_block(template)),
        "qwen3_coder": _qwen_coder,
        "minimax_m2": _minimax,
        "minimax_m3": _minimax_m3,
        "minicpm5": _minicpm,
        "muse_spark": _muse,
        "glm47": lambda: _arg_keys(""),
        "laguna": lambda: _arg_keys(""),
        "longcat": lambda: _arg_keys("longcat_"),
        "hunyuan_3": _hunyuan,
        "kimi_k3": _kimi_k3,
        "seed_oss": _seed,
    }
    return makers[parser]() if parser in makers else None


def _qwen_coder() -> TagSyntax:
    return TagSyntax(
        start="<tool_call>",
        call=r"<function=\s*+(?P<name>[^\s<>]{1,200}+)(?:\s*+>)?+",
        argument=r"<parameter=\s*+(?P<key>[^<>\n]{1,200}+)(?:>|(?=\n))",
        argument_end="</parameter>",
        call_end="</function>",
        region_end="</tool_call>",
        closer="</tool_call>",
        starts=("<function=",),
        line_by_line=True,
    )


def _seed() -> TagSyntax:
    return TagSyntax(
        start="<seed:tool_call>",
        call=r"<function=\s*+(?P<name>[^\s<>]{1,200}+)(?:\s*+>)?+",
        argument=r"<parameter=\s*+(?P<key>[^<>\n]{1,200}+)>",
        argument_end="</parameter>",
        call_end="</function>",
        region_end="</seed:tool_call>",
        closer="</seed:tool_call>",
        starts=("<function=",),
    )


def _dsml(block: str) -> TagSyntax:
    """DeepSeek V3.2, and V4 with another name of the block. Calls say which of their values are strings, not JSON."""
    mark = "｜DSML｜"  # noqa: RUF001
    return TagSyntax(
        start=f"<{mark}{block}>",
        call=rf"<{mark}invoke\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf'<{mark}parameter\s++name\s*+=\s*+{_KEY}(?:\s++string\s*+=\s*+"(?P<kind>\w++)")?\s*+>',
        argument_end=f"</{mark}parameter>",
        call_end=f"</{mark}invoke>",
        region_end=f"</{mark}{block}>",
        closer=f"</{mark}{block}>",
        starts=(f"<{mark}invoke name=",),
        kinds={"true": {"type": "string"}, "false": {}},
        untyped_is_text=False,
    )


def _minimax_m3() -> TagSyntax:
    """MiniMax-M3: a tag for each argument, and within it for each member of an object or item of a list."""
    mark = re.escape(M3_MARK)
    key = r"(?!/|(?:invoke|tool_call)\b)(?P<key>[^<>\n]{1,200})"
    return TagSyntax(
        start=f"{M3_MARK}<tool_call>",
        call=rf"{mark}<invoke\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"{mark}<{key}>",
        argument_end=rf"{mark}</(?!(?:invoke|tool_call)>)[^<>\n]{{1,200}}>",
        call_end=f"{mark}</invoke>",
        region_end=f"{mark}</tool_call>",
        closer=f"{M3_MARK}</tool_call>",
        starts=(f"{M3_MARK}<invoke name=",),
        nested=nested_value,
        untyped_is_text=False,
    )


def _minimax() -> TagSyntax:
    return TagSyntax(
        start="<minimax:tool_call>",
        call=rf"<invoke\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"<parameter\s++name\s*+=\s*+{_KEY}\s*+>",
        argument_end="</parameter>",
        call_end="</invoke>",
        region_end="</minimax:tool_call>",
        closer="</minimax:tool_call>",
        starts=("<invoke name=",),
    )


def _minicpm() -> TagSyntax:
    return TagSyntax(
        start="<function name=",
        call=rf"<function\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"<param\s++name\s*+=\s*+{_KEY}\s*+>",
        argument_end="</param>",
        call_end="</function>",
        closer="</function>",
        starts=("<function name=",),
        value=lambda text: text.strip()[9:-3] if re.fullmatch(r"\s*<!\[CDATA\[.*?\]\]>\s*", text, re.DOTALL) else text,
    )


def _muse() -> TagSyntax:
    return TagSyntax(
        start="<atem:function_calls>",
        call=rf"<atem:invoke\s++{_OTHERS}name={_NAME}[^>]*+>",
        argument=rf"<atem:parameter\s++{_OTHERS}name={_KEY}[^>]*+>",
        argument_end="</atem:parameter>",
        call_end="</atem:invoke>",
        region_end="</atem:function_calls>",
        closer="</atem:function_calls>",
        untyped_is_text=False,
    )


def _arg_keys(prefix: str) -> TagSyntax:
    return TagSyntax(
        start=f"<{prefix}tool_call>",
        call=rf"(?P<name>[^\s<>{{}}\[\]]{{1,200}})\s*+(?=<{prefix}arg_key>|</{prefix}tool_call>)",
        argument=(rf"<{prefix}arg_key>(?P<key>[^<>]{{1,200}})</{prefix}arg_key>(?:\\n|\s)*+<{prefix}arg_value>"),
        argument_end=f"</{prefix}arg_value>",
        call_end=f"</{prefix}tool_call>",
        closer=f"</{prefix}tool_call>",
        untyped_is_text=False,
    )


def _hunyuan() -> TagSyntax:
    return TagSyntax(
        start="<tool_calls:opensource>",
        call=r"<tool_call:opensource>\s*+(?P<name>[^\s<>]{1,200}+)\s*+<tool_sep:opensource>",
        argument=r"<arg_key:opensource>(?P<key>[^<>]{1,200})</arg_key:opensource>\s*+<arg_value:opensource>",
        argument_end="</arg_value:opensource>",
        call_end="</tool_call:opensource>",
        region_end="</tool_calls:opensource>",
        closer="</tool_calls:opensource>",
        starts=("<tool_call:opensource>",),
        untyped_is_text=False,
    )


def _kimi_k3() -> TagSyntax:
    key = rf'argument\s++{_OTHERS}key="(?P<key>[^"<>]{{1,200}})"(?:\s++type="(?P<kind>\w++)")?'
    return TagSyntax(
        start="<|open|>tools<|sep|>",
        call=rf'<\|open\|>call\s++{_OTHERS}tool="(?P<name>[^"<>]{{1,200}})"[^<>]*+<\|sep\|>',
        argument=rf"<\|open\|>(?:{key}|json)[^<>]*+<\|sep\|>",
        argument_end=r"<\|close\|>(?:argument|json)<\|sep\|>",
        call_end=r"<\|close\|>call<\|sep\|>",
        region_end=r"<\|close\|>tools<\|sep\|>",
        closer="<|close|>tools<|sep|>",
    )
