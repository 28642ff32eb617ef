"""A file as an answer: its ETag, whether it is sent with gzip, and what a page of it may do."""

import asyncio
import re
from collections.abc import Mapping

from litestar.response.base import ASGIResponse

from app.services.ui.folder import UiFile


async def respond(file: UiFile, request_headers: Mapping[bytes, bytes], page_rules: str) -> ASGIResponse:
    """Send a file, or a 304; a page has `page_rules` as its Content-Security-Policy. Raises OSError if it is gone.

    The names of headers are in lower case.
    """
    zipped = file.zips and _takes_gzip(request_headers.get(b"accept-encoding", b"").decode("latin-1"))
    tag = f'"{file.version}{"-gz" if zipped else ""}"'
    headers = {"Cache-Control": file.cache_control, "ETag": tag, "X-Content-Type-Options": "nosniff"}
    if file.zips:
        headers["Vary"] = "Accept-Encoding"
    if file.media_type.startswith("text/html"):
        headers["Content-Security-Policy"] = page_rules
    if _matches(request_headers.get(b"if-none-match", b"").decode("latin-1"), tag):
        return ASGIResponse(status_code=304, headers=headers)
    if zipped:
        headers["Content-Encoding"] = "gzip"
    body = await asyncio.to_thread(file.read, zipped=zipped)
    return ASGIResponse(body=body, media_type=file.media_type, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """Read Accept-Encoding: gzip, or *, unless its weight is zero."""
    weights = {}
    for item in accepted.lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return weights.get("gzip", weights.get("*", False))


def _matches(header: str, tag: str) -> bool:
    tags = [item.strip().removeprefix("W/") for item in header.split(",")]
    return tag in tags or "*" in tags
