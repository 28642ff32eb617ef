"""Small chat templates, one for each manner of taking conversations that templates of real models have."""

_TURNS = """\
{%- for message in messages -%}
BEFORE
{{- "<" + message.role + ">" + message.content -}}
{%- for call in message.tool_calls or [] -%}{{- "[" + call.function.name + ARGUMENTS + "]" -}}{%- endfor -%}
{{- "<end>" -}}
AFTER
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<assistant>" -}}{%- endif -%}
"""
_OBJECT = "(call.function.arguments | tojson)"
_ALTERNATE = """\
{%- set turn = namespace(number=0) -%}
{%- for message in messages -%}
{%- if message.role == "user" or message.role == "assistant" and not message.tool_calls -%}
{%- set fits = (message.role == "user") == (turn.number % 2 == 0) -%}
{%- if not fits -%}{{- raise_exception("roles must alternate") -}}{%- endif -%}
{%- set turn.number = turn.number + 1 -%}
{%- endif -%}
{%- endfor -%}
"""


def _turns(before: str = "", after: str = "", arguments: str = _OBJECT) -> str:
    return _TURNS.replace("BEFORE", before).replace("AFTER", after).replace("ARGUMENTS", arguments)


def _refuse(condition: str, words: str = "no") -> str:
    return f'{{%- if {condition} -%}}{{{{- raise_exception("{words}") -}}}}{{%- endif -%}}'


def _leave_out(condition: str) -> str:
    return f"{{%- if {condition} -%}}{{%- continue -%}}{{%- endif -%}}"


_WALKED = """\
{%- for tool in tools or [] -%}
{{- "{" + tool.function.name -}}
{%- for name, schema in tool.function.parameters.properties.items() -%}{{- " " + name + schema.type -}}{%- endfor -%}
{{- "}" -}}
{%- endfor -%}
"""
_PAIRS = "call.function.arguments.items() | list | string"
_LATER = 'message.role == "system" and not loop.first'

TEMPLATES: dict[str, str] = {
    "takes everything": _turns(),
    "system at the beginning": _turns(_refuse(_LATER, "System message must be at the beginning.")),
    "no system, roles alternate": _refuse('messages[0].role == "system"', "System role not supported")
    + _turns(_refuse('(message.role == "user") != (loop.index0 % 2 == 0) or message.role == "tool"')).replace(
        "message.tool_calls or []", "[]"
    ),
    "roles alternate around tools": _ALTERNATE
    + _turns(
        _refuse(_LATER)
        + "{%- for call in message.tool_calls or [] -%}"
        + _refuse("call.id | length != 9", "ids of length 9")
        + "{%- endfor -%}"
        + _refuse('message.role == "tool" and (message.tool_call_id or "") | length != 9', "ids of length 9")
    ),
    "system with the last words of the user": _ALTERNATE
    + _turns(
        '{%- if message.role == "user" and loop.last and messages[0].role == "system" -%}'
        "{{- messages[0].content -}}{%- endif -%}" + _refuse(_LATER) + _leave_out('message.role == "system"')
    ),
    "later system messages left out": '{%- set seen = namespace(call="") -%}'
    + _turns(
        _leave_out(_LATER)
        + "{%- if message.tool_calls -%}{%- set seen.call = message.tool_calls[0].function.name -%}{%- endif -%}"
        + _refuse('message.role == "tool" and not seen.call', "there was no call")
        + '{%- if message.role != "tool" and not message.tool_calls -%}{%- set seen.call = "" -%}{%- endif -%}'
    ),
    "system messages moved to the beginning": '{%- for message in messages if message.role == "system" -%}'
    "{{- message.content + ' ' -}}{%- endfor -%}" + _turns(_leave_out('message.role == "system"')),
    "the last system message only": '{%- set seen = namespace(system="") -%}{%- for message in messages -%}'
    '{%- if message.role == "system" -%}{%- set seen.system = message.content -%}{%- endif -%}{%- endfor -%}'
    "{{- seen.system -}}" + _turns(_leave_out('message.role == "system"')),
    "content in parts": _turns().replace("message.content", '(message.content | map(attribute="text") | join)'),
    "no tools": _turns(_leave_out('message.role == "tool"')).replace("message.tool_calls or []", "[]"),
    "one call in a turn": _turns(_refuse("(message.tool_calls or []) | length > 1", "single tool-calls")),
    "the first call of a turn": _turns().replace("message.tool_calls or []", "(message.tool_calls or [])[:1]"),
    "arguments walked": _WALKED + _turns(arguments=_PAIRS),
    "arguments as text": _turns(arguments="call.function.arguments"),
    "words of the user needed": _refuse(
        'messages | selectattr("role", "equalto", "user") | list | length == 0', "No user query found"
    )
    + _turns(_refuse(_LATER)),
    "no empty answers": _ALTERNATE
    + _turns(
        _refuse(_LATER) + _refuse('message.role == "assistant" and not message.content and not message.tool_calls')
    ),
    "calls in the place of words": _turns().replace(
        "+ message.content", '+ ("" if message.tool_calls else message.content)'
    ),
    "calls in the place of words, roles alternate": _ALTERNATE
    + _turns(_refuse(_LATER)).replace("+ message.content", '+ ("" if message.tool_calls else message.content)'),
    "no thoughts beside words and calls": _turns(
        _refuse("message.reasoning_content and message.content and message.tool_calls")
        + '{{- message.reasoning_content or "" -}}'
    ),
}
