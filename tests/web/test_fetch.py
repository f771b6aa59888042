"""What is fetched for clients, and what is not (RFC 9101 section 10.4.1, RFC 9126 section 7.2): real listeners."""

import ast
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import tokenserver
from tests.listeners import Authority, Listener
from tokenserver.config import Settings
from tokenserver.web.fetch import Fetcher, FetchFailed, is_public

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/JSON; charset=utf-8\r\nCache-Control: max-age=900\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
LOOPBACK = Fetcher(Settings(fetch_private="127.0.0.0/8,::1/128"), seconds=30)
PUBLIC_ALONE = Fetcher(Settings(), seconds=30)
IMPATIENT = Fetcher(Settings(fetch_private="127.0.0.0/8"), seconds=1)


def refused(fetcher: Fetcher, url: str, reason: str | None = None, **options: Any) -> None:
    with pytest.raises(FetchFailed, match=reason):
        fetcher.get(url, accept="application/json", **options)


def test_document_with_its_type_and_age(listen: Callable[..., Listener]):
    listener = listen(HELLO)
    url = f"http://127.0.0.1:{listener.port}/jwks?a=b%20c#fragment"
    assert LOOPBACK.get(url, accept="application/json") == (b"hello", "application/json", 900)
    head = listener.requests[0].decode().split("\r\n")
    assert head[0] == "GET /jwks?a=b%20c HTTP/1.1"
    fields = {line.partition(":")[0]: line.partition(": ")[2] for line in head[1:] if line}
    assert fields == {
        "Host": f"127.0.0.1:{listener.port}",
        "User-Agent": "tokenserver",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Accept": "application/json",
    }
    listener.answer = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
    assert LOOPBACK.get(url, accept="*/*") == (b"until the end", "", None)
    listener.answer = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert LOOPBACK.get(url, accept="*/*").body == b"abcde"


def test_form_is_posted_and_its_status_told(listen: Callable[..., Listener]):
    listener = listen()
    url = f"http://127.0.0.1:{listener.port}/logout"
    for status in (200, 204, 400, 501, 503):
        listener.answer = b"HTTP/1.1 %d Whatever\r\nContent-Length: 100000000\r\n\r\nx" % status
        assert LOOPBACK.post_form(url, {"logout_token": "a.b&c"}) == status
    head, _, body = listener.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /logout HTTP/1.1\r\n")
    assert b"Content-Type: application/x-www-form-urlencoded" in head
    assert body == b"logout_token=a.b%26c"
    for status in (101, 301, 302, 303, 307, 308):
        listener.answer = b"HTTP/1.1 %d X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n" % status
        with pytest.raises(FetchFailed, match=f"answered {status}"):
            LOOPBACK.post_form(url, {})
    assert len(listener.requests) == 11


def test_nobody_inside_hears_of_it(listen: Callable[..., Listener], names: dict[str, list[list[str]]]):
    """Neither by address, however it is spelled, nor by a name that leads to one; nor where one address of several
    is such."""
    listener, six = listen(HELLO), listen(HELLO, address="::1")
    names |= {
        "inside.example": [["127.0.0.1"]],
        "mixed.example": [["203.0.114.1", "127.0.0.1"]],
        "six.example": [["::1"]],
        "mapped.example": [["::ffff:127.0.0.1"]],
        "translated.example": [["64:ff9b::7f00:1"]],
    }
    hosts = ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0.0.0.0", "localhost", *names]
    for scheme in ("https", "http"):
        for host in hosts:
            refused(PUBLIC_ALONE, f"{scheme}://{host}:{listener.port}/", "not a public address|http is for")
        refused(PUBLIC_ALONE, f"{scheme}://[::1]:{six.port}/", "not a public address")
        refused(PUBLIC_ALONE, f"{scheme}://[::ffff:127.0.0.1]:{listener.port}/", "not a public address")
    with pytest.raises(FetchFailed, match="not a public address"):
        PUBLIC_ALONE.post_form(f"https://inside.example:{listener.port}/", {"a": "b"})
    # what is private, but not what the operator named
    refused(Fetcher(Settings(fetch_private="127.0.0.2/32")), f"http://127.0.0.1:{listener.port}/", "not a public")
    assert listener.connections == six.connections == 0


def test_name_is_looked_up_once(listen: Callable[..., Listener], names: dict[str, list[list[str]]]):
    """An answer that changes between the check and the connection changes nothing."""
    good, bad = listen(HELLO), listen(HELLO, address="127.0.0.9")
    names["rebinding.example"] = [["127.0.0.1"], ["127.0.0.9"]]
    fetcher = Fetcher(Settings(fetch_private="127.0.0.1/32"))
    assert fetcher.get(f"http://rebinding.example:{good.port}/", accept="*/*").body == b"hello"
    refused(fetcher, f"http://rebinding.example:{bad.port}/", "not a public address")
    assert (good.connections, bad.connections) == (1, 0)
    assert b"\r\nHost: rebinding.example:%d\r\n" % good.port in good.requests[0]


