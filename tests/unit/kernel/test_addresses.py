"""Which URLs, hosts and addresses an outbound call may reach."""

from __future__ import annotations

import ipaddress

import pytest

from valdrix.kernel.addresses import (
    ANY_HOST,
    AddressError,
    may_connect,
    read_host_list,
    read_networks,
    read_url,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "169.254.170.2", "100.64.0.1", "224.0.0.1", "255.255.255.255",
        "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254",
        "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a9fe:a9fe::", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "::127.0.0.1", "::a9fe:a9fe", "::ffff:0:a00:1",
        "fec0::1", "5f00::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not may_connect(ipaddress.ip_address(address), ())


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808"]
)
def test_public_addresses_are_taken(address: str) -> None:
    assert may_connect(ipaddress.ip_address(address), ())


def test_a_network_that_is_allowed_is_taken_and_no_other() -> None:
    allowed = read_networks(["10.20.0.0/16", "fd00:1::/32"])
    assert may_connect(ipaddress.ip_address("10.20.3.4"), allowed)
    assert may_connect(ipaddress.ip_address("::ffff:10.20.3.4"), allowed)
    assert may_connect(ipaddress.ip_address("fd00:1::5"), allowed)
    assert not may_connect(ipaddress.ip_address("10.21.3.4"), allowed)
    assert not may_connect(ipaddress.ip_address("169.254.169.254"), allowed)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everything", "10.0.0.0/33", ""])
def test_a_network_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        read_networks([text])


@pytest.mark.parametrize(
    "url",
    [
        "http://app.terraform.io/x", "ftp://app.terraform.io", "//app.terraform.io/x",
        "https://user@app.terraform.io/", "https://u:p@app.terraform.io/",
        "https://app.terraform.io/x#y", "https://app.terraform.io\\@evil.test/",
        "https:///x", "https://app terraform.io/", "https://app.terraform.io:0/",
        "https://app.terraform.io:99999/", "https://äpp.example/", "https://[::1]/",
        "https://app.terraform.io/\r\nX: y", "https://a..b/", "https://" + "a" * 300 + ".b/",
        "https://app.terraform.io/" + "a" * 9000, "javascript:alert(1)", "", "https://-a.b/",
    ],
)  # fmt: skip
def test_urls_that_may_not_be_called(url: str) -> None:
    with pytest.raises(AddressError):
        read_url(url)


def test_a_url_leads_to_host_port_and_path() -> None:
    target = read_url("HTTPS://App.Terraform.IO:8443/a/b?c=d")
    assert (target.host, target.port, target.path) == ("app.terraform.io", 8443, "/a/b?c=d")
    assert target.origin == "app.terraform.io:8443"
    assert read_url("https://app.terraform.io").path == "/"
    assert read_url("https://app.terraform.io").origin == "app.terraform.io"


def test_a_list_covers_exactly_what_it_names() -> None:
    hosts = read_host_list(["app.terraform.io", "tfe.corp:8443", "*.blob.test"])
    assert hosts.covers(read_url("https://app.terraform.io/x"))
    assert hosts.covers(read_url("https://tfe.corp:8443/x"))
    assert hosts.covers(read_url("https://a.b.blob.test/x"))
    for url in (
        "https://app.terraform.io:8443/", "https://tfe.corp/", "https://blob.test/",
        "https://xapp.terraform.io/", "https://app.terraform.io.evil.test/",
        "https://evilblob.test/", "https://a.blob.test:444/",
    ):  # fmt: skip
        assert not hosts.covers(read_url(url)), url
    assert not read_host_list([]).covers(read_url("https://app.terraform.io/"))
    assert ANY_HOST.covers(read_url("https://anything.test:1234/"))


@pytest.mark.parametrize("entry", ["", "*", "*.", "https://a.b", "a.b/c", "a.b:0", "a.b:70000"])
def test_an_entry_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(AddressError):
        read_host_list([entry])
