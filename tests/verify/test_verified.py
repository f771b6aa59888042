"""A token that comes again: nothing is checked less, but its signature and claims once."""

from typing import Any

import pytest

from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.jwks import PublicKey
from tokenserver.verify.testing import PretendIssuer
from tokenserver.verify.verified import KEPT, LARGEST, digest_of

AUDIENCE = "https://api.test"


@pytest.fixture
def issuer() -> PretendIssuer:
    return PretendIssuer()


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Those that were checked."""
    checked: list[bytes] = []
    check = PublicKey.verify

    def counted(self: PublicKey, signature: bytes, signing_input: bytes) -> bool:
        checked.append(signature)
        return check(self, signature, signing_input)

    monkeypatch.setattr(PublicKey, "verify", counted)
    return checked


def test_its_signature_is_checked_once(issuer: PretendIssuer, signatures: list[bytes]) -> None:
    verifier = issuer.verifier(AUDIENCE)
    token, other = issuer.token(AUDIENCE), issuer.token(AUDIENCE)
    first = verifier.verify(token)
    assert verifier.verify(token) is first
    assert verifier.verify(other).jti != first.jti
    assert len(signatures) == 2


def test_its_end_and_its_revocation_are_looked_at_each_time(issuer: PretendIssuer, signatures: list[bytes]) -> None:
    now, revoked = [0.0], [False]

    def check(_claims: object) -> None:
        if revoked[0]:
            raise InvalidToken("revoked")

    verifier = issuer.verifier(AUDIENCE, clock=lambda: now[0], check=check, leeway=0)
    token = issuer.token(AUDIENCE, iat=0, exp=60)
    verifier.verify(token)
    revoked[0] = True
    with pytest.raises(InvalidToken, match="revoked"):
        verifier.verify(token)
    revoked[0], now[0] = False, 59.9
    verifier.verify(token)
    now[0] = 60.0
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(token)
    assert len(signatures) == 1


def test_a_key_that_is_gone_takes_its_tokens_along(issuer: PretendIssuer, signatures: list[bytes]) -> None:
    verifier = issuer.verifier(AUDIENCE)
    keys: Any = verifier._keys
    token = issuer.token(AUDIENCE)
    verifier.verify(token)
    mine = dict(keys._keys)
    keys._keys = {}
    with pytest.raises(InvalidToken, match="unknown kid"):
        verifier.verify(token)
    stranger: Any = PretendIssuer().verifier(AUDIENCE)._keys
    keys._keys = dict.fromkeys(mine, next(iter(stranger._keys.values())))
    with pytest.raises(InvalidToken, match="wrong signature"):
        verifier.verify(token)
    keys._keys = mine
    verifier.verify(token)
    assert len(signatures) == 2


def test_one_that_was_refused_is_looked_at_again(issuer: PretendIssuer, signatures: list[bytes]) -> None:
    verifier = issuer.verifier(AUDIENCE)
    for token in (issuer.token("https://other.test"), issuer.token(AUDIENCE)[:-8] + "AAAAAAAA"):
        for _ in range(2):
            with pytest.raises(InvalidToken):
                verifier.verify(token)
    assert len(signatures) == 4


def test_other_spellings_of_a_token_are_other_tokens(issuer: PretendIssuer) -> None:
    verifier = issuer.verifier(AUDIENCE)
    token = issuer.token(AUDIENCE)
    verifier.verify(token)
    for other in (token + "=", token + "\n", " " + token, token + "\u0000", token.replace(".", ". ", 1)):
        with pytest.raises(InvalidToken):
            verifier.verify(other)


def test_the_memory_for_it_is_bounded(issuer: PretendIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PublicKey, "verify", lambda *_: True)
    verifier = issuer.verifier(AUDIENCE)
    token = issuer.token(AUDIENCE)
    head, payload, _ = token.split(".")
    for number in range(KEPT + 2):
        verifier.verify(f"{head}.{payload}.{number:04d}")
    assert len(verifier._verified._verified) <= KEPT
    assert digest_of("a" * (LARGEST + 1)) is None
    assert digest_of("ü") is None
