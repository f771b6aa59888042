"""Reads from, and posts to, a URL that a client registered, without being led into a network of ours.

OpenID Connect Core section 6.2 and Dynamic Registration section 5 let clients name such URLs (`jwks_uri`,
`request_uri`, `sector_identifier_uri`); RFC 9126 section 7.2 and RFC 9101 section 10.4.1 tell the harm.
"""

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import SplitResult, urlencode, urlsplit

from tokenserver.config import Settings
from tokenserver.verify.https import PLAIN_URI, max_age

DEADLINE_SECONDS: Final = 5.0
MAX_BODY: Final = 64 * 1024
# Status line, header fields and the framing of chunks, beside the body.
MAX_OVERHEAD: Final = 64 * 1024
# A name may have any number of addresses, and its owner may want us to knock at all of them.
MAX_ADDRESSES: Final = 4
# A lookup can't be cut short, so that a name server that never answers holds threads for a while.
MAX_LOOKUPS: Final = 16
DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# The "system ports" of IANA: mail, shells, directories and their like; none of them is a web server of a client.
SYSTEM_PORTS: Final = range(1, 1024)

Address = IPv4Address | IPv6Address
# RFC 4291 section 2.4, as IANA gives them out: no other IPv6 address is one of a public host.
GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# RFC 6052 section 2.1: the last 32 bits are the IPv4 address that a packet ends at.
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 6890 and what came after it, where not every supported Python knows it.
SPECIAL: Final = tuple(
    ipaddress.ip_network(each)
    for each in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20")
)


class FetchFailed(ValueError):
    """It can't be had, or must not be asked for. The text is for the log alone."""


class Fetched(NamedTuple):
    """`content_type`: the media type in small letters, without parameters. `max_age`: seconds for which the server
    lets it be kept, or None when it doesn't say."""

    body: bytes
    content_type: str
    max_age: int | None


