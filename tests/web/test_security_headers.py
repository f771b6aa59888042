"""Headers that every answer carries (OWASP ASVS 5.0 section 3.4)."""

from tests.conftest import Api, Apps

PATHS = ("/users/me", "/nothing", "/healthz", "/oauth/token", "/.well-known/openid-configuration")


def test_every_answer_is_framed_sniffed_and_scripted_by_nobody(api: Api):
    for path in PATHS:
        headers = api.http.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        # object-src falls back to default-src; base-uri and frame-ancestors don't.
        assert (policy["default-src"], policy["base-uri"], policy["frame-ancestors"]) == ("'none'",) * 3
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
        # RFC 6797 section 7.2: not over plain http
        assert "Strict-Transport-Security" not in headers
        assert "Server" not in headers
        assert "Set-Cookie" not in headers


def test_what_is_personal_is_not_stored_and_not_shared(api: Api):
    token = api.signed_in()["access_token"]
    for response in (api.me(token), api.me("nonsense"), api.http.get("/users/me/sessions")):
        assert response.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in response.headers


def test_https_is_demanded_for_a_year_where_the_issuer_has_it(apps: Apps):
    client = apps(issuer="https://id.example").test_client()
    for path in PATHS:
        value = client.get(path).headers["Strict-Transport-Security"]
        assert int(value.partition("max-age=")[2].partition(";")[0]) >= 31_536_000
