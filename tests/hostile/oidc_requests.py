"""Hostile requests to what OpenID Connect brings: the authorization endpoint, registration, userinfo, logout,
consents. Data, read by `test_section0`; a client "web" is registered with the redirect URI below.
"""

import json
from urllib.parse import quote

from tests.hostile.requests import BAD_ESCAPES, BEARER, FORM, JSON, NOT_OBJECTS, Hostile

CALLBACK = "https://web.example/cb"
AUTHORIZE = "/oauth/authorize"
GOOD = {
    "client_id": "web",
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "scope": "openid",
    "state": "s",
    "nonce": "n",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256",
    "prompt": "login",
    "max_age": "0",
    "claims": "{}",
}
ELSEWHERE = (
    *("https://evil.example/cb", "//evil.example", "/\\evil.example", "/\t/evil.example", "https:evil.example"),
    *(
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "http://[",
    ),
    *(
        f"{CALLBACK}@evil.example",
        f"{CALLBACK}/../x",
        f"{CALLBACK}#x",
        f"{CALLBACK}?x",
        f"{CALLBACK}%00",
        f"{CALLBACK}.",
    ),
    *(
        "https://web.example:443/cb",
        "https://WEB.example/cb",
        "https://web.example\\@evil.example/cb",
        "\">'<script>",
    ),
    *(
        "https://evil.example/https://web.example/cb",
        "https://web.example.evil.example/cb",
        "http://web.example/cb",
    ),
)


def _encoded(parameters: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())


def _authorize(what: str, query: str, *, status: int = 400, word: str = "invalid_request") -> list[Hostile]:
    """By GET and by POST."""
    never = ("evil.example", "<script>", "Traceback")
    posted = Hostile(f"{what}, posted", AUTHORIZE, status, word, "POST", query, FORM, never=never, page=True)
    return [Hostile(what, f"{AUTHORIZE}?{query}", status, word, "GET", never=never, page=True), posted]


# Whom nobody knows, and where nobody may be sent: a page, and no redirect (RFC 6749 section 4.1.2.1).
AUTHORIZATION = [
    row for uri in ELSEWHERE for row in _authorize(f"redirect_uri {uri!r}", _encoded(GOOD | {"redirect_uri": uri}))
]
AUTHORIZATION += [
    row
    for client_id in ("", "nobody", "first-party", "WEB", "web ", "web\\", "../web", "w" * 300, "☃", "' OR 1=1 --")
    for row in _authorize(f"client_id {client_id[:20]!r}", _encoded(GOOD | {"client_id": client_id}))
]
AUTHORIZATION += [
    row
    for what, text in BAD_ESCAPES.items()
    for name in GOOD
    for row in _authorize(f"{what} in {name}", _encoded(GOOD | {name: "\x01"}).replace("%01", text))
]
AUTHORIZATION += [
    row
    for name in GOOD
    for again in ("", "other")
    for row in _authorize(f"{name} twice", f"{_encoded(GOOD)}&{name}={again}")
]
AUTHORIZATION += _authorize("51 parameters", "&".join(f"p{n}=x" for n in range(51)))
AUTHORIZATION += _authorize("no parameters", "")
AUTHORIZATION += [
    Hostile("a body in JSON", AUTHORIZE, 400, "invalid_request", "POST", json.dumps(GOOD), JSON, page=True),
    Hostile(
        "parameters in two places",
        f"{AUTHORIZE}?client_id=web",
        400,
        "invalid_request",
        "POST",
        _encoded(GOOD),
        FORM,
        page=True,
    ),
    Hostile("70 KiB", AUTHORIZE, 413, "invalid_request", "POST", "state=" + "x" * 70_000, FORM, page=True),
    *(
        Hostile(f"interaction {name!r}", f"{AUTHORIZE}/{name}", 400, "invalid_request", "GET", page=True)
        for name in ("x", "A" * 43, "A" * 3000, "%00", "%FF", "<script>alert(1)")
    ),
    Hostile("cancelling nobody's", f"{AUTHORIZE}/{'A' * 43}?cancel=1", 400, "invalid_request", "GET", page=True),
]

# Nobody registers without an invitation, whatever they send; and nobody manages a client by a guess.
REGISTRATION = [
    Hostile(
        f"registering by {authorization[:30]!r}",
        "/oauth/register",
        401 if word != "invalid_request" else 400,
        word,
        "POST",
        json.dumps({"redirect_uris": [CALLBACK]}),
        JSON,
        {"Authorization": authorization},
    )
    for authorization, word in (
        ("Bearer iat_x", "invalid_token"),
        ("Bearer {access}", "invalid_token"),
        ("Bearer {admin_access}", "invalid_token"),
        ("Bearer ", "invalid_request"),
        ("Bearer a b", "invalid_request"),
        ("Basic {basic}", "authentication_required"),
        ("Bearer \xff", "invalid_request"),
    )
]
REGISTRATION += [
    Hostile(
        f"{method} of {client_id!r} by {token[:20]!r}",
        f"/oauth/register/{client_id}",
        401,
        "invalid_token",
        method,
        json.dumps({"client_id": client_id, "redirect_uris": [CALLBACK]}) if method == "PUT" else b"",
        JSON if method == "PUT" else None,
        {"Authorization": f"Bearer {token}"},
        never=("redirect_uris",),
    )
    for method in ("GET", "PUT", "DELETE")
    for client_id in ("web", "first-party", "nobody", "%00", "☃")
    for token in ("rat_x", "{access}", "{admin_access}")
]
REGISTRATION += [
    Hostile(f"{what}, uninvited", "/oauth/register", 401, "authentication_required", "POST", body, JSON)
    for what, body in NOT_OBJECTS.items()
]

