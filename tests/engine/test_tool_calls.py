"""Calls of every family: whole and in pieces of every size, as text and as ids, well-formed and not."""

import json
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm import tool_parsers

from app.services.engine.output.detokenizer import detokenizer_factory
from app.services.engine.output.markup import Markup
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import OutputPart
from app.services.engine.output.tool_call_tags import TagSyntax
from app.services.generation import ToolArguments, ToolCall
from tests.engine.families import FAMILIES, TWO, A, byte_tokenizer, to_json
from tests.engine.parsing import ADDED, CALL, JSON, TOOLS, markup, merge_parts, parse, split


def text_part(text: str) -> list[Any]:
    return [text, False]


def call_part(index: int, arguments: Any) -> tuple[int, str, Any]:
    return index, "add", arguments


STREAMED = [name for name, family in FAMILIES.items() if family.streams]
WHOLE = [name for name, family in FAMILIES.items() if not family.streams]


@cache
def markup_of(name: str) -> Markup:
    family = FAMILIES[name]
    return markup(family.parser, template=family.template)


def with_values(parts: list[Any]) -> list[Any]:
    """Calls with their arguments as values, for formats in which they are written in another way than JSON."""
    return [(*part[:2], json.loads(part[2])) if isinstance(part, tuple) else part for part in parts]


def expected(name: str) -> list[Any]:
    family = FAMILIES[name]
    before = [text_part(family.before)] if family.before else []
    after = [text_part(family.after)] if family.after else []
    return [*before, call_part(0, family.arguments), call_part(1, TWO), *after]


def test_every_parser_of_mlx_lm_is_here() -> None:
    parsers = {module.name for module in pkgutil.iter_modules(tool_parsers.__path__)}
    assert {family.parser for family in FAMILIES.values()} - {None} == parsers


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_are_parsed_whatever_the_pieces(name: str) -> None:
    text = FAMILIES[name].text
    whole = parse([text], markup_of(name), tools=TOOLS)
    assert (with_values(whole[0]), whole[1]) == (expected(name), None)
    assert parse(list(text), markup_of(name), tools=TOOLS) == whole
    for cut in range(1, len(text)):
        assert parse([text[:cut], text[cut:]], markup_of(name), tools=TOOLS) == whole


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=12))
def test_calls_are_parsed_at_any_split(name: str, cuts: list[int]) -> None:
    parts, _ = parse(split(FAMILIES[name].text, cuts), markup_of(name), tools=TOOLS)
    assert with_values(parts) == expected(name)


@pytest.mark.parametrize("name", STREAMED)
def test_json_arguments_come_as_they_are_written_and_their_sum_is_the_whole(name: str) -> None:
    parser, arguments, names = OutputParser(markup_of(name), tools=TOOLS), ["", ""], []
    for character in FAMILIES[name].text:
        for part in parser.feed(character):
            if isinstance(part, ToolCall):
                names.append((part.index, part.name, arguments[0] if part.index else ""))
            elif isinstance(part, ToolArguments):
                assert len(part.text) < 12  # what may close a string waits for what follows
                arguments[part.index] += part.text
    assert arguments == [to_json(A), to_json(TWO)]
    assert names == [(0, "add", ""), (1, "add", to_json(A))]
    assert parser.complete_calls == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_that_is_cut_gives_nothing_wrong_and_loses_nothing(name: str) -> None:
    family = FAMILIES[name]
    for cut in range(len(family.before), len(family.text)):
        parts, _ = parse([family.text[:cut]], markup_of(name), tools=TOOLS)
        for part in parts:
            if isinstance(part, list):
                assert part[0].strip() in family.text
            elif is_json(part[2]):
                assert json.loads(part[2]) == (family.arguments, TWO)[part[0]]
            else:
                assert family.streams
                assert to_json((family.arguments, TWO)[part[0]]).startswith(part[2])
        assert parts[0][0].startswith(family.before)
        assert len(parts) > 1 or parts[0][0] == family.text[:cut]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", WHOLE)
def test_a_call_that_lacks_nothing_but_its_last_marker_is_one_and_a_cut_one_is_text(name: str) -> None:
    family, calls = FAMILIES[name], markup_of(name).calls
    assert calls is not None
    whole = family.calls[0].rstrip()
    text = family.before + whole.removesuffix(calls.end)
    parts, _ = parse(list(text), markup_of(name), tools=TOOLS)
    if (
        isinstance(calls.syntax, TagSyntax) and not calls.syntax.region_end
    ):  # this marker is all that tells where it ends
        assert parts == [text_part(text)]
    else:
        assert with_values(parts)[:2] == [text_part(family.before), call_part(0, family.arguments)]
    text = family.before + whole[: whole.index(family.arguments["a"][:3]) + 2]
    assert parse(list(text), markup_of(name), tools=TOOLS) == ([text_part(text)], None)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_tools_a_call_stays_text(name: str) -> None:
    text = FAMILIES[name].text
    assert parse(list(text), markup_of(name)) == ([text_part(text)], None)


