"""HTTP/1.1 on one connection (RFC 9112): from bytes to WSGI requests, and from WSGI answers to bytes.

llhttp, the parser of Node.js, says where a request ends; what can be read in two ways is none (section 6).
"""

import io
import socket
import sys
import time
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from tokenserver.web.usual import Answer, Fields, Kept, Usual

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# Of an environment: a hundred header fields, and what is said of the connection.
MOST_ENTRIES: Final = 113
REMEMBERED_KEYS: Final = 1000
# Of a request that a connection remembers.
REMEMBERED_BYTES: Final = 2048
# RFC 9110 sections 15.3.5 and 15.4.5: answers that have no body and say nothing of its length.
BODILESS: Final = ("204", "304", "1")


class Limits(NamedTuple):
    """`connections`: at a time; further ones wait in the kernel's queue. `idle_seconds`: that a connection may go
    without a request; `request_seconds`: from the first byte of a request until it is whole; `finish_seconds`: that
    requests may take once nobody is let in any more.
    """

    connections: int
    head_bytes: int
    body_bytes: int
    idle_seconds: float
    request_seconds: float
    finish_seconds: float


class Request(NamedTuple):
    """`keeps`: whether the connection is good for another one. `usual`: what its bytes were found to be, when they
    came before."""

    environ: "WSGIEnvironment"
    body: bytes
    keeps: bool
    usual: Usual | None = None


class Refusal(NamedTuple):
    """What can't be read is answered with this, and the connection ends. `why`: a sentence."""

    status: str
    why: str


TOO_LARGE: Final = Refusal("431 Request Header Fields Too Large", "The head of the request is too large.")


class _Stop(Exception):
    """Raised in a callback of the parser: nothing more is read of this connection."""


