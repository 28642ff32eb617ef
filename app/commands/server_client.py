"""A client of a running server, for the terminal. It needs the standard library only."""

import json
import socket
import ssl
from collections.abc import Collection, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

from app import addresses
from app.settings import Settings

_TIMEOUT = 600.0  # seconds without a byte; the server sends keep-alives far more often


class ServerFailure(Exception):
    """The server cannot be reached, or has answered with an error; the message is for people."""


class NoServer(ServerFailure):
    """Nothing answers at the address."""


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._socket_path = str(path)

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


class ServerClient:
    """Talks to one server. Every method raises ServerFailure."""

    def __init__(self, url: str, key: str | None = None, certificate: Path | None = None) -> None:
        """Take a URL or unix:PATH, and the server's certificate if it is known: no other is accepted then."""
        self.socket_path = addresses.socket_path(addresses.listen_address(url)) if url.startswith("unix:") else None
        try:
            parts = urlsplit(url if "//" in url or self.socket_path else f"http://{url}")
            self._address = (parts.hostname or "", parts.port)
        except ValueError:
            raise ServerFailure(f"'{url}' is no address of a server") from None
        if not self.socket_path and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ServerFailure(f"'{url}' is no address of a server")
        self.url = url if self.socket_path else f"{parts.scheme}://{parts.netloc}"
        self._is_tls = parts.scheme == "https"
        self._certificate = certificate
        self._path = "" if self.socket_path else parts.path.rstrip("/").removesuffix("/v1")
        self._headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}".encode("utf-8", "surrogateescape")

    @classmethod
    def of(cls, settings: Settings, url: str | None = None, key: str | None = None) -> Self:
        """Give a client of the server at an address, by default of that which the settings describe."""
        key = key or next(iter(settings.api_key), None)
        return cls(url, key) if url else cls(base_url(settings), key, settings.tls_cert)

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

    def get_health(self, timeout: float = _TIMEOUT) -> Any:
        """Give what the server says of itself, also while it cannot answer."""
        with closing(self.open(timeout)) as connection:
            content = self.request(connection, "GET", "/health", accepted=(200, 503)).read()
        return self._parse(content, "/health")

    def open(self, timeout: float = _TIMEOUT) -> HTTPConnection:
        """Give a connection, which connects with its first request."""
        if self.socket_path:
            return UnixConnection(self.socket_path, timeout)
        if self._is_tls:
            return HTTPSConnection(*self._address, timeout=timeout, context=_tls_context(self._certificate))
        return HTTPConnection(*self._address, timeout=timeout)

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


def base_url(settings: Settings) -> str:
    """Give the address of the server that the settings describe, a URL if it has one."""
    host = next((host for host in settings.host if not addresses.socket_path(host)), settings.host[0])
    return addresses.url(host, settings.port, tls=bool(settings.tls_cert))


def _tls_context(certificate: Path | None) -> ssl.SSLContext:
    """Trust the authorities of the system, or one certificate alone, whatever names are in it. Raises ServerFailure."""
    if certificate is None:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise ServerFailure(f"{certificate} cannot be used: {error.strerror or error}") from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be signed by itself
    return context


def _error_message(response: HTTPResponse) -> str:
    try:
        message = str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {response.status} {response.reason}"
    return f"{message}: give --api-key, or set TILES_API_KEY" if response.status == 401 else message
