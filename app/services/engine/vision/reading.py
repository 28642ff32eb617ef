"""Reads the images of a request, on threads of their own; those with a URL are fetched first, if that is allowed."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from app.services.engine.model.image_markers import with_markers
from app.services.errors import InvalidImage, InvalidRequest
from app.services.generation import MOST_IMAGES, EncodedImage, GenerationRequest, Image

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
    images = list(request.images)
    if vision is None:
        for image in images:
            if image.is_required:
                raise InvalidRequest("This model reads text only, it cannot take images", param=image.param)
    if not images or vision is None:
        return request, {}
    request.image_use.seen = True
    try:
        encoded = await _read(images, vision, fetcher)
    except InvalidImage:
        vision.counts.refused += 1
        raise
    return with_markers(request, [image.digest for image in encoded]), {image.digest: image for image in encoded}


async def _read(images: list[Image], vision: "Vision", fetcher: "ImageFetcher | None") -> list[EncodedImage]:
    if len(images) > MOST_IMAGES:
        first = images[MOST_IMAGES].param
        raise InvalidImage(f"{len(images)} images; one request takes {MOST_IMAGES}", param=first)
    if fetcher is not None:
        images = await fetcher.fetch(images)
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(_threads, vision.read, image) for image in images))
