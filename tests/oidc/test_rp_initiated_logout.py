"""OpenID Connect RP-Initiated Logout 1.0: who is signed out, who is asked first, and where nobody is ever sent."""

from urllib.parse import urlencode

import jwt
import pytest

from tests.oidc.browser import Browser, register
from tests.person import Landing, Page
from tokenserver.app import rooms_of

LOGOUT = "/oauth/logout"
BACK = "https://shop.example/bye"
# Bytes that a careless encoder changes; 128 characters, as the conformance suite sends them.
STATE = ("a%2F+ &=?#\u00e9\U0001f600/~" * 16)[:128]
one_backend = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def shop(app, api):
    api.register()
    api.register("bob")
    back = [BACK, BACK + "?kept=1"]
    register(app, "shop", post_logout_redirect_uris=back, client_uri="https://shop.example")
    register(app, "forum", post_logout_redirect_uris=["https://forum.example/bye"])
    return app


@pytest.fixture
def ann(shop):
    return Browser.of(shop).sign_in("shop")


def asking(**parameters):
    return f"{LOGOUT}?{urlencode(parameters)}"


def test_valid_hint_signs_out_at_once_and_returns_the_state_byte_for_byte(shop, ann):
    """Sections 2 and 3. Afterwards nothing of the session works (ASVS 7.4.1)."""
    hint, cookie = ann.id_token("shop"), ann.cookie()
    landing = ann.person.visit(asking(id_token_hint=hint, post_logout_redirect_uri=BACK, state=STATE), BACK)
    assert isinstance(landing, Landing)
    assert landing.parameters == {"state": STATE}
    assert not ann.is_signed_in()
    assert ann.cookie() is None
    assert rooms_of(shop).browser_sessions.find(cookie) is None
    # Again: there is nothing to end, and the same way back. Without a state none is made up; a query is kept.
    again = asking(id_token_hint=hint, post_logout_redirect_uri=BACK + "?kept=1")
    assert ann.open(again).headers["Location"] == BACK + "?kept=1"
    assert ann.open(again + "&state=s").headers["Location"] == BACK + "?kept=1&state=s"


@one_backend
def test_by_post_too(ann):
    """Section 2. With a form of another site's page a browser sends no cookie of ours (SameSite=Lax); it does with
    what looks like a link, so that is where the form leads."""
    form = {"id_token_hint": ann.id_token("shop"), "post_logout_redirect_uri": BACK, "state": STATE}
    stranger = Browser.of(ann.app)
    answer = stranger.open(LOGOUT, "POST", data=form)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(LOGOUT + "?")
    landing = ann.person.visit(answer.headers["Location"], BACK)
    assert landing.parameters == {"state": STATE}
    assert not ann.is_signed_in()


def test_expired_hint_is_as_good(shop, ann, monkeypatch):
    """Section 2: the OP SHOULD accept ID tokens that have expired."""
    with monkeypatch.context() as patch:
        patch.setattr("tokenserver.tokens.id_token.time.time", lambda: 1_700_000_000)
        old = ann.id_token("shop")
    assert jwt.decode(old, options={"verify_signature": False})["exp"] < 1_800_000_000
    landing = ann.person.visit(asking(id_token_hint=old, post_logout_redirect_uri=BACK), BACK)
    assert isinstance(landing, Landing)
    assert not ann.is_signed_in()


