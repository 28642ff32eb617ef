"""A client of a running server, for the terminal. It needs the standard library only."""

import json
from collections.abc import Collection, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 600.0  # seconds without a byte; the server sends keep-alives far more often


class ServerFailure(Exception):
    """The server cannot be reached, or has answered with an error; the message is for people."""


class NoServer(ServerFailure):
    """Nothing answers at the address."""


class ServerClient:
    """Talks to one server. Every method raises ServerFailure."""

    def __init__(self, url: str, key: str | None = None) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            self._address = (parts.hostname or "", parts.port)
        except ValueError:
            raise ServerFailure(f"'{url}' is no address of a server") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerFailure(f"'{url}' is no address of a server")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}".encode("utf-8", "surrogateescape")

    @property
    def base_url(self) -> str:
        """The address with its path, if there is one; /v1 comes behind it."""
        return self.url + self._path

    def models(self) -> list[str]:
        """Give the ids of the server's models."""
        try:
            return [str(model["id"]) for model in self.get("/v1/models")["data"]]
        except (KeyError, TypeError) as error:
            raise ServerFailure(f"{self.url} does not list its models") from error

    def get(self, route: str) -> Any:
        """Give the JSON of a route."""
        with closing(self.open()) as connection:
            content = self.request(connection, "GET", route).read()
        return self._parse(content, route)

    def call(
        self, method: str, route: str, body: dict[str, Any], headers: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        """Send a body to a route, and give the JSON of its answer."""
        with closing(self.open()) as connection:
            content = self.request(connection, method, route, json.dumps(body).encode(), headers).read()
        return self._parse(content, route)

    def get_health(self) -> Any:
        """Give what the server says of itself, also while it cannot answer."""
        with closing(self.open()) as connection:
            content = self.request(connection, "GET", "/health", accepted=(200, 503)).read()
        return self._parse(content, "/health")

    def open(self) -> HTTPConnection:
        """Give a connection, which connects with its first request."""
        return self._connect(*self._address, timeout=_TIMEOUT)

    def request(
        self,
        connection: HTTPConnection,
        method: str,
        route: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        accepted: Collection[int] = (200,),
    ) -> HTTPResponse:
        """Send a request and give its answer, if its status is none of an error."""
        try:
            connection.request(method, self._path + route, body, {**self._headers, **headers})
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise NoServer(f"No server answers at {self.url} ({error}); `tiles-server --demo` starts one") from None
        if response.status not in accepted:
            raise ServerFailure(_error_message(response))
        return response

    def _parse(self, content: bytes, route: str) -> Any:
        try:
            return json.loads(content)
        except ValueError:
            raise ServerFailure(f"{self.url}{route} is no route of a Tiles Server") from None


def _error_message(response: HTTPResponse) -> str:
    try:
        message = str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {response.status} {response.reason}"
    return f"{message}: give --api-key, or set TILES_API_KEY" if response.status == 401 else message