class Connection:
    """`requests`: whole ones that came, in their order; a refusal is the last. `is_busy`: one of them is being
    answered. `since`: when the first byte came of one that isn't whole, on the monotonic clock; 0: there is none.
    `moved_at`: when it was made, or bytes of an answer went last. `unsent`: of the answer. `is_ending`: after this
    answer.
    """

    __slots__ = (
        "_begun", "_body", "_body_size", "_environ", "_expects", "_head_size", "_heard", "_is_over", "_known",
        "_limits", "_parser", "_place", "_refusal", "_target", "_to_come", "descriptor", "is_busy", "is_ending",
        "is_lingering", "is_watched", "moved_at", "requests", "since", "socket", "unsent",
    )  # fmt: skip

    def __init__(self, line: socket.socket, place: "WSGIEnvironment", limits: Limits) -> None:
        """`place`: what the environments of all its requests say."""
        self.socket = line
        self.descriptor = line.fileno()
        self.requests: deque[Request | Refusal] = deque()
        self.is_busy = self.is_ending = self.is_lingering = False
        self.is_watched = True
        self.since = 0.0
        self.moved_at = time.monotonic()
        self.unsent: memoryview | None = None
        self._place = place
        self._limits = limits
        self._is_over = False
        self._refusal: Refusal | None = None
        self._parser = HttpRequestParser(self)
        self._heard = b""  # last, where that was one whole request
        self._known = (self._heard, Request({}, b"", keeps=True))
        self._begun: tuple[Kept | None, bytes] = (None, b"")
        self._forget()

    def _forget(self) -> None:
        self._environ: WSGIEnvironment = {}
        self._target = b""
        self._body: list[bytes] = []
        self._body_size = 0
        self._head_size = 0
        self._to_come = 0  # of a body that isn't the parser's
        self._expects = False

    # What comes in

    def receive(self, data: bytes) -> None:
        """Adds to `requests` what is whole now."""
        if self._is_over:
            return  # nothing after it is read
        is_first = not (self._environ or self.requests)
        if is_first and data == self._known[0]:
            self.requests.append(self._known[1])
            return
        try:
            self._feed(data)
        except HttpParserError as error:
            self._end(error)
        is_whole = is_first and len(self.requests) == 1 and not self._environ
        self._heard = data if is_whole and len(data) <= REMEMBERED_BYTES else b""
        if not self._environ:
            self.since = 0.0
        elif self.requests or not self.since:  # another one has begun
            self.since = time.monotonic()

    def remember(self, request: Request, usual: Usual) -> None:
        """The one that was read last: who polls, or wants the next token, says the same again and again, and the
        same bytes mean the same."""
        if self._heard and usual.is_read:
            self._known = (self._heard, Request(request.environ, b"", keeps=True, usual=usual))

    def written(self, request: Request, answer: Answer, *, closing: bool) -> tuple[bytes, bool]:
        """See `Head.written`. What answers have in common is made once."""
        kept, fields, body = answer
        if self._begun[0] is not kept:
            self._begun = (kept, f"HTTP/1.1 {kept.status}\r\n{_lines(kept.fields)}".encode("latin-1"))
        keeps = request.keeps and not closing
        end = f"{_lines(fields)}{_option(request, keeps=keeps)}{_end()}"
        return b"".join((self._begun[1], end.encode("latin-1"), body)), keeps

    def _feed(self, data: bytes) -> None:
        while data:
            if self._to_come:
                data = self._take_body(data)
                continue
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as offer:
                # RFC 9110 section 7.8: a server may ignore it. The parser has left the body to us.
                data = data[offer.args[0] :]
                self._parser = HttpRequestParser(self)
            else:
                self._limit_head(len(data))
                data = b""

    def _limit_head(self, more: int) -> None:
        if self._environ and "REQUEST_METHOD" not in self._environ:
            self._head_size += more
            if self._head_size > self._limits.head_bytes:
                self._refusal = TOO_LARGE
                raise HttpParserError

    def _take_body(self, data: bytes) -> bytes:
        part, rest = data[: self._to_come], data[self._to_come :]
        self._body.append(part)
        self._to_come -= len(part)
        if not self._to_come:
            self._complete(keeps=True)
        return rest

    def _end(self, error: HttpParserError) -> None:
        """What came before is answered. Behind the last request of a connection that its client ends, nothing is
        answered (section 9.6)."""
        if self._is_over:
            return
        self._is_over = True
        last = self.requests[-1] if self.requests else None
        if self._refusal or not isinstance(last, Request) or last.keeps:
            self.requests.append(
                self._refusal or Refusal("400 Bad Request", f"The request can't be read: {error}.")
            )
        self._forget()

    @property
    def is_idle(self) -> bool:
        return not (self.is_busy or self.since or self.is_lingering or self.is_ending)

    def is_expecting(self) -> bool:
        """Whether the client waits for a word before it sends the body (RFC 9110 section 10.1.1); told once."""
        expects, self._expects = self._expects, False
        return expects

    # Called by the parser

    def on_message_begin(self) -> None:
        self._environ = self._place.copy()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        environ = self._environ
        if "REQUEST_METHOD" in environ:  # the head is complete: a trailer (section 7.1.2)
            return
        key = _KEYS.get(name) or _key(name)
        if key in environ:
            environ[key] += f"{'; ' if key == 'HTTP_COOKIE' else ','}{value.decode('latin-1')}"
        elif key:
            environ[key] = value.decode("latin-1")
            if len(environ) > MOST_ENTRIES:
                self._refusal = TOO_LARGE
                raise _Stop

    def on_headers_complete(self) -> None:
        environ, parser = self._environ, self._parser
        version = parser.get_http_version()
        if version != "1.1":
            environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        path, _, query = self._target.partition(b"?")
        if not path.startswith(b"/"):
            path = _path_of(path)
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        environ["REQUEST_METHOD"] = parser.get_method().decode("ascii")
        if environ.get("HTTP_HOST", ",").count(",") and version == "1.1":
            self._refusal = Refusal("400 Bad Request", "The request has no Host, or two (RFC 9112 section 3.2).")
            raise _Stop
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > self._limits.body_bytes:
            self._stop_reading()
        if parser.should_upgrade():
            if "HTTP_TRANSFER_ENCODING" in environ or environ["REQUEST_METHOD"] == "CONNECT":
                self._refusal = Refusal("400 Bad Request", "No other protocol is spoken here.")
                raise _Stop
            self._to_come = length
        self._expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue"

    def on_body(self, part: bytes) -> None:
        self._body.append(part)
        self._body_size += len(part)
        if self._body_size > self._limits.body_bytes:
            self._stop_reading()

    def on_message_complete(self) -> None:
        if not self._to_come:
            self._complete(keeps=self._parser.should_keep_alive())

    def _stop_reading(self) -> None:
        """The application will refuse what is too long: it gets one byte more than there may be, or the announced
        length."""
        self._complete(keeps=False)
        self._is_over = True
        raise _Stop

    def _complete(self, *, keeps: bool) -> None:
        environ, parts = self._environ, self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(body) > self._limits.body_bytes:
            body = body[: self._limits.body_bytes + 1]
        environ["wsgi.input"] = io.BytesIO(body)
        self.requests.append(Request(environ, body, keeps))
        self._forget()


