"""Another service's look at an application: its JWKS and its revocation list, over HTTP, and nothing else."""

import time

from tokenserver.verify import StaticKeys, Verifier
from tokenserver.verify.list_token import ListToken, read_list

PATH = "/oauth/revocation_list"


def read(http) -> ListToken:
    """`http`: Flask's test client. The list, verified."""
    response = http.get(PATH)
    assert response.status_code == 200, response.text
    return read_list(
        response.text,
        issuer=issuer_of(http),
        uri=http.get("/.well-known/oauth-authorization-server").json["revocation_list_uri"],
        keys=keys_of(http),
        now=time.time(),
        leeway=0,
    )


def issuer_of(http) -> str:
    return http.get("/.well-known/oauth-authorization-server").json["issuer"]


def keys_of(http) -> StaticKeys:
    return StaticKeys(http.get("/.well-known/jwks.json").json)


def verifier_of(http) -> Verifier:
    issuer = issuer_of(http)
    return Verifier(issuer=issuer, audience=issuer, keys=keys_of(http))


def listed(api, token: str) -> bool:
    """Whether the list, as of now, kills a token that is good otherwise."""
    made_a_second_ago(api.http.application)
    return read(api.http).revoked.hits(verifier_of(api.http).verify(token))


def made_a_second_ago(app) -> None:
    """A process makes a list once a second at the most; tests ask more often."""
    app.extensions["tokenserver"].revocation_list._looked_at = float("-inf")
