"""Values of the types that OpenAI's and Anthropic's packages send: all kinds that there are, without a list of ours."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Required, get_args, get_origin

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

TEXTS = st.sampled_from(["look", "Oslo is in Norway.", "https://tiles.example/a", "ß\n", "{}"])
OBJECTS = st.dictionaries(st.sampled_from(["a", "query"]), TEXTS, max_size=2)
ANYTHING: SearchStrategy[Any] = st.one_of(TEXTS, OBJECTS, st.lists(OBJECTS, max_size=1))


def members(union: Any) -> list[Any]:
    """The typed dictionaries of a union, those of unions in it too."""
    if is_typeddict(union):
        return [union]
    return [member for part in get_args(union) for member in members(part)]


def kind(member: Any) -> str:
    """The type that such a dictionary says it has."""
    hint = get_type_hints(member).get("type")
    while get_origin(hint) is not Literal and get_args(hint):
        hint = get_args(hint)[0]
    return str(get_args(hint)[0]) if get_args(hint) else ""


@cache
def values(hint: Any) -> SearchStrategy[Any]:
    """Values of a type: dictionaries have all that they need, and some of what they may have."""
    if is_typeddict(hint):
        fields = {name: st.deferred(lambda part=part: values(part)) for name, part in get_type_hints(hint).items()}
        marked = get_type_hints(hint, include_extras=True)
        required = {name: fields.pop(name) for name in marked if get_origin(marked[name]) is Required}
        return st.fixed_dictionaries(required, optional=fields)
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (list, Sequence, Iterable) or "SequenceNotStr" in str(origin):
        return st.lists(values(parts[0]), min_size=1, max_size=2)
    if origin in (dict, Mapping):
        return st.dictionaries(st.sampled_from(["a", "query"]), values(parts[1]), max_size=2)
    if parts:
        known = [part for part in parts if not (isinstance(part, type) and issubclass(part, BaseModel))]
        return st.one_of([values(part) for part in known])
    simple = {str: TEXTS, int: st.integers(0, 9), float: st.sampled_from([0.5, 2.0]), bool: st.booleans()}
    return simple.get(hint, st.none() if hint is type(None) else OBJECTS)
