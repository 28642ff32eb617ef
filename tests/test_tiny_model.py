import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def test_mlx_lm_loads_it_and_generates(model: Path) -> None:
    from mlx_lm import generate, load

    network, tokenizer = load(str(model))[:2]
    assert tokenizer.has_thinking
    assert tokenizer.has_tool_calling
    assert tokenizer.tool_call_start == "<tool_call>"
    assert tokenizer.init_kwargs["tool_parser_type"] == "json_tools"
    assert tokenizer.eos_token_ids == set(json.loads((model / "config.json").read_text())["eos_token_id"])
    assert generate(network, tokenizer, "The kitchen floor", max_tokens=8)


@pytest.mark.parametrize("text", ["Zoë says 你好 🙂", " leading and trailing ", "<think>a</think>", "\x00\n\t"])
def test_text_survives_the_tokenizer(model: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_token_of_the_network_is_one_of_the_tokenizer(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == json.loads((model / "config.json").read_text())["vocab_size"] == 768


def test_the_same_seed_gives_the_same_files(model: Path, tmp_path: Path) -> None:
    again = tiny_model.build(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }


def test_another_seed_gives_other_weights(model: Path, tmp_path: Path) -> None:
    other = tiny_model.build(tmp_path / "other", seed=1)
    assert (other / "model.safetensors").read_bytes() != (model / "model.safetensors").read_bytes()


def test_a_model_that_is_there_stays_as_it_is(model: Path) -> None:
    before = (model / "model.safetensors").stat()
    tiny_model.build(model, seed=2)
    assert (model / "model.safetensors").stat() == before


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tiny_model, "_write_weights", full)
    with pytest.raises(OSError, match="no space left"):
        tiny_model.build(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_builders_takes_the_model_of_the_first(tmp_path: Path) -> None:
    first, second = tiny_model.build(tmp_path / "first"), tiny_model.build(tmp_path / "second", seed=1)
    weights = (first / "model.safetensors").read_bytes()
    tiny_model.put(second, first)
    assert (first / "model.safetensors").read_bytes() == weights


def render(model: Path, **variables: object) -> str:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return tokenizer.apply_chat_template(tokenize=False, **{"add_generation_prompt": True, **variables})


def test_thinking_is_off_unless_asked(model: Path) -> None:
    asked = {"conversation": [{"role": "user", "content": "Hi"}]}
    plain = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert render(model, **asked) == plain
    assert render(model, **asked, enable_thinking=False) == plain
    assert render(model, **asked, enable_thinking=True) == plain + "<think>\n"


def test_a_conversation_with_a_tool_renders_whole(model: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}}
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    calls = '\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>' * 2
    tool = {"type": "function", "function": {"name": "add"}}
    assert render(model, conversation=conversation, tools=[tool]) == (
        "<|im_start|>system\nBe brief.\n\nYou may call these tools:\n"
        '{"type": "function", "function": {"name": "add"}}\n'
        'To call one, answer with <tool_call>{"name": its name, "arguments": its arguments}</tool_call>.<|im_end|>\n'
        "<|im_start|>user\n1+1?<|im_end|>\n"
        f"<|im_start|>assistant\n{calls}<|im_end|>\n"
        "<|im_start|>tool\n2<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
