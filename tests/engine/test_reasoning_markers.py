"""Reasoning and what surrounds an answer, of families that mlx-lm does not know: told by template and tokens."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.output.detokenizer import detokenizer_factory
from app.services.engine.output.markup import Markup
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import OutputPart
from tests.engine.families import FAMILIES, Family, byte_tokenizer
from tests.engine.parsing import ADDED, CALL, TOOLS, markup, merge_parts, parse, split

# For each family: its template, an answer, which of its markers are tokens, and how it writes calls.
REASONING: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "ministral": (
        "[THINK]block[/THINK][TOOL_CALLS][ARGS]",
        "[THINK]Hm. [x]\n[/THINK]Well.",
        ("[THINK]", "[/THINK]"),
        "mistral heads",
    ),
    "seed_oss": (
        "<seed:think></seed:think><seed:tool_call>",
        "<seed:think>\nHm. [x]\n</seed:think>\nWell.",
        ("<seed:think>", "</seed:think>"),
        "seed_oss",
    ),
    "minimax_m3": (
        "<mm:think></mm:think>]<]minimax[>[",
        "<mm:think>Hm. [x]\n</mm:think>Well.",
        ("<mm:think>", "</mm:think>", "<think>", "</think>"),
        "minimax_m3",
    ),
    "cohere": (
        "<|START_THINKING|><|END_THINKING|><|START_ACTION|><|START_RESPONSE|>",
        "<|START_THINKING|>Hm. [x]\n<|END_THINKING|><|START_RESPONSE|>Well.<|END_RESPONSE|>",
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        "cohere",
    ),
    "cohere text": (
        "<|START_THINKING|><|END_THINKING|><|START_ACTION|><|START_TEXT|>",
        "<|START_THINKING|>Hm. [x]\n<|END_THINKING|><|START_TEXT|>Well.<|END_TEXT|>",
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        "cohere",
    ),
    "apertus": (
        "<|inner_prefix|><|inner_suffix|><|tools_prefix|>",
        "<|inner_prefix|>Hm. [x]\n<|inner_suffix|>Well.",
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        "apertus",
    ),
    "apriel": (
        "Here are my reasoning steps:\n[BEGIN FINAL RESPONSE]<tool_calls>",
        "Here are my reasoning steps:\nHm. [x]\n[BEGIN FINAL RESPONSE]\nWell.\n[END FINAL RESPONSE]",
        (),
        "tool_calls",
    ),
    "hunyuan 3": (
        "':opensource' </think:opensource>",
        "<think:opensource>Hm. [x]</think:opensource>Well.",
        ("<think:opensource>", "</think:opensource>"),
        "hunyuan_3",
    ),
    "nemotron": ("<think></think><TOOLCALL>", "<think>\nHm. [x]\n</think>\n\nWell.", (), "nemotron"),
    "granite": (
        "<think></think><response></response><|tool_call|>",
        "<think>Hm. [x]</think><response>Well.</response>",
        (),
        "granite",
    ),
    "hunyuan": (
        "'<answer>' '</answer>' <think></think> <tool_calls>",
        "<think>\nHm. [x]\n</think>\n<answer>\nWell.\n</answer>",
        ("<think>", "</think>", "<answer>", "</answer>"),
        "tool_calls",
    ),
}


def load(folder: Path, template: str, tokens: tuple[str, ...] = ()) -> Any:
    return byte_tokenizer(folder, Family(None, template), tokens)


@pytest.mark.parametrize("as_tokens", [True, False])
@pytest.mark.parametrize("name", REASONING)
def test_reasoning_is_told_by_the_template(name: str, as_tokens: bool, tmp_path: Path) -> None:
    template, text, markers, _ = REASONING[name]
    tokenizer = load(tmp_path, template, markers if as_tokens else ())
    family_markup = Markup.of(tokenizer)
    detokenizer = detokenizer_factory(tokenizer, family_markup.markers())()
    parser = OutputParser(family_markup)
    ids = tokenizer.encode(text, add_special_tokens=False)
    parts: list[OutputPart] = [part for token in ids for part in parser.feed(detokenizer.feed(token))]
    parts = merge_parts(parts + parser.finish())
    assert [(part.strip(), reasoning) for part, reasoning in parts] == [("Hm. [x]", True), ("Well.", False)]
    assert parse([text], family_markup) == (parts, None)
    for cut in range(1, len(text)):
        assert parse([text[:cut], text[cut:]], family_markup) == (parts, None)


@pytest.mark.parametrize("name", [name for name, (_, _, markers, _) in REASONING.items() if markers])
def test_without_the_template_reasoning_is_told_by_its_tokens(name: str, tmp_path: Path) -> None:
    _, text, markers, _ = REASONING[name]
    parts, _ = parse(list(text), Markup.of(load(tmp_path, "Hello", markers)))
    assert [(part.strip(), reasoning) for part, reasoning in parts] == [("Hm. [x]", True), ("Well.", False)]


@pytest.mark.parametrize("name", REASONING)
def test_calls_follow_reasoning_and_in_it_are_reasoning(name: str, tmp_path: Path) -> None:
    template, _, _, calls = REASONING[name]
    family_markup, family = Markup.of(load(tmp_path, template)), FAMILIES[calls]
    assert family_markup.calls is not None and family_markup.think_start and family_markup.think_end
    call = "".join(family.calls)
    thought = f"{family_markup.think_start}Hm. {call} so{family_markup.think_end}\n"
    parts, _ = parse(list(f"{thought}{call}"), family_markup, tools=TOOLS)
    assert [part[1] for part in parts if isinstance(part, list)] == [True]
    assert [part[1] for part in parts if isinstance(part, tuple)] == ["add", "add"]
    assert parse([f"{thought}{call}"], family_markup, tools=TOOLS)[0] == parts


FRAMED = markup("json_tools", frame=("<answer>", "</answer>"))
PIECES = ["<answer>", "</answer>", "<think>", "</think>", "<tool_call>", CALL, "<", "</answ", "a", " ", "\n", "é🙂"]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), st.lists(st.integers(0, 99), max_size=9))
def test_any_split_of_a_framed_answer_gives_the_same_parts(text: str, cuts: list[int]) -> None:
    for options in ({}, {"stop": ["a\n", "</"]}):
        whole = parse([text], FRAMED, tools=TOOLS, **options)
        assert parse(split(text, cuts), FRAMED, tools=TOOLS, **options) == whole
        assert parse(list(text), FRAMED, tools=TOOLS, **options) == whole


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>\nWell.\n</answer>", "Well."),
        ("<answer>\nUse <answer>x</answer>.\n</answer>\n", "Use <answer>x</answer>."),
        ("Use <answer>x</answer>", "Use <answer>x</answer>"),
        ("<answer>Well", "Well"),
        ("<answer>Well</answ", "Well</answ"),
        ("<answer>Well\n", "Well\n"),
        ("<answers>Well</answers>", "<answers>Well</answers>"),
    ],
)
def test_tags_around_an_answer_are_taken_away_and_no_others(text: str, answer: str) -> None:
    assert parse([text], FRAMED)[0] == [[answer, False]]
    assert parse(list(f"<think>Hm.</think>\n{text}"), FRAMED)[0] == [["Hm.", True], [answer, False]]


def test_a_call_within_the_frame_is_one_and_what_closes_the_frame_is_no_text() -> None:
    parts, _ = parse(list(f"<answer>Well. {CALL}\n</answer>"), FRAMED, tools=TOOLS)
    assert parts == [["Well. ", False], ADDED]


SOLAR = (
    f"<|think|>Hm. [x]<|end|><|begin|>assistant<|content|>Well.<|end|><|begin|>assistant{FAMILIES['solar'].calls[0]}"
)


def test_an_answer_of_several_messages_is_taken_apart(tmp_path: Path) -> None:
    markers = ("<|think|>", "<|content|>", "<|begin|>", "<|end|>", *FAMILIES["solar"].markers)
    tokenizer = byte_tokenizer(tmp_path, FAMILIES["solar"], markers[:3] + markers[4:])
    solar = Markup.of(tokenizer)
    parts, _ = parse([SOLAR], solar, tools=TOOLS)
    assert parts[:2] == [["Hm. [x]", True], ["Well.", False]]
    assert [part[1] for part in parts[2:]] == ["add", "add"]
    for cut in range(1, len(SOLAR)):
        assert parse([SOLAR[:cut], SOLAR[cut:]], solar, tools=TOOLS)[0] == parts
    detokenizer = detokenizer_factory(tokenizer, solar.markers())()
    ids = tokenizer.encode(SOLAR, add_special_tokens=False)
    assert parse([detokenizer.feed(token) for token in ids], solar, tools=TOOLS)[0] == parts


def test_a_message_that_is_continued_has_no_header(tmp_path: Path) -> None:
    solar = Markup.of(byte_tokenizer(tmp_path, FAMILIES["solar"], ()))
    assert parse(list(" and so on<|end|>"), solar, continues=True)[0] == [[" and so on", False]]
