"""Prompts that go past the chat template, and the pieces of tokens, on tokenizers of both kinds."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Tokenizer, processors

from app.services.context_length import ContextLength
from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.prompt import PromptBuilder
from app.services.errors import InvalidRequest, PromptTooLong
from app.services.generation import GenerationRequest
from tests.engine import tokenizers

CONTEXT = 64
OWN = ContextLength(CONTEXT, CONTEXT, "max_position_embeddings in config.json")
MARKS = [
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
]


def builder(folder: Path, change: Callable[[Tokenizer], None]) -> PromptBuilder:
    """Make a builder on a changed copy of a tokenizer."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return PromptBuilder(load_tokenizer(folder), None, OWN)


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(tiny, copy)
    return copy


def raw(*parts: str | int, suffix: str | None = None, max_tokens: int | None = None) -> GenerationRequest:
    return GenerationRequest(prompt=parts, suffix=suffix, max_tokens=max_tokens)


def add(tokens: tuple[str, ...]) -> Callable[[Tokenizer], None]:
    return lambda tokenizer: tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks[0])
def test_a_gap_is_put_between_the_marks_of_the_model(folder: Path, marks: tuple[str, str, str]) -> None:
    prompts = builder(folder, add(marks))
    for suffix in ("\nprint(a)", ""):
        built = prompts.build(raw("def f(", suffix=suffix))
        prefix_mark, suffix_mark, middle_mark = marks
        assert built.text == f"{prefix_mark}def f({suffix_mark}{suffix}{middle_mark}"
        assert prompts.detokenize(built.tokens) == built.text
        assert [prompts.piece(token).decode() for token in built.tokens if prompts.piece(token).decode() in marks] == [
            prefix_mark,
            suffix_mark,
            middle_mark,
        ]


def test_a_gap_needs_all_the_marks_and_text(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="fill-in-the-middle") as refusal:
        builder(folder, add(MARKS[0][:2])).build(raw("a", suffix="b"))
    assert (refusal.value.param, refusal.value.code) == ("suffix", "no_infill")
    with pytest.raises(InvalidRequest, match="token ids"):
        builder(folder, add(MARKS[0])).build(raw("a", 5, suffix="b"))


def begin_with(token: str) -> Callable[[Tokenizer], None]:
    """Make a tokenizer begin every text with a token, as Llama's do."""

    def change(tokenizer: Tokenizer) -> None:
        identity = tokenizer.token_to_id(token)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A $B", special_tokens=[(token, identity)]
        )

    return change


def test_a_text_begins_with_what_the_model_wants_and_only_once(folder: Path) -> None:
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"bos_token": "<|endoftext|>",', 1))
    prompts = builder(folder, begin_with("<|endoftext|>"))
    (first,) = prompts.tokenize("<|endoftext|>")
    plain = prompts.tokenize("Hi there")
    assert prompts.build(raw("Hi there")).tokens == [first, *plain]
    assert prompts.build(raw("Hi there")).text == "Hi there"
    assert prompts.build(raw("<|endoftext|>Hi there")).tokens == [first, *plain]
    assert prompts.build(raw("")).tokens == [first]
    assert prompts.build(raw("Hi there", 5)).tokens == [first, *plain, 5]
    assert prompts.build(raw(5, "Hi there")).tokens == [5, *plain]
    assert prompts.build(raw(*plain)).tokens == plain
    assert prompts.build(raw(*plain)).text == "Hi there"


def test_a_prompt_has_to_fit_and_to_be_there(folder: Path) -> None:
    prompts = builder(folder, lambda _: None)
    assert len(prompts.build(raw(*[5] * (CONTEXT - 1))).tokens) == CONTEXT - 1
    with pytest.raises(PromptTooLong):
        prompts.build(raw(*[5] * CONTEXT))
    assert len(prompts.build(raw(*[5] * CONTEXT, max_tokens=0)).tokens) == CONTEXT
    for empty in (raw(), raw(""), raw("", "")):
        with pytest.raises(InvalidRequest, match="empty prompt") as refusal:
            prompts.build(empty)
        assert refusal.value.param == "prompt"


@pytest.mark.parametrize(
    ("context", "helps"), [(OWN, False), (OWN.limited_to(32), True), (replace(OWN, is_assumed=True), True)]
)
def test_a_larger_context_is_advised_only_where_it_helps(tiny: Path, context: ContextLength, helps: bool) -> None:
    prompts = PromptBuilder(load_tokenizer(tiny), None, context)
    with pytest.raises(PromptTooLong) as refused:
        prompts.build(raw(*[5] * 100))
    assert ("--context-length" in refused.value.message) == helps


def test_pieces_of_a_byte_level_vocabulary_are_its_bytes(tokenizer: Any) -> None:
    piece = TokenBytes(tokenizer)
    for text in ("Hello world", "日本語😀", "\n\t <|im_end|><think>"):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(piece[token] for token in tokens).decode() == text
    assert piece[10**6] == b""


def test_pieces_of_a_sentence_piece_vocabulary_are_text_and_bytes(tmp_path: Path) -> None:
    tokenizer = tokenizers.make("Llama 2", tmp_path, None)
    piece = TokenBytes(tokenizer)
    tokens = tokenizer.encode("Helloa旗", add_special_tokens=False)
    assert [piece[token] for token in tokens] == [b" Hello", b"a", b"\xe6", b"\x97", b"\x97"]
    assert piece[0] == b"<unk>"


@pytest.mark.parametrize("long", [lambda text: (text,), lambda text: (1, text), lambda text: (text[:500],) * 4000])
def test_no_more_of_a_long_prompt_is_tokenized_than_shows_that_it_cannot_fit(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, long: Callable[[str], tuple[str | int, ...]]
) -> None:
    prompts = PromptBuilder(load_tokenizer(tiny), None, OWN)  # which does not know how long its tokens are
    tokenize, characters = prompts.tokenize, 0

    def counting(text: str, **options: bool) -> list[int]:
        nonlocal characters
        characters += len(text)
        return tokenize(text, **options)

    monkeypatch.setattr(prompts, "tokenize", counting)
    with pytest.raises(PromptTooLong, match="at least") as refused:
        prompts.build(raw(*long("the river runs " * 100_000)))
    assert refused.value.prompt_tokens > CONTEXT
    assert characters <= 2**16


def test_a_long_text_of_few_tokens_is_taken(folder: Path) -> None:
    word = "<|" + "x" * 96 + "|>"
    builder(folder, add((word,)))
    prompts = PromptBuilder(load_tokenizer(folder), None, replace(OWN, tokens=4096))
    assert 4000 <= len(prompts.build(raw(word * 4000)).tokens) < 4096
