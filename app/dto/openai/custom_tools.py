"""Custom tools, whose calls are free text: a model calls one as a function of one string."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import regex  # possessive repetition of groups is wrong in Python's own before 3.11.5

import app.services.generation as gen
from app.dto.shared.base import Typed

_HEAD = regex.compile(r'\s*\{\s*"input"\s*:\s*"')
# What a JSON string can be read up to: whole characters, and whole escapes of whole characters.
_CHARACTERS = regex.compile(
    r'(?:[^"\\]++|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
)


class CustomFormat(Typed):
    """What the text has to be. A grammar is shown to the model, and not enforced."""

    kinds: ClassVar = frozenset({"text"})


def to_function(name: str, description: str, form: CustomFormat | None) -> dict[str, Any]:
    """Give a custom tool as chat templates read it."""
    text = {"type": "string"} | _description(form)
    schema = {"type": "object", "properties": {"input": text}, "required": ["input"]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _description(form: CustomFormat | None) -> dict[str, str]:
    fields: Any = form.fields if form is not None and not form.is_ours else {}
    grammar = fields.get("grammar", fields)  # chat completions have it one level deeper than Responses
    definition = grammar.get("definition") if isinstance(grammar, Mapping) else None
    if not isinstance(definition, str):
        return {}
    return {"description": f"text of this grammar ({grammar.get('syntax', 'lark')}):\n{definition}"}


def to_arguments(text: str) -> str:
    """Encode the text of a custom tool call as the arguments of a function."""
    return json.dumps({"input": text}, ensure_ascii=False)


class CustomInput:
    """Reads the text of a call while its arguments are written."""

    def __init__(self) -> None:
        self.text = ""
        self._arguments = ""
        self._position: int | None = None  # up to where they are read, once the text has begun

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are an object, as opposed to what is cut off."""
        return self._values is not None

    def add(self, arguments: str) -> str:
        """Take in more of the arguments, and give what is new of the text."""
        self._arguments += arguments
        if self._position is None:
            head = _HEAD.match(self._arguments)
            if head is None:
                return ""
            self._position = head.end()
        more = _CHARACTERS.match(self._arguments, self._position)
        assert more is not None
        self._position = more.end()
        return self._add(json.loads(f'"{more[0]}"', strict=False))

    def end(self) -> str:
        """Give the rest of the text at the end. Arguments of another form are read as well."""
        values = self._values
        if values is None:
            return "" if self._position is not None else self._add(self._arguments)
        texts = [value for value in values.values() if isinstance(value, str)]
        text = values.get("input", texts[0] if len(texts) == 1 else None)
        text = text if isinstance(text, str) else self._arguments
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._add(text[len(self.text) :]) if text.startswith(self.text) else ""

    @property
    def _values(self) -> dict[str, Any] | None:
        return gen.ToolCall(0, "", "", self._arguments).values

    def _add(self, text: str) -> str:
        self.text += text
        return text


def input_of(call: gen.ToolCall) -> str:
    """Read the text of a whole call."""
    reader = CustomInput()
    reader.add(call.arguments)
    reader.end()
    return reader.text
