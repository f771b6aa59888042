"""This server as a WebAuthn relying party: its name, its origin, what it asks of passkeys and how it reads them.

The one module that knows the library `webauthn`. It is loaded at first need: with what it brings along, the reading
of certificates above all, it takes 5 MB of each process.
"""

import ipaddress
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from webauthn.authentication.verify_authentication_response import VerifiedAuthentication
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor
    from webauthn.registration.verify_registration_response import VerifiedRegistration

T = TypeVar("T")
TIMEOUT_MS: Final = 300_000
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_CREDENTIAL_ID: Final = 1023  # WebAuthn Level 3 section 5.8.3


class NotAccepted(Exception):
    """What came is no answer of an authenticator to this server. The message is for the log."""


class Known(NamedTuple):
    """`transports`: how a browser reaches its authenticator, as it said itself."""

    credential_id: bytes
    transports: Sequence[str]

    def described(self) -> "PublicKeyCredentialDescriptor":
        from webauthn.helpers.structs import AuthenticatorTransport, PublicKeyCredentialDescriptor

        transports = [AuthenticatorTransport(each) for each in self.transports]
        return PublicKeyCredentialDescriptor(id=self.credential_id, transports=transports or None)


class Answered(NamedTuple):
    """What of an answer is known before it is verified."""

    credential_id: bytes
    challenge: bytes
    user_handle: bytes | None


class RelyingParty:
    """`is_possible`: browsers bind passkeys to a domain name, and to secure contexts alone (WebAuthn Level 3
    sections 5.1.3 and 13.4.9); so not to an address, and by plain http to localhost alone."""

    def __init__(self, issuer: str) -> None:
        parts = urlsplit(issuer)
        self.id = parts.hostname or ""
        port = "" if parts.port in {None, DEFAULT_PORTS.get(parts.scheme)} else f":{parts.port}"
        self.origin = f"{parts.scheme}://{self.id}{port}"
        is_local = self.id == "localhost" or self.id.endswith(".localhost")
        self.is_possible = (parts.scheme == "https" or is_local) and not _is_address(self.id)

    def creation(self, challenge: bytes, user_id: bytes, username: str, known: Sequence[Known]) -> dict[str, Any]:
        """`known`: credentials of the user, of which no authenticator needs a second."""
        from webauthn import generate_registration_options, options_to_json
        from webauthn.helpers.structs import (
            AuthenticatorSelectionCriteria,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        options = generate_registration_options(
            rp_id=self.id,
            rp_name=self.id,
            user_id=user_id,
            user_name=username,
            challenge=challenge,
            timeout=TIMEOUT_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=[each.described() for each in known],
        )
        return dict(json.loads(options_to_json(options)))

    def request(self, challenge: bytes, known: Sequence[Known]) -> dict[str, Any]:
        """`known`: as a second factor, those of the user; none to sign in with whichever the user chooses, which
        must verify them then."""
        from webauthn import generate_authentication_options, options_to_json
        from webauthn.helpers.structs import UserVerificationRequirement

        verification = UserVerificationRequirement.PREFERRED if known else UserVerificationRequirement.REQUIRED
        options = generate_authentication_options(
            rp_id=self.id,
            challenge=challenge,
            timeout=TIMEOUT_MS,
            allow_credentials=[each.described() for each in known],
            user_verification=verification,
        )
        return dict(json.loads(options_to_json(options)))

    @staticmethod
    def transports(credential: dict[str, Any]) -> list[str]:
        """Those that WebAuthn Level 3 section 5.8.4 knows, of an answer that was read."""
        from webauthn.helpers.structs import AuthenticatorTransport

        response = credential.get("response")
        given = response.get("transports") if isinstance(response, dict) else None
        return [each.value for each in AuthenticatorTransport if isinstance(given, list) and each.value in given]

    @staticmethod
    def read(credential: object) -> Answered:
        """Raises NotAccepted."""
        from webauthn.helpers import base64url_to_bytes, parse_client_data_json

        def read(answer: Any) -> Answered:
            response = answer["response"]
            client_data = parse_client_data_json(base64url_to_bytes(response["clientDataJSON"]))
            if client_data.cross_origin:
                # WebAuthn Level 3 section 7.2 step 13: no page of ours is ever within another site's.
                raise NotAccepted("from within another site")
            handle = response.get("userHandle")
            credential_id = base64url_to_bytes(answer["rawId"])
            if len(credential_id) > MAX_CREDENTIAL_ID:
                raise NotAccepted("a credential id that is too long")
            return Answered(credential_id, client_data.challenge, base64url_to_bytes(handle) if handle else None)

        return _tried(lambda: read(credential))

    def registered(self, credential: dict[str, Any], challenge: bytes) -> "VerifiedRegistration":
        """WebAuthn Level 3 section 7.1. Raises NotAccepted."""
        from webauthn import verify_registration_response

        return _tried(
            lambda: verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.id,
                expected_origin=self.origin,
            )
        )

    def authenticated(
        self, credential: dict[str, Any], challenge: bytes, public_key: bytes, *, must_verify_user: bool
    ) -> "VerifiedAuthentication":
        """WebAuthn Level 3 section 7.2, but for the count of signatures. Raises NotAccepted."""
        from webauthn import verify_authentication_response

        return _tried(
            lambda: verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.id,
                expected_origin=self.origin,
                credential_public_key=public_key,
                credential_current_sign_count=0,
                require_user_verification=must_verify_user,
            )
        )


def _tried(reading: Callable[[], T]) -> T:
    try:
        return reading()
    except Exception as error:  # noqa: BLE001 - the library has its own for most of what can be wrong
        # CBOR, COSE and certificates by whoever sent them; the rest is left to the parsers of these.
        raise NotAccepted(f"{type(error).__name__}: {error}"[:200]) from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
