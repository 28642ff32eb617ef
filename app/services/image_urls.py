"""Fetches images that are sent as http(s) URLs, where the server is allowed to: from public addresses alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import httpx

from app.services.errors import InvalidImage
from app.services.generation import Image
from app.services.images import MOST_BYTES
from app.services.public_network import HostRefused, PublicTransport

_SIMULTANEOUS = 4  # images of one request that are fetched side by side
_MOST_TOGETHER = 64 * 2**20  # bytes of all fetched images of a request
_MOST_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(10, connect=5)  # seconds without a byte, and for a connection
_SECONDS = 20.0  # for an image, with all redirects
_HEADERS = {"Accept": "image/png, image/jpeg, image/webp, image/gif", "Accept-Encoding": "identity"}


def is_url(image: Image) -> bool:
    """Whether its source is a URL of the web."""
    return isinstance(image.source, str) and image.source[:8].lower().startswith(("http://", "https://"))


class ImageFetcher:
    """Fetches the images of requests. No cookies or credentials are sent, and no proxy is used."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, seconds: float = _SECONDS) -> None:
        self._transport = transport or PublicTransport()
        self._seconds = seconds  # for an image

    async def fetch(self, images: Sequence[Image]) -> list[Image]:
        """Give the images with the files in the place of their URLs. Raises InvalidImage."""
        turns, total = asyncio.Semaphore(_SIMULTANEOUS), 0

        async def fetch(image: Image) -> Image:
            nonlocal total
            if not is_url(image):
                return image
            async with turns:
                data = await self._file(image)
            if (total := total + len(data)) > _MOST_TOGETHER:
                most = _MOST_TOGETHER // 2**20
                raise InvalidImage(f"the images to be fetched have more than {most} MiB together", param=image.param)
            return replace(image, source=data)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(image)) for image in images]
        except* InvalidImage as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _file(self, image: Image) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(str(image.source))
        except InvalidImage as error:
            raise InvalidImage(error.message, param=image.param) from None
        except TimeoutError:
            reason = f"it took longer than {self._seconds:g} s"
        except HostRefused as error:
            reason = str(error)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            reason = type(error).__name__
        raise InvalidImage(f"the image could not be fetched: {reason}", param=image.param)

    async def _follow(self, source: str) -> bytes:
        """Give the file that a URL leads to. Each redirect is a request of its own, which is checked as the first."""
        url = httpx.URL(source)
        for _ in range(_MOST_REDIRECTS + 1):
            if url.scheme not in ("http", "https") or url.userinfo or not url.host:
                raise InvalidImage("the image could not be fetched: only http and https URLs without a password are")
            request = httpx.Request("GET", url, headers=_HEADERS, extensions={"timeout": _TIMEOUT.as_dict()})
            reply = await self._transport.handle_async_request(request)
            try:
                if not reply.has_redirect_location:
                    return await _content(reply)
            finally:
                await reply.aclose()
            url = url.join(reply.headers["location"])
        raise InvalidImage(f"the image could not be fetched: its URL redirects more than {_MOST_REDIRECTS} times")


async def _content(reply: httpx.Response) -> bytes:
    if reply.status_code != 200:
        raise InvalidImage(f"the image could not be fetched: its server answers with {reply.status_code}")
    content = bytearray()
    async for chunk in reply.aiter_raw():
        content += chunk
        if len(content) > MOST_BYTES:
            raise InvalidImage(f"an image of more than {MOST_BYTES // 2**20} MiB")
    return bytes(content)
