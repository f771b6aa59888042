"""A verifier that follows the issuer's revocation list: what it refuses, and what it doesn't believe."""

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joserfc.jws import JWSRegistry

from tests.verify.conftest import ISSUER, NOW, Clock, KeyServer, as_json, b64
from tokenserver.verify import (
    JWKSKeys,
    Revocations,
    RevocationsUnavailable,
    StaticKeys,
    TokenError,
    Unavailable,
    Verifier,
)
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.list_token import read_list, to_json
from tokenserver.verify.pace import SPACING
from tokenserver.verify.revocation_list import RevocationList
from tokenserver.verify.revoked import COMMIT_MS, Revoked, digest

Mint = Callable[..., str]
PATH = "/list"
KEEP = 420  # seconds for which an issuer lists what was revoked
SID = digest("s1")


def ended(everything: int = 0, **sessions: int) -> dict[str, Any]:
    """The member `revoked`: the moments at which sessions ended."""
    return to_json(Revoked(session={digest(sid): at for sid, at in sessions.items()}, everything=everything))


class Issuer:
    """Publishes a list at a loopback address."""

    def __init__(self, server: KeyServer, key: Any) -> None:
        self.server = server
        self.uri = server.url + PATH
        self._key = key

    def token(self, header: dict[str, Any] = {}, **claims: Any) -> str:  # noqa: B006 - only read
        """`...` as a value leaves the member out."""
        iat = claims.get("iat", NOW)
        members = {
            "iss": ISSUER,
            "sub": self.uri,
            "iat": iat,
            "exp": iat + KEEP if isinstance(iat, int) else NOW + KEEP,
            "ttl": 10,
            "revoked": {},
            **claims,
        }
        if isinstance(members["revoked"], dict):
            members["revoked"] = to_json(Revoked()) | members["revoked"]
        members = {name: value for name, value in members.items() if value is not ...}
        head = {"alg": "RS256", "typ": "revocation-list+jwt", "kid": "rs", **header}
        signing_input = f"{b64(as_json(head))}.{b64(as_json(members))}"
        signature = JWSRegistry.algorithms["RS256"].sign(signing_input.encode(), self._key)
        return f"{signing_input}.{b64(signature)}"

    def publish(self, header: dict[str, Any] = {}, etag: str | None = None, **claims: Any) -> None:  # noqa: B006
        headers = {"ETag": etag} if etag else {}
        self.server.pages[PATH] = (200, headers, self.token(header, **claims).encode())


@pytest.fixture
def issuer(start_key_server: Callable[[], KeyServer], private_keys: dict[str, Any]) -> Issuer:
    return Issuer(start_key_server(), private_keys["rs"])


@pytest.fixture
def wall() -> Clock:
    clock = Clock()
    clock.now = NOW
    return clock


@pytest.fixture
def follow(issuer: Issuer, jwks: list[dict[str, Any]], wall: Clock) -> Iterator[Callable[..., RevocationList]]:
    """A list that is read when the test says so (`look`), unless it asks for its own thread (`interval`)."""
    made: list[RevocationList] = []

    def follow(**options: Any) -> RevocationList:
        given = {"interval": 100, "max_staleness": 120, **options}
        made.append(
            RevocationList(
                issuer=ISSUER, uri=issuer.uri, keys=StaticKeys(jwks), options=Revocations(**given), clock=wall
            )
        )
        return made[-1]

    yield follow
    for each in made:
        each.close()


@pytest.fixture
def claims_of(mint: Mint, verifier: Verifier) -> Callable[..., Any]:
    return lambda **claims: verifier.verify(mint(claims=claims))


def refused(revocations: RevocationList, claims: Any) -> bool:
    try:
        revocations.check(claims, "")
    except InvalidToken:
        return True
    return False


def started(revocations: RevocationList) -> RevocationList:
    """Its thread has looked once, and waits long; the test looks from here on."""
    revocations._start()
    assert revocations._first_look.wait(30)
    return revocations


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "revocation list"]


