"""Asks one place over HTTPS: no redirect, no other scheme, a bounded size and time."""

import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPResponse
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import BaseHandler, HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, getproxies

from tokenserver.verify.line import Line

MAX_BODY: Final = 256 * 1024
MIN_AGE: Final = 10
MAX_AGE: Final = 24 * 3600
PLAIN_URI: Final = re.compile(r"[\x21-\x5B\x5D-\x7E]+")
# RFC 9111 section 5.2: a list of directives; one whose name only ends in max-age is another.
CACHE_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?([0-9]{1,9})\"?\s*(?:,|$)", re.IGNORECASE)


class Document(NamedTuple):
    """`max_age`: seconds the server lets us keep it, or None when it doesn't say. `etag`: its version. `waits`:
    the server honours the preference to wait for it (RFC 7240 section 3)."""

    body: bytes
    max_age: int | None
    etag: str | None = None
    waits: bool = False


Fetch = Callable[[str], Document]


def check_uri(uri: str) -> str:
    """ValueError unless https, or http to this very machine."""
    parts = urlsplit(uri)
    # "http://localhost:80@evil.example" and "http://localhost\@evil.example" are for evil.example: no user part, no
    # backslash, and the host is taken from the parser, never from the text.
    if not PLAIN_URI.fullmatch(uri) or "@" in parts.netloc or not parts.hostname or parts.fragment:
        raise ValueError("not a plain absolute URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("must be https; http is for loopback hosts alone")
    return uri


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _opener(handlers: Iterable[BaseHandler]) -> OpenerDirector:
    # An opener that was given no handler for redirects, errors, file: or ftp: can't be led to any of them.
    # Plain http means loopback here, so it never takes a proxy.
    proxies = {scheme: proxy for scheme, proxy in getproxies().items() if scheme in {"https", "no"}}
    opener = OpenerDirector()
    for handler in (ProxyHandler(proxies), *handlers):
        opener.add_handler(handler)
    return opener


def fetch(uri: str, *, timeout: float = 5) -> Document:
    """OSError, HTTPException or ValueError when the document can't be had."""
    document = _ask(uri, {"Accept": "application/json"}, timeout=timeout)
    if document is None:
        raise ValueError("answered 304, though nothing was said to be at hand")
    return document


def fetch_newer(
    uri: str, etag: str | None, line: Line, *, timeout: float, limit: int, wait: int = 0
) -> Document | None:
    """None while the document at `uri` is the one of `etag` (RFC 9110 section 13.1.2). `limit`: bytes. `wait`: the
    server may take so many seconds more, if there is a newer one then (RFC 7240 section 4.3).

    OSError, HTTPException or ValueError when it can't be had, or `line` is cut.
    """
    headers = {} if etag is None else {"If-None-Match": etag}
    if wait:
        headers["Prefer"] = f"wait={wait}"
    try:
        return _ask(uri, headers, timeout=timeout, limit=limit, wait=wait, line=line)
    finally:
        line.let_go()


def post(uri: str, form: Mapping[str, str], headers: Mapping[str, str], *, timeout: float) -> bytes:
    """The body of the answer, if it is 200. OSError, HTTPException or ValueError when there is none."""
    document = _ask(uri, headers, timeout=timeout, body=urlencode(form).encode())
    if document is None:
        raise ValueError("answered 304")
    return document.body


def _ask(
    uri: str,
    headers: Mapping[str, str],
    *,
    timeout: float,
    limit: int = MAX_BODY,
    body: bytes | None = None,
    wait: int = 0,
    line: Line | None = None,
) -> Document | None:
    request = Request(check_uri(uri), body, dict(headers))  # noqa: S310 - checked on this line
    deadline = time.monotonic() + timeout + wait
    handlers = (HTTPHandler(), HTTPSHandler()) if line is None else line.handlers(timeout + wait)
    with _opener(handlers).open(request, timeout=timeout) as response:
        if response.status == 304 and "If-None-Match" in headers:
            return None
        # RFC 8414 section 3.2: 200 OK. Whoever answers 3xx is not the place where the keys are.
        if response.status != 200:
            raise ValueError(f"answered {response.status}")
        age = max_age(response.headers.get_all("Cache-Control", []))
        applied = ",".join(response.headers.get_all("Preference-Applied", []))
        return Document(
            _read(response, deadline, limit), age, response.headers.get("ETag"), "wait=" in applied.lower()
        )


def _read(response: HTTPResponse, deadline: float, limit: int) -> bytes:
    # The socket's timeout starts anew with each byte; the deadline doesn't.
    body = bytearray()
    while chunk := response.read1(MAX_BODY):
        body += chunk
        if len(body) > limit:
            raise ValueError("document too large")
        if time.monotonic() > deadline:
            raise TimeoutError("document too slow")
    return bytes(body)


def max_age(cache_controls: Iterable[str]) -> int | None:
    """Seconds for which the header fields let a document be kept, within bounds; None when they don't say."""
    cache_control = ",".join(cache_controls)
    if re.search(r"\bno-(?:store|cache)\b", cache_control, re.IGNORECASE):
        return MIN_AGE
    stated = CACHE_MAX_AGE.search(cache_control)
    return min(max(int(stated[1]), MIN_AGE), MAX_AGE) if stated else None