def test_next_address_is_tried(listen: Callable[..., Listener], names: dict[str, list[list[str]]]):
    listener = listen(HELLO)
    names["two.example"] = [["127.0.0.77", "127.0.0.1"]]
    assert LOOPBACK.get(f"http://two.example:{listener.port}/", accept="*/*").body == b"hello"
    names["none.example"] = [[]]
    refused(LOOPBACK, "https://none.example/", "no address")
    refused(LOOPBACK, f"https://{'a' * 64}.example/", "lookup failed")


def test_http_is_for_private_networks(names: dict[str, list[list[str]]]):
    names["public.example"] = [["203.0.114.1"]]
    refused(LOOPBACK, "http://public.example/", "http is for private networks alone")
    refused(LOOPBACK, "http://203.0.114.1/", "http is for private networks alone")


def test_ports_of_other_services_are_not_knocked_at(names: dict[str, list[list[str]]]):
    names["public.example"] = [["203.0.114.1"]]
    for port in (1, 21, 22, 25, 80, 389, 445, 993, 1023):
        refused(PUBLIC_ALONE, f"https://public.example:{port}/", "a port of another service")
    url, late = urlsplit("https://public.example:{}/"), time.monotonic() + 30
    for port in ("443", "1024", "8443", "65535"):
        assert PUBLIC_ALONE.addresses(url._replace(netloc=f"public.example:{port}"), late)
    # Where the operator let it in, any will do.
    names["inside.example"] = [["127.0.0.1"]]
    assert LOOPBACK.addresses(urlsplit("https://inside.example:25/"), late)