@pytest.mark.parametrize("name", FAMILIES)
def test_where_one_call_may_be_made_the_answer_is_over_with_it(name: str) -> None:
    text = FAMILIES[name].text
    for pieces in ([text], list(text)):
        parser = OutputParser(markup_of(name), tools=TOOLS, one_call=True)
        parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
        assert with_values(merge_parts(parts)) == expected(name)[:2]
        assert parser.over
        assert parser.complete_calls == 1


# As ids.


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_are_parsed_where_their_markers_are_tokens(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    tokenizer = byte_tokenizer(tmp_path, family, family.markers)
    family_markup = Markup.of(tokenizer)
    calls = markup_of(name).calls
    assert family_markup.calls is not None and calls is not None
    assert (family_markup.calls.start, family_markup.calls.end) == (calls.start, calls.end)
    detokenizer = detokenizer_factory(tokenizer, family_markup.markers())()
    parser = OutputParser(family_markup, tools=TOOLS)
    ids = tokenizer.encode(family.text, add_special_tokens=False)
    assert sum(token >= 256 for token in ids) >= len(family.markers) // 2
    parts: list[OutputPart] = [part for token in ids for part in parser.feed(detokenizer.feed(token))]
    assert with_values(merge_parts(parts + parser.finish())) == expected(name)


def test_a_muse_answer_has_headers_that_are_not_shown() -> None:
    from mlx_lm.chat_templates.muse_spark import RESPONSE_FORMAT

    more = {"transitions": RESPONSE_FORMAT["transitions"], "initial": RESPONSE_FORMAT["initial_state"]}
    family_markup = markup("muse_spark", None, **more)
    call = FAMILIES["muse_spark"].calls[0]
    text = (
        "to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Well.<|eom|>"
        f"<|start|>assistant to=add<|message|>{call}"
    )
    for pieces in ([text], list(text)):
        parts, _ = parse(pieces, family_markup, tools=TOOLS)
        assert with_values(parts) == [["Hm.", True], text_part("Well."), call_part(0, A), call_part(1, TWO)]


def test_under_a_grammar_a_muse_answer_has_no_header() -> None:
    from mlx_lm.chat_templates.muse_spark import RESPONSE_FORMAT

    more = {"transitions": RESPONSE_FORMAT["transitions"], "initial": RESPONSE_FORMAT["initial_state"]}
    family_markup = markup("muse_spark", None, **more)
    assert parse(list('{"a": "<|eom|>"}'), family_markup, has_grammar=True, plain=True)[0] == [
        text_part('{"a": "<|eom|>"}')
    ]


# What goes wrong.


IN = '<tool_call>{"name": "add", "arguments": '
NO_CALLS = ["{}", "[]", "3", '{"name": ""}', '{"name": 3}', '{"arguments": {}}', "null", '["a"]', "", "{broken"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # No call was given out yet: all of it is text.
        *((f"<tool_call>{no}</tool_call> two", [text_part(f"<tool_call>{no}</tool_call> two")]) for no in NO_CALLS),
        # It is cut: what there is stays.
        (f'{IN}{{"a"', [(0, "add", '{"a"')]),
        (f'{IN}{{"a": "b', [(0, "add", '{"a": "b')]),
        (f'{IN}{{"a": 1', [(0, "add", '{"a": ')]),
        # It is no JSON, but it is clear what was meant.
        (f'{IN}{{"a": "1\n2\t3"}}}}</tool_call> two', [(0, "add", '{"a": "1\\n2\\t3"}'), text_part("two")]),
        (f'{IN}{{"a": "b",}},}}</tool_call> two', [(0, "add", '{"a": "b"}'), text_part("two")]),
        (f'{IN}{{"a": tru}}}}</tool_call> two', [(0, "add", '{"a": "tru"}'), text_part("two")]),
        (f"{IN}{{'a': None, b: 'it's'}}}}</tool_call>", [(0, "add", '{"a": null, "b": "it\'s"}')]),
        (
            "<tool_call>{'name': 'add', 'arguments': {'a': True}}</tool_call> two",
            [(0, "add", '{"a": true}'), text_part("two")],
        ),
        # Its arguments are whole and something is wrong behind them: it stands.
        (f"{IN}{{}}</tool_call> two", [(0, "add", "{}"), text_part("two")]),
        (f"{IN}{{}}}}}}</tool_call> two", [(0, "add", "{}"), text_part("two")]),
        (f'{IN}{{}}, "x": 1}}</tool_call>', [(0, "add", "{}")]),
        (f'{IN}{{}}, "x": [1]}}</tool_call>', [(0, "add", "{}"), text_part('"x": [1]}</tool_call>')]),
        (f'{IN}{{}}}}\n{{"name": "add", "arg', [(0, "add", "{}"), text_part('{"name": "add", "arg')]),
        # Never closed, but nothing is missing.
        (f"{IN}{{}}}}", [(0, "add", "{}")]),
        (f"{IN}{{}}}}\n</tool", [(0, "add", "{}")]),
        ('<tool_call>{"arguments": {"b": 1}, "name": "add"}', [(0, "add", '{"b": 1}')]),
        # In another order, without arguments, several at once, arguments as a string: only the whole can tell.
        ('<tool_call>{"arguments": {"b": 1}, "name": "add"}</tool_call>', [(0, "add", '{"b": 1}')]),
        ('<tool_call>{"name": "add"}</tool_call>', [(0, "add", "{}")]),
        (f'{IN}"{{}}"}}</tool_call>', [(0, "add", "{}")]),
        (
            f'<tool_call>[{{"name": "add"}}, {{"name": 3}}]</tool_call>{CALL}',
            [text_part('<tool_call>[{"name": "add"}, {"name": 3}]</tool_call>'), ADDED],
        ),
        # The marker of the end within a string is a part of it.
        (f'{IN}{{"a": "</tool_call>"}}}}</tool_call>', [(0, "add", '{"a": "</tool_call>"}')]),
        # A tool that there is not: the client will say so.
        ('<tool_call>{"name": "sub", "arguments": {}}</tool_call>', [(0, "sub", "{}")]),
    ],
)
def test_a_call_that_goes_wrong_is_repaired_or_text(text: str, parts: list[Any]) -> None:
    assert parse([text], JSON, tools=TOOLS) == (parts, None)
    assert parse(list(text), JSON, tools=TOOLS) == (parts, None)


