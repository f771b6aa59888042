"""The load generator, as a process of its own, against a server that counts."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.measuring import send
from benchmarks.plans import request_text


class Counting(BaseHTTPRequestHandler):
    """Knows what was asked. /token spends the token in the body for the next one; /busy is free the second time."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with self.server.lock:
            self.server.asked[self.path, body] += 1
            is_first = self.server.asked[self.path, body] == 1
        status, text = 200, "{}"
        if self.path == "/token":
            text = f'{{"access_token": "at{body[2:]}", "refresh_token": "rt{int(body[2:]) + 1}"}}'
        elif self.path == "/busy" and is_first:
            status = 503
        elif self.path == "/missing":
            status = 404
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer  # noqa: N815 - names of the base class

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as made:
        made.lock, made.asked, made.port = threading.Lock(), Counter(), made.server_address[1]
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_the_same_request_until_there_were_enough(server):
    plan = {"kind": "fixed", "requests": [request_text("GET", "/", {})], "connections": 3, "most": 50}
    outcome = send(server.port, plan, 30)
    assert (outcome["answers"], outcome["statuses"]) == (50, {"200": 50})
    assert server.asked["/", ""] == 50
    assert outcome["elapsed_s"] < 30


def test_it_ends_when_the_time_is_over(server):
    plan = {"kind": "fixed", "requests": [request_text("GET", "/", {})], "connections": 1}
    outcome = send(server.port, plan, 0.2)
    assert outcome["elapsed_s"] >= 0.2
    assert outcome["answers"] == server.asked["/", ""] > 0


def test_each_of_a_queue_is_sent_once(server):
    requests = [request_text("POST", "/", {}, f"n{number}") for number in range(20)]
    outcome = send(server.port, {"kind": "queue", "requests": requests, "connections": 4}, 30)
    assert (outcome["answers"], outcome["left"]) == (20, 0)
    assert server.asked == {("/", f"n{number}"): 1 for number in range(20)}


def test_a_chain_goes_on_with_what_it_was_answered_and_tells_where_it_is(server):
    head, _, _ = request_text("POST", "/token", {}).partition("Content-Length")
    plan = {"kind": "chain", "head": head, "body": "", "member": "refresh_token", "tokens": ["rt0", "rt1000"]}
    outcome = send(server.port, plan | {"connections": 2, "most": 20, "collect": '"access_token":'}, 30)
    steps = [int(outcome["tokens"][0][2:]), int(outcome["tokens"][1][2:]) - 1000]
    assert sum(steps) == 20
    assert max(server.asked.values()) == 1
    assert sorted(outcome["collected"]) == sorted(f"at{body[2:]}" for _, body in server.asked)


def test_what_is_refused_for_now_is_asked_again(server):
    plan = {"kind": "fixed", "requests": [request_text("GET", "/busy", {})], "connections": 1, "most": 3}
    assert send(server.port, plan, 30)["statuses"] == {"503": 1, "200": 2}


def test_other_answers_are_told(server):
    plan = {"kind": "fixed", "requests": [request_text("GET", "/missing", {})], "connections": 1, "most": 2}
    assert send(server.port, plan, 30)["statuses"] == {"404": 2}
