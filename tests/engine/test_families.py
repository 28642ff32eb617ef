"""Whoever asks beside it, the answer of a model of any family is the one that mlx-lm gives to its tokens alone."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

from app.commands import model_checks
from app.commands.checks import CheckContext
from app.services import catalog
from app.services.engine.cache.layers import new_layers, storable
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.model.batching import check_batching
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.speculative.prompt_lookup import PromptLookupProposer
from app.services.facts import Batching
from app.settings import Settings
from tests.engine.architectures import ROOT, build, random_model
from tests.engine.workshop import Workshop, finish

VOCABULARY, CONTEXT = 2560, 8192
TOKENS = 12  # of an answer
CLOSE = 0.002  # between the logits of two tokens of which either may come
END = 7  # a token that templates put behind messages
GREEDY = SamplingParams()

TOGETHER = ("llama", "gemma3_x", "qwen3_next", "falcon_h1")
ONE_BY_ONE = ("nemotron_h", "rwkv7", "jamba", "mamba", "falcon_mamba", "olmo_hybrid", "bailing_moe_linear")
ONE_BY_ONE += ("baichuan_m1", "recurrent_gemma", "nemotron-nas")
APART = ("gemma2", "gpt_bigcode", "minimax_m3_vl", "afm7", "longcat_flash_ngram")
APART += ("llama4", "deepseek_v41")
# One that only raises, every day; the others are wrong in other ways, or right. For all there is `nox -s families`.
EVERY_DAY = ("gemma2",)
FAMILIES = [
    *EVERY_DAY,
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("nemotron_h", "llama4", "qwen3_next", "rwkv7", "minimax_m3_vl", "deepseek_v41")
    ),
]


class Family(Workshop):
    """A tiny model of an architecture, with what the check at load says of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ROOT / "app" / "tiles_nano", model=random_model(name), vocabulary=VOCABULARY)
        self.batching = check_batching(LanguageModel(self.model), VOCABULARY, CONTEXT, 2**30)

    def check(self, row: Row) -> None:
        """Compare the greedy answer of a row with mlx-lm's to the same tokens."""
        steps = generate_step(mx.array(row.prompt), self.model, max_tokens=len(row.answer))
        expected = [int(cast("int", token)) for token, _ in steps]
        assert len(row.answer) == TOKENS
        different = next((place for place, token in enumerate(row.answer) if token != expected[place]), None)
        if different is not None:  # two tokens may be as likely
            tokens = mx.array([row.prompt + expected[:different]])
            logits = self.model(tokens, cache=make_prompt_cache(self.model))[0, -1]
            assert abs(logits[row.answer[different]] - logits[expected[different]]).item() < CLOSE

    def greedy(self, prompt: list[int]) -> Row:
        return self.row(prompt, GREEDY, TOKENS)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any) -> Family:
    return Family(request.param)


def draw(*lengths: int, seed: int = 3) -> list[list[int]]:
    """Draw a prompt of each length."""
    numbers = random.Random(seed)
    return [[numbers.randrange(20, VOCABULARY - 20) for _ in range(length)] for length in lengths]


def check_all(family: Family, rows: Sequence[Row]) -> None:
    for row in rows:
        family.check(row)


@pytest.mark.parametrize("lengths", [(9, 2, 31, 1, 60, 17), (150, 64, 200, 5), (1, 2)])
def test_prompts_that_come_at_once_are_answered_as_each_is_alone(family: Family, lengths: tuple[int, ...]) -> None:
    rows = [family.greedy(prompt) for prompt in draw(*lengths)]
    finish(family.scheduler(), rows)
    check_all(family, rows)


def test_rows_that_join_and_leave_change_nobody_s_answer(family: Family) -> None:
    scheduler = family.scheduler()
    rows = [family.greedy(prompt) for prompt in draw(90, 3, 40, 120, 12, 70)]
    passing = [family.row(prompt, GREEDY, 2 + 3 * place) for place, prompt in enumerate(draw(20, 100, 8, seed=4))]
    for place, row in enumerate([*rows[:2], *passing[:2], *rows[2:4], *passing[2:], *rows[4:]]):
        scheduler.submit(row)
        for _ in range(place % 3):
            scheduler.step()
    finish(scheduler, [])
    check_all(family, rows)


def test_each_of_several_answers_to_a_prompt_is_what_it_would_be_alone(family: Family) -> None:
    first, *others = rows = [family.greedy(prompt) for prompt in draw(45) * 3]
    first.siblings = others
    finish(family.scheduler(), [family.greedy(draw(14, seed=5)[0]), first])
    check_all(family, rows)


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
def test_what_is_cached_changes_no_answer(family: Family, tmp_path: Path, on_disk: bool) -> None:
    """A conversation goes on, and its last message is edited; in between, what is in memory may be lost."""
    first, second, edited = draw(130, 40, 50)
    store = PrefixStore(tmp_path, "family", 2**30) if on_disk else None
    scheduler = family.scheduler(prefixes=PrefixCache(2**30, store), controls=frozenset({END}))
    begin = [*first, END]

    def ask(prompt: list[int]) -> Row:
        beside = family.greedy(draw(20, seed=len(prompt))[0])
        row = family.greedy(prompt)
        finish(scheduler, [row, beside])
        check_all(family, [row, beside])
        if on_disk:
            scheduler.prefixes.flush()
            scheduler.prefixes.clear()
        return row

    turn = ask([*begin, *second])
    following = ask([*turn.prompt, *turn.answer, END, *edited])
    branch = ask([*begin, *edited])
    if not on_disk or storable(new_layers(family.model)):
        assert following.cached_tokens >= len(turn.prompt)
        assert branch.cached_tokens >= len(first) - 1


def test_a_row_that_drafts_says_what_it_says_without(family: Family) -> None:
    prompt = draw(12)[0] * 4
    row = family.row(prompt, GREEDY, TOKENS, proposer=PromptLookupProposer(4))
    finish(family.scheduler(), [row])
    family.check(row)


@pytest.mark.parametrize("name", TOGETHER)
def test_families_that_are_right_in_a_batch_stay_there(name: str) -> None:
    assert Family(name).batching == Batching()


@pytest.mark.parametrize("name", [*ONE_BY_ONE, *APART])
def test_families_that_are_wrong_in_a_batch_are_found_out(name: str) -> None:
    batching = Family(name).batching
    assert batching.prefill
    assert bool(batching.decoding) == (name in APART)


@pytest.mark.slow  # two processes that load a model
@pytest.mark.parametrize("name, state", [("gemma2", "warning"), ("mamba", "ok")])
def test_doctor_says_what_of_several_answers_is_not_computed_together(name: str, state: str, tmp_path: Path) -> None:
    context = CheckContext(Settings(), model=catalog.inspect(build(name, tmp_path / name)))
    check = model_checks.batching(context)
    assert check is not None
    assert check.state == state
    assert "together, " in check.detail


def test_a_batch_for_each_row_gives_every_row_a_token_in_every_step() -> None:
    family = Family("gemma2")
    scheduler = family.scheduler()
    rows = [family.row(prompt, GREEDY, 30) for prompt in draw(9, 150, 3, 40)]
    for row in rows:
        scheduler.submit(row)
    while not all(row.answer for row in rows):
        scheduler.step()
    before = [len(row.answer) for row in rows]
    scheduler.step()
    scheduler.step()
    assert [len(row.answer) - begin for row, begin in zip(rows, before, strict=True)] == [2] * 4
