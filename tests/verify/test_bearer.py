"""RFC 6750: how a token may be sent, and how its refusal is told."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenserver.verify import KeysUnavailable, TokenError
from tokenserver.verify.bearer import credentials, in_query
from tokenserver.verify.errors import (
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    check_scopes,
)


class TestCredentials:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
    def test_scheme_in_any_case_rfc9110_11_1(self, scheme: str) -> None:
        assert credentials(f"{scheme} a.b.c") == "a.b.c"

    def test_any_number_of_spaces_rfc6750_2_1(self) -> None:
        assert credentials("Bearer    a.b.c") == "a.b.c"

    @pytest.mark.parametrize("token", ["aZ09-._~+/", "a=", "a=="])
    def test_alphabet_of_b64token_rfc6750_2_1(self, token: str) -> None:
        assert credentials(f"Bearer {token}") == token

    @pytest.mark.parametrize(
        "header", [None, "", " ", "Basic dXNlcjpwYXNz", "DPoP a.b.c", "Bearers a.b.c", "a.b.c", "Token x"]
    )
    def test_no_bearer_credentials_rfc6750_3_1(self, header: str | None) -> None:
        with pytest.raises(MissingCredentials) as caught:
            credentials(header)
        assert (caught.value.status, caught.value.error) == (401, None)

    @pytest.mark.parametrize(
        "header",
        [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,Bearer b",
            "Bearer a, Bearer b",
            "Bearer Bearer a",
            'Bearer token="a"',
            "Bearer a=b",
            "Bearer =",
            "Bearer \ta",
            "Bearer a\n",
            "Bearer a\r\nX-Evil: 1",
            "Bearer a\x00",
            "Bearer \xe9",
            "Bearer \ud800",
            "Bearer {a}",
        ],
    )
    def test_malformed_header_rfc6750_3_1(self, header: str) -> None:
        # Keycloak CVE-2026-0707 and CVE-2026-9803 were lenient here.
        with pytest.raises(InvalidRequest) as caught:
            credentials(header)
        assert (caught.value.status, caught.value.error) == (400, "invalid_request")

    @pytest.mark.parametrize("header", [None, "Bearer a.b.c", "Basic dXNlcjpwYXNz", "Bearer"])
    def test_a_parameter_is_refused_with_and_without_a_header_rfc9700_4_3_2(self, header: str | None) -> None:
        with pytest.raises(InvalidRequest):
            credentials(header, elsewhere=True)

    @given(st.text(st.characters(exclude_categories=())), st.sampled_from(["", "Bearer ", "bearer"]))
    @settings(database=None, deadline=None)
    def test_any_header(self, text: str, start: str) -> None:
        try:
            token = credentials(start + text)
        except TokenError:
            return
        assert re.fullmatch(r"[A-Za-z0-9\-._~+/]+=*", token)


class TestQuery:
    @pytest.mark.parametrize(
        "query",
        [
            "access_token=a",
            "access_token=",
            "access_token",
            "x=1&access_token=a",
            "access%5Ftoken=a",
            "%61ccess_token",
        ],
    )
    def test_found(self, query: str) -> None:
        assert in_query(query)

    @pytest.mark.parametrize(
        "query", ["", "x=1", "x=access_token", "Access_Token=a", "my_access_token=a", "&&", "%", "%ff=%"]
    )
    def test_not_found(self, query: str) -> None:
        assert not in_query(query)


REFUSALS: list[Callable[[], TokenError]] = [
    MissingCredentials,
    InvalidRequest,
    InvalidToken,
    lambda: InvalidToken("private", description="The access token is expired."),
    lambda: InsufficientScope(["posts:create"]),
]


class TestChallenge:
    def test_without_credentials_nothing_but_the_scheme_is_told_rfc6750_3_1(self) -> None:
        refusal = MissingCredentials("private")
        assert refusal.challenge() == 'Bearer realm="api"'
        assert refusal.challenge("https://api.example") == 'Bearer realm="https://api.example"'
        assert refusal.body() == {}

    def test_invalid_token_rfc6750_3(self) -> None:
        refusal = InvalidToken("private", description="The access token is expired.")
        assert refusal.challenge("example") == (
            'Bearer realm="example", error="invalid_token", error_description="The access token is expired."'
        )
        assert refusal.body() == {"error": "invalid_token", "error_description": "The access token is expired."}

    def test_insufficient_scope_names_what_is_needed_rfc6750_3_1(self) -> None:
        refusal = InsufficientScope(["posts:create", "posts:read"])
        assert refusal.status == 403
        assert refusal.challenge().endswith(', scope="posts:create posts:read"')
        assert 'error="insufficient_scope"' in refusal.challenge()

    @pytest.mark.parametrize("refusal", REFUSALS)
    def test_private_reasons_stay_private(self, refusal: Callable[[], TokenError]) -> None:
        assert "private" not in refusal().challenge()
        assert "private" not in str(refusal().body())

    @pytest.mark.parametrize("hostile", ['a"b', "a\\b", "a\r\nX-Evil: 1", "a\x00", "é", "\ud800", "\x7f"])
    def test_nothing_breaks_out_of_the_header_rfc6750_3(self, hostile: str) -> None:
        refusal = InvalidToken(description=hostile)
        for text in (refusal.description, refusal.challenge(hostile).replace('"', "")):
            assert re.fullmatch(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+", text)
        assert refusal.challenge(hostile).count('"') == 6

    @pytest.mark.parametrize("refusal", REFUSALS)
    def test_parameters_are_well_formed(self, refusal: Callable[[], TokenError]) -> None:
        parameter = r'[a-z_]+="[\x20-\x21\x23-\x5B\x5D-\x7E]*"'
        assert re.fullmatch(rf"Bearer {parameter}(, {parameter})*", refusal().challenge("api"))
        assert refusal().headers()["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("scopes", ["posts:create", ["a b"], [""], ['a"'], ["a\\"], ["é"], ["a\n"]])
    def test_what_no_scope_can_be_rfc6749_3_3(self, scopes: list[str]) -> None:
        with pytest.raises(ValueError, match="scope tokens"):
            check_scopes(scopes)

    def test_keys_unavailable_is_a_503_and_no_challenge(self) -> None:
        refusal = KeysUnavailable()
        assert refusal.status == 503
        assert refusal.headers() == {"Retry-After": "5", "Cache-Control": "no-store"}
        assert refusal.body()["error"] == "temporarily_unavailable"
