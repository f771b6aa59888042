"""Who is at the console: signed in by the authorization code flow of this server (RFC 6749 section 4.1, OpenID
Connect Core section 3.1), like any other client, with PKCE, `state` and `nonce`.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import Response, request

from tokenserver.access.permissions import PERMISSIONS
from tokenserver.clients.registry import ADMIN_CONSOLE
from tokenserver.errors import Forbidden, NotFound
from tokenserver.oauth import id_token_hint
from tokenserver.oauth.endpoints import path_of
from tokenserver.oauth.interaction import LOCAL_PATH, Interaction, Interactions
from tokenserver.pages.admin.api import Api, Refused
from tokenserver.pages.admin.tokens import HeldTokens, Tokens
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on
from tokenserver.storage.feed import now_ms
from tokenserver.verify.compact import decode
from tokenserver.verify.json_object import json_object
from tokenserver.verify.jwks import KeySource
from tokenserver.web.cookies import Cookies, new_cookie
from tokenserver.web.language import current_language, marked
from tokenserver.web.request_context import current

HOME: Final = "/admin/console"
CALLBACK: Final = f"{HOME}/callback"
# OpenID Connect Core section 3.1.2.1. Whoever gives something on needs a token that covers it.
SCOPE: Final = " ".join(["openid", *sorted(PERMISSIONS)])
# ms: an access token is renewed so long before it expires.
EARLY: Final = 5_000
OVER: Final = marked("This sign-in is over, or it began in another browser. Open the console again.")


@dataclass(frozen=True)
class Admin:
    """Who is there, by `GET /users/me`. `gained`: permissions that they got since they signed in, which their token
    doesn't cover. `api`: asks in their name. `csrf`: for the forms of this browser."""

    person: Mapping[str, Any]
    scope: frozenset[str]
    gained: frozenset[str]
    api: Api
    csrf: str

    def may(self, *permissions: str) -> bool:
        """For what is offered. The REST endpoints decide."""
        return self.scope.issuperset(permissions) and set(self.person["permissions"]).issuperset(permissions)


class SignIn:
    def __init__(
        self,
        *,
        cookies: Cookies,
        forms: Forms,
        interactions: Interactions,
        keys: KeySource,
        held: HeldTokens,
        api: Api,
        issuer: str,
    ) -> None:
        self._cookies = cookies
        self._forms = forms
        self._interactions = interactions
        self._keys = keys
        self._held = held
        self._api = api
        self._issuer = issuer

    # Before

    def begin(self, return_to: str | None = None, *, wanted: Iterable[str] = (), **parameters: str) -> Response:
        """To the authorization endpoint, where who is signed in is asked nothing. `return_to`: a path of the
        console; this request's when not given. `wanted`: permissions that it is about. `parameters`: more of the
        authorization request."""
        browser, nonce, verifier = self._forms.browser(), secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        path = return_to or _here()
        pending = self._interactions.begin(
            browser,
            resume=path if LOCAL_PATH.fullmatch(path) else HOME,
            client_id=ADMIN_CONSOLE,
            data={"nonce": nonce, "code_verifier": verifier, "wanted": sorted(wanted)},
        )
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if "ui_locales" in request.args:
            parameters["ui_locales"] = current_language()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": ADMIN_CONSOLE,
                "redirect_uri": self._issuer + CALLBACK,
                "scope": SCOPE,
                "state": pending.id,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
                **parameters,
            }
        )
        return self._forms.keep_browser(go_on(f"{path_of('authorization_endpoint')}?{query}"), browser)

    # The way back

    def come_back(self) -> tuple[str, str]:
        """Spends the code; the new cookie, and the path of the console to go on at.

        Raises NotFound `interaction_not_found`, Forbidden with the error of the authorization response, Refused.
        """
        query = self._forms.query()
        pending = self._interactions.find(query.get("state", ""), self._cookies.browser())
        # RFC 9207 section 2.4: the answer is this server's.
        if pending is None or "code_verifier" not in pending.data or query.get("iss") != self._issuer:
            raise NotFound(OVER, code="interaction_not_found")
        self._interactions.end(pending.id)
        if "code" not in query:
            raise Forbidden("You were not signed in.", code=_word(query.get("error", "")))
        tokens = self._exchange(pending, query["code"])
        old, cookie = self._cookies.console(), new_cookie()
        if old is not None:
            self._held.forget(old)
        self._held.keep(cookie, tokens)
        return cookie, pending.resume

    def _exchange(self, pending: Interaction, code: str) -> Tokens:
        form = {
            "grant_type": "authorization_code",
            "client_id": ADMIN_CONSOLE,
            "redirect_uri": self._issuer + CALLBACK,
            "code": code,
            "code_verifier": pending.data["code_verifier"],
        }
        response = self._api.ask("POST", path_of("token_endpoint"), form=form).body
        if not self._is_meant(response.get("id_token", ""), pending.data["nonce"]):
            raise NotFound(OVER, code="interaction_not_found")
        return Tokens.of(response, pending.data.get("wanted", ()))

    def _is_meant(self, id_token: str, nonce: str) -> bool:
        """OpenID Connect Core section 3.1.3.7: of this issuer, for this client, in answer to this very request."""
        hint = id_token_hint.read(id_token, self._keys, self._issuer)
        if hint is None or hint.client_id != ADMIN_CONSOLE:
            return False
        claims = json_object(decode(id_token.split(".")[1].encode()))
        return hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode())

    # While signed in

    def admin(self) -> Admin | None:
        """Of this request; None for who must sign in. Raises Refused when that can't be told."""
        cookie = self._cookies.console()
        tokens = self._held.find(cookie) if cookie else None
        if cookie is None or tokens is None:
            return None
        try:
            if now_ms() > tokens.expires_at - EARLY:
                tokens = self._refreshed(cookie, tokens)
            api = Api(self._api.app, self._api.origin, tokens.access_token)
            person = api.get("/users/me")
        except Refused as refused:
            if refused.status not in {400, 401}:
                raise
            self._held.forget(cookie)  # ended, expired, or its user is disabled
            return None
        current().actor = person["id"]
        scope = frozenset(tokens.scope.split())
        missing = PERMISSIONS.keys() & set(person["permissions"]) - scope
        # What was asked for in vain is not asked for again, or the browser would go round for ever.
        gained = frozenset(missing if missing.difference(tokens.uncovered) else ())
        return Admin(person, scope, gained, api, self._forms.csrf(self._forms.browser()))

    def _refreshed(self, cookie: str, tokens: Tokens) -> Tokens:
        form = {
            "grant_type": "refresh_token",
            "client_id": ADMIN_CONSOLE,
            "refresh_token": tokens.refresh_token,
        }
        fresh = Tokens.of(self._api.ask("POST", path_of("token_endpoint"), form=form).body, tokens.uncovered)
        self._held.keep(cookie, fresh)
        return fresh

    # After

    def sign_out(self) -> None:
        """Everywhere in this browser: the session ends, with all that was issued in it."""
        admin = self.admin()
        cookie = self._cookies.console()
        if admin is not None:
            admin.api.ask("POST", "/auth/logout")
        if cookie is not None:
            self._held.forget(cookie)


def _here() -> str:
    query = request.query_string.decode("latin-1")
    return quote(request.path) + (f"?{query}" if query else "") if request.method == "GET" else HOME


def _word(error: str) -> str:
    """RFC 6749 section 4.1.2.1; from the address, so only what looks like one."""
    return error if error.isascii() and error.replace("_", "").isalpha() and len(error) < 64 else "access_denied"
