"""Webhooks go to public web servers only, however the address is written and whatever its name leads to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vessel.errors import InvalidRequest
from vessel.notify.addresses import LONGEST, InvalidWebhookUrl, check_url, may_go_to, shown

PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "198.17.0.1",
          "198.20.0.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "2001:4860:4860::8888",
          "2620:fe::9"]  # fmt: skip
PRIVATE = ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1",
           "127.255.255.254", "100.64.0.1", "100.127.255.255", "198.18.0.1", "198.19.255.255", "::1", "fc00::1",
           "fd12:3456::1"]  # fmt: skip
NEVER = [
    *("0.1.2.3", "169.254.169.254", "169.254.0.1", "192.0.0.8", "192.0.2.1", "198.51.100.7", "203.0.113.9"),
    "0.0.0.0",  # noqa: S104  refused
    *("192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("168.63.129.16", "100.100.100.200", "fd00:ec2::254"),
    *("::", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1"),
    *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1"),
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    """What lies just beside a special range is public."""
    assert may_go_to(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_allowed_by_the_setting_only(address: str) -> None:
    """Private, loopback, shared (CGNAT), benchmarking and unique local addresses."""
    assert not may_go_to(ip_address(address))
    assert may_go_to(ip_address(address), allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_a_special_address_is_never_allowed(address: str) -> None:
    """Link-local (metadata), multicast, reserved, and IPv6 that stands for IPv4: no setting opens them."""
    assert not may_go_to(ip_address(address))
    assert not may_go_to(ip_address(address), allow_private=True)


def test_a_zone_is_never_allowed() -> None:
    """An address of one network card is nobody's on the internet."""
    assert not may_go_to(ip_address("2606:4700::1%eth0"), allow_private=True)


HOSTILE = [
    *("", " ", "x", "example.com", "//example.com", "http://", "https://", "http:///path", "http://?q"),
    "http:example.com",
    *("file:///etc/passwd", "gopher://example.com/_x", "ftp://example.com", "javascript:alert(1)", "unix:///run/x.sock"),
    *("HTTP+UNIX://x", "redis://example.com", "data:,x", "ws://example.com"),
    *("http://127.0.0.1", "http://127.1", "http://127.0.1", "http://2130706433", "http://0x7f000001", "http://0x7f.1"),
    *("http://017700000001", "http://0177.0.0.1", "http://127.0.0.01", "http://0", "http://0.0.0.0:8080", "http://1"),
    *("http://1.2.3", "http://1.2.3.4.5", "http://256.1.1.1", "http://example.0x7f", "http://example.1", "http://0x"),
    *("http://127.0.0.1.", "http://127.0.0.1..", "http://localhost", "http://LOCALHOST.", "http://a.localhost"),
    *("http://169.254.169.254/latest/meta-data", "http://169.254.169.254.", "http://2852039166", "http://10.0.0.1"),
    *("http://100.64.0.1", "http://192.168.0.1:8080", "http://224.0.0.1", "http://255.255.255.255", "http://192.0.2.1"),
    *("http://[::1]", "http://[::]", "http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]", "http://[0:0:0:0:0:0:0:1]"),
    *("http://[fe80::1]", "http://[fe80::1%25eth0]", "http://[fc00::1]", "http://[64:ff9b::7f00:1]", "http://[2002:7f00:1::]"),
    *("http://[::127.0.0.1]", "http://[v1.x]", "http://[::1", "http://::1]", "http://[]", "http://[1.1.1.1]x", "http://[::1]x"),
    *("http://user@example.com", "http://user:pass@example.com", "http://@example.com", "http://a@b@example.com"),
    *("http://example.com@127.0.0.1", "http://127.0.0.1#@example.com", "http://example.com\\@127.0.0.1"),
    *("http://127.0.0.1\\.example.com", "http://example.com\t", "http://exa mple.com", "http://example.com\n", "\nhttp://a.com"),
    *("http://example.com\r\nHost: x", "http://example.com\x00", "http://ex\u00e4mple.com", "http://\uff11\uff12\uff17.0.0.1"),
    *("http://\u2460\u2461\u2466.0.0.1", "http://example\u3002com", "http://127.0.0.1%2f@example.com", "http://%31%32%37.0.0.1"),
    *("http://example.com%00", "http://-example.com", "http://example-.com", "http://.example.com", "http://a..b", "http://..."),
    *("http://example.com:0", "http://example.com:22", "http://example.com:25", "http://example.com:6379", "http://example.com:99999"),
    *("http://example.com:x", "http://example.com:-1", "http://example.com:8 0", "https://example.com:5432", "http://a!b.com"),
    "http://" + "a" * 64 + ".com",
    "http://" + "a.b" * 100 + ".com",
    "http://example.com/" + "x" * LONGEST,
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_address_is_refused_when_it_is_given(url: str) -> None:
    """Each with a text that says what is wrong, and that nothing was accepted."""
    with pytest.raises(InvalidWebhookUrl) as refused:
        check_url(url)
    fault = refused.value
    assert isinstance(fault, InvalidRequest)
    assert (fault.code, fault.param, fault.exit_code) == ("invalid_webhook_url", "vessel.webhook", 2)
    assert fault.message.startswith("vessel.webhook: ")
    assert fault.message.endswith("Nothing was accepted.")


@pytest.mark.parametrize("url", [None, 7, b"http://example.com", ["http://example.com"]])
def test_only_a_text_is_an_address(url: object) -> None:
    """Other JSON values are refused alike."""
    with pytest.raises(InvalidWebhookUrl):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM.:443/Hook?a=B&c#part", "https://example.com/Hook?a=B&c"),
        ("http://example.com:80/", "http://example.com/"),
        ("http://example.com:8080/a%2Fb", "http://example.com:8080/a%2Fb"),
        ("https://hooks.example.com:/x", "https://hooks.example.com/x"),
        ("https://xn--exmple-cua.com/", "https://xn--exmple-cua.com/"),
        ("https://my_host.example.com/", "https://my_host.example.com/"),
        ("https://1.1.1.1/x", "https://1.1.1.1/x"),
        ("https://1.1.1.1./x", "https://1.1.1.1/x"),
        ("https://[2606:4700:4700:0::1111]:8443/x", "https://[2606:4700:4700::1111]:8443/x"),
        ("https://receiver/x", "https://receiver/x"),
    ],
)
def test_a_good_address_is_kept_in_its_plain_form(url: str, plain: str) -> None:
    """Scheme and host in lower case, no default port, no fragment, no dot at the end."""
    assert check_url(url) == plain
    assert check_url(plain) == plain


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x", "http://localhost:9000/x", "http://[::1]:9000/x"])
def test_a_private_address_is_taken_where_the_setting_allows_it(url: str) -> None:
    """For receivers in one's own network."""
    assert check_url(url, allow_private=True) == url


def test_a_query_is_not_shown() -> None:
    """It may hold a token."""
    assert shown("https://example.com/x?token=secret") == "https://example.com/x?..."
    assert shown("https://example.com/x") == "https://example.com/x"
