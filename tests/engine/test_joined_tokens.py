"""Tokens that hold the end of a text that a grammar forces and the beginning of what follows: none is shut out."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from app.services.engine.model.loading import read_tokenizer
from app.services.engine.output.parts import CallStart
from app.services.engine.output.tool_call_formats import call_format
from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.engine.sampling.literals import Literals
from app.services.engine.sampling.matcher import Matcher
from app.services.engine.sampling.tool_call_grammar import AllowedTool, begun_call_grammar
from app.services.generation import Constraint

DEMO = Path(__file__).parents[2] / "app" / "tiles_nano"
NAMES = ["q", "query", "city", "time zone", "arguments", "x1"]
WORDS = st.sampled_from(["", "time", "Paris", "a b", '"', "ü", "{}", "1", "arguments"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 999) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def objects(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema of an object with strings, open or not, and such an object."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    schema: dict[str, Any] = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    schema["required"] = [name for name in names if draw(st.booleans())]
    value = {name: draw(WORDS) for name in names if name in schema["required"] or draw(st.booleans())}
    if draw(st.booleans()):
        schema["additionalProperties"] = False
        return schema, value
    return schema, value | {f"other {name}": draw(VALUES) for name in draw(st.sets(st.sampled_from(NAMES), max_size=2))}


class Wrapper:
    """What mlx-lm wraps around a tokenizer, as far as it is needed."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.added_tokens_decoder = tokenizer.added_tokens_decoder
        self.chat_template = None


@lru_cache
def grammars(kind: str) -> tuple[Any, GrammarCompiler]:
    """A tokenizer whose tokens reach over the marks of JSON, and its grammars."""
    if kind == "demo":
        wrapper = read_tokenizer(DEMO, None)
        tokenizer = wrapper._tokenizer
        return tokenizer, GrammarCompiler(wrapper, len(tokenizer), frozenset(wrapper.eos_token_ids))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=["<end>", "<tool_call>", "</tool_call>"]
    )
    calls = [f'{{"name": "get_{name}", "arguments": {{"{key}": "{name} {key}"}}}}' for name in NAMES for key in NAMES]
    made.train_from_iterator([*calls, json.dumps({"q": "time", "query": "Paris", "city": ["a b"]})] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")
    return tokenizer, GrammarCompiler(Wrapper(tokenizer), len(tokenizer), frozenset([0]))


def follow(matcher: Matcher, tokenizer: Any, text: str) -> None:
    """Walk through a text as the tokenizer writes it: its tokens have to be allowed, and forced ones have to come."""
    forced: list[int] = []
    tokens = tokenizer.encode(text, add_special_tokens=False)
    for index, token in enumerate(tokens):
        forced = forced or matcher.forced_tokens()
        assert matcher.mask()[token], (text, tokenizer.convert_ids_to_tokens(tokens[: index + 1]))
        if forced:
            assert forced.pop(0) == token
        assert matcher.consume(token)
    assert matcher.is_accepting


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["demo", "trained"]), drawn=objects())
def test_an_object_in_the_tokenizers_writing_is_allowed(
    kind: str, drawn: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    tokenizer, compiler = grammars(kind)
    matcher = compiler.compile(Constraint("json_schema", json.dumps(drawn[0]), "response_format"))
    follow(matcher, tokenizer, json.dumps(drawn[1], ensure_ascii=False))


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["demo", "trained"]), drawn=objects(), one=st.sampled_from(["get_info", "get_q", "now"]))
def test_a_call_in_the_tokenizers_writing_is_allowed(
    kind: str, drawn: tuple[dict[str, Any], dict[str, Any]], one: str
) -> None:
    tokenizer, compiler = grammars(kind)
    form = call_format("json_tools", "")
    assert form is not None
    literals = Literals(compiler._special_tokens())
    tools = [AllowedTool(one, drawn[0]), AllowedTool("get_datetime", {"type": "object"})]
    start = CallStart("", "<tool_call>")
    matcher = compiler.compile(begun_call_grammar(tools, form, literals, start, parallel=True))
    call = json.dumps({"name": one, "arguments": drawn[1]}, ensure_ascii=False)
    follow(matcher, tokenizer, f"\n{call}\n</tool_call>")
