"""OpenID Connect Core section 5.3: what the token's scope lets its client know about the user."""

from flask import Response, request

from tokenserver.compact_json import to_json
from tokenserver.identity.claims import claims_of
from tokenserver.oauth.endpoints.request import Server, read_form, uncached
from tokenserver.oauth.errors import BodyTooLarge, OAuthError
from tokenserver.tokens.access_token import sign_jwt
from tokenserver.verify.bearer import credentials, in_query, only
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import InvalidRequest, InvalidToken
from tokenserver.web.holder import current_holder

FORM = "application/x-www-form-urlencoded"


def view(server: Server) -> Response:
    body, media_type = answer(server, _token())
    return uncached(body, media_type)


def answer(server: Server, token: str) -> tuple[bytes, str]:
    """The body and its media type."""
    claims = server.active_tokens.any_audience.verify(token)
    server.admission.admit_by_scope(claims, "openid")
    client = server.clients.find(claims.client_id)
    user_id = current_holder().user_id
    person = None if user_id is None else server.rooms.people.find(user_id)
    if client is None or person is None:
        raise InvalidToken("its client or user is gone")
    # Section 5.3.2: sub is always there, and is the ID token's.
    about = {"sub": claims.sub} | claims_of(person, claims.scope, _by_name(claims))
    alg = client.metadata.userinfo_signed_response_alg
    if alg is None:
        return to_json(about), "application/json"
    # Section 5.3.2: signed claims name the issuer and the client that they are for.
    named = {"iss": server.settings.issuer, "aud": client.client_id}
    return sign_jwt(server.keys.signer(alg), "JWT", about | named).encode(), "application/jwt"


def _by_name(claims: Claims) -> list[str]:
    names = claims.raw.get("uic")
    return names if isinstance(names, list) else []


def _token() -> str:
    """Section 5.3.1: by the header, or in the form of a POST; RFC 6750 section 2: by one of them alone."""
    authorization = request.headers.get("Authorization")
    queried = in_query(request.query_string.decode("latin-1"))
    in_form = _in_form() if request.method == "POST" and request.mimetype == FORM else None
    if in_form is None or queried or authorization is not None:
        return credentials(authorization, elsewhere=queried or in_form is not None)
    return only(in_form)


def _in_form() -> str | None:
    try:
        return read_form(with_query=True).parameters.get("access_token")
    except BodyTooLarge:
        raise
    except OAuthError:
        raise InvalidRequest("malformed form") from None
