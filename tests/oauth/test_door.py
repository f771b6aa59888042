"""The door in front of Flask answers like Flask itself, but for the order of header fields (RFC 9110 section 5.3),
and Flask isn't asked where it needn't be.
"""

import re
from base64 import b64encode
from contextlib import contextmanager

import pytest
from sqlalchemy import select
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Response

from tests.conftest import PASSWORD
from tokenserver.app import rooms_of
from tokenserver.audit.events import Event
from tokenserver.audit.models import AuditEvent
from tokenserver.oauth.endpoints.door import ACCEPTED, DOCUMENTS, ROWS, Door
from tokenserver.signals import metrics, traces
from tokenserver.signals.instruments import REGISTRY
from tokenserver.web.request_context import current

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

PAGE = "https://app.example"
FORM = "application/x-www-form-urlencoded"
PUBLIC = sorted(each.removeprefix("GET ") for each in DOCUMENTS)
JWKS = "/.well-known/jwks.json"
# Each answer has its own: tokens, moments, and what is left of a limit at this moment.
OWN = re.compile(r'eyJ[\w.-]+|rt_[\w-]+|"(?:exp|iat)": \d+|(?<=r=)\d+(;t=\d+)?')


@pytest.fixture
def secret(rooms):
    row, secret = rooms.clients.create(
        client_id="web",
        client_name="Web",
        grant_types=["client_credentials", "authorization_code", "refresh_token"],
        response_types=["code"],
        redirect_uris=[f"{PAGE}/cb"],
        scope=["openid", "posts:create", "tokens:introspect"],
    )
    return b64encode(f"{row.client_id}:{secret}".encode()).decode()


@pytest.fixture
def token(api):
    return api.signed_in()["access_token"]


@pytest.fixture
def ask(app):
    """By the door, or by what is behind it."""
    door = app.wsgi_app
    assert isinstance(door, Door)
    clients = {True: Client(door, Response), False: Client(type(app).wsgi_app.__get__(app), Response)}

    def ask(*args, by_door=True, **options):
        options.setdefault("headers", {})["X-Request-ID"] = "id-of-this-test"
        response = clients[by_door].open(*args, **options)
        assert int(response.headers.get("Content-Length", 0)) >= len(response.data)
        return told(response.status, response.headers, response.text)

    return ask


def events(rooms):
    """All that are in the log, in their order."""
    rooms.trail.drain_all()
    columns = (AuditEvent.event, AuditEvent.outcome, AuditEvent.reason, AuditEvent.client_id, AuditEvent.path)
    query = select(*columns).where(AuditEvent.path.is_not(None)).order_by(AuditEvent.at)
    return [tuple(str(each) for each in row) for row in rooms.database.read(lambda tx: tx.execute(query).all())]


def told(status, fields, text):
    fields = [(name, OWN.sub("…", value)) for name, value in fields if name != "Content-Length"]
    return status, sorted(fields), OWN.sub("…", text)


def said(answer):
    kept, fields, body = answer
    return told(kept.status, [*kept.fields, *fields], body.decode())


@pytest.fixture
def usual(app):
    """What `ask` is asked, for the HTTP server to answer again and again."""

    def usual(*args, headers=None, **options):
        headers = {"X-Request-ID": "id-of-this-test"} | (headers or {})
        return app.wsgi_app.usual(EnvironBuilder(*args, headers=headers, **options).get_environ())

    return usual


@pytest.fixture
def dispatched(app, monkeypatch):
    """How often Flask dispatched."""
    calls = []
    dispatch = app.full_dispatch_request
    monkeypatch.setattr(app, "full_dispatch_request", lambda: calls.append(1) or dispatch())
    return calls


@contextmanager
def quiet(calls):
    calls.clear()
    yield
    assert not calls


def form(data, **headers):
    return {"method": "POST", "data": data, "content_type": FORM, "headers": headers}


USUAL = {
    "client_credentials": ("/oauth/token", "grant_type=client_credentials"),
    "with a scope": ("/oauth/token", "grant_type=client_credentials&scope=posts%3Acreate"),
    "introspection": ("/oauth/introspect", "token={token}"),
    "introspection of nothing": ("/oauth/introspect", "token=nothing"),
    "revocation of nothing": ("/oauth/revoke", "token=nothing"),
}


