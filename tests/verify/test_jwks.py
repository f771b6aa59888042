"""RFC 7517, RFC 8414: which keys are used, when they are fetched, and what happens while they can't be."""

import base64
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tokenserver.verify import JWKSKeys, KeysUnavailable, StaticKeys, TokenError, Verifier
from tokenserver.verify.https import Document, check_uri, fetch
from tokenserver.verify.jwks import public_key
from tokenserver.verify.metadata import issuer_keys, metadata_uri

Mint = Callable[..., str]
JWK = dict[str, Any]
MINUTE = 60


def without(jwk: JWK, *names: str) -> JWK:
    return {name: value for name, value in jwk.items() if name not in names}


class TestWhichKeys:
    @pytest.mark.parametrize("place", range(4))
    def test_a_good_key_of_each_kind(self, jwks: list[JWK], place: int) -> None:
        key = public_key(jwks[place])
        assert key
        assert (key.kid, key.alg) == (jwks[place]["kid"], jwks[place]["alg"])
        assert not key.key.is_private

    @pytest.mark.parametrize(("place", "alg"), [(0, "RS256"), (2, "ES256"), (3, "EdDSA")])
    def test_a_key_without_alg_has_the_default_of_its_kind(self, jwks: list[JWK], place: int, alg: str) -> None:
        key = public_key(without(jwks[place], "alg"))
        assert key
        assert key.alg == alg

    def test_use_and_key_ops_may_be_absent(self, jwks: list[JWK]) -> None:
        assert public_key(without(jwks[0], "use"))
        assert public_key({**jwks[0], "key_ops": ["verify"]})

    @pytest.mark.parametrize(
        "change",
        [
            {"kid": None},
            {"kid": ""},
            {"kid": 1},
            {"use": "enc"},
            {"use": None},
            {"key_ops": ["encrypt"]},
            {"key_ops": "verify"},
            {"key_ops": []},
            {"alg": None},
            {"alg": "none"},
            {"alg": "HS256"},
            {"alg": "RS512"},
            {"alg": "rs256"},
            {"alg": "ES256"},
            {"alg": "RSA-OAEP"},
            {"alg": ["RS256"]},
            {"kty": "EC"},
            {"kty": "oct", "k": "c2VjcmV0"},
            {"kty": "rsa"},
            {"kty": None},
            {"kty": ["RSA"]},
            {"crv": "P-256"},
            {"crv": ["P-256"]},
            {"n": ""},
            {"n": 5},
            {"n": None},
            {"n": "é"},
            {"n": "="},
            {"e": ""},
            {"e": "AA"},
            {"e": "AQ"},
            {"e": None},
            {"d": "AQAB"},
            {"k": "AQAB"},
        ],
        ids=json.dumps,
    )
    def test_other_rsa_keys_are_ignored_rfc7517_5(self, jwks: list[JWK], change: JWK) -> None:
        assert public_key({**jwks[0], **change}) is None

    @pytest.mark.parametrize("missing", ["kid", "kty", "n", "e"])
    def test_incomplete_keys_are_ignored(self, jwks: list[JWK], missing: str) -> None:
        assert public_key(without(jwks[0], missing)) is None

    @pytest.mark.parametrize(
        "change", [{"crv": "P-384"}, {"crv": "secp256k1"}, {"x": "AQAB"}, {"y": ""}, {"alg": "RS256"}]
    )
    def test_other_ec_keys_are_ignored(self, jwks: list[JWK], change: JWK) -> None:
        assert public_key({**jwks[2], **change}) is None

    @pytest.mark.parametrize("change", [{"crv": "Ed448"}, {"crv": "X25519"}, {"x": "AQAB"}, {"alg": "ES256"}])
    def test_other_okp_keys_are_ignored(self, jwks: list[JWK], change: JWK) -> None:
        assert public_key({**jwks[3], **change}) is None

    def test_real_keys_on_other_curves_are_ignored(self) -> None:
        for key in (ECKey.generate_key("P-384"), OKPKey.generate_key("Ed448"), OKPKey.generate_key("X25519")):
            jwk = {**key.as_dict(private=False), "kid": "k"}
            assert public_key(jwk) is None
            assert public_key({**jwk, "alg": "EdDSA"}) is None

    @pytest.mark.parametrize("place", range(4))
    def test_published_private_keys_are_never_used(self, private_keys: dict[str, Any], place: int) -> None:
        jwk = {**list(private_keys.values())[place].as_dict(private=True), "kid": "k"}
        assert public_key(jwk) is None
        assert public_key(without(jwk, "d", "p", "q", "dp", "dq", "qi"))

    @pytest.mark.filterwarnings("ignore:Key size should be")
    @pytest.mark.parametrize("bits", [1024, 2040])
    def test_rsa_below_2048_bits_is_ignored_rfc7518_3_3(self, bits: int) -> None:
        jwk = {**RSAKey.generate_key(bits).as_dict(private=False), "kid": "weak", "alg": "RS256"}
        assert public_key(jwk) is None
        # Nor when zeros in front make it look longer.
        modulus = base64.urlsafe_b64decode(f"{jwk['n']}==")
        assert (
            public_key({**jwk, "n": base64.urlsafe_b64encode(bytes(256) + modulus).rstrip(b"=").decode()}) is None
        )

    @pytest.mark.parametrize("jwk", [None, [], "key", 1, {}])
    def test_what_is_no_key_at_all(self, jwk: object) -> None:
        assert public_key(jwk) is None

    def test_bad_keys_do_not_spoil_the_set(self, jwks: list[JWK]) -> None:
        keys = StaticKeys(
            {"keys": [{}, {"kty": "oct", "k": "c2VjcmV0", "kid": "h"}, {**jwks[0], "n": "!"}, jwks[2], None]}
        )
        assert keys.find("es")
        assert keys.find("rs") is None
        assert keys.find("h") is None

    def test_static_keys_from_a_list_or_a_set(self, jwks: list[JWK]) -> None:
        assert StaticKeys(jwks).find("rs") == StaticKeys({"keys": jwks}).find("rs") is not None
        assert StaticKeys([]).find("rs") is None