class TestWhatItKills:
    """Token: jti of version 7 of 0x0197b1c24b2f ms, session s1, client web."""

    issued = 0x0197B1C24B2F

    @pytest.mark.parametrize(
        ("kind", "subject"),
        [("session", "s1"), ("token", "0197b1c2-4b2f-7d54-8a53-1f2e3d4c5b6a"), ("family", "f1")],
    )
    def test_what_never_comes_back_is_dead_whenever_it_was_issued(
        self, claims_of: Callable[..., Any], kind: str, subject: str
    ) -> None:
        claims = claims_of(fam="f1")
        for at in (1, self.issued - 1, self.issued + 1):
            assert Revoked(**{kind: {digest(subject): at}}).hits(claims)
        assert not Revoked(**{kind: {digest("another"): self.issued + 1}}).hits(claims)

    @pytest.mark.parametrize("kind", ["token", "family", "client"])
    def test_kinds_are_kept_apart(self, claims_of: Callable[..., Any], kind: str) -> None:
        assert not Revoked(**{kind: {SID: self.issued + 1}}).hits(claims_of(fam="f1"))

    def test_client_by_the_moment(self, claims_of: Callable[..., Any]) -> None:
        """What was issued while the end of the client was being committed is dead too."""
        name, claims = digest("web"), claims_of()
        assert Revoked(client={name: self.issued}).hits(claims)
        assert Revoked(client={name: self.issued - COMMIT_MS}).hits(claims)
        assert not Revoked(client={name: self.issued - COMMIT_MS - 1}).hits(claims)
        assert not Revoked(client={digest("other"): self.issued}).hits(claims)

    def test_everything_by_the_moment(self, claims_of: Callable[..., Any]) -> None:
        for client in ({}, {digest("other"): self.issued + 1}):
            assert Revoked(client=client, everything=self.issued).hits(claims_of())
            assert not Revoked(client=client, everything=self.issued - 1).hits(claims_of())

    def test_subject_of_an_exchanged_token_that_is_nobodys(self, claims_of: Callable[..., Any]) -> None:
        revoked = Revoked(client={digest("machine"): self.issued})
        assert revoked.hits(claims_of(sub="machine", sid=...))
        assert not revoked.hits(claims_of(sub="machine"))  # a user who is called so

    def test_a_jti_without_a_moment(self, claims_of: Callable[..., Any]) -> None:
        claims = claims_of(jti="x")
        assert Revoked(everything=NOW * 1000).hits(claims)
        assert not Revoked(everything=NOW * 1000 - 1).hits(claims)


