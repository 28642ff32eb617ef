"""Older tokens rounded in KV caches: an answer is the same whoever else asks, however it was cut, cached and read."""

import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache

from app.services.engine.cache import prefix_store, slot_file
from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import copy_layers, new_layers
from app.services.engine.cache.mixed_cache import BLOCK
from app.services.engine.cache.packed import group_size, pack, unpack
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.model.kv_rounding import check_kv_bits
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.speculative.prompt_lookup import PromptLookupProposer
from app.services.errors import MemoryExceeded
from app.services.facts import KVBits
from app.settings import SettingError, read
from tests.engine.scheduler_parts import Letters
from tests.engine.test_forced_tokens import row_of
from tests.engine.test_scoring import QUESTIONS, alone_with, check, make_row, scheduler_for
from tests.engine.test_scoring import finish as scored_by
from tests.engine.workshop import SlowMachine, Workshop, finish, random_model

DRAW = random.Random(7)
TOKENS = [DRAW.randrange(20, 700) for _ in range(700)]
BITS = KVBits(8, 4)
GREEDY, DRAWN = SamplingParams(), SamplingParams(temperature=1.0, seed=11)


@pytest.fixture(scope="module")
def llama(tiny: Path) -> Workshop:
    return Workshop("llama", tiny, kv_bits=BITS)


@pytest.fixture(scope="module")
def gemma(tiny: Path) -> Workshop:
    return Workshop("gemma3_text", tiny, kv_bits=BITS)


@pytest.fixture(scope="module", params=["llama", "gemma"])
def workshop(request: pytest.FixtureRequest) -> Workshop:
    some: Workshop = request.getfixturevalue(request.param)
    return some


def logits_of(workshop: Workshop, tokens: list[int], cuts: list[int]) -> mx.array:
    """Compute tokens in slices that end at these positions."""
    layers, logits = new_layers(workshop.model, workshop.kv_bits), []
    for start, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        logits.append(workshop.model(mx.array([tokens[start:end]]), cache=layers.caches)[0])
        mx.eval(logits[-1])
    return mx.concatenate(logits)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("bits, steps", [(8, 255), (4, 15)])
@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_a_number_is_off_by_a_step_at_most_in_a_fraction_of_its_bytes(
    bits: int, steps: int, size: int, dtype: mx.Dtype
) -> None:
    numbers = mx.random.normal((2, 3, 5, size), key=mx.random.key(size)).astype(dtype)
    packed = pack(numbers, bits)
    back = unpack(packed, bits, size, dtype)
    assert (back.shape, back.dtype) == (numbers.shape, dtype)
    groups = [each.astype(mx.float32).reshape(-1, group_size(size)) for each in (numbers, back)]
    off, spread = mx.abs(groups[0] - groups[1]).max(axis=1), groups[0].max(axis=1) - groups[0].min(axis=1)
    assert mx.all(off <= spread / steps + (0.05 if dtype == mx.bfloat16 else 1e-6))
    assert packed.nbytes <= numbers.nbytes * (bits / 8 / dtype.size + 2 / 32)


def test_blocks_before_a_tokens_own_are_rounded_and_nothing_else(llama: Workshop) -> None:
    plain = llama.model(mx.array([TOKENS]))[0]
    off = mx.abs(logits_of(llama, TOKENS, []) - plain).max(axis=-1)
    assert mx.all(off[:BLOCK] == 0)
    assert mx.all(off[BLOCK:] > 1e-4)
    assert off.max().item() < 0.3 * mx.std(plain).item()


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 599), max_size=6, unique=True).map(sorted))
def test_how_a_prompt_is_cut_changes_nothing(workshop: Workshop, cuts: list[int]) -> None:
    """But for a number now and then that lies between two steps, and is rounded the other way."""
    whole, parts = (logits_of(workshop, TOKENS[:600], each) for each in ([], cuts))
    assert mx.linalg.norm(whole - parts) < 0.001 * mx.linalg.norm(whole)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(draw=st.data())