@pytest.mark.parametrize("origin", [None, PAGE, "https://other.example"])
@pytest.mark.parametrize("name", USUAL)
def test_successes_are_flasks_answers(ask, dispatched, secret, token, name, origin):
    path, data = USUAL[name]
    headers = {"Authorization": f"Basic {secret}"} | ({"Origin": origin} if origin else {})
    data = data.format(token=token)
    behind = ask(path, by_door=False, **form(data, **headers))
    assert behind[0] == "200 OK"
    with quiet(dispatched):
        assert ask(path, **form(data, **headers)) == behind


REFUSED = {
    "wrong secret": ("/oauth/token", "grant_type=client_credentials", {"Authorization": "Basic d2ViOng="}),
    "no client": ("/oauth/token", "grant_type=client_credentials", {}),
    "no grant type": ("/oauth/token", "scope=x", {"Authorization": "Basic {secret}"}),
    "unknown grant": ("/oauth/token", "grant_type=x", {"Authorization": "Basic {secret}"}),
    "repeated": ("/oauth/token", "grant_type=x&grant_type=x", {"Authorization": "Basic {secret}"}),
    "NUL": ("/oauth/token", "grant_type=%00", {"Authorization": "Basic {secret}"}),
    "beyond its scope": (
        "/oauth/token",
        "grant_type=client_credentials&scope=users%3Aread",
        {"Authorization": "Basic {secret}", "Origin": PAGE},
    ),
    "a made-up refresh token": ("/oauth/token", "grant_type=refresh_token&refresh_token=rt_x", {}),
    "no token": ("/oauth/introspect", "x=y", {"Authorization": "Basic {secret}"}),
    "public introspection": ("/oauth/introspect", "token=x&client_id=first-party", {}),
    "wrong method of authentication": ("/oauth/revoke", "token=x&client_id=web", {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_flasks_answers_and_events(ask, dispatched, secret, rooms, name):
    path, data, headers = REFUSED[name]
    headers = {key: value.format(secret=secret) for key, value in headers.items()}
    behind = ask(path, by_door=False, **form(data, **headers))
    assert behind[0][0] == "4"
    recorded = events(rooms)
    assert recorded or behind[0].startswith("400 ")  # of those, some deny nothing
    with quiet(dispatched):
        assert ask(path, **form(data, **headers)) == behind
    assert events(rooms) == recorded * 2


@pytest.mark.parametrize(
    "unusual",
    [
        {"method": "GET"},
        {"method": "HEAD"},
        {"method": "OPTIONS", "headers": {"Origin": PAGE}},
        {"query_string": "grant_type=client_credentials"},
        {"content_type": "application/json"},
        {"data": "x" * 70_000},
        {"data": ""},
        {"headers": {"Host": "a b"}},
        {"headers": {"Accept": "text/html"}},
        {"environ_overrides": {"PATH_INFO": "//oauth/token"}},
        {"environ_overrides": {"CONTENT_LENGTH": "+29"}},
    ],
    ids=lambda each: " ".join(f"{key} {str(value)[:20]}" for key, value in each.items()),
)
def test_what_is_unusual_is_left_to_flask(ask, unusual):
    request = {"method": "POST", "data": "grant_type=client_credentials", "content_type": FORM} | unusual
    assert ask("/oauth/token", by_door=False, **request) == ask("/oauth/token", **request)


PROTECTED = ("/users/me", "/oauth/userinfo")


@pytest.mark.parametrize("path", PROTECTED)
def test_what_a_token_opens_is_flasks_answer(ask, dispatched, api, path):
    api.register()
    form = {"grant_type": "password", "client_id": "first-party", "username": "ann", "password": PASSWORD}
    bearer = {"Authorization": f"Bearer {api.token(**form, scope='openid email').json['access_token']}"}
    behind = ask(path, by_door=False, headers=dict(bearer))
    assert behind[0] == "200 OK"
    assert "ann@example.org" in behind[2]
    with quiet(dispatched):
        assert ask(path, headers=dict(bearer)) == behind


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize("header", [None, "Basic eDp5", "Bearer", "Bearer x y", "Bearer x.y.z", "own", "narrow"])
def test_what_a_token_does_not_open_neither(ask, dispatched, api, confidential, rooms, path, header):
    if header == "own":  # a client's own token has no user
        header = f"Bearer {api.token(confidential, grant_type='client_credentials').json['access_token']}"
    elif header == "narrow":
        header = f"Bearer {api.signed_in()['access_token']}"
        if path == "/users/me":
            rooms.feed.change(lambda tx, change: change.note("everything"))
    headers = {} if header is None else {"Authorization": header}
    behind = ask(path, by_door=False, headers=dict(headers))
    assert behind[0][0] == "4"
    with quiet(dispatched):
        assert ask(path, headers=dict(headers)) == behind


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize(
    "unusual", [{"query_string": "access_token=x"}, {"data": "access_token=x"}, {"method": "PATCH"}]
)
def test_tokens_elsewhere_are_left_to_flask(ask, path, unusual):
    assert ask(path, by_door=False, **unusual) == ask(path, **unusual)


@pytest.mark.parametrize("name", [*USUAL, *PROTECTED, *PUBLIC])
def test_what_is_usual_is_answered_again_and_again_without_being_read(ask, usual, dispatched, api, secret, name):
    api.register()
    signed_in = {"grant_type": "password", "client_id": "first-party", "username": "ann", "password": PASSWORD}
    token = api.token(**signed_in, scope="openid").json["access_token"]
    path, data = USUAL.get(name, (name, None))
    request = {"headers": {"Authorization": f"Bearer {token}"}}
    if data is not None:
        request = form(data.format(token=token), Authorization=f"Basic {secret}")
    first = ask(path, **request)  # a document is Flask's the first time
    assert first[0] == "200 OK"
    asked = usual(path, **request)
    with quiet(dispatched):
        assert [said(asked.answer()) for _ in range(3)] == [first] * 3
    assert asked.is_read


@pytest.mark.parametrize("name", ["repeated", "NUL"])
def test_what_can_not_be_read_is_refused(ask, usual, secret, name):
    path, data, headers = REFUSED[name]
    request = form(data, **{key: value.format(secret=secret) for key, value in headers.items()})
    asked = usual(path, **request)
    assert said(asked.answer()) == ask(path, by_door=False, **request)
    assert not asked.is_read


def test_what_is_usual_is_decided_anew(usual, secret, rooms):
    asked = usual("/oauth/token", **form("grant_type=client_credentials", Authorization=f"Basic {secret}"))
    assert said(asked.answer())[0] == "200 OK"
    rooms.feed.change(lambda tx, change: rooms.clients.rotate_secret(tx, change, "web"))
    for _ in range(2):
        status, fields, body = said(asked.answer())
        assert status == "401 UNAUTHORIZED"
        assert ("X-Request-ID", "id-of-this-test") in fields
        assert "invalid_client" in body


@pytest.mark.parametrize("accept", sorted(ACCEPTED))
def test_whatever_the_usual_clients_accept_is_usual(ask, dispatched, secret, accept):
    headers = {"Authorization": f"Basic {secret}", "Accept": accept}
    behind = ask("/oauth/token", by_door=False, **form("grant_type=client_credentials", **headers))
    with quiet(dispatched):
        assert ask("/oauth/token", **form("grant_type=client_credentials", **headers)) == behind


def test_a_body_that_ends_too_early_is_refused(ask):
    cut = form("grant_type=client_credentials") | {"environ_overrides": {"CONTENT_LENGTH": "200"}}
    assert ask("/oauth/token", by_door=False, **cut) == ask("/oauth/token", **cut)


@pytest.mark.parametrize("path", PUBLIC)
def test_documents_are_kept_until_the_ring_changes(app, ask, dispatched, path):
    first = ask(path, by_door=False)
    assert ask(path) == first
    tag = dict(first[1])["ETag"]
    unchanged = ask(path, by_door=False, headers={"If-None-Match": tag})
    assert unchanged[0] == "304 NOT MODIFIED"
    assert ask(path, headers={"If-None-Match": tag}) == unchanged
    with quiet(dispatched):
        assert ask(path) == first
        assert ask(path, headers={"If-None-Match": tag}) == unchanged
    for headers in ({"If-None-Match": '"x"'}, {"If-None-Match": f'W/{tag}, "x"'}, {"Accept": "text/html"}):
        assert ask(path, headers=dict(headers)) == ask(path, by_door=False, headers=dict(headers))
    assert len(app.wsgi_app._documents) == 2  # nothing that a caller made up


@pytest.fixture
def at_once(ask, usual, rooms):
    """What is kept for who asks for a document: its answer while somebody else looks for new keys."""

    def at_once(path=JWKS, **headers):
        ask(path, headers=dict(headers))
        rooms.keys._is_looking = True
        asked = usual(path, headers=headers)
        return lambda: asked.at_once(lambda *_: None)

    return at_once


@pytest.mark.parametrize("path", PUBLIC)
def test_a_document_is_there_at_once(ask, at_once, path):
    tag = dict(ask(path)[1])["ETag"]
    for headers in ({}, {"If-None-Match": tag}):
        assert said(at_once(path, **headers)()) == ask(path, by_door=False, headers=dict(headers))


def test_who_names_no_request_gets_a_new_id_each_time(at_once):
    again = at_once(**{"X-Request-ID": ""})
    names = {dict(again().fields)["X-Request-ID"] for _ in range(5)}
    assert len(names) == 5
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in names)


def test_a_document_at_once_is_told_in_log_and_metrics_as_any_other(ask, usual, rooms, caplog):
    caplog.set_level("INFO", "tokenserver.request")

    def counted():
        REGISTRY.settle()
        labels = {"endpoint": JWKS, "method": "GET", "status": metrics.CLASSES[2]}
        return REGISTRY.of_process().get_sample_value("tokenserver_requests_total", labels)

    ask(JWKS)
    ask(JWKS)
    before, lines, later = counted(), len(caplog.messages), []
    rooms.keys._is_looking = True
    asked = usual(JWKS)
    for _ in range(2):
        assert asked.at_once(lambda *what: later.append(what))
    assert counted() == before
    for handle, item in later:
        handle([item])
    assert counted() == before + 2
    *others, first, second, third = [re.sub(r"[\d.]+ms", "", line) for line in caplog.messages]
    assert len(others) == lines - 1
    assert first == second == third


def test_no_document_is_there_at_once_where_somebody_has_to_look_for_keys(at_once, rooms):
    again = at_once()
    assert again()
    rooms.keys._is_looking = False
    rooms.keys._looked_at = 0
    assert again() is None


def test_no_document_is_there_at_once_that_new_keys_are_missing_in(apps, tmp_path):
    app = apps(keys_dir=tmp_path / "keys")
    rooms = rooms_of(app)
    rooms.ensure_keys()
    app.test_client().get(JWKS)
    rooms.keys._is_looking = True
    asked = app.wsgi_app.usual(EnvironBuilder(JWKS).get_environ())
    assert asked.at_once(lambda *_: None)
    rooms.keys.rotate(emergency=True)
    assert asked.at_once(lambda *_: None) is None


def test_a_document_at_once_is_traced_as_any_other(at_once, monkeypatch):
    spans = []
    monkeypatch.setattr(traces, "request", lambda *said: spans.append(Span(said)) or spans[-1])
    again = at_once(traceparent="00-a")
    del spans[:]
    assert again()
    (span,) = spans
    assert span.said == (f"GET {JWKS}", "00-a")
    assert span.attributes["http.response.status_code"] == 200


class Span:
    def __init__(self, said):
        self.said = said

    def end(self, attributes, *, failed):
        self.attributes = attributes


def test_new_keys_are_in_the_next_document(apps, tmp_path):
    app = apps(keys_dir=tmp_path / "keys")
    rooms = rooms_of(app)
    rooms.ensure_keys()
    http = app.test_client()
    before = [http.get("/.well-known/jwks.json").json for _ in range(2)]
    rooms.keys.rotate(emergency=True)
    after = http.get("/.well-known/jwks.json").json
    assert before[0] == before[1] != after
    assert after == rooms.keys.jwks()


def test_the_wrong_clock_decides_nothing_here_either(ask, dispatched, rooms, secret):
    rooms.clock._fault = "wrong"
    request = form("grant_type=client_credentials", Authorization=f"Basic {secret}")
    behind = ask("/oauth/token", by_door=False, **request)
    assert behind[0] == "503 SERVICE UNAVAILABLE"
    with quiet(dispatched):
        assert ask("/oauth/token", **request) == behind


def test_a_sign_in_by_the_grant_leaves_the_same_events(ask, api, rooms):
    api.register()
    data = f"grant_type=password&client_id=first-party&username=ann&password={PASSWORD.replace(' ', '+')}"
    before = events(rooms)
    behind = ask("/oauth/token", by_door=False, **form(data))
    assert behind[0] == "200 OK"
    recorded = events(rooms)[len(before) :]
    assert "token:issued" in [event for event, *_ in recorded]
    assert ask("/oauth/token", **form(data)) == behind
    assert sorted(events(rooms)[len(before) :]) == sorted(recorded * 2)


def test_what_happens_on_the_way_to_a_success_is_recorded(usual, rooms, monkeypatch):
    def answer(server, said):
        current().events.append(rooms.trail.describe(Event.LOGIN_FAILED, outcome="denied", reason="on the way"))
        return b"{}", "application/json"

    row = ROWS["GET /users/me"]
    monkeypatch.setitem(ROWS, "GET /users/me", row._replace(read=lambda *_: "said", answer=answer))
    assert said(usual("/users/me").answer())[0] == "200 OK"
    assert [reason for _, _, reason, *_ in events(rooms)] == ["on the way"]