class TestTheSignedForm:
    def read(self, issuer: Issuer, jwks: list[dict[str, Any]], token: str) -> Any:
        return read_list(token, issuer=ISSUER, uri=issuer.uri, keys=StaticKeys(jwks), now=NOW, leeway=30)

    def test_a_good_one(self, issuer: Issuer, jwks: list[dict[str, Any]]) -> None:
        found = self.read(issuer, jwks, issuer.token(revoked=ended(s1=5, everything=7) | {"later": {}}))
        assert (found.iat, found.exp, found.ttl) == (NOW, NOW + KEEP, 10)
        assert found.revoked == Revoked(session={SID: 5}, everything=7)

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "https://other.example"},
            {"iss": ...},
            {"sub": "https://id.example/another-list"},
            {"sub": ...},
            {"iat": ...},
            {"iat": NOW + 31},
            {"iat": "1"},
            {"exp": ...},
            {"exp": NOW - 30},
            {"iat": NOW + 5, "exp": NOW + 5},
            {"ttl": ...},
            {"ttl": -1},
            {"revoked": ...},
            {"revoked": []},
            {"revoked": None},
            {"revoked": {"session": []}},
            {"revoked": {"session": {"ZXhhbXBsZQ": "1"}}},
            {"revoked": {"session": {"ZXhhbXBsZQ": True}}},
            {"revoked": {"session": {"é": 1}}},
            {"revoked": {"client": None}},
            {"revoked": {"everything": "1"}},
            {"revoked": {"everything": None}},
        ],
        ids=str,
    )
    def test_claims_that_are_wrong(
        self, issuer: Issuer, jwks: list[dict[str, Any]], claims: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidToken):
            self.read(issuer, jwks, issuer.token(**claims))

    @pytest.mark.parametrize(
        "header",
        [
            {"typ": "at+jwt"},
            {"typ": "statuslist+jwt"},
            {"typ": "JWT"},
            {"alg": "PS256"},
            {"alg": "none"},
            {"kid": "ps"},
            {"kid": "unknown"},
            {"crit": ["exp"]},
        ],
        ids=str,
    )
    def test_headers_that_are_wrong(
        self, issuer: Issuer, jwks: list[dict[str, Any]], header: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidToken):
            self.read(issuer, jwks, issuer.token(header))

    def test_another_signature(self, issuer: Issuer, jwks: list[dict[str, Any]]) -> None:
        whole, other = issuer.token(), issuer.token(revoked=ended(s1=NOW * 1000))
        for wrong in (whole.rpartition(".")[0] + "." + other.rpartition(".")[2], whole[:-1], "", "a.b.c"):
            with pytest.raises(InvalidToken):
                self.read(issuer, jwks, wrong)

    def test_an_access_token_is_no_list_and_a_list_no_access_token(
        self, issuer: Issuer, jwks: list[dict[str, Any]], mint: Mint, verifier: Verifier
    ) -> None:
        """RFC 8725 section 3.11: kinds of JWTs exclude each other."""
        with pytest.raises(InvalidToken):
            self.read(issuer, jwks, mint())
        with pytest.raises(InvalidToken):
            verifier.verify(issuer.token())


