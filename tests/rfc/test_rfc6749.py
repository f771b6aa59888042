"""RFC 6749: the token endpoint, its clients, its grants and its errors."""

import re
from base64 import b64encode
from typing import Any

from tests.answers import DESCRIPTION, granted, refused
from tests.conftest import PASSWORD, Api
from tokenserver.clients import client_secret
from tokenserver.rooms import Rooms
from tokenserver.tokens.access_token import new_jti

FIRST_PARTY = {"client_id": "first-party"}
ANN = {"grant_type": "password", "username": "ann", "password": PASSWORD}


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()}


def post(api: Api, form: str | dict[str, str], **options: Any) -> Any:
    content_type = "application/x-www-form-urlencoded"
    return api.http.post("/oauth/token", data=form, content_type=content_type, **options)


def test_grant_type_is_required_and_known(api: Api, confidential: tuple[str, str]):
    """Section 5.2."""
    refused(api.token(confidential), 400, "invalid_request")
    refused(api.token(confidential, grant_type=""), 400, "invalid_request")
    for unknown in ("nope", "PASSWORD", "authorization_code ", "implicit", "none"):
        refused(api.token(confidential, grant_type=unknown), 400, "unsupported_grant_type")


def test_parameters_of_a_grant_are_required(api: Api):
    """Sections 4.3.2 and 6; 3.2: a parameter without a value is an omitted one."""
    api.register()
    for form in (ANN, {"grant_type": "refresh_token", "refresh_token": "x"}):
        for name in form.keys() - {"grant_type"}:
            without = {key: value for key, value in form.items() if key != name}
            refused(api.token(None, **FIRST_PARTY, **without), 400, "invalid_request")
            refused(api.token(None, **FIRST_PARTY, **without, **{name: ""}), 400, "invalid_request")
    granted(api.token(None, **FIRST_PARTY, **ANN, scope="", nonsense=""))


def test_no_parameter_twice(api: Api):
    """Section 3.2."""
    tokens = api.signed_in()
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    for form in (ANN, refresh):
        pairs = [f"{name}={value}" for name, value in {**form, **FIRST_PARTY, "scope": "posts:create"}.items()]
        for pair in pairs:
            name = pair.partition("=")[0]
            for again in (pair, f"{name}=", f"{name}=other", f"%{ord(name[0]):x}{name[1:]}=other"):
                refused(post(api, "&".join([*pairs, again])), 400, "invalid_request")
                refused(post(api, "&".join([again, *pairs])), 400, "invalid_request")
    assert granted(api.refresh(tokens["refresh_token"]))  # it was not spent


def test_unrecognised_parameters_are_ignored(api: Api):
    """Section 3.2."""
    api.register()
    granted(api.token(None, **ANN, **FIRST_PARTY, state="x", resource_owner="admin", roles="admin", sub="1"))


def test_post_in_the_body_alone(api: Api, confidential: tuple[str, str]):
    """Sections 3.2 and 2.3.1: credentials must not be in the request URI."""
    form = {"grant_type": "client_credentials"}
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        response = api.http.open("/oauth/token", method=method, query_string=form, auth=confidential)
        assert "POST" in refused(response, 405, "invalid_request").headers["Allow"]
    refused(api.http.post("/oauth/token", query_string=form, auth=confidential), 400, "invalid_request")
    credentials = dict(zip(("client_id", "client_secret"), confidential, strict=True))
    for query in ({"scope": "posts:create"}, credentials, {"client_id": confidential[0]}):
        response = api.http.post("/oauth/token", query_string=query, data=form, auth=confidential)
        refused(response, 400, "invalid_request")
    refused(api.http.post("/oauth/token", json=form, auth=confidential), 400, "invalid_request")


