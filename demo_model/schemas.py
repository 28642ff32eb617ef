"""Invented tools: names, descriptions, parameters, and values that a user could ask for."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo_model.conversation import Call, Tool
from demo_model.source import Source
from demo_model.table import choices

Value = Any
LINKS = choices("""equal to|equals|worth|like|taken as|must be|will be|at|near|named|reading|saying|would be
meaning|marked|marked as|over|into|onto|from|holds|now|goes in|stands in|belongs in|makes|fills|gives
would read|could be|might be|shall be|has to be|needs to be|is to be|ought to be|is going to be|is meant to be
in this case|this time|stays|remains|becomes|was|to be|goes to|points to|comes to|amounts to|counts as|fixed at
given as|entered as|written as|known as|such as|kept at|left at|put at|put as|chosen as|defined as""")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a tool: its schema, and how its values are made."""

    name: str
    schema: dict[str, Any]
    make: Callable[[Source], Value]
    required: bool = True


@dataclass(frozen=True)
class Skill:
    """A tool and the ways to ask for it: wordings whose slots are parameter names."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    wordings: tuple[str, ...]

    def as_tool(self) -> Tool:
        """The tool in OpenAI's form."""
        schema = {
            "type": "object",
            "properties": {p.name: p.schema for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
        }
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": schema},
        }

    def request(self, source: Source) -> tuple[str, Call]:
        """What a user says, without politeness, and the call that it asks for."""
        wording = source.any(self.wordings)
        used = [p for p in self.parameters if "{" + p.name + "}" in wording]
        values = {p.name: p.make(source) for p in used}
        said = re.sub(r"\{([^}]+)\}", lambda m: spoken(values[m[1]]), wording)
        return said, {"name": self.name, "arguments": values}


def spoken(value: Value) -> str:
    """How a value stands in a sentence."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return str(value)


def styled(source: Source, *parts: str) -> str:
    """An identifier made of words, in one of the usual styles."""
    style = source.rng.random()
    words = [part for p in parts for part in p.split()]
    if style < 0.55:
        return "_".join(words)
    if style < 0.8:
        return words[0] + "".join(w.capitalize() for w in words[1:])
    return source.any(("-", ".", "")).join(words)


def one_word(source: Source) -> str:
    """A value of one word."""
    return source.any((source.plain, source.invented, source.code, source.name, source.place))()


def some_words(source: Source) -> str:
    """A value of a few words."""
    return source.phrase(2, 4)


def string(
    source: Source, name: str, make: Callable[[Source], Value], required: bool = True, said: str = ""
) -> Parameter:
    """A string parameter, described or not."""
    schema: dict[str, Any] = {"type": "string"}
    if said or source.chance(0.5):
        schema["description"] = said or source.any(("The {}", "The {} to use", "{} of the request", "Which {}")).format(
            name.replace("_", " ")
        )
    return Parameter(name, schema, make, required)


def typed(source: Source, name: str) -> Parameter:
    """A parameter of that name, of any type."""
    kind = source.rng.random()
    if kind < 0.58:
        return string(
            source,
            name,
            source.any((one_word, one_word, one_word, some_words, Source.date, Source.email, Source.path, Source.time)),
        )
    if kind < 0.78:
        return Parameter(name, {"type": source.any(("integer", "integer", "number"))}, lambda s: s.number())
    if kind < 0.83:
        return Parameter(name, {"type": "number"}, lambda s: s.rng.randint(1, 999) / 10)
    if kind < 0.88:
        return Parameter(name, {"type": "boolean"}, lambda s: s.chance(0.5))
    if kind < 0.96:
        options = list(dict.fromkeys(source.plain() for _ in range(source.rng.randint(2, 4))))
        return Parameter(name, {"type": "string", "enum": options}, lambda s: s.any(options))
    return Parameter(
        name, {"type": "array", "items": {"type": "string"}}, lambda s: [s.plain() for _ in range(s.rng.randint(2, 3))]
    )


def invented_skill(source: Source) -> Skill:
    """A tool of a random verb, thing and parameters, asked for by naming them."""
    verb, noun = source.verb(), source.noun()
    if source.chance(0.25):
        noun = f"{source.word('ADJECTIVES')} {noun}"
    names = list(
        dict.fromkeys(
            source.word("PARAMETERS") if source.chance(1 - source.strange(0.12)) else source.invented()
            for _ in range(source.any((1, 1, 2, 2, 3)))
        )
    )
    if source.chance(0.2):
        names = [styled(source, n, source.any(("name", "id", "value", "key"))) for n in names]
    parameters = tuple(typed(source, n) for n in names)
    description = source.any(
        (
            "{V} a {n}.",
            "{V} the {n}",
            "{V}s a {n}.",
            "{V} {n}s of the user.",
            "Use this to {v} a {n}.",
            "{V} a {n} with the given {p}.",
        )
    ).format(V=verb.capitalize(), v=verb, n=noun, p=names[0])
    if source.chance(0.2):
        description += f" Returns the {source.plain()} {source.plain()}."
    wording = f"{verb} {source.any(('a', 'the', 'the', 'my'))} {noun}"
    wordings = tuple(_wording(source, wording, [p.name for p in parameters]) for _ in range(2))
    return Skill(styled(source, verb, noun), description, parameters, wordings)


def _wording(source: Source, start: str, names: list[str]) -> str:
    clauses = [given(source).format(p=n.replace("_", " ") if source.chance(0.7) else n, v="{" + n + "}") for n in names]
    return start + _joint(source) + (", ".join(clauses[:-1]) + " and " if len(clauses) > 1 else "") + clauses[-1]


def given(source: Source) -> str:
    """A way to name a parameter and its value, sometimes with words that mean nothing in between."""
    if source.held_out or source.chance(0.5):
        return source.say("given")
    return source.any(("{{p}} {w} {{v}}", "the {{p}} {w} {{v}}", "{{v}} {w} the {{p}}", "{{v}} {w} {{p}}")).format(
        w=source.any(LINKS) if source.chance(0.4) else source.aside(2)
    )


def _joint(source: Source) -> str:
    if source.held_out or source.chance(0.65):
        return source.say("join")
    return f"{source.any((' ', ', '))}{source.aside(3)} "
