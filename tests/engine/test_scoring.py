"""Texts behind prompts are as likely as mlx-lm's model says of each by itself, and nothing is computed twice."""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import new_layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.engine.model.prefill import forward
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.continuations import TokenizedContinuations, tokenize_continuations, without_template
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.engine.scheduler.scoring import Scoring
from app.services.generation import Continuations, GenerationRequest, Message, PromptScores, Scored
from tests.engine.architectures import random_model as random_architecture
from tests.engine.scheduler_parts import Counting, Letters, Reader
from tests.engine.workshop import EVERY, SlowMachine, Workshop

DRAW = random.Random(5)
INPUT = [DRAW.randrange(20, 700) for _ in range(150)]


def prompt(own: Sequence[int], texts: Sequence[Sequence[int]], shared: Sequence[int] = INPUT) -> TokenizedContinuations:
    tokens = [*shared, *own]
    return TokenizedContinuations(len(tokens), np.array(tokens, dtype=np.int32), tuple(map(tuple, texts)))


QUESTIONS = [
    prompt([31, 32, 33], [[40], [41]]),  # one token each, like yes and no
    prompt([31, 32, 34], [[50, 51, 52], [50, 51, 53], [60], [61, 62]]),  # two begin alike
    prompt([31, 35], [[70, 71], [72, 73, 74, 75], [76, 77]]),
    prompt([36], [[80, 81]]),
    prompt([36, 80], [[81, 82], [81]]),  # behind what was an option before; one begins the other
    prompt([31, 32, 33], [[41], [40]]),  # the first one's options, turned around
    prompt([DRAW.randrange(20, 700) for _ in range(90)], [[90, 91, 92]]),
]


@lru_cache
def workshop(architecture: str, folder: Path) -> Workshop:
    return Workshop(architecture, folder)


@pytest.fixture(params=sorted(EVERY))
def some_workshop(request: pytest.FixtureRequest, tiny: Path) -> Workshop:
    return workshop(request.param, tiny)


def scheduler_for(some_workshop: Workshop, rate: float = 400, **options: Any) -> tuple[Scheduler, Counting]:
    model = Counting(some_workshop.model)
    scheduler = some_workshop.scheduler(model=model, outbox=Letters(), chunk_sizer=SlowMachine(rate), **options)
    model.tokens = 0
    return scheduler, model


def make_row(some_workshop: Workshop, prompts: Sequence[TokenizedContinuations], *, together: bool = True) -> Row:
    scoring = Scoring(prompts, "m", vocabulary=some_workshop.vocabulary, together=together)
    row = some_workshop.row(scoring.root, SamplingParams(), 0)
    row.generation, row.scoring = Reader(), scoring
    return row


def finish(scheduler: Scheduler, *rows: Row) -> list[Scored]:
    for row in rows:
        scheduler.submit(row)
    while scheduler.busy:
        scheduler.step()
    return [outcome for row in rows for outcome in outcomes(row) if isinstance(outcome, Scored)]


def outcomes(row: Row) -> list[Any]:
    assert isinstance(row.generation, Reader)
    return row.generation.events


def alone(model: Any, each: TokenizedContinuations) -> list[list[float]]:
    """What mlx-lm's model says of each text, computed with its prompt in one go."""
    return _values(each, lambda tokens: model(tokens, cache=make_prompt_cache(model)))


def alone_with(some_workshop: Workshop, each: TokenizedContinuations) -> list[list[float]]:
    """The same, of a model whose KV caches hold older tokens rounded."""
    model, kv_bits = some_workshop.model, some_workshop.kv_bits
    return _values(each, lambda tokens: model(tokens, cache=new_layers(model, kv_bits).caches))


def _values(each: TokenizedContinuations, compute: Callable[[mx.array], mx.array]) -> list[list[float]]:
    values = []
    for text in each.texts:
        tokens = [*each.shared.tolist(), *text]
        logits = compute(mx.array([tokens]))[0].astype(mx.float32)
        logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        values.append([float(logprobs[index - 1, tokens[index]]) for index in range(len(each.shared), len(tokens))])
    return values


def check(scores: Sequence[PromptScores], expected: Sequence[list[list[float]]]) -> None:
    assert len(scores) == len(expected)
    for score, values in zip(scores, expected, strict=True):
        assert [len(each) for each in score.logprobs] == [len(each) for each in values]
        np.testing.assert_allclose(np.concatenate(score.logprobs), np.concatenate(values), atol=0.002)


@pytest.mark.parametrize("together", [True, False])
def test_texts_are_as_likely_as_each_is_by_itself(some_workshop: Workshop, together: bool) -> None:
    scheduler, _ = scheduler_for(some_workshop)
    [scored] = finish(scheduler, make_row(some_workshop, QUESTIONS, together=together))
    check(scored.prompts, [alone(some_workshop.model, each) for each in QUESTIONS])
    assert [each.prompt_tokens for each in scored.prompts] == [len(each.shared) for each in QUESTIONS]


