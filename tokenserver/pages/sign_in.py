"""What becomes of the forms of `/login`: a page again, the second step, or a session."""

import json
from typing import Any, Final

from flask import Response

from tokenserver.clients.registry import Clients
from tokenserver.errors import Unauthenticated
from tokenserver.identity.known_devices import KnownDevices
from tokenserver.identity.login import Login, Proof, Refusal, Throttled
from tokenserver.identity.models import User
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.identity.second_factors.passkeys import Passkeys
from tokenserver.oauth.browser_session import BrowserSessions, SignedIn
from tokenserver.oauth.interaction import Interaction
from tokenserver.oauth.session_state import browser_state
from tokenserver.pages.asking import asking
from tokenserver.pages.forms import Forms
from tokenserver.pages.refused import Shown
from tokenserver.pages.rendering import go_on, render
from tokenserver.pages.second_step import SecondSteps
from tokenserver.verify.json_object import json_object
from tokenserver.web.cookies import Cookies
from tokenserver.web.language import marked, translated

# One sentence for an unknown user and for a wrong password; what else there is to tell, after the right one.
SENTENCES: Final = {
    "missing_credentials": (400, marked("Enter your user name and your password.")),
    "sign_in_expired": (400, marked("This sign-in took too long. Begin again.")),
    Refusal.INVALID_CREDENTIALS: (401, marked("The user name or the password is wrong.")),
    Refusal.ACCOUNT_DISABLED: (403, marked("This account is disabled.")),
    Refusal.SECOND_FACTOR_REQUIRED: (400, marked("Enter the code.")),
    Throttled.code: (
        429,
        marked("Too many sign-ins of this account failed. Wait, or enter the code of your second factor too."),
    ),
    Refusal.INVALID_OTP: (401, marked("The code is wrong, or it was used already.")),
    Refusal.INVALID_PASSKEY: (401, marked("The passkey was not accepted.")),
}


class SignInForms:
    """`browser`: the cookie of the browser that sent the form. `interaction`: on whose behalf, or None.
    `sends_mail`: whether a forgotten password can be replaced. `may_register`: whether anybody may."""

    def __init__(
        self,
        *,
        cookies: Cookies,
        forms: Forms,
        clients: Clients,
        login: Login,
        known_devices: KnownDevices,
        factors: SecondFactors,
        passkeys: Passkeys,
        steps: SecondSteps,
        browser_sessions: BrowserSessions,
        sends_mail: bool,
        may_register: bool,
    ) -> None:
        self._sends_mail = sends_mail
        self._may_register = may_register
        self._cookies = cookies
        self._forms = forms
        self._clients = clients
        self._login = login
        self._known_devices = known_devices
        self._factors = factors
        self._passkeys = passkeys
        self._steps = steps
        self._browser_sessions = browser_sessions

    # Pages

    def first_step(
        self, browser: str, interaction: Interaction | None, username: str, refusal: str | None = None
    ) -> Response:
        options = self._passkeys.request_options(_place(browser, interaction))
        return self._page(
            "login.html",
            browser,
            interaction,
            refusal,
            options=options,
            username=username,
            sends_mail=self._sends_mail,
            may_register=self._may_register,
        )

    def second_step(
        self,
        browser: str,
        interaction: Interaction | None,
        user: User,
        *,
        step: str | None = None,
        refusal: str | None = None,
        within: SignedIn | None = None,
    ) -> Response:
        """`step`: of the form that is shown again. `within`: the session that lacks nothing else."""
        return self._page(
            "login_second.html",
            browser,
            interaction,
            refusal,
            username=user.username,
            step=step or self._steps.begin(user, browser, _id(interaction), within),
            options=self._passkeys.request_options(_place(browser, interaction), user.id),
            has_app=self._factors.held(user.id).app_since is not None,
        )

    def _page(
        self,
        template: str,
        browser: str,
        interaction: Interaction | None,
        refusal: str | None,
        *,
        options: dict[str, Any] | None,
        **values: Any,
    ) -> Response:
        """`options`: for a passkey, where one may answer."""
        shown = refusal_of(refusal)
        asks = asking(self._clients, interaction)
        response = render(
            template,
            shown.status if shown else 200,
            forms=asks.forms if asks else ("'self'",),
            images=asks.images if asks else (),
            has_assets=options is not None,
            options=json.dumps(options) if options else None,
            asks=asks,
            interaction=interaction,
            refusal=shown,
            csrf=self._forms.csrf(browser),
            **values,
        )
        return self._forms.keep_browser(response, browser)

    # Forms

    def by_password(self, fields: dict[str, str], browser: str, interaction: Interaction | None) -> Response:
        username, password = fields.get("username", ""), fields.get("password", "")
        if not username or not password:
            return self.first_step(browser, interaction, username, "missing_credentials")
        otp = fields.get("otp")
        complete = (lambda proof: self._factors.complete(proof, otp)) if otp else None
        try:
            proof = self._login.authenticate(username, password, device=self._cookies.device(), complete=complete)
        except Throttled as error:
            page = self.first_step(browser, interaction, username, error.code)
            page.headers["Retry-After"] = str(error.retry_after)
            return page
        if not isinstance(proof, Proof):
            return self.first_step(browser, interaction, username, proof)
        if "mfa" not in proof.amr and self._factors.has_any(proof.user.id):
            return self.second_step(browser, interaction, proof.user)
        return self._enter(proof, browser, interaction)

    def by_second_factor(self, fields: dict[str, str], browser: str, interaction: Interaction | None) -> Response:
        signed_in = self._browser_sessions.find(self._cookies.session())
        known = self._steps.read(fields["step"], browser, _id(interaction), signed_in)
        if known is None:
            return self.first_step(browser, interaction, "", "sign_in_expired")
        if "credential" in fields:
            proof = self._passkeys.prove(_read(fields["credential"]), _place(browser, interaction), known)
        else:
            proof = self._factors.complete(known, fields.get("otp"))
        if not isinstance(proof, Proof):
            return self.second_step(browser, interaction, known.user, step=fields["step"], refusal=proof)
        return self._enter(proof, browser, interaction)

    def by_passkey(self, fields: dict[str, str], browser: str, interaction: Interaction | None) -> Response:
        """Without a name and a password."""
        proof = self._passkeys.prove(_read(fields["credential"]), _place(browser, interaction))
        if not isinstance(proof, Proof):
            return self.first_step(browser, interaction, "", proof)
        self._login.forgive(proof.user)
        return self._enter(proof, browser, interaction)

    def _enter(self, proof: Proof, browser: str, interaction: Interaction | None) -> Response:
        try:
            cookie, signed_in = self._browser_sessions.sign_in(proof, self._cookies.session())
        except Unauthenticated:  # changed between the look and the write
            return self.first_step(browser, interaction, proof.user.username, Refusal.INVALID_CREDENTIALS)
        response = go_on(interaction.resume if interaction else "/account")
        self._cookies.keep_session(response, cookie)
        self._cookies.keep_device(response, self._known_devices.remember(proof.user, self._cookies.device()))
        self._cookies.keep_browser_state(response, browser_state(signed_in.session_id))
        return response


def refusal_of(code: str | None) -> Shown | None:
    if code is None:
        return None
    status, sentence = SENTENCES[code]
    return Shown(status, code, translated(sentence), {})


def _read(credential: str) -> object:
    """None for what is no JSON: it is no answer either."""
    try:
        return json_object(credential.encode())
    except ValueError:
        return None


def _place(browser: str, interaction: Interaction | None) -> str:
    return f"browser {browser} {_id(interaction)}"


def _id(interaction: Interaction | None) -> str | None:
    return interaction.id if interaction else None