def test_any_answers_are_the_same_among_others_from_caches_and_with_drafts(
    workshop: Workshop, draw: st.DataObject
) -> None:
    """A prompt may begin as an earlier one with its answer, or as one that is computed at the same time."""
    scheduler = workshop.scheduler(
        cache_bytes=2**30,
        controls=frozenset({25, 26}),
        chunk_sizer=SlowMachine(draw.draw(st.sampled_from((300, 4000)))),
    )
    said: list[list[int]] = [[]]
    for _ in range(draw.draw(st.integers(1, 3))):
        rows = []
        for _ in range(draw.draw(st.integers(1, 3))):
            before = draw.draw(st.sampled_from(said))
            length = draw.draw(st.integers(1, 400))
            prompt = [*before[: draw.draw(st.integers(0, 500))], *TOKENS[:length], 30 + length % 7]
            proposer = PromptLookupProposer(9) if draw.draw(st.booleans()) else None
            params = draw.draw(st.sampled_from((GREEDY, DRAWN)))
            row = workshop.row(prompt, params, 20, proposer=proposer)
            row.siblings = [workshop.row(prompt, params, 20)] if draw.draw(st.booleans()) else []
            rows.append(row)
        answers = [(row, one) for row in rows for one in (row, *row.siblings)]
        finish(scheduler, rows)
        for row, one in answers:
            assert one.answer == workshop.alone(row.prompt, one.params, 20)
        said += [[*row.prompt, *row.answer] for row in rows]


