"""Tiles' daemon, which knows where Tiles' models lie and how Tiles is configured. All calls block."""

import json
from pathlib import Path
from typing import Any

import structlog

from app.origins import is_loopback, split

URL = "http://127.0.0.1:1729"
_SECONDS = 2.0  # for an answer; nothing on this machine takes longer
_MAX_BYTES = 2**18  # of an answer

log = structlog.get_logger(__name__)


def daemon_url(text: str) -> str:
    """Check the address of the daemon. Raises ValueError for one that is not on this machine."""
    origin = split(text.rstrip("/"))
    if origin is None or origin[0] != "http" or not is_loopback(origin[1]):
        raise ValueError(f"give an address on this machine, such as {URL}")
    return text.rstrip("/")


class Daemon:
    """What is asked of it gives None where it does not run, does not know, or answers with something else."""

    def __init__(self, url: str = URL) -> None:
        self._url = url

    def model_path(self, name: str) -> Path | None:
        """Give where a model lies: a file, a folder, or an entry of a Hugging Face cache."""
        answer = self._get("/model-cache-path", {"model_name": name})
        text = answer.decode("utf-8", "replace").strip().strip('"') if answer else ""
        return Path(text) if text.startswith("/") and "\0" not in text and "\n" not in text else None

    def config(self) -> dict[str, Any] | None:
        """Give Tiles' configuration, as its config.toml has it."""
        try:
            config = json.loads(self._get("/config") or b"null")
        except (ValueError, RecursionError):
            return None
        return config if isinstance(config, dict) else None

    def _get(self, path: str, params: dict[str, str] | None = None) -> bytes | None:
        import httpx  # takes a while, and a server without Tiles does without

        try:
            with (
                httpx.Client(timeout=_SECONDS, trust_env=False) as client,  # no proxy: it is this machine
                client.stream("GET", self._url + path, params=params) as reply,
            ):
                if reply.status_code != 200:
                    return None
                content = b""
                for chunk in reply.iter_raw():
                    if len(content := content + chunk) > _MAX_BYTES:
                        return None
                return content
        except httpx.HTTPError as error:
            log.debug("Tiles' daemon does not answer", reason=type(error).__name__)
            return None