def tampered(token):
    """The claims kept, without a signature."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, None, algorithm="none")


def forged(token):
    claims = jwt.decode(token, options={"verify_signature": False})
    header = jwt.get_unverified_header(token)
    return jwt.encode(claims, "x" * 64, algorithm="HS256", headers=header | {"alg": "HS256"})


@one_backend
def test_what_is_not_proven_sends_nobody_anywhere(shop, ann, api):
    """M6, ASVS 10.6.2, section 3 and the conformance suite's bad requests: first the user is told what is wrong and
    asked, then the page says that they are signed out; never the client's page."""
    hint = ann.id_token("shop")
    bob = Browser.of(shop, "bob").sign_in("shop")
    bad = {
        "unregistered": {"id_token_hint": hint, "post_logout_redirect_uri": BACK + "/other"},
        "query added": {"id_token_hint": hint, "post_logout_redirect_uri": BACK + "?foo=bar"},
        "other case": {"id_token_hint": hint, "post_logout_redirect_uri": "https://SHOP.example/bye"},
        "a script": {"id_token_hint": hint, "post_logout_redirect_uri": "javascript:alert(1)"},
        "another client's": {"id_token_hint": hint, "post_logout_redirect_uri": "https://forum.example/bye"},
        "no hint": {"post_logout_redirect_uri": BACK},
        "alg none": {"id_token_hint": tampered(hint), "post_logout_redirect_uri": BACK},
        "forged": {"id_token_hint": forged(hint), "post_logout_redirect_uri": BACK},
        "no token": {"id_token_hint": "nonsense", "post_logout_redirect_uri": BACK},
        "forged, with a client": {
            "id_token_hint": forged(hint), "post_logout_redirect_uri": BACK, "client_id": "shop"
        },
        "hint of another client": {
            "id_token_hint": hint, "post_logout_redirect_uri": "https://forum.example/bye", "client_id": "forum"
        },
        "unknown client": {"post_logout_redirect_uri": BACK, "client_id": "nobody"},
        "an access token": {
            "id_token_hint": api.login()["access_token"], "post_logout_redirect_uri": BACK
        },
    }  # fmt: skip
    for what, parameters in bad.items():
        page = ann.person.page(asking(**parameters, state="s"))
        assert page.status == 400, what
        assert ann.is_signed_in(), what
        page = ann.confirm(page)
        assert (page.status, BACK in page.text, page.frames) == (200, False, []), what
        assert not ann.is_signed_in(), what
        # Who isn't signed in is told the same, and has nothing to confirm.
        answer = ann.open(asking(**parameters))
        assert (answer.status_code, "Location" in answer.headers) == (400, False), what
        ann.sign_in("shop")
    assert bob.is_signed_in()


@one_backend
def test_without_proof_the_user_is_asked_first(shop, ann):
    """Section 2: no parameters, a state alone, a hint without a way back, a client's name; and hints that name
    another session, of another user or of the same one, who signed in again: only the browser's own ends."""
    bob = Browser.of(shop, "bob").sign_in("shop")
    elsewhere = Browser.of(shop).sign_in("shop")
    asked = {
        "nothing": ({}, None),
        "a state": ({"state": "s"}, None),
        "a client": ({"client_id": "shop"}, None),
        "a client and where to": ({"client_id": "shop", "post_logout_redirect_uri": BACK, "state": STATE}, BACK),
        "Bob's": ({"id_token_hint": bob.id_token("shop"), "post_logout_redirect_uri": BACK, "state": STATE}, BACK),
        "Ann's elsewhere": ({"id_token_hint": elsewhere.id_token("shop")}, None),
    }
    for what, (parameters, back) in asked.items():
        page = ann.person.page(asking(**parameters, logout_hint="bob", ui_locales="se"))
        assert page.status == 200, what
        assert ann.is_signed_in(), what
        after = ann.confirm(page, back)
        if back:
            assert (after.parameters, after.url.partition("?")[0]) == ({"state": STATE}, back), what
        else:
            assert isinstance(after, Page)
            assert (after.status, after.form_with("logout-confirm")) == (200, None), what
        assert not ann.is_signed_in(), what
        assert bob.is_signed_in(), what
        assert elsewhere.is_signed_in(), what
        # Nobody is signed in: nobody is asked.
        answer = ann.open(asking(**parameters))
        assert (answer.status_code, "logout-confirm" in answer.text) == (303 if back else 200, False), what
        ann.sign_in("shop")
    # A good hint without a way back ends the session and says so.
    page = ann.person.page(asking(id_token_hint=ann.id_token("shop")))
    assert (page.status, ann.is_signed_in()) == (200, False)


@one_backend
def test_confirmation_can_not_be_forged(shop, ann):
    """A form of somebody else's: without the word of our page, or with that of another browser's."""
    bob = Browser.of(shop, "bob").sign_in()
    page = bob.person.page(LOGOUT)
    [word] = [value for name, value in page.form_with("logout-confirm").fields if name == "confirmed"]
    for body in ({"state": "s"}, {"confirmed": word}, {"confirmed": "1"}, {"confirmed": "\u00e9"}):
        answer = ann.open(LOGOUT, "POST", data=body, follow_redirects=True)
        assert "logout-confirm" in answer.text, body
        assert ann.is_signed_in(), body
    # One word is good for the session, so that two tabs can be open.
    assert ann.open(LOGOUT, "POST", data={"confirmed": _word(ann)}).status_code == 200
    assert not ann.is_signed_in()


def _word(browser):
    page = browser.person.page(LOGOUT)
    return next(value for name, value in page.form_with("logout-confirm").fields if name == "confirmed")
