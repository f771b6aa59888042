"""RFC 9068 section 4, RFC 8725: which tokens pass, and that nothing but a refusal comes of all others."""

import base64
import dataclasses
import hmac
import inspect
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from tokenserver.verify import Claims, StaticKeys, TokenError, Verifier
from tokenserver.verify.compact import decode
from tokenserver.verify.errors import InsufficientScope, InvalidToken

Mint = Callable[..., str]
Make = Callable[..., Verifier]
NOW = 1_800_000_000
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded_or_none(decoder: Callable[[bytes], bytes], segment: bytes) -> bytes | None:
    try:
        return decoder(segment)
    except ValueError:
        return None


def refused(verifier: Verifier, token: str, why: str = "") -> InvalidToken:
    """Asserts a 401 invalid_token whose private reason tells `why`, so that no test passes for a wrong reason."""
    with pytest.raises(TokenError) as caught:
        verifier.verify(token)
    refusal = caught.value
    assert isinstance(refusal, InvalidToken)
    assert (refusal.status, refusal.error) == (401, "invalid_token")
    assert why in refusal.private
    return refusal


class TestAccepted:
    @pytest.mark.parametrize(("kid", "alg"), [("rs", "RS256"), ("ps", "PS256"), ("es", "ES256"), ("ed", "EdDSA")])
    def test_every_algorithm_that_a_key_is_bound_to(
        self, verifier: Verifier, mint: Mint, kid: str, alg: str
    ) -> None:
        assert verifier.verify(mint(kid=kid, sign_with=alg)).client_id == "web"

    def test_claims_of_rfc9068_2_2(self, verifier: Verifier, mint: Mint) -> None:
        claims = verifier.verify(
            mint(claims={"aud": ["https://other.example", "https://api.example"], "x": {"y": 1}})
        )
        assert claims == Claims(
            iss="https://id.example",
            sub="6f7c5e0e-30bb-4c0f-9d41-9c6f7d6f8a10",
            aud=("https://other.example", "https://api.example"),
            exp=NOW + 300,
            iat=NOW,
            jti="0197b1c2-4b2f-7d54-8a53-1f2e3d4c5b6a",
            client_id="web",
            scope=frozenset({"openid", "posts:create"}),
            roles=("user", "premium"),
            sid="s1",
            auth_time=NOW - 10,
            acr="1",
            amr=("pwd",),
            raw={},
        )
        assert claims.raw["x"] == {"y": 1}

    def test_optional_claims_may_be_absent(self, verifier: Verifier, mint: Mint) -> None:
        absent = dict.fromkeys(("scope", "roles", "sid", "auth_time", "acr", "amr"), ...)
        claims = verifier.verify(mint(claims=absent))
        assert (claims.scope, claims.roles, claims.amr) == (frozenset(), (), ())
        assert (claims.sid, claims.auth_time, claims.acr) == (None, None, None)

    @pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
    def test_typ_in_both_spellings_and_any_case_rfc9068_4(self, verifier: Verifier, mint: Mint, typ: str) -> None:
        assert verifier.verify(mint({"typ": typ})).sub

    def test_unknown_header_members_are_ignored_rfc7515_4(self, verifier: Verifier, mint: Mint) -> None:
        assert verifier.verify(mint({"cty": "JWT", "x5t": "abc", "made_up": [1]})).sub

    def test_iat_finer_than_a_second(self, verifier: Verifier, mint: Mint) -> None:
        assert verifier.verify(mint(claims={"iat": NOW - 0.25})).iat == NOW - 0.25

    def test_scope_is_split_at_spaces_alone_rfc6749_3_3(self, verifier: Verifier, mint: Mint) -> None:
        claims = verifier.verify(mint(claims={"scope": "a  b\tc "}))
        assert claims.scope == {"a", "b\tc"}
        assert claims.allows("a")
        assert not claims.allows("b")
        assert not claims.allows("")

    def test_require_names_what_is_needed_rfc6750_3_1(self, verifier: Verifier, mint: Mint) -> None:
        claims = verifier.verify(mint())
        claims.require()
        claims.require("posts:create", "openid")
        with pytest.raises(InsufficientScope) as caught:
            claims.require("posts:create", "posts:delete:any")
        assert (caught.value.status, caught.value.scope) == (403, "posts:create posts:delete:any")

    def test_claims_are_frozen(self, verifier: Verifier, mint: Mint) -> None:
        claims = verifier.verify(mint())
        with pytest.raises(dataclasses.FrozenInstanceError):
            claims.sub = "somebody else"  # type: ignore[misc]
        with pytest.raises(TypeError):
            claims.raw["sub"] = "somebody else"  # type: ignore[index]


