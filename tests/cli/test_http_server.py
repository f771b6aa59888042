"""The HTTP server itself, with applications made for a test: what it reads, what it sends, who waits for whom."""

import io
import os
import re
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress

import httpx
import pytest
import redis

from tokenserver.cli.crew import in_turn
from tokenserver.cli.http_connection import REMEMBERED_BYTES, Connection
from tokenserver.cli.http_server import ERRANDS_FOR_EACH, TOGETHER, HttpServer, Limits
from tokenserver.storage.aside import afterwards, elsewhere, loop
from tokenserver.storage.round_trips import RoundTrips
from tokenserver.web.usual import Answer, Kept

PATIENCE = 30
THREADS = 2
LIMITS = Limits(
    connections=64, head_bytes=4096, body_bytes=1000, idle_seconds=60, request_seconds=60, finish_seconds=10
)


def told(environ, start_response):
    """Says what it was asked."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    return [f"{environ['REQUEST_METHOD']} {path}?{query} {body.decode('latin-1')}".encode("latin-1")]


class Running:
    """A server whose paths that begin with /light are answered in its loop."""

    def __init__(self, application, **options):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        settings = {
            "limits": LIMITS,
            "threads": THREADS,
            "is_light": lambda e, _: e["PATH_INFO"].startswith("/light"),
        }
        self.http = HttpServer(self.listener, application, **(settings | options))
        self.thread = threading.Thread(target=self.http.run, daemon=True)
        self.thread.start()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def is_listening(self):
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def get(self, path, **options):
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            return client.get(f"http://127.0.0.1:{self.port}{path}", **options)

    def say(self, *parts):
        """All that is answered until the server hangs up."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return heard(connection)

    def stop(self):
        self.http.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def heard(connection):
    answer = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
    return answer


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


