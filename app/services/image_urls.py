"""Fetches images that are sent as http(s) URLs, where the server is allowed to: from public addresses alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakSet

import httpx

from app.services.errors import AppError, FetchedImagesFull, InvalidImage
from app.services.generation import Image
from app.services.images import MOST_BYTES
from app.services.public_network import HostRefused, PublicTransport

_SIMULTANEOUS = 4  # images of one request that are fetched side by side
_MOST_TOGETHER = 64 * 2**20  # bytes of all fetched images of a request
_MOST_AT_ONCE = 256 * 2**20  # bytes of those of all requests, until they are answered
_MOST_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(10, connect=5)  # seconds without a byte, and for a connection
_SECONDS = 20.0  # for an image, with all redirects
_HEADERS = {"Accept": "image/png, image/jpeg, image/webp, image/gif", "Accept-Encoding": "identity"}


def is_url(image: Image) -> bool:
    """Whether its source is a URL of the web."""
    return isinstance(image.source, str) and image.source[:8].lower().startswith(("http://", "https://"))


class FetchedFile:
    """The size of a file that is fetched. It counts as long as anything refers to this, as what has the file does."""

    __slots__ = ("__weakref__", "size")

    def __init__(self) -> None:
        self.size = 0  # bytes


class FetchBudget:
    """The bytes that fetched files may take at once. Grown by the event loop, and freed by whichever thread is last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: WeakSet[FetchedFile] = WeakSet()

    @property
    def used(self) -> int:
        """Bytes of the files that are fetched, or were and are still needed."""
        return sum(file.size for file in self._files)

    def grow(self, file: FetchedFile, size: int) -> None:
        """Count more bytes of a file. Raises FetchedImagesFull."""
        if self.used + size > self._most:
            raise FetchedImagesFull
        file.size += size
        self._files.add(file)


_of_all_models = FetchBudget(_MOST_AT_ONCE)


class ImageFetcher:
    """Fetches the images of requests. No cookies or credentials are sent, and no proxy is used."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        seconds: float = _SECONDS,
        budget: FetchBudget | None = None,
    ) -> None:
        self._transport = transport or PublicTransport()
        self._seconds = seconds  # for an image
        self._budget = budget or _of_all_models

    async def fetch(self, images: Sequence[Image]) -> list[Image]:
        """Give the images with the files in the place of their URLs. Raises InvalidImage and FetchedImagesFull."""
        turns, total = asyncio.Semaphore(_SIMULTANEOUS), 0
        files: list[FetchedFile] = []

        async def fetch(image: Image) -> Image:
            nonlocal total
            if not is_url(image):
                return image
            files.append(file := FetchedFile())
            async with turns:
                data = await self._data(image, file)
            if (total := total + len(data)) > _MOST_TOGETHER:
                most = _MOST_TOGETHER // 2**20
                raise InvalidImage(f"the images to be fetched have more than {most} MiB together", param=image.param)
            return replace(image, source=data, fetched=file)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(image)) for image in images]
        except BaseException as error:
            for file in files:  # a traceback may refer to them for longer
                file.size = 0
            if isinstance(error, BaseExceptionGroup) and isinstance(first := error.exceptions[0], AppError):
                raise first from None
            raise
        return [task.result() for task in tasks]

    async def _data(self, image: Image, file: FetchedFile) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(str(image.source), file)
        except InvalidImage as error:
            raise InvalidImage(error.message, param=image.param) from None
        except TimeoutError:
            reason = f"it took longer than {self._seconds:g} s"
        except HostRefused as error:
            reason = str(error)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            reason = type(error).__name__
        raise InvalidImage(f"the image could not be fetched: {reason}", param=image.param)

    async def _follow(self, source: str, file: FetchedFile) -> bytes:
        """Give the file that a URL leads to. Each redirect is a request of its own, which is checked as the first."""
        url = httpx.URL(source)
        for _ in range(_MOST_REDIRECTS + 1):
            if url.scheme not in ("http", "https") or url.userinfo or not url.host:
                raise InvalidImage("the image could not be fetched: only http and https URLs without a password are")
            request = httpx.Request("GET", url, headers=_HEADERS, extensions={"timeout": _TIMEOUT.as_dict()})
            reply = await self._transport.handle_async_request(request)
            try:
                if not reply.has_redirect_location:
                    return await self._content(reply, file)
            finally:
                await reply.aclose()
            url = url.join(reply.headers["location"])
        raise InvalidImage(f"the image could not be fetched: its URL redirects more than {_MOST_REDIRECTS} times")

    async def _content(self, reply: httpx.Response, file: FetchedFile) -> bytes:
        if reply.status_code != 200:
            raise InvalidImage(f"the image could not be fetched: its server answers with {reply.status_code}")
        content = bytearray()
        async for chunk in reply.aiter_raw():
            if len(content) + len(chunk) > MOST_BYTES:
                raise InvalidImage(f"an image of more than {MOST_BYTES // 2**20} MiB")
            self._budget.grow(file, len(chunk))
            content += chunk
        return bytes(content)
