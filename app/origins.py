"""Origins and hosts as they are written in headers and settings: scheme, host and port, and patterns of them."""

import re
from ipaddress import ip_address

# Scheme, host and port. Nothing else may stand in an origin; a Host header is one without its scheme.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:\[([0-9a-f:.]+)\]|([^\s\[\]:/?#@\\,%]+))(?::([0-9]{0,5}))?")
_WEB = frozenset({"http", "https"})
_LABELS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

Origin = tuple[str, str, int | None]


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def split(url: str) -> Origin | None:
    """Scheme, host and port of an origin, None where it is none."""
    if (match := _ORIGIN.fullmatch(url.lower())) is None:
        return None
    scheme, address, name, port = match.groups()
    host = (address or name).removesuffix(".")
    number = int(port) if port else {"http": 80, "https": 443}.get(scheme)
    return (scheme, host, number) if host and (number or 0) < 65536 else None


def allowed_origin(text: str) -> str:
    """Check an origin that is to be allowed, or a pattern: `https://*.app.example`, `vscode-webview://*`.

    Raises ValueError, with what can be given, for what no origin equals and for what would let every page in.
    """
    if text == "*":
        raise ValueError("give the origins one by one: with * every web page could use this server")
    if text.lower() in {"null", "file:", "file://"}:
        raise ValueError("give an origin of its own: pages in files say null, and so can every other web page")
    parts = split(text.removesuffix("/"))
    if parts is None or not _is_pattern(*parts[:2]):
        raise ValueError("give scheme and host alone: https://app.example, https://*.app.example, vscode-webview://*")
    return text.lower().removesuffix("/")


def _is_pattern(scheme: str, host: str) -> bool:
    """Whether the stars in a host, if any, stand where they may; pages of the web choose their hosts themselves."""
    if "*" not in host:
        return host.isascii()
    if host == "*":
        return scheme not in _WEB
    labels = host.removeprefix("*.")
    return _LABELS.fullmatch(labels) is not None and "." in labels


def matches(pattern: Origin, origin: Origin) -> bool:
    """Whether an origin is one of those that a pattern stands for."""
    scheme, host, port = pattern
    if (scheme, port) != (origin[0], origin[2]):
        return False
    return host in {"*", origin[1]} or (host.startswith("*.") and origin[1].endswith(host[1:]))


def allowed_host(text: str) -> str:
    """Check a host name or an address that is to be answered to; a port does not matter.

    Raises ValueError, with what can be given, for what no Host header names.
    """
    name = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    parts = split(f"http://{name}")
    if parts is None or "*" in parts[1] or not parts[1].isascii():
        raise ValueError("give names or addresses alone: tiles.example, 192.168.1.5; others as xn-- names")
    return parts[1]
