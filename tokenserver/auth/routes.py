from typing import Any, Final

from flask import Blueprint

from tokenserver.auth.registration import Registration
from tokenserver.auth.schemas import LoginSchema, RefreshSchema, TokenSchema
from tokenserver.errors import Forbidden, Unauthenticated
from tokenserver.identity.login import Refusal
from tokenserver.identity.routes import user_body
from tokenserver.identity.schemas import RegistrationSchema, UserSchema
from tokenserver.oauth.errors import OAuthError
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.oauth.pipeline import Pipeline
from tokenserver.storage.feed import Change, Feed, Kind
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import EndReason, Sessions
from tokenserver.verify.flask import current_claims, requires
from tokenserver.web.holder import current_holder
from tokenserver.web.request_context import current
from tokenserver.web.wire import gives, refuses, takes

SECOND_FACTOR: Final = {
    Refusal.SECOND_FACTOR_REQUIRED.value: "A second factor is required: send otp too.",
    Refusal.INVALID_OTP.value: "The second factor is wrong.",
}


def blueprint(
    *,
    feed: Feed,
    registration: Registration,
    sessions: Sessions,
    pipeline: Pipeline,
) -> Blueprint:
    routes = Blueprint("auth", __name__, url_prefix="/auth")

    @routes.post("/register")
    @takes(RegistrationSchema)
    @gives(UserSchema, 201)
    @refuses(
        (403, "registration_closed"), (409, "username_taken"), (409, "email_taken"), (429, "too_many_requests")
    )
    def register(body: dict[str, Any]) -> dict[str, Any]:
        """Register, with the role `user`. A link to confirm the e-mail address is mailed."""
        return user_body(*registration.register(body))

    @routes.post("/login")
    @takes(LoginSchema)
    @gives(TokenSchema)
    @refuses(
        (401, "invalid_credentials"),
        (401, "second_factor_required"),
        (401, "invalid_otp"),
        (403, "account_disabled"),
        (429, "too_many_requests"),
    )
    def login(body: dict[str, Any]) -> dict[str, Any]:
        """Sign in with a user name or an e-mail address. A disabled account is told after the right password, and
        so is one that has a second factor: send it as `otp` then."""
        credentials = {"username": body.pop("login"), **body}
        try:
            return pipeline.first_party("password", _request(credentials))
        except OAuthError as error:
            if error.reason == "account_disabled":
                raise Forbidden("This account is disabled.", code="account_disabled") from None
            if error.reason in SECOND_FACTOR:
                raise Unauthenticated(SECOND_FACTOR[error.reason], code=error.reason) from None
            raise Unauthenticated("The name or the password is wrong.", code="invalid_credentials") from None

    @routes.post("/refresh")
    @takes(RefreshSchema)
    @gives(TokenSchema)
    @refuses((401, "invalid_refresh_token"))
    def refresh(body: dict[str, Any]) -> dict[str, Any]:
        """Get new tokens for a refresh token, which is spent."""
        try:
            return pipeline.first_party("refresh_token", _request(body))
        except OAuthError:
            raise Unauthenticated(
                "The refresh token is wrong, expired or revoked.", code="invalid_refresh_token"
            ) from None

    @routes.post("/logout")
    @requires()
    @gives(None, 204)
    def logout() -> None:
        """End this session, with all its tokens."""
        session_id = current_holder().session_id

        def end(tx: Transaction, change: Change) -> None:
            if session_id is None:
                change.note(Kind.TOKEN, current_claims().jti)  # a client's own token has no session
            else:
                change.note(Kind.SESSION, session_id)
                sessions.end(tx, change, session_id=session_id, reason=EndReason.LOGOUT)

        feed.change(end)

    return routes


def _request(parameters: dict[str, str]) -> TokenRequest:
    # Empty ones are missing to the grant (RFC 6749 section 3.2); here they are simply wrong.
    context = current()
    filled = {name: value or " " for name, value in parameters.items()}
    return TokenRequest(filled, None, context.address, context.user_agent)
