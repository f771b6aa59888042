"""A browser that is signed in to the server, and clients that took part in its session."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.person import PASSWORD, Page, Person
from tokenserver.app import rooms_of
from tokenserver.identity.login import Proof
from tokenserver.oauth.issuing import UserContext

CALLBACK = "https://{}.example/cb"


@dataclass
class Browser:
    """Whoever uses it is `person`; `session_id`: of the last sign-in here."""

    app: Flask
    http: FlaskClient
    person: Person
    session_id: UUID | None = None
    user_id: UUID | None = None

    @classmethod
    def of(cls, app: Flask, username: str = "ann") -> "Browser":
        http = app.test_client()
        return cls(app, http, Person.on(http, rooms_of(app).settings.issuer, username))

    @property
    def host(self) -> str:
        return urlsplit(self.person.origin).hostname or ""

    def open(self, url: str, method: str = "GET", **options: Any) -> TestResponse:
        """One request, without following where it leads."""
        return self.http.open(url, base_url=self.person.origin, method=method, **options)

    def sign_in(self, *client_ids: str) -> "Browser":
        """And clients that get tokens then."""
        rooms = rooms_of(self.app)
        proof = rooms.login.authenticate(self.person.known["username"], PASSWORD)
        assert isinstance(proof, Proof)
        with self.app.test_request_context():
            cookie, signed_in = rooms.browser_sessions.sign_in(proof, self.cookie())
        self.http.set_cookie(rooms.cookies.session_name, cookie, domain=self.host)
        self.session_id, self.user_id = signed_in.session_id, signed_in.user_id
        for client_id in client_ids:
            joined = rooms.database.write(
                lambda tx, client_id=client_id: rooms.sessions.join(tx, signed_in.session_id, client_id)
            )
            assert joined
        return self

    def cookie(self) -> str | None:
        found = self.http.get_cookie(rooms_of(self.app).cookies.session_name, domain=self.host)
        return found.value if found else None

    def is_signed_in(self) -> bool:
        return rooms_of(self.app).browser_sessions.find(self.cookie()) is not None

    def id_token(self, client_id: str) -> str:
        """Of this session, for a client."""
        rooms = rooms_of(self.app)
        client = rooms.clients.find(client_id)
        assert client is not None
        assert self.user_id is not None
        assert self.session_id is not None
        user = UserContext(self.user_id, (), self.session_id, None, 1, ("pwd",))
        token = rooms.collaborators.issuing.for_user(client, user, ["openid"], ["x"]).response["id_token"]
        return str(token)

    def confirm(self, page: Page, back: str | None = None) -> Any:
        return self.person.press(page, "logout-confirm", back)


def register(app: Flask, client_id: str, **metadata: Any) -> None:
    rooms_of(app).clients.create(
        client_id=client_id,
        client_name=client_id.title(),
        redirect_uris=[CALLBACK.format(client_id)],
        grant_types=["authorization_code"],
        response_types=["code"],
        scope=["openid"],
        **metadata,
    )
