"""OAuth errors (RFC 6749 section 5.2) as values, and how they are answered."""

from http import HTTPStatus
from typing import Final

from flask import Response, json

from tokenserver.errors import Refused
from tokenserver.verify.errors import Refusal
from tokenserver.web.problems import Failure
from tokenserver.web.request_context import current


class OAuthError(Refused):
    """`error`: the RFC's word. `reason`: why, for the doors that may tell (`auth.routes`), and for the log.

    `is_certain`: it depends on nothing that could have changed meanwhile.
    """

    error = "invalid_request"
    status = 400
    description = "The request is malformed."

    def __init__(
        self, description: str | None = None, *, reason: str | None = None, is_certain: bool = False
    ) -> None:
        self.reason = reason
        self.is_certain = is_certain
        super().__init__(description or self.description, code=self.error, private=reason or "")


class InvalidRequest(OAuthError):
    pass


class BodyTooLarge(OAuthError):
    status = 413
    description = "The body is larger than 64 KiB."


class InvalidClient(OAuthError):
    """One sentence for every way to fail: it never tells whether a client exists."""

    error = "invalid_client"
    status = 401
    description = "Client authentication failed."


class InvalidGrant(OAuthError):
    error = "invalid_grant"
    description = "The grant is wrong, expired or revoked."


class UnauthorizedClient(OAuthError):
    error = "unauthorized_client"
    description = "This client may not use this grant."


class UnsupportedGrantType(OAuthError):
    error = "unsupported_grant_type"
    description = "This grant type is not supported."


class InvalidScope(OAuthError):
    error = "invalid_scope"
    description = "The scope is unknown, malformed or beyond what may be asked for."


class InvalidTarget(OAuthError):
    """RFC 8707 section 2."""

    error = "invalid_target"
    description = "The resource is unknown, malformed or not for this client."


class AccessDenied(OAuthError):
    error = "access_denied"
    description = "The user or the server refused the request."


class AuthorizationPending(OAuthError):
    """RFC 8628 section 3.5; so are the next two."""

    error = "authorization_pending"
    description = "The user has not answered yet. Ask again after the interval."


class SlowDown(OAuthError):
    error = "slow_down"
    description = "Too early. The interval is five seconds longer from now on."


class ExpiredToken(OAuthError):
    error = "expired_token"
    description = "The device code is expired. Begin again."


class LoginRequired(OAuthError):
    """OIDC Core section 3.1.2.6; so are the next four."""

    error = "login_required"
    description = "The user must sign in."


class ConsentRequired(OAuthError):
    error = "consent_required"
    description = "The user must consent."


class InvalidRequestUri(OAuthError):
    error = "invalid_request_uri"
    description = "The request_uri is not registered, or what it names can not be used."


class InvalidRequestObject(OAuthError):
    error = "invalid_request_object"
    description = "The request object is malformed, not signed by this client or not for this server."


class RegistrationNotSupported(OAuthError):
    error = "registration_not_supported"
    description = "The registration parameter is not supported."


class UnmetAuthenticationRequirements(OAuthError):
    """OpenID Connect Core Error Code unmet_authentication_requirements 1.0."""

    error = "unmet_authentication_requirements"
    description = "The user can not be authenticated as the request demands."


class InvalidClientMetadata(OAuthError):
    """RFC 7591 section 3.2.2; so are the next two."""

    error = "invalid_client_metadata"
    description = "The metadata has missing or wrong members."


class InvalidRedirectUri(OAuthError):
    error = "invalid_redirect_uri"
    description = "A redirect_uri can not be registered."


class InvalidSoftwareStatement(OAuthError):
    error = "unapproved_software_statement"
    description = "No publisher of software statements is trusted."


class RegistrationClosed(OAuthError):
    error = "access_denied"
    status = 403
    description = "Clients can not register themselves at this server."


class UnsupportedResponseType(OAuthError):
    error = "unsupported_response_type"
    description = "This response type is not supported."


# What isn't a refusal by the protocol, in words that RFC 6749 section 4.1.2.1 knows for it.
WORDS: Final = {429: "slow_down", 500: "server_error", 503: "temporarily_unavailable"}


def render(failure: Failure, error: Exception) -> Response:
    """The tongue of everything below /oauth/."""
    if isinstance(error, OAuthError):
        scheme = {401: "Basic", 403: "Bearer"}.get(error.status)
        headers = {"WWW-Authenticate": f'{scheme} realm="oauth"'} if scheme else {}
        return answer(error.status, error.error, error.public, headers)
    if isinstance(error, Refusal):
        # RFC 6750 section 3: what is wrong with a token stands in the header; the body says the same.
        return answer(failure.status, failure.code, failure.detail, dict(failure.headers))
    word = WORDS.get(failure.status, "invalid_request")
    return answer(failure.status, word, failure.detail, dict(failure.headers))


def answer(status: int, error: str, description: str, headers: dict[str, str]) -> Response:
    body = {"error": error, "error_description": description, "request_id": current().request_id}
    # RFC 6749 section 5.2: the same caching headers as a success
    headers |= {"Cache-Control": "no-store", "Pragma": "no-cache"}
    return Response(json.dumps(body), HTTPStatus(status), headers, mimetype="application/json")
