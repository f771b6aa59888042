"""`/account`: one's names and one's address; and `/account/password`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from flask import Response

from tokenserver.errors import FieldError, Invalid, Refused, TooManyRequests
from tokenserver.identity.own_account import OwnAccount
from tokenserver.identity.recovery import Recovery
from tokenserver.identity.schemas import ProfileSchema
from tokenserver.mail.models import Kind
from tokenserver.pages.asked import NO_FIELDS, Action, Asked, Fields, Recency, page
from tokenserver.pages.refused import Shown, shown
from tokenserver.web.wire import loaded

NAMES: Final = ("name", "username", "email")
PROOFS: Final = ("current_password", "otp")


class ProfilePage:
    path = "/account"
    needs_recent_sign_in = False

    def __init__(self, own_account: OwnAccount, recency: Recency, recovery: Recovery) -> None:
        self._own_account = own_account
        self._recency = recency
        self._recovery = recovery
        self.actions: Mapping[str, Action] = {"save": self._save, "verify": self._verify}

    def show(self, asked: Asked, typed: Fields = NO_FIELDS, refusal: Shown | None = None) -> Response:
        person = asked.person
        values = {name: typed.get(name, getattr(person, name) or "") for name in NAMES}
        return page(
            "account.html",
            asked,
            refusal,
            values=values,
            person=person,
            sends_mail=self._recovery.is_open,
            asks_code=self._recency.asks_code(asked),
        )

    def _save(self, asked: Asked, fields: Fields) -> Response | None:
        # An empty field is one that isn't sent: of the name alone that is an answer.
        typed = {name: fields.get(name, "") for name in NAMES}
        wanted = {
            "name": typed["name"] or None,
            **{name: fields[name] for name in ("username", "email", *PROOFS) if name in fields},
        }
        try:
            _change(self._own_account, self._recency, asked, wanted)
        except (Refused, TooManyRequests) as error:
            return self.show(asked, typed, shown(error))
        return None

    def _verify(self, asked: Asked, _fields: Fields) -> None:
        self._recovery.ask(Kind.EMAIL_VERIFICATION, asked.person.email)


class PasswordPage:
    path = "/account/password"
    needs_recent_sign_in = False

    def __init__(self, own_account: OwnAccount, recency: Recency) -> None:
        self._own_account = own_account
        self._recency = recency
        self.actions: Mapping[str, Action] = {"change": self._change}

    def show(self, asked: Asked, refusal: Shown | None = None) -> Response:
        return page("account_password.html", asked, refusal, asks_code=self._recency.asks_code(asked))

    def _change(self, asked: Asked, fields: Fields) -> Response | None:
        wanted = {name: fields[name] for name in ("password", *PROOFS) if name in fields}
        try:
            if "password" not in wanted:
                raise Invalid([FieldError("password", "Missing data for required field.")])
            _change(self._own_account, self._recency, asked, wanted)
        except (Refused, TooManyRequests) as error:
            return self.show(asked, shown(error))
        return None


def _change(own_account: OwnAccount, recency: Recency, asked: Asked, wanted: dict[str, Any]) -> None:
    fields, session_id = loaded(ProfileSchema, wanted), asked.signed_in.session_id
    own_account.change(asked.person, session_id, fields, partial(recency.demand_second, asked))
