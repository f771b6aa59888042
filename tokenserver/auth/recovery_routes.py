"""`/auth/password/*`, `/auth/verify-email*`: what the pages do too, for front ends of one's own."""

from typing import Any

from flask import Blueprint

from tokenserver.auth.schemas import EmailSchema, LinkSchema, NewPasswordSchema
from tokenserver.identity.recovery import Recovery
from tokenserver.mail.models import Kind
from tokenserver.web.wire import gives, refuses, takes


def blueprint(recovery: Recovery) -> Blueprint:
    routes = Blueprint("recovery", __name__, url_prefix="/auth")

    @routes.post("/password/forgot")
    @takes(EmailSchema)
    @gives(None, 202)
    @refuses((403, "mail_not_configured"), (429, "too_many_requests"))
    def forgot_password(body: dict[str, Any]) -> None:
        """Mail a link to set a new password, if there is an account with this address; nobody learns whether."""
        recovery.ask(Kind.PASSWORD_RESET, body["email"])

    @routes.post("/password/reset")
    @takes(NewPasswordSchema)
    @gives(None, 204)
    @refuses((404, "link_not_found"), (429, "too_many_requests"))
    def reset_password(body: dict[str, Any]) -> None:
        """Set a new password by the token of a mailed link; every session of the user ends."""
        recovery.set_password(body["token"], body["password"])

    @routes.post("/verify-email/request")
    @takes(EmailSchema)
    @gives(None, 202)
    @refuses((403, "mail_not_configured"), (429, "too_many_requests"))
    def request_verification(body: dict[str, Any]) -> None:
        """Mail a link to confirm this address, if it is an account's and not confirmed; nobody learns whether."""
        recovery.ask(Kind.EMAIL_VERIFICATION, body["email"])

    @routes.post("/verify-email")
    @takes(LinkSchema)
    @gives(None, 204)
    @refuses((404, "link_not_found"), (429, "too_many_requests"))
    def verify_email(body: dict[str, Any]) -> None:
        """Confirm an e-mail address by the token of a mailed link."""
        recovery.verify_email(body["token"])

    return routes
