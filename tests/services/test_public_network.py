"""Which addresses are of the internet, and that nothing else is connected to."""

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.public_network import HostRefused, PublicTransport, is_public

INSIDE = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
]
INSIDE_V6 = ["::/96", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32", "2001::/32", "64:ff9b:1::/48"]


def addresses(*networks: str) -> st.SearchStrategy[IPv4Address]:
    nets = [IPv4Network(network) for network in networks]
    return st.sampled_from(nets).flatmap(
        lambda net: st.integers(int(net[0]), int(net[-1])).map(IPv4Address),
    )


def clothes(address: IPv4Address) -> list[IPv6Address]:
    """Give what in IPv6 stands for an address of IPv4: mapped, NAT64 and 6to4, compatible and with a teredo server."""
    number = int(address)
    return [
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        IPv6Address(0x2002 << 112 | number << 80 | 1),
    ]


@given(addresses(*INSIDE))
def test_what_is_inside_is_not_public_in_any_clothes(address: IPv4Address) -> None:
    assert not is_public(address)
    assert not any(map(is_public, clothes(address)))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_is_as_public_as_what_it_stands_for(address: IPv4Address) -> None:
    assert {is_public(each) for each in clothes(address)} == {is_public(address)}


@given(
    st.sampled_from([IPv6Network(network) for network in INSIDE_V6]).flatmap(
        lambda net: st.integers(int(net[0]), int(net[-1])).map(IPv6Address)
    )
)
def test_what_is_inside_is_not_public_in_ipv6(address: IPv6Address) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808"])
def test_the_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("host", ["localhost", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
def test_no_name_of_this_machine_is_connected_to(host: str) -> None:
    request = httpx.Request("GET", f"http://{host}:9/")
    with pytest.raises(HostRefused, match=r"this machine|no host"):
        asyncio.run(PublicTransport().handle_async_request(request))
