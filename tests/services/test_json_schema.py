"""What of a JSON schema can be held, without any model."""

import base64
import ipaddress
import json
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.generation import Constraint, ToolChoice
from app.services.json_schema.enforcement import Binding, Enforcement, enforcement
from app.services.json_schema.formats import PATTERNS
from app.services.json_schema.patterns import none_of, translate
from tests.schemas import WRITTEN

pytestmark = pytest.mark.slow


def of(schema: Any, **more: bool) -> tuple[str, ...]:
    return enforcement(json.dumps(schema), **more).ignored


PATTERNS_OF_PEOPLE = [
    r"^a\Z",
    r"\A[ab]+\Z",
    r"^(?=.*a)(?=.*b)[ab.]{2,5}$",
    r"^(?!a)[ab]*$",
    r"^(?!.*aa)[ab]*$",
    r"^(?!.*ab)[ab]*$",
    r"^(?!.*\.)[ab.]*$",
    r"^(?!(?:a|ab)$)[ab]*$",
    r"^(?!$)a*$",
    r"^(?!\.)(?!.*\.\.)[ab.]*b$",
    r"^{a}$",
    r"^[[a]$",
    r"^[a&&b]+$",
    r"^\@\<a\>$",
    r"^(a|b)\1$",
    r"a\b",
    r"^a(?=b)b$",
    r"(?<!a)b",
    r"^(?#what)a+$",
    r"^a{2}$|^b",
    r"^(?=a)a|b$",
    r"[\s\S]a",
]


@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")  # what Python may do one day
@pytest.mark.filterwarnings("ignore:Possible set:FutureWarning")
@pytest.mark.parametrize("pattern", PATTERNS_OF_PEOPLE)
@given(text=st.text("ab.{}[&@<>\n", max_size=6))
@settings(deadline=None, max_examples=80)
def test_a_pattern_means_the_same_in_other_words_or_lets_more_through(pattern: str, text: str) -> None:
    text = text.rstrip("\n")  # before which the $ of Python may be
    translation = translate(pattern)
    assert translation.patterns
    original = re.search(pattern, text) is not None
    other = all(re.search(one, text) is not None for one in translation.patterns)
    assert other == original if translation.exact else other or not original


@given(st.lists(st.text("ab-]^", max_size=3), min_size=1, max_size=4), st.text("ab-]^c", max_size=4))
@settings(deadline=None, max_examples=200)
def test_the_pattern_of_all_but_some_texts(words: list[str], text: str) -> None:
    assert (re.search(none_of(words), text) is not None) == (text not in words)


def duration(text: str) -> None:
    assert re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", text)


CHECKS: dict[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "time": time.fromisoformat,
    "duration": duration,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "ipvanyaddress": ipaddress.ip_address,
    "cidrv4": ipaddress.IPv4Interface,
    "cidrv6": ipaddress.IPv6Interface,
    "ipv4network": ipaddress.IPv4Network,
    "ipv6network": ipaddress.IPv6Network,
    "uuid": uuid.UUID,
    "base64": lambda text: base64.b64decode(text, validate=True),
    "byte": lambda text: base64.b64decode(text, validate=True),
    "base64urlencode": base64.urlsafe_b64decode,
    "hex": bytes.fromhex,
}


@pytest.mark.parametrize("name", CHECKS)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_what_a_formats_pattern_matches_is_of_that_format(name: str, data: st.DataObject) -> None:
    CHECKS[name](data.draw(st.from_regex(f"\\A(?:{PATTERNS[name]})\\Z", alphabet=st.characters(codec="ascii"))))


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("date", "2024-02-29"),
        ("date-time", "1999-12-31T23:59:59.5+05:30"),
        ("email", "first.last+tag@mail.example.co.uk"),
        ("hostname", "a-b.example.com"),
        ("ipv6", "2001:db8::1"),
        ("url", "https://example.com:8080/a%20b/c?d=e&f#g"),
        ("uri-reference", "../a/b?c#d"),
        ("uuid4", "f47ac10b-58cc-4372-a567-0e02b2c3d479"),
        ("uuidv7", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("ulid", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("nanoid", "V1StGXR8_Z5jdHi6B-myT"),
        ("e164", "+14155552671"),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"),
        ("color", "#ff8800"),
        ("json-pointer", "/a~1b/0"),
        ("base64url", "_-8a"),
        ("multi-host-uri", "postgres://db.example.com/a"),
    ],
)
def test_formats_take_what_everybody_means_by_them(name: str, right: str) -> None:
    assert re.fullmatch(PATTERNS[name], right)


def test_a_leap_day_is_one_in_leap_years_only() -> None:
    days = [f"{year:04}-02-29" for year in (1900, 2000, 2023, 2024, 2100, 2400)]
    assert [day for day in days if re.fullmatch(PATTERNS["date"], day)] == [days[1], days[3], days[5]]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "false"),
        ({"not": {}}, "false"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "Unsatisfiable"),
        ({"type": "string", "enum": [1, 2]}, "Unsatisfiable"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "Unsatisfiable"),
        ({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}, "Unsatisfiable"),
        ({"$ref": "#"}, "leads nowhere"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
    ],
)
def test_a_schema_that_nothing_can_match_has_an_error_and_arguments_pass_over_it(schema: Any, why: str) -> None:
    enforced = enforcement(json.dumps(schema))
    assert enforced.error is not None
    assert why in enforced.error
    assert enforcement(json.dumps(schema), arguments=True).error is None


