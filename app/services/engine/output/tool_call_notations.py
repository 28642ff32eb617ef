"""How families of models write tool calls: what a grammar needs to know of them, whatever their arguments look like.

The notations of those whose arguments are no JSON are those of their chat templates.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from app.services.engine.output.tool_call_nested import M3_MARK

Piece = str | re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagArguments:
    """Arguments as tags around values: strings as they are, other values as JSON."""

    opens: Callable[[str, str], str]  # of a key, and of the JSON type of its value
    closes: Callable[[str], str]  # of a key
    separator: str = ""  # behind each
    before_close: str = ""  # between a value and what closes it
    has_types: bool = False  # what opens an argument tells its type


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteralArguments:
    """Arguments as literals of a language that is nearly JSON, between what the call has around them."""

    quote: str  # around strings
    character: str  # a pattern of a character within a string
    escape: Callable[[str], str]  # writes the content of a string
    name: Callable[[str], str]  # writes the key of an argument, with what follows it
    key: Callable[[str], str]  # the same for the members of objects
    any_name: Sequence[Piece]  # of arguments that no schema names
    any_key: Sequence[Piece]
    comma: str
    constants: tuple[str, str, str]  # true, false, null


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNotation:
    """How calls are written.

    A region lies between the markers `start` and `end`. It consists of `opens`, the calls with `between` among them
    (None: one call a region), and `closes`; a call of `before(name)`, the arguments, and `after`. Regions are separated
    by `gap`; None: there is only one.
    """

    start: str
    end: str = ""
    opens: str = ""
    before: Callable[[str], Sequence[Piece]]
    arguments: TagArguments | LiteralArguments | None = None  # None: a JSON object
    after: Sequence[Piece] = ()
    between: str | None = None
    closes: str = ""
    gap: str | None = None
    has_headers: bool = False  # each call is a message, whose header names the tool
    certain: regex.Pattern[str] | None = None  # the head of a call (group `name`), where the start marker may be text


def call_notation(parser: str, template: str) -> CallNotation | None:
    """Choose the notation by the parser's name and the chat template. None: it is not known, or JSON."""
    makers: dict[str, Callable[[], CallNotation]] = {
        "dsml": lambda: _dsml(dsml_block(template)),
        "function_gemma": lambda: _gemma("<start_function_call>", "<end_function_call>", "<escape>"),
        "gemma4": lambda: _gemma("<|tool_call>", "<tool_call|>", '<|"|>'),
        "hunyuan_3": _hunyuan,
        "kimi_k3": _kimi_k3,
        "longcat": lambda: _arg_keys("longcat_", "\n"),
        "minicpm5": _minicpm,
        "minimax_m2": lambda: _invocations("minimax:tool_call", ""),
        "minimax_m3": _minimax_m3,
        "muse_spark": lambda: _invocations("atem:function_calls", "atem:"),
        "pythonic": _pythonic,
        "qwen3_coder": lambda: _functions("tool_call", "\n"),
        "seed_oss": lambda: _functions("seed:tool_call", ""),
    }
    if parser in ("glm47", "laguna"):
        return _arg_keys("", "\n" if "</arg_key>\n<arg_value>" in template else "")
    return makers[parser]() if parser in makers else None


def dsml_block(template: str) -> str:
    """Name the block of calls: DeepSeek V3.2 has another name for it than V4."""
    return "function_calls" if "function_calls>" in template else "tool_calls"


def _functions(region: str, line: str) -> CallNotation:
    """Qwen3-Coder and Qwen3.5, where values stand in lines of their own, and Seed-OSS, where they do not."""
    return CallNotation(
        start=f"<{region}>",
        end=f"</{region}>",
        opens="\n",
        before=lambda name: (f"<function={name}>\n",),
        arguments=TagArguments(
            opens=lambda key, _: f"<parameter={key}>{line}",
            closes=lambda _: "</parameter>",
            before_close=line,
            separator="\n",
        ),
        after=("</function>",),
        closes="\n",
        gap="\n",
    )


def _invocations(region: str, prefix: str) -> CallNotation:
    return CallNotation(
        start=f"<{region}>",
        end=f"</{region}>",
        opens="\n",
        before=lambda name: (f'<{prefix}invoke name="{name}">\n',),
        arguments=TagArguments(
            opens=lambda key, _: f'<{prefix}parameter name="{key}">',
            closes=lambda _: f"</{prefix}parameter>",
            separator="\n",
        ),
        after=(f"</{prefix}invoke>",),
        between="\n",
        closes="\n",
    )


