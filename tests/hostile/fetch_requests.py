"""Addresses that hostile clients name, so that the server knocks where they can't: inside. Data, read by
`test_section0`, which also sees that nobody knocked at "{listener}", a port of this machine.
"""

import json
from urllib.parse import quote

from tests.hostile.oidc_requests import AUTHORIZE, GOOD
from tests.hostile.requests import ADMIN, CLIENT, FORM, JSON, Hostile

# One loopback address as it may be spelled, and others that only we can reach.
INSIDE = (
    "http://127.0.0.1:{listener}/",
    *("https://127.0.0.1:{listener}/", "https://localhost:{listener}/", "https://127.1:{listener}/"),
    *("https://0x7f000001:{listener}/", "https://2130706433:{listener}/", "https://0177.0.0.1:{listener}/"),
    *(
        "https://[::1]:{listener}/",
        "https://[::ffff:127.0.0.1]:{listener}/",
        "https://[64:ff9b::7f00:1]:{listener}/",
    ),
    *("https://0.0.0.0:{listener}/", "https://169.254.169.254/latest/meta-data/", "https://[fd00:ec2::254]/"),
)
NO_ADDRESS = (
    *(
        "file:///etc/passwd",
        "gopher://127.0.0.1:{listener}/_x",
        "unix:///run/redis.sock",
    ),
    *("https://user:pass@127.0.0.1:{listener}/", "//127.0.0.1:{listener}/", "https://", "javascript:alert(1)"),
    *("https://127.0.0.1:{listener}/\r\nX-Evil: 1", "https://[127.0.0.1"),
)


def _client(name: str, value: object, what: str, **more: object) -> list[Hostile]:
    """A client that is made, and one that is changed."""
    body = {key: each for key, each in (CLIENT | {name: value} | more).items() if each is not None}
    sent = [("POST", "/clients", body | {"client_id": "mallory"}), ("PUT", "/clients/poster", body)]
    return [
        Hostile(
            f"{name} {what!r}: {method} {path}",
            path,
            422,
            "validation_failed",
            method,
            json.dumps(each),
            JSON,
            ADMIN,
            never=("root:", "X-Evil: 1"),
        )
        for method, path, each in sent
    ]


def _query(request_uri: str) -> str:
    sent = GOOD | {"request_uri": request_uri}
    return "&".join(f"{name}={quote(value, safe='{}')}" for name, value in sent.items())


PAIRWISE = {
    "subject_type": "pairwise",
    "grant_types": ["authorization_code"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "client_secret_basic",
}
# It is read when a client registers it.
SECTORS = [row for uri in (*INSIDE, *NO_ADDRESS) for row in _client("sector_identifier_uri", uri, uri, **PAIRWISE)]
URIS = [
    row
    for name in ("jwks_uri", "backchannel_logout_uri", "logo_uri", "policy_uri")
    for uri in NO_ADDRESS
    for row in _client(name, uri, uri, **({"jwks": None} if name == "jwks_uri" else {}))
]
# Nobody registered these: the client is told so, and nothing is read.
REQUEST_URIS = [
    Hostile(
        f"request_uri {uri!r}, {method}",
        f"{AUTHORIZE}?{query}" if method == "GET" else AUTHORIZE,
        303,
        "",
        method,
        "" if method == "GET" else query,
        None if method == "GET" else FORM,
        never=("root:",),
        page=True,
    )
    for uri in (*INSIDE, *NO_ADDRESS)
    for method in ("GET", "POST")
    for query in [_query(uri)]
]
FETCHES = {"addresses that clients name": SECTORS + URIS + REQUEST_URIS}
