"""Where one request ends and the next begins (RFC 9112 section 6): a balancer in front that reads it otherwise
would hand one person's request to another. gunicorn CVE-2024-1135 and CVE-2024-6827.
"""

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from tests.live_server import LiveServer

AMBIGUOUS = {
    "both lengths": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "both lengths, the other way round": "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "two encodings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "an encoding that is none": "Transfer-Encoding: xchunked\r\nContent-Length: 5",
    "chunked, but not in the end": "Transfer-Encoding: chunked, identity\r\nContent-Length: 5",
    "a space before the colon": "Transfer-Encoding : chunked\r\nContent-Length: 5",
    "two lengths": "Content-Length: 5\r\nContent-Length: 50",
    "a length with a sign": "Content-Length: +5",
    "a folded line": "X-Folded: a\r\n b\r\nContent-Length: 5",
}


def statuses(server: LiveServer, headers: str, path: str) -> list[bytes]:
    """Of all that is answered, until the server hangs up, to a form with these headers and a GET of `path` after
    it."""
    parts = urlsplit(server.url)
    form = f"POST /oauth/token HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n0\r\n\r\n"
    after = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall((form + after).encode())
        with suppress(ConnectionResetError):  # it need not have read all before it hung up
            while data := connection.recv(65_536):
                answer += data
    return re.findall(rb"HTTP/1\.1 (\d+)", answer)


def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(live_server: LiveServer):
    # What can be read in one way is two requests, of which the log tells.
    assert statuses(live_server, "Content-Length: 5", "/second") == [b"400", b"404"]
    found = {what: statuses(live_server, headers, "/smuggled") for what, headers in AMBIGUOUS.items()}
    assert [what for what, answers in found.items() if answers not in ([b"400"], [])] == []
    log = live_server.log_file.read_text()
    assert "/second" in log
    assert "/smuggled" not in log