class TestFollowing:
    def test_revoked_is_refused_and_others_pass(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        issuer.publish(revoked=ended(s1=NOW * 1000))
        revocations = follow()
        assert refused(revocations, claims_of())
        assert not refused(revocations, claims_of(sid="s2"))

    def test_nothing_is_read_before_the_first_question(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        issuer.publish()
        revocations = follow()
        assert issuer.server.paths == []
        assert revocations.staleness is None
        revocations.check(claims_of(), "")
        assert issuer.server.paths == [PATH]
        assert revocations.staleness == 0

    def test_it_is_read_again_by_itself(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        issuer.publish()
        revocations = follow(interval=0.01)
        assert not refused(revocations, claims_of())
        issuer.publish(revoked=ended(s1=NOW * 1000))
        until(lambda: refused(revocations, claims_of()))

    def test_unchanged_costs_a_304(
        self,
        issuer: Issuer,
        follow: Callable[..., RevocationList],
        claims_of: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """RFC 9110 section 13.1.2; and nothing is fresher for it, as nobody signed it."""
        issuer.publish(etag='W/"a"', revoked=ended(s1=NOW * 1000))
        revocations = started(follow())
        known = revocations._known
        revocations.look()
        assert revocations._known is known
        assert refused(revocations, claims_of())
        assert not caplog.records

    def test_wrong_lists_change_nothing(
        self,
        issuer: Issuer,
        follow: Callable[..., RevocationList],
        claims_of: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        issuer.publish(revoked=ended(s1=NOW * 1000))
        revocations = started(follow())
        known = revocations._known
        wrong = [(200, {}, b""), (200, {}, "é".encode()), (503, {"Retry-After": "1"}, b"{}"), (404, {}, b"")]
        wrong += [(302, {"Location": issuer.uri}, b""), (200, {}, issuer.token(iss="https://x.example").encode())]
        for page in wrong:
            issuer.server.pages[PATH] = page
            revocations.look()
        assert revocations._known is known
        assert len(caplog.records) == len(wrong)

    def test_lists_only_add(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        """Rollback: whoever brings an old list, or a newer one that lacks something, unrevokes nothing."""
        issuer.publish(revoked=ended(s1=NOW * 1000))
        revocations = started(follow())
        for iat in (NOW - 60, NOW, NOW + 10):
            issuer.publish(iat=iat)
            revocations.look()
            assert refused(revocations, claims_of())

    def test_an_older_list_makes_nothing_fresher(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any], wall: Clock
    ) -> None:
        issuer.publish()
        revocations = started(follow())
        wall.now = NOW + 100
        issuer.publish(iat=NOW - 60, revoked=ended(s1=NOW * 1000))
        revocations.look()
        assert revocations.staleness == 100
        assert refused(revocations, claims_of())  # what it says is true all the same

    def test_what_is_too_old_to_matter_is_forgotten(
        self, issuer: Issuer, follow: Callable[..., RevocationList], wall: Clock
    ) -> None:
        issuer.publish(revoked=ended(s1=NOW * 1000))
        revocations = started(follow())
        for iat, left in ((NOW + KEEP - 1, 1), (NOW + KEEP, 0)):
            wall.now = iat
            issuer.publish(iat=iat)
            revocations.look()
            assert revocations._known
            assert len(revocations._known.revoked.session) == left

    def test_every_revocation_is_told_once_with_its_age(
        self, issuer: Issuer, follow: Callable[..., RevocationList], wall: Clock
    ) -> None:
        """But for those from before this process was there."""
        ages: list[float] = []
        issuer.publish(revoked=ended(s1=NOW * 1000 - 5000))
        revocations = started(follow(on_enforced=ages.append))
        assert ages == []
        wall.now = NOW + 3
        for everything in (0, (NOW + 2) * 1000):
            moments = ended(everything, s1=NOW * 1000 - 5000, s2=NOW * 1000 + 500)
            issuer.publish(iat=NOW + 3, revoked=moments)
            revocations.look()
            revocations.look()
        assert ages == [2.5, 1.0]

    def test_a_callback_that_fails_stops_nothing(
        self,
        issuer: Issuer,
        follow: Callable[..., RevocationList],
        claims_of: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(age: float) -> None:
            raise RuntimeError("metrics are away")

        issuer.publish()
        revocations = started(follow(on_enforced=fail))
        issuer.publish(revoked=ended(s1=NOW * 1000))
        revocations.look()
        assert refused(revocations, claims_of())
        assert "on_enforced failed" in caplog.text


class Holding:
    """A server that keeps its answers back."""

    def __init__(self, server: KeyServer) -> None:
        self.let = threading.Event()
        self.at_once, self.most_at_once = 0, 0
        self._server = server
        server.before = self._hold

    def _hold(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.let.wait(30)
        self.at_once -= 1

    def release(self) -> None:
        self.let.set()
        until(lambda: not self.at_once)
        self._server.before = lambda: None


class TestWaiting:
    """RFC 7240 section 4.3: at the issuer, for the next list."""

    def test_who_has_a_list_asks_to_wait_for_the_next(
        self, issuer: Issuer, follow: Callable[..., RevocationList], wall: Clock
    ) -> None:
        revocations = follow(interval=100)
        issuer.publish(etag='W/"a"')
        assert revocations.look() <= SPACING
        # It didn't let wait: asked again after the interval, not all readers at the same moment.
        assert 75 <= revocations.look() <= 100
        wall.now = NOW + 110  # what it has is good for ten seconds more
        revocations.look()
        wall.now = NOW + 119
        revocations.look()
        asked = [(sent["Prefer"], sent["If-None-Match"]) for sent in issuer.server.sent]
        tag = 'W/"a"'
        assert asked == [(None, None), ("wait=10", tag), ("wait=5", tag), (None, tag)]

    def test_news_come_by_the_request_that_waits(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        """Long before the interval is over; one request at a time."""
        issuer.publish(etag='W/"a"')
        ages: list[float] = []
        revocations = follow(interval=100, on_enforced=ages.append)
        assert not refused(revocations, claims_of())
        holding = Holding(issuer.server)
        until(lambda: holding.at_once)
        issuer.publish(etag='W/"b"', revoked=ended(s1=NOW * 1000))
        issuer.server.pages[PATH][1]["Preference-Applied"] = "wait=10"
        holding.release()
        until(lambda: refused(revocations, claims_of()))
        assert len(ages) == 1
        until(lambda: issuer.server.sent[-1]["If-None-Match"] == 'W/"b"')  # and it goes on
        assert holding.most_at_once == 1

    @pytest.mark.parametrize("honoured", [True, False])
    def test_after_news_it_goes_on_where_waiting_is_honoured(
        self, issuer: Issuer, follow: Callable[..., RevocationList], honoured: bool
    ) -> None:
        revocations = follow(interval=100)
        issuer.publish(etag='W/"a"')
        revocations.look()
        for number in range(1, 4):
            issuer.publish(etag=f'W/"{number}"', iat=NOW + number, ttl=1000)
            if honoured:
                issuer.server.pages[PATH][1]["Preference-Applied"] = "wait=10"
            pause = revocations.look()
            assert 0 <= pause <= SPACING if honoured else 75 <= pause <= 100
        # A cache that repeats what it once was answered makes nobody ask on and on.
        assert 75 <= revocations.look() <= 100

    def test_an_older_list_is_not_what_it_asks_by(
        self, issuer: Issuer, follow: Callable[..., RevocationList]
    ) -> None:
        """Of a node whose clock is behind: else two nodes would tell it news in turn."""
        revocations = follow(interval=100)
        for etag, iat in (('W/"a"', NOW), ('W/"older"', NOW - 10)):
            issuer.publish(etag=etag, iat=iat, ttl=1000)
            issuer.server.pages[PATH][1]["Preference-Applied"] = "wait=10"
            pause = revocations.look()
        assert pause >= 75
        revocations.look()
        assert issuer.server.sent[-1]["If-None-Match"] == 'W/"a"'

    def test_a_proxy_without_patience_is_asked_without(
        self, issuer: Issuer, follow: Callable[..., RevocationList], caplog: pytest.LogCaptureFixture
    ) -> None:
        """It refuses what waits. Every other look succeeds at first, then nearly all."""
        revocations = follow(interval=100)

        def refuse_to_wait() -> None:
            waits = issuer.server.sent[-1]["Prefer"]
            issuer.server.pages[PATH] = (504, {}, b"") if waits else (200, {"ETag": '"a"'}, issuer.token().encode())

        issuer.server.before = refuse_to_wait
        for _ in range(40):
            assert revocations.look() <= 100
        waits = [bool(sent["Prefer"]) for sent in issuer.server.sent]
        gaps = [len(gap) for gap in "".join(".w"[each] for each in waits).split("w")]
        assert gaps == [1, 1, 2, 4, 8, 16, 2]
        assert len(caplog.records) == sum(waits)
        issuer.server.before = lambda: None

    def test_an_answer_that_never_comes_is_given_up(
        self,
        issuer: Issuer,
        follow: Callable[..., RevocationList],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("tokenserver.verify.revocation_list.TIMEOUT", 0.2)
        monkeypatch.setattr("tokenserver.verify.pace.WAIT", 1)
        issuer.publish(etag='W/"a"')
        revocations = follow()
        revocations.look()
        holding = Holding(issuer.server)
        revocations.look()
        assert "timed out" in caplog.text
        holding.release()
        revocations.look()
        assert issuer.server.sent[-1]["Prefer"] is None

    def test_closed_while_it_waits(
        self, issuer: Issuer, follow: Callable[..., RevocationList], caplog: pytest.LogCaptureFixture
    ) -> None:
        """At once, though the answer doesn't come; and it may be asked again."""
        issuer.publish(etag='W/"a"')
        revocations = started(follow(interval=1))
        holding = Holding(issuer.server)
        until(lambda: holding.at_once)
        revocations.close()
        assert not readers()
        assert holding.at_once == 1
        assert not caplog.records
        holding.release()
        started(revocations)

    def test_let_go_while_it_waits(
        self, issuer: Issuer, jwks: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        issuer.publish(etag='W/"a"')
        revocations = RevocationList(
            issuer=ISSUER,
            uri=issuer.uri,
            keys=StaticKeys(jwks),
            options=Revocations(interval=0.5),
            clock=lambda: NOW,
        )
        started(revocations)
        holding = Holding(issuer.server)
        until(lambda: holding.at_once)
        del revocations
        gc.collect()
        until(lambda: not readers())
        assert holding.at_once == 1
        assert not caplog.records
        holding.release()

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_child_that_ends_leaves_its_parent_s_request_alone(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any], caplog: Any
    ) -> None:
        issuer.publish(etag='W/"a"')
        revocations = started(follow(interval=1))
        holding = Holding(issuer.server)
        until(lambda: holding.at_once)
        child = os.fork()
        if child == 0:
            revocations.close()
            weakref.finalize._exitfunc()  # type: ignore[attr-defined]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        issuer.publish(etag='W/"b"', revoked=ended(s1=NOW * 1000))
        holding.release()
        until(lambda: refused(revocations, claims_of()))
        assert not caplog.records


class TestNewKeys:
    def test_a_list_by_a_new_key_makes_the_keys_be_read_again(
        self, issuer: Issuer, key_server: KeyServer, jwks: list[dict[str, Any]], clock: Clock
    ) -> None:
        """After an emergency rotation: a reader loses the keys that were thrown away before they are old."""
        key_server.serve([key for key in jwks if key["kid"] != "rs"], Cache_Control="max-age=86400")
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("es")
        revocations = RevocationList(issuer=ISSUER, uri=issuer.uri, keys=keys, clock=lambda: NOW)
        issuer.publish()
        revocations.look()
        assert revocations.staleness is None
        key_server.serve([key for key in jwks if key["kid"] == "rs"])
        clock.now += 31
        revocations.look()
        assert revocations.staleness == 0
        assert keys.find("es") is None


class TestStaleness:
    def test_refused_when_there_never_was_a_list(
        self, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        with pytest.raises(RevocationsUnavailable) as caught:
            follow().check(claims_of(), "")
        assert caught.value.status == 503
        assert caught.value.headers() == {"Retry-After": "5", "Cache-Control": "no-store"}
        assert isinstance(caught.value, Unavailable)

    def test_bound(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any], wall: Clock
    ) -> None:
        issuer.publish(revoked=ended(s2=NOW * 1000))
        revocations = started(follow())
        issuer.server.pages.clear()
        wall.now = NOW + 120
        revocations.check(claims_of(), "")
        assert refused(revocations, claims_of(sid="s2"))
        wall.now = NOW + 120.1
        for sid in ("s1", "s2"):
            with pytest.raises(RevocationsUnavailable):
                revocations.check(claims_of(sid=sid), "")
        issuer.publish(iat=NOW + 120)
        revocations.look()
        revocations.check(claims_of(), "")

    def test_a_list_says_nothing_after_its_exp(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any], wall: Clock
    ) -> None:
        issuer.publish()
        revocations = started(follow(max_staleness=10_000))
        wall.now = NOW + KEEP
        revocations.check(claims_of(), "")
        wall.now = NOW + KEEP + 1
        with pytest.raises(RevocationsUnavailable):
            revocations.check(claims_of(), "")

    def test_introspection_takes_over(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any], wall: Clock
    ) -> None:
        asked: list[str] = []

        def introspect(token: str) -> bool:
            asked.append(token)
            return token == "alive"

        issuer.publish()
        revocations = follow(introspect=introspect)
        revocations.check(claims_of(), "dead")
        assert asked == []
        wall.now = NOW + 121
        revocations.check(claims_of(), "alive")
        with pytest.raises(InvalidToken):
            revocations.check(claims_of(), "dead")
        assert asked == ["alive", "dead"]

    @pytest.mark.parametrize(("interval", "max_staleness"), [(0, 60), (-1, 60), (60, 60), (5, 0)], ids=str)
    def test_bounds_that_make_no_sense(self, interval: float, max_staleness: float) -> None:
        with pytest.raises(ValueError):
            Revocations(interval=interval, max_staleness=max_staleness)


class TestItsThread:
    def test_one_however_many_ask_first(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        issuer.publish()
        issuer.server.before = lambda: time.sleep(0.02)
        revocations, claims = follow(), claims_of()
        asking = [threading.Thread(target=revocations.check, args=(claims, "")) for _ in range(8)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert issuer.server.paths == [PATH]
        assert len(readers()) == 1

    def test_no_request_waits_for_a_later_look(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        issuer.publish()
        revocations, claims = follow(interval=0.01), claims_of()
        revocations.check(claims, "")
        held, reading = threading.Event(), threading.Event()

        def hold() -> None:
            reading.set()
            held.wait(30)

        issuer.server.before = hold
        assert reading.wait(30)
        revocations.check(claims, "")  # while somebody reads
        held.set()

    def test_it_ends_with_its_list(self, issuer: Issuer, jwks: list[dict[str, Any]], claims_of: Any) -> None:
        """At once, though it would have waited long."""
        issuer.publish(ttl=1000)
        patient = Revocations(interval=1000, max_staleness=2000)
        revocations = RevocationList(
            issuer=ISSUER, uri=issuer.uri, keys=StaticKeys(jwks), options=patient, clock=lambda: NOW
        )
        revocations.check(claims_of(), "")
        assert len(readers()) == 1
        del revocations
        gc.collect()
        until(lambda: not readers())

    def test_closed_and_asked_again(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        issuer.publish()
        revocations = follow()
        revocations.check(claims_of(), "")
        revocations.close()
        assert not readers()
        revocations.check(claims_of(), "")
        assert len(readers()) == 1

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_child_of_a_fork_reads_for_itself(
        self, issuer: Issuer, follow: Callable[..., RevocationList], claims_of: Callable[..., Any]
    ) -> None:
        """Although it inherited the parent's list, and a lock that nobody in it will release."""
        issuer.publish()
        revocations, claims = follow(interval=0.01), claims_of()
        revocations.check(claims, "")
        revocations._lock.acquire()
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(into, b"started")
            deadline = time.monotonic() + 30
            while not refused(revocations, claims) and time.monotonic() < deadline:
                time.sleep(0.005)
            os._exit(0 if refused(revocations, claims) else 1)
        revocations._lock.release()
        assert os.read(out, 7) == b"started"
        issuer.publish(revoked=ended(s1=NOW * 1000))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(out)
        os.close(into)


class TestVerifier:
    def serve(self, server: KeyServer, issuer: str, jwks: list[dict[str, Any]], **members: str) -> None:
        metadata = {"issuer": issuer, "jwks_uri": f"{server.url}/jwks", **members}
        server.pages["/.well-known/oauth-authorization-server"] = (200, {}, as_json(metadata))
        server.serve(jwks)

    def test_for_issuer(
        self, issuer: Issuer, jwks: list[dict[str, Any]], mint: Mint, key_server: KeyServer
    ) -> None:
        """The list is where the metadata says."""
        url, now = issuer.server.url, int(time.time())
        self.serve(issuer.server, url, jwks, revocation_list_uri=issuer.uri)
        issuer.publish(iss=url, iat=now, revoked=ended(s1=now * 1000))
        verifier = Verifier.for_issuer(url, "https://api.example", revocations=Revocations())
        times = {"iss": url, "iat": now, "exp": now + 60}
        assert verifier.verify(mint(claims={**times, "sid": "s2"})).sid == "s2"
        with pytest.raises(TokenError) as caught:
            verifier.verify(mint(claims=times))
        assert (caught.value.status, caught.value.error, caught.value.private) == (401, "invalid_token", "revoked")
        assert verifier.revocations
        verifier.revocations.close()

    def test_an_issuer_without_a_list(
        self, issuer: Issuer, jwks: list[dict[str, Any]], mint: Mint, caplog: pytest.LogCaptureFixture
    ) -> None:
        url, now = issuer.server.url, int(time.time())
        self.serve(issuer.server, url, jwks)
        verifier = Verifier.for_issuer(url, "https://api.example", revocations=Revocations())
        with pytest.raises(RevocationsUnavailable):
            verifier.verify(mint(claims={"iss": url, "iat": now, "exp": now + 60}))
        assert verifier.revocations
        verifier.revocations.close()
