"""What makes answers faster or smaller changes none of them where prompts have images: drafts, and rounded caches."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.engine.speculative.prompt_lookup import CopyProposer, PromptLookupProposer
from app.services.engine.speculative.proposer import Proposer
from app.services.facts import KVBits
from tests import vision_models
from tests.engine.test_vision import DRAWN, GREEDY, Prompt, Seeing
from tests.engine.workshop import SlowMachine, check_drafted, come_and_go, finish


@pytest.fixture(scope="module", params=list(vision_models.FAMILIES))
def seeing(request: Any, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return Seeing(request.param, tmp_path_factory.mktemp(request.param), tiny)


class Reciting:
    """Proposes what the answer will be, and now and then a token of the image instead."""

    needs_last_token = False

    def __init__(self, prompt: int, answer: list[int], image: list[int]) -> None:
        self._prompt, self._answer, self._image = prompt, answer, image

    def is_ready(self, answer: Any) -> bool:
        return True

    def propose(self, tokens: Any, limit: int) -> list[int]:
        after = len(tokens) - self._prompt
        draft = self._answer[after : after + 3]
        return [*draft[: after % 3], *self._image[:2], *draft][:limit]

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        pass


def with_proposer(seeing: Seeing, prompt: Prompt, params: SamplingParams, proposer: Proposer) -> Any:
    row = seeing.row(prompt, params, 24)
    row.proposer = proposer
    return row


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_draft_behind_an_image_is_taken_where_it_is_right(seeing: Seeing, params: SamplingParams) -> None:
    for prompt in seeing.prompts():
        expected = seeing.alone(prompt, params, 24)
        images = seeing.row(prompt).images
        reciting = Reciting(len(prompt.tokens), expected, images.images[0].keys if images else [])
        row = with_proposer(seeing, prompt, params, reciting)
        check_drafted(seeing.scheduler(cache_bytes=2**30), row, expected)
        assert row.accepted_tokens > 4


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_prompt_lookup_changes_no_answer_to_a_prompt_with_images(seeing: Seeing, params: SamplingParams) -> None:
    """The prompt repeats itself, images and all, and has the answer in it: there is much to copy."""
    one = seeing.prompts()[2]
    first = [token for token in seeing.alone(one, params, 24) if token != seeing.image_token]
    prompt = Prompt([*one.tokens, *first, *one.tokens, *first, *one.tokens], one.pictures * 3)
    expected = seeing.alone(prompt, params, 24)
    keyed = seeing.row(prompt).images.keyed(prompt.tokens)
    for proposer in (PromptLookupProposer(8), CopyProposer(keyed)):
        row = with_proposer(seeing, prompt, params, proposer)
        finish(seeing.scheduler(), [row])
        assert row.answer == expected


def with_larger_heads(seeing: Seeing) -> Seeing:
    """Give half as many heads of twice the size: smaller ones cannot be rounded."""
    path = seeing.folder / "config.json"
    config = json.loads(path.read_bytes())
    config["text_config"] |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    config["text_config"]["rope_scaling"] |= {"mrope_section": [4, 6, 6]}
    path.write_text(json.dumps(config))
    seeing.model = seeing.workshop.model = vision_models.load_text_model(seeing.folder)
    seeing.workshop_alone.model = vision_models.load_text_model(seeing.folder)
    vision = vision_models.load_vision(seeing.folder, seeing.workshop_alone.model)
    assert vision is not None
    seeing.vision_of_rows = vision
    return seeing


@pytest.mark.parametrize("bits", [KVBits(8, 8), KVBits(4, 4)], ids=str)
def test_a_rounded_cache_with_images_is_the_same_alone_and_among_others(
    tiny: Path, tmp_path: Path, bits: KVBits
) -> None:
    seeing = with_larger_heads(Seeing("qwen2_5_vl", tmp_path, tiny))
    seeing.workshop.kv_bits = seeing.workshop_alone.kv_bits = bits
    long = seeing.prompts()[2]
    prompts = [
        Prompt(long.tokens * 12, long.pictures * 12),
        *seeing.prompts(),
        Prompt(long.tokens * 9, long.pictures * 9),
    ]
    assert len(prompts[0].tokens) > 300  # some blocks are rounded
    expected = [seeing.alone(prompt, params) for prompt in prompts for params in (GREEDY, DRAWN)]

    def rows() -> list[Any]:
        return [seeing.row(prompt, params) for prompt in prompts for params in (GREEDY, DRAWN)]

    for tokens_per_second in (40, 100_000):
        scheduler: Scheduler = seeing.scheduler(cache_bytes=2**30, chunk_sizer=SlowMachine(tokens_per_second))
        come_and_go(scheduler, first := rows())
        finish(scheduler, again := rows())
        assert [row.answer for row in first] == [row.answer for row in again] == expected
        assert again[0].cached_tokens > 300
