"""A person at a browser without JavaScript: follows redirects, keeps cookies, fills in forms and presses buttons.

    ann = Person.at(live_server.url, "ann")            # over HTTP
    ann = Person.on(flask_client, issuer, "ann")       # over Flask's test client, without a server
    landing = ann.authorize(url, "https://app.example/cb")
    landing.parameters["code"]

Buttons and fields are found by the ids and names that the server promises: username, password, otp, login-submit,
consent-allow, consent-deny, logout-confirm, user_code.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx
from flask.testing import FlaskClient

PASSWORD: Final = "correct horse 7 battery"
MOST_STEPS: Final = 20
ACCEPT: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

Pairs = list[tuple[str, str]]


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


# The seam: method, URL, headers, body → answer. It keeps the cookies.
Transport = Callable[[str, str, dict[str, str], bytes | None], Answer]


@dataclass
class Button:
    id: str
    name: str
    value: str
    action: str | None


@dataclass
class Form:
    """`fields`: what would be sent, but for the button; an unticked box is in `boxes` alone."""

    action: str
    method: str
    fields: Pairs = field(default_factory=list)
    boxes: Pairs = field(default_factory=list)
    buttons: list[Button] = field(default_factory=list)

    def names(self) -> set[str]:
        return {name for name, _ in self.fields}

    def button(self, element_id: str) -> Button | None:
        return next((button for button in self.buttons if button.id == element_id), None)


@dataclass
class Page:
    """`url`: where it was found, after redirects. `frames`: addresses of its iframes."""

    url: str
    status: int
    headers: Mapping[str, str]
    text: str
    forms: list[Form] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def form_with(self, element_id: str) -> Form | None:
        return next((form for form in self.forms if form.button(element_id)), None)


@dataclass
class Landing:
    """What reached the client's redirect URI, and the buttons that it took: none with a session and a consent."""

    url: str
    parameters: dict[str, str]
    pressed: list[str]
    body: Pairs | None = None


class Stuck(AssertionError):
    """The walk ended on a page that has nothing to press, such as an error."""

    def __init__(self, page: Page) -> None:
        super().__init__(f"{page.status} at {page.url}:\n{page.text[:2000]}")
        self.page = page


