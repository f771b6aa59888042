"""`/account/security`: one's own second factors. Each of its forms needs a sign-in of a few minutes ago, with all
that its user has (OWASP ASVS 7.5.1)."""

import json
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from flask import Response
from werkzeug.exceptions import BadRequest

from tokenserver.errors import Forbidden
from tokenserver.identity.login import Refusal
from tokenserver.identity.second_factors import totp
from tokenserver.identity.second_factors.factors import Held, SecondFactors
from tokenserver.identity.second_factors.passkeys import MAX_PASSKEYS, Passkeys
from tokenserver.pages.asked import Action, Asked, Fields, Recency, page
from tokenserver.pages.qr_code import drawn
from tokenserver.pages.refused import Shown
from tokenserver.storage.sql import Database
from tokenserver.verify.json_object import json_object
from tokenserver.web.language import marked, translated

MAX_NAME: Final = 64
SENTENCES: Final = {
    Refusal.INVALID_OTP: (403, marked("The code is wrong. Wait for the next one and try again.")),
    Refusal.INVALID_PASSKEY: (403, marked("The passkey was not accepted.")),
}


class SecurityPage:
    path = "/account/security"
    needs_recent_sign_in = True

    def __init__(
        self,
        *,
        database: Database,
        factors: SecondFactors,
        passkeys: Passkeys,
        recency: Recency,
        issuer_name: str,
    ) -> None:
        self._recency = recency
        self._database = database
        self._factors = factors
        self._passkeys = passkeys
        self._issuer_name = issuer_name
        self.actions: Mapping[str, Action] = {
            "sign-in-again": lambda _asked, _fields: None,
            "begin-app": self._begin_app,
            "confirm-app": self._confirm_app,
            "remove-app": self._remove_app,
            "renew-codes": self._renew_codes,
            "add-passkey": self._add_passkey,
            "remove-passkey": self._remove_passkey,
        }

    # Pages

    def show(self, asked: Asked, refusal: Refusal | None = None) -> Response:
        held, may_change = self._factors.held(asked.person.id), self._recency.is_recent(asked)
        options = self._creation_options(asked, held) if may_change else None
        return page(
            "account_security.html",
            asked,
            _shown(refusal),
            has_assets=options is not None,
            held=held,
            may_change=may_change,
            options=options,
        )

    def _creation_options(self, asked: Asked, held: Held) -> str | None:
        if not self._passkeys.party.is_possible or len(held.passkeys) >= MAX_PASSKEYS:
            return None
        return json.dumps(self._passkeys.creation_options(asked.person, asked.place))

    def _enrolment(self, asked: Asked, secret: bytes, refusal: Refusal | None = None) -> Response:
        uri = totp.uri(secret, account=asked.person.email, issuer=self._issuer_name)
        spelled = totp.spelled(secret)
        return page(
            "account_app.html",
            asked,
            _shown(refusal),
            uri=uri,
            qr_code=drawn(uri),
            secret=" ".join(spelled[i : i + 4] for i in range(0, len(spelled), 4)),
        )

    @staticmethod
    def _codes(asked: Asked, codes: list[str]) -> Response | None:
        return page("account_codes.html", asked, codes=codes) if codes else None

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
            return self.show(asked, Refusal.INVALID_PASSKEY)
        return self._codes(asked, added.recovery_codes)

    def _remove_passkey(self, asked: Asked, fields: Fields) -> None:
        try:
            passkey_id = UUID(fields.get("passkey", ""))
        except ValueError:
            raise BadRequest from None
        self._passkeys.remove(asked.person.id, passkey_id)


def _shown(refusal: Refusal | None) -> Shown | None:
    if refusal is None:
        return None
    status, sentence = SENTENCES[refusal]
    return Shown(status, refusal.value, translated(sentence), {})
