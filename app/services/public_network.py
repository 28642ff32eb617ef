"""HTTP to public addresses alone, for URLs that clients send: they must not reach what only this machine can."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

Address = IPv4Address | IPv6Address

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has given out; site-local and unassigned ones lie elsewhere
_NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address is in its last four bytes
_MOST_ADDRESSES = 4  # of a host, that are tried one after the other


class HostRefused(httpx.ConnectError):
    """A host that is unknown, or that is on this machine or its network: the message says which."""


def is_public(address: Address) -> bool:
    """Say whether an address is one of the internet, also by the IPv4 address that it stands for."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if address in _NAT64:
        return is_public(IPv4Address(address.packed[-4:]))
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return is_public(inner)
    return address.is_global and address in _GLOBAL_UNICAST and address.teredo is None


class PublicTransport(httpx.AsyncBaseTransport):
    """Connects to an address that it has checked itself: a name is looked up once, so it cannot change in between.

    Each request is checked, so one that follows a redirect too; but one with the extension `trusted_host`, whose host
    is one's own choice. No proxy is used, and no connection twice: the next
    host could have the same address, and another certificate.
    """

    def __init__(self, is_allowed: Callable[[Address], bool] = is_public) -> None:
        self._is_allowed = is_allowed
        limits = httpx.Limits(max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises HostRefused, or another httpx.TransportError."""
        host = request.url.raw_host.decode()
        addresses = await _addresses(host, request.url.port or {"http": 80}.get(request.url.scheme, 443))
        if not request.extensions.get("trusted_host") and not all(map(self._is_allowed, addresses)):
            raise HostRefused("The host is not on the internet, but on this machine or its network")
        request.extensions = {**request.extensions, "sni_hostname": host}
        failure: httpx.TransportError = httpx.ConnectError("The host has no address")
        for address in addresses[:_MOST_ADDRESSES]:
            request.url = request.url.copy_with(host=str(address))  # the header Host has the name
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        """Close what is open."""
        await self._transport.aclose()


async def _addresses(host: str, port: int) -> list[Address]:
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise HostRefused("There is no host of that name") from None
    return [ip_address(str(entry[4][0])) for entry in entries]
