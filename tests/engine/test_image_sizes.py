"""How large an image is shown: as it is, unless it has more tokens than it may or is to be small."""

from collections.abc import Callable
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.vision.vision import Vision
from app.services.generation import EncodedImage, Image
from tests import vision_models

SIDES = st.integers(1, 3000)
MakeVision = Callable[[str], Vision]


@pytest.fixture(scope="module")
def make_vision(tmp_path_factory: pytest.TempPathFactory) -> MakeVision:
    made: dict[str, Vision] = {}

    def make(family: str) -> Vision:
        if family not in made:
            folder = vision_models.build(tmp_path_factory.mktemp("models") / family, family)
            vision = vision_models.load_vision(folder, vision_models.load_text_model(folder))
            assert vision is not None
            made[family] = vision
            if family == "qwen2_5_vl":
                vision._processor.size = {"shortest_edge": 256, "longest_edge": 2**40}  # of the tiny one's own, a few
        made[family].limit(2**20)
        return made[family]

    return make


def tokens(vision: Vision, width: int, height: int) -> int:
    return vision.placed(EncodedImage(b"", b"", width, height), 0).length


@settings(deadline=None)
@given(width=SIDES, height=SIDES, most=st.integers(16, 4000), is_small=st.booleans())
def test_an_image_has_no_more_tokens_than_it_may_and_keeps_its_shape(
    make_vision: MakeVision, width: int, height: int, most: int, is_small: bool
) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    vision = make_vision("qwen2_5_vl")
    vision.limit(2**20, most)
    shown = vision._size(EncodedImage(b"", b"", width, height), is_small=is_small)
    assert tokens(vision, *shown) <= most
    assert all(0 < side <= own for side, own in zip(shown, (width, height), strict=True))
    longest = max(width, height)
    assert max(abs(side - own * max(shown) / longest) for side, own in zip(shown, (width, height), strict=True)) < 1
    if is_small:
        assert tokens(vision, *shown) <= max(tokens(vision, 512, 512), tokens(vision, 1, 1))
    elif tokens(vision, width, height) <= most:
        assert shown == (width, height)


def test_an_image_of_a_model_with_as_many_tokens_for_any_size_stays_as_it_is(make_vision: MakeVision) -> None:
    vision = make_vision("gemma3")
    vision.limit(2**20, 16)
    for is_small in (False, True):
        assert vision._size(EncodedImage(b"", b"", 3000, 2000), is_small=is_small) == (3000, 2000)


def test_the_same_file_in_another_size_is_another_image(make_vision: MakeVision) -> None:
    vision = make_vision("qwen2_5_vl")
    vision.limit(2**20, 10_000)
    png = vision_models.png(1, width=900, height=600)
    whole, small, again = (vision.read(Image(png, is_small=small)) for small in (False, True, True))
    assert whole.digest != small.digest == again.digest
    assert (small.width, small.height) == (512, 342)
    vision.limit(2**20, 100)
    limited = vision.read(Image(png))
    assert limited.digest not in (whole.digest, small.digest)
    assert 60 < prod(vision.placed(limited, 0).grid or ()) <= 100
