"""Which addresses are public."""

import ipaddress

import pytest

from app.errors import StartupError
from app.outbound.addresses import Inside, is_public


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.0.1"),
        *("192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
        *("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:10::1", "2001:20::1", "2001:db8::1"),
        *("2002:7f00:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1"),
    ],
)
def test_address_that_is_not_public_or_carries_another_is_denied(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
        ),
        *("2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1"),
    ],
)
def test_address_of_the_public_internet_is_allowed(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_inside_lets_in_a_host_by_name_and_a_network_by_address() -> None:
    inside = Inside.parse(["Tools.Internal", "10.1.0.0/16", "::1"])

    assert inside.has("tools.internal", ipaddress.ip_address("10.9.9.9"))
    assert inside.has("whatever", ipaddress.ip_address("10.1.2.3"))
    assert inside.has("whatever", ipaddress.ip_address("::1"))
    assert not inside.has("whatever", ipaddress.ip_address("10.2.0.1"))
    assert not inside.has("sub.tools.internal", ipaddress.ip_address("10.9.9.9"))


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "10.0.0.1/8", "http://tools", "tools:80", "a..b", "*", "1.2.3"])
def test_entry_that_is_no_place_stops_the_start(entry: str) -> None:
    with pytest.raises(StartupError, match="neither a host name nor an address"):
        Inside.parse([entry])
