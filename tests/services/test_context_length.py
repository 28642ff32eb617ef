"""The context of a model: its own figure, else what its architecture assumes, else a guess that a user may mend."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.services.context_length import KEYS, LONGER, ContextLength, context_length

ARCHITECTURES = json.loads((Path(__file__).parents[1] / "engine" / "architectures.json").read_text())
NO_LIMIT = 1_000_000_000_000_000_019_884_624_838_656  # what tokenizers write without one
GEMMA3 = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 4096, "n_positions": 5}, 4096),
        ({"max_position_embeddings": 10_485_760}, 10_485_760),
        ({"max_position_embeddings": 4096.0}, 4096),
        *(({key: 1234}, 1234) for key in (*KEYS, LONGER)),
        ({"text_config": {"n_positions": 777}}, 777),
        ({"max_position_embeddings": 20, "text_config": {"max_position_embeddings": 777}}, 777),
        ({"max_position_embeddings": 8192, "model_max_length": 131_072}, 131_072),
        ({"max_position_embeddings": 40_960, "rope_scaling": YARN}, 131_072),
        ({"max_position_embeddings": 131_072, "rope_scaling": YARN}, 131_072),
        ({"max_position_embeddings": 4096, "rope_parameters": {"full_attention": YARN, "other": None}}, 131_072),
        ({"max_position_embeddings": 163_840, "rope_scaling": YARN | {"factor": 2}}, 163_840),
        ({"max_position_embeddings": 131_072, "rope_scaling": LLAMA3}, 131_072),
        ({"max_position_embeddings": 16_384, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16_384),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": float("nan")}}, 4096),
    ],
)
def test_the_models_own_figure_counts(config: dict[str, Any], tokens: int) -> None:
    for of_tokenizer in ({}, {"model_max_length": NO_LIMIT}, {"model_max_length": 2**24}, {"model_max_length": 16}):
        context = context_length({"model_type": "llama"} | config, of_tokenizer)
        assert (context.tokens, context.model_tokens, context.is_assumed) == (tokens, tokens, False)
        assert "config.json" in context.source


@pytest.mark.parametrize(("of_tokenizer", "tokens"), [(16_384, 16_384), (4096, 4096), (16_385, 4096), (NO_LIMIT, 4096)])
def test_scaling_stretches_as_far_as_the_tokenizer_says(of_tokenizer: int, tokens: int) -> None:
    config = {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}
    assert context_length({"model_type": "llama"} | config, {"model_max_length": of_tokenizer}).tokens == tokens


@pytest.mark.parametrize(
    ("config", "tokens", "source"),
    [
        (GEMMA3, 131_072, "transformers' default for gemma3_text"),
        (
            {"model_type": "gemma3", "text_config": {"hidden_size": 2560}},
            131_072,
            "transformers' default for gemma3_text",
        ),
        ({"model_type": "gemma3n"}, 32_768, "transformers' default for gemma3n_text"),
        ({"model_type": "mistral"}, 131_072, "transformers' default for mistral"),
        ({"model_type": "iquestloopcoder"}, 131_072, "mlx-lm's default for iquestloopcoder"),
        ({"model_type": "mamba2"}, 8192, "assumed"),
        ({"model_type": "rwkv7"}, 8192, "assumed"),
        ({"model_type": "no such model", "text_config": 3}, 8192, "assumed"),
        ({"model_type": "../etc"}, 8192, "assumed"),
        *(({"model_type": "rwkv7", "n_ctx": wrong}, 8192, "assumed") for wrong in (-1, 0, True, "many", None, 10**12)),
    ],
)
def test_what_no_file_says_is_what_the_architecture_assumes(config: dict[str, Any], tokens: int, source: str) -> None:
    context = context_length(config, {"model_max_length": NO_LIMIT})
    assert (context.tokens, context.source, context.is_assumed) == (tokens, source, True)


def test_a_figure_of_the_tokenizer_alone_raises_what_is_assumed() -> None:
    assert context_length({"model_type": "mamba"}, {"model_max_length": 32_768}).tokens == 32_768
    assert context_length(GEMMA3, {"model_max_length": 2048}).tokens == 131_072  # the length of a fine-tuning


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_architecture_gets_less_than_its_configuration_says(name: str) -> None:
    config = ARCHITECTURES[name]
    inner = config.get("text_config") or {}
    figures = [value for key, value in (config | inner).items() if key == "max_position_embeddings"]
    assert context_length(config, {}).tokens >= max(figures)
    assert not context_length(config, {}).is_assumed


def test_a_setting_raises_only_what_was_assumed() -> None:
    own, assumed = ContextLength(100, 100, "x"), ContextLength(100, 100, "assumed", is_assumed=True)
    assert [own.limited_to(setting).tokens for setting in (None, 50, 200)] == [100, 50, 100]
    assert [assumed.limited_to(setting).tokens for setting in (None, 50, 200)] == [100, 50, 200]
    assert own.limited_to(50).model_tokens == 100


def test_only_what_can_grow_says_so() -> None:
    own, assumed = ContextLength(100, 100, "x"), ContextLength(100, 100, "assumed", is_assumed=True)
    assert [own.can_grow, own.limited_to(50).can_grow, assumed.can_grow] == [False, True, True]