NOT_URLS = [
    *("", "jwks", "/jwks", "//127.0.0.1/", "https:", "https://", "https:///x", "https:127.0.0.1", "http://#x"),
    *("ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "data:,x", "unix:///run/x", "urn:x:y"),
    *("http://u@127.0.0.1/", "http://u:p@127.0.0.1/", "http://@127.0.0.1/", "http://127.0.0.1\\@x/"),
    *(
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/\0",
        "http://127.0.0.1/\t",
        " http://x",
    ),
    *("http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://127.0.0.1:-1/"),
    *("http://[127.0.0.1]/", "http://[::1/", "http://::1]/", "http://[fe80::1%25lo]/", "http://127.0.0.1%2f/"),
    *("http://exämple/", "http://127.0.0.1/ä", "http://127.0.0.1/\u2028"),
]


@pytest.mark.parametrize("url", NOT_URLS)
def test_what_is_no_plain_url(url: str, monkeypatch: pytest.MonkeyPatch):
    """Nothing is looked up, so nobody is asked."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: pytest.fail("looked up"))
    refused(LOOPBACK, url)


def test_redirect_is_a_failure(listen: Callable[..., Listener]):
    inside = listen(HELLO)
    listener = listen()
    for status in (301, 302, 303, 307, 308):
        location = b"Location: http://127.0.0.1:%d/\r\nContent-Length: 5\r\n\r\nhello" % inside.port
        listener.answer = b"HTTP/1.1 %d X\r\n%s" % (status, location)
        refused(LOOPBACK, f"http://127.0.0.1:{listener.port}/", f"answered {status}")
    for status in (201, 204, 304, 400, 404, 500):
        listener.answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
        refused(LOOPBACK, f"http://127.0.0.1:{listener.port}/", f"answered {status}")
    assert inside.connections == 0


def test_proxy_of_the_environment_is_not_asked(listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch):
    listener, proxy = listen(HELLO), listen(HELLO)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    LOOPBACK.get(f"http://127.0.0.1:{listener.port}/", accept="*/*")
    assert (listener.connections, proxy.connections) == (1, 0)


# Without a deadline, what drips lasts for more than this, and what is silent goes on until we hang up.
FOREVER = 30


def _drip(before: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(before)
        for _ in range(FOREVER * 20):
            connection.sendall(piece)
            time.sleep(0.05)

    return answer


def _silence(connection: socket.socket) -> None:
    connection.settimeout(2 * FOREVER)
    connection.recv(1)


DRIPS: dict[str, Callable[[socket.socket], None]] = {
    "body": _drip(OK + b"Content-Length: 500\r\n\r\n", b"x"),
    "chunks": _drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "status": _drip(b"", b"H"),
    "header": _drip(OK, b"X-More: 1\r\n"),
    "continue": _drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "silence": _silence,
}


def test_drip_can_t_stretch_the_deadline(listen: Callable[..., Listener]):
    def seconds(url: str) -> float:
        started = time.monotonic()
        refused(IMPATIENT, url, "took too long|timed out")
        return time.monotonic() - started

    with ThreadPoolExecutor(len(DRIPS)) as pool:
        urls = [f"http://127.0.0.1:{listen(answer).port}/" for answer in DRIPS.values()]
        taken = dict(zip(DRIPS, pool.map(seconds, urls), strict=True))
    assert {name: 0.9 < each < FOREVER for name, each in taken.items()} == dict.fromkeys(DRIPS, True), taken


def test_lookup_and_handshake_can_t_stretch_it_either(
    listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]
):
    names["public.example"] = [["127.0.0.1"]]
    listener = listen(_silence)  # speaks no TLS
    refused(IMPATIENT, f"https://public.example:{listener.port}/", "timed out")
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: (answer.wait(FOREVER), [])[1])
    refused(IMPATIENT, "https://slow.example/", "the lookup took too long")
    answer.set()


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 70000\r\n\r\n" + bytes(70_000),
        b"\r\n" + bytes(70_000),
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + bytes(0x1000) + b"\r\n" * 1,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 70_000,
        b"X: " + b"x" * 65_000 + b"\r\nY: " + b"y" * 65_000 + b"\r\nZ: " + b"z" * 65_000 + b"\r\n\r\n",
        b"X: 1\r\n" * 200 + b"\r\n",
    ],
    ids=["announced", "endless", "broken chunks", "tiny chunks", "long headers", "many headers"],
)
def test_size_is_bounded(listen: Callable[..., Listener], framing: bytes):
    listener = listen(OK + framing)
    refused(LOOPBACK, f"http://127.0.0.1:{listener.port}/")


def test_limit_is_the_caller_s(listen: Callable[..., Listener]):
    listener = listen(HELLO)
    url = f"http://127.0.0.1:{listener.port}/"
    assert LOOPBACK.get(url, accept="*/*", limit=5).body == b"hello"
    refused(LOOPBACK, url, "larger", limit=4)


def test_half_an_answer_is_none(listen: Callable[..., Listener]):
    listener = listen()
    for answer in (
        OK + b"Content-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 6\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"",
        b"hello",
        b"SSH-2.0-OpenSSH\r\n",
    ):
        listener.answer = answer
        refused(LOOPBACK, f"http://127.0.0.1:{listener.port}/")


def test_certificate_must_be_for_the_name(
    listen: Callable[..., Listener], names: dict[str, list[list[str]]], authority: Authority
):
    """The connection goes to the address, the handshake is with the name."""
    names |= {"good.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}
    listener = listen(HELLO, tls=authority.server("good.example", file="good.example").context())
    fetcher = Fetcher(Settings(fetch_private="127.0.0.0/8", fetch_ca_file=str(authority.ca_file)))
    assert fetcher.get(f"https://good.example:{listener.port}/", accept="*/*").body == b"hello"
    assert listener.server_names == ["good.example"]
    for host in ("other.example", "127.0.0.1"):
        refused(fetcher, f"https://{host}:{listener.port}/", "CERTIFICATE_VERIFY_FAILED")
    # an authority that nobody named
    refused(LOOPBACK, f"https://good.example:{listener.port}/", "CERTIFICATE_VERIFY_FAILED")
    assert len(listener.requests) == 1
    addressed = listen(HELLO, tls=authority.server("127.0.0.1", file="127.0.0.1").context())
    assert fetcher.get(f"https://127.0.0.1:{addressed.port}/", accept="*/*").body == b"hello"


PUBLIC = ["8.8.8.8", "203.0.114.1", "223.255.255.254", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808"]
PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "fe80::1"),
    *("fe80::1%lo", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "2001::1", "2001:db8::1"),
    *("2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "3fff::1", "4000::1", "5f00::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_our_own_side(address: str):
    """RFC 6890 and its registry; RFC 6052, 3056 and 4291 for IPv4 addresses inside of others."""
    assert not is_public(ipaddress.ip_address(address))


# What speaks to others by itself: `verify.https`, which reads metadata and keys of an issuer that its user named;
# the stores; the command line, which asks the server that it starts.
SPEAKERS = re.compile(r"verify/|storage/|cli/|mail/|web/fetch\.py")
NETWORK = {"aiohttp", "ftplib", "http.client", "httpx", "requests", "smtplib", "socket", "telnetlib", "urllib3"}


def test_nobody_else_opens_connections():
    """SSRF has one place to be prevented at: no other module imports what could fetch."""
    found = set()
    for file in Path(tokenserver.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{each.name}" for each in node.names)]
            if NETWORK & set(names) or any(name.startswith("urllib.request") for name in names):
                found.add(file.relative_to(Path(tokenserver.__file__).parent).as_posix())
    assert "web/fetch.py" in found
    assert {file for file in found if not SPEAKERS.match(file)} == set()
