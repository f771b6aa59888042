"""The issuer that services test with: its tokens are like the server's, and believed by its own verifiers alone."""

import pytest

from tests.conftest import Api
from tokenserver.verify import TokenError
from tokenserver.verify.errors import InsufficientScope, InvalidToken
from tokenserver.verify.testing import PretendIssuer

AUDIENCE = "https://api.example"


def test_a_good_token_with_what_a_test_asks_for() -> None:
    issuer = PretendIssuer()
    verifier = issuer.verifier(AUDIENCE)
    claims = verifier.verify(issuer.token(AUDIENCE, scope="posts:create", sub="ann", acr="2"))
    assert (claims.sub, claims.scope, claims.acr, claims.aud) == ("ann", {"posts:create"}, "2", (AUDIENCE,))
    with pytest.raises(InsufficientScope):
        claims.require("posts:delete:any")


@pytest.mark.parametrize(
    "claims",
    [{"exp": 1}, {"aud": "https://other.example"}, {"iss": "https://other.example"}, {"client_id": None}],
    ids=str,
)
def test_bad_ones(claims: dict[str, object]) -> None:
    issuer = PretendIssuer()
    with pytest.raises(InvalidToken):
        issuer.verifier(AUDIENCE).verify(issuer.token(AUDIENCE, **claims))


def test_nobody_else_believes_them() -> None:
    """Not even another one of the same name."""
    with pytest.raises(TokenError):
        PretendIssuer().verifier(AUDIENCE).verify(PretendIssuer().token(AUDIENCE))


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_they_are_like_the_servers(api: Api, app: object) -> None:
    """So that a service doesn't pass its tests with claims that it will never see."""
    from tests.revocation_lists import verifier_of

    real = verifier_of(api.http).verify(api.signed_in()["access_token"])
    issuer = PretendIssuer()
    pretended = issuer.verifier(AUDIENCE).verify(issuer.token(AUDIENCE, scope="openid"))
    assert set(real.raw) - set(pretended.raw) == {"fam"}  # private
    assert {name: type(value) for name, value in pretended.raw.items()}.items() <= {
        name: type(value) for name, value in real.raw.items()
    }.items()
