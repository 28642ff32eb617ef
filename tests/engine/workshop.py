"""Small random models of several architectures, and what makes rows for them."""

import importlib
import random
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache
from mlx_lm.utils import load_tokenizer

from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.engine.output.detokenizer import detokenizer_factory
from app.services.engine.output.markup import Markup
from app.services.engine.output.parser import OutputParser
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.engine.speculative.draft_model import DraftModel
from app.services.engine.speculative.proposer import Proposer
from app.services.engine.vision.prompt_images import NO_IMAGES, PromptImages
from app.services.engine.vision.vision import Vision
from app.services.facts import Batching, KVBits

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 768, "tie_word_embeddings": True}
ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-6}
ROPE = {"intermediate_size": 128, "rope_theta": 10000.0, "max_position_embeddings": 4096}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SHAPE | ATTENTION | ROPE,
    "gemma3_text": SHAPE  # a sliding window: half of its caches cannot be trimmed
    | ATTENTION
    | ROPE
    | {"sliding_window": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 32},
    "mamba2": SHAPE  # recurrent: no cache of it can be trimmed
    | {"num_heads": 4, "head_dim": 32, "intermediate_size": 128, "state_size": 16, "layer_norm_epsilon": 1e-5}
    | {
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
        "time_step_limit": [0.0, 100.0],
    },
}

HYBRID = "falcon_h1"  # attention and state space side by side in each layer
EVERY = ARCHITECTURES | {
    HYBRID: SHAPE
    | ATTENTION
    | {"intermediate_size": 128, "rope_theta": 10000.0, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_d_state": 16}
    | {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_expand": 1}
}


def random_model(architecture: str, seed: int = 1, **shape: Any) -> Any:
    """A model of mlx-lm with random weights."""
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    mx.random.seed(seed)
    config = {"model_type": architecture} | EVERY.get(architecture, EVERY["llama"]) | shape
    model = module.Model(module.ModelArgs.from_dict(config))
    mx.eval(model.parameters())
    return model


class SlowMachine(ChunkSizer):
    """What computes so many tokens a second, however fast the machine is."""

    def __init__(self, tokens_per_second: float) -> None:
        super().__init__()
        self._tokens_per_second = tokens_per_second

    def tokens(self, seconds: float) -> int:
        return int(self._tokens_per_second * seconds)


class Workshop:
    """A model and what makes rows for it."""

    def __init__(
        self,
        architecture: str,
        folder: Path,
        *,
        model: Any = None,
        vocabulary: int = 768,
        kv_bits: KVBits | None = None,
        **shape: Any,
    ) -> None:
        self.model = model or random_model(architecture, **shape)
        self.batching = Batching()
        self.kv_bits = kv_bits
        self.trimmable = can_trim_prompt_cache(make_prompt_cache(self.model)) and architecture != "gemma3_text"
        self.tokenizer = load_tokenizer(folder)
        self.markup = Markup.of(self.tokenizer)
        self.vocabulary = vocabulary
        self.detokenizer = detokenizer_factory(self.tokenizer, self.markup.markers())
        self._alone: dict[tuple[tuple[int, ...], str, int], list[int]] = {}

    def scheduler(
        self,
        *,
        max_rows: int = 32,
        cache_bytes: int = 0,
        prefixes: PrefixCache | None = None,
        memory_budget: MemoryBudget | None = None,
        controls: frozenset[int] = frozenset(),
        model: Any = None,
        draft: DraftModel | None = None,
        outbox: Outbox | None = None,
        chunk_sizer: ChunkSizer | None = None,
        adapters: Adapters | None = None,
        vision: Vision | None = None,
    ) -> Scheduler:
        return Scheduler(
            model if isinstance(model, LanguageModel) else LanguageModel(model or self.model),
            self.vocabulary,
            max_rows=max_rows,
            prefixes=PrefixCache(cache_bytes) if prefixes is None else prefixes,
            outbox=outbox or Outbox(),
            memory_budget=memory_budget,
            controls=controls,
            draft=draft,
            chunk_sizer=chunk_sizer,
            batching=self.batching,
            adapters=adapters,
            vision=vision,
            kv_bits=self.kv_bits,
        )

    def row(
        self,
        prompt: list[int],
        params: SamplingParams,
        max_tokens: int = 24,
        end: frozenset[int] = frozenset(),
        proposer: Proposer | None = None,
        images: PromptImages = NO_IMAGES,
    ) -> Row:
        return Row(
            generation=None,
            prompt=list(prompt),
            max_tokens=max_tokens,
            params=params,
            parser=OutputParser(self.markup),
            detokenizer=self.detokenizer(),
            end_tokens=end,
            proposer=proposer,
            images=images,
        )

    def alone(self, prompt: list[int], params: SamplingParams, max_tokens: int = 24) -> list[int]:
        """What a row says that has a scheduler to itself; computed once."""
        key = (tuple(prompt), repr(params), max_tokens)
        if key not in self._alone:
            row = self.row(prompt, params, max_tokens)
            finish(self.scheduler(), [row])
            self._alone[key] = row.answer
        return self._alone[key]


def come_and_go(scheduler: Scheduler, rows: list[Row]) -> None:
    """Submit rows a few steps after each other, and finish them."""
    for index, row in enumerate(rows):
        scheduler.submit(row)
        for _ in range(index % 4):
            scheduler.step()
    finish(scheduler, [])


def finish(scheduler: Scheduler, rows: list[Row]) -> int:
    """Have rows answered. Returns the steps that it took."""
    for row in rows:
        scheduler.submit(row)
    steps = 0
    while scheduler.busy:
        scheduler.step()
        steps += 1
    return steps


def check_drafted(scheduler: Scheduler, row: Row, expected: list[int]) -> None:
    """A row with a proposer says what it says without, and leaves nothing of what was not accepted."""
    finish(scheduler, [row])
    assert row.answer == expected
    assert row.draft_tokens >= row.accepted_tokens
    cached = scheduler.prefixes.get([*row.layer_tokens, 1])
    assert cached is not None
    assert list(cached.tokens) == row.layer_tokens


def prompts(count: int, longest: int = 90) -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(20, 700) for _ in range(draw.randrange(1, longest))] for _ in range(count)]
