"""Answers under schemas: whatever is drawn of what the grammar allows is right by JSON Schema."""

import datetime
import enum
import ipaddress
import json
import random
import re
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AwareDatetime,
    BaseModel,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    PostgresDsn,
    SecretStr,
    conint,
    constr,
    create_model,
)

from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.engine.sampling.literals import json_rule
from app.services.generation import Constraint
from app.services.json_schema.enforcement import enforcement
from tests.schemas import WRITTEN, check, schemas

pytestmark = pytest.mark.slow


class Writer:
    """Writes answers of random tokens that a grammar allows, brackets rather than what opens more."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ends = frozenset(tokenizer.eos_token_ids)
        self._width = len(tokenizer)
        self._grammars = GrammarCompiler(tokenizer, self._width, self._ends)
        texts = [str(tokenizer.decode([token])) for token in range(self._width)]
        self._closing = {token for token, text in enumerate(texts) if text[:1] in ('"', "}", "]")}

    def write(self, schema: Any, seed: int) -> str | None:
        """An answer, None where it does not come to an end."""
        chance = random.Random(seed)
        rule = f"%llguidance {{}}\nstart: {json_rule(schema)}"
        matcher = self._grammars.compile(Constraint("lark", rule, "response_format"))
        tokens: list[int] = []
        for length in range(400):
            allowed = np.flatnonzero(matcher.mask()).tolist()
            ends = self._ends.intersection(allowed)
            if ends and (len(allowed) == len(ends) or chance.random() < 0.3):
                return str(self._tokenizer.decode(tokens))
            following = [token for token in allowed if token not in ends]
            closing = [token for token in following if token in self._closing]
            tokens.append(chance.choice(closing if closing and chance.random() < 0.2 + length / 400 else following))
            assert matcher.consume(tokens[-1])
        return None


@pytest.fixture(scope="module")
def writer(tokenizer: Any) -> Writer:
    return Writer(tokenizer)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_libraries_write_is_held(name: str, writer: Writer) -> None:
    schema, ignored = WRITTEN[name]
    enforced = enforcement(json.dumps(schema))
    assert enforced.error is None
    assert enforced.ignored == ignored
    answers = [answer for seed in range(5) if (answer := writer.write(enforced.schema, seed)) is not None]
    assert answers
    for answer in answers:
        check(json.loads(answer), schema, ignored)


@given(schemas(), st.integers(0, 3))
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
def test_an_answer_is_right_but_for_what_is_named(writer: Writer, schema: dict[str, Any], seed: int) -> None:
    enforced = enforcement(json.dumps(schema))
    if enforced.error is None and (answer := writer.write(enforced.schema, seed)) is not None:
        check(json.loads(answer), schema, enforced.ignored)


@given(schemas())
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_arguments_are_an_object_whatever_their_schema_says(writer: Writer, schema: dict[str, Any]) -> None:
    enforced = enforcement(json.dumps(schema), arguments=True)
    assert enforced.error is None
    if (answer := writer.write(enforced.schema, 1)) is not None:
        value = json.loads(answer)
        assert isinstance(value, dict)
        if "parameters" not in enforced.ignored:
            check(value, schema, enforced.ignored)


def test_an_object_may_have_very_many_properties_that_need_not_be_there(writer: Writer) -> None:
    schema = {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(600)}}
    answer = writer.write(enforcement(json.dumps(schema | {"additionalProperties": False})).schema, 1)
    check(json.loads(answer or ""), schema, ())


@pytest.mark.parametrize("factor", [997, 9973, 99991])
def test_multiples_between_bounds_do_not_end_in_their_middle(factor: int, writer: Writer) -> None:
    schema = {"type": "integer", "multipleOf": factor, "minimum": 1234567890123, "maximum": 99999999999999999}
    enforced = enforcement(json.dumps(schema))
    for seed in range(8):
        check(json.loads(writer.write(enforced.schema, seed) or ""), schema, enforced.ignored)


def test_null_may_come_where_openapi_says_so(writer: Writer) -> None:
    schema = {"type": "string", "nullable": True, "maxLength": 3}
    answers = {writer.write(enforcement(json.dumps(schema)).schema, seed) for seed in range(20)}
    assert "null" in answers
    assert len(answers) > 1


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: conint(ge=0, le=9)  # type: ignore[valid-type]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: constr(max_length=5) | None = None  # type: ignore[valid-type]


class Branch(BaseModel):
    value: int
    branches: list["Branch"] = Field(default=[], max_length=1)


@pytest.mark.parametrize(
    ("kind", "ignored"),
    [
        (set[int], ("uniqueItems",)),
        (frozenset[Colour], ("uniqueItems",)),
        (dict[Colour, int], ()),
        (uuid.UUID, ()),
        (UUID4, ()),
        (Path, ("format",)),
        (SecretStr, ()),
        (bytes, ()),
        (ipaddress.IPv4Address, ()),
        (ipaddress.IPv4Network, ()),
        (ipaddress.IPv6Network, ()),
        (IPvAnyAddress, ()),
        (IPvAnyNetwork, ()),
        (re.Pattern, ("format",)),
        (datetime.date, ()),
        (datetime.time, ()),
        (datetime.timedelta, ()),
        (AwareDatetime, ()),
        (Annotated[Cat | Dog, Field(discriminator="kind")], ()),
        (Cat | Dog, ()),
        (Branch, ()),
        (tuple[int, str], ()),
        (conint(gt=0, lt=100, multiple_of=7), ()),
        (Literal["a", 1, None], ()),
        (list[int | str | None], ()),
        (PostgresDsn, ()),
    ],
)
def test_what_pydantic_writes_is_held(kind: Any, ignored: tuple[str, ...], writer: Writer) -> None:
    model = create_model("Made", a=(kind, ...))
    enforced = enforcement(json.dumps(model.model_json_schema()))
    assert (enforced.error, enforced.ignored) == (None, ignored)
    answers = [answer for seed in range(4) if (answer := writer.write(enforced.schema, seed)) is not None]
    assert answers
    for answer in answers:
        if kind is PostgresDsn or "format" in ignored:  # which wants more than its schema says
            assert isinstance(json.loads(answer)["a"], str)
        else:
            model.model_validate_json(answer)
