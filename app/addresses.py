"""Addresses to listen on: hosts, and the paths of unix sockets, which are spelled unix:/path."""

from pathlib import Path

from app.origins import is_loopback

_UNIX = "unix:"


def listen_address(text: str) -> str:
    """Give an address as settings hold it; llama-server takes a path that ends in .sock for a unix socket, too.

    Raises ValueError, with what can be given, for a socket without a path.
    """
    if not text.startswith(_UNIX) and not text.endswith(".sock"):
        return text
    path = text.removeprefix(_UNIX)
    path = path.removeprefix("//") if text.startswith(_UNIX) else path
    if not path:
        raise ValueError("give a path: unix:/run/user/1000/tiles.sock")
    return f"{_UNIX}{Path(path).expanduser().absolute()}"


def socket_path(address: str) -> Path | None:
    """Give the path of an address that is a unix socket, None for a host."""
    return Path(address.removeprefix(_UNIX)) if address.startswith(_UNIX) else None


def unix_address(path: str) -> str:
    """Spell the path of a unix socket as an address."""
    return f"{_UNIX}{path}"


def is_local(address: str) -> bool:
    """Whether only programs of this machine reach it."""
    return address.startswith(_UNIX) or is_loopback(address)


def url(address: str, port: int, *, tls: bool = False) -> str:
    """Give the address at which a server that listens there is reached from this machine; a unix socket has no URL."""
    if address.startswith(_UNIX):
        return address
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)
    return f"{'https' if tls else 'http'}://{host}:{port}"
