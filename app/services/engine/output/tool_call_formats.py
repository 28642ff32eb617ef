"""How families of models write tool calls whose arguments are JSON, and the markers within the calls of the others."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from app.services.engine.output.harmony import CALL, CHANNEL, MESSAGE, START
from app.services.engine.output.tool_call_arguments import parse_arguments
from app.services.engine.output.tool_call_notations import CallNotation, Piece
from app.services.generation import ToolCall

_STRING = r'"(?:[^"\\\x00-\x1f]|\\.)*+"'
# The member in which models put the arguments, whatever their template shows.
_ARGUMENTS = '"(?:arguments|parameters|args|input|params)"'
# The brace of the arguments: what follows it begins a member, or closes it.
_BRACE = r"""\{(?=\s*+(?:["'}]|[A-Za-z_$][\w$-]*+\s*+:|/[/*]|\#))"""
# What may stand behind the arguments of a call that is an object: more of its members, and whatever closes.
_REST = rf"(?:\s*,\s*{_STRING}\s*:\s*(?:{_STRING}|[\w.+-]++))*+[\s,\]}}]*+"
_TAIL = regex.compile(_REST)
_ID = re.compile("[a-zA-Z0-9]{9}")
_LLAMA = '{"name": function name, "parameters": dictionary of argument name and its value}'

# Markers within calls, by mlx-lm's name of the parser. Even where they are control tokens, the parser has to see them.
_INNER: dict[str, tuple[str, ...]] = {
    "deepseek": ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),  # noqa: RUF001
    "function_gemma": ("<escape>",),
    "gemma4": ('<|"|>',),
    "glm47": ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "hunyuan_3": (
        *("<tool_call:opensource>", "</tool_call:opensource>", "<tool_sep:opensource>", "<arg_key:opensource>"),
        *("</arg_key:opensource>", "<arg_value:opensource>", "</arg_value:opensource>"),
    ),
    "kimi_k2": ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    "kimi_k3": ("<|open|>", "<|close|>", "<|sep|>"),
    "longcat": ("<longcat_arg_key>", "</longcat_arg_key>", "<longcat_arg_value>", "</longcat_arg_value>"),
    "minicpm5": ("<function", "</function>", "<param", "</param>", "<![CDATA[", "]]>"),
    "minimax_m2": ("<invoke", "</invoke>", "<parameter", "</parameter>"),
    "mistral": ("[ARGS]", "[CALL_ID]"),
    "muse_spark": ("<atem:invoke", "</atem:invoke>", "<atem:parameter", "</atem:parameter>"),
    "qwen3_coder": ("<function=", "</function>", "<parameter=", "</parameter>"),
    "solar": ("<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"),
}
# Markers around lists of calls that are objects with a name and arguments.
_LISTS = {
    "granite": ("<|tool_call|>", ""),
    "nemotron": ("<TOOLCALL>", "</TOOLCALL>"),
    "phi4": ("<|tool_call|>", "<|/tool_call|>"),
    "tool_calls": ("<tool_calls>", "</tool_calls>"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat(CallNotation):
    """Calls whose arguments are JSON objects, and how they are read.

    `head` matches from the start of a region, or from the end of a call's arguments, to the brace that opens the next
    arguments (groups `name`, maybe `id`), or to the end of the region (group `end`). It must not end in optional text:
    what it matches may not depend on how much has come. `tail` matches what has no meaning behind arguments.
    """

    head: regex.Pattern[str]
    tail: regex.Pattern[str] = _TAIL
    starts: tuple[str, ...] = ()  # markers that begin a call where the start of the region is missing; a part of it
    starts_call: bool = False  # the start marker is a part of the call's JSON
    new_id: Callable[[], str] = lambda: f"call_{secrets.token_hex(12)}"


def call_format(parser: str | None, template: str) -> CallFormat | None:
    """Choose the format by the parser's name and the chat template. None: the arguments are not JSON."""
    if parser is None:
        return _llama() if _LLAMA in template else None
    if parser == "mistral":
        return _mistral_heads("[CALL_ID]" in template) if "[ARGS]" in template else _mistral_list()
    if parser == "deepseek":
        return _deepseek(fenced="```json" in template)
    if parser in _LISTS:
        return _list(*_LISTS[parser])
    makers: dict[str, Callable[[], CallFormat]] = {
        "apertus": _apertus,
        "cohere": _cohere,
        "command_r": _command_r,
        "functionary": _functionary,
        "gigachat": lambda: _gigachat("<|function_call|>"),
        "gigachat_role": lambda: _gigachat("<|message_sep|>\n\nfunction call<|role_sep|>\n"),
        "harmony": _harmony,
        "json_tools": _hermes,
        "kimi_k2": _kimi,
        "solar": _solar,
    }
    return makers[parser]() if parser in makers else None


def write_calls(calls: Sequence[ToolCall], parser: str | None, form: CallFormat | None) -> str:
    """Write calls as the model's family does, as Hermes does where that is unknown."""
    if parser == "pythonic":
        return f"<|tool_call_start|>[{', '.join(_write_pythonic(call) for call in calls)}]<|tool_call_end|>"
    form = form or _hermes()
    texts = [_write_call(call, form) for call in calls]
    if form.between is None:  # a region for each
        return (form.gap or "\n").join(f"{form.start}{form.opens}{text}{form.closes}{form.end}" for text in texts)
    return f"{form.start}{form.opens}{form.between.join(texts)}{form.closes}{form.end}"


def _write_call(call: ToolCall, form: CallFormat) -> str:
    values = json.dumps(parse_arguments(call.arguments), ensure_ascii=False)
    return "".join(
        _fitting_id(piece, call) if isinstance(piece, re.Pattern) else piece
        for piece in (*form.before(call.name), values, *form.after)
    )


def _fitting_id(pattern: re.Pattern[str], call: ToolCall) -> str:
    candidates = (call.id, str(call.index), nine_character_id(call.id))
    return next((text for text in candidates if pattern.fullmatch(text)), call.id)


def _write_pythonic(call: ToolCall) -> str:
    values = parse_arguments(call.arguments).items()
    pairs = (f"{k}={json.dumps(v, ensure_ascii=False) if isinstance(v, str) else repr(v)}" for k, v in values)
    return f"{call.name}({', '.join(pairs)})"


def nine_character_id(identity: str) -> str:
    """Turn an id into one of nine letters and digits, always the same, for templates that take no other."""
    if _ID.fullmatch(identity):
        return identity
    return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:9]


def inner_markers(parser: str | None) -> tuple[str, ...]:
    """Give the markers within the calls of a parser."""
    return _INNER.get(parser or "", ())


def _object_head(brace: str = _BRACE) -> str:
    """Give a pattern of a call that is an object, up to the brace of its arguments."""
    identity = rf'(?:"id"\s*:\s*(?P<id>{_STRING})\s*,\s*)?+'
    kind = r'(?:"type"\s*:\s*"function"\s*,\s*)?+'
    return rf'\{{\s*{kind}{identity}"name"\s*:\s*(?P<name>{_STRING})\s*,\s*{_ARGUMENTS}\s*:\s*{brace}'


def _json_head(member: str) -> Callable[[str], Sequence[Piece]]:
    return lambda name: (f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{member}": ',)


def _hermes() -> CallFormat:
    return CallFormat(
        start="<tool_call>",
        end="</tool_call>",
        head=regex.compile(rf"{_REST}(?:(?P<end></tool_call>)|[\s,\[]*+{_object_head()})", regex.DOTALL),
        opens="\n",
        before=_json_head("arguments"),
        after=("}",),
        closes="\n",
        gap="\n",
    )


def _llama() -> CallFormat:
    return CallFormat(
        start='{"name":',
        starts=('{"type": "function", "name":', '{"type":"function","name":'),
        head=regex.compile(rf"{_object_head()}|\s*(?P<end>\}})", regex.DOTALL),
        before=lambda name: (f' {json.dumps(name, ensure_ascii=False)}, "parameters": ',),
        after=("}",),
        starts_call=True,
        certain=regex.compile(_object_head("")),  # not by its start: an answer in JSON may begin so
    )


def _harmony() -> CallFormat:
    return CallFormat(
        start=f"{START}assistant",
        head=regex.compile("(?!)"),  # calls are told by their headers
        before=lambda name: (f" to=functions.{name}{CHANNEL}commentary json{MESSAGE}",),
        end=CALL,
        gap="",
        has_headers=True,
    )


def _mistral_list() -> CallFormat:
    return CallFormat(
        start="[TOOL_CALLS]",
        head=regex.compile(rf"{_REST}(?:\[TOOL_CALLS\])?+[\s,\[]*+{_object_head()}|{_mistral_head()}"),
        opens="[",
        before=_json_head("arguments"),
        after=(', "id": "', _ID, '"}'),
        between=", ",
        closes="]",
        new_id=_new_nine_character_id,
    )


def _mistral_heads(identified: bool) -> CallFormat:
    return CallFormat(
        start="[TOOL_CALLS]",
        head=regex.compile(rf"{_mistral_head()}|{_REST}(?:\[TOOL_CALLS\])?+[\s,\[]*+{_object_head()}"),
        before=lambda name: (name, "[CALL_ID]", _ID, "[ARGS]") if identified else (name, "[ARGS]"),
        gap="",
        new_id=_new_nine_character_id,
    )


def _mistral_head() -> str:
    identity = r"(?:\[CALL_ID\]\s*(?P<id>[\w-]+)\s*)?+"
    return rf"\s*(?:\[TOOL_CALLS\]\s*)?+(?P<name>[\w-]+)\s*{identity}\[ARGS\]\s*{_BRACE}"


def _new_nine_character_id() -> str:
    """Make an id for Mistral, whose templates refuse any other kind."""
    return secrets.token_hex(5)[:9]


def _kimi() -> CallFormat:
    tail = r"(?:\s|<\|tool_call_end\|>)*+"
    name = r"(?:(?P<id>(?:functions\.)?(?P<name>[^\s<:]++):\d++)|(?:functions\.)?(?P<name>[^\s<:]++))"
    head = rf"<\|tool_call_begin\|>\s*{name}\s*<\|tool_call_argument_begin\|>\s*{_BRACE}"
    return CallFormat(
        start="<|tool_calls_section_begin|>",
        end="<|tool_calls_section_end|>",
        starts=("<|tool_call_begin|>",),
        head=regex.compile(rf"{tail}(?:(?P<end><\|tool_calls_section_end\|>)|{head})"),
        tail=regex.compile(tail),
        before=lambda name: (
            f"<|tool_call_begin|>functions.{name}:",
            re.compile("[0-9]+"),
            "<|tool_call_argument_begin|>",
        ),
        after=("<|tool_call_end|>",),
        between="",
    )


def _list(start: str, end: str) -> CallFormat:
    closes = rf"(?P<end>{regex.escape(end)})|" if end else ""
    return CallFormat(
        start=start,
        end=end,
        head=regex.compile(rf"{_REST}(?:{closes}[\s,\[]*+{_object_head()})", regex.DOTALL),
        opens="[",
        before=_json_head("arguments"),
        after=("}",),
        between=", ",
        closes="]",
    )


def _gigachat(start: str) -> CallFormat:
    return CallFormat(
        start=start,
        head=regex.compile(rf"{_REST}(?:{regex.escape(start)})?+[\s,\[]*+{_object_head()}", regex.DOTALL),
        before=_json_head("arguments"),
        after=("}",),
    )


_TOOL_NAME = rf'\{{\s*(?:"tool_call_id"\s*:\s*(?:{_STRING}|[0-9]++)\s*,\s*)?+"tool_name"\s*:\s*(?P<name>{_STRING})'
_TOOL_HEAD = rf"{_TOOL_NAME}\s*,\s*{_ARGUMENTS}\s*:\s*{_BRACE}"


def _cohere() -> CallFormat:
    """Command R7B and Command A. Their ids count the calls of a turn, so that they are no ids for a client."""
    return CallFormat(
        start="<|START_ACTION|>",
        end="<|END_ACTION|>",
        head=regex.compile(rf"{_REST}(?:(?P<end><\|END_ACTION\|>)|[\s,\[]*+{_TOOL_HEAD})", regex.DOTALL),
        opens="[\n    ",
        before=lambda name: (
            '{"tool_call_id": "',
            re.compile("[0-9]+"),
            f'", "tool_name": {json.dumps(name, ensure_ascii=False)}, "parameters": ',
        ),
        after=("}",),
        between=",\n    ",
        closes="\n]",
    )


def _command_r() -> CallFormat:
    return CallFormat(
        start="Action:",
        head=regex.compile(rf"{_REST}(?:(?<=\]\s*)(?P<end>```)|\s*+(?:```json)?+[\s,\[]*+{_TOOL_HEAD})", regex.DOTALL),
        end="```",
        opens=" ```json\n[\n    ",
        before=lambda name: (f'{{"tool_name": {json.dumps(name, ensure_ascii=False)}, "parameters": ',),
        after=("}",),
        between=",\n    ",
        closes="\n]",
        certain=regex.compile(rf"\s*+(?:```json)?+[\s,\[]*+{_TOOL_NAME}\s*,\s*{_ARGUMENTS}\s*:\s*"),  # it is a word
    )


def _apertus() -> CallFormat:
    head = rf"\{{\s*(?P<name>{_STRING})\s*:\s*{_BRACE}"
    return CallFormat(
        start="<|tools_prefix|>",
        end="<|tools_suffix|>",
        head=regex.compile(rf"{_REST}(?:(?P<end><\|tools_suffix\|>)|[\s,\[]*+{head})", regex.DOTALL),
        opens="[",
        before=lambda name: (f"{{{json.dumps(name, ensure_ascii=False)}: ",),
        after=("}",),
        between=", ",
        closes="]",
    )


def _deepseek(*, fenced: bool) -> CallFormat:
    """R1 and V3 put the arguments into a code block, V3.1 does not."""
    begin, sep, end, last = (
        f"<｜{word}｜>"  # noqa: RUF001
        for word in ("tool▁call▁begin", "tool▁sep", "tool▁call▁end", "tool▁calls▁end")
    )
    tail = rf"(?:\s|```|{end})*+"
    name = r"(?P<name>[^\s<{]++)"
    head = rf"{begin}\s*+(?:function{sep}{name}\s*+```(?:json)?+\s*+|{name}{sep}\s*+){_BRACE}"
    return CallFormat(
        start="<｜tool▁calls▁begin｜>",  # noqa: RUF001
        end=last,
        starts=(begin,),
        head=regex.compile(rf"{tail}(?:(?P<end>{last})|{head})"),
        tail=regex.compile(tail),
        before=lambda name: (f"{begin}function{sep}{name}\n```json\n" if fenced else f"{begin}{name}{sep}",),
        after=(f"\n```{end}" if fenced else end,),
        between="\n" if fenced else "",
    )


def _functionary() -> CallFormat:
    return CallFormat(
        start="<function=",
        end="</function>",
        head=regex.compile(rf"\s*+(?:(?P<end></function>)|(?P<name>[^\s<>{{]++)>\s*+{_BRACE})"),
        tail=regex.compile(r"\s*+"),
        before=lambda name: (f"{name}>",),
        gap="",
    )


def _solar() -> CallFormat:
    tail = r"(?:\s|<\|tool_call:end\|>)*+"
    identity, name = r"(?P<id>[^\s<]*+)", r"(?P<name>[^\s<]++)"
    head = rf"<\|tool_call:begin\|>\s*+{identity}\s*+<\|tool_call:name\|>\s*+{name}\s*+<\|tool_call:args\|>\s*+{_BRACE}"
    return CallFormat(
        start="<|tool_calls|>",
        end="<|calls|>",
        starts=("<|tool_call:begin|>",),
        head=regex.compile(rf"{tail}(?:(?P<end><\|calls\|>)|{head})"),
        tail=regex.compile(tail),
        before=lambda name: (
            "<|tool_call:begin|>",
            re.compile("[a-z0-9]{10}"),
            f"<|tool_call:name|>{name}<|tool_call:args|>",
        ),
        after=("<|tool_call:end|>",),
        between="",
    )