@pytest.mark.parametrize("rate", [20, 100, 100_000])
def test_the_size_of_chunks_changes_nothing(some_workshop: Workshop, rate: float) -> None:
    scheduler, _ = scheduler_for(some_workshop, rate)
    [scored] = finish(scheduler, make_row(some_workshop, QUESTIONS))
    check(scored.prompts, [alone(some_workshop.model, each) for each in QUESTIONS])


def test_the_order_of_questions_and_options_changes_no_bit(some_workshop: Workshop) -> None:
    [scored] = finish(scheduler_for(some_workshop)[0], make_row(some_workshop, QUESTIONS))
    turned = [prompt(each.shared[len(INPUT) :].tolist(), each.texts[::-1]) for each in QUESTIONS[::-1]]
    [other] = finish(scheduler_for(some_workshop)[0], make_row(some_workshop, turned))
    assert [each.logprobs for each in scored.prompts] == [each.logprobs[::-1] for each in other.prompts[::-1]]


def test_beside_answers_and_other_questions_texts_are_as_likely(some_workshop: Workshop) -> None:
    scheduler, _ = scheduler_for(some_workshop)
    answer = some_workshop.row(INPUT[:60], SamplingParams(), 12)
    answer.generation = Reader()
    rows = [make_row(some_workshop, [QUESTIONS[index]]) for index in (0, 1, 2)]
    scored = finish(scheduler, answer, *rows)
    check([each.prompts[0] for each in scored], [alone(some_workshop.model, each) for each in QUESTIONS[:3]])
    assert answer.answer == some_workshop.alone(INPUT[:60], SamplingParams(), 12)


def test_what_prompts_begin_with_is_computed_once(some_workshop: Workshop) -> None:
    scheduler, model = scheduler_for(some_workshop)
    finish(scheduler, make_row(some_workshop, QUESTIONS[:1], together=False))  # the first one tries what there is
    model.tokens = 0
    questions = [prompt([*range(100, 120), 200 + number], [[300], [301]]) for number in range(40)]
    [scored] = finish(scheduler, make_row(some_workshop, questions))
    assert model.tokens == len(INPUT) + 20 + 40
    assert scored.prompt_tokens == len(INPUT) + 20 + 40 * 3


def test_the_prefix_cache_has_the_prompt_of_earlier_questions(some_workshop: Workshop) -> None:
    prefixes = PrefixCache(2**30)
    scheduler, model = scheduler_for(some_workshop, prefixes=prefixes)
    [first] = finish(scheduler, make_row(some_workshop, QUESTIONS))
    model.tokens = 0
    [again] = finish(scheduler, make_row(some_workshop, QUESTIONS))
    assert (first.cached_tokens, len(prefixes)) == (0, 1)
    assert again.cached_tokens >= len(INPUT) - 1
    assert (
        model.tokens <= again.prompt_tokens + 30 - again.cached_tokens
    )  # with the padding of rows that are computed together
    check(again.prompts, [list(map(list, each.logprobs)) for each in first.prompts])


def test_an_answer_goes_on_from_the_prompt_of_questions(some_workshop: Workshop) -> None:
    scheduler, _ = scheduler_for(some_workshop, cache_bytes=2**30)
    finish(scheduler, make_row(some_workshop, QUESTIONS))
    row = some_workshop.row([*INPUT, 31, 32, 33], SamplingParams(), 12)
    row.generation = Reader()
    finish(scheduler, row)
    assert row.cached_tokens >= len(INPUT) - 1
    assert row.answer == some_workshop.alone([*INPUT, 31, 32, 33], SamplingParams(), 12)


def test_prompts_that_have_nothing_in_common_are_scored(some_workshop: Workshop) -> None:
    questions = [prompt([], [[7, 8]], [5]), prompt([], [[9], [10, 11]], [6, 7, 8]), prompt([2] * 80, [[3]], [4])]
    [scored] = finish(scheduler_for(some_workshop)[0], make_row(some_workshop, questions))
    check(scored.prompts, [alone(some_workshop.model, each) for each in questions])


def test_questions_that_nobody_waits_for_are_dropped(some_workshop: Workshop) -> None:
    scheduler, _ = scheduler_for(some_workshop, rate=20)
    row = make_row(some_workshop, QUESTIONS)
    scheduler.submit(row)
    while not (row.scoring and row.scoring.is_begun):
        scheduler.step()
    assert scheduler.running == 1
    assert isinstance(row.generation, Reader)
    scheduler.cancel(row.generation)
    assert not scheduler.busy
    scheduler.step()
    assert scheduler.running == 0


def test_questions_begin_again_where_memory_runs_out(some_workshop: Workshop) -> None:
    scheduler, model = scheduler_for(some_workshop)
    model.fails_after = len(INPUT) + 12
    [scored] = finish(scheduler, make_row(some_workshop, QUESTIONS))
    check(scored.prompts, [alone(some_workshop.model, each) for each in QUESTIONS])