def test_answers_are_the_same_among_others_with_copies_and_drafts(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(cache_bytes=2**30, chunk_sizer=SlowMachine(800))
    rows = [workshop.row(TOKENS[:length], params, 20) for length, params in ((3, DRAWN), (120, GREEDY), (420, DRAWN))]
    rows[2].siblings = [workshop.row(TOKENS[:420], DRAWN, 20)]
    answers = [(row, one) for row in rows for one in (row, *row.siblings)]
    finish(scheduler, rows)
    again = workshop.row([*TOKENS[:420], *rows[2].answer, 30], GREEDY, 20, proposer=PromptLookupProposer(9))
    finish(scheduler, [again])
    assert again.cached_tokens == 420 + 19
    for row, one in (*answers, (again, again)):
        assert one.answer == workshop.alone(row.prompt, one.params, 20)


def turn(workshop: Workshop, prefixes: PrefixCache, prompt: list[int]) -> Row:
    row = workshop.row(prompt, GREEDY, 8)
    finish(workshop.scheduler(prefixes=prefixes, controls=frozenset({25, 26})), [row])
    assert row.answer == workshop.alone(prompt, GREEDY, 8)
    return row


def test_a_conversation_goes_on_exactly_and_a_prompt_that_parts_from_it_at_the_block_before(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_store, "_SETTLE_SECONDS", 0.0)
    prompt = [*TOKENS[:300], 25, *TOKENS[300:500], 26]
    before = PrefixCache(2**30, PrefixStore(tmp_path, "m", 2**30))
    first = turn(workshop, before, prompt)
    before.close()
    length = len(first.layer_tokens)
    for memory in (2**30, 0):  # the second is read from the disk alone
        prefixes = PrefixCache(memory, PrefixStore(tmp_path, "m", 2**30))
        expected = length if memory else length - length % BLOCK  # the file is that of the longer one by then
        assert turn(workshop, prefixes, [*first.layer_tokens, 40, 41]).cached_tokens == expected
        parted = turn(workshop, prefixes, [*prompt[:290], 41, 42])
        assert parted.cached_tokens == 2 * BLOCK
        prefixes.close()


def test_a_slots_file_has_what_the_slot_had(workshop: Workshop, tmp_path: Path) -> None:
    layers = new_layers(workshop.model, BITS)
    workshop.model(mx.array([TOKENS[:500]]), cache=layers.caches)
    slot_file.write(tmp_path / "slot.safetensors", "m", np.array(TOKENS[:500], dtype=np.int32), copy_layers(layers, 0))
    tokens, again, _ = slot_file.read(tmp_path / "slot.safetensors", "m")
    assert tokens == TOKENS[:500]
    logits = [workshop.model(mx.array([[9]]), cache=each.caches) for each in (layers, again)]
    assert mx.array_equal(*logits)


@pytest.mark.parametrize("grammar", ["object", "regex"])
def test_what_a_grammar_forces_is_the_same_in_one_call_in_a_batch_and_token_by_token(
    llama: Workshop, grammar: str
) -> None:
    prompts = [TOKENS[:100], TOKENS[:380], TOKENS[:250]]
    together = [row_of(llama, grammar, DRAWN, prompt=prompt) for prompt in prompts]
    finish(llama.scheduler(outbox=Letters(), chunk_sizer=SlowMachine(1e9)), together)
    for row, prompt in zip(together, prompts, strict=True):
        single = row_of(llama, grammar, DRAWN, prompt=prompt)
        finish(llama.scheduler(outbox=Letters()), [single])
        assert row.answer == single.answer


@pytest.mark.parametrize("rate", [100, 100_000])
def test_texts_behind_prompts_are_as_likely_as_each_by_itself(workshop: Workshop, rate: float) -> None:
    scheduler, _ = scheduler_for(workshop, rate)
    expected = [alone_with(workshop, each) for each in QUESTIONS]
    for _ in range(2):  # the second time the prompt is cached
        [scored] = scored_by(scheduler, make_row(workshop, QUESTIONS))
        check(scored.prompts, expected)


@pytest.mark.parametrize("bits", [BITS, KVBits(4, 4)])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_admission_counts_what_caches_hold(architecture: str, bits: KVBits) -> None:
    model = random_model(architecture, num_hidden_layers=8)
    footprint, plain = measure(model, bits), measure(model)
    for length in (10, 600, 3000):
        layers = new_layers(model, bits)
        for start in range(0, length, 100):
            model(mx.array([(TOKENS * 5)[start : min(start + 100, length)]]), cache=layers.caches)
            layers.evaluate()
        assert layers.nbytes <= footprint.bytes(length)
    assert footprint.bytes(30_000) < 0.8 * plain.bytes(30_000)


def test_longer_prompts_fit_into_the_same_memory(tiny: Path) -> None:
    for bits, longest in ((None, 15_000), (KVBits(8, 8), 35_000), (KVBits(4, 4), 50_000)):
        workshop = Workshop("llama", tiny, kv_bits=bits, num_hidden_layers=8)
        admission = workshop.scheduler(memory_budget=Fixed(32 * 2**20)).admission
        admission.settle()
        admission.check(longest, 1)
        with pytest.raises(MemoryExceeded):
            admission.check(longest * 6 // 5, 1)


class Fixed(MemoryBudget):
    """So many bytes."""

    def free(self) -> int:
        return self._limit or 0


def test_models_whose_caches_cannot_be_rounded_are_told_apart() -> None:
    assert check_kv_bits(LanguageModel(random_model("llama")), 768, BITS) is None
    assert check_kv_bits(LanguageModel(random_model("gemma3_text")), 768, BITS) is None
    recurrent = check_kv_bits(LanguageModel(random_model("mamba2")), 768, BITS)
    assert recurrent == "no layer of it has a plain cache of full attention"
    odd = check_kv_bits(LanguageModel(random_model("llama", head_dim=40)), 768, BITS)
    assert odd == "its keys or values have 40 numbers, which is no multiple of 32"


class Careless:
    """A model that makes its own mask, without a look at its cache."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, tokens: mx.array, cache: Any = None) -> Any:
        for layer in cache or []:
            if not isinstance(layer, KVCache):
                layer.make_mask = lambda count, *_, **__: "causal" if count > 1 else None
        return self._model(tokens, cache=cache)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def test_a_model_that_does_not_read_such_caches_rightly_is_noticed() -> None:
    assert "differ" in (check_kv_bits(LanguageModel(Careless(random_model("llama"))), 768, BITS) or "")


@pytest.mark.parametrize("text, bits", [("8", (8, 8)), ("4", (4, 4)), ("8,4", (8, 4)), (" Q8_0 , q4_0", (8, 4))])
def test_bits_are_those_of_keys_and_of_values(text: str, bits: tuple[int, int]) -> None:
    assert read({"kv_bits": text}, {}).kv_bits == read({}, {"TILES_KV_BITS": text}).kv_bits == bits


@pytest.mark.parametrize("text", ["3", "16", "8,4,4", "8,", "-8", "q5_1", "eight"])
def test_other_bits_are_refused_in_a_line(text: str) -> None:
    with pytest.raises(SettingError, match="give 8 or 4"):
        read({"kv_bits": text}, {})
