"""An authenticator app."""

import time
from base64 import b32decode
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update

from tests.answers import granted
from tests.conftest import PASSWORD, Api, bearer
from tokenserver.identity.second_factors import totp
from tokenserver.identity.second_factors.models import AuthenticatorApp
from tokenserver.rooms import Rooms


@dataclass
class App:
    """Shows each code once, since the server takes it once: that of now, and the next one. `later` for more."""

    secret: bytes
    shown: set[int] = field(default_factory=set)

    def code(self) -> str:
        now = totp.step_at(time.time())
        step = next(step for step in (now, now + 1) if step not in self.shown)
        self.shown.add(step)
        return totp.hotp(self.secret, step)

    def later(self, rooms: Rooms) -> None:
        """As if minutes went by."""
        self.shown.clear()
        rooms.database.write(lambda tx: tx.execute(update(AuthenticatorApp).values(last_step=0)))

    def wrong_code(self) -> str:
        near = {totp.hotp(self.secret, totp.step_at(time.time()) + step) for step in range(-3, 4)}
        return next(code for code in ("000000", *(f"{n:06}" for n in range(1, 9))) if code not in near)


def decoded(secret: str) -> bytes:
    return b32decode(secret + "=" * (-len(secret) % 8))


def enrolled(api: Api, token: str, password: str = PASSWORD) -> tuple[App, list[str]]:
    """An app that counts, and the recovery codes that came with it."""
    begun: dict[str, Any] = granted(
        api.http.post("/users/me/second-factors/totp", json={"current_password": password}, headers=bearer(token)),
        201,
    )
    app = App(decoded(begun["secret"]))
    confirmed = granted(
        api.http.post("/users/me/second-factors/totp/confirm", json={"otp": app.code()}, headers=bearer(token))
    )
    return app, confirmed["recovery_codes"]
