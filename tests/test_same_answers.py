"""A request has one answer, whatever its parameters: whole, streamed, and in a batch with others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.dto.shared import parameters
from tests.conftest import Server
from tests.dialects import DIALECTS, Dialect, Json

ROUNDING = 2e-4  # how far a batch may move a log-probability, which is told with four digits
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.route)


@each_dialect
def test_every_parameter_that_is_honoured_is_drawn(dialect: Dialect) -> None:
    registry = parameters.REGISTRIES[dialect.route]
    honoured = {parameter.name for parameter in registry if parameter.treatment == "honoured"}
    assert dialect.drawn | dialect.apart.keys() == honoured
    assert not dialect.drawn & dialect.apart.keys()


@each_dialect
@settings(deadline=None, max_examples=7, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_an_answer_is_the_same_whole_streamed_and_beside_others(
    adapted: Server, dialect: Dialect, data: st.DataObject
) -> None:
    answers_are_the_same(adapted, dialect, data.draw(dialect.several_bodies()))


@pytest.mark.slow
@each_dialect
@settings(deadline=None, max_examples=14, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_many_more_answers_are_the_same(adapted: Server, dialect: Dialect, data: st.DataObject) -> None:
    answers_are_the_same(adapted, dialect, data.draw(dialect.several_bodies()))


def answers_are_the_same(server: Server, dialect: Dialect, bodies: list[Json]) -> None:
    """Ask for each answer alone, then as a stream, then for all of them at once and beside somebody else's.

    In about one of a million draws two tokens are so close that the rounding of a batch decides, and the rest of that
    answer is another one. Nothing else is as rare: with other draws the same bodies have to have the same answers.
    """
    alone, *others = _answers(server, dialect, bodies)
    if any(words(other) != words(alone) for other in others):
        bodies = [_other_draws(body, times) for times in range(1, 4) for body in bodies]
        alone, *others = _answers(server, dialect, bodies)
    for other in others:
        assert words(other) == words(alone)
        assert numbers(other) == pytest.approx(numbers(alone), abs=ROUNDING)


def _answers(server: Server, dialect: Dialect, bodies: list[Json]) -> tuple[list[Any], list[Any], list[Any]]:
    """Give what each answer says alone, as a stream, and beside others. Several of one body are a batch each time."""

    def whole(body: Json) -> Any:
        return dialect.whole(body, asked(server, dialect, body).json())

    alone = [whole(body) for body in bodies]
    streamed = [dialect.streamed(body, asked(server, dialect, body | {"stream": True}).text) for body in bodies]
    with somebody_else(server), ThreadPoolExecutor(len(bodies)) as callers:
        return alone, streamed, list(callers.map(whole, bodies))


def _other_draws(body: Json, times: int) -> Json:
    """Give a body with another seed, wherever it has one."""
    if "options" in body:
        return body | {"options": _other_draws(body["options"], times)}
    return body | {"seed": (body["seed"] + times) % 2**32}


def asked(server: Server, dialect: Dialect, body: Json) -> httpx.Response:
    answer = server.client.post(dialect.route, json=body)
    assert answer.status_code == 200, answer.text
    return answer


@contextmanager
def somebody_else(server: Server) -> Iterator[None]:
    """An answer under way that does not end before the block does, so that whatever is asked has company."""
    body = {"prompt": "Once", "stream": True, "ignore_eos": True, "seed": 1}
    with server.client.stream("POST", "/completion", json=body) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        yield


def words(said: Any) -> Any:
    """All but the broken numbers."""
    if isinstance(said, dict):
        return {name: words(value) for name, value in said.items()}
    if isinstance(said, list | tuple):
        return [words(value) for value in said]
    return None if isinstance(said, float) else said


def numbers(said: Any) -> list[float]:
    """The broken numbers, in order."""
    if isinstance(said, dict | list | tuple):
        return [number for value in (said.values() if isinstance(said, dict) else said) for number in numbers(value)]
    return [said] if isinstance(said, float) else []