class Fetcher:
    """One connection for each request, no redirect, no proxy, no cookie; safe to share between threads.

    https alone, and public addresses alone; but within `settings.fetch_private`, any address, and http too.
    """

    def __init__(self, settings: Settings, *, seconds: float = DEADLINE_SECONDS) -> None:
        self._private = tuple(ipaddress.ip_network(each) for each in settings.fetch_private.split(",") if each)
        self._ca_file = settings.fetch_ca_file
        self.seconds = seconds
        self._lookups = threading.BoundedSemaphore(MAX_LOOKUPS)

    def get(
        self, url: str, *, accept: str, limit: int = MAX_BODY, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Fetched:
        """What a 200 carries, at most `limit` bytes. `headers`: ours, never a client's. Raises FetchFailed."""
        with _Exchange(self, url, limit) as exchange:
            response = exchange.ask("GET", {"Accept": accept, **headers})
            # RFC 9101 section 10.4.1: whoever answers 3xx leads elsewhere, perhaps to where we must not go.
            if response.status != 200:
                raise FetchFailed(f"answered {response.status}")
            if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                raise FetchFailed("encoded content")
            body = response.read(limit + 1)
            if len(body) > limit:
                raise FetchFailed("larger than it may be")
            if response.length:
                raise FetchFailed("cut off")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Fetched(body, media_type, max_age(response.headers.get_all("Cache-Control", [])))

    def post_form(self, url: str, form: Mapping[str, str]) -> int:
        """The status that a form was answered with: 2xx, 4xx or 5xx. Raises FetchFailed."""
        with _Exchange(self, url, MAX_BODY) as exchange:
            content_type = {"Content-Type": "application/x-www-form-urlencoded"}
            response = exchange.ask("POST", content_type, urlencode(form).encode())
            if response.status // 100 not in {2, 4, 5}:
                raise FetchFailed(f"answered {response.status}")
            # Whoever is hung up on in mid-sentence may think that the request failed.
            with suppress(OSError, HTTPException, ValueError):
                response.read(MAX_BODY)
            return response.status

    @cached_property
    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_file:
            context.load_verify_locations(self._ca_file)
        return context

    def addresses(self, url: SplitResult, deadline: float) -> list[Address]:
        """Of the host, as it is looked up this once. FetchFailed if we must not talk to one of them."""
        found = list(dict.fromkeys(self._look_up(str(url.hostname), deadline)))
        for address in found:
            is_private = any(address in network for network in self._private)
            # One bad address spoils a name: else its owner could mix them until the bad one is taken.
            if not is_private and not is_public(address):
                raise FetchFailed(f"{address} is not a public address")
            if url.scheme == "http" and not is_private:
                raise FetchFailed("http is for private networks alone")
            if url.port in SYSTEM_PORTS and url.port != DEFAULT_PORTS["https"] and not is_private:
                raise FetchFailed("a port of another service")
        if not found:
            raise FetchFailed("the name has no address")
        return found[:MAX_ADDRESSES]

    def _look_up(self, host: str, deadline: float) -> list[Address]:
        answers: SimpleQueue[list[Address] | Exception] = SimpleQueue()

        def look_up() -> None:
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                answers.put([_plain(str(sockaddr[0])) for *_, sockaddr in found])
            except (OSError, ValueError) as error:
                answers.put(error)
            finally:
                self._lookups.release()

        if not self._lookups.acquire(timeout=_left(deadline)):
            raise FetchFailed("too many lookups at once")
        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        try:
            answer = answers.get(timeout=_left(deadline))
        except Empty:
            raise FetchFailed("the lookup took too long") from None
        if isinstance(answer, Exception):
            raise FetchFailed(f"the lookup failed: {answer}")
        return answer


class _Exchange:
    """One request and its answer, on a connection to an address that was checked."""

    def __init__(self, fetcher: Fetcher, url: str, limit: int) -> None:
        self._fetcher = fetcher
        self._url = check(url)
        self._limit = limit + MAX_OVERHEAD
        self._deadline = time.monotonic() + fetcher.seconds
        self._closing = ExitStack()
        self._socket: socket.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._closing.close()
        if isinstance(error, OSError | HTTPException | ValueError) and not isinstance(error, FetchFailed):
            raise FetchFailed(str(error) or type(error).__name__) from None

    def ask(self, method: str, headers: Mapping[str, str], body: bytes | None = None) -> HTTPResponse:
        url = self._url
        self._connect()
        connection = HTTPConnection(str(url.hostname))
        connection.sock = self
        own = {
            "Host": url.netloc,
            "User-Agent": "tokenserver",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request(method, target, body, {**own, **headers})
        return connection.getresponse()

    def _connect(self) -> None:
        # The name is not looked up again: its next answer may be another one.
        addresses = self._fetcher.addresses(self._url, self._deadline)
        port = self._url.port or DEFAULT_PORTS[self._url.scheme]
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            self._socket = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
            self._closing.callback(self._socket.close)
            # So that one address that swallows everything leaves time for the next.
            self._socket.settimeout(_left(self._deadline) / left)
            try:
                self._socket.connect((str(address), port))
                break
            except OSError:
                if left == 1:
                    raise
        if self._url.scheme == "https":
            self._socket = self._fetcher.tls.wrap_socket(self._timed(), server_hostname=self._url.hostname)
            self._closing.callback(self._socket.close)

    # What `http.client` wants of a socket.

    def sendall(self, content: bytes) -> None:
        self._timed().sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Not yet: it closes before the body is read."""

    def receive(self, buffer: bytearray) -> int:
        count = self._timed().recv_into(buffer)
        self._limit -= count
        if self._limit < 0:
            raise FetchFailed("more bytes than it may take")
        return count

    def _timed(self) -> socket.socket:
        # A timeout would start anew with each byte; the deadline doesn't.
        self._socket.settimeout(_left(self._deadline))
        return self._socket


class _Reader(io.RawIOBase):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._exchange.receive(buffer)


def check(url: str) -> SplitResult:
    """A URL in its parts, without the fragment, which is not sent (RFC 9110 section 7.1).

    FetchFailed for what can't be fetched or could be read in two ways.
    """
    if not PLAIN_URI.fullmatch(url):
        raise FetchFailed("not a plain absolute URL")
    try:
        parts = urlsplit(url.partition("#")[0])
        port = parts.port
    except ValueError:
        raise FetchFailed("not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise FetchFailed("neither https nor http")
    if not parts.hostname or "@" in parts.netloc or "%" in parts.netloc or port == 0:
        raise FetchFailed("no host, or more than a host and its port")
    return parts


def is_public(address: Address) -> bool:
    """Whether packets to it leave for the Internet and end at one host there."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    # `is_global` knows what is private, but calls some multicast and reserved addresses global.
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in SPECIAL)
    return address.is_global and not is_special


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address at which packets to an IPv6 one end: RFC 6052 (NAT64), RFC 3056 (6to4)."""
    if isinstance(address, IPv4Address):
        return None
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else address.sixtofour


def _plain(text: str) -> Address:
    """RFC 4291 section 2.5.5.2: an IPv4-mapped address is the IPv4 address to the kernel."""
    address = ipaddress.ip_address(text)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise FetchFailed("took too long")
    return left