_KEYS: dict[bytes, str] = {}


def _key(name: bytes) -> str:
    """Of a header field in the environment (PEP 3333). None for a name with an underscore, which would pass for
    another one that a balancer has looked at."""
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        key = f"HTTP_{key}"
    if len(_KEYS) < REMEMBERED_KEYS:
        _KEYS[name] = key
    return key


def _path_of(target: bytes) -> bytes:
    """Section 3.2.2: whoever takes us for a proxy names the whole URL. `*` stays as it is."""
    _, scheme, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if scheme else target


def place_of(line: socket.socket, scheme: str = "http") -> "WSGIEnvironment":
    """What the environments of all requests say that come on this connection (PEP 3333)."""
    here, there = line.getsockname(), line.getpeername()
    return {
        "SERVER_NAME": here[0],
        "SERVER_PORT": str(here[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": there[0],
        "REMOTE_PORT": str(there[1]),
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


# What goes out


class Head:
    """`start_response` of a request (PEP 3333), and what it was called with. `parts`: what was given to `write`."""

    __slots__ = ("fields", "is_chunked", "parts", "status")

    def __init__(self) -> None:
        self.status = ""
        self.fields: Fields = ()
        self.parts: list[bytes] = []
        self.is_chunked = False

    def __call__(self, status: str, fields: Fields, exc_info: Any = None) -> Any:
        if self.status and exc_info is None:
            raise AssertionError("start_response was called before")
        self.status, self.fields = status, fields
        return self.parts.append

    @property
    def is_bodiless(self) -> bool:
        return self.status.startswith(BODILESS)

    @property
    def is_length_open(self) -> bool:
        """Whether the body may be of any length, and take its time."""
        return bool(self.status) and not self.is_bodiless and not self._has_length()

    def _has_length(self) -> bool:
        return any([name.lower() == "content-length" for name, _ in self.fields])  # noqa: C419 - a dozen of them

    def written(self, request: Request, *, length: int | None, closing: bool) -> tuple[bytes, bool]:
        """The bytes, and whether the connection is good for another request. `length`: of the body where the fields
        don't say it; None: it goes on until it ends. Raises ValueError for what would be more than one line."""
        lines = _lines(self.fields)
        keeps = request.keeps and not closing and "Connection: close" not in lines
        if "Content-Length" not in lines and self.is_length_open:
            if length is not None:
                lines += f"Content-Length: {length}\r\n"
            elif _is_old(request):
                keeps = False  # it ends where the connection does
            else:
                lines += "Transfer-Encoding: chunked\r\n"
                self.is_chunked = True
        if "Connection: close" not in lines:
            lines += _option(request, keeps=keeps)
        return f"HTTP/1.1 {self.status}\r\n{lines}{_end()}".encode("latin-1"), keeps


def _lines(fields: Fields) -> str:
    lines = "\r\n".join([*map(": ".join, fields), ""])
    if not lines.count("\n") == lines.count("\r") == len(fields):
        raise ValueError("a header field has more than one line")
    return lines


def _option(request: Request, *, keeps: bool) -> str:
    """RFC 9112 section 9.3: what becomes of the connection, where that doesn't go without saying."""
    if keeps:
        return "Connection: keep-alive\r\n" if _is_old(request) else ""
    return "Connection: close\r\n"


def _end() -> str:
    return f"Date: {_date()}\r\n\r\n"


def _is_old(request: Request) -> bool:
    version: str = request.environ["SERVER_PROTOCOL"]
    return version != "HTTP/1.1"


def in_chunk(part: bytes) -> bytes:
    """RFC 9112 section 7.1."""
    return b"%x\r\n%b\r\n" % (len(part), part)


LAST_CHUNK: Final = b"0\r\n\r\n"


def refused(refusal: Refusal) -> bytes:
    text = f"{refusal.why}\n".encode()
    return (
        f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        f"Connection: close\r\nDate: {_date()}\r\n\r\n"
    ).encode("latin-1") + text


_dated: tuple[int, str] = (0, "")


def _date() -> str:
    """RFC 9110 section 6.6.1."""
    global _dated  # noqa: PLW0603 - made once a second
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, formatdate(now, usegmt=True)
    return _dated[1]
