"""The person of the tests, at a small site: what a browser would do is what they do."""

import flask
import pytest

from tests.person import Landing, Page, Person, Stuck

SITE = "http://site.example"
CALLBACK = "https://app.example/cb?own=1"


@pytest.fixture
def seen():
    return []


@pytest.fixture
def ann(seen):
    site = flask.Flask("site")

    @site.get("/authorize")
    def authorize():
        if "in" in flask.request.cookies:
            return flask.redirect("/consent", 303)
        return """<form action="/login?next=1" method="post"><input type="hidden" name="csrf" value="c&amp;1">
          <input name="username"><input name="password" type="password"><input type="checkbox" name="stay">
          <input type="radio" name="kind" value="a"><input type="radio" name="kind" value="b" checked>
          <button id="login-submit">Go</button></form>"""

    @site.post("/login")
    def login():
        seen.append((dict(flask.request.form), flask.request.headers["Origin"]))
        answer = flask.redirect("authorize", 303)
        answer.set_cookie("in", "1")
        return answer

    @site.get("/consent")
    def consent():
        page = """<form action="/consent" method="post"><button id="consent-allow" name="answer" value="allow">Yes
          </button><button id="consent-deny" name="answer" value="deny" formaction="/deny">No</button></form>"""
        return page, {"Referrer-Policy": "no-referrer"}

    @site.post("/consent")
    def allowed():
        seen.append((dict(flask.request.form), flask.request.headers["Origin"]))
        return flask.redirect(f"{CALLBACK}&code=1%2B1#state=s", 303)

    @site.post("/deny")
    def denied():
        return f'<form action="{CALLBACK}" method="post"><input type="hidden" name="error" value="no"></form>'

    return Person.on(site.test_client(), SITE, "ann", "secret")


def test_signs_in_and_consents_where_asked(ann, seen):
    landing = ann.authorize("/authorize", CALLBACK)
    assert landing == Landing(
        f"{CALLBACK}&code=1%2B1#state=s", {"code": "1+1", "state": "s"}, ["login-submit", "consent-allow"]
    )
    form = {"csrf": "c&1", "username": "ann", "password": "secret", "kind": "b"}
    assert seen == [(form, SITE), ({"answer": "allow"}, "null")]
    assert ann.authorize(f"{SITE}/authorize", CALLBACK).pressed == ["consent-allow"]


def test_a_form_posted_to_the_client(ann):
    landing = ann.authorize("/authorize", CALLBACK, allow=False)
    assert landing.parameters == {"error": "no"}
    assert landing.pressed == ["login-submit", "consent-deny"]


def test_boxes_are_ticked_by_name(ann, seen):
    page = ann.page("/authorize")
    assert isinstance(ann.press(page, "login-submit", stay="on", password="other"), Page)
    assert seen[0][0]["stay"] == "on"
    assert seen[0][0]["password"] == "other"


def test_stuck_where_there_is_nothing_to_press(ann):
    with pytest.raises(Stuck, match="404"):
        ann.authorize("/elsewhere", CALLBACK)
