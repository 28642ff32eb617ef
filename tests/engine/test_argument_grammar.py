"""Arguments that a grammar sees to where they are no JSON: whatever is drawn, it is of the tool's schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.generation import GenerationRequest, ToolChoice
from tests.engine.families import FAMILIES
from tests.engine.test_tool_call_grammar import calls_of, draw, form_of, model

NAMES = [name for name, family in FAMILIES.items() if not family.streams]
LITERALS = ("gemma4", "function_gemma", "pythonic")  # whose objects and lists are no JSON either

WORDS = st.text("abcxyz", min_size=1, max_size=6)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda low: {"type": "integer", "minimum": low, "maximum": low + 20}, st.integers(-9, 9)),
    st.just({"type": "boolean"}),
    st.builds(lambda most: {"type": "string", "minLength": 1, "maxLength": most}, st.integers(1, 4)),
    st.builds(lambda words: {"enum": words}, st.lists(WORDS, min_size=1, max_size=3, unique=True)),
    st.just({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}]}),
    st.just({"enum": [1, 2.5, True, None]}),
    st.just({"$ref": "#/$defs/kind"}),
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.dictionaries(WORDS, values, min_size=1, max_size=3)
    return members.flatmap(
        lambda properties: st.builds(
            lambda required: {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            },
            st.lists(st.sampled_from(sorted(properties)), unique=True),
        )
    )


LISTS = st.builds(
    lambda items, most: {"type": "array", "items": items, "minItems": 1, "maxItems": most}, SCALARS, st.integers(1, 3)
)
DEFINITIONS = {"kind": {"enum": ["tile", "wall"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=objects(SCALARS | LISTS | objects(SCALARS)), seed=st.integers(0, 1000))
def test_every_argument_is_of_its_schema(name: str, folder: Path, schema: dict[str, Any], seed: int) -> None:
    tokenizer, grammars, markup = model(name, folder, True)
    schema = {**schema, "$defs": DEFINITIONS}
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    request = GenerationRequest(tools=(tool,), tool_choice=ToolChoice("required", parallel=False))
    text = draw(tokenizer, grammars, request, markup, seed)
    ((_, called, arguments),) = calls_of(text, markup, request)
    assert called == "add"
    jsonschema.validate(json.loads(arguments), schema)


@pytest.mark.parametrize("name", LITERALS)
def test_a_schema_may_contain_itself(name: str, folder: Path) -> None:
    tokenizer, grammars, markup = model(name, folder, True)
    node = {
        "type": "object",
        "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["v"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/node"}},
        "required": ["n"],
        "$defs": {"node": node},
    }
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    request = GenerationRequest(tools=(tool,), tool_choice=ToolChoice("required", parallel=False))
    for seed in range(5):
        ((*_, arguments),) = calls_of(draw(tokenizer, grammars, request, markup, seed), markup, request)
        jsonschema.validate(json.loads(arguments), schema)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["a < b </ c", "two\nlines\n", "</p><b>", "quotes \" and ' and `", "🙂 {x: [1]}", " "])
def test_a_string_may_be_any_text(name: str, text: str, folder: Path) -> None:
    """What a family's own template would write of a call is what its grammar allows."""
    tokenizer, grammars, markup = model(name, folder, True)
    notation = form_of(markup)
    assert notation is not None
    if name == "pythonic":
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    family = FAMILIES[name]
    call = family.calls[0].rstrip().replace(str(family.arguments["a"]), text)
    tool = {"type": "function", "function": {"name": "add"}}
    request = GenerationRequest(tools=(tool,), tool_choice=ToolChoice("required"))
    matcher = grammars.compile_request(request, notation)
    assert matcher is not None
    ids = tokenizer.encode(call, add_special_tokens=False)
    assert matcher.begin_with(ids)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    [
        True,
        {"anyOf": [True, {"type": "null"}]},
        {"allOf": [True, {"type": "string"}]},
        {"enum": []},
        {"not": {"type": "string"}},
        {"type": "array", "items": False},
        {"type": "array", "minItems": 3, "maxItems": 1},
        {"type": "string", "minLength": 5, "maxLength": 1},
        {"const": {"k": [1, None, "z"]}},
        {"$ref": "#/$defs/itself"},
    ],
)
def test_an_odd_schema_of_an_argument_is_no_failure(name: str, value: Any, folder: Path) -> None:
    _, grammars, markup = model(name, folder, True)
    schema = {"properties": {"a": value}, "required": ["a"], "$defs": {"itself": {"$ref": "#/$defs/itself"}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    request = GenerationRequest(tools=(tool,), tool_choice=ToolChoice("required", parallel=False))
    assert grammars.compile_request(request, form_of(markup)) is not None
