"""The memory of towers: what admission counts is what they take, and whoever needs more than there is waits."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy
import pytest

from app.services.engine.vision.gemma3 import GEMMA3
from app.services.engine.vision.memory import count_patches, peak_bytes
from app.services.engine.vision.prompt_images import PromptImages
from app.services.errors import MemoryExceeded
from app.services.generation import Image
from tests import vision_models
from tests.engine.test_admission import Errors, small
from tests.engine.test_vision import Seeing
from tests.engine.workshop import finish

MIB = 2**20


@pytest.fixture(scope="module", params=list(vision_models.FAMILIES))
def seeing(request: Any, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return Seeing(request.param, tmp_path_factory.mktemp(request.param), tiny)


def measured(steps: Any) -> int:
    """Give the most bytes that the steps of a tower take at a time, beside what was there before."""
    mx.clear_cache()
    before, most = mx.get_active_memory(), 0
    while True:
        mx.reset_peak_memory()
        try:
            mx.eval(next(steps))
        except StopIteration as end:
            mx.eval(end.value)
            return max(most, mx.get_peak_memory() - before)
        most = max(most, mx.get_peak_memory() - before)


def test_a_tower_takes_no_more_than_is_counted_and_not_much_less() -> None:
    vision = {"hidden_size": 96, "intermediate_size": 320, "num_attention_heads": 4, "num_hidden_layers": 2}
    vision |= {"image_size": 280, "patch_size": 10, "num_channels": 3, "layer_norm_eps": 1e-6}
    tower = GEMMA3.tower({"vision_config": vision, "text_config": {"hidden_size": 64}, "mm_tokens_per_image": 49})
    mx.eval(tower.parameters())
    pixels = numpy.random.default_rng(1).random((1, 3, 280, 280), dtype=numpy.float32)
    patches = count_patches(vision, pixels.size)
    assert patches == 28 * 28
    taken = measured(tower({"pixel_values": pixels}))
    assert taken <= peak_bytes(vision, patches, 4) < 2 * taken


def test_a_tower_of_each_family_takes_no_more_than_is_counted(seeing: Seeing) -> None:
    vision = seeing.vision()
    vision.limit(2**20, 4000)
    if vision.positions is not None:  # images of any size; more than a few patches, so that these are what counts
        vision._processor.size = {"shortest_edge": 256, "longest_edge": 2**40}
    image = vision.placed(vision.read(Image(vision_models.png(1, width=160, height=160))), 0)
    inputs = vision._inputs.pop(image.image.digest)
    needed = vision.bytes_needed(PromptImages((image,)))
    assert measured(vision._tower(inputs)) <= needed + MIB


def test_an_image_that_is_unseen_needs_memory_and_one_that_was_seen_none(seeing: Seeing) -> None:
    prompt = seeing.prompts()[0]
    vision = seeing.vision()
    images = seeing.images(vision, prompt)
    assert vision.bytes_needed(images) > 0
    twice = PromptImages((*images.images, *images.images))
    assert vision.bytes_needed(twice) == vision.bytes_needed(images)
    finish(seeing.scheduler(vision), [seeing.row(prompt)])
    assert vision.bytes_needed(images) == 0


def test_a_row_whose_image_does_not_fit_is_refused_and_the_others_are_answered(
    seeing: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = seeing.vision()
    scheduler = small(seeing, 64 * MIB, vision=vision, outbox=(errors := Errors()))
    rows = [seeing.row(prompt) for prompt in seeing.prompts()]
    errors.read(*rows)
    large = rows[0].images.images[0].image.digest
    needed = vision.bytes_needed

    def much(images: PromptImages) -> int:
        return needed(images) + 10**9 * any(image.image.digest == large for image in images.images)

    monkeypatch.setattr(vision, "bytes_needed", much)
    with pytest.raises(MemoryExceeded, match="its cache and its images"):
        scheduler.admission.check(10, 1, rows[0].images)
    scheduler.admission.check(10, 1)
    finish(scheduler, rows)
    others = [row for row in rows if all(image.image.digest != large for image in row.images.images)]
    assert {row for row, _ in errors.by_row.items()} == {*rows} - {*others}
    assert all("its cache and its images" in error.message for (error,) in errors.by_row.values())
    assert [row.answer for row in others] == [
        seeing.alone(prompt) for prompt, row in zip(seeing.prompts(), rows, strict=True) if row in others
    ]