def bodies(answer):
    return [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def run():
    made = []

    def start(application=told, **options):
        made.append(Running(application, **options))
        return made[-1]

    yield start
    for each in made:
        each.stop()


LENGTH = re.compile(rb"Content-Length: (\d+)")
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


# What is read


@pytest.mark.parametrize("path", ["/light", "/heavy"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_requests_of_a_connection_are_answered_in_their_order_however_they_are_cut(run, path, size):
    said = (
        f"GET {path}/1?a=b%20c HTTP/1.1\r\nHost: x\r\n\r\n"
        f"POST {path}/2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        f"POST {path}/3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n"
        "0\r\nAuthorization: none\r\n\r\n"
        f"\r\nGET http://other:80{path}/4 HTTP/1.1\r\nHost: x\r\n\r\n"
    ).encode()
    said += LAST
    server = run()
    answer = server.say(*[said[at : at + size] for at in range(0, len(said), size)])
    assert bodies(answer) == [
        f"GET {path}/1?a=b%20c ".encode(),
        f"POST {path}/2? hello".encode(),
        f"POST {path}/3? abcde".encode(),
        f"GET {path}/4? ".encode(),
        b"GET /last? ",
    ]
    assert answer.count(b"Connection: close") == 1


def test_what_a_client_offers_to_speak_instead_is_ignored(run):
    """RFC 9110 section 7.8: so does Java's own client with its first request, which may have a body."""
    offer = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    server = run()
    for size in (1, 10_000):
        said = b"POST /1 HTTP/1.1\r\n" + offer + b"Content-Length: 5\r\n\r\nhello"
        said += b"GET /2 HTTP/1.1\r\n" + offer + b"\r\n" + LAST
        answer = server.say(*[said[at : at + size] for at in range(0, len(said), size)])
        assert bodies(answer) == [b"POST /1? hello", b"GET /2? ", b"GET /last? "]
    chunked = b"POST /1 HTTP/1.1\r\n" + offer + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert statuses(server.say(chunked + LAST)) == [400]
    assert statuses(server.say(b"CONNECT other:443 HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)) == [400]


def test_environment_is_that_of_pep_3333(run):
    found = {}

    def application(environ, start_response):
        found.update(environ)
        return told(environ, start_response)

    server = run(application)
    head = (
        b"GET /a%2Fb%20%C3%A9?q=%20 HTTP/1.1\r\nHost: x\r\nX-Two: a\r\nX-Two: b\r\nCookie: a=1\r\nCookie: b=2\r\n"
    )
    with server.connect() as connection:
        connection.sendall(head + b"X_Forwarded_For: 6.6.6.6\r\nContent-Type: text/x\r\nConnection: close\r\n\r\n")
        client = connection.getsockname()
        heard(connection)
    assert found["PATH_INFO"].encode("latin-1").decode() == "/a/b é"
    assert found["QUERY_STRING"] == "q=%20"
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == (client[0], str(client[1]))
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert (found["HTTP_X_TWO"], found["HTTP_COOKIE"]) == ("a,b", "a=1; b=2")
    assert found["CONTENT_TYPE"] == "text/x"
    assert "HTTP_X_FORWARDED_FOR" not in found  # a balancer would have looked at another name
    assert found["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert isinstance(found["wsgi.input"], io.BytesIO)
    # RFC 9112 section 7.1.2: what comes behind the body is no field of the head.
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    found.clear()
    server.say(head + b"0\r\nAuthorization: Bearer x\r\nHost: y\r\n\r\n")
    assert found["HTTP_HOST"] == "x"
    assert "HTTP_AUTHORIZATION" not in found


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 50_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 50_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 50 + b"Y: a\r\n" * 50 + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(150)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    ],
)
def test_heads_that_are_none_are_refused_and_nothing_after_them_is_read(run, head, status):
    """One byte or all at a time, with the limit counted in what the socket brought."""
    server = run()
    found = statuses(server.say(head, b"\r\n\r\n" if status == 431 else b"", LAST))
    assert found == ([status] if status != 200 else [200, 200])


def test_a_fault_in_the_second_request_leaves_the_first_its_answer(run):
    answer = run().say(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n" + LAST)
    assert statuses(answer) == [200, 400]


def test_body_past_the_bound_is_not_waited_for(run):
    """The application sees that it is too long, and its answer is the last one."""
    lengths = []

    def application(environ, start_response):
        lengths.append((environ.get("CONTENT_LENGTH"), len(environ["wsgi.input"].read())))
        start_response("413 Content Too Large", [("Content-Length", "0")])
        return []

    server = run(application)
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    assert statuses(server.say(head + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")) == [413]
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n" + b"x" * 500 + b"\r\n"
    assert statuses(server.say(chunked, b"3e8\r\n" + b"x" * 1000, b"x" * 9000, LAST)) == [413]
    assert lengths == [("1001", 0), (None, 1001)]


def test_who_asks_first_is_told_to_go_on(run):
    with run().connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello" + LAST)
        assert bodies(heard(connection)) == [b"POST /? hello", b"GET /last? "]


class Parsing:
    """Of all connections: how often one was read by the parser."""

    def __init__(self, monkeypatch):
        self.times = 0
        feed = Connection._feed

        def count(connection, data):
            self.times += 1
            feed(connection, data)

        monkeypatch.setattr(Connection, "_feed", count)


class Told:
    """A usual request; answered with what it says."""

    def __init__(self, environ):
        self.environ = environ
        self.body = None

    @property
    def is_read(self):
        return self.body is not None

    def answer(self):
        if self.body is None:
            self.body = b"".join(told(self.environ, lambda *_: None))
        return Answer(Kept("200 OK", (("Content-Length", str(len(self.body))),)), (), self.body)

    def at_once(self, afterwards):
        return None


def test_who_says_the_same_again_is_read_once(run, monkeypatch):
    """As long as nothing else was said meanwhile."""
    judged = []

    def is_light(environ, _body):
        judged.append(environ["PATH_INFO"])
        return True

    parsing = Parsing(monkeypatch)
    server = run(is_light=is_light, usual=Told)
    get = b"GET /light/%d HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST /light/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    with server.connect() as connection, server.connect() as other:
        for said, answer in ((get, b"GET /light/%d? "), (post, b"POST /light/%d? hello")):
            for number, times in ((1, 5), (2, 1), (1, 2)):
                before = parsing.times, len(judged)
                for _ in range(times):
                    assert one_of(connection, said % number) == answer % number
                assert (parsing.times, len(judged)) == (before[0] + 1, before[1] + 1)
                assert one_of(other, said % number) == answer % number


class Refused(Told):
    """What it says can't be read."""

    is_read = False


@pytest.mark.parametrize("usual", [Refused, lambda _: None], ids=["unreadable", "unusual"])
def test_what_is_not_usual_or_can_not_be_read_is_not_remembered(run, monkeypatch, usual):
    parsing = Parsing(monkeypatch)
    server = run(usual=usual)
    with server.connect() as connection:
        for _ in range(3):
            assert one_of(connection, b"GET /light HTTP/1.1\r\nHost: x\r\n\r\n") == b"GET /light? "
    assert parsing.times == 3


class Document:
    """A usual request for what is kept. `asked`: how often `answer` was called; `told`: what followed."""

    is_read = True

    def __init__(self, status="200 OK", *, fields=(("X-Kept", "a"),), body=b"kept"):
        self.kept = Kept(status, fields)
        self.body = body
        self.is_there = True
        self.asked = 0
        self.named = 0
        self.told = []

    def __call__(self, _environ):
        return self

    def answer(self):
        self.asked += 1
        return self.named_anew()

    def at_once(self, afterwards):
        if not self.is_there:
            return None
        answer = self.named_anew()
        afterwards(self.told.extend, self.named)
        return answer

    def named_anew(self):
        self.named += 1
        length = [("Content-Length", str(len(self.body)))] if self.body else []
        return Answer(self.kept, [("X-Name", str(self.named)), *length], self.body)


def whole(connection, said):
    connection.sendall(said)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    return re.sub(rb"(?<=Date: )[^\r]+", b"now", answer).decode()


@pytest.mark.parametrize(("status", "body"), [("200 OK", b"kept"), ("304 NOT MODIFIED", b"")])
@pytest.mark.parametrize(("version", "option"), [("1.1", ""), ("1.0", "Connection: keep-alive\r\n")])
def test_what_is_kept_is_answered_at_once(run, status, body, version, option):
    document = Document(status, body=body)
    server = run(usual=document)
    said = f"GET /light HTTP/{version}\r\nHost: x\r\n{option}\r\n".encode()
    with server.connect() as connection:
        answers = [whole(connection, said) for _ in range(4)]
        assert document.asked == 1
        document.kept = document.kept._replace(fields=(("X-Kept", "b"),))
        answers.append(whole(connection, said))
        document.is_there = False
        answers.append(whole(connection, said))
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    assert answers == [
        f"HTTP/1.1 {status}\r\nX-Kept: {'a' if number < 5 else 'b'}\r\nX-Name: {number}\r\n{length}{option}"
        f"Date: now\r\n\r\n{body.decode()}"
        for number in range(1, 7)
    ]
    assert document.asked == 2
    assert document.told == [2, 3, 4, 5]


@pytest.mark.parametrize("usual", [Document(), Told], ids=["at once", "decided"])
def test_what_is_usual_says_when_it_is_the_last_answer(run, usual):
    draining = []
    server = run(usual=usual, is_draining=lambda: bool(draining))
    said = b"GET /light HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.connect() as connection:
        for _ in range(2):
            assert "Connection: close" not in whole(connection, said)
        draining.append(True)
        assert whole(connection, said).count("Connection: close") == 1
        assert heard(connection) == b""


def test_a_fault_in_what_is_usual_ends_its_connection_alone(run, caplog):
    document = Document()
    server = run(usual=document)
    said = b"GET /light HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.connect() as connection, server.connect() as other:
        whole(connection, said)
        whole(other, said)
        for fault in (Kept("200 OK", (("X-Kept", 1),)), Kept("200 OK", (("X-Kept", "a\r\nb"),))):
            document.kept = fault
            with server.connect() as new:
                assert "500 Internal Server Error" in whole(new, said)
            assert "a request could not be answered" in caplog.text
        connection.sendall(said)
        assert heard(connection) == b""
        assert "a connection could not be served" in caplog.text
        document.kept = Document().kept
        assert "X-Name" in whole(other, said)


def one_of(connection, *parts):
    """The body of the one answer."""
    for part in parts:
        time.sleep(0.05 if part is not parts[0] else 0)  # or they would be read at once
        connection.sendall(part)
    answer = b""
    while not answer or len(answer.partition(b"\r\n\r\n")[2]) < int(LENGTH.search(answer)[1]):
        answer += connection.recv(65536)
    return answer.partition(b"\r\n\r\n")[2]


def test_what_is_remembered_is_one_whole_request_of_the_loop(run, monkeypatch):
    parsing = Parsing(monkeypatch)
    server = run(usual=Told)
    one = b"GET /light/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    long = one.replace(b"Host", b"X: %b\r\nHost" % (b"a" * REMEMBERED_BYTES))
    heavy = one.replace(b"/light", b"/heavy")
    for said in ([long], [heavy], [one[:20], one[20:]]):
        with server.connect() as connection:
            parsing.times = 0
            answers = {one_of(connection, *said) for _ in range(3)}
            assert len(answers) == 1
            assert parsing.times == 3 * len(said)
    with server.connect() as connection:
        assert one_of(connection, one) == b"GET /light/1? "
        # As a body they are none, and two at a time are two.
        head = b"POST /light/2 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(one)
        assert one_of(connection, head, one) == b"POST /light/2? " + one
        connection.sendall(one + one + LAST)
        assert bodies(heard(connection)) == [b"GET /light/1? ", b"GET /light/1? ", b"GET /last? "]
    for last in (b"Connection: close", b"Connection: upgrade, close"):
        said = one.replace(b"Host", last + b"\r\nHost")
        assert statuses(server.say(said, said)) == [200]
    old = b"GET /light/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with server.connect() as connection:
        parsing.times = 0
        assert {one_of(connection, old) for _ in range(3)} == {b"GET /light/1? "}
        assert parsing.times == 1


# What is sent


def test_lengths(run):
    def application(environ, start_response):
        path = environ["PATH_INFO"].removeprefix("/light")
        if path == "/none":
            start_response("204 No Content", [])
            return [b""]
        if path == "/write":
            start_response("200 OK", [])(b"written, ")
            return [b"returned"]
        start_response("200 OK", [("Content-Length", "4")] if path == "/known" else [])
        return iter([b"", b"ab", b"", b"cd"])

    server = run(application)
    for light in ("/light", ""):
        answers = {name: server.get(f"{light}/{name}") for name in ("none", "write", "known", "open")}
        assert answers["none"].content == b""
        assert not {"content-length", "transfer-encoding"} & set(answers["none"].headers)
        assert answers["write"].text == "written, returned"
        assert {answers[name].text for name in ("known", "open")} == {"abcd"}
        assert answers["known"].headers["content-length"] == "4"
    assert "date" in answers["open"].headers
    assert answers["open"].headers["transfer-encoding"] == "chunked"  # it goes out as it is made
    for path in ("/known", "/open"):
        answer = server.say(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert bodies(answer) == [b""]
    assert server.say(b"GET /open HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").endswith(b"\r\n\r\nabcd")


def test_old_clients_keep_their_connections_if_they_say_so(run):
    server = run()
    old = b"GET /%d HTTP/1.0\r\n%b\r\n"
    answer = server.say(old % (1, b"Connection: keep-alive\r\n") + old % (2, b""))
    assert answer.count(b"Connection: keep-alive") == answer.count(b"Connection: close") == 1
    assert bodies(answer) == [b"GET /1? ", b"GET /2? "]


def test_long_answers_wait_for_who_reads_them_and_nobody_else_does(run):
    large = os.urandom(8_000_000)

    def application(environ, start_response):
        start_response("200 OK", [])
        return [large] if environ["PATH_INFO"].endswith("large") else [b"small"]

    server = run(application)
    for path in (b"/light/large", b"/large"):
        with server.connect() as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path + LAST)
            assert {server.get(small).text for small in ("/light", "/heavy")} == {"small"}
            answer = heard(connection)
            assert answer.partition(b"\r\n\r\n")[2].startswith(large)
            assert answer.endswith(b"\r\n\r\nsmall")


def test_a_body_is_sent_as_it_is_made_and_closed_whoever_goes(run):
    go, closed = threading.Semaphore(1), threading.Semaphore(0)

    class Body:
        def __iter__(self):
            for number in range(1000):
                go.acquire(timeout=PATIENCE)
                yield b"%d\n" % number

        def close(self):
            closed.release()

    def application(_environ, start_response):
        start_response("200 OK", [])
        return Body()

    server = run(application)
    with httpx.stream("GET", f"http://127.0.0.1:{server.port}/", trust_env=False, timeout=PATIENCE) as response:
        parts = response.iter_raw()
        for number in range(3):
            assert next(parts) == b"%d\n" % number
            go.release()
    go.release(1000)
    assert closed.acquire(timeout=PATIENCE)


def test_faults_and_header_fields_of_two_lines_are_answered_with_500(run, caplog):
    def application(environ, start_response):
        if environ["PATH_INFO"].endswith("fault"):
            raise ValueError("broken")
        start_response("200 OK", [("X", "a\r\nSet-Cookie: b=c")])
        return [b""]

    class Unclosable(list):
        def close(self):
            raise ValueError("not closed")

    def closing(environ, start_response):
        if not environ["PATH_INFO"].endswith("close"):
            return application(environ, start_response)
        start_response("200 OK", [])
        return Unclosable([b"good"])

    server = run(closing)
    for path in ("/light/close", "/close") * THREADS * 2:
        assert server.get(path).text == "good"
    for path in ("/light/fault", "/light/lines", "/fault", "/lines") * 3:
        answer = server.get(path)
        assert (answer.status_code, answer.text) == (500, "The request could not be answered.\n")
        assert "set-cookie" not in answer.headers
    assert "broken" in caplog.text
    assert "not closed" in caplog.text


# Who waits for whom


def until(holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_light_requests_wait_for_no_others_and_share_their_ways(run):
    """All threads wait for the database; tokens are issued."""
    go, working, trips = threading.Event(), Counter(), []

    def exchange(commands):
        trips.append(len(commands))
        time.sleep(0.05)  # until the next ones have come
        return [command.upper() for command in commands]

    ways = RoundTrips(exchange)

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/light":
            replies = ways.ask(environ["QUERY_STRING"].encode()), ways.ask(b"again")
            start_response("200 OK", [])
            return [b" ".join(replies)]
        working[path] += 1
        go.wait(PATIENCE)
        start_response("200 OK", [])
        return [b"done"]

    server = run(application)
    assert bodies(server.say(b"GET /light?a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == [b"A AGAIN"]
    trips.clear()
    with ExitStack() as stack:
        heavy = [stack.enter_context(server.connect()) for _ in range(THREADS * 3)]
        for each in heavy:
            each.sendall(b"GET /heavy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until(lambda: working["/heavy"] == THREADS)
        light = [stack.enter_context(server.connect()) for _ in range(20)]
        for number, each in enumerate(light):
            each.sendall(b"GET /light?q%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % number)
        assert [bodies(heard(each)) for each in light] == [[b"Q%d AGAIN" % number] for number in range(20)]
        assert sum(trips) == 40
        assert len(trips) <= 12
        assert working["/heavy"] == THREADS
        go.set()
        assert {heard(each)[-4:] for each in heavy} == {b"done"}


def answers_at_once(server, names, stuck, go):
    """To requests that come while the loop is busy with one before them."""
    with ExitStack() as stack:
        first, *others = [stack.enter_context(server.connect()) for _ in range(1 + len(names))]
        first.sendall(b"GET /light HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert stuck.wait(PATIENCE)
        for name, each in zip(names, others, strict=True):
            each.sendall(f"GET /light?{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        go.set()
        return [bodies(heard(each))[0] for each in others]


def test_all_requests_of_a_turn_take_a_step_before_any_takes_the_next(run, monkeypatch):
    steps, batches, stuck, go = [], [], threading.Event(), threading.Event()

    class Signatures:
        def exchange(self, items):
            steps.append("signed")
            batches.append(sorted(items))
            return [item.upper() for item in items]

    signatures = Signatures()

    def application(environ, start_response):
        start_response("200 OK", [])
        item = environ["QUERY_STRING"].encode()
        steps.append("begun")
        afterwards(lambda _: steps.append("told"), item) if item == b"a" else None
        if not item:
            stuck.set()
            go.wait(PATIENCE)
            steps.clear()
            return [b""]
        signature = loop().ask(signatures, item)
        steps.append("gone on")
        return [signature]

    def noted(kind, name, step):
        method = getattr(kind, name)

        def note(*args, **options):
            steps.append(step)
            return method(*args, **options)

        monkeypatch.setattr(kind, name, note)

    noted(Connection, "receive", "read")
    noted(HttpServer, "_send", "sent")

    server = run(application)
    assert answers_at_once(server, "abcdefgh", stuck, go) == [name.encode() for name in "ABCDEFGH"]
    until(lambda: "told" in steps)
    assert batches == [[name.encode() for name in "abcdefgh"]]
    assert steps == ["sent", *["read"] * 8, *["begun"] * 8, "signed", *["gone on"] * 8, *["sent"] * 8, "told"]


def test_what_may_wait_is_done_for_all_when_they_have_their_answers(run, caplog):
    told, stuck, go, answered = [], threading.Event(), threading.Event(), threading.Event()

    def tell(items):
        if len(items) > 1:
            assert answered.wait(PATIENCE)
        told.append((sorted(items), threading.current_thread()))
        if items == ["fault"]:
            raise ValueError("broken")

    def application(environ, start_response):
        start_response("200 OK", [])
        name = environ["QUERY_STRING"]
        if not name:
            stuck.set()
            go.wait(PATIENCE)
        afterwards(tell, name)
        return [name.encode()]

    server = run(application)
    assert answers_at_once(server, "abcdefgh", stuck, go) == [name.encode() for name in "abcdefgh"]
    answered.set()
    assert server.get("/light?fault").text == "fault"
    assert server.get("/heavy?thread").text == "thread"  # told before the answer
    until(lambda: len(told) == 4)
    assert [names for names, _ in told] == [[""], list("abcdefgh"), ["fault"], ["thread"]]
    assert [thread is server.thread for _, thread in told] == [True, True, True, False]
    assert "what follows an answer could not be done" in caplog.text


def test_what_a_trip_raises_each_of_its_requests_raises_and_the_loop_waits_for_it_once(run):
    is_well, threads = True, set()

    def exchange(commands):
        threads.add(threading.current_thread())
        time.sleep(0.05)
        if is_well:
            return commands
        raise redis.TimeoutError("too late")

    ways = RoundTrips(exchange)

    def application(environ, start_response):
        try:
            ways.ask(b"q")
        except redis.TimeoutError as error:
            start_response("503 Service Unavailable", [])
            return [str(error).encode()]
        start_response("200 OK", [])
        return [b"in time"]

    def answers():
        threads.clear()
        with ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in range(5)]
            for each in connections:
                each.sendall(b"GET /light HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            found = [heard(each) for each in connections]
        return {(*statuses(each), each.rpartition(b"\n")[2]) for each in found}

    server = run(application)
    assert server.get("/light").status_code == 200
    assert server.thread not in threads  # the first one may have to connect
    assert answers() == {(200, b"in time")}
    assert threads == {server.thread}
    is_well = False
    assert {status for status, _ in answers()} == {503}
    assert server.thread in threads
    # Now it is known to be away, and the loop doesn't wait for it.
    assert {status for status, _ in answers()} == {503}
    assert server.thread not in threads
    is_well = True
    assert server.get("/light").status_code == 200
    assert answers() == {(200, b"in time")}
    assert server.thread in threads


def test_who_has_to_wait_elsewhere_holds_nobody_up(run):
    go, waiting = threading.Event(), Counter()

    def slowly():
        assert loop() is None
        waiting["there"] += 1
        go.wait(PATIENCE)
        return threading.current_thread().name

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        name = elsewhere(slowly) if path.endswith("slow") else threading.current_thread().name
        if path.endswith("fault"):
            elsewhere(lambda: {}["nothing"])
        start_response("200 OK", [])
        return [name.encode()]

    server = run(application)
    with ExitStack() as stack:
        most = THREADS * ERRANDS_FOR_EACH
        slow = [stack.enter_context(server.connect()) for _ in range(most * 2)]
        for each in slow:
            each.sendall(b"GET /light/slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until(lambda: waiting["there"] == most)
        assert server.get("/light").text == server.thread.name
        assert server.get("/heavy").text == "http 1"
        go.set()
        names = {heard(each).rpartition(b"\n")[2] for each in slow}
    assert names <= {b"errands %d" % number for number in range(1, most + 1)}
    assert waiting["there"] == most * 2
    assert server.get("/light/fault").status_code == 500
    assert server.get("/slow").text.startswith("http ")  # who has a thread waits there


def test_who_waits_for_long_has_a_thread_of_its_own(run):
    go, count = threading.Event(), Counter()

    def patient(environ, start_response):
        count["waiting"] += 1
        go.wait(PATIENCE)
        return told(environ, start_response)

    server = run(may_wait=lambda e: e["PATH_INFO"] == "/wait", waiting=patient)
    with ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(THREADS * 4)]
        for each in waiting:
            each.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until(lambda: count["waiting"] == len(waiting))
        assert server.get("/heavy").status_code == 200
        go.set()
        assert {tuple(statuses(heard(each))) for each in waiting} == {(200,)}


def test_in_turn():
    most, now, lock = 0, 0, threading.Lock()

    def application(_environ, _start_response):
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        raise ValueError

    answer = in_turn(application, THREADS)

    def ask():
        with pytest.raises(ValueError):
            answer({}, None)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == THREADS


# Who comes and goes


def test_connections_past_the_bound_wait_for_a_place(run):
    server = run(limits=LIMITS._replace(connections=4))
    with ExitStack() as stack:
        first = [stack.enter_context(server.connect()) for _ in range(4)]
        for each in first:
            each.sendall(b"GET /light HTTP/1.1\r\nHost: x\r\n\r\n")
            assert each.recv(1000).startswith(b"HTTP/1.1 200 ")
        late = stack.enter_context(server.connect())
        late.sendall(LAST)
        late.settimeout(0.5)
        with pytest.raises(TimeoutError):
            late.recv(1)
        late.settimeout(PATIENCE)
        first[0].close()
        assert statuses(heard(late)) == [200]


def test_silence_ends_a_connection_before_its_first_request_and_after_one(run):
    server = run(limits=LIMITS._replace(idle_seconds=1))
    with server.connect() as silent, server.connect() as idle:
        idle.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(heard(idle)) == [200]
        assert heard(silent) == b""


def test_empty_lines_are_silence(run):
    """RFC 9112 section 2.2: some may come before a request."""
    server = run(limits=LIMITS._replace(idle_seconds=1))
    with server.connect() as connection:
        deadline = time.monotonic() + PATIENCE
        with suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(b"\r\n")
                time.sleep(0.1)
        assert time.monotonic() < deadline


def test_a_request_that_drips_is_told_that_it_is_late(run):
    server = run(limits=LIMITS._replace(request_seconds=1))
    with server.connect() as dripping:
        dripping.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
        dripping.settimeout(0.1)
        answer, deadline = b"", time.monotonic() + PATIENCE
        while not answer and time.monotonic() < deadline:
            dripping.sendall(b"x")
            with suppress(TimeoutError):
                answer = dripping.recv(1000)
        assert statuses(answer) == [408]
        dripping.settimeout(PATIENCE)
        assert heard(dripping) == b""


def test_half_a_request_behind_one_that_is_being_answered_is_not_late(run):
    """It isn't read meanwhile, and a word about it would stand in the middle of the answer."""

    def application(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/next":
            return [b"next"]
        return (time.sleep(0.5) or b"%d," % number for number in range(6))

    server = run(application, limits=LIMITS._replace(request_seconds=1))
    with server.connect() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\n")
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            more = connection.recv(1000)
            assert more
            answer += more
        connection.sendall(b"Host: x\r\nConnection: close\r\n\r\n")
        assert statuses(answer) == [200]
        assert bodies(heard(connection)) == [b"next"]


def test_who_does_not_read_is_left_alone_with_it(run, monkeypatch):
    from tokenserver.cli import http_server

    monkeypatch.setattr(http_server, "SEND_SECONDS", 1.0)
    server = run(lambda _, start: [start("200 OK", []), [b"x" * 30_000_000]][1])
    with server.connect() as deaf:
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.http._connections)
        until(lambda: not server.http._connections)
        assert len(heard(deaf)) < 30_000_000


def test_who_goes_before_the_answer_costs_nobody_anything(run):
    go = threading.Event()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            go.wait(PATIENCE)
        return told(environ, start_response)

    server = run(application)
    for _ in range(5):
        with server.connect() as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: len(server.http._connections) == 5)
    go.set()
    until(lambda: not server.http._connections)
    assert server.get("/light").status_code == 200


def test_what_had_begun_is_finished_before_the_end(run):
    go, begun = threading.Event(), threading.Event()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            begun.set()
            go.wait(PATIENCE)
        return told(environ, start_response)

    server = run(application)
    with server.connect() as idle, server.connect() as slow, server.connect() as half:
        for each in (idle, half):
            each.sendall(b"GET /light HTTP/1.1\r\nHost: x\r\n\r\n")
            each.recv(1000)
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        half.sendall(b"POST /light HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        assert begun.wait(PATIENCE)
        until(lambda: any(each.since for each in server.http._connections.values()))
        server.http.stop()
        assert heard(idle) == b""
        until(lambda: not server.is_listening())
        half.sendall(b"llo")
        go.set()
        assert bodies(heard(half)) == [b"POST /light? hello"]
        assert bodies(heard(slow)) == [b"GET /slow? "]
    server.thread.join(PATIENCE)
    assert not server.thread.is_alive()


def test_who_waits_in_the_kernel_at_the_end_is_answered(run):
    go, begun = threading.Event(), threading.Event()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/light/slow":  # nobody is let in meanwhile
            begun.set()
            go.wait(PATIENCE)
        return told(environ, start_response)

    server = run(application)
    with server.connect() as slow, server.connect() as late:
        slow.sendall(b"GET /light/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(PATIENCE)
        late.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        with server.connect() as later:
            later.sendall(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
            server.http.stop()
            go.set()
            assert [bodies(heard(each)) for each in (slow, late, later)] == [
                [b"GET /light/slow? "],
                [b"GET /late? "],
                [b"GET /later? "],
            ]


def test_a_fault_of_our_own_ends_one_connection(run, monkeypatch, caplog):
    from tokenserver.cli.http_connection import Connection

    receive = Connection.receive

    def broken(connection, data):
        if b"broken" in data:
            raise KeyError("ours")
        receive(connection, data)

    monkeypatch.setattr(Connection, "receive", broken)
    server = run()
    with server.connect() as other:
        assert server.say(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        other.sendall(LAST)
        assert statuses(heard(other)) == [200]
    assert "ours" in caplog.text


def test_the_end_waits_for_nobody_for_ever(run):
    go = threading.Event()
    server = run(lambda e, s: (go.wait(PATIENCE), told(e, s))[1], limits=LIMITS._replace(finish_seconds=1))
    with server.connect() as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.http._connections)
        server.stop()
    go.set()


def test_who_drains_closes_behind_each_answer(run):
    server = run(is_draining=lambda: True)
    answer = server.say(b"GET /light HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)
    assert statuses(answer) == [200]
    assert b"Connection: close" in answer


def test_many_connections_at_once(run):
    """More than are looked at together."""
    server = run(limits=LIMITS._replace(connections=500))
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(TOGETHER * 4)]
        for number, each in enumerate(connections):
            each.sendall(
                b"GET /%b%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (b"light" * (number % 2), number)
            )
        assert {tuple(statuses(heard(each))) for each in connections} == {(200,)}