def test_failed_basic_authentication_is_challenged(api: Api, confidential: tuple[str, str]):
    """Section 5.2: 401 and a challenge for the scheme that the client used; one text whatever was wrong."""
    client_id, secret = confidential
    texts = set()
    for name, given in (
        (client_id, "wrong"),
        (client_id, ""),
        (client_id, secret[:-1]),
        (client_id, secret + "x"),
        (client_id, secret.upper()),
        (client_id.upper(), secret),
        ("unknown", secret),
        ("first-party", ""),
        ("", ""),
    ):
        response = api.token((name, given), grant_type="client_credentials")
        refused(response, 401, "invalid_client")
        assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
        texts.add(response.json["error_description"])
    assert len(texts) == 1


def test_failed_authentication_in_the_body(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Sections 2.3.1 and 5.2; a client authenticates by the one method that it registered."""
    _, secret = rooms.clients.create(
        client_id="poster",
        client_name="P",
        grant_types=["client_credentials"],
        scope=["posts:create"],
        token_endpoint_auth_method="client_secret_post",
    )
    form = {"grant_type": "client_credentials", "client_id": "poster"}
    granted(api.token(None, **form, client_secret=str(secret)))
    wrong: list[dict[str, str]] = [{"client_secret": "wrong"}, {"client_secret": ""}, {}]
    for given in wrong:
        refused(api.token(None, **form, **given), 401, "invalid_client")
    refused(api.token(("poster", str(secret)), grant_type="client_credentials"), 401, "invalid_client")
    by_body = {"client_id": confidential[0], "client_secret": confidential[1]}
    refused(api.token(None, grant_type="client_credentials", **by_body), 401, "invalid_client")
    # Section 4.4.2: the client MUST authenticate; an id alone is a public client's way.
    refused(api.token(None, grant_type="client_credentials", client_id=confidential[0]), 401, "invalid_client")
    refused(api.token(None, grant_type="client_credentials"), 401, "invalid_client")


def test_one_method_of_authentication_in_a_request(api: Api, confidential: tuple[str, str]):
    """Section 2.3."""
    client_id, secret = confidential
    form = {"grant_type": "client_credentials"}
    refused(api.token(confidential, **form, client_secret=secret), 400, "invalid_request")
    refused(api.token(confidential, **form, client_id=client_id, client_secret=secret), 400, "invalid_request")
    refused(api.token(confidential, **form, client_id="first-party"), 400, "invalid_request")
    granted(api.token(confidential, **form, client_id=client_id))  # its own id is no second method


def test_basic_credentials_are_form_encoded(api: Api, confidential: tuple[str, str]):
    """Section 2.3.1, appendix B."""
    client_id, secret = confidential
    encoded = [f"%{ord(c):02X}" for c in secret]
    for user, password in ((client_id, "".join(encoded)), (f"%62{client_id[1:]}", secret)):
        granted(post(api, {"grant_type": "client_credentials"}, headers=basic(user, password)))
    lower = {"Authorization": basic(client_id, secret)["Authorization"].replace("Basic", "bAsIc", 1)}
    granted(post(api, {"grant_type": "client_credentials"}, headers=lower))


def test_every_answer_is_json_that_nobody_stores(api: Api, confidential: tuple[str, str]):
    """Sections 5.1 and 5.2."""
    answers = [
        (200, api.token(confidential, grant_type="client_credentials")),
        (400, api.token(confidential, grant_type="nope")),
        (400, api.token(confidential, grant_type="refresh_token", refresh_token="x")),
        (401, api.token(None, grant_type="client_credentials")),
        (405, api.http.get("/oauth/token")),
        (413, api.token(confidential, grant_type="x" * 70_000)),
    ]
    for status, response in answers:
        assert response.status_code == status
        assert response.mimetype == "application/json"
        assert (response.headers["Cache-Control"], response.headers["Pragma"]) == ("no-store", "no-cache")


def test_successful_answer(api: Api, confidential: tuple[str, str]):
    """Section 5.1."""
    api.register()
    for tokens, has_refresh in (
        (granted(api.token(None, **ANN, **FIRST_PARTY)), True),
        (granted(api.token(confidential, grant_type="client_credentials")), False),
    ):
        assert isinstance(tokens["access_token"], str)
        assert tokens["token_type"] == "Bearer"
        assert tokens["expires_in"] == 300
        assert ("refresh_token" in tokens) == has_refresh
        assert tokens.keys() <= {"access_token", "token_type", "expires_in", "refresh_token", "scope", "id_token"}


def test_scope_is_told_whenever_it_differs_from_what_was_asked(api: Api, confidential: tuple[str, str]):
    """Sections 3.3 and 5.1: a user's token covers what the user holds of it."""
    api.register()
    asked = "users:read openid posts:create"
    assert granted(api.token(confidential, **ANN, scope=asked))["scope"] == "openid posts:create"
    # RFC 6749 section 3.3: order doesn't matter, and twice is once
    assert (
        granted(api.token(confidential, **ANN, scope="posts:create openid openid"))["scope"]
        == "openid posts:create"
    )
    # Left out: a documented default, never an empty scope by accident.
    assert granted(api.token(confidential, **ANN))["scope"] == "openid posts:create"
    assert granted(api.token(None, **ANN, **FIRST_PARTY))["scope"] == "posts:create"
    own = granted(api.token(confidential, grant_type="client_credentials"))
    assert own["scope"] == "posts:create tokens:introspect users:read"


def test_scope_unknown_malformed_or_beyond_the_registration(api: Api, confidential: tuple[str, str]):
    """Section 5.2, invalid_scope."""
    api.register()
    beyond = ("roles:write", "posts:create roles:write", "profile")
    for scope in ("nope", "openid nope", " ", "openid  posts:create", "openid\tposts:create", '"openid"', *beyond):
        refused(api.token(confidential, **ANN, scope=scope), 400, "invalid_scope")
        refused(api.token(confidential, grant_type="client_credentials", scope=scope), 400, "invalid_scope")
    # A client has no profile of its own, and the user holds nothing of this.
    refused(api.token(confidential, grant_type="client_credentials", scope="openid"), 400, "invalid_scope")
    refused(api.token(confidential, **ANN, scope="users:read"), 400, "invalid_scope")
    for scope in ("roles:write", "posts:create nope"):
        refused(api.token(None, **ANN, **FIRST_PARTY, scope=scope), 400, "invalid_scope")


def test_invalid_grant_has_one_text_whatever_was_wrong(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 5.2: it never tells whether a user exists."""
    tokens = api.signed_in()
    ended = granted(api.token(confidential, **ANN))["refresh_token"]
    granted(api.http.post("/oauth/revoke", data={"token": ended}, auth=confidential))
    forms = [
        {**ANN, "password": "wrong"},
        {**ANN, "password": PASSWORD.upper()},
        {**ANN, "username": "nobody"},
        {**ANN, "username": "nobody@example.org"},
        {**ANN, "username": "\u2603"},
        *(
            {"grant_type": "refresh_token", "refresh_token": token}
            for token in (ended, "x", "rt_", "rt_" + "A" * 70, tokens["refresh_token"], tokens["access_token"])
        ),
    ]
    texts = {
        refused(api.token(confidential, **form), 400, "invalid_grant").json["error_description"] for form in forms
    }
    assert len(texts) == 1


def test_grant_that_the_client_didn_t_register(api: Api, rooms: Rooms):
    """Section 5.2, unauthorized_client."""
    api.register()
    _, secret = rooms.clients.create(
        client_id="machine", client_name="M", grant_types=["client_credentials"], scope=["posts:create"]
    )
    machine = ("machine", str(secret))
    granted(api.token(machine, grant_type="client_credentials"))
    refused(api.token(machine, **ANN), 400, "unauthorized_client")
    refused(api.token(machine, grant_type="refresh_token", refresh_token="x"), 400, "unauthorized_client")
    rooms.clients.create(
        client_id="app", client_name="A", grant_types=["password"], token_endpoint_auth_method="none"
    )
    tokens = granted(api.token(None, **ANN, client_id="app"))
    assert "refresh_token" not in tokens  # section 1.5: nothing that the client couldn't use
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "app"}
    refused(api.token(None, **form), 400, "unauthorized_client")


def test_client_credentials_are_for_confidential_clients_and_give_no_refresh_token(
    api: Api, confidential: tuple[str, str]
):
    """Sections 4.4 and 4.4.3."""
    assert "refresh_token" not in granted(api.token(confidential, grant_type="client_credentials"))
    refused(api.token(None, grant_type="client_credentials", **FIRST_PARTY), 401, "invalid_client")


def test_refresh_narrows_once_and_never_widens(api: Api, confidential: tuple[str, str]):
    """Section 6: the new refresh token keeps the scope of the old one."""
    api.register()

    def refresh(token: str, **more: str) -> Any:
        return api.token(confidential, grant_type="refresh_token", refresh_token=token, **more)

    first = granted(api.token(confidential, **ANN, scope="openid posts:create"))
    narrow = granted(refresh(first["refresh_token"], scope="posts:create"))
    assert narrow["scope"] == "posts:create"
    wide = granted(refresh(narrow["refresh_token"]))
    assert wide["scope"] == "openid posts:create"
    for beyond in ("openid posts:create users:read", "users:read", "profile", "roles:write"):
        refused(refresh(wide["refresh_token"], scope=beyond), 400, "invalid_scope")
    # None of the refusals spent it.
    assert granted(refresh(wide["refresh_token"], scope="openid"))["scope"] == "openid"


def test_refresh_token_is_bound_to_its_client(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 6; a stranger's attempt neither spends nor ends it."""
    api.register()
    other, secret = rooms.clients.create(
        client_id="other", client_name="O", grant_types=["password", "refresh_token"], scope=["posts:create"]
    )
    token = granted(api.token(confidential, **ANN))["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    refused(api.token((other.client_id, str(secret)), **form), 400, "invalid_grant")
    refused(api.token(None, **form, **FIRST_PARTY), 400, "invalid_grant")
    refused(api.refresh(token), 401, "invalid_refresh_token")
    # Section 6: a confidential client MUST authenticate for it.
    refused(api.token(None, **form, client_id=confidential[0]), 401, "invalid_client")
    refused(api.token((confidential[0], "wrong"), **form), 401, "invalid_client")
    assert granted(api.token(confidential, **form))["refresh_token"] != token


def test_tokens_and_secrets_can_t_be_guessed():
    """Section 10.10: no duplicate among 20,000, and 128 bits at least."""
    count = 20_000
    secrets = {client_secret.generate() for _ in range(count)}
    assert len(secrets) == count
    assert all(re.fullmatch(r"cs_[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    jtis = [new_jti(1_700_000_000_000) for _ in range(count)]
    assert len(set(jtis)) == count  # of one and the same millisecond


def test_refresh_tokens_differ_and_are_long(api: Api):
    """Section 10.10."""
    api.register()
    tokens = [api.login()["refresh_token"] for _ in range(3)]
    tokens += [granted(api.refresh(token))["refresh_token"] for token in tokens]
    assert len(set(tokens)) == 6
    assert all(re.fullmatch(r"rt_[A-Za-z0-9_-]{70}", token) for token in tokens)


def test_error_description_keeps_to_its_characters(api: Api, confidential: tuple[str, str]):
    """Section 5.2: whatever the request holds, no text of it comes back."""
    for evil in ('"quoted"', "back\\slash", "caf\u00e9", "\u2603", "line\r\nbreak", "\x7f", "<b>", "%00"):
        for form in (
            {"grant_type": evil},
            {"grant_type": "client_credentials", "scope": evil},
            {"grant_type": "password", "username": evil, "password": evil},
            {"grant_type": "refresh_token", "refresh_token": evil},
        ):
            response = api.token(confidential, **form)
            assert response.status_code == 400
            assert DESCRIPTION.fullmatch(response.json["error_description"])
            assert evil not in response.text.replace(response.json["request_id"], "")
