"""Tokenizers of GGUF files: what is written from their metadata, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from app.services.context_length import ContextLength
from app.services.engine.model.loading import read_tokenizer
from app.services.engine.output.detokenizer import detokenizer_factory, longest_token
from app.services.engine.output.template_clues import call_parser
from app.services.engine.prompt import PromptBuilder
from app.services.errors import LoadFailed
from app.services.generation import GenerationRequest, Message
from app.services.gguf.tokenizer import check, write
from app.services.gguf.tokenizer.content import tokenizer_json
from app.services.gguf.tokenizer.pretokenizers import PRE_TOKENIZERS
from app.services.gguf.tokenizer.vocabulary import Vocabulary

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def byte_level(pre: str = "qwen2", **more: Any) -> dict[str, Any]:
    """The metadata of a vocabulary of all bytes, one merge, and two control tokens."""
    tokens = [*BYTES, "he", "<s>", "<|im_end|>"]
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [NORMAL] * (len(BYTES) + 1) + [CONTROL, NORMAL],
        "merges": ["h e"],
        "bos_token_id": len(BYTES) + 1,
    }
    return metadata(fields | more)


def sentence_piece(**more: Any) -> dict[str, Any]:
    """The metadata of a small vocabulary with scores and a token for each byte."""
    words = ["▁", "a", "b", "ab", "▁a"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    fields = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-5.0, -6.0, -7.0, -1.0, -2.0],
        "token_type": [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(words),
    }
    return metadata(fields | more)


def metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """What the file has, with numbers in arrays, as a reader gives it; without what is None."""
    return {
        f"tokenizer.ggml.{name}": np.array(value)
        if isinstance(value, list) and value and type(value[0]) in (int, float)
        else value
        for name, value in fields.items()
        if value is not None
    }


def tokenizer(values: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tokenizer_json(Vocabulary(values))))


def read(values: dict[str, Any], folder: Path) -> Any:
    """What the engine reads from the folder that was written."""
    write(SimpleNamespace(metadata=values), folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return read_tokenizer(folder, json.loads((folder / "generation_config.json").read_bytes())["eos_token_id"])


def tokens(values: dict[str, Any], text: str, *, special: bool = False) -> list[str]:
    return list(tokenizer(values).encode(text, add_special_tokens=special).tokens)


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_splits_text_without_losing_any(pre: str) -> None:
    text = "He said: 'I'LL be 12345,\n\n  \tnaïve HelloWorld 你好 हिन्दी 🙂'  "
    model = tokenizer(byte_level(pre))
    assert model.decode(model.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


@given(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n<s>|im_end"))))
def test_byte_level_text_survives_tokenizing(text: str) -> None:
    assert QWEN.decode(QWEN.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


QWEN = tokenizer(byte_level())


def test_scores_say_which_tokens_are_joined_first() -> None:
    assert tokens(sentence_piece(), "ab") == ["▁", "ab"]  # ab has a higher score than ▁a
    assert tokens(sentence_piece(add_space_prefix=False), "ab ab") == ["ab", "▁", "ab"]
    assert tokens(sentence_piece(), "é") == ["▁", "<0xC3>", "<0xA9>"]


def test_a_text_begins_as_the_file_says_else_as_its_kind_does() -> None:
    assert tokens(sentence_piece(), "a", special=True)[0] == "<s>"
    assert tokens(sentence_piece(add_bos_token=False), "a", special=True)[0] == "▁a"
    assert tokens(byte_level("qwen2"), "a", special=True) == ["a"]
    assert tokens(byte_level("llama-bpe"), "a", special=True) == ["<s>", "a"]


def test_the_files_of_a_folder_are_written(tmp_path: Path) -> None:
    more = {
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
        "tokenizer.ggml.suppress_tokens": np.array([3, 10**6]),
        "general.sampling.temp": 0.5,
    }
    write(SimpleNamespace(metadata=byte_level() | more), tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ tools }}"
    config = json.loads((tmp_path / "generation_config.json").read_bytes())
    assert config == {"eos_token_id": [len(BYTES) + 2], "suppress_tokens": [3], "temperature": 0.5}
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("he").tokens == ["he"]


def test_what_ends_an_answer_is_known_by_its_text_too() -> None:
    texts = ["<|end|>", "<|return|>", "<|call|>", "<|fim_pad|>", "<|file_sep|>", "</s>", "<|im_end|>", "one"]

    def ends(*words: str, **more: Any) -> set[str]:
        vocabulary = Vocabulary(byte_level(tokens=[*BYTES, *words], merges=[], token_type=None, **more))
        return {vocabulary.tokens[token] for token in vocabulary.stop_tokens}

    assert ends(*texts) == {*texts[1:5], "<|im_end|>"}  # beside <|return|>, <|end|> only ends a message
    assert ends("<|end|>", "one", "two", eos_token_id=len(BYTES) + 1) == {"<|end|>", "one"}
    assert ends("<PAD>", "one", fim_pad_token_id=len(BYTES) + 1) == {"one"}


def test_a_folder_is_read_as_any_other(tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    more = {
        "tokenizer.chat_template": template,
        "tokenizer.chat_template.tool_use": "{{ bos_token }}{{ tools[0].function.name }}<tool_call>" + template,
        "tokenizer.ggml.add_bos_token": True,
    }
    tokenizer = read(byte_level() | more, tmp_path)
    prompts = PromptBuilder(tokenizer, None, ContextLength(100, 100, ""), longest_token(tokenizer))
    messages = (Message("user", "he<|im_end|>"),)
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    begin, he, end = len(BYTES) + 1, len(BYTES), len(BYTES) + 2
    assert prompts.build(GenerationRequest(messages=messages)).tokens == [begin, he, end]
    with_tools = prompts.render(GenerationRequest(messages=messages, tools=(tool,)))
    assert with_tools == "<s>look<tool_call>he<|im_end|>"
    assert prompts.tokenize("he", special=True) == prompts.tokenize("<s>he", special=True) == [begin, he]
    assert call_parser(tokenizer)[0] == "json_tools"
    assert tokenizer.eos_token_ids == {end}


@pytest.mark.parametrize("prefix", [True, False])
def test_text_of_bytes_and_pieces_comes_back_as_it_is_decoded(prefix: bool, tmp_path: Path) -> None:
    tokenizer = read(sentence_piece(add_space_prefix=prefix), tmp_path)
    for text in ("ab a", "  a\n b", "é🙂", "a</s>"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        detokenizer = detokenizer_factory(tokenizer, ("</s>",))()
        assert "".join(map(detokenizer.feed, ids)) + detokenizer.finish() == text
    assert tokenizer.eos_token_ids == {2}
    assert tokenizer.encode("a")[0] == 1


@pytest.mark.parametrize(
    "change, words",
    [
        ({"tokenizer.ggml.model": "bert"}, "'bert' .WordPiece, of models for embeddings"),
        ({"tokenizer.ggml.model": "t5"}, "'t5' .Unigram"),
        ({"tokenizer.ggml.model": "rwkv"}, "'rwkv'"),
        ({"tokenizer.ggml.pre": "new-one"}, "'new-one'"),
    ],
)
def test_an_unknown_tokenizer_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadFailed, match=words):
        check(byte_level() | change)


@pytest.mark.parametrize(
    "more, words",
    [
        ({"merges": ["h x y"]}, "merges 'h x y'"),
        ({"merges": None}, "no merges"),
        ({"merges": np.array([1])}, "merges is no list of texts"),
        ({"token_type": [1]}, "259 tokens but 1"),
        ({"token_type": ["1"]}, "token_type is no list of numbers"),
        ({"tokens": ["a", "a"]}, "the same token twice"),
        ({"tokens": []}, "no tokens"),
        ({"eos_token_id": 259}, "its eos token is 259"),
        ({"eos_token_id": "x"}, "eos_token_id is no number"),
        ({"add_bos_token": "no"}, "add_bos_token is neither true nor false"),
        ({"add_eos_token": True}, "adds a eos token that the file does not name"),
        ({"pre": 1}, "pre is no text"),
    ],
)
def test_a_damaged_tokenizer_is_refused_in_words(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=words):
        write(SimpleNamespace(metadata=byte_level(**more)), tmp_path)
    assert not list(tmp_path.iterdir())


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    st.lists(st.text("ab <|end>▁\n", max_size=3), max_size=9),
    st.builds(
        np.resize, st.lists(st.integers(-1, 7), min_size=1, max_size=7).map(np.array), st.sampled_from((0, 259, 264))
    ),
    st.builds(np.resize, st.lists(st.floats(), min_size=1, max_size=7).map(np.array), st.sampled_from((0, 259, 264))),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_says_is_written_whole_or_refused_in_words(data: st.DataObject, tmp_path: Path) -> None:
    whole = data.draw(st.sampled_from([byte_level(), sentence_piece(), sentence_piece(model="gemma4", merges=["a b"])]))
    more = {"tokenizer.chat_template": "", "tokenizer.chat_template.x": "", "general.sampling.temp": 1.0}
    optional = ("pre", "add_bos_token", "eos_token_id", "unknown_token_id", "suppress_tokens", "fim_pad_token_id")
    names = [*whole, *more, *(f"tokenizer.ggml.{name}" for name in optional)]
    changes = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=3))
    gone = data.draw(st.sets(st.sampled_from(names), max_size=2))
    values = {key: value for key, value in (whole | changes).items() if key not in gone}
    try:
        write(SimpleNamespace(metadata=values), tmp_path)
    except LoadFailed as error:
        assert len(error.message) < 300
        return
    text = "ab <|im_end|> é\n"
    model = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert model.get_vocab_size() == len(values["tokenizer.ggml.tokens"])
    # Where ordinary tokens count as special, a space is put behind each: llama.cpp does that, too.
    if not changes.keys() & {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"}:
        assert model.decode(model.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_the_name_of_a_template_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="name"):
        write(SimpleNamespace(metadata=byte_level() | {"tokenizer.chat_template.../x": ""}), tmp_path)
    assert not list(tmp_path.iterdir())
