"""What of a JSON schema an answer can be held to: the schema for the grammar, and the keywords that it cannot hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

from app.services.generation import Constraint, ToolChoice
from app.services.json_schema.context import Meaningless
from app.services.json_schema.definitions import prune
from app.services.json_schema.rewriter import Rewriter
from app.services.json_schema.types import types_of

# What may be too much for the grammar in a place that cannot be told beforehand; what is missed least comes first.
_RISKY = (
    *("format", "minProperties", "maxProperties", "multipleOf", "if", "not", "dependentRequired", "dependentSchemas"),
    *("dependencies", "pattern", "minLength", "maxLength", "patternProperties", "propertyNames", "minItems"),
    *("maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "const", "oneOf", "anyOf"),
    *("allOf", "$ref", "$dynamicRef", "$recursiveRef", "additionalProperties", "required", "type"),
)
_LONGEST = 2**18  # characters of a schema
_LARGE = 200_000  # characters of a schema that is too large to try it many times
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Enforcement:
    """A schema that the grammar library takes, and the keywords of the original that it does not hold."""

    schema: Mapping[str, Any] | bool
    ignored: tuple[str, ...] = ()
    error: str | None = None  # why no answer can be held to the schema


def enforcement(schema: str, *, arguments: bool = False) -> Enforcement:
    """Find out what of a schema, as JSON, can be held. What was asked lately is known.

    Arguments of a tool are an object whatever their schema says, and what they cannot be held to is passed over; any
    other schema that means nothing has an `error`.
    """
    return _enforcement(schema, arguments) if len(schema) <= _LONGEST else _nothing("it is too large", arguments)


@lru_cache(maxsize=128)
def _enforcement(schema: str, arguments: bool) -> Enforcement:
    root = json.loads(schema)
    wrong_type = arguments and isinstance(root, dict) and "object" not in (types_of(root.get("type")) or ["object"])
    try:
        result = _best(_arguments(root) if arguments else root, arguments)
    except Meaningless as error:
        return _nothing(str(error), arguments)
    except RecursionError:
        return _nothing("it nests too deep", arguments)
    return replace(result, ignored=(*result.ignored, "type")) if wrong_type else result


def _nothing(why: str, arguments: bool) -> Enforcement:
    return Enforcement(_ANY_OBJECT, ("parameters",)) if arguments else Enforcement(True, error=why)


@dataclass(frozen=True, slots=True)
class Binding:
    """What an answer is to be held to: a constraint, tools, and whether they have to be called."""

    constraint: Constraint | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    choice: ToolChoice = ToolChoice()

    @property
    def has_schemas(self) -> bool:
        """Whether there is a schema to be looked through, which may take a while."""
        of_answer = self.constraint is not None and self.constraint.kind == "json_schema"
        return of_answer or bool(enforced_tools(self.tools, self.choice))

    def not_held(self) -> Iterator[str]:
        """Name the keywords that an answer is not held to: `response_format.uniqueItems`, `tools.pattern`."""
        if self.constraint is not None and self.constraint.kind == "json_schema":
            yield from (f"{self.constraint.param}.{keyword}" for keyword in enforcement(self.constraint.text).ignored)
        for tool in enforced_tools(self.tools, self.choice):
            keywords = enforcement(parameters_of(tool), arguments=True).ignored
            yield from (f"tools.{keyword}" for keyword in keywords)


def enforced_tools(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> list[Mapping[str, Any]]:
    """Give the tools whose arguments have to match their schema."""
    if choice.mode == "none":
        return []
    return [
        tool
        for tool in tools
        if (not choice.names or tool["function"]["name"] in choice.names)
        and (choice.mode == "required" or tool["function"]["name"] in choice.strict)
    ]


def parameters_of(tool: Mapping[str, Any]) -> str:
    """Give the schema of a tool's arguments, as JSON."""
    return json.dumps(tool["function"].get("parameters") or {})


def _arguments(root: Any) -> Any:
    """Say of the schema of arguments that they are an object."""
    if not isinstance(root, dict):
        return _ANY_OBJECT
    return {key: value for key, value in root.items() if key != "nullable"} | _ANY_OBJECT


def _best(root: Any, arguments: bool) -> Enforcement:
    """Leave out as little as possible. Raises Meaningless."""
    whole = _attempt(root)
    if whole.error is None:
        return whole
    if _is_unsatisfiable(whole.error) and not arguments:
        without_formats = _attempt(root, frozenset({"format"}))  # ours are narrower than they have to be
        if without_formats.error is None:
            return without_formats
        raise Meaningless(whole.error)
    risky = frozenset(_RISKY) & _keys(root)
    best = _attempt(root, risky)
    if best.error is not None:
        raise Meaningless(whole.error)
    for keyword in reversed(_RISKY) if len(str(best.schema)) < _LARGE else ():
        if keyword in risky and (better := _attempt(root, risky - {keyword})).error is None:
            risky, best = risky - {keyword}, better
    return best


def _keys(root: Any) -> set[str]:
    """Give all keys of a document."""
    keys: set[str] = set()
    pending = [root]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            keys |= part.keys()
        pending += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return keys


def _attempt(root: Any, without: frozenset[str] = frozenset()) -> Enforcement:
    rewriter = Rewriter(root, _is_possible, without)
    schema = rewriter.whole()
    error = _refusal(schema)
    if _is_unsatisfiable(error) and isinstance(schema, dict) and "$defs" in schema:
        schema = prune(schema, lambda part: not _is_unsatisfiable(_refusal(part)))
        error = _refusal(schema)
    return Enforcement(schema, tuple(sorted(rewriter.ignored)), error)


def _is_unsatisfiable(error: str | None) -> bool:
    return (error or "").startswith("Unsatisfiable")


def _is_possible(schema: Any) -> bool:
    return _refusal(schema) is None


def _refusal(schema: Any) -> str | None:
    """Say why the grammar library does not take a schema, None where it does."""
    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    except ValueError as error:
        return str(error)
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, None)
    return (messages[0] if messages else "it cannot be compiled").strip() if failed else None