def _dsml(block: str) -> CallNotation:
    mark = "｜DSML｜"  # noqa: RUF001
    return CallNotation(
        start=f"<{mark}{block}>",
        end=f"</{mark}{block}>",
        opens="\n",
        before=lambda name: (f'<{mark}invoke name="{name}">\n',),
        arguments=TagArguments(
            opens=lambda key, kind: f'<{mark}parameter name="{key}" string="{json.dumps(kind == "string")}">',
            closes=lambda _: f"</{mark}parameter>",
            separator="\n",
            has_types=True,
        ),
        after=(f"</{mark}invoke>",),
        between="\n",
        closes="\n",
    )


def _minimax_m3() -> CallNotation:
    return CallNotation(
        start=f"{M3_MARK}<tool_call>",
        end=f"{M3_MARK}</tool_call>",
        opens="\n",
        before=lambda name: (f'{M3_MARK}<invoke name="{name}">',),
        arguments=TagArguments(opens=lambda key, _: f"{M3_MARK}<{key}>", closes=lambda key: f"{M3_MARK}</{key}>"),
        after=(f"{M3_MARK}</invoke>",),
        between="\n",
        closes="\n",
    )


def _minicpm() -> CallNotation:
    return CallNotation(
        start="<function name=",
        end="</function>",
        before=lambda name: (f'"{name}">',),
        arguments=TagArguments(opens=lambda key, _: f'<param name="{key}">', closes=lambda _: "</param>"),
        gap="\n",
    )


def _arg_keys(prefix: str, line: str) -> CallNotation:
    """GLM and those like it; GLM 4.5 and 4.6 write each part into a line of its own, 4.7 does not."""
    return CallNotation(
        start=f"<{prefix}tool_call>",
        end=f"</{prefix}tool_call>",
        before=lambda name: (f"{name}{line}",),
        arguments=TagArguments(
            opens=lambda key, _: f"<{prefix}arg_key>{key}</{prefix}arg_key>{line}<{prefix}arg_value>",
            closes=lambda _: f"</{prefix}arg_value>",
            separator=line,
        ),
        gap=line,
    )


def _hunyuan() -> CallNotation:
    return CallNotation(
        start="<tool_calls:opensource>",
        end="</tool_calls:opensource>",
        opens="\n",
        before=lambda name: (f"<tool_call:opensource>{name}<tool_sep:opensource>\n",),
        arguments=TagArguments(
            opens=lambda key, _: f"<arg_key:opensource>{key}</arg_key:opensource>\n<arg_value:opensource>",
            closes=lambda _: "</arg_value:opensource>",
            separator="\n",
        ),
        after=("</tool_call:opensource>",),
        between="\n",
        closes="\n",
    )


def _kimi_k3() -> CallNotation:
    return CallNotation(
        start="<|open|>tools<|sep|>",
        end="<|close|>tools<|sep|>",
        before=lambda name: (f'<|open|>call tool="{name}" index="', re.compile("[0-9]{1,3}"), '"<|sep|>'),
        arguments=TagArguments(
            opens=lambda key, kind: f'<|open|>argument key="{key}" type="{kind}"<|sep|>',
            closes=lambda _: "<|close|>argument<|sep|>",
            has_types=True,
        ),
        after=("<|close|>call<|sep|>",),
        between="",
    )


_PLAIN_KEY = re.compile(r"[\w-]{1,100}")


def _gemma(start: str, end: str, quote: str) -> CallNotation:
    def key(text: str) -> str:
        return f"{text}:" if _PLAIN_KEY.fullmatch(text) else f"{quote}{text}{quote}:"

    return CallNotation(
        start=start,
        end=end,
        before=lambda name: (f"call:{name}{{",),
        arguments=LiteralArguments(
            quote=quote,
            character=r"(.|\n)",
            escape=lambda text: text,
            name=key,
            key=key,
            any_name=(_PLAIN_KEY, ":"),
            any_key=(_PLAIN_KEY, ":"),
            comma=",",
            constants=("true", "false", "null"),
        ),
        after=("}",),
        gap="",
    )


def _pythonic() -> CallNotation:
    def string(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    return CallNotation(
        start="<|tool_call_start|>",
        end="<|tool_call_end|>",
        opens="[",
        before=lambda name: (f"{name}(",),
        arguments=LiteralArguments(
            quote='"',
            character=r'([^"\\\x00-\x1f]|\\["\\nrt])',
            escape=lambda text: string(text)[1:-1],
            name=lambda name: f"{name}=",
            key=lambda name: f"{string(name)}: ",
            any_name=(re.compile("[a-z_][a-z0-9_]{0,60}"), "="),
            any_key=(re.compile(r'"[\w -]{1,60}"'), ": "),
            comma=", ",
            constants=("True", "False", "None"),
        ),
        after=(")",),
        between=", ",
        closes="]",
    )