@pytest.mark.parametrize(
    "text",
    [
        'A person: {"name": "Ada", "age": 36}.',
        'A tool: {"name": "sub", "parameters": {"a": 1}}.',
        'Cut: {"name": "add", "para',
        'Cut: {"name":',
    ],
)
def test_json_in_an_answer_of_llama_is_no_call_unless_it_names_a_tool(text: str) -> None:
    assert parse([text], markup_of("llama"), tools=TOOLS) == ([text_part(text)], None)
    assert parse(list(text), markup_of("llama"), tools=TOOLS) == ([text_part(text)], None)


def test_words_between_the_markers_of_a_family_that_would_take_any_are_no_call() -> None:
    text = "<tool_call>I would rather not.</tool_call>"
    assert parse(list(text), markup_of("glm47"), tools=TOOLS) == ([text_part(text)], None)


def test_calls_are_numbered_and_their_ids_differ() -> None:
    parser = OutputParser(JSON, tools=TOOLS)
    calls = [part for part in parser.feed(CALL + CALL) if isinstance(part, ToolCall)]
    assert [call.index for call in calls] == [0, 1]
    assert calls[0].id != calls[1].id


def test_ids_are_those_of_the_model_and_for_mistral_such_as_its_template_takes() -> None:
    def ids(name: str) -> list[str]:
        parts = OutputParser(markup_of(name), tools=TOOLS).feed(FAMILIES[name].text)
        return [part.id for part in parts if isinstance(part, ToolCall)]

    assert ids("kimi_k2") == ["functions.add:0", "functions.add:1"]
    assert ids("mistral ids") == ["abcdefgh1", "abcdefgh2"]
    assert all(len(identity) == 9 and identity.isalnum() for identity in ids("mistral list") + ids("mistral heads"))


PIECES = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", '{"name": "add", "arguments": ', '{"name": ', '{"a": 1}', "{", "}", '{"a": "'),
        *('"', "[", "]", ", ", "\n", "x", "<", '"id": "z"', "[TOOL_CALLS]", "add[ARGS]", "<|tool_call_end|>", CALL),
    ]
)


@pytest.mark.parametrize("name", STREAMED)
@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join), st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_whatever_a_model_writes_the_pieces_change_nothing(name: str, text: str, cuts: list[int], one: bool) -> None:
    calls = markup_of(name).calls
    assert calls is not None
    text = calls.start + text
    whole = parse([text], markup_of(name), tools=TOOLS, one_call=one)
    assert parse(split(text, cuts), markup_of(name), tools=TOOLS, one_call=one) == whole
    assert parse(list(text), markup_of(name), tools=TOOLS, one_call=one) == whole