class Person:
    """Follows redirects to any origin, but on Flask's test client, which speaks for the issuer alone."""

    def __init__(self, transport: Transport, origin: str, username: str, password: str) -> None:
        self.transport = transport
        self.origin = origin
        # With `otp` too, the walk takes the second step.
        self.known = {"username": username, "password": password}
        self.pressed: list[str] = []

    @classmethod
    def at(cls, origin: str, username: str, password: str = PASSWORD, **options: Any) -> Self:
        """`options`: of `httpx.Client`, such as `verify`."""
        # Nobody closes a person: they leave no connection open.
        limits = httpx.Limits(max_keepalive_connections=0)
        http = httpx.Client(timeout=30, trust_env=False, follow_redirects=False, limits=limits, **options)

        def send(method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
            response = http.request(method, url, headers=headers, content=body)
            return Answer(response.status_code, response.headers, response.text)

        return cls(send, origin, username, password)

    @classmethod
    def on(cls, client: FlaskClient, issuer: str, username: str, password: str = PASSWORD) -> Self:
        def send(method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
            assert _origin(url) == _origin(issuer), f"the walk left the server for {url}"
            response = client.open(url, method=method, headers=headers, data=body)
            return Answer(response.status_code, response.headers, response.get_data(as_text=True))

        return cls(send, issuer, username, password)

    def authorize(self, url: str, redirect_uri: str, *, allow: bool = True) -> Landing:
        """Signs in and consents (or denies) where asked, until the redirect URI. Raises Stuck."""
        choice = "consent-allow" if allow else "consent-deny"
        return self.walk(self.visit(url, redirect_uri), redirect_uri, (*self.sign_in_buttons(), choice))

    def sign_in_buttons(self) -> tuple[str, ...]:
        return ("login-submit",) * (2 if "otp" in self.known else 1)

    def sign_out(self, url: str, redirect_uri: str) -> Landing:
        """Confirms where asked, and goes on to where a client wants them back. Raises Stuck."""
        found = self.visit(url, redirect_uri)
        if isinstance(found, Page) and found.form_with("logout-confirm"):
            found = self.press(found, "logout-confirm", redirect_uri)
        if isinstance(found, Page):
            # Clients are told in iframes: a script, or the person, goes on afterwards.
            onward = next((link for link in found.links if _same(link, redirect_uri)), None)
            if onward is None:
                raise Stuck(found)
            return _landing(onward, redirect_uri, self.pressed)
        return found

    def connect(self, url: str, user_code: str) -> Page:
        """Lets a device in (RFC 8628 section 3.3): signs in, types the code, allows it."""
        page = self.page(url)
        left = [
            "login-submit",
            "device-submit",
            "device-submit",
            "consent-allow",
        ]  # the code is kept over the sign-in
        while button := next((button for button in left if page.form_with(button)), None):
            left.remove(button)
            fields = {"user_code": user_code} if button == "device-submit" else {}
            found = self.press(page, button, **fields)
            assert isinstance(found, Page), found.url
            page = found
        return page

    def walk(self, found: "Page | Landing", redirect_uri: str, buttons: Iterable[str]) -> Landing:
        """Presses whichever of the buttons a page has, each at most once."""
        left = list(buttons)
        self.pressed = []
        while isinstance(found, Page):
            form = next((form for form in found.forms if _same(form.action, redirect_uri)), None)
            if form:  # response_mode=form_post: a script, or the person, sends it on
                found = Landing(form.action, dict(form.fields), self.pressed, form.fields)
                break
            button = next((button for button in left if found.form_with(button)), None)
            if button is None:
                raise Stuck(found)
            left.remove(button)
            found = self.press(found, button, redirect_uri)
        return Landing(found.url, found.parameters, self.pressed, found.body)

    def visit(self, url: str, redirect_uri: str | None = None) -> "Page | Landing":
        return self._go("GET", url, None, redirect_uri, {"Sec-Fetch-Site": "none"})

    def page(self, url: str) -> Page:
        """Where a page is all that is right to come."""
        found = self.visit(url)
        assert isinstance(found, Page), found.url
        return found

    def press(self, page: Page, button_id: str, redirect_uri: str | None = None, **fields: str) -> "Page | Landing":
        """Sends the form of a button, filled in with what the person knows, and with `fields`."""
        form = page.form_with(button_id)
        if form is None:
            raise Stuck(page)
        button = form.button(button_id)
        assert button is not None
        self.pressed.append(button_id)
        known = {name: value for name, value in self.known.items() if name in form.names()} | fields
        sent = [(name, known.pop(name, value)) for name, value in form.fields]
        sent += known.items()  # boxes to tick
        if button.name:
            sent.append((button.name, button.value))
        action = button.action or form.action
        if form.method == "GET":
            return self._go("GET", f"{action.partition('?')[0]}?{urlencode(sent)}", None, redirect_uri, {})
        # As browsers do (Fetch, "append a request Origin header"): under no-referrer the origin is null.
        silent = page.headers.get("Referrer-Policy") == "no-referrer"
        site = "same-origin" if _origin(action) == _origin(page.url) else "cross-site"
        headers = {
            "Origin": "null" if silent else _origin(page.url),
            "Sec-Fetch-Site": site,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return self._go("POST", action, urlencode(sent).encode(), redirect_uri, headers)

    def _go(
        self, method: str, url: str, body: bytes | None, redirect_uri: str | None, headers: dict[str, str]
    ) -> "Page | Landing":
        url = urljoin(self.origin, url)
        headers = {"Accept": ACCEPT, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"} | headers
        for _ in range(MOST_STEPS):
            answer = self.transport(method, url.partition("#")[0], headers, body)
            location = answer.headers.get("Location")
            if answer.status not in {301, 302, 303, 307, 308} or location is None:
                return _page(url, answer)
            url = urljoin(url, location)
            if answer.status in {301, 302, 303} and method == "POST":
                method, body = "GET", None
                headers.pop("Content-Type", None)
            if redirect_uri is not None and _same(url, redirect_uri):
                return _landing(url, redirect_uri, self.pressed)
        raise AssertionError(f"redirected {MOST_STEPS} times, at last to {url}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _same(url: str, redirect_uri: str) -> bool:
    """But for query and fragment."""
    one, other = urlsplit(url), urlsplit(redirect_uri)
    return one[:3] == other[:3]


def _landing(url: str, redirect_uri: str, pressed: list[str]) -> Landing:
    parts = urlsplit(url)
    # Whatever the redirect URI had in its query is the client's own.
    own = parse_qsl(urlsplit(redirect_uri).query, keep_blank_values=True)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair not in own]
    pairs = query + parse_qsl(parts.fragment, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs), f"a parameter twice: {url}"
    return Landing(url, dict(pairs), pressed)


def _page(url: str, answer: Answer) -> Page:
    page = Page(url, answer.status, answer.headers, answer.text)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        parser = _Parser(page)
        parser.feed(answer.text)
        parser.close()
    return page


class _Parser(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page
        self.form: Form | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            action = urljoin(self.page.url, given.get("action") or self.page.url)
            self.form = Form(action, given.get("method", "get").upper())
            self.page.forms.append(self.form)
        elif tag == "iframe":
            self.page.frames.append(urljoin(self.page.url, given.get("src", "")))
        elif tag == "a" and "href" in given:
            self.page.links.append(urljoin(self.page.url, given["href"]))
        elif self.form is not None and tag in {"input", "button", "textarea"} and "disabled" not in given:
            self._control(self.form, tag, given)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.form = None

    def _control(self, form: Form, tag: str, given: dict[str, str]) -> None:
        kind = given.get("type", "submit" if tag == "button" else "text").lower()
        name, value = given.get("name", ""), given.get("value", "")
        if kind in {"submit", "image"}:
            action = urljoin(self.page.url, given["formaction"]) if "formaction" in given else None
            form.buttons.append(Button(given.get("id", ""), name, value, action))
        elif kind in {"checkbox", "radio"}:
            chosen = form.fields if "checked" in given else form.boxes
            chosen.append((name, value or "on"))
        elif name and kind not in {"button", "reset"}:
            form.fields.append((name, value))
