"""Who may send requests: rules for hosts, origins, web pages and API keys, checked before a body is read."""

import hmac
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address

from app.origins import is_loopback, matches, split
from app.services.errors import BrowserPage, CrossSite, Unauthorized, UnknownHost, UnknownOrigin
from app.settings import Settings

PUBLIC = frozenset({"/", "/ping", "/health", "/v1/health", "/favicon.ico", "/sw.js"})  # and pages, below
_PAGES = ("/home", "/schema")  # with what is below
# The first names a folder that the model may then read and write, the second an address that is looked up.
NEVER_FROM_PAGES = frozenset({"/start", "/v1/estimate"})
# The first runs programs, the second reaches other servers: no allowed origin and no other name will do.
LOOPBACK_ONLY = frozenset({"/tools", "/cors-proxy"})

_BLANKS = " \t"  # around header values; other white space may be part of a UTF-8 letter
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9._-]{0,31}):(.{8,})")
_MOST_KEYS = 8  # tried for one request


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path in PUBLIC or _is_page(path)


def _is_page(path: str) -> bool:
    return any(path == page or path.startswith(f"{page}/") for page in _PAGES)


class Access:
    """The rules of one server. The files of the Web UI need no key, as the front page does not."""

    def __init__(self, settings: Settings, is_ui_file: Callable[[str], bool] = lambda _: False) -> None:
        self._is_ui_file = is_ui_file
        self._keys = [spelling for key in settings.api_key for spelling in all_spellings(key)]
        # By what is behind its colon and by the whole, since a key may have had a colon before keys had names.
        self._names = {one: name for key in settings.api_key if (name := _split(key)[0]) for one in all_spellings(key)}
        self._hosts = {host.lower() for host in (*settings.allow_host, *settings.host)}
        self._origins = [parts for origin in settings.allow_origin if (parts := split(origin.rstrip("/")))]
        self._has_mcp = settings.mcp_config is not None
        self._beyond_loopback = settings.beyond_loopback

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Raise Forbidden or Unauthorized for a request that is not allowed. Header names are in lower case."""
        path = _plain(path)
        self._check_host(headers.get("host"))
        self._check_origin(headers)
        self._check_page(method, path, headers)
        if path in LOOPBACK_ONLY and self._has_mcp:
            _check_loopback(headers)
        if self._keys and method != "OPTIONS" and not is_public(path) and not self._is_ui_file(path):
            self._check_key(headers)

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether pages of this origin may read answers."""
        parts = split(origin)
        if parts is None:
            return False
        scheme, name, _ = parts
        own = split(f"{scheme}://{host}") == parts
        return own or is_loopback(name) or any(matches(pattern, parts) for pattern in self._origins)

    def _check_host(self, host: str | None) -> None:
        """Refuse a name that is not this server's. Browsers always send one, and so does HTTP/1.1."""
        if host is None:
            return
        parts = split(f"http://{host}")
        name = parts[1] if parts else ""
        if is_loopback(name) or name in self._hosts or (self._beyond_loopback and _is_address(name)):
            return
        raise UnknownHost

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin is not None and not self.allows_origin(origin, headers.get("host", "")):
            raise UnknownOrigin

    def _check_page(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Refuse what a page must not do even where it sends no Origin, as an image or a form may."""
        site = headers.get("sec-fetch-site")
        if path in NEVER_FROM_PAGES and method != "OPTIONS" and (site is not None or "origin" in headers):
            raise BrowserPage
        embedded = site == "cross-site" and "origin" not in headers
        if embedded and not (method in {"GET", "HEAD"} and self._is_shown(path)):
            raise CrossSite

    def _is_shown(self, path: str) -> bool:
        return path == "/" or _is_page(path) or self._is_ui_file(path)

    def _check_key(self, headers: Mapping[str, str]) -> None:
        """Refuse a request without a right key. Clients that are logged in elsewhere may send two."""
        keys = _keys(headers.get("authorization", "")) + _keys(headers.get("x-api-key", ""))
        # Every pair is compared, so that the time taken tells nothing.
        if not sum(hmac.compare_digest(key, own) for key in keys for own in self._keys):
            raise Unauthorized

    def key_name(self, headers: Mapping[str, str]) -> str:
        """Give the name of the key that a request carries, empty where it has none."""
        if not self._names:
            return ""
        keys = _keys(headers.get("authorization", "")) + _keys(headers.get("x-api-key", ""))
        names = [name for key in keys for own, name in self._names.items() if hmac.compare_digest(key, own)]
        return names[0] if names else ""


def _check_loopback(headers: Mapping[str, str]) -> None:
    """Refuse a page that is not of this machine, and a name that is not this machine's."""
    host = split(f"http://{headers.get('host', 'localhost')}")
    if host is None or not is_loopback(host[1]):
        raise UnknownHost
    if "origin" in headers and ((origin := split(headers["origin"])) is None or not is_loopback(origin[1])):
        raise UnknownOrigin


def _split(key: str) -> tuple[str, str]:
    """Split a key that is spelled name:key; one whose second part would be a weak key has no name."""
    match = _NAMED.fullmatch(key)
    return (match[1], match[2]) if match else ("", key)


def all_spellings(key: str) -> set[bytes]:
    """How a key may stand in a header, with its name and without."""
    return _spellings(key) | _spellings(_split(key)[1])


def _spellings(key: str) -> set[bytes]:
    """How clients spell a key in a header: as UTF-8, or a byte a letter."""
    spellings = {key.encode("utf-8", "surrogateescape")}
    with suppress(UnicodeEncodeError):
        spellings.add(key.encode("latin-1"))
    return spellings


def _keys(value: str) -> list[bytes]:
    """The keys in a header, which holds several with commas when it came several times."""
    lines = value.split(",", _MOST_KEYS)[:_MOST_KEYS]
    return [_bare(line.strip(_BLANKS)).encode("latin-1", "backslashreplace") for line in lines]


def _bare(line: str) -> str:
    scheme, _, rest = line.partition(" ")
    return rest.strip(_BLANKS) if scheme.lower() == "bearer" else line


def _plain(path: str) -> str:
    """A path as routing sees it, which takes //start/ for /start."""
    return "/" + "/".join(part for part in path.split("/") if part)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
