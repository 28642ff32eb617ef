"""Reads the images of a request, on threads of their own; those with a URL are fetched first, if that is allowed."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from app.services.engine.model.image_markers import with_markers
from app.services.errors import InvalidImage, ReadsTextOnly
from app.services.generation import MOST_IMAGES, Continuations, EncodedImage, GenerationRequest

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision
    from app.services.image_urls import ImageFetcher

_threads = ThreadPoolExecutor(2, thread_name_prefix="image")  # of all models


async def read_images(
    request: GenerationRequest, vision: "Vision | None", fetcher: "ImageFetcher | None" = None
) -> tuple[GenerationRequest, Mapping[bytes, EncodedImage]]:
    """Give the images of a request by their digests, and the request with markers that stand for them.

    Where a model reads text only they are left out, but for those among the user's own words. Raises InvalidRequest.
    """
    images = await _read(request, vision, fetcher)
    return _with_markers(request, images), {image.digest: image for image in images}


async def read_shared_images(
    prompts: Sequence[Continuations], vision: "Vision | None", fetcher: "ImageFetcher | None" = None
) -> tuple[Sequence[Continuations], Mapping[bytes, EncodedImage]]:
    """Do the same for prompts that all have the same images, which are read once."""
    images = await _read(prompts[0].prompt, vision, fetcher)
    shown = [replace(each, prompt=_with_markers(each.prompt, images)) for each in prompts] if images else prompts
    return shown, {image.digest: image for image in images}


def _with_markers(request: GenerationRequest, images: Sequence[EncodedImage]) -> GenerationRequest:
    return with_markers(request, [image.digest for image in images]) if images else request


async def _read(
    request: GenerationRequest, vision: "Vision | None", fetcher: "ImageFetcher | None"
) -> list[EncodedImage]:
    """Give the images of a request in their order; none for a model that reads text only."""
    images = list(request.images)
    if vision is None:
        for image in images:
            if image.is_required:
                raise ReadsTextOnly("This model reads text only, it cannot take images", param=image.param)
        return []
    if not images:
        return []
    request.image_use.seen = True
    try:
        if len(images) > MOST_IMAGES:
            first = images[MOST_IMAGES].param
            raise InvalidImage(f"{len(images)} images; one request takes {MOST_IMAGES}", param=first)
        if fetcher is not None:
            images = await fetcher.fetch(images)
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(_threads, vision.read, image) for image in images))
    except InvalidImage:
        vision.counts.refused += 1
        raise
