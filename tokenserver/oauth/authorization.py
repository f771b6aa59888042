"""What becomes of an authorization request (OIDC Core section 3.1.2): a sign-in first, a consent first, a refusal,
or what was asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tokenserver.access.rights import Held, Rights
from tokenserver.audit.events import Event
from tokenserver.audit.trail import Trail
from tokenserver.clients.registry import Client
from tokenserver.identity.claims import BY_SCOPE
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.authorization_request import AuthorizationRequest
from tokenserver.oauth.browser_session import SignedIn
from tokenserver.oauth.consent import Consents, Wanted
from tokenserver.oauth.errors import (
    AccessDenied,
    ConsentRequired,
    LoginRequired,
    UnmetAuthenticationRequirements,
)
from tokenserver.oauth.interaction import Interaction
from tokenserver.oauth.issuing import Issuing, UserContext
from tokenserver.oauth.requested_claims import RequestedClaims
from tokenserver.oauth.step_up import Reach, reach
from tokenserver.oauth.subject import Subjects
from tokenserver.signals import metrics
from tokenserver.storage.feed import Feed, now_ms
from tokenserver.storage.sql import Transaction, new_id
from tokenserver.tokens import authorization_code
from tokenserver.tokens.authorization_code import AuthorizationCodes
from tokenserver.tokens.sessions import Sessions
from tokenserver.web.request_context import current

# Kept with a pending interaction.
ALLOWED: Final = "allowed"


@dataclass
class SignInFirst(Exception):
    """`within`: the session that lacks nothing but the second factor."""

    within: UUID | None = None


@dataclass
class ConsentFirst(Exception):
    wanted: Wanted


class Authorization:
    """`finish` raises SignInFirst, ConsentFirst, or the OAuthError that the client is told."""

    def __init__(
        self,
        *,
        feed: Feed,
        rights: Rights,
        sessions: Sessions,
        consents: Consents,
        codes: AuthorizationCodes,
        issuing: Issuing,
        subjects: Subjects,
        trail: Trail,
        second_factors: SecondFactors,
    ) -> None:
        self._feed = feed
        self._rights = rights
        self._sessions = sessions
        self._consents = consents
        self._codes = codes
        self._issuing = issuing
        self._subjects = subjects
        self._trail = trail
        self._second_factors = second_factors

    def finish(
        self, request: AuthorizationRequest, signed_in: SignedIn | None, interaction: Interaction | None
    ) -> dict[str, str]:
        """The parameters of the response, but for `state` and what every response carries."""
        signed_in = self._who(request, signed_in, interaction)
        current().actor = str(signed_in.user_id)
        held = self._rights.of(signed_in.user_id)
        granted = self._scope(request, held)
        wanted = Wanted(granted, _beyond(granted, request.claims))
        self._require_consent(request, signed_in, interaction, wanted)
        return self._issue(request, signed_in, held, granted)

    # Who it is

    def _who(
        self, request: AuthorizationRequest, signed_in: SignedIn | None, interaction: Interaction | None
    ) -> SignedIn:
        just_now = signed_in is not None and interaction is not None and _ms(signed_in) >= interaction.began_at
        if signed_in is not None and not self._must_prove_again(request, signed_in, just_now=just_now):
            expected = self._expected(request)
            if expected is None or signed_in.user_id == expected:
                self._require_context(request, signed_in)
                return signed_in
            if just_now:
                # OIDC Core section 3.1.2.2: not a word about somebody else than who was asked for.
                raise LoginRequired(reason="another_user")
        if "none" in request.prompt:
            raise LoginRequired
        raise SignInFirst

    def _require_context(self, request: AuthorizationRequest, signed_in: SignedIn) -> None:
        found = reach(request, signed_in.amr, lambda: self._second_factors.has_any(signed_in.user_id))
        if found is Reach.UNMET:
            raise UnmetAuthenticationRequirements
        if found is Reach.STEP_UP:
            if "none" not in request.prompt:
                raise SignInFirst(within=signed_in.session_id)
            if request.claims.acr_essential:
                raise LoginRequired(reason="second_factor")

    @staticmethod
    def _must_prove_again(request: AuthorizationRequest, signed_in: SignedIn, *, just_now: bool) -> bool:
        if just_now:
            return False
        # OIDC Core section 3.1.2.1: login asks for a sign-in, select_account for a choice; here it is the sign-in.
        if not request.prompt.isdisjoint({"login", "select_account"}):
            return True
        # Section 3.1.2.1: older than max_age means actively again.
        return request.max_age is not None and now_ms() - _ms(signed_in) > request.max_age * 1000

    def _expected(self, request: AuthorizationRequest) -> UUID | None:
        """Whom id_token_hint or a requested `sub` (OIDC Core section 5.5.1) names."""
        subject = request.claims.sub or (request.hint.subject if request.hint else None)
        if subject is None:
            return None
        try:
            return self._subjects.user_id(request.client, subject)
        except ValueError:
            return new_id()  # nobody

    # What they grant

    @staticmethod
    def _scope(request: AuthorizationRequest, held: Held) -> frozenset[str]:
        granted = scopes.for_user(request.client, request.scope, held.permissions)
        # OIDC Core section 11: ignored unless a code is asked for; and it is nothing without a refresh token.
        if "code" not in request.response_type or not request.client.allows("refresh_token"):
            granted -= {"offline_access"}
        return granted

    def _require_consent(
        self,
        request: AuthorizationRequest,
        signed_in: SignedIn,
        interaction: Interaction | None,
        wanted: Wanted,
    ) -> None:
        client, decision = request.client, _decision(interaction, signed_in, wanted)
        if decision is not None:
            if decision != ALLOWED:
                raise AccessDenied
            self._consents.remember(signed_in.user_id, client.client_id, wanted)
            return
        if client.first_party and "consent" not in request.prompt:
            return
        if "consent" not in request.prompt and self._consents.cover(signed_in.user_id, client.client_id, wanted):
            return
        if "none" in request.prompt:
            raise ConsentRequired
        raise ConsentFirst(wanted)

    # What they get

    def _issue(
        self, request: AuthorizationRequest, signed_in: SignedIn, held: Held, granted: frozenset[str]
    ) -> dict[str, str]:
        family_id = new_id()
        code = authorization_code.generate() if "code" in request.response_type else None
        user = UserContext(
            user_id=signed_in.user_id,
            roles=held.roles,
            session_id=signed_in.session_id,
            family_id=family_id if code else None,
            authenticated_at=int(signed_in.authenticated_at.timestamp()),
            amr=signed_in.amr,
            claims=request.claims.names,
        )
        # Sign first: nothing may fail after the code is there.
        front = self._issuing.front_channel(
            request.client,
            user,
            granted,
            request.audience,
            response_type=request.response_type,
            nonce=request.nonce,
            code=code,
        )

        def issue(tx: Transaction) -> bool:
            if not self._sessions.join(tx, signed_in.session_id, request.client.client_id):
                return False
            if code is not None:
                self._codes.add(tx, code, **self._granted(request, signed_in, granted, family_id))
            return True

        if not self._feed.database.write(issue):
            raise LoginRequired(reason="session_ended")
        if "access_token" in front:
            self._record_front_channel(request.client, signed_in, front)
            metrics.tokens_issued.count("implicit")
        return ({"code": code} if code else {}) | {name: str(value) for name, value in front.items()}

    @staticmethod
    def _granted(
        request: AuthorizationRequest, signed_in: SignedIn, granted: frozenset[str], family_id: UUID
    ) -> dict[str, Any]:
        return {
            "family_id": family_id,
            "session_id": signed_in.session_id,
            "user_id": signed_in.user_id,
            "client_id": request.client.client_id,
            "redirect_uri": request.parameters.get("redirect_uri"),
            "scope": scopes.to_text(granted),
            "audience": list(request.audience),
            "claims": request.claims.names,
            "nonce": request.nonce,
            "code_challenge": request.code_challenge,
            "authenticated_at": signed_in.authenticated_at,
            "amr": list(signed_in.amr),
        }

    def _record_front_channel(self, client: Client, signed_in: SignedIn, front: Mapping[str, Any]) -> None:
        details = {"grant_type": "implicit", "scope": front["scope"], "session": str(signed_in.session_id)}
        current().client_id = client.client_id
        self._trail.append(self._trail.describe(Event.TOKEN_ISSUED, target=signed_in.user_id, details=details))


def _beyond(granted: frozenset[str], claims: RequestedClaims) -> frozenset[str]:
    """Of the claims asked for by name, those that no granted scope holds already."""
    asked = {name for names in (claims.names or {}).values() for name in names}
    return frozenset(asked.difference(*(BY_SCOPE.get(scope, ()) for scope in granted)))


def _decision(interaction: Interaction | None, signed_in: SignedIn, wanted: Wanted) -> str | None:
    """What this very user decided on the consent page, about no less than what would be given now."""
    if interaction is None or interaction.data.get("consent_user") != str(signed_in.user_id):
        return None
    shown = Wanted(frozenset(interaction.data["scope"].split()), frozenset(interaction.data["claims"]))
    if not (wanted.scope <= shown.scope and wanted.claims <= shown.claims):
        return None
    decision = interaction.data.get("consent")
    return decision if isinstance(decision, str) else None


def _ms(signed_in: SignedIn) -> int:
    return int(signed_in.authenticated_at.timestamp() * 1000)