class TestSignature:
    @pytest.mark.parametrize(("kid", "alg"), [("rs", "RS256"), ("ps", "PS256"), ("es", "ES256"), ("ed", "EdDSA")])
    @pytest.mark.parametrize("segment", [0, 1, 2])
    def test_no_segment_may_be_altered_rfc7515_5_2(
        self, verifier: Verifier, mint: Mint, kid: str, alg: str, segment: int
    ) -> None:
        segments = mint(kid=kid, sign_with=alg).split(".")
        # The first character, one in the middle, and the last, whose loose bits count too (RFC 4648 section 3.5).
        for place in (0, len(segments[segment]) // 2, len(segments[segment]) - 1):
            for step in (1, 2, 16, 33):
                text = segments[segment]
                other = BASE64URL[(BASE64URL.index(text[place]) + step) % 64]
                altered = [*segments]
                altered[segment] = text[:place] + other + text[place + 1 :]
                refused(verifier, ".".join(altered))

    @pytest.mark.parametrize("segment", [0, 1, 2])
    def test_no_segment_may_be_empty_or_swapped(self, verifier: Verifier, mint: Mint, segment: int) -> None:
        segments, others = mint().split("."), mint(claims={"sub": "other"}, kid="ed", sign_with="EdDSA").split(".")
        refused(verifier, ".".join([*segments[:segment], "", *segments[segment + 1 :]]))
        refused(verifier, ".".join([*segments[:segment], others[segment], *segments[segment + 1 :]]))

    def test_signature_of_another_key_under_the_same_kid(self, verifier: Verifier, mint: Mint) -> None:
        refused(verifier, mint(key=RSAKey.generate_key(2048)), "wrong signature")

    def test_no_key_verifies_nothing(self, make_verifier: Make, mint: Mint) -> None:
        # CVE-2026-27962: with an empty key set the token's own key was taken.
        refused(make_verifier(keys=StaticKeys([])), mint(), "unknown kid")

    def test_truncated_and_lengthened_signatures(self, verifier: Verifier, mint: Mint) -> None:
        for kid, alg in (("rs", "RS256"), ("es", "ES256"), ("ed", "EdDSA")):
            signing_input, _, text = mint(kid=kid, sign_with=alg).rpartition(".")
            signature = decode(text.encode())
            for changed in (
                b"",
                signature[:-1],
                signature[1:],
                signature + b"\0",
                b"\0" + signature,
                signature * 2,
            ):
                refused(verifier, f"{signing_input}.{b64(changed)}", "wrong signature")

    def test_es256_signature_of_zeros(self, verifier: Verifier, mint: Mint) -> None:
        # CVE-2022-21449: r = s = 0 verified everything.
        head = mint(kid="es", sign_with="ES256").rpartition(".")[0]
        refused(verifier, f"{head}.{b64(bytes(64))}", "wrong signature")


class TestAlgorithm:
    """RFC 8725 sections 3.1 and 3.2."""

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
    def test_none(self, verifier: Verifier, mint: Mint, alg: str) -> None:
        token = mint({"alg": alg})
        refused(verifier, token, "alg is not allowed")
        refused(verifier, token.rpartition(".")[0] + ".", "alg is not allowed")

    @pytest.mark.parametrize("alg", ["rs256", "Rs256", "RS256 ", "RS512", "ES256K", "ES384", "Ed25519"])
    def test_other_spellings_and_algorithms(self, verifier: Verifier, mint: Mint, alg: str) -> None:
        refused(verifier, mint({"alg": alg}), "alg is not allowed")

    @pytest.mark.parametrize("alg", [None, 1, True, ["RS256"], {"RS256": 1}, ...])
    def test_alg_must_be_text(self, verifier: Verifier, mint: Mint, alg: object) -> None:
        refused(verifier, mint({"alg": alg}), "alg or kid is missing")

    @pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
    @pytest.mark.parametrize("form", ["pem", "der", "jwk", "n"])
    def test_hmac_under_the_public_key(
        self,
        verifier: Verifier,
        mint: Mint,
        jwks: list[dict[str, Any]],
        private_keys: dict[str, Any],
        alg: str,
        form: str,
    ) -> None:
        # CVE-2024-37568, CVE-2022-29217, CVE-2024-33663
        rsa = private_keys["rs"]
        secret = {
            "pem": rsa.as_pem(private=False),
            "der": rsa.as_der(private=False),
            "jwk": json.dumps(jwks[0]).encode(),
            "n": jwks[0]["n"].encode(),
        }[form]
        signing_input = mint({"alg": alg}).rpartition(".")[0]
        signature = hmac.digest(secret, signing_input.encode(), f"sha{alg[2:]}")
        refused(verifier, f"{signing_input}.{b64(signature)}", "alg is not allowed")

    @pytest.mark.parametrize(("kid", "alg"), [("rs", "PS256"), ("ps", "RS256")])
    def test_a_key_serves_its_own_algorithm_alone(self, verifier: Verifier, mint: Mint, kid: str, alg: str) -> None:
        # "rs" and "ps" are one RSA key: only the binding of the JWK tells them apart.
        refused(verifier, mint(kid=kid, sign_with=alg), "alg is not the key's")

    def test_signature_by_another_algorithm_than_the_header_says(self, verifier: Verifier, mint: Mint) -> None:
        refused(verifier, mint({"alg": "RS256"}, sign_with="PS256"), "wrong signature")

    def test_allow_list_of_the_verifier(self, make_verifier: Make, mint: Mint) -> None:
        refused(make_verifier(algorithms=("ES256",)), mint(), "alg is not allowed")

    @pytest.mark.parametrize("algorithms", [(), ("none",), ("HS256",), ("RS256", "none"), "RS256"])
    def test_no_verifier_with_a_weak_allow_list(self, make_verifier: Make, algorithms: Any) -> None:
        with pytest.raises(ValueError, match="algorithms"):
            make_verifier(algorithms=algorithms)


class TestHeader:
    @pytest.mark.parametrize(
        "typ", ["JWT", "jwt", "", "at", "at+jwt ", "logout+jwt", "application/jwt", None, 1, ["at+jwt"]]
    )
    def test_typ_other_than_at_jwt_rfc9068_4(self, verifier: Verifier, mint: Mint, typ: object) -> None:
        refused(verifier, mint({"typ": typ}), "typ is not at+jwt")

    def test_typ_absent_rfc9068_4(self, verifier: Verifier, mint: Mint) -> None:
        refused(verifier, mint({"typ": ...}), "typ is not at+jwt")

    def test_id_token_is_no_access_token_rfc8725_3_12(self, verifier: Verifier, mint: Mint) -> None:
        id_token = {"aud": "web", "nonce": "n", "at_hash": "h", "jti": ..., "client_id": ..., "scope": ...}
        refused(verifier, mint({"typ": "JWT"}, id_token), "typ is not at+jwt")
        refused(verifier, mint({}, id_token), "aud is another resource")

    @pytest.mark.parametrize("kid", [..., None, 7, ["rs"], "", "r" * 256])
    def test_kid_is_a_text_of_1_to_255_characters(self, verifier: Verifier, mint: Mint, kid: object) -> None:
        refused(verifier, mint({"kid": kid}), "alg or kid is missing")

    @pytest.mark.parametrize(
        "kid",
        [
            "unknown",
            "RS",
            "rs ",
            "r" * 255,
            "../../../../dev/null",
            "/etc/passwd",
            "rs\x00",
            "\x00",
            "' OR 1=1 --",
            "\ud800",
        ],
    )
    def test_kid_is_only_ever_looked_up_rfc8725_3_10(self, verifier: Verifier, mint: Mint, kid: str) -> None:
        refusal = refused(verifier, mint({"kid": kid}), "unknown kid")
        assert refusal.private.isascii()
        assert refusal.private.isprintable()

    @pytest.mark.parametrize(
        "extra",
        [
            {"crit": ["exp"], "exp": 1},
            {"crit": ["made_up"], "made_up": 1},
            {"crit": []},
            {"crit": None},
            {"crit": ["b64"], "b64": True},
            {"b64": False},
            {"b64": True},
            {"zip": "DEF"},
            {"enc": "A256GCM"},
            {"p2c": 2**31 - 1},
            {"p2s": "c2FsdA"},
            {"epk": {}},
        ],
        ids=json.dumps,
    )
    def test_what_is_not_understood_or_never_done_rfc7515_4_1_11(
        self, verifier: Verifier, mint: Mint, extra: dict[str, object]
    ) -> None:
        refused(verifier, mint(extra), "header asks for")

    def test_unencoded_payload_rfc7797(self, verifier: Verifier, private_keys: dict[str, Any]) -> None:
        # CVE-2025-59420 and kin: b64=false, signed as RFC 7797 says.
        header = b64(b'{"alg":"RS256","typ":"at+jwt","kid":"rs","b64":false,"crit":["b64"]}')
        signing_input = f"{header}.{{}}"
        signature = JWSRegistry.algorithms["RS256"].sign(signing_input.encode(), private_keys["rs"])
        refused(verifier, f"{signing_input}.{b64(signature)}", "header asks for b64, crit")

    @pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
    def test_keys_that_the_token_brings_along_rfc8725_3_10(
        self, verifier: Verifier, mint: Mint, key_server: Any, name: str
    ) -> None:
        mine = RSAKey.generate_key(2048)
        public = {**mine.as_dict(private=False), "kid": "mine", "alg": "RS256"}
        key_server.serve([public], "/mine")
        url = f"{key_server.url}/mine"
        value = {"jwk": public, "jku": url, "x5u": url, "x5c": ["MIIB"]}[name]
        refused(verifier, mint({name: value, "kid": "mine"}, key=mine), "header asks for")
        # Also beside a kid that is known, and under a signature that is good.
        refused(verifier, mint({name: value}), "header asks for")
        assert key_server.fetches == 0

    def test_duplicate_member_rfc7515_4(self, verifier: Verifier, mint: Mint) -> None:
        refused(verifier, mint(b'{"alg":"none","alg":"RS256","typ":"at+jwt","kid":"rs"}'), "duplicate member")

    @pytest.mark.parametrize(
        "header", [b"", b"null", b"[]", b'"rs"', b"{", b"{}x", b"\xff", b"\xef\xbb\xbf{}", b"NaN"]
    )
    def test_not_a_json_object(self, verifier: Verifier, mint: Mint, header: bytes) -> None:
        refused(verifier, mint(header), "not a compact JWS")

    def test_other_encodings_than_utf8_rfc8259_8_1(self, verifier: Verifier, mint: Mint) -> None:
        header = '{"alg":"RS256","typ":"at+jwt","kid":"rs"}'
        for encoding in ("utf-16", "utf-16-be", "utf-32-le"):
            refused(verifier, mint(header.encode(encoding)), "not a compact JWS")

    def test_bad_utf8_within_a_text(self, verifier: Verifier, mint: Mint) -> None:
        refused(verifier, mint(b'{"alg":"RS256","typ":"at+jwt","kid":"rs","x":"\xff"}'), "not a compact JWS")

    def test_refused_headers_are_refused_again(self, verifier: Verifier, mint: Mint) -> None:
        token = mint({"crit": ["b64"]})
        for _ in range(3):
            refused(verifier, token, "header asks for")


class TestSerialization:
    def test_json_serializations_rfc7515_7_2(self, verifier: Verifier, mint: Mint) -> None:
        # CVE-2026-102946: an empty list of signatures verified.
        protected, payload, signature = mint().split(".")
        for document in (
            {"payload": payload, "protected": protected, "signature": signature},
            {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]},
            {"payload": payload, "signatures": []},
        ):
            refused(verifier, json.dumps(document), "not three segments")

    def test_detached_payload_rfc7515_f(self, verifier: Verifier, mint: Mint) -> None:
        protected, _, signature = mint().split(".")
        refused(verifier, f"{protected}..{signature}", "wrong signature")

    @pytest.mark.parametrize("segments", [0, 1, 2, 4, 5, 6])
    def test_exactly_three_segments(self, verifier: Verifier, mint: Mint, segments: int) -> None:
        token = ".".join((mint().split(".") * 2)[:segments])
        refused(verifier, token, "not three segments")

    @pytest.mark.parametrize("change", ["{}=", "{}==", " {}", "{} ", "{}\n", "\ufeff{}", "{}.", ".{}", "Bearer {}"])
    def test_nothing_around_the_token(self, verifier: Verifier, mint: Mint, change: str) -> None:
        refused(verifier, change.format(mint()))

    @pytest.mark.parametrize("bad", ["=", "+", "/", "*", " ", "\n", "\x00", "é", "\ud800", "A" * 4 + "=", "Zg=="])
    @pytest.mark.parametrize("segment", [0, 1, 2])
    def test_strict_base64url_rfc7515_2(self, verifier: Verifier, mint: Mint, bad: str, segment: int) -> None:
        segments = mint().split(".")
        segments[segment] += bad
        refused(verifier, ".".join(segments))

    @pytest.mark.parametrize("payload", ["e30=", "e3", "!!!!", "e30+", "e"])
    def test_bad_payload_with_a_good_signature(
        self, verifier: Verifier, mint: Mint, private_keys: dict[str, Any], payload: str
    ) -> None:
        signing_input = f"{mint().partition('.')[0]}.{payload}"
        signature = JWSRegistry.algorithms["RS256"].sign(signing_input.encode(), private_keys["rs"])
        refused(verifier, f"{signing_input}.{b64(signature)}", "payload: ")

    def test_padded_header_with_a_good_signature(self, verifier: Verifier, private_keys: dict[str, Any]) -> None:
        header = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"at+jwt","kid":"rs"}')
        assert header.endswith(b"=")
        signing_input = header + b".e30"
        signature = JWSRegistry.algorithms["RS256"].sign(signing_input, private_keys["rs"])
        refused(verifier, f"{signing_input.decode()}.{b64(signature)}", "not canonical base64url")

    @given(st.text(st.sampled_from("AQgwEIMabz09-_+/=* \n"), max_size=12).map(str.encode))
    @settings(database=None, deadline=None)
    def test_one_spelling_per_value_rfc4648_3_5(self, segment: bytes) -> None:
        assert decoded_or_none(decode, segment) == decoded_or_none(self.as_an_encoder_writes_it, segment)

    def as_an_encoder_writes_it(self, segment: bytes) -> bytes:
        data = base64.urlsafe_b64decode(segment + b"===")  # reads many spellings
        if b64(data).encode() != segment:
            raise ValueError("another spelling")
        return data

    def test_plain_base64_is_not_base64url(self) -> None:
        assert decode(b"-_-_") == b"\xfb\xff\xbf"
        with pytest.raises(ValueError, match=r"."):
            decode(b"+/+/")