def test_a_format_that_is_narrower_here_than_its_pattern_gives_way() -> None:
    local = {"type": "string", "format": "email", "pattern": "^[a-z]+@localhost$"}
    assert of({"type": "object", "properties": {"a": local}, "required": ["a"]}) == ("format",)


def test_names_of_types_that_people_use_are_understood() -> None:
    for name, type_ in (
        ("OBJECT", "object"),
        ("float", "number"),
        ("str", "string"),
        ("list", "array"),
        ("int", "integer"),
    ):
        assert enforcement(json.dumps({"type": name})).schema == {"type": type_}
    assert enforcement('{"type": "any"}') == enforcement("{}")
    assert of({"type": "file"}) == ("type",)
    assert of({"type": ["string", "file"]}) == ("type",)


def chained(length: int, **beside: Any) -> dict[str, Any]:
    links = {f"d{n}": {"properties": {"n": {"$ref": f"#/$defs/d{n + 1}"}}} | beside for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": links | {f"d{length}": {}}}


def doubled(length: int) -> dict[str, Any]:
    links = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": links | {f"d{length}": {"type": "object"}}}


def nested(depth: int, keyword: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {keyword: schema if keyword == "not" else [schema, {"type": "null"}]}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        *(chained(5000), doubled(40), chained(900), {"enum": ["x" * 2**20]}),
        {"properties": {f"p{number}": {} for number in range(3000)}},
        {"required": [f"p{number}" for number in range(3000)]},
        {"patternProperties": {f"^a{{{number}}}b": {} for number in range(200)}},
    ],
)
def test_what_is_too_deep_or_too_large_is_an_error_that_says_so(schema: dict[str, Any]) -> None:
    enforced = enforcement(json.dumps(schema))
    assert enforced.error in ("it nests too deep", "it is too large")
    assert of(schema, arguments=True) == ("parameters",)


@pytest.mark.parametrize(
    "schema",
    [
        chained(100),
        chained(20, type="object"),
        nested(50, "anyOf"),
        nested(60, "not"),
        {"enum": [f"value {n}" for n in range(5000)]},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(500)}},
        {"type": "string", "maxLength": 100_000},
        {"type": "array", "maxItems": 10_000},
    ],
)
def test_what_is_only_large_is_held(schema: dict[str, Any]) -> None:
    enforced = enforcement(json.dumps(schema))
    assert (enforced.error, enforced.ignored) == (None, ())


@pytest.mark.parametrize("keyword", ["anyOf", "allOf", "oneOf", "not"])
@pytest.mark.parametrize("depth", [70, 130, 250])
def test_what_nests_deep_is_no_crash(keyword: str, depth: int) -> None:
    enforcement(json.dumps(nested(depth, keyword)))
    assert enforcement(json.dumps(nested(depth, keyword)), arguments=True).error is None


@pytest.mark.parametrize(
    "keyword",
    [
        *("type", "enum", "allOf", "anyOf", "oneOf", "properties", "patternProperties", "additionalProperties"),
        *("required", "items", "prefixItems", "minItems", "maxLength", "pattern", "format", "minimum", "multipleOf"),
        *("$ref", "$defs", "$id", "$anchor", "not", "if", "contains", "propertyNames", "dependentRequired", "nullable"),
    ],
)
@pytest.mark.parametrize("value", [None, True, 0, -1, 1.5, 1e300, 10**400, "x", "", [], [None], {}, {"a": None}, [[]]])
def test_nonsense_under_a_keyword_is_no_crash(keyword: str, value: Any) -> None:
    for schema in ({keyword: value}, {"type": ["string", "object", "array", "number"], keyword: value}):
        enforcement(json.dumps(schema))
        assert enforcement(json.dumps(schema), arguments=True).error is None


def test_a_schema_that_is_true_holds_to_nothing_and_one_that_is_false_is_refused() -> None:
    assert enforcement("true") == Enforcement(True)
    assert "schema is false" in (enforcement("false").error or "")
    assert enforcement('{"$ref": "#/$defs/a", "$defs": {"a": true}}').error is None


def test_names_of_what_is_not_held_say_where_it_was_asked_for() -> None:
    schema = {"type": "array", "uniqueItems": True}
    constraint = Constraint("json_schema", json.dumps(schema), "text.format")
    parameters = {"type": "object", "properties": {"a": schema, "b": {"type": "string", "format": "path"}}}
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("f", "g")]
    assert list(Binding(constraint).not_held()) == ["text.format.uniqueItems"]
    assert list(Binding(None, tools, ToolChoice()).not_held()) == []
    assert list(Binding(None, tools, ToolChoice("none", strict=frozenset({"f"}))).not_held()) == []
    names = {"tools.uniqueItems", "tools.format"}
    for choice in (ToolChoice("required"), ToolChoice(strict=frozenset({"f"})), ToolChoice("required", names=("g",))):
        assert set(Binding(None, tools, choice).not_held()) == names
    assert list(Binding(None, tools, ToolChoice("required", names=())).not_held()) != []


def test_the_same_schema_is_looked_at_once() -> None:
    schema = json.dumps(WRITTEN["a discriminated union"][0])
    assert enforcement(schema) is enforcement(schema)