class TestCaching:
    def test_nothing_is_fetched_before_the_first_need(self, key_server: Any) -> None:
        JWKSKeys(f"{key_server.url}/jwks")
        issuer_keys(key_server.url)
        assert key_server.fetches == 0

    def test_one_fetch_serves_until_max_age(self, key_server: Any, clock: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", max_age=300, clock=clock)
        for _ in range(100):
            assert keys.find("rs")
        clock.now += 299.9
        assert keys.find("es")
        assert key_server.fetches == 1
        clock.now += 0.1
        assert keys.find("rs")
        assert key_server.fetches == 2

    @pytest.mark.parametrize(
        ("cache_control", "seconds"),
        [
            ("max-age=120", 120),
            ("public, Max-Age=120, must-revalidate", 120),
            ("s-maxage=5, max-age=120", 120),
            ('max-age="120"', 120),
            ("max-age=0", 10),
            ("max-age=999999999", 86400),
            ("no-store", 10),
            ("no-cache, max-age=600", 10),
            ("max-age=-1", 300),
            ("max-age=1e3", 300),
            ("s-maxage=120", 300),
            ("x-max-age=120", 300),
            ("private", 300),
        ],
    )
    def test_cache_control_within_bounds_rfc9111_5_2_2(
        self, key_server: Any, jwks: list[JWK], clock: Any, cache_control: str, seconds: int
    ) -> None:
        key_server.serve(jwks, Cache_Control=cache_control)
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        clock.now += seconds - 0.1
        assert keys.find("rs")
        assert key_server.fetches == 1
        clock.now += 0.1
        assert keys.find("rs")
        assert key_server.fetches == 2

    def test_a_withdrawn_key_is_gone_after_the_next_fetch(
        self, key_server: Any, jwks: list[JWK], clock: Any
    ) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        key_server.serve(jwks[1:])
        clock.now += 300
        assert keys.find("rs") is None
        assert keys.find("ps")

    def test_the_standard_clock_runs(self, key_server: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", max_age=0)
        assert keys.find("rs")
        assert keys.find("rs")
        assert key_server.fetches == 2


class TestUnknownKid:
    """A rotation is noticed at once, but a flood of invented kids reaches nobody (GHSA-2gx3-rcp4-g85q)."""

    def test_a_new_key_is_found_without_waiting_for_max_age(
        self, key_server: Any, jwks: list[JWK], clock: Any
    ) -> None:
        key_server.serve(jwks[:1])
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        key_server.serve(jwks)
        clock.now += 30
        assert keys.find("es")
        assert key_server.fetches == 2

    def test_10000_invented_kids_cost_one_fetch_in_30_s(
        self, key_server: Any, make_verifier: Callable[..., Verifier], mint: Mint, clock: Any
    ) -> None:
        verifier = make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks", clock=clock))
        assert verifier.verify(mint()).sub
        clock.now += 30
        payload_and_signature = mint().partition(".")[2]
        for number in range(10_000):
            header = json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": f"k{number}"}).encode()
            token = base64.urlsafe_b64encode(header).rstrip(b"=").decode() + "." + payload_and_signature
            with pytest.raises(TokenError):
                verifier.verify(token)
            clock.now += 0.002
        assert key_server.fetches == 2
        assert verifier.verify(mint()).sub
        clock.now += 10.1
        with pytest.raises(TokenError):
            verifier.verify(mint({"kid": "one more"}))
        assert key_server.fetches == 3

    def test_all_threads_together_make_one_fetch(self, key_server: Any, clock: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        clock.now += 30
        start = Barrier(16)

        def flood(thread: int) -> None:
            start.wait()
            for number in range(200):
                assert keys.find(f"{thread}-{number}") is None

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(flood, range(16)))
        assert key_server.fetches == 2

    def test_min_refetch_is_an_option(self, key_server: Any, clock: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", min_refetch=5, clock=clock)
        assert keys.find("rs")
        clock.now += 4.9
        assert keys.find("x") is None
        assert key_server.fetches == 1
        clock.now += 0.1
        assert keys.find("x") is None
        assert key_server.fetches == 2


class TestThreads:
    def test_the_first_fetch_is_awaited_by_all_and_made_once(self, key_server: Any) -> None:
        key_server.before = lambda: time.sleep(0.2)
        keys = JWKSKeys(f"{key_server.url}/jwks")
        with ThreadPoolExecutor(20) as threads:
            assert all(threads.map(keys.find, ["rs"] * 20))
        assert key_server.fetches == 1

    def test_a_first_fetch_that_fails_is_not_repeated_by_each_waiting_thread(self, key_server: Any) -> None:
        key_server.pages.clear()
        key_server.before = lambda: time.sleep(0.3)
        keys = JWKSKeys(f"{key_server.url}/jwks")

        def unavailable(_thread: int) -> bool:
            with pytest.raises(KeysUnavailable):
                keys.find("rs")
            return True

        with ThreadPoolExecutor(20) as threads:
            assert all(threads.map(unavailable, range(20)))
        assert key_server.fetches == 1

    def test_while_one_thread_fetches_the_others_use_the_old_keys(self, key_server: Any, clock: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        reached, may_go_on = Event(), Event()

        def hang() -> None:
            reached.set()
            assert may_go_on.wait(30)

        key_server.before = hang
        clock.now += 300
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(keys.find, "rs")
            assert reached.wait(30)
            assert keys.find("rs")
            assert keys.find("unknown") is None
            assert not slow.done()
            may_go_on.set()
            assert slow.result()
        assert key_server.fetches == 2


GARBAGE: dict[str, tuple[int, dict[str, str], bytes]] = {
    "500": (500, {}, b'{"keys": []}'),
    "404": (404, {}, b"not here"),
    "204": (204, {}, b""),
    "no JSON": (200, {}, b"<html>"),
    "empty": (200, {}, b""),
    "not an object": (200, {}, b"[]"),
    "no keys": (200, {}, b"{}"),
    "keys is no list": (200, {}, b'{"keys": {"rs": 1}}'),
    "emptied": (200, {}, b'{"keys": []}'),
    "no usable key": (200, {}, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "rs", "alg": "HS256"}]}'),
    "not UTF-8": (200, {}, b"\xff\xfe"),
    "nested": (200, {}, b"[" * 100_000),
    "too large": (200, {}, b'{"keys": []' + b" " * 256 * 1024 + b"}"),
}


class TestAway:
    """A failed fetch never empties the cache (GHSA-fhv5-28vv-h8m8)."""

    @pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
    def test_old_keys_stay(self, key_server: Any, clock: Any, answer: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        key_server.pages["/jwks"] = answer
        for _ in range(10):
            clock.now += 300
            assert keys.find("rs")
            assert keys.find("unknown") is None
        assert key_server.fetches == 11

    def test_cached_keys_serve_while_the_server_is_away_and_new_ones_at_its_return(
        self, start_key_server: Any, jwks: list[JWK], clock: Any
    ) -> None:
        server = start_key_server()
        server.serve(jwks[:1])
        keys = JWKSKeys(f"{server.url}/jwks", clock=clock)
        assert keys.find("rs")
        server.stop()
        for _ in range(10 * MINUTE // 30):
            clock.now += 30
            assert keys.find("rs")
            assert keys.find("es") is None

        back = start_key_server()
        back.serve(jwks)
        keys._uri = lambda: f"{back.url}/jwks"
        clock.now += 30
        assert keys.find("es")

    def test_while_away_it_is_asked_once_in_30_s(self, key_server: Any, clock: Any) -> None:
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        assert keys.find("rs")
        key_server.pages.clear()
        clock.now += 300
        for _ in range(600):
            assert keys.find("rs")
            assert keys.find("unknown") is None
            clock.now += 0.1
        assert key_server.fetches == 3

    @pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
    def test_never_fetched_and_failing_is_unavailable_not_invalid(
        self, key_server: Any, make_verifier: Callable[..., Verifier], mint: Mint, clock: Any, answer: Any
    ) -> None:
        key_server.pages["/jwks"] = answer
        verifier = make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks", clock=clock))
        for _ in range(3):
            with pytest.raises(KeysUnavailable) as caught:
                verifier.verify(mint())
        assert caught.value.status == 503
        assert int(caught.value.headers()["Retry-After"]) > 0
        assert key_server.fetches == 1

    def test_unavailable_ends_within_a_second_of_the_server_coming_up(
        self, key_server: Any, jwks: list[JWK], clock: Any
    ) -> None:
        key_server.pages.clear()
        keys = JWKSKeys(f"{key_server.url}/jwks", clock=clock)
        with pytest.raises(KeysUnavailable):
            keys.find("rs")
        key_server.serve(jwks)
        clock.now += 1
        assert keys.find("rs")

    def test_nobody_listens(self, start_key_server: Any) -> None:
        server = start_key_server()
        server.stop()
        with pytest.raises(KeysUnavailable):
            JWKSKeys(f"{server.url}/jwks").find("rs")

    def test_failures_are_logged_on_one_line(self, caplog: pytest.LogCaptureFixture, clock: Any) -> None:
        def fail(_uri: str) -> Document:
            raise ValueError("two\nlines")

        with caplog.at_level(logging.WARNING), pytest.raises(KeysUnavailable):
            JWKSKeys("https://id.example/jwks", fetch=fail, clock=clock).find("rs")
        assert [record.getMessage() for record in caplog.records] == [
            "reading failed, nothing is changed: 'two\\nlines'"
        ]

    def test_whatever_a_fetch_raises_the_keys_stay(self, jwks: list[JWK], clock: Any) -> None:
        answers = iter([Document(json.dumps({"keys": jwks}).encode(), None)])
        keys = JWKSKeys("https://id.example/jwks", fetch=lambda _uri: next(answers), clock=clock)
        assert keys.find("rs")
        clock.now += 300
        assert keys.find("rs")  # StopIteration inside


class TestFetch:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed_rfc8414_3_2(
        self, key_server: Any, start_key_server: Any, status: int
    ) -> None:
        elsewhere = start_key_server()
        elsewhere.pages["/jwks"] = key_server.pages["/jwks"]
        for target in (f"{elsewhere.url}/jwks", "/jwks", "file:///etc/passwd"):
            key_server.pages["/moved"] = (status, {"Location": target}, b"")
            with pytest.raises(ValueError, match=f"answered {status}"):
                fetch(f"{key_server.url}/moved")
        assert elsewhere.fetches == 0
        assert "/jwks" not in key_server.paths

    def test_256_kib_and_no_more(self, key_server: Any) -> None:
        key_server.pages["/most"] = (200, {}, b"x" * 256 * 1024)
        key_server.pages["/more"] = (200, {}, b"x" * (256 * 1024 + 1))
        assert len(fetch(f"{key_server.url}/most").body) == 256 * 1024
        with pytest.raises(ValueError, match="too large"):
            fetch(f"{key_server.url}/more")

    def test_a_server_that_drips_is_left(self, key_server: Any) -> None:
        key_server.pages["/slow"] = (200, {}, b" " * 1000)
        key_server.drip = 0.05
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            fetch(f"{key_server.url}/slow", timeout=0.3)
        assert time.monotonic() - started < 25  # all of it would take 50

    def test_a_server_that_hangs_is_left(self, key_server: Any) -> None:
        gone = Event()
        key_server.before = lambda: gone.wait(50)
        started = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            fetch(f"{key_server.url}/jwks", timeout=0.2)
        assert time.monotonic() - started < 25
        gone.set()

    def test_plain_http_never_takes_a_proxy(
        self, key_server: Any, start_key_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = start_key_server()
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert fetch(f"{key_server.url}/jwks").body
        assert proxy.fetches == 0

    @pytest.mark.parametrize(
        "uri",
        [
            "https://id.example/jwks",
            "https://id.example:8443/jwks?tenant=1",
            "http://127.0.0.1:8000/jwks",
            "http://127.9.9.9/jwks",
            "http://localhost/jwks",
            "http://LOCALHOST/jwks",
            "http://[::1]:8000/jwks",
        ],
    )
    def test_https_or_this_very_machine(self, uri: str) -> None:
        assert check_uri(uri) == uri

    @pytest.mark.parametrize(
        "uri",
        [
            "http://id.example/jwks",
            "http://10.0.0.1/jwks",
            "http://0.0.0.0/jwks",
            "http://localhost.evil.example/jwks",
            "http://127.0.0.1.evil.example/jwks",
            "http://2130706433/jwks",
            "http://localhost:80@evil.example/jwks",
            "http://localhost\\@evil.example/jwks",
            "http://evil.example#@localhost/jwks",
            "https://user:secret@id.example/jwks",
            "https://id.example/jwks#part",
            "https://id.example/jwks\r\nHost: evil.example",
            "https://id .example/jwks",
            "https://\u2025id.example/jwks",
            "https:///jwks",
            "https:id.example",
            "file:///etc/passwd",
            "ftp://127.0.0.1/jwks",
            "data:application/json,{}",
            "//id.example/jwks",
            "jwks",
            "",
            "http://[::1",
        ],
    )
    def test_other_places_are_refused(self, uri: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            check_uri(uri)
        with pytest.raises(ValueError, match=r"."):
            fetch(uri)
        with pytest.raises(ValueError, match=r"."):
            JWKSKeys(uri)


class TestMetadata:
    """RFC 8414."""

    def serve(self, server: Any, path: str = "", **members: object) -> str:
        issuer = f"{server.url}{path}"
        document = {"issuer": issuer, "jwks_uri": f"{server.url}/jwks", **members}
        server.pages[f"/.well-known/oauth-authorization-server{path}"] = (200, {}, json.dumps(document).encode())
        return issuer

    @pytest.mark.parametrize("path", ["", "/tenant/1"])
    def test_keys_by_issuer(self, key_server: Any, mint: Mint, path: str) -> None:
        issuer = self.serve(key_server, path)
        verifier = Verifier.for_issuer(issuer, "https://api.example")
        assert key_server.fetches == 0
        now = int(time.time())
        for _ in range(3):
            assert verifier.verify(mint(claims={"iss": issuer, "iat": now, "exp": now + 60})).iss == issuer
        assert key_server.paths == [f"/.well-known/oauth-authorization-server{path}", "/jwks"]

    @pytest.mark.parametrize(
        ("issuer", "uri"),
        [
            ("https://id.example", "https://id.example/.well-known/oauth-authorization-server"),
            ("https://id.example/", "https://id.example/.well-known/oauth-authorization-server"),
            ("https://id.example/a/b", "https://id.example/.well-known/oauth-authorization-server/a/b"),
            ("https://id.example/a/", "https://id.example/.well-known/oauth-authorization-server/a"),
        ],
    )
    def test_where_the_metadata_is_3_1(self, issuer: str, uri: str) -> None:
        assert metadata_uri(issuer) == uri

    @pytest.mark.parametrize(
        "issuer", ["http://id.example", "https://id.example?x=1", "https://id.example#", "id.example", ""]
    )
    def test_what_no_issuer_can_be_2(self, issuer: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            Verifier.for_issuer(issuer, "https://api.example")

    @pytest.mark.parametrize(
        "members",
        [
            {"issuer": "https://evil.example"},
            {"issuer": None},
            {"issuer": ["https://id.example"]},
            {"jwks_uri": None},
            {"jwks_uri": 1},
            {"jwks_uri": "http://id.example/jwks"},
            {"jwks_uri": "file:///etc/passwd"},
        ],
    )
    def test_metadata_that_must_not_be_used_3_3(self, key_server: Any, members: dict[str, Any]) -> None:
        keys = issuer_keys(self.serve(key_server, **members))
        with pytest.raises(KeysUnavailable):
            keys.find("rs")
        assert "/jwks" not in key_server.paths

    def test_an_issuer_with_a_slash_more_is_another_issuer_3_3(self, key_server: Any) -> None:
        self.serve(key_server)
        with pytest.raises(KeysUnavailable):
            issuer_keys(key_server.url + "/").find("rs")

    def test_old_keys_stay_when_the_metadata_turns_bad(self, key_server: Any, clock: Any) -> None:
        keys = issuer_keys(self.serve(key_server), clock=clock)
        assert keys.find("rs")
        self.serve(key_server, issuer="https://evil.example")
        clock.now += 300
        assert keys.find("rs")
        key_server.pages.clear()
        clock.now += 300
        assert keys.find("rs")

    @pytest.mark.parametrize("jwks_uri", [None, 1, "file:///etc/passwd", "http://id.example/jwks"])
    def test_a_place_that_can_not_be_does_not_replace_the_old_one(
        self, key_server: Any, jwks: list[JWK], clock: Any, jwks_uri: object
    ) -> None:
        keys = issuer_keys(self.serve(key_server), clock=clock)
        assert keys.find("rs")
        self.serve(key_server, jwks_uri=jwks_uri)
        key_server.serve(jwks[2:])
        clock.now += 300
        assert keys.find("rs") is None
        assert keys.find("es")

    def test_keys_that_moved_are_found(self, key_server: Any, jwks: list[JWK], clock: Any) -> None:
        keys = issuer_keys(self.serve(key_server), clock=clock)
        assert keys.find("rs")
        key_server.serve(jwks[2:], "/new")
        self.serve(key_server, jwks_uri=f"{key_server.url}/new")
        clock.now += 300
        assert keys.find("rs") is None
        assert keys.find("es")
