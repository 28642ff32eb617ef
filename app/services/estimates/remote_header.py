"""The header of a GGUF file on a hub, read from its first bytes; the rest of the file is not downloaded.

A client says which address that is, so it may not be one that the client could not reach itself: only public addresses
are asked, with https, and what they redirect to is checked alike. The hub that `HF_ENDPOINT` names is one's own choice,
wherever it is; and where `HF_HUB_OFFLINE` forbids downloads this is one.
"""

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpx

from app.services.errors import EstimateFailed, LoadFailed
from app.services.gguf import names
from app.services.gguf.file import read_header
from app.services.public_network import HostRefused, PublicTransport

_FIRST, _MAX_BYTES = 8 * 2**20, 64 * 2**20  # of a file; the header of a vocabulary of 262,144 tokens takes 15 MiB
_FIRST_OF_SHARD, _MAX_SHARDS = 2**18, 128  # bytes of shards after the first, which hold little but their tensors' names
_MAX_FILE = 2**43  # bytes that a file may say it has
_MAX_REDIRECTS = 5
_SECONDS, _SECONDS_IN_ALL = 10.0, 60.0  # without a byte, and for all of it
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_TRUE = {"1", "on", "yes", "true"}

T = TypeVar("T")


async def read(url: str, folder: Path, parse: Callable[[Path], T], environ: Mapping[str, str] = os.environ) -> T:
    """Write a file's first bytes into a folder, as many as `parse` needs; the rest is a hole.

    Of a file of several shards, `parse` finds all, and gets the first. Raises EstimateFailed.
    """
    if environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        raise EstimateFailed("HF_HUB_OFFLINE is set: nothing is looked up on the internet")
    try:
        async with (
            asyncio.timeout(_SECONDS_IN_ALL),
            httpx.AsyncClient(timeout=_SECONDS, transport=PublicTransport()) as client,
        ):
            first, *others = _files(url)
            for name, address in others:
                await _read(_Source(client, address, environ), folder / name, read_header, _FIRST_OF_SHARD)
            return await _read(_Source(client, first[1], environ), folder / first[0], parse, _FIRST)
    except TimeoutError:
        raise EstimateFailed(f"The header took longer than {_SECONDS_IN_ALL:.0f} s") from None
    except HostRefused as error:
        raise EstimateFailed(str(error), param="url") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EstimateFailed(f"The file cannot be read: {type(error).__name__}") from None


def _files(url: str) -> list[tuple[str, str]]:
    """Give the name and the address of a file, or of all shards of which it is one."""
    path = url.partition("?")[0].partition("#")[0]
    folder, _, name = path.rpartition("/")
    shards = names.shards(unquote(name))
    if "/" in unquote(name) or not shards:
        return [("model.gguf", url)]
    if len(shards) > _MAX_SHARDS:
        raise EstimateFailed(f"The file has more than {_MAX_SHARDS} shards")
    return [(shard, f"{folder}/{quote(shard)}{url[len(path) :]}") for shard in shards]


async def _read(source: "_Source", path: Path, parse: Callable[[Path], T], stop: int) -> T:
    size = 0
    with path.open("wb") as file:
        while True:
            content, total = await source.part(size, stop)
            file.write(content)
            file.flush()
            size += len(content)
            os.truncate(path, total)
            try:
                return await asyncio.to_thread(parse, path)
            except LoadFailed as error:
                if size >= min(total, _MAX_BYTES) or not content:
                    raise EstimateFailed(error.message.replace(str(path), "The file")) from None
            stop *= 2


class _Source:
    """A file behind an address, once that has stopped redirecting."""

    def __init__(self, client: httpx.AsyncClient, url: str, environ: Mapping[str, str]) -> None:
        self._client = client
        self._url = url
        self._own_hub = _origin(environ.get("HF_ENDPOINT", ""))

    async def part(self, start: int, stop: int) -> tuple[bytes, int]:
        """Give some bytes of the file, and how many there are in all."""
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        for _ in range(_MAX_REDIRECTS + 1):
            trust = {"trusted_host": self._is_own_hub()}
            async with self._client.stream("GET", self._url, headers=headers, extensions=trust) as reply:
                if "location" in reply.headers and reply.is_redirect:
                    self._url = urljoin(self._url, reply.headers["location"])
                    continue
                return await _content(reply, start, stop)
        raise EstimateFailed(f"The address redirects more than {_MAX_REDIRECTS} times")

    def _is_own_hub(self) -> bool:
        """Whether the address is of one's own hub. Raises EstimateFailed for others without https."""
        origin = _origin(self._url)
        if origin is None or (origin != self._own_hub and origin[0] != "https"):
            raise EstimateFailed("Only https addresses are looked up, and the hub that HF_ENDPOINT names", param="url")
        return origin == self._own_hub


def _origin(url: str) -> tuple[str, str, int] | None:
    """Give scheme, host and port; None for an address that has none, or a name and password."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and "@" not in parts.netloc else None


async def _content(reply: httpx.Response, start: int, stop: int) -> tuple[bytes, int]:
    match = _RANGE.fullmatch(reply.headers.get("content-range", ""))
    if reply.status_code != 206 or match is None or int(match[1]) != start:
        raise EstimateFailed(f"The address gives no parts of a file: it answers with {reply.status_code}")
    if (total := int(match[3])) > _MAX_FILE:
        raise EstimateFailed("The file says that it is larger than any model")
    content = bytearray()
    async for chunk in reply.aiter_raw():
        content += chunk
        if len(content) > stop - start:
            raise EstimateFailed("The address gives more than it was asked for")
    return bytes(content), total
