"""Prompts with images: the same as PyTorch's, alone and among others, whole and in slices, from the cache and anew."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from app.services.engine.cache import prefix_store
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.engine.vision.positions import steer
from app.services.engine.vision.prompt_images import PromptImages
from app.services.engine.vision.vision import Vision
from app.services.generation import Image
from tests import vision_models
from tests.engine.scheduler_parts import Counting, Letters, Reader
from tests.engine.workshop import SlowMachine, Workshop, come_and_go, finish

VOCABULARY = 96  # of all these models
GREEDY, DRAWN = SamplingParams(), SamplingParams(temperature=1.0, top_p=0.9, seed=5)


@dataclass
class Prompt:
    tokens: list[int]
    pictures: list[list[int]]  # seed, width and height of each


class Seeing:
    """A tiny model of one family, and rows for it."""

    def __init__(self, family: str, folder: Path, tiny: Path) -> None:
        self.golden = vision_models.golden(family)
        self.image_token = vision_models.image_token(self.golden["config"])
        vision_models.write(folder, self.golden)
        self.folder = folder
        self.model: Any = vision_models.load_text_model(folder)
        self.workshop = Workshop(family, tiny, model=self.model, vocabulary=VOCABULARY)
        model: Any = vision_models.load_text_model(folder)  # of its own: what others do to theirs changes nothing here
        self.workshop_alone = Workshop(family, tiny, model=model, vocabulary=VOCABULARY)
        vision = vision_models.load_vision(folder, model)
        assert vision is not None
        self.vision_of_rows = vision
        self._alone: dict[str, list[int]] = {}

    def vision(self) -> Vision:
        vision = vision_models.load_vision(self.folder, self.model)
        assert vision is not None
        return vision

    def scheduler(self, vision: Vision | None = None, **more: Any) -> Scheduler:
        vision = vision or self.vision()
        if vision.positions is not None:  # the last one that was made has the model
            steer(self.model, vision.positions)
        return self.workshop.scheduler(vision=vision, **more)

    def images(self, vision: Vision, prompt: Prompt) -> PromptImages:
        placed, start = [], 0
        for seed, width, height in prompt.pictures:
            image = vision.read(Image(vision_models.png(seed, width=width, height=height)))
            start = prompt.tokens.index(self.image_token, start)
            placed.append(vision.placed(image, start))
            start = placed[-1].end
        assert self.image_token not in prompt.tokens[start:]
        return PromptImages(tuple(placed))

    def row(self, prompt: Prompt, params: SamplingParams = GREEDY, max_tokens: int = 8) -> Row:
        images = self.images(self.vision_of_rows, prompt)
        return self.workshop.row(prompt.tokens, params, max_tokens, images=images)

    def alone(self, prompt: Prompt, params: SamplingParams = GREEDY, max_tokens: int = 8) -> list[int]:
        key = repr((prompt, params, max_tokens))
        if key not in self._alone:
            row = self.row(prompt, params, max_tokens)
            finish(self.workshop_alone.scheduler(vision=self.vision_of_rows), [row])
            self._alone[key] = row.answer
        return self._alone[key]

    def prompts(self) -> list[Prompt]:
        return [Prompt(case["prompt"], case["pictures"]) for case in self.golden["cases"]]


def another(picture: list[int], seed: int) -> list[int]:
    """Give another picture of the same size."""
    return [seed, *picture[1:]]


@pytest.fixture(scope="module", params=vision_models.FAMILIES)
def seeing(request: Any, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return Seeing(request.param, tmp_path_factory.mktemp(request.param), tiny)


def test_embeddings_logits_and_tokens_are_those_of_pytorch(seeing: Seeing) -> None:
    for case, prompt in zip(seeing.golden["cases"], seeing.prompts(), strict=True):
        vision = seeing.vision()
        row = seeing.row(prompt)
        finish(seeing.scheduler(vision), [row])
        assert row.answer == case["tokens"]
        for image, expected in zip(row.images.images, case["features"], strict=True):
            embeddings = vision.embeddings(image)
            assert embeddings is not None
            scaled = np.array(embeddings * seeing.golden["scale"]).flatten()
            assert np.allclose(vision_models.some(scaled), expected, atol=1e-4)
        *beginning, last = prompt.tokens
        whole = seeing.row(Prompt(beginning, prompt.pictures), max_tokens=0)
        finish(scheduler := seeing.scheduler(vision, cache_bytes=2**30), [whole])
        cached = scheduler.prefixes.get_whole(whole.prefill.tokens)
        assert cached is not None
        assert len(cached.tokens) == len(beginning)
        logits = np.array(seeing.model(mx.array([[last]]), cache=cached.layers.caches)[0, -1])
        assert np.allclose(logits[: len(case["logits"])], case["logits"], atol=5e-4)


def test_what_a_prompt_says_depends_on_its_images(seeing: Seeing) -> None:
    prompt = seeing.prompts()[0]
    pictures = [another(prompt.pictures[0], seed) for seed in range(30, 36)]
    others = [seeing.alone(Prompt(prompt.tokens, [picture]), DRAWN, 24) for picture in pictures]
    assert len({tuple(each) for each in others}) > 1


@pytest.mark.parametrize("tokens_per_second", [10, 40, 100_000])
def test_an_answer_is_the_same_in_slices_and_among_rows_that_come_and_go(
    seeing: Seeing, tokens_per_second: float
) -> None:
    requests = [(prompt, params) for params in (GREEDY, DRAWN) for prompt in seeing.prompts()]
    rows = [seeing.row(*request) for request in requests]
    scheduler = seeing.scheduler(chunk_sizer=SlowMachine(tokens_per_second))
    come_and_go(scheduler, rows)
    assert [row.answer for row in rows] == [seeing.alone(*request) for request in requests]


def test_a_conversation_that_goes_on_computes_only_what_is_new(seeing: Seeing) -> None:
    first = seeing.prompts()[2]
    vision = seeing.vision()
    scheduler = seeing.scheduler(vision, cache_bytes=2**30)
    row = seeing.row(first)
    finish(scheduler, [row])
    assert vision.counts.computed == len(first.pictures)
    last = seeing.prompts()[0]
    turn = Prompt([*first.tokens, *row.answer, *last.tokens], [*first.pictures, *last.pictures])
    second = seeing.row(turn)
    finish(scheduler, [second])
    assert second.cached_tokens >= len(first.tokens)
    assert vision.counts.computed == len(turn.pictures)
    assert second.answer == seeing.alone(turn)


def test_another_image_in_the_same_place_is_never_taken_for_it(seeing: Seeing) -> None:
    prompt = seeing.prompts()[2]
    other = Prompt(prompt.tokens, [prompt.pictures[0], another(prompt.pictures[1], 77)])
    scheduler = seeing.scheduler(cache_bytes=2**30)
    finish(scheduler, [seeing.row(prompt)])
    row = seeing.row(other)
    finish(scheduler, [row])
    assert row.cached_tokens <= row.images.images[1].start
    assert row.prefill.cache_use.first_diff == row.images.images[1].start
    assert row.answer == seeing.alone(other)


def test_images_are_told_apart_on_the_disk_too(seeing: Seeing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_store, "_SETTLE_SECONDS", 0.0)
    first = seeing.prompts()[2]
    prompt = Prompt(first.tokens * 3, first.pictures * 3)
    before = PrefixCache(2**30, PrefixStore(tmp_path, "model", 2**30))
    row = seeing.row(prompt)
    finish(seeing.scheduler(prefixes=before), [row])
    before.close()
    turn = Prompt([*prompt.tokens, *row.answer, 7, 8], prompt.pictures)
    vision = seeing.vision()
    scheduler = seeing.scheduler(vision, prefixes=PrefixCache(2**30, PrefixStore(tmp_path, "model", 2**30)))
    again = seeing.row(turn)
    finish(scheduler, [again])
    assert (again.cached_tokens >= len(prompt.tokens), vision.counts.computed) == (True, 0)
    assert again.answer == seeing.alone(turn)
    other = Prompt(turn.tokens, [another(prompt.pictures[0], 88), *prompt.pictures[1:]])
    row = seeing.row(other)
    finish(scheduler, [row])
    assert row.cached_tokens <= row.images.images[0].start
    assert row.answer == seeing.alone(other)


def test_several_answers_share_the_prompt_and_each_image_is_seen_once(seeing: Seeing) -> None:
    prompt = seeing.prompts()[2]
    vision = seeing.vision()
    params = [DRAWN, SamplingParams(temperature=1.0, seed=6), GREEDY]
    row, *siblings = (seeing.row(prompt, each) for each in params)
    row.siblings = siblings
    finish(seeing.scheduler(vision), [row])
    assert [each.answer for each in (row, *siblings)] == [seeing.alone(prompt, each) for each in params]
    assert vision.counts.computed == len(prompt.pictures)


@pytest.fixture
def reader() -> Iterator[Reader]:
    yield Reader()


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_request_given_up_within_an_image_leaves_nothing_wrong(seeing: Seeing, reader: Reader, steps: int) -> None:
    prompt = seeing.prompts()[2]
    scheduler = seeing.scheduler(cache_bytes=2**30, chunk_sizer=SlowMachine(10), outbox=Letters())
    row = seeing.row(prompt)
    row.generation = reader
    scheduler.submit(row)
    for _ in range(steps):
        scheduler.step()
    scheduler.cancel(reader)
    assert not scheduler.busy
    again = seeing.row(prompt)
    again.generation = reader
    finish(scheduler, [again])
    assert again.answer == seeing.alone(prompt)


@pytest.mark.parametrize("fails_after", [3, 14, 30])
def test_a_row_whose_memory_ran_out_is_computed_again(seeing: Seeing, fails_after: int) -> None:
    model = Counting(seeing.model)
    scheduler = seeing.scheduler(model=model)
    model.tokens, model.fails_after = 0, fails_after
    row = seeing.row(seeing.prompts()[2])
    finish(scheduler, [row])
    assert (row.failures, row.answer) == (1, seeing.alone(seeing.prompts()[2]))


def test_a_tower_that_runs_out_of_memory_costs_that_request_alone(
    seeing: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = seeing.vision()
    seen, blind = seeing.row(seeing.prompts()[0]), seeing.row(seeing.prompts()[1])
    reader, other = Reader(), Reader()
    seen.generation, blind.generation = reader, other

    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(vision, "look", fail)
    scheduler = seeing.scheduler(vision, outbox=Letters())
    finish(scheduler, [seen, blind])
    assert reader.events[-1].code == "out_of_memory"
    assert blind.answer == seeing.alone(seeing.prompts()[1])
    monkeypatch.undo()
    row = seeing.row(seeing.prompts()[0])
    row.generation = Reader()
    finish(scheduler, [row])
    assert row.answer == seeing.alone(seeing.prompts()[0])


def test_a_slot_is_saved_and_comes_back_with_its_images(seeing: Seeing) -> None:
    prompt = seeing.prompts()[0]
    scheduler = seeing.scheduler(cache_bytes=2**30)
    row = seeing.row(prompt)
    finish(scheduler, [row])
    scheduler.slots.facts()
    tokens, layers = scheduler.slots.layers(0)
    vision = seeing.vision()
    other = seeing.scheduler(vision, cache_bytes=2**30)
    other.slots.fill(0, lambda: ([int(token) for token in tokens], layers, 1))
    turn = Prompt([*prompt.tokens, *row.answer, 9], prompt.pictures)
    again = seeing.row(turn)
    finish(other, [again])
    assert (again.cached_tokens >= len(prompt.tokens), vision.counts.computed) == (True, 0)
    assert again.answer == seeing.alone(turn)


def test_embeddings_come_in_the_numbers_of_the_text_model(seeing: Seeing) -> None:
    model: Any = vision_models.load_text_model(seeing.folder)
    model.set_dtype(mx.float16)
    vision = vision_models.load_vision(seeing.folder, model)
    assert vision is not None
    (image,) = seeing.images(vision, seeing.prompts()[0]).images
    while (embeddings := vision.embeddings(image)) is None:
        vision.look(image)
    assert embeddings.dtype == mx.float16
