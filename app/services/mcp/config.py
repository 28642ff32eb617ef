"""The file that names MCP servers, in the form that Claude Desktop, Cursor and llama-server share."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it takes time at the start, and is needed for files with a URL alone
    import httpx


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it becomes a part of the names of tools
_SECONDS = 60.0  # for an answer
_KEYS = {"command", "args", "env", "cwd", "timeout_ms", "type", "disabled"}
_URL_KEYS = {"url", "type", "disabled"}
_URL_TYPES = {"http", "sse", "streamable-http"}


@dataclass(frozen=True, slots=True)
class McpServer:
    """A program to start."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # beyond what all get
    cwd: str | None = None
    timeout: float = _SECONDS  # for an answer


@dataclass(frozen=True, slots=True)
class McpConfig:
    """What a file names."""

    servers: tuple[McpServer, ...] = ()  # to start
    urls: tuple[str, ...] = ()  # of servers that the Web UI reaches through the proxy


def read(path: Path) -> McpConfig:
    """Read the file. Raises ValueError, with one line that says what is wrong."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {(error.strerror or 'unknown reason').lower()}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no JSON") from None
    servers = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(servers, dict):
        raise ValueError(f'{path}: give {{"mcpServers": {{"name": {{"command": "…", "args": []}}}}}}')
    entries = tuple(_entries(path, servers))
    return McpConfig(
        tuple(entry for entry in entries if isinstance(entry, McpServer)),
        tuple(entry for entry in entries if isinstance(entry, str)),
    )


def _entries(path: Path, servers: dict[str, Any]) -> Iterator[McpServer | str]:
    """Give the programs and the URLs."""
    for name, facts in servers.items():
        where = f"{path}: {name[:64]}"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{where}: give a name of letters, digits, - and _")
        if not isinstance(facts, dict):
            raise ValueError(f"{where}: give an object with a command, or with a url")
        is_remote = "url" in facts and "command" not in facts
        if unknown := sorted(facts.keys() - (_URL_KEYS if is_remote else _KEYS)):
            raise ValueError(f"{where}: {unknown[0][:64]} is not known here")
        entry = _url(where, facts) if is_remote else _server(where, name, facts)
        if facts.get("disabled") is not True:
            yield entry


def _url(where: str, facts: dict[str, Any]) -> str:
    kind = facts.get("type", "http")
    if not isinstance(kind, str) or kind not in _URL_TYPES:
        raise ValueError(f"{where}: the type of a url is one of {', '.join(sorted(_URL_TYPES))}")
    try:
        return str(web_url(facts["url"]))
    except ValueError as error:
        raise ValueError(f"{where}: url: {error}") from None


def web_url(text: object) -> "httpx.URL":
    """Read a URL of the web. Raises ValueError, with what can be given."""
    import httpx

    with suppress(httpx.InvalidURL, TypeError, ValueError):  # the last of a host that is no IDNA
        url = httpx.URL(text) if isinstance(text, str) else httpx.URL()
        if url.scheme in ("http", "https") and url.host and not url.userinfo and (url.port or 0) < 65536:
            return url.copy_with(fragment=None)
    raise ValueError("give an http or https URL without a password")


def _server(where: str, name: str, facts: dict[str, Any]) -> McpServer:
    if not isinstance(facts.get("command"), str) or not facts["command"]:
        raise ValueError(f"{where}: give a command, or a url")
    if facts.get("type", "stdio") != "stdio":
        raise ValueError(f"{where}: the type of a command is stdio")
    args, env, cwd = facts.get("args", []), facts.get("env", {}), facts.get("cwd")
    milliseconds = facts.get("timeout_ms", _SECONDS * 1000)
    if not isinstance(args, list) or not all(isinstance(one, str) for one in args):
        raise ValueError(f"{where}: args is a list of texts")
    if not isinstance(env, dict) or not all(isinstance(one, str) for one in env.values()):
        raise ValueError(f"{where}: env is an object of texts")
    if cwd is not None and not (isinstance(cwd, str) and Path(cwd).expanduser().is_dir()):
        raise ValueError(f"{where}: cwd is no folder")
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float) or not 0 < milliseconds <= 3.6e6:
        raise ValueError(f"{where}: timeout_ms is a number up to 3600000")
    folder = None if cwd is None else str(Path(cwd).expanduser())
    return McpServer(name, facts["command"], tuple(args), env, folder, milliseconds / 1000)
