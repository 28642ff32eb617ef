"""How families of models write their calls where the arguments are no JSON, by the parsers that mlx-lm has for them."""

import re
from collections.abc import Callable
from typing import Any

from app.services.engine.output.tool_call_literals import gemma, pythonic, whole
from app.services.engine.output.tool_call_syntax import Region
from app.services.engine.output.tool_call_tags import Tags

_NAME = r"""(?:"(?P<name>[^"<>]{1,200})"|'(?P<name>[^'<>]{1,200})'|(?P<name>[^\s"'<>]{1,200}))"""
_KEY = r"""(?:"(?P<key>[^"<>]{1,200})"|'(?P<key>[^'<>]{1,200})'|(?P<key>[^\s"'<>]{1,200}))"""
_OTHERS = r'(?:[\w:-]++="[^"<>]*+"\s++)*?'  # attributes before the one that counts


def region_of(parser: str | None, parse: Callable[[str, list[Any]], Any] | None, end: str) -> Region | None:
    """Tell how the calls of a parser of mlx-lm's are written, where they are not JSON; None: they are."""
    makers: dict[str, Callable[[], Region]] = {
        "qwen3_coder": _qwen_coder,
        "minimax_m2": _minimax,
        "minicpm5": _minicpm,
        "muse_spark": _muse,
        "glm47": lambda: _arg_keys(""),
        "laguna": lambda: _arg_keys(""),
        "longcat": lambda: _arg_keys("longcat_"),
        "kimi_k3": _kimi_k3,
        "gemma4": lambda: gemma('<|"|>', end),
        "function_gemma": lambda: gemma("<escape>", end),
    }
    if parser in makers:
        return makers[parser]()
    if parser == "pythonic" and parse is not None:
        return pythonic(parse)
    if parse is None:
        return None
    return whole(parse, end, r"\s*+<\|tool_call_begin\|>" if parser == "kimi_k2" else "")


def _qwen_coder() -> Tags:
    return Tags(
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


def _minimax() -> Tags:
    return Tags(
        start="<minimax:tool_call>",
        call=rf"<invoke\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"<parameter\s++name\s*+=\s*+{_KEY}\s*+>",
        argument_end="</parameter>",
        call_end="</invoke>",
        region_end="</minimax:tool_call>",
        closer="</minimax:tool_call>",
        starts=("<invoke name=",),
    )


def _minicpm() -> Tags:
    return Tags(
        start="<function name=",
        call=rf"<function\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"<param\s++name\s*+=\s*+{_KEY}\s*+>",
        argument_end="</param>",
        call_end="</function>",
        closer="</function>",
        starts=("<function name=",),
        value=lambda text: text.strip()[9:-3] if re.fullmatch(r"\s*<!\[CDATA\[.*?\]\]>\s*", text, re.DOTALL) else text,
    )


def _muse() -> Tags:
    return Tags(
        start="<atem:function_calls>",
        call=rf"<atem:invoke\s++{_OTHERS}name={_NAME}[^>]*+>",
        argument=rf"<atem:parameter\s++{_OTHERS}name={_KEY}[^>]*+>",
        argument_end="</atem:parameter>",
        call_end="</atem:invoke>",
        region_end="</atem:function_calls>",
        closer="</atem:function_calls>",
        untyped_is_text=False,
    )


def _arg_keys(mark: str) -> Tags:
    return Tags(
        start=f"<{mark}tool_call>",
        call=rf"(?P<name>[^\s<>{{}}\[\]]{{1,200}})\s*+(?=<{mark}arg_key>|</{mark}tool_call>)",
        argument=(rf"<{mark}arg_key>(?P<key>[^<>]{{1,200}})</{mark}arg_key>(?:\\n|\s)*+<{mark}arg_value>"),
        argument_end=f"</{mark}arg_value>",
        call_end=f"</{mark}tool_call>",
        closer=f"</{mark}tool_call>",
        untyped_is_text=False,
    )


def _kimi_k3() -> Tags:
    key = rf'argument\s++{_OTHERS}key="(?P<key>[^"<>]{{1,200}})"(?:\s++type="(?P<kind>\w++)")?'
    return Tags(
        start="<|open|>tools<|sep|>",
        call=rf'<\|open\|>call\s++{_OTHERS}tool="(?P<name>[^"<>]{{1,200}})"[^<>]*+<\|sep\|>',
        argument=rf"<\|open\|>(?:{key}|json)[^<>]*+<\|sep\|>",
        argument_end=r"<\|close\|>(?:argument|json)<\|sep\|>",
        call_end=r"<\|close\|>call<\|sep\|>",
        region_end=r"<\|close\|>tools<\|sep\|>",
        closer="<|close|>tools<|sep|>",
    )