class TestClaims:
    @pytest.mark.parametrize(
        "iss",
        [
            "https://id.example/",
            "https://id.exampl",
            "https://id.example.evil.example",
            "https://ID.example",
            "",
            ["https://id.example"],
            {"https://id.example": 1},
            None,
            True,
            ...,
        ],
    )
    def test_iss_is_exactly_the_issuer_rfc9068_4(self, verifier: Verifier, mint: Mint, iss: object) -> None:
        # CVE-2024-53861 took a part of it, CVE-2026-75509 an array.
        refused(verifier, mint(claims={"iss": iss}), "iss is another issuer")

    @pytest.mark.parametrize(
        "aud",
        [
            "https://api.example/",
            "https://api.exampl",
            "https://other.example",
            "web",
            "",
            [],
            [["https://api.example"]],
            {"https://api.example": 1},
            ["https://other.example"],
            ["https://api.example", 1],
            ["https://api.example", None],
            None,
            1,
            ...,
        ],
    )
    def test_aud_names_this_resource_rfc9068_4(self, verifier: Verifier, mint: Mint, aud: object) -> None:
        refused(verifier, mint(claims={"aud": aud}), "aud is")

    @pytest.mark.parametrize("name", ["sub", "jti", "client_id"])
    @pytest.mark.parametrize("value", ["", None, 1, True, ["x"], {"x": 1}, ...])
    def test_required_texts_rfc9068_2_2(self, verifier: Verifier, mint: Mint, name: str, value: object) -> None:
        refused(verifier, mint(claims={name: value}), f"{name} is not a text")

    @pytest.mark.parametrize("name", ["exp", "iat", "nbf", "auth_time"])
    @pytest.mark.parametrize("value", [None, True, False, str(NOW), "", [NOW], {}, -1, 1e300, 253_402_300_800])
    def test_dates_are_numbers_rfc7519_2(self, verifier: Verifier, mint: Mint, name: str, value: object) -> None:
        refused(verifier, mint(claims={name: value}), f"{name} is not a date")

    @pytest.mark.parametrize("name", ["exp", "iat"])
    def test_dates_that_must_be_there_rfc9068_2_2(self, verifier: Verifier, mint: Mint, name: str) -> None:
        refused(verifier, mint(claims={name: ...}), f"{name} is not a date")

    @pytest.mark.parametrize("name", ["exp", "iat", "nbf", "auth_time", "made_up"])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_nan_and_infinity_are_not_json_rfc8259_6(
        self, verifier: Verifier, mint: Mint, name: str, value: float
    ) -> None:
        refused(verifier, mint(claims={name: value}), "NaN or Infinity")

    @pytest.mark.parametrize("digits", ["1e999", "9" * 300, "9" * 5000], ids=["1e999", "300 digits", "5000 digits"])
    def test_numbers_beyond_all_dates(self, verifier: Verifier, mint: Mint, digits: str) -> None:
        payload = json.dumps({**verifier.verify(mint()).raw, "exp": 0}).replace('"exp": 0', f'"exp": {digits}')
        refused(verifier, mint(claims=payload.encode()))

    @pytest.mark.parametrize("scope", [None, 1, ["posts:create"], {"posts:create": 1}])
    def test_scope_is_a_text_rfc9068_2_2_3(self, verifier: Verifier, mint: Mint, scope: object) -> None:
        refused(verifier, mint(claims={"scope": scope}), "scope is not a text")

    @pytest.mark.parametrize("name", ["roles", "amr"])
    @pytest.mark.parametrize("value", ["admin", None, 1, {"admin": 1}, ["user", 1], [["admin"]]])
    def test_lists_of_texts(self, verifier: Verifier, mint: Mint, name: str, value: object) -> None:
        refused(verifier, mint(claims={name: value}), f"{name} is not a list of texts")

    @pytest.mark.parametrize("name", ["sid", "acr"])
    @pytest.mark.parametrize("value", [None, "", 1, ["x"]])
    def test_optional_texts(self, verifier: Verifier, mint: Mint, name: str, value: object) -> None:
        refused(verifier, mint(claims={name: value}), f"{name} is not a text")

    def test_duplicate_member_rfc7519_4(self, verifier: Verifier, mint: Mint) -> None:
        payload = json.dumps(dict(verifier.verify(mint()).raw)).encode()
        for extra in (b'"aud":"https://api.example"', b'"sub":"admin"', b'"x":{"y":1,"y":2}'):
            refused(verifier, mint(claims=payload[:-1] + b"," + extra + b"}"), "duplicate member")

    @pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"1", b'"x"', b"{", b"{}{}", b"\xff\xfe", b"{'a':1}"])
    def test_not_a_json_object(self, verifier: Verifier, mint: Mint, payload: bytes) -> None:
        refused(verifier, mint(claims=payload), "payload: ")

    def test_bound_token_without_proof_rfc8705_3_rfc9449_7_2(
        self, verifier: Verifier, make_verifier: Make, mint: Mint
    ) -> None:
        token = mint(claims={"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})
        refused(verifier, token, "bound to a key")
        assert make_verifier(accept_bound=True).verify(token).raw["cnf"]


class TestTime:
    """RFC 7519 sections 4.1.4 to 4.1.6; NOW is 1800000000."""

    @pytest.mark.parametrize("leeway", [0, 30, 60])
    def test_exp_is_the_first_moment_of_death(self, make_verifier: Make, mint: Mint, leeway: int) -> None:
        verifier = make_verifier(leeway=leeway)
        assert verifier.verify(mint(claims={"exp": NOW - leeway + 0.001})).sub
        refusal = refused(verifier, mint(claims={"exp": NOW - leeway}), "expired")
        assert refusal.description == "The access token is expired."

    @pytest.mark.parametrize("leeway", [0, 30, 60])
    @pytest.mark.parametrize("name", ["iat", "nbf"])
    def test_not_before_its_time(self, make_verifier: Make, mint: Mint, name: str, leeway: int) -> None:
        verifier = make_verifier(leeway=leeway)
        assert verifier.verify(mint(claims={name: NOW + leeway})).sub
        refused(verifier, mint(claims={name: NOW + leeway + 0.001}), f"{name} lies in the future")

    def test_leeway_is_30_s_unless_told(self, verifier: Verifier, mint: Mint) -> None:
        assert verifier.verify(mint(claims={"exp": NOW - 29})).sub
        refused(verifier, mint(claims={"exp": NOW - 30}), "expired")

    @pytest.mark.parametrize("leeway", [-1, 61, math.nan, math.inf])
    def test_leeway_is_at_most_a_minute(self, make_verifier: Make, leeway: float) -> None:
        with pytest.raises(ValueError, match="leeway"):
            make_verifier(leeway=leeway)

    def test_the_clock_is_asked_each_time(self, make_verifier: Make, mint: Mint) -> None:
        times = iter([NOW, NOW + 330])
        verifier = make_verifier(clock=lambda: next(times))
        assert verifier.verify(mint()).sub
        refused(verifier, mint(), "expired")


class TestCheck:
    def test_check_has_the_last_word(self, make_verifier: Make, mint: Mint) -> None:
        def check(claims: Claims) -> None:
            if claims.sid == "s1":
                raise InvalidToken("session ended", description="The access token is revoked.")

        verifier = make_verifier(check=check)
        assert refused(verifier, mint(), "session ended").description == "The access token is revoked."
        assert verifier.verify(mint(claims={"sid": "s2"})).sid == "s2"

    def test_check_sees_no_token_that_failed_before(self, make_verifier: Make, mint: Mint) -> None:
        seen: list[Claims] = []
        verifier = make_verifier(check=seen.append)
        for token in (mint(claims={"exp": NOW - 60}), mint(claims={"cnf": {}}), mint()[:-4]):
            refused(verifier, token)
        assert not seen
        verifier.verify(mint())
        assert len(seen) == 1

    @pytest.mark.parametrize("empty", ["issuer", "audience"])
    def test_no_verifier_without_issuer_or_audience(self, make_verifier: Make, empty: str) -> None:
        with pytest.raises(ValueError, match="must not be empty"):
            make_verifier(**{empty: ""})


class TestCost:
    """Refused without work: under 5 ms of CPU (CVE-2025-61920, CVE-2026-119284, CVE-2023-6681)."""

    HEADERS = {  # noqa: RUF012 - only read
        "JWE": b'{"alg":"PBES2-HS256+A128KW","p2c":2147483647,"p2s":"AAAA","enc":"A128GCM"}',
        "zip": b'{"alg":"RS256","typ":"at+jwt","kid":"rs","zip":"DEF"}',
        "p2c": b'{"alg":"RS256","typ":"at+jwt","kid":"rs","p2c":2147483647}',
    }

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param("a" * 2**20, id="1 MiB"),
            pytest.param("." * 2**20, id="1 MiB of dots"),
            pytest.param(".".join(["a" * 2**20] * 3), id="3 MiB in segments"),
            pytest.param(b64(HEADERS["JWE"]) + ".AAAA" * 4, id="JWE"),
            pytest.param(b64(HEADERS["JWE"]) + ".AAAA" * 2, id="JWE in three segments"),
            pytest.param(b64(HEADERS["zip"]) + "." + "A" * 12000 + ".AAAA", id="zip"),
            pytest.param(b64(HEADERS["p2c"]) + ".AAAA" * 2, id="p2c"),
            pytest.param(b64(b"[" * 12000) + ".AAAA" * 2, id="nested lists"),
            pytest.param(b64(b'{"a":' * 2400) + ".AAAA" * 2, id="nested objects"),
        ],
    )
    def test_hostile_tokens_are_cheap(self, verifier: Verifier, token: str) -> None:
        costs = []
        for _ in range(5):
            started = time.process_time()
            refused(verifier, token)
            costs.append(time.process_time() - started)
        assert min(costs) < 0.005

    def test_16_kib_pass_and_one_byte_more_does_not(self, verifier: Verifier, mint: Mint) -> None:
        room = 16 * 1024 - len(mint(claims={"x": ""}))
        fitting = next(
            token for pad in range(room) if len(token := mint(claims={"x": "x" * (room * 3 // 4 - pad)})) <= 2**14
        )
        assert len(fitting) > 2**14 - 4
        assert verifier.verify(fitting).sub
        refused(verifier, "A" + fitting + "A" * (2**14 - len(fitting)), "too long")

    def test_signed_payload_nested_too_deep_is_no_crash(self, verifier: Verifier, mint: Mint) -> None:
        # CVE-2026-101918
        for depth in (600, 1500):
            refused(verifier, mint(claims=b'{"x":' * depth + b"1" + b"}" * depth), "nested too deep")
            refused(verifier, mint(claims=b'{"x":' + b"[" * depth + b"]" * depth + b"}"), "nested too deep")

    def test_depth_is_bounded_however_high_the_recursion_limit(self, verifier: Verifier) -> None:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(1_000_000)
        try:
            refused(verifier, b64(b"[" * 12000) + ".AAAA" * 2, "nested too deep")
        finally:
            sys.setrecursionlimit(limit)

    def test_no_stack_left_is_a_refusal_too(self, verifier: Verifier, mint: Mint) -> None:
        token = mint(claims=b'{"x":' * 400 + b"1" + b"}" * 400)

        def sink(levels: int) -> None:
            if levels:
                sink(levels - 1)
            else:
                refused(verifier, token)  # why depends on how Python counts: 3.12 gives C code a stack of its own

        used = len(inspect.stack())
        sink(sys.getrecursionlimit() - used - 300)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "roles", "sid", "cnf"]
)


class TestNothingElseEscapes:
    """Whatever comes in, the answer is Claims or TokenError."""

    def judge(self, verifier: Verifier, token: str) -> None:
        try:
            assert isinstance(verifier.verify(token), Claims)
        except TokenError as refusal:
            public = refusal.description
        else:
            return
        # RFC 6750 section 3: nothing of the input is ever public.
        assert public in {
            "The access token is not valid.",
            "The access token is expired.",
            "The access token is for another resource.",
        }

    @given(
        st.text(st.characters(exclude_categories=()), max_size=200)
        | st.binary().map(lambda data: data.decode("latin-1"))
    )
    @settings(database=None, deadline=None, max_examples=500)
    def test_any_text(self, verifier: Verifier, token: str) -> None:
        self.judge(verifier, token)

    @given(st.tuples(*[st.binary() | JSON.map(lambda value: json.dumps(value).encode())] * 3))
    @settings(database=None, deadline=None, max_examples=300)
    def test_any_three_segments(self, verifier: Verifier, segments: tuple[bytes, ...]) -> None:
        self.judge(verifier, ".".join(map(b64, segments)))

    @given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), JSON, max_size=2))
    @settings(database=None, deadline=None)
    def test_any_signed_header(self, verifier: Verifier, mint: Mint, header: dict[str, Any]) -> None:
        self.judge(verifier, mint(header))

    @given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
    @settings(database=None, deadline=None, max_examples=200)
    def test_any_signed_claims(self, verifier: Verifier, mint: Mint, claims: dict[str, Any]) -> None:
        self.judge(verifier, mint(claims=claims))

    @pytest.mark.parametrize(
        "token", ["", ".", "..", "...", "\x00", "\ud800", "\ud800.\ud800.\ud800", "é.é.é", "\u0661.a.b"]
    )
    def test_known_oddities(self, verifier: Verifier, token: str) -> None:
        refused(verifier, token)

    def test_the_private_reason_never_holds_the_token(self, verifier: Verifier, mint: Mint) -> None:
        claims = b'{"sub": "a-name-nobody-else-has", \xff}'
        for token in (
            mint(claims=claims),
            mint(claims=claims[:-2]),
            mint(claims=claims[:-3] + b"}"),
            mint(claims={"iss": "x"}),
        ):
            refusal = refused(verifier, token)
            assert "a-name-nobody" not in str(refusal) + repr(refusal)
            assert token[-20:] not in str(refusal) + repr(refusal)


def test_the_verifier_ships_alone() -> None:
    program = "import sys, tokenserver.verify; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.split()
    assert "joserfc" in loaded
    assert not {"flask", "werkzeug", "sqlalchemy", "redis", "authlib", "marshmallow", "dotenv"} & set(loaded)

    program = "import sys, tokenserver.verify; print(*(n for n in sys.modules if n.startswith('tokenserver')))"
    ours = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.split()
    assert all(name == "tokenserver" or name.startswith("tokenserver.verify") for name in ours)
