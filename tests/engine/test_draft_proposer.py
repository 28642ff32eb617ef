"""Draft tokens from a small model change the speed of an answer and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map

from app.services import catalog
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.sampling.sampler import Sampler
from app.services.engine.speculative import loading as draft_loading
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.engine.speculative.draft_model import DraftModel, DraftModelProposer
from app.services.engine.speculative.prompt_lookup import PromptLookupProposer
from app.services.engine.speculative.proposer import ChainedProposer, DraftLength
from app.services.errors import LoadFailed
from app.services.gguf.cache import GGUFCache
from tests import tiny_model
from tests.engine.sampling_params import PARAMS
from tests.engine.workshop import Workshop, check_drafted, finish, prompts, random_model

TALKATIVE = {"tie_word_embeddings": False}  # its answers do not circle at once
ALL, SOME, NONE = "the same weights", "nearly the same", "others"
LIKELIEST = SamplingParams()
Make = Callable[..., DraftModel]


@pytest.fixture(scope="module")
def workshop(tiny: Path) -> Workshop:
    return Workshop("llama", tiny, **TALKATIVE)


@pytest.fixture(scope="module")
def make() -> Make:
    """Makes draft models whose tokens are accepted always, sometimes or hardly ever."""
    near = random_model("llama", **TALKATIVE)
    mx.random.seed(3)
    near.update(tree_map(lambda array: array + 0.004 * mx.random.normal(array.shape), near.parameters()))
    mx.eval(near.parameters())
    same, other = (random_model("llama", seed, **TALKATIVE) for seed in (1, 2))
    models = {ALL: same, SOME: near, NONE: other}

    def draft(kind: str = ALL, most: int = 4, context: int = 4096) -> DraftModel:
        return DraftModel(LanguageModel(models[kind]), vocabulary=768, context_length=context, max_draft_tokens=most)

    return draft


def proposer_of(
    draft: DraftModel, prompt: list[int], params: SamplingParams = LIKELIEST, end: frozenset[int] = frozenset()
) -> ChainedProposer:
    return ChainedProposer([DraftModelProposer(draft, params, len(prompt), end)])


def draw(draft: DraftModel, tokens: list[int], count: int) -> list[int]:
    return draft.draw(tokens, count, Sampler([LIKELIEST], [[]], [0], draft.vocabulary))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(20, 700), min_size=1, max_size=60),
    PARAMS,
    st.integers(1, 12),
    st.sampled_from([ALL, SOME, NONE]),
    st.booleans(),
)
def test_an_answer_is_the_same_with_a_draft_and_without(
    workshop: Workshop, make: Make, prompt: list[int], params: SamplingParams, most: int, kind: str, both: bool
) -> None:
    expected = workshop.alone(prompt, params, 40)
    draft = make(kind, most)
    draft_proposer = proposer_of(draft, prompt, params)
    proposer = ChainedProposer([PromptLookupProposer(most), draft_proposer]) if both else draft_proposer
    scheduler = workshop.scheduler(cache_bytes=2**28, draft=draft)
    row = workshop.row(prompt, params, 40, proposer=proposer)
    check_drafted(scheduler, row, expected)


@pytest.mark.parametrize(
    "params", [LIKELIEST, SamplingParams(temperature=1.0, seed=7, top_k=20, frequency_penalty=0.2)]
)
def test_draft_tokens_that_are_accepted_save_steps(workshop: Workshop, make: Make, params: SamplingParams) -> None:
    accepted, steps = {}, {}
    prompt = prompts(1)[0]
    for kind in (ALL, SOME, NONE):
        scheduler = workshop.scheduler()
        row = workshop.row(prompt, params, 100, proposer=proposer_of(make(kind), prompt, params))
        steps[kind] = finish(scheduler, [row])
        accepted[kind] = row.accepted_tokens / row.draft_tokens
    assert accepted[ALL] == 1 > accepted[SOME] > accepted[NONE]
    assert steps[ALL] < 30 < steps[SOME] < steps[NONE]


def test_nothing_is_proposed_behind_an_end_token_nor_beyond_the_last_token(workshop: Workshop, make: Make) -> None:
    prompt = prompts(1)[0][:12]
    expected = workshop.alone(prompt, SamplingParams(), 60)
    assert expected[11] not in expected[:11]
    end = frozenset({expected[11]})
    row = workshop.row(prompt, SamplingParams(), 60, end, proposer_of(make(most=12), prompt, end=end))
    finish(workshop.scheduler(), [row])
    assert (row.finish_reason, row.answer) == ("stop", expected[:12])
    proposer = DraftModelProposer(make(most=12), LIKELIEST, len(prompt), end)
    assert proposer.propose(prompt, 3) == expected[:3]
    assert proposer.propose([*prompt, *expected[:10]], 99) == expected[10:12]
    assert proposer.propose([*prompt, *expected[:12]], 99) == []
    assert proposer.propose(prompt, 0) == []


def test_others_may_come_and_go_while_one_has_a_draft_model(workshop: Workshop, make: Make) -> None:
    requests: list[tuple[Any, ...]] = [(prompt, SamplingParams(), 40) for prompt in prompts(3, 30)]
    draft = make(SOME)
    scheduler = workshop.scheduler(draft=draft)
    rows = [workshop.row(*one, proposer=proposer_of(draft, one[0])) for one in requests]
    for row in rows:
        scheduler.submit(row)
        for _ in range(9):
            scheduler.step()
    finish(scheduler, [])
    assert [row.answer for row in rows] == [workshop.alone(*one) for one in requests]
    assert sum(row.accepted_tokens for row in rows) > 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(20, 22), min_size=1, max_size=12), st.integers(1, 6)), max_size=8))
def test_whatever_was_drawn_before_the_likeliest_follows(make: Make, draws: list[tuple[list[int], int]]) -> None:
    draft = make(NONE)
    for tokens, count in draws:
        assert draw(draft, tokens, count) == draw(make(NONE), tokens, count)


def test_a_long_prompt_is_computed_a_slice_at_a_time(workshop: Workshop, make: Make) -> None:
    prompt = prompts(1)[0] * 20
    draft = make()
    lengths = []
    while not (tokens := draw(draft, prompt, 4)):
        lengths.append(len(draft._tokens))
    sizes = [after - before for before, after in zip([0, *lengths], lengths, strict=False)]
    assert sizes[0] == 16  # the fewest, until it is known better
    assert (len(sizes) > 1, max(sizes) <= 2048, min(sizes) > 0) == (True, True, True)
    assert tokens == workshop.alone(prompt, SamplingParams(), 4)


def test_tokens_that_the_draft_has_not_and_contexts_beyond_its_own_do_no_harm(workshop: Workshop, make: Make) -> None:
    prompt = prompts(1)[0]
    narrow = random_model("llama", vocab_size=300, **TALKATIVE)
    few = DraftModel(LanguageModel(narrow), vocabulary=768, context_length=4096, max_draft_tokens=4)
    for draft in (few, make(context=len(prompt) + 8)):
        row = workshop.row(prompt, SamplingParams(), 40, proposer=proposer_of(draft, prompt))
        finish(workshop.scheduler(), [row])
        assert row.answer == workshop.alone(prompt, SamplingParams(), 40)
    assert 0 < row.draft_tokens <= 8


class Full:
    """A model that finds no memory after so many calls, until somebody lets go of its cache."""

    def __init__(self, model: Any, calls: int) -> None:
        self._model, self._left = model, calls

    def __call__(self, tokens: mx.array, **more: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("[malloc] Unable to allocate 123 bytes.")
        return self._model(tokens, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.parametrize("calls", [4, 5, 10])
def test_a_draft_that_finds_no_memory_costs_the_answer_nothing(workshop: Workshop, calls: int) -> None:
    prompt = prompts(1)[0][:30]
    model = LanguageModel(Full(workshop.model, calls))
    draft = DraftModel(model, vocabulary=768, context_length=4096, max_draft_tokens=4)
    row = workshop.row(prompt, SamplingParams(), 60, proposer=proposer_of(draft, prompt))
    finish(workshop.scheduler(draft=draft), [row])
    assert (row.answer, row.failures) == (workshop.alone(prompt, SamplingParams(), 60), 0)
    assert row.accepted_tokens == row.draft_tokens > 0


def test_pauses_get_longer_while_nothing_is_accepted() -> None:
    length = DraftLength(8, longest_pause=16)
    pauses = []
    for _ in range(4):
        length.update(4, 0)
        pauses.append(sum(iter(length.skip_step, False)))
    assert pauses == [4, 8, 16, 16]
    length.update(4, 1)
    assert (length.tokens, length.skip_step()) == (2, False)
    length.update(2, 2)
    length.update(4, 0)
    assert sum(iter(length.skip_step, False)) == 4


def test_the_proposer_of_a_draft_learns_what_was_accepted(make: Make) -> None:
    lookup, draft = PromptLookupProposer(8), DraftModelProposer(make(), LIKELIEST, 0, frozenset())
    both = ChainedProposer([lookup, draft])
    assert both.propose([20, 21, 22, 23, 20, 21], 9) == [22, 23, 20, 21]
    both.update(4, 0)
    assert (lookup.needs_last_token, draft.needs_last_token, both.needs_last_token) == (False, True, True)
    assert len(both.propose([30, 31], 9)) == 4
    both.update(4, 0)
    assert not both.needs_last_token


def test_unloading_lets_go_of_the_draft(workshop: Workshop, make: Make) -> None:
    draft = make()
    with_draft, without = workshop.scheduler(draft=draft), workshop.scheduler()
    own, footprint = without.admission.footprint, with_draft.admission.footprint
    assert footprint.token_bytes == own.token_bytes + draft.footprint.token_bytes > own.token_bytes
    assert draw(draft, [20, 21], 2)
    with_draft.free()
    assert (hasattr(draft, "_model"), draft._layers) == (False, None)


def loaded(folder: Path, draft: Path | str, *, strict: bool = True, context: int | None = None) -> DraftModel | None:
    steps = draft_loading.load(catalog.inspect(folder), DraftConfig(str(draft), 4, strict, context), GGUFCache(None))
    try:
        while True:
            assert 0 <= next(steps) <= 1
    except StopIteration as end:
        parts: draft_loading.Parts = end.value
        assert parts.model is not None
        assert parts.tokenizer.get_vocab()
        return parts.draft


@pytest.fixture
def sliding(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model with a window in half of its layers."""
    folder = shutil.copytree(tiny, tmp_path / "sliding")
    config = json.loads((folder / "config.json").read_text())
    kinds = ["sliding_attention", "full_attention"] * (config["num_hidden_layers"] // 2)
    (folder / "config.json").write_text(json.dumps(config | {"layer_types": kinds, "sliding_window": 16}))
    return folder


def test_a_draft_of_the_same_vocabulary_is_loaded(tiny: Path, tmp_path: Path) -> None:
    draft = loaded(tiny, tiny_model.build(tmp_path / "small", layers=1, seed=5))
    assert draft is not None
    assert (draft.max_draft_tokens, draft.context_length) == (4, 8192)
    assert len(draw(draft, [20, 21], 3)) == 3
    limited = loaded(tiny, tmp_path / "small", context=100)
    assert limited is not None
    assert limited.context_length == 100


def test_a_draft_that_is_missing_or_cannot_be_cut_is_refused(tiny: Path, sliding: Path) -> None:
    for strict in (True, False):
        with pytest.raises(LoadFailed, match=r"The draft model: org/nobody is no folder"):
            loaded(tiny, "org/nobody", strict=strict)
        with pytest.raises(LoadFailed, match="sliding cannot be the draft model: the sliding window cannot take"):
            loaded(tiny, sliding, strict=strict)


def test_a_model_whose_cache_cannot_be_trimmed_has_a_draft_too(tiny: Path, sliding: Path) -> None:
    assert loaded(sliding, tiny) is not None


def test_a_draft_of_another_vocabulary_is_refused_or_left_out(tiny: Path, tmp_path: Path) -> None:
    other = tiny_model.build(tmp_path / "other", vocab_size=700, layers=1)
    with pytest.raises(LoadFailed, match="other cannot be the draft model: token 696 is '<think>' in its vocabulary"):
        loaded(tiny, other)
    assert loaded(tiny, other, strict=False) is None


def test_a_vocabulary_that_ends_early_or_splits_otherwise_is_refused(tiny: Path, tmp_path: Path) -> None:
    short, split = (shutil.copytree(tiny, tmp_path / name) for name in ("short", "split"))
    for folder, change in ((short, _without_added_tokens), (split, _without_merges)):
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    config = json.loads((tiny / "config.json").read_text())
    assert loaded(tiny, short) is not None  # the tokens at its end are no end tokens
    with pytest.raises(LoadFailed, match="splits the same text into other tokens"):
        loaded(tiny, split)
    last = config["vocab_size"] - 1
    ending = shutil.copytree(tiny, tmp_path / "ending")
    (ending / "generation_config.json").write_text(json.dumps({"eos_token_id": [last]}))
    with pytest.raises(LoadFailed, match=f"ends before {last}, the model's end token '</tool_call>'"):
        loaded(ending, short)


def _without_added_tokens(tokenizer: dict[str, Any]) -> dict[str, Any]:
    return tokenizer | {"added_tokens": [one for one in tokenizer["added_tokens"] if one["special"]]}


def _without_merges(tokenizer: dict[str, Any]) -> dict[str, Any]:
    return tokenizer | {"model": tokenizer["model"] | {"merges": tokenizer["model"]["merges"][:9]}}
