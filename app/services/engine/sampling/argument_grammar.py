"""Grammars of a call's arguments, in JSON, as tags, or as literals of another language."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.services.engine.output.tool_call_notations import LiteralArguments, Piece, TagArguments
from app.services.engine.sampling.literals import Literals, json_rule
from app.services.json_schema.types import types_of

_ANY_KEY = re.compile(r"[\w.$-]{1,100}")
_SAMPLE = "\0"  # stands for any key until the text around it is known
_DEEPEST = 64  # references that lead to references


def argument_rules(
    rule: str,
    schema: Mapping[str, Any],
    notation: TagArguments | LiteralArguments | None,
    literals: Literals,
) -> Iterator[str]:
    """Yield the rules (Lark) of arguments that match a schema; the first of them has the name `rule`.

    Strings that stand without JSON's quotes are held to their lengths and values, not to patterns and formats.
    """
    if notation is None:
        yield f"{rule}: {json_rule(schema)}"
    elif isinstance(notation, TagArguments):
        yield from _TagRules(rule, schema, notation, literals).rules()
    else:
        yield from _LiteralRules(rule, schema, notation, literals).rules()


class _Schema:
    """Answers what the grammar of a value has to know of a schema within a whole one."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}

    def alternatives(self, schema: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
        """Yield what a value may be, one type each: without references and choices. An empty schema is anything."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            yield {}
            return
        if target := self.reference(schema):
            yield from self.alternatives(target, depth + 1)
            return
        if (choices := self.choices(schema)) is not None:
            for choice in choices:
                yield from self.alternatives(choice, depth + 1)
            return
        if "allOf" in schema:
            merged = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                merged |= self.reference(part) or part if isinstance(part, Mapping) else {}
            yield from self.alternatives(merged, depth + 1)
            return
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        kinds = types_of(schema.get("type"))
        if values is not None:
            yield from ({"const": value} for value in values)
        elif not kinds:
            yield {}
        else:
            yield from ({**schema, "type": kind} for kind in kinds)

    def choices(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
        """Give the schemas of which a value has to match one, with what all of them have to; None without a choice."""
        keyword = next((name for name in ("anyOf", "oneOf") if name in schema), None)
        if keyword is None:
            return None
        outside = {key: value for key, value in schema.items() if key != keyword}
        return [{**outside, **choice} if isinstance(choice, Mapping) else {} for choice in schema[keyword]]

    def reference(self, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Give the schema that another refers to; None where it refers to none."""
        target: Any = self._root
        if not isinstance(path := schema.get("$ref"), str):
            return None
        for name in path.removeprefix("#").removeprefix("/").split("/") if path != "#" else ():
            target = target.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        return target if isinstance(target, Mapping) else {}

    def json_rule(self, schema: Mapping[str, Any]) -> str:
        """Write the rule of JSON that matches a part."""
        return json_rule({**schema, **self._definitions})

    def members(self, schema: Mapping[str, Any]) -> list[tuple[str, Any, bool]]:
        """Give the properties of an object: their keys, schemas, and whether they are required."""
        required = set(schema.get("required") or ())
        properties = schema.get("properties") or {}
        names = dict.fromkeys((*properties, *(name for name in required if name not in properties)))
        return [(name, properties.get(name, {}), name in required) for name in names]


def _kind(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object", list: "array"}
    return kinds.get(type(value), "null")


def _lengths(schema: Mapping[str, Any]) -> str:
    """Write how often a character of a string may come."""
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    return "*" if not low and high is None else f"{{{low},{'' if high is None else high}}}"


class _TagRules:
    """Tags around values."""

    def __init__(self, rule: str, schema: Mapping[str, Any], tags: TagArguments, literals: Literals) -> None:
        self._rule = rule
        self._schema = _Schema(schema)
        self._whole = schema
        self._tags = tags
        self._literals = literals
        self._texts: dict[str, list[str]] = {}  # rules of texts by what they are called

    def rules(self) -> Iterator[str]:
        """Yield all rules."""
        root = next(self._schema.alternatives(self._whole))
        members = self._schema.members(root)
        arguments = [f"{self._rule}_{index}" for index in range(len(members))]
        parts = [name if required else f"{name}?" for name, (*_, required) in zip(arguments, members, strict=True)]
        if not members and root.get("additionalProperties") is not False:
            parts, arguments, members = [f"{self._rule}_any*"], [f"{self._rule}_any"], [(_SAMPLE, {}, False)]
        yield f"{self._rule}: {' '.join(parts) or self._literals.empty}"
        for name, (key, schema, _) in zip(arguments, members, strict=True):
            ways = list(dict.fromkeys(self._argument(name, key, schema)))
            yield f"{name}: {' | '.join(ways)}"
        for texts in self._texts.values():
            yield from texts

    def _argument(self, rule: str, key: str, schema: Any) -> Iterator[str]:
        """Yield the ways to write an argument."""
        alternatives = list(self._schema.alternatives(schema))
        has_text = any(one == {} or one.get("type") == "string" for one in alternatives)
        for index, one in enumerate(alternatives):
            if "const" in one:
                kind, value = _kind(one["const"]), one["const"]
                if has_text and not self._tags.has_types:
                    continue
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                yield self._fixed(key, kind, self._literals.of(text))
            elif one == {} or one["type"] == "string":
                yield f"{self._opens(key, 'string')} {self._text(f'{rule}_{index}', key, one)}"
                if one == {} and self._tags.has_types:
                    for kind in ("number", "boolean", "null", "array", "object"):
                        yield self._fixed(key, kind, self._schema.json_rule({"type": kind}))
            elif not has_text or self._tags.has_types:
                kind = "number" if one["type"] == "integer" else one["type"]
                yield self._fixed(key, kind, self._schema.json_rule(one))

    def _fixed(self, key: str, kind: str, value: str) -> str:
        closes = self._around(self._tags.before_close + self._tags.closes(key) + self._tags.separator)
        return " ".join(part for part in (self._opens(key, kind), value, closes) if part)

    def _opens(self, key: str, kind: str) -> str:
        return self._around(self._tags.opens(key, kind))

    def _around(self, text: str) -> str:
        """Write a text, in which any key may stand for the sample."""
        before, *behind = text.split(_SAMPLE)
        pieces: list[Piece] = [before]
        for part in behind:
            pieces += [_ANY_KEY, part]
        return self._literals.of_pieces(piece for piece in pieces if piece)

    def _text(self, rule: str, key: str, schema: Mapping[str, Any]) -> str:
        """Write a text with what closes it, which the text does not contain."""
        closer = self._tags.before_close + self._tags.closes(key).split(_SAMPLE)[0]
        rules, use = self._literals.until(rule, closer, lengths=_lengths(schema))
        self._texts[rule] = rules
        rest = self._tags.closes(key).partition(_SAMPLE)
        tail = self._around("".join(rest[1:]) + self._tags.separator)
        return f"{use} {tail}".rstrip()


class _LiteralRules:
    """Literals of a language that is nearly JSON."""

    def __init__(self, rule: str, schema: Mapping[str, Any], notation: LiteralArguments, literals: Literals) -> None:
        self._rule = rule
        self._schema = _Schema(schema)
        self._whole = schema
        self._notation = notation
        self._literals = literals
        self._rules: list[str] = []
        self._references: dict[str, str] = {}  # rules by reference
        self._count = 0
        self._comma = literals.of(notation.comma)

    def rules(self) -> Iterator[str]:
        """Yield all rules."""
        root = next(self._schema.alternatives(self._whole))
        yield f"{self._rule}: {self._members(root, is_call=True)}"
        yield from self._rules

    def _new(self, expression: str) -> str:
        self._count += 1
        name = f"{self._rule}_{self._count}"
        self._rules.append(f"{name}: {expression}")
        return name

    def _value(self, schema: Any) -> str:
        if not isinstance(schema, Mapping):
            return self._anything()
        if isinstance(reference := schema.get("$ref"), str):
            if reference not in self._references:  # it may refer to itself
                self._count += 1
                self._references[reference] = name = f"{self._rule}_{self._count}"
                self._rules.append(f"{name}: {self._value(self._schema.reference(schema))}")
            return self._references[reference]
        if (choices := self._schema.choices(schema)) is not None:
            return f"({' | '.join(dict.fromkeys(map(self._value, choices)))})"
        ways = dict.fromkeys(self._one(one) for one in self._schema.alternatives(schema))
        return f"({' | '.join(ways)})"

    def _one(self, schema: Mapping[str, Any]) -> str:
        """Write a value of one type."""
        if not schema:
            return self._anything()
        if "const" in schema:
            return self._literals.of(self._constant(schema["const"]))
        match schema["type"]:
            case "string":
                return self._string(schema)
            case "boolean":
                return f"({' | '.join(map(self._literals.of, self._notation.constants[:2]))})"
            case "null":
                return self._literals.of(self._notation.constants[2])
            case "array":
                return self._array(schema)
            case "object":
                members = self._members(schema, is_call=False)
                return f"{self._literals.of('{')} {members} {self._literals.of('}')}"
            case _:
                return self._new(self._schema.json_rule(schema))

    def _anything(self) -> str:
        if "" not in self._references:
            self._references[""] = f"{self._rule}_any"
            kinds = ("string", "number", "boolean", "null", "array", "object")
            self._rules.append(f"{self._rule}_any: {' | '.join(self._one({'type': kind}) for kind in kinds)}")
        return self._references[""]

    def _constant(self, value: Any) -> str:
        notation = self._notation
        if isinstance(value, str):
            return f"{notation.quote}{notation.escape(value)}{notation.quote}"
        if isinstance(value, list):
            return f"[{notation.comma.join(map(self._constant, value))}]"
        if isinstance(value, dict):
            members = (f"{notation.key(key)}{self._constant(member)}" for key, member in value.items())
            return f"{{{notation.comma.join(members)}}}"
        if value is None or isinstance(value, bool):
            return notation.constants[2 if value is None else 0 if value else 1]
        return json.dumps(value)

    def _string(self, schema: Mapping[str, Any]) -> str:
        rules, use = self._literals.until(
            f"{self._rule}_{self._count + 1}",
            self._notation.quote,
            character=self._notation.character,
            lengths=_lengths(schema),
        )
        self._count += 1
        self._rules += rules
        return f"{self._literals.of(self._notation.quote)} {use}"

    def _array(self, schema: Mapping[str, Any]) -> str:
        first = [self._value(item) for item in schema.get("prefixItems") or ()]
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        opens, closes = self._literals.of("["), self._literals.of("]")
        if first:
            return f"{opens} {f' {self._comma} '.join(first)} {closes}"
        if high == 0:
            return f"{opens} {closes}"
        item = self._value(schema.get("items", {}))
        several = item
        if high != 1:
            several += f" ({self._comma} {item}){{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
        return f"{opens} {several if low else f'({several})?'} {closes}"

    def _members(self, schema: Mapping[str, Any], *, is_call: bool) -> str:
        """Write the members of an object, in the order of the schema, with commas between those that are there."""
        notation = self._notation
        members = self._schema.members(schema)
        if not members:
            if schema.get("additionalProperties") is False:
                return self._literals.empty
            key = self._literals.of_pieces(notation.any_name if is_call else notation.any_key)
            member = self._new(f"{key} {self._value(_additional(schema))}")
            return f"({member} ({self._comma} {member})*)?"
        is_first = has_comma = self._literals.empty  # what may still come behind the last: nothing
        for key, value, required in reversed(members):
            write = notation.name if is_call else notation.key
            member = self._new(f"{self._literals.of(write(key))} {self._value(value)}")
            first = f"{member} {has_comma}" + ("" if required else f" | {is_first}")
            later = f"{self._comma} {member} {has_comma}" + ("" if required else f" | {has_comma}")
            is_first, has_comma = self._new(first), self._new(later)
        return is_first


def _additional(schema: Mapping[str, Any]) -> Any:
    values: Any = schema.get("additionalProperties", {})
    return values if isinstance(values, Mapping) else {}