TOKENS = st.lists(st.integers(20, 24), min_size=1, max_size=5)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=3)), min_size=1, max_size=4), st.booleans())
def test_any_prompts_and_texts_are_as_likely_as_by_themselves(
    tiny: Path, questions: list[tuple[list[int], list[list[int]]]], together: bool
) -> None:
    for architecture in ("llama", "gemma3_text"):
        model = workshop(architecture, tiny)
        prompts = [prompt([], texts, own) for own, texts in questions]
        [scored] = finish(scheduler_for(model, 40)[0], make_row(model, prompts, together=together))
        check(scored.prompts, [alone(model.model, each) for each in prompts])


def letters(text: str) -> list[int]:
    """A tokenizer that joins two letters where it can, but not across a bar."""
    tokens, index = [], 0
    while index < len(text):
        size = 2 if text[index : index + 2].isalpha() and index + 1 < len(text) else 1
        tokens.append(int.from_bytes(text[index : index + size].encode()))
        index += size
    return tokens


def spell(tokens: Sequence[int]) -> str:
    return "".join(token.to_bytes(2).decode().strip("\0") for token in tokens)


@pytest.mark.parametrize("before", ["", "q|"])
def test_the_tokenizer_decides_how_a_text_joins_its_prompt(before: str) -> None:
    text = f"{before}abc"  # ends with a lone c, which some texts are joined with
    tokenized = tokenize_continuations(
        text,
        letters(text),
        ["d", "1"],
        controls=frozenset(letters("|")),
        tokenize=letters,
        tokenize_piece=letters,
        detokenize=spell,
    )
    assert tokenized.shared.tolist() == letters(f"{before}ab")
    assert [spell(each) for each in tokenized.texts] == ["cd", "c1"]
    assert [len(each) for each in tokenized.texts] == [1, 2]


def test_a_model_without_a_chat_template_goes_on_with_plain_text() -> None:
    request = GenerationRequest((Message("user", "Is it?"),))
    plain = without_template(Continuations(request, ("Yes", "No")))
    assert plain.prompt.prompt == ("Is it?\n\nAnswer:",) and plain.prompt.messages == ()
    assert plain.texts == (" Yes", " No")


def test_ids_that_are_not_what_their_text_becomes_stay_as_they_are() -> None:
    ids = letters("a") + letters("b")
    tokenized = tokenize_continuations(
        "ab", ids, ["cd", "1"], controls=frozenset(), tokenize=letters, tokenize_piece=letters, detokenize=spell
    )
    assert tokenized.shared.tolist() == ids
    assert [spell(each) for each in tokenized.texts] == ["cd", "1"]


class Budget(MemoryBudget):
    """So many bytes, whatever is used."""

    def free(self) -> int:
        assert self._limit is not None
        return self._limit


def test_texts_are_scored_one_by_one_where_there_is_no_memory_for_copies(some_workshop: Workshop) -> None:
    row = make_row(some_workshop, QUESTIONS)
    assert row.scoring is not None
    tokens = len(row.prompt) + row.scoring.longest
    footprint = measure(some_workshop.model)
    least = footprint.bytes(tokens)
    copies = footprint.forked_bytes(tokens, row.scoring.most_rows)
    for size, rows in ((least + copies, row.scoring.most_rows), (least + copies - 1, 1)):
        scheduler, _ = scheduler_for(some_workshop, memory_budget=Budget(size))
        row = make_row(some_workshop, QUESTIONS)
        [scored] = finish(scheduler, row)
        check(scored.prompts, [alone(some_workshop.model, each) for each in QUESTIONS])
        assert row.scoring is not None and row.scoring.most_rows == rows > 0


def test_no_copy_of_a_long_prompt_stays_in_memory(tiny: Path) -> None:
    some_workshop = workshop("llama", tiny)
    model = LanguageModel(some_workshop.model)
    layers = model.new_layers()
    forward(model, layers, INPUT * 20)
    before = mx.get_active_memory()
    forks = layers.fork(16)
    logits = model.step(forks, mx.array([[1, 2]] * 16))
    mx.eval(logits)
    kept = mx.get_active_memory() - before - logits.nbytes
    footprint = measure(some_workshop.model)
    assert footprint.bytes(len(INPUT) * 20) < footprint.forked_bytes(len(INPUT) * 20, 16)
    assert kept < layers.nbytes // 8


def test_layers_that_use_the_cache_of_another_see_all_rows(tiny: Path) -> None:
    """Gemma 3n's last layers have no keys of their own."""
    some_workshop = Workshop("gemma3n", tiny, model=random_architecture("gemma3n_x"))
    [scored] = finish(scheduler_for(some_workshop)[0], make_row(some_workshop, QUESTIONS[:3]))
    check(scored.prompts, [alone(some_workshop.model, each) for each in QUESTIONS[:3]])
