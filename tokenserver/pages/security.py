"""What becomes of the forms of `/account/security`. Each needs a sign-in of a few minutes ago, with all
that its user has (OWASP ASVS 7.5.1)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from flask import Response
from werkzeug.exceptions import BadRequest

from tokenserver.errors import Forbidden
from tokenserver.identity.login import Refusal
from tokenserver.identity.people import Person
from tokenserver.identity.second_factors import totp
from tokenserver.identity.second_factors.factors import Held, SecondFactors
from tokenserver.identity.second_factors.passkeys import MAX_PASSKEYS, Passkeys
from tokenserver.identity.second_factors.reauthentication import RECENT_SECONDS
from tokenserver.oauth.browser_session import SignedIn
from tokenserver.pages.qr_code import drawn
from tokenserver.pages.rendering import render
from tokenserver.storage.sql import Database, utc_now
from tokenserver.tokens.access_token import TWO_FACTORS, acr_of
from tokenserver.verify.json_object import json_object

MAX_NAME: Final = 64
SENTENCES: Final = {
    Refusal.INVALID_OTP: (403, "The code is wrong. Wait for the next one and try again."),
    Refusal.INVALID_PASSKEY: (403, "The passkey was not accepted."),
}
Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who sent the form, in which browser. `csrf`: for the next one."""

    person: Person
    signed_in: SignedIn
    browser: str
    csrf: str

    @property
    def place(self) -> str:
        return f"browser {self.browser} {self.signed_in.session_id}"


class SecurityForms:
    """`actions`: by the field of that name; each answers a page, or None for the overview."""

    def __init__(self, *, database: Database, factors: SecondFactors, passkeys: Passkeys, issuer_name: str) -> None:
        self._database = database
        self._factors = factors
        self._passkeys = passkeys
        self._issuer_name = issuer_name
        self.actions: Mapping[str, Callable[[Asked, Fields], Response | None]] = {
            "sign-in-again": lambda _asked, _fields: None,
            "begin-app": self._begin_app,
            "confirm-app": self._confirm_app,
            "remove-app": self._remove_app,
            "renew-codes": self._renew_codes,
            "add-passkey": self._add_passkey,
            "remove-passkey": self._remove_passkey,
        }

    def is_recent(self, asked: Asked) -> bool:
        """Else nothing is changed: first they sign in again."""
        return self._is_lately(asked) and self.lacks_second_factor(asked) is None

    def lacks_second_factor(self, asked: Asked) -> str | None:
        """The session of who signed in lately, but by the password alone."""
        if not self._is_lately(asked) or acr_of(asked.signed_in.amr) == TWO_FACTORS:
            return None
        return str(asked.signed_in.session_id) if self._factors.has_any(asked.person.id) else None

    @staticmethod
    def _is_lately(asked: Asked) -> bool:
        return utc_now() - asked.signed_in.authenticated_at < timedelta(seconds=RECENT_SECONDS)

    # Pages

    def overview(self, asked: Asked, refusal: Refusal | None = None) -> Response:
        status, sentence = SENTENCES[refusal] if refusal else (200, None)
        held, may_change = self._factors.held(asked.person.id), self.is_recent(asked)
        options = self._creation_options(asked, held) if may_change else None
        return _page(
            "account_security.html",
            asked,
            status,
            has_assets=options is not None,
            held=held,
            may_change=may_change,
            options=options,
            code=refusal,
            sentence=sentence,
        )

    def _creation_options(self, asked: Asked, held: Held) -> str | None:
        if not self._passkeys.party.is_possible or len(held.passkeys) >= MAX_PASSKEYS:
            return None
        return json.dumps(self._passkeys.creation_options(asked.person, asked.place))

    def _enrolment(self, asked: Asked, secret: bytes, refusal: Refusal | None = None) -> Response:
        status, sentence = SENTENCES[refusal] if refusal else (200, None)
        uri = totp.uri(secret, account=asked.person.email, issuer=self._issuer_name)
        spelled = totp.spelled(secret)
        return _page(
            "account_app.html",
            asked,
            status,
            uri=uri,
            qr_code=drawn(uri),
            secret=" ".join(spelled[i : i + 4] for i in range(0, len(spelled), 4)),
            code=refusal,
            sentence=sentence,
        )

    @staticmethod
    def _codes(asked: Asked, codes: list[str]) -> Response | None:
        return _page("account_codes.html", asked, codes=codes) if codes else None

    # Actions

    def _begin_app(self, asked: Asked, _fields: Fields) -> Response:
        secret = self._database.write(lambda tx: self._factors.apps.enrol(tx, asked.person.id))
        return self._enrolment(asked, secret)

    def _confirm_app(self, asked: Asked, fields: Fields) -> Response | None:
        try:
            return self._codes(asked, self._factors.confirm_app(asked.person.id, fields.get("otp", "")))
        except Forbidden:
            secret = self._factors.apps.pending(asked.person.id)
            if secret is None:
                raise
            return self._enrolment(asked, secret, Refusal.INVALID_OTP)

    def _remove_app(self, asked: Asked, _fields: Fields) -> None:
        self._factors.remove_app(asked.person.id)

    def _renew_codes(self, asked: Asked, _fields: Fields) -> Response | None:
        return self._codes(asked, self._factors.renew_recovery_codes(asked.person.id))

    def _add_passkey(self, asked: Asked, fields: Fields) -> Response | None:
        name = fields.get("name", "").strip()[:MAX_NAME] or "Passkey"
        if not name.isprintable():
            raise BadRequest
        try:
            credential = json_object(fields.get("credential", "").encode())
            added = self._passkeys.register(asked.person.id, name, credential, asked.place)
        except (Forbidden, ValueError):
            return self.overview(asked, Refusal.INVALID_PASSKEY)
        return self._codes(asked, added.recovery_codes)

    def _remove_passkey(self, asked: Asked, fields: Fields) -> None:
        try:
            passkey_id = UUID(fields.get("passkey", ""))
        except ValueError:
            raise BadRequest from None
        self._passkeys.remove(asked.person.id, passkey_id)


def _page(template: str, asked: Asked, status: int = 200, *, has_assets: bool = False, **values: Any) -> Response:
    return render(
        template,
        status,
        forms=("'self'",),
        has_assets=has_assets,
        username=asked.person.username,
        csrf=asked.csrf,
        **values,
    )