USERINFO = [
    Hostile(f"userinfo by {authorization[:30]!r}", "/oauth/userinfo", status, word, method, headers=headers)
    for method in ("GET", "POST")
    for authorization, status, word in (
        ("", 401, "authentication_required"),
        ("Bearer x", 401, "invalid_token"),
        ("Bearer {tampered}", 401, "invalid_token"),
        ("Bearer {unsigned}", 401, "invalid_token"),
        ("Bearer {revoked}", 401, "invalid_token"),
        ("Bearer {refresh}", 401, "invalid_token"),
        ("Bearer {poster}", 403, "insufficient_scope"),
        ("Bearer {narrow}", 403, "insufficient_scope"),
        ("Bearer {access}, Bearer {access}", 400, "invalid_request"),
        ("Basic {basic}", 401, "authentication_required"),
    )
    if (headers := {"Authorization": authorization} if authorization else {}) is not None
]
USERINFO += [
    Hostile("a token in the query", "/oauth/userinfo?access_token={access}", 400, "invalid_request", "GET"),
    Hostile(
        "a token twice",
        "/oauth/userinfo",
        400,
        "invalid_request",
        "POST",
        "access_token={access}",
        FORM,
        {"Authorization": "Bearer {access}"},
    ),
    Hostile("two tokens", "/oauth/userinfo", 400, "invalid_request", "POST", "access_token=x&access_token=y", FORM),
]

# Nobody signed in: no redirect but to a registered address.
LOGOUT = [
    Hostile(
        f"logout, {what}",
        f"/oauth/logout?{query}",
        400,
        "invalid_request",
        "GET",
        never=("evil.example",),
        page=True,
    )
    for what, query in (
        ("an address alone", "post_logout_redirect_uri=https://evil.example/"),
        ("an unregistered address", "client_id=web&post_logout_redirect_uri=https://evil.example/"),
        ("a hint that is none", "id_token_hint=x&post_logout_redirect_uri=https://evil.example/"),
        ("an access token as a hint", "id_token_hint={access}"),
        ("an unsigned hint", "id_token_hint={unsigned}"),
        ("an unknown client", "client_id=nobody"),
        ("a parameter twice", "state=a&state=b"),
        ("a NUL byte", "state=%00"),
        ("no UTF-8", "state=%FF"),
    )
]

CONSENTS = [
    Hostile(
        "somebody else's consent", "/users/me/consents/nobody", 404, "consent_not_found", "DELETE", headers=BEARER
    ),
    Hostile("a NUL byte", "/users/me/consents/%00", 404, "consent_not_found", "DELETE", headers=BEARER),
    Hostile("a long id", f"/users/me/consents/{'x' * 3000}", 404, "consent_not_found", "DELETE", headers=BEARER),
    Hostile("no token", "/users/me/consents", 401, "authentication_required", "GET"),
    Hostile(
        "a client's token",
        "/users/me/consents",
        403,
        "user_required",
        "GET",
        headers={"Authorization": "Bearer {poster}"},
    ),
    Hostile("a cursor", "/users/me/consents?cursor=x", 422, "validation_failed", "GET", headers=BEARER),
    Hostile("an unknown parameter", "/users/me/consents?x=1", 422, "validation_failed", "GET", headers=BEARER),
]

# Forms without the proof that they are this browser's own, and pages about nothing.
PAGES = [
    Hostile(f"a form from elsewhere: {path}", path, 403, "csrf_failed", "POST", body, FORM, page=True)
    for path in (
        *("/login", "/login/sign-out", "/register", "/consent", "/device"),
        *("/account", "/account/password", "/account/sessions", "/account/applications"),
    )
    for body in (
        "",
        "csrf=x",
        "csrf=&username=admin&password=x",
        "csrf=%E2%98%83&decision=allow&user_code=BCDF-GHJK",
    )
]
PAGES += [
    Hostile(
        f"{what}: {path}", f"{path}?{query}", status, word, "GET", never=("evil.example", "<script>"), page=True
    )
    for path in ("/login", "/register", "/consent")
    for what, query, status, word in (
        ("an unknown interaction", "interaction=x", 404, "interaction_not_found"),
        ("an interaction that could be", f"interaction={'A' * 43}", 404, "interaction_not_found"),
        ("a script", "interaction=<script>", 404, "interaction_not_found"),
        ("an address", "interaction=https://evil.example/", 404, "interaction_not_found"),
        ("a parameter twice", "interaction=x&interaction=y", 400, "malformed_request"),
        ("a NUL byte", "interaction=%00", 400, "malformed_request"),
        ("no UTF-8", "interaction=%FF", 400, "malformed_request"),
    )
]
PAGES += [
    Hostile("a code twice", "/device?user_code=x&user_code=y", 400, "malformed_request", "GET", page=True),
    Hostile("a NUL byte in a code", "/device?user_code=%00", 400, "malformed_request", "GET", page=True),
    Hostile("a file above", "/pages/..%2F..%2Fpyproject.toml", 404, "not_found", "GET"),
    Hostile("a template", "/pages/login.html", 404, "not_found", "GET"),
    Hostile(
        "a frame with a script", "/oauth/check_session?<script>", 200, "", "GET", never=("?<script",), page=True
    ),
    Hostile("logout in JSON", "/oauth/logout", 400, "invalid_request", "POST", "{}", JSON, page=True),
]

OIDC_REQUESTS = {
    "pages": PAGES,
    "authorization": AUTHORIZATION,
    "registration, userinfo, logout and consents": REGISTRATION + USERINFO + LOGOUT + CONSENTS,
}
